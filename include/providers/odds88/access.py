"""Logging in to odds88, and where its stream is."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from include.providers.documented import UNREADABLE
from include.providers.errors import KEPT, Fatal
from include.providers.http import Account, Client
from include.providers.streams import Socket, open_socket
from include.settings import Settings

PROVIDER = "odds88"
TOKEN_LIFETIME = timedelta(hours=24)

_LOG_IN_PATH = "/api/Account/login"
_FEED_PATH = "/feed/settlement/v4"
_CREDENTIALS = (
    "What counts is `client_id` in the extra of the Airflow connection `odds88`, and its password."
)
_MEANINGS = {400: _CREDENTIALS, 401: _CREDENTIALS, 403: _CREDENTIALS}
_TOKEN_HEADER = (
    "The log-in before it was accepted: what counts is the header that carries the token "
    "(SETTLEMENTS_ODDS88_TOKEN_HEADER), and whether the client may use the settlement feed."
)
_STREAM_MEANINGS = {401: _TOKEN_HEADER, 403: _TOKEN_HEADER}


@dataclass(frozen=True, slots=True)
class Token:
    """What opens the stream, until `expires_at` (UTC).  It is never shown and never stored."""

    text: str = field(repr=False)
    expires_at: datetime


def open_client(base_url: str, settings: Settings) -> Client:
    """A client for logging in at `base_url`, for one thread; `Fatal` if it cannot be used."""
    return Client(PROVIDER, base_url, secret_headers={}, settings=settings, meanings=_MEANINGS)


def log_in(client: Client, client_id: str, password: str) -> Token:
    """Exchange the client's id and password for a token; tried again while that may help.

    Raises `Fatal` if they are refused or the answer is no token, `Retriable` if odds88 cannot
    answer now.  Neither says anything of the password or the answer.
    """
    credentials = _credentials(client_id, password)
    client.hide(password)
    answer = client.query(_LOG_IN_PATH, credentials)
    text = _token_text(answer.body)
    if text is None:
        raise Fatal(
            PROVIDER,
            f"It answered {answer.url_path} with something that is no token. {KEPT}",
            f"Check `base_url` in the extra of the Airflow connection `{PROVIDER}`, and ask "
            f"{PROVIDER} whether its log-in has changed, then clear this task.",
        )
    expiries = [answer.requested_at + TOKEN_LIFETIME, _claimed_expiry(text)]
    return Token(text, min(moment for moment in expiries if moment is not None))


def token_headers(token: Token, settings: Settings) -> dict[str, str]:
    """The header that carries the token on the stream's handshake; a secret."""
    template = settings.odds88_token_header or "Authorization: Bearer {token}"
    name, _, value = template.partition(":")
    return {name: value.strip().replace("{token}", token.text)}


def feed_url(base_url: str, revision: int) -> str:
    """Where the stream is that tells again what was settled since `revision` (Unix seconds)."""
    scheme, _, place = base_url.rstrip("/").partition("://")
    secure = scheme.lower() == "https"
    return f"{'wss' if secure else 'ws'}://{place}{feed_path(revision)}"


def feed_path(revision: int) -> str:
    """The path and query of that stream, below the base address."""
    return f"{_FEED_PATH}?revision={revision}"


class Feed:
    """The settlement feed as one account hears it, for one thread; close it when it is done with.

    Raises `Fatal` for an address that cannot be used.
    """

    def __init__(self, account: Account, settings: Settings) -> None:
        self._account = account
        self._settings = settings
        self._client = open_client(account.base_url, settings)

    def log_in(self) -> Token:
        """A token to connect with; tried again while that may help.  Raises what `log_in` does."""
        return log_in(self._client, self._account.client_id or "", self._account.password)

    def connect(self, token: Token, revision: int) -> Socket:
        """Open the stream of what was settled since `revision` (Unix seconds).

        This is what odds88 counts, and is made once.  Raises what `open_socket` does.
        """
        return open_socket(
            PROVIDER,
            feed_url(self._account.base_url, revision),
            token_headers(token, self._settings),
            self._settings,
            meanings=_STREAM_MEANINGS,
        )

    def close(self) -> None:
        """Close what logging in keeps open; a stream is closed by itself."""
        self._client.close()


def _credentials(client_id: str, password: str) -> bytes:
    try:
        if client_id and password:
            return msgspec.json.encode({"clientId": client_id, "password": password})
    except UnicodeEncodeError:
        # Not chained: the error holds the whole text.
        pass
    raise Fatal(
        PROVIDER,
        f"Its client id or password is empty or no text. {KEPT}",
        f"Enter `client_id` in the extra of the Airflow connection `{PROVIDER}`, and its "
        "password, then clear this task.",
    )


_TOKEN = re.compile(rb'\s*("?)([\w-]+\.[\w-]+\.[\w-]+)\1\s*')


def _token_text(body: bytes) -> str | None:
    """The token in an answer, which is documented as a text, in JSON or by itself."""
    found = _TOKEN.fullmatch(body)
    return found[2].decode("ascii") if found else None


class _Claims(msgspec.Struct):
    exp: float


def _claimed_expiry(token: str) -> datetime | None:
    """When the token says that it expires; None if it does not say so in a readable way."""
    claims = token.split(".")[1]
    try:
        written = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return datetime.fromtimestamp(msgspec.json.decode(written, type=_Claims).exp, UTC)
    except (*UNREADABLE, binascii.Error, ValueError, OverflowError, OSError):
        return None
