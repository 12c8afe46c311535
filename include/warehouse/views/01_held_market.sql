CREATE VIEW prediction.held_market AS
SELECT
    market.market_id,
    CASE WHEN market.state = 'held' THEN market.finding_id END AS finding_id
FROM prediction.market AS market
WHERE market.state = 'held'
    OR market.differences @> '[{"is_holding": true}]'
    AND (market.state IN ('fetched', 'checked') OR market.listing_sha256 IS NULL)
    OR market.state = 'checked' AND EXISTS (
        SELECT
        FROM ops.batch
        WHERE batch.batch_id = market.batch_id AND batch.state = 'published'
    );

COMMENT ON VIEW prediction.held_market IS
    'The markets of which nobody is credited, sent to or owed anything now: those that are held, or whose list does not add up and was not decided about, or was not listed and checked again since; and for a moment those whose list is published, before it is added up once more.';
COMMENT ON COLUMN prediction.held_market.market_id IS 'The market (prediction.market).';
COMMENT ON COLUMN prediction.held_market.finding_id IS 'The finding that asks about it; NULL if none does yet, or it was decided.';
