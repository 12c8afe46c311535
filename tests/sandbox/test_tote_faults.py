"""Faults of tote come when and as they were ordered, for one answer or one connection."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection

from include.providers.tote import QUERY, SUBPROTOCOLS, Hint
from include.sandbox.app import FAULTS, FAULTS_OF_STREAMS, FAULTS_OF_TOTE, ITEM_FAULTS
from include.sandbox.client import Sandbox
from tests.sandbox.test_tote import HOUR, Asker
from tests.sandbox.test_tote_socket import Listener, hear, next_text

BETS = 9
"""Of the first script: accepted, resulted and settled within four hours."""
HINTS = 3 * BETS


@pytest.fixture
def asker(sandbox: Sandbox, http: httpx.Client) -> Asker:
    return Asker(sandbox, http, bets=100, history_seconds=10 * 86_400)


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(sandbox, http)


def ask(asker: Asker) -> httpx.Response:
    """A page of 40 bets by the pipelines' question, newest first."""
    ids = [told["tote_id"] for told in asker.sandbox.tote_bets()][:40]
    return asker.post(QUERY, toteIds=ids)


def spoiled(asker: Asker, kind: str, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spoiled answer of status 200, and the sound one behind it."""
    asker.sandbox.fault("tote", kind, call="bets", **parameters)
    first, second = ask(asker), ask(asker)
    assert (first.status_code, second.status_code) == (200, 200)
    assert [call["fault"] for call in asker.sandbox.calls()["recent"]] == [kind, None]
    sound = second.json()
    assert "errors" not in sound
    return first.json(), sound


def nodes(answer: dict[str, Any]) -> list[Any]:
    return list(answer["data"]["bets"]["nodes"])


def listen(
    listener: Listener, subprotocol: str | None = None, expected: int = HINTS
) -> tuple[list[Hint], ConnectionClosed | None]:
    """What one connection is told of nine bets, and its end if it ends before so many hints."""
    hints: list[Hint] = []
    try:
        with listener.listening(subprotocol) as connection:
            listener.configure(bets=0, clock_offset_seconds=0)
            listener.place_and_pass(BETS, 4 * HOUR)
            while len(hints) < expected:
                hints += hear(connection, 1)
    except ConnectionClosed as closed:
        return hints, closed
    return hints, None


def is_silent(connection: ClientConnection) -> bool:
    try:
        connection.recv(timeout=0.2)
    except TimeoutError:
        return True
    return False


def test_no_two_faults_have_one_name() -> None:
    assert not FAULTS_OF_TOTE.keys() & (FAULTS | ITEM_FAULTS | FAULTS_OF_STREAMS).keys()


# GraphQL


def test_an_answer_holds_errors_instead_of_data_or_beside_them(asker: Asker) -> None:
    instead, sound = spoiled(asker, "graphql_errors", message="no", code="X")
    assert instead["data"] is None
    assert instead["errors"] == [{"message": "no", "path": ["bets"], "extensions": {"code": "X"}}]
    asker.sandbox.fault("tote", "graphql_errors", with_data=True)
    assert ask(asker).json()["data"] == sound["data"]


@pytest.mark.parametrize("field", [None, "resulting"])
def test_a_part_of_the_data_is_missing_and_an_error_says_where(
    asker: Asker, field: str | None
) -> None:
    told, sound = spoiled(asker, "partial_data", entry=-1, field=field)
    assert nodes(told)[:-1] == nodes(sound)[:-1]
    last = nodes(told)[-1]
    assert last is None if field is None else last[field] is None
    path = ["bets", "nodes", 39] + ([field] if field else [])
    assert told["errors"][0]["path"] == path


@pytest.mark.parametrize("what", ["data", "bets", "nodes", "pageInfo", "node"])
def test_a_part_of_the_answer_is_null_without_a_word(asker: Asker, what: str) -> None:
    told, sound = spoiled(asker, "null_nodes", what=what)
    expected = json.loads(json.dumps(sound))
    holder: Any = {"data": expected, "bets": expected["data"]}.get(what, expected["data"]["bets"])
    if what == "node":
        expected["data"]["bets"]["nodes"][0] = None
    else:
        holder[what] = None
    assert told == expected


def test_a_part_of_the_answer_is_absent(asker: Asker) -> None:
    told, _ = spoiled(asker, "null_nodes", what="nodes", absent=True)
    assert "nodes" not in told["data"]["bets"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.bets.nodes.3.settlement.status", "REGRADED"),
        ("data.bets.totalCount", 5),
        ("data.bets.pageInfo.hasNextPage", True),
    ],
)
def test_any_field_of_the_answer_can_be_another(asker: Asker, path: str, value: Any) -> None:
    told, sound = spoiled(asker, "changed_answer", path=path, value=value)
    holder: Any = sound
    *way, name = path.split(".")
    for part in way:
        holder = holder[int(part)] if part.isdigit() else holder[part]
    assert holder[name] != value
    holder[name] = value
    assert told == sound


def test_a_total_is_more_than_its_parts_in_all_three_ways(asker: Asker) -> None:
    told, sound = spoiled(asker, "wrong_total", entry=-1, by=7)
    before, after = (
        nodes(each)[-1]["resulting"]["returns"]["totalAmount"] for each in (sound, told)
    )
    minor = before["minorUnitsTotalAmount"] + 7
    assert after["minorUnitsTotalAmount"] == minor
    assert (after["decimalAmount"], float(after["stringAmount"])) == (minor / 100, minor / 100)
    assert nodes(told)[:-1] == nodes(sound)[:-1]


def test_faults_of_records_leave_the_rest_of_the_page_as_it_was(asker: Asker) -> None:
    told, sound = spoiled(asker, "unknown_field", entry=2, field="odds", value=3)
    expected = nodes(sound)
    expected[2] |= {"odds": 3}
    assert nodes(told) == expected
    assert told["data"]["bets"] | {"nodes": []} == sound["data"]["bets"] | {"nodes": []}


def test_a_fault_of_a_page_waits_for_one(asker: Asker) -> None:
    asker.sandbox.fault("tote", "partial_data", call="bets")
    assert "errors" not in asker.post(toteIds=["x"]).json()
    assert asker.refusal(first=0) == "PAGE_TOO_SMALL"
    assert len(asker.sandbox.faults()) == 1
    assert "errors" in ask(asker).json()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("status", {"status": 503}),
        ("malformed_json", {}),
        ("html_page", {}),
        ("empty_page", {}),
        ("duplicated_entry", {}),
        ("reversed_page", {}),
        ("recoded_body", {}),
        ("other_status", {}),
        ("lone_surrogate", {"field": "id"}),
        ("invalid_utf8", {"field": "id"}),
    ],
)
def test_faults_of_http_spoil_an_answer_of_graphql_too(
    asker: Asker, kind: str, parameters: dict[str, Any]
) -> None:
    asker.sandbox.fault("tote", kind, call="bets", **parameters)
    first, second = ask(asker), ask(asker)
    assert first.content != second.content or first.status_code != 200
    assert len(nodes(second.json())) == 40


@pytest.mark.parametrize("kind", ["reset_before_answer", "closed_without_answer"])
def test_faults_of_the_wire_break_a_call_of_either_kind(listener: Listener, kind: str) -> None:
    listener.sandbox.fault("tote", kind, times=2)
    with pytest.raises(httpx.TransportError):
        listener.post()
    with pytest.raises((OSError, EOFError, InvalidMessage)), listener.connected():
        pass
    assert listener.bets()["nodes"] == []
    assert len(listen(listener)[0]) == HINTS


# The socket


def test_a_handshake_can_be_refused(listener: Listener) -> None:
    listener.sandbox.fault("tote", "status", call="hints", status=503)
    with pytest.raises(InvalidStatus), listener.connected():
        pass
    assert len(listen(listener)[0]) == HINTS


@pytest.mark.parametrize("subprotocol", [None, *SUBPROTOCOLS])
def test_hints_are_dropped(listener: Listener, subprotocol: str | None) -> None:
    sound, _ = listen(listener, subprotocol)
    listener.sandbox.fault("tote", "dropped_hint", after_messages=2, messages=20)
    told, _ = listen(listener, subprotocol, HINTS - 20)
    assert [hint.bet_id for hint in told] == [hint.bet_id for hint in sound[:2] + sound[22:]]


def test_every_hint_is_dropped(listener: Listener) -> None:
    listener.sandbox.fault("tote", "dropped_hint", messages=None)
    with listener.listening() as connection:
        listener.place_and_pass(BETS, 4 * HOUR)
        assert is_silent(connection)
    assert listener.sandbox.ledger("tote")["steps"] == 4 * BETS


def test_hints_come_several_times(listener: Listener) -> None:
    listener.sandbox.fault("tote", "repeated_hint", copies=3, after_messages=1, messages=2)
    told, _ = listen(listener, expected=HINTS + 4)
    ids = [hint.bet_id for hint in told]
    assert ids[1] == ids[2] == ids[3] != ids[0]
    assert ids[4] == ids[5] == ids[6] != ids[3]


@pytest.mark.parametrize("subprotocol", [None, "graphql-ws"])
def test_hints_come_in_another_order(listener: Listener, subprotocol: str | None) -> None:
    sound, _ = listen(listener, subprotocol)
    listener.sandbox.fault("tote", "reordered_hints", after_messages=3, messages=10)
    told, _ = listen(listener, subprotocol)
    facts = [(hint.bet_id, hint.message_type) for hint in sound]
    expected = facts[:3] + facts[12:2:-1] + facts[13:]
    assert [(hint.bet_id, hint.message_type) for hint in told] == expected


@pytest.mark.parametrize("subprotocol", [None, *SUBPROTOCOLS])
def test_hints_tell_a_wrong_amount_if_they_tell_one(
    listener: Listener, subprotocol: str | None
) -> None:
    listener.sandbox.fault("tote", "wrong_amount", messages=None, amount=7)
    told, _ = listen(listener, subprotocol)
    assert {(hint.message_type, hint.return_amount) for hint in told} == {
        ("BetAccepted", None),
        ("BetResulted", 7),
        ("BetSettled", 7),
    }


@pytest.mark.parametrize("subprotocol", [None, "graphql-transport-ws"])
@pytest.mark.parametrize("kind", ["closed_stream", "dropped_stream", "truncated_frame"])
def test_a_connection_ends_in_the_middle(
    listener: Listener, kind: str, subprotocol: str | None
) -> None:
    listener.sandbox.fault("tote", kind, call="hints", after_messages=5)
    told, closed = listen(listener, subprotocol)
    assert len(told) == 5
    assert closed is not None
    assert len(listen(listener, subprotocol)[0]) == HINTS


@pytest.mark.parametrize("with_pings", [False, True])
def test_a_connection_stalls(listener: Listener, with_pings: bool) -> None:
    listener.configure(ping_seconds=0.02)
    listener.sandbox.fault("tote", "stalled_stream", after_messages=2, with_pings=with_pings)
    with listener.listening() as connection:
        listener.place_and_pass(BETS, 4 * HOUR)
        assert len(hear(connection, 2)) == 2
        before = listener.sandbox.tote_connections()[0]["pings"]
        # In plain JSON a sign of life is no message.
        assert is_silent(connection)
        after = listener.sandbox.tote_connections()[0]["pings"]
    assert (after > before) is with_pings


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("malformed_message", {}),
        ("other_message", {"text": "null"}),
        ("left_out_value", {"path": "BetId"}),
        ("changed_value", {"path": "BetId", "value": 5}),
    ],
)
def test_a_hint_can_be_broken_beside_sound_ones(
    listener: Listener, kind: str, parameters: dict[str, Any]
) -> None:
    sound, _ = listen(listener)
    listener.sandbox.fault("tote", kind, after_messages=4, **parameters)
    told, _ = listen(listener, expected=HINTS - 1)
    facts = [hint.bet_id for hint in sound]
    assert [hint.bet_id for hint in told] == facts[:4] + facts[5:]


def test_a_hint_can_come_in_parts_and_slowly(listener: Listener) -> None:
    listener.sandbox.fault("tote", "fragmented_message", messages=None)
    assert len(listen(listener)[0]) == HINTS
    listener.sandbox.fault("tote", "slow_messages", seconds=0.001)
    assert len(listen(listener)[0]) == HINTS


def test_foreign_messages_come_between(listener: Listener) -> None:
    text = '{"MessageType": "BetSettled", "BetId": "nobody"}'
    listener.sandbox.fault("tote", "foreign_messages", texts=[text])
    with listener.listening() as connection:
        assert next_text(connection) == text
