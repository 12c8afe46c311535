"""A sandbox that goes on deciding while `make up` runs, and where it left off after a restart.

The sandbox itself forgets everything when it ends; its entries are computed, so their number, and
the time at which a feed began, is all there is to keep.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from include.local.folder import write_private
from include.sandbox.client import Sandbox

_FIRST_ENTRIES = 2_000
_ENTRIES_A_STEP = 10
_STEP_SECONDS = 10.0
_FIRST_MESSAGES = 2_000
_SECONDS_A_MESSAGE = 5
_MESSAGES_A_BET = 6


def entries_kept(file: Path) -> int:
    """How long the sandbox's logs were when they were last seen, or are to begin with."""
    return int(file.read_text(encoding="utf-8")) if file.exists() else _FIRST_ENTRIES


class SteadyFeed:
    """The feed of the sandbox's odds88, a message every few seconds since the time in `file`, and
    with every few messages a bet of its tote.

    So it tells the same after a restart, and what was settled meanwhile.  It goes on whenever it
    is shown, and its clock with it.
    """

    def __init__(self, sandbox: Sandbox, file: Path) -> None:
        self._sandbox = sandbox
        self._began_at = _began_at(file)
        self._messages = 0

    def show(self) -> None:
        """Let the feed come to where it is now."""
        messages = int((datetime.now(UTC) - self._began_at).total_seconds() / _SECONDS_A_MESSAGE)
        if messages == self._messages:
            return
        self._messages = messages
        seconds = messages * _SECONDS_A_MESSAGE
        self._sandbox.configure(
            "odds88",
            messages=messages,
            history_seconds=seconds,
            clock_stopped_at=(self._began_at + timedelta(seconds=seconds)).isoformat(),
            # Messages are late by more than a feed as slow as this one is read again.
            recovered_by="first_sent",
        )
        bets = messages // _MESSAGES_A_BET
        seconds = bets * _MESSAGES_A_BET * _SECONDS_A_MESSAGE
        self._sandbox.configure(
            "tote",
            bets=bets,
            history_seconds=max(seconds, 1),
            clock_stopped_at=(self._began_at + timedelta(seconds=seconds)).isoformat(),
        )


class Growth:
    """The settlement log of the sandbox's ticktock, growing by an entry a second, and the feed of
    its odds88 and the bets of its tote.
    """

    def __init__(self, sandbox_url: str, entries_file: Path, feed_file: Path) -> None:
        self._sandbox = Sandbox(sandbox_url)
        self._file = entries_file
        self._entries = entries_kept(entries_file)
        self._feed = SteadyFeed(self._sandbox, feed_file)
        self._show()

    def go_on(self) -> None:
        """Let the entries of the time since the last step appear, if a step is due."""
        self._feed.show()
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


def _began_at(file: Path) -> datetime:
    if not file.exists():
        began_at = datetime.now(UTC) - timedelta(seconds=_FIRST_MESSAGES * _SECONDS_A_MESSAGE)
        write_private(file, began_at.replace(microsecond=0).isoformat())
    return datetime.fromisoformat(file.read_text(encoding="utf-8"))
