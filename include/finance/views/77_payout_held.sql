CREATE VIEW finance.payout_held AS
SELECT
    payout.transaction_id,
    payout.ref_transaction_id,
    payout.player_reference,
    payout.business_date,
    payout.currency,
    payout.amount,
    payout.hold_reason,
    hold.held_at,
    payout.finding_id
FROM finance.payout AS payout
LEFT JOIN LATERAL (
    SELECT held_at
    FROM wallet.hold
    WHERE transaction_id = payout.transaction_id AND ended_at IS NULL
    ORDER BY hold_id DESC
    LIMIT 1
) AS hold ON true
WHERE payout.hold_reason IS NOT NULL AND NOT payout.is_in_doubt;

COMMENT ON VIEW finance.payout_held IS
    'Every payout that is held and surely not paid; those that may be are in finance.payout_in_doubt.';
COMMENT ON COLUMN finance.payout_held.transaction_id IS 'Names the payout, here and at the wallet.';
COMMENT ON COLUMN finance.payout_held.ref_transaction_id IS 'The transaction that it answers, such as the bet.';
COMMENT ON COLUMN finance.payout_held.player_reference IS 'Stands for the player, as in finance.settlement_current.';
COMMENT ON COLUMN finance.payout_held.business_date IS 'The UTC day that the payout belongs to.';
COMMENT ON COLUMN finance.payout_held.currency IS 'Currency of amount.';
COMMENT ON COLUMN finance.payout_held.amount IS 'What is not paid meanwhile, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout_held.hold_reason IS 'amount_without_win: there is an amount although the round was not won. changed: another content was entered under the same id before it was sent. unsignable: the partner could read something else than what would be signed. refusal_pending: the wallet refused it for good, and it becomes lost once that many refusals are found plausible or a person decides. credit_changed: the market settlement that it credits says something else since. market_held: the market that it credits is held since, and it goes on with that. owed: a market''s credit that the wallet does not pay; the operator owes it, and it is never lost.';
COMMENT ON COLUMN finance.payout_held.held_at IS 'Since when it is held for this reason (UTC).';
COMMENT ON COLUMN finance.payout_held.finding_id IS 'The finding that asks about it (finance.finding_open); NULL if there is none.';
