"""From raw to staging: the records of checked batches become settlements, or are quarantined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec.structs import astuple
from sqlalchemy import Connection, Engine, Row, delete, func

from include.model import Leg, RecordContext, Settlement
from include.providers.errors import RecordRejected
from include.quality.garbage import without_garbage_collection
from include.settings import Settings
from include.warehouse import batches
from include.warehouse.database import copy_encoded, encode_rows
from include.warehouse.quarantine import (
    HeldBack,
    open_count,
    quarantine_records,
    retry_quarantined,
)
from include.warehouse.records import StoredRecord, read_records
from include.warehouse.tables import staging_settlement, staging_settlement_leg

Normalize = Callable[[bytes, RecordContext], Settlement]

# The last field is the legs, which have a table of their own.
_SETTLEMENT_COLUMNS = ("batch_id", "record_id", "source", *Settlement.__struct_fields__[:-1])
_LEG_COLUMNS = ("batch_id", "record_id", *Leg.__struct_fields__)
_PAGE_MISSING = (
    "its page is not in raw.page: the month was detached. Attach it again, then decide replay, or "
    "try_again if the batch is held"
)


class Provider(Protocol):
    """Whose records are normalized, and what turns a record's text into a settlement.

    That raises `RecordRejected` where it cannot.
    """

    @property
    def name(self) -> str:
        """The provider's name, as batches carry it."""

    @property
    def normalizer(self) -> Callable[[Settings], Normalize]:
        """Gives, for the settings, what makes a settlement of a record."""


@dataclass(frozen=True)
class Normalized:
    """What one `normalize` did, in counts."""

    batches: int
    normalized: int
    quarantined: int


def normalize(engine: Engine, provider: Provider, settings: Settings) -> Normalized:
    """Turn the records of every checked batch of the provider into staged settlements.

    A record that cannot be one is quarantined with its reason; the others go on.  A batch's staged
    rows are replaced in one transaction, so repeating it changes nothing.
    """

    def normalize_batch(connection: Connection, batch: Row[Any]) -> tuple[int, int]:
        return _normalize_batch(connection, provider, settings, batch)

    done = batches.work_through(engine, provider.name, batches.AWAITS_NORMALIZE, normalize_batch)
    return Normalized(
        batches=len(done),
        normalized=sum(normalized for normalized, _ in done),
        quarantined=sum(quarantined for _, quarantined in done),
    )


def _normalize_batch(
    connection: Connection, provider: Provider, settings: Settings, batch: Row[Any]
) -> tuple[int, int]:
    _empty_staging(connection, batch.batch_id)
    retry_quarantined(connection, batch.batch_id)
    normalized = 0
    make = provider.normalizer(settings)
    chunk = _Chunk([], [], [])
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="staging") as writer:
        for records in read_records(connection, batch, settings.normalize_chunk_records):
            normalized += len(records)
            # While Postgres takes in a chunk the next is made; it is read before or after.
            staged = writer.submit(_stage, connection, provider, batch, chunk)
            chunk = _make_chunk(provider, make, batch, records)
            staged.result()
    _stage(connection, provider, batch, chunk)
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


@dataclass(frozen=True)
class _Chunk:
    """What became of some records, as it is staged: the rows encoded, so that little is held."""

    settlements: list[bytes]
    legs: list[bytes]
    held_back: list[HeldBack]


# A chunk's many rows do not refer to each other: it takes a fifth of the time.
@without_garbage_collection()
def _make_chunk(
    provider: Provider, make: Normalize, batch: Row[Any], records: list[StoredRecord]
) -> _Chunk:
    held_back: list[HeldBack] = []
    legs: list[tuple[Any, ...]] = []
    rows = _settlement_rows(provider, make, batch.batch_id, records, legs, held_back)
    return _Chunk(
        settlements=[*encode_rows(staging_settlement, _SETTLEMENT_COLUMNS, rows)],
        legs=[*encode_rows(staging_settlement_leg, _LEG_COLUMNS, legs)],
        held_back=held_back,
    )


def _stage(connection: Connection, provider: Provider, batch: Row[Any], chunk: _Chunk) -> None:
    if chunk.settlements:
        copy_encoded(connection, staging_settlement, _SETTLEMENT_COLUMNS, chunk.settlements)
    if chunk.legs:
        copy_encoded(connection, staging_settlement_leg, _LEG_COLUMNS, chunk.legs)
    quarantine_records(connection, provider.name, batch.batch_id, "normalize", chunk.held_back)


def _settlement_rows(
    provider: Provider,
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
        yield (batch_id, record_id, provider.name, *astuple(settlement)[:-1])
        legs += ((batch_id, record_id, *astuple(leg)) for leg in settlement.legs)


def _empty_staging(connection: Connection, batch_id: int) -> None:
    for table in (staging_settlement_leg, staging_settlement):
        connection.execute(delete(table).where(table.c.batch_id == batch_id))
