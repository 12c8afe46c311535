"""One warehouse a module, emptied for each test: a copy for each would be most of their time."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.warehouses import Warehouse


@pytest.fixture
def warehouse(shared_warehouse: Warehouse) -> Warehouse:
    """A warehouse with nothing in its outbox and no findings."""
    with shared_warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "TRUNCATE wallet.transaction, wallet.transaction_claim,"
                " wallet.transaction_conflict, wallet.rejected_line, wallet.hold,"
                " wallet.sending_window, wallet.attempt, wallet.attempt_item,"
                " wallet.reported_outcome, ops.lease, ops.finding, ops.decision, ops.alert"
                " RESTART IDENTITY"
            )
        )
    return shared_warehouse
