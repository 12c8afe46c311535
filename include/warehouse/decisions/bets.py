"""Bets that are asked for: answers that cannot be read, a list that does not add up, ids that are
unknown.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text, update

from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused, as_json
from include.warehouse.decisions.feeds import (
    ask_again,
    move_cursor,
    open_feed,
    stopped_cursor,
)
from include.warehouse.landing import Gap, open_gap_finding
from include.warehouse.tables import bet, cursor, gap


def _skip_answer(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    if "tote_ids" not in asked.detail:
        return _skip_window(connection, asked, answer)
    feed = stopped_cursor(connection, asked)
    change = open_feed(connection, feed)
    tote_ids = asked.detail["tote_ids"]
    these = bet.c.tote_id.in_(tote_ids)
    if len(tote_ids) > 1:
        due = {"is_asked_alone": True, "next_ask_at": func.now()}
        connection.execute(update(bet).where(these, bet.c.state != "done").values(**due))
        return change._replace(after={**change.after, "asked_alone": tote_ids})
    later = {"is_asked_alone": True, "next_ask_at": text("now() + interval '1 day'")}
    connection.execute(update(bet).where(these, bet.c.state != "done").values(**later))
    [tote_id] = tote_ids
    reason = (
        f"an answer about this bet alone could not be decoded and was skipped by a decision on "
        f"finding {asked.finding_id}; it is asked for again after a day."
    )
    lacking = Gap(tote_id, tote_id, reason, subjects=(tote_id,))
    return change._replace(
        after={**change.after, "gap": _record(connection, asked, lacking, feed.feed)}
    )


def _skip_window(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Have the list go on behind a window; what was not listed in it becomes a gap."""
    if asked.kind == "listing_incomplete":
        feed = _listed_feed(connection, asked)
    else:
        feed = stopped_cursor(connection, asked)
    until = asked.detail["until"]
    position = {name: told for name, told in feed.position.items() if name != "window"}
    listed_until = position.get("listed_until")
    if listed_until is not None and _at(until) <= _at(listed_until):
        if asked.kind == "undecodable_answer":
            # What a gap lacks was listed again in vain: it stays one.
            return move_cursor(connection, feed, position)
        raise DecisionRefused(
            f"Bets are listed up to {listed_until} already.", "Nothing is left to decide about it."
        )
    reason = (
        f"the list of the bets that were made then was skipped by a decision on finding "
        f"{asked.finding_id}; those that were not listed, nor entered otherwise, are not known."
    )
    lacking = Gap(asked.detail["since"], until, reason)
    recorded = {"gap": _record(connection, asked, lacking, feed.feed)}
    return move_cursor(connection, feed, {**position, "listed_until": until}, recorded)


def ask_gap_again(connection: Connection, lacking: dict[str, Any], feed: Row[Any]) -> Change:
    """Have the next run ask for what a gap lacks: a bet, or a window of the list."""
    this = gap.c.gap_id == lacking["gap_id"]
    connection.execute(update(gap).where(this).values(tried_at=func.now()))
    after = as_json(connection, gap, this)
    if lacking["subjects"]:
        due = bet.c.tote_id.in_(lacking["subjects"]), bet.c.state != "done"
        connection.execute(update(bet).where(*due).values(next_ask_at=func.now()))
        return Change({"gap": lacking}, {"gap": after})
    window = {
        "since": lacking["range_after"],
        "until": lacking["range_before"],
        "after": None,
        "counted": 0,
        "stakes": None,
    }
    return move_cursor(connection, feed, {**feed.position, "window": window}, {"gap": after})


def _give_up(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    given_up = connection.execute(
        update(bet)
        .where(bet.c.absent_since.is_not(None), bet.c.answered_at.is_(None), bet.c.state != "done")
        .values(state="done", next_ask_at=None)
        .returning(bet.c.tote_id)
    )
    tote_ids = sorted(given_up.scalars())
    return Change({}, {"bets": len(tote_ids), "examples": tote_ids[:10]})


def _listed_feed(connection: Connection, asked: Row[Any]) -> Row[Any]:
    feed = connection.execute(
        select(cursor)
        .where(cursor.c.source == asked.source, cursor.c.feed == asked.subject)
        .with_for_update()
    ).one()
    if feed.stopped_by_finding_id is not None:
        raise DecisionRefused(
            f"The feed is stopped by finding {feed.stopped_by_finding_id}.",
            "Decide on that finding first.",
        )
    return feed


def _record(connection: Connection, asked: Row[Any], lacking: Gap, feed: str) -> dict[str, Any]:
    gap_id = connection.execute(
        insert(gap)
        .values(
            source=asked.source,
            feed=feed,
            range_after=lacking.range_after,
            range_before=lacking.range_before,
            reason=lacking.reason,
            subjects=list(lacking.subjects),
            # It was: that is how it came about.
            tried_at=func.now(),
        )
        .returning(gap.c.gap_id)
    ).scalar_one()
    open_gap_finding(connection, asked.source, feed, gap_id, lacking)
    return as_json(connection, gap, gap.c.gap_id == gap_id)


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


DECISIONS: dict[tuple[str, str], Decide] = {
    ("undecodable_answer", "try_again"): ask_again,
    ("undecodable_answer", "skip_page"): _skip_answer,
    ("listing_incomplete", "skip_window"): _skip_window,
    ("bets_absent", "give_up"): _give_up,
}
