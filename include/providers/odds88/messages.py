"""Taking the stream of odds88 apart: messages, and the pages that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from types import GenericAlias
from typing import Any

import msgspec

from include.model import Record
from include.providers.documented import (
    UNREADABLE,
    documented_in,
    fault_in,
    few,
    without_unknown,
)
from include.providers.moments import AwareTime, in_utc, readable_time
from include.providers.odds88.documents import NAME_CHARACTERS_LIMIT, Bet, Name
from include.providers.texts import is_storable


class PageEntry(msgspec.Struct, frozen=True, gc=False):
    """One bet of a message, as far as it can be read without judging it.

    `bet_id` is None if there is none that can be used, `settlement_time` (UTC) if it is absent or
    unreadable; `content_sha256` is the digest of the exact text.
    """

    record: Record
    bet_id: str | None
    settlement_time: datetime | None
    content_sha256: bytes


class BrokenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that is neither a ping nor about a bet: where it lies, and what is wrong with it.

    Its `record_key` is the digest of its bytes.  If it `is_ping`, it is one that tells more, which
    may be a bet.
    """

    record: Record
    content_sha256: bytes
    reason: str
    is_ping: bool = False


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A message that says only that the connection lives."""

    ping_id: str


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of the stream: its exact bytes, and what they are.

    The record's place is counted from the beginning of the message.  `unknown_fields` names what
    the document does not, by its place (`data.selections[].odds`).
    """

    body: bytes
    content: PageEntry | BrokenMessage | Ping
    unknown_fields: frozenset[str] = frozenset()


class Page(msgspec.Struct, frozen=True):
    """Messages stored together, one a line: `body` as it is kept, and what is in it.

    Places are counted from the beginning of the page.
    """

    body: bytes
    entries: tuple[PageEntry, ...]
    broken: tuple[BrokenMessage, ...]
    pings: int
    unknown_fields: frozenset[str]


def read_message(body: bytes) -> Message:
    """Take one message apart without changing a byte of it; never raises.

    `body[byte_start : byte_start + byte_length]` of the record is the exact text of `data`.
    """
    try:
        return _read_documented_message(body)
    except UNREADABLE:
        pass
    try:
        return _read_deviating_message(body)
    except UNREADABLE as error:
        return _broken(body, f"the message cannot be read: {fault_in(error)}")


def join_messages(messages: Sequence[Message]) -> Page:
    """The messages as one page, each on a line of its own, in the order in which they arrived."""
    placed, position = [], 0
    for message in messages:
        placed.append((position, message))
        position += len(message.body) + 1
    return _page(b"\n".join(message.body for message in messages), placed)


def read_page(body: bytes) -> Page:
    """A page, or a file of messages, one a line; what is no message is told as broken."""
    placed, position = [], 0
    for line in body.split(b"\n"):
        if line.strip():
            placed.append((position, read_message(line)))
        position += len(line) + 1
    return _page(body, placed)


def _page(body: bytes, placed: Iterable[tuple[int, Message]]) -> Page:
    entries: list[PageEntry] = []
    broken: list[BrokenMessage] = []
    pings = 0
    unknown_fields: set[str] = set()
    for position, message in placed:
        unknown_fields |= message.unknown_fields
        match message.content:
            case Ping():
                pings += 1
            case PageEntry(record, bet_id, settlement_time, digest):
                moved = _moved(record, position)
                entries.append(PageEntry(moved, bet_id, settlement_time, digest))
            case BrokenMessage(record, digest, reason, is_ping):
                broken.append(BrokenMessage(_moved(record, position), digest, reason, is_ping))
    return Page(body, tuple(entries), tuple(broken), pings, few(unknown_fields))


def _moved(record: Record, by: int) -> Record:
    return Record(record.record_key, record.byte_start + by, record.byte_length)


class _Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A message as documented (SettlementFeedMessageDto), its bet not yet looked at."""

    data: msgspec.Raw
    ping_id: str | None = None


class _Data(msgspec.Struct, frozen=True):
    data: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DATA = msgspec.json.Decoder(_Data)
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)


# How a message is taken apart. Two ways with one result: at full speed while every name in it is
# documented, and slowly as soon as one is not. What stands behind names is judged by `read_bet`,
# but for a number that no `Decimal` can hold, which the slow way finds at once.


def _read_documented_message(body: bytes) -> Message:
    text = bytes(_ENVELOPE.decode(body).data)
    bet = _NAMED_BET.decode(text)
    if not is_storable(bet.bet_id):
        return _read_deviating_message(body)
    digest = sha256(text).digest()
    record = Record(bet.bet_id, _place_of(text, body), len(text))
    return Message(body, PageEntry(record, bet.bet_id, in_utc(bet.settlement_time), digest))


def _read_deviating_message(body: bytes) -> Message:
    envelope = _ANYTHING.decode(body)
    if not isinstance(envelope, dict):
        return _broken(body, "the message is JSON, but not an object")
    ping_id, value = envelope.get("pingId"), envelope.get("data")
    unknown = {name for name in envelope if name not in {"pingId", "data"}}
    if value is None and isinstance(ping_id, str):
        return _ping(body, ping_id, envelope, unknown)
    if value is None:
        return _broken(body, "the message has neither a `pingId` that is a text nor `data`")
    if not isinstance(ping_id, str | None):
        unknown.add("pingId")
    without_unknown(value, Bet, "data", unknown)
    return Message(body, _deviating_entry(body, value), few(unknown))


def _ping(body: bytes, ping_id: str, envelope: dict[str, Any], unknown: set[str]) -> Message:
    """A ping, unless it holds what may be a bet: `data` a second time, or what is not documented,
    beyond a plain value.
    """
    held = {name for name in unknown if isinstance(envelope[name], dict | list)}
    if len(_names(body)) > len(envelope):
        held.add("a name twice")
    if not held:
        return Message(body, Ping(ping_id), few(unknown))
    reason = f"the message has a `pingId` and no `data`, but more: {', '.join(sorted(few(held)))}"
    return _broken(body, reason, few(unknown), is_ping=True)


def _names(body: bytes) -> list[str]:
    """The names of an object, each as often as it is written there."""
    pairs = json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)
    return [name for name, _ in pairs]


def _place_of(text: bytes, body: bytes) -> int:
    """Where it stands; the same text standing elsewhere too would be the same evidence."""
    # Nearly always it is what begins there: looking for the whole of it takes ten times as long.
    place = body.find(text[:64])
    return place if body.startswith(text, place) else body.index(text)


def _deviating_entry(body: bytes, value: object) -> PageEntry:
    text = bytes(_DATA.decode(body).data)
    digest = sha256(text)
    fields = value if isinstance(value, dict) else {}
    bet_id = fields.get("betId")
    if not _is_usable_id(bet_id):
        bet_id = None
    return PageEntry(
        Record(bet_id or f"sha256:{digest.hexdigest()}", _place_of(text, body), len(text)),
        bet_id,
        readable_time(fields.get("settlementTime")),
        digest.digest(),
    )


def _broken(
    body: bytes,
    reason: str,
    unknown_fields: frozenset[str] = frozenset(),
    *,
    is_ping: bool = False,
) -> Message:
    digest = sha256(body)
    record = Record(f"sha256:{digest.hexdigest()}", 0, len(body))
    broken = BrokenMessage(record, digest.digest(), reason, is_ping)
    return Message(body, broken, unknown_fields)


def _named(kind: type[msgspec.Struct], **judged: Any) -> Any:
    """The documented object as far as its names go: any value will do, but for fields `judged`,
    which must be there.  Numbers and times are most of what reading a bet costs.
    """
    fields = [
        (one.name, judged[one.name])
        if one.name in judged
        else (one.name, _with_any_value(one.type), None)
        for one in msgspec.structs.fields(kind)
    ]
    return msgspec.defstruct(
        f"Named{kind.__name__}",
        fields,
        rename="camel",
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _with_any_value(annotation: Any) -> Any:
    found = documented_in(annotation)
    if found is None:
        return Any
    named = _named(found)
    return named | GenericAlias(list, (named,)) | None


_NAMED_BET = msgspec.json.Decoder(_named(Bet, bet_id=Name, settlement_time=AwareTime))


def _is_usable_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_LIMIT and is_storable(value)
