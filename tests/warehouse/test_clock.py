"""Two clocks: how far this machine's may be from the warehouse's, and what is said beyond that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import event

from include.warehouse.clock import MOST_APART, ClocksDiffer, compare_clocks
from tests.warehouses import Warehouse


@contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True):
        yield


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 5.0])
def test_clocks_may_be_some_seconds_apart(warehouse: Warehouse, seconds: float) -> None:
    with clock_ahead(seconds):
        compare_clocks(warehouse.engine)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(30.2, "30 seconds ahead of"), (-30.2, "30 seconds behind"), (1800.2, "1800 seconds ahead")],
)
def test_clocks_that_are_farther_apart_are_told_with_what_to_do(
    warehouse: Warehouse, seconds: float, told: str
) -> None:
    with clock_ahead(seconds), pytest.raises(ClocksDiffer) as caught:
        compare_clocks(warehouse.engine)
    assert caught.value.seconds == pytest.approx(seconds, abs=0.5)
    message = str(caught.value)
    assert told in message
    assert "nothing was asked for, and nothing was landed" in message
    assert "Set the clock of this machine right" in message
    assert "goes on by itself" in message


def test_a_slow_answer_is_no_difference(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second each way, on clocks that may be a tenth apart."""
    monkeypatch.setattr("include.warehouse.clock.MOST_APART", MOST_APART / 100)

    def wait(*_: Any) -> None:
        time.sleep(0.5)

    for moment in ("before_cursor_execute", "after_cursor_execute"):
        event.listen(warehouse.engine, moment, wait)
    compare_clocks(warehouse.engine)
