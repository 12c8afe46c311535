"""The application behind the page: three files and one JSON route, for whoever may see the runs.

A decision does not pass through here: the page asks Airflow's own API to trigger
`resolve_findings`, as the person who looks at it and with that person's rights.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.exc import DBAPIError

from include.orchestration.connections import ConnectionIncomplete, open_warehouse
from include.orchestration.findings_page.listing import list_findings

URL_PREFIX = "/settlement-pipelines/findings"

_FILES = Path(__file__).parent
# The page shows text that providers wrote: no script but its own runs, nothing is loaded from
# elsewhere, and only Airflow's UI may frame it.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


# Airflow loads plugins anew in each task's process, which inherits what was made before its fork.
@cache
def create_app() -> FastAPI:
    """The application; every route asks for the right to see the runs of `resolve_findings`."""
    may_see = requires_access_dag("GET", DagAccessEntity.RUN, "resolve_findings")
    app = FastAPI(dependencies=[Depends(may_see)], docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def add_headers(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await answer(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(_FILES / "page.html")

    @app.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(_FILES / "page.js")

    @app.get("/page.css")
    def style() -> FileResponse:
        return FileResponse(_FILES / "page.css")

    @app.get("/open")
    def open_findings() -> dict[str, Any]:
        try:
            return list_findings(open_warehouse())
        except ConnectionIncomplete as error:
            raise HTTPException(503, str(error)) from None
        except DBAPIError:
            raise HTTPException(
                503,
                "The warehouse does not answer, so no finding can be shown; none is lost. Check "
                "the Airflow connection `warehouse` and its server, then load this page again.",
            ) from None

    return app
