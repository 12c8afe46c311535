"""Batches: data objects that move from landing to published, whichever run or try pushes them.

A step claims every batch of its source that is in the state it works on, oldest first, and moves
each in one transaction that holds the batch's row.  A batch that another process has moved in the
meantime is simply no longer in that state: the claim comes back empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.tables import batch as batch_table

Done = TypeVar("Done")

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


def work_through(
    engine: Engine,
    source: str,
    condition: ColumnElement[bool],
    work: Callable[[Connection, Row[Any]], Done],
    *,
    writes_source: bool = False,
    batch_ids: Sequence[int] | None = None,
) -> list[Done]:
    """Do `work` on every batch of `source` that meets `condition`, oldest first; of `batch_ids`
    only, if they are given.

    Each is worked on in one transaction that holds its row, and before it the source's lock if it
    `writes_source`.  A batch whose work fails stays as it was and keeps no other back: the first
    such error is raised after all of them.
    """
    done: list[Done] = []
    failed: list[Exception] = []
    for batch_id in waiting(engine, source, condition) if batch_ids is None else batch_ids:
        try:
            with transaction(engine, "loader") as connection:
                if writes_source:
                    lock_source(connection, source)
                batch = claim(connection, batch_id, condition)
                if batch is not None:
                    done.append(work(connection, batch))
        except Exception as error:  # noqa: BLE001
            error.add_note(
                f"This was batch {batch_id} of {source}. It stands as it did before; other batches "
                "were worked on. Clear this task to try it again."
            )
            failed.append(error)
            if isinstance(error, DBAPIError) and (
                error.connection_invalidated or error.statement is None
            ):
                # The warehouse itself is away: the others would only wait for it one by one.
                break
    if failed:
        raise failed[0]
    return done


def claim(connection: Connection, batch_id: int, condition: ColumnElement[bool]) -> Row[Any] | None:
    """Lock the batch's row if it (still) meets `condition`; None if another has moved it on."""
    return connection.execute(
        select(batch_table).where(batch_table.c.batch_id == batch_id, condition).with_for_update()
    ).first()


def claim_several(
    connection: Connection, batch_ids: Collection[int], condition: ColumnElement[bool]
) -> list[Row[Any]]:
    """Lock those of the batches that (still) meet `condition`, oldest first."""
    these = select(batch_table).where(batch_table.c.batch_id.in_(batch_ids), condition)
    return list(connection.execute(these.order_by(batch_table.c.batch_id).with_for_update()))


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
