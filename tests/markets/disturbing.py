"""Markets as chaos plays them: an engine that fails and lies, a wallet in trouble, people who err.

A market is settled, partly fails, is retried, told otherwise after it was credited, held and
released; its credits go to the wallet or are owed, as the settings say at the time.  People decide
at random, but they ask the partner before they say what became of a payout, and the clerk pays what
is owed.  So whatever is killed, each position is paid once, by either way; and once all trouble is
over, to the last cent what the engine's own book owes.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, text

from include.markets.crediting import credit, read_mapping
from include.markets.events import EventsStopped
from include.markets.publishing import MarketsHeld
from include.payouts.credits import send_credits
from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped, send
from include.providers.errors import ProviderError
from include.sandbox.client import Sandbox
from include.warehouse.database import transaction
from include.warehouse.decisions import DecisionRefused, held_by, resolve
from tests.checker import credit_violations
from tests.killing import Moment, Point, Task, Worker
from tests.local.waiting import wait_for
from tests.markets.crediting import MAPPED, UNMAPPED, Crediting, today
from tests.markets.playing import SETTINGS, MarketPlay
from tests.payouts.checking import Watch
from tests.payouts.disturbing import draw_partner, draw_sending, let_refuse, order_fault
from tests.payouts.entering import enter, payout
from tests.payouts.resending import GIVING_WAY, partner_at
from tests.payouts.resending import SETTINGS as SENDING
from tests.warehouses import Warehouse

_DAY_SECONDS = 86_400.0
_FROZEN_SHARE = 0.1
_DECIDED_SHARE = 0.3
_RUNS_LEFT_ALONE = 15
_SETTLED_BEFORE_SHARE = 0.4
_DELIVERING = ("credit", "send_credits", "resend")
_LIE = "1"

_ENGINE_FAULTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("settle", "reset_before_answer", {"executed": True}),
    ("settle", "reset_before_answer", {"executed": False}),
    ("settle", "status", {"status": 503, "executed": True}),
    ("settle", "status", {"status": 429}),
    ("settle", "html_page", {"executed": True}),
    ("retry", "reset_before_answer", {"executed": True}),
    ("retry", "reset_before_answer", {"executed": False}),
    ("retry", "truncated_body", {"executed_items": 1}),
    ("status", "status", {"status": 500}),
    ("status", "malformed_json", {}),
    ("settlements", "malformed_json", {}),
    ("settlements", "missing_field", {}),
    ("settlements", "missing_item", {}),
    ("events", "malformed_json", {}),
)
# What lets the next task go on.
_WAITS = (
    *(MarketsHeld, EventsStopped, ProviderError),
    *(BreakerTripped, PartnerUnavailable, SendingStopped),
)
_SOUND = {"failing_share": 0.0, "stuck_share": 0.0, "settle_errors": 0, "lies": {}}
# What a person has let count though these were wrong may be other than what the engine owes.
_ABOUT_ROWS = {"product", "positions", "unique_ids", "contested", "readable"}
_IN_DOUBT = ("transactions_in_doubt", "transactions_contested", "transactions_unclear")
_DECISIONS: dict[str, Sequence[str]] = {
    "market_held": ("try_again", "release_market"),
    "market_failed": ("try_again",),
    "market_stuck": ("try_again",),
    "market_refused": ("try_again",),
    "undecodable_page": ("try_again",),
    "records_quarantined": ("replay", "discard"),
    "credits_held": ("try_again", "owe"),
    "credit_changed": ("try_again",),
    "credits_owed": ("send_owed",),
    "transactions_held": ("release_hold",),
    "refusals_held": ("send_again", "lost"),
    "credits_refused": ("send_again", "paid_otherwise"),
}


class Owed(NamedTuple):
    """What a player is to get for a position."""

    market_id: str
    position_id: str
    player_id: str
    amount: Decimal


class DisturbedMarkets:
    """Markets, their credits and the wallet, with an engine and a partner drawn at random."""

    def __init__(self, warehouse: Warehouse, sandbox: Sandbox, draw: random.Random) -> None:
        self._warehouse, self._sandbox, self._draw = warehouse, sandbox, draw
        is_idempotent = draw.random() < 0.8
        self._drawn = draw_sending(draw, is_idempotent)
        self._partner = draw_partner(draw, is_idempotent)
        self._engine = {
            "positions": draw.choice((3, 6)),
            "share_digits": draw.choice((2, 2, 6)),
            "retries": draw.choice(("update", "new_settlements")),
            "unsettled_status": draw.choice(("empty", "pending", "not_found")),
            "page_limit": draw.choice((None, 2)),
        }
        self._clerk = Crediting(warehouse, sandbox)
        settings = SETTINGS.model_copy(
            update={
                **{name: getattr(SENDING, name) for name in SENDING.model_fields_set},
                **self._drawn,
                **MAPPED,
                "prediction_retry_attempts": 2,
                "prediction_relook_days": 10_000,
            }
        )
        self._play = MarketPlay(warehouse, sandbox, settings)
        password = warehouse.engine.url.password
        self._watch = Watch(is_idempotent, (str(password),) if password else ())
        self._failures: list[str] = []
        self._credits: dict[str, Any] = {}
        self._listed_again: set[str] = set()
        self._entered = 0
        sandbox.configure("wallet", **self._partner)
        self._play.engine_changes(markets=2, failing_share=0.5, failing_attempts=1, **self._engine)
        self._points = self._points_of_a_run()

    def __str__(self) -> str:
        return f"{self._drawn}, {self._partner}, {self._engine}"

    # --- a run -----------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[Task]:
        """All tasks of the DAG, and the resend, which sends what it left."""
        settings, partner = self._play.settings, partner_at(self._sandbox)
        is_mapped = read_mapping(settings) is not None

        def deliver(engine: Engine) -> None:
            send_credits(engine, lambda: partner, settings, "test", is_mapped=is_mapped)

        steps: dict[str, Callable[[Engine], object]] = {
            **{task.name: task.run for task in self._play.tasks()},
            "credit": lambda engine: credit(engine, settings),
            "send_credits": deliver,
            "resend": lambda engine: send(engine, partner, settings, today(), run_id="test"),
        }
        return [Task(name, _whatever_waits(run)) for name, run in steps.items()]

    def _points_of_a_run(self) -> dict[str, list[Point]]:
        """The points of a run that is left alone, by task."""
        # Here, so that the workers need not compile it all again.
        self._run(self.tasks)
        self._sandbox.advance("prediction", 2)
        with Worker(self._warehouse.engine, self.tasks) as worker:
            assert worker.wait() == "finished", worker.error()
            points = worker.points()
        return {
            task.name: [point for point in points if point.task == task.name] for task in self.tasks
        }

    def moment(self) -> Moment:
        """Any commit or statement of any task; half of them between a credit and its delivery.

        The first run was the longest, so most often an early one of its task.
        """
        names = self._draw.choice((tuple(self._points), _DELIVERING))
        kind = self._draw.choice(("commit", "statement"))
        points = [point for point in self._points[self._draw.choice(names)] if point.kind == kind]
        point = points[int(len(points) * self._draw.random() ** 2)]
        return Moment(self._draw.choice(("before", "after")), point)

    def disturb(self, moment: Moment) -> str | None:
        """Kill a run at `moment`, or freeze it there until another one has gone on: the point.

        Any task may be cleared alone: those before a credit are run before, or not at all.
        """
        self._let_the_lease_run_out()
        tasks = self.tasks
        if moment.point.task in _DELIVERING:
            settling, tasks = tasks[: -len(_DELIVERING)], tasks[-len(_DELIVERING) :]
            if self._draw.random() < _SETTLED_BEFORE_SHARE:
                self._run(settling)
        is_frozen = self._draw.random() < _FROZEN_SHARE
        return self._freeze(tasks, moment) if is_frozen else self._kill(tasks, moment)

    def _run(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            task.run(self._warehouse.engine)

    def _kill(self, tasks: Sequence[Task], moment: Moment) -> str | None:
        with Worker(self._warehouse.engine, tasks, moment) as worker:
            ending = worker.wait()
            if ending == "failed":
                self._failures.append(f"a run failed by itself: {worker.error()}")
            return str(worker.points()[-1]) if ending == "killed" else None

    def _freeze(self, tasks: Sequence[Task], moment: Moment) -> str | None:
        engine = self._warehouse.engine
        with Worker(engine, tasks, moment, signal.SIGSTOP, GIVING_WAY) as sleeper:
            if sleeper.wait() != "frozen":
                return None
            point = str(sleeper.points()[-1])
            self._let_the_lease_run_out()
            with Worker(engine, tasks) as other:
                if other.wait() == "failed":
                    self._failures.append(f"beside one that was frozen: {other.error()}")
            sleeper.go_on()
            sleeper.wait()
            return point

    # --- trouble ---------------------------------------------------------------------------------

    def make_trouble(self) -> None:
        """More markets, an engine and a wallet that fail, and people who decide."""
        draw = self._draw
        self._play.engine_changes(
            failing_share=draw.choice((0.0, 0.0, 0.5, 1.0)),
            failing_attempts=draw.choice((1, 1, 2, None)),
            settle_errors=draw.choice((0, 0, 1)),
            settle_errors_execute=draw.choice((True, False)),
            lies=draw.choice(({}, {}, {}, {"status.totalPayout": _LIE}, {"row.totalPayout": _LIE})),
        )
        self._sandbox.advance("prediction", draw.choice((0, 1)))
        for _ in range(draw.choice((0, 1, 1))):
            call, kind, parameters = draw.choice(_ENGINE_FAULTS)
            self._engine_fault(kind, call, after_calls=draw.randrange(2), **parameters)
        if draw.random() < 0.1:
            # A second settlement of a position that is completed already.
            copy = str(UUID(int=draw.getrandbits(128)))
            self._engine_fault("foreign_item", "settlements", item_id=copy)
        self._enter(draw.choice((0, 0, 1, 3)))
        let_refuse(self._sandbox, draw, draw.choice((0, 0, 0.2, 1.0)), self._partner)
        for _ in range(draw.choice((0, 1, 1, 2))):
            order_fault(self._sandbox, draw)
        if draw.random() < 0.3:
            self._play.change(**draw.choice((MAPPED, MAPPED, UNMAPPED)))
        if draw.random() < 0.4:
            # The next days bring corrections, and what was ordered without an answer is over.
            self._let_time_pass()
        self._people_decide(_DECIDED_SHARE)
        self._clerk_pays(draw.choice((0.0, 0.0, 0.5)))

    def _enter(self, payouts: int) -> None:
        """The operator's own system has so many payouts sent as well."""
        for _ in range(payouts):
            self._entered += 1
            enter(self._warehouse, payout(f"own-{self._entered:04}", currency="USD"))

    def _engine_fault(self, kind: str, call: str, **order: Any) -> None:
        self._sandbox.fault("prediction", kind, call=call, **order)

    def _let_time_pass(self) -> None:
        self._play.let_time_pass(_DAY_SECONDS)
        self._as_owner(
            "UPDATE wallet.sending_window SET closes_at = clock_timestamp()"
            " WHERE closes_at > clock_timestamp()"
        )

    def _let_the_lease_run_out(self) -> None:
        self._as_owner("UPDATE ops.lease SET expires_at = clock_timestamp()")

    def _as_owner(self, statement: str) -> None:
        with self._warehouse.owner_engine.begin() as connection:
            connection.execute(text(statement))

    # --- people ----------------------------------------------------------------------------------

    def _people_decide(self, share: float) -> None:
        """Some of the open findings are decided, at random where that is right."""
        for finding in self._play.findings():
            several = _DECISIONS.get(finding.kind, ("",))
            if self._draw.random() < share:
                self._decide(finding, self._draw.choice(several))

    def _people_decide_all(self) -> list[str]:
        """All that can be is decided so that it comes to an end: what was."""
        decided = []
        for finding in self._play.findings():
            decision = _DECISIONS.get(finding.kind, ("",))[-1]
            if finding.kind == "market_held":
                decision = self._list_again_or_release(finding.detail["market_id"])
            is_over = finding.detail.get("reason") == "withdrawn"
            if not is_over and self._decide(finding, decision, is_for_good=True):
                decided.append(f"{decision} was decided about: {finding.summary}")
        return decided

    def _list_again_or_release(self, market_id: str) -> str:
        """Once the engine lies no more its list is asked for again; what then is held is right."""
        if market_id in self._listed_again:
            return "release_market"
        self._listed_again.add(market_id)
        return "try_again"

    def _decide(self, finding: Any, decision: str, *, is_for_good: bool = False) -> bool:
        """Whether there was something to decide about it, and that was allowed."""
        try:
            if finding.kind in _IN_DOUBT:
                self._ask_partner(finding)
            elif finding.kind == "settlement_contested":
                self._choose_version(finding, is_for_good=is_for_good)
            elif decision:
                self._resolve(finding, decision, **self._seen(finding))
            else:
                return False
        except DecisionRefused:
            return False
        checks = {one["check"] for one in finding.detail.get("differences", ())}
        if decision == "release_market" and checks & _ABOUT_ROWS:
            self._play.released.add(finding.detail["market_id"])
        return True

    def _ask_partner(self, finding: Any) -> None:
        """The partner knows what it has booked, once nothing is on its way any more."""
        self._wait_until_requests_are_over()
        booked = {name for name, times in self._sandbox.wallet_credits() if times}
        held = self._play.rows(
            "SELECT transaction_id FROM wallet.transaction WHERE hold_finding_id = :this",
            this=finding.finding_id,
        )
        ids = {row.transaction_id for row in held}
        if paid := sorted(ids & booked):
            self._resolve(finding, "processed", transaction_ids=paid)
        if unpaid := sorted(ids - booked):
            decision = self._draw.choice(("send_again", "lost"))
            self._resolve(finding, decision, transaction_ids=unpaid)

    def _choose_version(self, finding: Any, *, is_for_good: bool) -> None:
        name = finding.detail["source_key"]
        told = self._play.rows(
            "SELECT record_id, market_id, payout FROM core.settlement"
            " WHERE source = 'prediction' AND source_key = :this AND is_contested"
            " ORDER BY record_id",
            this=name,
        )
        if not told:
            return
        owed = self._play.owed(told[0].market_id).get(name, Decimal(0))
        if several := may_count(told, owed, is_for_good=is_for_good):
            chosen = self._draw.choice(several).record_id
            self._resolve(finding, "choose_version", record_id=chosen, **self._seen(finding))

    def _seen(self, finding: Any) -> dict[str, str]:
        """As the page Findings shows it."""
        with transaction(self._warehouse.engine, "resolver") as connection:
            held = held_by(connection, {finding.finding_id: finding.kind}).get(finding.finding_id)
        return {"seen": held.seen} if held else {}

    def _resolve(self, finding: Any, decision: str, **parameters: Any) -> None:
        resolve(
            self._warehouse.engine,
            finding.finding_id,
            decision,
            decided_by="anna",
            reason="as it stands",
            reference="letter 4711",
            parameters=parameters,
            run_id=None,
            second_person_above=Decimal("Infinity"),
        )

    def _clerk_pays(self, share: float) -> list[str]:
        """The operator pays this share of what is owed: which settlements."""
        if not share:
            return []
        owed = sorted(self._clerk.owed())
        several = self._draw.sample(owed, round(len(owed) * share))
        if several:
            self._clerk.acknowledge(*several)
        return several

    def _wait_until_requests_are_over(self) -> None:
        """Until the wallet has carried out whatever has reached it, and nothing more can."""
        is_sent = "SELECT FROM wallet.attempt WHERE deadline_at > clock_timestamp()"
        wait_for("no request is sent", lambda: not self._play.rows(is_sent), 60)
        wait_for(
            "all requests are over",
            lambda: "waiting" not in self._sandbox.ledger("wallet")["outcomes"],
            60,
        )

    # --- what must be true -----------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is wrong now, whatever has been killed."""
        return self._look(is_left_alone=False)

    def wrong_when_left_alone(self) -> list[str]:
        """What is wrong once the trouble is over and people have decided all that there was."""
        self._sandbox.forget_faults()
        self._sandbox.configure("wallet", codes=[], items_limit=None)
        self._play.engine_changes(**_SOUND)
        self._play.change(**MAPPED)
        self._listed_again.clear()
        for _ in range(_RUNS_LEFT_ALONE):
            # What is refused for unknown reasons is held once another payout was paid.
            self._enter(1)
            self._wait_until_requests_are_over()
            self._let_the_lease_run_out()
            self._let_time_pass()
            listed = self._listed()
            self._run(self.tasks)
            left = [
                # What was told last is as the engine has it only once nothing new is told.
                *(f"{market_id} was listed anew" for market_id in self._listed() - listed),
                *self._people_decide_all(),
                *(f"{name} was still owed" for name in self._clerk_pays(1)),
                *self._all_are_at_an_end(),
            ]
            if not left:
                found = self._look(is_left_alone=True)
                # All others are as the engine's book has them again, but for what was paid before.
                self._play.released &= {market_id for market_id, _ in self._paid_otherwise()}
                self._play.released |= {market_id for market_id, _ in self._doubled()}
                return found
        return [f"{_RUNS_LEFT_ALONE} runs did not bring it to an end", *left]

    def _look(self, *, is_left_alone: bool) -> list[str]:
        with self._warehouse.owner_engine.connect() as connection:
            found = list(credit_violations(connection, is_left_alone=is_left_alone))
        return [
            *self._failures,
            *found,
            *self._play.wrong(),
            *self._watch.look(self._warehouse, self._sandbox, is_left_alone=is_left_alone),
            *self._ledgers_agree(is_left_alone=is_left_alone),
        ]

    def _listed(self) -> set[Any]:
        """Every market with what was last told of it."""
        told = self._play.rows(
            "SELECT market_id, encode(listing_sha256, 'hex') FROM prediction.market"
        )
        return {tuple(row) for row in told}

    def _paid_otherwise(self) -> list[Any]:
        """Positions whose credit was adjusted after it was sent or paid."""
        return self._play.rows(
            "SELECT DISTINCT market_id, position_id"
            " FROM prediction.adjustment JOIN prediction.credit USING (credit_id)"
        )

    def _ledgers_agree(self, *, is_left_alone: bool) -> Iterator[str]:
        """Nobody is credited or paid more than once, or otherwise than the engine owes; and, at the
        end, nobody less.
        """
        engine = self._play.engine_states()
        owed = {
            one["settlement_id"]: Owed(
                market_id, one["position_id"], one["player_id"], Decimal(one["amount"])
            )
            for market_id in engine
            for one in self._sandbox.prediction_owed(market_id)
        }
        credits = {row.settlement_id: row for row in self._play.rows(_CREDITS)}
        paid = self._paid(credits)
        yield from self._credits_stay(credits)
        by_position: Counter[tuple[str, str]] = Counter()
        for name, row in credits.items():
            by_position[row.market_id, row.position_id] += paid[name]
            told = Owed(row.market_id, row.position_id, row.player_id, row.amount)
            if row.market_id not in self._play.released and owed.get(name) != told:
                yield f"credit {name} is {told}, but the engine owes {owed.get(name)}"
        for position, times in by_position.items():
            if times > 1:
                yield f"position {position} was paid {times} times"
        if is_left_alone:
            yield from self._all_are_at_an_end()
            yield from _all_are_paid(owed, credits, paid, self._doubled())

    def _paid(self, credits: Mapping[str, Any]) -> dict[str, int]:
        """How often the player of each credit was paid, by the wallet or by the clerk."""
        by_wallet = dict(self._sandbox.wallet_credits())
        return {
            name: by_wallet.get(f"prediction:{name}", 0) + (row.state == "acknowledged")
            for name, row in credits.items()
        }

    def _doubled(self) -> set[tuple[str, ...]]:
        """The positions, with their markets, that are told to be completed twice."""
        return {tuple(row) for row in self._play.rows(_DOUBLED)}

    def _credits_stay(self, credits: Mapping[str, Any]) -> Iterator[str]:
        """What was credited once stays so, and what the wallet or the clerk was told does too."""
        for name, before in self._credits.items():
            now = credits.get(name)
            if now is None or _identity(now) != _identity(before):
                yield f"credit {name} was {_identity(before)} and is {now and _identity(now)}"
            elif before.state in ("sending", "acknowledged") and _told(now) != _told(before):
                yield f"credit {name} was told as {_told(before)} and is {_told(now)}"
            elif before.state == "acknowledged" and now.state != before.state:
                yield f"credit {name} was acknowledged and is {now.state}"
        self._credits = dict(credits)

    def _all_are_at_an_end(self) -> Iterator[str]:
        states, engine = self._play.states(), self._play.engine_states()
        for market_id in self._play.market_ids:
            positions = engine[market_id]["positions"] if market_id in engine else {}
            if states.get(market_id) != "done" or positions.keys() != {"COMPLETED"}:
                yield f"{market_id} is {states.get(market_id)}, its positions are {positions}"


_CREDITS = """
SELECT credit.*, amount + coalesce((
    SELECT sum(difference) FROM prediction.adjustment
    WHERE adjustment.credit_id = credit.credit_id
), 0) AS booked
FROM prediction.credit
ORDER BY credit_id
"""

# Positions that the engine has told to be completed twice, until it says which of them counts.
_DOUBLED = """
SELECT market_id, position_id
FROM core.settlement
WHERE source = 'prediction' AND is_current AND status = 'settled'
GROUP BY 1, 2
HAVING count(*) > 1
"""


def may_count(told: Sequence[Any], owed: Decimal, *, is_for_good: bool) -> list[Any]:
    """Which of these versions, in the order in which they were told, a person may let count.

    Once the truth was told last nothing new comes of it, and nobody is asked again: who lets the
    lie count then does so for good.
    """
    if is_for_good or told[-1].payout == owed:
        return [row for row in told if row.payout == owed]
    return list(told)


def _all_are_paid(
    owed: Mapping[str, Owed],
    credits: Mapping[str, Any],
    paid: Mapping[str, int],
    doubled: Collection[tuple[str, ...]],
) -> Iterator[str]:
    """What is owed is booked to the last cent and paid once, and nothing else is booked."""
    for name in owed.keys() | credits.keys():
        told, row = owed.get(name), credits.get(name)
        place = (row.market_id, row.position_id) if row else (told.market_id, told.position_id)
        due = told.amount if told else Decimal(0)
        if place not in doubled and (row.booked if row else 0) != due:
            yield f"settlement {name} is owed {due}, but {row and row.booked} is booked"
        if row and paid[name] != (row.state != "held"):
            yield f"credit {name} is {row.state}, and was paid {paid[name]} times"
        if row and row.state == "held" and row.booked:
            yield f"credit {name} of {row.booked} is still held"


def _identity(row: Any) -> tuple[Any, ...]:
    return row.credit_id, row.market_id, row.position_id


def _told(row: Any) -> tuple[Any, ...]:
    return row.player_id, row.currency, row.amount, row.outcome_id, row.record_id


def _whatever_waits(run: Callable[[Engine], object]) -> Callable[[Engine], None]:
    """The task, whose failures of this kind let the next one go on."""

    def run_and_go_on(engine: Engine) -> None:
        with suppress(*_WAITS):
            run(engine)

    return run_and_go_on
