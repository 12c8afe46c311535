"""A resend as tests play it: an outbox, the sandbox's wallet, and the checker watching both."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from include.payouts.outbox import freeze_new
from include.payouts.outcome import check_outbox, check_outcome
from include.payouts.partner import Partner
from include.payouts.sending import Sent, send
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.decisions import resolve
from include.warehouse.findings import KINDS
from tests.killing import Moment, Point, Task, Worker
from tests.local.waiting import wait_for
from tests.payouts.checking import Watch
from tests.payouts.entering import DAY, enter, payout, rows
from tests.warehouses import Warehouse

# Small requests, and nothing that has to be waited for but deadlines, which are short.
SETTINGS = Settings(
    wallet_batch_items=4,
    wallet_requests_at_once=1,
    wallet_deadline_seconds=1,
    wallet_lease_seconds=0.6,
    wallet_resend_delay_seconds=0,
)


def empty(warehouse: Warehouse) -> None:
    """As if nothing had ever been entered, sent or found."""
    with warehouse.owner_engine.begin() as connection:
        tables = connection.scalars(
            text(
                "SELECT CAST(oid AS regclass)::text FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace IN (SELECT oid FROM pg_namespace"
                " WHERE nspname IN ('wallet', 'ops')) AND relname <> 'player_pad'"
            )
        )
        connection.execute(text(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY"))


def partner_at(sandbox: Sandbox) -> Partner:
    """The sandbox's wallet, with its own key and secret."""
    return Partner(sandbox.wallet_url, WALLET_KEY, WALLET_SECRET)


# A frozen transaction is ended by the server, so that nobody waits for its locks.
GIVING_WAY = {"idle_in_transaction_session_timeout": "300ms"}


@dataclass
class Resend:
    """An outbox, its partner and the settings that sending goes by, under the checker's eyes."""

    warehouse: Warehouse
    sandbox: Sandbox
    settings: Settings = SETTINGS
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        password = self.warehouse.engine.url.password
        self.watch = Watch(
            self.settings.wallet_partner_idempotent, (str(password),) if password else ()
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of the resend's DAG, in order."""
        partner = partner_at(self.sandbox)

        def prepare(engine: Engine) -> None:
            freeze_new(engine)
            check_outbox(engine, DAY)

        return (
            Task("prepare", prepare),
            Task("send", lambda engine: send(engine, partner, self.settings, DAY, run_id="test")),
            Task("check_outcome", lambda engine: check_outcome(engine, DAY, "test")),
        )

    def change(self, **changes: Any) -> None:
        """Other settings from now on."""
        self.settings = self.settings.model_copy(update=changes)
        self.watch.partner_is_idempotent = self.settings.wallet_partner_idempotent

    def enter(self, *names: str, **changes: Any) -> None:
        """Payouts with these ids."""
        enter(self.warehouse, *(payout(name, **changes) for name in names))

    def send(self, batch_items: int | None = None, partner: Partner | None = None) -> Sent:
        """Send what is due, as the task does; to another partner if one is given."""
        return send(
            self.warehouse.engine,
            partner or partner_at(self.sandbox),
            self.settings,
            DAY,
            run_id="test",
            batch_items=batch_items,
        )

    def points(self) -> list[Point]:
        """The points of a run that is left alone."""
        with Worker(self.warehouse.engine, self.tasks) as worker:
            worker.wait()
            return worker.points()

    def kill(self, moment: Moment) -> str | None:
        """Run the tasks and kill them at `moment`: the point, or None if they ended before."""
        with Worker(self.warehouse.engine, self.tasks, moment) as worker:
            if worker.wait() != "killed":
                return None
            return str(worker.points()[-1])

    def freeze(self, moment: Moment) -> str | None:
        """Freeze a run at `moment` until another one has gone on in its place, and then let it."""
        engine = self.warehouse.engine
        with Worker(engine, self.tasks, moment, signal.SIGSTOP, GIVING_WAY) as sleeper:
            if sleeper.wait() != "frozen":
                return None
            point = str(sleeper.points()[-1])
            self.let_the_lease_run_out()
            with Worker(engine, self.tasks) as other:
                other.wait()
            sleeper.go_on()
            sleeper.wait()
            return point

    @contextmanager
    def frozen(self, moment: Moment, session: Mapping[str, str] | None = None) -> Iterator[Worker]:
        """A worker that runs the tasks and stands frozen at `moment`."""
        engine = self.warehouse.engine
        with Worker(engine, self.tasks, moment, signal.SIGSTOP, session) as worker:
            ending = worker.wait()
            assert ending == "frozen", f"{ending} without {moment}\n{worker.error()}"
            yield worker

    def let_the_lease_run_out(self) -> None:
        """As if its holder had not renewed it for so long."""
        self.as_owner("UPDATE ops.lease SET expires_at = clock_timestamp()")

    def let_the_window_close(self) -> None:
        """As if so much time had passed."""
        self.as_owner(
            "UPDATE wallet.sending_window SET closes_at = clock_timestamp()"
            " WHERE closes_at > clock_timestamp()"
        )

    def as_owner(self, statement: str, *, past_its_rules: bool = False) -> None:
        """Change the warehouse behind everybody's back; past its triggers as well if so told."""
        with self.warehouse.owner_engine.begin() as connection:
            if past_its_rules:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(statement))

    def states(self) -> dict[str, str]:
        """By id: why it is held, or else its disposition."""
        found = rows(
            self.warehouse,
            "SELECT transaction_id, coalesce(hold_reason, disposition) AS state"
            " FROM wallet.transaction ORDER BY transaction_id",
        )
        return {row.transaction_id: row.state for row in found}

    def wait_until_requests_are_over(self) -> None:
        """Wait until nothing can reach the wallet any more."""
        wait_for(
            "all requests are over",
            lambda: (
                not rows(
                    self.warehouse,
                    "SELECT FROM wallet.attempt WHERE deadline_at > clock_timestamp()",
                )
            ),
            60,
        )

    def decide(self, *decisions: str) -> None:
        """Take the first of these decisions that is open on each finding that holds payouts, once
        the requests that held them are over.
        """
        self.wait_until_requests_are_over()
        found = rows(
            self.warehouse,
            "SELECT finding_id, kind, count(*) AS payouts FROM wallet.transaction"
            " JOIN ops.finding ON finding_id = hold_finding_id GROUP BY 1 ORDER BY 1",
        )
        for row in found:
            resolve(
                self.warehouse.engine,
                row.finding_id,
                next(name for name in decisions if name in KINDS[row.kind].decisions),
                decided_by="a person",
                reason="a test",
                reference="a letter",
                parameters={"payouts": row.payouts},
                run_id=None,
                second_person_above=Decimal("Infinity"),
            )

    def findings(self) -> list[str]:
        """The kinds of the open findings, in alphabetical order."""
        found = rows(self.warehouse, "SELECT kind FROM ops.finding WHERE state = 'open'")
        return sorted(row.kind for row in found)

    def requests(self) -> list[list[str]]:
        """The ids in each request that the wallet has seen, in order."""
        return [
            [_id_in(written) for written in request["item_texts"]]
            for request in self.sandbox.wallet_requests(with_texts=True)
        ]

    def credits(self) -> dict[str, int]:
        """How often the wallet credited each payout that it credited."""
        return {name: times for name, times in self.sandbox.wallet_credits() if times}

    def wrong(self, *, is_left_alone: bool = False) -> list[str]:
        """What the checker finds now."""
        return self.watch.look(self.warehouse, self.sandbox, is_left_alone=is_left_alone)


def names(count: int, prefix: str = "t") -> list[str]:
    """So many ids, in alphabetical order."""
    return [f"{prefix}{number:03}" for number in range(count)]


def all_are(state: str, ids: Iterable[str]) -> dict[str, str]:
    """The same state for each id."""
    return dict.fromkeys(ids, state)


def _id_in(written: str) -> str:
    return written.partition('"transactionId":"')[2].partition('"')[0]
