"""Keep the queue of the prediction engine's markets, what was ordered of them, and their positions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_POSITION = "The position in a market that is settled; NULL but for prediction."


def upgrade() -> None:
    for schema in ("staging", "core"):
        column = sa.Column("position_id", sa.Text(), nullable=True, comment=_POSITION)
        op.add_column("settlement", column, schema=schema)
    op.create_index(
        "settlement_market_index",
        "settlement",
        ["market_id"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("source = 'prediction'"),
    )
    op.execute("CREATE SCHEMA prediction")
    op.create_table(
        "market",
        sa.Column(
            "market_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The engine's market. At most 128 characters: letters, digits and ._~:@+=-",
        ),
        sa.Column(
            "entered_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was entered (UTC, start of the transaction).",
        ),
        sa.Column(
            "entered_by",
            sa.Text(),
            server_default="sql",
            nullable=False,
            comment="sql: by another system or a person. file: from an imported file. event: the engine told that it was resolved. form: from the form of settle_markets.",
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=True,
            comment="Currency of its shares and payouts; NULL: not known yet, and then nothing of it is published.",
        ),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Why it may be settled: the engine's event (sequence, record_id), or who confirmed it in the form and why (confirmed_by, reason, run_id). NULL: nothing says that it is resolved.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="entered",
            nullable=False,
            comment="entered (no evidence that it is resolved), resolved (to be settled), settling (ordered, and what came of it is not known), waiting (positions under way), retrying (failed positions are to be retried), fetching (its payouts are to be listed), fetched (listed, to be checked), checked (to be published), done (all positions completed); held (does not add up), failed (positions failed, and no retry is left), stuck (positions under way for too long, or no answers), refused (the engine does not settle it), withdrawn (a decision took it out).",
        ),
        sa.Column(
            "state_since",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Since when it is in that state (UTC).",
        ),
        sa.Column(
            "revision",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Counts its moves; whoever has looked at it moves it only from the revision seen.",
        ),
        sa.Column(
            "next_look_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it is to be gone on with (UTC); NULL: only a decision, evidence or the next step moves it.",
        ),
        sa.Column(
            "settle_attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often it was ordered to be settled since it was entered, or since a decision.",
        ),
        sa.Column(
            "retry_attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often its failed positions were ordered to be retried since then.",
        ),
        sa.Column(
            "positions",
            sa.Integer(),
            nullable=True,
            comment="Positions, as the engine's status last told; NULL: it has told nothing.",
        ),
        sa.Column("pending_positions", sa.Integer(), nullable=True, comment="Of these, PENDING."),
        sa.Column(
            "processing_positions", sa.Integer(), nullable=True, comment="Of these, PROCESSING."
        ),
        sa.Column(
            "completed_positions", sa.Integer(), nullable=True, comment="Of these, COMPLETED."
        ),
        sa.Column("failed_positions", sa.Integer(), nullable=True, comment="Of these, FAILED."),
        sa.Column(
            "total_payout",
            sa.Numeric(),
            nullable=True,
            comment="What the status says all positions pay, in units of the currency.",
        ),
        sa.Column(
            "completed_payout",
            sa.Numeric(),
            nullable=True,
            comment="What it says the completed ones pay.",
        ),
        sa.Column(
            "status_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the status last was read (UTC).",
        ),
        sa.Column(
            "progressed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its counts last changed, or it was last ordered anything (UTC): too long ago, it is stuck.",
        ),
        sa.Column(
            "listing_sha256",
            postgresql.BYTEA(),
            nullable=True,
            comment="Digest of the last status and complete list that were landed; the same again needs no other look. NULL: none, or a decision wants another look.",
        ),
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=True,
            comment="The batch of that list (ops.batch); NULL: none.",
        ),
        sa.Column(
            "differences",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="What does not add up in that list: check, sentence, is_holding.",
        ),
        sa.Column(
            "relook_until",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Until when it is looked at again though it is at its end, for what the engine changes later (UTC).",
        ),
        sa.Column(
            "trouble",
            sa.Text(),
            nullable=True,
            comment="Why the last look came to nothing; NULL: it did not.",
        ),
        sa.Column(
            "troubled_since",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Since when every look came to nothing (UTC).",
        ),
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that waits for a person (ops.finding); NULL: none was opened for its state.",
        ),
        sa.CheckConstraint(
            "completed_payout NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("market_completed_payout_finite_check"),
        ),
        sa.CheckConstraint(
            "currency ~ '^[A-Za-z0-9]{2,12}$'", name=op.f("market_currency_plausible_check")
        ),
        sa.CheckConstraint(
            "entered_by IN ('sql', 'file', 'event', 'form')",
            name=op.f("market_entered_by_known_check"),
        ),
        sa.CheckConstraint(
            "market_id ~ '^[A-Za-z0-9._~:@+=-]{1,128}$' AND market_id NOT IN ('.', '..')",
            name=op.f("market_market_id_usable_check"),
        ),
        sa.CheckConstraint(
            "state IN ('entered', 'resolved', 'settling', 'waiting', 'retrying', 'fetching', 'fetched', 'checked', 'done', 'held', 'failed', 'stuck', 'refused', 'withdrawn')",
            name=op.f("market_state_known_check"),
        ),
        sa.CheckConstraint(
            "state IN ('entered', 'withdrawn') OR evidence IS NOT NULL",
            name=op.f("market_settled_has_evidence_check"),
        ),
        sa.CheckConstraint(
            "total_payout NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("market_total_payout_finite_check"),
        ),
        sa.CheckConstraint(
            "(trouble IS NULL) = (troubled_since IS NULL)",
            name=op.f("market_trouble_is_dated_check"),
        ),
        sa.PrimaryKeyConstraint("market_id", name=op.f("market_pkey")),
        schema="prediction",
        comment="The queue: every market that is to be settled, and how far it is. Its payouts are in core.settlement.",
    )
    op.create_index(
        "market_due_index",
        "market",
        ["next_look_at"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("next_look_at IS NOT NULL"),
    )
    op.create_index(
        "market_entered_index",
        "market",
        ["entered_at"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("state = 'entered'"),
    )
    op.create_index(
        "market_listed_index",
        "market",
        ["market_id"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("state IN ('fetched', 'checked')"),
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
        sa.Column("market_id", sa.Text(collation="C"), nullable=False, comment="Which market."),
        sa.Column(
            "call",
            sa.Text(),
            nullable=False,
            comment="settle: cancel its open orders and settle its positions. retry: settle again those that failed.",
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="The Airflow run that made it."),
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
            comment="No byte of it is sent after this moment (UTC); before it nothing else is ordered for the market unless this was answered.",
        ),
        sa.Column(
            "closed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its result was stored (UTC); a late answer moves it. NULL: it is open, or its process died.",
        ),
        sa.Column(
            "result",
            sa.Text(),
            nullable=True,
            comment="executed, already_completed, failed, not_executed, rejected or in_doubt; NULL as long as closed_at is.",
        ),
        sa.Column(
            "http_status",
            sa.SmallInteger(),
            nullable=True,
            comment="HTTP status of the answer; NULL: none came.",
        ),
        sa.Column("code", sa.Text(), nullable=True, comment="The error code in the answer."),
        sa.Column(
            "detail",
            sa.Text(),
            nullable=True,
            comment="The same in words, where there is more to say.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=True,
            comment="The answer's exact bytes (raw.record); NULL: there are none.",
        ),
        sa.CheckConstraint("call IN ('settle', 'retry')", name=op.f("attempt_call_known_check")),
        sa.CheckConstraint(
            "result IN ('executed', 'already_completed', 'failed', 'not_executed', 'rejected', 'in_doubt')",
            name=op.f("attempt_result_known_check"),
        ),
        sa.CheckConstraint(
            "(result IS NULL) = (closed_at IS NULL)", name=op.f("attempt_closed_has_result_check")
        ),
        sa.ForeignKeyConstraint(
            ["market_id"], ["prediction.market.market_id"], name=op.f("attempt_market_id_fkey")
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("attempt_pkey")),
        schema="prediction",
        comment="Each order to settle a market or to retry it, committed before its first byte was sent; for ever.",
    )
    op.create_index(
        op.f("attempt_market_id_attempt_id_index"),
        "attempt",
        ["market_id", "attempt_id"],
        unique=False,
        schema="prediction",
    )
    op.execute(
        "COMMENT ON SCHEMA prediction IS"
        " 'The prediction engine''s markets: how far each is settled, and what was ordered.'"
    )


def downgrade() -> None:
    # Takes the queue with it: what is not settled has to be entered again.  Views go with what they
    # show: the `migrate` of whichever version comes next makes its own.
    op.execute("DROP SCHEMA prediction CASCADE")
    op.drop_index("settlement_market_index", table_name="settlement", schema="core")
    for schema in ("core", "staging"):
        op.execute(f"ALTER TABLE {schema}.settlement DROP position_id CASCADE")
