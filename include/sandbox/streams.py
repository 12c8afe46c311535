"""What goes over one WebSocket of the sandbox, message by message, soundly or not.

A fault may be ordered for a stream: it strikes between two messages, or spoils some of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from include.sandbox.sockets import Lost, Socket, SocketResponse

_BYTES_AT_A_TIME = 2**16


class Tally(Protocol):
    """What is counted about a connection: messages and pings handed to it, and how it ended."""

    messages: int
    pings: int
    ended: str | None


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
    """One connection's stream; a provider's own one says what is sent, and when."""

    def __init__(self, tally: Tally) -> None:
        self.fault: Strike | Spoiling | None = None
        self.is_over = False
        self._tally = tally
        self._socket: Socket | None = None

    @property
    def socket(self) -> Socket:
        """The connection, once there is one."""
        assert self._socket is not None
        return self._socket

    @property
    def is_heard(self) -> bool:
        """Whether it has begun and is not over."""
        return self._socket is not None and not self.is_over

    @property
    def ping_seconds(self) -> float:
        """How long after a ping the next one comes."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Sends a ping, and everything that waited."""
        raise NotImplementedError

    async def deliver(self, socket: Socket) -> None:
        """Sends until either side ends the connection."""
        if self.is_over or socket.over.is_set():
            return
        self._socket = socket
        socket.when_over = self._over
        self._begun()
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

    async def _work(self) -> None:
        """All that is sent."""
        raise NotImplementedError

    def _begun(self) -> None:
        """The connection is there."""

    def _ended(self) -> None:
        """It is over."""

    async def _send(self, text: bytes) -> None:
        fault = self.fault
        if isinstance(fault, Spoiling) and fault.concerns(self._tally.messages):
            await self.socket.flush()
            await fault.act(self, text)
        elif self.socket.queue_text(text) >= _BYTES_AT_A_TIME:
            await self.socket.flush()
        self._tally.messages += 1

    async def _strike(self) -> None:
        fault = self.fault
        if isinstance(fault, Strike) and fault.after_messages == self._tally.messages:
            await self.socket.flush()
            await fault.act(self)

    def _over(self) -> None:
        self.is_over = True
        self._tally.ended = self.socket.ended
        self._ended()


class StreamResponse(SocketResponse):
    """The handshake that begins a stream."""

    def __init__(self, key: str, stream: Stream, subprotocol: str | None = None) -> None:
        super().__init__(key, stream.deliver, subprotocol)
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Delivers the stream; it is over also where nobody was left to hear it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stream.is_over = True
