"""What a bet of odds88 means: its exact text as a settlement, or why it cannot be one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Literal

import msgspec

from include.model import CURRENCY, Leg, Outcome, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.documented import UNREADABLE, fault_in, without_unknown
from include.providers.errors import RecordRejected
from include.providers.moments import in_utc, sortable
from include.providers.odds88.documents import (
    DIGITS_BEHIND_POINT,
    EXACT,
    Amount,
    Bet,
    BuilderItem,
    EachWayPrice,
    Event,
    LegSettlement,
    Market,
    Number,
    Result,
    Selection,
    SelectionType,
    as_number,
    read_number,
)
from include.providers.texts import is_storable, shown
from include.settings import Settings

_LEGS_LIMIT = 1000
# Digits of the largest int32.
_VERSION_DIGITS = 10
_BET = msgspec.json.Decoder(Bet, dec_hook=as_number, float_hook=read_number)
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True)
class Terms:
    """What the document leaves open about one connection; None is not decided yet.

    `payout_unit` is that of `payout` and `partialRefund`, `payout_contains_refund` whether the one
    contains the other; a leg with a `settlementVersion` above `first_version` was settled before.
    """

    payout_unit: Literal["major", "minor"] | None = None
    payout_contains_refund: bool | None = None
    first_version: int = 1


UNDECIDED = Terms()


def terms_of(settings: Settings) -> Terms:
    """What the settings say about the connection."""
    return Terms(
        payout_unit=settings.odds88_payout_unit,
        payout_contains_refund=settings.odds88_payout_contains_partial_refund,
        first_version=settings.odds88_first_settlement_version,
    )


def normalize(record: bytes, context: RecordContext, terms: Terms = UNDECIDED) -> Settlement:
    """A bet's exact text as a settlement; raises `RecordRejected`, never guesses."""
    return settle(read_bet(record), terms)


def read_bet(record: bytes) -> Bet:
    """A bet's exact text, typed; what the document does not name is left out.

    Raises `RecordRejected`, saying where, for what the document does not allow, for what is missing
    and decides, and for texts that cannot be stored.
    """
    bet = _read_bet(record)
    if b"\\" in record:
        # Only an escape writes a null character.
        _check_texts(bet)
    return bet


def _read_bet(record: bytes) -> Bet:
    try:
        return _BET.decode(record)
    except UNREADABLE:
        pass
    try:
        value = without_unknown(_ANYTHING.decode(record), Bet, "", set())
    except UNREADABLE as error:
        raise RecordRejected("undecodable", f"the bet cannot be read: {fault_in(error)}") from None
    try:
        return msgspec.convert(value, Bet, dec_hook=as_number)
    except msgspec.ValidationError as error:
        raise _rejection(error) from None


def settle(bet: Bet, terms: Terms) -> Settlement:
    """A bet as a settlement; raises `RecordRejected`, never guesses."""
    settled_at = _told_at(bet.settlement_time, "settlementTime")
    status, outcome = _status(bet), _OUTCOMES[bet.bet_settlement]
    payout, refund = _returned(bet, status, terms)
    amount = bet.amount
    version = _highest_version(bet)
    selections = bet.selections or ()
    legs = _legs(selections)
    only = legs[0] if len(selections) == 1 else _NO_LEG
    return Settlement(
        source_key=bet.bet_id,
        provider_order=order_of(settled_at, version),
        status=status,
        outcome=outcome,
        settled_at=settled_at,
        settled_at_basis=SettledAtBasis.PROVIDER,
        is_resettlement=_is_resettlement(selections, terms),
        event_id=only.event_id,
        market_id=only.market_id,
        selection_id=only.selection_id,
        currency=_currency(amount) if amount else None,
        stake=stake_of(amount) if amount else None,
        payout=payout,
        refund=refund,
        payout_multiplier=_exact_or_none(bet.payout_multiplier, "payoutMultiplier"),
        placement_rate=_exact_or_none(
            amount.placement_exchange_rate if amount else None, "amount.placementExchangeRate"
        ),
        settlement_rate=_exact_or_none(
            amount.settlement_exchange_rate if amount else None, "amount.settlementExchangeRate"
        ),
        legs=legs,
    )


def order_of(settled_at: datetime, version: int | None) -> str:
    """A text that sorts, byte by byte, by time, then by the highest version of a leg.

    Without any version it comes before all that have one.
    """
    written = "" if version is None else str(version).zfill(_VERSION_DIGITS)
    return f"t{sortable(settled_at)}|{written}"


def stake_of(amount: Amount) -> Decimal:
    """The stake in major units of its currency, exactly."""
    return Decimal(amount.value).scaleb(-_digits(amount), EXACT)


_OUTCOMES = {
    Result.NONE: None,
    Result.WIN: Outcome.WON,
    Result.LOSE: Outcome.LOST,
    Result.REFUND: Outcome.REFUNDED,
    Result.HALF_WIN: Outcome.HALF_WON,
    Result.HALF_LOSE: Outcome.HALF_LOST,
    Result.CASH_OUT: Outcome.CASH_OUT,
    Result.PLACE_WIN: Outcome.PLACED,
}
_TYPES = {kind: kind.name.lower() for kind in SelectionType}
_CURRENCY = re.compile(CURRENCY)
_NO_LEG = Leg(leg_number=0)
_NO_EVENT, _NO_MARKET, _NO_EACH_WAY_PRICE = Event(), Market(), EachWayPrice()


def _status(bet: Bet) -> Status:
    if bet.is_rejected:
        return Status.REJECTED
    if bet.is_cancelled:
        return Status.CANCELLED
    if bet.bet_settlement is Result.NONE:
        return Status.OPEN
    return Status.VOID if bet.bet_settlement is Result.REFUND else Status.SETTLED


def _returned(bet: Bet, status: Status, terms: Terms) -> tuple[Decimal | None, Decimal | None]:
    """Everything that was returned to the player, and the part of it that returns stake."""
    if status is Status.OPEN:
        return None, None
    if bet.payout is None:
        if status in (Status.SETTLED, Status.VOID) or bet.partial_refund:
            raise RecordRejected("missing_field", "`payout` is missing")
        return None, None
    if bet.amount is None:
        if bet.payout or bet.partial_refund:
            raise RecordRejected("currency_missing", "something was paid, but `amount` is missing")
        # Nothing of no currency.
        return None, None
    payout = _in_major_units(bet.payout, "payout", bet.amount, terms)
    if bet.partial_refund is None:
        refund = None
    else:
        refund = _in_major_units(bet.partial_refund, "partialRefund", bet.amount, terms)
    if refund and not _contains_refund(terms):
        payout = EXACT.add(payout, refund)
    # A bet that is refunded as a whole is refunded with all that was returned.
    return payout, payout if bet.bet_settlement is Result.REFUND else refund


def _contains_refund(terms: Terms) -> bool:
    if terms.payout_contains_refund is None:
        raise RecordRejected(
            "partial_refund_undecided",
            "whether `payout` contains `partialRefund` is not decided: set "
            "SETTLEMENTS_ODDS88_PAYOUT_CONTAINS_PARTIAL_REFUND",
        )
    return terms.payout_contains_refund


def _in_major_units(number: Number, name: str, amount: Amount, terms: Terms) -> Decimal:
    exact, digits = _exact(number, name), _digits(amount)
    # Of nothing, and of a currency without smaller units, both readings are the same.
    if terms.payout_unit == "major" or not exact or not digits:
        return exact
    if terms.payout_unit == "minor":
        return exact.scaleb(-digits, EXACT)
    raise RecordRejected(
        "payout_unit_undecided",
        f"the unit of `{name}` is not decided: set SETTLEMENTS_ODDS88_PAYOUT_UNIT",
    )


def _currency(amount: Amount) -> str:
    """Its ticker: EUR, USDT, mBTC.  Written in two ways, one currency would be two in every sum."""
    if not _CURRENCY.fullmatch(amount.currency):
        raise RecordRejected(
            "currency_unusable",
            f"`amount.currency` is {shown(amount.currency)}, which is not written as EUR, USDT or "
            "mBTC are",
        )
    return amount.currency


def _digits(amount: Amount) -> int:
    if not 0 <= amount.precision <= DIGITS_BEHIND_POINT:
        raise RecordRejected("number_unusable", f"`amount.precision` is {amount.precision}")
    return amount.precision


def _exact(number: Number, name: str) -> Decimal:
    """The number as it is, if it is of a size that amounts and odds can have."""
    if number.exact is None:
        raise RecordRejected("number_unusable", f"`{name}` is {shown(str(number))}")
    return number.exact


def _exact_or_none(number: Number | None, name: str) -> Decimal | None:
    return None if number is None else number.exact or _exact(number, name)


def _highest_version(bet: Bet) -> int | None:
    settlements = [selection.settlement for selection in bet.selections or ()]
    return max([told.settlement_version for told in settlements if told], default=None)


def _is_resettlement(selections: Sequence[Selection], terms: Terms) -> bool:
    """Whether the bet says that it was settled before: one of its legs may have been, while those
    beside it kept the bet open, so only a leg that is alone speaks for its bet.
    """
    told = selections[0].settlement if len(selections) == 1 else None
    return told is not None and told.settlement_version > terms.first_version


def _legs(selections: Sequence[Selection]) -> tuple[Leg, ...]:
    """The selections and, behind each, what it is built of."""
    _check_number("selections", selections)
    legs = []
    for number, selection in enumerate(selections, start=1):
        legs.append(_leg(number, selection))
        if items := selection.bet_builder_items:
            _check_number("selections[].betBuilderItems", items)
            legs += [_part(number, part, item) for part, item in enumerate(items, start=1)]
    return tuple(legs)


def _check_number(name: str, several: Sequence[object]) -> None:
    if len(several) > _LEGS_LIMIT:
        raise RecordRejected(
            "too_many_legs", f"`{name}` holds {len(several)}, more than {_LEGS_LIMIT}"
        )


def _leg(number: int, selection: Selection) -> Leg:
    event, market = selection.event or _NO_EVENT, selection.market or _NO_MARKET
    told, each_way = selection.settlement, selection.each_way_price or _NO_EACH_WAY_PRICE
    return Leg(
        leg_number=number,
        type=None if selection.type is None else _TYPES[selection.type],
        event_id=_id(event.id),
        market_id=_id(market.id),
        selection_id=_id(selection.selection_id),
        outcome=_OUTCOMES[told.settlement_result] if told else None,
        price=_exact_or_none(selection.price, "selections[].price"),
        settled_at=_leg_settled_at(told),
        settlement_version=told.settlement_version if told else None,
        selection_version=selection.version,
        competition_id=_id(selection.competition_id),
        country_id=_id(selection.country_id),
        sport_id=_id(selection.sport_id),
        event_name=event.name,
        event_starts_at=_told_at_or_none(event.start_time, "selections[].event.startTime"),
        is_live=event.is_live,
        market_type_id=_id(market.type),
        market_name=market.name,
        market_properties=market.properties,
        parameters=selection.parameters,
        win_price=_exact_or_none(each_way.win, "selections[].eachWayPrice.win"),
        place_price=_exact_or_none(each_way.place, "selections[].eachWayPrice.place"),
        dead_heat_factor=_exact_or_none(selection.dead_heat_factor, "selections[].deadHeatFactor"),
        place_dead_heat_factor=_exact_or_none(
            selection.place_dead_heat_factor, "selections[].placeDeadHeatFactor"
        ),
        manual_price=_exact_or_none(selection.manual_price, "selections[].manualPrice"),
        alternative_price=_exact_or_none(
            selection.alternative_price, "selections[].alternativePrice"
        ),
        limits_rating_id=_id(selection.limits_rating_id),
        limits_factor=_exact_or_none(selection.limits_factor, "selections[].limitsFactor"),
        has_line_deviation=selection.has_line_deviation,
        is_outright=selection.is_outright,
    )


def _part(leg_number: int, part_number: int, item: BuilderItem) -> Leg:
    market, told = item.market or _NO_MARKET, item.settlement
    return Leg(
        leg_number=leg_number,
        part_number=part_number,
        market_id=_id(market.id),
        selection_id=_id(item.selection_id),
        outcome=_OUTCOMES[told.settlement_result] if told else None,
        settled_at=_leg_settled_at(told),
        settlement_version=told.settlement_version if told else None,
        market_type_id=_id(market.type),
        market_name=market.name,
        market_properties=market.properties,
    )


def _leg_settled_at(told: LegSettlement | None) -> datetime | None:
    return _told_at_or_none(told.settlement_time, "settlement.settlementTime") if told else None


def _id(number: int | None) -> str | None:
    return None if number is None else str(number)


def _told_at(moment: datetime, name: str) -> datetime:
    told = in_utc(moment)
    if told is None:
        raise RecordRejected("time_unreadable", f"`{name}` is outside of the calendar")
    return told


def _told_at_or_none(moment: datetime | None, name: str) -> datetime | None:
    return moment if moment is None or moment.tzinfo is UTC else _told_at(moment, name)


def _check_texts(bet: Bet) -> None:
    _check_text(bet.bet_id, "betId")
    if bet.amount:
        _check_text(bet.amount.currency, "amount.currency")
    for selection in bet.selections or ():
        if selection.event:
            _check_text(selection.event.name, "selections[].event.name")
        _check_market(selection.market, "selections[].market")
        _check_all(selection.parameters, "selections[].parameters")
        for item in selection.bet_builder_items or ():
            _check_market(item.market, "selections[].betBuilderItems[].market")


def _check_market(market: Market | None, name: str) -> None:
    if market:
        _check_text(market.name, f"{name}.name")
        _check_all(market.properties, f"{name}.properties")


def _check_all(texts: dict[str, str] | None, name: str) -> None:
    for text in chain.from_iterable((texts or {}).items()):
        _check_text(text, name)


def _check_text(text: str | None, name: str) -> None:
    if text is not None and not is_storable(text):
        raise RecordRejected("text_unstorable", f"`{name}` holds a null character")


def _rejection(error: msgspec.ValidationError) -> RecordRejected:
    """msgspec says what it expected, what it got and where; it quotes nothing but numbers."""
    told = str(error)
    if told.startswith("Object missing required field"):
        return RecordRejected("missing_field", told)
    if told.startswith("Invalid enum value"):
        return RecordRejected("unknown_value", told)
    if told.startswith(("Invalid RFC3339", "Expected `datetime` with a timezone")):
        return RecordRejected("time_unreadable", told)
    if " of length " in told and told.endswith(("`$.betId`", "`$.amount.currency`")):
        return RecordRejected("id_unusable", told)
    return RecordRejected("wrong_type", told)
