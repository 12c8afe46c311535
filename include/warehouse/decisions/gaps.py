"""A range that is known to be missing: ask for it again, or accept it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from include.warehouse.cursors import is_behind
from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused, as_json
from include.warehouse.decisions.bets import ask_gap_again
from include.warehouse.decisions.feeds import check_entry, is_log_of_events, move_cursor
from include.warehouse.tables import cursor, gap


def _accept_gap(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    this, before = _open_gap(connection, asked)
    connection.execute(update(gap).where(this).values(state="accepted", closed_at=func.now()))
    return Change(before, as_json(connection, gap, this))


def _ask_gap_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Have the next run ask for the range again; if it stays open, `watch_feeds` asks anew."""
    this, before = _open_gap(connection, asked)
    start = answer.text("continue_from")
    stands_at = connection.scalar(
        select(cursor.c.position).where(
            cursor.c.source == before["source"], cursor.c.feed == before["feed"]
        )
    )
    if "listed_until" in (stands_at or {}):
        return ask_gap_again(connection, before, _lock_feed(connection, before))
    if not before["subjects"] and "since_id" not in (stands_at or {}):
        raise DecisionRefused(
            f"{before['source']} does not tell again what gap {before['gap_id']} lacks.",
            "Ask it for a file of the messages and import that with the DAG import_files, then "
            "decide accept_gap.",
        )
    if start is None:
        if not before["subjects"]:
            raise DecisionRefused(
                f"Gap {before['gap_id']} has no subjects that could be asked for one by one.",
                "Give in `continue_from` the entry after which every page is to be read again.",
            )
        connection.execute(update(gap).where(this).values(tried_at=None))
        return Change(before, as_json(connection, gap, this))
    connection.execute(update(gap).where(this).values(tried_at=func.now()))
    moved = _lock_feed(connection, before)
    check_entry(moved, start)
    change = move_cursor(connection, moved, _position_to_read_again(moved, start))
    return Change(
        {**change.before, "gap": before},
        {**change.after, "gap": as_json(connection, gap, this)},
    )


def _lock_feed(connection: Connection, lacking: dict[str, Any]) -> Row[Any]:
    """The feed that has the gap, which another finding may not have stopped."""
    feed = connection.execute(
        select(cursor)
        .where(cursor.c.source == lacking["source"], cursor.c.feed == lacking["feed"])
        .with_for_update()
    ).one()
    if feed.stopped_by_finding_id is not None:
        raise DecisionRefused(
            f"The feed is stopped by finding {feed.stopped_by_finding_id}.",
            "Decide on that finding first.",
        )
    return feed


def _position_to_read_again(feed: Row[Any], start: str) -> dict[str, Any]:
    """The second reading goes back to `start` and reads on to the present head; events have none,
    and are read anew.

    It reads to an anchor once that is old enough.  Where it had caught up, all that is there has
    been seen long enough and it may go at once; else the anchors that are waiting keep their time,
    so that what became visible late is not missed.
    """
    position: dict[str, Any] = feed.position
    head = position.get("since_id")
    if head is None or start == head or is_behind(head, start):
        raise DecisionRefused(
            f"The feed has not been read beyond entry {start} yet: it stands at {head or 'none'}.",
            "Give in `continue_from` an entry before the gap.",
        )
    if is_log_of_events(feed):
        return {**position, "since_id": start}
    reread = position.get("reread_since_id")
    anchors = position.get("anchors", [])
    if not anchors:
        is_caught_up = reread == head
        seen_at = datetime.fromtimestamp(0, UTC) if is_caught_up else datetime.now(UTC)
        anchors = [{"entry_id": head, "seen_at": seen_at.isoformat()}]
    is_ahead = reread is not None and is_behind(reread, start)
    return {**position, "reread_since_id": reread if is_ahead else start, "anchors": anchors}


def _open_gap(connection: Connection, asked: Row[Any]) -> tuple[Any, dict[str, Any]]:
    this = gap.c.gap_id == asked.detail["gap_id"]
    connection.execute(select(gap.c.gap_id).where(this).with_for_update())
    before = as_json(connection, gap, this)
    if before["state"] != "open":
        raise DecisionRefused(
            f"Gap {before['gap_id']} is not open any more: it is {before['state']}.",
            "Nothing is left to decide about it.",
        )
    return this, before


DECISIONS: dict[tuple[str, str], Decide] = {
    ("gap", "accept_gap"): _accept_gap,
    ("gap", "try_again"): _ask_gap_again,
}
