"""odds88 in the sandbox lets nobody hear its feed but as its documentation allows, and counts."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection

from include.sandbox.client import Sandbox
from tests.sandbox.process import STOP_DEADLINE_SECONDS, start_sandbox, wait_until_ready
from tests.sandbox.test_odds88 import CREDENTIALS, DAY, HOUR, NOW, Listener, hear, next_text

TOO_SMALL = NOW - 4 * DAY


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(sandbox, http, messages=20, history_seconds=HOUR, ping_seconds=0.02)


def attempt(listener: Listener, revision: Any = NOW - DAY, **options: Any) -> int:
    """The status of a handshake, whose connection is closed at once."""
    try:
        with listener.connected(revision, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def close_code(connection: ClientConnection) -> int | None:
    """The code with which the server closes, whatever it sends before."""
    try:
        while True:
            next_text(connection)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def ledger(listener: Listener) -> dict[str, Any]:
    return listener.sandbox.ledger("odds88")


def pass_seconds(listener: Listener, seconds: float) -> None:
    listener.configure(clock_offset_seconds=seconds)


def test_a_log_in_gives_a_token_as_text_or_as_a_json_string(listener: Listener) -> None:
    text = listener.log_in()
    assert text.headers["content-type"].startswith("text/plain")
    head, claims, _ = (
        base64.urlsafe_b64decode(part + "==") for part in text.text.split(".", maxsplit=2)
    )
    assert json.loads(head) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(claims)["exp"] == NOW + DAY
    as_json = listener.log_in(accept="application/json")
    assert as_json.headers["content-type"] == "application/json"
    assert attempt(listener, token=as_json.json()) == 101
    assert ledger(listener)["log_ins"] == 3


def test_a_log_in_needs_the_right_password_and_nothing_else(listener: Listener) -> None:
    assert listener.log_in(CREDENTIALS | {"password": "guessed"}).status_code == 401
    assert listener.log_in({"clientId": "", "password": ""}).status_code == 422
    assert listener.log_in(CREDENTIALS | {"remember": True}).status_code == 422
    assert ledger(listener)["log_ins_refused"] == 1


def test_more_than_five_log_ins_a_second_are_refused(listener: Listener) -> None:
    statuses = [listener.log_in().status_code for _ in range(5)]
    # The listener itself has logged in once.
    assert statuses == [200] * 4 + [429]


@pytest.mark.parametrize("token", ["guessed", "a.b.c", " "])
def test_a_token_that_is_none_is_refused_and_costs_no_budget(
    listener: Listener, token: str
) -> None:
    assert [attempt(listener, token=token) for _ in range(6)] == [401] * 6
    assert attempt(listener) == 101
    assert ledger(listener)["refusals"] == {"token": 6}


def test_a_token_with_other_claims_is_refused(listener: Listener) -> None:
    head, _, signature = listener.token.split(".")
    claims = {"sub": "somebody", "iat": NOW, "exp": NOW + DAY, "jti": "1"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    assert attempt(listener, token=f"{head}.{forged}.{signature}") == 401


def test_a_token_is_good_for_24_hours_and_used_again(listener: Listener) -> None:
    assert attempt(listener) == 101
    pass_seconds(listener, DAY - 1)
    assert attempt(listener) == 101
    pass_seconds(listener, DAY)
    assert attempt(listener) == 401
    listener.token = listener.log_in().text
    assert attempt(listener) == 101
    assert ledger(listener)["tokens_used"] == 2


def test_a_token_can_be_made_short_lived(listener: Listener) -> None:
    listener.configure(token_seconds=60)
    listener.token = listener.log_in().text
    pass_seconds(listener, 60)
    assert attempt(listener) == 401


def test_five_connections_in_five_minutes_are_the_budget_of_a_proper_revision(
    listener: Listener,
) -> None:
    for minute in range(5):
        pass_seconds(listener, 30 * minute)
        assert attempt(listener) == 101
    pass_seconds(listener, 299)
    assert attempt(listener) == 429
    pass_seconds(listener, 300)
    assert [attempt(listener), attempt(listener)] == [101, 429]
    pass_seconds(listener, 330)
    assert attempt(listener) == 101
    assert ledger(listener)["violations"]["proper_budget"] == 2


def test_a_refusal_for_the_budget_says_when_to_come_again(listener: Listener) -> None:
    for _ in range(5):
        assert attempt(listener) == 101
    pass_seconds(listener, 100.5)
    with pytest.raises(InvalidStatus) as refused, listener.connected():
        pass
    assert refused.value.response.headers["Retry-After"] == "200"
    assert refused.value.response.body == b"budget"


def test_revisions_missing_and_too_small_share_a_budget_of_thirty_minutes(
    listener: Listener,
) -> None:
    assert [attempt(listener, revision) for revision in (None, 0, "", TOO_SMALL, -1)] == [101] * 5
    for revision in (None, 0, TOO_SMALL):
        assert attempt(listener, revision) == 429
    pass_seconds(listener, 1799)
    assert attempt(listener, None) == 429
    # The other budget is its own.
    assert attempt(listener) == 101
    pass_seconds(listener, 1800)
    assert attempt(listener, None) == 101
    told = ledger(listener)
    assert told["violations"]["recovery_budget"] == 4
    assert told["attempts"] == {"without": 7, "too_small": 3, "proper": 1}


def test_attempts_refused_for_the_budget_count_in_it_by_a_switch(listener: Listener) -> None:
    listener.configure(refused_attempts_count=True)
    assert [attempt(listener) for _ in range(6)] == [101] * 5 + [429]
    pass_seconds(listener, 299)
    assert attempt(listener) == 429
    pass_seconds(listener, 300)
    assert [attempt(listener) for _ in range(5)] == [101] * 4 + [429]


def test_budgets_can_be_widened(listener: Listener) -> None:
    listener.configure(attempts_a_window=8)
    assert [attempt(listener) for _ in range(9)] == [101] * 8 + [429]


def test_a_refusal_can_come_as_a_close_code_behind_the_handshake(listener: Listener) -> None:
    listener.configure(refusals="close", attempts_a_window=1)
    assert attempt(listener) == 101
    with listener.connected() as connection, pytest.raises(ConnectionClosedError) as closed:
        next_text(connection)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "budget")
    assert ledger(listener)["connections"]["ever"] == 1


def test_a_second_connection_is_refused_until_the_first_is_over(listener: Listener) -> None:
    with listener.connected():
        assert ledger(listener)["connections"]["now"] == 1
        assert attempt(listener) == 429
    assert attempt(listener) == 101
    told = ledger(listener)
    assert told["violations"]["second_connection"] == 1
    assert told["connections"] == {"now": 0, "ever": 2, "most_at_once": 1}


def test_a_second_connection_can_replace_the_first(listener: Listener) -> None:
    listener.configure(second_connection="replaces")
    with listener.connected() as first, listener.connected() as second:
        assert close_code(first) == 1008
        assert len(hear(second)) == 22
    told = ledger(listener)
    assert told["violations"]["second_connection"] == 1
    assert told["connections"]["most_at_once"] == 1


def test_a_killed_client_leaves_its_place(listener: Listener) -> None:
    url = listener.sandbox.odds88_url.replace("http", "ws", 1)
    script = (
        "import sys; from websockets.sync.client import connect\n"
        "connection = connect(sys.argv[1], proxy=None,"
        " additional_headers={'Authorization': sys.argv[2]})\n"
        "print(connection.recv()[:9], flush=True)\n"
        "while True: connection.recv()\n"
    )
    arguments = [f"{url}/feed/settlement/v4?revision={NOW - DAY}", f"Bearer {listener.token}"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b'{"pingId"\n'
        assert attempt(listener) == 429
        client.kill()
        client.wait(STOP_DEADLINE_SECONDS)
    assert attempt(listener) == 101
    ended = [each["ended"] for each in listener.sandbox.odds88_attempts()]
    assert ended[0] == "lost"


@pytest.mark.parametrize(
    "kind", ["reset_before_answer", "html_page", "closed_without_answer", "repeated_page"]
)
def test_a_handshake_that_fails_costs_budget_and_leaves_its_place(
    listener: Listener, kind: str
) -> None:
    listener.configure(attempts_a_window=3)
    assert attempt(listener) == 101
    listener.sandbox.fault("odds88", kind, call="settlements")
    with pytest.raises(Exception, match=r".+"), listener.connected():
        pass
    assert [attempt(listener), attempt(listener)] == [101, 429]
    assert ledger(listener)["violations"]["second_connection"] == 0


def test_a_client_that_does_not_wait_for_its_handshake_leaves_its_place(
    listener: Listener,
) -> None:
    listener.sandbox.fault("odds88", "late_execution", call="settlements", seconds=0.3)
    with pytest.raises(TimeoutError), listener.connected(open_timeout=0.1):
        pass
    deadline = time.monotonic() + 10
    while listener.sandbox.odds88_attempts()[0]["outcome"] is None:
        assert time.monotonic() < deadline
    assert attempt(listener) == 101
    assert ledger(listener)["connections"]["ever"] == 1


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_a_handshake_can_be_answered_with_any_status(listener: Listener, status: int) -> None:
    listener.sandbox.fault("odds88", "status", call="settlements", status=status)
    assert attempt(listener) == status
    attempts = listener.sandbox.odds88_attempts()
    assert (attempts[0]["outcome"], attempts[0]["fault"]) == (str(status), "status")


def test_a_log_in_can_fail_without_a_stream_being_touched(listener: Listener) -> None:
    listener.sandbox.fault("odds88", "status", call="log_in", status=503)
    assert attempt(listener) == 101
    assert listener.log_in().status_code == 503
    assert listener.log_in().status_code == 200


@pytest.mark.parametrize("revision", ["now", "1e9", "12.5", "٣", "9" * 16])
def test_a_revision_must_be_whole_seconds(listener: Listener, revision: str) -> None:
    assert attempt(listener, revision) == 400


@pytest.mark.parametrize("switch", ["too_small_revision", "without_revision"])
def test_a_revision_that_is_not_proper_can_be_refused(listener: Listener, switch: str) -> None:
    listener.configure(**{switch: "refused"})
    revision = TOO_SMALL if switch == "too_small_revision" else 0
    assert attempt(listener, revision) == 400
    assert attempt(listener) == 101


def test_a_request_that_asks_for_no_websocket_is_told_so(
    listener: Listener, http: httpx.Client
) -> None:
    answer = http.get(
        f"{listener.sandbox.odds88_url}/feed/settlement/v4",
        headers={"Authorization": f"Bearer {listener.token}"},
    )
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


def test_a_clients_own_pings_are_answered_and_its_messages_mean_nothing(
    listener: Listener,
) -> None:
    with listener.connected() as connection:
        connection.send("hello")
        assert connection.ping().wait(STOP_DEADLINE_SECONDS)
        assert len(hear(connection)) == 22


def test_it_is_told_how_each_connection_went(listener: Listener) -> None:
    with listener.connected() as connection:
        hear(connection)
        connection.close(1001)
    listener.sandbox.fault("odds88", "closed_stream", code=1012)
    with listener.connected() as connection, pytest.raises(ConnectionClosedError):
        next_text(connection)
    attempts = listener.sandbox.odds88_attempts()
    assert [each["ended"] for each in attempts] == ["client 1001", "server 1012"]
    assert [each["messages"] for each in attempts] == [22, 0]
    assert attempts[0]["at"] == NOW
    assert attempts[0]["revision"] == str(NOW - DAY)
    assert ledger(listener)["messages_sent"] == 22
    assert listener.token not in json.dumps([attempts, listener.sandbox.calls()])


def test_a_reset_ends_the_stream_and_forgets_everything(listener: Listener) -> None:
    with listener.connected() as connection:
        listener.sandbox.reset()
        assert close_code(connection) == 1008
    told = ledger(listener)
    assert told["connections"] == {"now": 0, "ever": 0, "most_at_once": 0}
    assert told["attempts"] == {}


def test_a_client_that_does_not_read_holds_up_nobody_else(listener: Listener) -> None:
    listener.configure(messages=30_000)
    with listener.raw_connection(NOW - 3 * DAY) as connection:
        assert connection.recv(12) == b"HTTP/1.1 101"
        # It goes on serving meanwhile, and does not send everything into its own memory.
        sent = [messages_sent(listener) for _ in range(20)]
    assert 0 < sent[-1] < 30_000


def messages_sent(listener: Listener) -> int:
    return int(listener.sandbox.odds88_attempts()[0]["messages"])


def test_it_ends_cleanly_and_quietly_in_the_middle_of_a_stream(
    tmp_path: Path, http: httpx.Client
) -> None:
    process = start_sandbox(tmp_path)
    with Sandbox(wait_until_ready(process, tmp_path)) as sandbox:
        listener = Listener(sandbox, http, messages=20)
        sandbox.fault("odds88", "silence", call="settlements")
        with pytest.raises(TimeoutError), listener.connected(open_timeout=0.2):
            pass
        with listener.connected(NOW - HOUR * 70) as connection:
            next_text(connection)
            process.send_signal(signal.SIGTERM)
            assert close_code(connection) == 1012
            assert process.wait(STOP_DEADLINE_SECONDS) == 0
    assert (tmp_path / "output").read_text() == ""
