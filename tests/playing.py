"""Sources as the sandbox plays them: what a source's tests, kills and chaos are made of.

A source joins by an entry in `PLAYED`: how the sandbox is made to show records of it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine

from include.catchup.pipeline import land, normalize
from include.catchup.sources import Source
from include.providers.http import Client
from include.quality.gates import check_raw, check_settlements
from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.publishing import publish
from tests.checker import Watch
from tests.killing import Moment, Task, Worker, run_and_kill
from tests.sandboxes import provider_keys, ticktock_client
from tests.warehouses import Warehouse

# Small pages and commits, so that a short run has every kind of commit.
SETTINGS = Settings(read_attempts=1, ticktock_page_limit=10, land_commit_records=15)


@dataclass(frozen=True)
class Played:
    """How the sandbox plays a source: its client, the keys of its records, oldest first, and the
    secrets that its connection holds.
    """

    client: Callable[[Sandbox, Settings], Client]
    keys: Callable[[Sandbox], list[str]]
    secrets: tuple[str, ...]


PLAYED = {
    "ticktock": Played(client=ticktock_client, keys=provider_keys, secrets=(TICKTOCK_KEY,)),
}


def tasks_of(source: Source, sandbox: Sandbox, settings: Settings, run_id: str) -> tuple[Task, ...]:
    """All tasks of the source's DAG, in order."""

    def land_all(engine: Engine) -> None:
        with PLAYED[source.name].client(sandbox, settings) as client:
            land(engine, source, client, settings, run_id)

    return (
        Task("land", land_all),
        Task("check_raw", lambda engine: check_raw(engine, source.name, settings)),
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

    The checker keeps the source it was made with; `source` is what the tasks work with.
    """

    source: Source
    sandbox: Sandbox
    warehouse: Warehouse
    run_id: str = "test"
    settings: Settings = SETTINGS
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        password = self.warehouse.engine.url.password
        assert password is not None
        self.watch = Watch(self.source, (*PLAYED[self.source.name].secrets, str(password)))
        self.sandbox.configure(self.source.name, visible_entries=0, requests_a_minute=10**6)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of the source's DAG."""
        return tasks_of(self.source, self.sandbox, self.settings, self.run_id)

    def advance(self, records: int) -> None:
        """The provider goes on by so many records."""
        self.sandbox.advance(self.source.name, records)

    def kill(self, moment: Moment | None, tasks: Sequence[Task] | None = None) -> str | None:
        """Run the tasks and kill them at `moment`: the point, or None if they never came to it."""
        ending, point = run_and_kill(self.warehouse.pipelines_url, tasks or self.tasks, moment)
        return point if ending == "killed" else None

    @contextmanager
    def frozen(
        self,
        moment: Moment,
        tasks: Sequence[Task] | None = None,
        session: Mapping[str, str] | None = None,
    ) -> Iterator[Worker]:
        """A worker that runs the tasks and stands frozen at `moment`."""
        url = self.warehouse.pipelines_url
        with Worker(url, tasks or self.tasks, moment, signal.SIGSTOP, session) as worker:
            ending = worker.wait()
            assert ending == "frozen", f"{ending} without {moment}\n{worker.error()}"
            yield worker

    def wrong(self, *, is_left_alone: bool = False) -> list[str]:
        """What the checker finds now."""
        shown = PLAYED[self.source.name].keys(self.sandbox)
        with self.warehouse.owner_engine.connect() as connection:
            return self.watch.look(connection, shown, is_left_alone=is_left_alone)

    def wrong_when_left_alone(self) -> list[str]:
        """What the checker finds after a run that nobody disturbs."""
        assert self.kill(None) is None
        return self.wrong(is_left_alone=True)
