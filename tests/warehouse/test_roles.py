"""What each role may do, and what it may not: tried out over the logins that processes use."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, create_engine, insert, text
from sqlalchemy.exc import DBAPIError

from include.warehouse.database import Role, open_engine, transaction
from include.warehouse.roles import ROLES
from include.warehouse.tables import SCHEMAS, metadata
from tests.payouts.entering import DAY, enter, payout, writer
from tests.warehouses import Warehouse

_INSERT_PAGE = (
    "INSERT INTO raw.page (source, feed, batch_id, requested_at, received_at, request, body)"
    " SELECT '', '', 1, now(), now(), '', '' WHERE false"
)
_INSERT_RECORD = (
    "INSERT INTO raw.record (page_id, byte_start, byte_length, source, record_key, content_sha256,"
    " batch_id) SELECT 1, 0, 1, '', '', '', 1 WHERE false"
)
_INSERT_VERSION = "INSERT INTO core.settlement SELECT * FROM core.settlement WHERE false"
_INSERT_DECISION = (
    "INSERT INTO ops.decision (finding_id, decision, decided_by, reason, state_before, state_after)"
    " SELECT 1, '', '', '', '{}', '{}' WHERE false"
)
_INSERT_BATCH = (
    "INSERT INTO ops.batch (source, feed, kind) VALUES ('ticktock', 'settlements', 'fetch')"
)
_ENTER = (
    "INSERT INTO wallet.transaction (transaction_id, ref_transaction_id, session_id, round_id,"
    " player_id, game_id, currency, amount, is_win, business_date, origin_source, origin_key)"
    " SELECT '', '', '', '', '', '', '', 0, true, '2026-11-20', '', '' WHERE false"
)
_INSERT_REJECTED_LINE = (
    "INSERT INTO wallet.rejected_line (file_name, line_number, reason, line, line_bytes,"
    " line_sha256) SELECT '', 1, '', '', 0, '' WHERE false"
)
_INSERT_FINDING = (
    "INSERT INTO ops.finding (kind, source, subject, severity, summary, kept, next_step)"
    " SELECT '', '', '', 'info', '', '', '' WHERE false"
)
_FREEZE = "UPDATE wallet.transaction SET item = '' WHERE false"
_DISPOSE = "UPDATE wallet.transaction SET disposition = 'processed', evidence = '{}' WHERE false"
_READ_PAYOUTS = "SELECT * FROM wallet.transaction"
_READ_CONFLICTS = "SELECT * FROM wallet.transaction_conflict"
_READ_ATTEMPTS = "SELECT * FROM wallet.attempt JOIN wallet.attempt_item USING (attempt_id)"
_RELEASE = (
    "UPDATE wallet.transaction SET hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL,"
    " released_at = now(), evidence = NULL WHERE false"
)
_INSERT_WINDOW = "INSERT INTO wallet.sending_window (epoch, closes_at) SELECT 1, now() WHERE false"
_INSERT_ATTEMPT = (
    "INSERT INTO wallet.attempt (window_id, epoch, run_id, currency, stage, items, amount,"
    " body_sha256, deadline_at) SELECT 1, 1, '', '', 0, 1, 1, '', now() WHERE false"
)
_INSERT_ATTEMPT_ITEM = (
    "INSERT INTO wallet.attempt_item (transaction_id, attempt_id, place) SELECT '', 1, 1"
    " WHERE false"
)
_CLOSE_ATTEMPT = (
    "UPDATE wallet.attempt SET result = 'answered', detail = '', closed_at = now(),"
    " closed_by_epoch = 1, http_status = 200, content_type = '', answer = '',"
    " is_answer_complete = true, answer_code = '' WHERE false"
)
_CLOSE_ATTEMPT_ITEM = (
    "UPDATE wallet.attempt_item SET outcome = 'ok', code = '', balance = 0, detail = '' WHERE false"
)
_REPORT = (
    "INSERT INTO wallet.reported_outcome (business_date, currency, entered_payouts, entered_amount,"
    " processed_payouts, processed_amount, lost_payouts, lost_amount, open_payouts, open_amount,"
    " held_payouts, held_amount) SELECT '2026-11-20', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 WHERE false"
)
_TAKE_LEASE = (
    "INSERT INTO ops.lease (name, epoch, acquired_at, expires_at) SELECT '', 1, now(), now()"
    " WHERE false"
)
_SENDS = (
    _INSERT_WINDOW,
    _INSERT_ATTEMPT,
    _INSERT_ATTEMPT_ITEM,
    _CLOSE_ATTEMPT,
    _CLOSE_ATTEMPT_ITEM,
    _REPORT,
)
_CONNECT = (
    "INSERT INTO ops.connect_attempt (source, kind, epoch) SELECT '', 'proper', 1 WHERE false"
)
_END_CONNECTION = (
    "UPDATE ops.connect_attempt SET ended_at = now(), ending = '', messages = 1 WHERE false"
)
_STREAMS = (_CONNECT, _END_CONNECTION)
_ENTER_BET = "INSERT INTO tote.bet (tote_id) SELECT '' WHERE false ON CONFLICT DO NOTHING"
_ENTER_MARKET = (
    "INSERT INTO prediction.market (market_id, currency) SELECT '', 'EUR' WHERE false"
    " ON CONFLICT DO NOTHING"
)
_READ_MARKETS = "SELECT * FROM prediction.market, prediction.attempt"
_MOVE_MARKET = "UPDATE prediction.market SET state = 'waiting' WHERE false"
_SETTLE_MARKETS = (
    "INSERT INTO prediction.market (market_id, evidence, state) SELECT '', '{}', 'resolved'"
    " WHERE false",
    "INSERT INTO prediction.attempt (market_id, call, deadline_at) SELECT '', 'settle', now()"
    " WHERE false",
    "UPDATE prediction.attempt SET closed_at = now(), result = 'executed' WHERE false",
)
_SET_BET_ASIDE = (
    "UPDATE tote.bet SET state = 'done', next_ask_at = NULL, is_asked_alone = true WHERE false"
)
_READ_BETS = "SELECT * FROM tote.bet, tote.hint"
_FOLLOW_BETS = (
    "UPDATE tote.bet SET answered_at = now() WHERE false",
    "UPDATE tote.hint SET confirmed_at = now() WHERE false",
    "INSERT INTO tote.bet (tote_id, entered_by) SELECT '', 'listing' WHERE false",
    "INSERT INTO tote.hint (record_id, tote_id, message_type, received_at)"
    " SELECT 1, '', '', now() WHERE false",
    "INSERT INTO tote.rejected_line (file_name, line_number, reason, line, line_bytes,"
    " line_sha256) SELECT '', 1, '', '', 0, '' WHERE false",
)
_CREDIT = (
    "INSERT INTO prediction.credit (settlement_id, market_id, position_id, amount, record_id,"
    " state, accounting_date) SELECT '', '', '', 1, 1, 'owed', '2026-11-21' WHERE false"
)
_ADJUST = (
    "INSERT INTO prediction.adjustment (credit_id, currency, amount_before, amount_after,"
    " difference, record_id, accounting_date) SELECT 1, '', 1, 2, 1, 1, '2026-11-21' WHERE false"
)
_MOVE_CREDIT = "UPDATE prediction.credit SET state = 'due', hold_reason = NULL WHERE false"
_ACKNOWLEDGE = "UPDATE prediction.credit SET state = 'acknowledged', reference = '' WHERE false"
_READ_CREDITS = "SELECT * FROM prediction.credit"
_HOLD = "UPDATE wallet.transaction SET hold_reason = '', hold_detail = '' WHERE false"

# `WHERE false` touches no row: a privilege is asked for before rows are looked at.
_MAY: dict[Role, tuple[str, ...]] = {
    "loader": (
        _INSERT_PAGE,
        _INSERT_RECORD,
        _INSERT_VERSION,
        _INSERT_BATCH,
        "SELECT raw.ensure_page_month('2026-11-21Z')",
        "SELECT ops.player_reference('player')",
        "SELECT count(*) FROM raw.record_payload",
        "DELETE FROM staging.settlement WHERE false",
        "DELETE FROM staging.settlement_leg WHERE false",
        "UPDATE core.settlement SET is_change = true, chain_break = NULL, is_contested = false,"
        " is_current = true, is_correction = true"
        " WHERE false",
        "UPDATE core.daily_settlement SET settlements = 1 WHERE false",
        "UPDATE ops.cursor SET position = '{}' WHERE false",
        "UPDATE ops.finding SET times_seen = 2 WHERE false",
        "CREATE TEMPORARY TABLE several (source_key text) ON COMMIT DROP",
        _TAKE_LEASE,
        *_STREAMS,
        _ENTER_BET,
        _READ_BETS,
        *_FOLLOW_BETS,
        _READ_MARKETS,
        _MOVE_MARKET,
        *_SETTLE_MARKETS,
    ),
    "resolver": (
        _INSERT_DECISION,
        _INSERT_BATCH,
        "SELECT count(*) FROM raw.record_payload",
        "DELETE FROM staging.settlement WHERE false",
        "UPDATE core.settlement SET is_rejected_by_decision = true, is_contested = false"
        " WHERE false",
        "UPDATE core.daily_recording SET corrections = 0 WHERE false",
        "UPDATE ops.batch SET state = 'discarded' WHERE false",
        "UPDATE ops.quarantine SET state = 'discarded' WHERE false",
        "UPDATE ops.gap SET state = 'accepted' WHERE false",
        "UPDATE ops.cursor SET stopped_by_finding_id = NULL WHERE false",
        "SELECT nextval('ops.decision_decision_id_seq')",
        _READ_PAYOUTS,
        _READ_ATTEMPTS,
        _RELEASE,
        _DISPOSE,
        "SELECT transaction_id FROM wallet.transaction FOR UPDATE",
        _READ_BETS,
        _SET_BET_ASIDE,
        _READ_MARKETS,
        _MOVE_MARKET,
        _READ_CREDITS,
        _MOVE_CREDIT,
        _ACKNOWLEDGE,
        "CREATE TEMPORARY TABLE chosen (transaction_id text) ON COMMIT DROP",
    ),
    "wallet_writer": (_ENTER,),
    "importer": (
        _READ_PAYOUTS,
        _INSERT_REJECTED_LINE,
        _INSERT_FINDING,
        "SELECT * FROM wallet.rejected_line",
        "CREATE TEMPORARY TABLE lines (number bigint) ON COMMIT DROP",
    ),
    "crediter": (
        _CREDIT,
        _ADJUST,
        _MOVE_CREDIT,
        _READ_CREDITS,
        _READ_PAYOUTS,
        _ENTER,
        _HOLD,
        _INSERT_FINDING,
        "UPDATE prediction.credit SET amount = 1, transaction_id = '' WHERE false",
        "UPDATE prediction.adjustment SET finding_id = 1 WHERE false",
        "UPDATE prediction.credited_market SET revision = 1 WHERE false",
        "SELECT wallet.is_sent(transaction) FROM wallet.transaction",
        "SELECT * FROM core.settlement, prediction.market",
        "CREATE TEMPORARY TABLE told (number bigint) ON COMMIT DROP",
    ),
    "sender": (
        _FREEZE,
        _DISPOSE,
        _READ_PAYOUTS,
        _READ_CONFLICTS,
        _INSERT_FINDING,
        "SELECT * FROM wallet.transaction FOR UPDATE",
        "UPDATE wallet.transaction SET hold_reason = NULL, hold_detail = NULL,"
        " hold_finding_id = NULL WHERE false",
        "UPDATE wallet.transaction_conflict SET finding_id = 1 WHERE false",
        "UPDATE ops.lease SET expires_at = now() WHERE false",
        _READ_ATTEMPTS,
        *_SENDS,
        _TAKE_LEASE,
    ),
}

_NOBODY_MAY = (
    "UPDATE raw.page SET body = '' WHERE false",
    "UPDATE raw.record SET content_sha256 = '' WHERE false",
    "DELETE FROM raw.page WHERE false",
    "DELETE FROM raw.record WHERE false",
    "TRUNCATE raw.record",
    "UPDATE core.settlement SET payout = 1 WHERE false",
    "UPDATE core.settlement SET status = 'void' WHERE false",
    "UPDATE core.settlement SET accounting_date = '2026-01-01' WHERE false",
    "DELETE FROM core.settlement WHERE false",
    "DELETE FROM core.settlement_leg WHERE false",
    "DELETE FROM core.daily_settlement WHERE false",
    "DELETE FROM core.daily_recording WHERE false",
    "UPDATE core.settlement_leg SET price = 1 WHERE false",
    "DELETE FROM ops.batch WHERE false",
    "DELETE FROM ops.finding WHERE false",
    "DELETE FROM ops.quarantine WHERE false",
    "UPDATE ops.decision SET reason = '' WHERE false",
    "DELETE FROM ops.decision WHERE false",
    "UPDATE ops.quality_result SET is_met = true WHERE false",
    "UPDATE ops.connect_attempt SET attempted_at = now() WHERE false",
    "UPDATE ops.connect_attempt SET kind = 'proper' WHERE false",
    "DELETE FROM ops.connect_attempt WHERE false",
    "UPDATE ops.rate_terms SET base_currency = '' WHERE false",
    "DELETE FROM ops.rate_terms WHERE false",
    "SELECT * FROM ops.player_pad",
    "UPDATE ops.player_pad SET inner_pad = ''",
    "UPDATE wallet.transaction SET amount = 1 WHERE false",
    "UPDATE wallet.transaction SET business_date = '2026-11-20' WHERE false",
    "UPDATE wallet.transaction SET disposed_at = now(), accounting_date = NULL WHERE false",
    "DELETE FROM wallet.transaction WHERE false",
    "TRUNCATE wallet.transaction CASCADE",
    "INSERT INTO wallet.transaction (transaction_id, disposition) SELECT '', 'lost' WHERE false",
    "SELECT * FROM wallet.transaction_claim",
    "INSERT INTO wallet.transaction_claim SELECT '' WHERE false",
    "DELETE FROM wallet.transaction_claim WHERE false",
    "UPDATE wallet.transaction_conflict SET amount = 1 WHERE false",
    "DELETE FROM wallet.transaction_conflict WHERE false",
    "DELETE FROM wallet.rejected_line WHERE false",
    *(f"DELETE FROM tote.{table} WHERE false" for table in ("bet", "hint", "rejected_line")),
    "UPDATE prediction.attempt SET committed_at = now() WHERE false",
    "UPDATE prediction.attempt SET deadline_at = now() WHERE false",
    "UPDATE prediction.credit SET settlement_id = '' WHERE false",
    "UPDATE prediction.credit SET position_id = '' WHERE false",
    "UPDATE prediction.adjustment SET difference = 1 WHERE false",
    "SELECT prediction.acknowledge(ARRAY[1], 'mine')",
    *(
        f"DELETE FROM prediction.{table} WHERE false"
        for table in ("market", "attempt", "credit", "adjustment", "credited_market")
    ),
    "UPDATE wallet.attempt SET body_sha256 = '' WHERE false",
    "UPDATE wallet.attempt SET deadline_at = now() WHERE false",
    "UPDATE wallet.attempt_item SET place = 2 WHERE false",
    "UPDATE wallet.sending_window SET closes_at = now() WHERE false",
    "UPDATE wallet.reported_outcome SET lost_payouts = 0 WHERE false",
    "INSERT INTO wallet.hold (transaction_id, hold_reason) SELECT '', '' WHERE false",
    "UPDATE wallet.hold SET ended_at = now() WHERE false",
    *(
        f"DELETE FROM {table} WHERE false"
        for table in (
            *("wallet.attempt", "wallet.attempt_item", "wallet.sending_window", "wallet.hold"),
            *("wallet.reported_outcome", "ops.lease"),
        )
    ),
    "SELECT wallet.refuse_change('', '')",
    "SELECT * FROM public.alembic_version",
    "CREATE TABLE public.mine (id integer)",
    "CREATE TABLE core.mine (id integer)",
    "CREATE VIEW finance.mine AS SELECT 1 AS one",
)

_MAY_NOT: dict[Role, tuple[str, ...]] = {
    "loader": (
        *_NOBODY_MAY,
        "UPDATE core.settlement SET is_rejected_by_decision = true WHERE false",
        _INSERT_DECISION,
        _READ_PAYOUTS,
        _READ_ATTEMPTS,
        _ENTER,
        _FREEZE,
        _DISPOSE,
        _RELEASE,
        *_SENDS,
    ),
    "resolver": (
        *_NOBODY_MAY,
        _INSERT_PAGE,
        _INSERT_RECORD,
        _INSERT_VERSION,
        "INSERT INTO staging.settlement SELECT * FROM staging.settlement WHERE false",
        "INSERT INTO ops.cursor (source, feed, position) SELECT '', '', '{}' WHERE false",
        "INSERT INTO ops.quality_result (batch_id, gate, expectation, severity, is_met)"
        " SELECT 1, 'check_raw', '', 'critical', true WHERE false",
        "SELECT ops.player_reference('player')",
        "SELECT raw.ensure_page_month('2026-11-21Z')",
        _READ_CONFLICTS,
        _ENTER,
        _FREEZE,
        *_SENDS,
        _TAKE_LEASE,
        *_STREAMS,
        *_FOLLOW_BETS,
        *_SETTLE_MARKETS,
        _ENTER_BET,
    ),
    "wallet_writer": (
        *_NOBODY_MAY,
        _READ_PAYOUTS,
        _READ_CONFLICTS,
        _FREEZE,
        _DISPOSE,
        _RELEASE,
        _READ_ATTEMPTS,
        *_SENDS,
        _TAKE_LEASE,
        *_STREAMS,
        *_FOLLOW_BETS,
        *_SETTLE_MARKETS,
        _READ_MARKETS,
        _MOVE_MARKET,
        _ENTER_MARKET,
        _ENTER_BET,
        _READ_BETS,
        _INSERT_REJECTED_LINE,
        _INSERT_FINDING,
        "INSERT INTO wallet.transaction (transaction_id, hold_reason) SELECT '', '' WHERE false",
        "INSERT INTO wallet.transaction (transaction_id, entered_at) SELECT '', now() WHERE false",
        "INSERT INTO wallet.transaction (transaction_id, item) SELECT '', '' WHERE false",
        "SELECT ops.player_reference('player')",
        "SELECT * FROM core.settlement",
        "SELECT * FROM ops.finding",
    ),
    "importer": (
        *_NOBODY_MAY,
        _ENTER,
        _FREEZE,
        _DISPOSE,
        _RELEASE,
        _READ_CONFLICTS,
        _READ_ATTEMPTS,
        *_SENDS,
        _TAKE_LEASE,
        *_STREAMS,
        "UPDATE wallet.rejected_line SET reason = '' WHERE false",
        "SELECT * FROM core.settlement",
    ),
    "sender": (
        *_NOBODY_MAY,
        _ENTER,
        _INSERT_REJECTED_LINE,
        _INSERT_DECISION,
        _RELEASE,
        *_STREAMS,
        "INSERT INTO wallet.transaction_conflict (transaction_id) SELECT '' WHERE false",
        "SELECT * FROM core.settlement",
        "SELECT ops.player_reference('player')",
        _CREDIT,
        _READ_CREDITS,
        _MOVE_CREDIT,
        _ACKNOWLEDGE,
    ),
    "crediter": (
        *_NOBODY_MAY,
        _ACKNOWLEDGE,
        _FREEZE,
        _DISPOSE,
        _RELEASE,
        _INSERT_REJECTED_LINE,
        _INSERT_DECISION,
        _TAKE_LEASE,
        _MOVE_MARKET,
        *_SENDS,
        *_STREAMS,
        *_SETTLE_MARKETS,
        _INSERT_VERSION,
        "SELECT * FROM prediction.owed",
        "SELECT ops.player_reference('player')",
    ),
}


def _of_each_role(lists: dict[Role, tuple[str, ...]]) -> list[tuple[Role, str]]:
    return [(role, statement) for role, statements in lists.items() for statement in statements]


def _is_refused(connection: Connection, statement: str) -> bool:
    """Whether Postgres refuses `statement` for want of a privilege; any other error is raised."""
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except DBAPIError as error:
        if isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
            return True
        raise
    return False


@pytest.fixture
def finance(shared_warehouse: Warehouse) -> Iterator[Engine]:
    engine = open_engine(shared_warehouse.finance_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("role", list(_MAY))
def test_a_role_may_do_its_work(shared_warehouse: Warehouse, role: Role) -> None:
    with transaction(shared_warehouse.engine, role) as connection:
        refused = [statement for statement in _MAY[role] if _is_refused(connection, statement)]
    assert refused == []


@pytest.mark.parametrize("role", list(_MAY_NOT))
def test_a_role_may_do_nothing_else(shared_warehouse: Warehouse, role: Role) -> None:
    with transaction(shared_warehouse.engine, role) as connection:
        done = [stmt for stmt in _MAY_NOT[role] if not _is_refused(connection, stmt)]
    assert done == []


def test_pipelines_may_do_nothing_without_a_role(shared_warehouse: Warehouse) -> None:
    statements = [statement for _, statement in _of_each_role(_MAY)]
    statements = [stmt for stmt in statements if not stmt.startswith("CREATE TEMPORARY")]
    reads = [f"SELECT * FROM {table.fullname}" for table in metadata.sorted_tables]
    with shared_warehouse.engine.begin() as connection:
        done = [
            statement
            for statement in (*statements, *reads, "SELECT * FROM finance.settlement_current")
            if not _is_refused(connection, statement)
        ]
    assert done == []


@pytest.mark.parametrize("role", ["finance_reader", "postgres"])
def test_pipelines_may_take_no_role_of_another(shared_warehouse: Warehouse, role: str) -> None:
    with shared_warehouse.engine.begin() as connection:
        assert _is_refused(connection, f"SET LOCAL ROLE {role}")


def test_a_role_lasts_for_one_transaction(shared_warehouse: Warehouse) -> None:
    with transaction(shared_warehouse.engine, "loader") as connection:
        assert connection.scalar(text("SELECT current_user")) == "loader"
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with shared_warehouse.engine.begin() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == pid
        assert connection.scalar(text("SELECT current_user")) == "pipelines"


def test_finance_reads_every_view_of_its_schema(
    shared_warehouse: Warehouse, finance: Engine
) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        views = connection.scalars(
            text("SELECT viewname FROM pg_views WHERE schemaname = 'finance'")
        ).all()
    assert {"settlement_current", "correction", "feed_completeness"} < set(views)
    with finance.connect() as connection:
        for view in views:
            connection.execute(text(f"SELECT * FROM {view}")).all()


def test_finance_reads_nothing_else(shared_warehouse: Warehouse, finance: Engine) -> None:
    calls = (
        "SELECT ops.player_reference('player')",
        "SELECT raw.ensure_page_month('2026-11-21Z')",
        "SELECT * FROM raw.record_payload",
    )
    reads = [f"SELECT * FROM {table.fullname}" for table in metadata.sorted_tables]
    assert any("core.settlement" in read for read in reads)
    with finance.connect() as connection:
        assert [stmt for stmt in (*reads, *calls) if not _is_refused(connection, stmt)] == []


def test_finance_writes_nothing_even_if_it_asks_to(finance: Engine) -> None:
    statements = [
        *_NOBODY_MAY,
        *(statement for statement in _MAY["loader"] if not statement.startswith("CREATE TEMP")),
        "INSERT INTO finance.finding_open (finding_id) SELECT 1 WHERE false",
        "UPDATE finance.batch SET held_reason = '' WHERE false",
        "DELETE FROM finance.gap WHERE false",
    ]
    with finance.begin() as connection:
        connection.execute(text("SET TRANSACTION READ WRITE"))
        assert [stmt for stmt in statements if not _is_refused(connection, stmt)] == []


def test_finance_is_read_only_and_timed_by_default(finance: Engine) -> None:
    with finance.connect() as connection:
        assert connection.scalar(text("SHOW default_transaction_read_only")) == "on"
        assert connection.scalar(text("SHOW statement_timeout")) == "1min"
        assert connection.scalar(text("SHOW search_path")) == "finance"


def test_player_ids_are_in_no_view_of_finance(shared_warehouse: Warehouse) -> None:
    with shared_warehouse.owner_engine.connect() as connection:
        columns = connection.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'finance'"
            )
        ).all()
    assert ("settlement_current", "player_reference") in [tuple(column) for column in columns]
    assert [tuple(column) for column in columns if column.column_name.endswith("player_id")] == []


def test_every_grant_of_every_role_is_in_its_own_schemas(shared_warehouse: Warehouse) -> None:
    """A grant that this file forgets still may not delete, truncate or leave finance's schema."""
    query = text(
        "SELECT grantee, table_schema, table_name, privilege_type"
        " FROM information_schema.role_table_grants WHERE grantee = ANY(:roles)"
        " OR grantee = 'PUBLIC' AND table_schema = ANY(:schemas)"
    )
    with shared_warehouse.owner_engine.connect() as connection:
        rows = connection.execute(query, {"roles": [*ROLES], "schemas": [*SCHEMAS]}).all()
    grants = {tuple(row) for row in rows}
    # What these may do they may do with single columns only.
    assert {grantee for grantee, *_ in grants} == set(ROLES) - {"wallet_writer", "register_writer"}
    deletes = {grant for grant in grants if grant[3] in ("DELETE", "TRUNCATE")}
    assert deletes == {
        ("loader", "staging", "settlement", "DELETE"),
        ("loader", "staging", "settlement_leg", "DELETE"),
        ("resolver", "staging", "settlement", "DELETE"),
        ("resolver", "staging", "settlement_leg", "DELETE"),
    }
    of_finance = {grant[1::2] for grant in grants if grant[0] == "finance_reader"}
    assert of_finance == {("finance", "SELECT")}


def test_an_operators_own_system_enters_payouts_and_nothing_else(
    shared_warehouse: Warehouse,
) -> None:
    engine = open_engine(shared_warehouse.outbox_url)
    reads = [f"SELECT * FROM {table.fullname}" for table in metadata.sorted_tables]
    with engine.begin() as connection:
        assert not _is_refused(connection, _ENTER)
        done = [
            statement
            for statement in (*_NOBODY_MAY, *reads, *_MAY["sender"], "SET LOCAL ROLE sender")
            if not _is_refused(connection, statement)
        ]
    engine.dispose()
    assert done == []


@pytest.mark.parametrize(("login", "patience"), [("outbox", "5min"), ("credits", "1min")])
def test_who_holds_others_up_is_ended_when_idle_in_a_transaction(
    shared_warehouse: Warehouse, login: str, patience: str
) -> None:
    # Not `open_engine`, whose sessions bring a patience of their own.
    engine = create_engine(getattr(shared_warehouse, f"{login}_url"))
    with engine.connect() as connection:
        setting = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    engine.dispose()
    assert setting == patience


def test_only_what_credits_players_enters_credits(warehouse: Warehouse) -> None:
    mine = payout("prediction:mine", origin_source="prediction", business_date=DAY)
    into = insert(metadata.tables["wallet.transaction"])
    told = "prediction:mine names prediction as where it comes from"
    with writer(warehouse) as engine:
        with pytest.raises(DBAPIError, match=told), engine.begin() as connection:
            connection.execute(into, mine)
        with engine.begin() as connection:
            connection.execute(into, mine | {"origin_source": "games"})
    with pytest.raises(DBAPIError, match=told):
        enter(warehouse, mine)
    credit = mine | {"transaction_id": "prediction:s1"}
    assert enter(warehouse, credit, role="crediter") == 1


def test_an_operators_own_system_enters_bets_by_their_ids_and_nothing_else(
    shared_warehouse: Warehouse,
) -> None:
    engine = open_engine(shared_warehouse.register_url)
    reads = [f"SELECT * FROM {table.fullname}" for table in metadata.sorted_tables]
    with engine.connect() as connection:
        entered = [
            connection.execute(
                text("INSERT INTO tote.bet (tote_id) VALUES ('a bet') ON CONFLICT DO NOTHING")
            ).rowcount
            for _ in range(2)
        ]
        assert not _is_refused(connection, _ENTER_MARKET)
        done = [
            statement
            for statement in (
                *(*_NOBODY_MAY, *reads, *_FOLLOW_BETS, *_SETTLE_MARKETS),
                *(_SET_BET_ASIDE, _MOVE_MARKET, _ENTER),
            )
            if not _is_refused(connection, statement)
        ]
    engine.dispose()
    assert entered == [1, 0]
    assert done == []


def test_a_player_reference_is_the_keyed_hash_of_the_id(shared_warehouse: Warehouse) -> None:
    key = bytes(range(64))
    with shared_warehouse.owner_engine.begin() as connection:
        connection.execute(
            text("UPDATE ops.player_pad SET inner_pad = :inner, outer_pad = :outer"),
            {
                "inner": bytes(byte ^ 0x36 for byte in key),
                "outer": bytes(byte ^ 0x5C for byte in key),
            },
        )
    with transaction(shared_warehouse.engine, "loader") as connection:
        reference = connection.scalar(text("SELECT ops.player_reference('Zoë-7')"))
    assert reference == hmac.new(key, "Zoë-7".encode(), hashlib.sha256).hexdigest()
