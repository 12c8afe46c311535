"""Payouts that wait for a person: let them go, send them again, or say what became of them.

A decision is about the payouts that its finding holds, or those of them that it names: their rows
are locked in the order of their ids, as whoever sends locks them.  Whoever names none says what
there was to be seen, or how many: if the finding holds something else by then, the decision is
refused.  The finding is closed when it holds none any more.

To give up a larger amount takes two people: the first one's decision is only recorded, and carried
out when another one takes the same for the same payouts; any other decision about the finding takes
it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Row,
    Table,
    Text,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.warehouse.database import array_literal
from include.warehouse.decisions.answers import Answer, Change, Decide, DecisionRefused
from include.warehouse.decisions.seen import Held, Sum, add_up, digest_of, refuse_unseen
from include.warehouse.findings import TOLD_COUNT, close_finding
from include.warehouse.tables import attempt, attempt_item, credit, decision, finding
from include.warehouse.tables import transaction as payout

CREDITS = "prediction"
"""Where payouts come from (`origin_source`) that are credits of a market."""
MARKET_HELD = "market_held"
"""Why payouts are held that credit a market which is held since."""

_IDS_RECORDED = 1000
_EXAMPLES = 10
_LEFT = " Left to decide: "
_AMOUNT_DIGITS = 5
"""Amounts are in hundred-thousandths of their currency."""

# The ids that a decision is about; in a table, since there may be a million.
_chosen = Table(
    "chosen",
    MetaData(),
    Column("transaction_id", Text(collation="C"), primary_key=True),
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
_IS_CHOSEN = payout.c.transaction_id == _chosen.c.transaction_id
_RELEASED = {"hold_reason": None, "hold_detail": None, "hold_finding_id": None}


_HOLD_WITH_MARKET = text(f"""
UPDATE wallet.transaction AS payout
SET hold_reason = '{MARKET_HELD}', hold_finding_id = held.finding_id,
    hold_detail = format('Market %s is held: decide its finding.', held.market_id),
    released_at = clock_timestamp(), evidence = NULL
FROM chosen, prediction.credit
JOIN prediction.held_market AS held USING (market_id)
WHERE payout.transaction_id = chosen.transaction_id AND payout.origin_source = '{CREDITS}'
    AND credit.settlement_id = payout.origin_key AND credit.state = 'sending'
    AND payout.hold_reason NOT IN ('in_doubt', 'contested', 'unclear')
""")


class NothingHeld(DecisionRefused):
    """The finding holds no payout any more."""

    def __init__(self, finding_id: int) -> None:
        super().__init__(
            f"Finding {finding_id} holds no payout any more: the wallet has answered meanwhile, or "
            "they are held for another reason, which another finding tells.",
            "Nothing is left to decide about it; it closes by itself.",
        )


def close_if_nothing_is_held(connection: Connection, asked: Row[Any]) -> None:
    """Close a finding of payouts that holds none any more: its cause went away by itself."""
    if not _holds_any(connection, asked.finding_id):
        close_finding(connection, asked.finding_id, "system")


def held_by(connection: Connection, finding_ids: Collection[int]) -> dict[int, Held]:
    """What each of these findings holds now: what is to be shown to whoever decides about it."""
    return _held(connection, finding_ids, payout.c.hold_finding_id.in_(finding_ids))


def _held(
    connection: Connection, finding_ids: Collection[int], these: ColumnElement[bool]
) -> dict[int, Held]:
    found = connection.execute(
        select(
            payout.c.hold_finding_id,
            payout.c.currency,
            func.count().label("payouts"),
            func.sum(payout.c.amount).label("amount"),
            digest_of(payout.c.transaction_id, payout.c.amount).label("digest"),
        )
        .where(these, payout.c.hold_reason.is_not(None))
        .group_by(payout.c.hold_finding_id, payout.c.currency)
        .order_by(payout.c.hold_finding_id, payout.c.currency)
    )
    sums = (
        Sum(row.hold_finding_id, row.currency, row.payouts, _in_units(row.amount), row.digest)
        for row in found
    )
    return add_up("payouts", finding_ids, sums)


# --- the decisions ------------------------------------------------------------------------------


def _keep(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    before = _choose(connection, asked, answer)
    return Change(before, _state(connection), closes_finding=False)


def _release(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Let them be sent; what limits how often counts anew.

    The evidence of a refusal goes from the payout, and stays with the attempt that it came from.
    What credits a market that is held waits for that, unless it may be booked already.
    """
    before = _choose_seen(connection, asked, answer)
    if "unsignable" in before["hold_reasons"]:
        raise DecisionRefused(
            f"{before['hold_reasons']['unsignable']} of these payouts cannot be signed safely, and "
            "would be held again at once.",
            "Have them entered correctly under other ids, then decide lost for these.",
        )
    connection.execute(_HOLD_WITH_MARKET)
    return _move(
        connection,
        asked,
        before,
        {"released_at": func.clock_timestamp(), "evidence": None},
        payout.c.hold_reason != MARKET_HELD,
    )


def _confirm(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The partner says that it has paid them."""
    if not (answer.reference or "").strip():
        raise DecisionRefused(
            "To book payouts as processed takes the partner's confirmation.",
            "Give its number, mail or file in `reference`.",
        )
    before = _choose_seen(connection, asked, answer)
    _refuse_never_sent(connection)
    evidence = func.jsonb_build_object(
        *("decision_id", answer.decision_id, "reference", answer.reference),
        *("decided_by", answer.decided_by),
    )
    return _move(connection, asked, before, {"disposition": "processed", "evidence": evidence})


def _pay_otherwise(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """The operator has paid what the wallet refused: it is acknowledged like any other credit."""
    if not (answer.reference or "").strip():
        raise DecisionRefused(
            "To book credits as paid otherwise takes the operator's own reference of the payment.",
            "Give it in `reference`.",
        )
    before = _choose_seen(connection, asked, answer)
    evidence = func.jsonb_build_object(
        *("paid_otherwise", answer.reference, "decision_id", answer.decision_id),
        *("decided_by", answer.decided_by),
    )
    change = _move(connection, asked, before, {"disposition": "processed", "evidence": evidence})
    connection.execute(
        update(credit)
        .where(credit.c.settlement_id == payout.c.origin_key, credit.c.state == "sending")
        .where(credit.c.transaction_id == payout.c.transaction_id, _IS_CHOSEN)
        .values(
            state="acknowledged",
            acknowledged_at=func.now(),
            acknowledged_by=answer.decided_by,
            reference=answer.reference,
        )
    )
    return change


def _give_up(connection: Connection, asked: Row[Any], answer: Answer) -> Change:
    """Not to be paid; with the refusal, if it was refused for its own sake.  A credit of a market
    is never lost: it is owed.
    """
    before = _choose_seen(connection, asked, answer)
    _refuse_under_way(connection)
    first_decision_id = None
    if _takes_two(connection, asked, answer, before):
        first_decision_id = _first_decision(connection, asked, answer, before)
        if first_decision_id is None:
            return Change(
                before, _state(connection), closes_finding=False, awaits_second_person=True
            )
    evidence: ColumnElement[Any] = func.jsonb_build_object(
        "decision_id", answer.decision_id, "decided_by", answer.decided_by, type_=JSONB
    )
    if asked.kind == "refusals_held":
        evidence = evidence.concat(
            func.jsonb_build_object(
                *("attempt_id", payout.c.evidence["attempt_id"]),
                *("code", payout.c.evidence["code"]),
                type_=JSONB,
            )
        )
    is_credit = payout.c.origin_source.is_not_distinct_from(CREDITS)
    connection.execute(
        update(payout)
        .where(_IS_CHOSEN, is_credit)
        .values(
            hold_reason="owed",
            hold_detail=f"given up by decision {answer.decision_id}",
            hold_finding_id=None,
            evidence=evidence,
        )
    )
    lost = {"disposition": "lost", "evidence": evidence}
    change = _move(connection, asked, before, lost, ~is_credit)
    return change._replace(first_decision_id=first_decision_id)


# --- which payouts ------------------------------------------------------------------------------


def _is_held_by(finding_id: int) -> ColumnElement[bool]:
    """Held, and so open, as a constraint has it; the reason says no more, but is in the index."""
    return and_(payout.c.hold_finding_id == finding_id, payout.c.hold_reason.is_not(None))


def _holds_any(connection: Connection, finding_id: int) -> bool:
    return bool(connection.scalar(select(exists().where(_is_held_by(finding_id)))))


def _choose_seen(connection: Connection, asked: Row[Any], answer: Answer) -> dict[str, Any]:
    """The same for a decision that changes something: only about what the person has seen."""
    before = _choose(connection, asked, answer)
    if "transaction_ids" not in answer.parameters:
        held = _held(connection, [asked.finding_id], _IS_CHOSEN)[asked.finding_id]
        refuse_unseen(asked.finding_id, answer.parameters, held)
    return before


def _choose(connection: Connection, asked: Row[Any], answer: Answer) -> dict[str, Any]:
    """Lock what the decision is about, from now on in the table `chosen`; gives how it stands."""
    named = answer.parameters.get("transaction_ids")
    held = _is_held_by(asked.finding_id)
    if named is not None:
        listed = text("CAST(:named AS text[])").bindparams(named=array_literal(named))
        held &= payout.c.transaction_id == func.any(listed)
    _chosen.create(connection)
    found = connection.execute(
        insert(_chosen).from_select(
            [_chosen.c.transaction_id],
            select(payout.c.transaction_id)
            .where(held)
            .order_by(payout.c.transaction_id)
            .with_for_update(),
        )
    ).rowcount
    if not found and (named is None or not _holds_any(connection, asked.finding_id)):
        raise NothingHeld(asked.finding_id)
    if named is not None:
        _refuse_strangers(connection, asked.finding_id, named)
    return _state(connection) | _identity(connection)


def _refuse_strangers(connection: Connection, finding_id: int, named: Collection[str]) -> None:
    known = set(connection.scalars(select(_chosen.c.transaction_id)))
    strangers = sorted(set(named) - known)
    if strangers or not named:
        raise DecisionRefused(
            f"Finding {finding_id} does not hold {_listed(strangers)}."
            if strangers
            else "No payout was named.",
            "Give in `transaction_ids` payouts that it holds, or leave it empty for all of them "
            "and say what you have seen in `seen` or `payouts`.",
        )


def _listed(ids: Collection[str]) -> str:
    shown = ", ".join(sorted(ids)[:_EXAMPLES])
    return f"{shown} and {len(ids) - _EXAMPLES} more" if len(ids) > _EXAMPLES else shown


def _state(connection: Connection) -> dict[str, Any]:
    """How the chosen payouts stand: how many, and what they come to in units of each currency."""
    count, amounts, dispositions, holds = 0, Counter[str](), Counter[str](), Counter[str]()
    for row in connection.execute(
        select(
            payout.c.currency,
            payout.c.disposition,
            payout.c.hold_reason,
            func.count().label("payouts"),
            func.sum(payout.c.amount).label("amount"),
        )
        .where(_IS_CHOSEN)
        .group_by(payout.c.currency, payout.c.disposition, payout.c.hold_reason)
    ):
        count += row.payouts
        amounts[row.currency] += row.amount
        dispositions[row.disposition] += row.payouts
        if row.hold_reason is not None:
            holds[row.hold_reason] += row.payouts
    return {
        "count": count,
        "amounts": {name: _in_units(amount) for name, amount in sorted(amounts.items())},
        "dispositions": dict(dispositions),
        "hold_reasons": dict(holds),
    }


def _in_units(amount: Decimal | int) -> str:
    return str(Decimal(amount).scaleb(-_AMOUNT_DIGITS))


def _identity(connection: Connection) -> dict[str, Any]:
    """Which payouts they are: the first of them by id, and a digest of all in that order."""
    return {
        "transaction_ids": list(
            connection.scalars(
                select(_chosen.c.transaction_id)
                .order_by(_chosen.c.transaction_id)
                .limit(_IDS_RECORDED)
            )
        ),
        "transaction_ids_sha256": connection.scalar(
            text(
                "SELECT encode(sha256(string_agg(sha256(convert_to(transaction_id, 'UTF8')), ''"
                " ORDER BY transaction_id)), 'hex') FROM chosen"
            )
        ),
    }


# --- what they become ---------------------------------------------------------------------------


def _move(
    connection: Connection,
    asked: Row[Any],
    before: dict[str, Any],
    values: dict[str, Any],
    concerned: ColumnElement[bool] | None = None,
) -> Change:
    """No longer held, with `values`; of those chosen only the `concerned`, if that is given.  What
    the finding still holds it goes on to tell.
    """
    these = _IS_CHOSEN if concerned is None else _IS_CHOSEN & concerned
    connection.execute(update(payout).where(these).values(**_RELEASED, **values))
    is_left = _holds_any(connection, asked.finding_id)
    if is_left:
        _tell_what_is_left(connection, asked)
    return Change(before, _state(connection), closes_finding=not is_left)


def _tell_what_is_left(connection: Connection, asked: Row[Any]) -> None:
    """Have the finding say what it still holds, behind what it has told so far."""
    held = held_by(connection, [asked.finding_id])[asked.finding_id]
    examples = connection.scalars(
        select(payout.c.transaction_id)
        .where(_is_held_by(asked.finding_id))
        .order_by(payout.c.transaction_id)
        .limit(_EXAMPLES)
    ).all()
    left = {"count": held.count, "amounts": held.amounts, "examples": list(examples)}
    told = asked.summary.partition(_LEFT)[0]
    connection.execute(
        update(finding)
        .where(finding.c.finding_id == asked.finding_id)
        .values(
            summary=f"{told}{_LEFT}{held.count} payouts, {held.describe_amounts()}.",
            detail={**asked.detail, "left": left, TOLD_COUNT: held.count},
        )
    )


# --- what is refused ----------------------------------------------------------------------------


def _refuse_never_sent(connection: Connection) -> None:
    was_sent = exists().where(attempt_item.c.transaction_id == _chosen.c.transaction_id)
    count, first = connection.execute(
        select(func.count(), func.min(_chosen.c.transaction_id)).where(~was_sent)
    ).one()
    if count:
        raise DecisionRefused(
            f"{count} of these payouts were in no request, the first of them {first}: the partner "
            "cannot have paid what it was not sent.",
            "Name in `transaction_ids` only those that were sent.",
        )


def _refuse_under_way(connection: Connection) -> None:
    """What may still reach the wallet is not given up: it could be paid afterwards."""
    under_way = connection.execute(
        select(
            func.count(_chosen.c.transaction_id.distinct()).label("payouts"),
            func.min(attempt.c.attempt_id).label("attempt_id"),
            func.max(attempt.c.deadline_at).label("deadline_at"),
        )
        .join(attempt_item, attempt_item.c.transaction_id == _chosen.c.transaction_id)
        .join(attempt, attempt.c.attempt_id == attempt_item.c.attempt_id)
        .where(or_(attempt.c.result.is_(None), attempt.c.deadline_at > func.clock_timestamp()))
    ).one()
    if under_way.payouts:
        raise DecisionRefused(
            f"{under_way.payouts} of these payouts are in a request to the wallet that is not over "
            f"(attempt {under_way.attempt_id}): it may still pay them.",
            f"Decide again after {under_way.deadline_at:%Y-%m-%d %H:%M:%S} UTC, when the run that "
            "sends has ended; if none is under way, the next one closes the request.",
        )


# --- two people ---------------------------------------------------------------------------------


def _takes_two(
    connection: Connection, asked: Row[Any], answer: Answer, before: dict[str, Any]
) -> bool:
    """Whether it is too much for one person, with what was given up of this finding by one alone:
    else many small decisions would pass where one large would not.
    """
    amounts = {currency: Decimal(amount) for currency, amount in before["amounts"].items()}
    for given_up in connection.scalars(
        select(decision.c.state_before["amounts"]).where(
            decision.c.finding_id == asked.finding_id,
            decision.c.decision == "lost",
            ~decision.c.awaits_second_person,
            decision.c.first_decision_id.is_(None),
        )
    ):
        for currency in amounts.keys() & given_up.keys():
            amounts[currency] += Decimal(given_up[currency])
    return any(amount > answer.second_person_above for amount in amounts.values())


def _first_decision(
    connection: Connection, asked: Row[Any], answer: Answer, before: dict[str, Any]
) -> int | None:
    """Another person's decision that is the same; None if this one is the first."""
    of_finding = decision.c.finding_id == asked.finding_id
    taken_back = select(func.coalesce(func.max(decision.c.decision_id), 0)).where(
        of_finding, decision.c.decision != "lost"
    )
    same = {name: before[name] for name in ("count", "amounts", "transaction_ids_sha256")}
    waiting = connection.execute(
        select(decision.c.decision_id, decision.c.decided_by).where(
            of_finding,
            decision.c.awaits_second_person,
            decision.c.state_before.contains(same),
            decision.c.decision_id > taken_back.scalar_subquery(),
        )
    ).all()
    for first in waiting:
        if first.decided_by.casefold() != answer.decided_by.casefold():
            return int(first.decision_id)
    if waiting:
        raise DecisionRefused(
            f"{waiting[0].decided_by} has already decided so (decision {waiting[0].decision_id}), "
            "and so much takes two people.",
            "Ask another person to take the same decision, with the same `transaction_ids`.",
        )
    return None


DECISIONS: dict[tuple[str, str], Decide] = {
    ("transactions_held", "keep"): _keep,
    ("transactions_held", "release_hold"): _release,
    ("transactions_held", "lost"): _give_up,
    **{
        (kind, name): decide
        for kind in ("transactions_in_doubt", "transactions_contested", "transactions_unclear")
        for name, decide in {
            "keep": _keep,
            "send_again": _release,
            "processed": _confirm,
            "lost": _give_up,
        }.items()
    },
    ("refusals_held", "keep"): _keep,
    ("refusals_held", "send_again"): _release,
    ("refusals_held", "lost"): _give_up,
    ("credits_refused", "keep"): _keep,
    ("credits_refused", "send_again"): _release,
    ("credits_refused", "paid_otherwise"): _pay_otherwise,
}

KINDS_ABOUT_PAYOUTS = frozenset(kind for kind, _ in DECISIONS)
