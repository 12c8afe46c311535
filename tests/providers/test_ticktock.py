"""The ticktock settlement log: taking pages apart, order, cursor, and what each word becomes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.model import Outcome, Record, RecordContext, Settlement, Status
from include.providers import ticktock
from include.providers.errors import Fatal, PageUndecodable, RecordRejected
from include.providers.ticktock import PageEntry, normalize, order_of, read_page
from include.settings import Settings
from tests.wire_server import answer, wire_server

CONTEXT = RecordContext(received_at=datetime(2026, 5, 10, 19, tzinfo=UTC))
GOLDEN = sorted(path.parent for path in Path(__file__).parent.glob("ticktock/*/payload.json"))
ENTRY: dict[str, Any] = {
    "id": 481234,
    "market_offer_id": "ofr_abc",
    "match_id": "52ef",
    "previous_status": "pending",
    "new_status": "settled",
    "outcome": "won",
    "settled_by": "engine",
    "is_resettlement": False,
    "created_at": "2026-05-10T18:32:14+00:00",
}


def body_of(*entries: Any, **meta: Any) -> bytes:
    return json.dumps({"data": entries, "meta": meta or {"count": len(entries)}}).encode()


def texts_of(body: bytes) -> list[bytes]:
    records = [entry.record for entry in read_page(body).entries]
    return [body[record.byte_start :][: record.byte_length] for record in records]


def normalized(**changes: Any) -> Settlement:
    return normalize(json.dumps(ENTRY | changes).encode(), CONTEXT)


def rule_of(record: bytes) -> str:
    with pytest.raises(RecordRejected) as caught:
        normalize(record, CONTEXT)
    assert caught.value.reason.isascii()
    assert len(caught.value.reason) < 300
    return caught.value.rule


# Golden pairs


def test_there_are_golden_pairs() -> None:
    assert "documented_example" in {folder.name for folder in GOLDEN}


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_payload_becomes_what_is_expected(folder: Path) -> None:
    body = (folder / "payload.json").read_bytes()
    page = read_page(body)
    settlements = [normalize(text, CONTEXT) for text in texts_of(body)]
    assert json.loads((folder / "expected.json").read_bytes()) == {
        "provider_count": page.provider_count,
        "unknown_fields": sorted(page.unknown_fields),
        "record_keys": [entry.record.record_key for entry in page.entries],
        "settlements": json.loads(msgspec.json.encode(settlements)),
    }


# Pages


def test_an_entry_of_a_page_carries_what_landing_needs() -> None:
    body = body_of(ENTRY)
    text = json.dumps(ENTRY).encode()
    assert read_page(body).entries == (
        PageEntry(
            record=Record("481234", body.index(text), len(text)),
            entry_id="481234",
            created_at=datetime(2026, 5, 10, 18, 32, 14, tzinfo=UTC),
            match_id="52ef",
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
odd_entries = st.builds(
    lambda changes, dropped: {
        name: value for name, value in (ENTRY | changes).items() if name not in dropped
    },
    st.dictionaries(st.sampled_from([*ENTRY, "reason", "odds"]), json_values, max_size=2),
    st.sets(st.sampled_from(sorted(ENTRY)), max_size=1),
)
good_entries = st.builds(lambda number: ENTRY | {"id": number}, st.integers(0, 2**63 - 1))
space = st.text(alphabet=" \t\r\n", max_size=2)


@given(st.lists(good_entries | odd_entries | json_values, max_size=4), space, space, st.booleans())
def test_every_element_of_data_is_cut_out_exactly(
    elements: list[Any], before: str, after: str, is_ascii: bool
) -> None:
    texts = [json.dumps(element, ensure_ascii=is_ascii) for element in elements]
    separator = f"{before},{after}"
    document = f'{{"meta": {{"count": 1}},{before}"data":{after}[{separator.join(texts)}{before}]}}'
    if not is_ascii:
        document = document.encode("utf-8", "replace").decode()
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
    body = document.encode()
    assert texts_of(body) == [text.encode() for text in texts]
    for entry, text in zip(read_page(body).entries, texts, strict=True):
        assert entry.content_sha256 == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b'{"x": 1, "data": [1, 2]}', [b"1", b"2"]),
        (b'{"x": [1, 3], "data": [1, 2, 3]}', [b"1", b"2", b"3"]),
        (b'{"data": [1, 2], "data": [1, 3]}', [b"1", b"3"]),
        (b'{"data": [1], "data": []}', []),
        (b'{"\xc3\xa9": 1, "data": ["\\ud800", 4] }', [b'"\\ud800"', b"4"]),
        (b'{"data": ["\\ud800", "\xc3\xa9", 4] }', [b'"\\ud800"', b'"\xc3\xa9"', b"4"]),
    ],
)
def test_text_that_stands_elsewhere_too_misleads_nobody(body: bytes, texts: list[bytes]) -> None:
    assert texts_of(body) == texts


@pytest.mark.parametrize("other", ["data", "before"])
def test_a_list_that_stands_twice_is_cut_out_of_data_itself(other: str) -> None:
    listed = f"[{json.dumps(ENTRY)}, {json.dumps(ENTRY | {'id': 2})}]"
    body = f'{{"{other}": {listed}, "data": {listed}, "meta": {{"count": 2}}}}'
    assert read_page(body.encode()).entries[0].record.byte_start == body.rindex("[") + 1


def test_a_list_that_a_later_one_replaces_is_not_read() -> None:
    first, second, third = (json.dumps(ENTRY | {"id": number}) for number in (1, 2, 3))
    body = f'{{"data": [{first}, {second}], "meta": {{"count": 2}}, "data": [{first}, {third}]}}'
    assert texts_of(body.encode()) == [first.encode(), third.encode()]
    assert [entry.entry_id for entry in read_page(body.encode()).entries] == ["1", "3"]


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_raise_nothing_but_undecodable(body: bytes) -> None:
    try:
        read_page(body)
    except PageUndecodable as error:
        assert error.reason  # noqa: PT017 - which bytes raise is not known here


@given(st.binary(max_size=30), st.integers(0, 400), st.integers(0, 30))
def test_a_damaged_page_raises_nothing_but_undecodable(
    damage: bytes, start: int, length: int
) -> None:
    body = body_of(ENTRY)
    damaged = body[:start] + damage + body[start + length :]
    try:
        texts = texts_of(damaged)
    except PageUndecodable:
        return
    for text in texts:
        try:
            normalize(text, CONTEXT)
        except RecordRejected as rejected:
            assert rejected.rule  # noqa: PT017 - whether it is rejected is not known here


@given(json_values)
def test_an_arbitrary_value_is_normalized_or_rejected(value: Any) -> None:
    assert rule_of(json.dumps(value).encode()) in {"wrong_type", "missing_field"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON: Expecting value (character 0;"),
        (b"<html>502</html>", "it starts with '<html>502</html>'"),
        (b'{"data": [', "not JSON: Expecting value (character 10;"),
        (b'{"data": [{"id": 1}', "not JSON: Expecting ',' delimiter (character 19;"),
        (b'{"data": []} {}', "not JSON: Extra data (character 13;"),
        (b'{"data": [NaN]}', "NaN is not JSON"),
        (b'{"data": [-Infinity]}', "-Infinity is not JSON"),
        (b'{"data": ["\x01"]}', "Invalid control character"),
        (b'{"data": ["\xff"]}', "byte 11 of the body is not UTF-8"),
        (b'{"data": [], "\xed\xa0\x80": 1}', "byte 14 of the body is not UTF-8"),
        (b"\xef\xbb\xbf" + body_of(ENTRY), "not JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b'{"data": [' + b"[" * 200_000 + b"]" * 200_000 + b"]}", "nested too deeply"),
        (b"[]", "JSON, but not an object"),
        (b"null", "JSON, but not an object"),
        (b'{"detail": "nope"}', "no list `data`"),
        (b'{"data": {}}', "no list `data`"),
        (b'{"data": null, "meta": {"count": 0}}', "no list `data`"),
        (b'{"data": [' + b"1," * 10_000 + b"1]}", "holds 10001 entries, more than 10000"),
    ],
)
def test_an_undecodable_page_says_where(body: bytes, reason: str) -> None:
    with pytest.raises(PageUndecodable) as caught:
        read_page(body)
    assert reason in caught.value.reason
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize(
    "identifier",
    [True, None, 1.0, -1, 2**63, 10**400, "", "x" * 129, "a\0b", "\ud800", [], {}],
)
def test_an_entry_without_a_usable_id_is_named_by_its_digest(identifier: Any) -> None:
    body = body_of(ENTRY, ENTRY | {"id": identifier})
    good, odd = read_page(body).entries
    assert good.entry_id == "481234"
    assert odd.entry_id is None
    assert odd.record.record_key == f"sha256:{odd.content_sha256.hex()}"
    assert (odd.created_at, odd.match_id) == (good.created_at, good.match_id)


@pytest.mark.parametrize(
    ("digits", "key"), [("-0", "0"), ("9" * 5000, None), ("1e3", None), ("1.0", None)]
)
def test_a_number_is_an_id_only_if_it_is_whole_and_of_reasonable_size(
    digits: str, key: str | None
) -> None:
    body = body_of(ENTRY).replace(b"481234", digits.encode())
    assert read_page(body).entries[0].entry_id == key


@pytest.mark.parametrize("element", [1, "text", None, [], True])
def test_an_element_that_is_no_object_is_landed_too(element: Any) -> None:
    entry = read_page(body_of(ENTRY, element)).entries[1]
    assert (entry.entry_id, entry.created_at, entry.match_id) == (None, None, None)
    assert entry.record.record_key.startswith("sha256:")


def test_the_same_id_as_number_and_as_text_is_the_same_key() -> None:
    number, text = read_page(body_of(ENTRY, ENTRY | {"id": "481234"})).entries
    assert number.record.record_key == text.record.record_key


@pytest.mark.parametrize(
    "written",
    ["2026-05-10T18:32:14", "yesterday", "", 1778437934, None, "\ud800",
     "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_none(written: Any) -> None:
    entry = read_page(body_of(ENTRY | {"created_at": written})).entries[0]
    assert (entry.entry_id, entry.created_at) == ("481234", None)


def test_a_time_is_in_utc() -> None:
    entry = read_page(body_of(ENTRY | {"created_at": "2026-05-10T20:32:14+02:00"})).entries[0]
    assert entry.created_at == datetime(2026, 5, 10, 18, 32, 14, tzinfo=UTC)
    assert entry.created_at.tzinfo is UTC


def test_a_match_id_that_cannot_be_stored_is_none() -> None:
    for match_id in ("a\0", "\udfff", 5, 10**400, None):
        entry = read_page(body_of(ENTRY | {"match_id": match_id})).entries[0]
        assert (entry.entry_id, entry.match_id) == ("481234", None)


@pytest.mark.parametrize(
    ("meta", "count", "unknown"),
    [
        ({"count": 3}, 3, set()),
        ({"count": 3, "next": "x"}, 3, {"meta.next"}),
        ({"total": 3}, None, {"meta.total"}),
        ({"count": "3"}, None, {"meta.count"}),
        ({"count": True}, None, {"meta.count"}),
        ({"count": -1}, None, {"meta.count"}),
        ({"count": 3.0}, None, {"meta.count"}),
        ({"count": 2**40}, None, {"meta.count"}),
    ],
)
def test_the_providers_count_is_taken_only_as_documented(
    meta: dict[str, Any], count: int | None, unknown: set[str]
) -> None:
    page = read_page(body_of(ENTRY, **meta))
    assert (page.provider_count, page.unknown_fields) == (count, unknown)


def test_a_page_without_meta_has_no_count() -> None:
    for body in (b'{"data": []}', b'{"data": [], "meta": null}'):
        assert read_page(body).provider_count is None
    assert read_page(b'{"data": [], "meta": null}').unknown_fields == {"meta"}


def test_unknown_fields_are_named_by_their_place() -> None:
    body = json.dumps({"data": [ENTRY | {"odds": 2, "meta": 1}, ENTRY | {"odds": 3}], "next": 1})
    assert read_page(body.encode()).unknown_fields == {"data[].odds", "data[].meta", "next"}


def test_names_of_unknown_fields_are_few_short_and_storable() -> None:
    names = {f"{number:03}\0\ud800" + "x" * 1000: 1 for number in range(100)}
    unknown = read_page(body_of(ENTRY | names)).unknown_fields
    assert len(unknown) == 20
    assert all(len(name) <= 100 and name.isascii() and name.isprintable() for name in unknown)


# Order and cursor


@given(st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1))
def test_numeric_ids_sort_as_numbers(left: int, right: int) -> None:
    orders = [order_of(str(number), None).encode() for number in (left, right)]
    assert (orders[0] < orders[1]) == (left < right)
    assert (orders[0] == orders[1]) == (left == right)


moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])).filter(
    lambda moment: 1 < moment.year < 9999
)


@given(moments, moments, st.uuids(), st.uuids())
def test_other_ids_sort_by_time_then_id(
    left: datetime, right: datetime, one: object, other: object
) -> None:
    orders = [order_of(f"u{one}", left).encode(), order_of(f"u{other}", right).encode()]
    assert (orders[0] < orders[1]) == ((left, str(one)) < (right, str(other)))


@pytest.mark.parametrize("entry_id", ["007", "+7", "-7", "7 ", "٧", "²", "0x7"])
def test_only_the_plain_spelling_of_a_number_is_one(entry_id: str) -> None:
    moment = datetime(2026, 5, 10, tzinfo=UTC)
    assert order_of(entry_id, moment) == f"t2026-05-10T00:00:00.000000|{entry_id}"


def test_order_needs_a_number_of_reasonable_size_or_a_time() -> None:
    with pytest.raises(RecordRejected, match="id_unusable"):
        order_of("9" * 21, datetime(2026, 5, 10, tzinfo=UTC))
    with pytest.raises(RecordRejected, match="time_unreadable"):
        order_of("uuid", None)


def cursor_of(*entries: tuple[Any, str | None]) -> str | None:
    body = body_of(*(ENTRY | {"id": name, "created_at": moment} for name, moment in entries))
    found = ticktock.most_recent(read_page(body).entries)
    return None if found is None else found.entry_id


EARLY, LATE = "2026-05-10T18:00:00Z", "2026-05-10T19:00:00Z"


@pytest.mark.parametrize(
    ("entries", "cursor"),
    [
        ([], None),
        ([(None, EARLY)], None),
        ([(9, EARLY), (10, EARLY)], "10"),
        ([(10, EARLY), (9, LATE)], "10"),
        ([("10", EARLY), (9, LATE)], "10"),
        ([(10, EARLY), (True, LATE)], "10"),
        ([("b", EARLY), ("a", LATE)], "a"),
        ([("b", LATE), ("a", EARLY)], "b"),
        ([("10", EARLY), ("a", LATE)], "a"),
        ([("a", EARLY), ("b", LATE), ("c", LATE)], "c"),
        ([("c", LATE), ("b", LATE), ("a", EARLY)], "c"),
        ([("a", LATE), ("b", LATE)], "b"),
        ([("a", EARLY), ("b", None)], "a"),
        ([("a", None), ("b", None)], "b"),
        ([("b", "2026-05-10T20:00:00+02:00"), ("a", LATE)], "a"),
    ],
)
def test_the_cursor_is_the_most_recent_entry_in_any_page_order(
    entries: list[tuple[Any, str | None]], cursor: str | None
) -> None:
    assert cursor_of(*entries) == cursor


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([], []),
        ([(None, EARLY)], []),
        ([(10, EARLY), (9, LATE)], ["9"]),
        ([("b", LATE), ("a", EARLY)], ["a"]),
        ([("a", EARLY), ("b", LATE), ("c", EARLY)], ["a", "c"]),
        ([("a", None), ("b", LATE)], ["b"]),
        ([("a", None), ("b", None)], ["a", "b"]),
    ],
)
def test_the_oldest_entries_are_found_in_any_page_order(
    entries: list[tuple[Any, str | None]], names: list[str]
) -> None:
    body = body_of(*(ENTRY | {"id": name, "created_at": moment} for name, moment in entries))
    assert [entry.entry_id for entry in ticktock.oldest(read_page(body).entries)] == names


# What each word becomes


@pytest.mark.parametrize(
    ("new_status", "outcome", "expected"),
    [
        ("pending", None, (Status.OPEN, None)),
        ("settled", "won", (Status.SETTLED, Outcome.WON)),
        ("settled", "lost", (Status.SETTLED, Outcome.LOST)),
        ("voided", "void", (Status.VOID, Outcome.VOID)),
    ],
)
def test_canonical_words(
    new_status: str, outcome: str | None, expected: tuple[Status, Outcome | None]
) -> None:
    settlement = normalized(new_status=new_status, outcome=outcome)
    assert (settlement.status, settlement.outcome) == expected


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        (None, None),
        ("pending", Status.OPEN),
        ("settled", Status.SETTLED),
        ("voided", Status.VOID),
    ],
)
def test_the_claimed_previous_status_is_canonical_too(
    claimed: str | None, expected: Status | None
) -> None:
    assert normalized(previous_status=claimed).previous_status is expected


def test_optional_fields_may_be_absent() -> None:
    optional = {"previous_status", "settled_by", "outcome"}
    entry = {name: value for name, value in ENTRY.items() if name not in optional}
    settlement = normalize(json.dumps(entry | {"new_status": "pending"}).encode(), CONTEXT)
    assert settlement.previous_status is settlement.settled_by is settlement.outcome is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"new_status": "cancelled"}, "unknown_status"),
        ({"new_status": "Settled"}, "unknown_status"),
        ({"new_status": ""}, "unknown_status"),
        ({"previous_status": "cancelled"}, "unknown_status"),
        ({"outcome": "push"}, "unknown_outcome"),
        ({"outcome": ""}, "unknown_outcome"),
        ({"outcome": None}, "status_outcome_mismatch"),
        ({"outcome": "void"}, "status_outcome_mismatch"),
        ({"new_status": "pending"}, "status_outcome_mismatch"),
        ({"new_status": "voided"}, "status_outcome_mismatch"),
        ({"new_status": "voided", "outcome": None}, "status_outcome_mismatch"),
        ({"id": None}, "wrong_type"),
        ({"id": True}, "wrong_type"),
        ({"id": 1.5}, "wrong_type"),
        ({"id": -1}, "id_unusable"),
        ({"id": 2**63}, "id_unusable"),
        ({"id": 10**400}, "id_unusable"),
        ({"id": ""}, "id_unusable"),
        ({"id": "9" * 21}, "id_unusable"),
        ({"match_id": ""}, "id_unusable"),
        ({"market_offer_id": "x" * 129}, "id_unusable"),
        ({"match_id": 7}, "wrong_type"),
        ({"new_status": None}, "wrong_type"),
        ({"is_resettlement": "false"}, "wrong_type"),
        ({"is_resettlement": 0}, "wrong_type"),
        ({"settled_by": {}}, "wrong_type"),
        ({"settled_by": 10**400}, "wrong_type"),
        ({"new_status": -(10**128)}, "wrong_type"),
        ({"reason": 5}, "wrong_type"),
        ({"created_at": 1778437934}, "wrong_type"),
        ({"created_at": "2026-05-10T18:32:14"}, "time_unreadable"),
        ({"created_at": "10 May 2026"}, "time_unreadable"),
        ({"created_at": "2026-02-30T00:00:00Z"}, "time_unreadable"),
        ({"created_at": "9999-12-31T23:59:59-23:00"}, "time_unreadable"),
        ({"reason": "a\0"}, "text_unstorable"),
        ({"reason": "\ud800"}, "text_unstorable"),
        ({"settled_by": "\udfff!"}, "text_unstorable"),
        ({"match_id": "a\0"}, "text_unstorable"),
        ({"id": "a\ud83d"}, "text_unstorable"),
    ],
)
def test_what_cannot_be_trusted_is_rejected(changes: dict[str, Any], rule: str) -> None:
    assert rule_of(json.dumps(ENTRY | changes).encode()) == rule


@pytest.mark.parametrize(
    "name", ["id", "market_offer_id", "match_id", "new_status", "is_resettlement", "created_at"]
)
def test_a_required_field_that_is_missing_is_named(name: str) -> None:
    entry = {other: value for other, value in ENTRY.items() if other != name}
    with pytest.raises(RecordRejected, match=f"missing_field: `{name}` is missing"):
        normalize(json.dumps(entry).encode(), CONTEXT)


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (b"", "undecodable"),
        (b'{"id": 1', "undecodable"),
        (b'{"id": "\xff"}', "undecodable"),
        (b"[" * 200_000, "undecodable"),
        (b"[]", "wrong_type"),
        (b"7", "wrong_type"),
    ],
)
def test_a_record_that_is_no_entry_is_rejected(record: bytes, rule: str) -> None:
    assert rule_of(record) == rule


def test_an_odd_value_of_an_unknown_field_rejects_nothing() -> None:
    record = json.dumps(ENTRY | {"note": "\ud800", "size": 10**400}).encode()
    assert normalize(record, CONTEXT) == normalized()


def test_parts_of_a_source_key_cannot_be_confused() -> None:
    pairs = [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("a%", "2Fb/c"), ("a", "b%2Fc")]
    keys = {normalized(match_id=match, market_offer_id=offer).source_key for match, offer in pairs}
    assert len(keys) == len(pairs)
    assert normalized().source_key == "52ef/ofr_abc"


# Calls


def test_the_log_is_asked_for_with_key_limit_and_cursor() -> None:
    body = body_of(ENTRY)
    with (
        wire_server(answer(200, body), answer(200, body)) as server,
        ticktock.open_client(server.base_url, "the-key", Settings()) as client,
    ):
        assert ticktock.fetch_settlements(client, since_id=None, limit=1).body == body
        assert ticktock.fetch_settlements(client, since_id="481234", limit=200).body == body
    first, second = (request.splitlines() for request in server.requests)
    assert first[0] == b"GET /cs2/v1/settlements?limit=1 HTTP/1.1"
    assert second[0] == b"GET /cs2/v1/settlements?limit=200&since_id=481234 HTTP/1.1"
    assert b"X-API-Key: the-key" in first


def test_a_match_is_asked_for_by_its_encoded_id() -> None:
    with (
        wire_server(answer(), answer()) as server,
        ticktock.open_client(server.base_url, "the-key", Settings()) as client,
    ):
        ticktock.fetch_match_settlements(client, "52ef…/1?x=#%2e")
        ticktock.fetch_match_settlements(client, "..a", limit=5)
    lines = [request.splitlines()[0] for request in server.requests]
    assert lines == [
        b"GET /cs2/v1/matches/52ef%E2%80%A6%2F1%3Fx%3D%23%252e/settlements?limit=1000 HTTP/1.1",
        b"GET /cs2/v1/matches/..a/settlements?limit=5 HTTP/1.1",
    ]


@pytest.mark.parametrize(
    "match_id", ["", ".", "..", "a/../b", "..\\b", "a//b", "\ud800", "x" * 999]
)
def test_a_match_id_that_would_lead_elsewhere_is_refused_unsent(match_id: str) -> None:
    with (
        wire_server() as server,
        ticktock.open_client(server.base_url, "the-key", Settings()) as client,
        pytest.raises(Fatal, match="cannot be part of an address"),
    ):
        ticktock.fetch_match_settlements(client, match_id)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("status", "meaning"), [(403, "cs2:markets:settlements"), (404, "unknown to ticktock"),
                            (422, "SETTLEMENTS_TICKTOCK_PAGE_LIMIT")],
)  # fmt: skip
def test_a_refusal_says_what_it_means_at_ticktock(status: int, meaning: str) -> None:
    with (
        wire_server(answer(status)) as server,
        ticktock.open_client(server.base_url, "the-key", Settings()) as client,
        pytest.raises(Fatal, match=meaning),
    ):
        ticktock.fetch_settlements(client, since_id=None, limit=1)
