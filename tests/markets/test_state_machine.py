"""Histories that chance has drawn: see `tests.markets.machine`, where what may happen is told."""

from __future__ import annotations

import pytest

from include.sandbox.client import Sandbox
from tests.markets.machine import play
from tests.warehouses import Warehouse

EXAMPLES = 2


# A history that goes wrong is made shorter for up to five minutes before it is told.
@pytest.mark.timeout(600)
def test_whatever_happens_each_market_is_settled_once_and_paid_as_it_is_owed(
    shared_warehouse: Warehouse, sandbox: Sandbox
) -> None:
    play(shared_warehouse, sandbox, examples=EXAMPLES)
