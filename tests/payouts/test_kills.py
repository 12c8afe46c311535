"""SIGKILL and SIGSTOP around everything that sending commits; see `tests.killing`.

After each kill the checker compares the warehouse with the wallet's own books, and a run that is
left alone brings every payout to its end.  A lease runs out by a word of the test, as if time had
passed; the deadlines of requests are waited for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest

from include.payouts import sending
from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped
from include.sandbox.client import Sandbox
from tests.killing import Moment, Point, Worker, counted_by_function
from tests.payouts.entering import rows
from tests.payouts.resending import Resend, empty, names
from tests.warehouses import Warehouse

# The commit points of a day with nothing out of the ordinary, in the order of a run.  A new one
# belongs here, and is killed then.
POINTS = [
    "prepare 1 (outbox.freeze_new)",
    "prepare 2 (outbox.freeze_new)",
    "prepare 3 (outbox.report_outbox)",
    "prepare 4 (outcome.check_outbox)",
    "send 1 (outbox.freeze_new)",
    "send 2 (outbox.report_outbox)",
    "send 3 (leases._try_to_take)",
    "send 4 (windows.open_window)",
    "send 5 (windows.close_abandoned)",
    "send 6 (stages.unjudged_stages)",
    "send 7 (stages.stopped_currencies)",
    "send 8 (due.currencies)",
    "send 9 (sending._send_canary)",
    "send 10 (attempts.commit_attempts)",
    "send 11 (answers.close_attempts)",
    "send 12 (attempts.commit_attempts)",
    "send 13 (answers.close_attempts)",
    "send 14 (stages.judge_stage)",
    "send 15 (attempts.commit_attempts)",
    "send 16 (answers.close_attempts)",
    "send 17 (stages.judge_stage)",
    "send 18 (doubts.hold_used_up)",
    "send 19 (due.currencies)",
    "send 20 (due.currencies)",
    "send 21 (outbox.report_outbox)",
    "send 22 (leases._extend)",
    "check_outcome 1 (outcome.check_outcome)",
]
RANDOM_KILLS = 6
SEEDS = (20261121, 4)

# What may be half done when a process dies, and is done for good by these alone.
_REQUESTED = ("attempts.commit_attempts", "answers.close_attempts")
_DECISIVE = (
    *_REQUESTED,
    "stages.judge_stage",
    "answers.hold_unclear",
    "doubts.hold_used_up",
)


@pytest.fixture
def resend(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Resend]:
    """A resend that is quick to give up and to try again.

    No lease is renewed while it runs: each run has the same commits in the same order.
    """
    monkeypatch.setattr(sending, "_FIRST_WAIT_SECONDS", 0.02)
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_lease_seconds=60, wallet_deadline_seconds=0.7)
    yield resend
    assert resend.wrong() == []


def commits(resend: Resend) -> list[Point]:
    return [point for point in resend.points() if point.kind == "commit"]


def run_alone(resend: Resend) -> None:
    """Runs that nobody disturbs, until one has nothing to say against its end."""
    resend.let_the_lease_run_out()
    for _ in range(3):
        try:
            resend.send()
        except PartnerUnavailable:
            continue
        except (BreakerTripped, SendingStopped):
            if not resend.findings():
                continue
        return


# --- a day as it should be ----------------------------------------------------------------------


def enter_a_day(resend: Resend) -> None:
    """14 payouts to be paid, of which one is refused in the beginning and one in the end."""
    resend.enter(*names(14))
    resend.enter("unsignable", amount=2**53)
    order = {"code": "RS_ERROR_USER_DISABLED", "transactions": ["t003", "t013"]}
    resend.sandbox.configure("wallet", codes=[order])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_resend_killed_at_any_commit_is_finished_by_the_next(resend: Resend, when: Any) -> None:
    enter_a_day(resend)
    points = commits(resend)
    assert [str(point) for point in points] == POINTS
    for point in points:
        start_anew(resend)
        enter_a_day(resend)
        moment = Moment(when, point)
        assert resend.kill(moment) == str(point)
        assert resend.wrong() == [], moment
        run_alone(resend)
        assert resend.wrong(is_left_alone=True) == [], moment
        states = resend.states()
        assert states.pop("unsignable") == "unsignable"
        # Refused a second time, after it was refused without our storing it, it may be booked.
        assert {states.pop("t003"), states.pop("t013")} <= {"lost", "contested"}, moment
        assert set(states.values()) == {"processed"}, moment


def start_anew(resend: Resend) -> None:
    empty(resend.warehouse)
    resend.sandbox.reset()
    resend.__post_init__()


# --- and with everything that can happen --------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """A partner in trouble, and what may have become at most of each payout in the end.

    `names` are those that it is about; all others are processed.
    """

    arrange: Callable[[Sandbox], object]
    names: tuple[str, ...] = ()
    ends: tuple[str, ...] = ("processed",)
    settings: Mapping[str, Any] = field(default_factory=dict)


def faulty(kind: str, **parameters: Any) -> Callable[[Sandbox], object]:
    return lambda sandbox: sandbox.fault("wallet", kind, after_calls=1, **parameters)


def refusing(code: str, *ids: str, **settings: Any) -> Callable[[Sandbox], object]:
    orders = [{"code": code, "transactions": list(ids)}]
    return lambda sandbox: sandbox.configure("wallet", codes=orders, **settings)


def refusing_whole(sandbox: Sandbox) -> None:
    sandbox.configure("wallet", refused_transactions={"t005": 422})


def refusing_all(sandbox: Sandbox) -> None:
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR"}])


_ALL = tuple(names(13))
TROUBLES = {
    "a time-out, executed": Trouble(faulty("silence", executed=True)),
    "a time-out, not executed": Trouble(faulty("silence", executed=False)),
    "a reset, executed": Trouble(faulty("reset_before_answer", executed=True)),
    "a truncated answer, executed in part": Trouble(faulty("truncated_body", executed_items=4)),
    "a server error, executed": Trouble(faulty("status", status=503, executed=True)),
    "a missing item": Trouble(faulty("missing_item", entry=2)),
    "a page of HTML, executed": Trouble(faulty("html_page", executed=True)),
    "an id that cannot be stored": Trouble(
        faulty("escaped_null_character", field="transactionId", entry=2)
    ),
    "an item that was not sent": Trouble(faulty("foreign_item")),
    "items in another order": Trouble(faulty("shuffled_page")),
    "an item twice alike": Trouble(faulty("duplicated_entry")),
    "a balance of many digits": Trouble(faulty("huge_number", field="balance")),
    "items inside a failure": Trouble(
        faulty("changed_envelope", changes={"status": "RS_ERROR"}), _ALL, ("contested", "processed")
    ),
    "too many requests": Trouble(faulty("status", status=429, times=2)),
    "a refused key": Trouble(faulty("status", status=401)),
    "an item answered twice": Trouble(
        faulty("contradicting_items"), _ALL, ("contested", "processed")
    ),
    "a final refusal": Trouble(
        refusing("RS_ERROR", "t005", "t012"), ("t005", "t012"), ("lost", "contested")
    ),
    "a refusal that is forgotten": Trouble(
        refusing("RS_ERROR", "t005", stores_refusals=False), ("t005",), ("lost", "contested")
    ),
    "an unknown refusal": Trouble(refusing("RS_NEW", "t005"), ("t005",), ("unclear", "open")),
    "a bad payout": Trouble(refusing_whole, ("t005",), ("unclear", "open")),
    "too many refusals": Trouble(
        refusing_all, _ALL, ("refusal_pending", "contested", "open", "lost")
    ),
    "silence until nothing is left to try": Trouble(
        faulty("silence", executed=True),
        _ALL,
        ("processed", "in_doubt"),
        {"wallet_windows": 1, "wallet_sends_a_window": 1},
    ),
    "silence of a partner that pays twice": Trouble(
        faulty("silence", executed=True),
        _ALL,
        ("processed", "in_doubt"),
        {"wallet_partner_idempotent": False},
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_resend_in_trouble_killed_at_what_decides_is_finished_by_the_next(
    resend: Resend, name: str
) -> None:
    trouble = TROUBLES[name]
    resend.change(**trouble.settings)
    enter_trouble(resend, trouble)
    # Answers that come together share a commit, so that all others may have other numbers.
    points = counted_by_function(commits(resend))
    decisive = [point for point in points if point.function in _DECISIVE]
    # The first payout of all goes well; the second request meets the trouble.
    intent, answer, *consequences = decisive[2:]
    concluded = [point for point in consequences if point.function not in _REQUESTED]
    moments = [Moment("after", intent), Moment("before", answer)]
    moments += [Moment("before", point) for point in concluded[:1]]
    for moment in moments:
        start_anew(resend)
        enter_trouble(resend, trouble)
        point = resend.kill(moment)
        assert point is not None, moment
        assert f"({moment.point.function})" in point, moment
        assert resend.wrong() == [], moment
        run_alone(resend)
        assert resend.wrong(is_left_alone=True) == [], moment
        for payout, state in resend.states().items():
            ends = trouble.ends if payout in trouble.names else ("processed",)
            assert state in ends, (payout, moment)


def enter_trouble(resend: Resend, trouble: Trouble) -> None:
    resend.enter(*_ALL)
    trouble.arrange(resend.sandbox)


# --- several requests at once -------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_with_several_requests_under_way_any_moment_may_be_the_last(
    resend: Resend, seed: int
) -> None:
    """Killed again and again at statements and commits drawn at random, in one long history."""
    draw = random.Random(seed)
    resend.change(wallet_requests_at_once=3, wallet_deadline_seconds=0.4)
    resend.enter(*names(30, "first"))
    points = resend.points()
    for number in range(RANDOM_KILLS):
        resend.enter(*names(draw.choice((1, 12, 30)), f"k{number}-"))
        executed = draw.choice((True, False))
        resend.sandbox.fault("wallet", "silence", after_calls=draw.randrange(9), executed=executed)
        resend.let_the_lease_run_out()
        moment = Moment(draw.choice(("before", "after")), draw.choice(points))
        resend.kill(moment)
        assert resend.wrong() == [], f"{moment}, seed {seed}"
    resend.let_the_window_close()
    run_alone(resend)
    run_alone(resend)
    assert resend.wrong(is_left_alone=True) == []
    assert set(resend.states().values()) <= {"processed", "in_doubt"}


def test_two_senders_at_once_send_everything_once(resend: Resend) -> None:
    resend.change(wallet_requests_at_once=3, wallet_deadline_seconds=5)
    resend.enter(*names(60))
    url = resend.warehouse.pipelines_url
    with Worker(url, resend.tasks) as first, Worker(url, resend.tasks) as second:
        assert first.wait() == "finished", first.error()
        assert second.wait() == "finished", second.error()
    assert sorted(chain(*resend.requests())) == names(60)


def test_a_dead_senders_lease_runs_out_by_itself(resend: Resend) -> None:
    resend.change(wallet_lease_seconds=1)
    resend.enter(*names(14))
    point = Point("send", 12)
    assert resend.kill(Moment("after", point)) is not None
    assert resend.send().processed == 13


# --- frozen -------------------------------------------------------------------------------------


def nth(resend: Resend, function: str, number: int = 1) -> Point:
    """The point where this function commits for the so manyth time, in a run that is left alone."""
    found = [point for point in commits(resend) if point.function == function]
    start_anew(resend)
    return found[number - 1]


def before_it_is_stored(resend: Resend) -> Point:
    """The first statement after the answer to the second request has come."""
    points = resend.points()
    _, committed, *_ = [
        place for place, point in enumerate(points) if point.function == "attempts.commit_attempts"
    ]
    start_anew(resend)
    return next(point for point in points[committed:] if point.kind == "statement")


def test_frozen_before_its_request_a_sender_does_not_send_it_when_it_wakes(resend: Resend) -> None:
    resend.enter(*names(14))
    point = nth(resend, "attempts.commit_attempts", 2)
    resend.enter(*names(14))
    with resend.frozen(Moment("after", point)) as sleeper:
        assert len(resend.requests()) == 1
        assert resend.wrong() == []
        resend.let_the_lease_run_out()
        resend.send()
        assert set(resend.states().values()) == {"processed"}
        seen = resend.requests()
        sleeper.go_on()
        assert sleeper.wait() == "failed"
        assert "LeaseLost" in sleeper.error()
    assert resend.requests() == seen
    [attempt] = rows(resend.warehouse, "SELECT * FROM wallet.attempt WHERE attempt_id = 2")
    assert (attempt.result, attempt.epoch, attempt.closed_by_epoch) == ("not_executed", 1, 1)
    assert resend.wrong(is_left_alone=True) == []


def test_a_sender_that_was_followed_begins_no_other_request(resend: Resend) -> None:
    """Though nothing has been sent by its follower yet, and the payouts are open."""
    resend.enter(*names(14))
    point = nth(resend, "answers.close_attempts", 1)
    resend.enter(*names(14))
    with resend.frozen(Moment("after", point)) as sleeper:
        resend.let_the_lease_run_out()
        with resend.frozen(Moment("after", Point("send", 4))) as follower:
            sleeper.go_on()
            assert sleeper.wait() == "failed"
            assert "LeaseLost" in sleeper.error()
            assert resend.requests() == [["t000"]]
            follower.go_on()
            assert follower.wait() == "finished", follower.error()
    assert resend.credits() == dict.fromkeys(names(14), 1)


def test_frozen_past_its_deadline_a_sender_that_is_alone_begins_the_request_anew(
    resend: Resend,
) -> None:
    resend.enter(*names(14))
    point = nth(resend, "attempts.commit_attempts", 2)
    resend.enter(*names(14))
    with resend.frozen(Moment("after", point)) as sleeper:
        resend.wait_until_requests_are_over()
        sleeper.go_on()
        assert sleeper.wait() == "finished", sleeper.error()
    assert resend.credits() == dict.fromkeys(names(14), 1)
    results = rows(resend.warehouse, "SELECT result FROM wallet.attempt ORDER BY attempt_id")
    assert [row.result for row in results] == ["answered", "not_executed", "answered", "answered"]
    assert resend.wrong(is_left_alone=True) == []


def test_an_answer_that_is_stored_late_counts_for_its_own_request(resend: Resend) -> None:
    enter_a_day(resend)
    point = before_it_is_stored(resend)
    enter_a_day(resend)
    with resend.frozen(Moment("before", point)) as sleeper:
        assert len(resend.requests()) == 2
        resend.let_the_lease_run_out()
        resend.send()
        [doubt] = rows(resend.warehouse, "SELECT * FROM wallet.attempt WHERE attempt_id = 2")
        assert (doubt.result, doubt.closed_by_epoch) == ("in_doubt", 2)
        assert resend.states()["t003"] == "contested"
        assert resend.wrong(is_left_alone=True) == []
        sleeper.go_on()
        assert sleeper.wait() == "failed"
        assert "LeaseLost" in sleeper.error()
    [late] = rows(resend.warehouse, "SELECT * FROM wallet.attempt WHERE attempt_id = 2")
    assert (late.result, late.closed_by_epoch, late.http_status) == ("answered", 1, 200)
    # A person was asked, and is not forestalled.
    assert resend.states()["t003"] == "contested"
    assert resend.wrong(is_left_alone=True) == []


def test_a_late_answer_pays_before_anybody_has_sent_again(resend: Resend) -> None:
    resend.enter(*names(14))
    point = before_it_is_stored(resend)
    resend.enter(*names(14))
    with resend.frozen(Moment("before", point)) as sleeper:
        resend.let_the_lease_run_out()
        # Its successor is held up as well, right after it has given up the open request.
        successor_at = Moment("after", Point("send", 5))
        with resend.frozen(successor_at) as successor:
            sleeper.go_on()
            assert sleeper.wait() == "failed"
            assert sum(state == "processed" for state in resend.states().values()) == 11
            assert resend.wrong() == []
            successor.go_on()
            assert successor.wait() == "finished", successor.error()
    assert resend.credits() == dict.fromkeys(names(14), 1)
    assert sorted(chain(*resend.requests())) == names(14)


def test_what_is_answered_as_paid_after_a_person_gave_it_up_is_a_finding(resend: Resend) -> None:
    resend.change(wallet_partner_idempotent=False)
    resend.enter(*names(3))
    point = before_it_is_stored(resend)
    resend.enter(*names(3))
    with resend.frozen(Moment("before", point)) as sleeper:
        resend.let_the_lease_run_out()
        resend.send()
        assert resend.states() == {"t000": "processed", "t001": "in_doubt", "t002": "in_doubt"}
        resend.decide("lost")
        sleeper.go_on()
        assert sleeper.wait() == "failed"
    assert resend.states() == {"t000": "processed", "t001": "lost", "t002": "lost"}
    assert resend.findings() == ["paid_though_lost"]


def test_frozen_amid_storing_an_answer_a_sender_gives_way(resend: Resend) -> None:
    """The server ends its transaction; the answer is lost, and the next run asks again."""
    resend.enter(*names(14))
    point = nth(resend, "answers.close_attempts", 2)
    resend.enter(*names(14))
    session = {"idle_in_transaction_session_timeout": "300ms"}
    with resend.frozen(Moment("before", point), session) as sleeper:
        resend.let_the_lease_run_out()
        resend.send()
        assert set(resend.states().values()) == {"processed"}
        sleeper.go_on()
        assert sleeper.wait() == "failed"
    assert resend.credits() == dict.fromkeys(names(14), 1)
    assert resend.wrong(is_left_alone=True) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("function", ["attempts.commit_attempts", "answers.close_attempts"])
def test_a_lost_connection_ends_the_run_at_most_and_costs_no_answer(
    resend: Resend, when: Any, function: str
) -> None:
    resend.enter(*names(14))
    point = nth(resend, function, 2)
    resend.enter(*names(14))
    with resend.frozen(Moment(when, point)) as worker:
        resend.as_owner(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'pipelines'"
        )
        worker.go_on()
        # An idle connection is made anew unnoticed; one in a transaction takes that with it, but
        # an answer is stored again.
        ends_run = when == "before" and function == "attempts.commit_attempts"
        assert worker.wait() == ("failed" if ends_run else "finished"), worker.error()
    if not ends_run:
        assert not rows(resend.warehouse, "SELECT FROM wallet.attempt WHERE result <> 'answered'")
    run_alone(resend)
    assert resend.credits() == dict.fromkeys(names(14), 1)
    assert resend.wrong(is_left_alone=True) == []
