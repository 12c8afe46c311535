"""Crediting: once a settlement and once a position, into the outbox or owed, never doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from include.markets import crediting as crediting_module
from include.markets.crediting import Credited, OutboxTaken
from include.payouts.outbox import freeze_new
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.database import lock_source, open_engine, transaction
from include.warehouse.decisions import DecisionRefused
from include.warehouse.findings import next_step
from include.warehouse.tables import transaction as transaction_table
from tests.local.waiting import wait_for
from tests.markets.crediting import MAPPED, Crediting, refusal, today
from tests.payouts.entering import attempt, payout, rows, writer
from tests.warehouses import Warehouse


@pytest.fixture
def crediting(shared_warehouse: Warehouse, sandbox: Sandbox) -> Crediting:
    """Market m, of which nothing was told yet."""
    crediting = Crediting(shared_warehouse, sandbox)
    crediting.market("m")
    return crediting


# --- what is credited ---------------------------------------------------------------------------


def test_what_is_completed_and_pays_is_credited_and_all_else_is_not(crediting: Crediting) -> None:
    crediting.publish(
        crediting.row("won", "12.5"),
        crediting.row("lost", "0"),
        crediting.row("failed", None),
        crediting.row("open", None, status="open"),
    )
    assert crediting.credit() == Credited(entered=1)
    assert crediting.credit() == crediting.credit(["m"]) == Credited()
    credit = crediting.credits()["won"]
    assert (credit.market_id, credit.position_id, credit.player_id, credit.currency) == (
        *("m", "p-won", "player-won", "USD"),
    )
    assert (credit.amount, credit.accounting_date) == (Decimal("12.5"), today())
    assert crediting.states() == {"won": "sending"}
    assert crediting.wrong() == []


def test_the_wallet_is_told_as_the_settings_say_and_exactly(crediting: Crediting) -> None:
    crediting.map(True)
    crediting.settings = crediting.settings.model_copy(
        update={"prediction_wallet_game_id": "100 % {outcome_id} of {market_id}"}
    )
    crediting.tell("s1", "1234567.00001", position_id="{settlement_id}")
    crediting.credit()
    told = crediting.payouts()["s1"]
    assert told.transaction_id == "prediction:s1"
    assert (told.session_id, told.round_id) == ("prediction-markets", "market-m")
    assert (told.game_id, told.ref_transaction_id) == ("100 % yes of m", "{settlement_id}/yes")
    assert (told.player_id, told.currency, told.amount) == ("player-s1", "USD", 123_456_700_001)
    assert (told.is_win, told.business_date) == (True, today())
    assert (told.origin_source, told.origin_key) == ("prediction", "s1")


def test_only_the_asked_markets_are_credited_and_a_held_one_never(crediting: Crediting) -> None:
    crediting.market("held", "held")
    crediting.market("other")
    for market_id in ("m", "held", "other", "unknown"):
        crediting.tell(market_id, market_id=market_id)
    assert crediting.credit(["m", "held", "unknown"]) == Credited(entered=1)
    assert crediting.credit() == Credited(entered=1)
    assert set(crediting.credits()) == {"m", "other"}
    crediting.market("held", "done")
    assert crediting.credit() == Credited(entered=1)
    assert crediting.wrong() == []


def test_a_market_that_is_held_while_it_is_looked_at_is_not_credited(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_meanwhile(*arguments: Any) -> Any:
        crediting.market("m", "held")
        return credit_market(*arguments)

    credit_market = crediting_module._credit_market
    crediting.tell("s1")
    monkeypatch.setattr(crediting_module, "_credit_market", held_meanwhile)
    assert crediting.credit() == Credited()
    assert crediting.credits() == {}


def test_what_a_decision_lets_go_waits_while_its_market_is_held(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.tell("s1")
    crediting.credit()
    crediting.map(True)
    crediting.credit()
    crediting.decide("credits_owed", "send_owed")
    crediting.market("m", "held")
    assert crediting.credit() == Credited()
    assert crediting.states() == {"s1": "due"}
    crediting.market("m")
    assert crediting.credit() == Credited(entered=1)


def test_what_a_released_list_has_of_another_market_is_credited_only_with_that_one(
    crediting: Crediting,
) -> None:
    """Whoever releases the list reads so; until then finance sees the difference."""
    uncredited = "SELECT market_id, difference FROM finance.market_credit WHERE difference <> 0"
    crediting.publish(crediting.row("own"), crediting.row("foreign", market_id="elsewhere"))
    assert crediting.credit() == Credited(entered=1)
    assert rows(crediting.warehouse, uncredited) == [("elsewhere", 10)]
    assert "of another market only with that one" in next_step("market_held")
    crediting.market("elsewhere")
    assert crediting.credit() == Credited(entered=1)
    assert rows(crediting.warehouse, uncredited) == []
    assert crediting.wrong() == []


def test_a_run_looks_only_at_markets_that_have_moved(crediting: Crediting) -> None:
    crediting.tell("s1")
    crediting.credit()
    # Past everything that says so.
    crediting.as_owner("UPDATE core.settlement SET payout = 12")
    assert crediting.credit() == Credited()
    assert crediting.credit(["m"]) == Credited(adjusted=1)
    crediting.as_owner("UPDATE core.settlement SET payout = 13")
    crediting.as_owner(
        "INSERT INTO ops.batch (source, feed, kind, state)"
        " VALUES ('prediction', 'settlements', 'replay', 'published')"
    )
    assert crediting.credit() == Credited(adjusted=1)


def test_any_number_of_settlements_is_credited_some_at_a_time(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crediting_module, "_SETTLEMENTS_AT_A_TIME", 3)
    monkeypatch.setattr(crediting_module, "_MARKETS_AT_A_TIME", 2)
    for market_id in ("m", "n", "o"):
        crediting.market(market_id)
    told = [crediting.row(f"{market}{n}", market_id=market) for market in "mno" for n in range(6)]
    crediting.publish(*told)
    crediting.map(False)
    assert crediting.credit() == Credited(owed=18)
    crediting.map(True)
    crediting.credit()
    crediting.decide("credits_owed", "send_owed")
    assert crediting.credit([]) == Credited(entered=18)
    assert crediting.wrong() == []


def test_a_retry_that_makes_another_settlement_is_credited_once(crediting: Crediting) -> None:
    crediting.tell("first", None, position_id="p")
    crediting.credit()
    crediting.tell("second", position_id="p")
    assert crediting.credit() == Credited(entered=1)
    assert list(crediting.credits()) == ["second"]
    assert crediting.wrong() == []


def test_a_position_whose_retry_is_under_way_is_unpaid_and_not_failed(
    crediting: Crediting,
) -> None:
    unpaid = "SELECT why, reason FROM finance.market_unpaid"
    crediting.tell("first", None, position_id="p", reason="no such player")
    assert rows(crediting.warehouse, unpaid) == [("failed", "no such player")]
    crediting.tell("second", None, position_id="p", status="open")
    assert rows(crediting.warehouse, unpaid) == [("under way", "no such player")]
    crediting.tell("second", None, position_id="p", reason="no such account")
    assert rows(crediting.warehouse, unpaid) == [("failed", "no such account")]
    crediting.tell("second", position_id="p")
    assert rows(crediting.warehouse, unpaid) == []


def test_a_position_that_is_completed_twice_is_never_credited_twice(crediting: Crediting) -> None:
    crediting.publish(crediting.row("a1", position_id="a"), crediting.row("a2", position_id="a"))
    crediting.tell("b1", position_id="b")
    assert crediting.credit() == Credited(entered=1, doubled=2)
    crediting.tell("b2", position_id="b")
    assert crediting.credit() == Credited(doubled=3)
    assert list(crediting.credits()) == ["b1"]
    assert crediting.findings() == ["credit_doubled", "credit_doubled"]
    crediting.decide("credit_doubled", "acknowledge")
    crediting.credit()
    assert crediting.findings() == []
    assert crediting.wrong() == []


def test_each_position_that_is_completed_twice_is_asked_about(crediting: Crediting) -> None:
    crediting.publish(crediting.row("a1", position_id="a"), crediting.row("a2", position_id="a"))
    assert crediting.credit() == Credited(doubled=2)
    crediting.decide("credit_doubled", "acknowledge")
    crediting.tell("a1", None, position_id="a")
    assert crediting.credit() == Credited(entered=1)
    crediting.publish(crediting.row("b1", position_id="b"), crediting.row("b2", position_id="b"))
    assert crediting.credit() == Credited(doubled=2)
    assert crediting.findings() == ["credit_doubled"]
    assert crediting.credit(["m"]) == Credited(doubled=2)
    assert crediting.findings() == ["credit_doubled"]
    crediting.tell("b1", None, position_id="b")
    crediting.tell("b2", None, position_id="b")
    assert crediting.credit() == Credited()
    assert crediting.findings() == []
    # Nobody has answered what the engine took back by itself.
    crediting.publish(crediting.row("b1", position_id="b"), crediting.row("b2", position_id="b"))
    assert crediting.credit() == Credited(doubled=2)
    assert crediting.findings() == ["credit_doubled"]


def test_a_double_that_ends_while_its_market_is_looked_at_stops_nobody(
    crediting: Crediting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crediting_module, "_SETTLEMENTS_AT_A_TIME", 2)
    crediting.publish(
        crediting.row("a1", position_id="a"),
        crediting.row("a2", position_id="a"),
        crediting.row("z"),
    )
    look, looks = crediting_module.look_up_by_key, iter(range(10))

    def take_back_before_the_second_page(connection: Connection) -> None:
        look(connection)
        if next(looks) == 0:
            published.start()

    def wait_for_it(connection: Connection, source: str) -> None:
        if published.ident is not None:
            published.join(30)
        lock_source(connection, source)

    published = threading.Thread(
        target=lambda: crediting.tell("a1", None, position_id="a"), daemon=True
    )
    monkeypatch.setattr(crediting_module, "look_up_by_key", take_back_before_the_second_page)
    monkeypatch.setattr(crediting_module, "lock_source", wait_for_it)
    assert crediting.credit() == Credited(entered=1, doubled=2)
    assert crediting.findings() == []
    assert crediting.credit() == Credited(entered=1)
    assert crediting.wrong() == []


def test_what_took_the_place_of_one_that_was_taken_back_is_left_to_a_person(
    crediting: Crediting,
) -> None:
    """The clerk may have paid what was owed, and not acknowledged it yet."""
    crediting.map(False)
    crediting.tell("first", position_id="p")
    crediting.credit()
    crediting.tell("second", position_id="p")
    assert crediting.credit() == Credited(doubled=1)
    crediting.decide("credit_doubled", "acknowledge")
    crediting.tell("first", None, position_id="p")
    assert crediting.credit() == Credited(changed=1, doubled=1)
    assert crediting.states() == {"first": "withdrawn"}
    [finding] = rows(
        crediting.warehouse,
        "SELECT * FROM ops.finding WHERE kind = 'credit_doubled' AND state = 'open'",
    )
    assert "was taken back since" in finding.summary
    assert "completed as well" not in finding.summary
    [example] = finding.detail["examples"]
    assert (example["settlement_id"], example["credited_by"]) == ("second", "first")
    assert (example["credit_state"], example["payout"]) == ("withdrawn", "10.00 USD")
    assert crediting.wrong() == []


def test_what_is_contested_waits_until_it_is_decided(crediting: Crediting) -> None:
    crediting.publish(
        crediting.row("s1", "1", provider_order="same"),
        crediting.row("s1", "2", provider_order="same"),
    )
    assert crediting.credit() == Credited()
    published = "SELECT published_positions, published_payout FROM finance.market"
    assert rows(crediting.warehouse, published) == [(0, None)]
    assert rows(crediting.warehouse, "SELECT FROM finance.market_payout") == []
    [version] = rows(crediting.warehouse, "SELECT record_id FROM core.settlement WHERE payout = 1")
    crediting.choose("settlement_contested", version.record_id)
    assert crediting.credit() == Credited(entered=1)
    assert crediting.credits()["s1"].amount == 1
    assert rows(crediting.warehouse, published) == [(1, 1)]
    assert crediting.wrong() == []


def test_a_choice_made_anew_adjusts_what_was_credited_by_the_first(crediting: Crediting) -> None:
    crediting.publish(
        crediting.row("s1", "1", provider_order="same"),
        crediting.row("s1", "2", provider_order="same"),
    )
    wrong, right = rows(
        crediting.warehouse, "SELECT record_id FROM core.settlement ORDER BY payout"
    )
    crediting.choose("settlement_contested", wrong.record_id)
    assert crediting.credit() == Credited(entered=1)

    crediting.choose_anew("settlement_contested", right.record_id)
    assert crediting.credit() == Credited(adjusted=1)
    assert crediting.credits()["s1"].amount == 1
    assert rows(crediting.warehouse, "SELECT difference FROM prediction.adjustment") == [(1,)]
    assert crediting.wrong() == []


def test_two_runs_at_once_credit_as_one(crediting: Crediting) -> None:
    crediting.publish(*(crediting.row(f"s{number}") for number in range(300)))
    runs: list[Credited] = []
    threads = [
        threading.Thread(target=lambda: runs.append(crediting.credit()), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(run.entered for run in runs) == [0, 0, 300]
    assert crediting.wrong() == []


# --- what cannot be credited as it stands -------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"currency": None}, "currency_unknown"),
        ({"currency": "X" * 21}, "currency_unknown"),
        ({"player_id": None}, "player_unknown"),
        ({"player_id": ""}, "player_unknown"),
        ({"payout": Decimal("0.000001")}, "too_fine"),
        ({"payout": Decimal("90071992547.40992")}, "too_large"),
    ],
)
def test_what_cannot_be_told_to_the_wallet_is_held(
    crediting: Crediting, changes: dict[str, Any], reason: str
) -> None:
    crediting.publish(crediting.row("good"), crediting.row("bad", **changes))
    assert crediting.credit() == Credited(entered=1, held=1)
    assert crediting.states() == {"good": "sending", "bad": reason}
    assert crediting.findings() == ["credits_held"]
    assert crediting.credit() == Credited()
    assert crediting.wrong() == []


def test_without_the_wallet_no_amount_is_too_fine(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.tell("s1", "0.000000000000000000000000000001")
    assert crediting.credit() == Credited(owed=1)
    assert crediting.owed()["s1"].amount == Decimal("1e-30")


def test_a_currency_that_becomes_known_lets_its_credits_go(crediting: Crediting) -> None:
    crediting.tell("s1", currency=None)
    crediting.credit()
    crediting.tell("s1")
    assert crediting.credit() == Credited(entered=1, changed=1)
    assert crediting.findings() == []
    assert crediting.wrong() == []


def test_what_is_held_is_tried_again_or_owed_by_decision(crediting: Crediting) -> None:
    crediting.tell("fine", "0.123456")
    crediting.credit()
    crediting.decide("credits_held", "try_again")
    assert crediting.credit() == Credited(held=1)
    crediting.decide("credits_held", "owe")
    assert crediting.credit() == Credited()
    assert crediting.states() == {"fine": "owed"}
    assert crediting.findings() == []
    crediting.tell("nobody", player_id=None)
    crediting.credit()
    with pytest.raises(DecisionRefused, match="player_unknown"):
        crediting.decide("credits_held", "owe")


def hold_one_more(crediting: Crediting) -> None:
    crediting.tell("large", "9000000.000001")
    crediting.credit()


def change_one_more(crediting: Crediting) -> None:
    crediting.tell("large", "9000000")
    crediting.credit()


def change_its_amount(crediting: Crediting) -> None:
    crediting.tell("small", "9000000")
    crediting.credit()


def change_its_currency(crediting: Crediting) -> None:
    crediting.tell("small", "11", currency="KWD")
    crediting.credit()


def owe_another(crediting: Crediting) -> None:
    """As many as before: one is paid, another one joins."""
    crediting.acknowledge("small")
    crediting.map(False)
    crediting.tell("third", "9000000")
    crediting.credit()
    crediting.map(True)
    crediting.credit()


def one_that_is_held(crediting: Crediting) -> None:
    crediting.tell("small", "0.123456")
    crediting.credit()


def one_that_has_changed(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.publish(crediting.row("small"), crediting.row("large"))
    crediting.credit()
    crediting.map(True)
    crediting.tell("small", "11")
    crediting.credit()


def two_that_are_owed(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.publish(crediting.row("small"), crediting.row("other"))
    crediting.credit()
    crediting.map(True)
    crediting.credit()


@pytest.mark.parametrize(
    ("kind", "decision", "arise", "go_on"),
    [
        ("credits_held", "try_again", one_that_is_held, hold_one_more),
        ("credits_held", "owe", one_that_is_held, hold_one_more),
        ("credit_changed", "try_again", one_that_has_changed, change_one_more),
        ("credit_changed", "owe", one_that_has_changed, change_one_more),
        ("credit_changed", "try_again", one_that_has_changed, change_its_amount),
        ("credit_changed", "owe", one_that_has_changed, change_its_currency),
        ("credits_owed", "send_owed", two_that_are_owed, owe_another),
    ],
)
def test_credits_that_nobody_has_seen_so_are_not_decided_along(
    crediting: Crediting,
    kind: str,
    decision: str,
    arise: Callable[[Crediting], None],
    go_on: Callable[[Crediting], None],
) -> None:
    arise(crediting)
    seen = crediting.seen(kind)
    go_on(crediting)
    before = crediting.states()
    with pytest.raises(DecisionRefused, match="about other credits than these: finding"):
        crediting.decide(kind, decision, seen=seen)
    assert crediting.states() == before
    crediting.decide(kind, decision)
    assert crediting.states() != before


def test_of_credits_their_number_is_enough_and_has_to_be_right(crediting: Crediting) -> None:
    one_that_is_held(crediting)
    with pytest.raises(DecisionRefused, match="does not say about how many credits it is"):
        crediting.decide("credits_held", "owe", seen=None)
    with pytest.raises(
        DecisionRefused, match=r"about 2 credits, but finding 1 holds 1 now \(0\.123456 USD\)"
    ):
        crediting.decide("credits_held", "owe", seen=None, payouts=2)
    crediting.decide("credits_held", "owe", seen=None, payouts=1)
    assert crediting.states() == {"small": "owed"}


def test_a_transaction_id_that_somebody_else_has_entered_is_left_alone(
    crediting: Crediting,
) -> None:
    with writer(crediting.warehouse) as engine, engine.begin() as connection:
        foreign = payout("prediction:s1", origin_source="somebody", business_date=today())
        names, values = ", ".join(foreign), ", ".join(f":{name}" for name in foreign)
        connection.execute(
            text(f"INSERT INTO wallet.transaction ({names}) VALUES ({values})"), foreign
        )
    crediting.tell("s1")
    assert crediting.credit() == Credited(held=1)
    assert crediting.states() == {"s1": "id_taken"}
    assert crediting.payouts()["s1"].origin_source == "somebody"


def test_an_id_that_is_taken_at_this_very_moment_credits_nobody_before_the_next_run(
    crediting: Crediting,
) -> None:
    crediting.publish(crediting.row("s1"), crediting.row("s2"))
    ends: list[BaseException] = []

    def run() -> None:
        try:
            crediting.credit()
        except OutboxTaken as error:
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with crediting.warehouse.owner_engine.begin() as connection:
        foreign = payout("prediction:s1", business_date=today())
        connection.execute(insert(transaction_table), foreign)
        thread.start()
        wait_for("the run waits for the id", lambda: waiting(crediting), 30)
    thread.join(30)
    assert "Clear this task" in str(ends[0])
    assert crediting.credits() == {}
    assert crediting.credit() == Credited(entered=1, held=1)
    assert crediting.states() == {"s1": "id_taken", "s2": "sending"}


def waiting(crediting: Crediting) -> bool:
    """Whether a session waits for what another one has entered."""
    return bool(
        rows(
            crediting.warehouse, "SELECT FROM pg_locks WHERE NOT granted AND locktype LIKE 'trans%'"
        )
    )


# --- without the wallet -------------------------------------------------------------------------


def test_owed_is_what_the_operator_pays_and_acknowledges_once_for_ever(
    crediting: Crediting,
) -> None:
    crediting.map(False)
    crediting.publish(crediting.row("a", "1.25"), crediting.row("b"))
    assert crediting.credit() == Credited(owed=2)
    assert crediting.payouts() == {}
    owed = crediting.owed()["a"]
    assert (owed.player_id, owed.amount, owed.currency, owed.refusal) == (
        *("player-a", Decimal("1.25"), "USD", None),
    )
    assert crediting.acknowledge("a", reference=" transfer 4711 ") == 1
    paid = crediting.credits()["a"]
    assert (paid.state, paid.acknowledged_by, paid.reference) == (
        *("acknowledged", "credits", "transfer 4711"),
    )
    assert paid.acknowledged_at is not None
    assert list(crediting.owed()) == ["b"]
    # The same again is no mistake: the answer may have been lost on its way.
    assert crediting.acknowledge("a", "b") == 1
    before = crediting.credits()
    assert "Credit 1 is acknowledged and not owed, by transfer 4711" in refusal(
        crediting, "a", reference="transfer 4712"
    )
    assert "Give your own reference" in refusal(crediting, "a", reference=" ")
    assert crediting.credits() == before
    assert crediting.wrong() == []


def test_an_acknowledgement_waits_for_whoever_credits(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.tell("s1")
    crediting.credit()
    with transaction(crediting.warehouse.engine, "crediter") as connection:
        lock_source(connection, "prediction")
        assert "lock timeout" in refusal(crediting, "s1", patience="200ms")
    assert crediting.acknowledge("s1") == 1


def test_an_acknowledgement_is_of_all_or_of_none(crediting: Crediting) -> None:
    crediting.map(False)
    crediting.tell("owed")
    crediting.credit()
    crediting.map(True)
    crediting.tell("sending")
    crediting.credit()
    assert "Credit 2 is sending and not owed." in refusal(crediting, "owed", "sending")
    assert crediting.states() == {"owed": "owed", "sending": "sending"}


def test_switching_the_wallet_on_sends_nothing_that_is_owed_without_a_decision(
    crediting: Crediting,
) -> None:
    crediting.map(False)
    crediting.publish(crediting.row("paid by hand"), crediting.row("owed"))
    crediting.credit()
    assert crediting.findings() == []
    crediting.acknowledge("paid by hand")
    crediting.map(True)
    crediting.tell("new")
    assert crediting.credit() == Credited(entered=1)
    assert crediting.findings() == ["credits_owed"]
    assert list(crediting.payouts()) == ["new"]
    crediting.decide("credits_owed", "send_owed")
    assert "is due and not owed" in refusal(crediting, "owed")
    assert crediting.credit([]) == Credited(entered=1)
    assert set(crediting.payouts()) == {"new", "owed"}
    assert crediting.findings() == []
    assert crediting.states() == {
        "paid by hand": "acknowledged",
        "owed": "sending",
        "new": "sending",
    }
    assert crediting.wrong() == []


def test_the_question_what_to_do_with_the_owed_goes_when_all_are_paid(
    crediting: Crediting,
) -> None:
    crediting.map(False)
    crediting.tell("s1")
    crediting.credit()
    crediting.map(True)
    crediting.credit()
    crediting.acknowledge("s1")
    with pytest.raises(DecisionRefused, match="about no credit any more"):
        crediting.decide("credits_owed", "send_owed")
    crediting.credit([])
    assert crediting.findings() == []


# --- told otherwise -----------------------------------------------------------------------------


def test_what_changes_before_anybody_was_told_is_held_and_goes_on_by_decision(
    crediting: Crediting,
) -> None:
    crediting.map(False)
    crediting.publish(crediting.row("s1"), crediting.row("s2"))
    crediting.credit()
    crediting.tell("s1", "11")
    crediting.tell("s2", None)
    assert crediting.credit() == Credited(changed=2)
    assert crediting.states() == {"s1": "changed", "s2": "withdrawn"}
    assert crediting.findings() == ["credit_changed", "credit_changed"]
    assert crediting.owed() == {}
    crediting.decide("credit_changed", "try_again")
    assert crediting.credit() == Credited(owed=1, held=1)
    assert crediting.owed()["s1"].amount == 11
    assert crediting.states()["s2"] == "withdrawn"
    assert rows(crediting.warehouse, "SELECT FROM prediction.adjustment") == []
    assert crediting.wrong() == []


def test_what_changes_in_the_outbox_before_it_is_sent_is_held_there(crediting: Crediting) -> None:
    crediting.tell("s1")
    crediting.credit()
    freeze_new(crediting.warehouse.engine)
    crediting.tell("s1", "12.00")
    assert crediting.credit() == Credited(adjusted=1)
    assert crediting.credit() == Credited()
    held = crediting.payouts()["s1"]
    assert (held.hold_reason, held.amount) == ("credit_changed", 1_000_000)
    assert held.hold_detail == "Its settlement pays 12.00 USD since, before 10.00."
    assert crediting.send().requests == 0
    assert crediting.findings() == ["credit_adjusted", "transactions_held"]
    crediting.decide("transactions_held", "release_hold")
    assert crediting.send().processed == 1
    assert crediting.states() == {"s1": "paid"}
    assert crediting.wrong() == []


@pytest.mark.parametrize("way", ["sent", "acknowledged"])
def test_what_changes_after_it_was_sent_or_paid_is_an_adjustment(
    crediting: Crediting, way: str
) -> None:
    crediting.map(way == "sent")
    crediting.tell("s1", "10")
    crediting.credit()
    if way == "sent":
        attempt(crediting.warehouse, "prediction:s1")
    else:
        crediting.acknowledge("s1")
    for payout_told in ("12", "7.5", None):
        crediting.tell("s1", payout_told)
        assert crediting.credit() == Credited(adjusted=1)
        assert crediting.credit() == Credited()
    crediting.tell("s1", "10", player_id="somebody else")
    assert crediting.credit() == Credited()
    found = rows(
        crediting.warehouse,
        "SELECT amount_before, amount_after, difference FROM prediction.adjustment"
        " ORDER BY adjustment_id",
    )
    assert [tuple(map(str, row)) for row in found] == [
        ("10", "12", "2"),
        ("12", "7.5", "-4.5"),
        ("7.5", "0", "-7.5"),
    ]
    assert crediting.credits()["s1"].amount == 10
    # The adjustments, and what somebody else is due.
    assert crediting.findings() == ["credit_adjusted", "credit_adjusted"]
    held = crediting.payouts()["s1"].hold_reason if way == "sent" else None
    assert held is None
    assert crediting.wrong() == []


@pytest.mark.parametrize("other", [{"player_id": "bob"}, {"currency": "EUR"}, {"player_id": None}])
def test_what_is_due_to_another_than_was_paid_is_asked_for(
    crediting: Crediting, other: dict[str, Any]
) -> None:
    crediting.map(False)
    crediting.tell("s1", player_id="ann")
    crediting.credit()
    crediting.acknowledge("s1")
    due = (
        "SELECT summary, detail FROM ops.finding WHERE state = 'open' AND detail ? 'market_id'"
        " ORDER BY finding_id"
    )
    for payout_told in ("10", "12.5"):
        crediting.tell("s1", payout_told, **{"player_id": "ann", **other})
        crediting.credit()
        [finding] = rows(crediting.warehouse, due)
        currency = other.get("currency", "USD")
        assert f"1 settlements ({payout_told} {currency}) of market m are due" in finding.summary
        assert finding.detail["examples"] == ["s1"]
        assert "bob" not in str(finding)
        # The finding names nobody; who pays sees whom.
        player = other.get("player_id", "ann")
        assert sorted(crediting.differences(), key=lambda row: row[-1]) == [
            ("s1", "ann", "USD", -10),
            ("s1", player, currency, Decimal(payout_told)),
        ]
    crediting.decide("credit_adjusted", "acknowledge")
    assert crediting.credit(["m"]) == Credited()
    assert crediting.findings() == []
    crediting.tell("s1", "13", **{"player_id": "ann", **other})
    crediting.credit()
    assert crediting.findings() == ["credit_adjusted"]
    # It is the first player's again: the adjustment asks for what was taken back.
    crediting.tell("s1", "10", player_id="ann")
    assert crediting.credit() == Credited(adjusted=1)
    assert rows(crediting.warehouse, due) == []
    assert crediting.wrong() == []


def test_what_changes_after_the_wallet_refused_it_is_not_asked_for_twice(
    crediting: Crediting,
) -> None:
    crediting.tell("s1", "10")
    crediting.credit()
    crediting.refuse("s1")
    crediting.send()
    crediting.tell("s1", "12")
    assert crediting.credit() == Credited(adjusted=1)
    # The finding asks for the 2 that are more.
    assert crediting.findings() == ["credit_adjusted", "credits_refused"]
    owed = crediting.owed()["s1"]
    assert (owed.amount, owed.adjusted_amount) == (10, 2)
    assert crediting.acknowledge("s1") == 1
    assert crediting.owed() == {}
    assert crediting.wrong() == []


# --- what nobody may do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        ("position_id = 'other'", "what it credits never changes"),
        ("amount = amount + 1", "what was sent or paid never changes"),
        ("transaction_id = NULL", "what was sent or paid never changes"),
        ("state = 'owed'", "it is acknowledged, and cannot become owed"),
        ("reference = 'another'", "it is acknowledged"),
    ],
)
def test_what_is_acknowledged_stays_so_whoever_asks(
    crediting: Crediting, assignments: str, why: str
) -> None:
    crediting.tell("s1")
    crediting.credit()
    crediting.refuse("s1")
    crediting.send()
    crediting.acknowledge("s1")
    with pytest.raises(IntegrityError, match=why):
        crediting.as_owner(f"UPDATE prediction.credit SET {assignments}")


def test_a_held_credit_is_acknowledged_by_nobody(crediting: Crediting) -> None:
    crediting.tell("s1", "0.000001")
    crediting.credit()
    assert "Credit 1 is held and not owed." in refusal(crediting, "s1")
    with pytest.raises(IntegrityError, match="it is held, and cannot become acknowledged"):
        crediting.as_owner("UPDATE prediction.credit SET state = 'acknowledged'")


def test_a_second_credit_is_impossible(crediting: Crediting) -> None:
    crediting.tell("s1")
    crediting.credit()
    copy = (
        "INSERT INTO prediction.credit (settlement_id, market_id, position_id, player_id, currency,"
        " amount, record_id, state, accounting_date) SELECT {settlement}, market_id, {position},"
        " player_id, currency, amount, record_id, 'owed', accounting_date FROM prediction.credit"
    )
    for settlement, position in (("settlement_id", "'other'"), ("'other'", "position_id")):
        with pytest.raises(IntegrityError, match="duplicate key"):
            crediting.as_owner(copy.format(settlement=settlement, position=position))
    with pytest.raises(IntegrityError, match="credit_never_lost"):
        crediting.as_owner("UPDATE wallet.transaction SET disposition = 'lost', evidence = '{}'")


def test_a_clerk_sees_what_is_owed_and_nothing_else(crediting: Crediting) -> None:
    engine = open_engine(crediting.warehouse.credits_url)
    for statement in (
        "SELECT * FROM prediction.credit",
        "SELECT * FROM prediction.credit_standing",
        "SELECT * FROM wallet.transaction",
        "SELECT * FROM core.settlement",
        "UPDATE prediction.credit SET state = 'owed'",
        "DELETE FROM prediction.credit",
    ):
        with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    ("deed", "seen"),
    [
        ("UPDATE wallet.transaction SET amount = amount + 1", "but in the outbox as"),
        ("DELETE FROM prediction.credit", "is in the outbox, and no credit"),
        ("DELETE FROM wallet.transaction", "is sending, and not in the outbox"),
        ("UPDATE prediction.credit SET amount = 11", "but its evidence says"),
        ("UPDATE wallet.transaction SET origin_source = NULL", "is sending, and not in the outbox"),
        ("UPDATE core.settlement SET payout = 11", "11 USD are completed, and 10.00 credited"),
    ],
)
def test_the_checker_sees_what_is_wrong(crediting: Crediting, deed: str, seen: str) -> None:
    crediting.tell("s1")
    crediting.credit()
    assert crediting.wrong() == []
    crediting.as_owner(f"SET LOCAL session_replication_role = replica; {deed}")
    assert [sentence for sentence in crediting.wrong() if seen in sentence] != []


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"prediction_wallet_game_id": "games"}, "SETTLEMENTS_PREDICTION_WALLET_ROUND_ID"),
        ({**MAPPED, "prediction_wallet_round_id": "{market}"}, "prediction_wallet_round_id"),
        ({**MAPPED, "prediction_wallet_round_id": ""}, "prediction_wallet_round_id"),
        ({**MAPPED, "prediction_wallet_round_id": "{"}, "prediction_wallet_round_id"),
    ],
)
def test_settings_that_do_not_say_how_the_wallet_is_told_are_refused(
    told: dict[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Settings(**told)  # type: ignore[arg-type]
