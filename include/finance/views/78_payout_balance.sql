CREATE VIEW finance.payout_balance AS
SELECT
    payout.player_reference,
    answered.currency,
    answered.balance * 0.00001 AS balance,
    answered.closed_at AS answered_at,
    answered.transaction_id,
    answered.attempt_id
FROM (
    SELECT DISTINCT ON (entered.player_id, entered.currency)
        entered.currency,
        item.balance,
        attempt.closed_at,
        item.transaction_id,
        item.attempt_id
    FROM wallet.attempt_item AS item
    JOIN wallet.attempt AS attempt USING (attempt_id)
    JOIN wallet.transaction AS entered USING (transaction_id)
    WHERE item.balance IS NOT NULL
    ORDER BY
        entered.player_id,
        entered.currency,
        attempt.closed_at DESC,
        item.attempt_id DESC,
        item.place DESC
) AS answered
JOIN finance.payout AS payout USING (transaction_id);

COMMENT ON VIEW finance.payout_balance IS
    'The balance that the wallet last answered for each player and currency, as it answered it. It says nothing about the balance now, and a sum of balances says nothing at all.';
COMMENT ON COLUMN finance.payout_balance.player_reference IS 'Stands for the player, as in finance.settlement_current.';
COMMENT ON COLUMN finance.payout_balance.currency IS 'Currency of the payout, and so of balance.';
COMMENT ON COLUMN finance.payout_balance.balance IS 'The balance as answered, in major units of currency; exact, never a float. It may be negative. Never sum it.';
COMMENT ON COLUMN finance.payout_balance.answered_at IS 'When that answer was stored (UTC).';
COMMENT ON COLUMN finance.payout_balance.transaction_id IS 'The payout that it was the answer to (finance.payout).';
COMMENT ON COLUMN finance.payout_balance.attempt_id IS 'The request that it was the answer to (finance.payout_attempt).';
