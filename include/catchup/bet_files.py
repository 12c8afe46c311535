"""Importing bets into the register from a file of any size: which of tote's bets to ask for.

The file's name begins with `tote`: `tote-bets.txt`, one id a line; `.csv`, whose first line names a
column `toteId`; `.ndjson` or `.jsonl`, objects with a `toteId`.  Each may be packed (`.gz`).  What
else a line holds is passed over, and so are spaces around an id.

Lines that name no bet go to `tote.rejected_line`, with the reason.  What is stored is committed
every few thousand lines, and an id that is there already stays as it is, so a file may be imported
any number of times, by two at once, and again after an import was killed.  Only a bet that was
given up because tote never told it is asked for again.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from include.catchup import bet_register
from include.catchup.files import opened, unpacked_limit
from include.providers.tote import ID_CHARACTERS_LIMIT, PROVIDER
from include.warehouse.database import transaction
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
from include.warehouse.tables import rejected_tote_line

_COLUMN = "toteId"
_PACKED = ".gz"
_SUFFIXES = (".txt", ".csv", ".ndjson", ".jsonl")

_Read = Callable[[Line], str]


@dataclass
class RegisterImported:
    """What became of the lines read: new + same + rejected = read.

    `new` are asked for from now on, among them those that had been given up without ever having
    been told; `same` were in the register already, or came twice.  `position` of `size` bytes of
    the file are done.
    """

    size: int
    position: int = 0
    read: int = 0
    new: int = 0
    same: int = 0
    rejected: int = 0

    @property
    def gist(self) -> tuple[int, str]:
        """The lines read, and what became of those that are not as before."""
        return self.read, f"{self.new} new, {self.rejected} rejected"


def is_register(path: Path) -> bool:
    """Whether the file holds bets of tote, according to its name."""
    name = path.name.lower()
    return name.startswith(PROVIDER) and name.removesuffix(_PACKED).endswith(_SUFFIXES)


def import_register(
    engine: Engine, path: Path, report: Callable[[RegisterImported], None] = lambda imported: None
) -> RegisterImported:
    """Enter the bets of `path` into the register; `report` is called after every commit.

    Raises `FileRefused`, or `OSError` if the file cannot be read; what was stored before stays.
    """
    imported = RegisterImported(size=path.stat().st_size)
    with opened(path) as (packed, file):
        lines = _within(split(file), unpacked_limit(path, imported.size))
        read = _reader(path, lines)
        for chunk in chunks(lines):
            _store(engine, _shown(path), chunk, read, imported)
            imported.position = packed.tell()
            report(imported)
    if imported.rejected:
        _report_rejected(engine, _shown(path), imported)
    return imported


def _within(lines: Iterator[Line], limit: int | None) -> Iterator[Line]:
    """The lines of a file that may be packed, which may not unpack to more than `limit` bytes."""
    number = 0
    try:
        for line in lines:
            if limit is not None and line.ends_at > limit:
                raise FileRefused(
                    f"It unpacks to more than {limit} bytes: that is no register. Lines before "
                    f"line {line.number} are imported. If it is one, unpack it, then import it "
                    "again: nothing is entered twice."
                )
            number = line.number
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileRefused(
            f"It cannot be unpacked behind line {number}: {error}. Lines before may be imported. "
            "Copy it anew, then import it again: nothing is entered twice."
        ) from None


def _reader(path: Path, lines: Iterator[Line]) -> _Read:
    """What reads the id of a line of this file; takes the first line of a CSV file from `lines`."""
    name = path.name.lower().removesuffix(_PACKED)
    if name.endswith(".txt"):
        return _read_text
    return _csv_reader(lines) if name.endswith(".csv") else _read_json


def _read_text(line: Line) -> str:
    _require_end(line)
    try:
        return line.text.decode().strip()
    except UnicodeDecodeError as error:
        raise LineRejected(f"it is not UTF-8 (byte {error.start})") from None


class _Named(msgspec.Struct, rename="camel"):
    tote_id: str


_JSON = msgspec.json.Decoder(_Named)


def _read_json(line: Line) -> str:
    try:
        return _JSON.decode(line.text).tote_id.strip()
    except UnicodeDecodeError as error:
        raise LineRejected(f"it is not UTF-8 (byte {error.start})") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise LineRejected(str(error) or "it is nested too deeply") from None


def _csv_reader(lines: Iterator[Line]) -> _Read:
    first = next(lines, None)
    try:
        names = [name.strip() for name in cells(first)] if first is not None else []
    except LineRejected as error:
        raise FileRefused(
            f"The first line cannot be read: {error}. Nothing was imported."
        ) from None
    if names.count(_COLUMN) != 1:
        raise FileRefused(
            f"The first line names {names.count(_COLUMN)} columns {_COLUMN}. Nothing was imported. "
            f"It must name one, in which the ids are."
        )
    place = names.index(_COLUMN)
    is_last = place == len(names) - 1

    def read(line: Line) -> str:
        told = cells(line)
        if len(told) != len(names):
            raise LineRejected(f"it has {len(told)} fields instead of {len(names)}")
        if is_last:
            _require_end(line)
        return told[place].strip()

    return read


def _require_end(line: Line) -> None:
    """Nothing else tells a whole id from the beginning of one."""
    if not line.is_ended:
        raise LineRejected(
            "the file ends without a line break, so it may have been cut short; add one"
        )


def _store(
    engine: Engine, file_name: str, chunk: list[Line], read: _Read, imported: RegisterImported
) -> None:
    """Commit a chunk, and count what became of it."""
    tote_ids: list[str] = []
    rejected: list[tuple[Line, str]] = []
    for line in chunk:
        if not line.text.strip():
            continue
        try:
            tote_ids.append(_checked(line, read))
        except LineRejected as error:
            rejected.append((line, str(error)))
    with transaction(engine, "loader") as connection:
        new = bet_register.enter(connection, tote_ids, "file")
        new += bet_register.ask_again(connection, tote_ids)
        keep_rejected(connection, rejected_tote_line, file_name, rejected)
    imported.read += len(tote_ids) + len(rejected)
    imported.new += new
    imported.same += len(tote_ids) - new
    imported.rejected += len(rejected)


def _checked(line: Line, read: _Read) -> str:
    if line.is_too_long:
        raise LineRejected(f"it has {LINE_LIMIT_BYTES} bytes or more")
    tote_id = read(line)
    if not tote_id:
        raise LineRejected("the id is empty")
    if len(tote_id) > ID_CHARACTERS_LIMIT:
        raise LineRejected(f"the id is longer than {ID_CHARACTERS_LIMIT} characters")
    if not tote_id.isprintable():
        raise LineRejected("the id holds characters that cannot be seen")
    return tote_id


def _report_rejected(engine: Engine, file_name: str, imported: RegisterImported) -> None:
    with transaction(engine, "loader") as connection:
        tell_rejected(
            connection,
            rejected_tote_line,
            PROVIDER,
            file_name,
            imported.rejected,
            summary=f"{imported.rejected} of {imported.read} lines of {file_name} name no bet and "
            "were not entered.",
            kept="the bets of all other lines are in the register.",
        )


def _shown(path: Path) -> str:
    # A name that is no UTF-8 cannot be stored as it is.
    return path.name.encode("utf-8", "replace").decode()
