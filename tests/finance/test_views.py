"""What finance's views say of small histories made by hand, with the numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, text

from include.warehouse import tables
from tests.warehouses import Warehouse

_NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
_FEED = {"source": "ticktock", "feed": "settlements"}

# By their definitions, over everything that there is.
_MARK_CURRENT = """
UPDATE core.settlement AS marked
SET is_current = place.is_current,
    is_correction = marked.is_change AND coalesce(place.replaced_status <> 'open', false)
FROM (
    SELECT
        record_id,
        NOT is_rejected_by_decision AND row_number() OVER (
            subject ORDER BY provider_order DESC, record_id DESC
        ) = 1 AS is_current,
        lag(status) OVER (subject ORDER BY provider_order, record_id) AS replaced_status
    FROM core.settlement
    WINDOW subject AS (PARTITION BY source, source_key, is_rejected_by_decision)
) AS place
WHERE marked.record_id = place.record_id
"""
_TOTAL_SETTLEMENTS = """
INSERT INTO core.daily_settlement
SELECT
    source, (settled_at AT TIME ZONE 'UTC')::date, status, outcome, currency,
    count(*), coalesce(sum(stake), 0), coalesce(sum(payout), 0), count(stake), count(payout)
FROM core.settlement
WHERE is_current AND NOT is_contested
GROUP BY 1, 2, 3, 4, 5
"""
_TOTAL_RECORDINGS = """
INSERT INTO core.daily_recording
SELECT
    accounting_date, source, count(*),
    count(*) FILTER (WHERE is_correction AND NOT is_contested),
    count(*) FILTER (WHERE not_applied_reason = 'late'),
    count(*) FILTER (WHERE is_contested)
FROM core.settlement
GROUP BY 1, 2
"""


class Books:
    """A warehouse's rows, put there by hand through the owner's login."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._records = 0
        self._versions: dict[str, int] = {}

    def version(self, source_key: str, order: int, status: str, **values: Any) -> int:
        """Add a version, decided `order` minutes past noon; returns its record."""
        self._records += 1
        self._versions[source_key] = self._versions.get(source_key, 0) + 1
        settled_at = _NOON + timedelta(minutes=order)
        row = {
            "source": "ticktock",
            "source_key": source_key,
            "version": self._versions[source_key],
            "provider_order": f"n{order:024}",
            "status": status,
            "outcome": {"open": None, "void": "void"}.get(status, "won"),
            "settled_at": settled_at,
            "settled_at_basis": "provider",
            "is_resettlement": False,
            "is_applied": values.get("not_applied_reason") is None,
            "is_change": False,
            "recorded_at": settled_at,
            "accounting_date": settled_at.date(),
            "record_id": self._records,
            "batch_id": 1,
            **values,
        }
        self._insert(tables.settlement, row)
        return self._records

    def make_current(self) -> None:
        """Mark the last version of every subject and total the days, as publishing does."""
        for statement in (_MARK_CURRENT, _TOTAL_SETTLEMENTS, _TOTAL_RECORDINGS):
            self._connection.execute(text(statement))

    def batch(self, minutes: int, *, state: str = "published", **values: Any) -> int:
        """Add a batch opened that many minutes past noon and closed one later."""
        opened_at = _NOON + timedelta(minutes=minutes)
        row = {
            **_FEED,
            "kind": "fetch",
            "state": state,
            "opened_at": opened_at,
            "landed_at": None if state == "landing" else opened_at + timedelta(minutes=1),
            "held_at": opened_at if state == "held" else None,
            "has_reached_end": True,
            **values,
        }
        return int(self._insert(tables.batch, row))

    def record(self, landed_in: int) -> int:
        """Add a record that arrived in that batch."""
        row = {
            "page_id": 1,
            "byte_start": 0,
            "byte_length": 1,
            "source": "ticktock",
            "record_key": "entry-1",
            "content_sha256": b"",
            "batch_id": landed_in,
        }
        return int(self._insert(tables.record, row))

    def quarantine(self, landed_in: int, held_in: int, **values: Any) -> None:
        """Hold back, from batch `held_in`, a record that arrived in batch `landed_in`."""
        record_id = self.record(landed_in)
        self._insert(
            tables.quarantine,
            {
                "source": "ticktock",
                "stage": "normalize",
                "rule": "unknown_status",
                "reason": "new_status is 'paused'",
                "record_id": record_id,
                "batch_id": held_in,
                **values,
            },
        )

    def finding(self, **values: Any) -> int:
        """Open a finding about a page that cannot be decoded."""
        row = {
            "kind": "undecodable_page",
            "source": "ticktock",
            "subject": "settlements after 7",
            "severity": "critical",
            "summary": "A page cannot be decoded.",
            "kept": "Its bytes.",
            "next_step": "Decide.",
            **values,
        }
        return int(self._insert(tables.finding, row))

    def add(self, table: Table, **values: Any) -> None:
        """Add any other row."""
        self._insert(table, values)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, as finance would write it."""
        return [dict(row) for row in self._connection.execute(text(query)).mappings()]

    def completeness(self) -> dict[str, Any]:
        """The one feed's completeness."""
        (row,) = self.ask("SELECT * FROM finance.feed_completeness")
        return row

    def _insert(self, table: Table, row: dict[str, Any]) -> Any:
        """Insert the row; returns the first column of its primary key."""
        primary_key = self._connection.execute(insert(table).values(row)).inserted_primary_key
        assert primary_key is not None
        return primary_key[0]


@pytest.fixture
def books(shared_warehouse: Warehouse) -> Iterator[Books]:
    # Never committed: the next test begins with an empty warehouse again.
    with shared_warehouse.owner_engine.connect() as connection:
        yield Books(connection)


# --- settlements --------------------------------------------------------------------------------


def test_current_follows_the_providers_order_not_the_arrival(books: Books) -> None:
    books.version("bet", 2, "void", is_change=True)
    books.version("bet", 1, "settled", not_applied_reason="late")
    books.make_current()
    assert books.ask("SELECT status, version FROM finance.settlement_current") == [
        {"status": "void", "version": 1}
    ]
    history = books.ask(
        "SELECT version, is_current, replaced_version, replaced_status, replaced_settled_at,"
        " what_changed, not_applied_reason FROM finance.settlement_history ORDER BY version"
    )
    assert history == [
        {
            "version": 1,
            "is_current": True,
            "replaced_version": 2,
            "replaced_status": "settled",
            "replaced_settled_at": _NOON + timedelta(minutes=1),
            "what_changed": "status, outcome",
            "not_applied_reason": None,
        },
        {
            "version": 2,
            "is_current": False,
            "replaced_version": None,
            "replaced_status": None,
            "replaced_settled_at": None,
            "what_changed": None,
            "not_applied_reason": "late",
        },
    ]


def test_subjects_of_two_sources_with_the_same_key_are_two(books: Books) -> None:
    books.version("bet", 1, "settled")
    books.version("bet", 2, "void", source="other", version=1)
    books.make_current()
    rows = books.ask("SELECT source, replaced_version FROM finance.settlement_history")
    assert {row["source"]: row["replaced_version"] for row in rows} == {
        "ticktock": None,
        "other": None,
    }
    assert len(books.ask("SELECT FROM finance.settlement_current")) == 2


def test_a_player_is_seen_only_by_reference(books: Books) -> None:
    books.version("bet", 1, "settled", player_id="clear-id", player_reference="a1b2")
    books.version("bet", 2, "settled", player_id="another", player_reference="c3d4", is_change=True)
    books.make_current()
    for view in ("settlement_current", "settlement_history", "correction"):
        rows = books.ask(f"SELECT * FROM finance.{view}")
        assert rows
        assert "clear-id" not in repr(rows)
        assert "another" not in repr(rows)
    (correction,) = books.ask("SELECT * FROM finance.correction")
    assert correction["what_changed"] == "player"
    assert (correction["old_player_reference"], correction["new_player_reference"]) == (
        "a1b2",
        "c3d4",
    )


# --- corrections --------------------------------------------------------------------------------


def test_a_first_decision_after_open_is_no_correction_and_a_later_change_is(books: Books) -> None:
    books.version("bet", 1, "open")
    books.version("bet", 2, "settled", is_change=True)
    books.version("bet", 3, "settled", is_resettlement=True)
    books.version(
        "bet",
        4,
        "void",
        is_change=True,
        is_resettlement=True,
        settled_by="admin",
        reason="Offside, déjà vu",
        recorded_at=datetime(2026, 11, 20, 0, 30, tzinfo=UTC),
        accounting_date=date(2026, 11, 20),
    )
    books.make_current()
    (correction,) = books.ask("SELECT * FROM finance.correction")
    expected = {
        "source_key": "bet",
        "version": 4,
        "replaced_version": 3,
        "what_changed": "status, outcome",
        "old_status": "settled",
        "new_status": "void",
        "old_outcome": "won",
        "new_outcome": "void",
        "old_settled_at": _NOON + timedelta(minutes=3),
        "settled_at": _NOON + timedelta(minutes=4),
        "recorded_at": datetime(2026, 11, 20, 0, 30, tzinfo=UTC),
        "accounting_date": date(2026, 11, 20),
        "settled_by": "admin",
        "reason": "Offside, déjà vu",
        "is_resettlement": True,
        "is_current": True,
        "old_payout": None,
        "payout_difference": None,
    }
    assert {name: correction[name] for name in expected} == expected


def test_taking_a_decision_back_is_a_correction(books: Books) -> None:
    books.version("bet", 1, "settled")
    books.version("bet", 2, "open", is_change=True)
    books.version("bet", 3, "settled", outcome="lost", is_change=True)
    books.make_current()
    rows = books.ask("SELECT version, old_status, new_status FROM finance.correction")
    assert rows == [{"version": 2, "old_status": "settled", "new_status": "open"}]


def test_what_replaces_a_rejected_version_is_compared_with_the_one_before_it(books: Books) -> None:
    books.version("bet", 1, "settled", outcome="won")
    books.version("bet", 2, "settled", outcome="lost", is_rejected_by_decision=True)
    books.version("bet", 2, "void", is_change=True, not_applied_reason="same_order")
    books.make_current()
    (correction,) = books.ask("SELECT * FROM finance.correction")
    assert (correction["version"], correction["replaced_version"]) == (3, 1)
    assert (correction["old_outcome"], correction["new_outcome"]) == ("won", "void")
    rejected = books.ask(
        "SELECT replaced_version, is_current FROM finance.settlement_history"
        " WHERE is_rejected_by_decision"
    )
    assert rejected == [{"replaced_version": None, "is_current": False}]
    assert books.ask("SELECT version FROM finance.settlement_current") == [{"version": 3}]


def test_the_difference_in_payout_is_exact_and_only_within_one_currency(books: Books) -> None:
    money = {"currency": "EUR", "stake": Decimal("10"), "is_change": True}
    books.version("exact", 1, "settled", **{**money, "payout": Decimal("12345678901234567.10")})
    books.version("exact", 2, "settled", **{**money, "payout": Decimal("12345678901234567.30")})
    books.version("other", 1, "settled", **{**money, "payout": Decimal("1")})
    books.version("other", 2, "settled", **{**money, "payout": Decimal("2"), "currency": "GBP"})
    books.make_current()
    rows = books.ask(
        "SELECT source_key, what_changed, payout_difference FROM finance.correction"
        " ORDER BY source_key"
    )
    assert rows == [
        {
            "source_key": "exact",
            "what_changed": "payout",
            "payout_difference": Decimal("0.20"),
        },
        {"source_key": "other", "what_changed": "currency, payout", "payout_difference": None},
    ]


# --- days ---------------------------------------------------------------------------------------


def test_a_day_counts_current_versions_without_contested_ones(books: Books) -> None:
    euro = {"currency": "EUR", "stake": Decimal("0.10")}
    books.version("a", 1, "settled", **euro, payout=Decimal("0.20"))
    books.version("b", 2, "settled", **euro, payout=Decimal("0.10"))
    books.version("b", 3, "settled", **euro, payout=Decimal("0.30"), is_change=True)
    books.version("c", 4, "settled", **euro)
    books.version("d", 5, "open", **euro)
    books.version("e", 6, "settled", **euro, is_contested=True)
    books.version("e", 6, "void", **euro, is_contested=True, not_applied_reason="same_order")
    books.version("f", 7, "settled")
    books.version("g", 8, "settled", **{**euro, "currency": "GBP"}, payout=Decimal("1"))
    books.version("h", 12 * 60, "void")
    books.make_current()
    rows = books.ask(
        "SELECT settled_date, status, outcome, currency, settlements, stake, payout,"
        " settlements_without_payout FROM finance.daily_settlement"
        " ORDER BY settled_date, status, currency"
    )
    day, next_day = date(2026, 11, 19), date(2026, 11, 20)
    assert [tuple(row.values()) for row in rows] == [
        (day, "open", None, "EUR", 1, Decimal("0.10"), None, 1),
        (day, "settled", "won", "EUR", 3, Decimal("0.30"), Decimal("0.50"), 1),
        (day, "settled", "won", "GBP", 1, Decimal("0.10"), Decimal("1"), 0),
        (day, "settled", "won", None, 1, None, None, 1),
        (next_day, "void", "void", None, 1, None, None, 1),
    ]
    contested = books.ask("SELECT source_key FROM finance.settlement_current WHERE is_contested")
    assert contested == [{"source_key": "e"}]


def test_a_decided_contest_counts_again_and_an_old_one_never_stops_the_subject(
    books: Books,
) -> None:
    books.version("decided", 1, "settled", is_rejected_by_decision=True)
    books.version("decided", 1, "void", not_applied_reason="same_order")
    books.version("passed", 1, "settled", is_contested=True)
    books.version("passed", 1, "void", is_contested=True, not_applied_reason="same_order")
    books.version("passed", 2, "settled", outcome="lost", is_change=True)
    books.make_current()
    rows = books.ask("SELECT outcome, settlements FROM finance.daily_settlement ORDER BY outcome")
    assert rows == [{"outcome": "lost", "settlements": 1}, {"outcome": "void", "settlements": 1}]


def test_the_day_of_a_settlement_is_that_of_utc_for_every_reader(books: Books) -> None:
    books.version("bet", 11 * 60 + 59, "settled")
    books.make_current()
    books.ask("SELECT set_config('TimeZone', 'Pacific/Auckland', true)")
    assert books.ask("SELECT settled_date FROM finance.daily_settlement") == [
        {"settled_date": date(2026, 11, 19)}
    ]


def test_a_recording_day_counts_everything_once_and_only_sure_corrections(books: Books) -> None:
    on_the_20th = {"accounting_date": date(2026, 11, 20)}
    books.version("bet", 1, "settled")
    books.version("bet", 3, "void", is_change=True)
    books.version("bet", 2, "settled", not_applied_reason="late", **on_the_20th)
    books.version("bet", 4, "settled", is_change=True, is_contested=True, **on_the_20th)
    books.version("bet", 5, "void", is_change=True, **on_the_20th)
    books.make_current()
    rows = books.ask(
        "SELECT accounting_date, versions, corrections, late_versions, contested_versions"
        " FROM finance.daily_recording ORDER BY accounting_date"
    )
    assert [tuple(row.values()) for row in rows] == [
        (date(2026, 11, 19), 2, 1, 0, 0),
        (date(2026, 11, 20), 3, 1, 1, 1),
    ]


# One far ahead of UTC and one far behind: whatever the time is now, one of them would show it.
@pytest.mark.parametrize("time_zone", ["Etc/GMT-14", "Etc/GMT+12"])
def test_an_accounting_date_closes_at_one_utc_of_the_next_day(books: Books, time_zone: str) -> None:
    (now,) = books.ask(
        "SELECT (now() AT TIME ZONE 'UTC')::date AS today,"
        " (now() AT TIME ZONE 'UTC' - interval '1 hour')::date AS first_open"
    )
    first_open = now["first_open"]
    for days_before in range(3):
        day = first_open - timedelta(days=days_before)
        books.version(f"bet {day}", 1, "settled", accounting_date=day)
    books.make_current()
    books.ask(f"SELECT set_config('TimeZone', '{time_zone}', true)")
    rows = books.ask(
        "SELECT accounting_date, is_closed, closes_at FROM finance.daily_recording"
        " ORDER BY accounting_date DESC"
    )
    assert [row["is_closed"] for row in rows] == [False, True, True]
    tomorrow = first_open + timedelta(days=1)
    assert rows[0]["closes_at"] == datetime(
        tomorrow.year, tomorrow.month, tomorrow.day, 1, tzinfo=UTC
    )


# --- completeness -------------------------------------------------------------------------------


def _at(minutes: int) -> datetime:
    return _NOON + timedelta(minutes=minutes)


def test_a_feed_is_complete_until_its_last_full_and_published_fetch_began(books: Books) -> None:
    books.batch(0)
    books.batch(10)
    last = books.batch(20, has_reached_end=False)
    row = books.completeness()
    assert row["complete_until"] == _at(10)
    assert row["statement"] == "Numbers can be trusted up to 2026-11-19 12:10:00 UTC."
    assert (row["last_batch_id"], row["last_batch_state"]) == (last, "published")
    assert row["last_batch_opened_at"] == _at(20)


def test_a_feed_that_never_reached_the_end_is_not_to_be_trusted(books: Books) -> None:
    books.batch(0, has_reached_end=False)
    row = books.completeness()
    assert row["complete_until"] is None
    assert row["statement"] == "No number of this feed can be trusted yet."


def test_a_feed_that_has_only_a_cursor_is_shown(books: Books) -> None:
    books.add(tables.cursor, **_FEED, position={})
    assert books.completeness()["complete_until"] is None


@pytest.mark.parametrize("state", ["landing", "landed", "normalized", "held"])
def test_later_batches_do_not_hide_one_that_is_unfinished(books: Books, state: str) -> None:
    books.batch(0)
    books.batch(10, state=state, held_reason="too few" if state == "held" else None)
    books.batch(20)
    row = books.completeness()
    assert row["complete_until"] == _at(0)
    if state == "held":
        assert (row["held_batches"], row["unfinished_batches"]) == (1, 0)
        assert (row["oldest_held_at"], row["oldest_held_reason"]) == (_at(10), "too few")
        assert row["statement"].endswith("12:00:00 UTC: batches held by a check: 1.")
    else:
        assert (row["held_batches"], row["unfinished_batches"]) == (0, 1)
        assert row["oldest_unfinished_at"] == _at(10)
        assert row["statement"].endswith("12:00:00 UTC: batches on their way: 1.")


def test_what_a_decision_gave_up_is_no_longer_waited_for(books: Books) -> None:
    books.batch(0)
    given_up = books.batch(10, state="discarded")
    books.quarantine(given_up, given_up, state="discarded")
    books.add(
        tables.gap,
        **_FEED,
        range_before="9",
        reason="newest first",
        state="accepted",
        opened_at=_at(10),
        closed_at=_at(30),
    )
    row = books.completeness()
    assert row["complete_until"] == _at(10)
    assert (row["open_gaps"], row["quarantined_records"]) == (0, 0)


def test_a_quarantined_record_counts_from_when_it_arrived_until_it_is_published(
    books: Books,
) -> None:
    books.batch(0)
    landed_in = books.batch(10)
    books.batch(20)
    replay = books.batch(30, state="landed", kind="replay", has_reached_end=False)
    books.quarantine(landed_in, landed_in, state="replayed", replay_batch_id=replay)
    assert books.completeness()["complete_until"] == _at(0)
    assert books.completeness()["quarantined_records"] == 1
    books.ask("UPDATE ops.batch SET state = 'published' WHERE kind = 'replay' RETURNING 1")
    row = books.completeness()
    assert (row["complete_until"], row["quarantined_records"]) == (_at(20), 0)


def test_a_record_that_its_replay_held_back_again_still_counts_from_its_arrival(
    books: Books,
) -> None:
    books.batch(0)
    landed_in = books.batch(10)
    books.batch(20)
    replay = books.batch(30, kind="replay", has_reached_end=False)
    books.quarantine(landed_in, replay)
    assert books.completeness()["complete_until"] == _at(0)


def test_the_fetch_that_found_a_gap_does_not_count_as_complete(books: Books) -> None:
    books.batch(0)
    books.batch(10)
    books.add(
        tables.gap,
        **_FEED,
        range_before="9",
        reason="newest first",
        opened_at=_at(10) + timedelta(seconds=30),
    )
    books.batch(20)
    row = books.completeness()
    assert (row["complete_until"], row["open_gaps"]) == (_at(0), 1)
    assert row["statement"].endswith(": gaps: 1.")


def test_contested_versions_count_from_the_batch_of_the_first(books: Books) -> None:
    books.batch(0)
    first, second = books.batch(10), books.batch(20)
    books.version("bet", 1, "settled", is_contested=True, batch_id=first)
    books.version(
        "bet", 1, "void", is_contested=True, batch_id=second, not_applied_reason="same_order"
    )
    row = books.completeness()
    assert (row["complete_until"], row["contested_versions"]) == (_at(0), 2)


def test_contested_versions_that_a_replay_brought_count_from_when_they_arrived(
    books: Books,
) -> None:
    books.batch(0)
    landed_in = books.batch(10)
    books.batch(20)
    replay = books.batch(30, kind="replay", has_reached_end=False)
    for status, reason in (("settled", None), ("void", "same_order")):
        books.version(
            "bet",
            1,
            status,
            is_contested=True,
            batch_id=replay,
            record_id=books.record(landed_in),
            not_applied_reason=reason,
        )
    row = books.completeness()
    assert (row["complete_until"], row["contested_versions"]) == (_at(0), 2)


def test_a_stopped_feed_says_which_finding_stops_it(books: Books) -> None:
    books.batch(0)
    finding_id = books.finding()
    books.add(
        tables.cursor,
        **_FEED,
        position={},
        completed_at=_at(1),
        stopped_by_finding_id=finding_id,
    )
    row = books.completeness()
    assert row["statement"].endswith(f": reading stopped until finding {finding_id} is decided.")
    assert (row["stopped_by_finding_id"], row["stopped_because"]) == (
        finding_id,
        "A page cannot be decoded.",
    )
    assert row["last_completed_at"] == _at(1)


def test_the_feeds_of_a_source_do_not_stand_for_each_other(books: Books) -> None:
    books.batch(0, feed="other", state="held")
    books.batch(0, feed="partly read", has_reached_end=False)
    books.batch(10)
    rows = books.ask("SELECT feed, complete_until FROM finance.feed_completeness ORDER BY feed")
    assert rows == [
        {"feed": "other", "complete_until": None},
        {"feed": "partly read", "complete_until": None},
        {"feed": "settlements", "complete_until": _at(10)},
    ]


def test_the_newest_decision_is_that_of_the_last_batch_that_brought_any(books: Books) -> None:
    brought = books.batch(0, received=2, landed=2, published=2, record_id_first=1, record_id_last=3)
    books.batch(10)
    books.version("a", 5, "settled", batch_id=brought)
    books.version("b", 9, "settled", source="other", batch_id=brought + 99)
    books.version("c", 4, "settled", batch_id=brought)
    assert books.completeness()["newest_settled_at"] == _at(5)


# --- questions, answers, deliveries -------------------------------------------------------------


def test_open_findings_are_shown_and_closed_ones_are_not(books: Books) -> None:
    closed = books.finding(state="closed", closed_at=_at(5), closed_by="decision")
    still_open = books.finding(subject="settlements after 9", opened_at=_at(3))
    (row,) = books.ask("SELECT * FROM finance.finding_open")
    assert (row["finding_id"], row["what_happened"], row["next_step"], row["opened_at"]) == (
        still_open,
        "A page cannot be decoded.",
        "Decide.",
        _at(3),
    )
    assert closed != still_open


def test_a_decision_is_shown_with_its_question(books: Books) -> None:
    finding_id = books.finding(state="closed", closed_at=_at(5), closed_by="decision")
    books.add(
        tables.decision,
        finding_id=finding_id,
        decision="skip_page",
        decided_by="ada",
        reason="The provider confirmed it.",
        reference="MAIL-7",
        parameters={"seen": "c68ddc87", "record_id": 4043},
        state_before={"player_id": "clear-id"},
        state_after={},
        decided_at=_at(5),
    )
    (row,) = books.ask("SELECT * FROM finance.decision")
    expected = {
        "decision": "skip_page",
        "decided_by": "ada",
        "reason": "The provider confirmed it.",
        "reference": "MAIL-7",
        "decided_at": _at(5),
        "finding_kind": "undecodable_page",
        "what_happened": "A page cannot be decoded.",
        "chosen_record_id": 4043,
    }
    assert {name: row[name] for name in expected} == expected
    assert "clear-id" not in repr(row)


def test_no_record_of_a_batch_is_unaccounted_for(books: Books) -> None:
    books.batch(0, received=12, duplicates=2, landed=10, quarantined=1, state="normalized")
    books.batch(
        1,
        received=10,
        landed=10,
        published=5,
        not_applied=2,
        evidence_only=1,
        quarantined=2,
    )
    books.batch(2, received=4, landed=4, quarantined=1, discarded=3, state="discarded")
    rows = books.ask("SELECT received, landed, waiting FROM finance.batch ORDER BY batch_id")
    assert [tuple(row.values()) for row in rows] == [(12, 10, 9), (10, 10, 0), (4, 4, 0)]


def test_what_is_held_back_is_shown_with_the_providers_id_and_the_reason(books: Books) -> None:
    landed_in = books.batch(0)
    books.quarantine(landed_in, landed_in)
    (row,) = books.ask("SELECT * FROM finance.quarantined")
    expected = {
        "feed": "settlements",
        "record_key": "entry-1",
        "rule": "unknown_status",
        "reason": "new_status is 'paused'",
        "state": "open",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_gap_tells_its_range_and_how_many_subjects_can_fill_it(books: Books) -> None:
    books.add(
        tables.gap, **_FEED, range_after="3", range_before="9", reason="x", subjects=["m1", "m2"]
    )
    (row,) = books.ask("SELECT * FROM finance.gap")
    assert (row["range_after"], row["range_before"], row["subjects_to_ask_for"], row["state"]) == (
        "3",
        "9",
        2,
        "open",
    )
