"""The bets of odds88's settlement feed, computed and never held: message n follows from (seed, n).

The messages are laid out in rows. Each row opens bets, and each of them lives by one of the scripts
below: settled once, opened and settled later, resettled, cancelled, and so on. A script says how
many rows later its next message comes, so a message finds the rest of its bet's by arithmetic
alone. Places whose bet would have been opened before the feed began hold bets settled once.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from include.sandbox.odds88_messages import Result

Kind = Literal[
    "single",
    "multiple",
    "refunded",
    "half",
    "cashed_out",
    "each_way",
    "dead_heat",
    "each_way_dead_heat",
    "bet_builder",
    "exotic",
    "starting_price",
    "pickem",
]
Act = Literal["open", "settle", "resettle", "reprice", "cancel", "reject"]
EqualTimes = Literal["never", "newer_version", "contested"]

MESSAGES_LIMIT = 2**32
"""Most messages a feed can have."""
MULTIPLIER_SCALE = 10_000
"""Prices and multipliers are whole numbers, scaled by this."""


class Step(NamedTuple):
    """One message of a script: what it says, and how many rows after the bet was opened it comes.

    `version` is that of the settled legs. The message tells a time `told_rows_earlier` than its
    own: it is late if another one of its bet was settled in between.
    """

    act: Act
    rows_later: int
    version: int = 1
    told_rows_earlier: int = 0


class Script(NamedTuple):
    """How so many bets of each row live; `is_won` None leaves the first outcome to chance.

    `may_tie` is for bets whose second message tells the time of the first where a switch says so.
    """

    bets: int
    kind: Kind
    steps: tuple[Step, ...]
    is_won: bool | None = None
    may_tie: bool = False


_ONCE = (Step("settle", 0),)
_SCRIPTS = (
    Script(12, "single", _ONCE),
    Script(2, "multiple", _ONCE),
    Script(2, "multiple", (Step("open", 0), Step("settle", 1, 2))),
    Script(1, "single", (Step("open", 0, 0),)),
    Script(1, "refunded", _ONCE),
    Script(1, "half", _ONCE),
    Script(1, "cashed_out", _ONCE),
    Script(1, "each_way", _ONCE),
    Script(1, "dead_heat", _ONCE),
    Script(1, "each_way_dead_heat", _ONCE),
    Script(1, "bet_builder", _ONCE),
    Script(1, "exotic", _ONCE),
    Script(1, "starting_price", _ONCE),
    Script(1, "pickem", _ONCE),
    Script(1, "single", (Step("cancel", 0),)),
    Script(1, "single", (Step("reject", 0),)),
    Script(1, "single", (Step("settle", 0), Step("resettle", 5, 2))),
    Script(1, "single", (Step("settle", 0), Step("resettle", 2, 2), Step("resettle", 25, 3))),
    Script(1, "single", (Step("settle", 0), Step("reprice", 5, 2)), is_won=True),
    Script(1, "multiple", (Step("settle", 0), Step("cancel", 10, 2))),
    Script(1, "single", (Step("settle", 0), Step("settle", 2, 2))),
    Script(1, "single", (Step("settle", 0), Step("resettle", 2, 3), Step("cancel", 5, 2, 4))),
    Script(1, "single", (Step("settle", 0), Step("resettle", 3, 2)), may_tie=True),
)
LATEST_ROWS = 4
"""No message tells a time further back than so many rows and one."""


class Place(NamedTuple):
    """One of the places of a row: whose message stands there, and what it says.

    `number` counts the bets that the row `step.rows_later` before this one opened; `is_flipped`
    says that the outcome is the opposite of the bet's first one.
    """

    number: int
    script: Script
    step: Step
    is_flipped: bool


def _chain_of_places(number: int, script: Script) -> Iterator[Place]:
    is_flipped = False
    for step in script.steps:
        is_flipped ^= step.act == "resettle"
        yield Place(number, script, step, is_flipped)


# A bet is opened at the place of its own number; behind those stand the later steps.
_CHAINS = tuple(
    tuple(_chain_of_places(number, script))
    for number, script in enumerate(script for script in _SCRIPTS for _ in range(script.bets))
)
_PLACES = tuple(chain[0] for chain in _CHAINS) + tuple(
    place for chain in _CHAINS for place in chain[1:]
)
ROW = len(_PLACES)
_NUMBER_OF_PLACE = {place: number for number, place in enumerate(_PLACES)}
_SETTLED_ONCE = tuple(
    Place(number, Script(1, "single", _ONCE), _ONCE[0], False) for number in range(ROW)
)

# Places are scattered over a row by a multiplication that can be undone.
_SCATTER = 7
_GATHER = pow(_SCATTER, -1, ROW)

# One word for a row, and one for each of the bets it opens.
_CHANCES = struct.Struct(f">{1 + ROW}Q")
_FIRST_BET_ID = 1_480_000_000_000_000_000
_BET_ID_STEP = 97
# Currency, digits of its minor unit, units of it in a euro by the hundredth.
_CURRENCIES = (
    ("EUR", 2, 100),
    ("EUR", 2, 100),
    ("EUR", 2, 100),
    ("USD", 2, 117),
    ("GBP", 2, 86),
    ("JPY", 0, 18_150),
    ("KWD", 3, 36),
    ("BTC", 8, None),
)


class Bet(NamedTuple):
    """What does not change about a bet: its stake in minor units, its price times 10 000."""

    bet_id: str
    row: int
    kind: Kind
    is_won: bool
    currency: str
    precision: int
    hundredths_a_euro: int | None
    stake: int
    price: int
    chance: int


class Decision(NamedTuple):
    """What one message says about its bet; money in minor units, the multiplier times 10 000.

    `told_as` is the message whose time is told as that of the settlement.
    """

    message: int
    bet: Bet
    act: Act
    told_as: int
    version: int
    result: Result
    multiplier: int
    payout: int
    partial_refund: int


class BetId(NamedTuple):
    """One bet: the row that opened it, and its number within that row. They grow as ids do."""

    row: int
    number: int


class _Chances(NamedTuple):
    rotation: int
    bets: tuple[int, ...]


class Bets:
    """The bets for one seed. A message is named by its index: 0 is the oldest."""

    def __init__(self, seed: int, equal_times: EqualTimes, payout_holds_refund: bool) -> None:
        self._row_key = f"{seed}/odds88".encode()
        self._equal_times = equal_times
        self._payout_holds_refund = payout_holds_refund
        self._chances = lru_cache(maxsize=1024)(self._compute_chances)

    def decision(self, message: int) -> Decision:
        """What this message says."""
        row, position = divmod(message, ROW)
        place = self._place(row, position)
        bet = self._bet(row - place.step.rows_later, place)
        result, multiplier = _outcome(bet, place)
        payout = (bet.stake * multiplier + MULTIPLIER_SCALE // 2) // MULTIPLIER_SCALE
        partial_refund = bet.stake // 5 if bet.kind == "exotic" else 0
        if self._payout_holds_refund:
            payout += partial_refund
        return Decision(
            message,
            bet,
            place.step.act,
            self._told_as(message, row, place),
            self._version(place),
            result,
            multiplier,
            payout,
            partial_refund,
        )

    def told_as(self, message: int) -> int:
        """The message whose time this one tells as that of its settlement; never a later one."""
        row, position = divmod(message, ROW)
        return self._told_as(message, row, self._place(row, position))

    def bets(self, head: int, after: BetId | None = None) -> Iterator[tuple[BetId, list[int]]]:
        """The bets behind one, in the order of their ids, each with its messages below `head`."""
        first = BetId(0, -1) if after is None else after
        for row in range(first.row, -(-head // ROW)):
            for number in range(first.number + 1 if row == first.row else 0, ROW):
                chain = _chain_places(row, number)
                messages = [self._message_at(row, place) for place in chain]
                if seen := [message for message in messages if message < head]:
                    yield BetId(row, number), seen

    def _told_as(self, message: int, row: int, place: Place) -> int:
        if self._ties(place):
            return self._message_at(row - place.step.rows_later, _CHAINS[place.number][0])
        return message - place.step.told_rows_earlier * ROW

    def _version(self, place: Place) -> int:
        is_contested = self._ties(place) and self._equal_times == "contested"
        return 1 if is_contested else place.step.version

    def _ties(self, place: Place) -> bool:
        is_second = place.step.rows_later > 0
        return place.script.may_tie and is_second and self._equal_times != "never"

    def _place(self, row: int, position: int) -> Place:
        number = (position * _SCATTER + self._chances(row).rotation) % ROW
        place = _PLACES[number]
        return place if place.step.rows_later <= row else _SETTLED_ONCE[number]

    def _message_at(self, opened_in: int, place: Place) -> int:
        row = opened_in + place.step.rows_later
        number = _NUMBER_OF_PLACE.get(place, place.number)
        return row * ROW + (number - self._chances(row).rotation) * _GATHER % ROW

    def _bet(self, opened_in: int, place: Place) -> Bet:
        chance = self._chances(opened_in).bets[place.number]
        currency, precision, hundredths_a_euro = _CURRENCIES[chance % len(_CURRENCIES)]
        is_won = bool(chance >> 8 & 1) if place.script.is_won is None else place.script.is_won
        ordinal = opened_in * ROW + place.number
        return Bet(
            str(_FIRST_BET_ID + ordinal * _BET_ID_STEP + (chance >> 9) % _BET_ID_STEP),
            opened_in,
            place.script.kind,
            is_won,
            currency,
            precision,
            hundredths_a_euro,
            _stake(chance >> 16),
            MULTIPLIER_SCALE + 100 * (1 + (chance >> 32) % 900),
            chance,
        )

    def _compute_chances(self, row: int) -> _Chances:
        bits = hashlib.shake_128(self._row_key + row.to_bytes(8)).digest(_CHANCES.size)
        rotation, *words = _CHANCES.unpack(bits)
        return _Chances(rotation % ROW, tuple(words))


def _chain_places(row: int, number: int) -> tuple[Place, ...]:
    """The places of a bet's messages; none for a number that its row did not give away."""
    if number < len(_CHAINS):
        return _CHAINS[number]
    is_opened = row < _PLACES[number].step.rows_later
    return (_SETTLED_ONCE[number],) if is_opened else ()


def _stake(chance: int) -> int:
    """Mostly whole hundreds of the minor unit, and one in eight times any number of it."""
    stake = 100 * (1 + chance % 500)
    return stake + 37 if chance >> 12 & 7 == 0 else stake


def _outcome(bet: Bet, place: Place) -> tuple[Result, int]:
    """The result and the multiplier of the payout."""
    match place.step.act:
        case "open" | "reject":
            return Result.NONE, 0
        case "cancel":
            return Result.REFUND, MULTIPLIER_SCALE
    result, multiplier = _graded(bet, bet.is_won ^ place.is_flipped)
    return result, multiplier * 3 // 4 if place.step.act == "reprice" else multiplier


def _graded(bet: Bet, is_won: bool) -> tuple[Result, int]:
    match bet.kind:
        case "refunded":
            return Result.REFUND, MULTIPLIER_SCALE
        case "half" if is_won:
            return Result.HALF_WIN, (bet.price + MULTIPLIER_SCALE) // 2
        case "half":
            return Result.HALF_LOSE, MULTIPLIER_SCALE // 2
        case "cashed_out":
            return Result.CASH_OUT, MULTIPLIER_SCALE * 3 // 5
        case "each_way" if is_won:
            return Result.WIN, (bet.price + place_price(bet)) // 2
        case "each_way":
            return Result.PLACE_WIN, place_price(bet) // 2
        case "dead_heat":
            return Result.WIN, bet.price // 2
        case "each_way_dead_heat":
            return Result.PLACE_WIN, place_price(bet) // 4
    return (Result.WIN, bet.price) if is_won else (Result.LOSE, 0)


def place_price(bet: Bet) -> int:
    """The price of a bet for the place, a quarter of that for the win, times 10 000."""
    return MULTIPLIER_SCALE + (bet.price - MULTIPLIER_SCALE) // 4
