"""Servers for tests, and fresh warehouses in them, copied from one that was migrated once."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine, text

from include.local.folder import FolderInUse
from include.local.postgres import OWNER, Cluster, Postgres, remove_cluster
from include.warehouse.database import open_engine
from include.warehouse.migrate import migrate
from include.warehouse.roles import LOGINS

TEMPLATE = "warehouse_template"

_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 6 * 2**30
_NAME = "settlement-tests-"
_BEING_MADE_SECONDS = 60.0


@dataclass(frozen=True)
class Warehouse:
    """A warehouse of one test: who may reach it, and engines for its owner and the pipelines."""

    owner_url: str = field(repr=False)
    pipelines_url: str = field(repr=False)
    finance_url: str = field(repr=False)
    outbox_url: str = field(repr=False)
    register_url: str = field(repr=False)
    credits_url: str = field(repr=False)
    owner_engine: Engine
    engine: Engine


@contextmanager
def quick_server() -> Iterator[Postgres]:
    """A server that need not outlive the machine: every test copies a database of 400 files.

    Its data lies in memory where there is room for it.
    """
    place = _MEMORY if _is_usable(_MEMORY) else Path(tempfile.gettempdir())
    _remove_left_behind(place)
    folder = Path(tempfile.mkdtemp(prefix=_NAME, dir=place))
    try:
        with Postgres(folder / "postgres", private_below=place) as server:
            _hurry(server)
            yield server
    finally:
        _remove(folder)


def _is_usable(memory: Path) -> bool:
    """Whether there is such a place that has room and lets programs run."""
    if not os.access(memory, os.W_OK):
        return False
    state = os.statvfs(memory)
    has_room = state.f_bavail * state.f_frsize >= _MEMORY_BYTES
    return has_room and not state.f_flag & os.ST_NOEXEC


def _remove_left_behind(place: Path) -> None:
    """Remove the servers of tests that were killed."""
    for folder in place.glob(f"{_NAME}*"):
        with suppress(FolderInUse, OSError):
            if time.time() - folder.stat().st_mtime > _BEING_MADE_SECONDS:
                _remove(folder)


def _remove(folder: Path) -> None:
    if (folder / "postgres").exists():
        remove_cluster(folder / "postgres")
    shutil.rmtree(folder)


def _hurry(server: Postgres) -> None:
    """Little to keep in memory, and passwords that cost no processor time to log in with: tests
    connect some ten thousand times.
    """
    engine = open_engine(server.url(OWNER))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET max_wal_size = '256MB'"))
        connection.execute(text("ALTER SYSTEM SET scram_iterations = 1"))
        connection.execute(text("SELECT pg_reload_conf()"))
        # Those of other logins are set later.
        connection.execute(text("SET scram_iterations = 1"))
        connection.execute(
            text(f"ALTER ROLE {OWNER} PASSWORD :password"), {"password": server.password(OWNER)}
        )
    engine.dispose()


def make_template(cluster: Cluster) -> None:
    """Migrate the database from which warehouses are copied."""
    cluster.create_database(TEMPLATE)
    migrate(cluster.url(TEMPLATE), {login: cluster.password(login) for login in LOGINS})


@contextmanager
def empty_database(cluster: Cluster) -> Iterator[str]:
    """The name of a new database with nothing in it, dropped at the end."""
    name = f"empty_{uuid4().hex}"
    cluster.create_database(name)
    try:
        yield name
    finally:
        cluster.drop_database(name)


@contextmanager
def fresh_warehouse(cluster: Cluster) -> Iterator[Warehouse]:
    """A copy of the template, dropped at the end whoever is still connected to it."""
    name = f"warehouse_{uuid4().hex}"
    _copy_template(cluster, name)
    warehouse = Warehouse(
        owner_url=cluster.url(name),
        pipelines_url=cluster.url(name, "pipelines"),
        finance_url=cluster.url(name, "finance"),
        outbox_url=cluster.url(name, "outbox"),
        register_url=cluster.url(name, "register"),
        credits_url=cluster.url(name, "credits"),
        owner_engine=open_engine(cluster.url(name)),
        engine=open_engine(cluster.url(name, "pipelines")),
    )
    try:
        yield warehouse
    finally:
        warehouse.owner_engine.dispose()
        warehouse.engine.dispose()
        cluster.drop_database(name)


def _copy_template(cluster: Cluster, name: str) -> None:
    engine = open_engine(cluster.url("postgres"))
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Two thirds of what writing each page to the log as well takes.
            connection.execute(
                text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
            )
    finally:
        engine.dispose()
