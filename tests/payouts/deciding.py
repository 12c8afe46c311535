"""Payouts held in a test, and decisions about them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Engine, text

from include.payouts.outbox import SOURCE
from include.warehouse.database import transaction
from include.warehouse.decisions import Resolution, resolve
from include.warehouse.decisions.payouts import held_by
from include.warehouse.findings import KINDS, Finding, open_finding
from tests.payouts.entering import rows
from tests.warehouses import Warehouse

ABOUT_PAYOUTS = [kind for kind, known in KINDS.items() if "keep" in known.decisions]
REASONS = {
    "transactions_held": "amount_without_win",
    "transactions_in_doubt": "in_doubt",
    "transactions_contested": "contested",
    "transactions_unclear": "unclear",
    "refusals_held": "refusal_pending",
    "credits_refused": "owed",
}


def hold(warehouse: Warehouse, kind: str, *transaction_ids: str, attempt_id: int = 0) -> int:
    """Hold these payouts with a finding of `kind`, as sending does; the finding's number.

    Refusals name the attempt that they came from.
    """
    evidence = f'{{"attempt_id": {attempt_id}, "code": "RS_ERROR_USER_DISABLED"}}'
    with transaction(warehouse.engine, "sender") as connection:
        finding_id = open_finding(
            connection,
            Finding(kind, SOURCE, "the day", f"{len(transaction_ids)} payouts wait.", "All kept."),
        )
        connection.execute(
            text(
                "UPDATE wallet.transaction SET hold_reason = :reason, hold_detail = 'so it is',"
                " hold_finding_id = :finding_id, evidence = CAST(:evidence AS jsonb)"
                " WHERE transaction_id = ANY (:ids)"
            ),
            {
                "reason": REASONS[kind],
                "finding_id": finding_id,
                "evidence": evidence if kind == "refusals_held" else None,
                "ids": list(transaction_ids),
            },
        )
    return finding_id


def decide(
    engine: Engine,
    finding_id: int,
    decision: str,
    *,
    by: str = "anna",
    reference: str | None = "MAIL-7",
    above: str = "1000000",
    transaction_ids: list[str] | None = None,
    payouts: int | Literal["as shown"] | None = "as shown",
    seen: str | None = None,
) -> Resolution:
    """One person's decision; two are needed for more than `above`.

    Unless told otherwise, it is about as many payouts as the finding holds right before.
    """
    if payouts == "as shown":
        with transaction(engine, "resolver") as connection:
            payouts = held_by(connection, [finding_id])[finding_id].count
    return resolve(
        engine,
        finding_id,
        decision,
        decided_by=by,
        reason="The partner says so.",
        reference=reference,
        parameters={"transaction_ids": transaction_ids, "payouts": payouts, "seen": seen},
        run_id="manual__1",
        second_person_above=Decimal(above),
    )


def seen_of(warehouse: Warehouse, finding_id: int) -> str:
    """What the page Findings shows beside it at this moment."""
    with transaction(warehouse.engine, "resolver") as connection:
        return held_by(connection, [finding_id])[finding_id].seen


def everything(warehouse: Warehouse) -> list[Any]:
    """All that a decision about payouts may change, as text."""
    tables = (
        *("wallet.transaction", "wallet.hold", "wallet.attempt", "wallet.attempt_item"),
        *("wallet.transaction_conflict", "ops.finding", "ops.decision", "ops.alert"),
    )
    return [rows(warehouse, f"SELECT one::text FROM {table} AS one ORDER BY 1") for table in tables]
