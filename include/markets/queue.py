"""Which markets are to be settled: the engine's events, and what people and other systems enter.

To settle a market cancels its open orders, which cannot be undone.  So it waits in the queue until
there is evidence that it was resolved: the engine's own event, or the word of a person.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB

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
    is_market_id,
    read_events,
)
from include.providers.texts import shown
from include.settings import Settings
from include.warehouse.database import array_literal, transaction
from include.warehouse.landing import Also, ArrivedPage, CursorMoved, Gap, Landing
from include.warehouse.markets import SOURCE, WORKED_ON, due
from include.warehouse.quarantine import report_quarantined
from include.warehouse.tables import market as market_table
from include.warehouse.tables import record as record_table

_log = logging.getLogger(__name__)

EVENTS = "events"

_FILE_BYTES_LIMIT = 64 * 2**20
_WRONG_LINES_SHOWN = 10


class MarketsRefused(Exception):
    """What was asked for cannot be entered; nothing of it was, and the message says why."""


class EventsStopped(Exception):
    """The engine's events cannot be decoded (they are stored): a finding waits for a decision."""


@dataclass(frozen=True)
class EventsRead:
    """What one reading of the events brought; `has_reached_end` if the engine had no more."""

    received: int
    entered: int
    has_reached_end: bool


# --- by people and files ------------------------------------------------------------------------

# A market that was withdrawn, or that nobody knew to be resolved, is to be settled from now on.
_CONFIRM = text("""
INSERT INTO prediction.market AS market (
    market_id, entered_by, currency, evidence, state, next_look_at
)
SELECT market_id, 'form', :currency, :evidence, 'resolved', now()
FROM unnest(CAST(:market_ids AS text[])) AS listed (market_id)
ON CONFLICT (market_id) DO UPDATE
SET evidence = excluded.evidence, state = 'resolved', state_since = now(), next_look_at = now(),
    revision = market.revision + 1, settle_attempts = 0, retry_attempts = 0
WHERE market.state IN ('entered', 'withdrawn')
""").bindparams(bindparam("evidence", type_=JSONB))

_UNKNOWN = text("""
SELECT market_id
FROM unnest(CAST(:market_ids AS text[])) AS listed (market_id)
WHERE NOT EXISTS (
    SELECT FROM prediction.market
    WHERE market.market_id = listed.market_id AND state NOT IN ('entered', 'withdrawn')
)
ORDER BY market_id
""")

_ENTER = text("""
INSERT INTO prediction.market (market_id, entered_by, currency)
SELECT market_id, 'file', currency
FROM unnest(CAST(:market_ids AS text[]), CAST(:currencies AS text[])) AS listed (
    market_id, currency
)
ON CONFLICT DO NOTHING
""")

_NAMED = """
FROM unnest(CAST(:market_ids AS text[]), CAST(:currencies AS text[])) AS told (market_id, currency)
"""

# One that was listed without a currency is held for it: nothing of it is published.
_SET_CURRENCIES = text(f"""
UPDATE prediction.market
SET currency = told.currency, revision = revision + 1
{_NAMED}
WHERE market.market_id = told.market_id AND market.currency IS NULL
    AND told.currency IS NOT NULL
""")

_CONTRADICTED = text(f"""
SELECT market_id, told.currency AS told, market.currency AS known, count(*) OVER () AS markets
{_NAMED}
JOIN prediction.market USING (market_id)
WHERE market.currency <> told.currency
ORDER BY market_id
LIMIT :examples
""")


def unconfirmed(engine: Engine, market_ids: Sequence[str]) -> list[str]:
    """Those of the markets that nothing says were resolved."""
    with transaction(engine, "loader") as connection:
        return list(connection.scalars(_UNKNOWN, {"market_ids": array_literal(market_ids)}))


def confirm(
    engine: Engine,
    market_ids: Sequence[str],
    *,
    currency: str | None,
    confirmed_by: str,
    reason: str,
    run_id: str | None,
) -> int:
    """Enter markets on a person's word that they were resolved; how many are to be settled by it.

    Raises `MarketsRefused` for an id that can name no market, and for a `currency` that is not the
    one that a market has.  One that is on its way goes on.
    """
    if wrong := [shown(one) for one in market_ids if not is_market_id(one)]:
        raise MarketsRefused(
            f"{', '.join(wrong[:_WRONG_LINES_SHOWN])} can be no market's id. Nothing was entered. "
            "Correct it and trigger settle_markets again."
        )
    evidence = {"confirmed_by": confirmed_by, "reason": reason, "run_id": run_id}
    with transaction(engine, "loader") as connection:
        confirmed = connection.execute(
            _CONFIRM,
            {
                "market_ids": array_literal(dict.fromkeys(market_ids)),
                "currency": currency,
                "evidence": evidence,
            },
        ).rowcount
        _set_currencies(connection, dict.fromkeys(market_ids, currency))
    return confirmed


def set_currency(engine: Engine, market_ids: Sequence[str], currency: str) -> None:
    """Have known markets pay in this currency.

    Raises `MarketsRefused`, with nothing changed, if one of them has another.
    """
    with transaction(engine, "loader") as connection:
        _set_currencies(connection, dict.fromkeys(market_ids, currency))


def _set_currencies(connection: Connection, told: Mapping[str, str | None]) -> None:
    """Give each market the currency that is told of it; raises `MarketsRefused` if it has another.

    Whatever was entered in this transaction is then not entered.
    """
    named = {"market_ids": array_literal(told), "currencies": array_literal(told.values())}
    connection.execute(_SET_CURRENCIES, named)
    wrong = connection.execute(_CONTRADICTED, {**named, "examples": _WRONG_LINES_SHOWN}).all()
    if not wrong:
        return
    examples = ", ".join(f"{one.market_id} ({one.known}, not {one.told})" for one in wrong)
    more = wrong[0].markets - len(wrong)
    raise MarketsRefused(
        f"{wrong[0].markets} of these markets have another currency than the one told: {examples}"
        f"{f' and {more} more' if more else ''}. They keep theirs, and nothing was entered. Leave "
        "the currency out, or correct it, and do it again; if the one that they have is wrong, "
        "have it corrected in prediction.market before they are settled."
    )


def is_market_register(path: Path) -> bool:
    """Whether the file's name says that it lists markets."""
    return path.name.startswith(SOURCE)


def import_markets(engine: Engine, path: Path) -> dict[str, int]:
    """Enter the markets of a file: an id a line, CSV with the columns `market_id` and, if there is
    one, `currency`, or JSON of the same a line.

    Raises `MarketsRefused`, with nothing entered, if any line is none, or tells another currency
    than is known of its market.
    """
    listed = _read_register(path)
    with transaction(engine, "loader") as connection:
        entered = connection.execute(
            _ENTER,
            {
                "market_ids": array_literal(listed),
                "currencies": array_literal(listed.values()),
            },
        ).rowcount
        _set_currencies(connection, listed)
    return {"read": len(listed), "new": entered, "known": len(listed) - entered}


def _read_register(path: Path) -> dict[str, str | None]:
    """The markets of a file, each with its currency if any line of it tells one."""
    if path.stat().st_size > _FILE_BYTES_LIMIT:
        raise MarketsRefused(
            f"{path.name} is larger than {_FILE_BYTES_LIMIT} bytes. Nothing was entered. Split it."
        )
    try:
        written = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise MarketsRefused(f"{path.name} is not UTF-8. Nothing was entered.") from None
    listed: dict[str, str | None] = {}
    wrong: list[str] = []
    for number, told in _lines(written):
        market_id, currency = told if told is not None else ("", None)
        if not is_market_id(market_id) or not _is_currency(currency):
            wrong.append(f"line {number}")
            continue
        known = listed.get(market_id)
        if None not in (known, currency) and known != currency:
            raise MarketsRefused(
                f"Line {number} of {path.name} tells {currency} of market {market_id}, and an "
                f"earlier line {known}. Nothing was entered. Correct one and import it again."
            )
        listed[market_id] = known or currency
    if wrong:
        more = len(wrong) - _WRONG_LINES_SHOWN
        raise MarketsRefused(
            f"{', '.join(wrong[:_WRONG_LINES_SHOWN])}{f' and {more} more' if more > 0 else ''} of "
            f"{path.name} name no market. Nothing was entered. Correct them and import it again."
        )
    return listed


def _lines(written: str) -> Iterator[tuple[int, tuple[str, str | None] | None]]:
    """Each line's number, and the id and currency in it; None if there are none."""
    columns: list[str] | None = None
    for number, line in enumerate(io.StringIO(written), 1):
        text_of_line = line.strip()
        if not text_of_line:
            continue
        if text_of_line.startswith("{"):
            yield number, _of_fields(_json_fields(text_of_line))
            continue
        cells = [cell.strip() for cell in next(csv.reader([text_of_line]))]
        if columns is None:
            columns = cells if "market_id" in cells else ["market_id", "currency"]
            if "market_id" in cells:
                continue
        is_whole = len(cells) <= len(columns)
        yield number, _of_fields(dict(zip(columns, cells, strict=False))) if is_whole else None


def _json_fields(line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _of_fields(fields: Mapping[str, Any]) -> tuple[str, str | None] | None:
    market_id, currency = fields.get("market_id"), fields.get("currency") or None
    if not isinstance(market_id, str) or not isinstance(currency, str | None):
        return None
    return market_id, currency


def _is_currency(currency: str | None) -> bool:
    return currency is None or (
        currency.isascii() and currency.isalnum() and 2 <= len(currency) <= 12
    )


# --- by the engine's events ---------------------------------------------------------------------

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
            newest = max(
                (one.sequence for one in page.entries if one.sequence is not None), default=-1
            )
            # However few it gives at a time.
            has_more = newest > int(since or -1)
            position = dict(cursor.position)
            if has_more:
                position["since_id"] = str(newest)
            gaps = _lost(cursor.position, answer)
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

    def _decoded(self, answer: Answer, since: str | None) -> EventPage:
        try:
            return read_events(answer.body)
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


# --- what a run goes on with --------------------------------------------------------------------

# Not what was ordered: its answer, or its deadline, is waited for.
_HASTEN = text("""
UPDATE prediction.market
SET next_look_at = now(), revision = revision + 1
WHERE market_id = ANY (CAST(:market_ids AS text[]))
    AND state IN ('waiting', 'fetching', 'done', 'failed', 'stuck')
    AND (state NOT IN ('done', 'failed', 'stuck') OR listing_sha256 IS NOT NULL)
    AND NOT EXISTS (
        SELECT FROM prediction.attempt
        WHERE attempt.market_id = market.market_id
            AND (result IS NULL OR result = 'in_doubt') AND deadline_at > clock_timestamp()
    )
""")


_STANDING = text("""
SELECT market_id, market.state, finding.finding_id
FROM prediction.market
LEFT JOIN ops.finding ON finding.finding_id = market.finding_id AND finding.state = 'open'
WHERE market_id = ANY (CAST(:market_ids AS text[]))
ORDER BY market_id
""")


def due_markets(engine: Engine, market_ids: Sequence[str] | None, limit: int) -> list[str]:
    """The markets that are to be gone on with now, of those named if any are."""
    with transaction(engine, "loader") as connection:
        return [row.market_id for row in due(connection, WORKED_ON, market_ids, limit)]


def standing(engine: Engine, market_ids: Sequence[str]) -> list[Row[Any]]:
    """The state of each of these markets, and the open finding that it waits for, if any."""
    with transaction(engine, "loader") as connection:
        return list(connection.execute(_STANDING, {"market_ids": array_literal(market_ids)}))


def hasten(engine: Engine, market_ids: Sequence[str]) -> None:
    """Have these markets looked at now, wherever they wait for nothing but time."""
    with transaction(engine, "loader") as connection:
        connection.execute(_HASTEN, {"market_ids": array_literal(market_ids)})
