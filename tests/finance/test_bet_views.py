"""What finance reads of bets: messages of odds88 go through the real pipeline, and the login
finance asks; the numbers are worked out by hand.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest
from sqlalchemy import insert, text
from sqlalchemy.engine import make_url

from include.catchup.files import import_file
from include.catchup.sources import SOURCES
from include.local.postgres import Postgres, programs_folder
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.settings import Settings
from include.warehouse import tables
from include.warehouse.migrate import migrate
from include.warehouse.publishing import publish
from tests.warehouses import Warehouse, fresh_warehouse

SOURCE = SOURCES["odds88"]
SETTINGS = Settings(odds88_payout_unit="major", odds88_payout_contains_partial_refund=True)
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
DAY, NEXT_DAY, DAY_OF_RATES = date(2026, 11, 15), date(2026, 11, 16), date(2026, 11, 17)

OPEN, WON, LOST, REFUNDED, HALF_WON, HALF_LOST, CASHED_OUT, PLACED = range(8)
NO_RATE: dict[str, Any] = {"placementExchangeRate": 0, "settlementExchangeRate": None}

Ask = Callable[[str], list[dict[str, Any]]]


def message(
    bet_id: str,
    result: int,
    payout: str | None = "0",
    *,
    stake: tuple[int, int, str] | None = (1000, 2, "EUR"),
    rates: Mapping[str, Any] | None = None,
    at: str = "2026-11-15T12:00:00Z",
    selections: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> str:
    """What the stream sends about a bet; the stake as value, precision and currency."""
    amount = None
    if stake is not None:
        value, precision, currency = stake
        of_one = {"placementExchangeRate": 1, "settlementExchangeRate": 1}
        amount = {
            "value": value,
            "precision": precision,
            "currency": currency,
            **(of_one if rates is None else rates),
        }
    bet = {
        "betId": bet_id,
        "betSettlement": result,
        "isCancelled": False,
        "isRejected": False,
        "settlementTime": at,
        "selections": [leg()] if selections is None else selections,
        "amount": amount,
        **changes,
    }
    told = json.dumps({"pingId": None, "data": bet})
    # A payout stands in the message digit by digit, as no float could write it.
    return told if payout is None else f'{told[:-2]}, "payout": {payout}}}}}'


def leg(event_id: int = 7, result: int = WON, version: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "event": {"id": event_id, "name": f"Event {event_id}", "isLive": False},
        "market": {"id": 70, "type": 1, "name": "Match winner"},
        "selectionId": 700,
        "price": 2,
        "settlement": {"settlementResult": result, "settlementVersion": version},
        "type": 1,
        **changes,
    }


def rates(placement: Any, settlement: Any) -> dict[str, Any]:
    return {"placementExchangeRate": placement, "settlementExchangeRate": settlement}


def part(market_id: int) -> dict[str, Any]:
    return {"market": {"id": market_id, "type": 2, "name": "Corners"}, "selectionId": 9}


POUND, YEN, FRANC = (1000, 2, "GBP"), (1000, 0, "JPY"), (300, 2, "CHF")
LATER = "2026-11-15T18:00:00Z"
AFTER_MIDNIGHT = "2026-11-16T00:00:00Z"

MESSAGES = (
    message("won", WON, "18.50"),
    message(
        "placed", PLACED, "12.25", selections=[leg(type=7, eachWayPrice={"win": 9, "place": 3})]
    ),
    message("half won", HALF_WON, "15.00"),
    message("cashed out", CASHED_OUT, "9.99"),
    message("refunded", REFUNDED, "10.00"),
    message("half lost", HALF_LOST, "5.00"),
    message("multiple", LOST, selections=[leg(7), leg(8), leg(8, LOST, selectionId=800)]),
    message(
        "builder", WON, "30.00", selections=[leg(8, type=5, betBuilderItems=[part(1), part(2)])]
    ),
    message("open", OPEN, selections=[leg(result=OPEN)]),
    message("cancelled", WON, "18.50", isCancelled=True),
    message("won, then cancelled", WON, "18.50"),
    message("won, then cancelled", REFUNDED, "10.00", at=LATER, isCancelled=True),
    message("cancelled, then won", WON, "18.50", isCancelled=True),
    message("cancelled, then won", WON, "18.50", at=LATER),
    message("rejected", OPEN, None, stake=None, isRejected=True),
    message("without amount", LOST, stake=None, selections=[]),
    message("pound", WON, "18.50", stake=POUND, rates=rates(0.8, 0.9)),
    message("yen", LOST, stake=YEN, rates=rates(160, None)),
    message("franc", WON, "6.00", stake=FRANC, rates=rates(0.95, None)),
    message("franc without a rate", WON, "6.00", stake=FRANC, rates=NO_RATE),
    message("corrected", WON, "18.50", stake=POUND, rates=rates(0.8, 0.9), selections=[leg(7)]),
    message(
        "corrected",
        LOST,
        "-1.50",
        stake=POUND,
        rates=rates(0.8, 0.85),
        selections=[leg(9, LOST, version=2), leg(10, LOST, version=2)],
        at=AFTER_MIDNIGHT,
    ),
    message("another rate", LOST, stake=POUND, rates=rates(0.8, 0.9)),
    message("another rate", LOST, stake=POUND, rates=rates(0.7, 0.9), at=LATER),
    message("contested", WON, "20.00"),
    message("contested", LOST),
    message("contested, then passed", WON, "20.00"),
    message("contested, then passed", LOST),
    message("contested, then passed", LOST, at=AFTER_MIDNIGHT),
)

_ANY_RATES = 150
# What lies exactly between two, on either side of zero, and what lies next to it.
BETWEEN_TWO = (
    *(((units, 8, "XCC"), "2", rates(2, 4)) for units in range(1, 9)),
    *(((25, 1, "XCC"), payout, rates(500_000_000, 200_000_000)) for payout in ("1", "3", "1.1")),
    *(((1, 0, "XCC"), payout, rates(8, 200_000_000)) for payout in ("-1", "-3", "-5", "-1.0001")),
    *(((1, 0, "XCC"), payout, rates(3, 7)) for payout in ("1", "2", "-2", "1e17")),
)


def bets_of_many_rates() -> Iterator[str]:
    chance = random.Random(20261121)
    sorts = list(BETWEEN_TWO)
    for _ in range(_ANY_RATES):
        value, digits = chance.randrange(1, 10 ** chance.randrange(1, 16)), chance.randrange(9)
        paid = f"{chance.randrange(-(10**9), 10**9)}e-{chance.randrange(7)}"
        placement, settlement = (round(chance.uniform(0.0001, 20_000), 6) for _ in range(2))
        sorts.append(((value, digits, "XCC"), paid, rates(placement, settlement)))
    for number, (stake, payout, both) in enumerate(sorts):
        yield message(
            f"rate {number}",
            WON,
            payout,
            stake=stake,
            rates=both,
            at="2026-11-17T12:00:00Z",
            # Only what was settled before may take money back.
            selections=[leg(version=2)],
        )


@pytest.fixture(scope="module")
def books(
    migrated_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """A warehouse into which the messages above were published; nobody changes what is in it."""
    path = tmp_path_factory.mktemp("messages") / "odds88.ndjson"
    path.write_text("".join(f"{line}\n" for line in (*MESSAGES, *bets_of_many_rates())))
    with fresh_warehouse(migrated_postgres) as warehouse:
        import_file(warehouse.engine, SOURCE, path, SETTINGS)
        check_raw(warehouse.engine, SOURCE.name)
        normalize(warehouse.engine, SOURCE, SETTINGS)
        check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
        publish(warehouse.engine, SOURCE.name)
        yield warehouse


def login(warehouse: Warehouse) -> str:
    """The URL with which finance reaches the warehouse, as psql takes it."""
    url = make_url(warehouse.finance_url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@contextmanager
def as_finance(warehouse: Warehouse) -> Iterator[Ask]:
    """The rows of a query, asked with the login of finance."""
    connection = psycopg2.connect(login(warehouse))
    connection.autocommit = True

    def ask(query: str) -> list[dict[str, Any]]:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(query)
            return [dict(row) for row in cursor.fetchall()]

    try:
        yield ask
    finally:
        connection.close()


@pytest.fixture
def ask(books: Warehouse) -> Iterator[Ask]:
    with as_finance(books) as ask:
        yield ask


@contextmanager
def rates_mean(warehouse: Warehouse, direction: str) -> Iterator[None]:
    """As after a migration under settings that say what the rates mean."""
    terms = {"source": "odds88", "base_currency": "EUR", "direction": direction}
    with warehouse.owner_engine.begin() as connection:
        connection.execute(insert(tables.rate_terms).values(terms))
    try:
        yield
    finally:
        with warehouse.owner_engine.begin() as connection:
            connection.execute(tables.rate_terms.delete())


def by_key(rows: list[dict[str, Any]], *names: str) -> dict[str, tuple[Any, ...]]:
    return {row["source_key"]: tuple(row[name] for name in names) for row in rows}


# --- bets, by outcome and in money --------------------------------------------------------------


def test_a_bet_is_one_row_however_many_legs_and_versions_it_has(ask: Ask) -> None:
    rows = ask(f"SELECT * FROM bet WHERE settled_date IN ('{DAY}', '{NEXT_DAY}')")
    told = {json.loads(line)["data"]["betId"] for line in MESSAGES}
    assert sorted(row["source_key"] for row in rows) == sorted(told)
    legs = {key: legs for key, (legs,) in by_key(rows, "legs").items()}
    assert {key: number for key, number in legs.items() if number != 1} == {
        "multiple": 3,
        "corrected": 2,
        "without amount": 0,
    }
    (multiple,) = [row for row in rows if row["source_key"] == "multiple"]
    expected = {
        "status": "settled",
        "outcome": "lost",
        "currency": "EUR",
        "stake": Decimal("10.00"),
        "payout": Decimal(0),
        "settled_at_basis": "provider",
        "player_reference": None,
    }
    assert {name: multiple[name] for name in expected} == expected


def test_each_bet_of_a_day_and_currency_is_counted_under_one_outcome(ask: Ask) -> None:
    rows = ask(f"SELECT * FROM bet_outcome WHERE settled_date = '{DAY}' ORDER BY currency")
    counted = {
        row.pop("currency"): {name: number for name, number in row.items() if number}
        for row in rows
        if (row.pop("source"), row.pop("settled_date")) == ("odds88", DAY)
    }
    of_euro = ("won", "half_won", "placed", "cashed_out", "refunded", "half_lost", "lost", "open")
    assert counted == {
        "CHF": {"bets": 2, "won": 2},
        # What was cancelled had won, which is not counted.
        "EUR": {"bets": 12, **dict.fromkeys(of_euro, 1), "won": 3, "cancelled": 2},
        "GBP": {"bets": 2, "won": 1, "lost": 1},
        "JPY": {"bets": 1, "lost": 1},
        None: {"bets": 2, "rejected": 1, "lost": 1},
    }


def test_stakes_and_payouts_of_a_day_are_those_of_its_decided_bets(ask: Ask) -> None:
    rows = ask(f"SELECT * FROM daily_bet WHERE settled_date <= '{NEXT_DAY}'")
    names = ("bets", "stake", "payout", "bets_without_stake", "bets_without_payout")
    assert {
        (row["settled_date"], row["currency"]): tuple(row[name] for name in names) for row in rows
    } == {
        (DAY, "CHF"): (2, Decimal("6.00"), Decimal("12.00"), 0, 0),
        (DAY, "EUR"): (9, Decimal("90.00"), Decimal("119.24"), 0, 0),
        (DAY, "GBP"): (2, Decimal("20.00"), Decimal("18.50"), 0, 0),
        (DAY, "JPY"): (1, Decimal(1000), Decimal(0), 0, 0),
        (DAY, None): (1, None, None, 1, 1),
        (NEXT_DAY, "EUR"): (1, Decimal("10.00"), Decimal(0), 0, 0),
        (NEXT_DAY, "GBP"): (1, Decimal("10.00"), Decimal("-1.50"), 0, 0),
    }


def test_every_day_agrees_with_daily_settlement(ask: Ask) -> None:
    def told(query: str) -> set[tuple[Any, ...]]:
        return {tuple(row.values()) for row in ask(query)}

    in_money = (
        "SELECT settled_date, currency, {} AS bets, sum(stake) AS stake, sum(payout) AS payout"
        " FROM {} GROUP BY settled_date, currency"
    )
    decided = "daily_settlement WHERE status IN ('settled', 'void')"
    of_daily_bet = told(in_money.format("sum(bets)", "daily_bet"))
    assert of_daily_bet == told(in_money.format("sum(settlements)", decided))
    assert told("SELECT settled_date, currency, bets FROM bet_outcome") == told(
        "SELECT settled_date, currency, sum(settlements) AS bets FROM daily_settlement"
        " GROUP BY settled_date, currency"
    )
    of_bets = "bet WHERE status IN ('settled', 'void') AND NOT is_contested"
    assert of_daily_bet == told(in_money.format("count(*)", of_bets))


def test_the_outcomes_of_a_day_add_up_to_its_bets(ask: Ask) -> None:
    rows = ask("SELECT * FROM bet_outcome")
    assert len(rows) > 5
    for row in rows:
        numbers = [
            row[name] for name in row.keys() - {"source", "settled_date", "currency", "bets"}
        ]
        assert sum(numbers) == row["bets"], row


# --- the reporting currency ---------------------------------------------------------------------


def test_no_amount_is_converted_until_it_is_said_what_the_rates_mean(ask: Ask) -> None:
    names = "reporting_currency, reporting_stake, reporting_payout, rate_direction"
    rows = ask(f"SELECT DISTINCT {names} FROM bet")
    assert rows == [dict.fromkeys(names.split(", "))]
    assert ask(f"SELECT DISTINCT {names} FROM daily_bet") == rows
    (pound,) = ask("SELECT placement_rate, settlement_rate FROM bet WHERE source_key = 'pound'")
    assert tuple(pound.values()) == (Decimal("0.8"), Decimal("0.9"))
    assert ask("SELECT FROM daily_bet WHERE bets_without_reporting_stake <> bets") == []


def test_a_migration_under_settings_that_say_it_converts_them(migrated_postgres: Postgres) -> None:
    with fresh_warehouse(migrated_postgres) as warehouse:
        with warehouse.owner_engine.begin() as connection:
            connection.execute(text(_ONE_BET))
        told = Settings(odds88_rate_base_currency="EUR", odds88_rate_direction="base_per_unit")
        migrate(warehouse.owner_url, settings=told)
        with as_finance(warehouse) as ask:
            assert ask("SELECT reporting_currency, reporting_stake, reporting_payout FROM bet") == [
                {
                    "reporting_currency": "EUR",
                    "reporting_stake": Decimal("12.5"),
                    "reporting_payout": Decimal(40),
                }
            ]


_ONE_BET = """
INSERT INTO core.settlement (
    source, source_key, version, provider_order, status, outcome, settled_at, settled_at_basis,
    currency, stake, payout, placement_rate, settlement_rate, is_resettlement, is_applied,
    is_change, is_current, accounting_date, record_id, batch_id
)
VALUES (
    'odds88', 'bet', 1, 't', 'settled', 'won', '2026-11-15 12:00Z', 'provider', 'GBP', 10, 20,
    1.25, 2, false, true, false, true, '2026-11-15', 1, 1
)
"""


def test_stakes_go_by_the_placement_rate_and_payouts_by_the_settlement_rate(
    books: Warehouse, ask: Ask
) -> None:
    keys = "'won', 'pound', 'yen', 'franc', 'franc without a rate', 'without amount'"
    query = f"SELECT * FROM bet WHERE source_key IN ({keys})"
    with rates_mean(books, "units_per_base"):
        divided = by_key(ask(query), "reporting_stake", "reporting_payout")
    with rates_mean(books, "base_per_unit"):
        multiplied = by_key(ask(query), "reporting_stake", "reporting_payout")
    # Nothing is nothing at any rate; without a rate, something is not known.
    assert divided == {
        "won": (Decimal(10), Decimal("18.5")),
        "pound": (Decimal("12.5"), Decimal("20.55555556")),
        "yen": (Decimal("6.25"), Decimal(0)),
        "franc": (Decimal("3.15789474"), None),
        "franc without a rate": (None, None),
        "without amount": (None, None),
    }
    assert multiplied == {
        "won": (Decimal(10), Decimal("18.5")),
        "pound": (Decimal(8), Decimal("16.65")),
        "yen": (Decimal(160_000), Decimal(0)),
        "franc": (Decimal("2.85"), None),
        "franc without a rate": (None, None),
        "without amount": (None, None),
    }


def test_a_day_shows_the_rates_used_and_how_many_bets_have_none(books: Warehouse, ask: Ask) -> None:
    with rates_mean(books, "units_per_base"):
        rows = ask(f"SELECT * FROM daily_bet WHERE settled_date = '{DAY}'")
    days = {row["currency"]: row for row in rows}
    assert {row["reporting_currency"] for row in rows} == {"EUR"}
    expected = {
        "reporting_stake": Decimal("26.78571429"),
        "reporting_payout": Decimal("20.55555556"),
        "bets_without_reporting_stake": 0,
        "rate_direction": "units_per_base",
        "lowest_placement_rate": Decimal("0.7"),
        "highest_placement_rate": Decimal("0.8"),
        "lowest_settlement_rate": Decimal("0.9"),
        "highest_settlement_rate": Decimal("0.9"),
    }
    assert {name: days["GBP"][name] for name in expected} == expected
    names = ("bets_without_reporting_stake", "bets_without_reporting_payout", "reporting_payout")
    assert [days["CHF"][name] for name in names] == [1, 2, None]


@pytest.mark.parametrize("direction", ["units_per_base", "base_per_unit"])
def test_converted_amounts_are_rounded_to_eight_digits_half_to_even(
    books: Warehouse, ask: Ask, direction: str
) -> None:
    with rates_mean(books, direction):
        rows = ask(f"SELECT * FROM bet WHERE settled_date = '{DAY_OF_RATES}'")
        (day,) = ask(f"SELECT * FROM daily_bet WHERE settled_date = '{DAY_OF_RATES}'")
    assert len(rows) == len(BETWEEN_TWO) + _ANY_RATES
    pairs = (("stake", "placement_rate"), ("payout", "settlement_rate"))
    between_two = 0
    for amount, rate in pairs:
        for row in rows:
            converted, halves = converted_exactly(row[amount], row[rate], direction)
            assert row[f"reporting_{amount}"] == converted, row
            between_two += halves % 2 == 1
        told = sum(row[f"reporting_{amount}"] for row in rows)
        assert day[f"reporting_{amount}"] == told
    assert between_two >= (10 if direction == "units_per_base" else 0)


def converted_exactly(amount: Decimal, rate: Decimal, direction: str) -> tuple[Decimal, Decimal]:
    """The amount in the reporting currency, and in halves of its last digit before rounding."""
    with localcontext(prec=200):
        exact = amount / rate if direction == "units_per_base" else amount * rate
        rounded = exact.quantize(Decimal("1e-8"), rounding=ROUND_HALF_EVEN)
        return rounded, abs(exact) * 200_000_000


# --- corrections, cancelled and rejected bets, contested ones -----------------------------------


def test_a_correction_shows_old_and_new_money_and_the_difference(ask: Ask) -> None:
    (row,) = ask("SELECT * FROM correction WHERE source_key = 'corrected'")
    expected = {
        "what_changed": "outcome, event, market, selection, payout, settlement rate",
        "old_outcome": "won",
        "new_outcome": "lost",
        "old_currency": "GBP",
        "old_payout": Decimal("18.50"),
        "new_payout": Decimal("-1.50"),
        "payout_difference": Decimal("-20.00"),
        "stake_difference": Decimal(0),
        "old_settlement_rate": Decimal("0.9"),
        "new_settlement_rate": Decimal("0.85"),
        "is_current": True,
    }
    assert {name: row[name] for name in expected} == expected


def test_another_rate_for_the_same_money_is_a_correction_that_says_so(ask: Ask) -> None:
    (row,) = ask("SELECT * FROM correction WHERE source_key = 'another rate'")
    expected = {
        "what_changed": "placement rate",
        "old_placement_rate": Decimal("0.8"),
        "new_placement_rate": Decimal("0.7"),
        "payout_difference": Decimal(0),
    }
    assert {name: row[name] for name in expected} == expected


def test_cancelled_and_rejected_bets_are_listed_beside_what_they_were(ask: Ask) -> None:
    rows = ask("SELECT * FROM bet_cancelled")
    assert by_key(rows, "status", "stake", "payout", "old_status", "old_outcome", "old_payout") == {
        "cancelled": ("cancelled", Decimal("10.00"), Decimal("18.50"), None, None, None),
        "won, then cancelled": (
            "cancelled",
            Decimal("10.00"),
            Decimal("10.00"),
            "settled",
            "won",
            Decimal("18.50"),
        ),
        "rejected": ("rejected", None, None, None, None, None),
    }
    assert {row["settled_date"] for row in rows} == {DAY}


def test_the_contents_of_a_contested_bet_stand_beside_each_other_with_their_finding(
    ask: Ask,
) -> None:
    rows = ask("SELECT * FROM bet_contested ORDER BY record_id")
    told = [(row["source_key"], row["outcome"], row["payout"], row["is_current"]) for row in rows]
    assert told == [
        ("contested", "won", Decimal("20.00"), False),
        ("contested", "lost", Decimal(0), True),
        ("contested, then passed", "won", Decimal("20.00"), False),
        ("contested, then passed", "lost", Decimal(0), False),
    ]
    findings = {row["finding_id"]: row["source_key"] for row in rows}
    asked = ask("SELECT finding_id FROM finding_open WHERE kind = 'settlement_contested'")
    assert sorted(findings) == sorted(row["finding_id"] for row in asked)
    assert len(findings) == 2


def test_a_contested_bet_is_in_no_total_and_one_that_was_passed_is(ask: Ask) -> None:
    rows = ask("SELECT source_key, is_contested FROM bet WHERE source_key LIKE 'contested%'")
    assert by_key(rows, "is_contested") == {
        "contested": (True,),
        "contested, then passed": (False,),
    }
    counted = ask(
        f"SELECT bets FROM daily_bet WHERE settled_date = '{NEXT_DAY}' AND currency = 'EUR'"
    )
    assert counted == [{"bets": 1}]


# --- legs ---------------------------------------------------------------------------------------


def test_legs_are_those_of_the_version_that_counts_and_parts_are_no_legs(ask: Ask) -> None:
    of_day = f"bet_settled_date <= '{NEXT_DAY}'"
    rows = ask(f"SELECT * FROM bet_leg WHERE {of_day} ORDER BY source_key, leg_number")
    legs = [(row["leg_number"], row["event_id"], row["outcome"]) for row in rows]
    keys = [row["source_key"] for row in rows]
    assert [one for one, key in zip(legs, keys, strict=True) if key == "corrected"] == [
        (1, "9", "lost"),
        (2, "10", "lost"),
    ]
    assert [one for one, key in zip(legs, keys, strict=True) if key == "multiple"] == [
        (1, "7", "won"),
        (2, "8", "won"),
        (3, "8", "lost"),
    ]
    (builder,) = [row for row in rows if row["source_key"] == "builder"]
    assert (builder["type"], builder["parts"], builder["event_name"]) == (
        "bet_builder",
        2,
        "Event 8",
    )
    (counted,) = ask(f"SELECT sum(legs) AS legs FROM bet WHERE settled_date <= '{NEXT_DAY}'")
    assert counted["legs"] == len(rows)
    parts = ask(
        "SELECT source_key, leg_number, part_number, market_id FROM bet_leg_part ORDER BY 3"
    )
    assert [tuple(row.values()) for row in parts] == [
        ("builder", 1, 1, "1"),
        ("builder", 1, 2, "2"),
    ]


def test_no_view_of_legs_has_money_to_count_twice(ask: Ask) -> None:
    rows = ask(
        "SELECT DISTINCT column_name AS name FROM information_schema.columns"
        " WHERE table_schema = 'finance' AND table_name IN ('bet_leg', 'bet_leg_part')"
    )
    names = {row["name"] for row in rows}
    assert {"leg_number", "part_number", "price"} < names
    assert names.isdisjoint(
        {"currency", "stake", "payout", "refund", "reporting_stake", "reporting_payout"}
    )


def test_two_currencies_are_never_in_one_sum(ask: Ask) -> None:
    for view in ("bet_outcome", "daily_bet"):
        rows = ask(
            f"SELECT source, settled_date, currency, count(*) AS n FROM {view} GROUP BY 1, 2, 3"
        )
        assert {row["n"] for row in rows} == {1}
        mixed = ask(
            f"SELECT FROM {view} WHERE bets > (SELECT count(*) FROM bet"
            f" WHERE bet.settled_date = {view}.settled_date"
            f" AND bet.currency IS NOT DISTINCT FROM {view}.currency)"
        )
        assert mixed == []


# --- as finance ---------------------------------------------------------------------------------


def questions_of_the_readme() -> list[str]:
    section = README.partition("## For finance")[2].partition("\n## ")[0]
    blocks = "\n".join(re.findall(r"```sql\n(.*?)```", section, flags=re.DOTALL))
    return [one.strip() for one in blocks.split(";") if "bet" in one]


@pytest.mark.parametrize("question", questions_of_the_readme())
def test_the_questions_about_bets_in_the_readme_are_answered_in_psql(
    books: Warehouse, question: str
) -> None:
    booked = "(SELECT max(accounting_date) FROM bet)"
    asked = question.replace("accounting_date = current_date - 1", f"accounting_date = {booked}")
    asked = asked.replace("current_date - 1", f"date '{DAY}'")
    done = subprocess.run(
        [
            str(programs_folder() / "psql"),
            "--no-psqlrc",
            "--csv",
            "--set=ON_ERROR_STOP=1",
            f"--command={asked}",
            login(books),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1, f"{asked}\n{done.stdout}"


def test_the_question_for_the_money_on_an_event_counts_each_bet_once(ask: Ask) -> None:
    (question,) = [one for one in questions_of_the_readme() if "bet_leg" in one]
    asked = re.sub(r"event_id = '\w+'", "event_id = '8'", question)
    asked = asked.replace("current_date - 1", f"date '{DAY}'")
    # The multiple has two legs on the event.
    assert ask(asked) == [
        {"currency": "EUR", "bets": 2, "stake": Decimal("20.00"), "payout": Decimal("30.00")}
    ]


@pytest.mark.parametrize("table", ["core.settlement", "core.settlement_leg", "ops.rate_terms"])
def test_finance_reads_bets_through_its_views_alone(ask: Ask, table: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(f"SELECT * FROM {table}")


def test_a_player_of_a_bet_is_seen_only_by_reference(books: Warehouse) -> None:
    views = ("bet", "bet_contested", "bet_cancelled", "bet_leg", "bet_leg_part", "correction")
    with books.owner_engine.connect() as connection:
        # Never committed.
        connection.execute(
            text("UPDATE core.settlement SET player_id = 'clear-id', player_reference = 'a1b2'")
        )
        rows = {
            view: connection.execute(text(f"SELECT * FROM finance.{view}")).all() for view in views
        }
    assert all(rows.values())
    assert "a1b2" in repr(rows["bet"])
    assert "clear-id" not in repr(rows)


# --- at scale -----------------------------------------------------------------------------------

_MANY_BETS = 100_000
_DAYS = 100

_INSERT_MANY = f"""
INSERT INTO core.settlement (
    source, source_key, version, provider_order, status, outcome, settled_at, settled_at_basis,
    currency, stake, payout, placement_rate, settlement_rate, is_resettlement, is_applied,
    is_change, is_current, accounting_date, record_id, batch_id
)
SELECT
    'odds88', 'many ' || number, 1, 't', 'settled', 'won',
    timestamptz '2026-07-01 00:00Z' + number * interval '{_DAYS} days' / {_MANY_BETS}, 'provider',
    'EUR', 10, 20, 1, 1, false, true, false, true, '2026-11-15', 1000000 + number, 1
FROM generate_series(1, {_MANY_BETS}) AS number
"""


@pytest.fixture(scope="module")
def bets_read(books: Warehouse) -> Iterator[Callable[[str], float]]:
    """How many versions a question looks at, beside many that are never committed."""
    with books.owner_engine.connect() as connection:
        connection.execute(text(_INSERT_MANY))
        connection.execute(text("SELECT brin_summarize_new_values('core.settlement_days_index')"))
        connection.execute(text("ANALYZE core.settlement"))

        def read(question: str) -> float:
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {question}"
            [explained] = connection.execute(text(explain)).scalar_one()
            return sum(_looked_at(node) for node in _nodes(explained["Plan"]))

        yield read


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _looked_at(node: Mapping[str, Any]) -> float:
    if node.get("Relation Name") != "settlement":
        return 0
    passed_over = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows = node["Actual Rows"] + sum(node.get(name, 0) for name in passed_over)
    return float(rows * node["Actual Loops"])


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM finance.daily_bet WHERE settled_date = '2026-09-01'",
        "SELECT * FROM finance.bet WHERE settled_date = '2026-09-01'",
        "SELECT * FROM finance.bet WHERE source = 'odds88' AND source_key = 'many 77'",
        "SELECT * FROM finance.bet_outcome WHERE settled_date = '2026-09-01'",
        "SELECT * FROM finance.bet_cancelled WHERE settled_date = '2026-09-01'",
        "SELECT * FROM finance.bet_contested",
    ],
)
def test_a_question_looks_at_the_bets_it_is_about_and_not_at_all(
    bets_read: Callable[[str], float], question: str
) -> None:
    assert bets_read("SELECT * FROM core.settlement") > _MANY_BETS
    assert bets_read(question) < _MANY_BETS / 4
