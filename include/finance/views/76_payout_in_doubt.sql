CREATE VIEW finance.payout_in_doubt AS
SELECT
    payout.transaction_id,
    payout.ref_transaction_id,
    payout.player_reference,
    payout.business_date,
    payout.currency,
    payout.amount,
    payout.state,
    payout.hold_reason,
    payout.finding_id,
    sent.in_doubt_since,
    now() - sent.in_doubt_since AS age,
    sent.attempts,
    latest.attempt_id AS last_attempt_id,
    latest.committed_at AS last_sent_at,
    latest.result AS last_result,
    latest.code AS last_code
FROM finance.payout AS payout
CROSS JOIN LATERAL (
    SELECT
        count(*) AS attempts,
        min(attempt.committed_at) FILTER (
            WHERE item.outcome IS NULL OR item.outcome IN ('in_doubt', 'contested', 'unclear')
        ) AS in_doubt_since
    FROM wallet.attempt_item AS item
    JOIN wallet.attempt AS attempt USING (attempt_id)
    WHERE item.transaction_id = payout.transaction_id
) AS sent
LEFT JOIN LATERAL (
    SELECT attempt.attempt_id, attempt.committed_at, attempt.result, item.code
    FROM wallet.attempt_item AS item
    JOIN wallet.attempt AS attempt USING (attempt_id)
    WHERE item.transaction_id = payout.transaction_id
    ORDER BY attempt.attempt_id DESC
    LIMIT 1
) AS latest ON true
WHERE payout.is_in_doubt;

COMMENT ON VIEW finance.payout_in_doubt IS
    'Every payout that is neither processed nor lost and may already be paid, held or not. Whether it was is known to the wallet alone: it stays here until that answers, or until a person decides.';
COMMENT ON COLUMN finance.payout_in_doubt.transaction_id IS 'Names the payout, here and at the wallet: ask the partner by it.';
COMMENT ON COLUMN finance.payout_in_doubt.ref_transaction_id IS 'The transaction that it answers, such as the bet.';
COMMENT ON COLUMN finance.payout_in_doubt.player_reference IS 'Stands for the player, as in finance.settlement_current.';
COMMENT ON COLUMN finance.payout_in_doubt.business_date IS 'The UTC day that the payout belongs to.';
COMMENT ON COLUMN finance.payout_in_doubt.currency IS 'Currency of amount.';
COMMENT ON COLUMN finance.payout_in_doubt.amount IS 'What was to be paid, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout_in_doubt.state IS 'open: it is sent again by itself. held: a person has to decide.';
COMMENT ON COLUMN finance.payout_in_doubt.hold_reason IS 'in_doubt: it was sent as often as allowed and never answered. contested: its answers contradict each other, or it may be booked already. unclear: its code is unknown, or it made the wallet reject its request. NULL if it is not held.';
COMMENT ON COLUMN finance.payout_in_doubt.finding_id IS 'The finding that asks about it (finance.finding_open); NULL if there is none.';
COMMENT ON COLUMN finance.payout_in_doubt.in_doubt_since IS 'When the first request was made whose answer is missing or cannot be relied on (UTC); NULL if every one was rejected as a whole.';
COMMENT ON COLUMN finance.payout_in_doubt.age IS 'The time since then.';
COMMENT ON COLUMN finance.payout_in_doubt.attempts IS 'How many requests held it, with those that were rejected or not executed.';
COMMENT ON COLUMN finance.payout_in_doubt.last_attempt_id IS 'The last of them (finance.payout_attempt).';
COMMENT ON COLUMN finance.payout_in_doubt.last_sent_at IS 'When that was made (UTC).';
COMMENT ON COLUMN finance.payout_in_doubt.last_result IS 'What became of it: answered, not_executed, rejected or in_doubt; NULL while it is under way.';
COMMENT ON COLUMN finance.payout_in_doubt.last_code IS 'The code with which it answered this payout; NULL if it did not.';
