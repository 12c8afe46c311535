CREATE VIEW finance.credit_state AS
SELECT
    accounting_date,
    currency,
    state,
    count(*) AS credits,
    sum(amount) AS amount
FROM prediction.credit_standing
GROUP BY accounting_date, currency, state;

COMMENT ON VIEW finance.credit_state IS
    'How the credits of each day stand now, by currency and state. What their settlements said otherwise later is in finance.credit_adjustment.';
COMMENT ON COLUMN finance.credit_state.accounting_date IS 'The UTC day in which they are booked.';
COMMENT ON COLUMN finance.credit_state.currency IS 'Currency of amount; NULL if it is not known.';
COMMENT ON COLUMN finance.credit_state.state IS 'held, due, owed, sending, paid or acknowledged, as in finance.credit.';
COMMENT ON COLUMN finance.credit_state.credits IS 'How many.';
COMMENT ON COLUMN finance.credit_state.amount IS 'Their sum, in major units of currency; exact, never a float.';
