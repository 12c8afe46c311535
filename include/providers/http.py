"""The one HTTP client of the house: what every provider module reads through.

A call has one deadline for everything, from connecting to the last byte; an answer has a byte
limit; redirects, proxies from the environment and compressed bodies are refused; reads are tried
again with growing waits.  Whatever goes wrong becomes a `Retriable` or a `Fatal` that names the
Airflow connection to look at.  A call that writes is made once, and is `Ambiguous` if it ended
without an answer after a byte of it was written.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx
import tenacity

from include.providers.deadlines import Call, DeadlineBackend, DeadlineTransport, now
from include.providers.errors import (
    KEPT,
    NOTHING_SENT,
    WAIT_AND_SEE,
    Ambiguous,
    Fatal,
    ProviderError,
    Retriable,
)
from include.providers.refusals import (
    EXCERPT_BYTES,
    UNQUOTED_STATUSES,
    Refusal,
    checked_secrets,
    distrusted,
    error_of,
    read_retry_after,
    shown,
    spellings,
)
from include.settings import Settings

_JSON_HEADERS = {"Content-Type": "application/json"}
_BACKOFF = tenacity.wait_exponential_jitter(multiplier=0.5, max=10.0, jitter=0.5)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is reached and as whom; `client_id` only where it asks for one."""

    base_url: str
    password: str = field(repr=False)
    client_id: str | None = None


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
        self._backend = DeadlineBackend()
        self._client = httpx.Client(
            transport=DeadlineTransport(self._backend),
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
        self._secrets += spellings([secret])

    def post(self, path: str, body: bytes, *, auth: httpx.Auth, ends_at: float) -> Answer:
        """Write the JSON `body`, once, and hand back the answer whatever its status is.

        `ends_at` is the deadline on the clock of `now`: the first byte is not written after it,
        even if this process or this machine was stopped in between.  Raises `Retriable` if no byte
        of the request was written, `Fatal` if that is because the certificate is not to be trusted,
        and `Ambiguous` if one was written and no status came back.
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
            retry_after=read_retry_after(
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
            ends_at = now() + self._settings.call_deadline_seconds
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
        self._backend.call = Call(ends_at)
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


def _distrust_in(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What is wrong with a certificate, if that is what an error of the wire comes from."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        # The pool of connections raises anew without saying from what.
        error = error.__cause__ or error.__context__
    return error


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


def _wait_before_next(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Retriable) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    happened = error.happened if isinstance(error, ProviderError) else "The call failed."
    _log.warning("%s Attempt %d; asking again.", happened, state.attempt_number)
