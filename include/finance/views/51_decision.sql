CREATE VIEW finance.decision AS
SELECT
    decision.decision_id,
    decision.decided_at,
    decision.decided_by,
    decision.decision,
    decision.reason,
    decision.reference,
    decision.finding_id,
    finding.source,
    finding.kind AS finding_kind,
    finding.subject,
    finding.summary AS what_happened,
    finding.opened_at AS finding_opened_at,
    finding.batch_id,
    CASE
        WHEN jsonb_typeof(decision.parameters -> 'record_id') = 'number'
            THEN (decision.parameters ->> 'record_id')::bigint
    END AS chosen_record_id,
    decision.awaits_second_person,
    decision.first_decision_id,
    CASE
        WHEN finding.source = 'wallet' AND jsonb_typeof(decision.state_before -> 'count') = 'number'
            THEN (decision.state_before ->> 'count')::bigint
    END AS payouts,
    CASE WHEN finding.source = 'wallet' THEN decision.state_before -> 'amounts' END
        AS payout_amounts
FROM ops.decision AS decision
JOIN ops.finding AS finding USING (finding_id);

COMMENT ON VIEW finance.decision IS
    'Every answer that a person gave to a finding: who, what, why and when; never changed or deleted. What it changed, before and after, is with the data team, because that may name players.';
COMMENT ON COLUMN finance.decision.decision_id IS 'The decision''s number, ascending.';
COMMENT ON COLUMN finance.decision.decided_at IS 'When it was carried out, or asked for (UTC).';
COMMENT ON COLUMN finance.decision.decided_by IS 'Who decided: the Airflow user.';
COMMENT ON COLUMN finance.decision.decision IS 'What was decided: release_batch, discard, choose_version, accept_gap, …; the finding''s next_step told what each does.';
COMMENT ON COLUMN finance.decision.reason IS 'Why, in that person''s words.';
COMMENT ON COLUMN finance.decision.reference IS 'The ticket, mail or partner reference that supports it; NULL if none was given.';
COMMENT ON COLUMN finance.decision.finding_id IS 'The finding that it answers.';
COMMENT ON COLUMN finance.decision.source IS 'The provider that the finding concerns.';
COMMENT ON COLUMN finance.decision.finding_kind IS 'What sort of question it was.';
COMMENT ON COLUMN finance.decision.subject IS 'What the finding concerned: a batch, a feed, a field, a settlement.';
COMMENT ON COLUMN finance.decision.what_happened IS 'What the finding said, in one sentence.';
COMMENT ON COLUMN finance.decision.finding_opened_at IS 'When the question came up (UTC).';
COMMENT ON COLUMN finance.decision.batch_id IS 'The batch that the finding concerned (finance.batch); NULL if none.';
COMMENT ON COLUMN finance.decision.chosen_record_id IS 'The message whose content a person chose (finance.settlement_history.record_id); NULL if there was nothing to choose.';
COMMENT ON COLUMN finance.decision.awaits_second_person IS 'It changed nothing: another person has to decide the same.';
COMMENT ON COLUMN finance.decision.first_decision_id IS 'The other person''s decision that this one confirms; NULL if one person was enough.';
COMMENT ON COLUMN finance.decision.payouts IS 'How many payouts it was about; NULL if it was about none.';
COMMENT ON COLUMN finance.decision.payout_amounts IS 'Their sums by currency, in major units, as text so that they stay exact; NULL if it was about none.';
