"""The step of `import_files` as an Airflow task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from include.orchestration.connections import open_warehouse
from include.orchestration.importing import import_each
from include.orchestration.tasks.shared import SETTINGS, task


@task(execution_timeout=timedelta(hours=6))
def import_files(params: Any = None) -> dict[str, Any] | None:
    """Import the file named in the form, or every one that waits in the import folder."""
    folder, path, day = SETTINGS.import_folder, params["path"], params["business_date"]
    return import_each(open_warehouse(), folder, path, day) or None
