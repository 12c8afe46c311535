"""Normalizing: what cannot be a settlement is held back, whoever is to blame; the others go on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec import structs
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DataError

from include.catchup.sources import Source
from include.model import Leg, Outcome, RecordContext, Settlement
from include.quality.gates import BatchHeld, check_raw, check_settlements
from include.quality.normalizing import Normalize, normalize
from include.warehouse import tables
from include.warehouse.decisions import resolve
from include.warehouse.publishing import StagedRowsMissing, publish
from tests.checker import violations
from tests.feeding import (
    SETTINGS,
    SOURCE,
    body_of,
    correction,
    entry,
    land_body,
    open_findings,
    push,
)
from tests.warehouses import Warehouse


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def by(normalize: Normalize) -> Source:
    """The source with another way to normalize."""
    return replace(SOURCE, normalizer=lambda settings: normalize)


def failing_about_2(record: bytes, context: RecordContext) -> Settlement:
    """A provider's module with a mistake in it."""
    if b'"id": 2,' in record:
        raise KeyError(record)
    return SOURCE.normalizer(SETTINGS)(record, context)


def test_a_mistake_about_one_record_keeps_no_other_back(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1), correction(2, "lost")))
    later = land_body(warehouse.engine, body_of(correction(3, "void")))
    check_raw(warehouse.engine, SOURCE.name)
    done = normalize(warehouse.engine, by(failing_about_2), SETTINGS)
    assert (done.batches, done.normalized, done.quarantined) == (2, 3, 1)
    held_back = connection.execute(text("SELECT rule, reason FROM ops.quarantine")).one()
    assert held_back.rule == "normalize_failed"
    assert held_back.reason == "normalize itself failed with KeyError"

    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    publish(warehouse.engine, SOURCE.name)
    assert len(open_findings(connection, "records_quarantined")) == 1
    state = connection.scalar(
        text("SELECT state FROM ops.batch WHERE batch_id = :id"), {"id": later}
    )
    assert state == "published"


def test_a_record_without_its_page_names_the_decision_that_takes_it_up_again(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1)))
    page = connection.execute(text("DELETE FROM raw.page RETURNING *")).mappings().one()
    push(warehouse.engine)
    assert connection.execute(text("SELECT rule, reason FROM ops.quarantine")).all() == [
        (
            "page_missing",
            "its page is not in raw.page: the month was detached. Attach it again, then decide "
            "replay, or try_again if the batch is held",
        )
    ]
    [finding] = open_findings(connection, "records_quarantined")
    connection.execute(insert(tables.page).values(**page))
    resolve(
        warehouse.engine,
        finding.finding_id,
        "replay",
        decided_by="anna",
        reason="attached",
        reference=None,
        parameters={},
        run_id=None,
    )
    assert push(warehouse.engine).published == 1
    assert violations(connection, SOURCE) == []


def try_again(warehouse: Warehouse, connection: Connection) -> None:
    """Decide to have the one held batch normalized and checked anew."""
    [held] = open_findings(connection, "batch_held")
    resolve(
        warehouse.engine,
        held.finding_id,
        "try_again",
        decided_by="anna",
        reason="fixed",
        reference=None,
        parameters={},
        run_id=None,
    )


def failing_about_all(record: bytes, context: RecordContext) -> Settlement:
    """A provider's module that reads nothing right."""
    raise KeyError(record)


def test_a_batch_normalized_again_counts_its_quarantine_anew(
    warehouse: Warehouse, connection: Connection
) -> None:
    """Twelve rejected records hold the batch; after a fix two of them are still wrong."""
    good = [entry(number, market_offer_id=f"o{number}") for number in range(1, 11)]
    odd = [entry(number, new_status="odd") for number in (11, 12)]
    land_body(warehouse.engine, body_of(*good, *odd))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, by(failing_about_all), SETTINGS)
    with pytest.raises(BatchHeld):
        check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    try_again(warehouse, connection)
    assert push(warehouse.engine).published == 10
    batch = connection.execute(text("SELECT * FROM ops.batch")).one()
    assert (batch.state, batch.normalized, batch.quarantined) == ("published", 12, 2)
    states = connection.execute(
        text("SELECT state, rule, count(*) FROM ops.quarantine GROUP BY 1, 2 ORDER BY 1")
    ).all()
    assert states == [("open", "unknown_status", 2), ("retried", "normalize_failed", 10)]
    assert violations(connection, SOURCE, map(str, range(1, 13))) == []


def dating_1_back(record: bytes, context: RecordContext) -> Settlement:
    """A provider's module that takes one time for another, which a row rule finds."""
    made = SOURCE.normalizer(SETTINGS)(record, context)
    is_first = b'"id": 1,' in record
    return structs.replace(made, settled_at=datetime(1999, 1, 1, tzinfo=UTC)) if is_first else made


def test_what_the_row_rules_held_back_is_tried_again_with_its_batch(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1), entry(2, market_offer_id="ofr_2")))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, by(dating_1_back), SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    assert connection.scalar(text("SELECT rule FROM ops.quarantine")) == "settled_at_plausible"
    connection.execute(text("DELETE FROM staging.settlement"))
    with pytest.raises(StagedRowsMissing):
        publish(warehouse.engine, SOURCE.name)

    try_again(warehouse, connection)
    assert push(warehouse.engine).published == 2
    assert connection.scalar(text("SELECT state FROM ops.quarantine")) == "retried"
    assert open_findings(connection) == []
    assert violations(connection, SOURCE, ["1", "2"]) == []


def with_legs(record: bytes, context: RecordContext) -> Settlement:
    """As a provider of bets with two legs each, with odd texts and money in them."""
    made = SOURCE.normalizer(SETTINGS)(record, context)
    legs = (
        Leg(leg_number=1, event_id="a\tb\\", outcome=Outcome.WON, price=Decimal("1.10")),
        Leg(leg_number=2, settled_at=made.settled_at),
    )
    return structs.replace(
        made, player_id="Zoë\n7", currency="EUR", stake=Decimal("0.10"), legs=legs
    )


def test_everything_that_a_settlement_says_reaches_core(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(entry(1, reason="\\.")))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, by(with_legs), SETTINGS)
    check_settlements(warehouse.engine, SOURCE.name, SETTINGS)
    publish(warehouse.engine, SOURCE.name)

    row = connection.execute(text("SELECT * FROM core.settlement")).one()
    assert (row.player_id, row.currency, str(row.stake)) == ("Zoë\n7", "EUR", "0.10")
    assert (row.payout, row.reason) == (None, "\\.")
    expected = connection.scalar(text("SELECT ops.player_reference(:id)"), {"id": row.player_id})
    assert row.player_reference == expected
    assert len(expected) == 64
    legs = connection.execute(
        text(
            "SELECT leg_number, event_id, outcome, price, settled_at FROM core.settlement_leg"
            " WHERE record_id = :id ORDER BY leg_number"
        ),
        {"id": row.record_id},
    ).all()
    assert [tuple(leg) for leg in legs] == [
        (1, "a\tb\\", "won", Decimal("1.10"), None),
        (2, None, None, None, row.settled_at),
    ]
    assert isinstance(row.settled_at, datetime)
    for table in ("staging.settlement", "staging.settlement_leg"):
        assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


IN_CHUNKS = SETTINGS.model_copy(update={"normalize_chunk_records": 2})


def test_a_record_is_normalized_with_its_exact_text_and_the_moment_its_page_arrived(
    warehouse: Warehouse, connection: Connection
) -> None:
    given: list[tuple[bytes, datetime]] = []

    def noting(record: bytes, context: RecordContext) -> Settlement:
        given.append((record, context.received_at))
        return SOURCE.normalizer(SETTINGS)(record, context)

    land_body(warehouse.engine, body_of(entry(1, reason="Zoë \\ \u2028"), entry(2), entry(3)))
    land_body(warehouse.engine, body_of(entry(4), entry(5)))
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, by(noting), IN_CHUNKS)
    stored = connection.execute(
        text("SELECT payload, received_at FROM raw.record_payload ORDER BY record_id")
    )
    assert given == [(bytes(row.payload), row.received_at) for row in stored]
    assert len({received_at for _, received_at in given}) == 2


def with_legs_but_for_2(record: bytes, context: RecordContext) -> Settlement:
    """As a provider of bets one of which cannot be read."""
    failing_about_2(record, context)
    return with_legs(record, context)


def test_a_batch_of_many_chunks_is_staged_whole(
    warehouse: Warehouse, connection: Connection
) -> None:
    entries = [entry(number, market_offer_id=f"o{number}") for number in range(1, 8)]
    land_body(warehouse.engine, body_of(*entries))
    check_raw(warehouse.engine, SOURCE.name)
    done = normalize(warehouse.engine, by(with_legs_but_for_2), IN_CHUNKS)
    assert (done.normalized, done.quarantined) == (7, 1)
    staged = connection.scalars(text("SELECT source_key FROM staging.settlement ORDER BY 1")).all()
    assert staged == [f"m1/o{number}" for number in (1, 3, 4, 5, 6, 7)]
    assert connection.scalar(text("SELECT count(*) FROM staging.settlement_leg")) == 12
    assert gc.isenabled()


def unstorable_about_2(record: bytes, context: RecordContext) -> Settlement:
    """A provider's module that lets a text pass which Postgres cannot hold."""
    made = SOURCE.normalizer(SETTINGS)(record, context)
    return structs.replace(made, reason="\0") if b'"id": 2,' in record else made


def test_what_postgres_refuses_of_one_chunk_leaves_the_whole_batch_as_it_was(
    warehouse: Warehouse, connection: Connection
) -> None:
    land_body(warehouse.engine, body_of(*map(entry, range(1, 8))))
    check_raw(warehouse.engine, SOURCE.name)
    with pytest.raises(DataError, match="0x00"):
        normalize(warehouse.engine, by(unstorable_about_2), IN_CHUNKS)
    assert connection.scalar(text("SELECT state FROM ops.batch")) == "landed"
    assert connection.scalar(text("SELECT count(*) FROM staging.settlement")) == 0
    assert normalize(warehouse.engine, SOURCE, IN_CHUNKS).normalized == 7
