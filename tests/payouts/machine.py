"""A resend played by chance: whatever happens in whatever order, the wallet and the outbox agree.

Hypothesis draws histories of everything that entrants, partners, senders and people do, and makes a
history that goes wrong as short as it can.  After each step the checker looks; at the end, when all
disturbances are over, everything has to come to its end.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from include.payouts import answers, attempts, windows
from include.payouts.due import plan
from include.payouts.importing import import_file
from include.payouts.judging import Judgement, judge_answer, judge_error, judge_unsent
from include.payouts.outbox import freeze_new
from include.payouts.outcome import DayUnfinished, check_outbox, check_outcome
from include.payouts.sending import LEASE, BreakerTripped, PartnerUnavailable, SendingStopped
from include.payouts.stages import CANARY, stopped_currencies
from include.providers import wallet
from include.providers.errors import ProviderError
from include.providers.http import Answer
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.warehouse.decisions import DecisionRefused, resolve
from include.warehouse.findings import KINDS
from include.warehouse.leases import hold_lease
from tests.payouts.entering import DAY, as_line, payout, rows, write_ndjson
from tests.payouts.refusals import lost_without_refusal
from tests.payouts.resending import SETTINGS, Resend
from tests.warehouses import Warehouse

STEPS = 14
# What a run says when a person has to act, or when it cannot go on by itself.
_ENDS = (SendingStopped, BreakerTripped, PartnerUnavailable)
_QUICK = SETTINGS.model_copy(
    update={
        "wallet_deadline_seconds": 0.4,
        "wallet_requests_at_once": 2,
        "wallet_stage_items": 6,
        "wallet_refusal_sample": 4,
    }
)
_ROUNDS = 12

Fault = tuple[str, dict[str, Any]]
"""A fault's kind, and how it is ordered."""

# The partner refuses a request as a whole, and executes none of it.
_REFUSALS: list[Fault] = [
    *(("status", {"status": status}) for status in (400, 401, 403, 404, 413, 422, 429)),
    ("redirect", {}),
]
# Nothing can be concluded, whether it was executed or not.
_SILENCES: list[Fault] = [
    *(("status", {"status": status}) for status in (402, 408, 409, 500, 503)),
    *((kind, {}) for kind in ("reset_before_answer", "closed_without_answer", "reset_in_body")),
    *((kind, {}) for kind in ("truncated_body", "bad_status_line", "malformed_json", "html_page")),
    *((kind, {}) for kind in ("wrong_envelope", "empty_page", "silence")),
]
# It is executed, and answered in a way that says less than it should, or more.
_ODD_ANSWERS: list[Fault] = [
    ("missing_item", {"entry": 0}),
    ("missing_item", {"entry": -1}),
    ("foreign_item", {}),
    ("contradicting_items", {"entry": 0}),
    ("unknown_value", {"entry": 0}),
    ("changed_envelope", {"changes": {"status": "RS_ERROR"}}),
    ("changed_envelope", {"changes": {"status": "RS_ERROR_INVALID_TOKEN"}}),
    ("duplicated_entry", {}),
    ("shuffled_page", {}),
    ("entry_without_id", {}),
    ("other_status", {"status": 201}),
    ("late_execution", {"seconds": 0.6}),
]
# What a partner books and answers with an unknown code is only harmless if he books it once.
_ONLY_OF_WHO_BOOKS_ONCE = {"unknown_value"}


def _ordered(
    faults: list[Fault], times: int = 1, executed: st.SearchStrategy[Any] | None = None
) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda fault, executed, **order: (fault[0], {**fault[1], **executed, **order}),
        st.sampled_from(faults),
        executed if executed is not None else st.just({}),
        times=st.integers(1, times),
        after_calls=st.sampled_from([0, 0, 0, 1, 2]),
    )


_EXECUTED = st.sampled_from(
    [{"executed": True}, {"executed": False}, {"executed_items": 1}, {"executed_items": 2}]
)
_FAULTS = _ordered(_REFUSALS, times=2) | _ordered(_SILENCES, 4, _EXECUTED) | _ordered(_ODD_ANSWERS)

_CODES = {
    "final": "RS_ERROR_USER_DISABLED",
    "also final": "RS_ERROR_LIMIT_REACHED",
    "duplicate": "RS_ERROR_DUPLICATE_TRANSACTION",
    "unknown": "RS_ERROR_MOON_IS_FULL",
    "authentication": "RS_ERROR_INVALID_TOKEN",
}
_MEANINGS = st.sampled_from(["ok", "ok", "final", "final", *_CODES])


@dataclass(frozen=True)
class _Frozen:
    """A sender that stands still with an attempt: it was answered, or no byte of it was sent."""

    sender: attempts.Sender
    attempt: attempts.Attempt
    judgement: Judgement
    answer: Answer | None


class ResendMachine(RuleBasedStateMachine):
    """One outbox, its partner, those who send and those who decide."""

    warehouse: Warehouse
    sandbox: Sandbox
    folder: Path

    payouts = Bundle("payouts")
    frozen = Bundle("frozen")

    def __init__(self) -> None:
        super().__init__()
        self.sandbox.reset()
        self.resend = Resend(self.warehouse, self.sandbox, _QUICK)
        self.resend.as_owner(_EMPTY)
        self.entered = 0
        self.codes: dict[str, str] = {}
        self.stores_refusals = False

    # --- the partner ---------------------------------------------------------------------------

    @initialize(
        target=payouts,
        repeats=st.sampled_from(["first_answer", "first_answer", "duplicate", "credited_again"]),
        stores_refusals=st.booleans(),
        checks_accounts_first=st.booleans(),
        refusals=st.sampled_from(["envelope", "status"]),
        counts=st.tuples(st.integers(1, 12), st.integers(0, 6)),
        meanings=st.lists(_MEANINGS, max_size=8),
        sends_a_window=st.sampled_from([1, 1, 2, 3]),
    )
    def a_partner_and_a_day(
        self,
        repeats: str,
        stores_refusals: bool,
        checks_accounts_first: bool,
        refusals: str,
        counts: tuple[int, int],
        meanings: list[str],
        sends_a_window: int,
    ) -> Any:
        self.stores_refusals = stores_refusals
        self.sandbox.configure(
            "wallet",
            repeats=repeats,
            stores_refusals=stores_refusals,
            checks_accounts_first=checks_accounts_first,
            refusals=refusals,
        )
        self.resend.change(
            wallet_partner_idempotent=repeats != "credited_again",
            wallet_sends_a_window=sends_a_window,
        )
        names = [self._new_names(count) for count in counts]
        for currency, several in zip(("EUR", "USD"), names, strict=True):
            self.resend.enter(*several, currency=currency)
        self._answer_otherwise(dict(zip((*names[1], *names[0]), meanings, strict=False)))
        return multiple(*names[0], *names[1])

    @rule(names=st.lists(payouts, min_size=1, max_size=4), meaning=_MEANINGS)
    def the_partner_answers_otherwise(self, names: list[str], meaning: str) -> None:
        self._answer_otherwise(dict.fromkeys(names, meaning))

    def _answer_otherwise(self, meanings: dict[str, str]) -> None:
        for name, meaning in meanings.items():
            # A refusal for our sake that is repeated for ever would stop every run.
            if meaning != "authentication" or not self.stores_refusals:
                self.codes.pop(name, None)
                if meaning != "ok":
                    self.codes[name] = _CODES[meaning]
        orders = [{"code": code, "transactions": [name]} for name, code in self.codes.items()]
        self.sandbox.configure("wallet", codes=orders)

    # --- the outbox ----------------------------------------------------------------------------

    @rule(
        target=payouts,
        count=st.integers(1, 6),
        currency=st.sampled_from(["EUR", "EUR", "USD"]),
        changes=st.sampled_from([{}, {}, {}, {"is_win": False}, {"is_win": False, "amount": 0}]),
        is_imported=st.booleans(),
        again=st.lists(payouts, max_size=2),
    )
    def payouts_are_entered(
        self,
        count: int,
        currency: str,
        changes: dict[str, Any],
        is_imported: bool,
        again: list[str],
    ) -> Any:
        names = self._new_names(count)
        if is_imported:
            lines = [as_line(name, currency=currency, **changes) for name in (*names, *again)]
            path = write_ndjson(self.folder / "payouts.ndjson", lines)
            import_file(self.warehouse.engine, path, DAY)
        else:
            self.resend.enter(*names, currency=currency, **changes)
        self._look()
        return multiple(*names)

    @rule(name=payouts, amount=st.none() | st.integers(1, 3))
    def one_is_entered_again(self, name: str, amount: int | None) -> None:
        [entered] = rows(
            self.warehouse, "SELECT * FROM wallet.transaction WHERE transaction_id = :id", name
        )
        same = {column: getattr(entered, column) for column in payout(name)}
        self.resend.enter(name, **{**same, "amount": amount or int(entered.amount)})
        self._look()

    # --- who sends -----------------------------------------------------------------------------

    @rule(
        target=payouts,
        fresh=st.integers(0, 8),
        faults=st.lists(_FAULTS, max_size=4),
        batch_items=st.integers(1, 5),
        is_next_window=st.booleans(),
        is_secret_right=st.sampled_from([True] * 9 + [False]),
        is_lock_held=st.sampled_from([False] * 9 + [True]),
    )
    def a_run(
        self,
        fresh: int,
        faults: list[Fault],
        batch_items: int,
        is_next_window: bool,
        is_secret_right: bool,
        is_lock_held: bool,
    ) -> Any:
        names = self._new_names(fresh)
        self.resend.enter(*names)
        is_once = self.resend.settings.wallet_partner_idempotent
        for kind, parameters in faults:
            if is_once or kind not in _ONLY_OF_WHO_BOOKS_ONCE:
                self.sandbox.fault("wallet", kind, **parameters)
        if is_next_window:
            self.resend.let_the_window_close()
        if not is_secret_right:
            self.resend.watch.signs_soundly = False
        if is_lock_held:
            self._let_a_sender_die_holding_the_lock()
        self._check_plan()
        check_outbox(self.warehouse.engine, DAY)
        self.sandbox.configure(
            "wallet", signing_secret=WALLET_SECRET if is_secret_right else "another secret"
        )
        with suppress(*_ENDS):
            self.resend.send(batch_items)
        with suppress(DayUnfinished):
            check_outcome(self.warehouse.engine, DAY, "test")
        self.sandbox.forget_faults()
        self._look(is_left_alone=True)
        return multiple(*names)

    # Most of what may go wrong takes several.
    another_run = a_run
    and_another_run = a_run

    @rule(target=frozen, count=st.integers(1, 4), is_sent=st.booleans())
    def a_sender_freezes(self, count: int, is_sent: bool) -> Any:
        """Or dies: its attempt is committed, perhaps sent, and its answer not stored."""
        engine = self.warehouse.engine
        freeze_new(engine)
        with hold_lease(engine, "sender", LEASE, "frozen", 5.0) as lease:
            sender, _ = windows.open_window(
                engine, lease, "frozen", self.resend.settings.wallet_window_seconds
            )
            windows.close_abandoned(engine, sender)
            fresh = rows(self.warehouse, _FRESH)
            currencies = sorted({row.currency for row in fresh})
            if not currencies or currencies[0] in stopped_currencies(engine):
                return multiple()
            names = [row.transaction_id for row in fresh if row.currency == currencies[0]]
            stage = attempts.Stage(lease.epoch, currencies[0], CANARY)
            [attempt] = attempts.commit_attempts(
                engine,
                sender,
                [attempts.Batch(stage, names[:count])],
                self.resend.settings.wallet_deadline_seconds,
            )
        assert attempt is not None
        self._look()
        return self._post(sender, attempt) if is_sent else _unsent(sender, attempt)

    @rule(sender=consumes(frozen))
    def the_frozen_sender_goes_on(self, sender: _Frozen) -> None:
        told = answers.Told(sender.attempt.attempt_id, sender.judgement, sender.answer)
        answers.close_attempts(
            self.warehouse.engine,
            sender.sender,
            [told],
            is_idempotent=self.resend.settings.wallet_partner_idempotent,
        )
        self._look()

    # --- who decides ---------------------------------------------------------------------------

    @rule(
        data=st.data(),
        decided_by=st.sampled_from(["Anna", "Ben"]),
        second_person_above=st.sampled_from([0, 10**9, 10**9]),
    )
    def decisions(self, data: st.DataObject, decided_by: str, second_person_above: int) -> None:
        """Some of the open findings are answered."""
        for finding_id, kind in self._open_findings():
            choices = ["(nothing)", *sorted(KINDS[kind].decisions)]
            decision = data.draw(st.sampled_from(choices), label=f"about finding {finding_id}")
            if decision != "(nothing)":
                with suppress(DecisionRefused):
                    self._decide(finding_id, decision, decided_by, second_person_above)
        self._look()

    # --- what must be true ---------------------------------------------------------------------

    def _look(self, *, is_left_alone: bool = False) -> None:
        """After every step that has changed anything."""
        assert self.resend.wrong(is_left_alone=is_left_alone) == []
        assert lost_without_refusal(self.resend) == []
        limits = self.resend.settings
        is_idempotent = limits.wallet_partner_idempotent
        for row in rows(self.warehouse, _DOUBTFUL_SENDS):
            told = f"{row.transaction_id}: {row.sends} sends in a window, {row.windows} windows"
            assert row.sends <= (limits.wallet_sends_a_window if is_idempotent else 1), told
            assert row.windows <= (limits.wallet_windows if is_idempotent else 1), told

    def teardown(self) -> None:
        """All disturbances end, and so must everything that is open."""
        self.sandbox.configure("wallet", codes=[], signing_secret=WALLET_SECRET)
        self.sandbox.forget_faults()
        for number in range(_ROUNDS):
            before = self._states()
            # One that is sure to be paid in every currency: else what is unclear stays open.
            for currency in ("EUR", "USD"):
                self.resend.enter(f"0 {number} {currency}", currency=currency)
            self._give_up_refusals()
            self.resend.let_the_window_close()
            with suppress(*_ENDS):
                self.resend.send()
            self._look(is_left_alone=True)
            if self._states() == before:
                break
        self._everything_has_ended()

    def _everything_has_ended(self) -> None:
        left = rows(
            self.warehouse,
            "SELECT transaction_id FROM wallet.transaction"
            " WHERE disposition = 'open' AND hold_finding_id IS NULL",
        )
        assert [row.transaction_id for row in left] == []
        check_outcome(self.warehouse.engine, DAY, "the end")
        self._look(is_left_alone=True)

    # --- small parts ---------------------------------------------------------------------------

    def _new_names(self, count: int) -> list[str]:
        first = self.entered
        self.entered += count
        return [f"p{number:03}" for number in range(first, first + count)]

    def _let_a_sender_die_holding_the_lock(self) -> None:
        self.resend.as_owner(
            "UPDATE ops.lease SET epoch = epoch + 1,"
            " expires_at = clock_timestamp() + interval '0.1 s'"
        )

    def _check_plan(self) -> None:
        """A dry run tells what is due; nothing here is so that it could not be signed."""
        due = rows(
            self.warehouse,
            "SELECT currency, count(*) AS payouts FROM wallet.transaction"
            " WHERE disposition = 'open' AND hold_reason IS NULL GROUP BY 1 ORDER BY 1",
        )
        planned = plan(self.warehouse.engine, self.resend.settings, DAY)
        assert [(each.currency, each.payouts) for each in planned] == [tuple(row) for row in due]

    def _post(self, sender: attempts.Sender, attempt: attempts.Attempt) -> _Frozen:
        client = wallet.open_client(self.sandbox.wallet_url, WALLET_KEY, self.resend.settings)
        with client:
            try:
                answer = wallet.post_settlement(
                    client,
                    attempt.body,
                    wallet.Signing(WALLET_SECRET),
                    ends_at=attempt.ends_at,
                )
            except ProviderError as error:
                return _Frozen(sender, attempt, judge_error(list(attempt.items), error), None)
        judgement = judge_answer(attempt.items, answer, wallet.ITEM_CODES)
        return _Frozen(sender, attempt, judgement, answer)

    def _open_findings(self) -> list[tuple[int, str]]:
        found = rows(
            self.warehouse,
            "SELECT finding_id, kind FROM ops.finding WHERE state = 'open' ORDER BY 1",
        )
        return [(row.finding_id, row.kind) for row in found]

    def _decide(
        self, finding_id: int, decision: str, decided_by: str, second_person_above: int
    ) -> None:
        [[held]] = rows(self.warehouse, _HELD, str(finding_id))
        resolve(
            self.warehouse.engine,
            finding_id,
            decision,
            decided_by=decided_by,
            reason="as it stands",
            reference="mail 17",
            parameters={"payouts": held},
            run_id=None,
            second_person_above=Decimal(second_person_above),
        )

    def _give_up_refusals(self) -> None:
        """They would stop their currency for ever."""
        held = [number for number, kind in self._open_findings() if kind == "refusals_held"]
        if held:
            # What is in a request whose deadline is still to come is not given up.
            [[seconds]] = rows(self.warehouse, _SECONDS_TO_THE_LAST_DEADLINE)
            time.sleep(max(0.0, float(seconds)))
        for finding_id in held:
            with suppress(DecisionRefused):
                self._decide(finding_id, "lost", "Anna", 10**9)

    def _states(self) -> dict[str, str]:
        states = self.resend.states()
        return {name: state for name, state in states.items() if not name.startswith("0 ")}


_HELD = """
SELECT count(*) FROM wallet.transaction WHERE hold_finding_id = CAST(:id AS bigint)
"""
_EMPTY = """
TRUNCATE wallet.transaction, wallet.transaction_claim, wallet.transaction_conflict,
    wallet.rejected_line, wallet.hold, wallet.sending_window, wallet.attempt, wallet.attempt_item,
    wallet.reported_outcome, ops.lease, ops.finding, ops.decision, ops.alert
RESTART IDENTITY
"""
_FRESH = """
SELECT transaction_id, currency FROM wallet.transaction
WHERE disposition = 'open' AND hold_reason IS NULL AND NOT EXISTS (
    SELECT FROM wallet.attempt_item
    WHERE attempt_item.transaction_id = transaction.transaction_id
)
ORDER BY transaction_id
"""
_SECONDS_TO_THE_LAST_DEADLINE = """
SELECT extract(epoch FROM max(deadline_at) - clock_timestamp()) FROM wallet.attempt
"""
_DOUBTFUL_SENDS = """
SELECT transaction_id, max(sends) AS sends, count(*) AS windows
FROM (
    SELECT transaction_id, window_id, count(*) AS sends
    FROM wallet.transaction
    JOIN wallet.attempt_item USING (transaction_id)
    JOIN wallet.attempt USING (attempt_id)
    WHERE (outcome IS NULL OR outcome IN ('in_doubt', 'contested'))
        AND committed_at >= coalesce(released_at, '-infinity')
    GROUP BY 1, 2
) AS in_window
GROUP BY 1
"""


def _unsent(sender: attempts.Sender, attempt: attempts.Attempt) -> _Frozen:
    """What a sender says that is asked for its lock before the first byte, and has lost it."""
    return _Frozen(sender, attempt, judge_unsent(attempt.items, "another process sends"), None)


def play(warehouse: Warehouse, sandbox: Sandbox, folder: Path, *, examples: int) -> None:
    """Play so many histories; AssertionError with the shortest that goes wrong."""

    class Machine(ResendMachine):
        pass

    Machine.warehouse, Machine.sandbox, Machine.folder = warehouse, sandbox, folder
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
