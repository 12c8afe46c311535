"""The sandbox as one application: the systems it plays, and the control plane under /sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from include.sandbox.addresses import CONTROL_PATH
from include.sandbox.alerts import AlertBox, alert_routes
from include.sandbox.broken_wires import BROKEN_WIRES
from include.sandbox.calls import Observer
from include.sandbox.faults import FaultOrder, FaultQueue
from include.sandbox.odd_pages import ODD_PAGES
from include.sandbox.odd_values import ODD_VALUES
from include.sandbox.oversized_answers import OVERSIZED_ANSWERS
from include.sandbox.slow_wires import SLOW_WIRES
from include.sandbox.spoiled_answers import SPOILED_ANSWERS
from include.sandbox.ticktock import Ticktock, UnknownCursor, ticktock_routes

FAULTS = {
    fault.__name__: fault
    for fault in (
        *SPOILED_ANSWERS,
        *ODD_PAGES,
        *ODD_VALUES,
        *OVERSIZED_ANSWERS,
        *SLOW_WIRES,
        *BROKEN_WIRES,
    )
}


class Entries(BaseModel):
    """A number of entries."""

    model_config = ConfigDict(extra="forbid")

    entries: int = Field(ge=0)


class EntryIndexes(BaseModel):
    """Some entries, by their index."""

    model_config = ConfigDict(extra="forbid")

    entries: list[int]


def create_app(seed: int, entries: int) -> FastAPI:
    """A sandbox of its own, its logs `entries` long; what it makes up follows from the seed."""
    queue = FaultQueue(FAULTS)
    observer = Observer(queue)
    ticktock = Ticktock(seed, entries)
    alerts = AlertBox()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(ticktock_routes(ticktock, observer))
    app.include_router(alert_routes(alerts, observer))
    app.include_router(_common_controls(queue, observer, alerts, ticktock))
    app.include_router(_ticktock_controls(ticktock))
    return app


def _common_controls(
    queue: FaultQueue, observer: Observer, alerts: AlertBox, ticktock: Ticktock
) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/reset")
    async def reset() -> dict[str, Any]:
        queue.clear()
        observer.clear()
        alerts.clear()
        ticktock.reset()
        return {}

    @router.post("/faults")
    async def order_fault(order: FaultOrder) -> list[FaultOrder]:
        with _refusals():
            observer.check_call(order.provider, order.call)
            queue.add(order)
        return queue.orders

    @router.get("/faults")
    async def list_faults() -> list[FaultOrder]:
        return queue.orders

    @router.get("/calls")
    async def list_calls() -> dict[str, Any]:
        return observer.report()

    @router.get("/alerts")
    async def list_alerts() -> dict[str, Any]:
        return alerts.report()

    return router


def _ticktock_controls(ticktock: Ticktock) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/ticktock/configure")
    async def configure(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        with _refusals():
            ticktock.configure(changes)
        return ticktock.settings.model_dump(mode="json")

    @router.post("/ticktock/advance")
    async def advance(step: Entries) -> dict[str, Any]:
        with _refusals():
            ticktock.advance(step.entries)
        return ticktock.settings.model_dump(mode="json")

    @router.post("/ticktock/release")
    async def release(late: EntryIndexes) -> dict[str, Any]:
        ticktock.release(late.entries)
        return ticktock.settings.model_dump(mode="json")

    @router.get("/ledger/ticktock")
    async def ledger(up_to_id: str | None = None) -> dict[str, Any]:
        with _refusals():
            return dict(msgspec.to_builtins(await ticktock.ledger(up_to_id)))

    return router


@contextmanager
def _refusals() -> Iterator[None]:
    """What a test asked for wrongly is answered with the reason, not with a bare 500."""
    try:
        yield
    except UnknownCursor:
        raise HTTPException(HTTPStatus.NOT_FOUND, "The log shows no entry with this id") from None
    except ValueError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
