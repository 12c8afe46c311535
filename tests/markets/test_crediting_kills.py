"""SIGKILL around everything that crediting commits, and between a credit and its delivery.

The engine's own book says what each player is owed, the wallet's what it has paid, and the clerk's
acknowledgements the rest: whatever was killed, each player is paid once, by either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import Engine

from include.markets.crediting import credit
from include.model import RecordContext
from include.payouts.credits import send_credits
from include.providers import prediction
from include.providers.deadlines import now
from include.sandbox.addresses import PREDICTION_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.killing import Moment, Point, Task, Worker
from tests.markets.crediting import Crediting
from tests.payouts.resending import partner_at
from tests.warehouses import Warehouse

# The commit points of crediting, in the order of a run.  A new one belongs here, and is killed.
POINTS = [
    "credit 1 (holding.hold_back_all)",
    "credit 2 (crediting.credit)",
    "credit 3 (crediting._credit_market)",
    "credit 4 (crediting._judge_again)",
    "credit 5 (credit_findings.report_credits)",
]
# What lies between a credit and its delivery.
DELIVERING = (
    "outbox.freeze_new",
    "attempts.commit_attempts",
    "answers.close_attempts",
    "stages.judge_stage",
)
_KILLED_OF_EACH = 1


def settle_market(crediting: Crediting, sandbox: Sandbox) -> dict[str, dict[str, str]]:
    """A market of the sandbox is settled, listed and published: what it owes, by settlement."""
    sandbox.configure("prediction", positions=8)
    market_id = sandbox.prediction_market_ids(limit=1)[0]
    listed = []
    with prediction.open_client(sandbox.prediction_url, PREDICTION_KEY, Settings()) as client:
        prediction.settle(client, market_id, ends_at=now() + 10)
        for answer in prediction.fetch_listing(client, market_id=market_id, pages_limit=10):
            for entry in prediction.read_page(answer.body).entries:
                start = entry.record.byte_start
                record = answer.body[start : start + entry.record.byte_length]
                made = prediction.normalize(
                    record, RecordContext(datetime.now(UTC)), prediction.Terms("USD")
                )
                told = msgspec.structs.asdict(made)
                del told["legs"]
                listed.append(crediting.row(told["source_key"]) | told)
    crediting.market(market_id)
    crediting.publish(*listed)
    return {each["settlement_id"]: each for each in sandbox.prediction_owed(market_id)}


class Night:
    """A settled market whose credits are to be made and delivered; one of them is refused."""

    def __init__(self, warehouse: Warehouse, sandbox: Sandbox, *, is_mapped: bool) -> None:
        sandbox.reset()
        self.crediting = Crediting(warehouse, sandbox)
        self.crediting.map(is_mapped)
        self.owed = settle_market(self.crediting, sandbox)
        self.refused = min(self.owed)
        self.crediting.refuse(self.refused)

    @property
    def tasks(self) -> Sequence[Task]:
        settings, sandbox = self.crediting.settings, self.crediting.sandbox
        assert sandbox is not None
        partner = partner_at(sandbox)

        def deliver(engine: Engine) -> None:
            send_credits(engine, lambda: partner, settings, "test", is_mapped=True)

        return (
            Task("credit", lambda engine: credit(engine, settings)),
            Task("send_credits", deliver),
        )

    def points(self) -> list[Point]:
        """The commits of a run that nobody disturbs."""
        with Worker(self.crediting.warehouse.pipelines_url, self.tasks) as worker:
            assert worker.wait() == "finished", worker.error()
            return [point for point in worker.points() if point.kind == "commit"]

    def kill(self, moment: Moment) -> None:
        with Worker(self.crediting.warehouse.pipelines_url, self.tasks, moment) as worker:
            assert worker.wait() == "killed", worker.error()

    def finish(self) -> None:
        """A run that is left alone, the resend, and the clerk, who pays what is owed by then."""
        self._let_time_pass()
        self.crediting.credit()
        self.crediting.deliver()
        self._let_time_pass()
        self.crediting.send()
        if "contested" in self.crediting.states().values():
            # Refused again behind an answer that was lost: it may have been booked, until a person
            # has asked the partner.
            self._let_time_pass()
            self.crediting.decide("transactions_contested", "lost")
        if owed := sorted(self.crediting.owed()):
            self.crediting.acknowledge(*owed)
        self.crediting.credit()

    def _let_time_pass(self) -> None:
        """As if the lease and every request had run out: nobody sends any more."""
        self.crediting.as_owner(
            "SET LOCAL session_replication_role = replica;"
            " UPDATE ops.lease SET expires_at = clock_timestamp();"
            " UPDATE wallet.attempt SET deadline_at = least(deadline_at, clock_timestamp())"
        )

    def everybody_is_paid_once(self) -> None:
        paid, credits = self.crediting.paid_by_wallet(), self.crediting.credits()
        assert set(credits) == set(self.owed)
        for settlement_id, owed in self.owed.items():
            made = credits[settlement_id]
            assert (f"{made.amount:f}", made.player_id) == (owed["amount"], owed["player_id"])
            by_clerk = made.state == "acknowledged"
            assert paid.get(settlement_id, 0) + by_clerk == 1, settlement_id
        assert credits[self.refused].state == "acknowledged"
        assert self.crediting.wrong() == []


def test_each_player_is_paid_once_wherever_crediting_or_delivery_is_killed(
    shared_warehouse: Warehouse, sandbox: Sandbox
) -> None:
    points = Night(shared_warehouse, sandbox, is_mapped=True).points()
    assert [str(point) for point in points if point.task == "credit"] == POINTS
    for point in killed(points):
        for when in ("before", "after"):
            night = Night(shared_warehouse, sandbox, is_mapped=True)
            moment = Moment(when, point)
            night.kill(moment)
            assert night.crediting.wrong(is_left_alone=False) == [], moment
            night.finish()
            night.everybody_is_paid_once()


def killed(points: Sequence[Point]) -> list[Point]:
    """All of crediting, and the first few of each that delivers."""
    of_function = {
        function: [point for point in points if point.function == function][:_KILLED_OF_EACH]
        for function in DELIVERING
    }
    assert all(of_function.values())
    return [
        *(point for point in points if point.task == "credit"),
        *(point for several in of_function.values() for point in several if point.task != "credit"),
    ]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_decision_has_sent_after_all_is_paid_once(
    shared_warehouse: Warehouse, sandbox: Sandbox, when: str
) -> None:
    night = Night(shared_warehouse, sandbox, is_mapped=False)
    night.crediting.credit()
    by_hand = max(night.owed)
    night.crediting.acknowledge(by_hand)
    night.crediting.map(True)
    night.crediting.credit()
    night.crediting.decide("credits_owed", "send_owed")
    night.kill(Moment("before" if when == "before" else "after", Point("credit", 3)))
    assert night.crediting.wrong(is_left_alone=False) == []
    night.finish()
    night.everybody_is_paid_once()
    assert night.crediting.credits()[by_hand].transaction_id is None
