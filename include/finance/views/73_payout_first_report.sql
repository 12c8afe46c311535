CREATE VIEW finance.payout_first_report AS
SELECT
    business_date,
    currency,
    total.state,
    total.first_payouts,
    total.now_payouts,
    total.now_payouts - total.first_payouts AS payouts_difference,
    total.first_amount * 0.00001 AS first_amount,
    total.now_amount,
    total.now_amount - total.first_amount * 0.00001 AS amount_difference,
    first.reported_at AS first_reported_at,
    first.run_id AS first_run_id
FROM finance.payout_outcome AS outcome
LEFT JOIN (
    SELECT DISTINCT ON (business_date, currency) *
    FROM wallet.reported_outcome
    ORDER BY business_date, currency, reported_at, report_id
) AS first USING (business_date, currency)
CROSS JOIN LATERAL (
    VALUES
    (
        'entered', first.entered_payouts, outcome.entered_payouts,
        first.entered_amount, outcome.entered_amount
    ),
    (
        'processed', first.processed_payouts, outcome.processed_payouts,
        first.processed_amount, outcome.processed_amount
    ),
    ('lost', first.lost_payouts, outcome.lost_payouts, first.lost_amount, outcome.lost_amount),
    ('open', first.open_payouts, outcome.open_payouts, first.open_amount, outcome.open_amount),
    ('held', first.held_payouts, outcome.held_payouts, first.held_amount, outcome.held_amount)
) AS total (state, first_payouts, now_payouts, first_amount, now_amount);

COMMENT ON VIEW finance.payout_first_report IS
    'What was first reported for a day''s payouts beside how they stand now: five rows a day and currency. What has changed since: WHERE payouts_difference <> 0 OR amount_difference <> 0.';
COMMENT ON COLUMN finance.payout_first_report.business_date IS 'The UTC day that the payouts belong to.';
COMMENT ON COLUMN finance.payout_first_report.currency IS 'Currency of all amounts in the row.';
COMMENT ON COLUMN finance.payout_first_report.state IS 'entered (all of them), processed, lost, open or held.';
COMMENT ON COLUMN finance.payout_first_report.first_payouts IS 'How many were first reported; NULL if the day was not reported yet in this currency.';
COMMENT ON COLUMN finance.payout_first_report.now_payouts IS 'How many there are now (finance.payout_outcome).';
COMMENT ON COLUMN finance.payout_first_report.payouts_difference IS 'now_payouts - first_payouts.';
COMMENT ON COLUMN finance.payout_first_report.first_amount IS 'Their sum as first reported, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout_first_report.now_amount IS 'Their sum now, in major units of currency.';
COMMENT ON COLUMN finance.payout_first_report.amount_difference IS 'now_amount - first_amount.';
COMMENT ON COLUMN finance.payout_first_report.first_reported_at IS 'When the day was first reported in this currency (UTC), at the end of a run; NULL if it was not yet.';
COMMENT ON COLUMN finance.payout_first_report.first_run_id IS 'The Airflow run that reported it.';
