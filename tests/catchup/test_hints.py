"""Sessions at tote's socket, the sandbox's real one: what is kept of what it hints at, what that
does to the bets it names, and what becomes of a hint once GraphQL was asked.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text
from websockets.protocol import OPEN, Protocol, Side

from include.catchup import hints
from include.catchup.confirming import Observation, agrees, confirm, is_shown
from include.catchup.hints import Heard, listen
from include.catchup.sources import TOTE
from include.catchup.watching import Watched, watch
from include.providers.errors import Fatal, Retriable
from include.providers.http import Account
from include.providers.tote import (
    PONG_FRAME,
    SUBPROTOCOLS,
    SUBSCRIPTIONS,
    HintFeed,
    Standing,
    standing,
)
from include.sandbox.addresses import TOTE_KEY
from include.sandbox.app import FAULTS_OF_STREAMS, FAULTS_OF_TOTE
from include.sandbox.client import Sandbox
from include.sandbox.tote_bets import ROW
from include.settings import Settings
from include.warehouse.decisions import DecisionRefused, resolve
from tests.checker import secrets_are_nowhere
from tests.hint_checker import hint_violations
from tests.killing import Moment, Point, Task, When, Worker, run_and_kill
from tests.playing import run_tasks, tasks_of
from tests.providers.test_streams import Peer, framed, peer
from tests.providers.test_tote_socket import address_of, speaking
from tests.warehouses import Warehouse

PATIENCE_SECONDS = 20.0
SETTINGS = Settings(tote_listen_seconds=PATIENCE_SECONDS, land_commit_seconds=0.05)
HOUR = 3600.0
BETS = 9
"""Of the sandbox's first script: accepted, resulted and settled within four hours."""
HINTS = 3 * BETS
PAID = ("SETTLED", "REFUNDED")
COURSE = ("BetAccepted", "BetResulted", "BetSettled")
# How much later than its bound something may end on a busy machine.
SLACK = 5.0
WAYS: tuple[str | None, ...] = (None, *SUBPROTOCOLS)


@dataclass
class Listener:
    """A warehouse, and tote as its socket is listened to."""

    sandbox: Sandbox
    warehouse: Warehouse
    settings: Settings = SETTINGS
    passed_seconds: float = 0.0

    def use(self, **changes: Any) -> None:
        """Change the settings."""
        self.settings = self.settings.model_copy(update=changes)

    def configure(self, **changes: Any) -> None:
        """Change how the sandbox behaves."""
        self.sandbox.configure("tote", **changes)

    def fault(self, kind: str, **parameters: Any) -> None:
        """Spoil the next connection."""
        self.sandbox.fault("tote", kind, call="hints", **parameters)

    def happen(self, bets: int = BETS, hours: float = 4.0) -> None:
        """Bets are placed, and so much time passes at once."""
        self.sandbox.advance("tote", bets)
        self.passed_seconds += hours * HOUR
        self.configure(clock_offset_seconds=self.passed_seconds)

    def forget_bets(self, seed: int = 1) -> None:
        """The next bets are the first ones, by other ids."""
        self.configure(seed=seed, bets=0)

    def listen(self, *, is_by_hand: bool = False) -> Heard:
        """One run's `listen`."""
        return listen_into(
            self.warehouse.engine, self.sandbox, self.settings, is_by_hand=is_by_hand
        )

    @contextmanager
    def session(self, messages: int, connections: int = 1) -> Iterator[Future[Heard]]:
        """A session that ends with so many messages; the block begins when it is subscribed."""
        self.use(tote_listen_messages=messages)
        with ThreadPoolExecutor(1) as other:
            running = other.submit(self.listen)
            self.wait_until_heard(running)
            yield running
            running.result(PATIENCE_SECONDS)

    def wait_until_heard(self, running: Future[Heard] | None = None) -> None:
        """Until a connection is there that everything is told to from now on."""
        until(lambda: (running is not None and running.done()) or self._is_heard())

    def _is_heard(self) -> bool:
        visits = self.sandbox.tote_connections()
        last = visits[-1] if visits else {"ended": "never begun"}
        if last["ended"] is not None:
            return False
        return last["subprotocol"] is None or last["subscriptions"] == 6

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        with self.warehouse.owner_engine.connect() as connection:
            return list(connection.execute(text(sql), parameters))

    @property
    def task(self) -> Task:
        """A session as a task for another process."""
        return Task("listen", lambda engine: listen_into(engine, self.sandbox, self.settings))

    def wrong(self) -> list[str]:
        """What the checker finds."""
        with self.warehouse.owner_engine.connect() as connection:
            return [*hint_violations(connection), *secrets_are_nowhere(connection, [TOTE_KEY])]

    def ask(self) -> None:
        """One run of everything else."""
        clock = {
            "tote_listing_lag_seconds": -self.passed_seconds,
            "tote_first_since_hours": 24.0 * 89,
        }
        tasks = tasks_of(TOTE, self.sandbox, self.settings.model_copy(update=clock), "test")
        run_tasks(tasks, self.warehouse.engine)

    def disagreements(self) -> list[Any]:
        """Bets that are not settled as they are at tote."""
        there = {
            (bet["tote_id"], bet["total"] if bet["settlement"] in PAID else None)
            for bet in self.sandbox.tote_bets()
        }
        here = {
            (row.source_key, None if row.payout is None else f"{row.payout:.2f}")
            for row in self.rows("SELECT * FROM core.settlement WHERE is_current")
        }
        return sorted(there ^ here, key=str)

    def decide(self, finding_id: int, decision: str) -> None:
        resolve(
            self.warehouse.engine,
            finding_id,
            decision,
            decided_by="anna",
            reason="It was looked at.",
            reference=None,
            parameters={},
            run_id=None,
        )

    def let_leases_run_out(self) -> None:
        self.change("UPDATE ops.lease SET expires_at = clock_timestamp()")

    def visits(self) -> int:
        """How many connections tote has seen."""
        return len(self.sandbox.tote_connections())

    def is_visited(self, times: int) -> bool:
        return self.visits() >= times

    def counts(self) -> Counter[str]:
        """How many rows there are of what a session leaves behind."""
        tables = ("raw.record", "tote.hint", "ops.quarantine", "ops.finding")
        return Counter({table: self.count(table) for table in tables})

    def count(self, rows: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {rows}")[0][0])

    def change(self, sql: str) -> None:
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(text(sql))


def listen_into(
    engine: Engine, sandbox: Sandbox, settings: Settings, *, is_by_hand: bool = False
) -> Heard:
    feed = HintFeed(Account(sandbox.tote_url, TOTE_KEY), settings)
    return listen(engine, feed, settings, "test", is_by_hand=is_by_hand)


def until(is_so: Callable[[], object]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at, "it did not become so"
        time.sleep(0.01)


@pytest.fixture
def listener(sandbox: Sandbox, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Listener:
    monkeypatch.setattr(hints, "_FIRST_WAIT_SECONDS", 0.05)
    listener = Listener(sandbox, warehouse)
    listener.configure(clock_stopped_at=datetime.now(UTC).isoformat(), bets=0, ping_seconds=60)
    return listener


# --- a session ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_every_message_is_kept_as_evidence_and_its_bet_is_to_be_asked_about(
    listener: Listener, way: str | None
) -> None:
    listener.configure(subprotocols=[way] if way else [], ping_seconds=0.02)
    with listener.session(HINTS) as running:
        listener.happen()
        heard = running.result(PATIENCE_SECONDS)
    assert heard == Heard(1, 1, HINTS, HINTS, f"{HINTS} messages were heard over 1 connections.")
    [visit] = listener.sandbox.tote_connections()
    assert (visit["subprotocol"], visit["ended"]) == (way, "client 1000")
    [batch] = listener.rows("SELECT * FROM ops.batch")
    assert (batch.feed, batch.kind, batch.state) == ("hints", "evidence", "published")
    assert (batch.received, batch.landed, batch.evidence_only) == (HINTS, HINTS, HINTS)
    # A number for finance comes from the bets alone.
    assert listener.rows("SELECT * FROM finance.feed_completeness") == []
    bets = {bet["tote_id"]: bet["total"] for bet in listener.sandbox.tote_bets()}
    told = listener.rows("SELECT * FROM tote.hint JOIN raw.record_payload USING (record_id)")
    assert Counter(hint.message_type for hint in told) == dict.fromkeys(COURSE, BETS)
    # No message stands between two states of its bet.
    assert {hint.record_key for hint in told} == {f"hint/{tote_id}" for tote_id in bets}
    for hint in told:
        assert hint.tote_id.encode() in bytes(hint.payload)
        if hint.message_type != "BetAccepted":
            assert hint.return_amount == Decimal(bets[hint.tote_id])
    due = listener.rows("SELECT * FROM tote.bet WHERE next_ask_at <= now() AND hinted_at <= now()")
    assert {(bet.tote_id, bet.entered_by, bet.state) for bet in due} == {
        (tote_id, "hint", "open") for tote_id in bets
    }


def test_a_hint_at_a_bet_that_is_known_brings_it_to_the_front(listener: Listener) -> None:
    """Also at one that was done with, which is looked at again."""
    listener.happen(bets=3, hours=0)
    ids = [bet["tote_id"] for bet in listener.sandbox.tote_bets()]
    states = ("open", "final", "done")
    for tote_id, state in zip(ids, states, strict=True):
        later = "NULL" if state == "done" else "now() + interval '6 hours'"
        listener.change(
            "INSERT INTO tote.bet (tote_id, state, next_ask_at)"
            f" VALUES ('{tote_id}', '{state}', {later})"
        )
    with listener.session(3):
        listener.happen(bets=0, hours=0.1)
    bets = listener.rows("SELECT *, next_ask_at = hinted_at AS is_due FROM tote.bet ORDER BY 1")
    assert [(bet.state, bet.entered_by, bet.is_due) for bet in bets] == [
        ("open", "sql", True),
        ("final", "sql", True),
        ("final", "sql", True),
    ]


def test_hints_are_there_before_the_session_is_over(listener: Listener) -> None:
    with listener.session(HINTS) as running:
        listener.happen(hours=0.1)
        until(lambda: listener.count("tote.hint") == BETS)
        assert not running.done()
        assert listener.rows("SELECT state FROM ops.batch") == [("landing",)]
        listener.happen(bets=0)


def test_a_session_is_bounded_in_time_in_bytes_and_by_nothing_to_hear(listener: Listener) -> None:
    listener.use(tote_listen_seconds=0.3)
    began = time.monotonic()
    assert listener.listen() == Heard(1, 1, 0, 0, "0 messages were heard over 1 connections.")
    assert 0.3 <= time.monotonic() - began < 0.3 + SLACK
    listener.use(tote_listen_seconds=PATIENCE_SECONDS, tote_listen_by_hand_seconds=0.1)
    began = time.monotonic()
    assert listener.listen(is_by_hand=True).connections == 1
    assert 0.1 <= time.monotonic() - began < 0.1 + SLACK
    listener.use(tote_listen_seconds=PATIENCE_SECONDS, land_bytes_limit=1)
    with listener.session(HINTS) as running:
        listener.happen()
        assert running.result(PATIENCE_SECONDS).messages == 1
    assert listener.rows("SELECT DISTINCT state FROM ops.batch") == [("published",)]


# --- faults -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A fault behind seven hints of 27: how many messages are heard and landed all the same, and
    how many of these are held back.
    """

    kind: str
    heard: int = HINTS
    landed: int = HINTS
    held_back: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)


ODD_TEXTS = ["", " ", "[]", '{"a":\n1}', "no\nhint", '{"MessageType":"PoolOpened"}']
CASES = [
    Case("dropped_hint", heard=24, landed=24, parameters={"messages": 3}),
    Case("repeated_hint", heard=31, parameters={"copies": 3, "messages": 2}),
    Case("reordered_hints", parameters={"messages": 15}),
    Case("wrong_amount", parameters={"messages": None}),
    Case("foreign_messages", 30, 30, held_back=3, parameters={"texts": ODD_TEXTS}),
    Case("malformed_message", held_back=1),
    Case("recoded_message", held_back=1),
    Case("binary_message"),
    Case("fragmented_message", parameters={"messages": None}),
    Case("dripping_messages", parameters={"seconds": 0.0, "messages": 2}),
    Case("flooded_stream", parameters={"pings": 500}),
]


def test_a_fault_of_messages_costs_them_alone(listener: Listener) -> None:
    for seed, case in enumerate(CASES):
        listener.forget_bets(seed)
        before = listener.counts()
        listener.fault(case.kind, after_messages=7, **case.parameters)
        with listener.session(case.heard) as running:
            listener.happen()
            heard = running.result(PATIENCE_SECONDS)
        assert (heard.connections, heard.landed) == (1, case.landed), case
        assert listener.counts() - before == Counter(
            {
                "raw.record": case.landed,
                "tote.hint": case.landed - case.held_back,
                "ops.quarantine": case.held_back,
                "ops.finding": bool(case.held_back),
            }
        )
        assert listener.wrong() == []


def test_a_message_that_cannot_be_read_is_never_tried_as_a_settlement(listener: Listener) -> None:
    """A replay would make a feed of the hints, of which no number could ever be trusted."""
    listener.fault("malformed_message", after_messages=7)
    with listener.session(HINTS) as running:
        listener.happen()
        running.result(PATIENCE_SECONDS)
    [finding_id] = listener.rows("SELECT finding_id FROM ops.finding WHERE state = 'open'")[0]
    with pytest.raises(DecisionRefused, match=r"is evidence.* Decide discard to close it"):
        listener.decide(finding_id, "replay")
    assert listener.rows("SELECT FROM ops.batch WHERE kind = 'replay'") == []
    listener.decide(finding_id, "discard")
    assert listener.rows("SELECT FROM ops.finding WHERE state = 'open'") == []
    assert listener.rows("SELECT FROM finance.feed_completeness WHERE feed = 'hints'") == []
    assert listener.wrong() == []


# A reset may take with it what was not read yet.
ENDS = {
    "closed_stream": 7,
    "dropped_stream": 7,
    "broken_frame": 7,
    "truncated_frame": 7,
    "reset_stream": 0,
}


def test_a_fault_that_ends_the_connection_costs_what_is_told_until_the_next(
    listener: Listener,
) -> None:
    for seed, (kind, after) in enumerate(ENDS.items()):
        listener.forget_bets(2 * seed)
        hints_before, visits_before = listener.count("tote.hint"), listener.visits()
        listener.fault(kind, after_messages=after)
        with listener.session(after + HINTS):
            if after:
                listener.happen()
            until(partial(listener.is_visited, visits_before + 2))
            listener.wait_until_heard()
            listener.forget_bets(2 * seed + 1)
            listener.happen()
        assert listener.count("tote.hint") - hints_before == after + HINTS, kind
        assert listener.visits() - visits_before == 2
    assert listener.wrong() == []


def test_every_fault_of_the_socket_is_tried() -> None:
    of_values = {"changed_value", "raw_value", "left_out_value", "other_message", "slow_messages"}
    of_answers = {"graphql_errors", "partial_data", "null_nodes", "changed_answer", "wrong_total"}
    tried_apart = {"stalled_stream", "stalled_frame", "oversize_message"}
    same = {"duplicated_message"}
    tried = (
        {case.kind for case in CASES} | ENDS.keys() | tried_apart | same | of_values | of_answers
    )
    assert tried == FAULTS_OF_STREAMS.keys() | FAULTS_OF_TOTE.keys()


def test_a_socket_that_falls_silent_is_left_when_the_session_is_over(listener: Listener) -> None:
    """On a busy machine it may be over before it hears anything: then it is given more time."""
    for kind in ("stalled_stream", "stalled_frame"):
        listener.sandbox.forget_faults()
        listener.fault(kind, after_messages=7, times=None)
        seconds, messages = 0.5, 0
        with news_all_the_time(listener):
            while messages < 7 and seconds < 60:
                listener.use(tote_listen_seconds=seconds)
                messages, seconds = listener.listen().messages, 2 * seconds
        assert messages == 7
    assert listener.wrong() == []


def test_who_pings_is_answered(listener: Listener) -> None:
    """It says something only then."""

    def script(one: Peer) -> None:
        heard = Protocol(Side.SERVER, state=OPEN)
        one.connection.sendall(framed(b'{"type":"connection_ack"}') + framed(b'{"type":"ping"}'))
        while PONG_FRAME not in [getattr(each, "data", b"") for each in heard.events_received()]:
            heard.receive_data(one.received())
        one.connection.sendall(framed(b'{"MessageType":"BetAccepted","BetId":"b1"}'))

    listener.use(tote_listen_messages=1)
    with peer(speaking(script)) as place:
        feed = HintFeed(Account(address_of(place), TOTE_KEY), listener.settings)
        assert listen(listener.warehouse.engine, feed, listener.settings, "test").landed == 1


def frame(kind: str, name: str) -> str:
    return json.dumps({"type": kind, "id": name, "payload": [{"message": "no"}]})


def test_a_type_of_message_that_tote_refuses_to_tell_costs_itself_alone(listener: Listener) -> None:
    listener.fault("foreign_messages", texts=[frame("error", "BetFailed")], after_messages=7)
    with listener.session(HINTS) as running:
        listener.happen()
        assert running.result(PATIENCE_SECONDS).note.endswith("tote refuses to tell of BetFailed.")


def test_when_every_type_is_refused_it_says_how_to_do_without(listener: Listener) -> None:
    texts = [frame("error", name) for name in SUBSCRIPTIONS]
    listener.fault("foreign_messages", texts=texts, after_messages=7)
    refused = pytest.raises(Fatal, match=r"SETTLEMENTS_TOTE_SUBPROTOCOLS=\[\]")
    with refused, listener.session(HINTS):
        listener.happen()
    assert listener.count("tote.hint") == 7


def test_a_subscription_that_tote_ends_is_begun_anew(listener: Listener) -> None:
    texts = [frame("complete", "BetSettled")]
    listener.fault("foreign_messages", texts=texts, after_messages=7)
    with listener.session(7 + HINTS) as running:
        listener.happen()
        until(lambda: listener.is_visited(2))
        listener.wait_until_heard()
        listener.forget_bets()
        listener.happen()
        assert running.result(PATIENCE_SECONDS).connections == 2


def test_a_message_that_is_too_large_stops_the_session_and_what_came_before_stays(
    listener: Listener,
) -> None:
    listener.fault("oversize_message", after_messages=7, size=4 * 2**20 + 1)
    too_large = pytest.raises(Fatal, match="SETTLEMENTS_STREAM_MESSAGE_LIMIT_BYTES")
    with too_large, listener.session(HINTS):
        listener.happen()
    assert listener.count("tote.hint") == 7
    assert listener.wrong() == []


# --- connecting ---------------------------------------------------------------------------------


def test_a_socket_that_nobody_can_connect_to_is_tried_all_the_time_and_then_told(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """After waits that double, of a twentieth of a second at first."""
    caplog.set_level(logging.INFO, "include.catchup.hints")
    listener.use(tote_listen_seconds=0.6)
    listener.fault("status", status=503, times=None)
    with pytest.raises(Retriable, match="503"):
        listener.listen()
    waits = re.findall(r"The next connection is made in (\S+) s", caplog.text)
    assert waits
    assert waits == ["0.05", "0.1", "0.2", "0.4"][: len(waits)]
    assert listener.rows("SELECT state, landed FROM ops.batch") == [("published", 0)]


def test_what_was_heard_is_there_before_it_is_connected_to_again(listener: Listener) -> None:
    listener.use(land_commit_seconds=PATIENCE_SECONDS)
    listener.fault("closed_stream", after_messages=7)
    listener.fault("status", status=503, times=None)
    with listener.session(7 + HINTS) as running:
        listener.happen()
        until(lambda: listener.count("tote.hint") == 7)
        assert not running.done()
        listener.sandbox.forget_faults()
        listener.wait_until_heard()
        listener.forget_bets()
        listener.happen()


def test_a_wait_that_tote_asks_for_is_waited_or_the_session_over(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "include.catchup.hints")
    listener.use(tote_listen_seconds=0.2)
    listener.fault("status", status=429, retry_after="60")
    with pytest.raises(Retriable, match="It allows no connection now"):
        listener.listen()
    assert "The next connection is made in 60 s." in caplog.text
    assert len(listener.sandbox.calls()["recent"]) == 1


def test_a_refused_key_ends_the_session_at_once_and_what_was_heard_stays(
    listener: Listener,
) -> None:
    listener.fault("closed_stream", after_messages=7)
    listener.fault("status", status=403)
    refused = pytest.raises(Fatal, match="the password of the Airflow connection `tote`")
    with refused, listener.session(HINTS):
        listener.happen()
    assert listener.count("tote.hint") == 7
    assert listener.wrong() == []


def test_a_second_run_leaves_the_socket_to_the_first(listener: Listener) -> None:
    with listener.session(HINTS) as first:
        listener.use(tote_listen_seconds=0.2)
        second = listener.listen()
        assert second.batch_id is None
        assert "tote/socket is held by test" in second.note
        assert len(listener.sandbox.tote_connections()) == 1
        listener.happen()
        assert first.result(PATIENCE_SECONDS).landed == HINTS


def test_who_has_lost_its_lease_hangs_up_even_if_nothing_is_said(listener: Listener) -> None:
    listener.use(stream_lease_seconds=0.9, tote_listen_seconds=3 * PATIENCE_SECONDS)
    with listener.session(HINTS) as running:
        listener.change("UPDATE ops.lease SET epoch = epoch + 1")
        heard = running.result(PATIENCE_SECONDS)
    assert heard.batch_id is None
    assert "Another process holds tote/socket since" in heard.note
    until(lambda: {one["ended"] for one in listener.sandbox.tote_connections()} == {"client 1000"})


def test_a_run_that_has_died_is_waited_for_as_long_as_its_lease_lasts(listener: Listener) -> None:
    listener.change(
        "INSERT INTO ops.lease (name, epoch, holder, acquired_at, expires_at)"
        " VALUES ('tote/socket', 1, 'dead', now(), clock_timestamp() + interval '0.3 seconds')"
    )
    with listener.session(BETS):
        listener.happen(hours=0.1)
    assert listener.count("tote.hint") == BETS


# --- kills --------------------------------------------------------------------------------------

POINTS = [
    "listen 1 (leases._try_to_take)",
    "listen 2 (landing.__init__)",
    "listen 3 (landing.add)",
    "listen 4 (landing.add)",
    "listen 5 (landing.add)",
    "listen 6 (landing.close)",
    "listen 7 (leases._extend)",
]


@contextmanager
def news_all_the_time(listener: Listener) -> Iterator[None]:
    """Bets are placed and accepted every few milliseconds."""
    over = threading.Event()

    def go_on() -> None:
        with Sandbox(listener.sandbox.base_url) as own:
            news = replace(listener, sandbox=own)
            while not over.wait(0.005):
                news.happen(bets=1, hours=0.01)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def short(listener: Listener) -> Listener:
    """Sessions of three commits, five hints each."""
    listener.use(
        tote_listen_messages=15, land_commit_records=5, land_commit_seconds=PATIENCE_SECONDS
    )
    return listener


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_session_killed_at_any_commit_leaves_nothing_half_done(
    short: Listener, when: When
) -> None:
    with news_all_the_time(short):
        with Worker(short.warehouse.pipelines_url, [short.task]) as worker:
            assert worker.wait() == "finished", worker.error()
            points = [point for point in worker.points() if point.kind == "commit"]
        assert [str(point) for point in points] == POINTS
        for point in points:
            moment = Moment(when, point)
            assert run_and_kill(short.warehouse.pipelines_url, [short.task], moment) == (
                "killed",
                str(point),
            )
            short.let_leases_run_out()
            assert short.wrong() == []
        assert short.listen().landed == 15
    assert short.wrong() == []
    assert short.count("ops.batch WHERE state <> 'published'") == 0


def test_a_session_that_was_frozen_writes_nothing_once_another_has_taken_its_place(
    short: Listener,
) -> None:
    moment = Moment("after", Point("listen", 4))
    url = short.warehouse.pipelines_url
    with news_all_the_time(short), Worker(url, [short.task], moment, signal.SIGSTOP) as frozen:
        assert frozen.wait() == "frozen"
        short.let_leases_run_out()
        assert short.listen().landed == 15
        kept = short.count("tote.hint")
        frozen.go_on()
        assert frozen.wait() == "finished", frozen.error()
    assert short.count("tote.hint") == kept
    assert short.wrong() == []
    assert short.count("ops.batch WHERE state <> 'published'") == 0


# --- what GraphQL says --------------------------------------------------------------------------

PLACED = {"placement": "PLACED", "resulting": "PENDING", "settlement": "PENDING"}
STANDINGS = {
    "placed": {},
    "accepted": {"placement": "ACCEPTED"},
    "rejected": {"placement": "REJECTED"},
    "failed": {"placement": "FAILED"},
    "cancelled": {"placement": "CANCELLED"},
    "cancelled in its result": {"placement": "ACCEPTED", "resulting": "CANCELLED"},
    "resulted": {"placement": "ACCEPTED", "resulting": "RESULTED"},
    "settled": {"placement": "ACCEPTED", "resulting": "RESULTED", "settlement": "SETTLED"},
    "refunded": {"placement": "ACCEPTED", "settlement": "REFUNDED"},
}
LATER = {"settled", "refunded", "cancelled", "cancelled in its result"}
SHOWN_BY = {
    "BetAccepted": {"accepted", "resulted", *LATER},
    "BetRejected": {"rejected"},
    "BetFailed": {"failed"},
    "BetCancelled": {"cancelled", "cancelled in its result"},
    "BetResulted": {"resulted", *LATER},
    "BetSettled": {"settled", "refunded"},
    "BetReopened": set(STANDINGS),
}


def stands(name: str, total: str | None = None, returned: str | None = None) -> Standing:
    """How a bet stands, by the words of it."""
    words = PLACED | STANDINGS[name]
    node = {
        "toteId": "b1",
        "placement": {"status": words["placement"]},
        "resulting": {
            "status": words["resulting"],
            "returns": {"totalAmount": money(total), "returnAmount": money(returned)},
        },
        "settlement": {"status": words["settlement"]},
    }
    told = standing(json.dumps(node).encode())
    assert told is not None
    return told


def money(amount: str | None) -> dict[str, Any] | None:
    return amount and {"currency": {"code": "GBP"}, "stringAmount": amount}


@pytest.mark.parametrize("message_type", SHOWN_BY)
def test_a_bet_shows_what_a_message_says_once_it_is_as_far_or_further(message_type: str) -> None:
    shown = {name for name in STANDINGS if is_shown(message_type, stands(name))}
    assert shown == SHOWN_BY[message_type]


@pytest.mark.parametrize(
    ("hinted", "total", "returned", "is_so"),
    [
        ("10", "10.00", None, True),
        ("10", "12.50", "10.00", True),
        ("10", "12.50", "12.50", False),
        ("0", "10.00", "10.00", False),
        ("0.1", None, None, True),
        (None, "10.00", "10.00", True),
    ],
)
def test_an_amount_agrees_with_the_total_or_with_what_is_left_without_refund_and_enhancement(
    hinted: str | None, total: str | None, returned: str | None, is_so: bool
) -> None:
    amount = None if hinted is None else Decimal(hinted)
    assert agrees(amount, stands("settled", total, returned)) == is_so


@dataclass
class Register:
    """A warehouse in which a bet waits that is asked about in a day, and hints at it."""

    warehouse: Warehouse

    def hint(self, message_type: str, amount: str | None = None, minutes_ago: float = 0) -> None:
        """A message came, and the bet was asked about since."""
        self.change(
            "INSERT INTO tote.hint (record_id, tote_id, message_type, return_amount, received_at)"
            " VALUES ((SELECT count(*) FROM tote.hint), 'b1', :message_type, :amount,"
            " now() - :ago * interval '1 minute')",
            message_type=message_type,
            amount=amount,
            ago=minutes_ago,
        )

    def see(self, told: Standing) -> None:
        """An answer tells the bet."""
        with self.warehouse.engine.begin() as connection:
            connection.execute(text("SET LOCAL ROLE loader"))
            confirm(connection, [Observation("b1", told, datetime.now(UTC))], SETTLINGS)

    def change(self, sql: str, **parameters: Any) -> None:
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(text(sql), parameters)

    def rows(self, sql: str) -> list[Any]:
        with self.warehouse.owner_engine.connect() as connection:
            return list(connection.execute(text(sql)))

    def verdicts(self) -> list[tuple[bool, bool]]:
        """Of each hint, whether it was confirmed and whether it differs."""
        rows = self.rows("SELECT confirmed_at, differs FROM tote.hint ORDER BY hint_id")
        return [(row.confirmed_at is not None, row.differs) for row in rows]

    def minutes_until_asked(self) -> float:
        [row] = self.rows(
            "SELECT extract(epoch FROM next_ask_at - now()) / 60 AS minutes FROM tote.bet"
        )
        return float(row.minutes)

    def findings(self, kind: str) -> list[Any]:
        return self.rows(f"SELECT * FROM ops.finding WHERE kind = '{kind}' AND state = 'open'")


SETTLINGS = Settings(tote_hint_confirm_minutes=30)
WAITS, CONFIRMED, DIFFERS = (False, False), (True, False), (True, True)


@pytest.fixture
def register(warehouse: Warehouse) -> Register:
    register = Register(warehouse)
    register.change(
        "INSERT INTO tote.bet (tote_id, next_ask_at, asked_at)"
        " VALUES ('b1', now() + interval '1 day', now())"
    )
    return register


def test_a_hint_that_is_not_shown_yet_has_its_bet_asked_about_again_before_long(
    register: Register,
) -> None:
    register.hint("BetSettled", "10")
    register.see(stands("resulted", "10"))
    assert register.verdicts() == [WAITS]
    assert 4 < register.minutes_until_asked() <= 5
    register.change("UPDATE tote.bet SET state = 'done', next_ask_at = NULL")
    register.see(stands("resulted", "10"))
    assert 4 < register.minutes_until_asked() <= 5
    register.see(stands("settled", "10"))
    assert register.verdicts() == [CONFIRMED]


def test_after_half_an_hour_it_is_asked_about_as_usual(register: Register) -> None:
    register.hint("BetSettled", "10", minutes_ago=31)
    register.see(stands("resulted", "10"))
    assert register.verdicts() == [WAITS]
    assert register.minutes_until_asked() > 1000


def test_another_amount_may_be_an_earlier_settlement_for_half_an_hour_and_then_differs(
    register: Register,
) -> None:
    register.hint("BetSettled", "10", minutes_ago=29)
    register.see(stands("settled", "15"))
    assert register.verdicts() == [WAITS]
    register.change("UPDATE tote.hint SET received_at = received_at - interval '2 minutes'")
    register.see(stands("settled", "15"))
    assert register.verdicts() == [DIFFERS]
    [finding] = register.findings("hints_differ")
    assert finding.severity == "warning"
    assert "about 1 settled bets" in finding.summary
    assert finding.detail == {
        "count": 1,
        "examples": [{"tote_id": "b1", "hinted": "10", "told": "15"}],
    }
    assert register.rows("SELECT finding_id FROM tote.hint") == [(finding.finding_id,)]
    assert len(register.rows("SELECT * FROM ops.alert")) == 1


def test_more_amounts_that_differ_join_the_finding_until_it_is_acknowledged(
    register: Register,
) -> None:
    for count in (1, 2):
        register.hint("BetSettled", "10", minutes_ago=31)
        register.see(stands("settled", "15"))
        [finding] = register.findings("hints_differ")
        assert finding.detail["count"] == count
    resolve(
        register.warehouse.engine,
        finding.finding_id,
        "acknowledge",
        decided_by="anna",
        reason="tote was asked",
        reference=None,
        parameters={},
        run_id=None,
    )
    register.hint("BetSettled", "10", minutes_ago=31)
    register.see(stands("settled", "15"))
    [newer] = register.findings("hints_differ")
    assert (newer.finding_id, newer.detail["count"]) != (finding.finding_id, 3)


def test_only_the_last_amount_of_several_settlements_counts(register: Register) -> None:
    for amount in ("10", "0", "10"):
        register.hint("BetSettled", amount, minutes_ago=31)
    register.see(stands("settled", "10"))
    assert register.verdicts() == [CONFIRMED, CONFIRMED, CONFIRMED]


def test_the_record_that_confirmed_a_hint_is_the_bet_as_it_was_told(listener: Listener) -> None:
    with listener.session(HINTS):
        listener.happen()
    listener.ask()
    rows = listener.rows(
        "SELECT record_key, hint.tote_id, count(*) OVER () AS hints FROM tote.hint"
        " JOIN raw.record ON record.record_id = confirmed_by_record_id"
    )
    assert {row.record_key == row.tote_id for row in rows} == {True}
    assert rows[0].hints == HINTS
    assert listener.rows("SELECT DISTINCT hinted_at FROM tote.bet") == [(None,)]


def test_what_is_not_confirmed_in_time_is_a_finding_that_closes_itself(register: Register) -> None:
    def watched() -> Watched:
        return watch(register.warehouse.engine, [], SETTLINGS)

    register.hint("BetCancelled", minutes_ago=29)
    register.see(stands("settled", "10"))
    assert watched() == Watched([], [])
    register.change("UPDATE tote.hint SET received_at = received_at - interval '2 minutes'")
    opened = watched().opened
    [finding] = register.findings("hints_unconfirmed")
    assert opened == [finding.finding_id]
    assert "in 1 messages, such as b1 BetCancelled" in finding.summary
    assert watched() == Watched([], [])
    register.see(stands("cancelled"))
    assert watched() == Watched([], [finding.finding_id])


def test_a_hint_about_which_nobody_has_asked_is_the_late_feed_s_matter(register: Register) -> None:
    register.change("UPDATE tote.bet SET asked_at = now() - interval '1 hour'")
    register.hint("BetCancelled", minutes_ago=59)
    assert watch(register.warehouse.engine, [], SETTLINGS) == Watched([], [])


# --- the whole way ------------------------------------------------------------------------------


def test_a_hint_that_comes_before_graphql_knows_is_confirmed_when_it_does(
    listener: Listener,
) -> None:
    listener.configure(graphql_lags_seconds=3 * HOUR)
    with listener.session(HINTS):
        listener.happen()
    listener.ask()
    assert listener.count("tote.hint WHERE confirmed_at IS NULL") == HINTS - BETS
    assert listener.count("tote.bet WHERE next_ask_at <= now() + interval '5 minutes'") == BETS
    listener.configure(graphql_lags_seconds=0)
    listener.change("UPDATE tote.bet SET next_ask_at = now()")
    listener.ask()
    assert listener.count("tote.hint WHERE confirmed_at IS NULL") == 0
    assert listener.disagreements() == []


def test_wrong_amounts_never_reach_a_settlement(listener: Listener) -> None:
    listener.fault("wrong_amount", messages=None)
    with listener.session(HINTS):
        listener.happen()
    listener.ask()
    assert listener.disagreements() == []
    assert listener.count("tote.hint WHERE confirmed_at IS NULL") == BETS


def test_whoever_loses_every_message_loses_nothing(listener: Listener) -> None:
    """The socket lets nobody in, all the time, and every bet is settled as it is at tote."""
    listener.fault("status", status=503, times=None)
    listener.use(tote_listen_seconds=0.1)
    for hours in (4.0, 2 * 24.0, 22 * 24.0):
        listener.happen(bets=ROW, hours=hours)
        with pytest.raises(Retriable, match="503"):
            listener.listen()
        listener.change("UPDATE tote.bet SET next_ask_at = now() WHERE state <> 'done'")
        listener.ask()
    assert listener.count("raw.record") > 3 * ROW
    assert listener.disagreements() == []
