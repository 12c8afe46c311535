"""A sandbox as a process of its own, for any test that needs one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.sandbox.client import Sandbox

PROJECT = Path(__file__).resolve().parents[2]
START_DEADLINE_SECONDS = 30.0
STOP_DEADLINE_SECONDS = 10.0


@contextmanager
def running_sandbox(folder: Path, *, seed: int = 1) -> Iterator[Sandbox]:
    """Starts a sandbox whose ready file and output lie in `folder`; it ends with the block."""
    process = start_sandbox(folder, "--seed", str(seed))
    try:
        with Sandbox(wait_until_ready(process, folder)) as sandbox:
            yield sandbox
    finally:
        process.terminate()
        process.wait(STOP_DEADLINE_SECONDS)


def start_sandbox(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The process, just started; its output is in `folder`/output."""
    command = [sys.executable, "-m", "include.sandbox", "--ready-file", str(folder / "ready")]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [*command, *arguments], cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT
        )


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The base URL, once it listens."""
    ready_file = folder / "ready"
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while not ready_file.exists():
        output = (folder / "output").read_text()
        assert process.poll() is None, f"the sandbox ended before it was ready:\n{output}"
        assert time.monotonic() < deadline, f"the sandbox is not ready:\n{output}"
        time.sleep(0.02)
    return ready_file.read_text().strip()
