"""The steps of `resend_settlements` as Airflow tasks."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from include.orchestration.assets import RESEND_OUTCOME
from include.orchestration.connections import open_partner, open_warehouse
from include.orchestration.resending import DryRunIncomplete, day_of_run, describe_plan, tell_plan
from include.orchestration.tasks.shared import SETTINGS, URGENT, counted, task
from include.payouts import due, outbox, outcome, sending

_log = logging.getLogger(__name__)


@task()
def prepare(params: Any = None, dag_run: Any = None) -> dict[str, Any] | None:
    """Freeze the bytes of payouts that are new; hold those that cannot be signed."""
    _log.info("This run is for %s and all days before.", day_of_run(params, dag_run))
    return counted(outbox.freeze_new(open_warehouse()))


@task()
def check_outbox(params: Any = None, dag_run: Any = None) -> dict[str, Any] | None:
    """Hold the outbox against its own rules before anything is sent."""
    return counted(outcome.check_outbox(open_warehouse(), day_of_run(params, dag_run)))


# A partner that is away is waited for, for hours if need be: by the deadline people are told.  What
# keeps two senders apart is their lease; one at a time spares the workers that the days of a
# backfill would occupy by waiting for it.
@task(
    execution_timeout=timedelta(hours=6),
    retries=12,
    max_active_tis_per_dag=1,
    priority_weight=URGENT,
)
def send(params: Any = None, dag_run: Any = None) -> dict[str, Any] | None:
    """Send what is open, until nothing is left to send; in a dry run, say what that would be."""
    engine, day, batch_items = open_warehouse(), day_of_run(params, dag_run), params["batch_items"]
    if params["dry_run"]:
        planned = due.plan(engine, SETTINGS, day, batch_items)
        _log.info("%s", describe_plan(day, planned))
        return tell_plan(planned)
    return counted(
        sending.send(
            engine, open_partner(), SETTINGS, day, run_id=dag_run.run_id, batch_items=batch_items
        )
    )


# Also after a red task before it: how the day stands then is what finance has to know most.
@task(outlets=[RESEND_OUTCOME], trigger_rule="all_done", priority_weight=URGENT)
def check_outcome(
    params: Any = None, dag_run: Any = None, outlet_events: Any = None, ti: Any = None
) -> dict[str, Any] | None:
    """Compare what was entered with what became of it, and report it."""
    day = day_of_run(params, dag_run)
    about = {"business_date": str(day), "dry_run": params["dry_run"]}
    if params["dry_run"]:
        if ti.xcom_pull(task_ids="send") is None:
            raise DryRunIncomplete
        _log.info("Dry run: nothing was sent, so there is no outcome to check.")
        outlet_events[RESEND_OUTCOME].extra = about
        return None
    reported = outcome.check_outcome(open_warehouse(), day, run_id=dag_run.run_id)
    told = counted(reported)
    outlet_events[RESEND_OUTCOME].extra = {**about, **(told or {})}
    return told
