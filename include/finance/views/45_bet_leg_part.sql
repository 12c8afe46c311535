CREATE VIEW finance.bet_leg_part AS
SELECT
    bet.source,
    bet.source_key,
    (bet.settled_at AT TIME ZONE 'UTC')::date AS bet_settled_date,
    part.leg_number,
    part.part_number,
    part.market_type_id,
    part.market_id,
    part.market_name,
    part.market_properties,
    part.selection_id,
    part.outcome,
    part.settled_at,
    part.settlement_version,
    part.record_id
FROM core.settlement AS bet
JOIN core.settlement_leg AS part USING (record_id)
WHERE bet.is_current AND part.part_number > 0;

COMMENT ON VIEW finance.bet_leg_part IS
    'The picks of every leg that is built of several (a bet builder), of bets as they stand now, one row each. Event, price and money are told by the leg (finance.bet_leg) and the bet (finance.bet) alone.';
COMMENT ON COLUMN finance.bet_leg_part.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.bet_leg_part.source_key IS 'The provider''s id of the bet (finance.bet).';
COMMENT ON COLUMN finance.bet_leg_part.bet_settled_date IS 'The UTC day of the last decision about the bet: settled_date in finance.bet.';
COMMENT ON COLUMN finance.bet_leg_part.leg_number IS 'The leg that it is a part of (finance.bet_leg).';
COMMENT ON COLUMN finance.bet_leg_part.part_number IS 'Its position in the leg, from 1.';
COMMENT ON COLUMN finance.bet_leg_part.market_type_id IS 'The provider''s type of the market.';
COMMENT ON COLUMN finance.bet_leg_part.market_id IS 'The provider''s market.';
COMMENT ON COLUMN finance.bet_leg_part.market_name IS 'The market''s name, in the provider''s words.';
COMMENT ON COLUMN finance.bet_leg_part.market_properties IS 'What else the provider says about the market: names and texts.';
COMMENT ON COLUMN finance.bet_leg_part.selection_id IS 'The provider''s selection.';
COMMENT ON COLUMN finance.bet_leg_part.outcome IS 'The pick''s own outcome; NULL while open.';
COMMENT ON COLUMN finance.bet_leg_part.settled_at IS 'When it was decided (UTC).';
COMMENT ON COLUMN finance.bet_leg_part.settlement_version IS 'The provider''s version of that decision.';
COMMENT ON COLUMN finance.bet_leg_part.record_id IS 'Our number of the message that it comes from: the same as the bet''s in finance.bet.';
