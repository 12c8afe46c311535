"""`python -m include.warehouse migrate`: make or upgrade the warehouse's tables, views and roles.

Environment: WAREHOUSE_URL, a Postgres URL whose login owns the database; PIPELINES_PASSWORD,
FINANCE_PASSWORD, OUTBOX_PASSWORD, CREDITS_PASSWORD and REGISTER_PASSWORD, those of them whose login
(`pipelines`, `finance`, …) is to be created or changed.
"""

from __future__ import annotations

import os
import sys

from include.warehouse.migrate import migrate


def main(arguments: list[str]) -> int:
    """Run the one command there is; 0 if it was carried out, 2 if it was not understood."""
    url = os.environ.get("WAREHOUSE_URL")
    if arguments != ["migrate"] or not url:
        print(__doc__, file=sys.stderr)
        return 2
    passwords = {
        login: os.environ[variable]
        for login, variable in (
            ("pipelines", "PIPELINES_PASSWORD"),
            ("finance", "FINANCE_PASSWORD"),
            ("outbox", "OUTBOX_PASSWORD"),
            ("credits", "CREDITS_PASSWORD"),
            ("register", "REGISTER_PASSWORD"),
        )
        if variable in os.environ
    }
    migrate(url, passwords)
    print("The warehouse is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
