"""The gates of a resend: is what is sent what was entered, and has the day come to its end?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, text

from include.payouts import stages
from include.payouts.outbox import ALL, IS_MEANT, Which, in_major_units
from include.warehouse.database import transaction

_log = logging.getLogger(__name__)

_EXAMPLES = 5


class OutboxUnsound(Exception):
    """Frozen bytes do not say what was entered; nothing may be sent."""


class DayUnfinished(Exception):
    """Payouts are still to be sent, or in doubt; the message says how many and what to do."""


@dataclass(frozen=True)
class OutboxChecked:
    """How many payouts are due, and how many of the same days are held."""

    due: int
    held: int


@dataclass(frozen=True)
class Outcome:
    """How the payouts of one business date stand, all currencies together."""

    entered: int
    processed: int
    lost: int
    open: int
    held: int


# Each of these is an index of its own; what is open alone is none.
_OPEN = """
    SELECT * FROM wallet.transaction WHERE disposition = 'open' AND hold_reason IS NULL
    UNION ALL
    SELECT * FROM wallet.transaction WHERE hold_reason IS NOT NULL
"""

# The bytes are compared as JSON: as the partner reads them.
_CHECK_OUTBOX = text(f"""
SELECT
    count(*) FILTER (WHERE hold_reason IS NULL) AS due,
    count(*) FILTER (WHERE hold_reason IS NOT NULL) AS held,
    count(*) FILTER (WHERE NOT is_sound) AS unsound,
    (array_agg(transaction_id ORDER BY transaction_id)
        FILTER (WHERE NOT is_sound))[1:CAST(:limit AS integer)] AS examples
FROM (
    SELECT
        transaction_id,
        hold_reason,
        item IS NULL OR convert_from(item, 'UTF8')::jsonb = jsonb_build_object(
            'transactionId', transaction_id, 'refTransactionId', ref_transaction_id,
            'sessionId', session_id, 'roundId', round_id, 'playerId', player_id,
            'gameId', game_id, 'currency', currency, 'amount', amount, 'isWin', is_win
        ) AS is_sound
    FROM ({_OPEN}) AS open
    WHERE business_date <= :business_date AND {IS_MEANT}
) AS checked
""")


def check_outbox(engine: Engine, business_date: date, which: Which = ALL) -> OutboxChecked:
    """Compare the bytes that are to be sent with what was entered, up to `business_date`.

    Raises `OutboxUnsound` if they differ for any payout.
    """
    with transaction(engine, "sender") as connection:
        found = connection.execute(
            _CHECK_OUTBOX,
            {"business_date": business_date, "limit": _EXAMPLES, **which._asdict()},
        ).one()
    if found.unsound:
        raise OutboxUnsound(
            f"The frozen bytes of {found.unsound} payouts do not say what was entered, such as "
            f"{', '.join(found.examples)}. Nothing was sent. Somebody has changed "
            "wallet.transaction past its rules: find out who and how before anything is sent."
        )
    return OutboxChecked(found.due, found.held)


# A day is told until it has come to its end: this run's, those that stand open or did when they
# were last told, and those of which anything was booked on the day of the last report or since.
_DAYS = text(f"""
SELECT CAST(:business_date AS date) AS business_date
UNION
SELECT business_date
FROM ({_OPEN}) AS open
WHERE business_date <= :business_date
UNION
SELECT business_date
FROM (
    SELECT DISTINCT ON (business_date, currency) business_date, open_payouts + held_payouts
        AS unfinished
    FROM wallet.reported_outcome
    ORDER BY business_date, currency, report_id DESC
) AS last_told
WHERE unfinished > 0
UNION
SELECT business_date
FROM wallet.transaction
WHERE business_date <= :business_date AND accounting_date >= (
    SELECT max((reported_at AT TIME ZONE 'UTC')::date) FROM wallet.reported_outcome
)
ORDER BY business_date
""")

# One day at a time, which its index finds.
_REPORT = text("""
INSERT INTO wallet.reported_outcome (
    business_date, currency, entered_payouts, entered_amount, processed_payouts, processed_amount,
    lost_payouts, lost_amount, open_payouts, open_amount, held_payouts, held_amount, run_id
)
SELECT
    business_date, currency, count(*), sum(amount),
    count(*) FILTER (WHERE disposition = 'processed'),
    coalesce(sum(amount) FILTER (WHERE disposition = 'processed'), 0),
    count(*) FILTER (WHERE disposition = 'lost'),
    coalesce(sum(amount) FILTER (WHERE disposition = 'lost'), 0),
    count(*) FILTER (WHERE disposition = 'open' AND hold_reason IS NULL),
    coalesce(sum(amount) FILTER (WHERE disposition = 'open' AND hold_reason IS NULL), 0),
    count(*) FILTER (WHERE hold_reason IS NOT NULL),
    coalesce(sum(amount) FILTER (WHERE hold_reason IS NOT NULL), 0),
    :run_id
FROM wallet.transaction
WHERE business_date = :business_date
GROUP BY business_date, currency
RETURNING business_date, currency, entered_payouts, processed_payouts, lost_payouts,
    open_payouts, held_payouts, entered_amount, processed_amount
""")

_UNFINISHED = text("""
SELECT
    currency,
    count(*) FILTER (WHERE NOT is_in_doubt) AS to_be_sent,
    count(*) FILTER (WHERE is_in_doubt) AS in_doubt
FROM (
    SELECT currency, EXISTS (
        SELECT
        FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND (outcome IS NULL OR outcome IN ('in_doubt', 'contested', 'unclear'))
    ) AS is_in_doubt
    FROM wallet.transaction
    WHERE disposition = 'open' AND hold_reason IS NULL AND business_date <= :business_date
) AS due
GROUP BY currency
ORDER BY currency
""")

_UNJUDGED = text("""
SELECT count(*)
FROM wallet.transaction
WHERE hold_reason = 'refusal_pending' AND hold_finding_id IS NULL
    AND business_date <= :business_date
""")

# Such answers are about our key or our way of writing, unless the same few payouts alone get them.
_BLOCKED = text("""
SELECT
    count(*) AS payouts,
    (array_agg(transaction_id || ' (' || code || ')' ORDER BY transaction_id))
        [1:CAST(:limit AS integer)] AS examples
FROM wallet.transaction
CROSS JOIN LATERAL (
    SELECT outcome, code
    FROM wallet.attempt_item
    WHERE attempt_item.transaction_id = transaction.transaction_id
    ORDER BY attempt_id DESC
    LIMIT 1
) AS last_told
WHERE disposition = 'open' AND hold_reason IS NULL AND business_date <= :business_date
    AND outcome = 'blocked'
""")


def check_outcome(engine: Engine, business_date: date, run_id: str | None = None) -> Outcome:
    """Store how the days up to `business_date` stand, and check that nothing is left to do in them.

    What is held waits for a decision and is no failure.  Raises `DayUnfinished` if payouts are
    still to be sent, in doubt, or refused and not judged.
    """
    with transaction(engine, "sender") as connection:
        days = connection.scalars(_DAYS, {"business_date": business_date}).all()
        rows = [
            row
            for day in days
            for row in connection.execute(_REPORT, {"business_date": day, "run_id": run_id})
        ]
        unfinished = _unfinished(connection, business_date)
    waiting = stages.stopped_currencies(engine) if unfinished else {}
    for row in rows:
        _log.info(
            "%s %s: %d entered (%s), %d processed (%s), %d lost, %d open, %d held.",
            *(row.business_date, row.currency, row.entered_payouts),
            *(in_major_units(row.entered_amount), row.processed_payouts),
            *(in_major_units(row.processed_amount), row.lost_payouts, row.open_payouts),
            row.held_payouts,
        )
    if unfinished:
        raise DayUnfinished(
            f"Up to {business_date} payouts are not finished: {'; '.join(unfinished)}. Nothing of "
            "them is lost. Clear the task `send` of this run: it sends what was never sent at "
            "once, and what is in doubt as often as its window allows; tomorrow's run does so too."
            f"{_describe_waiting(waiting)}"
        )
    return _total([row for row in rows if row.business_date == business_date])


def _describe_waiting(waiting: Mapping[str, int]) -> str:
    """Which currencies neither of them sends before a person has decided."""
    if not waiting:
        return ""
    findings = ", ".join(f"{currency} (finding {number})" for currency, number in waiting.items())
    return f" But nothing is sent in {findings} before that is decided with resolve_findings."


def _unfinished(connection: Connection, business_date: date) -> list[str]:
    this: dict[str, Any] = {"business_date": business_date}
    told = [
        f"{row.currency}: {row.to_be_sent} to be sent, {row.in_doubt} sent and without an answer "
        "that counts"
        for row in connection.execute(_UNFINISHED, this)
    ]
    blocked = connection.execute(_BLOCKED, this | {"limit": _EXAMPLES}).one()
    if blocked.payouts:
        told.append(
            f"{blocked.payouts} of these refused as if our key or our way of writing were wrong, "
            f"such as {', '.join(blocked.examples)}; if all others are paid, see in the runbook "
            "*One payout that is refused as if the key were wrong*"
        )
    if unjudged := connection.scalar(_UNJUDGED, this):
        told.append(f"{unjudged} refused and not judged yet")
    return told


def _total(rows: list[Any]) -> Outcome:
    return Outcome(
        entered=sum(row.entered_payouts for row in rows),
        processed=sum(row.processed_payouts for row in rows),
        lost=sum(row.lost_payouts for row in rows),
        open=sum(row.open_payouts for row in rows),
        held=sum(row.held_payouts for row in rows),
    )
