"""What came of an order to settle a market or to retry it: done, not done, or in doubt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

from include.providers.documented import few
from include.providers.elements import elements_of, parsed_json
from include.providers.errors import Fatal, PageUndecodable, Retriable
from include.providers.http import Answer
from include.providers.prediction.documents import (
    ENVELOPE_FIELDS,
    TEXT_CHARACTERS_LIMIT,
    SettleTotals,
    converted,
    error_of,
    read_envelope,
    unknown_names,
)
from include.providers.prediction.pages import PageEntry, entries_of

SETTLEMENT_FAILED = "SETTLEMENT_FAILED"
SETTLEMENT_ALREADY_COMPLETED = "SETTLEMENT_ALREADY_COMPLETED"


class Execution(StrEnum):
    """What one call to settle or to retry means for its market."""

    EXECUTED = "executed"
    """The engine has taken the order and says what it did; positions may still be under way."""
    ALREADY_COMPLETED = "already_completed"
    """The market was settled before: go on and fetch."""
    FAILED = "failed"
    """The engine says that it met an error; what it did until then is told by the status."""
    NOT_EXECUTED = "not_executed"
    """Nothing happened: the same call may be made again."""
    REJECTED = "rejected"
    """Nothing happened, and nothing will before a person changes something."""
    IN_DOUBT = "in_doubt"
    """It may have been executed: read the status before anything is posted again."""


_REJECTING_STATUSES = frozenset({400, 401, 403, 404, 405, 406, 413, 415, 422})
_EXECUTION_OF_CODE = {
    SETTLEMENT_ALREADY_COMPLETED: Execution.ALREADY_COMPLETED,
    SETTLEMENT_FAILED: Execution.FAILED,
}
_SETTLE_FIELDS = {
    "settlements",
    "errors",
    *(field.encode_name for field in msgspec.structs.fields(SettleTotals)),
}


class SettleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer to a call to settle or to retry, taken apart.

    `is_success` is what it says of itself, None if it says nothing that can be read; `code` and
    `message` are the error's.  `entries` are the settlements in it, which need not be all of the
    market's, and `errors` what the engine lists as such, as JSON, shortened.  `unusable_reason`
    says why there are no totals.
    """

    is_success: bool | None = None
    code: str | None = None
    message: str | None = None
    totals: SettleTotals | None = None
    entries: tuple[PageEntry, ...] = ()
    errors: tuple[str, ...] = ()
    unknown_fields: frozenset[str] = frozenset()
    unusable_reason: str | None = None


def classify_error(error: BaseException) -> Execution:
    """What a call that ended without an answer means; anything unforeseen is in doubt.

    A `Fatal` comes from before anything was sent: it is about the market, unless it is about every
    call alike.
    """
    if isinstance(error, Fatal):
        return Execution.REJECTED if error.fault is None else Execution.NOT_EXECUTED
    if isinstance(error, Retriable):
        return Execution.NOT_EXECUTED
    return Execution.IN_DOUBT


def classify_answer(answer: Answer, told: SettleAnswer) -> Execution:
    """What an answer, whose body is `told` (`read_settle_answer`), means for its market.

    The error's code decides where it is a documented one, else the status.
    """
    is_told_done = told.is_success is True and told.code is None
    if answer.is_complete and told.is_success is False and told.code in _EXECUTION_OF_CODE:
        return _EXECUTION_OF_CODE[told.code]
    if 200 <= answer.status < 300:
        # Without totals it may be another server that answers so.
        is_done = is_told_done and answer.is_complete and told.totals is not None
        return Execution.EXECUTED if is_done else Execution.IN_DOUBT
    if is_told_done:
        # It says that it is done and that it failed.
        return Execution.IN_DOUBT
    if answer.status == 429:
        return Execution.NOT_EXECUTED
    if answer.status in _REJECTING_STATUSES or 300 <= answer.status < 400:
        return Execution.REJECTED
    return Execution.IN_DOUBT


def read_settle_answer(body: bytes, *, with_entries: bool = True) -> SettleAnswer:
    """Take the body of an answer to a call to settle or to retry apart; never raises.

    Without `with_entries` its settlements, which may be many thousands, are left aside.
    """
    try:
        envelope = parsed_json(body)
    except PageUndecodable as error:
        return SettleAnswer(unusable_reason=error.reason)
    if not isinstance(envelope, dict):
        return SettleAnswer(unusable_reason="the body is JSON, but not an object")
    is_success, data = envelope.get("success"), envelope.get("data")
    code, message = error_of(envelope)
    answer = SettleAnswer(
        is_success=is_success if isinstance(is_success, bool) else None, code=code, message=message
    )
    if not isinstance(data, dict):
        return msgspec.structs.replace(answer, unusable_reason="the body has no object `data`")
    return _with_data(answer, body, envelope, data, with_entries=with_entries)


def settlements_answered(body: bytes) -> Iterator[bytes]:
    """The exact texts of the settlements in such a body, of which `read_settle_answer` has totals.

    For `read_settlement`; an answer need not have all of the market's.
    """
    if isinstance(read_envelope(body)["data"].get("settlements"), list):
        yield from (element.text for element in elements_of(body, "data", "settlements"))


def _with_data(
    answer: SettleAnswer,
    body: bytes,
    envelope: dict[str, Any],
    data: dict[str, Any],
    *,
    with_entries: bool,
) -> SettleAnswer:
    unknown = unknown_names(envelope, ENVELOPE_FIELDS, "") | unknown_names(
        data, _SETTLE_FIELDS, "data."
    )
    entries: tuple[PageEntry, ...] = ()
    if with_entries and isinstance(data.get("settlements"), list):
        entries = entries_of(body, unknown, "data", "settlements")
    errors = data.get("errors")
    totals, unusable_reason = None, None
    try:
        totals = converted(data, SettleTotals)
    except PageUndecodable as error:
        unusable_reason = error.reason
    return msgspec.structs.replace(
        answer,
        totals=totals,
        entries=entries,
        errors=tuple(map(_excerpt, errors)) if isinstance(errors, list) else (),
        unknown_fields=few(unknown),
        unusable_reason=unusable_reason,
    )


def _excerpt(value: object) -> str:
    return json.dumps(value)[:TEXT_CHARACTERS_LIMIT]
