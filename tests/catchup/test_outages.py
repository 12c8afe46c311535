"""The database goes away, or its disk is full, in the middle of each task."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.local import postgres as local_postgres
from include.local.postgres import Postgres
from include.sandbox.client import Sandbox
from tests.killing import Moment, Point, Worker
from tests.playing import Play
from tests.warehouses import Warehouse, fresh_warehouse, make_template, quick_server

RECORDS = 35

# How a server goes: the machine dies, an administrator's `immediate`, and `fast`.
ENDS = {"killed": signal.SIGKILL, "immediate": signal.SIGQUIT, "fast": signal.SIGINT}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of this module's own: others must not lose theirs."""
    with quick_server() as server:
        make_template(server)
        yield server


@pytest.fixture
def own_warehouse(server: Postgres) -> Iterator[Warehouse]:
    with fresh_warehouse(server) as fresh:
        yield fresh


# tote's tasks commit as ticktock's do.
@pytest.fixture(params=sorted(SOURCES.keys() - {"tote"}))
def play(request: pytest.FixtureRequest, sandbox: Sandbox, own_warehouse: Warehouse) -> Play:
    return Play(SOURCES[request.param], sandbox, own_warehouse)


def last_commits(play: Play) -> list[Point]:
    """The last commit of each task, in a run over some records; to give a lease back may fail."""
    play.advance(RECORDS)
    with Worker(play.warehouse.pipelines_url, play.tasks) as worker:
        assert worker.wait() == "finished", worker.error()
        commits = [point for point in worker.points() if point.kind == "commit"]
        points = [point for point in commits if not point.function.startswith("leases.")]
    return list({point.task: point for point in points}.values())


def stop(server: Postgres, end: signal.Signals) -> int:
    """End the server as told, and wait until it is gone; its port."""
    port = server.location("postgres").port
    assert port is not None
    os.kill(server.process_id, end)
    server.stop()
    return port


def start(server: Postgres, port: int) -> None:
    """Start the server again where it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_postgres, "free_port", lambda: port)
        server.start()


@pytest.mark.parametrize("end", ENDS)
def test_the_database_may_be_restarted_in_the_middle_of_any_task(
    play: Play, server: Postgres, end: str
) -> None:
    for point in last_commits(play):
        play.advance(RECORDS)
        with play.frozen(Moment("before", point)) as worker:
            start(server, stop(server, ENDS[end]))
            assert play.wrong() == [], f"{end} before {point}"
            worker.go_on()
            assert worker.wait() == "failed"
            assert "OperationalError" in worker.error()
        assert play.wrong() == [], f"{end} before {point}"
    assert play.wrong_when_left_alone() == []


def test_a_task_that_meets_no_database_fails_and_the_next_run_goes_on(
    play: Play, server: Postgres
) -> None:
    for point in last_commits(play):
        play.advance(RECORDS)
        with play.frozen(Moment("after", point)) as worker:
            port = stop(server, signal.SIGKILL)
            worker.go_on()
            ending = worker.wait()
            start(server, port)
            assert ending == ("finished" if point.task == "publish" else "failed")
        assert play.wrong() == [], f"away after {point}"
        assert play.wrong_when_left_alone() == [], f"away after {point}"


@contextmanager
def full_disk(warehouse: Warehouse, table: str) -> Iterator[None]:
    """Let `table` find no space: its empty file is /dev/full, on which every write gets ENOSPC.

    It is the kernel's own "No space left on device", from the first page that the table asks for,
    and needs neither root nor a file system of a few megabytes.  A limit on the size of files
    (RLIMIT_FSIZE) would give EFBIG instead, and would hit the write-ahead log first; a full disk
    under that log stops the server at once, which is the restart tested above.
    """
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {table}"))
        folder, file = connection.execute(
            text("SELECT current_setting('data_directory'), pg_relation_filepath(:table)"),
            {"table": table},
        ).one()
    path = Path(folder, file)
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    path.symlink_to("/dev/full")
    try:
        yield
    finally:
        path.unlink()
        kept.rename(path)


# What each task writes into that may be empty before: what it finds no space for.
WRITTEN = {
    "land": "raw.record",
    "check_raw": "ops.quality_result",
    "normalize": "staging.settlement",
    "check_settlements": "ops.quality_result",
    "publish": "core.settlement",
}


def test_a_full_disk_in_the_middle_of_any_task_costs_nothing_but_the_task(
    play: Play, own_warehouse: Warehouse
) -> None:
    assert list(WRITTEN) == [task.name for task in play.tasks]
    play.advance(RECORDS)
    for task in play.tasks:
        with (
            full_disk(own_warehouse, WRITTEN[task.name]),
            Worker(own_warehouse.pipelines_url, [task]) as worker,
        ):
            assert worker.wait() == "failed"
            assert "No space left on device" in worker.error()
        assert play.wrong() == [], f"full while {task.name}"
        assert play.kill(None, [task]) is None
    assert play.wrong(is_left_alone=True) == []
