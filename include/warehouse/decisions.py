"""Decisions: a person's answer to a finding, carried out and recorded in one transaction.

The source's lock is the one that landing and publishing take, so nothing moves while an answer is
checked against how things stand now.  Whatever is refused changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Table,
    and_,
    column,
    delete,
    func,
    insert,
    select,
    update,
)

from include.warehouse import batches
from include.warehouse.cursors import is_behind
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import KINDS, close_finding
from include.warehouse.landing import Gap, open_gap_finding
from include.warehouse.publishing import recompute_subjects
from include.warehouse.tables import (
    batch,
    cursor,
    decision,
    finding,
    gap,
    page,
    quarantine,
    settlement,
    staging_settlement,
    staging_settlement_leg,
)


class DecisionRefused(Exception):
    """The decision does not fit how things stand; nothing was changed."""

    def __init__(self, happened: str, next_step: str) -> None:
        super().__init__(f"{happened} Nothing was changed. {next_step}")


@dataclass(frozen=True)
class Resolution:
    """A decision that was carried out; `before` and `after` are what it changed, as recorded."""

    decision_id: int
    finding_id: int
    kind: str
    source: str
    decision: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class _Answer:
    """What the person gave beside the decision's name."""

    parameters: dict[str, Any]
    run_id: str | None

    def text(self, name: str) -> str | None:
        """A parameter as text; None if it is absent or blank."""
        return str(self.parameters.get(name, "")).strip() or None


class _Change(NamedTuple):
    """What a decision changed, as it was and as it is."""

    before: dict[str, Any]
    after: dict[str, Any]


def resolve(
    engine: Engine,
    finding_id: int,
    decision_name: str,
    *,
    decided_by: str,
    reason: str,
    reference: str | None,
    parameters: Mapping[str, Any],
    run_id: str | None,
) -> Resolution:
    """Carry out `decision_name` on an open finding, record it and close the finding.

    `parameters` may hold `record_id` (choose_version) and `continue_from` (skip_page, move_cursor,
    and try_again of a gap).  Raises `DecisionRefused` if the finding is not open, its kind does not
    know the decision, or what it is about has moved on.
    """
    if not reason.strip() or not decided_by.strip():
        raise DecisionRefused(
            "A decision needs a name and a reason.", "Trigger resolve_findings with both."
        )
    given = {name: value for name, value in parameters.items() if value is not None}
    with transaction(engine, "resolver") as connection:
        asked = _lock_finding(connection, finding_id)
        if decision_name not in KINDS[asked.kind].decisions:
            raise DecisionRefused(
                f"Finding {finding_id} is a {asked.kind}, which has no decision {decision_name!r}.",
                f"Choose one of: {', '.join(KINDS[asked.kind].decisions)}.",
            )
        change = _decision(asked.kind, decision_name)(connection, asked, _Answer(given, run_id))
        decision_id = connection.execute(
            insert(decision)
            .values(
                finding_id=finding_id,
                decision=decision_name,
                decided_by=decided_by.strip(),
                reason=reason.strip(),
                reference=reference,
                parameters=given,
                state_before=change.before,
                state_after=change.after,
                run_id=run_id,
            )
            .returning(decision.c.decision_id)
        ).scalar_one()
        close_finding(connection, finding_id, "decision")
    return Resolution(
        decision_id=decision_id,
        finding_id=finding_id,
        kind=asked.kind,
        source=asked.source,
        decision=decision_name,
        before=change.before,
        after=change.after,
    )


def _decision(kind: str, decision_name: str) -> _Decide:
    return _acknowledge if decision_name == "acknowledge" else _DECISIONS[kind, decision_name]


def _lock_finding(connection: Connection, finding_id: int) -> Row[Any]:
    """The open finding, locked after its source and its batch: the order in which gates lock."""
    this = select(finding).where(finding.c.finding_id == finding_id)
    seen = connection.execute(this).first()
    if seen is None:
        raise DecisionRefused(
            f"There is no finding {finding_id}.",
            "Look up the number in the Findings page or in finance.finding_open.",
        )
    lock_source(connection, seen.source)
    if seen.batch_id is not None:
        _lock_batch(connection, seen.batch_id)
    asked = connection.execute(this.with_for_update()).one()
    if asked.state != "open":
        raise DecisionRefused(
            f"Finding {finding_id} is closed already (by {asked.closed_by}, {asked.closed_at}).",
            "If its cause is still there, a new finding says so.",
        )
    return asked


def _lock_batch(connection: Connection, batch_id: int) -> Row[Any]:
    return connection.execute(
        select(batch).where(batch.c.batch_id == batch_id).with_for_update()
    ).one()


def _acknowledge(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    return _Change({}, {})


# --- undecodable_page, cursor_refused -----------------------------------------------------------

_ID = re.compile(rb'"id"\s*:\s*(?:"([^"\\]+)"|(\d+))')


def _ask_page_again(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    stopped = _stopped_cursor(connection, asked)
    before = _as_json(connection, cursor, _is_cursor(stopped))
    connection.execute(update(cursor).where(_is_cursor(stopped)).values(stopped_by_finding_id=None))
    return _Change(before, _as_json(connection, cursor, _is_cursor(stopped)))


def _skip_page(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    stopped = _stopped_cursor(connection, asked)
    asked_after = asked.detail["since_id"]
    named = answer.text("continue_from")
    if named is None and asked.detail.get("is_leap"):
        raise DecisionRefused(
            "To go on after the page's last entry would hide all that comes before that one.",
            "Give in `continue_from` the id of the last entry before the leap.",
        )
    target = named or _last_readable_id(connection, asked)
    if asked_after is not None and (target == asked_after or is_behind(target, asked_after)):
        raise DecisionRefused(
            f"Entry {target} is not behind the page, which begins after entry {asked_after}.",
            "Give in `continue_from` the id of the entry after which reading is to go on.",
        )
    return _go_on_after(
        connection,
        stopped,
        asked_after,
        target,
        f"the page after entry {asked_after or 'none'} could not be decoded and was skipped by a "
        f"decision on finding {asked.finding_id}; it may have held entries up to and including the "
        "last one named.",
    )


def _go_on_after_another(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    stopped = _stopped_cursor(connection, asked)
    refused = asked.detail["since_id"]
    target = answer.text("continue_from")
    if target is None or target == refused:
        raise DecisionRefused(
            f"{'No entry' if target is None else f'Entry {target}'} was named to go on after; the "
            f"provider refuses to read on after {refused}.",
            "Give in `continue_from` the id of another entry that the provider still knows.",
        )
    head = stopped.position.get("since_id")
    if refused != head and head is not None and is_behind(head, target):
        raise DecisionRefused(
            f"It is the second reading that is refused, and entry {target} lies ahead of the "
            f"first, which stands at {head}.",
            "Give in `continue_from` an entry between the two.",
        )
    return _go_on_after(
        connection,
        stopped,
        refused,
        target,
        f"the provider refused to read on after entry {refused}, and by a decision on finding "
        f"{asked.finding_id} reading went on after the last one named; up to and including that "
        "one, what had not been read before, or not a second time, may be missing.",
    )


def _go_on_after(
    connection: Connection, stopped: Row[Any], asked_after: str | None, target: str, reason: str
) -> _Change:
    """Have the stopped feed go on after `target`; what is not read for that becomes a gap."""
    position = _position_after(stopped.position, asked_after, target)
    left_out = Gap(stopped.position.get("reread_since_id", asked_after), target, reason)
    if target == left_out.range_after or is_behind(target, left_out.range_after or ""):
        # It goes back: all from there on is read again, and nothing is left out.
        return _move_cursor(connection, stopped, position)
    gap_id = connection.execute(
        insert(gap)
        .values(
            source=stopped.source,
            feed=stopped.feed,
            range_after=left_out.range_after,
            range_before=left_out.range_before,
            reason=left_out.reason,
        )
        .returning(gap.c.gap_id)
    ).scalar_one()
    open_gap_finding(connection, stopped.source, stopped.feed, gap_id, left_out)
    return _move_cursor(
        connection, stopped, position, {"gap": _as_json(connection, gap, gap.c.gap_id == gap_id)}
    )


def _position_after(
    position: dict[str, Any], asked_after: str | None, target: str
) -> dict[str, Any]:
    """Where reading goes on.  The second reading would be stopped there as well, so it goes on
    after `target` too; what it did not read a second time is part of the gap.
    """
    if asked_after == position.get("since_id"):
        return {**position, "since_id": target, "reread_since_id": target, "anchors": []}
    if asked_after == position.get("reread_since_id"):
        anchors = _anchors_ahead(position.get("anchors", []), target)
        return {**position, "reread_since_id": target, "anchors": anchors}
    raise DecisionRefused(
        f"The feed does not stand there any more: it reads on after {position.get('since_id')}.",
        "Decide try_again.",
    )


def _anchors_ahead(anchors: list[dict[str, Any]], target: str) -> list[dict[str, Any]]:
    """The anchors that a second reading from `target` still comes to."""
    behind = [
        number
        for number, anchor in enumerate(anchors, start=1)
        if anchor["entry_id"] == target or is_behind(anchor["entry_id"], target)
    ]
    return anchors[max(behind, default=0) :]


def _stopped_cursor(connection: Connection, asked: Row[Any]) -> Row[Any]:
    stopped = connection.execute(
        select(cursor)
        .where(
            cursor.c.source == asked.source,
            cursor.c.stopped_by_finding_id == asked.finding_id,
        )
        .with_for_update()
    ).first()
    if stopped is None:
        raise DecisionRefused(
            f"No feed of {asked.source} waits for finding {asked.finding_id} any more.",
            "Look at the other open findings of the source: one of them stops the feed.",
        )
    return stopped


def _is_cursor(stopped: Row[Any]) -> Any:
    return and_(cursor.c.source == stopped.source, cursor.c.feed == stopped.feed)


def _move_cursor(
    connection: Connection,
    moved: Row[Any],
    position: dict[str, Any],
    also_after: dict[str, Any] | None = None,
) -> _Change:
    """Move a cursor, so that a run which is landing meanwhile finds it moved and stops."""
    before = _as_json(connection, cursor, _is_cursor(moved))
    connection.execute(
        update(cursor)
        .where(_is_cursor(moved))
        .values(
            position=position,
            revision=cursor.c.revision + 1,
            moved_at=func.now(),
            stopped_by_finding_id=None,
        )
    )
    after = _as_json(connection, cursor, _is_cursor(moved))
    return _Change(before, {**after, **(also_after or {})})


def _last_readable_id(connection: Connection, asked: Row[Any]) -> str:
    body = connection.scalar(
        select(page.c.body).where(
            page.c.page_id == asked.detail["page_id"],
            page.c.received_at == datetime.fromisoformat(asked.detail["received_at"]),
        )
    )
    found = _ID.findall(bytes(body)) if body is not None else []
    if not found:
        raise DecisionRefused(
            f"No entry's id can be read in page {asked.detail['page_id']}.",
            "Give in `continue_from` the id of the entry after which reading is to go on.",
        )
    quoted, number = found[-1]
    return str((quoted or number).decode("utf-8", "replace"))


# --- batch_held ---------------------------------------------------------------------------------


def _release_batch(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    held = _held_batch(connection, asked)
    # What the raw gate held is not checked there again; the settlement gate always sees it anew,
    # since it is there that the failing rows go to quarantine.
    raw_checked_at = func.now() if held.held_from == "landed" else held.raw_checked_at
    return _move_batch(
        connection,
        held,
        state=held.held_from,
        is_released=True,
        raw_checked_at=raw_checked_at,
        settlements_checked_at=None,
    )


def _try_batch_again(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    held = _held_batch(connection, asked)
    _empty_staging(connection, held.batch_id)
    _close_quarantine_findings(connection, held.batch_id)
    return _move_batch(
        connection,
        held,
        state="landed",
        is_released=False,
        raw_checked_at=None,
        normalized_at=None,
        settlements_checked_at=None,
    )


def _discard_batch(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    held = _held_batch(connection, asked)
    _empty_staging(connection, held.batch_id)
    connection.execute(
        update(quarantine)
        .where(quarantine.c.batch_id == held.batch_id, quarantine.c.state == "open")
        .values(state="discarded")
    )
    _close_quarantine_findings(connection, held.batch_id)
    return _move_batch(connection, held, state="discarded", discarded=held.landed, quarantined=0)


def _held_batch(connection: Connection, asked: Row[Any]) -> Row[Any]:
    held = _lock_batch(connection, asked.batch_id)
    if held.state != "held":
        raise DecisionRefused(
            f"Batch {held.batch_id} is not held any more: it is {held.state}.",
            "Look at its later findings.",
        )
    return held


def _move_batch(connection: Connection, held: Row[Any], **values: Any) -> _Change:
    this = batch.c.batch_id == held.batch_id
    before = _as_json(connection, batch, this)
    batches.move(
        connection, held.batch_id, held_at=None, held_from=None, held_reason=None, **values
    )
    return _Change(before, _as_json(connection, batch, this))


def _empty_staging(connection: Connection, batch_id: int) -> None:
    for table in (staging_settlement_leg, staging_settlement):
        connection.execute(delete(table).where(table.c.batch_id == batch_id))


def _close_quarantine_findings(connection: Connection, batch_id: int) -> None:
    """What was asked about the batch's quarantined records is answered with the batch."""
    connection.execute(
        update(finding)
        .where(
            finding.c.kind == "records_quarantined",
            finding.c.batch_id == batch_id,
            finding.c.state == "open",
        )
        .values(state="closed", closed_at=func.now(), closed_by="decision")
    )


# --- records_quarantined ------------------------------------------------------------------------


def _replay_records(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    origin = _published_batch(connection, asked)
    rows = _quarantined(asked)
    count, first, last = connection.execute(
        select(
            func.count(), func.min(quarantine.c.record_id), func.max(quarantine.c.record_id)
        ).where(rows)
    ).one()
    if not count:
        raise DecisionRefused(
            f"No record of finding {asked.finding_id} is in quarantine any more.",
            "Decide discard to close it.",
        )
    replay_batch_id = connection.execute(
        insert(batch)
        .values(
            source=origin.source,
            feed=origin.feed,
            kind="replay",
            state="landed",
            run_id=answer.run_id,
            landed_at=func.now(),
            received=count,
            landed=count,
            record_id_first=first,
            record_id_last=last,
        )
        .returning(batch.c.batch_id)
    ).scalar_one()
    connection.execute(
        update(quarantine).where(rows).values(state="replayed", replay_batch_id=replay_batch_id)
    )
    return _Change(
        {"quarantined": count, "state": "open"},
        {"quarantined": count, "state": "replayed", "replay_batch_id": replay_batch_id},
    )


def _discard_records(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    _published_batch(connection, asked)
    count = connection.execute(
        update(quarantine).where(_quarantined(asked)).values(state="discarded")
    ).rowcount
    return _Change(
        {"quarantined": count, "state": "open"}, {"quarantined": count, "state": "discarded"}
    )


def _quarantined(asked: Row[Any]) -> Any:
    return and_(
        quarantine.c.batch_id == asked.batch_id,
        quarantine.c.rule == asked.detail["rule"],
        quarantine.c.state == "open",
    )


def _published_batch(connection: Connection, asked: Row[Any]) -> Row[Any]:
    """The batch; its counts must be final before records leave its quarantine."""
    origin = _lock_batch(connection, asked.batch_id)
    if origin.state != "published":
        raise DecisionRefused(
            f"Batch {origin.batch_id} is {origin.state} and not published yet.",
            "If it is held, decide on its finding batch_held first; else decide again when the "
            "next run has published it.",
        )
    return origin


# --- settlement_contested -----------------------------------------------------------------------


def _choose_version(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    source_key = asked.detail["source_key"]
    rivals = and_(
        settlement.c.source == asked.source,
        settlement.c.source_key == source_key,
        settlement.c.provider_order == asked.detail["provider_order"],
    )
    before = _versions(connection, rivals)
    contested = [str(one["record_id"]) for one in before if one["is_contested"]]
    chosen = answer.text("record_id")
    if chosen not in contested:
        raise DecisionRefused(
            f"Record {chosen or '(none given)'} is not one of the contested versions of "
            f"{source_key}.",
            f"Give in `record_id` one of: {', '.join(contested) or 'none is contested any more'}.",
        )
    connection.execute(
        update(settlement)
        .where(rivals, settlement.c.record_id != int(chosen))
        .values(is_rejected_by_decision=True)
    )
    recompute_subjects(connection, asked.source, [source_key])
    return _Change({"versions": before}, {"versions": _versions(connection, rivals)})


def _versions(connection: Connection, rivals: Any) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            settlement.c.record_id,
            settlement.c.version,
            settlement.c.status,
            settlement.c.outcome,
            settlement.c.is_contested,
            settlement.c.is_rejected_by_decision,
        )
        .where(rivals)
        .order_by(settlement.c.record_id)
    )
    return [dict(row) for row in rows.mappings()]


# --- gap ----------------------------------------------------------------------------------------


def _accept_gap(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    this, before = _open_gap(connection, asked)
    connection.execute(update(gap).where(this).values(state="accepted", closed_at=func.now()))
    return _Change(before, _as_json(connection, gap, this))


def _ask_gap_again(connection: Connection, asked: Row[Any], answer: _Answer) -> _Change:
    """Have the next run ask for the range again; if it stays open, `watch_feeds` asks anew."""
    this, before = _open_gap(connection, asked)
    start = answer.text("continue_from")
    if start is None:
        if not before["subjects"]:
            raise DecisionRefused(
                f"Gap {before['gap_id']} has no subjects that could be asked for one by one.",
                "Give in `continue_from` the entry after which every page is to be read again.",
            )
        connection.execute(update(gap).where(this).values(tried_at=None))
        return _Change(before, _as_json(connection, gap, this))
    connection.execute(update(gap).where(this).values(tried_at=func.now()))
    moved = connection.execute(
        select(cursor)
        .where(cursor.c.source == before["source"], cursor.c.feed == before["feed"])
        .with_for_update()
    ).one()
    if moved.stopped_by_finding_id is not None:
        raise DecisionRefused(
            f"The feed is stopped by finding {moved.stopped_by_finding_id}.",
            "Decide on that finding first.",
        )
    change = _move_cursor(connection, moved, _position_to_read_again(moved.position, start))
    return _Change(
        {**change.before, "gap": before},
        {**change.after, "gap": _as_json(connection, gap, this)},
    )


def _position_to_read_again(position: dict[str, Any], start: str) -> dict[str, Any]:
    """The second reading goes back to `start` and reads on to the present head.

    It reads to an anchor once that is old enough.  Where it had caught up, all that is there has
    been seen long enough and it may go at once; else the anchors that are waiting keep their time,
    so that what became visible late is not missed.
    """
    head = position.get("since_id")
    if head is None or start == head or is_behind(head, start):
        raise DecisionRefused(
            f"The feed has not been read beyond entry {start} yet: it stands at {head or 'none'}.",
            "Give in `continue_from` an entry before the gap.",
        )
    reread = position.get("reread_since_id")
    anchors = position.get("anchors", [])
    if not anchors:
        is_caught_up = reread == head
        seen_at = datetime.fromtimestamp(0, UTC) if is_caught_up else datetime.now(UTC)
        anchors = [{"entry_id": head, "seen_at": seen_at.isoformat()}]
    is_ahead = reread is not None and is_behind(reread, start)
    return {**position, "reread_since_id": reread if is_ahead else start, "anchors": anchors}


def _open_gap(connection: Connection, asked: Row[Any]) -> tuple[Any, dict[str, Any]]:
    this = gap.c.gap_id == asked.detail["gap_id"]
    connection.execute(select(gap.c.gap_id).where(this).with_for_update())
    before = _as_json(connection, gap, this)
    if before["state"] != "open":
        raise DecisionRefused(
            f"Gap {before['gap_id']} is not open any more: it is {before['state']}.",
            "Nothing is left to decide about it.",
        )
    return this, before


# --- all ----------------------------------------------------------------------------------------


def _as_json(connection: Connection, table: Table, this: Any) -> dict[str, Any]:
    """One row with all its columns, as it is recorded with the decision."""
    row: dict[str, Any] = connection.execute(
        select(func.to_jsonb(column(table.name))).select_from(table).where(this)
    ).scalar_one()
    return row


_Decide = Callable[[Connection, Row[Any], _Answer], _Change]

_DECISIONS: dict[tuple[str, str], _Decide] = {
    ("undecodable_page", "try_again"): _ask_page_again,
    ("undecodable_page", "skip_page"): _skip_page,
    ("cursor_refused", "try_again"): _ask_page_again,
    ("cursor_refused", "move_cursor"): _go_on_after_another,
    ("batch_held", "release_batch"): _release_batch,
    ("batch_held", "try_again"): _try_batch_again,
    ("batch_held", "discard"): _discard_batch,
    ("records_quarantined", "replay"): _replay_records,
    ("records_quarantined", "discard"): _discard_records,
    ("settlement_contested", "choose_version"): _choose_version,
    ("gap", "accept_gap"): _accept_gap,
    ("gap", "try_again"): _ask_gap_again,
}
