CREATE VIEW finance.credit_adjustment AS
SELECT
    adjustment.adjustment_id,
    adjustment.credit_id,
    credit.settlement_id,
    credit.market_id,
    credit.position_id,
    told.player_reference,
    adjustment.currency,
    adjustment.amount_before,
    adjustment.amount_after,
    adjustment.difference,
    adjustment.adjusted_at,
    adjustment.accounting_date,
    adjustment.finding_id
FROM prediction.adjustment AS adjustment
JOIN prediction.credit AS credit USING (credit_id)
JOIN core.settlement AS told ON told.record_id = credit.record_id;

COMMENT ON VIEW finance.credit_adjustment IS
    'What settlements said otherwise after their credit was sent or paid: to be paid, or taken back, by hand. Never changed or deleted.';
COMMENT ON COLUMN finance.credit_adjustment.adjustment_id IS 'Ascending.';
COMMENT ON COLUMN finance.credit_adjustment.credit_id IS 'The credit (finance.credit).';
COMMENT ON COLUMN finance.credit_adjustment.settlement_id IS 'Its settlement.';
COMMENT ON COLUMN finance.credit_adjustment.market_id IS 'Its market.';
COMMENT ON COLUMN finance.credit_adjustment.position_id IS 'Its position.';
COMMENT ON COLUMN finance.credit_adjustment.player_reference IS 'Stands for the player who was credited, as in finance.settlement_current.';
COMMENT ON COLUMN finance.credit_adjustment.currency IS 'Currency of the amounts.';
COMMENT ON COLUMN finance.credit_adjustment.amount_before IS 'What the credit came to, with the adjustments before, in major units; exact, never a float.';
COMMENT ON COLUMN finance.credit_adjustment.amount_after IS 'What its settlement says since; 0 if it is not completed any more, or is another player''s or in another currency.';
COMMENT ON COLUMN finance.credit_adjustment.difference IS 'amount_after - amount_before.';
COMMENT ON COLUMN finance.credit_adjustment.adjusted_at IS 'When that was found (UTC).';
COMMENT ON COLUMN finance.credit_adjustment.accounting_date IS 'The UTC day in which it is booked.';
COMMENT ON COLUMN finance.credit_adjustment.finding_id IS 'The finding that tells of it (finance.finding_open).';
