"""Settling many markets of the sandbox's engine, and a tenth of them: does a row cost the same?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from include.local.postgres import Postgres
from tests.bench.measuring import Measured, Way, measure_process
from tests.sandbox.process import running_sandbox
from tests.warehouses import fresh_warehouse

POSITIONS = 1000
_PLAYERS = 100_000

# Every market is done, each settlement is published, and what pays is credited.
_SETTLED = """
SELECT CASE
    WHEN EXISTS (SELECT FROM prediction.market WHERE state <> 'done') THEN 0
    WHEN (SELECT count(*) FROM prediction.credit) <> (
        SELECT count(*) FROM core.settlement WHERE is_current AND payout > 0
    ) THEN 0
    ELSE (SELECT count(*) FROM core.settlement)
END
"""
SETTLE = Way(
    "this project", "settle", _SETTLED, module="tests.bench.market_ways", login="pipelines"
)


class Settled(NamedTuple):
    """So many markets of so many positions each were settled, and what that took."""

    markets: int
    positions: int
    measured: Measured

    @property
    def settlements(self) -> int:
        """All positions together."""
        return self.markets * self.positions


def settle(
    console: Console, server: Postgres, folder: Path, markets: int, positions: int = POSITIONS
) -> list[Settled]:
    """Settle a tenth of the markets, then, in a warehouse and an engine of their own, all."""
    results = []
    for number in (max(markets // 10, 1), markets):
        console.print(f"{number:,} markets of {positions:,} positions")
        (folder / "ready").unlink(missing_ok=True)
        with fresh_warehouse(server) as warehouse, running_sandbox(folder) as sandbox:
            sandbox.configure("prediction", markets=number, positions=positions, players=_PLAYERS)
            measured = measure_process(
                SETTLE,
                server,
                str(warehouse.owner_engine.url.database),
                [sandbox.prediction_url],
                number * positions,
            )
        results.append(Settled(number, positions, measured))
        console.print(f"  {measured.seconds:.1f} s, {_speed(results[-1]):,.0f} settlements/s")
    return results


def print_settled(console: Console, results: list[Settled]) -> None:
    """Seconds by stage, and what a thousand settlements cost, of each size beside the other."""
    table = Table("stage", title="settle_markets, from the engine's events to players' credits")
    for one in results:
        table.add_column(f"{one.settlements:,}: seconds")
        table.add_column("client, ms a thousand")
        table.add_column("server, ms a thousand")
    for stage in results[0].measured.stages:
        table.add_row(stage, *(cell for one in results for cell in _cells(one, stage)))
    table.add_row("all", *(cell for one in results for cell in _sums(one)))
    console.print(table)
    for one in results:
        console.print(
            f"{one.settlements:,} settlements: {_speed(one):,.0f} a second; client memory "
            f"{one.measured.started_mb:.0f} MB at the start, {one.measured.memory_mb:.0f} at most."
        )
    console.print("Seconds include the engine's own, which works on the same machine.")


def _cells(one: Settled, stage: str) -> list[str]:
    measured = one.measured
    return [
        f"{measured.stages[stage]:.1f}",
        _of_thousand(one, measured.client_processor[stage]),
        _of_thousand(one, measured.server_processor[stage]),
    ]


def _sums(one: Settled) -> list[str]:
    measured = one.measured
    return [
        f"{measured.seconds:.1f}",
        _of_thousand(one, sum(measured.client_processor.values())),
        _of_thousand(one, sum(measured.server_processor.values())),
    ]


def _of_thousand(one: Settled, seconds: float) -> str:
    return f"{seconds * 1e6 / one.settlements:.1f}"


def _speed(one: Settled) -> float:
    return one.settlements / one.measured.seconds
