"""tote's bets: listed once, asked for until they are final, and whatever comes between the two.

What every source keeps to is in `test_contract`, kills are in `test_kills`, and two runs at once in
`test_overlapping_runs`.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from include.catchup import bet_register
from include.catchup.acquiring import Landed, land
from include.catchup.bet_files import import_register
from include.catchup.log import PageStopped
from include.catchup.poll import Window, next_window
from include.catchup.sources import SOURCES
from include.catchup.watching import watch
from include.local.agreement import tote_disagreements
from include.providers import tote
from include.providers.errors import Fatal, ProviderError, Retriable
from include.quality.gates import BatchHeld, check_raw, check_settlements
from include.quality.normalizing import normalize
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse import records
from include.warehouse.database import transaction
from include.warehouse.decisions import DecisionRefused, resolve
from include.warehouse.landing import Landing
from include.warehouse.pages import ArrivedPage
from include.warehouse.publishing import publish
from tests.checker import violations
from tests.feeding import open_findings
from tests.sandboxes import tote_client
from tests.warehouses import Warehouse

SOURCE = SOURCES["tote"]
SETTINGS = Settings(
    read_attempts=1,
    retry_after_limit_seconds=0.2,
    tote_page_limit=25,
    tote_first_since_hours=24 * 80,
    # Bets are the sandbox's history: none is made while a test runs.
    tote_listing_lag_seconds=0,
    tote_listing_overlap_seconds=0,
)
# As if all bets there are had been made before the first run.
NOTHING_LISTED = SETTINGS.model_copy(update={"tote_first_since_hours": 1e-6})
DAY = 86_400.0
FEEDS = [(SOURCE.name, SOURCE.feed)]


@dataclass
class Desk:
    """A warehouse that follows the sandbox's bets."""

    sandbox: Sandbox
    warehouse: Warehouse

    def land(self, settings: Settings = SETTINGS) -> Landed:
        with closing(tote_client(self.sandbox, settings)) as client:
            return land(self.warehouse.engine, SOURCE, client, settings, "test")

    def publish(self, settings: Settings = SETTINGS) -> None:
        engine = self.warehouse.engine
        check_raw(engine, SOURCE.name)
        normalize(engine, SOURCE, settings)
        check_settlements(engine, SOURCE.name, settings)
        publish(engine, SOURCE.name)

    def rows(self, statement: str, **given: Any) -> list[Any]:
        with self.warehouse.owner_engine.begin() as connection:
            result = connection.execute(text(statement), given)
            return list(result) if result.returns_rows else []

    def make_due(self, condition: str = "true") -> None:
        """As if time had passed for all bets that are still asked for."""
        self.rows(f"UPDATE tote.bet SET next_ask_at = now() WHERE state <> 'done' AND {condition}")

    def enter(self, *tote_ids: str) -> None:
        """Enter bets as another system does."""
        self.rows(
            "INSERT INTO tote.bet (tote_id) SELECT unnest(CAST(:ids AS text[])) ON CONFLICT"
            " DO NOTHING",
            ids=list(tote_ids),
        )

    def findings(self, kind: str | None = None) -> list[Any]:
        with self.warehouse.owner_engine.connect() as connection:
            return open_findings(connection, kind)

    def finding(self, kind: str) -> Any:
        [finding] = self.findings(kind)
        return finding

    def decide(self, finding_id: int, decision: str) -> None:
        resolve(
            self.warehouse.engine,
            finding_id,
            decision,
            decided_by="anna",
            reason="tote was asked.",
            reference=None,
            parameters={},
            run_id=None,
        )

    def position(self) -> dict[str, Any]:
        [[position]] = self.rows("SELECT position FROM ops.cursor WHERE source = 'tote'")
        return dict(position)

    def asked(self) -> dict[str, int]:
        """How often the sandbox was asked, by what."""
        asked: dict[str, int] = self.sandbox.ledger("tote")["asked"]
        return asked

    def ids(self) -> list[str]:
        return [bet["tote_id"] for bet in self.sandbox.tote_bets()]

    def wrong(self) -> list[str]:
        with self.warehouse.owner_engine.connect() as connection:
            return violations(connection, SOURCE, settings=SETTINGS)


@pytest.fixture
def desk(sandbox: Sandbox, warehouse: Warehouse) -> Desk:
    # Only what a test lists or enters is there, unless it has more bets made.
    sandbox.configure("tote", bets=60, history_seconds=60 * DAY)
    return Desk(sandbox, warehouse)


# --- the whole way ------------------------------------------------------------------------------


def test_every_bet_comes_to_stand_as_the_ledger_says(desk: Desk) -> None:
    """Settled, settled again, cancelled afterwards, refunded: each change is a version."""
    desk.sandbox.configure("tote", bets=120, history_seconds=3600.0)
    for days in (0, 0.3, 1.5, 4, 30, 120):
        desk.sandbox.configure("tote", clock_offset_seconds=days * DAY)
        desk.make_due()
        assert desk.land().has_reached_end
    ledger, url = desk.sandbox.ledger("tote"), desk.warehouse.owner_url
    assert len(list(tote_disagreements(url, ledger))) == 4
    desk.publish()
    assert list(tote_disagreements(url, ledger)) == []
    assert desk.wrong() == []
    [[twice]] = desk.rows(
        "SELECT count(*) FROM core.settlement WHERE source = 'tote' AND is_correction"
    )
    assert twice > 0


def test_no_more_pages_are_held_at_once_than_fit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of bets that were told before hold hardly a record each."""
    pages = [_page_at(NOW, _node(f"b{number}", "PENDING", "PENDING")) for number in range(5)]
    landing = Landing(desk.warehouse.engine, "tote", "bets", "latest", "test")
    landing.add(*pages)
    batch = landing.close(has_reached_end=True)
    monkeypatch.setattr(records, "PAGES_BYTES_LIMIT", 2 * len(pages[0].body))
    with transaction(desk.warehouse.engine, "loader") as connection:
        parts = [
            [one.payload for one in part] for part in records.read_records(connection, batch, 4)
        ]
    assert [len(part) for part in parts] == [2, 2, 1]
    told = [json.loads(payload or b"")["toteId"] for part in parts for payload in part]
    assert told == [f"b{number}" for number in range(5)]


def test_finance_reads_what_was_returned_and_what_is_open(desk: Desk) -> None:
    desk.sandbox.configure("tote", bets=120, history_seconds=10 * DAY)
    desk.land()
    desk.publish()
    ledger = desk.sandbox.ledger("tote")
    returned = desk.rows(
        "SELECT currency, sum(bets - bets_without_payout) AS bets, sum(payout) AS payout,"
        " sum(refund) AS refund, sum(returned + refund + enhancement) AS parts"
        " FROM finance.tote_daily_return GROUP BY 1"
    )
    assert {row.currency: (row.bets, row.payout, row.refund, row.parts) for row in returned} == {
        currency: (
            told["bets"],
            *(Decimal(told[name]) for name in ("total", "refund", "total")),
        )
        for currency, told in ledger["sums"].items()
    }
    final = {"SETTLED", "REFUNDED"}
    still_open = Counter(
        bet["currency"]
        for bet in desk.sandbox.tote_bets()
        if bet["settlement"] not in final and bet["placement"] not in {"REJECTED", "FAILED"}
    )
    told = desk.rows(
        "SELECT age_group, currency, count(*) FROM finance.tote_bet_open GROUP BY 1, 2"
    )
    assert {(row[0], row[1]): row[2] for row in told} == {
        ("1 under a day", currency): count for currency, count in still_open.items()
    }


def test_an_answer_that_tells_nothing_new_lands_nothing_and_asks_again_later(desk: Desk) -> None:
    desk.land()
    before = desk.rows("SELECT tote_id, changed_at FROM tote.bet ORDER BY 1")
    desk.make_due()
    landed = desk.land()
    assert (landed.received, landed.duplicates, landed.landed) == (60, 60, 0)
    assert desk.rows("SELECT tote_id, changed_at FROM tote.bet ORDER BY 1") == before
    assert desk.rows("SELECT tote_id FROM tote.bet WHERE next_ask_at <= now()") == []


@given(data=st.data())
@hypothesis_settings(max_examples=4, deadline=None, phases=[Phase.generate])
def test_what_was_seen_last_counts_in_whichever_order_it_lands(
    shared_warehouse: Warehouse, sandbox_process: Sandbox, data: st.DataObject
) -> None:
    """A → B → A are three states, and one that lands late is kept and changes nothing.

    What two runs asked for at once is asked for once more, so the last look is the last to land.
    """
    example = sha256(repr(data.draw(st.integers(0, 10**9), "example")).encode()).hexdigest()[:8]
    states = ("PENDING/PENDING", "RESULTED/PENDING", "RESULTED/SETTLED", "CANCELLED/REFUNDED")
    began_at = datetime(2026, 11, 20, tzinfo=UTC)
    seen = {
        f"{example}x{number}": data.draw(st.lists(st.sampled_from(states), min_size=1, max_size=5))
        for number in range(4)
    }
    observed = [
        (began_at + timedelta(minutes=minutes), tote_id, state)
        for tote_id, told in seen.items()
        for minutes, state in enumerate(told)
    ]
    desk = Desk(sandbox_process, shared_warehouse)
    desk.enter(*seen)
    landing = Landing(shared_warehouse.engine, "tote", "bets", "latest", "test")
    last_look = [
        (began_at + timedelta(hours=1), tote_id, told[-1]) for tote_id, told in seen.items()
    ]
    in_disorder = data.draw(st.permutations(observed), "order of landing")
    for moment, tote_id, state in (*in_disorder, *last_look):
        landing.add(_page_at(moment, _node(tote_id, *state.split("/"))))
    landing.close(has_reached_end=True)
    desk.publish()
    current = {
        row.source_key: row.status
        for row in desk.rows("SELECT * FROM core.settlement WHERE is_current")
        if row.source_key in seen
    }
    meaning = dict(zip(states, ("open", "open", "settled", "cancelled"), strict=True))
    assert current == {tote_id: meaning[told[-1]] for tote_id, told in seen.items()}
    assert desk.wrong() == []


@pytest.mark.parametrize("arrival", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_decision_told_again_in_other_words_stays_on_the_day_it_was_seen_first(
    desk: Desk, warehouse: Warehouse, arrival: tuple[int, ...]
) -> None:
    desk.enter("b1")
    looks = {0: (1, "PENDING"), 1: (4, "RESULTED"), 2: (6, "RESULTED")}
    landing = Landing(warehouse.engine, "tote", "bets", "latest", "test")
    for number in arrival:
        day, resulting = looks[number]
        node = {**_node("b1", resulting, "SETTLED"), "id": f"look {number}"}
        landing.add(_page_at(datetime(2026, 11, day, tzinfo=UTC), node))
    landing.close(has_reached_end=True)
    desk.publish()
    statement = "SELECT settled_date, bets, payout FROM finance.tote_daily_return"
    assert desk.rows(statement) == [(date(2026, 11, 1), 1, 2)]
    assert len(desk.rows("SELECT FROM core.settlement")) == 3
    assert desk.wrong() == []
    landing = Landing(warehouse.engine, "tote", "bets", "latest", "test")
    landing.add(_page_at(datetime(2026, 11, 7, tzinfo=UTC), _node("b1", "CANCELLED", "REFUNDED")))
    landing.close(has_reached_end=True)
    desk.publish()
    assert [row.settled_date for row in desk.rows(statement)] == [date(2026, 11, 7)]
    assert desk.wrong() == []


def test_a_state_that_was_discarded_with_its_batch_counts_once_it_is_told_again(
    desk: Desk, warehouse: Warehouse
) -> None:
    """tote repeats how a bet stands: taken for a duplicate, it would stay open for good."""
    desk.enter("b1")

    def look(day: int, resulting: str, settlement: str, miscounted: int = 0) -> int:
        landing = Landing(warehouse.engine, "tote", "bets", "latest", "test")
        moment = datetime(2026, 11, day, tzinfo=UTC)
        page = _page_at(moment, _node("b1", resulting, settlement))
        landed = landing.add(replace(page, provider_count=1 + miscounted))
        landing.close(has_reached_end=True)
        return landed

    assert look(1, "PENDING", "PENDING") == 1
    desk.publish()
    assert look(2, "RESULTED", "SETTLED", miscounted=1) == 1
    with pytest.raises(BatchHeld):
        desk.publish()
    # While a person has not decided, nothing of it piles up.
    assert look(3, "RESULTED", "SETTLED") == 0
    desk.decide(desk.finding("batch_held").finding_id, "discard")

    assert look(4, "RESULTED", "SETTLED") == 1
    desk.publish()
    current = "SELECT status, settled_at FROM core.settlement WHERE is_current"
    assert desk.rows(current) == [("settled", datetime(2026, 11, 4, tzinfo=UTC))]
    assert look(5, "RESULTED", "SETTLED") == 0
    assert desk.findings() == []
    assert desk.wrong() == []


def _money(amount: str) -> dict[str, Any]:
    return {"currency": {"code": "GBP"}, "stringAmount": amount}


def _node(tote_id: str, resulting: str, settlement: str) -> dict[str, Any]:
    is_refund = settlement == "REFUNDED"
    returns = {
        "totalAmount": _money("2.00"),
        "returnAmount": _money("0.00" if is_refund else "2.00"),
        "refundAmount": _money("2.00" if is_refund else "0.00"),
        "enhancementAmount": _money("0.00"),
    }
    return {
        "toteId": tote_id,
        "placement": {"status": "ACCEPTED", "stake": _money("2.00")},
        "resulting": {"status": resulting, "returns": returns},
        "settlement": {"status": settlement},
    }


def _page_at(moment: datetime, *nodes: dict[str, Any]) -> ArrivedPage:
    body = json.dumps({"data": {"bets": {"nodes": list(nodes)}}}).encode()
    page = tote.read_page(body)
    return ArrivedPage(
        request="POST /gateway/graphql: bets",
        requested_at=moment,
        received_at=moment,
        body=body,
        http_status=200,
        content_type="application/json",
        records=[(one.record, one.content_sha256) for one in page.entries],
    )


# --- listing ------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_the_first_window_reaches_back_as_far_as_the_setting_says() -> None:
    window = next_window({}, NOW, tote.PERIOD_LIMIT, Settings(tote_first_since_hours=48))
    assert window == Window(NOW - timedelta(hours=48), NOW - timedelta(seconds=60))


def test_a_window_begins_an_overlap_before_and_is_never_longer_than_tote_allows() -> None:
    position = {"listed_until": (NOW - timedelta(days=200)).isoformat()}
    window = next_window(position, NOW, tote.PERIOD_LIMIT, Settings())
    since = NOW - timedelta(days=200, seconds=900)
    assert window == Window(since, since + timedelta(days=90))


def test_a_window_under_way_is_finished_first() -> None:
    window = Window(NOW, NOW + timedelta(days=1), "cursor", 25, {"GBP": Decimal("12.50")})
    stored = json.loads(json.dumps({"listed_until": "…", "window": window.to_json()}))
    assert next_window(stored, NOW, tote.PERIOD_LIMIT, Settings()) == window


def test_a_long_list_goes_on_in_the_next_run_where_it_stopped(desk: Desk) -> None:
    # A quarter of four pages is for the list: one page a run.
    settings = SETTINGS.model_copy(update={"land_pages_limit": 4})
    for counted in (25, 50):
        assert not desk.land(settings).has_reached_end
        assert desk.position()["window"]["counted"] == counted
    desk.land(settings)
    assert desk.asked()["by_period"] == 3
    assert len(desk.rows("SELECT FROM tote.bet WHERE entered_by = 'listing'")) == 60
    assert "window" not in desk.position()


def test_bets_that_were_made_since_are_listed_from_there_on(desk: Desk) -> None:
    desk.land()
    listed_until = desk.position()["listed_until"]
    desk.sandbox.advance("tote", 5)
    assert (landed := desk.land()).landed == 5
    assert landed.received == 5
    assert desk.position()["listed_until"] > listed_until


def test_a_window_that_does_not_add_up_is_listed_anew(desk: Desk) -> None:
    desk.sandbox.fault(
        "tote", "changed_answer", after_calls=2, path="data.bets.totalCount", value=61
    )
    assert not desk.land().has_reached_end
    finding = desk.finding("listing_incomplete")
    assert "61 bets" in finding.summary
    assert "listed 60" in finding.summary
    assert desk.position() == {}
    assert desk.land().has_reached_end
    assert desk.findings() == []
    assert "listed_until" in desk.position()
    assert desk.asked()["by_period"] == 6


def test_a_window_that_never_adds_up_is_skipped_by_a_decision_and_listed_again_by_another(
    desk: Desk,
) -> None:
    desk.sandbox.fault(
        "tote", "changed_answer", after_calls=2, path="data.bets.totalCount", value=61
    )
    desk.land()
    finding = desk.finding("listing_incomplete")
    desk.decide(finding.finding_id, "skip_window")
    assert desk.position() == {"listed_until": finding.detail["until"]}
    gap = desk.finding("gap")
    assert desk.land().received == 0
    with pytest.raises(DecisionRefused, match="is closed already"):
        desk.decide(finding.finding_id, "skip_window")
    desk.decide(gap.finding_id, "try_again")
    landed = desk.land()
    assert (landed.received, landed.has_reached_end) == (60, True)
    assert desk.position()["listed_until"] > finding.detail["until"]


def test_money_that_does_not_add_up_is_told_once_and_holds_nothing_up(desk: Desk) -> None:
    wrong = {"currency": {"code": "GBP"}, "stringAmount": "0.01"}
    desk.sandbox.fault(
        "tote", "changed_answer", times=None, path="data.bets.totalStakes", value=wrong
    )
    assert desk.land().has_reached_end
    finding = desk.finding("totals_differ")
    assert "0.01 GBP as totalStakes" in finding.summary
    desk.decide(finding.finding_id, "acknowledge")
    desk.sandbox.advance("tote", 1)
    assert desk.land().has_reached_end
    assert desk.findings() == []


def test_a_place_in_the_list_that_is_refused_is_forgotten(desk: Desk) -> None:
    desk.sandbox.fault("tote", "graphql_errors", after_calls=1, code="BAD_USER_INPUT")
    with pytest.raises(Fatal):
        desk.land()
    assert desk.position() == {}
    assert desk.land().has_reached_end
    assert len(desk.rows("SELECT FROM tote.bet")) == 60


def test_a_place_in_the_list_that_keeps_failing_is_forgotten(desk: Desk) -> None:
    """As one that has expired does, with an error like any other."""
    desk.sandbox.fault("tote", "graphql_errors", after_calls=1, times=3)
    for failures in (1, 2):
        with pytest.raises(Retriable):
            desk.land()
        assert desk.position()["window"]["failures"] == failures
    with pytest.raises(Retriable):
        desk.land()
    assert desk.position() == {}
    assert desk.land().has_reached_end
    assert len(desk.rows("SELECT FROM tote.bet")) == 60


# --- asking -------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    passed=st.floats(0, 400 * DAY),
    more=st.floats(0, 400 * DAY),
    share=st.sampled_from([bet_register.OPEN_SHARE, bet_register.FINAL_SHARE]),
)
def test_a_bet_is_asked_for_less_and_less_often_within_bounds(
    passed: float, more: float, share: float
) -> None:
    settings = Settings()
    young, old = (
        bet_register.wait_before_asking(timedelta(seconds=seconds), share, settings)
        for seconds in (passed, passed + more)
    )
    assert timedelta(seconds=300) <= young <= old <= timedelta(hours=6)


def test_a_final_bet_is_looked_at_for_some_days_after_its_last_change() -> None:
    entered_at, changed_at = NOW - timedelta(days=90), NOW - timedelta(days=3)
    settings = Settings(tote_settled_days=7)
    waits = []
    now: datetime | None = changed_at
    while now is not None:
        waits.append(now - changed_at)
        now = bet_register.next_ask(now, entered_at, changed_at, settings, is_final=True)
    assert waits[-1] == timedelta(days=7)
    assert max(b - a for a, b in pairwise(waits)) == timedelta(hours=6)
    assert len(waits) == 40


def test_as_many_due_bets_are_asked_for_at_once_as_tote_allows(desk: Desk) -> None:
    """2 500 are 10 questions; 100 000 are 400, and take no more memory."""
    desk.sandbox.configure("tote", bets=2500, history_seconds=60 * DAY)
    desk.enter(*desk.ids())
    before = desk.asked()["by_id"]
    landed = desk.land(NOTHING_LISTED)
    assert desk.asked()["by_id"] - before == 10
    assert (landed.received, landed.landed, landed.has_reached_end) == (2500, 2500, True)
    assert desk.rows("SELECT FROM tote.bet WHERE next_ask_at <= now()") == []
    assert desk.land(NOTHING_LISTED).received == 0


def test_hinted_bets_go_first_then_those_that_have_waited_longest(desk: Desk) -> None:
    desk.enter("young", "old", "hinted late", "hinted early", "alone", "not due")
    desk.rows(
        "UPDATE tote.bet SET next_ask_at = now() + CASE tote_id WHEN 'old' THEN '-1 day'"
        " WHEN 'not due' THEN '1 day' ELSE '-1 minute' END::interval,"
        " hinted_at = now() - CASE tote_id WHEN 'hinted early' THEN interval '1 hour'"
        " WHEN 'hinted late' THEN interval '1 minute' END,"
        " is_asked_alone = tote_id = 'alone'"
    )
    claims = []
    while (claim := bet_register.claim(desk.warehouse.engine, 3, SETTINGS)).tote_ids:
        claims.append(set(claim.tote_ids))
    assert claims == [{"hinted early", "hinted late", "old"}, {"young"}, {"alone"}]


def test_a_bet_to_be_asked_for_alone_is_not_kept_waiting_by_others(desk: Desk) -> None:
    alone, other, *_ = desk.ids()
    desk.enter(alone, other)
    desk.rows("UPDATE tote.bet SET is_asked_alone = true WHERE tote_id = :alone", alone=alone)
    assert not desk.land(NOTHING_LISTED.model_copy(update={"land_pages_limit": 1})).has_reached_end
    assert desk.rows("SELECT tote_id FROM tote.bet WHERE answered_at IS NOT NULL") == [(alone,)]


@pytest.mark.parametrize("code", ["BAD_USER_INPUT", "INTERNAL_SERVER_ERROR"])
def test_a_bet_for_which_tote_fails_is_left_for_later_and_holds_up_no_others(
    desk: Desk, code: str
) -> None:
    ids = desk.ids()
    bad = [ids[0], *ids[-2:]]
    failing = {"tote_ids": bad, "code": code, "message": "no such thing"}
    desk.sandbox.fault("tote", "graphql_errors", times=None, **failing)
    desk.enter(*ids)
    before = desk.asked()["by_id"]
    assert desk.land(NOTHING_LISTED).has_reached_end
    assert desk.asked()["by_id"] - before <= 37
    left = desk.rows(
        "SELECT *, next_ask_at - now() AS wait FROM tote.bet WHERE answered_at IS NULL"
    )
    assert {row.tote_id for row in left} == {*bad}
    for row in left:
        assert timedelta(hours=5.9) < row.wait <= timedelta(hours=6)
        assert "no such thing" in row.refusal
    watch(desk.warehouse.engine, FEEDS, NOTHING_LISTED)
    finding = desk.finding("bets_absent")
    assert (finding.detail["bets"], finding.detail["refused"]) == (3, 3)
    assert ids[0] in finding.summary
    assert "no such thing" in finding.summary
    desk.sandbox.forget_faults()
    desk.make_due()
    assert desk.land(NOTHING_LISTED).has_reached_end
    assert desk.rows("SELECT FROM tote.bet WHERE is_asked_alone OR refusal IS NOT NULL") == []
    watch(desk.warehouse.engine, FEEDS, NOTHING_LISTED)
    assert desk.findings("bets_absent") == []
    assert desk.wrong() == []


def test_nobody_is_left_for_later_while_tote_fails_for_everything(desk: Desk) -> None:
    desk.enter(*desk.ids()[:2])
    desk.sandbox.fault("tote", "graphql_errors", times=None)
    with pytest.raises(Retriable):
        desk.land()
    assert len(desk.rows("SELECT FROM tote.bet WHERE next_ask_at <= now()")) == 2
    assert desk.rows("SELECT FROM tote.bet WHERE absent_since IS NOT NULL") == []
    desk.sandbox.forget_faults()
    assert desk.land().has_reached_end


def test_what_a_killed_run_had_claimed_comes_due_again(desk: Desk) -> None:
    desk.enter("claimed")
    claim = bet_register.claim(desk.warehouse.engine, 250, Settings())
    assert bet_register.claim(desk.warehouse.engine, 250, Settings()).tote_ids == []
    [[wait]] = desk.rows("SELECT next_ask_at - :at FROM tote.bet", at=claim.claimed_at)
    # Four attempts of 30 s and the longest waits between them, and a minute.
    assert wait == timedelta(seconds=4 * (30 + 60) + 60)


def test_a_hint_that_came_after_the_question_has_the_bet_asked_for_again(desk: Desk) -> None:
    [tote_id] = desk.ids()[:1]
    desk.enter(tote_id)
    claim = bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    desk.rows("UPDATE tote.bet SET hinted_at = clock_timestamp(), next_ask_at = now()")
    told = bet_register.Told(tote_id, None, b"digest")
    with transaction(desk.warehouse.engine, "loader") as connection:
        bet_register.note(connection, [told], [], claim.claimed_at, SETTINGS)
    again = bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    assert again.tote_ids == [tote_id]
    with transaction(desk.warehouse.engine, "loader") as connection:
        bet_register.note(connection, [told], [], again.claimed_at, SETTINGS)
    [[hinted_at, is_due]] = desk.rows("SELECT hinted_at, next_ask_at <= now() FROM tote.bet")
    assert (hinted_at, is_due) == (None, False)


def test_of_two_answers_to_overlapping_questions_neither_is_taken_for_the_newer(
    desk: Desk,
) -> None:
    desk.enter("bet")
    first = bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    desk.make_due()
    bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    with transaction(desk.warehouse.engine, "loader") as connection:
        told = [bet_register.Told("bet", None, b"digest")]
        bet_register.note(connection, told, [], first.claimed_at, SETTINGS)
    [[answered_at, is_due]] = desk.rows("SELECT answered_at, next_ask_at <= now() FROM tote.bet")
    assert (answered_at, is_due) == (None, True)


def test_a_bet_that_another_answer_has_ended_is_asked_for_once_more_if_they_overlap(
    desk: Desk,
) -> None:
    desk.enter("bet")
    first = bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    desk.make_due()
    bet_register.claim(desk.warehouse.engine, 1, SETTINGS)
    desk.rows("UPDATE tote.bet SET state = 'done', next_ask_at = NULL")
    with transaction(desk.warehouse.engine, "loader") as connection:
        told = [bet_register.Told("bet", None, b"digest")]
        bet_register.note(connection, told, [], first.claimed_at, SETTINGS)
    assert desk.rows("SELECT state, next_ask_at <= now() FROM tote.bet") == [("final", True)]


def test_bets_that_tote_does_not_know_are_told_until_it_does_or_they_are_given_up(
    desk: Desk,
) -> None:
    known, *_ = desk.ids()
    desk.enter(known, "mistyped", "ÿ €", "x" * 128)
    desk.land()
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    finding = desk.finding("bets_absent")
    assert finding.detail["bets"] == 3
    assert "mistyped" in finding.detail["examples"]
    desk.decide(finding.finding_id, "give_up")
    assert {row.tote_id for row in desk.rows("SELECT * FROM tote.bet WHERE state = 'done'")} == {
        *("mistyped", "ÿ €", "x" * 128)
    }
    desk.rows("UPDATE tote.bet SET absent_since = now() WHERE tote_id = :known", known=known)
    assert watch(desk.warehouse.engine, FEEDS, SETTINGS).opened == [
        desk.finding("bets_absent").finding_id
    ]
    desk.make_due()
    desk.land()
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    assert desk.findings("bets_absent") == []


def test_a_bet_that_was_given_up_is_asked_for_again_once_a_file_names_it_again(
    desk: Desk, tmp_path: Path
) -> None:
    known, done, *_ = desk.ids()
    path = tmp_path / "tote-bets.txt"
    path.write_text(f"{known}\n{done}\nmistyped\n")
    import_register(desk.warehouse.engine, path)
    desk.land()
    desk.rows("UPDATE tote.bet SET state = 'done', next_ask_at = NULL WHERE tote_id = :i", i=done)
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    desk.decide(desk.finding("bets_absent").finding_id, "give_up")

    before = desk.asked()
    again = import_register(desk.warehouse.engine, path)
    assert (again.new, again.same) == (1, 2)
    assert import_register(desk.warehouse.engine, path).new == 0
    is_due = "SELECT tote_id FROM tote.bet WHERE state = 'open' AND next_ask_at <= now()"
    assert desk.rows(is_due) == [("mistyped",)]
    desk.land()
    assert desk.asked() != before
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    assert desk.finding("bets_absent").detail["examples"] == ["mistyped"]


def test_a_bet_that_stays_open_for_weeks_is_told_until_it_is_final(desk: Desk) -> None:
    desk.land()
    desk.rows("UPDATE tote.bet SET entered_at = now() - interval '31 days'")
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    [[still_open]] = desk.rows("SELECT count(*) FROM tote.bet WHERE state = 'open'")
    assert desk.finding("bets_open_long").detail["bets"] == still_open
    desk.sandbox.configure("tote", clock_offset_seconds=120 * DAY)
    desk.make_due()
    desk.land()
    watch(desk.warehouse.engine, FEEDS, SETTINGS)
    assert desk.findings("bets_open_long") == []


def test_a_status_that_nobody_knows_is_quarantined_and_its_bet_asked_for_again(
    desk: Desk,
) -> None:
    ids = desk.ids()[:3]
    desk.enter(*ids)
    desk.sandbox.fault("tote", "changed_answer", after_calls=1)
    desk.land(NOTHING_LISTED)
    desk.publish()
    [[reason]] = desk.rows("SELECT reason FROM ops.quarantine WHERE state = 'open'")
    assert "REGRADED" in reason
    [odd] = desk.rows("SELECT * FROM tote.bet WHERE settlement IS NULL")
    assert (odd.state, odd.placement) == ("open", None)
    desk.make_due()
    desk.land(NOTHING_LISTED)
    desk.publish()
    assert desk.wrong() == []
    assert desk.rows("SELECT * FROM tote.bet WHERE settlement IS NULL") == []


# --- answers that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("graphql_errors", {}),
        ("graphql_errors", {"with_data": True}),
        ("partial_data", {}),
        ("partial_data", {"field": "settlement"}),
        ("status", {"status": 429, "retry_after": "0"}),
        ("reset_in_body", {}),
    ],
)
def test_an_answer_that_failed_advances_nothing_and_is_asked_for_again(
    desk: Desk, fault: str, parameters: dict[str, Any]
) -> None:
    desk.sandbox.fault("tote", fault, **parameters)
    with pytest.raises(Retriable):
        desk.land()
    assert desk.rows("SELECT * FROM tote.bet") == []
    assert desk.position() == {}
    desk.land()
    desk.make_due()
    told = "SELECT tote_id, answered_at, changed_at, state FROM tote.bet ORDER BY 1"
    before = desk.rows(told)
    # The list is asked for first, and has nothing new.
    desk.sandbox.fault("tote", fault, after_calls=1, times=None, **parameters)
    with pytest.raises(Retriable):
        desk.land()
    desk.sandbox.forget_faults()
    assert desk.rows(told) == before
    [[due, asked]] = desk.rows(
        "SELECT count(*) FILTER (WHERE next_ask_at <= now()), count(asked_at) FROM tote.bet"
    )
    assert (due, asked) == (60, 60)
    assert desk.land().has_reached_end
    desk.publish()
    assert desk.wrong() == []


def test_bets_are_asked_for_though_they_cannot_be_listed(desk: Desk) -> None:
    desk.enter(*desk.ids()[:3])
    desk.sandbox.fault("tote", "graphql_errors", code="BAD_USER_INPUT")
    with pytest.raises(Fatal):
        desk.land()
    assert len(desk.rows("SELECT FROM tote.bet WHERE answered_at IS NOT NULL")) == 3


def test_an_answer_with_a_hole_stops_the_feed_until_a_person_decides(desk: Desk) -> None:
    desk.land()
    desk.make_due("tote_id IN (SELECT tote_id FROM tote.bet ORDER BY tote_id LIMIT 3)")
    before = desk.rows("SELECT tote_id, answered_at FROM tote.bet ORDER BY 1")
    desk.sandbox.fault("tote", "null_nodes", after_calls=1)
    with pytest.raises(PageStopped):
        desk.land()
    finding = desk.finding("undecodable_answer")
    assert len(finding.detail["tote_ids"]) == 3
    assert desk.rows("SELECT tote_id, answered_at FROM tote.bet ORDER BY 1") == before
    asked = desk.asked()
    assert desk.land().note.startswith("Nothing was asked for: the feed waits")
    assert desk.asked() == asked
    assert desk.wrong() == []
    desk.decide(finding.finding_id, "try_again")
    assert desk.land().has_reached_end
    assert desk.asked()["by_id"] == asked["by_id"] + 1


def test_bets_of_a_skipped_answer_are_asked_for_one_by_one_and_then_left(desk: Desk) -> None:
    desk.land()
    three = desk.ids()[:3]
    desk.rows("UPDATE tote.bet SET next_ask_at = now() WHERE tote_id = ANY(:ids)", ids=three)
    desk.sandbox.fault("tote", "null_nodes", after_calls=1)
    with pytest.raises(PageStopped):
        desk.land()
    desk.decide(desk.finding("undecodable_answer").finding_id, "skip_page")
    desk.sandbox.fault("tote", "null_nodes", after_calls=2)
    with pytest.raises(PageStopped):
        desk.land()
    finding = desk.finding("undecodable_answer")
    [alone] = finding.detail["tote_ids"]
    desk.decide(finding.finding_id, "skip_page")
    before = desk.asked()["by_id"]
    assert desk.land().has_reached_end
    # One was told before the answer that stopped, and one is left.
    assert desk.asked()["by_id"] == before + 1
    [left] = desk.rows("SELECT * FROM tote.bet WHERE is_asked_alone")
    assert left.tote_id == alone
    assert left.next_ask_at > datetime.now(UTC) + timedelta(hours=23)
    desk.decide(desk.finding("gap").finding_id, "try_again")
    assert desk.land().has_reached_end
    assert desk.rows("SELECT * FROM tote.bet WHERE is_asked_alone") == []
    assert desk.wrong() == []


def test_a_page_of_the_list_that_cannot_be_read_is_skipped_with_its_window(desk: Desk) -> None:
    desk.sandbox.fault("tote", "null_nodes", after_calls=1)
    with pytest.raises(PageStopped):
        desk.land()
    finding = desk.finding("undecodable_answer")
    assert desk.position()["window"]["counted"] == 25
    desk.decide(finding.finding_id, "skip_page")
    assert desk.position() == {"listed_until": finding.detail["until"]}
    [gap] = desk.rows("SELECT * FROM ops.gap")
    assert (gap.range_after, gap.range_before) == (finding.detail["since"], finding.detail["until"])
    assert desk.land().has_reached_end
    position = desk.position()
    # A gap that is listed again in vain stays one, and the list goes on.
    desk.decide(desk.finding("gap").finding_id, "try_again")
    desk.sandbox.fault("tote", "null_nodes")
    with pytest.raises(PageStopped):
        desk.land()
    desk.decide(desk.finding("undecodable_answer").finding_id, "skip_page")
    assert desk.position() == position
    assert [row.state for row in desk.rows("SELECT state FROM ops.gap")] == ["open"]
    assert desk.land().has_reached_end
    assert desk.wrong() == []


def test_a_slow_answer_is_given_up_and_asked_for_in_the_next_run(desk: Desk) -> None:
    desk.sandbox.fault("tote", "silence", after_calls=1)
    impatient = SETTINGS.model_copy(update={"call_deadline_seconds": 1.0})
    with pytest.raises(ProviderError):
        desk.land(impatient)
    assert desk.land().has_reached_end
    assert len(desk.rows("SELECT FROM tote.bet")) == 60
