"""The proof can fail: mistakes that somebody could make in the design of sending, each caught.

Each mistake is made on purpose, by a patch, and gets a history in which it matters; then the
checker, or how the history ends, has to tell.  The same histories without a mistake are clean, else
a catch would prove nothing.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from include.payouts import (
    answers,
    attempts,
    doubts,
    due,
    judging,
    posting,
    sending,
    stages,
    windows,
)
from include.payouts.answers import Closed, Told
from include.payouts.attempts import Attempt, Batch, Sender
from include.payouts.judging import ItemJudgement, ItemOutcome, Judgement, Result
from include.payouts.outbox import freeze_new
from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped
from include.providers import wallet
from include.providers.deadlines import now
from include.providers.http import Answer
from include.providers.wallet import CodeClass, join_items, read_answer
from include.sandbox.addresses import WALLET_SECRET
from include.sandbox.client import Sandbox
from include.warehouse.database import transaction
from include.warehouse.leases import LeaseLost, is_last
from tests.killing import Task, Worker
from tests.payouts.entering import DAY, rows
from tests.payouts.refusals import lost_without_refusal
from tests.payouts.resending import GIVING_WAY, Resend, all_are, names, partner_at
from tests.warehouses import Warehouse

PAYOUTS = names(23)
# The first two requests hold eleven payouts; this one is in the third.
ONE = PAYOUTS[11]
FINAL, UNKNOWN = "RS_ERROR_USER_DISABLED", "RS_ERROR_MOON_IS_FULL"
DUPLICATE = "RS_ERROR_DUPLICATE_TRANSACTION"


@pytest.fixture
def resend(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[Resend]:
    """As far as the breaker goes, what is refused here is refused for a good reason."""
    resend = Resend(warehouse, sandbox)
    resend.change(wallet_refusal_share_limit=0.5)
    yield resend
    resend.as_owner("ALTER TABLE wallet.transaction ENABLE TRIGGER ALL")


# --- histories: what happens, and what is said of it --------------------------------------------


def run(resend: Resend) -> None:
    """A run, which may be stopped: with a mistake in it, it does not always end well."""
    with suppress(
        SendingStopped, BreakerTripped, PartnerUnavailable, LeaseLost, SQLAlchemyError, KeyError
    ):
        resend.send()


def told(resend: Resend, expected: dict[str, str] | None = None) -> list[str]:
    """What the checker finds, what the wallet's books say, and what became of the wrong payouts."""
    states = resend.states()
    expected = all_are("processed", states) | (expected or {})
    return [
        *resend.wrong(is_left_alone=True),
        *lost_without_refusal(resend),
        *(
            f"payout {name} ended as {states[name]}, not as {state}"
            for name, state in expected.items()
            if states[name] != state
        ),
    ]


def order_code(resend: Resend, code: str, *concerned: str) -> None:
    """The wallet answers these, or all, with a code."""
    order = {"code": code, "transactions": list(concerned)} if concerned else {"code": code}
    resend.sandbox.configure("wallet", codes=[order])


def a_day_left_alone(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    run(resend)
    return told(resend)


def one_request_is_executed_and_not_answered(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "reset_before_answer", after_calls=2)
    run(resend)
    return told(resend)


def one_payout_is_refused(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    order_code(resend, FINAL, ONE)
    run(resend)
    return told(resend, {ONE: "lost"})


def one_payout_is_a_duplicate(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    order_code(resend, DUPLICATE, ONE)
    run(resend)
    return told(resend, {ONE: "contested"})


def one_payout_has_an_unknown_code(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    order_code(resend, UNKNOWN, ONE)
    run(resend)
    return told(resend, {ONE: "unclear"})


def one_request_is_refused_at_the_door(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "status", status=401, after_calls=2)
    run(resend)
    run(resend)
    return told(resend)


def one_payout_is_neither_executed_nor_answered(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "missing_item", entry=-1, executed_items=9, after_calls=1)
    run(resend)
    return told(resend)


def one_payout_has_two_answers(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "contradicting_items", entry=0, after_calls=2)
    run(resend)
    return told(resend, {ONE: "contested"})


def all_is_refused(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    order_code(resend, FINAL)
    run(resend)
    pending = all_are("refusal_pending", PAYOUTS[:11]) | all_are("open", PAYOUTS[11:])
    sent = {name for request in resend.requests() for name in request}
    too_many = [f"{len(sent)} payouts went to a wallet that refuses all"] if len(sent) > 11 else []
    return told(resend, pending) + too_many


def all_is_answered_with_an_unknown_code(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    resend.sandbox.configure("wallet", stores_refusals=False)
    order_code(resend, UNKNOWN)
    run(resend)
    found = told(resend, all_are("open", PAYOUTS))
    resend.sandbox.configure("wallet", codes=[])
    run(resend)
    return found + told(resend)


def refused_after_a_doubt(resend: Resend) -> list[str]:
    """It was booked, which nobody has heard; then its player is disabled, and that comes first."""
    resend.change(wallet_sends_a_window=1)
    resend.sandbox.configure("wallet", checks_accounts_first=True)
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "missing_item", entry=0, after_calls=2)
    run(resend)
    order_code(resend, FINAL, ONE)
    resend.let_the_window_close()
    run(resend)
    return told(resend, {ONE: "contested"})


def the_wallet_books_what_comes_again(resend: Resend) -> list[str]:
    resend.change(wallet_partner_idempotent=False)
    resend.sandbox.configure("wallet", repeats="credited_again")
    resend.enter(*PAYOUTS)
    resend.sandbox.fault("wallet", "missing_item", entry=0, after_calls=2)
    run(resend)
    return told(resend, {ONE: "in_doubt"})


def one_is_held_after_its_bytes_were_frozen(resend: Resend) -> list[str]:
    resend.enter(*PAYOUTS)
    freeze_new(resend.warehouse.engine)
    resend.enter(ONE, amount=1)
    run(resend)
    return told(resend, {ONE: "changed"})


# With two senders: one stands still at a certain place, and another one comes.


def frozen_between_two_requests(resend: Resend) -> list[str]:
    """The other one is stopped at once, so that something is left for the first to send."""
    resend.enter(*PAYOUTS)
    with first_sender(resend, answers, "close_attempts", after=True) as first:
        resend.sandbox.fault("wallet", "status", status=401)
        run(resend)
        first.go_on()
        first.wait()
    found = resend.wrong()
    run(resend)
    return found + told(resend)


def frozen_before_it_sends(resend: Resend) -> list[str]:
    """With its attempt committed; the other one comes long before the deadline of that."""
    resend.change(wallet_deadline_seconds=2.0)
    resend.enter(*PAYOUTS)
    with first_sender(resend, attempts, "commit_attempts", after=True) as first:
        run(resend)
        found = told(resend)
        first.go_on()
        first.wait()
    return found + told(resend)


def frozen_right_before_the_first_byte(resend: Resend) -> list[str]:
    """For so long that its request would come late, even for one that was on its way."""
    resend.enter(*PAYOUTS)
    with first_sender(resend, wallet, "post_settlement") as first:
        run(resend)
        wait_until(resend, "SELECT min(deadline_at) + interval '1.2 s' FROM wallet.attempt")
        first.go_on()
        first.wait()
    return told(resend)


def frozen_with_an_answer(resend: Resend) -> list[str]:
    """The other one may not send what is in doubt, so it is held; then the answer is stored."""
    resend.change(wallet_partner_idempotent=False)
    resend.enter(*PAYOUTS)
    with first_sender(resend, answers, "close_attempts") as first:
        run(resend)
        found = told(resend, {PAYOUTS[0]: "in_doubt"})
        first.go_on()
        first.wait()
    return found + told(resend)


def frozen_with_an_answer_for_what_is_given_up(resend: Resend) -> list[str]:
    resend.change(wallet_partner_idempotent=False)
    resend.enter(*PAYOUTS)
    with first_sender(resend, answers, "close_attempts") as first:
        run(resend)
        resend.decide("lost")
        found = told(resend, {PAYOUTS[0]: "lost"})
        first.go_on()
        first.wait()
    return found + told(resend, {PAYOUTS[0]: "lost"})


@contextmanager
def first_sender(
    resend: Resend, module: ModuleType, function: str, *, after: bool = False
) -> Iterator[Worker]:
    """A sender that stands still right before, or after, its first call of a function; its lease
    has run out.
    """

    def send_and_freeze(engine: Engine) -> None:
        # This is in a process of its own, where nobody else meets the patch.
        do = getattr(module, function)
        calls: list[int] = []

        def freeze_once(*given: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 1 and not after:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            result = do(*given, **named)
            if len(calls) == 1 and after:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return result

        setattr(module, function, freeze_once)
        sending.send(engine, partner_at(resend.sandbox), resend.settings, DAY, run_id="first")

    tasks = [Task("send", send_and_freeze)]
    # It may be frozen while it renews its lease.
    with Worker(resend.warehouse.pipelines_url, tasks, session=GIVING_WAY) as worker:
        assert worker.wait() == "frozen", worker.error()
        resend.as_owner("UPDATE ops.lease SET expires_at = clock_timestamp()")
        yield worker


def wait_until(resend: Resend, moment: str) -> None:
    [[seconds]] = rows(
        resend.warehouse, f"SELECT extract(epoch FROM ({moment}) - clock_timestamp())"
    )
    time.sleep(max(0.0, float(seconds)))


# --- mistakes -----------------------------------------------------------------------------------


Patch = pytest.MonkeyPatch
Mistake = Callable[[Resend, Patch], None]


def silence_means_lost(resend: Resend, patch: Patch) -> None:
    patch.setattr(posting, "judge_error", lambda sent, error: refused(sent))


def a_refusal_at_the_door_means_lost(resend: Resend, patch: Patch) -> None:
    on_judgement(patch, lambda judged: refused(ids(judged)) if judged.stops else judged)


def the_envelope_speaks_for_all(resend: Resend, patch: Patch) -> None:
    def judge(sent: dict[str, bytes], answer: Answer, codes: Any) -> Judgement:
        judged = judge_answer(sent, answer, codes)
        if read_answer(answer.body).code != "RS_OK":
            return judged
        return of_each(judged, lambda item: item._replace(outcome=ItemOutcome.OK))

    judge_answer = judging.judge_answer
    patch.setattr(posting, "judge_answer", judge)


def what_is_missing_is_processed(resend: Resend, patch: Patch) -> None:
    turn_into(patch, ItemOutcome.IN_DOUBT, ItemOutcome.OK)


def a_duplicate_means_lost(resend: Resend, patch: Patch) -> None:
    patch.setitem(judging._OUTCOMES, CodeClass.DUPLICATE, ItemOutcome.REFUSED)


def an_unknown_code_means_lost(resend: Resend, patch: Patch) -> None:
    patch.setitem(judging._OUTCOMES, CodeClass.OTHER, ItemOutcome.REFUSED)


def of_two_answers_the_last_counts(resend: Resend, patch: Patch) -> None:
    def judge(name: str, written: bytes, answers: Sequence[Any], codes: Any) -> ItemJudgement:
        return judge_item(name, written, answers[-1:], codes)

    judge_item = judging._judge_item
    patch.setattr(judging, "_judge_item", judge)


def a_refusal_after_a_doubt_means_lost(resend: Resend, patch: Patch) -> None:
    patch.setattr(answers, "_doubted_elsewhere", lambda *_: set())


def an_unknown_code_is_held_though_nothing_was_paid(resend: Resend, patch: Patch) -> None:
    def hold(self: Any) -> None:
        self._has_ok = True
        settle(self)

    settle = sending._Run._settle_unclear
    patch.setattr(sending._Run, "_settle_unclear", hold)


def there_is_no_breaker(resend: Resend, patch: Patch) -> None:
    patch.setattr(stages, "too_many", lambda *_, **__: frozenset())


def there_is_no_canary(resend: Resend, patch: Patch) -> None:
    patch.setattr(
        sending._Run, "_send_canary", lambda self, currency, ids: self._proven.add(currency)
    )


def what_is_in_doubt_is_sent_again_to_anybody(resend: Resend, patch: Patch) -> None:
    def close(*given: Any, is_idempotent: bool) -> Closed:
        return close_attempts(*given, is_idempotent=True)

    close_attempts, limits = answers.close_attempts, doubts._limits
    patch.setattr(answers, "close_attempts", close)
    patch.setattr(doubts, "_limits", lambda *given: limits(*given) | {"is_idempotent": True})


def the_attempt_is_committed_with_its_answer(resend: Resend, patch: Patch) -> None:
    intents: dict[int, tuple[Any, ...]] = {}

    def intend(
        engine: Engine, sender: Sender, batches: Sequence[Batch], seconds: float
    ) -> list[Attempt | None]:
        return [intend_one(engine, sender, batch, seconds) for batch in batches]

    def intend_one(engine: Engine, sender: Sender, batch: Batch, seconds: float) -> Attempt | None:
        found = rows(
            resend.warehouse,
            "SELECT transaction_id, item FROM wallet.transaction WHERE disposition = 'open'",
        )
        items = {
            row.transaction_id: bytes(row.item) for row in found if row.transaction_id in batch.ids
        }
        intents[-len(intents)] = engine, sender, [batch], seconds
        begun_at = now()
        attempt = Attempt(1 - len(intents), items, begun_at=begun_at, ends_at=begun_at + seconds)
        return attempt if items else None

    def commit_and_close(
        engine: Engine, sender: Sender, told: Sequence[Told], **named: Any
    ) -> Closed:
        committed = [commit_attempts(*intents[each.attempt_id])[0] for each in told]
        late = [
            each._replace(attempt_id=attempt.attempt_id)
            for each, attempt in zip(told, committed, strict=True)
            if attempt
        ]
        return close_attempts(engine, sender, late, **named)

    commit_attempts, close_attempts = attempts.commit_attempts, answers.close_attempts
    patch.setattr(attempts, "commit_attempts", intend)
    patch.setattr(answers, "close_attempts", commit_and_close)


def items_are_serialised_anew(resend: Resend, patch: Patch) -> None:
    def join_anew(items: list[bytes]) -> bytes:
        return join_items([json.dumps(json.loads(item)).encode() for item in items])

    patch.setattr(attempts, "join_items", join_anew)


def the_whole_request_is_sent_again(resend: Resend, patch: Patch) -> None:
    def with_neighbours(
        engine: Engine, sender: Sender, batches: Sequence[Batch], seconds: float
    ) -> list[Attempt | None]:
        requests = [set(request) for request in resend.requests()]
        together = [
            batch._replace(
                ids=sorted(
                    set(batch.ids).union(*(each for each in requests if each & set(batch.ids)))
                )
            )
            for batch in batches
        ]
        return commit_attempts(engine, sender, together, seconds)

    commit_attempts = attempts.commit_attempts
    patch.setattr(attempts, "commit_attempts", with_neighbours)
    without(patch, attempts, "_LOCK_DUE", "AND disposition = 'open' AND hold_reason IS NULL")


def what_is_held_is_sent(resend: Resend, patch: Patch) -> None:
    without(patch, attempts, "_LOCK_DUE", "AND hold_reason IS NULL")
    without(patch, due, "_FRESH", "AND hold_reason IS NULL")


def there_is_no_fence(resend: Resend, patch: Patch) -> None:
    for module in (attempts, answers, windows, stages, doubts):
        patch.setattr(module, "check_lease", lambda *_: None)


def nobody_waits_for_the_deadline_of_another(resend: Resend, patch: Patch) -> None:
    without(patch, windows, "_ABANDON", "AND deadline_at <= clock_timestamp()")
    without(patch, attempts, "_LOCK_DUE", "AND deadline_at > clock_timestamp()", "AND false")
    without(patch, doubts, "_AGAIN", "greatest(\n    bound_until,", "greatest(")


def the_deadline_is_not_asked_for(resend: Resend, patch: Patch) -> None:
    def commit(*given: Any) -> list[Attempt | None]:
        return [
            attempt and replace(attempt, begun_at=now() + 60, ends_at=attempt.ends_at + 60)
            for attempt in commit_attempts(*given)
        ]

    commit_attempts = attempts.commit_attempts
    patch.setattr(attempts, "commit_attempts", commit)


def a_late_answer_is_thrown_away(resend: Resend, patch: Patch) -> None:
    def close(engine: Engine, sender: Sender, *given: Any, **named: Any) -> Closed:
        with transaction(engine, "sender") as connection:
            if not is_last(connection, sender.lease):
                raise LeaseLost(sender.lease)
        return close_attempts(engine, sender, *given, **named)

    close_attempts = answers.close_attempts
    patch.setattr(answers, "close_attempts", close)


def what_is_lost_becomes_processed(resend: Resend, patch: Patch) -> None:
    """Without the trigger that would stop it before the checker sees it."""
    resend.as_owner("ALTER TABLE wallet.transaction DISABLE TRIGGER keep_disposed")
    without(patch, answers, "_PROCESS", "AND disposition = 'open'")


def the_secret_stands_in_the_attempt(resend: Resend, patch: Patch) -> None:
    on_judgement(patch, lambda judged: replace(judged, detail=f"signed with {WALLET_SECRET}"))


def refused(sent: Sequence[str]) -> Judgement:
    """All of them refused for their own sake."""
    items = tuple(ItemJudgement(name, ItemOutcome.REFUSED, "RS_ERROR") for name in sent)
    return Judgement(Result.ANSWERED, items)


def ids(judged: Judgement) -> list[str]:
    return [item.transaction_id for item in judged.items]


def on_judgement(patch: Patch, change: Callable[[Judgement], Judgement]) -> None:
    """Judge every answer otherwise."""
    judge_answer = judging.judge_answer
    patch.setattr(posting, "judge_answer", lambda *given: change(judge_answer(*given)))


def turn_into(patch: Patch, outcome: ItemOutcome, other: ItemOutcome) -> None:
    """Take one outcome of an item for another one."""

    def change(item: ItemJudgement) -> ItemJudgement:
        return item._replace(outcome=other) if item.outcome is outcome else item

    on_judgement(patch, lambda judged: of_each(judged, change))


def of_each(judged: Judgement, change: Callable[[ItemJudgement], ItemJudgement]) -> Judgement:
    return replace(judged, items=tuple(change(item) for item in judged.items))


def without(
    patch: Patch, module: ModuleType, statement: str, fragment: str, instead: str = ""
) -> None:
    """Leave a fragment out of an SQL statement of a module."""
    written = str(getattr(module, statement))
    assert fragment in written, f"{statement} says it otherwise: change this mistake with it"
    patch.setattr(module, statement, text(written.replace(fragment, instead)))


# --- proof --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caught:
    """A mistake, the history in which it matters, and what is said of it."""

    mistake: Mistake
    history: Callable[[Resend], list[str]]
    sentence: str


CAUGHT = [
    Caught(
        silence_means_lost,
        one_request_is_executed_and_not_answered,
        f"payout {ONE} is lost, but the wallet credited it",
    ),
    Caught(
        the_envelope_speaks_for_all,
        one_payout_is_refused,
        f"payout {ONE} is processed, but the wallet never credited it",
    ),
    Caught(
        a_refusal_at_the_door_means_lost,
        one_request_is_refused_at_the_door,
        f"payout {ONE} is lost, but the wallet never refused it for its own sake",
    ),
    Caught(
        what_is_missing_is_processed,
        one_payout_is_neither_executed_nor_answered,
        f"payout {PAYOUTS[10]} is processed, but the wallet never credited it",
    ),
    Caught(
        a_duplicate_means_lost,
        one_payout_is_a_duplicate,
        f"payout {ONE} is lost, but the wallet never refused it for its own sake",
    ),
    Caught(
        an_unknown_code_means_lost,
        one_payout_has_an_unknown_code,
        f"payout {ONE} is lost, but the wallet never refused it for its own sake",
    ),
    Caught(
        of_two_answers_the_last_counts,
        one_payout_has_two_answers,
        f"payout {ONE} is lost, but the wallet credited it",
    ),
    Caught(
        a_refusal_after_a_doubt_means_lost,
        refused_after_a_doubt,
        f"payout {ONE} is lost, but the wallet credited it",
    ),
    Caught(
        an_unknown_code_is_held_though_nothing_was_paid,
        all_is_answered_with_an_unknown_code,
        "payout t000 ended as unclear, not as open",
    ),
    Caught(there_is_no_breaker, all_is_refused, "payout t022 ended as lost, not as open"),
    Caught(there_is_no_canary, all_is_refused, "23 payouts went to a wallet that refuses all"),
    Caught(
        what_is_in_doubt_is_sent_again_to_anybody,
        the_wallet_books_what_comes_again,
        f"the wallet credited {ONE} 2 times",
    ),
    Caught(
        the_attempt_is_committed_with_its_answer,
        a_day_left_alone,
        "request 1 has no attempt that was committed before it",
    ),
    Caught(
        items_are_serialised_anew,
        a_day_left_alone,
        "request 1 has other bytes for t000 than were frozen",
    ),
    Caught(
        the_whole_request_is_sent_again,
        one_payout_is_neither_executed_nor_answered,
        "holds t001, which was processed",
    ),
    Caught(
        what_is_held_is_sent,
        one_is_held_after_its_bytes_were_frozen,
        f"holds {ONE}, which was held (changed)",
    ),
    Caught(there_is_no_fence, frozen_between_two_requests, "is of epoch 1, behind one of epoch 2"),
    Caught(
        nobody_waits_for_the_deadline_of_another,
        frozen_before_it_sends,
        "holds t000 before the deadline of attempt 1",
    ),
    Caught(
        the_deadline_is_not_asked_for,
        frozen_right_before_the_first_byte,
        "came after the deadline of attempt",
    ),
    Caught(
        a_late_answer_is_thrown_away,
        frozen_with_an_answer,
        "payout t000 ended as in_doubt, not as processed",
    ),
    Caught(
        what_is_lost_becomes_processed,
        frozen_with_an_answer_for_what_is_given_up,
        "payout t000 was ('lost',",
    ),
    Caught(the_secret_stands_in_the_attempt, a_day_left_alone, "a secret stands in wallet.attempt"),
]


@pytest.mark.parametrize("caught", CAUGHT, ids=lambda caught: caught.mistake.__name__)
def test_a_mistake_is_caught(
    resend: Resend, monkeypatch: pytest.MonkeyPatch, caught: Caught
) -> None:
    caught.mistake(resend, monkeypatch)
    found = caught.history(resend)
    assert any(caught.sentence in violation for violation in found), found


@pytest.mark.parametrize(
    "history",
    dict.fromkeys(caught.history for caught in CAUGHT),
    ids=lambda history: history.__name__,
)
def test_the_same_history_without_a_mistake_is_clean(
    resend: Resend, history: Callable[[Resend], list[str]]
) -> None:
    assert history(resend) == []
