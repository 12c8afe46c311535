CREATE VIEW finance.market_unpaid AS
WITH position AS (
    SELECT
        told.market_id,
        told.position_id,
        min(told.currency) AS currency,
        min(told.player_reference) AS player_reference,
        bool_or(told.status = 'settled') AS is_settled,
        (array_agg(told.status ORDER BY told.provider_order DESC, told.record_id DESC))[1]
            AS latest_status,
        (array_agg(told.reason ORDER BY told.provider_order DESC, told.record_id DESC)
            FILTER (WHERE told.status = 'failed'))[1] AS reason,
        max(told.settled_at) FILTER (WHERE told.status = 'failed') AS failed_at
    FROM core.settlement AS told
    WHERE told.source = 'prediction'
        AND told.is_current
        AND NOT told.is_contested
    GROUP BY told.market_id, told.position_id
)
SELECT
    position.market_id,
    position.position_id,
    position.player_reference,
    position.currency,
    CASE WHEN position.latest_status = 'failed' THEN 'failed' ELSE 'under way' END AS why,
    position.reason,
    position.failed_at,
    market.state AS market_state,
    market.retry_attempts,
    market.finding_id
FROM position
JOIN finance.market AS market USING (market_id)
WHERE NOT position.is_settled;
COMMENT ON VIEW finance.market_unpaid IS
    'Positions of settled markets that the engine has not completed: they failed, or are under way, and pay nothing until it does. What is contested, and what a market lists that is held, is in neither this view nor market_payout.';
COMMENT ON COLUMN finance.market_unpaid.market_id IS 'The market.';
COMMENT ON COLUMN finance.market_unpaid.position_id IS 'The position.';
COMMENT ON COLUMN finance.market_unpaid.player_reference IS 'Keyed hash of the player''s id.';
COMMENT ON COLUMN finance.market_unpaid.currency IS 'The market''s currency.';
COMMENT ON COLUMN finance.market_unpaid.why IS 'How its latest settlement stands: failed or under way.';
COMMENT ON COLUMN finance.market_unpaid.reason IS 'The engine''s error when it last failed, if it told one.';
COMMENT ON COLUMN finance.market_unpaid.failed_at IS 'When it last failed (UTC).';
COMMENT ON COLUMN finance.market_unpaid.market_state IS 'How its market stands.';
COMMENT ON COLUMN finance.market_unpaid.retry_attempts IS 'How often the market''s failed positions were retried.';
COMMENT ON COLUMN finance.market_unpaid.finding_id IS 'The finding that waits for a person; NULL: none.';
