"""tote's socket in the sandbox hints at what happens, in plain JSON and in both subprotocols."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gql
import httpx
import pytest
from gql.transport.websockets import WebsocketsTransport
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from include.providers.tote import (
    PONG_FRAME,
    SUBPROTOCOLS,
    Hint,
    opening_frame,
    read_hint,
    subscription_frames,
)
from include.sandbox.addresses import TOTE_KEY, TOTE_TOKEN
from include.sandbox.client import Sandbox
from include.sandbox.tote_bets import ROW
from tests.sandbox.process import STOP_DEADLINE_SECONDS, start_sandbox, wait_until_ready
from tests.sandbox.test_tote import DAY, HOUR, Asker

RECV_SECONDS = 10.0
HEADERS = {"Authorization": f"Api-Key {TOTE_KEY}"}
WAYS = (None, *SUBPROTOCOLS)


class Listener(Asker):
    """A plain client of the socket, and of GraphQL."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client, **settings: Any) -> None:
        super().__init__(sandbox, http, **{"bets": 0, "ping_seconds": 60} | settings)
        self.socket_url = f"{sandbox.tote_url.replace('http', 'ws', 1)}/connections/graphql"

    @contextmanager
    def connected(
        self, subprotocol: str | None = None, headers: dict[str, str] = HEADERS
    ) -> Iterator[ClientConnection]:
        """A connection on which nothing was said yet."""
        offered: Any = [subprotocol] if subprotocol else None
        with connect(
            self.socket_url,
            additional_headers=headers,
            subprotocols=offered,
            proxy=None,
            max_queue=None,
        ) as connection:
            assert connection.subprotocol == subprotocol
            yield connection

    @contextmanager
    def listening(self, subprotocol: str | None = None) -> Iterator[ClientConnection]:
        """A connection that is subscribed to everything."""
        with self.connected(subprotocol) as connection:
            if subprotocol is not None:
                connection.send(opening_frame(HEADERS).decode())
                assert parse(next_text(connection)) == {"type": "connection_ack"}
                frames = subscription_frames(subprotocol)
                for frame in frames:
                    connection.send(frame.decode())
                self.wait_for_subscriptions(len(frames))
            yield connection

    def wait_for_subscriptions(self, number: int) -> None:
        deadline = time.monotonic() + RECV_SECONDS
        while self.sandbox.tote_connections()[-1]["subscriptions"] < number:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def place_and_pass(self, bets: int, seconds: float) -> None:
        self.sandbox.advance("tote", bets)
        self.pass_seconds(seconds)


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(sandbox, http)


def next_text(connection: ClientConnection) -> str:
    text = connection.recv(timeout=RECV_SECONDS)
    assert isinstance(text, str)
    return text


def parse(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def hear(connection: ClientConnection, number: int) -> list[Hint]:
    hints = []
    while len(hints) < number:
        hint = read_hint(next_text(connection).encode())
        if isinstance(hint, Hint):
            hints.append(hint)
    return hints


def close_code(connection: ClientConnection) -> int | None:
    try:
        while True:
            next_text(connection)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def status_of(listener: Listener, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused, listener.connected(**options):
        pass
    return refused.value.response.status_code


# What is told


def test_messages_in_plain_json_are_spelled_as_documented(listener: Listener) -> None:
    with listener.listening() as connection:
        listener.place_and_pass(ROW, 22 * DAY)
        told: dict[str, set[str]] = {}
        while len(told) < 6:
            message = parse(next_text(connection))
            told.setdefault(message["MessageType"], set()).update(message)
    named = {"MessageType", "BetId", "CustomerBetId"}
    assert told == {
        "BetAccepted": named,
        "BetRejected": {*named, "Reason"},
        "BetFailed": {*named, "Reason"},
        "BetCancelled": named,
        "BetResulted": {"MessageType", "BetId", "ReturnAmount"},
        "BetSettled": {"MessageType", "BetId", "ReturnAmount"},
    }


@pytest.mark.parametrize("subprotocol", WAYS)
def test_everything_that_happens_is_told_once_and_in_order(
    listener: Listener, subprotocol: str | None
) -> None:
    with listener.listening(subprotocol) as connection:
        listener.place_and_pass(ROW, 5)
        accepted = hear(connection, ROW)
        listener.pass_seconds(3 * HOUR)
        [*cancelled, first] = hear(connection, 3)
        assert {hint.message_type for hint in accepted} == {
            "BetAccepted",
            "BetRejected",
            "BetFailed",
        }
        assert [hint.message_type for hint in cancelled] == ["BetCancelled", "BetSettled"]
        assert first.message_type == "BetResulted"
        listener.pass_seconds(101 * DAY)
        steps = listener.sandbox.ledger("tote")["steps"]
        # Nothing is told of a placement.
        rest = hear(connection, steps - ROW - len(accepted) - 3)
    ids = [hint.bet_id for hint in accepted]
    assert len(ids) == len(set(ids)) == ROW
    assert {hint.bet_id for hint in rest} < set(ids)
    assert listener.sandbox.tote_connections()[-1]["messages"] == steps - ROW


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_a_client_of_graphql_hears_what_it_subscribed_to(
    listener: Listener, subprotocol: str
) -> None:
    transport = WebsocketsTransport(
        url=listener.socket_url,
        headers=HEADERS,
        init_payload={"authorization": HEADERS["Authorization"]},
        subprotocols=[subprotocol],
        connect_args={"proxy": None},
    )
    question = gql.gql("subscription { settled: onBetSettled { betId returnAmount } }")

    async def first_two() -> list[dict[str, Any]]:
        async with gql.Client(transport=transport) as session:
            heard = session.subscribe(question)
            waiting = asyncio.ensure_future(anext(heard))
            await asyncio.to_thread(place)
            told = [await waiting, await anext(heard)]
            await heard.aclose()
            return told

    def place() -> None:
        while not listener.sandbox.tote_connections():
            time.sleep(0.005)
        listener.wait_for_subscriptions(1)
        listener.place_and_pass(9, 4 * HOUR)

    told = asyncio.run(first_two())
    states = listener.sandbox.tote_states([each["settled"]["betId"] for each in told])
    assert [float(each["total"]) for each in states] == [
        each["settled"]["returnAmount"] for each in told
    ]


def test_a_hint_can_come_before_graphql_knows(listener: Listener) -> None:
    listener.configure(graphql_lags_seconds=60)
    with listener.listening() as connection:
        listener.place_and_pass(1, 5)
        [hint] = hear(connection, 1)
    assert listener.bets(toteIds=[hint.bet_id])["nodes"] == []
    listener.pass_seconds(70)
    assert listener.bets(toteIds=[hint.bet_id])["nodes"][0]["placement"]["status"] == "ACCEPTED"


def test_the_amount_of_a_hint_is_the_whole_or_the_return_by_a_switch(listener: Listener) -> None:
    amounts = {}
    for word in ("total", "return"):
        listener.configure(bets=0, clock_offset_seconds=0, hinted_amount=word)
        with listener.listening() as connection:
            listener.place_and_pass(ROW, 4 * HOUR)
            hints = hear(connection, ROW + 30)
        amounts[word] = {
            hint.bet_id: hint.return_amount for hint in hints if hint.message_type == "BetResulted"
        }
    assert amounts["total"].keys() == amounts["return"].keys()
    differing = [
        name for name in amounts["total"] if amounts["total"][name] != amounts["return"][name]
    ]
    # Two in part refunded, one refunded alone, one enhanced.
    assert len(differing) == 4


def test_nothing_is_told_of_before_the_connection(listener: Listener) -> None:
    listener.place_and_pass(ROW, DAY)
    with listener.listening() as connection:
        listener.place_and_pass(1, DAY + 5)
        [hint] = hear(connection, 1)
    assert hint.message_type == "BetAccepted"


# Who may hear it, and how


def test_only_a_key_or_a_token_is_let_in_and_only_by_a_websocket(
    listener: Listener, http: httpx.Client
) -> None:
    with listener.connected(headers={"Authorization": f"Bearer {TOTE_TOKEN}"}):
        pass
    assert status_of(listener, headers={}) == 401
    url = f"{listener.sandbox.tote_url}/connections/graphql"
    assert http.get(url, headers=HEADERS).status_code == 426


def test_the_subprotocol_is_the_first_offered_that_is_spoken(listener: Listener) -> None:
    def chosen(*offered: Any) -> str | None:
        with connect(
            listener.socket_url, additional_headers=HEADERS, subprotocols=offered, proxy=None
        ) as connection:
            return connection.subprotocol

    assert chosen("graphql-ws", "graphql-transport-ws") == "graphql-ws"
    assert chosen("mqtt", "graphql-transport-ws") == "graphql-transport-ws"
    listener.configure(subprotocols=["graphql-ws"])
    assert chosen("graphql-transport-ws", "graphql-ws") == "graphql-ws"
    assert chosen("graphql-transport-ws") is None


INIT = {"type": "connection_init"}
SUBSCRIBE = json.loads(subscription_frames("graphql-transport-ws")[0])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([SUBSCRIBE], 4401),
        ([INIT, INIT], 4429),
        ([INIT | {"payload": {"authorization": "Api-Key guessed"}}], 4403),
        ([INIT, SUBSCRIBE, SUBSCRIBE], 4409),
        ([INIT, {"type": "hello"}], 4400),
        ([INIT, "no object"], 4400),
        ([INIT, SUBSCRIBE | {"payload": {"query": "{ bets { totalCount } }"}}], 4400),
        ([INIT, {"type": "connection_terminate"}], 1000),
    ],
)
def test_who_breaks_the_rules_of_the_subprotocol_is_closed_with_its_code(
    listener: Listener, said: list[Any], code: int
) -> None:
    with listener.connected("graphql-transport-ws") as connection:
        for message in said:
            connection.send(json.dumps(message))
        assert close_code(connection) == code
    assert listener.sandbox.tote_connections()[0]["ended"] == f"server {code}"


def test_the_older_subprotocol_says_why_before_it_closes(listener: Listener) -> None:
    with listener.connected("graphql-ws") as connection:
        connection.send(json.dumps({"type": "start", "id": "1", "payload": {}}))
        assert parse(next_text(connection))["type"] == "connection_error"
        assert close_code(connection) == 4401


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_a_subscription_that_does_not_fit_the_schema_is_answered_with_errors(
    listener: Listener, subprotocol: str
) -> None:
    kind = "subscribe" if subprotocol == "graphql-transport-ws" else "start"
    query = "subscription { onBetSettled { betId odds } }"
    with listener.connected(subprotocol) as connection:
        connection.send(json.dumps(INIT))
        connection.send(json.dumps({"id": "7", "type": kind, "payload": {"query": query}}))
        assert parse(next_text(connection)) == {"type": "connection_ack"}
        told = parse(next_text(connection))
    assert (told["id"], told["type"]) == ("7", "error")
    assert "odds" in json.dumps(told["payload"])


def test_a_subscription_can_be_ended(listener: Listener) -> None:
    with listener.listening("graphql-transport-ws") as connection:
        connection.send(json.dumps({"id": "BetAccepted", "type": "complete"}))
        connection.send(json.dumps({"type": "ping"}))
        assert parse(next_text(connection)) == {"type": "pong"}
        listener.place_and_pass(1, 4 * HOUR)
        assert hear(connection, 1)[0].message_type == "BetResulted"


@pytest.mark.parametrize(
    ("subprotocol", "sign"), [("graphql-transport-ws", "ping"), ("graphql-ws", "ka")]
)
def test_it_lets_hear_that_it_lives(listener: Listener, subprotocol: str, sign: str) -> None:
    listener.configure(ping_seconds=0.02)
    with listener.listening(subprotocol) as connection:
        assert parse(next_text(connection)) == {"type": sign}
        connection.send(PONG_FRAME.decode())
        assert parse(next_text(connection)) == {"type": sign}
    assert listener.sandbox.tote_connections()[0]["pings"] >= 2


def test_a_reset_ends_every_connection_and_forgets_them(listener: Listener) -> None:
    with listener.listening() as first, listener.listening("graphql-ws") as second:
        assert listener.sandbox.ledger("tote")["connections"]["now"] == 2
        listener.sandbox.reset()
        assert (close_code(first), close_code(second)) == (1012, 1012)
    assert listener.sandbox.tote_connections() == []


def test_no_key_is_in_what_is_reported(listener: Listener) -> None:
    with listener.listening("graphql-ws"):
        pass
    shown = json.dumps([listener.sandbox.tote_connections(), listener.sandbox.calls()])
    assert TOTE_KEY not in shown


def test_it_ends_cleanly_and_quietly_with_connections_open(
    tmp_path: Path, http: httpx.Client
) -> None:
    process = start_sandbox(tmp_path)
    with Sandbox(wait_until_ready(process, tmp_path)) as sandbox:
        listener = Listener(sandbox, http)
        assert listener.refusal(first=0) == "PAGE_TOO_SMALL"
        with listener.listening("graphql-transport-ws") as connection:
            process.send_signal(signal.SIGTERM)
            assert close_code(connection) == 1012
            assert process.wait(STOP_DEADLINE_SECONDS) == 0
    assert (tmp_path / "output").read_text() == ""
