"""Make the outbox of payouts, which keeps its own rules: whatever enters it passes its trigger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Whoever may insert neither reads nor changes what is there: this does it on the owner's behalf.
# Of two sessions with one id the second waits at the claim, and then finds the row of the first.
ENTER_TRANSACTION = """
CREATE FUNCTION wallet.enter_transaction() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    known wallet.transaction;
    conflict bigint;
BEGIN
    IF NEW.business_date > today THEN
        RAISE EXCEPTION
            'The business date % of transaction % lies in the future: it is % UTC. Nothing was '
            'stored. Enter it with the UTC day that the payout belongs to.',
            NEW.business_date, NEW.transaction_id, today
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.amount < 0 THEN
        RAISE EXCEPTION
            'The amount % of transaction % is negative. Nothing was stored. A payout is 0 or more.',
            NEW.amount, NEW.transaction_id
            USING ERRCODE = 'check_violation';
    END IF;

    INSERT INTO wallet.transaction_claim VALUES (NEW.transaction_id) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        IF NEW.amount > 0 AND NOT NEW.is_win AND NEW.hold_reason IS NULL THEN
            NEW.hold_reason := 'amount_without_win';
        END IF;
        RETURN NEW;
    END IF;

    SELECT * INTO STRICT known
    FROM wallet.transaction
    WHERE transaction_id = NEW.transaction_id;
    IF (
        NEW.ref_transaction_id, NEW.session_id, NEW.round_id, NEW.player_id, NEW.game_id,
        NEW.currency, NEW.amount, NEW.is_win
    ) IS NOT DISTINCT FROM (
        known.ref_transaction_id, known.session_id, known.round_id, known.player_id, known.game_id,
        known.currency, known.amount, known.is_win
    ) THEN
        -- Another business date or origin makes no other payout: the first one stays.
        RETURN NULL;
    END IF;

    -- Whoever sends it holds the same lock: it is either sent already, or held in time.
    SELECT * INTO STRICT known
    FROM wallet.transaction
    WHERE transaction_id = NEW.transaction_id
    FOR UPDATE;
    INSERT INTO wallet.transaction_conflict (
        transaction_id, ref_transaction_id, session_id, round_id, player_id, game_id, currency,
        amount, is_win, business_date, origin_source, origin_key, content_sha256, is_after_send
    )
    VALUES (
        NEW.transaction_id, NEW.ref_transaction_id, NEW.session_id, NEW.round_id, NEW.player_id,
        NEW.game_id, NEW.currency, NEW.amount, NEW.is_win, NEW.business_date, NEW.origin_source,
        NEW.origin_key, wallet.content_sha256(NEW), wallet.is_sent(known)
    )
    ON CONFLICT (transaction_id, content_sha256) DO NOTHING
    RETURNING conflict_id INTO conflict;
    IF conflict IS NOT NULL AND NOT wallet.is_sent(known) THEN
        -- A hold of another kind gives way, but is named: whoever releases this one must know it.
        UPDATE wallet.transaction
        SET hold_reason = 'changed',
            hold_detail = CASE
                WHEN known.hold_reason = 'changed' THEN known.hold_detail
                ELSE concat(
                    format('Another content came under its id: conflict %s.', conflict),
                    ' It was held before: ' || known.hold_reason, ': ' || known.hold_detail
                )
            END,
            hold_finding_id = NULL
        WHERE transaction_id = NEW.transaction_id;
    END IF;
    RETURN NULL;
END
$$
"""

# From here on the partner may know the payout, so that holding it back decides nothing any more.
IS_SENT = """
CREATE FUNCTION wallet.is_sent(entered wallet.transaction) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT entered.first_sent_at IS NOT NULL OR entered.disposition <> 'open'
$$
"""

# Of what the wallet is told, so that one other content is recorded once however often it comes.
CONTENT_SHA256 = """
CREATE FUNCTION wallet.content_sha256(entered wallet.transaction) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT sha256(convert_to(jsonb_build_array(
        entered.transaction_id, entered.ref_transaction_id, entered.session_id, entered.round_id,
        entered.player_id, entered.game_id, entered.currency, entered.amount, entered.is_win
    )::text, 'UTF8'))
$$
"""

KEEP_TRANSACTION = """
CREATE FUNCTION wallet.keep_transaction() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_disposed boolean := OLD.disposition <> 'open';
BEGIN
    IF (
        NEW.transaction_id, NEW.ref_transaction_id, NEW.session_id, NEW.round_id, NEW.player_id,
        NEW.game_id, NEW.currency, NEW.amount, NEW.is_win, NEW.business_date, NEW.origin_source,
        NEW.origin_key, NEW.entered_at
    ) IS DISTINCT FROM (
        OLD.transaction_id, OLD.ref_transaction_id, OLD.session_id, OLD.round_id, OLD.player_id,
        OLD.game_id, OLD.currency, OLD.amount, OLD.is_win, OLD.business_date, OLD.origin_source,
        OLD.origin_key, OLD.entered_at
    ) THEN
        PERFORM wallet.refuse_change(OLD.transaction_id, 'what was entered never changes');
    END IF;
    IF OLD.item IS NOT NULL AND NEW.item IS DISTINCT FROM OLD.item THEN
        PERFORM wallet.refuse_change(OLD.transaction_id, 'its bytes are frozen');
    END IF;
    IF OLD.first_sent_at IS NOT NULL AND NEW.first_sent_at IS DISTINCT FROM OLD.first_sent_at THEN
        PERFORM wallet.refuse_change(OLD.transaction_id, 'its first attempt is for ever');
    END IF;
    IF is_disposed AND (
        NEW.disposition, NEW.disposed_at, NEW.accounting_date, NEW.evidence
    ) IS DISTINCT FROM (
        OLD.disposition, OLD.disposed_at, OLD.accounting_date, OLD.evidence
    ) THEN
        PERFORM wallet.refuse_change(
            OLD.transaction_id, format('it is %s for ever', OLD.disposition)
        );
    END IF;
    IF NEW.disposition <> 'open' AND NOT is_disposed THEN
        NEW.disposed_at := now();
        NEW.accounting_date := (now() AT TIME ZONE 'UTC')::date;
    END IF;
    RETURN NEW;
END
$$
"""

REFUSE_CHANGE = """
CREATE FUNCTION wallet.refuse_change(transaction_id text, why text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'Transaction % stays as it is: %. Nothing was changed.', transaction_id, why
        USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

TRIGGERS = """
CREATE TRIGGER enter_transaction BEFORE INSERT ON wallet.transaction
    FOR EACH ROW EXECUTE FUNCTION wallet.enter_transaction();
CREATE TRIGGER keep_transaction BEFORE UPDATE ON wallet.transaction
    FOR EACH ROW EXECUTE FUNCTION wallet.keep_transaction()
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA wallet")
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
            postgresql.TIMESTAMP(timezone=True),
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
        schema="wallet",
        comment="Lines of imported files that are no payout; nothing of them is in the outbox.",
    )
    op.create_table(
        "transaction",
        sa.Column(
            "transaction_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="transactionId: names the payout for ever; the partner processes it at most once. At most 500 characters.",
        ),
        sa.Column(
            "ref_transaction_id",
            sa.Text(),
            nullable=False,
            comment="refTransactionId: the transaction that this one answers, such as the bet.",
        ),
        sa.Column(
            "session_id", sa.Text(), nullable=False, comment="sessionId: the player's session."
        ),
        sa.Column(
            "round_id", sa.Text(), nullable=False, comment="roundId: the round that was played."
        ),
        sa.Column(
            "player_id", sa.Text(), nullable=False, comment="playerId: who is paid, in clear."
        ),
        sa.Column(
            "game_id", sa.Text(), nullable=False, comment="gameId: the game that was played."
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=False,
            comment="ISO 4217 code or the partner's ticker of amount.",
        ),
        sa.Column(
            "amount",
            sa.BigInteger(),
            nullable=False,
            comment="What is paid, in hundred-thousandths of the currency: 250000000 EUR is 2 500.00000.",
        ),
        sa.Column("is_win", sa.Boolean(), nullable=False, comment="isWin: the round was won."),
        sa.Column(
            "business_date",
            sa.Date(),
            nullable=False,
            comment="UTC day that the payout belongs to; as it was first entered.",
        ),
        sa.Column(
            "origin_source",
            sa.Text(),
            nullable=True,
            comment="Where it comes from: import, or whoever entered it; NULL if that was not told.",
        ),
        sa.Column(
            "origin_key", sa.Text(), nullable=True, comment="Where there: file and line, credit, …"
        ),
        sa.Column(
            "entered_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was entered (UTC, start of the transaction).",
        ),
        sa.Column(
            "item",
            postgresql.BYTEA(),
            nullable=True,
            comment="Its exact bytes in every request, frozen before the first; NULL until then.",
        ),
        sa.Column(
            "first_sent_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the first attempt that holds it was committed (UTC); NULL: never sent. From then on a change of its content does not hold it.",
        ),
        sa.Column(
            "disposition",
            sa.Text(),
            server_default="open",
            nullable=False,
            comment="open, then processed (the wallet paid it) or lost (it will not be paid); one way.",
        ),
        sa.Column(
            "hold_reason",
            sa.Text(),
            nullable=True,
            comment="Why it is not sent though open: amount_without_win, changed, unsignable, … NULL if nothing holds it.",
        ),
        sa.Column(
            "hold_detail",
            sa.Text(),
            nullable=True,
            comment="The same in words, where there is more to say.",
        ),
        sa.Column(
            "hold_finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that asks about the hold (ops.finding); NULL until one was opened.",
        ),
        sa.Column(
            "disposed_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it became processed or lost (UTC, start of the transaction).",
        ),
        sa.Column(
            "accounting_date",
            sa.Date(),
            nullable=True,
            comment="UTC date of disposed_at: the day in which it is booked.",
        ),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The attempt or decision that says why it is processed or lost, or is about to be.",
        ),
        sa.CheckConstraint(
            "(disposition = 'open') = (disposed_at IS NULL) AND (disposition = 'open') = (accounting_date IS NULL)",
            name=op.f("transaction_disposed_is_dated_check"),
        ),
        sa.CheckConstraint(
            "business_date >= '2000-01-01'", name=op.f("transaction_business_date_plausible_check")
        ),
        sa.CheckConstraint(
            "disposition = 'open' OR evidence IS NOT NULL",
            name=op.f("transaction_disposed_has_evidence_check"),
        ),
        sa.CheckConstraint(
            "disposition IN ('open', 'processed', 'lost')",
            name=op.f("transaction_disposition_known_check"),
        ),
        sa.CheckConstraint(
            "hold_reason IS NULL OR disposition = 'open'",
            name=op.f("transaction_held_is_open_check"),
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("transaction_amount_not_negative_check")),
        sa.CheckConstraint(
            "char_length(transaction_id) BETWEEN 1 AND 500",
            name=op.f("transaction_transaction_id_bounded_check"),
        ),
        sa.CheckConstraint(
            "first_sent_at IS NULL OR item IS NOT NULL",
            name=op.f("transaction_sent_is_frozen_check"),
        ),
        sa.CheckConstraint(
            "hold_reason IS NOT NULL OR (hold_detail IS NULL AND hold_finding_id IS NULL)",
            name=op.f("transaction_hold_has_reason_check"),
        ),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("transaction_pkey")),
        schema="wallet",
        comment="The outbox: payouts that the wallet has not processed. What was entered never changes. Sent are those that are open and not held; processed and lost are for ever.",
    )
    op.create_index(
        "transaction_due_index",
        "transaction",
        ["business_date", "currency", "transaction_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("disposition = 'open' AND hold_reason IS NULL"),
    )
    op.create_index(
        "transaction_held_index",
        "transaction",
        ["business_date", "hold_reason", "transaction_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("hold_reason IS NOT NULL"),
    )
    op.create_index(
        "transaction_unfrozen_index",
        "transaction",
        ["transaction_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("item IS NULL AND disposition = 'open' AND hold_reason IS NULL"),
    )
    op.create_table(
        "transaction_claim",
        sa.Column(
            "transaction_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="An id that was entered into wallet.transaction.",
        ),
        sa.CheckConstraint(
            "char_length(transaction_id) BETWEEN 1 AND 500",
            name=op.f("transaction_claim_transaction_id_bounded_check"),
        ),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("transaction_claim_pkey")),
        schema="wallet",
        comment="Every id of the outbox, written by its trigger before the row itself: the same id entered twice at once waits here and does not fail.",
    )
    op.create_table(
        "transaction_conflict",
        sa.Column(
            "conflict_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "transaction_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The transaction whose id it has.",
        ),
        sa.Column(
            "ref_transaction_id",
            sa.Text(),
            nullable=False,
            comment="refTransactionId: the transaction that this one answers, such as the bet.",
        ),
        sa.Column(
            "session_id", sa.Text(), nullable=False, comment="sessionId: the player's session."
        ),
        sa.Column(
            "round_id", sa.Text(), nullable=False, comment="roundId: the round that was played."
        ),
        sa.Column(
            "player_id", sa.Text(), nullable=False, comment="playerId: who is paid, in clear."
        ),
        sa.Column(
            "game_id", sa.Text(), nullable=False, comment="gameId: the game that was played."
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=False,
            comment="ISO 4217 code or the partner's ticker of amount.",
        ),
        sa.Column(
            "amount",
            sa.BigInteger(),
            nullable=False,
            comment="What is paid, in hundred-thousandths of the currency: 250000000 EUR is 2 500.00000.",
        ),
        sa.Column("is_win", sa.Boolean(), nullable=False, comment="isWin: the round was won."),
        sa.Column("business_date", sa.Date(), nullable=False, comment="UTC day that came with it."),
        sa.Column("origin_source", sa.Text(), nullable=True, comment="Where it comes from."),
        sa.Column(
            "origin_key", sa.Text(), nullable=True, comment="Where there: file and line, credit, …"
        ),
        sa.Column(
            "content_sha256",
            postgresql.BYTEA(),
            nullable=False,
            comment="Digest of what the wallet would be told; the same content is recorded once.",
        ),
        sa.Column(
            "is_after_send",
            sa.Boolean(),
            nullable=False,
            comment="The transaction had been sent or disposed of when it came, and was not held for it.",
        ),
        sa.Column(
            "arrived_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it first came (UTC, start of the transaction).",
        ),
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that tells of it (ops.finding); NULL until one was opened.",
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["wallet.transaction.transaction_id"],
            name=op.f("transaction_conflict_transaction_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("conflict_id", name=op.f("transaction_conflict_pkey")),
        sa.UniqueConstraint(
            "transaction_id",
            "content_sha256",
            name=op.f("transaction_conflict_transaction_id_content_sha256_key"),
        ),
        schema="wallet",
        comment="What was entered under the id of a transaction, with another content than it has. It is never sent; the transaction is held if it had not been sent.",
    )
    op.create_index(
        "transaction_conflict_untold_index",
        "transaction_conflict",
        ["conflict_id"],
        unique=False,
        schema="wallet",
        postgresql_where=sa.text("finding_id IS NULL"),
    )
    for function in (IS_SENT, CONTENT_SHA256, REFUSE_CHANGE, ENTER_TRANSACTION, KEEP_TRANSACTION):
        op.execute(function)
    op.execute(TRIGGERS)
    op.execute(
        "COMMENT ON SCHEMA wallet IS"
        " 'The outbox of payouts for the wallet, and what was tried to enter it.'"
    )


def downgrade() -> None:
    # Takes every payout with it: only for a warehouse whose outbox is not in use.
    op.execute("DROP SCHEMA wallet CASCADE")
