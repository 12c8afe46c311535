"""The step of `resolve_findings` as an Airflow task."""

from __future__ import annotations

from typing import Any

from include.orchestration.connections import open_warehouse
from include.orchestration.resolving import Form, resolve_each
from include.orchestration.tasks.shared import URGENT, task


# Not tried again by itself: whoever decided sees what was refused, and decides anew.
@task(retries=0, priority_weight=URGENT)
def resolve(params: Any = None, dag_run: Any = None) -> dict[str, Any]:
    """Carry out the decision of the form for each of its findings."""
    form = Form(**params)
    return resolve_each(open_warehouse(), form, dag_run.triggering_user_name, dag_run.run_id)
