"""The bets of tote, computed and never held: bet n follows from (seed, n), its state from time.

Each bet lives by one of the scripts below, which say what happens how long after it was placed.
Which script is told by the bet's number alone: `n % ROW`. Times are whole microseconds.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cache, lru_cache
from typing import Literal, NamedTuple

from include.sandbox.timeline import SECOND

Kind = Literal["plain", "partly_refunded", "refund_alone", "enhanced"]
Act = Literal[
    "place",
    "accept",
    "reject",
    "fail",
    "cancel",
    "result",
    "settle",
    "refund",
    "turn",
    "amend",
    "confirm",
]

BETS_LIMIT = 2**32
"""Most bets there can be."""
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


class Step(NamedTuple):
    """What happens to a bet, so many seconds after it was placed.

    `turn` settles it again with the opposite result, `amend` with a lower return, and `confirm`
    again as it was.
    """

    act: Act
    seconds: int


class Script(NamedTuple):
    """How so many bets of each row live; `is_won` None leaves the result to chance."""

    bets: int
    steps: tuple[Step, ...]
    kind: Kind = "plain"
    is_won: bool | None = None


_PLACED = (Step("place", 0), Step("accept", 2))
_RESULTED = (*_PLACED, Step("result", 3 * _HOUR))
_SETTLED = (*_RESULTED, Step("settle", 3 * _HOUR + 10 * _MINUTE))
_SCRIPTS = (
    Script(9, _SETTLED),
    Script(2, (*_RESULTED, Step("settle", 3 * _DAY))),
    Script(1, (*_RESULTED, Step("settle", 21 * _DAY))),
    Script(1, (*_PLACED, Step("result", 100 * _DAY), Step("settle", 100 * _DAY + _HOUR))),
    Script(1, (*_PLACED, Step("refund", 5 * _HOUR))),
    Script(1, _SETTLED, "partly_refunded", True),
    Script(1, _SETTLED, "partly_refunded", False),
    Script(1, _SETTLED, "refund_alone", False),
    Script(1, _SETTLED, "enhanced", True),
    Script(1, (*_PLACED, Step("cancel", _HOUR), Step("refund", 2 * _HOUR))),
    Script(1, (*_RESULTED, Step("cancel", 4 * _HOUR), Step("refund", 5 * _HOUR)), is_won=True),
    Script(1, (*_SETTLED, Step("cancel", 2 * _DAY), Step("refund", 2 * _DAY + _HOUR))),
    Script(1, (Step("place", 0), Step("reject", 1))),
    Script(1, (Step("place", 0), Step("fail", 1))),
    Script(1, (*_SETTLED, Step("turn", 1 * _DAY)), is_won=True),
    Script(1, (*_SETTLED, Step("turn", 1 * _DAY)), is_won=False),
    Script(1, (*_SETTLED, Step("turn", 1 * _DAY), Step("turn", 2 * _DAY)), is_won=True),
    Script(1, (*_SETTLED, Step("amend", 5 * _DAY)), is_won=True),
    Script(1, (*_SETTLED, Step("confirm", 6 * _HOUR))),
)
_SCRIPT_OF = tuple(script for script in _SCRIPTS for _ in range(script.bets))
ROW = len(_SCRIPT_OF)

# One word for a bet of a row.
_CHANCES = struct.Struct(f">{ROW}Q")
_FIRST_ID = 0x4000_0000_0000_0000
_ID_STEP = 0x1_0000
_CURRENCIES = ("GBP", "GBP", "GBP", "GBP", "GBP", "EUR", "EUR", "HKD")


class Bet(NamedTuple):
    """What does not change about a bet: its stake in minor units, its odds times 100."""

    number: int
    script: Script
    is_won: bool
    currency: str
    stake: int
    odds: int
    chance: int

    @property
    def tote_id(self) -> str:
        """Its id, of 32 hexadecimal digits. Ids grow with the bets' numbers."""
        first = _FIRST_ID + self.number * _ID_STEP + self.chance % _ID_STEP
        return f"{first:016x}{self.chance:016x}"


class State(NamedTuple):
    """How a bet stands, in tote's words; money in minor units, None before there is a result."""

    placement: str
    resulting: str
    settlement: str
    returned: int | None = None
    refund: int | None = None
    enhancement: int | None = None

    @property
    def total(self) -> int | None:
        """All that goes to the player."""
        if self.returned is None:
            return None
        return self.returned + (self.refund or 0) + (self.enhancement or 0)


class Bets:
    """The bets for one seed; 0 is the oldest."""

    def __init__(self, seed: int) -> None:
        self._row_key = f"{seed}/tote".encode()
        self._chances = lru_cache(maxsize=1024)(self._compute_chances)

    def bet(self, number: int) -> Bet:
        """The bet with this number."""
        row, position = divmod(number, ROW)
        chance, script = self._chances(row)[position], _SCRIPT_OF[position]
        return Bet(
            number,
            script,
            bool(chance & 1) if script.is_won is None else script.is_won,
            _CURRENCIES[chance >> 1 & 7],
            _stake(chance >> 8),
            150 + (chance >> 32) % 2000,
            chance,
        )

    def number(self, tote_id: str) -> int | None:
        """The number of the bet with this id; None if there is none."""
        try:
            number = (int(tote_id[:16], 16) - _FIRST_ID) // _ID_STEP
        except ValueError:
            return None
        is_known = 0 <= number < BETS_LIMIT and self.bet(number).tote_id == tote_id
        return number if is_known else None

    def _compute_chances(self, row: int) -> tuple[int, ...]:
        bits = hashlib.shake_128(self._row_key + row.to_bytes(8)).digest(_CHANCES.size)
        return _CHANCES.unpack(bits)


def steps_at(position: int) -> tuple[Step, ...]:
    """What happens to the bets whose number leaves this remainder by `ROW`."""
    return _SCRIPT_OF[position].steps


def steps_taken(bet: Bet, age: int) -> int:
    """How many steps a bet of this age (microseconds) has behind it; 0 before it was placed."""
    return sum(step.seconds * SECOND <= age for step in bet.script.steps)


def state(bet: Bet, steps: int) -> State:
    """How a bet stands after so many of its steps, at least one."""
    words, acts = _course(bet.number % ROW, steps)
    money: tuple[int, int, int] | None = None
    is_won = bet.is_won
    for act in acts:
        match act:
            case "refund":
                money = (0, bet.stake, 0)
            case "amend" if money:
                money = (money[0] * 3 // 4, *money[1:])
            case _:
                is_won ^= act == "turn"
                money = _returns(bet, is_won)
    return State(*words) if money is None else State(*words, *money)


_WORDS: dict[Act, tuple[str | None, str | None, str | None]] = {
    "place": ("PLACED", "PENDING", "PENDING"),
    "accept": ("ACCEPTED", None, None),
    "reject": ("REJECTED", None, None),
    "fail": ("FAILED", None, None),
    "cancel": ("CANCELLED", "CANCELLED", None),
    "result": (None, "RESULTED", None),
    "settle": (None, None, "SETTLED"),
    "refund": (None, None, "REFUNDED"),
}
"""What each act makes of placement, resulting and settlement."""


@cache
def _course(position: int, steps: int) -> tuple[tuple[str, str, str], tuple[Act, ...]]:
    """The words after so many steps, and which of these have moved money."""
    placement = resulting = settlement = ""
    acts = [step.act for step in _SCRIPT_OF[position].steps[:steps]]
    for act in acts:
        words = _WORDS.get(act, (None, None, None))
        placement, resulting, settlement = (
            new or old for new, old in zip(words, (placement, resulting, settlement), strict=True)
        )
    moved = tuple(act for act in acts if act in {"result", "turn", "refund", "amend"})
    return (placement, resulting, settlement), moved


def _returns(bet: Bet, is_won: bool) -> tuple[int, int, int]:
    """Return, refund and enhancement of a bet with this result."""
    kind = bet.script.kind
    refund = bet.stake // 4 if kind == "partly_refunded" else 0
    refund = bet.stake if kind == "refund_alone" else refund
    returned = (bet.stake - refund) * bet.odds // 100 if is_won else 0
    return returned, refund, returned // 10 if kind == "enhanced" else 0


def _stake(chance: int) -> int:
    """Mostly whole hundreds of the minor unit, and one in eight times any number of it."""
    stake = 100 * (1 + chance % 200)
    return stake + 50 if chance >> 12 & 7 == 0 else stake
