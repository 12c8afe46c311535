CREATE VIEW finance.bet AS
SELECT
    bet.source,
    bet.source_key,
    bet.version,
    bet.status,
    bet.outcome,
    bet.player_reference,
    bet.currency,
    bet.stake,
    bet.payout,
    bet.refund,
    bet.enhancement,
    bet.payout_multiplier,
    terms.base_currency AS reporting_currency,
    core.converted(bet.stake, bet.placement_rate, terms.direction) AS reporting_stake,
    core.converted(bet.payout, bet.settlement_rate, terms.direction) AS reporting_payout,
    bet.placement_rate,
    bet.settlement_rate,
    terms.direction AS rate_direction,
    (
        SELECT count(*)
        FROM core.settlement_leg AS leg
        WHERE leg.record_id = bet.record_id AND leg.part_number = 0
    ) AS legs,
    bet.settled_at,
    (bet.settled_at AT TIME ZONE 'UTC')::date AS settled_date,
    bet.settled_at_basis,
    bet.is_resettlement,
    bet.is_contested,
    bet.recorded_at,
    bet.accounting_date,
    bet.record_id,
    bet.batch_id
FROM core.settlement AS bet
LEFT JOIN ops.rate_terms AS terms USING (source)
WHERE bet.is_current AND core.is_bet(bet.source);

COMMENT ON VIEW finance.bet IS
    'How every bet stands now: one row each, however many legs it has, with its money in the bet''s own currency and, once it is said what the provider''s exchange rates mean, in the reporting currency. Contested, open, cancelled and rejected bets are here too; finance.daily_bet leaves them out. Never add up stake or payout of several currencies: group by currency.';
COMMENT ON COLUMN finance.bet.source IS 'The provider that decided: odds88 or tote.';
COMMENT ON COLUMN finance.bet.source_key IS 'The provider''s id of the bet. Unique within the source.';
COMMENT ON COLUMN finance.bet.version IS 'Which of the bet''s versions in finance.settlement_history this is.';
COMMENT ON COLUMN finance.bet.status IS 'open (not decided), settled, void (the stake returns), rejected, cancelled or failed.';
COMMENT ON COLUMN finance.bet.outcome IS 'What it means for the player: won, lost, refunded, half_won, half_lost, cash_out or placed; NULL while open. That of a cancelled or rejected bet has no effect: look at status first.';
COMMENT ON COLUMN finance.bet.player_reference IS 'Stands for the player, as in finance.settlement_current. NULL where the provider names no player.';
COMMENT ON COLUMN finance.bet.currency IS 'Currency of stake, payout, refund and enhancement; NULL if the provider told no amount.';
COMMENT ON COLUMN finance.bet.stake IS 'What the player staked, in major units of currency, exact; NULL if the provider told none.';
COMMENT ON COLUMN finance.bet.payout IS 'Everything returned to the player, refund and enhancement included, in major units of currency, exact; NULL until it is final or if the provider told none. Below zero only after a correction.';
COMMENT ON COLUMN finance.bet.refund IS 'The part of payout that returns stake, in major units of currency.';
COMMENT ON COLUMN finance.bet.enhancement IS 'The part of payout that is a promotion, in major units of currency.';
COMMENT ON COLUMN finance.bet.payout_multiplier IS 'What the provider multiplied the stake by for the payout; NULL where it does not tell.';
COMMENT ON COLUMN finance.bet.reporting_currency IS 'Currency of reporting_stake and reporting_payout; NULL, as these are, until it is said what the provider''s exchange rates mean (for odds88, SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY).';
COMMENT ON COLUMN finance.bet.reporting_stake IS 'The stake by placement_rate, in major units of reporting_currency, rounded to 8 digits behind the point, what is exactly between two to the even one; 0 for a stake of 0. NULL if that rate is not told or not above zero.';
COMMENT ON COLUMN finance.bet.reporting_payout IS 'The payout by settlement_rate, in major units of reporting_currency, rounded as reporting_stake is; 0 for a payout of 0. NULL if there is no payout, or if that rate is not told or not above zero.';
COMMENT ON COLUMN finance.bet.placement_rate IS 'The provider''s exchange rate when the bet was placed, as it told it; NULL where it does not tell.';
COMMENT ON COLUMN finance.bet.settlement_rate IS 'The provider''s exchange rate when the bet was settled, as it told it; NULL where it does not tell.';
COMMENT ON COLUMN finance.bet.rate_direction IS 'How the rates are used. units_per_base: the amount is divided by the rate. base_per_unit: it is multiplied by it. NULL as long as reporting_currency is.';
COMMENT ON COLUMN finance.bet.legs IS 'How many selections the bet has (finance.bet_leg): 1 for a single, more for a multiple; 0 if the provider told none.';
COMMENT ON COLUMN finance.bet.settled_at IS 'When the provider took this decision (UTC); see settled_at_basis.';
COMMENT ON COLUMN finance.bet.settled_date IS 'The UTC day of settled_at. Ask by it, or by source and source_key.';
COMMENT ON COLUMN finance.bet.settled_at_basis IS 'provider: the provider told settled_at. observed: it tells none, and this is when we first saw the decision.';
COMMENT ON COLUMN finance.bet.is_resettlement IS 'The provider calls this a correction of an earlier decision.';
COMMENT ON COLUMN finance.bet.is_contested IS 'The provider told two different contents of the same decision and nobody has chosen yet (finance.bet_contested): outside every total until then.';
COMMENT ON COLUMN finance.bet.recorded_at IS 'When it was recorded here (UTC).';
COMMENT ON COLUMN finance.bet.accounting_date IS 'The UTC day on which it is booked: the day of recorded_at.';
COMMENT ON COLUMN finance.bet.record_id IS 'Our number of the message that it comes from: its evidence.';
COMMENT ON COLUMN finance.bet.batch_id IS 'The batch that brought it (finance.batch).';
