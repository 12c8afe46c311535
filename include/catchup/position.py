"""Where a stream stands, and from when it is to be told again: decisions without a clock or a wire.

A stream is asked for by time.  What was settled before a *safe point* is known to have been told;
every session begins at least an overlap before it, since messages may be late.  There are two:
`caught_up_to`, which only a session that was read to its end moves, and `resume_at`, which one that
was cut short leaves behind if its messages came in order and far enough to begin the next one
there.  What is new is told amid history too, so only history counts for that: what was settled an
overlap before the session began, and had more of it told behind it.  One that leaves none behind
has the bounds of the next doubled.

Once a day an audit begins as far back as the provider tells.  It is a recovery like any other, with
its own resume points, and is given up for the day if even the widest bounds do not help.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self

# Bounds are doubled so many times at most.
DOUBLINGS_LIMIT = 5


@dataclass(frozen=True)
class Terms:
    """What a provider's stream promises, and what we ask of it.

    It tells again what is at most `reach` old, of which `reserve` is left to the clocks; messages
    are late by `overlap` at most; an audit begins at `audit_hour` (UTC), if it is not None.
    """

    reach: timedelta
    reserve: timedelta
    overlap: timedelta
    audit_hour: int | None

    def oldest(self, now: datetime) -> datetime:
        """From when the stream tells again, surely."""
        return now - self.reach + self.reserve


@dataclass(frozen=True)
class Position:
    """Where a stream stands; all times are UTC.

    `caught_up_began_at` is when the last session began that was read to its end, `cut_short` how
    many since were not and leave no point to resume at.  `audited_at` is when the last audit began
    that was read to its end, `auditing_since` when the one under way did, and `audit_given_up_at`
    when the last one did that was given up.
    """

    caught_up_to: datetime | None = None
    caught_up_began_at: datetime | None = None
    resume_at: datetime | None = None
    cut_short: int = 0
    audited_at: datetime | None = None
    auditing_since: datetime | None = None
    audit_given_up_at: datetime | None = None

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """As it is stored in `ops.cursor`; what is not there is None."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {
            name: datetime.fromisoformat(value) if isinstance(value, str) else value
            for name, value in stored.items()
            if name in known
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """For `ops.cursor`: times as ISO 8601; what is None is left out."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in named
            if value is not None
        }

    @property
    def safe_point(self) -> datetime | None:
        """What was settled before it, and is not late by more than the overlap, has been told."""
        return _latest(self.caught_up_to, self.resume_at)

    @property
    def is_new(self) -> bool:
        """Whether no session has left anything behind yet."""
        return self.caught_up_began_at is None and self.resume_at is None


@dataclass(frozen=True)
class Session:
    """What the next session is to do: from when it asks (None: for all there is), and how far it
    may go, as a multiple of the bounds.

    `gap` is a range that is not told again any more.
    """

    began_at: datetime
    since: datetime | None
    is_audit: bool
    bounds: int
    gap: tuple[datetime, datetime] | None = None


@dataclass(frozen=True)
class Seen:
    """What a session was told: the times of its first and of its newest message, and whether none
    was older than the newest before it by more than the overlap.

    `confirmed` is the newest time of what is surely history, the last message of that left aside.
    """

    messages: int = 0
    first: datetime | None = None
    newest: datetime | None = None
    is_in_order: bool = True
    confirmed: datetime | None = None


def place_of(stored: dict[str, Any]) -> str | None:
    """A position as one number that only grows, in Unix seconds; None at the very beginning."""
    safe_point = Position.from_json(stored).safe_point
    return None if safe_point is None else str(int(safe_point.timestamp()))


def next_session(position: Position, now: datetime, terms: Terms) -> Session:
    """What a session that begins now is to do."""
    bounds = 2 ** min(position.cut_short, DOUBLINGS_LIMIT)
    if position.is_new:
        return Session(now, None, is_audit=True, bounds=bounds)
    oldest = terms.oldest(now)
    since = max(_begin(position, now, terms), oldest)
    return Session(
        now,
        since,
        is_audit=since == oldest or position.auditing_since is not None,
        bounds=bounds,
        gap=_gap(position, now, terms),
    )


def after_catching_up(position: Position, session: Session, seen: Seen, now: datetime) -> Position:
    """The position once the session was read to its end."""
    reached = None if seen.newest is None else min(seen.newest, now)
    return replace(
        position,
        caught_up_to=_latest(position.safe_point, reached),
        caught_up_began_at=session.began_at,
        resume_at=None,
        cut_short=0,
        audited_at=_audit_began_at(position, session) or position.audited_at,
        auditing_since=None,
    )


def after_being_cut_short(
    position: Position, session: Session, seen: Seen, terms: Terms
) -> Position:
    """The position once the session ended in any other way.

    It resumes where history has surely come to, unless what is then told again is as long as what
    was new: so little would hardly get on, and from messages that come newest first nothing at all.
    """
    if not seen.messages:
        return position
    auditing_since = _audit_began_at(position, session)
    if _gets_on(seen, terms):
        return replace(
            position,
            resume_at=_latest(position.resume_at, seen.confirmed),
            cut_short=0,
            auditing_since=auditing_since,
        )
    tried = position.cut_short + 1
    if auditing_since is None or tried <= DOUBLINGS_LIMIT or position.caught_up_began_at is None:
        return replace(position, cut_short=tried, auditing_since=auditing_since)
    # What it was told beyond where the stream stood remains told: a position does not move back.
    is_beyond = position.safe_point != position.caught_up_to
    return replace(
        position,
        resume_at=position.resume_at if is_beyond else None,
        cut_short=0,
        auditing_since=None,
        audit_given_up_at=auditing_since,
    )


def passed_gap(
    session: Session, before: Position, after: Position
) -> tuple[datetime, datetime] | None:
    """The session's gap, if the position has left it behind by now."""
    is_passed = (
        after.safe_point != before.safe_point
        or after.caught_up_began_at != before.caught_up_began_at
    )
    return session.gap if is_passed else None


def _begin(position: Position, now: datetime, terms: Terms) -> datetime:
    if position.auditing_since is not None:
        resume_at = position.resume_at
        return terms.oldest(now) if resume_at is None else resume_at - terms.overlap
    if position.safe_point is None or _is_audit_due(position, now, terms):
        return terms.oldest(now)
    return position.safe_point - terms.overlap


def _is_audit_due(position: Position, now: datetime, terms: Terms) -> bool:
    """Whether none has begun since its hour was passed last; a recovery is finished first."""
    if terms.audit_hour is None or position.resume_at is not None:
        return False
    due_at = now.replace(hour=terms.audit_hour, minute=0, second=0, microsecond=0)
    if due_at > now:
        due_at -= timedelta(days=1)
    last = _latest(position.audited_at, position.audit_given_up_at)
    return last is None or last < due_at


def _gap(position: Position, now: datetime, terms: Terms) -> tuple[datetime, datetime] | None:
    """What has come and gone since the stream was last read to its end; if it never was, since the
    point to resume at.
    """
    read_to, oldest = position.caught_up_began_at or position.resume_at, terms.oldest(now)
    if read_to is None or read_to >= oldest:
        return None
    known = position.safe_point or read_to
    return (known, oldest) if known < oldest else None


def _audit_began_at(position: Position, session: Session) -> datetime | None:
    return (position.auditing_since or session.began_at) if session.is_audit else None


def _gets_on(seen: Seen, terms: Terms) -> bool:
    return (
        seen.is_in_order
        and seen.first is not None
        and seen.confirmed is not None
        and seen.confirmed - seen.first >= 2 * terms.overlap
    )


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)
