"""What the prediction engine has been ordered to do, and what became of it by any moment.

A market is nothing but the attempts made on it: the order to settle, and those to retry. Where a
position's settlements stand follows from them, from chance and from the clock; nothing is held for
a position. Times are whole microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from include.sandbox.prediction_positions import Position, Positions, settlement_id
from include.sandbox.prediction_settings import PredictionSettings

Word = Literal["PENDING", "PROCESSING", "COMPLETED", "FAILED"]
SECOND = 1_000_000
# The finest step of a time as it is written.
MILLISECOND = 1_000


@dataclass(frozen=True)
class Attempt:
    """One order that was executed: when, under which switches, on the positions below `end`."""

    is_retry: bool
    at: int
    settings: PredictionSettings
    end: int


class Row(NamedTuple):
    """One settlement as it stands."""

    settlement_id: str
    position: Position
    status: Word
    created_at: int
    updated_at: int

    @property
    def payout(self) -> int:
        """What it pays, scaled by 10^12."""
        return self.position.shares * self.position.payout_per_share


class _Fate(NamedTuple):
    """What becomes of one attempt on one position, and when."""

    started_at: int
    processing_at: int
    ended_at: int | None
    end: Word


@dataclass(frozen=True)
class Market:
    """One market that was called upon: a value, so that an order can be rehearsed on it.

    `settle_calls` and `retry_calls` count orders that reached it, whatever they did.
    """

    number: int
    attempts: tuple[Attempt, ...] = ()
    settle_calls: int = 0
    retry_calls: int = 0
    positions: Positions = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Its positions are those of the first attempt."""
        if self.attempts:
            positions = Positions(self.attempts[0].settings, self.number)
            object.__setattr__(self, "positions", positions)

    @property
    def settled_positions(self) -> int:
        """How many of its positions, the first ones, were ever ordered to be settled."""
        return max((one.end for one in self.attempts if not one.is_retry), default=0)

    @property
    def executions(self) -> tuple[int, int]:
        """How many orders to settle were executed, and how many to retry."""
        retries = sum(one.is_retry for one in self.attempts)
        return len(self.attempts) - retries, retries

    def settled(self, settings: PredictionSettings, now: int, limit: int | None) -> Market:
        """The market after an order to settle its first so many positions left (None: all)."""
        count = self.positions.count if self.attempts else settings.positions
        end = count if limit is None else min(self.settled_positions + limit, count)
        attempt = Attempt(False, self._moment(now), settings, end)
        return replace(self, attempts=(*self.attempts, attempt))

    def retried(self, settings: PredictionSettings, now: int, limit: int | None) -> Market:
        """The market after an order to retry its first so many failed positions (None: all)."""
        failed = self.failed(now)
        failed = failed if limit is None else failed[:limit]
        if not failed:
            return self
        last_failed_at = max(row.updated_at for row in failed)
        at = max(self._moment(now), last_failed_at + MILLISECOND)
        attempt = Attempt(True, at, settings, failed[-1].position.number + 1)
        return replace(self, attempts=(*self.attempts, attempt))

    def failed(self, now: int) -> list[Row]:
        """The settlements that a retry would try again."""
        return [rows[-1] for rows in self.rows(now) if rows[-1].status == "FAILED"]

    def rows(self, now: int, first: int = 0) -> Iterator[list[Row]]:
        """The settlements of each position from this number on, oldest first, as they stand."""
        for number in range(first, self.settled_positions):
            yield self.rows_of(number, now)

    def rows_of(self, number: int, now: int) -> list[Row]:
        """The settlements of one position; none if it was never ordered to be settled."""
        position = self.positions.position(number)
        now = max(now, self.attempts[-1].at)
        rows: list[Row] = []
        last: _Fate | None = None
        tries = 0
        for attempt in self.attempts:
            if number >= attempt.end or not _concerns(attempt, last):
                continue
            tries += 1
            last = _fate(attempt, self.number, position, tries)
            is_update = attempt.is_retry and attempt.settings.retries == "update"
            created_at = rows.pop().created_at if is_update else attempt.at
            rows.append(self._row(position, len(rows), last, created_at, now))
        return rows

    def _row(self, position: Position, row: int, fate: _Fate, created_at: int, now: int) -> Row:
        status: Word = "PENDING"
        updated_at = fate.started_at
        if now >= fate.processing_at:
            status, updated_at = "PROCESSING", fate.processing_at
        if fate.ended_at is not None and now >= fate.ended_at:
            status, updated_at = fate.end, fate.ended_at
        seed = self.attempts[0].settings.seed
        named = settlement_id(seed, self.number, position.number, row)
        return Row(named, position, status, created_at, updated_at)

    def _moment(self, now: int) -> int:
        """Now, as it is written, and later than the attempt before as it is written."""
        now -= now % MILLISECOND
        return max(now, self.attempts[-1].at + MILLISECOND) if self.attempts else now


def _concerns(attempt: Attempt, last: _Fate | None) -> bool:
    """Whether an attempt is for a position whose last attempt had this fate."""
    if not attempt.is_retry:
        return last is None
    if last is None or last.end != "FAILED":
        return False
    return last.ended_at is not None and last.ended_at <= attempt.at


def _fate(attempt: Attempt, market: int, position: Position, tries: int) -> _Fate:
    settings = attempt.settings
    lasts = int(settings.settling_seconds * position.pace * SECOND)
    processing_at = _written(attempt.at + lasts // 2)
    is_odd = settings.is_odd(market)
    if is_odd and position.chance_to_stick < settings.stuck_share:
        return _Fate(attempt.at, processing_at, None, "PROCESSING")
    attempts = settings.failing_attempts
    is_failing = is_odd and position.chance_to_fail < settings.failing_share
    fails = is_failing and (attempts is None or tries <= attempts)
    ended_at = _written(attempt.at + lasts)
    return _Fate(attempt.at, processing_at, ended_at, "FAILED" if fails else "COMPLETED")


def _written(time: int) -> int:
    return time - time % MILLISECOND
