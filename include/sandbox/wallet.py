"""wallet: the partner's side of the daily resend, as its documentation describes it.

`POST /wallet/transaction/settlement` under the headers x-api-key, x-signature, x-timestamp and
content-type. A transaction is credited once, and gets its first answer when it comes again. What
the documentation leaves open, and what a partner may get wrong, is a switch of `WalletSettings`.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from include.sandbox.addresses import WALLET_KEY, WALLET_PATH, WALLET_SECRET
from include.sandbox.calls import Observer, executed_items
from include.sandbox.faults import PageShape
from include.sandbox.wallet_book import Book, BookSettings
from include.sandbox.wallet_ledger import Arrival, Arrivals
from include.sandbox.wallet_messages import (
    ERROR,
    INVALID_PARTNER,
    INVALID_SIGNATURE,
    OK,
    TOKEN_EXPIRED,
    WRONG_SYNTAX,
    WRONG_TYPES,
    Item,
    SignedBytes,
    Unreadable,
    check_signature,
    is_recent,
    read_items,
)

_STATUS_OF_REFUSAL = {
    INVALID_PARTNER: HTTPStatus.UNAUTHORIZED,
    INVALID_SIGNATURE: HTTPStatus.UNAUTHORIZED,
    TOKEN_EXPIRED: HTTPStatus.UNAUTHORIZED,
    WRONG_SYNTAX: HTTPStatus.BAD_REQUEST,
    WRONG_TYPES: HTTPStatus.UNPROCESSABLE_ENTITY,
}


class WalletSettings(BookSettings):
    """How the wallet reads and refuses requests, and how it decides about items.

    `signed_bytes` says what it holds the signature against: the bytes that came, or what a partner
    in JavaScript makes of them who parses before he checks. A timestamp is good for
    `timestamp_window_seconds` before and after now (None: for ever). A refusal of a whole request
    comes in the envelope with status 200, or with a status of its own. A request that holds a key
    of `refused_transactions`, or more than `items_limit` items (413), is refused whole with that
    status.
    """

    signing_secret: str = WALLET_SECRET
    signed_bytes: SignedBytes = "as_sent"
    timestamp_window_seconds: float | None = Field(default=300.0, gt=0)
    refusals: Literal["envelope", "status"] = "envelope"
    refused_transactions: dict[str, int] = Field(default_factory=dict)
    items_limit: int | None = Field(default=None, ge=1)


class Reading(msgspec.Struct):
    """A request as the wallet understood it: its items, or why it is refused whole.

    It is executed in the book of its time: one that waits is not to reach into what a reset began.
    """

    book: Book
    arrival: Arrival
    items: list[Item]
    refusal: str | None
    status: int


class Wallet:
    """The wallet as it stands now, under its settings."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._arrivals = Arrivals()
        self.reset()

    def reset(self) -> None:
        """Back to the settings the sandbox was started with, and to empty books."""
        self._settings = WalletSettings(seed=self._seed)
        self._arrivals.close()
        self._arrivals = Arrivals()
        self._book = Book()

    @property
    def settings(self) -> WalletSettings:
        """The settings in force."""
        return self._settings

    @property
    def book(self) -> Book:
        """What was decided and credited."""
        return self._book

    @property
    def arrivals(self) -> Arrivals:
        """What arrived."""
        return self._arrivals

    def configure(self, changes: dict[str, Any]) -> None:
        """Changes the settings named; pydantic's ValidationError if they cannot be."""
        self._settings = WalletSettings.model_validate(self._settings.model_dump() | changes)

    def ledger(self) -> dict[str, Any]:
        """Counts and sums over everything that arrived and was executed."""
        return self._arrivals.summary() | self._book.summary()

    async def arrived(self, request: Request) -> None:
        """Keeps a request, and reads it, before anything is done about it."""
        try:
            body = await request.body()
        except ClientDisconnect:
            self._arrivals.count_cut_short()
            raise
        arrival = self._arrivals.add(body, request.headers)
        request.state.reading = self._read(arrival, body, request)

    def answered(self, request: Request, status: int | None, fault: str | None) -> None:
        """Remembers what became of a request that arrived."""
        reading: Reading = request.state.reading
        reading.arrival.outcome = str(status or "broken")
        reading.arrival.fault = fault

    def settle(self, reading: Reading, executed: int | None) -> Response:
        """Executes the request's first so many items (None: all), and answers as for all."""
        if reading.refusal is not None:
            return _answer({"status": reading.refusal}, reading.status)
        items = reading.items
        limit = len(items) if executed is None else min(executed, len(items))
        number = reading.arrival.number
        data = [reading.book.settle(item, self._settings, number) for item in items[:limit]]
        data += [reading.book.rehearse(item, self._settings) for item in items[limit:]]
        reading.arrival.executed += limit
        return _answer({"status": OK, "data": data})

    def _read(self, arrival: Arrival, body: bytes, request: Request) -> Reading:
        settings, headers = self._settings, request.headers
        arrival.is_key_known = headers.get("x-api-key") == WALLET_KEY
        arrival.signature = check_signature(
            body, headers, settings.signing_secret, settings.signed_bytes
        )
        items: list[Item] = []
        unreadable: str | None = None
        try:
            items = read_items(body)
        except Unreadable as error:
            unreadable = error.code
        arrival.items = len(items)
        arrival.refusal = self._refusal_of_caller(arrival, request) or unreadable
        status = _status_of(arrival.refusal, settings)
        if arrival.refusal is None and (refused := self._refused_status(items)) is not None:
            arrival.refusal, status = ERROR, refused
        return Reading(self._book, arrival, items, arrival.refusal, status)

    def _refusal_of_caller(self, arrival: Arrival, request: Request) -> str | None:
        window = self._settings.timestamp_window_seconds
        if not arrival.is_key_known:
            return INVALID_PARTNER
        if arrival.signature != "sound":
            return INVALID_SIGNATURE
        if window is not None and not is_recent(request.headers, time.time(), window):
            return TOKEN_EXPIRED
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        return None if media_type == "application/json" else WRONG_SYNTAX

    def _refused_status(self, items: list[Item]) -> int | None:
        limit, refused = self._settings.items_limit, self._settings.refused_transactions
        if limit is not None and len(items) > limit:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        statuses = (refused.get(item.transaction_id) for item in items) if refused else ()
        return next((status for status in statuses if status is not None), None)


def wallet_routes(wallet: Wallet, observer: Observer) -> APIRouter:
    """The wallet's one call, `settlement`."""
    router = APIRouter(
        prefix=WALLET_PATH, route_class=observer.route_class("wallet", _ANSWER_SHAPE, wallet)
    )

    @router.post("/transaction/settlement", name="settlement")
    async def settlement(request: Request) -> Response:
        return wallet.settle(request.state.reading, executed_items(request))

    return router


def _status_of(refusal: str | None, settings: WalletSettings) -> int:
    is_told_by_status = refusal is not None and settings.refusals == "status"
    return _STATUS_OF_REFUSAL[refusal] if refusal and is_told_by_status else HTTPStatus.OK


def _answer(content: dict[str, Any], status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _records(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    return body.get("data")


def _envelope(body: dict[str, Any], records: list[Any], count: int) -> dict[str, Any]:
    return {"status": OK, "data": records}


def _contradict(record: dict[str, Any]) -> dict[str, Any]:
    """A refusal of what was credited, a credit of what was refused."""
    return {"status": ERROR if record["status"] == OK else OK}


_ANSWER_SHAPE = PageShape(
    records=_records,
    envelope=_envelope,
    id_field="transactionId",
    word_field="status",
    contradict=_contradict,
)
