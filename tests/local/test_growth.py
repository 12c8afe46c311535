"""A sandbox that goes on while `make up` runs, and tells the same after a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from include.local.growth import SteadyFeed
from include.sandbox.client import Sandbox
from tests.sandboxes import odds88_messages


def test_the_feed_tells_the_same_after_a_restart_and_what_was_settled_meanwhile(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    began_at = tmp_path / "began_at"
    SteadyFeed(sandbox, began_at).show()
    before = odds88_messages(sandbox)
    # What a restarted sandbox is like; a minute has passed.
    sandbox.reset()
    earlier = datetime.fromisoformat(began_at.read_text(encoding="utf-8")) - timedelta(minutes=1)
    assert odds88_messages(sandbox)[: len(before)] != before
    SteadyFeed(sandbox, began_at).show()
    again = odds88_messages(sandbox)
    assert again[: len(before)] == before

    began_at.write_text(earlier.isoformat(), encoding="utf-8")
    SteadyFeed(sandbox, began_at).show()
    assert 11 <= len(odds88_messages(sandbox)) - len(before) <= 14


def test_the_feed_has_come_to_the_present_and_goes_on_with_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    began_at = tmp_path / "began_at"
    began_at.write_text((datetime.now(UTC) - timedelta(hours=1)).isoformat(), encoding="utf-8")
    feed = SteadyFeed(sandbox, began_at)
    feed.show()
    shown = sandbox.configure("odds88")
    assert shown["messages"] == 3600 / 5
    behind = datetime.now(UTC) - datetime.fromisoformat(shown["clock_stopped_at"])
    assert timedelta(0) <= behind < timedelta(seconds=30)
    feed.show()
    assert sandbox.configure("odds88")["messages"] - shown["messages"] <= 6
