CREATE VIEW finance.payout_attempt AS
SELECT
    attempt_id,
    committed_at,
    closed_at,
    currency,
    items AS payouts,
    amount * 0.00001 AS amount,
    result,
    http_status,
    answer_code,
    encode(body_sha256, 'hex') AS request_sha256,
    run_id,
    epoch
FROM wallet.attempt;

COMMENT ON VIEW finance.payout_attempt IS
    'Every request to the wallet, written down before its first byte was sent, and what became of it. Its exact answer is with the data team, because that names players.';
COMMENT ON COLUMN finance.payout_attempt.attempt_id IS 'The request''s number, ascending.';
COMMENT ON COLUMN finance.payout_attempt.committed_at IS 'When it was written down, before it was sent (UTC).';
COMMENT ON COLUMN finance.payout_attempt.closed_at IS 'When its result was stored (UTC), anew if an answer came late; NULL while it is under way.';
COMMENT ON COLUMN finance.payout_attempt.currency IS 'Currency of all its payouts.';
COMMENT ON COLUMN finance.payout_attempt.payouts IS 'How many payouts it holds.';
COMMENT ON COLUMN finance.payout_attempt.amount IS 'Their sum, in major units of currency; exact, with five decimals, never a float. A payout that is sent again is in each of its requests: do not add these up.';
COMMENT ON COLUMN finance.payout_attempt.result IS 'answered: the wallet answered, for each payout apart. not_executed: it never began. rejected: the wallet refused the request as a whole. in_doubt: nobody knows whether it was executed. NULL while it is under way.';
COMMENT ON COLUMN finance.payout_attempt.http_status IS 'The HTTP status of the answer; NULL if there was none.';
COMMENT ON COLUMN finance.payout_attempt.answer_code IS 'The code that the answer gives for the whole request; it says nothing about one payout.';
COMMENT ON COLUMN finance.payout_attempt.request_sha256 IS 'SHA-256 of its exact bytes, in hex: the same as the partner has, if it logs that.';
COMMENT ON COLUMN finance.payout_attempt.run_id IS 'The Airflow run that sent it.';
COMMENT ON COLUMN finance.payout_attempt.epoch IS 'Which holder of the sender''s lock sent it: of two that overlap, the higher one is right.';
