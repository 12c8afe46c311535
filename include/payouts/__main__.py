"""`python -m include.payouts import FILE [--business-date YYYY-MM-DD]`: enter payouts.

FILE is NDJSON (.ndjson, .jsonl) or CSV (.csv) with the fields of the wallet's documentation and,
where a line has a day of its own, businessDate.  Amounts are whole numbers in hundred-thousandths
of the currency (250000000 is 2 500.00000).  Safe to repeat at any time.

Environment: WAREHOUSE_URL, a Postgres URL of the warehouse with the login `pipelines`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import date
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from include.payouts.importing import FileRefused, Imported, import_file
from include.warehouse.database import open_engine


def main(arguments: list[str]) -> int:
    """Run the one command there is: 0 if every line is in the outbox, 1 if some were rejected, 2 if
    the import could not be carried out to its end.
    """
    parser = argparse.ArgumentParser(
        prog="python -m include.payouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = parser.add_subparsers(required=True).add_parser("import")
    command.add_argument("file", type=Path)
    command.add_argument("--business-date", type=date.fromisoformat)
    given = parser.parse_args(arguments)
    url = os.environ.get("WAREHOUSE_URL")
    if not url:
        parser.error("WAREHOUSE_URL is not set")
    return _import(url, given.file, given.business_date)


def _import(url: str, path: Path, business_date: date | None) -> int:
    engine = open_engine(url)
    progress = _Progress()
    try:
        imported = import_file(engine, path, business_date, progress.report)
    except (FileRefused, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except DBAPIError as error:
        print(
            f"The warehouse stopped the import: {error.orig}\n{progress.last_line}\n"
            "What was committed stays. Import the file again: nothing is entered twice.",
            file=sys.stderr,
        )
        return 2
    finally:
        engine.dispose()
    print(_summary(imported))
    return 1 if imported.rejected else 0


class _Progress:
    """Says on standard error how far the import is, at most once a second."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self.last_line = "Nothing was committed."

    def report(self, imported: Imported) -> None:
        now = time.monotonic()
        rate = imported.read / max(now - self._began, 0.001)
        self.last_line = (
            f"{imported.position / max(imported.size, 1):4.0%}  {imported.read} lines, "
            f"{rate:.0f} a second, {imported.rejected} rejected"
        )
        if now - self._said >= 1 or imported.position >= imported.size:
            print(self.last_line, file=sys.stderr, flush=True)
            self._said = now


def _summary(imported: Imported) -> str:
    lines = [
        f"read         {imported.read}",
        f"new          {imported.new}",
        f"same         {imported.same} (in the outbox already)",
        f"conflicting  {imported.conflicting} (in the outbox with another content, which stays)",
        f"rejected     {imported.rejected} (see wallet.rejected_line)",
        f"held         {imported.held} of these lines have a payout that is held",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
