"""Amounts as tote tells them: in up to three ways, which have to agree."""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation

from include.providers.errors import RecordRejected
from include.providers.texts import shown
from include.providers.tote.documents import Money

# Digits behind the point of each currency's smallest unit.
_DIGITS = {"EUR": 2, "GBP": 2, "HKD": 2}
# No amount has more digits before the point, and none can have more behind it.
_BOUNDED = Context(prec=50, traps=[Inexact, InvalidOperation])
_FINEST = Decimal(1).scaleb(-30)
# Wide enough for sums of such numbers; what it would have to round is a mistake.
EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])


def amount_of(money: Money, name: str) -> tuple[str, Decimal]:
    """Currency and amount in major units; the ways in which it is told have to agree."""
    if money.currency is None:
        raise RecordRejected("currency_missing", f"`{name}` has no currency")
    code = money.currency.code.value
    told: list[Decimal] = []
    if money.decimal_amount is not None:
        told.append(money.decimal_amount)
    if money.string_amount is not None:
        told.append(_number_in(money.string_amount, name))
    if money.minor_units_total_amount is not None:
        told.append(Decimal(money.minor_units_total_amount).scaleb(-_DIGITS[code]))
    if not told:
        raise RecordRejected("missing_field", f"`{name}` has no amount")
    if any(other != told[0] for other in told[1:]):
        raise RecordRejected(
            "amounts_disagree", shown(f"`{name}` is {' and '.join(map(str, told))}").strip("'")
        )
    return code, exact(told[0], name)


_DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


def _number_in(text: str, name: str) -> Decimal:
    if not _DECIMAL.fullmatch(text):
        raise RecordRejected("number_unusable", f"`{name}` is {shown(text)}")
    return Decimal(text)


def exact(number: Decimal, name: str) -> Decimal:
    """The number as it is, if it is of a size that amounts can have and not negative."""
    try:
        if number.is_finite() and number >= 0:
            number.quantize(_FINEST, context=_BOUNDED)
            # A zero has no sign, and no exponent that would have to be stored.
            return number if number else Decimal(0)
    except (Inexact, InvalidOperation):
        pass
    raise RecordRejected("number_unusable", f"`{name}` is {shown(str(number))}")
