"""Faults of odds88's stream, ordered for the call `settlements`; its handshake has those of HTTP.

`after_messages` counts what the connection was sent before. A message that is spoiled is not sent
soundly on this connection, unless `besides` says that the sound one follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NoReturn

import msgspec
from fastapi import Response
from websockets.frames import Opcode

from include.sandbox.faults import Exchange, Fault
from include.sandbox.sockets import frame
from include.sandbox.streams import Spoiling, Stream, StreamResponse, Strike

_BROKEN_FRAMES = {
    "unknown_opcode": b"\x83\x00",
    "reserved_bit": b"\xc1\x00",
    "masked": b"\x81\x81\x00\x00\x00\x00{",
    "long_ping": b"\x89\x7e\x00\x7e" + b"." * 126,
    "continuation_of_nothing": b"\x80\x00",
    "close_without_code": b"\x88\x01\x00",
}


async def closed_stream(
    exchange: Exchange, *, after_messages: int = 0, code: int = 1011, reason: str = ""
) -> Response | None:
    """The server closes in order, with this code."""

    async def act(stream: Stream) -> None:
        await stream.socket.close(code, reason)

    return await _struck(exchange, after_messages, act)


async def dropped_stream(exchange: Exchange, *, after_messages: int = 0) -> Response | None:
    """The connection ends in order (FIN) without a close frame."""

    async def act(stream: Stream) -> None:
        await stream.socket.drop()

    return await _struck(exchange, after_messages, act)


async def reset_stream(exchange: Exchange, *, after_messages: int = 0) -> Response | None:
    """The connection is reset (RST)."""

    async def act(stream: Stream) -> None:
        await stream.socket.reset()

    return await _struck(exchange, after_messages, act)


async def stalled_stream(
    exchange: Exchange, *, after_messages: int = 0, with_pings: bool = False
) -> Response | None:
    """Nothing more comes and the connection stays open; `with_pings` as if it were caught up."""

    async def act(stream: Stream) -> None:
        if not with_pings:
            await _stall()
        while True:
            await asyncio.sleep(stream.ping_seconds)
            await stream.ping()

    return await _struck(exchange, after_messages, act)


async def flooded_stream(
    exchange: Exchange, *, after_messages: int = 0, pings: int = 1000
) -> Response | None:
    """So many pings come one behind the other."""

    async def act(stream: Stream) -> None:
        for _ in range(pings):
            await stream.ping()

    return await _struck(exchange, after_messages, act)


async def foreign_messages(
    exchange: Exchange, *, texts: list[str], after_messages: int = 0
) -> Response | None:
    """These texts come, each as a message, that are not of the feed and not in its ledger."""

    async def act(stream: Stream) -> None:
        for text in texts:
            stream.socket.queue_text(text.encode())
            await stream.socket.flush()

    return await _struck(exchange, after_messages, act)


async def broken_frame(
    exchange: Exchange,
    *,
    after_messages: int = 0,
    breach: Literal[
        "unknown_opcode",
        "reserved_bit",
        "masked",
        "long_ping",
        "continuation_of_nothing",
        "close_without_code",
    ] = "unknown_opcode",
) -> Response | None:
    """A frame comes that breaks the protocol in this way."""

    async def act(stream: Stream) -> None:
        stream.socket.queue_bytes(_BROKEN_FRAMES[breach])
        await stream.socket.flush()

    return await _struck(exchange, after_messages, act)


async def malformed_message(
    exchange: Exchange, *, after_messages: int = 0, messages: int = 1, besides: bool = False
) -> Response | None:
    """The text is cut in half, in a frame that is complete."""
    return await _changed(
        exchange, after_messages, messages, besides, lambda text: text[: len(text) // 2]
    )


async def other_message(
    exchange: Exchange,
    *,
    text: str = "",
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """This text comes in place of the message."""
    return await _changed(exchange, after_messages, messages, besides, lambda _: text.encode())


async def recoded_message(
    exchange: Exchange,
    *,
    encoding: str = "utf-16",
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """The sound text in another encoding, which a text frame forbids."""
    return await _changed(
        exchange, after_messages, messages, besides, lambda text: text.decode().encode(encoding)
    )


async def oversize_message(
    exchange: Exchange,
    *,
    size: int = 64 * 2**20,
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """The sound text, drawn out by blanks to `size` bytes: valid, if anybody reads it whole."""
    return await _changed(
        exchange, after_messages, messages, besides, lambda text: text.ljust(size)
    )


async def changed_value(
    exchange: Exchange,
    *,
    path: str = "data.betSettlement",
    value: Any = 99,
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """The field at this path (list items by number) holds this value, or is added with it."""
    return await _with_value(
        exchange, after_messages, messages, besides, path, msgspec.json.encode(value)
    )


async def raw_value(
    exchange: Exchange,
    *,
    path: str = "data.payout",
    text: str = "NaN",
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """The field at this path holds this text, be it JSON or not."""
    return await _with_value(exchange, after_messages, messages, besides, path, text.encode())


async def left_out_value(
    exchange: Exchange,
    *,
    path: str = "data.betId",
    after_messages: int = 0,
    messages: int = 1,
    besides: bool = False,
) -> Response | None:
    """The field at this path is not there."""
    return await _with_value(exchange, after_messages, messages, besides, path, None)


async def duplicated_message(
    exchange: Exchange, *, copies: int = 2, after_messages: int = 0, messages: int = 1
) -> Response | None:
    """The message comes so many times in all, one behind the other."""

    async def act(stream: Stream, text: bytes) -> None:
        for _ in range(copies):
            stream.socket.queue_text(text)
        await stream.socket.flush()

    return await _spoiled(exchange, after_messages, messages, act)


async def binary_message(
    exchange: Exchange, *, after_messages: int = 0, messages: int = 1
) -> Response | None:
    """The sound text comes in a binary frame."""

    async def act(stream: Stream, text: bytes) -> None:
        stream.socket.queue_bytes(frame(text, Opcode.BINARY))
        await stream.socket.flush()

    return await _spoiled(exchange, after_messages, messages, act)


async def fragmented_message(
    exchange: Exchange, *, parts: int = 7, after_messages: int = 0, messages: int | None = 1
) -> Response | None:
    """The sound text comes in so many frames, a WebSocket's ping before the last of them."""

    async def act(stream: Stream, text: bytes) -> None:
        size = -(-len(text) // parts)
        for start in range(0, len(text), size):
            is_last = start + size >= len(text)
            if is_last:
                stream.socket.queue_bytes(frame(b"between", Opcode.PING))
            opcode = Opcode.CONT if start else Opcode.TEXT
            stream.socket.queue_bytes(frame(text[start : start + size], opcode, is_last=is_last))
            await stream.socket.flush()

    return await _spoiled(exchange, after_messages, messages, act)


async def dripping_messages(
    exchange: Exchange,
    *,
    seconds: float = 0.05,
    after_messages: int = 0,
    messages: int | None = None,
) -> Response | None:
    """The frames come byte by byte, `seconds` apart."""

    async def act(stream: Stream, text: bytes) -> None:
        for byte in frame(text):
            stream.socket.queue_bytes(bytes([byte]))
            await stream.socket.flush()
            await asyncio.sleep(seconds)

    return await _spoiled(exchange, after_messages, messages, act)


async def slow_messages(
    exchange: Exchange,
    *,
    seconds: float = 0.05,
    after_messages: int = 0,
    messages: int | None = None,
) -> Response | None:
    """Sound messages, each of them `seconds` behind the one before."""

    async def act(stream: Stream, text: bytes) -> None:
        await asyncio.sleep(seconds)
        stream.socket.queue_text(text)
        await stream.socket.flush()

    return await _spoiled(exchange, after_messages, messages, act)


async def truncated_frame(exchange: Exchange, *, after_messages: int = 0) -> Response | None:
    """A frame announces its whole length, half of it comes, and the connection ends (FIN)."""

    async def act(stream: Stream, text: bytes) -> None:
        whole = frame(text)
        stream.socket.queue_bytes(whole[: len(whole) // 2])
        await stream.socket.drop()

    return await _spoiled(exchange, after_messages, 1, act)


async def stalled_frame(exchange: Exchange, *, after_messages: int = 0) -> Response | None:
    """Half of a frame comes, then nothing, and the connection stays open."""

    async def act(stream: Stream, text: bytes) -> None:
        whole = frame(text)
        stream.socket.queue_bytes(whole[: len(whole) // 2])
        await stream.socket.flush()
        await _stall()

    return await _spoiled(exchange, after_messages, 1, act)


async def _stall() -> NoReturn:
    """Until the stream is over, which cancels whoever waits here."""
    while True:
        await asyncio.Event().wait()


async def _struck(
    exchange: Exchange, after_messages: int, act: Callable[[Stream], Awaitable[None]]
) -> Response | None:
    answer = await exchange.answer()
    if not isinstance(answer, StreamResponse):
        return None
    answer.stream.fault = Strike(after_messages, act)
    return answer


async def _spoiled(
    exchange: Exchange,
    after_messages: int,
    messages: int | None,
    act: Callable[[Stream, bytes], Awaitable[None]],
) -> Response | None:
    answer = await exchange.answer()
    if not isinstance(answer, StreamResponse):
        return None
    answer.stream.fault = Spoiling(after_messages, messages, act)
    return answer


async def _changed(
    exchange: Exchange,
    after_messages: int,
    messages: int,
    besides: bool,
    change: Callable[[bytes], bytes],
) -> Response | None:
    async def act(stream: Stream, text: bytes) -> None:
        stream.socket.queue_text(change(text))
        if besides:
            stream.socket.queue_text(text)
        await stream.socket.flush()

    return await _spoiled(exchange, after_messages, messages, act)


async def _with_value(
    exchange: Exchange,
    after_messages: int,
    messages: int,
    besides: bool,
    path: str,
    value: bytes | None,
) -> Response | None:
    def change(text: bytes) -> bytes:
        message = msgspec.json.decode(text)
        *way, name = (int(part) if part.isdigit() else part for part in path.split("."))
        holder: Any = message
        for part in way:
            holder = holder[part]
        if value is None:
            del holder[name]
        else:
            holder[name] = msgspec.Raw(value)
        return msgspec.json.encode(message)

    return await _changed(exchange, after_messages, messages, besides, change)


STREAM_FAULTS: tuple[Fault, ...] = (
    closed_stream,
    dropped_stream,
    reset_stream,
    stalled_stream,
    flooded_stream,
    foreign_messages,
    broken_frame,
    malformed_message,
    other_message,
    recoded_message,
    oversize_message,
    changed_value,
    raw_value,
    left_out_value,
    duplicated_message,
    binary_message,
    fragmented_message,
    dripping_messages,
    slow_messages,
    truncated_frame,
    stalled_frame,
)
