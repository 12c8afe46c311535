CREATE VIEW finance.daily_settlement AS
SELECT
    source,
    settled_date,
    status,
    outcome,
    currency,
    settlements,
    CASE WHEN stakes > 0 THEN stake END AS stake,
    CASE WHEN payouts > 0 THEN payout END AS payout,
    settlements - stakes AS settlements_without_stake,
    settlements - payouts AS settlements_without_payout
FROM core.daily_settlement
WHERE settlements > 0;

COMMENT ON VIEW finance.daily_settlement IS
    'How the subjects stand now, counted and summed by the UTC day of their last decision. A correction moves its subject from the old day to the new one, so past days change; finance.daily_recording counts by the day of booking, which does not. Contested subjects are left out. Currencies are never added up.';
COMMENT ON COLUMN finance.daily_settlement.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.daily_settlement.settled_date IS 'The UTC day of the last decision; NULL where the provider tells no time.';
COMMENT ON COLUMN finance.daily_settlement.status IS 'open (not decided), settled, void (stakes return), rejected, cancelled or failed.';
COMMENT ON COLUMN finance.daily_settlement.outcome IS 'What it means for the players: won, lost, void, …; NULL while open.';
COMMENT ON COLUMN finance.daily_settlement.currency IS 'The currency of stake and payout; NULL where the provider tells no money.';
COMMENT ON COLUMN finance.daily_settlement.settlements IS 'How many subjects stand so.';
COMMENT ON COLUMN finance.daily_settlement.stake IS 'Sum of the stakes that are known, in major units of currency, exact; NULL, not 0, where none is.';
COMMENT ON COLUMN finance.daily_settlement.payout IS 'Sum of the payouts that are known, in major units of currency, exact; NULL, not 0, where none is.';
COMMENT ON COLUMN finance.daily_settlement.settlements_without_stake IS 'How many of the subjects have no stake, and so no part in the sum.';
COMMENT ON COLUMN finance.daily_settlement.settlements_without_payout IS 'How many of the subjects have no payout (yet), and so no part in the sum.';
