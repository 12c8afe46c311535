"""Findings: every question for a person, opened once, answered by a decision or by its cause going.

A finding raises an alert in the transaction that opens it, so neither exists without the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from include.warehouse.alerts import raise_alert
from include.warehouse.tables import finding as finding_table

Severity = Literal["critical", "warning", "info"]

TOLD_COUNT = "told_count"
"""In the detail of a finding that grows: of how many its last alert or decision told."""


@dataclass(frozen=True)
class Kind:
    """A sort of finding: how bad it is, which decisions answer it, and what each of them does.

    Those in `revised` may be taken anew, with another content, after one has closed the finding.
    """

    severity: Severity
    decisions: dict[str, str]
    revised: frozenset[str] = frozenset()


_ACKNOWLEDGE = {"acknowledge": "You have seen it; nothing else changes."}
_SETTLE_AGAIN = {
    "settle_again": "It is ordered to be settled once more in the next run: after the engine's "
    "people have said that an earlier order was carried out only in part."
}

# Each is about all payouts that the finding holds, of which `seen` says which were seen, or
# `payouts` how many; or about those named in `transaction_ids`.
_KEEP = {
    "keep": "They stay held, and this finding open; your reason is recorded. What one person has "
    "decided and a second one not yet is taken back."
}
_LOST = {
    "lost": "They will not be paid, for ever; the partner has not confirmed it. Credits of markets "
    "are never lost: these are owed then. Above an amount nothing happens until a second person "
    "decides the same for the same payouts."
}
_UNKNOWN_FATE = {
    **_KEEP,
    "send_again": "The next run sends them again, the same bytes under the same ids: they are paid "
    "unless the partner has paid them already. A partner that does not keep transactionIds would "
    "pay those twice: then ask it first.",
    "processed": "The partner has confirmed that it paid them; `reference`, which must be given, "
    "names its confirmation.",
    **_LOST,
}
_CREDITS_HELD = {
    "try_again": "The next run of settle_markets looks at them anew, as their settlements have "
    "them by then: after a fix, or if that is right.",
    "owe": "The operator pays them with its own wallet, and acknowledges each. Not for those whose "
    "player or currency is not known, or which do not pay anything.",
}

KINDS: dict[str, Kind] = {
    "undecodable_page": Kind(
        "critical",
        {
            "try_again": "The feed asks for the same page again in its next run.",
            "skip_page": "The feed goes on behind the page (after the entry named in "
            "`continue_from`, or the last id that can be read in the page's bytes); a gap is "
            "recorded.",
        },
    ),
    "undecodable_answer": Kind(
        "critical",
        {
            "try_again": "The same is asked for again in the next run.",
            "skip_page": "Bets that were asked for by their ids are asked for one by one; one that "
            "was alone is asked for again after a day, and a window of the list is passed over. "
            "What is then not known is recorded as a gap.",
        },
    ),
    "cursor_refused": Kind(
        "critical",
        {
            "try_again": "The feed asks with the same cursor again in its next run.",
            "move_cursor": "The feed goes on after the entry named in `continue_from`, which must "
            "be given: an earlier entry that the provider still knows, or else a later one; what "
            "is then not read is recorded as a gap.",
        },
    ),
    "batch_held": Kind(
        "critical",
        {
            "release_batch": "The batch is published without the rows that fail, which stay in "
            "quarantine.",
            "try_again": "The batch is normalized and checked again: after a fix.",
            "discard": "Nothing of the batch is published; its records stay in raw. What tote or "
            "the prediction engine goes on telling is landed and checked again; the others' "
            "records are given up, however often they are told again.",
        },
    ),
    "records_quarantined": Kind(
        "warning",
        {
            "replay": "The records are tried again as a new batch: after a fix.",
            "discard": "The records are given up; they stay in raw.",
        },
    ),
    "settlement_contested": Kind(
        "critical",
        {
            "choose_version": "The version named in `record_id` counts, and no other. Decided "
            "anew, with the number of the finding that it has closed, another one counts instead."
        },
        revised=frozenset({"choose_version"}),
    ),
    "gap": Kind(
        "warning",
        {
            "accept_gap": "What is missing stays missing; the range is closed as accepted.",
            "try_again": "The range is asked for again: its subjects one by one, or, with "
            "`continue_from`, every page after that entry.",
        },
    ),
    "transactions_held": Kind(
        "critical",
        {
            **_KEEP,
            "release_hold": "The next run sends them, as they were first entered; not for those "
            "that cannot be signed.",
            **_LOST,
        },
    ),
    "transactions_in_doubt": Kind("critical", _UNKNOWN_FATE),
    "transactions_contested": Kind("critical", _UNKNOWN_FATE),
    "transactions_unclear": Kind("critical", _UNKNOWN_FATE),
    "refusals_held": Kind(
        "critical",
        {
            **_KEEP,
            "send_again": "The next run sends them again: after the partner has corrected what it "
            "refused them for. A partner that does not keep transactionIds would pay twice what it "
            "has paid all the same.",
            **_LOST,
        },
    ),
    "credits_refused": Kind(
        "critical",
        {
            **_KEEP,
            "send_again": "The next run sends them again: after the partner has corrected what it "
            "refused them for. A partner that does not keep transactionIds would pay twice what it "
            "has paid all the same.",
            "paid_otherwise": "The operator has paid their players otherwise; `reference`, which "
            "must be given, names how. They are never sent again.",
        },
    ),
    "credits_held": Kind("critical", _CREDITS_HELD),
    "credit_changed": Kind("critical", _CREDITS_HELD),
    "credits_owed": Kind(
        "warning",
        {
            "send_owed": "The next run of settle_markets enters them into the outbox. The operator "
            "must not pay them as well.",
        },
    ),
    "credit_adjusted": Kind("critical", _ACKNOWLEDGE),
    "credit_doubled": Kind("critical", _ACKNOWLEDGE),
    "paid_twice": Kind("critical", _ACKNOWLEDGE),
    "paid_though_lost": Kind("critical", _ACKNOWLEDGE),
    "answer_foreign": Kind("warning", _ACKNOWLEDGE),
    "transactions_changed": Kind("warning", _ACKNOWLEDGE),
    "lines_rejected": Kind("warning", _ACKNOWLEDGE),
    "record_conflict": Kind("warning", _ACKNOWLEDGE),
    "chain_broken": Kind("warning", _ACKNOWLEDGE),
    "payout_differs": Kind("warning", _ACKNOWLEDGE),
    "unknown_field": Kind("info", _ACKNOWLEDGE),
    "feed_late": Kind("critical", _ACKNOWLEDGE),
    "connections_refused": Kind("warning", _ACKNOWLEDGE),
    "listing_incomplete": Kind(
        "warning",
        {
            "skip_window": "The list goes on behind the window; what was not listed in it is "
            "recorded as a gap.",
        },
    ),
    "totals_differ": Kind("warning", _ACKNOWLEDGE),
    "bets_absent": Kind(
        "warning",
        {
            **_ACKNOWLEDGE,
            "give_up": "Those that were never told are not asked for any more.",
        },
    ),
    "bets_open_long": Kind("warning", _ACKNOWLEDGE),
    "hints_differ": Kind("warning", _ACKNOWLEDGE),
    "hints_unconfirmed": Kind("warning", _ACKNOWLEDGE),
    "window_closing": Kind("critical", _ACKNOWLEDGE),
    "batch_stuck": Kind("warning", _ACKNOWLEDGE),
    "payouts_late": Kind("critical", _ACKNOWLEDGE),
    "market_held": Kind(
        "critical",
        {
            "try_again": "Its payouts are listed and checked again in the next run: after the "
            "engine has corrected them, or a setting was.",
            "release_market": "What is listed is published as it is, and credited; but what "
            "is of another market only with that one, if it is in the queue: else pay it by hand. "
            "Not while its currency is unknown, or if its list cannot be read.",
            **_SETTLE_AGAIN,
        },
    ),
    "market_failed": Kind(
        "critical",
        {
            "try_again": "Its failed positions are retried, as often as at first.",
            **_ACKNOWLEDGE,
        },
    ),
    "market_stuck": Kind(
        "critical",
        {
            "try_again": "It is looked at again from the next run on.",
            **_SETTLE_AGAIN,
            **_ACKNOWLEDGE,
        },
    ),
    "market_refused": Kind(
        "critical",
        {
            "try_again": "It is ordered to be settled again in the next run.",
            "withdraw": "It leaves the queue and is not settled from here; what was published of "
            "it stays.",
        },
    ),
    "market_flagged": Kind("warning", _ACKNOWLEDGE),
    "markets_unconfirmed": Kind("warning", _ACKNOWLEDGE),
    "markets_late": Kind("critical", _ACKNOWLEDGE),
    "credits_late": Kind("warning", _ACKNOWLEDGE),
    "events_closing": Kind("critical", _ACKNOWLEDGE),
}


@dataclass(frozen=True)
class Finding:
    """What is to be known or decided.  `subject` names what it concerns, once per open finding."""

    kind: str
    source: str
    subject: str
    summary: str
    kept: str
    detail: dict[str, Any] = field(default_factory=dict)
    batch_id: int | None = None


def next_step(kind: str) -> str:
    """What a person does about a finding of `kind`."""
    decisions = KINDS[kind].decisions
    choices = "; ".join(f"{name}: {effect}" for name, effect in decisions.items())
    return (
        f"Trigger the DAG resolve_findings with this finding's number{_and_what_was_seen(kind)}. "
        f"Decisions: {choices}"
    )


def _and_what_was_seen(kind: str) -> str:
    decisions = KINDS[kind].decisions
    if "keep" in decisions:
        return " and, in `payouts`, how many payouts it holds"
    if decisions.keys() & {"owe", "send_owed"}:
        return " and, in `payouts`, how many credits it holds"
    if "choose_version" in decisions:
        return " and, of more than two contents, in `seen` what the page Findings shows beside it"
    return ""


def open_finding(
    connection: Connection, finding: Finding, *, once: bool = False, is_told: bool = True
) -> int:
    """Open `finding`, or count it as seen again if it is open; returns its number.

    With `once`, a finding of the same kind, source and subject that was ever opened is enough.
    Without `is_told` its alert is raised by `tell_finding`, once its text is known.
    """
    if once and (known := _ever_opened(connection, finding)) is not None:
        return known
    kind = KINDS[finding.kind]
    opened = connection.execute(
        insert(finding_table)
        .values(
            kind=finding.kind,
            source=finding.source,
            subject=finding.subject,
            severity=kind.severity,
            summary=finding.summary,
            kept=finding.kept,
            next_step=next_step(finding.kind),
            detail=finding.detail,
            batch_id=finding.batch_id,
        )
        .on_conflict_do_update(
            index_elements=["kind", "source", "subject"],
            index_where=text("state = 'open'"),
            set_={
                "times_seen": finding_table.c.times_seen + 1,
                "last_seen_at": func.now(),
                "summary": finding.summary,
                "detail": _with_told_count(finding.detail),
            },
        )
        .returning(finding_table.c.finding_id, finding_table.c.times_seen)
    ).one()
    if opened.times_seen == 1 and is_told:
        raise_alert(
            connection,
            key=f"finding/{opened.finding_id}",
            title=f"Finding {opened.finding_id}: {finding.summary}",
            body=f"{finding.summary}\n{finding.kept}\n{next_step(finding.kind)}",
            severity=kind.severity,
        )
    return int(opened.finding_id)


def tell_finding(
    connection: Connection, finding_id: int, summary: str, detail: dict[str, Any]
) -> None:
    """Give an open finding its text, and raise its alert if it is new."""
    told = connection.execute(
        update(finding_table)
        .where(finding_table.c.finding_id == finding_id)
        .values(summary=summary, detail=_with_told_count(detail))
        .returning(finding_table.c.kind, finding_table.c.kept, finding_table.c.times_seen)
    ).one()
    if told.times_seen == 1:
        raise_alert(
            connection,
            key=f"finding/{finding_id}",
            title=f"Finding {finding_id}: {summary}",
            body=f"{summary}\n{told.kept}\n{next_step(told.kind)}",
            severity=KINDS[told.kind].severity,
        )


def raise_again(
    connection: Connection,
    finding_id: int,
    count: int,
    *,
    what: str = "payouts",
    each: bool = False,
) -> None:
    """Raise the alert of a finding again if it is about `count` of `what` by now, and its last
    alert, or the decision since, told of half as many or fewer; of `each`, of fewer.

    To be called whenever some were given to it, with its text up to date; the first time only
    notes how many its alert has told.
    """
    this = finding_table.c.finding_id == finding_id
    row = connection.execute(select(finding_table).where(this)).one()
    told = row.detail.get(TOLD_COUNT, 0)
    if count < max(1, told + 1 if each else 2 * told):
        return
    connection.execute(
        update(finding_table).where(this).values(detail={**row.detail, TOLD_COUNT: count})
    )
    if row.times_seen > 1:
        raise_alert(
            connection,
            key=f"finding/{finding_id}/{count}",
            title=f"Finding {finding_id} has grown: {row.summary}",
            body=f"{row.summary}\nIt holds {count} {what} by now, more than were told before.\n"
            f"{row.kept}\n{next_step(row.kind)}",
            severity=row.severity,
        )


def _with_told_count(detail: dict[str, Any]) -> ColumnElement[Any]:
    """A new detail, which keeps of the old one how many were told."""
    told = func.jsonb_build_object(TOLD_COUNT, finding_table.c.detail[TOLD_COUNT])
    return literal(detail, JSONB).concat(func.jsonb_strip_nulls(told, type_=JSONB))


def close_finding(
    connection: Connection, finding_id: int, by: Literal["decision", "system"]
) -> None:
    """Close an open finding; closing a closed one changes nothing."""
    connection.execute(
        update(finding_table)
        .where(finding_table.c.finding_id == finding_id, finding_table.c.state == "open")
        .values(state="closed", closed_at=func.now(), closed_by=by)
    )


def close_if_open(connection: Connection, kind: str, source: str, subject: str) -> None:
    """Close the open finding about `subject`, if there is one, because its cause went away."""
    connection.execute(
        update(finding_table)
        .where(
            finding_table.c.kind == kind,
            finding_table.c.source == source,
            finding_table.c.subject == subject,
            finding_table.c.state == "open",
        )
        .values(state="closed", closed_at=func.now(), closed_by="system")
    )


def _ever_opened(connection: Connection, finding: Finding) -> int | None:
    return connection.scalar(
        select(finding_table.c.finding_id)
        .where(
            finding_table.c.kind == finding.kind,
            finding_table.c.source == finding.source,
            finding_table.c.subject == finding.subject,
        )
        .limit(1)
    )
