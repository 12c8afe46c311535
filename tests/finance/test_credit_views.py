"""What finance's views say of credits, in each of their states, to the cent."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.sandbox.client import Sandbox
from include.warehouse.database import open_engine
from tests.markets.crediting import Crediting, today
from tests.payouts.entering import rows
from tests.warehouses import Warehouse


@pytest.fixture
def crediting(shared_warehouse: Warehouse, sandbox: Sandbox) -> Crediting:
    """A credit in each state; that of `paid` was corrected afterwards."""
    crediting = Crediting(shared_warehouse, sandbox)
    crediting.market()
    crediting.map(False)
    crediting.publish(crediting.row("owed", "1.25"), crediting.row("by hand", "2"))
    crediting.credit()
    crediting.acknowledge("by hand")
    crediting.map(True)
    crediting.publish(crediting.row("paid", "4"), crediting.row("refused", "8"))
    crediting.credit()
    crediting.refuse("refused")
    crediting.send()
    crediting.publish(
        crediting.row("paid", "4.5"),
        crediting.row("sending", "16"),
        crediting.row("held", "0.000001"),
        crediting.row("lost", "0"),
        crediting.row("failed", None),
    )
    crediting.credit()
    return crediting


@pytest.fixture
def finance(shared_warehouse: Warehouse) -> Iterator[Connection]:
    engine = open_engine(shared_warehouse.finance_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def ask(finance: Connection, query: str) -> list[dict[str, Any]]:
    with finance.begin():
        return [dict(row) for row in finance.execute(text(query)).mappings()]


def test_finance_sees_how_each_credit_stands_and_what_all_come_to(
    crediting: Crediting, finance: Connection
) -> None:
    seen = {row["settlement_id"]: row for row in ask(finance, "SELECT * FROM credit")}
    assert {name: row["state"] for name, row in seen.items()} == {
        "owed": "owed",
        "by hand": "acknowledged",
        "paid": "paid",
        "refused": "owed",
        "sending": "sending",
        "held": "held",
    }
    assert seen["held"]["hold_reason"] == "too_fine"
    assert (seen["paid"]["amount"], seen["paid"]["adjusted_amount"]) == (4, Decimal("0.5"))
    assert (seen["by hand"]["reference"], seen["by hand"]["acknowledged_by"]) == (
        *("transfer 4711", "credits"),
    )
    is_paid = {name for name, row in seen.items() if row["paid_at"] is not None}
    assert is_paid == {"paid", "by hand"}
    assert "player-paid" not in str(seen)

    [payout] = ask(
        finance,
        "SELECT * FROM payout JOIN credit USING (transaction_id, player_reference)"
        " WHERE settlement_id = 'paid'",
    )
    assert payout["business_date"] == today()

    states = ask(finance, "SELECT state, credits, amount FROM credit_state ORDER BY amount")
    assert [tuple(map(str, row.values())) for row in states] == [
        ("held", "1", "0.000001"),
        ("acknowledged", "1", "2"),
        ("paid", "1", "4"),
        ("owed", "2", "9.25"),
        ("sending", "1", "16"),
    ]
    [adjustment] = ask(finance, "SELECT * FROM credit_adjustment")
    assert (adjustment["settlement_id"], adjustment["difference"]) == ("paid", Decimal("0.5"))
    assert adjustment["player_reference"] == seen["paid"]["player_reference"]


def test_what_is_completed_is_what_was_credited_and_adjusted(
    crediting: Crediting, finance: Connection
) -> None:
    query = "SELECT * FROM market_credit"
    [market] = ask(finance, query)
    assert (market["completed_amount"], market["credited_amount"]) == (
        *(Decimal("31.750001"), Decimal("31.250001")),
    )
    assert (market["adjusted_amount"], market["difference"]) == (Decimal("0.5"), 0)
    crediting.tell("sending", "15")
    [market] = ask(finance, query)
    assert market["difference"] == -1
    crediting.credit()
    [market] = ask(finance, query)
    assert market["difference"] == 0
    assert len(rows(crediting.warehouse, "SELECT FROM prediction.adjustment")) == 2
