"""Faults on order, for any call of any system: what may be ordered, and whose turn it is.

A fault is an asynchronous function of the exchange (and of the parameters of its order) that
gives the spoiled answer. Which ones exist is listed in `FAULTS`, one module a family.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class PageShape:
    """How a provider's page holds its records, so that a fault can spoil one of them.

    `records` takes them out of a decoded body (None: it is no page) and `envelope` puts others into
    it, counting so many; `id_field` and `word_field` name a record's id and a field that
    holds one of a fixed set of words; `contradict` gives a record's fields another content under
    the same id. `cursor_parameter` and `limit_parameter` name those of the query that ask for a
    page, where it is asked for by a query.
    """

    records: Callable[[dict[str, Any]], list[dict[str, Any]] | None]
    envelope: Callable[[dict[str, Any], list[dict[str, Any]], int], dict[str, Any]]
    id_field: str
    word_field: str
    contradict: Callable[[dict[str, Any]], dict[str, Any]]
    cursor_parameter: str | None = None
    limit_parameter: str | None = None


@dataclass(frozen=True)
class Exchange:
    """One call while it is answered.

    `answer` runs the call and gives its sound answer; a fault that does not call it keeps the
    call from being executed. `answer_executing` gives the same answer with only the first so many
    items of the call executed, none of them if 0. `answer_to` runs it with parameters of the
    `query` changed (None: left out). `previous_answer` is what the same call was answered last
    time.
    """

    answer: Callable[[], Awaitable[Response]]
    answer_executing: Callable[[int], Awaitable[Response]]
    answer_to: Callable[[dict[str, str | None]], Awaitable[Response]]
    query: Mapping[str, str]
    previous_answer: Response | None
    page_shape: PageShape | None


Fault = Callable[..., Awaitable[Response | None]]
"""Gives the spoiled answer, or None if this exchange has nothing to spoil; the order then waits."""


class FaultOrder(BaseModel):
    """An order for a fault.

    It applies to `call` of `provider` (every call of it if None), after `after_calls` sound ones,
    to the next `times` calls (None: until reset). Whether the call is executed before it is spoiled
    is as the fault says, or as `executed` does; or its first `executed_items` alone are.
    """

    model_config = ConfigDict(extra="forbid")

    provider: str
    call: str | None = None
    kind: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    times: int | None = Field(default=1, ge=1)
    after_calls: int = Field(default=0, ge=0)
    executed: bool | None = None
    executed_items: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _executes_in_one_way(self) -> Self:
        if self.executed is not None and self.executed_items is not None:
            raise ValueError("either executed or executed_items")
        return self

    def concerns(self, provider: str, call: str) -> bool:
        """Whether this order is for that call."""
        return self.provider == provider and self.call in (None, call)


class FaultQueue:
    """The orders not yet used up, first come first served."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        self._faults = faults
        self._orders: deque[FaultOrder] = deque()

    @property
    def orders(self) -> list[FaultOrder]:
        """What is still to come, in order."""
        return list(self._orders)

    def add(self, order: FaultOrder) -> None:
        """Puts an order at the end. ValueError if its kind or its parameters are unknown."""
        fault = self._faults.get(order.kind)
        if fault is None:
            raise ValueError(f"no fault {order.kind!r}; there are: {', '.join(self._faults)}")
        try:
            inspect.signature(fault).bind(None, **order.parameters)
        except TypeError as error:
            raise ValueError(f"fault {order.kind!r}: {error}") from None
        self._orders.append(order)

    def clear(self) -> None:
        """Forgets every order."""
        self._orders.clear()

    async def spoil(
        self, provider: str, call: str, exchange: Exchange
    ) -> tuple[str | None, Response]:
        """Answers an exchange: spoiled by the order whose turn it is (and its kind), else sound."""
        order = next((each for each in self._orders if each.concerns(provider, call)), None)
        if order is None:
            return None, await exchange.answer()
        if order.after_calls:
            order.after_calls -= 1
            return None, await exchange.answer()
        self._take(order)
        answer = await self._spoiled(order, exchange)
        if answer is None:
            self._give_back(order)
            return None, await exchange.answer()
        return order.kind, answer

    async def _spoiled(self, order: FaultOrder, exchange: Exchange) -> Response | None:
        fault = self._faults[order.kind]
        if order.executed:
            await exchange.answer()
        items = 0 if order.executed is False else order.executed_items
        if items is None:
            return await fault(exchange, **order.parameters)
        # Rehearsed until it is known that there is something to spoil: else it is executed whole.
        rehearsed = replace(exchange, answer=lambda: exchange.answer_executing(0))
        answer = await fault(rehearsed, **order.parameters)
        if answer is not None and items:
            await exchange.answer_executing(items)
        return answer

    def _take(self, order: FaultOrder) -> None:
        # Before anything is awaited: two calls at once must not both use an order for one.
        if order.times is None:
            return
        order.times -= 1
        if order.times == 0:
            self._orders.remove(order)

    def _give_back(self, order: FaultOrder) -> None:
        if order.times is None:
            return
        if order.times == 0:
            self._orders.appendleft(order)
        order.times += 1
