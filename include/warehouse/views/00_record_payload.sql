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
