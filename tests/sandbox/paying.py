"""A caller of the wallet that knows the documentation and nothing of this project."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

import httpx

from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox

Item = dict[str, Any]

DOCUMENTED_ITEM: Item = {
    "transactionId": "dd96bda3-9990-4aed-9679-f451a4b82ac4",
    "refTransactionId": "21848853-1198-4dde-9a21-bb9598398a8c",
    "sessionId": "f1dfc865-584c-4cba-a175-06172b2a41141731504451691",
    "roundId": "817e22b4-b030-468b-964e-62b9a7343050-1753428290674",
    "playerId": "18865671",
    "gameId": "G1720761376617",
    "currency": "EUR",
    "amount": 250000000,
    "isWin": True,
}


def item(number: int, **changes: Any) -> Item:
    """A payout of 10.00000 and `number` cents of a thousand to a player of its own."""
    return DOCUMENTED_ITEM | {
        "transactionId": f"transaction-{number}",
        "playerId": f"player-{number}",
        "amount": 1_000_000 + number,
        **changes,
    }


def items(count: int) -> list[Item]:
    """So many payouts."""
    return [item(number) for number in range(count)]


def body_of(sent: Sequence[Any]) -> bytes:
    """The body of a request for these items, as JSON.stringify writes it."""
    return json.dumps({"transactions": sent}, separators=(",", ":"), ensure_ascii=False).encode()


def signature_of(body: bytes, timestamp: str, secret: str = WALLET_SECRET) -> str:
    """`HMAC_SHA256(JSON.stringify(data) + '|' + timestamp)`."""
    message = body + f"|{timestamp}".encode()
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


class Payer:
    """Sends signed requests over one connection."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client) -> None:
        self._url = f"{sandbox.wallet_url}/transaction/settlement"
        self._http = http

    def post(self, body: bytes, *, timeout: float = 10.0, **headers: str | None) -> httpx.Response:
        """Posts these bytes, signed; headers are changed, or left out if None."""
        timestamp = headers.get("x_timestamp") or str(time.time_ns() // 1_000_000)
        sent = {
            "x_api_key": WALLET_KEY,
            "x_signature": signature_of(body, timestamp),
            "x_timestamp": timestamp,
            "content_type": "application/json",
            **headers,
        }
        named = {name.replace("_", "-"): value for name, value in sent.items() if value is not None}
        return self._http.post(self._url, content=body, headers=named, timeout=timeout)

    def pay(self, *sent: Item, timeout: float = 10.0) -> httpx.Response:
        """Posts these items, as documented."""
        return self.post(body_of(sent), timeout=timeout)

    def answers(self, *sent: Item) -> list[dict[str, Any]]:
        """The answers to these items, in an envelope that says RS_OK."""
        envelope = self.pay(*sent).raise_for_status().json()
        assert set(envelope) == {"status", "data"}
        assert envelope["status"] == "RS_OK"
        return list(envelope["data"])

    def codes(self, *sent: Item) -> list[str]:
        """The code of each of these items."""
        return [answer["status"] for answer in self.answers(*sent)]
