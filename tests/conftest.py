"""What every room's tests share: one Postgres a session (a worker), a fresh warehouse a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import Postgres
from include.sandbox.client import Sandbox
from tests.sandbox.process import running_sandbox
from tests.warehouses import Warehouse, fresh_warehouse, make_template, quick_server


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
