"""A sandbox that goes on deciding while `make up` runs, and where it left off after a restart.

The sandbox itself forgets everything when it ends; its entries are computed, so their number is all
there is to keep.
"""

from __future__ import annotations

import time
from pathlib import Path

from include.local.folder import write_private
from include.sandbox.client import Sandbox

_FIRST_ENTRIES = 2_000
_ENTRIES_A_STEP = 10
_STEP_SECONDS = 10.0


def entries_kept(file: Path) -> int:
    """How long the sandbox's logs were when they were last seen, or are to begin with."""
    return int(file.read_text(encoding="utf-8")) if file.exists() else _FIRST_ENTRIES


class Growth:
    """The settlement log of the sandbox's ticktock, growing by an entry a second."""

    def __init__(self, sandbox_url: str, file: Path) -> None:
        self._sandbox = Sandbox(sandbox_url)
        self._file = file
        self._entries = entries_kept(file)
        self._show()

    def go_on(self) -> None:
        """Let the entries of the time since the last step appear, if a step is due."""
        if time.monotonic() - self._shown_at >= _STEP_SECONDS:
            self._entries += _ENTRIES_A_STEP
            self._show()

    def close(self) -> None:
        """Close the connection to the sandbox."""
        self._sandbox.close()

    def _show(self) -> None:
        # Kept before it is shown: after a crash the log never ends before what was read of it.
        write_private(self._file, str(self._entries))
        self._sandbox.configure("ticktock", visible_entries=self._entries)
        self._shown_at = time.monotonic()
