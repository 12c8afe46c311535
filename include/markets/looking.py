"""Looking: how far the engine has come with a market, and what is to be done about it next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, func

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


class Began(NamedTuple):
    """Whether the engine has begun to settle a market, with the answers that say so."""

    is_settled: bool
    answers: dict[str, Answer]


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
        status, answer = read_market_status(client, market.market_id)
        with transaction(engine, "loader") as connection:
            lock_source(connection, SOURCE)
            keep_status(connection, market, answer, run_id)
            state = _next_state(market, status, settings)
            seconds = settings.prediction_look_seconds if state == "waiting" else 0
            if move(connection, market, state, **seen(market, status), **_later(seconds)):
                states.append(state)
        return True

    each_market(engine, settings, market_ids, ("waiting", *ENDED), look)
    return Looked(len(states), states.count("waiting"))


def has_begun(client: Client, market: Row[Any]) -> Began:
    """Whether the engine has begun to settle the market.

    An engine may tell of a market that nobody has settled that there is nothing, that all of it is
    pending, or that it does not know it: then its list of settlements decides.
    """
    market_id = market.market_id
    answers: dict[str, Answer] = {}
    try:
        answers[status_key(market_id)] = fetch_status(client, market_id)
        status = read_status(answers[status_key(market_id)].body)
        if status.processing_count or status.completed_count or status.failed_count:
            return Began(True, answers)
    except Fatal as error:
        if error.status != _NOT_FOUND:
            raise
    except PageUndecodable:
        told = read_settle_answer(answers[status_key(market_id)].body)
        if told.is_success is not False or told.code is None:
            raise
    listed = fetch_settlements(client, market_id=market_id)
    answers[f"list/{market_id}"] = listed
    return Began(bool(read_page(listed.body).entries), answers)


def read_market_status(client: Client, market_id: str) -> tuple[MarketStatus, Answer]:
    """The market's status, and the answer that it was read from."""
    answer = fetch_status(client, market_id)
    return read_status(answer.body), answer


def keep_status(
    connection: Connection, market: Row[Any], answer: Answer, run_id: str | None
) -> None:
    """Keep what the engine says of how far the market has come."""
    keep_answer(connection, status_key(market.market_id), "GET", answer, run_id)


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


def under_way(status: MarketStatus, market: Row[Any]) -> int:
    """How many positions are on their way; all that were settled, if the status knows none yet."""
    if not status.total_positions:
        return market.positions or 0
    return status.pending_count + status.processing_count


def _next_state(market: Row[Any], status: MarketStatus, settings: Settings) -> State:
    has_changed = _counts(market) != _told(status)
    if under_way(status, market):
        # What is stuck is listed as it stands: the others' payouts need not wait for it.
        is_over = is_stuck(market, settings) and not has_changed
        return "fetching" if is_over else "waiting"
    is_first_failure = status.failed_count > 0 and market.retry_attempts == 0
    if is_first_failure and settings.prediction_retry_attempts > 0:
        return "retrying"
    return "fetching"


def seen(market: Row[Any], status: MarketStatus) -> dict[str, Any]:
    """What the status told, as the market's columns."""
    told = _told(status)
    return {
        **told,
        "positions": status.total_positions or market.positions or 0,
        "total_payout": status.total_payout,
        "completed_payout": status.completed_payout,
        "status_at": func.now(),
        "progressed_at": _progressed_at(market, has_changed=told != _counts(market)),
        "trouble": None,
        "troubled_since": None,
    }


def _progressed_at(market: Row[Any], *, has_changed: bool) -> Any:
    if has_changed:
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


def _counts(market: Row[Any]) -> dict[str, int | None]:
    return {
        "pending_positions": market.pending_positions,
        "processing_positions": market.processing_positions,
        "completed_positions": market.completed_positions,
        "failed_positions": market.failed_positions,
    }


def _later(seconds: float) -> dict[str, Any]:
    return {"next_look_at": func.clock_timestamp() + timedelta(seconds=seconds)}
