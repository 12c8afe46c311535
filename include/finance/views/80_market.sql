CREATE VIEW finance.market AS
SELECT
    market.market_id,
    market.currency,
    market.state,
    market.state_since,
    market.entered_at,
    market.entered_by,
    coalesce(
        'event ' || (market.evidence ->> 'sequence'),
        'confirmed by ' || (market.evidence ->> 'confirmed_by')
    ) AS resolved_by,
    market.positions,
    market.completed_positions,
    market.failed_positions,
    market.pending_positions + market.processing_positions AS positions_under_way,
    market.total_payout AS told_payout,
    market.completed_payout AS told_completed_payout,
    coalesce(published.settlements, 0) AS published_positions,
    published.payout AS published_payout,
    market.settle_attempts,
    market.retry_attempts,
    market.trouble,
    market.finding_id
FROM prediction.market AS market
LEFT JOIN LATERAL (
    SELECT
        count(DISTINCT settlement.position_id) AS settlements,
        sum(settlement.payout) FILTER (WHERE settlement.status = 'settled') AS payout
    FROM core.settlement AS settlement
    WHERE settlement.source = 'prediction'
        -- As the index sorts it; compared as the queue sorts its ids, all would be read each time.
        AND settlement.market_id = market.market_id COLLATE "default"
        AND settlement.is_current
        AND NOT settlement.is_contested
) AS published ON true;
COMMENT ON VIEW finance.market IS
    'Every market of the prediction engine in the queue: how far it is settled, what the engine says it pays, and what of that is published. Once a market is done the two are equal, unless a decision lets another version count than the engine told last.';
COMMENT ON COLUMN finance.market.market_id IS 'The engine''s market.';
COMMENT ON COLUMN finance.market.currency IS 'Currency of its payouts; NULL: not known yet.';
COMMENT ON COLUMN finance.market.state IS 'done: all positions completed. held, failed, stuck, refused: waits for a person. withdrawn: not settled from here. Any other: on its way.';
COMMENT ON COLUMN finance.market.state_since IS 'Since when (UTC).';
COMMENT ON COLUMN finance.market.entered_at IS 'When it was entered into the queue (UTC).';
COMMENT ON COLUMN finance.market.entered_by IS 'sql, file, event or form.';
COMMENT ON COLUMN finance.market.resolved_by IS 'What says that it is resolved: the engine''s event, or a person; NULL: nothing yet.';
COMMENT ON COLUMN finance.market.positions IS 'Positions, as the engine last told; NULL: nothing was told.';
COMMENT ON COLUMN finance.market.completed_positions IS 'Of these, completed.';
COMMENT ON COLUMN finance.market.failed_positions IS 'Of these, failed.';
COMMENT ON COLUMN finance.market.positions_under_way IS 'Of these, pending or processing.';
COMMENT ON COLUMN finance.market.told_payout IS 'What the engine says all positions pay.';
COMMENT ON COLUMN finance.market.told_completed_payout IS 'What it says the completed ones pay.';
COMMENT ON COLUMN finance.market.published_positions IS 'Positions of which a settlement is published that is not contested.';
COMMENT ON COLUMN finance.market.published_payout IS 'Sum of the published payouts of completed settlements that are not contested; NULL: none.';
COMMENT ON COLUMN finance.market.settle_attempts IS 'How often it was ordered to be settled.';
COMMENT ON COLUMN finance.market.retry_attempts IS 'How often its failed positions were retried.';
COMMENT ON COLUMN finance.market.trouble IS 'Why the engine could not be read about it last; NULL: it could.';
COMMENT ON COLUMN finance.market.finding_id IS 'The finding that waits for a person; NULL: none.';
