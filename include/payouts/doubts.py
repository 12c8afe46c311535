"""Payouts that were sent and are still open: when they may be sent again, and when no more.

What may have been booked is sent again within a window, the identical bytes, so often and in so
many windows as the settings say; then it is held for a person.  A partner that may book it a second
time is sent nothing of it again, nor what it answered in a way that nobody knows.  What was refused
as part of a request, or for our key's sake, is sent once more in each run.  A run that sends
nothing again has a window without length, which is none of the many.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

from sqlalchemy import Engine, text

from include.payouts.attempts import Sender
from include.payouts.windows import HAS_LENGTH
from include.settings import Settings
from include.warehouse.database import look_up_by_key, transaction
from include.warehouse.leases import check_lease

_PAYOUTS_AT_A_TIME = 5000

# What was sent before a decision released the payout does not count any more, but still binds it.
_SENT_SO_FAR = f"""
FROM wallet.transaction
CROSS JOIN LATERAL (
    SELECT
        count(*) AS sends,
        coalesce(bool_or(is_doubtful), false) AS is_doubted,
        count(*) FILTER (WHERE is_doubtful AND window_id = :window_id) AS sends_in_window,
        count(DISTINCT window_id) FILTER (WHERE is_doubtful AND {HAS_LENGTH}) AS windows,
        coalesce(bool_or(epoch = :epoch AND outcome IN ('unclear', 'blocked', 'rejected')), false)
            AS is_answered_in_run,
        coalesce(bool_or(outcome = 'blocked'), false) AS was_blocked,
        max(deadline_at) FILTER (WHERE may_be_booked) AS bound_until,
        max(coalesce(closed_at, committed_at)) FILTER (WHERE is_doubtful) AS doubted_at
    FROM (
        SELECT
            attempt.*, opened_at, closes_at, outcome, may_be_booked,
            may_be_booked AND committed_at >= coalesce(released_at, '-infinity') AS is_doubtful
        FROM wallet.attempt_item
        JOIN wallet.attempt USING (attempt_id)
        JOIN wallet.sending_window USING (window_id)
        CROSS JOIN LATERAL (
            SELECT outcome IS NULL OR outcome IN ('in_doubt', 'contested')
                -- In its own run it waits for whether another payout is booked.
                OR (outcome = 'unclear' AND NOT :is_idempotent AND attempt.epoch <> :epoch)
                AS may_be_booked
        ) AS judged
        WHERE attempt_item.transaction_id = transaction.transaction_id
    ) AS told
) AS so_far
WHERE disposition = 'open' AND hold_reason IS NULL AND business_date <= :business_date
    AND item IS NOT NULL
"""

_IS_USED_UP = """(
    is_doubted AND (
        NOT :is_idempotent
        OR windows > :windows_limit
        OR (windows = :windows_limit AND sends_in_window = 0)
        OR (windows = :windows_limit AND sends_in_window >= :sends_limit)
    )
)"""

_AGAIN = text(f"""
SELECT transaction.transaction_id, sends > 0 AS is_sent, greatest(0, extract(epoch FROM greatest(
    bound_until,
    CASE WHEN sends_in_window > 0
        THEN doubted_at + :delay * 2 ^ (sends_in_window - 1) * interval '1 second' END
) - clock_timestamp())) AS seconds
{_SENT_SO_FAR}
    AND currency = :currency AND transaction.transaction_id > :last
    AND was_blocked = :was_blocked
    AND NOT is_answered_in_run AND sends_in_window < :sends_limit AND NOT {_IS_USED_UP}
ORDER BY transaction.transaction_id
LIMIT :limit
""")

_HOLD_USED_UP = text(f"""
WITH used_up AS (
    SELECT transaction.transaction_id, sends
    {_SENT_SO_FAR}
        AND {_IS_USED_UP}
    ORDER BY transaction.transaction_id
    FOR UPDATE OF transaction
)
UPDATE wallet.transaction
SET hold_reason = 'in_doubt',
    hold_detail = format('sent %s times, and no answer says what became of it', sends)
FROM used_up
WHERE transaction.transaction_id = used_up.transaction_id
    AND disposition = 'open' AND hold_reason IS NULL
""")


class Again(NamedTuple):
    """A payout that may be sent in so many seconds, and whether it ever was."""

    transaction_id: str
    is_sent: bool
    seconds: float


def sent_before(
    engine: Engine,
    sender: Sender,
    settings: Settings,
    business_date: date,
    currency: str,
    was_blocked: bool,
) -> Iterator[Again]:
    """The open payouts of a currency that this run may send, again or after a release: those that
    were refused for our key's sake before, or all others.
    """
    last = ""
    while True:
        with transaction(engine, "sender") as connection:
            look_up_by_key(connection)
            rows = connection.execute(
                _AGAIN,
                _limits(sender, settings, business_date)
                | {
                    "currency": currency,
                    "was_blocked": was_blocked,
                    "last": last,
                    "limit": _PAYOUTS_AT_A_TIME,
                },
            ).all()
        yield from (Again(row.transaction_id, row.is_sent, float(row.seconds or 0)) for row in rows)
        if len(rows) < _PAYOUTS_AT_A_TIME:
            return
        last = rows[-1].transaction_id


def hold_used_up(engine: Engine, sender: Sender, settings: Settings, business_date: date) -> int:
    """Hold what was sent as often as it may be, and may be booked all the same; how many."""
    with transaction(engine, "sender") as connection:
        check_lease(connection, sender.lease)
        look_up_by_key(connection)
        held = connection.execute(_HOLD_USED_UP, _limits(sender, settings, business_date))
        return held.rowcount


def _limits(sender: Sender, settings: Settings, business_date: date) -> dict[str, Any]:
    return {
        "window_id": sender.window_id,
        "epoch": sender.lease.epoch,
        "business_date": business_date,
        "is_idempotent": settings.wallet_partner_idempotent,
        "windows_limit": settings.wallet_windows,
        "sends_limit": settings.wallet_sends_a_window,
        "delay": settings.wallet_resend_delay_seconds,
    }
