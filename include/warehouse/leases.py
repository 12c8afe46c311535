"""Leases: what only one process of all may do at a time, with an epoch for each of its holders.

A lease ends by itself when its holder no longer renews it, because it has died or is frozen.  That
one may wake up later, so a lease protects nothing by itself: whatever its holder commits is checked
against the epoch in the same transaction (`check_lease`), and then no holder before it commits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from include.warehouse.database import Role, transaction
from include.warehouse.tables import lease as lease_table

_log = logging.getLogger(__name__)

_RENEWALS_A_LEASE = 3
_LONGEST_WAIT_SECONDS = 0.25
_SHORTEST_WAIT_SECONDS = 0.02


@dataclass
class _Renewed:
    """Until when (monotonic seconds) a lease lasts at least, as far as this process knows."""

    until: float = math.inf


@dataclass(frozen=True)
class Lease:
    """A lease that was taken; `epoch` is one more than that of the holder before."""

    name: str
    epoch: int
    _renewed: _Renewed = field(default_factory=_Renewed, compare=False, repr=False)

    @property
    def has_run_out(self) -> bool:
        """Whether it may have run out by our own clock: for what must not even be tried then."""
        return time.monotonic() >= self._renewed.until


class LeaseLost(Exception):
    """Somebody else has taken the lease meanwhile; what was to be committed was not."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            f"Another process holds {lease.name} since: this one had not renewed it in time. What "
            "it was about to write was not written. Nothing to do: the other one goes on from "
            "where this one stopped; clear this task only if no other run is there."
        )


class LeaseHeld(Exception):
    """Somebody else holds the lease, and went on holding it for as long as was waited."""

    def __init__(self, name: str, holder: str | None) -> None:
        super().__init__(
            f"{name} is held by {holder or 'another run'}, which goes on with the work. Nothing "
            "was done here, and there is nothing to do."
        )


@contextmanager
def hold_lease(
    engine: Engine,
    role: Role,
    name: str,
    holder: str | None,
    seconds: float,
    *,
    patience: float = math.inf,
) -> Iterator[Lease]:
    """Wait until nobody holds `name`, then hold it to the end of the block.

    It is renewed all the time, and lasts `seconds` longer than the process.  Raises `LeaseHeld` if
    it is still held after `patience` seconds.
    """
    lease = _wait_for(engine, role, name, holder, seconds, patience)
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


def _wait_for(
    engine: Engine, role: Role, name: str, holder: str | None, seconds: float, patience: float
) -> Lease:
    ends_at = time.monotonic() + patience
    told: str | None = ""
    while True:
        left = max(ends_at - time.monotonic(), 0.0)
        lease, held_by, remaining = _try_to_take(engine, role, name, holder, seconds, left)
        if lease is not None:
            return lease
        if not left:
            raise LeaseHeld(name, held_by)
        if held_by != told:
            _log.info("%s is held by %s. Waiting until it is free.", name, held_by or "another run")
            told = held_by
        left = max(ends_at - time.monotonic(), 0.0)
        time.sleep(min(max(remaining, 0.02), _LONGEST_WAIT_SECONDS, left))


def _try_to_take(
    engine: Engine, role: Role, name: str, holder: str | None, seconds: float, patience: float
) -> tuple[Lease | None, str | None, float]:
    """The lease, or else who holds it and for how many seconds."""
    try:
        with transaction(engine, role) as connection:
            if patience < math.inf:
                _wait_for_locks(connection, max(patience, _SHORTEST_WAIT_SECONDS))
            return _take_if_free(connection, name, holder, seconds)
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            # Its holder is frozen in the midst of a transaction, which the server ends in time.
            return None, None, 0.0
        raise


def _wait_for_locks(connection: Connection, seconds: float) -> None:
    connection.execute(
        text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{seconds * 1000:.0f}ms"}
    )


def _take_if_free(
    connection: Connection, name: str, holder: str | None, seconds: float
) -> tuple[Lease | None, str | None, float]:
    held = connection.execute(
        select(
            lease_table.c.holder,
            func.extract("epoch", lease_table.c.expires_at - func.clock_timestamp()),
        ).where(lease_table.c.name == name)
    ).first()
    if held is not None and held[1] > 0:
        return None, held[0], float(held[1])
    # Waits for the transactions that rely on the present holder.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), _key(name))
    asked_at = time.monotonic()
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
    if epoch is None:
        return None, None, 0.0
    return Lease(name, epoch, _Renewed(asked_at + seconds)), None, 0.0


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
    asked_at = time.monotonic()
    with transaction(engine, role) as connection:
        extended = connection.execute(
            text(
                "UPDATE ops.lease"
                " SET expires_at = clock_timestamp() + :seconds * interval '1 second'"
                " WHERE name = :name AND epoch = :epoch"
            ),
            {"name": lease.name, "epoch": lease.epoch, "seconds": seconds},
        )
        is_ours = extended.rowcount == 1
    lease._renewed.until = asked_at + seconds if is_ours else -math.inf
    return is_ours


def _key(name: str) -> dict[str, str]:
    return {"key": f"lease/{name}"}
