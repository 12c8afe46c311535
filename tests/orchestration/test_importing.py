"""Importing from the folder: which files, what becomes of each, and none from anywhere else."""

from __future__ import annotations

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
