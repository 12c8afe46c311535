"""Faults within HTTP: another status, another body, another record."""

from __future__ import annotations

from http import HTTPStatus
from http.client import responses
from typing import Any

import msgspec
from fastapi import Response
from fastapi.responses import HTMLResponse

from include.sandbox.faults import Exchange, Fault
from include.sandbox.spoiling import Record, json_answer, with_record, with_records


async def status(exchange: Exchange, *, status: int, retry_after: str | None = None) -> Response:
    """Refuses the call, unexecuted, with this status; `retry_after` is sent as given."""
    phrase = responses.get(status, "Unknown")
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE):
        # These come from what stands before the application, and it does not speak JSON.
        return HTMLResponse(_web_page(f"{status} {phrase}"), status, headers)
    detail: Any = phrase
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        detail = [{"type": "value_error", "loc": ["query"], "msg": phrase, "input": None}]
    return json_answer({"detail": detail}, status, headers)


async def redirect(
    exchange: Exchange, *, location: str = "https://elsewhere.invalid/", status: int = 302
) -> Response:
    """Refuses the call, unexecuted, and points to another address."""
    return Response(status_code=status, headers={"Location": location})


async def malformed_json(exchange: Exchange) -> Response:
    """The sound body, cut in half, in an HTTP answer that is complete."""
    body = (await exchange.answer()).body
    return Response(bytes(body[: len(body) // 2]), media_type="application/json")


async def html_page(exchange: Exchange) -> Response:
    """A web page with status 200, as a log-in portal or a proxy gives it."""
    return HTMLResponse(_web_page("Please log in"))


async def wrong_envelope(exchange: Exchange) -> Response:
    """The sound body, wrapped in an object that is not documented."""
    return json_answer({"result": msgspec.Raw((await exchange.answer()).body)})


async def empty_page(exchange: Exchange) -> Response | None:
    """A sound page that holds no record, as if there were no more."""
    return await with_records(exchange, lambda records, shape: [])


async def repeated_page(exchange: Exchange) -> Response | None:
    """What the same call was answered last time, whatever is asked for now."""
    return exchange.previous_answer


async def changed_entry(
    exchange: Exchange, *, entry: int = 0, changes: Record | None = None
) -> Response | None:
    """One record of the page with other content under the same id."""
    return await with_record(
        exchange, entry, lambda record, shape: [record | (changes or shape.contradict(record))]
    )


async def entry_without_id(exchange: Exchange, *, entry: int = 0) -> Response | None:
    """One record of the page without the field that names it."""
    return await with_record(
        exchange,
        entry,
        lambda record, shape: [{key: record[key] for key in record if key != shape.id_field}],
    )


async def unknown_value(
    exchange: Exchange, *, entry: int = 0, field: str | None = None, value: Any = "regraded"
) -> Response | None:
    """One record of the page with a word that is not documented."""
    return await with_record(
        exchange, entry, lambda record, shape: [record | {field or shape.word_field: value}]
    )


async def unknown_field(
    exchange: Exchange, *, entry: int = 0, field: str = "market_tier", value: Any = "gold"
) -> Response | None:
    """One record of the page with a field that is not documented."""
    return await with_record(exchange, entry, lambda record, shape: [record | {field: value}])


async def duplicated_entry(exchange: Exchange, *, entry: int = 0) -> Response | None:
    """One record of the page twice, one behind the other."""
    return await with_record(exchange, entry, lambda record, shape: [record, record])


def _web_page(title: str) -> str:
    return f"<!doctype html><html><head><title>{title}</title></head><body>{title}</body></html>"


SPOILED_ANSWERS: tuple[Fault, ...] = (
    status,
    redirect,
    malformed_json,
    html_page,
    wrong_envelope,
    empty_page,
    repeated_page,
    changed_entry,
    entry_without_id,
    unknown_value,
    unknown_field,
    duplicated_entry,
)
