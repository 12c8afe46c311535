"""odds88's settlement feed itself: its clock, its messages so far, and what a revision recovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Literal

from include.sandbox.odds88_bets import LATEST_ROWS, ROW, Bets
from include.sandbox.odds88_ledger import Told
from include.sandbox.odds88_messages import encode_bet
from include.sandbox.odds88_selections import Telling, settled_bet
from include.sandbox.odds88_settings import Odds88Settings
from include.sandbox.timeline import SECOND, Timeline, written

RevisionKind = Literal["proper", "too_small", "without"]

_LARGEST_REVISION_DIGITS = 15
# History is made anew where one of these is changed.
_BEGINNINGS = {"seed", "messages", "history_seconds", "clock_stopped_at"}


class Feed:
    """The feed as it stands now, under its settings. Times are microseconds since 1970, UTC."""

    def __init__(self, seed: int, messages: int) -> None:
        self._news = asyncio.Event()
        self._use(Odds88Settings(seed=seed, messages=messages))
        self._begin()

    @property
    def settings(self) -> Odds88Settings:
        """The settings in force."""
        return self._settings

    @property
    def head(self) -> int:
        """How many messages there are."""
        return self._timeline.head

    @property
    def news(self) -> asyncio.Event:
        """Set, and replaced by another, when there are more of them."""
        return self._news

    @property
    def now(self) -> int:
        """What the sandbox's clock shows."""
        stopped = self._settings.clock_stopped_at
        now = time.time_ns() // 1000 if stopped is None else round(stopped.timestamp() * SECOND)
        return now + round(self._settings.clock_offset_seconds * SECOND)

    def configure(self, changes: dict[str, Any]) -> None:
        """Changes the settings named; pydantic's ValidationError if they cannot be."""
        self._use(Odds88Settings.model_validate(self._settings.model_dump() | changes))
        if _BEGINNINGS & changes.keys():
            self._begin()

    def advance(self, messages: int) -> None:
        """Sends so many messages more, now."""
        changes = {"messages": self.head + messages}
        self._use(Odds88Settings.model_validate(self._settings.model_dump() | changes))
        self._timeline.advance(messages, self.now)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def kind(self, revision: str | None) -> RevisionKind | None:
        """What the budgets make of a revision; None if it is no number of seconds."""
        if not revision:
            return "without"
        digits = revision.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _LARGEST_REVISION_DIGITS):
            return None
        seconds = int(revision)
        if seconds == 0:
            return "without"
        return "proper" if seconds * SECOND >= self._limit() else "too_small"

    def recovered(self, revision: str | None) -> Iterator[int]:
        """The messages that a revision recovers, in the order they are sent."""
        settings, kind = self._settings, self.kind(revision)
        since = int(revision) * SECOND if revision and kind == "proper" else self._limit()
        if kind != "proper" and self.switch(kind) == "live_only":
            return iter(())
        first, head = self._timeline.first_from(since), self.head
        messages: Iterator[int] = iter(range(first, head))
        if settings.recovery_order == "newest_first":
            messages = iter(range(head - 1, first - 1, -1))
        elif settings.recovery_order == "settlement_time":
            messages = self._as_settled(messages)
        if settings.recovered_by == "first_sent":
            return messages
        # Those sent much later than the first one tell no time before it.
        doubtful = first + (LATEST_ROWS + 1) * ROW
        return (each for each in messages if each >= doubtful or self._settled_at(each) >= since)

    def switch(self, kind: RevisionKind | None) -> Literal["from_limit", "live_only", "refused"]:
        """What a revision that is not proper gets."""
        settings = self._settings
        return settings.without_revision if kind == "without" else settings.too_small_revision

    def text(self, message: int) -> bytes:
        """A message as it is sent."""
        decision, settings = self._bets.decision(message), self._settings
        telling = Telling(
            self._timeline.time(decision.told_as),
            self._timeline.time(decision.bet.row * ROW),
            settings.time_digits,
            settings.payout_unit,
        )
        return encode_bet(settled_bet(decision, telling))

    def texts(self, after: int, limit: int) -> list[str]:
        """The exact texts of so many messages, the first one being that with index `after`."""
        return [self.text(each).decode() for each in range(after, min(after + limit, self.head))]

    def told(self) -> Told:
        """What is told of each bet until now."""
        timeline, digits = self._timeline, self._settings.time_digits
        return Told(self._bets, self.head, lambda each: written(timeline.time(each), digits))

    def _use(self, settings: Odds88Settings) -> None:
        self._settings = settings
        self._bets = Bets(settings.seed, settings.equal_times, settings.payout_holds_refund)

    def _begin(self) -> None:
        history = round(self._settings.history_seconds * SECOND)
        self._timeline = Timeline(self._settings.messages, self.now, history)

    def _limit(self) -> int:
        return self.now - round(self._settings.recovery_seconds * SECOND)

    def _settled_at(self, message: int) -> int:
        return self._timeline.time(self._bets.told_as(message))

    def _as_settled(self, messages: Iterator[int]) -> Iterator[int]:
        """In the order of settlement times, which reach back a few rows of messages at most."""
        waiting: list[tuple[int, int]] = []
        for each in messages:
            heappush(waiting, (self._settled_at(each), each))
            if len(waiting) > (LATEST_ROWS + 1) * ROW:
                yield heappop(waiting)[1]
        while waiting:
            yield heappop(waiting)[1]
