"""The fuzz target itself: a short run finds nothing, and what is broken is found and cut down."""

from __future__ import annotations

from datetime import datetime

import pytest

from include.providers import ticktock
from tests.fuzz import run


def test_spoiled_pages_are_read_as_by_the_second_reading() -> None:
    assert run(seconds=5.0, seed=20261121) == []


def test_a_broken_reader_is_found_with_a_small_input_and_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_text(entry_id: str, created_at: datetime | None) -> str:
        return entry_id

    monkeypatch.setattr(ticktock, "order_of", as_text)
    found = run(seconds=2.0, seed=7)
    assert any("provider_order sorts entries differently" in sentence for sentence in found)
    assert all("; seed 7, input " in sentence and len(sentence) < 1000 for sentence in found)


def test_what_is_not_documented_to_be_raised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticktock, "UNREADABLE", ())
    sentences = " ".join(run(seconds=2.0, seed=7))
    assert "read_page raises DecodeError" in sentences
