"""Faults come when they were ordered, as they were ordered, and are then over."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox


def get(ticktock: httpx.Client, **query: Any) -> httpx.Response:
    return ticktock.get("/settlements", params={"limit": 5} | query)


def raw_answer(sandbox: Sandbox) -> tuple[bytes, bool]:
    """What comes over the wire for one page, and whether the connection ended by a reset."""
    address = urlsplit(sandbox.base_url)
    request = (
        f"GET /cs2/v1/settlements?limit=5 HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"X-API-Key: {TICKTOCK_KEY}\r\n\r\n"
    )
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 0), 10) as connection:
        connection.sendall(request.encode())
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            return received, True
    return received, False


@pytest.mark.parametrize("status", [401, 403, 404, 406, 422, 429, 500, 502, 503])
def test_any_status_can_be_ordered(sandbox: Sandbox, ticktock: httpx.Client, status: int) -> None:
    sandbox.fault("ticktock", "status", status=status)
    answer = get(ticktock)
    assert answer.status_code == status
    assert "Retry-After" not in answer.headers
    if status in (502, 503):
        assert answer.headers["content-type"].startswith("text/html")
    else:
        assert set(answer.json()) == {"detail"}
    assert get(ticktock).status_code == 200


@pytest.mark.parametrize("retry_after", ["2", "86400", "Sat, 21 Nov 2026 12:00:00 GMT", "soon"])
def test_retry_after_is_sent_as_ordered(
    sandbox: Sandbox, ticktock: httpx.Client, retry_after: str
) -> None:
    sandbox.fault("ticktock", "status", status=429, retry_after=retry_after)
    assert get(ticktock).headers["Retry-After"] == retry_after


def test_a_reset_comes_before_the_first_byte(sandbox: Sandbox) -> None:
    sandbox.fault("ticktock", "reset_before_answer")
    assert raw_answer(sandbox) == (b"", True)


def test_a_reset_comes_in_the_middle_of_the_body(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    body = get(ticktock).content
    sandbox.fault("ticktock", "reset_in_body", share=0.25)
    received, was_reset = raw_answer(sandbox)
    head, _, start = received.partition(b"\r\n\r\n")
    assert was_reset
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {len(body)}".encode() in head
    assert start == body[: len(body) // 4]


def test_a_body_ends_before_its_announced_length(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    body = get(ticktock).content
    sandbox.fault("ticktock", "truncated_body")
    received, was_reset = raw_answer(sandbox)
    head, _, start = received.partition(b"\r\n\r\n")
    assert not was_reset
    assert f"content-length: {len(body)}".encode() in head
    assert start == body[: len(body) // 2]


@pytest.mark.parametrize("kind", ["reset_before_answer", "reset_in_body", "truncated_body"])
def test_a_client_sees_a_broken_connection_once(
    sandbox: Sandbox, ticktock: httpx.Client, kind: str
) -> None:
    sound = get(ticktock).content
    sandbox.fault("ticktock", kind)
    with pytest.raises(httpx.TransportError):
        get(ticktock)
    assert get(ticktock).content == sound


def test_malformed_json_is_a_whole_answer(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sandbox.fault("ticktock", "malformed_json")
    answer = get(ticktock)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_a_web_page_can_come_with_200(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sandbox.fault("ticktock", "html_page")
    answer = get(ticktock)
    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")


def test_the_envelope_can_be_another(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock).json()
    sandbox.fault("ticktock", "wrong_envelope")
    assert get(ticktock).json() == {"result": sound}


def test_a_page_can_be_empty_though_there_is_more(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sandbox.fault("ticktock", "empty_page")
    assert get(ticktock).json() == {"data": [], "meta": {"count": 0}}


def test_a_page_can_come_again(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock)
    cursor = sound.json()["data"][-1]["id"]
    sandbox.fault("ticktock", "repeated_page", times=2)
    for _ in range(2):
        assert get(ticktock, since_id=cursor).content == sound.content
    assert get(ticktock, since_id=cursor).json()["data"][0]["id"] > cursor


def test_an_entry_can_change_under_its_id(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock).json()["data"]
    sandbox.fault("ticktock", "changed_entry", entry=-1)
    sandbox.fault("ticktock", "changed_entry", entry=1, changes={"settled_by": "nobody"})
    first, second = get(ticktock).json()["data"], get(ticktock).json()["data"]
    assert first[:4] == sound[:4]
    assert first[4]["id"] == sound[4]["id"]
    assert first[4] != sound[4]
    assert second == [sound[0], sound[1] | {"settled_by": "nobody"}, *sound[2:]]


def test_an_entry_can_be_spoiled(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock).json()["data"]
    sandbox.fault("ticktock", "entry_without_id")
    sandbox.fault("ticktock", "unknown_value")
    sandbox.fault("ticktock", "unknown_value", entry=2, field="outcome", value="half_won")
    sandbox.fault("ticktock", "unknown_field")
    sandbox.fault("ticktock", "duplicated_entry", entry=3)
    pages = [get(ticktock).json() for _ in range(5)]
    assert "id" not in pages[0]["data"][0]
    assert pages[1]["data"][0] == sound[0] | {"new_status": "regraded"}
    assert pages[2]["data"][2] == sound[2] | {"outcome": "half_won"}
    assert pages[3]["data"][0] == sound[0] | {"market_tier": "gold"}
    assert pages[4] == {"data": [*sound[:4], sound[3], sound[4]], "meta": {"count": 6}}


def test_a_redirect_points_where_it_was_ordered_to(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sandbox.fault("ticktock", "redirect", location="https://other.invalid/x", status=307)
    answer = get(ticktock)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://other.invalid/x")


def test_a_page_can_hold_more_than_was_asked_for(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock, limit=15)
    sandbox.fault("ticktock", "overfull_page")
    assert get(ticktock).content == sound.content


def test_a_cursor_can_be_refused_or_forgotten_where_one_is_given(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    first = get(ticktock).json()
    cursor = first["data"][-1]["id"]
    sandbox.fault("ticktock", "refused_cursor", status=422)
    assert get(ticktock).json() == first
    assert get(ticktock, since_id=cursor).status_code == 422
    sandbox.fault("ticktock", "restarted_page")
    assert get(ticktock).json() == first
    assert get(ticktock, since_id=cursor).json() == first
    assert sandbox.faults() == []


def test_a_page_can_come_in_another_order_or_with_a_wrong_count(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sound = get(ticktock).json()["data"]
    for kind in ("reversed_page", "shuffled_page"):
        sandbox.fault("ticktock", kind)
    sandbox.fault("ticktock", "miscounted_page", by=-2)
    assert get(ticktock).json()["data"] == sound[::-1]
    assert get(ticktock).json()["data"] == [sound[1], sound[3], sound[0], sound[2], sound[4]]
    assert get(ticktock).json() == {"data": sound, "meta": {"count": 3}}


@pytest.mark.parametrize(
    ("kind", "parameters", "before", "after"),
    [
        ("missing_field", {"field": "match_id"}, rb'"match_id":"[^"]*",', b""),
        ("null_field", {"field": "match_id"}, rb'"match_id":"[^"]*"', b'"match_id":null'),
        ("wrong_type", {"field": "match_id"}, rb'"match_id":"[^"]*"', b'"match_id":["one",2]'),
        ("repeated_field", {"field": "id", "value": 0}, rb'{"id":', b'{"id":0,"id":'),
        ("not_a_number", {}, rb'"new_status":"[^"]*"', b'"new_status":NaN'),
        ("huge_number", {}, rb'"new_status":"[^"]*"', b'"new_status":' + b"9" * 400),
        (
            "deep_nesting",
            {"depth": 50_000},
            rb'"new_status":"[^"]*"',
            b'"new_status":' + b"[" * 50_000 + b"]" * 50_000,
        ),
        ("escaped_null_character", {}, rb'"new_status":"[^"]*"', rb'"new_status":"settled\u0000"'),
        ("raw_null_character", {}, rb'"new_status":"[^"]*"', b'"new_status":"settled\0"'),
        ("lone_surrogate", {}, rb'"new_status":"[^"]*"', rb'"new_status":"settled\ud83d"'),
        ("invalid_utf8", {}, rb'"new_status":"[^"]*"', b'"new_status":"gew\xe4hrt"'),
    ],
)
def test_one_value_of_a_page_can_be_spoiled_and_no_other_byte(
    sandbox: Sandbox,
    ticktock: httpx.Client,
    kind: str,
    parameters: dict[str, Any],
    before: bytes,
    after: bytes,
) -> None:
    sound = get(ticktock).content
    sandbox.fault("ticktock", kind, **parameters)
    spoiled = re.sub(before, lambda found: after, sound, count=1)
    assert spoiled != sound
    assert get(ticktock).content == spoiled


@pytest.mark.parametrize("length", ["declared", "chunked", "untold"])
def test_a_body_can_be_drawn_out_to_any_size(
    sandbox: Sandbox, ticktock: httpx.Client, length: str
) -> None:
    sound = get(ticktock)
    sandbox.fault("ticktock", "oversize_body", size=300_000, length=length)
    answer = get(ticktock)
    assert len(answer.content) == 300_000
    assert answer.json() == sound.json()
    told = {name for name in ("content-length", "transfer-encoding") if name in answer.headers}
    assert (
        told
        == {
            "declared": {"content-length"},
            "chunked": {"transfer-encoding"},
            "untold": set(),
        }[length]
    )


def test_a_body_can_be_packed_though_nobody_asked(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sound = get(ticktock).json()
    sandbox.fault("ticktock", "gzip_bomb", size=10_000_000)
    with ticktock.stream(
        "GET", "/settlements", params={"limit": 5}, headers={"Accept-Encoding": "identity"}
    ) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(packed) < 100_000
    unpacked = gzip.decompress(packed)
    assert len(unpacked) == 10_000_000
    assert json.loads(unpacked) == sound


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_a_body_can_come_in_another_encoding(
    sandbox: Sandbox, ticktock: httpx.Client, encoding: str
) -> None:
    sound = get(ticktock).content
    sandbox.fault("ticktock", "recoded_body", encoding=encoding)
    assert get(ticktock).content == sound.decode().encode(encoding)


@pytest.mark.parametrize(("kind", "is_headed"), [("dripping_body", True), ("slow_headers", False)])
def test_bytes_can_come_one_by_one(
    sandbox: Sandbox, ticktock: httpx.Client, kind: str, is_headed: bool
) -> None:
    sound = get(ticktock, limit=1).content
    sandbox.fault("ticktock", kind, seconds=0.005)
    began = time.monotonic()
    with ticktock.stream("GET", "/settlements", params={"limit": 1}) as answer:
        head_seconds = time.monotonic() - began
        assert answer.read() == sound
    body_seconds = time.monotonic() - began - head_seconds
    slow, quick = (body_seconds, head_seconds) if is_headed else (head_seconds, body_seconds)
    # The head has over 80 bytes and the body over 200.
    assert slow > 0.4
    assert slow > quick


def test_silence_lasts_until_the_client_gives_up(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sandbox.fault("ticktock", "silence")
    with pytest.raises(httpx.ReadTimeout):
        ticktock.get("/settlements", timeout=0.3)
    assert get(ticktock).status_code == 200


def test_a_connection_can_close_before_the_first_byte(sandbox: Sandbox) -> None:
    sandbox.fault("ticktock", "closed_without_answer")
    assert raw_answer(sandbox) == (b"", False)


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("bad_status_line", rb"^HTTP/1\.1 2OO OK\r\n"),
        ("bad_chunk", rb"transfer-encoding: chunked\r\n(?s:.*)\r\nzz\r\n$"),
        ("header_flood", rb"x-flood-0: flood\r\n(?s:.*)x-flood-99999: flood\r\n\r\n\{"),
        ("contradicting_length", rb"content-length: \d+\r\n(?s:.*)content-length: \d+\r\n\r\n\{"),
    ],
)
def test_what_comes_can_be_no_http(
    sandbox: Sandbox, ticktock: httpx.Client, kind: str, sign: bytes
) -> None:
    sandbox.fault("ticktock", kind, times=2)
    received, was_reset = raw_answer(sandbox)
    assert re.search(sign, received)
    assert not was_reset
    with pytest.raises(httpx.RemoteProtocolError):
        get(ticktock)
    assert get(ticktock).status_code == 200


def test_a_spoiled_page_leaves_the_other_entries_byte_for_byte(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sound = get(ticktock, limit=200).content
    sandbox.fault("ticktock", "unknown_field", entry=0)
    spoiled = get(ticktock, limit=200).content
    assert spoiled.replace(b',"market_tier":"gold"', b"") == sound


def test_faults_come_in_order_after_as_many_sound_calls(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sandbox.fault("ticktock", "status", after_calls=2, times=2, status=500)
    sandbox.fault("ticktock", "status", status=403)
    assert [get(ticktock).status_code for _ in range(6)] == [200, 200, 500, 500, 403, 200]
    assert sandbox.faults() == []


def test_a_fault_can_last_until_reset(sandbox: Sandbox, ticktock: httpx.Client) -> None:
    sandbox.fault("ticktock", "status", times=None, status=503)
    assert {get(ticktock).status_code for _ in range(5)} == {503}
    sandbox.reset()
    assert get(ticktock).status_code == 200


def test_a_fault_meets_only_the_call_it_was_ordered_for(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    match_id = get(ticktock).json()["data"][0]["match_id"]
    sandbox.fault("ticktock", "status", call="match_settlements", status=500)
    assert get(ticktock).status_code == 200
    assert ticktock.get(f"/matches/{match_id}/settlements").status_code == 500


def test_a_fault_that_finds_nothing_to_spoil_waits(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sandbox.configure("ticktock", visible_entries=0)
    sandbox.fault("ticktock", "unknown_field")
    assert get(ticktock).json()["data"] == []
    assert len(sandbox.faults()) == 1
    sandbox.advance("ticktock", 1)
    assert get(ticktock).json()["data"][0]["market_tier"] == "gold"
    assert sandbox.faults() == []


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"provider": "nobody", "kind": "status"}, "no provider"),
        ({"provider": "ticktock", "kind": "status", "call": "bets"}, "no call"),
        ({"provider": "ticktock", "kind": "earthquake"}, "no fault"),
        ({"provider": "ticktock", "kind": "status"}, "missing a required argument"),
        ({"provider": "ticktock", "kind": "html_page", "colour": "red"}, "unexpected keyword"),
    ],
)
def test_an_order_that_cannot_be_met_is_refused(
    sandbox: Sandbox, order: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        sandbox.fault(**order)
    assert sandbox.faults() == []


def test_calls_are_recorded_with_their_fault_and_without_keys(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sandbox.fault("ticktock", "truncated_body")
    with pytest.raises(httpx.RemoteProtocolError):
        get(ticktock)
    get(ticktock, since_id="none")
    seen = sandbox.calls()
    assert seen["total"] == 2
    assert seen["counts"] == {"ticktock.settlements": {"422": 1, "broken": 1}}
    broken, invalid = seen["recent"]
    assert (broken["status"], broken["fault"]) == (None, "truncated_body")
    assert (invalid["status"], invalid["fault"]) == (422, None)
    assert invalid["path"] == "/cs2/v1/settlements"
    assert invalid["query"] == {"limit": "5", "since_id": "none"}
    assert TICKTOCK_KEY not in json.dumps(seen)


def test_alerts_are_kept_counted_and_can_fail(sandbox: Sandbox, http: httpx.Client) -> None:
    def post(key: str, **headers: str) -> int:
        body = {"key": key, "text": "Prüfen"}
        return http.post(sandbox.alerts_url, json=body, headers=headers).status_code

    sandbox.fault("alerts", "status", status=503, after_calls=1)
    assert [post("a"), post("a"), post("a"), post("b", Authorization="Bearer hush")] == [
        200,
        503,
        200,
        200,
    ]
    report = sandbox.alerts()
    assert report["received"] == 3
    assert report["by_key"] == {"a": 2, "b": 1}
    assert report["alerts"][2]["body"] == {"key": "b", "text": "Prüfen"}
    assert [alert["authorization"] for alert in report["alerts"]] == [None, None, "Bearer"]
    assert "hush" not in json.dumps(report)


def test_a_call_is_executed_once_though_its_fault_has_to_wait(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    sandbox.fault("alerts", "unknown_field")
    assert http.post(sandbox.alerts_url, json={"key": "a"}).json() == {"received": 1}
    assert sandbox.alerts()["by_key"] == {"a": 1}


def test_an_alert_is_a_json_object(sandbox: Sandbox, http: httpx.Client) -> None:
    answer = http.post(sandbox.alerts_url, json=["not", "one"])
    assert answer.status_code == 422
    assert sandbox.alerts()["received"] == 0
