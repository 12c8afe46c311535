"""Watching: markets, and their credits, that should have been gone on with, whether or not anything
ran to do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, text

from include.markets.events import EVENTS
from include.providers.prediction import EVENTS_KEPT_HOURS
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, close_finding, open_finding
from include.warehouse.markets import SOURCE
from include.warehouse.tables import finding as finding_table

KINDS = ("markets_unconfirmed", "markets_late", "events_closing", "credits_late")

_EXAMPLES = 10

_WAITING = text("""
SELECT count(*) AS markets, min(since) AS since,
    (array_agg(market_id ORDER BY since, market_id))[1:CAST(:examples AS integer)] AS examples
FROM (
    SELECT market_id, entered_at AS since FROM prediction.market
    WHERE :kind = 'markets_unconfirmed' AND state = 'entered'
    UNION ALL
    SELECT market_id, coalesce(troubled_since, next_look_at) FROM prediction.market
    WHERE :kind = 'markets_late' AND next_look_at IS NOT NULL
    UNION ALL
    SELECT market_id, state_since FROM prediction.market
    WHERE :kind = 'markets_late' AND (
        -- What does not add up is told by `check`; what is checked and held has been told.
        state = 'fetched'
        OR state = 'checked' AND NOT EXISTS (
            SELECT FROM ops.batch WHERE batch.batch_id = market.batch_id AND batch.state = 'held'
        )
    )
) AS waiting
WHERE now() - since > :patience
""")

# Held ones have a finding of their own, and those that were sent are the resend's.
_UNSENT = text("""
SELECT count(*) AS credits, min(since) AS since,
    (array_agg(transaction_id ORDER BY since, transaction_id))[1:CAST(:examples AS integer)]
        AS examples
FROM (
    -- `greatest` passes over what is NULL.
    SELECT transaction_id, greatest(entered_at, released_at) AS since
    FROM wallet.transaction
    WHERE transaction_id LIKE 'prediction:%' AND origin_source = 'prediction'
        AND disposition = 'open' AND hold_reason IS NULL AND NOT wallet.is_sent(transaction)
) AS waiting
WHERE now() - since > :patience
""")

_EVENTS_READ = text("""
SELECT CAST(position ->> 'read_at' AS timestamptz) AS read_at,
    now() - CAST(position ->> 'read_at' AS timestamptz) AS behind
FROM ops.cursor
WHERE source = :source AND feed = :feed AND position ? 'read_at'
""")


@dataclass(frozen=True)
class Watched:
    """The findings that one watch opened, and those that it closed because their cause went."""

    opened: list[int]
    closed: list[int]


def watch_markets(engine: Engine, settings: Settings) -> Watched:
    """Open findings about markets and credits that wait for too long, and about events that are not
    read; close those whose cause has gone.

    One that a person has acknowledged comes back only for something that came after it.
    """
    late = timedelta(seconds=settings.feed_late_seconds)
    with transaction(engine, "crediter") as connection:
        unsent = connection.execute(_UNSENT, {"patience": late, "examples": _EXAMPLES}).one()
    with transaction(engine, "loader") as connection:
        lock_source(connection, SOURCE)
        found = {one.kind: one for one in _found(connection, settings, unsent)}
        known = {
            row.kind: row.finding_id
            for row in connection.execute(
                select(finding_table.c.kind, finding_table.c.finding_id).where(
                    finding_table.c.kind.in_(KINDS), finding_table.c.state == "open"
                )
            )
        }
        opened = [
            open_finding(connection, one)
            for kind, one in found.items()
            if kind in known or not _is_acknowledged(connection, one)
        ]
        closed = [number for kind, number in known.items() if kind not in found]
        for finding_id in closed:
            close_finding(connection, finding_id, "system")
    return Watched(sorted(set(opened) - set(known.values())), sorted(closed))


def _found(connection: Connection, settings: Settings, unsent: Row[Any]) -> Iterator[Finding]:
    patience = timedelta(days=settings.prediction_unconfirmed_days)
    if (waiting := _waiting(connection, "markets_unconfirmed", patience)).markets:
        yield _finding(
            "markets_unconfirmed",
            waiting,
            f"Nothing says that {waiting.markets} markets of the queue are resolved; the first was "
            f"entered at {waiting.since:%Y-%m-%d %H:%M} UTC. If you know that they are, trigger "
            "settle_markets with their ids, the confirmation and a reason.",
            "They wait in the queue, and nothing is ordered for them.",
        )
    late = timedelta(seconds=settings.feed_late_seconds)
    if (waiting := _waiting(connection, "markets_late", late)).markets:
        yield _finding(
            "markets_late",
            waiting,
            f"{waiting.markets} markets should have been gone on with, the first of them at "
            f"{waiting.since:%Y-%m-%d %H:%M} UTC. Look at the DAG settle_markets: is it paused, "
            "failing, or running for long? Does the engine answer (finance.market.trouble)?",
            "They stand as they did; the next run goes on with them.",
        )
    if unsent.credits:
        yield Finding(
            kind="credits_late",
            source=SOURCE,
            subject="outbox",
            summary=f"{unsent.credits} credits of markets wait to be sent to the wallet, the first "
            f"since {unsent.since:%Y-%m-%d %H:%M} UTC. Look at `send_credits` in the last run of "
            "settle_markets: is the DAG paused, the wallet away, or does it refuse our key? Does a "
            "finding about refusals wait for you?",
            kept="They are in the outbox, and nothing is sent twice. The next run sends them once "
            "the cause is gone, or resend_settlements, those of a day at 01:00 UTC of the next "
            "day; this finding closes itself when all are sent.",
            detail=_detail(unsent.credits, unsent),
        )
    yield from _closing_events(connection, settings)


def _closing_events(connection: Connection, settings: Settings) -> Iterator[Finding]:
    row = connection.execute(_EVENTS_READ, {"source": SOURCE, "feed": EVENTS}).first()
    if row is None or row.behind <= timedelta(hours=settings.prediction_events_warning_hours):
        return
    closes_at = row.read_at + timedelta(hours=EVENTS_KEPT_HOURS)
    yield Finding(
        kind="events_closing",
        source=SOURCE,
        subject=EVENTS,
        summary=f"The engine's events were last read to their end at {row.read_at:%Y-%m-%d %H:%M} "
        f"UTC, and it keeps them for {EVENTS_KEPT_HOURS} hours. Have the DAG settle_markets run "
        f"before {closes_at:%Y-%m-%d %H:%M} UTC; markets whose events are lost have to be entered "
        "by hand.",
        kept="What was read is kept. This finding closes itself when the events are read on.",
        detail={"read_at": row.read_at.isoformat(), "closes_at": closes_at.isoformat()},
    )


def _waiting(connection: Connection, kind: str, patience: timedelta) -> Row[Any]:
    return connection.execute(
        _WAITING, {"kind": kind, "patience": patience, "examples": _EXAMPLES}
    ).one()


def _finding(kind: str, waiting: Row[Any], summary: str, kept: str) -> Finding:
    return Finding(
        kind=kind,
        source=SOURCE,
        subject="queue",
        summary=summary,
        kept=f"{kept} This finding closes itself when none is left.",
        detail=_detail(waiting.markets, waiting),
    )


def _detail(count: int, waiting: Row[Any]) -> dict[str, Any]:
    return {
        "count": count,
        "since": waiting.since.isoformat(),
        "examples": list(waiting.examples),
    }


def _is_acknowledged(connection: Connection, one: Finding) -> bool:
    """Whether a person has seen this very cause."""
    since = one.detail.get("since") or one.detail["read_at"]
    return bool(
        connection.execute(
            select(func.count())
            .select_from(finding_table)
            .where(
                finding_table.c.kind == one.kind,
                finding_table.c.closed_by == "decision",
                finding_table.c.detail["since" if "since" in one.detail else "read_at"].astext
                == since,
            )
        ).scalar_one()
    )
