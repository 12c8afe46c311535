"""One payout that the partner answers as if our key were wrong, while its neighbours are paid.

Such a code stops a run, so that a wrong secret destroys nothing.  Of this payout alone it is the
partner's odd word for something else: what it means, only a setting can say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from include.orchestration.documentation import document_resend_settlements
from include.payouts.outcome import DayUnfinished, check_outcome
from include.payouts.sending import SendingStopped
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.payouts.entering import DAY
from tests.payouts.resending import Resend, all_are, names
from tests.warehouses import Warehouse

_RUNBOOK = document_resend_settlements()
CODE = "RS_ERROR_INVALID_TOKEN"
ODD = "t003"
OTHERS = [name for name in names(16) if name != ODD]


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    """Two nights of it: on the first the run stopped there, on the second only that one is left."""
    resend = Resend(warehouse, sandbox)
    resend.enter(*names(16))
    sandbox.configure("wallet", codes=[{"code": CODE, "transactions": [ODD]}])
    for _ in range(2):
        with pytest.raises(SendingStopped, match=CODE):
            resend.send()
        resend.let_the_window_close()
    assert resend.states() == all_are("processed", OTHERS) | {ODD: "open"}
    yield resend
    assert resend.wrong(is_left_alone=True) == []


def test_every_run_is_red_and_says_which_payout_it_is_and_what_it_was_answered(
    resend: Resend,
) -> None:
    for _ in range(2):
        with pytest.raises(SendingStopped, match=CODE):
            resend.send()
        resend.let_the_window_close()
        with pytest.raises(DayUnfinished, match=rf"EUR: 1 to be sent.*{ODD} \({CODE}\)"):
            check_outcome(resend.warehouse.engine, DAY)
    assert resend.findings() == []


def test_the_runbooks_setting_has_it_held_for_a_person_once_another_payout_was_paid(
    resend: Resend, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"^SETTLEMENTS_WALLET_ITEM_CODES='(.*)'$", _RUNBOOK, re.MULTILINE)
    monkeypatch.setenv("SETTLEMENTS_WALLET_ITEM_CODES", example)
    resend.change(wallet_item_codes=Settings().wallet_item_codes)
    with pytest.raises(SendingStopped, match="processed none in this run"):
        resend.send()
    resend.enter("of the next day")
    resend.send()
    assert resend.states() == all_are("processed", [*OTHERS, "of the next day"]) | {ODD: "unclear"}
    assert resend.findings() == ["transactions_unclear"]
    assert check_outcome(resend.warehouse.engine, DAY).held == 1
    resend.decide("lost")
    assert resend.states()[ODD] == "lost"
    assert ODD not in resend.credits()


def test_final_has_it_lost_by_the_next_run(resend: Resend) -> None:
    resend.change(wallet_item_codes={CODE: "final"})
    resend.send()
    assert resend.states()[ODD] == "lost"
    assert check_outcome(resend.warehouse.engine, DAY).lost == 1


def test_it_keeps_no_payout_in_doubt_behind_it_from_being_sent_again(resend: Resend) -> None:
    """Neither in its own currency nor in one that comes later."""
    resend.enter("z of its currency")
    resend.enter("of another", currency="USD")
    resend.sandbox.fault("wallet", "silence", times=2)
    with pytest.raises(SendingStopped, match=rf"1 of 1 payouts answered with {CODE}.* as {ODD}"):
        resend.send()
    assert resend.states() == all_are("processed", [*OTHERS, "z of its currency", "of another"]) | {
        ODD: "open"
    }
