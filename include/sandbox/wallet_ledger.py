"""Every request that reached the wallet, as it came: to compare with what the caller remembers."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from include.sandbox.wallet_messages import SignatureState, exact_items, public_headers


class Arrival(msgspec.Struct, kw_only=True):
    """One request that arrived whole.

    `refusal` is the code for which it would be, or was, refused as a whole. `executed` counts the
    items executed. `outcome` is the status it was answered with, or "broken" where the connection
    was; None as long as it waits. `fault` names the fault that spoiled it.
    """

    number: int
    received_at: datetime
    body_sha256: str
    place: tuple[int, int, int]
    is_key_known: bool = False
    signature: SignatureState = "missing"
    refusal: str | None = None
    items: int = 0
    executed: int = 0
    outcome: str | None = None
    fault: str | None = None


class Arrivals:
    """All requests, numbered from 1. Their texts lie in a file that nobody else sees."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._counts: Counter[str] = Counter()
        self._texts = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, body: bytes, headers: Mapping[str, str]) -> Arrival:
        """Keeps a request that has just arrived."""
        head = msgspec.json.encode(public_headers(headers))
        start = self._texts.seek(0, 2)
        self._texts.write(head + body)
        arrival = Arrival(
            number=len(self._arrivals) + 1,
            received_at=datetime.now(UTC),
            body_sha256=hashlib.sha256(body).hexdigest(),
            place=(start, len(head), len(body)),
        )
        self._arrivals.append(arrival)
        return arrival

    def count_cut_short(self) -> None:
        """Counts a request whose body never came to its end."""
        self._counts["cut_short"] += 1

    def report(self, after: int, limit: int, with_texts: bool) -> list[dict[str, Any]]:
        """The requests behind number `after`, oldest first; with the exact texts of their items."""
        return [self._told(each, with_texts) for each in self._arrivals[after : after + limit]]

    def summary(self) -> dict[str, Any]:
        """How many requests there were, how they were signed and what became of them."""
        outcomes = Counter(each.outcome or "waiting" for each in self._arrivals)
        return {
            "requests": len(self._arrivals),
            "requests_cut_short": self._counts["cut_short"],
            "outcomes": dict(sorted(outcomes.items())),
            "signatures": dict(Counter(each.signature for each in self._arrivals)),
            "refusals": dict(Counter(each.refusal for each in self._arrivals if each.refusal)),
            "items": sum(each.items for each in self._arrivals),
            "items_executed": sum(each.executed for each in self._arrivals),
        }

    def close(self) -> None:
        """Gives the file back."""
        self._texts.close()

    def _told(self, arrival: Arrival, with_texts: bool) -> dict[str, Any]:
        start, head_length, body_length = arrival.place
        self._texts.seek(start)
        told: dict[str, Any] = msgspec.to_builtins(arrival)
        del told["place"]
        told["headers"] = msgspec.json.decode(self._texts.read(head_length))
        told["body_bytes"] = body_length
        if with_texts:
            told["item_texts"] = exact_items(self._texts.read(body_length))
        return told
