"""The deadline of the daily resend: 01:30 UTC, and who is told if payouts are then still unsent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import (
    BaseDeadlineReference,
    DeadlineAlert,
    deadline_reference,
)

from include.orchestration.alerting import page_of_run, send_alert
from include.orchestration.connections import open_warehouse
from include.orchestration.resending import business_date
from include.payouts.watching import Unsent, unsent
from include.warehouse.alerts import Alert

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_log = logging.getLogger(__name__)

_PATIENCE = timedelta(minutes=30)


@deadline_reference
class RunAfter(BaseDeadlineReference):
    """The moment after which a run may start: 01:00 for that of 01:00, now for one by hand.

    Airflow's own references do not fit: a partitioned run has no logical date, and where the
    deadline counts from the time of queueing, a failed run cannot be cleared.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        # Only the scheduler calls it, and only there may Airflow's own tables be read.
        from airflow.models import DagRun
        from sqlalchemy import select

        return session.scalar(
            select(DagRun.run_after).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )


async def alert_late_resend(context: dict[str, Any]) -> None:
    """Tell the people on call that a resend is late, once a day; the callback of its deadline.

    A run that was started late, or is red for another reason, but has left nothing to send, is no
    reason to wake anybody; neither is a backfill, whose days were due long ago.
    """
    # The triggerer runs it, not a worker: that none is free may be why the resend is late.
    await asyncio.to_thread(_alert_if_unsent, context["dag_run"])


def _alert_if_unsent(run: dict[str, Any]) -> None:
    if run["run_type"] == "backfill":
        return
    run_after = datetime.fromisoformat(run["run_after"])
    day = business_date((run["conf"] or {}).get("business_date"), run["partition_key"], run_after)
    waiting = unsent(open_warehouse(), day)
    if waiting:
        send_alert(_describe(run, day, run_after + _PATIENCE, waiting))
    else:
        _log.info("The deadline has passed, but no payout of %s or before is left to send.", day)


def _describe(
    run: dict[str, Any], day: date, deadline: datetime, waiting: Sequence[Unsent]
) -> Alert:
    count = sum(row.payouts for row in waiting)
    return Alert(
        key=f"late/{run['dag_id']}/{day}",
        title=f"{run['dag_id']}: {count} payouts are still unsent after {deadline:%H:%M} UTC",
        body=f"What happened: the run for {day} is {run['state']}, and {count} payouts of that day "
        "and before are still to be sent or in doubt.\n"
        "What was kept: all of them are in the outbox; what was sent is not sent anew, and any "
        "later run goes on from there.\n"
        f"What to click: {page_of_run(run['dag_id'], run['dag_run_id'])} – if `send` is running, "
        "its log says how far it is: leave it. If a task is red, the end of its log says what to "
        "do. If all wait for a worker or the run is queued, look at what else runs.",
        severity="critical",
    )


RESEND_DEADLINE = DeadlineAlert(
    reference=RunAfter(),
    interval=_PATIENCE,
    callback=AsyncCallback(alert_late_resend),
    name="30 minutes after the start",
)
