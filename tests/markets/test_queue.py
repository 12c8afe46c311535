"""Which markets are settled: what the engine tells, and what people and other systems enter."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from include.markets import files, queue
from include.markets.events import EventsStopped
from include.markets.publishing import MarketsHeld
from include.markets.queue import MarketsRefused
from include.markets.watching import watch_markets
from include.providers.http import Answer, Client
from include.warehouse.decisions import DecisionRefused, resolve
from tests.markets.playing import MarketPlay

DAY = 86_400


def test_a_market_that_is_only_entered_waits_for_the_engines_word(play: MarketPlay) -> None:
    later = play.market_id
    play.engine_changes(markets=0)
    register = create_engine(play.warehouse.register_url)
    with register.begin() as connection:
        connection.execute(
            text("INSERT INTO prediction.market (market_id, currency) VALUES (:id, 'EUR')"),
            {"id": later},
        )
    register.dispose()
    play.run()
    assert play.states() == {later: "entered"}
    play.engine_changes(markets=1)
    play.run()
    market = play.market(later)
    assert (market.state, market.entered_by, market.currency) == ("done", "sql", "EUR")
    [row] = play.rows("SELECT DISTINCT currency FROM core.settlement")
    assert row.currency == "EUR"


def test_a_person_may_confirm_what_no_event_tells(play: MarketPlay) -> None:
    engine = play.warehouse.engine
    play.engine_changes(events_kept_seconds=1e-6)
    assert queue.unconfirmed(engine, [play.market_id]) == [play.market_id]
    word = {"currency": "USD", "confirmed_by": "ann", "reason": "The match is over.", "run_id": "r"}
    assert queue.confirm(engine, [play.market_id], **word) == 1
    assert queue.unconfirmed(engine, [play.market_id]) == []
    play.run()
    market = play.market()
    assert market.state == "done"
    assert market.evidence == {
        "confirmed_by": "ann",
        "reason": "The match is over.",
        "run_id": "r",
    }
    # Said once more, it changes nothing.
    assert queue.confirm(engine, [play.market_id], **word) == 0
    with pytest.raises(MarketsRefused, match=r"\.\./x"):
        queue.confirm(engine, ["../x"], **word)


@pytest.mark.parametrize("is_included", [False, True])
def test_events_are_read_on_from_the_last_one_and_kept(play: MarketPlay, is_included: bool) -> None:
    play.engine_changes(markets=2, since_is_included=is_included)
    assert play.step("plan").entered == 2
    assert play.step("plan").entered == 0
    play.sandbox.advance("prediction", 1)
    assert play.step("plan").entered == 1
    [counted] = play.rows(
        "SELECT sum(landed) AS landed, sum(evidence_only) AS kept FROM ops.batch"
        " WHERE feed = 'events'"
    )
    assert (counted.landed, counted.kept) == (3, 3)
    assert len(play.states()) == 3


def test_events_that_were_not_read_for_a_day_are_a_gap_and_a_finding_warns_before(
    play: MarketPlay,
) -> None:
    play.step("plan")
    let_events_age(play, 19 * 3600)
    assert watch_markets(play.warehouse.engine, play.settings).opened != []
    assert "were last read to their end" in play.findings("events_closing")[0].summary
    let_events_age(play, 6 * 3600)
    play.step("plan")
    [gap] = play.rows("SELECT * FROM ops.gap")
    assert gap.feed == "events"
    assert len(play.findings("gap")) == 1
    assert len(watch_markets(play.warehouse.engine, play.settings).closed) == 1
    play.decide("gap", "accept_gap")
    play.step("plan")
    assert len(play.rows("SELECT FROM ops.gap")) == 1


def test_events_that_cannot_be_decoded_stop_the_events_and_no_market(play: MarketPlay) -> None:
    play.step("plan")
    play.sandbox.fault("prediction", "malformed_json", call="events")
    with pytest.raises(EventsStopped, match="cannot be decoded"):
        play.step("plan")
    play.run()
    assert play.market().state == "done"
    play.sandbox.advance("prediction", 1)
    assert play.step("plan").entered == 0
    play.decide("undecodable_page", "try_again")
    assert play.step("plan").entered == 1


def test_a_page_of_events_is_skipped_and_its_gap_read_again(play: MarketPlay) -> None:
    start = stop_events(play)
    decide(play, "undecodable_page", "skip_page")
    assert int(events_position(play)["since_id"]) > int(start)
    play.step("plan")
    assert len(play.states()) == 1
    decide(play, "gap", "try_again", continue_from=start)
    play.step("plan")
    assert len(play.states()) == 2
    assert events_position(play).keys() == {"since_id", "read_at"}
    # It stays a gap until a person sees that nothing is missing.
    assert [one.state for one in play.rows("SELECT state FROM ops.gap")] == ["open"]


def test_events_go_on_after_nothing_but_a_whole_number(play: MarketPlay) -> None:
    start = stop_events(play)
    for named in ("event-17", "1.5", "-1", "9" * 19):
        with pytest.raises(DecisionRefused, match="is no `sequence` of an event"):
            decide(play, "undecodable_page", "skip_page", continue_from=named)
    decide(play, "undecodable_page", "skip_page", continue_from=str(int(start) + 7))
    for named in ("event-17", str(int(start) + 7)):
        with pytest.raises(DecisionRefused):
            decide(play, "gap", "try_again", continue_from=named)
    with pytest.raises(DecisionRefused, match="Give in `continue_from`"):
        decide(play, "gap", "try_again")
    play.step("plan")


@pytest.mark.parametrize("changed", [{"marketId": "a b/c"}, {"marketId": None}, {"sequence": 1.5}])
def test_an_event_that_names_no_market_is_kept_and_asked_about_once(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    change_events(monkeypatch, lambda told: [one | changed for one in told])
    play.run()
    play.run()
    assert play.states() == {}
    [finding] = play.findings()
    assert finding.kind == "records_quarantined"
    [example] = finding.detail["examples"]
    assert "enter that market in the form of settle_markets" in example["reason"]
    [row] = play.rows("SELECT payload FROM raw.record_payload")
    told = json.loads(bytes(row.payload))
    assert told | changed == told
    play.decide("records_quarantined", "discard")
    play.run()
    assert play.findings() == []


def test_events_are_read_to_their_end_however_few_come_at_a_time(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.engine_changes(markets=5)
    change_events(monkeypatch, lambda told: told[:2])
    assert play.step("plan").has_reached_end
    assert len(play.states()) == 5


def test_events_that_do_not_begin_with_the_oldest_stop_before_any_is_passed_over(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.engine_changes(markets=5)
    with monkeypatch.context() as patch:
        change_events(patch, lambda told: told[::-1][:2])
        with pytest.raises(EventsStopped, match="older ones may be missing"):
            play.step("plan")
    assert play.states() == {}
    [finding] = play.findings()
    assert finding.kind == "undecodable_page"
    play.decide("undecodable_page", "try_again")
    assert play.step("plan").entered == 5


@pytest.mark.parametrize("is_included", [False, True])
def test_events_whose_sequence_begins_anew_are_read_from_their_start_and_are_a_gap(
    play: MarketPlay, monkeypatch: pytest.MonkeyPatch, is_included: bool
) -> None:
    play.engine_changes(markets=2, since_is_included=is_included)
    play.step("plan")
    let_events_age(play, 3600)
    play.step("plan")
    assert play.rows("SELECT FROM ops.gap") == []
    before = events_position(play)["since_id"]
    play.engine_changes(markets=4)
    begin_anew(monkeypatch)
    let_events_age(play, 3600)
    assert play.step("plan").entered == 2
    assert len(play.states()) == 4
    [gap] = play.rows("SELECT * FROM ops.gap")
    assert (gap.range_after, gap.state) == (before, "open")
    assert "its `sequence` has begun anew" in gap.reason
    assert len(play.findings("gap")) == 1
    assert events_position(play)["since_id"] == "4"
    let_events_age(play, 3600)
    play.step("plan")
    assert len(play.rows("SELECT FROM ops.gap")) == 1


def begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine count its events from 1."""
    get = Client.get

    def get_counted(client: Client, path: str, parameters: Any = None) -> Answer:
        if path != "/events":
            return get(client, path, parameters)
        since = parameters.pop("since", 0)
        answer = get(client, path, parameters)
        body = json.loads(answer.body)
        told = [one | {"sequence": n} for n, one in enumerate(body["data"]["events"], 1)]
        body["data"]["events"] = [one for one in told if one["sequence"] > since]
        return replace(answer, body=json.dumps(body).encode())

    monkeypatch.setattr(Client, "get", get_counted)


@pytest.mark.parametrize("is_withdrawn", [True, False])
def test_a_market_that_was_given_up_and_is_then_resolved_is_asked_about_once(
    play: MarketPlay, is_withdrawn: bool
) -> None:
    later = play.market_id
    play.engine_changes(markets=0, since_is_included=True)
    word = {"currency": None, "confirmed_by": "ann", "reason": "It is over.", "run_id": "r"}
    queue.confirm(play.warehouse.engine, [later], **word)
    play.run()
    if is_withdrawn:
        play.decide("market_refused", "withdraw")
    play.engine_changes(markets=1)
    play.run()
    [finding] = play.findings("market_refused")
    assert "and the engine has told since" in finding.summary
    assert play.market().evidence["confirmed_by"] == "ann"
    assert play.results() == ["rejected"]
    play.decide("market_refused", "withdraw")
    play.run()
    assert (play.states(), play.findings()) == ({later: "withdrawn"}, [])
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE prediction.market SET evidence = NULL"))
    play.run()
    play.decide("market_refused", "try_again")
    play.run()
    assert play.market().state == "done"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("prediction.txt", "m-1\n\nm-2\nm-1\n"),
        ("prediction.csv", "currency,market_id\nEUR,m-1\n,m-2\n"),
        ("prediction.ndjson", '{"market_id": "m-1"}\n{"market_id": "m-2", "currency": "EUR"}\n'),
    ],
)
def test_a_register_of_markets_is_entered_from_a_file(
    play: MarketPlay, tmp_path: Path, name: str, written: str
) -> None:
    path = tmp_path / name
    path.write_text(written)
    assert files.is_market_register(path)
    assert files.import_markets(play.warehouse.engine, path)["new"] == 2
    assert files.import_markets(play.warehouse.engine, path)["new"] == 0
    assert play.states() == {"m-1": "entered", "m-2": "entered"}


@pytest.mark.parametrize(
    "wrong", ["a b", "../x", "m,EUR,3", '{"market_id": 3}', "m,E", '{"currency": "EUR"}']
)
def test_a_register_with_a_line_that_names_no_market_enters_nothing(
    play: MarketPlay, tmp_path: Path, wrong: str
) -> None:
    path = tmp_path / "prediction.txt"
    path.write_text(f"m-1\n{wrong}\n")
    with pytest.raises(MarketsRefused, match=r"line 2 of prediction\.txt"):
        files.import_markets(play.warehouse.engine, path)
    assert play.states() == {}


# --- in which currency a market pays ------------------------------------------------------------


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_currency_that_a_person_or_a_file_tells_later_is_the_markets(
    play: MarketPlay, tmp_path: Path, is_listed: bool
) -> None:
    play.engine_changes(markets=3)
    play.change(prediction_default_currency=None)
    play.run() if is_listed else play.step("plan")
    engine, [first, second, third] = play.warehouse.engine, play.market_ids
    word = {"confirmed_by": "ann", "reason": "It pays in it.", "run_id": "r"}
    queue.confirm(engine, [first], currency="EUR", **word)
    queue.set_currency(engine, [second], "EUR")
    files.import_markets(engine, register(tmp_path, f"{third}\n{third},EUR\n{third}\n"))
    play.decide("market_held", "try_again")
    play.run()
    assert set(play.states().values()) == {"done"}
    assert {market.currency for market in map(play.market, play.market_ids)} == {"EUR"}
    [row] = play.rows("SELECT DISTINCT currency FROM core.settlement")
    assert row.currency == "EUR"


def test_a_currency_that_contradicts_what_is_known_enters_nothing(
    play: MarketPlay, tmp_path: Path
) -> None:
    engine = play.warehouse.engine
    files.import_markets(engine, register(tmp_path, "m-1,USD\n"))
    before = play.rows("SELECT * FROM prediction.market")
    word = {"confirmed_by": "ann", "reason": "It is over.", "run_id": "r"}
    told = r"1 of these markets have another currency .*: m-1 \(USD, not EUR\)\. They keep theirs"
    with pytest.raises(MarketsRefused, match=told):
        queue.confirm(engine, ["m-0", "m-1"], currency="EUR", **word)
    with pytest.raises(MarketsRefused, match=told):
        queue.set_currency(engine, ["m-1"], "EUR")
    with pytest.raises(MarketsRefused, match=told):
        files.import_markets(engine, register(tmp_path, "m-0,EUR\nm-1,EUR\n"))
    with pytest.raises(MarketsRefused, match="tells EUR of market m-0, and an earlier"):
        files.import_markets(engine, register(tmp_path, "m-0,USD\nm-0,EUR\n"))
    assert play.rows("SELECT * FROM prediction.market") == before


def test_a_currency_in_small_letters_is_not_taken_for_another_one(
    play: MarketPlay, tmp_path: Path
) -> None:
    engine = play.warehouse.engine
    told = "'usd' is not how a currency is written"
    word = {"confirmed_by": "ann", "reason": "It is over.", "run_id": "r"}
    with pytest.raises(MarketsRefused, match=told):
        queue.confirm(engine, ["m-0"], currency="usd", **word)
    with pytest.raises(MarketsRefused, match=told):
        files.import_markets(engine, register(tmp_path, "m-0,usd\n"))
    assert play.states() == {}
    assert files.import_markets(engine, register(tmp_path, "m-0,mBTC\n"))["new"] == 1


def test_a_currency_that_was_entered_in_small_letters_is_not_published(play: MarketPlay) -> None:
    register_engine = create_engine(play.warehouse.register_url)
    with register_engine.begin() as connection:
        connection.execute(
            text("INSERT INTO prediction.market (market_id, currency) VALUES (:id, 'usd')"),
            {"id": play.market_id},
        )
    register_engine.dispose()
    play.run()
    [finding] = play.findings("market_held")
    assert "entered as usd, which is not how currencies are written" in finding.summary
    assert play.payouts() == {}
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(text("UPDATE prediction.market SET currency = 'USD'"))
    play.decide("market_held", "try_again")
    play.run()
    assert play.market().state == "done"


def register(folder: Path, written: str) -> Path:
    path = folder / "prediction.csv"
    path.write_text(written)
    return path


def test_markets_that_nobody_goes_on_with_are_told_until_they_are(play: MarketPlay) -> None:
    engine, settings = play.warehouse.engine, play.settings
    play.step("plan")
    assert watch_markets(engine, settings).opened == []
    play.let_time_pass(settings.feed_late_seconds)
    [number] = watch_markets(engine, settings).opened
    assert "1 markets should have been gone on with" in play.findings("markets_late")[0].summary
    assert watch_markets(engine, settings).opened == []
    play.run()
    assert watch_markets(engine, settings).closed == [number]


def test_a_list_that_does_not_add_up_and_is_not_checked_is_told(play: MarketPlay) -> None:
    engine, settings = play.warehouse.engine, play.settings
    play.engine_changes(lies={"status.totalPayout": "5"})
    for step in ("plan", "settle", "wait_for_status", "fetch_payouts"):
        play.step(step)
    assert play.market().state == "fetched"
    play.let_time_pass(settings.feed_late_seconds)
    [number] = watch_markets(engine, settings).opened
    assert [one.kind for one in play.findings()] == ["markets_late"]
    with suppress(MarketsHeld):
        play.step("check")
    assert watch_markets(engine, settings).closed == [number]


def test_markets_that_nothing_confirms_are_told_once(play: MarketPlay, tmp_path: Path) -> None:
    path = tmp_path / "prediction.txt"
    path.write_text("m-1\n")
    files.import_markets(play.warehouse.engine, path)
    play.let_time_pass(play.settings.prediction_unconfirmed_days * DAY)
    assert len(watch_markets(play.warehouse.engine, play.settings).opened) == 1
    [finding] = play.findings("markets_unconfirmed")
    assert json.loads(json.dumps(finding.detail))["examples"] == ["m-1"]
    play.decide("markets_unconfirmed", "acknowledge")
    assert watch_markets(play.warehouse.engine, play.settings).opened == []


def stop_events(play: MarketPlay) -> str:
    """Have a second market resolved in a page that cannot be decoded; where the events stand."""
    play.step("plan")
    play.sandbox.advance("prediction", 1)
    play.sandbox.fault("prediction", "malformed_json", call="events")
    with pytest.raises(EventsStopped):
        play.step("plan")
    return str(events_position(play)["since_id"])


def events_position(play: MarketPlay) -> dict[str, Any]:
    [cursor] = play.rows("SELECT position FROM ops.cursor WHERE feed = 'events'")
    return dict(cursor.position)


def decide(play: MarketPlay, kind: str, decision: str, **parameters: Any) -> None:
    [finding] = play.findings(kind)
    resolve(
        play.warehouse.engine,
        finding.finding_id,
        decision,
        decided_by="ann",
        reason="so",
        reference=None,
        parameters=parameters,
        run_id=None,
    )


def change_events(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """Have the events told otherwise on their way here."""
    get = Client.get

    def get_changed(client: Client, path: str, *args: Any, **kwargs: Any) -> Answer:
        answer = get(client, path, *args, **kwargs)
        if path != "/events":
            return answer
        body = json.loads(answer.body)
        body["data"]["events"] = change(body["data"]["events"])
        return replace(answer, body=json.dumps(body).encode())

    monkeypatch.setattr(Client, "get", get_changed)


def let_events_age(play: MarketPlay, seconds: int) -> None:
    with play.warehouse.owner_engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE ops.cursor SET position = position || jsonb_build_object('read_at',"
                " (position ->> 'read_at')::timestamptz - :seconds * interval '1 second')"
            ),
            {"seconds": seconds},
        )
