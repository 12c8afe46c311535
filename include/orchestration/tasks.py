"""The steps of the pipelines as Airflow tasks: each opens its connections and asks a room below.

Every task tells in counts what it did, in its log and, if it did anything, as its result.  What is
to be done is read from the warehouse: any of them may be killed, cleared, repeated or overlapped.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import task as airflow_task

from include.catchup import pipeline, watching
from include.catchup.sources import SOURCES
from include.orchestration.alerting import alert_failure, send_unsent
from include.orchestration.assets import SETTLEMENTS
from include.orchestration.connections import open_source, open_warehouse
from include.orchestration.resolving import Form, resolve_each
from include.orchestration.retries import RetryByRecovery
from include.orchestration.telling import tell_failure
from include.quality import gates
from include.settings import Settings
from include.warehouse import publishing

_log = logging.getLogger(__name__)

# Read when the module is imported, which is before a task's process is forked.
SETTINGS = Settings()

# One result a task.  Airflow takes a result annotated as a dict for several outputs and stores each
# count apart, with a call to its API for every one: longer together than a step with nothing to do.
task = partial(airflow_task, multiple_outputs=False)


def land_time_limit(settings: Settings) -> timedelta:
    """How long `land` may take: its own bound, its last call with every retry, and a commit."""
    longest_wait = max(settings.retry_after_limit_seconds, 10.5)
    last_call = settings.read_attempts * (settings.call_deadline_seconds + longest_wait)
    return timedelta(seconds=settings.land_time_limit_seconds + last_call + 120)


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


@task(execution_timeout=land_time_limit(SETTINGS))
def land(source_name: str, run_id: str | None = None) -> dict[str, Any] | None:
    """Land what the provider has beyond the cursor."""
    source = SOURCES[source_name]
    with open_source(source, SETTINGS) as client:
        return _told(pipeline.land(open_warehouse(), source, client, SETTINGS, run_id))


@task()
def check_raw(source_name: str) -> dict[str, Any] | None:
    """Compare what landed with what the provider counted."""
    return _told(gates.check_raw(open_warehouse(), source_name, SETTINGS))


@task()
def normalize(source_name: str) -> dict[str, Any] | None:
    """Turn the records of every checked batch into staged settlements."""
    return _told(pipeline.normalize(open_warehouse(), SOURCES[source_name], SETTINGS))


@task()
def check_settlements(source_name: str) -> dict[str, Any] | None:
    """Hold the staged settlements against the row rules."""
    return _told(gates.check_settlements(open_warehouse(), source_name, SETTINGS))


@task(outlets=[SETTLEMENTS])
def publish(source_name: str, outlet_events: Any = None) -> dict[str, Any] | None:
    """Publish every batch that has passed its checks."""
    published = publishing.publish(open_warehouse(), source_name)
    outlet_events[SETTLEMENTS].extra = {"source": source_name, **asdict(published)}
    return _told(published)


@task(execution_timeout=timedelta(minutes=5))
def watch() -> dict[str, Any] | None:
    """Look at every feed, batch and gap: open findings where needed, close what has passed."""
    feeds = [(source.name, source.feed) for source in SOURCES.values()]
    return _told(watching.watch(open_warehouse(), feeds, SETTINGS))


# Its own failure is no alert: what cannot be delivered would only grow by it.
@task(execution_timeout=timedelta(minutes=5), on_failure_callback=tell_failure)
def send_alerts() -> dict[str, Any]:
    """Deliver the alerts that still wait."""
    return {"sent": send_unsent(open_warehouse())}


# Not tried again by itself: whoever decided sees what was refused, and decides anew.
@task(retries=0)
def resolve(params: Any = None, dag_run: Any = None) -> dict[str, Any]:
    """Carry out the decision of the form for each of its findings."""
    form = Form(**params)
    return resolve_each(open_warehouse(), form, dag_run.triggering_user_name, dag_run.run_id)


def _told(result: Any) -> dict[str, Any] | None:
    """The result in counts, which are logged; None, which Airflow need not store, if all are 0."""
    counts = asdict(result)
    _log.info("%s: %s", type(result).__name__, counts)
    return counts if any(isinstance(count, int) and count for count in counts.values()) else None
