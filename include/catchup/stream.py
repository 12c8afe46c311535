"""Acquire from a stream: one bounded session of a connection that tells history, then what is new.

Rows commit while the session goes on; the position moves when it ends, as `position` decides.  What
bounds a session is how long it lasts and how much of what it is told is new.  A
stream does not say where history ends, and a ping may come in the midst of it, so a session has
caught up only if for `stream_quiet_seconds`
- nothing but pings came, two of them at least, or
- history has given way to messages that were settled after the session began, but for a few late
  ones.

One process of all connects at a time: it holds a lease, writes each connection down right before
it begins it, once it has logged in, and closes it as soon as the lease may have run out.  A
connection that is not allowed, by our count or by the provider, ends the run without an error: a
later one makes it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal, Protocol

from sqlalchemy.exc import SQLAlchemyError

from include.catchup.position import (
    Position,
    Seen,
    Session,
    Terms,
    after_beginning,
    after_being_cut_short,
    after_catching_up,
    next_session,
    passed_gap,
)
from include.providers.errors import ProviderError, Retriable, StreamEnded, StreamRefused
from include.providers.odds88 import BrokenMessage, Message, Page, PageEntry, Ping, Token
from include.providers.streams import GOES_ON, RECEIVED_IS_KEPT, Socket
from include.settings import Settings
from include.warehouse.connect_attempts import Budget, Connections, NoneLeft
from include.warehouse.landing import Gap, Landing
from include.warehouse.leases import LeaseLost
from include.warehouse.pages import ArrivedPage

_log = logging.getLogger(__name__)

# Messages that are held until they are committed: a bound for those that are large.
_COMMIT_BYTES = 16 * 2**20
# Late messages are rarer than this.
_NEWS_A_LATE_MESSAGE = 20
# Nothing was settled before: .NET writes an empty time as that of year 1.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
# How often a session that hears nothing looks whether it is to go on.
_LONGEST_LOOK_SECONDS = 1.0

Ending = Literal["caught_up", "bound", "silent", "closed", "refused", "failed", "lease_lost"]


class Feed(Protocol):
    """What opens a provider's stream of all that was settled since a Unix second."""

    def log_in(self) -> Token:
        """What a connection needs, which may take long; raises `ProviderError`."""

    def connect(self, token: Token, revision: int) -> Socket:
        """Open it at once; raises `ProviderError`."""

    def close(self) -> None:
        """Close whatever it holds open besides."""


@dataclass(frozen=True)
class Stream:
    """How one provider's stream is read: its messages, what it promises, how often it may be
    connected to.

    `request` tells what a connection asks for, as method, path and query.  A stream that was never
    read is asked for without a revision, which is 0.
    """

    request: Callable[[int], str]
    read_message: Callable[[bytes], Message]
    join_messages: Callable[[Sequence[Message]], Page]
    read_page: Callable[[bytes], Page]
    terms: Callable[[Settings], Terms]
    session_messages: Callable[[Settings], int]
    proper: Budget
    without_revision: Budget


@dataclass(frozen=True)
class StreamRead:
    """What one session came to: whether it met the end, and in words where it ended and why."""

    has_reached_end: bool
    note: str


def read_stream(
    stream: Stream,
    feed: Feed,
    landing: Landing,
    connections: Connections,
    settings: Settings,
) -> StreamRead:
    """Land what one session of the stream tells.

    Raises `LeaseLost`, with nothing landed since, and `ProviderError` as connecting and receiving
    do; what was received before such an error is landed.
    """
    cursor, terms = landing.read_cursor(), stream.terms(settings)
    position = Position.from_json(cursor.position)
    budget = stream.without_revision if position.is_new else stream.proper
    try:
        connections.check_budget(budget)
        token = feed.log_in()
        session = next_session(position, datetime.now(UTC), terms)
        attempt_id = connections.begin(budget, _revision(session))
    except NoneLeft as none_left:
        _log.info("%s", none_left)
        return StreamRead(has_reached_end=False, note=str(none_left))
    position, before = after_beginning(position, session), position
    if position != before:
        cursor = landing.commit([], cursor, position.to_json())
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="landing") as writer:
        reader = _Reader(stream, landing, connections, settings, session, writer)
        try:
            ended = reader.listen(feed, token)
            pages = reader.take_held()
            after = _position_after(position, session, reader.seen, ended.how, terms)
            if pages or after != position:
                gap = passed_gap(session, position, after)
                landing.commit(pages, cursor, after.to_json(), [_lost(*gap)] if gap else [])
            _write_down(connections, attempt_id, ended, reader.frames)
        except BaseException as error:
            how: Ending = "lease_lost" if isinstance(error, LeaseLost) else "failed"
            # That it ended matters less than why.
            with suppress(SQLAlchemyError):
                connections.end(attempt_id, how, reader.frames)
            raise
    if ended.error is not None and ended.how != "refused":
        raise ended.error
    note = _told(ended, reader.seen, session, after)
    _log.info("%s", note)
    return StreamRead(has_reached_end=ended.how == "caught_up", note=note)


@dataclass(frozen=True)
class _Ended:
    how: Ending
    error: ProviderError | None = None


@dataclass(frozen=True)
class _Commit:
    """Messages that are being committed: how many there are, and how many of them were new."""

    landed: Future[int]
    messages: int
    bytes: int


class _Reader:
    """Reads messages, and has them committed whenever some are due.

    While some are committed the next are read: one waits for the provider, one for Postgres.
    """

    def __init__(
        self,
        stream: Stream,
        landing: Landing,
        connections: Connections,
        settings: Settings,
        session: Session,
        writer: Executor,
    ) -> None:
        self.frames = 0
        self._stream = stream
        self._landing = landing
        self._connections = connections
        self._settings = settings
        self._session = session
        self._writer = writer
        self._under_way: _Commit | None = None
        self._history = History(session.began_at, stream.terms(settings).overlap)
        self._held: list[Message] = []
        self._held_bytes = 0
        self._new = self._new_bytes = 0
        self._committed_at = self._heard_at = self._began = time.monotonic()

    def listen(self, feed: Feed, token: Token) -> _Ended:
        """Connect, and read until there is a reason to stop; the connection is closed then."""
        since = self._session.since
        _log.info(
            "Connecting for what was settled since %s%s.",
            "the beginning" if since is None else f"{since:%Y-%m-%d %H:%M:%S} UTC",
            ", as far back as is told" if since and self._session.is_whole else "",
        )
        # Whoever slept since this was written down may have a successor that is connected.
        self._connections.check_ours()
        try:
            with closing(feed.connect(token, _revision(self._session))) as socket:
                self._heard_at = time.monotonic()
                return self._read(socket)
        except StreamRefused as error:
            return _Ended("refused", error)
        except StreamEnded as error:
            return _Ended("closed", error)
        except ProviderError as error:
            return _Ended("failed", error)

    def take_held(self) -> list[ArrivedPage]:
        """What is read and not committed, once everything before is."""
        pages = list(self._pages(self._held))
        self._held, self._held_bytes = [], 0
        self._end_commit()
        return pages

    @property
    def seen(self) -> Seen:
        """What was told until now."""
        return self._history.seen

    def _read(self, socket: Socket) -> _Ended:
        look = min(self._settings.stream_quiet_seconds, _LONGEST_LOOK_SECONDS)
        while True:
            self._connections.check_ours()
            body = socket.receive(look)
            now = time.monotonic()
            if body is not None:
                self._take(body, now)
            elif now - self._heard_at >= self._settings.stream_silence_seconds:
                return _Ended("silent", self._silence())
            if self._history.is_over(now, self._settings.stream_quiet_seconds):
                return _Ended("caught_up")
            self._commit_if_due(now)
            if self._is_bound_reached(now):
                return _Ended("bound")

    def _take(self, body: bytes, now: float) -> None:
        self.frames += 1
        self._heard_at = now
        if not body or body.isspace():
            _log.warning("A message without any content was passed over.")
            return
        message = self._stream.read_message(body)
        content = message.content
        if isinstance(content, Ping) or (isinstance(content, BrokenMessage) and content.is_ping):
            self._history.ping()
            if isinstance(content, Ping) and not message.unknown_fields:
                return
        else:
            told_at = content.settlement_time if isinstance(content, PageEntry) else None
            self._history.add(told_at, now)
        self._held.append(message)
        self._held_bytes += len(body)

    def _is_bound_reached(self, now: float) -> bool:
        """Whether it lasts too long, or too much is new: what is told again does not count, else a
        session that begins with much of it would never get on.
        """
        if now - self._began >= self._session.bounds * self._settings.land_time_limit_seconds:
            return True
        if not self._may_be_full():
            return False
        self._end_commit()
        return self._may_be_full()

    def _may_be_full(self) -> bool:
        """Whether too much is new if all that is not committed yet is."""
        under_way = self._under_way
        messages = self._new + len(self._held) + (under_way.messages if under_way else 0)
        size = self._new_bytes + self._held_bytes + (under_way.bytes if under_way else 0)
        return messages >= self._most_messages or size >= self._most_bytes

    @property
    def _most_messages(self) -> float:
        if self._session.is_audit:
            return math.inf
        return self._session.bounds * self._stream.session_messages(self._settings)

    @property
    def _most_bytes(self) -> int:
        return self._session.bounds * self._settings.land_bytes_limit

    def _silence(self) -> Retriable:
        provider = self._landing.source
        seconds = self._settings.stream_silence_seconds
        return Retriable(
            provider,
            f"Nothing came over its stream for {seconds:g} s, not even a ping. {RECEIVED_IS_KEPT}",
            GOES_ON.format(provider=provider),
        )

    def _commit_if_due(self, now: float) -> None:
        # Never so much at once that it alone would end the session: it may not be new.
        is_due = (
            len(self._held) >= min(self._settings.land_commit_records, self._most_messages)
            or self._held_bytes >= min(_COMMIT_BYTES, self._most_bytes)
            or now - self._committed_at >= self._settings.land_commit_seconds
        )
        if is_due and self._held:
            messages, size = len(self._held), self._held_bytes
            pages = self.take_held()
            landed = self._writer.submit(self._landing.add, *pages)
            self._under_way = _Commit(landed, messages, size)
            self._committed_at = time.monotonic()

    def _end_commit(self) -> None:
        """Wait for the commit that is under way; what it raises is raised here, once."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            new = under_way.landed.result()
            self._new += new
            self._new_bytes += under_way.bytes if new else 0

    def _pages(self, messages: Sequence[Message]) -> Iterator[ArrivedPage]:
        """The messages, many on a page; one that holds a line break is a page of its own, so that
        every other page has one on each line.
        """
        received_at = datetime.now(UTC)
        for is_broken_up, several in groupby(messages, lambda one: b"\n" in one.body):
            for page in [[one] for one in several] if is_broken_up else [list(several)]:
                yield self._page(self._stream.join_messages(page), received_at)

    def _page(self, page: Page, received_at: datetime) -> ArrivedPage:
        return ArrivedPage(
            request=self._stream.request(_revision(self._session)),
            requested_at=self._session.began_at,
            received_at=received_at,
            body=page.body,
            http_status=None,
            content_type=None,
            records=[
                *((entry.record, entry.content_sha256) for entry in page.entries),
                *((broken.record, broken.content_sha256) for broken in page.broken),
            ],
            unknown_fields=page.unknown_fields,
            unreadable={one.record.record_key: one.reason for one in page.broken},
        )


class History:
    """What the messages of a session tell of where its history ends."""

    def __init__(self, began_at: datetime, overlap: timedelta) -> None:
        self.seen_messages = 0
        self._began_at = began_at
        self._overlap = overlap
        self._surely_possible = began_at + overlap
        self._surely_history = began_at - overlap
        self._first: datetime | None = None
        self._newest: datetime | None = None
        self._newest_history: datetime | None = None
        self._confirmed: datetime | None = None
        self._is_in_order = True
        self._pings = 0
        self._data_at = time.monotonic()
        self._news_at: float | None = None
        self._news = self._late = 0

    @property
    def seen(self) -> Seen:
        """What was told until now."""
        return Seen(
            self.seen_messages, self._first, self._newest, self._is_in_order, self._confirmed
        )

    def ping(self) -> None:
        """A ping has come."""
        self._pings += 1

    def add(self, told_at: datetime | None, now: float) -> None:
        """A message has come that says to have been settled at that time."""
        self.seen_messages += 1
        self._pings = 0
        self._data_at = now
        if told_at is None or self._is_impossible(told_at):
            return
        if self._first is None or self._newest is None:
            self._first = self._newest = told_at
        elif told_at > self._newest:
            self._newest = told_at
        elif told_at < self._newest - self._overlap:
            self._is_in_order = False
        if told_at < self._surely_history:
            self._confirmed = self._newest_history
            if self._confirmed is None or told_at > self._confirmed:
                self._newest_history = told_at
        self._look_for_news(is_news=self._first <= self._began_at < told_at, now=now)

    def is_over(self, now: float, quiet_seconds: float) -> bool:
        """Whether history has been told to its end."""
        is_silent = self._pings >= 2 and now - self._data_at >= quiet_seconds
        is_past = self._news_at is not None and now - self._news_at >= quiet_seconds
        return is_silent or is_past

    def _look_for_news(self, *, is_news: bool, now: float) -> None:
        """Note since when news has come; more than a few older messages amid it are history yet."""
        if is_news and self._news_at is None:
            self._news_at, self._news, self._late = now, 0, 0
        self._news += is_news
        self._late += not is_news
        if self._late * _NEWS_A_LATE_MESSAGE > self._news:
            self._news_at = None

    def _is_impossible(self, told_at: datetime) -> bool:
        """Whether it lies so far ahead or back that it says nothing of when it was told."""
        if told_at < _EARLIEST:
            return True
        return told_at > self._surely_possible and told_at > datetime.now(UTC) + self._overlap


def _position_after(
    position: Position, session: Session, seen: Seen, how: Ending, terms: Terms
) -> Position:
    if how == "caught_up":
        return after_catching_up(position, session, seen, datetime.now(UTC))
    return after_being_cut_short(position, session, seen, terms, is_too_long=how == "bound")


def _told(ended: _Ended, seen: Seen, session: Session, after: Position) -> str:
    """Where a session ended and why."""
    read = f"{seen.messages} messages were read"
    if ended.how == "caught_up":
        return f"{read}; the provider has nothing more."
    if session.is_audit:
        if after.audit_tries:
            goes_on = "it is tried again once what is new has been read"
        else:
            goes_on = "it is given up until the next is due, and watch_feeds tells so"
        why = ended.error or "The bounds of one session were reached."
        return f"{read} of an audit, which counts only if it is read to its end: {goes_on}. {why}"
    if ended.error is not None:
        return f"{read}. {ended.error}"
    if after.resume_at is None or after.cut_short:
        goes_on = "begins where this one began and may go on for longer"
    else:
        goes_on = f"goes on with what was settled about {after.resume_at:%Y-%m-%d %H:%M} UTC"
    return f"{read}, until the bounds of one session were reached; the next {goes_on}."


def _revision(session: Session) -> int:
    return 0 if session.since is None else int(session.since.timestamp())


def _lost(after: datetime, before: datetime) -> Gap:
    return Gap(
        range_after=after.isoformat(),
        range_before=before.isoformat(),
        reason="the stream was not read to its end for more than the 3 days that it tells again. "
        "Import a file of its messages of that time with the DAG import_files, if there is one.",
    )


def _write_down(connections: Connections, attempt_id: int, ended: _Ended, messages: int) -> None:
    if isinstance(ended.error, StreamRefused):
        connections.refuse(attempt_id, ended.error.happened, ended.error.retry_after, messages)
    else:
        connections.end(attempt_id, ended.how, messages)
