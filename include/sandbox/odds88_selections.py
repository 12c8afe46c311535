"""The messages of odds88's settlement feed in full: a decision, and the legs of its bet.

What legs are made of (events, markets, prices, limits) follows from the bet alone, so that it stays
the same in every message about it.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Literal, NamedTuple

from include.sandbox.odds88_bets import MULTIPLIER_SCALE, Bet, Decision, place_price
from include.sandbox.odds88_messages import (
    Amount,
    BuilderItem,
    EachWayPrice,
    Event,
    ItemSettlement,
    ItemType,
    Market,
    Result,
    Selection,
    SettledBet,
)
from include.sandbox.timeline import SECOND, written

PayoutUnit = Literal["major", "minor"]

_TYPES = {
    "each_way": ItemType.EACH_WAY,
    "each_way_dead_heat": ItemType.EACH_WAY,
    "bet_builder": ItemType.BET_BUILDER,
    "starting_price": ItemType.STARTING_PRICE,
    "pickem": ItemType.PICKEM,
}
_EXOTICS = (ItemType.TOTE_EXOTICS, ItemType.FIXED_EXOTICS)
_EVENTS = (
    "Arsenal – Chelsea",
    "Fenerbahçe – Beşiktaş",
    "Зенит – Спартак",
    "阪神タイガース – 読売ジャイアンツ",
    'Royal Ascot, "Gold Cup" 16:20',
    "CF Montréal – Inter Miami",
    "NAVI – FaZe\tBO3 🏆",
)
_MARKETS = ("1X2", "Total Goals", "Handicap", "Winner", "Correct Score")
_LIMITS_FACTORS = (1.0, 0.75, 0.5, 1.25)
_LEG = struct.Struct(">4Q")
_DEAD_HEAT = 0.5
_BUILDER_ITEMS = 3
_EVENT_BEGAN_BEFORE = 7_200 * SECOND
_FIVE_MINUTES = 300 * SECOND


class Telling(NamedTuple):
    """When a message is told to be settled and when its bet was opened, and how it is written."""

    settled_at: int
    opened_at: int
    time_digits: int
    payout_unit: PayoutUnit

    @property
    def settlement_time(self) -> str:
        """As it is written."""
        return written(self.settled_at, self.time_digits)


def settled_bet(decision: Decision, telling: Telling) -> SettledBet:
    """The whole message about a bet."""
    bet = decision.bet
    legs = 2 + (bet.chance >> 48) % 3 if bet.kind == "multiple" else 1
    scale = 10**bet.precision if telling.payout_unit == "major" else 1
    settlement_time = telling.settlement_time
    return SettledBet(
        bet.bet_id,
        decision.result,
        decision.multiplier / MULTIPLIER_SCALE,
        decision.act == "cancel",
        [_selection(decision, leg, legs, telling, settlement_time) for leg in range(legs)],
        decision.act == "reject",
        settlement_time,
        decision.payout / scale,
        decision.partial_refund / scale,
        _amount(bet, decision.act == "open"),
    )


def _amount(bet: Bet, is_open: bool) -> Amount:
    drift = 1 + (bet.chance >> 40) % 100 / 10_000
    rate = 0.000016 if bet.hundredths_a_euro is None else bet.hundredths_a_euro / 100
    return Amount(bet.currency, bet.stake, bet.precision, rate, None if is_open else rate * drift)


def _selection(
    decision: Decision, leg: int, legs: int, telling: Telling, settlement_time: str
) -> Selection:
    bet = decision.bet
    drawn = hashlib.blake2b(b"%d/%d" % (bet.chance, leg), digest_size=_LEG.size).digest()
    identity, place, price, odd = _LEG.unpack(drawn)
    settlement = _settlement(decision, leg, legs, settlement_time)
    is_each_way = bet.kind in ("each_way", "each_way_dead_heat")
    is_outright = odd % 16 == 0
    market = _market(identity >> 32)
    return Selection(
        _event(identity, is_outright, telling),
        market,
        identity >> 8 & 0x7FFFFFFF,
        1 + place % 5000,
        1 + (place >> 16) % 250,
        1 + (place >> 32) % 60,
        settlement,
        _price(bet, legs, price),
        _each_way_price(bet) if is_each_way else None,
        None if odd >> 4 & 1 else 1 + (odd >> 8) % 90,
        _LIMITS_FACTORS[odd >> 16 & 3],
        odd >> 18 & 7 == 0,
        is_outright,
        1,
        _DEAD_HEAT if bet.kind == "dead_heat" else None,
        _DEAD_HEAT if bet.kind == "each_way_dead_heat" else None,
        {"line": f"{(odd >> 24) % 9}.5", "side": "Über"} if odd >> 21 & 1 else None,
        bet.price / MULTIPLIER_SCALE if odd >> 28 & 7 == 0 else None,
        (bet.price + 500) / MULTIPLIER_SCALE if odd >> 31 & 7 == 0 else None,
        _EXOTICS[bet.chance >> 50 & 1] if bet.kind == "exotic" else _type(bet),
        _builder_items(market, place, settlement) if bet.kind == "bet_builder" else None,
    )


def _settlement(
    decision: Decision, leg: int, legs: int, settlement_time: str
) -> ItemSettlement | None:
    """How a leg is settled: an open multiple has its first leg won, a lost one its last lost."""
    if decision.act == "reject":
        return None
    result = decision.result
    if legs > 1 and decision.act == "open":
        result = Result.WIN if leg == 0 else Result.NONE
    elif legs > 1 and result is Result.LOSE and leg < legs - 1:
        result = Result.WIN
    elif result is Result.CASH_OUT:
        result = Result.NONE
    if result is Result.NONE:
        return ItemSettlement(result, None, 0)
    return ItemSettlement(result, settlement_time, max(decision.version, 1))


def _event(identity: int, is_outright: bool, telling: Telling) -> Event:
    began = telling.opened_at - _EVENT_BEGAN_BEFORE
    return Event(
        identity >> 4 & 0xFFFFFF,
        _EVENTS[identity % len(_EVENTS)],
        identity >> 30 & 1 == 0,
        None if is_outright else written(began - began % _FIVE_MINUTES, 0),
    )


def _market(chance: int) -> Market:
    kind = chance % len(_MARKETS)
    properties = {"period": "full_time"} if chance >> 3 & 1 else None
    return Market(chance >> 4 & 0xFFFFFFF, 1 + kind, _MARKETS[kind], properties)


def _type(bet: Bet) -> ItemType:
    return _TYPES.get(bet.kind, ItemType.STANDARD)


def _price(bet: Bet, legs: int, chance: int) -> float | None:
    if bet.kind == "starting_price":
        return None
    scaled = bet.price if legs == 1 else MULTIPLIER_SCALE + 100 * (1 + chance % 300)
    return scaled / MULTIPLIER_SCALE


def _each_way_price(bet: Bet) -> EachWayPrice:
    return EachWayPrice(bet.price / MULTIPLIER_SCALE, place_price(bet) / MULTIPLIER_SCALE)


def _builder_items(
    market: Market, chance: int, settlement: ItemSettlement | None
) -> list[BuilderItem]:
    """All are won but the last, which decides."""
    if settlement is None:
        return []
    won = ItemSettlement(Result.WIN, settlement.settlement_time, settlement.settlement_version)
    return [
        BuilderItem(
            market,
            (chance >> 4 * item & 0xFFFFFFF) + item,
            settlement if item == _BUILDER_ITEMS - 1 else won,
        )
        for item in range(_BUILDER_ITEMS)
    ]
