"""Fresh warehouses for tests, copied from one that was migrated once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy import Engine, text

from include.local.postgres import Cluster
from include.warehouse.database import open_engine
from include.warehouse.migrate import migrate
from include.warehouse.roles import LOGINS

TEMPLATE = "warehouse_template"


@dataclass(frozen=True)
class Warehouse:
    """A warehouse of one test: who may reach it, and engines for its owner and the pipelines."""

    owner_url: str = field(repr=False)
    pipelines_url: str = field(repr=False)
    finance_url: str = field(repr=False)
    outbox_url: str = field(repr=False)
    owner_engine: Engine
    engine: Engine


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
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    finally:
        engine.dispose()
