"""Airflow connections as tests give them: environment variables, the way operators may too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.warehouses import Warehouse


def give_connection(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Define the Airflow connection `name`."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))


def give_warehouse(monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse, **changes: Any) -> None:
    """Define the connection `warehouse` with the login of the pipelines."""
    url = make_url(warehouse.pipelines_url)
    fields = {
        "conn_type": "postgres",
        "host": url.host,
        "port": url.port,
        "schema": url.database,
        "login": url.username,
        "password": url.password,
    }
    give_connection(monkeypatch, "warehouse", **{**fields, **changes})
