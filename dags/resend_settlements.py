"""Send yesterday's payouts that were not processed to the wallet: freeze, check, send, check."""

from __future__ import annotations

from airflow.sdk import DAG, CronPartitionTimetable

from include.orchestration.deadlines import RESEND_DEADLINE
from include.orchestration.documentation import document_resend_settlements
from include.orchestration.resending import form_fields
from include.orchestration.tasks.resend_settlements import (
    check_outbox,
    check_outcome,
    prepare,
    send,
)
from include.orchestration.tasks.shared import TASK_DEFAULTS

with DAG(
    dag_id="resend_settlements",
    description="Sends payouts that were not processed to the wallet, until each has an end.",
    schedule=CronPartitionTimetable(
        "0 1 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"
    ),
    catchup=False,
    # Only for the eye: what keeps two runs apart is a lease in the warehouse.
    max_active_runs=1,
    deadline=RESEND_DEADLINE,
    default_args=TASK_DEFAULTS,
    params=form_fields(),
    tags=["payouts", "wallet"],
    doc_md=document_resend_settlements(),
):
    prepare() >> check_outbox() >> send() >> check_outcome()
