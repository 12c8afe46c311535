"""Every case of the bad-input corpus goes the whole way, from a socket to core, to its fate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from sqlalchemy import Connection, text

from include.catchup.acquiring import land
from include.catchup.log import PageStopped
from include.providers import ticktock
from include.providers.http import Client
from include.quality.gates import BatchHeld
from include.settings import Settings
from include.warehouse.decisions import resolve
from tests import reading
from tests.bad_inputs import (
    FIRST_ID,
    HELD,
    PAGES,
    PUBLISHED,
    RECORDS,
    STOPPED,
    BadPage,
    BadRecord,
    page_of,
    sound_text,
)
from tests.checker import violations
from tests.feeding import SOURCE, open_findings, push
from tests.warehouses import Warehouse
from tests.wire_server import WireServer, answer, wire_server

# So many odd records at once would hold any batch, which is a test of its own below.
LENIENT = Settings(read_attempts=1, quarantine_share_limit=1.0)
CASES_A_PAGE = 90


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


class Provider:
    """A provider on a socket that answers with whatever bodies it is given."""

    def __init__(self, warehouse: Warehouse, server: WireServer, client: Client) -> None:
        self._warehouse = warehouse
        self._server = server
        self._client = client

    def land(self, *bodies: bytes) -> None:
        """What `land` makes of these answers, if the log then has no more."""
        self._server.scripts[:] = [answer(200, body) for body in (*bodies, page_of())]
        land(self._warehouse.engine, SOURCE, self._client, LENIENT, "test")


@pytest.fixture
def provider(warehouse: Warehouse) -> Iterator[Provider]:
    with (
        wire_server() as server,
        ticktock.open_client(server.base_url, "the-key", LENIENT) as client,
    ):
        yield Provider(warehouse, server, client)


def fates(connection: Connection) -> dict[bytes, str]:
    """What became of every record, by the exact text that raw gives back."""
    rows = connection.execute(
        text(
            "SELECT payload, rule, settlement.record_id IS NOT NULL AS is_in_core, batch.state"
            " FROM raw.record_payload JOIN ops.batch USING (batch_id)"
            " LEFT JOIN ops.quarantine USING (record_id)"
            " LEFT JOIN core.settlement USING (record_id)"
        )
    ).all()
    found = {}
    for row in rows:
        assert row.is_in_core + (row.rule is not None) + (row.state == "held") == 1
        found[bytes(row.payload)] = row.rule or (PUBLISHED if row.is_in_core else HELD)
    assert len(found) == len(rows)
    return found


def mixed(cases: Sequence[BadRecord], numbers: Iterator[int]) -> tuple[bytes, list[bytes]]:
    """A page on which a sound entry stands before and behind each case, and the sound entries."""
    neighbours = [sound_text(next(numbers)) for _ in range(len(cases) + 1)]
    elements = [neighbours[0]]
    for case, neighbour in zip(cases, neighbours[1:], strict=True):
        elements += [case.text, neighbour]
    return page_of(*elements), neighbours


def test_the_corpus_holds_at_least_500_cases_each_once() -> None:
    assert len(RECORDS) + len(PAGES) >= 500
    for cases in (RECORDS, PAGES):
        assert len({case.name for case in cases}) == len(cases)
    assert len({case.text for case in RECORDS}) == len(RECORDS)
    assert len({case.body for case in PAGES}) == len(PAGES)


def test_the_second_reading_gives_every_case_the_same_fate() -> None:
    """Held against the corpus here, it may stand in for the corpus where inputs are random."""
    published = {PUBLISHED, "names_not_blank", "settled_at_plausible"}
    for case in RECORDS:
        said = reading.read_record(case.text)
        if case.fate == "record_without_key":
            assert reading.key_of(reading.value_of(case.text)) is None, case.name
            assert isinstance(said, set), case.name
        elif case.fate in published:
            assert isinstance(said, dict), case.name
        else:
            assert isinstance(said, set), case.name
            assert case.fate in said, case.name
    for page in PAGES:
        assert isinstance(reading.read_page(page.body), str) == (page.fate == STOPPED), page.name


def test_every_bad_record_meets_its_fate_and_harms_no_neighbour(
    warehouse: Warehouse, connection: Connection, provider: Provider
) -> None:
    expected = {case.text: case.fate for case in RECORDS}
    numbers = count(10 * FIRST_ID)
    # An id that is no number, or a huge one, leads the cursor away: those cases come last.
    for is_about_id in (False, True):
        cases = [case for case in RECORDS if case.is_about_id is is_about_id]
        bodies = []
        for start in range(0, len(cases), CASES_A_PAGE):
            body, neighbours = mixed(cases[start : start + CASES_A_PAGE], numbers)
            bodies.append(body)
            expected |= dict.fromkeys(neighbours, PUBLISHED)
        provider.land(*bodies)
    push(warehouse.engine, LENIENT)

    found = fates(connection)
    assert {text: fate for text, fate in found.items() if expected.get(text) != fate} == {}
    assert found.keys() == expected.keys()
    assert violations(connection, SOURCE) == []


def test_every_bad_page_meets_its_fate_and_the_feed_lives_on(
    warehouse: Warehouse, connection: Connection, provider: Provider
) -> None:
    provider.land(*(page.body for page in PAGES if page.fate == PUBLISHED))
    for page in PAGES:
        if page.fate == STOPPED:
            stop_and_decide(warehouse, connection, provider, page)
        elif page.fate == HELD:
            provider.land(page.body)
    with pytest.raises(BatchHeld, match="another number of records than the provider says"):
        push(warehouse.engine, LENIENT)
    push(warehouse.engine, LENIENT)
    last = sound_text(10**9)
    provider.land(page_of(last))
    assert push(warehouse.engine, LENIENT).published == 1

    found = fates(connection)
    for page in PAGES:
        for element in page.texts:
            keyless = not element.startswith(b"{")
            assert found.pop(element) == ("record_without_key" if keyless else page.fate), page.name
    assert found == {last: PUBLISHED}
    assert violations(connection, SOURCE) == []


def stop_and_decide(
    warehouse: Warehouse, connection: Connection, provider: Provider, page: BadPage
) -> None:
    """The page stops the feed where it stands, with its bytes kept; a person says to ask again."""
    before = connection.execute(text("SELECT position, revision FROM ops.cursor")).first()
    with pytest.raises(PageStopped, match="Its bytes are kept"):
        provider.land(page.body)
    kept = connection.execute(
        text("SELECT body, record_count FROM raw.page ORDER BY page_id DESC LIMIT 1")
    ).one()
    assert (bytes(kept.body), kept.record_count) == (page.body, None), page.name
    after = connection.execute(text("SELECT position, revision FROM ops.cursor")).one()
    assert before is None or after == before
    [finding] = open_findings(connection, "undecodable_page")
    resolve(
        warehouse.engine,
        finding.finding_id,
        "try_again",
        decided_by="anna",
        reason="it was the provider's",
        reference=None,
        parameters={},
        run_id=None,
    )


def test_so_many_bad_records_hold_their_batch_by_default(
    warehouse: Warehouse, connection: Connection, provider: Provider
) -> None:
    body, _ = mixed([case for case in RECORDS if case.fate == "wrong_type"][:11], count(1))
    provider.land(body)
    with pytest.raises(BatchHeld, match="11 of 23 records would be quarantined"):
        push(warehouse.engine)
    assert connection.scalar(text("SELECT count(*) FROM core.settlement")) == 0
    assert len(open_findings(connection, "batch_held")) == 1
    assert violations(connection, SOURCE) == []
