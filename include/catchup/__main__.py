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
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from include.catchup.bet_files import RegisterImported, import_register, is_register
from include.catchup.files import FileImported, import_file, next_steps, source_named
from include.catchup.sources import SOURCES, Source
from include.settings import Settings
from include.warehouse.importing import Progress, import_by_command

_PROMISE = "nothing lands twice"


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
        return import_by_command(url, partial(_import_register, given.file), _PROMISE)
    source = source_named(given.file, SOURCES.values())
    if source is None:
        parser.error(
            f"{given.file.name} names no stream. Rename it so that it begins with its source and "
            "ends with .ndjson, .jsonl or either with .gz, such as odds88-2026-11-18.ndjson"
        )
    return import_by_command(url, partial(_import_messages, source, given.file), _PROMISE)


def _import_messages(source: Source, path: Path, engine: Engine, progress: Progress) -> int:
    imported = import_file(engine, source, path, Settings(), progress.report)
    print(_summary(source, imported))
    return 1 if imported.broken else 0


def _import_register(path: Path, engine: Engine, progress: Progress) -> int:
    imported = import_register(engine, path, progress.report)
    print(_summary_of_register(imported))
    return 1 if imported.rejected else 0


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
