"""The wallet of the operator's partner: payouts that were not processed are sent to it again.

Endpoint: `POST /transaction/settlement` below the partner's address, with the headers
`x-api-key`, `x-signature`, `x-timestamp` and `content-type: application/json`.  Nothing here
decides what to send, what to store or what becomes of a payout: this is the wire, typed.

Signature: the lower-case hex of HMAC-SHA256 over `JSON.stringify(body) + '|' + timestamp`.  A
partner may check it over the bytes that came, or over what its JavaScript makes of them after
parsing.  So an item is frozen once, as bytes that `JSON.stringify(JSON.parse(bytes))` gives back
unchanged; batches are joined from frozen items; and what a `JSON.parse` would change is never
signed.

Answers: one element of `data` per transaction, each with a `status` of its own; the `status`
around them says nothing about one of them.  `sessionId` and `roundId` may differ from what was
sent, as they do in the documentation's own example: `transactionId` is what tells which
transaction an element is about.

Quirks:
- The list of codes is not public.  `ITEM_CODES` is what is known; any other code is `OTHER`.
- The documentation names no HTTP status.  Any 2xx counts as an answer: several frameworks
  answer a POST with 201.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import NoReturn

import httpx
import msgspec

from include.providers.errors import NOTHING_SENT, Fatal, Retriable
from include.providers.http import Answer, Client
from include.settings import Settings

PROVIDER = "wallet"
AMOUNT_SCALE = 100_000
"""How many of the wire's units make one unit of the currency: 250000000 is 2500.00000."""
TEXT_CHARACTERS_LIMIT = 500
"""Longest text of an answer that is read; as part of an index key, Postgres stores 2700 bytes."""

_PATH = "/transaction/settlement"
# The largest whole number that JavaScript tells from its neighbours.
_INTEGER_LIMIT = 2**53 - 1
_BALANCE_DIGITS_LIMIT = 100


# What is sent.


class Unsignable(Exception):
    """An item that the partner's JavaScript could read as another one; `reason` says which field.

    It is held for a person to correct; its neighbours go.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Item(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One payout as it is sent, its fields in the order in which they are printed.

    Source: the request of `POST /transaction/settlement`; on the wire the names are the
    documentation's (`transactionId` …).
    """

    transaction_id: str
    """Names the payout for ever: the partner processes it at most once."""
    ref_transaction_id: str
    """The transaction that this one answers, such as the bet."""
    session_id: str
    round_id: str
    player_id: str
    game_id: str
    currency: str
    amount: int
    """In units of 1/100 000 of the currency (`AMOUNT_SCALE`)."""
    is_win: bool


_TEXT_FIELDS = tuple(
    (field.name, field.encode_name) for field in msgspec.structs.fields(Item) if field.type is str
)


def freeze_item(item: Item) -> bytes:
    """The bytes of an item, for every time that it is sent.

    They are a fixed point of `JSON.stringify(JSON.parse(bytes))`.  Raises `Unsignable` for half a
    surrogate pair, a number above 2^53 - 1, and a value that is not of its field's type.
    """
    for name, wire_name in _TEXT_FIELDS:
        _check_text(wire_name, getattr(item, name))
    # Exactly `int`: to Python a boolean is a whole number too, to JavaScript it is not.
    if type(item.amount) is not int:
        raise Unsignable(f"`amount` is no whole number but a {type(item.amount).__name__}")
    if abs(item.amount) > _INTEGER_LIMIT:
        raise Unsignable(
            "`amount` is beyond 2^53 - 1, where JavaScript takes different whole numbers for the "
            "same"
        )
    if type(item.is_win) is not bool:
        raise Unsignable(f"`isWin` is neither true nor false but a {type(item.is_win).__name__}")
    return msgspec.json.encode(item)


def _check_text(name: str, value: object) -> None:
    if type(value) is not str:
        raise Unsignable(f"`{name}` is no text but a {type(value).__name__}")
    if _holds_half_a_pair(value):
        raise Unsignable(
            f"`{name}` holds half a surrogate pair, which cannot be written in UTF-8 and which "
            "JavaScript exchanges for another character"
        )


def join_items(items: Sequence[bytes]) -> bytes:
    """The body of one request with these frozen items, in this order, none of them re-written."""
    return b'{"transactions":[' + b",".join(items) + b"]}"


def unix_milliseconds() -> int:
    """Now, as `x-timestamp` wants it."""
    return time.time_ns() // 1_000_000


class Signing(httpx.Auth):
    """Adds `x-signature` and `x-timestamp` to a request, over the exact bytes of its body.

    `clock` gives Unix milliseconds and is asked for every request, so that the same bytes sent
    again carry a fresh timestamp.  Raises `Fatal` for a secret that cannot sign.
    """

    requires_request_body = True

    def __init__(self, secret: str, clock: Callable[[], int] = unix_milliseconds) -> None:
        self._clock = clock
        # Only the keyed state is held on to: no part of it shows the secret when it is printed.
        self._keyed = hmac.new(_secret_bytes(secret), digestmod=sha256)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request, once."""
        timestamp = str(self._clock())
        request.headers["x-timestamp"] = timestamp
        request.headers["x-signature"] = self._signature(request.content, timestamp)
        yield request

    def _signature(self, body: bytes, timestamp: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(body)
        keyed.update(b"|" + timestamp.encode("ascii"))
        return keyed.hexdigest()


def _secret_bytes(secret: str) -> bytes:
    try:
        written = secret.encode()
    except UnicodeEncodeError:
        # Not chained: the error holds the whole text.
        written = b""
    if not written:
        raise Fatal(
            PROVIDER,
            f"Its signing secret is empty or no text. {NOTHING_SENT}",
            f"Enter `signing_secret` in the extra of the Airflow connection `{PROVIDER}`, then "
            "clear this task.",
        )
    return written


def open_client(base_url: str, api_key: str, settings: Settings) -> Client:
    """A client for the partner at `base_url`, for one thread; `Fatal` if it cannot be used."""
    bounded = settings.model_copy(update={"body_limit_bytes": settings.wallet_body_limit_bytes})
    return Client(PROVIDER, base_url, secret_headers={"x-api-key": api_key}, settings=bounded)


def post_settlement(client: Client, body: bytes, signing: Signing, *, ends_at: float) -> Answer:
    """Send one batch, once; `classify_answer` and `classify_error` say what came of it.

    `ends_at` is the attempt's deadline on the clock of `now`.  Raises `Retriable` or `Fatal` if no
    byte was written, and `Ambiguous` if the partner may have executed it.
    """
    return client.post(_PATH, body, auth=signing, ends_at=ends_at)


# What came of an attempt, before its items are looked at.


class Execution(StrEnum):
    """What one attempt means for all of its items."""

    ANSWERED = "answered"
    """The items' own answers decide."""
    NOT_EXECUTED = "not_executed"
    """Nothing happened at the partner: it may be sent again within the window."""
    REJECTED_STOP = "rejected_stop"
    """Nothing happened, and nothing will before a person changes something: the run stops."""
    REJECTED_BISECT = "rejected_bisect"
    """Nothing happened, because of one of the items: halve the batch to find it."""
    IN_DOUBT = "in_doubt"
    """The partner may have executed all, some or none of the items."""


_STOPPING_STATUSES = frozenset({401, 403, 404})
_BISECTED_STATUSES = frozenset({400, 413, 422})


def classify_error(error: BaseException) -> Execution:
    """What an attempt that ended without an answer means; anything unforeseen is in doubt.

    A `Fatal` comes from before anything was sent.  A certificate that is not to be trusted is one
    host's, at one moment: another try may meet another.
    """
    match error:
        case Retriable() | Fatal(fault="certificate"):
            return Execution.NOT_EXECUTED
        case Fatal():
            return Execution.REJECTED_STOP
        case _:
            return Execution.IN_DOUBT


class CodeClass(StrEnum):
    """What a code means for the payout that it answers."""

    OK = "ok"
    """Booked."""
    FINAL = "final"
    """Refused for the payout's own sake: lost, if nothing speaks against it."""
    DUPLICATE = "duplicate"
    """Its id is known to the partner, with other data: it may already be booked."""
    AUTHENTICATION = "authentication"
    """Our key, signature or token was refused, not the payout: the run stops."""
    SYNTAX = "syntax"
    """Our way of writing was refused, not the payout: the run stops."""
    OTHER = "other"
    """Not known, or none was given: for a person to judge."""


ITEM_CODES: Mapping[str, CodeClass] = MappingProxyType(
    {
        "RS_OK": CodeClass.OK,
        "RS_ERROR": CodeClass.FINAL,
        "RS_ERROR_USER_DISABLED": CodeClass.FINAL,
        "RS_ERROR_WRONG_CURRENCY": CodeClass.FINAL,
        "RS_ERROR_NOT_ENOUGH_MONEY": CodeClass.FINAL,
        "RS_ERROR_LIMIT_REACHED": CodeClass.FINAL,
        "RS_ERROR_INVALID_GAME": CodeClass.FINAL,
        "RS_ERROR_TRANSACTION_DOES_NOT_EXIST": CodeClass.FINAL,
        "RS_ERROR_DUPLICATE_TRANSACTION": CodeClass.DUPLICATE,
        "RS_ERROR_INVALID_PARTNER": CodeClass.AUTHENTICATION,
        "RS_ERROR_INVALID_SIGNATURE": CodeClass.AUTHENTICATION,
        "RS_ERROR_INVALID_TOKEN": CodeClass.AUTHENTICATION,
        "RS_ERROR_TOKEN_EXPIRED": CodeClass.AUTHENTICATION,
        "RS_ERROR_WRONG_SYNTAX": CodeClass.SYNTAX,
        "RS_ERROR_WRONG_TYPES": CodeClass.SYNTAX,
    }
)
"""The codes that are known, with what they mean; any other one is `CodeClass.OTHER`.

Sources: the documentation has `RS_OK`, `RS_ERROR` and codes that begin with `RS_ERROR_`; the names
behind that prefix are those of a comparable aggregator.
"""


def item_codes(settings: Settings) -> Mapping[str, CodeClass]:
    """`ITEM_CODES` with what the settings say beside and before it."""
    told = {code: CodeClass(meaning) for code, meaning in settings.wallet_item_codes.items()}
    return {**ITEM_CODES, **told}


def classify_code(code: str | None, codes: Mapping[str, CodeClass] = ITEM_CODES) -> CodeClass:
    """What a code means, spelled exactly so."""
    return CodeClass.OTHER if code is None else codes.get(code, CodeClass.OTHER)


# What the partner answered.


class AnsweredItem(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One element of an answer's `data`, as it was answered and not yet judged.

    A text is None if it is missing, no text, longer than `TEXT_CHARACTERS_LIMIT` or not to be
    stored in Postgres; `code` is the element's `status`.  A name that an element has twice, with
    differing values, says nothing; but each `status` of one that has several is an answer of its
    own.  Fields that the documentation does not name are only in the stored answer.
    """

    code: str | None
    transaction_id: str | None
    ref_transaction_id: str | None
    session_id: str | None
    round_id: str | None
    player_id: str | None
    currency: str | None
    balance: int | None
    """In units of 1/100 000 of the currency, of any size and sign; None if it is not whole."""


class Envelope(StrEnum):
    """What an answer as a whole can be used for; nothing in it speaks for one item."""

    OK = "ok"
    """Its items' own answers decide."""
    AUTHENTICATION = "authentication"
    """Our key, signature or token was refused: nothing was executed, the run stops."""
    OTHER = "other"
    """It speaks of a failure and yet answers items, which may have been booked."""
    UNUSABLE = "unusable"
    """It answers no item."""


class PartnerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A body taken apart: the `status` around it, and its items in the order of `data`.

    `items` are also those without an id, with a foreign one or with one that came before.
    `unusable_reason` says why there are none.
    """

    code: str | None
    items: tuple[AnsweredItem, ...] = ()
    unusable_reason: str | None = None

    def classify(self, codes: Mapping[str, CodeClass] = ITEM_CODES) -> Envelope:
        """What the answer can be used for."""
        code_class = classify_code(self.code, codes)
        if code_class is CodeClass.AUTHENTICATION:
            return Envelope.AUTHENTICATION
        if not self.items:
            return Envelope.UNUSABLE
        return Envelope.OK if code_class is CodeClass.OK else Envelope.OTHER


def read_answer(body: bytes) -> PartnerAnswer:
    """Take a body apart, whatever it is; never raises, never judges."""
    try:
        # Some servers begin with a byte order mark, which says nothing.
        envelope = _JSON.decode(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return PartnerAnswer(code=None, unusable_reason=f"the answer is not JSON: {_told(error)}")
    if not isinstance(envelope, dict):
        return PartnerAnswer(code=None, unusable_reason="the answer is JSON, but not an object")
    code, data = _text(envelope.get("status")), envelope.get("data")
    if not isinstance(data, list):
        return PartnerAnswer(code=code, unusable_reason="the answer has no list `data`")
    if not data:
        return PartnerAnswer(code=code, unusable_reason="the list `data` is empty")
    items = (_answered_item(element, status) for element in data for status in _statuses(element))
    return PartnerAnswer(code=code, items=tuple(items))


def classify_answer(
    answer: Answer, told: PartnerAnswer, codes: Mapping[str, CodeClass] = ITEM_CODES
) -> Execution:
    """What an answer, whose body is `told` (`read_answer`), means for all items of its attempt.

    `ANSWERED` leaves it to the items, of an answer that names at least one.
    """
    if 200 <= answer.status < 300:
        return _classify_success(answer, told, codes)
    if answer.status == 429:
        return Execution.NOT_EXECUTED
    if answer.status in _STOPPING_STATUSES or 300 <= answer.status < 400:
        return Execution.REJECTED_STOP
    if answer.status in _BISECTED_STATUSES:
        # Halving a batch finds no bad item if it is the key or the signature that was refused.
        is_ours = told.classify(codes) is Envelope.AUTHENTICATION
        return Execution.REJECTED_STOP if is_ours else Execution.REJECTED_BISECT
    return Execution.IN_DOUBT


def _classify_success(
    answer: Answer, told: PartnerAnswer, codes: Mapping[str, CodeClass]
) -> Execution:
    if not answer.is_complete:
        return Execution.IN_DOUBT
    match told.classify(codes):
        case Envelope.AUTHENTICATION:
            return Execution.REJECTED_STOP
        case Envelope.UNUSABLE:
            return Execution.IN_DOUBT
        case _:
            return Execution.ANSWERED


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | None:
    # Python refuses to convert very long numbers, which no balance is.
    return int(digits) if len(digits) <= _BALANCE_DIGITS_LIMIT else None


class _Contradiction(tuple[object, ...]):
    """The values of a name that an object has more than once, and not alike."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        said: dict[str, list[object]] = {}
        for name, value in pairs:
            said.setdefault(name, []).append(value)
        for name, values in said.items():
            if any(value != values[0] for value in values):
                fields[name] = _Contradiction(values)
    return fields


# A number with a point or an exponent is not one of the wire's whole units; it reads as nothing.
_JSON = json.JSONDecoder(
    parse_int=_integer,
    parse_float=lambda digits: None,
    parse_constant=_no_constant,
    object_pairs_hook=_object,
)


def _statuses(element: object) -> tuple[object, ...]:
    status = element.get("status") if isinstance(element, dict) else None
    return status if isinstance(status, _Contradiction) else (status,)


def _answered_item(element: object, status: object) -> AnsweredItem:
    fields = element if isinstance(element, dict) else {}
    balance = fields.get("balance")
    return AnsweredItem(
        code=_text(status),
        transaction_id=_text(fields.get("transactionId")),
        ref_transaction_id=_text(fields.get("refTransactionId")),
        session_id=_text(fields.get("sessionId")),
        round_id=_text(fields.get("roundId")),
        player_id=_text(fields.get("playerId")),
        currency=_text(fields.get("currency")),
        balance=balance if type(balance) is int else None,
    )


def _text(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_LIMIT or "\0" in value:
        return None
    return value if value.isascii() or not _holds_half_a_pair(value) else None


def _holds_half_a_pair(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _told(error: Exception) -> str:
    """Where the text stops being JSON, without quoting it."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {error.pos})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
