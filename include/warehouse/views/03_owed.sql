CREATE VIEW prediction.owed AS
SELECT
    owed.credit_id,
    owed.settlement_id,
    owed.market_id,
    owed.position_id,
    owed.player_id,
    owed.currency,
    owed.amount,
    coalesce(adjusted.difference, 0) AS adjusted_amount,
    owed.created_at,
    owed.refusal
FROM (
    -- Each half is an index of its own.
    SELECT credit.*, NULL AS refusal
    FROM prediction.credit AS credit
    WHERE credit.state = 'owed'
    UNION ALL
    SELECT credit.*, payout.hold_detail
    FROM wallet.transaction AS payout
    JOIN prediction.credit AS credit ON credit.settlement_id = payout.origin_key
    WHERE payout.hold_reason = 'owed' AND credit.transaction_id = payout.transaction_id
        AND credit.state = 'sending'
) AS owed
LEFT JOIN LATERAL (
    SELECT sum(adjustment.difference) AS difference
    FROM prediction.adjustment AS adjustment
    WHERE adjustment.credit_id = owed.credit_id
) AS adjusted ON true
WHERE NOT EXISTS (
    SELECT
    FROM prediction.held_market AS held
    WHERE held.market_id = owed.market_id
);

COMMENT ON VIEW prediction.owed IS
    'What the operator owes players and pays with its own wallet: what the wallet of the outbox was not told, or has refused; but nothing of a market that is held, until that is decided. Pay each once, then acknowledge it by your reference: SELECT prediction.acknowledge(ARRAY[credit_id], ''reference'').';
COMMENT ON COLUMN prediction.owed.credit_id IS 'What prediction.acknowledge() is given.';
COMMENT ON COLUMN prediction.owed.settlement_id IS 'The settlement that is credited: the same id is never credited twice.';
COMMENT ON COLUMN prediction.owed.market_id IS 'Its market.';
COMMENT ON COLUMN prediction.owed.position_id IS 'Its position: never credited twice either.';
COMMENT ON COLUMN prediction.owed.player_id IS 'Who is to be paid, in clear.';
COMMENT ON COLUMN prediction.owed.currency IS 'Currency of amount.';
COMMENT ON COLUMN prediction.owed.amount IS 'What is to be paid, in major units: the credit without its adjustments, which are paid or taken back by hand (finding credit_adjusted).';
COMMENT ON COLUMN prediction.owed.adjusted_amount IS 'What its settlement says more (or, below 0, less) since the wallet was told. Not part of amount: the finding credit_adjusted asks for it.';
COMMENT ON COLUMN prediction.owed.created_at IS 'Since when it is credited (UTC).';
COMMENT ON COLUMN prediction.owed.refusal IS 'Why the wallet did not pay it; NULL if it was not told.';
