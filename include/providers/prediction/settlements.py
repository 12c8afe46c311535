"""What a settlement means, in the words of the house."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from include.model import Outcome, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.documented import UNREADABLE, by_fields, check_texts
from include.providers.elements import parsed_json
from include.providers.errors import PageUndecodable, RecordRejected
from include.providers.moments import in_utc
from include.providers.prediction.documents import Amount, RecordStatus, SettlementRecord, as_amount

_SETTLEMENT = msgspec.json.Decoder(SettlementRecord, dec_hook=as_amount)
_AMOUNTS = {
    field.encode_name for field in msgspec.structs.fields(SettlementRecord) if field.type is Amount
}
_STATUSES = {
    RecordStatus.PENDING: Status.OPEN,
    RecordStatus.PROCESSING: Status.OPEN,
    RecordStatus.COMPLETED: Status.SETTLED,
    RecordStatus.FAILED: Status.FAILED,
}


@dataclass(frozen=True)
class Terms:
    """What the engine does not say about a market; None is not known yet.

    `currency` is that of its shares and payouts.
    """

    currency: str | None = None


UNDECIDED = Terms()


def normalize(record: bytes, context: RecordContext, terms: Terms = UNDECIDED) -> Settlement:
    """A settlement's exact text in the words of the house; raises `RecordRejected`, never guesses.

    The subject is the settlement, not the position: a retry may make another one.  What has failed
    was decided when it was last updated, as only what is completed was settled.
    """
    told = read_settlement(record)
    updated_at = _utc(told.updated_at, "updatedAt")
    settled_at = None if told.settled_at is None else _utc(told.settled_at, "settledAt")
    is_completed = told.status is RecordStatus.COMPLETED
    if told.payout_per_share > 1:
        raise RecordRejected(
            "number_unusable", f"`payoutPerShare` is {told.payout_per_share}, more than 1"
        )
    return Settlement(
        source_key=told.id,
        provider_order=order_of(updated_at),
        status=_STATUSES[told.status],
        outcome=_outcome(told.payout_per_share) if is_completed else None,
        settled_at=updated_at if told.status is RecordStatus.FAILED else settled_at,
        settled_at_basis=SettledAtBasis.PROVIDER,
        is_resettlement=False,
        player_id=told.player_id,
        market_id=told.market_id,
        selection_id=told.outcome_id,
        position_id=told.position_id,
        currency=terms.currency,
        payout=Decimal(told.total_payout) if is_completed else None,
        reason=told.error_message,
    )


def order_of(updated_at: datetime) -> str:
    """A text that sorts, byte by byte, by time."""
    moment = updated_at.astimezone(UTC).replace(tzinfo=None)
    return f"t{moment.isoformat(timespec='microseconds')}"


def _outcome(payout_per_share: Decimal) -> Outcome:
    if payout_per_share == 1:
        return Outcome.WON
    return Outcome.PARTLY_WON if payout_per_share else Outcome.LOST


def _utc(moment: datetime, name: str) -> datetime:
    told = in_utc(moment)
    if told is None:
        raise RecordRejected("time_unreadable", f"`{name}` is outside of the calendar")
    return told


def read_settlement(record: bytes) -> SettlementRecord:
    """A settlement's exact text, typed; raises `RecordRejected`, naming the field."""
    try:
        settlement = _SETTLEMENT.decode(record)
    except UNREADABLE:
        settlement = _settlement_by_fields(record)
    if b"\\" in record:
        check_texts(settlement)
    return settlement


def _settlement_by_fields(record: bytes) -> SettlementRecord:
    """The settlement, field by field, so that the first one that cannot be used is named."""
    try:
        fields = parsed_json(record)
    except PageUndecodable as error:
        raise RecordRejected("undecodable", error.reason) from None
    if not isinstance(fields, dict):
        raise RecordRejected("wrong_type", "the settlement is not an object")
    return by_fields(fields, SettlementRecord, _rule_of, as_amount)


def _rule_of(name: str, value: object) -> str:
    if not isinstance(value, str):
        return "wrong_type"
    if name == "status":
        return "unknown_status"
    if name.endswith("At"):
        return "time_unreadable"
    return "number_unusable" if name in _AMOUNTS else "id_unusable"
