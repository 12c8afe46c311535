"""The threads that send share the connections of their engine, of which there are fewer."""

from __future__ import annotations

from sqlalchemy import QueuePool

from include.payouts.sending import Sent
from include.sandbox.client import Sandbox
from tests.payouts.entering import rows
from tests.payouts.resending import Resend, all_are, names
from tests.warehouses import Warehouse

# As many as the settings allow.
REQUESTS_AT_ONCE = 32
_CANARY = 1 + 10
# What SQLAlchemy opens beyond the size of a pool, if it is not told otherwise.
_OVERFLOW = 10

_MOST_AT_ONCE = """
SELECT max((
    SELECT count(*)
    FROM wallet.attempt AS other
    WHERE other.committed_at <= attempt.committed_at AND other.closed_at > attempt.committed_at
))
FROM wallet.attempt
"""


def test_more_requests_at_once_than_there_are_connections_come_to_their_end(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    """The wallet keeps the first of them waiting, so that all are then answered together."""
    pool = warehouse.engine.pool
    assert isinstance(pool, QueuePool)
    resend = Resend(warehouse, sandbox)
    resend.change(
        wallet_requests_at_once=REQUESTS_AT_ONCE,
        wallet_batch_items=1,
        wallet_deadline_seconds=30,
        wallet_lease_seconds=30,
    )
    every = names(_CANARY + 3 * REQUESTS_AT_ONCE)
    resend.enter(*every)
    sandbox.fault("wallet", "late_execution", seconds=1, after_calls=2, times=REQUESTS_AT_ONCE)
    assert resend.send() == Sent(requests=2 + 3 * REQUESTS_AT_ONCE, processed=len(every))
    assert resend.states() == all_are("processed", every)
    assert rows(warehouse, _MOST_AT_ONCE)[0][0] > pool.size() + _OVERFLOW
    assert resend.wrong(is_left_alone=True) == []
