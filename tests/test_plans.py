"""What a question reads from a warehouse with years behind it: the plan is asked, not the clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import md5
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, create_engine, event, text

from include.payouts.outbox import freeze_new
from include.payouts.outcome import (
    DayUnfinished,
    OutboxChecked,
    Outcome,
    check_outbox,
    check_outcome,
)
from include.payouts.partner import Partner
from include.payouts.sending import SendingStopped, send
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.payouts.entering import DAY, attempt, enter, payout
from tests.warehouses import Warehouse

OLD_PAYOUTS = 200_000
_BLOCKS = "Shared Hit Blocks", "Shared Read Blocks"


class Read(NamedTuple):
    """What one statement read: blocks, and tables from their first to their last row."""

    statement: str
    blocks: int
    whole_tables: list[str]


@contextmanager
def explained(engine: Engine) -> Iterator[list[Read]]:
    """What each statement of this engine reads, found by carrying it out once more and undoing it
    right before; with the settings, the role and the rows of its own transaction.
    """
    found: list[Read] = []

    def explain(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool
    ) -> None:
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "WITH")):
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            told = cursor.fetchone()[0]
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
            [explanation] = json.loads(told) if isinstance(told, str) else told
            found.append(_read(statement, explanation["Plan"]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def _read(statement: str, plan: Mapping[str, Any]) -> Read:
    whole = [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
    return Read(statement, sum(plan[name] for name in _BLOCKS), whole)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


# --- the gates of a resend ----------------------------------------------------------------------

# As a year's runs leave them, past the triggers: these would take most of the test's time.
_HISTORY = """
SET LOCAL session_replication_role = replica;
INSERT INTO wallet.transaction (
    transaction_id, ref_transaction_id, session_id, round_id, player_id, game_id, currency, amount,
    is_win, business_date, entered_at, item, disposition, disposed_at, accounting_date, evidence
)
SELECT
    md5(number::text), 'ref', 'session', 'round', 'player', 'game', 'EUR', 250000000, true, day,
    day, convert_to(repeat('x', 250), 'UTF8'), 'processed', day + interval '25 hours',
    (day + interval '25 hours')::date, '{{"attempt_id": 1, "code": "RS_OK"}}'
FROM (
    SELECT number, DATE '{last}' - 1 - (number * 365 / {payouts}) AS day
    FROM generate_series(0, {payouts} - 1) AS number
) AS each;
INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place, outcome)
SELECT md5(number::text), 1, 1, 'ok' FROM generate_series(0, {payouts} - 1) AS number;
"""
_NEW = [f"new-{number:03}" for number in range(60)]


@pytest.fixture(scope="module")
def outbox(shared_warehouse: Warehouse) -> Warehouse:
    """An outbox of many old payouts that were processed, and of few that are open: 60 of the day
    that is sent, two of them in doubt, and an old one; another one is held.
    """
    enter(shared_warehouse, *(payout(name) for name in _NEW), payout("held", is_win=False))
    enter(shared_warehouse, payout("forgotten", business_date="2025-12-24"))
    freeze_new(shared_warehouse.engine)
    attempt(shared_warehouse, *_NEW[:2])
    with shared_warehouse.owner_engine.connect() as connection:
        connection.execute(text(_HISTORY.format(last=DAY, payouts=OLD_PAYOUTS)))
        connection.commit()
        # As autovacuum does: it tells the planner what there is, and the index of days where.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("VACUUM (ANALYZE) wallet.transaction, wallet.attempt_item"))
    return shared_warehouse


def test_the_gates_of_a_resend_read_what_is_open_and_not_what_was_ever_sent(
    outbox: Warehouse,
) -> None:
    with explained(outbox.engine) as read:
        assert check_outbox(outbox.engine, DAY) == OutboxChecked(due=61, held=1)
        with pytest.raises(DayUnfinished, match="59 to be sent, 2 sent and without an answer"):
            check_outcome(outbox.engine, DAY)
    assert reading_history(outbox, read) == []


def test_a_finished_day_is_told_without_reading_the_days_beside_it(outbox: Warehouse) -> None:
    first_day = "SELECT min(business_date) FROM wallet.transaction"
    with outbox.owner_engine.connect() as connection:
        day = connection.execute(text(first_day)).scalar_one()
    with explained(outbox.engine) as read:
        told = check_outcome(outbox.engine, day)
    assert told == Outcome(told.processed, told.processed, 0, 0, 0)
    assert told.processed > OLD_PAYOUTS / 400
    assert reading_history(outbox, read) == []


def test_a_resend_looks_up_its_currencies_and_not_all_that_it_will_send(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    due = (payout(f"due-{number:04}", currency=f"C{number % 3}") for number in range(2000))
    enter(warehouse, *due)
    refused = Partner(sandbox.wallet_url, WALLET_KEY, "another secret")
    with explained(warehouse.engine) as read, pytest.raises(SendingStopped):
        send(warehouse.engine, refused, Settings(), DAY)
    asked = [each.blocks for each in read if "each.currency" in each.statement]
    assert asked
    assert max(asked) < _blocks_of(warehouse, "wallet.transaction") / 5


def test_what_was_frozen_and_sent_is_not_passed_over_by_whoever_looks_for_more(
    warehouse: Warehouse, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaves a dead entry in an index, whose row the first look behind it would read."""
    monkeypatch.setattr("include.payouts.due._IDS_AT_A_TIME", 100)
    monkeypatch.setattr("include.payouts.due._IDS_A_STRETCH", 200)
    monkeypatch.setattr("include.payouts.outbox._ROWS_AT_A_TIME", 200)
    payouts = 1500
    enter(warehouse, *(payout(md5(f"{n}".encode()).hexdigest()) for n in range(payouts)))
    freeze_new(warehouse.engine)
    with explained(warehouse.engine) as read:
        assert freeze_new(warehouse.engine).frozen == 0
    assert max(each.blocks for each in read) < payouts * 0.6

    partner = Partner(sandbox.wallet_url, WALLET_KEY, WALLET_SECRET)
    with explained(warehouse.engine) as read:
        sent = send(warehouse.engine, partner, Settings(wallet_batch_items=10), DAY)
    assert sent.processed == payouts
    looks = [each.blocks for each in read if "used_up" in each.statement]
    assert looks
    assert max(looks) < payouts * 0.6


# --- what finance asks about markets ------------------------------------------------------------

_MARKETS = """
SET LOCAL session_replication_role = replica;
INSERT INTO prediction.market (market_id, currency, evidence, state)
SELECT 'm' || number, 'USD', '{}', 'done' FROM generate_series(1, :markets) AS number;
INSERT INTO core.settlement (
    source, source_key, version, provider_order, status, outcome, player_id, player_reference,
    market_id, position_id, currency, payout, settled_at, settled_at_basis, is_resettlement,
    is_applied, is_change, is_current, accounting_date, record_id, batch_id
)
SELECT
    'prediction', md5('s' || number), 1, 't' || number, 'settled', 'won', 'player', 'hash',
    'm' || (number % :markets + 1), md5('p' || number), 'USD', 10.5, now(), 'provider', false,
    true, false, true, current_date, number, 1
FROM generate_series(1, :settlements) AS number;
"""


@pytest.fixture
def markets(warehouse: Warehouse) -> Warehouse:
    """A hundred markets of two hundred settlements each, as autovacuum leaves them."""
    with warehouse.owner_engine.connect() as connection:
        connection.execute(text(_MARKETS), {"markets": 100, "settlements": 20_000})
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("VACUUM (ANALYZE) core.settlement, prediction.market"))
    return warehouse


@pytest.mark.parametrize("view", ["market", "market_payout", "market_unpaid"])
def test_finance_asks_about_one_market_without_reading_the_others(
    markets: Warehouse, view: str
) -> None:
    [read] = asked_by_finance(markets, f"SELECT * FROM finance.{view} WHERE market_id = 'm77'")
    assert "settlement" not in read.whole_tables
    assert read.blocks < _blocks_of(markets, "core.settlement") / 2


def test_finance_reads_all_markets_without_reading_all_settlements_for_each(
    markets: Warehouse,
) -> None:
    """A settlement's market is looked up by the index, or they are read once for all of them."""
    settlements = 20_000
    for view in ("market", "market_unpaid", "market_credit"):
        [read] = asked_by_finance(markets, f"SELECT * FROM finance.{view}")
        assert read.blocks < _blocks_of(markets, "core.settlement") + 1.2 * settlements, view


def asked_by_finance(warehouse: Warehouse, statement: str) -> list[Read]:
    """What finance's own login reads for a question."""
    engine = create_engine(warehouse.finance_url)
    try:
        with explained(engine) as read, engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
    return read


def reading_history(outbox: Warehouse, read: list[Read]) -> list[Read]:
    """Those that read a twentieth of what was ever sent or more, or all of a table but the small
    one of reports.
    """
    limit = _blocks_of(outbox, "wallet.transaction") / 20
    return [
        each
        for each in read
        if each.blocks > limit or not {"reported_outcome"}.issuperset(each.whole_tables)
    ]


def _blocks_of(warehouse: Warehouse, table: str) -> int:
    with warehouse.owner_engine.connect() as connection:
        size = connection.execute(
            text("SELECT pg_relation_size(:table) / current_setting('block_size')::int"),
            {"table": table},
        )
        return int(size.scalar_one())
