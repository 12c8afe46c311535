"""Answers: attempts closed with what the wallet said, and what that makes of their payouts.

An attempt is closed in one transaction: the answer as it came, what it says of each payout, and
what that makes of the payout.  Several are closed at once.  Rows are locked in one order
everywhere: attempts, then payouts, each by id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from include.payouts.attempts import Sender
from include.payouts.judging import ItemOutcome, Judgement
from include.payouts.outbox import SOURCE
from include.providers.http import Answer
from include.warehouse.database import array_literal, look_up_by_key, numbers_literal, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.leases import check_lease

_EXAMPLES = 10


class Told(NamedTuple):
    """What came of an attempt: how its items are judged, and the answer if there was one."""

    attempt_id: int
    judgement: Judgement
    answer: Answer | None


@dataclass(frozen=True)
class Closed:
    """What became of attempts' payouts: how many of each, after what was known before."""

    processed: int = 0
    refused: int = 0
    contested: int = 0
    in_doubt: int = 0

    def __add__(self, other: Closed) -> Closed:
        return Closed(
            self.processed + other.processed,
            self.refused + other.refused,
            self.contested + other.contested,
            self.in_doubt + other.in_doubt,
        )


# Not those that are closed already: the commit of an earlier try was not heard of.
_CLOSE = text("""
UPDATE wallet.attempt
SET result = told.result, detail = told.detail, closed_at = now(), closed_by_epoch = :epoch,
    http_status = told.http_status, content_type = told.content_type, answer = told.answer,
    is_answer_complete = told.is_answer_complete, answer_code = told.answer_code
FROM unnest(
    CAST(:attempts AS bigint[]), CAST(:results AS text[]), CAST(:details AS text[]),
    CAST(:statuses AS smallint[]), CAST(:content_types AS text[]), CAST(:answers AS bytea[]),
    CAST(:completes AS boolean[]), CAST(:codes AS text[])
) AS told (
    attempt_id, result, detail, http_status, content_type, answer, is_answer_complete, answer_code
)
WHERE attempt.attempt_id = told.attempt_id
    AND (attempt.result IS NULL OR attempt.result = 'in_doubt')
RETURNING attempt.attempt_id
""")

_CLOSE_ITEMS = text("""
UPDATE wallet.attempt_item
SET outcome = told.outcome, code = told.code, balance = told.balance, detail = told.detail
FROM unnest(
    CAST(:ids AS text[]), CAST(:attempts AS bigint[]), CAST(:outcomes AS text[]),
    CAST(:codes AS text[]), CAST(:balances AS numeric[]), CAST(:details AS text[])
) AS told (transaction_id, attempt_id, outcome, code, balance, detail)
WHERE attempt_item.transaction_id = told.transaction_id
    AND attempt_item.attempt_id = told.attempt_id
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
    evidence = jsonb_build_object('attempt_id', told.attempt_id, 'code', told.code)
FROM unnest(
    CAST(:ids AS text[]), CAST(:attempts AS bigint[]), CAST(:codes AS text[])
) AS told (id, attempt_id, code)
WHERE transaction_id = told.id AND disposition = 'open'
""")

_BOOKED_OTHERWISE = text("""
SELECT transaction_id, disposition
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[]))
    AND (disposition = 'lost' OR evidence ->> 'paid_otherwise' IS NOT NULL)
ORDER BY transaction_id
""")

# What was refused may have been booked by another request of which nothing is known for sure.  One
# that was answered with the same code is known now: a setting says what the code means.
_DOUBTED_ELSEWHERE = text("""
SELECT DISTINCT transaction_id
FROM wallet.attempt_item
JOIN unnest(
    CAST(:ids AS text[]), CAST(:attempts AS bigint[]), CAST(:codes AS text[])
) AS told (id, refused_by, refused_with)
    ON transaction_id = id
WHERE attempt_id <> refused_by AND (
    outcome IS NULL
    OR outcome IN ('in_doubt', 'contested')
    OR (outcome = 'unclear' AND code IS DISTINCT FROM refused_with)
)
""")

_HOLD = text("""
UPDATE wallet.transaction
SET hold_reason = :reason, hold_detail = told.detail, hold_finding_id = NULL,
    evidence = CASE WHEN :is_evidence THEN jsonb_build_object(
        'attempt_id', told.attempt_id, 'code', told.code
    ) END
FROM unnest(
    CAST(:ids AS text[]), CAST(:attempts AS bigint[]), CAST(:codes AS text[]),
    CAST(:details AS text[])
) AS told (id, attempt_id, code, detail)
WHERE transaction_id = told.id AND disposition = 'open'
    AND coalesce(hold_reason, '') = ANY (CAST(:gives_way AS text[]))
""")

# Which holds a new one takes the place of; '' is none.  Others stay, with their finding.
_GIVES_WAY = {
    "refusal_pending": ["", "in_doubt"],
    "contested": ["", "in_doubt", "refusal_pending", "unclear", "owed"],
    "in_doubt": [""],
}


class _Row(NamedTuple):
    """One payout's outcome in one attempt, as `ItemJudgement`."""

    transaction_id: str
    attempt_id: int
    outcome: ItemOutcome
    code: str | None
    balance: int | None
    detail: str | None


def close_attempts(
    engine: Engine, sender: Sender, told: Sequence[Told], *, is_idempotent: bool
) -> Closed:
    """Store what came of attempts, and what it makes of their payouts.

    A late answer is taken as well, whoever sends by now: it is the truth about its own attempt.
    May be called again if the warehouse went away: what is stored already stays as it is.
    """
    in_order = sorted(told, key=lambda each: each.attempt_id)
    with transaction(engine, "sender") as connection:
        look_up_by_key(connection)
        closed_now = _close(connection, sender, in_order)
        taken = [each for each in in_order if each.attempt_id in closed_now]
        rows = sorted(
            _Row(item.transaction_id, attempt_id, *item[1:])
            for attempt_id, judgement, _ in taken
            for item in judgement.items
        )
        closed = _apply(connection, rows, is_idempotent)
        _close_items(connection, rows)
        for attempt_id, judgement, _ in taken:
            if judgement.foreign_ids:
                _tell_foreign(connection, attempt_id, judgement.foreign_ids)
    return closed


def _close(connection: Connection, sender: Sender, told: Sequence[Told]) -> set[int]:
    judgements = [each.judgement for each in told]
    answers = [each.answer for each in told]
    return set(
        connection.scalars(
            _CLOSE,
            {
                "epoch": sender.lease.epoch,
                "attempts": [each.attempt_id for each in told],
                "results": [judgement.result for judgement in judgements],
                "details": [judgement.detail for judgement in judgements],
                "codes": [judgement.answer_code for judgement in judgements],
                "statuses": [answer and answer.status for answer in answers],
                "content_types": [answer and answer.content_type for answer in answers],
                "answers": [answer and answer.body for answer in answers],
                "completes": [answer and answer.is_complete for answer in answers],
            },
        )
    )


def _close_items(connection: Connection, rows: Sequence[_Row]) -> None:
    connection.execute(
        _CLOSE_ITEMS,
        {
            **_named(rows),
            "outcomes": array_literal(row.outcome for row in rows),
            "codes": array_literal(row.code for row in rows),
            "balances": array_literal(
                None if row.balance is None else str(row.balance) for row in rows
            ),
            "details": array_literal(row.detail for row in rows),
        },
    )


def _apply(connection: Connection, rows: Sequence[_Row], is_idempotent: bool) -> Closed:
    by_outcome: dict[ItemOutcome, list[_Row]] = defaultdict(list)
    for row in rows:
        by_outcome[row.outcome].append(row)
    booked, doubted = by_outcome[ItemOutcome.OK], by_outcome[ItemOutcome.IN_DOUBT]
    refused, contested = by_outcome[ItemOutcome.REFUSED], by_outcome[ItemOutcome.CONTESTED]
    held_in_doubt = [] if is_idempotent else doubted
    to_hold = [*refused, *contested, *held_in_doubt]
    if to_hold:
        # All at once and in order, before the first of them is changed.
        connection.execute(_LOCK, _named([*booked, *to_hold]))
    processed = _process(connection, booked)
    refused, doubtful = _split(refused, _doubted_elsewhere(connection, refused))
    contested = [*contested, *doubtful]
    _hold(connection, "refusal_pending", refused)
    _hold(connection, "contested", contested)
    _hold(connection, "in_doubt", held_in_doubt)
    return Closed(processed, len(refused), len(contested), len(doubted))


def _process(connection: Connection, booked: Sequence[_Row]) -> int:
    if not booked:
        return 0
    codes = array_literal(row.code for row in booked)
    processed = connection.execute(_PROCESS, {**_named(booked), "codes": codes}).rowcount
    if processed < len(booked):
        found = connection.execute(_BOOKED_OTHERWISE, _named(booked))
        otherwise = {row.transaction_id: row.disposition for row in found}
        for disposition, surprise in (("lost", _PAID_THOUGH_LOST), ("processed", _PAID_TWICE)):
            rows = [row for row in booked if otherwise.get(row.transaction_id) == disposition]
            _tell_paid(connection, rows, surprise)
    return processed


def _doubted_elsewhere(connection: Connection, refused: Sequence[_Row]) -> set[str]:
    if not refused:
        return set()
    codes = array_literal(row.code for row in refused)
    return set(connection.scalars(_DOUBTED_ELSEWHERE, {**_named(refused), "codes": codes}))


def _split(refused: Sequence[_Row], doubted: set[str]) -> tuple[list[_Row], list[_Row]]:
    """Those that were refused for sure, and those that another request may have booked."""
    sure = [row for row in refused if row.transaction_id not in doubted]
    doubtful = [
        row._replace(detail=f"refused with {row.code}, after a request that may have booked it")
        for row in refused
        if row.transaction_id in doubted
    ]
    return sure, doubtful


def _hold(connection: Connection, reason: str, rows: Sequence[_Row]) -> None:
    if not rows:
        return
    connection.execute(
        _HOLD,
        {
            **_named(rows),
            "reason": reason,
            "is_evidence": reason == "refusal_pending",
            "codes": array_literal(row.code for row in rows),
            "details": array_literal(row.detail or row.code for row in rows),
            "gives_way": _GIVES_WAY[reason],
        },
    )


def _named(rows: Sequence[_Row]) -> dict[str, str]:
    return {
        "ids": array_literal(row.transaction_id for row in rows),
        "attempts": numbers_literal(row.attempt_id for row in rows),
    }


class _Surprise(NamedTuple):
    """A finding about payouts that are answered as booked, and were not to be any more."""

    kind: str
    were: str
    kept: str


_PAID_THOUGH_LOST = _Surprise(
    "paid_though_lost",
    "given up as lost",
    "They stay lost, since that was booked; the answer is stored with the attempt. Correct the "
    "books by hand, and tell the partner if it should not have paid.",
)
_PAID_TWICE = _Surprise(
    "paid_twice",
    "paid otherwise by the operator",
    "They stay acknowledged, by the operator's own reference; the answer is stored with the "
    "attempt. Take one of the two payments back by hand.",
)


def _tell_paid(connection: Connection, rows: Iterable[_Row], surprise: _Surprise) -> None:
    by_attempt: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        by_attempt[row.attempt_id].append(row.transaction_id)
    for attempt_id, ids in by_attempt.items():
        open_finding(
            connection,
            Finding(
                kind=surprise.kind,
                source=SOURCE,
                subject=f"attempt {attempt_id}",
                summary=f"The wallet answered {len(ids)} payouts as paid that had been "
                f"{surprise.were}.",
                kept=surprise.kept,
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
