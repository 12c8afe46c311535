"""The pages of a feed as they arrived, and which of their records are new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, func, select, text

from include.model import Record
from include.warehouse.batches import move
from include.warehouse.database import array_literal, copy_binary, copy_rows
from include.warehouse.quarantine import HeldBack, quarantine_records
from include.warehouse.tables import batch as batch_table
from include.warehouse.tables import page as page_table
from include.warehouse.tables import page_id_sequence
from include.warehouse.tables import record as record_table

# anywhere: a log never repeats itself, so the same key and text is a duplicate wherever it stands.
# texts: the same, but a key may well have several texts, such as the states of a bet.
# latest: a state may return (A, B, A), so only the text that the key was last seen with is one.
# kept: the same, by the text that was landed last.
# key: only what is not there at all is new, in whatever words it is told again.
# Where a state may return, what came in a batch that a decision discarded counts as not there: the
# provider tells how things stand, so it is landed, and checked, again.
Dedupe = Literal["anywhere", "texts", "latest", "kept", "key"]

_CONFLICTS_KEPT = 100
# One look-up a record, so that the cost does not grow with the pages.
_WITH_PAGE = (
    "LEFT JOIN LATERAL (SELECT received_at FROM raw.page"
    " WHERE page.page_id = record.page_id LIMIT 1) AS page ON true"
)
_NOT_DISCARDED = (
    "AND NOT EXISTS (SELECT FROM ops.batch"
    " WHERE batch.batch_id = record.batch_id AND batch.state = 'discarded')"
)
_PAGE_COLUMNS = (
    "page_id",
    "source",
    "feed",
    "batch_id",
    "requested_at",
    "received_at",
    "request",
    "http_status",
    "content_type",
    "body",
    "record_count",
    "provider_count",
    "undecodable_reason",
)
_RECORD_COLUMNS = (
    "page_id",
    "byte_start",
    "byte_length",
    "source",
    "record_key",
    "content_sha256",
    "batch_id",
)


@dataclass(frozen=True)
class ArrivedPage:
    """A page as it arrived, and the records found in it with the SHA-256 of their texts.

    `unreadable` tells by key why records of it cannot be read at all: new ones are quarantined.
    """

    request: str
    requested_at: datetime
    received_at: datetime
    body: bytes = field(repr=False)
    http_status: int | None
    content_type: str | None
    records: Sequence[tuple[Record, bytes]] = ()
    provider_count: int | None = None
    unknown_fields: frozenset[str] = frozenset()
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Pages:
    """The pages of one feed, landed within a transaction of the caller's that holds the source."""

    def __init__(self, source: str, feed: str) -> None:
        self._source = source
        self._feed = feed

    def land(
        self,
        connection: Connection,
        batch_id: int,
        pages: Sequence[ArrivedPage],
        dedupe: Dedupe,
        **cursor_reached: Any,
    ) -> int:
        """Land what is new in the pages into the batch; returns how many records were."""
        known = self._known(connection, pages, dedupe)
        conflicts: list[str] = []
        fresh = [(page, _fresh(page, known, dedupe, conflicts)) for page in pages]
        stored = [(page, records) for page, records in fresh if records]
        landed = sum(len(records) for _, records in stored)
        received = sum(len(page.records) for page in pages)
        counts = {
            "pages_received": len(pages),
            "pages_stored": len(stored),
            "pages_miscounted": sum(_is_miscounted(page) for page in pages),
            "received": received,
            "landed": landed,
            "duplicates": received - landed,
        }
        _count(connection, batch_id, counts, **cursor_reached)
        _note(connection, batch_id, pages, conflicts)
        if stored:
            page_ids = self._store(connection, batch_id, [page for page, _ in stored])
            self._store_records(
                connection, batch_id, zip(page_ids, (new for _, new in stored), strict=True)
            )
            self._quarantine_unreadable(connection, batch_id, stored)
        return landed

    def _store_records(
        self,
        connection: Connection,
        batch_id: int,
        found: Iterable[tuple[int, list[tuple[Record, bytes]]]],
    ) -> None:
        """Store the new records of each page, and note how far the batch's records reach."""
        before = connection.scalar(select(func.max(record_table.c.record_id))) or 0
        copy_rows(
            connection,
            record_table,
            _RECORD_COLUMNS,
            (
                (
                    page_id,
                    record.byte_start,
                    record.byte_length,
                    self._source,
                    record.record_key,
                    digest,
                    batch_id,
                )
                for page_id, records in found
                for record, digest in records
            ),
        )
        reach = connection.execute(
            select(func.min(record_table.c.record_id), func.max(record_table.c.record_id)).where(
                record_table.c.record_id > before, record_table.c.batch_id == batch_id
            )
        ).one()
        move(
            connection,
            batch_id,
            record_id_first=func.coalesce(batch_table.c.record_id_first, reach[0]),
            record_id_last=reach[1],
        )

    def _quarantine_unreadable(
        self,
        connection: Connection,
        batch_id: int,
        stored: Iterable[tuple[ArrivedPage, list[tuple[Record, bytes]]]],
    ) -> None:
        """Hold back the new records that cannot be read; their keys are digests of their texts."""
        reasons = {
            record.record_key: page.unreadable[record.record_key]
            for page, records in stored
            for record, _ in records
            if record.record_key in page.unreadable
        }
        if not reasons:
            return
        landed = connection.execute(
            select(record_table.c.record_id, record_table.c.record_key).where(
                record_table.c.source == self._source,
                record_table.c.record_key.in_(list(reasons)),
                record_table.c.batch_id == batch_id,
            )
        )
        quarantine_records(
            connection,
            self._source,
            batch_id,
            "raw",
            [HeldBack(record_id, "unreadable", reasons[key]) for record_id, key in landed.all()],
        )

    def _known(
        self, connection: Connection, pages: Sequence[ArrivedPage], dedupe: Dedupe
    ) -> dict[str, list[bytes]]:
        """The digests already landed under the pages' keys, oldest first: as they were landed, or,
        for `latest`, as they were seen, for what was seen first may land last.
        """
        keys = {record.record_key for page in pages for record, _ in page.records}
        known: dict[str, list[bytes]] = {}
        if not keys:
            return known
        for key, digest in connection.execute(
            text(
                "SELECT record_key, content_sha256 FROM raw.record"
                f" {_WITH_PAGE if dedupe == 'latest' else ''}"
                " WHERE source = :source AND record_key = ANY(CAST(:keys AS text[]))"
                f" {_NOT_DISCARDED if dedupe in ('latest', 'kept') else ''}"
                f" ORDER BY {'page.received_at NULLS FIRST,' if dedupe == 'latest' else ''}"
                " record_id"
            ),
            {"source": self._source, "keys": array_literal(keys)},
        ).all():
            known.setdefault(key, []).append(bytes(digest))
        return known

    def _store(
        self,
        connection: Connection,
        batch_id: int,
        pages: Sequence[ArrivedPage],
        undecodable_reason: str | None = None,
    ) -> list[int]:
        """Store the bytes of each page; returns the pages' ids."""
        _ensure_months(connection, pages)
        page_ids = list(
            connection.scalars(
                select(page_id_sequence.next_value()).select_from(
                    func.generate_series(1, len(pages))
                )
            )
        )
        copy_binary(
            connection,
            page_table,
            _PAGE_COLUMNS,
            (
                (
                    page_id,
                    self._source,
                    self._feed,
                    batch_id,
                    page.requested_at,
                    page.received_at,
                    page.request,
                    page.http_status,
                    page.content_type,
                    page.body,
                    None if undecodable_reason else len(page.records),
                    page.provider_count,
                    undecodable_reason,
                )
                for page_id, page in zip(page_ids, pages, strict=True)
            ),
        )
        return page_ids

    def keep_undecodable(
        self, connection: Connection, batch_id: int, page: ArrivedPage, reason: str
    ) -> int:
        """Store the bytes of a page that cannot be decoded; returns the page's id."""
        (page_id,) = self._store(connection, batch_id, [page], reason)
        _count(connection, batch_id, {"pages_received": 1, "pages_stored": 1})
        return page_id


def _fresh(
    page: ArrivedPage, known: dict[str, list[bytes]], dedupe: Dedupe, conflicts: list[str]
) -> list[tuple[Record, bytes]]:
    """The page's records that are not duplicates; they are known from then on.

    The keys of those that contradict what is known are added to `conflicts`.
    """
    fresh = []
    for record, digest in page.records:
        digests = known.setdefault(record.record_key, [])
        if _is_duplicate(digest, digests, dedupe):
            continue
        if digests and dedupe == "anywhere":
            conflicts.append(record.record_key)
        digests.append(digest)
        fresh.append((record, digest))
    return fresh


def _is_duplicate(digest: bytes, known: Sequence[bytes], dedupe: Dedupe) -> bool:
    match dedupe:
        case "anywhere" | "texts":
            return digest in known
        case "latest" | "kept":
            return digest in known[-1:]
        case "key":
            return bool(known)


def _ensure_months(connection: Connection, pages: Sequence[ArrivedPage]) -> None:
    """Make the months of raw.page that are missing, before this transaction writes into any.

    A new month locks the whole table for a moment; asked for after a write, two transactions could
    wait for each other.
    """
    by_month = {page.received_at.astimezone(UTC).strftime("%Y-%m"): page for page in pages}
    for _, page in sorted(by_month.items(), key=lambda month: month[0]):
        connection.execute(
            text("SELECT raw.ensure_page_month(:received_at)"), {"received_at": page.received_at}
        )


def _count(connection: Connection, batch_id: int, counts: dict[str, int], **values: Any) -> None:
    added = {name: batch_table.c[name] + count for name, count in counts.items()}
    move(connection, batch_id, **added, **values)


def _note(
    connection: Connection,
    batch_id: int,
    pages: Sequence[ArrivedPage],
    conflicts: Sequence[str],
) -> None:
    """Add to the batch what is odd about its pages."""
    if not conflicts and not any(page.unknown_fields for page in pages):
        return
    noted = connection.execute(
        select(batch_table.c.unknown_fields, batch_table.c.conflicting_keys).where(
            batch_table.c.batch_id == batch_id
        )
    ).one()
    unknown_fields = set(noted.unknown_fields).union(*(page.unknown_fields for page in pages))
    conflicting_keys = list(dict.fromkeys([*noted.conflicting_keys, *conflicts]))
    move(
        connection,
        batch_id,
        unknown_fields=sorted(unknown_fields),
        conflicting_keys=conflicting_keys[:_CONFLICTS_KEPT],
    )


def _is_miscounted(page: ArrivedPage) -> bool:
    return page.provider_count is not None and page.provider_count != len(page.records)
