"""`python -m tests.latency`: what a run with nothing new costs, and how soon an entry is in core.

Both on a system of its own, as `make up` starts one: the real scheduler, Postgres and the sandbox.

* An empty run of the catch-up beside one of a DAG with as many tasks that do nothing, in the same
  chain, on the same system, in turn.  The goal is a ratio of the medians of at most 1.2.
* Entries that appear at the provider while nothing runs.  Either the catch-up is started at once,
  which leaves out the wait for the schedule's next tick, known to be evenly spread over its
  interval; or, with `--ticks`, the schedule is left to itself, which takes minutes for each entry.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from include.local.postgres import remove_cluster
from include.local.progress import Progress
from include.local.system import PROJECT
from tests.end_to_end.running import CATCH_UP, DAGS, STEPS, Running, running_system

GOAL = 1.2
EMPTY = "empty_tasks"
_EMPTY_DAG = f'''"""As many tasks that do nothing as the catch-up has, in the same chain."""

from airflow.sdk import DAG, chain, task


@task
def nothing() -> None:
    pass


with DAG(dag_id="{EMPTY}", schedule=None, catchup=False, max_active_runs=1):
    chain(*(nothing.override(task_id=name)() for name in {STEPS}))
'''

_WARM_UP_RUNS = 3
_TICK_SECONDS = 300
_QUIET_SECONDS = 20
_POLL_SECONDS = 0.02
_RUN_SECONDS = 120.0

Parts = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """What one run took, in seconds: from its start to its end, its tasks alone, and processor.

    `processor` is that of the executor's workers and of the task processes that they fork.
    """

    run: float
    tasks: float
    processor: float
    by_task: Parts


def measure_cost(running: Running, dag_id: str) -> Cost:
    """One run of the DAG, while no other runs."""
    _wait_for_quiet(running)
    before = _processor_seconds(running)
    run_id, state = running.run(dag_id)
    assert state == "success", f"{dag_id} ended as {state}"
    run, instances = _described(running, dag_id, run_id)
    by_task = {name: _seconds(*_span(instance)) for name, instance in instances.items()}
    return Cost(
        run=_seconds(*_span(run)),
        tasks=sum(by_task.values()),
        processor=_processor_seconds(running) - before,
        by_task=by_task,
    )


def measure_latency(running: Running, bring_about: Callable[[Running], None]) -> Parts:
    """One entry, from its appearance to its row in core being committed: seconds by part.

    `bring_about` is called once the entry is there; it sees to it that a run fetches it.
    """
    before = running.versions()
    running.sandbox.advance("ticktock", 1)
    appeared_at = datetime.now(UTC)
    bring_about(running)
    deadline = time.monotonic() + _TICK_SECONDS + _RUN_SECONDS
    while running.versions() == before:
        assert time.monotonic() < deadline, "the entry does not come"
        time.sleep(_POLL_SECONDS)
    committed_at = datetime.now(UTC)
    run_id = running.ask(
        "SELECT run_id FROM core.settlement JOIN ops.batch USING (batch_id)"
        " WHERE settlement.source = 'ticktock' ORDER BY recorded_at DESC LIMIT 1"
    )
    running.api.wait_for_run(CATCH_UP, run_id, _RUN_SECONDS)
    run, instances = _described(running, CATCH_UP, run_id)
    return _parts(appeared_at, committed_at, run, instances)


def _parts(
    appeared_at: datetime, committed_at: datetime, run: dict[str, Any], instances: dict[str, Any]
) -> Parts:
    spans = {name: _span(instances[name]) for name in STEPS}
    # The last task still has to report when its rows are there.
    spans[STEPS[-1]] = (spans[STEPS[-1]][0], committed_at)
    run_after = datetime.fromisoformat(run["run_after"])
    waited = _seconds(appeared_at, run_after)
    started = _seconds(run_after, spans[STEPS[0]][0])
    worked = {name: _seconds(*span) for name, span in spans.items()}
    total = _seconds(appeared_at, committed_at)
    return {
        "wait for the run": waited,
        "scheduler starts it": started,
        **worked,
        "from task to task": total - waited - started - sum(worked.values()),
        "in all": total,
    }


def _trigger(running: Running) -> None:
    running.api.trigger(CATCH_UP)


def _leave_to_schedule(_running: Running) -> None:
    """The next tick does it."""


def _wait_for_quiet(running: Running) -> None:
    """Wait until nothing runs and the next tick is far enough away for a run before it."""
    deadline = time.monotonic() + _TICK_SECONDS
    while _TICK_SECONDS - time.time() % _TICK_SECONDS < _QUIET_SECONDS or any(
        run["state"] in ("queued", "running") for dag in DAGS for run in running.api.runs(dag)
    ):
        assert time.monotonic() < deadline, "the system does not come to rest"
        time.sleep(1)


def _wait_for_any_moment() -> None:
    """Entries appear at any time, not just after a run."""
    time.sleep(random.uniform(0, _TICK_SECONDS - _QUIET_SECONDS))


def _processor_seconds(running: Running) -> float:
    workers = psutil.Process(running.system.process_id("scheduler")).children()
    return sum(sum(worker.cpu_times()[:4]) for worker in workers)


def _described(
    running: Running, dag_id: str, run_id: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    [run] = [run for run in running.api.runs(dag_id) if run["dag_run_id"] == run_id]
    instances = running.api.task_instances(dag_id, run_id)
    return run, {instance["task_id"]: instance for instance in instances}


def _span(described: dict[str, Any]) -> tuple[datetime, datetime]:
    return tuple(datetime.fromisoformat(described[end]) for end in ("start_date", "end_date"))


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def compare_costs(running: Running, runs: int, console: Console) -> float:
    """Both DAGs in turn, `runs` times; prints medians; the ratio of the runs' medians."""
    costs: dict[str, list[Cost]] = {EMPTY: [], CATCH_UP: []}
    for dag_id in [*costs] * _WARM_UP_RUNS:
        # Each worker process imports on its first task what it then keeps.
        measure_cost(running, dag_id)
    for number in range(1, runs + 1):
        for dag_id, measured in costs.items():
            measured.append(measure_cost(running, dag_id))
            console.print(f"run {number} of {runs}: {dag_id} {measured[-1].run:.2f} s")
    rows: dict[str, Callable[[Cost], float]] = {
        "run, from start to end": lambda cost: cost.run,
        "tasks together": lambda cost: cost.tasks,
        **{f"  {step}": lambda cost, step=step: cost.by_task[step] for step in STEPS},
        "processor of workers and tasks": lambda cost: cost.processor,
    }
    table = Table("seconds", title=f"Nothing new, {runs} runs of each")
    for column in ("median", "least"):
        table.add_column(f"{EMPTY}, {column}")
        table.add_column(f"{CATCH_UP}, {column}")
        table.add_column("ratio")
    ratios = []
    for name, figure in rows.items():
        cells = []
        for of in (median, min):
            empty, ours = (of([*map(figure, costs[dag_id])]) for dag_id in (EMPTY, CATCH_UP))
            cells += [f"{empty:.2f}", f"{ours:.2f}", f"{ours / empty:.2f}"]
        ratios.append(float(cells[2]))
        table.add_row(name, *cells)
    console.print(table)
    return ratios[0]


def print_latencies(title: str, measured: Sequence[Parts], console: Console) -> None:
    """Every part's least, median and greatest."""
    table = Table("seconds", "least", "median", "greatest", title=title)
    for part in measured[0]:
        values = [parts[part] for parts in measured]
        table.add_row(part, *(f"{of(values):.2f}" for of in (min, median, max)))
    console.print(table)


@contextmanager
def measured_system() -> Iterator[Running]:
    """A fresh system that has caught up, with the DAG of empty tasks beside the project's."""
    folder = Path(tempfile.mkdtemp(prefix="latency-"))
    dags = folder / "dags"
    dags.mkdir()
    (dags / "empty_tasks.py").write_text(_EMPTY_DAG, encoding="utf-8")
    state = folder / "state"
    try:
        with running_system(
            state, airflow_settings=_dag_folders(PROJECT / "dags", dags)
        ) as running:
            running.api.wait_for_dags([EMPTY], _RUN_SECONDS)
            running.catch_up()
            yield running
    finally:
        remove_cluster(state / "postgres")
        shutil.rmtree(folder)


def _dag_folders(*folders: Path) -> dict[str, str]:
    """The variable with which Airflow reads DAGs from all of `folders`."""
    bundles = [
        {
            "name": f"folder-{number}",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder)},
        }
        for number, folder in enumerate(folders)
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles)}


def run(runs: int, entries: int, ticks: int) -> None:
    """Measure on one system, print, and say whether the goal is met."""
    console = Progress().console
    for name in [*os.environ]:
        if name.startswith(("AIRFLOW_CONN_", "SETTLEMENTS_")):
            del os.environ[name]
    with measured_system() as running:
        ratio = compare_costs(running, runs, console) if runs else None
        latencies = []
        for _ in range(entries):
            _wait_for_quiet(running)
            latencies.append(measure_latency(running, _trigger))
        if latencies:
            print_latencies(
                f"From appearance to core, {entries} entries, runs started at once; the schedule "
                f"adds 0 to {_TICK_SECONDS} s, {_TICK_SECONDS / 2:g} s on average",
                latencies,
                console,
            )
        scheduled = []
        for number in range(1, ticks + 1):
            _wait_for_quiet(running)
            _wait_for_any_moment()
            scheduled.append(measure_latency(running, _leave_to_schedule))
            console.print(f"tick {number} of {ticks}: {scheduled[-1]['in all']:.1f} s")
        if scheduled:
            print_latencies(f"The same, left to the schedule, {ticks} entries", scheduled, console)
    if ratio is not None:
        console.print(f"Nothing new costs {ratio:.2f} times as many empty tasks; goal {GOAL}.")


def main() -> None:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.latency", description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="runs of each DAG with nothing new")
    parser.add_argument("--entries", type=int, default=7, help="entries fetched at once")
    parser.add_argument("--ticks", type=int, default=0, help="entries left to the schedule")
    arguments = parser.parse_args()
    run(arguments.runs, arguments.entries, arguments.ticks)


if __name__ == "__main__":
    main()
