"""`make bench`: land, normalize and publish, measured beside other ways on the same Postgres.

Every way gets the same page bodies, as a provider's HTTP answers would hold them, and starts from
an empty database.  Rounds are interleaved and each measurement is a process of its own, so that
medians and ratios can be compared and peak memory is its own; absolute figures are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from include.catchup.pipeline import normalize
from include.catchup.sources import SOURCES
from include.local.postgres import Postgres, remove_cluster
from include.providers import ticktock
from include.quality.gates import check_raw, check_settlements
from include.sandbox.ticktock_log import SettlementLog
from include.settings import Settings
from include.warehouse.database import open_engine
from include.warehouse.landing import ArrivedPage, Landing
from include.warehouse.publishing import publish
from tests.warehouses import fresh_warehouse, make_template

SOURCE = SOURCES["ticktock"]
SETTINGS = Settings()
_PAGE = 200
_PAGES_A_COMMIT = 25
_SEED = 1

Stages = dict[str, float]


def pages(entries: int) -> Iterator[bytes]:
    """The log's page bodies, made as they are asked for."""
    log = SettlementLog(_SEED, "integer")
    for start in range(0, entries, _PAGE):
        data = [log.entry(index) for index in range(start, min(start + _PAGE, entries))]
        yield msgspec.json.encode({"data": data, "meta": {"count": len(data)}})


def pipeline(engine: Engine, bodies: list[bytes]) -> Stages:
    """This project: raw bytes and records, staging, versions; the gates between are timed too."""
    stages: Stages = {}
    with _timed(stages, "land"):
        _land(engine, bodies)
    with _timed(stages, "check_raw"):
        check_raw(engine, SOURCE.name, SETTINGS)
    with _timed(stages, "normalize"):
        normalize(engine, SOURCE, SETTINGS)
    with _timed(stages, "check_settlements"):
        check_settlements(engine, SOURCE.name, SETTINGS)
    with _timed(stages, "publish"):
        publish(engine, SOURCE.name)
    with _timed(stages, "land again"):
        _land(engine, bodies)
    return stages


def postgres_hook(engine: Engine, bodies: list[bytes]) -> Stages:
    """Airflow's own way: decoded rows through PostgresHook.insert_rows, the last value kept."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    _make_plain_table(engine)
    url = engine.url
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
        {
            "conn_type": "postgres",
            "host": url.host,
            "port": url.port,
            "login": url.username,
            "password": url.password,
            "schema": url.database,
        }
    )
    hook = PostgresHook("bench")
    stages: Stages = {}
    with _timed(stages, "decode and insert"):
        hook.insert_rows(
            "plain",
            _plain_rows(bodies),
            target_fields=list(_PLAIN_COLUMNS),
            commit_every=5000,
            replace=True,
            replace_index="id",
            fast_executemany=True,
        )
    return stages


def plain_copy(engine: Engine, bodies: list[bytes]) -> Stages:
    """The floor: decoded rows by COPY into one table; no raw, no versions, no second try."""
    import csv
    import io

    _make_plain_table(engine)
    stages: Stages = {}
    with _timed(stages, "decode and copy"), engine.begin() as connection:
        cursor = connection.connection.cursor()
        for start in range(0, len(bodies), _PAGES_A_COMMIT):
            buffer = io.StringIO()
            csv.writer(buffer).writerows(_plain_rows(bodies[start : start + _PAGES_A_COMMIT]))
            buffer.seek(0)
            cursor.copy_expert(f"COPY plain ({', '.join(_PLAIN_COLUMNS)}) FROM STDIN CSV", buffer)
    return stages


WAYS: dict[str, Callable[[Engine, list[bytes]], Stages]] = {
    "this project": pipeline,
    "PostgresHook.insert_rows": postgres_hook,
    "COPY into one table": plain_copy,
}

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


def _plain_rows(bodies: list[bytes]) -> Iterator[tuple[Any, ...]]:
    for body in bodies:
        for entry in json.loads(body)["data"]:
            yield tuple(entry[column] for column in _PLAIN_COLUMNS)


def _land(engine: Engine, bodies: list[bytes]) -> None:
    landing = Landing(engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, "bench")
    cursor = landing.read_cursor()
    for start in range(0, len(bodies), _PAGES_A_COMMIT):
        arrived = [_arrived(body) for body in bodies[start : start + _PAGES_A_COMMIT]]
        cursor = landing.commit(arrived, cursor, {"since_id": f"{start:012}"})
    landing.close(has_reached_end=True)


def _arrived(body: bytes) -> ArrivedPage:
    page = ticktock.read_page(body)
    now = datetime.now(UTC)
    return ArrivedPage(
        request="GET /settlements",
        requested_at=now,
        received_at=now,
        body=body,
        http_status=200,
        content_type="application/json",
        records=[(entry.record, entry.content_sha256) for entry in page.entries],
        provider_count=page.provider_count,
        unknown_fields=page.unknown_fields,
    )


class _timed:
    def __init__(self, stages: Stages, name: str) -> None:
        self._stages, self._name = stages, name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        self._stages[self._name] = time.perf_counter() - self._began


def measure(way: str, url: str, entries: int) -> None:
    """One measurement, as a process of its own: stages and peak memory as JSON on the output."""
    bodies = list(pages(entries))
    # The bodies are the measurement's own, not the way's: what they hold is taken off.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = open_engine(url)
    with engine.connect():
        stages = WAYS[way](engine, bodies)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"stages": stages, "memory_mb": (peak - before) / 1024}))


def run(entries: int, rounds: int) -> None:
    """All ways, `rounds` times in turn; prints medians, and ratios of medians."""
    console = Console(highlight=False)
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    folder = Path(tempfile.mkdtemp(prefix="bench-")) / "postgres"
    try:
        with Postgres(folder) as server:
            make_template(server)
            for number in range(1, rounds + 1):
                for way in WAYS:
                    console.print(f"round {number} of {rounds}: {way}, {entries} entries")
                    results[way].append(_one(server, way, entries))
    finally:
        remove_cluster(folder)
        folder.parent.rmdir()
    _print(console, entries, results)


def _one(server: Postgres, way: str, entries: int) -> dict[str, Any]:
    with fresh_warehouse(server) as warehouse:
        url = warehouse.pipelines_url if way == "this project" else warehouse.owner_url
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench", "--measure", way, url, "--entries", str(entries)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "AIRFLOW_HOME": tempfile.gettempdir()},
        )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


_MOVING = ("land", "normalize", "publish")


def _print(console: Console, entries: int, results: dict[str, list[dict[str, Any]]]) -> None:
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    for way, measured in results.items():
        memory[way] = median(one["memory_mb"] for one in measured)
        if way == "this project":
            stages = {
                stage: median(one["stages"][stage] for one in measured)
                for stage in measured[0]["stages"]
            }
            seconds["land + normalize + publish"] = sum(stages[stage] for stage in _MOVING)
            seconds["the same with both gates"] = sum(stages.values()) - stages["land again"]
            seconds["landing it all again"] = stages["land again"]
            for name in list(seconds):
                memory[name] = memory[way]
        else:
            seconds[way] = median(sum(one["stages"].values()) for one in measured)
    table = Table("way", "rows/s", "ratio", "memory MB", title=f"{entries} flat entries, medians")
    base = seconds["land + normalize + publish"]
    for way, taken in seconds.items():
        ratio = f"{base / taken:.2f}"
        table.add_row(way, f"{entries / taken:,.0f}", ratio, f"{memory[way]:.0f}")
    console.print(table)
    console.print("ratio: how many times as fast as land + normalize + publish.")
    for stage, taken in stages.items():
        console.print(f"{stage:20} {taken:6.2f} s")


def main() -> None:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure, arguments.entries)
    else:
        run(arguments.entries, arguments.rounds)


if __name__ == "__main__":
    main()
