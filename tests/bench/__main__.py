"""The command line of `make bench`; see the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from include.local.postgres import Postgres, remove_cluster
from tests.bench.comparing import compare, print_comparison
from tests.bench.listening import listen, print_listening
from tests.bench.markets import print_settled, settle
from tests.bench.measuring import FLAT, NESTED, Shape
from tests.bench.polling import poll, print_polling, shortcomings
from tests.bench.resending import print_resend, resend
from tests.bench.scaling import MORE, REPEATS, print_scale, scale
from tests.bench.server import describe_server
from tests.warehouses import make_template

_FILE_WIDTH = 110


def make_parser() -> argparse.ArgumentParser:
    """What may be told on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--entries", type=int, default=1_000_000, help="measured in each way")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--scale", type=int, help="load this many instead, this project alone")
    parser.add_argument("--nested", type=int, help="measure so many bets of a stream instead")
    parser.add_argument("--payouts", type=int, help="send so many payouts instead")
    parser.add_argument("--markets", type=int, help="settle so many markets instead")
    parser.add_argument("--bets", type=int, help="ask for so many open bets instead")
    return parser


def main() -> int:
    """Measure beside other ways, or at scale; 1 if what is measured is not as it has to be."""
    arguments = make_parser().parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_WIDTH)
    with _server() as (folder, server):
        console.print(describe_server(server))
        if arguments.payouts:
            results = resend(console, server, folder, arguments.payouts, arguments.rounds)
            print_resend(console, arguments.payouts, results)
        elif arguments.markets:
            print_settled(console, settle(console, server, folder, arguments.markets))
        elif arguments.bets:
            return _measure_polling(console, server, folder, arguments.bets)
        elif arguments.scale:
            _measure_scale(console, server, folder, arguments.scale)
        elif arguments.nested:
            _measure(console, server, folder, NESTED, arguments.nested, arguments.rounds)
            print_listening(console, listen(server, folder))
        else:
            _measure(console, server, folder, FLAT, arguments.entries, arguments.rounds)
    return 0


def _measure(
    console: Console, server: Postgres, folder: Path, shape: Shape, records: int, rounds: int
) -> None:
    file = folder / "records"
    console.print(f"writing {records:,} {shape.records}")
    shape.write(file, records)
    results = compare(console, server, file, records, rounds, shape)
    print_comparison(console, records, results, shape)


def _measure_scale(console: Console, server: Postgres, folder: Path, entries: int) -> None:
    log, written = folder / "records", entries + (1 + REPEATS) * MORE
    console.print(f"writing {written:,} {FLAT.records}")
    FLAT.write(log, written)
    print_scale(console, scale(console, server, log, entries))


def _measure_polling(console: Console, server: Postgres, folder: Path, bets: int) -> int:
    polled = poll(server, folder, bets)
    print_polling(console, polled)
    wrong = list(shortcomings(polled))
    for one in wrong:
        console.print(one)
    return 1 if wrong else 0


@contextmanager
def _server() -> Iterator[tuple[Path, Postgres]]:
    """A server as `make up` has it, with the template of a warehouse; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "postgres"
        try:
            with Postgres(folder) as server:
                make_template(server)
                yield Path(name), server
        finally:
            remove_cluster(folder)


if __name__ == "__main__":
    sys.exit(main())
