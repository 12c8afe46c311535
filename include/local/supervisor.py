"""Named child processes, each in a session of its own, none of which outlives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from include.local.keeper import GRACE_SECONDS, Keeper, end_sessions

_LOG_END_LINES = 25
_LOG_END_BYTES = 16_384
_PAUSE_SECONDS = 0.05


class ProcessFailed(Exception):
    """A process ended, or did not become ready in time; the message holds the end of its log."""


@dataclass(frozen=True)
class User:
    """The account a process runs under when it is not our own."""

    user_id: int
    group_id: int


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals
    is_step: bool


class Supervisor:
    """Starts processes, notices when one dies, and leaves none behind, even when killed itself.

    Each process writes to `<logs>/<name>.log`; the log of its run before is kept beside it as
    `<name>.previous.log`.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, _Child] = {}
        self._keeper: Keeper | None = None

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        folder: Path,
        user: User | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        is_step: bool = False,
    ) -> None:
        """Start `command` in `folder`, under another account if `user` says so.

        A process that `is_step` is meant to end by itself, with exit code 0: see `finish`.
        """
        self._keeper = self._keeper or Keeper()
        log = self._new_log(name)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [os.fspath(part) for part in command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=None if user is None else user.user_id,
                group=None if user is None else user.group_id,
                extra_groups=None if user is None else [],
            )
        self._keeper.guard(process.pid, stop_signal)
        self._children[name] = _Child(process, log, stop_signal, is_step)

    def process_id(self, name: str) -> int:
        """The id of the process called `name`, which leads its session."""
        return self._children[name].process.pid

    def finish(self, name: str, deadline_seconds: float) -> None:
        """Wait until the step called `name` has ended well.  Raises `ProcessFailed`."""
        child = self._children[name]
        self.wait_until(f"{name} has ended", lambda: child.process.poll() == 0, deadline_seconds)
        self.stop(name)

    def wait_until(
        self, condition: str, is_met: Callable[[], bool], deadline_seconds: float
    ) -> None:
        """Wait until `is_met()`, while every process lives.  Raises `ProcessFailed`.

        `condition` completes the sentence "it did not come about that …".
        """
        deadline = time.monotonic() + deadline_seconds
        while not is_met():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"It did not come about within {deadline_seconds:g} seconds that {condition}."
                    f" Everything stored is kept.\n{self._log_ends()}"
                )
            time.sleep(_PAUSE_SECONDS)

    def check(self) -> None:
        """Raise `ProcessFailed` if a process has ended that should not have, or has ended badly."""
        for name, child in self._children.items():
            code = child.process.poll()
            if code is not None and not (child.is_step and code == 0):
                raise ProcessFailed(
                    f"{name} ended with {_describe(code)}. Everything stored is kept. "
                    f"The end of {child.log}:\n{log_end(child.log)}"
                )

    def stop(self, *names: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the processes called `names` at once, with everything they started."""
        children = [self._children[name] for name in names if name in self._children]
        end_sessions({child.process.pid: child.stop_signal for child in children}, grace_seconds)
        for child in children:
            child.process.wait()
            if self._keeper is not None:
                self._keeper.release(child.process.pid)
        for name in names:
            self._children.pop(name, None)

    def stop_all(self) -> None:
        """End every process that is left, together."""
        self.stop(*self._children)
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def _new_log(self, name: str) -> Path:
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self._logs / f"{name}.log"
        if log.exists():
            log.replace(self._logs / f"{name}.previous.log")
        return log

    def _log_ends(self) -> str:
        return "\n".join(
            f"The end of {child.log}:\n{log_end(child.log)}" for child in self._children.values()
        )


def log_end(log: Path) -> str:
    """The last lines of `log`, indented; a few at most, whatever its size."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_LOG_END_LINES:]) or "    (it is empty)"


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
