"""Resolve findings by hand: a form, and one decision for each finding that it names."""

from __future__ import annotations

from airflow.sdk import DAG

from include.orchestration.documentation import document_resolve_findings
from include.orchestration.resolving import form_fields
from include.orchestration.tasks.resolve_findings import resolve
from include.orchestration.tasks.shared import TASK_DEFAULTS

with DAG(
    dag_id="resolve_findings",
    description="Carries out what a person decides about findings, and records it.",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    default_args=TASK_DEFAULTS,
    params=form_fields(),
    tags=["by_hand", "findings"],
    doc_md=document_resolve_findings(),
):
    resolve()
