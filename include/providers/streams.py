"""WebSockets of providers: one connection, read message by message by one thread.

The handshake has one deadline for everything, from looking up the name to its last byte;
redirects, proxies from the environment and compression are refused.  A message has a byte limit.
Nothing is taken from the network before it is asked for, so who stops reading holds up the
provider and nobody's memory.

The frames are those of `websockets`, without its client: that one follows redirects with our
headers, writes them to its log, and closes only when the peer lets it.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence

import h11
import httpcore
from websockets.exceptions import InvalidURI, PayloadTooBig
from websockets.frames import DATA_OPCODES, Close, CloseCode, Frame
from websockets.headers import build_host
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.uri import WebSocketURI, parse_uri
from websockets.utils import accept_key, generate_key

from include.providers.deadlines import dial, now
from include.providers.errors import (
    KEPT,
    WAIT_AND_SEE,
    Fatal,
    ProviderError,
    Retriable,
    StreamEnded,
    StreamRefused,
)
from include.providers.refusals import (
    EXCERPT_BYTES,
    UNQUOTED_STATUSES,
    Refusal,
    checked_secrets,
    distrusted,
    error_of,
    shown,
)
from include.settings import Settings

RECEIVED_IS_KEPT = "Every message received before is kept."
GOES_ON = (
    "Nothing to do now: the next run connects again and goes on from what was kept. If it lasts, "
    "ask {provider} whether its stream is up."
)
NOT_NOW = (
    "Nothing to do now: a later run connects again, once the provider's limit lets it. If it "
    "lasts, look for another user of the same account, or ask {provider} for a higher limit."
)

_READ_BYTES = 2**16
_CLOSE_SECONDS = 2.0
# A peer that leaves our answers unread for so long reads nothing any more.
_WRITE_SECONDS = 5.0
_LONGEST_RETRY_AFTER_SECONDS = 86_400.0
_SWITCHING_PROTOCOLS = 101
_TOO_MANY_REQUESTS = 429
_NOTHING_CAME = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)
_BROKEN = (httpcore.TimeoutException, httpcore.NetworkError, h11.RemoteProtocolError)

# What of a header's value may be a secret by itself: the token behind `Bearer`.
_WORD = re.compile(r'[^\s"=,;]{8,}')
# Below no other logger, so that no level set anywhere makes it write what goes over the wire.
_SILENT = logging.Logger("websockets", level=logging.CRITICAL + 1)


class Socket:
    """One open connection, for one thread; `open_socket` makes it.

    `subprotocol` is what the provider chose of what it was offered, None if none of that.
    """

    def __init__(
        self,
        provider: str,
        connection: socket.socket,
        message_limit: int,
        secrets: tuple[str, ...],
        subprotocol: str | None = None,
    ) -> None:
        self.subprotocol = subprotocol
        self._provider = provider
        self._connection = connection
        self._message_limit = message_limit
        self._secrets = secrets
        self._frames = Protocol(CLIENT, state=OPEN, max_size=message_limit, logger=_SILENT)
        self._messages: deque[bytes] = deque()
        self._begun = bytearray()
        self._end: ProviderError | None = None

    def receive(self, seconds: float) -> bytes | None:
        """The next whole message, a text or not, be it empty; None if none came within `seconds`.

        The bytes are as they came: a text that is no UTF-8 is handed out too.  When the
        connection is over, and every message of it handed out, raises `StreamEnded`;
        `StreamRefused` if the provider closed it since it allows none now; `Fatal` if a message
        was too large.
        """
        ends_at = time.monotonic() + seconds
        while not self._messages:
            if self._end is not None:
                raise self._end
            self._read(max(ends_at - time.monotonic(), 0.0))
            if time.monotonic() >= ends_at:
                break
        return self._messages.popleft() if self._messages else None

    def send(self, text: bytes) -> None:
        """Say something, a text in UTF-8.

        Never raises: if the connection is over, or breaks now, `receive` says so in its turn.
        """
        if self._end is None:
            self._frames.send_text(text)
            self._write_or_lose()

    def close(self) -> None:
        """Say goodbye and wait shortly for the provider to end the connection; never raises."""
        if self._end is None:
            self._end = self._ended("The connection was closed by us.")
        if self._frames.state is OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
        self._hang_up()

    def take_in(self, received: bytes) -> None:
        """Take in what came over the network, nothing being its end, and answer what asks for it.

        Bytes that came with the answer to the handshake are handed in here as well.
        """
        if received:
            self._frames.receive_data(received)
        else:
            self._frames.receive_eof()
        for event in self._frames.events_received():
            # Of HTTP there is nothing left behind the handshake.
            assert isinstance(event, Frame)
            self._assemble(event)
        if self._frames.state is not OPEN:
            self._end = self._ending()
            self._hang_up()
            return
        self._write_or_lose()

    def _read(self, seconds: float) -> None:
        try:
            self._connection.settimeout(seconds)
            received = self._connection.recv(_READ_BYTES)
        except _NOTHING_CAME:
            return
        except OSError as error:
            self._lose(error)
        else:
            self.take_in(received)

    def _assemble(self, frame: Frame) -> None:
        if frame.opcode not in DATA_OPCODES:
            return
        self._begun += frame.data
        if frame.fin:
            self._messages.append(bytes(self._begun))
            self._begun.clear()

    def _write_or_lose(self) -> None:
        try:
            self._write(_WRITE_SECONDS)
        except OSError as error:
            self._lose(error)

    def _write(self, seconds: float) -> None:
        said = b"".join(self._frames.data_to_send())
        if said:
            self._connection.settimeout(seconds)
            self._connection.sendall(said)

    def _lose(self, error: OSError) -> None:
        self._end = self._ended(f"The connection broke ({shown(str(error), self._secrets)}).")
        self._connection.close()

    def _hang_up(self) -> None:
        """Send what is to be sent last, and read until the provider ends the connection.

        Closed with something unread, it would be reset, and the provider miss our last words.
        """
        ends_at = time.monotonic() + _CLOSE_SECONDS
        try:
            self._write(_CLOSE_SECONDS)
            while (seconds := ends_at - time.monotonic()) > 0:
                self._connection.settimeout(seconds)
                if not self._connection.recv(_READ_BYTES):
                    break
        except OSError:
            # It is over in another way, or was before.
            pass
        finally:
            self._connection.close()

    def _ending(self) -> ProviderError:
        """Why the connection is over, from what was told and found wrong."""
        told, wrong = self._frames.close_rcvd, self._frames.parser_exc
        if isinstance(wrong, PayloadTooBig):
            return Fatal(
                self._provider,
                f"It sent a message of more than {self._message_limit} bytes, which was not read. "
                f"{RECEIVED_IS_KEPT}",
                "If messages of that size are right, raise "
                "SETTLEMENTS_STREAM_MESSAGE_LIMIT_BYTES, then clear this task.",
            )
        if told is not None:
            return self._closed(told)
        if isinstance(wrong, EOFError):
            return self._ended("The connection ended without a close frame.")
        return self._ended(
            f"It broke the protocol of WebSockets ({shown(str(wrong), self._secrets)})."
        )

    def _closed(self, told: Close) -> ProviderError:
        code = None if told.code == CloseCode.NO_STATUS_RCVD else int(told.code)
        reason = shown(told.reason, self._secrets)
        happened = f"It closed the stream ({'no code' if code is None else code})."
        happened += f" It said: {reason}." if reason else ""
        if code == CloseCode.POLICY_VIOLATION:
            return StreamRefused(
                self._provider,
                f"It allows no connection now. {happened} {RECEIVED_IS_KEPT}",
                NOT_NOW.format(provider=self._provider),
            )
        return self._ended(happened, code)

    def _ended(self, happened: str, code: int | None = None) -> StreamEnded:
        next_step = GOES_ON.format(provider=self._provider)
        return StreamEnded(self._provider, f"{happened} {RECEIVED_IS_KEPT}", next_step, code=code)


def open_socket(
    provider: str,
    url: str,
    headers: Mapping[str, str],
    settings: Settings,
    *,
    meanings: Mapping[int, str] | None = None,
    subprotocols: Sequence[str] = (),
) -> Socket:
    """Connect to `url` (ws or wss) with these headers, whose values are shown nowhere.

    `provider` is the source's name, `meanings` says what a status means at this provider, and
    `subprotocols` are offered, the one to prefer first; it may choose one of them or none.  Lasts
    at most `call_deadline_seconds`.  Raises `StreamRefused` if the provider allows no connection
    now (429), another `Retriable` if there was no sound answer, and `Fatal` when a person must
    change something first: whatever else was answered, or a certificate that is not trusted.
    """
    return _Handshake(provider, url, headers, settings, meanings or {}, subprotocols).perform()


class _Handshake:
    """The one HTTP request that a WebSocket begins with, and what it is answered with."""

    def __init__(
        self,
        provider: str,
        url: str,
        headers: Mapping[str, str],
        settings: Settings,
        meanings: Mapping[int, str],
        subprotocols: Sequence[str],
    ) -> None:
        self._provider = provider
        words = (word for text in headers.values() for word in _WORD.findall(text))
        self._secrets = (*checked_secrets(provider, headers), *words)
        self._place = _place(provider, url)
        self._headers = headers
        self._settings = settings
        self._meanings = meanings
        self._subprotocols = subprotocols
        self._key = generate_key()
        self._http = h11.Connection(h11.CLIENT)

    def perform(self) -> Socket:
        stream = self._connected()
        try:
            answer = self._answer(stream)
            if answer.status_code != _SWITCHING_PROTOCOLS:
                raise self._refused(answer, stream)
            subprotocol = self._check(answer)
            connected: socket.socket = stream.get_extra_info("socket")
        except BaseException:
            stream.close()
            raise
        limit = self._settings.stream_message_limit_bytes
        opened = Socket(self._provider, connected, limit, self._secrets, subprotocol)
        early, _ = self._http.trailing_data
        if early:
            opened.take_in(early)
        return opened

    def _connected(self) -> httpcore.NetworkStream:
        ends_at = now() + self._settings.call_deadline_seconds
        try:
            return dial(
                self._place.host,
                self._place.port,
                is_encrypted=self._place.secure,
                ends_at=ends_at,
            )
        except (httpcore.ConnectTimeout, httpcore.ConnectError) as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                why = shown(error.__cause__.verify_message, self._secrets)
                raise distrusted(self._provider, self._place.host, why) from None
            raise self._not_answered(
                f"No connection could be made for {self._place.resource_name} "
                f"({shown(str(error), self._secrets)})."
            ) from None

    def _answer(self, stream: httpcore.NetworkStream) -> h11.Response | h11.InformationalResponse:
        """The head of the provider's answer, after those that only ask for patience."""
        path = self._place.resource_name
        try:
            stream.write(self._request())
            while True:
                event = self._event(stream)
                if isinstance(event, h11.Response):
                    return event
                if not isinstance(event, h11.InformationalResponse):
                    raise self._not_answered(f"The connection broke during {path}.")
                if event.status_code == _SWITCHING_PROTOCOLS:
                    return event
        except httpcore.TimeoutException:
            seconds = self._settings.call_deadline_seconds
            happened = f"No complete answer to {path} came within {seconds:g} s."
            raise self._not_answered(happened) from None
        except _BROKEN as error:
            told = shown(str(error), self._secrets)
            # Not chained: the text of a protocol error may quote what went over the wire.
            raise self._not_answered(f"The connection broke during {path} ({told}).") from None

    def _request(self) -> bytes:
        place = self._place
        offered = ", ".join(self._subprotocols)
        request = h11.Request(
            method="GET",
            target=place.resource_name,
            headers=[
                ("Host", build_host(place.host, place.port, place.secure)),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", self._key),
                ("Sec-WebSocket-Version", "13"),
                *([("Sec-WebSocket-Protocol", offered)] if offered else []),
                ("User-Agent", "settlement-pipelines"),
                *self._headers.items(),
            ],
        )
        written = self._http.send(request) or b""
        self._http.send(h11.EndOfMessage())
        return written

    def _event(self, stream: httpcore.NetworkStream) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(stream.read(_READ_BYTES))
        return event

    def _check(self, answer: h11.Response | h11.InformationalResponse) -> str | None:
        """The subprotocol that was chosen, if it is a WebSocket without extensions that begins now,
        and an answer to us.
        """
        headers = dict(answer.headers)
        named = [value for name, value in answer.headers if name == b"sec-websocket-protocol"]
        chosen = named[0].decode("latin-1") if named else None
        is_sound = (
            headers.get(b"upgrade", b"").lower() == b"websocket"
            and headers.get(b"sec-websocket-accept") == accept_key(self._key).encode()
            and b"sec-websocket-extensions" not in headers
            and len(named) <= 1
            and (chosen is None or chosen in self._subprotocols)
        )
        if not is_sound:
            raise StreamEnded(
                self._provider,
                f"Its answer to {self._place.resource_name} begins no WebSocket as it was asked "
                f"for. {KEPT}",
                WAIT_AND_SEE.format(provider=self._provider),
            )
        return chosen

    def _refused(
        self, answer: h11.Response | h11.InformationalResponse, stream: httpcore.NetworkStream
    ) -> ProviderError:
        headers = {name.decode("ascii"): text.decode("latin-1") for name, text in answer.headers}
        is_shown = answer.status_code not in UNQUOTED_STATUSES and "content-encoding" not in headers
        refusal = Refusal(
            answer.status_code,
            self._place.resource_name,
            headers,
            self._start_of_body(stream) if is_shown else b"",
        )
        error = error_of(
            self._provider,
            refusal,
            secrets=self._secrets,
            meanings=self._meanings,
            retry_after_limit=_LONGEST_RETRY_AFTER_SECONDS,
        )
        if not isinstance(error, Retriable) or error.status != _TOO_MANY_REQUESTS:
            return error
        return StreamRefused(
            self._provider,
            f"It allows no connection now. {error.happened}",
            NOT_NOW.format(provider=self._provider),
            status=error.status,
            retry_after=error.retry_after,
        )

    def _start_of_body(self, stream: httpcore.NetworkStream) -> bytes:
        start = b""
        try:
            while len(start) < EXCERPT_BYTES and isinstance(one := self._event(stream), h11.Data):
                start += one.data
        except _BROKEN:
            # The status alone decides; a body that breaks off does not change what it means.
            pass
        return start

    def _not_answered(self, happened: str) -> Retriable:
        next_step = WAIT_AND_SEE.format(provider=self._provider)
        return Retriable(self._provider, f"{happened} {KEPT}", next_step)


def _place(provider: str, url: str) -> WebSocketURI:
    try:
        place = parse_uri(url)
    except (InvalidURI, ValueError):
        place = None
    if place is None or place.user_info:
        # Not chained: what is wrong may be a password in it.
        raise Fatal(
            provider,
            f"The address of its stream is not one of the form wss://host/path. {KEPT}",
            f"Correct `base_url` in the extra of the Airflow connection `{provider}`, then clear "
            "this task.",
        )
    return place
