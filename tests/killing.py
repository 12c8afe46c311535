"""Kill or freeze a pipeline at a moment that has a name, such as "before land 3 (landing.commit)".

A pipeline is an ordered list of tasks.  The moments of a task are its commits, each named by the
function that commits, and its SQL statements; both are counted, not listed, so that a new one is
met as well.  The worker that runs the tasks is forked, which spares it the imports, opens its own
engine, and sends itself the signal: nothing depends on how quick the machine is.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import CO_GENERATOR
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self

# Each worker would import it anew: it is a good part of a run.
import great_expectations  # noqa: F401
from sqlalchemy import Engine, event

import include
from include.warehouse.database import open_engine

When = Literal["before", "after"]
Kind = Literal["commit", "statement", "commit in it"]
Ending = Literal["finished", "failed", "killed", "frozen"]

_INCLUDE = str(Path(include.__path__[0])) + os.sep
_FINISHED, _FAILED = 0, 1


@dataclass(frozen=True)
class Task:
    """One task of a pipeline, as its DAG calls it."""

    name: str
    run: Callable[[Engine], object]


@dataclass(frozen=True)
class Point:
    """The `number`th commit or statement of a task, from 1; a commit has the function it is in.

    A "commit in it" is counted among those of its function alone: the same however many others the
    task makes in between.
    """

    task: str
    number: int
    kind: Kind = "commit"
    function: str = ""

    def __str__(self) -> str:
        return f"{self.task} {self.number} ({self.function or self.kind})"


def counted_by_function(commits: Sequence[Point]) -> list[Point]:
    """The same commits, in order, each counted among those of its function."""
    seen: Counter[tuple[str, str]] = Counter()
    counted = []
    for point in commits:
        seen[point.task, point.function] += 1
        number = seen[point.task, point.function]
        counted.append(replace(point, number=number, kind="commit in it"))
    return counted


@dataclass(frozen=True)
class Moment:
    """Right before or right after a point."""

    when: When
    point: Point

    def __str__(self) -> str:
        return f"{self.when} {self.point}"


class WorkerFailed(Exception):
    """The worker ended by an error of its own instead of being killed or finishing."""


class Worker:
    """A process that runs `tasks` in order, and sends itself `deed` at `moment`.

    `deed` is SIGKILL, or SIGSTOP: it is then frozen until `go_on`.  `session` are settings of
    Postgres for its connections.  Leaving the `with` block ends it, wherever it stands.

    It connects anew, to a URL or as an engine does: what that has compiled is not compiled again.
    """

    def __init__(
        self,
        warehouse: str | Engine,
        tasks: Sequence[Task],
        moment: Moment | None = None,
        deed: signal.Signals = signal.SIGKILL,
        session: Mapping[str, str] | None = None,
    ) -> None:
        self._report = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._process_id: int | None = os.fork()
        if self._process_id == 0:
            _Inside(self._report.fileno(), moment, deed).run(warehouse, tasks, session or {})

    def wait(self) -> Ending:
        """Wait until it has ended, or is frozen."""
        assert self._process_id is not None
        status = os.waitpid(self._process_id, os.WUNTRACED)[1]
        if os.WIFSTOPPED(status):
            return "frozen"
        self._process_id = None
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return "killed"
        return "finished" if os.WEXITSTATUS(status) == _FINISHED else "failed"

    def go_on(self) -> None:
        """Let it go on from where it is frozen."""
        assert self._process_id is not None
        os.kill(self._process_id, signal.SIGCONT)

    def points(self) -> list[Point]:
        """The points it has come to, in order."""
        return [Point(**line) for line in self._lines() if "task" in line]

    def error(self) -> str:
        """The traceback with which it failed; empty if it did not."""
        return "".join(line["error"] for line in self._lines() if "error" in line)

    def error_name(self) -> str:
        """The class of what it failed with; empty if it did not."""
        return "".join(line["name"] for line in self._lines() if "error" in line)

    def end(self) -> None:
        """Kill it if it is still there."""
        if self._process_id is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process_id, signal.SIGKILL)
            os.waitpid(self._process_id, 0)
            self._process_id = None
        self._report.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _lines(self) -> list[dict[str, Any]]:
        size = os.fstat(self._report.fileno()).st_size
        written = os.pread(self._report.fileno(), size, 0)
        return [json.loads(line) for line in written.splitlines()]


def run_and_kill(
    warehouse: str | Engine, tasks: Sequence[Task], moment: Moment | None
) -> tuple[Ending, str]:
    """Run `tasks` in a worker that is killed at `moment`: how it ended, and its last point.

    Raises `WorkerFailed` if it failed by itself.
    """
    with Worker(warehouse, tasks, moment) as worker:
        ending = worker.wait()
        if ending == "failed":
            raise WorkerFailed(worker.error())
        points = worker.points()
        return ending, str(points[-1]) if points else ""


class _Inside:
    """What happens in the worker's process; nothing of it may unwind into the test around it."""

    def __init__(self, report: int, moment: Moment | None, deed: signal.Signals) -> None:
        self._report = report
        self._moment = moment
        self._deed = deed
        self._task = ""
        self._counts: Counter[str] = Counter()

    def run(
        self, warehouse: str | Engine, tasks: Sequence[Task], session: Mapping[str, str]
    ) -> None:
        code = _FAILED
        # It ends before any garbage matters; to look for it copies the memory of the test.
        gc.disable()
        try:
            self._close_what_is_inherited()
            engine = open_engine(warehouse) if isinstance(warehouse, str) else warehouse
            # Its connections belong to the test, and are closed here already.
            engine.dispose(close=False)
            self._arm(engine, session)
            for task in tasks:
                self._task, self._counts = task.name, Counter()
                task.run(engine)
            code = _FINISHED
        except BaseException as error:  # noqa: BLE001
            self._tell({"error": traceback.format_exc(), "name": type(error).__name__})
        finally:
            os._exit(code)

    def _close_what_is_inherited(self) -> None:
        """Whoever waits for a pipe or a socket of the test to close must not wait for us.

        The numbers stay taken: what is left of the test's objects must not close files of ours.
        """
        nothing = os.open(os.devnull, os.O_RDWR)
        for file in map(int, os.listdir("/proc/self/fd")):
            if file > 2 and file != self._report:
                with suppress(OSError):
                    os.dup2(nothing, file)

    def _arm(self, engine: Engine, session: Mapping[str, str]) -> None:
        commit = engine.dialect.do_commit

        def commit_watched(connection: Any) -> None:
            point = self._come_to("commit", _committing_function())
            commit(connection)
            self._act("after", point)

        engine.dialect.do_commit = commit_watched  # type: ignore[method-assign]

        @event.listens_for(engine, "before_cursor_execute")
        def before(*_: Any) -> None:
            self._come_to("statement")

        @event.listens_for(engine, "after_cursor_execute")
        def after(*_: Any) -> None:
            self._act("after", Point(self._task, self._counts["statement"], "statement"))

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _: Any) -> None:
            with connection.cursor() as cursor:
                for name, value in session.items():
                    cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.commit()

    def _come_to(self, kind: Kind, function: str = "") -> Point:
        self._counts[kind] += 1
        self._counts[function] += 1
        point = Point(self._task, self._counts[kind], kind, function)
        self._tell({"task": point.task, "number": point.number, "kind": kind, "function": function})
        self._act("before", point)
        return point

    def _act(self, when: When, point: Point) -> None:
        """Send ourselves the signal if this is the moment."""
        if self._moment is not None and self._moment.when == when and self._is_meant(point):
            # To this very thread: sent to the process, it may find us a step further on.
            signal.pthread_kill(threading.get_ident(), self._deed)

    def _is_meant(self, point: Point) -> bool:
        """Functions are only the names of what is counted by itself."""
        assert self._moment is not None
        meant = self._moment.point
        if meant.kind == "commit in it":
            number = self._counts[point.function]
            return meant == replace(point, number=number, kind="commit in it")
        return replace(meant, function="") == replace(point, function="")

    def _tell(self, line: dict[str, Any]) -> None:
        os.write(self._report, json.dumps(line).encode() + b"\n")


def _committing_function() -> str:
    """The innermost function of the project that is no context manager, as "landing.commit"."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_INCLUDE) and not code.co_flags & CO_GENERATOR:
            return f"{Path(code.co_filename).stem}.{code.co_name}"
        frame = frame.f_back
    return "elsewhere"
