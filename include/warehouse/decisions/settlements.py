"""Versions of a settlement that contradict each other: a person says which one counts.

That may be said anew: the versions stay where they are, and what was wrong is put right.  Which
versions were seen is said by `seen`, unless there are no more than the two that it takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, cast, select, update

from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused
from include.warehouse.decisions.seen import Held, stand_for
from include.warehouse.publishing import recompute_subjects
from include.warehouse.tables import finding, settlement

_FEWEST = 2
"""Contents that contradict each other: nobody can have seen fewer."""


def _choose_version(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Of all versions at the place, those rejected before included, the named one counts."""
    source_key = asked.detail["source_key"]
    rivals = and_(
        settlement.c.source == asked.source,
        settlement.c.source_key == source_key,
        settlement.c.provider_order == asked.detail["provider_order"],
    )
    before = _versions(connection, rivals)
    chosen = answer.text("record_id")
    _check_choice(connection, asked, before, chosen)
    _refuse_unseen(asked, before, answer.text("seen"))
    connection.execute(
        update(settlement)
        .where(rivals)
        .values(is_rejected_by_decision=settlement.c.record_id != int(chosen or 0))
    )
    recompute_subjects(connection, asked.source, [source_key])
    return Change({"versions": before}, {"versions": _versions(connection, rivals)})


def _check_choice(
    connection: Connection, asked: Row[Any], versions: Sequence[dict[str, Any]], chosen: str | None
) -> None:
    """Refuse what is no choice, and one that a newer finding asks for."""
    source_key = asked.detail["source_key"]
    others = [
        str(one["record_id"])
        for one in versions
        if one["is_contested"] or one["is_rejected_by_decision"]
    ]
    if chosen not in others:
        raise DecisionRefused(
            f"Record {chosen or '(none given)'} is not one of the contested versions of "
            f"{source_key}, or it counts already.",
            f"Give in `record_id` one of: {', '.join(others)}.",
        )
    if asked.state != "open" and any(one["is_contested"] for one in versions):
        newer = connection.scalar(
            select(finding.c.finding_id).where(
                finding.c.kind == asked.kind,
                finding.c.source == asked.source,
                finding.c.subject == asked.subject,
                finding.c.state == "open",
            )
        )
        raise DecisionRefused(
            f"Since finding {asked.finding_id} was decided, {asked.source} has told yet another "
            f"content of {source_key}.",
            f"Decide finding {newer} instead: record {chosen} may be chosen there as well.",
        )


def _refuse_unseen(asked: Row[Any], versions: Sequence[dict[str, Any]], seen: str | None) -> None:
    """Refuse to reject a content that whoever decides has not seen, and to choose against somebody
    who has chosen since.
    """
    contested = [one["record_id"] for one in versions if one["is_contested"]]
    if asked.state != "open":
        if seen is None:
            return
        raise DecisionRefused(
            f"Somebody has chosen for finding {asked.finding_id} since it was looked at.",
            "Look up that decision in finance.decision; to choose anew all the same, trigger "
            "resolve_findings without `seen`.",
        )
    if seen is None and len(contested) == _FEWEST:
        return
    if seen != stand_for(contested):
        told = f"finding {asked.finding_id} is about {len(contested)} contents now"
        records = ", ".join(map(str, contested))
        raise DecisionRefused(
            f"The decision does not say which contents were seen: {told} (records {records})."
            if seen is None
            else f"The decision is about other contents than these: {told} (records {records}).",
            "Look at all of them, then give in `seen` what the page Findings shows beside it.",
        )


def held_by(connection: Connection, finding_ids: Collection[int]) -> dict[int, Held]:
    """The contents that each of these findings asks about now, by their records."""
    records: dict[int, list[int]] = {finding_id: [] for finding_id in finding_ids}
    for row in connection.execute(
        select(finding.c.finding_id, settlement.c.record_id)
        .join(
            settlement,
            and_(
                settlement.c.source == finding.c.source,
                settlement.c.source_key == finding.c.detail["source_key"].astext,
                settlement.c.provider_order
                == cast(
                    finding.c.detail["provider_order"].astext, settlement.c.provider_order.type
                ),
            ),
        )
        .where(finding.c.finding_id.in_(finding_ids), settlement.c.is_contested)
        .order_by(finding.c.finding_id, settlement.c.record_id)
    ):
        records[row.finding_id].append(row.record_id)
    return {
        finding_id: Held("contents", len(found), {}, stand_for(found))
        for finding_id, found in records.items()
    }


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
