"""Finance's daily totals: moved by every transaction that changes what they count.

What each of its versions counted for before is taken away and what it counts for now is added, so a
batch costs what it holds, however many rows its days have.  Amounts are exact, so no sum drifts.
Whoever writes core.settlement holds the source's lock, so no two add to one row at once.
"""

from __future__ import annotations


def add_settlements(versions: str) -> str:
    """SQL that adds versions to core.daily_settlement.

    `versions` is a relation of rows of core.settlement, each with a `weight`: 1 for a version that
    counts from now on, -1 for one that did and does not any more, else 0.
    """
    return f"""
INSERT INTO core.daily_settlement AS total (
    source, settled_date, status, outcome, currency,
    settlements, stake, payout, stakes, payouts
)
SELECT
    source,
    (settled_at AT TIME ZONE 'UTC')::date,
    status,
    outcome,
    currency,
    sum(weight),
    coalesce(sum(weight * stake), 0),
    coalesce(sum(weight * payout), 0),
    coalesce(sum(weight) FILTER (WHERE stake IS NOT NULL), 0),
    coalesce(sum(weight) FILTER (WHERE payout IS NOT NULL), 0)
FROM {versions}
WHERE weight <> 0
GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (source, settled_date, status, outcome, currency) DO UPDATE
SET settlements = total.settlements + excluded.settlements,
    stake = total.stake + excluded.stake,
    payout = total.payout + excluded.payout,
    stakes = total.stakes + excluded.stakes,
    payouts = total.payouts + excluded.payouts
"""


def add_recordings(counted: str) -> str:
    """SQL that adds to core.daily_recording what `counted`, a relation of its columns, holds."""
    return f"""
INSERT INTO core.daily_recording AS total (
    accounting_date, source, versions, corrections, late_versions, contested_versions
)
SELECT
    accounting_date,
    source,
    sum(versions),
    sum(corrections),
    sum(late_versions),
    sum(contested_versions)
FROM {counted}
GROUP BY 1, 2
ON CONFLICT (accounting_date, source) DO UPDATE
SET versions = total.versions + excluded.versions,
    corrections = total.corrections + excluded.corrections,
    late_versions = total.late_versions + excluded.late_versions,
    contested_versions = total.contested_versions + excluded.contested_versions
"""
