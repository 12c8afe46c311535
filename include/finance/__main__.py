"""`python -m include.finance dictionary [--check]`: write the data dictionary, or compare it.

Environment: WAREHOUSE_URL, the Postgres URL of a migrated warehouse; any login may read what it
needs.
"""

from __future__ import annotations

import os
import sys

from sqlalchemy.exc import OperationalError

from include.finance import dictionary
from include.warehouse.database import open_engine


def main(arguments: list[str]) -> int:
    """Run the one command there is: 0 if all is well, 1 if not, 2 if it was not understood."""
    url = os.environ.get("WAREHOUSE_URL")
    if arguments not in (["dictionary"], ["dictionary", "--check"]) or not url:
        print(__doc__, file=sys.stderr)
        return 2
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            if "--check" in arguments:
                dictionary.check(connection)
            else:
                dictionary.write(connection)
    except (dictionary.Uncommented, dictionary.DictionaryDiffers) as error:
        print(error, file=sys.stderr)
        return 1
    except OperationalError:
        print(
            "The warehouse does not answer, and the dictionary was left as it is. Start it, with "
            "`make up` for example, which migrates it as well; then run this again.",
            file=sys.stderr,
        )
        return 1
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
