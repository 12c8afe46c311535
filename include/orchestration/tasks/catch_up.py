"""The steps of `catch_up_…` as Airflow tasks, and what else listens beside them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from include.catchup import acquiring, hints
from include.catchup.position import WIDEST
from include.catchup.sources import SOURCES, Source
from include.catchup.stream import Stream
from include.orchestration.assets import SETTLEMENTS
from include.orchestration.connections import open_hints, open_source, open_warehouse
from include.orchestration.tasks.shared import SETTINGS, counted, task
from include.providers.http import longest_call
from include.quality import gates, normalizing
from include.settings import Settings
from include.warehouse import publishing
from include.warehouse.clock import compare_clocks


def land_time_limit(source: Source, settings: Settings = SETTINGS) -> timedelta:
    """How long `land` may take: its own bound, its last call with every retry, and a commit.

    A stream's bound may have been doubled; before, its lease is waited for, and it is connected to.
    """
    bound = settings.land_time_limit_seconds
    if isinstance(source.acquire, Stream):
        bound *= WIDEST
        bound += settings.stream_lease_seconds + settings.call_deadline_seconds
    return timedelta(seconds=bound + longest_call(settings) + 120)


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
