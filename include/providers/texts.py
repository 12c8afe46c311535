"""Texts of a provider's: whether Postgres can store one, and how a message shows one."""

from __future__ import annotations


def is_storable(text: str) -> bool:
    """Whether Postgres can store the text: no null character, no half surrogate pair."""
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def shown(value: object) -> str:
    """A value for a message: short, and in characters that can be stored."""
    return f"{value!a:.100}"


def start_of(text: bytes) -> str:
    """How bytes that should have been something else begin, for a message."""
    return shown(text[:80].decode("utf-8", "replace"))
