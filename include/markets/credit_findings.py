"""What a person has to know or decide about credits, and a finding for each.

A finding about held or owed credits is about those that name it: what comes later with the same
reason joins it, and it closes by itself once it is about none any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, text, update

from include.providers.prediction import PROVIDER as SOURCE
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, open_finding, raise_again, tell_finding
from include.warehouse.tables import adjustment as adjustment_table
from include.warehouse.tables import credit as credit_table
from include.warehouse.tables import finding as finding_table

_EXAMPLES = 10
_DIGITS = 12

HOLDS = {
    "currency_unknown": "it is not known in which currency their market pays",
    "player_unknown": "it is not known whom they are for",
    "too_fine": "they have more than the five decimals that the wallet counts in",
    "too_large": "they are beyond what the wallet can be told",
    "id_taken": "somebody else has entered a payout under their transactionId",
    "changed": "their settlements say another amount, player or currency than before",
    "withdrawn": "their settlements do not pay anything any more",
}
"""Why credits are held, as a person reads it."""

_ABOUT_CHANGES = frozenset({"changed", "withdrawn"})

_CLOSE_EMPTIED = text("""
UPDATE ops.finding
SET state = 'closed', closed_at = now(), closed_by = 'system'
WHERE source = :source AND kind IN ('credits_held', 'credit_changed', 'credits_owed')
    AND state = 'open' AND NOT EXISTS (
        SELECT
        FROM prediction.credit
        WHERE credit.finding_id = finding.finding_id AND credit.state IN ('held', 'owed')
    )
""")


def report_credits(engine: Engine, *, is_mapped: bool) -> None:
    """Open findings for the credits that are held, or told otherwise since they were sent or paid.

    If `is_mapped`, what is owed without the wallet having been told is asked about too: it is not
    sent by itself.
    """
    with transaction(engine, "crediter") as connection:
        lock_source(connection, SOURCE)
        connection.execute(_CLOSE_EMPTIED, {"source": SOURCE})
        for reason in _untold_reasons(connection):
            _ask_about_held(connection, reason)
        if is_mapped:
            _ask_about_owed(connection)
        for accounting_date in _untold_days(connection):
            _tell_adjusted(connection, accounting_date)


def _untold_reasons(connection: Connection) -> Sequence[str]:
    return connection.scalars(
        select(credit_table.c.hold_reason)
        .where(credit_table.c.state == "held", credit_table.c.finding_id.is_(None))
        .distinct()
        .order_by(credit_table.c.hold_reason)
    ).all()


def _ask_about_held(connection: Connection, reason: str) -> None:
    _ask(
        connection,
        Finding(
            kind="credit_changed" if reason in _ABOUT_CHANGES else "credits_held",
            source=SOURCE,
            subject=reason,
            summary=f"{{credits}} are held: {HOLDS[reason]}.",
            kept="Their players are owed what prediction.credit says, and nobody was told of it "
            "yet; all other credits go on.",
            detail={"reason": reason},
        ),
        (credit_table.c.state == "held") & (credit_table.c.hold_reason == reason),
    )


def _ask_about_owed(connection: Connection) -> None:
    owed = credit_table.c.state == "owed"
    untold = select(credit_table.c.credit_id).where(owed, credit_table.c.finding_id.is_(None))
    if connection.execute(untold.limit(1)).first() is not None:
        _ask(
            connection,
            Finding(
                kind="credits_owed",
                source=SOURCE,
                subject="without the wallet",
                summary="{credits} are owed that were made when the settings did not say how the "
                "wallet is told of them. They do so now.",
                kept="None of these is sent by itself: the operator pays them with its own wallet "
                "and acknowledges them, or a decision has them sent. New ones are sent.",
            ),
            owed,
        )


def _ask(connection: Connection, finding: Finding, concerned: ColumnElement[bool]) -> None:
    """Have `finding` ask about the `concerned` credits that none asks about yet."""
    finding_id = open_finding(connection, finding, is_told=False)
    connection.execute(
        update(credit_table)
        .where(concerned, credit_table.c.finding_id.is_(None))
        .values(finding_id=finding_id)
    )
    this = concerned & (credit_table.c.finding_id == finding_id)
    sums = connection.execute(
        select(
            credit_table.c.currency,
            func.count().label("rows"),
            func.sum(credit_table.c.amount).label("amount"),
        )
        .where(this)
        .group_by(credit_table.c.currency)
        .order_by(credit_table.c.currency)
    ).all()
    examples = connection.scalars(
        select(credit_table.c.settlement_id)
        .where(this)
        .order_by(credit_table.c.credit_id)
        .limit(_EXAMPLES)
    ).all()
    detail = {**finding.detail, **_counted(sums), "examples": list(examples)}
    told = finding.summary.format(credits=_listed("credits", detail))
    tell_finding(connection, finding_id, told, detail)
    raise_again(connection, finding_id, detail["count"])


def _counted(sums: Sequence[Row[Any]]) -> dict[str, Any]:
    return {
        "count": sum(row.rows for row in sums),
        "amounts": {row.currency or "unknown": f"{row.amount:f}" for row in sums},
    }


def _listed(what: str, counted: dict[str, Any]) -> str:
    amounts = ", ".join(f"{amount} {currency}" for currency, amount in counted["amounts"].items())
    return f"{counted['count']} {what} ({amounts})"


# --- told otherwise -----------------------------------------------------------------------------


def _untold_days(connection: Connection) -> Sequence[Any]:
    return connection.scalars(
        select(adjustment_table.c.accounting_date)
        .where(adjustment_table.c.finding_id.is_(None))
        .distinct()
        .order_by(adjustment_table.c.accounting_date)
    ).all()


def _tell_adjusted(connection: Connection, accounting_date: Any) -> None:
    finding_id = open_finding(
        connection,
        Finding(
            kind="credit_adjusted",
            source=SOURCE,
            subject=str(accounting_date),
            summary="",
            kept="What was sent or paid stays as it is, and nobody is credited twice. The "
            "differences are in prediction.difference, by finding_id and with the players in clear "
            "(role credit_operator): pay them or take them back by hand.",
        ),
        is_told=False,
    )
    connection.execute(
        update(adjustment_table)
        .where(
            adjustment_table.c.accounting_date == accounting_date,
            adjustment_table.c.finding_id.is_(None),
        )
        .values(finding_id=finding_id)
    )
    this = adjustment_table.c.finding_id == finding_id
    sums = connection.execute(
        select(
            adjustment_table.c.currency,
            func.count().label("rows"),
            func.sum(adjustment_table.c.difference).label("amount"),
        )
        .where(this)
        .group_by(adjustment_table.c.currency)
        .order_by(adjustment_table.c.currency)
    ).all()
    examples = connection.scalars(
        select(credit_table.c.settlement_id)
        .join_from(adjustment_table, credit_table)
        .where(this)
        .order_by(adjustment_table.c.adjustment_id)
        .limit(_EXAMPLES)
    ).all()
    detail = {**_counted(sums), "examples": list(examples)}
    tell_finding(
        connection,
        finding_id,
        f"The settlements of {_listed('credits', detail)} that were sent or paid say something "
        f"else since, found on {accounting_date}; the amounts are the differences.",
        detail,
    )
    raise_again(connection, finding_id, detail["count"])


# --- not credited at all ------------------------------------------------------------------------

_DOUBLED = text("""
WITH doubled AS MATERIALIZED (
    SELECT *
    FROM (
        SELECT
            source_key AS settlement_id, settlement.position_id, settlement.currency, payout,
            credited.settlement_id AS credited_by,
            coalesce(credited.hold_reason, credited.state) AS credit_state,
            (
                SELECT count(*) > 0
                FROM core.settlement AS rival
                WHERE rival.source = 'prediction' AND rival.is_current
                    AND rival.market_id = settlement.market_id
                    AND rival.position_id = settlement.position_id
                    AND rival.source_key <> settlement.source_key AND rival.status = 'settled'
            ) AS has_rival
        FROM core.settlement AS settlement
        LEFT JOIN LATERAL (
            SELECT *
            FROM prediction.credit
            WHERE credit.market_id = settlement.market_id
                AND credit.position_id = settlement.position_id
            LIMIT 1
        ) AS credited ON true
        WHERE source = 'prediction' AND is_current AND NOT is_contested
            AND settlement.market_id = :market_id AND status = 'settled' AND payout > 0
            AND (
                SELECT count(*)
                FROM prediction.credit
                WHERE credit.settlement_id = settlement.source_key
            ) = 0
    ) AS uncredited
    WHERE has_rival OR credited_by IS NOT NULL
)
SELECT
    doubled.*, (SELECT count(*) FROM doubled) AS count,
    (SELECT count(*) FROM doubled WHERE NOT has_rival) AS taken_back,
    (
        SELECT md5(string_agg(concat(settlement_id, ' ', has_rival), ',' ORDER BY settlement_id))
        FROM doubled
    ) AS digest
FROM doubled
ORDER BY position_id, settlement_id
LIMIT :limit
""")


def tell_uncredited(
    connection: Connection, market_id: str, *, is_doubled: bool, is_elsewhere: bool
) -> None:
    """Ask about what the market's settlements pay and nobody is credited, of either sort that was
    seen; close what was asked about the other.
    """
    if is_doubled:
        _tell_doubled(connection, market_id)
    else:
        _close_about(connection, "credit_doubled", market_id)
    if is_elsewhere:
        _tell_elsewhere(connection, market_id)
    else:
        _close_about(connection, "credit_adjusted", market_id)


def _tell_doubled(connection: Connection, market_id: str) -> None:
    """Open a finding for the market's settlements that are not credited because their position has
    another one that is completed, or that was credited before; once for the same of them.
    """
    doubled = connection.execute(_DOUBLED, {"market_id": market_id, "limit": _EXAMPLES}).all()
    if not doubled:
        _close_about(connection, "credit_doubled", market_id)
        return
    count, taken_back, digest = doubled[0].count, doubled[0].taken_back, doubled[0].digest
    because = [
        *(["have another one that is completed as well"] if taken_back < count else []),
        *(["were credited by another one that was taken back since"] if taken_back else []),
    ]
    examples = [
        {
            "settlement_id": row.settlement_id,
            "position_id": row.position_id,
            "payout": f"{row.payout:f} {row.currency}",
            "credited_by": row.credited_by,
            "credit_state": row.credit_state,
        }
        for row in doubled
    ]
    _ask_until_decided(
        connection,
        Finding(
            kind="credit_doubled",
            source=SOURCE,
            subject=f"market {market_id}, {count} settlements {digest[:_DIGITS]}",
            summary=f"{count} completed settlements of market {market_id} are not credited: their "
            f"positions {', or '.join(because)}.",
            kept="A position is credited once, by whichever was credited first, or not at all if "
            "both came together. Ask the engine's people which of them counts. If another than was "
            "credited, or if that one was taken back, the difference is paid or taken back by "
            "hand; ask first whether what was owed has been paid, for it need not be acknowledged "
            "yet.",
            detail={
                "market_id": market_id,
                "count": count,
                "taken_back": taken_back,
                "examples": examples,
            },
        ),
    )


# Current settlements of credits that may be paid, to another player or in another currency.
_ELSEWHERE = text(f"""
SELECT
    settlement.currency, count(*) AS rows, sum(payout) AS amount,
    md5(string_agg(
        concat_ws(' ', source_key, player_reference, payout), ',' ORDER BY source_key
    )) AS digest,
    (array_agg(source_key ORDER BY source_key))[1:{_EXAMPLES}] AS examples
FROM core.settlement AS settlement
CROSS JOIN LATERAL (
    SELECT *
    FROM prediction.credit
    WHERE credit.settlement_id = settlement.source_key
    LIMIT 1
) AS known
WHERE source = 'prediction' AND is_current AND NOT is_contested
    AND settlement.market_id = :market_id AND status = 'settled' AND payout > 0
    AND known.state IN ('sending', 'acknowledged')
    AND (settlement.currency, settlement.player_id)
        IS DISTINCT FROM (known.currency, known.player_id)
GROUP BY settlement.currency
ORDER BY settlement.currency
""")


def _tell_elsewhere(connection: Connection, market_id: str) -> None:
    """Open a finding for what the market's settlements pay to another player, or in another
    currency, than was sent or paid; once for the same of them.
    """
    sums = connection.execute(_ELSEWHERE, {"market_id": market_id}).all()
    if not sums:
        _close_about(connection, "credit_adjusted", market_id)
        return
    told = " ".join(f"{row.currency} {row.digest}" for row in sums)
    examples = [each for row in sums for each in row.examples][:_EXAMPLES]
    detail = {"market_id": market_id, **_counted(sums), "examples": examples}
    subject = f"market {market_id}, elsewhere {sha256(told.encode()).hexdigest()[:_DIGITS]}"
    # Amounts of another day would be paid beside these.
    _close_about(connection, "credit_adjusted", market_id, but_subject=subject)
    _ask_until_decided(
        connection,
        Finding(
            kind="credit_adjusted",
            source=SOURCE,
            subject=subject,
            summary=f"{_listed('settlements', detail)} of market {market_id} are due to another "
            "player, or in another currency, than was sent or paid for them.",
            kept="What was sent or paid stays as it is, and is to be taken back by its adjustment. "
            "What is due instead is not credited: pay it by hand, less what was paid of it after "
            "an earlier finding. Whom, and in what, is in prediction.difference by market_id (role "
            "credit_operator).",
            detail=detail,
        ),
    )


def _close_about(
    connection: Connection, kind: str, market_id: str, *, but_subject: str = ""
) -> None:
    """Close the open findings of this kind about what is not so any more in the market."""
    connection.execute(
        update(finding_table)
        .where(
            finding_table.c.kind == kind,
            finding_table.c.source == SOURCE,
            finding_table.c.state == "open",
            finding_table.c.detail["market_id"].astext == market_id,
            finding_table.c.subject != but_subject,
        )
        .values(state="closed", closed_at=func.now(), closed_by="system")
    )


def _ask_until_decided(connection: Connection, finding: Finding) -> None:
    """Open `finding`, unless a person has decided the same before."""
    decided = select(finding_table.c.finding_id).where(
        finding_table.c.kind == finding.kind,
        finding_table.c.source == finding.source,
        finding_table.c.subject == finding.subject,
        finding_table.c.closed_by == "decision",
    )
    if connection.execute(decided.limit(1)).first() is None:
        open_finding(connection, finding)
