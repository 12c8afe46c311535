"""Keep the register of the bets that tote is asked about, and what its socket hinted at."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)
_KINDS = "fetch: landed from the provider. fill: asked for to close a gap. replay: quarantined records tried again."
_KINDS_WITH_EVIDENCE = f"{_KINDS} evidence: kept, and settling nothing."
_CURRENT = "How its subject stands now: of all versions that no decision rejected, the one with the highest (provider_order, record_id)"
_CURRENT_AS_SEEN = f"{_CURRENT}; if its time is that of our looking (settled_at_basis), the first of those that say the same."


def upgrade() -> None:
    _say_what_is_current(_CURRENT_AS_SEEN, f"{_CURRENT}.")
    op.execute("CREATE SCHEMA tote")
    op.create_table(
        "bet",
        sa.Column(
            "tote_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="toteId: which bet. At most 128 characters.",
        ),
        sa.Column(
            "entered_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was entered (UTC, start of the transaction); its age counts from then.",
        ),
        sa.Column(
            "entered_by",
            sa.Text(),
            server_default="sql",
            nullable=False,
            comment="sql: by another system or a person. file: from an imported file. listing: tote listed it. hint: its socket named it.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default="open",
            nullable=False,
            comment="open: asked for until it is final. final: settled, refunded, cancelled, rejected or failed, and still looked at for some days after its last change. done: not asked for any more.",
        ),
        sa.Column(
            "next_ask_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=True,
            comment="When it is asked for next (UTC); NULL only if it is done.",
        ),
        sa.Column(
            "asked_at",
            _TIME,
            nullable=True,
            comment="When it was last asked for (UTC), answered or not; NULL: never.",
        ),
        sa.Column(
            "answered_at",
            _TIME,
            nullable=True,
            comment="When an answer last told it (UTC); NULL: never.",
        ),
        sa.Column(
            "changed_at",
            _TIME,
            nullable=True,
            comment="When an answer first told it as it stands (UTC); NULL: none has.",
        ),
        sa.Column(
            "absent_since",
            _TIME,
            nullable=True,
            comment="When an answer first left it out though it was asked for (UTC): tote does not know it. NULL: it does, or was not asked yet.",
        ),
        sa.Column(
            "hinted_at",
            _TIME,
            nullable=True,
            comment="When the socket last hinted at a change that no answer has been asked for since (UTC); NULL: nothing waits.",
        ),
        sa.Column(
            "placement",
            sa.Text(),
            nullable=True,
            comment="placement.status as last told, in tote's word.",
        ),
        sa.Column(
            "resulting",
            sa.Text(),
            nullable=True,
            comment="resulting.status as last told, in tote's word; NULL if none was told.",
        ),
        sa.Column(
            "settlement",
            sa.Text(),
            nullable=True,
            comment="settlement.status as last told, in tote's word; NULL if none was told.",
        ),
        sa.Column(
            "content_sha256",
            postgresql.BYTEA(),
            nullable=True,
            comment="SHA-256 of the text that last told it; another one is a change. NULL: nothing was told.",
        ),
        sa.Column(
            "is_asked_alone",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="An answer that held it with others could not be decoded, or failed for it, so it is asked for by itself until it is answered.",
        ),
        sa.Column(
            "refusal",
            sa.Text(),
            nullable=True,
            comment="What tote said instead of an answer when it was asked for this bet alone, while it answered for others; absent_since is set as well. NULL: it answers.",
        ),
        sa.CheckConstraint(
            "(state = 'done') = (next_ask_at IS NULL)", name=op.f("bet_done_is_not_asked_check")
        ),
        sa.CheckConstraint(
            "entered_by IN ('sql', 'file', 'listing', 'hint')",
            name=op.f("bet_entered_by_known_check"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'final', 'done')", name=op.f("bet_state_known_check")
        ),
        sa.CheckConstraint(
            "char_length(tote_id) BETWEEN 1 AND 128", name=op.f("bet_tote_id_bounded_check")
        ),
        sa.PrimaryKeyConstraint("tote_id", name=op.f("bet_pkey")),
        schema="tote",
        comment="The register: every bet of tote that is to be asked for, entered by whom ever knows of it; the same id twice is one bet. How it stands for finance is in core.settlement.",
    )
    op.create_index(
        "bet_absent_index",
        "bet",
        ["absent_since"],
        unique=False,
        schema="tote",
        postgresql_where=sa.text("absent_since IS NOT NULL"),
    )
    op.create_index(
        "bet_due_index",
        "bet",
        ["next_ask_at"],
        unique=False,
        schema="tote",
        postgresql_where=sa.text("next_ask_at IS NOT NULL"),
    )
    op.create_index(
        "bet_hinted_index",
        "bet",
        ["hinted_at"],
        unique=False,
        schema="tote",
        postgresql_where=sa.text("hinted_at IS NOT NULL"),
    )
    op.create_index(
        "bet_open_index",
        "bet",
        ["entered_at"],
        unique=False,
        schema="tote",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "hint",
        sa.Column(
            "hint_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "record_id", sa.BigInteger(), nullable=False, comment="The message (raw.record)."
        ),
        sa.Column("tote_id", sa.Text(collation="C"), nullable=False, comment="Which bet it names."),
        sa.Column(
            "message_type",
            sa.Text(),
            nullable=False,
            comment="What it says happened, in tote's word: BetSettled, …",
        ),
        sa.Column(
            "return_amount",
            sa.Numeric(),
            nullable=True,
            comment="ReturnAmount, in major units of a currency that is not told; NULL if none is told that can be read.",
        ),
        sa.Column("received_at", _TIME, nullable=False, comment="When it arrived (UTC)."),
        sa.Column(
            "confirmed_at",
            _TIME,
            nullable=True,
            comment="When an answer of GraphQL told the bet as the hint says, or further on (UTC); NULL: none has.",
        ),
        sa.Column(
            "confirmed_by_record_id",
            sa.BigInteger(),
            nullable=True,
            comment="What that answer told of the bet (raw.record); NULL as long as confirmed_at is.",
        ),
        sa.Column(
            "differs",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="What GraphQL told contradicts it, such as another amount.",
        ),
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that tells of the difference (ops.finding); NULL if there is none.",
        ),
        sa.CheckConstraint(
            "return_amount NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("hint_return_amount_finite_check"),
        ),
        sa.PrimaryKeyConstraint("hint_id", name=op.f("hint_pkey")),
        sa.UniqueConstraint("record_id", name=op.f("hint_record_id_key")),
        schema="tote",
        comment="Messages of the socket, each a reason to ask for its bet sooner and nothing else: no bet is settled on a hint.",
    )
    op.create_index(
        "hint_unconfirmed_index",
        "hint",
        ["tote_id"],
        unique=False,
        schema="tote",
        postgresql_where=sa.text("confirmed_at IS NULL"),
    )
    op.create_table(
        "rejected_line",
        sa.Column(
            "rejected_line_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "file_name",
            sa.Text(),
            nullable=False,
            comment="Name of the imported file, without its folder.",
        ),
        sa.Column(
            "line_number", sa.BigInteger(), nullable=False, comment="Which line of it, from 1."
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it was not taken."),
        sa.Column(
            "line",
            postgresql.BYTEA(),
            nullable=False,
            comment="Its exact bytes without the line's end, the first 8 192 of them.",
        ),
        sa.Column("line_bytes", sa.BigInteger(), nullable=False, comment="How many bytes it has."),
        sa.Column(
            "line_sha256",
            postgresql.BYTEA(),
            nullable=False,
            comment="SHA-256 of the whole line; the same line at the same place is kept once.",
        ),
        sa.Column(
            "rejected_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first rejected (UTC).",
        ),
        sa.PrimaryKeyConstraint("rejected_line_id", name=op.f("rejected_line_pkey")),
        sa.UniqueConstraint(
            "file_name",
            "line_number",
            "line_sha256",
            name=op.f("rejected_line_file_name_line_number_line_sha256_key"),
        ),
        schema="tote",
        comment="Lines of imported registers that name no bet; nothing of them is in tote.bet.",
    )
    _allow_kinds("'fetch', 'fill', 'replay', 'evidence'", _KINDS_WITH_EVIDENCE, _KINDS)
    op.execute(
        "COMMENT ON SCHEMA tote IS"
        " 'Which bets tote is asked about, and when; and what its socket hinted at.'"
    )


def downgrade() -> None:
    _say_what_is_current(f"{_CURRENT}.", _CURRENT_AS_SEEN)
    op.execute("UPDATE ops.batch SET kind = 'fetch' WHERE kind = 'evidence'")
    _allow_kinds("'fetch', 'fill', 'replay'", _KINDS, _KINDS_WITH_EVIDENCE)
    # Takes the register with it: what was not listed has to be entered again.
    op.execute("DROP SCHEMA tote CASCADE")


def _say_what_is_current(comment: str, existing_comment: str) -> None:
    op.alter_column(
        "settlement",
        "is_current",
        schema="core",
        existing_type=sa.Boolean(),
        existing_nullable=False,
        comment=comment,
        existing_comment=existing_comment,
    )


def _allow_kinds(kinds: str, comment: str, existing_comment: str) -> None:
    op.drop_constraint("batch_kind_known_check", "batch", schema="ops")
    op.create_check_constraint(
        op.f("batch_kind_known_check"), "batch", f"kind IN ({kinds})", schema="ops"
    )
    op.alter_column(
        "batch",
        "kind",
        schema="ops",
        existing_type=sa.Text(),
        existing_nullable=False,
        comment=comment,
        existing_comment=existing_comment,
    )
