"""Faults of an answer to items that were sent, each of which is to be answered once and for itself.

`entry` is the answer's place, counted from the end if negative.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import Response

from include.sandbox.faults import Exchange, Fault
from include.sandbox.spoiling import json_answer, with_record, with_records


async def missing_item(exchange: Exchange, *, entry: int = 0) -> Response | None:
    """One item is not answered."""
    return await with_record(exchange, entry, lambda record, shape: [])


async def foreign_item(
    exchange: Exchange,
    *,
    entry: int = 0,
    item_id: str = "00000000-0000-4000-8000-000000000000",
) -> Response | None:
    """Behind one item's answer stands the same one for an item that nobody sent."""
    return await with_record(
        exchange, entry, lambda record, shape: [record, record | {shape.id_field: item_id}]
    )


async def contradicting_items(exchange: Exchange, *, entry: int = 0) -> Response | None:
    """One item is answered twice, the second time with the opposite."""
    return await with_record(
        exchange, entry, lambda record, shape: [record, record | shape.contradict(record)]
    )


async def same_word_for_all(exchange: Exchange, *, value: Any) -> Response | None:
    """Every item is answered with this word, whatever became of it."""
    return await with_records(
        exchange, lambda records, shape: [each | {shape.word_field: value} for each in records]
    )


async def changed_envelope(
    exchange: Exchange, *, changes: dict[str, Any] | None = None, left_out: tuple[str, ...] = ()
) -> Response | None:
    """Around the sound answers, fields of the envelope are changed, added or left out."""
    answer = await exchange.answer()
    if exchange.page_shape is None or answer.status_code != HTTPStatus.OK:
        return None
    envelope = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    content: dict[str, Any] = {**envelope, **(changes or {})}
    return json_answer({name: content[name] for name in content if name not in left_out})


async def other_status(exchange: Exchange, *, status: int = 201) -> Response:
    """The sound body under another status."""
    answer = await exchange.answer()
    return Response(bytes(answer.body), status, media_type=answer.media_type)


async def late_execution(exchange: Exchange, *, seconds: float = 1.0) -> Response:
    """The call is executed, and answered soundly, only after so long: perhaps to nobody."""
    await asyncio.sleep(seconds)
    return await exchange.answer()


ODD_ITEMS: tuple[Fault, ...] = (
    missing_item,
    foreign_item,
    contradicting_items,
    same_word_for_all,
    changed_envelope,
    other_status,
    late_execution,
)
