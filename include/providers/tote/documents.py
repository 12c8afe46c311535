"""What tote writes.  Sources: the settlement guide, and the words of its API (schema.graphql)."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeGuard

import msgspec

from include.providers.documented import Documented
from include.providers.texts import is_storable

PROVIDER = "tote"
# Ids are parts of index keys, which Postgres limits to about 2700 bytes together.
ID_CHARACTERS_LIMIT = 128


class CurrencyCode(StrEnum):
    """The currencies that bets can have."""

    EUR = "EUR"
    GBP = "GBP"
    HKD = "HKD"


class PlacementStatus(StrEnum):
    """Whether a bet was taken."""

    UNKNOWN = "UNKNOWN"
    PLACED = "PLACED"
    ACCEPTED = "ACCEPTED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


class ResultingStatus(StrEnum):
    """Whether its result is known, which is not yet a payout."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    RESULTED = "RESULTED"
    CANCELLED = "CANCELLED"


class SettlementStatus(StrEnum):
    """Whether it was paid out or given back."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    SETTLED = "SETTLED"
    REFUNDED = "REFUNDED"


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_LIMIT)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Currency(Documented, frozen=True, gc=False, kw_only=True):
    """The currency of an amount."""

    code: CurrencyCode


class Money(Documented, frozen=True, gc=False, kw_only=True):
    """An amount, in major units as a number and as a text, and in smallest units; they agree."""

    currency: Currency | None = None
    decimal_amount: Decimal | None = None
    string_amount: str | None = None
    minor_units_total_amount: Int64 | None = None


class Placement(Documented, frozen=True, gc=False, kw_only=True):
    """Whether a bet was taken, and what was staked."""

    status: PlacementStatus
    stake: Money | None = None


class Returns(Documented, frozen=True, gc=False, kw_only=True):
    """What a bet returns: all of it, and what that is made of."""

    total_amount: Money | None = None
    return_amount: Money | None = None
    refund_amount: Money | None = None
    enhancement_amount: Money | None = None


class Resulting(Documented, frozen=True, gc=False, kw_only=True):
    """The result of a bet."""

    status: ResultingStatus | None = None
    returns: Returns | None = None


class Settled(Documented, frozen=True, gc=False, kw_only=True):
    """How far the payout has come."""

    status: SettlementStatus


class Ticket(Documented, frozen=True, gc=False, kw_only=True):
    """What a bet was placed with; `id` is the customer's."""

    id: str | None = None
    tote_id: str | None = None


class Bet(Documented, frozen=True, gc=False, kw_only=True):
    """One bet as it stands; `id` is the customer's, `tote_id` is tote's own."""

    id: str | None = None
    tote_id: Name
    placement: Placement
    resulting: Resulting | None = None
    settlement: Settled | None = None
    ticket: Ticket | None = None


def is_usable_id(value: object) -> TypeGuard[str]:
    """Whether it is a text that can name a bet."""
    return isinstance(value, str) and 0 < len(value) <= ID_CHARACTERS_LIMIT and is_storable(value)
