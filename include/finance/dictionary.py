"""The data dictionary: every table, view and column of a warehouse with its meaning, as Markdown,
and every function that finance may ask.

It is generated from the comments in the database's own catalogue, so it cannot say anything else
than what a person sees with `\\d+` in psql.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, text

from include.warehouse.tables import SCHEMAS

DICTIONARY = Path(__file__).with_name("DICTIONARY.md")

_HEAD = """\
# Data dictionary

Generated from the warehouse's own comments by `python -m include.finance dictionary`; do not edit.
All times are UTC, all money is exact and, unless a column says otherwise, in major units of the
row's currency.
Finance reads the schema `finance`; the others are for data teams.
"""

# Months of raw.page (partitions) are not described one by one.
_COLUMNS = text("""
SELECT
    namespace.nspname AS schema,
    obj_description(namespace.oid, 'pg_namespace') AS schema_meaning,
    relation.relname AS relation,
    CASE relation.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind,
    obj_description(relation.oid, 'pg_class') AS relation_meaning,
    attribute.attname AS column,
    format_type(attribute.atttypid, attribute.atttypmod) AS type,
    attribute.attnotnull AS is_required,
    col_description(relation.oid, attribute.attnum) AS column_meaning
FROM pg_catalog.pg_class AS relation
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
JOIN pg_catalog.pg_attribute AS attribute ON attribute.attrelid = relation.oid
WHERE namespace.nspname = ANY(:schemas)
    AND relation.relkind IN ('r', 'p', 'v', 'm')
    AND NOT relation.relispartition
    AND attribute.attnum > 0
    AND NOT attribute.attisdropped
ORDER BY array_position(:schemas, namespace.nspname::text), relation.relname, attribute.attnum
""")

# The functions of other schemas are how the warehouse works, not what it tells.
_FUNCTIONS = text("""
SELECT
    format('finance.%s(%s)', proname, pg_get_function_identity_arguments(oid)) AS function,
    obj_description(oid, 'pg_proc') AS meaning
FROM pg_catalog.pg_proc
WHERE pronamespace::regnamespace::text = 'finance'
ORDER BY function
""")


class Uncommented(Exception):
    """Something in the warehouse does not say what it means; the message names all of it."""


class DictionaryDiffers(Exception):
    """The dictionary in the tree is not that of the warehouse."""


class _Column(NamedTuple):
    schema: str
    schema_meaning: str | None
    relation: str
    kind: str
    relation_meaning: str | None
    column: str
    type: str
    is_required: bool
    column_meaning: str | None


class _Function(NamedTuple):
    function: str
    meaning: str | None


def render(connection: Connection) -> str:
    """The dictionary of the migrated warehouse behind `connection`, finance first.

    Raises `Uncommented` if a schema, table, view, column or function of finance has no comment.
    """
    schemas = ["finance", *(schema for schema in SCHEMAS if schema != "finance")]
    rows = connection.execute(_COLUMNS, {"schemas": schemas})
    columns = [_Column(*row) for row in rows]
    functions = [_Function(*row) for row in connection.execute(_FUNCTIONS)]
    _require_comments(columns, functions)
    return "\n".join([_HEAD, *_lines(columns, functions)])


def write(connection: Connection, path: Path = DICTIONARY) -> None:
    """Write the dictionary to `path`.  Raises `Uncommented`."""
    path.write_text(render(connection), encoding="utf-8")


def check(connection: Connection, path: Path = DICTIONARY) -> None:
    """Raise `DictionaryDiffers` unless `path` holds the dictionary; or `Uncommented`."""
    rendered = render(connection)
    if not path.exists() or path.read_text(encoding="utf-8") != rendered:
        raise DictionaryDiffers(
            f"{path.name} does not describe this warehouse. Nothing was written. Run"
            " `make dictionary` while `make up` runs, started with this code, or"
            " `python -m include.finance dictionary` against another migrated warehouse; commit it."
        )


def _require_comments(columns: list[_Column], functions: list[_Function]) -> None:
    of_columns = (
        named
        for column in columns
        for named in (
            (f"schema {column.schema}", column.schema_meaning),
            (f"{column.kind} {column.schema}.{column.relation}", column.relation_meaning),
            (
                f"column {column.schema}.{column.relation}.{column.column}",
                column.column_meaning,
            ),
        )
    )
    of_functions = ((f"function {each.function}", each.meaning) for each in functions)
    silent = dict.fromkeys(name for name, meaning in (*of_columns, *of_functions) if not meaning)
    if silent:
        raise Uncommented(
            f"Without a comment: {', '.join(silent)}. The dictionary was left as it is. Say what"
            " each means, in include/warehouse/tables.py or in the view's own file."
        )


def _lines(columns: list[_Column], functions: list[_Function]) -> Iterator[str]:
    for (schema, schema_meaning), in_schema in groupby(columns, lambda column: column[:2]):
        yield f"## {schema}\n\n{schema_meaning}\n"
        for relation, in_relation in groupby(in_schema, lambda column: column[2:5]):
            name, kind, meaning = relation
            yield f"### {schema}.{name} ({kind})\n\n{meaning}\n"
            yield "| column | type | meaning |\n|---|---|---|"
            for column in in_relation:
                required = ", required" if column.is_required else ""
                yield (
                    f"| `{column.column}` | {column.type}{required}"
                    f" | {_cell(column.column_meaning)} |"
                )
            yield ""
        if schema == "finance":
            for function, meaning in functions:
                yield f"### {function} (function)\n\n{meaning}\n"


def _cell(meaning: str | None) -> str:
    return re.sub(r"\s+", " ", meaning or "").replace("|", "\\|")
