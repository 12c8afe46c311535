"""Where a text has left a trace: in any log of a system, in any row of a database."""

from __future__ import annotations

from pathlib import Path

import psycopg2
from psycopg2 import sql


def logs_with(folder: Path, sought: str) -> list[str]:
    """The log files below `folder` that hold the text."""
    logs = [path for path in folder.rglob("*.log") if path.is_file()]
    return [str(path) for path in logs if sought.encode() in path.read_bytes()]


def rows_with(url: str, sought: str) -> list[str]:
    """The tables that hold the text in any column of any row, binary columns included."""
    found = []
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT schemaname, tablename FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            for schema, table in cursor.fetchall():
                cursor.execute(
                    sql.SQL(
                        "SELECT EXISTS (SELECT FROM {} AS r WHERE position(%s IN r::text) > 0"
                        " OR position(%s IN r::text) > 0)"
                    ).format(sql.Identifier(schema, table)),
                    (sought, sought.encode().hex()),
                )
                if cursor.fetchone() == (True,):
                    found.append(f"{schema}.{table}")
    finally:
        connection.close()
    return found
