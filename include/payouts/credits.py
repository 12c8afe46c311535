"""Credits of prediction markets: sent by the run that makes them, what is left by the resend.

They go through the one sender, under its lock, with its canary and its breaker.  Sent is what never
was: how often anything is sent again is counted in windows, and these are the resend's.  Nobody has
to do anything about what is left: what never reached the wallet goes with the next run of
settle_markets, and whatever is open with resend_settlements, at 01:00 UTC.
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
from include.payouts.sending import Partner, Sent
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
    has to act.
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
            AND outcome IS DISTINCT FROM 'not_executed'
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
        f"Credits are left ({told}). Nothing of them is lost, and there is nothing to do: the next "
        "run sends what is to be sent, and resend_settlements all of them at 01:00 UTC. What waits "
        "for a decision has a finding."
    )
