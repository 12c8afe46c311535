"""Catch up with each source: land, check, normalize, check again, publish."""

from __future__ import annotations

from airflow.sdk import DAG

from include.catchup.sources import SOURCES
from include.orchestration.documentation import document_catch_up
from include.orchestration.tasks.catch_up import (
    check_raw,
    check_settlements,
    land,
    land_time_limit,
    listen_beside,
    normalize,
    publish,
)
from include.orchestration.tasks.shared import TASK_DEFAULTS

for source in SOURCES.values():
    with DAG(
        dag_id=f"catch_up_{source.name}",
        description=f"Brings what {source.name} has decided since the last run into the warehouse.",
        schedule=source.schedule,
        catchup=False,
        max_active_runs=1,
        default_args=TASK_DEFAULTS,
        tags=["catch_up", source.name],
        doc_md=document_catch_up(source),
    ):
        (
            land.override(execution_timeout=land_time_limit(source))(source.name)
            >> check_raw(source.name)
            >> normalize(source.name)
            >> check_settlements(source.name)
            >> publish(source.name)
        )
        listen_beside(source)
