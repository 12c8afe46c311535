"""`make chaos KILLS=200`: kill pipelines at random commits, and check everything after each kill.

Each round lets the provider go on by some entries, runs a catch-up that is killed at a commit drawn
at random, and then checks every invariant that holds at any moment; every tenth round is left alone
and must end with all that the provider holds.  Prints its seed, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from include.catchup.sources import SOURCES
from include.local.postgres import Postgres, remove_cluster
from tests.catchup.test_contract import PLAYED, catch_up
from tests.checker import violations
from tests.killing import When, run_and_kill
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse, make_template

# A warehouse is checked whole after each kill, so each lives for so many rounds only.
_ROUNDS_A_WAREHOUSE = 40
_COMMITS = 16
_ENTRIES = (0, 1, 19, 20, 21, 90)


def run(kills: int, seed: int) -> int:
    """Kill `kills` times; the number of violations found."""
    console = Console(highlight=False)
    draw = random.Random(seed)
    points: Counter[str] = Counter()
    found: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with Postgres(folder / "postgres") as server, running_sandbox(folder) as sandbox:
            make_template(server)
            while points.total() < kills:
                sandbox.reset()
                with fresh_warehouse(server) as warehouse:
                    for source in SOURCES.values():
                        sandbox.configure(source.name, visible_entries=0, requests_a_minute=10**6)
                        pipeline = partial(catch_up, source, sandbox)
                        for number in range(_ROUNDS_A_WAREHOUSE):
                            sandbox.advance(source.name, draw.choice(_ENTRIES))
                            found += _round(warehouse, source.name, pipeline, number, draw, points)
                        assert run_and_kill(warehouse.pipelines_url, pipeline, None)
                        found += _wrong(warehouse, source.name, PLAYED[source.name].keys(sandbox))
                console.print(f"{points.total():6} kills, {len(found)} violations")
    finally:
        remove_cluster(folder / "postgres")
        for path in folder.iterdir():
            with suppress(IsADirectoryError):
                path.unlink()
    for point, count in sorted(points.items()):
        console.print(f"{point:12} {count:5} kills")
    for violation in found:
        console.print(f"VIOLATION {violation}")
    console.print(f"{points.total()} kills, seed {seed}: {len(found)} violations")
    return len(found)


def _round(
    warehouse: Warehouse,
    source: str,
    pipeline: partial[None],
    number: int,
    draw: random.Random,
    points: Counter[str],
) -> list[str]:
    when: When = draw.choice(("before", "after"))
    commit = None if number % 10 == 9 else draw.randint(1, _COMMITS)
    if not run_and_kill(warehouse.pipelines_url, pipeline, commit, when):
        points[f"{when} {commit}"] += 1
    return _wrong(warehouse, source, None)


def _wrong(warehouse: Warehouse, source: str, keys: list[str] | None) -> list[str]:
    with warehouse.owner_engine.connect() as connection:
        return violations(connection, SOURCES[source], keys)


def main() -> int:
    """Parse the command line; 0 only if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    arguments = parser.parse_args()
    return 1 if run(arguments.kills, arguments.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
