"""What is due: which payouts a run of sending is about, in the order in which they are sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Engine, text

from include.payouts import outbox, stages
from include.payouts.outbox import ALL, IS_MEANT, Which
from include.settings import Settings
from include.warehouse.database import look_up_by_key, transaction

CANARY_ITEMS = 10
"""In the second request of a currency, behind a first one with a single payout."""
ITEMS_AGAIN = (10,)
"""How many payouts a request holds that were sent before, the first time; then one by one."""

# So few that the requests which are committed ahead last until the next are looked up.
_IDS_AT_A_TIME = 400
# So many that what was looked up one stretch before is answered.
_IDS_A_STRETCH = 10_000
# A currency that comes last has its request among them.
_LATEST_REQUESTS = 1000
_EXAMPLES = 5


class Errand(NamedTuple):
    """What is to be sent: up to which day, how many in a request, which, and not in which
    currencies.

    A brief one sends nothing again and waits for nothing long: what is in doubt is the resend's,
    which counts in windows how often it may be sent.  What was refused with the whole request, for
    our key's sake, never was sent: else nothing would tell that the key is still refused.
    """

    until: date
    batch_items: int
    which: Which = ALL
    passed_over: frozenset[str] = frozenset()
    is_brief: bool = False

    @property
    def condition(self) -> dict[str, Any]:
        """The same as statements have it."""
        return {
            "business_date": self.until,
            "is_brief": self.is_brief,
            **self.which._asdict(),
        }


def currencies(engine: Engine, errand: Errand) -> list[str]:
    """Those in which anything of the errand is open and not held; last those whose last request
    was not answered, or was refused for our key's sake: if it is again, the run may end there.
    """
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        found = connection.scalars(_CURRENCIES, {**errand.condition, "requests": _LATEST_REQUESTS})
        return [each for each in found if each not in errand.passed_over]


def never_sent(engine: Engine, errand: Errand, currency: str) -> Iterator[str]:
    """Payouts of the errand that were never sent, or for sure not executed, by their ids.

    Each that was sent leaves a dead entry in the index of those that are due, which whoever meets
    it first marks as such: quickly while its row is at hand, and a day's end would wait for a
    million of them.  So the stretch before is met once more.
    """
    last = ""
    stretches = deque(["", ""], maxlen=3)
    read = 0
    while True:
        with transaction(engine, "sender") as connection:
            look_up_by_key(connection)
            if read >= _IDS_A_STRETCH:
                stretches.append(last)
                read = 0
                connection.execute(
                    _MEET,
                    {"currency": currency, "after": stretches[0], "until": stretches[1]},
                )
            ids = connection.scalars(
                _FRESH,
                {
                    "currency": currency,
                    "last": last,
                    "limit": _IDS_AT_A_TIME,
                    **errand.condition,
                },
            ).all()
        yield from ids
        if len(ids) < _IDS_AT_A_TIME:
            return
        last = ids[-1]
        read += len(ids)


# Looks each currency up behind the one before: their number counts, not that of the payouts.
_CURRENCIES = text(f"""
WITH RECURSIVE due AS NOT MATERIALIZED (
    SELECT currency, transaction_id
    FROM wallet.transaction
    WHERE disposition = 'open' AND hold_reason IS NULL AND business_date <= :business_date
        AND {IS_MEANT}
), each AS (
    (SELECT currency FROM due ORDER BY currency LIMIT 1)
    UNION ALL
    SELECT (
        SELECT due.currency FROM due WHERE due.currency > each.currency
        ORDER BY due.currency LIMIT 1
    )
    FROM each
    WHERE each.currency IS NOT NULL
), last AS (
    SELECT DISTINCT ON (currency) currency, attempt_id, result
    FROM (SELECT * FROM wallet.attempt ORDER BY attempt_id DESC LIMIT :requests) AS latest
    ORDER BY currency, attempt_id DESC
)
SELECT currency
FROM each
LEFT JOIN last USING (currency)
WHERE currency IS NOT NULL
ORDER BY last.attempt_id IS NOT NULL AND (
    result IS DISTINCT FROM 'answered' OR EXISTS (
        SELECT
        FROM wallet.attempt_item
        WHERE attempt_item.attempt_id = last.attempt_id AND outcome = 'blocked'
    )
), currency
""")

_MEET = text("""
SELECT count(*)
FROM wallet.transaction
WHERE currency = :currency AND transaction_id > :after AND transaction_id <= :until
    AND disposition = 'open' AND hold_reason IS NULL
""")

_FRESH = text(f"""
SELECT transaction_id
FROM wallet.transaction
WHERE currency = :currency AND transaction_id > :last AND business_date <= :business_date
    AND {IS_MEANT}
    AND disposition = 'open' AND hold_reason IS NULL AND item IS NOT NULL
    AND NOT EXISTS (
        SELECT
        FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND outcome IS DISTINCT FROM 'not_executed'
            AND NOT (:is_brief AND outcome IS NOT DISTINCT FROM 'rejected')
    )
ORDER BY transaction_id
LIMIT :limit
""")


# What a run would send.


@dataclass(frozen=True)
class Planned:
    """What a run would send in one currency now; `amount` in units of it.

    `first` are the first ids, `in_doubt` how many may be booked already: of these, some may have to
    wait for the next window.  With `finding_id` nothing of it would be sent before that is decided.
    """

    currency: str
    payouts: int
    amount: Decimal
    requests: int
    first: list[str]
    in_doubt: int
    finding_id: int | None = None


def plan(
    engine: Engine, settings: Settings, business_date: date, batch_items: int | None = None
) -> list[Planned]:
    """What `send` would send now, by currency; sends nothing, and freezes the items' bytes."""
    outbox.freeze_new(engine)
    size = batch_items or settings.wallet_batch_items
    stopped = stages.stopped_currencies(engine)
    with transaction(engine, "sender") as connection:
        rows = connection.execute(_PLAN, {"business_date": business_date, "limit": _EXAMPLES})
        return [
            Planned(
                row.currency,
                row.payouts,
                outbox.in_major_units(row.amount),
                _requests(row.fresh, row.payouts - row.fresh, size),
                list(row.first),
                row.in_doubt,
                stopped.get(row.currency),
            )
            for row in rows
        ]


_PLAN = text("""
SELECT
    currency, count(*) AS payouts, sum(amount) AS amount,
    (array_agg(transaction_id ORDER BY transaction_id))[1:CAST(:limit AS integer)] AS first,
    count(*) FILTER (WHERE EXISTS (
        SELECT FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND (outcome IS NULL OR outcome IN ('in_doubt', 'contested', 'unclear'))
    )) AS in_doubt,
    count(*) FILTER (WHERE NOT EXISTS (
        SELECT FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND outcome IS DISTINCT FROM 'not_executed'
    )) AS fresh
FROM wallet.transaction
WHERE disposition = 'open' AND hold_reason IS NULL AND item IS NOT NULL
    AND business_date <= :business_date
GROUP BY currency
ORDER BY currency
""")


def _requests(fresh: int, again: int, size: int) -> int:
    """The canary's two, full ones for the rest, and small ones for what was sent before."""
    first = fresh or again
    full = size if fresh else min(size, *ITEMS_AGAIN)
    canary = min(first, 1) + (first > 1)
    rest = -(-max(first - 1 - CANARY_ITEMS, 0) // full)
    return canary + rest + (-(-again // min(size, *ITEMS_AGAIN)) if fresh else 0)
