"""Import files by hand: payouts, bets of tote, markets, and the messages that fill a gap."""

from __future__ import annotations

from airflow.sdk import DAG

from include.orchestration.documentation import document_import_files
from include.orchestration.importing import form_fields
from include.orchestration.tasks.import_files import import_files
from include.orchestration.tasks.shared import TASK_DEFAULTS

with DAG(
    dag_id="import_files",
    description="Imports files that wait in the import folder, or the one that is named.",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    params=form_fields(),
    tags=["by_hand", "markets", "odds88", "payouts", "tote"],
    doc_md=document_import_files(),
):
    import_files()
