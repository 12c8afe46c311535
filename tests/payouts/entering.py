"""Payouts made in a test, and ways into the outbox and out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, func, insert, text

from include.warehouse import tables
from include.warehouse.database import Role, open_engine, transaction
from include.warehouse.tables import transaction as transaction_table
from tests.warehouses import Warehouse

DAY = date(2026, 11, 20)
FIELDS = {
    "transaction_id": "transactionId",
    "ref_transaction_id": "refTransactionId",
    "session_id": "sessionId",
    "round_id": "roundId",
    "player_id": "playerId",
    "game_id": "gameId",
    "currency": "currency",
    "amount": "amount",
    "is_win": "isWin",
}


def payout(transaction_id: str, /, **changes: Any) -> dict[str, Any]:
    """The payout of the documentation's example with another id, as columns of the outbox."""
    return {
        "transaction_id": transaction_id,
        "ref_transaction_id": "21848853-1198-4dde-9a21-bb9598398a8c",
        "session_id": "f1dfc865-584c-4cba-a175-06172b2a41141731504451691",
        "round_id": "817e22b4-b030-468b-964e-62b9a7343050-1753428290674",
        "player_id": "18865671",
        "game_id": "G1720761376617",
        "currency": "EUR",
        "amount": 250_000_000,
        "is_win": True,
        **changes,
    }


def as_line(transaction_id: str, /, **changes: Any) -> dict[str, Any]:
    """The same by the documentation's names; `changes` by these, or by the columns' names."""
    columns = {name: changes.pop(name) for name in list(changes) if name in FIELDS}
    made = payout(transaction_id, **columns)
    return {FIELDS[name]: value for name, value in made.items()} | changes


def write_ndjson(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@contextmanager
def writer(warehouse: Warehouse) -> Iterator[Engine]:
    """The engine of an operator's own system."""
    engine = open_engine(warehouse.outbox_url)
    yield engine
    engine.dispose()


def enter(warehouse: Warehouse, *payouts: dict[str, Any], role: Role = "wallet_writer") -> int:
    """INSERT, as an operator's own system would; how many rows that entered."""
    statement = insert(transaction_table)
    with transaction(warehouse.engine, role) as connection:
        return sum(
            connection.execute(statement, {"business_date": DAY} | each).rowcount
            for each in payouts
        )


def stored(warehouse: Warehouse, transaction_id: str) -> Row[Any]:
    [row] = rows(
        warehouse, "SELECT * FROM wallet.transaction WHERE transaction_id = :id", transaction_id
    )
    return row


def rows(warehouse: Warehouse, statement: str, given: str | None = None) -> list[Row[Any]]:
    with warehouse.owner_engine.connect() as connection:
        return list(connection.execute(text(statement), {} if given is None else {"id": given}))


def as_sender(warehouse: Warehouse, assignments: str, transaction_id: str) -> None:
    """What sending does to a row, in a transaction of its own."""
    with transaction(warehouse.engine, "sender") as connection:
        send(connection, assignments, transaction_id)


def send(connection: Connection, assignments: str, transaction_id: str) -> None:
    connection.execute(
        text(f"UPDATE wallet.transaction SET {assignments} WHERE transaction_id = :id"),
        {"id": transaction_id},
    )


def attempt(warehouse: Warehouse, *transaction_ids: str, **facts: Any) -> int:
    """A request that held these payouts, as `commit_attempt` has it; its number."""
    with transaction(warehouse.engine, "sender") as connection:
        return commit_attempt(connection, *transaction_ids, **facts)


def commit_attempt(
    connection: Connection,
    *transaction_ids: str,
    result: str | None = "in_doubt",
    outcome: str | None = "in_doubt",
    code: str | None = None,
    deadline_in: float = -60,
) -> int:
    """Freeze these payouts and insert a request that held them: its number.

    Its deadline is so many seconds from now; with `result` None it is still open.
    """
    for transaction_id in transaction_ids:
        send(connection, "item = coalesce(item, '{}')", transaction_id)
    window_id = _insert(
        connection, tables.sending_window, epoch=1, closes_at=func.clock_timestamp()
    )
    deadline_at = func.clock_timestamp() + timedelta(seconds=deadline_in)
    attempt_id = _insert(
        connection,
        tables.attempt,
        window_id=window_id,
        epoch=1,
        currency="EUR",
        stage=0,
        items=len(transaction_ids),
        amount=0,
        body_sha256=b"",
        deadline_at=deadline_at,
        result=result,
        closed_at=None if result is None else func.now(),
    )
    for place, transaction_id in enumerate(transaction_ids, start=1):
        _insert(
            connection,
            tables.attempt_item,
            transaction_id=transaction_id,
            attempt_id=attempt_id,
            place=place,
            outcome=None if result is None else outcome,
            code=code,
        )
    return attempt_id


def _insert(connection: Connection, table: Table, **values: Any) -> Any:
    """Insert a row; the first column of its key."""
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return key[0]
