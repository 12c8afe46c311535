"""What the page shows: open findings, worst and oldest first, and the latest decisions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, case, func, select

from include.warehouse.database import transaction
from include.warehouse.decisions import held_by
from include.warehouse.findings import KINDS
from include.warehouse.tables import decision as decision_table
from include.warehouse.tables import finding as finding_table

_FINDINGS_SHOWN = 200
_DECISIONS_SHOWN = 30

_URGENCY = case({"critical": 0, "warning": 1, "info": 2}, value=finding_table.c.severity)
_FINDINGS = (
    select(
        finding_table.c.finding_id,
        finding_table.c.kind,
        finding_table.c.source,
        finding_table.c.subject,
        finding_table.c.severity,
        finding_table.c.summary,
        finding_table.c.kept,
        finding_table.c.detail,
        finding_table.c.times_seen,
        finding_table.c.opened_at,
        finding_table.c.last_seen_at,
    )
    .where(finding_table.c.state == "open")
    .order_by(_URGENCY, finding_table.c.finding_id)
    .limit(_FINDINGS_SHOWN)
)
_OPEN_COUNT = select(func.count()).select_from(finding_table).where(finding_table.c.state == "open")
_DECISIONS = (
    select(
        decision_table.c.finding_id,
        decision_table.c.decision,
        decision_table.c.decided_by,
        decision_table.c.decided_at,
        decision_table.c.reason,
        decision_table.c.reference,
        decision_table.c.parameters["transaction_ids"].label("transaction_ids"),
        decision_table.c.awaits_second_person,
        finding_table.c.summary,
    )
    .join(finding_table, finding_table.c.finding_id == decision_table.c.finding_id)
    .order_by(decision_table.c.decision_id.desc())
    .limit(_DECISIONS_SHOWN)
)


def list_findings(engine: Engine) -> dict[str, Any]:
    """Open findings with what they mean and the decisions they allow, how many there are, and what
    was decided.

    Those about payouts, credits or contents come with what they hold at this moment (`held`, else
    None), which may be other than what their last alert told, and with what stands for just that
    (`seen`).
    """
    with transaction(engine, "resolver") as connection:
        findings = [dict(row) for row in connection.execute(_FINDINGS).mappings()]
        held = held_by(connection, {one["finding_id"]: one["kind"] for one in findings})
        open_count = connection.execute(_OPEN_COUNT).scalar_one()
        decisions = [dict(row) for row in connection.execute(_DECISIONS).mappings()]
    for finding in findings:
        kind = KINDS.get(finding["kind"])
        finding["meaning"] = kind.meaning if kind else ""
        finding["decisions"] = kind.decisions if kind else {}
        holds = held.get(finding["finding_id"])
        finding["held"] = asdict(holds) if holds else None
        finding["seen"] = finding["held"].pop("seen") if holds else None
    return {"open_count": open_count, "findings": findings, "decisions": decisions}
