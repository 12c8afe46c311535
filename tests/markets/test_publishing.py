"""Publishing: what is published of a market beside what its status tells, once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from include.markets.crediting import credit
from include.markets.publishing import MarketsHeld
from include.providers.http import Answer
from include.providers.prediction import calls
from include.warehouse.publishing import publish
from tests.markets.playing import POSITIONS, MarketPlay

Listed = list[dict[str, Any]]


@pytest.fixture
def change_list(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Listed], None]], None]:
    """Have each list come with these changes."""
    fetch_settlements = calls.fetch_settlements

    def change(how: Callable[[Listed], None]) -> None:
        def fetch_changed(*arguments: Any, **filters: Any) -> Answer:
            answer = fetch_settlements(*arguments, **filters)
            body = json.loads(answer.body)
            how(body["data"])
            return replace(answer, body=json.dumps(body).encode())

        monkeypatch.setattr(calls, "fetch_settlements", fetch_changed)

    return change


def without_a_day(listed: Listed) -> None:
    """The first that pays cannot be published so."""
    next(one for one in listed if one["totalPayout"] != "0")["settledAt"] = None


def test_a_market_of_which_a_payout_is_in_quarantine_is_held_and_can_be_released(
    play: MarketPlay, change_list: Callable[..., None]
) -> None:
    change_list(without_a_day)
    play.run()
    assert play.market().state == "held"
    [finding] = play.findings("market_held")
    told, published = sum(play.owed().values()), sum(play.payouts().values())
    assert told > published
    assert f"Market {play.market_id} does not add up" in finding.summary
    assert f"{POSITIONS} positions COMPLETED that pay {told:f}, but 5 that" in finding.summary
    assert f"pay {published:f} are published" in finding.summary
    assert "in quarantine: 1 (finding records_quarantined)" in finding.summary
    assert credit(play.warehouse.engine, play.settings).owed == 0
    play.decide("market_held", "release_market")
    play.released.add(play.market_id)
    play.run()
    assert play.market().state == "done"
    assert credit(play.warehouse.engine, play.settings).owed == len(play.payouts())


def test_what_is_in_quarantine_of_another_market_is_not_counted(
    play: MarketPlay, change_list: Callable[..., None]
) -> None:
    play.engine_changes(markets=2)
    first, second = play.market_ids

    def about_the_first(listed: Listed) -> None:
        if listed[0]["marketId"] == second:
            without_a_day(listed)
            for one in listed:
                one["errorMessage"] = f"not as in {first}"

    change_list(about_the_first)
    for step in ("plan", "settle", "wait_for_status", "fetch_payouts", "check"):
        play.step(step)
    publish(play.warehouse.engine, "prediction")
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE core.settlement SET is_current = false WHERE record_id ="
                " (SELECT max(record_id) FROM core.settlement WHERE market_id = :market_id)"
            ),
            {"market_id": first},
        )
    with pytest.raises(MarketsHeld):
        play.step("publish")
    summaries = {one.subject: one.summary for one in play.findings("market_held")}
    assert "in quarantine" not in summaries[first]
    assert "in quarantine: 1 (" in summaries[second]
    play.decide("market_held", "release_market")
    play.released.update(play.market_ids)
    play.step("publish")
    assert set(play.states().values()) == {"done"}
