"""Bets of odds88 in core: what is current, what is a correction, and everything that they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.quality.gates import BatchHeld
from include.warehouse.decisions import resolve
from include.warehouse.tables import LEG_COLUMNS
from tests.checker import violations
from tests.feeding import current, open_findings, versions
from tests.feeding_bets import LOSE, REFUND, SETTINGS, SOURCE, WIN, bet, land, message, push
from tests.providers.test_odds88 import BET, SELECTION
from tests.warehouses import Warehouse


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def arrive(warehouse: Warehouse, *bets: dict[str, Any]) -> None:
    """One message each, in this order, in one batch."""
    land(warehouse.engine, *map(message, bets))
    push(warehouse.engine)


def arrive_singly(warehouse: Warehouse, *bets: dict[str, Any]) -> None:
    """The same, but in a batch and a run of its own each."""
    for one in bets:
        arrive(warehouse, one)


Arrive = Callable[..., None]


def told(connection: Connection) -> list[tuple[Any, ...]]:
    """The bet's versions in the provider's order: what each is, and whether it corrects."""
    by_order = sorted(versions(connection, "b1"), key=lambda v: (v.provider_order, v.record_id))
    return [(v.status, v.outcome, v.payout, v.is_correction) for v in by_order]


def wrong(connection: Connection) -> list[str]:
    return violations(connection, SOURCE, settings=SETTINGS)


def quarantined(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT rule FROM ops.quarantine ORDER BY record_id")))


_WON = ("settled", "won", Decimal("18.5"))
_LOST = ("settled", "lost", Decimal(0))


@pytest.mark.parametrize("arrival", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_bet_won_lost_and_won_again_stands_as_it_was_settled_last(
    warehouse: Warehouse, connection: Connection, arrival: tuple[int, ...]
) -> None:
    states = [bet(WIN), bet(LOSE, minute=5, versions=[2]), bet(WIN, minute=9, versions=[3])]
    arrive_singly(warehouse, *(states[number] for number in arrival))

    assert told(connection) == [(*_WON, False), (*_LOST, True), (*_WON, True)]
    assert current(connection, "b1").settled_at.minute == 9
    late = [number != max(arrival[: place + 1]) for place, number in enumerate(arrival)]
    assert [v.not_applied_reason == "late" for v in versions(connection, "b1")] == late
    assert open_findings(connection) == []
    assert wrong(connection) == []


def test_the_same_message_again_is_counted_and_nothing_else(
    warehouse: Warehouse, connection: Connection
) -> None:
    arrive_singly(warehouse, bet(WIN), bet(LOSE, minute=5, versions=[2]), bet(WIN))
    assert told(connection) == [(*_WON, False), (*_LOST, True)]
    assert connection.scalar(text("SELECT sum(duplicates) FROM ops.batch")) == 1
    assert open_findings(connection) == []
    assert wrong(connection) == []


def test_of_one_time_the_higher_version_of_a_leg_counts(
    warehouse: Warehouse, connection: Connection
) -> None:
    arrive(warehouse, bet(LOSE, versions=[1, 3]), bet(WIN, versions=[2, 1]))
    assert told(connection) == [(*_WON, False), (*_LOST, True)]
    assert current(connection, "b1").outcome == "lost"
    assert open_findings(connection) == []
    assert wrong(connection) == []


def test_of_one_time_and_version_two_contents_are_contested_until_one_is_chosen(
    warehouse: Warehouse, connection: Connection
) -> None:
    arrive(warehouse, bet(WIN), bet(LOSE))
    assert [v.is_contested for v in versions(connection, "b1")] == [True, True]
    [finding] = open_findings(connection)
    assert finding.kind == "settlement_contested"
    assert finding.detail["source_key"] == "b1"
    assert (
        connection.scalar(text("SELECT coalesce(sum(settlements), 0) FROM core.daily_settlement"))
        == 0
    )

    lost = versions(connection, "b1")[1]
    resolve(
        warehouse.engine,
        finding.finding_id,
        "choose_version",
        decided_by="anna",
        reason="odds88 has confirmed it",
        reference=None,
        parameters={"record_id": lost.record_id},
        run_id=None,
    )
    assert current(connection, "b1").record_id == lost.record_id
    assert open_findings(connection) == []
    assert wrong(connection) == []


@pytest.mark.parametrize(
    "other",
    [
        {
            "selections": [
                {"selectionId": 88, "settlement": bet(WIN)["selections"][0]["settlement"]}
            ]
        },
        {"payoutMultiplier": 1.849},
    ],
)
def test_what_moves_no_money_contests_nothing(
    warehouse: Warehouse, connection: Connection, other: dict[str, Any]
) -> None:
    arrive(warehouse, bet(WIN), bet(WIN, **other))
    assert told(connection) == [(*_WON, False)] * 2
    assert open_findings(connection, "settlement_contested") == []
    assert wrong(connection) == []


def test_another_rate_is_a_correction_since_it_moves_the_reporting_amount(
    warehouse: Warehouse, connection: Connection
) -> None:
    amount = bet(WIN)["amount"] | {"settlementExchangeRate": 1.1}
    arrive(warehouse, bet(WIN), bet(WIN, minute=1, versions=[2], amount=amount))
    assert told(connection) == [(*_WON, False), (*_WON, True)]
    assert wrong(connection) == []


def test_what_was_open_is_settled_without_a_correction(
    warehouse: Warehouse, connection: Connection
) -> None:
    rejected = bet(0, minute=2, isRejected=True, betId="b2", selections=None)
    cancelled = bet(REFUND, minute=2, isCancelled=True, betId="b3")
    opened = bet(0, versions=[None, 1])
    arrive(warehouse, opened, bet(WIN, minute=5, versions=[1, 2]), rejected, cancelled)
    assert told(connection) == [("open", None, None, False), (*_WON, False)]
    one, other = current(connection, "b2"), current(connection, "b3")
    assert (one.status, one.outcome, one.payout) == ("rejected", None, 0)
    assert (other.status, other.outcome, other.refund) == ("cancelled", "refunded", 10)
    assert open_findings(connection) == []
    assert wrong(connection) == []


@pytest.mark.parametrize("arrive", [arrive, arrive_singly])
@pytest.mark.parametrize("legs", [[2], [2, 1], [None]])
def test_a_correction_may_take_money_back(
    warehouse: Warehouse, connection: Connection, arrive: Arrive, legs: list[int | None]
) -> None:
    arrive(warehouse, bet(WIN), bet(LOSE, minute=5, versions=legs, payout=-3))
    assert told(connection) == [(*_WON, False), ("settled", "lost", Decimal(-3), True)]
    assert open_findings(connection) == []
    assert wrong(connection) == []


@pytest.mark.parametrize("earlier", [[], [bet(0)]])
def test_nothing_but_a_correction_takes_money_back(
    warehouse: Warehouse, connection: Connection, earlier: list[dict[str, Any]]
) -> None:
    arrive(warehouse, *earlier, bet(LOSE, minute=5, payout=-3))
    assert quarantined(connection) == ["payout_negative_by_correction_only"]
    assert len(versions(connection, "b1")) == len(earlier)
    assert wrong(connection) == []


def test_a_decision_whose_history_is_missing_is_published_and_told(
    warehouse: Warehouse, connection: Connection
) -> None:
    arrive(warehouse, bet(LOSE, minute=5, versions=[2], payout=-3))
    assert told(connection) == [("settled", "lost", Decimal(-3), False)]
    [finding] = open_findings(connection)
    assert finding.kind == "chain_broken"
    arrive(warehouse, bet(WIN))
    assert told(connection) == [(*_WON, False), ("settled", "lost", Decimal(-3), True)]
    assert open_findings(connection) == []
    assert wrong(connection) == []


def test_every_version_keeps_its_own_legs_in_full(
    warehouse: Warehouse, connection: Connection
) -> None:
    untold = BET | {"settlementTime": "2026-05-10T19:00:00Z", "selections": None}
    other = BET | {"betId": "b2", "selections": [SELECTION, {"selectionId": 5}]}
    arrive(warehouse, BET, untold, other)
    rows = connection.execute(
        text(
            "SELECT source_key, version, leg_number, part_number, leg.* FROM core.settlement"
            " JOIN core.settlement_leg AS leg USING (record_id)"
            " ORDER BY source_key, version, leg_number, part_number"
        )
    ).all()
    assert [tuple(row[:4]) for row in rows] == [
        ("b1", 1, 1, 0),
        ("b1", 1, 1, 1),
        ("b2", 1, 1, 0),
        ("b2", 1, 1, 1),
        ("b2", 1, 2, 0),
    ]
    whole = rows[0]._mapping
    assert [name for name in LEG_COLUMNS if whole[name] is None] == []
    assert (whole["market_properties"], whole["parameters"]) == ({"period": "1"}, {"score": "1:0"})
    assert (whole["place_dead_heat_factor"], whole["type"]) == (
        Decimal("0.3333333333333333"),
        "each_way",
    )
    row = current(connection, "b2")
    assert (row.payout_multiplier, row.placement_rate, row.settlement_rate) == (
        Decimal("1.85"),
        Decimal("1.25"),
        Decimal("1.2"),
    )
    assert wrong(connection) == []


def test_texts_that_copy_or_json_could_mistake_arrive_as_they_are(
    warehouse: Warehouse, connection: Connection
) -> None:
    odd = 'tab\t, "quoted" \\ \\N\n\r\u2028 \U0001f3c6 {"a": 1} \x01\x7f'
    told_once = {odd: odd, "": "\\."}
    selection = SELECTION | {"parameters": told_once, "event": {"name": odd}}
    selection["market"] = {"name": "\\N", "properties": told_once}
    arrive(warehouse, BET | {"selections": [selection]})
    leg = connection.execute(text("SELECT * FROM core.settlement_leg WHERE part_number = 0")).one()
    assert (leg.event_name, leg.market_name) == (odd, "\\N")
    assert leg.parameters == leg.market_properties == told_once
    assert wrong(connection) == []


def test_payouts_that_do_not_follow_from_the_multiplier_are_told_and_published(
    warehouse: Warehouse, connection: Connection
) -> None:
    land(warehouse.engine, message(bet(WIN, payout=17.0)), message(bet(LOSE, betId="b2")))
    assert push(warehouse.engine).published == 2
    [finding] = open_findings(connection)
    assert finding.kind == "payout_differs"
    assert finding.detail["examples"][0]["payout"] == "17.0"
    assert violations(connection, SOURCE, settings=SETTINGS) == []


@pytest.mark.parametrize(("unit", "payout"), [("minor", 18.5), ("major", 1850)])
def test_a_payout_unit_that_is_set_wrongly_holds_the_batch_until_it_is_right(
    warehouse: Warehouse, connection: Connection, unit: str, payout: float
) -> None:
    wrong = SETTINGS.model_copy(update={"odds88_payout_unit": unit})
    right_unit = "major" if unit == "minor" else "minor"
    right = SETTINGS.model_copy(update={"odds88_payout_unit": right_unit})
    land(warehouse.engine, message(bet(WIN, payout=payout)), message(bet(LOSE, betId="b2")))
    with pytest.raises(BatchHeld, match=r"1 of 1 plain wins .*SETTLEMENTS_ODDS88_PAYOUT_UNIT"):
        push(warehouse.engine, wrong)
    [finding] = open_findings(connection)
    assert finding.kind == "batch_held"
    assert [one["source_key"] for one in finding.detail["payouts"]] == ["b1"]

    # Told again, as the overlap of two sessions does: nothing of it may take its place.
    land(warehouse.engine, message(bet(WIN, payout=payout)))
    assert push(warehouse.engine, right).published == 0
    resolve(
        warehouse.engine,
        finding.finding_id,
        "try_again",
        decided_by="anna",
        reason="the setting is right now",
        reference=None,
        parameters={},
        run_id=None,
    )
    assert push(warehouse.engine, right).published == 2
    assert current(connection, "b1").payout == Decimal("18.5")
    assert open_findings(connection) == []
    assert violations(connection, SOURCE, settings=right) == []
