"""Watching: payouts that should have been sent by now, whether or not anything ran to send them.

Nothing here depends on the runs that send: one that was paused, or failed, leaves its payouts late.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, func, select, text

from include.payouts.outbox import SOURCE, in_major_units
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, close_finding, open_finding
from include.warehouse.tables import finding as finding_table

KIND = "payouts_late"

# A day's payouts are due at 01:00 UTC of the next day, and late an hour after that.
_LAST_DUE = "date_trunc('day', now() AT TIME ZONE 'UTC' - interval '2 hours') + interval '1 hour'"

# What was refused and not judged waits for a run as well.
_IS_TO_BE_SENT = """(
    disposition = 'open' AND hold_reason IS NULL
    OR hold_reason = 'refusal_pending' AND hold_finding_id IS NULL
)"""


@dataclass(frozen=True)
class Watched:
    """The findings that one watch opened, and those that it closed because their cause went."""

    opened: list[int]
    closed: list[int]


class Unsent(NamedTuple):
    """Payouts of one business date and currency; `amount` in units of the currency."""

    business_date: date
    currency: str
    payouts: int
    amount: Decimal


def watch_payouts(engine: Engine) -> Watched:
    """Open a finding for each business date whose payouts are late; close those that are not any
    more.

    A payout that was entered, or let go by a decision, after the last 01:00 UTC is not late: the
    next run sends it.  An acknowledged finding comes back when another run has left it unsent.
    """
    with transaction(engine, "sender") as connection:
        lock_source(connection, SOURCE)
        due = _last_due(connection)
        late = {
            str(day): list(currencies)
            for day, currencies in groupby(_late(connection, due), lambda row: row.business_date)
        }
        known = _open_findings(connection)
        opened = [
            open_finding(connection, _describe(day, currencies, due))
            for day, currencies in late.items()
            if day in known or not _is_acknowledged(connection, day, due)
        ]
        closed = [number for day, number in known.items() if day not in late]
        for finding_id in closed:
            close_finding(connection, finding_id, "system")
    return Watched(opened=sorted(set(opened) - set(known.values())), closed=sorted(closed))


def unsent(engine: Engine, business_date: date) -> list[Unsent]:
    """What a run for `business_date` has still to send, by business date and currency."""
    with transaction(engine, "sender") as connection:
        return _unsent(connection, "business_date <= :until", {"until": business_date})


def _late(connection: Connection, due: datetime) -> list[Unsent]:
    # `greatest` passes over what is NULL.
    is_late = "business_date < CAST(:due AS date) AND greatest(entered_at, released_at) < :due"
    return _unsent(connection, is_late, {"due": due})


def _unsent(connection: Connection, condition: str, given: dict[str, Any]) -> list[Unsent]:
    rows = connection.execute(
        text(
            "SELECT business_date, currency, count(*) AS payouts, sum(amount) AS amount"
            f" FROM wallet.transaction WHERE {_IS_TO_BE_SENT} AND {condition}"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        ),
        given,
    )
    return [
        Unsent(row.business_date, row.currency, row.payouts, in_major_units(row.amount))
        for row in rows
    ]


def _last_due(connection: Connection) -> datetime:
    due: datetime = connection.execute(
        text(f"SELECT ({_LAST_DUE}) AT TIME ZONE 'UTC'")
    ).scalar_one()
    return due


def _open_findings(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        select(finding_table.c.subject, finding_table.c.finding_id).where(
            finding_table.c.kind == KIND, finding_table.c.state == "open"
        )
    )
    return {row.subject: row.finding_id for row in rows}


def _is_acknowledged(connection: Connection, day: str, due: datetime) -> bool:
    """Whether a person has seen that the payouts of `day` were late after this very 01:00 UTC."""
    acknowledged = select(func.count()).where(
        finding_table.c.kind == KIND,
        finding_table.c.subject == day,
        finding_table.c.closed_by == "decision",
        finding_table.c.opened_at > due,
    )
    return bool(connection.execute(acknowledged).scalar_one())


def _describe(day: str, currencies: list[Unsent], due: datetime) -> Finding:
    count = sum(row.payouts for row in currencies)
    return Finding(
        kind=KIND,
        source=SOURCE,
        subject=day,
        summary=f"{count} payouts of {day} are still to be sent, though they were due at "
        f"{due:%Y-%m-%d %H:%M} UTC. Look at the DAG resend_settlements: is it paused, failing, "
        "running still, or stopped by another finding?",
        kept="They are in the outbox, and nothing is sent twice. The next run of the DAG sends "
        "them; this finding closes itself when none is left to send.",
        detail={
            "count": count,
            "amounts": {row.currency: str(row.amount) for row in currencies},
        },
    )
