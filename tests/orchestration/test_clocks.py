"""A worker whose clock is wrong asks nobody for anything: it would keep wrong positions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import time_machine
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.orchestration.connections import open_warehouse
from include.orchestration.tasks import catch_up
from include.sandbox.client import Sandbox
from include.warehouse.clock import ClocksDiffer
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.warehouses import Warehouse


@pytest.fixture(autouse=True)
def connections(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    give_warehouse(monkeypatch, warehouse)
    for name in SOURCES:
        extra = {"base_url": getattr(sandbox, f"{name}_url")}
        give_connection(monkeypatch, name, conn_type="http", password="key", extra=extra)
    yield
    open_warehouse().dispose()


@pytest.mark.parametrize("seconds", [-1500, 1500])
@pytest.mark.parametrize("source_name", SOURCES)
def test_nothing_is_asked_for_or_landed_by_a_wrong_clock(
    warehouse: Warehouse, sandbox: Sandbox, source_name: str, seconds: int
) -> None:
    calls = sandbox.calls()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True):
        with pytest.raises(ClocksDiffer):
            catch_up.land.function(source_name)
        if SOURCES[source_name].open_hints is not None:
            with pytest.raises(ClocksDiffer):
                catch_up.listen.function(source_name, dag_run=SimpleNamespace(run_type="manual"))
    assert sandbox.calls() == calls
    with warehouse.owner_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM ops.batch")) == 0
        assert connection.scalar(text("SELECT count(*) FROM ops.cursor")) == 0
