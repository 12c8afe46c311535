CREATE VIEW finance.tote_daily_return AS
SELECT
    (settled_at AT TIME ZONE 'UTC')::date AS settled_date,
    currency,
    status,
    count(*) AS bets,
    sum(stake) AS stake,
    sum(payout) AS payout,
    sum(payout - coalesce(refund, 0) - coalesce(enhancement, 0)) AS returned,
    sum(refund) AS refund,
    sum(enhancement) AS enhancement,
    count(*) - count(payout) AS bets_without_payout
FROM core.settlement
WHERE source = 'tote' AND is_current AND NOT is_contested
    AND status IN ('settled', 'void', 'cancelled')
GROUP BY 1, 2, 3;

COMMENT ON VIEW finance.tote_daily_return IS
    'What tote''s bets returned and refunded, by the UTC day on which that was first seen and by currency, as they stand now. Cancelled bets are here too, for their stakes are refunded, but not in finance.daily_bet. Never add up several currencies.';
COMMENT ON COLUMN finance.tote_daily_return.settled_date IS 'The UTC day on which an answer first told the bets so: tote tells no time of settlement. A correction moves its bet to another day, so past days change.';
COMMENT ON COLUMN finance.tote_daily_return.currency IS 'Currency of all amounts in the row; NULL: tote told no amount.';
COMMENT ON COLUMN finance.tote_daily_return.status IS 'settled, void (refunded) or cancelled.';
COMMENT ON COLUMN finance.tote_daily_return.bets IS 'How many bets.';
COMMENT ON COLUMN finance.tote_daily_return.stake IS 'Sum of their stakes, in major units of currency, exact.';
COMMENT ON COLUMN finance.tote_daily_return.payout IS 'Sum of all that was returned to the players: returned + refund + enhancement.';
COMMENT ON COLUMN finance.tote_daily_return.returned IS 'What of it was won: neither refund nor enhancement.';
COMMENT ON COLUMN finance.tote_daily_return.refund IS 'What of it are stakes that were given back; NULL where tote told none.';
COMMENT ON COLUMN finance.tote_daily_return.enhancement IS 'What of it is a promotion; NULL where tote told none.';
COMMENT ON COLUMN finance.tote_daily_return.bets_without_payout IS 'How many of the bets have no payout, and so no part in these sums: cancelled and not refunded yet.';
