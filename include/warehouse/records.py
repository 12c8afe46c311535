"""Reading landed records back with their exact text, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, Row, text

from include.warehouse.database import as_moment, copy_out

_OWN_RECORDS = """
SELECT record_id, page_id, byte_start, byte_length
FROM raw.record
WHERE record_id BETWEEN :first AND :last AND batch_id = :batch_id
  AND NOT EXISTS (
    SELECT FROM ops.quarantine
    WHERE quarantine.batch_id = :batch_id AND quarantine.record_id = record.record_id
      AND quarantine.state = 'open'
  )
ORDER BY record_id
"""

_REPLAYED_RECORDS = """
SELECT record.record_id, page_id, byte_start, byte_length
FROM ops.quarantine AS origin
JOIN raw.record USING (record_id)
WHERE origin.replay_batch_id = :batch_id
  AND NOT EXISTS (
    SELECT FROM ops.quarantine
    WHERE quarantine.batch_id = :batch_id AND quarantine.record_id = record.record_id
      AND quarantine.state = 'open'
  )
ORDER BY record.record_id
"""

PAGES_BYTES_LIMIT = 32 * 2**20
"""Most bytes of pages that are held at once: what is asked for again and again leaves pages of
which next to nothing is a record.
"""

# Told by the server without reading the bodies.
_SIZES = "SELECT page_id, octet_length(body) AS size FROM raw.page WHERE page_id = ANY (:page_ids)"
_PAGES = "SELECT page_id, received_at, body FROM raw.page WHERE page_id IN ({page_ids})"
# Three values, each behind its length; the body follows.
_PAGE_HEAD = Struct("!h iq iq i")


class StoredRecord(NamedTuple):
    """A landed record, its exact bytes, and when its page arrived (UTC).

    Both are None if the page is not there any more, since its month was detached.
    """

    record_id: int
    payload: bytes | None
    received_at: datetime | None


def read_records(
    connection: Connection, batch: Row[Any], chunk: int
) -> Iterator[list[StoredRecord]]:
    """The batch's records that are not quarantined, in order of landing, `chunk` at a time."""
    statement = _REPLAYED_RECORDS if batch.kind == "replay" else _OWN_RECORDS
    slices = connection.execute(
        text(statement),
        {
            "batch_id": batch.batch_id,
            "first": batch.record_id_first,
            "last": batch.record_id_last,
        },
        execution_options={"yield_per": chunk},
    )
    for rows in slices.partitions(chunk):
        for part in _parts(connection, cast("Sequence[_Place]", rows)):
            yield _cut(connection, part)


_NO_PAGE = (None, None)
# record_id, page_id, byte_start, byte_length
_Place = tuple[int, int, int, int]


def _parts(connection: Connection, rows: Sequence[_Place]) -> Iterator[list[_Place]]:
    """The rows in parts whose pages hold no more than so many bytes together, or are but one."""
    page_ids = {page_id for _, page_id, _, _ in rows}
    sized = connection.execute(text(_SIZES), {"page_ids": [*page_ids]})
    sizes = {row.page_id: row.size for row in sized}
    part: list[_Place] = []
    known: set[int] = set()
    size = 0
    for row in rows:
        _, page_id, _, _ = row
        if page_id not in known:
            own = sizes.get(page_id, 0)
            if part and size + own > PAGES_BYTES_LIMIT:
                yield part
                part, known, size = [], set(), 0
            known.add(page_id)
            size += own
        part.append(row)
    if part:
        yield part


def _cut(connection: Connection, rows: Sequence[_Place]) -> list[StoredRecord]:
    """The records' texts, cut out of their pages, of which nothing is kept."""
    pages = _pages(connection, {page_id for _, page_id, _, _ in rows})
    return [
        StoredRecord(
            record_id,
            None if body is None else bytes(body[byte_start : byte_start + byte_length]),
            received_at,
        )
        for record_id, page_id, byte_start, byte_length in rows
        for body, received_at in (pages.get(page_id, _NO_PAGE),)
    ]


def _pages(
    connection: Connection, page_ids: set[int]
) -> Mapping[int, tuple[memoryview, datetime] | tuple[None, None]]:
    """The bytes of each page and when it arrived; a page whose month was detached is not there."""
    rows = copy_out(connection, _PAGES.format(page_ids=", ".join(map(str, sorted(page_ids)))))
    found: dict[int, tuple[memoryview, datetime]] = {}
    while rows:
        _, _, page_id, _, received_at, length = _PAGE_HEAD.unpack_from(rows)
        body, rows = rows[_PAGE_HEAD.size :][:length], rows[_PAGE_HEAD.size + length :]
        found[page_id] = body, as_moment(received_at)
    return found
