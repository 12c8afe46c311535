"""Batches: data objects that move from landing to published, whichever run or try pushes them.

A step claims every batch of its source that is in the state it works on, oldest first, and moves
each in one transaction that holds the batch's row.  A batch that another process has moved in the
meantime is simply no longer in that state: the claim comes back empty.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, insert, select, update

from include.warehouse.database import transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.tables import batch as batch_table

# What each step works on.
IS_LANDING = batch_table.c.state == "landing"
AWAITS_RAW_CHECK = and_(batch_table.c.state == "landed", batch_table.c.raw_checked_at.is_(None))
AWAITS_NORMALIZE = and_(batch_table.c.state == "landed", batch_table.c.raw_checked_at.is_not(None))
AWAITS_SETTLEMENT_CHECK = and_(
    batch_table.c.state == "normalized", batch_table.c.settlements_checked_at.is_(None)
)
AWAITS_PUBLISH = and_(
    batch_table.c.state == "normalized", batch_table.c.settlements_checked_at.is_not(None)
)


def open_batch(
    connection: Connection, source: str, feed: str, kind: str, run_id: str | None
) -> int:
    """Open a batch that takes rows."""
    return int(
        connection.execute(
            insert(batch_table)
            .values(source=source, feed=feed, kind=kind, run_id=run_id)
            .returning(batch_table.c.batch_id)
        ).scalar_one()
    )


def waiting(engine: Engine, source: str, condition: ColumnElement[bool]) -> list[int]:
    """The batches of `source` that meet `condition`, oldest first."""
    with transaction(engine, "loader") as connection:
        return list(
            connection.scalars(
                select(batch_table.c.batch_id)
                .where(batch_table.c.source == source, condition)
                .order_by(batch_table.c.batch_id)
            )
        )


def claim(connection: Connection, batch_id: int, condition: ColumnElement[bool]) -> Row[Any] | None:
    """Lock the batch's row if it (still) meets `condition`; None if another has moved it on."""
    return connection.execute(
        select(batch_table).where(batch_table.c.batch_id == batch_id, condition).with_for_update()
    ).first()


def move(connection: Connection, batch_id: int, **values: Any) -> None:
    """Change columns of a batch that this transaction has claimed."""
    connection.execute(
        update(batch_table).where(batch_table.c.batch_id == batch_id).values(**values)
    )


def hold(connection: Connection, batch: Row[Any], reason: str, detail: dict[str, Any]) -> int:
    """Hold a claimed batch: nothing of it is published before a decision.  Returns the finding."""
    move(
        connection,
        batch.batch_id,
        state="held",
        held_at=func.now(),
        held_from=batch.state,
        held_reason=reason,
    )
    return open_finding(
        connection,
        Finding(
            kind="batch_held",
            source=batch.source,
            subject=f"batch {batch.batch_id}",
            summary=f"Batch {batch.batch_id} of {batch.source} is held: {reason}",
            kept="Everything that arrived is kept in raw; nothing of the batch is published. "
            "Later batches go on.",
            detail=detail,
            batch_id=batch.batch_id,
        ),
    )
