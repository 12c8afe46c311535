"""The Airflow plugin: the page Findings in the UI's menu, and what a deadline counts from."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from pydantic import ValidationError

from include.orchestration.deadlines import RunAfter
from include.orchestration.findings_page.app import URL_PREFIX, create_app

# A task's process is forked by one that has loaded the plugins, and inherits their modules.  Tasks
# are imported here so that it need not import them anew, which takes longer than finding no work.
# A setting out of range is told by the DAGs; it must not take the page away as well.
with suppress(ValidationError):
    from include.orchestration import documentation  # noqa: F401
    from include.orchestration.tasks import (  # noqa: F401
        catch_up,
        import_files,
        resend_settlements,
        resolve_findings,
        settle_markets,
        watch_feeds,
    )


class SettlementPipelines(AirflowPlugin):
    """What Airflow itself is told of us."""

    name = "settlement_pipelines"
    fastapi_apps: ClassVar[list[Any]] = [
        {"name": "Findings", "app": create_app(), "url_prefix": URL_PREFIX}
    ]
    deadline_references: ClassVar[list[Any]] = [RunAfter]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Findings",
            "href": f"{URL_PREFIX.lstrip('/')}/",
            "url_route": "findings",
            "destination": "nav",
            "nav_top_level": True,
        }
    ]
