"""What every room's tests share: one Postgres a session (a worker), a fresh warehouse a test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from include.local.postgres import Postgres
from include.sandbox.client import Sandbox
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse, make_template, quick_server

# Files that take a process long: begun first, so that none goes on alone at the end.
_LONGEST = (
    "tests/end_to_end/test_scheduler.py",
    "tests/test_bench.py",
    "tests/test_compose.py",
    "tests/catchup/test_kills.py",
    "tests/payouts/test_kills.py",
    "tests/catchup/test_overlapping_runs.py",
    "tests/payouts/test_sending.py",
    "tests/catchup/test_faults.py",
    "tests/catchup/test_outages.py",
    "tests/test_checker.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, in their own order."""
    places = {file: place for place, file in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


# Nothing that an import makes is garbage, and half a gigabyte of modules is imported.
gc.disable()


def pytest_collection_finish() -> None:
    """What was imported is looked through for garbage no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running embedded server."""
    with quick_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> Postgres:
    """The same server with the template from which warehouses are copied."""
    make_template(postgres)
    return postgres


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox"), seed=20261121) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    """The sandbox, as it was when it started."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def warehouse(migrated_postgres: Postgres) -> Iterator[Warehouse]:
    """A migrated warehouse of the test's own, with nothing in it."""
    with fresh_warehouse(migrated_postgres) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared_warehouse(migrated_postgres: Postgres) -> Iterator[Warehouse]:
    """A migrated warehouse for a module whose tests leave nothing behind that another would see."""
    with fresh_warehouse(migrated_postgres) as fresh:
        yield fresh
