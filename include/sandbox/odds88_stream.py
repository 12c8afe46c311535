"""What goes over one connection to odds88: history, then what is new, and pings."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from include.sandbox import streams
from include.sandbox.odds88_access import Attempt, Visits
from include.sandbox.odds88_feed import Feed
from include.sandbox.odds88_messages import encode_ping


class Stream(streams.Stream):
    """One connection's stream."""

    def __init__(self, feed: Feed, visits: Visits, attempt: Attempt) -> None:
        super().__init__(attempt)
        self.attempt = attempt
        self._feed = feed
        self._visits = visits
        self._last: deque[int] = deque()
        self._pinged_at = time.monotonic()

    @property
    def ping_seconds(self) -> float:
        """How long after a ping the next one comes."""
        return self._feed.settings.ping_seconds

    async def ping(self) -> None:
        """Sends a ping, and everything that waited."""
        self.attempt.pings += 1
        self._pinged_at = time.monotonic()
        ping_id = f"{self.attempt.number}-{self.attempt.pings}"
        self.socket.queue_text(encode_ping(ping_id))
        await self.socket.flush()

    async def _work(self) -> None:
        head, recovered = self._feed.head, self._feed.recovered(self.attempt.revision)
        self._last = deque(maxlen=self._feed.settings.seam_duplicates)
        await self._strike()
        for message in recovered:
            await self._tell(message)
        for message in tuple(self._last):
            await self._tell(message)
        while True:
            news = self._feed.news
            while head < self._feed.head:
                await self._tell(head)
                head += 1
            await self._wait(news)

    async def _tell(self, message: int) -> None:
        await self._send(self._feed.text(message))
        self._last.append(message)
        await self._strike()
        every = self._feed.settings.ping_every_messages
        if (every and self.attempt.messages % every == 0) or self._seconds_to_ping() <= 0:
            await self.ping()

    async def _wait(self, news: asyncio.Event) -> None:
        """Until there is news, or it is time to ping."""
        await self.socket.flush()
        try:
            await asyncio.wait_for(news.wait(), self._seconds_to_ping())
        except TimeoutError:
            await self.ping()

    def _seconds_to_ping(self) -> float:
        return self._pinged_at + self.ping_seconds - time.monotonic()

    def _begun(self) -> None:
        self._visits.opened(self.attempt)

    def _ended(self) -> None:
        self._visits.closed()
