"""Hints held against what GraphQL says: each is confirmed, differs, or waits to be asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, text

from include.catchup.hints import FEED
from include.providers.tote import (
    PROVIDER,
    PlacementStatus,
    ResultingStatus,
    SettlementStatus,
    Standing,
)
from include.settings import Settings
from include.warehouse.database import array_literal
from include.warehouse.findings import Finding, open_finding, tell_finding

Verdict = Literal["confirmed", "differs", "waits"]

# How often a bet is asked about within the time in which its hint has to be shown.
_ASKED_WHILE_WAITING = 6
_EXAMPLES = 10


@dataclass(frozen=True)
class Observation:
    """How an answer told a bet, and when that answer was asked for (UTC)."""

    tote_id: str
    standing: Standing
    observed_at: datetime


def confirm(
    connection: Connection, observations: Sequence[Observation], settings: Settings
) -> None:
    """Compare what an answer told of these bets with the hints at them.

    To be called in the transaction that landed the answer, as the last thing done to the register:
    a bet that is not as hinted yet is asked about again before long.  If it is not for
    `tote_hint_confirm_minutes`, an amount that differs becomes a finding here, and what has not
    happened at all one by `unconfirmed`.
    """
    told = {one.tote_id: one for one in observations}
    waiting = connection.execute(text(_UNCONFIRMED), {"tote_ids": array_literal(told)}).all()
    if not waiting:
        return
    patience = timedelta(minutes=settings.tote_hint_confirm_minutes)
    judged = list(_judge(waiting, told, patience))
    _mark(connection, [hint.hint_id for hint, verdict in judged if verdict != "waits"])
    _report_differing(
        connection, [(hint, told[hint.tote_id]) for hint, verdict in judged if verdict == "differs"]
    )
    _ask_again(
        connection,
        {
            hint.tote_id
            for hint, verdict in judged
            if verdict == "waits" and told[hint.tote_id].observed_at - hint.received_at <= patience
        },
        patience / _ASKED_WHILE_WAITING,
    )


def _judge(
    hints: Sequence[Row[Any]], told: Mapping[str, Observation], patience: timedelta
) -> Iterator[tuple[Row[Any], Verdict]]:
    """What the answer makes of each hint, oldest first.

    Of several messages that a bet was settled, the last one's amount counts.
    """
    last_settled = {
        hint.tote_id: hint.hint_id for hint in hints if hint.message_type == "BetSettled"
    }
    for hint in hints:
        observed = told[hint.tote_id]
        is_last = last_settled.get(hint.tote_id) == hint.hint_id
        if not is_shown(hint.message_type, observed.standing):
            yield hint, "waits"
        elif not is_last or agrees(hint.return_amount, observed.standing):
            yield hint, "confirmed"
        elif observed.observed_at - hint.received_at <= patience:
            # GraphQL may still tell of an earlier settlement.
            yield hint, "waits"
        else:
            yield hint, "differs"


def is_shown(message_type: str, standing: Standing) -> bool:
    """Whether a bet that stands so is as such a message says, or further on."""
    is_cancelled = (
        standing.placement is PlacementStatus.CANCELLED
        or standing.resulting is ResultingStatus.CANCELLED
    )
    is_paid = standing.settlement in (SettlementStatus.SETTLED, SettlementStatus.REFUNDED)
    match message_type:
        case "BetAccepted":
            is_accepted = standing.placement is PlacementStatus.ACCEPTED
            return is_accepted or is_cancelled or is_paid
        case "BetRejected":
            return standing.placement is PlacementStatus.REJECTED
        case "BetFailed":
            return standing.placement is PlacementStatus.FAILED
        case "BetCancelled":
            return is_cancelled
        case "BetResulted":
            is_resulted = standing.resulting is ResultingStatus.RESULTED
            return is_resulted or is_cancelled or is_paid
        case "BetSettled":
            return is_paid
    # A word that nobody has documented hints at something, and the bet was looked at.
    return True


def agrees(return_amount: Decimal | None, standing: Standing) -> bool:
    """Whether an amount that was hinted at is the one that GraphQL tells.

    It is not documented whether ReturnAmount contains refund and enhancement: either will do.
    """
    told = [amount for amount in (standing.total, standing.returned) if amount is not None]
    return return_amount is None or not told or return_amount in told


_UNCONFIRMED = """
SELECT hint_id, tote_id, message_type, return_amount, received_at
FROM tote.hint
WHERE confirmed_at IS NULL AND tote_id = ANY(CAST(:tote_ids AS text[]))
ORDER BY hint_id
"""
# An answer that told nothing new is the latest record of its bet.
_MARK = """
UPDATE tote.hint SET confirmed_at = now(), confirmed_by_record_id = (
    SELECT max(record.record_id) FROM raw.record
    WHERE source = 'tote' AND record_key = hint.tote_id
)
WHERE hint_id = ANY(CAST(:hint_ids AS bigint[]))
"""
_ASK_AGAIN = """
UPDATE tote.bet SET
    next_ask_at = least(coalesce(next_ask_at, 'infinity'), now() + :wait),
    state = CASE state WHEN 'done' THEN 'final' ELSE state END
WHERE tote_id = ANY(CAST(:tote_ids AS text[]))
"""


def _mark(connection: Connection, hint_ids: Sequence[int]) -> None:
    if hint_ids:
        connection.execute(text(_MARK), {"hint_ids": hint_ids})


def _ask_again(connection: Connection, tote_ids: set[str], wait: timedelta) -> None:
    if tote_ids:
        connection.execute(
            text(_ASK_AGAIN), {"tote_ids": array_literal(sorted(tote_ids)), "wait": wait}
        )


def _report_differing(
    connection: Connection, differing: Sequence[tuple[Row[Any], Observation]]
) -> None:
    """Ask a person about amounts that differ: one finding, until it is acknowledged."""
    if not differing:
        return
    finding_id = open_finding(
        connection,
        Finding(
            kind="hints_differ",
            source=PROVIDER,
            subject=FEED,
            summary="",
            kept="What GraphQL tells is what is settled. The messages are kept in raw.",
        ),
        is_told=False,
    )
    count = connection.execute(
        text(
            "WITH marked AS (UPDATE tote.hint SET differs = true, finding_id = :finding_id"
            " WHERE hint_id = ANY(:hint_ids))"
            " SELECT count(*) FROM tote.hint WHERE finding_id = :finding_id"
        ),
        {"finding_id": finding_id, "hint_ids": [hint.hint_id for hint, _ in differing]},
    ).scalar_one() + len(differing)
    examples = [
        {
            "tote_id": hint.tote_id,
            "hinted": str(hint.return_amount),
            "told": str(observed.standing.total),
        }
        for hint, observed in differing[:_EXAMPLES]
    ]
    tell_finding(
        connection,
        finding_id,
        f"The last message of tote's socket about {count} settled bets told another ReturnAmount "
        f"than GraphQL, such as {examples[0]['hinted']} instead of {examples[0]['told']} for "
        f"{examples[0]['tote_id']}. If it lasts, ask tote which of the two is right.",
        {"count": count, "examples": examples},
    )


class Unconfirmed(NamedTuple):
    """A finding about hints that were not confirmed, and when the last of them came."""

    finding: Finding
    since: datetime


def unconfirmed(connection: Connection, settings: Settings) -> Unconfirmed | None:
    """What is to be said of hints that GraphQL has not shown in time though it was asked."""
    row = connection.execute(
        text(
            "SELECT count(*) AS hints, max(received_at) AS last_at,"
            " (array_agg(tote_id || ' ' || message_type ORDER BY hint_id DESC))[1\\:10] AS examples"
            " FROM tote.hint JOIN tote.bet USING (tote_id)"
            " WHERE confirmed_at IS NULL AND asked_at > received_at + :patience"
        ),
        {"patience": timedelta(minutes=settings.tote_hint_confirm_minutes)},
    ).one()
    if not row.hints:
        return None
    finding = Finding(
        kind="hints_unconfirmed",
        source=PROVIDER,
        subject=FEED,
        summary=f"tote's socket told what GraphQL has not shown within "
        f"{settings.tote_hint_confirm_minutes:g} minutes, in {row.hints} messages, such as "
        f"{row.examples[0]}. Ask tote which of the two is right.",
        kept="The bets are as GraphQL tells them, and are asked about as usual. The messages are "
        "kept. This finding closes itself when they are confirmed.",
        detail={"count": row.hints, "examples": row.examples},
    )
    return Unconfirmed(finding, row.last_at)
