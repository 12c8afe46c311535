"""Reading landed records back with their exact text, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple

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
        pages = _pages(connection, {page_id for _, page_id, _, _ in rows})
        yield [
            StoredRecord(
                record_id,
                None if body is None else bytes(body[start : start + length]),
                received_at,
            )
            for record_id, page_id, start, length in rows
            for body, received_at in (pages.get(page_id, _NO_PAGE),)
        ]


_NO_PAGE = (None, None)


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
