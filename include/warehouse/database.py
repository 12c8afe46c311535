"""Connections to the warehouse: one engine a process, one role a transaction, COPY for bulk."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import chain, islice
from types import NoneType
from typing import Any, Literal, cast

import msgspec
import psycopg2
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    SmallInteger,
    Table,
    Text,
    create_engine,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.exc import DBAPIError

Role = Literal["loader", "resolver", "wallet_writer", "importer", "sender", "crediter"]

# A worker that is frozen, or whose machine has vanished, must not hold a source's lock for ever:
# the server ends its transaction, and what it had not committed is the next run's.
_OPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": "5min",
        "tcp_keepalives_idle": "60",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "6",
    }.items()
)
_COPY_ROWS = 1000


def open_engine(url: str) -> Engine:
    """An engine for one process.  `url` is any Postgres URL; the driver is always psycopg2.

    Isolation and encoding are ours, whatever the server or PGCLIENTENCODING set: what has waited
    for a source's lock must see what its holder committed.
    """
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"The warehouse must be Postgres; the URL given begins with {scheme!r}.")
    return create_engine(
        f"postgresql+psycopg2://{rest}",
        pool_size=10,
        pool_pre_ping=True,
        # Each connection would begin with looking for a type that nothing of ours has.
        use_native_hstore=False,
        isolation_level="READ COMMITTED",
        connect_args={
            "application_name": "settlement-pipelines",
            "client_encoding": "utf8",
            "options": _OPTIONS,
        },
    )


@contextmanager
def transaction(engine: Engine, role: Role) -> Iterator[Connection]:
    """One transaction in one role: committed at the end of the block, rolled back on an error."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        yield connection


@contextmanager
def acting_as(connection: Connection, role: Role) -> Iterator[None]:
    """A part of this transaction in another role: what must come to be at the same moment."""
    own = connection.scalar(text("SELECT current_user"))
    connection.execute(text(f"SET LOCAL ROLE {role}"))
    yield
    connection.execute(text(f'SET LOCAL ROLE "{own}"'))


def lock_source(connection: Connection, source: str) -> None:
    """Wait until no other transaction writes `source`; held to the end of this transaction."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"source/{source}"}
    )


def look_up_by_key(connection: Connection) -> None:
    """Let this transaction look rows up one by one through an index, however little is known of
    their table: while it grows, statistics promise a table worth reading whole for each look-up.

    Rows named by `= ANY (array)` are then met, and locked, in the order of the index; a lock that
    does not come within half a minute is an error.
    """
    connection.execute(
        text(
            "SET LOCAL lock_timeout = '30s';"
            " SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
            " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
        )
    )


def copy_rows(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY `rows` into `table`, in bounded memory whatever their number.

    Rows are drawn while the server takes in those before, so both work at once; `connection` must
    not be used by what draws them.  What that raises is raised here, and nothing was copied.
    """
    copy_encoded(connection, table, columns, encode_rows(table, columns, rows))


def encode_rows(
    table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Iterator[bytes]:
    """`rows` as `copy_encoded` takes them, a piece for every thousand; TypeError for a value that
    has no exact text.
    """
    writers = [
        (place, _WRITERS[kind])
        for place, name in enumerate(columns)
        if (kind := type(table.c[name].type)) in _WRITERS
    ]
    remaining = iter(rows)
    while several := list(islice(remaining, _COPY_ROWS)):
        yield _encode(several, writers)


def copy_encoded(
    connection: Connection, table: Table, columns: Sequence[str], pieces: Iterable[bytes]
) -> None:
    """COPY into `table` what `encode_rows` has made of rows with these columns."""
    _copy(connection, table, columns, iter(pieces), _CSV)


def copy_binary(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """The same for a few rows that hold large bytes, which the text format would double."""
    packers = [_PACKERS[type(table.c[name].type)] for name in columns]
    packed = chain.from_iterable(_pack_row(packers, row) for row in rows)
    pieces = chain([_BINARY_HEADER], packed, [_BINARY_END])
    _copy(connection, table, columns, pieces, "FORMAT binary")


def copy_out(connection: Connection, query: str) -> memoryview:
    """The rows of `query` in COPY's binary format, without its header and its end.

    Several times as quick as fetching them, above all large bytes, which come as they are.
    """
    rows = BytesIO()
    _copy_expert(connection, f"COPY ({query}) TO STDOUT WITH (FORMAT binary)", rows)
    return rows.getbuffer()[len(_BINARY_HEADER) : -len(_BINARY_END)]


def array_literal(texts: Iterable[str | None]) -> str:
    """`texts` as Postgres writes a text[]: much quicker to read than the driver's own way."""
    elements = list(texts)
    if elements and None not in elements:
        quoted = '"' + '","'.join(cast("list[str]", elements)) + '"'
        # Nearly always there is nothing to escape; looking at each by itself takes ten times as
        # long.
        if quoted.count('"') == 2 * len(elements) and "\\" not in quoted:
            return f"{{{quoted}}}"
    return "{" + ",".join(map(_array_element, elements)) + "}"


def numbers_literal(numbers: Iterable[int]) -> str:
    """`numbers` as Postgres writes an array of whole numbers."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _array_element(element: str | None) -> str:
    if element is None:
        return "NULL"
    escaped = element.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _copy(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    pieces: Iterator[bytes],
    options: str,
) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f"COPY {table.fullname} ({names}) FROM STDIN WITH ({options})"
    source = _CopySource(pieces)
    try:
        _copy_expert(connection, statement, source)
    except Exception:
        if source.error is not None:
            raise source.error from None
        raise


def _copy_expert(connection: Connection, statement: str, file: Any) -> None:
    """COPY; raises for what Postgres refuses what any other statement does."""
    with closing(connection.connection.cursor()) as cursor:
        try:
            cursor.copy_expert(statement, file)
        except psycopg2.Error as error:
            raise DBAPIError.instance(statement, None, error, psycopg2.Error) from error


class _CopySource:
    """The file that COPY reads: each `read` gives the next piece, at the end an empty one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.error: BaseException | None = None

    def read(self, _size: int) -> bytes:
        try:
            return next(self._pieces, b"")
        except BaseException as error:
            # The driver only says that reading failed, not why; a task's time-out must stay one.
            self.error = error
            raise


# COPY's CSV, written by msgspec: a row is an array of JSON without its brackets.

_CSV = r"FORMAT csv, NULL 'null', ESCAPE E'\\'"
_JSON = msgspec.json.Encoder()
_WRITTEN_AS_THEY_ARE = (NoneType, bool, int, str, Decimal, date, datetime)
_WRITERS: dict[type, Callable[[Any], str]] = {
    BYTEA: lambda value: f"\\x{value.hex()}",
    JSONB: lambda value: _JSON.encode(value).decode(),
}
# CSV escapes a quotation mark and the escape itself; all else stands for itself.
_ESCAPED_CONTROL = re.compile(rb"\\[bfnrtu]")
_ESCAPED = re.compile(rb"\\(?:u00(..)|(.))")
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}

_Writers = Sequence[tuple[int, Callable[[Any], str]]]


def _encode(rows: Sequence[Sequence[Any]], writers: _Writers) -> bytes:
    if writers:
        rows = [_with_texts(row, writers) for row in rows]
    _check_kinds(rows)
    lines = _JSON.encode_lines(rows)
    # JSON has no line break within a text.
    written = lines[1:-2].replace(b"]\n[", b"\n") + b"\n"
    return _ESCAPED.sub(_unescaped, written) if _ESCAPED_CONTROL.search(written) else written


def _with_texts(row: Sequence[Any], writers: _Writers) -> list[Any]:
    values = list(row)
    for place, write in writers:
        if values[place] is not None:
            values[place] = write(values[place])
    return values


def _check_kinds(rows: Iterable[Sequence[Any]]) -> None:
    """msgspec would also write what is not exact, or not as Postgres reads it."""
    for kind in set(map(type, chain.from_iterable(rows))):
        if not issubclass(kind, _WRITTEN_AS_THEY_ARE):
            raise TypeError(f"COPY has no text for a {kind.__name__}.")


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code, letter = escape.groups()
    return bytes.fromhex(code.decode()) if code else _CONTROLS.get(letter, escape[0])


# COPY's binary format: each value behind its length, whole numbers and times as the server keeps
# them.

_BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_END = struct.pack("!h", -1)
_BINARY_NULL = struct.pack("!i", -1)
# Smaller ones go with their neighbours: for each piece a thread has to wait for its turn again.
_LARGE_BYTES = 2**20
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _pack_bytes(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


_PACKERS: dict[type, Callable[[Any], bytes]] = {
    BYTEA: _pack_bytes,
    Text: lambda value: _pack_bytes(value.encode()),
    SmallInteger: lambda value: struct.pack("!ih", 2, value),
    Integer: lambda value: struct.pack("!ii", 4, value),
    BigInteger: lambda value: struct.pack("!iq", 8, value),
    TIMESTAMP: lambda value: struct.pack("!iq", 8, (value - _EPOCH) // _MICROSECOND),
}


def as_moment(microseconds: int) -> datetime:
    """A time (UTC) from what the binary format has of it."""
    return _EPOCH + microseconds * _MICROSECOND


def _pack_row(packers: Sequence[Callable[[Any], bytes]], row: Sequence[Any]) -> Iterator[bytes]:
    """The row in pieces, none of them empty: large bytes are one as they are, never copied."""
    packed = [struct.pack("!h", len(row))]
    for pack, value in zip(packers, row, strict=True):
        if isinstance(value, bytes) and len(value) >= _LARGE_BYTES:
            yield b"".join([*packed, struct.pack("!i", len(value))])
            yield value
            packed = []
        else:
            packed.append(_BINARY_NULL if value is None else pack(value))
    if packed:
        yield b"".join(packed)
