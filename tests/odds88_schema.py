"""Messages of odds88 made from the document's own schema, and a second reading of each bet."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from include.providers.odds88 import Terms

# As it stands there.
_PREFIX = "Marlin.SportsbetApi.Models.Settlement."
_DOCUMENT = Path(__file__).parent / "providers" / "odds88" / "schema.json"
SCHEMAS: dict[str, Any] = {
    name.removeprefix(_PREFIX): schema
    for name, schema in json.loads(_DOCUMENT.read_text())["components"]["schemas"].items()
}
MESSAGE = "SettlementFeedMessageDto"


def reference_in(schema: dict[str, Any]) -> str | None:
    """The schema that another one refers to."""
    reference = schema.get("$ref") or schema.get("allOf", [{}])[0].get("$ref", "")
    return reference.rpartition("/")[2].removeprefix(_PREFIX) or None


# What the schema allows.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def mostly(common: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Common but for one time in fifty: an object has many values, and each can be odd."""
    return st.integers(0, 49).flatmap(lambda number: rare if number == 49 else common)


_common_numbers = st.decimals(0, 1000, places=2).map(float)
_aware_times = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3))]))
_SCALARS: dict[tuple[str, str | None], st.SearchStrategy[Any]] = {
    ("boolean", None): st.booleans(),
    ("string", None): mostly(st.just("B1"), texts),
    ("string", "date-time"): _aware_times.map(datetime.isoformat),
    ("integer", "int32"): mostly(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1)),
    ("integer", "int64"): mostly(st.integers(0, 9999), st.integers(-(2**63), 2**63 - 1)),
    ("number", "double"): mostly(_common_numbers, st.floats(allow_nan=False, allow_infinity=False)),
}


@functools.cache
def values_of(name: str) -> st.SearchStrategy[Any]:
    """Any value of the named schema; most objects have most of their properties."""
    schema = SCHEMAS[name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    properties = {key: _property_values(inner) for key, inner in schema["properties"].items()}
    dropped = mostly(st.just(set[str]()), st.sets(st.sampled_from(sorted(properties)), max_size=2))
    return st.builds(
        lambda fields, without: {k: v for k, v in fields.items() if k not in without},
        st.fixed_dictionaries(properties),
        dropped,
    )


def _property_values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    inner = reference_in(schema)
    if inner is not None:
        values = values_of(inner)
    elif schema["type"] == "array":
        values = st.lists(_property_values(schema["items"]), max_size=3)
    elif schema["type"] == "object":
        values = st.dictionaries(
            texts, _property_values(schema["additionalProperties"]), max_size=2
        )
    else:
        values = _SCALARS[schema["type"], schema.get("format")]
    return mostly(values, st.none()) if schema.get("nullable") else values


messages = values_of(MESSAGE)
terms = st.builds(
    Terms,
    payout_unit=st.sampled_from(["major", "minor", None]),
    payout_contains_refund=st.sampled_from([True, False, None]),
    first_version=st.integers(0, 2),
)


# What a bet that the schema allows means.

_RESULTS = (None, "won", "lost", "refunded", "half_won", "half_lost", "cash_out", "placed")
_TYPES = (
    None, "standard", "starting_price", "tote_exotics", "fixed_exotics", "bet_builder", "pickem",
    "each_way",
)  # fmt: skip


def exact(value: Any) -> Fraction:
    """A number as it is written."""
    return Fraction(Decimal(repr(value)))


def _is_usable(value: Any) -> bool:
    return abs(exact(value)) < 10**20 and (exact(value) * 10**30).denominator == 1


def _is_ticker(name: str) -> bool:
    without_prefix = name[1:] if "a" <= name[:1] <= "z" else name
    digits_and_capitals = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return 2 <= len(without_prefix) <= 12 and set(without_prefix) <= set(digits_and_capitals)


def _is_far(moment: str) -> bool:
    try:
        datetime.fromisoformat(moment).astimezone(UTC)
    except OverflowError:
        return True
    return False


# Every column of a leg: how its value is read, and where it stands. A leg's parts have the second.
_ALONE = {
    "type": (_TYPES.__getitem__, "type"),
    "event_id": (str, "event.id"),
    "event_name": (str, "event.name"),
    "event_starts_at": (datetime.fromisoformat, "event.startTime"),
    "is_live": (bool, "event.isLive"),
    "price": (exact, "price"),
    "selection_version": (int, "version"),
    "competition_id": (str, "competitionId"),
    "country_id": (str, "countryId"),
    "sport_id": (str, "sportId"),
    "parameters": (dict, "parameters"),
    "win_price": (exact, "eachWayPrice.win"),
    "place_price": (exact, "eachWayPrice.place"),
    "dead_heat_factor": (exact, "deadHeatFactor"),
    "place_dead_heat_factor": (exact, "placeDeadHeatFactor"),
    "manual_price": (exact, "manualPrice"),
    "alternative_price": (exact, "alternativePrice"),
    "limits_rating_id": (str, "limitsRatingId"),
    "limits_factor": (exact, "limitsFactor"),
    "has_line_deviation": (bool, "hasLineDeviation"),
    "is_outright": (bool, "isOutright"),
}
_SHARED = {
    "market_id": (str, "market.id"),
    "market_type_id": (str, "market.type"),
    "market_name": (str, "market.name"),
    "market_properties": (dict, "market.properties"),
    "selection_id": (str, "selectionId"),
    "outcome": (_RESULTS.__getitem__, "settlement.settlementResult"),
    "settled_at": (datetime.fromisoformat, "settlement.settlementTime"),
    "settlement_version": (int, "settlement.settlementVersion"),
}
LEG_VALUES = {"leg_number", "part_number", *_ALONE, *_SHARED}


class Reading:
    """A bet that the schema allows: the rules that it breaks, or its money and its legs."""

    def __init__(self, bet: dict[str, Any], terms: Terms) -> None:
        self.bet, self.terms = bet, terms
        self.rules: set[str] = set()
        self.stake = self.payout = self.refund = None
        required = {"betId", "betSettlement", "isCancelled", "isRejected", "settlementTime"}
        if not required <= bet.keys():
            self.rules.add("missing_field")
        self._read_texts()
        selections = bet.get("selections") or []
        self.versions = [
            (one.get("settlement") or {}).get("settlementVersion", -1) for one in selections
        ]
        self.legs = list(self._read_legs(selections))
        self.factors = [
            self._number(bet, "payoutMultiplier"),
            *(
                self._number(bet.get("amount") or {}, f"{name}ExchangeRate")
                for name in ("placement", "settlement")
            ),
        ]
        self._read_money()

    @property
    def status(self) -> str:
        """The canonical word."""
        if self.bet["isRejected"]:
            return "rejected"
        if self.bet["isCancelled"]:
            return "cancelled"
        return {0: "open", 3: "void"}.get(self.bet["betSettlement"], "settled")

    def _read_texts(self) -> None:
        amount = self.bet.get("amount")
        names = [self.bet.get("betId", "b1")]
        if amount is not None:
            if not {"currency", "value", "precision"} <= amount.keys():
                self.rules.add("missing_field")
            names.append(amount.get("currency", "EUR"))
            if not _is_ticker(amount.get("currency", "EUR") or ""):
                self.rules.add("currency_unusable")
        for name in names:
            if name is None:
                self.rules.add("wrong_type")
            elif name == "":
                self.rules.add("id_unusable")
            elif "\0" in name:
                self.rules.add("text_unstorable")
        if _is_far(self.bet.get("settlementTime", "2026-05-10T18:32:14+00:00")):
            self.rules.add("time_unreadable")

    def _number(self, value: dict[str, Any], name: str) -> Fraction | None:
        number = value.get(name)
        if number is None:
            return None
        if not _is_usable(number):
            self.rules.add("number_unusable")
        return exact(number)

    def _read_legs(self, selections: list[Any]) -> Iterator[dict[str, Any]]:
        for number, leg in enumerate(selections, start=1):
            yield {"leg_number": number, "part_number": 0} | self._read(leg, _ALONE | _SHARED)
            for part_number, part in enumerate(leg.get("betBuilderItems") or [], start=1):
                place = {"leg_number": number, "part_number": part_number}
                yield place | self._read(part, _SHARED)

    def _read(self, value: dict[str, Any], places: dict[str, Any]) -> dict[str, Any]:
        settlement = value.get("settlement")
        if settlement is not None:
            if not {"settlementResult", "settlementVersion"} <= settlement.keys():
                self.rules.add("missing_field")
            if settlement.get("settlementVersion", 0) < 0:
                self.rules.add("wrong_type")
        told = {}
        for column, (read, place) in places.items():
            *outer, name = place.split(".")
            holder = functools.reduce(lambda one, step: one.get(step) or {}, outer, value)
            if (inner := holder.get(name)) is None:
                continue
            if read is exact and not _is_usable(inner):
                self.rules.add("number_unusable")
            if read is datetime.fromisoformat and _is_far(inner):
                self.rules.add("time_unreadable")
            if "\0" in str(inner) or (
                isinstance(inner, dict) and "\0" in "".join((*inner.keys(), *inner.values()))
            ):
                self.rules.add("text_unstorable")
            told[column] = read(inner)
        # An open leg has a result, and no outcome.
        return {column: value for column, value in told.items() if value is not None}

    def _read_money(self) -> None:
        amount, payout = self.bet.get("amount"), self.bet.get("payout")
        partial = self.bet.get("partialRefund")
        if amount and not 0 <= amount.get("precision", 0) <= 30:
            self.rules.add("number_unusable")
        if self.rules:
            # What it breaks is told; the amounts need not make sense any more.
            self.rules |= {"missing_field", "currency_missing", "number_unusable"}
            self.rules |= {"payout_unit_undecided", "partial_refund_undecided"}
            return
        if amount:
            self.stake = Fraction(amount["value"], 10 ** amount["precision"])
        if self.status == "open":
            return
        if payout is None:
            if self.status in ("settled", "void") or partial:
                self.rules.add("missing_field")
        elif amount is None:
            if payout or partial:
                self.rules.add("currency_missing")
        else:
            self._read_payout(payout, partial, amount["precision"])

    def _read_payout(self, payout: Any, partial: Any, precision: int) -> None:
        told = [value for value in (payout, partial) if value is not None]
        if not all(map(_is_usable, told)):
            self.rules.add("number_unusable")
        if self.terms.payout_unit is None and precision and any(told):
            self.rules.add("payout_unit_undecided")
        if self.terms.payout_contains_refund is None and partial:
            self.rules.add("partial_refund_undecided")
        scale = 10**precision if self.terms.payout_unit == "minor" else 1
        self.payout = exact(payout) / scale
        self.refund = None if partial is None else exact(partial) / scale
        if self.refund and not self.terms.payout_contains_refund:
            self.payout += self.refund
        if self.bet["betSettlement"] == 3:
            self.refund = self.payout
