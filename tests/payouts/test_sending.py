"""The sending of payouts: each row of the design's table of events, against a real partner.

After every test the checker compares the warehouse with the partner's own books.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError
from tenacity import stop_after_delay

from include.payouts import answers, attempts, posting, sending, windows
from include.payouts.answers import Closed, Told
from include.payouts.attempts import Batch, Stage
from include.payouts.due import Planned, plan
from include.payouts.judging import judge_answer
from include.payouts.outbox import freeze_new
from include.payouts.outcome import DayUnfinished, Outcome, check_outcome
from include.payouts.partner import Partner, Wire
from include.payouts.posting import Posting
from include.payouts.sending import LEASE, BreakerTripped, PartnerUnavailable, SendingStopped, Sent
from include.providers import wallet
from include.providers.errors import Fatal, Retriable
from include.providers.http import Answer
from include.providers.wallet import ITEM_CODES
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.warehouse import database
from include.warehouse.leases import hold_lease
from tests.local.waiting import wait_for
from tests.payouts.entering import DAY, rows, stored
from tests.payouts.resending import Resend, all_are, names, partner_at
from tests.warehouses import Warehouse


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    """A resend whose checker must find nothing at the end."""
    resend = Resend(warehouse, sandbox)
    yield resend
    assert resend.wrong(is_left_alone=True) == []


@pytest.fixture
def quick_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not executed is tried again without waiting for seconds."""
    monkeypatch.setattr(sending, "_FIRST_WAIT_SECONDS", 0.02)


def sizes(resend: Resend) -> list[int]:
    return [len(request) for request in resend.requests()]


def counts(resend: Resend) -> dict[str, int]:
    """How many payouts are in each state."""
    return dict(Counter(resend.states().values()))


def results(resend: Resend) -> list[str]:
    found = rows(resend.warehouse, "SELECT result FROM wallet.attempt ORDER BY attempt_id")
    return [row.result for row in found]


# --- when nothing goes wrong --------------------------------------------------------------------


def test_a_currency_begins_with_one_payout_then_ten_then_full_requests(resend: Resend) -> None:
    resend.enter(*names(30))
    assert resend.send() == Sent(requests=7, processed=30)
    assert sizes(resend) == [1, 10, 4, 4, 4, 4, 3]
    assert resend.states() == all_are("processed", names(30))
    assert resend.credits() == dict.fromkeys(names(30), 1)
    assert check_outcome(resend.warehouse.engine, DAY) == Outcome(30, 30, 0, 0, 0)


def test_a_request_holds_as_many_as_it_is_told(resend: Resend) -> None:
    resend.enter(*names(25))
    resend.send(batch_items=7)
    assert sizes(resend) == [1, 10, 7, 7]


def test_several_requests_are_under_way_at_once(resend: Resend) -> None:
    resend.change(wallet_requests_at_once=3, wallet_deadline_seconds=10)
    resend.sandbox.fault("wallet", "late_execution", seconds=1, after_calls=2, times=3)
    resend.enter(*names(11 + 12))
    assert resend.send() == Sent(requests=5, processed=23)
    arrivals = [arrived_at(request) for request in resend.sandbox.wallet_requests()]
    assert (arrivals[4] - arrivals[2]).total_seconds() < 1


def test_to_wait_for_a_slow_request_takes_no_time_from_the_next_one(resend: Resend) -> None:
    """Each takes more than half of its time: what waits for it is begun anew, not cut short."""
    resend.change(wallet_deadline_seconds=3, wallet_lease_seconds=30)
    resend.sandbox.fault("wallet", "late_execution", seconds=1.7, after_calls=2, times=2)
    resend.enter(*names(11 + 8))
    assert resend.send() == Sent(requests=4, processed=19)
    assert results(resend) == ["answered", "answered", "answered", "not_executed", "answered"]
    assert resend.credits() == dict.fromkeys(names(19), 1)


def test_a_payout_that_two_requests_want_is_in_the_first_of_them(resend: Resend) -> None:
    resend.enter("a", "b", "c")
    engine = resend.warehouse.engine
    freeze_new(engine)
    with hold_lease(engine, "sender", LEASE, "test", 5) as lease:
        sender, _ = windows.open_window(engine, lease, "test", 60)
        wanted = [["a", "b"], ["b", "c"], ["a"]]
        batches = [Batch(Stage(lease.epoch, "EUR", 1), ids) for ids in wanted]
        first, second, none = attempts.commit_attempts(engine, sender, batches, 0.1)
    assert first is not None
    assert second is not None
    assert none is None
    assert [list(first.items), list(second.items)] == [["a", "b"], ["c"]]
    stored_items = "SELECT attempt_id, transaction_id FROM wallet.attempt_item ORDER BY 2"
    assert [tuple(row) for row in rows(resend.warehouse, stored_items)] == [
        (first.attempt_id, "a"),
        (first.attempt_id, "b"),
        (second.attempt_id, "c"),
    ]
    resend.wait_until_requests_are_over()
    resend.send()


def test_an_answer_that_cannot_be_stored_costs_no_other_its_own(resend: Resend) -> None:
    """The answers of others come while the first of them waits to be stored."""
    resend.change(wallet_requests_at_once=3, wallet_deadline_seconds=4, wallet_lease_seconds=30)
    resend.sandbox.fault("wallet", "late_execution", seconds=0.3, after_calls=2, times=9)
    resend.enter(*names(11 + 9 * 4))
    unstorable = payouts_of_request(7)
    resend.as_owner(
        "ALTER TABLE wallet.attempt_item ADD CONSTRAINT unstorable"
        f" CHECK (outcome IS NULL OR transaction_id <> '{unstorable[0]}')"
    )
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(resend.send)
        wait_for("the third request", lambda: len(sizes(resend)) >= 3, 20)
        with resend.warehouse.owner_engine.begin() as connection:
            connection.execute(text("SELECT FROM wallet.attempt WHERE attempt_id = 3 FOR UPDATE"))
            wait_for("more requests than threads", lambda: len(sizes(resend)) >= 9, 20)
        with pytest.raises(IntegrityError, match="unstorable"):
            sent.result()
    resend.as_owner("ALTER TABLE wallet.attempt_item DROP CONSTRAINT unstorable")
    open_payouts = {name for name, state in resend.states().items() if state == "open"}
    sent_payouts = {name for request in resend.requests() for name in request}
    assert open_payouts & sent_payouts == set(unstorable)
    resend.wait_until_requests_are_over()
    resend.send()
    assert resend.credits() == dict.fromkeys(resend.states(), 1)


@pytest.fixture
def locked_answer(resend: Resend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """The session of somebody who locks `t012` while the wallet answers it, and its neighbours of
    other requests are being answered; locks are waited for no longer than a moment.
    """

    def look_up_by_key(connection: Connection) -> None:
        database.look_up_by_key(connection)
        connection.execute(text("SET LOCAL lock_timeout = '200ms'"))

    def post(client: Any, body: bytes, *given: Any, **named: Any) -> Answer:
        if b'"t012"' in body and len(sizes(resend)) < 4:
            session.execute(
                text("SELECT FROM wallet.transaction WHERE transaction_id = 't012' FOR UPDATE")
            )
        return post_settlement(client, body, *given, **named)

    post_settlement = wallet.post_settlement
    for module in (attempts, answers):
        monkeypatch.setattr(module, "look_up_by_key", look_up_by_key)
    monkeypatch.setattr(wallet, "post_settlement", post)
    resend.change(wallet_requests_at_once=2, wallet_deadline_seconds=4, wallet_lease_seconds=30)
    resend.enter(*names(11 + 8))
    with resend.warehouse.owner_engine.connect() as session:
        yield session


def test_a_payout_that_somebody_has_locked_costs_no_other_request_its_answer(
    resend: Resend, locked_answer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_STORING", "_STORING_LOCKED"):
        quick = getattr(posting, name).copy(stop=stop_after_delay(1))
        monkeypatch.setattr(posting, name, quick)
    with pytest.raises(OperationalError, match="lock timeout"):
        resend.send()
    locked_answer.rollback()
    assert resend.states() == all_are("processed", names(19)) | all_are("open", names(15)[11:])
    resend.wait_until_requests_are_over()
    resend.send()
    assert resend.credits() == dict.fromkeys(names(19), 1)


def test_an_answer_is_stored_once_its_payout_is_locked_no_more(
    resend: Resend, locked_answer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close_each(run: Any, told: list[Told]) -> Closed:
        is_locked.set()
        return close_one_by_one(run, told)

    is_locked = threading.Event()
    close_one_by_one = posting.Posting._close_each
    monkeypatch.setattr(posting.Posting, "_close_each", close_each)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(resend.send)
        assert is_locked.wait(20)
        locked_answer.rollback()
        assert sent.result() == Sent(requests=4, processed=19)


def payouts_of_request(number: int) -> list[str]:
    """The payouts of a request of four, behind the two of the canary."""
    return names(11 + 4 * (number - 2))[-4:]


def test_nothing_is_sent_after_its_deadline_if_the_machine_was_suspended(
    resend: Resend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of `time.monotonic` stands still meanwhile; the warehouse's goes on."""
    engine = resend.warehouse.engine
    resend.enter("a")
    freeze_new(engine)
    with (
        hold_lease(engine, "sender", LEASE, "sleeps", 5) as lease,
        closing(Wire(partner_at(resend.sandbox), resend.settings)) as wire,
    ):
        sender, _ = windows.open_window(engine, lease, "sleeps", 60)
        with closing(Posting(engine, wire, resend.settings, sender)) as requests:
            batch = Batch(Stage(lease.epoch, "EUR", 0), ["a"])
            [attempt] = attempts.commit_attempts(engine, sender, [batch], 1)
            assert attempt is not None
            stands_still = time.monotonic()
            resend.wait_until_requests_are_over()
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic", lambda: stands_still)
                assert requests._ask(attempt).unsent
                with pytest.raises(Retriable, match="Nothing of this call was sent"):
                    wire.post(attempt)
    assert resend.requests() == []
    resend.send()
    assert resend.credits() == {"a": 1}


def test_each_currency_is_sent_by_itself_and_has_its_own_beginning(resend: Resend) -> None:
    resend.enter(*names(13, "e"))
    resend.enter(*names(12, "u"), currency="USD")
    resend.send()
    assert sizes(resend) == [1, 10, 2, 1, 10, 1]
    assert resend.requests()[0] == ["e000"]
    assert resend.requests()[3] == ["u000"]


def test_a_finished_day_sends_nothing_and_changes_nothing(resend: Resend) -> None:
    resend.enter(*names(5))
    resend.send()
    before = [rows(resend.warehouse, f"SELECT * FROM {table}") for table in _WRITTEN]
    assert resend.send() == Sent()
    assert sizes(resend) == [1, 4]
    assert [rows(resend.warehouse, f"SELECT * FROM {table}") for table in _WRITTEN] == before


_WRITTEN = ("wallet.transaction", "wallet.attempt", "wallet.attempt_item", "wallet.hold")


def test_payouts_that_come_late_are_the_next_runs_whatever_their_day(resend: Resend) -> None:
    resend.enter("on the day")
    resend.send()
    resend.enter("late")
    resend.enter("very late", business_date="2026-10-01")
    resend.enter("of the next day", business_date="2026-11-21")
    resend.send()
    assert resend.states() == all_are("processed", ["late", "on the day", "very late"]) | {
        "of the next day": "open"
    }


def test_held_payouts_are_not_sent_and_their_neighbours_are(resend: Resend) -> None:
    resend.enter("a", "b", "c")
    resend.enter("b", amount=1)
    resend.enter("d", amount=2**53)
    resend.send()
    assert resend.states() == {
        **all_are("processed", "ac"),
        **{"b": "changed", "d": "unsignable"},
    }


def test_a_plan_tells_what_would_be_sent_and_sends_nothing(resend: Resend) -> None:
    resend.enter(*names(20, "e"), amount=150_000)
    resend.enter("u", currency="USD", amount=1)
    resend.enter("held", is_win=False)
    planned = plan(resend.warehouse.engine, resend.settings, DAY)
    assert planned == [
        Planned("EUR", 20, Decimal("30.00000"), 5, names(5, "e"), 0),
        Planned("USD", 1, Decimal("0.00001"), 1, ["u"], 0),
    ]
    assert resend.requests() == []
    assert rows(resend.warehouse, "SELECT FROM wallet.attempt, wallet.sending_window") == []
    assert resend.send().requests == 6


# --- what came of a request: the table of events ------------------------------------------------

# The answer says nothing that could be used of any of its items.
_SILENT: dict[str, dict[str, Any]] = {
    "reset_before_answer": {},
    "closed_without_answer": {},
    "reset_in_body": {},
    "truncated_body": {},
    "silence": {},
    "bad_status_line": {},
    "bad_chunk": {},
    "contradicting_length": {},
    "gzip_bomb": {"size": 100_000},
    "recoded_body": {},
    "malformed_json": {},
    "html_page": {},
    "wrong_envelope": {},
    "empty_page": {},
    "invalid_utf8": {},
    "not_a_number": {},
    "raw_null_character": {},
    "changed_envelope": {"changes": {"status": "RS_ERROR"}, "left_out": ["data"]},
    "status": {"status": 500},
}


@pytest.mark.parametrize(("kind", "parameters"), _SILENT.items(), ids=_SILENT)
def test_without_an_answer_they_are_in_doubt_and_sent_again_and_paid_once(
    resend: Resend, kind: str, parameters: dict[str, Any]
) -> None:
    resend.enter(*names(6))
    resend.sandbox.fault("wallet", kind, after_calls=1, executed_items=2, **parameters)
    sent = resend.send()
    assert (sent.processed, sent.in_doubt) == (6, 5)
    assert results(resend) == ["answered", "in_doubt", "answered", "answered"]
    assert resend.credits() == dict.fromkeys(names(6), 1)


@pytest.mark.parametrize("status", [405, 408, 409, 425, 502, 503, 504])
def test_a_status_that_does_not_say_what_was_done_leaves_a_doubt(
    resend: Resend, status: int
) -> None:
    resend.enter(*names(3))
    resend.sandbox.fault("wallet", "status", status=status, after_calls=1, executed_items=1)
    resend.send()
    assert results(resend) == ["answered", "in_doubt", "answered"]
    assert resend.credits() == dict.fromkeys(names(3), 1)


# The answer is odd, and yet says of each item what became of it.
_READABLE: dict[str, dict[str, Any]] = {
    "dripping_body": {"seconds": 0},
    "slow_headers": {"seconds": 0},
    "late_execution": {"seconds": 0.1},
    "duplicated_entry": {},
    "header_flood": {"headers": 1000},
    "miscounted_page": {},
    "other_status": {"status": 201},
    "oversize_body": {"size": 100_000},
    "repeated_field": {"field": "roundId"},
    "reversed_page": {},
    "shuffled_page": {},
    "unknown_field": {},
    "foreign_item": {},
    "changed_entry": {"changes": {"sessionId": "another", "roundId": "another", "playerId": "x"}},
    "missing_field": {"field": "balance"},
    "null_field": {"field": "roundId"},
    "wrong_type": {"field": "sessionId"},
    "huge_number": {"field": "balance"},
    "escaped_null_character": {"field": "sessionId"},
    "lone_surrogate": {"field": "playerId"},
    "deep_nesting": {"field": "refTransactionId", "depth": 100},
}


@pytest.mark.parametrize(("kind", "parameters"), _READABLE.items(), ids=_READABLE)
def test_an_odd_answer_counts_if_it_says_what_became_of_each(
    resend: Resend, kind: str, parameters: dict[str, Any]
) -> None:
    resend.enter(*names(6))
    resend.sandbox.fault("wallet", kind, after_calls=1, **parameters)
    assert resend.send() == Sent(requests=2, processed=6)
    assert resend.credits() == dict.fromkeys(names(6), 1)


_ONE_UNTOLD: dict[str, dict[str, Any]] = {
    "missing_item": {},
    "entry_without_id": {},
    "null_field": {"field": "transactionId"},
    "wrong_type": {"field": "transactionId"},
    "escaped_null_character": {"field": "transactionId"},
    "lone_surrogate": {"field": "transactionId"},
}


@pytest.mark.parametrize(("kind", "parameters"), _ONE_UNTOLD.items(), ids=_ONE_UNTOLD)
def test_one_that_is_missing_in_the_answer_is_in_doubt_and_the_others_count(
    resend: Resend, kind: str, parameters: dict[str, Any]
) -> None:
    resend.enter(*names(6))
    resend.sandbox.fault("wallet", kind, after_calls=1, entry=2, **parameters)
    assert resend.send() == Sent(requests=3, processed=6, in_doubt=1)
    assert resend.requests()[2] == ["t003"]
    assert resend.credits() == dict.fromkeys(names(6), 1)


def test_an_answer_for_a_payout_that_was_not_sent_is_a_finding_and_nothing_else(
    resend: Resend,
) -> None:
    resend.enter("a", "b")
    resend.enter("other", currency="USD", is_win=False)
    resend.sandbox.fault("wallet", "foreign_item", item_id="other")
    resend.send()
    assert resend.states() == {"a": "processed", "b": "processed", "other": "amount_without_win"}
    assert "answer_foreign" in resend.findings()


@pytest.mark.parametrize("balance", [-(10**18), 10**18, 0])
def test_a_balance_is_stored_as_it_was_answered(resend: Resend, balance: int) -> None:
    resend.sandbox.configure("wallet", opening_balance=balance)
    resend.enter("a", amount=5)
    resend.send()
    [item] = rows(resend.warehouse, "SELECT balance, detail FROM wallet.attempt_item")
    assert (item.balance, item.detail) == (balance + 5, None)


def test_ids_of_the_partners_own_in_the_answer_are_noted_only(resend: Resend) -> None:
    resend.sandbox.configure("wallet", echoes_own_ids=True)
    resend.enter(*names(3))
    resend.send()
    assert counts(resend) == {"processed": 3}
    items = rows(resend.warehouse, "SELECT DISTINCT detail FROM wallet.attempt_item")
    assert [item.detail for item in items] == ["answered with another session_id, round_id"]


# --- not executed -------------------------------------------------------------------------------


def arrived_at(request: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(request["received_at"])


def test_too_many_requests_are_tried_again_after_the_wait_that_was_asked_for(
    resend: Resend, quick_to_try_again: None
) -> None:
    resend.change(retry_after_limit_seconds=0.4)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "status", status=429)
    resend.sandbox.fault("wallet", "status", status=429, retry_after="3600", after_calls=1)
    assert resend.send() == Sent(requests=4, processed=2)
    assert results(resend) == ["not_executed", "answered", "not_executed", "answered"]
    arrivals = [arrived_at(request) for request in resend.sandbox.wallet_requests()]
    assert 0.4 <= (arrivals[3] - arrivals[2]).total_seconds() < 60


def test_a_wait_that_was_asked_for_is_kept_by_all_requests(resend: Resend) -> None:
    resend.change(wallet_requests_at_once=4, wallet_deadline_seconds=30, wallet_lease_seconds=30)
    resend.enter(*names(11 + 100))
    resend.sandbox.fault("wallet", "status", status=429, retry_after="2", after_calls=2)
    assert resend.send().processed == 111
    requests = resend.sandbox.wallet_requests()
    [refused_at] = [arrived_at(each) for each in requests if each["outcome"] == "429"]
    seconds = [(arrived_at(each) - refused_at).total_seconds() for each in requests]
    # Those that were under way.
    assert len([each for each in seconds if 0 < each < 1.9]) <= 3
    assert len([each for each in seconds if each >= 1.9]) >= 22


def test_what_is_not_executed_until_the_window_closes_is_the_next_runs(
    resend: Resend, quick_to_try_again: None
) -> None:
    resend.change(wallet_window_seconds=0.3)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "status", status=429, times=None)
    with pytest.raises(PartnerUnavailable, match=r"HTTP 429.*nothing of it is lost"):
        resend.send()
    assert set(results(resend)) == {"not_executed"}
    assert resend.states() == all_are("open", "ab")
    resend.sandbox.reset()
    resend.let_the_window_close()
    assert resend.send().processed == 2


def test_a_partner_that_cannot_be_reached_was_sent_nothing(
    resend: Resend, quick_to_try_again: None
) -> None:
    resend.change(wallet_window_seconds=0.3)
    resend.enter("a", "b")
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PartnerUnavailable, match="could not be reached"):
        resend.send(partner=Partner(nowhere, WALLET_KEY, WALLET_SECRET))
    assert set(results(resend)) == {"not_executed"}
    assert resend.states() == all_are("open", "ab")
    resend.let_the_window_close()
    assert resend.send().processed == 2


# --- our own mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("status", {"status": 401}),
        ("status", {"status": 403}),
        ("status", {"status": 404}),
        ("redirect", {}),
        ("redirect", {"status": 307}),
        ("changed_envelope", {"changes": {"status": "RS_ERROR_TOKEN_EXPIRED", "data": None}}),
    ],
)
def test_a_refusal_of_the_caller_stops_the_run_and_loses_nothing(
    resend: Resend, kind: str, parameters: dict[str, Any]
) -> None:
    resend.enter(*names(14))
    resend.sandbox.fault("wallet", kind, executed=False, after_calls=1, **parameters)
    with pytest.raises(SendingStopped, match="refused our key"):
        resend.send()
    assert counts(resend) == {"processed": 1, "open": 13}
    assert resend.send().processed == 13
    assert resend.findings() == []


@pytest.mark.parametrize("refusals", ["envelope", "status"])
@pytest.mark.parametrize(("key", "secret"), [(WALLET_KEY, "wrong"), ("wrong", WALLET_SECRET)])
def test_a_wrong_secret_does_not_destroy_a_day_of_payouts(
    resend: Resend, refusals: str, key: str, secret: str
) -> None:
    resend.watch.signs_soundly = False
    resend.enter(*names(30))
    resend.sandbox.configure("wallet", refusals=refusals)
    wrong = Partner(resend.sandbox.wallet_url, key, secret)
    with pytest.raises(SendingStopped) as stopped:
        resend.send(partner=wrong)
    assert secret not in str(stopped.value)
    assert (sizes(resend), counts(resend)) == ([1], {"open": 30})
    assert resend.send().processed == 30


def test_an_address_that_cannot_be_used_is_told_before_any_attempt(resend: Resend) -> None:
    resend.enter("a")
    with pytest.raises(Fatal):
        resend.send(partner=Partner("not an address", WALLET_KEY, WALLET_SECRET))
    assert results(resend) == []
    assert resend.send().processed == 1


@pytest.mark.parametrize(
    "code",
    ["RS_ERROR_INVALID_SIGNATURE", "RS_ERROR_INVALID_TOKEN", "RS_ERROR_WRONG_SYNTAX"],
)
def test_a_payout_refused_for_our_sake_stays_open_and_stops_the_run(
    resend: Resend, code: str
) -> None:
    resend.enter(*names(16))
    resend.sandbox.configure(
        "wallet", codes=[{"code": code, "transactions": ["t003"]}], stores_refusals=False
    )
    with pytest.raises(SendingStopped, match=code):
        resend.send()
    assert resend.states()["t003"] == "open"
    assert counts(resend) == {"processed": 10, "open": 6}
    resend.sandbox.configure("wallet", codes=[])
    assert resend.send().processed == 6


# --- refused ------------------------------------------------------------------------------------


def test_a_final_refusal_is_lost_with_its_evidence(resend: Resend) -> None:
    resend.enter(*names(30))
    refuse(resend, "t004", "t017")
    assert resend.send() == Sent(requests=7, processed=28, lost=2)
    assert counts(resend) == {"processed": 28, "lost": 2}
    assert stored(resend.warehouse, "t017").evidence == {
        "attempt_id": 4,
        "code": "RS_ERROR_USER_DISABLED",
    }
    assert resend.findings() == []


def refuse(resend: Resend, *ids: str, code: str = "RS_ERROR_USER_DISABLED", **more: Any) -> None:
    resend.sandbox.configure("wallet", codes=[{"code": code, "transactions": list(ids)}], **more)


def test_refused_after_a_request_without_an_answer_is_contested(resend: Resend) -> None:
    resend.change(wallet_sends_a_window=1)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "silence", after_calls=1)
    resend.send()
    # It was credited; but this partner looks at the account before it looks for the transaction.
    refuse(resend, "b", checks_accounts_first=True)
    resend.let_the_window_close()
    assert resend.send() == Sent(requests=1, held=1)
    assert resend.states() == {"a": "processed", "b": "contested"}
    assert resend.credits() == {"a": 1, "b": 1}
    assert resend.findings() == ["transactions_contested"]
    resend.decide("processed")
    assert resend.states()["b"] == "processed"


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_refused_after_an_answer_that_nobody_knows_is_contested(
    resend: Resend, is_idempotent: bool
) -> None:
    """It was credited, and answered with a code that is in no table."""
    resend.change(wallet_partner_idempotent=is_idempotent)
    resend.sandbox.configure(
        "wallet", repeats="first_answer" if is_idempotent else "credited_again"
    )
    resend.enter("a")
    resend.sandbox.fault("wallet", "unknown_value", value="RS_ERROR_NEW")
    with pytest.raises(SendingStopped):
        resend.send()
    refuse(resend, "a", checks_accounts_first=True, stores_refusals=False)
    resend.send()
    if not is_idempotent:
        resend.decide("send_again")
        resend.send()
    assert (resend.states(), resend.credits()) == ({"a": "contested"}, {"a": 1})
    assert resend.findings() == ["transactions_contested"]


def test_an_unknown_refusal_is_lost_once_a_setting_says_that_its_code_is_final(
    resend: Resend,
) -> None:
    resend.enter("a")
    refuse(resend, "a", code="RS_ERROR_NEW", stores_refusals=False)
    with pytest.raises(SendingStopped):
        resend.send()
    resend.change(wallet_item_codes={"RS_ERROR_NEW": "final"})
    assert resend.send() == Sent(requests=1, lost=1)


def test_a_partner_that_forgets_its_refusals_may_pay_later(resend: Resend) -> None:
    resend.change(wallet_sends_a_window=1)
    resend.enter("a", "b")
    refuse(resend, "b", stores_refusals=False)
    resend.sandbox.fault("wallet", "silence", after_calls=1)
    resend.send()
    resend.sandbox.configure("wallet", codes=[])
    resend.let_the_window_close()
    assert resend.send().processed == 1
    assert resend.credits() == {"a": 1, "b": 1}


def test_refused_as_a_duplicate_is_contested(resend: Resend) -> None:
    resend.enter("a", "b")
    resend.sandbox.configure("wallet", repeats="duplicate")
    resend.sandbox.fault("wallet", "silence", after_calls=1)
    assert resend.send() == Sent(requests=3, processed=1, held=1, in_doubt=1)
    assert resend.states() == {"a": "processed", "b": "contested"}
    assert resend.findings() == ["transactions_contested"]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("contradicting_items", {}), ("repeated_field", {"value": "RS_ERROR"})],
    ids=["two elements", "one element"],
)
def test_two_answers_that_contradict_each_other_are_contested(
    resend: Resend, kind: str, parameters: dict[str, Any]
) -> None:
    resend.enter(*names(5))
    resend.sandbox.fault("wallet", kind, after_calls=1, entry=1, **parameters)
    resend.send()
    assert resend.states() == all_are("processed", names(5)) | {"t002": "contested"}
    assert "RS_ERROR and RS_OK" in stored(resend.warehouse, "t002").hold_detail
    assert resend.findings() == ["transactions_contested"]


@pytest.mark.parametrize("status", ["RS_ERROR", "ERROR", None, 7])
def test_items_inside_a_failure_are_contested(resend: Resend, status: Any) -> None:
    resend.enter(*names(4))
    changes = {"status": status}
    resend.sandbox.fault("wallet", "changed_envelope", after_calls=1, changes=changes)
    resend.send()
    assert counts(resend) == {"processed": 1, "contested": 3}


def test_an_unknown_refusal_is_held_once_another_payout_was_paid(resend: Resend) -> None:
    resend.enter(*names(5))
    refuse(resend, "t000", "t002", code="RS_ERROR_NEW")
    assert resend.send() == Sent(requests=3, processed=3, held=2)
    assert resend.states() == all_are("processed", names(5)) | all_are("unclear", ["t000", "t002"])
    assert resend.findings() == ["transactions_unclear"]
    resend.decide("lost")
    assert counts(resend) == {"processed": 3, "lost": 2}


def test_unknown_refusals_alone_hold_nothing_and_stop_the_run(resend: Resend) -> None:
    resend.enter(*names(5))
    refuse(resend, *names(5), code="RS_ERROR_NEW", stores_refusals=False)
    with pytest.raises(SendingStopped, match=r"RS_ERROR_NEW.*Nothing is held or lost"):
        resend.send()
    assert (sizes(resend), counts(resend)) == ([1, 1, 1], {"open": 5})
    refuse(resend)
    assert resend.send().processed == 5


def test_a_setting_says_what_a_code_means(resend: Resend) -> None:
    resend.change(wallet_item_codes={"RS_ERROR_NEW": "final", "FINE": "ok"})
    resend.enter(*names(6))
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR_NEW", "transactions": ["t003"]}])
    assert resend.send() == Sent(requests=2, processed=5, lost=1)


def test_the_evidence_names_the_code_that_was_answered(resend: Resend) -> None:
    resend.change(wallet_item_codes={"RS_ERROR_DUPLICATE_TRANSACTION": "ok"})
    resend.enter("a")
    resend.sandbox.configure("wallet", repeats="duplicate")
    resend.sandbox.fault("wallet", "silence")
    resend.send()
    assert stored(resend.warehouse, "a").evidence == {
        "attempt_id": 2,
        "code": "RS_ERROR_DUPLICATE_TRANSACTION",
    }


# --- a request refused for one of its payouts ---------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_bad_payout_of_a_refused_request_is_found_and_held(resend: Resend, status: int) -> None:
    resend.change(wallet_batch_items=16)
    resend.enter(*names(1 + 10 + 16))
    resend.sandbox.configure("wallet", refused_transactions={"t020": status})
    sent = resend.send()
    assert (sent.processed, sent.held) == (26, 1)
    assert resend.states()["t020"] == "unclear"
    # The canary's two, and at most two for each halving.
    assert sent.requests <= 2 + 1 + 2 * 4
    assert resend.findings() == ["transactions_unclear"]
    assert "t020" not in resend.credits()


def test_a_bad_payout_at_the_very_beginning_is_found_as_well(resend: Resend) -> None:
    resend.enter(*names(4))
    resend.sandbox.configure("wallet", refused_transactions={"t000": 422})
    resend.send()
    assert resend.states() == all_are("processed", names(4)) | {"t000": "unclear"}


def test_if_every_payout_is_refused_whole_nothing_is_held(resend: Resend) -> None:
    resend.enter(*names(20))
    resend.sandbox.fault("wallet", "status", status=400, times=3)
    with pytest.raises(SendingStopped, match=r"refused 3 payouts.*Nothing is held or lost"):
        resend.send()
    assert (sizes(resend), counts(resend)) == ([1, 1, 1], {"open": 20})
    assert resend.send().processed == 20


def test_a_partner_that_takes_fewer_payouts_gets_fewer(resend: Resend) -> None:
    resend.change(wallet_batch_items=16)
    resend.enter(*names(60))
    resend.sandbox.configure("wallet", items_limit=5)
    sent = resend.send()
    assert (sent.processed, sent.held) == (60, 0)
    assert max(sizes(resend)[-5:]) <= 5


def test_a_refused_signature_is_not_looked_for_in_the_payouts(resend: Resend) -> None:
    resend.watch.signs_soundly = False
    resend.enter(*names(14))
    resend.send()
    resend.enter(*names(14, "u"))
    resend.sandbox.configure("wallet", signing_secret="another", refusals="status")
    with pytest.raises(SendingStopped):
        resend.send()
    assert len(resend.requests()) == 4
    resend.sandbox.configure("wallet", signing_secret=WALLET_SECRET)
    assert resend.send().processed == 14


# --- too many refusals --------------------------------------------------------------------------


def test_the_first_refused_alike_stop_a_currency_before_anything_is_lost(resend: Resend) -> None:
    resend.enter(*names(30))
    resend.enter("u", currency="USD")
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR", "currencies": ["EUR"]}])
    with pytest.raises(
        BreakerTripped, match=r"Nothing more is sent in EUR .*RS_ERROR, finding 1\)"
    ):
        resend.send()
    assert counts(resend) == {"refusal_pending": 11, "open": 19, "processed": 1}
    assert resend.findings() == ["refusals_held"]
    # It stays so until somebody has decided, also for what comes in meanwhile.
    resend.sandbox.configure("wallet", codes=[], stores_refusals=False)
    resend.enter("t999")
    with pytest.raises(BreakerTripped, match=r"too many were refused alike, finding \d+"):
        resend.send()
    assert sizes(resend) == [1, 10, 1]
    resend.decide("lost")
    assert resend.send().processed == 20
    assert counts(resend) == {"lost": 11, "processed": 21}


def test_as_long_as_nothing_is_booked_refusals_alike_count_whatever_their_currency(
    resend: Resend,
) -> None:
    """Two are lost, each for its own sake as it seems; the third says more."""
    for currency in ("AAA", "BBB", "CCC"):
        resend.enter(*names(2, currency), currency=currency)
    resend.enter("e")
    resend.sandbox.configure(
        "wallet", codes=[{"code": "RS_ERROR", "currencies": ["AAA", "BBB", "CCC"]}]
    )
    assert resend.send() == Sent(requests=7, processed=1, lost=2, held=4)
    assert counts(resend) == {"lost": 2, "refusal_pending": 4, "processed": 1}
    assert resend.findings() == ["refusals_held"] * 2


def test_once_a_payout_is_booked_each_currency_is_judged_by_itself(resend: Resend) -> None:
    resend.enter("a", currency="AAA")
    for currency in ("BBB", "CCC"):
        resend.enter(*names(2, currency), currency=currency)
    refused = [*names(2, "BBB"), *names(2, "CCC")]
    refuse(resend, *refused)
    resend.send()
    assert resend.states() == all_are("lost", refused) | {"a": "processed"}


def test_refusals_whatever_their_code_stop_by_their_share_as_long_as_nothing_is_booked(
    resend: Resend,
) -> None:
    resend.enter("a", currency="AAA")
    for number in range(10, 20):
        resend.enter(*names(2, f"C{number}"), currency=f"C{number}")
    resend.sandbox.configure(
        "wallet",
        codes=[
            {"code": "RS_ERROR_LIMIT_REACHED", "currencies": ["AAA"]},
            {"code": "RS_ERROR"},
        ],
    )
    resend.send()
    # The tenth answer makes a sample.
    assert counts(resend) == {"lost": 1 + 4 * 2, "refusal_pending": 6 * 2}


def test_what_was_refused_by_mistake_is_sent_again_when_a_person_says_so(resend: Resend) -> None:
    resend.enter(*names(12))
    resend.sandbox.configure(
        "wallet", codes=[{"code": "RS_ERROR_WRONG_CURRENCY"}], stores_refusals=False
    )
    with pytest.raises(BreakerTripped):
        resend.send()
    resend.sandbox.configure("wallet", codes=[])
    resend.decide("send_again")
    assert resend.send().processed == 12
    assert resend.credits() == dict.fromkeys(names(12), 1)


def test_a_share_of_refusals_stops_its_code_and_currency_and_no_other(resend: Resend) -> None:
    resend.change(wallet_stage_items=20, wallet_batch_items=10)
    resend.enter(*names(11 + 20 + 60))
    resend.enter(*names(12, "u"), currency="USD")
    many, few = names(91)[12:17], names(91)[20:22]
    resend.sandbox.configure(
        "wallet",
        codes=[
            {"code": "RS_ERROR_LIMIT_REACHED", "transactions": many},
            {"code": "RS_ERROR_USER_DISABLED", "transactions": few},
        ],
    )
    with pytest.raises(
        BreakerTripped,
        match=r"sent in EUR \(EUR: too many alike: RS_ERROR_LIMIT_REACHED, finding 1\)",
    ):
        resend.send()
    states = resend.states()
    assert {name for name, state in states.items() if state == "refusal_pending"} == set(many)
    assert {name for name, state in states.items() if state == "lost"} == set(few)
    assert all(states[name] == "processed" for name in names(12, "u"))
    assert states["t090"] == "open"
    assert resend.findings() == ["refusals_held"]
    resend.decide("lost")
    resend.send()
    assert set(resend.states().values()) == {"processed", "lost"}


def test_a_share_that_is_just_not_too_many_is_lost(resend: Resend) -> None:
    resend.change(wallet_stage_items=20, wallet_batch_items=10)
    resend.enter(*names(11 + 20))
    refuse(resend, *names(31)[12:16])
    resend.send()
    assert counts(resend) == {"processed": 27, "lost": 4}


def test_two_codes_that_are_too_many_are_two_questions(resend: Resend) -> None:
    resend.change(wallet_stage_items=20, wallet_batch_items=10)
    resend.enter(*names(11 + 20))
    codes = {"RS_ERROR_LIMIT_REACHED": names(31)[11:16], "RS_ERROR_USER_DISABLED": names(31)[16:21]}
    resend.sandbox.configure(
        "wallet", codes=[{"code": code, "transactions": ids} for code, ids in codes.items()]
    )
    resend.send()
    assert counts(resend) == {"processed": 21, "refusal_pending": 10}
    assert resend.findings() == ["refusals_held", "refusals_held"]
    resend.decide("keep")
    assert counts(resend) == {"processed": 21, "refusal_pending": 10}


def test_too_many_unknown_refusals_stop_their_currency_too(resend: Resend) -> None:
    resend.change(wallet_stage_items=20, wallet_batch_items=10)
    resend.enter(*names(11 + 20 + 60))
    refuse(resend, *names(91)[12:18], code="RS_ERROR_NEW")
    with pytest.raises(BreakerTripped, match=r"sent in EUR .*RS_ERROR_NEW"):
        resend.send()
    assert counts(resend)["unclear"] == 6
    assert resend.states()["t090"] == "open"
    assert resend.findings() == ["refusals_held"]
    # The question stops the currency, as it does for refusals that are known.
    with pytest.raises(BreakerTripped, match="too many were refused alike, finding 1"):
        resend.send()


@pytest.mark.parametrize("currency", ["AAA", "ZZZ"])
def test_unknown_refusals_alike_stop_their_currency_before_or_behind_another_that_is_paid(
    resend: Resend, currency: str
) -> None:
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR_NEW", "currencies": [currency]}])
    resend.enter(*names(3, "x"), currency=currency)
    resend.enter("e")
    assert resend.send().held == 3
    assert resend.findings() == ["refusals_held"]
    resend.enter(*names(9, "y"), currency=currency)
    with pytest.raises(BreakerTripped, match="too many were refused alike, finding 1"):
        resend.send()
    assert counts(resend) == {"unclear": 3, "open": 9, "processed": 1}


def test_a_question_counts_all_that_it_asks_about_whichever_stage_they_came_with(
    resend: Resend,
) -> None:
    resend.change(wallet_stage_items=10, wallet_batch_items=10, wallet_requests_at_once=3)
    resend.enter(*names(11 + 300))
    refuse(resend, *names(311)[11:], code="RS_ERROR")
    with pytest.raises(BreakerTripped):
        resend.send()
    [finding] = rows(resend.warehouse, "SELECT summary, detail FROM ops.finding")
    held = counts(resend)["refusal_pending"]
    assert held > 10
    assert finding.detail["count"] == held
    assert f"refused {held} payouts (" in finding.summary


def test_once_a_code_has_stopped_its_currency_nothing_behind_it_is_lost(resend: Resend) -> None:
    """The next stage was under way by then, and is small."""
    resend.change(wallet_stage_items=20, wallet_batch_items=10, wallet_requests_at_once=4)
    resend.enter(*names(11 + 20 + 5))
    codes = {"RS_ERROR": [*names(36)[11:34]], "RS_ERROR_USER_DISABLED": names(36)[34:]}
    resend.sandbox.configure(
        "wallet", codes=[{"code": code, "transactions": ids} for code, ids in codes.items()]
    )
    resend.send()
    assert counts(resend) == {"processed": 11, "refusal_pending": 23, "lost": 2}
    assert resend.findings() == ["refusals_held"]
    [finding] = rows(resend.warehouse, "SELECT detail FROM ops.finding")
    assert finding.detail["count"] == 23


def test_a_late_refusal_with_a_code_that_is_asked_about_is_not_lost(resend: Resend) -> None:
    """It answers a request of an earlier sender, whose stage held no other payout."""
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR"}])
    resend.enter("late")
    engine = resend.warehouse.engine
    freeze_new(engine)
    with hold_lease(engine, "sender", LEASE, "test", 5) as lease:
        sender, _ = windows.open_window(engine, lease, "test", 60)
        stage = Stage(lease.epoch, "EUR", 1)
        [late] = attempts.commit_attempts(engine, sender, [Batch(stage, ["late"])], 1)
    assert late is not None
    with closing(Wire(partner_at(resend.sandbox), resend.settings)) as wire:
        answer = wire.post(late)
    resend.enter(*names(11))
    with pytest.raises(BreakerTripped):
        resend.send()
    assert resend.states() == all_are("refusal_pending", names(11)) | {"late": "open"}
    told = Told(late.attempt_id, judge_answer(late.items, answer, ITEM_CODES), answer)
    answers.close_attempts(engine, sender, [told], is_idempotent=True)
    resend.send()
    assert resend.states() == all_are("refusal_pending", [*names(11), "late"])
    assert resend.findings() == ["refusals_held"]


def test_a_code_with_braces_asks_as_any_other_and_keeps_no_currency_from_being_sent(
    resend: Resend,
) -> None:
    resend.change(wallet_item_codes={"E{limit} {held}": "final"})
    resend.enter(*names(12))
    resend.enter("u", currency="USD")
    resend.sandbox.configure("wallet", codes=[{"code": "E{limit} {held}", "currencies": ["EUR"]}])
    with pytest.raises(BreakerTripped, match=r"too many alike: E\{limit\} \{held\}, finding 1"):
        resend.send()
    assert counts(resend) == {"refusal_pending": 11, "open": 1, "processed": 1}
    [finding] = rows(resend.warehouse, "SELECT summary FROM ops.finding")
    assert finding.summary.startswith("The wallet refused 11 payouts (27500.00000 EUR) with ")
    assert "E{limit} {held}: too many" in finding.summary


def test_refusals_of_our_key_inside_a_failure_stop_the_run_and_hold_nothing(
    resend: Resend,
) -> None:
    resend.enter(*names(30))
    resend.sandbox.configure(
        "wallet", codes=[{"code": "RS_ERROR_INVALID_SIGNATURE"}], stores_refusals=False
    )
    resend.sandbox.fault("wallet", "changed_envelope", times=None, changes={"status": "RS_ERROR"})
    with pytest.raises(SendingStopped, match="INVALID_SIGNATURE"):
        resend.send()
    assert counts(resend) == {"open": 30}
    resend.sandbox.configure("wallet", codes=[], stores_refusals=False)
    resend.sandbox.forget_faults()
    resend.send()
    assert counts(resend) == {"processed": 30}


def test_answers_that_contest_everything_stop_a_currency_at_its_canary(resend: Resend) -> None:
    resend.enter(*names(30))
    resend.sandbox.configure("wallet", codes=[{"code": "RS_ERROR_DUPLICATE_TRANSACTION"}])
    with pytest.raises(BreakerTripped, match="too many alike: contested"):
        resend.send()
    assert counts(resend) == {"contested": 3, "open": 27}


def test_what_was_in_doubt_and_is_contested_stops_no_other_that_is_in_doubt(
    resend: Resend,
) -> None:
    """A night without answers, of a wallet that booked all and now says only that it has."""
    resend.change(wallet_batch_items=10)
    resend.enter(*names(31))
    resend.sandbox.configure("wallet", repeats="duplicate")
    resend.sandbox.fault("wallet", "silence", after_calls=2, times=3)
    with pytest.raises(PartnerUnavailable):
        resend.send()
    assert counts(resend) == {"processed": 11, "open": 20}
    resend.let_the_window_close()
    assert resend.send().held == 20
    assert counts(resend) == {"processed": 11, "contested": 20}
    assert resend.findings() == ["transactions_contested"]


def test_answers_about_other_payouts_alone_are_no_answers(resend: Resend) -> None:
    resend.enter(*names(60))
    resend.sandbox.fault("wallet", "missing_item", after_calls=2, times=None)
    with pytest.raises(PartnerUnavailable, match="no answer that says anything"):
        resend.send(batch_items=1)
    assert counts(resend) == {"processed": 11, "open": 49}
    # Three, and what was under way by then.
    assert 3 <= len(sizes(resend)[2:]) <= 5


def test_a_payout_at_which_the_partner_breaks_takes_few_others_along(resend: Resend) -> None:
    resend.change(wallet_sends_a_window=3, wallet_windows=1)
    resend.enter(*names(11 + 40))
    resend.sandbox.configure("wallet", refused_transactions={"t020": 500})
    resend.send(batch_items=40)
    assert sizes(resend) == [1, 10, 40, 10, 10, 10, 10, *[1] * 10]
    assert {name for name, state in resend.states().items() if state != "processed"} == {"t020"}
    assert resend.states()["t020"] == "in_doubt"


def test_one_odd_payout_in_the_first_currency_stops_no_other(resend: Resend) -> None:
    resend.enter("odd", currency="AAA")
    resend.enter(*names(15))
    refuse(resend, "odd", code="RS_ERROR_NEW")
    resend.send()
    assert resend.states() == {"odd": "unclear"} | all_are("processed", names(15))


def test_a_payout_that_somebody_has_locked_is_not_waited_for(resend: Resend) -> None:
    resend.enter(*names(5))
    with resend.warehouse.owner_engine.begin() as connection:
        connection.execute(
            text("SELECT FROM wallet.transaction WHERE transaction_id = 't001' FOR UPDATE")
        )
        resend.send()
        assert resend.states() == all_are("processed", names(5)) | {"t001": "open"}
    resend.send()
    assert resend.states() == all_are("processed", names(5))


def test_a_page_that_repeats_our_key_is_stored_without_it(
    resend: Resend, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = f"<pre>x-api-key: {WALLET_KEY}</pre>".encode()

    def debugging(client: Any, body: bytes, signing: Any, *, ends_at: float) -> Answer:
        now = datetime.now(UTC)
        return Answer(
            status=200,
            body=page,
            content_type="text/html",
            url_path="/",
            requested_at=now,
            received_at=now,
        )

    resend.enter("a")
    with monkeypatch.context() as patch:
        patch.setattr(wallet, "post_settlement", debugging)
        with pytest.raises(PartnerUnavailable):
            resend.send()
    told = rows(resend.warehouse, "SELECT answer FROM wallet.attempt")
    assert {bytes(row.answer) for row in told} == {page.replace(WALLET_KEY.encode(), b"...")}


def test_a_code_that_repeats_our_key_is_told_and_stored_without_it(resend: Resend) -> None:
    resend.enter("a")
    refuse(resend, "a", code=f"RS_ERROR no rights: {WALLET_KEY}")
    with pytest.raises(SendingStopped, match=r"RS_ERROR no rights: \.\.\."):
        resend.send()
    [item] = rows(resend.warehouse, "SELECT code FROM wallet.attempt_item")
    assert item.code == "RS_ERROR no rights: ..."


@pytest.mark.parametrize(("status", "error"), [(400, SendingStopped), (409, PartnerUnavailable)])
def test_the_code_of_a_refused_request_is_told_and_stored(
    resend: Resend, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    now = datetime.now(UTC)
    body = b'{"status": "RS_ERROR_MAINTENANCE"}'
    refused = Answer(status, body, "application/json", "/", now, now)
    resend.enter(*names(3))
    with monkeypatch.context() as patch:
        patch.setattr(wallet, "post_settlement", lambda *given, **named: refused)
        with pytest.raises(error, match=f"HTTP {status}, RS_ERROR_MAINTENANCE"):
            resend.send()
    told = rows(resend.warehouse, "SELECT DISTINCT answer_code FROM finance.payout_attempt")
    assert [row.answer_code for row in told] == ["RS_ERROR_MAINTENANCE"]


def test_a_change_after_requests_that_were_refused_whole_still_holds(resend: Resend) -> None:
    resend.enter("a")
    wrong = Partner(resend.sandbox.wallet_url, WALLET_KEY, "wrong")
    with pytest.raises(SendingStopped):
        resend.send(partner=wrong)
    resend.watch.signs_soundly = False
    resend.enter("a", amount=1)
    resend.send()
    assert resend.states() == {"a": "changed"}


# --- in doubt: how often, and then what ---------------------------------------------------------


def test_a_partner_that_is_silent_is_given_up_soon(resend: Resend) -> None:
    resend.enter(*names(30))
    resend.sandbox.fault("wallet", "silence", times=3)
    with pytest.raises(PartnerUnavailable, match="gave 3 requests one after the other no answer"):
        resend.send()
    assert (sizes(resend), counts(resend)) == ([1, 1, 1], {"open": 30})
    with pytest.raises(DayUnfinished, match="27 to be sent, 3 sent and without an answer"):
        check_outcome(resend.warehouse.engine, DAY)
    assert resend.send().processed == 30
    assert resend.credits() == dict.fromkeys(names(30), 1)


def test_a_currency_that_gets_no_answer_keeps_no_other_from_being_sent(resend: Resend) -> None:
    """Not behind it, and not behind one more."""
    silent = [*names(30, "a"), *names(30, "b")]
    resend.enter(*silent[:30], currency="AAA")
    resend.enter(*silent[30:], currency="BBB")
    resend.enter(*names(20))
    resend.sandbox.configure("wallet", refused_transactions=dict.fromkeys(silent, 500))
    with pytest.raises(PartnerUnavailable, match=r"\(AAA: HTTP 500.*; BBB: HTTP 500"):
        resend.send()
    # Two that follow each other are taken for a partner that is down.
    assert resend.requests() == [["a000"], ["a001"], ["a002"], ["b000"]]
    with pytest.raises(PartnerUnavailable, match="sends other currencies first"):
        resend.send()
    assert all(resend.states()[name] == "processed" for name in names(20))


def test_a_currency_that_gets_no_answer_any_more_is_passed_over_where_it_is(
    resend: Resend,
) -> None:
    resend.change(wallet_requests_at_once=2, wallet_deadline_seconds=5, wallet_lease_seconds=30)
    resend.enter(*names(160, "a"), currency="AAA")
    resend.enter(*names(20))
    failing = dict.fromkeys(names(160, "a")[11:], 500)
    resend.sandbox.configure("wallet", refused_transactions=failing)
    with pytest.raises(PartnerUnavailable, match=r"no answer .*\(AAA: HTTP 500"):
        resend.send()
    assert counts(resend) == {"processed": 11 + 20, "open": 149}
    # Three, and what was under way by then.
    assert len([sent for sent in resend.requests() if sent[0] in failing]) <= 3 + 4 * 2


def test_what_is_committed_in_a_currency_that_is_passed_over_is_not_begun(resend: Resend) -> None:
    resend.enter("a")
    engine = resend.warehouse.engine
    freeze_new(engine)
    with (
        hold_lease(engine, "sender", LEASE, "test", 5) as lease,
        closing(Wire(partner_at(resend.sandbox), resend.settings)) as wire,
    ):
        sender, _ = windows.open_window(engine, lease, "test", 60)
        with closing(Posting(engine, wire, resend.settings, sender)) as requests:
            batch = Batch(Stage(lease.epoch, "EUR", 0), ["a"])
            [attempt] = attempts.commit_attempts(engine, sender, [batch], 1)
            assert attempt is not None
            requests.recall()
            assert requests._ask(attempt).unsent
    assert resend.requests() == []
    resend.wait_until_requests_are_over()
    resend.send()


@pytest.mark.parametrize("code", ["403", "RS_ERROR_WRONG_SYNTAX"])
def test_a_currency_that_has_stopped_a_run_comes_last_in_the_next(
    resend: Resend, code: str
) -> None:
    resend.enter(*names(30, "a"), currency="AAA")
    resend.enter(*names(5))
    if code == "403":
        refused = dict.fromkeys(names(30, "a"), 403)
        resend.sandbox.configure("wallet", refused_transactions=refused)
    else:
        resend.sandbox.configure("wallet", codes=[{"code": code, "currencies": ["AAA"]}])
    with pytest.raises(SendingStopped):
        resend.send()
    assert counts(resend) == {"open": 35}
    for _ in range(2):
        with pytest.raises(SendingStopped):
            resend.send()
        assert counts(resend) == {"processed": 5, "open": 30}


def test_another_payout_speaks_for_a_currency_whose_first_got_no_answer(resend: Resend) -> None:
    resend.enter(*names(4))
    resend.sandbox.fault("wallet", "silence")
    resend.send()
    assert resend.requests() == [["t000"], ["t001"], ["t002", "t003"], ["t000"]]


@pytest.mark.parametrize("executed", [True, False])
def test_after_so_many_sends_in_so_many_windows_a_person_decides(
    resend: Resend, executed: bool
) -> None:
    resend.change(wallet_sends_a_window=2, wallet_windows=2)
    resend.enter("paid", "quiet")
    resend.sandbox.fault("wallet", "missing_item", after_calls=1, times=4, executed=executed)
    resend.send()
    assert resend.requests() == [["paid"], ["quiet"], ["quiet"]]
    resend.send()
    assert len(resend.requests()) == 3
    resend.let_the_window_close()
    resend.send()
    assert len(resend.requests()) == 5
    assert resend.states() == {"paid": "processed", "quiet": "in_doubt"}
    assert resend.findings() == ["transactions_in_doubt"]
    resend.let_the_window_close()
    assert resend.send() == Sent()
    resend.decide("send_again")
    assert resend.send().processed == 1
    assert resend.credits() == {"paid": 1, "quiet": 1}


def test_the_wait_before_it_is_sent_again_is_doubled_each_time(resend: Resend) -> None:
    resend.change(wallet_resend_delay_seconds=1)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "missing_item", after_calls=1, times=2)
    resend.send()
    arrivals = [arrived_at(request) for request in resend.sandbox.wallet_requests()]
    waits = [(later - arrival).total_seconds() for arrival, later in pairwise(arrivals)]
    assert waits[1] >= 1
    assert waits[2] >= 2


def test_what_would_have_to_wait_beyond_the_window_is_the_next_ones(resend: Resend) -> None:
    resend.change(wallet_resend_delay_seconds=60, wallet_window_seconds=30)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "silence", after_calls=1)
    assert resend.send() == Sent(requests=2, processed=1, in_doubt=1)
    assert resend.states() == {"a": "processed", "b": "open"}
    resend.let_the_window_close()
    assert resend.send() == Sent(requests=1, processed=1)


@pytest.mark.parametrize("closes_at", ["infinity", "2100-01-01"])
def test_a_window_that_was_opened_for_too_long_closes_as_the_setting_says_since(
    resend: Resend, closes_at: str
) -> None:
    resend.change(wallet_sends_a_window=1)
    resend.enter("a", "b")
    resend.sandbox.fault("wallet", "silence", after_calls=1)
    resend.send()
    resend.as_owner(f"UPDATE wallet.sending_window SET closes_at = '{closes_at}'")
    assert resend.send() == Sent()
    resend.as_owner("UPDATE wallet.sending_window SET opened_at = opened_at - interval '2 hours'")
    assert resend.send() == Sent(requests=1, processed=1)


@pytest.mark.parametrize("executed", [True, False])
def test_to_a_partner_that_pays_twice_nothing_in_doubt_is_sent_again(
    resend: Resend, executed: bool
) -> None:
    resend.change(wallet_partner_idempotent=False)
    resend.sandbox.configure("wallet", repeats="credited_again")
    resend.enter(*names(14))
    resend.sandbox.fault("wallet", "silence", after_calls=1, executed=executed)
    assert resend.send() == Sent(requests=3, processed=4, in_doubt=10)
    assert resend.states() == all_are("in_doubt", names(14)[1:11]) | all_are(
        "processed", ["t000", *names(14)[11:]]
    )
    assert resend.findings() == ["transactions_in_doubt"]
    resend.let_the_window_close()
    assert resend.send() == Sent()
    if executed:
        resend.decide("processed")
    else:
        resend.decide("send_again")
        resend.send()
    assert counts(resend) == {"processed": 14}
    assert set(resend.credits().values()) == {1}


def test_what_was_released_is_not_sent_before_a_clock_that_was_set_back_has_come_there(
    resend: Resend,
) -> None:
    resend.enter("a")
    release = "UPDATE wallet.transaction SET released_at = clock_timestamp()"
    resend.as_owner(f"{release} + interval '1 hour'")
    assert resend.send() == Sent()
    assert resend.states() == {"a": "open"}
    resend.as_owner(release)
    assert resend.send() == Sent(requests=1, processed=1)


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_what_is_answered_in_an_unknown_way_is_sent_again_only_to_a_partner_that_pays_once(
    resend: Resend, is_idempotent: bool
) -> None:
    resend.change(wallet_partner_idempotent=is_idempotent)
    resend.sandbox.configure(
        "wallet", repeats="first_answer" if is_idempotent else "credited_again"
    )
    resend.enter("a")
    resend.sandbox.fault("wallet", "unknown_value", value="RS_ERROR_NEW")
    with pytest.raises(SendingStopped, match="Nothing is held or lost"):
        resend.send()
    assert resend.states() == {"a": "open"}
    sent = Sent(requests=1, processed=1) if is_idempotent else Sent(held=1)
    assert resend.send() == sent
    if not is_idempotent:
        assert resend.states() == {"a": "in_doubt"}
        assert resend.findings() == ["transactions_in_doubt"]
        resend.decide("processed")
    assert resend.states() == {"a": "processed"}
    assert resend.credits() == {"a": 1}
