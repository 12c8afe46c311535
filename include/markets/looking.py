"""Looking: how far the engine has come with a market, and what is to be done about it next."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, text

from include.markets.evidence import keep_answer
from include.markets.troubles import each_market
from include.providers.errors import Fatal, PageUndecodable
from include.providers.http import Answer, Client
from include.providers.prediction import (
    MarketStatus,
    fetch_settlements,
    fetch_status,
    read_page,
    read_settle_answer,
    read_status,
)
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.markets import ENDED, SOURCE, State, move

_log = logging.getLogger(__name__)

_NOT_FOUND = 404


@dataclass(frozen=True)
class Looked:
    """What a round of looks saw, in markets: `under_way` are looked at again later."""

    looked_at: int
    under_way: int


def wait_for_status(
    engine: Engine,
    client: Client,
    settings: Settings,
    market_ids: Sequence[str],
    run_id: str | None,
) -> Looked:
    """Look once at those of the markets that are under way, or at their end for a while.

    None is waited for here: one that is still under way is looked at again by whoever calls next.
    """
    states: list[State] = []

    def look(market: Row[Any]) -> bool:
        status, answer = read_market_status(engine, client, market.market_id, run_id)
        with transaction(engine, "loader") as connection:
            lock_source(connection, SOURCE)
            has_progressed = has_come_further(connection, market, status)
            keep_status(connection, market.market_id, answer, run_id)
            state = _next_state(market, status, settings, has_progressed=has_progressed)
            seconds = settings.prediction_look_seconds if state == "waiting" else 0
            told = seen(market, status, has_progressed=has_progressed)
            if move(connection, market, state, **told, **_later(seconds)):
                states.append(state)
        return True

    each_market(engine, settings, market_ids, ("waiting", *ENDED), look)
    return Looked(len(states), states.count("waiting"))


def has_begun(engine: Engine, client: Client, market_id: str, run_id: str | None) -> bool:
    """Whether the engine has begun to settle the market; what it answers is kept.

    An engine may tell of a market that nobody has settled that there is nothing, that all of it is
    pending, or that it does not know it: then its list of settlements decides.
    """
    try:
        answer = fetch_status(client, market_id)
    except Fatal as error:
        if error.status != _NOT_FOUND:
            raise
    else:
        _keep(engine, status_key(market_id), answer, run_id)
        if _tells_of_a_settlement(answer):
            return True
    listed = fetch_settlements(client, market_id=market_id)
    _keep(engine, f"list/{market_id}", listed, run_id)
    return bool(read_page(listed.body).entries)


def _tells_of_a_settlement(answer: Answer) -> bool:
    try:
        status = read_status(answer.body)
    except PageUndecodable:
        told = read_settle_answer(answer.body)
        if told.is_success is not False or told.code is None:
            raise
        return False
    return bool(status.processing_count or status.completed_count or status.failed_count)


def read_market_status(
    engine: Engine, client: Client, market_id: str, run_id: str | None
) -> tuple[MarketStatus, Answer]:
    """The market's status, and the answer that it was read from; one that cannot be is kept."""
    answer = fetch_status(client, market_id)
    try:
        return read_status(answer.body), answer
    except PageUndecodable:
        _keep(engine, status_key(market_id), answer, run_id)
        raise


def _keep(engine: Engine, key: str, answer: Answer, run_id: str | None) -> None:
    with transaction(engine, "loader") as connection:
        lock_source(connection, SOURCE)
        keep_answer(connection, key, "GET", answer, run_id)


def keep_status(connection: Connection, market_id: str, answer: Answer, run_id: str | None) -> None:
    """Keep what the engine says of how far the market has come."""
    keep_answer(connection, status_key(market_id), "GET", answer, run_id)


def status_key(market_id: str) -> str:
    """The key under which a market's status is kept."""
    return f"status/{market_id}"


def is_stuck(market: Row[Any], settings: Settings) -> bool:
    """Whether nothing has changed about the market for too long, in which it could be read."""
    return _unchanged(market) >= timedelta(seconds=settings.prediction_stuck_seconds)


def _unchanged(market: Row[Any]) -> timedelta:
    """For how long nothing has changed; the time in which it cannot be read does not count."""
    since: datetime = market.progressed_at or market.state_since
    until: datetime = market.troubled_since or datetime.now(UTC)
    return max(until - since, timedelta(0))


def is_under_way(status: MarketStatus, market: Row[Any]) -> bool:
    """Whether positions are on their way: all that were settled, if the status knows none yet, and
    as long as nobody has told how many these are.
    """
    if not status.total_positions:
        return market.positions is None or market.positions > 0
    return status.pending_count + status.processing_count > 0


def has_come_further(connection: Connection, market: Row[Any], status: MarketStatus) -> bool:
    """Whether more positions have come to an end than the status has ever told since the last
    order: counts that go back and forth are no progress.
    """
    ended = status.completed_count + status.failed_count
    if market.completed_positions is None:
        return True
    if ended <= market.completed_positions + market.failed_positions:
        return False
    this = {"key": status_key(market.market_id), "market_id": market.market_id}
    return all(ended > one for one in _told_since(connection.execute(_KEPT_SINCE, this)))


_KEPT_SINCE = text("""
SELECT payload
FROM raw.record_payload AS kept
CROSS JOIN (
    SELECT max(record_id) AS record_id, max(committed_at) AS committed_at
    FROM prediction.attempt
    WHERE attempt.market_id = :market_id
) AS ordered
WHERE source = 'prediction' AND record_key = :key
    AND kept.record_id > coalesce(ordered.record_id, 0)
    AND kept.received_at > coalesce(ordered.committed_at, '-infinity')
""")


def _told_since(kept: Iterable[Row[Any]]) -> Iterator[int]:
    """How many positions each of these had come to an end with."""
    for row in kept:
        with suppress(PageUndecodable):
            status = read_status(bytes(row.payload))
            yield status.completed_count + status.failed_count


def _next_state(
    market: Row[Any], status: MarketStatus, settings: Settings, *, has_progressed: bool
) -> State:
    if is_under_way(status, market):
        # What is stuck is listed as it stands: the others' payouts need not wait for it.
        is_over = is_stuck(market, settings) and not has_progressed
        return "fetching" if is_over else "waiting"
    is_first_failure = status.failed_count > 0 and market.retry_attempts == 0
    if is_first_failure and settings.prediction_retry_attempts > 0:
        return "retrying"
    return "fetching"


def seen(market: Row[Any], status: MarketStatus, *, has_progressed: bool) -> dict[str, Any]:
    """What the status told, as the market's columns."""
    return {
        **_told(status),
        "positions": status.total_positions or market.positions,
        "total_payout": status.total_payout,
        "completed_payout": status.completed_payout,
        "status_at": func.now(),
        "progressed_at": _progressed_at(market, has_progressed=has_progressed),
        "trouble": None,
        "troubled_since": None,
    }


def _progressed_at(market: Row[Any], *, has_progressed: bool) -> Any:
    if has_progressed:
        return func.now()
    if market.troubled_since is None:
        return market.progressed_at
    return func.now() - _unchanged(market)


def _told(status: MarketStatus) -> dict[str, int]:
    return {
        "pending_positions": status.pending_count,
        "processing_positions": status.processing_count,
        "completed_positions": status.completed_count,
        "failed_positions": status.failed_count,
    }


def _later(seconds: float) -> dict[str, Any]:
    return {"next_look_at": func.clock_timestamp() + timedelta(seconds=seconds)}
