"""`python -m include.catchup import FILE`: land a stream's messages, or enter bets to ask for.

FILE is either NDJSON (.ndjson, .jsonl), its name beginning with that of the stream
(odds88-2026-11-18.ndjson), and each line a message as the stream sent it; or a register of bets,
its name beginning with tote (.txt, .csv, .ndjson, .jsonl): an id a line, or a column or field
toteId.  Each may be packed (.gz).  Safe to repeat at any time.  The next run of the source's DAG
publishes what was landed, and asks for what was entered.

Environment: WAREHOUSE_URL, a Postgres URL of the warehouse with the login `pipelines`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from include.catchup.bet_files import RegisterImported, import_register, is_register
from include.catchup.files import (
    FileImported,
    FileRefused,
    import_file,
    next_steps,
    source_named,
)
from include.catchup.sources import SOURCES, Source
from include.settings import Settings
from include.warehouse.database import open_engine


def main(arguments: list[str]) -> int:
    """Run the one command there is: 0 if every line was taken, 1 if some were quarantined or
    rejected, 2 if the import could not be carried out to its end.
    """
    parser = argparse.ArgumentParser(
        prog="python -m include.catchup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = parser.add_subparsers(required=True).add_parser("import")
    command.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    url = os.environ.get("WAREHOUSE_URL")
    if not url:
        parser.error("WAREHOUSE_URL is not set")
    if is_register(given.file):
        return _import(url, partial(_import_register, given.file))
    source = source_named(given.file, SOURCES.values())
    if source is None:
        parser.error(
            f"{given.file.name} names no stream. Rename it so that it begins with its source and "
            "ends with .ndjson, .jsonl or either with .gz, such as odds88-2026-11-18.ndjson"
        )
    return _import(url, partial(_import_messages, source, given.file))


def _import_messages(source: Source, path: Path, engine: Engine, progress: _Progress) -> int:
    imported = import_file(engine, source, path, Settings(), progress.report)
    print(_summary(source, imported))
    return 1 if imported.broken else 0


def _import_register(path: Path, engine: Engine, progress: _Progress) -> int:
    imported = import_register(engine, path, progress.report)
    print(_summary_of_register(imported))
    return 1 if imported.rejected else 0


def _import(url: str, carry_out: Callable[[Engine, _Progress], int]) -> int:
    engine = open_engine(url)
    progress = _Progress()
    try:
        return carry_out(engine, progress)
    except (FileRefused, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except DBAPIError as error:
        print(
            f"The warehouse stopped the import: {error.orig}\n{progress.last_line}\n"
            "What was committed stays. Import the file again: nothing lands twice.",
            file=sys.stderr,
        )
        return 2
    finally:
        engine.dispose()


class _Progress:
    """Says on standard error how far the import is, at most once a second."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self.last_line = "Nothing was committed."

    def report(self, imported: FileImported | RegisterImported) -> None:
        now = time.monotonic()
        lines, gist = _gist(imported)
        rate = lines / max(now - self._began, 0.001)
        self.last_line = (
            f"{imported.position / max(imported.size, 1):4.0%}  {lines} lines, "
            f"{rate:.0f} a second, {gist}"
        )
        if now - self._said >= 1 or imported.position >= imported.size:
            print(self.last_line, file=sys.stderr, flush=True)
            self._said = now


def _gist(imported: FileImported | RegisterImported) -> tuple[int, str]:
    if isinstance(imported, RegisterImported):
        return imported.read, f"{imported.new} new, {imported.rejected} rejected"
    return imported.lines, f"{imported.landed} landed, {imported.broken} broken"


def _summary_of_register(imported: RegisterImported) -> str:
    lines = [
        f"read      {imported.read}",
        f"new       {imported.new} (asked for by the next run of catch_up_tote)",
        f"same      {imported.same} (in the register already, or twice in the file)",
        f"rejected  {imported.rejected} (see tote.rejected_line)",
    ]
    return "\n".join(lines)


def _summary(source: Source, imported: FileImported) -> str:
    lines = [
        f"lines       {imported.lines}",
        f"landed      {imported.landed}",
        f"duplicates  {imported.duplicates} (landed before)",
        f"pings       {imported.pings} (nothing to land)",
        f"broken      {imported.broken} (no message: quarantined, unless landed before)",
        f"settled     from {imported.first_at} to {imported.last_at}",
        *next_steps(source, imported),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
