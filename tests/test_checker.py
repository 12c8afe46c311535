"""The checker can fail: mistakes that somebody could make in the design, each caught by it.

Each mistake is made on purpose, by a patch or by a trigger in the test's own warehouse, and gets a
history in which it matters.  The same histories without a mistake are clean, else a catch would
prove nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine, and_, func, text, update

from include.catchup import bet_register
from include.catchup.sources import SOURCES
from include.model import RecordContext, Settlement
from include.providers.http import Answer, Client
from include.providers.ticktock import Page
from include.quality.gates import BatchHeld
from include.sandbox.client import Sandbox
from include.warehouse import batches, connect_attempts, landing, pages, publishing
from include.warehouse.connect_attempts import Budget, Connections
from include.warehouse.database import transaction
from include.warehouse.landing import Cursor, Landing
from include.warehouse.pages import ArrivedPage
from include.warehouse.publishing import StagedRowsMissing
from include.warehouse.tables import batch as batch_table
from include.warehouse.tables import cursor as cursor_table
from tests import feeding
from tests.checker import violations
from tests.feeding import body_of, correction, entry, land_body
from tests.killing import Moment, Point, Task, Worker
from tests.local.waiting import wait_for
from tests.playing import PLAYED, SETTINGS, Play
from tests.warehouses import Warehouse

SOURCE = SOURCES["ticktock"]
RECORDS = 35
PAGE = SETTINGS.ticktock_page_limit


@pytest.fixture
def play(sandbox: Sandbox, warehouse: Warehouse) -> Play:
    return Play(SOURCE, sandbox, warehouse)


# --- histories: what happens, and what the checker says of it -----------------------------------


def run(play: Play, moment: Moment | None = None, *tasks: Task) -> None:
    """A run that may be killed, and may fail: with a mistake in it, it does not always end well."""
    with Worker(play.warehouse.pipelines_url, tasks or play.tasks, moment) as worker:
        worker.wait()


def a_run_left_alone(play: Play) -> list[str]:
    play.advance(RECORDS)
    run(play)
    return play.wrong(is_left_alone=True)


def killed_while_landing(play: Play) -> list[str]:
    found = []
    for number in (3, 4, 5):
        play.advance(RECORDS)
        run(play, Moment("before", Point("land", number)))
        found += play.wrong()
    run(play)
    return found + play.wrong(is_left_alone=True)


def killed_after_landing(play: Play) -> list[str]:
    play.advance(RECORDS)
    play.run_id = "killed"
    run(play, Moment("before", Point("check_raw", 1)))
    play.run_id = "next"
    play.advance(RECORDS)
    run(play)
    return play.wrong(is_left_alone=True)


def many_bounded_runs(play: Play) -> list[str]:
    """Each reads a page; together they read all that there is."""
    play.settings = SETTINGS.model_copy(update={"land_pages_limit": 1})
    play.advance(4 * PAGE)
    found = []
    for _ in range(6):
        run(play)
        found += play.wrong()
    return found + play.wrong(is_left_alone=True)


def overtaken_while_landing(play: Play) -> list[str]:
    """A run has read its cursor and is frozen; another lands everything; then the first goes on."""
    play.advance(RECORDS)
    play.settings = SETTINGS.model_copy(update={"land_pages_limit": 1})
    with play.frozen(Moment("after", Point("land", 2))) as worker:
        play.settings = SETTINGS
        run(play)
        found = play.wrong(is_left_alone=True)
        worker.go_on()
        worker.wait()
    return found + play.wrong()


def overtaken_while_publishing(play: Play) -> list[str]:
    """Two publish at once: both have seen that the batch waits, and one has published it."""
    play.advance(RECORDS)
    *earlier, publish = play.tasks
    run(play, None, *earlier)
    with play.frozen(Moment("after", Point("publish", 1)), [publish]) as worker:
        run(play, None, publish)
        found = play.wrong(is_left_alone=True)
        worker.go_on()
        worker.wait()
    return found + play.wrong()


def a_page_that_cannot_be_decoded(play: Play) -> list[str]:
    play.advance(RECORDS)
    play.sandbox.fault("ticktock", "wrong_envelope", after_calls=3)
    run(play)
    assert play.sandbox.faults() == []
    found = play.wrong()
    run(play)
    return found + play.wrong()


def words_that_are_unknown(play: Play) -> list[str]:
    play.advance(RECORDS)
    play.sandbox.fault("ticktock", "unknown_value")
    run(play)
    assert play.sandbox.faults() == []
    return play.wrong(is_left_alone=True)


def staged_rows_lost_after_their_checks(play: Play) -> list[str]:
    """As an unlogged table loses them in a crash."""
    play.advance(RECORDS)
    *earlier, publish = play.tasks
    run(play, None, *earlier)
    owner(play, "DELETE FROM staging.settlement WHERE record_id % 7 = 0")
    run(play, None, publish)
    return play.wrong()


def told_otherwise_and_back(play: Play) -> list[str]:
    """The same entry in words A, in words B, and in words A again."""
    words = entry(1), entry(1, outcome="lost")
    return told(play, *(body_of(one) for one in (*words, words[0])))


def told_twice(play: Play) -> list[str]:
    return told(play, body_of(entry(1), entry(2)), body_of(entry(2), entry(3)))


def a_correction(play: Play) -> list[str]:
    return told(play, body_of(entry(1)), body_of(correction(2, "lost")))


def a_correction_that_comes_first(play: Play) -> list[str]:
    return told(play, body_of(correction(2, "lost")), body_of(entry(1)))


def a_page_that_does_not_add_up(play: Play) -> list[str]:
    return told(play, body_of(entry(1), entry(2), count=7))


def told(play: Play, *bodies: bytes) -> list[str]:
    """Pages made by hand, each in a batch of its own, and each pushed as far as it goes."""
    for body in bodies:
        land_body(play.warehouse.engine, body)
        for task in play.tasks[1:]:
            with suppress(BatchHeld, StagedRowsMissing):
                task.run(play.warehouse.engine)
    with play.warehouse.owner_engine.connect() as connection:
        return violations(connection, SOURCE)


def everything(play: Play) -> list[str]:
    """The keys of all records that the provider is going to show in a history, oldest first."""
    play.advance(100)
    shown = PLAYED[SOURCE.name].keys(play.sandbox)
    play.sandbox.configure(SOURCE.name, visible_entries=0)
    return shown


def owner(play: Play, *statements: str) -> None:
    with play.warehouse.owner_engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


# --- mistakes -----------------------------------------------------------------------------------


Patch = pytest.MonkeyPatch


def the_cursor_commits_before_its_rows(play: Play, patch: Patch) -> None:
    commit = Landing.commit

    def in_two(
        self: Landing,
        pages: list[ArrivedPage],
        cursor: Cursor,
        position: dict[str, Any],
        gaps: Any = (),
    ) -> Cursor:
        moved = commit(self, [], cursor, position, gaps)
        return commit(self, pages, moved, position)

    patch.setattr(Landing, "commit", in_two)


def rows_commit_before_the_cursor_and_have_no_identity(play: Play, patch: Patch) -> None:
    commit = Landing.commit

    def in_two(
        self: Landing,
        pages: list[ArrivedPage],
        cursor: Cursor,
        position: dict[str, Any],
        gaps: Any = (),
    ) -> Cursor:
        moved = commit(self, pages, cursor, cursor.position, gaps)
        return commit(self, [], moved, position)

    patch.setattr(Landing, "commit", in_two)
    everything_is_new(play, patch)


def everything_is_new(play: Play, patch: Patch) -> None:
    patch.setattr(pages, "_is_duplicate", lambda *_: False)


def each_run_begins_again_an_overlap_longer_than_its_page(play: Play, patch: Patch) -> None:
    read_cursor = Landing.read_cursor
    shown = everything(play)

    def further_back(self: Landing) -> Cursor:
        cursor = read_cursor(self)
        if cursor.position.get("since_id") is None:
            return cursor
        place = max(0, shown.index(cursor.position["since_id"]) - 2 * PAGE)
        return replace(cursor, position={**cursor.position, "since_id": shown[place]})

    patch.setattr(Landing, "read_cursor", further_back)


def a_stale_cursor_is_moved_all_the_same(play: Play, patch: Patch) -> None:
    commit = Landing.commit

    def from_wherever(
        self: Landing,
        pages: list[ArrivedPage],
        cursor: Cursor,
        position: dict[str, Any],
        gaps: Any = (),
    ) -> Cursor:
        now = replace(cursor, revision=self.read_cursor().revision)
        return commit(self, pages, now, position, gaps)

    patch.setattr(Landing, "commit", from_wherever)


def the_cursor_goes_on_behind_an_undecodable_page(play: Play, patch: Patch) -> None:
    stop = Landing.stop
    shown = everything(play)

    def stop_and_skip(self: Landing, page: ArrivedPage, *why: Any, **how: Any) -> int:
        finding_id = stop(self, page, *why, **how)
        cursor = self.read_cursor()
        behind = shown[shown.index(cursor.position["since_id"]) + PAGE]
        self.commit([], cursor, {**cursor.position, "since_id": behind})
        with transaction(self._engine, "loader") as connection:
            connection.execute(update(cursor_table).values(stopped_by_finding_id=None))
        return finding_id

    patch.setattr(Landing, "stop", stop_and_skip)


def a_log_is_deduplicated_by_its_latest_words(play: Play, patch: Patch) -> None:
    patch.setattr(feeding, "SOURCE", replace(SOURCE, dedupe="latest"))


def duplicates_count_as_landed(play: Play, patch: Patch) -> None:
    on_batch(play, "NEW.state = 'landing'", "NEW.landed := NEW.received; NEW.duplicates := 0;")


def the_digest_is_of_other_bytes_than_arrived(play: Play, patch: Patch) -> None:
    read_page = SOURCE.acquire.read_page

    def digested_anew(body: bytes) -> Page:
        page = read_page(body)
        entries = []
        for one in page.entries:
            start = one.record.byte_start
            words = json.loads(body[start : start + one.record.byte_length])
            digest = sha256(json.dumps(words).encode()).digest()
            entries.append(msgspec.structs.replace(one, content_sha256=digest))
        return msgspec.structs.replace(page, entries=tuple(entries))

    play.source = replace(SOURCE, acquire=replace(SOURCE.acquire, read_page=digested_anew))


def a_key_stands_in_the_request(play: Play, patch: Patch) -> None:
    fetch = SOURCE.acquire.fetch

    def with_key(client: Client, since_id: str | None, limit: int) -> Answer:
        answer = fetch(client, since_id, limit)
        key = PLAYED[SOURCE.name].secrets[0]
        return replace(answer, url_path=f"{answer.url_path}&key={key}")

    play.source = replace(SOURCE, acquire=replace(SOURCE.acquire, fetch=with_key))


def what_an_earlier_run_left_open_stays_open(play: Play, patch: Patch) -> None:
    patch.setattr(landing, "_close_left_open", lambda *_: None)


def a_batch_belongs_to_the_run_that_landed_it(play: Play, patch: Patch) -> None:
    waiting = batches.waiting

    def of_this_run(engine: Engine, source: str, condition: Any) -> list[int]:
        return waiting(engine, source, and_(condition, batch_table.c.run_id == play.run_id))

    patch.setattr(batches, "waiting", of_this_run)


def normalize_reads_the_clock(play: Play, patch: Patch) -> None:
    def as_of_now(payload: bytes, context: RecordContext) -> Settlement:
        made = SOURCE.normalizer(SETTINGS)(payload, context)
        return msgspec.structs.replace(made, settled_at=datetime.now(UTC))

    play.source = replace(SOURCE, normalizer=lambda settings: as_of_now)


def what_is_quarantined_is_not_counted(play: Play, patch: Patch) -> None:
    nothing_in_the_table_adds_up(play)
    on_batch(play, "NEW.state = 'published'", "NEW.quarantined := 0;")


def a_held_batch_goes_on(play: Play, patch: Patch) -> None:
    hold = batches.hold

    def hold_and_go_on(connection: Connection, batch: Any, reason: str, detail: Any) -> int:
        finding_id = hold(connection, batch, reason, detail)
        batches.move(
            connection,
            batch.batch_id,
            state=batch.state,
            held_at=None,
            raw_checked_at=func.now(),
        )
        return finding_id

    patch.setattr(batches, "hold", hold_and_go_on)


def publish_takes_what_is_staged(play: Play, patch: Patch) -> None:
    nothing_in_the_table_adds_up(play)
    patch.setattr(publishing, "_staged_difference", lambda *_: None)


def publish_does_not_look_at_the_state_again(play: Play, patch: Patch) -> None:
    def claim(connection: Connection, batch_id: int, condition: Any) -> Any:
        return claim_any(connection, batch_id, batch_table.c.batch_id == batch_id)

    claim_any = batches.claim
    patch.setattr(batches, "claim", claim)


def what_arrived_last_is_current(play: Play, patch: Patch) -> None:
    on_batch(
        play,
        "NEW.state = 'published'",
        "UPDATE core.settlement SET is_current = record_id = last_record_id FROM ("
        " SELECT source_key AS subject, max(record_id) AS last_record_id FROM core.settlement"
        " GROUP BY 1) AS last WHERE source_key = subject;",
    )


def a_correction_overwrites_what_it_corrects(play: Play, patch: Patch) -> None:
    nothing_in_the_table_adds_up(play)
    owner(
        play,
        "CREATE FUNCTION core.overwrite() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$"
        " BEGIN UPDATE core.settlement SET status = NEW.status, outcome = NEW.outcome,"
        " provider_order = NEW.provider_order, record_id = NEW.record_id,"
        " batch_id = NEW.batch_id"
        " WHERE (source, source_key) = (NEW.source, NEW.source_key);"
        " IF FOUND THEN RETURN NULL; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER overwrite BEFORE INSERT ON core.settlement"
        " FOR EACH ROW EXECUTE FUNCTION core.overwrite()",
    )


def corrections_leave_the_days_total_as_it_was(play: Play, patch: Patch) -> None:
    owner(
        play,
        "CREATE FUNCTION core.keep_total() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep_total BEFORE UPDATE ON core.daily_settlement"
        " FOR EACH ROW EXECUTE FUNCTION core.keep_total()",
    )


def on_batch(play: Play, condition: str, change: str) -> None:
    """Change every row of ops.batch that is written and meets the condition."""
    owner(
        play,
        "CREATE FUNCTION ops.change_batch() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$"
        f" BEGIN {change} RETURN NEW; END $$",
        "CREATE TRIGGER change_batch BEFORE UPDATE ON ops.batch FOR EACH ROW"
        f" WHEN ({condition}) EXECUTE FUNCTION ops.change_batch()",
    )


def nothing_in_the_table_adds_up(play: Play) -> None:
    """Without the constraint that would stop a mistake before the checker sees it."""
    owner(play, "ALTER TABLE ops.batch DROP CONSTRAINT batch_published_adds_up_check")


# --- proof --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caught:
    """A mistake, the history in which it matters, and what the checker says."""

    mistake: Callable[[Play, Patch], None]
    history: Callable[[Play], list[str]]
    sentence: str


CAUGHT = [
    Caught(
        the_cursor_commits_before_its_rows,
        killed_while_landing,
        "the cursor has passed 20 records that are not in raw",
    ),
    Caught(
        rows_commit_before_the_cursor_and_have_no_identity,
        killed_while_landing,
        "is landed twice with the same text",
    ),
    Caught(
        each_run_begins_again_an_overlap_longer_than_its_page,
        many_bounded_runs,
        "the cursor stops at place 10 of 40",
    ),
    Caught(
        a_stale_cursor_is_moved_all_the_same,
        overtaken_while_landing,
        "the cursor moved back from",
    ),
    Caught(
        the_cursor_goes_on_behind_an_undecodable_page,
        a_page_that_cannot_be_decoded,
        "the feed does not wait for a decision",
    ),
    Caught(
        the_cursor_goes_on_behind_an_undecodable_page,
        a_page_that_cannot_be_decoded,
        "the cursor has passed 10 records that are not in raw",
    ),
    Caught(
        a_log_is_deduplicated_by_its_latest_words,
        told_otherwise_and_back,
        "record 1 is landed twice with the same text",
    ),
    Caught(everything_is_new, told_twice, "record 2 is landed twice with the same text"),
    Caught(duplicates_count_as_landed, told_twice, "counts 2 landed records, but has 1"),
    Caught(
        the_digest_is_of_other_bytes_than_arrived,
        a_run_left_alone,
        "is not the text that its digest was taken of",
    ),
    Caught(a_key_stands_in_the_request, a_run_left_alone, "a secret stands in raw.page"),
    Caught(
        what_an_earlier_run_left_open_stays_open,
        killed_while_landing,
        "is still landing after a whole run",
    ),
    Caught(
        a_batch_belongs_to_the_run_that_landed_it,
        killed_after_landing,
        "is still landed after a whole run",
    ),
    Caught(normalize_reads_the_clock, a_run_left_alone, "settled_at is"),
    Caught(
        what_is_quarantined_is_not_counted,
        words_that_are_unknown,
        "counts 0 quarantined, but has 1",
    ),
    Caught(
        a_held_batch_goes_on,
        a_page_that_does_not_add_up,
        "is published, and 1 findings say that it is held",
    ),
    Caught(
        a_held_batch_goes_on,
        a_page_that_does_not_add_up,
        "is published, but does not meet pages_counted",
    ),
    Caught(
        publish_takes_what_is_staged,
        staged_rows_lost_after_their_checks,
        "of a published batch has 0 fates",
    ),
    Caught(
        publish_does_not_look_at_the_state_again,
        overtaken_while_publishing,
        "is held, but has 35 rows in core",
    ),
    Caught(
        what_arrived_last_is_current,
        a_correction_that_comes_first,
        "1 subjects have another current version, such as m1/ofr_abc",
    ),
    Caught(
        a_correction_overwrites_what_it_corrects,
        a_correction,
        "record 1 of a published batch has 0 fates",
    ),
    Caught(
        corrections_leave_the_days_total_as_it_was,
        a_correction,
        "core.daily_settlement is not what core says",
    ),
]


def each_mistake() -> Iterator[Any]:
    """Each mistake once, with everything that the checker says of it."""
    for mistake in dict.fromkeys(caught.mistake for caught in CAUGHT):
        of_it = [caught for caught in CAUGHT if caught.mistake is mistake]
        sentences = [caught.sentence for caught in of_it]
        yield pytest.param(mistake, of_it[0].history, sentences, id=mistake.__name__)


@pytest.mark.parametrize(("mistake", "history", "sentences"), each_mistake())
def test_a_mistake_is_caught(
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[Play, Patch], None],
    history: Callable[[Play], list[str]],
    sentences: list[str],
) -> None:
    mistake(play, monkeypatch)
    found = history(play)
    for sentence in sentences:
        assert any(sentence in violation for violation in found), found


@pytest.mark.parametrize(
    "history",
    dict.fromkeys(caught.history for caught in CAUGHT),
    ids=lambda history: history.__name__,
)
def test_the_same_history_without_a_mistake_is_clean(
    play: Play, history: Callable[[Play], list[str]]
) -> None:
    assert history(play) == []


# --- the same of a stream -----------------------------------------------------------------------

STREAM = SOURCES["odds88"]
AMID = Point("land", 6, function="landing.add")


@pytest.fixture
def stream_play(sandbox: Sandbox, warehouse: Warehouse) -> Play:
    return Play(STREAM, sandbox, warehouse, keeps_budgets=True)


def killed_while_connected(play: Play) -> list[str]:
    play.advance(RECORDS)
    run(play, Moment("before", AMID))
    play.let_leases_run_out()
    found = play.wrong()
    play.advance(RECORDS)
    run(play)
    return found + play.wrong(is_left_alone=True)


def seven_runs_in_a_minute(play: Play) -> list[str]:
    play.advance(RECORDS)
    for _ in range(7):
        run(play)
    return play.wrong(is_left_alone=True)


def another_run_while_one_is_connected(play: Play) -> list[str]:
    play.settings = SETTINGS.model_copy(update={"stream_lease_seconds": 0.6})
    play.advance(RECORDS)
    play.sandbox.fault("odds88", "stalled_stream", call="settlements", after_messages=20)
    with Worker(play.warehouse.pipelines_url, play.tasks) as connected:
        wait_for(
            "it is connected",
            lambda: 20 in [each["messages"] for each in play.sandbox.odds88_attempts()],
            60.0,
        )
        run(play)
        found = play.wrong()
        connected.end()
    return found


def a_connection_is_written_down_when_it_is_over(play: Play, patch: Patch) -> None:
    begin, end, begun = Connections.begin, Connections.end, list[tuple[Budget, int]]()

    def remember(self: Connections, budget: Budget, revision: int) -> int:
        begun.append((budget, revision))
        return 0

    def write_down(self: Connections, _: int, ending: str, messages: int) -> None:
        end(self, begin(self, *begun.pop()), ending, messages)

    patch.setattr(Connections, "begin", remember)
    patch.setattr(Connections, "end", write_down)


def nobody_counts_connections(play: Play, patch: Patch) -> None:
    patch.setattr(connect_attempts, "_check_budget", lambda *_: None)


def who_has_lost_its_lease_stays_connected(play: Play, patch: Patch) -> None:
    """And loses it at once."""
    patch.setattr(Connections, "check_ours", lambda self: None)
    owner(
        play,
        "CREATE FUNCTION ops.forget_holder() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.expires_at := clock_timestamp(); RETURN NEW; END $$",
        "CREATE TRIGGER forget_holder BEFORE INSERT OR UPDATE ON ops.lease"
        " FOR EACH ROW EXECUTE FUNCTION ops.forget_holder()",
    )


def what_is_committed_amid_a_session_is_dropped(play: Play, patch: Patch) -> None:
    patch.setattr(Landing, "add", lambda self, *pages: 0)


CAUGHT_IN_A_STREAM = [
    Caught(
        a_connection_is_written_down_when_it_is_over,
        killed_while_connected,
        "1 connections are not written down, such as ('without_revision', '0')",
    ),
    Caught(
        what_is_committed_amid_a_session_is_dropped,
        killed_while_connected,
        "the position has passed",
    ),
    Caught(
        nobody_counts_connections,
        seven_runs_in_a_minute,
        "5 proper connections were not enough until",
    ),
    Caught(
        nobody_counts_connections,
        seven_runs_in_a_minute,
        "connection 7 has broken the rule proper_budget",
    ),
    Caught(
        who_has_lost_its_lease_stays_connected,
        another_run_while_one_is_connected,
        "connection 2 has broken the rule second_connection",
    ),
]


@pytest.mark.parametrize("caught", CAUGHT_IN_A_STREAM, ids=lambda one: one.sentence)
def test_a_mistake_in_a_stream_is_caught(
    stream_play: Play, monkeypatch: pytest.MonkeyPatch, caught: Caught
) -> None:
    caught.mistake(stream_play, monkeypatch)
    found = caught.history(stream_play)
    assert any(caught.sentence in violation for violation in found), found


@pytest.mark.parametrize(
    "history",
    dict.fromkeys(caught.history for caught in CAUGHT_IN_A_STREAM),
    ids=lambda history: history.__name__,
)
def test_the_same_history_of_a_stream_without_a_mistake_is_clean(
    stream_play: Play, history: Callable[[Play], list[str]]
) -> None:
    assert history(stream_play) == []


# --- the same of bets that are asked for --------------------------------------------------------


@pytest.fixture
def bets_play(sandbox: Sandbox, warehouse: Warehouse) -> Play:
    return Play(SOURCES["tote"], sandbox, warehouse)


def two_runs_left_alone(play: Play) -> list[str]:
    """What is behind the first task is the same for every source, so the first run ends there."""
    play.advance(RECORDS)
    run(play, None, play.tasks[0])
    play.advance(RECORDS)
    run(play)
    return play.wrong(is_left_alone=True)


def a_run_that_is_told_nothing_new(play: Play) -> list[str]:
    play.advance(RECORDS)
    run(play, None, play.tasks[0])
    owner(play, "UPDATE tote.bet SET next_ask_at = now()")
    run(play)
    return play.wrong(is_left_alone=True)


def what_is_listed_is_not_entered(play: Play, patch: Patch) -> None:
    patch.setattr(bet_register, "enter", lambda *_: 0)


def every_bet_that_is_told_is_final(play: Play, patch: Patch) -> None:
    as_told = bet_register._as_told
    patch.setattr(bet_register, "_as_told", lambda *told: {**as_told(*told), "is_final": True})


def an_answer_is_not_noted(play: Play, patch: Patch) -> None:
    patch.setattr(bet_register, "note", lambda *_: None)


def no_bet_is_ever_due(play: Play, patch: Patch) -> None:
    patch.setattr(bet_register, "claim", lambda *_, **__: bet_register.Claim([], datetime.now(UTC)))


def every_text_is_new(play: Play, patch: Patch) -> None:
    patch.setattr(pages, "_is_duplicate", lambda *_: False)


CAUGHT_OF_BETS = [
    Caught(what_is_listed_is_not_entered, two_runs_left_alone, "but not in the register"),
    Caught(every_bet_that_is_told_is_final, two_runs_left_alone, "but was told otherwise"),
    Caught(an_answer_is_not_noted, two_runs_left_alone, "but stands otherwise"),
    Caught(no_bet_is_ever_due, two_runs_left_alone, "bets are still due after a whole run"),
    Caught(every_text_is_new, a_run_that_is_told_nothing_new, "is landed twice in a row"),
]


@pytest.mark.parametrize("caught", CAUGHT_OF_BETS, ids=lambda one: one.sentence)
def test_a_mistake_about_bets_is_caught(
    bets_play: Play, monkeypatch: pytest.MonkeyPatch, caught: Caught
) -> None:
    caught.mistake(bets_play, monkeypatch)
    found = caught.history(bets_play)
    assert any(caught.sentence in violation for violation in found), found


@pytest.mark.parametrize(
    "history",
    dict.fromkeys(caught.history for caught in CAUGHT_OF_BETS),
    ids=lambda history: history.__name__,
)
def test_the_same_history_of_bets_without_a_mistake_is_clean(
    bets_play: Play, history: Callable[[Play], list[str]]
) -> None:
    assert history(bets_play) == []
