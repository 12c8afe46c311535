"""ticktock: the settlement log as its documentation describes it, and the switches of its doubts.

`GET /cs2/v1/settlements?limit&since_id` and `GET /cs2/v1/matches/{id}/settlements?limit`, both
under the header X-API-Key. What the documentation leaves open (page order, where a first call
starts, the kind of ids, what an unknown cursor gets) is a switch of `TicktockSettings`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from include.sandbox.addresses import TICKTOCK_KEY, TICKTOCK_KEY_WITHOUT_SCOPE, TICKTOCK_PATH
from include.sandbox.calls import Observer
from include.sandbox.faults import PageShape
from include.sandbox.ticktock_ledger import Ledger, read_ledger
from include.sandbox.ticktock_log import ENTRIES_LIMIT, IdKind, SettlementLog
from include.sandbox.visible_log import VisibleLog

SCOPE = "cs2:markets:settlements"
_SCOPES_OF_KEY = {TICKTOCK_KEY: {SCOPE}, TICKTOCK_KEY_WITHOUT_SCOPE: set[str]()}
_RATE_WINDOW_SECONDS = 60.0


class LateEntry(BaseModel):
    """An entry that becomes visible late: once so many entries follow it, or when released."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: int = Field(ge=0)
    visible_after: int | None = Field(default=None, ge=1)


class TicktockSettings(BaseModel):
    """How ticktock behaves. Entries are named by their index in the log, 0 being the oldest.

    `visible_entries` is how far the log has come. `page_order` says which entries a page holds
    (the oldest after the cursor, or the newest) and how it shows them. `first_call` says where a
    call without cursor starts. `unknown_cursor` nearest goes on behind the place where an integer
    id would stand. `match_fields_left_out` are not shown by the list of a match.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    visible_entries: int = Field(default=1000, ge=0, le=ENTRIES_LIMIT)
    id_kind: IdKind = "integer"
    page_order: Literal["oldest_first", "newest_first", "oldest_shown_newest_first"] = (
        "oldest_first"
    )
    first_call: Literal["oldest", "newest"] = "oldest"
    unknown_cursor: Literal["not_found", "nearest"] = "not_found"
    broken_chains: bool = False
    late: tuple[LateEntry, ...] = ()
    requests_a_minute: int = Field(default=600, ge=1)
    match_fields_left_out: frozenset[str] = frozenset()


class UnknownCursor(Exception):
    """The log shows no entry with the id given as `since_id`."""


class Ticktock:
    """The log as it stands now, under its settings."""

    def __init__(self, seed: int, entries: int) -> None:
        self._seed = seed
        self._entries = entries
        self.reset()

    def reset(self) -> None:
        """Back to the settings the sandbox was started with."""
        self._use(TicktockSettings(seed=self._seed, visible_entries=self._entries))
        self._calls_of_key: dict[str, deque[float]] = {}

    @property
    def settings(self) -> TicktockSettings:
        """The settings in force."""
        return self._settings

    def configure(self, changes: dict[str, Any]) -> None:
        """Changes the settings named; pydantic's ValidationError if they cannot be."""
        self._use(TicktockSettings.model_validate(self._settings.model_dump() | changes))

    def advance(self, entries: int) -> None:
        """The log goes on by so many entries."""
        self.configure({"visible_entries": self._settings.visible_entries + entries})

    def release(self, entries: Iterable[int]) -> None:
        """Makes late entries visible now."""
        released = set(entries)
        late = [each for each in self._settings.late if each.entry not in released]
        self.configure({"late": late})

    def page(self, since_id: str | None, limit: int) -> list[int]:
        """The entries of a page. UnknownCursor; ValueError if `since_id` is no id at all."""
        cursor = -1 if since_id is None else self._cursor(since_id)
        newest = self._settings.page_order == "newest_first" or (
            since_id is None and self._settings.first_call == "newest"
        )
        after = self._view.newest_after if newest else self._view.oldest_after
        return self._shown(islice(after(cursor), limit))

    def page_of_match(self, match_id: str, limit: int) -> list[int]:
        """The visible entries about one match, at most `limit`; none if there is no such match."""
        entries = filter(self._view.shows, self._view.log.entries_of_match(match_id))
        newest = self._settings.page_order == "newest_first"
        return self._shown(islice(sorted(entries, reverse=newest), limit))

    def encode(self, entries: list[int], left_out: frozenset[str] = frozenset()) -> bytes:
        """The documented envelope around these entries."""
        data: list[Any] = [self._view.log.entry(each) for each in entries]
        if left_out:
            data = [
                {name: value for name, value in entry.items() if name not in left_out}
                for entry in msgspec.to_builtins(data)
            ]
        return msgspec.json.encode(_envelope({}, data, len(data)))

    def wait_before_next_call(self, key: str) -> float:
        """Counts a call of this key: 0, or the seconds to wait if it is one too many."""
        now = time.monotonic()
        calls = self._calls_of_key.setdefault(key, deque())
        while calls and calls[0] <= now - _RATE_WINDOW_SECONDS:
            calls.popleft()
        if len(calls) >= self._settings.requests_a_minute:
            return calls[0] + _RATE_WINDOW_SECONDS - now
        calls.append(now)
        return 0.0

    async def ledger(self, up_to_id: str | None) -> Ledger:
        """The truth, up to an entry if one is named. UnknownCursor, ValueError as `page`."""
        view = self._view
        if up_to_id is not None:
            view = VisibleLog(view.log, self._cursor(up_to_id) + 1, view.hidden)
        return await read_ledger(view)

    def _use(self, settings: TicktockSettings) -> None:
        self._settings = settings
        self._view = VisibleLog(
            SettlementLog(settings.seed, settings.id_kind, settings.broken_chains),
            settings.visible_entries,
            frozenset(_hidden(settings)),
        )

    def _cursor(self, since_id: str) -> int:
        entry = self._view.log.entry_with_id(since_id)
        if entry is not None and self._view.shows(entry):
            return entry
        if self._settings.unknown_cursor == "not_found" or self._settings.id_kind == "uuid":
            raise UnknownCursor
        return self._view.log.last_entry_up_to(int(since_id))

    def _shown(self, entries: Iterable[int]) -> list[int]:
        return sorted(entries, reverse=self._settings.page_order != "oldest_first")


def ticktock_routes(ticktock: Ticktock, observer: Observer) -> APIRouter:
    """ticktock's calls, `settlements` and `match_settlements`."""

    def authorize(
        x_api_key: Annotated[str | None, Header()] = None,
        accept: Annotated[str | None, Header()] = None,
    ) -> None:
        if x_api_key is None:
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "Missing API key")
        if x_api_key not in _SCOPES_OF_KEY:
            raise HTTPException(HTTPStatus.FORBIDDEN, "Invalid API key")
        if SCOPE not in _SCOPES_OF_KEY[x_api_key]:
            raise HTTPException(HTTPStatus.FORBIDDEN, f"Missing scope {SCOPE}")
        if not _accepts_json(accept):
            raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, "Only application/json is offered")
        wait = ticktock.wait_before_next_call(x_api_key)
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded", headers)

    router = APIRouter(
        prefix=TICKTOCK_PATH,
        route_class=observer.route_class("ticktock", _PAGE_SHAPE),
        dependencies=[Depends(authorize)],
    )

    @router.get("/settlements", name="settlements")
    async def settlements(
        limit: Annotated[int, Query(ge=1, le=200)] = 50, since_id: str | None = None
    ) -> Response:
        try:
            entries = ticktock.page(since_id, limit)
        except UnknownCursor:
            raise HTTPException(HTTPStatus.NOT_FOUND, "Unknown since_id") from None
        except ValueError as error:
            problem = {"type": "value_error", "loc": ("query", "since_id"), "msg": str(error)}
            raise RequestValidationError([problem | {"input": since_id}]) from None
        return _json(ticktock.encode(entries))

    @router.get("/matches/{match_id}/settlements", name="match_settlements")
    async def match_settlements(
        match_id: str, limit: Annotated[int, Query(ge=1, le=1000)] = 200
    ) -> Response:
        entries = ticktock.page_of_match(match_id, limit)
        if not entries:
            raise HTTPException(HTTPStatus.NOT_FOUND, "Match not found")
        return _json(ticktock.encode(entries, ticktock.settings.match_fields_left_out))

    return router


def _hidden(settings: TicktockSettings) -> Iterator[int]:
    for late in settings.late:
        followers = settings.visible_entries - late.entry - 1
        if late.visible_after is None or followers < late.visible_after:
            yield late.entry


def _accepts_json(accept: str | None) -> bool:
    if accept is None:
        return True
    for media_range in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in media_range.split(";"))
        is_refused = any(parameter in {"q=0", "q=0.0"} for parameter in parameters)
        if media_type in {"application/json", "application/*", "*/*"} and not is_refused:
            return True
    return False


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _records(body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(body["data"])


def _envelope(body: dict[str, Any], records: list[Any], count: int) -> dict[str, Any]:
    return {"data": records, "meta": {"count": count}}


def _contradict(record: dict[str, Any]) -> dict[str, Any]:
    """The opposite outcome; where there is none, another author."""
    opposite = {"won": "lost", "lost": "won"}.get(record["outcome"])
    return {"outcome": opposite} if opposite else {"settled_by": "admin", "reason": "Changed"}


_PAGE_SHAPE = PageShape(
    records=_records,
    envelope=_envelope,
    id_field="id",
    word_field="new_status",
    contradict=_contradict,
    cursor_parameter="since_id",
    limit_parameter="limit",
)
