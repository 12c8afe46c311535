"""Rows staged by hand, for rules about words and money that no entry of a test's provider has."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert

from include.warehouse.tables import batch, staging_settlement

LANDED_AT = "2026-11-20 12:00+00"


def open_normalized_batch(connection: Connection, *, landed: int, **changes: Any) -> int:
    """A batch of ticktock that waits for check_settlements."""
    values = {
        "source": "ticktock",
        "feed": "settlements",
        "kind": "fetch",
        "state": "normalized",
        "landed_at": LANDED_AT,
        "raw_checked_at": LANDED_AT,
        "normalized_at": LANDED_AT,
        "received": landed,
        "landed": landed,
        "normalized": landed,
        **changes,
    }
    return int(
        connection.execute(insert(batch).values(values).returning(batch.c.batch_id)).scalar_one()
    )


def a_row(batch_id: int, record_id: int, **changes: Any) -> dict[str, Any]:
    """A staged row that every rule passes, but for `changes`."""
    return {
        "batch_id": batch_id,
        "record_id": record_id,
        "source": "ticktock",
        "source_key": f"m1/o{record_id}",
        "provider_order": f"{record_id:020}",
        "status": "settled",
        "outcome": "won",
        "previous_status": "open",
        "player_id": None,
        "event_id": "m1",
        "market_id": f"o{record_id}",
        "selection_id": None,
        "currency": None,
        "stake": None,
        "payout": None,
        "refund": None,
        "enhancement": None,
        "payout_multiplier": None,
        "settled_at": "2026-11-20 11:00+00",
        "settled_at_basis": "provider",
        "is_resettlement": False,
        "settled_by": "engine",
        "reason": None,
        **changes,
    }


def stage(connection: Connection, rows: list[dict[str, Any]], **batch_changes: Any) -> int:
    """A batch that waits for check_settlements, with one row for each set of changes."""
    batch_id = open_normalized_batch(connection, landed=len(rows), **batch_changes)
    connection.execute(
        insert(staging_settlement),
        [a_row(batch_id, number, **changes) for number, changes in enumerate(rows, 1)],
    )
    return batch_id
