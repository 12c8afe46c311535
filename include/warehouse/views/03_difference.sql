CREATE VIEW prediction.difference AS
SELECT
    credit.settlement_id,
    credit.market_id,
    credit.position_id,
    credit.player_id,
    adjustment.currency,
    adjustment.difference AS amount,
    adjustment.adjusted_at AS told_at,
    adjustment.finding_id
FROM prediction.adjustment AS adjustment
JOIN prediction.credit AS credit USING (credit_id)
UNION ALL
SELECT
    told.source_key,
    told.market_id,
    told.position_id,
    told.player_id,
    told.currency,
    told.payout,
    told.recorded_at,
    NULL
FROM core.settlement AS told
JOIN prediction.credit AS credit ON credit.settlement_id = told.source_key
WHERE told.source = 'prediction' AND told.is_current AND NOT told.is_contested
    AND told.status = 'settled' AND told.payout > 0
    AND credit.state IN ('sending', 'acknowledged')
    AND (told.currency, told.player_id) IS DISTINCT FROM (credit.currency, credit.player_id);

COMMENT ON VIEW prediction.difference IS
    'What settlements say otherwise since their credits were sent or paid, with the players in clear: paid by hand, or taken back where it is below 0. What a settlement pays to another player, or in another currency, is two rows: the first takes back what was credited, the second is what is due instead.';
COMMENT ON COLUMN prediction.difference.settlement_id IS 'The settlement that says so.';
COMMENT ON COLUMN prediction.difference.market_id IS 'Its market.';
COMMENT ON COLUMN prediction.difference.position_id IS 'Its position.';
COMMENT ON COLUMN prediction.difference.player_id IS 'Who is to be paid, or to give back, in clear; NULL if the settlement does not tell.';
COMMENT ON COLUMN prediction.difference.currency IS 'Currency of amount; NULL if it is not known.';
COMMENT ON COLUMN prediction.difference.amount IS 'What is to be paid, or, below 0, taken back, in major units.';
COMMENT ON COLUMN prediction.difference.told_at IS 'Since when it is known (UTC).';
COMMENT ON COLUMN prediction.difference.finding_id IS 'The finding credit_adjusted that asks for it. NULL: the one about its market does, and of this amount is due what was not paid after an earlier one; or none was opened yet.';
