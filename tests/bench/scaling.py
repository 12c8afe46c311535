"""This project at scale: what a row costs as the warehouse grows, and what finance waits for.

Each step is a process of its own that goes on from the cursor, so its memory is its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2
import psycopg2.errors
from rich.console import Console
from rich.table import Table

from include.local.postgres import Postgres
from tests.bench.comparing import MOVING
from tests.bench.log import CORRECTED_AT_FIRST, SECONDS_AN_ENTRY, STARTED_AT, LogFile
from tests.bench.measuring import LAND_AGAIN, LOAD, Measured, measure
from tests.warehouses import fresh_warehouse

STEP = 1_000_000
MORE = 100_000
REPEATS = 3
_ASKED = 5

# Finance's questions; `day` is the last whole day of the log, `today` that of the load.
QUESTIONS = {
    "one day of daily_settlement": """
        SELECT * FROM finance.daily_settlement
        WHERE source = 'ticktock' AND settled_date = %(day)s
    """,
    "90 days by currency and outcome": """
        SELECT currency, outcome, sum(settlements), sum(stake), sum(payout)
        FROM finance.daily_settlement
        WHERE settled_date BETWEEN %(day)s - 89 AND %(day)s
        GROUP BY currency, outcome
    """,
    "daily_recording of one day": """
        SELECT * FROM finance.daily_recording WHERE accounting_date = %(today)s
    """,
    "corrections settled on one day": """
        SELECT * FROM finance.correction
        WHERE source = 'ticktock' AND settled_at >= %(day)s AND settled_at < %(day)s + 1
    """,
    "corrections booked on one day, counted": """
        SELECT what_changed, count(*) FROM finance.correction
        WHERE accounting_date = %(today)s GROUP BY what_changed
    """,
    "one subject's history": """
        SELECT * FROM finance.settlement_history
        WHERE source = 'ticktock' AND source_key = %(source_key)s ORDER BY version
    """,
    "one subject as it stands": """
        SELECT * FROM finance.settlement_current
        WHERE source = 'ticktock' AND source_key = %(source_key)s
    """,
    "feed_completeness": "SELECT * FROM finance.feed_completeness",
}


@dataclass(frozen=True)
class Answer:
    """How one question was answered: rows, and the seconds of the first and of later times."""

    rows: int
    first_seconds: float
    later_seconds: float | None
    is_stopped: bool = False


@dataclass
class Scale:
    """What was measured: `more` entries on empty, each step, `more` on full, and the answers."""

    entries: int
    more: int
    on_empty: list[Measured] = field(default_factory=list)
    again_on_empty: list[Measured] = field(default_factory=list)
    steps: list[tuple[int, Measured]] = field(default_factory=list)
    on_full: list[Measured] = field(default_factory=list)
    again_on_full: list[Measured] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    database_bytes: int = 0


def scale(
    console: Console,
    server: Postgres,
    log: Path,
    entries: int,
    *,
    step: int = STEP,
    more: int = MORE,
    repeats: int = REPEATS,
) -> Scale:
    """Load `entries` in steps; the log has to hold `repeats` times `more` beyond them."""
    done = Scale(entries, more)
    for number in range(1, repeats + 1):
        console.print(f"{more:,} entries on an empty warehouse, {number} of {repeats}")
        with fresh_warehouse(server) as warehouse:
            name = str(warehouse.owner_engine.url.database)
            done.on_empty.append(measure(LOAD, server, name, log, more))
            done.again_on_empty.append(measure(LAND_AGAIN, server, name, log, more))
    with fresh_warehouse(server) as warehouse:
        name = str(warehouse.owner_engine.url.database)
        for start, end in stretches(entries, step):
            measured = measure(LOAD, server, name, log, end)
            done.steps.append((end - start, measured))
            speed = (end - start) / _moving(measured)
            console.print(f"{end:,} entries: {speed:,.0f} rows/s, {measured.memory_mb:.0f} MB")
        for number in range(1, repeats + 1):
            console.print(f"{more:,} entries on {entries:,}, {number} of {repeats}")
            end = entries + number * more
            done.on_full.append(measure(LOAD, server, name, log, end))
            done.again_on_full.append(measure(LAND_AGAIN, server, name, log, more, stored=end))
        done.answers = ask(console, warehouse.finance_url, log, entries)
        done.database_bytes = _database_bytes(warehouse.owner_url)
    return done


def stretches(entries: int, step: int) -> list[tuple[int, int]]:
    """Where each step begins and ends; the last may be shorter."""
    return [(start, min(start + step, entries)) for start in range(0, entries, step)]


def ask(console: Console, finance_url: str, log: Path, entries: int) -> dict[str, Answer]:
    """Ask everything that finance asks, as finance, with its statement time-out."""
    told_by = json.loads(LogFile(log, entries).page(CORRECTED_AT_FIRST, 1))["data"][0]
    end = STARTED_AT + timedelta(seconds=entries * SECONDS_AN_ENTRY)
    parameters = {
        "day": max(STARTED_AT.date(), end.date() - timedelta(days=1)),
        "today": _today(),
        "source_key": f"{told_by['match_id']}/{told_by['market_offer_id']}",
    }
    answers = {}
    for name, question in QUESTIONS.items():
        console.print(f"finance asks: {name}")
        answers[name] = _answer(finance_url, question, parameters)
    return answers


def print_scale(console: Console, done: Scale) -> None:
    """The slope, the cost of more, and how long finance waits."""
    slope = Table(
        "entries",
        "rows/s",
        *MOVING,
        "with both gates, rows/s",
        "memory, MB",
        title="land + normalize + publish as the warehouse grows; seconds by stage",
    )
    reached = 0
    for entries, measured in done.steps:
        reached += entries
        slope.add_row(
            f"{reached:,}",
            f"{entries / _moving(measured):,.0f}",
            *(f"{measured.stages[stage]:.1f}" for stage in MOVING),
            f"{entries / measured.seconds:,.0f}",
            f"{measured.memory_mb:.0f}",
        )
    console.print(slope)
    console.print(f"The database has {done.database_bytes / 2**30:.1f} GiB.")
    _print_more(console, done)
    waits = Table("finance asks", "rows", "first time, s", "later, s", title="as login finance")
    for name, answer in done.answers.items():
        later = "–" if answer.later_seconds is None else f"{answer.later_seconds:.3f}"
        first = f"{answer.first_seconds:.3f}" + (" stopped" if answer.is_stopped else "")
        waits.add_row(name, f"{answer.rows:,}", first, later)
    console.print(waits)


def _print_more(console: Console, done: Scale) -> None:
    table = Table(
        "stage",
        "on empty, s",
        f"on {done.entries:,}, s",
        "ratio",
        title=f"what {done.more:,} entries more cost, medians",
    )
    both = (
        (done.on_empty, done.on_full),
        (done.again_on_empty, done.again_on_full),
    )
    for empty, full in both:
        for stage in empty[0].stages:
            before = median(one.stages[stage] for one in empty)
            after = median(one.stages[stage] for one in full)
            table.add_row(stage, f"{before:.2f}", f"{after:.2f}", f"{after / before:.2f}")
    console.print(table)


def _moving(measured: Measured) -> float:
    return sum(measured.stages[stage] for stage in MOVING)


def _answer(url: str, question: str, parameters: dict[str, Any]) -> Answer:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    seconds: list[float] = []
    rows: Sequence[Any] = ()
    try:
        for _ in range(_ASKED):
            began = time.perf_counter()
            with connection.cursor() as cursor:
                cursor.execute(question, parameters)
                rows = cursor.fetchall()
            seconds.append(time.perf_counter() - began)
    except psycopg2.errors.QueryCanceled:
        return Answer(0, time.perf_counter() - began, None, is_stopped=True)
    finally:
        connection.close()
    return Answer(len(rows), seconds[0], median(seconds[1:]))


def _database_bytes(url: str) -> int:
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT pg_database_size(current_database())")
        (size,) = cursor.fetchone() or (0,)
        return int(size)
    finally:
        connection.close()


def _today() -> date:
    return datetime.now(UTC).date()
