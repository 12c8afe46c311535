"""Stages: refusals become lost once the attempts made together are found plausible, or are held.

A refusal is stored with its answer and waits (`refusal_pending`).  Too many alike are rather our
mistake or the partner's than so many players': these wait for a person, and their currency stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, text

from include.payouts.attempts import Sender
from include.payouts.judging import ALIKE_AT_CANARY, AnsweredCode, too_many
from include.payouts.outbox import SOURCE, in_major_units
from include.settings import Settings
from include.warehouse.database import array_literal, lock_source, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.leases import check_lease

CANARY = 0
"""The stage of a currency's first attempts in a run."""

_EXAMPLES = 10


class Stage(NamedTuple):
    """Attempts of one sender and currency that are judged together."""

    epoch: int
    currency: str
    number: int


class StageJudged(NamedTuple):
    """How many payouts became lost, how many are held by findings, and which codes stopped."""

    lost: int
    held: int
    codes: tuple[str, ...]


_ANSWERED = """
FROM wallet.attempt
JOIN wallet.attempt_item USING (attempt_id)
WHERE epoch = :epoch AND currency = :currency AND stage = :number
    AND outcome IN ('ok', 'refused', 'unclear', 'contested')
"""
_COUNT = text(f"""
SELECT coalesce(code, 'no code') AS code, outcome IN ('refused', 'unclear') AS is_refusal,
    count(*) AS payouts
{_ANSWERED}
GROUP BY 1, 2
""")
_FIRST = text(f"""
SELECT coalesce(code, 'no code') AS code, outcome IN ('refused', 'unclear') AS is_refusal
{_ANSWERED}
ORDER BY attempt_id, place
LIMIT :limit
""")

_LOCK_PENDING = text("""
SELECT transaction_id, amount, evidence ->> 'code' AS code
FROM wallet.transaction
WHERE hold_reason = 'refusal_pending' AND hold_finding_id IS NULL
    AND transaction_id IN (
        SELECT transaction_id
        FROM wallet.attempt
        JOIN wallet.attempt_item USING (attempt_id)
        WHERE epoch = :epoch AND attempt.currency = :currency AND stage = :number
            AND outcome = 'refused'
            AND attempt_id = CAST(transaction.evidence ->> 'attempt_id' AS bigint)
    )
ORDER BY transaction_id
FOR UPDATE
""")

_LOSE = text("""
UPDATE wallet.transaction
SET disposition = 'lost', hold_reason = NULL, hold_detail = NULL
WHERE transaction_id = ANY (CAST(:ids AS text[]))
""")

_ASK = text("""
UPDATE wallet.transaction
SET hold_finding_id = :finding_id
WHERE transaction_id = ANY (CAST(:ids AS text[]))
""")

_UNJUDGED = text("""
SELECT DISTINCT epoch, attempt.currency, stage
FROM wallet.transaction
JOIN wallet.attempt ON attempt_id = CAST(evidence ->> 'attempt_id' AS bigint)
WHERE hold_reason = 'refusal_pending' AND hold_finding_id IS NULL
ORDER BY epoch, attempt.currency, stage
""")

_STOPPED = text("""
SELECT detail ->> 'currency' AS currency, min(finding_id) AS finding_id
FROM ops.finding
WHERE kind = 'refusals_held' AND source = :source AND state = 'open'
GROUP BY 1
""")


def unjudged_stages(engine: Engine) -> list[Stage]:
    """Stages whose refusals still wait, as a sender left them that has ended; or this one."""
    with transaction(engine, "sender") as connection:
        return [Stage(*row) for row in connection.execute(_UNJUDGED)]


def stopped_currencies(engine: Engine) -> dict[str, int]:
    """Currencies that wait for a decision about refusals, each with a finding that asks for it."""
    with transaction(engine, "sender") as connection:
        rows = connection.execute(_STOPPED, {"source": SOURCE})
        return {row.currency: row.finding_id for row in rows}


def judge_stage(engine: Engine, sender: Sender, stage: Stage, settings: Settings) -> StageJudged:
    """Make the stage's refusals lost, but for those of which there are too many: these are held,
    with one finding for each code.

    All attempts of the stage must be closed.
    """
    this = stage._asdict()
    with transaction(engine, "sender") as connection:
        check_lease(connection, sender.lease)
        lock_source(connection, SOURCE)
        stopping = _stopping_codes(connection, stage, settings)
        pending = connection.execute(_LOCK_PENDING, this).all()
        lost = [row for row in pending if row.code not in stopping]
        held = [row for row in pending if row.code in stopping]
        if lost:
            connection.execute(_LOSE, {"ids": _ids(lost)})
        for code in sorted({row.code for row in held}):
            _ask(connection, stage, code, [row for row in held if row.code == code])
    return StageJudged(len(lost), len(held), tuple(sorted(stopping)))


def _stopping_codes(connection: Connection, stage: Stage, settings: Settings) -> frozenset[str]:
    counts = connection.execute(_COUNT, stage._asdict()).all()
    is_canary = stage.number == CANARY
    limit = ALIKE_AT_CANARY if is_canary else 0
    first = connection.execute(_FIRST, {**stage._asdict(), "limit": limit})
    return too_many(
        {row.code: row.payouts for row in counts if row.is_refusal},
        sum(row.payouts for row in counts),
        [AnsweredCode(row.code, row.is_refusal) for row in first],
        share_limit=settings.wallet_refusal_share_limit,
        sample=settings.wallet_refusal_sample,
    )


def _ask(connection: Connection, stage: Stage, code: str, held: Sequence[Row[Any]]) -> None:
    amount = in_major_units(sum(row.amount for row in held))
    finding_id = open_finding(
        connection,
        Finding(
            kind="refusals_held",
            source=SOURCE,
            subject=f"{stage.currency} {code}",
            summary=f"The wallet refused {len(held)} payouts in {stage.currency} "
            f"({amount}) with {code}: too many to be taken for true.",
            kept="None of them is lost or sent again before it is decided. Nothing more in "
            f"{stage.currency} is sent until then; other currencies go on.",
            detail={
                "currency": stage.currency,
                "code": code,
                "count": len(held),
                "amount": str(amount),
                "examples": [row.transaction_id for row in held[:_EXAMPLES]],
            },
        ),
    )
    connection.execute(_ASK, {"finding_id": finding_id, "ids": _ids(held)})


def _ids(rows: Sequence[Row[Any]]) -> str:
    return array_literal(row.transaction_id for row in rows)
