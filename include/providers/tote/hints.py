"""The socket of tote: what its messages hint at, and how it is connected to."""

from __future__ import annotations

import time
from decimal import Decimal
from hashlib import sha256

import msgspec

from include.model import Record
from include.providers.documented import UNREADABLE, fault_in
from include.providers.errors import (
    KEPT,
    WAIT_AND_SEE,
    Fatal,
    RecordRejected,
    Retriable,
    StreamEnded,
)
from include.providers.http import Account
from include.providers.streams import Socket, open_socket
from include.providers.texts import is_storable
from include.providers.tote.amounts import exact
from include.providers.tote.asking import CREDENTIALS, MEANINGS, authorization
from include.providers.tote.documents import ID_CHARACTERS_LIMIT, PROVIDER, is_usable_id
from include.settings import Settings

SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)


class Hint(msgspec.Struct, frozen=True, gc=False):
    """A message about a bet: a reason to look at it, never a fact about it.

    The record is the whole message, named by the bet.  `message_type` is tote's own word, such as
    BetSettled; `return_amount` None if none is told that can be read, else in major units of a
    currency that is not told.
    """

    record: Record
    content_sha256: bytes
    message_type: str
    bet_id: str
    return_amount: Decimal | None


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A message about no bet, such as a frame of the subprotocol; `kind` is its own word for it.

    `subscription` is the type of message that it is about, None if it is about none of ours.
    """

    kind: str
    subscription: str | None = None


class BrokenHint(msgspec.Struct, frozen=True, gc=False):
    """A message that cannot be read; its `record_key` is the digest of its bytes."""

    record: Record
    content_sha256: bytes
    reason: str


def read_hint(body: bytes) -> Hint | Notice | BrokenHint:
    """Take one message of the socket apart, whichever way it is wrapped; never raises.

    Documented is `{"MessageType", "BetId", "ReturnAmount"}`; the subprotocols put the same into the
    `payload` of a frame `next` or `data`, under the name of the subscription.
    """
    try:
        message = _ANYTHING.decode(body)
    except UNREADABLE as error:
        return _broken_hint(body, f"the message cannot be read: {fault_in(error)}")
    if not isinstance(message, dict):
        return _broken_hint(body, "the message is JSON, but not an object")
    kind = message.get("type")
    if isinstance(kind, str):
        return _hint_in_frame(body, kind, message)
    word = message.get("MessageType")
    return _hint(body, word, message)


def _hint_in_frame(
    body: bytes, kind: str, message: dict[str, object]
) -> Hint | Notice | BrokenHint:
    if kind not in ("next", "data"):
        name = message.get("id")
        subscription = name if isinstance(name, str) and name in SUBSCRIPTIONS else None
        return Notice(kind[:ID_CHARACTERS_LIMIT], subscription)
    payload = message.get("payload")
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, dict) or len(data) != 1:
        return _broken_hint(body, f"the frame `{kind}` holds no message of one subscription")
    [(name, told)] = data.items()
    return _hint(body, name.removeprefix("on"), told)


def _hint(body: bytes, word: object, message: object) -> Hint | Notice | BrokenHint:
    if not isinstance(word, str) or not isinstance(message, dict):
        return _broken_hint(body, "the message does not say of which type it is")
    # In a frame the fields are spelled as GraphQL does: `betId` for `BetId`.
    fields = {name[:1].upper() + name[1:]: value for name, value in message.items()}
    if not word.startswith("Bet"):
        return Notice(word[:ID_CHARACTERS_LIMIT])
    bet_id = fields.get("BetId")
    if not is_usable_id(bet_id) or not is_storable(word):
        return _broken_hint(body, "the message names no bet")
    return Hint(
        Record(bet_id, 0, len(body)),
        sha256(body).digest(),
        word[:ID_CHARACTERS_LIMIT],
        bet_id,
        _amount_in(fields.get("ReturnAmount")),
    )


def _amount_in(value: object) -> Decimal | None:
    if type(value) not in (int, Decimal):
        return None
    try:
        return exact(Decimal(value), "ReturnAmount")  # type: ignore[arg-type]
    except RecordRejected:
        return None


def _broken_hint(body: bytes, reason: str) -> BrokenHint:
    digest = sha256(body)
    record = Record(f"sha256:{digest.hexdigest()}", 0, len(body))
    return BrokenHint(record, digest.digest(), reason)


class HintFeed:
    """The socket as one account hears it, for one thread."""

    def __init__(self, account: Account, settings: Settings) -> None:
        self._account = account
        self._settings = settings

    def connect(self) -> Socket:
        """Open the socket, and ask for every type of message if it speaks a subprotocol.

        Raises what `open_socket` does, `Fatal` if the key is refused behind the handshake, and
        `Retriable` if nothing is acknowledged within `call_deadline_seconds`.
        """
        account, settings = self._account, self._settings
        headers = authorization(account.password, settings)
        opened = open_socket(
            PROVIDER,
            socket_url(account.base_url, settings),
            headers,
            settings,
            meanings=MEANINGS,
            subprotocols=settings.tote_subprotocols,
        )
        try:
            if opened.subprotocol is not None:
                opened.send(opening_frame(headers))
                _await_acknowledgement(opened, settings.call_deadline_seconds)
                for frame in subscription_frames(opened.subprotocol):
                    opened.send(frame)
        except BaseException:
            opened.close()
            raise
        return opened


def _await_acknowledgement(opened: Socket, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    try:
        while (left := ends_at - time.monotonic()) > 0:
            body = opened.receive(left)
            notice = read_hint(body) if body else None
            if not isinstance(notice, Notice):
                continue
            if notice.kind == "connection_ack":
                return
            if notice.kind == "connection_error":
                raise _unacknowledged()
            if notice.kind == "ping":
                opened.send(PONG_FRAME)
    except StreamEnded as ended:
        raise (_unacknowledged() if ended.code in _UNAUTHORIZED_CODES else ended) from None
    raise Retriable(
        PROVIDER,
        f"Its socket was opened, but did not acknowledge it within {seconds:g} s. {KEPT}",
        WAIT_AND_SEE.format(provider=PROVIDER),
    )


def _unacknowledged() -> Fatal:
    return Fatal(
        PROVIDER,
        f"It let us connect to its socket, but did not accept the key there. {KEPT}",
        f"{CREDENTIALS} Correct what is wrong, then clear this task.",
    )


# How a server of either subprotocol closes: Unauthorized, Forbidden.
_UNAUTHORIZED_CODES = (4401, 4403)


def socket_url(base_url: str, settings: Settings) -> str:
    """Where the socket is."""
    scheme, _, place = base_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{place}{settings.tote_socket_path}"


def opening_frame(headers: dict[str, str]) -> bytes:
    """What a client of either subprotocol says first; as secret as the `authorization` in it."""
    payload = {name.lower(): value for name, value in headers.items()}
    return msgspec.json.encode({"type": "connection_init", "payload": payload})


def subscription_frames(subprotocol: str) -> tuple[bytes, ...]:
    """What it says once it was answered `connection_ack`: one subscription a type of message."""
    kind = "subscribe" if subprotocol == "graphql-transport-ws" else "start"
    return tuple(
        msgspec.json.encode({"id": name, "type": kind, "payload": {"query": query}})
        for name, query in SUBSCRIPTIONS.items()
    )


PONG_FRAME = b'{"type":"pong"}'
"""The answer that graphql-transport-ws wants to a `Notice` of the kind "ping"."""

SUBSCRIPTIONS = {
    word: f"subscription {{ on{word} {{ {fields} }} }}"
    for word, fields in {
        "BetAccepted": "betId",
        "BetRejected": "betId",
        "BetFailed": "betId",
        "BetCancelled": "betId",
        "BetResulted": "betId returnAmount",
        "BetSettled": "betId returnAmount",
    }.items()
}
"""The question of each subscription, by the type of message that it asks for."""
