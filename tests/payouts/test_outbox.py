"""The outbox's own rules, tried out as whoever enters payouts and whoever sends them."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from include.payouts import outbox
from include.payouts.outbox import Frozen, freeze_new, report_outbox
from include.providers import wallet
from include.warehouse.database import transaction
from include.warehouse.tables import transaction as transaction_table
from tests.local.waiting import wait_for
from tests.payouts.entering import (
    DAY,
    as_sender,
    attempt,
    commit_attempt,
    enter,
    payout,
    rows,
    send,
    stored,
    writer,
)
from tests.warehouses import Warehouse

_CONFLICTS = "SELECT * FROM wallet.transaction_conflict ORDER BY conflict_id"
BEFORE = DAY - timedelta(days=1)
_FINDINGS = "SELECT * FROM ops.finding ORDER BY finding_id"
_PROCESSED = "disposition = 'processed', evidence = '{\"attempt_id\": 1}'"
_LOST = "disposition = 'lost', evidence = '{\"attempt_id\": 2}'"


# --- what enters --------------------------------------------------------------------------------


def test_a_payout_is_entered_open_and_not_held(warehouse: Warehouse) -> None:
    assert enter(warehouse, payout("t1", origin_source="games", origin_key="17")) == 1
    row = stored(warehouse, "t1")
    assert (row.disposition, row.hold_reason, row.item, row.released_at) == ("open", *[None] * 3)
    assert (row.amount, row.business_date, row.origin_key) == (250_000_000, DAY, "17")
    assert datetime.now(UTC) - row.entered_at < timedelta(minutes=5)


def test_an_operators_own_login_enters_it_with_a_plain_insert(warehouse: Warehouse) -> None:
    with writer(warehouse) as engine, engine.begin() as connection:
        statement = insert(transaction_table).values(business_date=DAY, **payout("t1"))
        assert connection.execute(statement).rowcount == 1
        assert connection.execute(statement).rowcount == 0
    assert stored(warehouse, "t1").disposition == "open"


def test_the_same_content_again_is_nothing_whatever_its_day_and_origin(
    warehouse: Warehouse,
) -> None:
    enter(warehouse, payout("t1"))
    before = stored(warehouse, "t1")
    again = payout("t1", business_date=date(2026, 11, 19), origin_source="import", origin_key="f:1")
    assert enter(warehouse, payout("t1"), again) == 0
    assert stored(warehouse, "t1") == before
    assert rows(warehouse, _CONFLICTS) == []


@pytest.mark.parametrize(
    "change",
    [
        {"ref_transaction_id": "another"},
        {"session_id": "another"},
        {"round_id": "another"},
        {"player_id": "another"},
        {"game_id": "another"},
        {"currency": "GBP"},
        {"amount": 250_000_001},
        {"is_win": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_content_before_any_send_holds_what_was_entered_first(
    warehouse: Warehouse, change: dict[str, Any]
) -> None:
    enter(warehouse, payout("t1"))
    assert enter(warehouse, payout("t1", **change)) == 0
    row = stored(warehouse, "t1")
    assert {name: getattr(row, name) for name in payout("t1")} == payout("t1")
    [conflict] = rows(warehouse, _CONFLICTS)
    assert {name: getattr(conflict, name) for name in payout("t1")} == payout("t1", **change)
    assert not conflict.is_after_send
    assert row.hold_reason == "changed"
    assert row.hold_detail == (
        f"Another content came under its id: conflict {conflict.conflict_id}."
    )


def test_another_content_is_recorded_once_however_often_it_comes(warehouse: Warehouse) -> None:
    other, third = payout("t1", amount=2), payout("t1", amount=3)
    enter(warehouse, payout("t1", amount=1), other, other, third, payout("t1", amount=1), other)
    assert [row.amount for row in rows(warehouse, _CONFLICTS)] == [2, 3]
    assert stored(warehouse, "t1").amount == 1


@pytest.mark.parametrize(
    ("is_sent", "so_far", "disposition"),
    [(True, (), "open"), (True, (_LOST,), "lost"), (False, (_LOST,), "lost")],
)
def test_another_content_after_a_send_or_the_end_holds_nothing(
    warehouse: Warehouse, is_sent: bool, so_far: tuple[str, ...], disposition: str
) -> None:
    enter(warehouse, payout("t1"))
    if is_sent:
        attempt(warehouse, "t1")
    for assignments in so_far:
        as_sender(warehouse, assignments, "t1")
    before = stored(warehouse, "t1")
    enter(warehouse, payout("t1", amount=7))
    [conflict] = rows(warehouse, _CONFLICTS)
    assert conflict.is_after_send
    assert stored(warehouse, "t1") == before
    assert (before.disposition, before.hold_reason) == (disposition, None)


def test_a_change_says_what_held_the_payout_before(warehouse: Warehouse) -> None:
    enter(warehouse, payout("t1", is_win=False), payout("t1"), payout("t1", amount=9))
    row = stored(warehouse, "t1")
    assert row.hold_reason == "changed"
    first, _ = rows(warehouse, _CONFLICTS)
    assert row.hold_detail == (
        f"Another content came under its id: conflict {first.conflict_id}."
        " It was held before: amount_without_win"
    )


@pytest.mark.parametrize("days", [1, 2, 4000])
def test_a_future_day_is_refused_with_what_to_do(warehouse: Warehouse, days: int) -> None:
    today = rows(warehouse, "SELECT (now() AT TIME ZONE 'UTC')::date")[0][0]
    assert enter(warehouse, payout("today", business_date=today)) == 1
    with pytest.raises(IntegrityError, match=r"lies in the future.*Nothing was stored\. Enter it"):
        enter(warehouse, payout("t1", business_date=today + timedelta(days=days)))
    assert len(rows(warehouse, "SELECT FROM wallet.transaction_claim")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"amount": -1},
        {"transaction_id": ""},
        {"transaction_id": "𝄞" * 501},
        {"business_date": date(1999, 12, 31)},
        {"business_date": "infinity"},
        {"business_date": "-infinity"},
        {"player_id": None},
        {"transaction_id": None},
        {"is_win": None},
        {"business_date": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_what_is_no_payout_is_refused(warehouse: Warehouse, change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        enter(warehouse, payout("t1", **change))
    assert rows(warehouse, "SELECT FROM wallet.transaction_claim") == []


def test_a_negative_amount_is_refused_also_under_an_id_that_is_there(warehouse: Warehouse) -> None:
    enter(warehouse, payout("t1"))
    with pytest.raises(IntegrityError, match="is negative"):
        enter(warehouse, payout("t1", amount=-1))
    assert rows(warehouse, _CONFLICTS) == []


@pytest.mark.parametrize(
    ("is_win", "amount", "reason"),
    [
        (False, 0, None),
        (False, 1, "amount_without_win"),
        (True, 0, None),
        (True, 2**63 - 1, None),
    ],
)
def test_an_amount_without_a_win_is_held_and_nothing_paid_out_is_not(
    warehouse: Warehouse, is_win: bool, amount: int, reason: str | None
) -> None:
    assert enter(warehouse, payout("t1", is_win=is_win, amount=amount)) == 1
    assert stored(warehouse, "t1").hold_reason == reason


@pytest.mark.parametrize("transaction_id", ["x" * 500, "é" * 500, "𝄞" * 500, "a'b\"\\", " "])
def test_an_id_may_be_any_text_of_up_to_500_characters(
    warehouse: Warehouse, transaction_id: str
) -> None:
    long = "x" * 100_000
    enter(warehouse, payout(transaction_id), payout(transaction_id, player_id=long))
    assert stored(warehouse, transaction_id).hold_reason == "changed"


def test_one_statement_may_hold_an_id_twice(warehouse: Warehouse) -> None:
    with writer(warehouse) as engine, engine.begin() as connection:
        each = [payout("t1"), payout("t2"), payout("t1"), payout("t2", amount=3)]
        values = [{"business_date": DAY} | one for one in each]
        assert connection.execute(insert(transaction_table).values(values)).rowcount == 2
    assert stored(warehouse, "t1").hold_reason is None
    assert stored(warehouse, "t2").hold_reason == "changed"


@pytest.mark.parametrize("amount", [250_000_000, 1])
@pytest.mark.parametrize("first_commits", [True, False])
def test_of_two_sessions_with_one_id_the_second_waits_and_does_not_fail(
    warehouse: Warehouse, amount: int, first_commits: bool
) -> None:
    entered: list[int] = []
    second = threading.Thread(
        target=lambda: entered.append(enter(warehouse, payout("t1", amount=amount)))
    )
    with writer(warehouse) as engine, engine.connect() as first:
        first.execute(insert(transaction_table).values(business_date=DAY, **payout("t1")))
        second.start()
        _wait_for_a_lock(warehouse)
        assert enter(warehouse, payout("t2")) == 1
        (first.commit if first_commits else first.rollback)()
        second.join(timeout=30)
    assert entered == [0 if first_commits else 1]
    conflicts = 1 if first_commits and amount == 1 else 0
    assert len(rows(warehouse, _CONFLICTS)) == conflicts
    assert stored(warehouse, "t1").hold_reason == ("changed" if conflicts else None)


def test_a_change_that_comes_while_a_send_commits_does_not_hold(warehouse: Warehouse) -> None:
    enter(warehouse, payout("t1"))
    change = threading.Thread(target=lambda: enter(warehouse, payout("t1", amount=1)))
    with transaction(warehouse.engine, "sender") as connection:
        commit_attempt(connection, "t1")
        change.start()
        _wait_for_a_lock(warehouse)
    change.join(timeout=30)
    [conflict] = rows(warehouse, _CONFLICTS)
    assert conflict.is_after_send
    assert stored(warehouse, "t1").hold_reason is None


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_session_that_would_not_see_a_send_enters_nothing(
    warehouse: Warehouse, level: str
) -> None:
    enter(warehouse, payout("t1"))
    with writer(warehouse) as engine, engine.connect() as entrant:
        entrant.execution_options(isolation_level=level).execute(text("SELECT 1"))
        with transaction(warehouse.engine, "sender") as connection:
            commit_attempt(connection, "t1")
        with pytest.raises(DBAPIError, match=f"READ COMMITTED, and this one is {level}"):
            entrant.execute(
                insert(transaction_table).values(business_date=DAY, **payout("t1", amount=1))
            )
    assert rows(warehouse, _CONFLICTS) == []
    assert stored(warehouse, "t1").hold_reason is None


def _wait_for_a_lock(warehouse: Warehouse) -> None:
    wait_for(
        "the second waits for the first",
        lambda: bool(rows(warehouse, "SELECT FROM pg_locks WHERE NOT granted")),
        60,
    )


# --- what never changes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "assignment",
    [
        *(f"{name} = 'another'" for name in payout("") if name not in ("amount", "is_win")),
        "amount = 1",
        "is_win = NOT is_win",
        "business_date = '2026-11-19'",
        "origin_source = 'another'",
        "origin_key = 'another'",
        "entered_at = '2026-11-19Z'",
    ],
)
def test_what_was_entered_never_changes_even_for_the_owner(
    warehouse: Warehouse, assignment: str
) -> None:
    enter(warehouse, payout("t1"))
    with (
        pytest.raises(IntegrityError, match="Transaction t1 stays as it is: what was entered"),
        warehouse.owner_engine.begin() as connection,
    ):
        send(connection, assignment, "t1")


@pytest.mark.parametrize("disposed", [_PROCESSED, _LOST])
@pytest.mark.parametrize(
    "assignment",
    [
        "disposition = 'open', disposed_at = NULL, accounting_date = NULL",
        "disposition = CASE disposition WHEN 'lost' THEN 'processed' ELSE 'lost' END",
        "evidence = '{}'",
        "evidence = NULL",
        "disposed_at = disposed_at + interval '1 second'",
        "accounting_date = accounting_date - 1",
        "hold_reason = 'changed'",
        "item = 'other'",
        "item = NULL",
    ],
)
def test_processed_and_lost_are_for_ever(
    warehouse: Warehouse, disposed: str, assignment: str
) -> None:
    enter(warehouse, payout("t1"))
    attempt(warehouse, "t1")
    as_sender(warehouse, disposed, "t1")
    before = stored(warehouse, "t1")
    with pytest.raises(IntegrityError), warehouse.owner_engine.begin() as connection:
        send(connection, assignment, "t1")
    assert stored(warehouse, "t1") == before


def test_a_disposition_is_dated_by_the_transaction_that_books_it(warehouse: Warehouse) -> None:
    enter(warehouse, payout("t1"))
    with transaction(warehouse.engine, "sender") as connection:
        send(connection, _PROCESSED, "t1")
        now = connection.scalar(text("SELECT now()"))
    row = stored(warehouse, "t1")
    assert (row.disposed_at, row.accounting_date) == (now, now.date())


@pytest.mark.parametrize(
    "assignment",
    [
        "disposition = 'processed'",
        "disposition = 'paid', evidence = '{}'",
        "hold_detail = 'because'",
        "disposition = 'lost', evidence = '{}', hold_reason = 'refusal_pending'",
    ],
)
def test_a_row_says_all_or_nothing(warehouse: Warehouse, assignment: str) -> None:
    enter(warehouse, payout("t1"))
    with pytest.raises(IntegrityError):
        as_sender(warehouse, assignment, "t1")


def test_frozen_bytes_stay_and_a_hold_may_be_released(warehouse: Warehouse) -> None:
    enter(warehouse, payout("t1", is_win=False))
    as_sender(warehouse, "hold_reason = NULL", "t1")
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    with pytest.raises(IntegrityError, match="its bytes are frozen"):
        as_sender(warehouse, "item = NULL", "t1")
    assert stored(warehouse, "t1").hold_reason is None


# --- freezing -----------------------------------------------------------------------------------


def test_the_frozen_bytes_are_those_of_the_documentation(warehouse: Warehouse) -> None:
    enter(warehouse, payout("dd96bda3-9990-4aed-9679-f451a4b82ac4"))
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    assert bytes(stored(warehouse, "dd96bda3-9990-4aed-9679-f451a4b82ac4").item) == (
        b'{"transactionId":"dd96bda3-9990-4aed-9679-f451a4b82ac4",'
        b'"refTransactionId":"21848853-1198-4dde-9a21-bb9598398a8c",'
        b'"sessionId":"f1dfc865-584c-4cba-a175-06172b2a41141731504451691",'
        b'"roundId":"817e22b4-b030-468b-964e-62b9a7343050-1753428290674",'
        b'"playerId":"18865671","gameId":"G1720761376617","currency":"EUR",'
        b'"amount":250000000,"isWin":true}'
    )


@pytest.mark.parametrize(
    "awkward",
    ['"', "\\", "\\x41", "\n\t\r", "\x01\x1f\x7f", "é𝄞\u2028\ufeff", "{a,b}", "NULL", "'", "%s :a"],
)
def test_any_text_is_frozen_as_it_is(warehouse: Warehouse, awkward: str) -> None:
    item = wallet.Item(**payout(awkward, player_id=awkward))
    enter(warehouse, payout(awkward, player_id=awkward))
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    assert bytes(stored(warehouse, awkward).item) == wallet.freeze_item(item)


def test_what_cannot_be_signed_is_held_and_its_neighbours_go(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a"), payout("b", amount=2**53), payout("c", amount=2**53 - 1))
    assert freeze_new(warehouse.engine) == Frozen(2, 1)
    held = stored(warehouse, "b")
    assert (held.item, held.hold_reason) == (None, "unsignable")
    assert "2^53" in held.hold_detail
    [finding] = rows(warehouse, _FINDINGS)
    assert (finding.kind, finding.subject) == ("transactions_held", f"{DAY}, unsignable")
    assert finding.detail["examples"] == [{"transaction_id": "b", "hold_detail": held.hold_detail}]
    assert held.hold_finding_id == finding.finding_id


def test_only_what_is_open_not_held_and_new_is_frozen(warehouse: Warehouse) -> None:
    enter(warehouse, payout("held", is_win=False), payout("lost"), payout("new"))
    as_sender(warehouse, _LOST, "lost")
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    assert freeze_new(warehouse.engine) == Frozen(0, 0)
    frozen = rows(warehouse, "SELECT transaction_id FROM wallet.transaction WHERE item IS NOT NULL")
    assert [row.transaction_id for row in frozen] == ["new"]


def test_what_is_released_though_it_cannot_be_signed_is_held_again(warehouse: Warehouse) -> None:
    enter(warehouse, payout("b", amount=2**53))
    freeze_new(warehouse.engine)
    as_sender(warehouse, "hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL", "b")
    assert freeze_new(warehouse.engine) == Frozen(0, 1)


def test_many_are_frozen_in_batches_also_by_two_at_once(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_ROWS_AT_A_TIME", 7)
    enter(warehouse, *(payout(f"t{number}") for number in range(100)))
    frozen: list[Frozen] = []
    both = [
        threading.Thread(target=lambda: frozen.append(freeze_new(warehouse.engine)))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=60)
    assert sum(one.frozen for one in frozen) == 100
    assert rows(warehouse, "SELECT FROM wallet.transaction WHERE item IS NULL") == []


# --- findings -----------------------------------------------------------------------------------


def test_one_finding_tells_all_holds_of_a_day_and_reason(warehouse: Warehouse) -> None:
    enter(
        warehouse,
        payout("a", is_win=False, amount=1),
        payout("b", is_win=False, amount=150_000),
        payout("c", is_win=False, currency="GBP"),
        payout("d", is_win=False, business_date=date(2026, 11, 19)),
    )
    report_outbox(warehouse.engine)
    earlier, finding = rows(warehouse, _FINDINGS)
    assert earlier.subject == "2026-11-19, amount_without_win"
    assert (finding.kind, finding.severity) == ("transactions_held", "critical")
    assert finding.summary.startswith(
        f"3 payouts (1.50001 EUR, 2500.00000 GBP) of {DAY} are held: isWin is false"
    )
    assert finding.detail["amounts"] == {"EUR": "1.50001", "GBP": "2500.00000"}
    alerts = rows(warehouse, "SELECT alert_key FROM ops.alert ORDER BY alert_id")
    assert [alert.alert_key for alert in alerts] == [
        f"finding/{one.finding_id}" for one in (earlier, finding)
    ]


def test_what_was_told_is_not_told_again_and_what_is_new_joins_it(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a", is_win=False))
    report_outbox(warehouse.engine)
    report_outbox(warehouse.engine)
    [finding] = rows(warehouse, _FINDINGS)
    assert finding.times_seen == 1
    enter(warehouse, payout("b", is_win=False))
    report_outbox(warehouse.engine)
    [finding] = rows(warehouse, _FINDINGS)
    assert (finding.times_seen, finding.detail["count"]) == (2, 2)
    assert stored(warehouse, "b").hold_finding_id == finding.finding_id


def test_a_change_is_told_with_the_hold_or_by_itself_after_a_send(warehouse: Warehouse) -> None:
    enter(warehouse, payout("sent"), payout("unsent"))
    attempt(warehouse, "sent")
    enter(warehouse, payout("sent", amount=1), payout("unsent", amount=1))
    report_outbox(warehouse.engine)
    report_outbox(warehouse.engine)
    held, changed = rows(warehouse, _FINDINGS)
    sent, unsent = rows(warehouse, _CONFLICTS)
    assert (held.kind, held.subject) == ("transactions_held", f"{DAY}, changed")
    assert (changed.kind, changed.subject) == ("transactions_changed", str(DAY))
    assert changed.detail["examples"] == [
        {"transaction_id": "sent", "conflict_id": sent.conflict_id}
    ]
    assert (sent.finding_id, unsent.finding_id) == (changed.finding_id, held.finding_id)
    assert (held.times_seen, changed.times_seen) == (1, 1)


def test_a_finding_counts_the_payouts_that_changed_after_they_were_sent_not_the_examples(
    warehouse: Warehouse,
) -> None:
    sent = [f"t{number:02}" for number in range(12)]
    enter(warehouse, *(payout(one) for one in sent), payout("elsewhere", business_date=BEFORE))
    attempt(warehouse, *sent, "elsewhere")
    enter(warehouse, *(payout(one, amount=1) for one in sent[:11]))
    enter(warehouse, payout("t00", amount=2), payout("elsewhere", amount=1))
    report_outbox(warehouse.engine)
    of_before, finding = rows(warehouse, _FINDINGS)
    assert of_before.summary.startswith(f"1 payouts of {BEFORE} were entered again")
    assert finding.summary.startswith(f"11 payouts of {DAY} were entered again")
    assert (finding.detail["count"], len(finding.detail["examples"])) == (11, 10)

    enter(warehouse, payout("t11", amount=1))
    report_outbox(warehouse.engine)
    _, finding = rows(warehouse, _FINDINGS)
    assert finding.summary.startswith(f"12 payouts of {DAY} were entered again")
    assert (finding.detail["count"], finding.times_seen) == (12, 2)


def test_holds_of_sending_are_left_to_it(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a"))
    as_sender(warehouse, "hold_reason = 'refusal_pending', evidence = '{}'", "a")
    report_outbox(warehouse.engine)
    assert rows(warehouse, _FINDINGS) == []


def test_an_error_of_freezing_leaves_everything_as_it_was(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a"), payout("b"))

    def fail(item: wallet.Item) -> bytes:
        raise RuntimeError(item.transaction_id)

    with pytest.raises(RuntimeError, match="a"):
        freeze_new(warehouse.engine, fail)
    assert len(rows(warehouse, "SELECT FROM wallet.transaction WHERE item IS NULL")) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO wallet.transaction_conflict (transaction_id) VALUES ('t1')",
        "UPDATE wallet.transaction SET amount = 1",
        "DELETE FROM wallet.transaction",
    ],
)
def test_whoever_enters_payouts_changes_nothing_beside(
    warehouse: Warehouse, statement: str
) -> None:
    with (
        writer(warehouse) as engine,
        pytest.raises(DBAPIError, match="permission denied"),
        engine.begin() as connection,
    ):
        connection.execute(text(statement))
