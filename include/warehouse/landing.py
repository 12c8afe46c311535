"""Landing: pages and slim records into raw, with the cursor, in one transaction each time.

A page's bytes are stored as they arrived, once, if they hold anything new.  Whether a record is
new is decided under the source's lock from its key and the digest of its text, so repeating a
page, overlapping with another run or dying at any moment lands nothing twice and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, and_, case, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from include.warehouse.batches import IS_LANDING, claim, move, open_batch
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.leases import Lease, check_lease
from include.warehouse.pages import ArrivedPage, Dedupe, Pages
from include.warehouse.quarantine import open_count
from include.warehouse.tables import batch as batch_table
from include.warehouse.tables import cursor as cursor_table
from include.warehouse.tables import gap as gap_table

# What else belongs into the transaction that lands a page.
Also = Callable[[Connection], None]

# fetch: what the provider sends. fill: what closes a gap, and leaves the cursor where it is.
# evidence: what is kept and settles nothing; once closed, no step takes it up.
Kind = Literal["fetch", "fill", "evidence"]


class CursorMoved(Exception):
    """Another run has moved the cursor since it was read: it is landing the same pages."""


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
        self._pages = Pages(source, feed)
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
    landed = Pages(source, feed)
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
