"""What the engine answered, kept as the bytes that arrived: evidence that settles nothing."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import Connection, text

from include.model import Record
from include.providers.http import Answer
from include.warehouse.landing import land_whole
from include.warehouse.markets import SOURCE
from include.warehouse.pages import ArrivedPage

FEED = "answers"

# By when it landed, as `kept` says below: of two answers at once the first may have landed last.
_LATEST = text("""
SELECT record_id, content_sha256 FROM raw.record
WHERE source = :source AND record_key = :key
ORDER BY record_id DESC
LIMIT 1
""")


def keep_answer(
    connection: Connection, key: str, method: str, answer: Answer, run_id: str | None
) -> int | None:
    """Keep an answer under `key`, and give the record; the same again is not kept a second time.

    None for an answer without a body.  The caller holds the source's lock.
    """
    if not answer.body:
        return None
    digest = sha256(answer.body).digest()
    known = connection.execute(_LATEST, {"source": SOURCE, "key": key}).first()
    if known is not None and bytes(known.content_sha256) == digest:
        return int(known.record_id)
    record = (Record(key, 0, len(answer.body)), digest)
    page = arrived(answer, [record], method)
    batch = land_whole(connection, SOURCE, FEED, "kept", run_id, [page], "evidence")
    return int(batch.record_id_first)


def arrived(
    answer: Answer,
    records: Sequence[tuple[Record, bytes]] = (),
    method: str = "GET",
    unknown_fields: frozenset[str] = frozenset(),
) -> ArrivedPage:
    """An answer as a page, with what was found in it."""
    return ArrivedPage(
        request=f"{method} {answer.url_path}",
        requested_at=answer.requested_at,
        received_at=answer.received_at,
        body=answer.body,
        http_status=answer.status,
        content_type=answer.content_type,
        records=records,
        unknown_fields=unknown_fields,
    )
