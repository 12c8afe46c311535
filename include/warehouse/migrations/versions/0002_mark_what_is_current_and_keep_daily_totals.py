"""Mark what is current in core.settlement itself, and keep finance's daily totals.

core.settlement_current becomes a view: the table held nothing that its subject's row cannot say,
and its rows and index were a third of what publishing cost.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CURRENT_COMMENT = (
    "How its subject stands now: of all versions that no decision rejected, the one with the "
    "highest (provider_order, record_id)."
)
CORRECTION_COMMENT = (
    "It is a change, and the version before it was final (not open). Recomputed when a version "
    "arrives late."
)

FILL_CORRECTIONS = """
UPDATE core.settlement AS later
SET is_correction = true
WHERE is_change AND NOT is_rejected_by_decision AND (
    SELECT earlier.status
    FROM core.settlement AS earlier
    WHERE earlier.source = later.source
        AND earlier.source_key = later.source_key
        AND (earlier.provider_order, earlier.record_id) < (later.provider_order, later.record_id)
        AND NOT earlier.is_rejected_by_decision
    ORDER BY earlier.provider_order DESC, earlier.record_id DESC
    LIMIT 1
) <> 'open'
"""

FILL_CURRENT = """
UPDATE core.settlement
SET is_current = true
FROM core.settlement_current AS pointer
WHERE settlement.source = pointer.source
    AND settlement.source_key = pointer.source_key
    AND settlement.version = pointer.version
"""

FILL_DAILY_SETTLEMENT = """
INSERT INTO core.daily_settlement
SELECT
    source, (settled_at AT TIME ZONE 'UTC')::date, status, outcome, currency,
    count(*), coalesce(sum(stake), 0), coalesce(sum(payout), 0), count(stake), count(payout)
FROM core.settlement
WHERE is_current AND NOT is_contested
GROUP BY 1, 2, 3, 4, 5
"""

FILL_DAILY_RECORDING = """
INSERT INTO core.daily_recording
SELECT
    accounting_date, source, count(*),
    count(*) FILTER (WHERE is_correction AND NOT is_contested),
    count(*) FILTER (WHERE not_applied_reason = 'late'),
    count(*) FILTER (WHERE is_contested)
FROM core.settlement
GROUP BY 1, 2
"""

POINT_AGAIN = """
INSERT INTO core.settlement_current
SELECT source, source_key, version, provider_order, record_id
FROM core.settlement
WHERE is_current
"""


def upgrade() -> None:
    for name, comment in (("is_current", CURRENT_COMMENT), ("is_correction", CORRECTION_COMMENT)):
        op.add_column(
            "settlement",
            sa.Column(
                name,
                sa.Boolean(),
                server_default=sa.text("false"),
                nullable=False,
                comment=comment,
            ),
            schema="core",
        )
    op.execute(FILL_CURRENT)
    op.execute(FILL_CORRECTIONS)
    op.drop_table("settlement_current", schema="core")
    op.create_index(
        "settlement_correction_index",
        "settlement",
        ["accounting_date"],
        schema="core",
        postgresql_where=sa.text("is_correction"),
    )
    op.create_table(
        "daily_settlement",
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider decided."),
        sa.Column(
            "settled_date",
            sa.Date(),
            nullable=True,
            comment="UTC day of settled_at; NULL where that is not told.",
        ),
        sa.Column("status", sa.Text(), nullable=False, comment="The subjects' status."),
        sa.Column(
            "outcome", sa.Text(), nullable=True, comment="The subjects' outcome; NULL while open."
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=True,
            comment="Currency of the amounts; NULL where the provider tells none.",
        ),
        sa.Column(
            "settlements",
            sa.BigInteger(),
            nullable=False,
            comment="Current versions that are not contested.",
        ),
        sa.Column(
            "stake",
            sa.Numeric(),
            nullable=False,
            comment="Sum of their stakes, in major units of the currency.",
        ),
        sa.Column(
            "payout",
            sa.Numeric(),
            nullable=False,
            comment="Sum of their payouts, in major units of the currency.",
        ),
        sa.Column(
            "stakes", sa.BigInteger(), nullable=False, comment="How many of them have a stake."
        ),
        sa.Column(
            "payouts", sa.BigInteger(), nullable=False, comment="How many of them have a payout."
        ),
        sa.UniqueConstraint(
            "source",
            "settled_date",
            "status",
            "outcome",
            "currency",
            postgresql_nulls_not_distinct=True,
            name="daily_settlement_key",
        ),
        schema="core",
        comment="The current versions that are not contested, counted and summed by the day of their decision; moved by every transaction that changes what is current.",
    )
    op.create_table(
        "daily_recording",
        sa.Column(
            "accounting_date",
            sa.Date(),
            nullable=False,
            comment="UTC date on which the versions were published here.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider decided."),
        sa.Column("versions", sa.BigInteger(), nullable=False, comment="Versions published."),
        sa.Column(
            "corrections",
            sa.BigInteger(),
            nullable=False,
            comment="Of these, corrections that are not contested.",
        ),
        sa.Column(
            "late_versions",
            sa.BigInteger(),
            nullable=False,
            comment="Of these, versions that came after a later decision.",
        ),
        sa.Column(
            "contested_versions",
            sa.BigInteger(),
            nullable=False,
            comment="Of these, contested versions.",
        ),
        sa.PrimaryKeyConstraint("accounting_date", "source", name="daily_recording_pkey"),
        schema="core",
        comment="The versions counted by the day of their publication; moved by every transaction that publishes or recomputes any.",
    )
    op.execute(FILL_DAILY_SETTLEMENT)
    op.execute(FILL_DAILY_RECORDING)


def downgrade() -> None:
    # Views go with what they show: the `migrate` of whichever version comes next makes its own.
    op.execute("DROP VIEW IF EXISTS core.settlement_current")
    op.execute("DROP TABLE core.daily_recording, core.daily_settlement CASCADE")
    op.drop_index("settlement_correction_index", table_name="settlement", schema="core")
    op.create_table(
        "settlement_current",
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider decided."),
        sa.Column(
            "source_key",
            sa.Text(collation="C"),
            nullable=False,
            comment="The subject decided about.",
        ),
        sa.Column(
            "version",
            sa.Integer(),
            nullable=False,
            comment="The version that is current (core.settlement).",
        ),
        sa.Column(
            "provider_order",
            sa.Text(collation="C"),
            nullable=False,
            comment="Its place in the provider's order.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="Its record; the higher one wins where the order is equal.",
        ),
        sa.PrimaryKeyConstraint("source", "source_key", name=op.f("settlement_current_pkey")),
        schema="core",
        comment="Which version of each subject is current: the one with the highest (provider_order, record_id) that no decision rejected.",
    )
    op.execute(POINT_AGAIN)
    for name in ("is_correction", "is_current"):
        op.execute(f"ALTER TABLE core.settlement DROP COLUMN {name} CASCADE")
