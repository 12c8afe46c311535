CREATE VIEW finance.payout_lost AS
SELECT
    payout.transaction_id,
    payout.ref_transaction_id,
    payout.player_reference,
    payout.business_date,
    payout.currency,
    payout.amount,
    payout.disposed_at AS lost_at,
    payout.accounting_date,
    CASE WHEN payout.decision_id IS NULL THEN 'refusal' ELSE 'decision' END AS lost_by,
    refusal.code AS refusal_code,
    refusal.attempt_id,
    refusal.answered_at,
    refusal.request_sha256,
    payout.decision_id,
    decision.decided_by,
    decision.reason,
    decision.reference,
    decision.finding_id
FROM finance.payout AS payout
LEFT JOIN ops.decision AS decision USING (decision_id)
LEFT JOIN LATERAL (
    SELECT
        item.code,
        item.attempt_id,
        attempt.closed_at AS answered_at,
        encode(attempt.body_sha256, 'hex') AS request_sha256
    FROM wallet.attempt_item AS item
    JOIN wallet.attempt AS attempt USING (attempt_id)
    WHERE item.transaction_id = payout.transaction_id
        AND item.outcome IN ('refused', 'unclear')
        AND item.attempt_id = coalesce(payout.attempt_id, item.attempt_id)
    ORDER BY item.attempt_id DESC
    LIMIT 1
) AS refusal ON true
WHERE payout.state = 'lost';

COMMENT ON VIEW finance.payout_lost IS
    'Every payout that will not be paid, with the evidence: the wallet''s refusal, or the decision of a person. Never changed or deleted.';
COMMENT ON COLUMN finance.payout_lost.transaction_id IS 'Names the payout, here and at the wallet.';
COMMENT ON COLUMN finance.payout_lost.ref_transaction_id IS 'The transaction that it answers, such as the bet.';
COMMENT ON COLUMN finance.payout_lost.player_reference IS 'Stands for the player, as in finance.settlement_current.';
COMMENT ON COLUMN finance.payout_lost.business_date IS 'The UTC day that the payout belongs to.';
COMMENT ON COLUMN finance.payout_lost.currency IS 'Currency of amount.';
COMMENT ON COLUMN finance.payout_lost.amount IS 'What will not be paid, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout_lost.lost_at IS 'When it became lost (UTC).';
COMMENT ON COLUMN finance.payout_lost.accounting_date IS 'The UTC day on which it is booked: the day of lost_at.';
COMMENT ON COLUMN finance.payout_lost.lost_by IS 'refusal: the wallet refused it for good. decision: a person gave it up; whether the wallet ever paid it is not confirmed.';
COMMENT ON COLUMN finance.payout_lost.refusal_code IS 'The code with which the wallet refused it. Of one lost by decision: its last refusal before, also one with a code that nobody knows; NULL if there was none; so the next three.';
COMMENT ON COLUMN finance.payout_lost.attempt_id IS 'The request that was refused (finance.payout_attempt).';
COMMENT ON COLUMN finance.payout_lost.answered_at IS 'When the refusal was stored (UTC).';
COMMENT ON COLUMN finance.payout_lost.request_sha256 IS 'SHA-256 of that request''s exact bytes, in hex: the partner finds it by this.';
COMMENT ON COLUMN finance.payout_lost.decision_id IS 'The decision that gave it up (finance.decision); NULL if lost by refusal, so the next four.';
COMMENT ON COLUMN finance.payout_lost.decided_by IS 'Who decided; the first person of two is in finance.decision.';
COMMENT ON COLUMN finance.payout_lost.reason IS 'Why, in that person''s words.';
COMMENT ON COLUMN finance.payout_lost.reference IS 'The ticket, mail or partner reference that supports it.';
COMMENT ON COLUMN finance.payout_lost.finding_id IS 'The finding that the decision answers.';
