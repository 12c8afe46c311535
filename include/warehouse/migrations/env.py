"""How Alembic reaches the warehouse: over the connection that `migrate` hands it."""

from collections.abc import MutableMapping
from typing import Any

from alembic import context

from include.warehouse.tables import SCHEMAS, metadata


def _include_name(name: str | None, kind: str, parents: MutableMapping[Any, str | None]) -> bool:
    if kind == "schema":
        return name in SCHEMAS
    # Months of raw.page are made as they are needed; they are not part of the definition.
    return not (kind == "table" and (name or "").startswith("page_y"))


def _run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=_include_name,
        version_table_schema="public",
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
