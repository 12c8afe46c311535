"""What the demo takes as proof: every difference between warehouse and ledger is told."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.local.agreement import bet_disagreements
from include.sandbox.client import Sandbox
from tests.playing import SETTINGS, run_tasks, tasks_of
from tests.warehouses import Warehouse


@pytest.fixture
def agreed(sandbox: Sandbox, warehouse: Warehouse) -> Sandbox:
    """The sandbox, whose bets of two days are all in the warehouse."""
    sandbox.configure("odds88", messages=600, ping_seconds=0.05, recovered_by="first_sent")
    sandbox.fault(
        "odds88", "malformed_message", call="settlements", after_messages=300, besides=True
    )
    settings = SETTINGS.model_copy(update={"land_commit_records": 5000})
    run_tasks(tasks_of(SOURCES["odds88"], sandbox, settings, "test"), warehouse.engine)
    assert list(bet_disagreements(warehouse.owner_url, sandbox.ledger("odds88"))) == []
    return sandbox


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("core.daily_settlement SET payout = payout + 0.01", "stakes and payouts"),
        ("core.daily_settlement SET settlements = settlements + 1", "outcomes of bets"),
        ("core.settlement SET is_correction = false", "corrections of bets: 0 here"),
        (
            "core.settlement SET settled_at = settled_at + interval '1 microsecond'",
            "digest of all bets",
        ),
        (
            "core.settlement SET stake = stake + 1 WHERE NOT is_current",
            "digest of all versions",
        ),
    ],
)
def test_whatever_is_told_otherwise_than_by_the_ledger_of_bets_is_a_difference(
    agreed: Sandbox, warehouse: Warehouse, change: str, told: str
) -> None:
    with warehouse.owner_engine.begin() as connection:
        assert connection.execute(text(f"UPDATE {change}")).rowcount > 0
    found = list(bet_disagreements(warehouse.owner_url, agreed.ledger("odds88")))
    assert any(told in difference for difference in found), found


def test_a_rule_for_connections_that_was_broken_is_a_difference(
    agreed: Sandbox, warehouse: Warehouse
) -> None:
    ledger = agreed.ledger("odds88")
    ledger["violations"]["proper_budget"] = 1
    [difference] = bet_disagreements(warehouse.owner_url, ledger)
    assert difference == "rules broken: 1 here, 0 expected"
