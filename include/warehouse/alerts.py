"""The outbox of alerts: raised in the transaction of their cause, sent once per key.

Whoever delivers claims unsent alerts; a delivery that fails leaves its alert unsent with the
reason, for the next one.  An alert can arrive twice if a process dies between sending and noting
it: two calls at night are better than none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from include.warehouse.database import transaction
from include.warehouse.tables import alert as alert_table


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
    """Send what is unsent, oldest first; returns how many went.  Stops at the first failure."""
    sent = 0
    while True:
        with transaction(engine, "loader") as connection:
            row = connection.execute(
                select(alert_table)
                .where(alert_table.c.sent_at.is_(None))
                .order_by(alert_table.c.alert_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if row is None:
                return sent
            this = update(alert_table).where(alert_table.c.alert_id == row.alert_id)
            try:
                send(Alert(row.alert_key, row.title, row.body, row.severity))
            except Exception as error:  # noqa: BLE001
                # The alert stays unsent whatever went wrong, and the reason stands beside it.
                connection.execute(this.values(last_error=f"{type(error).__name__}: {error}"))
                return sent
            connection.execute(this.values(sent_at=func.now(), last_error=None))
            sent += 1
