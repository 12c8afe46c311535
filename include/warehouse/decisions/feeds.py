"""A feed that a page or a refused cursor has stopped: ask again, or go on elsewhere."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from include.warehouse.cursors import is_behind
from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused, as_json
from include.warehouse.landing import Gap, open_gap_finding
from include.warehouse.markets import SOURCE
from include.warehouse.tables import cursor, gap, page

_ID = re.compile(rb'"id"\s*:\s*(?:"([^"\\]+)"|(\d+))')
# A number that the page ends in may have gone on.
_SEQUENCE = re.compile(rb'"sequence"\s*:\s*(?:"(\d+)"|(\d+)\s*[,}])')
_SEQUENCE_DIGITS = 18


def ask_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Have the feed that `asked` stops go on where it stands."""
    return open_feed(connection, stopped_cursor(connection, asked))


def open_feed(connection: Connection, stopped: Row[Any]) -> Change:
    """Have a stopped feed go on where it stands."""
    before = as_json(connection, cursor, _is_cursor(stopped))
    connection.execute(update(cursor).where(_is_cursor(stopped)).values(stopped_by_finding_id=None))
    return Change(before, as_json(connection, cursor, _is_cursor(stopped)))


def _skip_page(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    stopped = stopped_cursor(connection, asked)
    asked_after = asked.detail["since_id"]
    named = answer.text("continue_from")
    if named is None and asked.detail.get("is_leap"):
        raise DecisionRefused(
            "To go on after the page's last entry would hide all that comes before that one.",
            "Give in `continue_from` the id of the last entry before the leap.",
        )
    target = named or _last_readable_id(connection, asked, stopped)
    check_entry(stopped, target)
    if asked_after is not None and (target == asked_after or is_behind(target, asked_after)):
        raise DecisionRefused(
            f"Entry {target} is not behind the page, which begins after entry {asked_after}.",
            "Give in `continue_from` the id of the entry after which reading is to go on.",
        )
    return _go_on_after(
        connection,
        stopped,
        asked_after,
        target,
        f"the page after entry {asked_after or 'none'} could not be decoded and was skipped by a "
        f"decision on finding {asked.finding_id}; it may have held entries up to and including the "
        "last one named.",
    )


def _go_on_after_another(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    stopped = stopped_cursor(connection, asked)
    refused = asked.detail["since_id"]
    target = answer.text("continue_from")
    if target is None or target == refused:
        raise DecisionRefused(
            f"{'No entry' if target is None else f'Entry {target}'} was named to go on after; the "
            f"provider refuses to read on after {refused}.",
            "Give in `continue_from` the id of another entry that the provider still knows.",
        )
    head = stopped.position.get("since_id")
    if refused != head and head is not None and is_behind(head, target):
        raise DecisionRefused(
            f"It is the second reading that is refused, and entry {target} lies ahead of the "
            f"first, which stands at {head}.",
            "Give in `continue_from` an entry between the two.",
        )
    return _go_on_after(
        connection,
        stopped,
        refused,
        target,
        f"the provider refused to read on after entry {refused}, and by a decision on finding "
        f"{asked.finding_id} reading went on after the last one named; up to and including that "
        "one, what had not been read before, or not a second time, may be missing.",
    )


def _go_on_after(
    connection: Connection, stopped: Row[Any], asked_after: str | None, target: str, reason: str
) -> Change:
    """Have the stopped feed go on after `target`; what is not read for that becomes a gap."""
    position = _position_after(stopped, asked_after, target)
    left_out = Gap(stopped.position.get("reread_since_id", asked_after), target, reason)
    if target == left_out.range_after or is_behind(target, left_out.range_after or ""):
        # It goes back: all from there on is read again, and nothing is left out.
        return move_cursor(connection, stopped, position)
    gap_id = connection.execute(
        insert(gap)
        .values(
            source=stopped.source,
            feed=stopped.feed,
            range_after=left_out.range_after,
            range_before=left_out.range_before,
            reason=left_out.reason,
        )
        .returning(gap.c.gap_id)
    ).scalar_one()
    open_gap_finding(connection, stopped.source, stopped.feed, gap_id, left_out)
    return move_cursor(
        connection, stopped, position, {"gap": as_json(connection, gap, gap.c.gap_id == gap_id)}
    )


def _position_after(stopped: Row[Any], asked_after: str | None, target: str) -> dict[str, Any]:
    """Where reading goes on.  The second reading would be stopped there as well, so it goes on
    after `target` too; what it did not read a second time is part of the gap.
    """
    position: dict[str, Any] = stopped.position
    if is_log_of_events(stopped) and asked_after == position.get("since_id"):
        return {**position, "since_id": target}
    if asked_after == position.get("since_id"):
        return {**position, "since_id": target, "reread_since_id": target, "anchors": []}
    if asked_after == position.get("reread_since_id"):
        anchors = _anchors_ahead(position.get("anchors", []), target)
        return {**position, "reread_since_id": target, "anchors": anchors}
    raise DecisionRefused(
        f"The feed does not stand there any more: it reads on after {position.get('since_id')}.",
        "Decide try_again.",
    )


def _anchors_ahead(anchors: list[dict[str, Any]], target: str) -> list[dict[str, Any]]:
    """The anchors that a second reading from `target` still comes to."""
    behind = [
        number
        for number, anchor in enumerate(anchors, start=1)
        if anchor["entry_id"] == target or is_behind(anchor["entry_id"], target)
    ]
    return anchors[max(behind, default=0) :]


def stopped_cursor(connection: Connection, asked: Row[Any]) -> Row[Any]:
    """The feed that waits for the finding, locked; raises `DecisionRefused` if none does."""
    stopped = connection.execute(
        select(cursor)
        .where(
            cursor.c.source == asked.source,
            cursor.c.stopped_by_finding_id == asked.finding_id,
        )
        .with_for_update()
    ).first()
    if stopped is None:
        raise DecisionRefused(
            f"No feed of {asked.source} waits for finding {asked.finding_id} any more.",
            "Look at the other open findings of the source: one of them stops the feed.",
        )
    return stopped


def is_log_of_events(feed: Row[Any]) -> bool:
    """Whether the feed is that of the engine's events, which goes on after an event's `sequence`
    and has no second reading.
    """
    return (feed.source, feed.feed) == (SOURCE, "events")


def check_entry(feed: Row[Any], entry: str) -> None:
    """Raise `DecisionRefused` if the feed cannot go on after what was named."""
    is_whole = entry.isascii() and entry.isdigit() and len(entry) <= _SEQUENCE_DIGITS
    if is_log_of_events(feed) and not is_whole:
        raise DecisionRefused(
            f"{entry!a:.100} is no `sequence` of an event, which is a whole number.",
            "Give in `continue_from` the sequence of the event after which reading is to go on.",
        )


def _is_cursor(stopped: Row[Any]) -> Any:
    return and_(cursor.c.source == stopped.source, cursor.c.feed == stopped.feed)


def move_cursor(
    connection: Connection,
    moved: Row[Any],
    position: dict[str, Any],
    also_after: dict[str, Any] | None = None,
) -> Change:
    """Move a cursor, so that a run which is landing meanwhile finds it moved and stops."""
    before = as_json(connection, cursor, _is_cursor(moved))
    connection.execute(
        update(cursor)
        .where(_is_cursor(moved))
        .values(
            position=position,
            revision=cursor.c.revision + 1,
            moved_at=func.now(),
            stopped_by_finding_id=None,
        )
    )
    after = as_json(connection, cursor, _is_cursor(moved))
    return Change(before, {**after, **(also_after or {})})


def _last_readable_id(connection: Connection, asked: Row[Any], stopped: Row[Any]) -> str:
    pattern, name = (_SEQUENCE, "sequence") if is_log_of_events(stopped) else (_ID, "id")
    body = connection.scalar(
        select(page.c.body).where(
            page.c.page_id == asked.detail["page_id"],
            page.c.received_at == datetime.fromisoformat(asked.detail["received_at"]),
        )
    )
    found = pattern.findall(bytes(body)) if body is not None else []
    if not found:
        raise DecisionRefused(
            f"No entry's {name} can be read in page {asked.detail['page_id']}.",
            f"Give in `continue_from` the {name} of the entry after which reading is to go on.",
        )
    quoted, number = found[-1]
    return str((quoted or number).decode("utf-8", "replace"))


DECISIONS: dict[tuple[str, str], Decide] = {
    ("undecodable_page", "try_again"): ask_again,
    ("undecodable_page", "skip_page"): _skip_page,
    ("cursor_refused", "try_again"): ask_again,
    ("cursor_refused", "move_cursor"): _go_on_after_another,
}
