"""What the engine writes, and how it is opened.  Source: the fields and examples it documents."""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec

from include.providers.elements import parsed_json
from include.providers.errors import PageUndecodable
from include.providers.moments import AwareTime
from include.providers.texts import is_storable, shown

PROVIDER = "prediction"
# What an address can carry without being understood as more than one name.
_MARKET_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:@+=-]{1,128}")
# Ids are parts of index keys, which Postgres limits to about 2700 bytes together.
_ID_CHARACTERS_LIMIT = 128
TEXT_CHARACTERS_LIMIT = 500
_DIGITS_BEHIND_POINT = 30
_DIGITS_BEFORE_POINT = 20
_AMOUNT = re.compile(r"-?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?")
# Of digits and a point alone, and never too large: most of them.
_PLAIN_AMOUNT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?")
_FINEST = Decimal(1).scaleb(-_DIGITS_BEHIND_POINT)
_BOUNDED = Context(
    prec=_DIGITS_BEFORE_POINT + _DIGITS_BEHIND_POINT, traps=[Inexact, InvalidOperation]
)
ENVELOPE_FIELDS = {"success", "data", "error", "meta", "pagination", "nextCursor", "next"}


class Amount(Decimal):
    """A decimal that was written as a text, exactly; never negative, NaN or infinite."""

    __slots__ = ()


def as_amount(kind: type, value: object) -> Amount:
    """The hook for the one type that msgspec does not know."""
    if kind is not Amount or not isinstance(value, str):
        raise ValueError("Expected a decimal in a text")
    if _PLAIN_AMOUNT.fullmatch(value):
        return Amount(value)
    if not _AMOUNT.fullmatch(value):
        raise ValueError("Expected a decimal in a text")
    number = Decimal(value)
    try:
        number.quantize(_FINEST, context=_BOUNDED)
    except (Inexact, InvalidOperation):
        raise ValueError("Expected a decimal of a size that amounts can have") from None
    if number < 0:
        raise ValueError("Expected a decimal that is not negative")
    return Amount(abs(number))


class RecordStatus(StrEnum):
    """Where a settlement stands, in the engine's own words."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_ID_CHARACTERS_LIMIT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class SettlementRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One settlement as the engine writes it: what a position pays its player.

    `total_payout` is `shares` times `payout_per_share`, in the market's currency.
    `transaction_id` is the operator's own reference, `settled_at` the time of completion.
    """

    id: Name
    position_id: Name
    market_id: Name
    outcome_id: Name
    operator_id: Name
    player_id: Name
    shares: Amount
    payout_per_share: Amount
    total_payout: Amount
    transaction_id: str | None = None
    status: RecordStatus
    error_message: str | None = None
    settled_at: AwareTime | None = None
    created_at: AwareTime
    updated_at: AwareTime


class SettleTotals(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a call to settle or to retry says it has done, all positions together."""

    market_id: Name
    total_positions: Count
    success_count: Count
    failed_count: Count
    total_payout: Amount
    cancelled_orders: Count


class MarketStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far the settlement of a market has come; the counts are of positions."""

    market_id: Name
    total_positions: Count
    pending_count: Count
    processing_count: Count
    completed_count: Count
    failed_count: Count
    total_payout: Amount
    completed_payout: Amount


def is_market_id(text: str) -> bool:
    """Whether the text can name a market in an address; it comes from people and files."""
    return _MARKET_ID.fullmatch(text) is not None


def usable_id(value: object) -> str | None:
    """The value if it is an id that can be stored and found again."""
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS_LIMIT:
        return None
    return value if is_storable(value) else None


def read_envelope(body: bytes) -> dict[str, Any]:
    """The body of a read that succeeded, `data` in it."""
    envelope = parsed_json(body)
    if not isinstance(envelope, dict):
        raise PageUndecodable("the body is JSON, but not an object")
    code, message = error_of(envelope)
    if envelope.get("success") is not True or code is not None:
        told = f"the error {shown(code)}: {shown(message)}" if code else "no `success`"
        raise PageUndecodable(f"the engine answered with {told}")
    if "data" not in envelope:
        raise PageUndecodable("the body has no `data`")
    return envelope


def error_of(envelope: dict[str, Any]) -> tuple[str | None, str | None]:
    """Code and message of the error that a body tells, shortened; None for what is absent."""
    error = envelope.get("error")
    if not isinstance(error, dict):
        return None, None
    return _short_text(error.get("code")), _short_text(error.get("message"))


def _short_text(value: object) -> str | None:
    if not isinstance(value, str) or not is_storable(value):
        return None
    return value[:TEXT_CHARACTERS_LIMIT]


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def converted(data: dict[str, Any], kind: type[_Kind]) -> _Kind:
    """The object `data` of a body, typed; raises `PageUndecodable`, naming the field."""
    try:
        return msgspec.convert(data, kind, dec_hook=as_amount)
    except (msgspec.ValidationError, ValueError) as error:
        raise PageUndecodable(f"`data` is not as documented: {error}") from None


def unknown_names(fields: dict[str, Any], known: set[str], place: str) -> set[str]:
    """Fields that the documentation does not name, by their place in the body."""
    return {f"{place}{name}" for name in fields.keys() - known}
