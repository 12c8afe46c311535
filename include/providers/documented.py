"""Objects as a provider documents them, read by msgspec: their fields, and what differs from them.

There are two ways of reading with one result: at full speed while every name is documented, and by
way of `without_unknown` as soon as one is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec

from include.providers.errors import RecordRejected
from include.providers.texts import is_storable, shown

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)
"""Whatever msgspec raises on bytes that it does not accept."""

_UNKNOWN_FIELDS_SHOWN = 20

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Documented(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
):
    """An object with the fields that its documentation names, and no others."""


def documented_in(annotation: Any) -> type[Documented] | None:
    """The documented object that a field holds, alone or in a list; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, Documented):
        return annotation
    return next(filter(None, map(documented_in, get_args(annotation))), None)


@cache
def fields_of(kind: type[Documented]) -> dict[str, type[Documented] | None]:
    """The names of its fields as they are written, each with the documented object in it."""
    return {one.encode_name: documented_in(one.type) for one in msgspec.structs.fields(kind)}


def without_unknown(
    value: Any, kind: type[Documented] | None, place: str, unknown: set[str]
) -> Any:
    """The value without what is not documented, whose places are added to `unknown`."""
    if kind is not None and isinstance(value, list):
        # No deeper: no documentation has a list in a list.
        return [_with_known(one, kind, f"{place}[]", unknown) for one in value]
    return value if kind is None else _with_known(value, kind, place, unknown)


def _with_known(value: Any, kind: type[Documented], place: str, unknown: set[str]) -> Any:
    if not isinstance(value, dict):
        return value
    known = fields_of(kind)
    unknown |= {f"{place}.{name}" for name in value if name not in known}
    return {
        name: without_unknown(one, known[name], f"{place}.{name}", unknown)
        for name, one in value.items()
        if name in known
    }


def by_fields(
    fields: dict[str, Any],
    kind: type[_Kind],
    rule_of: Callable[[str, object], str],
    dec_hook: Callable[[type, Any], Any] | None = None,
) -> _Kind:
    """The record, field by field, so that the first one that cannot be used is named.

    Raises `RecordRejected`, by the rule that `rule_of` gives for a field's name and its value.
    """
    known = {}
    for field in _described(kind):
        name = field.encode_name
        if name in fields:
            known[field.name] = _converted(name, fields[name], field.type, rule_of, dec_hook)
        elif field.required:
            raise RecordRejected("missing_field", f"`{name}` is missing")
    return kind(**known)


@cache
def _described(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _converted(
    name: str,
    value: Any,
    wanted: Any,
    rule_of: Callable[[str, object], str],
    dec_hook: Callable[[type, Any], Any] | None,
) -> Any:
    try:
        return msgspec.convert(value, wanted, dec_hook=dec_hook)
    except (msgspec.ValidationError, ValueError):
        raise RecordRejected(rule_of(name, value), f"`{name}` is {shown(value)}") from None


def check_texts(record: msgspec.Struct) -> None:
    """Raise `RecordRejected` for a text of the record's own fields that cannot be stored."""
    for field in _described(type(record)):
        value = getattr(record, field.name)
        if isinstance(value, str) and not is_storable(value):
            raise RecordRejected(
                "text_unstorable",
                f"`{field.encode_name}` holds a null character or half a surrogate pair",
            )


def few(names: Iterable[str]) -> frozenset[str]:
    """Some of the names that a provider made up, as a finding shows them."""
    return frozenset(sorted(shown(name).strip("'") for name in names)[:_UNKNOWN_FIELDS_SHOWN])


def fault_in(error: Exception) -> str:
    """Where a text stops being what it should be, without quoting it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, ArithmeticError):
        return "a number in it is too large"
    return shown(str(error)).strip("'\"")
