"""Who may connect to odds88's settlement feed: log-ins, budgets of attempts, one stream at a time.

Times are seconds since 1970, UTC, by the clock of the sandbox.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter, deque
from typing import Any, Literal, get_args

import msgspec

from include.sandbox.odds88_feed import RevisionKind

Refusal = Literal["token", "upgrade", "revision", "budget", "second_connection"]
Violation = Literal["proper_budget", "recovery_budget", "second_connection"]

_BUDGETS: dict[RevisionKind, Violation] = {
    "proper": "proper_budget",
    "too_small": "recovery_budget",
    "without": "recovery_budget",
}
_WINDOW_SECONDS = {"proper_budget": 300.0, "recovery_budget": 1800.0}


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt to connect, as it came and as it went.

    `revision` is that of the query, as text. `kind` is what the budgets make of it; 0 counts as
    none given. `violation` is the rule it broke, whether or not it was refused for it. `outcome` is
    the status the handshake was answered with, or "broken"; None as long as it waits. `messages`
    and `pings` count what was handed to the connection. `ended` says by whom it was closed and with
    which code, "client 1000" or "server 1011", or that it was "lost".
    """

    number: int
    at: float
    revision: str | None
    kind: RevisionKind | None = None
    token: str | None = None
    refusal: Refusal | None = None
    violation: Violation | None = None
    retry_after_seconds: float | None = None
    outcome: str | None = None
    fault: str | None = None
    messages: int = 0
    pings: int = 0
    ended: str | None = None


class Budgets:
    """The attempts of each kind within its window.

    Those without a revision, and those with one too small, share one.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, deque[float]] = {name: deque() for name in _WINDOW_SECONDS}

    def charge(self, attempt: Attempt, limit: int, refused_count: bool) -> None:
        """Counts an attempt; one too many is refused, and told how long to wait.

        It is itself counted only if `refused_count`.
        """
        assert attempt.kind is not None
        name, now = _BUDGETS[attempt.kind], attempt.at
        attempts, window = self._attempts[name], _WINDOW_SECONDS[name]
        while attempts and attempts[0] <= now - window:
            attempts.popleft()
        if len(attempts) < limit:
            attempts.append(now)
            return
        if refused_count:
            attempts.append(now)
        attempt.refusal, attempt.violation = "budget", name
        attempt.retry_after_seconds = attempts[-limit] + window - now


class Visits:
    """Every attempt to connect, every log-in, and the one connection there is."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.log_ins = 0
        self.log_ins_refused = 0
        self._tokens: set[str] = set()
        self._open = 0
        self._ever = 0
        self._most = 0

    def add(self, at: float, revision: str | None) -> Attempt:
        """Keeps an attempt that has just come."""
        attempt = Attempt(number=len(self.attempts) + 1, at=at, revision=revision)
        self.attempts.append(attempt)
        return attempt

    def opened(self, attempt: Attempt) -> None:
        """Its stream begins."""
        self._open += 1
        self._ever += 1
        self._most = max(self._most, self._open)
        if attempt.token:
            self._tokens.add(attempt.token)

    def closed(self) -> None:
        """A stream is over."""
        self._open -= 1

    def report(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The attempts behind number `after`, oldest first, without their tokens."""
        shown = self.attempts[after : after + limit]
        told = [dict(msgspec.to_builtins(attempt)) for attempt in shown]
        for attempt in told:
            del attempt["token"]
        return told

    def summary(self) -> dict[str, Any]:
        """Counts of log-ins, attempts, refusals, violations and connections."""
        violations = Counter(each.violation for each in self.attempts)
        return {
            "log_ins": self.log_ins,
            "log_ins_refused": self.log_ins_refused,
            "tokens_used": len(self._tokens),
            "attempts": dict(Counter(each.kind or "unjudged" for each in self.attempts)),
            "refusals": dict(Counter(each.refusal for each in self.attempts if each.refusal)),
            "violations": {name: violations[name] for name in get_args(Violation)},
            "connections": {"now": self._open, "ever": self._ever, "most_at_once": self._most},
            "messages_sent": sum(each.messages for each in self.attempts),
            "pings_sent": sum(each.pings for each in self.attempts),
        }


class _Claims(msgspec.Struct):
    sub: str
    iat: int
    exp: int
    jti: str


class Tokens:
    """JSON Web Tokens, signed with HS256 under a key that follows from the seed."""

    def __init__(self, seed: int) -> None:
        self._key = hashlib.sha256(f"{seed}/odds88/token".encode()).digest()

    def issue(self, client_id: str, number: int, now: float, lifetime_seconds: float) -> str:
        """A token good until so many seconds from now."""
        claims = _Claims(client_id, int(now), int(now + lifetime_seconds), str(number))
        head = _base64(b'{"alg":"HS256","typ":"JWT"}')
        signed = f"{head}.{_base64(msgspec.json.encode(claims))}"
        return f"{signed}.{self._signature(signed)}"

    def identify(self, token: str, now: float) -> str | None:
        """The token's own id (`jti`); None if it is not one of ours or no longer good."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(signed).encode(), signature.encode()):
            return None
        payload = signed.partition(".")[2]
        claims = msgspec.json.decode(
            base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims
        )
        return claims.jti if now < claims.exp else None

    def _signature(self, signed: str) -> str:
        return _base64(hmac.digest(self._key, signed.encode(), "sha256"))


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
