"""The settlement log of ticktock: every decision about a market offer, one entry each.

Endpoint: `GET /settlements?limit=1..200&since_id=` below `https://ticktock.bet/cs2/v1`, header
`X-API-Key`, scope `cs2:markets:settlements`.  The log is append-only: a correction is a new entry
with `is_resettlement: true`.  It carries no money at all; stakes and payouts are the operator's.

Cursor: `since_id` is the id of the most recent entry that was read, and is never computed.  Ids
are kept as text: the documentation types them as uuid and shows whole numbers, so they are
compared as numbers only where every one of them is a number, else by `created_at`.

Quirks:
- In which order a page lists its entries is not documented.  `most_recent` therefore looks at the
  entries themselves, never at the last place of the page.
- `GET /matches/{match_id}/settlements` (limit to 1000, no cursor) repeats the entries of one
  match, which can fill a gap; a match with more entries than the limit cannot be read whole.
- An entry that cannot be read is still cut out, landed and held back; its neighbours go on.  Only
  bytes that are no list of entries at all stop the feed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from include.model import Outcome, Record, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.documented import UNREADABLE, by_fields, check_texts, few
from include.providers.elements import (
    TOLERANT,
    Element,
    elements_of,
    parsed_json,
    placed_texts,
)
from include.providers.errors import KEPT, Fatal, PageUndecodable, RecordRejected
from include.providers.http import Answer, Client
from include.providers.moments import AwareTime, in_utc, readable_time
from include.providers.texts import is_storable, shown
from include.settings import Settings

PROVIDER = "ticktock"
MATCH_ENTRIES_LIMIT = 1000

_MEANINGS = {
    403: "The key is wrong, or lacks the scope cs2:markets:settlements.",
    404: "Either the address is wrong, or the entry or match in the call is unknown to ticktock.",
    422: "`limit` may be 1 to 200 and comes from SETTLEMENTS_TICKTOCK_PAGE_LIMIT; `since_id` is "
    "the stored cursor, or SETTLEMENTS_TICKTOCK_FIRST_CURSOR before there is one.",
}
# Far above anything documented; a body of small values must not become millions of objects.
_PAGE_ENTRIES_LIMIT = 10_000
# Ids are parts of index keys, which Postgres limits to about 2700 bytes together.
_ID_CHARACTERS_LIMIT = 128
_ID_NUMBER_LIMIT = 2**63 - 1
# Digits of the largest unsigned 64-bit number: no log has counted further.
_ORDER_DIGITS = 20

_STATUSES = {"pending": Status.OPEN, "settled": Status.SETTLED, "voided": Status.VOID}
_DECISIONS: dict[tuple[str, str | None], tuple[Status, Outcome | None]] = {
    ("pending", None): (Status.OPEN, None),
    ("settled", "won"): (Status.SETTLED, Outcome.WON),
    ("settled", "lost"): (Status.SETTLED, Outcome.LOST),
    ("voided", "void"): (Status.VOID, Outcome.VOID),
}
_OUTCOMES = {outcome for _, outcome in _DECISIONS}

Number = Annotated[int, msgspec.Meta(ge=0, le=_ID_NUMBER_LIMIT)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_ID_CHARACTERS_LIMIT)]


class Entry(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One decision as ticktock writes it; source: the settlement log's documentation.

    `reason` is in the documentation's prose and in none of its examples.
    """

    id: Number | Name
    market_offer_id: Name
    match_id: Name
    previous_status: str | None = None
    new_status: str
    outcome: str | None = None
    settled_by: str | None = None
    is_resettlement: bool
    created_at: AwareTime
    reason: str | None = None

    @property
    def entry_id(self) -> str:
        """The id as text, whichever way it was written."""
        return str(self.id)


class PageEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a page, as far as it can be read without judging it.

    `entry_id` is None if there is no id that can be used, `created_at` (UTC) and `match_id` if
    they are absent or unreadable; `content_sha256` is the digest of the exact text.
    """

    record: Record
    entry_id: str | None
    created_at: datetime | None
    match_id: str | None
    content_sha256: bytes


class Page(msgspec.Struct, frozen=True):
    """A body taken apart: its entries in page order, and what it says of itself.

    `provider_count` is `meta.count`.  `unknown_fields` names what the documentation does not, by
    its place (`data[].odds`, `meta.next`); also `meta.count` itself if it is no whole number.
    """

    entries: tuple[PageEntry, ...]
    provider_count: int | None
    unknown_fields: frozenset[str]


def open_client(base_url: str, api_key: str, settings: Settings) -> Client:
    """A client for the log at `base_url`, which ends in `/cs2/v1`; `Fatal` if it cannot be used."""
    return Client(
        PROVIDER,
        base_url,
        secret_headers={"X-API-Key": api_key},
        settings=settings,
        meanings=_MEANINGS,
    )


def fetch_settlements(client: Client, *, since_id: str | None, limit: int) -> Answer:
    """At most `limit` entries created after `since_id`; without it, from where the log starts."""
    cursor = {} if since_id is None else {"since_id": since_id}
    return client.get("/settlements", {"limit": limit, **cursor})


def fetch_match_settlements(
    client: Client, match_id: str, limit: int = MATCH_ENTRIES_LIMIT
) -> Answer:
    """The entries of one match, at most `limit`; raises `Fatal` for an id no address can carry."""
    if _leaves_its_place(match_id):
        raise Fatal(
            PROVIDER,
            f"The match id {match_id!a:.100} cannot be part of an address. {KEPT}",
            "Read the entries of this match at ticktock, then decide on the gap in "
            "`resolve_findings`.",
        )
    return client.get(f"/matches/{quote(match_id, safe='')}/settlements", {"limit": limit})


def read_page(body: bytes) -> Page:
    """Take a page apart without changing a byte of it.

    `body[byte_start : byte_start + byte_length]` of each entry's record is the entry's exact
    text.  Raises `PageUndecodable`, saying where, for anything but JSON in UTF-8 with a list
    `data`.
    """
    try:
        envelope = _DOCUMENTED.decode(body)
    except UNREADABLE:
        return _read_deviating_page(body)
    placed = placed_texts(body, "data")
    if placed is None or (b"\\" in body and b"\\u0000" in body):
        return _read_deviating_page(body)
    _check_entry_count(len(envelope.data))
    return Page(
        entries=tuple(map(_documented_entry, envelope.data, *placed)),
        provider_count=envelope.meta.count,
        unknown_fields=frozenset(),
    )


def order_of(entry_id: str, created_at: datetime | None) -> str:
    """A text that sorts, byte by byte, as ticktock decided: by number, else by time and id.

    Raises `RecordRejected` for a number that is too long to be one, and for an id that is not a
    number and has no time.
    """
    if _is_numeric(entry_id):
        if len(entry_id) > _ORDER_DIGITS:
            raise RecordRejected(
                "id_unusable", f"`id` has {len(entry_id)} digits, more than {_ORDER_DIGITS}"
            )
        return "n" + entry_id.zfill(_ORDER_DIGITS)
    if created_at is None:
        raise RecordRejected("time_unreadable", "`id` is no number and there is no `created_at`")
    moment = created_at.astimezone(UTC).replace(tzinfo=None)
    return f"t{moment.isoformat(timespec='microseconds')}|{entry_id}"


def most_recent(entries: Sequence[PageEntry]) -> PageEntry | None:
    """The entry that ticktock wrote last, whose id is the next cursor; None if none has an id.

    Numbers are compared if all ids are numbers, else times; of equal times the entry counts that
    stands further on in the page's own direction.
    """
    named = [entry for entry in entries if entry.entry_id is not None]
    if not named:
        return None
    if all(_is_numeric(entry.entry_id or "") for entry in named):
        return max(named, key=lambda entry: int(entry.entry_id or ""))
    timed = [(entry.created_at, entry) for entry in named if entry.created_at is not None]
    if not timed:
        return named[-1]
    if timed[0][0] <= timed[-1][0]:
        timed.reverse()
    # `max` takes the first of equals: here the newest, as the list now runs from newest to oldest.
    return max(timed, key=lambda pair: pair[0])[1]


def oldest(entries: Sequence[PageEntry]) -> list[PageEntry]:
    """The entries with an id that ticktock wrote first: several if their times are equal.

    Numbers are compared if all ids are numbers, else times; without any time all are as old.
    """
    named = [entry for entry in entries if entry.entry_id is not None]
    if named and all(_is_numeric(entry.entry_id or "") for entry in named):
        return [min(named, key=lambda entry: int(entry.entry_id or ""))]
    times = [entry.created_at for entry in named if entry.created_at is not None]
    return [entry for entry in named if not times or entry.created_at == min(times)]


def normalize(record: bytes, context: RecordContext) -> Settlement:
    """One entry's exact text as a settlement; raises `RecordRejected`, never guesses.

    The subject is a market offer of a match.  Money stays None: the log tells none.
    """
    try:
        entry = _ENTRY.decode(record)
    except UNREADABLE:
        entry = _entry_by_fields(record)
    if b"\\" in record:
        check_texts(entry)
    settled_at = in_utc(entry.created_at)
    if settled_at is None:
        raise RecordRejected("time_unreadable", "`created_at` is outside of the calendar")
    status, outcome = _decision(entry.new_status, entry.outcome)
    previous = entry.previous_status
    return Settlement(
        source_key=_source_key(entry.match_id, entry.market_offer_id),
        provider_order=order_of(entry.entry_id, settled_at),
        status=status,
        outcome=outcome,
        settled_at=settled_at,
        settled_at_basis=SettledAtBasis.PROVIDER,
        is_resettlement=entry.is_resettlement,
        previous_status=None if previous is None else _status("previous_status", previous),
        event_id=entry.match_id,
        market_id=entry.market_offer_id,
        settled_by=entry.settled_by,
        reason=entry.reason,
    )


# How a page is taken apart. Two ways with one result: at full speed while every byte is as
# documented, and slowly, entry by entry, as soon as one is not.


class _DocumentedEntry(Entry, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An entry without any field that the documentation does not name."""


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    count: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class _DocumentedEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data: list[_DocumentedEntry]
    meta: _Meta


_DOCUMENTED = msgspec.json.Decoder(_DocumentedEnvelope)
_ENTRY = msgspec.json.Decoder(Entry)
_ENTRY_FIELDS = {field.name: field for field in msgspec.structs.fields(Entry)}


def _documented_entry(entry: Entry, start: int, content: bytes) -> PageEntry:
    moment = entry.created_at
    entry_id = str(entry.id)
    return PageEntry(
        Record(entry_id, start, len(content)),
        entry_id,
        moment if moment.tzinfo is UTC else in_utc(moment),
        entry.match_id,
        sha256(content).digest(),
    )


def _read_deviating_page(body: bytes) -> Page:
    envelope = _envelope(body)
    meta = envelope.get("meta")
    count = meta.get("count") if isinstance(meta, dict) else None
    is_count = type(count) is int and 0 <= count < 2**31
    return Page(
        entries=tuple(map(_deviating_entry, elements_of(body, "data"))),
        provider_count=count if is_count else None,
        unknown_fields=_unknown_fields(envelope, is_count=is_count),
    )


def _envelope(body: bytes) -> dict[str, Any]:
    """What the body says, in an object that has a list `data`."""
    envelope = parsed_json(body)
    if not isinstance(envelope, dict):
        raise PageUndecodable("the body is JSON, but not an object")
    entries = envelope.get("data")
    if not isinstance(entries, list):
        raise PageUndecodable("the body has no list `data`")
    _check_entry_count(len(entries))
    return envelope


def _deviating_entry(element: Element) -> PageEntry:
    digest = sha256(element.text)
    fields = element.value if isinstance(element.value, dict) else {}
    identifier, match_id = fields.get("id"), fields.get("match_id")
    entry_id = str(identifier) if _is_usable_id(identifier) else None
    return PageEntry(
        Record(entry_id or f"sha256:{digest.hexdigest()}", element.start, len(element.text)),
        entry_id,
        readable_time(fields.get("created_at")),
        match_id if isinstance(match_id, str) and is_storable(match_id) else None,
        digest.digest(),
    )


def _unknown_fields(envelope: dict[str, Any], *, is_count: bool) -> frozenset[str]:
    meta = envelope.get("meta")
    names = {name for name in envelope if name not in {"data", "meta"}}
    if isinstance(meta, dict):
        names |= {f"meta.{name}" for name in meta if name != "count"}
        if "count" in meta and not is_count:
            names.add("meta.count")
    elif "meta" in envelope:
        names.add("meta")
    in_entries: set[str] = set()
    for entry in envelope["data"]:
        if isinstance(entry, dict):
            in_entries |= entry.keys() - _ENTRY_FIELDS.keys()
    names |= {f"data[].{name}" for name in in_entries}
    return few(names)


def _check_entry_count(count: int) -> None:
    if count > _PAGE_ENTRIES_LIMIT:
        raise PageUndecodable(f"`data` holds {count} entries, more than {_PAGE_ENTRIES_LIMIT}")


# What a single value means.


def _entry_by_fields(record: bytes) -> Entry:
    """The entry, field by field, so that the first one that cannot be used is named."""
    try:
        fields = TOLERANT.decode(record.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordRejected("undecodable", f"the entry is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RecordRejected("wrong_type", "the entry is not an object")
    return by_fields(fields, Entry, _rule_of)


def _rule_of(name: str, value: object) -> str:
    if name == "created_at" and isinstance(value, str):
        return "time_unreadable"
    is_text = isinstance(value, str)
    if (name == "id" and (is_text or type(value) is int)) or (name.endswith("_id") and is_text):
        return "id_unusable"
    return "wrong_type"


def _status(name: str, word: str) -> Status:
    status = _STATUSES.get(word)
    if status is None:
        raise RecordRejected("unknown_status", f"`{name}` is {shown(word)}")
    return status


def _decision(new_status: str, word: str | None) -> tuple[Status, Outcome | None]:
    decision = _DECISIONS.get((new_status, word))
    if decision is not None:
        return decision
    _status("new_status", new_status)
    if word not in _OUTCOMES:
        raise RecordRejected("unknown_outcome", f"`outcome` is {shown(word)}")
    raise RecordRejected(
        "status_outcome_mismatch",
        f"`new_status` {shown(new_status)} does not go with `outcome` {shown(word)}",
    )


def _is_usable_id(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _ID_CHARACTERS_LIMIT and is_storable(value)
    # A boolean is an integer to Python, not to ticktock.
    return type(value) is int and 0 <= value <= _ID_NUMBER_LIMIT


def _is_numeric(entry_id: str) -> bool:
    """Whether the id is a whole number in its only spelling, so that text and number agree."""
    is_number = entry_id.isascii() and entry_id.isdigit()
    return is_number and (entry_id[0] != "0" or entry_id == "0")


def _leaves_its_place(match_id: str) -> bool:
    # Servers and proxies may decode the id before they resolve dots, so encoding alone is no help.
    parts = re.split(r"[/\\]", match_id)
    return not _is_usable_id(match_id) or not {"", ".", ".."}.isdisjoint(parts)


def _source_key(match_id: str, market_offer_id: str) -> str:
    """The subject's name, in which `/` stands between the two ids and nowhere else."""
    joined = f"{match_id}/{market_offer_id}"
    if joined.count("/") == 1 and "%" not in joined:
        return joined
    ids = (match_id, market_offer_id)
    return "/".join(one.replace("%", "%25").replace("/", "%2F") for one in ids)
