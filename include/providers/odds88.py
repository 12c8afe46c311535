"""The settlement feed of odds88: a message on a WebSocket each time a bet is settled, or again.

Endpoint: `/feed/settlement/v4?revision=` below the base address, `revision` being the Unix second
from which messages are told again: at most 3 days back, 0 for the first connection.  The token for
it comes from `POST /api/Account/login` and may be used for 24 hours.

A record is what a message has in `data`: one state of one bet.  Several of a bet are normal; the
later `settlementTime` counts, then the higher `settlementVersion` of a leg, however late each one
arrives.  A message with a `pingId` and no `data` says only that the connection lives.

Quirks:
- The numbers of results are those of this document.  A sister feed of the same vendor numbers them
  differently: they are never shared.
- Numbers with a point are read digit by digit as they are written; a number written as a text is
  none.
- Whether `payout` and `partialRefund` count in major or minor units, whether the one contains the
  other, and with which `settlementVersion` a leg begins is not documented.  `Terms` say it; a bet
  that depends on what they leave open is held back, never guessed.
- Most fields may be absent by the schema.  What decides who gets what must be there.
- A message that cannot be read costs itself alone; the stream goes on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import IntEnum
from hashlib import sha256
from itertools import chain
from types import GenericAlias
from typing import Annotated, Any, Literal, Self, get_args

import msgspec

from include.model import Leg, Outcome, Record, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.errors import Fatal, RecordRejected
from include.providers.http import KEPT, Account, Client
from include.providers.moments import AwareTime, in_utc, readable_time, sortable
from include.providers.streams import Socket, open_socket
from include.settings import Settings

PROVIDER = "odds88"
TOKEN_LIFETIME = timedelta(hours=24)

_LOG_IN_PATH = "/api/Account/login"
_FEED_PATH = "/feed/settlement/v4"
_CREDENTIALS = (
    "What counts is `client_id` in the extra of the Airflow connection `odds88`, and its password."
)
_MEANINGS = {400: _CREDENTIALS, 401: _CREDENTIALS, 403: _CREDENTIALS}
_TOKEN_HEADER = (
    "The log-in before it was accepted: what counts is the header that carries the token "
    "(SETTLEMENTS_ODDS88_TOKEN_HEADER), and whether the client may use the settlement feed."
)
_STREAM_MEANINGS = {401: _TOKEN_HEADER, 403: _TOKEN_HEADER}
# Ids and tickers are parts of index keys, which Postgres limits to about 2700 bytes together.
_NAME_CHARACTERS_LIMIT = 128
_UNKNOWN_FIELDS_SHOWN = 20
_LEGS_LIMIT = 1000
# Digits of the largest int32.
_VERSION_DIGITS = 10
# Longer ones are not remembered: a text may be as long as a message.
_USUAL_NUMBER_LENGTH = 32
_USUAL_NUMBERS = 4096
# No currency has more digits behind the point, and no amount as many before it.
_DIGITS_BEHIND_POINT = 30
_DIGITS_BEFORE_POINT = 20
_FINEST = Decimal(1).scaleb(-_DIGITS_BEHIND_POINT)
_BOUNDED = Context(
    prec=_DIGITS_BEFORE_POINT + _DIGITS_BEHIND_POINT, traps=[Inexact, InvalidOperation]
)
# Wide enough for the product of two such numbers; what it would have to round is a mistake.
_EXACT = Context(prec=120, traps=[Inexact, InvalidOperation])


# What odds88 writes. Source: SettlementFeedMessageDto of the document, and what it is made of.


class Number(Decimal):
    """A number of any kind, exactly as it was written; never a text, never NaN or an infinity.

    `exact` is the same as an amount or odds, None if it is of a size that neither can have.
    """

    __slots__ = ("exact",)
    exact: Decimal | None

    def __new__(cls, written: str | int | Decimal) -> Self:
        """Any number that can be written; ArithmeticError for one that Decimal cannot hold."""
        # Twice as quick as by way of `super`, for each number that was not met before.
        number = Decimal.__new__(cls, written)
        try:
            # Of nothing there is but one kind: neither -0 nor 0.000.
            number.exact = _EXACT.plus(number) if number else Decimal(0)
            _BOUNDED.quantize(number, _FINEST)
        except (Inexact, InvalidOperation):
            number.exact = None
        return number


class Result(IntEnum):
    """How a bet, a leg or a part of one was settled."""

    NONE = 0
    WIN = 1
    LOSE = 2
    REFUND = 3
    HALF_WIN = 4
    HALF_LOSE = 5
    CASH_OUT = 6
    PLACE_WIN = 7


class SelectionType(IntEnum):
    """What kind of bet a selection is (BetItemType)."""

    STANDARD = 1
    STARTING_PRICE = 2
    TOTE_EXOTICS = 3
    FIXED_EXOTICS = 4
    BET_BUILDER = 5
    PICKEM = 6
    EACH_WAY = 7


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_NAME_CHARACTERS_LIMIT)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class _Documented(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
):
    """An object of the document: its fields and no others, as `additionalProperties` has it."""


class Event(_Documented, frozen=True, gc=False, kw_only=True):
    """The event of a selection (EventInfoViewModel)."""

    id: Int64 | None = None
    name: str | None = None
    is_live: bool | None = None
    start_time: AwareTime | None = None


class Market(_Documented, frozen=True, gc=False, kw_only=True):
    """The market of a selection (MarketViewModel); `type` is the id of its type."""

    id: Int64 | None = None
    type: Int64 | None = None
    name: str | None = None
    properties: dict[str, str] | None = None


class LegSettlement(_Documented, frozen=True, gc=False, kw_only=True):
    """How a selection, or a part of one, was settled (SettlementInfoViewModel).

    `settlement_version` grows when it is settled again.
    """

    settlement_result: Result
    settlement_time: AwareTime | None = None
    settlement_version: Version


class EachWayPrice(_Documented, frozen=True, gc=False, kw_only=True):
    """The decimal odds of both parts of an each-way bet (EachWayPriceModel)."""

    win: Number | None = None
    place: Number | None = None


class BuilderItem(_Documented, frozen=True, gc=False, kw_only=True):
    """One part of a bet-builder selection (SettledBetBuilderItemViewModel)."""

    market: Market | None = None
    selection_id: Int64 | None = None
    settlement: LegSettlement | None = None


class Selection(_Documented, frozen=True, gc=False, kw_only=True):
    """One selection of a bet (SettledBetItemViewModel), which is a leg of its settlement.

    Prices are decimal odds, `price` those at which the bet was placed; a dead-heat factor is the
    share of a shared place, `place_dead_heat_factor` that of an each-way bet's place part.
    `limits_factor` belongs to `limits_rating_id`; `version` is that of the selection.
    """

    event: Event | None = None
    market: Market | None = None
    selection_id: Int64 | None = None
    competition_id: Int64 | None = None
    country_id: Int64 | None = None
    sport_id: Int64 | None = None
    settlement: LegSettlement | None = None
    price: Number | None = None
    each_way_price: EachWayPrice | None = None
    limits_rating_id: Int64 | None = None
    limits_factor: Number | None = None
    has_line_deviation: bool | None = None
    is_outright: bool | None = None
    version: Int32 | None = None
    dead_heat_factor: Number | None = None
    place_dead_heat_factor: Number | None = None
    parameters: dict[str, str] | None = None
    manual_price: Number | None = None
    alternative_price: Number | None = None
    type: SelectionType | None = None
    bet_builder_items: list[BuilderItem] | None = None


class Amount(_Documented, frozen=True, gc=False, kw_only=True):
    """What was staked (BetAmountViewModel): `value` with its last `precision` digits behind the
    point, in `currency`.

    The two rates are all that is told of another currency; their direction and base are not.
    """

    currency: Name
    value: Int64
    precision: Int32
    placement_exchange_rate: Number | None = None
    settlement_exchange_rate: Number | None = None


class Bet(_Documented, frozen=True, gc=False, kw_only=True):
    """One state of one bet, as odds88 writes it (SettledBetViewModelV3)."""

    bet_id: Name
    bet_settlement: Result
    payout_multiplier: Number | None = None
    is_cancelled: bool
    selections: list[Selection] | None = None
    is_rejected: bool
    settlement_time: AwareTime
    payout: Number | None = None
    partial_refund: Number | None = None
    amount: Amount | None = None


# Logging in, and where the stream is.


@dataclass(frozen=True, slots=True)
class Token:
    """What opens the stream, until `expires_at` (UTC).  It is never shown and never stored."""

    text: str = field(repr=False)
    expires_at: datetime


def open_client(base_url: str, settings: Settings) -> Client:
    """A client for logging in at `base_url`, for one thread; `Fatal` if it cannot be used."""
    return Client(PROVIDER, base_url, secret_headers={}, settings=settings, meanings=_MEANINGS)


def log_in(client: Client, client_id: str, password: str) -> Token:
    """Exchange the client's id and password for a token; tried again while that may help.

    Raises `Fatal` if they are refused or the answer is no token, `Retriable` if odds88 cannot
    answer now.  Neither says anything of the password or the answer.
    """
    credentials = _credentials(client_id, password)
    client.hide(password)
    answer = client.query(_LOG_IN_PATH, credentials)
    text = _token_text(answer.body)
    if text is None:
        raise Fatal(
            PROVIDER,
            f"It answered {answer.url_path} with something that is no token. {KEPT}",
            f"Check `base_url` in the extra of the Airflow connection `{PROVIDER}`, and ask "
            f"{PROVIDER} whether its log-in has changed, then clear this task.",
        )
    expiries = [answer.requested_at + TOKEN_LIFETIME, _claimed_expiry(text)]
    return Token(text, min(moment for moment in expiries if moment is not None))


def token_headers(token: Token, settings: Settings) -> dict[str, str]:
    """The header that carries the token on the stream's handshake; a secret."""
    template = settings.odds88_token_header or "Authorization: Bearer {token}"
    name, _, value = template.partition(":")
    return {name: value.strip().replace("{token}", token.text)}


def feed_url(base_url: str, revision: int) -> str:
    """Where the stream is that tells again what was settled since `revision` (Unix seconds)."""
    scheme, _, place = base_url.rstrip("/").partition("://")
    secure = scheme.lower() == "https"
    return f"{'wss' if secure else 'ws'}://{place}{feed_path(revision)}"


def feed_path(revision: int) -> str:
    """The path and query of that stream, below the base address."""
    return f"{_FEED_PATH}?revision={revision}"


class Feed:
    """The settlement feed as one account hears it, for one thread; close it when it is done with.

    Raises `Fatal` for an address that cannot be used.
    """

    def __init__(self, account: Account, settings: Settings) -> None:
        self._account = account
        self._settings = settings
        self._client = open_client(account.base_url, settings)

    def connect(self, revision: int) -> Socket:
        """Log in, and open the stream of what was settled since `revision` (Unix seconds).

        An attempt that odds88 counts is made once; only the log-in is tried again.  Raises what
        `log_in` and `open_socket` do.
        """
        account, settings = self._account, self._settings
        token = log_in(self._client, account.client_id or "", account.password)
        return open_socket(
            PROVIDER,
            feed_url(account.base_url, revision),
            token_headers(token, settings),
            settings,
            meanings=_STREAM_MEANINGS,
        )

    def close(self) -> None:
        """Close what logging in keeps open; a stream is closed by itself."""
        self._client.close()


def _credentials(client_id: str, password: str) -> bytes:
    try:
        if client_id and password:
            return msgspec.json.encode({"clientId": client_id, "password": password})
    except UnicodeEncodeError:
        # Not chained: the error holds the whole text.
        pass
    raise Fatal(
        PROVIDER,
        f"Its client id or password is empty or no text. {KEPT}",
        f"Enter `client_id` in the extra of the Airflow connection `{PROVIDER}`, and its "
        "password, then clear this task.",
    )


_TOKEN = re.compile(rb'\s*("?)([\w-]+\.[\w-]+\.[\w-]+)\1\s*')


def _token_text(body: bytes) -> str | None:
    """The token in an answer, which is documented as a text, in JSON or by itself."""
    found = _TOKEN.fullmatch(body)
    return found[2].decode("ascii") if found else None


class _Claims(msgspec.Struct):
    exp: float


def _claimed_expiry(token: str) -> datetime | None:
    """When the token says that it expires; None if it does not say so in a readable way."""
    claims = token.split(".")[1]
    try:
        written = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return datetime.fromtimestamp(msgspec.json.decode(written, type=_Claims).exp, UTC)
    except (*_UNREADABLE, binascii.Error, ValueError, OverflowError, OSError):
        return None


# Taking the stream apart.


class PageEntry(msgspec.Struct, frozen=True, gc=False):
    """One bet of a message, as far as it can be read without judging it.

    `bet_id` is None if there is none that can be used, `settlement_time` (UTC) if it is absent or
    unreadable; `content_sha256` is the digest of the exact text.
    """

    record: Record
    bet_id: str | None
    settlement_time: datetime | None
    content_sha256: bytes


class BrokenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that is neither a ping nor about a bet: where it lies, and what is wrong with it.

    Its `record_key` is the digest of its bytes.
    """

    record: Record
    content_sha256: bytes
    reason: str


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A message that says only that the connection lives."""

    ping_id: str


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of the stream: its exact bytes, and what they are.

    The record's place is counted from the beginning of the message.  `unknown_fields` names what
    the document does not, by its place (`data.selections[].odds`).
    """

    body: bytes
    content: PageEntry | BrokenMessage | Ping
    unknown_fields: frozenset[str] = frozenset()


class Page(msgspec.Struct, frozen=True):
    """Messages stored together, one a line: `body` as it is kept, and what is in it.

    Places are counted from the beginning of the page.
    """

    body: bytes
    entries: tuple[PageEntry, ...]
    broken: tuple[BrokenMessage, ...]
    pings: int
    unknown_fields: frozenset[str]


def read_message(body: bytes) -> Message:
    """Take one message apart without changing a byte of it; never raises.

    `body[byte_start : byte_start + byte_length]` of the record is the exact text of `data`.
    """
    try:
        return _read_documented_message(body)
    except _UNREADABLE:
        pass
    try:
        return _read_deviating_message(body)
    except _UNREADABLE as error:
        return _broken(body, f"the message cannot be read: {_told(error)}")


def join_messages(messages: Sequence[Message]) -> Page:
    """The messages as one page, each on a line of its own, in the order in which they arrived."""
    placed, position = [], 0
    for message in messages:
        placed.append((position, message))
        position += len(message.body) + 1
    return _page(b"\n".join(message.body for message in messages), placed)


def read_page(body: bytes) -> Page:
    """A page, or a file of messages, one a line; what is no message is told as broken."""
    placed, position = [], 0
    for line in body.split(b"\n"):
        if line.strip():
            placed.append((position, read_message(line)))
        position += len(line) + 1
    return _page(body, placed)


def _page(body: bytes, placed: Iterable[tuple[int, Message]]) -> Page:
    entries: list[PageEntry] = []
    broken: list[BrokenMessage] = []
    pings = 0
    unknown_fields: set[str] = set()
    for position, message in placed:
        unknown_fields |= message.unknown_fields
        match message.content:
            case Ping():
                pings += 1
            case PageEntry(record, bet_id, settlement_time, digest):
                moved = _moved(record, position)
                entries.append(PageEntry(moved, bet_id, settlement_time, digest))
            case BrokenMessage(record, digest, reason):
                broken.append(BrokenMessage(_moved(record, position), digest, reason))
    return Page(body, tuple(entries), tuple(broken), pings, _few(unknown_fields))


def _moved(record: Record, by: int) -> Record:
    return Record(record.record_key, record.byte_start + by, record.byte_length)


class _Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A message as documented (SettlementFeedMessageDto), its bet not yet looked at."""

    data: msgspec.Raw
    ping_id: str | None = None


class _Data(msgspec.Struct, frozen=True):
    data: msgspec.Raw


def _number(kind: type, value: object) -> Number:
    """The hook for the one type that msgspec does not know."""
    if type(value) is Number:
        return value
    if kind is Number and type(value) in (int, Decimal):
        return Number(value)  # type: ignore[arg-type]
    raise ValueError(f"Expected a number, got `{type(value).__name__}`")


class _Numbers(dict[str, Number]):
    """Odds, factors and rates repeat: reading one anew takes ten times as long."""

    def __missing__(self, written: str) -> Number:
        number = Number(written)
        if len(written) <= _USUAL_NUMBER_LENGTH:
            if len(self) >= _USUAL_NUMBERS:
                self.clear()
            self[written] = number
        return number


_read_number = _Numbers().__getitem__


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DATA = msgspec.json.Decoder(_Data)
_BET = msgspec.json.Decoder(Bet, dec_hook=_number, float_hook=_read_number)
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)
# Whatever msgspec raises on bytes that it does not accept.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)


# How a message is taken apart. Two ways with one result: at full speed while every name in it is
# documented, and slowly as soon as one is not. What stands behind names is judged by `read_bet`,
# but for a number that no `Decimal` can hold, which the slow way finds at once.


def _read_documented_message(body: bytes) -> Message:
    text = bytes(_ENVELOPE.decode(body).data)
    bet = _NAMED_BET.decode(text)
    if not _is_storable(bet.bet_id):
        return _read_deviating_message(body)
    digest = sha256(text).digest()
    record = Record(bet.bet_id, _place_of(text, body), len(text))
    return Message(body, PageEntry(record, bet.bet_id, in_utc(bet.settlement_time), digest))


def _read_deviating_message(body: bytes) -> Message:
    envelope = _ANYTHING.decode(body)
    if not isinstance(envelope, dict):
        return _broken(body, "the message is JSON, but not an object")
    ping_id, value = envelope.get("pingId"), envelope.get("data")
    unknown = {name for name in envelope if name not in {"pingId", "data"}}
    if value is None and isinstance(ping_id, str):
        return Message(body, Ping(ping_id), _few(unknown))
    if value is None:
        return _broken(body, "the message has neither a `pingId` that is a text nor `data`")
    if not isinstance(ping_id, str | None):
        unknown.add("pingId")
    _without_unknown(value, Bet, "data", unknown)
    return Message(body, _deviating_entry(body, value), _few(unknown))


def _place_of(text: bytes, body: bytes) -> int:
    """Where it stands; the same text standing elsewhere too would be the same evidence."""
    # Nearly always it is what begins there: looking for the whole of it takes ten times as long.
    place = body.find(text[:64])
    return place if body.startswith(text, place) else body.index(text)


def _deviating_entry(body: bytes, value: object) -> PageEntry:
    text = bytes(_DATA.decode(body).data)
    digest = sha256(text)
    fields = value if isinstance(value, dict) else {}
    bet_id = fields.get("betId")
    if not _is_usable_id(bet_id):
        bet_id = None
    return PageEntry(
        Record(bet_id or f"sha256:{digest.hexdigest()}", _place_of(text, body), len(text)),
        bet_id,
        readable_time(fields.get("settlementTime")),
        digest.digest(),
    )


def _broken(body: bytes, reason: str) -> Message:
    digest = sha256(body)
    record = Record(f"sha256:{digest.hexdigest()}", 0, len(body))
    return Message(body, BrokenMessage(record, digest.digest(), reason))


def _without_unknown(
    value: Any, kind: type[msgspec.Struct] | None, place: str, unknown: set[str]
) -> Any:
    """The value without what the document does not name, whose places are added to `unknown`."""
    if kind is not None and isinstance(value, list):
        # No deeper: the document has no list in a list.
        return [_with_known(one, kind, f"{place}[]", unknown) for one in value]
    return value if kind is None else _with_known(value, kind, place, unknown)


def _with_known(value: Any, kind: type[msgspec.Struct], place: str, unknown: set[str]) -> Any:
    if not isinstance(value, dict):
        return value
    known = _FIELDS[kind]
    unknown |= {f"{place}.{name}" for name in value if name not in known}
    return {
        name: _without_unknown(one, known[name], f"{place}.{name}", unknown)
        for name, one in value.items()
        if name in known
    }


def _object_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The documented object that a field holds, alone or in a list; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, _Documented):
        return annotation
    return next(filter(None, map(_object_in, get_args(annotation))), None)


_FIELDS: dict[type[msgspec.Struct], dict[str, type[msgspec.Struct] | None]] = {
    kind: {one.encode_name: _object_in(one.type) for one in msgspec.structs.fields(kind)}
    for kind in _Documented.__subclasses__()
}


def _named(kind: type[msgspec.Struct], **judged: Any) -> Any:
    """The documented object as far as its names go: any value will do, but for fields `judged`,
    which must be there.  Numbers and times are most of what reading a bet costs.
    """
    fields = [
        (one.name, judged[one.name])
        if one.name in judged
        else (one.name, _with_any_value(one.type), None)
        for one in msgspec.structs.fields(kind)
    ]
    return msgspec.defstruct(
        f"Named{kind.__name__}",
        fields,
        rename="camel",
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _with_any_value(annotation: Any) -> Any:
    found = _object_in(annotation)
    if found is None:
        return Any
    named = _named(found)
    return named | GenericAlias(list, (named,)) | None


_NAMED_BET = msgspec.json.Decoder(_named(Bet, bet_id=Name, settlement_time=AwareTime))


def _few(names: set[str]) -> frozenset[str]:
    return frozenset(sorted(_shown(name).strip("'") for name in names)[:_UNKNOWN_FIELDS_SHOWN])


# What a bet means.


@dataclass(frozen=True)
class Terms:
    """What the document leaves open about one connection; None is not decided yet.

    `payout_unit` is that of `payout` and `partialRefund`, `payout_contains_refund` whether the one
    contains the other; a leg with a `settlementVersion` above `first_version` was settled before.
    """

    payout_unit: Literal["major", "minor"] | None = None
    payout_contains_refund: bool | None = None
    first_version: int = 1


UNDECIDED = Terms()


def terms_of(settings: Settings) -> Terms:
    """What the settings say about the connection."""
    return Terms(
        payout_unit=settings.odds88_payout_unit,
        payout_contains_refund=settings.odds88_payout_contains_partial_refund,
        first_version=settings.odds88_first_settlement_version,
    )


def normalize(record: bytes, context: RecordContext, terms: Terms = UNDECIDED) -> Settlement:
    """A bet's exact text as a settlement; raises `RecordRejected`, never guesses."""
    return settle(read_bet(record), terms)


def read_bet(record: bytes) -> Bet:
    """A bet's exact text, typed; what the document does not name is left out.

    Raises `RecordRejected`, saying where, for what the document does not allow, for what is missing
    and decides, and for texts that cannot be stored.
    """
    bet = _read_bet(record)
    if b"\\" in record:
        # Only an escape writes a null character.
        _check_texts(bet)
    return bet


def _read_bet(record: bytes) -> Bet:
    try:
        return _BET.decode(record)
    except _UNREADABLE:
        pass
    try:
        value = _without_unknown(_ANYTHING.decode(record), Bet, "", set())
    except _UNREADABLE as error:
        raise RecordRejected("undecodable", f"the bet cannot be read: {_told(error)}") from None
    try:
        return msgspec.convert(value, Bet, dec_hook=_number)
    except msgspec.ValidationError as error:
        raise _rejection(error) from None


def settle(bet: Bet, terms: Terms) -> Settlement:
    """A bet as a settlement; raises `RecordRejected`, never guesses."""
    settled_at = _told_at(bet.settlement_time, "settlementTime")
    status, outcome = _status(bet), _OUTCOMES[bet.bet_settlement]
    payout, refund = _returned(bet, status, terms)
    amount = bet.amount
    version = _highest_version(bet)
    selections = bet.selections or ()
    legs = _legs(selections)
    only = legs[0] if len(selections) == 1 else _NO_LEG
    return Settlement(
        source_key=bet.bet_id,
        provider_order=order_of(settled_at, version),
        status=status,
        outcome=outcome,
        settled_at=settled_at,
        settled_at_basis=SettledAtBasis.PROVIDER,
        is_resettlement=_is_resettlement(selections, terms),
        event_id=only.event_id,
        market_id=only.market_id,
        selection_id=only.selection_id,
        currency=amount.currency if amount else None,
        stake=stake_of(amount) if amount else None,
        payout=payout,
        refund=refund,
        payout_multiplier=_exact_or_none(bet.payout_multiplier, "payoutMultiplier"),
        placement_rate=_exact_or_none(
            amount.placement_exchange_rate if amount else None, "amount.placementExchangeRate"
        ),
        settlement_rate=_exact_or_none(
            amount.settlement_exchange_rate if amount else None, "amount.settlementExchangeRate"
        ),
        legs=legs,
    )


def order_of(settled_at: datetime, version: int | None) -> str:
    """A text that sorts, byte by byte, by time, then by the highest version of a leg.

    Without any version it comes before all that have one.
    """
    written = "" if version is None else str(version).zfill(_VERSION_DIGITS)
    return f"t{sortable(settled_at)}|{written}"


def stake_of(amount: Amount) -> Decimal:
    """The stake in major units of its currency, exactly."""
    return Decimal(amount.value).scaleb(-_digits(amount), _EXACT)


_OUTCOMES = {
    Result.NONE: None,
    Result.WIN: Outcome.WON,
    Result.LOSE: Outcome.LOST,
    Result.REFUND: Outcome.REFUNDED,
    Result.HALF_WIN: Outcome.HALF_WON,
    Result.HALF_LOSE: Outcome.HALF_LOST,
    Result.CASH_OUT: Outcome.CASH_OUT,
    Result.PLACE_WIN: Outcome.PLACED,
}
_TYPES = {kind: kind.name.lower() for kind in SelectionType}
_NO_LEG = Leg(leg_number=0)
_NO_EVENT, _NO_MARKET, _NO_EACH_WAY_PRICE = Event(), Market(), EachWayPrice()


def _status(bet: Bet) -> Status:
    if bet.is_rejected:
        return Status.REJECTED
    if bet.is_cancelled:
        return Status.CANCELLED
    if bet.bet_settlement is Result.NONE:
        return Status.OPEN
    return Status.VOID if bet.bet_settlement is Result.REFUND else Status.SETTLED


def _returned(bet: Bet, status: Status, terms: Terms) -> tuple[Decimal | None, Decimal | None]:
    """Everything that was returned to the player, and the part of it that returns stake."""
    if status is Status.OPEN:
        return None, None
    if bet.payout is None:
        if status in (Status.SETTLED, Status.VOID) or bet.partial_refund:
            raise RecordRejected("missing_field", "`payout` is missing")
        return None, None
    if bet.amount is None:
        if bet.payout or bet.partial_refund:
            raise RecordRejected("currency_missing", "something was paid, but `amount` is missing")
        # Nothing of no currency.
        return None, None
    payout = _in_major_units(bet.payout, "payout", bet.amount, terms)
    if bet.partial_refund is None:
        refund = None
    else:
        refund = _in_major_units(bet.partial_refund, "partialRefund", bet.amount, terms)
    if refund and not _contains_refund(terms):
        payout = _EXACT.add(payout, refund)
    # A bet that is refunded as a whole is refunded with all that was returned.
    return payout, payout if bet.bet_settlement is Result.REFUND else refund


def _contains_refund(terms: Terms) -> bool:
    if terms.payout_contains_refund is None:
        raise RecordRejected(
            "partial_refund_undecided",
            "whether `payout` contains `partialRefund` is not decided: set "
            "SETTLEMENTS_ODDS88_PAYOUT_CONTAINS_PARTIAL_REFUND",
        )
    return terms.payout_contains_refund


def _in_major_units(number: Number, name: str, amount: Amount, terms: Terms) -> Decimal:
    exact, digits = _exact(number, name), _digits(amount)
    # Of nothing, and of a currency without smaller units, both readings are the same.
    if terms.payout_unit == "major" or not exact or not digits:
        return exact
    if terms.payout_unit == "minor":
        return exact.scaleb(-digits, _EXACT)
    raise RecordRejected(
        "payout_unit_undecided",
        f"the unit of `{name}` is not decided: set SETTLEMENTS_ODDS88_PAYOUT_UNIT",
    )


def _digits(amount: Amount) -> int:
    if not 0 <= amount.precision <= _DIGITS_BEHIND_POINT:
        raise RecordRejected("number_unusable", f"`amount.precision` is {amount.precision}")
    return amount.precision


def _exact(number: Number, name: str) -> Decimal:
    """The number as it is, if it is of a size that amounts and odds can have."""
    if number.exact is None:
        raise RecordRejected("number_unusable", f"`{name}` is {_shown(str(number))}")
    return number.exact


def _exact_or_none(number: Number | None, name: str) -> Decimal | None:
    return None if number is None else number.exact or _exact(number, name)


def _highest_version(bet: Bet) -> int | None:
    settlements = [selection.settlement for selection in bet.selections or ()]
    return max([told.settlement_version for told in settlements if told], default=None)


def _is_resettlement(selections: Sequence[Selection], terms: Terms) -> bool:
    """Whether the bet says that it was settled before: one of its legs may have been, while those
    beside it kept the bet open, so only a leg that is alone speaks for its bet.
    """
    told = selections[0].settlement if len(selections) == 1 else None
    return told is not None and told.settlement_version > terms.first_version


def _legs(selections: Sequence[Selection]) -> tuple[Leg, ...]:
    """The selections and, behind each, what it is built of."""
    _check_number("selections", selections)
    legs = []
    for number, selection in enumerate(selections, start=1):
        legs.append(_leg(number, selection))
        if items := selection.bet_builder_items:
            _check_number("selections[].betBuilderItems", items)
            legs += [_part(number, part, item) for part, item in enumerate(items, start=1)]
    return tuple(legs)


def _check_number(name: str, several: Sequence[object]) -> None:
    if len(several) > _LEGS_LIMIT:
        raise RecordRejected(
            "too_many_legs", f"`{name}` holds {len(several)}, more than {_LEGS_LIMIT}"
        )


def _leg(number: int, selection: Selection) -> Leg:
    event, market = selection.event or _NO_EVENT, selection.market or _NO_MARKET
    told, each_way = selection.settlement, selection.each_way_price or _NO_EACH_WAY_PRICE
    return Leg(
        leg_number=number,
        type=None if selection.type is None else _TYPES[selection.type],
        event_id=_id(event.id),
        market_id=_id(market.id),
        selection_id=_id(selection.selection_id),
        outcome=_OUTCOMES[told.settlement_result] if told else None,
        price=_exact_or_none(selection.price, "selections[].price"),
        settled_at=_leg_settled_at(told),
        settlement_version=told.settlement_version if told else None,
        selection_version=selection.version,
        competition_id=_id(selection.competition_id),
        country_id=_id(selection.country_id),
        sport_id=_id(selection.sport_id),
        event_name=event.name,
        event_starts_at=_told_at_or_none(event.start_time, "selections[].event.startTime"),
        is_live=event.is_live,
        market_type_id=_id(market.type),
        market_name=market.name,
        market_properties=market.properties,
        parameters=selection.parameters,
        win_price=_exact_or_none(each_way.win, "selections[].eachWayPrice.win"),
        place_price=_exact_or_none(each_way.place, "selections[].eachWayPrice.place"),
        dead_heat_factor=_exact_or_none(selection.dead_heat_factor, "selections[].deadHeatFactor"),
        place_dead_heat_factor=_exact_or_none(
            selection.place_dead_heat_factor, "selections[].placeDeadHeatFactor"
        ),
        manual_price=_exact_or_none(selection.manual_price, "selections[].manualPrice"),
        alternative_price=_exact_or_none(
            selection.alternative_price, "selections[].alternativePrice"
        ),
        limits_rating_id=_id(selection.limits_rating_id),
        limits_factor=_exact_or_none(selection.limits_factor, "selections[].limitsFactor"),
        has_line_deviation=selection.has_line_deviation,
        is_outright=selection.is_outright,
    )


def _part(leg_number: int, part_number: int, item: BuilderItem) -> Leg:
    market, told = item.market or _NO_MARKET, item.settlement
    return Leg(
        leg_number=leg_number,
        part_number=part_number,
        market_id=_id(market.id),
        selection_id=_id(item.selection_id),
        outcome=_OUTCOMES[told.settlement_result] if told else None,
        settled_at=_leg_settled_at(told),
        settlement_version=told.settlement_version if told else None,
        market_type_id=_id(market.type),
        market_name=market.name,
        market_properties=market.properties,
    )


def _leg_settled_at(told: LegSettlement | None) -> datetime | None:
    return _told_at_or_none(told.settlement_time, "settlement.settlementTime") if told else None


def _id(number: int | None) -> str | None:
    return None if number is None else str(number)


def _told_at(moment: datetime, name: str) -> datetime:
    told = in_utc(moment)
    if told is None:
        raise RecordRejected("time_unreadable", f"`{name}` is outside of the calendar")
    return told


def _told_at_or_none(moment: datetime | None, name: str) -> datetime | None:
    return moment if moment is None or moment.tzinfo is UTC else _told_at(moment, name)


def _check_texts(bet: Bet) -> None:
    _check_text(bet.bet_id, "betId")
    if bet.amount:
        _check_text(bet.amount.currency, "amount.currency")
    for selection in bet.selections or ():
        if selection.event:
            _check_text(selection.event.name, "selections[].event.name")
        _check_market(selection.market, "selections[].market")
        _check_all(selection.parameters, "selections[].parameters")
        for item in selection.bet_builder_items or ():
            _check_market(item.market, "selections[].betBuilderItems[].market")


def _check_market(market: Market | None, name: str) -> None:
    if market:
        _check_text(market.name, f"{name}.name")
        _check_all(market.properties, f"{name}.properties")


def _check_all(texts: dict[str, str] | None, name: str) -> None:
    for text in chain.from_iterable((texts or {}).items()):
        _check_text(text, name)


def _check_text(text: str | None, name: str) -> None:
    if text is not None and not _is_storable(text):
        raise RecordRejected("text_unstorable", f"`{name}` holds a null character")


def _rejection(error: msgspec.ValidationError) -> RecordRejected:
    """msgspec says what it expected, what it got and where; it quotes nothing but numbers."""
    told = str(error)
    if told.startswith("Object missing required field"):
        return RecordRejected("missing_field", told)
    if told.startswith("Invalid enum value"):
        return RecordRejected("unknown_value", told)
    if told.startswith(("Invalid RFC3339", "Expected `datetime` with a timezone")):
        return RecordRejected("time_unreadable", told)
    if " of length " in told and told.endswith(("`$.betId`", "`$.amount.currency`")):
        return RecordRejected("id_unusable", told)
    return RecordRejected("wrong_type", told)


def _told(error: Exception) -> str:
    """Where the text stops being JSON, without quoting it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, ArithmeticError):
        return "a number in it is too large"
    return _shown(str(error)).strip("'\"")


def _is_usable_id(value: object) -> bool:
    return (
        isinstance(value, str) and 0 < len(value) <= _NAME_CHARACTERS_LIMIT and _is_storable(value)
    )


def _is_storable(text: str) -> bool:
    """Whether Postgres can store the text; half surrogate pairs are refused before."""
    return "\0" not in text


def _shown(value: str) -> str:
    """A text of the provider's for a message: short, and in characters that can be stored."""
    return f"{value!a:.100}"
