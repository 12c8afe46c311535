"""DAGs run end to end by Airflow's own task runner, against a real provider and warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox
from include.warehouse.alerts import raise_alert
from include.warehouse.database import transaction
from include.warehouse.findings import Finding, open_finding
from tests.airflow_home import PROJECT
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.warehouses import Warehouse

pytestmark = pytest.mark.usefixtures("airflow_database", "connections")

ENTRIES = 500


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    found: dict[str, Any] = DagBag(str(PROJECT / "dags")).dags
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


def _last_asset_event() -> dict[str, Any]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        last = session.scalars(select(AssetEvent).order_by(AssetEvent.id.desc())).first()
        assert last is not None
        extra: dict[str, Any] = last.extra
        return extra
