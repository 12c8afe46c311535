"""The set-up's first step: finding a Python that runs, or saying in one line what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.ordinary_user import PROJECT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with nothing to install, in a path with a space."""
    project = tmp_path / "a space"
    project.mkdir()
    shutil.copy(PROJECT / "Makefile", project)
    for name in ("requirements-dev.txt", "requirements-installer.txt"):
        (project / name).touch()
    return project


def make(project: Path, tools: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("make") or "make", *arguments],
        cwd=project,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tools_with(folder: Path, **scripts: str) -> Path:
    """A folder for PATH with the shell's usual tools, and `scripts` instead of any Python."""
    folder.mkdir()
    for name in ("sh", "touch", "echo", "rm", "find", "awk"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in scripts.items():
        script = folder / name.replace("_", ".")
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    return folder


def test_without_python_one_line_says_what_is_missing(project: Path, tmp_path: Path) -> None:
    tools = tools_with(tmp_path / "tools", python3="exit 127")
    done = make(project, tools, "test")
    assert done.returncode != 0
    missing = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(missing) == 1
    assert missing[0].startswith("Missing: Python 3.11 or newer")


def test_a_python_that_was_named_but_does_not_run_is_not_replaced(
    project: Path, tmp_path: Path
) -> None:
    tools = tools_with(tmp_path / "tools", python3=f'exec "{sys.executable}" "$@"')
    done = make(project, tools, "test", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert "Missing: Python" in done.stderr
    assert not (project / ".venv").exists()


def test_a_name_on_the_path_that_only_fails_is_passed_over(project: Path, tmp_path: Path) -> None:
    tools = tools_with(
        tmp_path / "tools",
        python3_13="echo no such version >&2; exit 127",
        python3=f'exec "{sys.executable}" "$@"',
    )
    make(project, tools, ".venv/installed")
    assert (project / ".venv" / "bin" / "python").exists()


def test_help_names_every_command(project: Path, tmp_path: Path) -> None:
    done = make(project, tools_with(tmp_path / "tools"))
    named = " ".join(line.split()[1] for line in done.stdout.splitlines())
    assert named == "help demo up env test check bench latency chaos dictionary lock clean"
