"""Watch every feed, and deliver the alerts that wait."""

from __future__ import annotations

from airflow.sdk import DAG

from include.orchestration.documentation import document_watch_feeds
from include.orchestration.tasks.shared import TASK_DEFAULTS
from include.orchestration.tasks.watch_feeds import send_alerts, watch

with DAG(
    dag_id="watch_feeds",
    description="Finds feeds that are late, batches that are stuck and gaps; delivers alerts.",
    schedule="*/5 * * * *",
    catchup=False,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    tags=["watch"],
    doc_md=document_watch_feeds(),
):
    watch() >> send_alerts()
