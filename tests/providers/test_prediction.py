"""The prediction engine's wire: what is read exactly, and what an order to settle came to."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.model import Outcome, Record, RecordContext, Status
from include.providers import prediction
from include.providers.deadlines import now
from include.providers.errors import (
    Ambiguous,
    Fatal,
    PageUndecodable,
    RecordRejected,
    Retriable,
)
from include.providers.http import Answer, Client
from include.providers.prediction import (
    Execution,
    PageEntry,
    SettlementRecord,
    Terms,
    classify_answer,
    classify_error,
    is_market_id,
    normalize,
    read_events,
    read_page,
    read_settle_answer,
    read_settlement,
    read_status,
)
from include.sandbox.addresses import PREDICTION_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings

GOLDEN = Path(__file__).parent / "prediction"
CONTEXT = RecordContext(datetime(2026, 2, 19, tzinfo=UTC))
DOLLARS = Terms("USD")
SETTLEMENT: dict[str, Any] = {
    "id": "settlement-1",
    "positionId": "position-1",
    "marketId": "market-1",
    "outcomeId": "outcome-1",
    "operatorId": "operator-1",
    "playerId": "player-1",
    "shares": "100",
    "payoutPerShare": "1",
    "totalPayout": "100",
    "transactionId": None,
    "status": "COMPLETED",
    "errorMessage": None,
    "settledAt": "2026-02-18T23:00:00.000Z",
    "createdAt": "2026-02-18T22:59:58.000Z",
    "updatedAt": "2026-02-18T23:00:01.250Z",
}
TOTALS = {
    "marketId": "market-1",
    "totalPositions": 1,
    "successCount": 1,
    "failedCount": 0,
    "totalPayout": "100.00",
    "cancelledOrders": 2,
}
STATUS = {
    "marketId": "market-1",
    "totalPositions": 4,
    "pendingCount": 1,
    "processingCount": 1,
    "completedCount": 1,
    "failedCount": 1,
    "totalPayout": "12.5",
    "completedPayout": "0.000000000000000001",
}


def written(value: Any) -> bytes:
    """As JavaScript's JSON.stringify writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def listed(*settlements: Any, **beside: Any) -> bytes:
    return written({"success": True, "data": list(settlements), **beside})


def texts_of(body: bytes) -> list[bytes]:
    places = [entry.record for entry in read_page(body).entries]
    return [body[one.byte_start : one.byte_start + one.byte_length] for one in places]


def normalized(**changes: Any) -> Any:
    return normalize(written(SETTLEMENT | changes), CONTEXT, DOLLARS)


def rule_of(record: bytes) -> str:
    with pytest.raises(RecordRejected) as caught:
        normalize(record, CONTEXT, DOLLARS)
    assert caught.value.reason.isascii()
    assert len(caught.value.reason) < 300
    return caught.value.rule


# Golden pairs: every example of the documentation


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value, enc_hook=str))


def told_settlements(body: bytes, entries: tuple[PageEntry, ...]) -> dict[str, Any]:
    places = [entry.record for entry in entries]
    texts = [body[one.byte_start : one.byte_start + one.byte_length] for one in places]
    settlements = plain([normalize(text, CONTEXT, DOLLARS) for text in texts])
    return {
        "record_keys": [entry.record.record_key for entry in entries],
        "records": plain([read_settlement(text) for text in texts]),
        "settlements": [
            {name: value for name, value in one.items() if value not in (None, [])}
            for one in settlements
        ],
    }


def golden(name: str) -> tuple[bytes, Any]:
    folder = GOLDEN / name
    expected = json.loads((folder / "expected.json").read_bytes())
    return (folder / "payload.json").read_bytes(), expected


def test_the_documented_answer_to_settle_becomes_what_is_expected() -> None:
    body, expected = golden("documented_settle_answer")
    told = read_settle_answer(body)
    assert expected == {
        "is_success": told.is_success,
        "code": told.code,
        "errors": list(told.errors),
        "unknown_fields": sorted(told.unknown_fields),
        "totals": plain(told.totals),
        **told_settlements(body, told.entries),
    }


def test_the_documented_status_becomes_what_is_expected() -> None:
    body, expected = golden("documented_status")
    assert plain(read_status(body)) == expected


def test_the_documented_list_becomes_what_is_expected() -> None:
    body, expected = golden("documented_list")
    page = read_page(body)
    assert expected == {
        "next_page": page.next_page,
        "unknown_fields": sorted(page.unknown_fields),
        **told_settlements(body, page.entries),
    }


# Lists, byte for byte


def test_an_entry_of_a_page_carries_what_landing_needs() -> None:
    body, text = listed(SETTLEMENT), written(SETTLEMENT)
    assert read_page(body).entries == (
        PageEntry(
            record=Record("settlement-1", body.index(text), len(text)),
            settlement_id="settlement-1",
            market_id="market-1",
            updated_at=datetime(2026, 2, 18, 23, 0, 1, 250_000, tzinfo=UTC),
            content_sha256=hashlib.sha256(text).digest(),
        ),
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
odd_settlements = st.builds(
    lambda changes, dropped: {
        name: value for name, value in (SETTLEMENT | changes).items() if name not in dropped
    },
    st.dictionaries(st.sampled_from([*SETTLEMENT, "fee"]), json_values, max_size=2),
    st.sets(st.sampled_from(sorted(SETTLEMENT)), max_size=1),
)
space = st.text(alphabet=" \t\r\n", max_size=2)


@given(
    st.lists(odd_settlements | json_values, max_size=4),
    space,
    space,
    st.booleans(),
    st.sampled_from(['{"success":true,"data":%s}', '{"success":true,"data":{"settlements":%s}}']),
)
def test_every_settlement_of_a_list_is_cut_out_exactly(
    elements: list[Any], before: str, after: str, is_ascii: bool, envelope: str
) -> None:
    texts = [
        json.dumps(element, ensure_ascii=is_ascii).encode("utf-8", "replace").decode()
        for element in elements
    ]
    body = (envelope % f"{after}[{f'{before},{after}'.join(texts)}{before}]").encode()
    assert texts_of(body) == [text.encode() for text in texts]
    for entry, text in zip(read_page(body).entries, texts, strict=True):
        assert entry.content_sha256 == hashlib.sha256(text.encode()).digest()


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_are_undecodable_and_nothing_else(body: bytes) -> None:
    for read in (read_page, read_status, read_events):
        with pytest.raises(PageUndecodable) as caught:
            read(body)
        assert 0 < len(caught.value.reason) < 400
    assert read_settle_answer(body).totals is None


@given(st.binary(max_size=30), st.integers(0, 500), st.integers(0, 30))
def test_a_damaged_list_raises_nothing_but_undecodable(
    damage: bytes, start: int, length: int
) -> None:
    body = listed(SETTLEMENT)
    damaged = body[:start] + damage + body[start + length :]
    read_settle_answer(damaged)
    try:
        texts = texts_of(damaged)
    except PageUndecodable:
        return
    for text in texts:
        try:
            normalize(text, CONTEXT)
        except RecordRejected as rejected:
            assert rejected.rule  # noqa: PT017 - whether it is rejected is not known here


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":true,"x":[1],"data":[1]}',
        b'{"success":true,"data":[2],"data":[1]}',
        b'{"success":true,"data":[2],"data":[ 1]}',
        b'{"success":true,"meta":{"data":[1]},"data":[1]}',
    ],
)
def test_a_list_that_stands_elsewhere_too_misleads_nobody(body: bytes) -> None:
    assert texts_of(body) == [b"1"]
    assert read_page(body).entries[0].record.byte_start == len(body) - 3


def test_one_odd_settlement_does_not_cost_its_neighbours() -> None:
    for odd in (rb'"\ud83d"', b"9" * 5000, b"1e999"):
        body = listed(SETTLEMENT, "here", SETTLEMENT | {"id": "settlement-2"})
        body = body.replace(b'"here"', odd)
        first, middle, last = read_page(body).entries
        assert (first.settlement_id, last.settlement_id) == ("settlement-1", "settlement-2")
        assert middle.record.record_key == f"sha256:{hashlib.sha256(odd).hexdigest()}"


@pytest.mark.parametrize("identifier", [None, 5, "", "x" * 129, "a\0b", "\ud83d", [], True])
def test_a_settlement_without_a_usable_id_is_named_by_its_digest(identifier: Any) -> None:
    body = json.dumps(
        {"success": True, "data": [SETTLEMENT | {"id": identifier, "marketId": identifier}]}
    ).encode()
    (entry,) = read_page(body).entries
    assert (entry.settlement_id, entry.market_id) == (None, None)
    assert entry.record.record_key == f"sha256:{entry.content_sha256.hex()}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"<html>502</html>", "it starts with '<html>502</html>'"),
        (b'{"success":true,"data":[NaN]}', "NaN is not JSON"),
        (b'{"success":true,"data":["\xff"]}', "is not UTF-8"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b"[]", "JSON, but not an object"),
        (b'{"data":[]}', "no `success`"),
        (b'{"success":"true","data":[]}', "no `success`"),
        (b'{"success":true}', "no `data`"),
        (b'{"success":true,"data":null}', "no list `data`"),
        (b'{"success":true,"data":{"items":[]}}', "no list `data.settlements`"),
        (
            b'{"success":false,"error":{"code":"SETTLEMENT_FAILED","message":"no\\u0000"}}',
            "the error 'SETTLEMENT_FAILED': None",
        ),
        (
            b'{"success":true,"data":[],"error":{"code":"X","message":"half of it"}}',
            "the error 'X': 'half of it'",
        ),
    ],
)
def test_a_list_that_cannot_be_used_says_why_and_is_never_taken_for_an_empty_one(
    body: bytes, reason: str
) -> None:
    with pytest.raises(PageUndecodable) as caught:
        read_page(body)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("beside", "next_page"),
    [
        ({}, None),
        ({"nextCursor": None}, None),
        ({"nextCursor": ""}, None),
        ({"next": False}, None),
        ({"nextCursor": "a/b?c=1"}, {"cursor": "a/b?c=1"}),
        ({"nextCursor": 7}, {"cursor": "7"}),
        ({"next": "abc"}, {"cursor": "abc"}),
        ({"next": "/api/v1/settlements?page=2&size=5"}, {"page": "2", "size": "5"}),
        ({"next": "https://elsewhere.invalid/x?cursor=a%2Fb"}, {"cursor": "a/b"}),
        ({"meta": {"nextCursor": "m"}}, {"cursor": "m"}),
        ({"pagination": {"next": "p"}}, {"cursor": "p"}),
    ],
)
def test_the_next_page_is_seen_wherever_the_answer_shows_it(
    beside: dict[str, Any], next_page: dict[str, str] | None
) -> None:
    page = read_page(listed(SETTLEMENT, **beside))
    assert (page.next_page, page.unknown_fields) == (next_page, frozenset())


def test_the_next_page_is_seen_inside_of_data() -> None:
    data = {"settlements": [SETTLEMENT], "nextCursor": "d", "total": 9}
    page = read_page(written({"success": True, "data": data}))
    assert page.next_page == {"cursor": "d"}
    assert page.unknown_fields == {"data.total"}


@pytest.mark.parametrize(
    "beside",
    [{"nextCursor": True}, {"next": {}}, {"next": "https://e.invalid/"}, {"next": "x/?"},
     {"nextCursor": "x" * 2001}, {"nextCursor": 1.5}],
)  # fmt: skip
def test_a_next_page_that_cannot_be_followed_is_not_taken_for_the_end(
    beside: dict[str, Any],
) -> None:
    with pytest.raises(PageUndecodable, match="leads to no page"):
        read_page(listed(SETTLEMENT, **beside))


def test_unknown_fields_are_named_by_their_place() -> None:
    page = read_page(listed(SETTLEMENT | {"fee": 1}, SETTLEMENT | {"fee\0": 2}, total=2))
    assert page.unknown_fields == {"data[].fee", "data[].fee\\x00", "total"}
    told = read_settle_answer(
        written({"success": True, "data": TOTALS | {"settlements": [{"x": 1}], "took": 5}})
    )
    assert told.unknown_fields == {"data.settlements[].x", "data.took"}


# Status and events


def test_the_amounts_of_a_status_are_exact() -> None:
    status = read_status(written({"success": True, "data": STATUS}))
    assert (status.total_payout, status.completed_payout) == (
        Decimal("12.5"),
        Decimal("0.000000000000000001"),
    )
    assert (status.pending_count, status.failed_count) == (1, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in STATUS),
        ("pendingCount", -1),
        ("pendingCount", "1"),
        ("pendingCount", 1.5),
        ("totalPayout", 12.5),
        ("totalPayout", "-1"),
        ("totalPayout", "NaN"),
        ("totalPayout", "1,250.00"),
    ],
)
def test_a_status_that_is_not_as_documented_is_undecodable(name: str, value: Any) -> None:
    with pytest.raises(PageUndecodable, match=f"not as documented.*{name}"):
        read_status(written({"success": True, "data": STATUS | {name: value}}))


def test_an_event_is_read_as_far_as_it_can_be() -> None:
    resolved = {"sequence": 7, "eventType": "MARKET_RESOLVED", "marketId": "market-1"}
    odd = {"sequence": -1, "eventType": 5, "marketId": "../settle", "data": {}}
    body = written({"success": True, "data": {"events": [resolved, odd, "x"]}})
    first, second, third = read_events(body).entries
    assert (first.sequence, first.event_type, first.market_id) == (
        7,
        prediction.MARKET_RESOLVED,
        "market-1",
    )
    assert first.record == Record("7", body.index(b'{"sequence":7'), len(written(resolved)))
    assert first.content_sha256 == hashlib.sha256(written(resolved)).digest()
    for entry in (second, third):
        assert (entry.sequence, entry.event_type, entry.market_id) == (None, None, None)
        assert entry.record.record_key == f"sha256:{entry.content_sha256.hex()}"


@pytest.mark.parametrize(
    ("sequence", "read"), [("12", 12), (2**63, None), (True, None), (1.0, None), ("1_0", None)]
)
def test_a_sequence_is_a_whole_number_also_in_a_text(sequence: Any, read: int | None) -> None:
    body = written({"success": True, "data": {"events": [{"sequence": sequence}]}})
    assert read_events(body).entries[0].sequence == read


# What a settlement means


def test_every_documented_field_is_typed() -> None:
    assert read_settlement(written(SETTLEMENT)) == SettlementRecord(
        id="settlement-1",
        position_id="position-1",
        market_id="market-1",
        outcome_id="outcome-1",
        operator_id="operator-1",
        player_id="player-1",
        shares=Decimal(100),  # type: ignore[arg-type]
        payout_per_share=Decimal(1),  # type: ignore[arg-type]
        total_payout=Decimal(100),  # type: ignore[arg-type]
        transaction_id=None,
        status=prediction.RecordStatus.COMPLETED,
        error_message=None,
        settled_at=datetime(2026, 2, 18, 23, tzinfo=UTC),
        created_at=datetime(2026, 2, 18, 22, 59, 58, tzinfo=UTC),
        updated_at=datetime(2026, 2, 18, 23, 0, 1, 250_000, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("PENDING", Status.OPEN),
        ("PROCESSING", Status.OPEN),
        ("COMPLETED", Status.SETTLED),
        ("FAILED", Status.FAILED),
    ],
)
def test_only_what_is_completed_has_an_outcome_and_a_payout(word: str, status: Status) -> None:
    settlement = normalized(status=word, errorMessage="locked")
    is_completed = word == "COMPLETED"
    assert (settlement.status, settlement.reason) == (status, "locked")
    assert settlement.outcome is (Outcome.WON if is_completed else None)
    assert settlement.payout == (Decimal(100) if is_completed else None)


@pytest.mark.parametrize(
    ("share", "outcome"),
    [
        ("1", Outcome.WON),
        ("1.00", Outcome.WON),
        ("0", Outcome.LOST),
        ("0.00", Outcome.LOST),
        ("0.5", Outcome.PARTLY_WON),
        ("1e-7", Outcome.PARTLY_WON),
        ("0.999999999999999999999999999999", Outcome.PARTLY_WON),
    ],
)
def test_the_outcome_is_what_a_share_pays(share: str, outcome: Outcome) -> None:
    assert normalized(payoutPerShare=share).outcome is outcome


def test_what_has_failed_was_decided_when_it_was_last_updated() -> None:
    updated_at = datetime(2026, 2, 18, 23, 0, 1, 250_000, tzinfo=UTC)
    assert normalized(status="FAILED", settledAt=None).settled_at == updated_at
    assert normalized(status="PENDING", settledAt=None).settled_at is None
    assert normalized().settled_at == datetime(2026, 2, 18, 23, tzinfo=UTC)


def test_the_currency_is_the_markets_and_never_guessed() -> None:
    assert normalized().currency == "USD"
    assert normalize(written(SETTLEMENT), CONTEXT).currency is None


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
)
def test_versions_sort_by_when_they_were_updated(left: datetime, right: datetime) -> None:
    orders = [prediction.order_of(moment.replace(tzinfo=UTC)).encode() for moment in (left, right)]
    assert (orders[0] < orders[1]) == (left < right)
    assert (orders[0] == orders[1]) == (left == right)


def test_an_offset_from_utc_changes_nothing_in_the_order() -> None:
    there = "2026-02-19T01:00:01.250+02:00"
    assert normalized(updatedAt=there).provider_order == normalized().provider_order


@given(st.decimals(0, 10**12, allow_nan=False, places=12))
def test_amounts_are_read_digit_by_digit(amount: Decimal) -> None:
    settlement = normalized(totalPayout=str(amount))
    assert settlement.payout == amount
    assert type(settlement.payout) is Decimal


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"id": 5}, "wrong_type"),
        ({"id": ""}, "id_unusable"),
        ({"playerId": "x" * 129}, "id_unusable"),
        ({"positionId": None}, "wrong_type"),
        ({"shares": 100}, "wrong_type"),
        ({"shares": 0.1}, "wrong_type"),
        ({"shares": "-1"}, "number_unusable"),
        ({"shares": "1e25"}, "number_unusable"),
        ({"shares": "1e-31"}, "number_unusable"),
        ({"shares": "1" * 21}, "number_unusable"),
        ({"totalPayout": "NaN"}, "number_unusable"),
        ({"totalPayout": "Infinity"}, "number_unusable"),
        ({"totalPayout": "١"}, "number_unusable"),
        ({"totalPayout": " 1"}, "number_unusable"),
        ({"totalPayout": "1_0"}, "number_unusable"),
        ({"totalPayout": ""}, "number_unusable"),
        ({"totalPayout": None}, "wrong_type"),
        ({"payoutPerShare": "1.01"}, "number_unusable"),
        ({"status": "completed"}, "unknown_status"),
        ({"status": "SETTLED"}, "unknown_status"),
        ({"status": None}, "wrong_type"),
        ({"updatedAt": "2026-02-18T23:00:00"}, "time_unreadable"),
        ({"updatedAt": None}, "wrong_type"),
        ({"updatedAt": "9999-12-31T23:59:59-23:00"}, "time_unreadable"),
        ({"settledAt": "yesterday"}, "time_unreadable"),
        ({"errorMessage": "null\0"}, "text_unstorable"),
        ({"errorMessage": 5}, "wrong_type"),
        ({"playerId": "\ud83d"}, "text_unstorable"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_rejected_by_its_rule(changes: dict[str, Any], rule: str) -> None:
    assert rule_of(json.dumps(SETTLEMENT | changes).encode()) == rule


@pytest.mark.parametrize("name", sorted(SETTLEMENT))
def test_only_what_may_be_null_may_be_missing(name: str) -> None:
    record = written({key: value for key, value in SETTLEMENT.items() if key != name})
    if name in ("transactionId", "errorMessage", "settledAt"):
        assert normalize(record, CONTEXT).source_key == "settlement-1"
    else:
        assert rule_of(record) == "missing_field"


@given(json_values)
def test_an_arbitrary_value_is_no_settlement(value: Any) -> None:
    assert rule_of(json.dumps(value).encode()) in {"wrong_type", "missing_field"}


# What an order came to


def answer_of(status: int, body: Any, *, is_complete: bool = True) -> Answer:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    return Answer(
        status=status,
        body=body if isinstance(body, bytes) else written(body),
        content_type="application/json",
        url_path="/markets/m/settle",
        requested_at=moment,
        received_at=moment,
        is_complete=is_complete,
    )


def classified(status: int, body: Any, *, is_complete: bool = True) -> Execution:
    answer = answer_of(status, body, is_complete=is_complete)
    return classify_answer(answer, read_settle_answer(answer.body))


def failure(code: Any, **more: Any) -> dict[str, Any]:
    return {"success": False, "error": {"code": code, "message": "no"}, **more}


DONE = {"success": True, "data": TOTALS | {"settlements": [SETTLEMENT], "errors": []}}
ANY_STATUS = (200, 201, 302, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503)


@pytest.mark.parametrize("status", ANY_STATUS)
@pytest.mark.parametrize(
    ("code", "execution"),
    [
        ("SETTLEMENT_ALREADY_COMPLETED", Execution.ALREADY_COMPLETED),
        ("SETTLEMENT_FAILED", Execution.FAILED),
    ],
)
def test_a_documented_code_decides_whatever_the_status(
    status: int, code: str, execution: Execution
) -> None:
    assert classified(status, failure(code)) is execution
    assert classified(status, failure(code), is_complete=False) is not execution


def test_without_a_documented_code_the_status_decides() -> None:
    found: dict[Execution, set[int]] = {}
    for status in range(100, 600):
        for body in (b"", b"<html>oops</html>", failure("OTHER"), failure(None)):
            found.setdefault(classified(status, body), set()).add(status)
    assert found.pop(Execution.NOT_EXECUTED) == {429}
    assert found.pop(Execution.REJECTED) == {
        *range(300, 400),
        *(400, 401, 403, 404, 405, 406, 413, 415, 422),
    }
    assert found.keys() == {Execution.IN_DOUBT}


@pytest.mark.parametrize("status", ANY_STATUS)
def test_an_order_is_executed_if_body_and_status_say_so(status: int) -> None:
    is_success = status in (200, 201)
    assert classified(status, DONE) is (Execution.EXECUTED if is_success else Execution.IN_DOUBT)
    assert classified(status, DONE, is_complete=False) is Execution.IN_DOUBT


@pytest.mark.parametrize(
    "body",
    [
        {"success": True},
        {"success": True, "data": {}},
        {"success": True, "data": TOTALS | {"totalPayout": 100}},
        {"success": "true", "data": TOTALS},
        {"data": TOTALS},
        DONE | {"error": {"code": "SETTLEMENT_FAILED", "message": "and done"}},
        failure("SETTLEMENT_FAILED") | {"success": True},
        failure("settlement_failed"),
        failure(["SETTLEMENT_FAILED"]),
        [],
    ],
    ids=str,
)
def test_an_answer_that_contradicts_itself_or_says_nothing_is_in_doubt(body: Any) -> None:
    assert classified(200, body) is Execution.IN_DOUBT


def test_an_error_is_classed_by_whether_anything_was_sent() -> None:
    texts = ("prediction", "it happened", "do this")
    assert classify_error(Retriable(*texts)) is Execution.NOT_EXECUTED
    assert classify_error(Fatal(*texts)) is Execution.REJECTED
    # Not the market's fault, and none is refused for it.
    assert classify_error(Fatal(*texts, fault="certificate")) is Execution.NOT_EXECUTED
    assert classify_error(Ambiguous(*texts)) is Execution.IN_DOUBT
    assert classify_error(MemoryError()) is Execution.IN_DOUBT


def test_what_the_engine_lists_as_errors_is_kept_short() -> None:
    errors = [{"positionId": "p"}, "locked", "\0", "x" * 1000, 5]
    told = read_settle_answer(
        written({"success": True, "data": TOTALS | {"errors": errors, "settlements": None}})
    )
    assert told.errors[:3] == ('{"positionId": "p"}', '"locked"', '"\\u0000"')
    assert max(map(len, told.errors)) == 500
    assert told.entries == ()


# The wire


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    settings = Settings(call_deadline_seconds=2, read_attempts=1)
    with prediction.open_client(sandbox.prediction_url, PREDICTION_KEY, settings) as opened:
        yield opened


def soon(seconds: float = 10.0) -> float:
    return now() + seconds


def settled(client: Client, market_id: str, seconds: float = 10.0) -> Execution:
    answer = prediction.settle(client, market_id, ends_at=soon(seconds))
    return classify_answer(answer, read_settle_answer(answer.body))


def executions(sandbox: Sandbox) -> int:
    return int(sandbox.ledger("prediction")["settle_executions"])


def test_a_market_is_settled_told_listed_and_not_settled_again(
    sandbox: Sandbox, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    market_id = sandbox.prediction_market_ids()[2]
    assert read_status(prediction.fetch_status(client, market_id).body).total_positions == 0
    assert settled(client, market_id) is Execution.EXECUTED
    assert settled(client, market_id) is Execution.ALREADY_COMPLETED
    status = read_status(prediction.fetch_status(client, market_id).body)
    body = prediction.fetch_settlements(client, market_id=market_id).body
    settlements = [normalize(text, CONTEXT, DOLLARS) for text in texts_of(body)]
    assert len(settlements) == status.completed_count == 25
    assert sum(one.payout or 0 for one in settlements) == status.completed_payout
    assert executions(sandbox) == 1
    assert PREDICTION_KEY not in caplog.text


def test_failed_settlements_are_retried(sandbox: Sandbox, client: Client) -> None:
    sandbox.configure("prediction", failing_share=1.0)
    market_id = sandbox.prediction_market_ids()[0]
    assert settled(client, market_id) is Execution.EXECUTED
    answer = prediction.retry_settlements(client, market_id, ends_at=soon())
    told = read_settle_answer(answer.body)
    assert classify_answer(answer, told) is Execution.EXECUTED
    assert told.totals is not None
    assert (told.totals.success_count, told.totals.failed_count) == (25, 0)


@pytest.mark.parametrize(
    ("kind", "executed", "outcome"),
    [
        ("reset_before_answer", True, Execution.IN_DOUBT),
        ("reset_before_answer", False, Execution.IN_DOUBT),
        ("closed_without_answer", True, Execution.IN_DOUBT),
        ("silence", True, Execution.IN_DOUBT),
        ("truncated_body", True, Execution.IN_DOUBT),
        ("reset_in_body", False, Execution.IN_DOUBT),
        ("malformed_json", True, Execution.IN_DOUBT),
        ("html_page", True, Execution.IN_DOUBT),
        ("wrong_envelope", True, Execution.IN_DOUBT),
        ("redirect", False, Execution.REJECTED),
    ],
)
def test_an_order_that_ends_badly_is_made_once_and_classed(
    sandbox: Sandbox, client: Client, kind: str, executed: bool, outcome: Execution
) -> None:
    market_id = sandbox.prediction_market_ids()[0]
    sandbox.fault("prediction", kind, call="settle", executed=executed)
    try:
        found = settled(client, market_id, 0.7)
    except (Retriable, Ambiguous, Fatal) as error:
        found = classify_error(error)
    assert found is outcome
    assert sum(sandbox.calls()["counts"]["prediction.settle"].values()) == 1
    assert executions(sandbox) == executed


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_order_is_not_repeated_by_the_wire(
    sandbox: Sandbox, client: Client, status: int
) -> None:
    market_id = sandbox.prediction_market_ids()[0]
    sandbox.fault("prediction", "status", call="retry", status=status, retry_after="7")
    answer = prediction.retry_settlements(client, market_id, ends_at=soon())
    assert (answer.status, answer.retry_after) == (status, 7)
    assert sum(sandbox.calls()["counts"]["prediction.retry"].values()) == 1


def test_an_engine_that_is_down_was_told_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        prediction.open_client(f"http://127.0.0.1:{port}", "key", Settings()) as client,
        pytest.raises(Retriable, match="Nothing of this call was sent"),
    ):
        prediction.settle(client, "market-1", ends_at=soon())


@pytest.mark.parametrize(
    "market_id",
    ["", ".", "..", "../x", "a/b", "a\\b", "a%2Fb", "a?b", "a#b", "a b", "a\n", "é", "a;b",
     "x" * 129, "\ud83d", "a\0"],
)  # fmt: skip
def test_an_id_that_leaves_its_place_in_the_address_is_sent_nowhere(
    sandbox: Sandbox, client: Client, market_id: str
) -> None:
    assert not is_market_id(market_id)
    with pytest.raises(Fatal, match="cannot be part of an address"):
        prediction.settle(client, market_id, ends_at=soon())
    with pytest.raises(Fatal, match="cannot be part of an address"):
        prediction.retry_settlements(client, market_id, ends_at=soon())
    with pytest.raises(Fatal, match="cannot be part of an address"):
        prediction.fetch_status(client, market_id)
    assert sandbox.calls()["total"] == 0


@pytest.mark.parametrize(
    "market_id", ["1b4e28ba-2fa1-41d2-883f-0016d3cca427", "market-1", "...", "A_1"]
)
def test_an_id_of_letters_digits_and_hyphens_is_one(market_id: str) -> None:
    assert is_market_id(market_id)


@pytest.mark.parametrize("form", ["next_cursor", "next_address", "next_cursor_in_data"])
def test_a_list_in_pages_is_read_whole(sandbox: Sandbox, client: Client, form: str) -> None:
    market_id = sandbox.prediction_market_ids()[1]
    assert settled(client, market_id) is Execution.EXECUTED
    whole = texts_of(prediction.fetch_settlements(client, market_id=market_id).body)
    sandbox.configure("prediction", page_limit=10, page_form=form)
    pages = list(prediction.fetch_listing(client, market_id=market_id, pages_limit=3))
    assert [len(read_page(page.body).entries) for page in pages] == [10, 10, 5]
    assert [text for page in pages for text in texts_of(page.body)] == whole
    assert all(PREDICTION_KEY not in page.url_path for page in pages)


def test_a_list_that_goes_on_and_on_is_stopped_with_its_pages_kept(
    sandbox: Sandbox, client: Client
) -> None:
    market_id = sandbox.prediction_market_ids()[1]
    settled(client, market_id)
    sandbox.configure("prediction", page_limit=5)
    given: list[Answer] = []
    with pytest.raises(Fatal, match=r"goes on after 4 pages.*PREDICTION_LISTING_PAGES_LIMIT"):
        given.extend(prediction.fetch_listing(client, market_id=market_id, pages_limit=4))
    assert len(given) == 4


def test_a_list_that_leads_back_to_a_page_is_stopped(sandbox: Sandbox, client: Client) -> None:
    market_id = sandbox.prediction_market_ids()[1]
    settled(client, market_id)
    sandbox.configure("prediction", page_limit=5)
    sandbox.fault("prediction", "repeated_page", call="settlements", after_calls=2)
    with pytest.raises(Fatal, match="leads back to a page already read after 3 pages"):
        list(prediction.fetch_listing(client, market_id=market_id, pages_limit=50))


def test_a_page_is_given_away_before_it_is_looked_into(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("prediction", "html_page", call="settlements")
    pages = prediction.fetch_listing(client, pages_limit=5)
    assert b"<html>" in next(pages).body
    with pytest.raises(PageUndecodable, match="not JSON"):
        next(pages)


def test_settlements_are_listed_by_player_too(sandbox: Sandbox, client: Client) -> None:
    sandbox.configure("prediction", players=30)
    for market_id in sandbox.prediction_market_ids(limit=3):
        settled(client, market_id)
    whole = [read_settlement(text) for text in texts_of(prediction.fetch_settlements(client).body)]
    player_id = whole[0].player_id
    own = texts_of(prediction.fetch_settlements(client, player_id=player_id).body)
    assert [read_settlement(text) for text in own] == [
        one for one in whole if one.player_id == player_id
    ]
    both = prediction.fetch_settlements(
        client, player_id=player_id, market_id=whole[0].market_id, next_page={"playerId": "other"}
    )
    assert {read_settlement(text).market_id for text in texts_of(both.body)} == {whole[0].market_id}


def test_events_tell_which_markets_were_resolved_and_since_when(
    sandbox: Sandbox, client: Client
) -> None:
    known = sandbox.prediction_market_ids()
    first = read_events(prediction.fetch_events(client, since=None, limit=15).body).entries
    last = first[-1].sequence
    second = read_events(prediction.fetch_events(client, since=last).body).entries
    assert [entry.market_id for entry in (*first, *second)] == known
    sequences = [entry.sequence or 0 for entry in (*first, *second)]
    assert sequences == sorted(set(sequences))
    sandbox.advance("prediction", 2)
    third = read_events(prediction.fetch_events(client, since=sequences[-1]).body).entries
    assert [entry.market_id for entry in third] == sandbox.prediction_market_ids(after=20)


def test_a_read_is_tried_again_and_then_says_what_to_do(sandbox: Sandbox) -> None:
    settings = Settings(read_attempts=2)
    with prediction.open_client(sandbox.prediction_url, PREDICTION_KEY, settings) as client:
        sandbox.fault("prediction", "status", status=429, retry_after="0")
        assert prediction.fetch_settlements(client).status == 200
        with pytest.raises(Fatal, match="the engine does not know the market"):
            prediction.fetch_status(client, "market-1")
    with (
        prediction.open_client(sandbox.prediction_url, "wrong-key", settings) as client,
        pytest.raises(Fatal, match="Check the password of the Airflow connection `prediction`"),
    ):
        prediction.fetch_settlements(client)


def test_times_are_in_utc_whatever_their_offset() -> None:
    there = normalized(settledAt="2026-02-19T01:00:00+02:00").settled_at
    assert there == datetime(2026, 2, 18, 23, tzinfo=UTC)
    assert there.utcoffset() == timedelta(0)
