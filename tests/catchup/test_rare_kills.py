"""SIGKILL at the commits that only a mishap or a person brings about; see `tests.killing`.

A page or a cursor stops the feed, a gap is filled, a gate holds a batch, a finding is decided,
quarantined records are replayed.  `test_kills` has the commits of every other run.  The histories
are those of a log, which ticktock plays, and, where only they have such, of tote's bets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.catchup.log import PageStopped
from include.catchup.sources import SOURCES, Source
from include.catchup.watching import watch
from include.model import Outcome, RecordContext, Settlement
from include.providers.errors import RecordRejected
from include.quality.gates import BatchHeld
from include.sandbox.client import Sandbox
from include.warehouse.decisions import DecisionRefused, resolve
from include.warehouse.findings import KINDS
from tests.killing import Moment, Point, Task, Worker
from tests.payouts.deciding import ABOUT_PAYOUTS
from tests.playing import PLAYED, SETTINGS, Play, run_tasks
from tests.warehouses import Warehouse

# Four pages, of which the first is followed by a call that proves their order.
RECORDS = 35
FOURTH_PAGE = 4
# A single record in quarantine is too many for the gate.
STRICT = SETTINGS.model_copy(update={"quarantine_rows_limit": 0, "quarantine_share_limit": 0})
WHENS = ("before", "after")
DECIDE = Point("decide", 1, function="resolving.resolve")


@pytest.fixture
def play(sandbox: Sandbox, warehouse: Warehouse) -> Play:
    return Play(SOURCES["ticktock"], sandbox, warehouse)


def rows(play: Play, statement: str) -> list[Any]:
    with play.warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text(statement)))


def count(play: Play, what: str) -> int:
    [[counted]] = rows(play, f"SELECT count(*) FROM {what}")
    return int(counted)


def finding_of(play: Play, kind: str) -> Any:
    [finding] = rows(play, f"SELECT * FROM ops.finding WHERE state = 'open' AND kind = '{kind}'")
    return finding


def tasks_of(play: Play) -> list[Task]:
    """All tasks; one that a page stops or that holds a batch has done what it could."""

    def calm(task: Task) -> Task:
        def run(engine: Engine) -> None:
            with suppress(PageStopped, BatchHeld):
                task.run(engine)

        return replace(task, run=run)

    return [calm(task) for task in play.tasks]


def run(play: Play) -> None:
    """A run that nobody disturbs, and that need not end well."""
    run_tasks(tasks_of(play), play.warehouse.engine)


def commits_of(play: Play, tasks: list[Task]) -> list[Point]:
    """The commits of a run that ends by itself."""
    with Worker(play.warehouse.pipelines_url, tasks) as worker:
        assert worker.wait() == "finished", worker.error()
        return [point for point in worker.points() if point.kind == "commit"]


def decide(play: Play, finding_id: int, decision: str, parameters: Mapping[str, Any]) -> Task:
    def carry_out(engine: Engine) -> None:
        resolve(
            engine,
            finding_id,
            decision,
            decided_by="on-call",
            reason="The provider has mended it.",
            reference=None,
            parameters=parameters,
            run_id=None,
        )

    return Task("decide", carry_out)


def decide_now(play: Play, kind: str, decision: str, **parameters: Any) -> None:
    finding_id = finding_of(play, kind).finding_id
    decide(play, finding_id, decision, parameters).run(play.warehouse.engine)


# --- land ---------------------------------------------------------------------------------------


def meet_a_page_that_stops(play: Play, fault: str) -> None:
    play.advance(RECORDS)
    # A refused cursor is asked with a second time before it is taken to be refused for good.
    times = 2 if fault == "refused_cursor" else 1
    play.sandbox.fault(play.source.name, fault, after_calls=FOURTH_PAGE, times=times)


@pytest.mark.parametrize(
    ("fault", "function", "kind"),
    [
        ("malformed_json", "landing._stop_at_page", "undecodable_page"),
        ("refused_cursor", "landing.stop_at_cursor", "cursor_refused"),
    ],
)
def test_a_feed_killed_as_it_stops_waits_with_its_finding_or_reads_on(
    play: Play, fault: str, function: str, kind: str
) -> None:
    land = tasks_of(play)[:1]
    meet_a_page_that_stops(play, fault)
    points = commits_of(play, land)
    assert [str(point) for point in points] == [
        "land 1 (landing.__init__)",
        "land 2 (landing.read_cursor)",
        "land 3 (landing.commit)",
        "land 4 (landing.commit)",
        f"land 5 ({function})",
        "land 6 (landing.close)",
    ]
    decide_now(play, kind, "try_again")
    assert play.wrong_when_left_alone() == []
    for when in WHENS:
        stopped = 1 if when == "after" else 0
        pages = count(play, "raw.page WHERE undecodable_reason IS NOT NULL")
        meet_a_page_that_stops(play, fault)
        assert play.kill(Moment(when, points[4]), land) == f"land 5 ({function})"
        assert play.sandbox.faults() == []
        assert play.wrong() == []
        assert count(play, "ops.finding WHERE state = 'open'") == stopped
        assert count(play, "ops.cursor WHERE stopped_by_finding_id IS NOT NULL") == stopped
        kept = count(play, "raw.page WHERE undecodable_reason IS NOT NULL") - pages
        assert kept == (stopped if kind == "undecodable_page" else 0)
        if stopped:
            decide_now(play, kind, "try_again")
        assert play.wrong_when_left_alone() == []


def test_a_gap_whose_filling_is_killed_is_filled_once(play: Play) -> None:
    play.sandbox.configure(play.source.name, page_order="newest_first")
    play.advance(RECORDS)
    points = commits_of(play, list(play.tasks[:1]))
    assert [str(point) for point in points] == [
        "land 1 (landing.__init__)",
        "land 2 (landing.read_cursor)",
        "land 3 (landing.commit)",
        "land 4 (landing.gaps_to_ask)",
        "land 5 (landing.land_subjects)",
        "land 6 (landing.close)",
    ]
    for number, when in enumerate(WHENS, start=2):
        play.advance(RECORDS)
        filled = number if when == "after" else number - 1
        assert play.kill(Moment(when, points[4])) == "land 5 (landing.land_subjects)"
        assert play.wrong() == []
        assert count(play, "ops.gap") == number
        assert count(play, "ops.gap WHERE tried_at IS NOT NULL") == filled
        assert count(play, "ops.batch WHERE kind = 'fill'") == filled
        assert play.wrong_when_left_alone() == []
        assert count(play, "ops.gap WHERE tried_at IS NOT NULL") == number
        assert count(play, "ops.batch WHERE kind = 'fill' AND state = 'published'") == number


# --- the gates ----------------------------------------------------------------------------------


def meet_a_bad_page(play: Play, fault: str, **parameters: Any) -> None:
    play.advance(RECORDS)
    play.sandbox.fault(play.source.name, fault, **parameters)


@pytest.mark.parametrize(
    ("gate", "fault", "parameters"),
    [
        ("check_raw", "miscounted_page", {}),
        # Not the first entry: the call that proves the order shows it again, and soundly.
        ("check_settlements", "unknown_value", {"entry": 3}),
    ],
)
def test_a_gate_killed_as_it_holds_a_batch_holds_it_once_and_nothing_passes(
    play: Play, gate: str, fault: str, parameters: dict[str, Any]
) -> None:
    play.settings = STRICT
    hold = Point(gate, 2, function="batches.work_through")
    for number, when in enumerate(WHENS, start=1):
        meet_a_bad_page(play, fault, **parameters)
        assert play.kill(Moment(when, hold), tasks_of(play)) == str(hold)
        assert play.wrong() == []
        held = 1 if when == "after" else 0
        assert count(play, "ops.batch WHERE state = 'held'") == held
        run(play)
        assert play.wrong(is_left_alone=True) == []
        assert count(play, "ops.batch WHERE state = 'held'") == 1
        assert count(play, "core.settlement") == (RECORDS * (number - 1)) - (
            number - 1 if gate == "check_settlements" else 0
        )
        assert count(play, "ops.finding WHERE kind = 'batch_held'") == number
        decide_now(play, "batch_held", "release_batch")
        assert play.wrong_when_left_alone() == []
        assert count(play, "ops.batch WHERE state = 'published' AND landed > 0") == number


# --- decisions ----------------------------------------------------------------------------------


def stop_at_a_page(play: Play) -> None:
    meet_a_page_that_stops(play, "malformed_json")
    run(play)


def stop_at_the_cursor(play: Play) -> None:
    meet_a_page_that_stops(play, "refused_cursor")
    run(play)


def hold_a_batch(play: Play) -> None:
    play.settings = STRICT
    quarantine_a_record(play)
    play.settings = SETTINGS


def quarantine_a_record(play: Play) -> None:
    meet_a_bad_page(play, "unknown_value", entry=3)
    run(play)


def contest_a_settlement(play: Play) -> None:
    """The call that proves the order shows the first entry with its sound content, a void."""
    changes = {"new_status": "settled", "outcome": "won"}
    meet_a_bad_page(play, "changed_entry", entry=0, changes=changes)
    run(play)


def leave_a_gap(play: Play) -> None:
    play.sandbox.configure(play.source.name, page_order="newest_first")
    play.advance(RECORDS)
    run(play)


def show_an_unknown_field(play: Play) -> None:
    meet_a_bad_page(play, "unknown_field", entry=3)
    run(play)


def be_told_with_a_hole(play: Play) -> None:
    play.advance(3)
    run(play)
    play.advance(3)
    # The list has one page.
    play.sandbox.fault(play.source.name, "null_nodes", after_calls=1)
    run(play)


def list_what_does_not_add_up(play: Play) -> None:
    play.advance(3)
    told = {"path": "data.bets.totalCount", "value": 4}
    play.sandbox.fault(play.source.name, "changed_answer", **told)
    run(play)


def ask_for_what_nobody_knows(play: Play) -> None:
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(text("INSERT INTO tote.bet (tote_id) VALUES ('mistyped')"))
    run(play)
    watch(play.warehouse.engine, [], SETTINGS)


def nothing(play: Play) -> dict[str, Any]:
    return {}


def a_later_entry(play: Play) -> dict[str, Any]:
    shown = PLAYED[play.source.name].keys(play.sandbox)
    [[since_id]] = rows(play, "SELECT position ->> 'since_id' FROM ops.cursor")
    return {"continue_from": shown[shown.index(since_id) + 3]}


def a_contested_record(play: Play) -> dict[str, Any]:
    [[record_id]] = rows(play, "SELECT max(record_id) FROM core.settlement WHERE is_contested")
    return {"record_id": record_id}


@dataclass(frozen=True)
class Question:
    """How a kind of finding comes about, and what its decisions need to be told."""

    arise: Callable[[Play], None]
    decisions: Mapping[str, Callable[[Play], dict[str, Any]]] = field(default_factory=dict)
    source: str = "ticktock"


QUESTIONS = {
    "undecodable_page": Question(
        stop_at_a_page, {"try_again": nothing, "skip_page": a_later_entry}
    ),
    "cursor_refused": Question(
        stop_at_the_cursor, {"try_again": nothing, "move_cursor": a_later_entry}
    ),
    "batch_held": Question(
        hold_a_batch, {"release_batch": nothing, "try_again": nothing, "discard": nothing}
    ),
    "records_quarantined": Question(quarantine_a_record, {"replay": nothing, "discard": nothing}),
    "settlement_contested": Question(contest_a_settlement, {"choose_version": a_contested_record}),
    "gap": Question(leave_a_gap, {"accept_gap": nothing, "try_again": nothing}),
    "undecodable_answer": Question(
        be_told_with_a_hole, {"try_again": nothing, "skip_page": nothing}, source="tote"
    ),
    "listing_incomplete": Question(
        list_what_does_not_add_up, {"skip_window": nothing}, source="tote"
    ),
    "bets_absent": Question(ask_for_what_nobody_knows, {"give_up": nothing}, source="tote"),
    # To acknowledge is the same for every kind that knows it.
    "unknown_field": Question(show_an_unknown_field, {"acknowledge": nothing}),
}


def test_every_decision_is_killed() -> None:
    """But those about payouts, which `tests/payouts/test_decision_kills.py` kills, and those about
    markets and their credits, which `tests/markets` kills wherever it decides.
    """
    offered = {
        (kind, name)
        for kind, known in KINDS.items()
        for name in known.decisions
        if kind not in ABOUT_PAYOUTS
        and not kind.startswith(("market_", "credit"))
        and (name != "acknowledge" or kind == "unknown_field")
    }
    killed = {(kind, name) for kind, question in QUESTIONS.items() for name in question.decisions}
    assert killed == offered


def everything(play: Play) -> list[Any]:
    """All that a decision may change, as text; but when bets are due, which a kill puts off."""
    tables = (
        *("ops.batch", "ops.cursor", "ops.gap", "ops.finding", "ops.decision", "ops.quarantine"),
        *("ops.alert", "core.settlement", "core.daily_settlement", "core.daily_recording"),
        *("staging.settlement", "staging.settlement_leg"),
    )
    asked = "SELECT (to_jsonb(bet) - 'next_ask_at')::text FROM tote.bet ORDER BY 1"
    whole = [rows(play, f"SELECT one::text FROM {table} AS one ORDER BY 1") for table in tables]
    return [*whole, rows(play, asked)]


@pytest.mark.parametrize(
    ("kind", "decision"),
    [(kind, decision) for kind, asked in QUESTIONS.items() for decision in asked.decisions],
)
def test_a_decision_that_is_killed_is_carried_out_whole_and_recorded_or_not_at_all(
    sandbox: Sandbox, warehouse: Warehouse, kind: str, decision: str
) -> None:
    question = QUESTIONS[kind]
    play = Play(SOURCES[question.source], sandbox, warehouse)
    question.arise(play)
    finding_id = finding_of(play, kind).finding_id
    task = decide(play, finding_id, decision, question.decisions[decision](play))
    before = everything(play)

    assert play.kill(Moment("before", DECIDE), [task]) == str(DECIDE)
    assert everything(play) == before
    assert play.wrong() == []

    assert play.kill(Moment("after", DECIDE), [task]) == str(DECIDE)
    [decided] = rows(play, "SELECT * FROM ops.decision")
    assert (decided.finding_id, decided.decision) == (finding_id, decision)
    [asked] = rows(play, f"SELECT * FROM ops.finding WHERE finding_id = {finding_id}")
    assert (asked.state, asked.closed_by) == ("closed", "decision")
    assert (decided.state_before == decided.state_after) == (decision == "acknowledge")
    assert play.wrong() == []
    repeated = "it counts already" if decision in KINDS[kind].revised else "is closed already"
    with pytest.raises(DecisionRefused, match=repeated):
        task.run(play.warehouse.engine)
    assert play.wrong_when_left_alone() == []
    assert count(play, "ops.cursor WHERE stopped_by_finding_id IS NOT NULL") == 0
    assert count(play, "ops.batch WHERE state = 'held'") == 0


# --- a replay -----------------------------------------------------------------------------------


def too_strict(source: Source) -> Source:
    """The source with a mistake of ours, which is mended later."""

    def normalize(payload: bytes, context: RecordContext) -> Settlement:
        settlement = source.normalizer(STRICT)(payload, context)
        if settlement.outcome == Outcome.LOST:
            raise RecordRejected("unknown_outcome", "nobody ever loses")
        return settlement

    return replace(source, normalizer=lambda settings: normalize)


def test_a_replay_killed_at_each_of_its_steps_brings_its_records_once(play: Play) -> None:
    source = play.source
    play.source, play.settings = (
        too_strict(source),
        STRICT.model_copy(update={"quarantine_rows_limit": RECORDS}),
    )
    play.advance(RECORDS)
    run(play)
    play.source = source
    quarantined = count(play, "ops.quarantine WHERE state = 'open'")
    assert 0 < quarantined < RECORDS
    decide_now(play, "records_quarantined", "replay")
    for step in ("check_raw", "normalize", "check_settlements", "publish"):
        work = Point(step, 2, function="batches.work_through")
        for when in WHENS:
            assert play.kill(Moment(when, work), play.tasks[1:]) == str(work)
            assert play.wrong() == []
            is_published = (step, when) == ("publish", "after")
            assert count(play, "core.settlement") == (
                RECORDS if is_published else RECORDS - quarantined
            )
    assert play.wrong_when_left_alone() == []
    assert count(play, "core.settlement") == RECORDS
    assert count(play, "ops.quarantine WHERE state = 'replayed'") == quarantined
    assert count(play, "ops.batch WHERE kind = 'replay'") == 1
