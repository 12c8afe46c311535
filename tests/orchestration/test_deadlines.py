"""The deadline of the resend: what it counts from, and whom it wakes for what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from include.orchestration.alerting import page_of
from include.orchestration.deadlines import RESEND_DEADLINE, RunAfter, alert_late_resend
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.orchestration.receivers import Webhook, running_webhook
from tests.payouts.entering import enter, payout
from tests.warehouses import Warehouse

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
RUN_AFTER = datetime(2026, 11, 21, 1, 0, tzinfo=UTC)
NEEDED_BY = datetime(2026, 11, 21, 1, 30, tzinfo=UTC)


@pytest.fixture
def webhook(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    give_warehouse(monkeypatch, warehouse)
    with running_webhook() as running:
        give_connection(monkeypatch, "alerts", conn_type="http", extra={"base_url": running.url})
        yield running
    from include.orchestration.connections import open_warehouse

    open_warehouse().dispose()


def miss(context: dict[str, Any]) -> None:
    """A deadline passes, as Airflow's triggerer carries out what is then to be done."""
    asyncio.run(alert_late_resend(context))


def late_run(**changes: Any) -> dict[str, Any]:
    """What Airflow hands to the callback of a deadline, as far as it matters here."""
    run = {
        "dag_id": "resend_settlements",
        "dag_run_id": "scheduled__2026-11-21T01:00:00+00:00",
        "run_type": "scheduled",
        "state": "running",
        "conf": {},
        "partition_key": str(YESTERDAY),
        "run_after": "2026-11-21T01:00:00Z",
        **changes,
    }
    return {"dag_run": run, "deadline": {"id": "1", "deadline_time": NEEDED_BY}}


def test_payouts_that_are_unsent_at_the_deadline_are_told_with_what_to_click(
    warehouse: Warehouse, webhook: Webhook
) -> None:
    enter(warehouse, payout("a", business_date=YESTERDAY), payout("b", business_date=YESTERDAY))
    miss(late_run())
    miss(late_run(dag_run_id="manual__again"))
    [message] = webhook.messages
    assert message["key"] == f"late/resend_settlements/{YESTERDAY}"
    assert message["severity"] == "critical"
    assert message["title"] == "resend_settlements: 2 payouts are still unsent after 01:30 UTC"
    assert f"the run for {YESTERDAY} is running" in message["body"]
    assert "What was kept: all of them are in the outbox" in message["body"]
    assert (
        "What to click: http://airflow.test:8080/dags/resend_settlements/runs/"
        "scheduled__2026-11-21T01%3A00%3A00%2B00%3A00 –" in message["body"]
    )
    assert message["url"] == page_of(message["key"])
    assert message["url"] == "http://airflow.test:8080/dags/resend_settlements"


@pytest.mark.parametrize("held_or_today", [{"is_win": False}, {"business_date": None}])
def test_a_run_that_left_nothing_to_send_wakes_nobody(
    warehouse: Warehouse, webhook: Webhook, held_or_today: dict[str, Any]
) -> None:
    changes = {"business_date": YESTERDAY} | held_or_today
    changes["business_date"] = changes["business_date"] or YESTERDAY + timedelta(days=1)
    enter(warehouse, payout("a", **changes))
    miss(late_run(conf=None))
    assert webhook.messages == []


def test_a_backfill_of_days_long_due_wakes_nobody(warehouse: Warehouse, webhook: Webhook) -> None:
    enter(warehouse, payout("a", business_date=YESTERDAY))
    miss(late_run(run_type="backfill"))
    assert webhook.messages == []


def test_the_day_is_that_of_the_run(warehouse: Warehouse, webhook: Webhook) -> None:
    enter(warehouse, payout("a", business_date=YESTERDAY))
    earlier = str(YESTERDAY - timedelta(days=1))
    miss(late_run(conf={"business_date": earlier}))
    miss(late_run(partition_key=earlier))
    assert webhook.messages == []
    run_after = datetime.now(UTC).isoformat()
    miss(late_run(conf={}, partition_key=None, run_after=run_after))
    assert len(webhook.messages) == 1


@pytest.mark.usefixtures("airflow_database")
def test_it_counts_from_when_the_run_may_start_as_airflow_stores_it() -> None:
    """Not one test of the class alone: stored, read back and evaluated by Airflow's own code."""
    from airflow.models import DagRun
    from airflow.models.deadline_alert import DeadlineAlert
    from airflow.serialization.decoders import decode_deadline_alert
    from airflow.serialization.enums import DagAttributeTypes, Encoding
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import select

    with create_session() as session:
        [stored] = session.scalars(select(DeadlineAlert)).all()
        read = decode_deadline_alert(
            {
                Encoding.TYPE: DagAttributeTypes.DEADLINE_ALERT,
                Encoding.VAR: {
                    "reference": stored.reference,
                    "interval": stored.interval,
                    "callback": stored.callback_def,
                },
            }
        )
        run = DagRun(
            dag_id="resend_settlements",
            run_id="a_run",
            run_after=RUN_AFTER,
            run_type=DagRunType.MANUAL,
            logical_date=None,
        )
        session.add(run)
        session.flush()
        needed_by = read.reference.evaluate_with(
            session=session, interval=read.interval, dag_id=run.dag_id, run_id=run.run_id
        )
        session.delete(run)
    assert needed_by == NEEDED_BY
    assert read.callback.path == "include.orchestration.deadlines.alert_late_resend"
    assert isinstance(RESEND_DEADLINE.reference, RunAfter)


def test_the_alert_waits_in_the_outbox_if_it_cannot_go(
    warehouse: Warehouse, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(warehouse, payout("a", business_date=YESTERDAY))
    give_connection(
        monkeypatch, "alerts", conn_type="http", extra={"base_url": "http://127.0.0.1:1"}
    )
    miss(late_run())
    with warehouse.owner_engine.connect() as connection:
        key, sent_at = connection.execute(text("SELECT alert_key, sent_at FROM ops.alert")).one()
    assert (key, sent_at) == (f"late/resend_settlements/{YESTERDAY}", None)
