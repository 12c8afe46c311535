"""Alerts on their way out: failed tasks into the outbox, and the outbox to the people on call."""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from airflow.sdk import Connection, Context, DagRunState, TaskInstanceState
from airflow.sdk.configuration import conf
from airflow.sdk.log import mask_secret
from sqlalchemy import Engine, select

from include.orchestration.connections import (
    ConnectionIncomplete,
    base_address,
    open_warehouse,
    read_connection,
)
from include.orchestration.telling import told
from include.providers.errors import Ambiguous, Fatal, Retriable
from include.providers.http import Client
from include.providers.refusals import checked_secrets
from include.settings import Settings
from include.warehouse.alerts import Alert, deliver_alerts, raise_alert
from include.warehouse.database import transaction
from include.warehouse.tables import alert as alert_table

ALERTS = "alerts"

_FIELDS = (
    "either type http with the webhook as `base_url` in extra (and, if it wants one, a token as "
    "password), or type smtp with host, port and `from_email` and `to_email` in extra"
)
_DELIVERY_SECONDS = 10.0
# Not the environment's: an alert goes out whatever is wrong there.
_BOUNDS = Settings.model_construct(body_limit_bytes=65_536)
_SHOWN_CHARACTERS = 1000
_log = logging.getLogger(__name__)


class AlertsUndelivered(Exception):
    """At least one alert could not be handed over; it stays in the outbox for the next attempt."""


def alert_failure(context: Context) -> None:
    """Tell the people on call that a task failed for good; the callback of every task.

    A failure that lasts is told once a day, and again when the task has succeeded in between.  If
    what the Airflow connection says is wrong, every task that needs it fails: that is told once for
    all of them, and again when a run has succeeded in between.  The alert goes through the outbox,
    which keeps it if it cannot be delivered and sends it once however often the callback fires.
    Only if the warehouse is away is it sent straight.
    """
    send_alert(_describe(context))


def send_alert(alert: Alert) -> None:
    """Hand an alert over to the people on call, through the outbox; straight if that is away."""
    try:
        engine = open_warehouse()
        with transaction(engine, "loader") as connection:
            raise_alert(
                connection,
                key=alert.key,
                title=alert.title,
                body=alert.body,
                severity=alert.severity,
            )
    except Exception as error:  # noqa: BLE001 - whatever keeps the outbox from us, people are told
        _log.warning(
            "The warehouse cannot take the alert (%s); it is sent straight.",
            told(error)[:_SHOWN_CHARACTERS],
        )
        open_channel()(alert)
    else:
        deliver_alerts(engine, open_channel())


def send_unsent(engine: Engine) -> int:
    """Deliver every alert of the outbox; returns how many went.

    Raises `AlertsUndelivered` with the reason if one did not go.
    """
    sent = deliver_alerts(engine, open_channel())
    unsent = select(alert_table.c.title, alert_table.c.last_error).where(
        alert_table.c.sent_at.is_(None), alert_table.c.last_error.is_not(None)
    )
    with transaction(engine, "loader") as connection:
        refused = connection.execute(unsent.order_by(alert_table.c.alert_id).limit(1)).first()
    if refused is not None:
        raise AlertsUndelivered(
            f"Alerts wait undelivered, the oldest is “{refused.title}”: {refused.last_error}. "
            f"All of them are kept in ops.alert. Check the Airflow connection `{ALERTS}`; the next "
            "run delivers them."
        )
    return sent


def open_channel() -> Callable[[Alert], None]:
    """How an alert reaches the people on call: the webhook or mail server of `alerts`.

    Raises `ConnectionIncomplete`, and `Fatal` for a token that no header can carry.
    """
    connection = read_connection(ALERTS, _FIELDS)
    if connection.conn_type == "smtp":
        if not connection.host or not connection.extra_dejson.get("to_email"):
            raise ConnectionIncomplete(ALERTS, "has no host or no `to_email` in extra", _FIELDS)
        return lambda alert: _send_mail(connection, alert)
    address = base_address(connection)
    if connection.conn_type != "http" or address is None:
        raise ConnectionIncomplete(ALERTS, "is neither a webhook nor a mail server", _FIELDS)
    # The address of a webhook is often its only secret.
    mask_secret(address)
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        raise ConnectionIncomplete(ALERTS, "has an address that is none", _FIELDS) from None
    headers = {"Authorization": f"Bearer {connection.password}"} if connection.password else {}
    checked_secrets(ALERTS, headers)
    return lambda alert: _post(url, headers, alert)


def page_of(key: str) -> str:
    """The page of Airflow's UI where the cause of the alert with this key is to be seen."""
    match key.split("/"):
        case ["task", dag_id, task_id, *_]:
            return f"{_base_url()}/dags/{dag_id}/tasks/{task_id}"
        case ["late" | "connection", dag_id, *_]:
            return f"{_base_url()}/dags/{dag_id}"
        case _:
            return f"{_base_url()}/plugin/findings"


def page_of_run(dag_id: str, run_id: str) -> str:
    """The page of Airflow's UI that shows this run."""
    return f"{_base_url()}/dags/{dag_id}/runs/{quote(run_id)}"


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")


def _describe(context: Context) -> Alert:
    instance = context["ti"]
    error = context.get("exception")
    happened = (
        told(error)[:_SHOWN_CHARACTERS]
        if error
        else "Its process died or lost contact with Airflow."
    )
    return Alert(
        key=_key(context, error),
        title=f"{instance.dag_id}: {instance.task_id} failed",
        body=f"What happened: {happened}\n"
        "What was kept: everything that was committed before; any later run goes on from it.\n"
        f"What to click: {_page_of_try(instance)} – the end of its log says what to do next, the "
        "runbook in the DAG's documentation the rest. While it lasts, it is told once a day.",
        severity="critical",
    )


def _page_of_try(instance: Any) -> str:
    run = page_of_run(instance.dag_id, instance.run_id)
    map_index = _map_index(instance)
    task = f"{run}/tasks/{instance.task_id}"
    return task if map_index < 0 else f"{task}/mapped/{map_index}"


def _map_index(instance: Any) -> int:
    return -1 if instance.map_index is None else int(instance.map_index)


def _key(context: Context, error: BaseException | str | None) -> str:
    instance = context["ti"]
    match error:
        case ConnectionIncomplete():
            wrong = f"{error.connection_id}/{error.lacking}"
        # What is forbidden to one call (403) may be allowed to others: that says less of the key.
        case Fatal(fault=str()) if error.status != HTTPStatus.FORBIDDEN:
            wrong = f"{error.provider}/{error.fault}"
        case _:
            task = f"{instance.dag_id}/{instance.task_id}/{_map_index(instance)}"
            return f"task/{task}/{_cause(error)}/{_episode(context, _last_success_of_task)}"
    return f"connection/{instance.dag_id}/{wrong}/{_episode(context, _last_success_of_run)}"


def _cause(error: BaseException | str | None) -> str:
    """The sort of failure, not its text: that may change from run to run for the same cause."""
    if error is None or isinstance(error, str):
        return "process_died"
    status = getattr(error, "status", None)
    return type(error).__name__ if status is None else f"{type(error).__name__}-{status}"


def _episode(context: Context, last_success: Callable[[Context], str | None]) -> str:
    """What the failures of one cause have in common while it lasts: day and last success."""
    try:
        return f"{context['dag_run'].run_after:%Y-%m-%d}/{last_success(context) or 'never'}"
    except Exception as error:  # noqa: BLE001 - rather one alert too many than none
        _log.warning("Airflow does not say when there last was a success (%s).", told(error))
        return str(context["ti"].run_id)


def _last_success_of_task(context: Context) -> str | None:
    instance = context["ti"]
    success = instance.get_previous_ti(
        state=TaskInstanceState.SUCCESS,
        logical_date=context["dag_run"].run_after,
        map_index=_map_index(instance),
    )
    return success.run_id if success else None


def _last_success_of_run(context: Context) -> str | None:
    # Tasks of one run have succeeded last in different runs: what is mapped, or failed before.
    if context["dag_run"].logical_date is None:
        raise LookupError("it knows of none before a run without a logical date")
    success = context["ti"].get_previous_dagrun(state=DagRunState.SUCCESS)
    return success.run_id if success else None


def _post(address: httpx.URL, headers: Mapping[str, str], alert: Alert) -> None:
    message = {
        "key": alert.key,
        "title": alert.title,
        "body": alert.body,
        "severity": alert.severity,
        "url": page_of(alert.key),
    }
    body = json.dumps(message, ensure_ascii=False).encode()
    host = str(address.copy_with(raw_path=b"/", userinfo=b"", fragment=None))
    auth = httpx.BasicAuth(address.username, address.password) if address.userinfo else httpx.Auth()
    with Client(ALERTS, host, secret_headers=headers, settings=_BOUNDS) as client:
        ends_at = time.monotonic() + _DELIVERY_SECONDS
        try:
            answer = client.post(address.raw_path.decode(), body, auth=auth, ends_at=ends_at)
        except Retriable:
            # Its own words name the path, which is often the webhook's only secret.
            raise AlertsUndelivered("the webhook could not be reached") from None
        except Ambiguous:
            raise AlertsUndelivered(
                f"the webhook gave no answer within {_DELIVERY_SECONDS:g} s"
            ) from None
    if not httpx.codes.is_success(answer.status):
        raise AlertsUndelivered(f"the webhook answered {answer.status}")


def _send_mail(connection: Connection, alert: Alert) -> None:
    extra = connection.extra_dejson
    message = EmailMessage()
    message["Subject"] = f"[{alert.severity}] {' '.join(alert.title.split())}"
    message["From"] = str(extra.get("from_email") or connection.login or "airflow@localhost")
    message["To"] = str(extra["to_email"])
    message.set_content(f"{alert.body}\n\n{page_of(alert.key)}\n")
    is_encrypted = not extra.get("disable_ssl", False)
    host, port = str(connection.host), connection.port or (465 if is_encrypted else 25)
    tls = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(host, port, timeout=_DELIVERY_SECONDS, context=tls)
        if is_encrypted
        else smtplib.SMTP(host, port, timeout=_DELIVERY_SECONDS)
    )
    with server:
        if not is_encrypted and not extra.get("disable_tls", False):
            server.starttls(context=tls)
        if connection.login and connection.password:
            server.login(connection.login, connection.password)
        server.send_message(message)
