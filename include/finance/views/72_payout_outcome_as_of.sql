CREATE FUNCTION finance.payout_outcome_as_of(as_of timestamptz)
RETURNS SETOF finance.payout_outcome
-- With its owner's rights, as a view has them.
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH held AS (
        SELECT DISTINCT transaction_id
        FROM wallet.hold
        WHERE held_at <= as_of AND (ended_at IS NULL OR ended_at > as_of)
    ),
    -- An answer that came later was a doubt then.
    doubtful AS (
        SELECT DISTINCT item.transaction_id
        FROM wallet.attempt
        JOIN wallet.attempt_item AS item USING (attempt_id)
        WHERE attempt.committed_at <= as_of
            AND (
                attempt.closed_at > as_of
                OR item.outcome IS NULL
                OR item.outcome IN ('in_doubt', 'contested', 'unclear')
            )
    ),
    payout AS (
        SELECT
            entered.business_date,
            entered.currency,
            entered.amount,
            CASE WHEN entered.disposed_at <= as_of THEN entered.disposed_at END AS disposed_at,
            CASE
                WHEN entered.disposed_at <= as_of THEN entered.disposition
                WHEN held.transaction_id IS NOT NULL THEN 'held'
                ELSE 'open'
            END AS state,
            doubtful.transaction_id IS NOT NULL AS is_in_doubt
        FROM wallet.transaction AS entered
        LEFT JOIN held USING (transaction_id)
        LEFT JOIN doubtful USING (transaction_id)
        WHERE entered.entered_at <= as_of
    )
    SELECT
        business_date,
        currency,
        count(*),
        sum(amount) * 0.00001,
        count(*) FILTER (WHERE state = 'processed'),
        coalesce(sum(amount) FILTER (WHERE state = 'processed'), 0) * 0.00001,
        count(*) FILTER (WHERE state = 'lost'),
        coalesce(sum(amount) FILTER (WHERE state = 'lost'), 0) * 0.00001,
        count(*) FILTER (WHERE state = 'open'),
        coalesce(sum(amount) FILTER (WHERE state = 'open'), 0) * 0.00001,
        count(*) FILTER (WHERE state = 'open' AND is_in_doubt),
        coalesce(sum(amount) FILTER (WHERE state = 'open' AND is_in_doubt), 0) * 0.00001,
        count(*) FILTER (WHERE state = 'held'),
        coalesce(sum(amount) FILTER (WHERE state = 'held'), 0) * 0.00001,
        max(disposed_at),
        count(*) FILTER (WHERE state IN ('open', 'held')) = 0
    FROM payout
    GROUP BY business_date, currency
$$;

COMMENT ON FUNCTION finance.payout_outcome_as_of(timestamptz) IS
    'How the payouts of each UTC day and currency stood at that moment, with the columns of finance.payout_outcome: SELECT * FROM payout_outcome_as_of(''2026-11-21 01:30Z''). A change counts from the start of the transaction that made it, so what was under way at that moment may still join it for as long as that takes: seconds.';
