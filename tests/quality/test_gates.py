"""The gates: what passes, what is held back, what holds a batch, and that each result is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from include.local.postgres import Postgres
from include.quality.expectations import GroupResult, validate_rows
from include.quality.gates import (
    BatchHeld,
    GateReport,
    check_raw,
    check_settlements,
    settlements,
)
from include.quality.rules import GROUPS
from include.settings import Settings
from include.warehouse.decisions import resolve
from include.warehouse.publishing import publish
from tests.checker import violations
from tests.feeding import (
    SETTINGS,
    SOURCE,
    body_of,
    entry,
    land_body,
    open_findings,
    push,
)
from tests.killing import Moment, Point, Task, When, run_and_kill
from tests.staging import stage
from tests.warehouses import Warehouse, fresh_warehouse

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def batch_of(connection: Connection, batch_id: int) -> Any:
    return connection.execute(
        text("SELECT * FROM ops.batch WHERE batch_id = :id"), {"id": batch_id}
    ).one()


def quarantined(connection: Connection, batch_id: int) -> list[tuple[int, str, str, str]]:
    rows = connection.execute(
        text(
            "SELECT record_id, stage, rule, state FROM ops.quarantine WHERE batch_id = :id"
            " ORDER BY record_id"
        ),
        {"id": batch_id},
    )
    return [tuple(row) for row in rows]


def results(connection: Connection, batch_id: int) -> dict[str, Any]:
    rows = connection.execute(
        text("SELECT * FROM ops.quality_result WHERE batch_id = :id ORDER BY quality_result_id"),
        {"id": batch_id},
    )
    return {row.expectation: row for row in rows}


def staged(connection: Connection, batch_id: int) -> list[int]:
    return list(
        connection.scalars(
            text("SELECT record_id FROM staging.settlement WHERE batch_id = :id ORDER BY 1"),
            {"id": batch_id},
        )
    )


def all_checked_once(connection: Connection, *batch_ids: int) -> bool:
    """Whether each is checked, and each rule's result is on record once."""
    kept = sum(len(results(connection, each)) for each in batch_ids)
    rows = connection.scalar(text("SELECT count(*) FROM ops.quality_result"))
    return rows == kept > 0 and all(
        batch_of(connection, each).settlements_checked_at is not None for each in batch_ids
    )


def decide(warehouse: Warehouse, finding_id: int, decision: str) -> None:
    resolve(
        warehouse.engine,
        finding_id,
        decision,
        decided_by="anna",
        reason="as agreed",
        reference=None,
        parameters={},
        run_id=None,
    )


# --- check_raw ----------------------------------------------------------------------------------


def test_what_adds_up_passes_and_every_rule_is_on_record(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = land_body(warehouse.engine, body_of(entry(1), entry(2)))

    assert check_raw(warehouse.engine, "ticktock") == GateReport("check_raw", 1, 2, 0)

    assert batch_of(connection, batch_id).raw_checked_at is not None
    kept = results(connection, batch_id)
    assert set(kept) == {
        "pages_counted",
        "records_stored",
        "cursor_moved_forward",
        "records_keyed",
        "fields_known",
        "contents_agree",
    }
    assert all(row.is_met and row.gate == "check_raw" for row in kept.values())
    assert check_raw(warehouse.engine, "ticktock") == GateReport("check_raw", 0, 0, 0)


def test_a_page_that_the_provider_counts_otherwise_is_held_and_later_batches_go_on(
    warehouse: Warehouse, connection: Connection
) -> None:
    held_id = land_body(warehouse.engine, body_of(entry(1), count=2))
    later_id = land_body(warehouse.engine, body_of(entry(2)))

    with pytest.raises(BatchHeld) as raised:
        check_raw(warehouse.engine, "ticktock")

    [finding] = open_findings(connection, "batch_held")
    for told in (f"Batch {held_id}", f"finding {finding.finding_id}", "1 of 1 pages", "try_again"):
        assert told in str(raised.value)
    held = batch_of(connection, held_id)
    assert (held.state, held.held_from) == ("held", "landed")
    assert not results(connection, held_id)["pages_counted"].is_met
    assert batch_of(connection, later_id).raw_checked_at is not None

    decide(warehouse, finding.finding_id, "release_batch")
    assert push(warehouse.engine).published == 2
    assert violations(connection, SOURCE, ["1", "2"]) == []


def test_an_answer_that_promises_entries_and_holds_none_is_held(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = land_body(warehouse.engine, body_of(count=3))
    with pytest.raises(BatchHeld, match="1 of 1 pages"):
        check_raw(warehouse.engine, "ticktock")
    assert batch_of(connection, batch_id).state == "held"


def test_a_record_that_is_counted_but_not_stored_holds_the_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1), entry(2)))
    connection.execute(text("DELETE FROM raw.record WHERE record_key = '2'"))
    with pytest.raises(BatchHeld, match="2 records were counted as landed and 1 are in raw"):
        check_raw(warehouse.engine, "ticktock")


@pytest.mark.parametrize(
    ("before", "after", "is_held"),
    [
        ("10", "9", True),
        ("9", "10", False),
        ("10", "10", False),
        (None, "10", False),
        ("b7e2", "a000", False),
        ("99999999999999999999", "100000000000000000000", False),
    ],
)
def test_a_cursor_may_not_go_back_where_its_order_is_known(
    warehouse: Warehouse, connection: Connection, before: str | None, after: str, is_held: bool
) -> None:
    batch_id = land_body(warehouse.engine, body_of(entry(1)))
    connection.execute(
        text("UPDATE ops.batch SET cursor_before = :before, cursor_after = :after"),
        {"before": before, "after": after},
    )
    if is_held:
        with pytest.raises(BatchHeld, match="The cursor went back from 10 to 9"):
            check_raw(warehouse.engine, "ticktock")
    else:
        check_raw(warehouse.engine, "ticktock")
    assert (batch_of(connection, batch_id).state == "held") is is_held


def test_a_record_without_an_id_is_held_back_and_its_neighbours_go_on(
    warehouse: Warehouse, connection: Connection
) -> None:
    nameless = entry(2)
    del nameless["id"]
    batch_id = land_body(warehouse.engine, body_of(entry(1), nameless))

    report = check_raw(warehouse.engine, "ticktock")
    assert report.quarantined == 1
    [(_, stage_name, rule, _)] = quarantined(connection, batch_id)
    assert (stage_name, rule) == ("raw", "record_without_key")

    assert push(warehouse.engine).published == 1
    [finding] = open_findings(connection, "records_quarantined")
    assert finding.detail["rule"] == "record_without_key"
    assert violations(connection, SOURCE) == []


def test_a_replayed_record_without_an_id_is_judged_by_normalize(
    warehouse: Warehouse, connection: Connection
) -> None:
    nameless = {name: value for name, value in entry(2).items() if name != "id"}
    land_body(warehouse.engine, body_of(entry(1), nameless))
    push(warehouse.engine)
    [finding] = open_findings(connection, "records_quarantined")
    decide(warehouse, finding.finding_id, "replay")
    push(warehouse.engine)

    [again] = open_findings(connection, "records_quarantined")
    assert again.detail["rule"] == "missing_field"
    assert violations(connection, SOURCE) == []


def test_a_new_field_is_told_once_for_ever(warehouse: Warehouse, connection: Connection) -> None:
    for number in (1, 2):
        batch_id = land_body(warehouse.engine, body_of(entry(number, odds_boost="yes")))
        check_raw(warehouse.engine, "ticktock")
        if number == 1:
            [finding] = open_findings(connection, "unknown_field")
            decide(warehouse, finding.finding_id, "acknowledge")
    assert "odds_boost" in finding.subject
    assert open_findings(connection, "unknown_field") == []
    assert results(connection, batch_id)["fields_known"].unexpected == 1


def test_other_contents_of_known_ids_are_told_but_not_without_end(
    warehouse: Warehouse, connection: Connection
) -> None:
    numbers = range(1, 31)
    land_body(warehouse.engine, body_of(*(entry(number) for number in numbers)))
    land_body(warehouse.engine, body_of(*(entry(number, outcome="lost") for number in numbers)))
    check_raw(warehouse.engine, "ticktock")

    findings = open_findings(connection, "record_conflict")
    assert len(findings) == 21
    assert "10 further ids" in findings[-1].summary
    told = [key for finding in findings for key in finding.detail["record_keys"]]
    assert sorted(told, key=int) == [str(number) for number in numbers]


# --- check_settlements --------------------------------------------------------------------------


def test_failing_rows_go_to_quarantine_with_their_legs_and_the_others_pass(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = stage(
        connection,
        [{}, {"currency": "EUR", "stake": "NaN"}, {"outcome": None}],
    )
    connection.execute(
        text(
            "INSERT INTO staging.settlement_leg (batch_id, record_id, leg_number)"
            " SELECT batch_id, record_id, 1 FROM staging.settlement"
        )
    )

    report = check_settlements(warehouse.engine, "ticktock", SETTINGS)

    assert report == GateReport("check_settlements", 1, 3, 2)
    assert staged(connection, batch_id) == [1]
    assert connection.scalars(text("SELECT record_id FROM staging.settlement_leg")).all() == [1]
    assert quarantined(connection, batch_id) == [
        (2, "settlement", "money_finite", "open"),
        (3, "settlement", "outcome_told_when_decided", "open"),
    ]
    batch = batch_of(connection, batch_id)
    assert batch.settlements_checked_at is not None
    assert batch.quarantined == 2
    assert {finding.detail["rule"] for finding in open_findings(connection)} == {
        "money_finite",
        "outcome_told_when_decided",
    }
    kept = results(connection, batch_id)
    assert set(kept) == {
        *(group.name for group in GROUPS),
        "rows_add_up",
        "checks_agree",
        "few_quarantined",
    }
    assert {name for name, row in kept.items() if not row.is_met} == {"money", "outcome"}
    assert (kept["money"].evaluated, kept["money"].unexpected) == (3, 1)
    assert kept["money"].result["result"]["observed_value"] == 1
    assert publish(warehouse.engine, "ticktock").published == 1


WIN = {
    "currency": "EUR",
    "stake": "10.00",
    "payout": "18.50",
    "payout_multiplier": "1.85",
    "outcome": "won",
}


def test_wins_that_pay_something_else_are_told_and_hold_nothing(
    warehouse: Warehouse, connection: Connection
) -> None:
    unusable = WIN | {"payout": "1", "stake": "-1"}
    batch_id = stage(connection, [WIN, WIN | {"payout": "17"}, unusable])

    assert check_settlements(warehouse.engine, "ticktock", SETTINGS).quarantined == 1

    compared = results(connection, batch_id)["payouts_follow"]
    assert (compared.severity, compared.is_met) == ("warning", False)
    assert (compared.evaluated, compared.unexpected) == (2, 1)
    [finding] = open_findings(connection, "payout_differs")
    assert finding.severity == "warning"
    assert finding.summary.startswith(f"1 of 2 plain wins in batch {batch_id} of ticktock pay")
    assert finding.detail == {
        "count": 1,
        "examples": [
            {
                "record_id": 2,
                "source_key": "m1/o2",
                "currency": "EUR",
                "stake": "10.00",
                "payout_multiplier": "1.85",
                "payout": "17",
            }
        ],
    }
    assert publish(warehouse.engine, "ticktock").published == 2
    decide(warehouse, finding.finding_id, "acknowledge")
    assert open_findings(connection, "payout_differs") == []


@pytest.mark.parametrize(("in_cents", "is_held"), [(2, False), (3, True)])
def test_most_wins_in_the_wrong_unit_hold_the_batch_unless_it_is_released(
    warehouse: Warehouse, connection: Connection, in_cents: int, is_held: bool
) -> None:
    batch_id = stage(connection, [WIN | {"payout": "1850"}] * in_cents + [WIN] * 2)
    if is_held:
        with pytest.raises(BatchHeld, match="payout_unit_fits: 3 of 5 plain wins pay stake times"):
            check_settlements(warehouse.engine, "ticktock", SETTINGS)
        [finding] = open_findings(connection)
        assert len(finding.detail["payouts"]) == 3
        decide(warehouse, finding.finding_id, "release_batch")
    check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert results(connection, batch_id)["payout_unit_fits"].is_met is not is_held
    assert [finding.kind for finding in open_findings(connection)] == ["payout_differs"]
    assert publish(warehouse.engine, "ticktock").published == in_cents + 2


def test_wins_that_pay_what_they_should_after_a_fix_close_what_was_told(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = stage(connection, [WIN | {"payout": "17"}])
    check_settlements(warehouse.engine, "ticktock", SETTINGS)
    connection.execute(text("UPDATE staging.settlement SET payout = 18.5"))
    connection.execute(
        text("UPDATE ops.batch SET settlements_checked_at = NULL WHERE batch_id = :id"),
        {"id": batch_id},
    )
    check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert open_findings(connection, "payout_differs") == []


def test_too_many_failing_rows_hold_the_batch_and_stay_where_they_are(
    warehouse: Warehouse, connection: Connection
) -> None:
    rows: list[dict[str, Any]] = [{"outcome": None} for _ in range(11)] + [{}] * 100
    held_id = stage(connection, rows)
    later_id = stage(connection, [{"source_key": "later"}])

    with pytest.raises(BatchHeld, match=r"11 of 111 records would be quarantined"):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)

    assert batch_of(connection, held_id).state == "held"
    assert len(staged(connection, held_id)) == 111
    assert quarantined(connection, held_id) == []
    assert batch_of(connection, later_id).settlements_checked_at is not None
    [finding] = open_findings(connection)
    [rule] = finding.detail["rules"]
    assert (rule["rule"], rule["count"], len(rule["examples"])) == (
        "outcome_told_when_decided",
        11,
        10,
    )
    assert rule["examples"][0] == {
        "record_id": 1,
        "reason": "What is settled or void has an outcome. Found: status = settled, outcome = NULL",
    }

    decide(warehouse, finding.finding_id, "release_batch")
    report = check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert report.quarantined == 11
    assert len(staged(connection, held_id)) == 100
    assert len(quarantined(connection, held_id)) == 11
    assert not results(connection, held_id)["few_quarantined"].is_met


@pytest.mark.parametrize(
    ("failing", "good", "is_held"),
    [(10, 0, False), (11, 0, True), (11, 1100, False), (12, 1100, True)],
)
def test_both_the_share_and_the_number_must_be_exceeded(
    warehouse: Warehouse, connection: Connection, failing: int, good: int, is_held: bool
) -> None:
    batch_id = stage(connection, [{"outcome": None}] * failing + [{}] * good)
    if is_held:
        with pytest.raises(BatchHeld):
            check_settlements(warehouse.engine, "ticktock", SETTINGS)
    else:
        check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert (batch_of(connection, batch_id).state == "held") is is_held


def test_records_that_normalize_rejected_count_as_well(
    warehouse: Warehouse, connection: Connection
) -> None:
    rejected = [entry(number, new_status="maybe") for number in range(1, 9)]
    future = [entry(number, created_at="2126-01-01T00:00:00+00:00") for number in range(9, 13)]
    land_body(warehouse.engine, body_of(*rejected, *future))
    with pytest.raises(BatchHeld, match="12 of 12 records would be quarantined"):
        push(warehouse.engine)


def test_a_word_that_only_we_can_get_wrong_holds_the_batch_alone(
    warehouse: Warehouse, connection: Connection
) -> None:
    stage(connection, [{}] * 50 + [{"status": "finished"}])
    with pytest.raises(BatchHeld, match="words: 1 rows fail a rule that only a mistake"):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)


def test_rows_that_went_missing_hold_the_batch_even_if_it_was_released(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = stage(connection, [{}, {}], is_released=True)
    connection.execute(text("DELETE FROM staging.settlement WHERE record_id = 2"))
    with pytest.raises(BatchHeld, match="2 records landed, but 1 rows are staged"):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert batch_of(connection, batch_id).state == "held"


def test_two_checks_that_count_differently_hold_the_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    stage(connection, [{"outcome": None}, {}])
    # Great Expectations connects under no name of ours: let it see one row less.
    connection.execute(text("ALTER TABLE staging.settlement ENABLE ROW LEVEL SECURITY"))
    connection.execute(
        text(
            "CREATE POLICY hidden ON staging.settlement TO loader USING"
            " (record_id > 1 OR current_setting('application_name') = 'settlement-pipelines')"
        )
    )
    with pytest.raises(BatchHeld, match=r"checks_agree: .*'outcome': \(0, 1\)"):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)


def test_small_batches_are_checked_together_and_what_is_wrong_with_one_is_its_alone(
    warehouse: Warehouse, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def validate(engine: Engine, *batch_ids: int) -> dict[str, GroupResult]:
        asked.append(batch_ids)
        return validate_rows(engine, *batch_ids)

    monkeypatch.setattr(settlements, "validate_rows", validate)
    monkeypatch.setattr(settlements, "_SMALL_BATCH_ROWS", 2)
    sound = [stage(connection, [{}, {}]) for _ in range(3)]
    incomplete = stage(connection, [{}, {}])
    connection.execute(
        text("DELETE FROM staging.settlement WHERE batch_id = :id AND record_id = 2"),
        {"id": incomplete},
    )
    failing = stage(connection, [{"outcome": None}, {}])
    large = stage(connection, [{}, {}, {}])
    with pytest.raises(BatchHeld, match=f"holds 1 batches of ticktock. Batch {incomplete} "):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert asked == [(*sound, incomplete), (incomplete,), (failing,), (large,)]
    names = set(results(connection, large))
    for batch_id in sound:
        assert batch_of(connection, batch_id).settlements_checked_at is not None
        kept = results(connection, batch_id)
        assert set(kept) == names
        # What is kept of Great Expectations is about all of them.
        assert kept["money"].result["checked_together"] == [*sound, incomplete]
        assert {(row.is_met, row.evaluated) for row in kept.values()} >= {(True, 2)}
        assert all(row.is_met for row in kept.values())
    assert batch_of(connection, incomplete).state == "held"
    assert results(connection, large)["money"].result["checked_together"] == [large]
    assert [row[0] for row in quarantined(connection, failing)] == [1]
    assert staged(connection, failing) == [2]
    left_open = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename = 'pipelines' AND application_name <> 'settlement-pipelines'"
    )
    assert connection.execute(text(left_open)).all() == []


def test_batches_that_great_expectations_finds_fault_with_together_are_checked_one_by_one(
    warehouse: Warehouse, connection: Connection
) -> None:
    faulty = stage(connection, [{}, {"outcome": None}])
    connection.execute(text("UPDATE ops.batch SET received = 1, landed = 1"))
    sound = stage(connection, [{}, {}])
    # It alone sees the row that fails.
    connection.execute(text("ALTER TABLE staging.settlement ENABLE ROW LEVEL SECURITY"))
    connection.execute(
        text(
            "CREATE POLICY hidden ON staging.settlement TO loader USING (outcome IS NOT NULL"
            " OR current_setting('application_name') <> 'settlement-pipelines')"
        )
    )
    with pytest.raises(BatchHeld, match=rf"Batch {faulty} .*checks_agree: .*'outcome': \(1, 0\)"):
        check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert batch_of(connection, sound).settlements_checked_at is not None


def test_what_cannot_be_checked_together_is_checked_one_by_one(
    warehouse: Warehouse, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(engine: Engine, *batch_ids: int) -> dict[str, GroupResult]:
        if len(batch_ids) > 1:
            raise RuntimeError("Great Expectations could not evaluate the group.")
        return validate_rows(engine, *batch_ids)

    monkeypatch.setattr(settlements, "validate_rows", validate)
    for _ in range(2):
        stage(connection, [{}])
    report = check_settlements(warehouse.engine, "ticktock", SETTINGS)
    assert report == GateReport("check_settlements", 2, 2, 0)


def test_two_gates_at_once_check_every_batch_once(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_ids = [stage(connection, [{}]) for _ in range(3)]
    reports: list[GateReport] = []
    threads = [
        threading.Thread(
            target=lambda: reports.append(check_settlements(warehouse.engine, "ticktock", SETTINGS))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Together, by whichever came first: the other finds nothing left to do.
    assert sorted(report.passed for report in reports) == [0, 3]
    assert all_checked_once(connection, *batch_ids)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_gate_that_is_killed_amid_small_batches_has_checked_all_of_them_or_none(
    warehouse: Warehouse, connection: Connection, when: When
) -> None:
    batch_ids = [stage(connection, [{}]) for _ in range(3)]
    gate = Task("gate", lambda engine: check_settlements(engine, "ticktock", SETTINGS))
    # What waits is asked first.
    moment = Moment(when, Point("gate", 2))
    killed = run_and_kill(warehouse.pipelines_url, [gate], moment)
    assert killed == ("killed", "gate 2 (settlements._pass_together)")
    checked = [batch_of(connection, each).settlements_checked_at for each in batch_ids]
    assert [each is not None for each in checked] == [when == "after"] * 3
    passed = 0 if when == "after" else 3
    assert check_settlements(warehouse.engine, "ticktock", SETTINGS).passed == passed
    assert all_checked_once(connection, *batch_ids)


def test_an_empty_batch_passes_without_great_expectations(
    warehouse: Warehouse, connection: Connection
) -> None:
    batch_id = stage(connection, [{}])
    connection.execute(text("DELETE FROM staging.settlement"))
    connection.execute(text("UPDATE ops.batch SET received = 0, landed = 0, normalized = 0"))
    script = (
        "import json, sys\n"
        "from include.quality.gates import check_settlements\n"
        "from include.settings import Settings\n"
        "from include.warehouse.database import open_engine\n"
        "report = check_settlements(open_engine(sys.stdin.read()), 'ticktock', Settings())\n"
        "heavy = sorted({'great_expectations', 'pandas'} & set(sys.modules))\n"
        "print(json.dumps([report.passed, heavy]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=warehouse.pipelines_url,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == [1, []]
    assert batch_of(connection, batch_id).settlements_checked_at is not None


def test_no_secret_is_in_what_is_kept(warehouse: Warehouse, connection: Connection) -> None:
    batch_id = stage(connection, [{"outcome": None}])
    check_settlements(warehouse.engine, "ticktock", SETTINGS)
    password = warehouse.engine.url.password
    assert password
    kept = [json.dumps(row.result) for row in results(connection, batch_id).values()]
    assert not any(password in text for text in kept)


amounts = st.none() | st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "-1", "7.5", "1e20"])
rows = st.fixed_dictionaries(
    {},
    optional={
        "source_key": st.sampled_from(["", " ", "m1/o1"]),
        "provider_order": st.sampled_from(["", "0001"]),
        "status": st.sampled_from(["open", "settled", "void", "rejected", "unheard"]),
        "outcome": st.none() | st.sampled_from(["won", "void", "refunded", "unheard"]),
        "player_id": st.none() | st.sampled_from(["", "p1", "%(x)s", "{batch}", "a:b", "'"]),
        "currency": st.none() | st.sampled_from(["", "EUR"]),
        "stake": amounts,
        "payout": amounts,
        "refund": amounts,
        "enhancement": amounts,
        "payout_multiplier": amounts,
        "settled_at": st.none() | st.sampled_from(["infinity", "2026-11-20", "1999-01-01"]),
        "is_resettlement": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def shared(migrated_postgres: Postgres) -> Iterator[Warehouse]:
    with fresh_warehouse(migrated_postgres) as warehouse:
        yield warehouse


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, min_size=1, max_size=40))
def test_both_renderings_count_the_same_rows(shared: Warehouse, changes: list[Any]) -> None:
    lenient = Settings(quarantine_rows_limit=10_000)
    with shared.owner_engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        batch_id = stage(connection, changes, is_released=True)
        report = check_settlements(shared.engine, "ticktock", lenient)

        kept = results(connection, batch_id)
        assert kept["checks_agree"].is_met
        for group in GROUPS:
            row = kept[group.name]
            assert row.unexpected == row.result["result"]["observed_value"]
        assert report.evaluated == len(changes)
        assert len(staged(connection, batch_id)) + report.quarantined == len(changes)
        assert len(quarantined(connection, batch_id)) == report.quarantined
