"""tote: bets by GraphQL, and a socket that hints at what happens to them.

`POST /tote/gateway/graphql` answers the query `bets` under the header Authorization, `Api-Key` or
`Bearer`. The WebSocket `/tote/connections/graphql` tells of what happens from then on, in the
subprotocol that the client asks for. What the documentation leaves open is a switch of
`ToteSettings`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import APIRouter, HTTPException, Request, Response

from include.sandbox.addresses import TOTE_KEY, TOTE_PATH, TOTE_TOKEN
from include.sandbox.calls import Observer
from include.sandbox.faults import PageShape
from include.sandbox.sockets import keep_reading, wants_socket
from include.sandbox.spoiling import json_answer
from include.sandbox.streams import StreamResponse
from include.sandbox.timeline import SECOND
from include.sandbox.tote_book import Book
from include.sandbox.tote_graphql import Questions, graphql_app, schema_of
from include.sandbox.tote_ledger import BetState, read_ledger, read_states, state_of
from include.sandbox.tote_settings import Subprotocol, ToteSettings
from include.sandbox.tote_stream import HintStream, Visit

_SERVICE_RESTART = 1012
_AUTHORIZATIONS = {f"Api-Key {TOTE_KEY}", f"Bearer {TOTE_TOKEN}"}


class Tote:
    """tote as it stands now, under its settings."""

    def __init__(self, seed: int, bets: int) -> None:
        self._seed = seed
        self._bets = bets
        self._streams: list[HintStream] = []
        self._schema = schema_of(lambda: self.questions)
        self._graphql = graphql_app(self._schema)
        self.reset()

    def reset(self) -> None:
        """Back to the settings the sandbox was started with; open connections end."""
        for stream in self._streams:
            stream.end(_SERVICE_RESTART, "reset")
        self._streams = []
        self.visits: list[Visit] = []
        self.book = Book(self._seed, self._bets)
        self.questions = Questions(self.book)
        self._requests: deque[float] = deque()

    @property
    def settings(self) -> ToteSettings:
        """The settings in force."""
        return self.book.settings

    async def ledger(self) -> dict[str, Any]:
        """The truth about the bets, and what was asked of them."""
        told: dict[str, Any] = msgspec.to_builtins(await read_ledger(self.book))
        return told | {"asked": self.questions.asked.report(), "connections": self._connections()}

    def states(self, after: int, limit: int) -> list[BetState]:
        """How so many bets stand, from this number on."""
        return read_states(self.book, after, limit)

    def states_of(self, tote_ids: Iterable[str]) -> list[BetState]:
        """How these bets stand, those left out that are none."""
        told = (state_of(self.book, tote_id) for tote_id in tote_ids)
        return [each for each in told if each is not None]

    async def answer(self, request: Request) -> Response:
        """Answers a question, or says why not."""
        refusal = self._refusal(request)
        if refusal is None:
            return await self._graphql.handle_request(request)
        if self.settings.refusals == "status" or refusal.status_code != HTTPStatus.UNAUTHORIZED:
            raise refusal
        code = {"code": "AUTH_NOT_AUTHENTICATED"}
        message = "The current user is not authorized to access this resource."
        return json_answer({"errors": [{"message": message, "extensions": code}], "data": None})

    def connect(self, request: Request) -> Response:
        """The handshake of a connection, or why there is none."""
        keep_reading(request.scope)
        if not wants_socket(request.headers):
            raise HTTPException(
                HTTPStatus.UPGRADE_REQUIRED, "Upgrade required", {"Upgrade": "websocket"}
            )
        if not is_key(request.headers.get("authorization", "")):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        subprotocol = self._chosen(request.headers.get("sec-websocket-protocol", ""))
        visit = Visit(
            number=len(self.visits) + 1, at=self.book.now / SECOND, subprotocol=subprotocol
        )
        self.visits.append(visit)
        stream = HintStream(self.book, visit, self._schema, is_key)
        self._streams = [each for each in self._streams if not each.is_over] + [stream]
        return StreamResponse(request.headers["sec-websocket-key"], stream, subprotocol)

    def _refusal(self, request: Request) -> HTTPException | None:
        if not is_key(request.headers.get("authorization", "")):
            return HTTPException(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        wait = self._seconds_to_wait()
        if wait is None:
            return None
        headers = {"Retry-After": str(math.ceil(wait))}
        return HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", headers)

    def _seconds_to_wait(self) -> float | None:
        """How long a client has to wait that may ask no more now."""
        now, limit = time.monotonic(), self.settings.requests_a_minute
        while self._requests and self._requests[0] <= now - 60:
            self._requests.popleft()
        if limit is not None and len(self._requests) >= limit:
            return self._requests[-limit] + 60 - now
        self._requests.append(now)
        return None

    def _chosen(self, offered: str) -> Subprotocol | None:
        names = [name.strip() for name in offered.split(",")]
        known = self.settings.subprotocols
        return next((each for name in names for each in known if each == name), None)

    def _connections(self) -> dict[str, int]:
        now = sum(stream.is_heard for stream in self._streams)
        hints = sum(visit.messages for visit in self.visits)
        return {"now": now, "ever": len(self.visits), "hints_sent": hints}


def tote_routes(tote: Tote, observer: Observer) -> APIRouter:
    """tote's calls, `bets` and `hints`."""
    router = APIRouter(prefix=TOTE_PATH, redirect_slashes=False)
    gateway = APIRouter(route_class=observer.route_class("tote", _PAGE_SHAPE))
    connections = APIRouter(route_class=observer.route_class("tote"))

    @gateway.post("/gateway/graphql", name="bets")
    async def bets(request: Request) -> Response:
        return await tote.answer(request)

    @connections.get("/connections/graphql", name="hints")
    async def hints(request: Request) -> Response:
        return tote.connect(request)

    router.include_router(gateway)
    router.include_router(connections)
    return router


def is_key(authorization: str) -> bool:
    """Whether a header or a first frame names a key or a token that is good."""
    return authorization in _AUTHORIZATIONS


def _records(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    told = (body.get("data") or {}).get("bets") or {}
    return told.get("nodes")


def _envelope(body: dict[str, Any], records: list[Any], count: int) -> dict[str, Any]:
    return {"data": {"bets": body["data"]["bets"] | {"nodes": records}}}


def _contradict(record: dict[str, Any]) -> dict[str, Any]:
    """Not settled what was, refunded what was not."""
    is_settled = record["settlement"]["status"] == "SETTLED"
    return {"settlement": {"status": "PENDING" if is_settled else "REFUNDED"}}


_PAGE_SHAPE = PageShape(
    records=_records,
    envelope=_envelope,
    id_field="toteId",
    word_field="settlement",
    contradict=_contradict,
)
