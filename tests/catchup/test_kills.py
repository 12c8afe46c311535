"""SIGKILL at every commit that a source's catch-up makes, and between them; see `tests.killing`.

After each kill the checker looks at what is there, and a run that is left alone must bring what is
missing.  With `make chaos` the same is done any number of times.
"""

from __future__ import annotations

import random

import pytest

from include.catchup.sources import SOURCES
from include.sandbox.client import Sandbox
from tests.killing import Moment, Point, Worker
from tests.playing import Play
from tests.warehouses import Warehouse

# Enough for a commit amid the pages, and one at their end.
RECORDS = 35
RANDOM_KILLS = {"ticktock": 20, "odds88": 10, "tote": 3}
SEED = 20261121
# What is behind `land` is the same for every source, and is killed in the others' runs.
LAND_ALONE = {"tote"}

# The commit points of one run of the whole pipeline.  A new one belongs here, and is killed then.
POINTS = {
    "ticktock": [
        "land 1 (landing.__init__)",
        "land 2 (landing.read_cursor)",
        "land 3 (landing.commit)",
        "land 4 (landing.commit)",
        "land 5 (landing.commit)",
        "land 6 (landing.gaps_to_ask)",
        "land 7 (landing.close)",
        "check_raw 1 (batches.waiting)",
        "check_raw 2 (batches.work_through)",
        "normalize 1 (batches.waiting)",
        "normalize 2 (batches.work_through)",
        "check_settlements 1 (batches.waiting)",
        "check_settlements 2 (batches.work_through)",
        "publish 1 (batches.waiting)",
        "publish 2 (batches.work_through)",
    ],
    "odds88": [
        "land 1 (leases._try_to_take)",
        "land 2 (landing.__init__)",
        "land 3 (landing.read_cursor)",
        "land 4 (connect_attempts.check_budget)",
        "land 5 (connect_attempts.begin)",
        "land 6 (landing.add)",
        "land 7 (landing.add)",
        "land 8 (landing.add)",
        "land 9 (landing.add)",
        "land 10 (landing.commit)",
        "land 11 (connect_attempts.end)",
        "land 12 (landing.close)",
        "land 13 (leases._extend)",
        "check_raw 1 (batches.waiting)",
        "check_raw 2 (batches.work_through)",
        "normalize 1 (batches.waiting)",
        "normalize 2 (batches.work_through)",
        "check_settlements 1 (batches.waiting)",
        "check_settlements 2 (batches.work_through)",
        "publish 1 (batches.waiting)",
        "publish 2 (batches.work_through)",
    ],
    "tote": [
        "land 1 (landing.__init__)",
        "land 2 (landing.read_cursor)",
        "land 3 (bet_register.look_at_clock)",
        "land 4 (landing.commit)",
        "land 5 (landing.commit)",
        "land 6 (bet_register.claim)",
        "land 7 (landing.add)",
        "land 8 (bet_register.claim)",
        "land 9 (landing.close)",
        "check_raw 1 (batches.waiting)",
        "check_raw 2 (batches.work_through)",
        "normalize 1 (batches.waiting)",
        "normalize 2 (batches.work_through)",
        "check_settlements 1 (batches.waiting)",
        "check_settlements 2 (batches.work_through)",
        "publish 1 (batches.waiting)",
        "publish 2 (batches.work_through)",
    ],
}


@pytest.fixture(params=sorted(SOURCES))
def play(request: pytest.FixtureRequest, sandbox: Sandbox, warehouse: Warehouse) -> Play:
    play = Play(SOURCES[request.param], sandbox, warehouse, keeps_budgets=True)
    play.advance(RECORDS)
    return play


def points_of(play: Play) -> list[Point]:
    """The points of a run that is left alone."""
    with Worker(play.warehouse.engine, play.tasks) as worker:
        assert worker.wait() == "finished", worker.error()
        return worker.points()


def commits(points: list[Point]) -> list[Point]:
    return [point for point in points if point.kind == "commit"]


def test_every_source_has_its_commit_points_named() -> None:
    assert set(POINTS) == set(RANDOM_KILLS) == set(SOURCES)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_catch_up_killed_at_any_commit_is_finished_by_the_next(play: Play, when: str) -> None:
    # The first run of a stream has nothing to read again.
    play.run()
    play.advance(RECORDS)
    points = commits(points_of(play))
    assert [str(point) for point in points] == POINTS[play.source.name]
    if play.source.name in LAND_ALONE:
        points = [point for point in points if point.task == "land"]
    for point in points:
        play.advance(RECORDS)
        assert play.kill(Moment(when, point)) == str(point)
        assert play.wrong() == []
        assert play.wrong_when_left_alone() == []


def test_a_catch_up_killed_again_and_again_at_any_moment_loses_nothing(play: Play) -> None:
    """Moments drawn from all statements and commits; what is unfinished piles up in between."""
    draw = random.Random(SEED)
    play.run()
    play.advance(RECORDS)
    points = points_of(play)
    killed = 0
    while killed < RANDOM_KILLS[play.source.name]:
        play.advance(draw.choice((0, 1, 9, 10, 11, RECORDS)))
        moment = Moment(draw.choice(("before", "after")), draw.choice(points))
        killed += play.kill(moment) is not None
        assert play.wrong() == [], f"after a kill {moment}, seed {SEED}"
    assert play.wrong_when_left_alone() == []
