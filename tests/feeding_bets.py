"""Feeding a warehouse with messages of odds88 made in a test: the whole way behind the socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from include.catchup.sources import SOURCES
from include.providers.odds88 import join_messages, read_message
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.settings import Settings
from include.warehouse.landing import Landing
from include.warehouse.pages import ArrivedPage
from include.warehouse.publishing import Published, publish

SOURCE = SOURCES["odds88"]
SETTINGS = Settings(odds88_payout_unit="major", odds88_payout_contains_partial_refund=True)

WIN, LOSE, REFUND = 1, 2, 3


def bet(
    result: int,
    *,
    minute: int = 0,
    versions: Sequence[int | None] = (1,),
    payout: float | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A bet of 10 EUR at 1.85, on one leg for each of `versions` (None: a leg not settled), settled
    so many minutes after a moment of May 2026.
    """
    time = f"2026-05-10T{12 + minute // 60:02}:{minute % 60:02}:00Z"
    won = 18.5 if result == WIN else 10.0 if result == REFUND else 0.0
    return {
        "betId": "b1",
        "betSettlement": result,
        "payoutMultiplier": won / 10,
        "isCancelled": False,
        "selections": [_selection(result, time, version) for version in versions],
        "isRejected": False,
        "settlementTime": time,
        "payout": won if payout is None else payout,
        "partialRefund": 0.0,
        "amount": {
            "currency": "EUR",
            "value": 1000,
            "precision": 2,
            "placementExchangeRate": 1.0,
            "settlementExchangeRate": 1.0,
        },
        **changes,
    }


def _selection(result: int, time: str, version: int | None) -> dict[str, Any]:
    told = {"settlementResult": result, "settlementTime": time, "settlementVersion": version}
    return {"selectionId": 88, "price": 1.85, "settlement": None if version is None else told}


def message(told: dict[str, Any]) -> bytes:
    """The message that tells of a bet."""
    return json.dumps({"pingId": None, "data": told}).encode()


def land(engine: Engine, *messages: bytes) -> int:
    """Land messages as one page in a batch of their own; returns the batch."""
    page = join_messages([read_message(one) for one in messages])
    now = datetime.now(UTC)
    landing = Landing(engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, "test")
    landing.add(
        ArrivedPage(
            request="GET /feed/settlement/v4?revision=0",
            requested_at=now,
            received_at=now,
            body=page.body,
            http_status=None,
            content_type=None,
            records=[(one.record, one.content_sha256) for one in (*page.entries, *page.broken)],
            unknown_fields=page.unknown_fields,
            unreadable={one.record.record_key: one.reason for one in page.broken},
        )
    )
    return int(landing.close(has_reached_end=True).batch_id)


def push(engine: Engine, settings: Settings = SETTINGS) -> Published:
    """Everything behind `land`: both gates, normalize and publish."""
    check_raw(engine, SOURCE.name)
    normalize(engine, SOURCE, settings)
    check_settlements(engine, SOURCE.name, settings)
    return publish(engine, SOURCE.name)
