"""Watching: what is late, stuck or missing is asked about once, until it moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.catchup.watching import Watched, watch
from include.quality.gates import BatchHeld, check_raw
from include.warehouse.decisions import resolve
from include.warehouse.landing import Gap, Landing
from tests.feeding import SETTINGS, SOURCE, body_of, entry, land_body, open_findings, push
from tests.warehouses import Warehouse

FEEDS = [(SOURCE.name, SOURCE.feed)]
NOTHING = Watched(opened=[], closed=[])


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def look(warehouse: Warehouse) -> Watched:
    return watch(warehouse.engine, FEEDS, SETTINGS)


def decide(warehouse: Warehouse, finding_id: int, decision: str) -> None:
    resolve(
        warehouse.engine,
        finding_id,
        decision,
        decided_by="anna",
        reason="seen",
        reference=None,
        parameters={},
        run_id=None,
    )


def only_finding(connection: Connection, kind: str) -> Any:
    [finding] = open_findings(connection, kind)
    return finding


def age(connection: Connection, *columns: str, table: str = "ops.cursor") -> None:
    """Let what happened have happened a day earlier."""
    changes = ", ".join(f"{column} = {column} - interval '1 day'" for column in columns)
    connection.execute(text(f"UPDATE {table} SET {changes}"))


def read_to_the_end(warehouse: Warehouse) -> None:
    land_body(warehouse.engine, body_of())


def test_a_feed_that_is_read_is_not_late(warehouse: Warehouse) -> None:
    read_to_the_end(warehouse)
    assert look(warehouse) == NOTHING


def test_a_feed_that_went_quiet_is_late_until_it_is_read_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    read_to_the_end(warehouse)
    age(connection, "completed_at")

    opened = look(warehouse).opened
    finding = only_finding(connection, "feed_late")
    assert opened == [finding.finding_id]
    assert "catch_up_ticktock" in finding.summary
    assert look(warehouse) == NOTHING
    assert only_finding(connection, "feed_late").times_seen == 2

    read_to_the_end(warehouse)
    assert look(warehouse) == Watched(opened=[], closed=[finding.finding_id])
    assert open_findings(connection) == []
    assert look(warehouse) == NOTHING


def test_a_feed_that_never_ran_counts_from_when_it_was_first_looked_for(
    warehouse: Warehouse, connection: Connection
) -> None:
    assert look(warehouse) == NOTHING
    age(connection, "moved_at")
    assert len(look(warehouse).opened) == 1
    assert "has not been read to its end ever" in only_finding(connection, "feed_late").summary


def test_a_feed_that_never_reached_its_end_counts_from_its_first_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = Landing(warehouse.engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, None)
    landing.read_cursor()
    landing.close(has_reached_end=False)
    assert look(warehouse) == NOTHING
    age(connection, "opened_at", table="ops.batch")
    assert len(look(warehouse).opened) == 1


def test_an_acknowledged_episode_is_not_told_again_but_the_next_one_is(
    warehouse: Warehouse, connection: Connection
) -> None:
    read_to_the_end(warehouse)
    age(connection, "completed_at")
    look(warehouse)
    decide(warehouse, only_finding(connection, "feed_late").finding_id, "acknowledge")
    assert look(warehouse) == NOTHING

    age(connection, "opened_at", "closed_at", "last_seen_at", table="ops.finding")
    age(connection, "opened_at", "closed_at", "last_seen_at", table="ops.finding")
    read_to_the_end(warehouse)
    age(connection, "completed_at")
    assert len(look(warehouse).opened) == 1


def stand(connection: Connection, feed: str = SOURCE.feed, **hours_ago: float) -> None:
    """Let the feed be a stream that stands where so many hours ago are named."""
    moments = {name: f"now() - interval '{hours} hours'" for name, hours in hours_ago.items()}
    position = ", ".join(f"'{name}', {moment}" for name, moment in moments.items())
    connection.execute(
        text(
            "INSERT INTO ops.cursor (source, feed, position, completed_at)"
            f" VALUES ('{SOURCE.name}', '{feed}', jsonb_build_object({position}), now())"
            " ON CONFLICT (source, feed) DO UPDATE SET position = excluded.position"
        )
    )


def test_a_stream_that_is_read_or_was_never_read_has_no_closing_window(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=47.9)
    assert look(warehouse) == NOTHING
    stand(connection, caught_up_began_at=60, resume_at=1)
    assert look(warehouse) == NOTHING
    stand(connection)
    assert look(warehouse) == NOTHING


def test_the_window_of_a_first_load_that_is_not_gone_on_with_closes_as_well(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, resume_at=60)
    look(warehouse)
    assert "has 10 h left, until" in only_finding(connection, "window_closing").summary


def test_a_window_that_closes_is_told_with_the_hours_left_until_the_stream_is_read_on(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=49.1, resume_at=60)
    opened = look(warehouse).opened
    finding = only_finding(connection, "window_closing")
    assert opened == [finding.finding_id]
    assert "The DAG catch_up_ticktock has 21 h left, until" in finding.summary
    assert "only a raw file of its messages brings back" in finding.summary

    stand(connection, caught_up_began_at=70.2)
    assert look(warehouse) == NOTHING
    assert "has 0 h left, until" in only_finding(connection, "window_closing").summary

    stand(connection, caught_up_began_at=0)
    assert look(warehouse) == Watched(opened=[], closed=opened)


def test_the_warning_comes_as_early_as_it_is_set(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=25)
    early = SETTINGS.model_copy(update={"odds88_window_warning_hours": 24.0})
    assert len(watch(warehouse.engine, FEEDS, early).opened) == 1


def test_a_warning_that_was_seen_is_told_once_more_when_the_window_has_closed(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=60)
    look(warehouse)
    decide(warehouse, only_finding(connection, "window_closing").finding_id, "acknowledge")
    assert look(warehouse) == NOTHING

    age(connection, "opened_at", "closed_at", "last_seen_at", table="ops.finding")
    stand(connection, caught_up_began_at=84)
    assert len(look(warehouse).opened) == 1
    lost = only_finding(connection, "window_closing")
    assert "settlements are being lost, more with every hour" in lost.summary
    decide(warehouse, lost.finding_id, "acknowledge")
    assert look(warehouse) == NOTHING


def test_a_window_of_a_feed_that_is_not_ours_is_not_watched(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, feed="another", caught_up_began_at=60)
    assert look(warehouse) == NOTHING


def test_a_stream_that_the_widest_sessions_do_not_read_on_is_told_until_it_is(
    warehouse: Warehouse, connection: Connection
) -> None:
    def cut_short(sessions: int) -> None:
        stand(connection, caught_up_began_at=1)
        connection.execute(
            text(f"UPDATE ops.cursor SET position = position || '{{\"cut_short\": {sessions}}}'")
        )

    cut_short(5)
    assert look(warehouse) == NOTHING
    cut_short(6)
    [opened] = look(warehouse).opened
    told = only_finding(connection, "stream_unfinished")
    assert (told.finding_id, told.subject) == (opened, SOURCE.feed)
    assert "6 sessions in succession ended before its end" in told.summary
    assert "SETTLEMENTS_LAND_TIME_LIMIT_SECONDS" in told.summary
    cut_short(0)
    assert look(warehouse) == Watched(opened=[], closed=[opened])


def test_an_audit_that_is_given_up_is_told_once_until_one_is_read_to_its_end(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=1, audited_at=10, audit_given_up_at=11)
    assert look(warehouse) == NOTHING
    stand(connection, caught_up_began_at=1, audited_at=34, audit_given_up_at=10)
    [opened] = look(warehouse).opened
    told = only_finding(connection, "stream_unfinished")
    assert (told.finding_id, told.subject) == (opened, f"{SOURCE.feed} audit")
    assert "was not read to its end, and is given up until the next is due" in told.summary
    decide(warehouse, opened, "acknowledge")
    stand(connection, caught_up_began_at=0, audited_at=34, audit_given_up_at=1)
    assert look(warehouse) == NOTHING


def test_an_audit_that_never_was_read_to_its_end_is_told_as_well(
    warehouse: Warehouse, connection: Connection
) -> None:
    stand(connection, caught_up_began_at=1, audit_given_up_at=10)
    [opened] = look(warehouse).opened
    assert "None ever was" in only_finding(connection, "stream_unfinished").summary
    stand(connection, caught_up_began_at=1, audit_given_up_at=10, audited_at=0)
    assert look(warehouse) == Watched(opened=[], closed=[opened])


def test_a_batch_that_nothing_moves_is_stuck_until_it_is_published(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = land_body(warehouse.engine, body_of(entry(1)))
    assert look(warehouse) == NOTHING
    age(connection, "opened_at", "landed_at", table="ops.batch")

    opened = look(warehouse).opened
    finding = only_finding(connection, "batch_stuck")
    assert (opened, finding.batch_id) == ([finding.finding_id], batch_id)
    assert "has been landed since" in finding.summary

    push(warehouse.engine)
    assert look(warehouse).closed == opened


@pytest.mark.parametrize(
    ("source", "dag_id"), [("ticktock", "catch_up_ticktock"), ("prediction", "settle_markets")]
)
def test_a_stuck_batch_names_the_dag_that_finishes_it(
    warehouse: Warehouse, connection: Connection, source: str, dag_id: str
) -> None:
    land_body(warehouse.engine, body_of(entry(1)))
    age(connection, "opened_at", "landed_at", table="ops.batch")
    connection.execute(text("UPDATE ops.batch SET source = :source"), {"source": source})
    look(warehouse)
    assert f"of the DAG {dag_id};" in only_finding(connection, "batch_stuck").summary


def test_an_acknowledged_stuck_batch_is_not_told_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1)))
    age(connection, "opened_at", "landed_at", table="ops.batch")
    look(warehouse)
    decide(warehouse, only_finding(connection, "batch_stuck").finding_id, "acknowledge")
    age(connection, "decided_at", table="ops.decision")
    assert look(warehouse) == NOTHING


def test_a_held_batch_is_not_stuck_and_a_decision_gives_it_time(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1), count=2))
    age(connection, "opened_at", "landed_at", table="ops.batch")
    with pytest.raises(BatchHeld):
        check_raw(warehouse.engine, SOURCE.name)
    assert look(warehouse) == NOTHING

    decide(warehouse, only_finding(connection, "batch_held").finding_id, "try_again")
    assert look(warehouse) == NOTHING
    age(connection, "decided_at", table="ops.decision")
    assert len(look(warehouse).opened) == 1


def leave_gap(warehouse: Warehouse, *subjects: str) -> None:
    landing = Landing(warehouse.engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, None)
    cursor = landing.read_cursor()
    landing.commit([], cursor, cursor.position, [Gap("5", "9", "a page hid entries.", subjects)])
    landing.close(has_reached_end=True)


def test_a_gap_is_asked_about_again_once_a_new_attempt_had_its_time(
    warehouse: Warehouse, connection: Connection
) -> None:
    leave_gap(warehouse, "m1")
    first = only_finding(connection, "gap")
    assert look(warehouse) == NOTHING

    decide(warehouse, first.finding_id, "try_again")
    assert look(warehouse) == NOTHING
    connection.execute(text("UPDATE ops.gap SET tried_at = now()"))
    assert look(warehouse) == NOTHING
    age(connection, "tried_at", table="ops.gap")

    [opened] = look(warehouse).opened
    again = only_finding(connection, "gap")
    assert (again.finding_id, again.subject) == (opened, first.subject)
    assert "It was asked for again at" in again.summary
    assert look(warehouse) == NOTHING


def test_an_open_gap_that_nobody_was_asked_about_is_told(
    warehouse: Warehouse, connection: Connection
) -> None:
    connection.execute(
        text(
            "INSERT INTO ops.gap (source, feed, range_before, reason)"
            " VALUES ('ticktock', 'settlements', '9', 'it was noted by hand.')"
        )
    )
    assert look(warehouse).opened == [only_finding(connection, "gap").finding_id]


def test_what_is_told_raises_one_alert(warehouse: Warehouse, connection: Connection) -> None:
    read_to_the_end(warehouse)
    age(connection, "completed_at")
    look(warehouse)
    look(warehouse)
    [alert] = connection.execute(text("SELECT * FROM ops.alert")).all()
    assert alert.sent_at is None
    assert "ticktock settlements has not been read to its end since" in alert.title
