"""The steps of `settle_markets` as Airflow tasks: each asks a room below about a shard of markets.

What is to be done is read from the warehouse: any of them may be killed, cleared, repeated or
overlapped, and in any order.  So a step goes on with what it finds, whatever became of those before
it; that one of them failed is told by the last task, and so by the run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, get_current_context, task_group

from include.markets import crediting, events, fetching, looking, publishing, settling
from include.orchestration.assets import SETTLEMENTS
from include.orchestration.connections import open_partner, open_prediction, open_warehouse
from include.orchestration.settling import plan_shards
from include.orchestration.tasks.shared import SETTINGS, counted, task
from include.payouts import credits

Shard = dict[str, Any]

_NAMED = "{{ shard_name }}"


def in_shards(shards: Any, *steps: Callable[[Shard], Any]) -> Any:
    """Have each of the shards go through the steps, whatever becomes of the others."""

    @task_group(group_id="markets", prefix_group_id=False)
    def markets(shard: Shard) -> None:
        chain(*(step(shard) for step in steps))

    return markets.expand(shard=shards)


def report_failures(dag: DAG) -> None:
    """Have the run fail if any of the DAG's tasks did: it ends as its last task does."""
    list(dag.tasks) >> EmptyOperator(task_id="report_failures", trigger_rule="none_failed")


# Not tried again: the next run reads on, and the markets need not wait for it.
@task(retries=0)
def take_events(run_id: str | None = None) -> dict[str, Any] | None:
    """Read the engine's events, and enter the markets that they say are resolved."""
    with closing(open_prediction(SETTINGS)) as client:
        return counted(events.take_events(open_warehouse(), client, SETTINGS, run_id))


@task(trigger_rule="all_done")
def plan(params: Any = None, dag_run: Any = None) -> list[Shard]:
    """Enter what the form confirms, and say which markets this run goes on with."""
    return plan_shards(open_warehouse(), params, dag_run.triggering_user_name, dag_run.run_id)


@task(map_index_template=_NAMED, execution_timeout=timedelta(hours=3))
def settle(shard: Shard, run_id: str | None = None) -> dict[str, Any] | None:
    """Order that markets be settled which are resolved."""
    return _with_engine(settling.settle_markets, shard, run_id)


@task(map_index_template=_NAMED, trigger_rule="all_done")
def wait_for_status(shard: Shard, run_id: str | None = None) -> dict[str, Any] | None:
    """Look how far the engine is; what is under way is looked at again by the next run."""
    return _with_engine(looking.wait_for_status, shard, run_id)


@task(map_index_template=_NAMED, trigger_rule="all_done", execution_timeout=timedelta(hours=3))
def retry_failed(shard: Shard, run_id: str | None = None) -> dict[str, Any] | None:
    """Order that failed positions be tried again."""
    return _with_engine(settling.retry_failed, shard, run_id)


@task(map_index_template=_NAMED, trigger_rule="all_done", execution_timeout=timedelta(hours=3))
def fetch_payouts(shard: Shard, run_id: str | None = None) -> dict[str, Any] | None:
    """List the payouts of markets that are settled."""
    return _with_engine(fetching.fetch_payouts, shard, run_id)


# Also if there was nothing to settle: earlier runs, and decisions, may have left something.
@task(trigger_rule="all_done")
def check() -> dict[str, Any] | None:
    """Hold the lists that do not add up; check what the others hold."""
    return counted(publishing.check(open_warehouse(), SETTINGS))


@task(outlets=[SETTLEMENTS], trigger_rule="all_done")
def publish(outlet_events: Any = None) -> dict[str, Any] | None:
    """Publish what has passed its checks."""
    published = publishing.publish(open_warehouse(), SETTINGS)
    outlet_events[SETTLEMENTS].extra = {"source": "prediction", **asdict(published)}
    return counted(published)


@task(trigger_rule="all_done")
def credit() -> dict[str, Any] | None:
    """Credit players with what is published: through the outbox, or as owed."""
    return counted(crediting.credit(open_warehouse(), SETTINGS))


@task(trigger_rule="all_done")
def send_credits(run_id: str | None = None) -> dict[str, Any] | None:
    """Send what the wallet was not told of yet; what is left is the resend's."""
    is_mapped = crediting.read_mapping(SETTINGS) is not None
    return counted(
        credits.send_credits(open_warehouse(), open_partner, SETTINGS, run_id, is_mapped=is_mapped)
    )


def _with_engine(
    step: Callable[..., Any], shard: Shard, run_id: str | None
) -> dict[str, Any] | None:
    get_current_context()["shard_name"] = shard["name"]  # type: ignore[typeddict-unknown-key]
    with closing(open_prediction(SETTINGS)) as client:
        return counted(step(open_warehouse(), client, SETTINGS, shard["market_ids"], run_id))
