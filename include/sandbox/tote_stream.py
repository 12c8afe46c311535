"""What goes over one connection to tote's socket: hints at what happens to bets from now on.

It speaks plain JSON, or `graphql-transport-ws`, or the older `graphql-ws`, in which nothing is told
before it is subscribed to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    validate,
)
from websockets.frames import Opcode

from include.sandbox import streams
from include.sandbox.sockets import frame
from include.sandbox.tote_bets import Act, state
from include.sandbox.tote_book import Book, Happening
from include.sandbox.tote_settings import Subprotocol

_TOLD: dict[Act, str] = {
    "accept": "BetAccepted",
    "reject": "BetRejected",
    "fail": "BetFailed",
    "cancel": "BetCancelled",
    "result": "BetResulted",
    "settle": "BetSettled",
    "refund": "BetSettled",
    "turn": "BetSettled",
    "amend": "BetSettled",
    "confirm": "BetSettled",
}
_REASONS = {"BetRejected": "Product was not open", "BetFailed": "System error"}
_WITH_RETURN = {"BetResulted", "BetSettled"}


class Visit(msgspec.Struct, kw_only=True):
    """One connection to the socket, as it came and as it went.

    `messages` are hints that were handed to it, `pings` signs of life. `ended` says by whom it was
    closed and with which code, "client 1000" or "server 1011", or that it was "lost".
    """

    number: int
    at: float
    subprotocol: Subprotocol | None
    subscriptions: int = 0
    messages: int = 0
    pings: int = 0
    ended: str | None = None


class HintStream(streams.Stream):
    """One connection's hints."""

    def __init__(
        self, book: Book, visit: Visit, schema: GraphQLSchema, is_key: Callable[[str], bool]
    ) -> None:
        super().__init__(visit)
        self.visit = visit
        self._book = book
        self._schema = schema
        self._is_key = is_key
        self._pinged_at = time.monotonic()
        self._requests: deque[bytes] = deque()
        self._requested = asyncio.Event()
        self._is_open = visit.subprotocol is None
        self._subscriptions: dict[str, tuple[str, DocumentNode]] = {}

    @property
    def ping_seconds(self) -> float:
        """How long after a sign of life the next one comes."""
        return self._book.settings.ping_seconds

    async def ping(self) -> None:
        """Sends a sign of life, and everything that waited."""
        self.visit.pings += 1
        self._pinged_at = time.monotonic()
        match self.visit.subprotocol:
            case None:
                self.socket.queue_bytes(frame(b"", Opcode.PING))
            case "graphql-transport-ws":
                self._say(type="ping")
            case "graphql-ws":
                self._say(type="ka")
        await self.socket.flush()

    async def _work(self) -> None:
        heard_until = self._book.lived_until
        await self._strike()
        while True:
            news, until = self._book.news, self._book.lived_until
            while self._requests:
                await self._answer(self._requests.popleft())
            for happening in self._book.happenings(heard_until, until):
                await self._tell(happening)
            heard_until = until
            await self._wait(news)

    def _begun(self) -> None:
        self.socket.when_told = self._hear

    def _hear(self, request: bytes) -> None:
        self._requests.append(request)
        self._requested.set()

    async def _wait(self, news: asyncio.Event) -> None:
        """Until there is news or a request, or it is time for a sign of life."""
        await self.socket.flush()
        self._requested.clear()
        if self._requests:
            return
        waits = [asyncio.create_task(each.wait()) for each in (news, self._requested)]
        seconds = max(0.0, self._pinged_at + self.ping_seconds - time.monotonic())
        try:
            done, _ = await asyncio.wait(
                waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waits:
                each.cancel()
        if not done and self._is_open:
            await self.ping()
        elif not done:
            self._pinged_at = time.monotonic()

    async def _tell(self, happening: Happening) -> None:
        for text in self._texts(happening):
            await self._send(text)
            await self._strike()

    def _texts(self, happening: Happening) -> Iterator[bytes]:
        word = _TOLD.get(happening.act)
        if word is None:
            return
        message = self._message(word, happening)
        if self.visit.subprotocol is None:
            yield msgspec.json.encode({"MessageType": word, **message})
            return
        kind = "next" if self.visit.subprotocol == "graphql-transport-ws" else "data"
        fields = {name[:1].lower() + name[1:]: value for name, value in message.items()}
        for key, (field, document) in self._subscriptions.items():
            if field == f"on{word}":
                result = execute_sync(self._schema, document, root_value={field: fields})
                payload = {"data": result.data}
                yield msgspec.json.encode({"id": key, "type": kind, "payload": payload})

    def _message(self, word: str, happening: Happening) -> dict[str, Any]:
        bet = self._book.bet(happening.number)
        message: dict[str, Any] = {"BetId": bet.tote_id}
        if word in _WITH_RETURN:
            told = state(bet, happening.steps)
            is_total = self._book.settings.hinted_amount == "total"
            amount = (told.total if is_total else told.returned) or 0
            message["ReturnAmount"] = amount / 100 if amount % 100 else amount // 100
        else:
            message["CustomerBetId"] = f"bet-{bet.number}"
        if word in _REASONS:
            message["Reason"] = _REASONS[word]
        return message

    async def _answer(self, text: bytes) -> None:
        """What a client says in one of the subprotocols; in plain JSON it means nothing."""
        if self.visit.subprotocol is None:
            return
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.MsgspecError:
            await self._refuse(4400, "Invalid message received")
            return
        payload = request.get("payload")
        match request.get("type"):
            case "connection_init":
                await self._open(payload)
            case "subscribe" | "start" if not self._is_open:
                await self._refuse(4401, "Unauthorized")
            case "subscribe" | "start":
                await self._subscribe(str(request.get("id")), payload)
            case "complete":
                self._subscriptions.pop(str(request.get("id")), None)
            case "stop":
                self._subscriptions.pop(str(request.get("id")), None)
                self._say(id=str(request.get("id")), type="complete")
            case "ping":
                self._say(type="pong")
            case "pong":
                pass
            case "connection_terminate":
                await self.socket.close(1000)
            case _:
                await self._refuse(4400, "Invalid message received")

    async def _open(self, payload: object) -> None:
        told = payload.get("authorization") if isinstance(payload, dict) else None
        if self._is_open:
            await self._refuse(4429, "Too many initialisation requests")
        elif told is not None and not self._is_key(str(told)):
            await self._refuse(4403, "Forbidden")
        else:
            self._is_open = True
            self._say(type="connection_ack")

    async def _subscribe(self, key: str, payload: object) -> None:
        query = payload.get("query") if isinstance(payload, dict) else None
        if key in self._subscriptions:
            await self._refuse(4409, f"Subscriber for {key} already exists")
            return
        try:
            document = parse(str(query))
            problems = validate(self._schema, document)
        except GraphQLError as error:
            problems = [error]
        if problems:
            told: list[Any] = [error.formatted for error in problems]
            is_new = self.visit.subprotocol == "graphql-transport-ws"
            self._say(id=key, type="error", payload=told if is_new else told[0])
            return
        field = _subscribed(document)
        if field is None:
            await self._refuse(4400, "Not a subscription to one field")
            return
        self._subscriptions[key] = (field, document)
        self.visit.subscriptions += 1

    async def _refuse(self, code: int, reason: str) -> None:
        if self.visit.subprotocol == "graphql-ws":
            self._say(type="connection_error", payload={"message": reason})
        await self.socket.close(code, reason)

    def _say(self, **message: Any) -> None:
        self.socket.queue_text(msgspec.json.encode(message))


def _subscribed(document: DocumentNode) -> str | None:
    """The one field that is subscribed to; None if it is another kind of question."""
    [operation, *more] = document.definitions
    if more or not isinstance(operation, OperationDefinitionNode):
        return None
    if operation.operation is not OperationType.SUBSCRIPTION:
        return None
    field = operation.selection_set.selections[0]
    return field.name.value if isinstance(field, FieldNode) else None
