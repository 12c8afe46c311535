"""What the wallet is sent and answers, and how it proves who sent it.

Fields, their order and the signature are those of the settlement call's documentation: lower-case
hex of HMAC-SHA256 over `JSON.stringify(data) + "|" + timestamp`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from include.sandbox.javascript import reserialised

SignedBytes = Literal["as_sent", "reserialised"]
SignatureState = Literal["sound", "wrong", "missing"]

OK = "RS_OK"
ERROR = "RS_ERROR"
INVALID_PARTNER = "RS_ERROR_INVALID_PARTNER"
INVALID_SIGNATURE = "RS_ERROR_INVALID_SIGNATURE"
TOKEN_EXPIRED = "RS_ERROR_TOKEN_EXPIRED"
WRONG_SYNTAX = "RS_ERROR_WRONG_SYNTAX"
WRONG_TYPES = "RS_ERROR_WRONG_TYPES"
DUPLICATE_TRANSACTION = "RS_ERROR_DUPLICATE_TRANSACTION"

# They prove who is calling; nobody who reads the ledger needs them.
_SECRET_HEADERS = frozenset({"x-api-key", "x-signature", "authorization", "cookie"})


class Item(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One payout to settle; `amount` is scaled by 100 000."""

    transaction_id: Annotated[str, msgspec.Meta(min_length=1)]
    ref_transaction_id: str
    session_id: str
    round_id: str
    player_id: str
    game_id: str
    currency: str
    amount: Annotated[int, msgspec.Meta(ge=0)]
    is_win: bool


class ItemAnswer(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What became of one payout; `balance` is the player's, scaled by 100 000."""

    status: str
    transaction_id: str
    ref_transaction_id: str
    session_id: str
    round_id: str
    player_id: str
    currency: str
    balance: int


class _Body(msgspec.Struct):
    transactions: list[Item]


class _RawBody(msgspec.Struct):
    transactions: list[msgspec.Raw]


_BODY = msgspec.json.Decoder(_Body)
_RAW_BODY = msgspec.json.Decoder(_RawBody)


class Unreadable(Exception):
    """A body is not what is documented; the code says whether by its syntax or by its types."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def read_items(body: bytes) -> list[Item]:
    """The items of a body, in their order. Unreadable."""
    try:
        return _BODY.decode(body).transactions
    except msgspec.ValidationError:
        raise Unreadable(WRONG_TYPES) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable(WRONG_SYNTAX) from None


def exact_items(body: bytes) -> list[str] | None:
    """The text of each item as it was sent, whatever it holds; None if there is no list of them."""
    try:
        return [bytes(item).decode() for item in _RAW_BODY.decode(body).transactions]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def public_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """All headers but those that are secret."""
    return {name: value for name, value in headers.items() if name not in _SECRET_HEADERS}


def check_signature(
    body: bytes, headers: Mapping[str, str], secret: str, signed_bytes: SignedBytes
) -> SignatureState:
    """Whether `x-signature` was made of this body and `x-timestamp` with this secret."""
    signature, timestamp = headers.get("x-signature"), headers.get("x-timestamp")
    if not signature or not timestamp:
        return "missing"
    try:
        signed = body if signed_bytes == "as_sent" else reserialised(body)
    except ValueError:
        return "wrong"
    message = signed + b"|" + timestamp.encode()
    expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return "sound" if hmac.compare_digest(expected.encode(), signature.encode()) else "wrong"


def is_recent(headers: Mapping[str, str], now_seconds: float, window_seconds: float) -> bool:
    """Whether `x-timestamp` (Unix milliseconds) lies within the window around now."""
    timestamp = headers.get("x-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 20):
        return False
    return abs(now_seconds - int(timestamp) / 1000) <= window_seconds
