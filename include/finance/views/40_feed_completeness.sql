CREATE VIEW finance.feed_completeness AS
WITH feed AS (
    SELECT source, feed FROM ops.cursor
    UNION
    SELECT source, feed FROM ops.batch
    WHERE kind <> 'evidence'
),
unfinished AS (
    SELECT batch_id, source, feed, state, opened_at, held_at, held_reason
    FROM ops.batch
    WHERE state IN ('landing', 'landed', 'normalized', 'held')
),
-- Counted as still held back until the batch that tries it again is published.
quarantined AS (
    SELECT landed_in.source, landed_in.feed, landed_in.opened_at
    FROM ops.quarantine AS quarantine
    JOIN raw.record AS record USING (record_id)
    JOIN ops.batch AS landed_in ON landed_in.batch_id = record.batch_id
    WHERE quarantine.state = 'open'
        OR (
            quarantine.state = 'replayed'
            AND quarantine.replay_batch_id IN (SELECT batch_id FROM unfinished)
        )
),
-- Since they arrived, which for those of a replay was in another batch than they are published in.
contested AS (
    SELECT landed_in.source, landed_in.feed, landed_in.opened_at
    FROM core.settlement AS settlement
    LEFT JOIN raw.record AS record USING (record_id)
    JOIN ops.batch AS landed_in
        ON landed_in.batch_id = coalesce(record.batch_id, settlement.batch_id)
    WHERE settlement.is_contested
),
gap AS (
    SELECT source, feed, opened_at FROM ops.gap WHERE state = 'open'
),
missing AS (
    SELECT
        source,
        feed,
        count(*) FILTER (WHERE kind = 'unfinished') AS unfinished_batches,
        min(since) FILTER (WHERE kind = 'unfinished') AS oldest_unfinished_at,
        count(*) FILTER (WHERE kind = 'held') AS held_batches,
        count(*) FILTER (WHERE kind = 'gap') AS open_gaps,
        count(*) FILTER (WHERE kind = 'quarantined') AS quarantined_records,
        count(*) FILTER (WHERE kind = 'contested') AS contested_versions,
        min(since) AS since
    FROM (
        SELECT
            source,
            feed,
            opened_at AS since,
            CASE state WHEN 'held' THEN 'held' ELSE 'unfinished' END AS kind
        FROM unfinished
        UNION ALL
        SELECT source, feed, opened_at, 'gap' FROM gap
        UNION ALL
        SELECT source, feed, opened_at, 'quarantined' FROM quarantined
        UNION ALL
        SELECT source, feed, opened_at, 'contested' FROM contested
    ) AS one
    GROUP BY source, feed
)
SELECT
    feed.source,
    feed.feed,
    complete.opened_at AS complete_until,
    CASE
        WHEN complete.opened_at IS NULL THEN 'No number of this feed can be trusted yet'
        ELSE 'Numbers can be trusted up to '
            || to_char(complete.opened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
    END
        || coalesce(': ' || nullif(concat_ws(
            ', ',
            CASE WHEN missing.held_batches > 0
                THEN 'batches held by a check: ' || missing.held_batches END,
            CASE WHEN missing.unfinished_batches > 0
                THEN 'batches on their way: ' || missing.unfinished_batches END,
            CASE WHEN missing.open_gaps > 0 THEN 'gaps: ' || missing.open_gaps END,
            CASE WHEN missing.quarantined_records > 0
                THEN 'records in quarantine: ' || missing.quarantined_records END,
            CASE WHEN missing.contested_versions > 0
                THEN 'contested versions: ' || missing.contested_versions END,
            'reading stopped until finding ' || cursor.stopped_by_finding_id || ' is decided'
        ), ''), '')
        || '.' AS statement,
    cursor.completed_at AS last_completed_at,
    last_batch.batch_id AS last_batch_id,
    last_batch.state AS last_batch_state,
    last_batch.opened_at AS last_batch_opened_at,
    coalesce(missing.unfinished_batches, 0) AS unfinished_batches,
    missing.oldest_unfinished_at,
    coalesce(missing.held_batches, 0) AS held_batches,
    oldest_held.held_at AS oldest_held_at,
    oldest_held.held_reason AS oldest_held_reason,
    coalesce(missing.open_gaps, 0) AS open_gaps,
    coalesce(missing.quarantined_records, 0) AS quarantined_records,
    coalesce(missing.contested_versions, 0) AS contested_versions,
    cursor.stopped_by_finding_id,
    stopping_finding.summary AS stopped_because,
    newest.settled_at AS newest_settled_at
FROM feed
LEFT JOIN ops.cursor AS cursor USING (source, feed)
LEFT JOIN missing USING (source, feed)
LEFT JOIN ops.finding AS stopping_finding
    ON stopping_finding.finding_id = cursor.stopped_by_finding_id
LEFT JOIN LATERAL (
    SELECT batch.batch_id, batch.state, batch.opened_at
    FROM ops.batch AS batch
    WHERE batch.source = feed.source AND batch.feed = feed.feed
    ORDER BY batch.batch_id DESC
    LIMIT 1
) AS last_batch ON true
-- Such a batch had read everything there was when it was opened, and had stopped reading before
-- the oldest thing that is missing from the numbers turned up.
LEFT JOIN LATERAL (
    SELECT batch.opened_at
    FROM ops.batch AS batch
    WHERE batch.source = feed.source
        AND batch.feed = feed.feed
        AND batch.kind IN ('fetch', 'evidence')
        AND batch.has_reached_end
        AND batch.state IN ('published', 'discarded')
        AND batch.landed_at < coalesce(missing.since, 'infinity')
    ORDER BY batch.batch_id DESC
    LIMIT 1
) AS complete ON true
LEFT JOIN LATERAL (
    SELECT unfinished.held_at, unfinished.held_reason
    FROM unfinished
    WHERE unfinished.source = feed.source
        AND unfinished.feed = feed.feed
        AND unfinished.state = 'held'
    ORDER BY unfinished.held_at
    LIMIT 1
) AS oldest_held ON true
LEFT JOIN LATERAL (
    SELECT batch.batch_id, batch.record_id_first, batch.record_id_last
    FROM ops.batch AS batch
    WHERE batch.source = feed.source
        AND batch.feed = feed.feed
        AND batch.kind = 'fetch'
        AND batch.state = 'published'
        AND batch.published > 0
    ORDER BY batch.batch_id DESC
    LIMIT 1
) AS last_published ON true
LEFT JOIN LATERAL (
    SELECT max(settlement.settled_at) AS settled_at
    FROM core.settlement AS settlement
    WHERE settlement.record_id
        BETWEEN last_published.record_id_first AND last_published.record_id_last
        AND settlement.batch_id = last_published.batch_id
) AS newest ON true;

COMMENT ON VIEW finance.feed_completeness IS
    'How far each feed can be trusted, and what is missing if not all of it. Look here before using a number: a feed that has stopped must not look like a quiet day.';
COMMENT ON COLUMN finance.feed_completeness.source IS 'The provider.';
COMMENT ON COLUMN finance.feed_completeness.feed IS 'Which of the provider''s feeds.';
COMMENT ON COLUMN finance.feed_completeness.complete_until IS 'Every decision that the provider showed up to this moment (UTC) is in the numbers, or was given up by a decision of ours; NULL: nothing can be trusted yet. It stands still while anything older is held, in quarantine, missing or contested.';
COMMENT ON COLUMN finance.feed_completeness.statement IS 'The same in a sentence, with everything that is missing.';
COMMENT ON COLUMN finance.feed_completeness.last_completed_at IS 'When a fetch last reached the provider''s newest decision (UTC), whether or not what it brought is published yet.';
COMMENT ON COLUMN finance.feed_completeness.last_batch_id IS 'The newest batch (finance.batch).';
COMMENT ON COLUMN finance.feed_completeness.last_batch_state IS 'How far the newest batch is: landing, landed, normalized, published, held or discarded.';
COMMENT ON COLUMN finance.feed_completeness.last_batch_opened_at IS 'When the newest batch was opened (UTC): if this is long ago, the pipeline does not run.';
COMMENT ON COLUMN finance.feed_completeness.unfinished_batches IS 'Batches on their way, not held; one or two are usual while the pipeline runs.';
COMMENT ON COLUMN finance.feed_completeness.oldest_unfinished_at IS 'When the oldest of them was opened (UTC); NULL if there is none.';
COMMENT ON COLUMN finance.feed_completeness.held_batches IS 'Batches that a check holds until a person decides; nothing of them is in the numbers.';
COMMENT ON COLUMN finance.feed_completeness.oldest_held_at IS 'When the oldest hold began (UTC); NULL if there is none.';
COMMENT ON COLUMN finance.feed_completeness.oldest_held_reason IS 'Which check holds that batch and why.';
COMMENT ON COLUMN finance.feed_completeness.open_gaps IS 'Ranges of the feed that may be missing (finance.gap).';
COMMENT ON COLUMN finance.feed_completeness.quarantined_records IS 'Records held back one by one (finance.quarantined) and not yet published or given up.';
COMMENT ON COLUMN finance.feed_completeness.contested_versions IS 'Versions outside the totals because the provider told two contents of one decision.';
COMMENT ON COLUMN finance.feed_completeness.stopped_by_finding_id IS 'The finding (finance.finding_open) that must be decided before the feed is read on; NULL if it is read.';
COMMENT ON COLUMN finance.feed_completeness.stopped_because IS 'What that finding says.';
COMMENT ON COLUMN finance.feed_completeness.newest_settled_at IS 'The latest provider time of a decision (UTC) in the last fetched batch that changed anything.';
