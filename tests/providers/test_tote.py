"""The bets of tote: asking for them, taking pages and hints apart, and what each bet becomes."""

from __future__ import annotations

import contextlib
import functools
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import gql
import msgspec
import pytest
from graphql import FieldNode, FragmentSpreadNode, GraphQLSchema, build_schema, parse, validate
from hypothesis import given
from hypothesis import strategies as st

from include.model import Outcome, Record, RecordContext, Settlement, Status
from include.providers import tote
from include.providers.documented import fields_of
from include.providers.errors import Fatal, PageUndecodable, RecordRejected, Retriable
from include.providers.http import Client
from include.providers.tote import (
    QUERY,
    BrokenHint,
    Hint,
    Notice,
    Totals,
    asking,
    next_cursor,
    normalize,
    order_of,
    read_hint,
    read_page,
    standing,
    subscription_frames,
)
from include.sandbox.addresses import TOTE_KEY, TOTE_TOKEN
from include.sandbox.client import Sandbox
from include.settings import Settings

CONTEXT = RecordContext(received_at=datetime(2026, 5, 10, 19, tzinfo=UTC))
FOLDER = Path(__file__).parent / "tote"
GOLDEN = sorted(path.parent for path in FOLDER.glob("*/payload.json"))
RULES = {
    "amounts_disagree", "currency_mismatch", "currency_missing", "id_unusable", "missing_field",
    "number_unusable", "returns_incomplete", "status_mismatch", "text_unstorable",
    "total_mismatch", "undecodable", "unknown_value", "wrong_type",
}  # fmt: skip
BET_ID = "8779011e10f4462988f6b9b5364e9a00"
QUICK = Settings(read_attempts=2, retry_after_limit_seconds=0, call_deadline_seconds=5)


def money(minor: int, code: str = "GBP") -> dict[str, Any]:
    return {
        "currency": {"code": code},
        "decimalAmount": minor / 100,
        "stringAmount": f"{minor // 100}.{minor % 100:02}",
        "minorUnitsTotalAmount": minor,
    }


def returns(returned: int = 0, refund: int = 0, enhancement: int = 0) -> dict[str, Any]:
    return {
        "totalAmount": money(returned + refund + enhancement),
        "returnAmount": money(returned),
        "refundAmount": money(refund),
        "enhancementAmount": money(enhancement),
    }


def bet(
    placement: str = "ACCEPTED",
    resulting: str = "RESULTED",
    settlement: str = "SETTLED",
    told: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "id": "bet-1",
        "toteId": BET_ID,
        "placement": {"status": placement, "stake": money(200)},
        "resulting": {"status": resulting, "returns": told},
        "settlement": {"status": settlement},
        "ticket": {"id": "ticket-1", "toteId": "t1"},
    }


WON = bet(told=returns(1234))


def with_value(path: str, value: Any, around: dict[str, Any] = WON) -> dict[str, Any]:
    """The bet with one value, wherever it stands, replaced."""
    changed = json.loads(json.dumps(around))
    *way, name = path.split(".")
    functools.reduce(lambda outer, step: outer[step], way, changed)[name] = value
    return dict(changed)


def without(path: str, around: dict[str, Any] = WON) -> dict[str, Any]:
    changed = json.loads(json.dumps(around))
    *way, name = path.split(".")
    del functools.reduce(lambda outer, step: outer[step], way, changed)[name]
    return dict(changed)


def page_of(*nodes: Any, **more: Any) -> bytes:
    info = {"endCursor": "NTA=", "hasNextPage": True}
    return json.dumps({"data": {"bets": {"pageInfo": info, "nodes": list(nodes), **more}}}).encode()


def normalized(node: Any, *, is_total_checked: bool = True) -> Settlement:
    return normalize(json.dumps(node).encode(), CONTEXT, is_total_checked=is_total_checked)


def rule_of(node: Any, *, is_total_checked: bool = True) -> str:
    with pytest.raises(RecordRejected) as caught:
        normalized(node, is_total_checked=is_total_checked)
    assert caught.value.rule in RULES
    assert caught.value.reason.isascii()
    assert 0 < len(caught.value.reason) < 300
    return caught.value.rule


def cut(body: bytes, record: Record) -> bytes:
    return body[record.byte_start :][: record.byte_length]


# The question and its answer


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((Path(tote.__file__).parent / "schema.graphql").read_text())


def paths_of(document: str) -> set[tuple[str, ...]]:
    """Every field that is asked for, by its way from the top."""
    definitions = {node.name.value: node for node in parse(document).definitions if node.name}  # type: ignore[attr-defined]

    def walk(selection_set: Any, way: tuple[str, ...]) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for node in selection_set.selections if selection_set else ():
            if isinstance(node, FragmentSpreadNode):
                found |= walk(definitions[node.name.value].selection_set, way)
            elif isinstance(node, FieldNode):
                here = (*way, node.name.value)
                found |= {here} | walk(node.selection_set, here)
        return found

    return walk(definitions["GetBets"].selection_set, ())


def test_the_question_fits_the_schema(schema: GraphQLSchema) -> None:
    gql.Client(schema=schema).validate(gql.gql(QUERY))


def test_everything_that_the_documented_question_asks_for_is_asked_for(
    schema: GraphQLSchema,
) -> None:
    documented = (FOLDER / "documented_example" / "query.graphql").read_text()
    assert validate(schema, parse(documented)) == []
    assert paths_of(documented) < paths_of(QUERY)


def test_everything_that_is_asked_for_is_typed_and_nothing_else() -> None:
    typed: set[tuple[str, ...]] = set()

    def walk(kind: Any, way: tuple[str, ...]) -> None:
        for name, inner in fields_of(kind).items():
            typed.add((*way, name))
            if inner is not None:
                walk(inner, (*way, name))

    walk(tote.Bet, ("bets", "nodes"))
    assert typed == {path for path in paths_of(QUERY) if path[:2] == ("bets", "nodes")} - {
        ("bets", "nodes")
    }


def test_every_word_of_the_schema_is_known(schema: GraphQLSchema) -> None:
    for kind in (
        tote.CurrencyCode,
        tote.PlacementStatus,
        tote.ResultingStatus,
        tote.SettlementStatus,
    ):
        named: Any = schema.type_map[kind.__name__]
        assert {word.value for word in kind} == named.values.keys()


def test_there_are_golden_pairs() -> None:
    assert len(GOLDEN) >= 15


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_payload_becomes_what_is_expected(folder: Path) -> None:
    body = (folder / "payload.json").read_bytes()
    page = read_page(body)
    [entry] = page.entries
    settlement = normalize(cut(body, entry.record), CONTEXT)
    told = json.loads(msgspec.json.encode(settlement)).items()
    assert json.loads((folder / "expected.json").read_bytes()) == {
        "record_key": entry.record.record_key,
        "unknown_fields": sorted(page.unknown_fields),
        "settlement": {name: value for name, value in told if value not in (None, [])},
    }


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_how_a_bet_stands_is_what_it_becomes(folder: Path) -> None:
    body = (folder / "payload.json").read_bytes()
    record = cut(body, read_page(body).entries[0].record)
    settlement, stands = normalize(record, CONTEXT), standing(record)
    assert stands is not None
    assert stands.status is settlement.status
    assert stands.is_final == (
        settlement.status is not Status.OPEN
        and not (settlement.status is Status.CANCELLED and stands.settlement == "PENDING")
    )
    assert stands.settlement not in ("SETTLED", "REFUNDED") or stands.total == settlement.payout


def test_how_a_bet_stands_is_told_in_its_own_words_whatever_its_amounts() -> None:
    odd = with_value("resulting.returns.totalAmount.decimalAmount", 7)
    stands = standing(json.dumps(odd | {"market": 1}).encode())
    assert stands is not None
    words = (stands.status, stands.placement, stands.resulting, stands.settlement)
    assert words == ("settled", "ACCEPTED", "RESULTED", "SETTLED")
    assert (stands.total, stands.returned) == (None, Decimal("12.34"))


@pytest.mark.parametrize("record", [b"", b"null", b"5", b"{}", b'{"toteId": "\xff"}'])
def test_what_is_no_bet_stands_in_no_way_that_can_be_judged(record: bytes) -> None:
    assert standing(record) is None
    assert standing(json.dumps(with_value("settlement.status", "REGRADED")).encode()) is None


# Taking a page apart


def test_each_bet_is_cut_out_as_it_was_written() -> None:
    nodes = [json.dumps(with_value("toteId", f"b{n}"), indent=n) for n in range(4)]
    body = b'{"data": {"bets": {"nodes": [ ' + " ,\n".join(nodes).encode() + b"]}}}"
    page = read_page(body)
    assert [cut(body, entry.record).decode() for entry in page.entries] == nodes
    assert [entry.tote_id for entry in page.entries] == ["b0", "b1", "b2", "b3"]
    assert len({entry.content_sha256 for entry in page.entries}) == 4


def test_the_same_bet_twice_is_two_records_at_two_places() -> None:
    first, second = read_page(page_of(WON, WON)).entries
    assert first.content_sha256 == second.content_sha256
    assert second.record.byte_start > first.record.byte_start + first.record.byte_length - 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the answer is no object that can be read"),
        (b"<!doctype html>", "starts with"),
        (b"[]", "the answer is no object"),
        (b"\xff", "the answer is no object"),
        (b"null", "the answer is null"),
        (b'{"result": {}}', "`data` is missing"),
        (b'{"data": null}', "`data` is null"),
        (b'{"data": []}', "`data` is no object"),
        (b'{"data": {"bet": {}}}', "`data.bets` is missing"),
        (b'{"data": {"bets": null}}', "`data.bets` is null"),
        (b'{"data": {"bets": {}}}', "`data.bets.nodes` is missing"),
        (b'{"data": {"bets": {"nodes": null}}}', "`data.bets.nodes` is null"),
        (b'{"data": {"bets": {"nodes": {}}}}', "`data.bets.nodes` is no list"),
        (page_of(WON, None), "`data.bets.nodes[1]` is null"),
        (page_of(*[1] * 10_001), "holds 10001 bets, more than 10000"),
        (page_of(WON, pageInfo={"hasNextPage": "no"}), "`data.bets.pageInfo` cannot be read"),
        (page_of(WON)[:-40], "is no object that can be read"),
        (page_of(WON)[:-1] + b', "errors": [{"message": "no"}]}', "the answer holds `errors`"),
        (b'{"errors": [{"message": "no"}], "data": null}', "the answer holds `errors`"),
        (b'{"errors": {}, "data": {"bets": {"nodes": []}}}', "the answer holds `errors`"),
        (b'{"data":' + b"[" * 100_000, "the answer is no object"),
    ],
)  # fmt: skip
def test_what_is_no_whole_page_is_undecodable_and_says_where(body: bytes, reason: str) -> None:
    with pytest.raises(PageUndecodable) as caught:
        read_page(body)
    assert reason in caught.value.reason
    assert caught.value.reason.isascii()
    assert len(caught.value.reason) < 300


def test_no_bets_are_an_empty_page_only_if_the_list_is_there() -> None:
    page = read_page(page_of(errors=[], extensions={}))
    assert page.entries == ()


@pytest.mark.parametrize("value", [None, 5, "", "x" * 129, "a\0b", ["x"]])
def test_a_bet_without_a_usable_id_is_landed_under_its_digest(value: Any) -> None:
    body = page_of(with_value("toteId", value), WON)
    odd, sound = read_page(body).entries
    assert odd.tote_id is None
    assert odd.record.record_key == f"sha256:{odd.content_sha256.hex()}"
    assert sound.tote_id == BET_ID


@pytest.mark.parametrize("node", [1, "bet", [], True])
def test_an_element_that_is_no_bet_is_landed_and_held_back(node: Any) -> None:
    odd, sound = read_page(page_of(node, WON)).entries
    assert (odd.tote_id, sound.tote_id) == (None, BET_ID)
    assert rule_of(node) == "wrong_type"


def test_a_bet_that_cannot_be_read_costs_itself_alone() -> None:
    body = page_of(WON, with_value("ticket.id", "LATIN"), WON).replace(b"LATIN", b"gew\xe4hrt")
    entries = read_page(body).entries
    assert [entry.tote_id for entry in entries] == [BET_ID, None, BET_ID]
    with pytest.raises(RecordRejected, match="undecodable"):
        normalize(cut(body, entries[1].record), CONTEXT)


def test_what_was_not_asked_for_is_named_by_its_place() -> None:
    node = with_value("placement.odds", 2) | {"market": {"x": 1}}
    body = page_of(node, edges=[])[:-1] + b', "meta": 1, "extensions": {}}'
    assert read_page(body).unknown_fields == {
        "data.bets.edges",
        "data.bets.nodes[].market",
        "data.bets.nodes[].placement.odds",
        "meta",
    }


def test_totals_are_read_by_currency_alone_or_as_a_list() -> None:
    page = read_page(
        page_of(
            totalCount=5,
            totalStakes=[money(150), money(5, "HKD"), money(50)],
            totalReturns=money(99, "EUR"),
            totalRefunds=None,
        )
    )
    assert page.totals == Totals(
        5, {"GBP": Decimal("2"), "HKD": Decimal("0.05")}, {"EUR": Decimal("0.99")}, None
    )
    assert page.unknown_fields == frozenset()


def test_totals_that_cannot_be_read_are_not_told_but_named() -> None:
    page = read_page(page_of(totalCount=-1, totalStakes=5, totalReturns=[{"decimalAmount": 1}]))
    assert page.totals == Totals()
    assert page.unknown_fields == {
        "data.bets.totalCount",
        "data.bets.totalReturns",
        "data.bets.totalStakes",
    }


def test_a_period_goes_on_behind_the_end_of_its_page_until_there_is_no_more() -> None:
    assert next_cursor(read_page(page_of(WON))) == "NTA="
    last = page_of(WON, pageInfo={"hasNextPage": False, "endCursor": "NTA="})
    assert next_cursor(read_page(last)) is None


@pytest.mark.parametrize(
    "body",
    [
        (FOLDER / "documented_example" / "payload.json").read_bytes(),
        page_of(WON, pageInfo=None),
        page_of(WON, pageInfo={"endCursor": "NTA="}),
        page_of(WON, pageInfo={"hasNextPage": True}),
        page_of(WON, pageInfo={"hasNextPage": True, "endCursor": ""}),
        page_of(),
    ],
)
def test_a_page_that_does_not_say_whether_it_is_the_last_is_not_taken_for_it(body: bytes) -> None:
    with pytest.raises(PageUndecodable):
        next_cursor(read_page(body))


# What a bet means


@pytest.mark.parametrize("resulting", ["UNKNOWN", "PENDING", "RESULTED"])
@pytest.mark.parametrize("settlement", ["UNKNOWN", "PENDING"])
def test_nothing_is_paid_before_it_is_settled(resulting: str, settlement: str) -> None:
    settled = normalized(bet("ACCEPTED", resulting, settlement, returns(1234)))
    assert (settled.status, settled.outcome, settled.payout) == (Status.OPEN, None, None)


@pytest.mark.parametrize("part", ["resulting", "settlement"])
def test_a_bet_of_whose_end_nothing_is_told_is_open(part: str) -> None:
    node = bet("ACCEPTED", "PENDING", "PENDING")
    for changed in (without(part, node), with_value(part, None, node)):
        assert normalized(changed).status is Status.OPEN


@pytest.mark.parametrize("placement", ["UNKNOWN", "PLACED", "ACCEPTED"])
@pytest.mark.parametrize(
    ("told", "outcome", "payout"),
    [
        (returns(1234), Outcome.WON, "12.34"),
        (returns(0), Outcome.LOST, "0"),
        (returns(1234, refund=50), Outcome.WON, "12.84"),
        (returns(0, refund=200), Outcome.REFUNDED, "2"),
        (returns(1000, enhancement=125), Outcome.WON, "11.25"),
        (returns(0, enhancement=125), Outcome.WON, "1.25"),
        ({"totalAmount": money(5)}, Outcome.WON, "0.05"),
        ({"totalAmount": money(0)}, Outcome.LOST, "0"),
        ({"totalAmount": money(200), "refundAmount": money(200)}, Outcome.REFUNDED, "2"),
        ({"totalAmount": money(300), "refundAmount": money(200)}, Outcome.WON, "3"),
    ],
)
def test_what_was_settled_is_what_its_returns_say(
    placement: str, told: dict[str, Any], outcome: Outcome, payout: str
) -> None:
    settled = normalized(bet(placement, told=told))
    assert (settled.status, settled.outcome) == (Status.SETTLED, outcome)
    assert (settled.payout, settled.currency, settled.stake) == (Decimal(payout), "GBP", 2)


def test_what_was_refunded_is_void_and_all_of_it_a_refund_unless_a_part_is_told() -> None:
    whole = normalized(bet("ACCEPTED", "PENDING", "REFUNDED", {"totalAmount": money(200)}))
    assert (whole.status, whole.outcome) == (Status.VOID, Outcome.REFUNDED)
    assert (whole.payout, whole.refund) == (2, 2)
    both = normalized(bet("ACCEPTED", "RESULTED", "REFUNDED", returns(100, refund=200)))
    assert (both.status, both.payout, both.refund) == (Status.VOID, 3, 2)


@pytest.mark.parametrize(
    ("placement", "resulting"),
    [("CANCELLED", "RESULTED"), ("CANCELLED", "PENDING"), ("ACCEPTED", "CANCELLED")],
)
def test_what_was_cancelled_after_its_result_pays_nothing_until_it_is_refunded(
    placement: str, resulting: str
) -> None:
    before = normalized(bet(placement, resulting, "PENDING", returns(1234)))
    assert (before.status, before.outcome, before.payout) == (Status.CANCELLED, None, None)
    after = normalized(bet(placement, resulting, "REFUNDED", returns(0, refund=200)))
    assert (after.status, after.outcome) == (Status.CANCELLED, Outcome.REFUNDED)
    assert (after.payout, after.refund) == (2, 2)


@pytest.mark.parametrize(
    ("placement", "resulting"),
    [("CANCELLED", "RESULTED"), ("CANCELLED", "PENDING"), ("ACCEPTED", "CANCELLED")],
)
def test_what_was_cancelled_is_final_once_it_is_refunded(placement: str, resulting: str) -> None:
    for settlement, is_final in (("PENDING", False), ("REFUNDED", True)):
        stands = standing(json.dumps(bet(placement, resulting, settlement, returns(0))).encode())
        assert stands is not None
        assert stands.is_final is is_final


@pytest.mark.parametrize(
    ("placement", "status"), [("REJECTED", Status.REJECTED), ("FAILED", Status.FAILED)]
)
def test_a_bet_that_was_not_taken_is_no_loss(placement: str, status: Status) -> None:
    for node in (bet(placement, "PENDING", "PENDING"), bet(placement, told=returns(0))):
        settled = normalized(node)
        assert (settled.status, settled.outcome) == (status, None)
    refunded = normalized(bet(placement, "PENDING", "REFUNDED", returns(0, refund=200)))
    assert (refunded.status, refunded.outcome, refunded.payout) == (status, Outcome.REFUNDED, 2)
    assert rule_of(bet(placement, told=returns(1))) == "status_mismatch"


def test_the_order_is_that_of_looking_and_sorts_as_bytes() -> None:
    settled = normalized(WON)
    assert settled.provider_order == "t2026-05-10T19:00:00.000000"
    assert settled.settled_at == CONTEXT.received_at
    assert settled.settled_at_basis == "observed"


@given(st.lists(st.datetimes(timezones=st.just(timezone(timedelta(hours=5)))), min_size=2))
def test_later_looks_come_later(moments: list[datetime]) -> None:
    usual = [moment for moment in moments if 1000 < moment.year < 9999]
    assert sorted(usual) == sorted(usual, key=lambda moment: order_of(moment).encode())


@given(
    returned=st.integers(0, 10**17), refund=st.integers(0, 10**17), enhancement=st.integers(0, 99)
)
def test_money_is_exact_however_it_is_told(returned: int, refund: int, enhancement: int) -> None:
    ways: list[dict[str, Any]] = []
    for name in ("decimalAmount", "stringAmount", "minorUnitsTotalAmount"):
        told: dict[str, Any] = {}
        for part, minor in (
            ("totalAmount", returned + refund + enhancement),
            ("returnAmount", returned),
            ("refundAmount", refund),
            ("enhancementAmount", enhancement),
        ):
            exact = f"{minor // 100}.{minor % 100:02}"
            value = {"decimalAmount": msgspec.Raw(exact.encode()), "stringAmount": exact}
            told[part] = {
                "currency": {"code": "GBP"},
                name: value.get(name, minor),
            }
        ways.append(told)
    payouts = {normalize(msgspec.json.encode(bet(told=told)), CONTEXT).payout for told in ways}
    assert payouts == {Decimal(returned + refund + enhancement).scaleb(-2)}


@pytest.mark.parametrize(
    ("node", "rule"),
    [
        (without("toteId"), "missing_field"),
        (without("placement"), "missing_field"),
        (with_value("placement", None), "wrong_type"),
        (without("placement.status"), "missing_field"),
        (with_value("placement.status", "REGRADED"), "unknown_value"),
        (with_value("resulting.status", "regraded"), "unknown_value"),
        (with_value("settlement.status", "PAID"), "unknown_value"),
        (with_value("settlement.status", None), "wrong_type"),
        (with_value("settlement", "SETTLED"), "wrong_type"),
        (with_value("toteId", "x" * 129), "id_unusable"),
        (with_value("toteId", ""), "id_unusable"),
        (with_value("toteId", "a\0"), "text_unstorable"),
        (with_value("placement.stake", None), "missing_field"),
        (with_value("placement.stake.currency.code", "USD"), "unknown_value"),
        (with_value("placement.stake.currency", None), "currency_missing"),
        (with_value("placement.stake.currency.code", "EUR"), "currency_mismatch"),
        (with_value("resulting.returns.refundAmount", money(0, "EUR")), "currency_mismatch"),
        (with_value("resulting.returns", None), "missing_field"),
        (without("resulting.returns.totalAmount"), "missing_field"),
        (with_value("resulting.returns.totalAmount.currency", {}), "missing_field"),
        (bet(told={"totalAmount": {"currency": {"code": "GBP"}}}), "missing_field"),
        (with_value("placement.stake.decimalAmount", 2.01), "amounts_disagree"),
        (with_value("placement.stake.stringAmount", "2"), None),
        (with_value("placement.stake.stringAmount", "2.001"), "amounts_disagree"),
        (with_value("placement.stake.stringAmount", "£2"), "number_unusable"),
        (with_value("placement.stake.minorUnitsTotalAmount", 2), "amounts_disagree"),
        (with_value("placement.stake.minorUnitsTotalAmount", 2**70), "wrong_type"),
        (with_value("placement.stake.decimalAmount", "NaN"), "amounts_disagree"),
        (with_value("placement.stake.decimalAmount", [2]), "wrong_type"),
        (with_value("placement.stake", {"currency": {"code": "GBP"}, "decimalAmount": "NaN"}),
         "number_unusable"),
        (with_value("placement.stake", {"currency": {"code": "GBP"}, "decimalAmount": 1e300}),
         "number_unusable"),
        (with_value("placement.stake", {"currency": {"code": "GBP"}, "decimalAmount": 1e-40}),
         "number_unusable"),
        (with_value("placement.stake", money(-200)), "number_unusable"),
        (with_value("resulting.returns.totalAmount", money(1235)), "total_mismatch"),
        (with_value("resulting.returns.totalAmount", money(1233)), "total_mismatch"),
        (bet(told={"totalAmount": money(5), "returnAmount": money(0)}), "returns_incomplete"),
        (bet(told={"totalAmount": money(5), "returnAmount": money(6)}), "total_mismatch"),
    ],
)  # fmt: skip
def test_what_decides_must_be_there_and_right(node: dict[str, Any], rule: str | None) -> None:
    if rule is None:
        assert normalized(node).stake == 2
    else:
        assert rule_of(node) == rule


def test_whether_the_total_is_checked_is_a_setting() -> None:
    node = with_value("resulting.returns.totalAmount", money(1235))
    assert normalized(node, is_total_checked=False).payout == Decimal("12.35")
    lost = bet(told=returns(0) | {"totalAmount": money(5)})
    assert rule_of(lost, is_total_checked=False) == "returns_incomplete"


@given(st.binary())
def test_no_bytes_make_a_page_or_a_bet_fail_in_another_way(body: bytes) -> None:
    for text in (body, b'{"data":{"bets":{"nodes":[' + body + b"]}}}"):
        with contextlib.suppress(PageUndecodable):
            assert read_page(text).has_next_page is None
    with pytest.raises(RecordRejected):
        normalize(body, CONTEXT)
    assert isinstance(read_hint(body), BrokenHint | Notice)


# Hints


@pytest.mark.parametrize(
    ("name", "amount"), [("BetCancelled", None), ("BetResulted", 10), ("BetSettled", 15)]
)
def test_a_documented_message_is_a_hint_at_its_bet(name: str, amount: int | None) -> None:
    body = (FOLDER / f"documented_{name}.json").read_bytes()
    hint = read_hint(body)
    assert isinstance(hint, Hint)
    assert (hint.message_type, hint.return_amount) == (name, amount)
    assert hint.bet_id == json.loads(body)["BetId"] == hint.record.record_key
    assert cut(body, hint.record) == body


@pytest.mark.parametrize("kind", ["next", "data"])
def test_a_frame_of_either_subprotocol_is_the_same_hint(kind: str) -> None:
    message = {"betId": "b1", "returnAmount": 12.34, "__typename": "BetReturnMessage"}
    payload = {"data": {"onBetSettled": message}}
    hint = read_hint(json.dumps({"id": "1", "type": kind, "payload": payload}).encode())
    assert isinstance(hint, Hint)
    assert (hint.message_type, hint.bet_id) == ("BetSettled", "b1")
    assert hint.return_amount == Decimal("12.34")


@pytest.mark.parametrize("amount", ["12.34", None, True, -1, [], {"decimalAmount": 1}])
def test_an_amount_that_cannot_be_read_leaves_the_hint(amount: Any) -> None:
    message = {"MessageType": "BetSettled", "BetId": "b1", "ReturnAmount": amount}
    hint = read_hint(json.dumps(message).encode())
    assert isinstance(hint, Hint)
    assert hint.return_amount is None


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"type": "connection_ack"}, "connection_ack"),
        ({"type": "ka"}, "ka"),
        ({"type": "ping", "payload": {"data": 1}}, "ping"),
        ({"type": "complete", "id": "1"}, "complete"),
        ({"type": "error", "id": "1", "payload": [{"message": "no"}]}, "error"),
        ({"type": "error", "id": ["BetSettled"]}, "error"),
        ({"MessageType": "PoolTotalChanged", "ProductId": "p"}, "PoolTotalChanged"),
    ],
)
def test_a_message_about_no_bet_is_a_notice(message: dict[str, Any], kind: str) -> None:
    assert read_hint(json.dumps(message).encode()) == Notice(kind)


def test_a_notice_names_the_subscription_of_ours_that_it_is_about() -> None:
    assert read_hint(b'{"type": "complete", "id": "BetSettled"}') == Notice(
        "complete", "BetSettled"
    )


@pytest.mark.parametrize(
    "message",
    [
        1,
        [],
        {},
        {"MessageType": 1, "BetId": "b1"},
        {"MessageType": "BetSettled"},
        {"MessageType": "BetSettled", "BetId": 5},
        {"MessageType": "BetSettled", "BetId": ""},
        {"MessageType": "BetSettled", "BetId": "a\0"},
        {"type": "next"},
        {"type": "next", "payload": {"data": None, "errors": []}},
        {"type": "data", "payload": {"data": {"onBetSettled": None}}},
        {"type": "data", "payload": {"data": {"onBetSettled": {}, "onBetResulted": {}}}},
    ],
)
def test_a_message_that_names_no_bet_is_broken_and_kept_under_its_digest(message: Any) -> None:
    body = json.dumps(message).encode()
    broken = read_hint(body)
    assert isinstance(broken, BrokenHint)
    assert broken.record == Record(f"sha256:{broken.content_sha256.hex()}", 0, len(body))
    assert broken.reason


@pytest.mark.parametrize("subprotocol", tote.SUBPROTOCOLS)
def test_the_subscriptions_fit_the_schema_each_to_one_field(
    schema: GraphQLSchema, subprotocol: str
) -> None:
    frames = [json.loads(frame) for frame in subscription_frames(subprotocol)]
    for frame in frames:
        document = parse(frame["payload"]["query"])
        assert validate(schema, document) == []
        assert len(document.definitions[0].selection_set.selections) == 1  # type: ignore[attr-defined]
    assert len({frame["id"] for frame in frames}) == 6


# Asking


@pytest.fixture
def client(sandbox: Sandbox) -> Client:
    return tote.open_client(sandbox.tote_url, TOTE_KEY, QUICK)


def ids(sandbox: Sandbox) -> list[str]:
    return [told["tote_id"] for told in sandbox.tote_bets()]


def test_named_bets_are_asked_for_up_to_250_at_once(sandbox: Sandbox, client: Client) -> None:
    known = ids(sandbox)[:250]
    answer = tote.fetch_bets(client, known)
    page = read_page(answer.body)
    assert [entry.tote_id for entry in page.entries] == known[::-1]
    assert (page.has_next_page, page.totals.count) == (False, 250)
    assert answer.url_path == "/tote/gateway/graphql"
    for wrong in ([], ["x"] * 251):
        with pytest.raises(ValueError, match="asked for at once"):
            tote.fetch_bets(client, wrong)
    assert sandbox.calls()["total"] == 1


def test_a_period_is_read_page_by_page_and_adds_up(sandbox: Sandbox, client: Client) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    entries: list[str | None] = []
    stakes: dict[str, Decimal] = {}
    cursor = None
    while True:
        answer = tote.fetch_period(client, until - timedelta(days=61), until, cursor)
        page = read_page(answer.body)
        entries += [entry.tote_id for entry in page.entries]
        for entry in page.entries:
            settled = normalize(cut(answer.body, entry.record), CONTEXT)
            assert settled.currency is not None
            assert settled.stake is not None
            stakes[settled.currency] = stakes.get(settled.currency, Decimal(0)) + settled.stake
        cursor = next_cursor(page)
        if cursor is None:
            break
    assert entries == ids(sandbox)[::-1]
    assert (page.totals.count, page.totals.stakes) == (len(entries), stakes)


def test_a_period_needs_both_bounds_with_their_offsets_and_at_most_90_days(client: Client) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    for since, first in ((now, 1), (now - timedelta(days=91), 1), (now - timedelta(1), 251)):
        with pytest.raises(ValueError, match=r"and not|none of"):
            tote.fetch_period(client, since, now, None, first=first)
    naive = now.replace(tzinfo=None)
    with pytest.raises(ValueError, match="offset"):
        tote.fetch_period(client, naive - timedelta(1), naive, None)


def test_the_key_can_be_a_token(sandbox: Sandbox) -> None:
    settings = QUICK.model_copy(update={"tote_authorization": "Bearer"})
    client = tote.open_client(sandbox.tote_url, TOTE_TOKEN, settings)
    assert read_page(tote.fetch_bets(client, ids(sandbox)[:1]).body).entries


@pytest.mark.parametrize("refusals", ["status", "errors"])
def test_a_wrong_key_is_fatal_however_it_is_refused(sandbox: Sandbox, refusals: str) -> None:
    sandbox.configure("tote", refusals=refusals)
    client = tote.open_client(sandbox.tote_url, "wrong-key", QUICK)
    with pytest.raises(Fatal, match="password of the Airflow connection `tote`") as caught:
        tote.fetch_bets(client, ["x"])
    assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "a\nb", "gewährt"])
def test_a_key_that_no_header_can_carry_is_fatal(key: str) -> None:
    with pytest.raises(Fatal, match="password"):
        tote.open_client("https://tote.test", key, QUICK)


def test_an_answer_with_errors_is_asked_for_again(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("tote", "graphql_errors", with_data=True)
    assert len(read_page(tote.fetch_bets(client, ids(sandbox)[:3]).body).entries) == 3
    assert [call["fault"] for call in sandbox.calls()["recent"]] == ["graphql_errors", None]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("graphql_errors", {"message": f"no, {TOTE_KEY}"}), ("partial_data", {"field": "resulting"})],
)
def test_errors_that_last_are_never_a_page(
    sandbox: Sandbox, client: Client, kind: str, parameters: dict[str, Any]
) -> None:
    known = ids(sandbox)[:3]
    sandbox.fault("tote", kind, times=None, **parameters)
    with pytest.raises(Retriable, match=r"with 1 error\(s\)") as caught:
        tote.fetch_bets(client, known)
    assert TOTE_KEY not in str(caught.value)
    assert len(sandbox.calls()["recent"]) == QUICK.read_attempts


def test_a_question_that_is_refused_is_fatal(
    sandbox: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.fault("tote", "graphql_errors", code="GRAPHQL_VALIDATION_FAILED")
    with pytest.raises(Fatal, match=r"tote/bets\.graphql"):
        tote.fetch_bets(client, ids(sandbox)[:1])
    monkeypatch.setattr(asking, "QUERY", QUERY.replace("totalCount", "countOfAll"))
    with pytest.raises(Fatal, match="countOfAll"):
        tote.fetch_bets(client, ["x"])


@pytest.mark.parametrize(
    ("what", "absent"),
    [("data", False), ("bets", False), ("bets", True), ("nodes", False), ("nodes", True),
     ("node", False)],
)  # fmt: skip
def test_what_is_null_without_any_error_is_undecodable(
    sandbox: Sandbox, client: Client, what: str, absent: bool
) -> None:
    known = ids(sandbox)[:3]
    sandbox.fault("tote", "null_nodes", what=what, absent=absent)
    with pytest.raises(PageUndecodable):
        read_page(tote.fetch_bets(client, known).body)


def test_too_many_requests_are_waited_out(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("tote", "status", status=429, retry_after="0")
    assert read_page(tote.fetch_bets(client, ids(sandbox)[:1]).body).entries


def test_the_socket_is_where_the_settings_say() -> None:
    assert (
        tote.socket_url("https://tote.test/partner/", QUICK)
        == "wss://tote.test/partner/connections/graphql"
    )
    assert tote.socket_url("http://tote.test", QUICK) == "ws://tote.test/connections/graphql"
