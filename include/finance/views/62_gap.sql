CREATE VIEW finance.gap AS
SELECT
    gap_id,
    source,
    feed,
    range_after,
    range_before,
    reason,
    state,
    cardinality(subjects) AS subjects_to_ask_for,
    opened_at,
    tried_at,
    closed_at
FROM ops.gap;

COMMENT ON VIEW finance.gap IS
    'Ranges of a feed that are missing or may be: while one is open, numbers from before it was found cannot be trusted.';
COMMENT ON COLUMN finance.gap.gap_id IS 'The gap''s number, ascending.';
COMMENT ON COLUMN finance.gap.source IS 'The provider.';
COMMENT ON COLUMN finance.gap.feed IS 'Which of the provider''s feeds.';
COMMENT ON COLUMN finance.gap.range_after IS 'Records after this position of the feed may be missing; NULL: from the beginning.';
COMMENT ON COLUMN finance.gap.range_before IS 'Records before this position of the feed may be missing.';
COMMENT ON COLUMN finance.gap.reason IS 'How it came about.';
COMMENT ON COLUMN finance.gap.state IS 'open; accepted: a person decided that nothing is missing, or that it stays missing (finance.decision says which).';
COMMENT ON COLUMN finance.gap.subjects_to_ask_for IS 'How many matches or bets can be asked for one by one to fill it.';
COMMENT ON COLUMN finance.gap.opened_at IS 'When it was found (UTC).';
COMMENT ON COLUMN finance.gap.tried_at IS 'When these were last asked for (UTC); NULL: not yet.';
COMMENT ON COLUMN finance.gap.closed_at IS 'When it was accepted (UTC); NULL while open.';
