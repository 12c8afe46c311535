"""The settlements of a prediction engine: a market is settled by order, then told by position.

Endpoints below the address, which ends in `/api/v1`, under the header `X-Api-Key`:
- `POST /markets/{id}/settle` cancels the market's open orders, which cannot be undone, and settles
  its positions; `POST /markets/{id}/retry-settlements` settles again those that failed.
- `GET /markets/{id}/settlement-status` counts positions; `GET /settlements?marketId=&playerId=`
  lists settlements.
- `GET /events?since=&eventType=&marketId=&limit=` keeps 24 hours of events by sequence.

Every answer is `{"success": true, "data": …}` or
`{"success": false, "error": {"code", "message"}}`.  What came of a call is decided by the code in
the body, not by the status alone.

A record is one settlement: one position's payout.  It moves from PENDING over PROCESSING to
COMPLETED or FAILED under the same id; a retry may also make a new one for the same position.  The
later `updatedAt` counts.

Quirks:
- The engine moves no money.  Settlements carry no currency: it is the market's, and `Terms` say it.
- `payoutPerShare` is documented as 1 or 0; comparable engines pay fractions too, so that anything
  from 0 to 1 is read.
- Amounts are decimals in a text.  A number in their place is refused: it may be rounded already.
- Whether lists come in pages is not documented.  `nextCursor` or `next` is followed wherever an
  answer shows it; of an address only the query is taken, so that the key goes nowhere else.  What
  tells of pages in another way is found by the counts of `settlement-status`.
- Of an event only its sequence, type and market are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec

from include.model import Outcome, Record, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.documented import UNREADABLE, few
from include.providers.elements import Element, elements_of, parsed_json
from include.providers.errors import Fatal, PageUndecodable, RecordRejected, Retriable
from include.providers.http import KEPT, Answer, Client
from include.providers.moments import AwareTime, in_utc, readable_time
from include.providers.texts import is_storable, shown
from include.settings import Settings

PROVIDER = "prediction"
EVENTS_LIMIT = 1000
EVENTS_KEPT_HOURS = 24
MARKET_RESOLVED = "MARKET_RESOLVED"
SETTLEMENT_FAILED = "SETTLEMENT_FAILED"
SETTLEMENT_ALREADY_COMPLETED = "SETTLEMENT_ALREADY_COMPLETED"

_MEANINGS = {404: "Either the address is wrong, or the engine does not know the market."}
# Nothing to say, but servers that parse JSON refuse an empty body of that type.
_NO_CONTENT = b"{}"
# What an address can carry without being understood as more than one name.
_MARKET_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:@+=-]{1,128}")
# Ids are parts of index keys, which Postgres limits to about 2700 bytes together.
_ID_CHARACTERS_LIMIT = 128
_SEQUENCE_LIMIT = 2**63 - 1
_CURSOR_CHARACTERS_LIMIT = 2000
_TEXT_CHARACTERS_LIMIT = 500
_DIGITS_BEHIND_POINT = 30
_DIGITS_BEFORE_POINT = 20
_AMOUNT = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?")
# Of digits and a point alone, and never too large: most of them.
_PLAIN_AMOUNT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?")
_FINEST = Decimal(1).scaleb(-_DIGITS_BEHIND_POINT)
_BOUNDED = Context(
    prec=_DIGITS_BEFORE_POINT + _DIGITS_BEHIND_POINT, traps=[Inexact, InvalidOperation]
)


# What the engine writes. Source: the fields and examples of its settlements' documentation.


class Amount(Decimal):
    """A decimal that was written as a text, exactly; never negative, NaN or infinite."""

    __slots__ = ()


class RecordStatus(StrEnum):
    """Where a settlement stands, in the engine's own words."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_ID_CHARACTERS_LIMIT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class SettlementRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One settlement as the engine writes it: what a position pays its player.

    `total_payout` is `shares` times `payout_per_share`, in the market's currency.
    `transaction_id` is the operator's own reference, `settled_at` the time of completion.
    """

    id: Name
    position_id: Name
    market_id: Name
    outcome_id: Name
    operator_id: Name
    player_id: Name
    shares: Amount
    payout_per_share: Amount
    total_payout: Amount
    transaction_id: str | None = None
    status: RecordStatus
    error_message: str | None = None
    settled_at: AwareTime | None = None
    created_at: AwareTime
    updated_at: AwareTime


class SettleTotals(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a call to settle or to retry says it has done, all positions together."""

    market_id: Name
    total_positions: Count
    success_count: Count
    failed_count: Count
    total_payout: Amount
    cancelled_orders: Count


class MarketStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far the settlement of a market has come; the counts are of positions."""

    market_id: Name
    total_positions: Count
    pending_count: Count
    processing_count: Count
    completed_count: Count
    failed_count: Count
    total_payout: Amount
    completed_payout: Amount


# The calls.


def open_client(base_url: str, api_key: str, settings: Settings) -> Client:
    """A client for the engine at `base_url`, which ends in `/api/v1`, for one thread.

    Raises `Fatal` if it cannot be used.
    """
    bounded = settings.model_copy(update={"body_limit_bytes": settings.prediction_body_limit_bytes})
    return Client(
        PROVIDER,
        base_url,
        secret_headers={"X-Api-Key": api_key},
        settings=bounded,
        meanings=_MEANINGS,
    )


def is_market_id(text: str) -> bool:
    """Whether the text can name a market in an address; it comes from people and files."""
    return _MARKET_ID.fullmatch(text) is not None


def settle(client: Client, market_id: str, *, ends_at: float) -> Answer:
    """Order, once, that a market be settled; `classify_answer` and `classify_error` say what came.

    `ends_at` is the deadline on the clock of `time.monotonic`.  Raises `Retriable` if no byte was
    written, `Ambiguous` if the engine may have done it, and `Fatal` for an id that names no market.
    """
    return _order(client, market_id, "settle", ends_at)


def retry_settlements(client: Client, market_id: str, *, ends_at: float) -> Answer:
    """Order, once, that the failed settlements of a market be tried again; as `settle`."""
    return _order(client, market_id, "retry-settlements", ends_at)


def fetch_status(client: Client, market_id: str) -> Answer:
    """How far the settlement of a market has come; read it with `read_status`."""
    return client.get(f"/markets/{_checked(market_id)}/settlement-status")


def fetch_settlements(
    client: Client,
    *,
    market_id: str | None = None,
    player_id: str | None = None,
    next_page: Mapping[str, str] | None = None,
) -> Answer:
    """Settlements of a market, a player or both; `next_page` is what the page before showed."""
    filters = {"marketId": market_id, "playerId": player_id}
    given = {name: value for name, value in filters.items() if value is not None}
    # Ours come last: a page may say where it goes on, not what is asked for.
    return client.get("/settlements", {**(next_page or {}), **given})


def fetch_listing(
    client: Client,
    *,
    market_id: str | None = None,
    player_id: str | None = None,
    pages_limit: int,
) -> Iterator[Answer]:
    """The pages of a whole listing, each given away, to be stored, before it is looked into.

    Raises `PageUndecodable` for a page that was just given away and cannot be read, and `Fatal`
    if pages lead in a circle or are more than `pages_limit`.
    """
    next_page: dict[str, str] | None = None
    asked: list[dict[str, str] | None] = []
    while next_page not in asked and len(asked) < pages_limit:
        asked.append(next_page)
        answer = fetch_settlements(
            client, market_id=market_id, player_id=player_id, next_page=next_page
        )
        yield answer
        next_page = _open_list(answer.body).next_page
        if next_page is None:
            return
    is_circle = next_page in asked
    raise Fatal(
        PROVIDER,
        f"Its list of settlements {'leads back to a page already read' if is_circle else 'goes on'}"
        f" after {len(asked)} pages. The pages read are kept; the list is not complete.",
        f"Ask {PROVIDER} how its lists are paged, then clear this task."
        if is_circle
        else "If lists of that length are right, raise SETTLEMENTS_PREDICTION_LISTING_PAGES_LIMIT, "
        "then clear this task.",
    )


def fetch_events(
    client: Client,
    *,
    since: int | None,
    limit: int = EVENTS_LIMIT,
    event_type: str | None = MARKET_RESOLVED,
    market_id: str | None = None,
) -> Answer:
    """At most `limit` events behind the sequence `since`; without it, the oldest that are kept.

    Whether the event `since` itself is among them is not documented.
    """
    filters = {"since": since, "eventType": event_type, "marketId": market_id, "limit": limit}
    given = {name: value for name, value in filters.items() if value is not None}
    return client.get("/events", given)


def _order(client: Client, market_id: str, call: str, ends_at: float) -> Answer:
    path = f"/markets/{_checked(market_id)}/{call}"
    return client.post(path, _NO_CONTENT, auth=httpx.Auth(), ends_at=ends_at)


def _checked(market_id: str) -> str:
    if is_market_id(market_id):
        return market_id
    raise Fatal(
        PROVIDER,
        f"The market id {shown(market_id)} cannot be part of an address. {KEPT}",
        "Correct the id where it was entered; the engine's own are made of letters, digits and "
        "hyphens.",
    )


# What came of a call to settle or to retry.


class Execution(StrEnum):
    """What one call to settle or to retry means for its market."""

    EXECUTED = "executed"
    """The engine has taken the order and says what it did; positions may still be under way."""
    ALREADY_COMPLETED = "already_completed"
    """The market was settled before: go on and fetch."""
    FAILED = "failed"
    """The engine says that it met an error; what it did until then is told by the status."""
    NOT_EXECUTED = "not_executed"
    """Nothing happened: the same call may be made again."""
    REJECTED = "rejected"
    """Nothing happened, and nothing will before a person changes something."""
    IN_DOUBT = "in_doubt"
    """It may have been executed: read the status before anything is posted again."""


_REJECTING_STATUSES = frozenset({400, 401, 403, 404, 405, 406, 413, 415, 422})
_EXECUTION_OF_CODE = {
    SETTLEMENT_ALREADY_COMPLETED: Execution.ALREADY_COMPLETED,
    SETTLEMENT_FAILED: Execution.FAILED,
}


class SettleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer to a call to settle or to retry, taken apart.

    `is_success` is what it says of itself, None if it says nothing that can be read; `code` and
    `message` are the error's.  `entries` are the settlements in it, which need not be all of the
    market's, and `errors` what the engine lists as such, as JSON, shortened.  `unusable_reason`
    says why there are no totals.
    """

    is_success: bool | None = None
    code: str | None = None
    message: str | None = None
    totals: SettleTotals | None = None
    entries: tuple[PageEntry, ...] = ()
    errors: tuple[str, ...] = ()
    unknown_fields: frozenset[str] = frozenset()
    unusable_reason: str | None = None


def classify_error(error: BaseException) -> Execution:
    """What a call that ended without an answer means; anything unforeseen is in doubt.

    A `Fatal` comes from before anything was sent: it is about the market, unless it is about every
    call alike.
    """
    if isinstance(error, Fatal):
        return Execution.REJECTED if error.fault is None else Execution.NOT_EXECUTED
    if isinstance(error, Retriable):
        return Execution.NOT_EXECUTED
    return Execution.IN_DOUBT


def classify_answer(answer: Answer, told: SettleAnswer) -> Execution:
    """What an answer, whose body is `told` (`read_settle_answer`), means for its market.

    The error's code decides where it is a documented one, else the status.
    """
    is_told_done = told.is_success is True and told.code is None
    if answer.is_complete and told.is_success is False and told.code in _EXECUTION_OF_CODE:
        return _EXECUTION_OF_CODE[told.code]
    if 200 <= answer.status < 300:
        # Without totals it may be another server that answers so.
        is_done = is_told_done and answer.is_complete and told.totals is not None
        return Execution.EXECUTED if is_done else Execution.IN_DOUBT
    if is_told_done:
        # It says that it is done and that it failed.
        return Execution.IN_DOUBT
    if answer.status == 429:
        return Execution.NOT_EXECUTED
    if answer.status in _REJECTING_STATUSES or 300 <= answer.status < 400:
        return Execution.REJECTED
    return Execution.IN_DOUBT


def read_settle_answer(body: bytes, *, with_entries: bool = True) -> SettleAnswer:
    """Take the body of an answer to a call to settle or to retry apart; never raises.

    Without `with_entries` its settlements, which may be many thousands, are left aside.
    """
    try:
        envelope = parsed_json(body)
    except PageUndecodable as error:
        return SettleAnswer(unusable_reason=error.reason)
    if not isinstance(envelope, dict):
        return SettleAnswer(unusable_reason="the body is JSON, but not an object")
    is_success, data = envelope.get("success"), envelope.get("data")
    code, message = _error_of(envelope)
    answer = SettleAnswer(
        is_success=is_success if isinstance(is_success, bool) else None, code=code, message=message
    )
    if not isinstance(data, dict):
        return msgspec.structs.replace(answer, unusable_reason="the body has no object `data`")
    return _with_data(answer, body, envelope, data, with_entries=with_entries)


def settlements_answered(body: bytes) -> Iterator[bytes]:
    """The exact texts of the settlements in such a body, of which `read_settle_answer` has totals.

    For `read_settlement`; an answer need not have all of the market's.
    """
    if isinstance(_envelope(body)["data"].get("settlements"), list):
        yield from (element.text for element in elements_of(body, "data", "settlements"))


def _with_data(
    answer: SettleAnswer,
    body: bytes,
    envelope: dict[str, Any],
    data: dict[str, Any],
    *,
    with_entries: bool,
) -> SettleAnswer:
    unknown = _unknown(envelope, _ENVELOPE_FIELDS, "") | _unknown(data, _SETTLE_FIELDS, "data.")
    entries: tuple[PageEntry, ...] = ()
    if with_entries and isinstance(data.get("settlements"), list):
        entries = _entries(body, unknown, "data", "settlements")
    errors = data.get("errors")
    totals, unusable_reason = None, None
    try:
        totals = _converted(data, SettleTotals)
    except PageUndecodable as error:
        unusable_reason = error.reason
    return msgspec.structs.replace(
        answer,
        totals=totals,
        entries=entries,
        errors=tuple(map(_excerpt, errors)) if isinstance(errors, list) else (),
        unknown_fields=few(unknown),
        unusable_reason=unusable_reason,
    )


# What is read.


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
    data = _envelope(body)["data"]
    if not isinstance(data, dict):
        raise PageUndecodable("the body has no object `data`")
    return _converted(data, MarketStatus)


def read_page(body: bytes) -> Page:
    """Take a list of settlements apart without changing a byte of it.

    `body[byte_start : byte_start + byte_length]` of each entry's record is the settlement's exact
    text.  Raises `PageUndecodable`, saying where, for anything but JSON in UTF-8 with a list of
    settlements that says of itself that it succeeded.
    """
    opened = _open_list(body)
    unknown = set(opened.unknown_fields)
    entries = _entries(body, unknown, *opened.names)
    return Page(entries, opened.next_page, few(unknown))


class _OpenedList(NamedTuple):
    """Where in a body its settlements lie, and all that it says beside them."""

    names: tuple[str, ...]
    next_page: dict[str, str] | None
    unknown_fields: frozenset[str]


def _open_list(body: bytes) -> _OpenedList:
    envelope = _envelope(body)
    data = envelope["data"]
    unknown = _unknown(envelope, _ENVELOPE_FIELDS, "")
    holders = [envelope, envelope.get("meta"), envelope.get("pagination")]
    names: tuple[str, ...] = ("data",)
    if isinstance(data, dict):
        unknown |= _unknown(data, {"settlements", *_NEXT_FIELDS}, "data.")
        holders.append(data)
        names = ("data", "settlements")
        data = data.get("settlements")
    if not isinstance(data, list):
        raise PageUndecodable(f"the body has no list `{'.'.join(names)}`")
    for place in ("meta", "pagination"):
        if isinstance(envelope.get(place), dict):
            unknown |= _unknown(envelope[place], _NEXT_FIELDS, f"{place}.")
    return _OpenedList(names, _next_page(holders), frozenset(unknown))


def read_events(body: bytes) -> EventPage:
    """Take a list of events apart without changing a byte of it; as `read_page`."""
    envelope = _envelope(body)
    data = envelope["data"]
    names = ["data", "events"] if isinstance(data, dict) else ["data"]
    events = data.get("events") if isinstance(data, dict) else data
    if not isinstance(events, list):
        raise PageUndecodable(f"the body has no list `{'.'.join(names)}`")
    entries = tuple(map(_event_entry, elements_of(body, *names)))
    return EventPage(entries, few(_unknown(envelope, _ENVELOPE_FIELDS, "")))


def read_settlement(record: bytes) -> SettlementRecord:
    """A settlement's exact text, typed; raises `RecordRejected`, naming the field."""
    try:
        settlement = _SETTLEMENT.decode(record)
    except UNREADABLE:
        settlement = _settlement_by_fields(record)
    if b"\\" in record:
        _check_texts(settlement)
    return settlement


# What a settlement means.


@dataclass(frozen=True)
class Terms:
    """What the engine does not say about a market; None is not known yet.

    `currency` is that of its shares and payouts.
    """

    currency: str | None = None


UNDECIDED = Terms()

_STATUSES = {
    RecordStatus.PENDING: Status.OPEN,
    RecordStatus.PROCESSING: Status.OPEN,
    RecordStatus.COMPLETED: Status.SETTLED,
    RecordStatus.FAILED: Status.FAILED,
}


def normalize(record: bytes, context: RecordContext, terms: Terms = UNDECIDED) -> Settlement:
    """A settlement's exact text in the words of the house; raises `RecordRejected`, never guesses.

    The subject is the settlement, not the position: a retry may make another one.  What has failed
    was decided when it was last updated, as only what is completed was settled.
    """
    told = read_settlement(record)
    updated_at = _utc(told.updated_at, "updatedAt")
    settled_at = None if told.settled_at is None else _utc(told.settled_at, "settledAt")
    is_completed = told.status is RecordStatus.COMPLETED
    if told.payout_per_share > 1:
        raise RecordRejected(
            "number_unusable", f"`payoutPerShare` is {told.payout_per_share}, more than 1"
        )
    return Settlement(
        source_key=told.id,
        provider_order=order_of(updated_at),
        status=_STATUSES[told.status],
        outcome=_outcome(told.payout_per_share) if is_completed else None,
        settled_at=updated_at if told.status is RecordStatus.FAILED else settled_at,
        settled_at_basis=SettledAtBasis.PROVIDER,
        is_resettlement=False,
        player_id=told.player_id,
        market_id=told.market_id,
        selection_id=told.outcome_id,
        position_id=told.position_id,
        currency=terms.currency,
        payout=Decimal(told.total_payout) if is_completed else None,
        reason=told.error_message,
    )


def order_of(updated_at: datetime) -> str:
    """A text that sorts, byte by byte, by time."""
    moment = updated_at.astimezone(UTC).replace(tzinfo=None)
    return f"t{moment.isoformat(timespec='microseconds')}"


def _outcome(payout_per_share: Decimal) -> Outcome:
    if payout_per_share == 1:
        return Outcome.WON
    return Outcome.PARTLY_WON if payout_per_share else Outcome.LOST


def _utc(moment: datetime, name: str) -> datetime:
    told = in_utc(moment)
    if told is None:
        raise RecordRejected("time_unreadable", f"`{name}` is outside of the calendar")
    return told


# How a body is taken apart.


def _amount(kind: type, value: object) -> Amount:
    """The hook for the one type that msgspec does not know."""
    if kind is not Amount or not isinstance(value, str):
        raise ValueError("Expected a decimal in a text")
    if _PLAIN_AMOUNT.fullmatch(value):
        return Amount(value)
    if not _AMOUNT.fullmatch(value):
        raise ValueError("Expected a decimal in a text")
    number = Decimal(value)
    try:
        number.quantize(_FINEST, context=_BOUNDED)
    except (Inexact, InvalidOperation):
        raise ValueError("Expected a decimal of a size that amounts can have") from None
    if number < 0:
        raise ValueError("Expected a decimal that is not negative")
    return Amount(abs(number))


_SETTLEMENT = msgspec.json.Decoder(SettlementRecord, dec_hook=_amount)
_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(SettlementRecord)}
_ENVELOPE_FIELDS = {"success", "data", "error", "meta", "pagination", "nextCursor", "next"}
_NEXT_FIELDS = {"nextCursor", "next"}
_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_SETTLE_FIELDS = {
    "settlements",
    "errors",
    *(field.encode_name for field in msgspec.structs.fields(SettleTotals)),
}


def _envelope(body: bytes) -> dict[str, Any]:
    """The body of a read that succeeded, `data` in it."""
    envelope = parsed_json(body)
    if not isinstance(envelope, dict):
        raise PageUndecodable("the body is JSON, but not an object")
    code, message = _error_of(envelope)
    if envelope.get("success") is not True or code is not None:
        told = f"the error {shown(code)}: {shown(message)}" if code else "no `success`"
        raise PageUndecodable(f"the engine answered with {told}")
    if "data" not in envelope:
        raise PageUndecodable("the body has no `data`")
    return envelope


def _error_of(envelope: dict[str, Any]) -> tuple[str | None, str | None]:
    error = envelope.get("error")
    if not isinstance(error, dict):
        return None, None
    return _short_text(error.get("code")), _short_text(error.get("message"))


def _short_text(value: object) -> str | None:
    if not isinstance(value, str) or not is_storable(value):
        return None
    return value[:_TEXT_CHARACTERS_LIMIT]


def _converted(data: dict[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(data, kind, dec_hook=_amount)
    except (msgspec.ValidationError, ValueError) as error:
        raise PageUndecodable(f"`data` is not as documented: {error}") from None


def _entries(body: bytes, unknown: set[str], *names: str) -> tuple[PageEntry, ...]:
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
    settlement_id = _usable_id(fields.get("id"))
    return PageEntry(
        _record(element, settlement_id, digest.hexdigest()),
        settlement_id,
        _usable_id(fields.get("marketId")),
        readable_time(fields.get("updatedAt")),
        digest.digest(),
    )


def _event_entry(element: Element) -> EventEntry:
    fields = element.value if isinstance(element.value, dict) else {}
    digest = sha256(element.text)
    sequence, market_id = _sequence(fields.get("sequence")), _usable_id(fields.get("marketId"))
    return EventEntry(
        _record(element, None if sequence is None else str(sequence), digest.hexdigest()),
        sequence,
        _usable_id(fields.get("eventType")),
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


def _unknown(fields: dict[str, Any], known: set[str], place: str) -> set[str]:
    return {f"{place}{name}" for name in fields.keys() - known}


def _excerpt(value: object) -> str:
    return json.dumps(value)[:_TEXT_CHARACTERS_LIMIT]


# What a single value means.


def _settlement_by_fields(record: bytes) -> SettlementRecord:
    """The settlement, field by field, so that the first one that cannot be used is named."""
    try:
        fields = parsed_json(record)
    except PageUndecodable as error:
        raise RecordRejected("undecodable", error.reason) from None
    if not isinstance(fields, dict):
        raise RecordRejected("wrong_type", "the settlement is not an object")
    known = {
        field.name: _field_value(name, fields)
        for name, field in _FIELDS.items()
        if _has(name, fields)
    }
    return SettlementRecord(**known)


def _has(name: str, fields: dict[str, Any]) -> bool:
    if name not in fields and _FIELDS[name].required:
        raise RecordRejected("missing_field", f"`{name}` is missing")
    return name in fields


def _field_value(name: str, fields: dict[str, Any]) -> Any:
    value = fields[name]
    try:
        return msgspec.convert(value, _FIELDS[name].type, dec_hook=_amount)
    except (msgspec.ValidationError, ValueError):
        raise RecordRejected(_rule_of(name, value), f"`{name}` is {shown(value)}") from None


def _rule_of(name: str, value: object) -> str:
    if not isinstance(value, str):
        return "wrong_type"
    if name == "status":
        return "unknown_status"
    if name.endswith("At"):
        return "time_unreadable"
    return "number_unusable" if _FIELDS[name].type is Amount else "id_unusable"


def _check_texts(settlement: SettlementRecord) -> None:
    for wire_name, field in _FIELDS.items():
        value = getattr(settlement, field.name)
        if isinstance(value, str) and not is_storable(value):
            raise RecordRejected(
                "text_unstorable", f"`{wire_name}` holds a null character or half a surrogate pair"
            )


def _usable_id(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS_LIMIT:
        return None
    return value if is_storable(value) else None
