"""JSON as a partner in JavaScript reads and writes it: `JSON.stringify(JSON.parse(text))`.

By ECMA-262: every number is a double and is written in its shortest form, the keys of an object
that are array indexes come first and in ascending order, of two equal keys the last one counts,
and text is escaped only where it must be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NoReturn

_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_ESCAPED = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_ARRAY_INDEXES = 2**32 - 1
# Up to here a number is written without an exponent: 10^21 above one, 10^-6 below.
_PLAIN_DIGITS = 21
_PLAIN_ZEROS = 6


def reserialised(body: bytes) -> bytes:
    """The body as it is after `JSON.stringify(JSON.parse(body))`. ValueError if it is no JSON."""
    text = body.decode("utf-8", "replace")
    try:
        # A double also where the text shows a whole number: JavaScript has no other.
        parsed = json.loads(text, parse_int=float, parse_constant=_refuse)
        return _written(parsed).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return f"{{{','.join(f'{_text(key)}:{_written(value[key])}' for key in _in_order(value))}}}"


def _in_order(keys: Iterable[str]) -> list[str]:
    indexes = {key for key in keys if _ARRAY_INDEX.fullmatch(key) and int(key) < _ARRAY_INDEXES}
    return [*sorted(indexes, key=int), *(key for key in keys if key not in indexes)]


def _text(value: str) -> str:
    return f'"{_ESCAPED.sub(lambda found: _escape(found.group()), value)}"'


def _escape(character: str) -> str:
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _number(value: float) -> str:
    """`Number::toString` of ECMA-262, 6.1.6.1.20."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    # Both languages write the fewest digits that give the same double back.
    sign, every_digit, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, every_digit)).rstrip("0")
    point = len(every_digit) + int(exponent)
    return ("-" if sign else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """These digits with the decimal point before digit number `point`."""
    if len(digits) <= point <= _PLAIN_DIGITS:
        return digits.ljust(point, "0")
    if 0 < point <= _PLAIN_DIGITS:
        return f"{digits[:point]}.{digits[point:]}"
    if -_PLAIN_ZEROS < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
