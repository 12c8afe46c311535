"""Nights in which everything is refused for a reason that is ours or the partner's.

However often it is tried, in however many windows, nobody loses a payout by it, and nothing waits
for a decision; the first run after it is put right pays every one of them, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from include.payouts.outcome import DayUnfinished, check_outcome
from include.payouts.partner import Partner
from include.payouts.sending import SendingStopped
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from tests.payouts.entering import DAY, rows
from tests.payouts.refusals import lost_without_refusal
from tests.payouts.resending import Resend, all_are, names, partner_at
from tests.warehouses import Warehouse

# More runs, and more windows, than what is in doubt is sent in.
WINDOWS, RUNS_A_WINDOW = 4, 2
EUR, USD = names(17, "e"), names(9, "u")
EVERY = [*EUR, *USD]
WRONG = "not the secret of anybody"


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    resend = Resend(warehouse, sandbox)
    resend.watch.secrets += (WRONG,)
    resend.watch.signs_soundly = False
    resend.enter(*EUR)
    resend.enter(*USD, currency="USD")
    yield resend
    assert resend.wrong(is_left_alone=True) == []
    assert lost_without_refusal(resend) == []


def a_night(resend: Resend, partner: Partner) -> None:
    """Every run of it stops, and leaves all as it was."""
    for _ in range(WINDOWS):
        for _ in range(RUNS_A_WINDOW):
            with pytest.raises(SendingStopped) as stopped:
                resend.send(partner=partner)
            assert WRONG not in str(stopped.value)
            assert resend.states() == all_are("open", EVERY)
            assert resend.findings() == []
        with pytest.raises(DayUnfinished):
            check_outcome(resend.warehouse.engine, DAY)
        assert resend.wrong(is_left_alone=True) == []
        resend.let_the_window_close()
    assert resend.credits() == {}


def the_morning_after(resend: Resend) -> None:
    """One run, and the day is finished."""
    resend.send()
    assert resend.states() == all_are("processed", EVERY)
    assert resend.credits() == dict.fromkeys(EVERY, 1)
    assert resend.findings() == []
    assert check_outcome(resend.warehouse.engine, DAY).processed == len(EVERY)


@pytest.mark.parametrize("refusals", ["envelope", "status"])
@pytest.mark.parametrize(
    "wrongly",
    [
        lambda url: Partner(url, WALLET_KEY, WRONG),
        lambda url: Partner(url, WRONG, WALLET_SECRET),
    ],
    ids=["a wrong secret", "a wrong key"],
)
def test_after_a_night_with_what_is_not_ours_every_payout_goes_out_once(
    resend: Resend, wrongly: Callable[[str], Partner], refusals: str
) -> None:
    resend.sandbox.configure("wallet", refusals=refusals)
    a_night(resend, wrongly(resend.sandbox.wallet_url))
    # One request a run was enough to know.
    assert len(resend.requests()) == WINDOWS * RUNS_A_WINDOW
    the_morning_after(resend)


@pytest.mark.parametrize(
    "code",
    ["RS_ERROR_INVALID_SIGNATURE", "RS_ERROR_TOKEN_EXPIRED", "RS_ERROR_WRONG_SYNTAX"],
)
def test_after_a_night_of_items_refused_for_our_sake_every_payout_goes_out_once(
    resend: Resend, code: str
) -> None:
    resend.sandbox.configure("wallet", codes=[{"code": code}], stores_refusals=False)
    a_night(resend, partner_at(resend.sandbox))
    resend.sandbox.configure("wallet", codes=[])
    the_morning_after(resend)


@pytest.mark.parametrize("code", ["RS_ERROR_MAINTENANCE", "rs_ok", ""])
def test_after_a_night_of_one_unknown_code_every_payout_goes_out_once(
    resend: Resend, code: str
) -> None:
    resend.sandbox.configure("wallet", codes=[{"code": code}], stores_refusals=False)
    a_night(resend, partner_at(resend.sandbox))
    # No more than the three that the canary asks for, in each currency, a run.
    assert len(resend.requests()) <= WINDOWS * RUNS_A_WINDOW * 3 * 2
    resend.sandbox.configure("wallet", codes=[])
    the_morning_after(resend)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_after_a_night_of_requests_found_bad_every_payout_goes_out_once(
    resend: Resend, status: int
) -> None:
    resend.sandbox.fault("wallet", "status", status=status, times=None)
    a_night(resend, partner_at(resend.sandbox))
    resend.sandbox.forget_faults()
    the_morning_after(resend)


def test_a_secret_that_goes_wrong_in_the_middle_of_a_run_stops_it_there(resend: Resend) -> None:
    resend.sandbox.fault("wallet", "status", status=401, after_calls=2, times=None)
    with pytest.raises(SendingStopped):
        resend.send()
    assert resend.states() == all_are("processed", EUR[:11]) | all_are("open", [*EUR[11:], *USD])
    resend.sandbox.forget_faults()
    the_morning_after(resend)
    [[epochs]] = rows(resend.warehouse, "SELECT count(DISTINCT epoch) FROM wallet.attempt")
    assert epochs == 2
