"""`python -m include.catchup import FILE`: land a stream's messages to fill a gap.

FILE is NDJSON (.ndjson, .jsonl), also packed (.gz), its name beginning with that of the source
(odds88-2026-11-18.ndjson); each line is a message as the stream sent it.  Safe to repeat at any
time.  The next run of the source's DAG publishes what was landed.

Environment: WAREHOUSE_URL, a Postgres URL of the warehouse with the login `pipelines`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from sqlalchemy.exc import DBAPIError

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
    """Run the one command there is: 0 if every line was a message, 1 if some were quarantined, 2 if
    the import could not be carried out to its end.
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
    source = source_named(given.file, SOURCES.values())
    if source is None:
        parser.error(
            f"{given.file.name} names no stream. Rename it so that it begins with its source and "
            "ends with .ndjson, .jsonl or either with .gz, such as odds88-2026-11-18.ndjson"
        )
    return _import(url, source, given.file)


def _import(url: str, source: Source, path: Path) -> int:
    engine = open_engine(url)
    progress = _Progress()
    try:
        imported = import_file(engine, source, path, Settings(), progress.report)
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
    print(_summary(source, imported))
    return 1 if imported.broken else 0


class _Progress:
    """Says on standard error how far the import is, at most once a second."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self.last_line = "Nothing was committed."

    def report(self, imported: FileImported) -> None:
        now = time.monotonic()
        rate = imported.lines / max(now - self._began, 0.001)
        self.last_line = (
            f"{imported.position / max(imported.size, 1):4.0%}  {imported.lines} lines, "
            f"{rate:.0f} a second, {imported.landed} landed, {imported.broken} broken"
        )
        if now - self._said >= 1 or imported.position >= imported.size:
            print(self.last_line, file=sys.stderr, flush=True)
            self._said = now


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
