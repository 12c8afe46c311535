"""What a measured process tells of each stage: its seconds, and those of the processors.

Only the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import TypeVar

File = TypeVar("File")


class Stopwatch:
    """The seconds of each stage, those of one name added up; and what processors worked in them.

    A client's processor time is its own and that of workers which ended within the stage; the
    server's is that of all its processes.  Unlike seconds, both say the same on a busy machine.
    """

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.client_processor: dict[str, float] = {}
        self.server_processor: dict[str, float] = {}
        self.gates_process_id: int | None = None
        self.started_mb = 0.0

    def start(self) -> None:
        """Everything is imported and connected; what the process holds by now is its own weight."""
        rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
        self.started_mb = pss_megabytes(rollup)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        began, client, server = time.perf_counter(), _client_seconds(), _server_seconds()
        yield
        _add(self.stages, name, time.perf_counter() - began)
        _add(self.client_processor, name, _client_seconds() - client)
        _add(self.server_processor, name, _server_seconds() - server)


def _add(totals: dict[str, float], name: str, seconds: float) -> None:
    totals[name] = totals.get(name, 0.0) + seconds


def _client_seconds() -> float:
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _server_seconds() -> float:
    """What the server's processes have worked, those that have ended included."""
    ticks = 0
    for process_id in with_descendants(int(os.environ["BENCH_SERVER"])):
        with suppress(OSError):
            stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
            ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def with_descendants(process_id: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [process_id]
    with suppress(OSError):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                found += with_descendants(int(child))
    return found


def pss_megabytes(rollup: str) -> float:
    """Proportional set size: a page that several processes share counts once among them."""
    kilobytes = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) / 1024


def run_way(
    ways: dict[str, Callable[[str, File, Stopwatch], None]], opened: Callable[[Path, int], File]
) -> None:
    """Run the way named on the command line on the file named there; print what it took as JSON."""
    _, way, path, entries = sys.argv
    stopwatch = Stopwatch()
    ways[way](os.environ["BENCH_URL"], opened(Path(path), int(entries)), stopwatch)
    print(json.dumps(vars(stopwatch)))
