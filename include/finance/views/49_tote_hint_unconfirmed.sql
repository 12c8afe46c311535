CREATE VIEW finance.tote_hint_unconfirmed AS
SELECT
    hint.hint_id,
    hint.tote_id,
    hint.message_type,
    hint.return_amount,
    hint.received_at,
    bet.placement,
    bet.resulting,
    bet.settlement,
    bet.answered_at,
    bet.next_ask_at,
    hint.record_id
FROM tote.hint AS hint
LEFT JOIN tote.bet AS bet USING (tote_id)
WHERE hint.confirmed_at IS NULL;

COMMENT ON VIEW finance.tote_hint_unconfirmed IS
    'What tote''s socket hinted at and its answers have not shown yet. Nothing here counts: a bet is settled once an answer says so.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.hint_id IS 'Our number of the hint.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.tote_id IS 'tote''s id of the bet (source_key in finance.bet).';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.message_type IS 'What it says happened, in tote''s word: BetSettled, …';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.return_amount IS 'ReturnAmount of the hint, in major units of a currency that is not told; NULL if none was told.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.received_at IS 'When it arrived (UTC).';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.placement IS 'placement.status as the last answer told it, in tote''s word.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.resulting IS 'resulting.status as the last answer told it, in tote''s word.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.settlement IS 'settlement.status as the last answer told it, in tote''s word.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.answered_at IS 'When an answer last told the bet (UTC); NULL: never.';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.next_ask_at IS 'When the bet is asked for next (UTC).';
COMMENT ON COLUMN finance.tote_hint_unconfirmed.record_id IS 'Our number of the message: its evidence.';
