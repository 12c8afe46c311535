"""Quarantine: records held back from their batch, each with the rule and the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from include.warehouse.findings import Finding, open_finding
from include.warehouse.tables import quarantine as quarantine_table

Stage = Literal["raw", "normalize", "settlement"]
_EXAMPLES = 10
_ROWS_PER_INSERT = 1000


class HeldBack(NamedTuple):
    """One record and why it is held back."""

    record_id: int
    rule: str
    reason: str


def quarantine_records(
    connection: Connection, source: str, batch_id: int, stage: Stage, held_back: Iterable[HeldBack]
) -> int:
    """Hold records back from a claimed batch; returns how many.  Repeating it changes nothing."""
    rows = [
        {"source": source, "batch_id": batch_id, "stage": stage, **held._asdict()}
        for held in held_back
    ]
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        statement = insert(quarantine_table).values(rows[start : start + _ROWS_PER_INSERT])
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["batch_id", "record_id"],
                set_={
                    "stage": statement.excluded.stage,
                    "rule": statement.excluded.rule,
                    "reason": statement.excluded.reason,
                    "state": "open",
                },
            )
        )
    return len(rows)


def retry_quarantined(connection: Connection, batch_id: int) -> None:
    """Take up again what `normalize` or the row rules held back: the batch is normalized anew."""
    connection.execute(
        update(quarantine_table)
        .where(
            quarantine_table.c.batch_id == batch_id,
            quarantine_table.c.state == "open",
            quarantine_table.c.stage.in_(("normalize", "settlement")),
        )
        .values(state="retried")
    )


def open_count(connection: Connection, batch_id: int) -> int:
    """How many of the batch's records are held back."""
    return int(
        connection.execute(
            select(func.count())
            .select_from(quarantine_table)
            .where(quarantine_table.c.batch_id == batch_id, quarantine_table.c.state == "open")
        ).scalar_one()
    )


def report_quarantined(connection: Connection, source: str, batch_id: int) -> None:
    """Open one finding per rule that holds records of the batch back, with examples."""
    for rule, count, examples in _by_rule(connection, batch_id):
        open_finding(
            connection,
            Finding(
                kind="records_quarantined",
                source=source,
                subject=f"batch {batch_id}, {rule}",
                summary=f"{count} records of batch {batch_id} of {source} are in quarantine: "
                f"{rule}.",
                kept="Their exact text is kept in raw; the other records of the batch go on.",
                detail={"rule": rule, "count": count, "examples": examples},
                batch_id=batch_id,
            ),
        )


def _by_rule(connection: Connection, batch_id: int) -> list[tuple[str, int, list[dict[str, Any]]]]:
    example = func.jsonb_build_object(
        "record_id", quarantine_table.c.record_id, "reason", quarantine_table.c.reason
    )
    rows = connection.execute(
        select(
            quarantine_table.c.rule,
            func.count(),
            func.array_agg(example)[1:_EXAMPLES],
        )
        .where(quarantine_table.c.batch_id == batch_id, quarantine_table.c.state == "open")
        .group_by(quarantine_table.c.rule)
        .order_by(quarantine_table.c.rule)
    )
    return [(rule, count, examples) for rule, count, examples in rows]
