"""A few kills of what `make chaos ONLY=markets` plays any number of times, and its own errors."""

from __future__ import annotations

import random
from decimal import Decimal
from types import SimpleNamespace

from sqlalchemy import text

from include.sandbox.client import Sandbox
from tests.markets.disturbing import DisturbedMarkets, may_count
from tests.warehouses import Warehouse

KILLS = 2
PAID_BY_HAND_AS_WELL = """
SET LOCAL session_replication_role = replica;
UPDATE prediction.credit
SET state = 'acknowledged', acknowledged_at = now(), acknowledged_by = 'a clerk', reference = '1'
FROM wallet.transaction
WHERE transaction.transaction_id = credit.transaction_id AND disposition = 'processed'
"""


def test_markets_killed_at_random_pay_each_position_once(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    disturbed = DisturbedMarkets(warehouse, sandbox, random.Random(20261121))
    killed = 0
    while killed < KILLS:
        moment = disturbed.moment()
        disturbed.make_trouble()
        killed += disturbed.disturb(moment) is not None
        assert disturbed.wrong() == [], moment
    assert disturbed.wrong_when_left_alone() == []
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text(PAID_BY_HAND_AS_WELL))
    assert any("was paid 2 times" in sentence for sentence in disturbed.wrong())


def test_people_err_only_while_they_will_be_asked_again() -> None:
    truth, lie = (SimpleNamespace(payout=Decimal(payout)) for payout in ("738.05", "739.05"))
    owed = truth.payout
    assert may_count([truth, lie], owed, is_for_good=False) == [truth, lie]
    assert may_count([truth, lie], owed, is_for_good=True) == [truth]
    assert may_count([lie, truth], owed, is_for_good=False) == [truth]
