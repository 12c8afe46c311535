"""prediction: the settlements of a prediction engine, as its documentation describes them.

Below `/prediction/api/v1`, under the header X-Api-Key: `POST /markets/{id}/settle`,
`GET /markets/{id}/settlement-status`, `GET /settlements?marketId&playerId`,
`POST /markets/{id}/retry-settlements` and `GET /events?since&eventType&marketId&limit`. What the
documentation leaves open, and what an engine may get wrong, is a switch of `PredictionSettings`.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from include.sandbox.addresses import PREDICTION_KEY, PREDICTION_PATH
from include.sandbox.calls import Observer, executed_items
from include.sandbox.faults import PageShape
from include.sandbox.prediction_book import SECOND, Market, Row
from include.sandbox.prediction_ledger import MarketState, Owed, read_ledger, read_owed, read_state
from include.sandbox.prediction_messages import (
    ALREADY_COMPLETED,
    FAILED,
    SettlementMessage,
    settle_data,
    settlement_message,
    status_data,
    time_text,
)
from include.sandbox.prediction_positions import (
    market_id,
    market_number,
    winning_outcome,
)
from include.sandbox.prediction_settings import PredictionSettings
from include.sandbox.timeline import Timeline

# So many markets behind those resolved are open.
_OPEN_MARKETS = 10
_FIRST_SEQUENCE = 5_000
_SEQUENCE_STEP = 3
_EVENT_TYPES = ("MARKET_CLOSED", "MARKET_RESOLVED")
# History is made anew where one of these is changed.
_BEGINNINGS = {"seed", "markets", "history_seconds", "clock_stopped_at"}


class Refusal(Exception):
    """The engine refuses a call, under an error code and a status."""

    def __init__(self, code: str, message: str, status: HTTPStatus) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Prediction:
    """The engine as it stands now, under its settings: witness of what is called upon when."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Back to the settings the sandbox was started with; nothing is settled."""
        self._settings = PredictionSettings(seed=self._seed)
        self._begin()

    @property
    def settings(self) -> PredictionSettings:
        """The settings in force."""
        return self._settings

    @property
    def now(self) -> int:
        """What the sandbox's clock shows, in microseconds since 1970, UTC."""
        stopped = self._settings.clock_stopped_at
        now = time.time_ns() // 1000 if stopped is None else round(stopped.timestamp() * SECOND)
        return now + round(self._settings.clock_offset_seconds * SECOND)

    def configure(self, changes: dict[str, Any]) -> None:
        """Changes the settings named; pydantic's ValidationError if they cannot be."""
        self._settings = PredictionSettings.model_validate(self._settings.model_dump() | changes)
        if _BEGINNINGS & changes.keys():
            self._begin()

    def advance(self, markets: int) -> None:
        """Resolves so many markets more, now."""
        changes = {"markets": self._timeline.head + markets}
        self._settings = PredictionSettings.model_validate(self._settings.model_dump() | changes)
        self._timeline.advance(markets, self.now)

    async def arrived(self, request: Request) -> None:
        """An order that waits is not to reach into what a reset began."""
        request.state.book = self._book

    def answered(self, request: Request, status: int | None, fault: str | None) -> None:
        """Nothing is kept of how a call went out."""

    def settle(self, book: dict[int, Market], named: str, executed: int | None) -> Response:
        """Settles a market's first so many positions (None: all), and answers as for all."""
        settings, now = self._settings, self.now
        market = self._market(book, named)
        market = replace(market, settle_calls=market.settle_calls + 1)
        is_error = market.settle_calls <= settings.settle_errors
        is_left = not _is_ordered(market)
        done = market.settled(settings, now, None) if is_left else market
        if executed != 0:
            is_executed = is_left and (not is_error or settings.settle_errors_execute)
            book[market.number] = market.settled(settings, now, executed) if is_executed else market
        if is_error:
            raise Refusal(FAILED, "Settlement processing encountered an error", _ERROR)
        if not is_left:
            self._check_repetition(market)
        rows = [rows[-1] for rows in done.rows(now)]
        return _answer(settle_data(settings, done, rows, is_retry=False))

    def retry(self, book: dict[int, Market], named: str, executed: int | None) -> Response:
        """Retries a market's first so many failed positions (None: all), and answers as for all."""
        settings, now = self._settings, self.now
        market = self._market(book, named)
        market = replace(market, retry_calls=market.retry_calls + 1)
        if executed != 0:
            book[market.number] = market.retried(settings, now, executed)
        if not market.attempts:
            raise Refusal("MARKET_NOT_SETTLED", "Market was never settled", HTTPStatus.BAD_REQUEST)
        if _is_completed(market, now):
            raise _already_completed()
        failed = {row.position.number for row in market.failed(now)}
        done = market.retried(settings, now, None)
        rows = [done.rows_of(number, now)[-1] for number in sorted(failed)]
        return _answer(settle_data(settings, done, rows, is_retry=True))

    def status(self, named: str) -> Response:
        """How far a market has come."""
        settings = self._settings
        market = self._market(self._book, named)
        if market.attempts:
            rows = [rows[-1] for rows in market.rows(self.now)]
            return _answer(status_data(settings, market, rows, market.positions.count))
        if settings.unsettled_status == "not_found":
            raise Refusal("NOT_FOUND", "Market was never settled", HTTPStatus.NOT_FOUND)
        is_empty = settings.unsettled_status == "empty"
        return _answer(status_data(settings, market, [], 0 if is_empty else settings.positions))

    def settlements(self, named: str | None, player_id: str | None, cursor: str | None) -> Response:
        """A list of settlements, or a page of it that begins behind a cursor."""
        settings = self._settings
        rows = self._rows(named, player_id, cursor)
        limit = settings.page_limit
        page = list(rows if limit is None else islice(rows, limit + 1))
        is_last = limit is None or len(page) <= limit
        shown = page if is_last else page[:limit]
        data = [
            settlement_message(settings, market, market_id(settings.seed, market.number), row)
            for market, _, row in shown
        ]
        following = None
        if not is_last:
            market, place, row = shown[-1]
            following = _cursor(market.number, row.position.number, place)
        filters = {"marketId": named, "playerId": player_id}
        return _page(settings, data, following, filters)

    def events(
        self, since: int | None, event_type: str | None, named: str | None, limit: int
    ) -> Response:
        """So many of the events that are kept, oldest first."""
        settings = self._settings
        kept = self.now - round(settings.events_kept_seconds * SECOND)
        market = None if named is None else market_number(settings.seed, named)
        events = (
            self._event(number, kind)
            for number in range(self._timeline.first_from(kept), self._timeline.head)
            for kind in range(len(_EVENT_TYPES))
            if (named is None or number == market)
            and event_type in (None, _EVENT_TYPES[kind])
            and (since is None or self._is_behind(_sequence(number, kind), since))
        )
        return _answer({"events": list(islice(events, limit))})

    async def ledger(self) -> dict[str, Any]:
        """The truth about everything that was settled."""
        markets, resolved = list(self._book.values()), self._timeline.head
        told = await read_ledger(self._settings.seed, resolved, markets, self.now)
        return dict(msgspec.to_builtins(told))

    def states(self, after: int, limit: int) -> list[MarketState]:
        """How the markets behind a place stand that were called upon, first come first."""
        markets = islice(self._book.values(), after, after + limit)
        return [read_state(self._settings.seed, market, self.now) for market in markets]

    def market_ids(self, after: int, limit: int) -> list[str]:
        """The ids of resolved markets, the first one being that with number `after`."""
        numbers = range(after, min(after + limit, self._timeline.head))
        return [market_id(self._settings.seed, number) for number in numbers]

    def owed(self, named: str) -> list[Owed]:
        """What a market owes. ValueError if there is no such market."""
        number = market_number(self._settings.seed, named)
        if number is None or number >= self._timeline.head:
            raise ValueError(f"no market {named!r} is resolved")
        market = self._book.get(number)
        return [] if market is None else list(read_owed(market, self.now))

    def _begin(self) -> None:
        history = round(self._settings.history_seconds * SECOND)
        self._timeline = Timeline(self._settings.markets, self.now, history)
        self._book: dict[int, Market] = {}

    def _market(self, book: dict[int, Market], named: str) -> Market:
        number = market_number(self._settings.seed, named)
        if number is None or number >= self._timeline.head + _OPEN_MARKETS:
            raise Refusal("MARKET_NOT_FOUND", f"Market {named} not found", HTTPStatus.NOT_FOUND)
        if number >= self._timeline.head:
            raise Refusal("MARKET_NOT_RESOLVED", "Market is still open", HTTPStatus.BAD_REQUEST)
        return book.get(number) or Market(number)

    def _check_repetition(self, market: Market) -> None:
        """Refuses to settle a market again, or does not."""
        if _is_completed(market, self.now) or self._settings.settle_again == "already_completed":
            raise _already_completed()
        if self._settings.settle_again == "settlement_failed":
            raise Refusal(FAILED, "Settlement is under way", _ERROR)

    def _rows(
        self, named: str | None, player_id: str | None, cursor: str | None
    ) -> Iterator[tuple[Market, int, Row]]:
        """The settlements behind a cursor, each with its market and its place in its position."""
        place = None if cursor is None else _place(cursor)
        markets = list(self._book.values())
        if named is not None:
            number = market_number(self._settings.seed, named)
            markets = [market for market in markets if market.number == number]
        if place is not None:
            numbers = [market.number for market in markets]
            markets = markets[numbers.index(place[0]) :] if place[0] in numbers else []
        now = self.now
        for market in markets:
            is_first = place is not None and market.number == place[0]
            for number in _numbers(market, player_id, place[1] if place and is_first else 0):
                for at, row in enumerate(market.rows_of(number, now)):
                    if not (place and is_first and (number, at) <= place[1:]):
                        yield market, at, row

    def _event(self, number: int, kind: int) -> dict[str, Any]:
        seed = self._settings.seed
        return {
            "sequence": _sequence(number, kind),
            "eventType": _EVENT_TYPES[kind],
            "marketId": market_id(seed, number),
            "timestamp": time_text(self._timeline.time(number)),
            "data": {"winningOutcomeId": winning_outcome(seed, number)} if kind else {},
        }

    def _is_behind(self, sequence: int, since: int) -> bool:
        return sequence > since or (self._settings.since_is_included and sequence == since)


_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
_Key = Annotated[str | None, Header()]


def prediction_routes(prediction: Prediction, observer: Observer) -> APIRouter:
    """The engine's calls: `settle`, `retry`, `status`, `settlements` and `events`."""
    router = APIRouter(prefix=PREDICTION_PATH)
    orders = APIRouter(
        route_class=observer.route_class("prediction", _SETTLEMENTS_SHAPE, prediction)
    )
    lists = APIRouter(route_class=observer.route_class("prediction", _SETTLEMENTS_SHAPE))
    happenings = APIRouter(route_class=observer.route_class("prediction", _EVENTS_SHAPE))

    def told(x_api_key: str | None, answer: Any) -> Response:
        """What the call answers, refusals included, to those who have the key."""
        try:
            if x_api_key != PREDICTION_KEY:
                raise Refusal("UNAUTHORIZED", "Invalid API key", HTTPStatus.UNAUTHORIZED)
            response: Response = answer()
        except Refusal as refusal:
            error = {"code": refusal.code, "message": str(refusal)}
            is_hidden = prediction.settings.errors_come_with_200
            status = HTTPStatus.OK if is_hidden else refusal.status
            return _json({"success": False, "error": error}, status)
        return response

    @orders.post("/markets/{named}/settle", name="settle")
    async def settle(request: Request, named: str, x_api_key: _Key = None) -> Response:
        executed, book = executed_items(request), request.state.book
        return told(x_api_key, lambda: prediction.settle(book, named, executed))

    @orders.post("/markets/{named}/retry-settlements", name="retry")
    async def retry(request: Request, named: str, x_api_key: _Key = None) -> Response:
        executed, book = executed_items(request), request.state.book
        return told(x_api_key, lambda: prediction.retry(book, named, executed))

    @lists.get("/markets/{named}/settlement-status", name="status")
    async def status(named: str, x_api_key: _Key = None) -> Response:
        return told(x_api_key, lambda: prediction.status(named))

    @lists.get("/settlements", name="settlements")
    async def settlements(
        market_id: Annotated[str | None, Query(alias="marketId")] = None,
        player_id: Annotated[str | None, Query(alias="playerId")] = None,
        cursor: str | None = None,
        x_api_key: _Key = None,
    ) -> Response:
        return told(x_api_key, lambda: prediction.settlements(market_id, player_id, cursor))

    @happenings.get("/events", name="events")
    async def events(
        since: int | None = None,
        event_type: Annotated[str | None, Query(alias="eventType")] = None,
        market_id: Annotated[str | None, Query(alias="marketId")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        x_api_key: _Key = None,
    ) -> Response:
        return told(x_api_key, lambda: prediction.events(since, event_type, market_id, limit))

    for part in (orders, lists, happenings):
        router.include_router(part)
    return router


def _is_ordered(market: Market) -> bool:
    """Whether all positions of a market were ordered to be settled."""
    return bool(market.attempts) and market.settled_positions == market.positions.count


def _is_completed(market: Market, now: int) -> bool:
    is_done = (rows[-1].status == "COMPLETED" for rows in market.rows(now))
    return _is_ordered(market) and all(is_done)


def _already_completed() -> Refusal:
    message = "Settlement has already been completed"
    return Refusal(ALREADY_COMPLETED, message, HTTPStatus.CONFLICT)


def _numbers(market: Market, player_id: str | None, first: int) -> Iterator[int]:
    """The positions that a list shows of a market, from one on."""
    if not market.attempts:
        return iter(())
    if player_id is None:
        return iter(range(first, market.settled_positions))
    numbers = market.positions.numbers_of_player(player_id)
    return (number for number in numbers if number >= first)


def _sequence(number: int, kind: int) -> int:
    return _FIRST_SEQUENCE + _SEQUENCE_STEP * (len(_EVENT_TYPES) * number + kind) + number % 2


def _cursor(market: int, position: int, place: int) -> str:
    return urlsafe_b64encode(f"{market}-{position}-{place}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, int, int]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        market, position, place = map(int, text.split("-"))
    except ValueError:
        raise Refusal("INVALID_CURSOR", "Invalid cursor", HTTPStatus.BAD_REQUEST) from None
    return market, position, place


def _page(
    settings: PredictionSettings,
    data: list[SettlementMessage],
    following: str | None,
    filters: dict[str, str | None],
) -> Response:
    if settings.page_limit is None:
        return _answer(data)
    if settings.page_form == "next_cursor_in_data":
        return _answer({"settlements": data, "nextCursor": following})
    if settings.page_form == "next_cursor":
        return _json({"success": True, "data": data, "nextCursor": following})
    given = {name: value for name, value in filters.items() if value is not None}
    query = urlencode({**given, "cursor": following})
    address = f"https://engine.invalid{PREDICTION_PATH}/settlements?{query}"
    return _json({"success": True, "data": data, "next": address if following else None})


def _answer(data: Any) -> Response:
    return _json({"success": True, "data": data})


def _json(content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _listed(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The settlements of a list, of a page of it, or of an answer to an order."""
    data = body.get("data")
    return data.get("settlements") if isinstance(data, dict) else data


def _with_listed(body: dict[str, Any], records: list[Any], count: int) -> dict[str, Any]:
    is_within = isinstance(body["data"], dict)
    return body | {"data": body["data"] | {"settlements": records} if is_within else records}


def _contradict(record: dict[str, Any]) -> dict[str, Any]:
    """Another payout of the same settlement."""
    return {"totalPayout": f"{record['totalPayout']}1" if "." in record["totalPayout"] else "0.01"}


def _events(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    data = body.get("data")
    return data.get("events") if isinstance(data, dict) else None


def _with_events(body: dict[str, Any], records: list[Any], count: int) -> dict[str, Any]:
    return {"success": True, "data": {"events": records}}


_SETTLEMENTS_SHAPE = PageShape(
    records=_listed,
    envelope=_with_listed,
    id_field="id",
    word_field="status",
    contradict=_contradict,
    cursor_parameter="cursor",
)
_EVENTS_SHAPE = PageShape(
    records=_events,
    envelope=_with_events,
    id_field="sequence",
    word_field="eventType",
    contradict=lambda record: {"eventType": "MARKET_CLOSED", "marketId": "contradicted"},
    cursor_parameter="since",
    limit_parameter="limit",
)
