"""Finance's daily totals: moved by every transaction that changes what they count.

What a transaction takes from its subjects' old state and gives to the new one is added to the days'
rows, so a batch costs what it holds, however many rows its days have.  Amounts are exact, so no sum
drifts.  Whoever writes core.settlement holds the source's lock, so no two add to one row at once.
"""

from __future__ import annotations

from typing import Literal

Sign = Literal["+", "-"]

# Every version of the subjects that a transaction works on; `:source` is theirs.
VERSIONS_OF_SEVERAL = """(
    SELECT core.*
    FROM core.settlement AS core
    JOIN several ON several.source_key = core.source_key
    WHERE core.source = :source
) AS version"""


def total_settlements(versions: str, sign: Sign) -> str:
    """SQL that adds (or takes away) what `versions`, a relation, count for in daily_settlement."""
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
    {sign} count(*),
    {sign} coalesce(sum(stake), 0),
    {sign} coalesce(sum(payout), 0),
    {sign} count(stake),
    {sign} count(payout)
FROM {versions}
WHERE is_current AND NOT is_contested
GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (source, settled_date, status, outcome, currency) DO UPDATE
SET settlements = total.settlements + excluded.settlements,
    stake = total.stake + excluded.stake,
    payout = total.payout + excluded.payout,
    stakes = total.stakes + excluded.stakes,
    payouts = total.payouts + excluded.payouts
"""


def total_recordings(versions: str, sign: Sign) -> str:
    """SQL that adds (or takes away) what `versions`, a relation, count for in daily_recording."""
    return f"""
INSERT INTO core.daily_recording AS total (
    accounting_date, source, versions, corrections, late_versions, contested_versions
)
SELECT
    accounting_date,
    source,
    {sign} count(*),
    {sign} count(*) FILTER (WHERE is_correction AND NOT is_contested),
    {sign} count(*) FILTER (WHERE not_applied_reason = 'late'),
    {sign} count(*) FILTER (WHERE is_contested)
FROM {versions}
GROUP BY 1, 2
ON CONFLICT (accounting_date, source) DO UPDATE
SET versions = total.versions + excluded.versions,
    corrections = total.corrections + excluded.corrections,
    late_versions = total.late_versions + excluded.late_versions,
    contested_versions = total.contested_versions + excluded.contested_versions
"""
