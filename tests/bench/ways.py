"""The ways measured in this project's own environment, one process each: see `measuring`.

This project goes the way its tasks go: batch after batch, as many pages in each as one `land` may
take.  So a stage's time is what its runs take in sum while the warehouse grows, as in a real first
load.  The gates work in a process of their own, as tasks do: what Great Expectations holds is not
counted as memory of the others.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self

from sqlalchemy import Engine, text

from include.catchup import acquiring
from include.catchup.sources import SOURCES, Source
from include.catchup.stream import Feed
from include.providers.http import Answer, Client
from include.quality import gates, normalizing
from include.settings import Settings
from include.warehouse.database import open_engine
from include.warehouse.publishing import publish
from tests.bench.log import FIRST_ID, LogFile
from tests.bench.stopwatch import Stopwatch, run_way

SOURCE = SOURCES["ticktock"]
SETTINGS = Settings()
_PAGES_A_COPY = 25


def load(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """This project: from where the cursor stands to the log's end, every batch to `core`."""
    load_all(url, _from_file(SOURCE), _FileClient(log), SETTINGS, stopwatch)


def land_again(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """This project: every page once more; nothing of it is new."""
    land_all_again(url, _from_file(SOURCE), _FileClient(log), SETTINGS, stopwatch)


def load_all(
    url: str, source: Source, client: Client | Feed, settings: Settings, stopwatch: Stopwatch
) -> None:
    """Run after run of a source, until one has met the end; every batch goes to `core`."""
    engine = open_engine(url)
    with _Gates(url, source.name, stopwatch) as gates_process:
        stopwatch.start()
        has_reached_end = False
        while not has_reached_end:
            with stopwatch.stage("land"):
                landed = acquiring.land(engine, source, client, settings, "bench")
            has_reached_end = landed.has_reached_end
            gates_process.run("check_raw")
            with stopwatch.stage("normalize"):
                normalizing.normalize(engine, source, settings)
            gates_process.run("check_settlements")
            with stopwatch.stage("publish"):
                publish(engine, source.name)


def land_all_again(
    url: str, source: Source, client: Client | Feed, settings: Settings, stopwatch: Stopwatch
) -> None:
    """All that has landed once more, as another feed of the source."""
    engine = open_engine(url)
    source = replace(source, feed=f"again {os.getpid()}")
    stopwatch.start()
    has_reached_end = False
    while not has_reached_end:
        with stopwatch.stage("land again"):
            landed = acquiring.land(engine, source, client, settings, "bench")
        if landed.landed:
            raise AssertionError(f"{landed.landed} records were landed twice")
        has_reached_end = landed.has_reached_end


def postgres_hook(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """Airflow's own way: decoded rows through PostgresHook.insert_rows, the last value kept."""
    engine = open_engine(url)
    _make_plain_table(engine)
    hook = open_hook(engine)
    stopwatch.start()
    with stopwatch.stage("decode and insert"):
        hook.insert_rows(
            "plain",
            _plain_rows(log.pages()),
            target_fields=list(_PLAIN_COLUMNS),
            commit_every=5000,
            replace=True,
            replace_index="id",
            fast_executemany=True,
        )


def open_hook(engine: Engine) -> Any:
    """A PostgresHook for the engine's database."""
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
        {
            "conn_type": "postgres",
            "host": engine.url.host,
            "port": engine.url.port,
            "login": engine.url.username,
            "password": engine.url.password,
            "schema": engine.url.database,
        }
    )
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    return PostgresHook("bench")


def plain_copy(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """The floor: decoded rows by COPY into one table; no raw, no versions, no second try."""
    engine = open_engine(url)
    _make_plain_table(engine)
    statement = f"COPY plain ({', '.join(_PLAIN_COLUMNS)}) FROM STDIN CSV"
    pages = log.pages()
    stopwatch.start()
    with stopwatch.stage("decode and copy"), engine.begin() as connection:
        cursor = connection.connection.cursor()
        while some := list(islice(pages, _PAGES_A_COPY)):
            buffer = io.StringIO()
            csv.writer(buffer).writerows(_plain_rows(iter(some)))
            buffer.seek(0)
            cursor.copy_expert(statement, buffer)


class _FileClient(Client):
    """Answers as the provider would, from the file."""

    provider = SOURCE.name

    def __init__(self, log: LogFile) -> None:
        self._log = log

    def answer(self, since_id: str | None, limit: int) -> Answer:
        start = 0 if since_id is None else int(since_id) - FIRST_ID + 1
        now = datetime.now(UTC)
        return Answer(
            status=200,
            body=self._log.page(start, limit),
            content_type="application/json",
            url_path=f"/cs2/v1/settlements?limit={limit}&since_id={since_id}",
            requested_at=now,
            received_at=now,
        )


def _from_file(source: Source) -> Source:
    """The source as it is, but for where its pages come from."""
    fetch: Any = lambda client, since_id, limit: client.answer(since_id, limit)  # noqa: E731
    return replace(source, acquire=replace(source.acquire, fetch=fetch))


class _Gates:
    """The gates, waiting in a process of their own for what to check."""

    def __init__(self, url: str, source_name: str, stopwatch: Stopwatch) -> None:
        self._url = url
        self._source_name = source_name
        self._stopwatch = stopwatch

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.ways", _GATES, self._source_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "BENCH_URL": self._url},
        )
        self._stopwatch.gates_process_id = self._process.pid
        self._wait()
        return self

    def run(self, gate: str) -> None:
        """Let one gate check what waits for it."""
        with self._stopwatch.stage(gate):
            assert self._process.stdin is not None
            print(gate, file=self._process.stdin, flush=True)
            self._wait()

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("The process of the gates has ended; its error stands above.")


def _check_what_is_asked(url: str, source_name: str) -> None:
    engine = open_engine(url)
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    checks: dict[str, Callable[[], object]] = {
        "check_raw": lambda: gates.check_raw(engine, source_name),
        "check_settlements": lambda: gates.check_settlements(engine, source_name, SETTINGS),
    }
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        checks[line.strip()]()
        print("ready", file=answers, flush=True)


_PLAIN_COLUMNS = (
    "id",
    "market_offer_id",
    "match_id",
    "previous_status",
    "new_status",
    "outcome",
    "settled_by",
    "is_resettlement",
    "created_at",
)


def _make_plain_table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE plain (id bigint PRIMARY KEY, market_offer_id text, match_id text,"
                " previous_status text, new_status text, outcome text, settled_by text,"
                " is_resettlement boolean, created_at timestamptz)"
            )
        )


def _plain_rows(pages: Iterator[bytes]) -> Iterator[tuple[Any, ...]]:
    for body in pages:
        for entry in json.loads(body)["data"]:
            yield tuple(entry[column] for column in _PLAIN_COLUMNS)


_GATES = "gates"
WAYS: dict[str, Callable[[str, LogFile, Stopwatch], None]] = {
    "load": load,
    "land_again": land_again,
    "postgres_hook": postgres_hook,
    "plain_copy": plain_copy,
}

if __name__ == "__main__":
    if sys.argv[1] == _GATES:
        _check_what_is_asked(os.environ["BENCH_URL"], sys.argv[2])
    else:
        run_way(WAYS, LogFile)
