"""Keep what sending needs to know: attempts, their items, windows, holds, leases, reports.

That a payout was sent is no longer written on the payout: its attempts say so.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# From here on the partner may know the payout, so that holding it back decides nothing any more.
IS_SENT = """
CREATE OR REPLACE FUNCTION wallet.is_sent(entered wallet.transaction) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT entered.disposition <> 'open' OR EXISTS (
        SELECT FROM wallet.attempt_item
        WHERE attempt_item.transaction_id = entered.transaction_id
            AND (outcome IS NULL OR outcome NOT IN ('not_executed', 'rejected'))
    )
$$
"""

# The rules are conditions of triggers, which cost a tenth of the same in a function: each payout is
# updated at least twice.
ENTERED = (
    "transaction_id",
    "ref_transaction_id",
    "session_id",
    "round_id",
    "player_id",
    "game_id",
    "currency",
    "amount",
    "is_win",
    "business_date",
    "origin_source",
    "origin_key",
    "entered_at",
)
DISPOSED = ("disposition", "disposed_at", "accounting_date", "evidence")


def _differ(columns: tuple[str, ...]) -> str:
    before, after = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    return f"({before}) IS DISTINCT FROM ({after})"


KEEP_TRANSACTION = """
CREATE OR REPLACE FUNCTION wallet.keep_transaction() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wallet.refuse_change(
        OLD.transaction_id,
        CASE TG_ARGV[0]
            WHEN 'entered' THEN 'what was entered never changes'
            WHEN 'frozen' THEN 'its bytes are frozen'
            ELSE format('it is %s for ever', OLD.disposition)
        END
    );
    RETURN NULL;
END
$$
"""

DATE_DISPOSITION = """
CREATE FUNCTION wallet.date_disposition() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.disposed_at := now();
    NEW.accounting_date := (now() AT TIME ZONE 'UTC')::date;
    RETURN NEW;
END
$$
"""

RECORD_HOLD = """
CREATE FUNCTION wallet.record_hold() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE wallet.hold
    SET ended_at = now()
    WHERE transaction_id = NEW.transaction_id AND ended_at IS NULL;
    IF NEW.hold_reason IS NOT NULL THEN
        INSERT INTO wallet.hold (transaction_id, hold_reason)
        VALUES (NEW.transaction_id, NEW.hold_reason);
    END IF;
    RETURN NULL;
END
$$
"""

KEEP_ANSWER = """
CREATE FUNCTION wallet.keep_answer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION
        'Attempt % stays as it is: only a doubt gives way to an answer. Nothing was changed.',
        OLD.attempt_id
        USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

# Each is called only for the rows that concern it: the others are updated by the million.
TRIGGERS = f"""
DROP TRIGGER keep_transaction ON wallet.transaction;
CREATE TRIGGER keep_entered BEFORE UPDATE ON wallet.transaction
    FOR EACH ROW WHEN ({_differ(ENTERED)})
    EXECUTE FUNCTION wallet.keep_transaction('entered');
CREATE TRIGGER keep_frozen BEFORE UPDATE ON wallet.transaction
    FOR EACH ROW WHEN (OLD.item IS NOT NULL AND NEW.item IS DISTINCT FROM OLD.item)
    EXECUTE FUNCTION wallet.keep_transaction('frozen');
CREATE TRIGGER keep_disposed BEFORE UPDATE ON wallet.transaction
    FOR EACH ROW WHEN (OLD.disposition <> 'open' AND {_differ(DISPOSED)})
    EXECUTE FUNCTION wallet.keep_transaction('disposed');
CREATE TRIGGER date_disposition BEFORE UPDATE ON wallet.transaction
    FOR EACH ROW WHEN (OLD.disposition = 'open' AND NEW.disposition <> 'open')
    EXECUTE FUNCTION wallet.date_disposition();
CREATE TRIGGER record_first_hold AFTER INSERT ON wallet.transaction
    FOR EACH ROW WHEN (NEW.hold_reason IS NOT NULL) EXECUTE FUNCTION wallet.record_hold();
CREATE TRIGGER record_hold AFTER UPDATE ON wallet.transaction
    FOR EACH ROW WHEN (OLD.hold_reason IS DISTINCT FROM NEW.hold_reason)
    EXECUTE FUNCTION wallet.record_hold();
CREATE TRIGGER keep_answer BEFORE UPDATE ON wallet.attempt
    FOR EACH ROW WHEN (OLD.result <> 'in_doubt' OR NEW.result IS NULL)
    EXECUTE FUNCTION wallet.keep_answer();
CREATE TRIGGER keep_answer BEFORE UPDATE ON wallet.attempt_item
    FOR EACH ROW WHEN (OLD.outcome <> 'in_doubt' OR NEW.outcome IS NULL)
    EXECUTE FUNCTION wallet.keep_answer()
"""

# To compress them would cost more than all else of storing an answer.
KEEP_ANSWERS_PLAIN = "ALTER TABLE wallet.attempt ALTER COLUMN answer SET STORAGE EXTERNAL"

HOLDS_SO_FAR = """
INSERT INTO wallet.hold (transaction_id, hold_reason, held_at)
SELECT transaction_id, hold_reason, entered_at
FROM wallet.transaction
WHERE hold_reason IS NOT NULL
"""


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column(
            "name",
            sa.Text(),
            nullable=False,
            comment="What only one may do at a time, such as wallet/sending.",
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="Counts its holders. What a holder writes names its epoch; once it is not the last one any more, nothing of it is taken.",
        ),
        sa.Column(
            "holder",
            sa.Text(),
            nullable=True,
            comment="Who holds it, as the Airflow run; NULL: nobody.",
        ),
        sa.Column(
            "acquired_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When its last holder took it (UTC).",
        ),
        sa.Column(
            "expires_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Until when it is held, unless it is renewed (UTC); from then on anyone may take it.",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("lease_pkey")),
        schema="ops",
        comment="What only one process may do at a time, and who that is.",
    )
    op.create_table(
        "hold",
        sa.Column(
            "hold_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "transaction_id", sa.Text(collation="C"), nullable=False, comment="Which payout."
        ),
        sa.Column(
            "hold_reason", sa.Text(), nullable=False, comment="Why it was not sent meanwhile."
        ),
        sa.Column(
            "held_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="From when (UTC, start of the transaction).",
        ),
        sa.Column(
            "ended_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Until when, because it was released, disposed of or held for another reason; NULL: it lasts.",
        ),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("hold_pkey")),
        schema="wallet",
        comment="When each payout was held, and why; written by the outbox itself.",
    )
    op.create_index(
        "hold_transaction_index",
        "hold",
        ["transaction_id", "hold_id"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "reported_outcome",
        sa.Column(
            "report_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column("business_date", sa.Date(), nullable=False, comment="UTC day of the payouts."),
        sa.Column("currency", sa.Text(), nullable=False, comment="Their currency."),
        sa.Column(
            "entered_payouts", sa.BigInteger(), nullable=False, comment="How many were entered."
        ),
        sa.Column(
            "entered_amount",
            sa.Numeric(),
            nullable=False,
            comment="Sum of those that were entered, in hundred-thousandths.",
        ),
        sa.Column(
            "processed_payouts",
            sa.BigInteger(),
            nullable=False,
            comment="How many the wallet paid.",
        ),
        sa.Column(
            "processed_amount",
            sa.Numeric(),
            nullable=False,
            comment="Sum of those that the wallet paid, in hundred-thousandths.",
        ),
        sa.Column(
            "lost_payouts", sa.BigInteger(), nullable=False, comment="How many will not be paid."
        ),
        sa.Column(
            "lost_amount",
            sa.Numeric(),
            nullable=False,
            comment="Sum of those that will not be paid, in hundred-thousandths.",
        ),
        sa.Column(
            "open_payouts",
            sa.BigInteger(),
            nullable=False,
            comment="How many are still to be sent or in doubt.",
        ),
        sa.Column(
            "open_amount",
            sa.Numeric(),
            nullable=False,
            comment="Sum of those that are still to be sent or in doubt, in hundred-thousandths.",
        ),
        sa.Column(
            "held_payouts", sa.BigInteger(), nullable=False, comment="How many wait for a decision."
        ),
        sa.Column(
            "held_amount",
            sa.Numeric(),
            nullable=False,
            comment="Sum of those that wait for a decision, in hundred-thousandths.",
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="The Airflow run that reported it."),
        sa.Column(
            "reported_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was reported (UTC).",
        ),
        sa.PrimaryKeyConstraint("report_id", name=op.f("reported_outcome_pkey")),
        schema="wallet",
        comment="How a day's payouts stood at the end of each run; only ever inserted.",
    )
    op.create_index(
        op.f("reported_outcome_business_date_currency_index"),
        "reported_outcome",
        ["business_date", "currency"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "sending_window",
        sa.Column(
            "window_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "epoch", sa.BigInteger(), nullable=False, comment="Epoch of the sender that opened it."
        ),
        sa.Column(
            "opened_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="From when (UTC).",
        ),
        sa.Column(
            "closes_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="Until when what is in doubt may be sent again (UTC).",
        ),
        sa.PrimaryKeyConstraint("window_id", name=op.f("sending_window_pkey")),
        schema="wallet",
        comment="Spans of time that bound how often what is in doubt is sent again.",
    )
    op.create_table(
        "attempt",
        sa.Column(
            "attempt_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "window_id", sa.BigInteger(), nullable=False, comment="The window in which it was made."
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="Epoch of the sender that made it (ops.lease).",
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="The Airflow run that made it."),
        sa.Column("currency", sa.Text(), nullable=False, comment="Currency of all its items."),
        sa.Column(
            "stage",
            sa.Integer(),
            nullable=False,
            comment="Attempts of one epoch, currency and stage are judged together before a refusal becomes lost; 0 is the canary.",
        ),
        sa.Column("items", sa.Integer(), nullable=False, comment="How many payouts it holds."),
        sa.Column(
            "amount",
            sa.Numeric(),
            nullable=False,
            comment="Their sum, in hundred-thousandths of the currency.",
        ),
        sa.Column(
            "body_sha256", postgresql.BYTEA(), nullable=False, comment="SHA-256 of the exact body."
        ),
        sa.Column(
            "committed_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the intent was committed, before the first byte was sent (UTC, start of the transaction).",
        ),
        sa.Column(
            "deadline_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="No byte of it is sent after this moment (UTC).",
        ),
        sa.Column(
            "result",
            sa.Text(),
            nullable=True,
            comment="answered, not_executed, rejected or in_doubt; NULL as long as it is open.",
        ),
        sa.Column(
            "detail",
            sa.Text(),
            nullable=True,
            comment="The same in words, where there is more to say.",
        ),
        sa.Column(
            "closed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its result was stored (UTC); a late answer moves it.",
        ),
        sa.Column(
            "closed_by_epoch",
            sa.BigInteger(),
            nullable=True,
            comment="Epoch of the sender that stored it: another one than its own if the process had died.",
        ),
        sa.Column(
            "http_status", sa.SmallInteger(), nullable=True, comment="HTTP status of the answer."
        ),
        sa.Column("content_type", sa.Text(), nullable=True, comment="Content-Type of the answer."),
        sa.Column(
            "answer",
            postgresql.BYTEA(),
            nullable=True,
            comment="The answer's exact bytes, as far as they came; stored uncompressed.",
        ),
        sa.Column(
            "is_answer_complete",
            sa.Boolean(),
            nullable=True,
            comment="Whether all of the answer came.",
        ),
        sa.Column(
            "answer_code",
            sa.Text(),
            nullable=True,
            comment="The code that the answer gives for the whole request.",
        ),
        sa.CheckConstraint(
            "result IN ('answered', 'not_executed', 'rejected', 'in_doubt')",
            name=op.f("attempt_result_known_check"),
        ),
        sa.CheckConstraint(
            "(result IS NULL) = (closed_at IS NULL)", name=op.f("attempt_closed_has_result_check")
        ),
        sa.CheckConstraint("items > 0", name=op.f("attempt_has_items_check")),
        sa.ForeignKeyConstraint(
            ["window_id"], ["wallet.sending_window.window_id"], name=op.f("attempt_window_id_fkey")
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("attempt_pkey")),
        schema="wallet",
        comment="Each request to the wallet, committed before its first byte was sent, with the answer as it came.",
    )
    op.create_index(
        "attempt_open_index",
        "attempt",
        ["attempt_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("result IS NULL"),
    )
    op.create_index(
        "attempt_stage_index",
        "attempt",
        ["epoch", "currency", "stage"],
        unique=False,
        schema="wallet",
    )
    op.create_table(
        "attempt_item",
        sa.Column("transaction_id", sa.Text(collation="C"), nullable=False, comment="The payout."),
        sa.Column(
            "attempt_id", sa.BigInteger(), nullable=False, comment="The request that held it."
        ),
        sa.Column(
            "place", sa.SmallInteger(), nullable=False, comment="Its place in the request, from 1."
        ),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=True,
            comment="ok, refused, contested, unclear, blocked, in_doubt, not_executed or rejected; NULL as long as the attempt is open.",
        ),
        sa.Column(
            "code", sa.Text(), nullable=True, comment="The code that the wallet answered it with."
        ),
        sa.Column(
            "balance",
            sa.Numeric(),
            nullable=True,
            comment="The player's balance as answered, in hundred-thousandths; never summed.",
        ),
        sa.Column(
            "detail",
            sa.Text(),
            nullable=True,
            comment="What else there is to say, such as fields that differ in the answer.",
        ),
        sa.CheckConstraint(
            "outcome IN ('ok', 'refused', 'contested', 'unclear', 'blocked', 'in_doubt', 'not_executed', 'rejected')",
            name=op.f("attempt_item_outcome_known_check"),
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["wallet.attempt.attempt_id"], name=op.f("attempt_item_attempt_id_fkey")
        ),
        sa.PrimaryKeyConstraint("transaction_id", "attempt_id", name=op.f("attempt_item_pkey")),
        schema="wallet",
        postgresql_with={"fillfactor": 50},
        comment="What each request said of each payout. What was delivered is read from here; only a doubt ever gives way to an answer.",
    )
    op.create_index(
        op.f("attempt_item_attempt_id_index"),
        "attempt_item",
        ["attempt_id"],
        unique=False,
        schema="wallet",
    )
    op.add_column(
        "decision",
        sa.Column(
            "awaits_second_person",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="It changed nothing: another person has to decide the same.",
        ),
        schema="ops",
    )
    op.add_column(
        "decision",
        sa.Column(
            "first_decision_id",
            sa.BigInteger(),
            nullable=True,
            comment="The other person's decision that this one confirms.",
        ),
        schema="ops",
    )
    op.alter_column(
        "decision",
        "decided_at",
        existing_type=postgresql.TIMESTAMP(timezone=True),
        comment="When it was carried out, or asked for (UTC).",
        existing_comment="When it was carried out (UTC).",
        existing_nullable=False,
        existing_server_default=sa.text("now()"),
        schema="ops",
    )
    op.create_foreign_key(
        op.f("decision_first_decision_id_fkey"),
        "decision",
        "decision",
        ["first_decision_id"],
        ["decision_id"],
        source_schema="ops",
        referent_schema="ops",
    )
    op.add_column(
        "transaction",
        sa.Column(
            "released_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When a decision last let it go again (UTC): what limits how often it is sent counts from then; NULL: never.",
        ),
        schema="wallet",
    )
    op.alter_column(
        "transaction",
        "hold_reason",
        existing_type=sa.TEXT(),
        comment="Why it is not sent though open: amount_without_win, changed, unsignable, refusal_pending, contested, in_doubt, unclear, … NULL if nothing holds it.",
        existing_comment="Why it is not sent though open: amount_without_win, changed, unsignable, … NULL if nothing holds it.",
        existing_nullable=True,
        schema="wallet",
    )
    op.drop_index(
        op.f("transaction_due_index"),
        table_name="transaction",
        schema="wallet",
        postgresql_where="((disposition = 'open'::text) AND (hold_reason IS NULL))",
    )
    op.create_index(
        "transaction_due_index",
        "transaction",
        ["currency", "transaction_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("disposition = 'open' AND hold_reason IS NULL"),
    )
    op.create_check_constraint(
        op.f("transaction_currency_bounded_check"),
        "transaction",
        "char_length(currency) <= 20",
        schema="wallet",
    )
    op.create_index(
        op.f("transaction_business_date_index"),
        "transaction",
        ["business_date"],
        unique=False,
        schema="wallet",
        postgresql_using="brin",
    )
    op.drop_column("transaction", "first_sent_at", schema="wallet")
    for statement in (
        IS_SENT,
        KEEP_TRANSACTION,
        DATE_DISPOSITION,
        RECORD_HOLD,
        KEEP_ANSWER,
        TRIGGERS,
        KEEP_ANSWERS_PLAIN,
        HOLDS_SO_FAR,
    ):
        op.execute(statement)


def downgrade() -> None:
    # Takes with it what was sent and answered: only for a warehouse that has sent nothing.  Views go
    # with what they show: the `migrate` of whichever version comes next makes its own.
    op.execute(
        "DROP TABLE wallet.attempt_item, wallet.attempt, wallet.sending_window,"
        " wallet.reported_outcome, wallet.hold, ops.lease CASCADE"
    )
    op.execute(
        "ALTER TABLE ops.decision DROP first_decision_id CASCADE, DROP awaits_second_person CASCADE"
    )
    for trigger in (
        "keep_entered",
        "keep_frozen",
        "keep_disposed",
        "date_disposition",
        "record_first_hold",
        "record_hold",
    ):
        op.execute(f"DROP TRIGGER {trigger} ON wallet.transaction")
    op.add_column(
        "transaction",
        sa.Column(
            "first_sent_at",
            postgresql.TIMESTAMP(timezone=True),
            autoincrement=False,
            nullable=True,
            comment="When the first attempt that holds it was committed (UTC); NULL: never sent. From then on a change of its content does not hold it.",
        ),
        schema="wallet",
    )
    op.create_check_constraint(
        op.f("transaction_sent_is_frozen_check"),
        "transaction",
        "first_sent_at IS NULL OR item IS NOT NULL",
        schema="wallet",
    )
    op.drop_index("transaction_business_date_index", table_name="transaction", schema="wallet")
    op.drop_constraint(
        op.f("transaction_currency_bounded_check"), "transaction", schema="wallet", type_="check"
    )
    op.drop_index(
        "transaction_due_index",
        table_name="transaction",
        schema="wallet",
        postgresql_where=sa.text("disposition = 'open' AND hold_reason IS NULL"),
    )
    op.create_index(
        op.f("transaction_due_index"),
        "transaction",
        ["business_date", "currency", "transaction_id"],
        unique=False,
        schema="wallet",
        postgresql_where="((disposition = 'open'::text) AND (hold_reason IS NULL))",
    )
    op.alter_column(
        "transaction",
        "hold_reason",
        existing_type=sa.TEXT(),
        comment="Why it is not sent though open: amount_without_win, changed, unsignable, … NULL if nothing holds it.",
        existing_comment="Why it is not sent though open: amount_without_win, changed, unsignable, refusal_pending, contested, in_doubt, unclear, … NULL if nothing holds it.",
        existing_nullable=True,
        schema="wallet",
    )
    op.execute("ALTER TABLE wallet.transaction DROP released_at CASCADE")
    op.alter_column(
        "decision",
        "decided_at",
        existing_type=postgresql.TIMESTAMP(timezone=True),
        comment="When it was carried out (UTC).",
        existing_comment="When it was carried out, or asked for (UTC).",
        existing_nullable=False,
        existing_server_default=sa.text("now()"),
        schema="ops",
    )
    op.execute("DROP FUNCTION wallet.record_hold, wallet.keep_answer, wallet.date_disposition")
    scripts = op.get_context().script
    assert scripts is not None
    before = scripts.get_revision("0003").module
    for function in (before.IS_SENT, before.KEEP_TRANSACTION):
        op.execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute(
        "CREATE TRIGGER keep_transaction BEFORE UPDATE ON wallet.transaction"
        " FOR EACH ROW EXECUTE FUNCTION wallet.keep_transaction()"
    )
