"""Reading a log to its end: nothing lost, nothing twice, no circle, whatever the provider does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import text

from include.catchup.acquiring import Landed, land
from include.catchup.log import PageStopped
from include.catchup.sources import SOURCES
from include.providers import ticktock
from include.providers.errors import Fatal, Retriable
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.decisions import DecisionRefused, resolve
from tests.checker import violations
from tests.feeding import body_of, entry, open_findings
from tests.sandboxes import provider_keys, ticktock_client
from tests.warehouses import Warehouse
from tests.wire_server import answer, wire_server

SOURCE = SOURCES["ticktock"]
QUICK = Settings(read_attempts=1, ticktock_page_limit=50, overlap_seconds=600)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Any]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def run_land(warehouse: Warehouse, sandbox: Sandbox, settings: Settings = QUICK) -> Landed:
    with ticktock_client(sandbox, settings) as client:
        return land(warehouse.engine, SOURCE, client, settings, "test")


def position(connection: Any) -> dict[str, Any]:
    return dict(connection.execute(text("SELECT position FROM ops.cursor")).scalar_one())


@pytest.mark.parametrize("id_kind", ["integer", "uuid"])
@pytest.mark.parametrize("page_order", ["oldest_first", "oldest_shown_newest_first"])
def test_everything_is_landed_once(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, id_kind: str, page_order: str
) -> None:
    sandbox.configure("ticktock", id_kind=id_kind, page_order=page_order, visible_entries=730)
    first = run_land(warehouse, sandbox)
    assert (first.landed, first.has_reached_end) == (730, True)

    again = run_land(warehouse, sandbox)
    assert (again.received, again.landed) == (0, 0)
    sandbox.advance("ticktock", 45)
    assert run_land(warehouse, sandbox).landed == 45

    assert violations(connection, SOURCE, provider_keys(sandbox)) == []
    assert position(connection)["started"]["from"] == "oldest"
    assert open_findings(connection) == []


def test_a_quiet_run_leaves_its_batch_and_stores_no_page(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=0)
    run_land(warehouse, sandbox)
    batch = connection.execute(text("SELECT * FROM ops.batch")).one()
    assert (batch.state, batch.pages_received, batch.pages_stored) == ("published", 1, 0)
    assert batch.has_reached_end
    completed_at = connection.execute(text("SELECT completed_at FROM ops.cursor")).scalar_one()
    assert completed_at is not None


def test_what_exceeds_the_bounds_is_the_next_runs(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=700)
    bounded = QUICK.model_copy(update={"land_pages_limit": 5, "land_commit_records": 60})
    runs = [run_land(warehouse, sandbox, bounded)]
    while not runs[-1].has_reached_end:
        assert runs[-1].landed > 0
        runs.append(run_land(warehouse, sandbox, bounded))
    assert len(runs) > 3
    assert sum(run.landed for run in runs) == 700
    assert violations(connection, SOURCE, provider_keys(sandbox)) == []


@pytest.mark.parametrize("limit", [1, 2, 200])
def test_any_page_limit_reads_the_whole_log(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, limit: int
) -> None:
    sandbox.configure("ticktock", visible_entries=23, requests_a_minute=10_000)
    settings = QUICK.model_copy(update={"ticktock_page_limit": limit})
    assert run_land(warehouse, sandbox, settings).landed == 23
    assert open_findings(connection) == []


def test_pages_that_hide_entries_become_a_gap_and_a_finding(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=30)
    run_land(warehouse, sandbox)
    sandbox.configure("ticktock", page_order="newest_first", visible_entries=30 + 120)
    run_land(warehouse, sandbox)

    [finding] = open_findings(connection, "gap")
    keys = provider_keys(sandbox, page_order="oldest_first")
    gap = connection.execute(text("SELECT * FROM ops.gap")).one()
    assert (gap.range_after, gap.state) == (keys[29], "open")
    assert gap.range_before == keys[100]
    assert finding.detail["gap_id"] == gap.gap_id
    assert gap.tried_at is not None
    landed = set(connection.scalars(text("SELECT record_key FROM raw.record")))
    assert set(keys[100:]) <= landed
    # The matches of the page were asked for one by one, which gives more than the page had.
    assert len(landed) > 30 + 50
    assert violations(connection, SOURCE) == []


@pytest.mark.parametrize("id_kind", ["integer", "uuid"])
@pytest.mark.parametrize("limit", [1, 2])
def test_the_smallest_pages_hide_nothing_without_a_gap(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, id_kind: str, limit: int
) -> None:
    """The two newest of these twelve entries share their time, which alone says nothing."""
    sandbox.configure("ticktock", page_order="newest_first", id_kind=id_kind, visible_entries=8 + 4)
    run_land(warehouse, sandbox, QUICK.model_copy(update={"ticktock_page_limit": limit}))
    [gap, *_] = connection.execute(text("SELECT * FROM ops.gap ORDER BY gap_id")).all()
    newest = provider_keys(sandbox, page_order="oldest_first")[-limit:]
    assert gap.range_after is None
    assert gap.range_before in newest
    assert len(open_findings(connection, "gap")) >= 1


def test_entries_of_one_time_are_no_gap_where_they_come_oldest_first(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", id_kind="uuid", visible_entries=60)
    keys = provider_keys(sandbox)
    # What follows the second entry begins with two that share their time.
    settings = QUICK.model_copy(update={"ticktock_page_limit": 2, "ticktock_first_cursor": keys[1]})
    assert run_land(warehouse, sandbox, settings).landed == 58
    assert open_findings(connection) == []


def test_a_gap_is_filled_in_a_batch_of_its_own_with_what_was_missing_alone(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    """The list of a match shows fewer fields: what is known is not another content of itself."""
    sandbox.configure(
        "ticktock",
        page_order="newest_first",
        visible_entries=120,
        match_fields_left_out=["settled_by"],
    )
    landed = run_land(warehouse, sandbox)
    fetch, fill = connection.execute(text("SELECT * FROM ops.batch ORDER BY batch_id")).all()
    assert (fetch.batch_id, fetch.kind, fetch.landed) == (landed.batch_id, "fetch", 50)
    assert (fill.kind, fill.state, fill.conflicting_keys) == ("fill", "landed", [])
    assert fill.landed > 0
    assert fill.duplicates >= 50
    assert violations(connection, SOURCE) == []

    run_land(warehouse, sandbox)
    kinds = connection.scalars(text("SELECT kind FROM ops.batch ORDER BY batch_id")).all()
    assert kinds == ["fetch", "fill", "fetch"]


def test_a_first_call_that_begins_at_the_newest_is_recorded_as_a_gap(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", first_call="newest", visible_entries=300)
    run_land(warehouse, sandbox)
    assert position(connection)["started"]["from"] == "newest"
    gap = connection.execute(text("SELECT * FROM ops.gap")).one()
    assert gap.range_after is None
    assert len(open_findings(connection, "gap")) == 1

    sandbox.advance("ticktock", 130)
    assert run_land(warehouse, sandbox).landed >= 130
    assert len(open_findings(connection, "gap")) == 1


def test_a_first_cursor_from_the_settings_is_where_reading_begins(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=300)
    keys = provider_keys(sandbox)
    settings = QUICK.model_copy(update={"ticktock_first_cursor": keys[99]})
    assert run_land(warehouse, sandbox, settings).landed == 200
    assert position(connection)["started"]["from"] == "first cursor"


def test_a_first_cursor_given_after_an_empty_run_is_still_the_first(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=0)
    run_land(warehouse, sandbox)
    sandbox.configure("ticktock", visible_entries=300)
    settings = QUICK.model_copy(update={"ticktock_first_cursor": provider_keys(sandbox)[99]})
    assert run_land(warehouse, sandbox, settings).landed == 200


def test_a_batch_tells_where_its_first_fetch_started_and_its_last_ended(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    settings = QUICK.model_copy(update={"land_commit_records": 50})
    sandbox.configure("ticktock", visible_entries=300)
    run_land(warehouse, sandbox, settings)
    sandbox.advance("ticktock", 300)
    run_land(warehouse, sandbox, settings)
    keys = provider_keys(sandbox)
    told = connection.execute(
        text("SELECT cursor_before, cursor_after FROM ops.batch ORDER BY batch_id")
    )
    assert told.all() == [(None, keys[299]), (keys[299], keys[599])]
    # Each run commits as it goes on, not only at its end.
    assert connection.scalar(text("SELECT revision FROM ops.cursor")) >= 12


def test_an_entry_without_an_id_at_the_end_does_not_stop_the_feed(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=80)
    run_land(warehouse, sandbox)
    sandbox.advance("ticktock", 1)
    sandbox.fault("ticktock", "entry_without_id", entry=-1)
    landed = run_land(warehouse, sandbox)
    assert (landed.landed, landed.has_reached_end) == (1, True)
    assert position(connection)["since_id"] == provider_keys(sandbox)[79]
    assert open_findings(connection) == []


def test_a_full_page_without_any_id_stops_the_feed(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=80)
    sandbox.fault("ticktock", "entry_without_id", after_calls=2)
    settings = QUICK.model_copy(update={"ticktock_page_limit": 1})
    with pytest.raises(PageStopped, match="no entry of the full page has an id to go on from"):
        run_land(warehouse, sandbox, settings)
    batch = connection.execute(text("SELECT * FROM ops.batch")).one()
    assert (batch.pages_received, batch.landed) == (3, 2)


def test_behind_a_first_page_of_the_newest_late_entries_are_read_as_well(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    started_at = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
    sandbox.configure(
        "ticktock",
        first_call="newest",
        visible_entries=300,
        late=[{"entry": 280, "visible_after": None}],
    )
    with time_machine.travel(started_at, tick=True):
        run_land(warehouse, sandbox)
    sandbox.release("ticktock", 280)
    sandbox.advance("ticktock", 200)
    with time_machine.travel(started_at + timedelta(seconds=700), tick=True):
        run_land(warehouse, sandbox)
    landed = connection.scalars(text("SELECT record_key FROM raw.record")).all()
    assert provider_keys(sandbox, first_call="oldest")[280] in landed


def test_entries_that_become_visible_late_are_read_after_the_overlap(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    started_at = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
    late = [{"entry": number, "visible_after": None} for number in (10, 11, 99, 150)]
    sandbox.configure("ticktock", visible_entries=200, late=late)
    with time_machine.travel(started_at, tick=True):
        assert run_land(warehouse, sandbox).landed == 196
    sandbox.release("ticktock", 10, 11, 99, 150)
    sandbox.advance("ticktock", 20)
    with time_machine.travel(started_at + timedelta(seconds=300), tick=True):
        assert run_land(warehouse, sandbox).landed == 20
    with time_machine.travel(started_at + timedelta(seconds=700), tick=True):
        assert run_land(warehouse, sandbox).landed == 4
    assert violations(connection, SOURCE, provider_keys(sandbox)) == []


def test_each_stretch_is_read_again_once_it_is_old_enough_itself(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    """Two stretches, five minutes apart, each with an entry that becomes visible late."""
    started_at = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
    late = [{"entry": number, "visible_after": None} for number in (150, 210)]
    sandbox.configure("ticktock", visible_entries=200, late=late)
    landed = []
    for seconds in (0, 300, 700, 950):
        with time_machine.travel(started_at + timedelta(seconds=seconds), tick=True):
            landed.append(run_land(warehouse, sandbox).landed)
        if seconds == 0:
            sandbox.advance("ticktock", 20)
        elif seconds == 300:
            sandbox.release("ticktock", 150)
        elif seconds == 700:
            sandbox.release("ticktock", 210)
    assert landed == [199, 19, 1, 1]


def test_old_entries_do_not_carry_the_second_reading_past_what_it_has_not_read(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    started_at = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
    late = [{"entry": 190, "visible_after": None}]
    sandbox.configure("ticktock", visible_entries=200, late=late)
    with time_machine.travel(started_at, tick=True):
        assert run_land(warehouse, sandbox).landed == 199
    sandbox.release("ticktock", 190)
    sandbox.advance("ticktock", 20)
    with time_machine.travel(started_at + timedelta(hours=2), tick=True):
        assert run_land(warehouse, sandbox).landed == 21


def test_a_late_entry_at_the_end_does_not_move_the_cursor_back(
    warehouse: Warehouse, connection: Any
) -> None:
    pages = (body_of(entry(10), entry(11)), body_of(), body_of(entry(9)))
    with wire_server(*(answer(200, page) for page in pages)) as server:
        for _ in range(2):
            with ticktock.open_client(server.base_url, "a-key", QUICK) as client:
                landed = land(warehouse.engine, SOURCE, client, QUICK, "test")
            assert landed.has_reached_end
    assert position(connection)["since_id"] == "11"
    assert violations(connection, SOURCE, ["9", "10", "11"]) == []


def test_an_overlap_longer_than_a_run_still_advances(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    """Each run may read eight pages, two of them again: neither reading starves the other."""
    started_at = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
    settings = QUICK.model_copy(update={"land_pages_limit": 8, "ticktock_page_limit": 20})
    sandbox.configure("ticktock", visible_entries=400, late=[{"entry": 3, "visible_after": None}])
    moved = []
    for run in range(30):
        if run == 1:
            sandbox.release("ticktock", 3)
        with time_machine.travel(started_at + timedelta(seconds=300 * run), tick=True):
            run_land(warehouse, sandbox, settings)
        moved.append((position(connection)["since_id"], position(connection)["reread_since_id"]))
    keys = provider_keys(sandbox)
    assert moved[-1] == (keys[-1], keys[-1])
    assert violations(connection, SOURCE, keys) == []


@pytest.mark.parametrize("kind", ["repeated_page"])
def test_a_log_that_walks_in_a_circle_is_stopped(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, kind: str
) -> None:
    sandbox.configure("ticktock", visible_entries=500)
    sandbox.fault("ticktock", kind, times=None, after_calls=4)
    with pytest.raises(Fatal, match="leads back to entry"):
        run_land(warehouse, sandbox)
    landed_before = connection.execute(text("SELECT count(*) FROM raw.record")).scalar_one()
    assert landed_before > 0
    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=500)
    run_land(warehouse, sandbox)
    assert violations(connection, SOURCE, provider_keys(sandbox)) == []


@pytest.mark.parametrize(
    ("kind", "parameters", "error"),
    [
        ("status", {"status": 401}, Fatal),
        ("status", {"status": 403}, Fatal),
        ("status", {"status": 404}, Fatal),
        ("status", {"status": 404, "times": None}, Fatal),
        ("status", {"status": 406}, Fatal),
        ("status", {"status": 422}, Fatal),
        ("status", {"status": 422, "times": None}, Fatal),
        ("refused_cursor", {}, Fatal),
        ("refused_cursor", {"status": 403, "times": None}, Fatal),
        ("status", {"status": 429}, Retriable),
        ("status", {"status": 500}, Retriable),
        ("status", {"status": 503}, Retriable),
        ("reset_before_answer", {}, Retriable),
        ("reset_in_body", {}, Retriable),
        ("truncated_body", {}, Retriable),
    ],
)
def test_a_fault_in_the_middle_keeps_what_came_before_and_the_next_run_finishes(
    warehouse: Warehouse,
    sandbox: Sandbox,
    connection: Any,
    kind: str,
    parameters: dict[str, Any],
    error: type[Exception],
) -> None:
    sandbox.configure("ticktock", visible_entries=400)
    sandbox.fault("ticktock", kind, after_calls=4, **parameters)
    with pytest.raises(error, match="kept") as raised:
        run_land(warehouse, sandbox)
    assert "sandbox-ticktock-key" not in str(raised.value)
    assert connection.execute(text("SELECT count(*) FROM raw.record")).scalar_one() > 0
    states = connection.scalars(text("SELECT state FROM ops.batch")).all()
    assert states == ["landed"]
    assert open_findings(connection) == []

    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=400)
    run_land(warehouse, sandbox)
    assert violations(connection, SOURCE, provider_keys(sandbox)) == []


@pytest.mark.parametrize("kind", ["malformed_json", "html_page", "wrong_envelope"])
def test_an_undecodable_page_is_kept_and_stops_the_feed_until_a_decision(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, kind: str
) -> None:
    sandbox.configure("ticktock", visible_entries=400)
    sandbox.fault("ticktock", kind, after_calls=4)
    with pytest.raises(PageStopped, match="Decide on finding 1 with the DAG resolve_findings"):
        run_land(warehouse, sandbox)
    page = connection.execute(
        text("SELECT * FROM raw.page WHERE undecodable_reason IS NOT NULL")
    ).one()
    [finding] = open_findings(connection, "undecodable_page")
    assert finding.detail["page_id"] == page.page_id
    stopped_at = position(connection)

    waiting = run_land(warehouse, sandbox)
    assert (waiting.received, waiting.pages_received) == (0, 0)
    assert f"finding {finding.finding_id}" in waiting.note
    assert position(connection) == stopped_at
    assert violations(connection, SOURCE) == []


def stop_at_a_refused_cursor(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, after_calls: int = 0
) -> Any:
    """The provider has forgotten the entry at which the feed stands; gives the finding."""
    sandbox.fault("ticktock", "refused_cursor", times=None, after_calls=after_calls)
    with pytest.raises(PageStopped, match=r"refuses to read on after entry .* Decide on finding"):
        run_land(warehouse, sandbox)
    [finding] = open_findings(connection, "cursor_refused")
    return finding


def decide(warehouse: Warehouse, finding: Any, decision: str, **parameters: Any) -> None:
    resolve(
        warehouse.engine,
        finding.finding_id,
        decision,
        decided_by="on-call",
        reason="The provider has removed the entry.",
        reference=None,
        parameters=parameters,
        run_id=None,
    )


def test_a_cursor_that_is_refused_for_good_stops_the_feed_until_a_decision(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=400)
    finding = stop_at_a_refused_cursor(warehouse, sandbox, connection, after_calls=4)
    stopped_at = position(connection)
    assert finding.detail["since_id"] == stopped_at["since_id"]
    assert finding.detail["status"] == 404
    assert "Not Found" in finding.detail["refusal"]
    assert connection.scalar(text("SELECT count(*) FROM raw.record")) > 0
    assert connection.scalar(text("SELECT state FROM ops.batch")) == "landed"

    calls = sandbox.calls()["total"]
    waiting = run_land(warehouse, sandbox)
    assert sandbox.calls()["total"] == calls
    assert f"finding {finding.finding_id}" in waiting.note
    assert position(connection) == stopped_at
    assert violations(connection, SOURCE) == []


def test_a_cursor_moved_ahead_leaves_a_gap_that_can_still_be_read(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=100)
    run_land(warehouse, sandbox)
    sandbox.advance("ticktock", 100)
    keys = provider_keys(sandbox)
    finding = stop_at_a_refused_cursor(warehouse, sandbox, connection)
    assert finding.detail["since_id"] == keys[99]
    decide(warehouse, finding, "move_cursor", continue_from=keys[149])
    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=200)
    assert run_land(warehouse, sandbox).landed == 50

    gap = connection.execute(text("SELECT * FROM ops.gap")).one()
    assert gap.range_before == keys[149]
    landed = set(connection.scalars(text("SELECT record_key FROM raw.record")))
    assert set(keys) - landed == set(keys[100:150])
    [asked] = open_findings(connection)
    assert asked.detail["gap_id"] == gap.gap_id
    decide(warehouse, asked, "try_again", continue_from=keys[98])
    later = datetime.now(UTC) + timedelta(seconds=700)
    with time_machine.travel(later, tick=True):
        run_land(warehouse, sandbox)
    assert violations(connection, SOURCE, keys) == []


def test_a_cursor_moved_back_reads_what_is_known_again_and_leaves_no_gap(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=100)
    run_land(warehouse, sandbox)
    sandbox.advance("ticktock", 100)
    keys = provider_keys(sandbox)
    finding = stop_at_a_refused_cursor(warehouse, sandbox, connection)
    decide(warehouse, finding, "move_cursor", continue_from=keys[9])
    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=200)
    landed = run_land(warehouse, sandbox)
    assert (landed.landed, landed.duplicates) == (100, 90 + 1)
    assert open_findings(connection) == []
    assert violations(connection, SOURCE, keys) == []


def test_a_first_cursor_that_is_refused_is_a_setting_to_be_corrected(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    sandbox.configure("ticktock", visible_entries=60)
    sandbox.fault("ticktock", "refused_cursor", times=None, status=422)
    mistaken = QUICK.model_copy(update={"ticktock_first_cursor": "17"})
    with pytest.raises(Fatal, match="SETTLEMENTS_TICKTOCK_FIRST_CURSOR"):
        run_land(warehouse, sandbox, mistaken)
    assert open_findings(connection) == []
    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=60)
    assert run_land(warehouse, sandbox).landed == 60


def test_a_page_limit_that_is_refused_is_not_taken_for_the_cursor(
    warehouse: Warehouse, connection: Any
) -> None:
    too_many = answer(422, b'{"detail": "limit: at most 20"}')
    for_one = (answer(200, body_of(entry(1))), answer(200, body_of()))
    with (
        wire_server(answer(200, body_of(entry(10))), too_many, *for_one) as server,
        ticktock.open_client(server.base_url, "a-key", QUICK) as client,
        pytest.raises(Fatal, match="limit: at most 20"),
    ):
        land(warehouse.engine, SOURCE, client, QUICK, "test")
    assert [request.split(b" ")[1] for request in server.requests[1:]] == [
        b"/cs2/v1/settlements?limit=50&since_id=10",
        b"/cs2/v1/settlements?limit=1",
        b"/cs2/v1/settlements?limit=1&since_id=10",
    ]
    assert position(connection)["since_id"] == "10"
    assert open_findings(connection) == []


def test_an_entry_that_is_refused_where_pages_are_compared_is_not_the_feeds_cursor(
    warehouse: Warehouse, connection: Any
) -> None:
    """Two entries of one time: which of them is the first is asked with an entry of the page."""
    moment = "2026-05-10T18:32:14+00:00"
    first, second = (entry(1, id=one, created_at=moment) for one in ("a1", "b2"))
    scripts = (answer(200, body_of(first, second)), answer(200, body_of(first)), answer(404))
    settings = QUICK.model_copy(update={"ticktock_page_limit": 2})
    with (
        wire_server(*scripts) as server,
        ticktock.open_client(server.base_url, "a-key", settings) as client,
        pytest.raises(Fatal, match=r"\(404\)"),
    ):
        land(warehouse.engine, SOURCE, client, settings, "test")
    assert len(server.requests) == 3
    assert open_findings(connection) == []


def test_two_runs_at_once_land_everything_once(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any
) -> None:
    import threading

    sandbox.configure("ticktock", visible_entries=1500, requests_a_minute=10_000)
    settings = QUICK.model_copy(update={"land_commit_records": 100})
    runs: list[Landed] = []
    threads = [
        threading.Thread(target=lambda: runs.append(run_land(warehouse, sandbox, settings)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 3
    run_land(warehouse, sandbox, settings)
    assert violations(connection, SOURCE, provider_keys(sandbox)) == []


@pytest.mark.parametrize(
    "leaping",
    [
        pytest.param([entry(2**63 - 1)], id="by number"),
        pytest.param([entry(10**18 + 1), entry(10**18)], id="two by number"),
        pytest.param([entry(3, id="c0de", created_at="2046-05-10T18:32:14+00:00")], id="by time"),
    ],
)
def test_an_entry_that_would_hide_all_others_never_becomes_the_cursor(
    warehouse: Warehouse, sandbox: Sandbox, connection: Any, leaping: list[dict[str, Any]]
) -> None:
    sandbox.configure("ticktock", visible_entries=60)
    run_land(warehouse, sandbox)
    before = position(connection)
    with (
        wire_server(answer(200, body_of(*leaping))) as server,
        ticktock.open_client(server.base_url, "a-key", QUICK) as client,
        pytest.raises(PageStopped, match="so far beyond others"),
    ):
        land(warehouse.engine, SOURCE, client, QUICK, "test")
    assert position(connection) == before
    [finding] = open_findings(connection, "undecodable_page")
    assert str(leaping[0]["id"]) in finding.summary
    with pytest.raises(DecisionRefused, match="would hide all that comes before"):
        resolve(
            warehouse.engine,
            finding.finding_id,
            "skip_page",
            decided_by="ada",
            reason="go on",
            reference=None,
            parameters={},
            run_id=None,
        )
    assert connection.scalar(text("SELECT count(*) FROM raw.record")) == 60
    assert violations(connection, SOURCE) == []
