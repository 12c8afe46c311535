"""Leases: one holder at a time, an epoch for each, and nothing committed by one who has lost it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.warehouse.database import transaction
from include.warehouse.leases import Lease, LeaseLost, check_lease, hold_lease, is_last
from tests.killing import Moment, Point, Task, Worker
from tests.warehouses import Warehouse

NAME = "wallet/sending"
SHORT = 0.4
LONG = 60.0
PATIENCE_SECONDS = 20.0


@pytest.fixture
def warehouse(shared_warehouse: Warehouse) -> Warehouse:
    with shared_warehouse.owner_engine.begin() as connection:
        connection.execute(text("TRUNCATE ops.lease, wallet.sending_window CASCADE"))
    return shared_warehouse


@pytest.fixture
def engine(warehouse: Warehouse) -> Engine:
    return warehouse.engine


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def held(engine: Engine, seconds: float, holder: str | None = None, name: str = NAME) -> Any:
    return hold_lease(engine, "sender", name, holder, seconds)


def stored(warehouse: Warehouse, name: str = NAME) -> Any:
    with warehouse.owner_engine.connect() as connection:
        return connection.execute(
            text(
                "SELECT *, expires_at > clock_timestamp() AS is_running FROM ops.lease"
                " WHERE name = :name"
            ),
            {"name": name},
        ).one()


def until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at, "it did not become so"
        time.sleep(0.01)


def let_run_out(warehouse: Warehouse) -> None:
    """As if its holder had not renewed it for so long."""
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE ops.lease SET expires_at = clock_timestamp()"))


def take_away(warehouse: Warehouse) -> Lease:
    """As if it had run out and another had taken it, who lives on."""
    with warehouse.owner_engine.begin() as connection:
        epoch = connection.scalar(
            text(
                "UPDATE ops.lease SET epoch = epoch + 1,"
                " expires_at = clock_timestamp() + interval '1 minute' RETURNING epoch"
            )
        )
    assert epoch is not None
    return Lease(NAME, epoch)


def check(engine: Engine, lease: Lease) -> None:
    with transaction(engine, "sender") as connection:
        check_lease(connection, lease)


# --- one at a time ------------------------------------------------------------------------------


def test_each_holder_has_the_next_epoch(warehouse: Warehouse, engine: Engine) -> None:
    for epoch in (1, 2, 3):
        with held(engine, LONG, f"run {epoch}") as lease:
            assert lease == Lease(NAME, epoch)
            row = stored(warehouse)
            assert (row.epoch, row.holder, row.is_running) == (epoch, f"run {epoch}", True)


def test_it_ends_with_its_block_however_long_it_was_taken_for(
    warehouse: Warehouse, engine: Engine
) -> None:
    with held(engine, LONG):
        pass

    assert not stored(warehouse).is_running


def test_it_ends_with_its_block_also_by_an_error(warehouse: Warehouse, engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), held(engine, LONG):
        raise ZeroDivisionError

    assert not stored(warehouse).is_running


def test_leases_of_other_names_do_not_wait_for_each_other(engine: Engine) -> None:
    with held(engine, LONG) as one, held(engine, LONG, name="odds88/stream") as other:
        check(engine, one)
        check(engine, other)
        assert (one.epoch, other.epoch) == (1, 1)


def test_who_comes_second_waits_for_the_first(
    engine: Engine, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "include.warehouse.leases")
    with held(engine, LONG, "run 1"):
        second = pool.submit(_take_and_leave, engine)
        until(lambda: "is held by run 1" in caplog.text)
        assert not second.done()

    assert second.result(PATIENCE_SECONDS) == 2


def _take_and_leave(engine: Engine) -> int:
    with held(engine, LONG) as lease:
        return int(lease.epoch)


def test_of_many_at_once_never_two_hold_it(engine: Engine, pool: ThreadPoolExecutor) -> None:
    inside: list[int] = []
    met: list[int] = []

    def work() -> int:
        with held(engine, 5.0) as lease:
            inside.append(lease.epoch)
            met.append(len(inside))
            check(engine, lease)
            inside.remove(lease.epoch)
            return int(lease.epoch)

    epochs = [future.result(PATIENCE_SECONDS) for future in [pool.submit(work) for _ in range(8)]]

    assert sorted(epochs) == list(range(1, 9))
    assert met == [1] * 8


# --- running out --------------------------------------------------------------------------------


def test_it_is_renewed_for_as_long_as_its_holder_lives(
    warehouse: Warehouse, engine: Engine
) -> None:
    with held(engine, SHORT) as lease:
        first = stored(warehouse).expires_at
        until(lambda: (stored(warehouse).expires_at - first).total_seconds() > 2 * SHORT)
        check(engine, lease)

    assert stored(warehouse).epoch == 1


def test_it_is_not_renewed_behind_the_end_of_its_block(
    warehouse: Warehouse, engine: Engine
) -> None:
    threads = threading.active_count()
    with held(engine, SHORT):
        assert threading.active_count() == threads + 1

    assert threading.active_count() == threads


def test_one_that_ran_out_is_taken_over_and_the_first_holder_commits_no_more(
    warehouse: Warehouse, engine: Engine
) -> None:
    with held(engine, LONG) as first:
        let_run_out(warehouse)
        with held(engine, LONG, "run 2") as second:
            assert second.epoch == first.epoch + 1
            check(engine, second)
            with pytest.raises(LeaseLost, match="was not written"):
                check(engine, first)
            with transaction(engine, "sender") as connection:
                assert not is_last(connection, first)
                assert is_last(connection, second)


def test_who_has_lost_it_neither_renews_nor_ends_it(warehouse: Warehouse, engine: Engine) -> None:
    with held(engine, SHORT) as first:
        second = take_away(warehouse)
        expires_at = stored(warehouse).expires_at
        until(lambda: not _is_renewing())

    row = stored(warehouse)
    assert (row.epoch, row.expires_at) == (second.epoch, expires_at)
    assert first.epoch < second.epoch


def _is_renewing() -> bool:
    return any(thread.name == f"renew {NAME}" for thread in threading.enumerate())


def test_a_database_that_is_away_for_a_moment_does_not_end_it(
    warehouse: Warehouse, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with held(engine, SHORT) as lease:
        with warehouse.owner_engine.begin() as connection:
            connection.execute(text("ALTER TABLE ops.lease RENAME TO lease_elsewhere"))
        until(lambda: "could not be renewed" in caplog.text)
        with warehouse.owner_engine.begin() as connection:
            connection.execute(text("ALTER TABLE ops.lease_elsewhere RENAME TO lease"))
        until(lambda: stored(warehouse).is_running)
        check(engine, lease)


# --- the fence ----------------------------------------------------------------------------------


def test_nobody_takes_it_over_while_its_holder_commits(
    warehouse: Warehouse, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    with ExitStack() as first_run:
        first = first_run.enter_context(held(engine, LONG))
        with transaction(engine, "sender") as connection:
            check_lease(connection, first)
            let_run_out(warehouse)
            second = pool.submit(_take_and_leave, engine)
            until(lambda: _waits_for_a_lock(warehouse))
            assert not second.done()
            assert is_last(connection, first)
        assert second.result(PATIENCE_SECONDS) == first.epoch + 1
        with pytest.raises(LeaseLost):
            check(engine, first)


def _waits_for_a_lock(warehouse: Warehouse) -> bool:
    with warehouse.owner_engine.connect() as connection:
        waiting = connection.scalar(
            text(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database"
                " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
            )
        )
    return bool(waiting)


def test_holders_of_the_same_lease_check_it_at_the_same_time(engine: Engine) -> None:
    with (
        held(engine, LONG) as lease,
        transaction(engine, "sender") as one,
        transaction(engine, "sender") as other,
    ):
        check_lease(one, lease)
        check_lease(other, lease)


def test_a_lease_that_nobody_took_is_not_held(engine: Engine) -> None:
    with pytest.raises(LeaseLost):
        check(engine, Lease(NAME, 1))


def _write_under_the_lease(engine: Engine, seconds: float = LONG) -> None:
    """Take it, and write a row in two transactions that rely on it, before it is ever renewed."""
    with held(engine, seconds, "first") as lease:
        for _ in range(2):
            with transaction(engine, "sender") as connection:
                check_lease(connection, lease)
                connection.execute(
                    text(
                        "INSERT INTO wallet.sending_window (epoch, closes_at)"
                        " VALUES (:epoch, now())"
                    ),
                    {"epoch": lease.epoch},
                )


def _windows(warehouse: Warehouse) -> list[int]:
    with warehouse.owner_engine.connect() as connection:
        return list(
            connection.scalars(text("SELECT epoch FROM wallet.sending_window ORDER BY window_id"))
        )


# The commits of `_write_under_the_lease`: the lease, the first row, the second row.
BETWEEN_THE_ROWS = Moment("after", Point("write", 2))
BEFORE_THE_SECOND_ROW_COMMITS = Moment("before", Point("write", 3))


def test_a_holder_that_was_frozen_writes_nothing_after_it_was_taken_over(
    warehouse: Warehouse, engine: Engine
) -> None:
    task = Task("write", _write_under_the_lease)
    with Worker(warehouse.pipelines_url, [task], BETWEEN_THE_ROWS, signal.SIGSTOP) as frozen:
        assert frozen.wait() == "frozen"
        let_run_out(warehouse)
        with held(engine, LONG) as second:
            assert second.epoch == 2
            frozen.go_on()
            assert frozen.wait() == "failed"
            assert "LeaseLost" in frozen.error()
            check(engine, second)

    assert _windows(warehouse) == [1]


def test_a_holder_that_was_frozen_while_it_commits_is_waited_for(
    warehouse: Warehouse, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    task = Task("write", _write_under_the_lease)
    with Worker(
        warehouse.pipelines_url, [task], BEFORE_THE_SECOND_ROW_COMMITS, signal.SIGSTOP
    ) as frozen:
        assert frozen.wait() == "frozen"
        let_run_out(warehouse)
        second = pool.submit(_take_and_leave, engine)
        until(lambda: _waits_for_a_lock(warehouse))
        assert not second.done()
        frozen.go_on()
        assert frozen.wait() in ("finished", "failed")
        assert second.result(PATIENCE_SECONDS) == 2

    assert _windows(warehouse) == [1, 1]


def test_a_holder_that_was_killed_keeps_others_waiting_only_until_it_runs_out(
    warehouse: Warehouse, engine: Engine
) -> None:
    task = Task("write", lambda engine: _write_under_the_lease(engine, 1.5))
    with Worker(warehouse.pipelines_url, [task], BETWEEN_THE_ROWS) as killed:
        assert killed.wait() == "killed"
    row = stored(warehouse)
    assert (row.holder, row.is_running) == ("first", True)

    with held(engine, LONG, "second") as lease:
        assert lease.epoch == 2
        assert stored(warehouse).acquired_at >= row.expires_at
