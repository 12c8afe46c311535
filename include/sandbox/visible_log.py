"""What of a settlement log can be seen now: entries up to the head, but for those held back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.sandbox.ticktock_log import SettlementLog


@dataclass(frozen=True)
class VisibleLog:
    """The log's first `head` entries, without the `hidden` ones (indexes)."""

    log: SettlementLog
    head: int
    hidden: frozenset[int]

    def shows(self, entry: int) -> bool:
        """Whether the entry with this index can be seen."""
        return 0 <= entry < self.head and entry not in self.hidden

    def oldest_after(self, entry: int) -> Iterator[int]:
        """The visible entries after this index, oldest first."""
        return (each for each in range(entry + 1, self.head) if each not in self.hidden)

    def newest_after(self, entry: int) -> Iterator[int]:
        """The visible entries after this index, newest first."""
        return (each for each in range(self.head - 1, entry, -1) if each not in self.hidden)
