"""COPY gives back every text as it was, and a connection's settings are ours, not the server's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Numeric,
    Table,
    Text,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import BOOLEAN, BYTEA, TIMESTAMP
from sqlalchemy.exc import DataError

from include.local.postgres import Postgres
from include.model import Status
from include.warehouse.database import copy_binary, copy_out, copy_rows, open_engine
from tests.warehouses import empty_database

COPIED = Table(
    "copied",
    MetaData(schema="pg_temp"),
    Column("place", BigInteger),
    Column("words", Text),
    Column("further", Text),
    Column("amount", Numeric),
    Column("content", BYTEA),
    Column("moment", TIMESTAMP(timezone=True)),
    Column("is_so", BOOLEAN),
)

# What COPY's text format gives a meaning, alone and beside other things.
ODD_TEXTS = [
    "",
    " ",
    "\\",
    "\\\\",
    "\\.",
    "\\N",
    "\\n",
    "\\001",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\x01",
    "\x01\x01",
    "\x02",
    "\x08\x0b\x0c\x1f\x7f",
    "a\tb\\\tc\nd\re",
    "\\.\n\\.",
    "NULL",
    "\"quoted\", 'too'",
    "Überprüfung – 裁定変更 ✅ \U0001f3b2 \u2028\u0085",
]


@pytest.fixture
def connection(postgres: Postgres) -> Iterator[Connection]:
    engine = open_engine(postgres.url("postgres"))
    with engine.begin() as connection:
        COPIED.create(connection)
        yield connection
    engine.dispose()


def copied(connection: Connection, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows, copied into an empty table and read back."""
    connection.execute(COPIED.delete())
    copy_rows(connection, COPIED, COPIED.columns.keys(), rows)
    found = connection.execute(COPIED.select().order_by(COPIED.c.place))
    return [
        tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
        for row in found
    ]


def test_every_odd_text_comes_back_in_any_column(connection: Connection) -> None:
    rows = [
        (place, words, further, None, None, None, None)
        for place, (words, further) in enumerate(
            (words, further) for words in (*ODD_TEXTS, None) for further in (*ODD_TEXTS, None)
        )
    ]
    assert copied(connection, rows) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
)
def test_any_text_comes_back(connection: Connection, words: list[str | None]) -> None:
    rows = [(place, word, word, None, None, None, None) for place, word in enumerate(words)]
    assert copied(connection, rows) == rows


def test_every_other_value_comes_back(connection: Connection) -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    rows = [
        (
            1,
            Status.VOID,
            None,
            Decimal("12.340"),
            b"\x00\\x\n\xff",
            datetime(2026, 1, 2, tzinfo=UTC),
            True,
        ),
        (2, None, None, Decimal("1E+3"), b"", datetime(1, 1, 1, 6, tzinfo=east), False),
        (2**62, None, None, Decimal("-0.00000001"), None, datetime.max.replace(tzinfo=UTC), None),
    ]
    found = copied(connection, rows)
    assert found == rows
    assert str(found[0][3]) == "12.340"


def test_bytes_of_any_size_come_back_wherever_they_stand(connection: Connection) -> None:
    large = bytes(range(256)) * 2**12
    amid = [(1, large, "behind"), (2, large[1:], None), (3, b"", "small"), (4, None, None)]
    last = [(5, "before", large * 2), (6, None, large)]
    copy_binary(connection, COPIED, ("place", "content", "words"), amid)
    copy_binary(connection, COPIED, ("place", "words", "content"), last)
    found = connection.execute(
        select(COPIED.c.place, COPIED.c.content, COPIED.c.words).order_by(COPIED.c.place)
    )
    assert [
        (place, content if content is None else bytes(content), words)
        for place, content, words in found
    ] == [*amid, *((place, content, words) for place, words, content in last)]


def test_many_rows_are_sent_in_parts(connection: Connection) -> None:
    rows = [(place, f"{place}\t" * 50, None, None, None, None, None) for place in range(20_000)]
    assert copied(connection, rows) == rows


def test_what_stops_the_rows_is_raised_and_nothing_is_copied(connection: Connection) -> None:
    """Be it no ordinary error, as when a task's time is up."""

    class TimeIsUp(BaseException):
        pass

    def rows() -> Iterator[tuple[Any, ...]]:
        yield (1, "first", None, None, None, None, None)
        raise TimeIsUp

    with connection.begin_nested() as savepoint:
        with pytest.raises(TimeIsUp):
            copy_rows(connection, COPIED, COPIED.columns.keys(), rows())
        savepoint.rollback()
    assert list(connection.execute(COPIED.select())) == []


def test_what_postgres_refuses_of_a_copy_is_raised_as_of_any_statement(
    connection: Connection,
) -> None:
    """Whoever catches the warehouse's errors need not know by which way rows went."""
    row = (1, "no\0text", None, None, None, None, None)
    with pytest.raises(DataError, match="0x00"), connection.begin_nested():
        copy_rows(connection, COPIED, COPIED.columns.keys(), [row])
    with pytest.raises(DataError, match="division by zero"), connection.begin_nested():
        copy_out(connection, "SELECT 1 / 0")


@pytest.mark.parametrize("column", [(b"bytes", "text"), (memoryview(b"x"), None), (1.5, None)])
def test_a_column_that_has_no_exact_text_is_refused(
    connection: Connection, column: tuple[Any, Any]
) -> None:
    rows = [(place, value, None, None, None, None, None) for place, value in enumerate(column)]
    with pytest.raises(TypeError, match="COPY has no text"):
        copy_rows(connection, COPIED, COPIED.columns.keys(), rows)


def test_isolation_encoding_and_time_zone_are_ours(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with empty_database(postgres) as name:
        owner = open_engine(postgres.url("postgres"))
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for setting in (
                "default_transaction_isolation = 'repeatable read'",
                "timezone = 'Asia/Kolkata'",
            ):
                connection.execute(text(f"ALTER DATABASE {name} SET {setting}"))
        owner.dispose()
        engine = open_engine(postgres.url(name))
        with engine.begin() as connection:
            shown = [
                connection.scalar(text(f"SHOW {setting}"))
                for setting in ("transaction_isolation", "client_encoding", "timezone")
            ]
        engine.dispose()
    assert shown == ["read committed", "UTF8", "UTC"]
