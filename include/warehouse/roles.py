"""Who may do what in the warehouse: each role with its grants, written down once.

A process logs in as `pipelines`, `finance`, `outbox`, `register` or `credits`; `pipelines` has no
rights of its own and takes a role for the length of one transaction.  `outbox` and `register` are
for the operator's own systems, which enter payouts, bets and markets; `credits` is for who pays
what players are owed.  Migrations run as the database's owner.
"""

from __future__ import annotations

from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text

from include.warehouse.tables import PAYOUT_COLUMNS, SCHEMAS

ROLES = {
    "loader": "Lands, normalizes and publishes; deletes nothing but staging rows.",
    "resolver": "Carries out decisions; never touches what arrived.",
    "wallet_writer": "Enters payouts into the outbox; reads and changes nothing.",
    "register_writer": "Enters bets of tote and markets into their registers; reads nothing.",
    "importer": "Counts what an import entered and keeps the lines that it rejected.",
    "sender": "Freezes, sends and disposes of payouts; never touches what was entered.",
    "crediter": "Credits players: enters payouts, and holds what was not sent; pays nobody.",
    "credit_operator": "Reads what players are owed, and acknowledges what the operator has paid.",
    "finance_reader": "Reads the schema finance and nothing else.",
}

# Which roles a login may take (`SET LOCAL ROLE`), or has (`finance` is a plain reader).
LOGINS = {
    "pipelines": ("loader", "resolver", "wallet_writer", "importer", "sender", "crediter"),
    "finance": ("finance_reader",),
    "outbox": ("wallet_writer",),
    "register": ("register_writer",),
    "credits": ("credit_operator",),
}

_EVERY_OPS_TABLE = (
    "ops.batch, ops.cursor, ops.gap, ops.finding, ops.decision, ops.quarantine, "
    "ops.quality_result, ops.alert"
)

# What later facts about other versions of the same subject may change; everything else is for ever.
_RECOMPUTED = "is_current, is_change, is_correction, chain_break, is_contested"

_ENTERED = f"{', '.join(PAYOUT_COLUMNS)}, business_date, origin_source, origin_key"
_SENDERS = "item, disposition, hold_reason, hold_detail, hold_finding_id, evidence"
_RESOLVERS = "disposition, hold_reason, hold_detail, hold_finding_id, released_at, evidence"
_ANSWERS = (
    "result, detail, closed_at, closed_by_epoch, http_status, content_type, answer,"
    " is_answer_complete, answer_code"
)
_ORDERS = "closed_at, result, http_status, code, detail, record_id"
_CREDITED = "state, hold_reason, finding_id, acknowledged_at, acknowledged_by, reference"
_CREDITS = (
    "outcome_id, player_id, currency, amount, record_id, state, hold_reason, finding_id,"
    " transaction_id"
)

GRANTS: dict[str, tuple[str, ...]] = {
    "loader": (
        "USAGE ON SCHEMA raw, staging, core, ops",
        "SELECT, INSERT ON raw.page, raw.record",
        "SELECT ON raw.record_payload",
        "USAGE ON SEQUENCE raw.page_id_sequence, raw.record_record_id_seq",
        "TEMPORARY ON DATABASE {database}",
        "EXECUTE ON FUNCTION raw.ensure_page_month(timestamptz)",
        "EXECUTE ON FUNCTION ops.player_reference(text)",
        "SELECT, INSERT, UPDATE, DELETE ON staging.settlement, staging.settlement_leg",
        "SELECT, INSERT ON core.settlement, core.settlement_leg",
        f"UPDATE ({_RECOMPUTED}) ON core.settlement",
        "SELECT, INSERT, UPDATE ON core.daily_settlement, core.daily_recording",
        f"SELECT ON {_EVERY_OPS_TABLE}",
        "INSERT, UPDATE ON ops.batch, ops.cursor, ops.gap, ops.finding, ops.alert",
        "INSERT, UPDATE ON ops.quarantine",
        "INSERT ON ops.quality_result",
        "SELECT, INSERT, UPDATE ON ops.lease",
        "SELECT, INSERT ON ops.connect_attempt",
        "UPDATE (ended_at, ending, messages) ON ops.connect_attempt",
        "USAGE ON SCHEMA tote",
        "SELECT, INSERT, UPDATE ON tote.bet, tote.hint",
        "SELECT, INSERT ON tote.rejected_line",
        "USAGE ON SCHEMA prediction",
        "SELECT, INSERT, UPDATE ON prediction.market",
        "SELECT, INSERT ON prediction.attempt",
        f"UPDATE ({_ORDERS}) ON prediction.attempt",
    ),
    "resolver": (
        "USAGE ON SCHEMA raw, staging, core, ops",
        "SELECT ON raw.page, raw.record, raw.record_payload",
        "TEMPORARY ON DATABASE {database}",
        "SELECT, DELETE ON staging.settlement, staging.settlement_leg",
        "SELECT ON core.settlement, core.settlement_leg",
        f"UPDATE ({_RECOMPUTED}, is_rejected_by_decision) ON core.settlement",
        "SELECT, INSERT, UPDATE ON core.daily_settlement, core.daily_recording",
        f"SELECT ON {_EVERY_OPS_TABLE}",
        "INSERT, UPDATE ON ops.batch",
        "UPDATE ON ops.cursor, ops.finding",
        "INSERT, UPDATE ON ops.gap, ops.quarantine",
        "INSERT ON ops.finding, ops.decision",
        "USAGE ON SEQUENCE ops.decision_decision_id_seq",
        "INSERT, UPDATE ON ops.alert",
        "USAGE ON SCHEMA wallet",
        "SELECT ON wallet.transaction, wallet.attempt, wallet.attempt_item",
        f"UPDATE ({_RESOLVERS}) ON wallet.transaction",
        "USAGE ON SCHEMA tote",
        "SELECT ON tote.bet, tote.hint",
        "UPDATE (state, next_ask_at, is_asked_alone) ON tote.bet",
        "USAGE ON SCHEMA prediction",
        "SELECT, UPDATE ON prediction.market",
        "SELECT ON prediction.attempt, prediction.credit, prediction.held_market",
        f"UPDATE ({_CREDITED}) ON prediction.credit",
    ),
    "wallet_writer": (
        "USAGE ON SCHEMA wallet",
        f"INSERT ({_ENTERED}) ON wallet.transaction",
    ),
    "register_writer": (
        "USAGE ON SCHEMA tote, prediction",
        "INSERT (tote_id) ON tote.bet",
        "INSERT (market_id, currency) ON prediction.market",
    ),
    "importer": (
        "USAGE ON SCHEMA wallet, ops",
        "TEMPORARY ON DATABASE {database}",
        "SELECT ON wallet.transaction",
        "SELECT, INSERT ON wallet.rejected_line",
        "SELECT, INSERT, UPDATE ON ops.finding, ops.alert",
    ),
    "sender": (
        "USAGE ON SCHEMA wallet, ops",
        "SELECT ON wallet.transaction, wallet.transaction_conflict",
        f"UPDATE ({_SENDERS}) ON wallet.transaction",
        "UPDATE (finding_id) ON wallet.transaction_conflict",
        "SELECT, INSERT ON wallet.attempt, wallet.attempt_item, wallet.sending_window",
        f"UPDATE ({_ANSWERS}) ON wallet.attempt",
        "UPDATE (outcome, code, balance, detail) ON wallet.attempt_item",
        "SELECT, INSERT ON wallet.reported_outcome",
        "SELECT, INSERT, UPDATE ON ops.lease",
        "SELECT, INSERT, UPDATE ON ops.finding, ops.alert",
    ),
    "crediter": (
        "USAGE ON SCHEMA core, prediction, wallet, ops",
        "TEMPORARY ON DATABASE {database}",
        "SELECT ON core.settlement, prediction.market, prediction.held_market",
        "SELECT, INSERT ON prediction.credit, prediction.adjustment",
        "SELECT, INSERT, UPDATE ON prediction.credited_market",
        "SELECT ON ops.decision, ops.batch",
        f"UPDATE ({_CREDITS}) ON prediction.credit",
        "UPDATE (finding_id) ON prediction.adjustment",
        f"INSERT ({_ENTERED}) ON wallet.transaction",
        "SELECT ON wallet.transaction, wallet.attempt_item",
        "UPDATE (hold_reason, hold_detail, hold_finding_id) ON wallet.transaction",
        "EXECUTE ON FUNCTION wallet.is_sent(wallet.transaction)",
        "SELECT, INSERT, UPDATE ON ops.finding, ops.alert",
    ),
    "credit_operator": (
        "USAGE ON SCHEMA prediction",
        "SELECT ON prediction.owed, prediction.difference",
        "EXECUTE ON FUNCTION prediction.acknowledge(bigint[], text)",
    ),
    "finance_reader": (
        "USAGE ON SCHEMA finance",
        "SELECT ON ALL TABLES IN SCHEMA finance",
        "EXECUTE ON FUNCTION finance.payout_outcome_as_of(timestamptz)",
        "EXECUTE ON FUNCTION core.is_bet(text), core.converted(numeric, numeric, text),"
        " core.nearest(numeric, numeric)",
    ),
}


# Credits are sent the day they are entered, unlike other payouts; a grant cannot tell them apart.
_ADMIT_CREDITS = """
CREATE OR REPLACE FUNCTION wallet.admit_credit() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role('crediter', 'MEMBER') THEN
        RAISE EXCEPTION
            'Transaction % names prediction as where it comes from, as only the credits of markets '
            'do, which settle_markets enters by itself. Nothing was stored. Enter it with another '
            'origin_source, or none.',
            NEW.transaction_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER admit_credit BEFORE INSERT ON wallet.transaction
    FOR EACH ROW WHEN (NEW.origin_source = 'prediction') EXECUTE FUNCTION wallet.admit_credit()
"""


def create_roles(connection: Connection) -> None:
    """Create the roles that are missing; roles belong to the whole cluster, not one database."""
    for role in ROLES:
        if not _exists(connection, role):
            connection.execute(text(f"CREATE ROLE {role} NOLOGIN NOINHERIT"))


def apply_grants(connection: Connection) -> None:
    """Take every privilege from every role, then grant exactly what is written above; let nobody
    enter credits who may not credit, nor connect who has no role here.
    """
    database = _this_database(connection)
    connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    logins = [login for login in LOGINS if _exists(connection, login)]
    for name in (*ROLES, *logins):
        connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {name}")
    connection.exec_driver_sql(_ADMIT_CREDITS.replace("%", "%%"))
    for role in ROLES:
        for schema in SCHEMAS:
            for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
                connection.execute(
                    text(f"REVOKE ALL ON ALL {kind} IN SCHEMA {schema} FROM {role}, PUBLIC")
                )
            connection.execute(text(f"REVOKE ALL ON SCHEMA {schema} FROM {role}, PUBLIC"))
        _revoke_columns(connection, role)
        for grant in GRANTS[role]:
            connection.exec_driver_sql(f"GRANT {grant.format(database=database)} TO {role}")


def create_logins(connection: Connection, passwords: dict[str, str]) -> None:
    """Create the logins named in `passwords`, or give them those passwords.

    Only what they are checked against is sent: a server may log the statement.
    """
    for login, password in passwords.items():
        verb = "ALTER" if _exists(connection, login) else "CREATE"
        inherits = "NOINHERIT" if login == "pipelines" else "INHERIT"
        verifier = encrypt_password(
            password, login, connection.connection.driver_connection, "scram-sha-256"
        )
        connection.exec_driver_sql(f"{verb} ROLE {login} LOGIN {inherits} PASSWORD '{verifier}'")
        connection.exec_driver_sql(
            f"GRANT CONNECT ON DATABASE {_this_database(connection)} TO {login}"
        )
        for role in LOGINS[login]:
            connection.execute(text(f"GRANT {role} TO {login}"))
    if "finance" in passwords:
        for setting in ("default_transaction_read_only = on", "statement_timeout = '60s'"):
            connection.execute(text(f"ALTER ROLE finance SET {setting}"))
        connection.execute(text("ALTER ROLE finance SET search_path = finance"))
    # A payout that is entered and not committed is locked, and is not sent meanwhile; while what
    # the operator has paid is acknowledged and not committed, nobody is credited.
    for login, patience in (("outbox", "5min"), ("credits", "1min")):
        if login in passwords:
            connection.execute(
                text(f"ALTER ROLE {login} SET idle_in_transaction_session_timeout = '{patience}'")
            )


def _revoke_columns(connection: Connection, role: str) -> None:
    granted = connection.execute(
        text(
            "SELECT DISTINCT table_schema, table_name, column_name, privilege_type"
            " FROM information_schema.column_privileges WHERE grantee = :role"
        ),
        {"role": role},
    )
    for schema, table, column, privilege in granted.all():
        connection.execute(
            text(f'REVOKE {privilege} ("{column}") ON "{schema}"."{table}" FROM {role}')
        )


def _this_database(connection: Connection) -> str:
    """The database's name as SQL has it, which may hold any character."""
    quoted = connection.scalar(text("SELECT quote_ident(current_database())"))
    return str(quoted).replace("%", "%%")


def _exists(connection: Connection, role: str) -> bool:
    found = connection.execute(
        text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
    ).first()
    return found is not None
