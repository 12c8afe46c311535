"""`make chaos KILLS=5000`: kill pipelines at random moments, and check everything after each kill.

Each round of a catch-up lets the provider go on by some records, and each of a resend enters some
payouts and orders some faults of the wallet; the run is then killed at a moment drawn at random:
before or after any commit or SQL statement that it makes.  Some senders are frozen there instead,
and wake up when another one has gone on.  Every tenth run is left alone and must end as it should.
Then the fuzz target runs for a fixed time, and random payouts are signed and checked by JavaScript.
Prints its seed, with which a run can be repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from include.catchup.sources import SOURCES
from include.local.postgres import Postgres, remove_cluster
from tests import fuzz, signing
from tests.killing import Moment, Point, Worker
from tests.payouts.disturbing import Disturbed
from tests.playing import Play
from tests.sandbox.process import running_sandbox
from tests.warehouses import fresh_warehouse, make_template

# A warehouse is checked whole after each kill, so each lives for so many rounds only.
_ROUNDS_A_WAREHOUSE = 40
_ROUNDS_LEFT_ALONE = 10
# None, one, a page and one less or more of it, several pages and commits.
_RECORDS = (0, 1, 9, 10, 11, 35)
_SECONDS_BETWEEN_REPORTS = 5.0


@dataclass
class Tally:
    """What was killed where, what was violated, and how long it takes; told as it goes."""

    kills: int
    console: Console
    points: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _reported: float = field(default_factory=time.monotonic)

    @property
    def is_left(self) -> bool:
        """Whether there is somebody to kill yet."""
        return self.points.total() < self.kills

    def count(self, moment: Moment, point: str) -> None:
        """Count a kill; tell how things stand, every few seconds."""
        is_commit = moment.point.kind == "commit"
        name = point if is_commit else f"{moment.point.task} (between its commits)"
        self.points[f"{moment.when} {name}" if is_commit else name] += 1
        now = time.monotonic()
        if now - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            done = self.points.total()
            pace = done / (now - self._started)
            left = self.kills - done
            self.console.print(
                f"{done:6} kills, {pace:.1f} a second, {left} left (about {left / pace:.0f} s), "
                f"{len(self.violations)} violations"
            )

    def violate(self, violations: list[str], how: str) -> None:
        """Keep and tell what is wrong."""
        for violation in violations:
            self.violations.append(violation)
            self.console.print(f"VIOLATION {how}: {violation}")

    def sum_up(self, seed: int) -> None:
        """Tell what was done in all."""
        for name, count in sorted(self.points.items()):
            self.console.print(f"{count:6} {name}")
        self.console.print(
            f"{self.points.total()} kills at {len(self.points)} points, seed {seed}: "
            f"{len(self.violations)} violations"
        )


def kill(kills: int, seed: int, console: Console) -> list[str]:
    """Kill `kills` times; what was violated."""
    draw = random.Random(seed)
    tally = Tally(kills, console)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        try:
            with Postgres(folder / "postgres") as server, running_sandbox(folder) as sandbox:
                make_template(server)
                while tally.is_left:
                    for source in SOURCES.values():
                        sandbox.reset()
                        with fresh_warehouse(server) as warehouse:
                            play = Play(source, sandbox, warehouse, keeps_budgets=True)
                            _kill_in_one_warehouse(play, draw, tally)
                    sandbox.reset()
                    with fresh_warehouse(server) as warehouse:
                        _disturb_in_one_warehouse(Disturbed(warehouse, sandbox, draw), draw, tally)
        finally:
            remove_cluster(folder / "postgres")
    tally.sum_up(seed)
    return tally.violations


def _kill_in_one_warehouse(play: Play, draw: random.Random, tally: Tally) -> None:
    """Some rounds, up to the first violation: what follows from it would only repeat it."""
    points = _points(play)
    for number in range(1, _ROUNDS_A_WAREHOUSE + 1):
        if not tally.is_left:
            break
        play.advance(draw.choice(_RECORDS))
        moment = Moment(draw.choice(("before", "after")), draw.choice(points))
        if (point := play.kill(moment)) is not None:
            tally.count(moment, point)
        found = play.wrong()
        if not found and number % _ROUNDS_LEFT_ALONE == 0:
            found = play.wrong_when_left_alone()
        if found:
            return tally.violate(found, f"after a kill {moment}")
    tally.violate(play.wrong_when_left_alone(), "left alone")
    return None


def _disturb_in_one_warehouse(resend: Disturbed, draw: random.Random, tally: Tally) -> None:
    """Some rounds, up to the first violation."""
    commits, statements = _by_kind(resend.points())
    for number in range(1, _ROUNDS_A_WAREHOUSE + 1):
        if not tally.is_left:
            break
        points = draw.choice((commits, statements))
        # The first run is the longest: most come to its beginning, few to its end.
        point = points[int(len(points) * draw.random() ** 2)]
        moment = Moment(draw.choice(("before", "after")), point)
        resend.make_trouble()
        if (name := resend.disturb(moment)) is not None:
            tally.count(moment, name)
        found = resend.wrong()
        if not found and number % _ROUNDS_LEFT_ALONE == 0:
            found = resend.wrong_when_left_alone()
        if found:
            return tally.violate(found, f"after a kill {moment} of a resend ({resend})")
    tally.violate(resend.wrong_when_left_alone(), f"left alone ({resend})")
    return None


def _points(play: Play) -> list[Point]:
    """The points of a run, commits as often as statements so that each is met."""
    play.advance(max(_RECORDS))
    with Worker(play.warehouse.pipelines_url, play.tasks) as worker:
        assert worker.wait() == "finished", worker.error()
        points = worker.points()
    commits, _ = _by_kind(points)
    return points + commits * ((len(points) - len(commits)) // len(commits))


def _by_kind(points: list[Point]) -> tuple[list[Point], list[Point]]:
    """The commits and the statements."""
    commits = [point for point in points if point.kind == "commit"]
    return commits, [point for point in points if point.kind == "statement"]


def main() -> int:
    """Parse the command line; 0 only if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--fuzz-seconds", type=float, default=60.0)
    parser.add_argument("--payloads", type=int, default=400_000)
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    violations = kill(arguments.kills, arguments.seed, console)
    console.print(f"Fuzzing for {arguments.fuzz_seconds:g} seconds, seed {arguments.seed}")
    failures = fuzz.run(arguments.fuzz_seconds, arguments.seed)
    for failure in failures:
        console.print(f"FUZZ {failure}")
    console.print(f"Fuzzing found {len(failures)} failures")
    console.print(f"Signing {arguments.payloads} requests, seed {arguments.seed}")
    disagreements = signing.run(arguments.payloads, arguments.seed)
    for disagreement in disagreements:
        console.print(f"SIGNING {disagreement}")
    console.print(f"JavaScript disagreed about {len(disagreements)} of them")
    return 1 if violations or failures or disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
