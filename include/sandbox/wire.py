"""Below HTTP: answers that write to the connection themselves, as a broken server does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_WIRE = "sandbox.wire"
# SO_LINGER on, zero seconds: closing sends RST instead of FIN.
_CLOSE_BY_RESET = struct.pack("ii", 1, 0)


class Wire:
    """One client connection, as bytes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    async def write(self, data: bytes) -> None:
        """Writes and waits until the operating system has taken every byte."""
        self._transport.write(data)
        # The transport tells nobody but its protocol when its buffer is empty.
        while self._transport.get_write_buffer_size() and not self.is_closed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over, by either side."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Ends the connection in order (FIN), whatever was promised before."""
        self._transport.close()

    def keep_reading(self) -> None:
        """Lets the end of the connection be seen where HTTP has stopped reading."""
        self._transport.resume_reading()

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, Any]:
        """Gives the connection to another protocol; gives its transport, and whose it was.

        As uvicorn's own upgrades do, so that it knows whom to tell when it shuts down.
        """
        http: Any = self._transport.get_protocol()
        http.connections.discard(http)
        http.connections.add(protocol)
        self._transport.set_protocol(protocol)
        return self._transport, http

    def reset(self) -> None:
        """Ends the connection by RST: the client sees "connection reset by peer"."""
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_BY_RESET)
        self._transport.abort()


class WireProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, whose requests know the connection they came by."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gives every request of this connection its wire."""
        super().connection_made(transport)
        app = self.app

        async def app_with_wire(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_WIRE] = Wire(transport)
            await app(scope, receive, send)

        self.app: Any = app_with_wire

    def _should_upgrade(self) -> bool:
        """Never by uvicorn: whoever answers the request takes the connection over."""
        return False


class WireResponse(Response):
    """An answer given by a script over the wire; the connection ends with it."""

    def __init__(self, script: Callable[[Wire], Awaitable[None]]) -> None:
        super().__init__()
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the script, then waits for the end so that uvicorn adds no answer of its own."""
        wire: Wire = scope[_WIRE]
        await self._script(wire)
        wire.close()
        while (await receive())["type"] != "http.disconnect":
            pass


def head_of(answer: Response, changes: Mapping[bytes, bytes | None] | None = None) -> bytes:
    """The status line and headers under which this answer would go out over HTTP/1.1.

    `changes` are headers (in lower case) to send in place of its own, None to leave one out.
    """
    headers = {**dict(answer.raw_headers), **(changes or {})}
    lines = (b"%s: %s\r\n" % (name, value) for name, value in headers.items() if value is not None)
    return b"HTTP/1.1 %d Sandbox\r\n%s\r\n" % (answer.status_code, b"".join(lines))
