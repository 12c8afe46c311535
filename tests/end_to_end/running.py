"""A whole system as a test sees it: Airflow by its REST API, the warehouse by its owner's login."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from include.catchup.sources import SOURCES
from include.local.airflow import AirflowApi
from include.local.progress import Progress
from include.local.system import System
from include.sandbox.client import Sandbox
from include.warehouse.database import open_engine
from tests.checker import violations
from tests.local.waiting import wait_for
from tests.sandboxes import provider_keys

CATCH_UP = "catch_up_ticktock"
CATCH_UP_BETS = "catch_up_odds88"
RESEND = "resend_settlements"
SETTLE = "settle_markets"
DAGS = (CATCH_UP, CATCH_UP_BETS, RESEND, SETTLE, "import_files", "resolve_findings", "watch_feeds")
STEPS = ("land", "check_raw", "normalize", "check_settlements", "publish")
_DAGS_SECONDS, _RUN_SECONDS, _CONDITION_SECONDS = 90.0, 120.0, 60.0


@dataclass(frozen=True)
class Running:
    """A system that runs.

    Beside the runs that a test starts there are the scheduler's own: what a test waits for is how
    the data stands, never which run brought it there.
    """

    system: System
    sandbox: Sandbox
    engine: Engine
    folder: Path

    @property
    def api(self) -> AirflowApi:
        return self.system.api

    def run(self, dag_id: str, **body: Any) -> tuple[str, str]:
        """Run a DAG by hand to its end; the run's id and its state."""
        run_id = self.api.trigger(dag_id, **body)
        return run_id, self.api.wait_for_run(dag_id, run_id, _RUN_SECONDS)

    def catch_up(self) -> str:
        """Run the catch-up, which must succeed; the run's id."""
        run_id, state = self.run(CATCH_UP)
        assert state == "success", self.states(run_id)
        return run_id

    def rerun(self, run_id: str, *task_ids: str, dag_id: str = CATCH_UP) -> None:
        """Clear tasks of a run, those alone, and wait until the run has succeeded again."""
        self.api.clear(dag_id, run_id, task_ids, only_failed=False, with_downstream=False)
        assert self.api.wait_for_run(dag_id, run_id, _RUN_SECONDS) == "success"

    def states(self, run_id: str, dag_id: str = CATCH_UP) -> dict[str, str]:
        instances = self.api.task_instances(dag_id, run_id)
        return {instance["task_id"]: instance["state"] for instance in instances}

    def kill(self, task_id: str, dag_id: str = CATCH_UP) -> str:
        """SIGKILL the process that works on the task; its run's id."""
        [instance] = [
            instance
            for instance in self.api.task_instances(dag_id, "~")
            if instance["task_id"] == task_id and instance["state"] == "running"
        ]
        os.kill(instance["pid"], signal.SIGKILL)
        run_id: str = instance["dag_run_id"]
        # Airflow notices, and would try again by itself after the task's delay.
        wait_for(
            f"{task_id} waits for its next try",
            lambda: self.states(run_id, dag_id)[task_id] == "up_for_retry",
            _CONDITION_SECONDS,
            pause_seconds=0.25,
        )
        return run_id

    def ask(self, statement: str, **parameters: Any) -> Any:
        """The one value that a statement gives, asked with the owner's rights."""
        with self.engine.connect() as connection:
            return connection.scalar(text(statement), parameters)

    def versions(self, source: str = "ticktock") -> int:
        """How many versions of a source are in core: others have runs of their own."""
        return int(
            self.ask("SELECT count(*) FROM core.settlement WHERE source = :source", source=source)
        )

    def wait_until(self, condition: str, statement: str) -> None:
        """Wait until a statement is true in the warehouse."""
        wait_for(condition, lambda: bool(self.ask(statement)), _CONDITION_SECONDS)

    def violations(self) -> list[str]:
        """What is wrong with the warehouse, while nothing runs and the provider has no more."""
        keys = provider_keys(self.sandbox)
        with self.engine.connect() as connection:
            return violations(connection, SOURCES["ticktock"], keys)


@contextmanager
def running_system(
    folder: Path, *, airflow_settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A fresh system with its state in `folder`, its DAGs known; it ends with the block."""
    with (
        System(folder, Progress(), is_fresh=True, airflow_settings=airflow_settings) as system,
        Sandbox(system.sandbox_url) as sandbox,
    ):
        engine = open_engine(system.warehouse_url)
        try:
            system.api.wait_for_dags(DAGS, _DAGS_SECONDS)
            assert system.api.import_errors() == []
            yield Running(system, sandbox, engine, folder)
        finally:
            engine.dispose()
