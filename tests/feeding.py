"""Feeding a warehouse by hand: pages made in a test go the whole way that a provider's would."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from include.catchup.sources import SOURCES
from include.providers import ticktock
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.settings import Settings
from include.warehouse.cursors import is_behind
from include.warehouse.landing import Landing
from include.warehouse.pages import ArrivedPage
from include.warehouse.publishing import Published, publish

SOURCE = SOURCES["ticktock"]
SETTINGS = Settings()


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """A ticktock entry as its documentation shows it, about offer `ofr_abc` unless told."""
    return {
        "id": number,
        "market_offer_id": "ofr_abc",
        "match_id": "m1",
        "previous_status": "pending",
        "new_status": "settled",
        "outcome": "won",
        "settled_by": "engine",
        "is_resettlement": False,
        "created_at": f"2026-05-10T18:{number // 60 % 60:02}:{number % 60:02}+00:00",
        **changes,
    }


def correction(number: int, outcome: str, **changes: Any) -> dict[str, Any]:
    """A resettlement of a settled offer to `outcome`."""
    status = "voided" if outcome == "void" else "settled"
    return entry(
        number,
        previous_status="settled",
        new_status=status,
        outcome=outcome,
        is_resettlement=True,
        **changes,
    )


def body_of(*entries: dict[str, Any], count: int | None = None) -> bytes:
    """A page body with the entries; `meta.count` tells the truth unless `count` is given."""
    told = len(entries) if count is None else count
    return json.dumps({"data": list(entries), "meta": {"count": told}}).encode()


def land_body(engine: Engine, body: bytes) -> int:
    """Land one page body in a batch of its own; returns the batch."""
    page = ticktock.read_page(body)
    now = datetime.now(UTC)
    landing = Landing(engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, "test")
    cursor = landing.read_cursor()
    newest = ticktock.most_recent(page.entries)
    since_id = cursor.position.get("since_id")
    if newest is not None and not (since_id and is_behind(str(newest.entry_id), since_id)):
        since_id = newest.entry_id
    landing.commit(
        [
            ArrivedPage(
                request="GET /cs2/v1/settlements?limit=200",
                requested_at=now,
                received_at=now,
                body=body,
                http_status=200,
                content_type="application/json",
                records=[(one.record, one.content_sha256) for one in page.entries],
                provider_count=page.provider_count,
                unknown_fields=page.unknown_fields,
            )
        ],
        cursor,
        {"since_id": since_id},
    )
    return int(landing.close(has_reached_end=True).batch_id)


def push(engine: Engine, settings: Settings = SETTINGS) -> Published:
    """Everything behind `land`: both gates, normalize and publish."""
    check_raw(engine, SOURCE.name)
    normalize(engine, SOURCE, settings)
    check_settlements(engine, SOURCE.name, settings)
    return publish(engine, SOURCE.name)


def versions(connection: Connection, source_key: str = "m1/ofr_abc") -> list[Any]:
    """The subject's versions in the order in which they were published."""
    return list(
        connection.execute(
            text("SELECT * FROM core.settlement WHERE source_key = :key ORDER BY version"),
            {"key": source_key},
        )
    )


def current(connection: Connection, source_key: str = "m1/ofr_abc") -> Any:
    """The subject's current version."""
    return connection.execute(
        text(
            "SELECT settlement.* FROM core.settlement_current JOIN core.settlement"
            " USING (source, source_key, version) WHERE source_key = :key"
        ),
        {"key": source_key},
    ).one()


def open_findings(connection: Connection, kind: str | None = None) -> list[Any]:
    """The open findings, oldest first; of one kind if it is given."""
    return list(
        connection.execute(
            text(
                "SELECT * FROM ops.finding WHERE state = 'open'"
                " AND (CAST(:kind AS text) IS NULL OR kind = :kind) ORDER BY finding_id"
            ),
            {"kind": kind},
        )
    )
