"""The checker of payouts must see what it is there for: each corruption is told, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from include.payouts.outcome import DayUnfinished, check_outcome
from include.payouts.partner import Partner
from include.payouts.sending import SendingStopped
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from tests.payouts.checking import violations
from tests.payouts.entering import DAY
from tests.payouts.resending import Resend, names
from tests.sandbox.paying import Payer, item, signature_of
from tests.warehouses import Warehouse


@pytest.fixture
def payer(sandbox: Sandbox) -> Iterator[Payer]:
    """A caller of the wallet that is not us."""
    with httpx.Client(trust_env=False, verify=False) as http:
        yield Payer(sandbox, http)


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Resend:
    """A day with something of everything: `p000` to `p004` paid, `lost` lost, `doubt` sent without
    an answer, `held` held, and a report of it.
    """
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_sends_a_window=1)
    resend.enter("doubt", "lost", *names(5, "p"))
    resend.enter("held", is_win=False)
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR", "transactions": ["lost"]}])
    sandbox.fault("wallet", "missing_item")
    resend.send()
    with pytest.raises(DayUnfinished):
        check_outcome(resend.warehouse.engine, DAY)
    return resend


def test_a_day_without_a_mistake_is_clean(resend: Resend) -> None:
    paid = dict.fromkeys(names(5, "p"), "processed")
    held = {"held": "amount_without_win"}
    assert resend.states() == {"doubt": "open", "lost": "lost"} | paid | held
    assert resend.credits() == dict.fromkeys(["doubt", *paid], 1)
    assert resend.wrong(is_left_alone=True) == []
    assert resend.wrong(is_left_alone=True) == []


_LATER = "committed_at + interval '1 hour'"

_SEEN_AT_ONCE = {
    "paid without an answer": (
        "UPDATE wallet.attempt_item SET outcome = 'in_doubt' WHERE transaction_id = 'p000'",
        "payout p000 is processed, but no attempt was answered so",
    ),
    "paid by an attempt that is not there": (
        """UPDATE wallet.transaction SET evidence = '{"attempt_id": 99}'
        WHERE transaction_id = 'p000'""",
        "payout p000 is processed, but no attempt was answered so",
    ),
    "paid, says only the warehouse": (
        """UPDATE wallet.transaction
        SET disposition = 'processed' WHERE transaction_id = 'lost'""",
        "payout lost is processed, but the wallet never credited it",
    ),
    "lost, though credited": (
        "UPDATE wallet.transaction SET disposition = 'lost' WHERE transaction_id = 'p000'",
        "payout p000 is lost, but the wallet credited it",
    ),
    "about to be lost, though credited": (
        """UPDATE wallet.transaction SET disposition = 'open', disposed_at = NULL,
        accounting_date = NULL, hold_reason = 'refusal_pending' WHERE transaction_id = 'p000';
        INSERT INTO wallet.hold (transaction_id, hold_reason) VALUES ('p000', 'refusal_pending')""",
        "payout p000 is refusal_pending, but the wallet credited it",
    ),
    "lost without a refusal": (
        "UPDATE wallet.attempt_item SET outcome = 'unclear' WHERE transaction_id = 'lost'",
        "payout lost is lost, but no attempt was answered so",
    ),
    "lost while another request of it was in doubt": (
        """INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place, outcome)
        SELECT 'lost', attempt_id, 2, 'in_doubt' FROM wallet.attempt_item
        WHERE transaction_id = 'doubt'""",
        "payout lost is lost, but attempt 1 was in doubt",
    ),
    "an answer without its effect": (
        """UPDATE wallet.transaction SET disposition = 'open', disposed_at = NULL,
        accounting_date = NULL WHERE transaction_id = 'p000'""",
        "payout p000 was answered as booked, and is open",
    ),
    "a refusal without its effect": (
        """UPDATE wallet.transaction SET disposition = 'open', disposed_at = NULL,
        accounting_date = NULL WHERE transaction_id = 'lost'""",
        "payout lost is refused, and held for None",
    ),
    "a request that nobody intended": (
        "DELETE FROM wallet.attempt_item WHERE attempt_id = 1;"
        " DELETE FROM wallet.attempt WHERE attempt_id = 1",
        "request 1 has no attempt that was committed before it",
    ),
    "an intent that came later": (
        f"UPDATE wallet.attempt SET committed_at = {_LATER} WHERE attempt_id = 1",
        "request 1 has no attempt that was committed before it",
    ),
    "a request after its deadline": (
        """UPDATE wallet.attempt SET deadline_at = committed_at - interval '2 seconds'
        WHERE attempt_id = 1""",
        "request 1 came after the deadline of attempt 1",
    ),
    "other bytes": (
        "UPDATE wallet.transaction SET item = item || ' ' WHERE transaction_id = 'p000'",
        "request 3 has other bytes for p000 than were frozen",
    ),
    "sent before it was entered": (
        "UPDATE wallet.transaction SET entered_at = now() WHERE transaction_id = 'doubt'",
        "attempt 1 holds doubt, which was entered later",
    ),
    "sent after it was booked": (
        """UPDATE wallet.transaction SET disposed_at = disposed_at - interval '1 minute'
        WHERE transaction_id = 'p000'""",
        "attempt 3 holds p000, which was processed",
    ),
    "sent while it was held": (
        """INSERT INTO wallet.hold (transaction_id, hold_reason, held_at, ended_at)
        VALUES ('p000', 'changed', now() - interval '1 hour', now())""",
        "attempt 3 holds p000, which was held (changed)",
    ),
    "sent before an earlier request was over": (
        """UPDATE wallet.attempt SET deadline_at = now() + interval '1 hour' WHERE attempt_id = 1;
        INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place, outcome)
        VALUES ('doubt', 2, 2, 'ok')""",
        "attempt 2 holds doubt before the deadline of attempt 1",
    ),
    "an attempt with other items": (
        "UPDATE wallet.attempt SET amount = amount + 1 WHERE attempt_id = 3",
        "attempt 3 does not add up",
    ),
    "an attempt answered in part": (
        """UPDATE wallet.attempt SET result = NULL, closed_at = NULL WHERE attempt_id = 3""",
        "attempt 3 is None, and not all its items are",
    ),
    "a sender that had been followed": (
        "UPDATE wallet.attempt SET epoch = 2 WHERE attempt_id = 1",
        "attempt 2 is of epoch 1, behind one of epoch 2",
    ),
    "a hold without its history": (
        "DELETE FROM wallet.hold",
        "payout held is held for amount_without_win, its history says []",
    ),
    "a hold whose question was closed": (
        "UPDATE ops.finding SET state = 'closed', closed_at = now(), closed_by = 'system'",
        "payout held is held without an open finding",
    ),
    "a payout that is gone": (
        "DELETE FROM wallet.transaction WHERE transaction_id = 'held'",
        "1 payouts that were entered are nowhere, such as held",
    ),
    "booked into another day": (
        """UPDATE wallet.transaction SET accounting_date = accounting_date - 1
        WHERE transaction_id = 'p000'""",
        "payout p000 is in no state or in two",
    ),
    "a report that does not add up": (
        "UPDATE wallet.reported_outcome SET held_amount = held_amount + 1",
        "report 1 does not add up",
    ),
    "a key in a column of bytes": (
        f"UPDATE wallet.attempt SET answer = '{WALLET_KEY}' WHERE attempt_id = 1",
        "a secret stands in wallet.attempt",
    ),
    "a secret in a finding": (
        f"""UPDATE ops.finding SET detail = '{{"secret": "{WALLET_SECRET}"}}'""",
        "a secret stands in ops.finding",
    ),
}


@pytest.mark.parametrize(("corruption", "told"), _SEEN_AT_ONCE.values(), ids=_SEEN_AT_ONCE)
def test_what_must_not_be_is_told(resend: Resend, corruption: str, told: str) -> None:
    assert violations(resend.warehouse, resend.sandbox) == []
    resend.as_owner(corruption, past_its_rules=True)
    found = violations(resend.warehouse, resend.sandbox)
    assert any(each.startswith(told) for each in found), found


_SEEN_AGAIN = {
    "other evidence": (
        """UPDATE wallet.transaction SET evidence = evidence || '{"note": 1}'
        WHERE transaction_id = 'p000'""",
        "payout p000 was ('processed', ",
    ),
    "a payout that is gone": (
        "DELETE FROM wallet.transaction WHERE transaction_id = 'held'",
        "payout held has gone",
    ),
    "another answer": (
        "UPDATE wallet.attempt SET answer = answer || ' ' WHERE attempt_id = 3",
        "attempt 3 is not as it was",
    ),
    "another deadline of what is in doubt": (
        "UPDATE wallet.attempt SET deadline_at = deadline_at + interval '1s' WHERE attempt_id = 1",
        "attempt 1 is not as it was",
    ),
    "another balance": (
        "UPDATE wallet.attempt_item SET balance = 0 WHERE transaction_id = 'p000'",
        "what attempt 3 said of p000 is not as it was",
    ),
    "another report": (
        "UPDATE wallet.reported_outcome SET run_id = 'another'",
        "report 1 is not as it was",
    ),
    "a booking in a day that had ended": (
        """UPDATE wallet.transaction SET disposition = 'lost', evidence = '{"attempt_id": 1}',
        disposed_at = now() - interval '2 days',
        accounting_date = ((now() - interval '2 days') AT TIME ZONE 'UTC')::date
        WHERE transaction_id = 'doubt'""",
        "payout doubt was booked into ",
    ),
}


@pytest.mark.parametrize(("corruption", "told"), _SEEN_AGAIN.values(), ids=_SEEN_AGAIN)
def test_what_changes_though_it_is_for_ever_is_told(
    resend: Resend, corruption: str, told: str
) -> None:
    assert resend.wrong() == []
    resend.as_owner(corruption, past_its_rules=True)
    found = resend.wrong()
    assert any(each.startswith(told) for each in found), found


_UNFINISHED = {
    "an open attempt": (
        """UPDATE wallet.attempt SET result = NULL, closed_at = NULL WHERE attempt_id = 1;
        UPDATE wallet.attempt_item SET outcome = NULL WHERE attempt_id = 1""",
        "attempt 1 is still open after a whole run",
    ),
    "a hold without a question": (
        "UPDATE wallet.transaction SET hold_finding_id = NULL WHERE transaction_id = 'held'",
        "payout held is held (amount_without_win) and nobody was asked",
    ),
    "a refusal that was not judged": (
        """UPDATE wallet.transaction SET hold_reason = 'refusal_pending', hold_finding_id = NULL
        WHERE transaction_id = 'held'""",
        "payout held is held (refusal_pending) and nobody was asked",
    ),
}


@pytest.mark.parametrize(("corruption", "told"), _UNFINISHED.values(), ids=_UNFINISHED)
def test_what_a_whole_run_leaves_behind_is_told(resend: Resend, corruption: str, told: str) -> None:
    assert resend.wrong(is_left_alone=True) == []
    resend.as_owner(corruption, past_its_rules=True)
    assert told in resend.wrong(is_left_alone=True)


def _credit_again(resend: Resend, payer: Payer) -> str:
    resend.sandbox.configure("wallet", repeats="credited_again")
    payer.post(_bytes_of(resend, "p000"))
    return "the wallet credited p000 2 times"


def _send_once_more(resend: Resend, payer: Payer) -> str:
    payer.post(_bytes_of(resend, "doubt"))
    return "request 4 has no attempt that was committed before it"


def _pay_somebody(resend: Resend, payer: Payer) -> str:
    payer.pay(item(1))
    return "the wallet knows transaction-1, which is no payout"


def _mix_currencies(resend: Resend, payer: Payer) -> str:
    payer.pay(item(1), item(2, currency="USD"))
    return "request 4 has not one currency"


def _sign_wrongly(resend: Resend, payer: Payer) -> str:
    resend.enter("later")
    with pytest.raises(SendingStopped):
        resend.send(partner=Partner(resend.sandbox.wallet_url, WALLET_KEY, "another secret"))
    return "request 4 is not signed soundly"


def _store_a_signature(resend: Resend, payer: Payer) -> str:
    request = resend.sandbox.wallet_requests(with_texts=True)[-1]
    sent = ('{"transactions":[' + ",".join(request["item_texts"]) + "]}").encode()
    signature = signature_of(sent, request["headers"]["x-timestamp"])
    resend.as_owner(f"UPDATE ops.finding SET summary = 'signed {signature}'")
    return "a secret stands in ops.finding"


@pytest.mark.parametrize(
    "mistake",
    [
        _credit_again,
        _send_once_more,
        _pay_somebody,
        _mix_currencies,
        _sign_wrongly,
        _store_a_signature,
    ],
)
def test_what_went_over_the_wire_and_should_not_have_is_told(
    resend: Resend, payer: Payer, mistake: Callable[[Resend, Payer], str]
) -> None:
    assert violations(resend.warehouse, resend.sandbox) == []
    told = mistake(resend, payer)
    assert told in violations(resend.warehouse, resend.sandbox)


def _bytes_of(resend: Resend, name: str) -> bytes:
    """The body of a request for this payout alone."""
    with resend.warehouse.owner_engine.connect() as connection:
        written = connection.exec_driver_sql(
            "SELECT item FROM wallet.transaction WHERE transaction_id = %s", (name,)
        ).scalar_one()
    return b'{"transactions":[' + bytes(written) + b"]}"
