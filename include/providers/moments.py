"""Moments as providers write them: with their offset, read exactly, and given in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset from UTC; one without is refused."""


def readable_time(value: object) -> datetime | None:
    """The moment that a text names, in UTC; None if it names none."""
    if not isinstance(value, str):
        return None
    try:
        return in_utc(msgspec.convert(value, AwareTime))
    except (msgspec.ValidationError, ValueError):
        return None


def in_utc(moment: datetime) -> datetime | None:
    """The same moment in UTC; None if that is before year 1 or after year 9999."""
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


def sortable(moment: datetime) -> str:
    """The moment in UTC as a text that sorts by time, byte by byte, to the microsecond."""
    # Some six times as fast as isoformat.
    written = msgspec.json.encode(moment.astimezone(UTC))[1:-2].decode()
    return written if "." in written else f"{written}.000000"
