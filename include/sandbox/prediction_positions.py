"""The positions of the prediction engine's markets, computed and never held: from (seed, n).

Shares, payouts a share and their product are whole numbers, scaled by 10^6, 10^6 and 10^12.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from include.sandbox.prediction_settings import PredictionSettings

SHARES_DIGITS = 6
PAYOUT_DIGITS = 12
_ONE = 10**SHARES_DIGITS
_CHANCES = struct.Struct(">4I")
_CHANCE_SCALE = 2**32
# Every fifth position belongs to the player of the one before it, and is in the other outcome.
_PAIR = 5
_PLAYERS_STEP = 7919


class Position(NamedTuple):
    """What a player holds in a market; chances are between 0 and 1."""

    number: int
    position_id: str
    outcome_id: str
    player_id: str
    shares: int
    payout_per_share: int
    is_foreign: bool
    chance_to_fail: float
    chance_to_stick: float
    pace: float


def market_id(seed: int, market: int) -> str:
    """The id of a market, which tells its number to those who know how."""
    tail = hashlib.blake2b(b"%d/market/%d" % (seed, market), digest_size=16).hexdigest()
    return _uuid(f"{market:08x}{tail[8:]}")


def market_number(seed: int, text: str) -> int | None:
    """The number of the market with this id; None if it is no market's."""
    try:
        market = int(text[:8], 16)
    except ValueError:
        return None
    return market if market_id(seed, market) == text.lower() else None


def settlement_id(seed: int, market: int, position: int, row: int) -> str:
    """The id of a position's settlement, the first one being row 0."""
    written = b"%d/settlement/%d/%d/%d" % (seed, market, position, row)
    return _uuid(hashlib.blake2b(written, digest_size=16).hexdigest())


def winning_outcome(seed: int, market: int) -> str:
    """The id of the outcome that a market has resolved to."""
    return _outcomes(seed, market)[0]


def cancelled_orders(seed: int, market: int) -> int:
    """How many open orders a market has when it is settled."""
    return hashlib.blake2b(b"%d/orders/%d" % (seed, market), digest_size=1).digest()[0] % 10


class Positions:
    """The positions of one market, under the settings with which it was first settled."""

    def __init__(self, settings: PredictionSettings, market: int) -> None:
        self._seed = settings.seed
        self._settings = settings
        self._market = market
        self._outcomes = _outcomes(settings.seed, market)
        kind = _chances(b"%d/kind/%d" % (settings.seed, market))[0] / _CHANCE_SCALE
        winning = _ONE
        if kind < settings.fractional_share:
            winning = int(settings.fraction.scaleb(SHARES_DIGITS))
        self._payouts = (winning, _ONE - winning)
        self.count = settings.positions

    def position(self, number: int) -> Position:
        """The position with this number."""
        chances = self._chances(number)
        losing = chances[0] & 1
        if number % _PAIR == _PAIR - 1:
            losing = 1 - (self._chances(number - 1)[0] & 1)
        settings = self._settings
        digits = 10 ** (SHARES_DIGITS - settings.share_digits)
        written = b"%d/position/%d/%d" % (self._seed, self._market, number)
        return Position(
            number,
            _uuid(hashlib.blake2b(written, digest_size=16).hexdigest()),
            self._outcomes[losing],
            f"player-{self._player(number)}",
            (1 + (chances[0] >> 1) % (1000 * 10**settings.share_digits)) * digits,
            self._payouts[losing],
            settings.is_odd(self._market)
            and chances[3] / _CHANCE_SCALE < settings.foreign_operator_share,
            chances[1] / _CHANCE_SCALE,
            chances[2] / _CHANCE_SCALE,
            (1 + chances[3] % 1000) / 1000,
        )

    def numbers_of_player(self, player_id: str) -> Iterator[int]:
        """The positions of one player in this market, ascending; the last one may not exist."""
        name, _, digits = player_id.partition("-")
        players = self._settings.players
        if name != "player" or not digits.isdecimal() or int(digits) >= players:
            return
        first = (int(digits) - self._market * _PLAYERS_STEP) % players
        for number in range(first, self.count, players):
            yield from (one for one in (number, number + 1) if self._player(one) == int(digits))

    def _player(self, number: int) -> int:
        slot = number - 1 if number % _PAIR == _PAIR - 1 else number
        return (slot + self._market * _PLAYERS_STEP) % self._settings.players

    def _chances(self, number: int) -> tuple[int, ...]:
        return _chances(b"%d/%d/%d" % (self._seed, self._market, number))


def _outcomes(seed: int, market: int) -> tuple[str, str]:
    """The winning outcome's id and the losing one's."""
    digest = hashlib.blake2b(b"%d/outcomes/%d" % (seed, market), digest_size=32).hexdigest()
    return _uuid(digest[:32]), _uuid(digest[32:])


def _chances(drawn: bytes) -> tuple[int, ...]:
    return _CHANCES.unpack(hashlib.blake2b(drawn, digest_size=_CHANCES.size).digest())


def _uuid(digits: str) -> str:
    """32 hexadecimal digits as a version 4 uuid, which keeps the first 12 as they are."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
