"""Crediting: what a market's completed settlements pay is credited to their players, once.

A credit is made once a settlement and once a position, for ever.  If the settings say how the
wallet is told of it, it enters the outbox in the same transaction and is sent in the same run; else
it is owed, and the operator pays it with its own wallet.  What cannot be credited as it stands is
held.  What a settlement says otherwise later changes a credit that nobody has been told of, and
holds it; of any other it is an adjustment.

Killed at any moment, or run twice at once, it credits nobody twice: what is left is the next run's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, insert, text

from include.markets.credit_findings import report_credits, tell_uncredited
from include.markets.holding import hold_back_all, let_go
from include.providers.prediction import PROVIDER as SOURCE
from include.settings import Settings
from include.warehouse.database import array_literal, lock_source, look_up_by_key, transaction
from include.warehouse.tables import PAYOUT_COLUMNS
from include.warehouse.tables import adjustment as adjustment_table

_SETTLEMENTS_AT_A_TIME = 5000
_MARKETS_AT_A_TIME = 1000
# The wallet counts in hundred-thousandths, and its JavaScript up to 2^53 - 1.
_AMOUNT_SCALE = 100_000
_AMOUNT_LIMIT = 2**53 - 1
_CURRENCY_LIMIT = 20


class OutboxTaken(Exception):
    """A payout was entered under a credit's id while the credit was about to be."""


@dataclass(frozen=True)
class Credited:
    """What one run did, in counts of credits.

    Of those that were made, or that a decision let go: `entered` into the outbox, `owed` by the
    operator, or `held`.  `changed` were made otherwise than before, `adjusted` after they were sent
    or paid; `doubled` are settlements of positions that another one completes as well, or
    that were credited by another one before.
    """

    entered: int = 0
    owed: int = 0
    held: int = 0
    changed: int = 0
    adjusted: int = 0
    doubled: int = 0


class Mapping(NamedTuple):
    """How the wallet is told of a credit: texts with the names of its parts in braces."""

    ref_transaction_id: str
    session_id: str
    round_id: str
    game_id: str

    def parameters(self) -> dict[str, str]:
        """The same as Postgres's `format` has them."""
        return {name: _as_format(template) for name, template in self._asdict().items()}


def read_mapping(settings: Settings) -> Mapping | None:
    """What the settings say about it; None if they say nothing."""
    templates = [getattr(settings, f"prediction_wallet_{name}") for name in Mapping._fields]
    return None if None in templates else Mapping(*templates)


_PARTS = ("market_id", "settlement_id", "position_id", "outcome_id")


def _as_format(template: str) -> str:
    written = template.replace("%", "%%")
    for number, part in enumerate(_PARTS, start=1):
        written = written.replace(f"{{{part}}}", f"%{number}$s")
    return written


def credit(engine: Engine, settings: Settings, market_ids: Sequence[str] | None = None) -> Credited:
    """Credit what the published settlements of these markets pay; without `market_ids`, of all that
    have moved since they were last looked at.

    A market that is held credits nobody, and what of it was not sent is held.  What decisions have
    let go is entered or owed whichever market it is of.  Memory does not grow with the number of
    settlements.
    """
    mapping = read_mapping(settings)
    counts: Counter[str] = Counter()
    hold_back_all(engine)
    for market in _markets(engine, None if market_ids is None else array_literal(market_ids)):
        counts += _credit_market(engine, mapping, market)
    counts += _judge_again(engine, mapping)
    report_credits(engine, is_mapped=mapping is not None)
    return Credited(**counts)


def _markets(engine: Engine, named: str | None) -> Iterator[Row[Any]]:
    last = ""
    while True:
        with transaction(engine, "crediter") as connection:
            found = connection.execute(
                _NEXT_MARKETS, {"named": named, "last": last, "limit": _MARKETS_AT_A_TIME}
            ).all()
        yield from found
        if len(found) < _MARKETS_AT_A_TIME:
            return
        last = found[-1].market_id


_IS_NOT_HELD = """
NOT EXISTS (
    SELECT
    FROM prediction.held_market AS held
    WHERE held.market_id = {market_id}
)
"""

_NEXT_MARKETS = text(f"""
SELECT market.market_id, market.revision, happened.other_changes
FROM prediction.market
LEFT JOIN prediction.credited_market AS credited USING (market_id)
CROSS JOIN (
    SELECT (
        SELECT count(*)
        FROM ops.decision
        JOIN ops.finding USING (finding_id)
        WHERE source = 'prediction' AND kind = 'settlement_contested'
    ) + (
        SELECT count(*)
        FROM ops.batch
        WHERE source = 'prediction' AND kind = 'replay' AND state = 'published'
    ) AS other_changes
) AS happened
WHERE market_id > :last AND {_IS_NOT_HELD.format(market_id="market.market_id")} AND CASE
    WHEN CAST(:named AS text[]) IS NOT NULL THEN market_id = ANY (CAST(:named AS text[]))
    ELSE (credited.revision, credited.other_changes)
        IS DISTINCT FROM (market.revision, happened.other_changes)
END
ORDER BY market_id
LIMIT :limit
""")

# As it was before it was looked at: what moves meanwhile is looked at again.
_NOTE_CREDITED = text("""
INSERT INTO prediction.credited_market (market_id, revision, other_changes, credited_at)
VALUES (:market_id, :revision, :other_changes, now())
ON CONFLICT (market_id) DO UPDATE
SET revision = excluded.revision, other_changes = excluded.other_changes,
    credited_at = excluded.credited_at
""")


# --- a market, some settlements at a time -------------------------------------------------------

# What the market's settlements say now; contested ones say nothing before they are decided.
_TELL = text(f"""
CREATE TEMPORARY TABLE told ON COMMIT DROP AS
SELECT
    market_id, position_id, source_key AS settlement_id,
    selection_id AS outcome_id, player_id, settlement.currency, record_id,
    CASE WHEN status = 'settled' THEN coalesce(payout, 0) ELSE 0 END AS amount
FROM core.settlement AS settlement
WHERE source = 'prediction' AND is_current AND NOT is_contested
    AND market_id = :market_id AND (position_id, source_key) > (:position_id, :settlement_id)
    AND {_IS_NOT_HELD.format(market_id=":market_id")}
ORDER BY position_id, source_key
LIMIT :limit
""")

_LAST_TOLD = text("""
SELECT position_id, settlement_id FROM told ORDER BY position_id DESC, settlement_id DESC LIMIT 1
""")


def _credit_market(engine: Engine, mapping: Mapping | None, market: Row[Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    last: dict[str, str] = {"position_id": "", "settlement_id": ""}
    told = _SETTLEMENTS_AT_A_TIME
    while told == _SETTLEMENTS_AT_A_TIME:
        with transaction(engine, "crediter") as connection:
            lock_source(connection, SOURCE)
            look_up_by_key(connection)
            told = connection.execute(
                _TELL, {"market_id": market.market_id, **last, "limit": _SETTLEMENTS_AT_A_TIME}
            ).rowcount
            if told:
                last = dict(connection.execute(_LAST_TOLD).one()._mapping)
                counts += _credit_told(connection, mapping)
            if told < _SETTLEMENTS_AT_A_TIME:
                tell_uncredited(
                    connection,
                    market.market_id,
                    is_doubled=counts["doubled"] > 0,
                    is_elsewhere=counts.pop("elsewhere", 0) > 0,
                )
                let_go(connection, market.market_id, market.revision)
                connection.execute(_NOTE_CREDITED, market._asdict())
    return counts


def _credit_told(connection: Connection, mapping: Mapping | None) -> Counter[str]:
    adjusted = _adjust(connection)
    changed = connection.execute(_CHANGE).rowcount
    made = _judge(connection, _MAKE, mapping)
    uncredited = connection.execute(_UNCREDITED).one()._mapping
    return made + Counter(adjusted=adjusted, changed=changed, **uncredited)


# Each credit is looked up by its settlement, so that the cost does not grow with the others.
_CREDITED = """
FROM told
CROSS JOIN LATERAL (
    SELECT *
    FROM prediction.credit
    WHERE credit.settlement_id = told.settlement_id
    LIMIT 1
) AS known
"""

_OTHERWISE = text(f"""
SELECT
    known.credit_id, known.transaction_id, known.currency, told.record_id,
    booked.amount AS amount_before, says.amount AS amount_after
{_CREDITED}
CROSS JOIN LATERAL (
    SELECT known.amount + coalesce(sum(difference), 0) AS amount
    FROM prediction.adjustment
    WHERE adjustment.credit_id = known.credit_id
) AS booked
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN (told.currency, told.player_id) IS NOT DISTINCT FROM (known.currency, known.player_id)
            THEN told.amount
        ELSE 0
    END AS amount
) AS says
WHERE known.state IN ('sending', 'acknowledged') AND says.amount <> booked.amount
ORDER BY known.transaction_id, known.credit_id
""")

_LOCK_PAYOUTS = text("""
SELECT
FROM wallet.transaction
WHERE transaction_id = ANY (CAST(:ids AS text[]))
ORDER BY transaction_id
FOR UPDATE
""")

# Once it is locked, it is either sent already or held in time.  A hold of another kind gives way,
# but is named: whoever releases this one must know it.
_HOLD_UNSENT = text("""
UPDATE wallet.transaction
SET hold_reason = 'credit_changed', hold_finding_id = NULL,
    hold_detail = CASE
        WHEN hold_reason IN ('credit_changed', 'market_held') THEN said
        ELSE concat(said, ' It was held before: ' || hold_reason, ': ' || hold_detail)
    END
FROM unnest(CAST(:ids AS text[]), CAST(:sayings AS text[])) AS otherwise (id, said)
WHERE transaction_id = id AND disposition = 'open' AND NOT wallet.is_sent(transaction)
""")


def _adjust(connection: Connection) -> int:
    """Note what is told otherwise of credits that may be paid; hold those that were not sent."""
    otherwise = connection.execute(_OTHERWISE).all()
    if not otherwise:
        return 0
    unpaid = [row for row in otherwise if row.transaction_id is not None]
    ids = array_literal(row.transaction_id for row in unpaid)
    connection.execute(_LOCK_PAYOUTS, {"ids": ids})
    sayings = array_literal(map(_describe_difference, unpaid))
    connection.execute(_HOLD_UNSENT, {"ids": ids, "sayings": sayings})
    connection.execute(
        insert(adjustment_table).values(accounting_date=text("(now() AT TIME ZONE 'UTC')::date")),
        [
            {
                "credit_id": row.credit_id,
                "currency": row.currency,
                "amount_before": row.amount_before,
                "amount_after": row.amount_after,
                "difference": row.amount_after - row.amount_before,
                "record_id": row.record_id,
            }
            for row in otherwise
        ],
    )
    return len(otherwise)


def _describe_difference(row: Row[Any]) -> str:
    return (
        f"Its settlement pays {row.amount_after:f} {row.currency} since, before "
        f"{row.amount_before:f}."
    )


# Nobody was told of these yet.  What was held only because it was not known who or in what is
# looked at again by itself; all else by a decision.
_CHANGE = text(f"""
UPDATE prediction.credit
SET player_id = fresh.player_id, currency = fresh.currency, amount = fresh.amount,
    outcome_id = fresh.outcome_id, record_id = fresh.record_id, finding_id = NULL,
    state = CASE WHEN fresh.is_found THEN 'due' ELSE 'held' END,
    hold_reason = CASE
        WHEN fresh.is_found THEN NULL
        WHEN fresh.amount = 0 THEN 'withdrawn'
        ELSE 'changed'
    END
FROM (
    SELECT
        told.*, known.credit_id, told.amount = known.amount AND coalesce(
            known.hold_reason IN ('currency_unknown', 'player_unknown'), false
        ) AS is_found
    {_CREDITED}
    WHERE known.state IN ('due', 'held', 'owed')
        AND (told.player_id, told.currency, told.amount)
            IS DISTINCT FROM (known.player_id, known.currency, known.amount)
) AS fresh
WHERE credit.credit_id = fresh.credit_id AND credit.state IN ('due', 'held', 'owed')
""")


# --- what becomes of a credit -------------------------------------------------------------------

# Of a row of `new`: why it is held; NULL if it is not.  What has an id of ours in the outbox though
# it is no credit was entered by somebody else.
_HELD_FOR = f"""
CASE
    WHEN new.amount = 0 THEN 'withdrawn'
    WHEN new.currency IS NULL OR char_length(new.currency) NOT BETWEEN 1 AND {_CURRENCY_LIMIT}
        THEN 'currency_unknown'
    WHEN coalesce(new.player_id, '') = '' THEN 'player_unknown'
    WHEN NOT :is_mapped THEN NULL
    WHEN new.amount * {_AMOUNT_SCALE} <> trunc(new.amount * {_AMOUNT_SCALE}) THEN 'too_fine'
    WHEN new.amount * {_AMOUNT_SCALE} > {_AMOUNT_LIMIT} THEN 'too_large'
    WHEN EXISTS (
        SELECT
        FROM wallet.transaction
        WHERE transaction_id = 'prediction:' || new.settlement_id
    ) THEN 'id_taken'
END
"""
_STATE = "CASE WHEN held_for IS NOT NULL THEN 'held' WHEN :is_mapped THEN 'sending' ELSE 'owed' END"
_TRANSACTION_ID = (
    "CASE WHEN held_for IS NULL AND :is_mapped THEN 'prediction:' || judged.settlement_id END"
)


def _filled(template: str) -> str:
    return f"format(:{template}, {', '.join(_PARTS)})"


# In the transaction that makes the credit, so that there is never one without the other.
_ENTER = f"""
entered AS (
    INSERT INTO wallet.transaction (
        {", ".join(PAYOUT_COLUMNS)}, business_date, origin_source, origin_key
    )
    SELECT
        transaction_id, {", ".join(map(_filled, Mapping._fields[:3]))}, player_id,
        {_filled("game_id")}, currency, CAST(amount * {_AMOUNT_SCALE} AS bigint), true,
        (now() AT TIME ZONE 'UTC')::date, 'prediction', settlement_id
    FROM stated
    WHERE state = 'sending'
    ORDER BY transaction_id
    RETURNING transaction_id
)
SELECT
    count(*) AS credits, count(*) FILTER (WHERE state = 'sending') AS sending,
    count(*) FILTER (WHERE state = 'owed') AS owed, count(*) FILTER (WHERE state = 'held') AS held,
    (SELECT count(*) FROM entered) AS entered
FROM stated
"""

# Counted, and so probed row by row through an index: EXISTS would be joined, which without current
# statistics compares each row with every other.
# A position that several settlements complete is nobody's before one of them is taken back.
_HAS_RIVAL = """
(
    SELECT count(*) > 0
    FROM core.settlement AS rival
    WHERE rival.source = 'prediction' AND rival.is_current AND rival.market_id = told.market_id
        AND rival.position_id = told.position_id AND rival.source_key <> told.settlement_id
        AND rival.status = 'settled'
)
"""
_IS_CREDITED = """
(SELECT count(*) > 0 FROM prediction.credit WHERE settlement_id = told.settlement_id)
"""
_IS_POSITION_CREDITED = """
(
    SELECT count(*) > 0
    FROM prediction.credit
    WHERE credit.market_id = told.market_id AND credit.position_id = told.position_id
)
"""

_MAKE = text(f"""
WITH stated AS (
    INSERT INTO prediction.credit (
        settlement_id, market_id, position_id, outcome_id, player_id, currency, amount, record_id,
        state, hold_reason, transaction_id, accounting_date
    )
    SELECT
        settlement_id, market_id, position_id, outcome_id, player_id, currency, amount, record_id,
        {_STATE}, held_for, {_TRANSACTION_ID}, (now() AT TIME ZONE 'UTC')::date
    FROM (
        SELECT new.*, {_HELD_FOR} AS held_for
        FROM (
            SELECT *
            FROM told
            WHERE amount > 0 AND NOT {_IS_POSITION_CREDITED} AND NOT {_IS_CREDITED}
                AND NOT {_HAS_RIVAL}
        ) AS new
    ) AS judged
    ORDER BY position_id
    RETURNING *
), {_ENTER}
""")

# What is not credited as it is told: of doubled positions, and what was sent or paid otherwise.
_UNCREDITED = text(f"""
SELECT
    count(*) FILTER (
        WHERE known.credit_id IS NULL AND ({_IS_POSITION_CREDITED} OR {_HAS_RIVAL})
    ) AS doubled,
    count(*) FILTER (
        WHERE known.state IN ('sending', 'acknowledged') AND (told.currency, told.player_id)
            IS DISTINCT FROM (known.currency, known.player_id)
    ) AS elsewhere
FROM told
LEFT JOIN LATERAL (
    SELECT *
    FROM prediction.credit
    WHERE credit.settlement_id = told.settlement_id
    LIMIT 1
) AS known ON true
WHERE told.amount > 0
""")

_JUDGE_DUE = text(f"""
WITH stated AS (
    UPDATE prediction.credit
    SET state = {_STATE}, hold_reason = held_for, transaction_id = {_TRANSACTION_ID},
        finding_id = NULL
    FROM (
        SELECT new.credit_id, new.settlement_id, {_HELD_FOR} AS held_for
        FROM (
            SELECT credit.*
            FROM prediction.credit
            WHERE credit.state = 'due'
                AND {_IS_NOT_HELD.format(market_id="credit.market_id")}
            ORDER BY credit_id
            LIMIT :limit
            FOR UPDATE OF credit
        ) AS new
    ) AS judged
    WHERE credit.credit_id = judged.credit_id
    RETURNING credit.*
), {_ENTER}
""")


def _judge_again(engine: Engine, mapping: Mapping | None) -> Counter[str]:
    """What decisions have let go, some at a time."""
    counts: Counter[str] = Counter()
    while True:
        with transaction(engine, "crediter") as connection:
            lock_source(connection, SOURCE)
            look_up_by_key(connection)
            judged = _judge(connection, _JUDGE_DUE, mapping)
        counts += judged
        if judged.total() < _SETTLEMENTS_AT_A_TIME:
            return counts


def _judge(connection: Connection, statement: Any, mapping: Mapping | None) -> Counter[str]:
    templates = dict.fromkeys(Mapping._fields) if mapping is None else mapping.parameters()
    stated = connection.execute(
        statement,
        {"is_mapped": mapping is not None, "limit": _SETTLEMENTS_AT_A_TIME, **templates},
    ).one()
    if stated.entered < stated.sending:
        raise OutboxTaken(
            "Another system entered a payout under a credit's transactionId at this very moment. "
            "Nothing was credited in this step. Clear this task: that credit is then held, and a "
            "finding asks about it."
        )
    return Counter(entered=stated.sending, owed=stated.owed, held=stated.held)
