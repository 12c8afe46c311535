"""One warehouse a module, emptied for each test: a copy for each would be most of their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.sandbox.client import Sandbox
from tests.markets.playing import MarketPlay, empty
from tests.warehouses import Warehouse


@pytest.fixture
def warehouse(shared_warehouse: Warehouse) -> Warehouse:
    """A warehouse with no market in it, and nothing of the engine's."""
    empty(shared_warehouse)
    return shared_warehouse


@pytest.fixture
def play(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[MarketPlay]:
    """A queue and an engine that waits for nothing; in the end both must agree."""
    play = MarketPlay(warehouse, sandbox)
    yield play
    assert play.wrong() == []
