"""What all decisions share: what the person gave, what came of it, and how one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, column, func, select

from include.warehouse.tables import batch


class DecisionRefused(Exception):
    """The decision does not fit how things stand; nothing was changed."""

    def __init__(self, happened: str, next_step: str) -> None:
        super().__init__(f"{happened} Nothing was changed. {next_step}")


@dataclass(frozen=True)
class Answer:
    """What the person gave beside the decision's name, and the number it is recorded under.

    One person alone gives up payouts of up to `second_person_above`, in units of their currency.
    """

    decision_id: int
    decided_by: str
    reference: str | None
    parameters: dict[str, Any]
    run_id: str | None
    second_person_above: Decimal

    def text(self, name: str) -> str | None:
        """A parameter as text; None if it is absent or blank."""
        return str(self.parameters.get(name, "")).strip() or None


class Change(NamedTuple):
    """What a decision changed, as it was and as it is, and whether that answers the finding."""

    before: dict[str, Any]
    after: dict[str, Any]
    closes_finding: bool = True
    awaits_second_person: bool = False
    first_decision_id: int | None = None


Decide = Callable[[Connection, Row[Any], Answer], Change]
"""Carries out one decision on a finding that is locked and open; raises `DecisionRefused`."""


def lock_batch(connection: Connection, batch_id: int) -> Row[Any]:
    """The batch, locked."""
    return connection.execute(
        select(batch).where(batch.c.batch_id == batch_id).with_for_update()
    ).one()


def as_json(connection: Connection, table: Table, this: Any) -> dict[str, Any]:
    """One row with all its columns, as it is recorded with the decision."""
    row: dict[str, Any] = connection.execute(
        select(func.to_jsonb(column(table.name))).select_from(table).where(this)
    ).scalar_one()
    return row
