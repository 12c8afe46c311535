CREATE VIEW finance.market_credit AS
SELECT
    market_id,
    currency,
    sum(completed) AS completed_amount,
    sum(credited) AS credited_amount,
    sum(adjusted) AS adjusted_amount,
    sum(completed) - sum(credited) - sum(adjusted) AS difference
FROM (
    SELECT market_id, currency, payout AS completed, 0 AS credited, 0 AS adjusted
    FROM core.settlement
    WHERE source = 'prediction' AND is_current AND NOT is_contested AND status = 'settled'
    UNION ALL
    SELECT market_id, currency, 0, amount, 0 FROM prediction.credit
    UNION ALL
    SELECT credit.market_id, adjustment.currency, 0, 0, adjustment.difference
    FROM prediction.adjustment AS adjustment
    JOIN prediction.credit AS credit USING (credit_id)
) AS booked
GROUP BY market_id, currency;

COMMENT ON VIEW finance.market_credit IS
    'What each market''s completed settlements pay beside what was credited for them. What does not agree: WHERE difference <> 0. Either the next run is still to come, the market is held, a settlement is contested, a position is completed twice or by another settlement than was credited, or what was sent or paid is due to another player or in another currency since (a finding says which). Or the market is not in the queue, and a released list of another one has settlements of it.';
COMMENT ON COLUMN finance.market_credit.market_id IS 'The market.';
COMMENT ON COLUMN finance.market_credit.currency IS 'Currency of the amounts; NULL if it is not known.';
COMMENT ON COLUMN finance.market_credit.completed_amount IS 'What its completed settlements pay now, in major units; exact, never a float.';
COMMENT ON COLUMN finance.market_credit.credited_amount IS 'What was credited for them, in whichever state.';
COMMENT ON COLUMN finance.market_credit.adjusted_amount IS 'What they said otherwise after it was sent or paid.';
COMMENT ON COLUMN finance.market_credit.difference IS 'completed_amount - credited_amount - adjusted_amount.';
