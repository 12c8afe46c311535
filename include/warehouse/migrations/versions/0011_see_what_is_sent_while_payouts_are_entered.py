"""Have payouts entered with what others commit in sight, and days found by what was booked.

A session that reads a snapshot could not see that a payout was sent meanwhile: its change counted
as one before the send.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

REFUSE_SNAPSHOT = """
CREATE FUNCTION wallet.refuse_snapshot() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION
            'Payouts are entered in transactions that are READ COMMITTED, and this one is %: it '
            'would not see whether one was sent meanwhile. Nothing was stored. Set the isolation '
            'level of this session, and enter them again.',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER refuse_snapshot BEFORE INSERT ON wallet.transaction
    FOR EACH STATEMENT EXECUTE FUNCTION wallet.refuse_snapshot()
"""


def upgrade() -> None:
    op.execute(REFUSE_SNAPSHOT)
    op.create_index(
        op.f("transaction_accounting_date_index"),
        "transaction",
        ["accounting_date"],
        unique=False,
        schema="wallet",
        postgresql_using="brin",
        postgresql_with={"autosummarize": True},
    )


def downgrade() -> None:
    op.drop_index("transaction_accounting_date_index", table_name="transaction", schema="wallet")
    op.execute("DROP TRIGGER refuse_snapshot ON wallet.transaction")
    op.execute("DROP FUNCTION wallet.refuse_snapshot()")
