"""What a bet of tote means: its exact text as a settlement, and how it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from include.model import Outcome, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.documented import UNREADABLE, fault_in, without_unknown
from include.providers.errors import RecordRejected
from include.providers.moments import in_utc
from include.providers.texts import is_storable, shown
from include.providers.tote.amounts import EXACT, amount_of
from include.providers.tote.documents import (
    Bet,
    Money,
    PlacementStatus,
    ResultingStatus,
    Returns,
    SettlementStatus,
)

_BET = msgspec.json.Decoder(Bet)
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)


def normalize(
    record: bytes, context: RecordContext, *, is_total_checked: bool = True
) -> Settlement:
    """A bet's exact text as a settlement; raises `RecordRejected`, never guesses.

    `is_total_checked` says that the total has to be the sum of return, refund and enhancement.
    """
    return settle(read_bet(record), context.received_at, is_total_checked=is_total_checked)


def read_bet(record: bytes) -> Bet:
    """A bet's exact text, typed; what the query does not ask for is left out.

    Raises `RecordRejected`, saying where, for what is not documented and for what is missing and
    decides.
    """
    try:
        return _BET.decode(record)
    except UNREADABLE:
        pass
    try:
        value = without_unknown(_ANYTHING.decode(record), Bet, "", set())
    except UNREADABLE as error:
        raise RecordRejected("undecodable", f"the bet cannot be read: {fault_in(error)}") from None
    try:
        return msgspec.convert(value, Bet)
    except msgspec.ValidationError as error:
        raise _rejection(error) from None


def settle(bet: Bet, observed_at: datetime, *, is_total_checked: bool) -> Settlement:
    """A bet as it stood at `observed_at`; raises `RecordRejected`, never guesses."""
    if not is_storable(bet.tote_id):
        raise RecordRejected("text_unstorable", "`toteId` holds a null character")
    status, paid = _status(bet), _paid(bet, is_total_checked=is_total_checked)
    stake = bet.placement.stake
    if stake is None and paid is not None:
        raise RecordRejected("missing_field", "`placement.stake` is missing")
    currency, staked = amount_of(stake, "placement.stake") if stake else (None, None)
    if paid is not None and paid.currency != currency:
        raise RecordRejected(
            "currency_mismatch", f"the stake is in {currency}, the returns are in {paid.currency}"
        )
    if status in (Status.REJECTED, Status.FAILED) and paid and paid.outcome is Outcome.WON:
        raise RecordRejected(
            "status_mismatch", f"the placement is {bet.placement.status}, but there is a return"
        )
    return Settlement(
        source_key=bet.tote_id,
        provider_order=order_of(observed_at),
        status=status,
        outcome=_outcome(bet, status, paid),
        settled_at=in_utc(observed_at),
        settled_at_basis=SettledAtBasis.OBSERVED,
        is_resettlement=False,
        currency=currency,
        stake=staked,
        payout=paid.total if paid else None,
        refund=paid.refund if paid else None,
        enhancement=paid.enhancement if paid else None,
    )


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a bet stands, in tote's own words: what asking for bets, and comparing them with hints,
    goes by.  Whether its amounts are sound is for `settle` to judge.
    """

    status: Status
    placement: PlacementStatus
    resulting: ResultingStatus | None
    settlement: SettlementStatus | None
    returns: Returns | None

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to come, unless tote corrects itself.

        A bet that was cancelled may still have to be refunded.
        """
        is_awaited = self.settlement is SettlementStatus.PENDING
        return self.status not in (
            (Status.OPEN, Status.CANCELLED) if is_awaited else (Status.OPEN,)
        )

    @property
    def total(self) -> Decimal | None:
        """All that is returned, in major units; None if no amount is told that can be read."""
        return _told_amount(self.returns.total_amount if self.returns else None)

    @property
    def returned(self) -> Decimal | None:
        """The same without refund and enhancement."""
        return _told_amount(self.returns.return_amount if self.returns else None)


def standing(record: bytes) -> Standing | None:
    """How the bet of this exact text stands; None if it cannot be judged."""
    try:
        bet = read_bet(record)
    except RecordRejected:
        return None
    resulting = bet.resulting
    return Standing(
        _status(bet),
        bet.placement.status,
        resulting.status if resulting else None,
        bet.settlement.status if bet.settlement else None,
        resulting.returns if resulting else None,
    )


def _told_amount(money: Money | None) -> Decimal | None:
    try:
        return None if money is None else amount_of(money, "an amount")[1]
    except RecordRejected:
        return None


def order_of(observed_at: datetime) -> str:
    """A text that sorts, byte by byte, as we looked."""
    moment = observed_at.astimezone(UTC).replace(tzinfo=None)
    return f"t{moment.isoformat(timespec='microseconds')}"


_NOT_TAKEN = {
    PlacementStatus.REJECTED: Status.REJECTED,
    PlacementStatus.FAILED: Status.FAILED,
    PlacementStatus.CANCELLED: Status.CANCELLED,
}
_PAID_OUT = {SettlementStatus.SETTLED: Status.SETTLED, SettlementStatus.REFUNDED: Status.VOID}


def _status(bet: Bet) -> Status:
    if bet.placement.status in _NOT_TAKEN:
        return _NOT_TAKEN[bet.placement.status]
    if bet.resulting is not None and bet.resulting.status is ResultingStatus.CANCELLED:
        return Status.CANCELLED
    if bet.settlement is None:
        return Status.OPEN
    return _PAID_OUT.get(bet.settlement.status, Status.OPEN)


class _Paid(msgspec.Struct, frozen=True):
    """What was paid out, in all and in parts; `outcome` is what that means of a bet that stands."""

    currency: str
    total: Decimal
    refund: Decimal | None
    enhancement: Decimal | None
    outcome: Outcome


def _outcome(bet: Bet, status: Status, paid: _Paid | None) -> Outcome | None:
    if paid is None:
        return None
    is_refunded = bet.settlement is not None and bet.settlement.status is SettlementStatus.REFUNDED
    if is_refunded:
        return Outcome.REFUNDED
    return paid.outcome if status is Status.SETTLED else None


def _paid(bet: Bet, *, is_total_checked: bool) -> _Paid | None:
    """What was returned to the player; None until the bet is settled or refunded."""
    if bet.settlement is None or bet.settlement.status not in _PAID_OUT:
        return None
    told = bet.resulting.returns if bet.resulting else None
    if told is None or told.total_amount is None:
        raise RecordRejected("missing_field", "`resulting.returns.totalAmount` is missing")
    currency, total = amount_of(told.total_amount, "totalAmount")
    returned = _part(told.return_amount, "returnAmount", currency)
    refund = _part(told.refund_amount, "refundAmount", currency)
    enhancement = _part(told.enhancement_amount, "enhancementAmount", currency)
    parts = (returned, refund, enhancement)
    rest = total
    for part in parts:
        rest = EXACT.subtract(rest, part or Decimal(0))
    if is_total_checked and (rest < 0 or (rest and None not in parts)):
        raise RecordRejected(
            "total_mismatch",
            f"`totalAmount` is {total}, but return, refund and enhancement are {parts[0]}, "
            f"{parts[1]} and {parts[2]}",
        )
    if bet.settlement.status is SettlementStatus.REFUNDED:
        whole = total if refund is None else refund
        return _Paid(currency, total, whole, enhancement, Outcome.REFUNDED)
    outcome = _outcome_of(returned, refund, enhancement, rest)
    return _Paid(currency, total, refund, enhancement, outcome)


def _outcome_of(
    returned: Decimal | None,
    refund: Decimal | None,
    enhancement: Decimal | None,
    rest: Decimal,
) -> Outcome:
    """What the parts of a settled bet's total say; `rest` is what no part accounts for."""
    if (returned or 0) + (enhancement or 0) > 0 or (returned is None and rest > 0):
        return Outcome.WON
    if rest > 0:
        raise RecordRejected(
            "returns_incomplete",
            f"nothing was won, but {rest} of `totalAmount` is no refund that is told either",
        )
    return Outcome.REFUNDED if refund else Outcome.LOST


def _part(money: Money | None, name: str, currency: str) -> Decimal | None:
    if money is None:
        return None
    own, amount = amount_of(money, name)
    if own != currency:
        raise RecordRejected("currency_mismatch", f"`{name}` is in {own}, the total in {currency}")
    return amount


def _rejection(error: msgspec.ValidationError) -> RecordRejected:
    """msgspec says what it expected, what it got and where; it quotes nothing but enum values."""
    told = shown(str(error)).strip("'\"")
    if told.startswith("Object missing required field"):
        return RecordRejected("missing_field", told)
    if told.startswith("Invalid enum value"):
        return RecordRejected("unknown_value", told)
    if " of length " in told and "toteId" in told:
        return RecordRejected("id_unusable", told)
    return RecordRejected("wrong_type", told)
