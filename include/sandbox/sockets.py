"""A WebSocket of the sandbox: a connection taken over from HTTP, down to its single frames.

Uvicorn's own WebSockets hand over whole messages only. A server that misbehaves needs the frames
and the bytes, so it is done here, with the frames and the parser of `websockets`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from fastapi import Response
from starlette.types import Receive, Scope, Send
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side
from websockets.utils import accept_key

from include.sandbox.wire import Wire, head_of

_WIRE = "sandbox.wire"
_GOING_AWAY = 1012
_CLOSING_SECONDS = 1.0
_LARGEST_MESSAGE_OF_A_CLIENT = 2**16


class Lost(Exception):
    """The connection is over: nothing can be sent any more."""


class Socket(asyncio.Protocol):
    """One connection after its handshake.

    `over` is set, and `when_over` called, at its end; `when_told` at each text of the client.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._frames = Protocol(Side.SERVER, state=OPEN, max_size=_LARGEST_MESSAGE_OF_A_CLIENT)
        self._writable = asyncio.Event()
        self._writable.set()
        self._waiting: list[bytes] = []
        self._size = 0
        self.over = asyncio.Event()
        self.when_over: Callable[[], None] = lambda: None
        self.when_told: Callable[[bytes], None] = lambda message: None
        self._transport, self._http = wire.hand_over(self)

    @property
    def ended(self) -> str:
        """Who closed the connection first and with which code, or that it was lost."""
        received, sent = self._frames.close_rcvd, self._frames.close_sent
        if received is not None and (sent is None or self._frames.close_rcvd_then_sent):
            return f"client {received.code}"
        return "lost" if sent is None else f"server {sent.code}"

    def queue_text(self, text: bytes) -> int:
        """Puts a message behind those that wait to be written; gives the bytes that wait. Lost."""
        return self.queue_bytes(frame(text))

    def queue_bytes(self, content: bytes) -> int:
        """Puts bytes, framed by the caller or not at all, behind those that wait. Lost."""
        if self.over.is_set():
            raise Lost
        self._waiting.append(content)
        self._size += len(content)
        return self._size

    async def flush(self) -> None:
        """Writes what waits, at the client's pace. Lost."""
        content, self._waiting, self._size = b"".join(self._waiting), [], 0
        if self.over.is_set():
            raise Lost
        if content:
            self._transport.write(content)
        # A busy sender lets the others in the process have their turn.
        await asyncio.sleep(0)
        await self._writable.wait()
        if self.over.is_set():
            raise Lost

    async def close(self, code: int, reason: str = "") -> None:
        """Closes in order: a close frame, the client's own one, and the end of the connection."""
        await self.flush()
        self._send_close(code, reason)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), _CLOSING_SECONDS)
        self._end()

    async def drop(self) -> None:
        """Ends the connection in order (FIN), but without a word of WebSocket."""
        await self.flush()
        self._end()

    async def reset(self) -> None:
        """Ends the connection by RST, as soon as everything before is written."""
        await self.flush()
        await self._wire.write(b"")
        self._wire.reset()
        self._end()

    def end(self, code: int, reason: str) -> None:
        """Closes at once: a close frame behind what is written, and the end of the connection."""
        self._send_close(code, reason)
        self._end()

    def shutdown(self) -> None:
        """Uvicorn shuts down."""
        self.end(_GOING_AWAY, "")

    def data_received(self, data: bytes) -> None:
        """What the client sends: pings and a close are answered, whole texts are handed on."""
        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT and event.fin:
                self.when_told(bytes(event.data))
        self._write_frames()
        if self._frames.state is not OPEN:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, for HTTP as well."""
        self._http.connections.discard(self)
        self._http.connection_lost(exc)
        self._writable.set()
        self._end()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def _send_close(self, code: int, reason: str) -> None:
        if self._frames.state is OPEN:
            self._frames.send_close(code, reason)
            self._write_frames()

    def _end(self) -> None:
        self._transport.close()
        if not self.over.is_set():
            self.over.set()
            self.when_over()

    def _write_frames(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._frames.data_to_send()))


class SocketResponse(Response):
    """The handshake of a WebSocket, and the script of what is then sent over it."""

    def __init__(
        self,
        key: str,
        script: Callable[[Socket], Awaitable[None]],
        subprotocol: str | None = None,
    ) -> None:
        chosen = {} if subprotocol is None else {"Sec-WebSocket-Protocol": subprotocol}
        super().__init__(
            status_code=101,
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": accept_key(key),
                **chosen,
            },
        )
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the script, then waits for the end so that uvicorn adds no answer of its own."""
        wire: Wire = scope[_WIRE]
        if not wire.is_closed:
            socket = Socket(wire)
            await wire.write(head_of(self))
            await self._script(socket)
            wire.close()
        while (await receive())["type"] != "http.disconnect":
            pass


def frame(content: bytes, opcode: Opcode = Opcode.TEXT, *, is_last: bool = True) -> bytes:
    """One frame of a message, as bytes."""
    return Frame(opcode, content, is_last).serialize(mask=False)


def wants_socket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for a WebSocket as version 13 of the protocol does."""
    return (
        headers.get("upgrade", "").lower() == "websocket"
        and headers.get("sec-websocket-version") == "13"
        and bool(headers.get("sec-websocket-key"))
    )


def keep_reading(scope: Scope) -> None:
    """Lets a client be seen to go that does not wait for its handshake.

    HTTP stops reading at a request that could end it.
    """
    wire: Wire = scope[_WIRE]
    wire.keep_reading()
