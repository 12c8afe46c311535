"""Every decision of these tests is killed once before it counts: it then has changed nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Engine, text

from include.warehouse.decisions import Resolution
from tests.killing import Moment, Point, Task, WorkerFailed, run_and_kill
from tests.warehouses import Warehouse

_MAY_CHANGE = (
    *("ops.finding", "ops.decision", "ops.batch", "ops.alert"),
    *("prediction.market", "prediction.credit", "wallet.transaction"),
)
_AT_ITS_COMMIT = Moment("before", Point("decide", 1))


def decide_after_a_kill(
    warehouse: Warehouse, carry_out: Callable[[Engine], Resolution]
) -> Resolution:
    """Carry a decision out in a process that is killed as it commits, and then once more."""
    before = _everything(warehouse)
    # One that is refused comes to no commit, and is refused again.
    with suppress(WorkerFailed):
        ending, _ = run_and_kill(
            warehouse.pipelines_url, [Task("decide", carry_out)], _AT_ITS_COMMIT
        )
        assert ending == "killed"
    assert _everything(warehouse) == before
    return carry_out(warehouse.engine)


def _everything(warehouse: Warehouse) -> list[str | None]:
    with warehouse.owner_engine.connect() as connection:
        return [
            connection.scalar(
                text(f"SELECT string_agg(one::text, ' ' ORDER BY 1) FROM {table} one")
            )
            for table in _MAY_CHANGE
        ]
