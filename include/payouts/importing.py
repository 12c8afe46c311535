"""Importing payouts into the outbox from a file of any size: NDJSON (.ndjson, .jsonl) or CSV.

The fields are those of the wallet's documentation, by its names (`transactionId` … `isWin`); CSV
has them in its first line, in any order.  A further field, `businessDate`, gives the UTC day as
YYYY-MM-DD; lines without it get the day given for the file.  `amount` is a whole number in
hundred-thousandths of the currency (250000000 is 2 500.00000), `isWin` is true or false.  UTF-8,
with or without a byte order mark; lines end with LF or CRLF, and none goes on in the next.

Lines that are anything else go to `wallet.rejected_line`, with the reason; nothing is guessed.
What is stored is committed every few thousand lines and found again by its id, so a file may be
imported any number of times, by two at once, and again after an import was killed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Engine,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import text as sql

from include.payouts.outbox import SOURCE, report_outbox
from include.providers.wallet import Item
from include.warehouse.database import copy_rows, transaction
from include.warehouse.importing import FileRefused
from include.warehouse.lines import (
    LINE_LIMIT_BYTES,
    Line,
    LineRejected,
    cells,
    chunks,
    keep_rejected,
    split,
    tell_rejected,
)
from include.warehouse.tables import PAYOUT_COLUMNS, rejected_line

_FIRST_DATE = date(2000, 1, 1)
_AMOUNT_LIMIT = 2**63 - 1
_TRANSACTION_ID_LIMIT = 500
_CURRENCY_LIMIT = 20

_TEXT_FIELDS = tuple(
    (field.name, field.encode_name) for field in msgspec.structs.fields(Item) if field.type is str
)
_WHOLE = "it must be a whole number in hundred-thousandths of the currency"


class _Payout(
    Item, frozen=True, gc=False, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """One line of a file."""

    business_date: date | None = None


_FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(_Payout))
_REQUIRED = _FIELDS[:-1]


@dataclass
class Imported:
    """What became of the lines read: new + same + conflicting + rejected = read.

    `same` were in the outbox already, `conflicting` with another content.  `held` are the lines
    whose payout is held, new ones among them.  `position` of `size` bytes of the file are done.
    """

    size: int
    position: int = 0
    read: int = 0
    new: int = 0
    same: int = 0
    conflicting: int = 0
    held: int = 0
    rejected: int = 0

    @property
    def gist(self) -> tuple[int, str]:
        """The lines read, and what became of those that are not as before."""
        return self.read, f"{self.new} new, {self.rejected} rejected"


def import_file(
    engine: Engine,
    path: Path,
    business_date: date | None = None,
    report: Callable[[Imported], None] = lambda imported: None,
) -> Imported:
    """Import the payouts of `path`, those without a day of their own for `business_date`.

    `report` is called after every commit.  Raises `FileRefused`, or `OSError` if the file cannot
    be read; what was stored before stays stored.
    """
    with path.open("rb") as file:
        imported = Imported(size=path.stat().st_size)
        lines = split(file)
        read_payout = _reader(path, lines)
        days = _Days(_today(engine), business_date)
        for chunk in chunks(lines):
            parsed = _parse(chunk, read_payout, days)
            _store(engine, _name(path), parsed, imported)
            imported.position = chunk[-1].ends_at
            report(imported)
    if imported.rejected:
        _report_rejected(engine, _name(path), imported)
    report_outbox(engine)
    return imported


def _name(path: Path) -> str:
    # A name that is no UTF-8 cannot be stored as it is.
    return path.name.encode("utf-8", "replace").decode()


def _today(engine: Engine) -> date:
    """The server's, by which the outbox tells what lies in the future."""
    with transaction(engine, "importer") as connection:
        today: date = connection.execute(
            sql("SELECT (now() AT TIME ZONE 'UTC')::date")
        ).scalar_one()
    return today


# From a line to a payout.

_Read = Callable[[Line], _Payout]


def _reader(path: Path, lines: Iterator[Line]) -> _Read:
    """What reads a line of this file; takes the header of a CSV file from `lines`."""
    match path.suffix.lower():
        case ".ndjson" | ".jsonl":
            return _read_json
        case ".csv":
            return _csv_reader(_read_header(lines))
        case _:
            raise FileRefused(
                f"{path.name} is neither .ndjson, .jsonl nor .csv. Nothing was imported. Rename it "
                "by what it holds."
            )


_JSON = msgspec.json.Decoder(_Payout)


def _read_json(line: Line) -> _Payout:
    try:
        payout = _JSON.decode(line.text)
    except UnicodeDecodeError:
        raise LineRejected("it is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise LineRejected(_told(error)) from None
    if _has_room_for_another_name(line.text, payout):
        names = [name for name, _ in json.loads(line.text, object_pairs_hook=list)]
        if len(set(names)) < len(names):
            raise LineRejected("a name is in it twice")
    return payout


def _told(error: Exception) -> str:
    told = str(error) or "it is nested too deeply"
    return f"{told}; {_WHOLE}" if "$.amount" in told else told


def _has_room_for_another_name(text: bytes, payout: _Payout) -> bool:
    """Of two equal names the decoder takes the last; which one was meant would be a guess.

    There is none where every quote belongs to a name or text that there must be.
    """
    quoted = len(_REQUIRED) + len(_TEXT_FIELDS) + (0 if payout.business_date is None else 2)
    return text.count(b'"') != 2 * quoted


def _read_header(lines: Iterator[Line]) -> list[str]:
    line = next(lines, None)
    try:
        names = cells(line) if line is not None else []
    except LineRejected as error:
        raise FileRefused(
            f"The first line cannot be read: {error}. Nothing was imported."
        ) from None
    missing = [name for name in _REQUIRED if name not in names]
    unknown = sorted(set(names) - set(_FIELDS))
    twice = sorted({name for name in names if names.count(name) > 1})
    for what, which in (("lacks", missing), ("has unknown", unknown), ("repeats", twice)):
        if which:
            raise FileRefused(
                f"The first line {what} names: {_quoted(', '.join(which))}. Nothing was imported. "
                f"It must name each of {', '.join(_REQUIRED)} once, and may name businessDate."
            )
    return names


def _csv_reader(names: Sequence[str]) -> _Read:
    # That a line was cut off does not show in its last field, unless it is one of these.
    last = names[-1]

    def read(line: Line) -> _Payout:
        told = cells(line)
        if len(told) != len(names):
            raise LineRejected(f"it has {len(told)} fields instead of {len(names)}")
        may_be_cut = last not in ("isWin", "businessDate") or not told[-1]
        if may_be_cut and not line.is_ended:
            raise LineRejected(
                "the file ends without a line break, so it may have been cut short; add one"
            )
        return _typed(dict(zip(names, told, strict=True)))

    return read


_DIGITS = re.compile(r"-?[0-9]{1,19}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOOLEANS = {"true": True, "false": False}


def _typed(cells: dict[str, str]) -> _Payout:
    if not _DIGITS.fullmatch(cells["amount"]):
        raise LineRejected(f"amount is {_quoted(cells['amount'])}; {_WHOLE}")
    if cells["isWin"] not in _BOOLEANS:
        raise LineRejected(f"isWin is {_quoted(cells['isWin'])}; it must be true or false")
    return _Payout(
        **{name: cells[wire_name] for name, wire_name in _TEXT_FIELDS},
        amount=int(cells["amount"]),
        is_win=_BOOLEANS[cells["isWin"]],
        business_date=_typed_date(cells.get("businessDate", "")),
    )


def _typed_date(cell: str) -> date | None:
    if not cell:
        return None
    try:
        if _DATE.fullmatch(cell):
            return date.fromisoformat(cell)
    except ValueError:
        pass
    raise LineRejected(f"businessDate is {_quoted(cell)}; it must be a day, YYYY-MM-DD")


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 50 else value[:50] + "…")


class _Days(NamedTuple):
    """The last day that a payout may belong to, and the one of those that name none."""

    today: date
    given: date | None

    def of(self, line: Line, payout: _Payout) -> date:
        day = payout.business_date or self.given
        if day is None:
            raise FileRefused(
                f"Line {line.number} has no businessDate. Lines before it may have been imported. "
                "Import the file again with --business-date YYYY-MM-DD, the UTC day that payouts "
                "without one belong to."
            )
        if day > self.today:
            raise LineRejected(
                f"the business date {day} lies in the future: it is {self.today} UTC"
            )
        if day < _FIRST_DATE:
            raise LineRejected(f"the business date {day} lies before {_FIRST_DATE}")
        return day


def _check(payout: _Payout) -> None:
    for name, wire_name in _TEXT_FIELDS:
        value: str = getattr(payout, name)
        if not value.strip():
            raise LineRejected(f"{wire_name} is empty")
        if value != value.strip():
            raise LineRejected(
                f"{wire_name} is {_quoted(value)}, with white space before or behind it: to the "
                "wallet it would be another one"
            )
        if "\0" in value:
            raise LineRejected(f"{wire_name} holds a NUL character, which cannot be stored")
    if len(payout.transaction_id) > _TRANSACTION_ID_LIMIT:
        raise LineRejected(f"transactionId is longer than {_TRANSACTION_ID_LIMIT} characters")
    if len(payout.currency) > _CURRENCY_LIMIT:
        raise LineRejected(f"currency is longer than {_CURRENCY_LIMIT} characters")
    if not 0 <= payout.amount <= _AMOUNT_LIMIT:
        # Not quoted: it may have any number of digits.
        what = "negative" if payout.amount < 0 else "beyond 2^63 - 1"
        raise LineRejected(f"amount is {what}")


class _Parsed(NamedTuple):
    """The lines of a chunk: rows for the outbox, each with its line's number, and the others."""

    rows: list[tuple[Any, ...]]
    rejected: list[tuple[Line, str]]


def _parse(chunk: list[Line], read_payout: _Read, days: _Days) -> _Parsed:
    parsed = _Parsed([], [])
    for line in chunk:
        if not line.text.strip():
            continue
        try:
            if line.is_too_long:
                raise LineRejected(f"it has {LINE_LIMIT_BYTES} bytes or more")
            payout = read_payout(line)
            _check(payout)
            day = days.of(line, payout)
            entered = (getattr(payout, name) for name in PAYOUT_COLUMNS)
            parsed.rows.append((line.number, *entered, day))
        except LineRejected as error:
            parsed.rejected.append((line, str(error)))
    return parsed


# Into the outbox.

_ENTERED = Table(
    "entered",
    MetaData(),
    Column("line_number", BigInteger),
    *(
        Column(name, {"amount": BigInteger, "is_win": Boolean}.get(name, Text))
        for name in PAYOUT_COLUMNS
    ),
    Column("business_date", Date),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)

# In the order of ids, as everything here locks payouts: two imports may wait for each other's
# chunks, but never in a circle.  Of equal ids the first line counts.
_ENTER = f"""
INSERT INTO wallet.transaction (
    {", ".join(PAYOUT_COLUMNS)}, business_date, origin_source, origin_key
)
SELECT {", ".join(PAYOUT_COLUMNS)}, business_date, 'import', :file_name || ':' || line_number
FROM entered
ORDER BY transaction_id COLLATE "C", line_number
"""

# One look-up an id, so that the cost does not grow with the outbox.
_COMPARE = f"""
SELECT
    count(*) FILTER (WHERE is_other) AS conflicting,
    count(*) FILTER (WHERE is_held) AS held
FROM entered
CROSS JOIN LATERAL (
    SELECT
        ROW({", ".join(f"entered.{name}" for name in PAYOUT_COLUMNS)}) IS DISTINCT FROM
        ROW({", ".join(f"known.{name}" for name in PAYOUT_COLUMNS)}) AS is_other,
        known.hold_reason IS NOT NULL AS is_held
    FROM wallet.transaction AS known
    WHERE known.transaction_id = entered.transaction_id COLLATE "C"
    LIMIT 1
) AS compared
"""


def _store(engine: Engine, file_name: str, parsed: _Parsed, imported: Imported) -> None:
    """Commit a chunk, and count what became of it."""
    with transaction(engine, "importer") as connection:
        new, conflicting, held = _enter(connection, file_name, parsed.rows)
        keep_rejected(connection, rejected_line, file_name, parsed.rejected)
    imported.read += len(parsed.rows) + len(parsed.rejected)
    imported.new += new
    imported.same += len(parsed.rows) - new - conflicting
    imported.conflicting += conflicting
    imported.held += held
    imported.rejected += len(parsed.rejected)


def _enter(
    connection: Connection, file_name: str, rows: list[tuple[Any, ...]]
) -> tuple[int, int, int]:
    """How many are new, how many of the others have another content, how many are held."""
    if not rows:
        return 0, 0, 0
    _ENTERED.create(connection)
    copy_rows(connection, _ENTERED, _ENTERED.columns.keys(), rows)
    connection.execute(sql("GRANT SELECT ON entered TO wallet_writer"))
    connection.execute(sql("SET LOCAL ROLE wallet_writer"))
    new = connection.execute(sql(_ENTER), {"file_name": file_name}).rowcount
    connection.execute(sql("SET LOCAL ROLE importer"))
    compared = connection.execute(sql(_COMPARE)).one()
    return new, compared.conflicting, compared.held


def _report_rejected(engine: Engine, file_name: str, imported: Imported) -> None:
    with transaction(engine, "importer") as connection:
        tell_rejected(
            connection,
            rejected_line,
            SOURCE,
            file_name,
            imported.rejected,
            summary=f"{imported.rejected} of {imported.read} lines of {file_name} are no payouts "
            "and were not imported.",
            kept="all other lines are in the outbox.",
        )
