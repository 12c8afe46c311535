"""The settlement of markets played by chance: whatever happens in whatever order, each is settled
once, and what is published is what the engine owes.

After each step the queue is compared with the engine's own books; at the end, when all disturbances
are over and people have decided, every market has come to its end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from include.markets.events import EventsStopped
from include.markets.publishing import MarketsHeld
from include.providers.errors import ProviderError
from include.sandbox.client import Sandbox
from tests.markets.playing import SETTINGS, MarketPlay, empty
from tests.warehouses import Warehouse

STEPS = 12

_NAMES = ["plan", "settle", "wait_for_status", "retry_failed", "fetch_payouts", "check", "publish"]
# Most steps do nothing unless those before them were done.
_RUNS = st.sampled_from([_NAMES, _NAMES, *([name] for name in _NAMES)])
_WHAT_WAITS = ("market_held", "market_failed", "market_stuck", "market_refused", "undecodable_page")
_FAULTS = st.sampled_from(
    [
        ("settle", "reset_before_answer", {"executed": True}),
        ("settle", "reset_before_answer", {"executed": False}),
        ("settle", "status", {"status": 503, "executed": True}),
        ("settle", "status", {"status": 429}),
        ("settle", "status", {"status": 401}),
        ("settle", "html_page", {"executed": True}),
        ("retry", "reset_before_answer", {"executed": True}),
        ("retry", "reset_before_answer", {"executed": False}),
        ("retry", "truncated_body", {"executed": True}),
        ("status", "status", {"status": 500}),
        ("status", "malformed_json", {}),
        ("settlements", "malformed_json", {}),
        ("settlements", "unknown_value", {}),
        ("settlements", "missing_field", {}),
        ("events", "malformed_json", {}),
    ]
)
_ENGINES = st.fixed_dictionaries(
    {
        "failing_share": st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        "failing_attempts": st.sampled_from([1, 2, None]),
        "stuck_share": st.sampled_from([0.0, 0.0, 0.5]),
        "settle_errors": st.sampled_from([0, 0, 1]),
        "settle_errors_execute": st.booleans(),
        "retries": st.sampled_from(["update", "new_settlements"]),
        "unsettled_status": st.sampled_from(["empty", "pending", "not_found"]),
        "lies": st.sampled_from([{}, {}, {}, {"status.totalPayout": "1"}]),
        "page_limit": st.sampled_from([None, 2]),
    }
)
_SOUND = {"failing_share": 0.0, "stuck_share": 0.0, "settle_errors": 0, "lies": {}}


class MarketMachine(RuleBasedStateMachine):
    """One queue, its engine, those who run it and those who decide."""

    warehouse: Warehouse
    sandbox: Sandbox

    def __init__(self) -> None:
        super().__init__()
        empty(self.warehouse)
        self.sandbox.reset()
        quick = SETTINGS.model_copy(update={"prediction_retry_attempts": 2})
        self.play = MarketPlay(self.warehouse, self.sandbox, quick)

    @initialize(engine=_ENGINES)
    def an_engine(self, engine: dict[str, Any]) -> None:
        self.play.engine_changes(markets=1, positions=3, **engine)

    @rule(engine=_ENGINES)
    def the_engine_changes(self, engine: dict[str, Any]) -> None:
        self.play.engine_changes(**engine)

    @rule(fault=_FAULTS, after=st.integers(0, 2))
    def a_call_goes_wrong(self, fault: tuple[str, str, dict[str, Any]], after: int) -> None:
        call, kind, parameters = fault
        self.sandbox.fault("prediction", kind, call=call, after_calls=after, **parameters)

    @rule()
    def another_market_is_resolved(self) -> None:
        if len(self.play.market_ids) < 3:
            self.sandbox.advance("prediction", 1)

    @rule(names=_RUNS)
    def tasks_run(self, names: list[str]) -> None:
        for name in names:
            with suppress(MarketsHeld, EventsStopped, ProviderError):
                self.play.step(name)

    @rule(seconds=st.sampled_from([40, 40, 3600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.play.let_time_pass(seconds)

    @rule(kind=st.sampled_from(_WHAT_WAITS))
    def people_try_again(self, kind: str) -> None:
        self.play.decide(kind, "try_again")

    @rule()
    def people_release_what_is_right(self) -> None:
        """Only the totals lie, so that what is listed is what is owed."""
        for finding in self.play.findings("market_held"):
            checks = {one["check"] for one in finding.detail["differences"]}
            if checks == {"total_payout"}:
                self.play.decide("market_held", "release_market")
                return

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.play.wrong() == []

    def teardown(self) -> None:
        """All disturbances are over, and people have every market gone on with."""
        self.sandbox.forget_faults()
        self.play.engine_changes(**_SOUND)
        for _ in range(5):
            self.play.let_time_pass(86_400)
            for kind in _WHAT_WAITS:
                self.play.decide(kind, "try_again")
            self.tasks_run(_NAMES)
            self.tasks_run(_NAMES)
        assert self.play.wrong() == []
        stuck = {market_id for market_id, state in self.play.states().items() if state == "stuck"}
        assert {*self.play.states().values()} <= {"done", "stuck", "waiting"}
        # What the engine itself never brings to an end is stuck for good.
        for market_id, state in self.play.engine_states().items():
            is_over = state["positions"].keys() == {"COMPLETED"}
            assert is_over == (self.play.states()[market_id] == "done"), (market_id, stuck)


def play(warehouse: Warehouse, sandbox: Sandbox, *, examples: int) -> None:
    """Play so many histories; AssertionError with the shortest that goes wrong."""

    class Machine(MarketMachine):
        pass

    Machine.warehouse, Machine.sandbox = warehouse, sandbox
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
