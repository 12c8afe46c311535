"""`make chaos KILLS=5000 ONLY=resend`: kill pipelines at random moments, check all after each kill.

Each round of a catch-up lets the provider go on by some records; each of a resend enters some
payouts and orders some faults of the wallet; each of the markets has some resolved, which fail, lie
and are corrected, and has people decide.  The run is then killed at a moment drawn at random:
before or after any commit or SQL statement that it makes.  Some runs that send are frozen there
instead, and wake up when another one has gone on.  Every tenth run is left alone and must end as it
should.  With nothing chosen, all take turns, then the fuzz target runs for a fixed time, and random
payouts are signed and checked by JavaScript.

Several workers kill side by side, each with a server and a sandbox of its own.  Processes are
killed, and never the server: so its data lies in memory.  Prints its seed, with which a run can be
repeated by as many workers.  Without a number of kills, each pipeline in turn is killed as often as
its specification asks for.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn, Protocol

from rich.console import Console

from include.catchup.sources import SOURCES
from include.sandbox.client import Sandbox
from tests import fuzz, signing
from tests.catchup.disturbing import DisturbedCatchUp
from tests.killing import Moment
from tests.markets.disturbing import DisturbedMarkets
from tests.payouts.disturbing import DisturbedResend
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse, make_template, quick_server

# A warehouse is checked whole after each kill, so each lives for so many rounds only.
_ROUNDS_A_WAREHOUSE = 20
_ROUNDS_LEFT_ALONE = 10
_SECONDS_BETWEEN_REPORTS = 5.0


class Disturbed(Protocol):
    """One warehouse with a pipeline, and all who work on it and against it, drawn at random."""

    def make_trouble(self) -> None:
        """Have something to do for the next run, and something that goes wrong."""

    def moment(self) -> Moment:
        """When the next run is to be killed."""

    def disturb(self, moment: Moment) -> str | None:
        """Kill a run then, or freeze it: at which point; None if it came to its end before."""

    def wrong(self) -> list[str]:
        """What the checkers find now."""

    def wrong_when_left_alone(self) -> list[str]:
        """What they find once all trouble is over."""


PIPELINES: dict[str, Callable[[Warehouse, Sandbox, random.Random], Disturbed]] = {
    **{name: partial(DisturbedCatchUp, source) for name, source in SOURCES.items()},
    "resend": DisturbedResend,
    "markets": DisturbedMarkets,
}
BESIDES = ("fuzz", "signing")
_USUAL_KILLS = 1000
_KILLS = {"resend": 5000, "odds88": 2000, "markets": 2000}


@dataclass
class Tally:
    """What was killed where, what was violated, and how long it takes; told as it goes."""

    kills: int
    console: Console
    points: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _reported: float = field(default_factory=time.monotonic)

    def count(self, point: str) -> None:
        """Count a kill; tell how things stand, every few seconds."""
        self.points[point] += 1
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

    def violate(self, violation: str) -> None:
        """Keep and tell what is wrong."""
        self.violations.append(violation)
        self.console.print(f"VIOLATION {violation}")

    def sum_up(self, seed: int) -> None:
        """Tell what was done in all."""
        for name, count in sorted(self.points.items()):
            self.console.print(f"{count:6} {name}")
        done, seconds = self.points.total(), time.monotonic() - self._started
        self.console.print(
            f"{done} kills at {len(self.points)} points in {seconds:.0f} s, seed {seed}: "
            f"{len(self.violations)} violations"
        )


# --- one worker ---------------------------------------------------------------------------------


@dataclass
class _Worker:
    """Kills so many times, all by what its seed draws, and tells of each kill and violation."""

    pipelines: Sequence[str]
    kills: int
    seed: str
    pipe: Connection

    def run(self, inherited: Sequence[Connection]) -> None:
        """In a process of its own."""
        # What it has started ends with it, and it ends when nobody hears it any more.
        signal.signal(signal.SIGTERM, _end)
        for pipe in inherited:
            pipe.close()
        # Of the trouble that is made for them runs have much to say.
        logging.disable(logging.WARNING)
        draw = random.Random(self.seed)
        with (
            tempfile.TemporaryDirectory(prefix="chaos-") as folder,
            quick_server() as server,
            running_sandbox(Path(folder)) as sandbox,
        ):
            make_template(server)
            for name in cycle(self.pipelines):
                if not self.kills:
                    break
                sandbox.reset()
                with fresh_warehouse(server) as warehouse:
                    self._disturb(name, PIPELINES[name](warehouse, sandbox, draw))

    def _disturb(self, name: str, disturbed: Disturbed) -> None:
        """Some rounds in one warehouse, up to the first violation: what follows from it would only
        repeat it.
        """
        for number in range(1, _ROUNDS_A_WAREHOUSE + 1):
            moment = disturbed.moment()
            disturbed.make_trouble()
            if (point := disturbed.disturb(moment)) is not None:
                self._count(moment, point)
            found = disturbed.wrong()
            if not found and (number % _ROUNDS_LEFT_ALONE == 0 or not self.kills):
                found = disturbed.wrong_when_left_alone()
            self._tell(found, f"after a kill {moment} of {name} ({disturbed})")
            if found or not self.kills:
                return

    def _count(self, moment: Moment, point: str) -> None:
        self.kills -= 1
        is_commit = moment.point.kind == "commit"
        name = f"{moment.when} {point}" if is_commit else f"{moment.point.task} (between commits)"
        self.pipe.send(("kill", name))

    def _tell(self, found: list[str], how: str) -> None:
        for one in found:
            self.pipe.send(("violation", f"{how}, worker seed {self.seed}: {one}"))


def _end(*_: object) -> NoReturn:
    sys.exit(1)


# --- all of them --------------------------------------------------------------------------------


def kill(
    pipelines: Sequence[str], kills: int, seed: int, workers: int, console: Console
) -> list[str]:
    """Kill `kills` times, by `workers` side by side; what was violated."""
    tally = Tally(kills, console)
    all_shares = [kills // workers + (number < kills % workers) for number in range(workers)]
    shares = [share for share in all_shares if share]
    with _working(pipelines, shares, seed) as running:
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                try:
                    what, text = pipe.recv()
                except EOFError:
                    process = running.pop(pipe)
                    process.join()
                    if process.exitcode:
                        tally.violate(f"a worker ended by itself ({process.exitcode}), see above")
                    continue
                (tally.count if what == "kill" else tally.violate)(text)
    tally.sum_up(seed)
    return tally.violations


@contextmanager
def _working(
    pipelines: Sequence[str], shares: Sequence[int], seed: int
) -> Iterator[dict[Connection, Any]]:
    """A worker for each share of the kills: what each tells through, and its process."""
    # Forked: what was imported here none has to import again.
    fork = multiprocessing.get_context("fork")
    running: dict[Connection, Any] = {}
    try:
        for number, kills in enumerate(shares):
            ours, theirs = fork.Pipe(duplex=False)
            worker = _Worker(pipelines, kills, f"{seed}/{number}", theirs)
            process = running[ours] = fork.Process(target=worker.run, args=([*running, ours],))
            process.start()
            theirs.close()
        yield running
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def main() -> int:
    """Parse the command line; 0 only if nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*PIPELINES, *BESIDES], metavar="PIPELINE")
    parser.add_argument("--kills", type=int, help="of all of them together, taking turns")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--fuzz-seconds", type=float, default=60.0)
    parser.add_argument("--payloads", type=int, default=400_000)
    arguments = parser.parse_args()
    only = arguments.only or [*PIPELINES, *BESIDES]
    console = Console(highlight=False, soft_wrap=True)
    found: list[str] = []
    pipelines = [name for name in PIPELINES if name in only]
    turns = [([name], _KILLS.get(name, _USUAL_KILLS)) for name in pipelines]
    if arguments.kills is not None:
        turns = [(pipelines, arguments.kills)] if pipelines else []
    for names, kills in turns:
        console.print(f"Killing {', '.join(names)} {kills} times, seed {arguments.seed}")
        found += kill(names, kills, arguments.seed, arguments.workers, console)
    if "fuzz" in only:
        found += _fuzz(arguments.fuzz_seconds, arguments.seed, console)
    if "signing" in only:
        found += _sign(arguments.payloads, arguments.seed, console)
    return 1 if found else 0


def _fuzz(seconds: float, seed: int, console: Console) -> list[str]:
    console.print(f"Fuzzing for {seconds:g} seconds, seed {seed}")
    failures = fuzz.run(seconds, seed)
    for failure in failures:
        console.print(f"FUZZ {failure}")
    console.print(f"Fuzzing found {len(failures)} failures")
    return failures


def _sign(payloads: int, seed: int, console: Console) -> list[str]:
    console.print(f"Signing {payloads} requests, seed {seed}")
    disagreements = signing.run(payloads, seed)
    for disagreement in disagreements:
        console.print(f"SIGNING {disagreement}")
    console.print(f"JavaScript disagreed about {len(disagreements)} of them")
    return disagreements


if __name__ == "__main__":
    sys.exit(main())
