"""The clock of this machine beside the warehouse's: where a feed stands is often a time."""

from __future__ import annotations

import platform
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, func, select

# Clocks that are kept right differ by milliseconds.  What is read again of each feed, and how far
# behind the present its end is taken to be, make up for more than this.
MOST_APART = timedelta(seconds=10)


class ClocksDiffer(Exception):
    """This machine's clock and the warehouse's differ; `seconds` is how far ours is ahead.

    It is less than 0 if ours is behind.  Nothing has been done.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"The clock of this machine ({platform.node()}) is {abs(seconds):.0f} seconds "
            f"{'ahead of' if seconds > 0 else 'behind'} that of the warehouse. Where a feed stands "
            "is kept as a time, so settlements could be passed over for good: nothing was asked "
            "for, and nothing was landed. Set the clock of this machine right, or that of the "
            "database's if it is the wrong one. The next try goes on by itself, and so does any "
            "later run."
        )


def compare_clocks(engine: Engine) -> None:
    """Raise `ClocksDiffer` if ours cannot be within `MOST_APART` of the warehouse's.

    It told its time between our asking and our hearing of it, however long that took.
    """
    with engine.connect() as connection:
        asked_at = datetime.now(UTC)
        told: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        heard_at = datetime.now(UTC)
    if asked_at - told > MOST_APART:
        raise ClocksDiffer((asked_at - told).total_seconds())
    if told - heard_at > MOST_APART:
        raise ClocksDiffer((heard_at - told).total_seconds())
