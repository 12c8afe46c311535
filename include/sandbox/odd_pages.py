"""Faults of pages: which records are given for which cursor, and how many there are said to be."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Response

from include.sandbox.faults import Exchange, Fault, PageShape
from include.sandbox.spoiled_answers import status as refuse
from include.sandbox.spoiling import with_records


async def overfull_page(exchange: Exchange, *, times_as_many: int = 3) -> Response | None:
    """A page of more records than were asked for."""
    parameter = _given(exchange, lambda shape: shape.limit_parameter)
    if parameter is None:
        return None
    limit = int(exchange.query[parameter]) * times_as_many
    return await exchange.answer_to({parameter: str(limit)})


async def restarted_page(exchange: Exchange) -> Response | None:
    """The page from which the log starts, though a cursor was given: the cursor goes back."""
    parameter = _given(exchange, lambda shape: shape.cursor_parameter)
    if parameter is None:
        return None
    return await exchange.answer_to({parameter: None})


async def refused_cursor(exchange: Exchange, *, status: int = 404) -> Response | None:
    """Refuses, unexecuted and with this status, a call that gives a cursor."""
    parameter = _given(exchange, lambda shape: shape.cursor_parameter)
    if parameter is None:
        return None
    return await refuse(exchange, status=status)


async def reversed_page(exchange: Exchange) -> Response | None:
    """A sound page whose records come in the opposite order."""
    return await with_records(exchange, lambda records, shape: records[::-1])


async def shuffled_page(exchange: Exchange) -> Response | None:
    """A sound page whose records come in no order: every other one first, then those between."""
    return await with_records(exchange, lambda records, shape: [*records[1::2], *records[::2]])


async def miscounted_page(exchange: Exchange, *, by: int = 1) -> Response | None:
    """A sound page that says it holds so many records more than it does."""
    return await with_records(exchange, lambda records, shape: records, miscounted_by=by)


def _given(exchange: Exchange, named: Callable[[PageShape], str | None]) -> str | None:
    """The parameter of that name, if pages are asked for by one and this call gives it."""
    parameter = None if exchange.page_shape is None else named(exchange.page_shape)
    return parameter if parameter in exchange.query else None


ODD_PAGES: tuple[Fault, ...] = (
    overfull_page,
    restarted_page,
    refused_cursor,
    reversed_page,
    shuffled_page,
    miscounted_page,
)
