"""The form of settle_markets, and the shards of its runs."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from include.markets.events import take_events
from include.markets.queue import MarketsRefused
from include.markets.stopping import stop
from include.orchestration.settling import form_fields, plan_shards, shards
from include.providers import prediction
from include.sandbox.addresses import PREDICTION_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.database import transaction
from include.warehouse.markets import lock
from tests.warehouses import Warehouse

SETTINGS = Settings()


def plan(
    warehouse: Warehouse, sandbox: Sandbox, decided_by: str | None = "ann", **form: Any
) -> list[str]:
    """The markets that a run with this form goes on with."""
    fields = ParamsDict(form_fields())
    fields.update(form)
    with prediction.open_client(sandbox.prediction_url, PREDICTION_KEY, SETTINGS) as client:
        take_events(warehouse.engine, client, SETTINGS, "run")
    planned = plan_shards(warehouse.engine, fields.validate(), decided_by, "run")
    return [market_id for shard in planned for market_id in shard["market_ids"]]


def test_few_markets_each_have_a_line_and_many_go_in_shards() -> None:
    ids = [f"m-{number:04}" for number in range(1000)]
    assert shards([]) == []
    assert [shard["name"] for shard in shards(ids[:20])] == ids[:20]
    many = shards(ids)
    assert [len(shard["market_ids"]) for shard in many] == [50] * 20
    assert [one for shard in many for one in shard["market_ids"]] == ids
    assert many[1]["name"] == "51 to 100: m-0050 …"
    assert len(shards(ids[:21])) == 1


def test_a_run_goes_on_with_what_is_resolved_and_a_form_with_what_it_names(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure("prediction", markets=3)
    ids = sandbox.prediction_market_ids()
    assert sorted(plan(warehouse, sandbox)) == sorted(ids)
    assert plan(warehouse, sandbox, market_ids=[ids[1]]) == [ids[1]]


def test_what_is_not_known_to_be_resolved_takes_a_word_a_name_and_a_reason(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure("prediction", markets=1, events_kept_seconds=1e-6)
    [market_id] = sandbox.prediction_market_ids()
    word = {"market_ids": [market_id], "confirmation": "SETTLE"}
    with pytest.raises(MarketsRefused, match="Nothing says that 1 of these markets are resolved"):
        plan(warehouse, sandbox, market_ids=[market_id])
    with pytest.raises(MarketsRefused, match="needs a reason"):
        plan(warehouse, sandbox, **word, reason=" ")
    with pytest.raises(MarketsRefused, match="a user who is logged in"):
        plan(warehouse, sandbox, None, **word, reason="It is over.")
    assert plan(warehouse, sandbox) == []
    assert plan(warehouse, sandbox, **word, reason="It is over.", currency="EUR") == [market_id]


def test_of_markets_that_are_named_it_is_told_how_they_stand(
    warehouse: Warehouse, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sandbox.configure("prediction", markets=2)
    ids = sandbox.prediction_market_ids()
    plan(warehouse, sandbox)
    with transaction(warehouse.engine, "loader") as connection:
        stop(connection, lock(connection, ids[0]), "held", "does not add up")
    assert plan(warehouse, sandbox, market_ids=ids) == [ids[1]]
    assert f"Market {ids[0]} is held. Finding 1 waits for a decision." in caplog.text
    assert f"Market {ids[1]} is resolved.\n" in caplog.text


def test_a_currency_is_that_of_the_markets_that_the_form_names(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.configure("prediction", markets=2)
    market_id, _ = sandbox.prediction_market_ids()
    assert plan(warehouse, sandbox, market_ids=[market_id], currency="EUR") == [market_id]
    with pytest.raises(MarketsRefused, match=rf"{market_id} \(EUR, not USD\)"):
        plan(warehouse, sandbox, market_ids=[market_id], currency="USD")
    with pytest.raises(MarketsRefused, match="The currency EUR is that of no market"):
        plan(warehouse, sandbox, currency="EUR")
    with pytest.raises(ParamValidationError):
        plan(warehouse, sandbox, market_ids=[market_id], currency="usd")


def test_a_confirmation_that_names_no_market_is_refused(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    with pytest.raises(MarketsRefused, match="The confirmation is about no market"):
        plan(warehouse, sandbox, confirmation="SETTLE", reason="It is over.")
