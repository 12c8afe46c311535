CREATE VIEW finance.daily_bet AS
SELECT
    bet.source,
    bet.settled_date,
    bet.currency,
    count(*) AS bets,
    sum(bet.stake) AS stake,
    sum(bet.payout) AS payout,
    count(*) - count(bet.stake) AS bets_without_stake,
    count(*) - count(bet.payout) AS bets_without_payout,
    bet.reporting_currency,
    sum(reporting.stake) AS reporting_stake,
    sum(reporting.payout) AS reporting_payout,
    count(*) - count(reporting.stake) AS bets_without_reporting_stake,
    count(*) - count(reporting.payout) AS bets_without_reporting_payout,
    bet.rate_direction,
    min(bet.placement_rate) AS lowest_placement_rate,
    max(bet.placement_rate) AS highest_placement_rate,
    min(bet.settlement_rate) AS lowest_settlement_rate,
    max(bet.settlement_rate) AS highest_settlement_rate
FROM finance.bet AS bet
-- Each bet is converted once, although it is summed and counted.
CROSS JOIN LATERAL (
    SELECT bet.reporting_stake AS stake, bet.reporting_payout AS payout OFFSET 0
) AS reporting
WHERE bet.status IN ('settled', 'void') AND NOT bet.is_contested
GROUP BY
    bet.source, bet.settled_date, bet.currency, bet.reporting_currency, bet.rate_direction;

COMMENT ON VIEW finance.daily_bet IS
    'What was staked on the bets that are decided and what was returned for them, by the UTC day of their last decision and by currency, as they stand now. Open, cancelled, rejected, failed and contested bets are left out: of none of these a stake was won or lost. Two currencies are never in one row; only the reporting amounts may be added up across them.';
COMMENT ON COLUMN finance.daily_bet.source IS 'The provider that decided: odds88 or tote.';
COMMENT ON COLUMN finance.daily_bet.settled_date IS 'The UTC day of the last decision; a correction moves its bet from the old day to the new one, so past days change.';
COMMENT ON COLUMN finance.daily_bet.currency IS 'Currency of stake and payout; NULL: the provider told no amount.';
COMMENT ON COLUMN finance.daily_bet.bets IS 'How many bets: settled or void.';
COMMENT ON COLUMN finance.daily_bet.stake IS 'Sum of their stakes that are known, in major units of currency, exact; NULL, not 0, where none is.';
COMMENT ON COLUMN finance.daily_bet.payout IS 'Sum of all that was returned to the players, the stakes of void bets too, in major units of currency, exact; NULL, not 0, where nothing is known.';
COMMENT ON COLUMN finance.daily_bet.bets_without_stake IS 'How many of the bets have no stake, and so no part in that sum.';
COMMENT ON COLUMN finance.daily_bet.bets_without_payout IS 'How many of the bets have no payout, and so no part in that sum.';
COMMENT ON COLUMN finance.daily_bet.reporting_currency IS 'Currency of the reporting amounts; NULL, as these are, until it is said what the provider''s exchange rates mean.';
COMMENT ON COLUMN finance.daily_bet.reporting_stake IS 'Sum of the bets'' stakes, each converted by its own placement rate and rounded to 8 digits behind the point (finance.bet.reporting_stake); NULL where none can be converted.';
COMMENT ON COLUMN finance.daily_bet.reporting_payout IS 'Sum of the bets'' payouts, each converted by its own settlement rate and rounded to 8 digits behind the point (finance.bet.reporting_payout); NULL where none can be converted.';
COMMENT ON COLUMN finance.daily_bet.bets_without_reporting_stake IS 'How many of the bets have no stake that can be converted, and so no part in that sum.';
COMMENT ON COLUMN finance.daily_bet.bets_without_reporting_payout IS 'How many of the bets have no payout that can be converted, and so no part in that sum.';
COMMENT ON COLUMN finance.daily_bet.rate_direction IS 'units_per_base: amounts were divided by the rates. base_per_unit: they were multiplied by them. NULL as long as reporting_currency is.';
COMMENT ON COLUMN finance.daily_bet.lowest_placement_rate IS 'The lowest of the bets'' placement rates; each bet''s own is in finance.bet.';
COMMENT ON COLUMN finance.daily_bet.highest_placement_rate IS 'The highest of them.';
COMMENT ON COLUMN finance.daily_bet.lowest_settlement_rate IS 'The lowest of the bets'' settlement rates.';
COMMENT ON COLUMN finance.daily_bet.highest_settlement_rate IS 'The highest of them.';
