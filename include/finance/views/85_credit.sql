CREATE VIEW finance.credit AS
SELECT
    standing.credit_id,
    standing.settlement_id,
    standing.market_id,
    standing.position_id,
    told.player_reference,
    standing.currency,
    standing.amount,
    coalesce(adjusted.difference, 0) AS adjusted_amount,
    standing.state,
    standing.hold_reason,
    standing.finding_id,
    standing.transaction_id,
    standing.created_at,
    standing.accounting_date,
    coalesce(standing.acknowledged_at, standing.delivered_at) AS paid_at,
    standing.acknowledged_by,
    standing.reference
FROM prediction.credit_standing AS standing
JOIN core.settlement AS told USING (record_id)
LEFT JOIN LATERAL (
    SELECT sum(adjustment.difference) AS difference
    FROM prediction.adjustment AS adjustment
    WHERE adjustment.credit_id = standing.credit_id
) AS adjusted ON true;

COMMENT ON VIEW finance.credit IS
    'Every credit of a prediction market, and how it stands now: one a settlement and one a position, for ever. Those with a transaction_id are payouts too (finance.payout, finance.payout_lost never).';
COMMENT ON COLUMN finance.credit.credit_id IS 'The credit''s number.';
COMMENT ON COLUMN finance.credit.settlement_id IS 'The settlement that is credited: source_key in finance.settlement_current.';
COMMENT ON COLUMN finance.credit.market_id IS 'Its market.';
COMMENT ON COLUMN finance.credit.position_id IS 'Its position.';
COMMENT ON COLUMN finance.credit.player_reference IS 'Stands for the player, as in finance.settlement_current.';
COMMENT ON COLUMN finance.credit.currency IS 'Currency of the amounts; NULL if it is not known, and then it is held.';
COMMENT ON COLUMN finance.credit.amount IS 'What was credited, in major units of currency; exact, never a float.';
COMMENT ON COLUMN finance.credit.adjusted_amount IS 'What its settlement says more (or, below 0, less) since it was sent or paid (finance.credit_adjustment).';
COMMENT ON COLUMN finance.credit.state IS 'held: nobody is paid before a decision. due: decided, the next run goes on with it. owed: the operator pays it with its own wallet. sending: the wallet is told by the run that made it, or by the next resend, or was told and may have paid. paid: the wallet has paid it. acknowledged: the operator has.';
COMMENT ON COLUMN finance.credit.hold_reason IS 'Why it is held: currency_unknown, player_unknown, too_fine, too_large, id_taken, changed or withdrawn; market_held: its market is; or why its payout is, as in finance.payout. NULL unless it is.';
COMMENT ON COLUMN finance.credit.finding_id IS 'The finding that asks about it (finance.finding_open); NULL if none does.';
COMMENT ON COLUMN finance.credit.transaction_id IS 'Its payout (finance.payout); NULL if the wallet was never to be told.';
COMMENT ON COLUMN finance.credit.created_at IS 'When it was credited (UTC).';
COMMENT ON COLUMN finance.credit.accounting_date IS 'The UTC day in which it is booked.';
COMMENT ON COLUMN finance.credit.paid_at IS 'When the wallet''s answer was stored, or the operator acknowledged it (UTC); NULL if neither.';
COMMENT ON COLUMN finance.credit.acknowledged_by IS 'Who acknowledged that the operator has paid it.';
COMMENT ON COLUMN finance.credit.reference IS 'What the operator paid it by.';
