"""Histories of a market's settlements, drawn at random, against a model that fits on a page."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from include.sandbox.client import Sandbox
from include.warehouse.decisions import DecisionRefused
from tests.markets.crediting import Crediting
from tests.warehouses import Warehouse

EXAMPLES = 10
STEPS = 14
_NAMES = [f"s{number}" for number in range(5)]
_REFUSED = "s0"
_POSITIONS = {"s0": "p0", "s1": "p1", "s2": "p2", "s3": "p3", "s4": "p3"}
_AMOUNTS = st.sampled_from([Decimal("1"), Decimal("2.5"), Decimal("7.00001")])


@dataclass
class Made:
    """A credit as the model has it: `state` is that of prediction.credit_standing."""

    state: str
    amount: Decimal
    adjusted: Decimal = Decimal(0)
    was_sent: bool = False

    @property
    def comes_to(self) -> Decimal:
        return self.amount + self.adjusted


class Model:
    """What the design says, for a handful of settlements in plain Python."""

    def __init__(self) -> None:
        self.told: dict[str, Decimal | None] = {}
        self.made: dict[str, Made] = {}
        self.is_mapped = True
        self.delivered: dict[str, int] = {}

    def credit(self) -> None:
        for name in sorted(self.told, key=lambda name: (_POSITIONS[name], name)):
            says = self.told[name] or Decimal(0)
            known = self.made.get(name)
            if known is None:
                if says and not self._is_taken(name):
                    self.made[name] = Made(self._way(), says)
            elif known.state in ("changed", "withdrawn", "due", "unmapped"):
                if says != known.amount:
                    known.amount, known.state = says, "changed" if says else "withdrawn"
            elif says != known.comes_to:
                known.adjusted = says - known.amount
                if known.state == "sending":
                    known.state = "credit_changed"
        for known in self.made.values():
            if known.state == "due":
                known.state = self._way() if known.amount else "withdrawn"

    def _way(self) -> str:
        return "sending" if self.is_mapped else "unmapped"

    def _is_taken(self, name: str) -> bool:
        """Another settlement of the position is completed, or was credited."""
        others = [other for other in _POSITIONS if _POSITIONS[other] == _POSITIONS[name]]
        others.remove(name)
        return any(other in self.made or self.told.get(other) for other in others)

    def send(self, *, again: bool) -> None:
        for name, known in self.made.items():
            if known.state == "sending" and (again or not known.was_sent):
                known.was_sent = True
                known.state = "refused" if name == _REFUSED else "paid"
                self._deliver(name, known.state == "paid")

    def acknowledge(self, name: str) -> bool:
        if name not in self.made or self.made[name].state not in ("unmapped", "refused"):
            return False
        self.made[name].state = "acknowledged"
        self._deliver(name, True)
        return True

    def move(self, before: tuple[str, ...], after: str) -> None:
        for known in self.made.values():
            if known.state in before:
                known.state = after

    def _deliver(self, name: str, is_paid: bool) -> None:
        self.delivered[name] = self.delivered.get(name, 0) + is_paid

    def states(self) -> dict[str, str]:
        words: Mapping[str, str] = {"unmapped": "owed", "refused": "owed"}
        return {name: words.get(known.state, known.state) for name, known in self.made.items()}


class CreditMachine(RuleBasedStateMachine):
    warehouse: ClassVar[Warehouse]
    sandbox: ClassVar[Sandbox]

    @initialize(is_mapped=st.booleans())
    def begin(self, is_mapped: bool) -> None:
        self.sandbox.reset()
        self.crediting = Crediting(self.warehouse, self.sandbox)
        self.crediting.market()
        self.crediting.refuse(_REFUSED)
        self.model = Model()
        self.the_wallet_is_switched(is_mapped)

    # --- the engine ----------------------------------------------------------------------------

    @rule(name=st.sampled_from(_NAMES), amount=_AMOUNTS)
    def one_is_completed_or_corrected(self, name: str, amount: Decimal) -> None:
        self._tell(name, amount)

    @rule(amounts=st.lists(_AMOUNTS, min_size=3, max_size=3))
    def several_are_completed(self, amounts: list[Decimal]) -> None:
        for name, amount in zip(_NAMES, amounts, strict=False):
            self._tell(name, amount)

    @rule(name=st.sampled_from(_NAMES))
    def one_fails(self, name: str) -> None:
        self._tell(name, None)

    def _tell(self, name: str, amount: Decimal | None) -> None:
        self.model.told[name] = amount
        told = None if amount is None else str(amount)
        self.crediting.tell(name, told, position_id=_POSITIONS[name])

    # --- the operator --------------------------------------------------------------------------

    @rule(is_mapped=st.booleans())
    def the_wallet_is_switched(self, is_mapped: bool) -> None:
        self.model.is_mapped = is_mapped
        self.crediting.map(is_mapped)

    @rule(is_told_twice=st.booleans())
    def a_run(self, is_told_twice: bool) -> None:
        self.crediting.credit()
        if is_told_twice:
            assert self.crediting.credit(["m"]).entered == 0
        self.model.credit()
        self._look()
        assert self.crediting.wrong() == []

    another_run = a_run

    @rule()
    def the_run_sends_what_was_not_sent(self) -> None:
        self.crediting.deliver()
        self.model.send(again=False)
        self._look()

    @rule()
    def the_resend(self) -> None:
        self.crediting.send()
        self.model.send(again=True)
        self._look()

    @rule(name=st.sampled_from(_NAMES))
    def the_clerk_pays(self, name: str) -> None:
        owed = name in self.crediting.owed()
        assert owed == self.model.acknowledge(name)
        if owed:
            assert self.crediting.acknowledge(name) == 1
        self._look()

    # --- decisions -----------------------------------------------------------------------------

    @rule()
    def what_is_held_is_tried_again(self) -> None:
        self.crediting.credit()
        self.model.credit()
        self.crediting.decide("credit_changed", "try_again")
        self.model.move(("changed", "withdrawn"), "due")
        self._look()

    @rule()
    def what_is_owed_is_sent_after_all(self) -> None:
        self.crediting.credit()
        self.model.credit()
        with suppress(DecisionRefused):
            if self.crediting.decide("credits_owed", "send_owed"):
                self.model.move(("unmapped",), "due")
        self._look()

    @rule()
    def what_was_refused_or_changed_is_sent(self) -> None:
        self.crediting.decide("credits_refused", "send_again")
        self.crediting.decide("transactions_held", "release_hold")
        self.model.move(("refused", "credit_changed"), "sending")
        self._look()

    @rule()
    def what_was_refused_is_paid_otherwise(self) -> None:
        for name, known in self.model.made.items():
            if known.state == "refused":
                self.model.acknowledge(name)
        self.crediting.decide("credits_refused", "paid_otherwise", "transfer 12")
        self._look()

    # --- what must be true ---------------------------------------------------------------------

    def _look(self) -> None:
        assert self.crediting.states() == self.model.states()
        assert self.crediting.wrong(is_left_alone=False) == []
        paid = self.crediting.paid_by_wallet()
        for name, made in self.crediting.credits().items():
            times = paid.get(name, 0) + (made.state == "acknowledged")
            assert times == self.model.delivered.get(name, 0) <= 1


def test_any_history_of_a_market_credits_each_position_once(
    shared_warehouse: Warehouse, sandbox: Sandbox
) -> None:
    CreditMachine.warehouse, CreditMachine.sandbox = shared_warehouse, sandbox
    run_state_machine_as_test(
        CreditMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
