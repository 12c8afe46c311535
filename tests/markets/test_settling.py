"""A market from its resolution to its published payouts, through everything an engine does."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from include.markets import fetching, queue, settling
from include.markets.evidence import keep_answer
from include.markets.publishing import MarketsHeld
from include.markets.troubles import each_market
from include.markets.watching import watch_markets
from include.providers import prediction
from include.providers.errors import Fatal
from include.providers.http import Answer, Client
from include.providers.prediction import calls
from include.sandbox.addresses import PREDICTION_KEY
from include.warehouse.database import lock_source, transaction
from include.warehouse.decisions import DecisionRefused
from include.warehouse.markets import due, move
from include.warehouse.publishing import publish
from tests.markets.playing import POSITIONS, SETTINGS, MarketPlay
from tests.sandbox.settling import Operator


def test_a_resolved_market_is_settled_listed_and_published_in_one_run(play: MarketPlay) -> None:
    play.engine_changes(markets=3)
    play.run()
    assert set(play.states().values()) == {"done"}
    assert play.results() == ["executed"] * 3
    for market_id in play.market_ids:
        assert play.payouts(market_id) == play.owed(market_id)
    evidence = play.market().evidence
    assert evidence.keys() == {"sequence", "record_id"}
    batches = play.rows("SELECT * FROM ops.batch WHERE feed = 'settlements'")
    assert [(one.landed, one.published) for one in batches] == [(POSITIONS, POSITIONS)] * 3
    [row] = play.rows(
        "SELECT count(DISTINCT position_id) AS positions, min(currency) AS currency"
        " FROM core.settlement WHERE market_id = :this",
        this=play.market_id,
    )
    assert tuple(row) == (POSITIONS, "USD")


def test_what_fails_is_retried_and_paid_whichever_way_the_engine_retries(play: MarketPlay) -> None:
    for retries in ("update", "new_settlements"):
        if retries != "update":
            play.sandbox.advance("prediction", 1)
        play.engine_changes(failing_share=1.0, failing_attempts=1, retries=retries)
        play.run()
        market_id = play.market_ids[-1]
        assert play.states()[market_id] == "done"
        assert play.payouts(market_id) == play.owed(market_id)
    assert play.results("retry") == ["executed"] * 2


# --- an order of which nothing is known ---------------------------------------------------------


@pytest.mark.parametrize(
    ("is_executed", "unsettled"),
    [(True, "empty"), (False, "empty"), (False, "pending"), (False, "not_found")],
)
def test_after_an_order_without_an_answer_its_deadline_and_then_the_status_decide(
    play: MarketPlay, is_executed: bool, unsettled: str
) -> None:
    play.engine_changes(unsettled_status=unsettled)
    play.sandbox.fault("prediction", "reset_before_answer", call="settle", executed=is_executed)
    play.run()
    assert play.results() == ["in_doubt"]
    assert play.market().state == "settling"
    play.run()
    assert play.results() == ["in_doubt"]
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    play.run()
    assert play.market().state == "done"
    assert play.results() == ["in_doubt", *([] if is_executed else ["executed"])]


@pytest.mark.parametrize(("is_executed", "is_hidden"), [(False, True), (True, False)])
def test_an_order_that_met_an_error_is_repeated_only_if_nothing_came_of_it(
    play: MarketPlay, is_executed: bool, is_hidden: bool
) -> None:
    play.engine_changes(
        settle_errors=1,
        settle_errors_execute=is_executed,
        errors_come_with_200=is_hidden,
        unsettled_status="not_found",
    )
    play.run()
    play.run()
    assert play.market().state == "done"
    assert play.results() == (["failed"] if is_executed else ["failed", "executed"])


def test_a_market_that_another_has_settled_is_gone_on_with(play: MarketPlay) -> None:
    settle_by_another(play)
    play.run()
    assert play.results() == ["already_completed"]
    assert play.market().state == "done"
    assert play.payouts() == play.owed()


def test_no_order_is_sent_after_its_deadline_if_the_machine_was_suspended(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of `time.monotonic` stands still meanwhile; the warehouse's goes on."""

    def send_once_it_is_over(*given: Any) -> Any:
        stands_still = time.monotonic()
        time.sleep(1.1)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: stands_still)
            return send(*given)

    send = settling._send
    play.change(prediction_deadline_seconds=1)
    play.engine_changes()
    play.step("plan")
    with monkeypatch.context() as patch:
        patch.setattr(settling, "_send", send_once_it_is_over)
        play.step("settle")
    assert play.results() == ["not_executed"]
    play.run()
    assert play.market().state == "done"
    assert play.results() == ["not_executed", "executed"]


def test_an_order_that_never_shows_any_effect_is_given_up_and_a_person_asked(
    play: MarketPlay,
) -> None:
    play.engine_changes(settle_errors=3)
    for _ in range(4):
        play.run()
    assert play.market().state == "refused"
    assert "was ordered to be settled 3 times" in play.findings("market_refused")[0].summary
    play.decide("market_refused", "try_again")
    play.run()
    assert play.market().state == "done"


def test_a_market_that_the_engine_refuses_waits_for_a_person_and_can_be_withdrawn(
    play: MarketPlay,
) -> None:
    confirm(play, "no-such-market")
    play.run()
    [finding] = play.findings("market_refused")
    assert "MARKET_NOT_FOUND" in finding.summary
    play.decide("market_refused", "withdraw")
    play.run()
    assert play.market("no-such-market").state == "withdrawn"
    assert play.market().state == "done"
    # A person's word brings it back.
    confirm(play, "no-such-market")
    assert play.market("no-such-market").state == "resolved"
    play.run()


def test_a_refused_key_stops_the_task_and_nothing_is_lost(play: MarketPlay) -> None:
    play.step("plan")
    play.sandbox.fault("prediction", "status", call="settle", status=401)
    with pytest.raises(Fatal, match="right key"):
        play.step("settle")
    assert play.market().state == "resolved"
    assert play.market().settle_attempts == 0
    play.run()
    assert play.market().state == "done"


@pytest.mark.parametrize("path", ["/wrong/api/v1", ""])
def test_a_wrong_address_refuses_no_market(play: MarketPlay, path: str) -> None:
    play.engine_changes(markets=5)
    play.step("plan")
    address = play.sandbox.prediction_url.removesuffix("/api/v1") + path
    ids = queue.due_markets(play.warehouse.engine, None, 1000)
    with (
        prediction.open_client(address, PREDICTION_KEY, play.settings) as client,
        pytest.raises(Fatal, match="Check `base_url`"),
    ):
        settling.settle_markets(play.warehouse.engine, client, play.settings, ids, "test")
    assert set(play.states().values()) == {"resolved"}
    assert play.findings() == []
    # The others were left alone.
    assert len(play.results()) == 3
    assert play.market(ids[0]).settle_attempts == 0
    assert "status 404" in play.market(ids[0]).trouble
    play.run()
    assert set(play.states().values()) == {"done"}


def test_a_market_that_alone_is_refused_in_foreign_words_keeps_no_other_back(
    play: MarketPlay,
) -> None:
    play.engine_changes(markets=3)
    play.sandbox.fault("prediction", "status", call="settle", status=404)
    play.step("plan")
    play.step("settle")
    assert sorted(play.states().values()) == ["resolved", "waiting", "waiting"]
    play.run()
    assert set(play.states().values()) == {"done"}


def test_an_engine_that_asks_us_to_wait_is_ordered_again_later(play: MarketPlay) -> None:
    play.sandbox.fault("prediction", "status", call="settle", status=429, retry_after="60")
    play.run()
    assert play.results() == ["not_executed"]
    play.run()
    assert play.results() == ["not_executed"]
    play.let_time_pass(60)
    play.run()
    assert play.results() == ["not_executed", "executed"]
    assert play.market().settle_attempts == 1


@pytest.mark.parametrize("call", ["settle", "retry"])
def test_an_order_that_is_not_carried_out_for_long_is_told_and_nothing_given_up(
    play: MarketPlay, call: str
) -> None:
    engine, settings = play.warehouse.engine, play.settings
    play.engine_changes(failing_share=1.0, failing_attempts=1)
    play.sandbox.fault("prediction", "status", call=call, status=429, times=None)
    play.run()
    assert watch_markets(engine, settings).opened == []
    for _ in range(2):
        play.let_time_pass(settings.prediction_stuck_seconds)
        play.run()
    assert "status 429" in play.market().trouble
    [number] = watch_markets(engine, settings).opened
    assert [one.kind for one in play.findings()] == ["markets_late"]
    # Asked about once it can be read no more, it has its time from then on.
    play.sandbox.forget_faults()
    play.sandbox.fault("prediction", "status", call="status", status=400)
    play.step(call if call == "settle" else "retry_failed")
    assert play.market().trouble is None
    play.step("wait_for_status")
    assert play.market().state == "waiting"
    play.run()
    assert watch_markets(engine, settings).closed == [number]
    assert play.market().state == "done"


# --- under way, failed and stuck ----------------------------------------------------------------


def test_a_market_under_way_is_looked_at_again_until_it_is_done(play: MarketPlay) -> None:
    play.engine_changes(clock_stopped_at="2026-11-21T12:00:00Z", settling_seconds=100)
    play.run()
    assert play.market().state == "waiting"
    play.run()
    assert play.payouts() == {}
    play.engine_changes(clock_offset_seconds=100)
    play.run()
    assert play.market().state == "done"


def test_what_is_stuck_is_a_finding_and_what_is_completed_is_paid(play: MarketPlay) -> None:
    play.engine_changes(stuck_share=0.5, positions=20)
    play.run()
    assert play.market().state == "waiting"
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    assert play.market().state == "stuck"
    assert 0 < len(play.payouts()) < 20
    assert play.payouts() == play.owed()
    [finding] = play.findings("market_stuck")
    assert "positions are under way" in finding.summary
    calls = play.sandbox.calls()["total"]
    play.run()
    # Only the events were asked for: it is no loop.
    assert play.sandbox.calls()["total"] - calls == 1
    play.decide("market_stuck", "try_again")
    play.run()
    assert play.market().state == "waiting"


def test_what_has_failed_beside_what_is_stuck_is_retried_before_a_person_is_asked(
    play: MarketPlay,
) -> None:
    play.change(prediction_retry_attempts=1)
    play.engine_changes(stuck_share=0.4, failing_share=0.9, failing_attempts=None)
    play.run()
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    assert play.market().state == "retrying"
    play.run()
    assert play.results("retry") == ["executed"]
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    market = play.market()
    assert market.state == "stuck"
    assert market.processing_positions > 0
    assert market.failed_positions > 0
    [finding] = play.findings()
    assert (
        f"{market.processing_positions} of {POSITIONS} positions are under way, "
        f"{market.failed_positions} FAILED and were retried 1 times"
    ) in finding.summary
    # A day later it is the same, and was asked already.
    play.let_time_pass(86_400)
    play.run()
    assert play.findings() == [finding]
    assert play.results("retry") == ["executed"]


def test_a_question_is_over_once_another_one_is_asked_about_the_market(play: MarketPlay) -> None:
    play.change(prediction_retry_attempts=0)
    play.engine_changes(
        clock_stopped_at="2026-11-21T12:00:00Z",
        settling_seconds=100,
        failing_share=1.0,
        failing_attempts=None,
    )
    play.run()
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    assert [one.kind for one in play.findings()] == ["market_stuck"]
    # By the next day they have failed.
    play.engine_changes(clock_offset_seconds=100)
    play.let_time_pass(86_400)
    play.run()
    assert play.market().state == "failed"
    [finding] = play.findings()
    assert (finding.kind, finding.finding_id) == ("market_failed", play.market().finding_id)


def test_an_engine_that_fails_now_and_then_keeps_no_stuck_market_from_being_told(
    play: MarketPlay,
) -> None:
    play.engine_changes(stuck_share=1.0)
    play.run()
    half = play.settings.prediction_stuck_seconds / 2 + 1
    for state in ("waiting", "fetching"):
        play.let_time_pass(half)
        play.sandbox.fault("prediction", "status", call="status", status=503)
        play.step("wait_for_status")
        play.let_time_pass(half)
        play.step("wait_for_status")
        assert play.market().state == state
    play.run()
    assert len(play.findings("market_stuck")) == 1


@pytest.mark.parametrize("counts", ["pendingCount", "completedCount"])
def test_counts_that_go_back_and_forth_keep_no_stuck_market_from_being_told(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch, counts: str
) -> None:
    play.engine_changes(stuck_share=0.5, positions=20)
    play.run()
    looks = 0

    def swing(told: dict[str, Any]) -> None:
        nonlocal looks
        looks += 1
        if looks % 2:
            told["processingCount"] -= 1
            told[counts] += 1

    with monkeypatch.context() as patch:
        change_status(patch, swing)
        for _ in range(4):
            play.step("wait_for_status")
            play.let_time_pass(play.settings.prediction_stuck_seconds / 2 + 1)
        assert play.market().state == "fetching"
    play.run()
    assert [one.kind for one in play.findings()] == ["market_stuck"]
    assert play.payouts() == play.owed()


@pytest.mark.parametrize("is_shown_later", [True, False])
def test_what_was_settled_before_and_shows_no_position_yet_is_waited_for(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch, is_shown_later: bool
) -> None:
    settle_by_another(play)
    with monkeypatch.context() as patch:
        show_nothing(patch)
        play.run()
        assert play.results() == ["already_completed"]
        assert (play.market().state, play.market().positions) == ("waiting", None)
        play.run()
        if not is_shown_later:
            play.let_time_pass(play.settings.prediction_stuck_seconds)
            play.run()
            assert play.market().state == "stuck"
            [finding] = play.findings()
            assert "has shown no position of it since" in finding.summary
            play.let_time_pass(86_400)
            play.run()
            assert play.findings() == [finding]
            play.let_time_pass(86_400)
    play.run()
    assert (play.market().state, play.findings()) == ("done", [])
    assert play.payouts() == play.owed()


def test_a_market_without_a_position_is_done_if_the_engine_says_so(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Client.post

    def settle_nothing(client: Client, *args: Any, **kwargs: Any) -> Answer:
        answer = post(client, *args, **kwargs)
        totals = dict.fromkeys(
            ("totalPositions", "successCount", "failedCount", "cancelledOrders"), 0
        )
        data = {"marketId": play.market_id, **totals, "totalPayout": "0", "settlements": []}
        return replace(answer, body=json.dumps({"success": True, "data": data}).encode())

    monkeypatch.setattr(Client, "post", settle_nothing)
    show_nothing(monkeypatch)
    play.run()
    assert (play.market().state, play.findings()) == ("done", [])
    play.released.add(play.market_id)


def show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine show no position of any market."""

    def zero(told: dict[str, Any]) -> None:
        told |= {name: 0 for name in told if name.endswith(("Count", "Positions"))}
        told |= {"totalPayout": "0", "completedPayout": "0"}

    change_status(monkeypatch, zero)
    change_answers(monkeypatch, "/settlements", lambda body: body | {"data": []})


def change_status(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    """Have every status told otherwise on its way here."""

    def change_told(body: dict[str, Any]) -> dict[str, Any]:
        change(body["data"])
        return body

    change_answers(monkeypatch, "/settlement-status", change_told)


def change_answers(
    monkeypatch: pytest.MonkeyPatch,
    path_ends: str,
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Have every answer that is read from there changed on its way here."""
    get = Client.get

    def get_changed(client: Client, path: str, *args: Any, **kwargs: Any) -> Answer:
        answer = get(client, path, *args, **kwargs)
        if not path.endswith(path_ends):
            return answer
        return replace(answer, body=json.dumps(change(json.loads(answer.body))).encode())

    monkeypatch.setattr(Client, "get", get_changed)


def test_what_is_left_of_an_order_that_was_carried_out_in_part_is_ordered_by_a_person(
    play: MarketPlay,
) -> None:
    play.engine_changes(positions=6)
    play.sandbox.fault("prediction", "truncated_body", call="settle", executed_items=2)
    for _ in range(2):
        play.run()
        play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    [finding] = play.findings("market_held")
    assert "6 positions, but 2 are listed" in finding.summary
    assert play.payouts() == {}
    play.decide("market_held", "settle_again")
    play.run()
    assert play.market().state == "done"
    assert play.market().completed_positions == 6
    assert play.payouts() == play.owed()


def test_what_fails_again_and_again_is_retried_so_often_and_the_others_are_paid(
    play: MarketPlay,
) -> None:
    play.engine_changes(failing_share=0.5, failing_attempts=None, positions=20)
    for _ in range(4):
        play.run()
    market = play.market()
    assert (market.state, market.retry_attempts) == ("failed", 3)
    assert play.results("retry") == ["executed"] * 3
    assert 0 < len(play.payouts()) < 20
    assert play.payouts() == play.owed()
    [finding] = play.findings("market_failed")
    assert f"{market.failed_positions} of 20 positions FAILED" in finding.summary
    # Mended by others, it is seen a day later, and nobody is asked any more.
    play.engine_changes(failing_share=0.0)
    with httpx.Client(trust_env=False) as http:
        Operator(play.sandbox, http).retry(play.market_id).raise_for_status()
    play.settled_by_others += 1
    play.let_time_pass(86_400)
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()
    assert play.findings() == []


def test_what_has_failed_is_retried_again_when_a_person_says_so(play: MarketPlay) -> None:
    play.change(prediction_retry_attempts=0)
    play.engine_changes(failing_share=1.0, failing_attempts=None)
    play.run()
    assert (play.market().state, play.results("retry")) == ("failed", [])
    play.change(prediction_retry_attempts=1)
    play.engine_changes(failing_share=0.0)
    play.decide("market_failed", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.findings() == []


def test_retries_that_change_nothing_end_with_a_question_and_go_on_by_its_answer(
    play: MarketPlay,
) -> None:
    play.engine_changes(failing_share=0.5, failing_attempts=None, positions=20)
    play.sandbox.fault("prediction", "status", call="retry", status=400, times=None)
    for _ in range(4):
        play.run()
    assert play.results("retry") == ["rejected"] * 3
    assert play.market().state == "failed"
    [finding] = play.findings("market_failed")
    assert play.market().finding_id == finding.finding_id
    # Nothing has changed a day later, and it was asked already.
    play.let_time_pass(86_400)
    play.run()
    assert play.findings() == [finding]
    play.sandbox.forget_faults()
    play.engine_changes(failing_share=0.0)
    play.decide("market_failed", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()


def test_a_retry_without_an_answer_is_waited_for_and_the_status_tells(play: MarketPlay) -> None:
    play.engine_changes(failing_share=1.0, failing_attempts=1)
    play.sandbox.fault("prediction", "reset_before_answer", call="retry", executed=True)
    play.run()
    assert play.results("retry") == ["in_doubt"]
    assert play.market().state == "waiting"
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    play.run()
    assert play.market().state == "done"
    assert play.engine_states()[play.market_id]["retry_calls"] == 1


# --- does it add up -----------------------------------------------------------------------------

LIES = {
    "settle.totalPositions": "The answer to settle tells",
    "status.completedCount": "positions COMPLETED",
    "row.totalPayout": "with a totalPayout other than shares times payoutPerShare",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_market_that_lies_is_held_with_the_difference_and_holds_no_neighbour(
    play: MarketPlay, lie: str
) -> None:
    play.engine_changes(markets=2, lies={lie: "1"}, odd_markets=[0])
    play.run()
    play.run()
    liar, neighbour = play.market_ids
    assert play.states() == {liar: "held", neighbour: "done"}
    [finding] = play.findings("market_held")
    assert any(LIES[lie] in one["sentence"] for one in finding.detail["differences"])
    assert play.payouts(liar) == {}
    assert play.payouts(neighbour) == play.owed(neighbour)
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    play.run()
    if lie in ("settle.totalPositions", "row.totalPayout"):
        # The answer to the order said so too; only a person can say that it does not matter.
        play.decide("market_held", "release_market")
        play.run()
    assert play.market(liar).state == "done"
    assert play.payouts(liar) == play.owed(liar)
    assert play.findings() == []


def test_a_market_that_a_person_releases_is_published_as_it_is_listed(play: MarketPlay) -> None:
    play.engine_changes(lies={"status.totalPayout": "5"})
    play.run()
    [resolution] = play.decide("market_held", "release_market")
    assert (resolution.before["state"], resolution.after["state"]) == ("held", "checked")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()
    # The same list again is no news.
    play.let_time_pass(86_400)
    play.run()
    assert play.market().state == "done"


def test_a_market_that_is_held_when_it_is_looked_at_again_can_be_released_too(
    play: MarketPlay,
) -> None:
    play.run()
    play.engine_changes(lies={"status.totalPayout": "5"})
    play.let_time_pass(86_400)
    play.run()
    # Its list has nothing new: what is wrong is what the status says of it.
    assert play.market().state == "held"
    play.decide("market_held", "release_market")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()
    assert play.findings() == []


def test_a_gate_that_holds_a_market_is_red_once(play: MarketPlay) -> None:
    play.engine_changes(lies={"status.totalPayout": "5"})
    for step in ("plan", "settle", "wait_for_status", "retry_failed", "fetch_payouts"):
        play.step(step)
    with pytest.raises(MarketsHeld, match="The status tells payouts of"):
        play.step("check")
    assert play.step("check").markets == 0


def test_who_and_in_which_currency_is_never_guessed(play: MarketPlay) -> None:
    play.change(prediction_operator_id=None, prediction_default_currency=None)
    play.run()
    checks = {one["check"] for one in play.findings("market_held")[0].detail["differences"]}
    assert checks == {"currency", "owner"}
    with pytest.raises(DecisionRefused, match="its currency is not known"):
        play.decide("market_held", "release_market")
    play.change(**{name: getattr(SETTINGS, name) for name in OURS})
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"


OURS = ("prediction_operator_id", "prediction_default_currency")


def test_what_names_another_operator_credits_nobody(play: MarketPlay) -> None:
    play.engine_changes(foreign_operator_share=1.0)
    play.run()
    assert play.market().state == "held"
    assert "of another operator than" in play.findings("market_held")[0].summary


def test_a_fraction_is_paid_and_flagged(play: MarketPlay) -> None:
    play.engine_changes(fractional_share=1.0)
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()
    assert "payoutPerShare between 0 and 1" in play.findings("market_flagged")[0].summary


def test_a_list_in_pages_is_one_batch(play: MarketPlay) -> None:
    play.engine_changes(page_limit=2)
    play.run()
    assert play.payouts() == play.owed()
    [batch] = play.rows("SELECT * FROM ops.batch WHERE feed = 'settlements'")
    assert (batch.pages_stored, batch.landed) == (3, POSITIONS)


def test_a_list_that_cannot_be_decoded_is_kept_and_held_until_it_can(play: MarketPlay) -> None:
    play.engine_changes(page_limit=2)
    play.sandbox.fault("prediction", "malformed_json", call="settlements", after_calls=1)
    play.run()
    assert play.market().state == "held"
    assert "cannot be decoded" in play.findings("market_held")[0].summary
    assert len(play.rows("SELECT FROM raw.page WHERE undecodable_reason IS NOT NULL")) == 1
    with pytest.raises(DecisionRefused, match="a page of its list cannot be decoded"):
        play.decide("market_held", "release_market")
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()


def test_a_correction_after_the_end_is_found_and_never_published_by_itself(
    play: MarketPlay,
) -> None:
    # Settled by others, it was not told in an answer of ours: only what was published contradicts.
    settle_by_another(play)
    play.run()
    paid = play.payouts()
    play.engine_changes(lies={"row.totalPayout": "1"})
    play.run()
    assert play.market().state == "done"
    play.let_time_pass(86_400)
    play.run()
    assert play.market().state == "held"
    checks = {one["check"] for one in play.findings("market_held")[0].detail["differences"]}
    assert "contested" in checks
    assert play.payouts() == paid
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == paid


def test_a_market_that_is_done_late_is_looked_at_again_as_long_as_any_other(
    play: MarketPlay,
) -> None:
    play.change(prediction_retry_attempts=0)
    play.engine_changes(failing_share=1.0, failing_attempts=1)
    play.run()
    assert play.market().state == "failed"
    # It waited for a person until nobody would look at it any more.
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE prediction.market SET relook_until = now()"))
    play.change(prediction_retry_attempts=1)
    play.decide("market_failed", "try_again")
    play.run()
    market = play.market()
    assert market.state == "done"
    days = timedelta(days=play.settings.prediction_relook_days)
    assert market.relook_until > datetime.now(UTC) + days - timedelta(hours=1)
    # What tells nothing new does not begin the days anew.
    play.let_time_pass(86_400)
    play.run()
    assert play.market().next_look_at is not None
    assert play.market().relook_until == market.relook_until


@pytest.mark.parametrize("lies", [("totalPositions", "successCount"), ("totalPayout",)])
def test_an_answer_that_tells_more_than_the_status_holds_the_market(
    play: MarketPlay, lies: tuple[str, ...]
) -> None:
    play.engine_changes(lies={f"settle.{name}": "4" for name in lies})
    play.run()
    assert play.market().state == "held"
    assert "but the status tells" in play.findings("market_held")[0].summary


@pytest.mark.parametrize("is_published", [True, False])
def test_what_was_told_completed_and_is_not_listed_any_more_holds_the_market(
    play: MarketPlay, is_published: bool
) -> None:
    if is_published:
        settle_by_another(play)
        play.run()
        play.let_time_pass(86_400)
    else:
        play.step("plan")
        play.step("settle")
    conceal_one(play)
    play.run()
    assert play.market().state == "held"
    differences = play.findings("market_held")[0].detail["differences"]
    assert any("told before and not listed" in one["sentence"] for one in differences)
    play.decide("market_held", "release_market")
    # Whoever let it be so knows that the engine owes one more.
    play.released.add(play.market_id)
    play.run()
    assert play.market().state == "done"
    assert len(play.payouts()) == len(play.owed()) - (not is_published)


def test_what_is_completed_by_a_clock_that_is_behind_holds_the_market(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.change(prediction_retry_attempts=0)
    play.engine_changes(failing_share=1.0, failing_attempts=1)
    play.run()
    assert play.market().state == "failed"
    fetch_settlements = calls.fetch_settlements

    def fetch_from_behind(*arguments: Any, **filters: Any) -> Answer:
        answer = fetch_settlements(*arguments, **filters)
        listed = json.loads(answer.body)
        for one in listed["data"]:
            one["updatedAt"] = one["createdAt"]
        return replace(answer, body=json.dumps(listed).encode())

    monkeypatch.setattr(calls, "fetch_settlements", fetch_from_behind)
    play.change(prediction_retry_attempts=1)
    play.decide("market_failed", "try_again")
    play.run()
    assert play.market().state == "held"
    assert "that cannot count" in play.findings("market_held")[0].summary
    monkeypatch.undo()
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.payouts() == play.owed()


def test_a_market_of_which_less_counts_than_its_status_tells_is_held_once_published(
    play: MarketPlay,
) -> None:
    for step in ("plan", "settle", "wait_for_status", "fetch_payouts", "check"):
        play.step(step)
    publish(play.warehouse.engine, "prediction")
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE core.settlement SET is_current = false"
                " WHERE record_id = (SELECT max(record_id) FROM core.settlement)"
            )
        )
    with pytest.raises(MarketsHeld, match=f"tells {POSITIONS} positions COMPLETED .* but 5 that"):
        play.step("publish")
    assert play.market().state == "held"
    [finding] = play.findings("market_held")
    assert "Its list is published" in finding.kept
    play.decide("market_held", "release_market")
    play.released.add(play.market_id)
    play.run()
    assert play.market().state == "done"
    assert play.findings() == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"kind": "html_page"}, "cannot be read"),
        ({"kind": "status", "status": 500}, "is answered by no call, and others are"),
        ({"kind": "status", "status": 404}, "is answered by no call, and others are"),
    ],
)
def test_a_market_that_cannot_be_read_keeps_no_other_back_and_is_stuck_in_the_end(
    play: MarketPlay, fault: dict[str, Any], told: str
) -> None:
    play.engine_changes(markets=2)
    play.step("plan")
    play.step("settle")
    play.sandbox.fault("prediction", call="status", **fault)
    play.step("wait_for_status")
    assert sorted(play.states().values()) == ["fetching", "waiting"]
    [troubled] = play.rows("SELECT * FROM prediction.market WHERE trouble IS NOT NULL")
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.sandbox.fault("prediction", call="status", **fault)
    play.step("wait_for_status")
    assert play.market(troubled.market_id).state == "stuck"
    assert told in play.findings("market_stuck")[0].summary
    play.decide("market_stuck", "try_again")
    play.run()
    assert set(play.states().values()) == {"done"}


@pytest.mark.parametrize(("markets", "status"), [(4, 503), (2, 429)])
def test_an_engine_that_comes_back_with_pauses_leaves_no_market_stuck(
    play: MarketPlay, markets: int, status: int
) -> None:
    play.engine_changes(markets=markets)
    play.step("plan")
    play.step("settle")
    play.sandbox.fault("prediction", "status", call="status", status=503, times=None)
    play.step("wait_for_status")
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    # It answers about the first, and then not about the others.
    play.sandbox.forget_faults()
    play.sandbox.fault("prediction", "status", call="status", status=status, times=3, after_calls=1)
    play.step("wait_for_status")
    assert sorted(play.states().values()) == ["fetching"] + ["waiting"] * (markets - 1)
    assert play.findings() == []
    play.sandbox.forget_faults()
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.run()
    assert set(play.states().values()) == {"done"}


def test_an_engine_that_is_silent_is_not_asked_about_every_market(play: MarketPlay) -> None:
    play.engine_changes(markets=5)
    play.step("plan")
    play.sandbox.fault("prediction", "reset_before_answer", call="settle", times=None)
    play.step("settle")
    assert play.results() == ["in_doubt"] * 3
    assert sorted(play.states().values()) == ["resolved"] * 2 + ["settling"] * 3
    play.sandbox.forget_faults()
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    play.run()
    play.run()
    assert set(play.states().values()) == {"done"}


@pytest.mark.parametrize("status", [500, 401, 404])
def test_an_engine_that_is_away_for_long_is_one_question_and_no_market_is_stuck(
    play: MarketPlay, status: int
) -> None:
    engine, settings = play.warehouse.engine, play.settings
    play.engine_changes(clock_stopped_at="2026-11-21T12:00:00Z", settling_seconds=100)
    play.run()
    play.sandbox.fault("prediction", "status", call="status", status=status, times=None)
    for _ in range(3):
        with suppress(Fatal):
            play.step("wait_for_status")
        play.let_time_pass(settings.prediction_stuck_seconds)
    assert play.market().state == "waiting"
    assert len(watch_markets(engine, settings).opened) == 1
    play.sandbox.forget_faults()
    play.run()
    # What the engine did while nobody could look is not known: it has its hour from now on.
    assert play.market().state == "waiting"
    assert len(watch_markets(engine, settings).closed) == 1
    play.engine_changes(clock_offset_seconds=100)
    play.run()
    assert play.market().state == "done"


def test_what_goes_wrong_with_one_market_is_told_after_the_others_have_gone_on(
    play: MarketPlay,
) -> None:
    play.engine_changes(markets=3)
    play.step("plan")
    looked_at = []

    def look(market: Any) -> bool:
        looked_at.append(market.market_id)
        if len(looked_at) < 3:
            raise LookupError(market.market_id)
        return True

    with pytest.raises(LookupError) as raised:
        each_market(play.warehouse.engine, play.settings, play.market_ids, ("resolved",), look)
    assert sorted(looked_at) == sorted(play.market_ids)
    assert raised.value.args == (looked_at[0],)


def test_an_answer_that_arrived_before_the_last_one_but_landed_after_it_is_kept(
    play: MarketPlay,
) -> None:
    now = datetime.now(UTC)

    def keep(body: bytes, seconds: int) -> int | None:
        at = now + timedelta(seconds=seconds)
        answer = Answer(200, body, "application/json", "/status", at, at)
        with transaction(play.warehouse.engine, "loader") as connection:
            lock_source(connection, "prediction")
            return keep_answer(connection, "status/m", "GET", answer, "test")

    kept = [keep(b"{}", 2), keep(b"[]", 1), keep(b"{}", 3)]
    assert kept == sorted({one for one in kept if one is not None})
    assert keep(b"{}", 4) == kept[2]


def test_a_list_that_a_person_gives_up_leaves_its_market_held(play: MarketPlay) -> None:
    for step in ("plan", "settle", "wait_for_status", "fetch_payouts", "check"):
        play.step(step)
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE ops.batch SET state = 'discarded' WHERE landed > 1"))
    play.step("publish")
    assert play.market().state == "held"
    play.decide("market_held", "try_again")
    play.run()
    assert play.payouts() == play.owed()


# --- any task, in any order, by any number of runs ----------------------------------------------


def test_tasks_cleared_in_any_order_bring_every_market_to_its_end(play: MarketPlay) -> None:
    draw = random.Random(20261121)
    play.engine_changes(markets=3, failing_share=0.3, settle_errors=1)
    names = [task.name for task in play.tasks()]
    for _ in range(14):
        play.step(draw.choice(names))
    for _ in range(3):
        play.run()
    assert set(play.states().values()) == {"done"}
    for market_id in play.market_ids:
        assert play.payouts(market_id) == play.owed(market_id)


def test_a_market_moves_only_from_how_it_was_seen(play: MarketPlay) -> None:
    play.step("plan")
    with transaction(play.warehouse.engine, "loader") as connection:
        [seen] = due(connection, ("resolved",))
        moved = move(connection, seen, "fetching")
        assert moved is not None
        assert move(connection, seen, "done") is None
        assert move(connection, moved, "waiting") is not None
    assert play.market().state == "waiting"


def test_a_look_that_another_run_has_overtaken_closes_no_question(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.run()
    play.let_time_pass(86_400)
    play.step("wait_for_status")
    read_list = fetching._read_list

    def read_while_another_run_holds_it(*arguments: Any) -> Any:
        monkeypatch.setattr(fetching, "_read_list", read_list)
        read = read_list(*arguments)
        play.engine_changes(lies={"row.totalPayout": "1"})
        play.run()
        return read

    monkeypatch.setattr(fetching, "_read_list", read_while_another_run_holds_it)
    play.step("fetch_payouts")
    assert play.market().state == "held"
    [finding] = play.findings()
    assert finding.finding_id == play.market().finding_id
    play.engine_changes(lies={})
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"
    assert play.findings() == []


def test_nothing_is_ordered_while_an_earlier_order_may_be_carried_out(play: MarketPlay) -> None:
    play.sandbox.fault("prediction", "reset_before_answer", call="settle", executed=False)
    play.step("plan")
    play.step("settle")
    # However it came about that the market is to be ordered again.
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(
            text("UPDATE prediction.market SET state = 'resolved', next_look_at = now()")
        )
    play.step("settle")
    assert play.results() == ["in_doubt"]
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    play.run()
    assert play.results() == ["in_doubt", "executed"]


def conceal_one(play: MarketPlay) -> None:
    """From now on the engine tells, of everything alike, one completed payout less."""
    with httpx.Client(trust_env=False) as http:
        listed = Operator(play.sandbox, http).settlements(marketId=play.market_id)
    entry, paid = max(
        enumerate(one["totalPayout"] for one in listed), key=lambda one: Decimal(one[1])
    )
    counts = dict.fromkeys(("status.totalPositions", "status.completedCount"), "-1")
    payouts = dict.fromkeys(("status.totalPayout", "status.completedPayout"), f"-{paid}")
    play.engine_changes(lies={**counts, **payouts})
    play.sandbox.fault("prediction", "missing_item", call="settlements", entry=entry, times=None)


# --- what is kept of the engine's answers -------------------------------------------------------


@pytest.mark.parametrize("kind", ["html_page", "malformed_json"])
def test_a_status_that_cannot_be_read_is_kept(play: MarketPlay, kind: str) -> None:
    play.step("plan")
    play.step("settle")
    play.sandbox.fault("prediction", kind, call="status")
    play.step("wait_for_status")
    assert play.market().trouble
    assert len(kept(play, f"status/{play.market_id}")) == 1
    play.step("wait_for_status")
    assert len(kept(play, f"status/{play.market_id}")) == 2


@pytest.mark.parametrize("call", ["status", "settlements"])
def test_what_cannot_be_read_after_an_order_in_doubt_is_kept(play: MarketPlay, call: str) -> None:
    play.sandbox.fault("prediction", "reset_before_answer", call="settle", executed=False)
    play.run()
    play.let_time_pass(play.settings.prediction_deadline_seconds)
    play.sandbox.fault("prediction", "malformed_json", call=call)
    play.step("settle")
    assert play.market().state == "settling"
    assert play.market().trouble
    key = {"status": "status", "settlements": "list"}[call]
    assert len(kept(play, f"{key}/{play.market_id}")) == 1


def test_every_status_that_is_judged_is_kept(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a market that is stuck, the one before its list and the one behind it need not agree."""
    play.engine_changes(stuck_share=0.5)
    play.run()
    assert len(kept(play, f"status/{play.market_id}")) == 1
    play.let_time_pass(play.settings.prediction_stuck_seconds)
    play.step("wait_for_status")
    assert play.market().state == "fetching"
    payouts = iter(("4711", "4712"))
    with monkeypatch.context() as patch:
        change_status(patch, lambda told: told.update(totalPayout=next(payouts)))
        play.step("fetch_payouts")
    assert play.market().total_payout == 4712
    before, first, second = kept(play, f"status/{play.market_id}")
    assert b"4711" in first
    assert b"4712" in second
    assert b"471" not in before


def test_the_answers_to_orders_are_kept(play: MarketPlay) -> None:
    play.engine_changes(failing_share=1.0, failing_attempts=1)
    play.run()
    orders = play.rows("SELECT * FROM prediction.attempt ORDER BY attempt_id")
    assert [one.call for one in orders] == ["settle", "retry"]
    for one in orders:
        [answer] = kept(play, f"{one.call}/{one.attempt_id}")
        assert json.loads(answer)["data"]["totalPositions"] == POSITIONS
        [row] = play.rows(
            "SELECT record_key FROM raw.record WHERE record_id = :this", this=one.record_id
        )
        assert row.record_key == f"{one.call}/{one.attempt_id}"


def kept(play: MarketPlay, key: str) -> list[bytes]:
    """The answers that are kept under a key, oldest first."""
    statement = "SELECT payload FROM raw.record_payload WHERE record_key = :key ORDER BY record_id"
    return [bytes(row.payload) for row in play.rows(statement, key=key)]


def test_what_fails_is_retried_at_once_and_then_after_twice_as_long_each_time(
    play: MarketPlay,
) -> None:
    play.change(prediction_retry_delay_seconds=300.0)
    play.engine_changes(failing_share=1.0, failing_attempts=None)
    play.run()
    for retries, delay in ((1, 300), (2, 600)):
        play.run()
        market = play.market()
        assert (market.state, len(play.results("retry"))) == ("retrying", retries)
        waits = (market.next_look_at - datetime.now(UTC)).total_seconds()
        assert delay - 60 < waits <= delay
        play.let_time_pass(delay - 60)
        play.run()
        assert len(play.results("retry")) == retries
        play.let_time_pass(60)
        play.run()
        assert len(play.results("retry")) == retries + 1
    assert play.market().state == "failed"


def settle_by_another(play: MarketPlay) -> None:
    with httpx.Client(trust_env=False) as http:
        Operator(play.sandbox, http).settle(play.market_id).raise_for_status()
    play.settled_by_others += 1


def confirm(play: MarketPlay, *market_ids: str) -> int:
    return queue.confirm(
        play.warehouse.engine,
        market_ids,
        currency=None,
        confirmed_by="ann",
        reason="I know it.",
        run_id="test",
    )
