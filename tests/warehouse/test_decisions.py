"""Decisions: what each of them does, what is refused, and what is on record afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.catchup.watching import watch
from include.quality.gates import BatchHeld, check_raw, check_settlements
from include.quality.normalizing import normalize
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import DecisionRefused, Resolution, held_by, resolve
from include.warehouse.decisions.resolving import carried_out_by
from include.warehouse.findings import KINDS, Finding, open_finding
from include.warehouse.landing import Cursor, CursorMoved, Gap, Landing
from include.warehouse.pages import ArrivedPage
from tests.checker import violations
from tests.feeding import (
    SETTINGS,
    SOURCE,
    body_of,
    correction,
    current,
    entry,
    land_body,
    open_findings,
    push,
    versions,
)
from tests.warehouses import Warehouse

FEED = (SOURCE.name, SOURCE.feed)
FUTURE = "2126-01-01T00:00:00+00:00"


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def decide(
    warehouse: Warehouse, finding_id: int, decision: str, *, reason: str = "fixed", **given: Any
) -> Resolution:
    return resolve(
        warehouse.engine,
        finding_id,
        decision,
        decided_by="anna",
        reason=reason,
        reference="OPS-7",
        parameters=given,
        run_id="manual__1",
    )


def rows(connection: Connection, statement: str) -> list[Any]:
    return list(connection.execute(text(statement)))


def everything(connection: Connection) -> list[Any]:
    """All that a decision may change, as text."""
    tables = (
        "ops.batch",
        "ops.cursor",
        "ops.gap",
        "ops.finding",
        "ops.decision",
        "ops.quarantine",
        "core.settlement",
        "core.daily_settlement",
        "core.daily_recording",
        "staging.settlement",
    )
    return [
        rows(connection, f"SELECT one::text FROM {table} AS one ORDER BY 1") for table in tables
    ]


def only_finding(connection: Connection, kind: str) -> Any:
    [finding] = open_findings(connection, kind)
    return finding


def landing_of(warehouse: Warehouse) -> Landing:
    return Landing(warehouse.engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, "test")


def cursor_of(connection: Connection) -> Any:
    return connection.execute(text("SELECT * FROM ops.cursor")).one()


def stop_at(warehouse: Warehouse, body: bytes, since_id: str | None = None) -> Cursor:
    """The feed meets a page that cannot be decoded; gives the cursor where it stopped."""
    now = datetime.now(UTC)
    landing = landing_of(warehouse)
    cursor = landing.read_cursor()
    page = ArrivedPage("GET /cs2/v1/settlements", now, now, body, 200, "application/json")
    landing.stop(page, "no JSON", since_id or cursor.position.get("since_id"))
    landing.close(has_reached_end=False)
    return cursor


def stop_at_cursor(warehouse: Warehouse, position: dict[str, Any], since_id: str) -> int:
    """The feed stands at `position`, and the provider refuses `since_id`; gives the finding."""
    landing = landing_of(warehouse)
    landing.commit([], landing.read_cursor(), position)
    finding_id = landing.stop_at_cursor(since_id, 404, "It knows nothing under /settlements (404).")
    landing.close(has_reached_end=False)
    return finding_id


def leave_gap(warehouse: Warehouse, *subjects: str) -> None:
    landing = landing_of(warehouse)
    cursor = landing.read_cursor()
    landing.commit([], cursor, cursor.position, [Gap("5", "9", "a page hid entries.", subjects)])
    landing.close(has_reached_end=True)


def hold_batch(warehouse: Warehouse, connection: Connection) -> Any:
    """A batch held with 11 rows of the future and one good row; gives its finding."""
    land_body(
        warehouse.engine,
        body_of(
            *(entry(n, created_at=FUTURE, market_offer_id=f"o{n}") for n in range(1, 12)), entry(12)
        ),
    )
    with pytest.raises(BatchHeld):
        push(warehouse.engine)
    return only_finding(connection, "batch_held")


# --- every decision -----------------------------------------------------------------------------


def test_every_decision_that_a_finding_offers_is_carried_out_by_something() -> None:
    for kind, known in KINDS.items():
        for name in known.decisions:
            assert callable(carried_out_by(kind, name))


def test_a_decision_is_recorded_with_who_why_and_before_and_after(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = hold_batch(warehouse, connection)
    resolution = decide(warehouse, finding.finding_id, "release_batch", reason=" agreed with them ")

    [row] = rows(connection, "SELECT * FROM ops.decision")
    assert (row.decision_id, row.finding_id) == (resolution.decision_id, finding.finding_id)
    assert (row.decided_by, row.reason, row.reference) == ("anna", "agreed with them", "OPS-7")
    assert row.run_id == "manual__1"
    assert (row.state_before["state"], row.state_after["state"]) == ("held", "normalized")
    [closed] = rows(connection, "SELECT * FROM ops.finding WHERE kind = 'batch_held'")
    assert (closed.state, closed.closed_by) == ("closed", "decision")


def refused(
    warehouse: Warehouse, connection: Connection, finding_id: int, decision: str, **given: Any
) -> str:
    """The message of a refusal, which changed nothing."""
    before = everything(connection)
    with pytest.raises(DecisionRefused) as raised:
        decide(warehouse, finding_id, decision, **given)
    assert everything(connection) == before
    assert "Nothing was changed." in str(raised.value)
    return str(raised.value)


def test_what_does_not_fit_is_refused_and_changes_nothing(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding_id = hold_batch(warehouse, connection).finding_id
    assert "no finding 999" in refused(warehouse, connection, 999, "discard")
    told = refused(warehouse, connection, finding_id, "skip_page")
    assert "release_batch, try_again, discard" in told
    refused(warehouse, connection, finding_id, "drop table")
    assert "a reason" in refused(warehouse, connection, finding_id, "discard", reason="  ")

    decide(warehouse, finding_id, "discard")
    assert "is closed already" in refused(warehouse, connection, finding_id, "discard")


def test_a_batch_that_moved_on_is_refused(warehouse: Warehouse, connection: Connection) -> None:
    finding = hold_batch(warehouse, connection)
    connection.execute(text("UPDATE ops.batch SET state = 'landed', held_at = NULL"))
    told = refused(warehouse, connection, finding.finding_id, "discard")
    assert "is not held any more: it is landed" in told


def test_of_two_people_who_decide_at_once_one_wins(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding_id = hold_batch(warehouse, connection).finding_id
    outcomes: list[str] = []

    def answer(decision: str) -> None:
        try:
            decide(warehouse, finding_id, decision)
        except DecisionRefused as refusal:
            outcomes.append(f"refused: {refusal}")
        else:
            outcomes.append(decision)

    people = [threading.Thread(target=answer, args=(d,)) for d in ("release_batch", "discard")]
    with transaction(warehouse.engine, "loader") as pipeline:
        lock_source(pipeline, SOURCE.name)
        for person in people:
            person.start()
        wait_until_blocked(connection, len(people))
    for person in people:
        person.join(30)

    assert sorted(outcome.startswith("refused") for outcome in outcomes) == [False, True]
    [decision] = rows(connection, "SELECT decision FROM ops.decision")
    assert decision.decision in outcomes


def wait_until_blocked(connection: Connection, sessions: int) -> None:
    """Until that many sessions wait for a lock; Postgres ends the wait after 20 seconds."""
    connection.execute(text("SET statement_timeout = '20s'"))
    connection.execute(
        text(
            f"DO $$ BEGIN WHILE (SELECT count(*) FROM pg_locks WHERE NOT granted) < {sessions}"
            " LOOP PERFORM pg_sleep(0.01); END LOOP; END $$"
        )
    )


# --- batch_held ---------------------------------------------------------------------------------


def test_a_released_batch_is_published_without_the_rows_that_fail(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = hold_batch(warehouse, connection)
    decide(warehouse, finding.finding_id, "release_batch")
    assert push(warehouse.engine).published == 1
    assert only_finding(connection, "records_quarantined").detail["count"] == 11
    assert violations(connection, SOURCE) == []


def test_a_batch_tried_again_passes_every_gate_anew(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = hold_batch(warehouse, connection)
    decide(warehouse, finding.finding_id, "try_again")
    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert (batch.state, batch.raw_checked_at, batch.held_at) == ("landed", None, None)
    assert rows(connection, "SELECT * FROM staging.settlement") == []

    with pytest.raises(BatchHeld):
        push(warehouse.engine)
    again = only_finding(connection, "batch_held")
    assert again.finding_id != finding.finding_id

    decide(warehouse, again.finding_id, "try_again")
    generous = Settings(quarantine_rows_limit=11)
    assert push(warehouse.engine, generous).published == 1
    assert violations(connection, SOURCE) == []


def test_trying_again_closes_what_was_asked_about_its_quarantine(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(*(entry(n, new_status="maybe") for n in range(1, 13))))
    with pytest.raises(BatchHeld):
        push(warehouse.engine)
    decide(warehouse, only_finding(connection, "batch_held").finding_id, "try_again")
    assert open_findings(connection) == []


def test_a_discarded_batch_leaves_only_raw(warehouse: Warehouse, connection: Connection) -> None:
    land_body(
        warehouse.engine,
        body_of(*(entry(n, new_status="maybe") for n in range(1, 12)), entry(12)),
    )
    with pytest.raises(BatchHeld):
        push(warehouse.engine)
    decide(warehouse, only_finding(connection, "batch_held").finding_id, "discard")

    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert (batch.state, batch.discarded, batch.landed) == ("discarded", 12, 12)
    assert rows(connection, "SELECT * FROM staging.settlement") == []
    assert {row.state for row in rows(connection, "SELECT state FROM ops.quarantine")} == {
        "discarded"
    }
    assert open_findings(connection) == []
    assert push(warehouse.engine).published == 0
    assert violations(connection, SOURCE) == []


# --- records_quarantined ------------------------------------------------------------------------


def quarantine_two(warehouse: Warehouse, connection: Connection) -> Any:
    land_body(
        warehouse.engine,
        body_of(entry(1, created_at=FUTURE), entry(2, created_at=FUTURE), entry(3)),
    )
    push(warehouse.engine)
    return only_finding(connection, "records_quarantined")


def test_replayed_records_go_the_whole_way_as_a_new_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = quarantine_two(warehouse, connection)
    decide(warehouse, finding.finding_id, "replay")
    [replay] = rows(connection, "SELECT * FROM ops.batch WHERE kind = 'replay'")
    assert (replay.state, replay.received, replay.landed) == ("landed", 2, 2)
    assert open_findings(connection) == []

    # The fix: what was the future when the first batch landed is not when the second one does.
    connection.execute(text("UPDATE ops.batch SET landed_at = '2126-01-02' WHERE kind = 'replay'"))
    assert push(warehouse.engine).not_applied == 2
    assert len(versions(connection)) == 3
    assert current(connection).settled_at.year == 2026
    assert violations(connection, SOURCE, ["1", "2", "3"]) == []


def test_a_replay_that_fails_again_is_in_quarantine_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    first = quarantine_two(warehouse, connection)
    decide(warehouse, first.finding_id, "replay")
    assert push(warehouse.engine).published == 0
    second = only_finding(connection, "records_quarantined")
    assert second.batch_id != first.batch_id
    assert violations(connection, SOURCE) == []

    decide(warehouse, second.finding_id, "discard")
    states = rows(connection, "SELECT batch_id, state FROM ops.quarantine ORDER BY quarantine_id")
    assert [state for _, state in states] == ["replayed", "replayed", "discarded", "discarded"]
    assert violations(connection, SOURCE) == []


def test_records_stay_until_their_batch_is_published(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1, new_status="maybe"), entry(2)))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    finding = only_finding(connection, "records_quarantined")
    for decision in ("replay", "discard"):
        told = refused(warehouse, connection, finding.finding_id, decision)
        assert "is normalized and not published yet" in told


# --- settlement_contested -----------------------------------------------------------------------


def contest(warehouse: Warehouse, connection: Connection) -> Any:
    land_body(warehouse.engine, body_of(entry(1, outcome="won")))
    land_body(warehouse.engine, body_of(entry(1, outcome="lost")))
    push(warehouse.engine)
    return only_finding(connection, "settlement_contested")


@pytest.mark.parametrize("chosen", [0, 1])
def test_the_chosen_version_counts_and_the_other_never_does(
    warehouse: Warehouse, connection: Connection, chosen: int
) -> None:
    finding = contest(warehouse, connection)
    record_ids = [version.record_id for version in versions(connection)]
    resolution = decide(
        warehouse, finding.finding_id, "choose_version", record_id=record_ids[chosen]
    )

    assert current(connection).record_id == record_ids[chosen]
    assert [v.is_rejected_by_decision for v in versions(connection)] == [chosen == 1, chosen == 0]
    assert not any(version.is_contested for version in versions(connection))
    assert [v["is_contested"] for v in resolution.before["versions"]] == [True, True]
    assert [v["is_contested"] for v in resolution.after["versions"]] == [False, False]
    assert violations(connection, SOURCE) == []

    land_body(warehouse.engine, body_of(correction(2, "void")))
    push(warehouse.engine)
    assert current(connection).outcome == "void"
    assert open_findings(connection, "settlement_contested") == []


def test_only_a_contested_version_can_be_chosen(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = contest(warehouse, connection)
    for given in ({}, {"record_id": 999}, {"record_id": "x"}):
        told = refused(warehouse, connection, finding.finding_id, "choose_version", **given)
        assert "is not one of the contested versions" in told


def test_a_wrong_choice_is_put_right_by_choosing_anew(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = contest(warehouse, connection)
    wrong, right = (version.record_id for version in versions(connection))
    decide(warehouse, finding.finding_id, "choose_version", record_id=wrong)
    told = refused(warehouse, connection, finding.finding_id, "choose_version", record_id=wrong)
    assert "or it counts already" in told
    assert f"one of: {right}." in told

    anew = decide(warehouse, finding.finding_id, "choose_version", record_id=right)
    assert current(connection).record_id == right
    assert [v.is_rejected_by_decision for v in versions(connection)] == [True, False]
    assert [v["is_rejected_by_decision"] for v in anew.before["versions"]] == [False, True]
    assert [v["is_rejected_by_decision"] for v in anew.after["versions"]] == [True, False]
    decided = rows(connection, "SELECT finding_id FROM ops.decision")
    assert decided == [(finding.finding_id,), (finding.finding_id,)]
    assert open_findings(connection, "settlement_contested") == []
    assert violations(connection, SOURCE) == []


def tell_a_third_content(warehouse: Warehouse) -> None:
    land_body(warehouse.engine, body_of(entry(1, new_status="voided", outcome="void")))
    push(warehouse.engine)


def seen_of(warehouse: Warehouse, finding_id: int) -> str:
    """What the page Findings shows beside it at this moment."""
    with transaction(warehouse.engine, "resolver") as connection:
        return held_by(connection, {finding_id: "settlement_contested"})[finding_id].seen


def test_a_content_that_nobody_has_seen_is_not_rejected(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = contest(warehouse, connection)
    seen = seen_of(warehouse, finding.finding_id)
    tell_a_third_content(warehouse)
    chosen, *_ = records = [version.record_id for version in versions(connection)]
    for given, happened in (
        ({"seen": seen}, "is about other contents than these"),
        ({}, "does not say which contents were seen"),
    ):
        told = refused(
            warehouse, connection, finding.finding_id, "choose_version", record_id=chosen, **given
        )
        assert happened in told
        assert f"about 3 contents now (records {', '.join(map(str, records))})." in told
    seen = seen_of(warehouse, finding.finding_id)
    decide(warehouse, finding.finding_id, "choose_version", record_id=chosen, seen=seen)
    assert current(connection).record_id == chosen
    assert violations(connection, SOURCE) == []


def test_a_further_content_raises_the_alert_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = contest(warehouse, connection)
    tell_a_third_content(warehouse)
    alerts = rows(
        connection,
        f"SELECT * FROM ops.alert WHERE alert_key ~ '^finding/{finding.finding_id}(/|$)'"
        " ORDER BY alert_id",
    )
    keys = [f"finding/{finding.finding_id}{count}" for count in ("", "/3")]
    assert [alert.alert_key for alert in alerts] == keys
    assert "has grown: ticktock tells 3 different contents" in alerts[1].title
    assert "It holds 3 contents by now, more than were told before." in alerts[1].body


def test_whoever_has_seen_it_open_does_not_choose_against_somebody_else(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding = contest(warehouse, connection)
    seen = seen_of(warehouse, finding.finding_id)
    first, second = (version.record_id for version in versions(connection))
    decide(warehouse, finding.finding_id, "choose_version", record_id=first, seen=seen)
    told = refused(
        warehouse,
        connection,
        finding.finding_id,
        "choose_version",
        record_id=second,
        seen=seen,
    )
    assert f"Somebody has chosen for finding {finding.finding_id} since it was looked at." in told
    assert current(connection).record_id == first


def test_a_content_told_since_is_decided_with_the_finding_that_asks_for_it(
    warehouse: Warehouse, connection: Connection
) -> None:
    older = contest(warehouse, connection)
    chosen, rejected = (version.record_id for version in versions(connection))
    decide(warehouse, older.finding_id, "choose_version", record_id=chosen)
    tell_a_third_content(warehouse)
    newer = only_finding(connection, "settlement_contested")

    told = refused(warehouse, connection, older.finding_id, "choose_version", record_id=rejected)
    assert f"Decide finding {newer.finding_id} instead" in told
    decide(warehouse, newer.finding_id, "choose_version", record_id=rejected)
    assert current(connection).record_id == rejected
    assert sum(not version.is_rejected_by_decision for version in versions(connection)) == 1
    assert violations(connection, SOURCE) == []


def test_no_other_decision_is_taken_anew(warehouse: Warehouse, connection: Connection) -> None:
    revised = {(kind, name) for kind, known in KINDS.items() for name in known.revised}
    assert revised == {("settlement_contested", "choose_version")}


# --- undecodable_page ---------------------------------------------------------------------------


def test_a_page_asked_for_again_lets_the_feed_go_on_from_the_same_place(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(7)))
    stop_at(warehouse, b"<html>")
    before = cursor_of(connection)
    decide(warehouse, only_finding(connection, "undecodable_page").finding_id, "try_again")
    after = cursor_of(connection)
    assert before.stopped_by_finding_id is not None
    assert after.stopped_by_finding_id is None
    assert after.position == before.position


@pytest.mark.parametrize(
    ("body", "given", "expected"),
    [
        (b'{"data": [{"id": 8}, {"id" : 9, "match_id": 77', {}, "9"),
        (b'[{"id":"b7e2-11"},{"id": "c', {}, "b7e2-11"),
        (b"<html>", {"continue_from": "12"}, "12"),
        (b'{"data": [{"id": 8}', {"continue_from": 11}, "11"),
    ],
)
def test_a_skipped_page_becomes_a_gap_and_the_feed_goes_on_behind_it(
    warehouse: Warehouse,
    connection: Connection,
    body: bytes,
    given: dict[str, Any],
    expected: str,
) -> None:
    land_body(warehouse.engine, body_of(entry(7)))
    stopped = stop_at(warehouse, body)
    finding = only_finding(connection, "undecodable_page")
    decide(warehouse, finding.finding_id, "skip_page", **given)

    cursor = cursor_of(connection)
    assert cursor.position["since_id"] == expected
    # The second reading must not meet the same page.
    assert cursor.position["reread_since_id"] == expected
    assert cursor.stopped_by_finding_id is None
    [gap] = rows(connection, "SELECT * FROM ops.gap")
    assert (gap.range_after, gap.range_before, gap.state) == ("7", expected, "open")
    assert only_finding(connection, "gap").detail["gap_id"] == gap.gap_id

    landing = landing_of(warehouse)
    with pytest.raises(CursorMoved):
        landing.commit([], stopped, {"since_id": "8"})


def test_a_page_skipped_by_the_second_reading_leaves_the_first_where_it_is(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    anchors = [{"entry_id": "15", "seen_at": "2026-11-21T00:00:00+00:00"}]
    position = {"since_id": "20", "reread_since_id": "7", "anchors": anchors}
    landing.commit([], landing.read_cursor(), position)
    stop_at(warehouse, b'{"id": 9}', since_id="7")
    decide(warehouse, only_finding(connection, "undecodable_page").finding_id, "skip_page")
    assert cursor_of(connection).position == {**position, "reread_since_id": "9"}


def test_a_page_that_the_feed_has_left_behind_is_not_skipped(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(7)))
    stop_at(warehouse, b'{"id": 9}', since_id="6")
    finding = only_finding(connection, "undecodable_page")
    told = refused(warehouse, connection, finding.finding_id, "skip_page")
    assert "reads on after 7" in told


@pytest.mark.parametrize(
    ("body", "given", "told"),
    [
        (b"<html>", {}, "No entry's id can be read"),
        (b'{"id": 3}', {}, "Entry 3 is not behind the page"),
        (b"{}", {"continue_from": "7"}, "Entry 7 is not behind the page"),
    ],
)
def test_a_page_is_not_skipped_to_nowhere(
    warehouse: Warehouse, connection: Connection, body: bytes, given: dict[str, Any], told: str
) -> None:
    land_body(warehouse.engine, body_of(entry(7)))
    stop_at(warehouse, body)
    finding = only_finding(connection, "undecodable_page")
    assert told in refused(warehouse, connection, finding.finding_id, "skip_page", **given)


def test_a_feed_that_another_finding_stops_is_not_moved(
    warehouse: Warehouse, connection: Connection
) -> None:
    stop_at(warehouse, b'{"id": 3}')
    finding = only_finding(connection, "undecodable_page")
    connection.execute(text("UPDATE ops.cursor SET stopped_by_finding_id = 999"))
    for decision in ("try_again", "skip_page"):
        told = refused(warehouse, connection, finding.finding_id, decision)
        assert "No feed of ticktock waits for finding" in told


# --- cursor_refused -----------------------------------------------------------------------------

ANCHORS = [
    {"entry_id": "15", "seen_at": "2026-11-21T00:00:00+00:00"},
    {"entry_id": "20", "seen_at": "2026-11-21T00:10:00+00:00"},
]
STANDING = {"since_id": "20", "reread_since_id": "7", "anchors": ANCHORS}


def test_a_refused_cursor_asked_again_lets_the_feed_go_on_from_the_same_place(
    warehouse: Warehouse, connection: Connection
) -> None:
    finding_id = stop_at_cursor(warehouse, STANDING, "20")
    assert cursor_of(connection).stopped_by_finding_id == finding_id
    decide(warehouse, finding_id, "try_again")
    after = cursor_of(connection)
    assert (after.stopped_by_finding_id, after.position) == (None, STANDING)


@pytest.mark.parametrize(
    ("refused_id", "target", "reached", "left_out"),
    [
        ("20", "30", {"since_id": "30", "reread_since_id": "30", "anchors": []}, ("7", "30")),
        ("20", "15", {"since_id": "15", "reread_since_id": "15", "anchors": []}, ("7", "15")),
        ("20", "7", {"since_id": "7", "reread_since_id": "7", "anchors": []}, None),
        ("20", "3", {"since_id": "3", "reread_since_id": "3", "anchors": []}, None),
        ("7", "9", {**STANDING, "reread_since_id": "9"}, ("7", "9")),
        ("7", "3", {**STANDING, "reread_since_id": "3"}, None),
        ("7", "16", {**STANDING, "reread_since_id": "16", "anchors": ANCHORS[1:]}, ("7", "16")),
        ("7", "20", {**STANDING, "reread_since_id": "20", "anchors": []}, ("7", "20")),
    ],
)
def test_a_moved_cursor_leaves_a_gap_of_all_that_is_not_read_a_second_time(
    warehouse: Warehouse,
    connection: Connection,
    refused_id: str,
    target: str,
    reached: dict[str, Any],
    left_out: tuple[str, str] | None,
) -> None:
    finding_id = stop_at_cursor(warehouse, STANDING, refused_id)
    stopped = landing_of(warehouse).read_cursor()
    decide(warehouse, finding_id, "move_cursor", continue_from=target)

    cursor = cursor_of(connection)
    assert (cursor.position, cursor.stopped_by_finding_id) == (reached, None)
    gaps = rows(connection, "SELECT range_after, range_before FROM ops.gap WHERE state = 'open'")
    assert gaps == ([left_out] if left_out else [])
    assert len(open_findings(connection, "gap")) == len(gaps)
    with pytest.raises(CursorMoved):
        landing_of(warehouse).commit([], stopped, {"since_id": "21"})


def test_ids_without_an_order_always_leave_a_gap(
    warehouse: Warehouse, connection: Connection
) -> None:
    standing = {"since_id": "b7e2", "reread_since_id": "b7e2", "anchors": []}
    finding_id = stop_at_cursor(warehouse, standing, "b7e2")
    decide(warehouse, finding_id, "move_cursor", continue_from="a001")
    assert cursor_of(connection).position["since_id"] == "a001"
    [gap] = rows(connection, "SELECT * FROM ops.gap")
    assert (gap.range_after, gap.range_before) == ("b7e2", "a001")


@pytest.mark.parametrize(
    ("refused_id", "given", "told"),
    [
        ("20", {}, "No entry was named"),
        ("20", {"continue_from": " "}, "No entry was named"),
        ("20", {"continue_from": "20"}, "refuses to read on after 20"),
        ("7", {"continue_from": "21"}, "ahead of the first, which stands at 20"),
        ("6", {"continue_from": "9"}, "it reads on after 20"),
    ],
)
def test_a_cursor_is_not_moved_to_nowhere(
    warehouse: Warehouse, connection: Connection, refused_id: str, given: dict[str, Any], told: str
) -> None:
    finding_id = stop_at_cursor(warehouse, STANDING, refused_id)
    assert told in refused(warehouse, connection, finding_id, "move_cursor", **given)


def test_a_feed_that_waits_already_is_asked_about_once(
    warehouse: Warehouse, connection: Connection
) -> None:
    stop_at(warehouse, b"<html>")
    waited_for = only_finding(connection, "undecodable_page").finding_id
    assert stop_at_cursor(warehouse, STANDING, "20") == waited_for
    assert open_findings(connection, "cursor_refused") == []


# --- gap ----------------------------------------------------------------------------------------


def test_an_accepted_gap_is_closed(warehouse: Warehouse, connection: Connection) -> None:
    leave_gap(warehouse)
    finding = only_finding(connection, "gap")
    decide(warehouse, finding.finding_id, "accept_gap")
    [gap] = rows(connection, "SELECT * FROM ops.gap")
    assert gap.state == "accepted"
    assert gap.closed_at is not None
    assert watch(warehouse.engine, [FEED], SETTINGS).opened == []


def test_the_subjects_of_a_gap_are_asked_for_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    leave_gap(warehouse, "m1", "m2")
    connection.execute(text("UPDATE ops.gap SET tried_at = now()"))
    assert landing_of(warehouse).gaps_to_ask() == []
    decide(warehouse, only_finding(connection, "gap").finding_id, "try_again")
    [gap] = landing_of(warehouse).gaps_to_ask()
    assert gap.subjects == ["m1", "m2"]


@pytest.mark.parametrize("is_caught_up", [True, False])
def test_a_gap_read_again_from_an_entry_sends_the_second_reading_back(
    warehouse: Warehouse, connection: Connection, is_caught_up: bool
) -> None:
    land_body(warehouse.engine, body_of(entry(20)))
    leave_gap(warehouse)
    anchors = [] if is_caught_up else [{"entry_id": "19", "seen_at": "2026-11-21T00:00:00+00:00"}]
    landing = landing_of(warehouse)
    stopped = landing.read_cursor()
    landing.commit(
        [],
        stopped,
        {
            "since_id": "20",
            "reread_since_id": "20" if is_caught_up else "18",
            "anchors": anchors,
        },
    )
    decide(warehouse, only_finding(connection, "gap").finding_id, "try_again", continue_from="5")

    position = cursor_of(connection).position
    assert (position["since_id"], position["reread_since_id"]) == ("20", "5")
    if is_caught_up:
        [anchor] = position["anchors"]
        assert anchor["entry_id"] == "20"
        assert datetime.fromisoformat(anchor["seen_at"]) < datetime(2000, 1, 1, tzinfo=UTC)
    else:
        assert position["anchors"] == anchors
    [gap] = rows(connection, "SELECT * FROM ops.gap")
    assert (gap.state, gap.tried_at is not None) == ("open", True)


def test_a_gap_is_not_read_again_from_where_nothing_was_read(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(20)))
    leave_gap(warehouse)
    finding_id = only_finding(connection, "gap").finding_id
    told = refused(warehouse, connection, finding_id, "try_again", continue_from="21")
    assert "has not been read beyond entry 21" in told
    assert "no subjects" in refused(warehouse, connection, finding_id, "try_again")

    connection.execute(text("UPDATE ops.gap SET state = 'accepted', closed_at = now()"))
    assert "it is accepted" in refused(warehouse, connection, finding_id, "accept_gap")


def test_a_gap_of_a_stream_is_filled_by_a_file_and_never_by_asking_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    leave_gap(warehouse)
    landing = landing_of(warehouse)
    landing.commit([], landing.read_cursor(), {"caught_up_to": "2026-11-21T00:00:00+00:00"})
    finding_id = only_finding(connection, "gap").finding_id
    for given in ({}, {"continue_from": "5"}):
        told = refused(warehouse, connection, finding_id, "try_again", **given)
        assert "import that with the DAG import_files, then decide accept_gap" in told
    decide(warehouse, finding_id, "accept_gap")


# --- acknowledge --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [kind for kind, known in KINDS.items() if "acknowledge" in known.decisions]
)
def test_what_is_acknowledged_is_closed_and_nothing_else_changes(
    warehouse: Warehouse, connection: Connection, kind: str
) -> None:
    with transaction(warehouse.engine, "loader") as loader:
        finding_id = open_finding(loader, Finding(kind, SOURCE.name, "it", "It is.", "All."))
    resolution = decide(warehouse, finding_id, "acknowledge")
    assert (resolution.before, resolution.after) == ({}, {})
    assert open_findings(connection) == []
