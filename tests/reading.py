"""A second reading of ticktock's log, to hold the first against.

Written from the documentation and the JSON standard alone, slowly and plainly: tokens by one
regular expression, values by the standard library, and no line shared with `include`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

# Parsers may give up on what is nested deeper; whether they do depends on the Python that runs.
DEPTH_LIMIT = 200
ENTRIES_LIMIT = 10_000

_TOKEN = re.compile(
    rb"[ \t\n\r]*+(?:(?P<mark>[{}\[\]:,])"
    rb'|(?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")'
    rb"|(?P<other>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null))"
)
_SPACE = re.compile(rb"[ \t\n\r]*")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d))",
    re.ASCII,
)
_FIELDS = {
    "id", "market_offer_id", "match_id", "previous_status", "new_status", "outcome",
    "settled_by", "is_resettlement", "created_at", "reason",
}  # fmt: skip
_OPTIONAL = {"previous_status", "outcome", "settled_by", "reason"}
_STATUSES = {"pending": "open", "settled": "settled", "voided": "void"}
_OUTCOMES = {None, "won", "lost", "void"}
_GO_TOGETHER = {
    ("pending", None), ("settled", "won"), ("settled", "lost"), ("voided", "void")
}  # fmt: skip


@dataclass
class PageReading:
    """A page as JSON has it: where the elements of its last `data` lie, in bytes, and their values.

    `is_documented` tells whether every name in it is known, and its count a whole number.
    """

    spans: list[tuple[int, int]]
    values: list[Any]
    provider_count: int | None
    is_documented: bool


def read_page(body: bytes) -> PageReading | str:
    """The page, or what is wrong with it: `undecodable`, or `deep` if a parser may refuse it."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "undecodable"
    scan = _Scan(body)
    if not scan.is_sound:
        return "undecodable"
    if scan.depth > DEPTH_LIMIT:
        return "deep"
    envelope = value_of(body)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("data"), list):
        return "undecodable"
    if len(scan.elements) > ENTRIES_LIMIT:
        return "undecodable"
    meta = envelope.get("meta")
    count = meta.get("count") if isinstance(meta, dict) else None
    is_count = type(count) is int and 0 <= count < 2**31
    return PageReading(
        spans=scan.elements,
        values=envelope["data"],
        provider_count=count if is_count else None,
        is_documented=_is_documented(envelope, is_count),
    )


def read_record(text: bytes) -> dict[str, Any] | set[str]:
    """What the entry says in the house's words, or every rule that it breaks.

    Only for a text that is not nested deeper than `DEPTH_LIMIT`.
    """
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return {"undecodable"}
    if not _Scan(text).is_sound:
        return {"undecodable"}
    entry = value_of(text)
    if not isinstance(entry, dict):
        return {"wrong_type"}
    rules = {rule for name in _FIELDS for rule in _broken(name, entry)}
    return rules | _contradictions(entry) or _said(entry)


def key_of(value: Any) -> str | None:
    """The id under which the record is kept; None if it has none that can be used."""
    identifier = value.get("id") if isinstance(value, dict) else None
    is_usable = not list(_broken("id", {"id": identifier}))
    # A numeral of more than 20 digits names a record, though it gives it no place in the order.
    is_long = isinstance(identifier, str) and _is_numeral(identifier) and len(identifier) <= 128
    return str(identifier) if is_usable or is_long else None


def moment_of(value: Any) -> datetime | None:
    """`created_at` in UTC, to the microsecond; None if it is no time of the calendar."""
    written = value.get("created_at") if isinstance(value, dict) else None
    match = _TIME.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return None
    day, clock, fraction, sign, hours, minutes = match.groups()
    tenths = int(((fraction or "") + "0000000")[:7])
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
        moment += timedelta(microseconds=(tenths + 5) // 10)
        return moment + offset if sign == "-" else moment - offset
    except (ValueError, OverflowError):
        return None


def match_of(value: Any) -> str | None:
    """`match_id`, if it is a text that can be stored."""
    match_id = value.get("match_id") if isinstance(value, dict) else None
    return match_id if isinstance(match_id, str) and _is_storable(match_id) else None


def is_before(left: tuple[str, datetime], right: tuple[str, datetime]) -> bool | None:
    """Whether ticktock decided `left`, an id and its time, first; None if they cannot be compared:
    a number and another id.
    """
    if _is_numeral(left[0]) and _is_numeral(right[0]):
        return int(left[0]) < int(right[0])
    if _is_numeral(left[0]) or _is_numeral(right[0]):
        return None
    return (left[1], left[0]) < (right[1], right[0])


def value_of(text: bytes) -> Any:
    """What a sound text says, as the standard library reads it."""
    # Of a number of a thousand digits, all that matters is that it is too large.
    return json.loads(
        text.decode("utf-8"),
        parse_int=lambda digits: int(digits[:1000]),
        parse_constant=_no_constant,
    )


def next_token(text: bytes, position: int) -> tuple[int, int]:
    """Where the first token behind `position` begins and ends, in bytes; the end if none does."""
    token = _TOKEN.search(text, position)
    return token.span(token.lastgroup or 0) if token else (len(text), len(text))


class _Scan:
    """One pass over the tokens of a text: whether it is JSON, how deep, and `data`'s elements."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._opened: list[bytes] = []
        self._key = ""
        self._element_start = 0
        self.depth = 0
        self.elements: list[tuple[int, int]] = []
        self.is_sound = self._scan()

    def _scan(self) -> bool:
        position, expected = 0, "value"
        while expected != "end":
            token = _TOKEN.match(self._text, position)
            if token is None:
                return False
            position = token.end()
            kind = token["mark"] or (b"string" if token["string"] is not None else b"other")
            following = self._take(kind, token.start(token.lastgroup or 0), position, expected)
            if following is None:
                return False
            expected = following
        space = _SPACE.match(self._text, position)
        return space is not None and space.end() == len(self._text)

    def _take(self, kind: bytes, start: int, end: int, expected: str) -> str | None:
        """What may follow the token; None if it may not stand here."""
        if kind in (b"}", b"]"):
            return self._close(kind, end, expected)
        if kind == b"string" and expected in ("key", "key or }"):
            self._note_key(start, end)
            return ":"
        if kind == b":":
            return "value" if expected == ":" else None
        if kind == b",":
            return {", or }": "key", ", or ]": "value"}.get(expected)
        return self._begin(kind, start, end) if expected in ("value", "value or ]") else None

    def _note_key(self, start: int, end: int) -> None:
        if len(self._opened) == 1:
            self._key = json.loads(self._text[start:end])
            if self._key == "data":
                self.elements = []

    def _begin(self, kind: bytes, start: int, end: int) -> str:
        if len(self._opened) == 2:
            self._element_start = start
        if kind not in (b"{", b"["):
            return self._end(end)
        self._opened.append(kind)
        self.depth = max(self.depth, len(self._opened))
        return "key or }" if kind == b"{" else "value or ]"

    def _close(self, kind: bytes, end: int, expected: str) -> str | None:
        brackets = {b"}": (b"{", ("key or }", ", or }")), b"]": (b"[", ("value or ]", ", or ]"))}
        opening, places = brackets[kind]
        if expected not in places or self._opened[-1] != opening:
            return None
        self._opened.pop()
        return self._end(end)

    def _end(self, end: int) -> str:
        if self._opened == [b"{", b"["] and self._key == "data":
            self.elements.append((self._element_start, end))
        if not self._opened:
            return "end"
        return ", or }" if self._opened[-1] == b"{" else ", or ]"


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"the scan lets {name} pass")


def _is_documented(envelope: dict[str, Any], is_count: bool) -> bool:
    meta = envelope.get("meta", {})
    is_meta = (
        isinstance(meta, dict) and meta.keys() <= {"count"} and ("count" not in meta or is_count)
    )
    entries = [entry for entry in envelope["data"] if isinstance(entry, dict)]
    return (
        envelope.keys() <= {"data", "meta"}
        and is_meta
        and all(entry.keys() <= _FIELDS for entry in entries)
    )


def _broken(name: str, entry: dict[str, Any]) -> set[str]:
    """The rules that one field of the entry breaks by itself."""
    if name not in entry:
        return set() if name in _OPTIONAL else {"missing_field"}
    value = entry[name]
    if isinstance(value, str):
        return _broken_by_text(name, value, entry)
    if name == "id" and type(value) is int:
        return set() if 0 <= value < 2**63 else {"id_unusable"}
    if (value is None and name in _OPTIONAL) or (
        isinstance(value, bool) and name == "is_resettlement"
    ):
        return set()
    return {"wrong_type"}


def _contradictions(entry: dict[str, Any]) -> set[str]:
    status, outcome = entry.get("new_status"), entry.get("outcome")
    if _broken("new_status", entry) or _broken("outcome", entry):
        return set()
    return set() if (status, outcome) in _GO_TOGETHER else {"status_outcome_mismatch"}


def _broken_by_text(name: str, text: str, entry: dict[str, Any]) -> set[str]:
    unstorable = set() if _is_storable(text) else {"text_unstorable"}
    match name:
        case "is_resettlement":
            return {"wrong_type"}
        case "id" if _is_numeral(text) and len(text) > 20:
            return {"id_unusable"}
        case "id" | "market_offer_id" | "match_id":
            return unstorable | (set() if 1 <= len(text) <= 128 else {"id_unusable"})
        case "new_status" | "previous_status":
            return unstorable | (set() if text in _STATUSES else {"unknown_status"})
        case "outcome":
            return unstorable | (set() if text in _OUTCOMES else {"unknown_outcome"})
        case "created_at":
            return set() if moment_of(entry) is not None else {"time_unreadable"}
        case _:
            return unstorable


def _said(entry: dict[str, Any]) -> dict[str, Any]:
    match_id, offer_id = entry["match_id"], entry["market_offer_id"]
    claimed = entry.get("previous_status")
    return {
        "source_key": f"{_escaped(match_id)}/{_escaped(offer_id)}",
        "status": _STATUSES[entry["new_status"]],
        "outcome": entry.get("outcome"),
        "settled_at": moment_of(entry),
        "settled_at_basis": "provider",
        "is_resettlement": entry["is_resettlement"],
        "previous_status": None if claimed is None else _STATUSES[claimed],
        "event_id": match_id,
        "market_id": offer_id,
        "settled_by": entry.get("settled_by"),
        "reason": entry.get("reason"),
    }


def _escaped(identifier: str) -> str:
    return identifier.replace("%", "%25").replace("/", "%2F")


def _is_numeral(text: str) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]*", text) is not None


def _is_storable(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.encode("utf-8") or True)
    except UnicodeEncodeError:
        return False
