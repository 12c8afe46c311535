"""Landing: pages and slim records into raw, with the cursor, in one transaction each time.

A page's bytes are stored as they arrived, once, if they hold anything new.  Whether a record is
new is decided under the source's lock from its key and the digest of its text, so repeating a
page, overlapping with another run or dying at any moment lands nothing twice and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from include.model import Record
from include.warehouse.batches import IS_LANDING, claim, move, open_batch
from include.warehouse.database import (
    array_literal,
    copy_binary,
    copy_rows,
    lock_source,
    transaction,
)
from include.warehouse.findings import Finding, open_finding
from include.warehouse.leases import Lease, check_lease
from include.warehouse.quarantine import HeldBack, open_count, quarantine_records
from include.warehouse.tables import batch as batch_table
from include.warehouse.tables import cursor as cursor_table
from include.warehouse.tables import gap as gap_table
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

# What else belongs into the transaction that lands a page.
Also = Callable[[Connection], None]

# fetch: what the provider sends. fill: what closes a gap, and leaves the cursor where it is.
# evidence: what is kept and settles nothing; once closed, no step takes it up.
Kind = Literal["fetch", "fill", "evidence"]

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


class CursorMoved(Exception):
    """Another run has moved the cursor since it was read: it is landing the same pages."""


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


@dataclass(frozen=True)
class Cursor:
    """Where a feed stands: `position` in the source's own terms, `revision` for compare-and-set."""

    position: dict[str, Any]
    revision: int
    stopped_by_finding_id: int | None


@dataclass(frozen=True)
class Gap:
    """Records between two positions that may be missing; `subjects` can be asked for singly."""

    range_after: str | None
    range_before: str
    reason: str
    subjects: tuple[str, ...] = ()


def place_after_entry(position: dict[str, Any]) -> str | None:
    """How the position of a log is told: by the entry after which it is read on."""
    return position.get("since_id")


class Landing:
    """One source's landing in one run: a batch that takes pages until it is closed.

    With a `lease`, nothing is written by whoever has lost it: that raises `LeaseLost`.  `place`
    tells a position as a text.
    """

    def __init__(
        self,
        engine: Engine,
        source: str,
        feed: str,
        dedupe: Dedupe,
        run_id: str | None,
        kind: Kind = "fetch",
        *,
        lease: Lease | None = None,
        place: Callable[[dict[str, Any]], str | None] = place_after_entry,
    ) -> None:
        self.source = source
        self._engine = engine
        self.feed = feed
        self._dedupe = dedupe
        self._run_id = run_id
        self._kind = kind
        self._lease = lease
        self._place = place
        self._pages = _Pages(source, feed)
        with self._transaction() as connection:
            if kind != "fill":
                _close_left_open(connection, source, feed)
            self.batch_id = open_batch(connection, source, feed, kind, run_id)

    def read_cursor(self) -> Cursor:
        """Where the feed stands; a feed never read before stands at the empty position."""
        with transaction(self._engine, "loader") as connection:
            connection.execute(
                insert_or_skip(cursor_table)
                .values(source=self.source, feed=self.feed, position={})
                .on_conflict_do_nothing()
            )
            row = connection.execute(select(cursor_table).where(*self._this_cursor())).one()
        return Cursor(row.position, row.revision, row.stopped_by_finding_id)

    def commit(
        self,
        pages: Sequence[ArrivedPage],
        cursor: Cursor,
        position: dict[str, Any],
        gaps: Sequence[Gap] = (),
        also: Also | None = None,
    ) -> Cursor:
        """Land `pages` and move the cursor from `cursor` to `position`, all or nothing.

        `also` is done last, in the same transaction.  Raises `CursorMoved`, with nothing landed, if
        the cursor no longer stands at `cursor`.
        """
        with self._writing() as connection:
            moved = self._move_cursor(connection, cursor, position)
            self._pages.land(
                connection,
                self.batch_id,
                pages,
                self._dedupe,
                cursor_before=case(
                    (batch_table.c.cursor_after.is_(None), self._place(cursor.position)),
                    else_=batch_table.c.cursor_before,
                ),
                cursor_after=self._place(position),
            )
            for gap in gaps:
                self._record_gap(connection, gap)
            if also is not None:
                also(connection)
        return moved

    def add(self, *pages: ArrivedPage, also: Also | None = None) -> int:
        """Land pages and leave the cursor where it is; returns how many records were new.

        `also` is done last, in the same transaction.
        """
        with self._writing() as connection:
            landed = self._pages.land(connection, self.batch_id, pages, self._dedupe)
            if also is not None:
                also(connection)
        return landed

    def stop(
        self, page: ArrivedPage, reason: str, since_id: str | None, *, is_leap: bool = False
    ) -> int:
        """Keep a page that cannot be decoded and stop the feed there; returns the finding.

        If it `is_leap`, its last entry is no place to go on from: a person has to name one.
        `since_id` is the cursor that was asked with: the feed's own, or that of a second reading.
        A feed that another run has stopped meanwhile goes on waiting for that finding alone.
        """
        return self._stop_at_page(
            "undecodable_page",
            page,
            reason,
            f"{self.feed} after {since_id or 'the start'}",
            {"since_id": since_id, "is_leap": is_leap},
        )

    def stop_at_answer(self, page: ArrivedPage, reason: str, asked: dict[str, Any]) -> int:
        """The same for an answer to what was `asked`, which is no place to go on after."""
        return self._stop_at_page("undecodable_answer", page, reason, page.request, asked)

    def stop_at_cursor(self, since_id: str, status: int | None, refusal: str) -> int:
        """Stop the feed at a cursor that the provider refuses for good; returns the finding.

        `since_id` and a feed that is stopped already are as in `stop`.
        """
        with self._writing() as connection:
            return self._stop_by(
                connection,
                Finding(
                    kind="cursor_refused",
                    source=self.source,
                    subject=f"{self.feed} after {since_id}",
                    summary=f"{self.source} refuses to read {self.feed} on after entry "
                    f"{since_id} (status {status}), though it answers without a cursor.",
                    kept="Everything up to that entry is landed and goes on; the feed stops there.",
                    detail={"since_id": since_id, "status": status, "refusal": refusal},
                ),
            )

    def close(self, *, has_reached_end: bool) -> Row[Any]:
        """Take no more rows; a batch with nothing in it is published at once.  Returns its row."""
        with self._transaction() as connection:
            if claim(connection, self.batch_id, IS_LANDING) is not None:
                _close(connection, self.batch_id, has_reached_end=has_reached_end)
                if has_reached_end:
                    connection.execute(
                        update(cursor_table)
                        .where(*self._this_cursor())
                        .values(completed_at=func.now())
                    )
            return _read_batch(connection, self.batch_id)

    def gaps_to_ask(self) -> list[Row[Any]]:
        """Open gaps whose subjects have not been asked for."""
        with transaction(self._engine, "loader") as connection:
            return list(
                connection.execute(
                    select(gap_table)
                    .where(
                        gap_table.c.source == self.source,
                        gap_table.c.feed == self.feed,
                        gap_table.c.state == "open",
                        gap_table.c.tried_at.is_(None),
                        gap_table.c.subjects != text("'{}'"),
                    )
                    .order_by(gap_table.c.gap_id)
                )
            )

    def land_subjects(self, gap_id: int, pages: Sequence[ArrivedPage]) -> int:
        """Land what was asked for subject by subject to fill a gap; returns how much was new.

        It is a batch of its own, so that it cannot hold up what the log itself gave.  What is there
        already is never new: asked for by subject, an entry may be told in fewer words.
        """
        with transaction(self._engine, "loader") as connection:
            lock_source(connection, self.source)
            batch_id = open_batch(connection, self.source, self.feed, "fill", self._run_id)
            landed = self._pages.land(connection, batch_id, pages, "key")
            connection.execute(
                update(gap_table)
                .where(gap_table.c.gap_id == gap_id, gap_table.c.state == "open")
                .values(tried_at=func.now())
            )
            _close(connection, batch_id)
        return landed

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction of the loader, before which nobody else has taken our lease."""
        with transaction(self._engine, "loader") as connection:
            if self._lease is not None:
                check_lease(connection, self._lease)
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the loader that holds the source and an open batch of this landing."""
        batch_id = self.batch_id
        try:
            with self._transaction() as connection:
                lock_source(connection, self.source)
                if claim(connection, batch_id, IS_LANDING) is None:
                    # Another run has closed our batch, taking us for dead; we go on in a new one.
                    self.batch_id = open_batch(
                        connection, self.source, self.feed, self._kind, self._run_id
                    )
                yield connection
        except BaseException:
            # A batch that was opened in this transaction is gone with it.
            self.batch_id = batch_id
            raise

    def _stop_at_page(
        self, kind: str, page: ArrivedPage, reason: str, subject: str, detail: dict[str, Any]
    ) -> int:
        with self._writing() as connection:
            page_id = self._pages.keep_undecodable(connection, self.batch_id, page, reason)
            return self._stop_by(
                connection,
                Finding(
                    kind=kind,
                    source=self.source,
                    subject=subject,
                    summary=f"A page of {self.source} {self.feed} cannot be decoded: {reason}",
                    kept=f"Its {len(page.body)} bytes are kept as raw.page {page_id}; the feed "
                    "stops before it, and what came earlier goes on.",
                    detail={
                        "page_id": page_id,
                        "received_at": page.received_at.isoformat(),
                        "request": page.request,
                        "reason": reason,
                        **detail,
                    },
                    batch_id=self.batch_id,
                ),
            )

    def _stop_by(self, connection: Connection, finding: Finding) -> int:
        """Have the feed wait for `finding`, or go on waiting for the one that it waits for."""
        stopped_by = connection.scalar(
            select(cursor_table.c.stopped_by_finding_id).where(*self._this_cursor())
        )
        if stopped_by is not None:
            return int(stopped_by)
        finding_id = open_finding(connection, finding)
        connection.execute(
            update(cursor_table)
            .where(*self._this_cursor())
            .values(stopped_by_finding_id=finding_id)
        )
        return finding_id

    def _this_cursor(self) -> tuple[Any, Any]:
        return cursor_table.c.source == self.source, cursor_table.c.feed == self.feed

    def _move_cursor(
        self, connection: Connection, cursor: Cursor, position: dict[str, Any]
    ) -> Cursor:
        moved = connection.execute(
            update(cursor_table)
            .where(*self._this_cursor(), cursor_table.c.revision == cursor.revision)
            .values(position=position, revision=cursor.revision + 1, moved_at=func.now())
        )
        if moved.rowcount != 1:
            raise CursorMoved(
                f"Another run is landing {self.source} {self.feed}. What this run landed before "
                "is kept, and the other goes on from there: nothing to do."
            )
        return replace(cursor, position=position, revision=cursor.revision + 1)

    def _record_gap(self, connection: Connection, gap: Gap) -> None:
        gap_id = connection.execute(
            insert(gap_table)
            .values(
                source=self.source,
                feed=self.feed,
                range_after=gap.range_after,
                range_before=gap.range_before,
                reason=gap.reason,
                subjects=list(gap.subjects),
            )
            .returning(gap_table.c.gap_id)
        ).scalar_one()
        open_gap_finding(connection, self.source, self.feed, gap_id, gap)


class _Pages:
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


def land_whole(
    connection: Connection,
    source: str,
    feed: str,
    dedupe: Dedupe,
    run_id: str | None,
    pages: Sequence[ArrivedPage],
    kind: Kind = "fetch",
    broken: Mapping[str, ArrivedPage] | None = None,
) -> Row[Any]:
    """Land pages that belong together as a batch of their own, whole, in this transaction.

    The caller holds the source's lock.  `broken` are pages that cannot be decoded, by the reason.
    Returns the batch, which takes no more rows.
    """
    batch_id = open_batch(connection, source, feed, kind, run_id)
    landed = _Pages(source, feed)
    landed.land(connection, batch_id, pages, dedupe)
    for reason, page in (broken or {}).items():
        landed.keep_undecodable(connection, batch_id, page, reason)
    _close(connection, batch_id, has_reached_end=not broken)
    return _read_batch(connection, batch_id)


def open_gap_finding(connection: Connection, source: str, feed: str, gap_id: int, gap: Gap) -> int:
    """Ask a person about a gap."""
    return open_finding(
        connection,
        Finding(
            kind="gap",
            source=source,
            subject=f"{feed}, gap {gap_id}",
            summary=f"Records of {source} {feed} after {gap.range_after or 'the start'} and before "
            f"{gap.range_before} may be missing: {gap.reason}",
            kept="What did arrive is kept and goes on; the range is recorded as a gap.",
            detail={"gap_id": gap_id, "after": gap.range_after, "before": gap.range_before},
        ),
    )


def _read_batch(connection: Connection, batch_id: int) -> Row[Any]:
    return connection.execute(select(batch_table).where(batch_table.c.batch_id == batch_id)).one()


def _close_left_open(connection: Connection, source: str, feed: str) -> None:
    """Close what an earlier run left open; if that run still lives it goes on in a new batch."""
    left = connection.scalars(
        select(batch_table.c.batch_id)
        .where(batch_table.c.source == source, batch_table.c.feed == feed, IS_LANDING)
        .order_by(batch_table.c.batch_id)
        .with_for_update()
    )
    for batch_id in left.all():
        _close(connection, batch_id)


def _close(connection: Connection, batch_id: int, **values: Any) -> None:
    """Take no more rows; what leaves nothing to check, normalize or publish is published."""
    is_evidence = batch_table.c.kind == "evidence"
    is_done = or_(
        is_evidence,
        and_(
            batch_table.c.landed == 0,
            batch_table.c.pages_miscounted == 0,
            func.cardinality(batch_table.c.unknown_fields) == 0,
        ),
    )
    held_back = case((is_evidence, open_count(connection, batch_id)), else_=0)
    steps = ("raw_checked_at", "normalized_at", "settlements_checked_at", "published_at")
    move(
        connection,
        batch_id,
        state=case((is_done, "published"), else_="landed"),
        landed_at=func.now(),
        quarantined=held_back,
        evidence_only=case((is_evidence, batch_table.c.landed - held_back), else_=0),
        **{step: case((is_done, func.now())) for step in steps},
        **values,
    )


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
