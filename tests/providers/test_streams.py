"""Streams, against real sockets: what each way of going wrong becomes, and how long it takes."""

from __future__ import annotations

import json
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.utils import accept_key

from include.providers import deadlines, odds88, streams
from include.providers.errors import (
    KEPT,
    Fatal,
    ProviderError,
    Retriable,
    StreamEnded,
    StreamRefused,
)
from include.providers.http import Account
from include.providers.odds88 import Feed, access
from include.providers.streams import RECEIVED_IS_KEPT, Socket, open_socket
from include.sandbox.addresses import ODDS88_CLIENT_ID, ODDS88_PASSWORD
from include.sandbox.app import FAULTS_OF_STREAMS
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.providers.certificates import made_certificate
from tests.wire_server import Close as Closing
from tests.wire_server import WireServer, answer, dripped, wire_server

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiI3In0.c2lnbmF0dXJl"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NOW = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())
REVISION = NOW - 24 * 3600
MESSAGES = 20
# How much later than its deadline something may end on a busy machine.
SLACK = 4.0
QUIET_SECONDS = 0.2
PATIENCE_SECONDS = 10.0


def settings_with(**tunables: Any) -> Settings:
    return Settings(**({"call_deadline_seconds": 5.0, "read_attempts": 1} | tunables))


def check_texts(error: ProviderError) -> None:
    """It says what was kept and what to do next, and nothing that is secret."""
    told = f"{error} {error!r} {vars(error)}"
    assert TOKEN not in told
    assert ODDS88_PASSWORD not in told
    assert KEPT in error.happened or RECEIVED_IS_KEPT in error.happened
    ending = "clear this task." if isinstance(error, Fatal) else ""
    beginning = "" if isinstance(error, Fatal) else "Nothing to do now"
    assert error.next_step.startswith(beginning)
    assert error.next_step.endswith(ending)


# A peer that is scripted down to its bytes.


@dataclass
class Peer:
    """One connection of a WebSocket server; `request` is the head it was asked with."""

    connection: socket.socket
    stopping: threading.Event
    request: bytes = b""

    def read_request(self) -> None:
        while not self.request.endswith(b"\r\n\r\n"):
            self.request += self.connection.recv(1)

    def upgrade(self, *lines: str, accept: str | None = None, behind: bytes = b"") -> None:
        """A sound handshake, but for what is said otherwise, with some bytes right behind it."""
        key = self.request.lower().split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
        start = self.request.lower().index(key)
        sound = accept_key(self.request[start : start + len(key)].decode())
        head = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept or sound}",
            *lines,
        ]
        self.connection.sendall("\r\n".join([*head, "", ""]).encode() + behind)

    def received(self) -> bytes:
        """What is sent to the peer, one read of it."""
        return self.connection.recv(65536)

    def leave(self) -> None:
        """End the connection as soon as the other side has a last word, and after it."""
        if self.received():
            self.connection.shutdown(socket.SHUT_WR)
            while self.received():
                pass


Script = Callable[[Peer], object]


@dataclass
class Place:
    """Where a peer listens, and what it was asked."""

    url: str
    peers: list[Peer] = field(default_factory=list)


@contextmanager
def peer(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Place]:
    """A server that plays its script to one connection, and then lets the other side leave."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme = "wss" if tls else "ws"
        place = Place(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/feed?revision=1")

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                connection.settimeout(PATIENCE_SECONDS)
                with tls.wrap_socket(connection, server_side=True) if tls else connection as wired:
                    one = Peer(wired, stopping)
                    place.peers.append(one)
                    one.read_request()
                    script(one)
                    one.leave()
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield place
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_SECONDS + SLACK)
            assert not thread.is_alive()


@contextmanager
def opened(script: Script, **tunables: Any) -> Iterator[Socket]:
    """A connection to a peer that upgrades soundly and then plays its script."""

    def whole(one: Peer) -> None:
        one.upgrade()
        script(one)

    with peer(whole) as place, closing(connect(place, **tunables)) as connected:
        yield connected


def connect(place: Place, *subprotocols: str, **tunables: Any) -> Socket:
    settings = settings_with(**tunables)
    return open_socket("odds88", place.url, HEADERS, settings, subprotocols=subprotocols)


def framed(content: bytes, opcode: Opcode = Opcode.TEXT, *, is_last: bool = True) -> bytes:
    return Frame(opcode, content, is_last).serialize(mask=False)


def sends(*frames: bytes) -> Script:
    return lambda one: one.connection.sendall(b"".join(frames))


def end_of(connected: Socket, seconds: float = PATIENCE_SECONDS) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        connected.receive(seconds)
    check_texts(caught.value)
    return caught.value


def received_or_end(connected: Socket) -> bytes | ProviderError | None:
    try:
        return connected.receive(0)
    except ProviderError as end:
        return end


# The sandbox's feed.


def feed_of(sandbox: Sandbox, **tunables: Any) -> Feed:
    account = Account(sandbox.odds88_url, ODDS88_PASSWORD, ODDS88_CLIENT_ID)
    return Feed(account, settings_with(**tunables))


@pytest.fixture
def feed(sandbox: Sandbox) -> Iterator[Feed]:
    sandbox.configure(
        "odds88",
        clock_stopped_at=datetime.fromtimestamp(NOW, UTC).isoformat(),
        messages=MESSAGES,
        history_seconds=3600,
        seam_duplicates=0,
        attempts_a_window=100,
        log_ins_a_second=1000,
        ping_every_messages=None,
        ping_seconds=60,
    )
    with closing(feed_of(sandbox)) as one:
        yield one


def open_feed(feed: Feed, revision: int = REVISION) -> Socket:
    return feed.connect(feed.log_in(), revision)


def hear(
    feed: Feed, expected: int, *, then_silence: int | None = None
) -> tuple[list[bytes], ProviderError | None]:
    """What one connection is sent, up to so many messages or its end; and its end.

    Behind the first `then_silence` messages it is enough that nothing comes for a moment.
    """
    heard: list[bytes] = []
    with closing(open_feed(feed)) as connected:
        while len(heard) < expected:
            is_quiet = then_silence is not None and len(heard) >= then_silence
            try:
                message = connected.receive(QUIET_SECONDS if is_quiet else PATIENCE_SECONDS)
            except ProviderError as end:
                check_texts(end)
                return heard, end
            if message is None:
                assert is_quiet
                break
            heard.append(message)
    return heard, None


def texts(sandbox: Sandbox) -> list[bytes]:
    return [text.encode() for text in sandbox.odds88_messages()]


def test_every_message_is_received_as_it_was_sent_and_the_connection_closed_in_order(
    feed: Feed, sandbox: Sandbox
) -> None:
    assert hear(feed, MESSAGES + 1, then_silence=MESSAGES) == (texts(sandbox), None)
    attempts = sandbox.odds88_attempts()
    assert [(each["revision"], each["ended"]) for each in attempts] == [
        (str(REVISION), "client 1000")
    ]


def test_what_comes_later_is_received_when_it_comes(feed: Feed, sandbox: Sandbox) -> None:
    with closing(open_feed(feed, NOW + 3600)) as connected:
        assert connected.receive(QUIET_SECONDS) is None
        sandbox.advance("odds88", 2)
        live = [connected.receive(PATIENCE_SECONDS) for _ in range(2)]
    assert live == texts(sandbox)[MESSAGES:]


def test_a_feed_connects_again_with_a_log_in_of_its_own(feed: Feed, sandbox: Sandbox) -> None:
    for _ in range(3):
        assert len(hear(feed, MESSAGES)[0]) == MESSAGES
    ledger = sandbox.ledger("odds88")
    assert (ledger["log_ins"], ledger["connections"]["most_at_once"]) == (3, 1)


# What each fault of a stream leaves of its 20 messages: everything, or those before it. `heard` is
# what was received from message 7 on, `sound` what was to be.
Heard = Callable[[list[bytes], list[bytes]], bool]


def unchanged(heard: list[bytes], sound: list[bytes]) -> bool:
    return heard == sound


def nothing(heard: list[bytes], sound: list[bytes]) -> bool:
    return heard == []


def first_is(is_so: Callable[[bytes, bytes], bool]) -> Heard:
    """One message is changed in this way, and those behind it are sound."""
    return lambda heard, sound: heard[1:] == sound[1:] and is_so(heard[0], sound[0])


def bet_of(text: bytes) -> dict[str, Any]:
    return dict(json.loads(text)["data"])


AFTER = 7
ENDED, GOES_ON = True, False
STREAM_FAULTS: dict[str, tuple[dict[str, Any], Heard, bool]] = {
    "closed_stream": ({}, nothing, ENDED),
    "dropped_stream": ({}, nothing, ENDED),
    "reset_stream": ({}, nothing, ENDED),
    "stalled_stream": ({}, nothing, GOES_ON),
    "flooded_stream": (
        {"pings": 500},
        lambda heard, sound: (
            heard[500:] == sound and len({json.loads(one)["pingId"] for one in heard[:500]}) == 500
        ),
        GOES_ON,
    ),
    "foreign_messages": (
        {"texts": ["", "[]", "Привет"]},
        lambda heard, sound: heard == [b"", b"[]", "Привет".encode(), *sound],
        GOES_ON,
    ),
    "broken_frame": ({}, nothing, ENDED),
    "malformed_message": ({}, first_is(lambda one, sound: one == sound[: len(sound) // 2]), False),
    "other_message": ({"text": ""}, first_is(lambda one, sound: one == b""), GOES_ON),
    "recoded_message": (
        {},
        first_is(lambda one, sound: one == sound.decode().encode("utf-16")),
        GOES_ON,
    ),
    "oversize_message": ({"size": 4 * 2**20 + 1}, nothing, ENDED),
    "changed_value": ({}, first_is(lambda one, _: bet_of(one)["betSettlement"] == 99), GOES_ON),
    "raw_value": ({}, first_is(lambda one, _: b'"payout":NaN' in one), GOES_ON),
    "left_out_value": ({}, first_is(lambda one, _: "betId" not in bet_of(one)), GOES_ON),
    "duplicated_message": ({}, lambda heard, sound: heard == [sound[0], *sound], GOES_ON),
    "binary_message": ({}, unchanged, GOES_ON),
    "fragmented_message": ({"messages": None}, unchanged, GOES_ON),
    "dripping_messages": ({"seconds": 0.0, "messages": 1}, unchanged, GOES_ON),
    "slow_messages": ({"seconds": 0.01}, unchanged, GOES_ON),
    "truncated_frame": ({}, nothing, ENDED),
    "stalled_frame": ({}, nothing, GOES_ON),
}


def test_every_fault_of_a_stream_is_tried() -> None:
    assert STREAM_FAULTS.keys() == FAULTS_OF_STREAMS.keys()


@pytest.mark.parametrize("kind", STREAM_FAULTS)
def test_a_fault_costs_what_it_must_and_the_next_connection_is_sound(
    feed: Feed, sandbox: Sandbox, kind: str
) -> None:
    parameters, is_so, ends = STREAM_FAULTS[kind]
    sandbox.fault("odds88", kind, call="settlements", after_messages=AFTER, **parameters)
    sound = texts(sandbox)
    more = {"flooded_stream": 500, "foreign_messages": 3, "duplicated_message": 1}.get(kind, 0)
    stalls = is_so is nothing and not ends
    heard, end = hear(feed, MESSAGES + more, then_silence=AFTER if stalls else None)
    # A reset may take with it what was not read yet.
    assert heard[:AFTER] == sound[:AFTER] or kind == "reset_stream"
    assert is_so(heard[AFTER:], sound[AFTER:])
    assert (end is not None) == ends
    assert hear(feed, MESSAGES) == (sound, None)


@pytest.mark.parametrize(
    ("code", "told"), [(1000, 1000), (1001, 1001), (1011, 1011), (1012, 1012), (4003, 4003)]
)
def test_what_the_provider_says_when_it_closes_is_told(
    feed: Feed, sandbox: Sandbox, code: int, told: int
) -> None:
    sandbox.fault("odds88", "closed_stream", after_messages=3, code=code, reason=f"a {code}")
    heard, end = hear(feed, MESSAGES)
    assert heard == texts(sandbox)[:3]
    assert isinstance(end, StreamEnded)
    assert end.code == told
    assert f"It closed the stream ({code}). It said: a {code}." in end.happened


@pytest.mark.parametrize(
    ("kind", "happened"),
    [
        ("dropped_stream", "ended without a close frame"),
        ("truncated_frame", "ended without a close frame"),
        ("reset_stream", "The connection broke ("),
        ("broken_frame", "It broke the protocol of WebSockets (invalid opcode)"),
    ],
)
def test_an_end_without_a_close_frame_has_no_code(
    feed: Feed, sandbox: Sandbox, kind: str, happened: str
) -> None:
    sandbox.fault("odds88", kind)
    _, end = hear(feed, MESSAGES)
    assert isinstance(end, StreamEnded)
    assert end.code is None
    assert happened in end.happened


def test_a_close_frame_without_a_code_is_the_end_too() -> None:
    with opened(sends(framed(b"one"), framed(b"", Opcode.CLOSE))) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"
        end = end_of(connected)
    assert isinstance(end, StreamEnded)
    assert end.code is None


def test_the_end_is_told_again_to_who_asks_again() -> None:
    with opened(sends(framed(Close(1011, "").serialize(), Opcode.CLOSE))) as connected:
        assert end_of(connected) is end_of(connected, seconds=0)


def test_policy_violation_means_that_no_connection_is_allowed_now(
    feed: Feed, sandbox: Sandbox
) -> None:
    sandbox.configure("odds88", attempts_a_window=1, refusals="close")
    hear(feed, MESSAGES)
    heard, end = hear(feed, MESSAGES)
    assert heard == []
    assert isinstance(end, StreamRefused)
    assert "It allows no connection now. It closed the stream (1008). It said: budget." in str(end)


# The handshake.


def refusal_of(feed: Feed) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        open_feed(feed)
    check_texts(caught.value)
    return caught.value


def test_a_budget_that_is_used_up_says_how_long_to_wait(feed: Feed, sandbox: Sandbox) -> None:
    sandbox.configure("odds88", attempts_a_window=1)
    hear(feed, MESSAGES)
    error = refusal_of(feed)
    assert isinstance(error, StreamRefused)
    assert (error.status, error.retry_after) == (429, 300)
    assert "It allows no connection now." in error.happened
    assert "It said: budget" in error.happened
    assert "another user of the same account" in error.next_step


def test_a_second_connection_is_refused(feed: Feed) -> None:
    with closing(open_feed(feed)):
        error = refusal_of(feed)
    assert isinstance(error, StreamRefused)
    assert "It said: second_connection" in error.happened


@pytest.mark.parametrize(("asked", "waited"), [("900", 900), ("999999", 86_400), ("soon", None)])
def test_a_wait_is_honoured_for_a_day_at_most(
    feed: Feed, sandbox: Sandbox, asked: str, waited: float | None
) -> None:
    sandbox.fault("odds88", "status", call="settlements", status=429, retry_after=asked)
    error = refusal_of(feed)
    assert isinstance(error, StreamRefused)
    assert error.retry_after == waited


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "SETTLEMENTS_ODDS88_TOKEN_HEADER"),
        (403, "whether the client may use the settlement feed"),
        (404, "Check `base_url` in the extra of the Airflow connection `odds88`"),
        (400, "which this call does not expect"),
        (426, "which this call does not expect"),
        (200, "which this call does not expect"),
    ],
)
def test_a_refused_handshake_is_fatal_and_says_what_to_check(
    feed: Feed, sandbox: Sandbox, status: int, told: str
) -> None:
    sandbox.fault("odds88", "status", call="settlements", status=status)
    error = refusal_of(feed)
    assert isinstance(error, Fatal)
    assert error.status == status
    assert told in str(error)
    assert f"({status})" in str(error) or f"with {status}" in str(error)


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_a_handshake_that_may_succeed_later_is_retriable_and_is_made_once(
    feed: Feed, sandbox: Sandbox, status: int
) -> None:
    sandbox.fault("odds88", "status", call="settlements", status=status)
    error = refusal_of(feed)
    assert isinstance(error, Retriable)
    assert not isinstance(error, StreamRefused)
    assert error.status == status
    assert len(sandbox.odds88_attempts()) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "reset_before_answer",
        "closed_without_answer",
        "bad_status_line",
        "header_flood",
    ],
)
def test_a_handshake_that_breaks_off_is_retriable(feed: Feed, sandbox: Sandbox, kind: str) -> None:
    sandbox.fault("odds88", kind, call="settlements")
    error = refusal_of(feed)
    assert isinstance(error, Retriable)
    assert error.status is None


@pytest.mark.usefixtures("feed")
@pytest.mark.parametrize("kind", ["slow_headers", "silence"])
def test_a_handshake_has_one_deadline_for_everything(sandbox: Sandbox, kind: str) -> None:
    sandbox.fault("odds88", kind, call="settlements")
    with closing(feed_of(sandbox, call_deadline_seconds=0.5)) as impatient:
        began = time.monotonic()
        error = refusal_of(impatient)
    assert time.monotonic() - began < 0.5 + SLACK
    assert isinstance(error, Retriable)
    assert "came within 0.5 s" in error.happened


def test_no_byte_before_the_deadline_of_an_encrypted_connection_is_retriable() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"wss://127.0.0.1:{listener.getsockname()[1]}/feed"
        with pytest.raises(Retriable, match="No connection could be made") as caught:
            open_socket("odds88", url, HEADERS, settings_with(call_deadline_seconds=0.3))
    check_texts(caught.value)
    assert time.monotonic() - began < 0.3 + SLACK


def error_from(server: WireServer, **tunables: Any) -> ProviderError:
    url = server.base_url.replace("http", "ws", 1)
    with pytest.raises(ProviderError) as caught:
        open_socket("odds88", url, HEADERS, settings_with(**tunables))
    check_texts(caught.value)
    return caught.value


@pytest.mark.parametrize("status", [302, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with wire_server() as elsewhere:
        location = f"Location: {elsewhere.base_url.replace('http', 'ws', 1)}?for={TOKEN}"
        with wire_server(answer(status, b"", location)) as server:
            error = error_from(server)
    assert isinstance(error, Fatal)
    assert "never followed" in error.happened
    assert f"It points to {elsewhere.base_url.replace('http', 'ws', 1)}?for=…." in error.happened
    assert elsewhere.connections == 0
    assert server.connections == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_token_does_not_wait_for_its_body(status: int) -> None:
    head = f"HTTP/1.1 {status} No\r\n\r\n".encode()
    began = time.monotonic()
    with wire_server([head, *dripped(b"." * 500, 0.01)]) as server:
        assert isinstance(error_from(server), Fatal)
        assert time.monotonic() - began < SLACK


def test_a_refused_connection_whose_body_breaks_off_is_the_same_refusal() -> None:
    head = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nbu"
    with wire_server([head, Closing()]) as server:
        error = error_from(server)
    assert isinstance(error, StreamRefused)
    assert error.retry_after == 7
    assert "It said: bu " in error.happened


def test_a_refusal_that_repeats_the_token_is_quoted_without_it() -> None:
    with wire_server(answer(400, f"what is {TOKEN}?".encode())) as server:
        assert "It said: what is …?" in str(error_from(server))


def test_an_answer_that_only_asks_for_patience_is_waited_out() -> None:
    def script(one: Peer) -> None:
        one.connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        one.upgrade(behind=framed(b"one"))

    with peer(script) as place, closing(connect(place)) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"


OFFERED = ("graphql-transport-ws", "graphql-ws")
CHOSEN = "Sec-WebSocket-Protocol: "


@pytest.mark.parametrize(
    ("lines", "accept", "offered"),
    [
        ([], "bm90IG91ciBrZXkgYXQgYWxsISE=", ()),
        (["Sec-WebSocket-Extensions: permessage-deflate"], None, ()),
        ([f"{CHOSEN}graphql-ws"], None, ()),
        ([f"{CHOSEN}mqtt"], None, OFFERED),
        ([f"{CHOSEN}graphql-transport-ws, graphql-ws"], None, OFFERED),
        ([f"{CHOSEN}graphql-ws", f"{CHOSEN}graphql-ws"], None, OFFERED),
    ],
)
def test_a_handshake_that_is_not_the_one_asked_for_is_no_connection(
    lines: list[str], accept: str | None, offered: tuple[str, ...]
) -> None:
    with peer(lambda one: one.upgrade(*lines, accept=accept)) as place:
        with pytest.raises(StreamEnded, match="begins no WebSocket as it was asked for") as caught:
            connect(place, *offered)
        check_texts(caught.value)
    assert caught.value.code is None


@pytest.mark.parametrize("chosen", [*OFFERED, None])
def test_the_provider_chooses_one_of_the_subprotocols_that_are_offered_or_none(
    chosen: str | None,
) -> None:
    lines = [CHOSEN + chosen] if chosen else []
    with peer(lambda one: one.upgrade(*lines)) as place:
        with closing(connect(place, *OFFERED)) as connected:
            assert connected.subprotocol == chosen
        assert b"\r\nSec-WebSocket-Protocol: graphql-transport-ws, graphql-ws\r\n" in (
            place.peers[0].request
        )


def test_the_request_asks_for_a_plain_websocket_and_carries_the_headers() -> None:
    with peer(lambda one: one.upgrade()) as place, closing(connect(place)):
        lines = place.peers[0].request.decode().split("\r\n")
    assert lines[0] == "GET /feed?revision=1 HTTP/1.1"
    headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
    assert headers.pop("sec-websocket-key")
    assert headers == {
        "host": place.url.removeprefix("ws://").removesuffix("/feed?revision=1"),
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "user-agent": "settlement-pipelines",
        "authorization": f"bearer {TOKEN.lower()}",
    }


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "ws:///x", "ws://h:99999/", "ws://me:secret@h/", "wss://h/#x"]
)
def test_an_address_that_is_none_is_fatal_and_not_repeated(url: str) -> None:
    with pytest.raises(Fatal, match="Correct `base_url`") as caught:
        open_socket("odds88", url, HEADERS, settings_with())
    check_texts(caught.value)
    assert url not in str(caught.value)


@pytest.mark.parametrize("text", ["", "Bearer a\r\nX: y", "Bearer ä", " "])
def test_a_header_that_cannot_be_sent_is_fatal_before_anything_is_connected(text: str) -> None:
    with wire_server() as server:
        url = server.base_url.replace("http", "ws", 1)
        with pytest.raises(Fatal, match="no header can carry") as caught:
            open_socket("odds88", url, {"X-Token": text}, settings_with())
    check_texts(caught.value)
    assert server.connections == 0


def test_a_closed_port_and_a_name_without_an_address_are_retriable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for host in (f"127.0.0.1:{bound.getsockname()[1]}", "nowhere.invalid"):
            with pytest.raises(Retriable, match="No connection could be made") as caught:
                open_socket("odds88", f"ws://{host}/feed", HEADERS, settings_with())
            check_texts(caught.value)


def test_a_proxy_from_the_environment_is_not_used(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "http_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert len(hear(feed, MESSAGES)[0]) == MESSAGES


# Logging in comes first.


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("status", {"status": 401}, Fatal),
        ("status", {"status": 403}, Fatal),
        ("status", {"status": 404}, Fatal),
        ("status", {"status": 429}, Retriable),
        ("status", {"status": 503}, Retriable),
        ("redirect", {}, Fatal),
        ("html_page", {}, Fatal),
        ("reset_before_answer", {}, Retriable),
        ("dripping_body", {}, Retriable),
    ],
)
def test_without_a_token_no_attempt_to_connect_is_made(
    feed: Feed, sandbox: Sandbox, kind: str, parameters: dict[str, Any], expected: type
) -> None:
    del feed
    sandbox.fault("odds88", kind, call="log_in", **parameters)
    with closing(feed_of(sandbox, call_deadline_seconds=0.5)) as impatient:
        assert type(refusal_of(impatient)) is expected
    assert sandbox.odds88_attempts() == []


@pytest.mark.parametrize(("password", "client_id"), [("wrong", ODDS88_CLIENT_ID), ("x", None)])
def test_an_account_that_is_not_right_is_fatal(
    sandbox: Sandbox, password: str, client_id: str | None
) -> None:
    account = Account(sandbox.odds88_url, password, client_id)
    with closing(Feed(account, settings_with())) as feed:
        assert isinstance(refusal_of(feed), Fatal)
    assert sandbox.odds88_attempts() == []


def test_an_account_does_not_show_its_password() -> None:
    assert ODDS88_PASSWORD not in repr(Account("https://h", ODDS88_PASSWORD, "client"))


@pytest.mark.parametrize("base_url", ["https://h/x", "HTTPS://h/x"])
def test_the_stream_of_an_encrypted_address_is_encrypted(base_url: str) -> None:
    assert odds88.feed_url(base_url, 7) == "wss://h/x/feed/settlement/v4?revision=7"


def test_the_token_can_go_in_another_header(feed: Feed, sandbox: Sandbox) -> None:
    del feed
    with closing(feed_of(sandbox, odds88_token_header="authorization: bearer   {token}")) as other:
        assert len(hear(other, MESSAGES)[0]) == MESSAGES
    with closing(feed_of(sandbox, odds88_token_header="X-Token: {token}")) as other:
        assert refusal_of(other).status == 401


# Reading.


def test_frames_that_came_with_the_handshake_are_received() -> None:
    behind = framed(b"one") + framed(b"two")
    with (
        peer(lambda one: one.upgrade(behind=behind)) as place,
        closing(connect(place)) as connected,
    ):
        assert [connected.receive(PATIENCE_SECONDS) for _ in range(2)] == [b"one", b"two"]


def test_a_stream_that_is_closed_with_the_handshake_says_so_when_it_is_read() -> None:
    behind = framed(b"one") + framed(Close(1008, "").serialize(), Opcode.CLOSE)
    with (
        peer(lambda one: one.upgrade(behind=behind)) as place,
        closing(connect(place)) as connected,
    ):
        assert connected.receive(PATIENCE_SECONDS) == b"one"
        assert isinstance(end_of(connected), StreamRefused)


def test_a_message_in_parts_is_one_message_also_when_it_is_waited_for_several_times() -> None:
    whole, go_on = b"Gr\xc3\xbc\xc3\x9fe", threading.Event()

    def script(one: Peer) -> None:
        one.connection.sendall(framed(whole[:3], is_last=False) + framed(b"?", Opcode.PING))
        assert go_on.wait(PATIENCE_SECONDS)
        one.connection.sendall(framed(b"", Opcode.CONT, is_last=False))
        one.connection.sendall(framed(whole[3:], Opcode.CONT) + framed(b"next"))

    with opened(script) as connected:
        assert connected.receive(QUIET_SECONDS) is None
        go_on.set()
        assert [connected.receive(PATIENCE_SECONDS) for _ in range(2)] == [whole, b"next"]


def unmasked(received: bytes) -> Frame:
    """A short frame of a client, which masks what it sends."""
    mask, content = received[2:6], received[6:]
    text = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    assert received[0] & 0x80
    assert received[1] == 0x80 | len(text)
    return Frame(Opcode(received[0] & 15), text)


def test_what_we_say_arrives_as_one_masked_text() -> None:
    said: list[Frame] = []

    def script(one: Peer) -> None:
        said.append(unmasked(one.received()))
        one.connection.sendall(framed(b"heard"))

    with opened(script) as connected:
        connected.send("Grüße".encode())
        assert connected.receive(PATIENCE_SECONDS) == b"heard"
    assert said == [Frame(Opcode.TEXT, "Grüße".encode())]


def test_who_does_not_listen_loses_the_connection_and_not_what_it_has_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_WRITE_SECONDS", 0.2)

    def script(one: Peer) -> None:
        one.connection.sendall(framed(b"one") + framed(b"two"))
        never_answers(one)

    with opened(script) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"
        began = time.monotonic()
        # Far more than lies between two ends; what is said to nobody is not waited for again.
        for _ in range(100):
            connected.send(b"." * 2**20)
        assert time.monotonic() - began < 0.2 + SLACK
        assert connected.receive(0) == b"two"
        assert "The connection broke (timed out)." in str(end_of(connected, seconds=0))


def test_a_ping_of_the_connection_is_answered_while_it_is_read() -> None:
    answered: list[Frame] = []

    def script(one: Peer) -> None:
        one.connection.sendall(framed(b"are you there", Opcode.PING))
        answered.append(unmasked(one.received()))
        one.connection.sendall(framed(b"one"))

    with opened(script) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"
    assert answered == [Frame(Opcode.PONG, b"are you there")]


# As a client writes it: with four bytes of a mask.
_PONG = b"\x8a\x80" + bytes(4)


@pytest.mark.parametrize(
    "endless",
    [
        framed(b"", Opcode.PING) * 1000,
        framed(b"", Opcode.PONG) * 1000,
        framed(b"", Opcode.CONT, is_last=False) * 1000,
    ],
    ids=["pings", "pongs", "parts"],
)
def test_what_is_no_message_does_not_hold_up_who_waits_for_one(
    endless: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CLOSE_SECONDS", 0.2)

    def script(one: Peer) -> None:
        one.connection.sendall(framed(b"", is_last=False))
        one.connection.setblocking(False)
        heard = 0
        while not one.stopping.is_set():
            readable, writable, _ = select.select([one.connection], [one.connection], [], 1)
            # Whatever is not the answer to a ping is our goodbye, or nobody is there any more.
            if readable:
                told = one.received()
                frame = -heard % len(_PONG)
                if not told or told[frame : frame + 1] not in (b"", _PONG[:1]):
                    return
                heard += len(told)
            if writable:
                one.connection.send(endless)

    with opened(script) as connected:
        began = time.monotonic()
        assert connected.receive(0.3) is None
        assert 0.3 <= time.monotonic() - began < 0.3 + SLACK


def test_half_a_frame_that_drips_does_not_hold_up_who_waits_for_it() -> None:
    def script(one: Peer) -> None:
        for byte in framed(b"." * 1000):
            one.connection.sendall(bytes([byte]))
            if select.select([one.connection], [], [], 0.02)[0]:
                return

    with opened(script) as connected:
        began = time.monotonic()
        assert connected.receive(0.3) is None
        assert time.monotonic() - began < 0.3 + SLACK


def test_to_ask_without_waiting_gives_what_has_arrived() -> None:
    with opened(sends(framed(b"one") + framed(b"two"))) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"
        assert connected.receive(0) == b"two"
        assert [connected.receive(0), connected.receive(0)] == [None, None]


def test_who_stops_reading_holds_up_the_provider_and_misses_nothing() -> None:
    part, held_up = framed(b"." * 65_000), threading.Event()
    sent = 0

    def script(one: Peer) -> None:
        nonlocal sent
        one.connection.setblocking(False)
        waiting = b""
        while sent < 4000:
            if not select.select([], [one.connection], [], 0.3)[1]:
                break
            waiting = waiting or part
            waiting = waiting[one.connection.send(waiting) :]
            sent += not waiting
        held_up.set()
        one.connection.setblocking(True)
        one.connection.sendall(waiting + framed(b"last"))
        sent += bool(waiting)

    with opened(script) as connected:
        assert held_up.wait(PATIENCE_SECONDS)
        # Held up after what the two systems' buffers hold, of 260 MB.
        assert 0 < sent < 1000
        received = 0
        while (message := connected.receive(PATIENCE_SECONDS)) != b"last":
            assert message == b"." * 65_000
            received += 1
        assert received == sent


# Sizes.


@pytest.mark.parametrize(
    ("frames", "is_fatal"),
    [
        ([framed(b"." * 2000)], False),
        ([framed(b"." * 2001)], True),
        ([framed(b"." * 1500, is_last=False), framed(b"." * 500, Opcode.CONT)], False),
        ([framed(b"." * 1500, is_last=False), framed(b"." * 501, Opcode.CONT)], True),
        # Announced alone it is refused: nobody waits for it, or keeps it.
        ([framed(b"." * 70_000)[:20]], True),
    ],
    ids=["whole", "too large", "in parts", "too large in parts", "announced"],
)
def test_a_message_has_a_size_limit(frames: list[bytes], is_fatal: bool) -> None:
    with opened(sends(framed(b"one"), *frames), stream_message_limit_bytes=2000) as connected:
        assert connected.receive(PATIENCE_SECONDS) == b"one"
        if not is_fatal:
            assert connected.receive(PATIENCE_SECONDS) == b"." * 2000
            return
        error = end_of(connected)
    assert isinstance(error, Fatal)
    assert "a message of more than 2000 bytes" in error.happened
    assert "SETTLEMENTS_STREAM_MESSAGE_LIMIT_BYTES" in error.next_step


def test_the_provider_is_told_that_a_message_was_too_large(feed: Feed, sandbox: Sandbox) -> None:
    sandbox.fault("odds88", "oversize_message", size=64 * 2**20)
    _, error = hear(feed, MESSAGES)
    assert isinstance(error, Fatal)
    wait_for(lambda: sandbox.odds88_attempts()[0]["ended"] is not None)
    assert sandbox.odds88_attempts()[0]["ended"] == "client 1009"


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at


# Closing.


def never_answers(one: Peer) -> None:
    one.stopping.wait(PATIENCE_SECONDS)


def never_stops(one: Peer) -> None:
    while not one.stopping.is_set():
        one.connection.sendall(framed(b"." * 1000) * 50)


@pytest.mark.parametrize("script", [never_answers, never_stops])
def test_closing_is_bounded_whatever_the_peer_does(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CLOSE_SECONDS", 0.5)
    with opened(script) as connected:
        began = time.monotonic()
        connected.close()
        assert 0.4 < time.monotonic() - began < 0.5 + SLACK
        connected.close()
        assert time.monotonic() - began < 0.5 + SLACK


def test_who_reads_on_after_closing_is_told_so() -> None:
    with opened(lambda one: None) as connected:
        connected.close()
        assert "The connection was closed by us." in str(end_of(connected))


def test_closing_says_goodbye_and_waits_for_the_other_side_to_end() -> None:
    said: list[bytes] = []

    def script(one: Peer) -> None:
        said.append(one.received())
        one.connection.shutdown(socket.SHUT_RDWR)

    with opened(script) as connected:
        began = time.monotonic()
        connected.close()
        assert time.monotonic() - began < SLACK
    [frame] = said
    mask, content = frame[2:6], frame[6:]
    assert frame[0] == 0x88
    code = bytes(byte ^ mask[place] for place, byte in enumerate(content))
    assert int.from_bytes(code, "big") == 1000


def test_closing_never_raises_whatever_the_peer_has_done() -> None:
    for script in (lambda one: one.connection.close(), sends(b"\x83\x00"), sends(framed(b"one"))):
        with opened(script) as connected:
            connected.close()
            # What had arrived before is still there.
            while not isinstance(end := received_or_end(connected), ProviderError):
                assert end == b"one"
            assert isinstance(end, StreamEnded)


def test_the_provider_sees_us_go_in_the_midst_of_its_history(feed: Feed, sandbox: Sandbox) -> None:
    sandbox.configure("odds88", messages=20_000)
    with closing(open_feed(feed)) as connected:
        assert connected.receive(PATIENCE_SECONDS) is not None
    wait_for(lambda: sandbox.odds88_attempts()[0]["ended"] is not None)
    assert sandbox.odds88_attempts()[0]["ended"] == "client 1000"


# Secrets.


def test_no_log_says_the_token_the_password_or_a_message_at_any_level(
    feed: Feed, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def keep(logger: logging.Logger, record: logging.LogRecord) -> None:
        told.append(f"{logger.name} {record.getMessage()} {vars(record)}")

    tokens: list[str] = []
    log_in = odds88.log_in

    def remembered(*arguments: Any) -> odds88.Token:
        token = log_in(*arguments)
        tokens.append(token.text)
        return token

    monkeypatch.setattr(logging.Logger, "handle", keep)
    monkeypatch.setattr(access, "log_in", remembered)
    for name in ["", *logging.Logger.manager.loggerDict]:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "disabled", False)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    hear(feed, MESSAGES)
    sandbox.fault("odds88", "status", call="settlements", status=401)
    refusal_of(feed)
    sandbox.fault("odds88", "broken_frame")
    hear(feed, MESSAGES)
    monkeypatch.undo()
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert any(line.startswith("httpcore") for line in told)
    assert len(tokens) == 3
    for secret in (ODDS88_PASSWORD, *tokens, "betId"):
        assert [line for line in told if secret in line] == []


def test_a_reason_that_repeats_the_token_is_told_without_it() -> None:
    reason = Close(1008, f"{TOKEN} is used").serialize()
    with opened(sends(framed(reason, Opcode.CLOSE))) as connected:
        assert "It said: … is used." in str(end_of(connected))


# Encrypted.


def test_an_encrypted_stream_is_read_as_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = made_certificate(tmp_path / "local.pem")
    monkeypatch.setattr(deadlines, "_TLS", certificate.trusting())
    messages = [b"%d" % number * 5000 for number in range(200)]
    go_on = threading.Event()

    def script(one: Peer) -> None:
        one.upgrade()
        one.connection.sendall(b"".join(map(framed, messages)))
        assert go_on.wait(PATIENCE_SECONDS)
        one.connection.sendall(framed(b"", Opcode.PING) + framed(b"last"))
        one.connection.sendall(framed(Close(1001, "").serialize(), Opcode.CLOSE))

    with peer(script, certificate.server()) as place, closing(connect(place)) as connected:
        assert [connected.receive(PATIENCE_SECONDS) for _ in messages] == messages
        assert connected.receive(QUIET_SECONDS) is None
        assert connected.receive(0) is None
        go_on.set()
        assert connected.receive(PATIENCE_SECONDS) == b"last"
        assert end_of(connected).status is None
