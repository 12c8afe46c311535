CREATE VIEW raw.record_payload AS
SELECT
    record.record_id,
    record.page_id,
    record.batch_id,
    record.source,
    record.record_key,
    record.content_sha256,
    page.feed,
    page.received_at,
    substring(page.body FROM record.byte_start + 1 FOR record.byte_length) AS payload
FROM raw.record AS record
JOIN raw.page AS page USING (page_id);
COMMENT ON VIEW raw.record_payload IS
    'The exact bytes of every landed record, cut from its page; convert_from(payload, ''UTF8'') shows them as text.';
COMMENT ON COLUMN raw.record_payload.record_id IS 'The record (raw.record).';
COMMENT ON COLUMN raw.record_payload.page_id IS 'The page that holds it (raw.page).';
COMMENT ON COLUMN raw.record_payload.batch_id IS 'The batch that it was landed in (ops.batch).';
COMMENT ON COLUMN raw.record_payload.source IS 'Which provider sent it.';
COMMENT ON COLUMN raw.record_payload.record_key IS 'The provider''s id of the message; sha256:… of the text where it carries none.';
COMMENT ON COLUMN raw.record_payload.content_sha256 IS 'SHA-256 of its exact text.';
COMMENT ON COLUMN raw.record_payload.feed IS 'Which of the provider''s feeds.';
COMMENT ON COLUMN raw.record_payload.received_at IS 'When the last byte of its page had arrived (UTC).';
COMMENT ON COLUMN raw.record_payload.payload IS 'Its exact bytes.';
