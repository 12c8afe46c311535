"""How soon a message of odds88's stream is a row: from when it is sent to when it is committed.

Over the real WebSocket of a sandbox, within one session that is connected all the while, with the
settings as they are by default.  What the schedule adds, which begins a session every five
minutes, is known and left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from sqlalchemy import Engine, text

from include.catchup.acquiring import land
from include.catchup.sources import SOURCES
from include.local.postgres import Postgres
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.sandbox.process import running_sandbox
from tests.sandboxes import odds88_feed
from tests.warehouses import fresh_warehouse

_MESSAGES, _SECONDS_BETWEEN = 300, 0.1
_LOOK_SECONDS = 0.01
_DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Listening:
    """The seconds that each message took, and those after which `land` commits what it holds."""

    seconds: Sequence[float]
    commit_seconds: float


def listen(
    server: Postgres,
    folder: Path,
    messages: int = _MESSAGES,
    seconds_between: float = _SECONDS_BETWEEN,
) -> Listening:
    """Send so many messages, one after the other, to a session that listens."""
    # The session ends with the last of them, however quiet or lively the stream is.
    settings = Settings(odds88_session_messages=messages, stream_quiet_seconds=_DEADLINE_SECONDS)
    (folder / "ready").unlink(missing_ok=True)
    with fresh_warehouse(server) as warehouse, running_sandbox(folder) as sandbox:
        sandbox.configure("odds88", messages=0, ping_seconds=1.0)
        session = threading.Thread(target=_land, args=(warehouse.engine, sandbox, settings))
        session.start()
        _wait_for_connection(sandbox)
        watch = _Watch(warehouse.owner_engine, messages)
        watch.start()
        sent_at = []
        for _ in range(messages):
            sent_at.append(time.monotonic())
            sandbox.advance("odds88", 1)
            time.sleep(seconds_between)
        session.join()
        watch.join()
    taken = [seen - sent for sent, seen in zip(sent_at, watch.seen_at, strict=True)]
    return Listening(taken, settings.land_commit_seconds)


def print_listening(console: Console, listening: Listening) -> None:
    """The median, and what the slowest of ten messages take."""
    slow = quantiles(listening.seconds, n=10)[-1]
    console.print(
        f"{len(listening.seconds)} live messages of one session, from being sent to a committed "
        f"row: median {median(listening.seconds):.2f} s, nine of ten within {slow:.2f} s, all "
        f"within {max(listening.seconds):.2f} s; `land` commits every "
        f"{listening.commit_seconds:g} s."
    )


class _Watch(threading.Thread):
    """Notes when each row is there for others to see."""

    def __init__(self, engine: Engine, rows: int) -> None:
        super().__init__()
        self.seen_at: list[float] = []
        self._engine = engine
        self._rows = rows

    def run(self) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while len(self.seen_at) < self._rows and time.monotonic() < deadline:
                there = connection.execute(text("SELECT count(*) FROM raw.record")).scalar_one()
                self.seen_at += [time.monotonic()] * (there - len(self.seen_at))
                time.sleep(_LOOK_SECONDS)


def _land(engine: Engine, sandbox: Sandbox, settings: Settings) -> None:
    with closing(odds88_feed(sandbox, settings)) as feed:
        land(engine, SOURCES["odds88"], feed, settings, "bench")


def _wait_for_connection(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not sandbox.ledger("odds88")["connections"]["now"]:
        assert time.monotonic() < deadline, "nobody has connected"
        time.sleep(_LOOK_SECONDS)
