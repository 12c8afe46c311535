CREATE VIEW finance.bet_contested AS
SELECT
    bet.source,
    bet.source_key,
    bet.record_id,
    bet.version,
    bet.is_current,
    bet.status,
    bet.outcome,
    bet.currency,
    bet.stake,
    bet.payout,
    bet.refund,
    bet.enhancement,
    bet.placement_rate,
    bet.settlement_rate,
    bet.settled_at,
    bet.recorded_at,
    finding.finding_id,
    bet.batch_id
FROM core.settlement AS bet
LEFT JOIN ops.finding AS finding
    ON finding.kind = 'settlement_contested'
    AND finding.state = 'open'
    AND finding.source = bet.source
    AND finding.detail ->> 'source_key' = bet.source_key
    AND finding.detail ->> 'provider_order' = bet.provider_order
WHERE bet.is_contested AND core.is_bet(bet.source);

COMMENT ON VIEW finance.bet_contested IS
    'Every content of every decision about a bet of which the provider told several, until somebody chooses: the rows of one finding contradict each other, and one of them counts. A bet whose last decision is contested is outside of finance.daily_bet and finance.bet_outcome meanwhile.';
COMMENT ON COLUMN finance.bet_contested.source IS 'The provider that decided: odds88 or tote.';
COMMENT ON COLUMN finance.bet_contested.source_key IS 'The provider''s id of the bet (finance.bet).';
COMMENT ON COLUMN finance.bet_contested.record_id IS 'Our number of the message: give the one that counts to resolve_findings, with the decision choose_version.';
COMMENT ON COLUMN finance.bet_contested.version IS 'Which of the bet''s versions in finance.settlement_history this is.';
COMMENT ON COLUMN finance.bet_contested.is_current IS 'The one that finance.bet shows meanwhile. If none of a finding''s rows is, a later decision about the bet has passed them, and it counts.';
COMMENT ON COLUMN finance.bet_contested.status IS 'open (not decided), settled, void (the stake returns), rejected, cancelled or failed.';
COMMENT ON COLUMN finance.bet_contested.outcome IS 'What it would mean for the player, in the words of finance.bet.outcome; NULL if open.';
COMMENT ON COLUMN finance.bet_contested.currency IS 'Currency of all amounts in the row.';
COMMENT ON COLUMN finance.bet_contested.stake IS 'The stake by this content, in major units of currency, exact.';
COMMENT ON COLUMN finance.bet_contested.payout IS 'The payout by this content, in major units of currency, exact.';
COMMENT ON COLUMN finance.bet_contested.refund IS 'The part of payout that returns stake, in major units of currency.';
COMMENT ON COLUMN finance.bet_contested.enhancement IS 'The part of payout that is a promotion, in major units of currency.';
COMMENT ON COLUMN finance.bet_contested.placement_rate IS 'The exchange rate at placement by this content.';
COMMENT ON COLUMN finance.bet_contested.settlement_rate IS 'The exchange rate at settlement by this content.';
COMMENT ON COLUMN finance.bet_contested.settled_at IS 'When the provider took the decision (UTC): the same in all rows of one finding.';
COMMENT ON COLUMN finance.bet_contested.recorded_at IS 'When this content was recorded here (UTC).';
COMMENT ON COLUMN finance.bet_contested.finding_id IS 'The finding that asks which one counts (finance.finding_open).';
COMMENT ON COLUMN finance.bet_contested.batch_id IS 'The batch that brought it (finance.batch).';
