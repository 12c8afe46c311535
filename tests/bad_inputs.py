"""The bad-input corpus of ticktock: what could arrive, and what must become of it.

`RECORDS` are single entries, `PAGES` whole bodies.  Each case tells its fate, which follows from
the table it stands in and not from any code: `published`, a rule of quarantine, `page stopped`
(the bytes are kept and the feed waits for a decision) or `batch held`.  Numbers from `FIRST_ID`
on are the cases' own ids, so that no two of them are about the same thing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, product

PUBLISHED = "published"
STOPPED = "page stopped"
HELD = "batch held"
FIRST_ID = 1_000_000

Fate = str


@dataclass(frozen=True)
class BadRecord:
    """One element of `data`: its exact text.  `is_about_id` if it has no sound id of its own."""

    name: str
    text: bytes
    fate: Fate
    is_about_id: bool


@dataclass(frozen=True)
class BadPage:
    """One body.  `texts` are the elements that must be cut out of it, good or bad."""

    name: str
    body: bytes
    fate: Fate
    texts: tuple[bytes, ...] = ()


def sound_entry(number: int) -> dict[str, str]:
    """A sound entry about an offer of its own: each field with its value as JSON text."""
    return {
        "id": str(number),
        "market_offer_id": f'"offer {number}"',
        "match_id": '"52ef"',
        "previous_status": '"pending"',
        "new_status": '"settled"',
        "outcome": '"won"',
        "settled_by": '"engine"',
        "is_resettlement": "false",
        "created_at": '"2026-05-10T18:32:14+00:00"',
    }


def written(fields: Mapping[str, str] | list[tuple[str, str]]) -> bytes:
    """The fields as the text of an object, in their order, repeated ones included."""
    pairs = fields.items() if isinstance(fields, Mapping) else fields
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in pairs) + "}").encode()


def sound_text(number: int) -> bytes:
    """The exact text of a sound entry."""
    return written(sound_entry(number))


def page_of(*texts: bytes, count: str | None = None) -> bytes:
    """A body with these elements; `meta.count` tells the truth unless its text is given."""
    told = str(len(texts)) if count is None else count
    return b'{"data": [' + b", ".join(texts) + b'], "meta": {"count": ' + told.encode() + b"}}"


# Values, as JSON texts, and what becomes of an entry that has one in a field.

_HUGE = "1" * 400
_NUMBERS = [
    "0", "-0", "-1", "1.5", "1.0", "1e3", "1E-3", "1e400", str(2**31), str(2**63), str(2**64),
    "1" * 20, "1" * 21, "1" * 129, _HUGE, "-" + _HUGE,
]  # fmt: skip
_NOT_TEXT = [*_NUMBERS, "true", "false", "[]", "{}", '["won"]', '{"won": true}', "[null]"]
_NOT_STORABLE = [r'"\u0000"', r'"a\u0000b"', r'"\ud800"', r'"a\udfff"', r'"\ude00\ud83d"',
                 r'"\ud83d\ud83d\ude00"']  # fmt: skip
_BLANK = [
    '" "', r'"\t"', r'"\n"', r'"\r\n "', r'"\u0020"', r'"\u000b\u000c"',
    '"\u00a0"', '"\u3000"', '"\u200b"', '"\ufeff"',
]  # fmt: skip
_ODD_TEXTS = [
    r'"\ud83d\ude00"', '"😀"', '"‮abc‬"', '"שלום"', '"é"', '"e\u0301"', '"Z\u0351\u036b\u0343"',
    r'"\u0001\u0002"', r'"\u001b[31m"', '"\x7f"', r'"\\."', r'"\\N"',
    r'"a\tb\nc\rd"', r'"\"quoted\""', """"'; DROP TABLE raw.page; --\"""", '"null"', '"NaN"', '"0"',
    '"%s %(x)s {0} :name"', r'"a\/b"', '"a/b%2Fc%"', r'"\uffff\ufffe"', '"\U0010ffff"',
]  # fmt: skip


def _text_of(length: int, character: str = "x") -> str:
    return f'"{character * length}"'


def _all(values: list[str], fate: Fate) -> dict[str, Fate]:
    return dict.fromkeys(values, fate)


_NAME: dict[str, Fate] = {
    **_all([*_NOT_TEXT, "null"], "wrong_type"),
    **_all(_NOT_STORABLE, "text_unstorable"),
    **_all(_BLANK, "names_not_blank"),
    **_all(_ODD_TEXTS, PUBLISHED),
    **_all([_text_of(128), _text_of(128, "😀"), _text_of(128, "%")], PUBLISHED),
    **_all(['""', _text_of(129), _text_of(129, "é"), _text_of(100_000)], "id_unusable"),
}
_FREE_TEXT: dict[str, Fate] = {
    **_all(_NOT_TEXT, "wrong_type"),
    **_all(_NOT_STORABLE, "text_unstorable"),
    **_all(["null", '""', *_BLANK, *_ODD_TEXTS, _text_of(500_000, "é")], PUBLISHED),
}
_NO_STATUS = [
    "Settled", "SETTLED", " settled", "settled ", r"settled\n", "set tled", "settle", "settledd",
    "settled\u200b", "\u0455ettled", "ｓettled", "Pending", "void", "VOIDED", "open", "won",
    "cancelled", "regraded", "null", "true", "1", "", " ", "x" * 100_000,
]  # fmt: skip
_STATUS: dict[str, Fate] = {
    **_all(_NOT_TEXT, "wrong_type"),
    **_all(_NOT_STORABLE, "text_unstorable"),
    **_all([f'"{word}"' for word in _NO_STATUS], "unknown_status"),
    r'"\u0073ettled"': PUBLISHED,
}
_NO_OUTCOME = [
    "Won", "WON", " won", "won ", r"won\t", "w on", "win", "wonn", "won\u200b", "wоn", "loss",
    "Void", "voided", "push", "half_won", "refunded", "null", "1", "", " ", "x" * 100_000,
]  # fmt: skip
_OUTCOME: dict[str, Fate] = {
    **_all(_NOT_TEXT, "wrong_type"),
    **_all(_NOT_STORABLE, "text_unstorable"),
    **_all([f'"{word}"' for word in _NO_OUTCOME], "unknown_outcome"),
    r'"\u0077on"': PUBLISHED,
    "null": "status_outcome_mismatch",
}
_YES_OR_NO: dict[str, Fate] = {
    **_all([*_NUMBERS, "1", "null", "[]", "{}", "[true]"], "wrong_type"),
    **_all(['"true"', '"false"', '"True"', '"yes"', '""', '"0"'], "wrong_type"),
    "true": PUBLISHED,
}
_READABLE_TIMES = [
    "2026-05-10T18:32:14Z", "2026-05-10t18:32:14z", "2026-05-10 18:32:14Z",
    "2026-05-10T18:32:14-00:00", "2026-05-10T18:32:14+0000", "2026-05-10T18:32:14.1Z",
    "2026-05-10T18:32:14.123456789Z", "2026-05-10T18:32:14." + "9" * 400 + "Z",
    "2026-05-10T20:32:14+02:00", "2026-05-10T08:17:14-10:15", "2026-05-11T18:31:14+23:59",
    "2024-02-29T00:00:00Z", "2000-01-01T00:00:00Z", r"2026-05-10T18:32:14\u005a",
]  # fmt: skip
_IMPLAUSIBLE_TIMES = [
    "1999-12-31T23:59:59Z", "2000-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z",
    "1582-10-10T00:00:00Z", "0001-01-01T00:00:00Z", "2100-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z",
]  # fmt: skip
_NO_TIMES = [
    "2026-05-10T18:32:14", "2026-05-10T18:32:14.5", "2026-05-10", "18:32:14Z", "2026-05-10T18:32Z",
    "2026-05-10T18Z", "20260510T183214Z", "2026-05-10T18:32:14.Z", "2026-05-10T18:32:14,5Z",
    "2026-05-10T18:32:14+00", "2026-05-10T18:32:14+24:00", "2026-05-10T18:32:14+00:60",
    "2026-05-10T18:32:14 Z", " 2026-05-10T18:32:14Z", "2026-05-10T18:32:14Z ",
    "2026-05-10T18:32:14 UTC", "2026-05-10T18:32:14CEST", "2026-05-10T18:32:14+5:00",
    "2026-05-10T18:32:14\u221202:00", "2026-05-10T24:00:00Z", "2026-05-10T18:60:00Z",
    "2026-05-10T18:32:60Z", "2016-12-31T23:59:60Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z",
    "2026-00-10T00:00:00Z", "2026-05-00T00:00:00Z", "2026-04-31T00:00:00Z", "0000-01-01T00:00:00Z",
    "12026-05-10T18:32:14Z", "-2026-05-10T18:32:14Z", "26-05-10T18:32:14Z", "2026-5-10T18:32:14Z",
    "10/05/2026 18:32:14", "Sun, 10 May 2026 18:32:14 GMT", "2026-W19-7T18:32:14Z",
    "1778437934", "1778437934.5", "٢٠٢٦-٠٥-١٠T18:32:14Z", "now", "infinity", "", " ",
    "9999-12-31T23:59:59-23:00", "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:00",
    r"2026-05-10T18:32:14Z\u0000", r"\ud800", "x" * 100_000,
]  # fmt: skip
_TIME: dict[str, Fate] = {
    **_all([*_NOT_TEXT, "1778437934", "1778437934123", "null"], "wrong_type"),
    **_all([f'"{moment}"' for moment in _READABLE_TIMES], PUBLISHED),
    **_all([f'"{moment}"' for moment in _IMPLAUSIBLE_TIMES], "settled_at_plausible"),
    **_all([f'"{moment}"' for moment in _NO_TIMES], "time_unreadable"),
}
_ID: dict[str, Fate] = {
    **_all(
        [*_NOT_TEXT, "null", '""', _text_of(129), _text_of(100_000), *_NOT_STORABLE],
        "record_without_key",
    ),
    **_all(["0", "-0", "1" * 18, str(2**31), str(2**63 - 1)], PUBLISHED),
    **_all([f'"{2**63}"', f'"{2**64}"', _text_of(20, "9"), '"007"', '"-5"', '"1.0"'], PUBLISHED),
    **_all(['"٧"', '"²"', '"52ef-uuid"', _text_of(128), _text_of(128, "😀")], PUBLISHED),
    **_all(_ODD_TEXTS, PUBLISHED),
    **_all([_text_of(21, "9"), _text_of(128, "9")], "id_unusable"),
}
FIELDS: dict[str, dict[str, Fate]] = {
    "id": _ID,
    "market_offer_id": _NAME,
    "match_id": _NAME,
    "previous_status": {**_STATUS, "null": PUBLISHED},
    "new_status": {**_STATUS, "null": "wrong_type"},
    "outcome": _OUTCOME,
    "settled_by": _FREE_TEXT,
    "is_resettlement": _YES_OR_NO,
    "created_at": _TIME,
    "reason": _FREE_TEXT,
}
MISSING: dict[str, Fate] = {
    "id": "record_without_key",
    **_all(
        ["market_offer_id", "match_id", "new_status", "is_resettlement", "created_at"],
        "missing_field",
    ),
    "outcome": "status_outcome_mismatch",
    "previous_status": PUBLISHED,
    "settled_by": PUBLISHED,
}
# What is wrong with a value as it stands twice in one entry: of equal names the last one counts.
_SPOILED = {
    "market_offer_id": ("7", "wrong_type"),
    "match_id": ('""', "id_unusable"),
    "previous_status": ('"odd"', "unknown_status"),
    "new_status": ('"odd"', "unknown_status"),
    "outcome": ('"odd"', "unknown_outcome"),
    "settled_by": ("{}", "wrong_type"),
    "is_resettlement": ("0", "wrong_type"),
    "created_at": ('"odd"', "time_unreadable"),
    "reason": (r'"\u0000"', "text_unstorable"),
}
_NO_OBJECTS = [
    "null", "true", "false", "0", "-1.5e300", "1e400", _HUGE, '"text"', '""', r'"\ud800"', "[]",
    "[[]]", "[" * 50 + "]" * 50, "{}", '{"data": []}', '{"": null}',
]  # fmt: skip
_UNKNOWN_VALUES = [
    "null", "1e400", _HUGE, r'"\ud800"', r'"\u0000"', "[]", "{}", "[" * 60 + "]" * 60,
    '{"id": 1, "created_at": null}', _text_of(100_000),
]  # fmt: skip


def _shown(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:20]}… of {len(value)} characters"


class _Cases:
    """Gives each case an id of its own, behind that of a sound neighbour."""

    def __init__(self) -> None:
        self._number = FIRST_ID

    def next_id(self, places: int = 2) -> int:
        self._number += places
        return self._number


def _records() -> Iterator[BadRecord]:
    cases = _Cases()
    yield from _with_odd_values(cases)
    yield from _with_contradictions(cases)
    yield from _with_other_fields(cases)
    for text in _NO_OBJECTS:
        yield BadRecord(f"element {_shown(text)}", text.encode(), "record_without_key", True)


def _with_odd_values(cases: _Cases) -> Iterator[BadRecord]:
    for name, values in FIELDS.items():
        for value, fate in values.items():
            # A decision other than the documented one must not hide what is wrong with this field.
            changes = {name: value}
            fields = sound_entry(cases.next_id()) | changes
            yield BadRecord(f"{name} {_shown(value)}", written(fields), fate, name == "id")
    for name, fate in MISSING.items():
        fields = sound_entry(cases.next_id())
        del fields[name]
        yield BadRecord(f"{name} missing", written(fields), fate, name == "id")


def _with_contradictions(cases: _Cases) -> Iterator[BadRecord]:
    """Every new status with every outcome, claimed status before and kind of decision.

    What was claimed before never rejects an entry: it is compared once the entry is published.
    """
    sound = {("pending", None), ("settled", "won"), ("settled", "lost"), ("voided", "void")}
    statuses = ["pending", "settled", "voided"]
    for new, outcome, previous, is_resettlement in product(
        statuses, [None, "won", "lost", "void"], [None, *statuses], [False, True]
    ):
        told = {
            "previous_status": previous,
            "new_status": new,
            "outcome": outcome,
            "is_resettlement": is_resettlement,
        }
        changes = {name: json.dumps(value) for name, value in told.items()}
        fate = PUBLISHED if (new, outcome) in sound else "status_outcome_mismatch"
        text = written(sound_entry(cases.next_id()) | changes)
        yield BadRecord(f"decision {tuple(told.values())}", text, fate, False)


def _with_other_fields(cases: _Cases) -> Iterator[BadRecord]:
    for name, (value, rule) in _SPOILED.items():
        for is_last, fate in ((False, PUBLISHED), (True, rule)):
            sound = {"reason": '"corrected"'} | sound_entry(cases.next_id())
            spoiled = [(name, value)]
            pairs = [*sound.items(), *spoiled] if is_last else [*spoiled, *sound.items()]
            place = "last" if is_last else "first"
            yield BadRecord(f"{name} twice, {place} spoiled", written(pairs), fate, False)
    for value in _UNKNOWN_VALUES:
        text = written(sound_entry(cases.next_id()) | {"odds": value})
        yield BadRecord(f"unknown field {_shown(value)}", text, PUBLISHED, False)
    for name in ("New_Status", "new_status ", "newStatus", "new_status\u200b", "", r"\ud800"):
        fields = [
            (name if field == "new_status" else field, value)
            for field, value in sound_entry(cases.next_id()).items()
        ]
        yield BadRecord(f"new_status named {name!r}", written(fields), "missing_field", False)
    for name in (r"new\u005fstatus", r"\u006e\u0065w_status"):
        text = sound_text(cases.next_id()).replace(b"new_status", name.encode())
        yield BadRecord(f"new_status written {name}", text, PUBLISHED, False)
    spaced = sound_text(cases.next_id()).replace(b" ", b"\r\n\t ")
    yield BadRecord("spaces of every kind", spaced.replace(b"offer\r\n\t ", b""), PUBLISHED, False)
    turned = dict(reversed(sound_entry(cases.next_id()).items()))
    yield BadRecord("fields in another order", written(turned), PUBLISHED, False)


def _pages() -> Iterator[BadPage]:
    cases = _Cases()
    for make in (_other_layouts, _other_members, _lying_counts, _no_lists, _not_quite_json):
        yield from make(cases)
    yield from _no_json(cases)
    yield from _cut_short(cases)
    yield from _not_utf_8(cases)


def _pair(cases: _Cases) -> tuple[bytes, bytes]:
    number = cases.next_id()
    return sound_text(number), sound_text(number + 1)


def _other_layouts(cases: _Cases) -> Iterator[BadPage]:
    layouts = {
        "no space": b'{"data":[%s,%s],"meta":{"count":2}}',
        "much space of every kind": b' \r\n\t{ "data"\t:\n[\r\n%s\t, %s ]\n, "meta":{"count":2}}\n',
        "meta first": b'{"meta": {"count": 2}, "data": [%s, %s]}',
        "escaped names": rb'{"d\u0061ta": [%s, %s], "\u006deta": {"count": 2}}',
        "zero with a sign and an exponent": b'{"data": [%s, %s], "meta": {"count": 2}, "z": -0e-0}',
    }
    for name, layout in layouts.items():
        one, other = _pair(cases)
        yield BadPage(name, layout % (one, other), PUBLISHED, (one, other))
    one, other = _pair(cases)
    yield BadPage("very many spaces", page_of(one, b" " * 10**6 + other), PUBLISHED, (one, other))
    one, other = _pair(cases)
    texts = (one, b"[1]", b"null", b"2e2", other)
    yield BadPage("elements that are no objects", page_of(*texts), PUBLISHED, texts)
    one, other = _pair(cases)
    yield BadPage("an entry twice", page_of(one, one, other), PUBLISHED, (one, other))


def _other_members(cases: _Cases) -> Iterator[BadPage]:
    members = [
        b'"next": null', b'"\\ud800": 1', b'"\\u0000": 1', b'"": 1', b'"Data": []', b'"data ": []',
        b'"x": 1e400', b'"x": ' + b"9" * 5000, b'"x": "\\udfff"', b'"x": {"data": [{"id": 1}]}',
        b'"x": ' + b"[" * 90 + b"]" * 90, b'"meta": null', b'"meta": []', b'"meta": "2"',
        b'"meta": 2', b'"meta": {}', b'"meta": {"total": 5}', b'"meta": {"count": 2, "count": 3.5}',
        *(b'"meta": {"count": %s}' % count for count in (
            b"null", b"true", b'"2"', b"2.0", b"2e0", b"-2", b"2147483648", b"1" * 400, b"[2]",
        )),
    ]  # fmt: skip
    for member in members:
        one, other = _pair(cases)
        body = b'{"data": [%s, %s], %s}' % (one, other, member)
        yield BadPage(f"member {member[:40]!r}", body, PUBLISHED, (one, other))
    for first in (b"null", b"[]", b"{}", b'"text"', b"[%s]" % sound_text(1), b"[1, 2]"):
        one, other = _pair(cases)
        body = b'{"data": %s, "data": [%s, %s], "meta": {"count": 2}}' % (first, one, other)
        yield BadPage(f"two members data, first {first[:20]!r}", body, PUBLISHED, (one, other))
    one, other = _pair(cases)
    body = b'{"before": [%s, %s], "data": [%s, %s]}' % (one, other, one, other)
    yield BadPage("the same list under another name", body, PUBLISHED, (one, other))


def _lying_counts(cases: _Cases) -> Iterator[BadPage]:
    for count in ("0", "1", "3", "200", "2147483647"):
        texts = _pair(cases)
        yield BadPage(f"meta.count {count}", page_of(*texts, count=count), HELD, texts)
    texts = _pair(cases)
    body = page_of(*texts, count='2, "count": 3')
    yield BadPage("two members count, last wrong", body, HELD, texts)


def _no_lists(cases: _Cases) -> Iterator[BadPage]:
    one, other = _pair(cases)
    sound = page_of(one, other)
    for data in (
        b"null",
        b"true",
        b"0",
        b'"text"',
        b"{}",
        b'{"0": %s}' % one,
        b'{"data": [%s]}' % one,
    ):
        yield BadPage(f"data {data[:20]!r}", b'{"data": %s, "meta": {"count": 1}}' % data, STOPPED)
        last = b'{"data": [%s], "data": %s}' % (one, data)
        yield BadPage(f"two members data, last {data[:20]!r}", last, STOPPED)
    for body in (
        b"null", b"true", b"0", b'"data"', b"[]", b"{}", one, b"[%s]" % one, b"[%s]" % sound,
        b'{"result": %s}' % sound, b'{"Data": [%s]}' % one, b'{"detail": "Not Found"}',
        b'{"error": {"code": 500}}', json.dumps(sound.decode()).encode(),
    ):  # fmt: skip
        yield BadPage(f"no list: {body[:40]!r}", body, STOPPED)
    yield BadPage("10 001 entries", page_of(*[b"0"] * 10_001), STOPPED)


def _not_quite_json(cases: _Cases) -> Iterator[BadPage]:
    one, other = _pair(cases)
    sound = page_of(one, other)
    changes = {
        b', "meta"': [b',, "meta"', b' "meta"', b'; "meta"', b', //\n "meta"', b', /* */ "meta"'],
        b'"count": 2}}': [b'"count": 2}', b'"count": 2}}}', b'"count": 2,}}', b'"count": 2]}'],
        b": 2}}": [b": }}", b" 2}}", b": 02}}", b": +2}}", b": 2.}}", b": .2}}", b": 0x2}}",
                   b": 2e}}", b": NaN}}", b": Infinity}}", b": -Infinity}}", b": True}}",
                   b": None}}", b": undefined}}", b": 2n}}", b": '2'}}", b": -}}",
                   b": \xef\xbc\x92}}"],
        b'"meta"': [b"meta", b"'meta'", b'meta"', b'"meta', b"null", b"1"],
        b'"engine"': [b'"en\ngine"', b'"en\0gine"', b'"en\x1fgine"', rb'"en\xgine"', rb'"en\u12"',
                      rb'"\u+123"', b"engine", b'"en" "gine"', b'"engine', b"`engine`"],
    }  # fmt: skip
    for old, news in changes.items():
        for new in news:
            spoiled = sound.replace(old, new, 1)
            yield BadPage(f"{new!r} for {old!r}", spoiled, STOPPED)
    for before in (b"\xef\xbb\xbf", b"data: ", b")]}',\n", b"callback(", b"\0", b"\x1e", b"\xa0",
                   b",", b"HTTP/1.1 200 OK\r\n\r\n", one):  # fmt: skip
        yield BadPage(f"{before[:20]!r} before", before + sound, STOPPED)
    for after in (b"\0", b"\x1a", b";", b",", b"]", b")", b"null", b"<!-- 3 ms -->", b"\x0c",
                  b"\xc2\x85", b"\n{}\n", sound, b"\n" + sound):  # fmt: skip
        yield BadPage(f"{after[:20]!r} after", sound + after, STOPPED)


def _no_json(cases: _Cases) -> Iterator[BadPage]:
    one, other = _pair(cases)
    sound = page_of(one, other)
    for body in (
        b"", b" ", b"\r\n\r\n", b"\0", b"\0" * 1000, b"OK", b"-", b'"', b"{", b"[", b"<", b"\xff",
        b"<!doctype html><title>Please log in</title>", b"<?xml version='1.0'?><data/>",
        b"id,match\n1,2", gzip.compress(sound, mtime=0), sound.hex().encode(),
        b"\n".join((one, other)),
    ):  # fmt: skip
        yield BadPage(f"no JSON: {body[:30]!r}", body, STOPPED)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037"):
        yield BadPage(f"in {encoding}", sound.decode().encode(encoding), STOPPED)
    latin = sound.replace(b"engine", "Zoë".encode("latin-1"))
    yield BadPage("in latin-1", latin, STOPPED)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        depth = 50_000
        deep = opening * depth + b"1" + closing * depth
        yield BadPage(f"very deep {opening!r}", deep, STOPPED)
        yield BadPage(f"very deep {opening!r} as an entry", page_of(one, deep), STOPPED)
        yield BadPage(f"very deep {opening!r}, never closed", opening * depth, STOPPED)


def _cut_short(cases: _Cases) -> Iterator[BadPage]:
    sound = page_of(*_pair(cases))
    for length in range(3, len(sound), 17):
        yield BadPage(f"cut after {length} bytes", sound[:length], STOPPED)


def _not_utf_8(cases: _Cases) -> Iterator[BadPage]:
    sound = page_of(*_pair(cases))
    odd = (
        b"\xff",
        b"\x80",
        b"\xc0\x80",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8",
    )
    for place, sequence in zip(range(0, len(sound) + 1, 17), cycle(odd), strict=False):
        body = sound[:place] + sequence + sound[place:]
        yield BadPage(f"{sequence!r} at byte {place}", body, STOPPED)


RECORDS: tuple[BadRecord, ...] = tuple(_records())
PAGES: tuple[BadPage, ...] = tuple(_pages())
