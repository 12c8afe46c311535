"""Markets of the prediction engine, as the queue has them: each moves by its own state.

Whoever has looked at a market moves it only from the revision that was seen, so that of two who
looked at once one moves it and the other does nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from sqlalchemy import Connection, Row, case, func, select, update

from include.warehouse.tables import market as market_table
from include.warehouse.tables import market_attempt

SOURCE = "prediction"

State = Literal[
    "entered",
    "resolved",
    "settling",
    "waiting",
    "retrying",
    "fetching",
    "fetched",
    "checked",
    "done",
    "held",
    "failed",
    "stuck",
    "refused",
    "withdrawn",
]

ENDED: tuple[State, ...] = ("done", "failed", "stuck")
"""At an end, for now: looked at again, for what the engine changes later."""

WORKED_ON: tuple[State, ...] = (
    "resolved",
    "settling",
    "waiting",
    "retrying",
    "fetching",
    *ENDED,
)
"""What a run goes on with; what is fetched or checked is taken up by its gates."""

_IS_DUE = market_table.c.next_look_at <= func.clock_timestamp()


def due(
    connection: Connection,
    states: Collection[State],
    market_ids: Collection[str] | None = None,
    limit: int | None = None,
) -> list[Row[Any]]:
    """The markets in these states that are to be gone on with now, whoever waits longest first.

    Of `market_ids` only, if they are given; no more than `limit`.
    """
    asked = select(market_table).where(_IS_DUE, market_table.c.state.in_(states))
    if market_ids is not None:
        asked = asked.where(market_table.c.market_id.in_(market_ids))
    ordered = asked.order_by(market_table.c.next_look_at, market_table.c.market_id)
    return list(connection.execute(ordered.limit(limit)))


def move(
    connection: Connection, market: Row[Any], state: State | None = None, **values: Any
) -> Row[Any] | None:
    """Move a market on from how it was seen, and give it as it stands then.

    None, with nothing changed, if somebody else has moved it since.  Without a `state` it stays in
    the one it is in.
    """
    into = market.state if state is None else state
    return connection.execute(
        update(market_table)
        .where(
            market_table.c.market_id == market.market_id,
            market_table.c.revision == market.revision,
        )
        .values(
            state=into,
            state_since=case(
                (market_table.c.state == into, market_table.c.state_since), else_=func.now()
            ),
            revision=market_table.c.revision + 1,
            **values,
        )
        .returning(market_table)
    ).first()


def lock(connection: Connection, market_id: str) -> Row[Any]:
    """The market, locked."""
    this = select(market_table).where(market_table.c.market_id == market_id)
    return connection.execute(this.with_for_update()).one()


def may_be_under_way(connection: Connection, market_id: str) -> bool:
    """Whether an order for the market may still reach the engine, or be carried out by it."""
    found = connection.execute(
        select(market_attempt.c.attempt_id)
        .where(
            market_attempt.c.market_id == market_id,
            market_attempt.c.result.is_(None) | (market_attempt.c.result == "in_doubt"),
            market_attempt.c.deadline_at > func.clock_timestamp(),
        )
        .limit(1)
    )
    return found.first() is not None
