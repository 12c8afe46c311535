"""`make bench` measures what it says: each way stores all it is given, and its figures are made."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import psycopg2
import pytest
from rich.console import Console

from include.local.postgres import Postgres
from include.providers import ticktock
from tests.bench.__main__ import make_parser
from tests.bench.comparing import GATES, MOVING, Results, compare, print_comparison
from tests.bench.log import ENTRY_BYTES, LogFile, write_log
from tests.bench.measuring import LAND_AGAIN, LOAD, PEERS, NotAllStored, Way, check_stored
from tests.bench.scaling import QUESTIONS, Scale, ask, print_scale, scale, stretches
from tests.bench.server import NotDurable, describe_server
from tests.warehouses import Warehouse, empty_database

PROJECT = Path(__file__).parents[1]
ENTRIES = 450
# Those whose environment is there: `make bench` makes the one of dlt, nothing else needs it.
INSTALLED = tuple(way for way in PEERS if way.python.exists())


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "log"
    write_log(path, 2 * ENTRIES)
    return path


@pytest.fixture(scope="module")
def results(migrated_postgres: Postgres, log: Path) -> Results:
    """One round of every way; each one's rows are counted as it ends."""
    return compare(quiet(), migrated_postgres, log, ENTRIES, 1, INSTALLED)


@pytest.fixture(scope="module")
def scaled(migrated_postgres: Postgres, log: Path) -> Scale:
    """The scale run, on very little."""
    return scale(quiet(), migrated_postgres, log, 200, step=200, more=100, repeats=1)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_way_is_timed_stage_by_stage_and_its_memory_is_seen(results: Results) -> None:
    assert set(results) == {LOAD, LAND_AGAIN, *INSTALLED}
    for way, (measured,) in results.items():
        assert measured.stages, way
        assert all(seconds > 0 for seconds in measured.stages.values()), way
        assert sum(measured.client_processor.values()) > 0, way
        assert set(measured.server_processor) == set(measured.stages), way
        assert measured.memory_mb >= measured.started_mb > 10, way
    assert sum(results[LOAD][0].server_processor.values()) > 0


def test_the_gates_are_timed_apart_and_their_memory_is_not_the_pipelines(results: Results) -> None:
    (ours,) = results[LOAD]
    assert set(ours.stages) == {*MOVING, *GATES}
    assert ours.gates_mb > ours.memory_mb


def test_the_comparison_names_every_way_with_its_figures(results: Results) -> None:
    console = quiet()
    print_comparison(console, ENTRIES, results)
    rows = [
        "land + normalize + publish",
        "the same with both gates",
        *(way.name for way in results if way is not LOAD),
    ]
    for row in rows:
        assert re.search(rf"{re.escape(row)} +│ +[\d,]+ +│ \d+\.\d\d +│ \d+", printed(console)), row


def test_a_way_that_did_not_store_everything_is_not_measured(migrated_postgres: Postgres) -> None:
    lossy = Way("lossy", "-", "SELECT 449")
    with empty_database(migrated_postgres) as name:
        url = migrated_postgres.url(name)
        with pytest.raises(NotAllStored, match="lossy stored 449 of 450 entries"):
            check_stored(lossy, url, ENTRIES)
        check_stored(lossy, url, 449)


@pytest.mark.parametrize("way", [LOAD, LAND_AGAIN], ids=lambda way: way.function)
def test_an_empty_warehouse_is_not_taken_for_a_loaded_one(way: Way, warehouse: Warehouse) -> None:
    with pytest.raises(NotAllStored, match="stored 0 of 450"):
        check_stored(way, warehouse.owner_url, ENTRIES)


def test_a_server_that_may_lose_commits_is_refused(migrated_postgres: Postgres) -> None:
    assert "fsync on" in describe_server(migrated_postgres)
    connection = psycopg2.connect(migrated_postgres.url("postgres"))
    connection.autocommit = True
    try:
        connection.cursor().execute("ALTER ROLE postgres SET synchronous_commit = off")
        with pytest.raises(NotDurable, match="'synchronous_commit': 'off'"):
            describe_server(migrated_postgres)
    finally:
        connection.cursor().execute("ALTER ROLE postgres RESET synchronous_commit")
        connection.close()


def test_the_logs_entries_are_documented_ones_of_one_length_in_order(log: Path) -> None:
    pages = [ticktock.read_page(body) for body in LogFile(log, 2 * ENTRIES).pages()]
    entries = [entry for page in pages for entry in page.entries]
    assert [page.provider_count for page in pages] == [200, 200, 200, 200, 100]
    assert not any(page.unknown_fields for page in pages)
    assert {entry.record.byte_length for entry in entries} == {ENTRY_BYTES}
    numbers = [int(entry.entry_id or "") for entry in entries]
    assert numbers == list(range(numbers[0], numbers[0] + 2 * ENTRIES))


def test_three_in_a_hundred_entries_correct_an_earlier_one(tmp_path: Path) -> None:
    write_log(tmp_path / "log", 3_300, first=200_000)
    body = LogFile(tmp_path / "log", 3_300).page(0, 3_300)
    corrections = [entry for entry in json.loads(body)["data"] if entry["is_resettlement"]]
    assert len(corrections) == 100
    assert {entry["outcome"] for entry in corrections} == {"lost"}


def test_a_page_can_be_asked_for_from_any_entry_on(log: Path) -> None:
    whole = json.loads(LogFile(log, 2 * ENTRIES).page(0, 500))["data"]
    assert json.loads(LogFile(log, 2 * ENTRIES).page(123, 7))["data"] == whole[123:130]
    assert json.loads(LogFile(log, 125).page(123))["data"] == whole[123:125]
    assert json.loads(LogFile(log, 125).page(125)) == {"data": [], "meta": {"count": 0}}


def test_a_scale_run_loads_step_by_step_and_then_some_more(scaled: Scale) -> None:
    assert stretches(300, 200) == [(0, 200), (200, 300)]
    assert [entries for entries, _ in scaled.steps] == [200]
    for measured in (*scaled.on_empty, *scaled.on_full):
        assert set(measured.stages) == {*MOVING, *GATES}
    for measured in (*scaled.again_on_empty, *scaled.again_on_full):
        assert set(measured.stages) == {"land again"}


def test_a_scale_run_asks_finances_questions(scaled: Scale) -> None:
    rows = {name: answer.rows for name, answer in scaled.answers.items()}
    assert set(rows) == set(QUESTIONS)
    assert rows["one subject's history"] == 2
    assert rows["one subject as it stands"] == 1
    assert all(rows.values()), rows
    console = quiet()
    print_scale(console, scaled)
    assert all(name in printed(console) for name in QUESTIONS)


def test_a_question_that_takes_too_long_is_told_so(
    warehouse: Warehouse, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.bench.scaling.QUESTIONS",
        {"slow": "SELECT set_config('statement_timeout', '50', false); SELECT pg_sleep(60)"},
    )
    (answer,) = ask(quiet(), warehouse.finance_url, log, ENTRIES).values()
    assert answer.is_stopped
    assert answer.later_seconds is None


def test_the_makefile_passes_on_what_it_names_with_the_defaults_it_tells() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\nbench:")[2].partition("\n\n")[0]
    passed = dict(re.findall(r"\$\(if \$\((\w+)\),(--\w+) \$\(\1\)\)", recipe))
    assert passed == {
        "ENTRIES": "--entries",
        "ROUNDS": "--rounds",
        "SCALE": "--scale",
        "PAYOUTS": "--payouts",
    }
    for option in passed.values():
        assert getattr(make_parser().parse_args([option, "5"]), option[2:]) == 5
    told = dict(re.findall(r"(\w+)=(\d+)", recipe.splitlines()[0]))
    entries = str(make_parser().get_default("entries"))
    assert told == {"ENTRIES": entries, "SCALE": "10000000", "PAYOUTS": "1000000"}


def test_the_readme_names_no_other_way_to_measure() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert "`make bench" in readme
    named = set(re.findall(r"`make bench ([A-Z]+)=", readme))
    assert named <= {"ENTRIES", "ROUNDS", "SCALE", "PAYOUTS"}
