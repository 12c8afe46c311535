CREATE VIEW finance.market_payout AS
SELECT
    settlement.source_key AS settlement_id,
    settlement.market_id,
    settlement.position_id,
    settlement.selection_id AS outcome_id,
    settlement.player_reference,
    settlement.status,
    settlement.outcome,
    settlement.currency,
    settlement.payout,
    settlement.settled_at,
    settlement.reason,
    settlement.version,
    settlement.recorded_at,
    settlement.accounting_date,
    settlement.record_id,
    settlement.batch_id
FROM core.settlement AS settlement
WHERE settlement.source = 'prediction'
    AND settlement.is_current
    AND NOT settlement.is_contested;
COMMENT ON VIEW finance.market_payout IS
    'What each settlement of a market pays its player, as it stands now. A position that failed and was settled anew has more than one; the completed one counts. Contested ones are left out (finance.settlement_current).';
COMMENT ON COLUMN finance.market_payout.settlement_id IS 'The engine''s settlement.';
COMMENT ON COLUMN finance.market_payout.market_id IS 'Its market.';
COMMENT ON COLUMN finance.market_payout.position_id IS 'The position that it settles.';
COMMENT ON COLUMN finance.market_payout.outcome_id IS 'The outcome that the position is in.';
COMMENT ON COLUMN finance.market_payout.player_reference IS 'Keyed hash of the player''s id.';
COMMENT ON COLUMN finance.market_payout.status IS 'settled: completed. failed. open: under way.';
COMMENT ON COLUMN finance.market_payout.outcome IS 'won, lost or partly_won; NULL unless settled.';
COMMENT ON COLUMN finance.market_payout.currency IS 'The market''s currency.';
COMMENT ON COLUMN finance.market_payout.payout IS 'What it pays; NULL unless settled.';
COMMENT ON COLUMN finance.market_payout.settled_at IS 'When the engine completed or failed it (UTC).';
COMMENT ON COLUMN finance.market_payout.reason IS 'The engine''s error, if it failed.';
COMMENT ON COLUMN finance.market_payout.version IS 'Which of its versions this is; above 1 it was told before as something else.';
COMMENT ON COLUMN finance.market_payout.recorded_at IS 'When this version was published (UTC).';
COMMENT ON COLUMN finance.market_payout.accounting_date IS 'The day in which it is booked (UTC).';
COMMENT ON COLUMN finance.market_payout.record_id IS 'Its evidence: the record it comes from.';
COMMENT ON COLUMN finance.market_payout.batch_id IS 'The delivery it came with.';
