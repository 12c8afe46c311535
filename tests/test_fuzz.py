"""The fuzz target itself: a short run finds nothing, and what is broken is found and cut down."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def test_a_reader_that_is_slow_each_time_is_found_and_one_slow_moment_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_page, readings = ticktock.read_page, 0

    def is_slow_once() -> bool:
        return readings == 3

    def is_slow_each_time() -> bool:
        return readings >= 3

    def slow_when(is_slow: Callable[[], bool]) -> Callable[[bytes], ticktock.Page]:
        def read(body: bytes) -> ticktock.Page:
            nonlocal readings
            readings += 1
            ends_at = time.thread_time() + 0.4
            while is_slow() and time.thread_time() < ends_at:
                pass
            return read_page(body)

        return read

    monkeypatch.setattr(ticktock, "read_page", slow_when(is_slow_once))
    assert run(seconds=2.0, seed=7) == []
    assert readings > 3
    readings = 0
    monkeypatch.setattr(ticktock, "read_page", slow_when(is_slow_each_time))
    assert any("read_page takes too long" in sentence for sentence in run(seconds=2.0, seed=7))
