"""The settlement feed of odds88: logging in, taking messages apart, and what each bet becomes."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from pydantic import ValidationError

from include.model import Leg, Outcome, Record, RecordContext, Settlement, Status
from include.providers import odds88
from include.providers.errors import Fatal, RecordRejected, Retriable
from include.providers.http import Client
from include.providers.odds88 import (
    Bet,
    BrokenMessage,
    PageEntry,
    Ping,
    Terms,
    Token,
    join_messages,
    normalize,
    order_of,
    read_bet,
    read_message,
    read_page,
)
from include.settings import Settings
from tests.odds88_schema import (
    LEG_VALUES,
    MESSAGE,
    SCHEMAS,
    Reading,
    json_values,
    messages,
    reference_in,
)
from tests.odds88_schema import terms as decided_terms

CONTEXT = RecordContext(received_at=datetime(2026, 5, 10, 19, tzinfo=UTC))
FOLDER = Path(__file__).parent / "odds88"
GOLDEN = sorted(path.parent for path in FOLDER.glob("*/payload.json"))
MAJOR = Terms(payout_unit="major", payout_contains_refund=True)
MINOR = Terms(payout_unit="minor", payout_contains_refund=True)
# Messages are large: a busy machine may take long to make one.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
RULES = {
    "currency_missing", "currency_unusable", "id_unusable", "missing_field", "number_unusable",
    "partial_refund_undecided", "payout_unit_undecided", "text_unstorable", "time_unreadable",
    "too_many_legs", "undecodable", "unknown_value", "wrong_type",
}  # fmt: skip

OBJECTS = {
    "SettledBetViewModelV3": odds88.Bet,
    "SettledBetItemViewModel": odds88.Selection,
    "EventInfoViewModel": odds88.Event,
    "MarketViewModel": odds88.Market,
    "SettlementInfoViewModel": odds88.LegSettlement,
    "EachWayPriceModel": odds88.EachWayPrice,
    "SettledBetBuilderItemViewModel": odds88.BuilderItem,
    "BetAmountViewModel": odds88.Amount,
}

SETTLED = {
    "settlementResult": 1,
    "settlementTime": "2026-05-10T18:30:00Z",
    "settlementVersion": 1,
}
MARKET = {"id": 77, "type": 12, "name": "Winner", "properties": {"period": "1"}}
SELECTION: dict[str, Any] = {
    "event": {"id": 51, "name": "A – B", "isLive": True, "startTime": "2026-05-10T16:30:00Z"},
    "market": MARKET,
    "selectionId": 88,
    "competitionId": 3,
    "countryId": 4,
    "sportId": 1,
    "settlement": SETTLED,
    "price": 1.85,
    "eachWayPrice": {"win": 11.0, "place": 3.5},
    "limitsRatingId": 7,
    "limitsFactor": 0.75,
    "hasLineDeviation": True,
    "isOutright": False,
    "version": 2,
    "deadHeatFactor": 0.5,
    "placeDeadHeatFactor": 0.3333333333333333,
    "parameters": {"score": "1:0"},
    "manualPrice": 1.8,
    "alternativePrice": 1.9,
    "type": 7,
    "betBuilderItems": [{"market": MARKET, "selectionId": 89, "settlement": SETTLED}],
}
AMOUNT = {
    "currency": "EUR",
    "value": 1000,
    "precision": 2,
    "placementExchangeRate": 1.25,
    "settlementExchangeRate": 1.2,
}
BET: dict[str, Any] = {
    "betId": "b1",
    "betSettlement": 1,
    "payoutMultiplier": 1.85,
    "isCancelled": False,
    "selections": [SELECTION],
    "isRejected": False,
    "settlementTime": "2026-05-10T18:32:14.1234567Z",
    "payout": 18.5,
    "partialRefund": 0.0,
    "amount": AMOUNT,
}


def text_of(**changes: Any) -> bytes:
    return json.dumps(BET | changes).encode()


def message_of(bet: Any, **more: Any) -> bytes:
    return json.dumps({"pingId": None, "data": bet} | more).encode()


def normalized(terms: Terms = MAJOR, **changes: Any) -> Settlement:
    return normalize(text_of(**changes), CONTEXT, terms)


def rule_of(record: bytes, terms: Terms = MAJOR) -> str:
    with pytest.raises(RecordRejected) as caught:
        normalize(record, CONTEXT, terms)
    assert caught.value.rule in RULES
    assert caught.value.reason.isascii()
    assert 0 < len(caught.value.reason) < 300
    return caught.value.rule


def entry_of(body: bytes) -> PageEntry:
    content = read_message(body).content
    assert isinstance(content, PageEntry)
    return content


def cut(body: bytes, record: Record) -> bytes:
    return body[record.byte_start :][: record.byte_length]


def with_value(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The bet with one value, wherever it stands, replaced."""
    bet: Any = json.loads(json.dumps(BET))
    inner = functools.reduce(lambda outer, step: outer[step], path[:-1], bet)
    inner[path[-1]] = value
    return bet


# Golden pairs


def test_there_are_golden_pairs() -> None:
    assert len(GOLDEN) >= 10


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_payload_becomes_what_is_expected(folder: Path) -> None:
    body = (folder / "payload.json").read_bytes()
    message, entry = read_message(body), entry_of(body)
    settlement = normalize(cut(body, entry.record), CONTEXT, MAJOR)
    assert json.loads((folder / "expected.json").read_bytes()) == {
        "record_key": entry.record.record_key,
        "unknown_fields": sorted(message.unknown_fields),
        "settlement": told_in(json.loads(msgspec.json.encode(settlement))),
    }


def told_in(settlement: dict[str, Any]) -> dict[str, Any]:
    """What a settlement and its legs say, without what they leave out."""
    legs = [{n: v for n, v in leg.items() if v is not None} for leg in settlement["legs"]]
    return {n: v for n, v in settlement.items() if v is not None} | {"legs": legs}


# The document's schema, field by field


@pytest.mark.parametrize("name", OBJECTS)
def test_every_field_of_the_document_is_typed_and_no_other(name: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(OBJECTS[name])}
    assert fields == SCHEMAS[name]["properties"].keys()


def test_every_object_and_number_of_the_document_is_known() -> None:
    named = {"SettlementResult": odds88.Result, "BetItemType": odds88.SelectionType}
    for name, words in named.items():
        assert [word.value for word in words] == SCHEMAS[name]["enum"]
        for word in words:
            written = word.name.title().replace("_", "")
            assert f"`{word.value}` - {written}" in SCHEMAS[name]["description"]
    assert SCHEMAS.keys() == {MESSAGE} | OBJECTS.keys() | named.keys()


def test_every_value_is_read_as_it_is_written() -> None:
    settlement = odds88.LegSettlement(
        settlement_result=odds88.Result.WIN,
        settlement_time=datetime(2026, 5, 10, 18, 30, tzinfo=UTC),
        settlement_version=1,
    )
    market = odds88.Market(id=77, type=12, name="Winner", properties={"period": "1"})
    number = odds88.Number
    selection = odds88.Selection(
        event=odds88.Event(
            id=51,
            name="A – B",
            is_live=True,
            start_time=datetime(2026, 5, 10, 16, 30, tzinfo=UTC),
        ),
        market=market,
        selection_id=88,
        competition_id=3,
        country_id=4,
        sport_id=1,
        settlement=settlement,
        price=number("1.85"),
        each_way_price=odds88.EachWayPrice(win=number("11.0"), place=number("3.5")),
        limits_rating_id=7,
        limits_factor=number("0.75"),
        has_line_deviation=True,
        is_outright=False,
        version=2,
        dead_heat_factor=number("0.5"),
        place_dead_heat_factor=number("0.3333333333333333"),
        parameters={"score": "1:0"},
        manual_price=number("1.8"),
        alternative_price=number("1.9"),
        type=odds88.SelectionType.EACH_WAY,
        bet_builder_items=[
            odds88.BuilderItem(market=market, selection_id=89, settlement=settlement)
        ],
    )
    assert read_bet(text_of()) == Bet(
        bet_id="b1",
        bet_settlement=odds88.Result.WIN,
        payout_multiplier=number("1.85"),
        is_cancelled=False,
        selections=[selection],
        is_rejected=False,
        settlement_time=datetime(2026, 5, 10, 18, 32, 14, 123457, tzinfo=UTC),
        payout=number("18.5"),
        partial_refund=number("0.0"),
        amount=odds88.Amount(
            currency="EUR",
            value=1000,
            precision=2,
            placement_exchange_rate=number("1.25"),
            settlement_exchange_rate=number("1.2"),
        ),
    )


def test_a_bet_with_unknown_fields_is_read_as_without_them() -> None:
    strange = with_value(("selections", 0, "event", "venue"), {"id": 10**400, "x": [[["\0"]]]})
    assert read_bet(json.dumps(strange | {"odds": 1}).encode()) == read_bet(text_of())


@pytest.mark.parametrize(
    "written",
    ["0.1", "0.30000000000000004", "1.10", "123456789012.12345678", "7", "1e2", "-3.5", "1E-8"],
)
def test_a_number_keeps_every_digit(written: str) -> None:
    record = text_of().replace(b'"payout": 18.5', f'"payout": {written}'.encode())
    settlement = normalize(record, CONTEXT, MAJOR)
    assert settlement.payout == Decimal(written)
    assert type(settlement.payout) is Decimal
    leg = text_of().replace(b'"price": 1.85', f'"price": {written}'.encode())
    assert normalize(leg, CONTEXT, MAJOR).legs[0].price == Decimal(written)


def test_a_number_is_told_as_it_was_written_however_it_was_written_before() -> None:
    long = "1." + "0" * 29
    for written in ("1.5", "1.50", "15e-1", "1.5", long):
        leg = text_of().replace(b'"price": 1.85', f'"price": {written}'.encode())
        assert str(normalize(leg, CONTEXT, MAJOR).legs[0].price) == str(Decimal(written))
    nothing = text_of().replace(b'"price": 1.85', b'"price": -0.00')
    assert str(normalize(nothing, CONTEXT, MAJOR).legs[0].price) == "0"


def paths_in(name: str, steps: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every place of the bet above where a property of the schema stands, and its schema."""
    for field, schema in SCHEMAS[name]["properties"].items():
        yield (*steps, field), schema
        inner = reference_in(schema) or reference_in(schema.get("items", {}))
        if inner in OBJECTS:
            place = (*steps, field, 0) if schema.get("type") == "array" else (*steps, field)
            yield from paths_in(inner, place)


PATHS = dict(paths_in("SettledBetViewModelV3"))


def test_the_bet_above_has_every_field() -> None:
    assert len(PATHS) == 59
    for path in PATHS:
        assert with_value(path, None) != BET


WRONG: dict[str, list[Any]] = {
    "string": [7, True, {"x": 1}, [7]],
    "boolean": [0, 1.0, "true", {"x": 1}, [7]],
    "integer": [7.0, "7", True, {"x": 1}, [7]],
    "number": ["12.5", "NaN", True, {"x": 1}, [7]],
    "array": [7, "x", {"x": 1}, [7], [[]]],
    "object": [7, "x", {"x": 1}, [7]],
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_a_value_of_the_wrong_type_is_rejected_wherever_it_stands(path: tuple[Any, ...]) -> None:
    schema = PATHS[path]
    inner = reference_in(schema)
    wrong = WRONG[schema["type"] if inner is None else SCHEMAS[inner]["type"]]
    for value in wrong:
        if inner in OBJECTS and isinstance(value, dict):
            # An object of unknown fields alone is one that lacks all others.
            continue
        assert rule_of(json.dumps(with_value(path, value)).encode()) == "wrong_type", value


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_null_is_rejected_where_it_decides_and_nowhere_else(path: tuple[Any, ...]) -> None:
    record = json.dumps(with_value(path, None)).encode()
    decides = {
        "betId", "betSettlement", "isCancelled", "isRejected", "settlementTime", "payout", "amount",
        "currency", "value", "precision", "settlementResult", "settlementVersion",
    }  # fmt: skip
    is_legs_time = path[-1] == "settlementTime" and len(path) > 1
    if path[-1] in decides and not is_legs_time:
        assert rule_of(record) in {"wrong_type", "missing_field", "currency_missing"}
    else:
        assert normalize(record, CONTEXT, MAJOR).source_key == "b1"


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path[-1] in {"betSettlement", "settlementResult", "type"}]
)
def test_a_number_that_the_document_does_not_have_is_never_guessed(path: tuple[Any, ...]) -> None:
    if reference_in(PATHS[path]) is None:
        # The type of a market is any id.
        assert normalize(json.dumps(with_value(path, 8)).encode(), CONTEXT, MAJOR)
        return
    for value in (8, -1, 2**40):
        assert rule_of(json.dumps(with_value(path, value)).encode()) == "unknown_value"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"betId": ""}, "id_unusable"),
        ({"betId": "x" * 129}, "id_unusable"),
        ({"betId": "a\0"}, "text_unstorable"),
        ({"amount": AMOUNT | {"currency": ""}}, "id_unusable"),
        ({"amount": AMOUNT | {"currency": "x" * 129}}, "id_unusable"),
        ({"amount": AMOUNT | {"currency": "E\0"}}, "text_unstorable"),
        *(
            ({"amount": AMOUNT | {"currency": other}}, "currency_unusable")
            for other in ("eur", " EUR", "EUR ", "Eur", "EUR\n", "\u20ac", "E", "EUR" * 5)
        ),
        ({"amount": AMOUNT | {"precision": -1}}, "number_unusable"),
        ({"amount": AMOUNT | {"precision": 31}}, "number_unusable"),
        ({"amount": AMOUNT | {"precision": 2**31}}, "wrong_type"),
        ({"amount": AMOUNT | {"value": 2**63}}, "wrong_type"),
        ({"amount": AMOUNT | {"value": 10.0}}, "wrong_type"),
        ({"amount": None}, "currency_missing"),
        ({"amount": None, "payout": 0, "partialRefund": 1}, "currency_missing"),
        ({"isRejected": True, "payout": None, "partialRefund": 1}, "missing_field"),
        ({"payout": "NaN"}, "wrong_type"),
        ({"payout": 1e300}, "number_unusable"),
        ({"payout": 1e20}, "number_unusable"),
        ({"payout": 5e-324}, "number_unusable"),
        ({"partialRefund": -1e300}, "number_unusable"),
        ({"payout": 10**30}, "number_unusable"),
        ({"selections": [SELECTION | {"price": 1e-31}]}, "number_unusable"),
        ({"selections": [SELECTION | {"settlement": {"settlementResult": 1}}]}, "missing_field"),
        ({"selections": [SELECTION | {"settlement": SETTLED | {"settlementVersion": -1}}]},
         "wrong_type"),
        ({"selections": [{}] * 1001}, "too_many_legs"),
        ({"selections": [{"betBuilderItems": [{}] * 1001}]}, "too_many_legs"),
        *(
            (with_value(("selections", 0, *path), "\0"), "text_unstorable")
            for path in (
                ("event", "name"),
                ("market", "name"),
                ("market", "properties", "period"),
                ("parameters", "score"),
                ("betBuilderItems", 0, "market", "name"),
                ("betBuilderItems", 0, "market", "properties", "period"),
            )
        ),
        ({"selections": [SELECTION | {"parameters": {"\0": "x"}}]}, "text_unstorable"),
        *(
            (with_value(path, 1e-31), "number_unusable")
            for path in (
                ("payoutMultiplier",),
                ("amount", "placementExchangeRate"),
                ("amount", "settlementExchangeRate"),
                ("selections", 0, "eachWayPrice", "win"),
                ("selections", 0, "eachWayPrice", "place"),
                *(
                    ("selections", 0, name)
                    for name in (
                        "deadHeatFactor", "placeDeadHeatFactor", "manualPrice",
                        "alternativePrice", "limitsFactor",
                    )
                ),
            )
        ),
        *(
            (with_value(path, "9999-12-31T23:59:59-23:00"), "time_unreadable")
            for path in (
                ("selections", 0, "event", "startTime"),
                ("selections", 0, "settlement", "settlementTime"),
                ("selections", 0, "betBuilderItems", 0, "settlement", "settlementTime"),
            )
        ),
        ({"selections": [None]}, "wrong_type"),
        ({"settlementTime": "2026-05-10T18:32:14"}, "time_unreadable"),
        ({"settlementTime": "10 May 2026"}, "time_unreadable"),
        ({"settlementTime": "2026-02-30T00:00:00Z"}, "time_unreadable"),
        ({"settlementTime": "9999-12-31T23:59:59-23:00"}, "time_unreadable"),
        ({"settlementTime": "9999-12-31T23:59:59.9999999Z"}, "time_unreadable"),
        ({"settlementTime": 1778437934}, "wrong_type"),
    ],
)  # fmt: skip
def test_what_cannot_be_trusted_is_rejected(changes: dict[str, Any], rule: str) -> None:
    assert rule_of(text_of(**changes)) == rule


@pytest.mark.parametrize(
    "name", ["betId", "betSettlement", "isCancelled", "isRejected", "settlementTime", "payout"]
)
def test_what_decides_must_be_there(name: str) -> None:
    bet = {other: value for other, value in BET.items() if other != name}
    with pytest.raises(RecordRejected, match=rf"missing_field: .*`{name}`"):
        normalize(json.dumps(bet).encode(), CONTEXT, MAJOR)


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (b"", "undecodable"),
        (b'{"betId": 1', "undecodable"),
        (b'{"betId": "\xff"}', "undecodable"),
        (b'{"betId": "\\ud800"}', "undecodable"),
        (b'{"payout": ' + b"9" * 5000 + b"}", "undecodable"),
        (b'{"payout": 1e99999999999999999999}', "undecodable"),
        (b"[" * 200_000, "undecodable"),
        (b'{"a": ' * 100_000, "undecodable"),
        (b"[]", "wrong_type"),
        (b"7", "wrong_type"),
    ],
)
def test_a_record_that_is_no_bet_is_rejected(record: bytes, rule: str) -> None:
    assert rule_of(record) == rule


# What each word becomes


@pytest.mark.parametrize("is_rejected", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize(
    ("number", "status", "outcome"),
    [
        (0, Status.OPEN, None),
        (1, Status.SETTLED, Outcome.WON),
        (2, Status.SETTLED, Outcome.LOST),
        (3, Status.VOID, Outcome.REFUNDED),
        (4, Status.SETTLED, Outcome.HALF_WON),
        (5, Status.SETTLED, Outcome.HALF_LOST),
        (6, Status.SETTLED, Outcome.CASH_OUT),
        (7, Status.SETTLED, Outcome.PLACED),
    ],
)
def test_canonical_words(
    number: int, status: Status, outcome: Outcome | None, is_cancelled: bool, is_rejected: bool
) -> None:
    settlement = normalized(betSettlement=number, isCancelled=is_cancelled, isRejected=is_rejected)
    if is_rejected:
        status = Status.REJECTED
    elif is_cancelled:
        status = Status.CANCELLED
    assert (settlement.status, settlement.outcome) == (status, outcome)


# Money


@pytest.mark.parametrize(
    ("value", "precision", "stake"),
    [
        (1000, 2, "10.00"),
        (1, 8, "0.00000001"),
        (2**63 - 1, 0, "9223372036854775807"),
        (2**63 - 1, 18, "9.223372036854775807"),
        (-5, 2, "-0.05"),
        (0, 2, "0.00"),
        (1, 30, "0.000000000000000000000000000001"),
    ],
)
def test_the_stake_is_the_value_scaled_by_its_precision(
    value: int, precision: int, stake: str
) -> None:
    settlement = normalized(amount=AMOUNT | {"value": value, "precision": precision})
    assert settlement.stake == Decimal(stake)
    assert f"{settlement.stake:f}" == stake


def test_no_digit_depends_on_the_context_of_the_thread() -> None:
    with localcontext(prec=2):
        settlement = normalized(MINOR, payout=123456, partialRefund=0, betSettlement=3)
        assert odds88.stake_of(odds88.Amount(currency="EUR", value=123456, precision=2)) == Decimal(
            "1234.56"
        )
    assert settlement.payout == settlement.refund == Decimal("1234.56")


@pytest.mark.parametrize(
    ("unit", "precision", "written", "payout"),
    [
        ("major", 2, 18.5, "18.5"),
        ("minor", 2, 1850.0, "18.500"),
        ("minor", 2, 1850.5, "18.505"),
        ("minor", 8, 1, "1E-8"),
        ("minor", 0, 1850, "1850"),
        (None, 0, 1850, "1850"),
        (None, 2, 0.0, "0"),
        (None, 2, -0.0, "0"),
        ("major", 2, -18.5, "-18.5"),
    ],
)
def test_a_payout_counts_in_the_unit_that_was_decided(
    unit: Any, precision: int, written: float, payout: str
) -> None:
    amount = AMOUNT | {"precision": precision}
    settlement = normalized(Terms(payout_unit=unit), amount=amount, payout=written)
    assert str(settlement.payout) == payout


def test_a_payout_whose_unit_is_not_decided_is_held_back() -> None:
    with pytest.raises(RecordRejected, match="SETTLEMENTS_ODDS88_PAYOUT_UNIT"):
        normalize(text_of(), CONTEXT)
    assert rule_of(text_of(), Terms(payout_contains_refund=True)) == "payout_unit_undecided"


@pytest.mark.parametrize(
    ("contains", "payout", "refund"), [(True, "30.5", "2.5"), (False, "33.0", "2.5")]
)
def test_whether_the_payout_contains_the_partial_refund_was_decided(
    contains: bool, payout: str, refund: str
) -> None:
    terms = Terms(payout_unit="major", payout_contains_refund=contains)
    settlement = normalized(terms, payout=30.5, partialRefund=2.5)
    assert (str(settlement.payout), str(settlement.refund)) == (payout, refund)


def test_a_partial_refund_is_held_back_while_that_is_not_decided() -> None:
    terms = Terms(payout_unit="major")
    with pytest.raises(RecordRejected, match="ODDS88_PAYOUT_CONTAINS_PARTIAL_REFUND") as caught:
        normalize(text_of(partialRefund=2.5), CONTEXT, terms)
    assert caught.value.rule == "partial_refund_undecided"
    assert normalize(text_of(partialRefund=0.0), CONTEXT, terms).refund == 0
    assert normalize(text_of(partialRefund=None), CONTEXT, terms).refund is None


@pytest.mark.parametrize("contains", [True, False])
def test_what_is_refunded_as_a_whole_is_refund_alone(contains: bool) -> None:
    terms = Terms(payout_unit="major", payout_contains_refund=contains)
    settlement = normalized(terms, betSettlement=3, payout=10.0, partialRefund=2.5)
    assert settlement.refund == settlement.payout == Decimal("10.0" if contains else "12.5")


def test_what_is_open_has_a_stake_and_no_payout() -> None:
    settlement = normalize(text_of(betSettlement=0, payout=18.5, partialRefund=1), CONTEXT)
    assert (settlement.stake, settlement.payout, settlement.refund) == (10, None, None)


@pytest.mark.parametrize("flag", ["isRejected", "isCancelled"])
def test_what_was_never_played_may_tell_no_money(flag: str) -> None:
    told = {flag: True, "betSettlement": 0, "partialRefund": None}
    settlement = normalized(**told, payout=None)
    assert (settlement.currency, settlement.stake, settlement.payout) == ("EUR", 10, None)
    settlement = normalized(**told, payout=0.0, amount=None)
    assert (settlement.currency, settlement.stake, settlement.payout) == (None, None, None)


def test_the_settings_say_what_the_document_leaves_open() -> None:
    assert odds88.terms_of(Settings()) == odds88.UNDECIDED == Terms(None, None, 1)
    settings = Settings(
        odds88_payout_unit="minor",
        odds88_payout_contains_partial_refund=False,
        odds88_first_settlement_version=0,
    )
    assert odds88.terms_of(settings) == Terms("minor", False, 0)


# Legs, versions and order


def leg_of(**changes: Any) -> dict[str, Any]:
    return SELECTION | changes


def versions(*numbers: int | None) -> list[dict[str, Any]]:
    return [
        leg_of(settlement=None if n is None else SETTLED | {"settlementVersion": n})
        for n in numbers
    ]


def test_every_selection_is_a_leg_in_its_order() -> None:
    bare = {"price": None, "settlement": None, "event": None, "market": None, "selectionId": None}
    lost = SETTLED | {"settlementResult": 2, "settlementTime": "2026-05-10T20:30:00+02:00"}
    selections = [SELECTION, leg_of(settlement=lost, selectionId=-(2**63)), leg_of(**bare)]
    moment = datetime(2026, 5, 10, 18, 30, tzinfo=UTC)
    settlement = normalized(selections=selections)
    legs = [leg for leg in settlement.legs if not leg.part_number]
    assert [(leg.leg_number, leg.selection_id, leg.outcome, leg.settled_at) for leg in legs] == [
        (1, "88", Outcome.WON, moment),
        (2, "-9223372036854775808", Outcome.LOST, moment),
        (3, None, None, None),
    ]
    assert legs[1].settled_at is not None
    assert legs[1].settled_at.tzinfo is UTC
    assert (settlement.event_id, settlement.market_id, settlement.selection_id) == (None,) * 3


def test_a_leg_says_all_that_its_selection_says() -> None:
    moment = datetime(2026, 5, 10, 18, 30, tzinfo=UTC)
    market = {
        "market_id": "77",
        "market_type_id": "12",
        "market_name": "Winner",
        "market_properties": {"period": "1"},
    }
    decided = {"outcome": Outcome.WON, "settled_at": moment, "settlement_version": 1}
    assert normalized().legs == (
        Leg(
            leg_number=1,
            part_number=0,
            type="each_way",
            event_id="51",
            event_name="A – B",
            event_starts_at=datetime(2026, 5, 10, 16, 30, tzinfo=UTC),
            is_live=True,
            selection_id="88",
            price=Decimal("1.85"),
            selection_version=2,
            competition_id="3",
            country_id="4",
            sport_id="1",
            parameters={"score": "1:0"},
            win_price=Decimal("11.0"),
            place_price=Decimal("3.5"),
            dead_heat_factor=Decimal("0.5"),
            place_dead_heat_factor=Decimal("0.3333333333333333"),
            manual_price=Decimal("1.8"),
            alternative_price=Decimal("1.9"),
            limits_rating_id="7",
            limits_factor=Decimal("0.75"),
            has_line_deviation=True,
            is_outright=False,
            **market,
            **decided,
        ),
        Leg(leg_number=1, part_number=1, selection_id="89", **market, **decided),
    )


def test_what_a_leg_is_built_of_stands_behind_it() -> None:
    item = {"selectionId": 1, "settlement": None, "market": None}
    built = leg_of(betBuilderItems=[item, item | {"selectionId": 2}])
    legs = normalized(selections=[built, leg_of(betBuilderItems=None), built]).legs
    assert [(leg.leg_number, leg.part_number) for leg in legs] == [
        (1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)
    ]  # fmt: skip
    assert [leg.selection_id for leg in legs if leg.part_number] == ["1", "2", "1", "2"]


def test_the_multiplier_and_both_rates_are_told_as_they_are() -> None:
    settlement = normalized()
    factors = (settlement.payout_multiplier, settlement.placement_rate, settlement.settlement_rate)
    assert factors == (Decimal("1.85"), Decimal("1.25"), Decimal("1.2"))
    untold = normalized(amount=None, payout=0, partialRefund=0, payoutMultiplier=None)
    assert (untold.payout_multiplier, untold.placement_rate, untold.settlement_rate) == (None,) * 3


def test_a_bet_on_one_selection_is_about_it() -> None:
    settlement = normalized()
    ids = (settlement.event_id, settlement.market_id, settlement.selection_id)
    assert ids == ("51", "77", "88")


@pytest.mark.parametrize("selections", [[], None])
def test_a_bet_may_tell_no_selections(selections: Any) -> None:
    settlement = normalized(selections=selections)
    assert settlement.legs == ()
    assert settlement.provider_order == "t2026-05-10T18:32:14.123457|"


@pytest.mark.parametrize(
    ("told", "order"),
    [((1,), 1), ((1, 3, 2), 3), ((None, 2), 2), ((0,), 0), ((2**31 - 1,), 2**31 - 1)],
)  # fmt: skip
def test_the_order_is_the_time_then_the_highest_version_of_a_leg(
    told: tuple[int | None, ...], order: int
) -> None:
    settlement = normalized(selections=versions(*told))
    assert settlement.provider_order == f"t2026-05-10T18:32:14.123457|{order:010}"


moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])).filter(
    lambda moment: 1 < moment.year < 9999
)
leg_versions = st.none() | st.integers(0, 2**31 - 1)


@given(moments, moments, leg_versions, leg_versions, st.booleans())
def test_orders_sort_as_bytes_by_time_then_by_version(
    left: datetime, right: datetime, one: int | None, other: int | None, is_same_time: bool
) -> None:
    if is_same_time:
        right = left
    orders = [order_of(left, one).encode(), order_of(right, other).encode()]
    keys = [(left, -1 if one is None else one), (right, -1 if other is None else other)]
    assert (orders[0] < orders[1]) == (keys[0] < keys[1])
    assert (orders[0] == orders[1]) == (keys[0] == keys[1])


@pytest.mark.parametrize(
    ("told", "first", "is_resettlement"),
    [((1,), 1, False), ((0,), 1, False), ((2,), 1, True), ((1,), 0, True), ((0,), 0, False),
     ((None,), 0, False), ((1, 2), 1, False), ((2, 1), 1, False), ((), 0, False)],
)  # fmt: skip
def test_a_version_above_the_first_is_a_resettlement_of_a_bet_on_one_selection(
    told: tuple[int | None, ...], first: int, is_resettlement: bool
) -> None:
    terms = Terms(payout_unit="major", payout_contains_refund=True, first_version=first)
    assert normalized(terms, selections=versions(*told)).is_resettlement is is_resettlement


def test_the_time_is_in_utc() -> None:
    settlement = normalized(settlementTime="2026-05-10T20:32:14+02:00")
    assert settlement.settled_at == datetime(2026, 5, 10, 18, 32, 14, tzinfo=UTC)
    assert settlement.settled_at.tzinfo is UTC


# Messages and pages


def test_a_message_about_a_bet_carries_what_landing_needs() -> None:
    body = message_of(BET)
    text = text_of()
    message = read_message(body)
    assert message.body == body
    assert message.unknown_fields == frozenset()
    assert message.content == PageEntry(
        record=Record("b1", body.index(text), len(text)),
        bet_id="b1",
        settlement_time=datetime(2026, 5, 10, 18, 32, 14, 123457, tzinfo=UTC),
        content_sha256=hashlib.sha256(text).digest(),
    )


@pytest.mark.parametrize("body", [b'{"pingId": "7"}', b'{"pingId": "7", "data": null}'])
def test_a_ping_is_a_ping(body: bytes) -> None:
    message = read_message(body)
    assert message.content == Ping("7")
    assert message.unknown_fields == frozenset()


def test_a_ping_with_a_bet_is_about_the_bet() -> None:
    assert entry_of(message_of(BET, pingId="7")).bet_id == "b1"
    message = read_message(message_of(BET, pingId=7))
    assert isinstance(message.content, PageEntry)
    assert message.unknown_fields == {"pingId"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cannot be read: "),
        (b"<html>502</html>", "cannot be read: "),
        (b'{"pingId": null, "data": {"betId": "b1"', "cannot be read: "),
        (b'{"data": {"betId": "\xff"}}', "is not UTF-8"),
        (b'{"data": {"betId": "\\ud800"}}', "cannot be read: "),
        (message_of(BET) + message_of(BET), "cannot be read: "),
        (b"\xef\xbb\xbf" + message_of(BET), "cannot be read: "),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"data": {"payout": 1e99999999999999999999}}', "a number in it is too large"),
        (b'{"data": {"payout": ' + b"9" * 5000 + b"}}", "out of range"),
        (b"[]", "JSON, but not an object"),
        (b"null", "JSON, but not an object"),
        (b"{}", "neither a `pingId` that is a text nor `data`"),
        (b'{"pingId": 7}', "neither a `pingId` that is a text nor `data`"),
        (b'{"pingId": null, "data": null}', "neither a `pingId` that is a text nor `data`"),
    ],
)
def test_a_message_that_is_none_is_broken_and_says_why(body: bytes, reason: str) -> None:
    content = read_message(body).content
    assert isinstance(content, BrokenMessage)
    assert reason in content.reason
    assert content.reason.isascii()
    assert len(content.reason) < 300
    digest = hashlib.sha256(body)
    assert content.record == Record(f"sha256:{digest.hexdigest()}", 0, len(body))
    assert content.content_sha256 == digest.digest()


@pytest.mark.parametrize("data", [5, "text", [], [BET], True])
def test_data_that_is_no_bet_is_landed_too(data: Any) -> None:
    body = message_of(data)
    entry = entry_of(body)
    text = json.dumps(data).encode()
    assert (entry.bet_id, entry.settlement_time) == (None, None)
    assert entry.record.record_key == f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert cut(body, entry.record) == text
    assert rule_of(text) == "wrong_type"


@pytest.mark.parametrize("identifier", [None, 7, "", "x" * 129, "a\0", [], {}])
def test_a_bet_without_a_usable_id_is_named_by_its_digest(identifier: Any) -> None:
    entry = entry_of(message_of(BET | {"betId": identifier}))
    assert entry.bet_id is None
    assert entry.record.record_key == f"sha256:{entry.content_sha256.hex()}"
    assert entry.settlement_time == datetime(2026, 5, 10, 18, 32, 14, 123457, tzinfo=UTC)


@pytest.mark.parametrize(
    "written", ["2026-05-10T18:32:14", "yesterday", 7, None, "9999-12-31T23:59:59-23:00"]
)
def test_a_time_that_cannot_be_read_is_none(written: Any) -> None:
    entry = entry_of(message_of(BET | {"settlementTime": written}))
    assert (entry.bet_id, entry.settlement_time) == ("b1", None)


def test_a_bet_that_will_be_rejected_is_still_named() -> None:
    for spoiled in ({"payout": "18.5"}, {"betSettlement": 8}, {"isCancelled": None}):
        entry = entry_of(message_of(BET | spoiled))
        assert (entry.bet_id, entry.settlement_time is None) == ("b1", False)


@pytest.mark.parametrize(
    "odd",
    [
        {"payout": "18.5", "amount": []},
        {"selections": {}},
        {"selections": [None, {"event": [{"id": 1}], "price": {}}]},
        {"payoutMultiplier": 10**30, "selections": [{"price": -0.0}]},
        {"settlementTime": 7},
        {"settlementTime": "2026-05-10T18:32:14.5+03:00"},
        {"betId": "b" * 129},
        {"betId": "b\0"},
    ],
)
def test_what_a_bet_is_named_does_not_depend_on_how_its_other_fields_look(
    odd: dict[str, Any],
) -> None:
    plain, deviating = (read_message(message_of(BET | odd | more)) for more in ({}, {"odd": 1}))
    assert isinstance(plain.content, PageEntry)
    assert isinstance(deviating.content, PageEntry)
    assert (plain.unknown_fields, deviating.unknown_fields) == (set(), {"data.odd"})
    assert plain.content.bet_id == deviating.content.bet_id
    assert plain.content.settlement_time == deviating.content.settlement_time


def test_unknown_fields_are_named_by_their_place() -> None:
    bet = with_value(("selections", 0, "betBuilderItems", 0, "market", "line"), 1)
    bet = {**bet, "bonus": {"id": 1}}
    bet["selections"] = [*bet["selections"], SELECTION | {"odds": 1, "parameters": {"any": "x"}}]
    assert read_message(message_of(bet, next=1)).unknown_fields == {
        "data.selections[].betBuilderItems[].market.line",
        "data.selections[].odds",
        "data.bonus",
        "next",
    }
    assert read_message(b'{"pingId": "1", "sent": 5}').unknown_fields == {"sent"}


@pytest.mark.parametrize(
    ("body", "more", "unknown"),
    [
        (b'{"pingId": "1", "bets": [{"betId": "b1"}]}', "bets", {"bets"}),
        (b'{"pingId": "1", "bet": {"betId": "b1"}, "sent": 5}', "bet", {"bet", "sent"}),
        (b'{"data": {"betId": "b1"}, "data": null, "pingId": "1"}', "a name twice", set()),
        (b'{"data": {"betId": "b1"}, "d\\u0061ta": null, "pingId": "1"}', "a name twice", set()),
    ],
)
def test_a_ping_that_may_hold_a_bet_is_kept(body: bytes, more: str, unknown: set[str]) -> None:
    message = read_message(body)
    content = message.content
    assert isinstance(content, BrokenMessage)
    assert content.reason == f"the message has a `pingId` and no `data`, but more: {more}"
    assert (content.is_ping, message.unknown_fields) == (True, unknown)
    assert cut(body, content.record) == body
    assert read_page(body) == join_messages([message])


def test_names_of_unknown_fields_are_few_short_and_storable() -> None:
    names = {f"{number:03}\0é" + "x" * 1000: 1 for number in range(100)}
    messages = [read_message(message_of(BET | names)), read_message(message_of(BET, other=1))]
    for unknown in (messages[0].unknown_fields, join_messages(messages).unknown_fields):
        assert len(unknown) == 20
        assert all(len(name) <= 100 and name.isascii() and name.isprintable() for name in unknown)


def test_the_text_of_a_bet_that_stands_elsewhere_too_misleads_nobody() -> None:
    text = text_of().decode()
    for body in (
        f'{{"before": {text}, "data": {text}}}',
        f'{{"data": {{"betId": "other"}}, "data": {text}}}',
        f'{{"data":\n\t{text}  , "pingId": null}}',
    ):
        entry = entry_of(body.encode())
        assert cut(body.encode(), entry.record) == text.encode()
        assert entry.bet_id == "b1"


def test_a_page_holds_messages_one_a_line_and_says_where_each_is() -> None:
    bodies = [
        message_of(BET),
        b'{"pingId": "1"}',
        b'{"pingId": ',
        message_of(BET | {"betId": "b2"}, next=1),
    ]
    page = join_messages([read_message(body) for body in bodies])
    assert page.body == b"\n".join(bodies)
    assert [entry.bet_id for entry in page.entries] == ["b1", "b2"]
    assert [cut(page.body, entry.record) for entry in page.entries] == [
        text_of(),
        text_of(betId="b2"),
    ]
    assert [cut(page.body, broken.record) for broken in page.broken] == [b'{"pingId": ']
    assert (page.pings, page.unknown_fields) == (1, {"next"})
    assert read_page(page.body) == page


def test_a_file_may_end_its_lines_in_any_way() -> None:
    body = b"\n" + message_of(BET) + b"\r\n\r\n  \n" + message_of(BET | {"betId": "b2"}) + b"\n"
    page = read_page(body)
    assert page.body == body
    assert [cut(body, entry.record) for entry in page.entries] == [text_of(), text_of(betId="b2")]
    assert (page.broken, page.pings) == ((), 0)
    assert read_page(b"") == join_messages([])


# Everything that the schema allows


def outcome_of(text: bytes, terms: Terms) -> Settlement | str:
    try:
        return normalize(text, CONTEXT, terms)
    except RecordRejected as rejected:
        return rejected.rule


def as_fraction(money: Decimal | None) -> Fraction | None:
    return None if money is None else Fraction(money)


def leg_as_read(leg: Leg) -> dict[str, Any]:
    told = {name: value for name, value in asdict(leg).items() if value is not None}
    return {n: Fraction(v) if isinstance(v, Decimal) else v for n, v in told.items()}


def test_every_column_of_a_leg_is_read_twice() -> None:
    assert set(Leg.__struct_fields__) == LEG_VALUES


@unhurried
@given(messages, decided_terms)
@example(
    {"data": BET | {"settlementTime": "2026-05-10T18:32:14Z", "payout": 1e16}, "pingId": ""}, MINOR
)
def test_a_message_of_the_schema_becomes_what_it_says_or_is_rejected(
    message: dict[str, Any], terms: Terms
) -> None:
    body = json.dumps(message).encode()
    bet = message.get("data")
    read = read_message(body)
    assert read.unknown_fields == frozenset()
    if bet is None:
        is_ping = message.get("pingId") is not None
        assert isinstance(read.content, Ping if is_ping else BrokenMessage)
        return
    text = cut(body, entry_of(body).record)
    assert text == json.dumps(bet).encode()
    reading, settlement = Reading(bet, terms), outcome_of(text, terms)
    if isinstance(settlement, str):
        assert settlement in reading.rules
        return
    assert reading.rules == set()
    assert settlement.source_key == bet["betId"] == entry_of(body).bet_id
    assert settlement.status == reading.status
    assert settlement.settled_at == datetime.fromisoformat(bet["settlementTime"])
    version = max(reading.versions, default=-1)
    told = settlement.provider_order.partition("|")[2]
    assert told == (f"{version:010}" if version >= 0 else "")
    is_alone = len(reading.versions) == 1
    assert settlement.is_resettlement == (is_alone and version > terms.first_version)
    assert [leg_as_read(leg) for leg in settlement.legs] == reading.legs
    factors = (settlement.payout_multiplier, settlement.placement_rate, settlement.settlement_rate)
    assert [as_fraction(factor) for factor in factors] == reading.factors
    assert as_fraction(settlement.stake) == reading.stake
    assert as_fraction(settlement.payout) == reading.payout
    assert as_fraction(settlement.refund) == reading.refund


@unhurried
@given(messages, st.sampled_from(list(PATHS)), json_values, decided_terms)
def test_a_spoiled_message_is_normalized_or_rejected_and_raises_nothing_else(
    message: dict[str, Any], path: tuple[Any, ...], value: Any, terms: Terms
) -> None:
    spoiled: Any = {"data": with_value(path, value), **message}
    for bet in (spoiled["data"], with_value(path, value)):
        body = json.dumps({**spoiled, "data": bet}).encode()
        content = read_message(body).content
        if isinstance(content, PageEntry):
            result = outcome_of(cut(body, content.record), terms)
            assert isinstance(result, Settlement) or result in RULES


@given(st.binary(max_size=30), st.integers(0, 2000), st.integers(0, 60))
def test_a_damaged_message_is_normalized_or_rejected_and_raises_nothing_else(
    damage: bytes, start: int, length: int
) -> None:
    body = message_of(BET)
    damaged = body[:start] + damage + body[start + length :]
    content = read_message(damaged).content
    if isinstance(content, PageEntry):
        result = outcome_of(cut(damaged, content.record), MAJOR)
        assert isinstance(result, Settlement) or result in RULES


@unhurried
@given(
    st.lists(messages.map(lambda message: json.dumps(message).encode()) | st.binary(), max_size=4)
)
def test_every_message_is_found_in_its_page(bodies: list[bytes]) -> None:
    read = [read_message(body) for body in bodies]
    page = join_messages(read)
    starts = [sum(len(body) + 1 for body in bodies[:number]) for number in range(len(bodies))]
    found = iter([*page.entries, *page.broken])
    for kind in (PageEntry, BrokenMessage):
        for start, body, message in zip(starts, bodies, read, strict=True):
            if isinstance(message.content, kind):
                one = next(found)
                assert one.record.byte_start == start + message.content.record.byte_start
                assert cut(page.body, one.record) == cut(body, message.content.record)
                assert one.content_sha256 == hashlib.sha256(cut(page.body, one.record)).digest()
    assert page.pings == sum(isinstance(message.content, Ping) for message in read)


# Logging in

PASSWORD = 'pass"wörd-7'


def jwt(**claims: Any) -> str:
    parts = [{"alg": "none"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
    return ".".join([*(part.decode().rstrip("=") for part in encoded), "c2ln"])


@contextmanager
def account(*answers: tuple[int, bytes, dict[str, str]]) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives one answer a request: its address, and what was asked."""
    asked: list[Any] = []
    remaining = list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), json.loads(body)))
            status, answer, headers = remaining.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(timeout=10)
            assert not thread.is_alive()


def logged_in(*answers: tuple[int, bytes, dict[str, str]], **tunables: Any) -> Token:
    with (
        account(*answers) as (base_url, _),
        odds88.open_client(base_url, Settings(read_attempts=len(answers), **tunables)) as client,
    ):
        return odds88.log_in(client, "client-1", PASSWORD)


def refused(
    *answers: tuple[int, bytes, dict[str, str]], kind: type[Fatal | Retriable]
) -> Fatal | Retriable:
    with pytest.raises(kind) as caught:
        logged_in(*answers, retry_after_limit_seconds=0)
    message = str(caught.value)
    for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1], "eyJ"):
        assert secret not in message
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("written", ['"{}"', "{}", ' "{}"\r\n'])
def test_logging_in_gives_the_token_until_it_expires(written: str) -> None:
    expiry = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    text = jwt(exp=expiry.timestamp())
    with (
        account((200, written.format(text).encode(), {})) as (base_url, asked),
        odds88.open_client(base_url, Settings()) as client,
    ):
        token = odds88.log_in(client, "client-1", PASSWORD)
    assert (token.text, token.expires_at) == (text, expiry)
    (path, headers, body), *others = asked
    assert others == []
    assert path == "/api/Account/login"
    assert headers["Content-Type"] == headers["Accept"] == "application/json"
    assert body == {"clientId": "client-1", "password": PASSWORD}


@pytest.mark.parametrize(
    "claims", [{"exp": 4_000_000_000}, {}, {"exp": "soon"}, {"exp": 1e300}, {"exp": None}]
)
def test_no_token_is_used_for_more_than_a_day(claims: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    token = logged_in((200, jwt(**claims).encode(), {}))
    assert before <= token.expires_at - odds88.TOKEN_LIFETIME <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["e30.AAAA.c2ln", "a.b.c", "e30.e30.c2ln"])
def test_a_token_that_tells_nothing_lasts_a_day(text: str) -> None:
    before = datetime.now(UTC)
    assert logged_in((200, text.encode(), {})).expires_at >= before + odds88.TOKEN_LIFETIME


def test_a_token_is_not_shown() -> None:
    token = logged_in((200, jwt().encode(), {}))
    assert "eyJ" not in repr(token)
    assert "eyJ" not in str(token)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_log_in_says_which_credentials_to_check(status: int) -> None:
    echo = json.dumps({"title": "no", "password": PASSWORD}).encode()
    error = refused((status, echo, {}), kind=Fatal)
    assert error.status == status
    assert "`client_id` in the extra of the Airflow connection `odds88`" in str(error)


def test_a_refusal_is_not_asked_for_twice() -> None:
    with (
        account((401, b"", {})) as (base_url, asked),
        odds88.open_client(base_url, Settings(read_attempts=4)) as client,
        pytest.raises(Fatal),
    ):
        odds88.log_in(client, "client-1", PASSWORD)
    assert len(asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_log_in_that_may_succeed_later_is_retriable(status: int) -> None:
    echo = f"not now, {PASSWORD}".encode()
    error = refused((status, echo, {"Retry-After": "0"}), kind=Retriable)
    assert error.status == status


def test_a_log_in_is_tried_again_as_retry_after_asks() -> None:
    busy = (429, b"", {"Retry-After": "0"})
    token = logged_in(busy, (503, b"", {"Retry-After": "0"}), (200, jwt().encode(), {}))
    assert token.text == jwt()


@pytest.mark.parametrize(
    "body", [b"", b"<html>welcome</html>", b'{"token": "eyJh.eyJi.c2ln"}', b'"eyJh.eyJi"', b"null",
             b'"eyJh.eyJi.c2ln', b"\xff", b'"eyJh.eyJi.c2\\u006cn"'],
)  # fmt: skip
def test_an_answer_that_is_no_token_is_fatal_and_not_quoted(body: bytes) -> None:
    assert "something that is no token" in str(refused((200, body, {}), kind=Fatal))


def test_a_server_that_is_not_there_is_retriable() -> None:
    with (
        odds88.open_client("http://127.0.0.1:1", Settings(read_attempts=1)) as client,
        pytest.raises(Retriable, match="No connection could be made"),
    ):
        odds88.log_in(client, "client-1", PASSWORD)


@pytest.mark.parametrize(
    ("client_id", "password"), [("", PASSWORD), ("client-1", ""), ("client-1", "\ud800")]
)
def test_credentials_that_cannot_be_sent_are_fatal_and_not_shown(
    client_id: str, password: str
) -> None:
    with (
        account() as (base_url, asked),
        odds88.open_client(base_url, Settings()) as client,
        pytest.raises(Fatal, match="empty or no text") as caught,
    ):
        odds88.log_in(client, client_id, password)
    assert caught.value.__cause__ is None
    assert asked == []


def test_what_is_hidden_is_not_quoted_in_any_spelling() -> None:
    with (
        account(*[(422, f"a {PASSWORD} b {json.dumps(PASSWORD)[1:-1]} c".encode(), {})] * 2) as (
            base_url,
            _,
        ),
        Client("odds88", base_url, secret_headers={}, settings=Settings()) as client,
    ):
        client.hide("")
        client.hide(PASSWORD)
        with pytest.raises(Fatal, match="It said: a … b … c"):
            client.query("/x", b"{}")


# The stream's address and handshake


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.odds88.io", "wss://api.odds88.io/feed/settlement/v4?revision=0"),
        ("http://127.0.0.1:80/x/", "ws://127.0.0.1:80/x/feed/settlement/v4?revision=0"),
    ],
)
def test_the_stream_is_below_the_same_address(base_url: str, url: str) -> None:
    assert odds88.feed_url(base_url, 0) == url
    assert odds88.feed_url(base_url, 1778437934) == url[:-1] + "1778437934"


@pytest.mark.parametrize(
    ("template", "header"),
    [
        (None, {"Authorization": "Bearer a.b.c"}),
        ("X-Access-Token: {token}", {"X-Access-Token": "a.b.c"}),
        ("Cookie:token={token}; v=1", {"Cookie": "token=a.b.c; v=1"}),
    ],
)
def test_the_token_goes_where_the_settings_say(
    template: str | None, header: dict[str, str]
) -> None:
    token = Token("a.b.c", datetime(2026, 5, 10, tzinfo=UTC))
    assert odds88.token_headers(token, Settings(odds88_token_header=template)) == header


@pytest.mark.parametrize("template", ["", "{token}", "X: y", "X\r\nY: {token}", "X: {token}\n"])
def test_a_header_that_cannot_carry_the_token_is_refused(template: str) -> None:
    with pytest.raises(ValidationError):
        Settings(odds88_token_header=template)
