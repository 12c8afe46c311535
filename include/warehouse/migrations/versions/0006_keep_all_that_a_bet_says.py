"""Keep all that a bet of odds88 says, every connection to a stream, and what exchange rates mean.

A leg that is built of several picks has its parts as rows of their own, so these are in its key.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)

FACTORS = (
    (
        "payout_multiplier",
        "What the provider multiplied the stake by for the payout; NULL where it does not tell.",
    ),
    (
        "placement_rate",
        "The provider's exchange rate when the bet was placed; ops.rate_terms says what it means. NULL where it does not tell.",
    ),
    (
        "settlement_rate",
        "The provider's exchange rate when the bet was settled; ops.rate_terms says what it means. NULL where it does not tell.",
    ),
)

LEG_COLUMNS = (
    (
        "type",
        sa.Text,
        "What kind of bet the leg is, in the provider's word: standard, starting_price, tote_exotics, fixed_exotics, bet_builder, pickem or each_way.",
    ),
    (
        "settlement_version",
        sa.Integer,
        "The provider's version of the leg's decision; it grows when the leg is settled again.",
    ),
    ("selection_version", sa.Integer, "The provider's version of the selection itself."),
    ("competition_id", sa.Text, "The provider's competition of the event."),
    ("country_id", sa.Text, "The provider's country of the event."),
    ("sport_id", sa.Text, "The provider's sport of the event."),
    ("event_name", sa.Text, "The event's name, in the provider's words."),
    ("event_starts_at", _TIME, "When the event starts (UTC)."),
    (
        "is_live",
        sa.Boolean,
        "The event is played while bets are taken; false: they are taken before it.",
    ),
    ("market_type_id", sa.Text, "The provider's type of the market."),
    ("market_name", sa.Text, "The market's name, in the provider's words."),
    (
        "market_properties",
        postgresql.JSONB,
        "What else the provider says about the market: names and texts.",
    ),
    (
        "parameters",
        postgresql.JSONB,
        "What the provider says about the selection, such as a line: names and texts.",
    ),
    ("win_price", sa.Numeric, "Decimal odds of an each-way leg's win part."),
    ("place_price", sa.Numeric, "Decimal odds of an each-way leg's place part."),
    ("dead_heat_factor", sa.Numeric, "Share of a place that several have won together."),
    (
        "place_dead_heat_factor",
        sa.Numeric,
        "The same for the place part of an each-way leg.",
    ),
    ("manual_price", sa.Numeric, "Decimal odds set by hand."),
    (
        "alternative_price",
        sa.Numeric,
        "Alternative decimal odds, as the provider calls them.",
    ),
    ("limits_rating_id", sa.Text, "The provider's limit under which the leg was placed."),
    ("limits_factor", sa.Numeric, "The factor of that limit."),
    ("has_line_deviation", sa.Boolean, "The provider says that the line deviated."),
    (
        "is_outright",
        sa.Boolean,
        "It was placed on the winner of a whole competition or the like.",
    ),
)

# Of staging nothing is constrained but the keys.
LEG_KEYS = {"staging": ("batch_id", "record_id", "leg_number"), "core": ("record_id", "leg_number")}


def upgrade() -> None:
    for schema in ("staging", "core"):
        for name, comment in FACTORS:
            column = sa.Column(name, sa.Numeric(), nullable=True, comment=comment)
            op.add_column("settlement", column, schema=schema)
        _add_leg_columns(schema)
    _check_finite("settlement", [name for name, _ in FACTORS])
    numbers = [name for name, kind, _ in LEG_COLUMNS if kind is sa.Numeric]
    _check_finite("settlement_leg", numbers)
    _comment_on_legs(
        "Selections of the bets in staging.settlement.",
        "Selections of bets, by version, and what those are made of that are built of several picks.",
    )
    op.create_table(
        "connect_attempt",
        sa.Column(
            "attempt_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="Which provider was connected to."),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="Which of the provider's budgets it counts against: proper, or without_revision, which too small a revision is as well.",
        ),
        sa.Column(
            "revision",
            sa.BigInteger(),
            nullable=True,
            comment="From when messages were asked for, in Unix seconds; NULL: none was named.",
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="Epoch of the lease under which it was made (ops.lease).",
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="The Airflow run that made it."),
        sa.Column(
            "attempted_at",
            _TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was about to be made (UTC); committed before the connection was begun.",
        ),
        sa.Column(
            "ended_at",
            _TIME,
            nullable=True,
            comment="When the connection had ended (UTC); NULL: it lasts, or its process died.",
        ),
        sa.Column(
            "ending",
            sa.Text(),
            nullable=True,
            comment="How it ended, in a word: caught_up, bound, silent, closed, refused, failed, …; NULL as long as ended_at is.",
        ),
        sa.Column(
            "messages",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Messages that came over it.",
        ),
        sa.CheckConstraint(
            "kind IN ('proper', 'without_revision')", name=op.f("connect_attempt_kind_known_check")
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("connect_attempt_pkey")),
        schema="ops",
        comment="Every connection to a provider that limits how many there may be, written down before it is begun; for ever.",
    )
    op.create_index(
        op.f("connect_attempt_source_attempted_at_index"),
        "connect_attempt",
        ["source", "attempted_at"],
        unique=False,
        schema="ops",
    )
    op.create_table(
        "rate_terms",
        sa.Column("source", sa.Text(), nullable=False, comment="Whose exchange rates are meant."),
        sa.Column(
            "base_currency",
            sa.Text(),
            nullable=False,
            comment="The currency that the rates lead to or from: the reporting currency of the source's amounts.",
        ),
        sa.Column(
            "direction",
            sa.Text(),
            nullable=False,
            comment="units_per_base: a rate says how many units of the bet's currency one of the base is. base_per_unit: the other way round.",
        ),
        sa.Column(
            "set_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When that was said first, or otherwise than before (UTC).",
        ),
        sa.CheckConstraint(
            "direction IN ('units_per_base', 'base_per_unit')",
            name=op.f("rate_terms_direction_known_check"),
        ),
        sa.PrimaryKeyConstraint("source", name=op.f("rate_terms_pkey")),
        schema="ops",
        comment="What a provider's exchange rates mean, as the settings said when the warehouse was last migrated. Without a row, no amount is given in a reporting currency.",
    )


def downgrade() -> None:
    # Takes with it what only bets of odds88 say.  Views go with what they show: the `migrate` of
    # whichever version comes next makes its own.
    op.execute("DROP TABLE ops.rate_terms, ops.connect_attempt CASCADE")
    _comment_on_legs(
        "Selections of the multi-leg bets in staging.settlement.",
        "Selections of multi-leg bets, by version.",
    )
    leg_columns = ["part_number", *(name for name, *_ in LEG_COLUMNS)]
    for schema, key in LEG_KEYS.items():
        op.execute(f"DELETE FROM {schema}.settlement_leg WHERE part_number > 0")
        _drop(f"{schema}.settlement_leg", leg_columns)
        _drop(f"{schema}.settlement", [name for name, _ in FACTORS])
        op.create_primary_key("settlement_leg_pkey", "settlement_leg", [*key], schema=schema)


def _add_leg_columns(schema: str) -> None:
    part_number = sa.Column(
        "part_number",
        sa.SmallInteger(),
        server_default=sa.text("0"),
        nullable=False,
        comment="0: the leg itself. 1, 2, 3 …: what a leg built of several picks is made of, in the provider's order; an event is then told by the leg alone.",
    )
    op.add_column("settlement_leg", part_number, schema=schema)
    for name, kind, comment in LEG_COLUMNS:
        column = sa.Column(name, kind, nullable=True, comment=comment)
        op.add_column("settlement_leg", column, schema=schema)
    op.drop_constraint("settlement_leg_pkey", "settlement_leg", schema=schema)
    key = [*LEG_KEYS[schema], "part_number"]
    op.create_primary_key("settlement_leg_pkey", "settlement_leg", key, schema=schema)


def _check_finite(table: str, columns: list[str]) -> None:
    # In one statement, so that a large table is read once.
    checks = ", ".join(
        f"ADD CONSTRAINT {table}_{column}_finite_check"
        f" CHECK ({column} NOT IN ('NaN', 'Infinity', '-Infinity'))"
        for column in columns
    )
    op.execute(f"ALTER TABLE core.{table} {checks}")


def _comment_on_legs(staging: str, core: str) -> None:
    op.create_table_comment("settlement_leg", staging, schema="staging")
    op.create_table_comment("settlement_leg", core, schema="core")


def _drop(table: str, columns: list[str]) -> None:
    listed = ", ".join(f"DROP {column} CASCADE" for column in columns)
    op.execute(f"ALTER TABLE {table} {listed}")
