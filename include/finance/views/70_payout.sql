CREATE VIEW finance.payout AS
SELECT
    payout.transaction_id,
    payout.ref_transaction_id,
    payout.game_id,
    payout.round_id,
    -- As ops.player_reference() makes it: a view lends its owner's right to read the key, but not
    -- to call a function, and whoever could call that one could look up any player.
    encode(sha256(
        (SELECT outer_pad FROM ops.player_pad) || sha256(
            (SELECT inner_pad FROM ops.player_pad) || convert_to(payout.player_id, 'UTF8')
        )
    ), 'hex') AS player_reference,
    payout.business_date,
    payout.currency,
    -- A product of numerics is exact whatever its size; a quotient is rounded.
    payout.amount * 0.00001 AS amount,
    payout.is_win,
    CASE WHEN payout.hold_reason IS NULL THEN payout.disposition ELSE 'held' END AS state,
    payout.hold_reason,
    payout.hold_finding_id AS finding_id,
    -- First what the indexes of held and of open payouts know, so that only these are looked at.
    -- The requests of each are then probed: EXISTS would be hashed from every request ever made.
    (payout.hold_reason IS NOT NULL OR payout.disposition = 'open' AND payout.hold_reason IS NULL)
    AND (
        coalesce(payout.hold_reason IN ('in_doubt', 'contested', 'unclear'), false)
        OR (
            SELECT count(*) > 0
            FROM wallet.attempt_item AS item
            WHERE item.transaction_id = payout.transaction_id
                AND (item.outcome IS NULL OR item.outcome IN ('in_doubt', 'contested', 'unclear'))
        )
    ) AS is_in_doubt,
    payout.entered_at,
    payout.disposed_at,
    payout.accounting_date,
    (payout.evidence ->> 'attempt_id')::bigint AS attempt_id,
    (payout.evidence ->> 'decision_id')::bigint AS decision_id
FROM wallet.transaction AS payout;

COMMENT ON VIEW finance.payout IS
    'Every payout that was entered for the wallet, and how it stands now: one row each. Ask by transaction_id; a player''s payouts and settlements have the same player_reference.';
COMMENT ON COLUMN finance.payout.transaction_id IS 'Names the payout for ever, here and at the wallet.';
COMMENT ON COLUMN finance.payout.ref_transaction_id IS 'The transaction that this one answers, such as the bet.';
COMMENT ON COLUMN finance.payout.game_id IS 'The game that was played.';
COMMENT ON COLUMN finance.payout.round_id IS 'The round that was played.';
COMMENT ON COLUMN finance.payout.player_reference IS 'Stands for the player, as in finance.settlement_current; it cannot be turned back into an id.';
COMMENT ON COLUMN finance.payout.business_date IS 'The UTC day that the payout belongs to.';
COMMENT ON COLUMN finance.payout.currency IS 'Currency of amount (ISO 4217 or the partner''s ticker).';
COMMENT ON COLUMN finance.payout.amount IS 'What is paid, in major units of currency; exact, with five decimals, never a float.';
COMMENT ON COLUMN finance.payout.is_win IS 'The round was won.';
COMMENT ON COLUMN finance.payout.state IS 'processed: the wallet paid it, or of a market''s credit perhaps the operator (finance.credit: acknowledged). lost: it will not be paid. Both for ever. open: it is sent by the next run. held: it is not sent until a person decides, or until a refusal is confirmed.';
COMMENT ON COLUMN finance.payout.hold_reason IS 'Why it is held: amount_without_win, changed, unsignable, refusal_pending, credit_changed, market_held, owed (finance.payout_held), in_doubt, contested or unclear (finance.payout_in_doubt); NULL if it is not.';
COMMENT ON COLUMN finance.payout.finding_id IS 'The finding that asks about the hold (finance.finding_open); NULL if there is none.';
COMMENT ON COLUMN finance.payout.is_in_doubt IS 'It is open or held, and may already be paid: a request that held it got no answer yet or none that can be relied on, or its answer is contested or unclear.';
COMMENT ON COLUMN finance.payout.entered_at IS 'When it was entered (UTC).';
COMMENT ON COLUMN finance.payout.disposed_at IS 'When it became processed or lost (UTC); NULL until then.';
COMMENT ON COLUMN finance.payout.accounting_date IS 'The UTC day on which it is booked: the day of disposed_at.';
COMMENT ON COLUMN finance.payout.attempt_id IS 'The request whose answer says so (finance.payout_attempt); NULL if none does.';
COMMENT ON COLUMN finance.payout.decision_id IS 'The decision that says so (finance.decision); NULL if none does.';
