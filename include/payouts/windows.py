"""Windows: the time in which a sender sends, and what earlier senders left in theirs."""

from __future__ import annotations

import time

from sqlalchemy import Engine, text

from include.payouts.attempts import Sender
from include.providers.deadlines import now
from include.warehouse.database import transaction
from include.warehouse.leases import Lease, check_lease

HAS_LENGTH = "closes_at > opened_at"
"""Of a window: one that counts.  A brief run's has none: it sends nothing again."""

_OPEN_WINDOW = text("""
WITH present AS (
    SELECT window_id, least(closes_at, opened_at + :seconds * interval '1 second') AS closes_at
    FROM wallet.sending_window
    WHERE :seconds > 0
        AND least(closes_at, opened_at + :seconds * interval '1 second') > clock_timestamp()
    ORDER BY window_id DESC
    LIMIT 1
), clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), opened AS (
    INSERT INTO wallet.sending_window (epoch, opened_at, closes_at)
    SELECT :epoch, now, now + :seconds * interval '1 second'
    FROM clock
    WHERE NOT EXISTS (SELECT FROM present)
    RETURNING window_id, closes_at
)
SELECT window_id, extract(epoch FROM closes_at - clock_timestamp()) AS remaining
FROM (SELECT * FROM present UNION ALL SELECT * FROM opened) AS either
""")


def open_window(
    engine: Engine, lease: Lease, run_id: str | None, seconds: float
) -> tuple[Sender, float]:
    """The sender with the window that is open, or else a new one; and when it closes, on the clock
    of `now`.

    One that was opened for longer than `seconds` closes after these.  Without `seconds` it is a new
    one that has no length, and counts in no limit.
    """
    asked_at = now()
    with transaction(engine, "sender") as connection:
        check_lease(connection, lease)
        window = connection.execute(_OPEN_WINDOW, {"epoch": lease.epoch, "seconds": seconds}).one()
    return Sender(lease, window.window_id, run_id), asked_at + float(window.remaining)


# --- what earlier senders left ------------------------------------------------------------------

_LAST = text("""
SELECT count(*) FILTER (WHERE result = 'in_doubt') = :requests
    AND max(closed_at) > clock_timestamp() - :seconds * interval '1 second'
FROM (
    SELECT result, closed_at
    FROM wallet.attempt
    WHERE result <> 'not_executed'
    ORDER BY attempt_id DESC
    LIMIT :requests
) AS last
""")


def is_silent(engine: Engine, requests: int, seconds: float) -> bool:
    """Whether the last so many requests to the wallet are in doubt, and the last of them no longer
    over than that.
    """
    with transaction(engine, "sender") as connection:
        found = connection.execute(_LAST, {"requests": requests, "seconds": seconds})
        return bool(found.scalar_one())


_ABANDON = text("""
WITH abandoned AS (
    UPDATE wallet.attempt
    SET result = 'in_doubt', detail = 'its sender ended without an answer', closed_at = now(),
        closed_by_epoch = :epoch
    WHERE result IS NULL AND epoch < :epoch AND deadline_at <= clock_timestamp()
    RETURNING attempt_id
), doubted AS (
    UPDATE wallet.attempt_item
    SET outcome = 'in_doubt'
    FROM abandoned
    WHERE attempt_item.attempt_id = abandoned.attempt_id AND outcome IS NULL
)
SELECT count(*) FROM abandoned
""")

_OPEN_FOR = text("""
SELECT max(extract(epoch FROM deadline_at - clock_timestamp()))
FROM wallet.attempt
WHERE result IS NULL AND epoch < :epoch
""")


def close_abandoned(engine: Engine, sender: Sender) -> int:
    """Wait until the deadlines of requests that an earlier sender left open have passed, then
    count them as in doubt; how many there were.
    """
    this = {"epoch": sender.lease.epoch}
    closed = 0
    while True:
        with transaction(engine, "sender") as connection:
            check_lease(connection, sender.lease)
            closed += int(connection.execute(_ABANDON, this).scalar_one())
            seconds = connection.scalar(_OPEN_FOR, this)
        if seconds is None:
            return closed
        time.sleep(max(float(seconds), 0.01))
