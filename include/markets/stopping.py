"""A market that nothing but a person's decision gets on: its state, and the finding that asks."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, Row

from include.markets.holding import hold_back
from include.warehouse.findings import Finding, close_if_open, open_finding
from include.warehouse.markets import SOURCE, move

Stop = Literal["held", "failed", "stuck", "refused"]

_KEPT = {
    "held": "All that the engine told is kept in raw; nothing of this list is published, and no "
    "credit comes of it. What was credited before is not sent, nor owed, meanwhile. Other markets "
    "go on.",
    "failed": "What is completed is published and credited.",
    "stuck": "What is completed is published and credited as far as its list adds up.",
    "refused": "Nothing was published of it. Other markets go on.",
}


def stop(
    connection: Connection,
    market: Row[Any],
    state: Stop,
    reason: str,
    *,
    kept: str | None = None,
    detail: dict[str, Any] | None = None,
    batch_id: int | None = None,
    **values: Any,
) -> None:
    """Move the market into a state that waits for a person, and ask; what was asked about another
    state is over.

    The caller holds the source's lock.  If somebody else has moved it, nothing happens.
    """
    moved = move(connection, market, state, **{"next_look_at": None, **values})
    if moved is None:
        return
    close_findings(connection, market.market_id, but=state)
    finding_id = open_finding(
        connection,
        Finding(
            kind=f"market_{state}",
            source=SOURCE,
            subject=market.market_id,
            summary=f"Market {market.market_id} {reason}.",
            kept=kept or _KEPT[state],
            detail={"market_id": market.market_id, **(detail or {})},
            batch_id=batch_id,
        ),
    )
    move(connection, moved, finding_id=finding_id)
    if state == "held":
        hold_back(connection, market.market_id, finding_id)


def close_findings(connection: Connection, market_id: str, *, but: Stop | None = None) -> None:
    """Close what was asked about a market that got on without a decision, `but` of one state."""
    for state in _KEPT:
        if state != but:
            close_if_open(connection, f"market_{state}", SOURCE, market_id)
