"""The stream that every way of `make bench NESTED=` reads: a file of messages, one a line.

Each message tells of a bet of two legs with every field of the document, in exactly 1 750 bytes.
One in 33 corrects an earlier one, as in the flat log.  They were settled evenly over the last days,
near enough for a stream to tell them again.

Only the standard library: the ways it is measured against run in an environment of their own.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.bench.log import corrected, is_correction

MESSAGE_BYTES = 1750
LEGS = 2
_LINE = MESSAGE_BYTES + len("\n")
_BEGAN_BEFORE = timedelta(hours=60)
_TOLD_WITHIN = timedelta(hours=50)
_FIRST_BET_ID = 1_480_000_000_000_000_000
_SCRAMBLE = 0x9E3779B97F4A7C15
_MESSAGES_A_CHUNK = 5000
# The time stands first in each message, so that it can be looked up in the file.
_TIME_AT = len('{"data":{"settlementTime":"')
_TIME_BYTES = len("2026-11-21T12:00:00.000000Z")


def write_bets(path: Path, messages: int) -> None:
    """Write so many messages, the last of them settled some hours ago."""
    began_at = datetime.now(UTC) - _BEGAN_BEFORE
    step = _TOLD_WITHIN / messages
    with path.open("wb") as file:
        for number in range(messages):
            file.write(_message(number, began_at + number * step) + b"\n")


class BetFile:
    """A written file, opened for reading; it ends after `messages` of the file's."""

    def __init__(self, path: Path, messages: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._messages = messages

    def messages(self, revision: int = 0) -> Iterator[bytes]:
        """Those that were settled since that Unix second, one by one."""
        since = datetime.fromtimestamp(revision, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        start = bisect_left(range(self._messages), since, key=self._settled_at)
        for chunk in self._chunks(start):
            yield from chunk.split(b"\n")

    def chunks(self) -> Iterator[bytes]:
        """All of them, thousands at a time, one a line."""
        return self._chunks(0)

    def bets(self) -> Iterator[list[dict[str, Any]]]:
        """The same, decoded: what each message has in `data`."""
        for chunk in self._chunks(0):
            yield [json.loads(line)["data"] for line in chunk.split(b"\n")]

    def _chunks(self, start: int) -> Iterator[bytes]:
        for first in range(start, self._messages, _MESSAGES_A_CHUNK):
            messages = min(_MESSAGES_A_CHUNK, self._messages - first)
            yield os.pread(self._file, messages * _LINE - len("\n"), first * _LINE)

    def _settled_at(self, number: int) -> bytes:
        return os.pread(self._file, _TIME_BYTES, number * _LINE + _TIME_AT)


def _message(number: int, settled_at: datetime) -> bytes:
    subject = corrected(number) if is_correction(number) else number
    chance = subject * _SCRAMBLE >> 20
    is_won = bool(chance >> 7 & 1) ^ (subject != number)
    time = f"{settled_at:%Y-%m-%dT%H:%M:%S.%f}Z"
    version = 1 if subject == number else 2
    prices = [1.5 + (chance >> shift) % 400 / 100 for shift in (3, 13)]
    multiplier = round(prices[0] * prices[1], 4) if is_won else 0.0
    stake = 100 + (chance >> 5) % 40_000
    bet = {
        "settlementTime": time,
        "betId": str(_FIRST_BET_ID + subject * 97),
        "betSettlement": 1 if is_won else 2,
        "payoutMultiplier": multiplier,
        "isCancelled": False,
        "selections": [
            _selection(chance >> leg, leg, time, version, is_won or leg == 0, price)
            for leg, price in enumerate(prices)
        ],
        "isRejected": False,
        "payout": round(stake * multiplier / 100, 2),
        "partialRefund": 0.0,
        "amount": {
            "currency": ("EUR", "USD", "GBP")[chance % 3],
            "value": stake,
            "precision": 2,
            "placementExchangeRate": 1.17,
            "settlementExchangeRate": 1.1712,
        },
    }
    written = json.dumps({"data": bet, "pingId": None}, separators=(",", ":")).encode("ascii")
    room = MESSAGE_BYTES - len(written)
    assert room > 0, f"message {number} has {-room} bytes too many"
    return written.replace(b"Round ", b"Round " + b"." * room, 1)


def _selection(
    chance: int, leg: int, time: str, version: int, is_won: bool, price: float
) -> dict[str, Any]:
    return {
        "event": {
            "id": 20_000_000 + chance % 9_000_000,
            "name": f"Round {chance % 99:02}, home v away",
            "isLive": bool(chance & 1),
            "startTime": f"{time[:11]}00:30:00Z",
        },
        "market": {
            "id": 900_000_000 + chance % 90_000_000,
            "type": 100 + chance % 800,
            "name": "Total Goals",
            "properties": {"line": "2.5"},
        },
        "selectionId": 500_000_000 + chance % 400_000_000,
        "competitionId": 1000 + chance % 5000,
        "countryId": 10 + chance % 80,
        "sportId": 1 + chance % 8,
        "settlement": {
            "settlementResult": 1 if is_won else 2,
            "settlementTime": time,
            "settlementVersion": version,
        },
        "price": price,
        "eachWayPrice": None,
        "limitsRatingId": 7,
        "limitsFactor": 0.75,
        "hasLineDeviation": False,
        "isOutright": False,
        "version": 1 + leg,
        "deadHeatFactor": 1.0,
        "placeDeadHeatFactor": None,
        "parameters": {"channel": "web"},
        "manualPrice": None,
        "alternativePrice": price,
        "type": 1,
        "betBuilderItems": None,
    }
