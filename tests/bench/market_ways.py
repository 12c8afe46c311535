"""Settling markets, as the tasks of settle_markets do it, in a process of its own.

`python -m tests.bench.market_ways settle ENGINE_URL`.  Everything the tasks import is imported
before the clock starts, Great Expectations as well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import great_expectations  # noqa: F401
from sqlalchemy import Engine

from include.markets import crediting, events, fetching, looking, publishing, queue, settling
from include.providers import prediction
from include.sandbox.addresses import PREDICTION_KEY, PREDICTION_OPERATOR_ID
from include.settings import Settings
from include.warehouse.database import open_engine
from tests.bench.stopwatch import Stopwatch

SETTINGS = Settings(
    prediction_operator_id=PREDICTION_OPERATOR_ID, prediction_default_currency="USD"
)
# The wallet is told of the first half's credits; the operator owes those of the other.
MAPPED = SETTINGS.model_copy(
    update={
        "prediction_wallet_session_id": "prediction-markets",
        "prediction_wallet_round_id": "market-{market_id}",
        "prediction_wallet_game_id": "predictions",
        "prediction_wallet_ref_transaction_id": "{position_id}",
    }
)
# What a run goes on with, in the shards in which it does so, as many at once as two cores have.
RUN_MARKETS, SHARD_MARKETS, SHARDS_AT_ONCE = 2000, 50, 2

STEPS: dict[str, Callable[..., Any]] = {
    "settle": settling.settle_markets,
    "wait_for_status": looking.wait_for_status,
    "fetch_payouts": fetching.fetch_payouts,
}


def settle(stopwatch: Stopwatch, engine_url: str) -> None:
    """From the engine's events to each player's credit."""
    engine = open_engine(os.environ["BENCH_URL"])
    stopwatch.start()
    with stopwatch.stage("plan"):
        _take_events(engine, engine_url)
        market_ids = queue.due_markets(engine, None, RUN_MARKETS)
    for name, step in STEPS.items():
        with stopwatch.stage(name), ThreadPoolExecutor(SHARDS_AT_ONCE) as workers:
            for done in [
                workers.submit(_work, step, engine, engine_url, shard)
                for shard in _shards(market_ids)
            ]:
                done.result()
    with stopwatch.stage("check"):
        publishing.check(engine, SETTINGS)
    with stopwatch.stage("publish"):
        publishing.publish(engine, SETTINGS)
    half = len(market_ids) // 2
    with stopwatch.stage("credit, into the outbox"):
        crediting.credit(engine, MAPPED, market_ids[:half])
    with stopwatch.stage("credit, owed"):
        crediting.credit(engine, SETTINGS, market_ids[half:])


def _take_events(engine: Engine, engine_url: str) -> None:
    with closing(prediction.open_client(engine_url, PREDICTION_KEY, SETTINGS)) as client:
        while not events.take_events(engine, client, SETTINGS, "bench").has_reached_end:
            pass


def _shards(market_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(market_ids), SHARD_MARKETS):
        yield market_ids[first : first + SHARD_MARKETS]


def _work(step: Callable[..., Any], engine: Engine, engine_url: str, shard: Sequence[str]) -> None:
    with closing(prediction.open_client(engine_url, PREDICTION_KEY, SETTINGS)) as client:
        step(engine, client, SETTINGS, shard, "bench")


if __name__ == "__main__":
    _, way, url = sys.argv
    watch = Stopwatch()
    {"settle": settle}[way](watch, url)
    print(json.dumps(vars(watch)))
