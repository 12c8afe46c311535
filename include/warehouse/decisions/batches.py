"""A batch that a gate holds, and records in quarantine: release, try again, or give up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from include.warehouse import batches
from include.warehouse.decisions.answers import (
    Answer,
    Change,
    Decide,
    DecisionRefused,
    as_json,
    lock_batch,
)
from include.warehouse.tables import (
    batch,
    finding,
    quarantine,
    staging_settlement,
    staging_settlement_leg,
)


def _release_batch(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    held = _held_batch(connection, asked)
    # What the raw gate held is not checked there again; the settlement gate always sees it anew,
    # since it is there that the failing rows go to quarantine.
    raw_checked_at = func.now() if held.held_from == "landed" else held.raw_checked_at
    return _move_batch(
        connection,
        held,
        state=held.held_from,
        is_released=True,
        raw_checked_at=raw_checked_at,
        settlements_checked_at=None,
    )


def _try_batch_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    held = _held_batch(connection, asked)
    _empty_staging(connection, held.batch_id)
    _close_quarantine_findings(connection, held.batch_id)
    return _move_batch(
        connection,
        held,
        state="landed",
        is_released=False,
        raw_checked_at=None,
        normalized_at=None,
        settlements_checked_at=None,
    )


def _discard_batch(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    held = _held_batch(connection, asked)
    _empty_staging(connection, held.batch_id)
    connection.execute(
        update(quarantine)
        .where(quarantine.c.batch_id == held.batch_id, quarantine.c.state == "open")
        .values(state="discarded")
    )
    _close_quarantine_findings(connection, held.batch_id)
    return _move_batch(connection, held, state="discarded", discarded=held.landed, quarantined=0)


def _held_batch(connection: Connection, asked: Row[Any]) -> Row[Any]:
    held = lock_batch(connection, asked.batch_id)
    if held.state != "held":
        raise DecisionRefused(
            f"Batch {held.batch_id} is not held any more: it is {held.state}.",
            "Look at its later findings.",
        )
    return held


def _move_batch(connection: Connection, held: Row[Any], **values: Any) -> Change:
    this = batch.c.batch_id == held.batch_id
    before = as_json(connection, batch, this)
    batches.move(
        connection, held.batch_id, held_at=None, held_from=None, held_reason=None, **values
    )
    return Change(before, as_json(connection, batch, this))


def _empty_staging(connection: Connection, batch_id: int) -> None:
    for table in (staging_settlement_leg, staging_settlement):
        connection.execute(delete(table).where(table.c.batch_id == batch_id))


def _close_quarantine_findings(connection: Connection, batch_id: int) -> None:
    """What was asked about the batch's quarantined records is answered with the batch."""
    connection.execute(
        update(finding)
        .where(
            finding.c.kind == "records_quarantined",
            finding.c.batch_id == batch_id,
            finding.c.state == "open",
        )
        .values(state="closed", closed_at=func.now(), closed_by="decision")
    )


# --- records_quarantined ---


def _replay_records(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    origin = _published_batch(connection, asked)
    if origin.kind == "evidence":
        raise DecisionRefused(
            f"Batch {origin.batch_id} is evidence, which settles nothing: its records would not "
            "become settlements however often they are tried.",
            "Decide discard to close it; they stay in raw.",
        )
    rows = _quarantined(asked)
    count, first, last = connection.execute(
        select(
            func.count(), func.min(quarantine.c.record_id), func.max(quarantine.c.record_id)
        ).where(rows)
    ).one()
    if not count:
        raise DecisionRefused(
            f"No record of finding {asked.finding_id} is in quarantine any more.",
            "Decide discard to close it.",
        )
    replay_batch_id = connection.execute(
        insert(batch)
        .values(
            source=origin.source,
            feed=origin.feed,
            kind="replay",
            state="landed",
            run_id=answer.run_id,
            landed_at=func.now(),
            received=count,
            landed=count,
            record_id_first=first,
            record_id_last=last,
        )
        .returning(batch.c.batch_id)
    ).scalar_one()
    connection.execute(
        update(quarantine).where(rows).values(state="replayed", replay_batch_id=replay_batch_id)
    )
    return Change(
        {"quarantined": count, "state": "open"},
        {"quarantined": count, "state": "replayed", "replay_batch_id": replay_batch_id},
    )


def _discard_records(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    _published_batch(connection, asked)
    count = connection.execute(
        update(quarantine).where(_quarantined(asked)).values(state="discarded")
    ).rowcount
    return Change(
        {"quarantined": count, "state": "open"}, {"quarantined": count, "state": "discarded"}
    )


def _quarantined(asked: Row[Any]) -> Any:
    return and_(
        quarantine.c.batch_id == asked.batch_id,
        quarantine.c.rule == asked.detail["rule"],
        quarantine.c.state == "open",
    )


def _published_batch(connection: Connection, asked: Row[Any]) -> Row[Any]:
    """The batch; its counts must be final before records leave its quarantine."""
    origin = lock_batch(connection, asked.batch_id)
    if origin.state != "published":
        raise DecisionRefused(
            f"Batch {origin.batch_id} is {origin.state} and not published yet.",
            "If it is held, decide on its finding batch_held first; else decide again when the "
            "next run has published it.",
        )
    return origin


DECISIONS: dict[tuple[str, str], Decide] = {
    ("batch_held", "release_batch"): _release_batch,
    ("batch_held", "try_again"): _try_batch_again,
    ("batch_held", "discard"): _discard_batch,
    ("records_quarantined", "replay"): _replay_records,
    ("records_quarantined", "discard"): _discard_records,
}
