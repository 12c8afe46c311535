"""Where a stream stands: nothing that was told before a safe point is left out, whatever happens.

The provider is played by a list of messages, each of them sent a while after it was settled, in
whichever order it tells them again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.catchup.position import (
    AUDIT_TRIES,
    DOUBLINGS_LIMIT,
    WIDEST,
    Position,
    Seen,
    Session,
    Terms,
    after_beginning,
    after_being_cut_short,
    after_catching_up,
    next_session,
    passed_gap,
    place_of,
)
from include.catchup.stream import History

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TERMS = Terms(
    reach=timedelta(days=3),
    reserve=timedelta(hours=1),
    overlap=timedelta(minutes=15),
    audit_hour=None,
)
OLDEST = NOW - timedelta(hours=71)
AUDITING = replace(TERMS, audit_hour=3)
Order = Literal["first_sent", "settlement_time", "newest_first"]


def caught_up(to: datetime, began_at: datetime | None = None, **more: Any) -> Position:
    began = {"caught_up_began_at": began_at or to, "audited_at": began_at or to}
    return Position(**{"caught_up_to": to, **began, **more})


def seen(first: datetime, newest: datetime, *, is_in_order: bool = True) -> Seen:
    return Seen(100, first, newest, is_in_order, confirmed=newest)


def cut_short(
    position: Position,
    session: Session,
    seen: Seen,
    terms: Terms = TERMS,
    *,
    at_bounds: bool = True,
) -> Position:
    begun = after_beginning(position, session)
    return after_being_cut_short(begun, session, seen, terms, is_too_long=at_bounds)


# --- from when the next session is told again ---------------------------------------------------


def test_a_stream_that_was_never_read_is_asked_for_whole() -> None:
    assert next_session(Position(), NOW, TERMS).since is None


def test_a_session_begins_an_overlap_before_the_position() -> None:
    position = caught_up(NOW - HOUR)
    assert next_session(position, NOW, TERMS).since == NOW - HOUR - TERMS.overlap


def test_a_session_never_begins_before_what_is_told_again() -> None:
    position = caught_up(NOW - timedelta(days=9), NOW - HOUR)
    session = next_session(position, NOW, TERMS)
    assert (session.since, session.gap) == (OLDEST, None)


def test_a_stream_that_told_nothing_yet_is_not_asked_for_whole_again() -> None:
    position = after_catching_up(Position(), next_session(Position(), NOW, TERMS), Seen(), NOW)
    assert position.caught_up_to is None
    assert next_session(position, NOW + HOUR, TERMS).since == OLDEST + HOUR


def test_a_message_from_the_future_does_not_carry_the_position_there() -> None:
    session = next_session(Position(), NOW, TERMS)
    position = after_catching_up(Position(), session, seen(NOW - HOUR, NOW + DAY), NOW)
    assert position.caught_up_to == NOW


def test_the_place_of_a_position_is_a_number_of_seconds() -> None:
    assert place_of({}) is None
    position = caught_up(NOW, resume_at=NOW - HOUR)
    assert place_of(position.to_json()) == str(int(NOW.timestamp()))


# --- audits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audited_at", "is_due"),
    [
        (NOW - timedelta(hours=8), False),
        (NOW - timedelta(hours=10), True),
        (NOW - 9 * DAY, True),
        (None, True),
    ],
)
def test_once_a_day_a_session_begins_as_far_back_as_it_can(
    audited_at: datetime | None, is_due: bool
) -> None:
    position = caught_up(NOW - HOUR, audited_at=audited_at)
    session = next_session(position, NOW, AUDITING)
    assert session.is_audit == (session.since == OLDEST) == is_due
    done = after_catching_up(position, session, seen(OLDEST, NOW), NOW)
    assert not next_session(done, NOW + HOUR, AUDITING).is_audit


def audit_of(position: Position, now: datetime = NOW) -> Session:
    session = next_session(position, now, AUDITING)
    assert (session.is_audit, session.is_whole, session.bounds) == (True, True, WIDEST)
    assert session.since == AUDITING.oldest(now)
    return session


def news_after(position: Position, now: datetime) -> Position:
    """The position once an ordinary session has read what is new."""
    session = next_session(position, now, AUDITING)
    assert (session.is_audit, session.bounds) == (False, 1)
    assert position.safe_point is not None
    assert session.since == position.safe_point - TERMS.overlap
    return after_catching_up(position, session, seen(now - HOUR, now), now)


def test_an_audit_leaves_nothing_to_resume_at() -> None:
    """A session that began later would not be told what was settled earlier and is told late."""
    position = caught_up(NOW - HOUR, audited_at=NOW - DAY)
    told = seen(OLDEST, NOW - HOUR / 2)
    cut = cut_short(position, audit_of(position), told, AUDITING, at_bounds=False)
    assert (cut.safe_point, cut.resume_at, cut.cut_short) == (NOW - HOUR, None, 0)
    assert cut.audited_at == NOW - DAY


def test_an_audit_that_is_too_long_for_one_session_is_given_up_for_the_day() -> None:
    position = caught_up(NOW - HOUR, audited_at=NOW - DAY)
    session = audit_of(position)
    position = cut_short(position, session, seen(OLDEST, NOW - DAY), AUDITING)
    assert position.lacks_audit
    position = news_after(position, NOW + HOUR)
    assert not next_session(position, NOW + 2 * HOUR, AUDITING).is_audit
    again = audit_of(position, NOW + DAY)
    done = after_catching_up(position, again, seen(OLDEST + DAY, NOW + DAY), NOW + DAY)
    assert not done.lacks_audit
    assert done.audited_at == NOW + DAY


@pytest.mark.parametrize("told", [Seen(), seen(OLDEST, NOW - DAY)])
def test_an_audit_that_breaks_off_is_tried_again_once_what_is_new_was_read(told: Seen) -> None:
    position, now = caught_up(NOW - HOUR, audited_at=NOW - DAY), NOW
    for tries in range(1, AUDIT_TRIES + 1):
        session = audit_of(position, now)
        position = cut_short(position, session, told, AUDITING, at_bounds=False)
        assert position.lacks_audit == (tries == AUDIT_TRIES)
        position = news_after(position, now + HOUR / 6)
        now += HOUR / 3
    assert not next_session(position, now, AUDITING).is_audit
    audit_of(position, NOW + DAY)


def test_an_audit_that_is_killed_keeps_no_news_away_and_is_told_if_it_always_is() -> None:
    position, now = caught_up(NOW - HOUR, audited_at=NOW - DAY), NOW
    for _ in range(AUDIT_TRIES + 1):
        assert not position.lacks_audit
        position = after_beginning(position, audit_of(position, now))
        position = news_after(position, now + HOUR / 6)
        now += HOUR / 3
    assert position.lacks_audit
    done = after_catching_up(position, audit_of(position, now), seen(OLDEST, now), now)
    assert not done.lacks_audit


def test_what_is_new_is_read_to_its_end_before_an_audit_is_tried_again() -> None:
    position = caught_up(NOW - HOUR, audited_at=NOW - DAY)
    position = cut_short(position, audit_of(position), Seen(), AUDITING, at_bounds=False)
    session = next_session(position, NOW, AUDITING)
    position = cut_short(position, session, seen(NOW, NOW, is_in_order=False), AUDITING)
    session = next_session(position, NOW, AUDITING)
    assert (session.is_audit, session.bounds) == (False, 2)


def test_a_recovery_is_finished_before_an_audit_begins() -> None:
    position = caught_up(NOW - DAY, audited_at=NOW - DAY, resume_at=NOW - HOUR)
    assert not next_session(position, NOW, AUDITING).is_audit
    position = caught_up(NOW - DAY, audited_at=NOW - DAY, cut_short=1)
    assert not next_session(position, NOW, AUDITING).is_audit


@pytest.mark.parametrize("terms", [TERMS, AUDITING])
def test_a_recovery_that_was_resumed_is_followed_by_an_audit(terms: Terms) -> None:
    """At any hour, and also if none is wished for each day: it may have missed what was late."""
    position = caught_up(NOW - 9 * HOUR, NOW - 9 * HOUR)
    position = replace(position, audited_at=NOW - HOUR)
    session = next_session(position, NOW, terms)
    position = cut_short(position, session, seen(NOW - 9 * HOUR, NOW - 5 * HOUR), terms)
    session = next_session(position, NOW + HOUR, terms)
    assert (session.since, session.is_whole) == (NOW - 5 * HOUR - TERMS.overlap, False)
    position = after_catching_up(position, session, seen(NOW - 5 * HOUR, NOW), NOW + HOUR)
    session = next_session(position, NOW + HOUR, terms)
    assert session.is_audit
    done = after_catching_up(position, session, seen(OLDEST, NOW), NOW + HOUR)
    assert not next_session(done, NOW + 2 * HOUR, terms).is_audit


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_first_load_is_an_audit_only_if_one_session_reads_it(sessions: int) -> None:
    position = Position()
    session = next_session(position, NOW, TERMS)
    if sessions == 2:
        position = cut_short(position, session, seen(OLDEST, NOW - DAY))
        session = next_session(position, NOW, TERMS)
    position = after_catching_up(position, session, seen(NOW - DAY, NOW), NOW)
    assert position.audited_at == (NOW if sessions == 1 else None)
    assert next_session(position, NOW, TERMS).is_audit == (sessions == 2)


def test_a_recovery_that_starts_over_is_stuck_once_its_widest_bounds_did_not_help() -> None:
    position, bounds = caught_up(NOW - DAY), []
    for _ in range(DOUBLINGS_LIMIT + 1):
        assert not position.is_stuck
        session = next_session(position, NOW, TERMS)
        bounds.append(session.bounds)
        position = cut_short(position, session, seen(NOW, NOW, is_in_order=False))
    assert bounds == [1, 2, 4, 8, 16, 32]
    assert position.is_stuck
    session = next_session(position, NOW, TERMS)
    assert session.bounds == WIDEST
    assert not after_catching_up(position, session, seen(NOW, NOW), NOW).is_stuck


# --- where a session resumes --------------------------------------------------------------------


def resumed_at(*told_at: datetime) -> datetime | None:
    """Where the next session resumes if this one was told that and no more."""
    position = caught_up(NOW - DAY)
    session = next_session(position, NOW, TERMS)
    history = History(session.began_at, TERMS.overlap)
    for settled_at in told_at:
        history.add(settled_at, 0.0)
    return cut_short(position, session, history.seen).resume_at


def every_five_minutes(count: int) -> list[datetime]:
    return [NOW - DAY + step * timedelta(minutes=5) for step in range(count)]


def test_a_session_resumes_at_the_last_but_one_message_of_history() -> None:
    assert resumed_at(*every_five_minutes(6)) is None
    assert resumed_at(*every_five_minutes(8)) == NOW - DAY + timedelta(minutes=30)


@pytest.mark.parametrize("settled_ago", [-timedelta(seconds=1), TERMS.overlap])
def test_what_is_told_live_before_the_connection_breaks_carries_no_session_over_history(
    settled_ago: timedelta,
) -> None:
    live = [NOW - settled_ago] * 3
    assert resumed_at(*every_five_minutes(5), *live) is None
    assert resumed_at(*every_five_minutes(8), *live) == NOW - DAY + timedelta(minutes=30)


def test_one_message_far_ahead_of_history_does_not_either() -> None:
    assert resumed_at(*every_five_minutes(5), NOW - HOUR) is None


# --- gaps ---------------------------------------------------------------------------------------


def test_who_was_away_for_more_than_three_days_has_a_gap() -> None:
    position = caught_up(NOW - 4 * DAY)
    session = next_session(position, NOW, TERMS)
    assert session.gap == (NOW - 4 * DAY, OLDEST)
    done = after_catching_up(position, session, Seen(), NOW)
    assert passed_gap(session, position, done) == session.gap
    assert next_session(done, NOW + HOUR, TERMS).gap is None


def test_who_was_away_for_longer_than_is_asked_for_again_has_one_too() -> None:
    away_since = OLDEST - HOUR / 2
    assert next_session(caught_up(away_since), NOW, TERMS).gap == (away_since, OLDEST)


def test_who_was_away_for_less_has_none() -> None:
    assert next_session(caught_up(OLDEST), NOW, TERMS).gap is None


def test_a_first_load_that_was_cut_short_and_left_alone_for_longer_has_one_too() -> None:
    first = next_session(Position(), NOW, TERMS)
    part = seen(NOW - 3 * DAY, NOW - 65 * HOUR)
    position = cut_short(Position(), first, part)
    assert next_session(position, NOW + 6 * HOUR, TERMS).gap is None
    session = next_session(position, NOW + DAY / 2, TERMS)
    assert session.gap == (NOW - 65 * HOUR, OLDEST + DAY / 2)
    done = after_catching_up(position, session, Seen(), NOW + DAY / 2)
    assert passed_gap(session, position, done) == session.gap


def test_a_stream_that_was_quiet_for_longer_but_read_to_its_end_has_none() -> None:
    assert next_session(caught_up(NOW - 9 * DAY, NOW - HOUR), NOW, TERMS).gap is None


def test_a_gap_is_told_once_though_its_recovery_takes_several_sessions() -> None:
    position = caught_up(NOW - 4 * DAY)
    session = next_session(position, NOW, TERMS)
    nothing = cut_short(position, session, Seen())
    assert passed_gap(session, position, nothing) is None
    part = seen(OLDEST, OLDEST + HOUR)
    resuming = cut_short(position, session, part)
    assert passed_gap(session, position, resuming) == session.gap
    assert next_session(resuming, NOW, TERMS).gap is None


# --- whatever happens ---------------------------------------------------------------------------


class Message(NamedTuple):
    """When it was first sent, and when it says that it was settled."""

    sent: datetime
    settled: datetime


MINUTES = st.integers(0, 4 * 60).map(lambda minutes: timedelta(minutes=minutes))
LONG = st.sampled_from([0, 0, 1, 5, 60]).map(lambda minutes: timedelta(minutes=minutes))
LATENESS = st.sampled_from([timedelta(0), timedelta(seconds=1), TERMS.overlap / 2, TERMS.overlap])


@st.composite
def told_messages(draw: st.DrawFn) -> list[Message]:
    """Messages since a few hours or a day ago; most in time, some as late as may be."""
    sent = NOW - draw(st.sampled_from([6 * HOUR, DAY]))
    messages = []
    for passed, late in draw(st.lists(st.tuples(MINUTES, LATENESS), max_size=60)):
        sent += passed
        messages.append(Message(sent, sent - late))
    return messages


def tell(messages: list[Message], order: Order, session: Session) -> list[Message]:
    """What a provider tells a session that begins then."""
    known = [one for one in messages if one.sent <= session.began_at]
    since = session.since or session.began_at - TERMS.reach
    recovered = [one for one in known if one.settled >= since]
    match order:
        case "first_sent":
            return recovered
        case "settlement_time":
            return sorted(recovered, key=lambda one: one.settled)
        case "newest_first":
            return recovered[::-1]


def listen(told: list[Message], session: Session) -> Seen:
    history = History(session.began_at, TERMS.overlap)
    for one in told:
        history.add(one.settled, 0.0)
    return history.seen


@settings(deadline=None, max_examples=150)
@given(
    messages=told_messages(),
    order=st.sampled_from(["first_sent", "settlement_time", "newest_first"]),
    sessions=st.lists(
        st.tuples(MINUTES, st.none() | st.integers(0, 40), LONG), min_size=1, max_size=30
    ),
    audit_hour=st.none() | st.integers(0, 23),
)
def test_nothing_told_before_the_next_session_begins_is_left_out(
    messages: list[Message],
    order: Order,
    sessions: list[tuple[timedelta, int | None, timedelta]],
    audit_hour: int | None,
) -> None:
    """Sessions of any length at any time, told what is sent meanwhile as well; those that read
    everything have caught up.
    """
    terms = replace(TERMS, audit_hour=audit_hour)
    position, now, read, lost = Position(), NOW, set[Message](), list[tuple[datetime, datetime]]()
    for passed, bound, lasts in sessions:
        now += passed
        before, session = position, next_session(position, now, terms)
        assert session.since is None or terms.oldest(now) <= session.since <= now
        told = tell(messages, order, session)
        part = told if bound is None else told[: bound * session.bounds]
        heard = part + [one for one in messages if now < one.sent <= now + lasts]
        now += lasts
        read.update(heard)
        if part == told:
            position = after_catching_up(before, session, listen(heard, session), now)
        else:
            position = cut_short(before, session, listen(heard, session), terms)
        if gap := passed_gap(session, before, position):
            lost.append(gap)
        assert Position.from_json(position.to_json()) == position
        assert int(place_of(position.to_json()) or 0) >= int(place_of(before.to_json()) or 0)
        # An audit that is due would hide from where the one behind it goes on.
        settled = replace(position, resumed_at=None)
        following = next_session(settled, now, replace(terms, audit_hour=None))
        for one in messages:
            is_passed = following.since is not None and one.settled < following.since
            is_lost = any(start - terms.overlap <= one.settled < end for start, end in lost)
            is_told_no_more = one.settled < terms.oldest(now)
            if one.sent <= now and is_passed and not (is_lost or is_told_no_more):
                assert one in read


@settings(deadline=None, max_examples=100)
@given(
    messages=told_messages().filter(lambda messages: len(messages) > 5),
    order=st.sampled_from(["first_sent", "settlement_time", "newest_first"]),
    bound=st.integers(2, 10),
)
def test_a_recovery_too_long_for_one_session_ends(
    messages: list[Message], order: Order, bound: int
) -> None:
    now = max(messages[-1].sent, NOW)
    position, read = Position(), set[Message]()
    sessions = 0
    while position.caught_up_began_at is None:
        session = next_session(position, now, TERMS)
        told = tell(messages, order, session)
        part = told[: bound * session.bounds]
        read.update(part)
        if part == told:
            position = after_catching_up(position, session, listen(part, session), now)
        else:
            position = cut_short(position, session, listen(part, session))
        sessions += 1
        assert sessions <= 60
    assert {one for one in messages if one.settled >= now - TERMS.reach + 2 * HOUR} <= read


# --- where history ends -------------------------------------------------------------------------


QUIET = 2.0


def history() -> History:
    heard = History(NOW, TERMS.overlap)
    heard.add(NOW - HOUR, 100.0)
    return heard


def test_two_pings_and_no_data_for_a_while_are_the_end() -> None:
    heard = history()
    heard.ping()
    assert not heard.is_over(100.0 + QUIET, QUIET)
    heard.ping()
    assert not heard.is_over(100.0 + QUIET - 0.1, QUIET)
    assert heard.is_over(100.0 + QUIET, QUIET)


def test_data_between_two_pings_is_not() -> None:
    heard = history()
    heard.ping()
    heard.add(NOW - HOUR / 2, 103.0)
    heard.ping()
    assert not heard.is_over(109.0, QUIET)


def test_news_behind_history_is_the_end_if_it_goes_on_so_for_a_while() -> None:
    heard = history()
    heard.add(NOW + timedelta(seconds=1), 101.0)
    assert not heard.is_over(102.0, QUIET)
    assert heard.is_over(103.0, QUIET)


def test_news_before_history_says_nothing() -> None:
    heard = History(NOW, TERMS.overlap)
    heard.add(NOW + timedelta(seconds=1), 100.0)
    assert not heard.is_over(109.0, QUIET)


def test_news_amid_history_says_nothing() -> None:
    heard = history()
    heard.add(NOW + timedelta(seconds=1), 101.0)
    heard.add(NOW - timedelta(minutes=50), 101.5)
    assert not heard.is_over(109.0, QUIET)


def test_a_late_message_amid_news_is_no_history() -> None:
    heard = history()
    for step in range(60):
        heard.add(NOW + timedelta(seconds=step), 101.0 + step / 20)
        if step == 30:
            heard.add(NOW - HOUR, 102.5)
    assert heard.is_over(101.0 + 60 / 20, QUIET)
    assert not heard.seen.is_in_order


def test_history_told_newest_first_is_not_over_while_old_messages_come_amid_news() -> None:
    heard = history()
    for step in range(600):
        told_at = (
            NOW + timedelta(seconds=step) if step % 10 == 0 else NOW - HOUR - step * HOUR / 600
        )
        heard.add(told_at, 101.0 + step / 100)
        assert not heard.is_over(101.0 + step / 100, QUIET)


@pytest.mark.parametrize("told_at", [datetime.min.replace(tzinfo=UTC), datetime.now(UTC) + DAY])
def test_a_message_of_an_impossible_time_says_nothing(told_at: datetime) -> None:
    """.NET writes an empty time as the first moment of year 1."""
    heard = history()
    heard.add(told_at, 101.0)
    heard.add(None, 101.0)
    assert not heard.is_over(109.0, QUIET)
    assert heard.seen == Seen(3, NOW - HOUR, NOW - HOUR, is_in_order=True)


def test_a_position_of_an_impossible_time_stops_nothing() -> None:
    position = caught_up(datetime.min.replace(tzinfo=UTC), NOW - HOUR)
    assert next_session(position, NOW, TERMS).since == OLDEST
