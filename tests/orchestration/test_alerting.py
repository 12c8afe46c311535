"""Alerts: once per cause, kept while they cannot go, and never with a secret in them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_string, policy
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from include.orchestration import alerting
from include.orchestration.alerting import (
    AlertsUndelivered,
    alert_failure,
    open_channel,
    page_of,
    send_unsent,
)
from include.orchestration.connections import ConnectionIncomplete
from include.providers.errors import Fatal, Retriable
from include.warehouse.alerts import Alert, raise_alert
from include.warehouse.database import transaction
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.orchestration.receivers import (
    MailServer,
    Webhook,
    running_mail_server,
    running_trickle,
    running_webhook,
)
from tests.warehouses import Warehouse

REFUSED = Fatal("ticktock", "It knows nothing under / (404).", "Check `base_url`.", status=404)
WRONG_KEY = Fatal("tote", "It did not accept the key (401).", "Check the password.", status=401)
DISTRUSTED = Fatal("tote", "It is not to be trusted.", "Check the host.", fault="certificate")
ALERT = Alert("finding/3", "Finding 3:\r\nBcc: nobody", "What happened.", "warning")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with running_webhook() as running:
        give_connection(monkeypatch, "alerts", conn_type="http", extra={"base_url": running.url})
        yield running


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with running_mail_server() as running:
        yield running


@pytest.fixture
def connected(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    give_warehouse(monkeypatch, warehouse)
    yield warehouse
    from include.orchestration.connections import open_warehouse

    open_warehouse().dispose()


@dataclass(frozen=True)
class FailedTask:
    """What Airflow tells a callback: which task and run it is, and when the task and a whole run
    last succeeded.
    """

    last_success: str | None
    run_id: str = "manual__2026-11-21T03:00:00+00:00"
    map_index: int = -1
    dag_id: str = "catch_up_ticktock"
    task_id: str = "land"
    run_after: datetime = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    last_run: str | None = "scheduled__1"
    logical_date: datetime | None = run_after

    def get_previous_ti(self, **criteria: Any) -> Any:
        assert criteria == {
            "state": "success",
            "logical_date": self.run_after,
            "map_index": self.map_index,
        }
        return self.last_success and SimpleNamespace(run_id=self.last_success)

    def get_previous_dagrun(self, state: str) -> Any:
        assert state == "success"
        return self.last_run and SimpleNamespace(run_id=self.last_run)


def failure(
    error: BaseException | str | None, last_success: str | None = "scheduled__1", **changes: Any
) -> Any:
    """What Airflow hands to the callback of a failed task."""
    instance = FailedTask(last_success, **changes)
    return {"ti": instance, "exception": error, "dag_run": instance}


def outbox(warehouse: Warehouse) -> list[Any]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM ops.alert ORDER BY alert_id")))


def test_a_failed_task_is_told_with_what_to_click(connected: Warehouse, webhook: Webhook) -> None:
    alert_failure(failure(REFUSED))
    [message] = webhook.messages
    assert set(message) == {"key", "title", "body", "severity", "url"}
    assert message["key"] == ("task/catch_up_ticktock/land/-1/Fatal-404/2026-11-21/scheduled__1")
    assert message["title"] == "catch_up_ticktock: land failed"
    assert message["severity"] == "critical"
    assert str(REFUSED) in message["body"]
    assert "What was kept:" in message["body"]
    assert message["url"] == "http://airflow.test:8080/dags/catch_up_ticktock/tasks/land"
    assert (
        "http://airflow.test:8080/dags/catch_up_ticktock/runs/"
        "manual__2026-11-21T03%3A00%3A00%2B00%3A00/tasks/land –" in message["body"]
    )


def test_a_failure_that_lasts_is_told_once(connected: Warehouse, webhook: Webhook) -> None:
    alert_failure(failure(REFUSED, run_id="scheduled__2"))
    alert_failure(failure(REFUSED, run_id="scheduled__2"))
    alert_failure(failure(REFUSED, run_id="scheduled__3"))
    assert len(webhook.messages) == 1
    assert [row.times_raised for row in outbox(connected)] == [3]


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (REFUSED, {"last_success": "scheduled__2"}),
        (REFUSED, {"last_success": None}),
        (REFUSED, {"task_id": "publish"}),
        (REFUSED, {"dag_id": "catch_up_tote"}),
        (Fatal("ticktock", "It did not allow it (403).", "Ask.", status=403), {}),
        (KeyError("x"), {}),
        (None, {}),
    ],
    ids=str,
)
def test_another_failure_or_one_after_a_success_is_told(
    error: BaseException | None, changes: Any, connected: Warehouse, webhook: Webhook
) -> None:
    alert_failure(failure(REFUSED))
    alert_failure(failure(error, **changes))
    assert len(webhook.messages) == 2


def test_what_differs_in_its_words_only_is_told_once(
    connected: Warehouse, webhook: Webhook
) -> None:
    for seconds in (30, 31):
        alert_failure(failure(Retriable("ticktock", f"No answer after {seconds} s.", "Wait.")))
    assert len(webhook.messages) == 1


@pytest.mark.parametrize(
    "alike",
    [
        Fatal("tote", "It did not accept the key, though it answered with 200.", "…", fault="key"),
        Fatal("tote", "It does not know the key (401).", "…", status=401),
    ],
)
def test_a_key_that_is_refused_is_told_once_wherever_it_is_met(
    alike: Fatal, connected: Warehouse, webhook: Webhook
) -> None:
    alert_failure(failure(WRONG_KEY, dag_id="catch_up_tote", task_id="land"))
    alert_failure(failure(alike, "scheduled__7", dag_id="catch_up_tote", task_id="listen"))
    alert_failure(failure(alike, None, dag_id="catch_up_tote", task_id="mapped", map_index=3))
    [message] = webhook.messages
    assert message["key"] == "connection/catch_up_tote/tote/key/2026-11-21/scheduled__1"
    assert message["title"] == "catch_up_tote: land failed"
    assert message["url"] == "http://airflow.test:8080/dags/catch_up_tote"
    assert [row.times_raised for row in outbox(connected)] == [3]


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (DISTRUSTED, {}),
        (ConnectionIncomplete("tote", "has no password", "the key"), {}),
        (Fatal("tote", "It refuses access (403).", "…", status=403), {}),
        (WRONG_KEY, {"run_id": "manual__2", "logical_date": None}),
        (WRONG_KEY, {"last_run": "scheduled__2"}),
        (WRONG_KEY, {"run_after": datetime(2026, 11, 22, 0, 0, tzinfo=UTC)}),
        (Fatal("odds88", "It did not accept the key.", "…", fault="key"), {}),
    ],
    ids=str,
)
def test_what_else_is_wrong_with_a_connection_and_what_is_wrong_again_is_told(
    error: Exception, changes: Any, connected: Warehouse, webhook: Webhook
) -> None:
    alert_failure(failure(WRONG_KEY))
    alert_failure(failure(error, **changes))
    assert len(webhook.messages) == 2


def test_a_failure_that_lasts_is_told_again_the_next_day(
    connected: Warehouse, webhook: Webhook
) -> None:
    alert_failure(failure(REFUSED))
    alert_failure(failure(REFUSED, run_after=datetime(2026, 11, 22, 0, 0, tzinfo=UTC)))
    assert len(webhook.messages) == 2


def test_if_airflow_cannot_say_when_it_succeeded_every_run_is_told(
    connected: Warehouse, webhook: Webhook
) -> None:
    for run_id in ("scheduled__2", "scheduled__2", "scheduled__3"):
        alert_failure(failure(REFUSED, run_id=run_id) | {"dag_run": None})
    assert [message["key"].rpartition("/")[2] for message in webhook.messages] == [
        "scheduled__2",
        "scheduled__3",
    ]


def test_another_task_of_a_mapping_is_another_cause(connected: Warehouse, webhook: Webhook) -> None:
    alert_failure(failure(REFUSED, map_index=0))
    alert_failure(failure(REFUSED, map_index=1))
    assert ["/mapped/0 –" in message["body"] for message in webhook.messages] == [True, False]


def test_a_task_whose_process_died_is_told_too(connected: Warehouse, webhook: Webhook) -> None:
    alert_failure(failure(None))
    assert "Its process died or lost contact" in webhook.messages[0]["body"]


def test_of_a_strange_error_only_the_first_line_is_told(
    connected: Warehouse, webhook: Webhook
) -> None:
    cause = Exception("duplicate key\nDETAIL: Key (player_id)=(private-player) already exists.")
    error = IntegrityError("INSERT …", {"player_id": "private-player"}, cause)
    alert_failure(failure(error))
    body = webhook.messages[0]["body"]
    assert "IntegrityError" in body
    assert "private-player" not in body


def test_without_the_warehouse_the_alert_goes_straight(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(
        monkeypatch,
        "warehouse",
        conn_type="postgres",
        host="127.0.0.1",
        port=1,
        schema="warehouse",
        login="pipelines",
        password="warehouse-secret",
    )
    alert_failure(failure(REFUSED))
    assert len(webhook.messages) == 1
    assert "warehouse-secret" not in json.dumps(webhook.messages)


def test_what_cannot_go_is_kept_told_and_goes_later(connected: Warehouse, webhook: Webhook) -> None:
    webhook.status = 500
    alert_failure(failure(REFUSED))
    [kept] = outbox(connected)
    assert kept.sent_at is None
    with pytest.raises(AlertsUndelivered, match="the webhook answered 500") as caught:
        send_unsent(connected.engine)
    assert "connection `alerts`" in str(caught.value)
    assert "secret-path" not in str(caught.value)
    assert "secret-path" not in (kept.last_error or "")

    webhook.status = 200
    assert send_unsent(connected.engine) == 1
    assert outbox(connected)[0].sent_at is not None
    assert send_unsent(connected.engine) == 0


def test_a_webhook_that_is_away_leaves_no_address_behind(
    connected: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "http://127.0.0.1:1/hook/secret-path"
    give_connection(monkeypatch, "alerts", conn_type="http", extra={"base_url": address})
    with transaction(connected.engine, "loader") as connection:
        raise_alert(connection, key="finding/1", title="t", body="b", severity="info")
    with pytest.raises(AlertsUndelivered) as caught:
        send_unsent(connected.engine)
    assert "secret-path" not in str(caught.value)


def test_a_token_goes_as_bearer(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"base_url": webhook.url}
    give_connection(monkeypatch, "alerts", conn_type="http", password="token-1", extra=extra)
    open_channel()(ALERT)
    assert webhook.authorizations == ["Bearer token-1"]


@pytest.mark.parametrize("token", ["token-1\n", "token-1 ", "tökén-1", "to\r\nken-1"])
def test_a_token_that_no_header_can_carry_is_refused_and_shown_nowhere(
    token: str, connected: Warehouse, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(connected.engine, "loader") as connection:
        raise_alert(connection, key="finding/1", title="t", body="b", severity="info")
    extra = {"base_url": webhook.url}
    give_connection(monkeypatch, "alerts", conn_type="http", password=token, extra=extra)
    with pytest.raises(Fatal, match="password of the Airflow connection `alerts`") as caught:
        send_unsent(connected.engine)
    assert token.strip() not in str(caught.value)
    assert webhook.messages == []
    assert [row.last_error for row in outbox(connected)] == [None]


@pytest.mark.parametrize("ending", ["", "/", "?signature=a%2Fb", "/?signature=a%2Fb"])
def test_a_webhook_is_asked_for_exactly_as_its_address_says(
    ending: str, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"base_url": f"{webhook.url.replace('//', '//user:word@')}{ending}"}
    give_connection(monkeypatch, "alerts", conn_type="http", extra=extra)
    open_channel()(ALERT)
    assert webhook.paths == [f"/hook/secret-path{ending}"]
    assert webhook.authorizations == ["Basic dXNlcjp3b3Jk"]


@pytest.mark.parametrize(
    "trickle",
    [
        pytest.param(b"H", id="a head that never ends"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="a body that never ends"),
    ],
)
def test_a_webhook_that_trickles_is_given_up_at_the_deadline(
    trickle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "_DELIVERY_SECONDS", 0.5)
    with running_trickle(trickle) as url:
        give_connection(monkeypatch, "alerts", conn_type="http", extra={"base_url": url})
        began = time.monotonic()
        if trickle.endswith(b"\r\n\r\n"):
            open_channel()(ALERT)
        else:
            with pytest.raises(AlertsUndelivered, match="gave no answer within"):
                open_channel()(ALERT)
        assert time.monotonic() - began < 5


def test_a_mail_server_gets_the_same(
    mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(
        monkeypatch,
        "alerts",
        conn_type="smtp",
        host="127.0.0.1",
        port=mail_server.port,
        extra={
            "from_email": "airflow@example.com",
            "to_email": "night@example.com, day@example.com",
            "disable_ssl": True,
            "disable_tls": True,
        },
    )
    open_channel()(ALERT)
    mail = message_from_string(mail_server.mails[0], policy=policy.default)
    assert mail["Subject"] == "[warning] Finding 3: Bcc: nobody"
    assert mail["Bcc"] is None
    assert mail["To"] == "night@example.com, day@example.com"
    assert "What happened." in mail.get_content()
    assert page_of(ALERT.key) in mail.get_content()


@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "http"},
        {"conn_type": "smtp", "host": "127.0.0.1"},
        {"conn_type": "smtp", "extra": {"to_email": "night@example.com"}},
        {"conn_type": "ssh", "host": "127.0.0.1"},
    ],
)
def test_a_connection_that_reaches_nobody_is_refused(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(monkeypatch, "alerts", **fields)
    with pytest.raises(ConnectionIncomplete, match="`alerts`"):
        open_channel()


def test_alerts_about_findings_lead_to_the_page_findings() -> None:
    assert page_of("finding/3") == "http://airflow.test:8080/plugin/findings"
