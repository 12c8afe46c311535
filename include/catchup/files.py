"""Importing a stream's messages from a file, to fill a gap that its provider tells of no longer.

The name of the file begins with that of the source: `odds88-2026-11-18.ndjson`, or `.jsonl`, each
also packed (`.gz`).  A line is a message as the stream sent it, which is how raw.page keeps them;
with or without a byte order mark, ended by LF or CRLF.

The messages land as a batch of kind `fill`, which the source's DAG then checks, normalizes and
publishes like any other; where the stream stands is not touched.  A line that is no message is
landed too, and quarantined with its number.  Lines are committed every few thousand and found again
by their text, so a file may be imported any number of times, by two at once, and again after an
import was killed: nothing lands twice.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from sqlalchemy import Engine, and_, func, select

from include.catchup.sources import Source
from include.catchup.stream import Stream
from include.providers.moments import readable_time
from include.providers.odds88 import BrokenMessage, Message, PageEntry, Ping
from include.settings import Settings
from include.warehouse.database import transaction
from include.warehouse.importing import FileRefused
from include.warehouse.landing import Landing
from include.warehouse.pages import ArrivedPage
from include.warehouse.tables import finding as finding_table
from include.warehouse.tables import gap as gap_table

_SUFFIXES = (".ndjson", ".jsonl")
_PACKED = ".gz"
_BYTES_AT_A_TIME = 8 * 2**20
# Messages are packed to a tenth; what grows like this was made to fill a machine.
_LARGEST_GROWTH = 200
_SMALLEST_CAP_BYTES = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Of a line that a file of something else may begin with.
_LONGEST_LOOK_BYTES = 64 * 1024
_REPEATABLE = "then import the file again: nothing lands twice."


@dataclass
class TouchedGap:
    """An open gap, how many of a file's messages lie in it, and the finding that asks about it."""

    gap_id: int
    after: datetime | None
    before: datetime
    finding_id: int | None
    messages: int = 0


@dataclass
class FileImported:
    """What became of the lines read: landed + duplicates + pings = lines.

    `broken` of the lines are no message: those of them that are landed are quarantined.
    `first_at` and `last_at` are the earliest and the latest time of a settlement (UTC), `batches`
    those that took what was landed.  `position` of `size` bytes of the file are done.
    """

    size: int
    position: int = 0
    lines: int = 0
    landed: int = 0
    duplicates: int = 0
    pings: int = 0
    broken: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    batches: list[int] = field(default_factory=list)
    gaps: list[TouchedGap] = field(default_factory=list)

    @property
    def gist(self) -> tuple[int, str]:
        """The lines read, and what became of those that are not as before."""
        return self.lines, f"{self.landed} landed, {self.broken} broken"


def source_named(path: Path, sources: Iterable[Source]) -> Source | None:
    """The source whose messages the file holds according to its name; None if it names none."""
    name = path.name.lower().removesuffix(_PACKED)
    if not name.endswith(_SUFFIXES):
        return None
    return next((one for one in _streamed(sources) if name.startswith(one.name)), None)


def source_recognized(path: Path, sources: Iterable[Source]) -> Source | None:
    """The source whose message the first line is, whatever the file is called; None if it is none.

    Raises `OSError` if the file cannot be read.
    """
    with path.open("rb") as file:
        line = file.readline(_LONGEST_LOOK_BYTES).removeprefix(_BYTE_ORDER_MARK).strip()
    return next((one for one in _streamed(sources) if _is_told(_read(one, line))), None)


def import_file(
    engine: Engine,
    source: Source,
    path: Path,
    settings: Settings,
    report: Callable[[FileImported], None] = lambda imported: None,
) -> FileImported:
    """Land the messages of `path`; `report` is called after every commit.

    Raises `FileRefused`, or `OSError` if the file cannot be read; what was landed before stays.
    """
    imported = FileImported(size=path.stat().st_size, gaps=_open_gaps(engine, source))
    landing: Landing | None = None
    try:
        with opened(path) as (packed, file):
            lines = _lines(
                file, settings.stream_message_limit_bytes, unpacked_limit(path, imported.size)
            )
            for chunk in _chunks(lines, settings.land_commit_records):
                read = [(number, _read(source, text)) for number, text in chunk]
                if landing is None:
                    _check_first(source, path, read)
                    landing = Landing(
                        engine, source.name, source.feed, source.dedupe, None, kind="fill"
                    )
                _land(landing, source, path, read, imported)
                imported.position = packed.tell()
                report(imported)
    finally:
        if landing is not None:
            landing.close(has_reached_end=False)
    if landing is None:
        raise FileRefused(f"{_shown(path)} holds no line. Nothing was imported.")
    imported.gaps = [gap for gap in imported.gaps if gap.messages]
    return imported


def counts(imported: FileImported) -> dict[str, Any]:
    """What became of the file, for a task's result."""
    first_at, last_at = imported.first_at, imported.last_at
    return {
        "lines": imported.lines,
        "landed": imported.landed,
        "duplicates": imported.duplicates,
        "pings": imported.pings,
        "broken": imported.broken,
        "first_at": first_at and first_at.isoformat(),
        "last_at": last_at and last_at.isoformat(),
        "batches": imported.batches,
        "gaps": [
            {"gap_id": gap.gap_id, "finding_id": gap.finding_id, "messages": gap.messages}
            for gap in imported.gaps
        ],
    }


def next_steps(source: Source, imported: FileImported) -> list[str]:
    """What is left to do for a person: what publishes the file, and which gaps it may fill."""
    steps = []
    if imported.landed:
        numbers = ", ".join(map(str, imported.batches))
        steps.append(
            f"The next run of catch_up_{source.name} publishes batch {numbers}. If that DAG is "
            "paused, unpause it; if its `land` is red, mark that task as success."
        )
    steps += [_told(source, gap) for gap in imported.gaps]
    if not imported.gaps:
        steps.append(f"No message lies in an open gap of {source.name}.")
    return steps


def _told(source: Source, gap: TouchedGap) -> str:
    begins = "the beginning" if gap.after is None else f"{gap.after:%Y-%m-%d %H:%M} UTC"
    if gap.finding_id is None:
        asked = "watch_feeds asks about it again; then decide accept_gap"
    else:
        asked = f"decide accept_gap on finding {gap.finding_id}"
    return (
        f"{gap.messages} messages lie in gap {gap.gap_id} of {source.name}, from {begins} to "
        f"{gap.before:%Y-%m-%d %H:%M} UTC. Once they are published and nothing else is missing, "
        f"{asked} (Findings in the menu, or the DAG resolve_findings)."
    )


# The file, line by line.


class _Line(NamedTuple):
    number: int
    text: bytes


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file as it lies there, which tells how far one is, and what it holds."""
    with path.open("rb") as file:
        if path.suffix.lower() != _PACKED:
            yield file, file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield file, cast("BinaryIO", unpacked)


def unpacked_limit(path: Path, size: int) -> int | None:
    """Most bytes that the file may unpack to; None if it is not packed."""
    is_packed = path.suffix.lower() == _PACKED
    return max(_SMALLEST_CAP_BYTES, size * _LARGEST_GROWTH) if is_packed else None


def _lines(file: BinaryIO, limit: int, cap: int | None) -> Iterator[_Line]:
    """The lines that are not blank, without their ends, in bounded memory."""
    number = position = 0
    while piece := _next_piece(file, number, limit):
        number += 1
        position += len(piece)
        if cap is not None and position > cap:
            raise FileRefused(
                f"It unpacks to more than {cap} bytes, {_LARGEST_GROWTH} times its size: that is "
                f"no file of messages. Lines before line {number} are imported. If it is one, "
                f"unpack it, {_REPEATABLE}"
            )
        text = (piece.removeprefix(_BYTE_ORDER_MARK) if number == 1 else piece).strip(b"\r\n \t")
        if len(text) > limit:
            raise FileRefused(
                f"Line {number} is longer than {limit} bytes, so it is no message. Lines before it "
                "are imported. Take it out, or raise SETTLEMENTS_STREAM_MESSAGE_LIMIT_BYTES, "
                f"{_REPEATABLE}"
            )
        if text:
            yield _Line(number, text)


def _next_piece(file: BinaryIO, number: int, limit: int) -> bytes:
    """The next line with its end, or so much of it that it is seen to be too long."""
    try:
        return file.readline(limit + len(_BYTE_ORDER_MARK) + len(b"\r\n") + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileRefused(
            f"It cannot be unpacked behind line {number}: {error}. Lines before are imported. Copy "
            f"it anew, {_REPEATABLE}"
        ) from None


def _chunks(lines: Iterator[_Line], lines_at_a_time: int) -> Iterator[list[_Line]]:
    """Lines that are landed together; before an error, those that were read until then."""
    chunk: list[_Line] = []
    size = 0
    try:
        for line in lines:
            chunk.append(line)
            size += len(line.text)
            if len(chunk) >= lines_at_a_time or size >= _BYTES_AT_A_TIME:
                yield chunk
                chunk, size = [], 0
    except FileRefused:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


# From lines to raw.


def _streamed(sources: Iterable[Source]) -> Iterator[Source]:
    return (source for source in sources if isinstance(source.acquire, Stream))


def _stream(source: Source) -> Stream:
    if isinstance(source.acquire, Stream):
        return source.acquire
    raise FileRefused(f"{source.name} is no stream: no file of its messages is imported.")


def _read(source: Source, text: bytes) -> Message:
    return _stream(source).read_message(text)


def _is_told(message: Message) -> bool:
    """Whether it is what the stream sends, and not just any JSON."""
    match message.content:
        case PageEntry(bet_id=bet_id):
            return bet_id is not None
        case Ping():
            return True
    return False


def _check_first(source: Source, path: Path, read: Sequence[tuple[int, Message]]) -> None:
    if not any(_is_told(message) for _, message in read):
        raise FileRefused(
            f"None of the first {len(read)} lines of {_shown(path)} is a message of {source.name}. "
            "Nothing was imported. Each line must be one message as the stream sent it; if the "
            "file holds something else, rename it by that."
        )


def _land(
    landing: Landing,
    source: Source,
    path: Path,
    read: Sequence[tuple[int, Message]],
    imported: FileImported,
) -> None:
    """Commit a chunk as a page, and count what became of it."""
    kept = [(number, one) for number, one in read if not isinstance(one.content, Ping)]
    landed = landing.add(_page(source, path, read[0][0], read[-1][0], kept)) if kept else 0
    imported.lines += len(read)
    imported.pings += len(read) - len(kept)
    imported.landed += landed
    imported.duplicates += len(kept) - landed
    if landed and landing.batch_id not in imported.batches:
        imported.batches.append(landing.batch_id)
    for _, message in kept:
        _note(message, imported)


def _page(
    source: Source, path: Path, first: int, last: int, kept: Sequence[tuple[int, Message]]
) -> ArrivedPage:
    page = _stream(source).join_messages([message for _, message in kept])
    found: list[PageEntry | BrokenMessage] = [*page.entries, *page.broken]
    now = datetime.now(UTC)
    return ArrivedPage(
        request=f"file {_shown(path)}, lines {first} to {last}",
        requested_at=now,
        received_at=now,
        body=page.body,
        http_status=None,
        content_type="application/x-ndjson",
        records=[(one.record, one.content_sha256) for one in found],
        unknown_fields=page.unknown_fields,
        unreadable=_unreadable(path, kept),
    )


def _unreadable(path: Path, kept: Sequence[tuple[int, Message]]) -> dict[str, str]:
    """Why lines cannot be read, by their records' keys; of equal lines, the first tells."""
    reasons: dict[str, str] = {}
    for number, message in kept:
        if isinstance(message.content, BrokenMessage):
            reason = f"line {number} of {_shown(path)}: {message.content.reason}"
            reasons.setdefault(message.content.record.record_key, reason)
    return reasons


def _note(message: Message, imported: FileImported) -> None:
    if isinstance(message.content, BrokenMessage):
        imported.broken += 1
        return
    told_at = message.content.settlement_time if isinstance(message.content, PageEntry) else None
    if told_at is None:
        return
    imported.first_at = min(told_at, imported.first_at or told_at)
    imported.last_at = max(told_at, imported.last_at or told_at)
    for gap in imported.gaps:
        gap.messages += (gap.after or told_at) <= told_at < gap.before


def _shown(path: Path) -> str:
    # A name that is no UTF-8 cannot be stored as it is.
    return path.name.encode("utf-8", "replace").decode()


def _open_gaps(engine: Engine, source: Source) -> list[TouchedGap]:
    """The source's open gaps, each with the finding that asks about it."""
    asks = and_(
        finding_table.c.kind == "gap",
        finding_table.c.state == "open",
        finding_table.c.source == gap_table.c.source,
        finding_table.c.detail["gap_id"] == func.to_jsonb(gap_table.c.gap_id),
    )
    with transaction(engine, "loader") as connection:
        rows = connection.execute(
            select(gap_table, finding_table.c.finding_id)
            .join_from(gap_table, finding_table, asks, isouter=True)
            .where(gap_table.c.source == source.name, gap_table.c.state == "open")
            .order_by(gap_table.c.gap_id)
        ).all()
    gaps = []
    for row in rows:
        after, before = readable_time(row.range_after), readable_time(row.range_before)
        # What a person has noted in other words is for a person to compare.
        if before is not None and (after is not None or row.range_after is None):
            gaps.append(TouchedGap(row.gap_id, after, before, row.finding_id))
    return gaps
