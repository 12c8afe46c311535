"""The log that every way of `make bench` reads: a file of entries, any page of it at one call.

Each entry has exactly 256 bytes, so a page from any entry on is a slice of the file: it costs its
reader next to nothing, and nobody holds more of the log than the page at hand.  One entry in 33
corrects an earlier one, half of them 66 entries later and half 99 000.  Like the sandbox's own, the
log goes on by an entry every 1.6 seconds: ten million are half a year.

Only the standard library: the ways it is measured against run in an environment of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

ENTRY_BYTES = 256
PAGE_ENTRIES = 200
FIRST_ID = 10_000_000
"""The id of the first entry; each further one is one more."""
STARTED_AT = datetime(2025, 1, 1, tzinfo=UTC)
SECONDS_AN_ENTRY = 1.6
CORRECTION_EVERY = 33

_STRIDE = ENTRY_BYTES + len(",")
_WRITTEN_AT_ONCE = 10_000
CORRECTED_AT_FIRST = 16
"""The first entry that a later one corrects; so is the one at its place in each further block."""
# How many blocks of 33 entries later a correction comes: in the same commit, or some batches on.
# Both are even, so no entry is corrected twice.
_BLOCKS_LATER = (2, 3000)
_SUBJECTS_A_MATCH = 7
_SCRAMBLE = 0x9E3779B97F4A7C15

_ENTRY = '{"id":%d,"market_offer_id":"ofr_%s","match_id":"%s",%s,"created_at":"%s:%02d+00:00"}'
_WON = (
    '"previous_status":"pending","new_status":"settled","outcome":"won","settled_by":"engine",'
    '"is_resettlement":false'
)
_LOST = _WON.replace("won", "lost")
_VOID = _WON.replace('settled","outcome":"won', 'voided","outcome":"void')
_CORRECTED = (
    '"previous_status":"settled","new_status":"settled","outcome":"lost","settled_by":"system",'
    '"is_resettlement":true'
)


def write_log(path: Path, entries: int, first: int = 0) -> None:
    """Write the entries from the `first` on, with a comma after each."""
    with path.open("ab") as file:
        for start in range(first, first + entries, _WRITTEN_AT_ONCE):
            end = min(start + _WRITTEN_AT_ONCE, first + entries)
            texts = [_entry(number) for number in range(start, end)]
            file.write((",".join(texts) + ",").encode("ascii"))


class LogFile:
    """A written log, opened for reading; it ends after `entries` of the file's."""

    def __init__(self, path: Path, entries: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self.entries = entries

    def page(self, start: int, limit: int = PAGE_ENTRIES) -> bytes:
        """The body of the page that begins with entry `start`, as the provider would send it."""
        count = max(0, min(limit, self.entries - start))
        slice_bytes = max(0, count * _STRIDE - len(","))
        data = os.pread(self._file, slice_bytes, start * _STRIDE)
        return b'{"data":[%b],"meta":{"count":%d}}' % (data, count)

    def pages(self) -> Iterator[bytes]:
        """All of it, page by page."""
        for start in range(0, self.entries, PAGE_ENTRIES):
            yield self.page(start)


def is_correction(number: int) -> bool:
    """Whether this entry corrects an earlier one."""
    return number % CORRECTION_EVERY == CORRECTION_EVERY - 1 and corrected(number) >= 0


def corrected(number: int) -> int:
    """The entry that this one corrects, if it is a correction."""
    block = number // CORRECTION_EVERY
    return (block - _BLOCKS_LATER[block % 2]) * CORRECTION_EVERY + CORRECTED_AT_FIRST


def _entry(number: int) -> str:
    place = number % CORRECTION_EVERY
    subject, chance = number, (number * _SCRAMBLE >> 50) % 80
    if place == CORRECTION_EVERY - 1 and corrected(number) >= 0:
        subject, decision, offer_digits = corrected(number), _CORRECTED, 12
    elif place == CORRECTED_AT_FIRST or chance < 39:
        decision, offer_digits = _WON, 12
    elif chance < 78:
        # The outcome is a letter longer; every entry has 256 bytes.
        decision, offer_digits = _LOST, 11
    else:
        decision, offer_digits = _VOID, 12
    # An odd factor maps no two numbers to the same digits, and neighbours far apart.
    offer = "%012x" % (subject * _SCRAMBLE % 2**48)
    minutes, second = divmod(int(number * SECONDS_AN_ENTRY), 60)
    return _ENTRY % (
        FIRST_ID + number,
        offer[-offer_digits:],
        _match_id(subject // _SUBJECTS_A_MATCH),
        decision,
        _minute(minutes),
        second,
    )


@lru_cache(maxsize=4)
def _match_id(number: int) -> str:
    digits = f"{(number + 1) * _SCRAMBLE * _SCRAMBLE % 2**128:032x}"
    return "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


@lru_cache(maxsize=4)
def _minute(minutes: int) -> str:
    return f"{STARTED_AT + timedelta(minutes=minutes):%Y-%m-%dT%H:%M}"
