"""Watching: what went quiet or got stuck becomes a finding, which closes itself once it moves.

Nothing here depends on a feed's own runs: one that is paused, or never ran, is late all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, text
from sqlalchemy.dialects.postgresql import insert

from include.catchup import bet_register
from include.catchup.confirming import unconfirmed
from include.catchup.position import WIDEST, Position
from include.settings import Settings
from include.warehouse import markets
from include.warehouse.database import transaction
from include.warehouse.findings import Finding, close_finding, open_finding
from include.warehouse.landing import Gap, open_gap_finding
from include.warehouse.tables import cursor as cursor_table
from include.warehouse.tables import finding as finding_table

# A stream tells again what it told in the last three days; an hour of them is left to the clocks.
_TOLD_AGAIN = timedelta(hours=71)
# What closes by itself here.
_KINDS = (
    *("feed_late", "window_closing", "stream_unfinished", "batch_stuck"),
    *("hints_unconfirmed", "bets_absent", "bets_open_long"),
)

_WHY_UNFINISHED = (
    "How each ended is in ops.connect_attempt. `bound`: it is too long for one session; raise "
    "SETTLEMENTS_LAND_TIME_LIMIT_SECONDS or SETTLEMENTS_LAND_BYTES_LIMIT. Anything else: its "
    "connections do not hold; the logs of the task `land` say why."
)
_EVER = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Watched:
    """The findings that one watch opened, and those that it closed because their cause went."""

    opened: list[int]
    closed: list[int]


@dataclass(frozen=True)
class _Cause:
    """Something that is wrong now, and since when: once acknowledged, it is not told again."""

    finding: Finding
    since: datetime


def watch(engine: Engine, feeds: Sequence[tuple[str, str]], settings: Settings) -> Watched:
    """Look at every feed (source, feed), unfinished batch and open gap as they stand now."""
    warning = timedelta(hours=settings.odds88_window_warning_hours)
    with transaction(engine, "loader") as connection:
        causes = [
            *_late_feeds(connection, feeds, timedelta(seconds=settings.feed_late_seconds)),
            *_closing_windows(connection, feeds, warning),
            *_unfinished_streams(connection, feeds),
            *_stuck_batches(connection, timedelta(seconds=settings.batch_stuck_seconds)),
            *_unconfirmed_hints(connection, settings),
            *_odd_bets(connection, settings),
        ]
        known = _open_findings(connection)
        opened = [
            open_finding(connection, cause.finding)
            for cause in causes
            if _names(cause.finding) in known or not _is_acknowledged(connection, cause)
        ]
        current = {_names(cause.finding) for cause in causes}
        closed = [finding_id for names, finding_id in known.items() if names not in current]
        for finding_id in closed:
            close_finding(connection, finding_id, "system")
        opened += _open_gaps(connection, timedelta(seconds=2 * settings.overlap_seconds))
    return Watched(opened=sorted(set(opened) - set(known.values())), closed=sorted(closed))


def _late_feeds(
    connection: Connection, feeds: Sequence[tuple[str, str]], limit: timedelta
) -> Iterator[_Cause]:
    for source, feed in feeds:
        completed_at, since, late_for = _last_complete(connection, source, feed)
        if late_for <= limit:
            continue
        told = f"since {completed_at:%Y-%m-%d %H:%M} UTC" if completed_at else "ever"
        yield _Cause(
            Finding(
                kind="feed_late",
                source=source,
                subject=feed,
                summary=f"{source} {feed} has not been read to its end {told}: settlements after "
                "that are missing. Look at the DAG "
                f"catch_up_{source}: is it paused, failing, or stopped by another finding?",
                kept="What had arrived is kept. This finding closes itself when the feed has been "
                "read to its end.",
                detail={"completed_at": completed_at and completed_at.isoformat()},
            ),
            since,
        )


def _last_complete(
    connection: Connection, source: str, feed: str
) -> tuple[datetime | None, datetime, timedelta]:
    """When the feed was last complete, from when its lateness counts, and how late it is.

    A feed that was never complete counts from its first batch, and one that never ran from the
    first time that it was looked for, which is noted as its cursor at the empty position.
    """
    this = {"source": source, "feed": feed}
    connection.execute(insert(cursor_table).values(**this, position={}).on_conflict_do_nothing())
    row = connection.execute(
        text(
            "SELECT completed_at, since, now() - since FROM ("
            " SELECT completed_at, coalesce(completed_at,"
            " (SELECT min(opened_at) FROM ops.batch"
            " WHERE batch.source = cursor.source AND batch.feed = cursor.feed), moved_at) AS since"
            " FROM ops.cursor WHERE source = :source AND feed = :feed) AS feed"
        ),
        this,
    ).one()
    return row[0], row[1], row[2]


def _closing_windows(
    connection: Connection, feeds: Sequence[tuple[str, str]], warning: timedelta
) -> Iterator[_Cause]:
    """Streams that have not been read on for so long that what was not told will be forgotten."""
    rows = connection.execute(
        text(
            "SELECT *, now() - read_to AS behind FROM ("
            " SELECT source, feed, greatest("
            "  CAST(position ->> 'caught_up_began_at' AS timestamptz),"
            "  CAST(position ->> 'resume_at' AS timestamptz)) AS read_to"
            " FROM ops.cursor) AS stream WHERE now() - read_to > :warning ORDER BY source, feed"
        ),
        {"warning": warning},
    )
    for row in rows:
        if (row.source, row.feed) in feeds:
            yield _closing(row, row.read_to + _TOLD_AGAIN, _TOLD_AGAIN - row.behind)


def _closing(row: Row[Any], closes_at: datetime, left: timedelta) -> _Cause:
    """That a window closes, or, which is told once more, that it has closed."""
    has_closed = left <= timedelta(0)
    if has_closed:
        told = (
            f"Since {closes_at:%Y-%m-%d %H:%M} UTC settlements are being lost, more with every "
            f"hour. Have the DAG catch_up_{row.source} read on; what is lost becomes a gap, which"
        )
    else:
        told = (
            f"The DAG catch_up_{row.source} has {left // timedelta(hours=1)} h left, until "
            f"{closes_at:%Y-%m-%d %H:%M} UTC, to read on; what is lost afterwards"
        )
    finding = Finding(
        kind="window_closing",
        source=row.source,
        subject=row.feed,
        summary=f"{row.source} {row.feed} has been read up to {row.read_to:%Y-%m-%d %H:%M} UTC, "
        f"and {row.source} tells again no more than the last 3 days. {told} only a raw file of its "
        "messages brings back (the DAG import_files).",
        kept="What had arrived is kept. This finding closes itself when the stream is read on.",
        detail={"read_to": row.read_to.isoformat(), "closes_at": closes_at.isoformat()},
    )
    return _Cause(finding, closes_at if has_closed else row.read_to)


def _unfinished_streams(
    connection: Connection, feeds: Sequence[tuple[str, str]]
) -> Iterator[_Cause]:
    """Streams of which even the widest sessions do not read what they are to read."""
    for row in connection.execute(select(cursor_table).order_by(cursor_table.c.source)):
        position = Position.from_json(row.position)
        if (row.source, row.feed) not in feeds:
            continue
        if position.is_stuck:
            yield _Cause(_unread(row, position.cut_short), position.caught_up_began_at or _EVER)
        elif position.lacks_audit:
            yield _Cause(_unaudited(row, position), position.audited_at or _EVER)


def _unread(row: Row[Any], sessions: int) -> Finding:
    return Finding(
        kind="stream_unfinished",
        source=row.source,
        subject=row.feed,
        summary=f"{row.source} {row.feed} is not read on: {sessions} sessions in succession ended "
        "before its end, were not told in order, and so began at the same place, the last of them "
        f"with bounds {WIDEST} times as wide. {_WHY_UNFINISHED}",
        kept="What had arrived is kept and goes on. Every run tries again; this finding closes "
        "itself when the stream has been read to its end.",
        detail={"cut_short": sessions},
    )


def _unaudited(row: Row[Any], position: Position) -> Finding:
    audited_at = position.audited_at
    given_up_at = position.audit_tried_at or position.audit_given_up_at
    last = f"The last that was began at {audited_at:%Y-%m-%d %H:%M} UTC" if audited_at else "None"
    return Finding(
        kind="stream_unfinished",
        source=row.source,
        subject=f"{row.feed} audit",
        summary=f"The audit of {row.source} {row.feed} that began at {given_up_at:%Y-%m-%d %H:%M} "
        f"UTC was not read to its end, and is given up until the next is due. {last}"
        f"{'' if audited_at else ' ever was'}: what {row.source} told late since may be missing, "
        f"and after 3 days it is told no more. {_WHY_UNFINISHED}",
        kept="What had arrived is kept, and what is new goes on. This finding closes itself when "
        "an audit has been read to its end.",
        detail={
            "audited_at": audited_at and audited_at.isoformat(),
            "given_up_at": given_up_at and given_up_at.isoformat(),
        },
    )


def _stuck_batches(connection: Connection, limit: timedelta) -> Iterator[_Cause]:
    """Unfinished batches that neither a step nor a decision has moved for longer than `limit`."""
    rows = connection.execute(
        text(
            "SELECT * FROM ("
            " SELECT batch_id, source, feed, state, greatest(opened_at, landed_at,"
            " raw_checked_at, normalized_at, settlements_checked_at, (SELECT max(decided_at)"
            " FROM ops.decision JOIN ops.finding USING (finding_id)"
            " WHERE finding.batch_id = batch.batch_id AND kind = 'batch_held')) AS moved_at"
            " FROM ops.batch WHERE state IN ('landing', 'landed', 'normalized')"
            ") AS unfinished WHERE now() - moved_at > :limit ORDER BY batch_id"
        ),
        {"limit": limit},
    )
    for row in rows:
        yield _Cause(_stuck(row), row.moved_at)


def _stuck(row: Row[Any]) -> Finding:
    dag_id = "settle_markets" if row.source == markets.SOURCE else f"catch_up_{row.source}"
    return Finding(
        kind="batch_stuck",
        source=row.source,
        subject=f"batch {row.batch_id}",
        summary=f"Batch {row.batch_id} of {row.source} {row.feed} has been {row.state} since "
        f"{row.moved_at:%Y-%m-%d %H:%M} UTC. Look at the last failed task of the DAG {dag_id}; "
        "its next run that succeeds finishes the batch.",
        kept="Everything that arrived is kept. This finding closes itself when the batch is "
        "published or held.",
        detail={"state": row.state, "since": row.moved_at.isoformat()},
        batch_id=row.batch_id,
    )


def _unconfirmed_hints(connection: Connection, settings: Settings) -> Iterator[_Cause]:
    if (told := unconfirmed(connection, settings)) is not None:
        yield _Cause(*told)


def _odd_bets(connection: Connection, settings: Settings) -> Iterator[_Cause]:
    for told in (bet_register.absent(connection), bet_register.open_long(connection, settings)):
        if told is not None:
            yield _Cause(*told)


def _open_gaps(connection: Connection, patience: timedelta) -> list[int]:
    """Ask again about gaps that nobody is asked about and that are not being read again."""
    rows = connection.execute(
        text(
            "SELECT * FROM ops.gap WHERE state = 'open' AND NOT EXISTS ("
            " SELECT FROM ops.finding WHERE kind = 'gap' AND finding.state = 'open'"
            " AND finding.source = gap.source AND detail -> 'gap_id' = to_jsonb(gap_id))"
            " AND (tried_at IS NOT NULL OR subjects = '{}')"
            " AND (tried_at IS NULL OR now() - tried_at > :patience) ORDER BY gap_id"
        ),
        {"patience": patience},
    )
    return [
        open_gap_finding(
            connection,
            row.source,
            row.feed,
            row.gap_id,
            Gap(row.range_after, row.range_before, _told_again(row), tuple(row.subjects)),
        )
        for row in rows.all()
    ]


def _told_again(gap: Row[Any]) -> str:
    if gap.tried_at is None:
        return str(gap.reason)
    return (
        f"{gap.reason} It was asked for again at {gap.tried_at:%Y-%m-%d %H:%M} UTC; if what was "
        "missing has arrived, accept the gap."
    )


def _open_findings(connection: Connection) -> dict[tuple[str, str, str], int]:
    rows = connection.execute(
        select(
            finding_table.c.kind,
            finding_table.c.source,
            finding_table.c.subject,
            finding_table.c.finding_id,
        ).where(
            finding_table.c.kind.in_(_KINDS),
            finding_table.c.state == "open",
        )
    )
    return {(kind, source, subject): finding_id for kind, source, subject, finding_id in rows}


def _names(finding: Finding) -> tuple[str, str, str]:
    return finding.kind, finding.source, finding.subject


def _is_acknowledged(connection: Connection, cause: _Cause) -> bool:
    """Whether a person has seen this very episode: a finding opened since it began, and decided."""
    return bool(
        connection.execute(
            select(func.count())
            .select_from(finding_table)
            .where(
                finding_table.c.kind == cause.finding.kind,
                finding_table.c.source == cause.finding.source,
                finding_table.c.subject == cause.finding.subject,
                finding_table.c.closed_by == "decision",
                finding_table.c.opened_at > cause.since,
            )
        ).scalar_one()
    )
