"""The contract of every source: what its pipeline keeps, whoever the provider is.

A source joins by an entry in `tests.playing.PLAYED`.  What kills and outages do to it is in the
modules beside this one.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.sandbox.client import Sandbox
from tests.playing import PLAYED, Play, run_tasks
from tests.warehouses import Warehouse


@pytest.fixture(params=sorted(SOURCES))
def play(request: pytest.FixtureRequest, sandbox: Sandbox, warehouse: Warehouse) -> Play:
    return Play(SOURCES[request.param], sandbox, warehouse)


def core(warehouse: Warehouse) -> list[Any]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM core.settlement ORDER BY record_id")))


def test_every_source_is_played() -> None:
    assert set(PLAYED) == set(SOURCES)


def test_every_record_arrives_once_and_again_changes_nothing(
    play: Play, warehouse: Warehouse
) -> None:
    play.advance(900)
    run_tasks(play.tasks, warehouse.engine)
    first = core(warehouse)
    assert len(first) == 900
    assert play.wrong(is_left_alone=True) == []
    run_tasks(play.tasks, warehouse.engine)
    assert core(warehouse) == first
    assert play.wrong(is_left_alone=True) == []


def test_every_task_may_be_repeated_and_run_in_any_order(play: Play, warehouse: Warehouse) -> None:
    play.advance(300)
    tasks = [*reversed(play.tasks)]
    for task in (*tasks, *tasks, *play.tasks):
        play.advance(10)
        task.run(warehouse.engine)
        task.run(warehouse.engine)
        assert play.wrong() == []
    run_tasks(play.tasks, warehouse.engine)
    assert play.wrong(is_left_alone=True) == []
