"""All ways on one server, in turn, several rounds; medians side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from include.local.postgres import Postgres
from tests.bench.measuring import FLAT, Measured, Shape, Way, measure
from tests.warehouses import empty_database, fresh_warehouse

MOVING = ("land", "normalize", "publish")
GATES = ("check_raw", "check_settlements")
_PROCESSORS = ("client's processor", "server's processors")

Results = dict[Way, list[Measured]]


def compare(
    console: Console,
    server: Postgres,
    log: Path,
    entries: int,
    rounds: int,
    shape: Shape = FLAT,
) -> Results:
    """Measure this project, its re-run and its peers, `rounds` times in turn."""
    results: Results = {way: [] for way in (shape.load, shape.land_again, *shape.peers)}

    def note(way: Way, measured: Measured) -> None:
        results[way].append(measured)
        speed = entries / measured.seconds
        console.print(f"  {way.name}: {measured.seconds:.1f} s, {speed:,.0f} rows/s")

    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}, {entries:,} {shape.records}")
        with fresh_warehouse(server) as warehouse:
            name = str(warehouse.owner_engine.url.database)
            for way in (shape.load, shape.land_again):
                note(way, measure(way, server, name, log, entries))
        for way in shape.peers:
            with empty_database(server) as name:
                note(way, measure(way, server, name, log, entries))
    return results


def print_comparison(console: Console, entries: int, results: Results, shape: Shape = FLAT) -> None:
    """Medians of rows a second, their ratio to this project's, and memory."""
    table = Table(
        "way",
        "rows/s",
        "ratio",
        "memory, MB",
        "at start, MB",
        title=f"{entries:,} {shape.records}, medians",
    )
    ours = results[shape.load]
    base = median(_seconds(measured, MOVING) for measured in ours)
    for way, measured in results.items():
        if way is shape.load:
            _add(table, "land + normalize + publish", base, entries, base, measured)
            with_gates = median(one.seconds for one in measured)
            _add(table, "the same with both gates", with_gates, entries, base, measured, gates=True)
        else:
            taken = median(one.seconds for one in measured)
            _add(table, way.name, taken, entries, base, measured)
    console.print(table)
    console.print("ratio: the way's speed, where that of land + normalize + publish is 1.")
    console.print(
        "memory: the most that the client's processes held together (PSS), of which at start the"
        " interpreter and libraries; the gates have a process of their own, counted in their row."
    )
    _print_stages(console, results)


def _add(
    table: Table,
    name: str,
    taken: float,
    entries: int,
    base: float,
    measured: list[Measured],
    *,
    gates: bool = False,
) -> None:
    memory = median(one.memory_mb + (one.gates_mb if gates else 0.0) for one in measured)
    started = median(one.started_mb for one in measured)
    ratio = f"{base / taken:.2f}"
    table.add_row(name, f"{entries / taken:,.0f}", ratio, f"{memory:.0f}", f"{started:.0f}")


def _print_stages(console: Console, results: Results) -> None:
    table = Table("way", "stage", "seconds", *_PROCESSORS, title="stages, medians")
    for way, measured in results.items():
        for stage in measured[0].stages:
            seconds = median(one.stages[stage] for one in measured)
            client = median(one.client_processor[stage] for one in measured)
            server = median(one.server_processor[stage] for one in measured)
            # The gates work in another process, which is not asked.
            client_shown = "" if stage in GATES else f"{client:.2f}"
            table.add_row(way.name, stage, f"{seconds:.2f}", client_shown, f"{server:.2f}")
    console.print(table)


def _seconds(measured: Measured, stages: Sequence[str]) -> float:
    return sum(measured.stages[stage] for stage in stages)
