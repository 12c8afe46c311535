"""Kill a pipeline at its commits: SIGKILL right before or right after the nth one.

A pipeline's commit points are the commits it makes; they are counted, not listed, so that a new
one is killed as well.  The child is forked, which spares it the imports, and opens its own engine.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, Literal

# Each child would import it anew: it is a good part of a run.
import great_expectations  # noqa: F401
from sqlalchemy import Engine

from include.warehouse.database import open_engine

When = Literal["before", "after"]

_FINISHED, _FAILED = 0, 1


class ChildFailed(Exception):
    """The child ended by an error of its own instead of being killed or finishing."""


def run_and_kill(
    url: str, pipeline: Callable[[Engine], object], commit: int | None, when: When = "before"
) -> bool:
    """Run `pipeline` in a child that is killed at its `commit`th commit; True if it finished."""
    child = os.fork()
    if child == 0:
        _be_the_child(url, pipeline, commit, when)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status) != _FINISHED:
        raise ChildFailed(f"The child ended with {os.waitstatus_to_exitcode(status)}; see above.")
    return True


def _be_the_child(
    url: str, pipeline: Callable[[Engine], object], commit: int | None, when: When
) -> None:
    code = _FAILED
    try:
        engine = open_engine(url)
        _arm(engine, commit, when)
        pipeline(engine)
        code = _FINISHED
    except BaseException:  # noqa: BLE001
        # Nothing may unwind into the test that forked us.
        traceback.print_exc()
    finally:
        os._exit(code)


def _arm(engine: Engine, fatal_commit: int | None, when: When) -> None:
    commits = 0
    commit = engine.dialect.do_commit

    def commit_or_die(connection: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == fatal_commit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit(connection)
        if commits == fatal_commit and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    engine.dialect.do_commit = commit_or_die  # type: ignore[method-assign]
