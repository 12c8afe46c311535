"""The queue of markets beside the engine that settles them, as a test plays and compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import Engine, text

from include.markets import events, fetching, looking, publishing, queue, settling
from include.markets.publishing import MarketsHeld
from include.providers import prediction
from include.providers.http import Client
from include.sandbox.addresses import PREDICTION_KEY, PREDICTION_OPERATOR_ID
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.decisions import Resolution, resolve
from tests.killing import Task
from tests.markets.deciding import decide_after_a_kill
from tests.warehouses import Warehouse

SETTINGS = Settings(
    prediction_operator_id=PREDICTION_OPERATOR_ID,
    prediction_default_currency="USD",
    prediction_look_seconds=0,
    prediction_retry_delay_seconds=0,
    prediction_deadline_seconds=30,
    read_attempts=1,
)
POSITIONS = 6

STEPS = ("settle", "wait_for_status", "retry_failed", "fetch_payouts")
_EMPTY = """
TRUNCATE prediction.market, prediction.attempt, raw.page, raw.record, ops.batch, ops.cursor,
    ops.gap, ops.quarantine, ops.quality_result, ops.finding, ops.decision, ops.alert, ops.lease,
    core.settlement, core.settlement_leg, core.daily_settlement, core.daily_recording,
    staging.settlement, staging.settlement_leg
CASCADE
"""


def empty(warehouse: Warehouse) -> None:
    """As it was when it was migrated."""
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text(_EMPTY))


@dataclass
class MarketPlay:
    """One queue, its engine, and a run of settle_markets as its tasks call the rooms below."""

    warehouse: Warehouse
    sandbox: Sandbox
    settings: Settings = SETTINGS
    settled_by_others: int = 0
    released: set[str] = field(default_factory=set)
    """Markets of which a person lets count what the engine's own book does not say."""
    settled_again: Counter[str] = field(default_factory=Counter)
    """How often a person had a market ordered again of which an order was carried out in part."""

    def __post_init__(self) -> None:
        self.sandbox.configure("prediction", markets=1, positions=POSITIONS)

    def change(self, **changes: Any) -> None:
        """Change settings of ours."""
        self.settings = self.settings.model_copy(update=changes)

    def engine_changes(self, **changes: Any) -> None:
        """Change switches of the engine's."""
        self.sandbox.configure("prediction", **changes)

    @property
    def market_ids(self) -> list[str]:
        """All that the engine has resolved."""
        return self.sandbox.prediction_market_ids()

    @property
    def market_id(self) -> str:
        """The first of them."""
        return self.market_ids[0]

    # --- a run -----------------------------------------------------------------------------------

    def run(self) -> None:
        """One run of the DAG; what it holds it tells by its findings."""
        with suppress(MarketsHeld):
            for task in self.tasks():
                task.run(self.warehouse.engine)

    def tasks(self) -> list[Task]:
        """The tasks of a run, in order; each opens its own client."""
        steps: dict[str, Callable[[Engine], object]] = {
            "plan": lambda engine: self._plan(engine),
            **{step: self._of_shard(step) for step in STEPS},
            "check": lambda engine: publishing.check(engine, self.settings),
            "publish": lambda engine: publishing.publish(engine, self.settings),
        }
        return [Task(name, run) for name, run in steps.items()]

    def step(self, name: str) -> Any:
        """One task alone."""
        [task] = [task for task in self.tasks() if task.name == name]
        return task.run(self.warehouse.engine)

    def _plan(self, engine: Engine) -> object:
        with self._open() as client:
            return events.take_events(engine, client, self.settings, "test")

    def _of_shard(self, step: str) -> Callable[[Engine], object]:
        work: Callable[..., object] = {
            "settle": settling.settle_markets,
            "wait_for_status": looking.wait_for_status,
            "retry_failed": settling.retry_failed,
            "fetch_payouts": fetching.fetch_payouts,
        }[step]

        def run(engine: Engine) -> object:
            ids = queue.due_markets(engine, None, 1000)
            with self._open() as client:
                return work(engine, client, self.settings, ids, "test")

        return run

    def _open(self) -> Client:
        return prediction.open_client(self.sandbox.prediction_url, PREDICTION_KEY, self.settings)

    # --- time and people -------------------------------------------------------------------------

    def let_time_pass(self, seconds: float) -> None:
        """As if everything had happened so much earlier."""
        with self.warehouse.owner_engine.begin() as connection:
            for table, columns in _MOMENTS.items():
                moved = ", ".join(f"{one} = {one} - :time" for one in columns)
                connection.execute(
                    text(f"UPDATE {table} SET {moved}".replace(":time", ":s * interval '1 s'")),
                    {"s": seconds},
                )

    def decide(self, kind: str, decision: str) -> list[Resolution]:
        """Decide about every open finding of a kind."""
        found = self.findings(kind)
        if decision == "settle_again":
            self.settled_again.update(finding.detail["market_id"] for finding in found)
        return [
            decide_after_a_kill(self.warehouse, partial(_resolve, finding.finding_id, decision))
            for finding in found
        ]

    # --- what is there ---------------------------------------------------------------------------

    def rows(self, statement: str, **parameters: Any) -> list[Any]:
        """What the owner sees."""
        with self.warehouse.owner_engine.connect() as connection:
            return list(connection.execute(text(statement), parameters))

    def states(self) -> dict[str, str]:
        """Every market's state."""
        return dict(self.rows("SELECT market_id, state FROM prediction.market"))

    def market(self, market_id: str | None = None) -> Any:
        """One market as the queue has it."""
        this = market_id or self.market_id
        return self.rows("SELECT * FROM prediction.market WHERE market_id = :this", this=this)[0]

    def results(self, call: str = "settle") -> list[str | None]:
        """What came of the orders, oldest first."""
        statement = "SELECT result FROM prediction.attempt WHERE call = :call ORDER BY attempt_id"
        return [row.result for row in self.rows(statement, call=call)]

    def findings(self, kind: str | None = None) -> list[Any]:
        """The open findings, of a kind if one is given."""
        statement = (
            "SELECT * FROM ops.finding WHERE state = 'open'"
            " AND (CAST(:kind AS text) IS NULL OR kind = :kind) ORDER BY finding_id"
        )
        return self.rows(statement, kind=kind)

    def engine_states(self) -> dict[str, Any]:
        """Every market as the engine has it."""
        return {one["market_id"]: one for one in self.sandbox.prediction_markets()}

    def payouts(self, market_id: str | None = None) -> dict[str, Decimal]:
        """What is published as paid, by settlement."""
        statement = (
            "SELECT source_key, payout FROM core.settlement WHERE is_current"
            " AND source = 'prediction' AND status = 'settled' AND payout > 0"
            " AND market_id = :market_id"
        )
        return dict(self.rows(statement, market_id=market_id or self.market_id))

    def owed(self, market_id: str | None = None) -> dict[str, Decimal]:
        """What the engine says that it owes, by settlement."""
        told = self.sandbox.prediction_owed(market_id or self.market_id)
        return {one["settlement_id"]: Decimal(one["amount"]) for one in told}

    # --- what must always be true ----------------------------------------------------------------

    def wrong(self) -> list[str]:
        """Everything that may never be so, whatever happened."""
        found = []
        engine = self.engine_states()
        ordered = dict(self.rows(_ORDERED))
        for market_id, state in engine.items():
            if state["settle_executions"] > 1 + self.settled_again[market_id]:
                found.append(f"{market_id} was settled {state['settle_executions']} times")
            calls = state["settle_calls"] + state["retry_calls"] - self.settled_by_others
            if calls > ordered.get(market_id, 0):
                found.append(f"{market_id} was ordered more often than was written down")
        for market_id, state_word in self.states().items():
            if state_word == "held" or market_id in self.released:
                continue
            owed = self.owed(market_id) if market_id in engine else {}
            published = self.payouts(market_id)
            if wrong := {key for key, paid in published.items() if owed.get(key) != paid}:
                found.append(f"{market_id}: {len(wrong)} payouts are published that are not owed")
            if state_word == "done" and published.keys() != owed.keys():
                found.append(f"{market_id} is done, and not all that is owed is published")
        found += [f"two orders at once: {row.attempt_id}" for row in self.rows(_AT_ONCE)]
        found += [f"published, though held: batch {row.batch_id}" for row in self.rows(_LEAKED)]
        return found


_MOMENTS: dict[str, Sequence[str]] = {
    "prediction.market": (
        "next_look_at",
        "state_since",
        "progressed_at",
        "troubled_since",
        "entered_at",
    ),
    "prediction.attempt": ("committed_at", "deadline_at", "closed_at"),
}

_ORDERED = "SELECT market_id, count(*) FROM prediction.attempt GROUP BY 1"

# An order is over once it was answered, or, if nothing is known of it, by its deadline.
_AT_ONCE = """
SELECT later.attempt_id
FROM prediction.attempt AS earlier
JOIN prediction.attempt AS later
    ON later.market_id = earlier.market_id AND later.attempt_id > earlier.attempt_id
WHERE later.committed_at < CASE
    WHEN earlier.result IS NULL OR earlier.result = 'in_doubt' THEN earlier.deadline_at
    ELSE earlier.closed_at
END
"""

_LEAKED = """
SELECT batch_id FROM prediction.market JOIN core.settlement USING (batch_id)
WHERE state IN ('held', 'fetched')
"""


def _resolve(finding_id: int, decision: str, engine: Engine) -> Resolution:
    return resolve(
        engine,
        finding_id,
        decision,
        decided_by="ann",
        reason="The engine's people were asked.",
        reference=None,
        parameters={},
        run_id=None,
    )
