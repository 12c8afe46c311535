"""`python -m tests.fuzz --seconds 30 --seed 7`: spoil pages of ticktock and read them twice.

Each input is made from its seed and number alone: a page of entries with odd values or one of the
bad-input corpus, then spoiled by bytes and by JSON tokens.  `include.providers.ticktock` must read
it as `tests.reading` does, whichever of its ways it takes, raise nothing but what it documents, and
be quick about it.  What it does not is cut down to the smallest input that still shows it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import permutations
from typing import Any, NamedTuple, TypeVar

import msgspec

from include.model import RecordContext, Settlement
from include.providers import ticktock
from include.providers.errors import PageUndecodable, RecordRejected
from tests import reading
from tests.bad_inputs import FIELDS, PAGES, RECORDS, sound_entry, written

T = TypeVar("T")

_CONTEXT = RecordContext(received_at=datetime(2026, 5, 10, 19, tzinfo=UTC))
_FOUND_LIMIT = 10
_SHOWN_BYTES = 2000
_SHRINKING_SECONDS = 5.0
# Processor time. Far above what a slow machine needs, far below what anything quadratic takes.
_SECONDS_A_READ = 0.25
_SECONDS_A_BYTE = 5e-6
_MESSAGE_CHARACTERS = 300

_RECORDS = [case.text for case in RECORDS if len(case.text) < 1000]
_BODIES = [case.body for case in PAGES if len(case.body) < 4000]
_VALUES_OF = {
    name: [value for value in values if len(value) < 500] for name, values in FIELDS.items()
}
_VALUES = [value for values in _VALUES_OF.values() for value in values]
_NAMES = ["data", "meta", "count", "next", *FIELDS]
_TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"-", b"0", b"1", b"9" * 30, b".", b"e5", b" ",
    b"\n", b"\t", b"\0", b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xc3\xa9", b"\xed\xa0\x80", b"\xff",
    b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b"\\udc00", b"\\u0064", b"\\n",
    b"null", b"true", b"NaN", b"Infinity", b"1.0", b"-0", b'""', b"{}", b"[]", b'"data":[',
    b'"data":', b'"meta":{"count":1},', b'"id":1,', b"//", b"'",
    *(f'"{name}"'.encode() for name in _NAMES), *(value.encode() for value in _VALUES[::7]),
]  # fmt: skip


def run(seconds: float, seed: int) -> list[str]:
    """Fuzz for so long; what is wrong, as sentences with the smallest input that shows it."""
    return _fuzz(seconds, seed).sentences


@dataclass
class _Fuzzed:
    inputs: int = 0
    sentences: list[str] = field(default_factory=list)


def _fuzz(seconds: float, seed: int) -> _Fuzzed:
    deadline = time.monotonic() + seconds
    done = _Fuzzed()
    known: set[str] = set()
    while time.monotonic() < deadline and len(done.sentences) < _FOUND_LIMIT:
        body = _spoiled_page(random.Random((seed << 32) + done.inputs))
        for wrong in sorted(set(_wrong_with(body)) - known):
            known.add(wrong)
            smallest = _shrink(body, partial(_shows, wrong))
            shown = f"{smallest[:_SHOWN_BYTES]!r} ({len(smallest)} bytes)"
            done.sentences.append(f"{wrong}: {shown}; seed {seed}, input {done.inputs}.")
        done.inputs += 1
    return done


def _shows(wrong: str, body: bytes) -> bool:
    return wrong in _wrong_with(body)


# What must hold. Each violation is a sentence that says the same for whatever input shows it.


def _wrong_with(body: bytes) -> Iterator[str]:
    expected = reading.read_page(body)
    page, is_slow = _tried(ticktock.read_page, body)
    if is_slow:
        yield "read_page takes too long"
    if isinstance(page, PageUndecodable):
        yield from _wrong_with_message("PageUndecodable", page.reason)
        if not isinstance(expected, str):
            yield "read_page stops at a page that can be read"
        if expected == "undecodable":
            # No page would hand it on, but neither may anything else happen to it as an entry.
            yield from _wrong_with_records([body])
    elif isinstance(page, Exception):
        yield f"read_page raises {type(page).__name__}"
    elif expected == "undecodable":
        yield "read_page reads a page that cannot be read"
    elif not isinstance(expected, str):
        yield from _differences(body, page, expected)
        yield from _other_ways(body, page)
        yield from _wrong_with_records([body[start:end] for start, end in expected.spans])


def _tried(read: Callable[[bytes], T], text: bytes) -> tuple[T | Exception, bool]:
    """What came of reading the text, and whether that took longer than anything sound can.

    What is slow is slow each time. A single reading may also have paid for the garbage of all
    tests before it, which takes half a second where a process has imported enough.
    """
    made, is_slow = _timed(read, text)
    return made, is_slow and _timed(read, text)[1]


def _timed(read: Callable[[bytes], T], text: bytes) -> tuple[T | Exception, bool]:
    started = time.thread_time()
    try:
        made: T | Exception = read(text)
    except Exception as error:  # noqa: BLE001
        made = error
    seconds = time.thread_time() - started
    return made, seconds > _SECONDS_A_READ + _SECONDS_A_BYTE * len(text)


def _differences(body: bytes, page: ticktock.Page, expected: reading.PageReading) -> Iterator[str]:
    records = [entry.record for entry in page.entries]
    spans = [(one.byte_start, one.byte_start + one.byte_length) for one in records]
    if spans != expected.spans:
        yield "read_page cuts out other bytes than the elements of data"
        return
    if page.provider_count != expected.provider_count:
        yield "read_page takes another count from meta"
    if (not page.unknown_fields) != expected.is_documented:
        yield "read_page is wrong about unknown fields"
    for entry, value, (start, end) in zip(
        page.entries, expected.values, expected.spans, strict=True
    ):
        digest = sha256(body[start:end])
        key = reading.key_of(value)
        if entry.content_sha256 != digest.digest():
            yield "an entry's digest is not that of its text"
        if entry.entry_id != key or entry.record.record_key != (
            f"sha256:{digest.hexdigest()}" if key is None else key
        ):
            yield "an entry has another id"
        if entry.created_at != reading.moment_of(value):
            yield "an entry has another time"
        if entry.match_id != reading.match_of(value):
            yield "an entry has another match"


def _other_ways(body: bytes, page: ticktock.Page) -> Iterator[str]:
    """A member that is not documented leads to the slower ways, and must change nothing else."""
    for member in (b'"odds":0,', b'"odds":"\\ud800",'):
        place = body.index(b"{") + 1
        other, _ = _tried(ticktock.read_page, body[:place] + member + body[place:])
        if isinstance(other, Exception):
            yield f"read_page raises {type(other).__name__} once {member.decode()} is added"
            continue
        moved = [_moved(entry, len(member)) for entry in page.entries]
        if moved != list(other.entries) or other.provider_count != page.provider_count:
            yield f"read_page reads another page once {member.decode()} is added"


def _moved(entry: ticktock.PageEntry, distance: int) -> ticktock.PageEntry:
    record = msgspec.structs.replace(entry.record, byte_start=entry.record.byte_start + distance)
    return msgspec.structs.replace(entry, record=record)


def _wrong_with_records(texts: list[bytes]) -> Iterator[str]:
    accepted: list[_Accepted] = []
    for text in texts:
        expected = reading.read_record(text)
        made, is_slow = _tried(_normalized, text)
        if is_slow:
            yield "normalize takes too long"
        if isinstance(made, RecordRejected):
            yield from _wrong_with_message("RecordRejected", made.reason)
            if isinstance(expected, dict):
                yield f"normalize rejects a sound entry as {made.rule}"
            elif made.rule not in expected:
                yield f"normalize rejects an entry as {made.rule}, which is {sorted(expected)}"
        elif isinstance(made, Exception):
            yield f"normalize raises {type(made).__name__}"
        elif isinstance(expected, set):
            yield f"normalize accepts an entry which is {sorted(expected)}"
        else:
            said = {**_UNTOLD, **expected, "provider_order": made.provider_order}
            for name in made.__struct_fields__:
                if getattr(made, name) != said[name]:
                    yield f"normalize reads another {name}"
            accepted.append(_Accepted(made.provider_order, _key(text), said["settled_at"]))
    yield from _wrong_with_order(accepted)


class _Accepted(NamedTuple):
    """Where a settlement was put in the provider's order, and what that should follow from."""

    order: str
    key: str
    moment: datetime


_UNTOLD: dict[str, Any] = {
    setting.name: setting.default
    for setting in msgspec.structs.fields(Settlement)
    if not setting.required
}


def _normalized(text: bytes) -> Settlement:
    return ticktock.normalize(text, _CONTEXT)


def _key(text: bytes) -> str:
    key = reading.key_of(reading.value_of(text))
    assert key is not None, "the reference reading accepts an entry without an id"
    return key


def _wrong_with_order(accepted: list[_Accepted]) -> Iterator[str]:
    for one, other in permutations(accepted, 2):
        is_before = reading.is_before((one.key, one.moment), (other.key, other.moment))
        if is_before not in (None, one.order.encode() < other.order.encode()):
            yield "provider_order sorts entries differently"


def _wrong_with_message(name: str, reason: str) -> Iterator[str]:
    if not reason.isascii() or not reason.isprintable() or len(reason) > _MESSAGE_CHARACTERS:
        yield f"a {name} says what cannot be shown"


# The inputs.


def _spoiled_page(draw: random.Random) -> bytes:
    body = draw.choice(_BODIES) if draw.random() < 0.15 else _page(draw)
    return spoiled(draw, body, draw.choice((0, 0, 0, 1, 1, 2, 3, 6)))


def spoiled(draw: random.Random, body: bytes, times: int) -> bytes:
    """The body after so many spoilings by bytes or by JSON tokens."""
    for _ in range(times):
        body = draw.choice(_SPOILERS)(draw, body)
    return body


def _page(draw: random.Random) -> bytes:
    # A page of one small oddity takes other ways than one of many.
    changes = draw.choice((0, 1, 1, 3))
    elements = [_element(draw, changes) for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 5)))]
    if elements and draw.random() < 0.2:
        elements.append(draw.choice(elements))
    separator = b"," + _space(draw)
    members = [
        b'"data":' + _space(draw) + b"[" + _space(draw) + separator.join(elements) + b"]",
        b'"meta": {"count": %d}' % len(elements),
    ]
    if draw.random() < 0.3:
        other = draw.choice(("data", "meta", "next", ""))
        value = draw.choice((*elements, draw.choice(_VALUES).encode()))
        wrapped = draw.choice((b"%s", b"[%s]", b'{"count": %s}')) % value
        members.append(f'"{other}": '.encode() + wrapped)
        draw.shuffle(members)
    return b"{" + (_space(draw) + b",").join(members) + b"}" + _space(draw)


def _element(draw: random.Random, changes: int) -> bytes:
    if changes > 1 and draw.random() < 0.3:
        return draw.choice(_RECORDS)
    fields = list(sound_entry(draw.choice((1, 2, 9, 10, draw.getrandbits(62)))).items())
    for _ in range(draw.randint(0, changes)):
        _change_field(draw, fields)
    if draw.random() < 0.1:
        draw.shuffle(fields)
    return written(fields)


def _change_field(draw: random.Random, fields: list[tuple[str, str]]) -> None:
    name = draw.choice(_NAMES)
    value = draw.choice(_VALUES_OF.get(name, _VALUES))
    places = [place for place, (other, _) in enumerate(fields) if other == name]
    kind = draw.random()
    if places and kind < 0.8:
        fields[places[0]] = (name, value)
    elif kind < 0.9:
        fields.insert(draw.randrange(len(fields) + 1), (name, value))
    elif fields:
        fields.pop(draw.randrange(len(fields)))


def _space(draw: random.Random) -> bytes:
    return draw.choice((b"", b"", b" ", b"\n  ", b"\t", b"\r\n"))


def _slice(draw: random.Random, body: bytes) -> tuple[int, int]:
    start = draw.randrange(len(body) + 1)
    return start, min(len(body), start + draw.choice((0, 1, 1, 2, 5, 30, 200)))


def _insert(draw: random.Random, body: bytes) -> bytes:
    start, _ = _slice(draw, body)
    return body[:start] + draw.choice(_TOKENS) + body[start:]


def _overwrite(draw: random.Random, body: bytes) -> bytes:
    start, end = _slice(draw, body)
    return body[:start] + draw.choice((b"", bytes([draw.getrandbits(8)]))) + body[end:]


def _move(draw: random.Random, body: bytes) -> bytes:
    start, end = _slice(draw, body)
    place, _ = _slice(draw, body)
    return body[:place] + body[start:end] + body[place:]


def _repeat(draw: random.Random, body: bytes) -> bytes:
    start, end = _slice(draw, body)
    times = draw.choice((2, 3, 10, 300)) if len(body) < 5000 else 2
    return body[:start] + body[start:end] * times + body[end:]


def _cut(draw: random.Random, body: bytes) -> bytes:
    return body[: draw.randrange(len(body) + 1)]


def _exchange_token(draw: random.Random, body: bytes) -> bytes:
    start, end = reading.next_token(body, draw.randrange(len(body) + 1))
    other = slice(*reading.next_token(body, draw.randrange(len(body) + 1)))
    return body[:start] + draw.choice((draw.choice(_TOKENS), body[other])) + body[end:]


def _bury(draw: random.Random, body: bytes) -> bytes:
    start, end = reading.next_token(body, draw.randrange(len(body) + 1))
    opening, closing = draw.choice(((b"[", b"]"), (b'{"":', b"}")))
    depth = 20_000 if draw.random() < 0.01 else draw.choice((1, 2, 100, 300, 1100))
    return body[:start] + opening * depth + body[start:end] + closing * depth + body[end:]


_SPOILERS: list[Callable[[random.Random, bytes], bytes]] = [
    _exchange_token, _exchange_token, _exchange_token,
    _insert, _overwrite, _move, _repeat, _cut, _bury,
]  # fmt: skip


def _shrink(body: bytes, shows: Callable[[bytes], bool]) -> bytes:
    """The body without everything that can be left out one stretch after the other."""
    deadline = time.monotonic() + _SHRINKING_SECONDS
    length = len(body) // 2
    while length and time.monotonic() < deadline:
        start, is_smaller = 0, False
        while start < len(body) and time.monotonic() < deadline:
            without = body[:start] + body[start + length :]
            if shows(without):
                body, is_smaller = without, True
            else:
                start += length
        if not is_smaller or length > 1:
            length //= 2
    return body


def main() -> int:
    """Parse the command line; 0 only if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    arguments = parser.parse_args()
    done = _fuzz(arguments.seconds, arguments.seed)
    for sentence in done.sentences:
        print(f"VIOLATION {sentence}")
    print(f"{done.inputs} inputs, seed {arguments.seed}: {len(done.sentences)} violations")
    return 1 if done.sentences else 0


if __name__ == "__main__":
    sys.exit(main())
