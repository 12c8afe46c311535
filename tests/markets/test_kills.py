"""SIGKILL amid settle_markets, and two runs at once; see `tests.killing`.

After each kill the queue is compared with the engine's own books, and a run that is left alone goes
on.  What a dead process has ordered is waited for by a word of the test, as if time had passed.
"""

from __future__ import annotations

import random

import pytest

from tests.killing import Moment, Point, Worker, run_and_kill
from tests.markets.playing import MarketPlay

# The commits of a run that settles a market, retries it and publishes it, in its order.  A new one
# belongs here; what is decided by one is killed around it.
POINTS = {
    "plan 1 (landing.__init__)": (),
    "plan 2 (landing.read_cursor)": (),
    "plan 3 (landing.commit)": ("after",),
    # That nothing newer is told.
    "plan 4 (landing.commit)": (),
    "plan 5 (landing.close)": (),
    "settle 1 (queue.due_markets)": (),
    "settle 2 (troubles.each_market)": (),
    "settle 3 (troubles.each_market)": (),
    "settle 4 (settling._order)": ("after",),
    "settle 5 (settling.settle)": ("before",),
    "wait_for_status 1 (queue.due_markets)": (),
    "wait_for_status 2 (troubles.each_market)": (),
    "wait_for_status 3 (looking.look)": (),
    "retry_failed 1 (queue.due_markets)": (),
    "retry_failed 2 (troubles.each_market)": (),
    "retry_failed 3 (settling._was_abandoned)": (),
    "retry_failed 4 (settling._order)": ("after",),
    "retry_failed 5 (settling.retry)": ("before",),
    "fetch_payouts 1 (queue.due_markets)": (),
    "fetch_payouts 2 (troubles.each_market)": (),
    "fetch_payouts 3 (looking.look)": ("before",),
    "fetch_payouts 4 (troubles.each_market)": (),
    "fetch_payouts 5 (fetching._fetch)": ("before", "after"),
    "check 1 (publishing._in_state)": (),
    "check 2 (publishing._apply_verdicts)": ("before",),
    "check 3 (batches.waiting)": (),
    "check 4 (batches.work_through)": (),
    "check 5 (batches.waiting)": (),
    "check 6 (publishing._currency)": (),
    "check 7 (batches.work_through)": (),
    "check 8 (batches.waiting)": (),
    "check 9 (batches.work_through)": (),
    "publish 1 (batches.waiting)": (),
    "publish 2 (batches.work_through)": ("before",),
    "publish 3 (publishing._in_state)": (),
    "publish 4 (publishing._end_published)": ("before",),
}
RANDOM_KILLS = 10


@pytest.fixture
def killed(play: MarketPlay) -> MarketPlay:
    """An engine whose positions all fail once, so that a run has every step to do."""
    play.engine_changes(markets=0, positions=2, failing_share=1.0, failing_attempts=1)
    play.change(prediction_deadline_seconds=60)
    return play


def resolve_another(play: MarketPlay) -> None:
    play.sandbox.advance("prediction", 1)


def points_of(play: MarketPlay) -> list[Point]:
    """The points of a run that is left alone."""
    with Worker(play.warehouse.pipelines_url, play.tasks()) as worker:
        assert worker.wait() == "finished", worker.error()
        return worker.points()


def kill(play: MarketPlay, moment: Moment) -> str:
    """The commit at which a run was killed; empty if it came to its end before."""
    ending, point = run_and_kill(play.warehouse.pipelines_url, play.tasks(), moment)
    return point if ending == "killed" else ""


def run_alone(play: MarketPlay, runs: int = 1) -> None:
    """Runs that nobody disturbs, behind the deadline of whatever a dead one has ordered."""
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    for _ in range(runs):
        play.run()


def all_is_paid(play: MarketPlay) -> bool:
    return set(play.states().values()) == {"done"} and all(
        play.payouts(market_id) == play.owed(market_id) for market_id in play.market_ids
    )


def test_a_run_killed_at_what_decides_is_finished_by_the_next(killed: MarketPlay) -> None:
    resolve_another(killed)
    points = [point for point in points_of(killed) if point.kind == "commit"]
    assert [str(point) for point in points] == [*POINTS]
    for point in points:
        for when in POINTS[str(point)]:
            resolve_another(killed)
            assert kill(killed, Moment(when, point)) == str(point)
            assert killed.wrong() == [], (when, point)
            # Of an order whose process died, the first run learns and the second goes on.
            run_alone(killed, runs=2 if "_order" in str(point) else 1)
            assert all_is_paid(killed), (when, point)
    # Whatever was not answered, nothing was ordered twice that had been carried out.
    calls = {(one["settle_calls"], one["retry_calls"]) for one in killed.engine_states().values()}
    assert calls == {(1, 1)}


def test_a_run_killed_again_and_again_at_any_moment_settles_each_market_once(
    killed: MarketPlay,
) -> None:
    """Moments drawn from all statements and commits; what is unfinished piles up in between."""
    draw = random.Random(20261121)
    resolve_another(killed)
    points = points_of(killed)
    for _ in range(RANDOM_KILLS):
        killed.sandbox.advance("prediction", draw.choice((0, 1, 2)))
        moment = Moment(draw.choice(("before", "after")), draw.choice(points))
        kill(killed, moment)
        if draw.random() < 0.5:
            killed.let_time_pass(killed.settings.prediction_deadline_seconds)
        assert killed.wrong() == [], moment
    run_alone(killed, runs=3)
    assert all_is_paid(killed)


def test_of_two_runs_at_once_each_market_is_ordered_by_one(killed: MarketPlay) -> None:
    killed.sandbox.advance("prediction", 4)
    url = killed.warehouse.pipelines_url
    with Worker(url, killed.tasks()) as first, Worker(url, killed.tasks()) as second:
        assert first.wait() == "finished", first.error()
        assert second.wait() == "finished", second.error()
    run_alone(killed, runs=2)
    assert all_is_paid(killed)
    assert killed.results() == ["executed"] * 4
    assert {state["settle_calls"] for state in killed.engine_states().values()} == {1}
