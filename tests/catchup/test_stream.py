"""Sessions of odds88's stream against the sandbox's real WebSocket: what a run lands, where the
next one begins, and what the provider sees of it.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.catchup.acquiring import Landed, land
from include.catchup.position import Position
from include.catchup.sources import SOURCES, Source
from include.catchup.watching import watch
from include.providers.errors import Fatal, ProviderError, Retriable, StreamEnded
from include.providers.odds88 import Feed, PageEntry, Token, read_message
from include.providers.streams import Socket
from include.sandbox.app import FAULTS_OF_STREAMS
from include.sandbox.client import Sandbox
from include.settings import Settings
from tests.feeding_bets import bet, message
from tests.killing import Moment, Point, Task, Worker
from tests.playing import SETTINGS, Play, run_tasks, with_ample_budgets
from tests.sandboxes import odds88_feed, odds88_messages
from tests.warehouses import Warehouse

SOURCE = SOURCES["odds88"]
QUICK = {"ping_seconds": 0.02, "log_ins_a_second": 1000, "attempts_a_window": 10**6}
PATIENCE_SECONDS = 20.0
# The commit of the first messages: the connection is open, and more of them are to come.
AMID = Point("land", 6, function="landing.add")


@dataclass
class Listener:
    """A warehouse, and odds88 as it is read into it, within ample budgets unless told otherwise."""

    sandbox: Sandbox
    warehouse: Warehouse
    source: Source = field(default_factory=lambda: with_ample_budgets(SOURCE))
    settings: Settings = SETTINGS

    def use(self, **changes: Any) -> None:
        """Change the settings."""
        self.settings = self.settings.model_copy(update=changes)

    def configure(self, **changes: Any) -> None:
        """Change how the sandbox behaves."""
        self.sandbox.configure("odds88", **changes)

    def fault(self, kind: str, **parameters: Any) -> None:
        """Spoil the next connection."""
        self.sandbox.fault("odds88", kind, call="settlements", **parameters)

    def land(self) -> Landed:
        """One run's `land`."""
        return land_into(self.warehouse.engine, self.sandbox, self.source, self.settings)

    @property
    def task(self) -> Task:
        """The same as a task for another process."""
        return Task(
            "land", lambda engine: land_into(engine, self.sandbox, self.source, self.settings)
        )

    def rows(self, sql: str) -> list[Any]:
        with self.warehouse.owner_engine.connect() as connection:
            return list(connection.execute(text(sql)))

    def count(self, rows: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {rows}")[0][0])

    def change(self, sql: str, **parameters: Any) -> None:
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(text(sql), parameters)

    def position(self) -> Position:
        return Position.from_json(self.rows("SELECT position FROM ops.cursor")[0].position)

    def move(self, **changes: datetime) -> None:
        """As if the stream stood elsewhere."""
        told = json.dumps({name: moment.isoformat() for name, moment in changes.items()})
        self.change("UPDATE ops.cursor SET position = position || CAST(:told AS jsonb)", told=told)

    def let_leases_run_out(self) -> None:
        self.change("UPDATE ops.lease SET expires_at = clock_timestamp()")

    def let_windows_pass(self) -> None:
        """As if the last connections had been long ago."""
        self.let_pass(timedelta(days=2))

    def let_pass(self, passed: timedelta) -> None:
        """As if so much time had passed since the last connections."""
        self.change(
            "UPDATE ops.connect_attempt SET attempted_at = attempted_at - :passed,"
            " ended_at = ended_at - :passed",
            passed=passed,
        )

    def endings(self) -> list[str | None]:
        """How each connection ended, in order."""
        ended = self.rows("SELECT ending FROM ops.connect_attempt ORDER BY attempt_id")
        return [attempt.ending for attempt in ended]

    def missing(self) -> int:
        """How many of the provider's messages are not in raw; none of them is there twice."""
        landed = self.rows("SELECT content_sha256 FROM raw.record")
        digests = {bytes(record.content_sha256) for record in landed}
        assert len(digests) == len(landed)
        sent = [read_message(one.encode()).content for one in odds88_messages(self.sandbox)]
        return sum(isinstance(o, PageEntry) and o.content_sha256 not in digests for o in sent)

    def seen(self) -> dict[str, Any]:
        """What the provider has seen of us."""
        return self.sandbox.ledger("odds88")


def land_into(engine: Engine, sandbox: Sandbox, source: Source, settings: Settings) -> Landed:
    with closing(odds88_feed(sandbox, settings)) as feed:
        return land(engine, source, feed, settings, "test")


def until(is_so: Callable[[], object]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at, "it did not become so"
        time.sleep(0.01)


@pytest.fixture
def listener(sandbox: Sandbox, warehouse: Warehouse) -> Listener:
    listener = Listener(sandbox, warehouse)
    listener.configure(messages=60, history_seconds=600, **QUICK)
    return listener


# --- a session ----------------------------------------------------------------------------------


def test_a_session_reads_history_to_its_end_and_closes_in_order(listener: Listener) -> None:
    landed = listener.land()
    assert (landed.landed, landed.duplicates, landed.has_reached_end) == (60, 2, True)
    assert landed.note == "62 messages were read; the provider has nothing more."
    assert listener.missing() == 0
    assert listener.endings() == ["caught_up"]
    [attempt] = listener.sandbox.odds88_attempts()
    assert (attempt["kind"], attempt["ended"]) == ("without", "client 1000")
    [feed] = listener.rows("SELECT completed_at FROM ops.cursor")
    assert feed.completed_at is not None


def test_the_next_one_begins_an_overlap_before_what_it_has_read(listener: Listener) -> None:
    listener.use(stream_overlap_seconds=60.0)
    listener.land()
    reached = listener.position().caught_up_to
    assert reached is not None
    listener.sandbox.advance("odds88", 5)
    again = listener.land()
    assert (again.landed, listener.missing()) == (5, 0)
    first, second = listener.sandbox.odds88_attempts()
    assert (first["revision"], second["kind"]) == ("0", "proper")
    assert int(second["revision"]) == int((reached - timedelta(seconds=60)).timestamp())
    batches = listener.rows("SELECT cursor_before, cursor_after FROM ops.batch ORDER BY batch_id")
    assert batches[0] == (None, str(int(reached.timestamp())))
    moved_to = listener.position().caught_up_to
    assert moved_to is not None
    assert moved_to > reached
    assert batches[1] == (str(int(reached.timestamp())), str(int(moved_to.timestamp())))


def test_a_page_is_the_messages_as_they_came_one_on_each_line(listener: Listener) -> None:
    listener.land()
    pages = listener.rows("SELECT body, request FROM raw.page ORDER BY page_id")
    lines = b"\n".join(bytes(page.body) for page in pages).decode().split("\n")
    assert lines[:60] == odds88_messages(listener.sandbox)
    assert {page.request for page in pages} == {"GET /feed/settlement/v4?revision=0"}


def test_rows_are_there_before_the_session_is_over(listener: Listener) -> None:
    """Fifteen are committed at a time; the position is not moved by them."""
    with Worker(listener.warehouse.pipelines_url, [listener.task], Moment("after", AMID)) as worker:
        assert worker.wait() == "killed"
    assert listener.count("raw.record") == 15
    assert listener.position() == Position()


@pytest.mark.parametrize("order", ["first_sent", "settlement_time", "newest_first"])
def test_history_may_come_in_any_order(listener: Listener, order: str) -> None:
    listener.configure(recovery_order=order)
    assert listener.land().has_reached_end
    assert listener.missing() == 0
    listener.sandbox.advance("odds88", 7)
    listener.land()
    assert listener.missing() == 0


def test_pings_amid_history_are_not_its_end(listener: Listener) -> None:
    listener.configure(ping_every_messages=1)
    assert listener.land().landed == 60


def test_a_burst_of_pings_amid_history_is_not_its_end(listener: Listener) -> None:
    listener.use(stream_quiet_seconds=0.5)
    listener.fault("flooded_stream", after_messages=20, pings=300)
    assert listener.land().landed == 60


@contextmanager
def news_all_the_time(sandbox: Sandbox) -> Iterator[None]:
    """The provider goes on by a message every few milliseconds."""
    over = threading.Event()

    def go_on() -> None:
        with Sandbox(sandbox.base_url) as own:
            while not over.wait(0.005):
                own.advance("odds88", 1)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_stream_that_is_never_silent_is_caught_up_with_by_its_news(listener: Listener) -> None:
    listener.configure(ping_seconds=30.0)
    with news_all_the_time(listener.sandbox):
        assert listener.land().has_reached_end
    listener.configure(ping_seconds=0.02)
    listener.land()
    assert listener.missing() == 0


def test_a_stream_without_any_message_is_caught_up_with(listener: Listener) -> None:
    listener.configure(messages=0)
    assert [listener.land().has_reached_end for _ in range(2)] == [True, True]
    attempts = listener.sandbox.odds88_attempts()
    assert [attempt["kind"] for attempt in attempts] == ["without", "proper"]
    assert listener.count("raw.page") == 0


def test_a_message_with_line_breaks_and_one_without_content_harm_no_other(
    listener: Listener,
) -> None:
    texts = ['{"data":\n{"betId":\n"1"}}', "", " \n", "no\nmessage"]
    listener.fault("foreign_messages", texts=texts, after_messages=20)
    landed = listener.land()
    assert (landed.landed, landed.has_reached_end, listener.missing()) == (62, True, 0)
    bodies = [bytes(page.body).decode() for page in listener.rows("SELECT body FROM raw.page")]
    assert {texts[0], texts[3]} <= set(bodies)
    [held] = listener.rows("SELECT * FROM ops.quarantine")
    assert (held.stage, held.rule) == ("raw", "unreadable")


@pytest.mark.parametrize("after_messages", [0, 30])
def test_bets_with_the_empty_time_of_dotnet_land_and_stop_nothing(
    listener: Listener, after_messages: int
) -> None:
    bets = [bet(0, betId=f"b{n}", settlementTime="0001-01-01T00:00:00Z") for n in range(2)]
    texts = [message(one).decode() for one in bets]
    listener.fault("foreign_messages", texts=texts, after_messages=after_messages)
    landed = listener.land()
    assert (landed.landed, landed.has_reached_end) == (62, True)
    assert listener.land().has_reached_end
    assert listener.missing() == 0


def test_a_stream_of_nothing_but_an_empty_time_goes_on(listener: Listener) -> None:
    listener.configure(messages=0)
    text = message(bet(0, settlementTime="0001-01-01T00:00:00Z")).decode()
    listener.fault("foreign_messages", texts=[text], after_messages=0)
    assert listener.land().has_reached_end
    listener.sandbox.advance("odds88", 5)
    assert listener.land().has_reached_end
    assert listener.missing() == 0


def test_a_ping_that_may_hold_a_bet_is_kept_told_and_a_ping_all_the_same(
    listener: Listener,
) -> None:
    text = '{"pingId":"1","bets":[{"betId":"b1"}]}'
    listener.fault("foreign_messages", texts=[text, '{"pingId":"2","sent":5}'], after_messages=60)
    landed = listener.land()
    assert (landed.landed, landed.has_reached_end) == (61, True)
    [held] = listener.rows("SELECT * FROM ops.quarantine")
    assert (held.rule, held.reason) == (
        "unreadable",
        "the message has a `pingId` and no `data`, but more: bets",
    )
    [batch] = listener.rows("SELECT * FROM ops.batch")
    assert batch.unknown_fields == ["bets", "sent"]


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "sessions"), [("first_sent", 7), ("settlement_time", 7), ("newest_first", 3)]
)
def test_a_recovery_too_long_for_one_session_goes_on_in_the_next(
    listener: Listener, order: str, sessions: int
) -> None:
    """In order each begins where the one before came to; else bounds are doubled."""
    listener.configure(messages=1500, history_seconds=300, recovery_order=order)
    listener.use(stream_overlap_seconds=60.0, odds88_session_messages=700, land_commit_records=500)
    done = []
    while not done or not done[-1].has_reached_end:
        done.append(listener.land())
        assert len(done) <= sessions
    assert listener.missing() == 0
    assert listener.position().resume_at is None
    assert "until the bounds of one session were reached" in done[0].note
    assert set(listener.endings()) == {"bound", "caught_up"}
    assert listener.count("ops.batch WHERE has_reached_end") == 1


@pytest.mark.parametrize(
    "bound", [{"land_bytes_limit": 20_000}, {"land_time_limit_seconds": 0.001}]
)
def test_a_session_is_bounded_in_bytes_and_time(
    listener: Listener, bound: dict[str, float]
) -> None:
    listener.use(**bound)
    landed = listener.land()
    assert 0 < landed.received < 60
    assert not landed.has_reached_end
    assert listener.position().cut_short == 1


def test_what_is_told_again_does_not_count_against_the_bounds(listener: Listener) -> None:
    """All of it lies within the overlap, and is more than a session may have that is new."""
    listener.configure(messages=900)
    bounds = {"odds88_session_messages": 400, "land_bytes_limit": 400_000}
    listener.use(**bounds, land_commit_records=300)
    while not listener.land().has_reached_end:
        pass
    assert [listener.land().has_reached_end for _ in range(3)] == [True] * 3
    assert listener.position().cut_short == 0
    listener.sandbox.advance("odds88", 500)
    cut = listener.land()
    assert (0 < cut.landed <= 400, cut.received > 900, cut.has_reached_end) == (True, True, False)


def test_a_recovery_ends_though_a_late_message_comes_in_each_session(listener: Listener) -> None:
    listener.configure(messages=1200, history_seconds=48 * 3600)
    listener.use(stream_overlap_seconds=60.0, odds88_session_messages=50, land_commit_records=500)
    longest_ago = datetime.now(UTC) - timedelta(hours=71)
    for session in range(6):
        late = bet(0, betId=f"late{session}", settlementTime=longest_ago.isoformat())
        listener.fault("foreign_messages", texts=[message(late).decode()], after_messages=40)
        if (landed := listener.land()).has_reached_end:
            break
    assert landed.has_reached_end
    assert listener.missing() == 0


def test_silence_ends_a_session_and_what_came_before_it_stays(listener: Listener) -> None:
    listener.use(stream_silence_seconds=0.3)
    listener.fault("stalled_stream", after_messages=40)
    with pytest.raises(Retriable, match=r"Nothing came over its stream for 0\.3 s"):
        listener.land()
    assert listener.count("raw.record") == 40
    assert listener.land().landed == 20
    assert listener.endings() == ["silent", "caught_up"]


def test_an_end_by_the_provider_fails_the_run_and_what_came_before_it_stays(
    listener: Listener,
) -> None:
    listener.fault("closed_stream", after_messages=40, code=1011, reason="restarting")
    with pytest.raises(StreamEnded, match="restarting"):
        listener.land()
    assert listener.count("raw.record") == 40
    [batch] = listener.rows("SELECT * FROM ops.batch")
    assert (batch.state, batch.landed, batch.has_reached_end) == ("landed", 40, False)
    assert listener.land().landed == 20
    assert listener.endings() == ["closed", "caught_up"]


def test_a_handshake_that_fails_leaves_no_doubt_about_the_position(listener: Listener) -> None:
    listener.fault("status", status=403)
    with pytest.raises(Fatal):
        listener.land()
    listener.fault("status", status=503)
    with pytest.raises(Retriable):
        listener.land()
    assert listener.position() == Position()
    assert listener.endings() == ["failed", "failed"]
    assert listener.land().landed == 60


def test_a_log_in_that_fails_uses_up_no_connection(listener: Listener) -> None:
    listener.sandbox.fault("odds88", "status", call="log_in", status=401)
    with pytest.raises(Fatal):
        listener.land()
    assert listener.endings() == []
    assert listener.sandbox.odds88_attempts() == []
    assert listener.land().landed == 60


# --- audits and gaps ----------------------------------------------------------------------------


def test_what_a_session_has_missed_is_found_by_the_audit(listener: Listener) -> None:
    """A message that was spoiled long before the position is told again once a day."""
    listener.configure(history_seconds=36_000)
    listener.fault("other_message", text='{"pingId":"in its place"}', after_messages=20)
    listener.land()
    listener.land()
    assert listener.missing() == 1
    listener.use(odds88_audit_hour=0)
    listener.move(audited_at=datetime.now(UTC) - timedelta(days=1))
    audit = listener.land()
    assert (audit.landed, audit.duplicates, listener.missing()) == (1, 61, 0)
    revision = int(listener.sandbox.odds88_attempts()[-1]["revision"])
    assert revision == pytest.approx(datetime.now(UTC).timestamp() - 71 * 3600, abs=60)
    assert listener.land().received < 60


def all_audited(listener: Listener) -> int:
    """How many sessions it took until an audit has been read to its end."""
    for sessions in range(1, 100):
        landed = listener.land()
        if landed.has_reached_end and listener.position().audited_at is not None:
            return sessions
    raise AssertionError("no audit was read to its end")


@pytest.mark.parametrize("order", ["first_sent", "settlement_time"])
def test_what_was_late_for_a_recovery_of_several_sessions_is_found_by_the_audit_behind_it(
    listener: Listener, order: str
) -> None:
    """Some messages tell a time hours before they are told, and a session is asked for by time."""
    listener.configure(messages=1500, history_seconds=70 * 3600, recovery_order=order)
    listener.use(odds88_session_messages=100)
    assert all_audited(listener) > 2
    assert listener.missing() == 0
    [audit] = listener.sandbox.odds88_attempts()[-1:]
    assert int(audit["revision"]) == pytest.approx(
        datetime.now(UTC).timestamp() - 71 * 3600, abs=60
    )


def test_an_audit_that_breaks_off_does_not_count_and_leaves_the_position_alone(
    listener: Listener,
) -> None:
    listener.configure(messages=600, history_seconds=70 * 3600)
    listener.land()
    listener.use(odds88_audit_hour=0, odds88_session_messages=10)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    listener.move(audited_at=yesterday)
    before = listener.position()
    listener.fault("closed_stream", after_messages=500)
    with pytest.raises(StreamEnded):
        listener.land()
    broken_off = listener.position()
    assert broken_off.audit_tried_at is not None
    assert broken_off == replace(before, audit_tried_at=broken_off.audit_tried_at, audit_tries=1)
    news, audit = listener.land(), listener.land()
    assert (news.received < 100, news.has_reached_end) == (True, True)
    assert (audit.received > 600, audit.has_reached_end) == (True, True)
    assert (listener.position().audited_at or yesterday) > yesterday


def test_an_audit_that_is_too_long_for_one_session_is_told(listener: Listener) -> None:
    listener.land()
    listener.use(odds88_audit_hour=0, land_time_limit_seconds=0.001)
    listener.move(audited_at=datetime.now(UTC) - timedelta(days=1))
    listener.fault("slow_messages", seconds=0.02)
    audit = listener.land()
    assert "an audit, which counts only if it is read to its end: it is given up" in audit.note
    listener.use(land_time_limit_seconds=240.0)
    assert listener.land().has_reached_end
    watch(listener.warehouse.engine, [("odds88", "settlements")], listener.settings)
    [told] = listener.rows("SELECT * FROM ops.finding WHERE state = 'open'")
    assert (told.kind, told.subject) == ("stream_unfinished", "settlements audit")


def test_more_than_three_days_away_leave_a_gap_and_a_finding(listener: Listener) -> None:
    listener.land()
    away = datetime.now(UTC) - timedelta(days=4)
    listener.move(caught_up_to=away, caught_up_began_at=away, audited_at=away)
    listener.land()
    [gap] = listener.rows("SELECT * FROM ops.gap")
    assert datetime.fromisoformat(gap.range_after) == away
    before = datetime.fromisoformat(gap.range_before)
    assert before.timestamp() == pytest.approx(datetime.now(UTC).timestamp() - 71 * 3600, abs=60)
    [asked] = listener.rows("SELECT * FROM ops.finding WHERE kind = 'gap'")
    assert (asked.state, asked.detail["gap_id"]) == ("open", gap.gap_id)
    assert "import_files" in asked.summary
    listener.land()
    assert listener.count("ops.gap") == 1


def test_a_quiet_feed_is_no_gap(listener: Listener) -> None:
    listener.land()
    listener.move(caught_up_to=datetime.now(UTC) - timedelta(days=9))
    listener.land()
    assert listener.count("ops.gap") == 0


# --- one connection, and the budgets ------------------------------------------------------------


def test_without_budget_a_run_ends_well_and_says_when_the_next_connection_is_possible(
    listener: Listener,
) -> None:
    listener.source = SOURCE
    listener.configure(attempts_a_window=5)
    for _ in range(6):
        listener.land()
    landed = listener.land()
    assert (landed.received, landed.has_reached_end) == (0, False)
    [begun] = listener.rows(
        "SELECT min(ended_at) AS first_over FROM ops.connect_attempt WHERE kind = 'proper'"
    )
    possible = begun.first_over + timedelta(seconds=310)
    assert f"possible at {possible:%Y-%m-%d %H:%M:%S} UTC" in landed.note
    assert "it allows 5 in 5 minutes" in landed.note
    assert len(listener.sandbox.odds88_attempts()) == 6
    assert set(listener.seen()["violations"].values()) == {0}
    [batch] = listener.rows(f"SELECT state FROM ops.batch WHERE batch_id = {landed.batch_id}")
    assert batch.state == "published"


def test_a_connection_counts_from_when_it_is_begun_however_long_logging_in_takes(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a minute passed before the first of five, and less than five minutes since."""
    listener.source = SOURCE
    listener.configure(attempts_a_window=6)
    listener.land()
    log_in = Feed.log_in

    def slow_log_in(feed: Feed) -> Token:
        monkeypatch.undo()
        listener.let_pass(timedelta(minutes=1))
        return log_in(feed)

    monkeypatch.setattr(Feed, "log_in", slow_log_in)
    for _ in range(5):
        listener.land()
    listener.let_pass(timedelta(seconds=280))
    landed = listener.land()
    assert "it allows 5 in 5 minutes" in landed.note
    assert len(listener.sandbox.odds88_attempts()) == 6


def test_a_slow_handshake_brings_no_connections_closer_together_than_the_provider_allows(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the handshake of the first of five had taken a quarter of a minute."""
    listener.source = SOURCE
    listener.configure(attempts_a_window=6)
    listener.land()
    connect = Feed.connect

    def slow_connect(feed: Feed, token: Token, revision: int) -> Socket:
        monkeypatch.undo()
        listener.let_pass(timedelta(seconds=15))
        return connect(feed, token, revision)

    monkeypatch.setattr(Feed, "connect", slow_connect)
    for _ in range(5):
        listener.land()
    listener.let_pass(timedelta(seconds=300))
    assert "it allows 5 in 5 minutes" in listener.land().note
    assert len(listener.sandbox.odds88_attempts()) == 6


def test_no_log_in_is_made_for_a_connection_that_is_not_allowed(listener: Listener) -> None:
    listener.source = SOURCE
    for _ in range(6):
        listener.land()
    logged_in = listener.seen()["log_ins"]
    assert "it allows 5 in 5 minutes" in listener.land().note
    assert listener.seen()["log_ins"] == logged_in == 6


def test_who_loses_its_lease_while_it_logs_in_does_not_connect(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in = Feed.log_in

    def slow_log_in(feed: Feed) -> Token:
        listener.change("UPDATE ops.lease SET epoch = epoch + 1")
        return log_in(feed)

    monkeypatch.setattr(Feed, "log_in", slow_log_in)
    assert "Another process holds odds88/stream since" in listener.land().note
    assert (listener.endings(), listener.sandbox.odds88_attempts()) == ([], [])


def test_who_sleeps_past_its_lease_before_it_connects_does_not_connect(
    listener: Listener,
) -> None:
    """It had written its connection down already."""
    listener.use(stream_lease_seconds=1.0)
    begun = Moment("after", Point("land", 5, function="connect_attempts.begin"))
    with Worker(
        listener.warehouse.pipelines_url, [listener.task], begun, signal.SIGSTOP
    ) as sleeper:
        assert sleeper.wait() == "frozen"
        time.sleep(1.5)
        assert listener.land().has_reached_end
        sleeper.go_on()
        assert sleeper.wait() == "finished", sleeper.error()
    assert len(listener.sandbox.odds88_attempts()) == 1
    assert listener.endings() == ["lease_lost", "caught_up"]


def test_four_processes_that_fight_connect_one_at_a_time_and_within_the_budget(
    listener: Listener,
) -> None:
    listener.source = SOURCE
    listener.configure(attempts_a_window=5, messages=200)
    with ExitStack() as stack:
        url, twice = listener.warehouse.pipelines_url, [listener.task, listener.task]
        workers = [stack.enter_context(Worker(url, twice)) for _ in range(4)]
        endings = [worker.wait() for worker in workers]
        assert endings == ["finished"] * 4, "\n".join(worker.error() for worker in workers)
    seen = listener.seen()
    assert set(seen["violations"].values()) == {0}
    assert seen["attempts"] == {"without": 1, "proper": 5}
    assert seen["connections"] == {"now": 0, "ever": 6, "most_at_once": 1}
    assert listener.missing() == 0
    [epochs] = listener.rows("SELECT count(DISTINCT epoch) FROM ops.connect_attempt")
    assert epochs[0] == 6


def test_who_is_killed_while_connected_is_followed_by_another_and_its_attempt_counts(
    listener: Listener,
) -> None:
    with Worker(listener.warehouse.pipelines_url, [listener.task], Moment("after", AMID)) as worker:
        assert worker.wait() == "killed"
    listener.let_leases_run_out()
    assert listener.land().landed == 60 - 15
    assert listener.missing() == 0
    killed, _ = listener.sandbox.odds88_attempts()
    assert killed["ended"] == "lost"
    assert listener.endings() == [None, "caught_up"]
    assert set(listener.seen()["violations"].values()) == {0}


def test_a_run_waits_no_longer_for_another_than_for_a_dead_one(listener: Listener) -> None:
    listener.use(stream_lease_seconds=0.6)
    listener.fault("slow_messages", seconds=0.2)
    with Worker(listener.warehouse.pipelines_url, [listener.task]) as worker:
        until(lambda: listener.sandbox.odds88_attempts())
        landed = listener.land()
        assert (landed.batch_id, landed.received) == (None, 0)
        assert "odds88/stream is held by test" in landed.note
        worker.end()


def test_who_sleeps_longer_than_its_lease_commits_nothing_and_hangs_up(
    listener: Listener,
) -> None:
    """Meanwhile its connection is open, so the provider refuses the next one."""
    listener.source = SOURCE
    listener.configure(messages=200)
    with Worker(
        listener.warehouse.pipelines_url, [listener.task], Moment("after", AMID), signal.SIGSTOP
    ) as sleeper:
        assert sleeper.wait() == "frozen"
        listener.let_leases_run_out()
        refused = listener.land()
        assert (refused.received, refused.has_reached_end) == (0, False)
        assert "It allows no connection now" in refused.note
        assert listener.seen()["connections"]["now"] == 1
        landed = listener.rows("SELECT * FROM raw.record")
        sleeper.go_on()
        assert sleeper.wait() == "finished", sleeper.error()
    assert listener.rows("SELECT * FROM raw.record") == landed
    assert listener.position() == Position()
    assert listener.endings() == ["lease_lost", "refused"]
    assert listener.seen()["connections"]["now"] == 0
    assert listener.count("ops.finding WHERE kind = 'connections_refused' AND state = 'open'") == 1

    assert "it has refused one lately" in listener.land().note
    listener.let_windows_pass()
    assert listener.land().has_reached_end
    assert listener.missing() == 0
    assert listener.count("ops.finding WHERE state = 'open'") == 0


def test_who_learns_that_its_lease_is_lost_hangs_up_at_once(listener: Listener) -> None:
    listener.use(stream_lease_seconds=0.3, land_commit_seconds=60.0)
    listener.fault("stalled_stream", after_messages=20)

    def take_lease_away() -> None:
        until(lambda: listener.count("raw.record") == 15)
        listener.change(
            "UPDATE ops.lease SET epoch = epoch + 1,"
            " expires_at = clock_timestamp() + interval '1 minute'"
        )

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take_lease_away)
        began = time.monotonic()
        landed = listener.land()
        # Nothing is to be committed, and silence is borne for longer.
        assert time.monotonic() - began < listener.settings.stream_silence_seconds / 2
        taken.result()
    assert "Another process holds odds88/stream since" in landed.note
    assert listener.count("raw.record") == 15
    assert listener.endings() == ["lease_lost"]
    [attempt] = listener.sandbox.odds88_attempts()
    assert attempt["ended"] == "client 1000"


@pytest.mark.parametrize("refusals", ["status", "close"])
def test_a_refusal_ends_a_run_well_and_is_asked_about(listener: Listener, refusals: str) -> None:
    """Somebody else has used up the provider's budget."""
    listener.configure(attempts_a_window=1, refusals=refusals)
    listener.land()
    listener.configure(clock_offset_seconds=1.0)
    listener.land()
    refused = listener.land()
    assert "It allows no connection now" in refused.note
    assert listener.endings()[:2] == ["caught_up", "caught_up"]
    assert str(listener.endings()[2]).startswith("refused")
    [asked] = listener.rows("SELECT * FROM ops.finding WHERE state = 'open'")
    assert (asked.kind, asked.source) == ("connections_refused", "odds88")
    listener.land()
    assert len(listener.sandbox.odds88_attempts()) == 3


# --- faults of the stream -----------------------------------------------------------------------

HANDSHAKE_FAULTS = {"status", "reset_before_answer"}
ENDING_FAULTS = {
    "broken_frame",
    "closed_stream",
    "dripping_messages",
    "dropped_stream",
    "oversize_message",
    "reset_stream",
    "stalled_frame",
    "stalled_stream",
    "truncated_frame",
}
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("closed_stream", {"code": 1000}),
    ("closed_stream", {"code": 1012}),
    ("dropped_stream", {}),
    ("reset_stream", {}),
    ("stalled_stream", {}),
    ("stalled_stream", {"with_pings": True}),
    ("flooded_stream", {"pings": 50}),
    (
        "foreign_messages",
        {"texts": ["[]", "null", '{"data":{}}', '{"odd":1,"data":{"betId":"x"}}']},
    ),
    ("broken_frame", {"breach": "unknown_opcode"}),
    ("broken_frame", {"breach": "masked"}),
    ("malformed_message", {}),
    ("other_message", {"text": "\x00"}),
    ("recoded_message", {}),
    ("oversize_message", {"size": 5 * 2**20}),
    ("changed_value", {}),
    ("raw_value", {}),
    ("left_out_value", {}),
    ("duplicated_message", {}),
    ("binary_message", {}),
    ("fragmented_message", {}),
    ("dripping_messages", {"seconds": 0.001, "messages": 1}),
    ("slow_messages", {"seconds": 0.01, "messages": 2}),
    ("truncated_frame", {}),
    ("stalled_frame", {}),
    ("status", {"status": 500}),
    ("reset_before_answer", {}),
]


def test_every_fault_of_the_stream_is_tried() -> None:
    """The handshake has those of HTTP besides, which are tried with ticktock's calls."""
    assert {kind for kind, _ in FAULTS} == FAULTS_OF_STREAMS.keys() | HANDSHAKE_FAULTS


def test_every_fault_of_the_stream_is_made_good_by_a_run_without_one(
    sandbox: Sandbox, warehouse: Warehouse
) -> None:
    settings = SETTINGS.model_copy(update={"stream_silence_seconds": 0.15})
    play = Play(SOURCE, sandbox, warehouse, settings=settings)
    listener = Listener(sandbox, warehouse, play.source, settings)
    failed = set()
    for kind, parameters in FAULTS:
        play.advance(12)
        where = {} if kind in HANDSHAKE_FAULTS else {"after_messages": 5}
        listener.fault(kind, **parameters, **where)
        try:
            listener.land()
        except ProviderError:
            failed.add(kind)
        assert sandbox.faults() == [], kind
        assert listener.land().has_reached_end, kind
        assert listener.missing() == 0, kind
    assert failed == ENDING_FAULTS | HANDSHAKE_FAULTS
    run_tasks(play.tasks, warehouse.engine)
    assert play.wrong(is_left_alone=True) == []
