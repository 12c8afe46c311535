"""DAGs are read and run by an Airflow of the tests' own."""

from __future__ import annotations

import pytest

from tests import airflow_home


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's own tables, with every DAG of the project."""
    airflow_home.make_database()
