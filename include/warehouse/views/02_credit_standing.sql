CREATE VIEW prediction.credit_standing AS
SELECT
    credit.credit_id,
    credit.settlement_id,
    credit.market_id,
    credit.position_id,
    credit.player_id,
    credit.currency,
    credit.amount,
    credit.record_id,
    CASE
        WHEN held.market_id IS NOT NULL THEN 'held'
        WHEN credit.state <> 'sending' THEN credit.state
        WHEN payout.disposition = 'processed' THEN 'paid'
        WHEN payout.hold_reason = 'owed' THEN 'owed'
        WHEN payout.hold_reason IS NOT NULL THEN 'held'
        ELSE 'sending'
    END AS state,
    CASE
        WHEN held.market_id IS NOT NULL THEN 'market_held'
        WHEN credit.state <> 'sending' THEN credit.hold_reason
        WHEN payout.hold_reason <> 'owed' THEN payout.hold_reason
    END AS hold_reason,
    CASE
        WHEN held.market_id IS NOT NULL THEN held.finding_id
        WHEN credit.state IN ('held', 'owed') THEN credit.finding_id
        WHEN credit.state = 'sending' THEN payout.hold_finding_id
    END AS finding_id,
    credit.transaction_id,
    payout.disposed_at AS delivered_at,
    credit.created_at,
    credit.accounting_date,
    credit.acknowledged_at,
    credit.acknowledged_by,
    credit.reference
FROM prediction.credit AS credit
LEFT JOIN wallet.transaction AS payout USING (transaction_id)
-- Nothing is owed of a market that is held.
LEFT JOIN prediction.held_market AS held ON held.market_id = credit.market_id
    AND (credit.state = 'owed' OR credit.state = 'sending' AND payout.hold_reason = 'owed');

COMMENT ON VIEW prediction.credit_standing IS
    'Every credit, and how it stands now: what is in the outbox stands as the outbox says.';
COMMENT ON COLUMN prediction.credit_standing.credit_id IS 'Ours, ascending.';
COMMENT ON COLUMN prediction.credit_standing.settlement_id IS 'The settlement that is credited.';
COMMENT ON COLUMN prediction.credit_standing.market_id IS 'Its market.';
COMMENT ON COLUMN prediction.credit_standing.position_id IS 'Its position.';
COMMENT ON COLUMN prediction.credit_standing.player_id IS 'Who is credited, in clear.';
COMMENT ON COLUMN prediction.credit_standing.currency IS 'The market''s currency.';
COMMENT ON COLUMN prediction.credit_standing.amount IS 'What is credited, in major units, without its adjustments.';
COMMENT ON COLUMN prediction.credit_standing.record_id IS 'The version of the settlement that says so.';
COMMENT ON COLUMN prediction.credit_standing.state IS 'due: the next run looks at it. held: it waits for a decision, of its own or about its market. owed: the operator pays it, because the wallet was not told or has refused it. sending: the wallet is told by the run that made it, or by the next resend, or was told and may have paid. paid: the wallet has paid it. acknowledged: the operator has.';
COMMENT ON COLUMN prediction.credit_standing.hold_reason IS 'Why it is held; NULL unless it is.';
COMMENT ON COLUMN prediction.credit_standing.finding_id IS 'The finding that asks about it; NULL if none does.';
COMMENT ON COLUMN prediction.credit_standing.transaction_id IS 'Its payout in the outbox; NULL if it was never there.';
COMMENT ON COLUMN prediction.credit_standing.delivered_at IS 'When its payout became processed (UTC); NULL until then.';
COMMENT ON COLUMN prediction.credit_standing.created_at IS 'When it was made (UTC).';
COMMENT ON COLUMN prediction.credit_standing.accounting_date IS 'UTC date of created_at.';
COMMENT ON COLUMN prediction.credit_standing.acknowledged_at IS 'When the operator acknowledged it (UTC).';
COMMENT ON COLUMN prediction.credit_standing.acknowledged_by IS 'Who did.';
COMMENT ON COLUMN prediction.credit_standing.reference IS 'What the operator paid it by.';
