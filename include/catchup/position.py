"""Where a stream stands, and from when it is to be told again: decisions without a clock or a wire.

A stream is asked for by time.  What was settled before a *safe point* is known to have been told;
every session begins at least an overlap before it, since messages may be late.  There are two:
`caught_up_to`, which only a session that was read to its end moves, and `resume_at`, which one that
was cut short leaves behind if its messages came in order and far enough to begin the next one
there.  What is new is told amid history too, so only history counts for that: what was settled an
overlap before the session began, and had more of it told behind it.  One that leaves none behind
has the bounds of the next doubled.

What was settled before a safe point and is told later than an overlap after, only a session finds
that asks for all there is and is read to its end: an *audit*.  One is due once a day, and after a
recovery that was resumed.  It has the widest bounds at once and leaves nothing to resume at: a
session that asks from a later point is not told what is late.  If it ends too soon, what is new is
read before it is tried again, and it is given up for the day if it is too long for one session, or
ends too soon a few times.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self

# Bounds are doubled so many times at most.
DOUBLINGS_LIMIT = 5
WIDEST = 2**DOUBLINGS_LIMIT
# An audit that ends too soon is tried so many times a day at most.
AUDIT_TRIES = 3


@dataclass(frozen=True)
class Terms:
    """What a provider's stream promises, and what we ask of it.

    It tells again what is at most `reach` old, of which `reserve` is left to the clocks; messages
    are hardly ever late by more than `overlap`; an audit is due each day from `audit_hour` (UTC)
    on, if it is not None.
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
    many since were not and leave no point to resume at, and `resumed_at` when the last one began
    that left one.  `audited_at` is when the last session began that asked for all there is and was
    read to its end, `audit_tried_at` when an audit did that was not, `audit_tries` how many were
    begun since one was due, and `audit_given_up_at` when the last one began that was given up.
    """

    caught_up_to: datetime | None = None
    caught_up_began_at: datetime | None = None
    resume_at: datetime | None = None
    resumed_at: datetime | None = None
    cut_short: int = 0
    audited_at: datetime | None = None
    audit_tried_at: datetime | None = None
    audit_tries: int = 0
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

    @property
    def is_stuck(self) -> bool:
        """Whether a session with the widest bounds was cut short and leaves no point to resume at:
        the next one will be as well.
        """
        return self.cut_short > DOUBLINGS_LIMIT

    @property
    def lacks_audit(self) -> bool:
        """Whether the last audit that was due was given up, or begun so often that it should be."""
        if self.audit_tries > AUDIT_TRIES:
            return True
        given_up_at, audited_at = self.audit_given_up_at, self.audited_at
        return given_up_at is not None and (audited_at is None or audited_at < given_up_at)


@dataclass(frozen=True)
class Session:
    """What the next session is to do: from when it asks (None: for all there is), and how far it
    may go, as a multiple of the bounds.

    It `is_whole` if it asks for all that is told again.  An audit is, and has no bound of messages.
    `gap` is a range that is not told again any more.
    """

    began_at: datetime
    since: datetime | None
    is_whole: bool
    is_audit: bool = False
    bounds: int = 1
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
        return Session(now, None, is_whole=True, bounds=bounds)
    oldest, gap = terms.oldest(now), _gap(position, now, terms)
    if _is_audit_due(position, now, terms):
        return Session(now, oldest, is_whole=True, is_audit=True, bounds=WIDEST, gap=gap)
    since = _begin(position, oldest, terms)
    return Session(now, since, is_whole=since == oldest, bounds=bounds, gap=gap)


def after_beginning(position: Position, session: Session) -> Position:
    """The position from when the session begins: an audit counts as tried even if nothing is heard
    of it any more, so that what is new comes next.
    """
    if not session.is_audit:
        return position
    tries = position.audit_tries + 1
    return replace(position, audit_tried_at=session.began_at, audit_tries=tries)


def after_catching_up(position: Position, session: Session, seen: Seen, now: datetime) -> Position:
    """The position once the session was read to its end."""
    reached = None if seen.newest is None else min(seen.newest, now)
    caught_up = replace(
        position,
        caught_up_to=_latest(position.safe_point, reached),
        caught_up_began_at=session.began_at,
        resume_at=None,
        cut_short=0,
    )
    if not session.is_whole:
        return caught_up
    return replace(caught_up, audited_at=session.began_at, audit_tried_at=None, audit_tries=0)


def after_being_cut_short(
    position: Position, session: Session, seen: Seen, terms: Terms, *, is_too_long: bool
) -> Position:
    """The position once the session ended in any other way: it `is_too_long` if its bounds ended
    it.

    It resumes where history has surely come to, unless what is then told again is as long as what
    was new: so little would hardly get on, and from messages that come newest first nothing at all.
    """
    if session.is_audit:
        # What it was told says nothing of where the stream stands.
        is_given_up = is_too_long or position.audit_tries >= AUDIT_TRIES
        return _without_audit(position, session.began_at) if is_given_up else position
    if not seen.messages:
        return position
    if not _gets_on(seen, terms):
        return replace(position, cut_short=position.cut_short + 1)
    return replace(
        position,
        resume_at=_latest(position.resume_at, seen.confirmed),
        resumed_at=session.began_at,
        cut_short=0,
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


def _begin(position: Position, oldest: datetime, terms: Terms) -> datetime:
    if position.safe_point is None or position.safe_point <= oldest:
        return oldest
    return max(position.safe_point - terms.overlap, oldest)


def _is_audit_due(position: Position, now: datetime, terms: Terms) -> bool:
    """Whether none has begun since its hour was passed last, or since a recovery was resumed; a
    recovery is finished first, and what is new is read between two tries.
    """
    if position.resume_at is not None or position.cut_short:
        return False
    tried_at, caught_up_at = position.audit_tried_at, position.caught_up_began_at
    if tried_at is not None and (caught_up_at is None or caught_up_at <= tried_at):
        return False
    due_at = _latest(position.resumed_at, _last_audit_hour(now, terms))
    last = _latest(position.audited_at, position.audit_given_up_at)
    return due_at is not None and (last is None or last < due_at)


def _without_audit(position: Position, given_up_at: datetime) -> Position:
    return replace(position, audit_tries=0, audit_given_up_at=given_up_at)


def _last_audit_hour(now: datetime, terms: Terms) -> datetime | None:
    if terms.audit_hour is None:
        return None
    passed_at = now.replace(hour=terms.audit_hour, minute=0, second=0, microsecond=0)
    return passed_at if passed_at <= now else passed_at - timedelta(days=1)


def _gap(position: Position, now: datetime, terms: Terms) -> tuple[datetime, datetime] | None:
    """What has come and gone since the stream was last read to its end; if it never was, since the
    point to resume at.
    """
    read_to, oldest = position.caught_up_began_at or position.resume_at, terms.oldest(now)
    if read_to is None or read_to >= oldest:
        return None
    known = position.safe_point or read_to
    return (known, oldest) if known < oldest else None


def _gets_on(seen: Seen, terms: Terms) -> bool:
    return (
        seen.is_in_order
        and seen.first is not None
        and seen.confirmed is not None
        and seen.confirmed - seen.first >= 2 * terms.overlap
    )


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)
