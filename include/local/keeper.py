"""Ends the processes that a killed process would leave behind.

A process cannot clean up after its own SIGKILL.  So beside every supervisor runs a small keeper
that reads from a pipe which sessions it guards; when the pipe closes, for whatever reason, it ends
them.  A whole session is ended and not a process group, because Airflow puts each task into a
group of its own.  Asking the kernel to signal children at their parent's death would not do: it
reaches no grandchildren, and fires when the thread that started the child ends.

This file is also the keeper's program: it uses the standard library alone and starts in 20 ms.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 10.0
_KILL_SECONDS = 5.0
_PAUSE_SECONDS = 0.03


class Keeper:
    """Our end of the pipe to a keeper process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def guard(self, leader: int, stop_signal: signal.Signals) -> None:
        """End the session led by process `leader`, first by `stop_signal`, should we be killed."""
        self._tell(f"guard {leader} {int(stop_signal)}")

    def release(self, leader: int) -> None:
        """The session led by `leader` has ended; its number may soon be somebody else's."""
        self._tell(f"release {leader} 0")

    def close(self) -> None:
        """End what is still guarded, and the keeper itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, message: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{message}\n".encode())
        self._process.stdin.flush()


def end_sessions(leaders: Mapping[int, int], grace_seconds: float = GRACE_SECONDS) -> None:
    """Send each leader its signal, wait for them, then kill what is left of their sessions."""
    for leader, number in leaders.items():
        if _session_of(leader) == leader:
            _send(leader, number)
    deadline = time.monotonic() + grace_seconds
    while any(_session_of(leader) == leader for leader in leaders) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    deadline = time.monotonic() + _KILL_SECONDS
    while (members := session_members(leaders)) and time.monotonic() < deadline:
        for member in members:
            _send(member, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def session_members(leaders: Collection[int]) -> list[int]:
    """The living processes of the sessions led by `leaders`, also when a leader has ended."""
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [process for process in processes if _session_of(process) in leaders]


def _session_of(process: int) -> int | None:
    """The session of a living process; None if it has ended, reaped or not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command stands in parentheses and may contain any character: fields count from its end.
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return None if state in ("Z", "X") else int(session)


def _send(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def main() -> None:
    """Keep what the pipe says until it closes, then end it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guarded: dict[int, int] = {}
    for line in sys.stdin:
        verb, leader, stop_signal = line.split()
        if verb == "guard":
            guarded[int(leader)] = int(stop_signal)
        else:
            guarded.pop(int(leader), None)
    end_sessions(guarded)


if __name__ == "__main__":
    main()
