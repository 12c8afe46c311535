"""A market that waits for a person: try it again, publish it as it is, or take it out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func

from include.warehouse import batches
from include.warehouse.decisions.answers import (
    Answer,
    Change,
    Decide,
    DecisionRefused,
    as_json,
    lock_batch,
)
from include.warehouse.markets import State, lock, move
from include.warehouse.tables import market as market_table

_NO_LONGER_HELD = {"held_at": None, "held_from": None, "held_reason": None}


def _list_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """What was listed is given up: whatever of it is listed again lands again."""
    market = _waiting(connection, asked, "held")
    held = _held_batch(connection, market)
    if held is not None:
        batches.move(
            connection,
            held.batch_id,
            state="discarded",
            discarded=held.landed,
            **_NO_LONGER_HELD,
        )
    return _move(connection, market, "fetching", listing_sha256=None, differences=[])


def _release(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "held")
    held = _held_batch(connection, market)
    if market.currency is None or held is None:
        lacking = "its currency is not known" if market.currency is None else "nothing was listed"
        raise DecisionRefused(
            f"Market {market.market_id} cannot be published as it is: {lacking}.",
            "Correct that, then decide try_again.",
        )
    batches.move(connection, held.batch_id, state=held.held_from, **_NO_LONGER_HELD)
    return _move(connection, market, "checked", next_look_at=None)


def _retry_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "failed")
    return _move(connection, market, "waiting", retry_attempts=0, listing_sha256=None)


def _look_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """As if it was not known whether it was settled, which for some that are stuck it is not."""
    market = _waiting(connection, asked, "stuck")
    fresh = {"progressed_at": func.now(), "listing_sha256": None}
    return _move(connection, market, "settling", trouble=None, troubled_since=None, **fresh)


def _settle_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "refused")
    return _move(connection, market, "settling", settle_attempts=0)


def _withdraw(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "refused")
    return _move(connection, market, "withdrawn", next_look_at=None)


def _waiting(connection: Connection, asked: Row[Any], state: State) -> Row[Any]:
    market = lock(connection, asked.detail["market_id"])
    if market.state != state:
        raise DecisionRefused(
            f"Market {market.market_id} is not {state} any more: it is {market.state}.",
            "Look at its later findings, or acknowledge this one.",
        )
    return market


def _held_batch(connection: Connection, market: Row[Any]) -> Row[Any] | None:
    if market.batch_id is None:
        return None
    held = lock_batch(connection, market.batch_id)
    return held if held.state == "held" else None


def _move(connection: Connection, market: Row[Any], state: State, **values: Any) -> Change:
    this = market_table.c.market_id == market.market_id
    before = as_json(connection, market_table, this)
    move(
        connection,
        market,
        state,
        **{"next_look_at": func.now(), "finding_id": None, **values},
    )
    return Change(before, as_json(connection, market_table, this))


DECISIONS: dict[tuple[str, str], Decide] = {
    ("market_held", "try_again"): _list_again,
    ("market_held", "release_market"): _release,
    ("market_failed", "try_again"): _retry_again,
    ("market_stuck", "try_again"): _look_again,
    ("market_refused", "try_again"): _settle_again,
    ("market_refused", "withdraw"): _withdraw,
}
