"""The form of `resolve_findings`, and what is done with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param
from sqlalchemy import Engine

from include.settings import Settings
from include.warehouse.decisions import DecisionRefused, Resolution
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
    transaction_ids: list[str] | None = None
    payouts: int | None = None
    seen: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What only some decisions ask for, where it was filled in."""
        given = {
            "record_id": self.record_id,
            "continue_from": self.continue_from,
            "transaction_ids": self.transaction_ids,
            "payouts": self.payouts,
            "seen": self.seen,
        }
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
            description="Their numbers, from the alert or the page Findings: [12] or [12, 13]. Of "
            "one that is closed, to choose anew: from finance.decision.",
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
            "Reference",
            "A ticket, mail or partner reference that supports it, if there is one; processed "
            "needs the partner's confirmation.",
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
        "transaction_ids": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1, "maxLength": 500},
            minItems=1,
            maxItems=1000,
            title="Only these payouts",
            description="Only for payouts: the decision is about these of the finding, by their "
            "transactionId; empty for all that it holds.",
        ),
        "payouts": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="How many payouts or credits",
            description="Only for payouts, if none is named, and for credits: how many each of the "
            "findings showed. If it holds another number by now, nothing is decided; keep does not "
            "need it.",
        ),
        "seen": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9a-f]{8}$",
            title="Seen",
            description="What the page Findings shows beside a finding about payouts, credits or "
            "contents, and better than their number: if it holds something else by now, nothing is "
            "decided.",
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
    second_person_above = Settings().second_person_above
    resolutions: list[Resolution] = []
    refused: list[str] = []
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
                second_person_above=second_person_above,
            )
        except DecisionRefused as refusal:
            refused.append(f"Finding {finding_id}: {refusal}")
            _log.warning("Finding %d was not decided: %s", finding_id, refusal)
        else:
            resolutions.append(resolution)
            _log.info("%s", _describe(resolution, decided_by))
    waiting = [one.finding_id for one in resolutions if one.awaits_second_person]
    resolved = [one.finding_id for one in resolutions if not one.awaits_second_person]
    if refused:
        waits = f", waits for a second person for {waiting}," if waiting else ""
        raise FindingsUnresolved(
            f"{form.decision} was carried out for {resolved or 'no finding'}{waits} and refused "
            f"for {len(refused)}. {' '.join(refused)}"
        )
    for then in dict.fromkeys(_what_takes_it_up(one) for one in resolutions):
        _log.info("%s", then)
    told = {"decision": form.decision, "decided_by": decided_by, "resolved": resolved}
    return told | ({"awaiting_second_person": waiting} if waiting else {})


def _describe(resolution: Resolution, decided_by: str) -> str:
    """A decision in a line of the log; its payouts one by one are in ops.decision."""
    before, after = (
        {name: value for name, value in state.items() if name != "transaction_ids"}
        for state in (resolution.before, resolution.after)
    )
    what = f"Finding {resolution.finding_id}: {resolution.decision} by {decided_by}"
    if resolution.awaits_second_person:
        return (
            f"{what} is recorded as decision {resolution.decision_id} and has changed nothing yet: "
            "so much takes two people. Another person has to trigger resolve_findings with the "
            f"same finding, decision and transaction_ids. It is about: {before}."
        )
    left = "" if resolution.is_closed else " The finding stays open."
    return f"{what}. Before: {before}. After: {after}.{left}"


def _what_takes_it_up(resolution: Resolution) -> str:
    if resolution.awaits_second_person:
        return "Not done yet: it waits for a second person."
    if resolution.decision in ("send_again", "release_hold"):
        return (
            "Done. Credits of markets that the wallet never took go with the next run of "
            "settle_markets, within minutes. All else is sent by the next run of "
            "resend_settlements, at 01:00 UTC; to have it sent at once, clear `send` of its last "
            "run with Downstream, or trigger it. Either sends what is dated before today; what is "
            "dated today goes at 01:00 UTC of the next day."
        )
    if resolution.decision == "choose_version":
        return (
            "Done. All totals have moved; credits of a market follow with the next run of "
            "settle_markets."
        )
    if resolution.source == "wallet":
        return "Done. Nothing is left to run for it."
    if resolution.source == "prediction":
        return "Done. The next run of settle_markets takes it up within minutes."
    return "Done. The next run of the feed's catch_up DAG takes it up within minutes."
