"""The committed data dictionary is that of the warehouse, and nothing in it goes unexplained."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from include.finance import dictionary
from tests.warehouses import Warehouse

_ROOT = Path(__file__).parents[2]


def test_the_committed_dictionary_describes_the_warehouse(shared_warehouse: Warehouse) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        dictionary.check(connection)


def test_it_is_the_same_for_every_login(shared_warehouse: Warehouse) -> None:
    with (
        shared_warehouse.owner_engine.connect() as owner,
        shared_warehouse.engine.connect() as pipelines,
    ):
        assert dictionary.render(pipelines) == dictionary.render(owner)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE core.untold (id integer)", "table core.untold, column core.untold.id"),
        ("CREATE VIEW finance.untold AS SELECT 1 AS one", "view finance.untold, column"),
        ("COMMENT ON COLUMN ops.batch.state IS NULL", "Without a comment: column ops.batch.state."),
        ("COMMENT ON SCHEMA raw IS NULL", "Without a comment: schema raw."),
        (
            "CREATE FUNCTION finance.untold(day date) RETURNS date LANGUAGE sql AS 'SELECT day'",
            "Without a comment: function finance.untold(day date).",
        ),
    ],
)
def test_what_has_no_comment_is_refused_by_name(
    shared_warehouse: Warehouse, statement: str, named: str
) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        connection.execute(text(statement))
        with pytest.raises(dictionary.Uncommented, match=re.escape(named)):
            dictionary.render(connection)


def test_months_of_pages_are_not_described_one_by_one(shared_warehouse: Warehouse) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        before = dictionary.render(connection)
        connection.execute(text("SELECT raw.ensure_page_month('2026-11-21Z')"))
        assert dictionary.render(connection) == before


def test_a_difference_is_told_and_not_overwritten(
    shared_warehouse: Warehouse, tmp_path: Path
) -> None:
    stale = tmp_path / "DICTIONARY.md"
    stale.write_text("Something else.", encoding="utf-8")
    with shared_warehouse.owner_engine.connect() as connection:
        with pytest.raises(dictionary.DictionaryDiffers, match=r"python -m include\.finance"):
            dictionary.check(connection, stale)
        assert stale.read_text(encoding="utf-8") == "Something else."
        dictionary.write(connection, stale)
        dictionary.check(connection, stale)


def test_a_bar_in_a_comment_does_not_break_the_table(shared_warehouse: Warehouse) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        connection.execute(text("COMMENT ON COLUMN ops.batch.state IS E'this | or\\nthat'"))
        assert "| this \\| or that |" in dictionary.render(connection)


@pytest.mark.parametrize(
    ("arguments", "url_is_given", "expected"),
    [(["--check"], True, 0), (["--check"], False, 2), (["--chekc"], True, 2)],
)
def test_the_command_answers_by_its_exit_code(
    shared_warehouse: Warehouse, arguments: list[str], url_is_given: bool, expected: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WAREHOUSE_URL"}
    if url_is_given:
        environment["WAREHOUSE_URL"] = shared_warehouse.finance_url
    done = subprocess.run(
        [sys.executable, "-m", "include.finance", "dictionary", *arguments],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expected, done.stderr


def test_a_warehouse_that_is_away_is_told_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "include.finance", "dictionary", "--check"],
        cwd=_ROOT,
        env={**os.environ, "WAREHOUSE_URL": "postgresql://finance@127.0.0.1:1/warehouse"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("The warehouse does not answer")
