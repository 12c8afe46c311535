"""Versions of a settlement that contradict each other: a person says which one counts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused
from include.warehouse.publishing import recompute_subjects
from include.warehouse.tables import settlement


def _choose_version(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    source_key = asked.detail["source_key"]
    rivals = and_(
        settlement.c.source == asked.source,
        settlement.c.source_key == source_key,
        settlement.c.provider_order == asked.detail["provider_order"],
    )
    before = _versions(connection, rivals)
    contested = [str(one["record_id"]) for one in before if one["is_contested"]]
    chosen = answer.text("record_id")
    if chosen not in contested:
        raise DecisionRefused(
            f"Record {chosen or '(none given)'} is not one of the contested versions of "
            f"{source_key}.",
            f"Give in `record_id` one of: {', '.join(contested) or 'none is contested any more'}.",
        )
    connection.execute(
        update(settlement)
        .where(rivals, settlement.c.record_id != int(chosen))
        .values(is_rejected_by_decision=True)
    )
    recompute_subjects(connection, asked.source, [source_key])
    return Change({"versions": before}, {"versions": _versions(connection, rivals)})


def _versions(connection: Connection, rivals: Any) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            settlement.c.record_id,
            settlement.c.version,
            settlement.c.status,
            settlement.c.outcome,
            settlement.c.is_contested,
            settlement.c.is_rejected_by_decision,
        )
        .where(rivals)
        .order_by(settlement.c.record_id)
    )
    return [dict(row) for row in rows.mappings()]


DECISIONS: dict[tuple[str, str], Decide] = {
    ("settlement_contested", "choose_version"): _choose_version,
}
