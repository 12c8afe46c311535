CREATE VIEW finance.batch AS
SELECT
    batch_id,
    source,
    feed,
    kind,
    state,
    received,
    duplicates,
    undecodable,
    landed,
    published,
    not_applied,
    evidence_only,
    quarantined,
    discarded,
    landed - published - not_applied - evidence_only - quarantined - discarded AS waiting,
    has_reached_end,
    held_reason,
    opened_at,
    landed_at,
    published_at
FROM ops.batch;

COMMENT ON VIEW finance.batch IS
    'Every delivery and what became of its records. received = landed + duplicates + undecodable, and landed = published + not_applied + evidence_only + quarantined + discarded + waiting: no record is unaccounted for.';
COMMENT ON COLUMN finance.batch.batch_id IS 'The batch''s number, ascending.';
COMMENT ON COLUMN finance.batch.source IS 'The provider whose records it holds.';
COMMENT ON COLUMN finance.batch.feed IS 'Which of the provider''s feeds.';
COMMENT ON COLUMN finance.batch.kind IS 'fetch: what the provider had that was new. fill: asked for to close a gap. replay: records from quarantine, tried again. evidence: kept, and settling nothing.';
COMMENT ON COLUMN finance.batch.state IS 'How far it is: landing, landed, normalized, published; held: a check stopped it until a person decides; discarded: a person gave it up.';
COMMENT ON COLUMN finance.batch.received IS 'Records that arrived.';
COMMENT ON COLUMN finance.batch.duplicates IS 'Of these, records that were here already: usual, because the end of the feed is read again.';
COMMENT ON COLUMN finance.batch.undecodable IS 'Of these, messages that could not be read.';
COMMENT ON COLUMN finance.batch.landed IS 'Of these, records that were new and are kept.';
COMMENT ON COLUMN finance.batch.published IS 'Landed records that became the current version of their subject.';
COMMENT ON COLUMN finance.batch.not_applied IS 'Landed records kept as versions that did not become current when they were recorded: a later decision, or another content of the same one, was here before.';
COMMENT ON COLUMN finance.batch.evidence_only IS 'Landed records that are kept and settle nothing.';
COMMENT ON COLUMN finance.batch.quarantined IS 'Landed records held back (finance.quarantined). One that is tried again later is published by another batch.';
COMMENT ON COLUMN finance.batch.discarded IS 'Landed records given up with the whole batch, by a decision.';
COMMENT ON COLUMN finance.batch.waiting IS 'Landed records that none of this has happened to yet; 0 once the batch is published or discarded.';
COMMENT ON COLUMN finance.batch.has_reached_end IS 'It read to the newest decision that the provider had.';
COMMENT ON COLUMN finance.batch.held_reason IS 'Which check held it and why; NULL if none did.';
COMMENT ON COLUMN finance.batch.opened_at IS 'When it was opened (UTC).';
COMMENT ON COLUMN finance.batch.landed_at IS 'When it stopped taking records (UTC).';
COMMENT ON COLUMN finance.batch.published_at IS 'When it was published (UTC); NULL if it is not.';
