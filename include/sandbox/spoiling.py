"""What faults of every family share: a sound page with other records in it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import Response

from include.sandbox.faults import Exchange, PageShape

Record = dict[str, Any]


async def with_record(
    exchange: Exchange, number: int, spoil: Callable[[Record, PageShape], list[Any]]
) -> Response | None:
    """The sound page with one record replaced; a negative number counts from the end."""

    def spoil_one(records: list[Record], shape: PageShape) -> list[Any] | None:
        if not -len(records) <= number < len(records):
            return None
        place = number % len(records)
        return [*records[:place], *spoil(records[place], shape), *records[place + 1 :]]

    return await with_records(exchange, spoil_one)


async def with_records(
    exchange: Exchange,
    spoil: Callable[[list[Record], PageShape], list[Any] | None],
    *,
    miscounted_by: int = 0,
) -> Response | None:
    """The sound page with other records; None if it is not a page or `spoil` gives none.

    The page says that it has `miscounted_by` records more than it has.
    """
    answer = await exchange.answer()
    shape = exchange.page_shape
    if shape is None or answer.status_code != HTTPStatus.OK:
        return None
    body = msgspec.json.decode(answer.body)
    sound = shape.records(body)
    records = None if sound is None else spoil(sound, shape)
    if records is None:
        return None
    return json_answer(shape.envelope(body, records, len(records) + miscounted_by))


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON; a `msgspec.Raw` in the content is written as it is, sound or not."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")
