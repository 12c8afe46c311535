"""Files of tote's bets: what is entered, what is rejected and why, and that nothing is doubled."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from include.catchup import __main__ as command
from include.catchup.bet_files import RegisterImported, import_register, is_register
from include.warehouse.importing import FileRefused
from include.warehouse.lines import LINE_LIMIT_BYTES
from tests.feeding import open_findings
from tests.warehouses import Warehouse

LONGEST = "x" * 128


def rows(warehouse: Warehouse, statement: str) -> list[Any]:
    with warehouse.owner_engine.begin() as connection:
        return list(connection.execute(text(statement)))


def entered(warehouse: Warehouse) -> dict[str, str]:
    return {row.tote_id: row.entered_by for row in rows(warehouse, "SELECT * FROM tote.bet")}


def counts(imported: RegisterImported) -> tuple[int, int, int, int]:
    assert imported.position == imported.size
    return imported.read, imported.new, imported.same, imported.rejected


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("tote.txt", "TOTE-bets.CSV", "tote_1.ndjson", "tote.jsonl.gz")),
        *((name, False) for name in ("bets.txt", "tote", "tote.xlsx", "payouts-tote.csv")),
    ],
)
def test_the_name_says_what_a_file_holds(name: str, is_one: bool) -> None:
    assert is_register(Path(name)) == is_one


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tote.txt", f"\ufeffa\r\n\r\n  b \n{LONGEST}\na\n"),
        ("tote.csv", f'stake,toteId\n1,a\n2," b "\n3,{LONGEST}\n4,a\n'),
        ("tote-2.csv", f"toteId,stake\na,1\nb,2\n{LONGEST},3\na,4"),
        ("tote.ndjson", f'{{"toteId":"a"}}\n{{"x":1,"toteId":"b"}}\n{{"toteId":"{LONGEST}"}}\n'
        '{"toteId":"a"}'),
    ],
)  # fmt: skip
def test_a_register_is_read_however_it_is_written_and_again_changes_nothing(
    warehouse: Warehouse, tmp_path: Path, name: str, content: str
) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(content.encode()))
    assert counts(import_register(warehouse.engine, path)) == (4, 3, 1, 0)
    before = rows(warehouse, "SELECT * FROM tote.bet ORDER BY tote_id")
    assert entered(warehouse) == dict.fromkeys(("a", "b", LONGEST), "file")
    assert {row.state for row in before} == {"open"}
    assert counts(import_register(warehouse.engine, path)) == (4, 0, 4, 0)
    assert rows(warehouse, "SELECT * FROM tote.bet ORDER BY tote_id") == before


def test_what_names_no_bet_is_kept_with_its_number_and_reason(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    lines = {
        "tote.txt": b"good 1\n\xff\n%s\n\0\n%s\ncut" % (b"y" * 129, b"z" * LINE_LIMIT_BYTES),
        "tote.csv": b'toteId,odds\ngood 2,1\nno odds\n"open,1\n,1\n',
        "tote.ndjson": b'{"toteId":"good 3"}\n{"toteId":7}\n{}\n{"toteId":" "}\n[]\nnull\n{',
    }  # fmt: skip
    for name, content in lines.items():
        (tmp_path / name).write_bytes(content)
        imported = import_register(warehouse.engine, tmp_path / name)
        assert imported.new == 1
        import_register(warehouse.engine, tmp_path / name)
    assert entered(warehouse) == {"good 1": "file", "good 2": "file", "good 3": "file"}
    rejected = {
        (row.file_name, row.line_number): row.reason
        for row in rows(warehouse, "SELECT * FROM tote.rejected_line")
    }
    assert rejected == {
        ("tote.txt", 2): "it is not UTF-8 (byte 0)",
        ("tote.txt", 3): "the id is longer than 128 characters",
        ("tote.txt", 4): "the id holds characters that cannot be seen",
        ("tote.txt", 5): "it has 65536 bytes or more",
        ("tote.txt", 6): "the file ends without a line break, so it may have been cut short; add "
        "one",
        ("tote.csv", 3): "it has 1 fields instead of 2",
        ("tote.csv", 4): "it is not CSV: unexpected end of data",
        ("tote.csv", 5): "the id is empty",
        ("tote.ndjson", 2): "Expected `str`, got `int` - at `$.toteId`",
        ("tote.ndjson", 3): "Object missing required field `toteId`",
        ("tote.ndjson", 4): "the id is empty",
        ("tote.ndjson", 5): "Expected `object`, got `array`",
        ("tote.ndjson", 6): "Expected `object`, got `null`",
        ("tote.ndjson", 7): "Input data was truncated",
    }
    with warehouse.owner_engine.connect() as connection:
        findings = open_findings(connection, "lines_rejected")
    assert [finding.subject for finding in findings] == [*lines]
    assert findings[0].detail["count"] == 5


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tote.csv", b"id,stake\na,1\n", "names 0 columns toteId"),
        ("tote.csv", b"toteId,toteId\na,a\n", "names 2 columns toteId"),
        ("tote.csv", b"", "names 0 columns toteId"),
        ("tote.txt.gz", gzip.compress(b" " * 70_000_000), "unpacks to more than"),
        ("tote.txt.gz", b"a\n", "cannot be unpacked"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(
    shared_warehouse: Warehouse, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileRefused, match=told):
        import_register(shared_warehouse.engine, tmp_path / name)


def test_the_command_says_what_became_of_the_lines(
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", warehouse.pipelines_url)
    path = tmp_path / "tote.txt"
    path.write_text("a\nb\na\n")
    assert command.main(["import", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("read 3 new 2 (asked for by the next run of catch_up_tote) same 1")
    path.write_text("a\nb")
    assert command.main(["import", str(path)]) == 1
    assert "rejected 1 (see tote.rejected_line)" in " ".join(capsys.readouterr().out.split())
