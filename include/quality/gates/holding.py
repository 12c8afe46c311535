"""What every gate does with what its rules found in a batch: keep it, pass it or hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert

from include.quality.rules import Severity
from include.warehouse import batches
from include.warehouse.findings import KINDS
from include.warehouse.tables import quality_result as quality_result_table

Gate = Literal["check_raw", "check_settlements"]


class BatchHeld(Exception):
    """A gate held at least one batch; findings are open, and every other batch was checked."""


@dataclass(frozen=True)
class GateReport:
    """What one gate did, in counts: batches it let pass, rows it looked at, rows it held back."""

    gate: Gate
    passed: int
    evaluated: int
    quarantined: int


@dataclass(frozen=True)
class RuleResult:
    """What one rule found in a batch; `is_waived` if a decision released the batch from it."""

    expectation: str
    severity: Severity
    is_met: bool
    unexpected: int
    evaluated: int
    explanation: str
    is_waived: bool = False
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the batch may not pass."""
        return self.severity == "critical" and not self.is_met and not self.is_waived


@dataclass(frozen=True)
class BatchReport:
    """What a gate found in one batch, and what it did with it."""

    batch_id: int
    evaluated: int
    quarantined: int = 0
    finding_id: int | None = None
    held_reason: str | None = None


def record_results(
    connection: Connection, batch: Row[Any], gate: Gate, results: list[RuleResult]
) -> None:
    """Keep what every rule found in the batch, met or not."""
    connection.execute(
        insert(quality_result_table),
        [
            {
                "batch_id": batch.batch_id,
                "gate": gate,
                "expectation": result.expectation,
                "severity": result.severity,
                "is_met": result.is_met,
                "evaluated": result.evaluated,
                "unexpected": result.unexpected,
                "result": {"explanation": result.explanation, **result.result},
            }
            for result in results
        ],
    )


def hold(
    connection: Connection,
    batch: Row[Any],
    failed: list[RuleResult],
    *,
    evaluated: int,
    detail: dict[str, Any] | None = None,
) -> BatchReport:
    """Hold the batch for the rules that it `failed`, with a finding that tells their results."""
    reason = " ".join(f"{result.expectation}: {result.explanation}" for result in failed)
    told = [
        {
            name: value
            for name, value in asdict(result).items()
            if name in ("expectation", "unexpected", "evaluated", "explanation")
        }
        for result in failed
    ]
    finding_id = batches.hold(connection, batch, reason, {"failed": told, **(detail or {})})
    return BatchReport(
        batch.batch_id, evaluated=evaluated, finding_id=finding_id, held_reason=reason
    )


def sum_up(source: str, gate: Gate, reports: Sequence[BatchReport]) -> GateReport:
    """What the gate did with all of these batches; raises `BatchHeld` if it held any of them."""
    if held := [report for report in reports if report.finding_id is not None]:
        raise BatchHeld(_held_message(gate, source, held))
    return GateReport(
        gate=gate,
        passed=len(reports),
        evaluated=sum(report.evaluated for report in reports),
        quarantined=sum(report.quarantined for report in reports),
    )


def _held_message(gate: Gate, source: str, held: list[BatchReport]) -> str:
    told = " ".join(
        f"Batch {report.batch_id} (finding {report.finding_id}): {report.held_reason}"
        for report in held
    )
    return (
        f"{gate} holds {len(held)} batches of {source}. {told} "
        "Everything that arrived is kept in raw, nothing of these batches is published, and other "
        "batches were checked. Trigger the DAG resolve_findings with the finding's number and one "
        f"of: {', '.join(KINDS['batch_held'].decisions)}."
    )
