"""Two runs of a source at once: frozen, cleared, overtaken; nothing is doubled, lost or stuck.

A worker freezes itself (SIGSTOP) at a commit with a name, so every way in which two runs pass each
other is tried, however quick the machine is.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.sandbox.client import Sandbox
from include.warehouse.database import open_engine
from tests.killing import Moment, Point, Worker
from tests.playing import Play
from tests.warehouses import Warehouse

RECORDS = 35
# Longer than any statement of ours pauses between two of its own; the default is minutes.
PATIENCE = {"idle_in_transaction_session_timeout": "2s"}
# Of the source that asks for what it knows: where its runs meet, which no other source has.
MEETING_POINTS = {"tote": ("landing.commit", "bet_register.claim", "landing.add")}
ROUNDS = {"tote": 1}


@pytest.fixture(params=sorted(SOURCES))
def play(request: pytest.FixtureRequest, sandbox: Sandbox, warehouse: Warehouse) -> Play:
    play = Play(SOURCES[request.param], sandbox, warehouse)
    play.advance(RECORDS)
    play.run()
    return play


def commits_of(play: Play) -> list[Point]:
    """The commit points of a run over some records."""
    play.advance(RECORDS)
    with Worker(play.warehouse.engine, play.tasks) as worker:
        assert worker.wait() == "finished", worker.error()
        return [point for point in worker.points() if point.kind == "commit"]


def last_commits(points: list[Point]) -> list[Point]:
    """The last commit of each task, besides that which gives a lease back: that may fail."""
    kept = [point for point in points if not point.function.startswith("leases.")]
    return list({point.task: point for point in kept}.values())


def points_of_its_own(play: Play) -> list[Point]:
    """Its commits; but for one source those of `land` alone, for all others have the same tasks."""
    if play.source.name in MEETING_POINTS:
        return meeting_points(play)
    points = commits_of(play)
    is_first = play.source.name == min(SOURCES)
    return [point for point in points if not is_first or point.task == "land"]


def meeting_points(play: Play) -> list[Point]:
    """The first commit of each function at which two runs of its source meet."""
    points = commits_of(play)
    return [
        next(point for point in points if point.function == function)
        for function in MEETING_POINTS[play.source.name]
    ]


def test_a_run_may_be_overtaken_after_any_commit(play: Play) -> None:
    for point in points_of_its_own(play):
        play.advance(RECORDS)
        with play.frozen(Moment("after", point)) as overtaken:
            play.advance(RECORDS)
            assert play.wrong_when_left_alone() == [], f"while frozen after {point}"
            overtaken.go_on()
            assert overtaken.wait() == "finished", overtaken.error()
        assert play.wrong(is_left_alone=True) == [], f"overtaken after {point}"


def test_a_worker_frozen_in_a_transaction_holds_nobody_up(play: Play) -> None:
    """It holds its source's lock and its batch; the server ends its session when it stays idle."""
    points = points_of_its_own(play)
    landing = next(point for point in points if point.function == "landing.commit")
    # What is frozen while it claims bets is not waited for: they are the next run's.
    is_met = play.source.name in MEETING_POINTS
    for point in points[-1:] if is_met else (landing, *last_commits(points)):
        play.advance(RECORDS)
        with play.frozen(Moment("before", point), session=PATIENCE) as frozen:
            assert play.wrong_when_left_alone() == [], f"while frozen before {point}"
            frozen.go_on()
            assert frozen.wait() == "failed", f"frozen before {point}"
            assert "OperationalError" in frozen.error()
        assert play.wrong() == [], f"frozen before {point}"
    assert play.wrong_when_left_alone() == []


def test_every_connection_of_a_pipeline_is_ended_when_it_stays_idle_in_a_transaction(
    warehouse: Warehouse,
) -> None:
    with open_engine(warehouse.pipelines_url).connect() as connection:
        patience = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert patience != "0"


def test_runs_in_several_processes_at_once_share_the_work(play: Play) -> None:
    for _ in range(ROUNDS.get(play.source.name, 4)):
        play.advance(3 * RECORDS)
        with ExitStack() as stack:
            engine = play.warehouse.engine
            workers = [stack.enter_context(Worker(engine, play.tasks)) for _ in range(3)]
            endings = [worker.wait() for worker in workers]
            assert endings == ["finished"] * 3, "\n".join(worker.error() for worker in workers)
        assert play.wrong() == []
    assert play.wrong_when_left_alone() == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tasks_may_be_cleared_in_any_order_while_another_run_is_going(
    play: Play, seed: int
) -> None:
    draw = random.Random(seed)
    points = commits_of(play)
    for _ in range(ROUNDS.get(play.source.name, 4)):
        play.advance(RECORDS)
        moment = Moment("after", draw.choice(points))
        with play.frozen(moment) as going:
            cleared = draw.choices(play.tasks, k=6)
            told = f"{moment}, cleared {[task.name for task in cleared]}, seed {seed}"
            assert play.kill(None, cleared) is None
            assert play.wrong() == [], told
            going.go_on()
            assert going.wait() == "finished", f"{told}\n{going.error()}"
        assert play.wrong() == [], told
    assert play.wrong_when_left_alone() == []
