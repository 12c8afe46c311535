"""`make bench` measures what it says: each way stores all it is given, and its figures are made."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
from rich.console import Console

from include.local.postgres import Postgres
from include.providers import odds88, ticktock
from tests.bench.__main__ import make_parser
from tests.bench.bets import LEGS, MESSAGE_BYTES, BetFile, write_bets
from tests.bench.comparing import GATES, MOVING, Results, compare, print_comparison
from tests.bench.listening import listen, print_listening
from tests.bench.log import ENTRY_BYTES, LogFile, write_log
from tests.bench.markets import print_settled, settle
from tests.bench.measuring import (
    FLAT,
    LAND_AGAIN,
    LOAD,
    NESTED,
    NotAllStored,
    Shape,
    Way,
    check_stored,
)
from tests.bench.polling import MORE_MEMORY_MB, poll, print_polling, shortcomings
from tests.bench.scaling import QUESTIONS, Scale, ask, print_scale, scale, stretches
from tests.bench.server import NotDurable, describe_server
from tests.warehouses import Warehouse, empty_database

PROJECT = Path(__file__).parents[1]
ENTRIES = 450
BETS = 200


def installed(shape: Shape) -> Shape:
    """The ways whose environment is there: only `make bench` makes that of dlt."""
    return replace(shape, peers=tuple(way for way in shape.peers if way.python.exists()))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "log"
    write_log(path, 2 * ENTRIES)
    return path


@pytest.fixture(scope="module")
def results(migrated_postgres: Postgres, log: Path) -> Results:
    """One round of every way; each one's rows are counted as it ends."""
    return compare(quiet(), migrated_postgres, log, ENTRIES, 1, installed(FLAT))


@pytest.fixture(scope="module")
def bets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "bets"
    write_bets(path, BETS)
    return path


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
    assert set(results) == {LOAD, LAND_AGAIN, *installed(FLAT).peers}
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


def test_bets_are_measured_in_every_way_with_all_their_legs(
    migrated_postgres: Postgres, bets: Path
) -> None:
    """Each way is checked to have stored every bet and two legs of each."""
    shape = installed(NESTED)
    results = compare(quiet(), migrated_postgres, bets, BETS, 1, shape)
    assert set(results) == {shape.load, shape.land_again, *shape.peers}
    console = quiet()
    print_comparison(console, BETS, results, shape)
    assert f"{BETS} bets of two legs" in printed(console)


def test_a_way_that_stored_bets_without_all_their_legs_is_not_measured(
    migrated_postgres: Postgres,
) -> None:
    way = NESTED.peers[-1]
    with empty_database(migrated_postgres) as name:
        url = migrated_postgres.url(name)
        owner = psycopg2.connect(url)
        try:
            with owner, owner.cursor() as cursor:
                cursor.execute(
                    f"CREATE TABLE plain_bet AS SELECT generate_series(1, {BETS});"
                    f"CREATE TABLE plain_leg AS SELECT generate_series(2, {LEGS * BETS})"
                )
        finally:
            owner.close()
        with pytest.raises(NotAllStored, match=f"stored {BETS - 1} of {BETS}"):
            check_stored(way, url, BETS)


def test_live_messages_are_timed_until_their_rows_are_committed(
    migrated_postgres: Postgres, tmp_path: Path
) -> None:
    listening = listen(migrated_postgres, tmp_path, messages=20, seconds_between=0.01)
    assert len(listening.seconds) == 20
    assert all(seconds > 0 for seconds in listening.seconds)
    console = quiet()
    print_listening(console, listening)
    assert re.search(r"20 live messages .* median \d+\.\d\d s", printed(console))


def test_markets_are_settled_published_and_credited_in_two_sizes(
    migrated_postgres: Postgres, tmp_path: Path
) -> None:
    """Each market is checked to be done, each settlement to be published, what pays credited."""
    tenth, whole = settle(quiet(), migrated_postgres, tmp_path, 10, positions=5)
    assert [(one.markets, one.settlements) for one in (tenth, whole)] == [(1, 5), (10, 50)]
    console = quiet()
    print_settled(console, [tenth, whole])
    for stage in ("plan", "settle", "fetch_payouts", "check", "publish", "credit, owed"):
        assert re.search(rf"{stage} +│ +\d+\.\d +│ +\d+\.\d ", printed(console)), stage
    assert re.search(r"50 settlements: [\d,]+ a second; client memory \d+ MB", printed(console))


def test_open_bets_are_asked_for_by_the_fewest_calls_and_whatever_else_is_told(
    migrated_postgres: Postgres, tmp_path: Path
) -> None:
    """Each bet is checked to have been told, to have landed, and to be open still."""
    fewer, polled = poll(migrated_postgres, tmp_path, 510)
    assert [(one.bets, one.calls) for one in (fewer, polled)] == [(51, 1), (510, 3)]
    assert list(shortcomings([fewer, polled])) == []
    console = quiet()
    print_polling(console, [fewer, polled])
    assert re.search(r"510 +│ 3 +│ 3 +│ 1 +│ \d+\.\d", printed(console))

    larger = replace(polled.measured, memory_mb=fewer.measured.memory_mb + MORE_MEMORY_MB + 1)
    assert list(shortcomings([fewer, replace(polled, calls=4, measured=larger)])) == [
        "510 bets took 4 calls instead of 3.",
        "510 bets took 17 MB more memory than 51 did, and 16 are allowed.",
    ]


def test_the_bets_are_documented_ones_of_one_length_in_order(bets: Path) -> None:
    messages = [*BetFile(bets, BETS).messages()]
    assert {len(message) for message in messages} == {MESSAGE_BYTES}
    read = [odds88.read_message(message) for message in messages]
    assert not any(message.unknown_fields for message in read)
    terms = odds88.Terms("major", payout_contains_refund=True)
    settled = [
        odds88.settle(odds88.read_bet(json.dumps(bet).encode()), terms)
        for several in BetFile(bets, BETS).bets()
        for bet in several
    ]
    assert len(settled) == BETS
    assert {len(settlement.legs) for settlement in settled} == {LEGS}
    orders = [settlement.provider_order for settlement in settled]
    assert orders == sorted(set(orders))
    # The last of 33 corrects a bet of two blocks before, in every second block.
    assert len({settlement.source_key for settlement in settled}) == BETS - 2
    corrections = [
        settlement for settlement in settled if settlement.legs[0].settlement_version == 2
    ]
    assert len(corrections) == 2


def test_the_bets_can_be_asked_for_since_any_second(bets: Path) -> None:
    file = BetFile(bets, BETS)
    (whole,) = file.bets()
    since = datetime.fromisoformat(whole[123]["settlementTime"])
    told = [*file.messages(int(since.timestamp()))]
    assert [json.loads(message)["data"] for message in told] == whole[123:]
    assert [*file.messages(int(datetime.now(UTC).timestamp()))] == []


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
        "NESTED": "--nested",
        "SCALE": "--scale",
        "PAYOUTS": "--payouts",
        "BETS": "--bets",
        "MARKETS": "--markets",
    }
    for option in passed.values():
        assert getattr(make_parser().parse_args([option, "5"]), option[2:]) == 5
    told = dict(re.findall(r"(\w+)=(\d+)", recipe.splitlines()[0]))
    entries = str(make_parser().get_default("entries"))
    assert told == {
        "ENTRIES": entries,
        "NESTED": "200000",
        "SCALE": "10000000",
        "PAYOUTS": "1000000",
        "BETS": "100000",
        "MARKETS": "1000",
    }


def test_the_readme_names_no_other_way_to_measure() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert "`make bench" in readme
    named = set(re.findall(r"`make bench ([A-Z]+)=", readme))
    assert named <= {"ENTRIES", "ROUNDS", "NESTED", "SCALE", "PAYOUTS", "BETS", "MARKETS"}
