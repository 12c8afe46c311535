"""The outbox of alerts: raised in the transaction of their cause, sent once per key.

Whoever delivers claims unsent alerts; a delivery that fails leaves its alert unsent with the
reason, for the next one.  An alert can arrive twice if a process dies between sending and noting
it: two calls at night are better than none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from include.warehouse.database import transaction
from include.warehouse.tables import alert as alert_table

_CLAIM = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0))")
_FAILURES_LIMIT = 10
_End = Literal["sent", "failed", "left"]


@dataclass(frozen=True)
class Alert:
    """One message to the people on call."""

    key: str
    title: str
    body: str
    severity: str


def raise_alert(connection: Connection, *, key: str, title: str, body: str, severity: str) -> None:
    """Put an alert in the outbox; the same `key` again is only counted."""
    connection.execute(
        insert(alert_table)
        .values(alert_key=key, title=title, body=body, severity=severity)
        .on_conflict_do_update(
            index_elements=["alert_key"],
            set_={"times_raised": alert_table.c.times_raised + 1},
        )
    )


def deliver_alerts(engine: Engine, send: Callable[[Alert], None]) -> int:
    """Send what is unsent, oldest first; returns how many went.

    One that fails keeps none of the others back; after ten failures the rest is the next call's.
    Those that failed before come last and in no order, so that the same ten never block the rest.
    """
    unsent = (
        select(alert_table.c.alert_id)
        .where(alert_table.c.sent_at.is_(None))
        .order_by(
            alert_table.c.last_error.is_not(None),
            case((alert_table.c.last_error.is_(None), alert_table.c.alert_id)),
            func.random(),
        )
    )
    with transaction(engine, "loader") as connection:
        alert_ids = connection.scalars(unsent).all()
    ends: Counter[_End] = Counter()
    for alert_id in alert_ids:
        ends[_deliver(engine, send, alert_id)] += 1
        if ends["failed"] == _FAILURES_LIMIT:
            break
    return ends["sent"]


def _deliver(engine: Engine, send: Callable[[Alert], None], alert_id: int) -> _End:
    """Send one alert, unless another process does, or did.

    What keeps the other away is an advisory lock: the alert's row is not locked while it is sent,
    which may take long, and may be raised again meanwhile.
    """
    with transaction(engine, "loader") as connection:
        if not connection.scalar(_CLAIM, {"key": f"alert/{alert_id}"}):
            return "left"
        row = connection.execute(
            select(alert_table).where(
                alert_table.c.alert_id == alert_id, alert_table.c.sent_at.is_(None)
            )
        ).first()
        if row is None:
            return "left"
        this = update(alert_table).where(alert_table.c.alert_id == alert_id)
        try:
            send(Alert(row.alert_key, row.title, row.body, row.severity))
        except Exception as error:  # noqa: BLE001
            # The alert stays unsent whatever went wrong, and the reason stands beside it.
            connection.execute(this.values(last_error=_reason(error)))
            return "failed"
        connection.execute(this.values(sent_at=func.clock_timestamp(), last_error=None))
        return "sent"


def _reason(error: Exception) -> str:
    """Why an alert did not go.  What others' errors say may quote a key or an address."""
    name = type(error).__name__
    return f"{name}: {error}" if type(error).__module__.startswith("include.") else name
