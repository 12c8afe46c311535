"""The checker: what must be true of a warehouse at any moment, whatever happened to it.

Each function gives the violations it finds, as sentences.  It reads with the owner's rights and
trusts nothing but the bytes in raw.page: settlements are made from them anew and compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text

from include.catchup.sources import Source
from include.model import RecordContext, Settlement, Status
from include.warehouse.tables import CANONICAL_COLUMNS


def violations(
    connection: Connection, source: Source, provider_keys: Iterable[str] | None = None
) -> list[str]:
    """Everything that is wrong with `source`.

    `provider_keys` are the keys of all records the provider shows; given only when the cursor is
    known to stand at the provider's end.
    """
    found = [
        *_raw_is_what_arrived(connection, source),
        *_batches_add_up(connection, source),
        *_every_record_has_one_fate(connection, source),
        *_core_is_what_raw_says(connection, source),
    ]
    if provider_keys is not None:
        found += _nothing_is_lost(connection, source, provider_keys)
    return found


def _nothing_is_lost(
    connection: Connection, source: Source, provider_keys: Iterable[str]
) -> Iterator[str]:
    landed = set(
        connection.scalars(
            text("SELECT record_key FROM raw.record WHERE source = :source"),
            {"source": source.name},
        )
    )
    expected = set(provider_keys)
    if missing := expected - landed:
        yield f"{len(missing)} records of the provider are not in raw, such as {min(missing)}"
    if invented := landed - expected:
        yield f"{len(invented)} records in raw are not the provider's, such as {min(invented)}"


def _raw_is_what_arrived(connection: Connection, source: Source) -> Iterator[str]:
    seen = set()
    for row in _payloads(connection, source):
        if sha256(row.payload).digest() != bytes(row.content_sha256):
            yield f"record {row.record_id} is not the text that its digest was taken of"
        identity = (row.record_key, bytes(row.content_sha256))
        if source.dedupe == "anywhere" and identity in seen:
            yield f"record {row.record_key} is landed twice with the same text"
        seen.add(identity)


def _batches_add_up(connection: Connection, source: Source) -> Iterator[str]:
    counted = connection.execute(
        text(
            "SELECT batch.*,"
            " (SELECT count(*) FROM raw.record WHERE record.batch_id = batch.batch_id) AS in_raw,"
            " (SELECT count(*) FROM core.settlement"
            "  WHERE settlement.batch_id = batch.batch_id) AS in_core,"
            " (SELECT count(*) FROM core.settlement"
            "  WHERE settlement.batch_id = batch.batch_id AND is_applied) AS applied,"
            " (SELECT count(*) FROM staging.settlement"
            "  WHERE settlement.batch_id = batch.batch_id) AS staged,"
            " (SELECT count(*) FROM ops.quarantine WHERE quarantine.batch_id = batch.batch_id"
            "  AND quarantine.state <> 'retried') AS held_back,"
            " (SELECT count(*) FROM ops.quarantine"
            "  WHERE replay_batch_id = batch.batch_id) AS replays"
            " FROM ops.batch WHERE source = :source ORDER BY batch_id"
        ),
        {"source": source.name},
    )
    for batch in counted:
        name = f"batch {batch.batch_id}"
        own = batch.replays if batch.kind == "replay" else batch.in_raw
        if batch.landed != own:
            yield f"{name} counts {batch.landed} landed records, but has {own}"
        if batch.state == "published":
            told = (batch.published, batch.not_applied)
            if told != (batch.applied, batch.in_core - batch.applied):
                yield f"{name} counts {told} published and not applied rows, but core has "
                yield f"{batch.in_core} of it, {batch.applied} applied"
            if batch.staged:
                yield f"{name} is published and still has {batch.staged} staged rows"
            if batch.quarantined != batch.held_back:
                yield f"{name} counts {batch.quarantined} quarantined, but has {batch.held_back}"
        elif batch.in_core:
            yield f"{name} is {batch.state}, but has {batch.in_core} rows in core"


def _every_record_has_one_fate(connection: Connection, source: Source) -> Iterator[str]:
    fates = connection.execute(
        text(
            "SELECT record.record_id, batch.state,"
            " (SELECT count(*) FROM core.settlement"
            "  WHERE settlement.record_id = record.record_id)"
            " + (SELECT count(*) FROM ops.quarantine"
            "  WHERE quarantine.record_id = record.record_id"
            "  AND quarantine.state IN ('open', 'discarded')) AS fates"
            " FROM raw.record JOIN ops.batch USING (batch_id)"
            " WHERE record.source = :source AND batch.state = 'published'"
        ),
        {"source": source.name},
    )
    waiting = set(
        connection.scalars(
            text(
                "SELECT record_id FROM ops.quarantine JOIN ops.batch"
                " ON batch.batch_id = quarantine.replay_batch_id"
                " WHERE batch.state <> 'published'"
            )
        )
    )
    for row in fates:
        if row.fates != 1 and row.record_id not in waiting:
            yield f"record {row.record_id} of a published batch has {row.fates} fates"


def _core_is_what_raw_says(connection: Connection, source: Source) -> Iterator[str]:
    """Normalizing every published record anew gives core, and its order gives what is current."""
    stored = {
        row.record_id: row
        for row in connection.execute(
            text("SELECT * FROM core.settlement WHERE source = :source"), {"source": source.name}
        )
    }
    yield from _versions_count_on(stored.values())
    by_subject: dict[str, list[tuple[str, int, Settlement]]] = defaultdict(list)
    for row in _payloads(connection, source):
        if (version := stored.get(row.record_id)) is None:
            continue
        made = source.normalize(row.payload, RecordContext(received_at=row.received_at))
        for column in (*CANONICAL_COLUMNS, "source_key", "provider_order", "previous_status"):
            if getattr(made, column) != getattr(version, column):
                yield f"record {row.record_id}: {column} is {getattr(version, column)!r} in core,"
                yield f" but raw says {getattr(made, column)!r}"
        if not version.is_rejected_by_decision:
            by_subject[made.source_key].append((made.provider_order, row.record_id, made))
    yield from _neighbours_agree(stored, by_subject)
    current = {
        row.source_key: row.record_id
        for row in connection.execute(
            text("SELECT * FROM core.settlement_current WHERE source = :source"),
            {"source": source.name},
        )
    }
    newest = {key: max(versions)[1] for key, versions in by_subject.items()}
    if current != newest:
        differing = sorted(
            key for key in current.keys() | newest.keys() if current.get(key) != newest.get(key)
        )
        yield f"{len(differing)} subjects have another current version, such as {differing[0]}"


def _versions_count_on(stored: Iterable[Any]) -> Iterator[str]:
    """Versions count on without a hole, each applied unless one before it is as far or further."""
    by_subject: dict[str, list[Any]] = defaultdict(list)
    for row in sorted(stored, key=lambda row: row.version):
        by_subject[row.source_key].append(row)
    for key, versions in by_subject.items():
        if [row.version for row in versions] != list(range(1, len(versions) + 1)):
            yield f"{key} has the versions {[row.version for row in versions]}"
        furthest = ""
        for row in versions:
            if row.is_applied != (row.provider_order > furthest):
                yield f"{key}: is_applied of version {row.version} is {row.is_applied}"
            furthest = max(furthest, row.provider_order)


def _neighbours_agree(
    stored: dict[int, Any], by_subject: dict[str, list[tuple[str, int, Settlement]]]
) -> Iterator[str]:
    for key, versions in by_subject.items():
        before: Settlement | None = None
        in_order = sorted(versions, key=lambda version: version[:2])
        for order, record_id, made in in_order:
            followed = [earlier for place, _, earlier in in_order if place < order]
            chain_break = _chain_break(made, followed[-1] if followed else None)
            if stored[record_id].chain_break != chain_break:
                yield f"{key}: chain_break of record {record_id} should be {chain_break}"
            is_change = before is not None and _canonical(before) != _canonical(made)
            if stored[record_id].is_change != is_change:
                yield f"{key}: is_change of record {record_id} should be {is_change}"
            rivals = {_canonical(rival) for place, _, rival in versions if place == order}
            if stored[record_id].is_contested != (len(rivals) > 1):
                yield f"{key}: is_contested of record {record_id} should be {len(rivals) > 1}"
            before = made


def _chain_break(made: Settlement, followed: Settlement | None) -> str | None:
    claimed = made.previous_status
    if followed is None:
        is_later = made.is_resettlement or claimed not in (None, Status.OPEN)
        return "original_missing" if is_later else None
    return "status_differs" if claimed not in (None, followed.status) else None


def _canonical(settlement: Settlement) -> tuple[Any, ...]:
    return tuple(getattr(settlement, column) for column in CANONICAL_COLUMNS)


def _payloads(connection: Connection, source: Source) -> Iterator[Any]:
    """Every record with its bytes, cut from its page here and not by the view."""
    rows = connection.execute(
        text(
            "SELECT record.*, page.body, page.received_at FROM raw.record"
            " JOIN raw.page USING (page_id) WHERE record.source = :source ORDER BY record_id"
        ),
        {"source": source.name},
    )
    for row in rows:
        yield _Payload(row)


class _Payload:
    def __init__(self, row: Any) -> None:
        self.record_id = row.record_id
        self.record_key = row.record_key
        self.content_sha256 = row.content_sha256
        self.received_at = row.received_at
        self.payload = bytes(row.body[row.byte_start : row.byte_start + row.byte_length])
