CREATE VIEW finance.correction AS
SELECT
    source,
    source_key,
    version,
    replaced_version,
    what_changed,
    replaced_status AS old_status,
    status AS new_status,
    replaced_outcome AS old_outcome,
    outcome AS new_outcome,
    replaced_currency AS old_currency,
    currency AS new_currency,
    replaced_stake AS old_stake,
    stake AS new_stake,
    replaced_payout AS old_payout,
    payout AS new_payout,
    CASE WHEN currency = replaced_currency THEN stake - replaced_stake END AS stake_difference,
    CASE WHEN currency = replaced_currency THEN payout - replaced_payout END AS payout_difference,
    replaced_placement_rate AS old_placement_rate,
    placement_rate AS new_placement_rate,
    replaced_settlement_rate AS old_settlement_rate,
    settlement_rate AS new_settlement_rate,
    replaced_player_reference AS old_player_reference,
    player_reference AS new_player_reference,
    event_id,
    market_id,
    replaced_settled_at AS old_settled_at,
    settled_at,
    recorded_at,
    accounting_date,
    settled_by,
    reason,
    is_resettlement,
    is_current,
    -- What came first at its place, and was followed by another decision, stays booked.
    is_contested AND NOT EXISTS (
        SELECT
        FROM core.settlement AS this
        WHERE this.record_id = history.record_id
            AND EXISTS (
                SELECT
                FROM core.settlement AS later
                WHERE later.source = this.source
                    AND later.source_key = this.source_key
                    AND later.provider_order > this.provider_order
                    AND NOT later.is_rejected_by_decision
            )
            AND NOT EXISTS (
                SELECT
                FROM core.settlement AS earlier
                WHERE earlier.source = this.source
                    AND earlier.source_key = this.source_key
                    AND earlier.provider_order = this.provider_order
                    AND earlier.record_id < this.record_id
                    AND NOT earlier.is_rejected_by_decision
            )
    ) AS is_contested,
    record_id,
    batch_id
FROM finance.settlement_history AS history
WHERE is_correction;

COMMENT ON VIEW finance.correction IS
    'Every decision that changed a subject after it was final: the version before it, in the provider''s order, was not open, and something that matters to finance is different. Repetitions are not here, whatever the provider calls them; nor are versions rejected by a decision. Of contents that contradict each other, the one that a person chose is here as if it had been told alone, and if it is the first of its subject, as what corrects the content that came before it. So what was published first and all differences that are not contested add up to what counts now, unless that is contested.';
COMMENT ON COLUMN finance.correction.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.correction.source_key IS 'What was decided about, in the provider''s ids.';
COMMENT ON COLUMN finance.correction.version IS 'The version that corrects (finance.settlement_history).';
COMMENT ON COLUMN finance.correction.replaced_version IS 'The version that it corrects.';
COMMENT ON COLUMN finance.correction.what_changed IS 'What is different, in words: status, outcome, payout, …';
COMMENT ON COLUMN finance.correction.old_status IS 'The status before; never open.';
COMMENT ON COLUMN finance.correction.new_status IS 'The status after; open if the provider took its decision back.';
COMMENT ON COLUMN finance.correction.old_outcome IS 'The outcome before.';
COMMENT ON COLUMN finance.correction.new_outcome IS 'The outcome after; NULL if the subject is open again.';
COMMENT ON COLUMN finance.correction.old_currency IS 'The currency of old_stake and old_payout.';
COMMENT ON COLUMN finance.correction.new_currency IS 'The currency of new_stake and new_payout.';
COMMENT ON COLUMN finance.correction.old_stake IS 'The stake before, in major units of old_currency.';
COMMENT ON COLUMN finance.correction.new_stake IS 'The stake after, in major units of new_currency.';
COMMENT ON COLUMN finance.correction.old_payout IS 'The payout before, in major units of old_currency; NULL where the provider tells none.';
COMMENT ON COLUMN finance.correction.new_payout IS 'The payout after, in major units of new_currency; NULL where the provider tells none.';
COMMENT ON COLUMN finance.correction.stake_difference IS 'new_stake less old_stake, in major units of the currency. NULL if either is unknown or the currencies differ.';
COMMENT ON COLUMN finance.correction.payout_difference IS 'new_payout less old_payout, in major units of the currency: above zero, the player gets more. NULL if either is unknown or the currencies differ.';
COMMENT ON COLUMN finance.correction.old_placement_rate IS 'The provider''s exchange rate at placement before; NULL where it told none, and so the next three.';
COMMENT ON COLUMN finance.correction.new_placement_rate IS 'The provider''s exchange rate at placement after: with another rate, the same stake is another amount in the reporting currency.';
COMMENT ON COLUMN finance.correction.old_settlement_rate IS 'The provider''s exchange rate at settlement before.';
COMMENT ON COLUMN finance.correction.new_settlement_rate IS 'The provider''s exchange rate at settlement after.';
COMMENT ON COLUMN finance.correction.old_player_reference IS 'Whose it was before (finance.settlement_current says what a reference is).';
COMMENT ON COLUMN finance.correction.new_player_reference IS 'Whose it is after.';
COMMENT ON COLUMN finance.correction.event_id IS 'The provider''s event or match.';
COMMENT ON COLUMN finance.correction.market_id IS 'The provider''s market or offer.';
COMMENT ON COLUMN finance.correction.old_settled_at IS 'When the provider had taken the decision that is corrected (UTC).';
COMMENT ON COLUMN finance.correction.settled_at IS 'When the provider corrected it (UTC).';
COMMENT ON COLUMN finance.correction.recorded_at IS 'When the correction was recorded here (UTC).';
COMMENT ON COLUMN finance.correction.accounting_date IS 'The UTC day on which the correction is booked, that of recorded_at, also if it was contested and chosen later (finance.decision); the day of the decision it corrects stays as it was closed.';
COMMENT ON COLUMN finance.correction.settled_by IS 'Who corrected it at the provider, in its own word: engine, system or admin.';
COMMENT ON COLUMN finance.correction.reason IS 'The provider''s reason in its own words; NULL where it gives none.';
COMMENT ON COLUMN finance.correction.is_resettlement IS 'The provider itself calls this a correction; false where it changed a final decision without saying so.';
COMMENT ON COLUMN finance.correction.is_current IS 'This is how the subject stands now; false if it was corrected again.';
COMMENT ON COLUMN finance.correction.is_contested IS 'The provider told another content of the same decision as well, and nobody has chosen yet: do not book it. Not set for what came first and was followed by a later decision: that stays as it was.';
COMMENT ON COLUMN finance.correction.record_id IS 'Our number of the message that it comes from: its evidence.';
COMMENT ON COLUMN finance.correction.batch_id IS 'The batch that brought it (finance.batch).';
