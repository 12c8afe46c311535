"""The database goes away, or its disk is full, in the middle of each task."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from include.catchup import hints
from include.catchup.sources import SOURCES
from include.local import postgres as local_postgres
from include.local.postgres import Postgres
from include.sandbox.client import Sandbox
from tests.catchup.test_hints import PATIENCE_SECONDS, Listener, news_all_the_time
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


@pytest.fixture(params=sorted(SOURCES))
def play(request: pytest.FixtureRequest, sandbox: Sandbox, own_warehouse: Warehouse) -> Play:
    return Play(SOURCES[request.param], sandbox, own_warehouse)


def last_commits(play: Play) -> list[Point]:
    """The last commit of each task, in a run over some records; to give a lease back may fail.

    What is behind `land` is the same for every source: of tote, whose bets are listed and asked
    for, it is the last commit of either.
    """
    # What is listed in one run is asked for in the next.
    for _ in range(2):
        play.advance(RECORDS)
        with Worker(play.warehouse.pipelines_url, play.tasks) as worker:
            assert worker.wait() == "finished", worker.error()
            commits = [point for point in worker.points() if point.kind == "commit"]
    if play.source.name == "tote":
        points = {point.function: point for point in commits if point.task == "land"}
        return [points["landing.commit"], points["landing.add"]]
    points = {point.task: point for point in commits if not point.function.startswith("leases.")}
    return list(points.values())


def is_tried_again(worker: Worker, point: Point) -> bool:
    """Whether what fails there is done once more, batch by batch, by the same task."""
    [there] = [one for one in worker.points() if bare(one) == bare(point)]
    return there.function == "settlements._pass_together"


def bare(point: Point) -> Point:
    """The point without the function that it was in: with more batches it may be another."""
    return replace(point, function="")


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


# How the server ends is the same for every source.
@pytest.mark.parametrize(
    ("play", "end"),
    [*(("ticktock", end) for end in ENDS), ("odds88", "killed"), ("tote", "killed")],
    indirect=["play"],
)
def test_the_database_may_be_restarted_in_the_middle_of_any_task(
    play: Play, server: Postgres, end: str
) -> None:
    for point in last_commits(play):
        play.advance(RECORDS)
        with play.frozen(Moment("before", point)) as worker:
            start(server, stop(server, ENDS[end]))
            assert play.wrong() == [], f"{end} before {point}"
            worker.go_on()
            ending = worker.wait()
            if is_tried_again(worker, point):
                assert ending == "finished"
            else:
                assert ending == "failed"
                assert "OperationalError" in worker.error()
        play.let_leases_run_out()
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
        play.let_leases_run_out()
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


# --- while a session listens --------------------------------------------------------------------


@pytest.fixture
def listener(
    sandbox: Sandbox, own_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> Listener:
    """Sessions of three commits, five hints each."""
    monkeypatch.setattr(hints, "_FIRST_WAIT_SECONDS", 0.05)
    listener = Listener(sandbox, own_warehouse)
    listener.configure(clock_stopped_at=datetime.now(UTC).isoformat(), bets=0, ping_seconds=60)
    listener.use(
        tote_listen_messages=15, land_commit_records=5, land_commit_seconds=PATIENCE_SECONDS
    )
    return listener


def test_the_database_may_be_restarted_while_a_session_listens(
    listener: Listener, server: Postgres
) -> None:
    second_commit = Moment("before", Point("listen", 4))
    url = listener.warehouse.pipelines_url
    with news_all_the_time(listener):
        with Worker(url, [listener.task], second_commit, signal.SIGSTOP) as worker:
            assert worker.wait() == "frozen"
            start(server, stop(server, signal.SIGKILL))
            worker.go_on()
            assert worker.wait() == "failed"
            assert "OperationalError" in worker.error()
        assert listener.count("tote.hint") == 5
        assert listener.wrong() == []
        listener.let_leases_run_out()
        assert listener.listen().landed == 15
    assert listener.wrong() == []
    assert listener.count("ops.batch WHERE state <> 'published'") == 0


@pytest.mark.parametrize("table", ["raw.record", "tote.hint"])
def test_a_full_disk_while_a_session_listens_costs_nothing_but_the_session(
    listener: Listener, table: str
) -> None:
    """Not even half of a message is kept: its bet was not moved to the front either."""
    with news_all_the_time(listener):
        with (
            full_disk(listener.warehouse, table),
            Worker(listener.warehouse.pipelines_url, [listener.task]) as worker,
        ):
            assert worker.wait() == "failed"
            assert "No space left on device" in worker.error()
        assert (listener.count("tote.bet"), listener.count("raw.page")) == (0, 0)
        assert listener.wrong() == []
        listener.let_leases_run_out()
        assert listener.listen().landed == 15
    assert listener.wrong() == []
