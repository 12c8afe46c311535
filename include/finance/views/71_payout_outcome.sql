CREATE VIEW finance.payout_outcome AS
SELECT
    business_date,
    currency,
    total.entered_payouts,
    total.entered_amount,
    total.processed_payouts,
    total.processed_amount,
    total.lost_payouts,
    total.lost_amount,
    total.open_payouts,
    total.open_amount,
    coalesce(doubt.payouts, 0) AS open_in_doubt_payouts,
    coalesce(doubt.amount, 0.00000) AS open_in_doubt_amount,
    total.held_payouts,
    total.held_amount,
    total.last_disposed_at,
    total.open_payouts + total.held_payouts = 0 AS is_final
FROM (
    SELECT
        business_date,
        currency,
        count(*) AS entered_payouts,
        sum(amount) * 0.00001 AS entered_amount,
        count(*) FILTER (WHERE disposition = 'processed') AS processed_payouts,
        coalesce(sum(amount) FILTER (WHERE disposition = 'processed'), 0) * 0.00001
            AS processed_amount,
        count(*) FILTER (WHERE disposition = 'lost') AS lost_payouts,
        coalesce(sum(amount) FILTER (WHERE disposition = 'lost'), 0) * 0.00001 AS lost_amount,
        count(*) FILTER (WHERE disposition = 'open' AND hold_reason IS NULL) AS open_payouts,
        coalesce(sum(amount) FILTER (WHERE disposition = 'open' AND hold_reason IS NULL), 0)
            * 0.00001 AS open_amount,
        count(*) FILTER (WHERE hold_reason IS NOT NULL) AS held_payouts,
        coalesce(sum(amount) FILTER (WHERE hold_reason IS NOT NULL), 0) * 0.00001 AS held_amount,
        max(disposed_at) AS last_disposed_at
    FROM wallet.transaction
    GROUP BY business_date, currency
) AS total
-- Apart from the rest, which is summed in parallel, and only of the few that are open.
LEFT JOIN (
    SELECT business_date, currency, count(*) AS payouts, sum(amount) AS amount
    FROM finance.payout
    WHERE is_in_doubt AND hold_reason IS NULL
    GROUP BY business_date, currency
) AS doubt USING (business_date, currency);

COMMENT ON VIEW finance.payout_outcome IS
    'How the payouts of each UTC day and currency stand now. entered = processed + lost + open + held, in payouts and in amounts. Currencies are never added up. How they stood at any moment: finance.payout_outcome_as_of(moment).';
COMMENT ON COLUMN finance.payout_outcome.business_date IS 'The UTC day that the payouts belong to.';
COMMENT ON COLUMN finance.payout_outcome.currency IS 'Currency of all amounts in the row.';
COMMENT ON COLUMN finance.payout_outcome.entered_payouts IS 'How many payouts were entered.';
COMMENT ON COLUMN finance.payout_outcome.entered_amount IS 'Their sum, in major units of currency; exact, with five decimals, never a float, as all amounts here.';
COMMENT ON COLUMN finance.payout_outcome.processed_payouts IS 'How many of them the wallet paid.';
COMMENT ON COLUMN finance.payout_outcome.processed_amount IS 'What it paid, in major units.';
COMMENT ON COLUMN finance.payout_outcome.lost_payouts IS 'How many will not be paid (finance.payout_lost).';
COMMENT ON COLUMN finance.payout_outcome.lost_amount IS 'What will not be paid, in major units.';
COMMENT ON COLUMN finance.payout_outcome.open_payouts IS 'How many the next run sends.';
COMMENT ON COLUMN finance.payout_outcome.open_amount IS 'Their sum, in major units.';
COMMENT ON COLUMN finance.payout_outcome.open_in_doubt_payouts IS 'How many of the open ones may already be paid: they were sent and got no answer that can be relied on (finance.payout_in_doubt).';
COMMENT ON COLUMN finance.payout_outcome.open_in_doubt_amount IS 'Their sum, in major units; a part of open_amount.';
COMMENT ON COLUMN finance.payout_outcome.held_payouts IS 'How many are not sent until a person decides or a refusal is confirmed (finance.payout_held; those in doubt: finance.payout_in_doubt).';
COMMENT ON COLUMN finance.payout_outcome.held_amount IS 'Their sum, in major units.';
COMMENT ON COLUMN finance.payout_outcome.last_disposed_at IS 'When the last of them became processed or lost (UTC); NULL if none did.';
COMMENT ON COLUMN finance.payout_outcome.is_final IS 'Nothing is open or held: these numbers do not change any more, unless a payout of that day is entered late.';
