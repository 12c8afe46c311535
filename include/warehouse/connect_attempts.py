"""Connections to a provider that limits how many there may be: each is written down before it is
begun, whichever process begins it, so that none of them is one too many.

The provider counts a connection when its handshake comes in, some time between the moments at which
we write down that it is begun and that it is over: here it counts from the later one, or, while it
is not over, from when connecting must have ended.  It has its own clock as well, so every window is
a little longer here.  What it refuses although it seemed to be allowed blocks a whole window:
somebody else connects as well, or it counts in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, Engine, func, insert, select, update

from include.warehouse.database import transaction
from include.warehouse.findings import Finding, close_if_open, open_finding
from include.warehouse.leases import Lease, LeaseLost, check_lease, is_last
from include.warehouse.tables import connect_attempt

Kind = Literal["proper", "without_revision"]

_MARGIN = timedelta(seconds=10)
# No provider is obeyed for longer, whatever its Retry-After says.
_LONGEST_BLOCK = timedelta(days=1)
_REFUSED = "refused"


@dataclass(frozen=True)
class Budget:
    """At most so many connections of one kind in any window of that length."""

    kind: Kind
    attempts: int
    window: timedelta


class NoneLeft(Exception):
    """No connection may be begun before `next_at` (UTC); `why` says what forbids it."""

    def __init__(self, source: str, next_at: datetime, why: str) -> None:
        self.next_at = next_at
        super().__init__(
            f"No connection to {source} was begun, since {why}. The next one is possible at "
            f"{next_at:%Y-%m-%d %H:%M:%S} UTC, and the first run after that makes it: nothing to "
            "do. Everything that has landed is kept."
        )


class Connections:
    """The connections to `source` that the holder of a lease begins, in one run; connecting lasts
    `connect_seconds` at most.
    """

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        source: str,
        run_id: str | None,
        connect_seconds: float,
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._source = source
        self._run_id = run_id
        self._connecting = timedelta(seconds=connect_seconds)

    def check_ours(self) -> None:
        """Raise `LeaseLost` if another process may be the one that connects by now."""
        if self._lease.has_run_out:
            raise LeaseLost(self._lease)

    def check_budget(self, budget: Budget) -> None:
        """Raise `NoneLeft` if the budget allows no connection now."""
        with transaction(self._engine, "loader") as connection:
            _check_budget(connection, self._source, budget, self._connecting)

    def begin(self, budget: Budget, revision: int) -> int:
        """Write down a connection that is about to be begun; returns its number.

        Raises `NoneLeft` if the budget allows none now, and `LeaseLost` if another process is the
        one that connects.
        """
        with transaction(self._engine, "loader") as connection:
            check_lease(connection, self._lease)
            _check_budget(connection, self._source, budget, self._connecting)
            return int(
                connection.execute(
                    insert(connect_attempt)
                    .values(
                        source=self._source,
                        kind=budget.kind,
                        revision=revision,
                        epoch=self._lease.epoch,
                        run_id=self._run_id,
                    )
                    .returning(connect_attempt.c.attempt_id)
                ).scalar_one()
            )

    def end(self, attempt_id: int, ending: str, messages: int) -> None:
        """Write down how a connection ended, in a word, and how many messages came over it."""
        with transaction(self._engine, "loader") as connection:
            _end(connection, attempt_id, ending, messages)
            # What another was refused since, this one's messages do not answer.
            if messages and is_last(connection, self._lease):
                close_if_open(connection, "connections_refused", self._source, self._source)

    def refuse(
        self, attempt_id: int, happened: str, retry_after: float | None, messages: int
    ) -> None:
        """Write down that the provider refused a connection, and open a finding that it did.

        Raises `LeaseLost` if another process is the one that connects: then it was refused for it.
        """
        ending = _REFUSED if retry_after is None else f"{_REFUSED} for {retry_after:.0f} s"
        with transaction(self._engine, "loader") as connection:
            check_lease(connection, self._lease)
            _end(connection, attempt_id, ending, messages)
            open_finding(connection, _refused(self._source, attempt_id, happened))


def _refused(source: str, attempt_id: int, happened: str) -> Finding:
    return Finding(
        kind="connections_refused",
        source=source,
        subject=source,
        summary=f"{source} refuses connections although our own count allows them. {happened} Does "
        "another system use the same account, or is one of our workers frozen with its connection "
        "open?",
        kept="What had arrived is kept. Nothing is tried before the provider's limit has passed; "
        "this finding closes itself once messages come again.",
        detail={"attempt_id": attempt_id},
    )


def _end(connection: Connection, attempt_id: int, ending: str, messages: int) -> None:
    connection.execute(
        update(connect_attempt)
        .where(connect_attempt.c.attempt_id == attempt_id)
        .values(ended_at=func.clock_timestamp(), ending=ending, messages=messages)
    )


def _check_budget(
    connection: Connection, source: str, budget: Budget, connecting: timedelta
) -> None:
    """The lease keeps others from writing one down at the same time."""
    now = connection.execute(select(func.clock_timestamp())).scalar_one()
    if (blocked_until := _blocked_until(connection, source, budget, now)) is not None:
        raise NoneLeft(source, blocked_until, "it has refused one lately")
    counted_at = _counted_since(
        connection, source, budget, connecting, now - budget.window - _MARGIN
    )
    if len(counted_at) >= budget.attempts:
        raise NoneLeft(
            source,
            counted_at[-budget.attempts] + budget.window + _MARGIN,
            f"it allows {budget.attempts} in {budget.window / timedelta(minutes=1):g} minutes",
        )


def _counted_since(
    connection: Connection, source: str, budget: Budget, connecting: timedelta, since: datetime
) -> Sequence[datetime]:
    counted_at = func.coalesce(
        connect_attempt.c.ended_at, connect_attempt.c.attempted_at + connecting
    )
    return connection.scalars(
        select(counted_at)
        .where(
            connect_attempt.c.source == source,
            connect_attempt.c.kind == budget.kind,
            # None lasts for longer.
            connect_attempt.c.attempted_at > since - _LONGEST_BLOCK,
            counted_at > since,
        )
        .order_by(counted_at)
    ).all()


def _blocked_until(
    connection: Connection, source: str, budget: Budget, now: datetime
) -> datetime | None:
    """Until when the last refusal blocks the budget's kind; None if it does not."""
    refused = connection.execute(
        select(
            connect_attempt.c.ended_at,
            func.substring(connect_attempt.c.ending, r"\d+").label("seconds"),
        )
        .where(
            connect_attempt.c.source == source,
            connect_attempt.c.kind == budget.kind,
            connect_attempt.c.attempted_at > now - 2 * _LONGEST_BLOCK,
            connect_attempt.c.ending.startswith(_REFUSED),
        )
        .order_by(connect_attempt.c.attempted_at.desc())
        .limit(1)
    ).first()
    if refused is None:
        return None
    asked = min(timedelta(seconds=int(refused.seconds or 0)), _LONGEST_BLOCK)
    blocked_until: datetime = refused.ended_at + max(asked, budget.window) + _MARGIN
    return blocked_until if blocked_until > now else None
