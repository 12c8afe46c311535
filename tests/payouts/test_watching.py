"""Watching payouts: late ones are a finding that closes itself, whatever ran or did not run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from include.payouts.watching import Unsent, Watched, unsent, watch_payouts
from include.warehouse.decisions import resolve
from tests.payouts.entering import as_sender, enter, payout, rows
from tests.warehouses import Warehouse

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
BEFORE = YESTERDAY - timedelta(days=1)
NOTHING = Watched(opened=[], closed=[])
_REFUSED = "hold_reason = 'refusal_pending', evidence = '{\"attempt_id\": 1}'"
_OPEN = "SELECT * FROM ops.finding WHERE state = 'open' ORDER BY finding_id"


def last_due(warehouse: Warehouse) -> datetime:
    """The last 01:00 UTC that was an hour ago or more, by the server's clock."""
    [row] = rows(warehouse, "SELECT now() AS now")
    due: datetime = (row.now - timedelta(hours=2)).replace(
        hour=1, minute=0, second=0, microsecond=0
    )
    return due


def enter_at(warehouse: Warehouse, moment: datetime, *payouts: dict[str, Any]) -> None:
    """Enter payouts, and move their entry to that moment, which nobody but a test can."""
    enter(warehouse, *payouts)
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("ALTER TABLE wallet.transaction DISABLE TRIGGER USER"))
        connection.execute(
            text(
                "UPDATE wallet.transaction SET entered_at = :moment"
                " WHERE transaction_id = ANY(:ids)"
            ),
            {"moment": moment, "ids": [each["transaction_id"] for each in payouts]},
        )
        connection.execute(text("ALTER TABLE wallet.transaction ENABLE TRIGGER USER"))


@pytest.fixture
def due(warehouse: Warehouse) -> datetime:
    return last_due(warehouse)


def late_day(due: datetime) -> date:
    return due.date() - timedelta(days=1)


def test_payouts_that_missed_their_run_are_one_finding_a_day(
    warehouse: Warehouse, due: datetime
) -> None:
    day = late_day(due)
    earlier = day - timedelta(days=1)
    enter_at(
        warehouse,
        due - timedelta(hours=1),
        payout("a", business_date=day),
        payout("b", business_date=day, amount=1),
        payout("c", business_date=day, currency="GBP"),
        payout("d", business_date=earlier),
    )
    watched = watch_payouts(warehouse.engine)
    first, second = rows(warehouse, _OPEN)
    assert watched == Watched(opened=[first.finding_id, second.finding_id], closed=[])
    assert (first.kind, first.subject) == ("payouts_late", str(earlier))
    assert (second.subject, second.severity) == (str(day), "critical")
    assert second.summary.startswith(f"3 payouts of {day} are still to be sent")
    assert second.detail == {"count": 3, "amounts": {"EUR": "2500.00001", "GBP": "2500.00000"}}
    assert rows(warehouse, "SELECT count(*) FROM ops.alert")[0][0] == 2


def test_a_late_day_is_told_once_and_closed_when_it_is_done(
    warehouse: Warehouse, due: datetime
) -> None:
    enter_at(warehouse, due - timedelta(hours=1), payout("a", business_date=late_day(due)))
    [opened] = watch_payouts(warehouse.engine).opened
    assert watch_payouts(warehouse.engine) == NOTHING
    as_sender(warehouse, "item = '{}', disposition = 'processed', evidence = '{}'", "a")
    assert watch_payouts(warehouse.engine) == Watched(opened=[], closed=[opened])
    assert rows(warehouse, _OPEN) == []
    assert watch_payouts(warehouse.engine) == NOTHING


def test_what_is_held_is_not_late(warehouse: Warehouse, due: datetime) -> None:
    enter_at(warehouse, due - timedelta(hours=1), payout("a", business_date=late_day(due)))
    as_sender(warehouse, "hold_reason = 'in_doubt'", "a")
    assert watch_payouts(warehouse.engine) == NOTHING


def test_a_refusal_that_no_run_came_to_judge_is_late_until_one_does(
    warehouse: Warehouse, due: datetime
) -> None:
    """Its run was killed after it had stored the answer: nothing is held, and nobody was asked."""
    day = late_day(due)
    enter_at(warehouse, due - timedelta(hours=1), payout("a", business_date=day))
    as_sender(warehouse, f"item = '{{}}', {_REFUSED}", "a")
    [opened] = watch_payouts(warehouse.engine).opened
    [finding] = rows(warehouse, _OPEN)
    assert (finding.kind, finding.subject, finding.detail["count"]) == ("payouts_late", str(day), 1)
    assert unsent(warehouse.engine, day) == [Unsent(day, "EUR", 1, Decimal("2500.00000"))]
    as_sender(warehouse, "disposition = 'lost', hold_reason = NULL", "a")
    assert watch_payouts(warehouse.engine) == Watched(opened=[], closed=[opened])


def test_a_refusal_that_a_finding_asks_about_is_not_late(
    warehouse: Warehouse, due: datetime
) -> None:
    day = late_day(due)
    enter_at(warehouse, due - timedelta(hours=1), payout("a", business_date=day))
    as_sender(warehouse, f"item = '{{}}', hold_finding_id = 1, {_REFUSED}", "a")
    assert watch_payouts(warehouse.engine) == NOTHING
    assert unsent(warehouse.engine, day) == []


def test_what_came_after_the_run_waits_for_the_next_one(
    warehouse: Warehouse, due: datetime
) -> None:
    enter_at(warehouse, due + timedelta(seconds=1), payout("a", business_date=late_day(due)))
    enter_at(warehouse, due - timedelta(hours=1), payout("b", business_date=late_day(due)))
    released_at = f"released_at = '{due + timedelta(seconds=1)}'"
    with warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(f"UPDATE wallet.transaction SET {released_at} WHERE transaction_id = 'b'")
        )
    assert watch_payouts(warehouse.engine) == NOTHING


def test_the_day_that_is_not_due_yet_is_not_late(warehouse: Warehouse, due: datetime) -> None:
    enter_at(warehouse, due - timedelta(hours=1), payout("a", business_date=due.date()))
    assert watch_payouts(warehouse.engine) == NOTHING


def test_an_acknowledged_lateness_comes_back_only_after_another_run_was_missed(
    warehouse: Warehouse, due: datetime
) -> None:
    enter_at(warehouse, due - timedelta(days=2), payout("a", business_date=BEFORE - timedelta(3)))
    [finding_id] = watch_payouts(warehouse.engine).opened
    resolve(
        warehouse.engine,
        finding_id,
        "acknowledge",
        decided_by="ann",
        reason="We have paused it.",
        reference=None,
        parameters={},
        run_id="test",
    )
    assert watch_payouts(warehouse.engine) == NOTHING
    with warehouse.owner_engine.begin() as connection:
        connection.execute(
            text("UPDATE ops.finding SET opened_at = :before"),
            {"before": due - timedelta(seconds=1)},
        )
    assert len(watch_payouts(warehouse.engine).opened) == 1


def test_what_is_left_of_a_run_is_told_by_day_and_currency(warehouse: Warehouse) -> None:
    enter(
        warehouse,
        payout("a", business_date=BEFORE),
        payout("b", business_date=BEFORE, currency="GBP", amount=1),
        payout("c", business_date=YESTERDAY),
        payout("d", business_date=BEFORE, is_win=False),
        payout("e", business_date=BEFORE),
    )
    as_sender(warehouse, "item = '{}', disposition = 'lost', evidence = '{}'", "e")
    assert unsent(warehouse.engine, BEFORE) == [
        Unsent(BEFORE, "EUR", 1, Decimal("2500.00000")),
        Unsent(BEFORE, "GBP", 1, Decimal("0.00001")),
    ]
    assert len(unsent(warehouse.engine, YESTERDAY)) == 3
