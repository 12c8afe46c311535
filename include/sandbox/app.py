"""The sandbox as one application: the systems it plays, and the control plane under /sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from include.sandbox.addresses import CONTROL_PATH
from include.sandbox.alerts import AlertBox, alert_routes
from include.sandbox.broken_wires import BROKEN_WIRES
from include.sandbox.calls import Observer
from include.sandbox.faults import FaultOrder, FaultQueue
from include.sandbox.odd_items import ODD_ITEMS
from include.sandbox.odd_pages import ODD_PAGES
from include.sandbox.odd_values import ODD_VALUES
from include.sandbox.odds88 import Odds88, odds88_routes
from include.sandbox.odds88_faults import STREAM_FAULTS
from include.sandbox.odds88_ledger import read_states
from include.sandbox.oversized_answers import OVERSIZED_ANSWERS
from include.sandbox.prediction import Prediction, prediction_routes
from include.sandbox.slow_wires import SLOW_WIRES
from include.sandbox.spoiled_answers import SPOILED_ANSWERS
from include.sandbox.spoiling import json_answer
from include.sandbox.ticktock import Ticktock, UnknownCursor, ticktock_routes
from include.sandbox.tote import Tote, tote_routes
from include.sandbox.tote_faults import TOTE_FAULTS
from include.sandbox.wallet import Wallet, wallet_routes

# For every call; those behind them are for calls that send items to be executed.
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
ITEM_FAULTS = {fault.__name__: fault for fault in ODD_ITEMS}
FAULTS_OF_STREAMS = {fault.__name__: fault for fault in STREAM_FAULTS}
FAULTS_OF_TOTE = {fault.__name__: fault for fault in TOTE_FAULTS}


_Position = Annotated[int, Query(ge=0)]


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
    queue = FaultQueue(FAULTS | ITEM_FAULTS | FAULTS_OF_STREAMS | FAULTS_OF_TOTE)
    observer = Observer(queue)
    ticktock = Ticktock(seed, entries)
    wallet = Wallet(seed)
    odds88 = Odds88(seed, entries)
    prediction = Prediction(seed)
    tote = Tote(seed, entries)
    alerts = AlertBox()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(ticktock_routes(ticktock, observer))
    app.include_router(wallet_routes(wallet, observer))
    app.include_router(odds88_routes(odds88, observer))
    app.include_router(prediction_routes(prediction, observer))
    app.include_router(tote_routes(tote, observer))
    app.include_router(alert_routes(alerts, observer))
    app.include_router(
        _common_controls(queue, observer, alerts, (ticktock, wallet, odds88, prediction, tote))
    )
    app.include_router(_ticktock_controls(ticktock))
    app.include_router(_wallet_controls(wallet))
    app.include_router(_odds88_controls(odds88))
    app.include_router(_prediction_controls(prediction))
    app.include_router(_tote_controls(tote))
    return app


def _common_controls(
    queue: FaultQueue,
    observer: Observer,
    alerts: AlertBox,
    systems: Iterable[Ticktock | Wallet | Odds88 | Prediction | Tote],
) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/reset")
    async def reset() -> dict[str, Any]:
        queue.clear()
        observer.clear()
        alerts.clear()
        for system in systems:
            system.reset()
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

    @router.delete("/faults")
    async def forget_faults() -> list[FaultOrder]:
        queue.clear()
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


def _wallet_controls(wallet: Wallet) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/wallet/configure")
    async def configure(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        with _refusals():
            wallet.configure(changes)
        return wallet.settings.model_dump(mode="json", exclude={"signing_secret"})

    @router.get("/ledger/wallet")
    async def ledger() -> dict[str, Any]:
        return wallet.ledger()

    @router.get("/wallet/requests")
    async def requests(
        after: _Position = 0, limit: _Position = 1000, with_texts: bool = False
    ) -> Response:
        return json_answer(wallet.arrivals.report(after, limit, with_texts))

    @router.get("/wallet/credits")
    async def credits_of_all(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(wallet.book.credits(after, limit))

    @router.post("/wallet/transactions")
    async def transactions(transaction_ids: list[str]) -> Response:
        shown = wallet.book.transactions(transaction_ids)
        return json_answer([transaction.report() for transaction in shown])

    @router.get("/wallet/balances")
    async def balances(player: str | None = None) -> Response:
        return json_answer(wallet.book.balances(player))

    return router


def _odds88_controls(odds88: Odds88) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/odds88/configure")
    async def configure(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        with _refusals():
            odds88.feed.configure(changes)
        return odds88.settings.model_dump(mode="json")

    @router.post("/odds88/advance")
    async def advance(step: Entries) -> dict[str, Any]:
        with _refusals():
            odds88.feed.advance(step.entries)
        return odds88.settings.model_dump(mode="json")

    @router.get("/ledger/odds88")
    async def ledger() -> dict[str, Any]:
        return await odds88.ledger()

    @router.get("/odds88/attempts")
    async def attempts(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(odds88.visits.report(after, limit))

    @router.get("/odds88/messages")
    async def messages(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(odds88.feed.texts(after, limit))

    @router.get("/odds88/bets")
    async def bets(after: str | None = None, limit: _Position = 1000) -> Response:
        with _refusals():
            return json_answer(read_states(odds88.feed.told(), after, limit))

    return router


def _prediction_controls(prediction: Prediction) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/prediction/configure")
    async def configure(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        with _refusals():
            prediction.configure(changes)
        return prediction.settings.model_dump(mode="json")

    @router.post("/prediction/advance")
    async def advance(step: Entries) -> dict[str, Any]:
        with _refusals():
            prediction.advance(step.entries)
        return prediction.settings.model_dump(mode="json")

    @router.get("/ledger/prediction")
    async def ledger() -> dict[str, Any]:
        return await prediction.ledger()

    @router.get("/prediction/market_ids")
    async def market_ids(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(prediction.market_ids(after, limit))

    @router.get("/prediction/markets")
    async def markets(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(prediction.states(after, limit))

    @router.get("/prediction/owed")
    async def owed(market_id: str) -> Response:
        with _refusals():
            return json_answer(prediction.owed(market_id))

    return router


def _tote_controls(tote: Tote) -> APIRouter:
    router = APIRouter(prefix=CONTROL_PATH)

    @router.post("/tote/configure")
    async def configure(changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        with _refusals():
            tote.book.configure(changes)
        return tote.settings.model_dump(mode="json")

    @router.post("/tote/advance")
    async def advance(step: Entries) -> dict[str, Any]:
        with _refusals():
            tote.book.advance(step.entries)
        return tote.settings.model_dump(mode="json")

    @router.get("/ledger/tote")
    async def ledger() -> dict[str, Any]:
        return await tote.ledger()

    @router.get("/tote/connections")
    async def connections() -> Response:
        return json_answer(tote.visits)

    @router.get("/tote/bets")
    async def bets(after: _Position = 0, limit: _Position = 1000) -> Response:
        return json_answer(tote.states(after, limit))

    @router.post("/tote/states")
    async def states(tote_ids: list[str]) -> Response:
        return json_answer(tote.states_of(tote_ids))

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
