"""Sending an outbox of payouts to the sandbox's wallet, beside a loop that only signs and posts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from include.local.postgres import Postgres
from include.settings import Settings
from tests.bench.measuring import Measured, Way, measure_process
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse

_MODULE = "tests.bench.resend_ways"
_OF_ALL = "SELECT count(*) FROM wallet.transaction WHERE item IS NOT NULL"
_OF_PROCESSED = "SELECT count(*) FROM wallet.transaction WHERE disposition = 'processed'"
FREEZE = Way("freezing the bytes", "freeze", _OF_ALL, module=_MODULE, login="pipelines")
PROJECT = Way("this project", "project", _OF_PROCESSED, module=_MODULE, login="pipelines")
BARE = Way("a bare signed loop", "bare", _OF_ALL, module=_MODULE)

# How long the partner takes over each request, beside what the sandbox itself takes.
ANSWER_SECONDS = (0.0, 0.05)

_ENTER = text("""
INSERT INTO wallet.transaction (
    transaction_id, ref_transaction_id, session_id, round_id, player_id, game_id, currency, amount,
    is_win, business_date
)
SELECT
    md5('transaction' || number)::uuid::text, md5('bet' || number)::uuid::text,
    md5('session' || number) || '1731504451691', md5('round' || number)::uuid || '-1753428290674',
    (number % 100000)::text, 'G1720761376617', CASE WHEN number % 3 = 0 THEN 'USD' ELSE 'EUR' END,
    number * 1000, true, '2026-11-20'
FROM generate_series(1, :payouts) AS number
""")


class Resent(NamedTuple):
    """One measurement: with a partner that takes so long, which way, and what it took."""

    answer_seconds: float
    way: Way
    measured: Measured


def resend(
    console: Console, server: Postgres, folder: Path, payouts: int, rounds: int
) -> list[Resent]:
    """Measure both ways on the same outbox, `rounds` times in turn, for each kind of partner."""
    results: list[Resent] = []
    with fresh_warehouse(server) as warehouse:
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}, {payouts:,} payouts")
            for seconds in ANSWER_SECONDS:
                _enter(warehouse, payouts)
                for way in (FREEZE, BARE, PROJECT):
                    measured = _measure(server, folder, warehouse, way, seconds, payouts)
                    results.append(Resent(seconds, way, measured))
                    console.print(
                        f"  {way.name}, answers after {seconds * 1000:.0f} ms:"
                        f" {measured.seconds:.1f} s, {payouts / measured.seconds:,.0f} payouts/s"
                    )
    return results


def _enter(warehouse: Warehouse, payouts: int) -> None:
    with warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "TRUNCATE wallet.transaction, wallet.transaction_claim,"
                " wallet.transaction_conflict, wallet.hold, wallet.attempt, wallet.attempt_item,"
                " wallet.sending_window, wallet.reported_outcome"
            )
        )
        connection.execute(_ENTER, {"payouts": payouts})


def _measure(
    server: Postgres, folder: Path, warehouse: Warehouse, way: Way, seconds: float, payouts: int
) -> Measured:
    """With a sandbox of its own, so that no way meets what another one has left in its books."""
    database = str(warehouse.owner_engine.url.database)
    (folder / "ready").unlink(missing_ok=True)
    with running_sandbox(folder) as sandbox:
        if seconds:
            sandbox.fault("wallet", "late_execution", times=None, seconds=seconds)
        return measure_process(way, server, database, [sandbox.wallet_url], payouts)


def print_resend(console: Console, payouts: int, results: Sequence[Resent]) -> None:
    """Medians of payouts a second, and the ratio to the bare loop of the same partner."""
    settings = Settings()
    table = Table(
        "partner answers after",
        "way",
        "payouts/s",
        "ratio",
        "client, µs a payout",
        "server, µs a payout",
        "memory, MB",
        title=f"{payouts:,} payouts, {settings.wallet_batch_items} a request, "
        f"{settings.wallet_requests_at_once} requests at once, medians",
    )
    for seconds in ANSWER_SECONDS:
        base = median(_seconds(results, seconds, BARE))
        for way in (BARE, PROJECT, FREEZE):
            taken = median(_seconds(results, seconds, way))
            measured = [one.measured for one in results if one[:2] == (seconds, way)]
            table.add_row(
                f"{seconds * 1000:.0f} ms",
                way.name,
                f"{payouts / taken:,.0f}",
                "" if way is FREEZE else f"{base / taken:.2f}",
                f"{median(sum(m.client_processor.values()) for m in measured) / payouts * 1e6:.1f}",
                f"{median(sum(m.server_processor.values()) for m in measured) / payouts * 1e6:.1f}",
                f"{max(m.memory_mb for m in measured):.0f}",
            )
    console.print(table)
    console.print("ratio: payouts a second, where those of the bare loop are 1.")


def _seconds(results: Sequence[Resent], answer_seconds: float, way: Way) -> list[float]:
    return [one.measured.seconds for one in results if one[:2] == (answer_seconds, way)]
