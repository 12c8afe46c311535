"""When each of a growing number of messages was first sent, told by its index alone.

Times are whole microseconds since 1970, UTC, as fine as any provider tells them.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

SECOND = 1_000_000
_LIVE_STEP = 1_000


class _Span(NamedTuple):
    """Messages from index `first` on, evenly spread behind `after` and up to `until`."""

    first: int
    messages: int
    after: int
    until: int

    def time(self, message: int) -> int:
        return self.after + (message - self.first + 1) * (self.until - self.after) // self.messages


class Timeline:
    """One span of history, and one for each time that the feed went on; times only grow."""

    def __init__(self, messages: int, now: int, history: int) -> None:
        self._spans = [_Span(0, messages, now - history, now)] if messages else []
        self._last = now - (0 if messages else history)
        self.head = messages

    def advance(self, messages: int, now: int) -> None:
        """Sends so many messages now: at most a millisecond apart, at least a microsecond."""
        if messages == 0:
            return
        room = max((now - self._last) // messages, 1)
        after = max(self._last, now - messages * min(room, _LIVE_STEP))
        until = max(now, after + messages)
        self._spans.append(_Span(self.head, messages, after, until))
        self._last = until
        self.head += messages

    def time(self, message: int) -> int:
        """When this message was sent. The feed must have come so far."""
        number = bisect_left(self._spans, message + 1, key=lambda span: span.first) - 1
        return self._spans[number].time(message)

    def first_from(self, time: int) -> int:
        """The first message that was not sent before this time; the head if there is none."""
        return bisect_left(range(self.head), time, key=self.time)


def written(time: int, digits: int) -> str:
    """A time as the feed writes it: at most so many digits of a second, none of them a last 0.

    The seventh, which a timestamp of Postgres cannot hold, is made up and never 0.
    """
    seconds, micros = divmod(time, SECOND)
    fraction = f"{micros:06}{micros % 9 + 1}"[:digits].rstrip("0")
    return f"{_minute(seconds // 60)}:{seconds % 60:02}{'.' if fraction else ''}{fraction}Z"


@lru_cache(maxsize=1024)
def _minute(minutes: int) -> str:
    return f"{datetime.fromtimestamp(minutes * 60, UTC):%Y-%m-%dT%H:%M}"
