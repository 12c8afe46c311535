"""Sources as the sandbox plays them: what a source's tests, kills and chaos are made of.

A source joins by an entry in `PLAYED`: how the sandbox is made to show records of it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text

from include.catchup.acquiring import land
from include.catchup.sources import Source
from include.catchup.stream import Feed, Stream
from include.providers.http import Client
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.sandbox.addresses import ODDS88_PASSWORD, TICKTOCK_KEY, TOTE_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.publishing import publish
from tests.checker import Watch
from tests.killing import Moment, Task, Worker, run_and_kill
from tests.sandboxes import (
    odds88_feed,
    odds88_messages,
    provider_keys,
    ticktock_client,
    tote_bets,
    tote_client,
)
from tests.warehouses import Warehouse

# Small pages and commits, so that a short run has every kind of commit.
SETTINGS = Settings(
    read_attempts=1,
    ticktock_page_limit=10,
    land_commit_records=15,
    stream_quiet_seconds=0.02,
    tote_page_limit=25,
    tote_first_since_hours=24 * 100,
    odds88_audit_hour=None,
    odds88_payout_unit="major",
    odds88_payout_contains_partial_refund=True,
)

# Each step of the stream lies further behind the one before than a session reads again, and all of
# them within what it tells again.
_STREAM_BEGAN_SECONDS_AGO = 60 * 3600.0
_STREAM_STEP_SECONDS = 20 * 60.0

# Most bets are settled within one step of tote's clock, and some only many later.
_BETS_BEGAN_SECONDS_AGO = 89 * 86_400.0
_BETS_STEP_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Played:
    """How the sandbox plays a source: its client, what it shows, oldest first (the keys of a log's
    records, the texts of a stream's messages, how each bet stands), the secrets that its connection
    holds, the settings it begins with, how it goes on by some records, how much later it is then,
    which attempts to connect it has seen, and by which settings our clock is the sandbox's.
    """

    client: Callable[[Sandbox, Settings], Client | Feed]
    keys: Callable[[Sandbox], list[str]]
    secrets: tuple[str, ...]
    begun_with: Mapping[str, Any]
    advance: Callable[[Sandbox, int], object]
    step: timedelta = timedelta(0)
    attempts: Callable[[Sandbox], Sequence[Mapping[str, Any]]] = lambda sandbox: ()
    clock: Callable[[Sandbox], Mapping[str, Any]] = lambda sandbox: {}


def _advance_stream(sandbox: Sandbox, records: int) -> None:
    passed = sandbox.configure("odds88")["clock_offset_seconds"] + _STREAM_STEP_SECONDS
    sandbox.configure("odds88", clock_offset_seconds=passed)
    sandbox.advance("odds88", records)


def _advance_bets(sandbox: Sandbox, records: int) -> None:
    passed = sandbox.configure("tote")["clock_offset_seconds"] + _BETS_STEP_SECONDS
    sandbox.configure("tote", clock_offset_seconds=passed)
    sandbox.advance("tote", records)


def _clock_of_bets(sandbox: Sandbox) -> dict[str, Any]:
    behind = -sandbox.configure("tote")["clock_offset_seconds"]
    return {"tote_listing_lag_seconds": behind, "tote_listing_overlap_seconds": 0.0}


PLAYED = {
    "ticktock": Played(
        client=ticktock_client,
        keys=provider_keys,
        secrets=(TICKTOCK_KEY,),
        begun_with={"visible_entries": 0, "requests_a_minute": 10**6},
        advance=lambda sandbox, records: sandbox.advance("ticktock", records),
    ),
    "odds88": Played(
        client=odds88_feed,
        keys=odds88_messages,
        secrets=(ODDS88_PASSWORD,),
        begun_with={
            "messages": 0,
            "clock_offset_seconds": -_STREAM_BEGAN_SECONDS_AGO,
            "recovered_by": "first_sent",
            "seam_duplicates": 0,
            "ping_seconds": 0.02,
            "ping_every_messages": 10,
            "log_ins_a_second": 10**6,
        },
        advance=_advance_stream,
        step=timedelta(seconds=_STREAM_STEP_SECONDS),
        attempts=lambda sandbox: sandbox.odds88_attempts(),
    ),
    "tote": Played(
        client=tote_client,
        keys=tote_bets,
        secrets=(TOTE_KEY,),
        begun_with={"bets": 0, "clock_offset_seconds": -_BETS_BEGAN_SECONDS_AGO},
        advance=_advance_bets,
        clock=_clock_of_bets,
    ),
}


AMPLE = {"attempts_a_window": 10**6, "second_connection": "replaces"}
"""What a provider is told that lets everybody connect all the time."""


def with_ample_budgets(source: Source) -> Source:
    """The source, as if its provider let everybody connect all the time."""
    if not isinstance(source.acquire, Stream):
        return source
    stream = source.acquire
    proper = replace(stream.proper, attempts=10**6)
    without_revision = replace(stream.without_revision, attempts=10**6)
    return replace(
        source, acquire=replace(stream, proper=proper, without_revision=without_revision)
    )


def tasks_of(source: Source, sandbox: Sandbox, settings: Settings, run_id: str) -> tuple[Task, ...]:
    """All tasks of the source's DAG, in order."""

    def land_all(engine: Engine) -> None:
        with closing(PLAYED[source.name].client(sandbox, settings)) as client:
            land(engine, source, client, settings, run_id)

    return (
        Task("land", land_all),
        Task("check_raw", lambda engine: check_raw(engine, source.name)),
        Task("normalize", lambda engine: normalize(engine, source, settings)),
        Task("check_settlements", lambda engine: check_settlements(engine, source.name, settings)),
        Task("publish", lambda engine: publish(engine, source.name)),
    )


def run_tasks(tasks: Sequence[Task], engine: Engine) -> None:
    """One task after the other, in this process."""
    for task in tasks:
        task.run(engine)


@dataclass
class Play:
    """A source, its provider and a warehouse, under the eyes of the checker from the first look.

    The checker keeps the source it was made with; `source` is what the tasks work with.  Unless
    `keeps_budgets`, the provider lets everybody connect all the time, twice at a time as well; if
    so, a run or two may connect between two steps of the provider.
    """

    source: Source
    sandbox: Sandbox
    warehouse: Warehouse
    run_id: str = "test"
    settings: Settings = SETTINGS
    keeps_budgets: bool = False
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        password = self.warehouse.engine.url.password
        assert password is not None
        played = PLAYED[self.source.name]
        ample: Mapping[str, Any] = {}
        if isinstance(self.source.acquire, Stream) and not self.keeps_budgets:
            self.source, ample = with_ample_budgets(self.source), AMPLE
        self.watch = Watch(self.source, (*played.secrets, str(password)), self.settings)
        self.sandbox.configure(self.source.name, **played.begun_with, **ample)
        self._follow_clock()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of the source's DAG."""
        return tasks_of(self.source, self.sandbox, self.settings, self.run_id)

    def advance(self, records: int) -> None:
        """The provider goes on by so many records, and our budgets by what its clock goes on."""
        played = PLAYED[self.source.name]
        played.advance(self.sandbox, records)
        self._follow_clock()
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE ops.connect_attempt SET attempted_at = attempted_at - :step,"
                    " ended_at = ended_at - :step"
                ),
                {"step": played.step},
            )
            connection.execute(text("UPDATE tote.bet SET next_ask_at = now() WHERE state = 'open'"))

    def run(self) -> None:
        """One run in this process; what it has compiled, no worker compiles anew."""
        run_tasks(self.tasks, self.warehouse.engine)

    def kill(self, moment: Moment | None, tasks: Sequence[Task] | None = None) -> str | None:
        """Run the tasks and kill them at `moment`: the point, or None if they never came to it."""
        ending, point = run_and_kill(self.warehouse.engine, tasks or self.tasks, moment)
        if ending != "killed":
            return None
        self.let_leases_run_out()
        return point

    @contextmanager
    def frozen(
        self,
        moment: Moment,
        tasks: Sequence[Task] | None = None,
        session: Mapping[str, str] | None = None,
    ) -> Iterator[Worker]:
        """A worker that runs the tasks and stands frozen at `moment`."""
        engine = self.warehouse.engine
        with Worker(engine, tasks or self.tasks, moment, signal.SIGSTOP, session) as worker:
            ending = worker.wait()
            assert ending == "frozen", f"{ending} without {moment}\n{worker.error()}"
            self.let_leases_run_out()
            yield worker

    def let_leases_run_out(self) -> None:
        """As if so much time had passed; whoever lives on renews its own."""
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(text("UPDATE ops.lease SET expires_at = clock_timestamp()"))
            connection.execute(
                text(
                    "UPDATE tote.bet SET next_ask_at = now()"
                    " WHERE asked_at > coalesce(answered_at, '-infinity')"
                    " AND absent_since IS NULL"
                )
            )

    def _follow_clock(self) -> None:
        clock = PLAYED[self.source.name].clock(self.sandbox)
        self.settings = self.settings.model_copy(update=dict(clock))

    def wrong(self, *, is_left_alone: bool = False) -> list[str]:
        """What the checker finds now."""
        played = PLAYED[self.source.name]
        shown, attempts = played.keys(self.sandbox), played.attempts(self.sandbox)
        if not self.keeps_budgets:
            attempts = [{**each, "violation": None} for each in attempts]
        with self.warehouse.owner_engine.connect() as connection:
            return self.watch.look(connection, shown, attempts, is_left_alone=is_left_alone)

    def wrong_when_left_alone(self) -> list[str]:
        """What the checker finds after a run that nobody disturbs."""
        assert self.kill(None) is None
        return self.wrong(is_left_alone=True)
