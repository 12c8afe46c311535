"""What goes over one connection to odds88's settlement feed: history, then what is new, and pings.

A fault may be ordered for a stream: it strikes between two messages, or spoils some of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from include.sandbox.odds88_access import Attempt, Visits
from include.sandbox.odds88_feed import Feed
from include.sandbox.odds88_messages import encode_ping
from include.sandbox.odds88_socket import Lost, Socket, SocketResponse

_BYTES_AT_A_TIME = 2**16


@dataclass(frozen=True)
class Strike:
    """A fault between two messages, as soon as so many were sent."""

    after_messages: int
    act: Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True)
class Spoiling:
    """A fault of so many messages (None: all) behind the first `after_messages`.

    `act` is given the sound one to send something in its place.
    """

    after_messages: int
    messages: int | None
    act: Callable[[Stream, bytes], Awaitable[None]]

    def concerns(self, number: int) -> bool:
        """Whether it spoils message number so and so of the stream, counted from 0."""
        behind = number - self.after_messages
        return behind >= 0 and (self.messages is None or behind < self.messages)


class Stream:
    """One connection's stream."""

    def __init__(self, feed: Feed, visits: Visits, attempt: Attempt) -> None:
        self.attempt = attempt
        self.fault: Strike | Spoiling | None = None
        self.is_over = False
        self._feed = feed
        self._visits = visits
        self._socket: Socket | None = None
        self._last: deque[int] = deque()
        self._pinged_at = time.monotonic()

    @property
    def socket(self) -> Socket:
        """The connection, once there is one."""
        assert self._socket is not None
        return self._socket

    @property
    def ping_seconds(self) -> float:
        """How long after a ping the next one comes."""
        return self._feed.settings.ping_seconds

    async def deliver(self, socket: Socket) -> None:
        """Sends until either side ends the connection."""
        if self.is_over or socket.over.is_set():
            return
        self._socket = socket
        socket.when_over = self._end
        self._visits.opened(self.attempt)
        work = asyncio.create_task(self._work())
        over = asyncio.create_task(socket.over.wait())
        try:
            await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            work.cancel()
        with suppress(Lost, asyncio.CancelledError):
            await work

    def end(self, code: int, reason: str) -> None:
        """Closes the connection, or lets there be none."""
        self.is_over = True
        if self._socket is not None:
            self._socket.end(code, reason)

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
            await self._send(message)
        for message in tuple(self._last):
            await self._send(message)
        while True:
            news = self._feed.news
            while head < self._feed.head:
                await self._send(head)
                head += 1
            await self._wait(news)

    async def _send(self, message: int) -> None:
        text, fault = self._feed.text(message), self.fault
        if isinstance(fault, Spoiling) and fault.concerns(self.attempt.messages):
            await self.socket.flush()
            await fault.act(self, text)
        elif self.socket.queue_text(text) >= _BYTES_AT_A_TIME:
            await self.socket.flush()
        self.attempt.messages += 1
        self._last.append(message)
        await self._strike()
        every = self._feed.settings.ping_every_messages
        if (every and self.attempt.messages % every == 0) or self._seconds_to_ping() <= 0:
            await self.ping()

    async def _strike(self) -> None:
        fault = self.fault
        if isinstance(fault, Strike) and fault.after_messages == self.attempt.messages:
            await self.socket.flush()
            await fault.act(self)

    async def _wait(self, news: asyncio.Event) -> None:
        """Until there is news, or it is time to ping."""
        await self.socket.flush()
        try:
            await asyncio.wait_for(news.wait(), self._seconds_to_ping())
        except TimeoutError:
            await self.ping()

    def _seconds_to_ping(self) -> float:
        return self._pinged_at + self.ping_seconds - time.monotonic()

    def _end(self) -> None:
        self.is_over = True
        self.attempt.ended = self.socket.ended
        self._visits.closed()


class FeedResponse(SocketResponse):
    """The handshake that begins a stream."""

    def __init__(self, key: str, stream: Stream) -> None:
        super().__init__(key, stream.deliver)
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Delivers the stream; it is over also where nobody was left to hear it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stream.is_over = True
