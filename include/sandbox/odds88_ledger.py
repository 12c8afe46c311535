"""The truth about the bets that odds88's settlement feed has told of, to compare a warehouse with.

Computed in one walk over the bets that holds nothing but counts, so any volume can be asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import msgspec

from include.sandbox.odds88_bets import BetId, Bets, Decision
from include.sandbox.odds88_messages import Result

_BETS_AT_A_TIME = 500
_WORDS_OF_ACTS: dict[str, str] = {"reject": "rejected", "cancel": "cancelled"}
_WORDS = {
    Result.NONE: "none",
    Result.WIN: "win",
    Result.LOSE: "lose",
    Result.REFUND: "refund",
    Result.HALF_WIN: "half_win",
    Result.HALF_LOSE: "half_lose",
    Result.CASH_OUT: "cash_out",
    Result.PLACE_WIN: "place_win",
}


class BetState(msgspec.Struct, frozen=True):
    """A bet as its last settlement has it, in the order (settlementTime, version of the legs).

    `state` is "rejected", "cancelled" or the word of the result. Money is in major units, exact.
    `is_contested` says that another message with the same time and version tells otherwise.
    """

    bet_id: str
    messages: int
    settlement_time: str
    state: str
    currency: str
    stake: str
    payout: str
    partial_refund: str
    is_contested: bool


class BetStates(msgspec.Struct, frozen=True):
    """Some bets, in the order of their ids; `next` continues behind them, None at the end."""

    bets: list[BetState]
    next: str | None


class Sums(msgspec.Struct):
    """What the final states of one currency add up to, in major units, exact."""

    bets: int = 0
    stake: str = "0"
    payout: str = "0"


class Ledger(msgspec.Struct):
    """Counts of messages and of the bets they tell of.

    `decisions` counts messages and `final` bets by their state; contested bets are in neither
    `final` nor `sums`. `corrections` are messages that change state or payout of a bet that was
    not open before them, in the order of settlement; `negative_corrections` lower its payout.
    `late` are messages sent behind one about the same bet that is settled later. `sha256` is over
    the lines "betId|settlementTime|state|stake|payout|partialRefund\\n" of the final states in the
    order of the bets' ids, contested ones left out; `versions_sha256` over those of all messages,
    by bet, and of one bet in the order (settlementTime, version, sending).
    """

    messages: int
    bets: int
    decisions: dict[str, int]
    final: dict[str, int]
    contested: int
    corrections: int
    negative_corrections: int
    late: int
    sums: dict[str, Sums]
    sha256: str
    versions_sha256: str


class Told:
    """What the messages below a head tell about each bet, times as they are written."""

    def __init__(self, bets: Bets, head: int, settlement_time: Callable[[int], str]) -> None:
        self._bets = bets
        self._head = head
        self.settlement_time = settlement_time

    def versions(self, after: BetId | None = None) -> Iterator[tuple[BetId, list[Decision]]]:
        """The bets behind one in the order of their ids, each with its messages as they settle."""
        for bet_id, messages in self._bets.bets(self._head, after):
            versions = [self._bets.decision(message) for message in messages]
            if len(versions) > 1:
                versions.sort(key=self.order)
            yield bet_id, versions

    def order(self, decision: Decision) -> tuple[str, int]:
        """What a bet's settlements are ordered by: the time as written, then the version."""
        return self.settlement_time(decision.told_as).rstrip("Z"), decision.version

    def is_contested(self, versions: list[Decision]) -> bool:
        """Whether the last settlement is told in two ways."""
        *before, last = versions
        return any(
            self.order(each) == self.order(last) and _content(each) != _content(last)
            for each in before
        )

    def state(self, versions: list[Decision]) -> BetState:
        """How a bet stands."""
        last = versions[-1]
        return BetState(
            last.bet.bet_id,
            len(versions),
            self.settlement_time(last.told_as),
            state_word(last),
            last.bet.currency,
            *_money(last),
            is_contested=self.is_contested(versions),
        )


async def read_ledger(told: Told) -> Ledger:
    """Walks the bets once, letting the server serve (or end) every few of them."""
    counts: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    final: Counter[str] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    digits: dict[str, int] = {}
    final_digest, versions_digest = hashlib.sha256(), hashlib.sha256()
    for walked, (_, versions) in enumerate(told.versions()):
        last = versions[-1]
        counts["bets"] += 1
        counts.update(_facts(versions))
        decisions.update(map(state_word, versions))
        lines = [_line(told, version) for version in versions]
        versions_digest.update(b"".join(lines))
        if told.is_contested(versions):
            counts["contested"] += 1
        else:
            final[state_word(last)] += 1
            final_digest.update(lines[-1])
            currency = last.bet.currency
            digits[currency] = last.bet.precision
            sums[currency, "bets"] += 1
            sums[currency, "stake"] += last.bet.stake
            sums[currency, "payout"] += last.payout
        if walked % _BETS_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return Ledger(
        messages=decisions.total(),
        bets=counts["bets"],
        decisions=dict(sorted(decisions.items())),
        final=dict(sorted(final.items())),
        contested=counts["contested"],
        corrections=counts["correction"],
        negative_corrections=counts["negative correction"],
        late=counts["late"],
        sums={
            currency: Sums(
                sums[currency, "bets"],
                _major(sums[currency, "stake"], precision),
                _major(sums[currency, "payout"], precision),
            )
            for currency, precision in sorted(digits.items())
        },
        sha256=final_digest.hexdigest(),
        versions_sha256=versions_digest.hexdigest(),
    )


def read_states(told: Told, after: str | None, limit: int) -> BetStates:
    """How so many bets stand, behind a place told before. ValueError if it is no such place."""
    place = None if after is None else BetId(*map(int, after.split("-", 1)))
    page = list(islice(told.versions(place), limit))
    states = [told.state(versions) for _, versions in page]
    last = page[-1][0] if len(page) == limit else None
    return BetStates(states, None if last is None else f"{last.row}-{last.number}")


def state_word(decision: Decision) -> str:
    """The state that a message tells of its bet."""
    return _WORDS_OF_ACTS.get(decision.act) or _WORDS[decision.result]


def _content(decision: Decision) -> tuple[str, int, int]:
    return state_word(decision), decision.payout, decision.partial_refund


def _facts(versions: list[Decision]) -> Iterator[str]:
    """What is to be counted about a bet's messages, given as they settle."""
    first_sent = versions[-1].message
    for version in versions[-2::-1]:
        if version.message > first_sent:
            yield "late"
        first_sent = min(first_sent, version.message)
    for before, after in pairwise(versions):
        if before.act != "open" and _content(before) != _content(after):
            yield "correction"
            if after.payout < before.payout:
                yield "negative correction"


def _money(decision: Decision) -> tuple[str, str, str]:
    """Stake, payout and partial refund, in major units."""
    digits = decision.bet.precision
    return (
        _major(decision.bet.stake, digits),
        _major(decision.payout, digits),
        _major(decision.partial_refund, digits),
    )


def _major(amount: int, digits: int) -> str:
    if digits == 0:
        return str(amount)
    whole, fraction = divmod(amount, 10**digits)
    return f"{whole}.{fraction:0{digits}}"


def _line(told: Told, decision: Decision) -> bytes:
    time, word = told.settlement_time(decision.told_as), state_word(decision)
    return "|".join((decision.bet.bet_id, time, word, *_money(decision))).encode() + b"\n"
