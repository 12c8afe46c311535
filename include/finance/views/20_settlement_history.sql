CREATE VIEW finance.settlement_history AS
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
    settlement.placement_rate,
    settlement.settlement_rate,
    settlement.settled_at,
    settlement.settled_at_basis,
    settlement.settled_by,
    settlement.reason,
    settlement.is_resettlement,
    settlement.is_current,
    settlement.is_change,
    settlement.is_correction,
    settlement.is_contested,
    settlement.is_rejected_by_decision,
    settlement.not_applied_reason,
    settlement.chain_break,
    replaced.version AS replaced_version,
    replaced.status AS replaced_status,
    replaced.outcome AS replaced_outcome,
    replaced.player_reference AS replaced_player_reference,
    replaced.currency AS replaced_currency,
    replaced.stake AS replaced_stake,
    replaced.payout AS replaced_payout,
    replaced.placement_rate AS replaced_placement_rate,
    replaced.settlement_rate AS replaced_settlement_rate,
    replaced.settled_at AS replaced_settled_at,
    CASE WHEN replaced.version IS NOT NULL THEN concat_ws(
        ', ',
        CASE WHEN settlement.status IS DISTINCT FROM replaced.status THEN 'status' END,
        CASE WHEN settlement.outcome IS DISTINCT FROM replaced.outcome THEN 'outcome' END,
        CASE WHEN settlement.player_id IS DISTINCT FROM replaced.player_id THEN 'player' END,
        CASE WHEN settlement.event_id IS DISTINCT FROM replaced.event_id THEN 'event' END,
        CASE WHEN settlement.market_id IS DISTINCT FROM replaced.market_id THEN 'market' END,
        CASE WHEN settlement.selection_id IS DISTINCT FROM replaced.selection_id THEN 'selection' END,
        CASE WHEN settlement.currency IS DISTINCT FROM replaced.currency THEN 'currency' END,
        CASE WHEN settlement.stake IS DISTINCT FROM replaced.stake THEN 'stake' END,
        CASE WHEN settlement.payout IS DISTINCT FROM replaced.payout THEN 'payout' END,
        CASE WHEN settlement.refund IS DISTINCT FROM replaced.refund THEN 'refund' END,
        CASE WHEN settlement.enhancement IS DISTINCT FROM replaced.enhancement THEN 'enhancement' END,
        CASE WHEN settlement.placement_rate IS DISTINCT FROM replaced.placement_rate THEN 'placement rate' END,
        CASE WHEN settlement.settlement_rate IS DISTINCT FROM replaced.settlement_rate THEN 'settlement rate' END
    ) END AS what_changed,
    settlement.recorded_at,
    settlement.accounting_date,
    settlement.record_id,
    settlement.batch_id
FROM core.settlement AS settlement
-- A probe by key and no window: so a filter on a day or a subject reads that day or subject alone.
LEFT JOIN LATERAL (
    SELECT earlier.*
    FROM core.settlement AS earlier
    WHERE earlier.source = settlement.source
        AND earlier.source_key = settlement.source_key
        AND (earlier.provider_order, earlier.record_id)
            < (settlement.provider_order, settlement.record_id)
        AND (
            NOT earlier.is_rejected_by_decision
            OR earlier.provider_order = settlement.provider_order
        )
        AND NOT settlement.is_rejected_by_decision
    -- Of several at the place before, the one that came first: what contradicts it later changes
    -- nothing before it is chosen.  With nothing before, what this one was chosen over.
    ORDER BY
        earlier.is_rejected_by_decision,
        earlier.provider_order DESC,
        CASE
            WHEN earlier.provider_order = settlement.provider_order
                AND NOT earlier.is_rejected_by_decision THEN -earlier.record_id
            ELSE earlier.record_id
        END
    LIMIT 1
) AS replaced ON true;

COMMENT ON VIEW finance.settlement_history IS
    'Every version of every settlement, for ever, each beside the one that it replaced: the version before it in the provider''s own order, whenever each of them arrived. Nothing here is ever deleted or overwritten. Ask by source and source_key, or by a range of recorded_at or settled_at.';
COMMENT ON COLUMN finance.settlement_history.source IS 'The provider that decided.';
COMMENT ON COLUMN finance.settlement_history.source_key IS 'What was decided about, in the provider''s ids; for ticktock match_id/market_offer_id.';
COMMENT ON COLUMN finance.settlement_history.version IS '1, 2, 3 … in the order in which the subject''s versions were recorded here, which need not be the provider''s order.';
COMMENT ON COLUMN finance.settlement_history.status IS 'open (not decided), settled, void (stakes return), rejected, cancelled or failed.';
COMMENT ON COLUMN finance.settlement_history.outcome IS 'What it meant for the player: won, lost, void, …; NULL while open.';
COMMENT ON COLUMN finance.settlement_history.player_reference IS 'Stands for the player and cannot be turned back into an id; NULL where the provider names none.';
COMMENT ON COLUMN finance.settlement_history.event_id IS 'The provider''s event or match.';
COMMENT ON COLUMN finance.settlement_history.market_id IS 'The provider''s market or offer.';
COMMENT ON COLUMN finance.settlement_history.selection_id IS 'The provider''s selection or outcome; NULL where it names none.';
COMMENT ON COLUMN finance.settlement_history.currency IS 'Currency of all amounts of this version; NULL where the provider tells no money.';
COMMENT ON COLUMN finance.settlement_history.stake IS 'What the player staked, in major units of currency, exact.';
COMMENT ON COLUMN finance.settlement_history.payout IS 'Everything returned to the player, in major units of currency, exact; NULL until it is final or where the provider tells none.';
COMMENT ON COLUMN finance.settlement_history.refund IS 'The part of payout that returns stake, in major units of currency.';
COMMENT ON COLUMN finance.settlement_history.enhancement IS 'The part of payout that is a promotion, in major units of currency.';
COMMENT ON COLUMN finance.settlement_history.placement_rate IS 'The provider''s exchange rate when the bet was placed; NULL where it does not tell.';
COMMENT ON COLUMN finance.settlement_history.settlement_rate IS 'The provider''s exchange rate when the bet was settled; NULL where it does not tell.';
COMMENT ON COLUMN finance.settlement_history.settled_at IS 'When the provider took this decision (UTC); see settled_at_basis.';
COMMENT ON COLUMN finance.settlement_history.settled_at_basis IS 'provider: the provider told settled_at. observed: this is when we first saw the decision.';
COMMENT ON COLUMN finance.settlement_history.settled_by IS 'Who decided at the provider, in its own word: engine, system or admin.';
COMMENT ON COLUMN finance.settlement_history.reason IS 'The provider''s reason in its own words; NULL where it gives none.';
COMMENT ON COLUMN finance.settlement_history.is_resettlement IS 'The provider calls this a correction of an earlier decision.';
COMMENT ON COLUMN finance.settlement_history.is_current IS 'This version is the one in finance.settlement_current.';
COMMENT ON COLUMN finance.settlement_history.is_change IS 'It says something else than the version it replaced; false for the first and for a repetition.';
COMMENT ON COLUMN finance.settlement_history.is_correction IS 'It changed a decision that was final before it: what finance.correction lists.';
COMMENT ON COLUMN finance.settlement_history.is_contested IS 'The provider told another content of the same decision as well, and nobody has chosen yet.';
COMMENT ON COLUMN finance.settlement_history.is_rejected_by_decision IS 'A person chose another content of this decision (finance.decision): it never counts and replaces nothing.';
COMMENT ON COLUMN finance.settlement_history.not_applied_reason IS 'Why it was not current when it was recorded. late: a later decision was here before it. same_order: another content of the same decision was. NULL: it became current.';
COMMENT ON COLUMN finance.settlement_history.chain_break IS 'status_differs: the provider says it changed another status than the one recorded before. original_missing: it follows an earlier decision that was never received. NULL if it follows from what came before.';
COMMENT ON COLUMN finance.settlement_history.replaced_version IS 'The version that it replaced; NULL for the first and for one rejected by a decision.';
COMMENT ON COLUMN finance.settlement_history.replaced_status IS 'The status that it replaced.';
COMMENT ON COLUMN finance.settlement_history.replaced_outcome IS 'The outcome that it replaced; NULL if that was open.';
COMMENT ON COLUMN finance.settlement_history.replaced_player_reference IS 'The player reference that it replaced.';
COMMENT ON COLUMN finance.settlement_history.replaced_currency IS 'The currency of the amounts that it replaced.';
COMMENT ON COLUMN finance.settlement_history.replaced_stake IS 'The stake that it replaced, in major units of replaced_currency.';
COMMENT ON COLUMN finance.settlement_history.replaced_payout IS 'The payout that it replaced, in major units of replaced_currency.';
COMMENT ON COLUMN finance.settlement_history.replaced_placement_rate IS 'The exchange rate at placement that it replaced.';
COMMENT ON COLUMN finance.settlement_history.replaced_settlement_rate IS 'The exchange rate at settlement that it replaced.';
COMMENT ON COLUMN finance.settlement_history.replaced_settled_at IS 'When the provider had taken the decision that it replaced (UTC).';
COMMENT ON COLUMN finance.settlement_history.what_changed IS 'What is different from the version that it replaced, in words: status, outcome, payout, …; empty for a repetition, NULL if it replaced none.';
COMMENT ON COLUMN finance.settlement_history.recorded_at IS 'When it was recorded here (UTC).';
COMMENT ON COLUMN finance.settlement_history.accounting_date IS 'The UTC day on which it is booked: the day of recorded_at.';
COMMENT ON COLUMN finance.settlement_history.record_id IS 'Our number of the message that it comes from: its evidence.';
COMMENT ON COLUMN finance.settlement_history.batch_id IS 'The batch that brought it (finance.batch).';
