"""Credit players what their settled positions pay, once, and say what was credited otherwise.

A payout of the outbox that is a credit is never lost: what the wallet refuses is owed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SCHEMA_BEFORE = "The prediction engine''s markets: how far each is settled, and what was ordered."
SCHEMA = (
    "The prediction engine''s markets: how far each is settled, what was ordered, and what their"
    " players are credited."
)
DISPOSITION_BEFORE = (
    "open, then processed (the wallet paid it) or lost (it will not be paid); one way."
)
DISPOSITION = "open, then processed (the wallet paid it; of a credit, perhaps the operator otherwise) or lost (it will not be paid); one way."

KEEP_CREDIT = """
CREATE FUNCTION prediction.keep_credit() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'Credit % stays as it is: %. Nothing was changed.', OLD.credit_id, CASE TG_ARGV[0]
        WHEN 'identity' THEN 'what it credits never changes'
        WHEN 'content' THEN 'what was sent or paid never changes, a difference is an adjustment'
        ELSE format('it is %s, and cannot become %s', OLD.state, NEW.state)
    END
    USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

KEEP_ADJUSTMENT = """
CREATE FUNCTION prediction.keep_adjustment() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'Adjustment % stays as it is. Nothing was changed.', OLD.adjustment_id
        USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

IDENTITY = ("settlement_id", "market_id", "position_id", "created_at", "accounting_date")
CONTENT = ("outcome_id", "player_id", "currency", "amount", "record_id", "transaction_id")
ACKNOWLEDGED = ("acknowledged_at", "acknowledged_by", "reference")
ADJUSTED = (
    *("credit_id", "currency", "amount_before", "amount_after", "difference", "record_id"),
    *("adjusted_at", "accounting_date"),
)


def _differ(columns: tuple[str, ...]) -> str:
    before, after = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    return f"({before}) IS DISTINCT FROM ({after})"


# Conditions of triggers cost a tenth of the same in a function.
TRIGGERS = f"""
CREATE TRIGGER keep_identity BEFORE UPDATE ON prediction.credit
    FOR EACH ROW WHEN ({_differ(IDENTITY)}) EXECUTE FUNCTION prediction.keep_credit('identity');
CREATE TRIGGER keep_content BEFORE UPDATE ON prediction.credit
    FOR EACH ROW WHEN (OLD.state IN ('sending', 'acknowledged') AND {_differ(CONTENT)})
    EXECUTE FUNCTION prediction.keep_credit('content');
CREATE TRIGGER keep_state BEFORE UPDATE ON prediction.credit
    FOR EACH ROW WHEN (
        OLD.state = 'acknowledged' AND {_differ(("state", *ACKNOWLEDGED))}
        OR OLD.state = 'sending' AND NEW.state NOT IN ('sending', 'acknowledged')
        OR NEW.state = 'acknowledged' AND OLD.state NOT IN ('owed', 'sending', 'acknowledged')
    )
    EXECUTE FUNCTION prediction.keep_credit('state');
CREATE TRIGGER keep_adjustment BEFORE UPDATE ON prediction.adjustment
    FOR EACH ROW WHEN ({_differ(ADJUSTED)}) EXECUTE FUNCTION prediction.keep_adjustment()
"""

# Whoever may call it reads and changes nothing else: it acts on the owner's behalf.  Payouts are
# locked before credits everywhere, both in the order of their ids.
ACKNOWLEDGE = """
CREATE FUNCTION prediction.acknowledge(credit_ids bigint[], paid_by text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    given text := btrim(paid_by);
    refused record;
    changed bigint;
BEGIN
    IF coalesce(given, '') = '' THEN
        RAISE EXCEPTION
            'A credit is acknowledged by what paid it. Nothing was changed. Give your own reference '
            'of the payment.'
            USING ERRCODE = 'check_violation';
    END IF;
    -- As whoever credits does: what is owed is not changed between being looked at and written.
    PERFORM pg_advisory_xact_lock(hashtextextended('source/prediction', 0));
    PERFORM FROM wallet.transaction
    WHERE transaction_id IN (
        SELECT transaction_id FROM prediction.credit WHERE credit_id = ANY (credit_ids)
    )
    ORDER BY transaction_id
    FOR UPDATE;
    PERFORM FROM prediction.credit WHERE credit_id = ANY (credit_ids) ORDER BY credit_id FOR UPDATE;

    SELECT asked.credit_id, coalesce(standing.state, 'unknown') AS state, standing.reference
    INTO refused
    FROM unnest(credit_ids) AS asked (credit_id)
    LEFT JOIN prediction.credit_standing AS standing USING (credit_id)
    WHERE coalesce(standing.state, '') <> 'owed'
        AND NOT coalesce(standing.state = 'acknowledged' AND standing.reference = given, false)
    ORDER BY 1
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION
            'Credit % is % and not owed%. Nothing was changed. Read prediction.owed again, and '
            'acknowledge only what it shows.',
            refused.credit_id, refused.state, coalesce(', by ' || refused.reference, '')
            USING ERRCODE = 'check_violation';
    END IF;

    UPDATE wallet.transaction AS payout
    SET disposition = 'processed', hold_reason = NULL, hold_detail = NULL, hold_finding_id = NULL,
        evidence = jsonb_build_object(
            'paid_otherwise', given, 'credit_id', credit.credit_id, 'acknowledged_by', session_user
        )
    FROM prediction.credit AS credit
    WHERE credit.credit_id = ANY (credit_ids) AND credit.state = 'sending'
        AND payout.transaction_id = credit.transaction_id;
    UPDATE prediction.credit
    SET state = 'acknowledged', acknowledged_at = now(), acknowledged_by = session_user,
        reference = given
    WHERE credit_id = ANY (credit_ids) AND state <> 'acknowledged';
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION prediction.acknowledge(bigint[], text) IS
    'Acknowledge that the operator has paid these credits, by its own reference: all of them, or none if one is not owed. For ever; the same again changes nothing. Gives how many were acknowledged: SELECT prediction.acknowledge(ARRAY[12, 13], ''transfer 4711'').'
"""


def upgrade() -> None:
    op.create_table(
        "credit",
        sa.Column(
            "credit_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "settlement_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The settlement that is credited (core.settlement.source_key), once for ever.",
        ),
        sa.Column(
            "market_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Its market (prediction.market).",
        ),
        sa.Column(
            "position_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Its position: credited once for ever, whichever of its settlements completes it.",
        ),
        sa.Column(
            "outcome_id",
            sa.Text(),
            nullable=True,
            comment="The outcome that the position is on; NULL where the engine told none.",
        ),
        sa.Column(
            "player_id",
            sa.Text(),
            nullable=True,
            comment="Who is credited, in clear; NULL if it is not known.",
        ),
        sa.Column(
            "currency",
            sa.Text(),
            nullable=True,
            comment="The market's currency; NULL if it is not known.",
        ),
        sa.Column(
            "amount",
            sa.Numeric(),
            nullable=False,
            comment="What is credited, in major units of currency. As its settlement says until it is sent or acknowledged; what that says later is in prediction.adjustment.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The version of the settlement that says so (core.settlement.record_id): its evidence.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="due: a decision lets the next run look at it. held: it waits for a decision. owed: the operator pays it with its own wallet, and acknowledges it. sending: it is in the outbox, and how it stands is said there (prediction.credit_standing). acknowledged: the operator has paid it; for ever.",
        ),
        sa.Column(
            "hold_reason",
            sa.Text(),
            nullable=True,
            comment="Why it is held: currency_unknown, player_unknown, too_fine, too_large, id_taken, changed or withdrawn; NULL unless it is.",
        ),
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that asks about it (ops.finding); NULL until one was opened.",
        ),
        sa.Column(
            "transaction_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="Its payout in the outbox (wallet.transaction): prediction: and the settlement's id. NULL: it was never there.",
        ),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was made (UTC, start of the transaction).",
        ),
        sa.Column(
            "accounting_date",
            sa.Date(),
            nullable=False,
            comment="UTC date of created_at: the day in which it is booked.",
        ),
        sa.Column(
            "acknowledged_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When the operator acknowledged it (UTC); NULL unless it is acknowledged.",
        ),
        sa.Column(
            "acknowledged_by",
            sa.Text(),
            nullable=True,
            comment="Who acknowledged it: the login, or whoever decided.",
        ),
        sa.Column(
            "reference",
            sa.Text(),
            nullable=True,
            comment="What the operator paid it by, in the words of whoever acknowledged it.",
        ),
        sa.CheckConstraint(
            "(state = 'held') = (hold_reason IS NOT NULL)",
            name=op.f("credit_held_has_reason_check"),
        ),
        sa.CheckConstraint(
            "CASE WHEN state = 'acknowledged' THEN acknowledged_at IS NOT NULL AND acknowledged_by IS NOT NULL AND btrim(reference) <> '' ELSE coalesce(acknowledged_by, reference) IS NULL AND acknowledged_at IS NULL END",
            name=op.f("credit_acknowledged_is_told_check"),
        ),
        sa.CheckConstraint(
            "CASE state WHEN 'sending' THEN transaction_id IS NOT NULL WHEN 'acknowledged' THEN true ELSE transaction_id IS NULL END",
            name=op.f("credit_sending_has_transaction_check"),
        ),
        sa.CheckConstraint(
            "amount NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("credit_amount_finite_check"),
        ),
        sa.CheckConstraint(
            "hold_reason IN ('currency_unknown', 'player_unknown', 'too_fine', 'too_large', 'id_taken', 'changed', 'withdrawn')",
            name=op.f("credit_hold_reason_known_check"),
        ),
        sa.CheckConstraint(
            "state IN ('due', 'held') OR (currency IS NOT NULL AND player_id IS NOT NULL)",
            name=op.f("credit_owed_to_somebody_check"),
        ),
        sa.CheckConstraint(
            "state IN ('due', 'held', 'owed', 'sending', 'acknowledged')",
            name=op.f("credit_state_known_check"),
        ),
        sa.CheckConstraint(
            "transaction_id = 'prediction:' || settlement_id",
            name=op.f("credit_transaction_is_its_own_check"),
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("credit_amount_not_negative_check")),
        sa.PrimaryKeyConstraint("credit_id", name=op.f("credit_pkey")),
        sa.UniqueConstraint(
            "market_id", "position_id", name=op.f("credit_market_id_position_id_key")
        ),
        sa.UniqueConstraint("settlement_id", name=op.f("credit_settlement_id_key")),
        schema="prediction",
        comment="What each completed settlement that pays something owes its player: one credit a settlement and one a position, for ever.",
    )
    op.create_index(
        "credit_asked_index",
        "credit",
        ["finding_id", "hold_reason", "credit_id"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("state IN ('held', 'owed')"),
    )
    op.create_index(
        "credit_due_index",
        "credit",
        ["credit_id"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("state = 'due'"),
    )
    op.create_table(
        "credited_market",
        sa.Column(
            "market_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Which market (prediction.market).",
        ),
        sa.Column(
            "revision",
            sa.BigInteger(),
            nullable=False,
            comment="The market's revision as it was when its settlements were last credited: at another one they are looked at again.",
        ),
        sa.Column(
            "other_changes",
            sa.BigInteger(),
            nullable=False,
            comment="By then: decisions about contested settlements, and published replays. They change settlements without moving a market.",
        ),
        sa.Column(
            "credited_at",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When they were last looked at (UTC).",
        ),
        sa.PrimaryKeyConstraint("market_id", name=op.f("credited_market_pkey")),
        schema="prediction",
        comment="Up to where each market's settlements are credited, so that a run looks at what is new alone.",
    )
    op.create_table(
        "adjustment",
        sa.Column(
            "adjustment_id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Ours, ascending.",
        ),
        sa.Column(
            "credit_id",
            sa.BigInteger(),
            nullable=False,
            comment="The credit that was in the outbox or acknowledged by then.",
        ),
        sa.Column(
            "currency", sa.Text(), nullable=False, comment="Currency of the amounts: the credit's."
        ),
        sa.Column(
            "amount_before",
            sa.Numeric(),
            nullable=False,
            comment="What the credit came to with its adjustments so far, in major units.",
        ),
        sa.Column(
            "amount_after",
            sa.Numeric(),
            nullable=False,
            comment="What its settlement says since; 0 if it is not completed any more, or is another player's or in another currency.",
        ),
        sa.Column(
            "difference",
            sa.Numeric(),
            nullable=False,
            comment="amount_after - amount_before: nobody has paid or taken it back.",
        ),
        sa.Column(
            "record_id",
            sa.BigInteger(),
            nullable=False,
            comment="The version of the settlement that says so (core.settlement.record_id): its evidence.",
        ),
        sa.Column(
            "adjusted_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was made (UTC, start of the transaction).",
        ),
        sa.Column(
            "accounting_date",
            sa.Date(),
            nullable=False,
            comment="UTC date of adjusted_at: the day in which it is booked.",
        ),
        sa.Column(
            "finding_id",
            sa.BigInteger(),
            nullable=True,
            comment="The finding that tells of it (ops.finding); NULL until one was opened.",
        ),
        sa.CheckConstraint(
            "amount_after NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("adjustment_amount_after_finite_check"),
        ),
        sa.CheckConstraint(
            "amount_before NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("adjustment_amount_before_finite_check"),
        ),
        sa.CheckConstraint(
            "difference NOT IN ('NaN', 'Infinity', '-Infinity')",
            name=op.f("adjustment_difference_finite_check"),
        ),
        sa.CheckConstraint(
            "difference = amount_after - amount_before AND difference <> 0",
            name=op.f("adjustment_difference_adds_up_check"),
        ),
        sa.ForeignKeyConstraint(
            ["credit_id"], ["prediction.credit.credit_id"], name=op.f("adjustment_credit_id_fkey")
        ),
        sa.PrimaryKeyConstraint("adjustment_id", name=op.f("adjustment_pkey")),
        schema="prediction",
        comment="What a settlement says otherwise after its credit was in the outbox or acknowledged; only ever inserted. A credit is never made a second time.",
    )
    op.create_index(
        op.f("adjustment_credit_id_index"),
        "adjustment",
        ["credit_id"],
        unique=False,
        schema="prediction",
    )
    op.create_index(
        "adjustment_untold_index",
        "adjustment",
        ["adjustment_id"],
        unique=False,
        schema="prediction",
        postgresql_where=sa.text("finding_id IS NULL"),
    )
    _index_settlements(["market_id", "position_id", "source_key"])
    op.create_check_constraint(
        op.f("transaction_credit_never_lost_check"),
        "transaction",
        "disposition <> 'lost' OR origin_source IS DISTINCT FROM 'prediction'",
        schema="wallet",
    )
    op.alter_column(
        "transaction",
        "disposition",
        comment=DISPOSITION,
        existing_comment=DISPOSITION_BEFORE,
        schema="wallet",
    )
    op.execute(f"COMMENT ON SCHEMA prediction IS '{SCHEMA}'")
    for statement in (KEEP_CREDIT, KEEP_ADJUSTMENT, TRIGGERS, ACKNOWLEDGE):
        op.execute(statement)


def downgrade() -> None:
    # Takes with it what was credited: only for a warehouse that has credited nobody.  Views go with
    # what they show: the `migrate` of whichever version comes next makes its own.
    op.execute("DROP FUNCTION prediction.acknowledge")
    op.execute(
        "DROP TABLE prediction.adjustment, prediction.credited_market, prediction.credit CASCADE"
    )
    op.execute("DROP FUNCTION prediction.keep_credit, prediction.keep_adjustment")
    op.execute(f"COMMENT ON SCHEMA prediction IS '{SCHEMA_BEFORE}'")
    op.alter_column(
        "transaction",
        "disposition",
        comment=DISPOSITION_BEFORE,
        existing_comment=DISPOSITION,
        schema="wallet",
    )
    op.drop_constraint(
        op.f("transaction_credit_never_lost_check"), "transaction", schema="wallet", type_="check"
    )
    _index_settlements(["market_id"])


def _index_settlements(columns: list[str]) -> None:
    op.drop_index("settlement_market_index", table_name="settlement", schema="core")
    op.create_index(
        "settlement_market_index",
        "settlement",
        columns,
        unique=False,
        schema="core",
        postgresql_where=sa.text("source = 'prediction'"),
    )
