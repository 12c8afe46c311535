"""Holding back: what was credited of a market that is held, and that the wallet was not told of.

It is held in the transaction that finds that the market's list does not add up, so that nobody
sends it in between.  It is let go once a list was released, or adds up, and is published, by
whoever has noted first what the settlements say by then.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text

from include.warehouse.database import acting_as, lock_source, look_up_by_key, transaction
from include.warehouse.markets import SOURCE

# Locked, and looked at only then: it is either sent already or held in time.
_LOCK_OPEN = text("""
SELECT count(*)
FROM (
    SELECT
    FROM wallet.transaction
    WHERE disposition = 'open' AND hold_reason IS NULL AND transaction_id IN (
        SELECT transaction_id
        FROM prediction.credit
        WHERE market_id = :market_id AND state = 'sending'
    )
    ORDER BY transaction_id
    FOR UPDATE
) AS locked
""")

_HOLD = text("""
UPDATE wallet.transaction AS payout
SET hold_reason = 'market_held', hold_finding_id = :finding_id,
    hold_detail = format('Market %s is held: decide its finding.', credit.market_id)
FROM prediction.credit
WHERE credit.market_id = :market_id AND credit.state = 'sending'
    AND payout.transaction_id = credit.transaction_id AND disposition = 'open'
    AND CASE
        WHEN payout.hold_reason IS NULL THEN NOT wallet.is_sent(payout)
        ELSE payout.hold_reason = 'market_held'
            AND payout.hold_finding_id IS DISTINCT FROM CAST(:finding_id AS bigint)
    END
""")

# By what is to be sent, of which there is little, not by all that a held market was ever credited.
_HELD_BUT_OPEN = text("""
SELECT DISTINCT held.market_id, held.finding_id
FROM wallet.transaction AS payout
JOIN prediction.credit ON credit.settlement_id = payout.origin_key
JOIN prediction.held_market AS held USING (market_id)
WHERE payout.transaction_id LIKE 'prediction:%' AND origin_source = 'prediction'
    AND disposition = 'open' AND payout.hold_reason IS NULL AND NOT wallet.is_sent(payout)
ORDER BY held.market_id
""")

# What is contested says nothing before it is decided.
_LET_GO = text("""
UPDATE wallet.transaction AS payout
SET hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL
FROM prediction.credit
WHERE payout.hold_reason = 'market_held' AND credit.market_id = :market_id
    AND payout.transaction_id = credit.transaction_id
    AND EXISTS (
        SELECT
        FROM prediction.market
        WHERE market.market_id = :market_id AND revision = :revision
    )
    AND EXISTS (
        SELECT
        FROM core.settlement
        WHERE source = 'prediction' AND source_key = credit.settlement_id AND is_current
            AND NOT is_contested
    )
""")


def hold_back(connection: Connection, market_id: str, finding_id: int | None = None) -> None:
    """Hold what was credited of the market and not sent; `finding_id` asks about the market.

    The caller holds the source's lock.
    """
    this = {"market_id": market_id, "finding_id": finding_id}
    with acting_as(connection, "crediter"):
        connection.execute(_LOCK_OPEN, this)
        connection.execute(_HOLD, this)


def hold_back_all(engine: Engine) -> None:
    """The same for every market that is held, of what a decision has let go though it is."""
    with transaction(engine, "crediter") as connection:
        lock_source(connection, SOURCE)
        look_up_by_key(connection)
        for market_id, finding_id in connection.execute(_HELD_BUT_OPEN).all():
            hold_back(connection, market_id, finding_id)


def let_go(connection: Connection, market_id: str, revision: int) -> None:
    """Let go what was held back of a market that is held no more.

    What its settlements say now has been noted, as they were at this revision of it.
    """
    connection.execute(_LET_GO, {"market_id": market_id, "revision": revision})
