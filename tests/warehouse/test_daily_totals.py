"""The daily totals are what counting everything anew would give, whatever was published in what
order, and whatever a person decided.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from include.warehouse.database import transaction
from include.warehouse.decisions import held_by, resolve
from include.warehouse.publishing import publish
from include.warehouse.tables import staging_settlement
from tests.feeding import SOURCE, open_findings
from tests.staging import a_row, open_normalized_batch
from tests.warehouses import Warehouse

# By the definition of what is current, not by any mark in core.
_SETTLEMENTS_ANEW = """
SELECT
    source, (settled_at AT TIME ZONE 'UTC')::date, status, outcome, currency,
    count(*), sum(stake), sum(payout), count(stake), count(payout)
FROM (
    SELECT DISTINCT ON (source, source_key) *
    FROM core.settlement
    WHERE NOT is_rejected_by_decision
    ORDER BY source, source_key, provider_order DESC, record_id DESC
) AS current
WHERE NOT is_contested
GROUP BY 1, 2, 3, 4, 5
"""
_SETTLEMENTS = """
SELECT
    source, settled_date, status, outcome, currency, settlements, stake, payout,
    settlements - settlements_without_stake, settlements - settlements_without_payout
FROM finance.daily_settlement
"""
_RECORDINGS_ANEW = """
SELECT
    accounting_date, source, count(*),
    count(*) FILTER (WHERE NOT is_contested AND is_change AND replaced_status <> 'open'),
    count(*) FILTER (WHERE not_applied_reason = 'late'),
    count(*) FILTER (WHERE is_contested)
FROM finance.settlement_history
GROUP BY 1, 2
"""
_RECORDINGS = """
SELECT accounting_date, source, versions, corrections, late_versions, contested_versions
FROM finance.daily_recording
"""
_DAY = datetime(2026, 11, 1, 12, tzinfo=UTC)


def rows(connection: Connection, statement: str) -> list[str]:
    """The rows in one order; amounts without the zeros at their end, which mean nothing."""
    return sorted(
        str([v.normalize() if isinstance(v, Decimal) else v for v in row])
        for row in connection.execute(text(statement))
    )


def told(draw: random.Random, subjects: int) -> dict[str, Any]:
    """One decision about one of a few subjects, which often contradicts or repeats another."""
    status, outcome = draw.choice(
        [("open", None), ("settled", "won"), ("settled", "lost"), ("void", "void")]
    )
    return {
        "source_key": f"m1/o{draw.randrange(subjects)}",
        "provider_order": f"n{draw.randrange(4):020}",
        "status": status,
        "outcome": outcome,
        "is_resettlement": draw.random() < 0.3,
        "currency": draw.choice(["EUR", "GBP"]),
        "stake": draw.choice([None, Decimal("0.10"), Decimal("12345678901234567.89")]),
        "payout": draw.choice([None, Decimal("0.30"), Decimal("-0.00001")]),
        "settled_at": draw.choice([None, _DAY, _DAY + timedelta(days=1)]),
    }


def publish_some(warehouse: Warehouse, record_ids: range, draw: random.Random) -> None:
    with warehouse.owner_engine.begin() as connection:
        batch_id = open_normalized_batch(
            connection,
            landed=len(record_ids),
            settlements_checked_at=_DAY,
            record_id_first=record_ids[0],
            record_id_last=record_ids[-1],
        )
        connection.execute(
            insert(staging_settlement),
            [a_row(batch_id, record_id, **told(draw, 6)) for record_id in record_ids],
        )
    publish(warehouse.engine, SOURCE.name)


def choose(warehouse: Warehouse, finding: Any, draw: random.Random) -> None:
    """Take a person's decision on a contested settlement, whose contents he has seen."""
    with transaction(warehouse.engine, "resolver") as connection:
        held = held_by(connection, {finding.finding_id: finding.kind})[finding.finding_id]
    resolve(
        warehouse.engine,
        finding.finding_id,
        "choose_version",
        decided_by="ada",
        reason="the provider confirmed it",
        reference=None,
        parameters={
            "record_id": str(draw.choice(finding.detail["versions"])["record_id"]),
            "seen": held.seen,
        },
        run_id=None,
    )


@pytest.mark.parametrize("seed", range(4))
def test_totals_are_what_counting_anew_gives(warehouse: Warehouse, seed: int) -> None:
    draw = random.Random(seed)
    landed, decided = 0, 0
    with warehouse.owner_engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        for _ in range(12):
            some = draw.choice((1, 2, 5, 9))
            publish_some(warehouse, range(landed + 1, landed + some + 1), draw)
            landed += some
            if findings := open_findings(connection, "settlement_contested"):
                choose(warehouse, draw.choice(findings), draw)
                decided += 1
            assert rows(connection, _SETTLEMENTS) == rows(connection, _SETTLEMENTS_ANEW)
            assert rows(connection, _RECORDINGS) == rows(connection, _RECORDINGS_ANEW)
        assert decided
        assert len(rows(connection, _SETTLEMENTS)) > 1
