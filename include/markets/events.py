"""The engine's events: which markets it says are resolved, as evidence and into the queue."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, func, select, text

from include.markets.evidence import arrived
from include.markets.stopping import stop
from include.model import Record
from include.providers.errors import PageUndecodable
from include.providers.http import Answer, Client
from include.providers.prediction import (
    EVENTS_KEPT_HOURS,
    MARKET_RESOLVED,
    EventEntry,
    EventPage,
    fetch_events,
    read_events,
)
from include.settings import Settings
from include.warehouse.database import array_literal
from include.warehouse.landing import Also, CursorMoved, Gap, Landing
from include.warehouse.markets import SOURCE
from include.warehouse.pages import ArrivedPage
from include.warehouse.quarantine import report_quarantined
from include.warehouse.tables import market as market_table
from include.warehouse.tables import record as record_table

_log = logging.getLogger(__name__)

EVENTS = "events"

_RESOLVED = text("""
INSERT INTO prediction.market AS market (
    market_id, entered_by, evidence, state, next_look_at
)
SELECT
    told.market_id, 'event',
    jsonb_build_object('sequence', told.sequence, 'record_id', (
        SELECT max(record_id) FROM raw.record
        WHERE source = :source AND record_key = 'event/' || told.sequence
    )),
    'resolved', now()
FROM (
    SELECT DISTINCT ON (market_id) market_id, sequence
    FROM unnest(CAST(:market_ids AS text[]), CAST(:sequences AS text[])) AS one (
        market_id, sequence
    )
    ORDER BY market_id, CAST(sequence AS numeric)
) AS told
ON CONFLICT (market_id) DO UPDATE
SET evidence = excluded.evidence, state = 'resolved', state_since = now(), next_look_at = now(),
    revision = market.revision + 1
WHERE market.state = 'entered'
""")

_UNUSABLE = (
    "it tells that a market is resolved, and no market's id or no whole `sequence`; enter that "
    "market in the form of settle_markets"
)


class EventsStopped(Exception):
    """The engine's events cannot be decoded (they are stored): a finding waits for a decision."""


@dataclass(frozen=True)
class EventsRead:
    """What one reading of the events brought; `has_reached_end` if the engine had no more."""

    received: int
    entered: int
    has_reached_end: bool


def take_events(
    engine: Engine, client: Client, settings: Settings, run_id: str | None
) -> EventsRead:
    """Read the engine's events on from where the last reading ended, and enter what was resolved.

    Raises `EventsStopped` if they cannot be decoded, and what the client raises.
    """
    landing = Landing(engine, SOURCE, EVENTS, "texts", run_id, "evidence")
    reader = _EventReader(client, landing, settings)
    has_reached_end = False
    try:
        has_reached_end = reader.read_on()
    except CursorMoved as moved:
        _log.info("%s", moved)
    finally:
        landing.close(has_reached_end=has_reached_end)
    return EventsRead(reader.received, reader.entered, has_reached_end)


class _EventReader:
    """Reads events page after page, each committed with the markets that it resolves."""

    def __init__(self, client: Client, landing: Landing, settings: Settings) -> None:
        self.received = self.entered = 0
        self._client = client
        self._landing = landing
        self._pages = settings.land_pages_limit

    def read_on(self) -> bool:
        """Whether the engine has no more."""
        cursor = self._landing.read_cursor()
        if cursor.stopped_by_finding_id is not None:
            _log.warning(
                "No event is read before finding %d is decided. Use the DAG resolve_findings.",
                cursor.stopped_by_finding_id,
            )
            return False
        for _ in range(self._pages):
            since = cursor.position.get("since_id")
            answer = fetch_events(self._client, since=None if since is None else int(since))
            page = self._decoded(answer, since)
            newest = _newest(page)
            # However few it gives at a time.
            has_more = newest > int(since or -1)
            position = dict(cursor.position)
            gaps = _lost(cursor.position, answer)
            if has_more:
                position["since_id"] = str(newest)
            elif self._is_to_compare(cursor.position, answer) and self._has_begun_anew(since):
                has_more = True
                del position["since_id"]
                gaps.append(_begun_anew(since))
            if gaps or not has_more:
                # Until all of them are read, what is lost counts from the last time they were.
                position["read_at"] = answer.requested_at.isoformat()
            cursor = self._landing.commit(
                [self._arrived(answer, page)], cursor, position, gaps, also=self._enter(page)
            )
            self.received += len(page.entries)
            if not has_more:
                return True
        return False

    def _is_to_compare(self, position: Mapping[str, Any], answer: Answer) -> bool:
        """Whether it is the first run of an hour to which nothing new is told."""
        if self.received or "since_id" not in position or "read_at" not in position:
            return False
        read_at = datetime.fromisoformat(position["read_at"])
        return _hour(read_at) != _hour(answer.requested_at)

    def _has_begun_anew(self, since: str | None) -> bool:
        """Whether the engine keeps events and none of them is as new as the last one read: then
        none that it adds would be told as newer than that one for long.
        """
        newest = -1
        for _ in range(self._pages):
            asked_after = None if newest < 0 else newest
            answer = fetch_events(self._client, since=asked_after)
            told = _newest(self._decoded(answer, None if newest < 0 else str(newest)))
            if told >= int(since or 0):
                return False
            if told <= newest:
                return newest >= 0
            newest = told
        return False

    def _decoded(self, answer: Answer, since: str | None) -> EventPage:
        try:
            page = read_events(answer.body)
            _check_order(page)
            return page
        except PageUndecodable as undecodable:
            finding_id = self._landing.stop(arrived(answer), undecodable.reason, since)
            raise EventsStopped(
                f"The engine's events after sequence {since or 'none'} cannot be decoded: "
                f"{undecodable.reason}. The page is kept and no event is read any more; markets in "
                f"the queue go on with the next run. Decide on finding {finding_id} in the DAG "
                "resolve_findings."
            ) from None

    def _arrived(self, answer: Answer, page: EventPage) -> ArrivedPage:
        # Settlements have keys of the same kind.
        records = [(_named(one.record), one.content_sha256) for one in page.entries]
        unusable = {_named(one.record).record_key: _UNUSABLE for one in _unusable(page)}
        came = arrived(answer, records, unknown_fields=page.unknown_fields)
        return replace(came, unreadable=unusable)

    def _enter(self, page: EventPage) -> Also:
        told = [one for one in page.entries if _resolves(one) and _is_usable(one)]

        def enter(connection: Connection) -> None:
            self.entered += _enter_resolved(connection, told)
            if _unusable(page):
                report_quarantined(connection, SOURCE, self._landing.batch_id)

        return enter


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _newest(page: EventPage) -> int:
    """The highest sequence in it; -1 if there is none."""
    return max((one.sequence for one in page.entries if one.sequence is not None), default=-1)


def _check_order(page: EventPage) -> None:
    """Raise `PageUndecodable` for a page that does not begin with its oldest event: there may be
    older ones that it leaves out, and reading on behind its newest would pass over them.
    """
    sequences = [one.sequence for one in page.entries if one.sequence is not None]
    for before, after in pairwise(sequences):
        if after < before:
            raise PageUndecodable(
                f"event {after} comes behind {before}, though the oldest are to come first, so "
                "that older ones may be missing from it"
            )


def _named(record: Record) -> Record:
    return msgspec.structs.replace(record, record_key=f"event/{record.record_key}")


def _resolves(event: EventEntry) -> bool:
    return event.event_type == MARKET_RESOLVED


def _is_usable(event: EventEntry) -> bool:
    return event.market_id is not None and event.sequence is not None


def _unusable(page: EventPage) -> list[EventEntry]:
    """What tells that a market is resolved, and not which one, or where it stands in the log."""
    return [one for one in page.entries if _resolves(one) and not _is_usable(one)]


def _enter_resolved(connection: Connection, usable: Sequence[EventEntry]) -> int:
    if not usable:
        return 0
    _ask_about_given_up(connection, usable)
    return connection.execute(
        _RESOLVED,
        {
            "source": SOURCE,
            "market_ids": array_literal(one.market_id for one in usable),
            "sequences": array_literal(str(one.sequence) for one in usable),
        },
    ).rowcount


def _ask_about_given_up(connection: Connection, usable: Sequence[EventEntry]) -> None:
    """Ask about markets that were refused or withdrawn, and of which an event tells only now that
    they are resolved: a person has decided that they are not settled, and may decide otherwise.
    """
    newest = {one.market_id: one for one in sorted(usable, key=lambda one: one.sequence or 0)}
    given_up = select(market_table).where(
        market_table.c.market_id.in_(newest), market_table.c.state.in_(("refused", "withdrawn"))
    )
    for market in connection.execute(given_up.with_for_update()).all():
        event, known = newest[market.market_id], market.evidence or {}
        if event.sequence is None or event.sequence <= int(known.get("sequence", -1)):
            continue
        record_id = connection.scalar(
            select(func.max(record_table.c.record_id)).where(
                record_table.c.source == SOURCE,
                record_table.c.record_key == _named(event.record).record_key,
            )
        )
        stop(
            connection,
            market,
            "refused",
            f"was {market.state}, and the engine has told since (event {event.sequence}) that it "
            "is resolved",
            evidence={**known, "sequence": str(event.sequence), "record_id": record_id},
        )


def _lost(position: Mapping[str, Any], answer: Answer) -> list[Gap]:
    """What the engine has forgotten since its events were read to their end."""
    read_at = position.get("read_at")
    kept_since = answer.requested_at - timedelta(hours=EVENTS_KEPT_HOURS)
    if read_at is None or datetime.fromisoformat(read_at) >= kept_since:
        return []
    return [
        Gap(
            range_after=position.get("since_id"),
            range_before="the first event that was kept",
            reason=f"the engine keeps its events for {EVENTS_KEPT_HOURS} hours, and they were "
            f"last read at {datetime.fromisoformat(read_at).astimezone(UTC):%Y-%m-%d %H:%M} UTC. "
            "Markets resolved meanwhile are to be entered in the form of settle_markets.",
        )
    ]


def _begun_anew(since: str | None) -> Gap:
    return Gap(
        range_after=since,
        range_before="the first event that was kept",
        reason=f"the engine keeps events, and none of them is as new as event {since}, the last "
        "one read: its `sequence` has begun anew. All that it keeps are read; markets resolved in "
        "events that it does not keep are to be entered in the form of settle_markets.",
    )
