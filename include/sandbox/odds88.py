"""odds88: the settlement feed as its documentation describes it, and who may hear it.

`POST /odds88/api/Account/login` gives a JWT, as text or as a JSON string. The WebSocket
`/odds88/feed/settlement/v4?revision=` takes it under the header Authorization, and sends the
history from that revision on and then what is new. The log-in is described on the account page of
the same documentation: a bare string, good for 24 hours, at most 5 log-ins a second. What it
leaves open is a switch of `Odds88Settings`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from include.sandbox.addresses import ODDS88_CLIENT_ID, ODDS88_PASSWORD, ODDS88_PATH
from include.sandbox.calls import Observer, executed_items
from include.sandbox.odds88_access import Attempt, Budgets, Refusal, Tokens, Visits
from include.sandbox.odds88_feed import Feed
from include.sandbox.odds88_ledger import read_ledger
from include.sandbox.odds88_settings import Odds88Settings
from include.sandbox.odds88_stream import Stream
from include.sandbox.sockets import (
    Socket,
    SocketResponse,
    keep_reading,
    wants_socket,
)
from include.sandbox.streams import StreamResponse
from include.sandbox.timeline import SECOND

_POLICY_VIOLATION = 1008
_STATUS_OF_REFUSAL: dict[Refusal, HTTPStatus] = {
    "token": HTTPStatus.UNAUTHORIZED,
    "upgrade": HTTPStatus.UPGRADE_REQUIRED,
    "revision": HTTPStatus.BAD_REQUEST,
    "budget": HTTPStatus.TOO_MANY_REQUESTS,
    "second_connection": HTTPStatus.TOO_MANY_REQUESTS,
}


class LogIn(BaseModel):
    """The credentials of a client."""

    model_config = ConfigDict(extra="forbid")

    client_id: str = Field(min_length=1, alias="clientId")
    password: str = Field(min_length=1)


class Odds88:
    """The feed and its one connection: witness of every attempt to connect."""

    def __init__(self, seed: int, messages: int) -> None:
        self._seed = seed
        self._messages = messages
        self._stream: Stream | None = None
        self.reset()

    def reset(self) -> None:
        """Back to the settings the sandbox was started with; an open stream ends."""
        self._end_stream("reset")
        self.feed = Feed(self._seed, self._messages)
        self.visits = Visits()
        self._budgets = Budgets()
        self._tokens = Tokens(self._seed)
        self._log_ins: deque[float] = deque()

    @property
    def settings(self) -> Odds88Settings:
        """The settings in force."""
        return self.feed.settings

    def log_in(self, credentials: LogIn, *, is_rehearsed: bool) -> str:
        """A token. HTTPException if they are wrong, or if too many log in."""
        now = time.monotonic()
        while self._log_ins and self._log_ins[0] <= now - 1:
            self._log_ins.popleft()
        if len(self._log_ins) >= self.settings.log_ins_a_second:
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests")
        self._log_ins.append(now)
        if (credentials.client_id, credentials.password) != (ODDS88_CLIENT_ID, ODDS88_PASSWORD):
            self.visits.log_ins_refused += 1
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        self.visits.log_ins += not is_rehearsed
        return self._tokens.issue(
            credentials.client_id,
            self.visits.log_ins,
            self.feed.now / SECOND,
            self.settings.token_seconds,
        )

    async def arrived(self, request: Request) -> None:
        """Judges an attempt to connect, before anything else is done about it."""
        keep_reading(request.scope)
        attempt = self.visits.add(self.feed.now / SECOND, request.query_params.get("revision"))
        request.state.attempt = attempt
        request.state.stream = None
        request.state.is_begun = False
        attempt.refusal = self._refusal_of_caller(attempt, request)
        if attempt.refusal is None:
            self._judge(attempt)
        if attempt.refusal is None:
            self._end_stream("replaced by another connection")
            self._stream = Stream(self.feed, self.visits, attempt)
            request.state.stream = self._stream

    def answered(self, request: Request, status: int | None, fault: str | None) -> None:
        """Remembers what became of an attempt; one that failed leaves its place to others."""
        attempt: Attempt = request.state.attempt
        attempt.outcome = str(status or "broken")
        attempt.fault = fault
        is_begun = status == HTTPStatus.SWITCHING_PROTOCOLS and request.state.is_begun
        if not is_begun and request.state.stream is self._stream:
            self._stream = None

    def answer(self, request: Request) -> Response:
        """The handshake of a stream, or why there is none."""
        attempt: Attempt = request.state.attempt
        key = request.headers.get("sec-websocket-key", "")
        if request.state.stream is not None:
            request.state.is_begun = True
            return StreamResponse(key, request.state.stream)
        assert attempt.refusal is not None
        if attempt.violation and self.settings.refusals == "close":
            return _closing(key, attempt.refusal)
        headers = {"Upgrade": "websocket"} if attempt.refusal == "upgrade" else {}
        if attempt.retry_after_seconds is not None:
            headers["Retry-After"] = str(math.ceil(attempt.retry_after_seconds))
        return Response(attempt.refusal, _STATUS_OF_REFUSAL[attempt.refusal], headers)

    async def ledger(self) -> dict[str, Any]:
        """The truth about the bets, and about who came to hear it."""
        told = await read_ledger(self.feed.told())
        return self.visits.summary() | dict(msgspec.to_builtins(told))

    def _refusal_of_caller(self, attempt: Attempt, request: Request) -> Refusal | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            attempt.token = self._tokens.identify(token.strip(), attempt.at)
        if attempt.token is None:
            return "token"
        if not wants_socket(request.headers):
            return "upgrade"
        attempt.kind = self.feed.kind(attempt.revision)
        return "revision" if attempt.kind is None else None

    def _judge(self, attempt: Attempt) -> None:
        settings = self.settings
        self._budgets.charge(attempt, settings.attempts_a_window, settings.refused_attempts_count)
        if attempt.refusal is not None:
            return
        if self._stream is not None and not self._stream.is_over:
            attempt.violation = "second_connection"
            if settings.second_connection == "refused":
                attempt.refusal = "second_connection"
        elif attempt.kind != "proper" and self.feed.switch(attempt.kind) == "refused":
            attempt.refusal = "revision"

    def _end_stream(self, reason: str) -> None:
        if self._stream is not None:
            self._stream.end(_POLICY_VIOLATION, reason)
            self._stream = None


def odds88_routes(odds88: Odds88, observer: Observer) -> APIRouter:
    """odds88's calls, `log_in` and `settlements`."""
    router = APIRouter(prefix=ODDS88_PATH)
    account = APIRouter(route_class=observer.route_class("odds88"))
    feed = APIRouter(route_class=observer.route_class("odds88", witness=odds88))

    @account.post("/api/Account/login", name="log_in")
    async def log_in(
        request: Request,
        credentials: LogIn,
        accept: Annotated[str | None, Header()] = None,
    ) -> Response:
        token = odds88.log_in(credentials, is_rehearsed=executed_items(request) == 0)
        if accept and "json" in accept.lower():
            return Response(msgspec.json.encode(token), media_type="application/json")
        return Response(token, media_type="text/plain")

    @feed.get("/feed/settlement/v4", name="settlements")
    async def settlements(request: Request) -> Response:
        return odds88.answer(request)

    router.include_router(account)
    router.include_router(feed)
    return router


def _closing(key: str, reason: str) -> Response:
    """A sound handshake, and then nothing but the end."""

    async def script(socket: Socket) -> None:
        await socket.close(_POLICY_VIOLATION, reason)

    return SocketResponse(key, script)
