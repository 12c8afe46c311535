"""Versions: what is current, what is a change, what is contested, whatever the order of arrival."""

from __future__ import annotations

import threading
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.warehouse import publishing
from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import resolve
from include.warehouse.publishing import StagedRowsMissing, publish
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
from tests.local.waiting import wait_for


@pytest.fixture
def connection(warehouse: Any) -> Any:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def test_a_correction_is_a_new_version_and_becomes_current(warehouse: Any, connection: Any) -> None:
    land_body(warehouse.engine, body_of(entry(1, outcome="won")))
    push(warehouse.engine)
    land_body(warehouse.engine, body_of(correction(2, "lost")))
    published = push(warehouse.engine)

    assert (published.published, published.corrections) == (1, 1)
    assert [(v.version, v.outcome, v.is_change, v.is_applied) for v in versions(connection)] == [
        (1, "won", False, True),
        (2, "lost", True, True),
    ]
    assert current(connection).outcome == "lost"
    assert violations(connection, SOURCE, ["1", "2"]) == []


def test_a_confirmation_is_a_version_but_no_change(warehouse: Any, connection: Any) -> None:
    land_body(warehouse.engine, body_of(entry(1), correction(2, "won")))
    published = push(warehouse.engine)
    assert published.corrections == 0
    assert [v.is_change for v in versions(connection)] == [False, False]


@pytest.mark.parametrize("arrival", list(permutations((1, 2, 3))))
def test_whatever_the_order_of_arrival_the_last_decision_is_current(
    warehouse: Any, connection: Any, arrival: tuple[int, ...]
) -> None:
    told = {1: entry(1, outcome="won"), 2: correction(2, "lost"), 3: correction(3, "won")}
    for number in arrival:
        land_body(warehouse.engine, body_of(told[number]))
        push(warehouse.engine)

    by_order = sorted(versions(connection), key=lambda v: v.provider_order)
    assert [v.is_change for v in by_order] == [False, True, True]
    assert [v.chain_break for v in by_order] == [None, None, None]
    assert current(connection).provider_order == by_order[-1].provider_order
    highest = 0
    for number, version in zip(arrival, versions(connection), strict=True):
        assert version.is_applied == (number > highest)
        assert version.not_applied_reason == (None if number > highest else "late")
        highest = max(highest, number)
    assert open_findings(connection, "chain_broken") == []
    assert violations(connection, SOURCE, ["1", "2", "3"]) == []


def test_several_versions_in_one_batch_count_as_if_they_had_come_singly(
    warehouse: Any, connection: Any
) -> None:
    land_body(warehouse.engine, body_of(correction(2, "lost"), entry(1, outcome="won")))
    published = push(warehouse.engine)
    assert (published.published, published.not_applied, published.corrections) == (1, 1, 1)
    assert [v.not_applied_reason for v in versions(connection)] == [None, "late"]
    assert violations(connection, SOURCE, ["1", "2"]) == []


def test_equal_order_with_different_content_is_contested(warehouse: Any, connection: Any) -> None:
    land_body(warehouse.engine, body_of(entry(1, outcome="won")))
    push(warehouse.engine)
    land_body(warehouse.engine, body_of(entry(1, outcome="lost")))
    published = push(warehouse.engine)

    assert published.contested == 1
    assert [v.is_contested for v in versions(connection)] == [True, True]
    [finding] = open_findings(connection, "settlement_contested")
    assert {v["outcome"] for v in finding.detail["versions"]} == {"won", "lost"}
    assert violations(connection, SOURCE) == []


def test_many_contested_decisions_are_asked_for_singly_and_alerted_of_together(
    warehouse: Any, connection: Any
) -> None:
    numbers = range(1, 31)
    outcomes = ("won", "lost", "void", "void")
    for outcome in outcomes:
        status = "voided" if outcome == "void" else "settled"
        told = [
            entry(number, market_offer_id=f"o{number}", outcome=outcome, new_status=status)
            for number in numbers
        ]
        land_body(warehouse.engine, body_of(*told))
        push(warehouse.engine)

    findings = open_findings(connection, "settlement_contested")
    assert len(findings) == 30
    assert {len(finding.detail["versions"]) for finding in findings} == {3}
    alerts = connection.execute(
        text("SELECT * FROM ops.alert WHERE body LIKE '%contents%' ORDER BY alert_id")
    ).all()
    singly = [alert for alert in alerts if alert.title.startswith("Finding ")]
    together = [alert for alert in alerts if alert.title.startswith("Findings ")]
    # When they contradict each other, and when a third content comes; not when it is told again.
    assert (len(singly), len(together)) == (40, 2)
    first, last = findings[20].finding_id, findings[-1].finding_id
    assert together[0].title.startswith(f"Findings {first} to {last}: ticktock tells different")
    assert "10 further decisions" in together[1].body
    assert "choose_version" in together[1].body
    assert together[0].severity == "critical"
    assert violations(connection, SOURCE) == []


def test_equal_order_and_content_in_other_words_is_not_contested(
    warehouse: Any, connection: Any
) -> None:
    land_body(warehouse.engine, body_of(entry(1, settled_by="engine")))
    push(warehouse.engine)
    land_body(warehouse.engine, body_of(entry(1, settled_by="system")))
    assert push(warehouse.engine).contested == 0
    assert [v.not_applied_reason for v in versions(connection)] == [None, "same_order"]
    assert open_findings(connection, "settlement_contested") == []
    assert open_findings(connection, "chain_broken") == []
    assert violations(connection, SOURCE) == []


def test_a_decision_follows_from_the_one_before_not_from_itself_told_again(
    warehouse: Any, connection: Any
) -> None:
    told = (correction(2, "lost"), correction(2, "lost", settled_by="admin"), entry(1))
    for one in told:
        land_body(warehouse.engine, body_of(one))
        push(warehouse.engine)
    assert [v.chain_break for v in versions(connection)] == [None, None, None]
    assert open_findings(connection, "chain_broken") == []
    assert violations(connection, SOURCE) == []


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_rejected_version_is_in_no_chain_and_the_finding_follows(
    warehouse: Any, connection: Any, chosen: int
) -> None:
    """Of a second decision's two contents, the third decision follows from one alone."""
    land_body(warehouse.engine, body_of(entry(1)))
    land_body(warehouse.engine, body_of(correction(2, "lost"), correction(2, "void")))
    land_body(warehouse.engine, body_of(correction(3, "won")))
    push(warehouse.engine)
    assert len(open_findings(connection, "chain_broken")) == 1

    [contested] = open_findings(connection, "settlement_contested")
    rivals = [version["record_id"] for version in contested.detail["versions"]]
    resolve(
        warehouse.engine,
        contested.finding_id,
        "choose_version",
        decided_by="anna",
        reason="asked",
        reference=None,
        parameters={"record_id": rivals[chosen]},
        run_id=None,
    )
    third = versions(connection)[-1]
    assert third.chain_break == (None, "status_differs")[chosen]
    assert len(open_findings(connection, "chain_broken")) == chosen
    assert [v.chain_break for v in versions(connection) if v.is_rejected_by_decision] == [None]
    assert violations(connection, SOURCE) == []


def test_a_resettlement_without_its_original_is_published_and_found(
    warehouse: Any, connection: Any
) -> None:
    land_body(warehouse.engine, body_of(correction(2, "lost")))
    push(warehouse.engine)
    assert versions(connection)[0].chain_break == "original_missing"
    [finding] = open_findings(connection, "chain_broken")
    assert finding.detail["count"] == 1

    land_body(warehouse.engine, body_of(entry(1)))
    push(warehouse.engine)
    assert [v.chain_break for v in versions(connection)] == [None, None]
    assert open_findings(connection, "chain_broken") == []


def test_a_broken_chain_of_statuses_is_published_and_found(warehouse: Any, connection: Any) -> None:
    land_body(warehouse.engine, body_of(entry(1), entry(2, previous_status="voided")))
    push(warehouse.engine)
    assert [v.chain_break for v in versions(connection)] == [None, "status_differs"]
    assert len(open_findings(connection, "chain_broken")) == 1


def test_publishing_twice_changes_nothing(warehouse: Any, connection: Any) -> None:
    land_body(warehouse.engine, body_of(entry(1), correction(2, "lost")))
    push(warehouse.engine)
    before = versions(connection)
    assert publish(warehouse.engine, SOURCE.name).batches == 0
    assert push(warehouse.engine).batches == 0
    assert versions(connection) == before


def test_two_publishers_at_once_publish_each_batch_once(warehouse: Any, connection: Any) -> None:
    numbers = range(1, 9)
    for number in numbers:
        land_body(warehouse.engine, body_of(entry(number, market_offer_id=f"ofr_{number}")))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)

    done: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: done.append(publish(warehouse.engine, SOURCE.name).published)
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == len(numbers)
    assert violations(connection, SOURCE, map(str, numbers)) == []


def test_publishing_waits_for_whoever_holds_the_source(warehouse: Any, connection: Any) -> None:
    """A decision recomputes the subjects that a batch would change."""
    land_body(warehouse.engine, body_of(entry(1)))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    publisher = threading.Thread(target=publish, args=(warehouse.engine, SOURCE.name))
    waits = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    try:
        with transaction(warehouse.engine, "resolver") as holder:
            lock_source(holder, SOURCE.name)
            publisher.start()
            wait_for("publish waits for the source", lambda: connection.scalar(waits) == 1)
            assert versions(connection) == []
    finally:
        publisher.join()
    assert len(versions(connection)) == 1


def test_a_batch_whose_staged_rows_went_missing_is_held(warehouse: Any, connection: Any) -> None:
    batch_id = land_body(warehouse.engine, body_of(entry(1), entry(2, market_offer_id="ofr_2")))
    whole = land_body(warehouse.engine, body_of(entry(3, market_offer_id="ofr_3")))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    connection.execute(text("DELETE FROM staging.settlement WHERE source_key = 'm1/ofr_2'"))

    with pytest.raises(StagedRowsMissing, match=f"batch {batch_id}.*1 rows are staged, but 2"):
        publish(warehouse.engine, SOURCE.name)
    states = dict(connection.execute(text("SELECT batch_id, state FROM ops.batch")).all())
    assert states == {batch_id: "held", whole: "published"}
    assert violations(connection, SOURCE) == []


def test_a_batch_that_fails_keeps_no_other_back(warehouse: Any, connection: Any) -> None:
    first = land_body(warehouse.engine, body_of(entry(1, match_id="m1")))
    second = land_body(warehouse.engine, body_of(entry(2, match_id="m2")))
    refuse = "ALTER TABLE core.settlement ADD CONSTRAINT refused CHECK (event_id <> 'm1')"
    connection.execute(text(refuse))
    with pytest.raises(IntegrityError) as raised:
        push(warehouse.engine)
    assert f"This was batch {first} of ticktock" in raised.value.__notes__[0]
    states = "SELECT batch_id, state FROM ops.batch ORDER BY batch_id"
    assert list(connection.execute(text(states))) == [(first, "normalized"), (second, "published")]

    connection.execute(text("ALTER TABLE core.settlement DROP CONSTRAINT refused"))
    assert push(warehouse.engine).published == 1
    assert violations(connection, SOURCE, ["1", "2"]) == []


def test_a_subject_is_looked_up_by_its_key_whatever_the_statistics_say(warehouse: Any) -> None:
    """A small first load, analysed, promises a hit within a few rows of core wherever one looks."""
    with warehouse.owner_engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO core.settlement (source, source_key, version, provider_order, status,"
                " settled_at_basis, is_resettlement, is_applied, is_change, accounting_date,"
                " record_id, batch_id) SELECT 'ticktock', 'm' || number % 10, number / 10 + 1,"
                " number, 'open', 'provider', false, true, false, '2026-11-21', number, 1"
                " FROM generate_series(0, 399) AS number"
            )
        )
        connection.execute(text("ANALYZE core.settlement"))
        publishing._plan_by_key(connection)
        connection.execute(text(publishing._MAKE_SEVERAL))
        for statement in (
            publishing._FIND_SEVERAL,
            publishing._INSERT_FURTHER_VERSIONS,
            publishing._RECOMPUTE,
        ):
            this = {"source": SOURCE.name, "batch_id": 1}
            plan = connection.scalars(text(f"EXPLAIN {statement}"), this).all()
            assert not [line for line in plan if "Seq Scan on settlement" in line], plan
