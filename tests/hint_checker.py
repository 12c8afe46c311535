"""The checker's part for what a socket hints at, which settles nothing; see `tests.checker`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256

from sqlalchemy import Connection, text

from include.providers.tote import Hint, read_hint


def hint_violations(connection: Connection) -> Iterator[str]:
    """Every message that was kept is a hint at a bet of the register, or held back."""
    hints = {
        row.record_id: row
        for row in connection.execute(
            text(
                "SELECT hint.*, bet.tote_id AS known FROM tote.hint"
                " LEFT JOIN tote.bet ON bet.tote_id = hint.tote_id"
            )
        )
    }
    held_back = set(connection.scalars(text("SELECT record_id FROM ops.quarantine")))
    records = connection.execute(
        text(
            "SELECT record.*, page.body FROM raw.record JOIN raw.page USING (page_id)"
            " JOIN ops.batch ON batch.batch_id = record.batch_id WHERE batch.kind = 'evidence'"
            " AND batch.source = 'tote' ORDER BY record_id"
        )
    ).all()
    for record in records:
        body = bytes(record.body)[record.byte_start :][: record.byte_length]
        message, hint = read_hint(body), hints.pop(record.record_id, None)
        if sha256(body).digest() != bytes(record.content_sha256):
            yield f"message {record.record_id} is not the text that its digest was taken of"
        if isinstance(message, Hint):
            told = (message.bet_id, message.message_type, message.return_amount, message.bet_id)
            if hint is None:
                yield f"message {record.record_id} is no hint"
            elif (hint.tote_id, hint.message_type, hint.return_amount, hint.known) != told:
                yield f"message {record.record_id} is another hint than it says, or at no bet"
        elif record.record_id not in held_back:
            yield f"message {record.record_id} cannot be read, and is not held back"
    if hints:
        yield f"{len(hints)} hints were never received, such as {min(hints)}"
    yield from _evidence_adds_up(connection, Counter(record.batch_id for record in records))


def _evidence_adds_up(connection: Connection, landed: Counter[int]) -> Iterator[str]:
    """Nothing of it is on its way to core, and every message is counted once."""
    batches = connection.execute(
        text("SELECT * FROM ops.batch WHERE kind = 'evidence' AND source = 'tote'")
    )
    for batch in batches:
        name = f"batch {batch.batch_id} of evidence"
        if batch.state not in ("landing", "published"):
            yield f"{name} is {batch.state}"
        if batch.landed != landed[batch.batch_id]:
            yield f"{name} counts {batch.landed} messages, but has {landed[batch.batch_id]}"
        is_closed = batch.state == "published"
        if is_closed and batch.landed != batch.evidence_only + batch.quarantined:
            yield f"{name} landed {batch.landed} messages, which is not what became of them"
    in_core = connection.scalar(
        text(
            "SELECT count(*) FROM core.settlement JOIN ops.batch USING (batch_id)"
            " WHERE kind = 'evidence'"
        )
    )
    if in_core:
        yield f"{in_core} messages of a socket are in core"
