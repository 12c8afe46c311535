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
from datetime import date
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from include.payouts.importing import Imported, import_file
from include.warehouse.importing import Progress, import_by_command


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
    carry_out = partial(_import, given.file, given.business_date)
    return import_by_command(url, carry_out, "nothing is entered twice")


def _import(path: Path, business_date: date | None, engine: Engine, progress: Progress) -> int:
    imported = import_file(engine, path, business_date, progress.report)
    print(_summary(imported))
    return 1 if imported.rejected else 0


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
