"""Faults below HTTP: the connection itself fails."""

from __future__ import annotations

from fastapi import Response

from include.sandbox.faults import Exchange, Fault
from include.sandbox.wire import Wire, WireResponse, head_of


async def reset_before_answer(exchange: Exchange) -> Response:
    """The connection is reset before a byte of the answer; the call was executed."""
    await exchange.answer()

    async def script(wire: Wire) -> None:
        wire.reset()

    return WireResponse(script)


async def reset_in_body(exchange: Exchange, *, share: float = 0.5) -> Response:
    """The connection is reset after this share of the body."""
    start = _beginning(await exchange.answer(), share)

    async def script(wire: Wire) -> None:
        await wire.write(start)
        wire.reset()

    return WireResponse(script)


async def truncated_body(exchange: Exchange, *, share: float = 0.5) -> Response:
    """The whole length is announced, this share of it sent, and the connection closed in order."""
    return _sending(_beginning(await exchange.answer(), share))


async def closed_without_answer(exchange: Exchange) -> Response:
    """The connection is closed in order before a byte of the answer; the call was executed."""
    await exchange.answer()
    return _sending(b"")


async def bad_status_line(exchange: Exchange, *, line: str = "HTTP/1.1 2OO OK") -> Response:
    """The answer begins with a line that no HTTP knows."""
    answer = await exchange.answer()
    headers = head_of(answer).partition(b"\r\n")[2]
    return _sending(line.encode() + b"\r\n" + headers + bytes(answer.body))


async def bad_chunk(exchange: Exchange) -> Response:
    """The body is said to come in chunks, and the size of the second one is no number."""
    chunked: dict[bytes, bytes | None] = {
        b"content-length": None,
        b"transfer-encoding": b"chunked",
    }
    answer = await exchange.answer()
    body = bytes(answer.body)
    return _sending(head_of(answer, chunked) + b"%x\r\n%s\r\nzz\r\n" % (len(body), body))


async def header_flood(exchange: Exchange, *, headers: int = 100_000) -> Response:
    """So many headers come before the body."""
    answer = await exchange.answer()
    flood = b"".join(b"x-flood-%d: flood\r\n" % number for number in range(headers))
    return _sending(head_of(answer)[:-2] + flood + b"\r\n" + bytes(answer.body))


async def contradicting_length(exchange: Exchange, *, by: int = 1) -> Response:
    """Two headers tell different lengths of the body: the right one, and one that is `by` off."""
    answer = await exchange.answer()
    body = bytes(answer.body)
    second = b"content-length: %d\r\n\r\n" % (len(body) + by)
    return _sending(head_of(answer)[:-2] + second + body)


def _sending(message: bytes) -> Response:
    """These bytes, and then the end of the connection in order."""

    async def script(wire: Wire) -> None:
        await wire.write(message)

    return WireResponse(script)


def _beginning(answer: Response, share: float) -> bytes:
    return head_of(answer) + bytes(answer.body[: int(len(answer.body) * share)])


BROKEN_WIRES: tuple[Fault, ...] = (
    reset_before_answer,
    reset_in_body,
    truncated_body,
    closed_without_answer,
    bad_status_line,
    bad_chunk,
    header_flood,
    contradicting_length,
)
