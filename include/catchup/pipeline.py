"""The first and the third step of every source: land what arrived, and normalize what landed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection, Engine, Row, delete, func

from include.catchup.log import Log, PageStopped, read_log
from include.catchup.position import place_of
from include.catchup.sources import Normalize, Source
from include.catchup.stream import Feed, Stream, read_stream
from include.model import Leg, RecordContext, Settlement
from include.providers.errors import ProviderError, RecordRejected
from include.providers.http import Client
from include.settings import Settings
from include.warehouse import batches
from include.warehouse.connect_attempts import Connections
from include.warehouse.database import copy_rows
from include.warehouse.landing import CursorMoved, Landing
from include.warehouse.leases import Lease, LeaseHeld, LeaseLost, hold_lease
from include.warehouse.quarantine import (
    HeldBack,
    open_count,
    quarantine_records,
    retry_quarantined,
)
from include.warehouse.records import StoredRecord, read_records
from include.warehouse.tables import staging_settlement, staging_settlement_leg

_SETTLEMENT_FIELDS = Settlement.__struct_fields__[:-1]
_LEG_FIELDS = Leg.__struct_fields__
_PAGE_MISSING = (
    "its page is not in raw.page: the month was detached. Attach it again, then decide try_again"
)


@dataclass(frozen=True)
class Landed:
    """What one `land` did, in counts; `note` says why it ended where it did.

    `batch_id` is None if it left everything to another run.
    """

    batch_id: int | None
    pages_received: int
    received: int
    duplicates: int
    landed: int
    has_reached_end: bool
    note: str


@dataclass(frozen=True)
class Normalized:
    """What one `normalize` did, in counts."""

    batches: int
    normalized: int
    quarantined: int


def land(
    engine: Engine, source: Source, client: Client | Feed, settings: Settings, run_id: str | None
) -> Landed:
    """Land what the provider has beyond the cursor, in a new batch, within the settings' bounds.

    Raises what the acquisition raises; what was committed before is landed and goes on with the
    next run that succeeds.
    """
    acquire = source.acquire
    if isinstance(acquire, Stream):
        assert not isinstance(client, Client)
        return _land_stream(engine, source, acquire, client, settings, run_id)
    assert isinstance(client, Client)
    return _land_log(engine, source, acquire, client, settings, run_id)


def _land_log(
    engine: Engine,
    source: Source,
    log: Log,
    client: Client,
    settings: Settings,
    run_id: str | None,
) -> Landed:
    landing = Landing(engine, source.name, source.feed, source.dedupe, run_id)
    try:
        read = read_log(log, client, landing, settings)
    except CursorMoved as moved:
        return _landed(landing.close(has_reached_end=False), str(moved))
    except (ProviderError, PageStopped):
        landing.close(has_reached_end=False)
        raise
    if read.stopped_by_finding_id is not None:
        note = (
            f"Nothing was asked for: the feed waits for a decision on finding "
            f"{read.stopped_by_finding_id}. Use the DAG resolve_findings."
        )
    elif read.has_reached_end:
        note = "The provider has nothing more."
    else:
        note = "The bounds of one task were reached; the next run goes on."
    return _landed(landing.close(has_reached_end=read.has_reached_end), note)


def _land_stream(
    engine: Engine,
    source: Source,
    stream: Stream,
    feed: Feed,
    settings: Settings,
    run_id: str | None,
) -> Landed:
    """One run at a time; another waits as long as a dead one would hold it up, and no longer."""
    name, seconds = f"{source.name}/stream", settings.stream_lease_seconds
    try:
        with hold_lease(engine, "loader", name, run_id, seconds, patience=seconds) as lease:
            return _land_session(engine, source, stream, feed, settings, run_id, lease)
    except (LeaseHeld, LeaseLost) as left_to_another:
        return Landed(None, 0, 0, 0, 0, has_reached_end=False, note=str(left_to_another))


def _land_session(
    engine: Engine,
    source: Source,
    stream: Stream,
    feed: Feed,
    settings: Settings,
    run_id: str | None,
    lease: Lease,
) -> Landed:
    landing = Landing(
        engine, source.name, source.feed, source.dedupe, run_id, lease=lease, place=place_of
    )
    connections = Connections(engine, lease, source.name, run_id)
    try:
        read = read_stream(stream, feed, landing, connections, settings)
    except ProviderError:
        landing.close(has_reached_end=False)
        raise
    return _landed(landing.close(has_reached_end=read.has_reached_end), read.note)


def normalize(engine: Engine, source: Source, settings: Settings) -> Normalized:
    """Turn the records of every checked batch of the source into staged settlements.

    A record that cannot be one is quarantined with its reason; the others go on.  A batch's staged
    rows are replaced in one transaction, so repeating it changes nothing.
    """

    def normalize_batch(connection: Connection, batch: Row[Any]) -> tuple[int, int]:
        return _normalize_batch(connection, source, settings, batch)

    done = batches.work_through(engine, source.name, batches.AWAITS_NORMALIZE, normalize_batch)
    return Normalized(
        batches=len(done),
        normalized=sum(normalized for normalized, _ in done),
        quarantined=sum(quarantined for _, quarantined in done),
    )


def _normalize_batch(
    connection: Connection, source: Source, settings: Settings, batch: Row[Any]
) -> tuple[int, int]:
    _empty_staging(connection, batch.batch_id)
    retry_quarantined(connection, batch.batch_id)
    normalized = 0
    make = source.normalizer(settings)
    for records in read_records(connection, batch, settings.normalize_chunk_records):
        normalized += len(records)
        _stage_chunk(connection, source, make, batch, records)
    quarantined = open_count(connection, batch.batch_id)
    batches.move(
        connection,
        batch.batch_id,
        state="normalized",
        normalized_at=func.now(),
        normalized=normalized,
        quarantined=quarantined,
        settlements_checked_at=None,
    )
    return normalized, quarantined


def _stage_chunk(
    connection: Connection,
    source: Source,
    make: Normalize,
    batch: Row[Any],
    records: list[StoredRecord],
) -> None:
    held_back: list[HeldBack] = []
    legs: list[tuple[Any, ...]] = []
    copy_rows(
        connection,
        staging_settlement,
        ("batch_id", "record_id", "source", *_SETTLEMENT_FIELDS),
        _settlement_rows(source, make, batch.batch_id, records, legs, held_back),
    )
    if legs:
        copy_rows(connection, staging_settlement_leg, ("batch_id", "record_id", *_LEG_FIELDS), legs)
    quarantine_records(connection, source.name, batch.batch_id, "normalize", held_back)


def _settlement_rows(
    source: Source,
    make: Normalize,
    batch_id: int,
    records: list[StoredRecord],
    legs: list[tuple[Any, ...]],
    held_back: list[HeldBack],
) -> Iterator[tuple[Any, ...]]:
    """The rows to stage, made one by one; their legs and what is held back go into the lists."""
    for record_id, payload, received_at in records:
        if payload is None or received_at is None:
            held_back.append(HeldBack(record_id, "page_missing", _PAGE_MISSING))
            continue
        try:
            settlement = make(payload, RecordContext(received_at=received_at))
        except RecordRejected as rejected:
            held_back.append(HeldBack(record_id, rejected.rule, rejected.reason))
            continue
        except Exception as error:  # noqa: BLE001
            # A mistake of ours about one record must not keep its neighbours back, nor every
            # later batch.  The message stays unsaid: it may quote the record.
            reason = f"normalize itself failed with {type(error).__name__}"
            held_back.append(HeldBack(record_id, "normalize_failed", reason))
            continue
        # The last field is the legs, which have a table of their own.
        yield (batch_id, record_id, source.name, *astuple(settlement)[:-1])
        legs += ((batch_id, record_id, *astuple(leg)) for leg in settlement.legs)


def _empty_staging(connection: Connection, batch_id: int) -> None:
    for table in (staging_settlement_leg, staging_settlement):
        connection.execute(delete(table).where(table.c.batch_id == batch_id))


def _landed(batch: Row[Any], note: str) -> Landed:
    return Landed(
        batch_id=batch.batch_id,
        pages_received=batch.pages_received,
        received=batch.received,
        duplicates=batch.duplicates,
        landed=batch.landed,
        has_reached_end=batch.has_reached_end,
        note=note,
    )
