"""The row rules, each with rows that pass and rows that fail it, read by Postgres itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from include.local.postgres import Postgres
from include.quality.rules import (
    GROUPS,
    IS_PLAIN_WIN,
    PAYOUT_DIFFERS,
    PAYOUT_DIFFERS_BY_UNIT,
    ROW_RULES,
    RowRule,
    batch_rows,
    failing_reason,
    failing_rule,
)
from include.warehouse.tables import settlement, staging_settlement
from tests.staging import LANDED_AT, a_row, open_normalized_batch, stage
from tests.warehouses import fresh_warehouse

MONEY = {"currency": "EUR", "stake": "10", "payout": "25", "refund": "5", "enhancement": "1"}

# For every rule: changes to a good row that leave it good, and changes that fail exactly this rule.
EXAMPLES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "status_known": (
        [{}, {"status": "rejected", "outcome": None}, {"status": "cancelled", "outcome": None}],
        [{"status": "Settled"}, {"status": ""}],
    ),
    "outcome_known": (
        [{"outcome": "half_lost"}, {"outcome": "cash_out"}, {"outcome": "partly_won"}],
        [{"outcome": "WON"}, {"outcome": "push"}],
    ),
    "previous_status_known": (
        [{"previous_status": None}, {"previous_status": "open"}],
        [{"previous_status": "pending"}],
    ),
    "settled_at_basis_known": (
        [{"settled_at_basis": "observed"}],
        [{"settled_at_basis": "guessed"}],
    ),
    "source_key_told": ([{"source_key": "m1/o1"}], [{"source_key": ""}, {"source_key": " \t"}]),
    "provider_order_told": ([{"provider_order": "0007"}], [{"provider_order": ""}]),
    "names_not_blank": (
        [{"event_id": None, "player_id": "p1"}],
        [{"event_id": ""}, {"market_id": " "}, {"player_id": "\n"}, {"selection_id": ""}],
    ),
    "outcome_absent_while_open": (
        [{"status": "open", "outcome": None, "settled_at": None}],
        [{"status": "open", "outcome": "won"}],
    ),
    "outcome_told_when_decided": (
        [{"status": "failed", "outcome": None}],
        [{"status": "settled", "outcome": None}, {"status": "void", "outcome": None}],
    ),
    "void_returns_stakes": (
        [{"status": "void", "outcome": "void"}, {"status": "void", "outcome": "refunded"}],
        [{"status": "void", "outcome": "won"}],
    ),
    "money_finite": (
        [MONEY, {}],
        [
            {**MONEY, "stake": "NaN"},
            {**MONEY, "payout": "Infinity"},
            {**MONEY, "refund": "-Infinity"},
            {**MONEY, "enhancement": "NaN"},
            {"payout_multiplier": "NaN"},
            {"placement_rate": "Infinity"},
            {"settlement_rate": "-Infinity"},
        ],
    ),
    "money_not_negative": (
        [{**MONEY, "stake": "0"}],
        [
            {**MONEY, "stake": "-0.00000001"},
            {**MONEY, "refund": "-5"},
            {**MONEY, "enhancement": "-1"},
        ],
    ),
    "payout_negative_by_correction_only": (
        [
            {**MONEY, "payout": "-3", "is_resettlement": True},
            {**MONEY, "payout": "0", "refund": None, "enhancement": None},
        ],
        [{**MONEY, "payout": "-3"}],
    ),
    "currency_told": (
        [{"currency": "EUR"}],
        [{"stake": "0"}, {"payout": "1"}, {**MONEY, "currency": None}],
    ),
    "parts_within_payout": (
        [{**MONEY, "payout": "6"}, {**MONEY, "payout": None}],
        [{**MONEY, "payout": "5.99"}, {**MONEY, "enhancement": None, "payout": "4"}],
    ),
    "settled_at_told": (
        [{"status": "open", "outcome": None, "settled_at": None}],
        [{"settled_at": None}],
    ),
    "settled_at_plausible": (
        [{"settled_at": "2000-01-01 00:00+00"}, {"settled_at": LANDED_AT}],
        [
            {"settled_at": "1999-12-31 23:59:59+00"},
            {"settled_at": "2126-01-01 00:00+00"},
            {"settled_at": "infinity"},
            {"settled_at": "-infinity"},
        ],
    ),
}


@pytest.fixture(scope="module")
def connection(migrated_postgres: Postgres) -> Iterator[Connection]:
    with (
        fresh_warehouse(migrated_postgres) as warehouse,
        warehouse.owner_engine.connect() as connection,
    ):
        yield connection


def judge(connection: Connection, changes: dict[str, Any]) -> tuple[str | None, str | None]:
    """The rule that a row with `changes` fails, and the reason; nothing stays behind."""
    with connection.begin() as transaction:
        batch_id = open_normalized_batch(connection, landed=1)
        connection.execute(insert(staging_settlement), [a_row(batch_id, 1, **changes)])
        rule, reason = connection.execute(
            text(f"SELECT {failing_rule()}, {failing_reason()} FROM ({batch_rows(batch_id)}) AS r")
        ).one()
        transaction.rollback()
    return rule, reason


@pytest.mark.parametrize(
    ("earlier", "is_known"),
    [
        ({"provider_order": "1"}, True),
        ({"provider_order": "1", "status": "cancelled", "outcome": None}, True),
        ({"provider_order": "1", "status": "open", "outcome": None}, False),
        ({"provider_order": "3"}, False),
        ({"provider_order": "2"}, False),
        ({"provider_order": "1", "source_key": "another"}, False),
    ],
)
@pytest.mark.parametrize("place", ["published", "same batch"])
def test_money_is_taken_back_by_what_follows_a_known_decision(
    connection: Connection, earlier: dict[str, Any], is_known: bool, place: str
) -> None:
    taken = {**MONEY, "source_key": "bet", "payout": "-3", "provider_order": "2"}
    with connection.begin() as transaction:
        first = a_row(open_normalized_batch(connection, landed=1), 1, source_key="bet") | earlier
        batch_id = open_normalized_batch(connection, landed=1)
        if place == "same batch":
            connection.execute(insert(staging_settlement), [first | {"batch_id": batch_id}])
        else:
            booked = {"version": 1, "is_applied": True, "is_change": False}
            day = {"accounting_date": LANDED_AT[:10]}
            connection.execute(insert(settlement), [first | booked | day])
        connection.execute(insert(staging_settlement), [a_row(batch_id, 2, **taken)])
        failed = connection.scalars(
            text(f"SELECT {failing_rule()} FROM ({batch_rows(batch_id)}) AS r WHERE record_id = 2")
        ).one()
        transaction.rollback()
    assert failed == (None if is_known else "payout_negative_by_correction_only")


@pytest.mark.parametrize("rule", ROW_RULES, ids=lambda rule: rule.name)
def test_every_rule_passes_good_rows_and_names_bad_ones(
    connection: Connection, rule: RowRule
) -> None:
    good, bad = EXAMPLES[rule.name]
    assert [judge(connection, changes)[0] for changes in good] == [None] * len(good)
    assert [judge(connection, changes)[0] for changes in bad] == [rule.name] * len(bad)


WIN = {
    "currency": "EUR",
    "stake": "10.00",
    "payout": "18.50",
    "payout_multiplier": "1.85",
    "outcome": "won",
}


@pytest.mark.parametrize(
    ("changes", "is_plain", "differs"),
    [
        ({}, True, False),
        ({"payout": "18.51"}, True, False),
        ({"payout": "18.49"}, True, False),
        ({"payout": "18.511"}, True, True),
        ({"payout": "1850"}, True, True),
        ({"payout": "0"}, True, True),
        ({"payout_multiplier": "0"}, True, True),
        ({"refund": "0"}, True, False),
        # A unit of yen is a yen, one of bitcoin a hundred-millionth.
        ({"currency": "JPY", "stake": "10", "payout": "19"}, True, False),
        ({"currency": "JPY", "stake": "10", "payout": "20"}, True, True),
        ({"currency": "BTC", "stake": "0.00000010", "payout": "0.00000019"}, True, False),
        ({"currency": "BTC", "stake": "0.00000010", "payout": "0.00000021"}, True, True),
        ({"payout": "1", "payout_multiplier": None}, False, False),
        ({"payout": "1", "stake": None}, False, False),
        ({"payout": None}, False, False),
        ({"payout": "1", "refund": "1"}, False, False),
        ({"payout": "1", "status": "cancelled"}, False, False),
        ({"payout": "1", "status": "rejected"}, False, False),
        *(
            ({"payout": "1", "outcome": outcome}, False, False)
            for outcome in ("lost", "half_won", "half_lost", "cash_out", "placed")
        ),
    ],
)
def test_the_payout_of_a_plain_win_is_compared_with_its_multiplier(
    connection: Connection, changes: dict[str, Any], is_plain: bool, differs: bool
) -> None:
    with connection.begin() as transaction:
        batch_id = stage(connection, [WIN | changes])
        found = connection.execute(
            text(
                f"SELECT {failing_rule()}, {IS_PLAIN_WIN}, coalesce({PAYOUT_DIFFERS}, false)"
                f" FROM ({batch_rows(batch_id)}) AS r"
            )
        ).one()
        transaction.rollback()
    assert tuple(found) == (None, is_plain, differs)


@pytest.mark.parametrize(
    ("changes", "by_unit"),
    [
        ({}, False),
        ({"payout": "17"}, False),
        ({"payout": "0"}, False),
        ({"payout": "185"}, False),
        ({"payout": "1850"}, True),
        ({"payout": "0.185"}, True),
        ({"payout": "0.185", "outcome": "cash_out"}, False),
        ({"currency": "JPY", "stake": "10", "payout": "1850"}, False),
        ({"currency": "KWD", "stake": "10.000", "payout": "18500"}, True),
        ({"currency": "BTC", "stake": "0.00000010", "payout": "18"}, True),
        ({"currency": "BTC", "stake": "0.00000010", "payout": "0.0000000000000018"}, True),
        # Stake times multiplier is 18.4815: the unit is as wrong where it was rounded.
        ({"payout_multiplier": "1.84815", "payout": "1849"}, True),
        ({"payout_multiplier": "1.84815", "payout": "0.1848"}, True),
    ],
)
def test_a_payout_in_the_wrong_unit_is_told_from_one_that_is_another(
    connection: Connection, changes: dict[str, Any], by_unit: bool
) -> None:
    with connection.begin() as transaction:
        batch_id = stage(connection, [WIN | changes])
        found = connection.execute(
            text(f"SELECT {PAYOUT_DIFFERS_BY_UNIT} FROM ({batch_rows(batch_id)}) AS r")
        ).scalar_one()
        transaction.rollback()
    assert found is by_unit


def test_there_is_no_example_of_a_rule_that_is_gone() -> None:
    assert set(EXAMPLES) == {rule.name for rule in ROW_RULES}


def test_rules_have_names_of_their_own_and_at_most_five_groups() -> None:
    assert len({rule.name for rule in ROW_RULES}) == len(ROW_RULES)
    assert len(GROUPS) <= 5


def test_the_reason_says_what_is_demanded_and_what_was_found(connection: Connection) -> None:
    _, reason = judge(connection, {**MONEY, "stake": "-1.50"})
    assert reason == (
        "Stake, refund and enhancement are not negative. "
        "Found: stake = -1.50, refund = 5, enhancement = 1"
    )


def test_the_reason_is_short_and_never_names_a_player(connection: Connection) -> None:
    _, reason = judge(connection, {"player_id": " ", "event_id": "x" * 5000})
    assert reason is not None
    assert len(reason) < 400
    for rule in ROW_RULES:
        assert "player_id" not in rule.shows
