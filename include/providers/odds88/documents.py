"""What odds88 writes.  Source: SettlementFeedMessageDto of its document, and what it is made of."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import IntEnum
from typing import Annotated, Self

import msgspec

from include.providers.documented import Documented
from include.providers.moments import AwareTime

# Ids and tickers are parts of index keys, which Postgres limits to about 2700 bytes together.
NAME_CHARACTERS_LIMIT = 128
# Longer ones are not remembered: a text may be as long as a message.
_USUAL_NUMBER_LENGTH = 32
_USUAL_NUMBERS = 4096
# No currency has more digits behind the point, and no amount as many before it.
DIGITS_BEHIND_POINT = 30
_DIGITS_BEFORE_POINT = 20
_FINEST = Decimal(1).scaleb(-DIGITS_BEHIND_POINT)
_BOUNDED = Context(
    prec=_DIGITS_BEFORE_POINT + DIGITS_BEHIND_POINT, traps=[Inexact, InvalidOperation]
)
# Wide enough for the product of two such numbers; what it would have to round is a mistake.
EXACT = Context(prec=120, traps=[Inexact, InvalidOperation])


class Number(Decimal):
    """A number of any kind, exactly as it was written; never a text, never NaN or an infinity.

    `exact` is the same as an amount or odds, None if it is of a size that neither can have.
    """

    __slots__ = ("exact",)
    exact: Decimal | None

    def __new__(cls, written: str | int | Decimal) -> Self:
        """Any number that can be written; ArithmeticError for one that Decimal cannot hold."""
        # Twice as quick as by way of `super`, for each number that was not met before.
        number = Decimal.__new__(cls, written)
        try:
            # Of nothing there is but one kind: neither -0 nor 0.000.
            number.exact = EXACT.plus(number) if number else Decimal(0)
            _BOUNDED.quantize(number, _FINEST)
        except (Inexact, InvalidOperation):
            number.exact = None
        return number


def as_number(kind: type, value: object) -> Number:
    """The hook for the one type that msgspec does not know."""
    if type(value) is Number:
        return value
    if kind is Number and type(value) in (int, Decimal):
        return Number(value)  # type: ignore[arg-type]
    raise ValueError(f"Expected a number, got `{type(value).__name__}`")


class _Numbers(dict[str, Number]):
    """Odds, factors and rates repeat: reading one anew takes ten times as long."""

    def __missing__(self, written: str) -> Number:
        number = Number(written)
        if len(written) <= _USUAL_NUMBER_LENGTH:
            if len(self) >= _USUAL_NUMBERS:
                self.clear()
            self[written] = number
        return number


read_number = _Numbers().__getitem__


class Result(IntEnum):
    """How a bet, a leg or a part of one was settled."""

    NONE = 0
    WIN = 1
    LOSE = 2
    REFUND = 3
    HALF_WIN = 4
    HALF_LOSE = 5
    CASH_OUT = 6
    PLACE_WIN = 7


class SelectionType(IntEnum):
    """What kind of bet a selection is (BetItemType)."""

    STANDARD = 1
    STARTING_PRICE = 2
    TOTE_EXOTICS = 3
    FIXED_EXOTICS = 4
    BET_BUILDER = 5
    PICKEM = 6
    EACH_WAY = 7


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_LIMIT)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Event(Documented, frozen=True, gc=False, kw_only=True):
    """The event of a selection (EventInfoViewModel)."""

    id: Int64 | None = None
    name: str | None = None
    is_live: bool | None = None
    start_time: AwareTime | None = None


class Market(Documented, frozen=True, gc=False, kw_only=True):
    """The market of a selection (MarketViewModel); `type` is the id of its type."""

    id: Int64 | None = None
    type: Int64 | None = None
    name: str | None = None
    properties: dict[str, str] | None = None


class LegSettlement(Documented, frozen=True, gc=False, kw_only=True):
    """How a selection, or a part of one, was settled (SettlementInfoViewModel).

    `settlement_version` grows when it is settled again.
    """

    settlement_result: Result
    settlement_time: AwareTime | None = None
    settlement_version: Version


class EachWayPrice(Documented, frozen=True, gc=False, kw_only=True):
    """The decimal odds of both parts of an each-way bet (EachWayPriceModel)."""

    win: Number | None = None
    place: Number | None = None


class BuilderItem(Documented, frozen=True, gc=False, kw_only=True):
    """One part of a bet-builder selection (SettledBetBuilderItemViewModel)."""

    market: Market | None = None
    selection_id: Int64 | None = None
    settlement: LegSettlement | None = None


class Selection(Documented, frozen=True, gc=False, kw_only=True):
    """One selection of a bet (SettledBetItemViewModel), which is a leg of its settlement.

    Prices are decimal odds, `price` those at which the bet was placed; a dead-heat factor is the
    share of a shared place, `place_dead_heat_factor` that of an each-way bet's place part.
    `limits_factor` belongs to `limits_rating_id`; `version` is that of the selection.
    """

    event: Event | None = None
    market: Market | None = None
    selection_id: Int64 | None = None
    competition_id: Int64 | None = None
    country_id: Int64 | None = None
    sport_id: Int64 | None = None
    settlement: LegSettlement | None = None
    price: Number | None = None
    each_way_price: EachWayPrice | None = None
    limits_rating_id: Int64 | None = None
    limits_factor: Number | None = None
    has_line_deviation: bool | None = None
    is_outright: bool | None = None
    version: Int32 | None = None
    dead_heat_factor: Number | None = None
    place_dead_heat_factor: Number | None = None
    parameters: dict[str, str] | None = None
    manual_price: Number | None = None
    alternative_price: Number | None = None
    type: SelectionType | None = None
    bet_builder_items: list[BuilderItem] | None = None


class Amount(Documented, frozen=True, gc=False, kw_only=True):
    """What was staked (BetAmountViewModel): `value` with its last `precision` digits behind the
    point, in `currency`.

    The two rates are all that is told of another currency; their direction and base are not.
    """

    currency: Name
    value: Int64
    precision: Int32
    placement_exchange_rate: Number | None = None
    settlement_exchange_rate: Number | None = None


class Bet(Documented, frozen=True, gc=False, kw_only=True):
    """One state of one bet, as odds88 writes it (SettledBetViewModelV3)."""

    bet_id: Name
    bet_settlement: Result
    payout_multiplier: Number | None = None
    is_cancelled: bool
    selections: list[Selection] | None = None
    is_rejected: bool
    settlement_time: AwareTime
    payout: Number | None = None
    partial_refund: Number | None = None
    amount: Amount | None = None
