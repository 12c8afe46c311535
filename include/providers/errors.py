"""Errors of the wire, named by how one recovers from them.

Each says three things: what happened, what was kept, and what to do next.  No message ever holds
a key, a signature or a request header.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

Fault = Literal["key", "certificate"]

KEPT = "Nothing was landed from this call; what earlier calls landed is kept."
NOTHING_SENT = "Nothing of this call was sent."
WAIT_AND_SEE = (
    "Nothing to do now: the next run asks again. If it lasts, ask {provider} whether it is up, "
    "and check the address in the Airflow connection `{provider}`."
)

_REFUSES_KEY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class ProviderError(Exception):
    """A call to a provider did not give an answer that can be used.

    `provider` is one of the house's source names, `happened` one sentence without secrets,
    `next_step` what the person on call does; `status` the HTTP status where there was one.
    """

    def __init__(
        self, provider: str, happened: str, next_step: str, *, status: int | None = None
    ) -> None:
        self.provider = provider
        self.happened = happened
        self.next_step = next_step
        self.status = status
        super().__init__(f"{provider}: {happened} {next_step}")


class Retriable(ProviderError):
    """Not executed, or a read: the same call may be made again, and a retry is likely to help.

    `retry_after` is how many seconds the provider asked us to wait, already bounded.
    """

    def __init__(
        self,
        provider: str,
        happened: str,
        next_step: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(provider, happened, next_step, status=status)
        self.retry_after = retry_after


class StreamEnded(Retriable):
    """The provider, or the way to it, ended a stream; what came before the end is good.

    `code` is the close code that the provider told, None if it told none.
    """

    def __init__(
        self, provider: str, happened: str, next_step: str, *, code: int | None = None
    ) -> None:
        super().__init__(provider, happened, next_step)
        self.code = code


class StreamRefused(Retriable):
    """The provider allows no connection now; another attempt before long would be refused too.

    `retry_after` is how many seconds it asked us to wait, None if it said nothing of it.
    """


class Fatal(ProviderError):
    """Repeating the call cannot help before a person has changed something.

    `fault` is what keeps every call to this provider from succeeding, not this one alone: our key,
    or its certificate.  None: the call itself.
    """

    def __init__(
        self,
        provider: str,
        happened: str,
        next_step: str,
        *,
        status: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(provider, happened, next_step, status=status)
        self.fault: Fault | None = "key" if status in _REFUSES_KEY else fault


class Ambiguous(ProviderError):
    """The provider may have executed the call: at least one byte of a writing request went out."""


class PageUndecodable(Exception):
    """A page's bytes are not what the provider documents; `reason` says where they differ."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RecordRejected(Exception):
    """One record cannot become a settlement; it goes to quarantine under `rule` with `reason`."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule = rule
        self.reason = reason
        super().__init__(f"{rule}: {reason}")
