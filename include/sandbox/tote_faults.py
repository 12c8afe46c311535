"""Faults of tote: answers of GraphQL that are none though their status is 200, and odd hints.

`entry` is a bet's place on the page, counted from the end if negative; `after_messages` counts the
hints that the connection was sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from fastapi import Response

from include.sandbox.faults import Exchange, Fault
from include.sandbox.spoiling import json_answer
from include.sandbox.streams import Spoiling, Stream, StreamResponse

_MESSAGE = "Unexpected Execution Error"


async def graphql_errors(
    exchange: Exchange,
    *,
    message: str = _MESSAGE,
    code: str | None = "INTERNAL_SERVER_ERROR",
    with_data: bool = False,
    tote_ids: list[str] | None = None,
) -> Response | None:
    """The answer holds `errors`; beside the sound data, or instead of them.

    With `tote_ids`, only one that tells one of these bets.
    """
    error: dict[str, Any] = {"message": message, "path": ["bets"]}
    if code is not None:
        error["extensions"] = {"code": code}

    def spoil(body: dict[str, Any]) -> bool:
        nodes = body["data"]["bets"]["nodes"]
        if tote_ids is not None and all(node["toteId"] not in tote_ids for node in nodes):
            return False
        body["errors"] = [error]
        if not with_data:
            body["data"] = None
        return True

    return await _spoiled(exchange, spoil)


async def partial_data(
    exchange: Exchange, *, entry: int = 0, field: str | None = None
) -> Response | None:
    """One bet, or a field of it, is null, and `errors` say that it failed."""

    def spoil(body: dict[str, Any]) -> bool:
        nodes = body["data"]["bets"]["nodes"]
        if not -len(nodes) <= entry < len(nodes):
            return False
        path: list[Any] = ["bets", "nodes", entry % len(nodes)]
        if field is None:
            nodes[entry] = None
        else:
            nodes[entry][field] = None
            path.append(field)
        body["errors"] = [{"message": _MESSAGE, "path": path}]
        return True

    return await _spoiled(exchange, spoil)


async def null_nodes(
    exchange: Exchange,
    *,
    what: Literal["data", "bets", "nodes", "pageInfo", "node"] = "nodes",
    entry: int = 0,
    absent: bool = False,
) -> Response | None:
    """A part of the answer is null, or not there at all, and no `errors` say why."""

    def spoil(body: dict[str, Any]) -> bool:
        if what == "node":
            nodes = body["data"]["bets"]["nodes"]
            if not -len(nodes) <= entry < len(nodes):
                return False
            nodes[entry] = None
            return True
        holders = {"data": body, "bets": body["data"]}
        holder = holders.get(what, body["data"]["bets"])
        if absent:
            del holder[what]
        else:
            holder[what] = None
        return True

    return await _spoiled(exchange, spoil)


async def changed_answer(
    exchange: Exchange,
    *,
    path: str = "data.bets.nodes.0.settlement.status",
    value: Any = "REGRADED",
) -> Response | None:
    """The field at this path (list items by number) holds this value, or is added with it."""

    def spoil(body: dict[str, Any]) -> bool:
        *way, name = (int(part) if part.isdigit() else part for part in path.split("."))
        holder: Any = body
        try:
            for part in way:
                holder = holder[part]
            holder[name] = value
        except (KeyError, IndexError, TypeError):
            return False
        return True

    return await _spoiled(exchange, spoil)


async def wrong_total(exchange: Exchange, *, entry: int = 0, by: int = 1) -> Response | None:
    """The total of a bet's returns is this much more, in minor units, than its parts."""

    def spoil(body: dict[str, Any]) -> bool:
        nodes = body["data"]["bets"]["nodes"]
        if not -len(nodes) <= entry < len(nodes) or not nodes[entry]["resulting"]["returns"]:
            return False
        total = nodes[entry]["resulting"]["returns"]["totalAmount"]
        minor = total["minorUnitsTotalAmount"] + by
        total["minorUnitsTotalAmount"] = minor
        total["decimalAmount"] = minor / 100
        total["stringAmount"] = f"{minor // 100}.{minor % 100:02}"
        return True

    return await _spoiled(exchange, spoil)


async def dropped_hint(
    exchange: Exchange, *, after_messages: int = 0, messages: int | None = 1
) -> Response | None:
    """So many hints (None: all) are never sent."""

    async def act(stream: Stream, text: bytes) -> None:
        pass

    return await _with_fault(exchange, Spoiling(after_messages, messages, act))


async def repeated_hint(
    exchange: Exchange, *, copies: int = 2, after_messages: int = 0, messages: int | None = 1
) -> Response | None:
    """Each of so many hints (None: all) comes so many times in all."""

    async def act(stream: Stream, text: bytes) -> None:
        for _ in range(copies):
            stream.socket.queue_text(text)
        await stream.socket.flush()

    return await _with_fault(exchange, Spoiling(after_messages, messages, act))


async def reordered_hints(
    exchange: Exchange, *, after_messages: int = 0, messages: int = 5
) -> Response | None:
    """So many hints wait for the last of them, and come in the opposite order."""
    waiting: list[bytes] = []

    async def act(stream: Stream, text: bytes) -> None:
        waiting.append(text)
        if len(waiting) == messages:
            for each in reversed(waiting):
                stream.socket.queue_text(each)
            await stream.socket.flush()

    return await _with_fault(exchange, Spoiling(after_messages, messages, act))


async def wrong_amount(
    exchange: Exchange,
    *,
    amount: Any = 999_999.99,
    after_messages: int = 0,
    messages: int | None = 1,
) -> Response | None:
    """So many hints (None: all) tell this amount if they tell one, however wrapped."""

    async def act(stream: Stream, text: bytes) -> None:
        message = msgspec.json.decode(text)
        payload = message.get("payload")
        holder = next(iter(payload["data"].values())) if payload else message
        for name in {"ReturnAmount", "returnAmount"} & holder.keys():
            holder[name] = amount
        stream.socket.queue_text(msgspec.json.encode(message))
        await stream.socket.flush()

    return await _with_fault(exchange, Spoiling(after_messages, messages, act))


async def _spoiled(
    exchange: Exchange, spoil: Callable[[dict[str, Any]], bool | None]
) -> Response | None:
    """The sound page, changed; None if it is no page or has nothing to spoil."""
    answer = await exchange.answer()
    if answer.status_code != HTTPStatus.OK or isinstance(answer, StreamResponse):
        return None
    body = msgspec.json.decode(answer.body)
    if not isinstance(body, dict) or not (body.get("data") or {}).get("bets"):
        return None
    return None if spoil(body) is False else json_answer(body)


async def _with_fault(exchange: Exchange, fault: Spoiling) -> Response | None:
    answer = await exchange.answer()
    if not isinstance(answer, StreamResponse):
        return None
    answer.stream.fault = fault
    return answer


TOTE_FAULTS: tuple[Fault, ...] = (
    graphql_errors,
    partial_data,
    null_nodes,
    changed_answer,
    wrong_total,
    dropped_hint,
    repeated_hint,
    reordered_hints,
    wrong_amount,
)
