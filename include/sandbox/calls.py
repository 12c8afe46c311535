"""Every call of every system passes here: it is recorded, and answered soundly or by a fault."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec
from fastapi import Request, Response
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from include.sandbox.faults import Exchange, FaultQueue, PageShape
from include.sandbox.wire import WireResponse

RECENT_CALLS = 200
_EXECUTED_ITEMS = "sandbox.executed_items"


def executed_items(request: Request) -> int | None:
    """How many items of a call are to be executed, the first ones; None: all, 0: only rehearse."""
    items: int | None = request.scope.get(_EXECUTED_ITEMS)
    return items


class Witness(Protocol):
    """Who sees each call of a provider when it comes, before a fault can, and how it went out."""

    async def arrived(self, request: Request) -> None:
        """A request has come; ClientDisconnect if it never came whole."""

    def answered(self, request: Request, status: int | None, fault: str | None) -> None:
        """It was answered with this status, None if the connection was broken instead."""


class Call(msgspec.Struct, frozen=True):
    """One call as it was seen and answered; headers, and with them keys, are not kept.

    `status` is None where the connection was broken; `fault` names the fault, if there was one.
    """

    number: int
    at: datetime
    provider: str
    call: str
    path: str
    query: dict[str, str]
    status: int | None
    fault: str | None


class Observer:
    """Stands before every provider's calls: counts them and lets ordered faults take their turn."""

    def __init__(self, faults: FaultQueue) -> None:
        self._faults = faults
        self._calls_of: dict[str, set[str]] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets every call seen."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._recent: deque[Call] = deque(maxlen=RECENT_CALLS)
        self._last_answers: dict[tuple[str, str], Response] = {}

    def check_call(self, provider: str, call: str | None) -> None:
        """ValueError unless this provider has this call (None: any)."""
        known = self._calls_of.get(provider)
        if known is None:
            raise ValueError(f"no provider {provider!r}; there are: {sorted(self._calls_of)}")
        if call is not None and call not in known:
            raise ValueError(f"{provider} has no call {call!r}; there are: {sorted(known)}")

    def report(self) -> dict[str, Any]:
        """All calls counted by call and status ("broken" without one), and the most recent ones."""
        counts: dict[str, dict[str, int]] = {}
        for (call, status), count in sorted(self._counts.items()):
            counts.setdefault(call, {})[status] = count
        return {
            "total": self._counts.total(),
            "counts": counts,
            "recent": msgspec.to_builtins(list(self._recent)),
        }

    def route_class(
        self, provider: str, page_shape: PageShape | None = None, witness: Witness | None = None
    ) -> type[APIRoute]:
        """The class of routes whose calls are this provider's, each called by its route's name."""
        observer = self

        class ObservedRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handler = super().get_route_handler()
                observed = observer._observed(handler, provider, self.name, page_shape)
                return observed if witness is None else _witnessed(observed, witness)

        return ObservedRoute

    def _observed(
        self,
        handler: Callable[[Request], Coroutine[Any, Any, Response]],
        provider: str,
        call: str,
        page_shape: PageShape | None,
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        self._calls_of.setdefault(provider, set()).add(call)

        async def handle(request: Request) -> Response:
            answers: list[Response] = []

            async def answer() -> Response:
                if not answers:
                    answers.append(await _answer_of(handler, request))
                return answers[0]

            async def answer_executing(items: int) -> Response:
                request.scope[_EXECUTED_ITEMS] = items
                try:
                    return await _answer_of(handler, request)
                finally:
                    del request.scope[_EXECUTED_ITEMS]

            async def answer_to(changes: dict[str, str | None]) -> Response:
                return await _answer_of(handler, _asking(request, changes))

            previous = self._last_answers.get((provider, call))
            exchange = Exchange(
                answer, answer_executing, answer_to, request.query_params, previous, page_shape
            )
            fault, response = await self._faults.spoil(provider, call, exchange)
            if answers:
                self._last_answers[provider, call] = answers[0]
            self._record(provider, call, request, response, fault)
            request.state.fault = fault
            return response

        return handle

    def _record(
        self, provider: str, call: str, request: Request, response: Response, fault: str | None
    ) -> None:
        status = _status(response)
        self._counts[f"{provider}.{call}", str(status or "broken")] += 1
        self._recent.append(
            Call(
                number=self._counts.total(),
                at=datetime.now(UTC),
                provider=provider,
                call=call,
                path=request.url.path,
                query=dict(request.query_params),
                status=status,
                fault=fault,
            )
        )


def _witnessed(
    handler: Callable[[Request], Coroutine[Any, Any, Response]], witness: Witness
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def handle(request: Request) -> Response:
        try:
            await witness.arrived(request)
        except ClientDisconnect:
            # Nobody is there to read it.
            return Response()
        response = await handler(request)
        witness.answered(request, _status(response), request.state.fault)
        return response

    return handle


def _status(response: Response) -> int | None:
    """The status of an answer; None if it breaks the connection."""
    return None if isinstance(response, WireResponse) else response.status_code


def _asking(request: Request, changes: dict[str, str | None]) -> Request:
    """The request with these parameters of its query changed, those of None left out."""
    query = {**request.query_params, **changes}
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    return Request({**request.scope, "query_string": asked.encode()}, request.receive)


async def _answer_of(
    handler: Callable[[Request], Coroutine[Any, Any, Response]], request: Request
) -> Response:
    """What the call answers, refusals included, as FastAPI words them."""
    try:
        return await handler(request)
    except HTTPException as error:
        return await http_exception_handler(request, error)
    except RequestValidationError as error:
        return await request_validation_exception_handler(request, error)
