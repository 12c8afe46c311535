CREATE VIEW finance.tote_bet_open AS
SELECT
    bet.tote_id,
    now() - bet.entered_at AS age,
    CASE
        WHEN now() - bet.entered_at < interval '1 day' THEN '1 under a day'
        WHEN now() - bet.entered_at < interval '7 days' THEN '2 under 7 days'
        WHEN now() - bet.entered_at < interval '30 days' THEN '3 under 30 days'
        ELSE '4 older'
    END AS age_group,
    known.currency,
    known.stake,
    bet.placement,
    bet.resulting,
    bet.settlement,
    bet.entered_at,
    bet.entered_by,
    bet.answered_at,
    bet.next_ask_at,
    bet.absent_since,
    known.record_id
FROM tote.bet AS bet
LEFT JOIN core.settlement AS known
    ON known.source = 'tote' AND known.source_key = bet.tote_id AND known.is_current
WHERE bet.state = 'open';

COMMENT ON VIEW finance.tote_bet_open IS
    'Every bet of tote that is not final yet, as far as it is known: what tote may still pay out. Group by age_group and currency for open bets by age.';
COMMENT ON COLUMN finance.tote_bet_open.tote_id IS 'tote''s id of the bet (source_key in finance.bet).';
COMMENT ON COLUMN finance.tote_bet_open.age IS 'How long it has been known here; tote does not tell when a bet was made.';
COMMENT ON COLUMN finance.tote_bet_open.age_group IS 'The same in four groups, which sort by age.';
COMMENT ON COLUMN finance.tote_bet_open.currency IS 'Currency of stake; NULL if no answer has told the bet.';
COMMENT ON COLUMN finance.tote_bet_open.stake IS 'What the player staked, in major units of currency, exact; NULL if no answer has told the bet.';
COMMENT ON COLUMN finance.tote_bet_open.placement IS 'placement.status as last told, in tote''s word.';
COMMENT ON COLUMN finance.tote_bet_open.resulting IS 'resulting.status as last told, in tote''s word: RESULTED has a result and is not paid yet.';
COMMENT ON COLUMN finance.tote_bet_open.settlement IS 'settlement.status as last told, in tote''s word.';
COMMENT ON COLUMN finance.tote_bet_open.entered_at IS 'When it was entered into the register (UTC).';
COMMENT ON COLUMN finance.tote_bet_open.entered_by IS 'sql: by another system or a person. file: from an imported file. listing: tote listed it. hint: its socket named it.';
COMMENT ON COLUMN finance.tote_bet_open.answered_at IS 'When an answer last told it (UTC); NULL: never.';
COMMENT ON COLUMN finance.tote_bet_open.next_ask_at IS 'When it is asked for next (UTC).';
COMMENT ON COLUMN finance.tote_bet_open.absent_since IS 'Since when answers leave it out (UTC): tote does not know it. NULL: it does, or was not asked yet.';
COMMENT ON COLUMN finance.tote_bet_open.record_id IS 'Our number of the message that it comes from: its evidence; NULL if there is none.';
