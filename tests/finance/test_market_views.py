"""What finance sees of the prediction engine's markets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from include.sandbox.client import Sandbox
from tests.markets.playing import MarketPlay
from tests.warehouses import Warehouse


@pytest.fixture
def play(warehouse: Warehouse, sandbox: Sandbox) -> Iterator[MarketPlay]:
    play = MarketPlay(warehouse, sandbox)
    yield play
    assert play.wrong() == []


def read(play: MarketPlay, statement: str) -> list[Any]:
    """What finance's own login reads."""
    engine = create_engine(play.warehouse.finance_url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(statement)))
    finally:
        engine.dispose()


def test_what_a_market_pays_and_what_of_it_is_unpaid(play: MarketPlay) -> None:
    """The first market fails in part and for good, the second is held, the third is done."""
    play.change(prediction_retry_attempts=1)
    play.engine_changes(failing_share=0.5, failing_attempts=None, positions=20)
    play.run()
    play.engine_changes(failing_share=0.0, lies={"status.totalPayout": "1"}, odd_markets=[1])
    play.sandbox.advance("prediction", 2)
    play.run()
    play.run()
    failed, held, done = (play.market(market_id) for market_id in play.market_ids)
    assert [one.state for one in (failed, held, done)] == ["failed", "held", "done"]

    markets = {row.market_id: row for row in read(play, "SELECT * FROM finance.market")}
    assert {row.market_id: row.state for row in markets.values()} == play.states()
    seen = markets[done.market_id]
    assert seen.published_payout == seen.told_payout == sum(play.owed(done.market_id).values())
    assert (seen.published_positions, seen.positions) == (20, 20)
    assert seen.resolved_by.startswith("event ")
    assert markets[failed.market_id].published_payout == sum(play.owed(failed.market_id).values())
    assert markets[held.market_id].published_positions == 0
    assert markets[held.market_id].finding_id == held.finding_id is not None

    feeds = read(play, "SELECT * FROM finance.feed_completeness WHERE source = 'prediction'")
    statements = {row.feed: row.statement for row in feeds}
    assert statements.keys() == {"events", "settlements"}
    assert all(told.startswith("Numbers can be trusted") for told in statements.values())
    assert "batches held by a check: 1" in statements["settlements"]

    payouts = read(play, "SELECT * FROM finance.market_payout")
    paid = {row.settlement_id: row.payout for row in payouts if row.payout}
    assert paid == {**play.owed(failed.market_id), **play.owed(done.market_id)}
    unpaid = read(play, "SELECT * FROM finance.market_unpaid")
    assert {row.market_id for row in unpaid} == {failed.market_id}
    assert len(unpaid) == failed.failed_positions > 0
    assert {row.why for row in unpaid} == {"failed"}
    assert all(row.reason and row.finding_id == failed.finding_id for row in unpaid)
    players = {row.player_id for row in play.rows("SELECT player_id FROM core.settlement")}
    assert players.isdisjoint(row.player_reference for row in (*payouts, *unpaid))
