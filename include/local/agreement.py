"""Whether a warehouse says what the sandbox's ledger says, settlement by settlement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text

from include.warehouse.database import open_engine

# The sandbox counts in the provider's words, the warehouse in ours.
_WORDS = {
    "pending": ("open", None),
    "settled/won": ("settled", "won"),
    "settled/lost": ("settled", "lost"),
    "voided/void": ("void", "void"),
}


def disagreements(warehouse_url: str, ledger: Mapping[str, Any]) -> Iterator[str]:
    """What the warehouse has otherwise than the ledger of ticktock, as sentences.

    `warehouse_url` is the owner's; `ledger` is what `Sandbox.ledger` gives.
    """
    numbers = _numbers(warehouse_url)
    final = {_WORDS[word]: count for word, count in ledger["final"].items()}
    for what, ours, truth in (
        ("settlements landed", numbers["landed"], ledger["entries"]),
        ("versions in core", numbers["versions"], ledger["entries"]),
        ("subjects", numbers["subjects"], ledger["subjects"]),
        ("outcomes", numbers["outcomes"], final),
        ("corrections", numbers["corrections"], ledger["corrections"]),
        ("digest of all settlements", numbers["sha256"], ledger["sha256"]),
    ):
        if ours != truth:
            yield f"{what}: {ours} here, {truth} expected"


def _numbers(warehouse_url: str) -> dict[str, Any]:
    engine = open_engine(warehouse_url)
    try:
        with engine.connect() as connection:
            one = connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM raw.record) AS landed,"
                    " (SELECT count(*) FROM core.settlement) AS versions,"
                    " (SELECT count(*) FROM core.settlement_current) AS subjects,"
                    " (SELECT count(*) FROM finance.correction) AS corrections"
                )
            ).one()
            outcomes = connection.execute(
                text(
                    "SELECT status, outcome, count(*) FROM finance.settlement_current GROUP BY 1, 2"
                )
            )
            return {
                **one._mapping,
                "outcomes": {(status, outcome): count for status, outcome, count in outcomes},
                "sha256": _digest(connection),
            }
    finally:
        engine.dispose()


def _digest(connection: Connection) -> str:
    """SHA-256 over every settlement in the ledger's own words and order."""
    words = {status: word.partition("/")[0] for word, (status, _) in _WORDS.items()}
    digest = sha256()
    for row in connection.execute(
        text(
            "SELECT record_key, event_id, market_id, status, outcome"
            " FROM core.settlement JOIN raw.record USING (record_id)"
            " ORDER BY settled_at, CAST(record_key AS numeric)"
        )
    ):
        key, match, offer, status, outcome = row
        digest.update(f"{key}|{match}|{offer}|{words[status]}|{outcome or ''}\n".encode())
    return digest.hexdigest()
