"""Settle markets: take events, plan, settle, wait, retry, fetch, check, publish, credit, send."""

from __future__ import annotations

from airflow.sdk import DAG

from include.orchestration.documentation import document_settle_markets
from include.orchestration.settling import form_fields
from include.orchestration.tasks.settle_markets import (
    check,
    credit,
    fetch_payouts,
    in_shards,
    plan,
    publish,
    report_failures,
    retry_failed,
    send_credits,
    settle,
    take_events,
    wait_for_status,
)
from include.orchestration.tasks.shared import TASK_DEFAULTS

with DAG(
    dag_id="settle_markets",
    description="Settles resolved markets, and credits their players.",
    schedule="*/5 * * * *",
    catchup=False,
    # Only for the eye: a market is moved by whoever comes first.
    max_active_runs=1,
    # Of up to forty shards. Half of the pool `warehouse`: the other half is there for all else.
    max_active_tasks=4,
    default_args=TASK_DEFAULTS,
    params=form_fields(),
    tags=["markets", "prediction"],
    doc_md=document_settle_markets(),
) as dag:
    shards = plan()
    take_events() >> shards
    (
        in_shards(shards, settle, wait_for_status, retry_failed, fetch_payouts)
        >> check()
        >> publish()
        >> credit()
        >> send_credits()
    )
    report_failures(dag)
