"""tote's book: its clock, its bets so far, how each stands, and what happens to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from heapq import merge
from typing import Any, NamedTuple

from include.sandbox.timeline import SECOND, Timeline
from include.sandbox.tote_bets import ROW, Act, Bet, Bets, State, state, steps_at, steps_taken
from include.sandbox.tote_settings import ToteSettings

# History is made anew where one of these is changed.
_BEGINNINGS = {"seed", "bets", "history_seconds", "clock_stopped_at"}


class Happening(NamedTuple):
    """A step of a bet, and when it was taken (microseconds since 1970, UTC)."""

    time: int
    number: int
    steps: int

    @property
    def act(self) -> Act:
        """What happened."""
        return steps_at(self.number % ROW)[self.steps - 1].act


class Book:
    """The bets as they stand now, under the settings. Times are microseconds since 1970, UTC."""

    def __init__(self, seed: int, bets: int) -> None:
        self._news = asyncio.Event()
        self._settings = ToteSettings(seed=seed, bets=bets)
        self._begin()

    @property
    def settings(self) -> ToteSettings:
        """The settings in force."""
        return self._settings

    @property
    def now(self) -> int:
        """What the sandbox's clock shows."""
        stopped = self._settings.clock_stopped_at
        now = time.time_ns() // 1000 if stopped is None else round(stopped.timestamp() * SECOND)
        return now + round(self._settings.clock_offset_seconds * SECOND)

    @property
    def lived_until(self) -> int:
        """All that is due until then has happened."""
        return self._lived_until

    @property
    def news(self) -> asyncio.Event:
        """Set, and replaced by another, when something has happened."""
        return self._news

    def configure(self, changes: dict[str, Any]) -> None:
        """Changes the settings named; pydantic's ValidationError if they cannot be."""
        self._settings = ToteSettings.model_validate(self._settings.model_dump() | changes)
        if _BEGINNINGS & changes.keys():
            self._begin()
        self._live()

    def advance(self, bets: int) -> None:
        """Places so many bets now, and lets happen what is due."""
        changes = {"bets": self._timeline.head + bets}
        self._settings = ToteSettings.model_validate(self._settings.model_dump() | changes)
        self._timeline.advance(bets, self.now)
        self._live()

    def placed(self, number: int) -> int:
        """When a bet was placed."""
        return self._timeline.time(number)

    def first_from(self, time: int) -> int:
        """The first bet that was not placed before this time; the number of all if none."""
        return self._timeline.first_from(time)

    def head(self, lag: int = 0) -> int:
        """How many bets can be seen by who is so far behind."""
        return self.first_from(self._lived_until - lag + 1)

    def number(self, tote_id: str) -> int | None:
        """The number of the bet with this id, also of one that cannot be seen yet."""
        number = self._bets.number(tote_id)
        return number if number is not None and number < self._timeline.head else None

    def bet(self, number: int) -> Bet:
        """What does not change about a bet."""
        return self._bets.bet(number)

    def steps(self, bet: Bet, lag: int = 0) -> int:
        """How many steps of a bet can be seen by who is so far behind."""
        return steps_taken(bet, self._lived_until - lag - self.placed(bet.number))

    def state(self, bet: Bet, lag: int = 0) -> State:
        """How a bet stands, as it is seen by who is so far behind; one of its steps must be."""
        return state(bet, self.steps(bet, lag))

    def happenings(self, after: int, until: int) -> Iterator[Happening]:
        """What happened behind one time and up to another, in order."""
        return merge(
            *(
                self._happenings_of(position, steps, step.seconds * SECOND, after, until)
                for position in range(ROW)
                for steps, step in enumerate(steps_at(position), start=1)
            )
        )

    def _happenings_of(
        self, position: int, steps: int, delay: int, after: int, until: int
    ) -> Iterator[Happening]:
        first, end = self.first_from(after - delay + 1), self.first_from(until - delay + 1)
        for number in range(first + (position - first) % ROW, end, ROW):
            yield Happening(self.placed(number) + delay, number, steps)

    def _begin(self) -> None:
        self._bets = Bets(self._settings.seed)
        history = round(self._settings.history_seconds * SECOND)
        self._timeline = Timeline(self._settings.bets, self.now, history)
        self._lived_until = self.now

    def _live(self) -> None:
        # A bet that was placed a microsecond ahead of the clock has been placed all the same.
        last = self.placed(self._timeline.head - 1) if self._timeline.head else 0
        self._lived_until = max(self._lived_until, self.now, last)
        news, self._news = self._news, asyncio.Event()
        news.set()
