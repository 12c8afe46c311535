"""The sandbox as a process: ready when it says so, quiet, and gone when told to go."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import pytest

from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox
from tests.sandbox.process import STOP_DEADLINE_SECONDS, start_sandbox, wait_until_ready


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_quietly(
    tmp_path: Path, http: httpx.Client, signal_number: int
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    process = start_sandbox(folder)
    with Sandbox(wait_until_ready(process, folder)) as sandbox:
        sandbox.fault("alerts", "reset_before_answer")
        with pytest.raises(httpx.ReadError):
            http.post(sandbox.alerts_url, json={})
        assert sandbox.calls()["total"] == 1
        # The client still holds its connection: that must not keep the process.
        process.send_signal(signal_number)
        assert process.wait(STOP_DEADLINE_SECONDS) == 0
    assert (folder / "output").read_text() == ""
    assert not (folder / "ready").exists()


def test_it_stops_in_the_middle_of_a_long_ledger(tmp_path: Path, http: httpx.Client) -> None:
    process = start_sandbox(tmp_path)
    with Sandbox(wait_until_ready(process, tmp_path)) as sandbox:
        sandbox.configure("ticktock", visible_entries=10_000_000)
        with pytest.raises(httpx.ReadTimeout):
            http.get(f"{sandbox.base_url}/sandbox/ledger/ticktock", timeout=0.3)
        # It goes on serving meanwhile.
        assert sandbox.faults() == []
        process.terminate()
        assert process.wait(STOP_DEADLINE_SECONDS) == 0


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_sandbox(tmp_path, "--port", str(port))
        assert process.wait(STOP_DEADLINE_SECONDS * 3) == 1
    output = (tmp_path / "output").read_text()
    assert output.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in output
    assert "Choose another --port" in output


def test_two_processes_with_one_seed_serve_the_same_bytes(
    tmp_path: Path, http: httpx.Client
) -> None:
    pages = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        process = start_sandbox(folder, "--seed", "42")
        with Sandbox(wait_until_ready(process, folder)) as sandbox:
            url = f"{sandbox.ticktock_url}/settlements?limit=200"
            pages.append(http.get(url, headers={"X-API-Key": TICKTOCK_KEY}).content)
        process.terminate()
        assert process.wait(STOP_DEADLINE_SECONDS) == 0
    assert pages[0] == pages[1]
