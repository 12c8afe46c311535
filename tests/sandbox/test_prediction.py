"""The prediction engine in the sandbox does what its documentation says, and what switches say."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from include.sandbox.addresses import PREDICTION_OPERATOR_ID
from include.sandbox.client import Sandbox
from tests.sandbox.settling import Operator

FIELDS = [
    "id",
    "positionId",
    "marketId",
    "outcomeId",
    "operatorId",
    "playerId",
    "shares",
    "payoutPerShare",
    "totalPayout",
    "transactionId",
    "status",
    "errorMessage",
    "settledAt",
    "createdAt",
    "updatedAt",
]
NOON = "2026-11-21T12:00:00+00:00"


@pytest.fixture
def market(sandbox: Sandbox) -> str:
    """A market that was resolved."""
    return sandbox.prediction_market_ids()[0]


def words(settlements: list[dict[str, Any]]) -> Counter[str]:
    return Counter(one["status"] for one in settlements)


def counts(status: dict[str, Any]) -> dict[str, int]:
    """The counts of a status by the word that they count, without those that are none."""
    named = {
        word: status[f"{word.lower()}Count"]
        for word in ("PENDING", "PROCESSING", "COMPLETED", "FAILED")
    }
    return {word: count for word, count in named.items() if count}


def state(sandbox: Sandbox, market_id: str) -> dict[str, Any]:
    return next(one for one in sandbox.prediction_markets() if one["market_id"] == market_id)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert list(body) == ["success", "error"]
    assert body["success"] is False
    assert list(body["error"]) == ["code", "message"]
    return answer.status_code, body["error"]["code"]


# As documented


def test_an_order_to_settle_is_answered_as_documented(operator: Operator, market: str) -> None:
    body = operator.settle(market).json()
    data = body["data"]
    assert list(body) == ["success", "data"]
    assert list(data) == [
        "marketId",
        "totalPositions",
        "successCount",
        "failedCount",
        "totalPayout",
        "cancelledOrders",
        "settlements",
        "errors",
    ]
    assert (data["marketId"], data["totalPositions"], data["successCount"]) == (market, 25, 25)
    assert (data["failedCount"], data["errors"]) == (0, [])
    assert len(data["settlements"]) == 25
    assert Decimal(data["totalPayout"]) == sum(
        Decimal(one["totalPayout"]) for one in data["settlements"]
    )


def test_settlements_have_the_documented_fields_and_add_up(operator: Operator, market: str) -> None:
    operator.settle(market)
    settlements = operator.settlements(marketId=market)
    assert all(list(one) == FIELDS for one in settlements)
    assert {one["payoutPerShare"] for one in settlements} == {"0", "1"}
    assert {(one["marketId"], one["operatorId"], one["status"]) for one in settlements} == {
        (market, PREDICTION_OPERATOR_ID, "COMPLETED")
    }
    for one in settlements:
        assert Decimal(one["shares"]) * Decimal(one["payoutPerShare"]) == Decimal(
            one["totalPayout"]
        )
        assert datetime.fromisoformat(one["settledAt"]) == datetime.fromisoformat(one["updatedAt"])
        assert one["settledAt"].endswith("Z")
    assert len({one["id"] for one in settlements}) == 25
    assert len({one["positionId"] for one in settlements}) == 25
    assert len({one["outcomeId"] for one in settlements}) == 2


def test_the_status_counts_and_sums_what_is_listed(operator: Operator, market: str) -> None:
    operator.settle(market)
    status = operator.status(market)
    assert list(status) == [
        "marketId",
        "totalPositions",
        "pendingCount",
        "processingCount",
        "completedCount",
        "failedCount",
        "totalPayout",
        "completedPayout",
    ]
    listed = sum(Decimal(one["totalPayout"]) for one in operator.settlements(marketId=market))
    assert counts(status) == {"COMPLETED": 25}
    assert Decimal(status["totalPayout"]) == Decimal(status["completedPayout"]) == listed > 0


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_the_key_nothing_is_told_or_done(
    sandbox: Sandbox, operator: Operator, market: str, key: str | None
) -> None:
    for method, path in (
        ("POST", f"/markets/{market}/settle"),
        ("POST", f"/markets/{market}/retry-settlements"),
        ("GET", f"/markets/{market}/settlement-status"),
        ("GET", "/settlements"),
        ("GET", "/events"),
    ):
        assert error_of(operator.call(method, path, key=key)) == (401, "UNAUTHORIZED")
    assert sandbox.ledger("prediction")["settle_calls"] == 0


def test_a_market_that_is_settled_is_not_settled_again(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    operator.settle(market)
    before = operator.settlements(marketId=market)
    assert error_of(operator.settle(market)) == (409, "SETTLEMENT_ALREADY_COMPLETED")
    assert error_of(operator.retry(market)) == (409, "SETTLEMENT_ALREADY_COMPLETED")
    assert operator.settlements(marketId=market) == before
    told = state(sandbox, market)
    assert (told["settle_calls"], told["settle_executions"]) == (2, 1)
    assert (told["retry_calls"], told["retry_executions"]) == (1, 0)


def test_a_market_that_is_open_or_unknown_is_refused(sandbox: Sandbox, operator: Operator) -> None:
    known = sandbox.prediction_market_ids()
    sandbox.advance("prediction", 1)
    later = sandbox.prediction_market_ids(after=20)
    sandbox.configure("prediction", markets=20)
    assert sandbox.prediction_market_ids() == known
    assert error_of(operator.settle(later[0])) == (400, "MARKET_NOT_RESOLVED")
    for unknown in ("market-uuid", "ffffffff-0000-4000-a000-000000000000", known[0][:-1]):
        assert error_of(operator.settle(unknown)) == (404, "MARKET_NOT_FOUND")
    assert error_of(operator.retry(known[0])) == (400, "MARKET_NOT_SETTLED")


# Time, failure and retries


def test_a_slow_settlement_moves_with_the_clock_and_only_forwards(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", clock_stopped_at=NOON, settling_seconds=60)
    answer = operator.settle(market).json()["data"]
    assert (answer["totalPositions"], answer["successCount"], answer["failedCount"]) == (25, 0, 0)
    progress = ["PENDING", "PROCESSING", "COMPLETED"]
    before: dict[str, dict[str, Any]] = {}
    seen: list[dict[str, int]] = []
    for seconds in (0, 10, 20, 40, 61):
        sandbox.configure("prediction", clock_offset_seconds=seconds)
        settlements = {one["id"]: one for one in operator.settlements(marketId=market)}
        for settlement_id, one in before.items():
            now = settlements[settlement_id]
            assert progress.index(now["status"]) >= progress.index(one["status"])
            assert (now["updatedAt"] > one["updatedAt"]) == (now["status"] != one["status"])
            assert (now["settledAt"] is not None) == (now["status"] == "COMPLETED")
        seen.append(counts(operator.status(market)))
        assert seen[-1] == words(list(settlements.values()))
        before = settlements
    assert seen[0] == {"PENDING": 25}
    assert any(len(one) == 3 for one in seen)
    assert seen[-1] == {"COMPLETED": 25}


def test_some_fail_and_a_retry_updates_them(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", failing_share=0.4)
    answer = operator.settle(market).json()["data"]
    failed = {one["id"]: one for one in answer["settlements"] if one["status"] == "FAILED"}
    assert 0 < len(failed) < 25
    assert (answer["failedCount"], len(answer["errors"])) == (len(failed), len(failed))
    assert all(one["errorMessage"] and one["settledAt"] is None for one in failed.values())
    retried = operator.retry(market).json()["data"]
    assert {one["id"] for one in retried["settlements"]} == set(failed)
    assert (retried["totalPositions"], retried["successCount"]) == (len(failed), len(failed))
    listed = operator.settlements(marketId=market)
    assert words(listed) == {"COMPLETED": 25}
    for one in listed:
        if one["id"] in failed:
            assert one["createdAt"] == failed[one["id"]]["createdAt"]
            assert one["updatedAt"] > failed[one["id"]]["updatedAt"]
            assert one["errorMessage"] is None


def test_a_retry_can_make_new_settlements_for_the_same_positions(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", failing_share=1, retries="new_settlements", positions=5)
    operator.settle(market)
    first = operator.settlements(marketId=market)
    operator.retry(market)
    both = operator.settlements(marketId=market)
    assert words(both) == {"FAILED": 5, "COMPLETED": 5}
    assert [one for one in both if one["status"] == "FAILED"] == first
    for failed in first:
        (second,) = (
            one
            for one in both
            if one["positionId"] == failed["positionId"] and one["id"] != failed["id"]
        )
        assert second["totalPayout"] == failed["totalPayout"]
        assert second["createdAt"] > failed["updatedAt"]
    assert counts(operator.status(market)) == {"COMPLETED": 5}


def test_a_failure_can_last_for_several_attempts_or_for_ever(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", failing_share=1, failing_attempts=2)
    operator.settle(market)
    assert operator.retry(market).json()["data"]["failedCount"] == 25
    sandbox.configure("prediction", failing_attempts=None)
    assert operator.retry(market).json()["data"]["failedCount"] == 25
    # What counts is the switch at the time of the attempt: nothing heals by itself.
    sandbox.configure("prediction", failing_share=0)
    assert counts(operator.status(market)) == {"FAILED": 25}
    assert operator.retry(market).json()["data"]["successCount"] == 25
    assert state(sandbox, market)["retry_executions"] == 3


def test_a_retry_leaves_alone_what_has_not_failed(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", stuck_share=0.5, clock_stopped_at=NOON)
    operator.settle(market)
    before = operator.settlements(marketId=market)
    assert words(before).keys() == {"PROCESSING", "COMPLETED"}
    retried = operator.retry(market).json()["data"]
    assert (retried["totalPositions"], retried["settlements"]) == (0, [])
    sandbox.configure("prediction", clock_offset_seconds=86_400, stuck_share=0)
    assert operator.settlements(marketId=market) == before
    assert state(sandbox, market)["retry_executions"] == 0


def test_a_retry_is_for_those_alone_that_have_failed_by_then(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", clock_stopped_at=NOON, settling_seconds=60, failing_share=1)
    operator.settle(market)
    sandbox.configure("prediction", clock_offset_seconds=30)
    failed = {
        one["id"] for one in operator.settlements(marketId=market) if one["status"] == "FAILED"
    }
    assert 0 < len(failed) < 25
    assert operator.retry(market).json()["data"]["totalPositions"] == len(failed)
    sandbox.configure("prediction", clock_offset_seconds=120)
    completed = {
        one["id"] for one in operator.settlements(marketId=market) if one["status"] == "COMPLETED"
    }
    assert completed == failed


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("already_completed", (409, "SETTLEMENT_ALREADY_COMPLETED")),
        ("settlement_failed", (500, "SETTLEMENT_FAILED")),
        ("current_state", None),
    ],
)
def test_settling_again_while_it_is_under_way_is_answered_by_a_switch(
    sandbox: Sandbox,
    operator: Operator,
    market: str,
    switch: str,
    expected: tuple[int, str] | None,
) -> None:
    sandbox.configure("prediction", settling_seconds=3600, settle_again=switch)
    operator.settle(market)
    again = operator.settle(market)
    if expected is None:
        assert again.json()["data"]["totalPositions"] == 25
    else:
        assert error_of(again) == expected
    assert state(sandbox, market)["settle_executions"] == 1


@pytest.mark.parametrize("executes", [False, True])
def test_the_first_orders_can_be_answered_as_failed_and_executed_or_not(
    sandbox: Sandbox, operator: Operator, market: str, executes: bool
) -> None:
    sandbox.configure("prediction", settle_errors=2, settle_errors_execute=executes)
    for _ in range(2):
        assert error_of(operator.settle(market)) == (500, "SETTLEMENT_FAILED")
    assert counts(operator.status(market)) == ({"COMPLETED": 25} if executes else {})
    assert operator.settle(market).status_code == (409 if executes else 200)
    assert state(sandbox, market)["settle_executions"] == 1


def test_errors_can_all_come_with_status_200(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", errors_come_with_200=True)
    operator.settle(market)
    assert error_of(operator.settle(market)) == (200, "SETTLEMENT_ALREADY_COMPLETED")
    assert error_of(operator.settle("unknown")) == (200, "MARKET_NOT_FOUND")


@pytest.mark.parametrize(("switch", "positions"), [("empty", 0), ("pending", 25)])
def test_the_status_of_a_market_that_was_never_settled_is_a_switch(
    sandbox: Sandbox, operator: Operator, market: str, switch: str, positions: int
) -> None:
    sandbox.configure("prediction", unsettled_status=switch)
    status = operator.status(market)
    assert (status["totalPositions"], status["pendingCount"]) == (positions, positions)
    sandbox.configure("prediction", unsettled_status="not_found")
    path = f"/markets/{market}/settlement-status"
    assert error_of(operator.call("GET", path)) == (404, "NOT_FOUND")


# Amounts and lies


def test_a_market_can_pay_a_fraction_and_the_rest(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", fractional_share=1, fraction="0.25", share_digits=6)
    operator.settle(market)
    settlements = operator.settlements(marketId=market)
    assert {one["payoutPerShare"] for one in settlements} == {"0.25", "0.75"}
    assert max(-Decimal(one["totalPayout"]).as_tuple().exponent for one in settlements) > 6
    for one in settlements:
        product = Decimal(one["shares"]) * Decimal(one["payoutPerShare"])
        assert product == Decimal(one["totalPayout"])


@pytest.mark.parametrize(
    ("total", "by"),
    [
        ("totalPositions", "1"),
        ("pendingCount", "2"),
        ("processingCount", "3"),
        ("completedCount", "-1"),
        ("failedCount", "1"),
        ("totalPayout", "0.000001"),
        ("completedPayout", "-0.01"),
    ],
)
def test_each_total_of_the_status_can_lie_for_one_market_alone(
    sandbox: Sandbox, operator: Operator, total: str, by: str
) -> None:
    markets = sandbox.prediction_market_ids(limit=2)
    for market_id in markets:
        operator.settle(market_id)
    honest = [operator.status(market_id) for market_id in markets]
    sandbox.configure("prediction", lies={f"status.{total}": by}, odd_markets=[1])
    assert operator.status(markets[0]) == honest[0]
    lying = operator.status(markets[1])
    assert {name for name in lying if lying[name] != honest[1][name]} == {total}
    assert Decimal(lying[total]) - Decimal(honest[1][total]) == Decimal(by)


@pytest.mark.parametrize(
    "total", ["totalPositions", "successCount", "failedCount", "totalPayout", "cancelledOrders"]
)
def test_each_total_of_an_answer_to_settle_can_lie(
    sandbox: Sandbox, operator: Operator, market: str, total: str
) -> None:
    honest = sandbox_answer(sandbox, operator, market)
    lying = sandbox_answer(sandbox, operator, market, lies={f"settle.{total}": 4})
    assert {name for name in lying if lying[name] != honest[name]} == {total}
    assert Decimal(lying[total]) - Decimal(honest[total]) == 4


def sandbox_answer(
    sandbox: Sandbox, operator: Operator, market: str, **switches: Any
) -> dict[str, Any]:
    """What a sandbox that was reset answers to settle, by its clock at noon."""
    sandbox.reset()
    sandbox.configure("prediction", clock_stopped_at=NOON, **switches)
    return dict(operator.settle(market).json()["data"])


def test_a_settlement_can_lie_and_the_ledger_does_not(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    operator.settle(market)
    honest, ledger = operator.settlements(marketId=market), sandbox.ledger("prediction")
    sandbox.configure("prediction", lies={"row.totalPayout": "0.000001"})
    lying = operator.settlements(marketId=market)
    assert [a == b for a, b in zip(honest, lying, strict=True)] == [False, *([True] * 24)]
    assert Decimal(lying[0]["totalPayout"]) - Decimal(honest[0]["totalPayout"]) == Decimal(
        "0.000001"
    )
    assert sandbox.ledger("prediction") == ledger


def test_one_market_can_be_odd_among_sound_ones(sandbox: Sandbox, operator: Operator) -> None:
    odd: dict[str, Any] = {"failing_share": 0.5, "stuck_share": 0.3, "foreign_operator_share": 0.5}
    sandbox.configure("prediction", odd_markets=[1], **odd)
    sound, spoiled = sandbox.prediction_market_ids(limit=2)
    for market_id in (sound, spoiled):
        operator.settle(market_id)
    assert counts(operator.status(sound)) == {"COMPLETED": 25}
    assert counts(operator.status(spoiled)).keys() == {"PROCESSING", "COMPLETED", "FAILED"}
    operators = {one["operatorId"] for one in operator.settlements(marketId=sound)}
    assert operators == {PREDICTION_OPERATOR_ID}
    assert len({one["operatorId"] for one in operator.settlements(marketId=spoiled)}) == 2


def test_settlements_can_be_another_operators(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", foreign_operator_share=0.3)
    operator.settle(market)
    operators = Counter(one["operatorId"] for one in operator.settlements(marketId=market))
    assert len(operators) == 2
    assert 0 < operators[PREDICTION_OPERATOR_ID] < 25


# Lists


def pages(operator: Operator, **query: Any) -> Iterator[dict[str, Any]]:
    """The pages of a list, by whichever way they show the next one."""
    cursor: dict[str, Any] = {}
    while True:
        body = operator.call("GET", "/settlements", **query, **cursor).json()
        yield body
        data = body["data"]
        following = body.get("nextCursor") or (
            data.get("nextCursor") if isinstance(data, dict) else None
        )
        if address := body.get("next"):
            following = httpx.URL(address).params["cursor"]
        if not following:
            return
        cursor = {"cursor": following}


@pytest.mark.parametrize("form", ["next_cursor", "next_address", "next_cursor_in_data"])
@pytest.mark.parametrize("limit", [1, 7, 25, 60])
def test_a_list_comes_in_pages_that_lose_and_repeat_nothing(
    sandbox: Sandbox, operator: Operator, form: str, limit: int
) -> None:
    sandbox.configure("prediction", failing_share=0.5, retries="new_settlements", positions=10)
    for market_id in sandbox.prediction_market_ids(limit=3):
        operator.settle(market_id)
        operator.retry(market_id)
    whole = operator.settlements()
    assert len(whole) > 30
    sandbox.configure("prediction", page_limit=limit, page_form=form)
    found: list[dict[str, Any]] = []
    for body in pages(operator):
        data = body["data"]["settlements"] if form == "next_cursor_in_data" else body["data"]
        assert 0 < len(data) <= limit
        found += data
    assert found == whole


def test_a_list_by_market_and_player_is_a_part_of_the_whole(
    sandbox: Sandbox, operator: Operator
) -> None:
    sandbox.configure("prediction", players=40)
    markets = sandbox.prediction_market_ids(limit=4)
    for market_id in markets:
        operator.settle(market_id)
    whole = operator.settlements()
    by_player = Counter(one["playerId"] for one in whole)
    assert len(whole) == 100
    held = Counter((one["playerId"], one["marketId"]) for one in whole)
    assert max(held.values()) == 2
    outcomes = {(one["playerId"], one["marketId"], one["outcomeId"]) for one in whole}
    assert len(outcomes) == len(whole)
    for player_id in [*by_player, "player-40", "nobody"]:
        expected = [one for one in whole if one["playerId"] == player_id]
        assert operator.settlements(playerId=player_id) == expected
        of_first = [one for one in expected if one["marketId"] == markets[0]]
        assert operator.settlements(playerId=player_id, marketId=markets[0]) == of_first
    assert operator.settlements(marketId="unknown") == []
    sandbox.configure("prediction", page_limit=3)
    assert [one for body in pages(operator) for one in body["data"]] == whole
    answer = operator.call("GET", "/settlements", cursor="nonsense")
    assert error_of(answer) == (400, "INVALID_CURSOR")


# Events


def test_every_market_that_is_resolved_has_its_event(sandbox: Sandbox, operator: Operator) -> None:
    events = operator.events(eventType="MARKET_RESOLVED")
    assert [one["marketId"] for one in events] == sandbox.prediction_market_ids()
    everything = operator.events(limit=1000)
    sequences = [one["sequence"] for one in everything]
    times = [one["timestamp"] for one in everything]
    assert len(everything) == 40
    assert sequences == sorted(set(sequences))
    assert times == sorted(times)
    assert [one for one in everything if one["eventType"] == "MARKET_RESOLVED"] == events
    market_id = sandbox.prediction_market_ids()[3]
    assert len(operator.events(marketId=market_id)) == 2


def test_events_go_on_behind_a_sequence_with_it_or_without(
    sandbox: Sandbox, operator: Operator
) -> None:
    everything = operator.events(limit=1000)
    assert operator.events(limit=7) == everything[:7]
    since = everything[6]["sequence"]
    assert operator.events(since=since, limit=1000) == everything[7:]
    assert operator.events(since=since + 1, limit=1000) == everything[7:]
    sandbox.configure("prediction", since_is_included=True)
    assert operator.events(since=since, limit=1000) == everything[6:]
    sandbox.advance("prediction", 2)
    last = everything[-1]["sequence"]
    new = operator.events(since=last + 1, eventType="MARKET_RESOLVED")
    assert [one["marketId"] for one in new] == sandbox.prediction_market_ids(after=20)


def test_events_are_forgotten_after_a_day(sandbox: Sandbox, operator: Operator) -> None:
    everything = operator.events(eventType="MARKET_RESOLVED")
    sandbox.configure("prediction", clock_offset_seconds=86_400 - 21_600)
    kept = operator.events(eventType="MARKET_RESOLVED")
    assert kept == everything[-len(kept) :]
    assert 9 <= len(kept) <= 11
    sandbox.configure("prediction", clock_offset_seconds=86_400)
    assert operator.events() == []
    assert operator.settle(sandbox.prediction_market_ids()[0]).status_code == 200


# Faults


def send(operator: Operator, market: str) -> None:
    """Orders a settlement and takes whatever comes of it."""
    try:
        operator.settle(market, timeout=0.5)
    except httpx.HTTPError:
        # Broken off, or too late.
        return


@pytest.mark.parametrize(
    "kind", ["reset_before_answer", "silence", "truncated_body", "malformed_json", "html_page"]
)
@pytest.mark.parametrize("executed", [False, True])
def test_an_order_is_executed_or_not_whatever_its_answer_says(
    sandbox: Sandbox, operator: Operator, market: str, kind: str, executed: bool
) -> None:
    sandbox.fault("prediction", kind, call="settle", executed=executed)
    send(operator, market)
    assert sandbox.faults() == []
    assert counts(operator.status(market)) == ({"COMPLETED": 25} if executed else {})
    assert operator.settle(market).status_code == (409 if executed else 200)
    ledger = sandbox.ledger("prediction")
    assert (ledger["settle_executions"], ledger["settled_more_than_once"]) == (1, [])
    assert ledger["settle_calls"] == 1 + executed


def test_an_answer_to_what_was_not_executed_is_the_sound_one(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", clock_stopped_at=NOON, failing_share=0.5)
    sandbox.fault("prediction", "other_status", call="settle", status=200, executed=False)
    rehearsed = operator.settle(market).json()
    assert operator.settlements() == []
    assert operator.settle(market).json() == rehearsed
    sandbox.fault("prediction", "other_status", call="retry", status=200, executed=False)
    rehearsed = operator.retry(market).json()
    assert words(operator.settlements())["FAILED"] == rehearsed["data"]["totalPositions"] > 0
    assert operator.retry(market).json() == rehearsed


def test_an_order_can_be_executed_in_part_and_then_in_full(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.configure("prediction", failing_share=1)
    sandbox.fault("prediction", "reset_before_answer", call="settle", executed_items=10)
    send(operator, market)
    assert counts(operator.status(market)) == {"FAILED": 10, "PENDING": 15}
    first = operator.settlements(marketId=market)
    assert len(first) == 10
    assert operator.settle(market).json()["data"]["totalPositions"] == 25
    assert operator.settlements(marketId=market)[:10] == first
    sandbox.fault("prediction", "status", call="retry", status=500, executed_items=4)
    assert operator.retry(market).status_code == 500
    assert counts(operator.status(market)) == {"COMPLETED": 4, "FAILED": 21}
    assert state(sandbox, market)["settle_executions"] == 2
    assert sandbox.ledger("prediction")["settled_more_than_once"] == [market]


def test_an_order_that_waits_is_over_with_a_reset(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.fault("prediction", "late_execution", call="settle", seconds=0.3)
    with pytest.raises(httpx.ReadTimeout):
        operator.settle(market, timeout=0.05)
    sandbox.reset()
    deadline = time.monotonic() + 10
    while not sandbox.calls()["total"]:
        assert time.monotonic() < deadline
    assert operator.settlements() == []


def test_settlements_of_a_list_can_be_spoiled_one_by_one(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    operator.settle(market)
    sound = operator.settlements(marketId=market)
    for kind, parameters, expected in (
        ("duplicated_entry", {"entry": 1}, [*sound[:2], *sound[1:]]),
        ("empty_page", {}, []),
        ("missing_item", {"entry": -1}, sound[:-1]),
        ("unknown_value", {"value": "PAID"}, [sound[0] | {"status": "PAID"}, *sound[1:]]),
        (
            "changed_entry",
            {"changes": {"playerId": "x"}},
            [sound[0] | {"playerId": "x"}, *sound[1:]],
        ),
    ):
        sandbox.fault("prediction", kind, call="settlements", **parameters)
        assert operator.settlements(marketId=market) == expected
    sandbox.fault("prediction", "changed_entry", call="settlements", entry=3)
    contradicted = operator.settlements(marketId=market)[3]
    assert Decimal(contradicted.pop("totalPayout")) != Decimal(sound[3]["totalPayout"])
    assert contradicted.items() < sound[3].items()


@pytest.mark.parametrize("form", ["next_cursor", "next_address", "next_cursor_in_data"])
def test_a_spoiled_page_still_shows_the_next_one(
    sandbox: Sandbox, operator: Operator, market: str, form: str
) -> None:
    operator.settle(market)
    sandbox.configure("prediction", page_limit=10, page_form=form)
    sandbox.fault("prediction", "missing_item", call="settlements")
    found = [body["data"] for body in pages(operator, marketId=market)]
    listed = [data["settlements"] if isinstance(data, dict) else data for data in found]
    assert [len(page) for page in listed] == [9, 10, 5]


def test_a_settlement_in_an_answer_to_an_order_can_be_spoiled(
    sandbox: Sandbox, operator: Operator, market: str
) -> None:
    sandbox.fault("prediction", "changed_entry", call="settle", changes={"shares": "7"})
    data = operator.settle(market).json()["data"]
    assert (data["totalPositions"], data["settlements"][0]["shares"]) == (25, "7")
    assert operator.settlements(marketId=market)[1:] == data["settlements"][1:]


# The ledger


def test_the_ledger_is_what_the_lists_add_up_to(sandbox: Sandbox, operator: Operator) -> None:
    sandbox.configure(
        "prediction", failing_share=0.3, retries="new_settlements", fractional_share=0.5
    )
    markets = sandbox.prediction_market_ids(limit=6)
    for number, market_id in enumerate(markets):
        operator.settle(market_id)
        if number % 2:
            operator.retry(market_id)
    settlements = operator.settlements()
    owed = [
        one
        for one in settlements
        if one["status"] == "COMPLETED" and Decimal(one["totalPayout"]) > 0
    ]
    last = {one["positionId"]: one["status"] for one in settlements}
    lines = sorted(
        f"{one['id']}|{one['positionId']}|{one['playerId']}|{one['totalPayout']}\n" for one in owed
    )
    ledger = sandbox.ledger("prediction")
    total = sum(Decimal(one["totalPayout"]) for one in owed)
    assert Decimal(ledger.pop("owed")) == total
    assert ledger == {
        "markets_resolved": 20,
        "markets_settled": 6,
        "settle_calls": 6,
        "settle_executions": 6,
        "retry_calls": 3,
        "retry_executions": 3,
        "settled_more_than_once": [],
        "settlements": len(settlements),
        "positions": dict(Counter(last.values())),
        "payouts": len(owed),
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
    states = list(sandbox.prediction_markets())
    assert [one["market_id"] for one in states] == markets
    assert sum(Decimal(one["owed"]) for one in states) == total
    assert [one for market_id in markets for one in sandbox.prediction_owed(market_id)] == [
        {
            "settlement_id": one["id"],
            "position_id": one["positionId"],
            "player_id": one["playerId"],
            "amount": one["totalPayout"],
        }
        for one in owed
    ]


def test_the_ledger_names_what_is_no_market(sandbox: Sandbox) -> None:
    assert sandbox.prediction_owed(sandbox.prediction_market_ids()[0]) == []
    with pytest.raises(ValueError, match="no market 'market-uuid' is resolved"):
        sandbox.prediction_owed("market-uuid")
    assert sandbox.ledger("prediction")["markets_settled"] == 0


def test_everything_follows_from_the_seed_and_a_thousand_positions_are_not_held(
    sandbox: Sandbox, operator: Operator
) -> None:
    switches: dict[str, Any] = {"markets": 1000, "positions": 1000, "players": 3000}
    sandbox.configure("prediction", clock_stopped_at=NOON, **switches)
    market_id = sandbox.prediction_market_ids(after=999)[0]
    operator.settle(market_id)
    first = operator.settlements(marketId=market_id)
    assert len(first) == len({one["id"] for one in first}) == 1000
    sandbox.reset()
    sandbox.configure("prediction", clock_stopped_at=NOON, **switches)
    assert operator.settlements() == []
    operator.settle(market_id)
    assert operator.settlements(marketId=market_id) == first
    sandbox.configure("prediction", seed=7)
    assert sandbox.prediction_market_ids(after=999) != [market_id]


def test_times_are_the_clocks(sandbox: Sandbox, operator: Operator, market: str) -> None:
    operator.settle(market)
    settled_at = datetime.fromisoformat(operator.settlements(marketId=market)[0]["settledAt"])
    assert abs((datetime.now(UTC) - settled_at).total_seconds()) < 60
