"""Faults of size and encoding: more bytes than anybody asked for, or bytes of another kind."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Literal

from fastapi import Response

from include.sandbox.faults import Exchange, Fault
from include.sandbox.wire import Wire, WireResponse, head_of

_PART = 65536


async def oversize_body(
    exchange: Exchange,
    *,
    size: int = 64 * 2**20,
    length: Literal["declared", "chunked", "untold"] = "declared",
) -> Response:
    """The sound body, drawn out by blanks to `size` bytes: valid, if anybody reads it whole.

    Its length is declared, or it comes in chunks, or it lasts until the connection is closed.
    """
    answer = await exchange.answer()
    headers: dict[str, dict[bytes, bytes | None]] = {
        "declared": {b"content-length": str(size).encode()},
        "chunked": {b"content-length": None, b"transfer-encoding": b"chunked"},
        "untold": {b"content-length": None, b"connection": b"close"},
    }

    async def script(wire: Wire) -> None:
        await wire.write(head_of(answer, headers[length]))
        for part in _drawn_out(bytes(answer.body), size):
            if wire.is_closed:
                return
            await wire.write(b"%x\r\n%s\r\n" % (len(part), part) if length == "chunked" else part)
        if length == "chunked":
            await wire.write(b"0\r\n\r\n")

    return WireResponse(script)


async def gzip_bomb(exchange: Exchange, *, size: int = 16 * 2**20) -> Response:
    """The sound body in gzip, which nobody asked for: small on the wire, `size` bytes unpacked."""
    body = bytes((await exchange.answer()).body)
    packed = await asyncio.to_thread(gzip.compress, body.ljust(size), 1)
    headers = {"Content-Encoding": "gzip"}
    return Response(packed, headers=headers, media_type="application/json")


async def recoded_body(exchange: Exchange, *, encoding: str = "utf-16") -> Response:
    """The sound body in another encoding; Python's `utf-8-sig` puts a byte order mark before it."""
    text = bytes((await exchange.answer()).body).decode()
    return Response(text.encode(encoding), media_type="application/json")


def _drawn_out(body: bytes, size: int) -> Iterator[bytes]:
    yield body
    for left in range(size - len(body), 0, -_PART):
        yield b" " * min(left, _PART)


OVERSIZED_ANSWERS: tuple[Fault, ...] = (oversize_body, gzip_bomb, recoded_body)
