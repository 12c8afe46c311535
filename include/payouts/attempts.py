"""Attempts: committed before their first byte is sent.

Several are committed at once: each has its own row, items, digest and deadline, and is in doubt,
answered or sent again on its own.  Rows are locked in one order everywhere: attempts, then payouts,
each by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from include.providers.deadlines import now
from include.providers.wallet import join_items
from include.warehouse.database import array_literal, look_up_by_key, numbers_literal, transaction
from include.warehouse.leases import Lease, check_lease


@dataclass(frozen=True)
class Sender:
    """Who sends: the holder of the sender lock, its open window, and the Airflow run."""

    lease: Lease
    window_id: int
    run_id: str | None


class Stage(NamedTuple):
    """Attempts of one sender and currency that are judged together."""

    epoch: int
    currency: str
    number: int


class Batch(NamedTuple):
    """Payouts that are to be sent in one request, in this order."""

    stage: Stage
    ids: Sequence[str]


@dataclass(frozen=True)
class Attempt:
    """One request, committed: its items' bytes by id in their order.

    It began to be committed at `begun_at`, and nothing of it is sent after `ends_at`, both on the
    clock of `now`.
    """

    attempt_id: int
    items: dict[str, bytes]
    begun_at: float
    ends_at: float

    @property
    def body(self) -> bytes:
        """The exact body."""
        return join_items(list(self.items.values()))


# Bound to an earlier request are those which that one may still reach, or may have reached.  A row
# that somebody else has locked is not due now: a session that never ends would stop all others.
# Nor is one whose release is yet to come, by a clock that was set back: what is sent after it is
# told by its time from what was sent before.
_LOCK_DUE = text("""
SELECT transaction_id, item, amount
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[]))
    AND disposition = 'open' AND hold_reason IS NULL AND item IS NOT NULL
    AND coalesce(released_at, '-infinity') <= now()
    AND NOT EXISTS (
        SELECT
        FROM wallet.attempt_item
        JOIN wallet.attempt USING (attempt_id)
        WHERE attempt_item.transaction_id = transaction.transaction_id
            AND (outcome IS NULL OR outcome IN ('in_doubt', 'contested'))
            AND deadline_at > clock_timestamp()
    )
ORDER BY transaction_id
FOR UPDATE SKIP LOCKED
""")

_INSERT_ATTEMPTS = text("""
INSERT INTO wallet.attempt (
    window_id, epoch, run_id, currency, stage, items, amount, body_sha256, deadline_at
)
SELECT
    :window_id, :epoch, :run_id, currency, stage, items, amount, CAST(body_sha256 AS bytea),
    clock_timestamp() + :seconds * interval '1 second'
FROM unnest(
    CAST(:currencies AS text[]), CAST(:stages AS integer[]), CAST(:items AS integer[]),
    CAST(:amounts AS numeric[]), CAST(:digests AS text[])
) AS intended (currency, stage, items, amount, body_sha256)
RETURNING attempt_id, body_sha256
""")

_INSERT_ITEMS = text("""
INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place)
SELECT transaction_id, attempt_id, place
FROM unnest(
    CAST(:ids AS text[]), CAST(:attempts AS bigint[]), CAST(:places AS smallint[])
) AS listed (transaction_id, attempt_id, place)
""")


class _Intent(NamedTuple):
    """What an attempt will hold: its items' bytes by id, the digest of its body, their sum."""

    stage: Stage
    items: dict[str, bytes]
    digest: bytes
    amount: int


def commit_attempts(
    engine: Engine, sender: Sender, batches: Sequence[Batch], deadline_seconds: float
) -> list[Attempt | None]:
    """Commit the intent to send, for each batch, those payouts of it that may be sent now; None
    where none may.

    Raises `LeaseLost` if somebody else sends since.
    """
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        check_lease(connection, sender.lease)
        intents = _lock_due(connection, batches)
        # Read before the server reads its clock: ours is over first.
        begun_at = now()
        numbers = _insert(connection, sender, [each for each in intents if each], deadline_seconds)
    return [
        intent
        and Attempt(numbers[intent.digest], intent.items, begun_at, begun_at + deadline_seconds)
        for intent in intents
    ]


def _lock_due(connection: Connection, batches: Sequence[Batch]) -> list[_Intent | None]:
    candidates = array_literal(each for batch in batches for each in batch.ids)
    locked = connection.execute(_LOCK_DUE, {"ids": candidates}).all()
    due = {transaction_id: (bytes(item), amount) for transaction_id, item, amount in locked}
    intents: list[_Intent | None] = []
    for stage, ids in batches:
        # Taken out, so that none can be in two of them.
        rows = {each: due.pop(each) for each in ids if each in due}
        items = {each: item for each, (item, _) in rows.items()}
        digest = hashlib.sha256(join_items(list(items.values()))).digest()
        amount = sum(amount for _, amount in rows.values())
        intents.append(_Intent(stage, items, digest, amount) if items else None)
    return intents


def _insert(
    connection: Connection, sender: Sender, intents: Sequence[_Intent], deadline_seconds: float
) -> dict[bytes, int]:
    """The attempts' numbers by the digest of their bodies, of which no two are the same."""
    if not intents:
        return {}
    inserted = connection.execute(
        _INSERT_ATTEMPTS,
        {
            "window_id": sender.window_id,
            "epoch": sender.lease.epoch,
            "run_id": sender.run_id,
            "currencies": array_literal(intent.stage.currency for intent in intents),
            "stages": numbers_literal(intent.stage.number for intent in intents),
            "items": numbers_literal(len(intent.items) for intent in intents),
            "amounts": numbers_literal(intent.amount for intent in intents),
            "digests": array_literal(rf"\x{intent.digest.hex()}" for intent in intents),
            "seconds": deadline_seconds,
        },
    )
    numbers = {bytes(row.body_sha256): row.attempt_id for row in inserted}
    listed = [
        (transaction_id, numbers[intent.digest], place)
        for intent in intents
        for place, transaction_id in enumerate(intent.items, 1)
    ]
    ids, attempts, places = zip(*listed, strict=True)
    connection.execute(
        _INSERT_ITEMS,
        {
            "ids": array_literal(ids),
            "attempts": numbers_literal(attempts),
            "places": numbers_literal(places),
        },
    )
    return numbers
