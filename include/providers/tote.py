"""The bets of tote: asked for by GraphQL, which is the truth; its socket only hints at changes.

Endpoint: one query, `tote_bets.graphql`, by POST below the base address, header `Authorization:
Api-Key …` or `Bearer …`.  It names bets by their `toteId`, at most 250 at a time, or lists those
made in a period: newest first, at most 250 a page and 90 days, continued after a cursor.

A record is one node of an answer: a bet as it stood when the answer came.  tote tells neither when
a bet was settled nor in which order it changed, so the order is that of our looking, and a bet that
settles late is found only by asking for it again.

Quirks:
- An answer with status 200 may hold `errors`, and data besides: that is a failure, never an empty
  page.
- RESULTED is not SETTLED: until it is settled or refunded, nothing is paid.
- A bet of the documented example has no `resulting.status` and tells of its returns nothing but the
  total; what else is absent is taken as not told, never as zero.
- The socket's messages carry no currency, time or sequence, as plain JSON or within frames of
  either GraphQL subprotocol.  Whatever else they say, they say which bet to look at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeGuard, get_args

import msgspec

from include.model import Outcome, Record, RecordContext, SettledAtBasis, Settlement, Status
from include.providers.errors import (
    Fatal,
    PageUndecodable,
    RecordRejected,
    Retriable,
    StreamEnded,
)
from include.providers.http import KEPT, WAIT_AND_SEE, Account, Answer, Client
from include.providers.moments import in_utc
from include.providers.streams import Socket, open_socket
from include.settings import Settings

PROVIDER = "tote"
PAGE_LIMIT = 250
PERIOD_LIMIT = timedelta(days=90)
# Ids are parts of index keys, which Postgres limits to about 2700 bytes together.
ID_CHARACTERS_LIMIT = 128
QUERY = (Path(__file__).parent / "tote_bets.graphql").read_text(encoding="utf-8")
SUBPROTOCOLS = ("graphql-transport-ws", "graphql-ws")
"""What the socket can be asked to speak, the one to prefer first; without any it is plain JSON."""

_CREDENTIALS = (
    "What counts is the password of the Airflow connection `tote`, sent as "
    "SETTLEMENTS_TOTE_AUTHORIZATION says: as an `Api-Key` or as a `Bearer` token."
)
_MEANINGS = {
    400: "It may not know a field or an argument of our question: include/providers/"
    "tote_bets.graphql.",
    401: _CREDENTIALS,
    403: _CREDENTIALS,
}
# Codes in `errors`, as servers of this kind spell them.
_AUTHORIZATION_CODES = frozenset(
    {"AUTH_NOT_AUTHENTICATED", "AUTH_NOT_AUTHORIZED", "FORBIDDEN", "UNAUTHENTICATED"}
)
_QUESTION_CODES = frozenset({"BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"})
_CURSOR_CHARACTERS_LIMIT = 1000
_UNKNOWN_FIELDS_SHOWN = 20
# Far above the documented limit; a body of small values must not become millions of objects.
_PAGE_NODES_LIMIT = 10_000
# Digits behind the point of each currency's smallest unit.
_DIGITS = {"EUR": 2, "GBP": 2, "HKD": 2}
# No amount has more digits before the point, and none can have more behind it.
_BOUNDED = Context(prec=50, traps=[Inexact, InvalidOperation])
_FINEST = Decimal(1).scaleb(-30)
# Wide enough for sums of such numbers; what it would have to round is a mistake.
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])


# What tote writes. Sources: the settlement guide, and the words of its API (tote_schema.graphql).


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


class _Documented(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
):
    """An object of the answer with the fields that the query asks for, and no others."""


class Currency(_Documented, frozen=True, gc=False, kw_only=True):
    """The currency of an amount."""

    code: CurrencyCode


class Money(_Documented, frozen=True, gc=False, kw_only=True):
    """An amount, in major units as a number and as a text, and in smallest units; they agree."""

    currency: Currency | None = None
    decimal_amount: Decimal | None = None
    string_amount: str | None = None
    minor_units_total_amount: Int64 | None = None


class Placement(_Documented, frozen=True, gc=False, kw_only=True):
    """Whether a bet was taken, and what was staked."""

    status: PlacementStatus
    stake: Money | None = None


class Returns(_Documented, frozen=True, gc=False, kw_only=True):
    """What a bet returns: all of it, and what that is made of."""

    total_amount: Money | None = None
    return_amount: Money | None = None
    refund_amount: Money | None = None
    enhancement_amount: Money | None = None


class Resulting(_Documented, frozen=True, gc=False, kw_only=True):
    """The result of a bet."""

    status: ResultingStatus | None = None
    returns: Returns | None = None


class Settled(_Documented, frozen=True, gc=False, kw_only=True):
    """How far the payout has come."""

    status: SettlementStatus


class Ticket(_Documented, frozen=True, gc=False, kw_only=True):
    """What a bet was placed with; `id` is the customer's."""

    id: str | None = None
    tote_id: str | None = None


class Bet(_Documented, frozen=True, gc=False, kw_only=True):
    """One bet as it stands; `id` is the customer's, `tote_id` is tote's own."""

    id: str | None = None
    tote_id: Name
    placement: Placement
    resulting: Resulting | None = None
    settlement: Settled | None = None
    ticket: Ticket | None = None


# Asking.


def authorization(key: str, settings: Settings) -> dict[str, str]:
    """The header that says who asks, on HTTP and on the socket's handshake; a secret.

    Without a key it is empty, which no client sends.
    """
    return {"Authorization": f"{settings.tote_authorization} {key}" if key.strip() else ""}


def open_client(base_url: str, key: str, settings: Settings) -> Client:
    """A client for the bets at `base_url`, for one thread; `Fatal` if it cannot be used."""
    client = Client(
        PROVIDER,
        base_url.rstrip("/") + settings.tote_query_path,
        secret_headers=authorization(key, settings),
        settings=settings,
        meanings=_MEANINGS,
    )
    # An answer may repeat the key without the word before it.
    client.hide(key)
    return client


def fetch_bets(client: Client, tote_ids: Sequence[str]) -> Answer:
    """These bets, 1 to 250 of them, as they stand now; one that tote does not know is left out.

    An answer that holds `errors` is asked for again while that may help, then raised: `Fatal` if
    tote refuses the key or the question, else `Retriable`.  Unless the key is refused, its `status`
    is 200: tote did answer.
    """
    if not 0 < len(tote_ids) <= PAGE_LIMIT:
        # None at all would ask for today's bets.
        raise ValueError(f"{len(tote_ids)} bets asked for at once, and not 1 to {PAGE_LIMIT}")
    return _ask(client, {"toteIds": list(tote_ids), "first": PAGE_LIMIT})


def fetch_period(
    client: Client,
    since: datetime,
    until: datetime,
    after: str | None,
    *,
    first: int = PAGE_LIMIT,
) -> Answer:
    """One page of the bets made in a period of at most 90 days, newest first; as `fetch_bets`.

    `after` is the cursor that `next_cursor` gave of the page before, None for the newest bets.
    """
    if not timedelta(0) < until - since <= PERIOD_LIMIT:
        raise ValueError(f"the period from {since} to {until} is none of up to {PERIOD_LIMIT}")
    if not 0 < first <= PAGE_LIMIT:
        raise ValueError(f"{first} bets asked for a page, and not 1 to {PAGE_LIMIT}")
    bounds = {"since": _written(since), "until": _written(until)}
    cursor = {} if after is None else {"after": after}
    return _ask(client, {**bounds, "first": first, **cursor})


def _written(moment: datetime) -> str:
    """The moment in UTC; raises ValueError for one without its offset."""
    if moment.tzinfo is None:
        raise ValueError("a bound of a period needs its offset from UTC")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _ask(client: Client, variables: dict[str, Any]) -> Answer:
    question = {"query": QUERY, "operationName": "GetBets", "variables": variables}
    return client.query("", msgspec.json.encode(question), check=partial(_check_errors, client))


class _Error(msgspec.Struct, frozen=True):
    message: Any = None
    path: Any = None
    locations: Any = None
    extensions: Any = None

    @property
    def code(self) -> str | None:
        """The machine's word for it."""
        code = self.extensions.get("code") if isinstance(self.extensions, dict) else None
        return code if isinstance(code, str) else None


class _Outcome(msgspec.Struct, frozen=True):
    errors: list[_Error] | None = None
    data: Any = None


_OUTCOME = msgspec.json.Decoder(_Outcome)


def _check_errors(client: Client, answer: Answer) -> None:
    """Raise for an answer that holds `errors`; one that cannot be read is left to `read_page`."""
    if b'"errors"' not in answer.body:
        return
    try:
        outcome = _OUTCOME.decode(answer.body)
    except _UNREADABLE:
        return
    if outcome.errors:
        raise _failure(client, answer.url_path, outcome.errors, has_data=outcome.data is not None)


def _failure(
    client: Client, url_path: str, errors: list[_Error], *, has_data: bool
) -> Fatal | Retriable:
    codes = {error.code for error in errors}
    if codes & _AUTHORIZATION_CODES:
        return Fatal(
            PROVIDER,
            f"It did not accept the key, though it answered {url_path} with 200. {KEPT}",
            f"{_CREDENTIALS} Correct what is wrong, then clear this task.",
            fault="key",
        )
    said = client.quote("; ".join(str(error.message) for error in errors[:3]))
    happened = f"It answered {url_path} with {len(errors)} error(s): {said}. {KEPT}"
    # By the specification an error with a place in the question and none in the answer, which
    # then has no data, is about the question.
    is_ours = not has_data and any(error.locations and not error.path for error in errors)
    if codes & _QUESTION_CODES or is_ours:
        return Fatal(
            PROVIDER,
            happened,
            f"Ask {PROVIDER} whether its API has changed, correct "
            "include/providers/tote_bets.graphql accordingly, then clear this task.",
            status=HTTPStatus.OK,
        )
    next_step = WAIT_AND_SEE.format(provider=PROVIDER)
    return Retriable(PROVIDER, happened, next_step, status=HTTPStatus.OK)


# Taking a page apart.


class PageEntry(msgspec.Struct, frozen=True, gc=False):
    """One bet of a page, as far as it can be read without judging it.

    `tote_id` is None if there is none that can be used; `content_sha256` is the digest of the exact
    text.
    """

    record: Record
    tote_id: str | None
    content_sha256: bytes


class Totals(msgspec.Struct, frozen=True):
    """What tote says of all pages together; None is not told.  Money by currency, exact."""

    count: int | None = None
    stakes: dict[str, Decimal] | None = None
    returns: dict[str, Decimal] | None = None
    refunds: dict[str, Decimal] | None = None


class Page(msgspec.Struct, frozen=True):
    """A body taken apart: its bets in page order, and what it says of itself.

    `has_next_page` and `end_cursor` are None where they are not told; `next_cursor` judges them.
    `unknown_fields` names by its place what the query did not ask for, and totals that cannot be
    read.
    """

    entries: tuple[PageEntry, ...]
    has_next_page: bool | None
    end_cursor: str | None
    totals: Totals
    unknown_fields: frozenset[str]


def read_page(body: bytes) -> Page:
    """Take a page apart without changing a byte of it.

    `body[byte_start : byte_start + byte_length]` of each entry's record is the bet's exact text.
    Raises `PageUndecodable`, saying where, for anything but JSON with the whole list
    `data.bets.nodes` and no `errors`.
    """
    envelope = _members(body, "the answer")
    errors = envelope.get("errors")
    if errors is not None and bytes(errors) not in (b"null", b"[]"):
        raise PageUndecodable(f"the answer holds `errors`: {_start_of(bytes(errors))}")
    data = _members(envelope.get("data"), "`data`")
    bets = _members(data.get("bets"), "`data.bets`")
    unknown = {name for name in envelope if name not in {"data", "errors", "extensions"}}
    unknown |= {f"data.{name}" for name in data if name != "bets"}
    unknown |= {f"data.bets.{name}" for name in bets if name not in _CONNECTION_FIELDS}
    entries = tuple(_entries(body, _nodes(bets.get("nodes")), unknown))
    info = _page_info(bets.get("pageInfo"))
    return Page(
        entries,
        info.has_next_page,
        info.end_cursor,
        _totals(bets, unknown),
        frozenset(sorted(_shown(name).strip("'") for name in unknown)[:_UNKNOWN_FIELDS_SHOWN]),
    )


def totals_of(records: Iterable[bytes]) -> Totals | None:
    """What these bets add up to, as tote adds up all pages; None if one of them cannot be judged.

    What it calls stakes is taken for those of every bet, taken or not; returns and refunds for the
    `returnAmount` and `refundAmount` that each tells now, settled or not.
    """
    count = 0
    stakes: dict[str, Decimal] = {}
    returns: dict[str, Decimal] = {}
    refunds: dict[str, Decimal] = {}
    try:
        for record in records:
            bet = read_bet(record)
            told = bet.resulting.returns if bet.resulting else None
            count += 1
            _add(stakes, bet.placement.stake)
            _add(returns, told.return_amount if told else None)
            _add(refunds, told.refund_amount if told else None)
    except (RecordRejected, Inexact, InvalidOperation):
        return None
    return Totals(count, stakes, returns, refunds)


def _add(sums: dict[str, Decimal], money: Money | None) -> None:
    if money is not None:
        currency, amount = _amount(money, "an amount")
        sums[currency] = _EXACT.add(sums.get(currency, Decimal(0)), amount)


def next_cursor(page: Page) -> str | None:
    """Where the next page of a period begins; None if this one was the last.

    Raises `PageUndecodable` if the page does not say so: a list that may go on is not complete.
    """
    if page.has_next_page is None:
        raise PageUndecodable("`data.bets.pageInfo.hasNextPage` is missing")
    if not page.has_next_page:
        return None
    if not page.end_cursor:
        raise PageUndecodable("there is a next page, but no `data.bets.pageInfo.endCursor`")
    if not page.entries:
        raise PageUndecodable("there is a next page, but this one is empty")
    return page.end_cursor


class _PageInfo(msgspec.Struct, frozen=True, rename="camel"):
    has_next_page: bool | None = None
    end_cursor: Annotated[str, msgspec.Meta(max_length=_CURSOR_CHARACTERS_LIMIT)] | None = None


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_PAGE_INFO = msgspec.json.Decoder(_PageInfo | None)
_BET = msgspec.json.Decoder(Bet)
_MONEYS = msgspec.json.Decoder(list[Money] | Money | None)
_COUNT = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None)
_ANYTHING = msgspec.json.Decoder(float_hook=Decimal)
# Whatever msgspec raises on bytes that it does not accept.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError)
_TOTAL_FIELDS = ("totalStakes", "totalReturns", "totalRefunds")
_CONNECTION_FIELDS = frozenset({"pageInfo", "totalCount", "nodes", *_TOTAL_FIELDS})


def _members(value: bytes | msgspec.Raw | None, name: str) -> dict[str, msgspec.Raw]:
    text = _told_text(value, name)
    try:
        return _MEMBERS.decode(text)
    except _UNREADABLE as error:
        raise PageUndecodable(
            f"{name} is no object that can be read: {_told(error)}; it starts with "
            f"{_start_of(text)}"
        ) from None


def _nodes(value: msgspec.Raw | None) -> list[bytes]:
    text = _told_text(value, "`data.bets.nodes`")
    try:
        nodes = [bytes(node) for node in _ELEMENTS.decode(text)]
    except _UNREADABLE as error:
        raise PageUndecodable(f"`data.bets.nodes` is no list: {_told(error)}") from None
    if len(nodes) > _PAGE_NODES_LIMIT:
        raise PageUndecodable(
            f"`data.bets.nodes` holds {len(nodes)} bets, more than {_PAGE_NODES_LIMIT}"
        )
    if b"null" in nodes:
        # Whichever bet that was, it is not told: the answer is a part of one.
        raise PageUndecodable(f"`data.bets.nodes[{nodes.index(b'null')}]` is null")
    return nodes


def _told_text(value: bytes | msgspec.Raw | None, name: str) -> bytes:
    if value is None:
        raise PageUndecodable(f"{name} is missing")
    text = bytes(value)
    if text == b"null":
        raise PageUndecodable(f"{name} is null")
    return text


def _entries(body: bytes, nodes: list[bytes], unknown: set[str]) -> Iterable[PageEntry]:
    end = 0
    for text in nodes:
        # The same text standing elsewhere too would be the same evidence.
        start = body.index(text, end)
        end = start + len(text)
        yield _entry(text, start, unknown)


def _entry(text: bytes, start: int, unknown: set[str]) -> PageEntry:
    digest = sha256(text)
    try:
        tote_id: str | None = _BET.decode(text).tote_id
    except _UNREADABLE:
        tote_id = _deviating_id(text, unknown)
    if not _is_usable_id(tote_id):
        tote_id = None
    key = tote_id or f"sha256:{digest.hexdigest()}"
    return PageEntry(Record(key, start, len(text)), tote_id, digest.digest())


def _deviating_id(text: bytes, unknown: set[str]) -> str | None:
    try:
        value = _ANYTHING.decode(text)
    except _UNREADABLE:
        return None
    _with_known(value, Bet, "data.bets.nodes[]", unknown)
    tote_id = value.get("toteId") if isinstance(value, dict) else None
    return tote_id if isinstance(tote_id, str) else None


def _with_known(value: Any, kind: type[msgspec.Struct] | None, place: str, names: set[str]) -> Any:
    """The value without what the query does not ask for, whose places are added to `names`."""
    if kind is None or not isinstance(value, dict):
        return value
    known = _FIELDS[kind]
    names |= {f"{place}.{name}" for name in value if name not in known}
    return {
        name: _with_known(one, known[name], f"{place}.{name}", names)
        for name, one in value.items()
        if name in known
    }


def _object_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The object that a field holds; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, _Documented):
        return annotation
    return next(filter(None, map(_object_in, get_args(annotation))), None)


_FIELDS: dict[type[msgspec.Struct], dict[str, type[msgspec.Struct] | None]] = {
    kind: {one.encode_name: _object_in(one.type) for one in msgspec.structs.fields(kind)}
    for kind in _Documented.__subclasses__()
}


def _page_info(value: msgspec.Raw | None) -> _PageInfo:
    try:
        return (_PAGE_INFO.decode(value) if value is not None else None) or _PageInfo()
    except _UNREADABLE as error:
        raise PageUndecodable(f"`data.bets.pageInfo` cannot be read: {_told(error)}") from None


def _totals(bets: dict[str, msgspec.Raw], unknown: set[str]) -> Totals:
    count = None
    try:
        count = _COUNT.decode(bets.get("totalCount", b"null"))
    except _UNREADABLE:
        unknown.add("data.bets.totalCount")
    stakes, returns, refunds = (_by_currency(bets, name, unknown) for name in _TOTAL_FIELDS)
    return Totals(count, stakes, returns, refunds)


def _by_currency(
    bets: dict[str, msgspec.Raw], name: str, unknown: set[str]
) -> dict[str, Decimal] | None:
    try:
        told = _MONEYS.decode(bets.get(name, b"null"))
        if told is None:
            return None
        sums: dict[str, Decimal] = {}
        for money in [told] if isinstance(told, Money) else told:
            currency, amount = _amount(money, name)
            sums[currency] = _EXACT.add(sums.get(currency, Decimal(0)), amount)
    except (*_UNREADABLE, RecordRejected):
        unknown.add(f"data.bets.{name}")
        return None
    return sums


# What a bet means.


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
    except _UNREADABLE:
        pass
    try:
        value = _with_known(_ANYTHING.decode(record), Bet, "", set())
    except _UNREADABLE as error:
        raise RecordRejected("undecodable", f"the bet cannot be read: {_told(error)}") from None
    try:
        return msgspec.convert(value, Bet)
    except msgspec.ValidationError as error:
        raise _rejection(error) from None


def settle(bet: Bet, observed_at: datetime, *, is_total_checked: bool) -> Settlement:
    """A bet as it stood at `observed_at`; raises `RecordRejected`, never guesses."""
    if not _is_storable(bet.tote_id):
        raise RecordRejected("text_unstorable", "`toteId` holds a null character")
    status, paid = _status(bet), _paid(bet, is_total_checked=is_total_checked)
    stake = bet.placement.stake
    if stake is None and paid is not None:
        raise RecordRejected("missing_field", "`placement.stake` is missing")
    currency, staked = _amount(stake, "placement.stake") if stake else (None, None)
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
        return None if money is None else _amount(money, "an amount")[1]
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
    currency, total = _amount(told.total_amount, "totalAmount")
    returned = _part(told.return_amount, "returnAmount", currency)
    refund = _part(told.refund_amount, "refundAmount", currency)
    enhancement = _part(told.enhancement_amount, "enhancementAmount", currency)
    parts = (returned, refund, enhancement)
    rest = total
    for part in parts:
        rest = _EXACT.subtract(rest, part or Decimal(0))
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
    own, amount = _amount(money, name)
    if own != currency:
        raise RecordRejected("currency_mismatch", f"`{name}` is in {own}, the total in {currency}")
    return amount


def _amount(money: Money, name: str) -> tuple[str, Decimal]:
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
            "amounts_disagree", _shown(f"`{name}` is {' and '.join(map(str, told))}").strip("'")
        )
    return code, _exact(told[0], name)


_DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


def _number_in(text: str, name: str) -> Decimal:
    if not _DECIMAL.fullmatch(text):
        raise RecordRejected("number_unusable", f"`{name}` is {_shown(text)}")
    return Decimal(text)


def _exact(number: Decimal, name: str) -> Decimal:
    """The number as it is, if it is of a size that amounts can have and not negative."""
    try:
        if number.is_finite() and number >= 0:
            number.quantize(_FINEST, context=_BOUNDED)
            # A zero has no sign, and no exponent that would have to be stored.
            return number if number else Decimal(0)
    except (Inexact, InvalidOperation):
        pass
    raise RecordRejected("number_unusable", f"`{name}` is {_shown(str(number))}")


def _rejection(error: msgspec.ValidationError) -> RecordRejected:
    """msgspec says what it expected, what it got and where; it quotes nothing but enum values."""
    told = _shown(str(error)).strip("'\"")
    if told.startswith("Object missing required field"):
        return RecordRejected("missing_field", told)
    if told.startswith("Invalid enum value"):
        return RecordRejected("unknown_value", told)
    if " of length " in told and "toteId" in told:
        return RecordRejected("id_unusable", told)
    return RecordRejected("wrong_type", told)


# The socket.


class Hint(msgspec.Struct, frozen=True, gc=False):
    """A message about a bet: a reason to look at it, never a fact about it.

    The record is the whole message, named by the bet.  `message_type` is tote's own word, such as
    BetSettled; `return_amount` None if none is told that can be read, else in major units of a
    currency that is not told.
    """

    record: Record
    content_sha256: bytes
    message_type: str
    bet_id: str
    return_amount: Decimal | None


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A message about no bet, such as a frame of the subprotocol; `kind` is its own word for it.

    `subscription` is the type of message that it is about, None if it is about none of ours.
    """

    kind: str
    subscription: str | None = None


class BrokenHint(msgspec.Struct, frozen=True, gc=False):
    """A message that cannot be read; its `record_key` is the digest of its bytes."""

    record: Record
    content_sha256: bytes
    reason: str


def read_hint(body: bytes) -> Hint | Notice | BrokenHint:
    """Take one message of the socket apart, whichever way it is wrapped; never raises.

    Documented is `{"MessageType", "BetId", "ReturnAmount"}`; the subprotocols put the same into the
    `payload` of a frame `next` or `data`, under the name of the subscription.
    """
    try:
        message = _ANYTHING.decode(body)
    except _UNREADABLE as error:
        return _broken_hint(body, f"the message cannot be read: {_told(error)}")
    if not isinstance(message, dict):
        return _broken_hint(body, "the message is JSON, but not an object")
    kind = message.get("type")
    if isinstance(kind, str):
        return _hint_in_frame(body, kind, message)
    word = message.get("MessageType")
    return _hint(body, word, message)


def _hint_in_frame(
    body: bytes, kind: str, message: dict[str, object]
) -> Hint | Notice | BrokenHint:
    if kind not in ("next", "data"):
        name = message.get("id")
        subscription = name if isinstance(name, str) and name in SUBSCRIPTIONS else None
        return Notice(kind[:ID_CHARACTERS_LIMIT], subscription)
    payload = message.get("payload")
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, dict) or len(data) != 1:
        return _broken_hint(body, f"the frame `{kind}` holds no message of one subscription")
    [(name, told)] = data.items()
    return _hint(body, name.removeprefix("on"), told)


def _hint(body: bytes, word: object, message: object) -> Hint | Notice | BrokenHint:
    if not isinstance(word, str) or not isinstance(message, dict):
        return _broken_hint(body, "the message does not say of which type it is")
    # In a frame the fields are spelled as GraphQL does: `betId` for `BetId`.
    fields = {name[:1].upper() + name[1:]: value for name, value in message.items()}
    if not word.startswith("Bet"):
        return Notice(word[:ID_CHARACTERS_LIMIT])
    bet_id = fields.get("BetId")
    if not _is_usable_id(bet_id) or not _is_storable(word):
        return _broken_hint(body, "the message names no bet")
    return Hint(
        Record(bet_id, 0, len(body)),
        sha256(body).digest(),
        word[:ID_CHARACTERS_LIMIT],
        bet_id,
        _amount_in(fields.get("ReturnAmount")),
    )


def _amount_in(value: object) -> Decimal | None:
    if type(value) not in (int, Decimal):
        return None
    try:
        return _exact(Decimal(value), "ReturnAmount")  # type: ignore[arg-type]
    except RecordRejected:
        return None


def _broken_hint(body: bytes, reason: str) -> BrokenHint:
    digest = sha256(body)
    record = Record(f"sha256:{digest.hexdigest()}", 0, len(body))
    return BrokenHint(record, digest.digest(), reason)


class HintFeed:
    """The socket as one account hears it, for one thread."""

    def __init__(self, account: Account, settings: Settings) -> None:
        self._account = account
        self._settings = settings

    def connect(self) -> Socket:
        """Open the socket, and ask for every type of message if it speaks a subprotocol.

        Raises what `open_socket` does, `Fatal` if the key is refused behind the handshake, and
        `Retriable` if nothing is acknowledged within `call_deadline_seconds`.
        """
        account, settings = self._account, self._settings
        headers = authorization(account.password, settings)
        opened = open_socket(
            PROVIDER,
            socket_url(account.base_url, settings),
            headers,
            settings,
            meanings=_MEANINGS,
            subprotocols=settings.tote_subprotocols,
        )
        try:
            if opened.subprotocol is not None:
                opened.send(opening_frame(headers))
                _await_acknowledgement(opened, settings.call_deadline_seconds)
                for frame in subscription_frames(opened.subprotocol):
                    opened.send(frame)
        except BaseException:
            opened.close()
            raise
        return opened


def _await_acknowledgement(opened: Socket, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    try:
        while (left := ends_at - time.monotonic()) > 0:
            body = opened.receive(left)
            notice = read_hint(body) if body else None
            if not isinstance(notice, Notice):
                continue
            if notice.kind == "connection_ack":
                return
            if notice.kind == "connection_error":
                raise _unacknowledged()
            if notice.kind == "ping":
                opened.send(PONG_FRAME)
    except StreamEnded as ended:
        raise (_unacknowledged() if ended.code in _UNAUTHORIZED_CODES else ended) from None
    raise Retriable(
        PROVIDER,
        f"Its socket was opened, but did not acknowledge it within {seconds:g} s. {KEPT}",
        WAIT_AND_SEE.format(provider=PROVIDER),
    )


def _unacknowledged() -> Fatal:
    return Fatal(
        PROVIDER,
        f"It let us connect to its socket, but did not accept the key there. {KEPT}",
        f"{_CREDENTIALS} Correct what is wrong, then clear this task.",
    )


# How a server of either subprotocol closes: Unauthorized, Forbidden.
_UNAUTHORIZED_CODES = (4401, 4403)


def socket_url(base_url: str, settings: Settings) -> str:
    """Where the socket is."""
    scheme, _, place = base_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{place}{settings.tote_socket_path}"


def opening_frame(headers: dict[str, str]) -> bytes:
    """What a client of either subprotocol says first; as secret as the `authorization` in it."""
    payload = {name.lower(): value for name, value in headers.items()}
    return msgspec.json.encode({"type": "connection_init", "payload": payload})


def subscription_frames(subprotocol: str) -> tuple[bytes, ...]:
    """What it says once it was answered `connection_ack`: one subscription a type of message."""
    kind = "subscribe" if subprotocol == "graphql-transport-ws" else "start"
    return tuple(
        msgspec.json.encode({"id": name, "type": kind, "payload": {"query": query}})
        for name, query in SUBSCRIPTIONS.items()
    )


PONG_FRAME = b'{"type":"pong"}'
"""The answer that graphql-transport-ws wants to a `Notice` of the kind "ping"."""

SUBSCRIPTIONS = {
    word: f"subscription {{ on{word} {{ {fields} }} }}"
    for word, fields in {
        "BetAccepted": "betId",
        "BetRejected": "betId",
        "BetFailed": "betId",
        "BetCancelled": "betId",
        "BetResulted": "betId returnAmount",
        "BetSettled": "betId returnAmount",
    }.items()
}
"""The question of each subscription, by the type of message that it asks for."""


# What messages show.


def _told(error: Exception) -> str:
    """Where the text stops being what it should be, without quoting it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, ArithmeticError):
        return "a number in it is too large"
    return _shown(str(error)).strip("'\"")


def _start_of(text: bytes) -> str:
    return _shown(text[:80].decode("utf-8", "replace"))


def _is_usable_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= ID_CHARACTERS_LIMIT and _is_storable(value)


def _is_storable(text: str) -> bool:
    """Whether Postgres can store the text; half surrogate pairs are refused before."""
    return "\0" not in text


def _shown(value: str) -> str:
    """A text of the provider's for a message: short, and in characters that can be stored."""
    return f"{value!a:.100}"
