CREATE VIEW finance.bet_leg AS
SELECT
    bet.source,
    bet.source_key,
    (bet.settled_at AT TIME ZONE 'UTC')::date AS bet_settled_date,
    bet.status AS bet_status,
    bet.is_contested AS is_bet_contested,
    leg.leg_number,
    leg.type,
    (
        SELECT count(*)
        FROM core.settlement_leg AS part
        WHERE part.record_id = leg.record_id
            AND part.leg_number = leg.leg_number
            AND part.part_number > 0
    ) AS parts,
    leg.sport_id,
    leg.country_id,
    leg.competition_id,
    leg.event_id,
    leg.event_name,
    leg.event_starts_at,
    leg.is_live,
    leg.is_outright,
    leg.market_type_id,
    leg.market_id,
    leg.market_name,
    leg.market_properties,
    leg.selection_id,
    leg.selection_version,
    leg.parameters,
    leg.outcome,
    leg.settled_at,
    leg.settlement_version,
    leg.price,
    leg.win_price,
    leg.place_price,
    leg.manual_price,
    leg.alternative_price,
    leg.dead_heat_factor,
    leg.place_dead_heat_factor,
    leg.limits_rating_id,
    leg.limits_factor,
    leg.has_line_deviation,
    leg.record_id
FROM core.settlement AS bet
JOIN core.settlement_leg AS leg USING (record_id)
WHERE bet.is_current AND leg.part_number = 0;

COMMENT ON VIEW finance.bet_leg IS
    'The selections of every bet as it stands now, one row each. It has no money, because a stake belongs to the whole bet: to ask for the money of bets on an event, take the bets whose (source, source_key) is IN here, since a join counts a bet once for each of its legs. Ask by bet_settled_date, or by source and source_key.';
COMMENT ON COLUMN finance.bet_leg.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.bet_leg.source_key IS 'The provider''s id of the bet (finance.bet).';
COMMENT ON COLUMN finance.bet_leg.bet_settled_date IS 'The UTC day of the last decision about the bet: settled_date in finance.bet.';
COMMENT ON COLUMN finance.bet_leg.bet_status IS 'The bet''s status: open, settled, void, rejected, cancelled or failed.';
COMMENT ON COLUMN finance.bet_leg.is_bet_contested IS 'The bet is contested (finance.bet_contested); these are the legs of the content that arrived last.';
COMMENT ON COLUMN finance.bet_leg.leg_number IS 'Position of the leg in the provider''s message, from 1.';
COMMENT ON COLUMN finance.bet_leg.type IS 'What kind of bet the leg is: standard, starting_price, tote_exotics, fixed_exotics, bet_builder, pickem or each_way.';
COMMENT ON COLUMN finance.bet_leg.parts IS 'How many picks the leg is built of (finance.bet_leg_part); 0 unless it is built of any.';
COMMENT ON COLUMN finance.bet_leg.sport_id IS 'The provider''s sport of the event.';
COMMENT ON COLUMN finance.bet_leg.country_id IS 'The provider''s country of the event.';
COMMENT ON COLUMN finance.bet_leg.competition_id IS 'The provider''s competition of the event.';
COMMENT ON COLUMN finance.bet_leg.event_id IS 'The provider''s event.';
COMMENT ON COLUMN finance.bet_leg.event_name IS 'The event''s name, in the provider''s words.';
COMMENT ON COLUMN finance.bet_leg.event_starts_at IS 'When the event starts (UTC).';
COMMENT ON COLUMN finance.bet_leg.is_live IS 'The event is played while bets are taken; false: they are taken before it.';
COMMENT ON COLUMN finance.bet_leg.is_outright IS 'It was placed on the winner of a whole competition or the like.';
COMMENT ON COLUMN finance.bet_leg.market_type_id IS 'The provider''s type of the market.';
COMMENT ON COLUMN finance.bet_leg.market_id IS 'The provider''s market; NULL for a leg built of several picks, each of which has its own.';
COMMENT ON COLUMN finance.bet_leg.market_name IS 'The market''s name, in the provider''s words.';
COMMENT ON COLUMN finance.bet_leg.market_properties IS 'What else the provider says about the market: names and texts.';
COMMENT ON COLUMN finance.bet_leg.selection_id IS 'The provider''s selection.';
COMMENT ON COLUMN finance.bet_leg.selection_version IS 'The provider''s version of the selection itself.';
COMMENT ON COLUMN finance.bet_leg.parameters IS 'What the provider says about the selection, such as a line: names and texts.';
COMMENT ON COLUMN finance.bet_leg.outcome IS 'The leg''s own outcome, in the words of finance.bet.outcome; NULL while open.';
COMMENT ON COLUMN finance.bet_leg.settled_at IS 'When the leg was decided (UTC).';
COMMENT ON COLUMN finance.bet_leg.settlement_version IS 'The provider''s version of the leg''s decision; it grows when the leg is settled again.';
COMMENT ON COLUMN finance.bet_leg.price IS 'Decimal odds at which the leg was placed.';
COMMENT ON COLUMN finance.bet_leg.win_price IS 'Decimal odds of an each-way leg''s win part.';
COMMENT ON COLUMN finance.bet_leg.place_price IS 'Decimal odds of an each-way leg''s place part.';
COMMENT ON COLUMN finance.bet_leg.manual_price IS 'Decimal odds set by hand.';
COMMENT ON COLUMN finance.bet_leg.alternative_price IS 'Alternative decimal odds, as the provider calls them.';
COMMENT ON COLUMN finance.bet_leg.dead_heat_factor IS 'Share of a place that several have won together.';
COMMENT ON COLUMN finance.bet_leg.place_dead_heat_factor IS 'The same for the place part of an each-way leg.';
COMMENT ON COLUMN finance.bet_leg.limits_rating_id IS 'The provider''s limit under which the leg was placed.';
COMMENT ON COLUMN finance.bet_leg.limits_factor IS 'The factor of that limit.';
COMMENT ON COLUMN finance.bet_leg.has_line_deviation IS 'The provider says that the line deviated.';
COMMENT ON COLUMN finance.bet_leg.record_id IS 'Our number of the message that it comes from: the same as the bet''s in finance.bet.';
