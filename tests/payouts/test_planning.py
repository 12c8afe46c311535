"""A dry run and the run behind it: what the one tells is what the other then sends."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from include.payouts.due import Planned, plan
from include.payouts.sending import BreakerTripped
from include.sandbox.client import Sandbox
from tests.payouts.entering import DAY, rows
from tests.payouts.resending import Resend, names
from tests.warehouses import Warehouse

_FIRST = 5


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    """Payouts of three days in EUR; others that wait for a finding in GBP, and in doubt in USD."""
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_sends_a_window=1)
    resend.enter(*names(13, "g"), currency="GBP", amount=7)
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR", "currencies": ["GBP"]}])
    with pytest.raises(BreakerTripped):
        resend.send()
    sandbox.configure("wallet", codes=[])
    resend.enter(*names(5, "u"), currency="USD", amount=2**53 - 1)
    sandbox.fault("wallet", "silence", after_calls=1)
    with pytest.raises(BreakerTripped):
        resend.send()
    resend.let_the_window_close()
    resend.enter(*names(11, "e"), business_date=DAY - timedelta(days=1))
    resend.enter(*names(10, "f"), amount=1)
    resend.enter(*names(3, "later"), business_date=DAY + timedelta(days=1))
    resend.enter("held", is_win=False)
    yield resend
    assert resend.wrong(is_left_alone=True) == []


def planned(resend: Resend, batch_items: int | None) -> dict[str, Planned]:
    told = plan(resend.warehouse.engine, resend.settings, DAY, batch_items)
    return {one.currency: one for one in told}


def seen(resend: Resend, after: int) -> list[Planned]:
    """What the wallet has seen since a request, in the words of a plan that knows of no doubt."""
    requests: dict[str, list[list[dict[str, object]]]] = defaultdict(list)
    for request in resend.sandbox.wallet_requests(after, with_texts=True):
        items = [json.loads(text) for text in request["item_texts"]]
        requests[items[0]["currency"]].append(items)
    return [_as_planned(currency, of_it) for currency, of_it in sorted(requests.items())]


def _as_planned(currency: str, requests: list[list[dict[str, object]]]) -> Planned:
    items = [item for items in requests for item in items]
    amount = sum(Decimal(str(item["amount"])) for item in items) / 100_000
    first = sorted(str(item["transactionId"]) for item in items)[:_FIRST]
    return Planned(currency, len(items), Decimal(amount), len(requests), first, in_doubt=0)


@pytest.mark.parametrize("batch_items", [None, 1, 7])
def test_what_is_planned_in_a_currency_is_sent_but_for_one_that_waits_for_a_finding(
    resend: Resend, batch_items: int | None
) -> None:
    before = rows(resend.warehouse, "SELECT count(*) FROM wallet.attempt")[0][0]
    told = planned(resend, batch_items)
    assert list(told) == ["EUR", "GBP", "USD"]
    assert (told["EUR"].payouts, told["EUR"].amount) == (21, Decimal("27500.00010"))
    assert (told["EUR"].in_doubt, told["EUR"].finding_id) == (0, None)
    assert (told["USD"].payouts, told["USD"].in_doubt) == (4, 4)
    [finding] = rows(resend.warehouse, "SELECT * FROM ops.finding WHERE kind = 'refusals_held'")
    assert (told["GBP"].payouts, told["GBP"].finding_id) == (2, finding.finding_id)
    assert len(resend.requests()) == before

    with pytest.raises(BreakerTripped, match="Nothing more is sent in GBP "):
        resend.send(batch_items)
    assert seen(resend, before) == [told["EUR"], replace(told["USD"], in_doubt=0)]
    assert planned(resend, batch_items) == {"GBP": told["GBP"]}


def test_once_the_finding_is_decided_its_currency_is_planned_and_sent_as_any_other(
    resend: Resend,
) -> None:
    resend.decide("lost")
    told = planned(resend, None)
    assert {one.finding_id for one in told.values()} == {None}
    before = len(resend.requests())
    resend.send()
    assert seen(resend, before) == [replace(one, in_doubt=0) for one in told.values()]
    assert planned(resend, None) == {}


def test_payouts_in_doubt_are_planned_beside_new_ones_of_their_currency(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_sends_a_window=1)
    resend.enter(*names(15))
    sandbox.fault("wallet", "silence", after_calls=1, times=1)
    resend.send()
    resend.let_the_window_close()
    resend.enter(*names(14, "new"))
    told = planned(resend, None)
    assert (told["EUR"].payouts, told["EUR"].in_doubt) == (24, 10)
    before = len(resend.requests())
    resend.send()
    assert seen(resend, before) == [replace(told["EUR"], in_doubt=0)]
    assert resend.wrong(is_left_alone=True) == []
