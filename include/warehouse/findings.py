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
    """A sort of finding: how bad it is, what it means, which decisions answer it, and what each of
    them does.

    `meaning` is a sentence: what happened, what is kept, and what waits.  Those in `revised` may be
    taken anew, with another content, after one has closed the finding.
    """

    severity: Severity
    meaning: str
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
        "A page that came cannot be read: its bytes are kept, what came earlier goes on, and "
        "the feed waits.",
        {
            "try_again": "The feed asks for the same page again in its next run.",
            "skip_page": "The feed goes on behind the page (after the entry named in "
            "`continue_from`, or the last id that can be read in the page's bytes); a gap is "
            "recorded.",
        },
    ),
    "undecodable_answer": Kind(
        "critical",
        "An answer of tote cannot be read, since a bet in it is missing or broken: its bytes "
        "are kept, what came earlier goes on, and nothing more is asked for.",
        {
            "try_again": "The same is asked for again in the next run.",
            "skip_page": "Bets that were asked for by their ids are asked for one by one; one that "
            "was alone is asked for again after a day, and a window of the list is passed over. "
            "What is then not known is recorded as a gap.",
        },
    ),
    "cursor_refused": Kind(
        "critical",
        "The provider refuses to read on after the entry at which the feed stands, though it "
        "answers without a cursor: everything up to that entry is kept and goes on, and the "
        "feed waits.",
        {
            "try_again": "The feed asks with the same cursor again in its next run.",
            "move_cursor": "The feed goes on after the entry named in `continue_from`, which must "
            "be given: an earlier entry that the provider still knows, or else a later one; what "
            "is then not read is recorded as a gap.",
        },
    ),
    "batch_held": Kind(
        "critical",
        "A check found a delivery wrong: all that arrived is kept, nothing of that batch is "
        "published, and later batches go on.",
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
        "Records cannot be read, or break a rule: their exact text is kept, they wait, and the "
        "others of their batch go on.",
        {
            "replay": "The records are tried again as a new batch: after a fix.",
            "discard": "The records are given up; they stay in raw.",
        },
    ),
    "settlement_contested": Kind(
        "critical",
        "A provider tells several contents of one decision: all are kept, and if no later "
        "decision stands, the subject stays outside of finance's totals.",
        {
            "choose_version": "The version named in `record_id` counts, and no other. Decided "
            "anew, with the number of the finding that it has closed, another one counts instead."
        },
        revised=frozenset({"choose_version"}),
    ),
    "gap": Kind(
        "warning",
        "Records of a range may be missing: what did arrive is kept and goes on, finance is "
        "told of the range, and nothing else waits.",
        {
            "accept_gap": "What is missing stays missing; the range is closed as accepted.",
            "try_again": "The range is asked for again: its subjects one by one, or, with "
            "`continue_from`, every page after that entry.",
        },
    ),
    "transactions_held": Kind(
        "critical",
        "Payouts are held before they were sent, since they may not be what is meant: they are "
        "kept as they were first entered and wait, and all others go on.",
        {
            **_KEEP,
            "release_hold": "The next run sends them, as they were first entered; not for those "
            "that cannot be signed.",
            **_LOST,
        },
    ),
    "transactions_in_doubt": Kind(
        "critical",
        "Payouts were sent as often as they may be, and no answer says what became of them: "
        "they may be paid, every attempt is kept, they wait, and all others go on.",
        _UNKNOWN_FATE,
    ),
    "transactions_contested": Kind(
        "critical",
        "What the wallet answered about payouts does not fit together: they may be paid, every "
        "answer is kept, they wait, and all others go on.",
        _UNKNOWN_FATE,
    ),
    "transactions_unclear": Kind(
        "critical",
        "The wallet refused payouts in a way that is not known: every answer is kept, they "
        "wait, and all others go on.",
        _UNKNOWN_FATE,
    ),
    "refusals_held": Kind(
        "critical",
        "The wallet refused too many payouts alike for that to be taken for true: none of them "
        "is lost or sent again, and nothing more in their currency is sent.",
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
        "The wallet does not pay credits of markets: the operator still owes them, every "
        "answer is kept, and nothing of them is sent by itself.",
        {
            **_KEEP,
            "send_again": "The next run sends them again: after the partner has corrected what it "
            "refused them for. A partner that does not keep transactionIds would pay twice what it "
            "has paid all the same.",
            "paid_otherwise": "The operator has paid their players otherwise; `reference`, which "
            "must be given, names how. They are never sent again.",
        },
    ),
    "credits_held": Kind(
        "critical",
        "Credits cannot be made as they stand, for their player, currency, amount or id: they "
        "are kept, nobody was told of them, and all others go on.",
        _CREDITS_HELD,
    ),
    "credit_changed": Kind(
        "critical",
        "Settlements say something else than when their credits were made, of which nobody was "
        "told yet: these are kept and wait, and all others go on.",
        _CREDITS_HELD,
    ),
    "credits_owed": Kind(
        "warning",
        "Credits were made before the settings said how the wallet is told of them: they stay "
        "owed, and none of them is sent by itself.",
        {
            "send_owed": "The next run of settle_markets enters them into the outbox. The operator "
            "must not pay them as well.",
        },
    ),
    "credit_adjusted": Kind(
        "critical",
        "Settlements say something else since their credits were sent or paid: that stays as "
        "it is, and a person pays the difference or takes it back.",
        _ACKNOWLEDGE,
    ),
    "credit_doubled": Kind(
        "critical",
        "Several completed settlements are of one position, or the one that was credited was "
        "taken back: all are kept, at most one is credited, and a person pays the difference "
        "or takes it back.",
        _ACKNOWLEDGE,
    ),
    "paid_twice": Kind(
        "critical",
        "The wallet has paid what the operator had paid otherwise: that stays acknowledged, "
        "the answer is kept, and a person takes one of the two back.",
        _ACKNOWLEDGE,
    ),
    "paid_though_lost": Kind(
        "critical",
        "The wallet has paid what was given up as lost: it stays lost, the answer is kept, and "
        "a person corrects the books.",
        _ACKNOWLEDGE,
    ),
    "answer_foreign": Kind(
        "warning",
        "The wallet answered payouts that were not in the request: the answers are kept, "
        "nothing is concluded from them, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "transactions_changed": Kind(
        "warning",
        "Another content came for payouts after they were sent: what was sent counts, the "
        "other content is kept, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "lines_rejected": Kind(
        "warning",
        "Lines of an imported file are not what they should be: each is kept with its number "
        "and the reason, the other lines are entered, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "record_conflict": Kind(
        "warning",
        "The provider sent a record again with another content: every content is kept and goes "
        "on as a version of its own, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "chain_broken": Kind(
        "warning",
        "Decisions do not follow from what came before, since an earlier one is missing or "
        "differs: they are published as they were sent, marked for finance (`chain_break`), "
        "and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "payout_differs": Kind(
        "warning",
        "Wins pay something else than stake times multiplier: they are published as they were "
        "sent, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "unknown_field": Kind(
        "info",
        "The provider sends a field that its documentation does not have: it is kept in raw "
        "with every record and used nowhere else, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "feed_late": Kind(
        "critical",
        "A feed has not been read to its end for too long: what had arrived is kept, and what "
        "was settled since is missing until it is.",
        _ACKNOWLEDGE,
    ),
    "connections_refused": Kind(
        "warning",
        "The provider refuses connections that should be allowed, mostly since another system "
        "uses our account: what had arrived is kept, and the feed waits until the provider's "
        "limit has passed.",
        _ACKNOWLEDGE,
    ),
    "listing_incomplete": Kind(
        "warning",
        "tote counts other bets in a window of its list than it gives: those that it gives go "
        "on, and the list waits there; each run lists the window anew.",
        {
            "skip_window": "The list goes on behind the window; what was not listed in it is "
            "recorded as a gap.",
        },
    ),
    "totals_differ": Kind(
        "warning",
        "tote's own sums are not those of the bets that it gives: every bet goes on as it was "
        "told, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "bets_absent": Kind(
        "warning",
        "tote leaves bets of the register out of its answers, or fails for them: they stay in "
        "the register, are asked for less and less often, and nothing else waits.",
        {
            **_ACKNOWLEDGE,
            "give_up": "Those that were never told are not asked for any more.",
        },
    ),
    "bets_open_long": Kind(
        "warning",
        "Bets of tote are open for very long: they are asked for as before, and nothing else "
        "waits.",
        _ACKNOWLEDGE,
    ),
    "hints_differ": Kind(
        "warning",
        "tote's socket told another amount than its answers: the messages are kept, the "
        "answers count, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "hints_unconfirmed": Kind(
        "warning",
        "tote's socket told what its answers have not shown in time: the messages are kept, "
        "the answers count, and nothing waits.",
        _ACKNOWLEDGE,
    ),
    "window_closing": Kind(
        "critical",
        "A stream is not read on, and soon will not tell again what it told since: what had "
        "arrived is kept, and the rest is lost unless its DAG succeeds in time.",
        _ACKNOWLEDGE,
    ),
    "stream_unfinished": Kind(
        "warning",
        "A stream, or the audit that finds what it told late, cannot be read to its end by the "
        "longest session there is: what had arrived is kept and goes on, and what was not told "
        "may be lost after 3 days.",
        _ACKNOWLEDGE,
    ),
    "batch_stuck": Kind(
        "warning",
        "A batch does not get on: all that arrived is kept, and nothing of it is published "
        "until a run finishes it.",
        _ACKNOWLEDGE,
    ),
    "payouts_late": Kind(
        "critical",
        "Payouts that were due are still to be sent: they are kept in the outbox, and wait for "
        "a run of `resend_settlements`.",
        _ACKNOWLEDGE,
    ),
    "market_held": Kind(
        "critical",
        "A market's list does not add up: all that was told is kept, nothing of the list is "
        "credited, nor published unless the finding says so; what was credited before and is not "
        "paid waits as well, and other markets go on.",
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
        "Positions of a market failed and were retried as often as they may be: what is "
        "completed is published and credited, and those wait.",
        {
            "try_again": "Its failed positions are retried, as often as at first.",
            **_ACKNOWLEDGE,
        },
    ),
    "market_stuck": Kind(
        "critical",
        "A market is under way and nothing of it has changed, or could be read, for too long: "
        "what is completed is published and credited as far as its list adds up, and the rest "
        "waits.",
        {
            "try_again": "It is looked at again from the next run on.",
            **_SETTLE_AGAIN,
            **_ACKNOWLEDGE,
        },
    ),
    "market_refused": Kind(
        "critical",
        "The engine does not settle a market, or tells that one is resolved which was refused "
        "or withdrawn: it waits, and other markets go on.",
        {
            "try_again": "It is ordered to be settled again in the next run.",
            "withdraw": "It leaves the queue and is not settled from here; what was published of "
            "it stays.",
        },
    ),
    "market_flagged": Kind(
        "warning",
        "A market adds up and is worth a look all the same: it is published and credited, and "
        "nothing waits.",
        _ACKNOWLEDGE,
    ),
    "markets_unconfirmed": Kind(
        "warning",
        "Markets were entered and nothing says that they are resolved: they stay in the queue "
        "and wait.",
        _ACKNOWLEDGE,
    ),
    "markets_late": Kind(
        "critical",
        "Markets wait though it is time for them: they stay in the queue, and wait for "
        "`settle_markets` or the engine.",
        _ACKNOWLEDGE,
    ),
    "credits_late": Kind(
        "warning",
        "Credits of markets wait for too long to be sent: they are kept in the outbox, and "
        "nothing is sent twice.",
        _ACKNOWLEDGE,
    ),
    "events_closing": Kind(
        "critical",
        "The engine's events were not read to their end for long, and it keeps them for a day: "
        "what was read is kept, and markets whose events are lost have to be entered by hand.",
        _ACKNOWLEDGE,
    ),
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
    is_told: bool = True,
) -> bool:
    """Raise the alert of a finding again if it is about `count` of `what` by now, and its last
    alert, or the decision since, told of half as many or fewer; of `each`, of fewer.

    To be called whenever some were given to it, with its text up to date; the first time only
    notes how many its alert has told.  Returns whether it was the first time or one for an alert;
    without `is_told` the caller raises that.
    """
    this = finding_table.c.finding_id == finding_id
    row = connection.execute(select(finding_table).where(this)).one()
    told = row.detail.get(TOLD_COUNT, 0)
    if count < max(1, told + 1 if each else 2 * told):
        return False
    connection.execute(
        update(finding_table).where(this).values(detail={**row.detail, TOLD_COUNT: count})
    )
    if row.times_seen > 1 and is_told:
        raise_alert(
            connection,
            key=f"finding/{finding_id}/{count}",
            title=f"Finding {finding_id} has grown: {row.summary}",
            body=f"{row.summary}\nIt holds {count} {what} by now, more than were told before.\n"
            f"{row.kept}\n{next_step(row.kind)}",
            severity=row.severity,
        )
    return True


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
