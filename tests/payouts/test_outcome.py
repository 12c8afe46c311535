"""The outcome of a day: what is reported of which days, and what an unfinished one waits for."""

from __future__ import annotations

from datetime import date

import pytest

from include.payouts.outcome import DayUnfinished, check_outcome
from include.payouts.sending import BreakerTripped, SendingStopped
from include.sandbox.client import Sandbox
from tests.payouts.entering import DAY, rows
from tests.payouts.resending import Resend, names
from tests.warehouses import Warehouse

EARLIER = date(2026, 11, 10)
_REPORTED = """
SELECT business_date, first_payouts FROM finance.payout_first_report
WHERE state = 'processed' ORDER BY business_date
"""


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Resend:
    return Resend(warehouse, sandbox)


def test_a_day_that_is_entered_late_and_paid_in_the_same_run_is_reported(resend: Resend) -> None:
    resend.enter("a")
    resend.send()
    check_outcome(resend.warehouse.engine, DAY)
    resend.enter("late", business_date=EARLIER)
    resend.send()
    check_outcome(resend.warehouse.engine, DAY)
    assert [tuple(row) for row in rows(resend.warehouse, _REPORTED)] == [(EARLIER, 1), (DAY, 1)]


def test_an_unfinished_day_names_the_finding_that_a_currency_waits_for(resend: Resend) -> None:
    resend.enter(*names(30))
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR"}])
    with pytest.raises(BreakerTripped):
        resend.send()
    [finding] = rows(resend.warehouse, "SELECT finding_id FROM ops.finding WHERE state = 'open'")
    told = rf"nothing is sent in EUR \(finding {finding.finding_id}\) before that is decided"
    with pytest.raises(DayUnfinished, match=told):
        check_outcome(resend.warehouse.engine, DAY)


def test_what_was_answered_in_an_unknown_way_is_in_doubt_for_finance_and_on_call(
    resend: Resend,
) -> None:
    resend.enter("a")
    resend.sandbox.fault("wallet", "unknown_value", value="RS_ERROR_NEW")
    with pytest.raises(SendingStopped):
        resend.send()
    assert resend.credits() == {"a": 1}
    doubted = rows(resend.warehouse, "SELECT transaction_id FROM finance.payout_in_doubt")
    assert [row.transaction_id for row in doubted] == ["a"]
    with pytest.raises(DayUnfinished, match="EUR: 0 to be sent, 1 sent and without an answer"):
        check_outcome(resend.warehouse.engine, DAY)
