CREATE VIEW finance.quarantined AS
SELECT
    quarantine.quarantine_id,
    quarantine.source,
    batch.feed,
    record.record_key,
    quarantine.rule,
    quarantine.reason,
    quarantine.stage,
    quarantine.state,
    quarantine.quarantined_at,
    quarantine.batch_id,
    quarantine.replay_batch_id,
    quarantine.record_id
FROM ops.quarantine AS quarantine
JOIN ops.batch AS batch USING (batch_id)
JOIN raw.record AS record USING (record_id);

COMMENT ON VIEW finance.quarantined IS
    'Records that were held back, each with the reason. What is held back now has the state open; none of that is in any number.';
COMMENT ON COLUMN finance.quarantined.quarantine_id IS 'Our number of the case, ascending.';
COMMENT ON COLUMN finance.quarantined.source IS 'The provider whose record it is.';
COMMENT ON COLUMN finance.quarantined.feed IS 'Which of the provider''s feeds.';
COMMENT ON COLUMN finance.quarantined.record_key IS 'The provider''s id of the record, to ask it about; sha256:… of its text if it carries none.';
COMMENT ON COLUMN finance.quarantined.rule IS 'The rule that it failed.';
COMMENT ON COLUMN finance.quarantined.reason IS 'How it failed.';
COMMENT ON COLUMN finance.quarantined.stage IS 'Which step held it back. raw: as it arrived. normalize: it could not be understood. settlement: it was understood and is wrong.';
COMMENT ON COLUMN finance.quarantined.state IS 'open: held back. retried: its batch is looked at again. replayed: another batch took it. discarded: given up by a decision.';
COMMENT ON COLUMN finance.quarantined.quarantined_at IS 'When it was held back (UTC).';
COMMENT ON COLUMN finance.quarantined.batch_id IS 'The batch that it was held back from (finance.batch).';
COMMENT ON COLUMN finance.quarantined.replay_batch_id IS 'The batch that took it up again; NULL if none did.';
COMMENT ON COLUMN finance.quarantined.record_id IS 'Our number of the record; the data team finds the exact text under it.';
