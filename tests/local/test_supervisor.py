"""Child processes: reported when they die, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local.keeper import session_members
from include.local.supervisor import ProcessFailed, Supervisor
from tests.local.ordinary_user import PROJECT
from tests.local.waiting import is_alive, wait_for

# A process with a child that, as Airflow's tasks do, has a group of its own and ignores SIGTERM.
FAMILY = """
import os, signal, sys, time
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
while True:
    time.sleep(60)
"""

SUPERVISING = """
import os, signal, sys, threading
from pathlib import Path
from include.local.supervisor import Supervisor
# Whoever runs the tests in the background has it ignored, and so have their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Supervisor(Path(sys.argv[1])) as supervisor:
    supervisor.start(
        "family", [sys.executable, "-c", sys.argv[2]], environment=os.environ, folder=Path("/")
    )
    print(supervisor.process_id("family"), flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs with a space") as supervisor:
        yield supervisor


def start(supervisor: Supervisor, name: str, script: str, *, is_step: bool = False) -> None:
    supervisor.start(
        name,
        [sys.executable, "-c", script],
        environment=os.environ,
        folder=Path("/"),
        is_step=is_step,
    )


def start_family(supervisor: Supervisor, logs: Path) -> int:
    start(supervisor, "family", FAMILY)
    wait_for("the child is ready", lambda: "ready" in (logs / "family.log").read_text())
    return supervisor.process_id("family")


def test_a_dead_process_is_reported_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    start(supervisor, "broken", "print('it cannot go on'); raise SystemExit(3)")
    with pytest.raises(ProcessFailed, match=r"broken ended with exit code 3(.|\n)*cannot go on"):
        supervisor.wait_until("it works", lambda: False, 15)


def test_a_process_that_is_never_ready_is_reported_with_its_log(supervisor: Supervisor) -> None:
    start(supervisor, "slow", "import time; print('busy', flush=True); time.sleep(60)")
    with pytest.raises(ProcessFailed, match=r"within 1 seconds that it works(.|\n)*busy"):
        supervisor.wait_until("it works", lambda: False, 1)


def test_only_the_end_of_a_long_log_is_shown(supervisor: Supervisor) -> None:
    start(supervisor, "chatty", "for n in range(100_000): print('line', n)", is_step=True)
    supervisor.finish("chatty", 15)
    start(supervisor, "chatty", "for n in range(100_000): print('line', n)\nraise SystemExit(1)")
    with pytest.raises(ProcessFailed) as failure:
        supervisor.wait_until("it works", lambda: False, 15)
    assert "line 99999" in str(failure.value)
    assert len(str(failure.value)) < 2_000


def test_the_log_of_the_run_before_is_kept(supervisor: Supervisor, tmp_path: Path) -> None:
    for text in ("first", "second"):
        start(supervisor, "step", f"print({text!r})", is_step=True)
        supervisor.finish("step", 15)
    logs = tmp_path / "logs with a space"
    assert (logs / "step.log").read_text() == "second\n"
    assert (logs / "step.previous.log").read_text() == "first\n"


def test_a_step_that_ends_well_fails_nobody_and_one_that_ends_badly_does(
    supervisor: Supervisor,
) -> None:
    start(supervisor, "good", "pass", is_step=True)
    supervisor.finish("good", 15)
    start(supervisor, "bad", "raise SystemExit(1)", is_step=True)
    with pytest.raises(ProcessFailed, match="bad ended with exit code 1"):
        supervisor.wait_until("it works", lambda: False, 15)


def test_a_stop_ends_the_whole_session(supervisor: Supervisor, tmp_path: Path) -> None:
    leader = start_family(supervisor, tmp_path / "logs with a space")
    members = session_members({leader})
    assert len(members) == 2
    supervisor.stop("family")
    assert not any(map(is_alive, members))


def test_a_process_that_ignores_the_signal_is_killed(supervisor: Supervisor) -> None:
    start(
        supervisor,
        "deaf",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
    )
    process = supervisor.process_id("deaf")
    supervisor.stop("deaf", grace_seconds=0.5)
    assert not is_alive(process)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_supervisor_however_it_ends(
    end: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, tmp_path, FAMILY],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as supervising:
        assert supervising.stdout is not None
        leader = int(supervising.stdout.readline())
        wait_for("the child is ready", lambda: "ready" in (tmp_path / "family.log").read_text())
        members = session_members({leader})
        assert len(members) == 2
        supervising.send_signal(end)
        wait_for("the session has ended", lambda: not any(map(is_alive, members)))
