"""Stages: refusals become lost once the attempts made together are found plausible, or are held.

A refusal is stored with its answer and waits (`refusal_pending`).  Too many alike are rather our
mistake or the partner's than so many players': these wait for a person, and their currency stops.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select, text

from include.payouts.attempts import Sender, Stage
from include.payouts.judging import ALIKE_AT_CANARY, AnsweredCode, too_many
from include.payouts.outbox import SOURCE, ask_about
from include.payouts.windows import HAS_LENGTH
from include.settings import Settings
from include.warehouse.database import array_literal, lock_source, transaction
from include.warehouse.findings import Finding
from include.warehouse.leases import check_lease
from include.warehouse.tables import attempt, attempt_item
from include.warehouse.tables import transaction as transaction_table

CANARY = 0
"""The stage of a currency's first attempts in a run."""

NO_CODE = "no code"
"""Stands for the code of a refusal that has none."""


class StageJudged(NamedTuple):
    """How many refusals became lost, how many are held or owed, and which codes stopped."""

    lost: int
    held: int
    codes: tuple[str, ...]


# What is judged together.
_OF_STAGE = "epoch = :epoch AND currency = :currency AND stage = :number"
_OF_RUN = "epoch = :epoch"

# Of what was in doubt before, being contested says nothing of others: each waits for a person
# anyway, and those that are in doubt like it would not be sent again before.
_ANSWERED = """
FROM wallet.attempt
JOIN wallet.attempt_item USING (attempt_id)
WHERE (
        outcome IN ('ok', 'refused', 'unclear')
        OR outcome = 'contested' AND NOT EXISTS (
            SELECT
            FROM wallet.attempt_item AS earlier
            WHERE earlier.transaction_id = attempt_item.transaction_id
                AND earlier.attempt_id < attempt_item.attempt_id
                AND earlier.outcome IN ('in_doubt', 'unclear', 'contested')
        )
    )
"""
# What is contested counts as one refusal, whatever it was answered with.
_CODE = f"""
CASE WHEN outcome = 'contested' THEN outcome ELSE coalesce(code, '{NO_CODE}') END AS code,
outcome <> 'ok' AS is_refusal
"""
_COUNT = f"""
SELECT {_CODE}, count(*) AS payouts
{_ANSWERED}
    AND {{together}}
GROUP BY 1, 2
"""
# A brief run sends credits alone, which a refusal makes owed, never lost, and comes with two or
# three of them all day: there three alike say nothing yet.
_FIRST = f"""
SELECT {_CODE}
{_ANSWERED}
    AND {{together}}
    AND EXISTS (
        SELECT FROM wallet.sending_window
        WHERE sending_window.window_id = attempt.window_id AND {HAS_LENGTH}
    )
ORDER BY attempt_id, place
LIMIT :limit
"""

# Found at a run's first payouts, or else in few: without any that is booked, a run ends soon.
_HAS_BOOKED = text(f"""
SELECT EXISTS (
    SELECT
    FROM wallet.attempt
    CROSS JOIN LATERAL (
        SELECT
        FROM wallet.attempt_item
        WHERE attempt_item.attempt_id = attempt.attempt_id AND outcome = 'ok'
        LIMIT 1
    ) AS booked
    WHERE {_OF_RUN}
)
""")

_LOCK_PENDING = text("""
SELECT transaction_id, evidence ->> 'code' AS code
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
    AND origin_source IS DISTINCT FROM 'prediction'
""")

# A market's credit is owed to its player whatever the wallet says: the finding comes with the
# report of what is held.
_OWE = text("""
UPDATE wallet.transaction
SET hold_reason = 'owed'
WHERE transaction_id = ANY (CAST(:ids AS text[])) AND origin_source = 'prediction'
""")

_UNJUDGED = text("""
SELECT DISTINCT epoch, attempt.currency, stage
FROM wallet.transaction
JOIN wallet.attempt ON attempt_id = CAST(evidence ->> 'attempt_id' AS bigint)
WHERE hold_reason = 'refusal_pending' AND hold_finding_id IS NULL
ORDER BY epoch, attempt.currency, stage
""")

_ASKED_ABOUT = text("""
SELECT detail ->> 'code'
FROM ops.finding
WHERE kind = 'refusals_held' AND source = :source AND state = 'open'
    AND detail ->> 'currency' = :currency
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


def judge_stage(
    engine: Engine,
    sender: Sender,
    stage: Stage,
    settings: Settings,
    tripped: frozenset[str] = frozenset(),
) -> StageJudged:
    """Make the stage's refusals lost, or owed if they are credits of a market, but for those of
    which there are too many: these are held, with one finding for each code.

    As long as nothing is booked in the stage's run, all currencies are judged together as well.
    There are too many of a code also if it has stopped the currency before, in this run
    (`tripped`) or so that a finding still asks about it: then however few come behind it.  All
    attempts of the stage must be closed.
    """
    this = stage._asdict()
    with transaction(engine, "sender") as connection:
        check_lease(connection, sender.lease)
        lock_source(connection, SOURCE)
        pending = connection.execute(_LOCK_PENDING, this).all()
        stopping = _too_many(connection, stage, settings, _OF_STAGE)
        if not connection.scalar(_HAS_BOOKED, this):
            of_run = _too_many(connection, stage, settings, _OF_RUN)
            stopping |= of_run & {row.code for row in pending}
        held_back = stopping | tripped | _asked_about(connection, stage.currency)
        final = [row.transaction_id for row in pending if row.code not in held_back]
        lost = owed = 0
        if final:
            lost = connection.execute(_LOSE, {"ids": array_literal(final)}).rowcount
            owed = connection.execute(_OWE, {"ids": array_literal(final)}).rowcount
        for code in sorted(held_back):
            _ask(connection, stage, code)
    held = len(pending) - len(final)
    return StageJudged(lost, held + owed, tuple(sorted(stopping)))


def _asked_about(connection: Connection, currency: str) -> set[str]:
    this = {"source": SOURCE, "currency": currency}
    return set(connection.scalars(_ASKED_ABOUT, this))


def _too_many(
    connection: Connection, stage: Stage, settings: Settings, together: str
) -> frozenset[str]:
    """The codes of which there are too many among what is judged `together` with the stage."""
    this = stage._asdict()
    counts = connection.execute(text(_COUNT.format(together=together)), this).all()
    is_beginning = together == _OF_RUN or stage.number == CANARY
    limit = ALIKE_AT_CANARY if is_beginning else 0
    first = connection.execute(text(_FIRST.format(together=together)), {**this, "limit": limit})
    return too_many(
        {row.code: row.payouts for row in counts if row.is_refusal},
        sum(row.payouts for row in counts),
        [AnsweredCode(row.code, row.is_refusal) for row in first],
        share_limit=settings.wallet_refusal_share_limit,
        sample=settings.wallet_refusal_sample,
    )


def _ask(connection: Connection, stage: Stage, code: str) -> None:
    """Ask about the payouts of the stage that are held for `code`, if there are any.

    What is contested has a finding of its own, which allows other decisions.
    """
    of_stage = (
        select(attempt_item.c.transaction_id)
        .join_from(attempt, attempt_item, attempt.c.attempt_id == attempt_item.c.attempt_id)
        .where(
            attempt.c.epoch == stage.epoch,
            attempt.c.currency == stage.currency,
            attempt.c.stage == stage.number,
            attempt_item.c.outcome.in_(("refused", "unclear")),
            func.coalesce(attempt_item.c.code, NO_CODE) == code,
        )
    )
    concerned = (
        transaction_table.c.hold_reason.in_(("refusal_pending", "unclear"))
        & transaction_table.c.hold_finding_id.is_(None)
        & transaction_table.c.transaction_id.in_(of_stage)
    )
    count = connection.execute(select(func.count()).where(concerned)).scalar_one()
    if count:
        ask_about(
            connection,
            Finding(
                kind="refusals_held",
                source=SOURCE,
                subject=f"{stage.currency} {code}",
                summary=f"The wallet refused {{held}} with {code}: too many to be taken for true.",
                kept="None of them is lost or sent again before it is decided. Nothing more in "
                f"{stage.currency} is sent until then; other currencies go on.",
                detail={"currency": stage.currency, "code": code},
            ),
            concerned,
        )
