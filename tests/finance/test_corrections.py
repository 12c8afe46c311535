"""Corrections account for all that moves: with what was published first they make what counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from include.warehouse.decisions import DecisionRefused, resolve
from include.warehouse.publishing import publish
from include.warehouse.tables import staging_settlement
from tests.feeding import SOURCE
from tests.staging import a_row, open_normalized_batch
from tests.warehouses import Warehouse

PLACES = 3
_COUNTS_NOW = """
SELECT source_key, payout FROM core.settlement WHERE is_current AND NOT is_contested
"""
_ACCOUNTED = """
SELECT source_key, payout + coalesce((
    SELECT sum(payout_difference) FROM finance.correction
    WHERE correction.source_key = came_first.source_key AND NOT is_contested
), 0) AS payout
FROM (
    SELECT DISTINCT ON (source_key) source_key, payout
    FROM core.settlement
    ORDER BY source_key, provider_order, record_id
) AS came_first
"""


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


class Told:
    """Bets as a provider tells them, a batch a time, and people who choose between contents."""

    def __init__(self, warehouse: Warehouse, connection: Connection) -> None:
        self._warehouse, self._connection = warehouse, connection
        self._record_id = 0

    def publish(self, *told: tuple[str, int, int]) -> None:
        """Publish a batch of contents: subject, place in the provider's order, payout."""
        first = self._record_id + 1
        with self._warehouse.owner_engine.begin() as connection:
            batch_id = open_normalized_batch(
                connection,
                landed=len(told),
                settlements_checked_at=text("now()"),
                record_id_first=first,
                record_id_last=first + len(told) - 1,
            )
            for source_key, place, payout in told:
                self._record_id += 1
                money = {"currency": "EUR", "stake": Decimal(1), "payout": Decimal(payout)}
                row = a_row(batch_id, self._record_id, source_key=source_key, **money)
                row["provider_order"] = f"n{place:020}"
                connection.execute(insert(staging_settlement).values(row))
        publish(self._warehouse.engine, SOURCE.name)

    def choose(self, finding_id: int, record_id: int) -> None:
        """Decide that the record counts, also anew."""
        resolve(
            self._warehouse.engine,
            finding_id,
            "choose_version",
            decided_by="anna",
            reason="as they say",
            reference=None,
            parameters={"record_id": record_id},
            run_id=None,
        )

    def ask(self, query: str, **parameters: Any) -> list[Any]:
        """Its rows."""
        return list(self._connection.execute(text(query), parameters))

    def contested(self) -> list[Any]:
        """Every finding about contents that contradict each other, open or closed."""
        return self.ask("SELECT * FROM ops.finding WHERE kind = 'settlement_contested' ORDER BY 1")

    def corrections(self) -> list[tuple[Any, ...]]:
        """Which version corrects which, by how much, and whether that is contested."""
        return [
            tuple(row)
            for row in self.ask(
                "SELECT version, replaced_version, payout_difference, is_contested"
                " FROM finance.correction ORDER BY version"
            )
        ]


@pytest.fixture
def told(warehouse: Warehouse, connection: Connection) -> Told:
    return Told(warehouse, connection)


def test_a_choice_over_what_was_published_first_is_a_correction_of_it(told: Told) -> None:
    told.publish(("bet", 1, 386))
    told.publish(("bet", 1, 0))
    [finding] = told.contested()
    told.choose(finding.finding_id, 2)
    assert told.corrections() == [(2, 1, -386, False)]
    assert told.ask(_ACCOUNTED) == told.ask(_COUNTS_NOW) == [("bet", 0)]
    told.choose(finding.finding_id, 1)
    assert told.corrections() == []
    assert told.ask(_ACCOUNTED) == told.ask(_COUNTS_NOW) == [("bet", 386)]


@pytest.mark.parametrize("place", [1, 2])
def test_a_late_contradiction_of_an_older_decision_changes_nothing_before_it_is_chosen(
    told: Told, place: int
) -> None:
    told.publish(("bet", 1, 10))
    told.publish(("bet", 2, 7))
    told.publish(("bet", 3, 4))
    before = [(2, 1, -3, False), (3, 2, -3, False)]
    assert told.corrections() == before
    told.publish(("bet", place, 100))
    assert [one for one in told.corrections() if not one[3]] == before
    assert told.ask(_COUNTS_NOW) == [("bet", 4)]
    [finding] = told.contested()
    assert "A later decision stands, and counts" in finding.kept
    told.choose(finding.finding_id, place)
    assert told.corrections() == before


@pytest.mark.parametrize("seed", range(4))
def test_what_was_published_first_and_all_corrections_make_what_counts_now(
    told: Told, seed: int
) -> None:
    draw = random.Random(seed)
    chosen = 0
    for _ in range(12):
        told.publish(
            *(
                (f"bet {draw.randrange(4)}", draw.randrange(PLACES), draw.randrange(4))
                for _ in range(draw.randrange(1, 6))
            )
        )
        for finding in told.contested():
            if draw.random() < 0.5:
                records = told.ask(
                    "SELECT record_id FROM core.settlement"
                    " WHERE source_key = :source_key AND provider_order = :provider_order",
                    source_key=finding.detail["source_key"],
                    provider_order=finding.detail["provider_order"],
                )
                with suppress(DecisionRefused):
                    told.choose(finding.finding_id, draw.choice(records).record_id)
                    chosen += 1
        counts, accounted = dict(told.ask(_COUNTS_NOW)), dict(told.ask(_ACCOUNTED))
        assert {key: accounted[key] for key in counts} == counts
    assert chosen
