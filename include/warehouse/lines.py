"""Files of lines that people give: read in bounded memory, and what of them cannot be taken kept.

Lines are UTF-8, with or without a byte order mark, and end with LF or CRLF.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.postgresql import insert

from include.warehouse.findings import Finding, open_finding

LINE_LIMIT_BYTES = 64 * 1024
"""A line of so many bytes is not taken: what is imported line by line has some hundreds."""
KEPT_BYTES = 8192
"""How much of a rejected line is kept."""

_LINES_AT_A_TIME = 5000
_BYTES_AT_A_TIME = 8 * 2**20
_REASON_LIMIT = 500
_EXAMPLES = 10
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineRejected(Exception):
    """A line is not taken; the message says why."""


class Line(NamedTuple):
    """A line without its end; of one that is too long the beginning, its size and its digest."""

    number: int
    text: bytes
    is_ended: bool
    ends_at: int
    size: int
    digest: bytes | None = None

    @property
    def is_too_long(self) -> bool:
        """Whether it reaches `LINE_LIMIT_BYTES`."""
        return self.digest is not None

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the whole line."""
        return self.digest or hashlib.sha256(self.text).digest()


def split(file: BinaryIO) -> Iterator[Line]:
    """The lines of the file, in bounded memory however long one is."""
    number = position = 0
    while piece := file.readline(LINE_LIMIT_BYTES):
        number += 1
        position += len(piece)
        is_ended = piece.endswith(b"\n")
        is_whole = is_ended or len(piece) < LINE_LIMIT_BYTES
        text = piece.removeprefix(_BYTE_ORDER_MARK) if number == 1 else piece
        if is_whole:
            text = _without_end(text)
            yield Line(number, text, is_ended, position, len(text))
        else:
            line = _skip_rest(file, number, text, position)
            position = line.ends_at
            yield line


def _skip_rest(file: BinaryIO, number: int, beginning: bytes, position: int) -> Line:
    digest = hashlib.sha256(beginning)
    size = len(beginning)
    is_ended = False
    while not is_ended and (piece := file.readline(LINE_LIMIT_BYTES)):
        position += len(piece)
        is_ended = piece.endswith(b"\n")
        text = _without_end(piece) if is_ended else piece
        digest.update(text)
        size += len(text)
    return Line(number, beginning[:KEPT_BYTES], is_ended, position, size, digest.digest())


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lines that are committed together."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.text)
        if len(chunk) >= _LINES_AT_A_TIME or size >= _BYTES_AT_A_TIME:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def cells(line: Line) -> list[str]:
    """A line of CSV taken apart; raises `LineRejected`."""
    try:
        [told] = csv.reader([line.text.decode()], strict=True)
    except UnicodeDecodeError as error:
        raise LineRejected(f"it is not UTF-8 (byte {error.start})") from None
    except csv.Error as error:
        raise LineRejected(f"it is not CSV: {error}") from None
    except ValueError:
        raise LineRejected("it is not one line of CSV") from None
    return told


def keep_rejected(
    connection: Connection,
    rejected_line: Table,
    file_name: str,
    rejected: Sequence[tuple[Line, str]],
) -> None:
    """Keep lines, each with its reason, in a table of rejected ones; the same line is kept once."""
    rows = [
        {
            "file_name": file_name,
            "line_number": line.number,
            "reason": _storable(reason),
            "line": line.text[:KEPT_BYTES],
            "line_bytes": line.size,
            "line_sha256": line.sha256,
        }
        for line, reason in rejected
    ]
    if rows:
        connection.execute(insert(rejected_line).on_conflict_do_nothing(), rows)


def tell_rejected(
    connection: Connection,
    rejected_line: Table,
    source: str,
    file_name: str,
    count: int,
    *,
    summary: str,
    kept: str,
) -> None:
    """Open the finding about lines of a file that were not taken, with some of them as examples."""
    examples = connection.execute(
        select(rejected_line.c.line_number, rejected_line.c.reason)
        .where(rejected_line.c.file_name == file_name)
        .order_by(rejected_line.c.rejected_at.desc(), rejected_line.c.line_number)
        .limit(_EXAMPLES)
    )
    open_finding(
        connection,
        Finding(
            kind="lines_rejected",
            source=source,
            subject=file_name,
            summary=summary,
            kept=f"They are in {rejected_line.fullname}, each with its number and the reason; "
            f"{kept} Correct the file and import it again: what is there already stays as it is.",
            detail={"count": count, "examples": [dict(row._mapping) for row in examples]},
        ),
    )


def _storable(reason: str) -> str:
    """A reason may quote a name of the line, which may be anything."""
    return reason.replace("\0", "\\0")[:_REASON_LIMIT]
