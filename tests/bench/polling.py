"""Asking tote for open bets that are all due: by how many calls, how fast, in how much memory.

Over the real GraphQL endpoint of a sandbox, run after run until nothing is due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from include.catchup import bet_register
from include.local.postgres import Postgres
from include.providers.tote import PAGE_LIMIT
from include.sandbox.client import Sandbox
from include.sandbox.tote_bets import ROW, Bets, steps_at
from include.warehouse.database import transaction
from tests.bench.measuring import Measured, Way, measure_process
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse

# Each was told once, is open all the same, and landed.
_ASKED_FOR = """
SELECT least(
    (SELECT count(*) FROM tote.bet WHERE answered_at IS NOT NULL AND state = 'open'),
    (SELECT count(*) FROM raw.record),
    (SELECT sum(landed) FROM ops.batch)
)
"""
POLL = Way(
    "asking for open bets", "poll", _ASKED_FOR, module="tests.bench.poll_ways", login="pipelines"
)
MORE_MEMORY_MB = 16.0
"""By how much the client may hold more at its most than for a tenth of the bets."""

_SEED = 1
_ENTERED_AT_ONCE = 5000
# No bet has its result so soon, and those that are not taken have been refused.
_HISTORY_SECONDS = 3600.0


@dataclass(frozen=True)
class Polled:
    """So many open bets, the calls and runs in which they were asked for, and what that took."""

    bets: int
    calls: int
    runs: int
    measured: Measured

    @property
    def fewest_calls(self) -> int:
        """The fewest that tote's limit of bets a call allows."""
        return -(-self.bets // PAGE_LIMIT)


def poll(server: Postgres, folder: Path, bets: int) -> list[Polled]:
    """Ask for a tenth of the bets, then for all of them, each in a warehouse of its own."""
    (folder / "ready").unlink(missing_ok=True)
    with running_sandbox(folder, seed=_SEED) as sandbox:
        return [_poll(server, sandbox, several) for several in (max(bets // 10, 1), bets)]


def print_polling(console: Console, polled: Sequence[Polled]) -> None:
    """The calls beside the fewest possible, and what they took."""
    table = Table(
        "open bets",
        "calls",
        "fewest possible",
        "runs",
        "seconds",
        "bets/s",
        "client, µs a bet",
        "server, µs a bet",
        "memory, MB",
        "at start, MB",
        title=f"open bets asked for, {PAGE_LIMIT} at a time",
    )
    for one in polled:
        measured = one.measured
        table.add_row(
            f"{one.bets:,}",
            f"{one.calls:,}",
            f"{one.fewest_calls:,}",
            str(one.runs),
            f"{measured.seconds:.1f}",
            f"{one.bets / measured.seconds:,.0f}",
            f"{sum(measured.client_processor.values()) / one.bets * 1e6:.0f}",
            f"{sum(measured.server_processor.values()) / one.bets * 1e6:.0f}",
            f"{measured.memory_mb:.0f}",
            f"{measured.started_mb:.0f}",
        )
    console.print(table)


def shortcomings(polled: Sequence[Polled]) -> Iterator[str]:
    """What is not as it has to be: more calls than the fewest, or memory that grows."""
    for one in polled:
        if one.calls != one.fewest_calls:
            yield f"{one.bets:,} bets took {one.calls:,} calls instead of {one.fewest_calls:,}."
    fewer, all_bets = polled
    grown = all_bets.measured.memory_mb - fewer.measured.memory_mb
    if grown > MORE_MEMORY_MB:
        yield (
            f"{all_bets.bets:,} bets took {grown:.0f} MB more memory than {fewer.bets:,} did, and "
            f"{MORE_MEMORY_MB:.0f} are allowed."
        )


def _poll(server: Postgres, sandbox: Sandbox, bets: int) -> Polled:
    numbers = list(islice(filter(_stays_open, count()), bets))
    sandbox.reset()
    sandbox.configure("tote", bets=numbers[-1] + 1, history_seconds=_HISTORY_SECONDS)
    with fresh_warehouse(server) as warehouse:
        _enter(warehouse, numbers)
        database = str(warehouse.owner_engine.url.database)
        measured = measure_process(POLL, server, database, [sandbox.tote_url], bets)
        return Polled(bets, _calls(sandbox), _runs(warehouse), measured)


def _stays_open(number: int) -> bool:
    return not {"reject", "fail"} & {step.act for step in steps_at(number % ROW)}


def _enter(warehouse: Warehouse, numbers: Sequence[int]) -> None:
    bets = Bets(_SEED)
    tote_ids = (bets.bet(number).tote_id for number in numbers)
    while several := list(islice(tote_ids, _ENTERED_AT_ONCE)):
        with transaction(warehouse.engine, "loader") as connection:
            bet_register.enter(connection, several, "file")


def _calls(sandbox: Sandbox) -> int:
    """Every question that the sandbox was asked, answered or not."""
    asked = sandbox.ledger("tote")["asked"]
    return int(sum(asked[kind] for kind in ("by_id", "by_period", "refused")))


def _runs(warehouse: Warehouse) -> int:
    with warehouse.owner_engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM ops.batch")).scalar_one())
