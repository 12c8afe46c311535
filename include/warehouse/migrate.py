"""Bring a warehouse to what this version of the project needs; safe to repeat at any time.

Tables and functions come from numbered migrations.  Views and grants have one definition each,
the file and the list in this tree, and are made anew every time, in one transaction.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, func, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from include.settings import Settings
from include.warehouse.database import open_engine
from include.warehouse.roles import apply_grants, create_logins, create_roles
from include.warehouse.tables import player_pad, rate_terms

_INCLUDE = Path(__file__).parents[1]
_LOCK = 5_283_947_201  # Any number: it keeps two migrations of one database from running at once.
_ODDS88 = "odds88"


def migrate(
    owner_url: str, passwords: dict[str, str] | None = None, settings: Settings | None = None
) -> None:
    """Migrate the database behind `owner_url`, which must be owned by that login.

    `passwords` maps the logins of `LOGINS` to passwords; a login named there is created, or given
    that password.  Without it, logins are the operator's own business.  What `settings` say about
    the providers' exchange rates is written down for finance's views; the environment's, if none
    are given.
    """
    settings = settings or Settings()
    engine = open_engine(owner_url)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            create_roles(connection)
            _drop_views(connection)
            command.upgrade(alembic_config(connection), "head")
            _create_views(connection)
            _ensure_player_key(connection)
            _keep_rate_terms(connection, settings)
            apply_grants(connection)
            create_logins(connection, passwords or {})
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for this tree's migrations over `connection`."""
    config = Config()
    config.set_main_option("script_location", str(_INCLUDE / "warehouse" / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def view_files() -> list[Path]:
    """The files that define views, functions that these ask, and finance's functions, in the order
    in which they may build on each other.
    """
    return sorted(_INCLUDE.glob("*/views/*.sql"), key=lambda path: path.name)


def _ensure_player_key(connection: Connection) -> None:
    """The key under which finance sees players is drawn once and never leaves the database."""
    key = secrets.token_bytes(64)
    connection.execute(
        insert(player_pad).on_conflict_do_nothing(),
        {
            "inner_pad": bytes(byte ^ 0x36 for byte in key),
            "outer_pad": bytes(byte ^ 0x5C for byte in key),
        },
    )


def _keep_rate_terms(connection: Connection, settings: Settings) -> None:
    base_currency = settings.odds88_rate_base_currency
    if base_currency is None:
        connection.execute(delete(rate_terms).where(rate_terms.c.source == _ODDS88))
        return
    told = {"base_currency": base_currency, "direction": settings.odds88_rate_direction}
    connection.execute(
        insert(rate_terms)
        .values(source=_ODDS88, **told)
        .on_conflict_do_update(
            index_elements=["source"],
            set_={**told, "set_at": func.now()},
            where=tuple_(rate_terms.c.base_currency, rate_terms.c.direction).is_distinct_from(
                tuple_(*told.values())
            ),
        )
    )


def _drop_views(connection: Connection) -> None:
    """Drop every view of ours, and finance's functions, which return rows of views; then those
    that views ask.

    All views in one statement: it fails if one of somebody else's builds on them, which would
    otherwise be lost without a word.
    """
    functions = connection.scalar(
        text(
            "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc"
            " WHERE pronamespace::regnamespace::text = 'finance'"
        )
    )
    if functions:
        connection.exec_driver_sql(f"DROP FUNCTION {functions}".replace("%", "%%"))
    views = connection.scalar(
        text(
            "SELECT string_agg(format('%I.%I', schemaname, viewname), ', ') FROM pg_views"
            " WHERE schemaname IN ('finance', 'core', 'raw', 'prediction')"
        )
    )
    if views:
        connection.exec_driver_sql(f"DROP VIEW {views}".replace("%", "%%"))
    asked = connection.scalar(
        text(
            "SELECT string_agg(pg_proc.oid::regprocedure::text, ', ')"
            " FROM pg_proc JOIN pg_language ON pg_language.oid = prolang"
            " WHERE pronamespace::regnamespace::text = 'core' AND lanname = 'sql'"
        )
    )
    if asked:
        connection.exec_driver_sql(f"DROP FUNCTION {asked}".replace("%", "%%"))


def _create_views(connection: Connection) -> None:
    for path in view_files():
        connection.exec_driver_sql(path.read_text(encoding="utf-8").replace("%", "%%"))
