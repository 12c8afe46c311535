"""Files of payouts: what goes in, what is rejected and why, and that nothing is doubled or lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from include.payouts.importing import Imported, import_file
from include.warehouse.importing import FileRefused
from include.warehouse.lines import KEPT_BYTES, LINE_LIMIT_BYTES
from tests.local.waiting import wait_for
from tests.payouts.entering import (
    DAY,
    FIELDS,
    as_line,
    attempt,
    enter,
    payout,
    rows,
    stored,
    write_ndjson,
)
from tests.warehouses import Warehouse

_ROOT = Path(__file__).parents[2]
_HEADER = ",".join(FIELDS.values())
_CSV_LINE = "t1,ref,session,round,player,game,EUR,250000000,true"
_REJECTED = "SELECT * FROM wallet.rejected_line ORDER BY line_number"
_ENTERED = "SELECT * FROM wallet.transaction ORDER BY transaction_id"


def counts(imported: Imported) -> dict[str, int]:
    """What became of the lines, without what is zero."""
    names = ("read", "new", "same", "conflicting", "held", "rejected")
    return {name: getattr(imported, name) for name in names if getattr(imported, name)}


def import_bytes(warehouse: Warehouse, path: Path, content: bytes) -> Imported:
    path.write_bytes(content)
    return import_file(warehouse.engine, path, DAY)


# --- what goes in -------------------------------------------------------------------------------


def test_every_field_goes_in_as_it_is(warehouse: Warehouse, tmp_path: Path) -> None:
    awkward = payout("t1", player_id='Zoë, "7"\\\t𝄞', amount=2**63 - 1)
    path = write_ndjson(tmp_path / "a.ndjson", [as_line("t1", **awkward), as_line("t2")])
    imported = import_file(warehouse.engine, path, DAY)
    assert counts(imported) == {"read": 2, "new": 2}
    row = stored(warehouse, "t1")
    assert {name: getattr(row, name) for name in awkward} == awkward
    assert (row.business_date, row.disposition, row.item) == (DAY, "open", None)
    assert (row.origin_source, row.origin_key) == ("import", "a.ndjson:1")
    assert stored(warehouse, "t2").origin_key == "a.ndjson:2"


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "A.NDJSON"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ndjson_is_read_however_it_is_written(
    warehouse: Warehouse, tmp_path: Path, name: str, end: str, mark: str
) -> None:
    lines = [json.dumps(as_line(f"t{number}"), indent=None) for number in range(3)]
    for content in (mark + end.join(lines), mark + end.join(lines) + end):
        imported = import_bytes(warehouse, tmp_path / name, content.encode())
    assert counts(imported) == {"read": 3, "same": 3}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_is_read_however_it_is_written(
    warehouse: Warehouse, tmp_path: Path, end: str, mark: str
) -> None:
    content = mark + end.join(
        [
            'isWin,amount,"currency",businessDate,gameId,playerId,roundId,sessionId,'
            "refTransactionId,transactionId",
            'true,250000000,EUR,2026-11-19,game,"Zoë, ""7""",round,session,ref,t1',
            "",
            '"true","0","EUR",,"game","p","r","s","ref","t2"',
            "",
        ]
    )
    assert counts(import_bytes(warehouse, tmp_path / "a.csv", content.encode())) == {
        "read": 2,
        "new": 2,
    }
    first, second = rows(warehouse, _ENTERED)
    assert (first.player_id, first.amount, first.is_win) == ('Zoë, "7"', 250_000_000, True)
    assert (first.business_date, second.business_date) == (date(2026, 11, 19), DAY)
    assert (first.origin_key, second.origin_key) == ("a.csv:2", "a.csv:4")


def test_a_day_of_its_own_goes_before_that_of_the_file(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    lines = [
        as_line("own", businessDate="2026-11-18"),
        as_line("null", businessDate=None),
        as_line("none"),
    ]
    import_file(warehouse.engine, write_ndjson(tmp_path / "a.ndjson", lines), DAY)
    days = {row.transaction_id: row.business_date for row in rows(warehouse, _ENTERED)}
    assert days == {"own": date(2026, 11, 18), "null": DAY, "none": DAY}


def test_the_rules_of_the_outbox_hold_for_a_file(warehouse: Warehouse, tmp_path: Path) -> None:
    enter(warehouse, payout("same"), payout("changed"), payout("sent"))
    attempt(warehouse, "sent")
    lines = [
        as_line("new"),
        as_line("same"),
        as_line("changed", amount=1),
        as_line("sent", amount=1),
        as_line("lost", is_win=False),
        as_line("nothing", is_win=False, amount=0),
        as_line("new"),
        as_line("new", amount=2),
    ]
    imported = import_file(warehouse.engine, write_ndjson(tmp_path / "a.ndjson", lines), DAY)
    assert counts(imported) == {"read": 8, "new": 3, "same": 2, "conflicting": 3, "held": 5}
    held = {row.transaction_id: row.hold_reason for row in rows(warehouse, _ENTERED)}
    assert held == {
        "new": "changed",
        "same": None,
        "changed": "changed",
        "sent": None,
        "lost": "amount_without_win",
        "nothing": None,
    }
    assert stored(warehouse, "new").amount == 250_000_000
    kinds = rows(warehouse, "SELECT kind, subject FROM ops.finding ORDER BY kind, subject")
    assert [tuple(row) for row in kinds] == [
        ("transactions_changed", f"{DAY}"),
        ("transactions_held", f"{DAY}, amount_without_win"),
        ("transactions_held", f"{DAY}, changed"),
    ]


@pytest.mark.parametrize("name", ["a.ndjson", "b.ndjson"])
def test_importing_again_changes_nothing(warehouse: Warehouse, tmp_path: Path, name: str) -> None:
    enter(warehouse, payout("changed"))
    lines = [as_line("t1"), as_line("changed", amount=1), as_line("t2", is_win=False), {"a": 1}]
    first = import_file(warehouse.engine, write_ndjson(tmp_path / "a.ndjson", lines), DAY)
    assert counts(first) == {"read": 4, "new": 2, "conflicting": 1, "held": 2, "rejected": 1}
    tables = ("wallet.transaction", "wallet.transaction_conflict", "wallet.transaction_claim")
    before = [rows(warehouse, f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    again = import_file(warehouse.engine, write_ndjson(tmp_path / name, lines), date(2026, 11, 19))
    assert counts(again) == {"read": 4, "same": 2, "conflicting": 1, "held": 2, "rejected": 1}
    assert [rows(warehouse, f"SELECT * FROM {table} ORDER BY 1") for table in tables] == before
    assert len(rows(warehouse, _REJECTED)) == (1 if name == "a.ndjson" else 2)


# --- what is rejected ---------------------------------------------------------------------------


def changed(**changes: Any) -> bytes:
    return json.dumps(as_line("bad") | changes).encode()


def written(field: str, value: str) -> bytes:
    return json.dumps(as_line("bad") | {field: "HERE"}).replace('"HERE"', value).encode()


_LINE = json.dumps(as_line("bad")).encode()

_BAD_JSON = {
    "half a line": (_LINE[:-20], "truncated|malformed"),
    "two objects": (_LINE + _LINE, "trailing characters"),
    "a list": (b"[" + _LINE + b"]", "Expected `object`, got `array`"),
    "prose": (b"Total: 17 payouts", "malformed|invalid"),
    "deeply nested": (b"[" * 60_000, "Expected `object`|nested"),
    "deeply nested inside": (b'{"transactionId":' + b"[" * 60_000, "Expected `str`|nested"),
    "NUL bytes": (b"\0" * 100, "malformed|invalid"),
    "a NUL in a text": (written("playerId", '"a\\u0000b"'), "playerId holds a NUL character"),
    "a NUL in a name": (b'{"a\\u0000b":1}', "unknown field"),
    "not UTF-8": (written("playerId", '"HERE2"').replace(b"HERE2", b"\xff\xfe"), "not UTF-8"),
    "half a surrogate pair": (written("playerId", '"\\ud800"'), "truncated|surrogate|malformed"),
    "a missing field": (_LINE.replace(b'"gameId"', b'"gameID"'), "unknown field `gameID`"),
    "an unknown field": (changed(scale=100), "unknown field `scale`"),
    "a name twice": (_LINE[:-1] + b', "amount": 1}', "a name is in it twice"),
    "a name twice, escaped": (_LINE[:-1] + b', "\\u0061mount": 1}', "a name is in it twice"),
    "a point": (written("amount", "250.0"), "got `float`.*whole number in hundred-thousandths"),
    "an exponent": (written("amount", "25e7"), "got `float`.*whole number"),
    "a quoted amount": (changed(amount="250"), "got `str`.*whole number"),
    "a negative amount": (changed(amount=-1), "amount is negative"),
    "an amount beyond a bigint": (changed(amount=2**63), "amount is beyond"),
    "an amount of a thousand digits": (written("amount", "9" * 1000), "amount is beyond"),
    "NaN": (written("amount", "NaN"), "malformed|invalid"),
    "true as an amount": (changed(amount=True), "got `bool`"),
    "1 for true": (changed(isWin=1), "Expected `bool`, got `int`"),
    "a quoted boolean": (changed(isWin="true"), "Expected `bool`, got `str`"),
    "a number for a text": (changed(playerId=18865671), "Expected `str`, got `int`"),
    "null": (changed(currency=None), "Expected `str`, got `null`"),
    "an empty id": (changed(transactionId=""), "transactionId is empty"),
    "a blank text": (changed(currency=" \u2003"), "currency is empty"),
    "an id with a space behind it": (changed(transactionId="t1 "), "'t1 ', with white space"),
    "a currency behind a space": (changed(currency="\u2009EUR"), "EUR', with white space"),
    "an id that is too long": (changed(transactionId="x" * 501), "longer than 500"),
    "a currency that is too long": (
        changed(currency="EURO" * 5 + "S"),
        "currency is longer than 20 characters",
    ),
    "no day": (changed(businessDate="20261120"), "businessDate"),
    "a time": (changed(businessDate="2026-11-20T00:00:00Z"), "businessDate"),
    "a future day": (changed(businessDate="2999-01-01"), "2999-01-01 lies in the future"),
    "an ancient day": (changed(businessDate="1999-12-31"), "lies before 2000-01-01"),
}


@pytest.mark.parametrize(("line", "reason"), _BAD_JSON.values(), ids=_BAD_JSON)
def test_a_bad_line_of_ndjson_is_kept_with_its_number_and_reason(
    warehouse: Warehouse, tmp_path: Path, line: bytes, reason: str
) -> None:
    good = [json.dumps(as_line(f"t{number}")).encode() for number in range(2)]
    content = b"\n".join([good[0], line, good[1], b""])
    imported = import_bytes(warehouse, tmp_path / "a.ndjson", content)
    _check_rejected(warehouse, imported, line, reason)


_BAD_CSV = {
    "too few fields": ("t,ref,s,r,p,g,EUR,1", "it has 8 fields instead of 9"),
    "too many fields": ("t,ref,s,r,p,g,EUR,1,true,", "it has 10 fields instead of 9"),
    "an open quote": ('t,ref,s,r,p,g,EUR,1,"true', "not CSV"),
    "a quote in the middle": ('"t"x,ref,s,r,p,g,EUR,1,true', "not CSV"),
    "a bare carriage return": ("t,ref,s,r,p\rq,g,EUR,1,true", "not CSV|not one line"),
    "a point": ("t,ref,s,r,p,g,EUR,250.0,true", "amount is '250.0'; it must be a whole number"),
    "a decimal comma": ('t,ref,s,r,p,g,EUR,"2,50",true', "amount is '2,50'"),
    "an exponent": ("t,ref,s,r,p,g,EUR,1e5,true", "amount is '1e5'"),
    "a plus sign": ("t,ref,s,r,p,g,EUR,+1,true", r"amount is '\+1'"),
    "a space": ("t,ref,s,r,p,g,EUR, 1,true", "amount is ' 1'"),
    "an underscore": ("t,ref,s,r,p,g,EUR,1_000,true", "amount is '1_000'"),
    "other digits": ("t,ref,s,r,p,g,EUR,٢,true", "amount is '٢'"),
    "no amount": ("t,ref,s,r,p,g,EUR,,true", "amount is ''"),
    "a negative amount": ("t,ref,s,r,p,g,EUR,-1,true", "amount is negative"),
    "an amount beyond a bigint": ("t,ref,s,r,p,g,EUR,9223372036854775808,true", "amount is beyond"),
    "a huge amount": (f"t,ref,s,r,p,g,EUR,{'9' * 5000},true", "amount is '9999"),
    "True": ("t,ref,s,r,p,g,EUR,1,True", "isWin is 'True'; it must be true or false"),
    "1 for true": ("t,ref,s,r,p,g,EUR,1,1", "isWin is '1'"),
    "no boolean": ("t,ref,s,r,p,g,EUR,1,", "isWin is ''"),
    "an empty text": ("t,ref,s,r,,g,EUR,1,true", "playerId is empty"),
    "a currency that is too long": (
        f"t,ref,s,r,p,g,{'€' * 21},1,true",
        "currency is longer than 20 characters",
    ),
    "a NUL": ("t,ref,s,r,a\0b,g,EUR,1,true", "playerId holds a NUL|not CSV"),
}


@pytest.mark.parametrize(("line", "reason"), _BAD_CSV.values(), ids=_BAD_CSV)
def test_a_bad_line_of_csv_is_kept_with_its_number_and_reason(
    warehouse: Warehouse, tmp_path: Path, line: str, reason: str
) -> None:
    content = "\n".join([_HEADER, _CSV_LINE, line, _CSV_LINE.replace("t1", "t2"), ""])
    imported = import_bytes(warehouse, tmp_path / "a.csv", content.encode())
    _check_rejected(warehouse, imported, line.encode(), reason, line_number=3)


def test_a_currency_may_have_20_characters_whatever_their_bytes(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = write_ndjson(tmp_path / "a.ndjson", [as_line("t1", currency="𝄞" * 20)])
    assert counts(import_file(warehouse.engine, path, DAY)) == {"read": 1, "new": 1}
    assert stored(warehouse, "t1").currency == "𝄞" * 20


def test_a_line_of_csv_that_is_not_utf_8_is_rejected(warehouse: Warehouse, tmp_path: Path) -> None:
    line = "t,ref,s,r,Zoë,g,EUR,1,true".encode("latin-1")
    content = b"\n".join([_HEADER.encode(), _CSV_LINE.encode(), line, _CSV_LINE.encode()])
    imported = import_bytes(warehouse, tmp_path / "a.csv", content)
    assert counts(imported) == {"read": 3, "new": 1, "same": 1, "rejected": 1}
    [rejected] = rows(warehouse, _REJECTED)
    assert (bytes(rejected.line), rejected.reason) == (line, "it is not UTF-8 (byte 12)")


def _check_rejected(
    warehouse: Warehouse, imported: Imported, line: bytes, reason: str, line_number: int = 2
) -> None:
    assert counts(imported) == {"read": 3, "new": 2, "rejected": 1}
    assert len(rows(warehouse, _ENTERED)) == 2
    [rejected] = rows(warehouse, _REJECTED)
    assert (rejected.line_number, rejected.line_bytes) == (line_number, len(line))
    assert bytes(rejected.line) == line[:KEPT_BYTES]
    assert bytes(rejected.line_sha256) == hashlib.sha256(line).digest()
    assert re.search(reason, rejected.reason), rejected.reason
    [finding] = rows(warehouse, "SELECT * FROM ops.finding")
    assert (finding.kind, finding.subject) == ("lines_rejected", rejected.file_name)
    assert finding.detail["examples"] == [{"line_number": line_number, "reason": rejected.reason}]


@pytest.mark.parametrize("size", [LINE_LIMIT_BYTES - 1, LINE_LIMIT_BYTES, 3_000_000])
def test_a_huge_line_is_rejected_and_its_neighbours_go_in(
    warehouse: Warehouse, tmp_path: Path, size: int
) -> None:
    huge = _LINE + b" " * (size - len(_LINE))
    good = [json.dumps(as_line(f"t{number}")).encode() for number in range(2)]
    imported = import_bytes(warehouse, tmp_path / "a.ndjson", b"\n".join([good[0], huge, good[1]]))
    if size < LINE_LIMIT_BYTES:
        assert counts(imported) == {"read": 3, "new": 3}
        return
    assert counts(imported) == {"read": 3, "new": 2, "rejected": 1}
    [rejected] = rows(warehouse, _REJECTED)
    assert rejected.reason == f"it has {LINE_LIMIT_BYTES} bytes or more"
    assert (rejected.line_bytes, bytes(rejected.line)) == (size, huge[:KEPT_BYTES])
    assert bytes(rejected.line_sha256) == hashlib.sha256(huge).digest()


@pytest.mark.parametrize(
    ("last", "is_rejected"), [("amount", True), ("isWin", False), ("transactionId", True)]
)
def test_a_csv_that_may_have_been_cut_short_loses_no_digit_unseen(
    warehouse: Warehouse, tmp_path: Path, last: str, is_rejected: bool
) -> None:
    names = [name for name in FIELDS.values() if name != last] + [last]
    line = as_line("t1") | {"isWin": "true"}
    content = ",".join(names) + "\n" + ",".join(str(line[name]) for name in names)
    imported = import_bytes(warehouse, tmp_path / "a.csv", content.encode())
    assert imported.rejected == int(is_rejected)
    whole = import_bytes(warehouse, tmp_path / "a.csv", content.encode() + b"\n")
    assert whole.rejected == 0


@pytest.mark.parametrize(("is_cut", "day"), [(True, "2026-11-18"), (False, "2026-11-20")])
def test_a_csv_that_is_cut_short_before_a_day_does_not_get_that_of_the_file(
    warehouse: Warehouse, tmp_path: Path, is_cut: bool, day: str
) -> None:
    line = as_line("t1") | {"isWin": "true"}
    content = ",".join([*line, "businessDate"]) + "\n" + ",".join(map(str, line.values())) + ","
    first = content if is_cut else f"{content}\n"
    imported = import_bytes(warehouse, tmp_path / "a.csv", first.encode())
    assert imported.rejected == int(is_cut)
    import_bytes(warehouse, tmp_path / "a.csv", f"{content}2026-11-18\n".encode())
    assert str(stored(warehouse, "t1").business_date) == day


def test_a_huge_first_line_is_one_line_also_behind_a_mark(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    huge = _LINE + b" " * (LINE_LIMIT_BYTES + 1 - len(_LINE))
    content = b"\xef\xbb\xbf" + huge + b"\r\n" + json.dumps(as_line("t1")).encode()
    imported = import_bytes(warehouse, tmp_path / "a.ndjson", content)
    assert counts(imported) == {"read": 2, "new": 1, "rejected": 1}
    [rejected] = rows(warehouse, _REJECTED)
    assert bytes(rejected.line_sha256) == hashlib.sha256(huge).digest()


def test_a_corrected_file_is_simply_imported_again(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    import_bytes(warehouse, path, b"\n".join([_LINE[:-1], json.dumps(as_line("t1")).encode()]))
    imported = import_bytes(
        warehouse, path, b"\n".join([_LINE, json.dumps(as_line("t1")).encode()])
    )
    assert counts(imported) == {"read": 2, "new": 1, "same": 1}


# --- what is refused as a whole -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "lacks names: 'transactionId"),
        ("a.csv", "\ufeff", "lacks names"),
        ("a.csv", _HEADER.replace(",amount", "") + "\n", "lacks names: 'amount'"),
        ("a.csv", _HEADER.lower() + "\n", "lacks names: 'transactionId"),
        ("a.csv", _HEADER + ",scale\n", "has unknown names: 'scale'"),
        ("a.csv", _HEADER + ",amount\n", "repeats names: 'amount'"),
        ("a.csv", _HEADER.replace(",", ";") + "\n", "lacks names"),
        ("a.csv", '"' + _HEADER + "\n", "cannot be read: it is not CSV"),
        ("a.csv", "x" * 3_000_000, "lacks names"),
        ("a.txt", _CSV_LINE, "is neither .ndjson, .jsonl nor .csv"),
        ("a.ndjson.gz", "", "is neither"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_to_change(
    warehouse: Warehouse, tmp_path: Path, name: str, content: str, told: str
) -> None:
    with pytest.raises(FileRefused, match=told):
        import_bytes(warehouse, tmp_path / name, content.encode())
    assert rows(warehouse, _ENTERED) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", _HEADER),
        ("a.csv", "\ufeff" + _HEADER + "\r\n"),
        ("a.ndjson", ""),
        ("a.ndjson", "\n"),
    ],
)
def test_a_file_without_payouts_is_imported_to_its_end(
    warehouse: Warehouse, tmp_path: Path, name: str, content: str
) -> None:
    assert counts(import_bytes(warehouse, tmp_path / name, content.encode())) == {}


def test_the_day_of_a_line_is_never_guessed(warehouse: Warehouse, tmp_path: Path) -> None:
    lines = [as_line("t1", businessDate="2026-11-20"), as_line("t2")]
    path = write_ndjson(tmp_path / "a.ndjson", lines)
    with pytest.raises(FileRefused, match=r"Line 2 has no businessDate.*--business-date"):
        import_file(warehouse.engine, path)
    assert counts(import_file(warehouse.engine, path, DAY)) == {"read": 2, "new": 2}


# --- the command --------------------------------------------------------------------------------


def start(warehouse: Warehouse, path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "include.payouts", "import", str(path), *arguments],
        cwd=_ROOT,
        env={**os.environ, "WAREHOUSE_URL": warehouse.pipelines_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, progress = process.communicate(timeout=240)
    return process.returncode, said, progress


@pytest.mark.parametrize(
    ("lines", "arguments", "code", "told"),
    [
        ([as_line("t1")], ["--business-date", "2026-11-20"], 0, "new          1"),
        ([as_line("t1"), {}], ["--business-date", "2026-11-20"], 1, "rejected     1"),
        ([as_line("t1")], [], 2, "has no businessDate"),
        ([as_line("t1")], ["--business-date", "yesterday"], 2, "invalid fromisoformat value"),
    ],
)
def test_the_exit_code_says_whether_every_line_is_in(
    warehouse: Warehouse,
    tmp_path: Path,
    lines: list[dict[str, Any]],
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    path = write_ndjson(tmp_path / "a file.ndjson", lines)
    returned, said, progress = finish(start(warehouse, path, *arguments))
    assert returned == code, progress
    assert told in said + progress
    if code < 2:
        assert f"100%  {len(lines)} lines" in progress


def test_what_is_not_there_is_told_without_a_traceback(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    returned, _, told = finish(start(warehouse, tmp_path / "none.csv"))
    assert returned == 2
    assert "none.csv" in told
    assert "Traceback" not in told


def _write_many(path: Path, number: int, seed: int = 1) -> Path:
    drawn = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(number):
            line = as_line(f"{drawn.getrandbits(128):032x}", amount=drawn.randrange(10**9))
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    return path


def _has_committed(warehouse: Warehouse, number: int) -> bool:
    return bool(rows(warehouse, "SELECT count(*) FROM wallet.transaction")[0][0] >= number)


def test_killed_in_the_middle_and_started_again_nothing_is_doubled_or_lost(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    number = 20_000
    path = _write_many(tmp_path / "a.ndjson", number)
    with path.open("a", encoding="utf-8") as file:
        file.write("no payout\n")
    for committed in (1, 5001, 12_000):
        process = start(warehouse, path, "--business-date", "2026-11-20")
        wait_for("lines are committed", partial(_has_committed, warehouse, committed), 60)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
        assert process.returncode == -signal.SIGKILL
    returned, said, progress = finish(start(warehouse, path, "--business-date", "2026-11-20"))
    assert returned == 1, progress
    assert f"read         {number + 1}\n" in said
    _check_all_entered(warehouse, path, number)
    assert len(rows(warehouse, _REJECTED)) == 1


def test_two_imports_at_once_share_the_work(warehouse: Warehouse, tmp_path: Path) -> None:
    number = 15_000
    path = _write_many(tmp_path / "a.ndjson", number)
    other = tmp_path / "b.ndjson"
    lines = path.read_text(encoding="utf-8").splitlines()
    random.Random(2).shuffle(lines)
    other.write_text("\n".join(lines), encoding="utf-8")
    with warehouse.owner_engine.begin() as connection:
        # Neither is done before the other has begun.
        connection.execute(text("LOCK TABLE wallet.transaction IN SHARE MODE"))
        both = [start(warehouse, each, "--business-date", "2026-11-20") for each in (path, other)]
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
        wait_for("both wait", lambda: len(rows(warehouse, waiting)) >= 2, 60.0)
    ended = [finish(one) for one in both]
    assert [returned for returned, _, _ in ended] == [0, 0], ended
    new = [int(said.split("new")[1].split()[0]) for _, said, _ in ended]
    assert sum(new) == number
    assert min(new) > 0
    _check_all_entered(warehouse, path, number)


def _check_all_entered(warehouse: Warehouse, path: Path, number: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()[:number]
    expected = {line["transactionId"]: line["amount"] for line in map(json.loads, lines)}
    assert len(expected) == number
    entered = rows(warehouse, "SELECT transaction_id, amount FROM wallet.transaction")
    assert {row.transaction_id: row.amount for row in entered} == expected
    assert rows(warehouse, "SELECT FROM wallet.transaction_conflict") == []
    assert rows(warehouse, "SELECT FROM wallet.transaction WHERE hold_reason IS NOT NULL") == []


def test_memory_does_not_grow_with_the_file(warehouse: Warehouse, tmp_path: Path) -> None:
    peaks = []
    for number in (20_000, 200_000):
        path = _write_many(tmp_path / f"{number}.ndjson", number, seed=number)
        process = start(warehouse, path, "--business-date", "2026-11-20")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, finish(process)
        assert f"new          {number}\n" in finish(process)[1]
        peaks.append(usage.ru_maxrss * 1024)
    few, many = peaks
    assert many < few + 16 * 2**20
    assert rows(warehouse, "SELECT count(*) FROM wallet.transaction")[0][0] == 220_000
