"""The steps of the pipelines as Airflow tasks: each opens its connections and asks a room below.

Every task tells in counts what it did, in its log and as its result; what is to be done is read
from the warehouse, so any of them may be killed, cleared, repeated or overlapped.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import task

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


@task(execution_timeout=land_time_limit(Settings()))
def land(source_name: str, run_id: str | None = None) -> dict[str, Any]:
    """Land what the provider has beyond the cursor."""
    source, settings = SOURCES[source_name], Settings()
    with open_source(source, settings) as client:
        return _told(pipeline.land(open_warehouse(), source, client, settings, run_id))


@task
def check_raw(source_name: str) -> dict[str, Any]:
    """Compare what landed with what the provider counted."""
    return _told(gates.check_raw(open_warehouse(), source_name, Settings()))


@task
def normalize(source_name: str) -> dict[str, Any]:
    """Turn the records of every checked batch into staged settlements."""
    return _told(pipeline.normalize(open_warehouse(), SOURCES[source_name], Settings()))


@task
def check_settlements(source_name: str) -> dict[str, Any]:
    """Hold the staged settlements against the row rules."""
    return _told(gates.check_settlements(open_warehouse(), source_name, Settings()))


@task(outlets=[SETTLEMENTS])
def publish(source_name: str, outlet_events: Any = None) -> dict[str, Any]:
    """Publish every batch that has passed its checks."""
    published = _told(publishing.publish(open_warehouse(), source_name))
    outlet_events[SETTLEMENTS].extra = {"source": source_name, **published}
    return published


@task(execution_timeout=timedelta(minutes=5))
def watch() -> dict[str, Any]:
    """Look at every feed, batch and gap: open findings where needed, close what has passed."""
    feeds = [(source.name, source.feed) for source in SOURCES.values()]
    return _told(watching.watch(open_warehouse(), feeds, Settings()))


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


def _told(result: Any) -> dict[str, Any]:
    counts = asdict(result)
    _log.info("%s: %s", type(result).__name__, counts)
    return counts
