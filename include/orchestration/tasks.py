"""The steps of the pipelines as Airflow tasks: each opens its connections and asks a room below.

Every task tells in counts what it did, in its log and, if it did anything, as its result.  What is
to be done is read from the warehouse: any of them may be killed, cleared, repeated or overlapped.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import task as airflow_task

from include.catchup import acquiring, hints, watching
from include.catchup.position import DOUBLINGS_LIMIT
from include.catchup.sources import SOURCES, Source
from include.catchup.stream import Stream
from include.markets.watching import watch_markets
from include.orchestration.alerting import alert_failure, send_unsent
from include.orchestration.assets import RESEND_OUTCOME, SETTLEMENTS
from include.orchestration.connections import (
    open_hints,
    open_partner,
    open_source,
    open_warehouse,
)
from include.orchestration.importing import import_each
from include.orchestration.resending import day_of_run, describe_plan, tell_plan
from include.orchestration.resolving import Form, resolve_each
from include.orchestration.retries import RetryByRecovery
from include.orchestration.telling import tell_failure
from include.payouts import due, outbox, outcome, sending
from include.payouts.watching import watch_payouts
from include.providers.http import longest_call
from include.quality import gates, normalizing
from include.settings import Settings
from include.warehouse import publishing
from include.warehouse.clock import compare_clocks

_log = logging.getLogger(__name__)

# Read when the module is imported, which is before a task's process is forked.
SETTINGS = Settings()

# One result a task.  Airflow takes a result annotated as a dict for several outputs and stores each
# count apart, with a call to its API for every one: longer together than a step with nothing to do.
task = partial(airflow_task, multiple_outputs=False)


def land_time_limit(source: Source, settings: Settings = SETTINGS) -> timedelta:
    """How long `land` may take: its own bound, its last call with every retry, and a commit.

    A stream's bound may have been doubled; before, its lease is waited for, and it is connected to.
    """
    bound = settings.land_time_limit_seconds
    if isinstance(source.acquire, Stream):
        bound *= 2**DOUBLINGS_LIMIT
        bound += settings.stream_lease_seconds + settings.call_deadline_seconds
    return timedelta(seconds=bound + longest_call(settings) + 120)


TASK_DEFAULTS: dict[str, Any] = {
    "owner": "settlements",
    "pool": "warehouse",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
    "retry_policy": RetryByRecovery(),
    "execution_timeout": timedelta(hours=1),
    "on_retry_callback": tell_failure,
    "on_failure_callback": [alert_failure, tell_failure],
}


@task()
def land(source_name: str, run_id: str | None = None) -> dict[str, Any] | None:
    """Land what the provider has beyond the cursor."""
    source, engine = SOURCES[source_name], open_warehouse()
    compare_clocks(engine)
    with closing(open_source(source, SETTINGS)) as client:
        return counted(acquiring.land(engine, source, client, SETTINGS, run_id))


# Not tried again: the next run listens anyway, and waits for this one to end.
@task(
    retries=0,
    execution_timeout=timedelta(
        seconds=SETTINGS.tote_listen_seconds + SETTINGS.call_deadline_seconds + 120
    ),
)
def listen(
    source_name: str, run_id: str | None = None, dag_run: Any = None
) -> dict[str, Any] | None:
    """Hear what hints at changes, for one session; a short one in a run by hand."""
    engine, is_by_hand = open_warehouse(), dag_run.run_type == "manual"
    compare_clocks(engine)
    feed = open_hints(SOURCES[source_name], SETTINGS)
    return counted(hints.listen(engine, feed, SETTINGS, run_id, is_by_hand=is_by_hand))


def listen_beside(source: Source) -> None:
    """Have the DAG listen while it does the rest, if something hints at the source's changes."""
    if source.open_hints is not None:
        listen(source.name)


@task()
def check_raw(source_name: str) -> dict[str, Any] | None:
    """Compare what landed with what the provider counted."""
    return counted(gates.check_raw(open_warehouse(), source_name))


@task()
def normalize(source_name: str) -> dict[str, Any] | None:
    """Turn the records of every checked batch into staged settlements."""
    return counted(normalizing.normalize(open_warehouse(), SOURCES[source_name], SETTINGS))


@task()
def check_settlements(source_name: str) -> dict[str, Any] | None:
    """Hold the staged settlements against the row rules."""
    return counted(gates.check_settlements(open_warehouse(), source_name, SETTINGS))


@task(outlets=[SETTLEMENTS])
def publish(source_name: str, outlet_events: Any = None) -> dict[str, Any] | None:
    """Publish every batch that has passed its checks."""
    published = publishing.publish(open_warehouse(), source_name)
    outlet_events[SETTLEMENTS].extra = {"source": source_name, **asdict(published)}
    return counted(published)


@task(execution_timeout=timedelta(minutes=5))
def watch() -> dict[str, Any] | None:
    """Look at every feed, batch, gap, payout and market: open findings, close what has passed."""
    engine = open_warehouse()
    feeds = [(source.name, source.feed) for source in SOURCES.values()]
    watched = watching.watch(engine, feeds, SETTINGS)
    # Whatever held payouts back may have been killed before it said so.
    outbox.report_outbox(engine)
    payouts, markets = watch_payouts(engine), watch_markets(engine, SETTINGS)
    return counted(
        watching.Watched(
            watched.opened + payouts.opened + markets.opened,
            watched.closed + payouts.closed + markets.closed,
        )
    )


# Its own failure is no alert: what cannot be delivered would only grow by it.
@task(execution_timeout=timedelta(minutes=5), on_failure_callback=tell_failure)
def send_alerts() -> dict[str, Any]:
    """Deliver the alerts that still wait."""
    return {"sent": send_unsent(open_warehouse())}


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
@task(execution_timeout=timedelta(hours=6), retries=12, max_active_tis_per_dag=1)
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
@task(outlets=[RESEND_OUTCOME], trigger_rule="all_done")
def check_outcome(
    params: Any = None, dag_run: Any = None, outlet_events: Any = None
) -> dict[str, Any] | None:
    """Compare what was entered with what became of it, and report it."""
    day = day_of_run(params, dag_run)
    about = {"business_date": str(day), "dry_run": params["dry_run"]}
    if params["dry_run"]:
        _log.info("Dry run: nothing was sent, so there is no outcome to check.")
        outlet_events[RESEND_OUTCOME].extra = about
        return None
    reported = outcome.check_outcome(open_warehouse(), day, run_id=dag_run.run_id)
    told = counted(reported)
    outlet_events[RESEND_OUTCOME].extra = {**about, **(told or {})}
    return told


@task(execution_timeout=timedelta(hours=6))
def import_files(params: Any = None) -> dict[str, Any] | None:
    """Import the file named in the form, or every one that waits in the import folder."""
    folder, path, day = SETTINGS.import_folder, params["path"], params["business_date"]
    return import_each(open_warehouse(), folder, path, day) or None


# Not tried again by itself: whoever decided sees what was refused, and decides anew.
@task(retries=0)
def resolve(params: Any = None, dag_run: Any = None) -> dict[str, Any]:
    """Carry out the decision of the form for each of its findings."""
    form = Form(**params)
    return resolve_each(open_warehouse(), form, dag_run.triggering_user_name, dag_run.run_id)


def counted(result: Any) -> dict[str, Any] | None:
    """A result in counts, which are logged; None, which Airflow need not store, if all are 0."""
    counts = result._asdict() if hasattr(result, "_asdict") else asdict(result)
    _log.info("%s: %s", type(result).__name__, counts)
    return counts if any(isinstance(count, int) and count for count in counts.values()) else None
