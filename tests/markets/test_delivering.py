"""Credits on their way to the wallet: in the run that makes them; what is left, by the resend."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from include.markets import crediting as crediting_module
from include.markets.crediting import Credited
from include.markets.publishing import MarketsHeld
from include.markets.stopping import stop
from include.markets.watching import watch_markets
from include.payouts import partner, sending
from include.payouts.credits import CreditsSent, send_credits
from include.payouts.outbox import freeze_new
from include.payouts.outcome import OutboxUnsound
from include.payouts.partner import Partner
from include.payouts.sending import LEASE, BreakerTripped, SendingStopped, Sent, send
from include.providers.http import Answer
from include.providers.prediction import calls
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import DecisionRefused
from include.warehouse.leases import hold_lease
from tests.markets.crediting import SETTINGS as SENDING
from tests.markets.crediting import Crediting, refusal, today
from tests.markets.playing import SETTINGS, MarketPlay, empty
from tests.payouts.entering import attempt, enter, payout, rows
from tests.payouts.resending import partner_at
from tests.warehouses import Warehouse


@pytest.fixture
def crediting(shared_warehouse: Warehouse, sandbox: Sandbox) -> Crediting:
    """Market m, of which nothing was told yet."""
    crediting = Crediting(shared_warehouse, sandbox)
    crediting.market("m")
    return crediting


def complete(crediting: Crediting, *names: str, **changes: Any) -> None:
    """Settlements that pay, and their credits."""
    crediting.publish(*(crediting.row(name, **changes) for name in names))
    crediting.credit()


def fault(crediting: Crediting, kind: str, **parameters: Any) -> None:
    assert crediting.sandbox is not None
    crediting.sandbox.fault("wallet", kind, **parameters)


def outbox(crediting: Crediting) -> list[Any]:
    """What is not a credit, with everything about it."""
    return rows(
        crediting.warehouse,
        "SELECT transaction.*, transaction.xmin, attempt_id FROM wallet.transaction"
        " LEFT JOIN wallet.attempt_item USING (transaction_id)"
        " WHERE origin_source IS DISTINCT FROM 'prediction' ORDER BY transaction_id",
    )


def windows(crediting: Crediting) -> int:
    """How often anybody has begun to send."""
    return len(rows(crediting.warehouse, "SELECT FROM wallet.sending_window"))


def test_credits_are_paid_in_the_run_that_makes_them(crediting: Crediting) -> None:
    names = [f"s{number:02}" for number in range(14)]
    complete(crediting, *names)
    # As few at first as of any payouts: one, then ten.
    assert crediting.deliver() == CreditsSent(requests=3, processed=14)
    assert crediting.deliver() == CreditsSent()
    assert set(crediting.states().values()) == {"paid"}
    assert crediting.paid_by_wallet() == dict.fromkeys(names, 1)
    # Nothing is reported before the day is over, and the resend's window is all its own.
    assert rows(crediting.warehouse, "SELECT FROM wallet.reported_outcome") == []
    still_open = "SELECT FROM wallet.sending_window WHERE closes_at > clock_timestamp()"
    assert rows(crediting.warehouse, still_open) == []
    assert crediting.wrong() == []


def test_a_payout_that_the_operator_enters_today_is_left_untouched(crediting: Crediting) -> None:
    day_before = today() - timedelta(days=1)
    enter(crediting.warehouse, payout("in a dry run", business_date=today(), currency="USD"))
    freeze_new(crediting.warehouse.engine)
    enter(
        crediting.warehouse,
        payout("of today", business_date=today(), currency="USD"),
        payout("of yesterday", business_date=day_before, currency="USD"),
        payout("prediction:of another", business_date=today(), currency="USD"),
        payout("unsignable", business_date=today(), currency="USD", amount=2**53),
    )
    before = outbox(crediting)
    assert [row.transaction_id for row in before if row.item] == ["in a dry run"]
    complete(crediting, "s1")
    assert crediting.deliver() == CreditsSent(requests=1, processed=1)
    assert outbox(crediting) == before


def test_what_the_wallet_refuses_is_owed_in_the_same_run(crediting: Crediting) -> None:
    complete(crediting, "s1", "s2")
    crediting.refuse("s2")
    assert crediting.deliver() == CreditsSent(requests=2, processed=1, held=1)
    assert crediting.states() == {"s1": "paid", "s2": "owed"}
    assert crediting.findings() == ["credits_refused"]


def test_what_is_in_doubt_waits_for_the_resend(crediting: Crediting) -> None:
    complete(crediting, "s1", "s2")
    fault(crediting, "reset_before_answer", executed=True)
    assert crediting.deliver() == CreditsSent(requests=2, processed=1, unclear=1)
    begun = windows(crediting)
    assert crediting.deliver() == CreditsSent(unclear=1)
    assert windows(crediting) == begun
    complete(crediting, "s3")
    assert crediting.deliver() == CreditsSent(requests=1, processed=1, unclear=1)
    # As if the request's time had run out, and the next day had begun.
    crediting.as_owner(
        "SET LOCAL session_replication_role = replica;"
        " UPDATE wallet.attempt SET deadline_at = least(deadline_at, clock_timestamp())"
    )
    assert crediting.send() == Sent(requests=1, processed=1)
    assert crediting.paid_by_wallet() == {"s1": 1, "s2": 1, "s3": 1}
    assert crediting.wrong() == []


def test_a_wallet_that_is_away_is_no_failure_and_the_resend_pays_once(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "_BRIEF_WAIT_SECONDS", 0)
    complete(crediting, "s1", "s2")
    fault(crediting, "status", status=429, times=2)
    with caplog.at_level(logging.INFO):
        assert crediting.deliver() == CreditsSent(requests=1, unsent=2)
        assert crediting.deliver() == CreditsSent(requests=1, unsent=2)
    assert "USD: 2 to be sent, 0 sent and without an end" in caplog.text
    assert "those of a day at 01:00 UTC of the next day" in caplog.text
    assert "clear this task" not in caplog.text
    assert crediting.send() == Sent(requests=2, processed=2)
    assert crediting.paid_by_wallet() == {"s1": 1, "s2": 1}


def test_however_long_the_wallet_has_answered_a_request_is_tried_again(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered_after_long(wire: Any, attempt: Any) -> Any:
        monkeypatch.setattr(sending, "_BRIEF_WAIT_SECONDS", 600)
        return post(wire, attempt)

    post = partner.Wire.post
    monkeypatch.setattr(partner.Wire, "post", answered_after_long)
    monkeypatch.setattr(sending, "_BRIEF_WAIT_SECONDS", -1)
    monkeypatch.setattr(sending, "_FIRST_WAIT_SECONDS", 0.01)
    complete(crediting, "s1", "s2")
    fault(crediting, "status", status=429, after_calls=1)
    assert crediting.deliver() == CreditsSent(requests=3, processed=2)


def test_a_silent_wallet_is_left_alone_for_a_while(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    complete(crediting, *(f"s{number}" for number in range(6)))
    fault(crediting, "reset_before_answer", executed=False, times=3)
    assert crediting.deliver() == CreditsSent(requests=3, unsent=3, unclear=3)
    assert "gave 3 requests one after the other no answer" in caplog.text
    assert "tried again by itself" not in caplog.text
    begun = windows(crediting)
    assert crediting.deliver() == CreditsSent(unsent=3, unclear=3)
    assert windows(crediting) == begun
    assert "No credit is sent now" in caplog.text
    monkeypatch.setattr(sending, "_SILENCE_SECONDS", 0)
    assert crediting.deliver() == CreditsSent(requests=2, processed=3, unclear=3)
    # One answer is enough, as in a run.
    monkeypatch.undo()
    complete(crediting, "s6")
    assert crediting.deliver() == CreditsSent(requests=1, processed=1, unclear=3)


def test_a_run_that_sends_nothing_again_takes_none_of_the_windows_that_a_doubt_has(
    crediting: Crediting,
) -> None:
    limits = {"wallet_windows": 2, "wallet_sends_a_window": 1}
    crediting.settings = crediting.settings.model_copy(update=limits)
    complete(crediting, "s1")
    fault(crediting, "reset_before_answer", executed=False, times=9)
    # While the window of a resend is still open: that is not its own either.
    crediting.send()
    assert crediting.states() == {"s1": "sending"}
    complete(crediting, "s2")
    assert crediting.deliver() == CreditsSent(requests=1, unclear=2)
    told = []
    for _ in range(2):
        crediting.as_owner(
            "SET LOCAL session_replication_role = replica;"
            " UPDATE wallet.attempt SET deadline_at = least(deadline_at, clock_timestamp());"
            " UPDATE wallet.sending_window SET closes_at = clock_timestamp()"
            " WHERE closes_at > clock_timestamp()"
        )
        crediting.send()
        told.append(crediting.states())
    assert told == [{"s1": "in_doubt", "s2": "sending"}, {"s1": "in_doubt", "s2": "in_doubt"}]
    sends = "SELECT FROM wallet.attempt_item WHERE transaction_id = 'prediction:s2'"
    assert len(rows(crediting.warehouse, sends)) == 3


def test_markets_do_not_wait_for_long_until_all_of_many_credits_are_sent(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(crediting, *(f"s{number:02}" for number in range(14)))
    with monkeypatch.context() as patch:
        patch.setattr(sending, "_BRIEF_SECONDS", 0)
        assert crediting.deliver() == CreditsSent(requests=2, processed=11, unsent=3)
    assert crediting.deliver() == CreditsSent(requests=2, processed=3)


def test_while_another_sender_is_at_work_nothing_is_sent_and_the_log_says_so(
    crediting: Crediting, caplog: pytest.LogCaptureFixture
) -> None:
    complete(crediting, "s1")
    patient = crediting.settings
    crediting.settings = patient.model_copy(update={"wallet_lease_seconds": 0.2})
    engine = crediting.warehouse.engine
    with hold_lease(engine, "sender", LEASE, "resend of last night", 60):
        assert crediting.deliver() == CreditsSent(unsent=1)
    assert "wallet/sending is held by resend of last night" in caplog.text
    crediting.settings = patient
    assert crediting.deliver() == CreditsSent(requests=1, processed=1)


def test_runs_and_a_resend_at_once_pay_everybody_once(crediting: Crediting) -> None:
    names = [f"s{number:02}" for number in range(30)]
    complete(crediting, *names)
    day_before = today() - timedelta(days=1)
    others = [f"t{number:02}" for number in range(30)]
    enter(crediting.warehouse, *(payout(each, business_date=day_before) for each in others))
    assert crediting.sandbox is not None
    partner = partner_at(crediting.sandbox)

    def resend() -> Sent:
        return send(crediting.warehouse.engine, partner, crediting.settings, day_before)

    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(work) for work in (crediting.deliver, resend, crediting.deliver)]
        # What went wrong in one is raised here.
        done = [each.result(timeout=60) for each in begun]
    assert sum(each.processed for each in done) == len([*names, *others])
    assert crediting.paid_by_wallet() == dict.fromkeys([*names, *others], 1)


def test_three_credits_refused_alike_stop_nobody(crediting: Crediting) -> None:
    complete(crediting, "s1", "s2", "s3")
    crediting.refuse("s1", "s2", "s3")
    assert crediting.deliver() == CreditsSent(requests=2, held=3)
    assert crediting.findings() == ["credits_refused"]
    day_before = today() - timedelta(days=1)
    enter(crediting.warehouse, payout("t1", business_date=day_before, currency="USD"))
    assert crediting.send() == Sent(requests=1, processed=1)


def test_the_run_that_stops_a_currency_is_red_though_nothing_is_left(crediting: Crediting) -> None:
    names = [f"s{number:02}" for number in range(11)]
    complete(crediting, *names)
    crediting.refuse(*names)
    with pytest.raises(BreakerTripped, match="There is nothing to clear"):
        crediting.deliver()
    assert crediting.findings() == ["refusals_held"]
    assert crediting.deliver() == CreditsSent()


def test_a_breaker_is_told_once_and_other_currencies_go_on(crediting: Crediting) -> None:
    names = [f"s{number:02}" for number in range(14)]
    complete(crediting, *names)
    crediting.refuse(*names)
    assert crediting.sandbox is not None
    crediting.sandbox.configure("wallet", stores_refusals=False)
    with pytest.raises(BreakerTripped, match="USD"):
        crediting.deliver()
    assert crediting.findings() == ["refusals_held"]
    crediting.refuse()
    begun = windows(crediting)
    assert crediting.deliver() == CreditsSent(unsent=3)
    assert windows(crediting) == begun
    complete(crediting, "e1", currency="EUR")
    assert crediting.deliver() == CreditsSent(requests=1, processed=1, unsent=3)
    crediting.decide("refusals_held", "send_again")
    assert crediting.deliver() == CreditsSent(requests=2, processed=3, unclear=11)
    assert crediting.send().processed == 11


@pytest.mark.parametrize(("key", "secret"), [("wrong", WALLET_SECRET), (WALLET_KEY, "wrong")])
def test_a_wrong_key_or_secret_stops_each_run_until_it_is_right_and_loses_nothing(
    crediting: Crediting, key: str, secret: str
) -> None:
    complete(crediting, "s1", "s2")
    assert crediting.sandbox is not None
    wrong = Partner(crediting.sandbox.wallet_url, key, secret)
    engine, settings = crediting.warehouse.engine, crediting.settings
    for _ in range(2):
        with pytest.raises(SendingStopped, match=r"signing_secret.*There is nothing to clear then"):
            send_credits(engine, lambda: wrong, settings, is_mapped=True)
        assert set(crediting.states().values()) == {"sending"}
    assert crediting.deliver() == CreditsSent(requests=2, processed=2)
    assert crediting.paid_by_wallet() == {"s1": 1, "s2": 1}


def test_an_answer_that_nobody_knows_stops_each_run_until_the_resend_has_asked_again(
    crediting: Crediting,
) -> None:
    complete(crediting, "s1")
    assert crediting.sandbox is not None
    unknown = {"code": "RS_WHAT", "transactions": ["prediction:s1"]}
    crediting.sandbox.configure("wallet", codes=[unknown], stores_refusals=False)
    with pytest.raises(SendingStopped, match="processed none in this run"):
        crediting.deliver()
    begun = windows(crediting)
    with pytest.raises(SendingStopped, match="1 in USD with RS_WHAT, such as prediction:s1"):
        crediting.deliver()
    assert windows(crediting) == begun
    # All others go on.
    complete(crediting, "s2")
    with pytest.raises(SendingStopped, match="RS_WHAT"):
        crediting.deliver()
    assert crediting.states() == {"s1": "sending", "s2": "paid"}
    crediting.sandbox.configure("wallet", codes=[])
    assert crediting.send() == Sent(requests=1, processed=1)
    assert crediting.deliver() == CreditsSent()


def test_nothing_is_sent_whose_bytes_say_something_else(crediting: Crediting) -> None:
    complete(crediting, "s1")
    crediting.as_owner(
        "SET LOCAL session_replication_role = replica;"
        " UPDATE wallet.transaction SET item = convert_to('{}', 'UTF8')"
    )
    with pytest.raises(OutboxUnsound, match="prediction:s1"):
        crediting.deliver()
    assert crediting.paid_by_wallet() == {}


def test_without_the_wallet_there_is_nothing_to_do_and_the_log_says_why(
    crediting: Crediting, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown() -> Partner:
        raise AssertionError("nobody said where the wallet is")

    crediting.map(False)
    complete(crediting, "s1")
    with caplog.at_level(logging.INFO):
        engine = crediting.warehouse.engine
        assert send_credits(engine, unknown, crediting.settings, is_mapped=False) == CreditsSent()
    assert "the operator pays what is owed" in caplog.text
    # What was entered before the wallet was switched off is sent all the same.
    crediting.map(True)
    complete(crediting, "s2")
    crediting.map(False)
    assert crediting.deliver() == CreditsSent(requests=1, processed=1)


def test_credits_that_nobody_sends_are_told_once_until_they_are_sent(crediting: Crediting) -> None:
    engine, settings = crediting.warehouse.engine, crediting.settings
    complete(crediting, "s1", "s2")
    assert watch_markets(engine, settings).opened == []
    crediting.as_owner(
        "SET LOCAL session_replication_role = replica; UPDATE wallet.transaction"
        f" SET entered_at = entered_at - interval '{settings.feed_late_seconds + 1} s'"
    )
    assert len(watch_markets(engine, settings).opened) == 1
    assert watch_markets(engine, settings).opened == []
    [found] = rows(crediting.warehouse, "SELECT kind, summary FROM ops.finding")
    assert (found.kind, "2 credits of markets wait" in found.summary) == ("credits_late", True)
    # One that is in doubt is the resend's.
    fault(crediting, "reset_before_answer", executed=True)
    assert crediting.deliver() == CreditsSent(requests=2, processed=1, unclear=1)
    assert len(watch_markets(engine, settings).closed) == 1


# --- of a market that is held -------------------------------------------------------------------


@pytest.fixture
def settled(shared_warehouse: Warehouse, sandbox: Sandbox) -> tuple[MarketPlay, Crediting]:
    """A market of the engine's that is done, and those who credit it; nobody has yet."""
    # What is entered as a payout of the engine's own.
    engines = {name: getattr(SETTINGS, name) for name in SETTINGS.model_fields_set}
    crediting = Crediting(shared_warehouse, sandbox, SENDING.model_copy(update=engines))
    empty(shared_warehouse)
    play = MarketPlay(shared_warehouse, sandbox, crediting.settings)
    play.run()
    assert play.market().state == "done"
    return play, crediting


def list_otherwise(play: MarketPlay, *steps: str, **lies: str) -> None:
    """A day later a payout is told with another amount, and so many steps of a run are done."""
    play.engine_changes(lies=lies or {"row.totalPayout": "1"})
    play.let_time_pass(86_400)
    for step in ("settle", "wait_for_status", "fetch_payouts", *steps):
        with suppress(MarketsHeld):
            play.step(step)


def test_what_the_engine_tells_otherwise_before_it_was_sent_is_not_sent(
    settled: tuple[MarketPlay, Crediting],
) -> None:
    play, crediting = settled
    entered = crediting.credit().entered
    assert entered > 1
    # From the moment on in which the list was landed.
    list_otherwise(play)
    assert play.market().state == "fetched"
    assert set(crediting.states().values()) == {"market_held"}
    assert crediting.deliver() == crediting.deliver() == CreditsSent()
    list_otherwise(play, "check")
    [finding] = play.findings("market_held")
    held = crediting.payouts().values()
    assert {one.hold_finding_id for one in held} == {finding.finding_id}
    assert {one.hold_detail for one in held} == {
        f"Market {play.market_id} is held: decide its finding."
    }
    assert crediting.credit() == Credited()
    assert crediting.send() == Sent()
    # Nobody knows yet what the next list says.
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    assert play.market().state == "fetching"
    assert crediting.credit() == Credited()
    assert crediting.deliver() == CreditsSent()
    play.run()
    assert play.market().state == "done"
    crediting.credit()
    assert crediting.deliver().processed == entered
    assert crediting.paid_by_wallet() == dict.fromkeys(play.owed(), 1)
    assert crediting.wrong() == play.wrong() == []


def test_what_a_released_list_tells_otherwise_before_it_was_sent_is_held_for_that(
    settled: tuple[MarketPlay, Crediting], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch_with_more(*arguments: Any, **filters: Any) -> Answer:
        answer = fetch_settlements(*arguments, **filters)
        listed = json.loads(answer.body)
        for one in listed["data"]:
            if one["id"] == name:
                one["totalPayout"] = "4711"
        return replace(answer, body=json.dumps(listed).encode())

    play, crediting = settled
    crediting.credit()
    name = min(crediting.states())
    fetch_settlements = calls.fetch_settlements
    monkeypatch.setattr(calls, "fetch_settlements", fetch_with_more)
    list_otherwise(play, "check", **{"row.totalPayout": "0"})
    play.decide("market_held", "release_market")
    # Released, and not published.
    assert crediting.credit() == Credited()
    assert set(crediting.states().values()) == {"market_held"}
    play.run()
    assert play.market().state == "done"
    # Which of the two contents counts is asked by itself.
    crediting.credit()
    others = set(crediting.states()) - {name}
    assert crediting.states() == {**dict.fromkeys(others, "sending"), name: "market_held"}
    assert crediting.deliver().processed == len(others)
    [finding] = play.findings("settlement_contested")
    choice = max(one["record_id"] for one in finding.detail["versions"])
    crediting.choose("settlement_contested", choice)
    assert crediting.credit() == Credited(adjusted=1)
    assert crediting.states()[name] == "credit_changed"
    assert crediting.payouts()[name].hold_detail.startswith("Its settlement pays 4711 USD since")
    assert crediting.deliver() == CreditsSent()


def test_what_is_owed_of_a_market_that_is_held_is_paid_by_nobody(
    settled: tuple[MarketPlay, Crediting],
) -> None:
    play, crediting = settled
    crediting.map(False)
    crediting.credit()
    owed = crediting.owed()
    name = min(owed)
    list_otherwise(play)
    assert crediting.owed() == {}
    assert "is held and not owed" in refusal(crediting, name)
    list_otherwise(play, "check")
    [finding] = play.findings("market_held")
    standing = crediting.credits()[name]
    assert (standing.state, standing.hold_reason) == ("held", "market_held")
    assert standing.finding_id == finding.finding_id
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    assert crediting.owed() == {}
    play.run()
    crediting.credit()
    assert crediting.owed() == owed
    assert crediting.acknowledge(*owed) == len(owed)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_market_of_which_credits_are_held_back_cannot_be_withdrawn(
    settled: tuple[MarketPlay, Crediting], is_told: bool
) -> None:
    play, crediting = settled
    if not is_told:
        crediting.map(False)
    crediting.credit()
    list_otherwise(play, "check")
    play.decide("market_held", "settle_again")
    with transaction(play.warehouse.engine, "loader") as connection:
        lock_source(connection, "prediction")
        stop(connection, play.market(), "refused", "is not known any more")
    told = f"{len(play.owed())} credits of an earlier list are held back"
    with pytest.raises(DecisionRefused, match=told):
        play.decide("market_refused", "withdraw")
    play.engine_changes(lies={})
    play.decide("market_refused", "try_again")
    play.run()
    crediting.credit()
    if is_told:
        assert crediting.deliver().processed == len(play.owed())
    else:
        assert crediting.acknowledge(*crediting.owed()) == len(play.owed())


def test_a_list_that_contradicts_has_nobody_credited_by_the_one_before(
    settled: tuple[MarketPlay, Crediting],
) -> None:
    play, crediting = settled
    list_otherwise(play)
    assert play.market().state == "fetched"
    assert crediting.credit() == Credited()
    list_otherwise(play, "check")
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    assert crediting.credit() == Credited()
    play.run()
    assert crediting.credit().entered == len(play.owed())


def test_what_was_sent_before_its_market_is_held_is_not_held(crediting: Crediting) -> None:
    complete(crediting, "sent", "unsent")
    attempt(crediting.warehouse, "prediction:sent")
    crediting.market("m", "held")
    crediting.credit()
    assert crediting.states() == {"sent": "sending", "unsent": "market_held"}


def test_what_a_decision_lets_go_waits_for_its_market(crediting: Crediting) -> None:
    complete(crediting, "changed", "refused")
    crediting.tell("changed", "12.00")
    crediting.refuse("refused")
    assert crediting.sandbox is not None
    crediting.sandbox.configure("wallet", stores_refusals=False)
    crediting.credit()
    crediting.deliver()
    assert crediting.states() == {"changed": "credit_changed", "refused": "owed"}
    crediting.refuse()
    crediting.market("m", "held")
    crediting.decide("transactions_held", "release_hold")
    crediting.decide("credits_refused", "send_again")
    assert crediting.findings() == ["credit_adjusted"]
    assert crediting.send() == Sent()
    assert {one.hold_reason for one in crediting.payouts().values()} == {"market_held"}
    crediting.market("m", "done")
    crediting.as_owner("UPDATE prediction.market SET revision = revision + 1")
    crediting.credit()
    assert crediting.send().processed == 2
    assert crediting.wrong() == []


def test_what_is_open_of_a_market_that_is_held_is_held_by_whoever_credits(
    crediting: Crediting,
) -> None:
    complete(crediting, "s1")
    crediting.market("m", "held")
    crediting.credit()
    assert crediting.states() == {"s1": "market_held"}
    assert crediting.deliver() == CreditsSent()


def test_what_moves_while_it_is_credited_is_let_go_by_the_next_run(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(crediting, "s1")
    crediting.market("m", "held")
    crediting.credit()

    def credited_meanwhile(*arguments: Any) -> Any:
        crediting.as_owner("UPDATE prediction.market SET revision = revision + 1")
        return credit_market(*arguments)

    credit_market = crediting_module._credit_market
    crediting.market("m", "done")
    crediting.as_owner("UPDATE prediction.market SET revision = revision + 1")
    with monkeypatch.context() as patch:
        patch.setattr(crediting_module, "_credit_market", credited_meanwhile)
        crediting.credit()
    assert crediting.states() == {"s1": "market_held"}
    crediting.credit()
    assert crediting.deliver() == CreditsSent(requests=1, processed=1)
