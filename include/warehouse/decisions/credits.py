"""Credits that wait for a person: look at them again, owe them, or have them sent after all.

A decision is about the credits that its finding asks about and that still stand so; those that were
acknowledged meanwhile are not touched.  It says what there was to be seen, or how many: if the
finding asks about something else by then, it is refused.  The source's lock keeps whoever credits
away, and an acknowledgement waits for the rows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, text

from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused
from include.warehouse.decisions.seen import Held, Sum, add_up, digest_of, refuse_unseen
from include.warehouse.tables import credit, finding

_CANNOT_BE_OWED = frozenset({"currency_unknown", "player_unknown", "withdrawn"})
_IDS_RECORDED = 1000
_STATES = {"credits_held": "held", "credit_changed": "held", "credits_owed": "owed"}
"""How the credits stand that a finding of each kind asks about."""


def _moving(state: str, assignments: str) -> Any:
    return text(f"""
        WITH moved AS (
            UPDATE prediction.credit
            SET {assignments}
            WHERE finding_id = :finding_id AND state = '{state}'
            RETURNING credit.*
        )
        SELECT
            currency, state, count(*) AS credits, sum(amount) AS amount,
            (array_agg(credit_id ORDER BY credit_id))[1:{_IDS_RECORDED}] AS credit_ids
        FROM moved
        GROUP BY currency, state
        ORDER BY currency
    """)


# What is owed keeps the number of its finding, so that nobody is asked about it again.
_TRY_AGAIN = _moving("held", "state = 'due', hold_reason = NULL, finding_id = NULL")
_OWE = _moving("held", "state = 'owed', hold_reason = NULL")
_SEND = _moving("owed", "state = 'due', finding_id = NULL")


def held_by(connection: Connection, finding_ids: Collection[int]) -> dict[int, Held]:
    """What each of these findings asks about now."""
    found = connection.execute(
        select(
            credit.c.finding_id,
            credit.c.currency,
            func.count().label("credits"),
            func.sum(credit.c.amount).label("amount"),
            digest_of(credit.c.credit_id, credit.c.amount).label("digest"),
        )
        .join(finding, finding.c.finding_id == credit.c.finding_id)
        .where(
            credit.c.finding_id.in_(finding_ids),
            credit.c.state.in_(sorted(set(_STATES.values()))),
            credit.c.state == case(_STATES, value=finding.c.kind),
        )
        .group_by(credit.c.finding_id, credit.c.currency)
        .order_by(credit.c.finding_id, credit.c.currency)
    )
    sums = (
        Sum(row.finding_id, row.currency or "unknown", row.credits, f"{row.amount:f}", row.digest)
        for row in found
    )
    return add_up("credits", finding_ids, sums)


def _try_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The next run judges them, by what their settlements say then."""
    return _move(connection, asked, answer, _TRY_AGAIN)


def _owe(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The operator pays them, and acknowledges each."""
    reasons = connection.scalars(
        select(credit.c.hold_reason).where(
            credit.c.finding_id == asked.finding_id, credit.c.state == "held"
        )
    )
    if refused := _CANNOT_BE_OWED.intersection(reasons):
        raise DecisionRefused(
            f"These credits cannot be paid by anybody: {', '.join(sorted(refused))}.",
            "Have that corrected first, then decide try_again.",
        )
    return _move(connection, asked, answer, _OWE)


def _send_owed(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The next run enters them into the outbox, if it is still told how."""
    return _move(connection, asked, answer, _SEND)


def _move(connection: Connection, asked: Row[Any], answer: Answer, statement: Any) -> Change:
    state = _STATES[asked.kind]
    connection.execute(
        select(credit.c.credit_id)
        .where(credit.c.finding_id == asked.finding_id, credit.c.state == state)
        .order_by(credit.c.credit_id)
        .with_for_update()
    )
    held = held_by(connection, [asked.finding_id])[asked.finding_id]
    if not held.count:
        raise DecisionRefused(
            f"Finding {asked.finding_id} is about no credit any more: they were acknowledged, or "
            "their settlements say something else since.",
            "Nothing is left to decide about it; it closes by itself.",
        )
    refuse_unseen(asked.finding_id, answer.parameters, held)
    moved = connection.execute(statement, {"finding_id": asked.finding_id}).all()
    credits_moved = {
        "count": sum(row.credits for row in moved),
        "amounts": {row.currency or "unknown": f"{row.amount:f}" for row in moved},
        "credit_ids": sorted(each for row in moved for each in row.credit_ids)[:_IDS_RECORDED],
    }
    return Change({"state": state, **credits_moved}, {"state": moved[0].state, **credits_moved})


DECISIONS: dict[tuple[str, str], Decide] = {
    ("credits_held", "try_again"): _try_again,
    ("credits_held", "owe"): _owe,
    ("credit_changed", "try_again"): _try_again,
    ("credit_changed", "owe"): _owe,
    ("credits_owed", "send_owed"): _send_owed,
}

KINDS_ABOUT_CREDITS = frozenset(_STATES)
