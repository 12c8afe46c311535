"""One measurement: one way in a process of its own, its memory watched, what it stored counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from include.local.postgres import Postgres
from tests.bench.bets import LEGS, write_bets
from tests.bench.log import write_log
from tests.bench.stopwatch import pss_megabytes, with_descendants

PROJECT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = PROJECT / ".venv-bench" / "bin" / "python"
_SAMPLE_SECONDS = 0.1

# Every batch of the project has gone its whole way, and each record is there once.
_STORED_BY_US = """
SELECT least(
    (SELECT count(*) FROM raw.record),
    (SELECT count(*) FROM core.settlement),
    (SELECT sum(landed) FROM ops.batch WHERE state = 'published')
)
"""


@dataclass(frozen=True)
class Way:
    """One way to measure: its name, who runs it, and the SQL that counts what it stored.

    `login` is its login at the server, the server's owner if None.
    """

    name: str
    function: str
    stored: str
    python: Path = Path(sys.executable)
    module: str = "tests.bench.ways"
    login: str | None = None


LOAD = Way("this project", "load", _STORED_BY_US, login="pipelines")
LAND_AGAIN = Way("this project, landing all again", "land_again", _STORED_BY_US, login="pipelines")
_OF_ENTRIES = "SELECT count(*) FROM bench.entry"
_OF_PLAIN = "SELECT count(*) FROM plain"
PEERS = (
    Way("dlt, merge, dicts", "dicts", _OF_ENTRIES, PEERS_PYTHON, "tests.bench.dlt_ways"),
    Way("dlt, merge, Arrow", "arrow", _OF_ENTRIES, PEERS_PYTHON, "tests.bench.dlt_ways"),
    Way("PostgresHook.insert_rows, replace", "postgres_hook", _OF_PLAIN),
    Way("COPY into one table", "plain_copy", _OF_PLAIN),
)

# The legs of each bet are all there as well, or none of it counts.
_LEGS_STORED = (
    "SELECT least(bets, (SELECT count(*) FROM {legs}) / {number}) FROM ({bets}) AS b (bets)"
)


def _with_legs(bets: str, legs: str) -> str:
    return _LEGS_STORED.format(bets=bets, legs=legs, number=LEGS)


_BETS_BY_US = _with_legs(_STORED_BY_US, "core.settlement_leg")
_BETS_AS_DICTS = _with_legs("SELECT count(*) FROM bench.bet", "bench.bet__selections")
_BETS_AS_ARROW = _with_legs("SELECT count(*) FROM bench.bet", "bench.leg")
_PLAIN_BETS = _with_legs("SELECT count(*) FROM plain_bet", "plain_leg")
_BET_WAYS, _DLT_BET_WAYS = "tests.bench.bet_ways", "tests.bench.dlt_bet_ways"


@dataclass(frozen=True)
class Shape:
    """What is measured: what its records are called, how a file of them is written, and the ways:
    this project's, its landing of all again, and its peers.
    """

    records: str
    write: Callable[[Path, int], None]
    load: Way
    land_again: Way
    peers: tuple[Way, ...]


FLAT = Shape("flat entries of 256 bytes", write_log, LOAD, LAND_AGAIN, PEERS)
NESTED = Shape(
    "bets of two legs and 1 750 bytes",
    write_bets,
    Way("this project", "load", _BETS_BY_US, module=_BET_WAYS, login="pipelines"),
    Way(
        "this project, landing all again",
        "land_again",
        _BETS_BY_US,
        module=_BET_WAYS,
        login="pipelines",
    ),
    (
        Way("dlt, merge, dicts", "dicts", _BETS_AS_DICTS, PEERS_PYTHON, _DLT_BET_WAYS),
        Way("dlt, merge, Arrow", "arrow", _BETS_AS_ARROW, PEERS_PYTHON, _DLT_BET_WAYS),
        Way("PostgresHook.insert_rows, replace", "postgres_hook", _PLAIN_BETS, module=_BET_WAYS),
        Way("COPY into two tables", "plain_copy", _PLAIN_BETS, module=_BET_WAYS),
    ),
)


class NotAllStored(Exception):
    """A way did not store what it was given, so its time says nothing."""


@dataclass(frozen=True)
class Measured:
    """Seconds by stage, what the processors worked in them, and the client's most memory.

    Megabytes are proportional set sizes, ten samples a second: interpreter and libraries are in
    them, what processes share counts once.  `started_mb` is what the way held before its first
    page, `gates_mb` the process of the gates, which `memory_mb` leaves out.
    """

    stages: dict[str, float]
    client_processor: dict[str, float]
    server_processor: dict[str, float]
    started_mb: float
    memory_mb: float
    gates_mb: float

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.stages.values())


def measure(
    way: Way,
    server: Postgres,
    database: str,
    log: Path,
    entries: int,
    *,
    stored: int | None = None,
) -> Measured:
    """Run `way` on the first `entries` of the log, in the server's database of that name.

    Afterwards `stored` entries have to be there, as many as the way was given if None.  Raises
    `NotAllStored`, and CalledProcessError if the way fails; its own error is on stderr.
    """
    expected = entries if stored is None else stored
    return measure_process(way, server, database, [str(log), str(entries)], expected)


def measure_process(
    way: Way, server: Postgres, database: str, arguments: Sequence[str], stored: int
) -> Measured:
    """The same with any arguments for the process."""
    owner_url = server.url(database)
    _checkpoint(owner_url)
    command = [str(way.python), "-m", way.module, way.function, *arguments]
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as home,
        subprocess.Popen(
            command,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "BENCH_URL": server.url(database, way.login),
                "BENCH_SERVER": str(server.process_id),
                "AIRFLOW_HOME": home,
                "DLT_DATA_DIR": home,
            },
        ) as process,
    ):
        samples = _watch(process)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    check_stored(way, owner_url, stored)
    told = json.loads(output.splitlines()[-1])
    gates_process_id = told.pop("gates_process_id")
    return Measured(
        memory_mb=max(
            told["started_mb"],
            *(
                sum(held for pid, held in sample.items() if pid != gates_process_id)
                for sample in samples
            ),
        ),
        gates_mb=max(sample.get(gates_process_id, 0.0) for sample in samples),
        **told,
    )


def check_stored(way: Way, owner_url: str, entries: int) -> None:
    """Raise `NotAllStored` unless exactly `entries` rows are where the way puts them."""
    stored = _count(owner_url, way.stored)
    if stored != entries:
        raise NotAllStored(
            f"{way.name} stored {stored} of {entries} entries; its time says nothing."
        )


def _checkpoint(owner_url: str) -> None:
    """Let no way pay for what another one left in the server's buffers."""
    connection = psycopg2.connect(owner_url)
    try:
        connection.autocommit = True
        connection.cursor().execute("CHECKPOINT")
    finally:
        connection.close()


def _count(owner_url: str, question: str) -> int:
    connection = psycopg2.connect(owner_url)
    try:
        cursor = connection.cursor()
        cursor.execute(question)
        (count,) = cursor.fetchone() or (None,)
        return int(count or 0)
    finally:
        connection.close()


def _watch(process: subprocess.Popen[str]) -> list[dict[int, float]]:
    """Until the process ends: what it and its descendants hold, by process id."""
    samples: list[dict[int, float]] = []
    while process.poll() is None:
        sample = {}
        for process_id in with_descendants(process.pid):
            with suppress(OSError, StopIteration):
                rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text(encoding="ascii")
                sample[process_id] = pss_megabytes(rollup)
        samples.append(sample)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLE_SECONDS)
    return samples
