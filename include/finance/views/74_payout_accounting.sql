CREATE VIEW finance.payout_accounting AS
SELECT
    accounting_date,
    business_date,
    currency,
    count(*) FILTER (WHERE disposition = 'processed') AS processed_payouts,
    coalesce(sum(amount) FILTER (WHERE disposition = 'processed'), 0) * 0.00001 AS processed_amount,
    count(*) FILTER (WHERE disposition = 'lost') AS lost_payouts,
    coalesce(sum(amount) FILTER (WHERE disposition = 'lost'), 0) * 0.00001 AS lost_amount,
    (accounting_date + time '01:00' + interval '1 day') AT TIME ZONE 'UTC' AS closes_at,
    now() >= (accounting_date + time '01:00' + interval '1 day') AT TIME ZONE 'UTC' AS is_closed
FROM wallet.transaction
WHERE accounting_date IS NOT NULL
GROUP BY accounting_date, business_date, currency;

COMMENT ON VIEW finance.payout_accounting IS
    'What was booked on each accounting date: the payouts that became processed or lost on it, by the day that they belong to. The totals of a closed date never change: what is decided later is booked on its own day.';
COMMENT ON COLUMN finance.payout_accounting.accounting_date IS 'The UTC day on which they became processed or lost.';
COMMENT ON COLUMN finance.payout_accounting.business_date IS 'The UTC day that the payouts belong to.';
COMMENT ON COLUMN finance.payout_accounting.currency IS 'Currency of all amounts in the row.';
COMMENT ON COLUMN finance.payout_accounting.processed_payouts IS 'How many the wallet paid.';
COMMENT ON COLUMN finance.payout_accounting.processed_amount IS 'What it paid, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout_accounting.lost_payouts IS 'How many will not be paid.';
COMMENT ON COLUMN finance.payout_accounting.lost_amount IS 'What will not be paid, in major units of currency.';
COMMENT ON COLUMN finance.payout_accounting.closes_at IS 'When the accounting date closes: 01:00 UTC of the next day.';
COMMENT ON COLUMN finance.payout_accounting.is_closed IS 'closes_at has passed.';
