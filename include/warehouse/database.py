"""Connections to the warehouse: one engine a process, one role a transaction, COPY for bulk."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Table, create_engine, text

Role = Literal["loader", "resolver"]

# COPY's marker for NULL; a text that equals it is written in its escaped form.
_NULL = "\x01"
_COPY_CHARACTERS = 1 << 20


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
        pool_size=2,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "application_name": "settlement-pipelines",
            "client_encoding": "utf8",
            "options": "-c timezone=UTC",
        },
    )


@contextmanager
def transaction(engine: Engine, role: Role) -> Iterator[Connection]:
    """One transaction in one role: committed at the end of the block, rolled back on an error."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        yield connection


def lock_source(connection: Connection, source: str) -> None:
    """Wait until no other transaction writes `source`; held to the end of this transaction."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"source/{source}"}
    )


def copy_rows(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY `rows` into `table`.  Memory is bounded whatever their number."""
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f"COPY {table.fullname} ({names}) FROM STDIN WITH (FORMAT text, NULL E'\\x01')"
    cursor = connection.connection.cursor()
    try:
        buffer = io.StringIO()
        for row in rows:
            buffer.write(_encode_row(row))
            if buffer.tell() > _COPY_CHARACTERS:
                _send(cursor, statement, buffer)
                buffer = io.StringIO()
        if buffer.tell():
            _send(cursor, statement, buffer)
    finally:
        cursor.close()


def _send(cursor: Any, statement: str, buffer: io.StringIO) -> None:
    buffer.seek(0)
    cursor.copy_expert(statement, buffer, size=_COPY_CHARACTERS)


def _encode_row(row: Sequence[Any]) -> str:
    fields = [_NULL if value is None else _encode(value) for value in row]
    return "\t".join(fields) + "\n"


def _encode(value: Any) -> str:
    if isinstance(value, str):
        if "\\" in value or "\t" in value or "\n" in value or "\r" in value or value == _NULL:
            return _escape(value)
        return value
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _escape(value: str) -> str:
    if value == _NULL:
        return "\\001"
    return (
        value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    )
