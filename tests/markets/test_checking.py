"""What an engine tells of a market adds up, or one sentence says what does not, with numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.markets.checking import (
    Answered,
    Check,
    Difference,
    Listing,
    differences,
    latest_of_positions,
)
from include.providers.prediction import (
    Amount,
    MarketStatus,
    RecordStatus,
    SettlementRecord,
    SettleTotals,
)

MARKET = "market-1"
OPERATOR = "operator-1"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PENDING, PROCESSING, COMPLETED, FAILED = RecordStatus


def settlement(number: int, shares: str = "100", share: str = "1", **changes: Any) -> Any:
    """A completed settlement of a position of its own, its payout shares times share."""
    payout = Amount(Decimal(shares) * Decimal(share))
    made = SettlementRecord(
        id=f"settlement-{number}",
        position_id=f"position-{number}",
        market_id=MARKET,
        outcome_id="outcome-1",
        operator_id=OPERATOR,
        player_id=f"player-{number}",
        shares=Amount(shares),
        payout_per_share=Amount(share),
        total_payout=payout,
        status=COMPLETED,
        created_at=NOON,
        updated_at=NOON,
    )
    return msgspec.structs.replace(made, **changes)


def is_held(found: list[Difference]) -> bool:
    """Whether a market with these differences credits nobody."""
    return any(difference.is_holding for difference in found)


def status_of(settlements: list[SettlementRecord], **changes: Any) -> MarketStatus:
    """What an honest engine tells of these settlements, counted here the long way."""
    last: dict[str, SettlementRecord] = {}
    for one in sorted(settlements, key=lambda one: (one.updated_at, one.created_at)):
        last[one.position_id] = one
    rows = list(last.values())

    def count(word: RecordStatus) -> int:
        return len([one for one in rows if one.status is word])

    told = MarketStatus(
        market_id=MARKET,
        total_positions=len(rows),
        pending_count=count(PENDING),
        processing_count=count(PROCESSING),
        completed_count=count(COMPLETED),
        failed_count=count(FAILED),
        total_payout=Amount(sum((one.total_payout for one in rows), Decimal(0))),
        completed_payout=Amount(
            sum((one.total_payout for one in rows if one.status is COMPLETED), Decimal(0))
        ),
    )
    return msgspec.structs.replace(told, **changes)


def listing_of(*settlements: SettlementRecord, **changes: Any) -> Listing:
    """These settlements as an honest engine tells them; `status` is changed by its fields."""
    status = status_of(list(settlements), **changes.pop("status", {}))
    return replace(Listing(MARKET, OPERATOR, status, settlements), **changes)


def totals(positions: int, success: int, failed: int, payout: str = "0") -> SettleTotals:
    return SettleTotals(
        market_id=MARKET,
        total_positions=positions,
        success_count=success,
        failed_count=failed,
        total_payout=Amount(payout),
        cancelled_orders=0,
    )


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


THREE = (settlement(1), settlement(2, "50", "0"), settlement(3, "12.345678"))
RETRIED = (
    settlement(1),
    settlement(2, status=FAILED),
    settlement(2, id="settlement-2b", updated_at=later(5), created_at=later(5)),
)


def test_a_market_that_adds_up_has_no_difference() -> None:
    for settlements in ((), THREE, RETRIED):
        assert differences(listing_of(*settlements)) == []


def test_a_failed_settlement_that_a_retry_has_replaced_no_longer_counts() -> None:
    listing = listing_of(*RETRIED)
    assert (listing.status.total_positions, listing.status.failed_count) == (2, 0)
    assert listing.status.completed_payout == 200
    assert differences(listing) == []


ANSWERED_TWO = Answered("settle", totals(2, 2, 0, "112.345678"))

SENTENCES: list[tuple[str, Listing, Check, list[str]]] = [
    (
        "an answer that counts wrongly",
        listing_of(*THREE, answers=[Answered("settle", totals(25, 20, 4))]),
        Check.ANSWERED_COUNTS,
        [
            "The answer to settle tells 25 positions, but 20 succeeded, 4 failed and 0 under way "
            "are 24.",
            "The answer to settle tells 25 positions, but the status tells 3.",
            "The answer to settle tells 20 positions that succeeded, but the status tells 3 "
            "COMPLETED.",
        ],
    ),
    (
        "the answer to the only order, which told fewer",
        listing_of(*THREE, answers=[ANSWERED_TWO], is_answered_whole=True),
        Check.ANSWERED_COUNTS,
        ["The answer to settle tells 2 positions, but the status tells 3."],
    ),
    (
        "the answer to the only order, which paid less",
        listing_of(
            *THREE, answers=[Answered("settle", totals(3, 3, 0, "112.34"))], is_answered_whole=True
        ),
        Check.TOTAL_PAYOUT,
        [
            "The answer to settle tells payouts of 112.34, all of them completed, but the status "
            "tells 112.345678 in all and 112.345678 completed."
        ],
    ),
    (
        "an answer to retry that paid more than is completed",
        listing_of(
            settlement(1),
            settlement(2, status=FAILED),
            answers=[Answered("retry", totals(1, 1, 0, "100.01"))],
        ),
        Check.TOTAL_PAYOUT,
        [
            "The answer to retry tells payouts of 100.01, all of them completed, but the status "
            "tells 200 in all and 100 completed."
        ],
    ),
    (
        "a status whose counts are not its total",
        listing_of(*THREE, status={"total_positions": 4}),
        Check.STATUS_COUNTS,
        [
            "The status tells 4 positions, but its counts (0 PENDING, 0 PROCESSING, 3 COMPLETED, "
            "0 FAILED) are 3.",
            "The status tells 4 positions, but 3 are listed.",
        ],
    ),
    (
        "a list without its last page",
        replace(listing_of(*THREE), settlements=THREE[:2]),
        Check.STATUS_COUNTS,
        [
            "The status tells 3 positions, but 2 are listed.",
            "The status tells 3 positions COMPLETED, but 2 are listed so.",
        ],
    ),
    (
        "a status that counts others than are listed",
        listing_of(*THREE, status={"completed_count": 2, "pending_count": 1}),
        Check.STATUS_COUNTS,
        [
            "The status tells 1 positions PENDING, but 0 are listed so.",
            "The status tells 2 positions COMPLETED, but 3 are listed so.",
        ],
    ),
    (
        "a total that lies",
        listing_of(*THREE, status={"total_payout": Amount("1250.00")}),
        Check.TOTAL_PAYOUT,
        ["The status tells payouts of 1250.00 in all, but those listed are 112.345678."],
    ),
    (
        "a completed total that lies by the smallest amount",
        listing_of(*THREE, status={"completed_payout": Amount("112.345679")}),
        Check.COMPLETED_PAYOUT,
        [
            "The status tells completed payouts of 112.345679, but those listed as COMPLETED are "
            "112.345678."
        ],
    ),
    (
        "a product that was rounded",
        listing_of(settlement(1, "0.000003", "0.5", total_payout=Amount("0.000002"))),
        Check.PRODUCT,
        [
            "1 settlement with a totalPayout other than shares times payoutPerShare: 0.000003 "
            "shares at 0.5 are 0.0000015, but settlement-1 pays 0.000002."
        ],
    ),
    (
        "a share that pays more than 1",
        listing_of(settlement(1, "10", "1.5")),
        Check.SHARE_RANGE,
        [
            "1 settlement with a payoutPerShare below 0 or above 1: settlement-1 pays 1.5 a share."
        ],
    ),
    (
        "another market's settlement",
        listing_of(settlement(1), settlement(2, market_id="market-2")),
        Check.OWNER,
        ["1 settlement of another market than market-1: settlement-2 is of market-2."],
    ),
    (
        "another market's status",
        listing_of(settlement(1), status={"market_id": "market-2"}),
        Check.OWNER,
        ["The status asked for market market-1 is that of market-2."],
    ),
    (
        "another operator's settlements",
        listing_of(*(settlement(number, operator_id="them") for number in range(5))),
        Check.OWNER,
        [
            "5 settlements of another operator than operator-1: settlement-0 is of them; "
            "settlement-1 is of them; settlement-2 is of them; and 2 more."
        ],
    ),
    (
        "no operator to compare with",
        listing_of(*THREE, operator_id=None),
        Check.OWNER,
        [
            "The settlements are of operator-1, and SETTLEMENTS_PREDICTION_OPERATOR_ID does not "
            "say who we are."
        ],
    ),
    (
        "a settlement listed twice",
        listing_of(settlement(1), settlement(1)),
        Check.UNIQUE_IDS,
        ["1 settlement listed more than once: settlement-1 is listed 2 times."],
    ),
    (
        "a position paid twice",
        listing_of(settlement(1), settlement(1, "99", id="settlement-1b", updated_at=later(1))),
        Check.POSITIONS,
        [
            "1 position completed more than once: position-1 is paid 100 and 99 by settlement-1; "
            "settlement-1b."
        ],
    ),
    (
        "a position that failed behind its completion",
        listing_of(
            settlement(1), settlement(1, id="settlement-1b", updated_at=later(1), status=FAILED)
        ),
        Check.POSITIONS,
        [
            "1 position that went on behind completion: position-1 was completed by settlement-1 "
            "and is FAILED by settlement-1b."
        ],
    ),
    (
        "a completed settlement that pays otherwise than before",
        listing_of(settlement(1, "60", updated_at=later(9)), earlier=[settlement(1, "50")]),
        Check.CONTESTED,
        [
            "1 settlement told otherwise than before: settlement-1 pays 60 for 60 shares, before "
            "50 for 50."
        ],
    ),
    (
        "a settlement that was completed in between, and otherwise",
        listing_of(
            settlement(1, "60", updated_at=later(9)),
            earlier=[settlement(1, status=PENDING), settlement(1, "50", updated_at=later(5))],
        ),
        Check.CONTESTED,
        [
            "1 settlement told otherwise than before: settlement-1 pays 60 for 60 shares, before "
            "50 for 50."
        ],
    ),
    (
        "an answer to settle that paid otherwise",
        listing_of(
            settlement(1), answers=[Answered("settle", totals(1, 1, 0), [settlement(1, "50")])]
        ),
        Check.CONTESTED,
        [
            "1 settlement told otherwise than before: settlement-1 pays 100 for 100 shares, before "
            "50 for 50."
        ],
    ),
    (
        "one state told in two ways",
        listing_of(
            settlement(1, status=FAILED), earlier=[settlement(1, "50", status=FAILED)]
        ),
        Check.CONTESTED,
        [
            "1 settlement told otherwise than before: settlement-1 pays 100 for 100 shares, before "
            "50 for 50."
        ],
    ),
    (
        "a completion that is undone",
        listing_of(
            settlement(1, status=PENDING, updated_at=later(1)), earlier=[settlement(1)]
        ),
        Check.CONTESTED,
        ["1 settlement told otherwise than before: settlement-1 was COMPLETED and is PENDING."],
    ),
    (
        "what was published and is not listed any more",
        listing_of(settlement(1), earlier=[settlement(1), settlement(2, status=FAILED)]),
        Check.CONTESTED,
        ["1 settlement told before and not listed: settlement-2 was FAILED and pays 100."],
    ),
    (
        "what an answer told to be completed and another settlement replaces",
        listing_of(
            settlement(1, id="settlement-1b"),
            answers=[Answered("settle", totals(1, 1, 0), [settlement(1)])],
        ),
        Check.CONTESTED,
        ["1 settlement told before and not listed: settlement-1 was COMPLETED and pays 100."],
    ),
    (
        "a completion by a clock that is behind",
        listing_of(settlement(1), earlier=[settlement(1, status=FAILED, updated_at=later(1))]),
        Check.CONTESTED,
        [
            "1 settlement that cannot count, being no later than what was published of it: "
            "settlement-1 is COMPLETED since 2026-11-21 12:00:00.000000 UTC, and was published as "
            "FAILED since 2026-11-21 12:00:01.000000 UTC."
        ],
    ),
    (
        "a settlement that changes hands",
        listing_of(
            settlement(1, player_id="player-9", updated_at=later(1)),
            earlier=[settlement(1, status=PENDING)],
        ),
        Check.CONTESTED,
        [
            "1 settlement told otherwise than before: settlement-1 has another position or player."
        ],
    ),
    (
        "a settlement whose id was that of another market's",
        listing_of(
            settlement(1, updated_at=later(1)),
            earlier=[settlement(1, market_id="market-9")],
        ),
        Check.CONTESTED,
        ["1 settlement told otherwise than before: settlement-1 was of market market-9."],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("listing", "check", "sentences"),
    [case[1:] for case in SENTENCES],
    ids=[case[0] for case in SENTENCES],
)
def test_each_difference_is_one_sentence_with_its_numbers(
    listing: Listing, check: Check, sentences: list[str]
) -> None:
    found = differences(listing)
    assert [one.sentence for one in found if one.check is check] == sentences
    assert all(one.is_holding for one in found if one.check is check)
    assert is_held(found)


def test_every_check_has_a_case_here() -> None:
    assert {case[2] for case in SENTENCES} | {Check.SHARE_FRACTION} == set(Check)


@pytest.mark.parametrize("share", ["0.5", "0.000001", "0.999999"])
def test_a_fraction_is_told_and_holds_nothing(share: str) -> None:
    found = differences(listing_of(settlement(1), settlement(2, "8", share)))
    assert found == [
        Difference(
            Check.SHARE_FRACTION,
            f"1 settlement with a payoutPerShare between 0 and 1: settlement-2 pays {share} a "
            "share.",
            is_holding=False,
        )
    ]
    assert not is_held(found)


def test_positions_under_way_are_neither_successes_nor_failures() -> None:
    under_way = [settlement(1, status=PENDING), settlement(2, status=PROCESSING), settlement(3)]
    answered = Answered("settle", totals(3, 1, 0), under_way)
    assert differences(listing_of(*under_way, answers=[answered])) == []


def test_an_answer_need_not_tell_what_was_ordered_or_completed_behind_it() -> None:
    retried = Answered("retry", totals(1, 1, 0, "12.345678"))
    assert differences(listing_of(*THREE, answers=[ANSWERED_TWO, retried])) == []
    under_way = Answered("settle", totals(3, 1, 0, "90"), [settlement(1, status=PENDING)] * 2)
    assert differences(listing_of(*THREE, answers=[under_way], is_answered_whole=True)) == []


def test_a_failed_settlement_need_not_be_listed_beside_the_one_that_replaced_it() -> None:
    assert differences(listing_of(RETRIED[0], RETRIED[2], earlier=RETRIED[:2])) == []


def test_what_is_not_completed_may_be_calculated_anew() -> None:
    before = [settlement(1, "50", status=FAILED), settlement(2, "50", status=PENDING)]
    now = [settlement(number, updated_at=later(1)) for number in (1, 2)]
    assert differences(listing_of(*now, earlier=before)) == []


def test_an_older_state_that_comes_later_contradicts_nothing() -> None:
    before = [settlement(1, updated_at=later(5)), settlement(1, "50", status=PENDING)]
    assert differences(listing_of(settlement(1, updated_at=later(5)), earlier=before)) == []


def test_no_sentence_names_a_player_or_holds_what_cannot_be_stored() -> None:
    odd = settlement(1, id="s\x07é", position_id="p\u2028", operator_id="ö", status=FAILED)
    twice = settlement(2, id="s\x07é", position_id="p\u2028", player_id="player-7", share="3")
    found = differences(listing_of(odd, twice, twice))
    assert len(found) >= 4
    for one in found:
        assert "player-" not in one.sentence
        assert one.sentence.isprintable()


@pytest.mark.parametrize("seed", range(20))
def test_which_settlement_of_a_position_is_the_latest_does_not_depend_on_the_list(
    seed: int,
) -> None:
    rows = [
        settlement(1, id=f"s-{number}", status=word, updated_at=later(seconds))
        for number, (word, seconds) in enumerate(
            [(FAILED, 0), (COMPLETED, 0), (PENDING, 0), (FAILED, -1), (COMPLETED, -1)]
        )
    ]
    random.Random(seed).shuffle(rows)
    assert latest_of_positions(rows)["position-1"].id == "s-1"


# Any honest engine, and any single lie

amounts = st.decimals(0, 10**9, places=6, allow_nan=False).map(str)
shares = st.sampled_from(["0", "1"])


@st.composite
def honest_settlements(draw: st.DrawFn) -> list[SettlementRecord]:
    """Positions, some of them failed first and settled anew under the same id or another."""
    rows: list[SettlementRecord] = []
    for number in range(draw(st.integers(0, 6))):
        held, share = draw(amounts), draw(shares)
        word = draw(st.sampled_from(RecordStatus))
        if draw(st.booleans()):
            rows.append(settlement(number, held, share, status=FAILED))
            number_of_second = f"settlement-{number}-second"
            rows.append(
                settlement(
                    number, held, share, id=number_of_second, status=word, updated_at=later(1)
                )
            )
        else:
            rows.append(settlement(number, held, share, status=word))
    return draw(st.permutations(rows))


@given(honest_settlements())
def test_an_honest_engine_has_no_difference_in_any_order(rows: list[SettlementRecord]) -> None:
    answer = Answered("settle", totals(len(rows), 0, 0), [])
    listing = listing_of(*rows, earlier=rows)
    assert differences(listing) == []
    assert is_held(differences(replace(listing, answers=[answer]))) == bool(rows)


LIES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ["total_positions", "pending_count", "processing_count", "completed_count", "failed_count"],
        lambda count: count + 1,
    ),
    **dict.fromkeys(
        ["total_payout", "completed_payout"], lambda amount: Amount(amount + Decimal("0.000001"))
    ),
}


@given(honest_settlements(), st.sampled_from(sorted(LIES)))
def test_any_total_that_lies_holds_the_market(rows: list[SettlementRecord], name: str) -> None:
    honest = status_of(rows)
    lie = {name: LIES[name](getattr(honest, name))}
    found = differences(listing_of(*rows, status=lie))
    assert is_held(found)
    # With the number that was told in at least one sentence.
    assert any(f"{lie[name]}" in one.sentence for one in found)


@given(honest_settlements(), st.data())
def test_any_settlement_that_pays_other_than_its_product_holds_the_market(
    rows: list[SettlementRecord], data: st.DataObject
) -> None:
    if not rows:
        return
    number = data.draw(st.integers(0, len(rows) - 1))
    lying = msgspec.structs.replace(
        rows[number], total_payout=Amount(rows[number].total_payout + Decimal("0.000001"))
    )
    changed = [*rows[:number], lying, *rows[number + 1 :]]
    found = differences(listing_of(*changed, earlier=rows))
    assert Check.PRODUCT in {one.check for one in found if one.is_holding}
    # The same state of the same settlement was told otherwise.
    assert Check.CONTESTED in {one.check for one in found if one.is_holding}


@given(honest_settlements(), st.data())
def test_any_settlement_left_out_or_doubled_holds_the_market(
    rows: list[SettlementRecord], data: st.DataObject
) -> None:
    if not rows:
        return
    listing = listing_of(*rows)
    one = data.draw(st.sampled_from(rows))
    doubled = replace(listing, settlements=[*rows, one])
    assert Check.UNIQUE_IDS in {found.check for found in differences(doubled)}
    last = latest_of_positions(rows)[one.position_id]
    left_out = [row for row in rows if row is not last]
    assert is_held(differences(replace(listing, settlements=left_out))) or any(
        row.position_id == one.position_id and row.status is last.status for row in left_out
    )
