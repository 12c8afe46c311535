"""The vocabulary of the house: frozen values that every room shares.

Nothing here reads a clock, a file, a socket or a database.  The words are those of the
canonical table in the README: what each provider's own word becomes is decided in that
provider's `normalize`, and an unknown word is rejected there, never guessed.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

CURRENCY = r"^([a-z][A-Z0-9]{2,11}|[A-Z0-9]{2,12})$"
"""A currency as finance and the wallet have it, USD or mBTC: `usd` would be another beside it."""


class Status(StrEnum):
    """Where a provider's decision about one subject stands."""

    OPEN = "open"
    SETTLED = "settled"
    VOID = "void"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Outcome(StrEnum):
    """What the decision means for the player; absent while the subject is open."""

    WON = "won"
    LOST = "lost"
    VOID = "void"
    REFUNDED = "refunded"
    HALF_WON = "half_won"
    HALF_LOST = "half_lost"
    CASH_OUT = "cash_out"
    PLACED = "placed"
    PARTLY_WON = "partly_won"


class SettledAtBasis(StrEnum):
    """Who says when the decision was taken: the provider, or our own clock on seeing it."""

    PROVIDER = "provider"
    OBSERVED = "observed"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message inside a page: where its exact text lies and which message it is.

    `record_key` is the provider's own id of the message; a message that carries none is named
    by the digest of its text (`sha256:…`), so that it is still landed once and can be held.
    `byte_start` and `byte_length` count bytes of the page's body.
    """

    record_key: str
    byte_start: int
    byte_length: int


class Leg(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One selection of a bet, as part of one version of its settlement; or a part of a selection.

    `part_number` is 0 for the selection itself and counts on from 1 for what it is built of.
    Prices are decimal odds; `type` and whatever is a name are the provider's own words.
    """

    leg_number: int
    part_number: int = 0
    type: str | None = None
    event_id: str | None = None
    market_id: str | None = None
    selection_id: str | None = None
    outcome: Outcome | None = None
    price: Decimal | None = None
    settled_at: datetime | None = None
    settlement_version: int | None = None
    selection_version: int | None = None
    competition_id: str | None = None
    country_id: str | None = None
    sport_id: str | None = None
    event_name: str | None = None
    event_starts_at: datetime | None = None
    is_live: bool | None = None
    market_type_id: str | None = None
    market_name: str | None = None
    market_properties: dict[str, str] | None = None
    parameters: dict[str, str] | None = None
    win_price: Decimal | None = None
    place_price: Decimal | None = None
    dead_heat_factor: Decimal | None = None
    place_dead_heat_factor: Decimal | None = None
    manual_price: Decimal | None = None
    alternative_price: Decimal | None = None
    limits_rating_id: str | None = None
    limits_factor: Decimal | None = None
    has_line_deviation: bool | None = None
    is_outright: bool | None = None


class Settlement(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One provider's decision about one subject (bet, offer, position), in one version.

    `provider_order` sorts, as bytes, in the order in which the provider took its decisions
    about the subject; it says which version is current, however late each one arrived.
    Money is exact: `Decimal`, in major units of `currency`; None where the provider tells none.
    `payout` is everything returned to the player, `refund` and `enhancement` are parts of it.
    The rates are the provider's own; what they convert, and in which direction, it may not say.
    `previous_status` is what the provider claims the status was before; None if it claims nothing.
    """

    source_key: str
    provider_order: str
    status: Status
    outcome: Outcome | None
    settled_at: datetime | None
    settled_at_basis: SettledAtBasis
    is_resettlement: bool
    previous_status: Status | None = None
    player_id: str | None = None
    event_id: str | None = None
    market_id: str | None = None
    selection_id: str | None = None
    position_id: str | None = None
    currency: str | None = None
    stake: Decimal | None = None
    payout: Decimal | None = None
    refund: Decimal | None = None
    enhancement: Decimal | None = None
    payout_multiplier: Decimal | None = None
    placement_rate: Decimal | None = None
    settlement_rate: Decimal | None = None
    settled_by: str | None = None
    reason: str | None = None
    legs: tuple[Leg, ...] = ()


class RecordContext(msgspec.Struct, frozen=True, gc=False):
    """What `normalize` may know of a record beside its text: when its page arrived (UTC)."""

    received_at: datetime
