"""Resolving a finding: it is locked, the decision carried out and recorded, the finding closed.

The source's lock is the one that landing and publishing take, so nothing moves while an answer is
checked against how things stand now.  Whatever is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, text

from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import (
    batches,
    bets,
    credits,
    feeds,
    gaps,
    markets,
    payouts,
    settlements,
)
from include.warehouse.decisions.answers import (
    Answer,
    Change,
    Decide,
    DecisionRefused,
    lock_batch,
)
from include.warehouse.decisions.seen import Held
from include.warehouse.findings import KINDS, close_finding
from include.warehouse.tables import decision, finding


@dataclass(frozen=True)
class Resolution:
    """A decision that was recorded; `before` and `after` are what it changed, as recorded.

    With `awaits_second_person` it has changed nothing yet: another person has to decide the same.
    Unless `is_closed`, the finding stays open, as something of it is still to be decided.
    """

    decision_id: int
    finding_id: int
    kind: str
    source: str
    decision: str
    before: dict[str, Any]
    after: dict[str, Any]
    is_closed: bool
    awaits_second_person: bool


def resolve(
    engine: Engine,
    finding_id: int,
    decision_name: str,
    *,
    decided_by: str,
    reason: str,
    reference: str | None,
    parameters: Mapping[str, Any],
    run_id: str | None,
    second_person_above: Decimal = Decimal(0),
) -> Resolution:
    """Carry out `decision_name` on an open finding, record it, and close the finding if nothing
    is left of it.  A few decisions may be taken anew after they have closed it.

    `parameters` may hold `record_id` (choose_version), `continue_from` (skip_page, move_cursor,
    and try_again of a gap), `transaction_ids` (payouts: only these of the finding), and what the
    person has seen of payouts, credits or contents: `seen`, as `held_by` gives it, or of payouts
    and credits their number alone, in `payouts`.  Payouts that together exceed
    `second_person_above`, in units of their currency, are lost only when two people decide so.
    Raises `DecisionRefused` if the finding is closed (unless the decision may be taken anew), its
    kind does not know the decision, or what it is about has moved on.
    """
    if not reason.strip() or not decided_by.strip():
        raise DecisionRefused(
            "A decision needs a name and a reason.", "Trigger resolve_findings with both."
        )
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        with transaction(engine, "resolver") as connection:
            asked = _lock_finding(connection, finding_id, decision_name)
            answer = Answer(
                decision_id=_next_decision_id(connection),
                decided_by=decided_by.strip(),
                reference=reference,
                parameters=given,
                run_id=run_id,
                second_person_above=second_person_above,
            )
            change = _decide(asked, decision_name)(connection, asked, answer)
            _record(connection, asked, decision_name, reason, answer, change)
            if change.closes_finding:
                close_finding(connection, finding_id, "decision")
    except payouts.NothingHeld:
        with transaction(engine, "resolver") as connection:
            payouts.close_if_nothing_is_held(
                connection, _lock_finding(connection, finding_id, decision_name)
            )
        raise
    return Resolution(
        decision_id=answer.decision_id,
        finding_id=finding_id,
        kind=asked.kind,
        source=asked.source,
        decision=decision_name,
        before=change.before,
        after=change.after,
        is_closed=change.closes_finding,
        awaits_second_person=change.awaits_second_person,
    )


def _decide(asked: Row[Any], decision_name: str) -> Decide:
    known = KINDS[asked.kind].decisions
    if decision_name not in known:
        raise DecisionRefused(
            f"Finding {asked.finding_id} is a {asked.kind}, which has no decision "
            f"{decision_name!r}.",
            f"Choose one of: {', '.join(known)}.",
        )
    return carried_out_by(asked.kind, decision_name)


def carried_out_by(kind: str, decision_name: str) -> Decide:
    """What carries out a decision that a finding of `kind` offers."""
    return _acknowledge if decision_name == "acknowledge" else _DECISIONS[kind, decision_name]


def held_by(connection: Connection, kinds: Mapping[int, str]) -> dict[int, Held]:
    """What each finding about payouts, credits or contents holds now, of these by their kinds."""
    held: dict[int, Held] = {}
    for about, find in _HELD_BY:
        if finding_ids := [number for number, kind in kinds.items() if kind in about]:
            held |= find(connection, finding_ids)
    return held


def _lock_finding(connection: Connection, finding_id: int, decision_name: str) -> Row[Any]:
    """The finding, which is open or may be decided anew.

    It is locked after its source and its batch: the order in which gates lock.
    """
    this = select(finding).where(finding.c.finding_id == finding_id)
    seen = connection.execute(this).first()
    if seen is None:
        raise DecisionRefused(
            f"There is no finding {finding_id}.",
            "Look up the number in the Findings page or in finance.finding_open.",
        )
    lock_source(connection, seen.source)
    if seen.batch_id is not None:
        lock_batch(connection, seen.batch_id)
    asked = connection.execute(this.with_for_update()).one()
    if asked.state != "open" and not _may_be_decided_anew(asked, decision_name):
        raise DecisionRefused(
            f"Finding {finding_id} is closed already (by {asked.closed_by}, {asked.closed_at}).",
            "If its cause is still there, a new finding says so.",
        )
    return asked


def _may_be_decided_anew(asked: Row[Any], decision_name: str) -> bool:
    return asked.closed_by == "decision" and decision_name in KINDS[asked.kind].revised


def _next_decision_id(connection: Connection) -> int:
    """The number of the decision, which what it changes may name before it is recorded."""
    number: int = connection.execute(
        text("SELECT nextval(pg_get_serial_sequence('ops.decision', 'decision_id'))")
    ).scalar_one()
    return number


def _record(
    connection: Connection,
    asked: Row[Any],
    decision_name: str,
    reason: str,
    answer: Answer,
    change: Change,
) -> None:
    connection.execute(
        insert(decision).values(
            decision_id=answer.decision_id,
            finding_id=asked.finding_id,
            decision=decision_name,
            decided_by=answer.decided_by,
            reason=reason.strip(),
            reference=answer.reference,
            parameters=answer.parameters,
            state_before=change.before,
            state_after=change.after,
            run_id=answer.run_id,
            awaits_second_person=change.awaits_second_person,
            first_decision_id=change.first_decision_id,
        )
    )


def _acknowledge(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    return Change({}, {})


_DECISIONS: dict[tuple[str, str], Decide] = {
    **feeds.DECISIONS,
    **bets.DECISIONS,
    **batches.DECISIONS,
    **settlements.DECISIONS,
    **gaps.DECISIONS,
    **payouts.DECISIONS,
    **markets.DECISIONS,
    **credits.DECISIONS,
}

_HELD_BY = (
    (payouts.KINDS_ABOUT_PAYOUTS, payouts.held_by),
    (credits.KINDS_ABOUT_CREDITS, credits.held_by),
    (frozenset({"settlement_contested"}), settlements.held_by),
)
