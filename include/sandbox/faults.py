"""Faults on order, for any call of any system: what may be ordered, and whose turn it is.

A fault is an asynchronous function of the exchange (and of the parameters of its order) that
gives the spoiled answer. Which ones exist is listed in `FAULTS`, one module a family.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class PageShape:
    """How a provider's page holds its records, so that a fault can spoil one of them.

    `records` takes them out of a decoded body and `envelope` puts them into a new one that counts
    so many; `id_field` and `word_field` name a record's id and a field that holds one of a fixed
    set of words; `contradict` gives a record's fields another content under the same id.
    `cursor_parameter` and `limit_parameter` name those of the query that ask for a page.
    """

    records: Callable[[dict[str, Any]], list[dict[str, Any]]]
    envelope: Callable[[list[dict[str, Any]], int], dict[str, Any]]
    id_field: str
    word_field: str
    contradict: Callable[[dict[str, Any]], dict[str, Any]]
    cursor_parameter: str
    limit_parameter: str


@dataclass(frozen=True)
class Exchange:
    """One call while it is answered.

    `answer` runs the call and gives its sound answer; a fault that does not call it keeps the
    call from being executed. `answer_to` runs it with parameters of the `query` changed (None:
    left out). `previous_answer` is what the same call was answered last time.
    """

    answer: Callable[[], Awaitable[Response]]
    answer_to: Callable[[dict[str, str | None]], Awaitable[Response]]
    query: Mapping[str, str]
    previous_answer: Response | None
    page_shape: PageShape | None


Fault = Callable[..., Awaitable[Response | None]]
"""Gives the spoiled answer, or None if this exchange has nothing to spoil; the order then waits."""


class FaultOrder(BaseModel):
    """An order for a fault.

    It applies to `call` of `provider` (every call of it if None), after `after_calls` sound ones,
    to the next `times` calls (None: until reset).
    """

    model_config = ConfigDict(extra="forbid")

    provider: str
    call: str | None = None
    kind: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    times: int | None = Field(default=1, ge=1)
    after_calls: int = Field(default=0, ge=0)

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
        answer = await self._faults[order.kind](exchange, **order.parameters)
        if answer is None:
            self._give_back(order)
            return None, await exchange.answer()
        return order.kind, answer

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
