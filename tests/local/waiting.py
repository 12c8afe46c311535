"""Waiting for a condition instead of for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(
    condition: str,
    is_met: Callable[[], bool],
    deadline_seconds: float = 15.0,
    *,
    pause_seconds: float = 0.02,
) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not is_met():
        assert time.monotonic() < deadline, f"not within {deadline_seconds} s: {condition}"
        time.sleep(pause_seconds)


def is_alive(process: int) -> bool:
    """Whether `process` runs; one that has ended but was not reaped yet does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
