"""Importing a file of a stream's messages: each line once, whatever file and import meet."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.catchup import files
from include.catchup.__main__ import main
from include.catchup.files import (
    FileImported,
    counts,
    import_file,
    next_steps,
    source_named,
    source_recognized,
)
from include.catchup.sources import SOURCES
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.importing import FileRefused
from include.warehouse.landing import Gap, Landing
from include.warehouse.publishing import publish
from tests.killing import Moment, Point, Task, run_and_kill
from tests.warehouses import Warehouse

SOURCE = SOURCES["odds88"]
# Small commits, so that a short file has several.
SETTINGS = Settings(
    land_commit_records=4,
    odds88_payout_unit="major",
    odds88_payout_contains_partial_refund=True,
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PING = b'{"pingId":"p1","data":null}'
# Of an import in three pieces.
IMPORT_COMMITS = (
    "files._open_gaps",
    "landing.__init__",
    "landing.add",
    "landing.add",
    "landing.add",
    "landing.close",
)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def message(number: int, **changes: Any) -> bytes:
    """What the stream sends about bet `b<number>`, settled in the minute of that number."""
    bet = {
        "betId": f"b{number}",
        "betSettlement": 2,
        "isCancelled": False,
        "isRejected": False,
        "settlementTime": f"2026-11-15T{number // 60:02}:{number % 60:02}:00Z",
        "payout": 0,
        **changes,
    }
    return json.dumps({"pingId": None, "data": bet}).encode()


def messages(count: int) -> list[bytes]:
    return [message(number) for number in range(count)]


def put(folder: Path, *lines: bytes, name: str = "odds88-2026-11-15.ndjson") -> Path:
    path = folder / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def bring(warehouse: Warehouse, path: Path, settings: Settings = SETTINGS) -> FileImported:
    return import_file(warehouse.engine, SOURCE, path, settings)


def refused(warehouse: Warehouse, path: Path, settings: Settings = SETTINGS) -> str:
    with pytest.raises(FileRefused) as caught:
        bring(warehouse, path, settings)
    return str(caught.value)


def push(warehouse: Warehouse) -> None:
    """The tasks behind `land`, as the source's DAG runs them."""
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    publish(warehouse.engine, SOURCE.name)


def rows(connection: Connection, query: str) -> list[Any]:
    return list(connection.execute(text(query)))


def landed(connection: Connection) -> list[tuple[str, bytes]]:
    """Key and exact text of every record, in the order of landing."""
    return [
        (row.record_key, bytes(row.payload))
        for row in rows(
            connection,
            "SELECT record_key, payload FROM raw.record_payload ORDER BY record_id",
        )
    ]


def keys(connection: Connection) -> list[str]:
    return [key for key, _ in landed(connection)]


def quarantined(connection: Connection) -> dict[str, str]:
    """What is held back as unreadable: the exact text, and why."""
    return {
        bytes(row.payload).decode("utf-8", "replace"): row.reason
        for row in rows(
            connection,
            "SELECT payload, reason FROM ops.quarantine JOIN raw.record_payload USING (record_id)"
            " WHERE state = 'open' ORDER BY record_id",
        )
    }


# What lands.


def test_every_message_lands_once_with_its_exact_text_in_a_batch_that_fills(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    sent = messages(10)
    imported = bring(warehouse, put(tmp_path, *sent))
    assert (imported.lines, imported.landed, imported.duplicates) == (10, 10, 0)
    assert (imported.first_at, imported.last_at) == (
        datetime(2026, 11, 15, 0, 0, tzinfo=UTC),
        datetime(2026, 11, 15, 0, 9, tzinfo=UTC),
    )
    texts = [json.dumps(json.loads(line)["data"]).encode() for line in sent]
    assert landed(connection) == [(f"b{n}", line) for n, line in enumerate(texts)]
    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert imported.batches == [batch.batch_id]
    assert (batch.kind, batch.state, batch.received, batch.landed) == ("fill", "landed", 10, 10)
    assert rows(connection, "SELECT * FROM ops.cursor") == []


def test_pages_are_stored_a_message_a_line_and_say_which_lines_they_are(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    sent = messages(6)
    bring(warehouse, put(tmp_path, *sent))
    pages = rows(connection, "SELECT * FROM raw.page ORDER BY page_id")
    assert [bytes(page.body).split(b"\n") for page in pages] == [sent[:4], sent[4:]]
    assert pages[1].request == "file odds88-2026-11-15.ndjson, lines 5 to 6"


def test_a_page_exported_from_raw_is_a_file_that_brings_nothing_new(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    bring(warehouse, put(tmp_path, *messages(3), b"<html>", PING))
    [page] = rows(connection, "SELECT body FROM raw.page LIMIT 1")
    exported = tmp_path / "odds88-exported.ndjson"
    exported.write_bytes(bytes(page.body))
    again = bring(warehouse, exported)
    assert (again.lines, again.duplicates, again.landed) == (4, 4, 0)


def test_the_same_file_again_lands_nothing_and_leaves_a_batch_that_is_done(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    path = put(tmp_path, *messages(10))
    bring(warehouse, path)
    again = bring(warehouse, path)
    assert (again.lines, again.landed, again.duplicates, again.batches) == (10, 0, 10, [])
    assert len(keys(connection)) == 10
    states = [row.state for row in rows(connection, "SELECT state FROM ops.batch ORDER BY 1")]
    assert states == ["landed", "published"]


def test_only_what_is_not_there_yet_is_new_and_each_state_of_a_bet_is(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    bring(warehouse, put(tmp_path, *messages(3)))
    won = message(1, betSettlement=1)
    imported = bring(warehouse, put(tmp_path, *messages(5), won, won))
    assert (imported.landed, imported.duplicates) == (3, 4)


def test_pings_and_blank_lines_are_nothing_to_land(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    path = put(tmp_path, PING, b"", message(1), b"  ", PING, PING, PING, PING, PING, PING)
    imported = bring(warehouse, path)
    assert (imported.lines, imported.pings, imported.landed) == (8, 7, 1)
    assert keys(connection) == ["b1"]


def test_however_lines_end_the_texts_are_the_same(warehouse: Warehouse, tmp_path: Path) -> None:
    lines = [*messages(5), b"no message"]
    assert bring(warehouse, put(tmp_path, *lines)).landed == 6
    for written in (
        b"\r\n".join(lines),
        BYTE_ORDER_MARK + b"\n".join(lines),
        b"\n\r\n" + b" \n\n\t".join(lines),
    ):
        path = tmp_path / "odds88.jsonl"
        path.write_bytes(written)
        imported = bring(warehouse, path)
        assert (imported.lines, imported.duplicates) == (6, 6)


def test_the_usual_tasks_publish_it(
    sandbox: Sandbox, warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    sandbox.configure("odds88", messages=300)
    sent = sandbox.odds88_messages(0, 300)
    settings = SETTINGS.model_copy(update={"land_commit_records": 100})
    imported = bring(warehouse, put(tmp_path, *(one.encode() for one in sent)), settings)
    push(warehouse)
    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert (batch.kind, batch.state, batch.landed) == ("fill", "published", imported.landed)
    told = {json.loads(one)["data"]["betId"] for one in sent}
    stored = rows(connection, "SELECT source_key FROM core.settlement WHERE is_current")
    assert {row.source_key for row in stored} == told
    assert rows(connection, "SELECT * FROM ops.quarantine") == []


# What is no message.


def test_broken_lines_are_quarantined_with_their_numbers_and_the_others_land(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    cut = message(7)[:40]
    path = put(tmp_path, message(1), b"<html>", b"", b"<html>", b"[]", message(2), cut)
    imported = bring(warehouse, path)
    assert (imported.lines, imported.broken, imported.landed, imported.duplicates) == (6, 4, 5, 1)
    reasons = quarantined(connection)
    assert list(reasons) == ["<html>", "[]", cut.decode()]
    assert reasons["<html>"].startswith(
        "line 2 of odds88-2026-11-15.ndjson: the message cannot be read: "
    )
    assert reasons["[]"].startswith("line 5 of ")
    assert reasons[cut.decode()].startswith("line 7 of ")


def test_broken_lines_keep_no_message_from_being_published(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    bring(warehouse, put(tmp_path, *messages(5), b"\xff\xfe", b"{}"))
    push(warehouse)
    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert (batch.state, batch.landed, batch.published, batch.quarantined) == ("published", 7, 5, 2)
    assert len(quarantined(connection)) == 2


def test_a_broken_line_is_quarantined_once_however_often_it_comes(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    path = put(tmp_path, message(1), *[b"<html>"] * 9)
    bring(warehouse, path)
    push(warehouse)
    bring(warehouse, path)
    push(warehouse)
    [held] = rows(connection, "SELECT * FROM ops.quarantine")
    assert held.state == "open"


def test_a_file_of_anything_else_is_refused_and_leaves_nothing(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    for line in (
        b'{"transactionId":"t1","amount":1,"isWin":true}',
        b'{"data":[{"id":1}],"meta":{"count":1}}',
        b'{"data":{"toteId":"t"}}',
        b"transactionId,refTransactionId,amount",
        b"<!doctype html><title>Log in</title>",
        b"PAR1\x00\x01\x02",
        b"[" * 100_000,
    ):
        told = refused(warehouse, put(tmp_path, line, line))
        assert "None of the first 2 lines of odds88-2026-11-15.ndjson is a message of" in told, line
        assert "Nothing was imported" in told
    for nothing in (b"", b"\n\r\n", BYTE_ORDER_MARK):
        path = tmp_path / "odds88.ndjson"
        path.write_bytes(nothing)
        assert refused(warehouse, path) == "odds88.ndjson holds no line. Nothing was imported."
    assert rows(connection, "SELECT FROM ops.batch") == []


def test_a_line_longer_than_any_message_is_refused_and_those_before_it_stay(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"stream_message_limit_bytes": 2000})
    longest = message(5, betId="x" * (2000 - len(message(5, betId=""))))
    path = put(tmp_path, *messages(5), longest, longest + b" ", b'"' + b"x" * 1999 + b'"')
    told = refused(warehouse, path, settings)
    assert told.startswith("Line 8 is longer than 2000 bytes")
    assert "SETTLEMENTS_STREAM_MESSAGE_LIMIT_BYTES" in told
    assert keys(connection)[:5] == ["b0", "b1", "b2", "b3", "b4"]
    [batch] = rows(connection, "SELECT * FROM ops.batch")
    assert (batch.state, batch.landed) == ("landed", 6)


# Packed files.


def packed(folder: Path, *lines: bytes) -> Path:
    path = folder / "odds88-2026-11-15.ndjson.gz"
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    return path


def test_a_packed_file_lands_the_same(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    imported = bring(warehouse, packed(tmp_path, *messages(10)))
    assert (imported.landed, imported.position) == (10, imported.size)
    assert bring(warehouse, put(tmp_path, *messages(10))).duplicates == 10


def test_a_packed_file_that_is_cut_short_is_refused_and_finished_by_the_whole_one(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    # Incompressible, so that half of the file holds whole lines.
    sent = [message(n, note=os.urandom(3000).hex()) for n in range(20)]
    path = packed(tmp_path, *sent)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told = refused(warehouse, path)
    assert "It cannot be unpacked behind line" in told
    before = len(keys(connection))
    assert 0 < before < 20
    path.write_bytes(whole)
    imported = bring(warehouse, path)
    assert (imported.landed, imported.duplicates) == (20 - before, before)
    assert quarantined(connection) == {}


def test_what_is_no_sound_gzip_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "odds88.ndjson.gz"
    for content in (b"no gzip at all", gzip.compress(message(1))[:-8] + bytes(8)):
        path.write_bytes(content)
        assert "It cannot be unpacked behind line" in refused(warehouse, path)


def test_a_packed_file_that_would_fill_the_machine_is_refused(
    warehouse: Warehouse,
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "_SMALLEST_CAP_BYTES", 100_000)
    told = refused(warehouse, packed(tmp_path, *messages(3), *[b" " * 1000] * 1000))
    assert told.startswith("It unpacks to more than")
    assert "Lines before line" in told
    assert keys(connection) == ["b0", "b1", "b2"]


# Killed, at once with others, and beside the stream.


def test_an_import_killed_at_any_commit_is_finished_by_the_next(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    for number, function in enumerate(IMPORT_COMMITS, 1):
        lines = [message(100 * number + one) for one in range(11)]
        path = put(tmp_path, *lines, b"<html>%d" % number)
        moment = Moment("after", Point("import", number))
        ended = run_and_kill(warehouse.pipelines_url, [importing(path)], moment)
        assert ended == ("killed", f"import {number} ({function})")
        before = len(keys(connection)) - 12 * (number - 1)
        imported = bring(warehouse, path)
        assert (imported.lines, imported.landed, imported.duplicates) == (12, 12 - before, before)
    # The next run of the stream closes what the dead ones left open.
    stream(warehouse).close(has_reached_end=True)
    push(warehouse)
    kills = len(IMPORT_COMMITS)
    assert len(set(keys(connection))) == len(keys(connection)) == 12 * kills
    assert len(rows(connection, "SELECT FROM core.settlement")) == 11 * kills
    assert len(quarantined(connection)) == kills
    assert rows(connection, "SELECT FROM ops.batch WHERE state <> 'published'") == []


def importing(path: Path) -> Task:
    return Task("import", lambda engine: import_file(engine, SOURCE, path, SETTINGS))


def test_two_imports_of_one_file_land_it_once(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    path = put(tmp_path, *messages(60))
    with ThreadPoolExecutor(max_workers=2) as both:
        first, second = (both.submit(bring, warehouse, path).result for _ in range(2))
        assert first().landed + second().landed == 60
    assert sorted(keys(connection)) == sorted(f"b{n}" for n in range(60))


def stream(warehouse: Warehouse) -> Landing:
    """A run of the stream that begins to land."""
    return Landing(warehouse.engine, SOURCE.name, SOURCE.feed, SOURCE.dedupe, "a run")


def test_a_run_of_the_stream_takes_over_what_is_landed_and_the_import_goes_on(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    runs: list[Landing] = []

    def begin_once(imported: FileImported) -> None:
        if not runs:
            runs.append(stream(warehouse))

    path = put(tmp_path, *messages(10))
    imported = import_file(warehouse.engine, SOURCE, path, SETTINGS, begin_once)
    assert len(imported.batches) == 2
    batches = rows(connection, "SELECT kind, state, landed FROM ops.batch ORDER BY batch_id")
    assert [tuple(batch) for batch in batches] == [
        ("fill", "landed", 4),
        ("fetch", "landing", 0),
        ("fill", "landed", 6),
    ]


def test_the_stream_is_not_disturbed(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    run = stream(warehouse)
    cursor = run.read_cursor()
    bring(warehouse, put(tmp_path, *messages(5)))
    run.commit([], cursor, {"caught_up_to": "2026-11-16T00:00:00+00:00"})
    assert run.close(has_reached_end=True).kind == "fetch"
    fetched = rows(connection, "SELECT FROM ops.batch WHERE kind = 'fetch'")
    assert len(fetched) == 1


def test_progress_is_told_after_every_commit(warehouse: Warehouse, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = put(tmp_path, *messages(10))
    import_file(
        warehouse.engine, SOURCE, path, SETTINGS, lambda one: told.append((one.lines, one.landed))
    )
    assert told == [(4, 4), (8, 8), (10, 10)]


# Which gaps it may fill.


def leave_gap(warehouse: Warehouse, after: str | None, before: str) -> None:
    run = stream(warehouse)
    cursor = run.read_cursor()
    run.commit([], cursor, cursor.position, [Gap(after, before, "nobody listened.")])
    run.close(has_reached_end=True)


def test_open_gaps_in_which_messages_lie_are_told_with_the_decision_that_closes_them(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    leave_gap(warehouse, "2026-11-15T00:03:00+00:00", "2026-11-15T00:06:00+00:00")
    leave_gap(warehouse, None, "2026-11-15T00:02:00+00:00")
    leave_gap(warehouse, "2026-11-15T12:00:00+00:00", "2026-11-16T00:00:00+00:00")
    leave_gap(warehouse, "some time", "2026-11-16T00:00:00+00:00")
    leave_gap(warehouse, None, "the sixteenth")
    imported = bring(warehouse, put(tmp_path, *messages(10)))
    findings = rows(connection, "SELECT * FROM ops.finding WHERE kind = 'gap' ORDER BY finding_id")
    assert counts(imported)["gaps"] == [
        {"gap_id": 1, "finding_id": findings[0].finding_id, "messages": 3},
        {"gap_id": 2, "finding_id": findings[1].finding_id, "messages": 2},
    ]
    publishing, first, second = next_steps(SOURCE, imported)
    assert publishing.startswith(
        f"The next run of catch_up_odds88 publishes batch {_last(connection)}."
    )
    assert "3 messages lie in gap 1 of odds88, from 2026-11-15 00:03 UTC to" in first
    assert f"decide accept_gap on finding {findings[0].finding_id}" in first
    assert "2 messages lie in gap 2 of odds88, from the beginning to 2026-11-15 00:02 UTC" in second
    assert [finding.state for finding in findings] == ["open"] * 5


def _last(connection: Connection) -> int:
    return int(rows(connection, "SELECT max(batch_id) AS last FROM ops.batch")[0].last)


def test_a_file_that_fills_no_gap_says_so(warehouse: Warehouse, tmp_path: Path) -> None:
    path = put(tmp_path, *messages(3))
    assert next_steps(SOURCE, bring(warehouse, path))[1:] == [
        "No message lies in an open gap of odds88."
    ]
    assert next_steps(SOURCE, bring(warehouse, path)) == [
        "No message lies in an open gap of odds88."
    ]


def test_a_gap_that_is_accepted_is_not_asked_about_again(
    warehouse: Warehouse, connection: Connection, tmp_path: Path
) -> None:
    leave_gap(warehouse, None, "2026-11-16T00:00:00+00:00")
    connection.execute(text("UPDATE ops.gap SET state = 'accepted'"))
    assert bring(warehouse, put(tmp_path, *messages(3))).gaps == []


# Which file holds what.


def test_the_name_says_whose_messages_a_file_holds() -> None:
    for name in (
        "odds88.ndjson",
        "odds88-2026-11.jsonl",
        "ODDS88_x.NDJSON",
        "odds88.ndjson.gz",
        "odds88.a.b.jsonl.gz",
    ):
        assert source_named(Path(name), SOURCES.values()) is SOURCE, name
    for name in (
        "payouts.ndjson",
        "payouts-odds88.ndjson",
        "odds88.csv",
        "odds88.gz",
        "odds88",
        "ticktock.ndjson",
    ):
        assert source_named(Path(name), SOURCES.values()) is None, name


def test_the_first_line_is_recognized_whatever_the_file_is_called(tmp_path: Path) -> None:
    for line, is_told in ((message(1), True), (PING, True), (b'{"amount":1}', False), (b"", False)):
        path = put(tmp_path, BYTE_ORDER_MARK + line, name="some file")
        found = source_recognized(path, SOURCES.values())
        assert (found is not None) is is_told, line


# The command.


def test_the_command_tells_what_became_of_the_file(warehouse: Warehouse, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "include.catchup", "import", put(tmp_path, *messages(7), PING)],
        env=os.environ | {"WAREHOUSE_URL": warehouse.pipelines_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "lines       8\nlanded      7\nduplicates  0" in ran.stdout
    assert "The next run of catch_up_odds88 publishes batch 1." in ran.stdout
    assert "100%  8 lines" in ran.stderr


def test_the_command_ends_with_1_if_lines_are_broken_and_with_2_if_it_is_refused(
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", warehouse.pipelines_url)
    assert main(["import", str(put(tmp_path, message(1), b"<html>"))]) == 1
    assert main(["import", str(put(tmp_path, b"<html>"))]) == 2
    assert "is a message of odds88. Nothing was imported." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["import", str(put(tmp_path, message(1), name="messages.ndjson"))])
    assert "messages.ndjson names no stream. Rename it" in capsys.readouterr().err


def test_the_command_says_how_far_it_was_when_the_warehouse_stops_it(
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", warehouse.pipelines_url)
    with warehouse.owner_engine.begin() as connection:
        refused = "ALTER TABLE raw.record ADD CONSTRAINT nothing_more CHECK (false) NOT VALID"
        connection.execute(text(refused))
    assert main(["import", str(put(tmp_path, message(1)))]) == 2
    told = capsys.readouterr().err
    assert told.startswith("The warehouse stopped the import: ")
    assert "nothing_more" in told
    assert "Nothing was committed.\nWhat was committed stays. Import the file again" in told
