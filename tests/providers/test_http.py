"""The wire, against a real socket: what every way of going wrong becomes, and how long it takes."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from include.providers.deadlines import now
from include.providers.errors import KEPT, NOTHING_SENT, Ambiguous, Fatal, ProviderError, Retriable
from include.providers.http import Answer, Client
from include.settings import Settings
from tests.wire_server import Close, Pause, Reset, Step, WireServer, answer, dripped, wire_server

KEY = "tt_live_5f1c2e7a"
# How much later than its deadline a call may end on a busy machine.
SLACK = 4.0


def client_of(server: WireServer, sleep: Any = lambda seconds: None, **tunables: Any) -> Client:
    tunables = {"read_attempts": 1, "call_deadline_seconds": 5.0} | tunables
    return Client(
        "ticktock",
        server.base_url,
        secret_headers={"X-API-Key": KEY},
        settings=Settings(**tunables),
        meanings={403: "It needs the scope reading."},
        sleep=sleep,
    )


def error_of(*script: Sequence[Step], **tunables: Any) -> ProviderError:
    with (
        wire_server(*script) as server,
        client_of(server, **tunables) as client,
        pytest.raises(ProviderError) as caught,
    ):
        client.get("/settlements")
    assert KEY not in str(caught.value)
    assert KEPT in str(caught.value)
    return caught.value


def test_an_answer_carries_the_exact_bytes_and_the_facts_of_the_request() -> None:
    body = b'{"data": [],  "meta":\n{"count": 0}}'
    before = datetime.now(UTC)
    with wire_server(answer(200, body)) as server, client_of(server) as client:
        received = client.get("/settlements", {"limit": 200, "since_id": "a/b c"})
    assert received.body == body
    assert received.status == 200
    assert received.content_type == "application/json"
    assert received.url_path == "/cs2/v1/settlements?limit=200&since_id=a%2Fb+c"
    assert before <= received.requested_at <= received.received_at <= datetime.now(UTC)
    head = server.requests[0].decode().lower()
    assert head.startswith("get /cs2/v1/settlements?limit=200&since_id=a%2fb+c http/1.1")
    for line in (f"x-api-key: {KEY}", "accept: application/json", "accept-encoding: identity"):
        assert line in head.splitlines()
    assert body.decode() not in repr(received)


def test_a_connection_is_used_again() -> None:
    with wire_server(answer(), answer()) as server, client_of(server) as client:
        client.get("/settlements")
        client.get("/settlements")
    assert (server.connections, len(server.requests)) == (1, 2)


def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with wire_server(answer()) as server, client_of(server) as client:
        assert client.get("/settlements").status == 200


@pytest.mark.parametrize(
    ("status", "happened", "next_step"),
    [
        (401, "did not accept the key (401)", "password of the Airflow connection `ticktock`"),
        (403, "refuses access (403). It needs", "the Airflow connection `ticktock` holds"),
        (404, "knows nothing under /cs2/v1/settlements (404)", "Check `base_url`"),
        (406, "will not answer in JSON (406)", "`Accept: application/json`"),
        (422, "parameters of /cs2/v1/settlements wrong (422)", "Correct the setting"),
        (418, "answered /cs2/v1/settlements with 418", "ask ticktock what the answer means"),
        (206, "answered /cs2/v1/settlements with 206", "ask ticktock what the answer means"),
    ],
)
def test_a_refusal_is_fatal_and_says_what_to_do(status: int, happened: str, next_step: str) -> None:
    with (
        wire_server(answer(status, b'{"detail": "no"}')) as server,
        client_of(server, read_attempts=3) as client,
        pytest.raises(Fatal) as caught,
    ):
        client.get("/settlements")
    assert caught.value.status == status
    assert happened in caught.value.happened
    assert next_step in caught.value.next_step
    assert caught.value.next_step.endswith("then clear this task.")
    assert KEPT in str(caught.value)
    assert len(server.requests) == 1


def test_a_refusal_quotes_what_the_provider_said_without_the_key() -> None:
    error = error_of(answer(422, f'{{"detail":\n "limit 0, {KEY}, \x1b[31m"}}'.encode()))
    assert 'It said: {"detail": "limit 0, …, [31m"}' in str(error)


@pytest.mark.parametrize("shown", [1, 9, len(KEY) - 1])
def test_a_key_that_the_quotation_cuts_is_not_begun(shown: int) -> None:
    error = error_of(answer(422, b"[" + b" " * (2048 - 1 - shown) + KEY.encode() + b"]"))
    assert error.happened.endswith(f"It said: [ {KEPT}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_key_is_not_quoted(status: int) -> None:
    error = error_of(answer(status, f'{{"detail": "bad key {KEY[:9]}"}}'.encode()))
    assert KEY[:9] not in str(error)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_failure_that_may_pass_is_retriable(status: int) -> None:
    error = error_of(answer(status, b"busy"))
    assert isinstance(error, Retriable)
    assert (error.status, error.retry_after) == (status, None)
    assert f"({status})" in error.happened
    assert "It said: busy" in error.happened
    assert error.next_step.startswith("Nothing to do now")


@pytest.mark.parametrize(
    ("broken", "happened"),
    [
        ([Close()], "connection broke"),
        ([Reset()], "connection broke"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", Reset()], "connection broke"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", Close()], "connection broke"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", Reset()], "connection broke"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", Close()],
            "connection broke",
        ),
        ([b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Close()], "connection broke"),
        ([b"HTTP/1.1 2OO OK\r\n\r\n", Close()], "connection broke"),
        ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"], "connection broke"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x-flood: flood\r\n" * 20_000], "connection broke"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"], "connection broke"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"],
            "connection broke",
        ),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"],
            "connection broke",
        ),
    ],
)
def test_a_broken_connection_is_retriable(broken: list[Step], happened: str) -> None:
    error = error_of(broken)
    assert isinstance(error, Retriable)
    assert error.status is None
    assert happened in error.happened


@contextmanager
def closed_port() -> Iterator[WireServer]:
    """An address where nothing listens, and nothing else can start to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield WireServer(f"http://127.0.0.1:{bound.getsockname()[1]}", [])


def test_a_closed_port_is_retriable() -> None:
    with (
        closed_port() as server,
        client_of(server) as client,
        pytest.raises(Retriable, match="No connection could be made"),
    ):
        client.get("/settlements")


def test_a_host_without_an_address_is_retriable() -> None:
    nowhere = WireServer("http://nowhere.invalid", [])
    with client_of(nowhere) as client, pytest.raises(Retriable, match=r"nowhere\.invalid"):
        client.get("/settlements")


def test_a_name_whose_look_up_never_ends_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def resolve(*question: Any, **options: Any) -> list[Any]:
        ended.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    try:
        with (
            client_of(WireServer("http://slow.invalid", []), call_deadline_seconds=0.4) as client,
            pytest.raises(Retriable, match=r"No connection could be made .* within 0\.4 s"),
        ):
            client.get("/settlements")
        assert 0.35 <= time.monotonic() - began < 0.4 + SLACK
        assert not client._backend.call.request_started
    finally:
        ended.set()


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def test_what_was_written_is_ambiguous_whatever_went_wrong_before_it() -> None:
    with wire_server([Reset()]) as server, client_of(server) as client:
        try:
            raise ssl.SSLCertVerificationError("another host's")
        except ssl.SSLCertVerificationError:
            with pytest.raises(Ambiguous):
                posted(client)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param([Pause(30)], id="silent"),
        pytest.param(dripped(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 600, 0.05), id="head"),
        pytest.param([OK_HEAD, *dripped(b" " * 600, 0.05)], id="body"),
        pytest.param(
            [b"HTTP/1.1 100 Continue\r\n\r\n", Pause(0.05)] * 600, id="endless interim answers"
        ),
    ],
)
def test_a_call_ends_at_its_deadline_however_slowly_bytes_come(slow: list[Step]) -> None:
    began = time.monotonic()
    error = error_of(slow, call_deadline_seconds=0.4)
    elapsed = time.monotonic() - began
    assert isinstance(error, Retriable)
    assert "within 0.4 s" in error.happened
    assert 0.35 <= elapsed < 0.4 + SLACK


def test_a_handshake_that_is_never_answered_ends_at_the_deadline() -> None:
    with wire_server() as server:
        secure = WireServer(server.base_url.replace("http:", "https:"), [])
        began = time.monotonic()
        with (
            client_of(secure, call_deadline_seconds=0.4) as client,
            pytest.raises(Retriable, match=r"within 0\.4 s"),
        ):
            client.get("/settlements")
        assert time.monotonic() - began < 0.4 + SLACK
        assert not client._backend.call.request_started


def test_a_slow_refusal_is_still_that_refusal() -> None:
    head = b"HTTP/1.1 404 Said\r\nContent-Length: 1000\r\n\r\n"
    error = error_of([head, *dripped(b" " * 600, 0.05)], call_deadline_seconds=0.4)
    assert isinstance(error, Fatal)


def test_the_deadline_is_each_calls_own() -> None:
    """A connection that is used again gets the time of the call that uses it."""
    late = [Pause(0.4), *answer()]
    with (
        wire_server(late, late, late) as server,
        client_of(server, call_deadline_seconds=1.0) as client,
    ):
        for _ in range(3):
            client.get("/settlements")
    assert server.connections == 1


def test_a_redirect_is_fatal_and_not_followed() -> None:
    with (
        wire_server() as elsewhere,
        wire_server(answer(302, b"", f"Location: {elsewhere.base_url}/x")) as server,
        client_of(server) as client,
        pytest.raises(Fatal, match=r"redirect \(302\).*It points to http://127") as caught,
    ):
        client.get("/settlements")
    assert elsewhere.connections == 0
    assert "set `base_url`" in caught.value.next_step


def test_a_body_above_the_limit_is_refused_while_it_streams() -> None:
    endless = [b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 65536] * 10_000]
    error = error_of(endless, body_limit_bytes=100_000)
    assert isinstance(error, Fatal)
    assert "larger than 100000 bytes" in error.happened
    assert "SETTLEMENTS_BODY_LIMIT_BYTES" in error.next_step


def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = b" " * 2000
    with (
        wire_server(answer(200, body)) as server,
        client_of(server, body_limit_bytes=2000) as client,
    ):
        assert client.get("/settlements").body == body
    assert isinstance(error_of(answer(200, body), body_limit_bytes=1999), Fatal)


def test_a_compressed_body_is_refused() -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    error = error_of(answer(200, bomb, "Content-Encoding: gzip"))
    assert isinstance(error, Fatal)
    assert "in the encoding gzip" in error.happened


def test_the_encoding_of_a_failure_does_not_hide_its_status() -> None:
    error = error_of(answer(503, gzip.compress(b"down"), "Content-Encoding: gzip"))
    assert isinstance(error, Retriable)
    assert error.status == 503
    assert "It said" not in error.happened


def test_html_with_status_200_is_an_answer_for_its_reader_to_judge() -> None:
    page = answer(200, b"<html>", content_type="text/html")
    with wire_server(page) as server, client_of(server) as client:
        received = client.get("/settlements")
    assert (received.body, received.content_type) == (b"<html>", "text/html")


def retried(scripts: list[list[Step]], **tunables: Any) -> tuple[Answer | Retriable, list[float]]:
    waits: list[float] = []
    with (
        wire_server(*scripts) as server,
        client_of(server, waits.append, **({"read_attempts": len(scripts)} | tunables)) as client,
    ):
        try:
            result: Answer | Retriable = client.get("/settlements")
        except Retriable as error:
            result = error
    return result, waits


def test_a_read_is_tried_again_with_growing_waits_until_it_succeeds() -> None:
    result, waits = retried([answer(500), [Reset()], answer(429), answer(200, b"[]")])
    assert isinstance(result, Answer)
    assert result.body == b"[]"
    for lower, waited in zip([0.5, 1.0, 2.0], waits, strict=True):
        assert lower <= waited <= lower + 0.5


def test_after_the_last_attempt_the_last_error_is_raised() -> None:
    result, waits = retried([answer(500), answer(500), answer(503)])
    assert isinstance(result, Retriable)
    assert result.status == 503
    assert len(waits) == 2


def test_each_retry_is_logged_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        retried([answer(500, KEY.encode()), answer()])
    assert "It failed to answer /cs2/v1/settlements (500)." in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("header", "lowest", "highest"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("3600", 20, 20),
        ("9" * 400, 20, 20),
        (timedelta(seconds=12), 5, 12),
        (timedelta(seconds=-60), 0, 0),
        (timedelta(seconds=9999), 20, 20),
        ("Fri, 31 Dec 9999 23:59:59 -0000", 20, 20),
        ("Mon, 01 Jan 1900 00:00:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_honoured_up_to_the_setting(
    header: str | timedelta, lowest: float, highest: float
) -> None:
    for status in (429, 503):
        if isinstance(header, timedelta):
            value = format_datetime(datetime.now(UTC) + header, usegmt=True)
        else:
            value = header
        refused = answer(status, b"", f"Retry-After: {value}")
        result, waits = retried([refused, refused], retry_after_limit_seconds=20)
        assert isinstance(result, Retriable)
        assert result.retry_after is not None
        assert lowest <= result.retry_after <= highest
        assert lowest <= waits[0] <= highest
        assert "Retry-After is honoured" in result.happened


@pytest.mark.parametrize(
    "header",
    [
        "soon",
        "-5",
        "1.5",
        "",
        "NaN",
        "inf",
        "²",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Mon, 99 Foo 2026 99:99:99 GMT",
    ],
)
def test_an_unreadable_retry_after_counts_as_none(header: str) -> None:
    refused = answer(429, b"", f"Retry-After: {header}")
    result, waits = retried([refused, refused])
    assert isinstance(result, Retriable)
    assert result.retry_after is None
    assert 0.5 <= waits[0] <= 1.0


@pytest.mark.parametrize(
    "base_url",
    ["", "ticktock.bet/cs2/v1", "ftp://ticktock.bet", "https://", "http://[::1", "https://h:x/",
     f"https://user:{KEY}@ticktock.bet", f"https://ticktock.bet/?key={KEY}"],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_fatal_and_not_shown(base_url: str) -> None:
    with pytest.raises(Fatal, match="Correct `base_url`") as caught:
        client_of(WireServer(base_url, []))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", f"{KEY}\r\nX-Admin: 1", f"{KEY}é"])
def test_a_key_that_no_header_can_carry_is_fatal_and_not_shown(key: str) -> None:
    with pytest.raises(Fatal, match="Enter the password of the Airflow connection") as caught:
        Client("t", "http://h", secret_headers={"X-API-Key": key}, settings=Settings())
    assert KEY not in str(caught.value)


# Writing calls. The server of raw bytes reads heads only, so these bodies are empty; the wallet's
# own tests send whole ones.


class Stamp(httpx.Auth):
    """A signature of the simplest kind; `stamped` counts how often one was asked for."""

    requires_request_body = True
    stamped = 0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self.stamped += 1
        request.headers["x-stamp"] = f"{len(request.content)} bytes"
        yield request


def posted(client: Client, seconds: float = 5.0, auth: httpx.Auth | None = None) -> Answer:
    ends_at = now() + seconds
    return client.post("/payouts", b"", auth=auth or Stamp(), ends_at=ends_at)


def answer_to_post(*script: Sequence[Step], seconds: float = 5.0, **tunables: Any) -> Answer:
    with wire_server(*script) as server, client_of(server, **tunables) as client:
        return posted(client, seconds)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 404, 409, 422, 429, 500, 503])
def test_a_writing_call_is_made_once_and_hands_back_whatever_is_answered(status: int) -> None:
    stamp = Stamp()
    redirect = answer(status, b'{"a": 1}', "Location: http://127.0.0.1:1/", "Retry-After: 7")
    with (
        wire_server(redirect, answer()) as server,
        client_of(server, read_attempts=3) as client,
    ):
        received = posted(client, auth=stamp)
    assert (received.status, received.body, received.is_complete) == (status, b'{"a": 1}', True)
    assert (received.url_path, received.retry_after) == ("/cs2/v1/payouts", 7)
    assert received.requested_at <= received.received_at <= datetime.now(UTC)
    assert (stamp.stamped, len(server.requests)) == (1, 1)
    head = server.requests[0].decode().lower()
    assert head.startswith("post /cs2/v1/payouts http/1.1\r\n")
    for line in (
        f"x-api-key: {KEY}",
        "x-stamp: 0 bytes",
        "content-type: application/json",
        "accept-encoding: identity",
    ):
        assert line in head.splitlines()


def test_a_retry_after_on_a_writing_call_is_bounded() -> None:
    refused = answer(429, b"", "Retry-After: 3600")
    assert answer_to_post(refused, retry_after_limit_seconds=20).retry_after == 20
    assert answer_to_post(answer(429)).retry_after is None


@pytest.mark.parametrize(
    "base_url", ["http://nowhere.invalid", "http://127.0.0.1:1"], ids=["no address", "closed port"]
)
def test_a_writing_call_that_reaches_nobody_is_retriable(base_url: str) -> None:
    with (
        client_of(WireServer(base_url, [])) as client,
        pytest.raises(Retriable, match="No connection could be made") as caught,
    ):
        posted(client)
    assert caught.value.happened.endswith(NOTHING_SENT)
    assert KEPT not in str(caught.value)


def test_a_writing_call_whose_handshake_is_never_answered_is_retriable() -> None:
    with wire_server() as server:
        secure = WireServer(server.base_url.replace("http:", "https:"), [])
        began = time.monotonic()
        with client_of(secure) as client, pytest.raises(Retriable, match=NOTHING_SENT):
            posted(client, seconds=0.4)
        assert 0.35 <= time.monotonic() - began < 0.4 + SLACK


def test_no_byte_is_written_after_the_deadline_not_even_on_an_open_connection() -> None:
    """As when the process is stopped after it stored its intent, and goes on too late."""
    with wire_server(answer(), answer()) as server, client_of(server) as client:
        posted(client)
        with pytest.raises(Retriable, match="before its deadline") as caught:
            posted(client, seconds=-0.001)
        assert caught.value.happened.endswith(NOTHING_SENT)
        posted(client)
    assert len(server.requests) == 2


def test_no_byte_is_written_after_the_deadline_if_the_machine_was_suspended_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it signs; the clock of `time.monotonic` stands still then."""

    class Suspended(Stamp):
        def auth_flow(
            self, request: httpx.Request
        ) -> Generator[httpx.Request, httpx.Response, None]:
            stands_still = time.monotonic()
            time.sleep(0.3)
            monkeypatch.setattr(time, "monotonic", lambda: stands_still)
            yield from super().auth_flow(request)

    with wire_server(answer()) as server, client_of(server) as client:
        with pytest.raises(Retriable, match="before its deadline"):
            posted(client, seconds=0.2, auth=Suspended())
        assert server.requests == []


def test_no_byte_of_a_request_is_sent_after_its_deadline_by_this_machine() -> None:
    """The other side takes the first bytes only then."""
    body = b" " * 1_000_000
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with client_of(WireServer(f"http://127.0.0.1:{port}", [])) as client:
            with pytest.raises(Ambiguous, match="before its deadline"):
                client.post("/payouts", body, auth=Stamp(), ends_at=now() + 0.3)
            connection, _ = listener.accept()
            with connection, pytest.raises(ConnectionResetError):
                deque(iter(lambda: connection.recv(65536), b""), maxlen=0)


@pytest.mark.parametrize(
    "broken",
    [
        [Close()],
        [Reset()],
        [b"HTTP/1.1 200 OK\r\nContent-Le", Reset()],
        [b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Close()],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"],
        [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Close()],
        [b"HTTP/1.1 100 Continue\r\n\r\n", Reset()],
    ],
)
def test_a_writing_call_that_breaks_off_before_a_status_is_ambiguous(broken: list[Step]) -> None:
    with (
        wire_server(broken, answer()) as server,
        client_of(server, read_attempts=3) as client,
        pytest.raises(Ambiguous, match="Whether ticktock did what it was asked is not known"),
    ):
        posted(client)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param([Pause(30)], id="silent"),
        pytest.param(dripped(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 600, 0.05), id="head"),
    ],
)
def test_a_writing_call_without_a_status_at_its_deadline_is_ambiguous(slow: list[Step]) -> None:
    began = time.monotonic()
    with (
        wire_server(slow) as server,
        client_of(server) as client,
        pytest.raises(Ambiguous, match="before its deadline") as caught,
    ):
        posted(client, seconds=0.4)
    assert 0.35 <= time.monotonic() - began < 0.4 + SLACK
    assert KEY not in str(caught.value)
    assert caught.value.next_step.startswith("Nothing to do now: what was sent counts as in doubt")


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize(
    "rest",
    [
        pytest.param([b"Content-Length: 9\r\n\r\nbegun", Close()], id="closed"),
        pytest.param([b"Content-Length: 9\r\n\r\nbegun", Pause(30)], id="silent"),
        pytest.param(
            [b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", Pause(0.05), Reset()],
            id="reset",
        ),
        pytest.param([b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\nzz\r\n"], id="garbled"),
    ],
)
def test_a_body_that_breaks_off_is_handed_back_as_far_as_it_came(
    status: int, rest: list[Step]
) -> None:
    script = [f"HTTP/1.1 {status} Said\r\n".encode(), *rest]
    received = answer_to_post(script, seconds=0.5)
    assert (received.status, received.body, received.is_complete) == (status, b"begun", False)


def test_of_a_body_above_the_limit_the_beginning_is_handed_back() -> None:
    endless = [b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 65536] * 10_000]
    received = answer_to_post(endless, body_limit_bytes=100_000)
    assert (received.body, received.is_complete) == (b" " * 100_000, False)
    exact = answer_to_post(answer(200, b" " * 2000), body_limit_bytes=2000)
    assert (len(exact.body), exact.is_complete) == (2000, True)


def test_a_compressed_answer_to_a_writing_call_is_handed_back_as_it_came() -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    assert answer_to_post(answer(200, bomb, "Content-Encoding: gzip")).body == bomb


def test_a_key_that_a_refusal_repeats_is_not_handed_back() -> None:
    said = f'{{"detail": "{KEY} is unknown", "end": "{KEY[:1]}'.encode()
    received = answer_to_post(answer(401, said))
    assert received.body == said.replace(KEY.encode(), "…".encode())
    head = b"HTTP/1.1 401 Said\r\nContent-Length: 1000\r\n\r\n"
    cut = answer_to_post([head + b"[" + KEY[:-1].encode(), Close()])
    assert (cut.body, cut.is_complete) == (b"[", False)


def test_an_answer_that_is_a_success_is_handed_back_byte_by_byte() -> None:
    """An id in it may look like a key, and must still be found."""
    said = f'{{"id": "{KEY}"}}'.encode()
    assert answer_to_post(answer(200, said)).body == said


def test_an_address_that_swallows_packets_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with wire_server(answer(200, b"{}")) as server, ExitStack() as sockets:
        port = httpx.URL(server.base_url).port
        swallowing = sockets.enter_context(socket.socket())
        swallowing.bind(("127.0.0.2", port))
        # A queue that is full and never emptied answers to no further connection.
        swallowing.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with client_of(server, call_deadline_seconds=4) as client:
            assert client.get("/settlements").status == 200
