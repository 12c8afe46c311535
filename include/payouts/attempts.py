"""Attempts: committed before their first byte is sent, closed with what the wallet said.

An attempt is closed in one transaction: the answer as it came, what it says of each payout, and
what that makes of the payout.  Rows are locked in one order everywhere: the attempt, then payouts
by id.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from include.payouts.judging import ItemJudgement, ItemOutcome, Judgement
from include.payouts.outbox import SOURCE
from include.providers.http import Answer
from include.providers.wallet import join_items
from include.warehouse.database import array_literal, look_up_by_key, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.leases import Lease, check_lease, is_last

_EXAMPLES = 10


@dataclass(frozen=True)
class Sender:
    """Who sends: the holder of the sender lock, its open window, and the Airflow run."""

    lease: Lease
    window_id: int
    run_id: str | None


@dataclass(frozen=True)
class Attempt:
    """One request, committed: its items' bytes by id in their order.

    It began to be committed at `begun_at`, and nothing of it is sent after `ends_at`, both on the
    clock of `time.monotonic`.
    """

    attempt_id: int
    items: dict[str, bytes]
    begun_at: float
    ends_at: float

    @property
    def body(self) -> bytes:
        """The exact body."""
        return join_items(list(self.items.values()))


@dataclass(frozen=True)
class Closed:
    """What became of an attempt's payouts: how many of each, after what was known before."""

    processed: int = 0
    refused: int = 0
    contested: int = 0
    in_doubt: int = 0


# --- before the first byte ----------------------------------------------------------------------

# Bound to an earlier request are those which that one may still reach, or may have reached.  A row
# that somebody else has locked is not due now: a session that never ends would stop all others.
_LOCK_DUE = text("""
SELECT transaction_id, item, amount
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[]))
    AND disposition = 'open' AND hold_reason IS NULL AND item IS NOT NULL
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

_INSERT_ATTEMPT = text("""
INSERT INTO wallet.attempt (
    window_id, epoch, run_id, currency, stage, items, amount, body_sha256, deadline_at
)
VALUES (
    :window_id, :epoch, :run_id, :currency, :stage, :items, :amount, :body_sha256,
    clock_timestamp() + :seconds * interval '1 second'
)
RETURNING attempt_id
""")

_INSERT_ITEMS = text("""
INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place)
SELECT transaction_id, :attempt_id, place
FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS listed (transaction_id, place)
""")


def commit_attempt(
    engine: Engine,
    sender: Sender,
    currency: str,
    stage: int,
    candidates: Iterable[str],
    deadline_seconds: float,
) -> Attempt | None:
    """Commit the intent to send those of the candidates that may be sent now; None if none may.

    Raises `LeaseLost` if somebody else sends since.
    """
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        check_lease(connection, sender.lease)
        due = connection.execute(_LOCK_DUE, {"ids": array_literal(candidates)}).all()
        if not due:
            return None
        items = {row.transaction_id: bytes(row.item) for row in due}
        # Read before the server reads its clock: ours is over first.
        begun_at = time.monotonic()
        attempt_id: int = connection.execute(
            _INSERT_ATTEMPT,
            {
                "window_id": sender.window_id,
                "epoch": sender.lease.epoch,
                "run_id": sender.run_id,
                "currency": currency,
                "stage": stage,
                "items": len(items),
                "amount": sum(row.amount for row in due),
                "body_sha256": hashlib.sha256(join_items(list(items.values()))).digest(),
                "seconds": deadline_seconds,
            },
        ).scalar_one()
        connection.execute(_INSERT_ITEMS, {"attempt_id": attempt_id, "ids": array_literal(items)})
    return Attempt(attempt_id, items, begun_at, begun_at + deadline_seconds)


def may_begin(engine: Engine, sender: Sender) -> bool:
    """Whether the sender still holds its lock."""
    with transaction(engine, "sender") as connection:
        return is_last(connection, sender.lease)


# --- after the answer ---------------------------------------------------------------------------

# None if it is closed already: the commit of an earlier try was not heard of.
_CLOSE = text("""
UPDATE wallet.attempt
SET result = :result, detail = :detail, closed_at = now(), closed_by_epoch = :epoch,
    http_status = :http_status, content_type = :content_type, answer = :answer,
    is_answer_complete = :is_answer_complete, answer_code = :answer_code
WHERE attempt_id = :attempt_id AND (result IS NULL OR result = 'in_doubt')
""")

_CLOSE_ITEMS = text("""
UPDATE wallet.attempt_item
SET outcome = told.outcome, code = told.code, balance = told.balance, detail = told.detail
FROM unnest(
    CAST(:ids AS text[]), CAST(:outcomes AS text[]), CAST(:codes AS text[]),
    CAST(:balances AS numeric[]), CAST(:details AS text[])
) AS told (transaction_id, outcome, code, balance, detail)
WHERE attempt_item.transaction_id = told.transaction_id AND attempt_id = :attempt_id
""")

_LOCK = text("""
SELECT
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[]))
ORDER BY transaction_id
FOR UPDATE
""")

_PROCESS = text("""
UPDATE wallet.transaction
SET disposition = 'processed', hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL,
    evidence = jsonb_build_object('attempt_id', CAST(:attempt_id AS bigint), 'code', 'RS_OK')
WHERE transaction_id = ANY (CAST(:ids AS text[])) AND disposition = 'open'
""")

_LOST = text("""
SELECT transaction_id
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[])) AND disposition = 'lost'
ORDER BY transaction_id
""")

# What was refused may have been booked by another request of which nothing is known for sure.
_DOUBTED_ELSEWHERE = text("""
SELECT DISTINCT transaction_id
FROM wallet.attempt_item
WHERE transaction_id = ANY (CAST(:ids AS text[])) AND attempt_id <> :attempt_id
    AND (outcome IS NULL OR outcome IN ('in_doubt', 'contested'))
""")

_HOLD = text("""
UPDATE wallet.transaction
SET hold_reason = :reason, hold_detail = told.detail, hold_finding_id = NULL,
    evidence = CASE WHEN :is_evidence THEN jsonb_build_object(
        'attempt_id', CAST(:attempt_id AS bigint), 'code', told.code
    ) END
FROM unnest(CAST(:ids AS text[]), CAST(:codes AS text[]), CAST(:details AS text[]))
    AS told (id, code, detail)
WHERE transaction_id = told.id AND disposition = 'open'
    AND coalesce(hold_reason, '') = ANY (CAST(:gives_way AS text[]))
""")

# Which holds a new one takes the place of; '' is none.  Others stay, with their finding.
_GIVES_WAY = {
    "refusal_pending": ["", "in_doubt"],
    "contested": ["", "in_doubt", "refusal_pending", "unclear"],
    "in_doubt": [""],
}


def close_attempt(
    engine: Engine,
    sender: Sender,
    attempt: Attempt,
    judgement: Judgement,
    answer: Answer | None,
    *,
    is_idempotent: bool,
) -> Closed:
    """Store what came of an attempt, and what it makes of its payouts.

    A late answer is taken as well, whoever sends by now: it is the truth about its own attempt.
    May be called again if the warehouse went away: what is stored already stays as it is.
    """
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        closing = _closing(sender, attempt.attempt_id, judgement, answer)
        if not connection.execute(_CLOSE, closing).rowcount:
            return Closed()
        closed = _apply(connection, attempt.attempt_id, judgement, is_idempotent)
        _close_items(connection, attempt.attempt_id, judgement.items)
        if judgement.foreign_ids:
            _tell_foreign(connection, attempt.attempt_id, judgement.foreign_ids)
    return closed


def _closing(
    sender: Sender, attempt_id: int, judgement: Judgement, answer: Answer | None
) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "epoch": sender.lease.epoch,
        "result": judgement.result,
        "detail": judgement.detail,
        "answer_code": judgement.answer_code,
        "http_status": answer and answer.status,
        "content_type": answer and answer.content_type,
        "answer": answer and answer.body,
        "is_answer_complete": answer and answer.is_complete,
    }


def _close_items(connection: Connection, attempt_id: int, items: Sequence[ItemJudgement]) -> None:
    connection.execute(
        _CLOSE_ITEMS,
        {
            "attempt_id": attempt_id,
            "ids": _ids(items),
            "outcomes": array_literal(item.outcome for item in items),
            "codes": array_literal(item.code for item in items),
            "balances": array_literal(
                None if item.balance is None else str(item.balance) for item in items
            ),
            "details": array_literal(item.detail for item in items),
        },
    )


def _apply(
    connection: Connection, attempt_id: int, judgement: Judgement, is_idempotent: bool
) -> Closed:
    booked = judgement.items_of(ItemOutcome.OK)
    refused = judgement.items_of(ItemOutcome.REFUSED)
    contested = judgement.items_of(ItemOutcome.CONTESTED)
    doubted = judgement.items_of(ItemOutcome.IN_DOUBT)
    held_in_doubt = [] if is_idempotent else doubted
    to_hold = [*refused, *contested, *held_in_doubt]
    if to_hold:
        # All at once and in order, before the first of them is changed.
        connection.execute(_LOCK, {"ids": _ids([*booked, *to_hold])})
    processed = _process(connection, attempt_id, booked)
    refused, doubtful = _split(refused, _doubted_elsewhere(connection, attempt_id, refused))
    contested = [*contested, *doubtful]
    _hold(connection, attempt_id, "refusal_pending", refused)
    _hold(connection, attempt_id, "contested", contested)
    _hold(connection, attempt_id, "in_doubt", held_in_doubt)
    return Closed(processed, len(refused), len(contested), len(doubted))


def _process(connection: Connection, attempt_id: int, booked: Sequence[ItemJudgement]) -> int:
    if not booked:
        return 0
    this = {"attempt_id": attempt_id, "ids": _ids(booked)}
    processed = connection.execute(_PROCESS, this).rowcount
    if processed < len(booked) and (lost := connection.scalars(_LOST, this).all()):
        _tell_paid_though_lost(connection, attempt_id, lost)
    return processed


def _doubted_elsewhere(
    connection: Connection, attempt_id: int, refused: Sequence[ItemJudgement]
) -> set[str]:
    if not refused:
        return set()
    found = connection.scalars(_DOUBTED_ELSEWHERE, {"attempt_id": attempt_id, "ids": _ids(refused)})
    return set(found)


def _split(
    refused: Sequence[ItemJudgement], doubted: set[str]
) -> tuple[list[ItemJudgement], list[ItemJudgement]]:
    """Those that were refused for sure, and those that another request may have booked."""
    sure = [item for item in refused if item.transaction_id not in doubted]
    doubtful = [
        item._replace(detail=f"refused with {item.code}, after a request of which no answer came")
        for item in refused
        if item.transaction_id in doubted
    ]
    return sure, doubtful


def _hold(
    connection: Connection, attempt_id: int, reason: str, items: Sequence[ItemJudgement]
) -> None:
    if not items:
        return
    connection.execute(
        _HOLD,
        {
            "reason": reason,
            "attempt_id": attempt_id,
            "is_evidence": reason == "refusal_pending",
            "ids": _ids(items),
            "codes": array_literal(item.code for item in items),
            "details": array_literal(item.detail or item.code for item in items),
            "gives_way": _GIVES_WAY[reason],
        },
    )


def _ids(items: Iterable[ItemJudgement]) -> str:
    return array_literal(item.transaction_id for item in items)


def _tell_paid_though_lost(connection: Connection, attempt_id: int, ids: Sequence[str]) -> None:
    open_finding(
        connection,
        Finding(
            kind="paid_though_lost",
            source=SOURCE,
            subject=f"attempt {attempt_id}",
            summary=f"The wallet answered {len(ids)} payouts as paid that had been given up as "
            "lost.",
            kept="They stay lost, since that was booked; the answer is stored with the attempt. "
            "Correct the books by hand, and tell the partner if it should not have paid.",
            detail={"attempt_id": attempt_id, "count": len(ids), "examples": ids[:_EXAMPLES]},
        ),
    )


def _tell_foreign(connection: Connection, attempt_id: int, ids: Sequence[str]) -> None:
    open_finding(
        connection,
        Finding(
            kind="answer_foreign",
            source=SOURCE,
            subject="answers",
            summary=f"The wallet answered payouts that were not in the request: {len(ids)} in "
            f"attempt {attempt_id}, the last one.",
            kept="Nothing was concluded from them; the answers are stored with the attempts. Ask "
            "the partner how they came into them.",
            detail={"attempt_id": attempt_id, "count": len(ids), "examples": ids[:_EXAMPLES]},
        ),
    )


# --- refused for a reason that is not known -----------------------------------------------------

_LAST_UNCLEAR = """
SELECT DISTINCT ON (transaction_id) transaction_id, coalesce(code, detail, 'no code') AS said
FROM wallet.attempt_item
WHERE transaction_id = ANY (CAST(:ids AS text[])) AND outcome = 'unclear'
ORDER BY transaction_id, attempt_id DESC
"""
_UNCLEAR_ANSWERS = text(f"SELECT DISTINCT said FROM ({_LAST_UNCLEAR}) AS told ORDER BY 1 LIMIT 5")
_HOLD_UNCLEAR = text(f"""
UPDATE wallet.transaction
SET hold_reason = 'unclear', hold_detail = told.said
FROM ({_LAST_UNCLEAR}) AS told
WHERE transaction.transaction_id = told.transaction_id
    AND disposition = 'open' AND hold_reason IS NULL
""")


def unclear_answers(engine: Engine, ids: Iterable[str]) -> list[str]:
    """What the wallet said of these payouts, each answer once."""
    with transaction(engine, "sender") as connection:
        return list(connection.scalars(_UNCLEAR_ANSWERS, {"ids": array_literal(ids)}))


def hold_unclear(engine: Engine, sender: Sender, ids: Sequence[str]) -> int:
    """Hold the payouts that were refused for an unknown reason; how many there are."""
    this = {"ids": array_literal(ids)}
    with transaction(engine, "sender") as connection:
        check_lease(connection, sender.lease)
        look_up_by_key(connection)
        connection.execute(_LOCK, this)
        return connection.execute(_HOLD_UNCLEAR, this).rowcount


# --- attempts whose sender has gone -------------------------------------------------------------

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


def open_window(
    engine: Engine, lease: Lease, run_id: str | None, seconds: float
) -> tuple[Sender, float]:
    """The sender with the window that is open, or else a new one; and when it closes, on the clock
    of `time.monotonic`.
    """
    now = time.monotonic()
    with transaction(engine, "sender") as connection:
        check_lease(connection, lease)
        window = connection.execute(_OPEN_WINDOW, {"epoch": lease.epoch, "seconds": seconds}).one()
    return Sender(lease, window.window_id, run_id), now + float(window.remaining)


_OPEN_WINDOW = text("""
WITH present AS (
    SELECT window_id, closes_at
    FROM wallet.sending_window
    WHERE closes_at > clock_timestamp()
    ORDER BY window_id DESC
    LIMIT 1
), opened AS (
    INSERT INTO wallet.sending_window (epoch, opened_at, closes_at)
    SELECT :epoch, clock_timestamp(), clock_timestamp() + :seconds * interval '1 second'
    WHERE NOT EXISTS (SELECT FROM present)
    RETURNING window_id, closes_at
)
SELECT window_id, extract(epoch FROM closes_at - clock_timestamp()) AS remaining
FROM (SELECT * FROM present UNION ALL SELECT * FROM opened) AS either
""")
