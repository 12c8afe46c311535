CREATE VIEW core.settlement_current AS
SELECT source, source_key, version, provider_order, record_id
FROM core.settlement
WHERE is_current;
COMMENT ON VIEW core.settlement_current IS
    'Which version of each subject is current: one row each.';
COMMENT ON COLUMN core.settlement_current.source IS 'Which provider decided.';
COMMENT ON COLUMN core.settlement_current.source_key IS 'The subject decided about.';
COMMENT ON COLUMN core.settlement_current.version IS 'The version that is current (core.settlement).';
COMMENT ON COLUMN core.settlement_current.provider_order IS 'Its place in the provider''s order.';
COMMENT ON COLUMN core.settlement_current.record_id IS 'Its record; the higher one wins where the order is equal.';
