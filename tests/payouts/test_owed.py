"""Payouts that are credits of a market: what the wallet refuses is owed, and never lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError

from include.payouts.answers import Told, close_attempts
from include.payouts.attempts import Sender
from include.payouts.judging import ItemJudgement, ItemOutcome, Judgement, Result
from include.payouts.outbox import report_outbox
from include.payouts.outcome import check_outcome
from include.payouts.sending import LEASE, Sent
from include.sandbox.client import Sandbox
from include.warehouse.decisions import DecisionRefused
from include.warehouse.leases import Lease
from tests.payouts.deciding import decide
from tests.payouts.entering import DAY, attempt, enter, payout, rows, stored
from tests.payouts.resending import Resend, all_are, names
from tests.warehouses import Warehouse


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    """A resend whose checker must find nothing at the end."""
    resend = Resend(warehouse, sandbox)
    yield resend
    assert resend.wrong(is_left_alone=True) == []


def enter_credits(resend: Resend, *ids: str) -> None:
    """Payouts of a market, as crediting enters them."""
    origin = {"origin_source": "prediction", "origin_key": "of a market"}
    enter(resend.warehouse, *(payout(each, **origin) for each in ids), role="crediter")


def refuse(resend: Resend, *ids: str) -> None:
    code = {"code": "RS_ERROR_USER_DISABLED", "transactions": list(ids)}
    resend.sandbox.configure("wallet", codes=[code])


def finding_about(resend: Resend, transaction_id: str) -> int:
    return int(stored(resend.warehouse, transaction_id).hold_finding_id)


def a_refused_credit(resend: Resend) -> int:
    """Beside one that is paid, and a payout that is lost; the finding that asks about it."""
    enter_credits(resend, "a", "b")
    resend.enter("lost")
    refuse(resend, "b", "lost")
    resend.sandbox.configure("wallet", stores_refusals=False)
    assert resend.send() == Sent(requests=2, processed=1, lost=1, held=1)
    return finding_about(resend, "b")


def test_a_refused_credit_is_owed_where_another_payout_is_lost(resend: Resend) -> None:
    finding_id = a_refused_credit(resend)
    assert resend.states() == {"a": "processed", "b": "owed", "lost": "lost"}
    assert resend.findings() == ["credits_refused"]
    [told] = rows(resend.warehouse, "SELECT * FROM ops.finding")
    assert (told.finding_id, told.detail["amounts"]) == (finding_id, {"EUR": "2500.00000"})
    assert stored(resend.warehouse, "b").evidence["code"] == "RS_ERROR_USER_DISABLED"
    outcome = check_outcome(resend.warehouse.engine, DAY)
    assert (outcome.entered, outcome.processed, outcome.lost, outcome.held) == (3, 1, 1, 1)
    assert resend.send().requests == 0
    assert resend.credits() == {"a": 1}


def test_an_owed_credit_is_sent_again_by_decision(resend: Resend) -> None:
    finding_id = a_refused_credit(resend)
    resend.sandbox.configure("wallet", codes=[])
    decide(resend.warehouse.engine, finding_id, "send_again")
    assert resend.send().requests == 1
    assert [ids for ids in resend.requests() if "b" in ids][1:] == [["b"]]
    assert stored(resend.warehouse, "b").disposition == "processed"


def test_an_owed_credit_that_the_operator_has_paid_is_processed_by_his_reference(
    resend: Resend,
) -> None:
    finding_id = a_refused_credit(resend)
    with pytest.raises(DecisionRefused, match="reference"):
        decide(resend.warehouse.engine, finding_id, "paid_otherwise", reference=None)
    assert decide(resend.warehouse.engine, finding_id, "paid_otherwise").is_closed
    paid = stored(resend.warehouse, "b")
    assert (paid.disposition, paid.hold_reason) == ("processed", None)
    assert paid.evidence["paid_otherwise"] == "MAIL-7"
    outcome = check_outcome(resend.warehouse.engine, DAY)
    assert (outcome.processed, outcome.lost, outcome.held) == (2, 1, 0)


def test_credits_that_are_given_up_are_owed_and_all_others_lost(resend: Resend) -> None:
    enter_credits(resend, *names(4, "c"))
    resend.enter(*names(4, "t"))
    refuse(resend, *names(4, "c"), *names(4, "t"))
    resend.send()
    assert resend.findings() == ["refusals_held"]
    resend.wait_until_requests_are_over()
    decide(resend.warehouse.engine, finding_about(resend, "c000"), "lost")
    assert resend.states() == all_are("owed", names(4, "c")) | all_are("lost", names(4, "t"))
    report_outbox(resend.warehouse.engine)
    assert resend.findings() == ["credits_refused"]


def test_a_credit_cannot_be_lost_by_anybody(resend: Resend) -> None:
    enter_credits(resend, "a")
    with pytest.raises(IntegrityError, match="credit_never_lost"):
        resend.as_owner("UPDATE wallet.transaction SET disposition = 'lost', evidence = '{}'")


def test_what_the_wallet_paid_beside_the_operator_is_a_finding(warehouse: Warehouse) -> None:
    resend = Resend(warehouse, sandbox=None)  # type: ignore[arg-type]
    enter_credits(resend, "a")
    attempt_id = attempt(warehouse, "a")
    resend.as_owner(
        "UPDATE wallet.transaction SET disposition = 'processed',"
        """ evidence = '{"paid_otherwise": "transfer 7"}'"""
    )
    judgement = Judgement(Result.ANSWERED, (ItemJudgement("a", ItemOutcome.OK, "RS_OK"),))
    sender = Sender(Lease(LEASE, 1), 1, None)
    told = Told(attempt_id, judgement, None)
    close_attempts(warehouse.engine, sender, [told], is_idempotent=True)
    assert resend.findings() == ["paid_twice"]
    assert stored(warehouse, "a").evidence == {"paid_otherwise": "transfer 7"}
