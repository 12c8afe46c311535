CREATE VIEW finance.settlement_current AS
SELECT
    settlement.source,
    settlement.source_key,
    settlement.version,
    settlement.status,
    settlement.outcome,
    settlement.player_reference,
    settlement.event_id,
    settlement.market_id,
    settlement.selection_id,
    settlement.currency,
    settlement.stake,
    settlement.payout,
    settlement.refund,
    settlement.enhancement,
    settlement.settled_at,
    (settlement.settled_at AT TIME ZONE 'UTC')::date AS settled_date,
    settlement.settled_at_basis,
    settlement.settled_by,
    settlement.reason,
    settlement.is_resettlement,
    settlement.is_contested,
    settlement.chain_break,
    settlement.recorded_at,
    settlement.accounting_date,
    settlement.record_id,
    settlement.batch_id
FROM core.settlement AS settlement
WHERE settlement.is_current;

COMMENT ON VIEW finance.settlement_current IS
    'How every subject (bet, offer, position) stands now: one row each, the last decision in the provider''s own order. A contested one is here with is_contested true and is left out of finance.daily_settlement.';
COMMENT ON COLUMN finance.settlement_current.source IS 'The provider that decided: ticktock, …';
COMMENT ON COLUMN finance.settlement_current.source_key IS 'What was decided about, in the provider''s ids; for ticktock match_id/market_offer_id. Unique within the source.';
COMMENT ON COLUMN finance.settlement_current.version IS 'Which of the subject''s versions in finance.settlement_history this is; they are numbered as they were recorded.';
COMMENT ON COLUMN finance.settlement_current.status IS 'open (not decided), settled, void (stakes return), rejected, cancelled or failed.';
COMMENT ON COLUMN finance.settlement_current.outcome IS 'What it means for the player: won, lost, void, refunded, half_won, half_lost, cash_out, placed or partly_won; NULL while open.';
COMMENT ON COLUMN finance.settlement_current.player_reference IS 'Stands for the player: the same player always has the same reference, and it cannot be turned back into an id. NULL where the provider names no player.';
COMMENT ON COLUMN finance.settlement_current.event_id IS 'The provider''s event or match.';
COMMENT ON COLUMN finance.settlement_current.market_id IS 'The provider''s market or offer.';
COMMENT ON COLUMN finance.settlement_current.selection_id IS 'The provider''s selection or outcome; NULL where it names none.';
COMMENT ON COLUMN finance.settlement_current.currency IS 'Currency of all amounts in the row (ISO 4217 or the provider''s ticker); NULL where the provider tells no money.';
COMMENT ON COLUMN finance.settlement_current.stake IS 'What the player staked, in major units of currency, exact; NULL where the provider tells none.';
COMMENT ON COLUMN finance.settlement_current.payout IS 'Everything returned to the player, refund and enhancement included, in major units of currency, exact; NULL until it is final or where the provider tells none.';
COMMENT ON COLUMN finance.settlement_current.refund IS 'The part of payout that returns stake, in major units of currency.';
COMMENT ON COLUMN finance.settlement_current.enhancement IS 'The part of payout that is a promotion, in major units of currency.';
COMMENT ON COLUMN finance.settlement_current.settled_at IS 'When the provider took this decision (UTC); see settled_at_basis.';
COMMENT ON COLUMN finance.settlement_current.settled_date IS 'The UTC day of settled_at.';
COMMENT ON COLUMN finance.settlement_current.settled_at_basis IS 'provider: the provider told settled_at. observed: it tells none, and this is when we first saw the decision.';
COMMENT ON COLUMN finance.settlement_current.settled_by IS 'Who decided at the provider, in its own word: engine, system or admin.';
COMMENT ON COLUMN finance.settlement_current.reason IS 'The provider''s reason in its own words; NULL where it gives none.';
COMMENT ON COLUMN finance.settlement_current.is_resettlement IS 'The provider calls this a correction of an earlier decision.';
COMMENT ON COLUMN finance.settlement_current.is_contested IS 'The provider told two different contents of the same decision and nobody has chosen yet: outside every total until then.';
COMMENT ON COLUMN finance.settlement_current.chain_break IS 'status_differs: the provider says it changed another status than the one recorded before. original_missing: it follows an earlier decision that was never received. NULL if it follows from what came before.';
COMMENT ON COLUMN finance.settlement_current.recorded_at IS 'When it was recorded here (UTC).';
COMMENT ON COLUMN finance.settlement_current.accounting_date IS 'The UTC day on which it is booked: the day of recorded_at.';
COMMENT ON COLUMN finance.settlement_current.record_id IS 'Our number of the message that it comes from; the data team finds the exact text under it.';
COMMENT ON COLUMN finance.settlement_current.batch_id IS 'The batch that brought it (finance.batch).';
