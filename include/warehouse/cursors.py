"""What can be said of cursors, which are the providers' own and otherwise opaque."""

from __future__ import annotations


def is_behind(cursor: str, other: str) -> bool:
    """Whether `cursor` comes before `other`; False unless both are whole numbers, which alone
    have an order that is known.
    """
    return _is_whole(cursor) and _is_whole(other) and int(cursor) < int(other)


def _is_whole(cursor: str) -> bool:
    return cursor.isascii() and cursor.isdigit()
