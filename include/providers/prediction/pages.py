"""Lists of settlements and of events, taken apart without changing a byte of them."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from include.model import Record
from include.providers.documented import few
from include.providers.elements import Element, elements_of
from include.providers.errors import PageUndecodable
from include.providers.moments import readable_time
from include.providers.prediction.documents import (
    ENVELOPE_FIELDS,
    MarketStatus,
    SettlementRecord,
    converted,
    is_market_id,
    read_envelope,
    unknown_names,
    usable_id,
)
from include.providers.texts import shown

_SEQUENCE_LIMIT = 2**63 - 1
_CURSOR_CHARACTERS_LIMIT = 2000
_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(SettlementRecord)}
_NEXT_FIELDS = {"nextCursor", "next"}


class PageEntry(msgspec.Struct, frozen=True, gc=False):
    """One settlement of a list, as far as it can be read without judging it.

    `settlement_id` and `market_id` are None if there is none that can be used, `updated_at` (UTC)
    if it is absent or unreadable; `content_sha256` is the digest of the exact text.
    """

    record: Record
    settlement_id: str | None
    market_id: str | None
    updated_at: datetime | None
    content_sha256: bytes


class Page(msgspec.Struct, frozen=True):
    """A list of settlements taken apart, in its own order.

    `next_page` are the parameters that ask for the page behind it, None if it is the last.
    `unknown_fields` names what the documentation does not, by its place (`data[].fee`).
    """

    entries: tuple[PageEntry, ...]
    next_page: dict[str, str] | None
    unknown_fields: frozenset[str]


class EventEntry(msgspec.Struct, frozen=True, gc=False):
    """One event, as far as it can be read; what is absent or cannot be used is None.

    `market_id` is one that an address can carry.
    """

    record: Record
    sequence: int | None
    event_type: str | None
    market_id: str | None
    content_sha256: bytes


class EventPage(msgspec.Struct, frozen=True):
    """A list of events taken apart, in its own order."""

    entries: tuple[EventEntry, ...]
    unknown_fields: frozenset[str]


def read_status(body: bytes) -> MarketStatus:
    """How far a market has come; `PageUndecodable`, saying why, if the body does not tell."""
    data = read_envelope(body)["data"]
    if not isinstance(data, dict):
        raise PageUndecodable("the body has no object `data`")
    return converted(data, MarketStatus)


def read_page(body: bytes) -> Page:
    """Take a list of settlements apart without changing a byte of it.

    `body[byte_start : byte_start + byte_length]` of each entry's record is the settlement's exact
    text.  Raises `PageUndecodable`, saying where, for anything but JSON in UTF-8 with a list of
    settlements that says of itself that it succeeded.
    """
    opened = open_list(body)
    unknown = set(opened.unknown_fields)
    entries = entries_of(body, unknown, *opened.names)
    return Page(entries, opened.next_page, few(unknown))


class OpenedList(NamedTuple):
    """Where in a body its settlements lie, and all that it says beside them."""

    names: tuple[str, ...]
    next_page: dict[str, str] | None
    unknown_fields: frozenset[str]


def open_list(body: bytes) -> OpenedList:
    """Open a list of settlements without reading any; raises `PageUndecodable` as `read_page`."""
    envelope = read_envelope(body)
    data = envelope["data"]
    unknown = unknown_names(envelope, ENVELOPE_FIELDS, "")
    holders = [envelope, envelope.get("meta"), envelope.get("pagination")]
    names: tuple[str, ...] = ("data",)
    if isinstance(data, dict):
        unknown |= unknown_names(data, {"settlements", *_NEXT_FIELDS}, "data.")
        holders.append(data)
        names = ("data", "settlements")
        data = data.get("settlements")
    if not isinstance(data, list):
        raise PageUndecodable(f"the body has no list `{'.'.join(names)}`")
    for place in ("meta", "pagination"):
        if isinstance(envelope.get(place), dict):
            unknown |= unknown_names(envelope[place], _NEXT_FIELDS, f"{place}.")
    return OpenedList(names, _next_page(holders), frozenset(unknown))


def read_events(body: bytes) -> EventPage:
    """Take a list of events apart without changing a byte of it; as `read_page`."""
    envelope = read_envelope(body)
    data = envelope["data"]
    names = ["data", "events"] if isinstance(data, dict) else ["data"]
    events = data.get("events") if isinstance(data, dict) else data
    if not isinstance(events, list):
        raise PageUndecodable(f"the body has no list `{'.'.join(names)}`")
    entries = tuple(map(_event_entry, elements_of(body, *names)))
    return EventPage(entries, few(unknown_names(envelope, ENVELOPE_FIELDS, "")))


def entries_of(body: bytes, unknown: set[str], *names: str) -> tuple[PageEntry, ...]:
    """The settlements of the list at that place; names of unknown fields are added."""
    entries: list[PageEntry] = []
    in_entries: set[str] = set()
    for element in elements_of(body, *names):
        entries.append(_entry(element))
        if isinstance(element.value, dict) and element.value.keys() != _FIELDS.keys():
            in_entries |= element.value.keys() - _FIELDS.keys()
    unknown |= {f"{'.'.join(names)}[].{name}" for name in in_entries}
    return tuple(entries)


def _entry(element: Element) -> PageEntry:
    fields = element.value if isinstance(element.value, dict) else {}
    digest = sha256(element.text)
    settlement_id = usable_id(fields.get("id"))
    return PageEntry(
        _record(element, settlement_id, digest.hexdigest()),
        settlement_id,
        usable_id(fields.get("marketId")),
        readable_time(fields.get("updatedAt")),
        digest.digest(),
    )


def _event_entry(element: Element) -> EventEntry:
    fields = element.value if isinstance(element.value, dict) else {}
    digest = sha256(element.text)
    sequence, market_id = _sequence(fields.get("sequence")), usable_id(fields.get("marketId"))
    return EventEntry(
        _record(element, None if sequence is None else str(sequence), digest.hexdigest()),
        sequence,
        usable_id(fields.get("eventType")),
        market_id if market_id is not None and is_market_id(market_id) else None,
        digest.digest(),
    )


def _record(element: Element, key: str | None, digest: str) -> Record:
    return Record(key or f"sha256:{digest}", element.start, len(element.text))


def _sequence(value: object) -> int | None:
    """A whole number, also in a text: numbers of that kind are often written so."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _SEQUENCE_LIMIT else None


def _next_page(holders: list[Any]) -> dict[str, str] | None:
    """The parameters of the next page, wherever the answer shows them."""
    for holder in holders:
        if not isinstance(holder, dict):
            continue
        for name in ("nextCursor", "next"):
            told = holder.get(name)
            if told not in (None, "", False):
                return _next_parameters(name, told)
    return None


def _next_parameters(name: str, told: object) -> dict[str, str]:
    text = str(told) if type(told) is int else told
    if not isinstance(text, str) or len(text) > _CURSOR_CHARACTERS_LIMIT:
        raise PageUndecodable(f"`{name}` is {shown(told)}, which leads to no page")
    if name == "nextCursor" or not ("?" in text or "/" in text):
        return {"cursor": text}
    try:
        parameters = dict(parse_qsl(urlsplit(text).query))
    except ValueError:
        parameters = {}
    if not parameters:
        raise PageUndecodable(f"`{name}` is {shown(told)}, which leads to no page")
    return parameters
