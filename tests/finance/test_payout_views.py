"""What finance's views say of payouts that went through the outbox and its rules, to the cent.

Payouts enter as an operator's own system enters them; requests, answers and dispositions are
written by the role that sends; everything is read by the login that finance has.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, text
from sqlalchemy.exc import DBAPIError

from include.warehouse import tables
from include.warehouse.database import open_engine, transaction
from tests.payouts.entering import DAY, enter, payout
from tests.warehouses import Warehouse

_OUTCOME = (
    "SELECT entered_payouts AS entered, processed_payouts AS processed, lost_payouts AS lost,"
    " open_payouts AS open, open_in_doubt_payouts AS in_doubt, held_payouts AS held, is_final"
    " FROM finance.payout_outcome ORDER BY business_date, currency"
)


class Payouts:
    """A wallet's outbox, and what finance sees of it."""

    def __init__(self, warehouse: Warehouse, finance: Connection) -> None:
        self._warehouse = warehouse
        self._finance = finance
        with transaction(warehouse.engine, "sender") as connection:
            self._window = connection.scalar(
                insert(tables.sending_window)
                .values(epoch=7, closes_at=datetime(2027, 1, 1, tzinfo=UTC))
                .returning(tables.sending_window.c.window_id)
            )

    def enter(self, transaction_id: str, /, **changes: Any) -> None:
        enter(self._warehouse, payout(transaction_id, **changes))

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, as finance would write it."""
        with self._finance.begin():
            return [dict(row) for row in self._finance.execute(text(query)).mappings()]

    def one(self, query: str) -> dict[str, Any]:
        [row] = self.ask(query)
        return row

    def moment(self) -> datetime:
        """Now, as the warehouse's clock tells it."""
        moment = self.one("SELECT clock_timestamp() AS now")["now"]
        assert isinstance(moment, datetime)
        return moment

    def send(self, *transaction_ids: str, currency: str = "EUR", amount: int = 1) -> int:
        """Commit a request that holds these payouts; its number."""
        with transaction(self._warehouse.engine, "sender") as connection:
            attempt_id = connection.scalar(
                insert(tables.attempt)
                .values(
                    window_id=self._window,
                    epoch=7,
                    run_id="run",
                    currency=currency,
                    stage=0,
                    items=len(transaction_ids),
                    amount=amount,
                    body_sha256=hashlib.sha256(repr(transaction_ids).encode()).digest(),
                    deadline_at=datetime(2027, 1, 1, tzinfo=UTC),
                )
                .returning(tables.attempt.c.attempt_id)
            )
            connection.execute(
                insert(tables.attempt_item),
                [
                    {"transaction_id": each, "attempt_id": attempt_id, "place": place}
                    for place, each in enumerate(transaction_ids, 1)
                ],
            )
        assert isinstance(attempt_id, int)
        return attempt_id

    def close(self, attempt_id: int, outcome: str, **answered: Any) -> None:
        """Store what became of a request, the same for each of its payouts, and dispose of them."""
        result = outcome if outcome in ("in_doubt", "not_executed", "rejected") else "answered"
        with transaction(self._warehouse.engine, "sender") as connection:
            connection.execute(
                tables.attempt.update()
                .where(tables.attempt.c.attempt_id == attempt_id)
                .values(result=result, closed_at=text("now()"), answer=b"clear-player-7")
            )
            connection.execute(
                tables.attempt_item.update()
                .where(tables.attempt_item.c.attempt_id == attempt_id)
                .values(outcome=outcome, **answered)
            )
            for assignments in _FOLLOWS.get(outcome, ()):
                connection.execute(
                    text(
                        f"UPDATE wallet.transaction SET {assignments},"
                        " evidence = jsonb_build_object('attempt_id', CAST(:attempt_id AS bigint))"
                        " WHERE disposition = 'open' AND transaction_id IN ("
                        " SELECT transaction_id FROM wallet.attempt_item"
                        " WHERE attempt_id = :attempt_id)"
                    ),
                    {"attempt_id": attempt_id},
                )

    def change(self, transaction_id: str, *assignments: str) -> None:
        """What sending does to a payout, each after the other in one transaction."""
        with transaction(self._warehouse.engine, "sender") as connection:
            for each in assignments:
                connection.execute(
                    text(f"UPDATE wallet.transaction SET {each} WHERE transaction_id = :id"),
                    {"id": transaction_id},
                )

    def finding(self, kind: str) -> int:
        row = {
            "kind": kind,
            "source": "wallet",
            "subject": str(DAY),
            "severity": "critical",
            "summary": "Payouts wait.",
            "kept": "They are held.",
            "next_step": "Decide.",
        }
        with transaction(self._warehouse.engine, "sender") as connection:
            return _inserted(connection, tables.finding, row)

    def decide(self, finding_id: int, decision: str, **values: Any) -> int:
        row = {
            "finding_id": finding_id,
            "decision": decision,
            "decided_by": "ada",
            "reason": "The player has left.",
            "reference": "MAIL-7",
            "state_before": {},
            "state_after": {},
            **values,
        }
        with transaction(self._warehouse.engine, "resolver") as connection:
            return _inserted(connection, tables.decision, row)

    def report(self, **values: Any) -> None:
        """What a run reports of the day in EUR; amounts in hundred-thousandths, else nothing."""
        states = ("entered", "processed", "lost", "open", "held")
        nothing = {f"{state}_{what}": 0 for state in states for what in ("payouts", "amount")}
        with transaction(self._warehouse.engine, "sender") as connection:
            connection.execute(
                insert(tables.reported_outcome).values(
                    business_date=DAY, currency="EUR", **nothing | values
                )
            )


def _inserted(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    """Insert the row; its number."""
    primary_key = connection.execute(insert(table).values(row)).inserted_primary_key
    assert primary_key is not None
    return int(primary_key[0])


_FOLLOWS = {
    "ok": ("disposition = 'processed', hold_reason = NULL",),
    "refused": ("hold_reason = 'refusal_pending'",),
    "contested": ("hold_reason = 'contested'",),
    "unclear": ("hold_reason = 'unclear'",),
}
_LOSE = "disposition = 'lost', hold_reason = NULL, hold_finding_id = NULL"
_HOLD_IN_DOUBT = "hold_reason = 'in_doubt'"
_RELEASE = "hold_reason = NULL"


@pytest.fixture
def finance(shared_warehouse: Warehouse) -> Iterator[Connection]:
    engine = open_engine(shared_warehouse.finance_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def payouts(shared_warehouse: Warehouse, finance: Connection) -> Payouts:
    with shared_warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "TRUNCATE wallet.transaction, wallet.transaction_claim,"
                " wallet.transaction_conflict, wallet.hold, wallet.attempt, wallet.attempt_item,"
                " wallet.sending_window, wallet.reported_outcome, ops.finding, ops.decision,"
                " core.settlement RESTART IDENTITY"
            )
        )
    return Payouts(shared_warehouse, finance)


# --- outcome ------------------------------------------------------------------------------------


def test_a_day_adds_up_by_state_in_payouts_and_in_exact_amounts(payouts: Payouts) -> None:
    for number in range(6):
        payouts.enter(f"t{number}", amount=10**number)
    payouts.enter("no-win", amount=33, is_win=False)
    payouts.enter("pound", amount=5, currency="GBP")
    payouts.enter("next-day", amount=7, business_date=DAY - timedelta(days=1))
    payouts.close(payouts.send("t0", "t1"), "ok")
    payouts.close(payouts.send("t2"), "refused")
    payouts.change("t2", _LOSE)
    payouts.close(payouts.send("t3"), "in_doubt")
    payouts.close(payouts.send("t4"), "not_executed")
    row = payouts.one(
        f"SELECT * FROM finance.payout_outcome WHERE business_date = '{DAY}' AND currency = 'EUR'"
    )
    disposed_at = payouts.one("SELECT max(disposed_at) AS at FROM finance.payout")["at"]
    assert row == {
        "business_date": DAY,
        "currency": "EUR",
        "entered_payouts": 7,
        "entered_amount": Decimal("1.11144"),
        "processed_payouts": 2,
        "processed_amount": Decimal("0.00011"),
        "lost_payouts": 1,
        "lost_amount": Decimal("0.00100"),
        "open_payouts": 3,
        "open_amount": Decimal("1.11000"),
        "open_in_doubt_payouts": 1,
        "open_in_doubt_amount": Decimal("0.01000"),
        "held_payouts": 1,
        "held_amount": Decimal("0.00033"),
        "last_disposed_at": disposed_at,
        "is_final": False,
    }
    others = "SELECT business_date, currency, open_amount FROM finance.payout_outcome"
    assert {tuple(row.values()) for row in payouts.ask(others)} == {
        (DAY, "EUR", Decimal("1.11000")),
        (DAY, "GBP", Decimal("0.00005")),
        (DAY - timedelta(days=1), "EUR", Decimal("0.00007")),
    }


def test_a_day_is_final_once_nothing_is_open_or_held(payouts: Payouts) -> None:
    payouts.enter("paid")
    payouts.enter("refused")
    payouts.close(payouts.send("paid"), "ok")
    assert not payouts.one(_OUTCOME)["is_final"]
    payouts.close(payouts.send("refused"), "refused")
    assert not payouts.one(_OUTCOME)["is_final"]
    payouts.change("refused", _LOSE)
    assert payouts.one(_OUTCOME)["is_final"]


def test_amounts_are_exact_beyond_every_float(payouts: Payouts) -> None:
    largest = 2**63 - 1
    for number in range(3):
        payouts.enter(f"t{number}", amount=largest)
    payouts.close(payouts.send("t0", amount=3 * largest), "ok", balance=-largest)
    expected = Decimal("92233720368547.75807")
    row = payouts.one("SELECT * FROM finance.payout_outcome")
    assert (row["entered_amount"], row["processed_amount"]) == (3 * expected, expected)
    amounts = [
        "SELECT DISTINCT amount FROM finance.payout",
        "SELECT processed_amount FROM finance.payout_accounting",
        "SELECT amount / 3 FROM finance.payout_attempt",
        "SELECT -balance FROM finance.payout_balance",
    ]
    assert [next(iter(payouts.one(query).values())) for query in amounts] == 4 * [expected]
    kinds = payouts.ask(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'finance' AND column_name ~ 'amount|balance'"
        " AND data_type <> 'numeric'"
    )
    assert [row["column_name"] for row in kinds] == ["payout_amounts"]


@pytest.mark.parametrize(
    ("outcome", "is_in_doubt"),
    [
        (None, True),
        ("in_doubt", True),
        ("contested", True),
        ("unclear", True),
        ("refused", False),
        ("not_executed", False),
        ("rejected", False),
        ("blocked", False),
    ],
)
def test_in_doubt_is_what_may_already_be_paid(
    payouts: Payouts, outcome: str | None, is_in_doubt: bool
) -> None:
    payouts.enter("t")
    attempt_id = payouts.send("t")
    if outcome is not None:
        payouts.close(attempt_id, outcome)
    assert payouts.one("SELECT is_in_doubt FROM finance.payout") == {"is_in_doubt": is_in_doubt}
    assert len(payouts.ask("SELECT FROM finance.payout_in_doubt")) == is_in_doubt
    row = payouts.one(_OUTCOME)
    is_open = outcome not in ("contested", "unclear", "refused")
    assert (row["open"], row["in_doubt"], row["held"]) == (
        is_open,
        is_open and is_in_doubt,
        not is_open,
    )


# --- as of --------------------------------------------------------------------------------------


def _enter_one(payouts: Payouts, chance: random.Random) -> None:
    payouts.enter(
        f"t{chance.getrandbits(64):x}",
        amount=chance.choice([0, 1, 250_000_000]),
        currency=chance.choice(["EUR", "GBP"]),
        is_win=chance.random() < 0.8,
        business_date=DAY - timedelta(days=chance.randrange(2)),
    )


def _in_state(payouts: Payouts, chance: random.Random, condition: str) -> list[str]:
    rows = payouts.ask(f"SELECT transaction_id FROM finance.payout WHERE {condition}")
    ids = sorted(row["transaction_id"] for row in rows)
    return chance.sample(ids, min(len(ids), chance.randint(1, 3)))


def _send_some(payouts: Payouts, chance: random.Random) -> None:
    if ids := _in_state(payouts, chance, "state = 'open'"):
        payouts.send(*ids)


def _answer_one(payouts: Payouts, chance: random.Random) -> None:
    waiting = payouts.ask(
        "SELECT attempt_id FROM finance.payout_attempt"
        " WHERE result IS NULL OR result = 'in_doubt' ORDER BY attempt_id"
    )
    if waiting:
        outcomes = ["ok", "ok", "refused", "in_doubt", "in_doubt", "contested", "not_executed"]
        payouts.close(chance.choice(waiting)["attempt_id"], chance.choice(outcomes))


def _hold_one(payouts: Payouts, chance: random.Random) -> None:
    for transaction_id in _in_state(payouts, chance, "state = 'open' AND is_in_doubt")[:1]:
        payouts.change(transaction_id, _HOLD_IN_DOUBT)


def _release_one(payouts: Payouts, chance: random.Random) -> None:
    for transaction_id in _in_state(payouts, chance, "state = 'held'")[:1]:
        payouts.change(transaction_id, _RELEASE)


def _hold_for_another_reason(payouts: Payouts, chance: random.Random) -> None:
    for transaction_id in _in_state(payouts, chance, "state = 'held'")[:1]:
        payouts.change(transaction_id, _RELEASE, _HOLD_IN_DOUBT, "hold_reason = 'contested'")


def _lose_one(payouts: Payouts, chance: random.Random) -> None:
    for transaction_id in _in_state(payouts, chance, "hold_reason = 'refusal_pending'")[:1]:
        payouts.change(transaction_id, _LOSE)


_EVENTS: tuple[Callable[[Payouts, random.Random], None], ...] = (
    _enter_one,
    _enter_one,
    _send_some,
    _send_some,
    _answer_one,
    _answer_one,
    _hold_one,
    _release_one,
    _hold_for_another_reason,
    _lose_one,
)


@pytest.mark.parametrize("seed", range(3))
def test_every_past_moment_is_told_as_it_was_told_then(payouts: Payouts, seed: int) -> None:
    chance = random.Random(seed)
    told = []
    for _ in range(150):
        chance.choice(_EVENTS)(payouts, chance)
        rows = payouts.ask("SELECT * FROM finance.payout_outcome ORDER BY 1, 2")
        told.append((payouts.moment(), rows))
    for moment, rows in told:
        as_of = payouts.ask(f"SELECT * FROM payout_outcome_as_of('{moment}') ORDER BY 1, 2")
        assert as_of == rows
        for row in as_of:
            for what in ("payouts", "amount"):
                states = ("processed", "lost", "open", "held")
                assert row[f"entered_{what}"] == sum(row[f"{state}_{what}"] for state in states)
    totals = payouts.one(
        "SELECT sum(processed_payouts) AS processed, sum(lost_payouts) AS lost,"
        " sum(open_payouts) AS open, sum(held_payouts) AS held,"
        " sum(open_in_doubt_payouts) AS in_doubt FROM finance.payout_outcome"
    )
    assert all(totals.values()), "A history without one of the states proves less."


def test_what_is_decided_later_does_not_change_the_past(payouts: Payouts) -> None:
    before = payouts.moment()
    payouts.enter("t", amount=100_000)
    attempt_id = payouts.send("t")
    payouts.close(attempt_id, "in_doubt")
    in_doubt = payouts.moment()
    payouts.change("t", _HOLD_IN_DOUBT)
    held = payouts.moment()
    payouts.close(attempt_id, "ok")
    assert payouts.ask(f"SELECT FROM payout_outcome_as_of('{before}')") == []
    columns = (
        "open_payouts, open_in_doubt_amount, held_amount, processed_amount, last_disposed_at"
        " IS NOT NULL AS is_disposed"
    )
    one, zero = Decimal("1.00000"), Decimal("0.00000")
    for moment, expected in (
        (in_doubt, (1, one, zero, zero, False)),
        (held, (0, zero, one, zero, False)),
        (payouts.moment(), (0, zero, zero, one, True)),
    ):
        row = payouts.one(f"SELECT {columns} FROM payout_outcome_as_of('{moment}')")
        assert tuple(row.values()) == expected


def test_a_past_moment_is_read_only_and_for_finance_alone(
    payouts: Payouts, finance: Connection, shared_warehouse: Warehouse
) -> None:
    query = text("SELECT * FROM finance.payout_outcome_as_of(now())")
    payouts.enter("t")
    with finance.begin():
        assert finance.scalar(text("SHOW transaction_read_only")) == "on"
        assert finance.scalar(text("SHOW statement_timeout")) == "1min"
        assert len(finance.execute(query).all()) == 1
    with (
        transaction(shared_warehouse.engine, "sender") as connection,
        pytest.raises(DBAPIError, match="permission denied"),
    ):
        connection.execute(query)


# --- registers ----------------------------------------------------------------------------------


def test_a_refused_payout_is_lost_with_the_request_that_was_refused(payouts: Payouts) -> None:
    payouts.enter("t", amount=123_456)
    payouts.enter("paid")
    payouts.close(payouts.send("paid"), "ok", code="RS_OK")
    payouts.close(payouts.send("t"), "not_executed")
    attempt_id = payouts.send("t")
    payouts.close(attempt_id, "refused", code="RS_ERROR")
    payouts.change("t", _LOSE)
    row = payouts.one("SELECT * FROM finance.payout_lost")
    attempt = payouts.one(f"SELECT * FROM finance.payout_attempt WHERE attempt_id = {attempt_id}")
    payout_now = payouts.one("SELECT * FROM finance.payout WHERE transaction_id = 't'")
    expected = {
        "transaction_id": "t",
        "business_date": DAY,
        "amount": Decimal("1.23456"),
        "lost_at": payout_now["disposed_at"],
        "accounting_date": payout_now["disposed_at"].date(),
        "lost_by": "refusal",
        "refusal_code": "RS_ERROR",
        "attempt_id": attempt_id,
        "answered_at": attempt["closed_at"],
        "request_sha256": hashlib.sha256(repr(("t",)).encode()).hexdigest(),
        "decision_id": None,
        "decided_by": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert attempt["request_sha256"] == row["request_sha256"]


@pytest.mark.parametrize("code", ["RS_ERROR_LIMIT", None])
def test_a_payout_given_up_names_who_why_and_the_refusal_before_if_there_was_one(
    payouts: Payouts, code: str | None
) -> None:
    payouts.enter("t")
    attempt_id = payouts.send("t")
    payouts.close(attempt_id, "refused" if code else "in_doubt", code=code)
    finding_id = payouts.finding("refusals_held")
    decision_id = payouts.decide(finding_id, "lost")
    payouts.change(
        "t",
        f"{_LOSE}, evidence = jsonb_build_object('decision_id', {decision_id})",
    )
    row = payouts.one("SELECT * FROM finance.payout_lost")
    expected = {
        "lost_by": "decision",
        "refusal_code": code,
        "attempt_id": attempt_id if code else None,
        "decision_id": decision_id,
        "decided_by": "ada",
        "reason": "The player has left.",
        "reference": "MAIL-7",
        "finding_id": finding_id,
    }
    assert {name: row[name] for name in expected} == expected


def test_a_doubt_tells_its_age_its_requests_and_the_last_answer(payouts: Payouts) -> None:
    payouts.enter("t", amount=1)
    first = payouts.send("t")
    payouts.close(first, "not_executed")
    doubtful = payouts.send("t")
    payouts.close(doubtful, "in_doubt")
    last = payouts.send("t")
    payouts.close(last, "contested", code="RS_ERROR_DUPLICATE")
    finding_id = payouts.finding("transactions_contested")
    payouts.change("t", f"hold_finding_id = {finding_id}")
    row = payouts.one("SELECT *, now() AS now FROM finance.payout_in_doubt")
    sent = {
        attempt["attempt_id"]: attempt["committed_at"]
        for attempt in payouts.ask("SELECT * FROM finance.payout_attempt")
    }
    expected = {
        "amount": Decimal("0.00001"),
        "state": "held",
        "hold_reason": "contested",
        "finding_id": finding_id,
        "in_doubt_since": sent[doubtful],
        "age": row["now"] - sent[doubtful],
        "attempts": 3,
        "last_attempt_id": last,
        "last_sent_at": sent[last],
        "last_result": "answered",
        "last_code": "RS_ERROR_DUPLICATE",
    }
    assert {name: row[name] for name in expected} == expected


def test_what_made_its_request_rejected_is_unclear_though_never_in_doubt(payouts: Payouts) -> None:
    payouts.enter("t")
    payouts.close(payouts.send("t"), "rejected")
    payouts.change("t", "hold_reason = 'unclear'")
    row = payouts.one("SELECT hold_reason, in_doubt_since, attempts FROM finance.payout_in_doubt")
    assert row == {"hold_reason": "unclear", "in_doubt_since": None, "attempts": 1}


def test_every_held_payout_is_either_surely_unpaid_or_in_doubt(payouts: Payouts) -> None:
    reasons = ("unsignable", "refusal_pending", "in_doubt", "contested", "unclear")
    for reason in reasons:
        payouts.enter(reason)
        payouts.change(reason, f"hold_reason = '{reason}'")
    payouts.enter("amount_without_win", is_win=False)
    payouts.enter("changed")
    payouts.enter("changed", amount=1)
    payouts.enter("open")
    held = {row["transaction_id"]: row for row in payouts.ask("SELECT * FROM finance.payout_held")}
    doubtful = {
        row["transaction_id"] for row in payouts.ask("SELECT * FROM finance.payout_in_doubt")
    }
    assert set(held) == {"unsignable", "refusal_pending", "amount_without_win", "changed"}
    assert doubtful == {"in_doubt", "contested", "unclear"}
    assert all(row["hold_reason"] == reason for reason, row in held.items())
    assert payouts.one(_OUTCOME)["held"] == len(held) + len(doubtful)


def test_a_hold_is_as_old_as_its_present_reason(payouts: Payouts) -> None:
    payouts.enter("t", is_win=False)
    payouts.change("t", _RELEASE)
    before = payouts.moment()
    payouts.change("t", "hold_reason = 'unsignable'")
    finding_id = payouts.finding("transactions_held")
    payouts.change("t", f"hold_finding_id = {finding_id}")
    row = payouts.one("SELECT hold_reason, held_at, finding_id FROM finance.payout_held")
    assert (row["hold_reason"], row["finding_id"]) == ("unsignable", finding_id)
    assert before < row["held_at"] < payouts.moment()


def test_a_request_is_registered_without_its_bytes(payouts: Payouts) -> None:
    payouts.enter("a", currency="GBP")
    payouts.enter("b", currency="GBP")
    attempt_id = payouts.send("a", "b", currency="GBP", amount=500_000_001)
    row = payouts.one("SELECT * FROM finance.payout_attempt")
    expected = {
        "attempt_id": attempt_id,
        "closed_at": None,
        "currency": "GBP",
        "payouts": 2,
        "amount": Decimal("5000.00001"),
        "result": None,
        "http_status": None,
        "request_sha256": hashlib.sha256(repr(("a", "b")).encode()).hexdigest(),
        "run_id": "run",
        "epoch": 7,
    }
    assert {name: row[name] for name in expected} == expected
    assert not any(isinstance(value, bytes | memoryview) for value in row.values())


def test_a_balance_is_the_one_answered_last_for_each_player_and_currency(payouts: Payouts) -> None:
    for transaction_id, changes in {
        "a": {},
        "b": {},
        "pound": {"currency": "GBP"},
        "other": {"player_id": "other"},
        "unanswered": {},
    }.items():
        payouts.enter(transaction_id, **changes)
    sent = {each: payouts.send(each) for each in ("a", "b", "pound", "other", "unanswered")}
    payouts.close(sent["b"], "ok", balance=200_000)
    payouts.close(sent["a"], "ok", balance=-12_345)
    payouts.close(sent["pound"], "ok", balance=300_000)
    payouts.close(sent["other"], "refused", balance=400_000)
    payouts.close(sent["unanswered"], "in_doubt")
    rows = payouts.ask("SELECT * FROM finance.payout_balance")
    assert {row["transaction_id"]: (row["currency"], row["balance"]) for row in rows} == {
        "a": ("EUR", Decimal("-0.12345")),
        "pound": ("GBP", Decimal("3.00000")),
        "other": ("EUR", Decimal("4.00000")),
    }
    assert {row["attempt_id"] for row in rows} == {sent["a"], sent["pound"], sent["other"]}
    assert len({row["player_reference"] for row in rows}) == 2


# --- what was told, booked and decided ----------------------------------------------------------


def test_what_was_first_reported_stands_beside_how_it_is_now(payouts: Payouts) -> None:
    payouts.enter("paid", amount=100_000)
    payouts.enter("open", amount=50_000)
    payouts.enter("pound", currency="GBP")
    payouts.report(entered_payouts=2, entered_amount=150_000, open_payouts=2, open_amount=150_000)
    payouts.close(payouts.send("paid"), "ok")
    payouts.report(entered_payouts=9, entered_amount=9, processed_payouts=9)
    rows = payouts.ask("SELECT * FROM finance.payout_first_report WHERE currency = 'EUR'")
    columns = ("first_payouts", "now_payouts", "payouts_difference", "first_amount", "now_amount")
    told = {
        row["state"]: (*(row[name] for name in columns), row["amount_difference"]) for row in rows
    }
    one, half, zero = Decimal("1.00000"), Decimal("0.50000"), Decimal("0.00000")
    assert told == {
        "entered": (2, 2, 0, one + half, one + half, zero),
        "processed": (0, 1, 1, zero, one, one),
        "lost": (0, 0, 0, zero, zero, zero),
        "open": (2, 1, -1, one + half, half, -one),
        "held": (0, 0, 0, zero, zero, zero),
    }
    [pound] = payouts.ask(
        "SELECT * FROM finance.payout_first_report WHERE currency = 'GBP' AND state = 'entered'"
    )
    assert (pound["first_payouts"], pound["now_payouts"], pound["first_reported_at"]) == (
        None,
        1,
        None,
    )


def test_a_payout_is_booked_on_the_day_it_is_decided_which_then_closes(
    payouts: Payouts, shared_warehouse: Warehouse
) -> None:
    for transaction_id, amount in {"paid": 1, "given-up": 20, "earlier": 300, "open": 4000}.items():
        payouts.enter(transaction_id, amount=amount)
    payouts.close(payouts.send("paid", "earlier"), "ok")
    payouts.close(payouts.send("given-up"), "refused")
    payouts.change("given-up", _LOSE)
    today = payouts.one(
        "SELECT (now() AT TIME ZONE 'UTC' - interval '1 hour')::date AS first_open"
    )["first_open"]
    _book(shared_warehouse, today, "true")
    _book(shared_warehouse, today - timedelta(days=1), "transaction_id = 'earlier'")
    rows = payouts.ask("SELECT * FROM finance.payout_accounting ORDER BY accounting_date")
    closes_at = datetime(today.year, today.month, today.day, 1, tzinfo=UTC)
    shared = {"business_date": DAY, "currency": "EUR"}
    assert rows == [
        {
            **shared,
            "accounting_date": today - timedelta(days=1),
            "processed_payouts": 1,
            "processed_amount": Decimal("0.00300"),
            "lost_payouts": 0,
            "lost_amount": Decimal("0.00000"),
            "closes_at": closes_at,
            "is_closed": True,
        },
        {
            **shared,
            "accounting_date": today,
            "processed_payouts": 1,
            "processed_amount": Decimal("0.00001"),
            "lost_payouts": 1,
            "lost_amount": Decimal("0.00020"),
            "closes_at": closes_at + timedelta(days=1),
            "is_closed": False,
        },
    ]


def _book(warehouse: Warehouse, accounting_date: date, condition: str) -> None:
    """Move what was booked to another day, past the outbox's own rules."""
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(
                "UPDATE wallet.transaction SET accounting_date = :day"
                f" WHERE accounting_date IS NOT NULL AND {condition}"
            ),
            {"day": accounting_date},
        )


def test_a_decision_about_payouts_tells_how_many_how_much_and_who_was_second(
    payouts: Payouts,
) -> None:
    finding_id = payouts.finding("transactions_in_doubt")
    before = {"count": 3, "amounts": {"EUR": "92233720368547.75807"}}
    first = payouts.decide(
        finding_id, "lost", state_before=before, awaits_second_person=True, decided_by="ada"
    )
    payouts.decide(
        finding_id, "lost", state_before=before, first_decision_id=first, decided_by="bob"
    )
    rows = payouts.ask(
        "SELECT decided_by, reason, reference, payouts, payout_amounts, awaits_second_person,"
        " first_decision_id FROM finance.decision ORDER BY decision_id"
    )
    said = {
        "reason": "The player has left.",
        "reference": "MAIL-7",
        "payouts": 3,
        "payout_amounts": {"EUR": "92233720368547.75807"},
    }
    assert rows == [
        {"decided_by": "ada", **said, "awaits_second_person": True, "first_decision_id": None},
        {"decided_by": "bob", **said, "awaits_second_person": False, "first_decision_id": first},
    ]


def test_a_decision_without_amounts_is_shown_all_the_same(payouts: Payouts) -> None:
    payouts.decide(payouts.finding("answer_foreign"), "acknowledge", state_before={"count": "x"})
    row = payouts.one("SELECT payouts, payout_amounts FROM finance.decision")
    assert row == {"payouts": None, "payout_amounts": None}


# --- players ------------------------------------------------------------------------------------


def test_a_player_has_one_reference_in_payouts_and_settlements(
    payouts: Payouts, shared_warehouse: Warehouse
) -> None:
    payouts.enter("t", player_id="Zoë-7")
    payouts.enter("other", player_id="Zoë-8")
    with shared_warehouse.owner_engine.begin() as connection:
        reference = connection.scalar(text("SELECT ops.player_reference('Zoë-7')"))
        connection.execute(
            insert(tables.settlement).values(
                source="ticktock",
                source_key="bet",
                version=1,
                provider_order="1",
                status="open",
                player_id="Zoë-7",
                player_reference=reference,
                settled_at_basis="observed",
                is_resettlement=False,
                is_applied=True,
                is_change=False,
                is_current=True,
                accounting_date=DAY,
                record_id=1,
                batch_id=1,
            )
        )
    joined = payouts.ask(
        "SELECT transaction_id, source_key FROM finance.payout"
        " JOIN finance.settlement_current USING (player_reference)"
    )
    assert joined == [{"transaction_id": "t", "source_key": "bet"}]


def test_no_clear_player_is_anywhere_in_what_finance_reads(payouts: Payouts) -> None:
    clear = {"player_id": "clear-player-7", "session_id": "session of clear-player-7"}
    for transaction_id in ("paid", "lost", "doubtful", "open"):
        payouts.enter(transaction_id, **clear)
    payouts.enter("held", is_win=False, **clear)
    payouts.close(payouts.send("paid"), "ok", balance=1, detail="clear-player-7")
    payouts.close(payouts.send("lost"), "refused", code="RS_ERROR", detail="clear-player-7")
    payouts.change("lost", _LOSE)
    payouts.close(payouts.send("doubtful"), "in_doubt", detail="clear-player-7")
    payouts.change("held", "hold_detail = 'clear-player-7'")
    payouts.report(entered_payouts=1)
    payouts.decide(payouts.finding("transactions_held"), "keep", state_before=clear)
    views = [
        row["viewname"]
        for row in payouts.ask("SELECT viewname FROM pg_views WHERE schemaname = 'finance'")
    ]
    shown = {view: payouts.ask(f"SELECT * FROM finance.{view}") for view in views}
    shown["as_of"] = payouts.ask("SELECT * FROM finance.payout_outcome_as_of(now())")
    assert all(shown[view] for view in shown if view.startswith("payout") or view == "as_of")
    assert "clear-player-7" not in repr(shown)
