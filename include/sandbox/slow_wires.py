"""Faults of time: an answer that is on its way and does not arrive."""

from __future__ import annotations

import asyncio

from fastapi import Response

from include.sandbox.faults import Exchange, Fault
from include.sandbox.wire import Wire, WireResponse, head_of


async def dripping_body(exchange: Exchange, *, seconds: float = 0.05) -> Response:
    """The body comes byte by byte, `seconds` apart."""
    answer = await exchange.answer()

    async def script(wire: Wire) -> None:
        await wire.write(head_of(answer))
        await _drip(wire, bytes(answer.body), seconds)

    return WireResponse(script)


async def slow_headers(exchange: Exchange, *, seconds: float = 0.05) -> Response:
    """The head comes byte by byte, `seconds` apart, and then the body."""
    answer = await exchange.answer()

    async def script(wire: Wire) -> None:
        await _drip(wire, head_of(answer), seconds)
        await wire.write(bytes(answer.body))

    return WireResponse(script)


async def silence(exchange: Exchange) -> Response:
    """The call is executed and never answered; the connection stays open."""
    await exchange.answer()

    async def script(wire: Wire) -> None:
        while not wire.is_closed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    return WireResponse(script)


async def _drip(wire: Wire, message: bytes, seconds: float) -> None:
    for byte in message:
        if wire.is_closed:
            return
        await wire.write(bytes([byte]))
        await asyncio.sleep(seconds)


SLOW_WIRES: tuple[Fault, ...] = (dripping_body, slow_headers, silence)
