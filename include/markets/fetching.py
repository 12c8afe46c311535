"""Fetching: a market's complete list of payouts, landed as one batch with what is wrong with it.

The status is read before the list and after it: only if both are the same do they belong together.
A list that does not add up lands in a batch that is held from its first moment, so that nothing can
publish it before a person has decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, Row, func, text

from include.markets.checking import Answered, Difference, Listing, differences
from include.markets.ending import end
from include.markets.evidence import arrived
from include.markets.holding import hold_back
from include.markets.looking import (
    has_come_further,
    is_stuck,
    is_under_way,
    keep_status,
    read_market_status,
    seen,
    wait_for_status,
)
from include.markets.queue import is_currency
from include.markets.troubles import each_market
from include.providers.errors import PageUndecodable, RecordRejected
from include.providers.http import Answer, Client
from include.providers.prediction import (
    MarketStatus,
    Page,
    PageEntry,
    SettlementRecord,
    fetch_listing,
    read_page,
    read_settle_answer,
    read_settlement,
    settlements_answered,
)
from include.settings import Settings
from include.warehouse import batches
from include.warehouse.database import array_literal, lock_source, transaction
from include.warehouse.landing import land_whole
from include.warehouse.markets import SOURCE, move
from include.warehouse.pages import ArrivedPage

FEED = "settlements"

_SHOWN = 3


@dataclass
class Fetched:
    """What was fetched, in markets: lists that landed, those that were known, and those whose
    market moved while they were read; `settlements` counts what was listed.
    """

    landed: int = 0
    known: int = 0
    moving: int = 0
    settlements: int = 0


class _Snapshot(NamedTuple):
    """What the engine tells of a market at one moment; `broken` is a page that ends the list."""

    status: MarketStatus
    answers: list[Answer]
    pages: list[Page]
    broken: tuple[str, Answer] | None

    @property
    def entries(self) -> list[PageEntry]:
        return [entry for page in self.pages for entry in page.entries]

    @property
    def digest(self) -> bytes:
        """Of all that it says."""
        told = sha256(msgspec.json.encode(self.status, enc_hook=str))
        for one in sorted(entry.content_sha256 for entry in self.entries):
            told.update(one)
        if self.broken is not None:
            told.update(self.broken[1].body)
        return told.digest()


@dataclass(frozen=True)
class _Verdict:
    """What does not add up; `is_holding` if nothing of it may be published."""

    found: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_holding(self) -> bool:
        return any(one["is_holding"] for one in self.found)


def fetch_payouts(
    engine: Engine,
    client: Client,
    settings: Settings,
    market_ids: Sequence[str],
    run_id: str | None,
) -> Fetched:
    """List the payouts of those of the markets that have come to an end, and land what is new.

    What was under way, such as a retry, is looked at first.  Raises `Fatal` if the engine refuses
    our key.
    """
    fetched = Fetched()
    wait_for_status(engine, client, settings, market_ids, run_id)

    def fetch(market: Row[Any]) -> bool:
        _fetch(engine, client, settings, market, run_id, fetched)
        return True

    each_market(engine, settings, market_ids, ("fetching",), fetch)
    return fetched


def _fetch(
    engine: Engine,
    client: Client,
    settings: Settings,
    market: Row[Any],
    run_id: str | None,
    fetched: Fetched,
) -> None:
    this = market.market_id
    before, answer_before = read_market_status(engine, client, this, run_id)
    answers, pages, broken = _read_list(client, this, settings)
    status, answer = read_market_status(engine, client, this, run_id)
    snapshot = _Snapshot(status, answers, pages, broken)
    fetched.settlements += len(snapshot.entries)
    with transaction(engine, "loader") as connection:
        lock_source(connection, SOURCE)
        has_progressed = has_come_further(connection, market, status)
        keep_status(connection, this, answer_before, run_id)
        keep_status(connection, this, answer, run_id)
        is_moving = before != status or is_under_way(status, market)
        # What has not come to rest in an hour is listed as it is, and checked.
        if is_moving and not is_stuck(market, settings):
            wait = timedelta(seconds=settings.prediction_look_seconds)
            move(connection, market, "waiting", next_look_at=func.clock_timestamp() + wait)
            fetched.moving += 1
        elif snapshot.digest == market.listing_sha256:
            end(connection, market, settings, is_news=False)
            fetched.known += 1
        else:
            told = seen(market, status, has_progressed=has_progressed)
            _land(connection, settings, market, snapshot, told, run_id)
            fetched.landed += 1


def _read_list(
    client: Client, market_id: str, settings: Settings
) -> tuple[list[Answer], list[Page], tuple[str, Answer] | None]:
    """The pages of the whole list as they came and as they are read, up to one that cannot be."""
    answers: list[Answer] = []
    limit = settings.prediction_listing_pages_limit
    try:
        answers.extend(fetch_listing(client, market_id=market_id, pages_limit=limit))
    except PageUndecodable as undecodable:
        last = answers.pop()
        return answers, [read_page(one.body) for one in answers], (undecodable.reason, last)
    return answers, [read_page(one.body) for one in answers], None


def _land(
    connection: Connection,
    settings: Settings,
    market: Row[Any],
    snapshot: _Snapshot,
    told: dict[str, Any],
    run_id: str | None,
) -> None:
    """Land the list, with what is wrong with it, and have it checked."""
    currency = market.currency or settings.prediction_default_currency
    verdict = _judge(connection, settings, market, snapshot, currency)
    moved = move(
        connection,
        market,
        "fetched",
        currency=currency,
        listing_sha256=snapshot.digest,
        differences=verdict.found,
        next_look_at=None,
        **told,
    )
    if moved is None:
        return
    broken = {} if snapshot.broken is None else {snapshot.broken[0]: arrived(snapshot.broken[1])}
    pages = list(map(_arrived, snapshot.answers, snapshot.pages))
    batch = land_whole(connection, SOURCE, FEED, "kept", run_id, pages, broken=broken)
    if verdict.is_holding and batch.state == "landed":
        batches.move(
            connection,
            batch.batch_id,
            state="held",
            held_at=func.now(),
            held_from=batch.state,
            held_reason=f"market {market.market_id} does not add up",
        )
    move(connection, moved, batch_id=batch.batch_id)
    if verdict.is_holding:
        hold_back(connection, market.market_id)


def _arrived(answer: Answer, page: Page) -> ArrivedPage:
    records = [(entry.record, entry.content_sha256) for entry in page.entries]
    return arrived(answer, records, unknown_fields=page.unknown_fields)


# --- does it add up -----------------------------------------------------------------------------


def _judge(
    connection: Connection,
    settings: Settings,
    market: Row[Any],
    snapshot: _Snapshot,
    currency: str | None,
) -> _Verdict:
    """What does not add up in the list, compared with all that was told and published before."""
    found: list[dict[str, Any]] = []
    if currency is None:
        found.append(
            _difference(
                "currency",
                "Its currency is not known: it was entered without one, and "
                "SETTLEMENTS_PREDICTION_DEFAULT_CURRENCY is not set.",
            )
        )
    elif not is_currency(currency):
        found.append(
            _difference(
                "currency",
                f"Its currency was entered as {currency}, which is not how currencies are written "
                "(USD, mBTC). Have it corrected in prediction.market.",
            )
        )
    if snapshot.broken is not None:
        reason = snapshot.broken[0]
        found.append(_difference("readable", f"A page of its list cannot be decoded: {reason}."))
        return _Verdict(found)
    settlements, unreadable = _read_all(snapshot)
    if unreadable:
        more = f"; and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
        told = "; ".join(unreadable[:_SHOWN])
        found.append(
            _difference("readable", f"{len(unreadable)} settlements cannot be read: {told}{more}.")
        )
    answers, is_answered_whole = _answered(connection, market.market_id)
    listing = Listing(
        market_id=market.market_id,
        operator_id=settings.prediction_operator_id,
        status=snapshot.status,
        settlements=settlements,
        answers=answers,
        earlier=_published(connection, market.market_id, [one.id for one in settlements]),
        is_answered_whole=is_answered_whole,
    )
    return _Verdict(found + [_told(one) for one in differences(listing)])


def _difference(check: str, sentence: str) -> dict[str, Any]:
    return {"check": check, "sentence": sentence, "is_holding": True}


def _told(difference: Difference) -> dict[str, Any]:
    return asdict(difference)


def _read_all(snapshot: _Snapshot) -> tuple[list[SettlementRecord], list[str]]:
    """The settlements of the list, and why those that cannot be read cannot."""
    settlements: list[SettlementRecord] = []
    unreadable: list[str] = []
    for answer, page in zip(snapshot.answers, snapshot.pages, strict=True):
        body = memoryview(answer.body)
        for entry in page.entries:
            try:
                settlements.append(read_settlement(_cut(body, entry.record)))
            except RecordRejected as rejected:
                unreadable.append(rejected.reason)
    return settlements, unreadable


def _cut(body: memoryview, record: Any) -> bytes:
    return bytes(body[record.byte_start : record.byte_start + record.byte_length])


def _answered(connection: Connection, market_id: str) -> tuple[list[Answered], bool]:
    """What the answers to our orders told of the market, and whether it is the answer to the only
    order that can have been carried out.
    """
    orders = connection.execute(
        text(
            "SELECT call, result, payload FROM prediction.attempt"
            " LEFT JOIN raw.record_payload USING (record_id) WHERE market_id = :market_id"
            " AND coalesce(result, 'in_doubt') NOT IN ('not_executed', 'rejected')"
            " ORDER BY attempt_id"
        ),
        {"market_id": market_id},
    ).all()
    answers = [
        one
        for row in orders
        if row.result == "executed" and row.payload is not None
        if (one := _read_answer(row.call, bytes(row.payload))) is not None
    ]
    return answers, len(orders) == len(answers) == 1


def _read_answer(call: str, body: bytes) -> Answered | None:
    said = read_settle_answer(body, with_entries=False)
    if said.totals is None:
        return None
    settlements: list[SettlementRecord] = []
    for settlement in settlements_answered(body):
        try:
            settlements.append(read_settlement(settlement))
        except RecordRejected:
            # The list is what counts; it has the same settlement, and is read in full.
            continue
    return Answered(call, said.totals, settlements)


# Each record is looked up by itself, so that the cost does not grow with the others.
_PUBLISHED = text("""
SELECT record.page_id, record.byte_start, record.byte_length
FROM (
    SELECT record_id FROM core.settlement
    WHERE source = 'prediction' AND is_current AND market_id = :market_id
    UNION
    SELECT record_id FROM core.settlement
    WHERE source = 'prediction' AND is_current
        AND source_key = ANY (CAST(:settlement_ids AS text[]))
) AS published
CROSS JOIN LATERAL (
    SELECT * FROM raw.record WHERE record.record_id = published.record_id LIMIT 1
) AS record
""")

_PAGE = text("SELECT page_id, body FROM raw.page WHERE page_id = ANY (:page_ids)")


def _published(
    connection: Connection, market_id: str, settlement_ids: Iterable[str]
) -> list[SettlementRecord]:
    """What is published, and current, of this market and of these settlements."""
    this = {"market_id": market_id, "settlement_ids": array_literal(set(settlement_ids))}
    slices = connection.execute(_PUBLISHED, this).all()
    pages = connection.execute(_PAGE, {"page_ids": sorted({row.page_id for row in slices})})
    bodies = {row.page_id: memoryview(row.body) for row in pages}
    return [
        read_settlement(bytes(bodies[row.page_id][row.byte_start :][: row.byte_length]))
        for row in slices
        if row.page_id in bodies
    ]
