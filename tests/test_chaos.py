"""What `make chaos` is told: which pipelines are killed, and whether anything else is done."""

from __future__ import annotations

import pytest

from tests.chaos import main


def chaos(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["chaos", "--seed", "7", *arguments])
    return main()


def test_only_what_is_chosen_is_killed_and_nothing_else_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chaos(monkeypatch, "--only", "resend", "odds88", "--kills", "0") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Killing odds88, resend 0 times, seed 7",
        "0 kills at 0 points in 0 s, seed 7: 0 violations",
    ]


def test_without_a_choice_every_pipeline_is_killed_and_fuzzed_and_signed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chaos(monkeypatch, "--kills", "0", "--fuzz-seconds", "0.01", "--payloads", "1") == 0
    told = capsys.readouterr().out
    assert "Killing ticktock, odds88, tote, resend, markets 0 times" in told
    assert "Fuzzing found 0 failures" in told
    assert "JavaScript disagreed about 0 of them" in told


def test_each_pipeline_has_a_number_of_kills_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.chaos.kill", lambda *_: [])
    assert chaos(monkeypatch, "--only", "markets", "tote", "resend", "odds88", "ticktock") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Killing ticktock 1000 times, seed 7",
        "Killing odds88 2000 times, seed 7",
        "Killing tote 1000 times, seed 7",
        "Killing resend 5000 times, seed 7",
        "Killing markets 2000 times, seed 7",
    ]


def test_what_can_be_chosen_is_told_to_whoever_chooses_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        chaos(monkeypatch, "--only", "dragons")
    assert refused.value.code == 2
    told = capsys.readouterr().err
    for name in ("dragons", "ticktock", "odds88", "tote", "resend", "markets", "fuzz", "signing"):
        assert name in told
