"""SIGKILL at the commit of each decision about payouts: it is carried out whole, or not at all."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from include.warehouse.decisions import DecisionRefused
from include.warehouse.findings import KINDS
from tests.killing import Moment, Point, Task, run_and_kill
from tests.payouts.deciding import ABOUT_PAYOUTS, decide, everything, hold
from tests.payouts.entering import attempt, enter, payout, rows
from tests.warehouses import Warehouse

DECIDE = Point("decide", 1, function="resolving.resolve")
OFFERED = [(kind, decision) for kind in ABOUT_PAYOUTS for decision in KINDS[kind].decisions]
BECOMES = {
    "keep": ("open", False),
    "send_again": ("open", True),
    "release_hold": ("open", True),
    "processed": ("processed", True),
    "paid_otherwise": ("processed", True),
    "lost": ("lost", True),
}


def hold_two(warehouse: Warehouse, kind: str) -> int:
    enter(warehouse, payout("a"), payout("b"))
    return hold(warehouse, kind, "a", "b", attempt_id=attempt(warehouse, "a", "b"))


def deciding(finding_id: int, decision: str, by: str = "anna", above: str = "1000000") -> Task:
    def carry_out(engine: Engine) -> None:
        decide(engine, finding_id, decision, by=by, above=above, payouts=2)

    return Task("decide", carry_out)


def kill_twice(warehouse: Warehouse, task: Task) -> None:
    """Killed before its commit it has changed nothing; then it is killed right after it."""
    before = everything(warehouse)
    for when in ("before", "after"):
        assert everything(warehouse) == before
        killed = run_and_kill(warehouse.pipelines_url, [task], Moment(when, DECIDE))
        assert killed == ("killed", str(DECIDE))


@pytest.mark.parametrize(("kind", "decision"), OFFERED)
def test_a_decision_that_is_killed_is_carried_out_whole_and_recorded_or_not_at_all(
    warehouse: Warehouse, kind: str, decision: str
) -> None:
    finding_id = hold_two(warehouse, kind)
    task = deciding(finding_id, decision)
    kill_twice(warehouse, task)

    disposition, is_let_go = BECOMES[decision]
    held = "SELECT disposition, hold_finding_id FROM wallet.transaction"
    assert rows(warehouse, held) == [(disposition, None if is_let_go else finding_id)] * 2
    [decided] = rows(warehouse, "SELECT * FROM ops.decision")
    assert (decided.finding_id, decided.decision) == (finding_id, decision)
    assert decided.state_after["dispositions"] == {disposition: 2}
    [asked] = rows(warehouse, "SELECT state FROM ops.finding")
    assert asked.state == ("closed" if is_let_go else "open")
    [named] = rows(warehouse, "SELECT DISTINCT evidence -> 'decision_id' FROM wallet.transaction")
    if disposition != "open":
        assert named[0] == decided.decision_id
    if is_let_go:
        with pytest.raises(DecisionRefused, match="is closed already"):
            task.run(warehouse.engine)


def test_of_two_people_each_may_be_killed_and_it_is_lost_once_both_have_decided(
    warehouse: Warehouse,
) -> None:
    finding_id = hold_two(warehouse, "transactions_in_doubt")
    kill_twice(warehouse, deciding(finding_id, "lost", above="0"))
    assert rows(warehouse, "SELECT DISTINCT disposition FROM wallet.transaction") == [("open",)]
    kill_twice(warehouse, deciding(finding_id, "lost", by="bert", above="0"))
    assert rows(warehouse, "SELECT DISTINCT disposition FROM wallet.transaction") == [("lost",)]
    recorded = "SELECT decided_by, awaits_second_person FROM ops.decision ORDER BY decision_id"
    assert rows(warehouse, recorded) == [("anna", True), ("bert", False)]
