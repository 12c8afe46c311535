"""Which server is measured: its version, and the settings on which figures hang."""

from __future__ import annotations

import psycopg2

from include.local.postgres import Cluster

# Without these a commit is not durable, and no figure could be compared with one of a server.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_SHOWN = (
    "server_version",
    *_DURABLE,
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_compression",
    "work_mem",
    "max_parallel_workers_per_gather",
    "jit",
)


class NotDurable(Exception):
    """The server may lose what it committed: nothing is measured on it."""


def describe_server(cluster: Cluster) -> str:
    """The settings in one line.  Raises `NotDurable`."""
    connection = psycopg2.connect(cluster.url("postgres"))
    try:
        cursor = connection.cursor()
        settings = {}
        for name in _SHOWN:
            cursor.execute(f"SHOW {name}")
            (settings[name],) = cursor.fetchone() or (None,)
    finally:
        connection.close()
    if {name: settings[name] for name in _DURABLE} != _DURABLE:
        raise NotDurable(f"Commits of this server are not durable: {settings}. Set {_DURABLE}.")
    return "Postgres: " + ", ".join(f"{name} {value}" for name, value in settings.items())
