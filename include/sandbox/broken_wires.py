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
    start = _beginning(await exchange.answer(), share)

    async def script(wire: Wire) -> None:
        await wire.write(start)

    return WireResponse(script)


def _beginning(answer: Response, share: float) -> bytes:
    return head_of(answer) + bytes(answer.body[: int(len(answer.body) * share)])


BROKEN_WIRES: tuple[Fault, ...] = (reset_before_answer, reset_in_body, truncated_body)
