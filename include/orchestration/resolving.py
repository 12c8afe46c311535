"""The form of `resolve_findings`, and what is done with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param
from sqlalchemy import Engine

from include.warehouse.decisions import DecisionRefused
from include.warehouse.decisions import resolve as resolve_finding
from include.warehouse.findings import KINDS

_log = logging.getLogger(__name__)

DECISIONS = sorted({decision for kind in KINDS.values() for decision in kind.decisions})


class FindingsUnresolved(Exception):
    """At least one finding of the form stays open; the message says which and why."""


@dataclass(frozen=True)
class Form:
    """What a person filled in: one decision for one or more findings of the same kind."""

    finding_ids: list[int]
    decision: str
    reason: str
    reference: str | None = None
    record_id: int | None = None
    continue_from: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What only some decisions ask for, where it was filled in."""
        given = {"record_id": self.record_id, "continue_from": self.continue_from}
        return {name: value for name, value in given.items() if value is not None}


def form_fields() -> dict[str, Param]:
    """The fields of the form, as Airflow shows and validates them."""
    return {
        "finding_ids": Param(
            type="array",
            items={"type": "integer", "minimum": 1},
            minItems=1,
            maxItems=100,
            title="Findings",
            description="Their numbers, from the alert or the page Findings: [12] or [12, 13].",
        ),
        "decision": Param(
            type="string",
            enum=DECISIONS,
            title="Decision",
            description="Each finding lists the decisions it allows; any other is refused.",
        ),
        "reason": Param(
            type="string",
            minLength=5,
            maxLength=2000,
            title="Reason",
            description="Why, in your words; it is kept with the decision for ever.",
        ),
        "reference": _optional_text(
            "Reference", "A ticket, mail or partner reference that supports it, if there is one."
        ),
        "record_id": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Record",
            description="Only for choose_version: the record whose version counts.",
        ),
        "continue_from": _optional_text(
            "Continue from",
            "Only for skip_page, move_cursor (which needs it) and try_again of a gap: the "
            "provider's id of the entry after which reading goes on.",
        ),
    }


def _optional_text(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        minLength=1,
        maxLength=500,
        title=title,
        description=description,
    )


def resolve_each(engine: Engine, form: Form, decided_by: str | None, run_id: str) -> dict[str, Any]:
    """Carry out the form's decision, each finding in its own transaction.

    A refused finding does not stop the next one.  Raises `FindingsUnresolved` at the end if any was
    refused, or at once if nobody is known to have decided.
    """
    if not decided_by:
        raise FindingsUnresolved(
            "Airflow does not say who triggered this run, so nothing was decided. Trigger "
            "resolve_findings as a user who has logged in, from the UI or through the REST API."
        )
    resolved, refused = [], []
    for finding_id in dict.fromkeys(form.finding_ids):
        try:
            resolution = resolve_finding(
                engine,
                finding_id,
                form.decision,
                decided_by=decided_by,
                reason=form.reason,
                reference=form.reference,
                parameters=form.parameters,
                run_id=run_id,
            )
        except DecisionRefused as refusal:
            refused.append(f"Finding {finding_id}: {refusal}")
            _log.warning("Finding %d stays open: %s", finding_id, refusal)
        else:
            resolved.append(finding_id)
            _log.info(
                "Finding %d: %s by %s. Before: %s. After: %s.",
                *(finding_id, form.decision, decided_by, resolution.before, resolution.after),
            )
    if refused:
        raise FindingsUnresolved(
            f"{form.decision} was carried out for {resolved or 'no finding'} and refused for "
            f"{len(refused)}. {' '.join(refused)}"
        )
    _log.info("Done. The next run of the feed's catch_up DAG takes it up within minutes.")
    return {"decision": form.decision, "decided_by": decided_by, "resolved": resolved}
