"""Create the warehouse."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMAS = {
    "raw": "What arrived, as it arrived.",
    "staging": "Rows of unfinished batches between normalize and publish.",
    "core": "Every accepted version of every settlement.",
    "ops": "How the pipelines stand: batches, cursors, quarantine, findings, decisions, alerts.",
    "finance": "What finance reads; nothing else is granted to finance_reader.",
}

# Months are made by the owner on behalf of the loader, which may create no table itself.
ENSURE_PAGE_MONTH = """
CREATE FUNCTION raw.ensure_page_month(moment timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day date := date_trunc('month', moment AT TIME ZONE 'UTC')::date;
    month_name text := 'page_y' || to_char(first_day, 'YYYY"m"MM');
BEGIN
    IF to_regclass('raw.' || month_name) IS NULL THEN
        BEGIN
            EXECUTE format(
                'CREATE TABLE raw.%I PARTITION OF raw.page FOR VALUES FROM (%L) TO (%L)',
                month_name,
                first_day::timestamp AT TIME ZONE 'UTC',
                (first_day + interval '1 month') AT TIME ZONE 'UTC'
            );
        EXCEPTION WHEN duplicate_table THEN
            -- Another transaction has made it since we looked.
            NULL;
        END;
    END IF;
    RETURN month_name;
END
$$
"""

# HMAC-SHA-256 by its definition; the embedded Postgres has no pgcrypto.
PLAYER_REFERENCE = """
CREATE FUNCTION ops.player_reference(player_id text) RETURNS text
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(outer_pad || sha256(inner_pad || convert_to(player_id, 'UTF8'))), 'hex')
    FROM ops.player_pad
$$
"""


def upgrade() -> None:
    for schema in SCHEMAS:
        op.execute(f"CREATE SCHEMA {schema}")
    op.execute("CREATE SEQUENCE raw.page_id_sequence")
    op.create_table(
        "settlement",
        sa.Column(
            "version",
            sa.Integer(),
            nullable=False,
            comment="1, 2, 3 … in the order in which the subject's versions were published here.",
        ),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Which provider decided: ticktock, …"
        ),
        sa.Column(
            "source_key",
            sa.Text(collation="C"),
            nullable=False,
            comment="The subject decided about: for ticktock match_id/market_offer_id.",
        ),
        sa.Column(
            "provider_order",
            sa.Text(collation="C"),
            nullable=False,
            comment="Sorts, as bytes, in the order in which the provider took its decisions about one subject.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="open, settled, void, rejected, cancelled or failed.",
        ),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=True,
            comment="What it means for the player: won, lost, void, …; NULL while open.",
        ),
        sa.Column(
            "previous_status",
            sa.Text(),
            nullable=True,
            comment="What the provider claims the status was before this decision; NULL where it claims nothing.",
        ),
        sa.Column(
            "player_id",
            sa.Text(),
            nullable=True,
            comment="The provider's or operator's player, in clear; finance sees a keyed hash of it.",
        ),
        sa.Column("event_id", sa.Text(), nullable=True, comment="The provider's event or match."),
        sa.Column("market_id", sa.Text(), nullable=True, comment="The provider's market or offer."),
        sa.Column(
            "selection_id", sa.Text(), nullable=True, comment="The provider's selection or outcome."
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=True,
            comment="ISO 4217 code or the provider's ticker of all amounts in the row; NULL where the provider tells no money.",
        ),
        sa.Column(
            "stake",
            sa.Numeric(),
            nullable=True,
            comment="What the player staked, in major units of the currency.",
        ),
        sa.Column(
            "payout",
            sa.Numeric(),
            nullable=True,
            comment="Everything returned to the player, in major units; NULL until it is final or where the provider tells none.",
        ),
        sa.Column(
            "refund",
            sa.Numeric(),
            nullable=True,
            comment="The part of payout that returns stake, in major units.",
        ),
        sa.Column(
            "enhancement",
            sa.Numeric(),
            nullable=True,
            comment="The part of payout that is a promotion, in major units.",
        ),
        sa.Column(
            "settled_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the decision was taken (UTC); see settled_at_basis.",
        ),
        sa.Column(
            "settled_at_basis",
            sa.Text(),
            nullable=False,
            comment="provider: the provider gave settled_at. observed: our clock on first seeing it.",
        ),
        sa.Column(
            "is_resettlement",
            sa.Boolean(),
            nullable=False,
            comment="The provider says that this corrects an earlier decision.",
        ),
        sa.Column(
            "settled_by",
            sa.Text(),
            nullable=True,
            comment="Who decided at the provider, in its own word: engine, system, admin.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="The provider's reason, in its own words."
        ),
        sa.Column(
            "player_reference",
            sa.Text(),
            nullable=True,
            comment="Keyed hash of player_id (HMAC-SHA-256, hex): what finance sees of a player.",
        ),
        sa.Column(
            "is_applied",
            sa.Boolean(),
            nullable=False,
            comment="It became the current version when it was published; false if one with a later or the same provider order was already here.",
        ),
        sa.Column(
            "not_applied_reason",
            sa.Text(),
            nullable=True,
            comment="late: a later decision of the provider was already here. same_order: one with the same provider order was. NULL if applied.",
        ),
        sa.Column(
            "is_change",
            sa.Boolean(),
            nullable=False,
            comment="Its canonical columns differ from the version before it in provider order; false for the first. Recomputed when a version arrives late.",
        ),
        sa.Column(
            "chain_break",
            sa.Text(),
            nullable=True,
            comment="status_differs: the provider claims another previous status than the version before it in provider order has. original_missing: it claims to follow an earlier decision, and there is no version before it. NULL if the chain holds, or if a decision rejected the version.",
        ),
        sa.Column(
            "is_contested",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Another version of the subject has the same provider order and another content, and no decision chose between them; outside finance totals.",
        ),
        sa.Column(
            "is_rejected_by_decision",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="A person chose another version of the same provider order (ops.decision); never current.",
        ),
        sa.Column(
            "recorded_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was published here (UTC, start of the transaction).",
        ),
        sa.Column(
            "accounting_date",
            sa.Date(),
            nullable=False,
            comment="UTC date on which it was published here; a date closes at 01:00 UTC of the next day.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The record that it comes from (raw.record): its evidence.",
        ),
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that published it (ops.batch).",
        ),
        sa.CheckConstraint(
            "chain_break IN ('status_differs', 'original_missing')",
            name=op.f("settlement_chain_break_known_check"),
        ),
        sa.CheckConstraint(
            "enhancement NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("settlement_enhancement_finite_check"),
        ),
        sa.CheckConstraint(
            "not_applied_reason IN ('late', 'same_order')",
            name=op.f("settlement_not_applied_reason_known_check"),
        ),
        sa.CheckConstraint(
            "outcome IN ('won', 'lost', 'void', 'refunded', 'half_won', 'half_lost', 'cash_out', 'placed', 'partly_won')",
            name=op.f("settlement_outcome_known_check"),
        ),
        sa.CheckConstraint(
            "payout NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("settlement_payout_finite_check"),
        ),
        sa.CheckConstraint(
            "previous_status IN ('open', 'settled', 'void', 'rejected', 'cancelled', 'failed')",
            name=op.f("settlement_previous_status_known_check"),
        ),
        sa.CheckConstraint(
            "refund NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("settlement_refund_finite_check"),
        ),
        sa.CheckConstraint(
            "settled_at_basis IN ('provider', 'observed')",
            name=op.f("settlement_settled_at_basis_known_check"),
        ),
        sa.CheckConstraint(
            "stake NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("settlement_stake_finite_check"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'settled', 'void', 'rejected', 'cancelled', 'failed')",
            name=op.f("settlement_status_known_check"),
        ),
        sa.CheckConstraint(
            "is_applied = (not_applied_reason IS NULL)",
            name=op.f("settlement_not_applied_has_reason_check"),
        ),
        sa.PrimaryKeyConstraint("source", "source_key", "version", name=op.f("settlement_pkey")),
        sa.UniqueConstraint("record_id", name=op.f("settlement_record_id_key")),
        schema="core",
        comment="Every accepted version of every settlement, for ever. Nothing is deleted or overwritten; a correction is a new version.",
    )
    op.create_index(
        "settlement_contested_index",
        "settlement",
        ["source"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("is_contested"),
    )
    op.create_index(
        "settlement_days_index",
        "settlement",
        [
            "settled_at",
            sa.literal_column("((settled_at AT TIME ZONE 'UTC')::date)"),
            "recorded_at",
            "accounting_date",
        ],
        unique=False,
        schema="core",
        postgresql_using="brin",
    )
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
    op.create_table(
        "settlement_leg",
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The version that it belongs to (core.settlement.record_id).",
        ),
        sa.Column(
            "leg_number",
            sa.SmallInteger(),
            nullable=False,
            comment="Position of the leg in the provider's message, from 1.",
        ),
        sa.Column("event_id", sa.Text(), nullable=True, comment="The provider's event."),
        sa.Column("market_id", sa.Text(), nullable=True, comment="The provider's market."),
        sa.Column("selection_id", sa.Text(), nullable=True, comment="The provider's selection."),
        sa.Column(
            "outcome", sa.Text(), nullable=True, comment="The leg's own outcome; NULL while open."
        ),
        sa.Column(
            "price",
            sa.Numeric(),
            nullable=True,
            comment="Decimal odds at which the leg was placed.",
        ),
        sa.Column(
            "settled_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the leg was decided (UTC).",
        ),
        sa.CheckConstraint(
            "outcome IN ('won', 'lost', 'void', 'refunded', 'half_won', 'half_lost', 'cash_out', 'placed', 'partly_won')",
            name=op.f("settlement_leg_outcome_known_check"),
        ),
        sa.CheckConstraint(
            "price NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("settlement_leg_price_finite_check"),
        ),
        sa.PrimaryKeyConstraint("record_id", "leg_number", name=op.f("settlement_leg_pkey")),
        schema="core",
        comment="Selections of multi-leg bets, by version.",
    )
    op.create_table(
        "alert",
        sa.Column(
            "alert_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "alert_key",
            sa.Text(),
            nullable=False,
            comment="What it is about; the same key is sent once.",
        ),
        sa.Column("title", sa.Text(), nullable=False, comment="One line."),
        sa.Column(
            "body",
            sa.Text(),
            nullable=False,
            comment="What happened, what was kept, what to click.",
        ),
        sa.Column("severity", sa.Text(), nullable=False, comment="critical, warning or info."),
        sa.Column(
            "times_raised",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often it was raised.",
        ),
        sa.Column(
            "raised_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first raised (UTC).",
        ),
        sa.Column(
            "sent_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the alerts connection took it (UTC); NULL: still to be sent.",
        ),
        sa.Column(
            "last_error",
            sa.Text(),
            nullable=True,
            comment="Why the last attempt to send it failed.",
        ),
        sa.CheckConstraint(
            "severity IN ('critical', 'warning', 'info')", name=op.f("alert_severity_known_check")
        ),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("alert_pkey")),
        sa.UniqueConstraint("alert_key", name=op.f("alert_alert_key_key")),
        schema="ops",
        comment="What is to be sent to the alerts connection, once per key.",
    )
    op.create_index(
        "alert_unsent_index",
        "alert",
        ["alert_id"],
        unique=False,
        schema="ops",
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.create_table(
        "batch",
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Which provider's records it holds."
        ),
        sa.Column("feed", sa.Text(), nullable=False, comment="Which of the provider's feeds."),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="fetch: landed from the provider. fill: asked for to close a gap. replay: quarantined records tried again.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="landing",
            nullable=False,
            comment="landing, landed, normalized, published; or held (a gate stopped it) or discarded (a decision).",
        ),
        sa.Column(
            "run_id",
            sa.Text(),
            nullable=True,
            comment="The Airflow run that opened it; for people, nothing depends on it.",
        ),
        sa.Column(
            "opened_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was opened (UTC).",
        ),
        sa.Column(
            "landed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it stopped taking rows (UTC).",
        ),
        sa.Column(
            "raw_checked_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it passed check_raw, or a decision released it (UTC).",
        ),
        sa.Column(
            "normalized_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its rows were staged (UTC).",
        ),
        sa.Column(
            "settlements_checked_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it passed check_settlements, or a decision released it (UTC).",
        ),
        sa.Column(
            "published_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its rows were published to core (UTC).",
        ),
        sa.Column(
            "held_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When a gate held it (UTC); NULL unless it is held.",
        ),
        sa.Column(
            "held_from",
            sa.Text(),
            nullable=True,
            comment="The state it was held in, to which it returns: landed or normalized.",
        ),
        sa.Column("held_reason", sa.Text(), nullable=True, comment="Which rule held it and why."),
        sa.Column(
            "is_released",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="A decision released it: batch rules no longer hold it, failing rows are quarantined.",
        ),
        sa.Column(
            "pages_received",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Pages that arrived, stored or not.",
        ),
        sa.Column(
            "pages_stored",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Pages stored in raw.page because they held something new.",
        ),
        sa.Column(
            "pages_miscounted",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Pages whose own count (meta.count) is not the number of records in them.",
        ),
        sa.Column(
            "received",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Records that arrived.",
        ),
        sa.Column(
            "duplicates",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, records already landed before.",
        ),
        sa.Column(
            "undecodable",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, messages that could not be decoded.",
        ),
        sa.Column(
            "landed",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of these, records landed in raw.record: received = landed + duplicates + undecodable.",
        ),
        sa.Column(
            "normalized",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Records that normalize took up: landed without those that check_raw quarantined.",
        ),
        sa.Column(
            "quarantined",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Records held back in ops.quarantine.",
        ),
        sa.Column(
            "published",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Rows that became the current version.",
        ),
        sa.Column(
            "not_applied",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Rows kept in core that did not become the current version when they were published: see core.settlement.not_applied_reason.",
        ),
        sa.Column(
            "evidence_only",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Records kept as evidence that make no settlement.",
        ),
        sa.Column(
            "discarded",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Records that a decision discarded with the whole batch.",
        ),
        sa.Column(
            "record_id_first",
            sa.BigInteger(),
            nullable=True,
            comment="Lowest record_id of its rows; NULL if it has none.",
        ),
        sa.Column(
            "record_id_last",
            sa.BigInteger(),
            nullable=True,
            comment="Highest record_id of its rows; NULL if it has none.",
        ),
        sa.Column(
            "cursor_before",
            sa.Text(),
            nullable=True,
            comment="Where its first fetch started, as text; NULL: without a cursor.",
        ),
        sa.Column(
            "cursor_after",
            sa.Text(),
            nullable=True,
            comment="Where the next fetch starts, as text; NULL if nothing moved.",
        ),
        sa.Column(
            "unknown_fields",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Field names seen in it that the provider's documentation does not have.",
        ),
        sa.Column(
            "conflicting_keys",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Record keys that arrived with another content than the one landed before (the first hundred).",
        ),
        sa.Column(
            "has_reached_end",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="It read to the provider's newest record: the feed was complete at landed_at.",
        ),
        sa.CheckConstraint(
            "(state = 'held') = (held_at IS NOT NULL)", name=op.f("batch_held_has_time_check")
        ),
        sa.CheckConstraint(
            "kind IN ('fetch', 'fill', 'replay')", name=op.f("batch_kind_known_check")
        ),
        sa.CheckConstraint(
            "state <> 'published' OR landed = published + not_applied + evidence_only + quarantined",
            name=op.f("batch_published_adds_up_check"),
        ),
        sa.CheckConstraint(
            "state IN ('landing', 'landed', 'normalized', 'published', 'held', 'discarded')",
            name=op.f("batch_state_known_check"),
        ),
        sa.CheckConstraint(
            "received = landed + duplicates + undecodable",
            name=op.f("batch_received_adds_up_check"),
        ),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("batch_pkey")),
        schema="ops",
        comment="A data object: records landed together, with a life of its own, whichever run or try works on it.",
    )
    op.create_index(
        op.f("batch_source_feed_batch_id_index"),
        "batch",
        ["source", "feed", "batch_id"],
        unique=False,
        schema="ops",
    )
    op.create_index(
        "batch_unfinished_index",
        "batch",
        ["source", "batch_id"],
        unique=False,
        schema="ops",
        postgresql_where=sa.text("state IN ('landing', 'landed', 'normalized', 'held')"),
    )
    op.create_table(
        "cursor",
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider."),
        sa.Column("feed", sa.Text(), nullable=False, comment="Which of its feeds."),
        sa.Column(
            "position",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Where the next fetch starts, in the source's own terms.",
        ),
        sa.Column(
            "revision",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Counts the moves; a writer moves it only from the revision it has read.",
        ),
        sa.Column(
            "moved_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it last moved (UTC).",
        ),
        sa.Column(
            "completed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When a fetch last reached the provider's newest record (UTC).",
        ),
        sa.Column(
            "stopped_by_finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that waits for a decision before the feed is read on; NULL if it is read.",
        ),
        sa.PrimaryKeyConstraint("source", "feed", name=op.f("cursor_pkey")),
        schema="ops",
        comment="Position per source and feed, moved by compare-and-set in the transaction that commits its rows.",
    )
    op.create_table(
        "finding",
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending; what a decision names.",
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="What sort of question it is; decides which decisions are open.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider it concerns."),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="What it concerns: a batch, a feed, a field, a settlement.",
        ),
        sa.Column(
            "severity",
            sa.Text(),
            nullable=False,
            comment="critical: something waits or is wrong. warning: look at it. info: know it.",
        ),
        sa.Column("summary", sa.Text(), nullable=False, comment="What happened, in one sentence."),
        sa.Column(
            "kept", sa.Text(), nullable=False, comment="What was kept and what was not touched."
        ),
        sa.Column("next_step", sa.Text(), nullable=False, comment="What to do next."),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Counts and examples.",
        ),
        sa.Column(
            "batch_id", sa.BigInteger(), nullable=True, comment="The batch it concerns, if one."
        ),
        sa.Column(
            "state", sa.Text(), server_default="open", nullable=False, comment="open or closed."
        ),
        sa.Column(
            "times_seen",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often it was met while open.",
        ),
        sa.Column(
            "opened_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first met (UTC).",
        ),
        sa.Column(
            "last_seen_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was last met (UTC).",
        ),
        sa.Column(
            "closed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it was closed (UTC).",
        ),
        sa.Column(
            "closed_by",
            sa.Text(),
            nullable=True,
            comment="decision: a person decided. system: its cause went away by itself.",
        ),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL) AND (state = 'closed') = (closed_by IS NOT NULL)",
            name=op.f("finding_closed_is_told_check"),
        ),
        sa.CheckConstraint(
            "closed_by IN ('decision', 'system')", name=op.f("finding_closed_by_known_check")
        ),
        sa.CheckConstraint(
            "severity IN ('critical', 'warning', 'info')", name=op.f("finding_severity_known_check")
        ),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("finding_state_known_check")),
        sa.PrimaryKeyConstraint("finding_id", name=op.f("finding_pkey")),
        schema="ops",
        comment="Something a person should know or decide; at most one open per kind, source and subject.",
    )
    op.create_index(
        "finding_open_once",
        "finding",
        ["kind", "source", "subject"],
        unique=True,
        schema="ops",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "gap",
        sa.Column(
            "gap_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider."),
        sa.Column("feed", sa.Text(), nullable=False, comment="Which of its feeds."),
        sa.Column(
            "range_after",
            sa.Text(),
            nullable=True,
            comment="Records after this position may be missing; NULL: from the beginning.",
        ),
        sa.Column(
            "range_before",
            sa.Text(),
            nullable=False,
            comment="Records before this position may be missing.",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="How it came about."),
        sa.Column(
            "state",
            sa.Text(),
            server_default="open",
            nullable=False,
            comment="open, or accepted: a person decided that nothing is missing, or that it stays missing.",
        ),
        sa.Column(
            "subjects",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Matches or bets that can be asked for one by one to fill it.",
        ),
        sa.Column(
            "opened_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was found (UTC).",
        ),
        sa.Column(
            "tried_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When its subjects were last asked for (UTC); NULL: the next run asks.",
        ),
        sa.Column(
            "closed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it was accepted (UTC).",
        ),
        sa.CheckConstraint("state IN ('open', 'accepted')", name=op.f("gap_state_known_check")),
        sa.PrimaryKeyConstraint("gap_id", name=op.f("gap_pkey")),
        schema="ops",
        comment="A range of records known to be missing, or that may be.",
    )
    op.create_table(
        "player_pad",
        sa.Column(
            "is_only",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="Always true: there is one row.",
        ),
        sa.Column(
            "inner_pad",
            postgresql.BYTEA(),
            nullable=False,
            comment="The secret key, as HMAC's inner pad.",
        ),
        sa.Column(
            "outer_pad",
            postgresql.BYTEA(),
            nullable=False,
            comment="The secret key, as HMAC's outer pad.",
        ),
        sa.CheckConstraint("is_only", name=op.f("player_pad_one_row_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("player_pad_pkey")),
        schema="ops",
        comment="The key under which finance sees player ids; nobody but the owner reads it.",
    )
    op.create_table(
        "page",
        sa.Column(
            "page_id",
            sa.BigInteger(),
            server_default=sa.text("nextval('raw.page_id_sequence')"),
            nullable=False,
            comment="Ours, ascending in order of arrival.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider sent it."),
        sa.Column("feed", sa.Text(), nullable=False, comment="Which of the provider's feeds."),
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that it was landed in (ops.batch; no constraint, so that old months can be detached).",
        ),
        sa.Column(
            "requested_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When the request was begun (UTC).",
        ),
        sa.Column(
            "received_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When its last byte had arrived (UTC); the partition key.",
        ),
        sa.Column(
            "request",
            sa.Text(),
            nullable=False,
            comment="Method, path and query that were asked, without any secret.",
        ),
        sa.Column(
            "http_status",
            sa.SmallInteger(),
            nullable=True,
            comment="The HTTP status of the answer; NULL for stream messages.",
        ),
        sa.Column(
            "content_type",
            sa.Text(),
            nullable=True,
            comment="The content type that the provider declared.",
        ),
        sa.Column(
            "body", postgresql.BYTEA(), nullable=False, comment="The exact bytes that arrived."
        ),
        sa.Column(
            "record_count",
            sa.Integer(),
            nullable=True,
            comment="Records found in it; NULL if it could not be decoded.",
        ),
        sa.Column(
            "provider_count",
            sa.Integer(),
            nullable=True,
            comment="How many records the provider says it holds (meta.count); NULL if it says nothing.",
        ),
        sa.Column(
            "undecodable_reason",
            sa.Text(),
            nullable=True,
            comment="Why it could not be decoded; NULL if it could.",
        ),
        sa.PrimaryKeyConstraint("page_id", "received_at", name=op.f("page_pkey")),
        schema="raw",
        comment="One HTTP body or chunk of stream messages, as the bytes that arrived, by month of arrival. Retention detaches months. A page that holds nothing new is counted in ops.batch, not stored.",
        postgresql_partition_by="RANGE (received_at)",
    )
    op.create_table(
        "record",
        sa.Column(
            "record_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending in order of landing.",
        ),
        sa.Column(
            "page_id",
            sa.BigInteger(),
            nullable=False,
            comment="The page that holds its text (raw.page).",
        ),
        sa.Column(
            "byte_start",
            sa.Integer(),
            nullable=False,
            comment="Where its text begins in the page's body, in bytes from 0.",
        ),
        sa.Column(
            "byte_length", sa.Integer(), nullable=False, comment="How many bytes its text has."
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider sent it."),
        sa.Column(
            "record_key",
            sa.Text(collation="C"),
            nullable=False,
            comment="The provider's id of the message; sha256:… of the text where it carries none.",
        ),
        sa.Column(
            "content_sha256",
            postgresql.BYTEA(),
            nullable=False,
            comment="SHA-256 of its exact text; a duplicate has the same key and the same digest.",
        ),
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that it was landed in (ops.batch).",
        ),
        sa.CheckConstraint(
            "byte_start >= 0 AND byte_length > 0", name=op.f("record_range_valid_check")
        ),
        sa.PrimaryKeyConstraint("record_id", name=op.f("record_pkey")),
        schema="raw",
        comment="One message inside a page, once per change of its content. Its text is in raw.record_payload.",
    )
    op.create_index(
        op.f("record_source_record_key_index"),
        "record",
        ["source", "record_key"],
        unique=False,
        schema="raw",
    )
    op.create_table(
        "settlement",
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that it is published with.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The record that it was normalized from (raw.record).",
        ),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Which provider decided: ticktock, …"
        ),
        sa.Column(
            "source_key",
            sa.Text(collation="C"),
            nullable=False,
            comment="The subject decided about: for ticktock match_id/market_offer_id.",
        ),
        sa.Column(
            "provider_order",
            sa.Text(collation="C"),
            nullable=False,
            comment="Sorts, as bytes, in the order in which the provider took its decisions about one subject.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="open, settled, void, rejected, cancelled or failed.",
        ),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=True,
            comment="What it means for the player: won, lost, void, …; NULL while open.",
        ),
        sa.Column(
            "previous_status",
            sa.Text(),
            nullable=True,
            comment="What the provider claims the status was before this decision; NULL where it claims nothing.",
        ),
        sa.Column(
            "player_id",
            sa.Text(),
            nullable=True,
            comment="The provider's or operator's player, in clear; finance sees a keyed hash of it.",
        ),
        sa.Column("event_id", sa.Text(), nullable=True, comment="The provider's event or match."),
        sa.Column("market_id", sa.Text(), nullable=True, comment="The provider's market or offer."),
        sa.Column(
            "selection_id", sa.Text(), nullable=True, comment="The provider's selection or outcome."
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=True,
            comment="ISO 4217 code or the provider's ticker of all amounts in the row; NULL where the provider tells no money.",
        ),
        sa.Column(
            "stake",
            sa.Numeric(),
            nullable=True,
            comment="What the player staked, in major units of the currency.",
        ),
        sa.Column(
            "payout",
            sa.Numeric(),
            nullable=True,
            comment="Everything returned to the player, in major units; NULL until it is final or where the provider tells none.",
        ),
        sa.Column(
            "refund",
            sa.Numeric(),
            nullable=True,
            comment="The part of payout that returns stake, in major units.",
        ),
        sa.Column(
            "enhancement",
            sa.Numeric(),
            nullable=True,
            comment="The part of payout that is a promotion, in major units.",
        ),
        sa.Column(
            "settled_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the decision was taken (UTC); see settled_at_basis.",
        ),
        sa.Column(
            "settled_at_basis",
            sa.Text(),
            nullable=False,
            comment="provider: the provider gave settled_at. observed: our clock on first seeing it.",
        ),
        sa.Column(
            "is_resettlement",
            sa.Boolean(),
            nullable=False,
            comment="The provider says that this corrects an earlier decision.",
        ),
        sa.Column(
            "settled_by",
            sa.Text(),
            nullable=True,
            comment="Who decided at the provider, in its own word: engine, system, admin.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="The provider's reason, in its own words."
        ),
        sa.PrimaryKeyConstraint("batch_id", "record_id", name=op.f("settlement_pkey")),
        schema="staging",
        comment="Normalized rows of unfinished batches; deleted by the transaction that publishes them. What is wrong with a row is said by the row rules, so nothing is constrained here but its keys.",
    )
    op.create_table(
        "settlement_leg",
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that it is published with.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The record that it was normalized from.",
        ),
        sa.Column(
            "leg_number",
            sa.SmallInteger(),
            nullable=False,
            comment="Position of the leg in the provider's message, from 1.",
        ),
        sa.Column("event_id", sa.Text(), nullable=True, comment="The provider's event."),
        sa.Column("market_id", sa.Text(), nullable=True, comment="The provider's market."),
        sa.Column("selection_id", sa.Text(), nullable=True, comment="The provider's selection."),
        sa.Column(
            "outcome", sa.Text(), nullable=True, comment="The leg's own outcome; NULL while open."
        ),
        sa.Column(
            "price",
            sa.Numeric(),
            nullable=True,
            comment="Decimal odds at which the leg was placed.",
        ),
        sa.Column(
            "settled_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the leg was decided (UTC).",
        ),
        sa.PrimaryKeyConstraint(
            "batch_id", "record_id", "leg_number", name=op.f("settlement_leg_pkey")
        ),
        schema="staging",
        comment="Selections of the multi-leg bets in staging.settlement.",
    )
    op.create_table(
        "decision",
        sa.Column(
            "decision_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column("finding_id", sa.BigInteger(), nullable=False, comment="The finding it answers."),
        sa.Column(
            "decision",
            sa.Text(),
            nullable=False,
            comment="What was decided: try_again, skip_page, release_batch, …",
        ),
        sa.Column(
            "decided_by",
            sa.Text(),
            nullable=False,
            comment="Who decided: the user who triggered resolve_findings.",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why, in that person's words."),
        sa.Column(
            "reference",
            sa.Text(),
            nullable=True,
            comment="A ticket, mail or partner reference that supports it.",
        ),
        sa.Column(
            "parameters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="What else the form held, such as the chosen version.",
        ),
        sa.Column(
            "state_before",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="What it changed, as it was.",
        ),
        sa.Column(
            "state_after",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="What it changed, as it is.",
        ),
        sa.Column(
            "run_id", sa.Text(), nullable=True, comment="The Airflow run that carried it out."
        ),
        sa.Column(
            "decided_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was carried out (UTC).",
        ),
        sa.ForeignKeyConstraint(
            ["finding_id"], ["ops.finding.finding_id"], name=op.f("decision_finding_id_fkey")
        ),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("decision_pkey")),
        schema="ops",
        comment="Who decided what, why, with which reference, before and after; only ever inserted.",
    )
    op.create_table(
        "quality_result",
        sa.Column(
            "quality_result_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "batch_id", sa.BigInteger(), nullable=False, comment="The batch that was checked."
        ),
        sa.Column("gate", sa.Text(), nullable=False, comment="check_raw or check_settlements."),
        sa.Column(
            "expectation", sa.Text(), nullable=False, comment="Name of the rule or group of rules."
        ),
        sa.Column(
            "severity",
            sa.Text(),
            nullable=False,
            comment="critical holds the batch, warning quarantines its rows or is only recorded.",
        ),
        sa.Column("is_met", sa.Boolean(), nullable=False, comment="Whether the batch met it."),
        sa.Column("evaluated", sa.BigInteger(), nullable=True, comment="Rows looked at."),
        sa.Column("unexpected", sa.BigInteger(), nullable=True, comment="Rows that failed it."),
        sa.Column(
            "result",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="The result in full, as Great Expectations or the gate gave it.",
        ),
        sa.Column(
            "checked_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was checked (UTC).",
        ),
        sa.CheckConstraint(
            "gate IN ('check_raw', 'check_settlements')",
            name=op.f("quality_result_gate_known_check"),
        ),
        sa.CheckConstraint(
            "severity IN ('critical', 'warning')", name=op.f("quality_result_severity_known_check")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["ops.batch.batch_id"], name=op.f("quality_result_batch_id_fkey")
        ),
        sa.PrimaryKeyConstraint("quality_result_id", name=op.f("quality_result_pkey")),
        schema="ops",
        comment="Every gate's result, per expectation.",
    )
    op.create_index(
        op.f("quality_result_batch_id_index"),
        "quality_result",
        ["batch_id"],
        unique=False,
        schema="ops",
    )
    op.create_table(
        "quarantine",
        sa.Column(
            "quarantine_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider's record it is."),
        sa.Column(
            "stage",
            sa.Text(),
            nullable=False,
            comment="raw, normalize or settlement: which step held it back.",
        ),
        sa.Column("rule", sa.Text(), nullable=False, comment="The rule it failed."),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=False,
            comment="How it failed, with the offending value where that is safe.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The record held back (raw.record_payload has its exact text).",
        ),
        sa.Column(
            "batch_id",
            sa.BigInteger(),
            nullable=False,
            comment="The batch that it was held back from.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="open",
            nullable=False,
            comment="open, retried (its batch was normalized again), replayed (a new batch has taken it) or discarded.",
        ),
        sa.Column(
            "replay_batch_id",
            sa.BigInteger(),
            nullable=True,
            comment="The batch that tries it again.",
        ),
        sa.Column(
            "quarantined_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was held back (UTC).",
        ),
        sa.CheckConstraint(
            "stage IN ('raw', 'normalize', 'settlement')", name=op.f("quarantine_stage_known_check")
        ),
        sa.CheckConstraint(
            "state IN ('open', 'retried', 'replayed', 'discarded')",
            name=op.f("quarantine_state_known_check"),
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["ops.batch.batch_id"], name=op.f("quarantine_batch_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["replay_batch_id"],
            ["ops.batch.batch_id"],
            name=op.f("quarantine_replay_batch_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("quarantine_pkey")),
        sa.UniqueConstraint(
            "batch_id", "record_id", name=op.f("quarantine_batch_id_record_id_key")
        ),
        schema="ops",
        comment="Records held back, each with its reason.",
    )
    op.create_index(
        "quarantine_replay_index",
        "quarantine",
        ["replay_batch_id"],
        unique=False,
        schema="ops",
        postgresql_where=sa.text("replay_batch_id IS NOT NULL"),
    )
    op.execute("ALTER TABLE raw.page ALTER COLUMN body SET STORAGE EXTERNAL")
    op.execute(ENSURE_PAGE_MONTH)
    op.execute(PLAYER_REFERENCE)
    for schema, comment in SCHEMAS.items():
        op.execute(f"COMMENT ON SCHEMA {schema} IS '{comment}'")


def downgrade() -> None:
    # Takes everything with it: only for a warehouse that nobody has landed anything in.
    for schema in reversed(SCHEMAS):
        op.execute(f"DROP SCHEMA {schema} CASCADE")
