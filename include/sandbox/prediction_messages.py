"""What the prediction engine writes: fields and their order are its documentation's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from include.sandbox.prediction_book import SECOND, Market, Row
from include.sandbox.prediction_positions import (
    PAYOUT_DIGITS,
    SHARES_DIGITS,
    cancelled_orders,
    market_id,
)
from include.sandbox.prediction_settings import Lie, PredictionSettings

FOREIGN_OPERATOR_ID = "f0e16e00-0000-4000-a000-0000000000ff"
ALREADY_COMPLETED = "SETTLEMENT_ALREADY_COMPLETED"
FAILED = "SETTLEMENT_FAILED"
_REASONS = (
    "Position is locked by another process",
    "Überweisung abgelehnt: Konto gesperrt",
    'Ledger said "no"',
)


class SettlementMessage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One settlement."""

    id: str
    position_id: str
    market_id: str
    outcome_id: str
    operator_id: str
    player_id: str
    shares: str
    payout_per_share: str
    total_payout: str
    transaction_id: None
    status: str
    error_message: str | None
    settled_at: str | None
    created_at: str
    updated_at: str


def settlement_message(
    settings: PredictionSettings, market: Market, named: str, row: Row
) -> SettlementMessage:
    """A settlement of the market with this id, with the lie that is told of it."""
    position, payout = row.position, row.payout
    lie = settings.lies.get("row.totalPayout")
    if lie and position.number == 0 and settings.is_odd(market.number):
        payout += int(lie.scaleb(PAYOUT_DIGITS))
    return SettlementMessage(
        row.settlement_id,
        position.position_id,
        named,
        position.outcome_id,
        FOREIGN_OPERATOR_ID if position.is_foreign else settings.operator_id,
        position.player_id,
        amount_text(position.shares, SHARES_DIGITS),
        amount_text(position.payout_per_share, SHARES_DIGITS),
        amount_text(payout, PAYOUT_DIGITS),
        None,
        row.status,
        _REASONS[position.number % len(_REASONS)] if row.status == "FAILED" else None,
        time_text(row.updated_at) if row.status == "COMPLETED" else None,
        time_text(row.created_at),
        time_text(row.updated_at),
    )


def settle_data(
    settings: PredictionSettings, market: Market, rows: Sequence[Row], *, is_retry: bool
) -> dict[str, Any]:
    """What an order to settle or to retry is answered, about the settlements it was for."""
    named = market_id(settings.seed, market.number)
    counts = Counter(row.status for row in rows)
    failed = [row for row in rows if row.status == "FAILED"]
    totals = {
        "totalPositions": len(rows),
        "successCount": counts["COMPLETED"],
        "failedCount": counts["FAILED"],
        "totalPayout": sum(row.payout for row in rows),
        "cancelledOrders": 0 if is_retry else cancelled_orders(settings.seed, market.number),
    }
    return {
        "marketId": named,
        **_told(settings, market.number, "settle", totals),
        "settlements": [settlement_message(settings, market, named, row) for row in rows],
        "errors": [
            {"positionId": row.position.position_id, "error": "Settlement failed"} for row in failed
        ],
    }


def status_data(
    settings: PredictionSettings, market: Market, rows: Sequence[Row], positions: int
) -> dict[str, Any]:
    """How far a market has come, given the last settlement of each position that has one."""
    counts = Counter(row.status for row in rows)
    totals = {
        "totalPositions": positions,
        "pendingCount": counts["PENDING"] + positions - len(rows),
        "processingCount": counts["PROCESSING"],
        "completedCount": counts["COMPLETED"],
        "failedCount": counts["FAILED"],
        "totalPayout": sum(row.payout for row in rows),
        "completedPayout": sum(row.payout for row in rows if row.status == "COMPLETED"),
    }
    named = market_id(settings.seed, market.number)
    return {"marketId": named, **_told(settings, market.number, "status", totals)}


def amount_text(amount: int, digits: int, least_digits: int = 0) -> str:
    """A scaled whole number as a decimal, with no more digits behind the point than it needs."""
    whole, fraction = divmod(amount, 10**digits)
    behind = f"{fraction:0{digits}}".rstrip("0").ljust(least_digits, "0")
    return f"{whole}.{behind}" if behind else str(whole)


@lru_cache(maxsize=4096)
def time_text(time: int) -> str:
    """Microseconds since 1970 as the engine writes them, with three digits of a second."""
    moment = datetime.fromtimestamp(time // SECOND, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time % SECOND // 1000:03}Z"


def _told(
    settings: PredictionSettings, market: int, answer: str, totals: dict[str, int]
) -> dict[str, int | str]:
    """The totals with what is lied about them; payouts as texts."""
    lies: dict[Lie, Decimal] = settings.lies if settings.is_odd(market) else {}
    told: dict[str, int | str] = {}
    for name, total in totals.items():
        lie = lies.get(f"{answer}.{name}", Decimal(0))  # type: ignore[call-overload]
        if name.endswith("Payout"):
            told[name] = amount_text(total + int(lie.scaleb(PAYOUT_DIGITS)), PAYOUT_DIGITS, 2)
        else:
            told[name] = total + int(lie)
    return told
