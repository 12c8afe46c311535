"""The one definition of every table.

Migrations are tested to build exactly this, the data dictionary is generated from the comments,
and every room below and above names its columns from here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP

from include.model import Outcome, SettledAtBasis, Status

SCHEMAS = {
    "raw": "What arrived, as it arrived.",
    "staging": "Rows of unfinished batches between normalize and publish.",
    "core": "Every accepted version of every settlement.",
    "ops": "How the pipelines stand: batches, cursors, quarantine, findings, decisions, alerts.",
    "finance": "What finance reads; nothing else is granted to finance_reader.",
    "wallet": "The outbox of payouts for the wallet, and what was tried to enter it.",
    "tote": "Which bets tote is asked about, and when; and what its socket hinted at.",
    "prediction": "The prediction engine's markets: how far each is settled, what was ordered, and what their players are credited.",
}

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_index",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    }
)

# Milliseconds; ten times the usual.  What a resend changes of a young table would have it vacuumed
# again and again while that sends, at the expense of both.
_GENTLY_VACUUMED = {"autovacuum_vacuum_cost_delay": 20}

page_id_sequence = Sequence("page_id_sequence", schema="raw", metadata=metadata)


def _time(name: str, comment: str, *, required: bool = False, now: bool = False) -> Column[Any]:
    return Column(
        name,
        TIMESTAMP(timezone=True),
        nullable=not (required or now),
        server_default=text("now()") if now else None,
        comment=comment,
    )


def _words(column: str, words: type) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)  # type: ignore[attr-defined]
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _one_of(column: str, *words: str) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _count(name: str, comment: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"), comment=comment)


# Money is exact.  NaN and the infinities pass an ordinary comparison, so each is excluded by name.
_MONEY = ("stake", "payout", "refund", "enhancement")
_FACTORS = ("payout_multiplier", "placement_rate", "settlement_rate")


def _finite(column: str) -> CheckConstraint:
    return CheckConstraint(
        f"{column} NOT IN ('NaN', 'Infinity', '-Infinity')", name=f"{column}_finite"
    )


def _settlement_columns() -> list[Column[Any]]:
    """The canonical columns of a settlement, the same in staging and in core."""
    return [
        Column("source", Text, nullable=False, comment="Which provider decided: ticktock, …"),
        Column("source_key", Text(collation="C"), nullable=False, comment="The subject decided about: for ticktock match_id/market_offer_id."),
        Column("provider_order", Text(collation="C"), nullable=False, comment="Sorts, as bytes, in the order in which the provider took its decisions about one subject."),
        Column("status", Text, nullable=False, comment="open, settled, void, rejected, cancelled or failed."),
        Column("outcome", Text, comment="What it means for the player: won, lost, void, …; NULL while open."),
        Column("previous_status", Text, comment="What the provider claims the status was before this decision; NULL where it claims nothing."),
        Column("player_id", Text, comment="The provider's or operator's player, in clear; finance sees a keyed hash of it."),
        Column("event_id", Text, comment="The provider's event or match."),
        Column("market_id", Text, comment="The provider's market or offer."),
        Column("selection_id", Text, comment="The provider's selection or outcome."),
        Column("position_id", Text, comment="The position in a market that is settled; NULL but for prediction."),
        Column("currency", Text, comment="ISO 4217 code or the provider's ticker of all amounts in the row; NULL where the provider tells no money."),
        Column("stake", Numeric, comment="What the player staked, in major units of the currency."),
        Column("payout", Numeric, comment="Everything returned to the player, in major units; NULL until it is final or where the provider tells none."),
        Column("refund", Numeric, comment="The part of payout that returns stake, in major units."),
        Column("enhancement", Numeric, comment="The part of payout that is a promotion, in major units."),
        Column("payout_multiplier", Numeric, comment="What the provider multiplied the stake by for the payout; NULL where it does not tell."),
        Column("placement_rate", Numeric, comment="The provider's exchange rate when the bet was placed; ops.rate_terms says what it means. NULL where it does not tell."),
        Column("settlement_rate", Numeric, comment="The provider's exchange rate when the bet was settled; ops.rate_terms says what it means. NULL where it does not tell."),
        _time("settled_at", "When the decision was taken (UTC); see settled_at_basis."),
        Column("settled_at_basis", Text, nullable=False, comment="provider: the provider gave settled_at. observed: our clock on first seeing it."),
        Column("is_resettlement", Boolean, nullable=False, comment="The provider says that this corrects an earlier decision."),
        Column("settled_by", Text, comment="Who decided at the provider, in its own word: engine, system, admin."),
        Column("reason", Text, comment="The provider's reason, in its own words."),
    ]  # fmt: skip


def _settlement_checks() -> list[CheckConstraint]:
    return [
        _words("status", Status),
        _words("outcome", Outcome),
        _words("previous_status", Status),
        _words("settled_at_basis", SettledAtBasis),
        *(_finite(column) for column in (*_MONEY, *_FACTORS)),
    ]


def _leg_columns() -> list[Column[Any]]:
    return [
        Column("leg_number", SmallInteger, nullable=False, comment="Position of the leg in the provider's message, from 1."),
        Column("part_number", SmallInteger, nullable=False, server_default=text("0"), comment="0: the leg itself. 1, 2, 3 …: what a leg built of several picks is made of, in the provider's order; an event is then told by the leg alone."),
        Column("type", Text, comment="What kind of bet the leg is, in the provider's word: standard, starting_price, tote_exotics, fixed_exotics, bet_builder, pickem or each_way."),
        Column("event_id", Text, comment="The provider's event."),
        Column("market_id", Text, comment="The provider's market."),
        Column("selection_id", Text, comment="The provider's selection."),
        Column("outcome", Text, comment="The leg's own outcome; NULL while open."),
        Column("price", Numeric, comment="Decimal odds at which the leg was placed."),
        _time("settled_at", "When the leg was decided (UTC)."),
        Column("settlement_version", Integer, comment="The provider's version of the leg's decision; it grows when the leg is settled again."),
        Column("selection_version", Integer, comment="The provider's version of the selection itself."),
        Column("competition_id", Text, comment="The provider's competition of the event."),
        Column("country_id", Text, comment="The provider's country of the event."),
        Column("sport_id", Text, comment="The provider's sport of the event."),
        Column("event_name", Text, comment="The event's name, in the provider's words."),
        _time("event_starts_at", "When the event starts (UTC)."),
        Column("is_live", Boolean, comment="The event is played while bets are taken; false: they are taken before it."),
        Column("market_type_id", Text, comment="The provider's type of the market."),
        Column("market_name", Text, comment="The market's name, in the provider's words."),
        Column("market_properties", JSONB, comment="What else the provider says about the market: names and texts."),
        Column("parameters", JSONB, comment="What the provider says about the selection, such as a line: names and texts."),
        Column("win_price", Numeric, comment="Decimal odds of an each-way leg's win part."),
        Column("place_price", Numeric, comment="Decimal odds of an each-way leg's place part."),
        Column("dead_heat_factor", Numeric, comment="Share of a place that several have won together."),
        Column("place_dead_heat_factor", Numeric, comment="The same for the place part of an each-way leg."),
        Column("manual_price", Numeric, comment="Decimal odds set by hand."),
        Column("alternative_price", Numeric, comment="Alternative decimal odds, as the provider calls them."),
        Column("limits_rating_id", Text, comment="The provider's limit under which the leg was placed."),
        Column("limits_factor", Numeric, comment="The factor of that limit."),
        Column("has_line_deviation", Boolean, comment="The provider says that the line deviated."),
        Column("is_outright", Boolean, comment="It was placed on the winner of a whole competition or the like."),
    ]  # fmt: skip


SETTLEMENT_COLUMNS = tuple(column.name for column in _settlement_columns())
LEG_COLUMNS = tuple(column.name for column in _leg_columns())
_LEG_NUMBERS = tuple(column.name for column in _leg_columns() if isinstance(column.type, Numeric))

# What makes two versions of a subject differ for finance; order, actor and prose do not, and the
# multiplier only by the payout that follows from it.
CANONICAL_COLUMNS = (
    "status",
    "outcome",
    "player_id",
    "event_id",
    "market_id",
    "selection_id",
    "position_id",
    "currency",
    "stake",
    "payout",
    "refund",
    "enhancement",
    "placement_rate",
    "settlement_rate",
)


def _payout_columns() -> list[Column[Any]]:
    """What the wallet is told of a payout but its id, in the order of the documentation."""
    return [
        Column("ref_transaction_id", Text, nullable=False, comment="refTransactionId: the transaction that this one answers, such as the bet."),
        Column("session_id", Text, nullable=False, comment="sessionId: the player's session."),
        Column("round_id", Text, nullable=False, comment="roundId: the round that was played."),
        Column("player_id", Text, nullable=False, comment="playerId: who is paid, in clear."),
        Column("game_id", Text, nullable=False, comment="gameId: the game that was played."),
        Column("currency", Text, nullable=False, comment="ISO 4217 code or the partner's ticker of amount."),
        Column("amount", BigInteger, nullable=False, comment="What is paid, in hundred-thousandths of the currency: 250000000 EUR is 2 500.00000."),
        Column("is_win", Boolean, nullable=False, comment="isWin: the round was won."),
    ]  # fmt: skip


PAYOUT_COLUMNS = ("transaction_id", *(column.name for column in _payout_columns()))


def _rejected_line_columns() -> list[Column[Any]]:
    """What is kept of a line of an imported file that could not be taken."""
    return [
        Column("rejected_line_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
        Column("file_name", Text, nullable=False, comment="Name of the imported file, without its folder."),
        Column("line_number", BigInteger, nullable=False, comment="Which line of it, from 1."),
        Column("reason", Text, nullable=False, comment="Why it was not taken."),
        Column("line", BYTEA, nullable=False, comment="Its exact bytes without the line's end, the first 8 192 of them."),
        Column("line_bytes", BigInteger, nullable=False, comment="How many bytes it has."),
        Column("line_sha256", BYTEA, nullable=False, comment="SHA-256 of the whole line; the same line at the same place is kept once."),
        _time("rejected_at", "When it was first rejected (UTC).", now=True),
    ]  # fmt: skip


# --- raw ----------------------------------------------------------------------------------------

page = Table(
    "page",
    metadata,
    Column("page_id", BigInteger, nullable=False, server_default=page_id_sequence.next_value(), comment="Ours, ascending in order of arrival."),
    Column("source", Text, nullable=False, comment="Which provider sent it."),
    Column("feed", Text, nullable=False, comment="Which of the provider's feeds."),
    Column("batch_id", BigInteger, nullable=False, comment="The batch that it was landed in (ops.batch; no constraint, so that old months can be detached)."),
    _time("requested_at", "When the request was begun (UTC).", required=True),
    _time("received_at", "When its last byte had arrived (UTC); the partition key.", required=True),
    Column("request", Text, nullable=False, comment="Method, path and query that were asked, without any secret."),
    Column("http_status", SmallInteger, comment="The HTTP status of the answer; NULL for stream messages."),
    Column("content_type", Text, comment="The content type that the provider declared."),
    Column("body", BYTEA, nullable=False, comment="The exact bytes that arrived."),
    Column("record_count", Integer, comment="Records found in it; NULL if it could not be decoded."),
    Column("provider_count", Integer, comment="How many records the provider says it holds (meta.count); NULL if it says nothing."),
    Column("undecodable_reason", Text, comment="Why it could not be decoded; NULL if it could."),
    PrimaryKeyConstraint("page_id", "received_at"),
    schema="raw",
    comment="One HTTP body or chunk of stream messages, as the bytes that arrived, by month of arrival. Retention detaches months. A page that holds nothing new is counted in ops.batch, not stored.",
    postgresql_partition_by="RANGE (received_at)",
)  # fmt: skip

record = Table(
    "record",
    metadata,
    Column("record_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending in order of landing."),
    Column("page_id", BigInteger, nullable=False, comment="The page that holds its text (raw.page)."),
    Column("byte_start", Integer, nullable=False, comment="Where its text begins in the page's body, in bytes from 0."),
    Column("byte_length", Integer, nullable=False, comment="How many bytes its text has."),
    Column("source", Text, nullable=False, comment="Which provider sent it."),
    Column("record_key", Text(collation="C"), nullable=False, comment="The provider's id of the message; sha256:… of the text where it carries none."),
    Column("content_sha256", BYTEA, nullable=False, comment="SHA-256 of its exact text; a duplicate has the same key and the same digest."),
    Column("batch_id", BigInteger, nullable=False, comment="The batch that it was landed in (ops.batch)."),
    Index(None, "source", "record_key"),
    CheckConstraint("byte_start >= 0 AND byte_length > 0", name="range_valid"),
    schema="raw",
    comment="One message inside a page, once per change of its content. Its text is in raw.record_payload.",
)  # fmt: skip

# --- staging ------------------------------------------------------------------------------------

staging_settlement = Table(
    "settlement",
    metadata,
    Column("batch_id", BigInteger, nullable=False, comment="The batch that it is published with."),
    Column("record_id", BigInteger, nullable=False, comment="The record that it was normalized from (raw.record)."),
    *_settlement_columns(),
    PrimaryKeyConstraint("batch_id", "record_id"),
    schema="staging",
    comment="Normalized rows of unfinished batches; deleted by the transaction that publishes them. What is wrong with a row is said by the row rules, so nothing is constrained here but its keys.",
)  # fmt: skip

staging_settlement_leg = Table(
    "settlement_leg",
    metadata,
    Column("batch_id", BigInteger, nullable=False, comment="The batch that it is published with."),
    Column("record_id", BigInteger, nullable=False, comment="The record that it was normalized from."),
    *_leg_columns(),
    PrimaryKeyConstraint("batch_id", "record_id", "leg_number", "part_number"),
    schema="staging",
    comment="Selections of the bets in staging.settlement.",
)  # fmt: skip

# --- core ---------------------------------------------------------------------------------------

settlement = Table(
    "settlement",
    metadata,
    Column("version", Integer, nullable=False, comment="1, 2, 3 … in the order in which the subject's versions were published here."),
    *_settlement_columns(),
    Column("player_reference", Text, comment="Keyed hash of player_id (HMAC-SHA-256, hex): what finance sees of a player."),
    Column("is_applied", Boolean, nullable=False, comment="It became the current version when it was published; false if one with a later or the same provider order was already here."),
    Column("not_applied_reason", Text, comment="late: a later decision of the provider was already here. same_order: one with the same provider order was. NULL if applied."),
    Column("is_change", Boolean, nullable=False, comment="Its canonical columns differ from the version before it in provider order; false for the first. Recomputed when a version arrives late."),
    Column("is_correction", Boolean, nullable=False, server_default=text("false"), comment="It is a change, and the version before it was final (not open). Recomputed when a version arrives late."),
    Column("chain_break", Text, comment="status_differs: the provider claims another previous status than the version before it in provider order has. original_missing: it claims to follow an earlier decision, and there is no version before it. NULL if the chain holds, or if a decision rejected the version."),
    Column("is_contested", Boolean, nullable=False, server_default=text("false"), comment="Another version of the subject has the same provider order and another content, and no decision chose between them; outside finance totals."),
    Column("is_rejected_by_decision", Boolean, nullable=False, server_default=text("false"), comment="A person chose another version of the same provider order (ops.decision); never current."),
    Column("is_current", Boolean, nullable=False, server_default=text("false"), comment="How its subject stands now: of all versions that no decision rejected, the one with the highest (provider_order, record_id); if its time is that of our looking (settled_at_basis), the first of those that say the same."),
    _time("recorded_at", "When it was published here (UTC, start of the transaction).", now=True),
    Column("accounting_date", Date, nullable=False, comment="UTC date on which it was published here; a date closes at 01:00 UTC of the next day."),
    Column("record_id", BigInteger, nullable=False, comment="The record that it comes from (raw.record): its evidence."),
    Column("batch_id", BigInteger, nullable=False, comment="The batch that published it (ops.batch)."),
    PrimaryKeyConstraint("source", "source_key", "version"),
    UniqueConstraint("record_id"),
    *_settlement_checks(),
    _one_of("not_applied_reason", "late", "same_order"),
    _one_of("chain_break", "status_differs", "original_missing"),
    CheckConstraint("is_applied = (not_applied_reason IS NULL)", name="not_applied_has_reason"),
    Index("settlement_days_index", "settled_at", text("((settled_at AT TIME ZONE 'UTC')::date)"), "recorded_at", "accounting_date", postgresql_using="brin"),
    Index("settlement_contested_index", "source", postgresql_where=text("is_contested")),
    Index("settlement_correction_index", "accounting_date", postgresql_where=text("is_correction")),
    # Only markets are asked for as a whole.
    Index("settlement_market_index", "market_id", "position_id", "source_key", postgresql_where=text("source = 'prediction'")),
    schema="core",
    comment="Every accepted version of every settlement, for ever. Nothing is deleted or overwritten; a correction is a new version.",
)  # fmt: skip

settlement_leg = Table(
    "settlement_leg",
    metadata,
    Column("record_id", BigInteger, nullable=False, comment="The version that it belongs to (core.settlement.record_id)."),
    *_leg_columns(),
    PrimaryKeyConstraint("record_id", "leg_number", "part_number"),
    _words("outcome", Outcome),
    *(_finite(column) for column in _LEG_NUMBERS),
    schema="core",
    comment="Selections of bets, by version, and what those are made of that are built of several picks.",
)  # fmt: skip

# Totals are moved by what a transaction changes, so a day is asked for at the same cost however
# many rows it has.
daily_settlement = Table(
    "daily_settlement",
    metadata,
    Column("source", Text, nullable=False, comment="Which provider decided."),
    Column("settled_date", Date, comment="UTC day of settled_at; NULL where that is not told."),
    Column("status", Text, nullable=False, comment="The subjects' status."),
    Column("outcome", Text, comment="The subjects' outcome; NULL while open."),
    Column("currency", Text, comment="Currency of the amounts; NULL where the provider tells none."),
    Column("settlements", BigInteger, nullable=False, comment="Current versions that are not contested."),
    Column("stake", Numeric, nullable=False, comment="Sum of their stakes, in major units of the currency."),
    Column("payout", Numeric, nullable=False, comment="Sum of their payouts, in major units of the currency."),
    Column("stakes", BigInteger, nullable=False, comment="How many of them have a stake."),
    Column("payouts", BigInteger, nullable=False, comment="How many of them have a payout."),
    UniqueConstraint("source", "settled_date", "status", "outcome", "currency", postgresql_nulls_not_distinct=True, name="daily_settlement_key"),
    schema="core",
    comment="The current versions that are not contested, counted and summed by the day of their decision; moved by every transaction that changes what is current.",
)  # fmt: skip

daily_recording = Table(
    "daily_recording",
    metadata,
    Column("accounting_date", Date, nullable=False, comment="UTC date on which the versions were published here."),
    Column("source", Text, nullable=False, comment="Which provider decided."),
    Column("versions", BigInteger, nullable=False, comment="Versions published."),
    Column("corrections", BigInteger, nullable=False, comment="Of these, corrections that are not contested."),
    Column("late_versions", BigInteger, nullable=False, comment="Of these, versions that came after a later decision."),
    Column("contested_versions", BigInteger, nullable=False, comment="Of these, contested versions."),
    PrimaryKeyConstraint("accounting_date", "source"),
    schema="core",
    comment="The versions counted by the day of their publication; moved by every transaction that publishes or recomputes any.",
)  # fmt: skip

# --- ops ----------------------------------------------------------------------------------------

batch = Table(
    "batch",
    metadata,
    Column("batch_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("source", Text, nullable=False, comment="Which provider's records it holds."),
    Column("feed", Text, nullable=False, comment="Which of the provider's feeds."),
    Column("kind", Text, nullable=False, comment="fetch: landed from the provider. fill: asked for to close a gap. replay: quarantined records tried again. evidence: kept, and settling nothing."),
    Column("state", Text, nullable=False, server_default="landing", comment="landing, landed, normalized, published; or held (a gate stopped it) or discarded (a decision)."),
    Column("run_id", Text, comment="The Airflow run that opened it; for people, nothing depends on it."),
    _time("opened_at", "When it was opened (UTC).", now=True),
    _time("landed_at", "When it stopped taking rows (UTC)."),
    _time("raw_checked_at", "When it passed check_raw, or a decision released it (UTC)."),
    _time("normalized_at", "When its rows were staged (UTC)."),
    _time("settlements_checked_at", "When it passed check_settlements, or a decision released it (UTC)."),
    _time("published_at", "When its rows were published to core (UTC)."),
    _time("held_at", "When a gate held it (UTC); NULL unless it is held."),
    Column("held_from", Text, comment="The state it was held in, to which it returns: landed or normalized."),
    Column("held_reason", Text, comment="Which rule held it and why."),
    Column("is_released", Boolean, nullable=False, server_default=text("false"), comment="A decision released it: batch rules no longer hold it, failing rows are quarantined."),
    _count("pages_received", "Pages that arrived, stored or not."),
    _count("pages_stored", "Pages stored in raw.page because they held something new."),
    _count("pages_miscounted", "Pages whose own count (meta.count) is not the number of records in them."),
    _count("received", "Records that arrived."),
    _count("duplicates", "Of these, records already landed before."),
    _count("undecodable", "Of these, messages that could not be decoded."),
    _count("landed", "Of these, records landed in raw.record: received = landed + duplicates + undecodable."),
    _count("normalized", "Records that normalize took up: landed without those that check_raw quarantined."),
    _count("quarantined", "Records held back in ops.quarantine."),
    _count("published", "Rows that became the current version."),
    _count("not_applied", "Rows kept in core that did not become the current version when they were published: see core.settlement.not_applied_reason."),
    _count("evidence_only", "Records kept as evidence that make no settlement."),
    _count("discarded", "Records that a decision discarded with the whole batch."),
    Column("record_id_first", BigInteger, comment="Lowest record_id of its rows; NULL if it has none."),
    Column("record_id_last", BigInteger, comment="Highest record_id of its rows; NULL if it has none."),
    Column("cursor_before", Text, comment="Where its first fetch started, as text; NULL: without a cursor."),
    Column("cursor_after", Text, comment="Where the next fetch starts, as text; NULL if nothing moved."),
    Column("unknown_fields", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="Field names seen in it that the provider's documentation does not have."),
    Column("conflicting_keys", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="Record keys that arrived with another content than the one landed before (the first hundred)."),
    Column("has_reached_end", Boolean, nullable=False, server_default=text("false"), comment="It read to the provider's newest record: the feed was complete at landed_at."),
    _one_of("kind", "fetch", "fill", "replay", "evidence"),
    _one_of("state", "landing", "landed", "normalized", "published", "held", "discarded"),
    CheckConstraint("received = landed + duplicates + undecodable", name="received_adds_up"),
    CheckConstraint("(state = 'held') = (held_at IS NOT NULL)", name="held_has_time"),
    CheckConstraint("state <> 'published' OR landed = published + not_applied + evidence_only + quarantined", name="published_adds_up"),
    Index("batch_unfinished_index", "source", "batch_id", postgresql_where=text("state IN ('landing', 'landed', 'normalized', 'held')")),
    Index(None, "source", "feed", "batch_id"),
    schema="ops",
    comment="A data object: records landed together, with a life of its own, whichever run or try works on it.",
)  # fmt: skip

cursor = Table(
    "cursor",
    metadata,
    Column("source", Text, nullable=False, comment="Which provider."),
    Column("feed", Text, nullable=False, comment="Which of its feeds."),
    Column("position", JSONB, nullable=False, comment="Where the next fetch starts, in the source's own terms."),
    Column("revision", BigInteger, nullable=False, server_default=text("0"), comment="Counts the moves; a writer moves it only from the revision it has read."),
    _time("moved_at", "When it last moved (UTC).", now=True),
    _time("completed_at", "When a fetch last reached the provider's newest record (UTC)."),
    Column("stopped_by_finding_id", BigInteger, comment="The finding that waits for a decision before the feed is read on; NULL if it is read."),
    PrimaryKeyConstraint("source", "feed"),
    schema="ops",
    comment="Position per source and feed, moved by compare-and-set in the transaction that commits its rows.",
)  # fmt: skip

gap = Table(
    "gap",
    metadata,
    Column("gap_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("source", Text, nullable=False, comment="Which provider."),
    Column("feed", Text, nullable=False, comment="Which of its feeds."),
    Column("range_after", Text, comment="Records after this position may be missing; NULL: from the beginning."),
    Column("range_before", Text, nullable=False, comment="Records before this position may be missing."),
    Column("reason", Text, nullable=False, comment="How it came about."),
    Column("state", Text, nullable=False, server_default="open", comment="open, or accepted: a person decided that nothing is missing, or that it stays missing."),
    Column("subjects", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="Matches or bets that can be asked for one by one to fill it."),
    _time("opened_at", "When it was found (UTC).", now=True),
    _time("tried_at", "When its subjects were last asked for (UTC); NULL: the next run asks."),
    _time("closed_at", "When it was accepted (UTC)."),
    _one_of("state", "open", "accepted"),
    schema="ops",
    comment="A range of records known to be missing, or that may be.",
)  # fmt: skip

finding = Table(
    "finding",
    metadata,
    Column("finding_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending; what a decision names."),
    Column("kind", Text, nullable=False, comment="What sort of question it is; decides which decisions are open."),
    Column("source", Text, nullable=False, comment="Which provider it concerns."),
    Column("subject", Text, nullable=False, comment="What it concerns: a batch, a feed, a field, a settlement."),
    Column("severity", Text, nullable=False, comment="critical: something waits or is wrong. warning: look at it. info: know it."),
    Column("summary", Text, nullable=False, comment="What happened, in one sentence."),
    Column("kept", Text, nullable=False, comment="What was kept and what was not touched."),
    Column("next_step", Text, nullable=False, comment="What to do next."),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'"), comment="Counts and examples."),
    Column("batch_id", BigInteger, comment="The batch it concerns, if one."),
    Column("state", Text, nullable=False, server_default="open", comment="open or closed."),
    Column("times_seen", Integer, nullable=False, server_default=text("1"), comment="How often it was met while open."),
    _time("opened_at", "When it was first met (UTC).", now=True),
    _time("last_seen_at", "When it was last met (UTC).", now=True),
    _time("closed_at", "When it was closed (UTC)."),
    Column("closed_by", Text, comment="decision: a person decided. system: its cause went away by itself."),
    _one_of("severity", "critical", "warning", "info"),
    _one_of("state", "open", "closed"),
    _one_of("closed_by", "decision", "system"),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL) AND (state = 'closed') = (closed_by IS NOT NULL)", name="closed_is_told"),
    Index("finding_open_once", "kind", "source", "subject", unique=True, postgresql_where=text("state = 'open'")),
    schema="ops",
    comment="Something a person should know or decide; at most one open per kind, source and subject.",
)  # fmt: skip

decision = Table(
    "decision",
    metadata,
    Column("decision_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("finding_id", BigInteger, ForeignKey("ops.finding.finding_id"), nullable=False, comment="The finding it answers."),
    Column("decision", Text, nullable=False, comment="What was decided: try_again, skip_page, release_batch, …"),
    Column("decided_by", Text, nullable=False, comment="Who decided: the user who triggered resolve_findings."),
    Column("reason", Text, nullable=False, comment="Why, in that person's words."),
    Column("reference", Text, comment="A ticket, mail or partner reference that supports it."),
    Column("parameters", JSONB, nullable=False, server_default=text("'{}'"), comment="What else the form held, such as the chosen version."),
    Column("state_before", JSONB, nullable=False, comment="What it changed, as it was."),
    Column("state_after", JSONB, nullable=False, comment="What it changed, as it is."),
    Column("run_id", Text, comment="The Airflow run that carried it out."),
    _time("decided_at", "When it was carried out, or asked for (UTC).", now=True),
    Column("awaits_second_person", Boolean, nullable=False, server_default=text("false"), comment="It changed nothing: another person has to decide the same."),
    Column("first_decision_id", BigInteger, ForeignKey("ops.decision.decision_id"), comment="The other person's decision that this one confirms."),
    schema="ops",
    comment="Who decided what, why, with which reference, before and after; only ever inserted.",
)  # fmt: skip

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("source", Text, nullable=False, comment="Which provider's record it is."),
    Column("stage", Text, nullable=False, comment="raw, normalize or settlement: which step held it back."),
    Column("rule", Text, nullable=False, comment="The rule it failed."),
    Column("reason", Text, nullable=False, comment="How it failed, with the offending value where that is safe."),
    Column("record_id", BigInteger, nullable=False, comment="The record held back (raw.record_payload has its exact text)."),
    Column("batch_id", BigInteger, ForeignKey("ops.batch.batch_id"), nullable=False, comment="The batch that it was held back from."),
    Column("state", Text, nullable=False, server_default="open", comment="open, retried (its batch was normalized again), replayed (a new batch has taken it) or discarded."),
    Column("replay_batch_id", BigInteger, ForeignKey("ops.batch.batch_id"), comment="The batch that tries it again."),
    _time("quarantined_at", "When it was held back (UTC).", now=True),
    _one_of("stage", "raw", "normalize", "settlement"),
    _one_of("state", "open", "retried", "replayed", "discarded"),
    UniqueConstraint("batch_id", "record_id"),
    Index("quarantine_replay_index", "replay_batch_id", postgresql_where=text("replay_batch_id IS NOT NULL")),
    schema="ops",
    comment="Records held back, each with its reason.",
)  # fmt: skip

quality_result = Table(
    "quality_result",
    metadata,
    Column("quality_result_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("batch_id", BigInteger, ForeignKey("ops.batch.batch_id"), nullable=False, comment="The batch that was checked."),
    Column("gate", Text, nullable=False, comment="check_raw or check_settlements."),
    Column("expectation", Text, nullable=False, comment="Name of the rule or group of rules."),
    Column("severity", Text, nullable=False, comment="critical holds the batch, warning quarantines its rows or is only recorded."),
    Column("is_met", Boolean, nullable=False, comment="Whether the batch met it."),
    Column("evaluated", BigInteger, comment="Rows looked at."),
    Column("unexpected", BigInteger, comment="Rows that failed it."),
    Column("result", JSONB, nullable=False, server_default=text("'{}'"), comment="The result in full, as Great Expectations or the gate gave it."),
    _time("checked_at", "When it was checked (UTC).", now=True),
    _one_of("gate", "check_raw", "check_settlements"),
    _one_of("severity", "critical", "warning"),
    Index(None, "batch_id"),
    schema="ops",
    comment="Every gate's result, per expectation.",
)  # fmt: skip

alert = Table(
    "alert",
    metadata,
    Column("alert_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("alert_key", Text, nullable=False, comment="What it is about; the same key is sent once."),
    Column("title", Text, nullable=False, comment="One line."),
    Column("body", Text, nullable=False, comment="What happened, what was kept, what to click."),
    Column("severity", Text, nullable=False, comment="critical, warning or info."),
    Column("times_raised", Integer, nullable=False, server_default=text("1"), comment="How often it was raised."),
    _time("raised_at", "When it was first raised (UTC).", now=True),
    _time("sent_at", "When the alerts connection took it (UTC); NULL: still to be sent."),
    Column("last_error", Text, comment="Why the last attempt to send it failed."),
    UniqueConstraint("alert_key"),
    _one_of("severity", "critical", "warning", "info"),
    Index("alert_unsent_index", "alert_id", postgresql_where=text("sent_at IS NULL")),
    schema="ops",
    comment="What is to be sent to the alerts connection, once per key.",
)  # fmt: skip

player_pad = Table(
    "player_pad",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true"), comment="Always true: there is one row."),
    Column("inner_pad", BYTEA, nullable=False, comment="The secret key, as HMAC's inner pad."),
    Column("outer_pad", BYTEA, nullable=False, comment="The secret key, as HMAC's outer pad."),
    CheckConstraint("is_only", name="one_row"),
    schema="ops",
    comment="The key under which finance sees player ids; nobody but the owner reads it.",
)  # fmt: skip

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True, comment="What only one may do at a time, such as wallet/sending."),
    Column("epoch", BigInteger, nullable=False, comment="Counts its holders. What a holder writes names its epoch; once it is not the last one any more, nothing of it is taken."),
    Column("holder", Text, comment="Who holds it, as the Airflow run; NULL: nobody."),
    _time("acquired_at", "When its last holder took it (UTC).", required=True),
    _time("expires_at", "Until when it is held, unless it is renewed (UTC); from then on anyone may take it.", required=True),
    schema="ops",
    comment="What only one process may do at a time, and who that is.",
)  # fmt: skip

connect_attempt = Table(
    "connect_attempt",
    metadata,
    Column("attempt_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("source", Text, nullable=False, comment="Which provider was connected to."),
    Column("kind", Text, nullable=False, comment="Which of the provider's budgets it counts against: proper, or without_revision, which too small a revision is as well."),
    Column("revision", BigInteger, comment="From when messages were asked for, in Unix seconds; NULL: none was named."),
    Column("epoch", BigInteger, nullable=False, comment="Epoch of the lease under which it was made (ops.lease)."),
    Column("run_id", Text, comment="The Airflow run that made it."),
    Column("attempted_at", TIMESTAMP(timezone=True), nullable=False, server_default=text("clock_timestamp()"), comment="When it was about to be made (UTC); committed before the connection was begun."),
    _time("ended_at", "When the connection had ended (UTC); NULL: it lasts, or its process died."),
    Column("ending", Text, comment="How it ended, in a word: caught_up, bound, silent, closed, refused, failed, …; NULL as long as ended_at is."),
    _count("messages", "Messages that came over it."),
    _one_of("kind", "proper", "without_revision"),
    Index(None, "source", "attempted_at"),
    schema="ops",
    comment="Every connection to a provider that limits how many there may be, written down before it is begun; for ever.",
)  # fmt: skip

rate_terms = Table(
    "rate_terms",
    metadata,
    Column("source", Text, primary_key=True, comment="Whose exchange rates are meant."),
    Column("base_currency", Text, nullable=False, comment="The currency that the rates lead to or from: the reporting currency of the source's amounts."),
    Column("direction", Text, nullable=False, comment="units_per_base: a rate says how many units of the bet's currency one of the base is. base_per_unit: the other way round."),
    _time("set_at", "When that was said first, or otherwise than before (UTC).", now=True),
    _one_of("direction", "units_per_base", "base_per_unit"),
    schema="ops",
    comment="What a provider's exchange rates mean, as the settings said when the warehouse was last migrated. Without a row, no amount is given in a reporting currency.",
)  # fmt: skip

# --- wallet -------------------------------------------------------------------------------------

# Written first, so that of two sessions that enter one id at once the second waits for the first
# instead of failing at its end.
transaction_claim = Table(
    "transaction_claim",
    metadata,
    Column("transaction_id", Text(collation="C"), primary_key=True, comment="An id that was entered into wallet.transaction."),
    CheckConstraint("char_length(transaction_id) BETWEEN 1 AND 500", name="transaction_id_bounded"),
    schema="wallet",
    comment="Every id of the outbox, written by its trigger before the row itself: the same id entered twice at once waits here and does not fail.",
)  # fmt: skip

transaction = Table(
    "transaction",
    metadata,
    Column("transaction_id", Text(collation="C"), primary_key=True, comment="transactionId: names the payout for ever; the partner processes it at most once. At most 500 characters."),
    *_payout_columns(),
    Column("business_date", Date, nullable=False, comment="UTC day that the payout belongs to; as it was first entered."),
    Column("origin_source", Text, comment="Where it comes from: import, or whoever entered it; NULL if that was not told."),
    Column("origin_key", Text, comment="Where there: file and line, credit, …"),
    _time("entered_at", "When it was entered (UTC, start of the transaction).", now=True),
    Column("item", BYTEA, comment="Its exact bytes in every request, frozen before the first; NULL until then."),
    Column("disposition", Text, nullable=False, server_default="open", comment="open, then processed (the wallet paid it; of a credit, perhaps the operator otherwise) or lost (it will not be paid); one way."),
    Column("hold_reason", Text, comment="Why it is not sent though open: amount_without_win, changed, unsignable, refusal_pending, contested, in_doubt, unclear, … NULL if nothing holds it."),
    Column("hold_detail", Text, comment="The same in words, where there is more to say."),
    Column("hold_finding_id", BigInteger, comment="The finding that asks about the hold (ops.finding); NULL until one was opened."),
    _time("released_at", "When a decision last let it go again (UTC): what limits how often it is sent counts from then; NULL: never."),
    _time("disposed_at", "When it became processed or lost (UTC, start of the transaction)."),
    Column("accounting_date", Date, comment="UTC date of disposed_at: the day in which it is booked."),
    Column("evidence", JSONB, comment="The attempt or decision that says why it is processed or lost, or is about to be."),
    CheckConstraint("char_length(transaction_id) BETWEEN 1 AND 500", name="transaction_id_bounded"),
    CheckConstraint("char_length(currency) <= 20", name="currency_bounded"),
    CheckConstraint("amount >= 0", name="amount_not_negative"),
    CheckConstraint("business_date >= '2000-01-01'", name="business_date_plausible"),
    _one_of("disposition", "open", "processed", "lost"),
    CheckConstraint("hold_reason IS NULL OR disposition = 'open'", name="held_is_open"),
    CheckConstraint("hold_reason IS NOT NULL OR (hold_detail IS NULL AND hold_finding_id IS NULL)", name="hold_has_reason"),
    CheckConstraint("(disposition = 'open') = (disposed_at IS NULL) AND (disposition = 'open') = (accounting_date IS NULL)", name="disposed_is_dated"),
    CheckConstraint("disposition = 'open' OR evidence IS NOT NULL", name="disposed_has_evidence"),
    CheckConstraint("disposition <> 'lost' OR origin_source IS DISTINCT FROM 'prediction'", name="credit_never_lost"),
    # Summarized as it grows: rows that are not yet would all be read for any day.
    Index(None, "business_date", postgresql_using="brin", postgresql_with={"autosummarize": True}),
    Index(None, "accounting_date", postgresql_using="brin", postgresql_with={"autosummarize": True}),
    Index("transaction_due_index", "currency", "transaction_id", postgresql_where=text("disposition = 'open' AND hold_reason IS NULL")),
    Index("transaction_unfrozen_index", "transaction_id", postgresql_where=text("item IS NULL AND disposition = 'open' AND hold_reason IS NULL")),
    Index("transaction_held_index", "business_date", "hold_reason", "transaction_id", postgresql_where=text("hold_reason IS NOT NULL")),
    schema="wallet",
    postgresql_with=_GENTLY_VACUUMED,
    comment="The outbox: payouts that the wallet has not processed. What was entered never changes. Sent are those that are open and not held; processed and lost are for ever.",
)  # fmt: skip

transaction_conflict = Table(
    "transaction_conflict",
    metadata,
    Column("conflict_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("transaction_id", Text(collation="C"), ForeignKey("wallet.transaction.transaction_id"), nullable=False, comment="The transaction whose id it has."),
    *_payout_columns(),
    Column("business_date", Date, nullable=False, comment="UTC day that came with it."),
    Column("origin_source", Text, comment="Where it comes from."),
    Column("origin_key", Text, comment="Where there: file and line, credit, …"),
    Column("content_sha256", BYTEA, nullable=False, comment="Digest of what the wallet would be told; the same content is recorded once."),
    Column("is_after_send", Boolean, nullable=False, comment="The transaction had been sent or disposed of when it came, and was not held for it."),
    _time("arrived_at", "When it first came (UTC, start of the transaction).", now=True),
    Column("finding_id", BigInteger, comment="The finding that tells of it (ops.finding); NULL until one was opened."),
    UniqueConstraint("transaction_id", "content_sha256"),
    Index("transaction_conflict_untold_index", "conflict_id", postgresql_where=text("finding_id IS NULL")),
    schema="wallet",
    comment="What was entered under the id of a transaction, with another content than it has. It is never sent; the transaction is held if it had not been sent.",
)  # fmt: skip

rejected_line = Table(
    "rejected_line",
    metadata,
    *_rejected_line_columns(),
    UniqueConstraint("file_name", "line_number", "line_sha256"),
    schema="wallet",
    comment="Lines of imported files that are no payout; nothing of them is in the outbox.",
)  # fmt: skip

hold = Table(
    "hold",
    metadata,
    Column("hold_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("transaction_id", Text(collation="C"), nullable=False, comment="Which payout."),
    Column("hold_reason", Text, nullable=False, comment="Why it was not sent meanwhile."),
    _time("held_at", "From when (UTC, start of the transaction).", now=True),
    _time("ended_at", "Until when, because it was released, disposed of or held for another reason; NULL: it lasts."),
    Index("hold_transaction_index", "transaction_id", "hold_id"),
    schema="wallet",
    comment="When each payout was held, and why; written by the outbox itself.",
)  # fmt: skip

sending_window = Table(
    "sending_window",
    metadata,
    Column("window_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("epoch", BigInteger, nullable=False, comment="Epoch of the sender that opened it."),
    _time("opened_at", "From when (UTC).", now=True),
    _time("closes_at", "Until when what is in doubt may be sent again (UTC).", required=True),
    schema="wallet",
    comment="Spans of time that bound how often what is in doubt is sent again.",
)  # fmt: skip

attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("window_id", BigInteger, ForeignKey("wallet.sending_window.window_id"), nullable=False, comment="The window in which it was made."),
    Column("epoch", BigInteger, nullable=False, comment="Epoch of the sender that made it (ops.lease)."),
    Column("run_id", Text, comment="The Airflow run that made it."),
    Column("currency", Text, nullable=False, comment="Currency of all its items."),
    Column("stage", Integer, nullable=False, comment="Attempts of one epoch, currency and stage are judged together before a refusal becomes lost; 0 is the canary."),
    Column("items", Integer, nullable=False, comment="How many payouts it holds."),
    Column("amount", Numeric, nullable=False, comment="Their sum, in hundred-thousandths of the currency."),
    Column("body_sha256", BYTEA, nullable=False, comment="SHA-256 of the exact body."),
    _time("committed_at", "When the intent was committed, before the first byte was sent (UTC, start of the transaction).", now=True),
    _time("deadline_at", "No byte of it is sent after this moment (UTC).", required=True),
    Column("result", Text, comment="answered, not_executed, rejected or in_doubt; NULL as long as it is open."),
    Column("detail", Text, comment="The same in words, where there is more to say."),
    _time("closed_at", "When its result was stored (UTC); a late answer moves it."),
    Column("closed_by_epoch", BigInteger, comment="Epoch of the sender that stored it: another one than its own if the process had died."),
    Column("http_status", SmallInteger, comment="HTTP status of the answer."),
    Column("content_type", Text, comment="Content-Type of the answer."),
    Column("answer", BYTEA, comment="The answer's exact bytes, as far as they came; stored uncompressed."),
    Column("is_answer_complete", Boolean, comment="Whether all of the answer came."),
    Column("answer_code", Text, comment="The code that the answer gives for the whole request."),
    _one_of("result", "answered", "not_executed", "rejected", "in_doubt"),
    CheckConstraint("items > 0", name="has_items"),
    CheckConstraint("(result IS NULL) = (closed_at IS NULL)", name="closed_has_result"),
    Index("attempt_stage_index", "epoch", "currency", "stage"),
    Index("attempt_open_index", "attempt_id", postgresql_where=text("result IS NULL")),
    schema="wallet",
    comment="Each request to the wallet, committed before its first byte was sent, with the answer as it came.",
)  # fmt: skip

attempt_item = Table(
    "attempt_item",
    metadata,
    Column("transaction_id", Text(collation="C"), nullable=False, comment="The payout."),
    Column("attempt_id", BigInteger, nullable=False, comment="The request that held it (wallet.attempt; both are inserted in one transaction, and neither is ever deleted)."),
    Column("place", SmallInteger, nullable=False, comment="Its place in the request, from 1."),
    Column("outcome", Text, comment="ok, refused, contested, unclear, blocked, in_doubt, not_executed or rejected; NULL as long as the attempt is open."),
    Column("code", Text, comment="The code that the wallet answered it with."),
    Column("balance", Numeric, comment="The player's balance as answered, in hundred-thousandths; never summed."),
    Column("detail", Text, comment="What else there is to say, such as fields that differ in the answer."),
    _one_of("outcome", "ok", "refused", "contested", "unclear", "blocked", "in_doubt", "not_executed", "rejected"),
    PrimaryKeyConstraint("transaction_id", "attempt_id"),
    Index(None, "attempt_id"),
    schema="wallet",
    # Half of each page is left for the answers, which then touch no index.
    postgresql_with={"fillfactor": 50} | _GENTLY_VACUUMED,
    comment="What each request said of each payout. What was delivered is read from here; only a doubt ever gives way to an answer.",
)  # fmt: skip

reported_outcome = Table(
    "reported_outcome",
    metadata,
    Column("report_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("business_date", Date, nullable=False, comment="UTC day of the payouts."),
    Column("currency", Text, nullable=False, comment="Their currency."),
    *(
        column
        for name, what in {"entered": "were entered", "processed": "the wallet paid", "lost": "will not be paid", "open": "are still to be sent or in doubt", "held": "wait for a decision"}.items()
        for column in (
            Column(f"{name}_payouts", BigInteger, nullable=False, comment=f"How many {what}."),
            Column(f"{name}_amount", Numeric, nullable=False, comment=f"Sum of those that {what}, in hundred-thousandths."),
        )
    ),
    Column("run_id", Text, comment="The Airflow run that reported it."),
    _time("reported_at", "When it was reported (UTC).", now=True),
    Index(None, "business_date", "currency"),
    schema="wallet",
    comment="How a day's payouts stood at the end of each run; only ever inserted.",
)  # fmt: skip

# --- tote ---------------------------------------------------------------------------------------

bet = Table(
    "bet",
    metadata,
    Column("tote_id", Text(collation="C"), primary_key=True, comment="toteId: which bet. At most 128 characters."),
    _time("entered_at", "When it was entered (UTC, start of the transaction); its age counts from then.", now=True),
    Column("entered_by", Text, nullable=False, server_default="sql", comment="sql: by another system or a person. file: from an imported file. listing: tote listed it. hint: its socket named it."),
    Column("state", Text, nullable=False, server_default="open", comment="open: asked for until it is final. final: settled, refunded, cancelled, rejected or failed, and still looked at for some days after its last change. done: not asked for any more."),
    Column("next_ask_at", TIMESTAMP(timezone=True), server_default=text("now()"), comment="When it is asked for next (UTC); NULL only if it is done."),
    _time("asked_at", "When it was last asked for (UTC), answered or not; NULL: never."),
    _time("answered_at", "When an answer last told it (UTC); NULL: never."),
    _time("changed_at", "When an answer first told it as it stands (UTC); NULL: none has."),
    _time("absent_since", "When an answer first left it out though it was asked for (UTC): tote does not know it. NULL: it does, or was not asked yet."),
    _time("hinted_at", "When the socket last hinted at a change that no answer has been asked for since (UTC); NULL: nothing waits."),
    Column("placement", Text, comment="placement.status as last told, in tote's word."),
    Column("resulting", Text, comment="resulting.status as last told, in tote's word; NULL if none was told."),
    Column("settlement", Text, comment="settlement.status as last told, in tote's word; NULL if none was told."),
    Column("content_sha256", BYTEA, comment="SHA-256 of the text that last told it; another one is a change. NULL: nothing was told."),
    Column("is_asked_alone", Boolean, nullable=False, server_default=text("false"), comment="An answer that held it with others could not be decoded, or failed for it, so it is asked for by itself until it is answered."),
    Column("refusal", Text, comment="What tote said instead of an answer when it was asked for this bet alone, while it answered for others; absent_since is set as well. NULL: it answers."),
    CheckConstraint("char_length(tote_id) BETWEEN 1 AND 128", name="tote_id_bounded"),
    _one_of("entered_by", "sql", "file", "listing", "hint"),
    _one_of("state", "open", "final", "done"),
    CheckConstraint("(state = 'done') = (next_ask_at IS NULL)", name="done_is_not_asked"),
    Index("bet_due_index", "next_ask_at", postgresql_where=text("next_ask_at IS NOT NULL")),
    Index("bet_hinted_index", "hinted_at", postgresql_where=text("hinted_at IS NOT NULL")),
    Index("bet_open_index", "entered_at", postgresql_where=text("state = 'open'")),
    Index("bet_absent_index", "absent_since", postgresql_where=text("absent_since IS NOT NULL")),
    schema="tote",
    comment="The register: every bet of tote that is to be asked for, entered by whom ever knows of it; the same id twice is one bet. How it stands for finance is in core.settlement.",
)  # fmt: skip

hint = Table(
    "hint",
    metadata,
    Column("hint_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("record_id", BigInteger, nullable=False, comment="The message (raw.record)."),
    Column("tote_id", Text(collation="C"), nullable=False, comment="Which bet it names."),
    Column("message_type", Text, nullable=False, comment="What it says happened, in tote's word: BetSettled, …"),
    Column("return_amount", Numeric, comment="ReturnAmount, in major units of a currency that is not told; NULL if none is told that can be read."),
    _time("received_at", "When it arrived (UTC).", required=True),
    _time("confirmed_at", "When an answer of GraphQL told the bet as the hint says, or further on (UTC); NULL: none has."),
    Column("confirmed_by_record_id", BigInteger, comment="What that answer told of the bet (raw.record); NULL as long as confirmed_at is."),
    Column("differs", Boolean, nullable=False, server_default=text("false"), comment="What GraphQL told contradicts it, such as another amount."),
    Column("finding_id", BigInteger, comment="The finding that tells of the difference (ops.finding); NULL if there is none."),
    UniqueConstraint("record_id"),
    _finite("return_amount"),
    Index("hint_unconfirmed_index", "tote_id", postgresql_where=text("confirmed_at IS NULL")),
    schema="tote",
    comment="Messages of the socket, each a reason to ask for its bet sooner and nothing else: no bet is settled on a hint.",
)  # fmt: skip

rejected_tote_line = Table(
    "rejected_line",
    metadata,
    *_rejected_line_columns(),
    UniqueConstraint("file_name", "line_number", "line_sha256"),
    schema="tote",
    comment="Lines of imported registers that name no bet; nothing of them is in tote.bet.",
)  # fmt: skip

# --- prediction ---------------------------------------------------------------------------------

market = Table(
    "market",
    metadata,
    Column("market_id", Text(collation="C"), primary_key=True, comment="The engine's market. At most 128 characters: letters, digits and ._~:@+=-"),
    _time("entered_at", "When it was entered (UTC, start of the transaction).", now=True),
    Column("entered_by", Text, nullable=False, server_default="sql", comment="sql: by another system or a person. file: from an imported file. event: the engine told that it was resolved. form: from the form of settle_markets."),
    Column("currency", Text, comment="Currency of its shares and payouts; NULL: not known yet, and then nothing of it is published."),
    Column("evidence", JSONB, comment="Why it may be settled: the engine's event (sequence, record_id), or who confirmed it in the form and why (confirmed_by, reason, run_id). NULL: nothing says that it is resolved."),
    Column("state", Text, nullable=False, server_default="entered", comment="entered (no evidence that it is resolved), resolved (to be settled), settling (ordered, and what came of it is not known), waiting (positions under way), retrying (failed positions are to be retried), fetching (its payouts are to be listed), fetched (listed, to be checked), checked (to be published), done (all positions completed); held (does not add up), failed (positions failed, and no retry is left), stuck (positions under way for too long, or no answers), refused (the engine does not settle it), withdrawn (a decision took it out)."),
    _time("state_since", "Since when it is in that state (UTC).", now=True),
    Column("revision", BigInteger, nullable=False, server_default=text("0"), comment="Counts its moves; whoever has looked at it moves it only from the revision seen."),
    _time("next_look_at", "When it is to be gone on with (UTC); NULL: only a decision, evidence or the next step moves it."),
    Column("settle_attempts", Integer, nullable=False, server_default=text("0"), comment="How often it was ordered to be settled since it was entered, or since a decision."),
    Column("retry_attempts", Integer, nullable=False, server_default=text("0"), comment="How often its failed positions were ordered to be retried since then."),
    Column("positions", Integer, comment="Positions, as the engine's status last told; NULL: it has told nothing."),
    Column("pending_positions", Integer, comment="Of these, PENDING."),
    Column("processing_positions", Integer, comment="Of these, PROCESSING."),
    Column("completed_positions", Integer, comment="Of these, COMPLETED."),
    Column("failed_positions", Integer, comment="Of these, FAILED."),
    Column("total_payout", Numeric, comment="What the status says all positions pay, in units of the currency."),
    Column("completed_payout", Numeric, comment="What it says the completed ones pay."),
    _time("status_at", "When the status last was read (UTC)."),
    _time("progressed_at", "When its counts last changed, or it was last ordered anything (UTC): too long ago, it is stuck."),
    Column("listing_sha256", BYTEA, comment="Digest of the last status and complete list that were landed; the same again needs no other look. NULL: none, or a decision wants another look."),
    Column("batch_id", BigInteger, comment="The batch of that list (ops.batch); NULL: none."),
    Column("differences", JSONB, nullable=False, server_default=text("'[]'"), comment="What does not add up in that list: check, sentence, is_holding."),
    _time("relook_until", "Until when it is looked at again though it is at its end, for what the engine changes later (UTC)."),
    Column("trouble", Text, comment="Why the last look came to nothing; NULL: it did not."),
    _time("troubled_since", "Since when every look came to nothing (UTC)."),
    Column("finding_id", BigInteger, comment="The finding that waits for a person (ops.finding); NULL: none was opened for its state."),
    CheckConstraint("market_id ~ '^[A-Za-z0-9._~:@+=-]{1,128}$' AND market_id NOT IN ('.', '..')", name="market_id_usable"),
    CheckConstraint("currency ~ '^[A-Za-z0-9]{2,12}$'", name="currency_plausible"),
    _one_of("entered_by", "sql", "file", "event", "form"),
    _one_of("state", "entered", "resolved", "settling", "waiting", "retrying", "fetching", "fetched", "checked", "done", "held", "failed", "stuck", "refused", "withdrawn"),
    CheckConstraint("state IN ('entered', 'withdrawn') OR evidence IS NOT NULL", name="settled_has_evidence"),
    CheckConstraint("(trouble IS NULL) = (troubled_since IS NULL)", name="trouble_is_dated"),
    *(_finite(column) for column in ("total_payout", "completed_payout")),
    Index("market_due_index", "next_look_at", postgresql_where=text("next_look_at IS NOT NULL")),
    Index("market_listed_index", "market_id", postgresql_where=text("state IN ('fetched', 'checked')")),
    Index("market_entered_index", "entered_at", postgresql_where=text("state = 'entered'")),
    schema="prediction",
    comment="The queue: every market that is to be settled, and how far it is. Its payouts are in core.settlement.",
)  # fmt: skip

market_attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("market_id", Text(collation="C"), ForeignKey("prediction.market.market_id"), nullable=False, comment="Which market."),
    Column("call", Text, nullable=False, comment="settle: cancel its open orders and settle its positions. retry: settle again those that failed."),
    Column("run_id", Text, comment="The Airflow run that made it."),
    _time("committed_at", "When the intent was committed, before the first byte was sent (UTC, start of the transaction).", now=True),
    _time("deadline_at", "No byte of it is sent after this moment (UTC); before it nothing else is ordered for the market unless this was answered.", required=True),
    _time("closed_at", "When its result was stored (UTC); a late answer moves it. NULL: it is open, or its process died."),
    Column("result", Text, comment="executed, already_completed, failed, not_executed, rejected or in_doubt; NULL as long as closed_at is."),
    Column("http_status", SmallInteger, comment="HTTP status of the answer; NULL: none came."),
    Column("code", Text, comment="The error code in the answer."),
    Column("detail", Text, comment="The same in words, where there is more to say."),
    Column("record_id", BigInteger, comment="The answer's exact bytes (raw.record); NULL: there are none."),
    _one_of("call", "settle", "retry"),
    _one_of("result", "executed", "already_completed", "failed", "not_executed", "rejected", "in_doubt"),
    CheckConstraint("(result IS NULL) = (closed_at IS NULL)", name="closed_has_result"),
    Index(None, "market_id", "attempt_id"),
    schema="prediction",
    comment="Each order to settle a market or to retry it, committed before its first byte was sent; for ever.",
)  # fmt: skip

credit = Table(
    "credit",
    metadata,
    Column("credit_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("settlement_id", Text(collation="C"), nullable=False, comment="The settlement that is credited (core.settlement.source_key), once for ever."),
    Column("market_id", Text(collation="C"), nullable=False, comment="Its market (prediction.market)."),
    Column("position_id", Text(collation="C"), nullable=False, comment="Its position: credited once for ever, whichever of its settlements completes it."),
    Column("outcome_id", Text, comment="The outcome that the position is on; NULL where the engine told none."),
    Column("player_id", Text, comment="Who is credited, in clear; NULL if it is not known."),
    Column("currency", Text, comment="The market's currency; NULL if it is not known."),
    Column("amount", Numeric, nullable=False, comment="What is credited, in major units of currency. As its settlement says until it is sent or acknowledged; what that says later is in prediction.adjustment."),
    Column("record_id", BigInteger, nullable=False, comment="The version of the settlement that says so (core.settlement.record_id): its evidence."),
    Column("state", Text, nullable=False, comment="due: a decision lets the next run look at it. held: it waits for a decision. owed: the operator pays it with its own wallet, and acknowledges it. sending: it is in the outbox, and how it stands is said there (prediction.credit_standing). acknowledged: the operator has paid it; for ever."),
    Column("hold_reason", Text, comment="Why it is held: currency_unknown, player_unknown, too_fine, too_large, id_taken, changed or withdrawn; NULL unless it is."),
    Column("finding_id", BigInteger, comment="The finding that asks about it (ops.finding); NULL until one was opened."),
    Column("transaction_id", Text(collation="C"), comment="Its payout in the outbox (wallet.transaction): prediction: and the settlement's id. NULL: it was never there."),
    _time("created_at", "When it was made (UTC, start of the transaction).", now=True),
    Column("accounting_date", Date, nullable=False, comment="UTC date of created_at: the day in which it is booked."),
    _time("acknowledged_at", "When the operator acknowledged it (UTC); NULL unless it is acknowledged."),
    Column("acknowledged_by", Text, comment="Who acknowledged it: the login, or whoever decided."),
    Column("reference", Text, comment="What the operator paid it by, in the words of whoever acknowledged it."),
    UniqueConstraint("settlement_id"),
    UniqueConstraint("market_id", "position_id"),
    CheckConstraint("amount >= 0", name="amount_not_negative"),
    _finite("amount"),
    _one_of("state", "due", "held", "owed", "sending", "acknowledged"),
    _one_of("hold_reason", "currency_unknown", "player_unknown", "too_fine", "too_large", "id_taken", "changed", "withdrawn"),
    CheckConstraint("(state = 'held') = (hold_reason IS NOT NULL)", name="held_has_reason"),
    CheckConstraint("state IN ('due', 'held') OR (currency IS NOT NULL AND player_id IS NOT NULL)", name="owed_to_somebody"),
    CheckConstraint("CASE state WHEN 'sending' THEN transaction_id IS NOT NULL WHEN 'acknowledged' THEN true ELSE transaction_id IS NULL END", name="sending_has_transaction"),
    CheckConstraint("transaction_id = 'prediction:' || settlement_id", name="transaction_is_its_own"),
    CheckConstraint("CASE WHEN state = 'acknowledged' THEN acknowledged_at IS NOT NULL AND acknowledged_by IS NOT NULL AND btrim(reference) <> '' ELSE coalesce(acknowledged_by, reference) IS NULL AND acknowledged_at IS NULL END", name="acknowledged_is_told"),
    Index("credit_due_index", "credit_id", postgresql_where=text("state = 'due'")),
    Index("credit_asked_index", "finding_id", "hold_reason", "credit_id", postgresql_where=text("state IN ('held', 'owed')")),
    schema="prediction",
    comment="What each completed settlement that pays something owes its player: one credit a settlement and one a position, for ever.",
)  # fmt: skip

credited_market = Table(
    "credited_market",
    metadata,
    Column("market_id", Text(collation="C"), primary_key=True, comment="Which market (prediction.market)."),
    Column("revision", BigInteger, nullable=False, comment="The market's revision as it was when its settlements were last credited: at another one they are looked at again."),
    Column("other_changes", BigInteger, nullable=False, comment="By then: decisions about contested settlements, and published replays. They change settlements without moving a market."),
    _time("credited_at", "When they were last looked at (UTC).", required=True),
    schema="prediction",
    comment="Up to where each market's settlements are credited, so that a run looks at what is new alone.",
)  # fmt: skip

adjustment = Table(
    "adjustment",
    metadata,
    Column("adjustment_id", BigInteger, Identity(), primary_key=True, comment="Ours, ascending."),
    Column("credit_id", BigInteger, ForeignKey("prediction.credit.credit_id"), nullable=False, comment="The credit that was in the outbox or acknowledged by then."),
    Column("currency", Text, nullable=False, comment="Currency of the amounts: the credit's."),
    Column("amount_before", Numeric, nullable=False, comment="What the credit came to with its adjustments so far, in major units."),
    Column("amount_after", Numeric, nullable=False, comment="What its settlement says since; 0 if it is not completed any more, or is another player's or in another currency."),
    Column("difference", Numeric, nullable=False, comment="amount_after - amount_before: nobody has paid or taken it back."),
    Column("record_id", BigInteger, nullable=False, comment="The version of the settlement that says so (core.settlement.record_id): its evidence."),
    _time("adjusted_at", "When it was made (UTC, start of the transaction).", now=True),
    Column("accounting_date", Date, nullable=False, comment="UTC date of adjusted_at: the day in which it is booked."),
    Column("finding_id", BigInteger, comment="The finding that tells of it (ops.finding); NULL until one was opened."),
    *(_finite(column) for column in ("amount_before", "amount_after", "difference")),
    CheckConstraint("difference = amount_after - amount_before AND difference <> 0", name="difference_adds_up"),
    Index(None, "credit_id"),
    Index("adjustment_untold_index", "adjustment_id", postgresql_where=text("finding_id IS NULL")),
    schema="prediction",
    comment="What a settlement says otherwise after its credit was in the outbox or acknowledged; only ever inserted. A credit is never made a second time.",
)  # fmt: skip
