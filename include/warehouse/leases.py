"""Leases: what only one process of all may do at a time, with an epoch for each of its holders.

A lease ends by itself when its holder no longer renews it, because it has died or is frozen.  That
one may wake up later, so a lease protects nothing by itself: whatever its holder commits is checked
against the epoch in the same transaction (`check_lease`), and then no holder before it commits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from include.warehouse.database import Role, transaction
from include.warehouse.tables import lease as lease_table

_log = logging.getLogger(__name__)

_RENEWALS_A_LEASE = 3
_LONGEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Lease:
    """A lease that was taken; `epoch` is one more than that of the holder before."""

    name: str
    epoch: int


class LeaseLost(Exception):
    """Somebody else has taken the lease meanwhile; what was to be committed was not."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            f"Another process holds {lease.name} since: this one had not renewed it in time. What "
            "it was about to write was not written. Nothing to do: the other one goes on from "
            "where this one stopped; clear this task only if no other run is there."
        )


@contextmanager
def hold_lease(
    engine: Engine, role: Role, name: str, holder: str | None, seconds: float
) -> Iterator[Lease]:
    """Wait until nobody holds `name`, then hold it to the end of the block.

    It is renewed all the time, and lasts `seconds` longer than the process.
    """
    lease = _wait_for(engine, role, name, holder, seconds)
    over = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(engine, role, lease, seconds, over), name=f"renew {name}", daemon=True
    )
    renewal.start()
    try:
        yield lease
    finally:
        over.set()
        renewal.join()
        with suppress(SQLAlchemyError):
            # Else it runs out by itself.
            _extend(engine, role, lease, 0)


def check_lease(connection: Connection, lease: Lease) -> None:
    """Raise `LeaseLost` unless `lease` is the last one; nobody takes it before this transaction
    has ended.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))"), _key(lease.name)
    )
    if not is_last(connection, lease):
        raise LeaseLost(lease)


def is_last(connection: Connection, lease: Lease) -> bool:
    """Whether nobody has taken it since; somebody may right afterwards."""
    epoch = connection.scalar(select(lease_table.c.epoch).where(lease_table.c.name == lease.name))
    return epoch == lease.epoch


def _wait_for(engine: Engine, role: Role, name: str, holder: str | None, seconds: float) -> Lease:
    told: str | None = ""
    while True:
        lease, held_by, remaining = _try_to_take(engine, role, name, holder, seconds)
        if lease is not None:
            return lease
        if held_by != told:
            _log.info("%s is held by %s. Waiting until it is free.", name, held_by or "another run")
            told = held_by
        time.sleep(min(max(remaining, 0.02), _LONGEST_WAIT_SECONDS))


def _try_to_take(
    engine: Engine, role: Role, name: str, holder: str | None, seconds: float
) -> tuple[Lease | None, str | None, float]:
    """The lease, or else who holds it and for how many seconds."""
    with transaction(engine, role) as connection:
        held = connection.execute(
            select(
                lease_table.c.holder,
                func.extract("epoch", lease_table.c.expires_at - func.clock_timestamp()),
            ).where(lease_table.c.name == name)
        ).first()
        if held is not None and held[1] > 0:
            return None, held[0], float(held[1])
        # Waits for the transactions that rely on the present holder.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), _key(name)
        )
        epoch = connection.scalar(
            text(
                "INSERT INTO ops.lease (name, epoch, holder, acquired_at, expires_at)"
                " VALUES (:name, 1, :holder, clock_timestamp(),"
                " clock_timestamp() + :seconds * interval '1 second')"
                " ON CONFLICT (name) DO UPDATE SET epoch = lease.epoch + 1,"
                " holder = excluded.holder, acquired_at = excluded.acquired_at,"
                " expires_at = excluded.expires_at"
                " WHERE lease.expires_at <= clock_timestamp() RETURNING epoch"
            ),
            {"name": name, "holder": holder, "seconds": seconds},
        )
    return (None, None, 0.0) if epoch is None else (Lease(name, epoch), None, 0.0)


def _renew(engine: Engine, role: Role, lease: Lease, seconds: float, over: threading.Event) -> None:
    while not over.wait(seconds / _RENEWALS_A_LEASE):
        try:
            if not _extend(engine, role, lease, seconds):
                return
        except SQLAlchemyError as error:
            # If it lasts, the lease runs out, and whoever takes it goes on in our place.
            _log.warning("%s could not be renewed: %s", lease.name, error)


def _extend(engine: Engine, role: Role, lease: Lease, seconds: float) -> bool:
    """Have it end in so many seconds; False if it is not ours any more."""
    with transaction(engine, role) as connection:
        extended = connection.execute(
            text(
                "UPDATE ops.lease"
                " SET expires_at = clock_timestamp() + :seconds * interval '1 second'"
                " WHERE name = :name AND epoch = :epoch"
            ),
            {"name": lease.name, "epoch": lease.epoch, "seconds": seconds},
        )
        return extended.rowcount == 1


def _key(name: str) -> dict[str, str]:
    return {"key": f"lease/{name}"}
