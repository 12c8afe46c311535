"""Faults of odds88's stream come when and as they were ordered, on one connection, and are over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection

from include.sandbox.app import FAULTS, FAULTS_OF_STREAMS, ITEM_FAULTS
from include.sandbox.client import Sandbox
from tests.sandbox.test_odds88 import DAY, HOUR, NOW, Listener, hear, parse

QUIET_SECONDS = 0.2
MESSAGES = 20


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(
        sandbox,
        http,
        messages=MESSAGES,
        history_seconds=HOUR,
        seam_duplicates=0,
        attempts_a_window=100,
        ping_every_messages=None,
        ping_seconds=60,
    )


@pytest.fixture
def sound(listener: Listener) -> list[str]:
    """The texts that a connection is to be sent."""
    return listener.sandbox.odds88_messages()


def listen(
    listener: Listener, kind: str, expected: int = MESSAGES, **parameters: Any
) -> tuple[list[str | bytes], ConnectionClosed | None]:
    """What one spoiled connection is sent, and its end if it ended before so many messages."""
    listener.sandbox.fault("odds88", kind, **parameters)
    heard: list[str | bytes] = []
    try:
        with listener.connected(NOW - DAY) as connection:
            while len(heard) < expected:
                heard.append(connection.recv(timeout=10))
    except ConnectionClosed as closed:
        return heard, closed
    return heard, None


def check_recovery(listener: Listener, sound: list[str]) -> None:
    """The next connection is sound."""
    with listener.connected(NOW - DAY) as connection:
        assert [connection.recv(timeout=10) for _ in sound] == sound
    assert listener.sandbox.faults() == []


def is_silent(connection: ClientConnection, seconds: float = QUIET_SECONDS) -> bool:
    try:
        connection.recv(timeout=seconds)
    except TimeoutError:
        return True
    return False


def test_no_two_faults_have_one_name() -> None:
    assert not FAULTS_OF_STREAMS.keys() & (FAULTS | ITEM_FAULTS).keys()


def test_a_fault_of_items_finds_none_in_a_log_in(listener: Listener) -> None:
    listener.sandbox.fault(
        "odds88", "changed_envelope", call="log_in", changes={"code": "RS_ERROR"}
    )
    assert listener.log_in().status_code == 200
    assert [order["kind"] for order in listener.sandbox.faults()] == ["changed_envelope"]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 4003])
def test_the_server_closes_with_any_code(listener: Listener, sound: list[str], code: int) -> None:
    heard, closed = listen(listener, "closed_stream", after_messages=7, code=code, reason="why")
    assert heard == sound[:7]
    assert closed is not None
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (code, "why")
    check_recovery(listener, sound)


def test_the_server_closes_before_the_first_message(listener: Listener) -> None:
    heard, closed = listen(listener, "closed_stream")
    assert heard == []
    assert closed is not None


@pytest.mark.parametrize("kind", ["dropped_stream", "reset_stream"])
def test_the_connection_ends_without_a_close_frame(
    listener: Listener, sound: list[str], kind: str
) -> None:
    heard, closed = listen(listener, kind, after_messages=5)
    # A reset may take with it what was not read yet.
    assert heard == sound[: len(heard)]
    assert len(heard) == 5 or kind == "reset_stream"
    assert isinstance(closed, ConnectionClosedError)
    assert closed.rcvd is None
    assert listener.sandbox.odds88_attempts()[0]["ended"] == "lost"
    check_recovery(listener, sound)


def test_a_live_stream_is_struck_when_it_has_come_so_far(listener: Listener) -> None:
    listener.sandbox.fault("odds88", "closed_stream", after_messages=MESSAGES + 2)
    with listener.connected(NOW - DAY) as connection:
        for _ in range(MESSAGES):
            connection.recv(timeout=10)
        assert is_silent(connection)
        listener.sandbox.advance("odds88", 5)
        assert [bool(connection.recv(timeout=10)) for _ in range(2)] == [True, True]
        with pytest.raises(ConnectionClosedError):
            connection.recv(timeout=10)


def test_the_stream_stalls_without_a_word(listener: Listener, sound: list[str]) -> None:
    listener.configure(ping_seconds=0.02)
    listener.sandbox.fault("odds88", "stalled_stream", after_messages=4)
    with listener.connected(NOW - DAY) as connection:
        assert [connection.recv(timeout=10) for _ in range(4)] == sound[:4]
        listener.sandbox.advance("odds88", 1)
        assert is_silent(connection)
        # The connection itself is well.
        assert connection.ping().wait(10)
    listener.configure(ping_seconds=60)


def test_the_stream_stalls_and_pings_as_if_it_were_caught_up(
    listener: Listener, sound: list[str]
) -> None:
    listener.configure(ping_seconds=0.02)
    listener.sandbox.fault("odds88", "stalled_stream", after_messages=4, with_pings=True)
    with listener.connected(NOW - DAY) as connection:
        heard = hear(connection, at_least=4)
        assert [bet["betId"] for bet in heard] == [parse(t)["data"]["betId"] for t in sound[:4]]
        listener.sandbox.advance("odds88", 1)
        assert hear(connection) == []


def test_pings_come_in_a_flood(listener: Listener, sound: list[str]) -> None:
    heard, _ = listen(
        listener, "flooded_stream", after_messages=3, pings=200, expected=MESSAGES + 200
    )
    pings = [parse(str(text)) for text in heard[3:203]]
    assert heard[:3] + heard[203:] == sound
    assert {ping["data"] for ping in pings} == {None}
    assert len({ping["pingId"] for ping in pings}) == 200


def test_texts_of_the_tests_own_come_between_the_messages(
    listener: Listener, sound: list[str]
) -> None:
    texts = ['{"pingId": null, "data": {}}', "[]", "Привет"]
    heard, _ = listen(
        listener, "foreign_messages", after_messages=6, texts=texts, expected=MESSAGES + 3
    )
    assert heard == [*sound[:6], *texts, *sound[6:]]
    assert listener.sandbox.ledger("odds88")["messages"] == MESSAGES


@pytest.mark.parametrize(
    "breach",
    [
        "unknown_opcode",
        "reserved_bit",
        "masked",
        "long_ping",
        "continuation_of_nothing",
        "close_without_code",
    ],
)
def test_a_frame_breaks_the_protocol(listener: Listener, sound: list[str], breach: str) -> None:
    heard, closed = listen(listener, "broken_frame", after_messages=3, breach=breach)
    assert heard == sound[:3]
    assert closed is not None
    assert closed.sent is not None
    assert closed.sent.code == 1002
    check_recovery(listener, sound)


def value(path: str) -> Callable[[str | bytes], Any]:
    def found(text: str | bytes) -> Any:
        place: Any = parse(str(text))
        for part in path.split("."):
            place = place[int(part)] if part.isdigit() else place[part]
        return place

    return found


@pytest.mark.parametrize(
    ("kind", "parameters", "is_so"),
    [
        ("malformed_message", {}, lambda text, sound: text == sound[: len(text)] and text),
        ("other_message", {}, lambda text, sound: text == ""),
        ("other_message", {"text": "<html>"}, lambda text, sound: text == "<html>"),
        ("binary_message", {}, lambda text, sound: text == sound.encode()),
        ("fragmented_message", {}, lambda text, sound: text == sound),
        ("dripping_messages", {"seconds": 0.0}, lambda text, sound: text == sound),
        ("slow_messages", {"seconds": 0}, lambda text, sound: text == sound),
        (
            "oversize_message",
            {"size": 3_000_000},
            lambda text, sound: text.rstrip() == sound and len(text.encode()) == 3_000_000,
        ),
        ("changed_value", {}, lambda text, sound: value("data.betSettlement")(text) == 99),
        (
            "changed_value",
            {"path": "data.selections.0.type", "value": "Standard"},
            lambda text, sound: value("data.selections.0.type")(text) == "Standard",
        ),
        (
            "changed_value",
            {"path": "data.tier", "value": None},
            lambda text, sound: value("data.tier")(text) is None,
        ),
        ("raw_value", {}, lambda text, sound: '"payout":NaN,' in text),
        (
            "raw_value",
            {"path": "data.amount.value", "text": "9" * 400},
            lambda text, sound: '"value":' + "9" * 400 in text,
        ),
        (
            "left_out_value",
            {},
            lambda text, sound: (
                parse(text)["data"].keys() == parse(sound)["data"].keys() - {"betId"}
            ),
        ),
    ],
)
def test_one_message_is_spoiled_and_the_others_are_sound(
    listener: Listener,
    sound: list[str],
    kind: str,
    parameters: dict[str, Any],
    is_so: Callable[[str | bytes, str], bool],
) -> None:
    heard, closed = listen(listener, kind, after_messages=9, messages=1, **parameters)
    assert closed is None
    assert heard[:9] + heard[10:] == sound[:9] + sound[10:]
    assert is_so(heard[9], sound[9])
    check_recovery(listener, sound)


@pytest.mark.parametrize("kind", ["malformed_message", "changed_value", "left_out_value"])
def test_the_sound_message_can_come_besides(
    listener: Listener, sound: list[str], kind: str
) -> None:
    heard, _ = listen(listener, kind, after_messages=9, besides=True, expected=MESSAGES + 1)
    assert heard[:9] + heard[10:] == sound
    assert heard[9] not in sound


def test_several_messages_can_be_spoiled(listener: Listener, sound: list[str]) -> None:
    heard, _ = listen(listener, "other_message", text="-", after_messages=2, messages=3)
    assert heard == [*sound[:2], "-", "-", "-", *sound[5:]]


def test_a_message_comes_several_times(listener: Listener, sound: list[str]) -> None:
    heard, _ = listen(
        listener, "duplicated_message", copies=3, after_messages=1, expected=MESSAGES + 2
    )
    assert heard == [sound[0], *[sound[1]] * 3, *sound[2:]]


def test_a_text_in_another_encoding_ends_the_connection(
    listener: Listener, sound: list[str]
) -> None:
    heard, closed = listen(listener, "recoded_message", after_messages=2)
    assert heard == sound[:2]
    assert closed is not None
    assert closed.sent is not None
    assert closed.sent.code == 1007


def test_a_frame_is_cut_by_the_end_of_the_connection(listener: Listener, sound: list[str]) -> None:
    heard, closed = listen(listener, "truncated_frame", after_messages=8)
    assert heard == sound[:8]
    assert closed is not None
    assert closed.rcvd is None
    check_recovery(listener, sound)


def test_half_a_frame_comes_and_then_nothing(listener: Listener, sound: list[str]) -> None:
    listener.sandbox.fault("odds88", "stalled_frame", after_messages=8)
    with listener.connected(NOW - DAY) as connection:
        assert [connection.recv(timeout=10) for _ in range(8)] == sound[:8]
        assert is_silent(connection)
    check_recovery(listener, sound)


def test_frames_drip_byte_by_byte(listener: Listener, sound: list[str]) -> None:
    listener.sandbox.fault("odds88", "dripping_messages", seconds=0.05)
    with listener.connected(NOW - DAY) as connection:
        assert is_silent(connection)
    check_recovery(listener, sound)


def test_messages_come_at_a_pace(listener: Listener, sound: list[str]) -> None:
    started = time.monotonic()
    heard, _ = listen(listener, "slow_messages", seconds=0.02)
    assert heard == sound
    assert time.monotonic() - started >= 0.02 * MESSAGES


def test_a_client_can_refuse_what_is_too_big(listener: Listener, sound: list[str]) -> None:
    listener.sandbox.fault("odds88", "oversize_message", after_messages=1)
    heard: list[str | bytes] = []
    with (
        listener.connected(NOW - DAY, max_size=2**20) as connection,
        pytest.raises(ConnectionClosedError) as closed,
    ):
        heard.extend(connection)
    assert heard == sound[:1]
    assert closed.value.sent is not None
    assert closed.value.sent.code == 1009
    check_recovery(listener, sound)


def test_a_fault_waits_for_a_stream_and_strikes_as_often_as_ordered(
    listener: Listener, sound: list[str]
) -> None:
    listener.sandbox.fault("odds88", "closed_stream", times=2, after_calls=1)
    assert listener.log_in().status_code == 200
    ends = []
    for _ in range(4):
        with listener.connected(NOW - DAY) as connection:
            try:
                ends.append(connection.recv(timeout=10))
            except ConnectionClosedError:
                ends.append(None)
    # The first call that it let pass was the log-in.
    assert ends == [None, None, sound[0], sound[0]]
    attempts = listener.sandbox.odds88_attempts()
    assert [each["fault"] for each in attempts] == ["closed_stream", "closed_stream", None, None]


def test_a_fault_of_streams_is_none_for_other_calls(
    listener: Listener, ticktock: httpx.Client
) -> None:
    listener.sandbox.fault("ticktock", "closed_stream")
    assert ticktock.get("/settlements").status_code == 200
    assert len(listener.sandbox.faults()) == 1
