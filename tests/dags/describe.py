"""Reads every DAG file in a process of its own and prints what it found, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests import airflow_home

HEAVY = ("great_expectations", "pandas")


def describe() -> dict[str, Any]:
    """What Airflow makes of the project's DAG files."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(airflow_home.PROJECT / "dags"))
    return {
        "import_errors": bag.import_errors,
        "dags": {dag_id: _describe_dag(dag) for dag_id, dag in bag.dags.items()},
        "heavy_modules": [name for name in HEAVY if name in sys.modules],
    }


def _describe_dag(dag: Any) -> dict[str, Any]:
    return {
        "schedule": dag.schedule if isinstance(dag.schedule, str) else None,
        "catchup": dag.catchup,
        "timetable": _describe_timetable(dag.timetable),
        "deadlines": [_describe_deadline(deadline) for deadline in dag.deadline or ()],
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "tags": sorted(dag.tags),
        "description": dag.description,
        "doc_md": dag.doc_md,
        "params": sorted(dag.params),
        "tasks": [_describe_task(task) for task in dag.topological_sort()],
    }


def _describe_timetable(timetable: Any) -> list[Any]:
    facts = ("expression", "timezone", "run_offset", "key_format")
    return [str(getattr(timetable, name, None)) for name in facts]


def _describe_deadline(deadline: Any) -> list[Any]:
    return [
        type(deadline.reference).__name__,
        deadline.interval.total_seconds(),
        deadline.callback.path,
    ]


def _describe_task(task: Any) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "downstream": sorted(task.downstream_task_ids),
        "owner": task.owner,
        "pool": task.pool,
        "weight": task.priority_weight,
        "weight_rule": str(getattr(task.weight_rule, "value", task.weight_rule)),
        "retries": task.retries,
        "at_once": task.max_active_tis_per_dag,
        "retry_policy": type(task.retry_policy).__name__,
        "execution_seconds": task.execution_timeout and task.execution_timeout.total_seconds(),
        "on_retry": [callback.__name__ for callback in task.on_retry_callback],
        "on_failure": [callback.__name__ for callback in task.on_failure_callback],
        "outlets": [asset.name for asset in task.outlets],
    }


if __name__ == "__main__":
    json.dump(describe(), sys.stdout)
