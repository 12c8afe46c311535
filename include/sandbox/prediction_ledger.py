"""The truth about what the prediction engine's markets owe, to compare a warehouse with.

Computed in walks over the markets that were settled, so any volume can be asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from include.sandbox.prediction_book import Market, Row
from include.sandbox.prediction_messages import amount_text, time_text
from include.sandbox.prediction_positions import PAYOUT_DIGITS, market_id


class Owed(msgspec.Struct, frozen=True):
    """One payout that is owed to a player: a COMPLETED settlement that pays something."""

    settlement_id: str
    position_id: str
    player_id: str
    amount: str


class MarketState(msgspec.Struct, frozen=True):
    """One market that was called upon.

    `settle_calls` and `retry_calls` count the orders that reached it, `settle_executions` and
    `retry_executions` those that changed something. `positions` counts positions by their last
    settlement, `settlements` all of them; `owed` is what the COMPLETED ones pay.
    """

    number: int
    market_id: str
    settle_calls: int
    settle_executions: int
    settled_at: str | None
    retry_calls: int
    retry_executions: int
    settlements: int
    positions: dict[str, int]
    owed: str


class Ledger(msgspec.Struct):
    """Counts and sums over all markets that were called upon.

    `settled_more_than_once` names the markets for which more than one order to settle was executed.
    `payouts` counts the settlements that are owed, and `sha256` is over the lines
    "settlementId|positionId|playerId|amount\\n" of them in the order of their ids.
    """

    markets_resolved: int
    markets_settled: int
    settle_calls: int
    settle_executions: int
    retry_calls: int
    retry_executions: int
    settled_more_than_once: list[str]
    settlements: int
    positions: dict[str, int]
    payouts: int
    owed: str
    sha256: str


def read_owed(market: Market, now: int) -> Iterator[Owed]:
    """What a market owes, settlement by settlement."""
    for row in chain.from_iterable(market.rows(now)):
        if row.status == "COMPLETED" and row.payout:
            yield _owed(row)


def read_state(seed: int, market: Market, now: int) -> MarketState:
    """How a market stands."""
    positions: Counter[str] = Counter()
    owed = settlements = 0
    for rows in market.rows(now):
        settlements += len(rows)
        positions[rows[-1].status] += 1
        owed += sum(row.payout for row in rows if row.status == "COMPLETED")
    settles, retries = market.executions
    return MarketState(
        market.number,
        market_id(seed, market.number),
        market.settle_calls,
        settles,
        time_text(market.attempts[0].at) if market.attempts else None,
        market.retry_calls,
        retries,
        settlements,
        dict(sorted(positions.items())),
        amount_text(owed, PAYOUT_DIGITS),
    )


async def read_ledger(seed: int, resolved: int, markets: Iterable[Market], now: int) -> Ledger:
    """Walks the markets once, letting the server serve (or end) behind each of them."""
    counts: Counter[str] = Counter()
    positions: Counter[str] = Counter()
    owed = 0
    lines: list[bytes] = []
    repeated: list[str] = []
    for market in markets:
        settles, retries = market.executions
        counts["settle calls"] += market.settle_calls
        counts["retry calls"] += market.retry_calls
        counts["settles"] += settles
        counts["retries"] += retries
        counts["settled"] += settles > 0
        if settles > 1:
            repeated.append(market_id(seed, market.number))
        for rows in market.rows(now):
            counts["settlements"] += len(rows)
            positions[rows[-1].status] += 1
            for row in rows:
                if row.status == "COMPLETED" and row.payout:
                    owed += row.payout
                    lines.append(_line(_owed(row)))
        await asyncio.sleep(0)
    return Ledger(
        markets_resolved=resolved,
        markets_settled=counts["settled"],
        settle_calls=counts["settle calls"],
        settle_executions=counts["settles"],
        retry_calls=counts["retry calls"],
        retry_executions=counts["retries"],
        settled_more_than_once=repeated,
        settlements=counts["settlements"],
        positions=dict(sorted(positions.items())),
        payouts=len(lines),
        owed=amount_text(owed, PAYOUT_DIGITS),
        sha256=hashlib.sha256(b"".join(sorted(lines))).hexdigest(),
    )


def _owed(row: Row) -> Owed:
    amount = amount_text(row.payout, PAYOUT_DIGITS)
    return Owed(row.settlement_id, row.position.position_id, row.position.player_id, amount)


def _line(owed: Owed) -> bytes:
    named = (owed.settlement_id, owed.position_id, owed.player_id, owed.amount)
    return "|".join(named).encode() + b"\n"
