CREATE VIEW finance.bet_outcome AS
SELECT
    source,
    settled_date,
    currency,
    sum(settlements)::bigint AS bets,
    coalesce(sum(settlements) FILTER (WHERE result = 'won'), 0)::bigint AS won,
    coalesce(sum(settlements) FILTER (WHERE result = 'half_won'), 0)::bigint AS half_won,
    coalesce(sum(settlements) FILTER (WHERE result = 'placed'), 0)::bigint AS placed,
    coalesce(sum(settlements) FILTER (WHERE result = 'cash_out'), 0)::bigint AS cashed_out,
    coalesce(sum(settlements) FILTER (WHERE result = 'refunded'), 0)::bigint AS refunded,
    coalesce(sum(settlements) FILTER (WHERE result = 'half_lost'), 0)::bigint AS half_lost,
    coalesce(sum(settlements) FILTER (WHERE result = 'lost'), 0)::bigint AS lost,
    coalesce(sum(settlements) FILTER (WHERE result = 'open'), 0)::bigint AS open,
    coalesce(sum(settlements) FILTER (WHERE result = 'cancelled'), 0)::bigint AS cancelled,
    coalesce(sum(settlements) FILTER (WHERE result = 'rejected'), 0)::bigint AS rejected,
    coalesce(sum(settlements) FILTER (WHERE result = 'failed'), 0)::bigint AS failed
FROM (
    SELECT
        source,
        settled_date,
        currency,
        settlements,
        -- What is cancelled or rejected may have an outcome too, which has no effect.
        CASE WHEN status IN ('settled', 'void') THEN outcome ELSE status END AS result
    FROM core.daily_settlement
    WHERE core.is_bet(source) AND settlements > 0
) AS counted
GROUP BY source, settled_date, currency;

COMMENT ON VIEW finance.bet_outcome IS
    'How the bets stand now, counted by the UTC day of their last decision and by currency: each bet in exactly one of the columns behind bets, so that these add up to it. Contested bets are left out. Their money is in finance.daily_bet, and by outcome in finance.daily_settlement.';
COMMENT ON COLUMN finance.bet_outcome.source IS 'The provider that decided: odds88 or tote.';
COMMENT ON COLUMN finance.bet_outcome.settled_date IS 'The UTC day of the last decision; a correction moves its bet from the old day to the new one.';
COMMENT ON COLUMN finance.bet_outcome.currency IS 'The bets'' currency; NULL: the provider told no amount. Counts may be added up across currencies.';
COMMENT ON COLUMN finance.bet_outcome.bets IS 'How many bets there are.';
COMMENT ON COLUMN finance.bet_outcome.won IS 'Of these, bets that won.';
COMMENT ON COLUMN finance.bet_outcome.half_won IS 'Of these, bets of which half won and half was refunded.';
COMMENT ON COLUMN finance.bet_outcome.placed IS 'Of these, each-way bets of which only the place part won.';
COMMENT ON COLUMN finance.bet_outcome.cashed_out IS 'Of these, bets that ended early at a price offered for them.';
COMMENT ON COLUMN finance.bet_outcome.refunded IS 'Of these, bets that were declared void: the stake returned.';
COMMENT ON COLUMN finance.bet_outcome.half_lost IS 'Of these, bets of which half lost and half was refunded.';
COMMENT ON COLUMN finance.bet_outcome.lost IS 'Of these, bets that lost.';
COMMENT ON COLUMN finance.bet_outcome.open IS 'Of these, bets that are not decided, or not any more.';
COMMENT ON COLUMN finance.bet_outcome.cancelled IS 'Of these, bets that were cancelled (finance.bet_cancelled), whatever outcome they had.';
COMMENT ON COLUMN finance.bet_outcome.rejected IS 'Of these, bets that were never accepted (finance.bet_cancelled).';
COMMENT ON COLUMN finance.bet_outcome.failed IS 'Of these, bets that could not be placed (finance.bet_cancelled).';
