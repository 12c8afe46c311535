"""The contract of every source: what its pipeline keeps, whoever the provider is.

A source joins by an entry in `PLAYED`: how the sandbox is made to show records of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.catchup.pipeline import land, normalize
from include.catchup.sources import SOURCES, Source
from include.providers.http import Client
from include.quality.gates import check_raw, check_settlements
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.publishing import publish
from tests.checker import violations
from tests.killing import When, run_and_kill
from tests.sandboxes import provider_keys, ticktock_client
from tests.warehouses import Warehouse

SETTINGS = Settings(read_attempts=1, ticktock_page_limit=20, land_commit_records=30)


@dataclass(frozen=True)
class Played:
    """How the sandbox plays a source: its client, its records, and more of them."""

    client: Callable[[Sandbox, Settings], Client]
    keys: Callable[[Sandbox], list[str]]


PLAYED = {"ticktock": Played(client=ticktock_client, keys=provider_keys)}


def test_every_source_is_played() -> None:
    assert set(PLAYED) == set(SOURCES)


def catch_up(source: Source, sandbox: Sandbox, engine: Engine) -> None:
    """All tasks of the source's DAG, one after the other."""
    with PLAYED[source.name].client(sandbox, SETTINGS) as client:
        land(engine, source, client, SETTINGS, "test")
    check_raw(engine, source.name, SETTINGS)
    normalize(engine, source, SETTINGS)
    check_settlements(engine, source.name, SETTINGS)
    publish(engine, source.name)


def wrong(source: Source, sandbox: Sandbox, warehouse: Warehouse) -> list[str]:
    with warehouse.owner_engine.connect() as connection:
        return violations(connection, source, PLAYED[source.name].keys(sandbox))


def core(warehouse: Warehouse) -> list[Any]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM core.settlement ORDER BY record_id")))


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest) -> Source:
    return SOURCES[request.param]


def test_every_record_arrives_once_and_again_changes_nothing(
    source: Source, sandbox: Sandbox, warehouse: Warehouse
) -> None:
    sandbox.configure(source.name, visible_entries=900)
    catch_up(source, sandbox, warehouse.engine)
    first = core(warehouse)
    assert len(first) == 900
    catch_up(source, sandbox, warehouse.engine)
    assert core(warehouse) == first
    assert wrong(source, sandbox, warehouse) == []


def test_every_task_may_be_repeated_and_run_in_any_order(
    source: Source, sandbox: Sandbox, warehouse: Warehouse
) -> None:
    sandbox.configure(source.name, visible_entries=300)
    tasks: list[Callable[[], object]] = [
        partial(publish, warehouse.engine, source.name),
        partial(check_settlements, warehouse.engine, source.name, SETTINGS),
        partial(normalize, warehouse.engine, source, SETTINGS),
        partial(check_raw, warehouse.engine, source.name, SETTINGS),
        partial(catch_up, source, sandbox, warehouse.engine),
    ]
    for task in (*tasks, *tasks, *reversed(tasks)):
        sandbox.advance(source.name, 10)
        task()
        task()
    catch_up(source, sandbox, warehouse.engine)
    assert wrong(source, sandbox, warehouse) == []


def test_records_of_a_killed_run_are_finished_by_the_next(
    source: Source, sandbox: Sandbox, warehouse: Warehouse
) -> None:
    """SIGKILL before and after every commit that a catch-up makes; then one that is left alone."""
    pipeline = partial(catch_up, source, sandbox)
    sandbox.configure(source.name, visible_entries=90, requests_a_minute=1_000_000)
    killed = 0
    moments: list[When] = ["before", "after"]
    for when in moments:
        commit = 1
        while not run_and_kill(warehouse.pipelines_url, pipeline, commit, when):
            killed += 1
            commit += 1
            assert wrong_but_unfinished(source, warehouse) == []
            sandbox.advance(source.name, 90)
        assert run_and_kill(warehouse.pipelines_url, pipeline, None)
        assert wrong(source, sandbox, warehouse) == []
        sandbox.advance(source.name, 90)
    assert killed >= 20


def wrong_but_unfinished(source: Source, warehouse: Warehouse) -> list[str]:
    """What is wrong although records may still be on their way."""
    with warehouse.owner_engine.connect() as connection:
        return violations(connection, source)
