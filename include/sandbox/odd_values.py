"""Faults of values: what one field of one record of a page can hold, be it JSON or not.

`entry` is the record's place, counted from the end if negative; `field` is the field to spoil, by
default the one that holds one of a fixed set of words.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from include.sandbox.faults import Exchange, Fault, PageShape
from include.sandbox.spoiling import Record, with_record


async def missing_field(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field is not there."""

    def spoil(record: Record, shape: PageShape) -> list[Record]:
        name = field or shape.word_field
        return [{key: value for key, value in record.items() if key != name}]

    return await with_record(exchange, entry, spoil)


async def null_field(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field is null."""
    return await _with_text(exchange, entry, field, b"null")


async def wrong_type(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, value: Any = ("one", 2)
) -> Response | None:
    """The field holds a value of another type than documented, by default a list."""
    return await _with_text(exchange, entry, field, msgspec.json.encode(value))


async def repeated_field(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, value: Any = "regraded"
) -> Response | None:
    """The record names the field twice: first with this value, then with the sound one."""

    def spoil(record: Record, shape: PageShape) -> list[msgspec.Raw]:
        first = msgspec.json.encode({field or shape.word_field: value})
        return [msgspec.Raw(first[:-1] + b"," + msgspec.json.encode(record)[1:])]

    return await with_record(exchange, entry, spoil)


async def not_a_number(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, literal: str = "NaN"
) -> Response | None:
    """The field holds NaN, Infinity or -Infinity, which some writers think is JSON."""
    return await _with_text(exchange, entry, field, literal.encode())


async def huge_number(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, digits: int = 400
) -> Response | None:
    """The field holds a whole number of so many digits."""
    return await _with_text(exchange, entry, field, b"9" * digits)


async def deep_nesting(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, depth: int = 100_000
) -> Response | None:
    """The field holds a list in a list, so many deep."""
    return await _with_text(exchange, entry, field, b"[" * depth + b"]" * depth)


async def escaped_null_character(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field holds a null character as JSON writes it, which Postgres cannot store in a text."""
    return await _with_text(exchange, entry, field, rb'"settled\u0000"')


async def raw_null_character(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field holds a null character as one byte, which JSON forbids."""
    return await _with_text(exchange, entry, field, b'"settled\0"')


async def lone_surrogate(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field holds half a surrogate pair, which JSON can write and UTF-8 cannot."""
    return await _with_text(exchange, entry, field, rb'"settled\ud83d"')


async def invalid_utf8(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """The field holds a character in Latin-1, as if that were the encoding."""
    return await _with_text(exchange, entry, field, "gewährt".encode("latin-1").join([b'"'] * 2))


async def _with_text(
    exchange: Exchange, entry: int, field: str | None, value: bytes
) -> Response | None:
    """The sound page with these bytes where the field's value stands."""
    return await with_record(
        exchange,
        entry,
        lambda record, shape: [record | {field or shape.word_field: msgspec.Raw(value)}],
    )


ODD_VALUES: tuple[Fault, ...] = (
    missing_field,
    null_field,
    wrong_type,
    repeated_field,
    not_a_number,
    huge_number,
    deep_nesting,
    escaped_null_character,
    raw_null_character,
    lone_surrogate,
    invalid_utf8,
)
