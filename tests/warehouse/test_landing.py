"""Landing: what is new, what is counted, and what two runs, two months or an odd page do to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.model import Record
from include.quality.gates import check_raw
from include.warehouse.landing import CursorMoved, Landing
from include.warehouse.pages import ArrivedPage, Dedupe
from tests.checker import violations
from tests.feeding import SOURCE, body_of, entry, land_body, open_findings, push
from tests.warehouses import Warehouse

MAY = datetime(2026, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def landing_of(warehouse: Warehouse, dedupe: Dedupe = "anywhere") -> Landing:
    return Landing(warehouse.engine, SOURCE.name, SOURCE.feed, dedupe, "test")


def page_of(*records: tuple[str, str], received_at: datetime = JUNE, **told: Any) -> ArrivedPage:
    """A page of records, each a key and a text."""
    body, found = b"", []
    for key, words in records:
        found.append((Record(key, len(body), len(words.encode())), sha256(words.encode()).digest()))
        body += words.encode()
    return ArrivedPage("GET /", received_at, received_at, body, 200, None, found, **told)


def land_pages(landing: Landing, *pages: ArrivedPage) -> None:
    cursor = landing.read_cursor()
    landing.commit(pages, cursor, cursor.position)


def batch_of(connection: Connection, landing: Landing) -> Any:
    return connection.execute(
        text("SELECT * FROM ops.batch WHERE batch_id = :id"), {"id": landing.batch_id}
    ).one()


def stored(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(text("SELECT * FROM raw.record_payload ORDER BY record_id"))
    return [(row.record_key, bytes(row.payload).decode()) for row in rows]


@pytest.mark.parametrize(
    ("dedupe", "fresh"), [("anywhere", ["A", "B"]), ("latest", ["A", "B", "A"]), ("key", ["A"])]
)
@pytest.mark.parametrize("together", [True, False])
def test_what_is_a_duplicate_depends_on_the_source(
    warehouse: Warehouse,
    connection: Connection,
    dedupe: Dedupe,
    fresh: list[str],
    together: bool,
) -> None:
    """A, A, B, A, A under one key, in one page or each in a run of its own."""
    told = [("1", words) for words in "AABAA"]
    for records in [told] if together else [[one] for one in told]:
        landing = landing_of(warehouse, dedupe)
        land_pages(landing, page_of(*records))
        landing.close(has_reached_end=True)
    assert [words for _, words in stored(connection)] == fresh
    counted = connection.execute(
        text("SELECT sum(received), sum(landed), sum(duplicates), sum(pages_stored) FROM ops.batch")
    ).one()
    pages = 1 if together else len(fresh)
    assert tuple(counted) == (5, len(fresh), 5 - len(fresh), pages)


def test_other_contents_of_a_log_are_noted_once_and_in_bounds(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    keys = [f"{number:03}" for number in range(130)]
    for words in ("A", "B", "C"):
        land_pages(landing, page_of(*((key, words) for key in keys)))
    assert batch_of(connection, landing).conflicting_keys == keys[:100]
    latest = landing_of(warehouse, "latest")
    land_pages(latest, page_of(("001", "D")))
    assert batch_of(connection, latest).conflicting_keys == []


def test_unknown_fields_gather_over_the_commits_of_a_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    for name in ("b", "a", "b"):
        land_pages(landing, page_of(("1", name), unknown_fields=frozenset({name})))
    assert batch_of(connection, landing).unknown_fields == ["a", "b"]


def test_a_record_is_cut_out_of_the_page_that_brought_it(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    pages = [page_of(("1", "Ü"), ("2", "裁定")), page_of(("1", "Ü")), page_of(("3", "c"))]
    land_pages(landing, *pages)
    assert stored(connection) == [("1", "Ü"), ("2", "裁定"), ("3", "c")]
    batch = batch_of(connection, landing)
    assert (batch.pages_received, batch.pages_stored, batch.duplicates) == (3, 2, 1)
    ids = connection.scalars(text("SELECT record_id FROM raw.record ORDER BY 1")).all()
    assert (batch.record_id_first, batch.record_id_last) == (ids[0], ids[-1])


def test_pages_stand_in_the_month_of_their_arrival(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    land_pages(
        landing,
        page_of(("3", "c"), received_at=JUNE),
        page_of(("1", "a"), received_at=MAY),
        page_of(("2", "b"), received_at=MAY),
    )
    months = connection.execute(
        text(
            "SELECT page.tableoid::regclass::text, record_key FROM raw.page"
            " JOIN raw.record USING (page_id) ORDER BY 2"
        )
    ).all()
    assert months == [
        ("raw.page_y2026m05", "1"),
        ("raw.page_y2026m05", "2"),
        ("raw.page_y2026m06", "3"),
    ]


def test_two_sources_that_cross_into_a_new_month_do_not_lock_each_other_out(
    warehouse: Warehouse, connection: Connection
) -> None:
    """Both write into the month that is there before they come to the one that is not."""
    months = [datetime(2031, month, 1, tzinfo=UTC) for month in range(1, 13)]
    is_ready = threading.Barrier(2)
    failed: list[Exception] = []

    def land_each(source: str) -> None:
        landing = Landing(warehouse.engine, source, "feed", "anywhere", None)
        for month in months:
            pages = [page_of((f"{month} {number}", "a")) for number in range(5)]
            is_ready.wait(60)
            try:
                land_pages(landing, *pages, page_of((f"{month}", "a"), received_at=month))
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    land_pages(landing_of(warehouse), page_of(("0", "a")))
    threads = [threading.Thread(target=land_each, args=(source,)) for source in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert connection.scalar(text("SELECT count(*) FROM raw.page")) == 1 + 2 * 12 * 6


def test_two_feeds_of_a_source_land_what_both_tell_once(
    warehouse: Warehouse, connection: Connection
) -> None:
    is_ready = threading.Barrier(2)
    keys = [f"{number:02}" for number in range(20)]

    def land_all(feed: str) -> None:
        landing = Landing(warehouse.engine, SOURCE.name, feed, "anywhere", None)
        for key in keys:
            is_ready.wait(60)
            land_pages(landing, page_of((key, "a")))

    threads = [threading.Thread(target=land_all, args=(feed,)) for feed in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(connection) == [(key, "a") for key in keys]


def test_a_run_whose_cursor_another_has_moved_lands_nothing(
    warehouse: Warehouse, connection: Connection
) -> None:
    slow = landing_of(warehouse)
    seen = slow.read_cursor()
    quick = landing_of(warehouse)
    quick.commit([page_of(("1", "a"))], quick.read_cursor(), {"since_id": "1"})
    with pytest.raises(CursorMoved, match="Another run is landing ticktock settlements"):
        slow.commit([page_of(("1", "a"), ("2", "b"))], seen, {"since_id": "2"})
    assert stored(connection) == [("1", "a")]
    assert slow.close(has_reached_end=False).landed == 0
    position = connection.execute(text("SELECT position, revision FROM ops.cursor")).one()
    assert tuple(position) == ({"since_id": "1"}, 1)


def test_a_run_taken_for_dead_goes_on_in_a_new_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    slow = landing_of(warehouse)
    cursor = slow.commit([page_of(("1", "a"))], slow.read_cursor(), {"since_id": "1"})
    first = slow.batch_id
    landing_of(warehouse).close(has_reached_end=False)
    slow.commit([page_of(("2", "b"))], cursor, {"since_id": "2"})
    assert slow.batch_id != first
    row = slow.close(has_reached_end=True)
    assert (row.batch_id, row.landed, row.cursor_before) == (slow.batch_id, 1, "1")
    by_batch = connection.execute(text("SELECT batch_id, record_key FROM raw.record ORDER BY 2"))
    assert by_batch.all() == [(first, "1"), (slow.batch_id, "2")]


def test_a_batch_with_rows_takes_no_more_once_it_is_closed(
    warehouse: Warehouse, connection: Connection
) -> None:
    landing = landing_of(warehouse)
    land_pages(landing, page_of(("1", "a")))
    closed = landing.close(has_reached_end=True)
    assert (closed.state, closed.has_reached_end) == ("landed", True)
    land_pages(landing, page_of(("2", "b")))
    counted = connection.execute(text("SELECT landed FROM ops.batch ORDER BY batch_id"))
    assert counted.scalars().all() == [1, 1]


def test_only_a_batch_that_leaves_nothing_to_check_is_published_at_once(
    warehouse: Warehouse, connection: Connection
) -> None:
    """A maintenance page that looks like an empty one is told, not passed over."""
    landing = landing_of(warehouse)
    land_pages(landing, page_of())
    assert landing.close(has_reached_end=True).state == "published"

    body = json.dumps({"data": [], "meta": {"count": 0}, "error": "maintenance"}).encode()
    batch_id = land_body(warehouse.engine, body)
    state = "SELECT state FROM ops.batch WHERE batch_id = :id"
    assert connection.scalar(text(state), {"id": batch_id}) == "landed"
    push(warehouse.engine)
    assert connection.scalar(text(state), {"id": batch_id}) == "published"
    [finding] = open_findings(connection)
    assert (finding.kind, finding.subject) == ("unknown_field", "error")


def test_a_feed_that_is_stopped_waits_for_one_finding_alone(
    warehouse: Warehouse, connection: Connection
) -> None:
    first, second = landing_of(warehouse), landing_of(warehouse)
    first.read_cursor()
    page = ArrivedPage("GET /", JUNE, JUNE, b"<html>", 200, "text/html")
    finding_id = first.stop(page, "no JSON", "5")
    assert second.stop(page, "no JSON", "9") == finding_id
    assert [finding.finding_id for finding in open_findings(connection)] == [finding_id]
    assert connection.scalar(text("SELECT count(*) FROM raw.page")) == 2
    assert second.read_cursor().stopped_by_finding_id == finding_id


def test_what_waited_for_the_lock_sees_what_its_holder_landed(
    warehouse: Warehouse, connection: Connection
) -> None:
    """Two runs with the same page: the second decides what is new only after the first is done."""
    name = warehouse.engine.url.database
    connection.execute(
        text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    )
    land_body(warehouse.engine, body_of())
    bodies = [body_of(entry(number)) for number in range(1, 31)]
    failed: list[Exception] = []

    def land_all() -> None:
        for body in bodies:
            try:
                land_body(warehouse.engine, body)
            except CursorMoved:
                continue
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    threads = [threading.Thread(target=land_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for body in bodies:
        land_body(warehouse.engine, body)
    assert failed == []
    check_raw(warehouse.engine, SOURCE.name)
    assert violations(connection, SOURCE, [str(number) for number in range(1, 31)]) == []
