"""Credits of prediction markets: sent by the run that makes them, what is left by the resend.

They go through the one sender, under its lock, with its canary and its breaker.  Sent is what never
was: how often anything is sent again is counted in windows, and these are the resend's.  Nobody has
to do anything about what is left: what never reached the wallet goes with the next run of
settle_markets, and whatever is open with the resend of its day, at 01:00 UTC of the next day.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from sqlalchemy import Engine, text

from include.payouts import sending, stages
from include.payouts.outbox import CREDITS, IS_MEANT, freeze_new
from include.payouts.outcome import check_outbox
from include.payouts.partner import Partner
from include.payouts.sending import THEN_CREDITS, SendingStopped, Sent
from include.settings import Settings
from include.warehouse.database import look_up_by_key, transaction

_log = logging.getLogger(__name__)

_UNMAPPED = (
    "No credit is in the outbox, and the settings do not say how the wallet is told of any: the "
    "operator pays what is owed."
)


@dataclass(frozen=True)
class CreditsSent:
    """What a run did about the credits that wait for the wallet, in credits but for `requests`.

    `held` are owed, because the wallet refused them, or wait for a decision.  Of those that are
    left, `unsent` never reached the wallet, and `unclear` did without becoming paid or refused.
    """

    requests: int = 0
    processed: int = 0
    held: int = 0
    unsent: int = 0
    unclear: int = 0


def send_credits(
    engine: Engine,
    open_partner: Callable[[], Partner],
    settings: Settings,
    run_id: str | None = None,
    *,
    is_mapped: bool,
) -> CreditsSent:
    """Send the credits that were never sent, whichever run made them, and tell what is left.

    The partner is opened only if there are any.  A wallet that is away, or a resend that is under
    way, is no failure.  Raises `SendingStopped`, `BreakerTripped` or `OutboxUnsound` where a person
    has to act; the first of them in each run for as long as the cause lasts.
    """
    sent = Sent()
    waiting = _waiting(engine)
    if not waiting and not is_mapped:
        _log.info("%s", _UNMAPPED)
    try:
        if _may_be_sent(engine, waiting):
            freeze_new(engine, which=CREDITS)
            check_outbox(engine, date.max, CREDITS)
            sent = sending.send_credits(engine, open_partner(), settings, run_id=run_id)
    finally:
        left = _waiting(engine)
        _log.info("%s", _describe(left))
    _raise_if_unknown(engine)
    return CreditsSent(
        sent.requests,
        sent.processed,
        sent.held,
        sum(each.unsent for each in left),
        sum(each.unclear for each in left),
    )


class _Waiting(NamedTuple):
    """Credits of one currency that are open and not held."""

    currency: str
    unsent: int
    unclear: int


_WAITING = text(f"""
SELECT
    currency, count(*) FILTER (WHERE NOT is_sent) AS unsent,
    count(*) FILTER (WHERE is_sent) AS unclear
FROM (
    SELECT currency, EXISTS (
        SELECT
        FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND (outcome IS NULL OR outcome NOT IN ('not_executed', 'rejected'))
    ) AS is_sent
    FROM wallet.transaction
    WHERE disposition = 'open' AND hold_reason IS NULL AND {IS_MEANT}
) AS waiting
GROUP BY currency
ORDER BY currency
""")


def _waiting(engine: Engine) -> list[_Waiting]:
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        return [_Waiting(*row) for row in connection.execute(_WAITING, CREDITS._asdict())]


# As long as nobody has decided about them since.
_UNKNOWN = text(f"""
SELECT currency, coalesce(code, detail, 'no code') AS said, count(*) AS credits,
    min(transaction_id) AS example
FROM wallet.transaction
CROSS JOIN LATERAL (
    SELECT outcome, code, attempt_item.detail, committed_at
    FROM wallet.attempt_item
    JOIN wallet.attempt USING (attempt_id)
    WHERE attempt_item.transaction_id = transaction.transaction_id
        AND outcome IS DISTINCT FROM 'not_executed'
    ORDER BY attempt_id DESC
    LIMIT 1
) AS last
WHERE disposition = 'open' AND hold_reason IS NULL AND {IS_MEANT}
    AND outcome IN ('blocked', 'unclear')
    AND committed_at >= coalesce(released_at, '-infinity')
GROUP BY 1, 2
ORDER BY 1, 2
""")


def _raise_if_unknown(engine: Engine) -> None:
    """Raise `SendingStopped` if the last answer about a credit says nothing that could be gone by:
    it waits for the resend, and no finding asks about it.
    """
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        found = connection.execute(_UNKNOWN, CREDITS._asdict()).all()
    if found:
        told = "; ".join(
            f"{row.credits} in {row.currency} with {row.said}, such as {row.example}"
            for row in found
        )
        raise SendingStopped(
            f"The wallet refused credits in a way that is not known, or as if our key were wrong "
            f"({told}). They are open, and nothing of them is lost; all others go on. Ask the "
            f"partner what its answer means; SETTLEMENTS_WALLET_ITEM_CODES can say so. "
            f"{THEN_CREDITS} Until then each run ends like this one."
        )


def _may_be_sent(engine: Engine, waiting: list[_Waiting]) -> bool:
    """Whether there is anything to do that neither a person nor the resend is asked for."""
    stopped = stages.stopped_currencies(engine)
    return any(each.unsent and each.currency not in stopped for each in waiting)


def _describe(left: list[_Waiting]) -> str:
    if not left:
        return "No credit is left to send."
    told = "; ".join(
        f"{each.currency}: {each.unsent} to be sent, {each.unclear} sent and without an end"
        for each in left
    )
    return (
        f"Credits are left ({told}). Nothing of them is lost: the next "
        "run that the wallet answers sends what is to be sent, and resend_settlements all of them, "
        "those of a day at 01:00 UTC of the next day. What waits for a decision has a finding."
    )
