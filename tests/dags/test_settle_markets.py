"""settle_markets run by Airflow's own task runner, against a real engine and warehouse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from include.markets import queue
from include.sandbox.addresses import (
    PREDICTION_KEY,
    PREDICTION_OPERATOR_ID,
    WALLET_KEY,
    WALLET_SECRET,
)
from include.sandbox.client import Sandbox
from tests.airflow_home import PROJECT
from tests.markets.crediting import MAPPED, today
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.payouts.entering import enter, payout, stored
from tests.warehouses import Warehouse

pytestmark = pytest.mark.usefixtures("airflow_database", "connections")

SHARD_STEPS = ("settle", "wait_for_status", "retry_failed", "fetch_payouts")
LAST_STEPS = ("check", "publish", "credit", "send_credits", "report_failures")


@pytest.fixture
def connections(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    give_warehouse(monkeypatch, warehouse)
    give_connection(
        monkeypatch,
        "prediction",
        conn_type="http",
        password=PREDICTION_KEY,
        extra={"base_url": sandbox.prediction_url},
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


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    from include.orchestration.tasks import settle_markets

    ours = {
        "prediction_operator_id": PREDICTION_OPERATOR_ID,
        "prediction_default_currency": "USD",
        **MAPPED,
    }
    monkeypatch.setattr(settle_markets, "SETTINGS", settle_markets.SETTINGS.model_copy(update=ours))
    return DagBag(str(PROJECT / "dags")).dags["settle_markets"]


def rows(warehouse: Warehouse, statement: str) -> list[Any]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text(statement)))


def test_a_market_that_fails_is_retried_and_its_players_are_paid_in_one_run(
    dag: Any, warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure("prediction", markets=1, positions=4, failing_share=1.0)
    enter(warehouse, payout("of the operator", business_date=today()))
    before = stored(warehouse, "of the operator")
    run = dag.test()
    instances = run.get_task_instances()
    assert Counter(str(one.state) for one in instances) == {"success": 11}
    [market_id] = sandbox.prediction_market_ids()
    named = {one.task_id: one.rendered_map_index for one in instances}
    assert [named[step] for step in SHARD_STEPS] == [market_id] * len(SHARD_STEPS)
    [market] = rows(warehouse, "SELECT * FROM finance.market")
    assert (market.state, market.retry_attempts) == ("done", 1)
    assert market.published_payout == market.told_payout > 0
    owed = sandbox.prediction_owed(market_id)
    credited = rows(warehouse, "SELECT transaction_id, state FROM finance.credit")
    assert [row.state for row in credited] == ["paid"] * len(owed) != []
    # Nothing else is sent that was entered today.
    assert dict(sandbox.wallet_credits()) == {row.transaction_id: 1 for row in credited}
    assert stored(warehouse, "of the operator") == before

    # With nothing to settle there is no shard, and the gates look all the same.
    again = {one.task_id: str(one.state) for one in dag.test().get_task_instances()}
    assert again == {
        "take_events": "success",
        "plan": "success",
        **dict.fromkeys(SHARD_STEPS, "skipped"),
        **dict.fromkeys(LAST_STEPS, "success"),
    }


def test_what_is_wrong_keeps_no_market_back_and_the_run_is_red(
    dag: Any, warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure(
        "prediction", markets=2, positions=4, lies={"status.totalPayout": "5"}, odd_markets=[0]
    )
    sandbox.fault("prediction", "malformed_json", call="events")
    market_ids = sandbox.prediction_market_ids()
    word = {"currency": "USD", "confirmed_by": "ann", "reason": "It is over.", "run_id": "test"}
    queue.confirm(warehouse.engine, market_ids, **word)
    run = dag.test()
    ended = {one.task_id: str(one.state) for one in run.get_task_instances()}
    assert ended == {
        "take_events": "failed",
        "plan": "success",
        **dict.fromkeys(SHARD_STEPS, "success"),
        "check": "failed",
        "publish": "success",
        "credit": "success",
        "send_credits": "success",
        "report_failures": "upstream_failed",
    }
    assert run.state == "failed"
    found = rows(warehouse, "SELECT market_id, state FROM prediction.market ORDER BY state")
    assert {row.market_id: row.state for row in found} == dict(
        zip(market_ids, ("held", "done"), strict=True)
    )
    credited = rows(warehouse, "SELECT DISTINCT market_id FROM prediction.credit")
    assert [row.market_id for row in credited] == market_ids[1:]
