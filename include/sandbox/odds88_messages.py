"""What odds88's settlement feed sends: the objects of its documentation, field by field in order.

Doubles are written in their shortest form, and what is nullable is written as null.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Result(IntEnum):
    """SettlementResult, of a bet and of each of its items."""

    NONE = 0
    WIN = 1
    LOSE = 2
    REFUND = 3
    HALF_WIN = 4
    HALF_LOSE = 5
    CASH_OUT = 6
    PLACE_WIN = 7


class ItemType(IntEnum):
    """BetItemType."""

    STANDARD = 1
    STARTING_PRICE = 2
    TOTE_EXOTICS = 3
    FIXED_EXOTICS = 4
    BET_BUILDER = 5
    PICKEM = 6
    EACH_WAY = 7


class _Model(msgspec.Struct, gc=False, rename="camel"):
    """One of the documented objects."""


class Event(_Model):
    """EventInfoViewModel."""

    id: int
    name: str
    is_live: bool
    start_time: str | None


class Market(_Model):
    """MarketViewModel."""

    id: int
    type: int
    name: str
    properties: dict[str, str] | None


class ItemSettlement(_Model):
    """SettlementInfoViewModel."""

    settlement_result: Result
    settlement_time: str | None
    settlement_version: int


class EachWayPrice(_Model):
    """EachWayPriceModel."""

    win: float
    place: float


class BuilderItem(_Model):
    """SettledBetBuilderItemViewModel."""

    market: Market
    selection_id: int
    settlement: ItemSettlement


class Selection(_Model):
    """SettledBetItemViewModel: one leg of a bet."""

    event: Event
    market: Market
    selection_id: int
    competition_id: int
    country_id: int
    sport_id: int
    settlement: ItemSettlement | None
    price: float | None
    each_way_price: EachWayPrice | None
    limits_rating_id: int | None
    limits_factor: float
    has_line_deviation: bool
    is_outright: bool
    version: int
    dead_heat_factor: float | None
    place_dead_heat_factor: float | None
    parameters: dict[str, str] | None
    manual_price: float | None
    alternative_price: float | None
    type: ItemType
    bet_builder_items: list[BuilderItem] | None


class Amount(_Model):
    """BetAmountViewModel."""

    currency: str
    value: int
    precision: int
    placement_exchange_rate: float
    settlement_exchange_rate: float | None


class SettledBet(_Model):
    """SettledBetViewModelV3: what is decided about one bet."""

    bet_id: str
    bet_settlement: Result
    payout_multiplier: float
    is_cancelled: bool
    selections: list[Selection]
    is_rejected: bool
    settlement_time: str
    payout: float
    partial_refund: float
    amount: Amount


class _Message(_Model):
    """SettlementFeedMessageDto: a bet, or a ping."""

    ping_id: str | None
    data: SettledBet | None


_ENCODER = msgspec.json.Encoder()


def encode_bet(bet: SettledBet) -> bytes:
    """The message that tells about a bet."""
    return _ENCODER.encode(_Message(None, bet))


def encode_ping(ping_id: str) -> bytes:
    """The message that keeps a connection alive."""
    return _ENCODER.encode(_Message(ping_id, None))
