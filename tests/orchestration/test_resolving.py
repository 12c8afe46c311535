"""What `resolve_findings` tells: which decisions were carried out, and which wait for somebody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from include.orchestration.resolving import FindingsUnresolved, Form, resolve_each
from include.settings import Settings
from tests.payouts.deciding import hold
from tests.payouts.entering import attempt, enter, payout, stored
from tests.warehouses import Warehouse

RECORDED = "is recorded as decision 1 and has changed nothing yet: so much takes two people"


@pytest.fixture
def finding_id(warehouse: Warehouse) -> int:
    """Two payouts in doubt, which together are more than one person gives up."""
    assert Settings().second_person_above < 5000
    enter(warehouse, payout("a"), payout("b"))
    attempt(warehouse, "a", "b")
    return hold(warehouse, "transactions_in_doubt", "a", "b")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "include.orchestration.resolving")
    return caplog


def resolve(
    warehouse: Warehouse, finding_ids: list[int], decision: str, by: str, **given: Any
) -> dict[str, Any]:
    form = Form(finding_ids, decision, "The partner says so.", **{"payouts": 2, **given})
    return resolve_each(warehouse.engine, form, by, "run-1")


def test_the_first_of_two_people_is_told_that_nothing_has_changed_yet(
    warehouse: Warehouse, finding_id: int, told: pytest.LogCaptureFixture
) -> None:
    assert resolve(warehouse, [finding_id], "lost", "anna") == {
        "decision": "lost",
        "decided_by": "anna",
        "resolved": [],
        "awaiting_second_person": [finding_id],
    }
    assert RECORDED in told.text
    assert "Not done yet: it waits for a second person." in told.text
    assert "Done." not in told.text
    assert stored(warehouse, "a").disposition == "open"


def test_the_second_one_is_told_that_it_is_done(
    warehouse: Warehouse, finding_id: int, told: pytest.LogCaptureFixture
) -> None:
    resolve(warehouse, [finding_id], "lost", "anna")
    result = resolve(warehouse, [finding_id], "lost", "bert")
    assert result == {"decision": "lost", "decided_by": "bert", "resolved": [finding_id]}
    assert "Done. Nothing is left to run for it." in told.text
    assert stored(warehouse, "a").disposition == "lost"


def test_a_refusal_tells_of_those_that_wait_as_well(warehouse: Warehouse, finding_id: int) -> None:
    with pytest.raises(FindingsUnresolved) as raised:
        resolve(warehouse, [finding_id, 999], "lost", "anna")
    assert (
        f"lost was carried out for no finding, waits for a second person for [{finding_id}], and "
        "refused for 1. Finding 999: There is no finding 999."
    ) in str(raised.value)


def test_who_saw_another_number_is_told_both_and_that_nothing_was_changed(
    warehouse: Warehouse, finding_id: int
) -> None:
    with pytest.raises(FindingsUnresolved) as raised:
        resolve(warehouse, [finding_id], "lost", "anna", payouts=1)
    assert (
        f"lost was carried out for no finding and refused for 1. Finding {finding_id}: The "
        f"decision is about 1 payouts, but finding {finding_id} holds 2 now (5000.00000 EUR). "
        "Nothing was changed. Look at them again"
    ) in str(raised.value)


def test_who_saw_other_payouts_is_told_what_it_holds_now(
    warehouse: Warehouse, finding_id: int
) -> None:
    with pytest.raises(FindingsUnresolved, match="is about other payouts than these") as raised:
        resolve(warehouse, [finding_id], "lost", "anna", payouts=None, seen="00000000")
    assert f"finding {finding_id} holds 2 now (5000.00000 EUR). Nothing was" in str(raised.value)


def test_some_of_the_payouts_are_sent_again_with_the_next_run_of_the_resend(
    warehouse: Warehouse, finding_id: int, told: pytest.LogCaptureFixture
) -> None:
    resolve(warehouse, [finding_id], "send_again", "anna", transaction_ids=["a"], payouts=None)
    assert "The finding stays open." in told.text
    assert "clear `send` of its last run with Downstream" in told.text
    assert "catch_up" not in told.text
    assert [stored(warehouse, one).hold_reason for one in "ab"] == [None, "in_doubt"]
    assert "what is dated today goes at 01:00 UTC of the next day" in told.text
    assert "the wallet never took go with the next run of settle_markets" in told.text


def test_what_is_kept_promises_no_run(
    warehouse: Warehouse, finding_id: int, told: pytest.LogCaptureFixture
) -> None:
    resolve(warehouse, [finding_id], "keep", "anna")
    assert "Done. Nothing is left to run for it." in told.text
    assert "'transaction_ids'" not in told.text
