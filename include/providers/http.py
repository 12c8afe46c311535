"""The one HTTP client of the house: what every provider module reads through.

A call has one deadline for everything, from connecting to the last byte; an answer has a byte
limit; redirects, proxies from the environment and compressed bodies are refused; reads are tried
again with growing waits.  Whatever goes wrong becomes a `Retriable` or a `Fatal` that names the
Airflow connection to look at.  A call that writes is made once, and is `Ambiguous` if it ended
without an answer after a byte of it was written.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx
import tenacity

from include.providers.errors import Ambiguous, Fatal, ProviderError, Retriable
from include.settings import Settings

KEPT = "Nothing was landed from this call; what earlier calls landed is kept."
NOTHING_SENT = "Nothing of this call was sent."
WAIT_AND_SEE = (
    "Nothing to do now: the next run asks again. If it lasts, ask {provider} whether it is up, "
    "and check the address in the Airflow connection `{provider}`."
)

# How much of a refusal's body is read to quote it …
EXCERPT_BYTES = 2048
# … and of which answers none, since what they quote may be the key itself.
UNQUOTED_STATUSES = frozenset({401, 403})

_JSON_HEADERS = {"Content-Type": "application/json"}
_EXCERPT_CHARACTERS = 200
_BACKOFF = tenacity.wait_exponential_jitter(multiplier=0.5, max=10.0, jitter=0.5)
# 4xx of which the sender says that the same request may succeed later.
_RETRIABLE_STATUSES = frozenset({408, 425, 429})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is reached and as whom; `client_id` only where it asks for one."""

    base_url: str
    password: str = field(repr=False)
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than the one that was asked for.

    Names of `headers` are read in lower case; `start` is the beginning of the body, as far as it
    may be shown.
    """

    status: int
    url_path: str
    headers: Mapping[str, str]
    start: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the exact bytes of its body, and the request's facts.

    To a read it is complete and its status 200.  To a writing call it has any status, and
    `is_complete` is false if the body broke off, came too late or was larger than the limit:
    `body` is then what arrived of it.  A key that a refusal repeats is not in it.

    `url_path` is the path and query that were asked for, without host and without any key; times
    are UTC, `requested_at` before connecting and `received_at` after the last byte.
    `retry_after` is how many seconds a writing call was asked to wait, already bounded.
    """

    status: int
    body: bytes = field(repr=False)
    content_type: str | None
    url_path: str
    requested_at: datetime
    received_at: datetime
    is_complete: bool = True
    retry_after: float | None = None


def longest_call(settings: Settings) -> float:
    """Longest that one read may take, with every retry and the waits between them (seconds)."""
    longest_wait = max(settings.retry_after_limit_seconds, 10.5)
    return settings.read_attempts * (settings.call_deadline_seconds + longest_wait)


class Client:
    """Calls one provider, for one thread; close it, or use it in a `with` statement.

    `provider` is the source's name, which is also that of its Airflow connection.
    `secret_headers` are sent with every request and shown nowhere.  `meanings` says what a status
    means at this provider, where that is more than HTTP says.  One `get` or `query` lasts at most
    `read_attempts` times (`call_deadline_seconds` + the longer of 10 s and
    `retry_after_limit_seconds`).  Raises `Fatal` for an address or a header that cannot be sent.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        secret_headers: Mapping[str, str],
        settings: Settings,
        meanings: Mapping[int, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.provider = provider
        self._base_url = _checked_base_url(provider, base_url)
        self._settings = settings
        self._meanings = meanings or {}
        self._secrets = checked_secrets(provider, secret_headers)
        self._backend = _DeadlineBackend()
        self._client = httpx.Client(
            transport=_DeadlineTransport(self._backend),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "settlement-pipelines",
                **secret_headers,
            },
            follow_redirects=False,
            trust_env=False,
            timeout=None,
        )
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(settings.read_attempts),
            retry=tenacity.retry_if_exception_type(Retriable),
            wait=_wait_before_next,
            sleep=sleep,
            before_sleep=_log_retry,
            reraise=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open between calls."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Answer:
        """Read `path` below the base address, trying again while that may help.

        Raises `Fatal` when a person must change something first, and `Retriable` when every
        attempt failed in a way that may pass by itself.
        """
        return self._retrying(self._read, "GET", path, params=params or {})

    def query(
        self, path: str, body: bytes, check: Callable[[Answer], None] | None = None
    ) -> Answer:
        """Read by a POST of the JSON `body` that changes nothing, such as a log-in; as `get`.

        `check` raises `Retriable` or `Fatal` for an answer that is a failure despite its status.
        """
        return self._retrying(self._read, "POST", path, check, content=body, headers=_JSON_HEADERS)

    def hide(self, secret: str) -> None:
        """Show this text nowhere from now on, just as the secret headers; it is part of a body."""
        self._secrets += _spellings([secret])

    def post(self, path: str, body: bytes, *, auth: httpx.Auth, ends_at: float) -> Answer:
        """Write the JSON `body`, once, and hand back the answer whatever its status is.

        `ends_at` is the deadline on the clock of `time.monotonic`: the first byte is not written
        after it, even if this process or this machine was stopped in between.  Raises `Retriable`
        if no byte of the request was written, `Fatal` if that is because the certificate is not to
        be trusted, and `Ambiguous` if one was written and no status came back.
        """
        request = self._client.build_request(
            "POST",
            self._base_url + path,
            content=body,
            headers=_JSON_HEADERS,
        )
        url_path = request.url.raw_path.decode("ascii")
        requested_at = datetime.now(UTC)
        try:
            response = self._send(request, ends_at, auth)
        except httpx.TransportError as error:
            raise self._unwritten_or_unknown(error, url_path) from None
        try:
            received, is_complete = self._received(response)
        finally:
            response.close()
        if not response.is_success:
            received = self._without_secrets(received, is_complete=is_complete)
        return Answer(
            status=response.status_code,
            body=received,
            content_type=response.headers.get("content-type"),
            url_path=url_path,
            requested_at=requested_at,
            received_at=datetime.now(UTC),
            is_complete=is_complete,
            retry_after=_retry_after(
                response.headers.get("retry-after"), self._settings.retry_after_limit_seconds
            ),
        )

    def _read(
        self,
        method: str,
        path: str,
        check: Callable[[Answer], None] | None = None,
        **content: Any,
    ) -> Answer:
        request = self._client.build_request(method, self._base_url + path, **content)
        url_path = request.url.raw_path.decode("ascii")
        requested_at = datetime.now(UTC)
        try:
            ends_at = time.monotonic() + self._settings.call_deadline_seconds
            response = self._send(request, ends_at)
            try:
                body = self._body(response, url_path)
            finally:
                response.close()
        except httpx.TransportError as error:
            # Not chained: the text of a protocol error may quote what went over the wire.
            raise self._unanswered(error, url_path) from None
        answer = Answer(
            status=response.status_code,
            body=body,
            content_type=response.headers.get("content-type"),
            url_path=url_path,
            requested_at=requested_at,
            received_at=datetime.now(UTC),
        )
        if check is not None:
            check(answer)
        return answer

    def _send(
        self, request: httpx.Request, ends_at: float, auth: httpx.Auth | None = None
    ) -> httpx.Response:
        """Send one request and read the answer's head.

        From here until the answer is closed the deadline runs, and
        `self._backend.call.request_started` says whether any byte of the request was written,
        which is what makes a failed writing call ambiguous.
        """
        self._backend.call = _Call(ends_at)
        return self._client.send(request, auth=auth, stream=True)

    def _received(self, response: httpx.Response) -> tuple[bytes, bool]:
        """What arrived of the body, up to the limit, and whether that is all of it."""
        received = bytearray()
        try:
            for chunk in response.iter_raw():
                received += chunk
                if len(received) > self._settings.body_limit_bytes:
                    return bytes(received[: self._settings.body_limit_bytes]), False
        except httpx.TransportError:
            return bytes(received), False
        return bytes(received), True

    def _body(self, response: httpx.Response, url_path: str) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise self._refused(response, url_path)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise self._fatal(
                f"It answered {url_path} in the encoding {self.quote(encoding)} though identity "
                "was asked for, so its size could not be bounded.",
                f"Ask {self.provider}, or whoever runs a proxy in between, to honour "
                "`Accept-Encoding: identity`, then clear this task.",
            )
        chunks, size = [], 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > self._settings.body_limit_bytes:
                raise self._fatal(
                    f"Its answer to {url_path} is larger than "
                    f"{self._settings.body_limit_bytes} bytes.",
                    "If answers of that size are right, raise SETTLEMENTS_BODY_LIMIT_BYTES or ask "
                    "for fewer entries a page, then clear this task.",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _unanswered(self, error: httpx.TransportError, url_path: str) -> ProviderError:
        if (distrust := _distrust_in(error)) is not None:
            return self._distrusted(distrust, KEPT)
        in_time = f"within {self._settings.call_deadline_seconds:g} s"
        happened = self._broken_off(error, url_path, in_time)
        next_step = WAIT_AND_SEE.format(provider=self.provider)
        return Retriable(self.provider, f"{happened} {KEPT}", next_step)

    def _unwritten_or_unknown(self, error: httpx.TransportError, url_path: str) -> ProviderError:
        happened = self._broken_off(error, url_path, "before its deadline")
        if self._backend.call.request_started:
            return Ambiguous(
                self.provider,
                f"{happened} Whether {self.provider} did what it was asked is not known.",
                "Nothing to do now: what was sent counts as in doubt until "
                f"{self.provider} or a person has said what became of it.",
            )
        if (distrust := _distrust_in(error)) is not None:
            return self._distrusted(distrust, NOTHING_SENT)
        next_step = WAIT_AND_SEE.format(provider=self.provider)
        return Retriable(self.provider, f"{happened} {NOTHING_SENT}", next_step)

    def _broken_off(self, error: httpx.TransportError, url_path: str, in_time: str) -> str:
        """What happened to a call that got no answer, as one sentence."""
        shown = self.quote(str(error))
        if isinstance(error, httpx.ConnectTimeout):
            return f"No connection could be made for {url_path} {in_time} ({shown})."
        if isinstance(error, httpx.TimeoutException):
            return f"No complete answer to {url_path} came {in_time}."
        if isinstance(error, httpx.ConnectError):
            return f"No connection could be made for {url_path} ({shown})."
        return f"The connection broke during {url_path} ({shown})."

    def _refused(self, response: httpx.Response, url_path: str) -> ProviderError:
        refusal = Refusal(
            response.status_code, url_path, response.headers, self._start_to_show(response)
        )
        return error_of(
            self.provider,
            refusal,
            secrets=self._secrets,
            meanings=self._meanings,
            retry_after_limit=self._settings.retry_after_limit_seconds,
        )

    def _start_to_show(self, response: httpx.Response) -> bytes:
        """The beginning of a refusal's body; empty if there is none to show."""
        start = b""
        if response.status_code in UNQUOTED_STATUSES or "content-encoding" in response.headers:
            return start
        try:
            for chunk in response.iter_raw():
                start += chunk
                if len(start) >= EXCERPT_BYTES:
                    break
        except httpx.TransportError:
            # The status alone decides; a body that breaks off does not change what it means.
            pass
        return start

    def _without_secrets(self, body: bytes, *, is_complete: bool) -> bytes:
        """The body without any of the secrets, nor the beginning of one where it was cut."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), "…".encode())
        if is_complete:
            return body
        beginnings = [
            secret[:length].encode()
            for secret in self._secrets
            for length in range(len(secret) - 1, 0, -1)
        ]
        cut = max((one for one in beginnings if body.endswith(one)), key=len, default=b"")
        return body.removesuffix(cut)

    def quote(self, text: str) -> str:
        """A text of the provider's in one short line, without any of the secrets."""
        return shown(text, self._secrets)

    def _distrusted(self, error: ssl.SSLCertVerificationError, kept: str) -> Fatal:
        host = httpx.URL(self._base_url).host
        return distrusted(self.provider, host, self.quote(error.verify_message), kept)

    def _fatal(self, happened: str, next_step: str) -> Fatal:
        return Fatal(self.provider, f"{happened} {KEPT}", next_step)


def distrusted(provider: str, host: str, why: str, kept: str = KEPT) -> Fatal:
    """A certificate is not to be trusted, and will not be in ten minutes either: it has expired,
    is another host's, or nobody who is trusted vouches for it.
    """
    return Fatal(
        provider,
        f"The certificate that {host} shows is not to be trusted ({why}), so it was told nothing, "
        f"not even the key. {kept}",
        f"Check the address in the Airflow connection `{provider}` (`base_url` in extra) and this "
        f"machine's clock. If both are right, ask {provider} for a certificate that is valid, "
        "names this host and is signed by a public authority. Then clear this task.",
        fault="certificate",
    )


def _distrust_in(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What is wrong with a certificate, if that is what an error of the wire comes from."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        # The pool of connections raises anew without saying from what.
        error = error.__cause__ or error.__context__
    return error


def error_of(
    provider: str,
    refusal: Refusal,
    *,
    secrets: Iterable[str],
    meanings: Mapping[int, str],
    retry_after_limit: float,
) -> Fatal | Retriable:
    """What a refusal means and what to do about it, without any of the secrets.

    `meanings` says what a status means at this provider; a Retry-After is bounded in seconds.
    """
    status, quotation = refusal.status, _quotation(refusal, secrets)
    if status in _RETRIABLE_STATUSES or status >= 500:
        return _not_now(provider, refusal, quotation, retry_after_limit)
    happened, next_step = _refusal(provider, status, refusal.url_path)
    if 300 <= status < 400 and "location" in refusal.headers:
        happened += f" It points to {shown(refusal.headers['location'], secrets)}."
    happened += quotation
    if status in meanings:
        happened += f" {meanings[status]}"
    return Fatal(provider, f"{happened} {KEPT}", next_step, status=status)


def _not_now(provider: str, refusal: Refusal, quotation: str, limit: float) -> Retriable:
    status = refusal.status
    retry_after = _retry_after(refusal.headers.get("retry-after"), limit)
    next_step = WAIT_AND_SEE.format(provider=provider)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        happened = f"It has had too many requests and refused {refusal.url_path} (429)."
        next_step = (
            "Nothing to do now: the next run goes on where this one stopped. If it lasts, "
            "look for another user of the same key, or ask "
            f"{provider} for a higher limit."
        )
    else:
        happened = f"It failed to answer {refusal.url_path} ({status})."
    if retry_after is not None:
        happened += f" Its Retry-After is honoured with {retry_after:.0f} s."
    happened += f"{quotation} {KEPT}"
    return Retriable(provider, happened, next_step, status=status, retry_after=retry_after)


def _quotation(refusal: Refusal, secrets: Iterable[str]) -> str:
    """The beginning of a refusal's body, as a sentence; empty if there is none to show."""
    if refusal.status in UNQUOTED_STATUSES:
        return ""
    excerpt = refusal.start[:EXCERPT_BYTES].decode("utf-8", "replace")
    text = shown(_without_cut_secret(excerpt, secrets), secrets)
    return f" It said: {text}" if text else ""


def _without_cut_secret(excerpt: str, secrets: Iterable[str]) -> str:
    """The excerpt without the beginning of a secret at its end, where it was cut."""
    for secret in secrets:
        for length in range(len(secret) - 1, 0, -1):
            if excerpt.endswith(secret[:length]):
                return excerpt[:-length]
    return excerpt


def shown(text: str, secrets: Iterable[str]) -> str:
    """`text` in one short line, without any of the secrets."""
    for secret in secrets:
        text = text.replace(secret, "…")
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:_EXCERPT_CHARACTERS]


def _refusal(provider: str, status: int, url_path: str) -> tuple[str, str]:
    """What a status that repeating cannot help means, and what the person on call does."""
    connection = f"the Airflow connection `{provider}`"
    match status:
        case 401:
            return (
                "It did not accept the key (401).",
                f"Check the password of {connection}, then clear this task.",
            )
        case 403:
            return (
                "It knows the key or the address, but refuses access (403).",
                f"Check that {connection} holds the right key and that {provider} has granted it "
                "the scope it needs, then clear this task.",
            )
        case 404:
            return (
                f"It knows nothing under {url_path} (404).",
                f"Check `base_url` in the extra of {connection}, then clear this task.",
            )
        case 406:
            return (
                "It will not answer in JSON (406).",
                f"Ask {provider}, or whoever runs a proxy in between, why `Accept: "
                "application/json` is refused, then clear this task.",
            )
        case 422:
            return (
                f"It found the parameters of {url_path} wrong (422).",
                "Correct the setting that the answer names, then clear this task.",
            )
        case _ if 300 <= status < 400:
            return (
                f"It answered {url_path} with a redirect ({status}), which is never followed "
                "because the key would go along.",
                f"If {provider} has moved, set `base_url` in the extra of {connection}, then "
                "clear this task.",
            )
        case _:
            return (
                f"It answered {url_path} with {status}, which this call does not expect.",
                f"Check `base_url` in the extra of {connection}, ask {provider} what the answer "
                "means, then clear this task.",
            )


def _checked_base_url(provider: str, base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    is_usable = url.scheme in {"http", "https"} and bool(url.host)
    if not is_usable or url.userinfo or url.query or url.fragment:
        raise Fatal(
            provider,
            f"Its address is not one of the form https://host/path. {KEPT}",
            f"Correct `base_url` in the extra of the Airflow connection `{provider}` (the key "
            "belongs into its password), then clear this task.",
        )
    return str(url).rstrip("/")


def checked_secrets(provider: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every text that stands for a secret header; `Fatal` if a header cannot carry one."""
    for value in headers.values():
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            raise Fatal(
                provider,
                "Its key is empty, or holds a space at an end, a line break or a character that "
                f"no header can carry. {KEPT}",
                f"Enter the password of the Airflow connection `{provider}` again, then clear "
                "this task.",
                fault="key",
            )
    return _spellings(headers.values())


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every text that stands for one of the secrets, also as JSON would write it."""
    return tuple({text for one in secrets if one for text in (one, json.dumps(one)[1:-1])})


def _retry_after(value: str | None, limit: float) -> float | None:
    """Seconds to wait, between 0 and `limit`; None if the header is absent or unreadable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), limit)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), limit)


def _wait_before_next(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Retriable) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    happened = error.happened if isinstance(error, ProviderError) else "The call failed."
    _log.warning("%s Attempt %d; asking again.", happened, state.attempt_number)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds on the clock by which deadlines are kept: it goes on while the machine is suspended,
    when that of `time.monotonic` stands still.
    """
    return time.clock_gettime(_CLOCK)


class _Call:
    """One call on the wire: when it must be over, and whether it began."""

    __slots__ = ("_ends_at", "request_started")

    def __init__(self, ends_at: float) -> None:
        self._ends_at = now() + ends_at - time.monotonic()
        self.request_started = False

    def remaining(self, kind: type[httpcore.TimeoutException]) -> float:
        """Seconds left, above zero; raises `kind` when there are none."""
        seconds = self._ends_at - now()
        if seconds <= 0:
            raise kind("the deadline of the whole call has passed")
        return seconds


def dial(host: str, port: int, *, is_encrypted: bool, ends_at: float) -> httpcore.NetworkStream:
    """A connection on which all operations together end at `ends_at`, by `time.monotonic`.

    It never goes through a proxy.  Raises `httpcore.ConnectTimeout` and `httpcore.ConnectError`,
    the latter because of an `ssl.SSLCertVerificationError` if the certificate is not trusted.
    """
    backend = _DeadlineBackend()
    backend.call = _Call(ends_at)
    stream = backend.connect_tcp(host, port)
    if not is_encrypted:
        return stream
    try:
        return stream.start_tls(_TLS, host)
    except BaseException:
        stream.close()
        raise


class _DeadlineBackend(httpcore.NetworkBackend):
    """Opens streams on which every single operation gets only what is left of the call's time.

    httpx's own time-outs start again at each read, so a server that drips bytes, of the head or
    of the body, would hold a call for as long as it likes.
    """

    def __init__(self) -> None:
        self.call = _Call(ends_at=0.0)
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        addresses = _addresses(host, port, self.call.remaining(httpcore.ConnectTimeout))
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # Each gets its share of the time, so that one which swallows packets hides no other.
            share = self.call.remaining(httpcore.ConnectTimeout) / left
            try:
                stream = self._sockets.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(self, stream)
        raise failure


# On, and for no time.
_AT_ONCE = struct.pack("ii", 1, 0)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, backend: _DeadlineBackend, stream: httpcore.NetworkStream) -> None:
        self._backend = backend
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._ending_at_once():
            remaining = self._backend.call.remaining(httpcore.ReadTimeout)
            return self._stream.read(max_bytes, remaining)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._ending_at_once():
            remaining = self._backend.call.remaining(httpcore.WriteTimeout)
            self._backend.call.request_started = True
            self._stream.write(buffer, remaining)

    @contextmanager
    def _ending_at_once(self) -> Iterator[None]:
        """At the deadline, have what this machine still keeps of a request thrown away when the
        connection is closed: it would be sent as soon as the other side takes it.
        """
        try:
            yield
        except httpcore.TimeoutException:
            connected: socket.socket = self._stream.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            raise

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        remaining = self._backend.call.remaining(httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, remaining)
        return _DeadlineStream(self._backend, stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


# Made with the module: to read the authorities' certificates takes longer than a call that finds
# nothing new, and a task's process inherits what was made before it was forked.
_TLS = httpx.create_ssl_context(trust_env=False)


class _DeadlineTransport(httpx.HTTPTransport):
    """httpx's transport on our backend; it has no argument for one, only its pool has."""

    def __init__(self, backend: _DeadlineBackend) -> None:
        super().__init__(verify=_TLS, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=_TLS, max_connections=1, network_backend=backend
        )


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Every address of the host, asked for in a thread: the system's look-up has no time-out of
    ours, so what takes longer than `seconds` is left to itself.
    """
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001
            found.set_exception(error)

    # A daemon, so that a look-up which never ends does not hold up the end of the process.
    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        entries = found.result(seconds)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"the name {host} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
