"""Decisions about payouts: what each does, what is refused, who has to be two."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from include.payouts.outbox import Frozen, freeze_new, report_outbox
from include.sandbox.client import Sandbox
from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import DecisionRefused, Resolution, payouts
from include.warehouse.findings import KINDS
from tests.local.waiting import wait_for
from tests.payouts.deciding import ABOUT_PAYOUTS, REASONS, decide, everything, hold, seen_of
from tests.payouts.entering import attempt, enter, payout, rows, send, stored
from tests.payouts.resending import Resend
from tests.warehouses import Warehouse

UNKNOWN_FATE = ["transactions_in_doubt", "transactions_contested", "transactions_unclear"]
SENT_KINDS = [*UNKNOWN_FATE, "refusals_held"]
# A payout of the tests is 2500 EUR.
TWO_PAYOUTS, ONE_CENT_LESS = "5000", "4999.99"
_FINDING = "SELECT * FROM ops.finding WHERE finding_id = CAST(:id AS bigint)"
_DECISIONS = "SELECT * FROM ops.decision ORDER BY decision_id"


def finding_of(warehouse: Warehouse, finding_id: int) -> Any:
    [found] = rows(warehouse, _FINDING, str(finding_id))
    return found


def held_after_a_send(warehouse: Warehouse, kind: str, *ids: str, **changes: Any) -> int:
    """Payouts that were sent and are held with a finding of `kind`; its number."""
    enter(warehouse, *(payout(one, **changes) for one in ids))
    return hold(warehouse, kind, *ids, attempt_id=attempt(warehouse, *ids))


def refused(warehouse: Warehouse, finding_id: int, decision: str, **given: Any) -> str:
    """The message of a refusal, which changed nothing."""
    before = everything(warehouse)
    with pytest.raises(DecisionRefused) as raised:
        decide(warehouse.engine, finding_id, decision, **given)
    assert everything(warehouse) == before
    assert "Nothing was changed." in str(raised.value)
    return str(raised.value)


# --- keep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ABOUT_PAYOUTS)
def test_what_is_kept_stays_as_it_is_and_the_reason_is_on_record(
    warehouse: Warehouse, kind: str
) -> None:
    finding_id = held_after_a_send(warehouse, kind, "a", "b")
    before, asked = stored(warehouse, "a"), finding_of(warehouse, finding_id)
    resolution = decide(warehouse.engine, finding_id, "keep")
    assert not resolution.is_closed
    assert (stored(warehouse, "a"), finding_of(warehouse, finding_id)) == (before, asked)
    [decided] = rows(warehouse, _DECISIONS)
    assert (decided.decision, decided.decided_by, decided.run_id) == ("keep", "anna", "manual__1")
    assert decided.state_before == {
        **decided.state_after,
        "transaction_ids": ["a", "b"],
        "transaction_ids_sha256": hashlib.sha256(
            hashlib.sha256(b"a").digest() + hashlib.sha256(b"b").digest()
        ).hexdigest(),
    }
    assert decided.state_after == {
        "count": 2,
        "amounts": {"EUR": "5000.00000"},
        "dispositions": {"open": 2},
        "hold_reasons": {REASONS[kind]: 2},
    }


# --- release_hold, send_again -------------------------------------------------------------------


def test_an_amount_without_a_win_that_is_released_is_sent_as_it_was_entered(
    warehouse: Warehouse,
) -> None:
    enter(warehouse, payout("a", is_win=False))
    report_outbox(warehouse.engine)
    decide(warehouse.engine, stored(warehouse, "a").hold_finding_id, "release_hold")
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    row = stored(warehouse, "a")
    assert b'"amount":250000000,"isWin":false' in bytes(row.item)
    assert (row.hold_reason, row.hold_detail, row.hold_finding_id) == (None, None, None)
    assert row.released_at is not None


def test_of_a_changed_payout_the_first_content_is_sent_and_the_other_keeps_its_finding(
    warehouse: Warehouse,
) -> None:
    other = payout("a", amount=7)
    enter(warehouse, payout("a"), other)
    report_outbox(warehouse.engine)
    finding_id = stored(warehouse, "a").hold_finding_id
    decide(warehouse.engine, finding_id, "release_hold")
    assert enter(warehouse, other) == 0
    assert freeze_new(warehouse.engine) == Frozen(1, 0)
    assert b'"amount":250000000,' in bytes(stored(warehouse, "a").item)
    assert stored(warehouse, "a").hold_reason is None
    [conflict] = rows(warehouse, "SELECT * FROM wallet.transaction_conflict")
    assert conflict.finding_id == finding_id


def test_what_cannot_be_signed_is_not_released_but_may_be_given_up(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a", amount=2**53))
    freeze_new(warehouse.engine)
    finding_id = stored(warehouse, "a").hold_finding_id
    told = refused(warehouse, finding_id, "release_hold")
    assert "1 of these payouts cannot be signed safely" in told
    assert "entered correctly under other ids" in told
    decide(warehouse.engine, finding_id, "lost", above=str(2**53))
    assert stored(warehouse, "a").disposition == "lost"


@pytest.mark.parametrize("kind", SENT_KINDS)
def test_what_is_sent_again_is_open_with_the_same_bytes_and_its_attempts_stay(
    warehouse: Warehouse, kind: str
) -> None:
    finding_id = held_after_a_send(warehouse, kind, "a")
    before = stored(warehouse, "a")
    attempts = "SELECT * FROM wallet.attempt_item JOIN wallet.attempt USING (attempt_id)"
    sent = rows(warehouse, attempts)
    resolution = decide(warehouse.engine, finding_id, "send_again")

    row = stored(warehouse, "a")
    assert (row.disposition, row.hold_reason, row.evidence) == ("open", None, None)
    assert row.item == before.item
    assert row.released_at > sent[0].committed_at
    assert rows(warehouse, attempts) == sent
    assert resolution.is_closed
    assert resolution.after["hold_reasons"] == {}
    assert finding_of(warehouse, finding_id).closed_by == "decision"
    [hold_of] = rows(warehouse, "SELECT * FROM wallet.hold")
    assert hold_of.ended_at is not None


def test_what_limits_sending_counts_from_when_it_was_let_go_not_from_when_that_was_asked(
    warehouse: Warehouse,
) -> None:
    """Whoever decides may wait for the lock while the payout is still being sent."""
    finding_id = held_after_a_send(warehouse, "transactions_in_doubt", "a")
    with transaction(warehouse.engine, "sender") as connection:
        lock_source(connection, "wallet")
        person = in_thread(lambda: decide(warehouse.engine, finding_id, "send_again"))
        wait_for_waiting(warehouse, 1)
        last_sent_at = connection.scalar(text("SELECT clock_timestamp()"))
    person.join(30)
    assert stored(warehouse, "a").released_at > last_sent_at


def test_what_is_let_go_while_its_request_may_still_arrive_is_sent_when_that_one_is_over(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_partner_idempotent=False, wallet_deadline_seconds=2)
    resend.enter("a", "b")
    sandbox.fault("wallet", "reset_before_answer", after_calls=1)
    resend.send()
    assert resend.states() == {"a": "processed", "b": "in_doubt"}
    decide(warehouse.engine, stored(warehouse, "b").hold_finding_id, "send_again")
    [doubtful] = rows(warehouse, "SELECT * FROM wallet.attempt WHERE result = 'in_doubt'")
    assert stored(warehouse, "b").released_at < doubtful.deadline_at

    assert resend.send().processed == 1
    again = sandbox.wallet_requests()[-1]
    assert datetime.fromisoformat(again["received_at"]) >= doubtful.deadline_at
    assert resend.wrong(is_left_alone=True) == []


# --- processed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNKNOWN_FATE)
def test_what_the_partner_confirms_is_processed_with_its_reference(
    warehouse: Warehouse, kind: str
) -> None:
    finding_id = held_after_a_send(warehouse, kind, "a")
    resolution = decide(warehouse.engine, finding_id, "processed")
    row = stored(warehouse, "a")
    assert (row.disposition, row.hold_reason, row.hold_finding_id) == ("processed", None, None)
    assert row.evidence == {
        "decision_id": resolution.decision_id,
        "reference": "MAIL-7",
        "decided_by": "anna",
    }
    assert rows(warehouse, _DECISIONS)[0].decision_id == resolution.decision_id
    assert resolution.after["dispositions"] == {"processed": 1}


@pytest.mark.parametrize("reference", [None, "", "  "])
def test_without_a_reference_nothing_is_processed(
    warehouse: Warehouse, reference: str | None
) -> None:
    finding_id = held_after_a_send(warehouse, "transactions_in_doubt", "a")
    told = refused(warehouse, finding_id, "processed", reference=reference)
    assert "takes the partner's confirmation" in told


def test_what_was_in_no_request_was_not_paid(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a"), payout("never"))
    attempt(warehouse, "a")
    finding_id = hold(warehouse, "transactions_unclear", "a", "never")
    told = refused(warehouse, finding_id, "processed")
    assert "1 of these payouts were in no request, the first of them never:" in told
    decide(warehouse.engine, finding_id, "processed", transaction_ids=["a"])
    assert stored(warehouse, "a").disposition == "processed"


# --- lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*UNKNOWN_FATE, "transactions_held"])
def test_what_is_given_up_is_lost_with_the_decision_as_evidence(
    warehouse: Warehouse, kind: str
) -> None:
    finding_id = held_after_a_send(warehouse, kind, "a")
    resolution = decide(warehouse.engine, finding_id, "lost")
    row = stored(warehouse, "a")
    assert (row.disposition, row.hold_reason, row.hold_finding_id) == ("lost", None, None)
    assert row.evidence == {"decision_id": resolution.decision_id, "decided_by": "anna"}
    assert finding_of(warehouse, finding_id).state == "closed"


def test_a_refusal_that_is_written_down_as_lost_keeps_its_code(warehouse: Warehouse) -> None:
    finding_id = held_after_a_send(warehouse, "refusals_held", "a")
    refusal = stored(warehouse, "a").evidence
    resolution = decide(warehouse.engine, finding_id, "lost")
    assert stored(warehouse, "a").evidence == {
        "decision_id": resolution.decision_id,
        "decided_by": "anna",
        **refusal,
    }
    assert set(refusal) == {"attempt_id", "code"}


@pytest.mark.parametrize(
    ("result", "deadline_in"), [(None, -60), (None, 600), ("in_doubt", 600), ("answered", 600)]
)
def test_what_may_still_reach_the_wallet_is_not_given_up(
    warehouse: Warehouse, result: str | None, deadline_in: float
) -> None:
    enter(warehouse, payout("a"), payout("b"))
    attempt(warehouse, "a")
    attempt_id = attempt(warehouse, "a", result=result, deadline_in=deadline_in)
    finding_id = hold(warehouse, "transactions_in_doubt", "a", "b")
    for above in ("0", "1000000"):
        told = refused(warehouse, finding_id, "lost", above=above)
        assert "1 of these payouts are in a request to the wallet that is not over" in told
        assert f"(attempt {attempt_id})" in told
    decide(warehouse.engine, finding_id, "lost", transaction_ids=["b"])
    assert stored(warehouse, "b").disposition == "lost"


# --- some of them -------------------------------------------------------------------------------


def test_a_decision_about_some_leaves_the_others_with_the_open_finding(
    warehouse: Warehouse,
) -> None:
    finding_id = held_after_a_send(warehouse, "transactions_in_doubt", "a", "b", "c")
    before = stored(warehouse, "b"), stored(warehouse, "c")
    resolution = decide(warehouse.engine, finding_id, "lost", transaction_ids=["a", "a"])
    assert not resolution.is_closed
    assert resolution.before["transaction_ids"] == ["a"]
    assert (stored(warehouse, "b"), stored(warehouse, "c")) == before
    finding = finding_of(warehouse, finding_id)
    assert finding.summary == "3 payouts wait. Left to decide: 2 payouts, 5000.00000 EUR."
    assert finding.detail["left"]["examples"] == ["b", "c"]

    decide(warehouse.engine, finding_id, "send_again", transaction_ids=["c"])
    finding = finding_of(warehouse, finding_id)
    assert finding.summary == "3 payouts wait. Left to decide: 1 payouts, 2500.00000 EUR."
    assert decide(warehouse.engine, finding_id, "processed").is_closed
    assert [stored(warehouse, one).disposition for one in "abc"] == ["lost", "processed", "open"]
    assert finding_of(warehouse, finding_id).closed_by == "decision"


def test_ids_that_the_finding_does_not_hold_are_named_and_refuse_it_all(
    warehouse: Warehouse,
) -> None:
    enter(warehouse, payout("elsewhere"), payout("free"))
    hold(warehouse, "transactions_unclear", "elsewhere")
    finding_id = held_after_a_send(warehouse, "transactions_in_doubt", "a")
    for strangers in (["elsewhere"], ["free"], ["no such id"], ["free", 'odd "{}\\']):
        told = refused(warehouse, finding_id, "send_again", transaction_ids=["a", *strangers])
        assert f"does not hold {', '.join(sorted(strangers))}." in told
    many = refused(
        warehouse, finding_id, "keep", transaction_ids=[f"x{number}" for number in range(10, 31)]
    )
    assert "does not hold x10, x11, x12, x13, x14, x15, x16, x17, x18, x19 and 11 more." in many
    assert "No payout was named" in refused(warehouse, finding_id, "keep", transaction_ids=[])


def test_what_is_recorded_does_not_grow_with_the_payouts(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payouts, "_IDS_RECORDED", 2)
    finding_id = held_after_a_send(warehouse, "transactions_in_doubt", "c", "b", "a")
    before = decide(warehouse.engine, finding_id, "send_again").before
    assert (before["count"], before["transaction_ids"]) == (3, ["a", "b"])


def test_sums_are_exact_and_told_by_currency(warehouse: Warehouse) -> None:
    enter(
        warehouse,
        payout("a", amount=1),
        payout("b", amount=2**63 - 1),
        payout("c", amount=0, currency="GBP"),
    )
    finding_id = hold(warehouse, "transactions_held", "a", "b", "c")
    resolution = decide(warehouse.engine, finding_id, "keep")
    assert resolution.before["amounts"] == {"EUR": "92233720368547.75808", "GBP": "0.00000"}


# --- all that was seen --------------------------------------------------------------------------


CHANGING = [
    (kind, decision)
    for kind in ABOUT_PAYOUTS
    for decision in KINDS[kind].decisions
    if decision != "keep"
]


@pytest.mark.parametrize(("kind", "decision"), CHANGING)
def test_what_has_joined_since_somebody_looked_is_not_decided_along(
    warehouse: Warehouse, kind: str, decision: str
) -> None:
    finding_id = held_after_a_send(warehouse, kind, "a")
    enter(warehouse, *(payout(f"b{number}") for number in range(11)))
    joined = [f"b{number}" for number in range(11)]
    assert hold(warehouse, kind, *joined, attempt_id=attempt(warehouse, *joined)) == finding_id
    told = refused(warehouse, finding_id, decision, payouts=1)
    assert f"is about 1 payouts, but finding {finding_id} holds 12 now (30000.00000 EUR)." in told
    assert "Look at them again, then say in `payouts` how many" in told
    assert decide(warehouse.engine, finding_id, decision, payouts=12).before["count"] == 12


def test_what_has_left_since_is_told_as_well(warehouse: Warehouse, pair: int) -> None:
    answer_late(warehouse, "a")
    told = refused(warehouse, pair, "lost", payouts=2)
    assert f"is about 2 payouts, but finding {pair} holds 1 now (2500.00000 EUR)." in told


def test_as_many_others_are_not_decided_along(warehouse: Warehouse, pair: int) -> None:
    seen = seen_of(warehouse, pair)
    answer_late(warehouse, "a")
    enter(warehouse, payout("large", amount=90_000_000))
    attempt(warehouse, "large")
    assert hold(warehouse, "transactions_in_doubt", "large") == pair
    for count in (None, 2):
        told = refused(warehouse, pair, "lost", payouts=count, seen=seen)
        assert (
            f"is about other payouts than these: finding {pair} holds 2 now (3400.00000 EUR)."
            in told
        )
        assert "in `seen` what the page Findings shows beside it" in told
    decide(warehouse.engine, pair, "lost", payouts=None, seen=seen_of(warehouse, pair))
    assert stored(warehouse, "large").disposition == "lost"


def test_whoever_says_neither_how_many_nor_which_is_refused(
    warehouse: Warehouse, pair: int
) -> None:
    told = refused(warehouse, pair, "processed", payouts=None)
    assert f"does not say about how many payouts it is: finding {pair} holds 2 now" in told


def test_whoever_names_the_payouts_need_not_count_them(warehouse: Warehouse, pair: int) -> None:
    decide(warehouse.engine, pair, "processed", transaction_ids=["a"], payouts=None)
    assert [stored(warehouse, one).disposition for one in "ab"] == ["processed", "open"]
    decide(warehouse.engine, pair, "send_again", transaction_ids=["b"], payouts=7, seen="00000000")
    assert stored(warehouse, "b").hold_reason is None


def test_to_keep_them_they_need_not_be_counted(warehouse: Warehouse, pair: int) -> None:
    assert decide(warehouse.engine, pair, "keep", payouts=None).before["count"] == 2
    assert decide(warehouse.engine, pair, "keep", payouts=1).before["count"] == 2
    assert decide(warehouse.engine, pair, "keep", seen="00000000").before["count"] == 2


def test_an_alert_is_raised_again_each_time_that_its_finding_has_doubled(
    warehouse: Warehouse,
) -> None:
    told = []
    for number in range(1, 10):
        enter(warehouse, payout(f"a{number}", is_win=False))
        report_outbox(warehouse.engine)
        told.append(len(rows(warehouse, "SELECT FROM ops.alert")))
    assert told == [1, 2, 2, 3, 3, 3, 3, 4, 4]
    alerts = rows(warehouse, "SELECT * FROM ops.alert ORDER BY alert_id")
    finding_id = stored(warehouse, "a1").hold_finding_id
    keys = [f"finding/{finding_id}{count}" for count in ("", "/2", "/4", "/8")]
    assert [alert.alert_key for alert in alerts] == keys
    assert [alert.times_raised for alert in alerts] == [1] * 4
    assert alerts[1].title.startswith(f"Finding {finding_id} has grown: 2 payouts (5000.00000 EUR)")
    assert "It holds 2 payouts by now, more than were told before." in alerts[1].body
    assert alerts[1].severity == "critical"


def test_after_a_decision_about_some_an_alert_counts_from_what_was_left(
    warehouse: Warehouse,
) -> None:
    enter(warehouse, *(payout(one, is_win=False) for one in "abcdef"))
    report_outbox(warehouse.engine)
    finding_id = stored(warehouse, "a").hold_finding_id
    decide(warehouse.engine, finding_id, "lost", transaction_ids=list("abcde"))
    enter(warehouse, payout("g", is_win=False))
    report_outbox(warehouse.engine)
    alerts = rows(warehouse, "SELECT alert_key FROM ops.alert ORDER BY alert_id")
    assert [one.alert_key for one in alerts] == [f"finding/{finding_id}", f"finding/{finding_id}/2"]


def test_no_alert_is_raised_again_for_fewer_than_were_told(warehouse: Warehouse) -> None:
    enter(warehouse, *(payout(one, is_win=False) for one in "abcdef"))
    report_outbox(warehouse.engine)
    for one in "abcde":
        answer_late(warehouse, one)
    enter(warehouse, payout("g", is_win=False))
    report_outbox(warehouse.engine)
    [finding] = rows(warehouse, "SELECT * FROM ops.finding")
    assert (finding.times_seen, finding.detail["count"]) == (2, 2)
    assert len(rows(warehouse, "SELECT FROM ops.alert")) == 1


# --- two people ---------------------------------------------------------------------------------


@pytest.fixture
def pair(warehouse: Warehouse) -> int:
    """The finding of two payouts, of 2500 EUR each."""
    return held_after_a_send(warehouse, "transactions_in_doubt", "a", "b")


def awaits(resolution: Resolution) -> bool:
    assert not (resolution.awaits_second_person and resolution.is_closed)
    return resolution.awaits_second_person


def lose(warehouse: Warehouse, finding_id: int, **given: Any) -> Resolution:
    return decide(warehouse.engine, finding_id, "lost", **({"above": ONE_CENT_LESS} | given))


def test_what_the_first_person_decides_is_recorded_and_changes_nothing(
    warehouse: Warehouse, pair: int
) -> None:
    before, asked = stored(warehouse, "a"), finding_of(warehouse, pair)
    resolution = lose(warehouse, pair)
    assert awaits(resolution)
    assert (stored(warehouse, "a"), finding_of(warehouse, pair)) == (before, asked)
    [decided] = rows(warehouse, _DECISIONS)
    assert (decided.awaits_second_person, decided.first_decision_id) == (True, None)
    assert decided.state_after["dispositions"] == {"open": 2}


def test_it_is_carried_out_when_another_person_decides_the_same(
    warehouse: Warehouse, pair: int
) -> None:
    first = lose(warehouse, pair)
    second = lose(warehouse, pair, by="bert")
    assert not awaits(second)
    assert second.is_closed
    assert [stored(warehouse, one).evidence for one in "ab"] == [
        {"decision_id": second.decision_id, "decided_by": "bert"}
    ] * 2
    _, decided = rows(warehouse, _DECISIONS)
    assert (decided.awaits_second_person, decided.first_decision_id) == (False, first.decision_id)


@pytest.mark.parametrize("again", ["anna", "Anna", " ANNA\t"])
def test_the_same_person_does_not_count_twice(warehouse: Warehouse, pair: int, again: str) -> None:
    lose(warehouse, pair)
    told = refused(warehouse, pair, "lost", by=again, above=ONE_CENT_LESS)
    assert "anna has already decided so (decision 1), and so much takes two people" in told
    assert not awaits(lose(warehouse, pair, by="bert"))


def test_up_to_the_amount_one_person_is_enough(warehouse: Warehouse, pair: int) -> None:
    assert not awaits(lose(warehouse, pair, above=TWO_PAYOUTS))
    assert stored(warehouse, "a").disposition == "lost"


def test_the_amount_is_compared_in_each_currency_by_itself(warehouse: Warehouse) -> None:
    enter(warehouse, payout("a"), payout("b", currency="GBP"), payout("c", currency="GBP"))
    finding_id = hold(warehouse, "transactions_contested", "a", "b", "c")
    assert awaits(lose(warehouse, finding_id, above=ONE_CENT_LESS))
    assert not awaits(lose(warehouse, finding_id, above=TWO_PAYOUTS))


def test_no_other_decision_takes_two(warehouse: Warehouse, pair: int) -> None:
    for decision, ids in (("keep", None), ("processed", ["a"]), ("send_again", ["b"])):
        assert not awaits(decide(warehouse.engine, pair, decision, above="0", transaction_ids=ids))


def test_another_choice_of_payouts_is_another_decision(warehouse: Warehouse, pair: int) -> None:
    above = "2499.99999"
    assert awaits(lose(warehouse, pair, above=above))
    assert awaits(lose(warehouse, pair, above=above, by="bert", transaction_ids=["a"]))
    assert awaits(lose(warehouse, pair, above=above, by="carl", transaction_ids=["b"]))
    last = lose(warehouse, pair, above=above, by="anna", transaction_ids=["a"])
    assert not awaits(last)
    assert rows(warehouse, _DECISIONS)[-1].first_decision_id == 2
    assert [stored(warehouse, one).disposition for one in "ab"] == ["lost", "open"]


def test_a_payout_that_joins_or_leaves_meanwhile_begins_it_anew(
    warehouse: Warehouse, pair: int
) -> None:
    lose(warehouse, pair, above="0")
    enter(warehouse, payout("c"))
    assert hold(warehouse, "transactions_in_doubt", "c") == pair
    assert awaits(lose(warehouse, pair, above="0", by="bert"))
    answer_late(warehouse, "c")
    assert not awaits(lose(warehouse, pair, above="0", by="bert"))
    assert rows(warehouse, _DECISIONS)[-1].first_decision_id == 1


def test_any_other_decision_about_the_finding_takes_it_back(
    warehouse: Warehouse, pair: int
) -> None:
    lose(warehouse, pair)
    decide(warehouse.engine, pair, "keep", by="bert", transaction_ids=["a"])
    assert awaits(lose(warehouse, pair, by="carl"))
    assert not awaits(lose(warehouse, pair, by="anna"))
    assert rows(warehouse, _DECISIONS)[-1].first_decision_id == 3


def test_one_person_does_not_get_round_it_by_many_small_decisions(
    warehouse: Warehouse, pair: int
) -> None:
    above = "2500"
    assert not awaits(lose(warehouse, pair, above=above, transaction_ids=["a"]))
    assert awaits(lose(warehouse, pair, above=above, transaction_ids=["b"]))
    assert not awaits(lose(warehouse, pair, above=above, by="bert", transaction_ids=["b"]))


def test_what_two_people_gave_up_does_not_count_for_one(warehouse: Warehouse, pair: int) -> None:
    lose(warehouse, pair, above="0", transaction_ids=["a"])
    lose(warehouse, pair, above="0", by="bert", transaction_ids=["a"])
    assert not awaits(lose(warehouse, pair, above="2500"))


# --- at once ------------------------------------------------------------------------------------


def answer_late(warehouse: Warehouse, transaction_id: str) -> None:
    with transaction(warehouse.engine, "sender") as connection:
        send(connection, _ANSWERED, transaction_id)


_ANSWERED = (
    "disposition = 'processed', hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL,"
    ' evidence = \'{"attempt_id": 1, "code": "RS_OK"}\''
)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_for_waiting(warehouse: Warehouse, sessions: int) -> None:
    wait_for(
        f"{sessions} sessions wait for a lock",
        lambda: len(rows(warehouse, "SELECT FROM pg_locks WHERE NOT granted")) == sessions,
        60,
    )


def test_an_answer_that_comes_first_refuses_the_decision_about_what_was_seen_before(
    warehouse: Warehouse, pair: int
) -> None:
    refusals = []

    def give_up() -> None:
        with pytest.raises(DecisionRefused) as raised:
            decide(warehouse.engine, pair, "lost")
        refusals.append(str(raised.value))

    with transaction(warehouse.engine, "sender") as connection:
        send(connection, _ANSWERED, "a")
        person = in_thread(give_up)
        wait_for_waiting(warehouse, 1)
    person.join(30)
    [told] = refusals
    assert f"is about 2 payouts, but finding {pair} holds 1 now (2500.00000 EUR)." in told
    assert rows(warehouse, _DECISIONS) == []
    assert [stored(warehouse, one).disposition for one in "ab"] == ["processed", "open"]

    decide(warehouse.engine, pair, "lost")
    assert stored(warehouse, "a").evidence["code"] == "RS_OK"
    assert stored(warehouse, "b").disposition == "lost"
    [decided] = rows(warehouse, _DECISIONS)
    assert decided.state_before["transaction_ids"] == ["b"]
    assert finding_of(warehouse, pair).closed_by == "decision"


def test_an_answer_that_comes_second_finds_the_payout_disposed_of(
    warehouse: Warehouse, pair: int
) -> None:
    decide(warehouse.engine, pair, "lost")
    with pytest.raises(Exception, match="it is lost for ever"):
        answer_late(warehouse, "a")


def test_when_every_payout_was_answered_the_finding_closes_by_itself(
    warehouse: Warehouse, pair: int
) -> None:
    answer_late(warehouse, "a")
    answer_late(warehouse, "b")
    answered = stored(warehouse, "a"), stored(warehouse, "b")
    with pytest.raises(DecisionRefused, match="holds no payout any more"):
        decide(warehouse.engine, pair, "lost")
    assert (stored(warehouse, "a"), stored(warehouse, "b")) == answered
    assert rows(warehouse, _DECISIONS) == []
    finding = finding_of(warehouse, pair)
    assert (finding.state, finding.closed_by) == ("closed", "system")
    assert "is closed already" in refused(warehouse, pair, "lost")


def test_it_does_not_if_another_payout_has_joined_it_meanwhile(
    warehouse: Warehouse, pair: int
) -> None:
    with transaction(warehouse.engine, "resolver") as connection:
        payouts.close_if_nothing_is_held(connection, finding_of(warehouse, pair))
    assert finding_of(warehouse, pair).state == "open"


def test_a_payout_named_that_was_answered_meanwhile_refuses_it_all(
    warehouse: Warehouse, pair: int
) -> None:
    answer_late(warehouse, "a")
    told = refused(warehouse, pair, "lost", transaction_ids=["a", "b"])
    assert "does not hold a." in told


def both_at_once(
    warehouse: Warehouse, finding_id: int, people: dict[str, str], above: str
) -> dict[str, Resolution | DecisionRefused]:
    """By name, what became of the decisions that these people took at the same moment."""
    outcomes: dict[str, Resolution | DecisionRefused] = {}

    def answer(by: str, decision: str) -> None:
        try:
            outcomes[by] = decide(warehouse.engine, finding_id, decision, by=by, above=above)
        except DecisionRefused as refusal:
            outcomes[by] = refusal

    with transaction(warehouse.engine, "sender") as connection:
        lock_source(connection, "wallet")
        threads = [in_thread(lambda one=one: answer(*one)) for one in people.items()]
        wait_for_waiting(warehouse, len(people))
    for thread in threads:
        thread.join(30)
    return outcomes


def test_of_two_people_who_decide_differently_at_once_one_wins(
    warehouse: Warehouse, pair: int
) -> None:
    people = {"anna": "lost", "bert": "processed"}
    outcomes = both_at_once(warehouse, pair, people, above="1000000")
    [decided] = rows(warehouse, _DECISIONS)
    assert isinstance(outcomes[decided.decided_by], Resolution)
    [refusal] = [one for one in outcomes.values() if isinstance(one, DecisionRefused)]
    assert "is closed already" in str(refusal)
    assert {stored(warehouse, one).disposition for one in "ab"} == {people[decided.decided_by]}


def test_two_people_who_decide_the_same_at_once_are_two(warehouse: Warehouse, pair: int) -> None:
    outcomes = both_at_once(warehouse, pair, {"anna": "lost", "bert": "lost"}, above="0")
    assert sorted(awaits(one) for one in outcomes.values() if isinstance(one, Resolution)) == [
        False,
        True,
    ]
    first, second = rows(warehouse, _DECISIONS)
    assert second.first_decision_id == first.decision_id
    assert stored(warehouse, "b").disposition == "lost"
