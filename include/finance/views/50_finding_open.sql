CREATE VIEW finance.finding_open AS
SELECT
    finding_id,
    severity,
    source,
    kind,
    subject,
    summary AS what_happened,
    kept AS what_was_kept,
    next_step,
    opened_at,
    last_seen_at,
    times_seen,
    batch_id
FROM ops.finding
WHERE state = 'open';

COMMENT ON VIEW finance.finding_open IS
    'What waits for a person now. Findings are answered in Airflow, with the DAG resolve_findings; the answers are in finance.decision.';
COMMENT ON COLUMN finance.finding_open.finding_id IS 'The finding''s number: give it in the form of resolve_findings.';
COMMENT ON COLUMN finance.finding_open.severity IS 'critical: numbers wait for it or are wrong. warning: look at it. info: know it.';
COMMENT ON COLUMN finance.finding_open.source IS 'The provider that it concerns.';
COMMENT ON COLUMN finance.finding_open.kind IS 'What sort of question it is: batch_held, records_quarantined, gap, settlement_contested, …';
COMMENT ON COLUMN finance.finding_open.subject IS 'What it concerns: a batch, a feed, a field, a settlement.';
COMMENT ON COLUMN finance.finding_open.what_happened IS 'What happened, in one sentence.';
COMMENT ON COLUMN finance.finding_open.what_was_kept IS 'What was kept, and what was not touched.';
COMMENT ON COLUMN finance.finding_open.next_step IS 'What to do, and the decisions there are to choose from.';
COMMENT ON COLUMN finance.finding_open.opened_at IS 'When it was first met (UTC).';
COMMENT ON COLUMN finance.finding_open.last_seen_at IS 'When it was last met (UTC).';
COMMENT ON COLUMN finance.finding_open.times_seen IS 'How often it was met while open.';
COMMENT ON COLUMN finance.finding_open.batch_id IS 'The batch that it concerns (finance.batch); NULL if none.';
