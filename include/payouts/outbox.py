"""The outbox: what entered it gets its bytes, and what it holds back becomes a finding.

A payout's bytes are made once and are the same in every request (`include.providers.wallet`).  One
that cannot be signed safely is held with the reason, and its neighbours go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, text, update

from include.providers import wallet
from include.warehouse.database import array_literal, lock_source, transaction
from include.warehouse.findings import Finding, open_finding, raise_again, tell_finding
from include.warehouse.tables import PAYOUT_COLUMNS
from include.warehouse.tables import transaction as transaction_table
from include.warehouse.tables import transaction_conflict as conflict_table

SOURCE = wallet.PROVIDER


class Which(NamedTuple):
    """Which payouts are meant: of any origin, or of one alone, whose ids are written alike.

    The pattern, LIKE's, finds those without a look at all others.
    """

    origin: str | None = None
    id_pattern: str = "%"


ALL = Which()
CREDITS = Which("prediction", "prediction:%")
"""The credits of prediction markets."""

IS_MEANT = """
    transaction_id LIKE :id_pattern AND (CAST(:origin AS text) IS NULL OR origin_source = :origin)
"""


class Hold(NamedTuple):
    """Why payouts are held, as a person reads it, and the kind of finding that asks about them."""

    why: str
    kind: str = "transactions_held"
    kept: str = (
        "They are in the outbox as they were first entered, and are not sent; all others go on."
    )


_ANSWERS_KEPT = (
    "What the wallet answered is stored with their attempts. None of them is lost, or sent again "
    "before it is decided; all others go on."
)

# Refusals that wait for their stage's judgement are told by that, if it does not take them.
HOLDS = {
    "amount_without_win": Hold("isWin is false although there is an amount to pay"),
    "changed": Hold(
        "another content was entered under the same transactionId before they were sent"
    ),
    "unsignable": Hold("the partner could read something else than what would be signed"),
    "contested": Hold(
        "what the wallet answered does not fit together, so that they may be booked",
        "transactions_contested",
        _ANSWERS_KEPT,
    ),
    "in_doubt": Hold(
        "they were sent as often as they may be, and no answer says what became of them",
        "transactions_in_doubt",
        _ANSWERS_KEPT,
    ),
    "credit_changed": Hold(
        "the settlements that they credit say something else since, before they were sent"
    ),
    "owed": Hold(
        "the wallet does not pay them; credits of markets are owed, never lost",
        "credits_refused",
        "What the wallet answered is stored with their attempts. The operator still owes them, and "
        "nothing of them is sent by itself; all others go on.",
    ),
    "unclear": Hold(
        "the wallet refused them in a way that is not known", "transactions_unclear", _ANSWERS_KEPT
    ),
}

_ROWS_AT_A_TIME = 2000
_EXAMPLES = 10

_IS_UNFROZEN = (
    transaction_table.c.item.is_(None)
    & (transaction_table.c.disposition == "open")
    & transaction_table.c.hold_reason.is_(None)
)


def _update_each(assignments: str) -> str:
    """An UPDATE of many rows at once, each with a text (`given`) of its own."""
    return f"""
        UPDATE wallet.transaction
        SET {assignments}
        FROM unnest(CAST(:ids AS text[]), CAST(:texts AS text[])) AS told (id, given)
        WHERE transaction_id = told.id COLLATE "C"
    """


_FREEZE = _update_each("item = convert_to(given, 'UTF8')")
_HOLD = _update_each("hold_reason = 'unsignable', hold_detail = given")


_ASKING_KINDS = sorted({"refusals_held", *(hold.kind for hold in HOLDS.values())})

# A late answer may have settled the last of what a finding asks about.
_CLOSE_EMPTIED = text("""
UPDATE ops.finding
SET state = 'closed', closed_at = now(), closed_by = 'system'
WHERE source = :source AND kind = ANY (:kinds) AND state = 'open' AND NOT EXISTS (
    SELECT
    FROM wallet.transaction
    WHERE hold_reason IS NOT NULL AND hold_finding_id = finding_id
)
""")


class Frozen(NamedTuple):
    """How many payouts got their bytes, and how many are held because they cannot be signed."""

    frozen: int
    unsignable: int


def freeze_new(
    engine: Engine,
    freeze_item: Callable[[wallet.Item], bytes] = wallet.freeze_item,
    which: Which = ALL,
) -> Frozen:
    """Freeze the bytes of every open payout that has none, and tell what is held.

    Memory does not grow with their number; killed at any moment, what is left is the next run's.
    """
    frozen = unsignable = 0
    before = ""
    last: str | None = ""
    while last is not None:
        with transaction(engine, "sender") as connection:
            # Each that was frozen leaves a dead entry in the index, which whoever meets it first
            # marks as such: quickly while its row is at hand, so that it is met here.  Else who
            # looks at nothing would wait for a million of them.
            rows = _next_unfrozen(connection, before, which)
            items, reasons = _try_each(rows, freeze_item)
            _write(connection, _FREEZE, items)
            _write(connection, _HOLD, reasons)
        frozen, unsignable = frozen + len(items), unsignable + len(reasons)
        before = last
        last = rows[-1].transaction_id if rows else None
    report_outbox(engine)
    return Frozen(frozen, unsignable)


def _next_unfrozen(connection: Connection, last: str, which: Which) -> Sequence[Row[Any]]:
    """The next rows, locked; what somebody else has locked is the next run's."""
    return connection.execute(
        select(*(transaction_table.c[name] for name in PAYOUT_COLUMNS))
        .where(
            _IS_UNFROZEN,
            transaction_table.c.transaction_id > last,
            text(IS_MEANT).bindparams(**which._asdict()),
        )
        .order_by(transaction_table.c.transaction_id)
        .limit(_ROWS_AT_A_TIME)
        .with_for_update(skip_locked=True)
    ).all()


def _try_each(
    rows: Iterable[Row[Any]], freeze_item: Callable[[wallet.Item], bytes]
) -> tuple[dict[str, str], dict[str, str]]:
    """By id: the bytes of those that can be signed, as text, and the reasons of the others."""
    items: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for row in rows:
        try:
            items[row.transaction_id] = freeze_item(wallet.Item(**row._mapping)).decode()
        except wallet.Unsignable as error:
            reasons[row.transaction_id] = error.reason
    return items, reasons


def _write(connection: Connection, statement: str, texts: dict[str, str]) -> None:
    if texts:
        connection.execute(
            text(statement),
            {"ids": array_literal(texts), "texts": array_literal(texts.values())},
        )


def report_outbox(engine: Engine) -> None:
    """Open findings for what is held, or came again with another content, and was not told yet.

    One a business date and reason, however many payouts it is about; each of these then names it.
    """
    with transaction(engine, "sender") as connection:
        lock_source(connection, SOURCE)
        connection.execute(_CLOSE_EMPTIED, {"source": SOURCE, "kinds": _ASKING_KINDS})
        for business_date, reason in _untold_holds(connection):
            _tell_hold(connection, business_date, reason)
        for business_date in _untold_changes(connection):
            _tell_changes(connection, business_date)


def _untold_holds(connection: Connection) -> Sequence[Any]:
    return connection.execute(
        select(transaction_table.c.business_date, transaction_table.c.hold_reason)
        .where(
            transaction_table.c.hold_reason.in_(HOLDS),
            transaction_table.c.hold_finding_id.is_(None),
        )
        .distinct()
        .order_by(transaction_table.c.business_date, transaction_table.c.hold_reason)
    ).all()


def _tell_hold(connection: Connection, business_date: date, reason: str) -> None:
    hold = HOLDS[reason]
    ask_about(
        connection,
        Finding(
            kind=hold.kind,
            source=SOURCE,
            subject=f"{business_date}, {reason}",
            summary=f"{{held}} of {business_date} are held: {hold.why}.",
            kept=hold.kept,
            detail={"reason": reason},
        ),
        (transaction_table.c.business_date == business_date)
        & (transaction_table.c.hold_reason == reason),
    )


def ask_about(connection: Connection, finding: Finding, concerned: ColumnElement[bool]) -> None:
    """Have `finding` ask about the held payouts that are `concerned` and that none asks about yet.

    What it says, `{held}` in its summary and the counts of its detail, is about all payouts that it
    asks about by then: those before included.
    """
    finding_id = open_finding(connection, finding, is_told=False)
    in_order = (
        select(transaction_table.c.transaction_id)
        .where(
            concerned,
            transaction_table.c.hold_reason.is_not(None),
            transaction_table.c.hold_finding_id.is_(None),
        )
        .order_by(transaction_table.c.transaction_id)
        .with_for_update()
        .cte("in_order")
    )
    connection.execute(
        update(transaction_table)
        .where(transaction_table.c.transaction_id == in_order.c.transaction_id)
        .values(hold_finding_id=finding_id)
    )
    connection.execute(
        update(conflict_table)
        .where(
            conflict_table.c.finding_id.is_(None),
            ~conflict_table.c.is_after_send,
            conflict_table.c.transaction_id == transaction_table.c.transaction_id,
            transaction_table.c.hold_finding_id == finding_id,
        )
        .values(finding_id=finding_id)
    )
    held = _describe_held(connection, finding_id)
    amounts = ", ".join(f"{amount} {currency}" for currency, amount in held["amounts"].items())
    # The first one alone is ours: the rest may be a partner's text, with any braces in it.
    summary = finding.summary.replace("{held}", f"{held['count']} payouts ({amounts})", 1)
    tell_finding(connection, finding_id, summary, {**finding.detail, **held})
    raise_again(connection, finding_id, held["count"])


def _describe_held(connection: Connection, finding_id: int) -> dict[str, Any]:
    is_asked = transaction_table.c.hold_reason.is_not(None) & (
        transaction_table.c.hold_finding_id == finding_id
    )
    by_currency = connection.execute(
        select(
            transaction_table.c.currency,
            func.count().label("payouts"),
            func.sum(transaction_table.c.amount).label("amount"),
        )
        .where(is_asked)
        .group_by(transaction_table.c.currency)
        .order_by(transaction_table.c.currency)
    ).all()
    examples = connection.execute(
        select(transaction_table.c.transaction_id, transaction_table.c.hold_detail)
        .where(is_asked)
        .order_by(transaction_table.c.transaction_id)
        .limit(_EXAMPLES)
    )
    return {
        "count": sum(row.payouts for row in by_currency),
        "amounts": {row.currency: str(in_major_units(row.amount)) for row in by_currency},
        "examples": [dict(row._mapping) for row in examples],
    }


def in_major_units(amount: Decimal | int) -> Decimal:
    """An amount of the wire's units in units of its currency, exact."""
    return (Decimal(amount) / wallet.AMOUNT_SCALE).quantize(Decimal(1) / wallet.AMOUNT_SCALE)


def _untold_changes(connection: Connection) -> Sequence[date]:
    return connection.scalars(
        select(transaction_table.c.business_date)
        .join_from(conflict_table, transaction_table)
        .where(conflict_table.c.finding_id.is_(None), conflict_table.c.is_after_send)
        .distinct()
        .order_by(transaction_table.c.business_date)
    ).all()


def _tell_changes(connection: Connection, business_date: date) -> None:
    finding_id = open_finding(
        connection,
        Finding(
            kind="transactions_changed",
            source=SOURCE,
            subject=str(business_date),
            summary="",
            kept="What was sent counts; the other content is in wallet.transaction_conflict and is "
            "never sent.",
        ),
        is_told=False,
    )
    connection.execute(
        update(conflict_table)
        .where(
            conflict_table.c.finding_id.is_(None),
            conflict_table.c.is_after_send,
            conflict_table.c.transaction_id == transaction_table.c.transaction_id,
            transaction_table.c.business_date == business_date,
        )
        .values(finding_id=finding_id)
    )
    this = conflict_table.c.finding_id == finding_id
    # One may have come with several contents.
    payouts = func.count(conflict_table.c.transaction_id.distinct())
    count = connection.execute(select(payouts).where(this)).scalar_one()
    examples = connection.execute(
        select(conflict_table.c.transaction_id, conflict_table.c.conflict_id)
        .where(this)
        .order_by(conflict_table.c.conflict_id)
        .limit(_EXAMPLES)
    )
    tell_finding(
        connection,
        finding_id,
        f"{count} payouts of {business_date} were entered again with another content after they "
        "had been sent.",
        {"count": count, "examples": [dict(row._mapping) for row in examples]},
    )
