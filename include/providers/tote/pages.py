"""Taking an answer of tote's apart: its bets, its totals, and where the next page begins."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, Inexact, InvalidOperation
from hashlib import sha256
from typing import Annotated

import msgspec

from include.model import Record
from include.providers.documented import UNREADABLE, fault_in, few, without_unknown
from include.providers.errors import PageUndecodable, RecordRejected
from include.providers.texts import start_of
from include.providers.tote.amounts import EXACT, amount_of
from include.providers.tote.bets import read_bet
from include.providers.tote.documents import Bet, Money, is_usable_id

_CURSOR_CHARACTERS_LIMIT = 1000
# Far above the documented limit; a body of small values must not become millions of objects.
_PAGE_NODES_LIMIT = 10_000


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
        raise PageUndecodable(f"the answer holds `errors`: {start_of(bytes(errors))}")
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
        few(unknown),
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
        currency, amount = amount_of(money, "an amount")
        sums[currency] = EXACT.add(sums.get(currency, Decimal(0)), amount)


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
_TOTAL_FIELDS = ("totalStakes", "totalReturns", "totalRefunds")
_CONNECTION_FIELDS = frozenset({"pageInfo", "totalCount", "nodes", *_TOTAL_FIELDS})


def _members(value: bytes | msgspec.Raw | None, name: str) -> dict[str, msgspec.Raw]:
    text = _told_text(value, name)
    try:
        return _MEMBERS.decode(text)
    except UNREADABLE as error:
        raise PageUndecodable(
            f"{name} is no object that can be read: {fault_in(error)}; it starts with "
            f"{start_of(text)}"
        ) from None


def _nodes(value: msgspec.Raw | None) -> list[bytes]:
    text = _told_text(value, "`data.bets.nodes`")
    try:
        nodes = [bytes(node) for node in _ELEMENTS.decode(text)]
    except UNREADABLE as error:
        raise PageUndecodable(f"`data.bets.nodes` is no list: {fault_in(error)}") from None
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
    except UNREADABLE:
        tote_id = _deviating_id(text, unknown)
    if not is_usable_id(tote_id):
        tote_id = None
    key = tote_id or f"sha256:{digest.hexdigest()}"
    return PageEntry(Record(key, start, len(text)), tote_id, digest.digest())


def _deviating_id(text: bytes, unknown: set[str]) -> str | None:
    try:
        value = _ANYTHING.decode(text)
    except UNREADABLE:
        return None
    without_unknown(value, Bet, "data.bets.nodes[]", unknown)
    tote_id = value.get("toteId") if isinstance(value, dict) else None
    return tote_id if isinstance(tote_id, str) else None


def _page_info(value: msgspec.Raw | None) -> _PageInfo:
    try:
        return (_PAGE_INFO.decode(value) if value is not None else None) or _PageInfo()
    except UNREADABLE as error:
        raise PageUndecodable(f"`data.bets.pageInfo` cannot be read: {fault_in(error)}") from None


def _totals(bets: dict[str, msgspec.Raw], unknown: set[str]) -> Totals:
    count = None
    try:
        count = _COUNT.decode(bets.get("totalCount", b"null"))
    except UNREADABLE:
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
            currency, amount = amount_of(money, name)
            sums[currency] = EXACT.add(sums.get(currency, Decimal(0)), amount)
    except (*UNREADABLE, RecordRejected):
        unknown.add(f"data.bets.{name}")
        return None
    return sums
