"""The truth about tote's bets, to compare a warehouse with.

Computed in one walk over the bets that holds nothing but counts, so any volume can be asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import Any

import msgspec

from include.sandbox.tote_bets import Bet, State, state
from include.sandbox.tote_book import Book

_BETS_AT_A_TIME = 500
_FINAL = {"SETTLED", "REFUNDED"}
_CORRECTIONS = {"turn", "amend"}


class BetState(msgspec.Struct, frozen=True):
    """A bet as it stands, in tote's words; money in major units, exact, None without a result.

    `steps` counts what has happened to it, its placement included.
    """

    tote_id: str
    steps: int
    placement: str
    resulting: str
    settlement: str
    currency: str
    stake: str
    total: str | None
    returned: str | None
    refund: str | None
    enhancement: str | None


class Sums(msgspec.Struct):
    """What the settled and refunded bets of one currency add up to, in major units, exact."""

    bets: int = 0
    stake: str = "0"
    total: str = "0"
    refund: str = "0"


class Ledger(msgspec.Struct):
    """Counts of the bets placed.

    `final` counts them by "placement/resulting/settlement"; `steps` is all that happened to them,
    `corrections` what changed after it was settled. `sha256` is over the lines
    "toteId|placement|resulting|settlement|currency|stake|total|return|refund|enhancement\\n" in the
    order of the ids, empty where there is no result.
    """

    bets: int
    steps: int
    final: dict[str, int]
    corrections: int
    sums: dict[str, Sums]
    sha256: str


async def read_ledger(book: Book) -> Ledger:
    """Walks the bets once, letting the server serve (or end) every few of them."""
    final: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    digest = hashlib.sha256()
    for number in range(book.head()):
        bet = book.bet(number)
        steps = book.steps(bet)
        told = state(bet, steps)
        counts["bets"] += 1
        counts["steps"] += steps
        counts["corrections"] += sum(each.act in _CORRECTIONS for each in bet.script.steps[:steps])
        final["/".join(told[:3])] += 1
        if told.settlement in _FINAL:
            sums[bet.currency, "bets"] += 1
            sums[bet.currency, "stake"] += bet.stake
            sums[bet.currency, "total"] += told.total or 0
            sums[bet.currency, "refund"] += told.refund or 0
        digest.update(_line(bet, told))
        if number % _BETS_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return Ledger(
        counts["bets"],
        counts["steps"],
        dict(sorted(final.items())),
        counts["corrections"],
        {
            currency: Sums(
                sums[currency, "bets"],
                major(sums[currency, "stake"]),
                major(sums[currency, "total"]),
                major(sums[currency, "refund"]),
            )
            for currency in sorted({currency for currency, _ in sums})
        },
        digest.hexdigest(),
    )


def read_states(book: Book, after: int, limit: int) -> list[BetState]:
    """How so many bets stand, from this number on, in the order of their ids."""
    return [_bet_state(book, number) for number in range(after, min(after + limit, book.head()))]


def state_of(book: Book, tote_id: str) -> BetState | None:
    """How one bet stands; None if there is none."""
    number = book.number(tote_id)
    return None if number is None else _bet_state(book, number)


def major(amount: int) -> str:
    """An amount in major units, with both digits."""
    return f"{amount // 100}.{amount % 100:02}"


def _bet_state(book: Book, number: int) -> BetState:
    bet = book.bet(number)
    steps = book.steps(bet)
    told = state(bet, steps)
    return BetState(bet.tote_id, steps, *told[:3], bet.currency, major(bet.stake), *_money(told))


def _money(told: State) -> tuple[str | None, ...]:
    amounts = (told.total, told.returned, told.refund, told.enhancement)
    return tuple(None if amount is None else major(amount) for amount in amounts)


def _line(bet: Bet, told: State) -> bytes:
    fields: tuple[Any, ...] = (bet.tote_id, *told[:3], bet.currency, major(bet.stake))
    return "|".join((*fields, *(amount or "" for amount in _money(told)))).encode() + b"\n"
