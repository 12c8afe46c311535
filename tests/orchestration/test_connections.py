"""Connections: what they must hold, and what is said when they do not."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from include.catchup.sources import SOURCES
from include.orchestration.connections import (
    ConnectionIncomplete,
    open_partner,
    open_source,
    open_warehouse,
)
from include.payouts.partner import Partner
from include.providers.errors import Fatal
from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.warehouses import Warehouse

SOURCE = SOURCES["ticktock"]


def test_the_warehouse_is_reached_by_its_connection(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_warehouse(monkeypatch, warehouse, extra={"sslmode": "disable"})
    engine = open_warehouse()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT session_user")) == "pipelines"
    assert open_warehouse() is engine
    engine.dispose()


def test_a_password_with_every_kind_of_character_arrives_whole(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@ss:w/o%rd?&=#ü ' \\"
    with warehouse.owner_engine.begin() as connection:
        connection.execute(text("CREATE ROLE odd_login LOGIN"))
        quoted = connection.scalar(text("SELECT quote_literal(:it)"), {"it": password})
        connection.exec_driver_sql(f"ALTER ROLE odd_login PASSWORD {quoted}".replace("%", "%%"))
    try:
        give_warehouse(monkeypatch, warehouse, login="odd_login", password=password)
        engine = open_warehouse()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT session_user")) == "odd_login"
        engine.dispose()
    finally:
        with warehouse.owner_engine.begin() as connection:
            connection.execute(text("DROP ROLE odd_login"))


def test_a_missing_connection_is_named_with_what_belongs_into_it() -> None:
    with pytest.raises(ConnectionIncomplete) as caught:
        open_warehouse()
    message = str(caught.value)
    assert "`warehouse` does not exist" in message
    assert "AIRFLOW_CONN_WAREHOUSE" in message
    assert "host, port, schema" in message
    assert "clear this task" in message


def test_where_a_connection_is_corrected_is_where_airflow_looks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConnectionIncomplete, match="Admin → Connections, which takes the role Op"):
        open_partner()
    give_connection(monkeypatch, "wallet", conn_type="http", password="a-key")
    with pytest.raises(ConnectionIncomplete, match="`wallet` has no address") as caught:
        open_partner()
    message = str(caught.value)
    assert "AIRFLOW_CONN_WALLET, which counts before what Airflow's pages say" in message
    assert "in `.env`, then `docker compose up --detach`" in message
    assert "Admin" not in message


@pytest.mark.parametrize("field", ["host", "schema", "login"])
def test_a_field_that_the_warehouse_lacks_is_named(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"host": "h", "schema": "s", "login": "l", "password": "never-shown"}
    give_connection(monkeypatch, "warehouse", conn_type="postgres", **{**fields, field: None})
    with pytest.raises(ConnectionIncomplete, match=f"has no {field}") as caught:
        open_warehouse()
    assert "never-shown" not in str(caught.value)


def test_a_source_is_reached_by_the_connection_of_its_name(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(
        monkeypatch,
        "ticktock",
        conn_type="http",
        password=TICKTOCK_KEY,
        extra={"base_url": sandbox.ticktock_url},
    )
    with open_source(SOURCE, Settings()) as client:
        assert client.get("/settlements", {"limit": 1}).status == 200


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ({"extra": {"base_url": "http://127.0.0.1:1"}}, "has no password"),
        ({"password": "never-shown"}, "has no address"),
    ],
)
def test_what_a_source_lacks_is_named(
    fields: dict[str, Any], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(monkeypatch, "ticktock", conn_type="http", **fields)
    with pytest.raises(ConnectionIncomplete, match=lacking) as caught:
        open_source(SOURCE, Settings())
    assert "never-shown" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"host": "127.0.0.1", "port": 9, "schema": "http"}, "http://127.0.0.1:9"),
        ({"host": "http://127.0.0.1/path"}, "http://127.0.0.1/path"),
        ({"host": "ignored", "extra": {"base_url": "http://127.0.0.1/x"}}, "http://127.0.0.1/x"),
    ],
)
def test_an_address_comes_from_extra_or_from_host_and_port(
    fields: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.connections import base_address, read_connection

    give_connection(monkeypatch, "ticktock", conn_type="http", **fields)
    assert base_address(read_connection("ticktock", "")) == address


def test_a_useless_address_is_refused_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    give_connection(
        monkeypatch, "ticktock", conn_type="http", password="k", extra={"base_url": "file:///etc"}
    )
    with pytest.raises(Fatal, match="Airflow connection `ticktock`"):
        open_source(SOURCE, Settings())


WALLET = {
    "conn_type": "http",
    "password": "a-key",
    "extra": {"base_url": "https://partner.test/v1", "signing_secret": "a-signing-secret"},
}


def test_the_partner_is_what_the_connection_wallet_says(monkeypatch: pytest.MonkeyPatch) -> None:
    give_connection(monkeypatch, "wallet", **WALLET)
    partner = open_partner()
    assert partner == Partner("https://partner.test/v1", "a-key", "a-signing-secret")
    shown = repr(partner)
    assert "a-key" not in shown
    assert "a-signing-secret" not in shown


def test_the_partner_may_be_given_by_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"host": "127.0.0.1", "port": 9, "schema": "http", "extra": {"signing_secret": "s"}}
    give_connection(monkeypatch, "wallet", **WALLET | changes)
    assert open_partner().base_url == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"password": None}, "has no password, which is the api key"),
        ({"extra": {"signing_secret": "a-signing-secret"}}, "has no address"),
        ({"extra": {"base_url": "http://127.0.0.1:1"}}, "has no `signing_secret` in extra"),
        (
            {"extra": {"base_url": "http://127.0.0.1:1", "signing_secret": ""}},
            "has no `signing_secret` in extra",
        ),
    ],
)
def test_what_the_wallet_lacks_is_named(
    changes: dict[str, Any], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(monkeypatch, "wallet", **WALLET | changes)
    with pytest.raises(ConnectionIncomplete, match=lacking) as caught:
        open_partner()
    message = str(caught.value)
    assert "AIRFLOW_CONN_WALLET" in message
    assert "Nothing was read or written" in message
    assert "a-key" not in message
    assert "a-signing-secret" not in message


def test_the_key_and_the_signing_secret_are_masked_wherever_they_are_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk import Connection
    from airflow.sdk.log import redact

    # As a secrets backend may hand it over, with nothing masked by Airflow itself.
    stored = Connection(
        conn_id="wallet",
        conn_type="http",
        host="partner.test",
        password="k7Qx-from-the-store",
        extra='{"signing_secret": "s9Zw-from-the-store"}',
    )
    monkeypatch.setattr(Connection, "get", lambda _id: stored)
    open_partner()
    assert redact("k7Qx-from-the-store, s9Zw-from-the-store") == "***, ***"
