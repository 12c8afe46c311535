"""Credits that wait for a person: look at them again, owe them, or have them sent after all.

A decision is about the credits that its finding asks about and that still stand so; those that were
acknowledged meanwhile are not touched.  The source's lock keeps whoever credits away, and an
acknowledgement waits for the rows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, text

from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused
from include.warehouse.tables import credit

_CANNOT_BE_OWED = frozenset({"currency_unknown", "player_unknown", "withdrawn"})
_IDS_RECORDED = 1000


def _moving(state: str, assignments: str) -> Any:
    return text(f"""
        WITH chosen AS (
            SELECT credit_id
            FROM prediction.credit
            WHERE finding_id = :finding_id AND state = '{state}'
            ORDER BY credit_id
            FOR UPDATE
        ), moved AS (
            UPDATE prediction.credit
            SET {assignments}
            FROM chosen
            WHERE credit.credit_id = chosen.credit_id
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


def _try_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The next run judges them, by what their settlements say then."""
    return _move(connection, asked, "held", _TRY_AGAIN)


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
    return _move(connection, asked, "held", _OWE)


def _send_owed(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The next run enters them into the outbox, if it is still told how."""
    return _move(connection, asked, "owed", _SEND)


def _move(connection: Connection, asked: Row[Any], state: str, statement: Any) -> Change:
    moved = connection.execute(statement, {"finding_id": asked.finding_id}).all()
    if not moved:
        raise DecisionRefused(
            f"Finding {asked.finding_id} is about no credit any more: they were acknowledged, or "
            "their settlements say something else since.",
            "Nothing is left to decide about it; it closes by itself.",
        )
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
