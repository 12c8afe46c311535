"""Connections that a provider limits: each written down first, and none begun that is too many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from include.warehouse.connect_attempts import Budget, Connections, NoneLeft
from include.warehouse.leases import Lease, LeaseLost, hold_lease
from tests.warehouses import Warehouse

SOURCE = "odds88"
MINUTE = timedelta(minutes=1)
CONNECTING = timedelta(seconds=30)
PROPER = Budget("proper", 5, 5 * MINUTE)
WITHOUT = Budget("without_revision", 5, 30 * MINUTE)


@pytest.fixture
def warehouse(shared_warehouse: Warehouse) -> Warehouse:
    with shared_warehouse.owner_engine.begin() as connection:
        connection.execute(text("TRUNCATE ops.lease, ops.connect_attempt; DELETE FROM ops.finding"))
    return shared_warehouse


@pytest.fixture
def lease(warehouse: Warehouse) -> Iterator[Lease]:
    with hold_lease(warehouse.engine, "loader", "odds88/stream", "run", 60.0) as lease:
        yield lease


@pytest.fixture
def connections(warehouse: Warehouse, lease: Lease) -> Connections:
    return Connections(warehouse.engine, lease, SOURCE, "run", CONNECTING.total_seconds())


def rows(warehouse: Warehouse, sql: str) -> list[Any]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text(sql)))


def let_pass(warehouse: Warehouse, passed: timedelta) -> None:
    """As if so much time had passed."""
    with warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE ops.connect_attempt SET attempted_at = attempted_at - :passed,"
                " ended_at = ended_at - :passed"
            ),
            {"passed": passed},
        )


def refusal(connections: Connections, budget: Budget) -> NoneLeft:
    """Why none may be begun, as is told before and when it is."""
    with pytest.raises(NoneLeft) as told:
        connections.check_budget(budget)
    with pytest.raises(NoneLeft, match=re.escape(str(told.value))) as caught:
        connections.begin(budget, 7)
    return caught.value


def seconds_from_now(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


def test_a_connection_is_written_down_with_who_begins_it(
    warehouse: Warehouse, connections: Connections, lease: Lease
) -> None:
    attempt_id = connections.begin(PROPER, 1_763_700_000)
    [begun] = rows(warehouse, "SELECT * FROM ops.connect_attempt")
    assert (begun.attempt_id, begun.source, begun.kind) == (attempt_id, SOURCE, "proper")
    assert (begun.revision, begun.epoch, begun.run_id) == (1_763_700_000, lease.epoch, "run")
    assert (begun.ended_at, begun.ending, begun.messages) == (None, None, 0)
    connections.end(attempt_id, "caught_up", 12)
    [ended] = rows(warehouse, "SELECT * FROM ops.connect_attempt")
    assert (ended.ending, ended.messages) == ("caught_up", 12)
    assert ended.ended_at >= begun.attempted_at


@pytest.mark.parametrize("budget", [PROPER, WITHOUT])
def test_no_window_holds_more_than_its_budget(
    warehouse: Warehouse, connections: Connections, budget: Budget
) -> None:
    for _ in range(5):
        connections.end(connections.begin(budget, 7), "caught_up", 0)
        let_pass(warehouse, budget.window / 10)
    refused = refusal(connections, budget)
    assert "it allows 5 in" in str(refused)
    assert f"{refused.next_at:%Y-%m-%d %H:%M:%S} UTC" in str(refused)
    left = seconds_from_now(refused.next_at)
    # The provider's clock is not ours.
    assert left == pytest.approx((budget.window / 2).total_seconds() + 10, abs=5)
    let_pass(warehouse, timedelta(seconds=left - 5))
    refusal(connections, budget)
    let_pass(warehouse, timedelta(seconds=6))
    connections.begin(budget, 7)
    refusal(connections, budget)
    assert len(rows(warehouse, "SELECT * FROM ops.connect_attempt")) == 6


@pytest.mark.parametrize(
    ("lasted", "counts_for"),
    [(None, CONNECTING), (MINUTE / 6, MINUTE / 6), (4 * MINUTE, 4 * MINUTE)],
)
def test_a_connection_counts_from_when_the_provider_may_have_counted_it_at_the_latest(
    warehouse: Warehouse,
    connections: Connections,
    lasted: timedelta | None,
    counts_for: timedelta,
) -> None:
    """When it is over, or must have been made: its handshake may have been slow."""
    first = connections.begin(PROPER, 7)
    if lasted is not None:
        let_pass(warehouse, lasted)
        connections.end(first, "caught_up", 0)
        counts_for -= lasted
    for _ in range(4):
        connections.begin(PROPER, 7)
    left = seconds_from_now(refusal(connections, PROPER).next_at)
    assert left == pytest.approx((5 * MINUTE + counts_for).total_seconds() + 10, abs=5)


def test_the_two_budgets_are_apart(connections: Connections) -> None:
    for _ in range(5):
        connections.begin(PROPER, 7)
    refusal(connections, PROPER)
    connections.begin(WITHOUT, 0)


def test_those_of_another_source_do_not_count(
    warehouse: Warehouse, connections: Connections, lease: Lease
) -> None:
    for _ in range(5):
        connections.begin(PROPER, 7)
    another = Connections(warehouse.engine, lease, "another", None, CONNECTING.total_seconds())
    another.begin(PROPER, 7)


def test_a_refusal_blocks_a_whole_window_of_its_kind(
    warehouse: Warehouse, connections: Connections
) -> None:
    connections.refuse(connections.begin(PROPER, 7), "It said no (429).", None, 0)
    refused = refusal(connections, PROPER)
    assert "it has refused one lately" in str(refused)
    assert seconds_from_now(refused.next_at) == pytest.approx(310, abs=5)
    connections.begin(WITHOUT, 0)
    let_pass(warehouse, timedelta(seconds=311))
    connections.begin(PROPER, 7)


def test_a_longer_retry_after_is_waited_for(warehouse: Warehouse, connections: Connections) -> None:
    connections.refuse(connections.begin(PROPER, 7), "It said no (429).", 7200.0, 0)
    [attempt] = rows(warehouse, "SELECT ending FROM ops.connect_attempt")
    assert attempt.ending == "refused for 7200 s"
    let_pass(warehouse, timedelta(seconds=7200))
    assert seconds_from_now(refusal(connections, PROPER).next_at) == pytest.approx(10, abs=5)


def test_no_retry_after_is_obeyed_for_more_than_a_day(connections: Connections) -> None:
    connections.refuse(connections.begin(PROPER, 7), "It said no (429).", 10.0**9, 0)
    assert seconds_from_now(refusal(connections, PROPER).next_at) < 86_400 + 60


def test_a_refusal_is_a_finding_until_messages_come_again(
    warehouse: Warehouse, connections: Connections
) -> None:
    connections.refuse(connections.begin(PROPER, 7), "It said no (429).", None, 0)
    [asked] = rows(warehouse, "SELECT * FROM ops.finding")
    assert (asked.kind, asked.source, asked.state) == ("connections_refused", SOURCE, "open")
    assert "It said no (429)." in asked.summary
    let_pass(warehouse, timedelta(hours=1))
    connections.end(connections.begin(PROPER, 7), "failed", 0)
    assert rows(warehouse, "SELECT state FROM ops.finding") == [("open",)]
    connections.end(connections.begin(PROPER, 7), "closed", 1)
    assert rows(warehouse, "SELECT state, closed_by FROM ops.finding") == [("closed", "system")]


def test_who_has_lost_the_lease_connects_no_more_and_blocks_nobody(
    warehouse: Warehouse, connections: Connections, lease: Lease
) -> None:
    attempt_id = connections.begin(PROPER, 7)
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE ops.lease SET epoch = epoch + 1"))
    with pytest.raises(LeaseLost):
        connections.begin(PROPER, 7)
    with pytest.raises(LeaseLost):
        connections.refuse(attempt_id, "Another one is connected.", None, 0)
    [attempt] = rows(warehouse, "SELECT * FROM ops.connect_attempt")
    assert attempt.ending is None
    assert rows(warehouse, "SELECT * FROM ops.finding") == []
