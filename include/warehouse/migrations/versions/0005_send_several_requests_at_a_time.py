"""Make what is done for each payout that is sent cheaper: several requests are stored at once.

An item's attempt was looked up again for each of them, and the search path was set and set back for
each payout that came to its end.  Days entered since the last vacuum were read as a whole to find
one of them.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Every name in it is looked up in pg_catalog, whatever the caller's path: it needs none of its own.
DATE_DISPOSITION = """
CREATE OR REPLACE FUNCTION wallet.date_disposition() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.disposed_at := pg_catalog.now();
    NEW.accounting_date := (pg_catalog.now() AT TIME ZONE 'UTC')::pg_catalog.date;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    op.drop_constraint(
        op.f("attempt_item_attempt_id_fkey"), "attempt_item", schema="wallet", type_="foreignkey"
    )
    op.execute(DATE_DISPOSITION)
    op.execute("ALTER INDEX wallet.transaction_business_date_index SET (autosummarize = true)")
    op.alter_column(
        "attempt_item",
        "attempt_id",
        comment="The request that held it (wallet.attempt; both are inserted in one transaction, and neither is ever deleted).",
        existing_comment="The request that held it.",
        schema="wallet",
    )


def downgrade() -> None:
    op.alter_column(
        "attempt_item",
        "attempt_id",
        comment="The request that held it.",
        existing_comment="The request that held it (wallet.attempt; both are inserted in one transaction, and neither is ever deleted).",
        schema="wallet",
    )
    op.execute("ALTER INDEX wallet.transaction_business_date_index RESET (autosummarize)")
    scripts = op.get_context().script
    assert scripts is not None
    before = scripts.get_revision("0004").module
    op.execute(before.DATE_DISPOSITION.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.create_foreign_key(
        op.f("attempt_item_attempt_id_fkey"),
        "attempt_item",
        "attempt",
        ["attempt_id"],
        ["attempt_id"],
        source_schema="wallet",
        referent_schema="wallet",
    )
