"""The commands of `make`: what they print can be used as the README says."""

from __future__ import annotations

import subprocess

import pytest

from include.local import __main__ as commands


def test_a_shell_that_takes_over_the_environment_finds_psql_and_the_warehouse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://postgres:it's a secret@127.0.0.1/warehouse"
    monkeypatch.setattr(commands, "saved_environment", lambda: {"WAREHOUSE_URL": url})
    commands.env()
    script = 'eval "$1"; psql --version; echo "$WAREHOUSE_URL"'
    done = subprocess.run(
        ["/bin/sh", "-ec", script, "sh", capsys.readouterr().out],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    version, told = done.stdout.splitlines()
    assert version.startswith("psql (PostgreSQL)")
    assert told == url
