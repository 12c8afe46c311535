"""Refusals: what an answer other than the one that was asked for means, and what to do about it.

Whatever is shown of one is short, and holds none of the secrets that we sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from include.providers.errors import KEPT, WAIT_AND_SEE, Fatal, Retriable

# How much of a refusal's body is read to quote it …
EXCERPT_BYTES = 2048
# … and of which answers none, since what they quote may be the key itself.
UNQUOTED_STATUSES = frozenset({401, 403})

_EXCERPT_CHARACTERS = 200
# 4xx of which the sender says that the same request may succeed later.
_RETRIABLE_STATUSES = frozenset({408, 425, 429})


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
    retry_after = read_retry_after(refusal.headers.get("retry-after"), limit)
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
    return spellings(headers.values())


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every text that stands for one of the secrets, also as JSON would write it."""
    return tuple({text for one in secrets if one for text in (one, json.dumps(one)[1:-1])})


def read_retry_after(value: str | None, limit: float) -> float | None:
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
