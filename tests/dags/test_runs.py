"""DAGs run end to end by Airflow's own task runner, against a real provider and warehouse."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from include.payouts import due
from include.payouts.outcome import OutboxUnsound
from include.sandbox.addresses import TICKTOCK_KEY, TOTE_KEY, WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.alerts import raise_alert
from include.warehouse.database import transaction
from include.warehouse.findings import Finding, open_finding
from tests.airflow_home import PROJECT
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.payouts.entering import as_line, enter, payout, write_ndjson
from tests.warehouses import Warehouse

pytestmark = pytest.mark.usefixtures("airflow_database", "connections")

ENTRIES = 500
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
ALL_GREEN = dict.fromkeys(("prepare", "check_outbox", "send", "check_outcome"), "success")


@pytest.fixture
def dags() -> dict[str, Any]:
    """Read anew for each test: what a form was filled in with stays on the DAG that ran."""
    from airflow.dag_processing.dagbag import DagBag

    found: dict[str, Any] = DagBag(str(PROJECT / "dags")).dags
    # What runs a DAG in a test makes no deadlines, and fails on a DAG that has one.
    found["resend_settlements"].deadline = None
    return found


@pytest.fixture
def connections(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    give_warehouse(monkeypatch, warehouse)
    give_connection(
        monkeypatch,
        "ticktock",
        conn_type="http",
        password=TICKTOCK_KEY,
        extra={"base_url": sandbox.ticktock_url},
    )
    give_connection(
        monkeypatch,
        "wallet",
        conn_type="http",
        password=WALLET_KEY,
        extra={"base_url": sandbox.wallet_url, "signing_secret": WALLET_SECRET},
    )
    give_connection(monkeypatch, "alerts", conn_type="http", extra={"base_url": sandbox.alerts_url})
    yield
    from include.orchestration.connections import open_warehouse

    open_warehouse().dispose()


def states(run: Any) -> dict[str, str]:
    return {instance.task_id: str(instance.state) for instance in run.get_task_instances()}


def value(warehouse: Warehouse, statement: str) -> Any:
    with warehouse.owner_engine.connect() as connection:
        return connection.scalar(text(statement))


def test_catch_up_publishes_what_the_provider_decided(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure("ticktock", visible_entries=ENTRIES)
    run = dags["catch_up_ticktock"].test()
    assert states(run) == dict.fromkeys(
        ("land", "check_raw", "normalize", "check_settlements", "publish"), "success"
    )
    ledger = sandbox.ledger("ticktock")
    assert value(warehouse, "SELECT count(*) FROM core.settlement") == ledger["entries"]
    assert value(warehouse, "SELECT count(*) FROM core.settlement_current") == ledger["subjects"]
    assert value(warehouse, "SELECT run_id FROM ops.batch") == run.run_id
    event = _last_asset_event()
    assert event["source"] == "ticktock"
    assert event["published"] == ledger["entries"]
    assert event["corrections"] == ledger["corrections"]

    again = dags["catch_up_ticktock"].test()
    assert set(states(again).values()) == {"success"}
    assert value(warehouse, "SELECT count(*) FROM core.settlement") == ledger["entries"]
    assert value(warehouse, "SELECT count(*) FROM ops.batch") == 2


def test_a_refused_key_fails_at_once_and_tells_people(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.fault("ticktock", "status", times=None, status=403)
    run = dags["catch_up_ticktock"].test()
    assert states(run)["land"] == "failed"
    assert states(run)["publish"] == "upstream_failed"
    [told] = [alert["body"] for alert in sandbox.alerts()["alerts"]]
    assert told["key"].startswith("task/catch_up_ticktock/land/-1/Fatal-403/")
    assert "Check that the Airflow connection `ticktock` holds the right key" in told["body"]
    assert told["url"].endswith("/dags/catch_up_ticktock/tasks/land")
    assert f"/runs/{quote(run.run_id)}/tasks/land" in told["body"]
    assert TICKTOCK_KEY not in json.dumps(told)
    assert value(warehouse, "SELECT count(*) FROM ops.alert WHERE sent_at IS NOT NULL") == 1


def listen_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As short as runs by hand may: a run of the schedule would take four minutes."""
    from include.orchestration.tasks import catch_up

    short = catch_up.SETTINGS.model_copy(update={"tote_listen_by_hand_seconds": 0.5})
    monkeypatch.setattr(catch_up, "SETTINGS", short)


def test_a_key_that_both_wires_of_a_source_refuse_is_told_once_until_it_has_been_right(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refuses it by a status, the other by `errors` in an answer."""
    began = time.monotonic()
    listen_shortly(monkeypatch)
    sandbox.configure("tote", bets=0, refusals="errors")

    def run(key: str) -> set[tuple[str, str]]:
        extra = {"base_url": sandbox.tote_url}
        give_connection(monkeypatch, "tote", conn_type="http", password=key, extra=extra)
        return set(states(dags["catch_up_tote"].test()).items())

    assert {("land", "failed"), ("listen", "failed")} < run("another-key")
    assert {state for _, state in run(TOTE_KEY)} == {"success"}
    assert {("land", "failed"), ("listen", "failed")} < run("another-key")
    assert time.monotonic() - began < Settings().tote_listen_seconds
    told = [alert["body"] for alert in sandbox.alerts()["alerts"]]
    assert [alert["key"].split("/")[:4] for alert in told] == [
        ["connection", "catch_up_tote", "tote", "key"]
    ] * 2
    assert value(warehouse, "SELECT sum(times_raised) FROM ops.alert") == 4


def test_a_socket_that_lets_nobody_in_is_told_and_holds_nothing_up(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen_shortly(monkeypatch)
    extra = {"base_url": sandbox.tote_url}
    give_connection(monkeypatch, "tote", conn_type="http", password=TOTE_KEY, extra=extra)
    sandbox.configure("tote", bets=30, history_seconds=6 * 3600, clock_offset_seconds=-3600)
    sandbox.fault("tote", "status", call="hints", status=503, times=None)
    reached = states(dags["catch_up_tote"].test())
    assert reached.pop("listen") == "failed"
    assert set(reached.values()) == {"success"}
    assert value(warehouse, "SELECT count(*) FROM core.settlement_current") == 30
    told = [alert["body"]["key"] for alert in sandbox.alerts()["alerts"]]
    assert [key.split("/")[:3] for key in told] == [["task", "catch_up_tote", "listen"]]


def test_watching_opens_what_is_amiss_and_delivers_what_waits(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    with transaction(warehouse.engine, "loader") as connection:
        raise_alert(connection, key="finding/77", title="t", body="b", severity="warning")
    run = dags["watch_feeds"].test()
    assert states(run) == {"watch": "success", "send_alerts": "success"}
    told = [alert["body"] for alert in sandbox.alerts()["alerts"]]
    assert [alert["key"] for alert in told] == ["finding/77"]
    assert told[0]["url"].endswith("/plugin/findings")


def test_a_decision_is_recorded_under_its_user_and_a_refusal_names_the_finding(
    dags: dict[str, Any], warehouse: Warehouse
) -> None:
    with transaction(warehouse.engine, "loader") as connection:
        finding_id = open_finding(
            connection, Finding("unknown_field", "ticktock", "odd", "A new field.", "All kept.")
        )
    form = {
        "finding_ids": [999_999, finding_id],
        "decision": "acknowledge",
        "reason": "We have asked the provider.",
    }
    run = dags["resolve_findings"].test(run_conf=form)
    assert states(run) == {"resolve": "failed"}
    assert value(warehouse, "SELECT state FROM ops.finding") == "closed"
    assert value(warehouse, "SELECT decided_by FROM ops.decision") == run.triggering_user_name
    assert value(warehouse, "SELECT run_id FROM ops.decision") == run.run_id
    body = value(warehouse, "SELECT body FROM ops.alert WHERE alert_key LIKE 'task/%'")
    assert f"carried out for [{finding_id}]" in body
    assert "There is no finding 999999." in body


def test_a_resend_brings_every_payout_to_its_end(
    dags: dict[str, Any],
    warehouse: Warehouse,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _enter_payouts(warehouse, 30)
    enter(warehouse, payout("tomorrow's", business_date=YESTERDAY + timedelta(days=1)))
    enter(warehouse, payout("held", business_date=YESTERDAY, is_win=False))
    refused = [{"code": "RS_ERROR_USER_DISABLED", "transactions": ["t07"]}]
    sandbox.configure("wallet", codes=refused)
    run = dags["resend_settlements"].test()
    assert states(run) == ALL_GREEN
    assert _outcomes(warehouse) == {
        "processed": 29,
        "lost": 1,
        "held": 1,
        "open": 1,
    }
    credits = dict(sandbox.wallet_credits())
    assert [id for id, times in credits.items() if times != 1] == ["t07"]
    assert value(warehouse, "SELECT DISTINCT run_id FROM wallet.attempt") == run.run_id
    assert value(warehouse, "SELECT DISTINCT run_id FROM wallet.reported_outcome") == run.run_id
    assert value(warehouse, "SELECT kind FROM ops.finding") == "transactions_held"
    event = _last_asset_event()
    assert event["business_date"] == str(YESTERDAY)
    assert event["dry_run"] is False
    assert (event["processed"], event["lost"], event["held"]) == (29, 1, 1)

    requests = sandbox.ledger("wallet")["requests"]
    assert "Nothing is left to send" not in caplog.text
    again = dags["resend_settlements"].test()
    assert states(again) == ALL_GREEN
    assert sandbox.ledger("wallet")["requests"] == requests
    assert f"Nothing is left to send up to {YESTERDAY}" in caplog.text


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    dags: dict[str, Any],
    warehouse: Warehouse,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _enter_payouts(warehouse, 30)
    run = dags["resend_settlements"].test(run_conf={"dry_run": True, "batch_items": 10})
    assert states(run) == ALL_GREEN
    assert sandbox.ledger("wallet")["requests"] == 0
    assert value(warehouse, "SELECT count(*) FROM wallet.attempt") == 0
    assert value(warehouse, "SELECT count(*) FROM wallet.reported_outcome") == 0
    assert "Dry run: this would be sent" in caplog.text
    assert "EUR       30  75000.00000         4" in caplog.text
    assert "there is no outcome to check" in caplog.text
    assert _last_asset_event() == {"business_date": str(YESTERDAY), "dry_run": True}


def test_a_dry_run_that_cannot_say_what_would_be_sent_is_red(
    dags: dict[str, Any],
    warehouse: Warehouse,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(*_: Any) -> None:
        raise OutboxUnsound("broken")

    monkeypatch.setattr(due, "plan", cannot)
    run = dags["resend_settlements"].test(run_conf={"dry_run": True})
    assert states(run)["send"] == states(run)["check_outcome"] == "failed"
    assert str(run.state) == "failed"


def test_a_run_for_an_earlier_day_sends_nothing_of_a_later_one(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    earlier = YESTERDAY - timedelta(days=3)
    enter(warehouse, payout("old", business_date=earlier), payout("new", business_date=YESTERDAY))
    run = dags["resend_settlements"].test(run_conf={"business_date": str(earlier)})
    assert states(run) == ALL_GREEN
    assert dict(sandbox.wallet_credits()) == {"old": 1}


def test_a_day_that_is_not_over_is_refused_before_anything_is_done(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    _enter_payouts(warehouse, 1)
    today = YESTERDAY + timedelta(days=1)
    run = dags["resend_settlements"].test(run_conf={"business_date": str(today)})
    assert states(run)["prepare"] == "failed"
    assert states(run)["send"] == "upstream_failed"
    assert sandbox.ledger("wallet")["requests"] == 0
    body = value(warehouse, "SELECT body FROM ops.alert")
    assert f"Trigger the DAG again with {YESTERDAY}" in body


def test_a_wrong_secret_stops_the_run_and_destroys_nothing(
    dags: dict[str, Any],
    warehouse: Warehouse,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _enter_payouts(warehouse, 30)
    wrong = {"base_url": sandbox.wallet_url, "signing_secret": "a-wrong-secret"}
    with monkeypatch.context() as patch:
        give_connection(patch, "wallet", conn_type="http", password=WALLET_KEY, extra=wrong)
        run = dags["resend_settlements"].test()
    assert states(run)["send"] == "failed"
    assert states(run)["check_outcome"] == "failed"
    assert value(warehouse, "SELECT count(*) FROM wallet.attempt") == 1
    assert _outcomes(warehouse) == {"open": 30}
    assert value(warehouse, "SELECT sum(open_payouts) FROM wallet.reported_outcome") == 30
    [told, unfinished] = [alert["body"] for alert in sandbox.alerts()["alerts"]]
    assert told["title"] == "resend_settlements: send failed"
    assert unfinished["title"] == "resend_settlements: check_outcome failed"
    assert "`signing_secret` of the Airflow connection `wallet`" in told["body"]
    logged = capsys.readouterr().out
    assert "Retry policy decision" in logged
    assert "a-wrong-secret" not in json.dumps(told) + logged

    assert states(dags["resend_settlements"].test()) == ALL_GREEN
    assert _outcomes(warehouse) == {"processed": 30}
    assert set(dict(sandbox.wallet_credits()).values()) == {1}


def test_a_red_gate_sends_nothing(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    _enter_payouts(warehouse, 2)
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("ALTER TABLE wallet.transaction DISABLE TRIGGER USER"))
        connection.execute(
            text(
                'UPDATE wallet.transaction SET item = \'{"transactionId": "t01"}\''
                " WHERE transaction_id = 't01'"
            )
        )
        connection.execute(text("ALTER TABLE wallet.transaction ENABLE TRIGGER USER"))
    run = dags["resend_settlements"].test()
    assert states(run)["check_outbox"] == "failed"
    assert states(run)["send"] == "upstream_failed"
    assert sandbox.ledger("wallet")["requests"] == 0
    assert "do not say what was entered" in value(warehouse, "SELECT body FROM ops.alert")


def test_watching_tells_holds_that_nobody_was_told_of_and_payouts_that_are_late(
    dags: dict[str, Any], warehouse: Warehouse, sandbox: Sandbox
) -> None:
    day = YESTERDAY - timedelta(days=5)
    enter(warehouse, payout("held", business_date=day, is_win=False))
    enter(warehouse, payout("late", business_date=day))
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("ALTER TABLE wallet.transaction DISABLE TRIGGER USER"))
        connection.execute(
            text("UPDATE wallet.transaction SET entered_at = now() - interval '3 days'")
        )
        connection.execute(text("ALTER TABLE wallet.transaction ENABLE TRIGGER USER"))
    assert states(dags["watch_feeds"].test()) == {"watch": "success", "send_alerts": "success"}
    kinds = "SELECT string_agg(kind, ', ' ORDER BY kind) FROM ops.finding WHERE state = 'open'"
    assert value(warehouse, kinds) == "payouts_late, transactions_held"
    assert len(sandbox.alerts()["alerts"]) == 2

    assert states(dags["resend_settlements"].test()) == ALL_GREEN
    assert states(dags["watch_feeds"].test()) == {"watch": "success", "send_alerts": "success"}
    assert value(warehouse, kinds) == "transactions_held"


def test_files_are_imported_from_the_folder_and_a_refused_one_is_named(
    dags: dict[str, Any], warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.tasks import import_files

    settings = import_files.SETTINGS.model_copy(update={"import_folder": tmp_path})
    monkeypatch.setattr(import_files, "SETTINGS", settings)
    write_ndjson(tmp_path / "a.ndjson", [as_line("a")])
    form = {"business_date": str(YESTERDAY)}
    assert states(dags["import_files"].test(run_conf=form)) == {"import_files": "success"}
    assert value(warehouse, "SELECT transaction_id FROM wallet.transaction") == "a"
    assert (tmp_path / "done" / "a.ndjson").exists()

    run = dags["import_files"].test(run_conf={"path": "../a.ndjson"})
    assert states(run) == {"import_files": "failed"}
    assert "../a.ndjson: it is no file" in value(warehouse, "SELECT body FROM ops.alert")


def _enter_payouts(warehouse: Warehouse, count: int) -> None:
    numbered = (payout(f"t{number:02}", business_date=YESTERDAY) for number in range(count))
    enter(warehouse, *numbered)


def _outcomes(warehouse: Warehouse) -> dict[str, int]:
    with warehouse.owner_engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT CASE WHEN hold_reason IS NULL THEN disposition ELSE 'held' END AS state,"
                " count(*) AS payouts FROM wallet.transaction GROUP BY 1"
            )
        )
        return {row.state: row.payouts for row in rows}


def _last_asset_event() -> dict[str, Any]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        last = session.scalars(select(AssetEvent).order_by(AssetEvent.id.desc())).first()
        assert last is not None
        extra: dict[str, Any] = last.extra
        return extra
