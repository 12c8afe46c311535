CREATE VIEW finance.bet_cancelled AS
SELECT
    source,
    source_key,
    version,
    status,
    currency,
    stake,
    payout,
    settled_at,
    (settled_at AT TIME ZONE 'UTC')::date AS settled_date,
    replaced_version,
    replaced_status AS old_status,
    replaced_outcome AS old_outcome,
    replaced_currency AS old_currency,
    replaced_payout AS old_payout,
    is_contested,
    recorded_at,
    accounting_date,
    record_id,
    batch_id
FROM finance.settlement_history
WHERE is_current
    AND core.is_bet(source)
    AND status IN ('cancelled', 'rejected', 'failed');

COMMENT ON VIEW finance.bet_cancelled IS
    'Every bet that stands cancelled, rejected or failed now, beside what it was before. None of them is in finance.daily_bet. Ask by settled_date or accounting_date.';
COMMENT ON COLUMN finance.bet_cancelled.source IS 'The provider that decided: odds88 or tote.';
COMMENT ON COLUMN finance.bet_cancelled.source_key IS 'The provider''s id of the bet (finance.bet).';
COMMENT ON COLUMN finance.bet_cancelled.version IS 'The version that says so (finance.settlement_history).';
COMMENT ON COLUMN finance.bet_cancelled.status IS 'cancelled: it was called off. rejected: it was never accepted. failed: it could not be placed.';
COMMENT ON COLUMN finance.bet_cancelled.currency IS 'Currency of stake and payout; NULL if the provider told no amount.';
COMMENT ON COLUMN finance.bet_cancelled.stake IS 'What was to be staked, in major units of currency, exact.';
COMMENT ON COLUMN finance.bet_cancelled.payout IS 'What the provider says was returned, in major units of currency, exact; NULL where it tells none.';
COMMENT ON COLUMN finance.bet_cancelled.settled_at IS 'When the provider decided so (UTC).';
COMMENT ON COLUMN finance.bet_cancelled.settled_date IS 'The UTC day of settled_at.';
COMMENT ON COLUMN finance.bet_cancelled.replaced_version IS 'The version before it; NULL if it was so from the beginning, and so the next four.';
COMMENT ON COLUMN finance.bet_cancelled.old_status IS 'The status before. Unless that was open, it is a correction as well (finance.correction).';
COMMENT ON COLUMN finance.bet_cancelled.old_outcome IS 'The outcome before; NULL if it was open.';
COMMENT ON COLUMN finance.bet_cancelled.old_currency IS 'The currency of old_payout.';
COMMENT ON COLUMN finance.bet_cancelled.old_payout IS 'What had been returned to the player before, in major units of old_currency.';
COMMENT ON COLUMN finance.bet_cancelled.is_contested IS 'The provider told another content of the same decision as well, and nobody has chosen yet.';
COMMENT ON COLUMN finance.bet_cancelled.recorded_at IS 'When it was recorded here (UTC).';
COMMENT ON COLUMN finance.bet_cancelled.accounting_date IS 'The UTC day on which it is booked: the day of recorded_at.';
COMMENT ON COLUMN finance.bet_cancelled.record_id IS 'Our number of the message that it comes from: its evidence.';
COMMENT ON COLUMN finance.bet_cancelled.batch_id IS 'The batch that brought it (finance.batch).';
