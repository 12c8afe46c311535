"""What a failed task's log ends with: the error's own words, on lines that fit."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from include.orchestration.telling import tell_failure
from include.providers.errors import Fatal

WORDS = " ".join(["Check the password of the Airflow connection `ticktock`."] * 5)


def last_lines(caplog: pytest.LogCaptureFixture, error: BaseException | str | None) -> list[str]:
    context: Any = {"exception": error}
    with caplog.at_level(logging.INFO):
        tell_failure(context)
    return [record.getMessage() for record in caplog.records]


def test_it_says_what_the_error_says_outside_of_the_folded_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end_of_fold, message = last_lines(caplog, Fatal("ticktock", "It refused.", WORDS))
    assert end_of_fold == "::endgroup::"
    assert message.replace("\n", " ") == f"ticktock: It refused. {WORDS}"
    assert max(map(len, message.splitlines())) <= 90


def test_what_is_not_ours_gives_its_first_line_and_the_runbook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = IntegrityError("INSERT …", {}, Exception("duplicate key\nDETAIL: private-player"))
    message = last_lines(caplog, error)[-1].replace("\n", " ")
    assert "IntegrityError" in message
    assert "private-player" not in message
    assert "is kept" in message
    assert "runbook" in message


def test_without_an_error_there_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    assert last_lines(caplog, None) == []
