"""Importing from the folder: which files, what becomes of each, and none from anywhere else."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.orchestration import importing
from include.orchestration.importing import FilesRefused, ImportFolderUnusable, import_each
from include.payouts.importing import Imported
from tests.payouts.entering import as_line, rows, write_ndjson
from tests.warehouses import Warehouse

DAY = "2026-11-20"
_IDS = "SELECT transaction_id FROM wallet.transaction ORDER BY transaction_id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a folder" / "import"
    made.mkdir(parents=True)
    return made


def put(folder: Path, name: str, *ids: str) -> Path:
    return write_ndjson(folder / name, [as_line(each) for each in ids])


def imported_ids(warehouse: Warehouse) -> list[str]:
    return [row.transaction_id for row in rows(warehouse, _IDS)]


def refused(warehouse: Warehouse, folder: Path, path: str | None, day: str | None = DAY) -> str:
    with pytest.raises(FilesRefused) as caught:
        import_each(warehouse.engine, folder, path, day)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_file_that_waits_is_imported_and_moved(warehouse: Warehouse, folder: Path) -> None:
    put(folder, "b.jsonl", "b1", "b2")
    put(folder, "a.ndjson", "a1")
    put(folder, ".written now.ndjson", "c1")
    (folder / "archive").mkdir()
    put(folder / "archive", "old.ndjson", "d1")
    result = import_each(warehouse.engine, folder, None, DAY)
    assert list(result) == ["a.ndjson", "b.jsonl"]
    assert (result["b.jsonl"]["read"], result["b.jsonl"]["new"]) == (2, 2)
    assert imported_ids(warehouse) == ["a1", "b1", "b2"]
    assert names(folder) == [
        ".written now.ndjson",
        "archive/old.ndjson",
        "done/a.ndjson",
        "done/b.jsonl",
    ]
    assert import_each(warehouse.engine, folder, None, DAY) == {}


def test_the_file_named_is_the_only_one(warehouse: Warehouse, folder: Path) -> None:
    put(folder, "other.ndjson", "a")
    (folder / "archive").mkdir()
    put(folder / "archive", "this.ndjson", "b")
    assert list(import_each(warehouse.engine, folder, "archive/this.ndjson", DAY)) == [
        "archive/this.ndjson"
    ]
    assert imported_ids(warehouse) == ["b"]
    assert names(folder) == ["archive/done/this.ndjson", "other.ndjson"]


def test_one_that_is_done_is_imported_again_where_it_lies(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder, "a.ndjson", "a")
    import_each(warehouse.engine, folder, None, DAY)
    again = import_each(warehouse.engine, folder, "done/a.ndjson", DAY)
    assert again["done/a.ndjson"]["same"] == 1
    assert names(folder) == ["done/a.ndjson"]


def test_a_file_that_is_done_is_never_replaced(warehouse: Warehouse, folder: Path) -> None:
    for transaction_id in ("first", "second"):
        put(folder, "a.ndjson", transaction_id)
        import_each(warehouse.engine, folder, None, DAY)
    kept = sorted((folder / "done").iterdir())
    assert len(kept) == 2
    contents = sorted("first" if "first" in path.read_text() else "second" for path in kept)
    assert contents == ["first", "second"]


def test_rejected_lines_are_counted_and_the_file_is_done(
    warehouse: Warehouse, folder: Path
) -> None:
    write_ndjson(folder / "a.ndjson", [as_line("a"), as_line("b", amount=-1)])
    result = import_each(warehouse.engine, folder, None, DAY)
    assert (result["a.ndjson"]["new"], result["a.ndjson"]["rejected"]) == (1, 1)
    assert names(folder) == ["done/a.ndjson"]
    [finding] = rows(warehouse, "SELECT * FROM ops.finding")
    assert finding.kind == "lines_rejected"
    assert "a.ndjson" in finding.summary


def test_a_refused_file_stays_with_its_reason_and_the_others_go_in(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder, "a.txt", "a")
    (folder / "b.csv").write_text("transactionId\n")
    put(folder, "c.ndjson", "c")
    message = refused(warehouse, folder, None)
    assert message.startswith("2 files stay where they are. Imported to their end: c.ndjson.")
    assert "a.txt: a.txt is neither .ndjson, .jsonl nor .csv." in message
    assert "b.csv: The first line lacks names" in message
    assert imported_ids(warehouse) == ["c"]
    assert names(folder) == ["a.txt", "b.csv", "done/c.ndjson"]


def test_lines_without_a_day_need_one(warehouse: Warehouse, folder: Path) -> None:
    put(folder, "a.ndjson", "a")
    assert "Line 1 has no businessDate" in refused(warehouse, folder, "a.ndjson", None)
    assert names(folder) == ["a.ndjson"]


@pytest.mark.parametrize("day", ["today", "2026-13-01", ""])
def test_what_is_no_day_is_refused_before_anything_is_read(
    warehouse: Warehouse, folder: Path, day: str
) -> None:
    put(folder, "a.ndjson", "a")
    assert "is no day. Nothing was imported." in refused(warehouse, folder, None, day)
    assert imported_ids(warehouse) == []


def test_a_day_in_the_future_is_refused_before_anything_is_read(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder, "a.ndjson", "a")
    tomorrow = datetime.now(UTC).date() + timedelta(days=2)
    assert "lies in the future" in refused(warehouse, folder, None, str(tomorrow))
    assert rows(warehouse, "SELECT FROM wallet.rejected_line") == []
    assert names(folder) == ["a.ndjson"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.ndjson",
        "sub/../../secret.ndjson",
        "sub/../a.ndjson",
        "{root}/secret.ndjson",
        "{root}/import/a.ndjson",
        "link.ndjson",
        "linked/secret.ndjson",
        "inner link.ndjson",
        "sub",
        ".",
        "missing.ndjson",
        "a.ndjson\0",
    ],
)
def test_no_path_leads_out_of_the_folder(warehouse: Warehouse, folder: Path, path: str) -> None:
    root = folder.parent
    put(root, "secret.ndjson", "secret")
    put(folder, "a.ndjson", "a")
    (folder / "sub").mkdir()
    (folder / "link.ndjson").symlink_to(root / "secret.ndjson")
    (folder / "inner link.ndjson").symlink_to(folder / "a.ndjson")
    (folder / "linked").symlink_to(root)
    message = refused(warehouse, folder, path.format(root=root))
    assert "it is no file of the import folder" in message
    assert imported_ids(warehouse) == []
    assert (root / "secret.ndjson").exists()
    assert names(folder).count("a.ndjson") == 1


def test_links_that_lie_in_the_folder_are_refused_by_name(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder.parent, "secret.ndjson", "secret")
    (folder / "link.ndjson").symlink_to(folder.parent / "secret.ndjson")
    (folder / "nowhere").symlink_to(folder / "missing")
    message = refused(warehouse, folder, None)
    assert "link.ndjson: it is no file of the import folder" in message
    assert "nowhere: it is no file" in message
    assert imported_ids(warehouse) == []


def test_the_folder_itself_may_be_reached_through_a_link(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder, "a.ndjson", "a")
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert list(import_each(warehouse.engine, link, "a.ndjson", DAY)) == ["a.ndjson"]


def put_messages(folder: Path, name: str, *lines: bytes) -> Path:
    path = folder / name
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def message(bet_id: str) -> bytes:
    """What odds88's stream sends about a bet."""
    bet = {
        "betId": bet_id,
        "betSettlement": 2,
        "isCancelled": False,
        "isRejected": False,
        "settlementTime": "2026-11-15T10:00:00Z",
        "payout": 0,
    }
    return json.dumps({"pingId": None, "data": bet}).encode()


def landed_keys(warehouse: Warehouse) -> list[str]:
    return [
        row.record_key for row in rows(warehouse, "SELECT * FROM raw.record ORDER BY record_key")
    ]


def test_messages_of_a_stream_are_landed_beside_payouts(
    warehouse: Warehouse, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_messages(folder, "odds88-2026-11-15.ndjson", message("b1"), b"<html>", message("b2"))
    put_messages(folder, "odds88-2026-11-16.ndjson.gz", message("b2"), message("b3"))
    put(folder, "payouts.ndjson", "a")
    caplog.set_level("INFO")
    result = import_each(warehouse.engine, folder, None, DAY)
    first, second = result["odds88-2026-11-15.ndjson"], result["odds88-2026-11-16.ndjson.gz"]
    assert (first["lines"], first["landed"], first["duplicates"], first["broken"]) == (3, 3, 0, 1)
    assert (second["lines"], second["landed"], second["duplicates"]) == (2, 1, 1)
    assert first["first_at"] == first["last_at"] == "2026-11-15T10:00:00+00:00"
    assert first["next"] == [
        "The next run of catch_up_odds88 publishes batch 1. If that DAG is paused, unpause it; if "
        "its `land` is red, mark that task as success.",
        "No message lies in an open gap of odds88.",
    ]
    assert json.loads(json.dumps(result)) == result
    assert result["payouts.ndjson"]["new"] == 1
    assert imported_ids(warehouse) == ["a"]
    assert names(folder) == [
        "done/odds88-2026-11-15.ndjson",
        "done/odds88-2026-11-16.ndjson.gz",
        "done/payouts.ndjson",
    ]
    assert "odds88-2026-11-15.ndjson: 100 %, 3 lines" in caplog.text
    assert "1 lines are no message of odds88. They are quarantined" in caplog.text
    assert "The next run of catch_up_odds88 publishes batch 1." in caplog.text


def test_bets_of_tote_enter_the_register(
    warehouse: Warehouse, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tote-2026-11-20.csv").write_bytes(b"toteId\nb1\nb2\nb1\n" + b"x" * 200 + b"\n")
    result = import_each(warehouse.engine, folder, None, None)["tote-2026-11-20.csv"]
    assert (result["read"], result["new"], result["same"], result["rejected"]) == (4, 2, 1, 1)
    assert [row.tote_id for row in rows(warehouse, "SELECT * FROM tote.bet ORDER BY 1")] == [
        *("b1", "b2")
    ]
    assert names(folder) == ["done/tote-2026-11-20.csv"]
    assert "Each is in tote.rejected_line with its reason" in caplog.text


def test_messages_need_no_business_date(warehouse: Warehouse, folder: Path) -> None:
    put_messages(folder, "odds88.jsonl", message("b1"))
    assert import_each(warehouse.engine, folder, None, None)["odds88.jsonl"]["landed"] == 1


def test_a_file_named_after_a_stream_that_holds_something_else_stays(
    warehouse: Warehouse, folder: Path
) -> None:
    put(folder, "odds88-payouts.ndjson", "a")
    put_messages(folder, "odds88.ndjson.gz", message("b1")).write_bytes(b"no gzip")
    told = refused(warehouse, folder, None)
    assert "None of the first 1 lines of odds88-payouts.ndjson is a message of odds88" in told
    assert "odds88.ndjson.gz: It cannot be unpacked" in told
    assert names(folder) == ["odds88-payouts.ndjson", "odds88.ndjson.gz"]
    assert landed_keys(warehouse) == imported_ids(warehouse) == []


def test_messages_under_another_name_are_not_taken_for_payouts(
    warehouse: Warehouse, folder: Path
) -> None:
    put_messages(folder, "settlements.ndjson", message("b1"))
    told = refused(warehouse, folder, None)
    assert "it holds messages of odds88, which its name does not say." in told
    assert "Rename it so that it begins with odds88 and ends with .ndjson" in told
    assert names(folder) == ["settlements.ndjson"]
    assert rows(warehouse, "SELECT FROM wallet.rejected_line") == []


def test_one_of_the_same_name_that_is_done_can_be_imported_again_too(
    warehouse: Warehouse, folder: Path
) -> None:
    for bet_id in ("b1", "b2"):
        put_messages(folder, "odds88-2026.11.ndjson.gz", message(bet_id))
        import_each(warehouse.engine, folder, None, None)
    kept = names(folder)
    assert len(kept) == 2
    for name in kept:
        again = import_each(warehouse.engine, folder, name, None)
        assert again[name]["duplicates"] == 1
    assert landed_keys(warehouse) == ["b1", "b2"]


def test_one_that_is_still_written_stays(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(folder, "a.ndjson", "a")
    import_file = importing.import_file

    def write_on(*given: Any) -> Imported:
        imported = import_file(*given)
        with file.open("a") as still_open:
            still_open.write("\n")
        return imported

    monkeypatch.setattr(importing, "import_file", write_on)
    assert "it was changed while it was read" in refused(warehouse, folder, None)
    assert names(folder) == ["a.ndjson"]
    assert imported_ids(warehouse) == ["a"]


def test_one_that_cannot_be_moved_is_in_and_named(warehouse: Warehouse, folder: Path) -> None:
    put(folder, "a.ndjson", "a")
    (folder / "done").write_text("a file in the folder's place")
    message = refused(warehouse, folder, "a.ndjson")
    assert "it is imported, but cannot be moved into done/" in message
    assert imported_ids(warehouse) == ["a"]


def test_a_name_that_is_no_utf8_is_told_all_the_same(warehouse: Warehouse, folder: Path) -> None:
    put(folder, "a.ndjson", "a").rename(os.fsdecode(os.fsencode(folder) + b"/a\xff.ndjson"))
    assert list(import_each(warehouse.engine, folder, None, DAY)) == ["a?.ndjson"]
    assert imported_ids(warehouse) == ["a"]


@pytest.mark.parametrize("lacking", ["is not set", "which is no folder here"])
def test_without_a_folder_the_setting_is_named(
    warehouse: Warehouse, folder: Path, lacking: str
) -> None:
    missing = None if lacking == "is not set" else folder / "missing"
    with pytest.raises(ImportFolderUnusable, match=lacking) as caught:
        import_each(warehouse.engine, missing, None, DAY)
    assert "SETTLEMENTS_IMPORT_FOLDER" in str(caught.value)
