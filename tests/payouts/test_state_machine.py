"""Histories that chance has drawn: see `tests.payouts.machine`, where what may happen is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.payouts import sending
from include.sandbox.client import Sandbox
from tests.payouts.machine import play
from tests.warehouses import Warehouse

EXAMPLES = 6


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked to wait for a moment may come again at once."""
    monkeypatch.setattr(sending, "_FIRST_WAIT_SECONDS", 0.01)


# A history that goes wrong is made shorter for up to five minutes before it is told.
@pytest.mark.timeout(600)
def test_whatever_happens_each_payout_comes_to_one_end_and_the_wallet_agrees(
    shared_warehouse: Warehouse, sandbox: Sandbox, tmp_path: Path
) -> None:
    play(shared_warehouse, sandbox, tmp_path, examples=EXAMPLES)
