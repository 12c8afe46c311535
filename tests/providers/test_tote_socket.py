"""Connecting to tote's socket: who is let in, what is said first, and what a refusal becomes."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import Any

import pytest
from websockets.frames import Close, Opcode

from include.providers.errors import KEPT, Fatal, ProviderError, Retriable, StreamEnded
from include.providers.http import Account
from include.providers.tote import SUBPROTOCOLS, HintFeed, authorization, subscription_frames
from include.sandbox.addresses import TOTE_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.providers.test_streams import (
    CHOSEN,
    SLACK,
    Peer,
    Place,
    Script,
    framed,
    peer,
    unmasked,
)

NEWER, OLDER = SUBPROTOCOLS
ACKNOWLEDGED = framed(b'{"type":"connection_ack"}')
REFUSED = framed(b'{"type":"connection_error","payload":{"message":"no"}}')


def feed_at(base_url: str, key: str = TOTE_KEY, **tunables: Any) -> HintFeed:
    settings = Settings(**({"call_deadline_seconds": 5.0} | tunables))
    return HintFeed(Account(base_url, key), settings)


def speaking(script: Script, subprotocol: str = NEWER) -> Script:
    """A peer that chooses a subprotocol, hears the first frame, and then plays its script."""

    def whole(one: Peer) -> None:
        one.upgrade(CHOSEN + subprotocol)
        one.received()
        script(one)

    return whole


def address_of(place: Place) -> str:
    """The base address of a peer."""
    return place.url.partition("/feed")[0].replace("ws", "http", 1)


def failure_at(script: Script, **tunables: Any) -> ProviderError:
    """What connecting to such a peer raises; it says nothing secret."""
    with peer(script) as place, pytest.raises(ProviderError) as caught:
        feed_at(address_of(place), **tunables).connect()
    assert TOTE_KEY not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    return caught.value


def says(*frames: bytes) -> Script:
    return lambda one: one.connection.sendall(b"".join(frames))


def test_both_subprotocols_are_offered_the_newer_first_unless_told_otherwise(
    sandbox: Sandbox,
) -> None:
    assert Settings().tote_subprotocols == SUBPROTOCOLS
    for offered, chosen in ((SUBPROTOCOLS, NEWER), ((OLDER,), OLDER), ((), None)):
        with closing(feed_at(sandbox.tote_url, tote_subprotocols=offered).connect()) as connected:
            assert connected.subprotocol == chosen


def test_who_we_are_is_said_in_the_handshake_and_in_the_first_frame_and_then_what_we_ask() -> None:
    said: list[bytes] = []

    def script(one: Peer) -> None:
        one.upgrade(CHOSEN + OLDER)
        said.append(unmasked(one.received()).data)
        one.connection.sendall(framed(b'{"type":"ka"}') + ACKNOWLEDGED)

    with peer(script) as place:
        with closing(feed_at(address_of(place)).connect()) as connected:
            assert connected.subprotocol == OLDER
        request = place.peers[0].request.decode()
    secret = authorization(TOTE_KEY, Settings())["Authorization"]
    assert f"\r\nAuthorization: {secret}\r\n" in request
    assert json.loads(said[0]) == {"type": "connection_init", "payload": {"authorization": secret}}
    assert {json.loads(frame)["type"] for frame in subscription_frames(OLDER)} == {"start"}


def test_a_wrong_key_is_fatal_and_says_what_to_check(sandbox: Sandbox) -> None:
    with pytest.raises(Fatal, match="the password of the Airflow connection `tote`") as caught:
        feed_at(sandbox.tote_url, key="guessed-key").connect()
    assert caught.value.status == 401
    assert "guessed-key" not in str(caught.value)


@pytest.mark.parametrize(
    "frames",
    [
        [framed(Close(4401, "Unauthorized").serialize(), Opcode.CLOSE)],
        [framed(Close(4403, "Forbidden").serialize(), Opcode.CLOSE)],
        [REFUSED],
    ],
    ids=["unauthorized", "forbidden", "connection_error"],
)
def test_a_key_that_is_refused_behind_the_handshake_is_fatal_too(frames: list[bytes]) -> None:
    error = failure_at(speaking(says(*frames)))
    assert isinstance(error, Fatal)
    assert "did not accept the key there" in error.happened
    assert "the password of the Airflow connection `tote`" in error.next_step


def test_another_end_before_the_acknowledgement_may_pass() -> None:
    error = failure_at(speaking(says(framed(Close(4400, "no").serialize(), Opcode.CLOSE))))
    assert isinstance(error, StreamEnded)
    assert error.code == 4400


def test_an_acknowledgement_is_waited_for_so_long_and_pings_are_answered_meanwhile() -> None:
    answered: list[bytes] = []

    def script(one: Peer) -> None:
        one.connection.sendall(framed(b'{"type":"ping"}'))
        answered.append(unmasked(one.received()).data)

    began = time.monotonic()
    error = failure_at(speaking(script), call_deadline_seconds=0.3)
    assert 0.3 <= time.monotonic() - began < 0.3 + SLACK
    assert type(error) is Retriable
    assert error.happened.endswith(f"did not acknowledge it within 0.3 s. {KEPT}")
    assert answered == [b'{"type":"pong"}']
