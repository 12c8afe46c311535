"""From Airflow connections to the clients and engines of the rooms below.

Hosts and keys come from here and from nowhere else; whoever runs a DAG cannot name one.
"""

from __future__ import annotations

import os
from functools import cache

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret
from sqlalchemy import URL, Engine

from include.catchup.sources import Source
from include.catchup.stream import Feed
from include.payouts.partner import Partner
from include.providers import prediction
from include.providers.http import Account, Client
from include.providers.tote import HintFeed
from include.settings import Settings
from include.warehouse.database import open_engine

WAREHOUSE = "warehouse"
WALLET = "wallet"
PREDICTION = "prediction"

# A host that swallows packets must not hold a task, or an alert, for minutes.
_CONNECT_SECONDS = "10"


class ConnectionIncomplete(Exception):
    """An Airflow connection is missing or lacks a field; the message says which and where."""

    def __init__(self, connection_id: str, lacking: str, fields: str) -> None:
        self.connection_id = connection_id
        self.lacking = lacking
        super().__init__(
            f"The Airflow connection `{connection_id}` {lacking}. Nothing was read or written. "
            f"Fill in {fields}: {_place(connection_id)}. Then clear this task."
        )


def read_connection(connection_id: str, fields: str) -> Connection:
    """The Airflow connection of that name.

    `fields` tells what belongs into it, for the message of `ConnectionIncomplete` if it is missing.
    """
    try:
        connection: Connection = Connection.get(connection_id)
    except AirflowNotFoundException:
        raise ConnectionIncomplete(connection_id, "does not exist", fields) from None
    if connection.password:
        mask_secret(connection.password)
    return connection


def _place(connection_id: str) -> str:
    """Where the connection is to be corrected: Airflow looks at its own pages last."""
    variable = f"AIRFLOW_CONN_{connection_id.upper()}"
    if variable in os.environ:
        return (
            f"in the environment variable {variable}, which counts before what Airflow's pages "
            "say (with Docker Compose: in `.env`, then `docker compose up --detach`)"
        )
    return (
        "in Airflow under Admin → Connections, which takes the role Op, or in the environment "
        f"variable {variable}"
    )


def open_warehouse() -> Engine:
    """The engine of this process for the warehouse, from the connection `warehouse`.

    What the connection's extra holds goes to libpq (`sslmode`, `sslrootcert`, …).
    """
    fields = "host, port, schema (the database), login (pipelines) and password"
    connection = read_connection(WAREHOUSE, fields)
    for field in ("host", "schema", "login"):
        if not getattr(connection, field):
            raise ConnectionIncomplete(WAREHOUSE, f"has no {field}", fields)
    options = {name: str(value) for name, value in connection.extra_dejson.items()}
    url = URL.create(
        "postgresql",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port or 5432,
        database=connection.schema,
        query={"connect_timeout": _CONNECT_SECONDS, **options},
    )
    return _engine(url.render_as_string(hide_password=False))


def open_source(source: Source, settings: Settings) -> Client | Feed:
    """What reads the source's provider, from the connection of the same name; close it."""
    return source.open_client(_account(source), settings)


def open_hints(source: Source, settings: Settings) -> HintFeed:
    """What hints at changes at the source's provider, from the same connection."""
    assert source.open_hints is not None
    return source.open_hints(_account(source), settings)


def _account(source: Source) -> Account:
    fields = (
        "the key as password and the address as `base_url` in extra, with it `client_id` if the "
        "provider has given one"
    )
    connection = read_connection(source.name, fields)
    if not connection.password:
        raise ConnectionIncomplete(source.name, "has no password", fields)
    base_url = base_address(connection)
    if base_url is None:
        raise ConnectionIncomplete(source.name, "has no address", fields)
    client_id = connection.extra_dejson.get("client_id")
    return Account(base_url, connection.password, None if client_id is None else str(client_id))


def open_partner() -> Partner:
    """The partner whose wallet is told of payouts, from the connection `wallet`."""
    fields = (
        "the address as `base_url` in extra, the api key as password and the secret that signs "
        "requests as `signing_secret` in extra"
    )
    connection = read_connection(WALLET, fields)
    # Airflow masks what stands in `extra` under such a name, once it was read in this way.
    signing_secret = connection.extra_dejson.get("signing_secret")
    base_url = base_address(connection)
    if base_url is None:
        raise ConnectionIncomplete(WALLET, "has no address", fields)
    if not connection.password:
        raise ConnectionIncomplete(WALLET, "has no password, which is the api key", fields)
    if not isinstance(signing_secret, str) or not signing_secret:
        raise ConnectionIncomplete(WALLET, "has no `signing_secret` in extra", fields)
    return Partner(base_url, connection.password, signing_secret)


def open_prediction(settings: Settings) -> Client:
    """The prediction engine, from the connection `prediction`; close it."""
    fields = "the address, which ends in /api/v1, as `base_url` in extra and the key as password"
    connection = read_connection(PREDICTION, fields)
    base_url = base_address(connection)
    if base_url is None:
        raise ConnectionIncomplete(PREDICTION, "has no address", fields)
    if not connection.password:
        raise ConnectionIncomplete(PREDICTION, "has no password, which is the key", fields)
    return prediction.open_client(base_url, connection.password, settings)


def base_address(connection: Connection) -> str | None:
    """`base_url` in the connection's extra, else its host, port and schema; None if neither."""
    if base_url := connection.extra_dejson.get("base_url"):
        return str(base_url)
    if not connection.host:
        return None
    if "://" in connection.host:
        return connection.host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{connection.host}{port}"


@cache
def _engine(url: str) -> Engine:
    return open_engine(url)
