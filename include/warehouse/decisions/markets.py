"""A market that waits for a person: try it again, publish it as it is, or take it out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, text

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

_HELD_BACK = text("""
SELECT count(*)
FROM prediction.credit
JOIN prediction.held_market USING (market_id)
WHERE credit.market_id = :market_id AND (
    credit.state = 'owed' OR EXISTS (
        SELECT
        FROM wallet.transaction AS payout
        WHERE payout.transaction_id = credit.transaction_id AND hold_reason = 'market_held'
    )
)
""")
_NO_LONGER_HELD = {"held_at": None, "held_from": None, "held_reason": None}


def _list_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "held")
    _give_up_list(connection, market)
    return _move(connection, market, "fetching", listing_sha256=None)


def _give_up_list(connection: Connection, market: Row[Any]) -> None:
    """What was listed is given up: whatever of it is listed again lands again.  What does not add
    up in it stays noted, so that nobody is paid before the next list says otherwise.
    """
    batch = _batch(connection, market)
    if batch is not None and batch.state == "held":
        batches.move(
            connection,
            batch.batch_id,
            state="discarded",
            discarded=batch.landed,
            **_NO_LONGER_HELD,
        )


def _release(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "held")
    batch = _batch(connection, market)
    lacking = _lacking(market, batch)
    if batch is None or lacking is not None:
        raise DecisionRefused(
            f"Market {market.market_id} cannot be published as it is: {lacking}.",
            "Correct that, then decide try_again.",
        )
    # A list that told nothing new has nothing that could be held.
    if batch.state == "held":
        batches.move(connection, batch.batch_id, state=batch.held_from, **_NO_LONGER_HELD)
    return _move(connection, market, "checked", next_look_at=None)


def _retry_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "failed")
    return _move(
        connection, market, "waiting", retry_attempts=0, listing_sha256=None, differences=[]
    )


def _look_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """As if it was not known whether it was settled, which for some that are stuck it is not."""
    market = _waiting(connection, asked, "stuck")
    fresh = {"progressed_at": func.now(), "listing_sha256": None}
    return _move(connection, market, "settling", trouble=None, troubled_since=None, **fresh)


def _settle_rest(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """A status cannot tell positions that are on their way from those that nobody ordered."""
    market = _waiting(connection, asked, "held", "stuck")
    _give_up_list(connection, market)
    fresh: dict[str, Any] = {"progressed_at": func.now(), "listing_sha256": None}
    calm = {"trouble": None, "troubled_since": None}
    return _move(connection, market, "resolved", settle_attempts=0, **fresh, **calm)


def _settle_again(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "refused")
    return _move(connection, market, "settling", settle_attempts=0)


def _withdraw(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    market = _waiting(connection, asked, "refused")
    if held_back := connection.scalar(_HELD_BACK, {"market_id": market.market_id}):
        raise DecisionRefused(
            f"Market {market.market_id} cannot be withdrawn: {held_back} credits of an earlier "
            "list are held back until a list of it adds up, or is released.",
            "Ask the engine's people why it refuses, then decide try_again.",
        )
    return _move(connection, market, "withdrawn", next_look_at=None)


def _waiting(connection: Connection, asked: Row[Any], *states: State) -> Row[Any]:
    market = lock(connection, asked.detail["market_id"])
    if market.state not in states:
        raise DecisionRefused(
            f"Market {market.market_id} is not {' or '.join(states)} any more: it is "
            f"{market.state}.",
            "Look at its later findings, or acknowledge this one.",
        )
    return market


def _batch(connection: Connection, market: Row[Any]) -> Row[Any] | None:
    return None if market.batch_id is None else lock_batch(connection, market.batch_id)


def _lacking(market: Row[Any], batch: Row[Any] | None) -> str | None:
    """What is missing for the market's list to be published as it is; None: nothing."""
    if market.currency is None:
        return "its currency is not known"
    if batch is None or batch.state not in ("held", "published"):
        return "nothing was listed"
    if not batch.has_reached_end:
        return "a page of its list cannot be decoded, so that it is not known what it adds up to"
    return None


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
    ("market_held", "settle_again"): _settle_rest,
    ("market_failed", "try_again"): _retry_again,
    ("market_stuck", "try_again"): _look_again,
    ("market_stuck", "settle_again"): _settle_rest,
    ("market_refused", "try_again"): _settle_again,
    ("market_refused", "withdraw"): _withdraw,
}
