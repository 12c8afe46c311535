"""Acquire an append-only log by its cursor: page after page until the provider has no more.

Three things can go wrong without a word, so each is looked for:
- **A page that hides entries.**  A full page must hold the *oldest* entries after the cursor.
  Asking again with `limit=1` tells: if that gives the newest, whatever lies between the cursor and
  the page may never be seen, which is a gap.
- **Entries that become visible late**, behind a cursor that has passed them.  Every stretch of the
  log is read a second time once `overlap_seconds` have gone by since it was first seen.  The second
  reading walks forward with a cursor of its own, so it cannot hold up the first, nor itself.
- **A page that does not advance.**  It stops the task; nothing is asked in a circle.

A provider may also forget an entry, and then refuse the cursor that names it, for ever.  Two calls
for a single entry, without the cursor and with it, tell that from a wrong address, key or page
limit: the feed then stops with a finding, for only a person knows where it may go on.

The position is what `ops.cursor` stores: `since_id` is where reading goes on, `reread_since_id`
where the second reading does, `anchors` are entries that were the newest at a time, and `started`
tells where the very first call began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
from sqlalchemy import Row

from include.providers.errors import Fatal, PageUndecodable, ProviderError
from include.providers.http import Answer, Client
from include.providers.ticktock import Page, PageEntry
from include.settings import Settings
from include.warehouse.cursors import is_behind
from include.warehouse.landing import Cursor, Gap, Landing
from include.warehouse.pages import ArrivedPage

_log = logging.getLogger(__name__)

# One anchor a minute is as fine as the overlap needs to be.
_ANCHOR_SPACING = timedelta(seconds=60)
# How a provider may say that it does not know the entry which a cursor names.
_MAY_REFUSE_CURSOR = {400, 404, 410, 422}
# Ids may be shared with other tenants and tables; no log goes on by so many between two entries.
_LONGEST_LEAP = 10**12


@dataclass(frozen=True)
class Log:
    """How one provider's log is read: its calls, and what its entries say about their order."""

    fetch: Callable[[Client, str | None, int], Answer]
    fetch_subject: Callable[[Client, str], Answer]
    read_page: Callable[[bytes], Page]
    most_recent: Callable[[Sequence[PageEntry]], PageEntry | None]
    oldest: Callable[[Sequence[PageEntry]], list[PageEntry]]
    page_limit: Callable[[Settings], int]
    first_cursor: Callable[[Settings], str | None]


class PageStopped(Exception):
    """A page could not be decoded (it is stored), or not be asked for since its cursor is refused;
    a finding is open, and the feed waits there.
    """


@dataclass(frozen=True)
class LogRead:
    """What one run read: whether it met the provider's end, and which finding blocks the feed."""

    has_reached_end: bool
    stopped_by_finding_id: int | None = None


@dataclass
class Budget:
    """What one pass over the log may still take in pages, bytes and seconds."""

    pages: int
    body_bytes: int
    seconds: float
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def share(cls, settings: Settings, share: float) -> Budget:
        """A share of what one task may take; at least a page."""
        return cls(
            pages=max(1, int(settings.land_pages_limit * share)),
            body_bytes=int(settings.land_bytes_limit * share),
            seconds=settings.land_time_limit_seconds * share,
        )

    def spend(self, body: bytes) -> None:
        """Take one page of it."""
        self.pages -= 1
        self.body_bytes -= len(body)

    @property
    def is_left(self) -> bool:
        """Whether another page may be asked for."""
        return (
            self.pages > 0
            and self.body_bytes > 0
            and time.monotonic() - self._started < self.seconds
        )


def read_log(log: Log, client: Client, landing: Landing, settings: Settings) -> LogRead:
    """Land what the log holds beyond the cursor, then what may have become visible behind it.

    Raises `ProviderError` as the client does, `PageStopped` for an undecodable page or a refused
    cursor, and `Fatal` for a provider that walks in circles; what was committed before stays
    landed.
    """
    cursor = landing.read_cursor()
    if cursor.stopped_by_finding_id is not None:
        return LogRead(has_reached_end=False, stopped_by_finding_id=cursor.stopped_by_finding_id)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="landing") as writer:
        reader = _Reader(log, client, landing, settings, cursor, writer)
        try:
            has_reached_end = reader.read_on(Budget.share(settings, 0.75))
            reader.read_again(Budget.share(settings, 0.25))
            for gap in landing.gaps_to_ask():
                reader.ask_subjects(gap)
        except ProviderError:
            reader.commit()
            raise
    return LogRead(has_reached_end=has_reached_end)


@dataclass(frozen=True)
class _Fetched:
    arrived: ArrivedPage
    entries: tuple[PageEntry, ...]
    is_full: bool


class _Reader:
    """Reads pages, holds them until a commit is due, and commits them with the position.

    While pages are committed, the next are fetched: one waits for the provider, one for Postgres.
    """

    def __init__(
        self,
        log: Log,
        client: Client,
        landing: Landing,
        settings: Settings,
        cursor: Cursor,
        writer: Executor,
    ) -> None:
        self._log = log
        self._client = client
        self._landing = landing
        self._settings = settings
        self._limit = log.page_limit(settings)
        self._cursor = cursor
        self._writer = writer
        self._under_way: Future[Cursor] | None = None
        self._position = {"anchors": [], **cursor.position}
        if self._position.get("since_id") is None:
            first_cursor = log.first_cursor(settings)
            self._position |= {"since_id": first_cursor, "reread_since_id": first_cursor}
        self._pages: list[ArrivedPage] = []
        self._gaps: list[Gap] = []
        self._committed_at = time.monotonic()

    def read_on(self, budget: Budget) -> bool:
        """Page forward from the cursor; True if the provider had nothing more."""
        is_proven = False
        passed = {self._position["since_id"]}
        while budget.is_left:
            since_id = self._position["since_id"]
            fetched = self._fetch_page(since_id, budget)
            newest = self._log.most_recent(fetched.entries)
            if newest is None or (not fetched.is_full and self._is_passed(newest, passed)):
                self.commit()
                return True
            if self._is_passed(newest, passed):
                raise self._circle(since_id, newest)
            if fetched.is_full and not is_proven:
                is_proven = self._prove_order(since_id, fetched, budget)
            self._note_start(since_id, fetched)
            passed.add(newest.entry_id)
            self._advance(since_id, newest, fetched)
            self._commit_if_due()
        self.commit()
        return False

    def read_again(self, budget: Budget) -> None:
        """Page forward once more through what was first seen at least an overlap ago."""
        overlap = timedelta(seconds=self._settings.overlap_seconds)
        due = [a for a in self._position["anchors"] if _at(a["seen_at"]) <= _now() - overlap]
        if not due:
            return
        target = due[-1]["entry_id"]
        passed = {self._position["reread_since_id"]}
        while budget.is_left and self._position["reread_since_id"] != target:
            since_id = self._position["reread_since_id"]
            fetched = self._fetch_page(since_id, budget)
            newest = self._log.most_recent(fetched.entries)
            if newest is None:
                self._gaps.append(_gap_where_nothing_is_shown(since_id, target))
            is_there = newest is None or any(e.entry_id == target for e in fetched.entries)
            reached = target if newest is None or is_there else newest.entry_id
            if reached in passed and reached != target:
                raise self._circle(since_id, newest)
            passed.add(reached)
            self._position["reread_since_id"] = reached
            self._commit_if_due()
        if self._position["reread_since_id"] == target:
            self._position["anchors"] = self._position["anchors"][len(due) :]
        self.commit()

    def ask_subjects(self, gap: Row[Any]) -> None:
        """Ask for a gap's subjects one by one and land what they hold; what fails is passed over.

        Whether that filled the gap is for a person to say: its finding stays open.
        """
        pages = []
        for subject in gap.subjects:
            try:
                answer = self._log.fetch_subject(self._client, subject)
                pages.append(_arrived(answer, self._log.read_page(answer.body)))
            except (Fatal, PageUndecodable) as error:
                _log.warning("Gap %s: %s could not be asked for: %s", gap.gap_id, subject, error)
        fresh = self._landing.land_subjects(gap.gap_id, pages)
        _log.info(
            "Gap %s: asked for %d subjects, %d new entries.", gap.gap_id, len(gap.subjects), fresh
        )

    def _fetch_page(self, since_id: str | None, budget: Budget) -> _Fetched:
        """A page that can be read on from.

        One that is not full is the last for now, so whatever has no id in it is simply landed.
        """
        fetched = self._fetch(since_id, self._limit, budget)
        newest = self._log.most_recent(fetched.entries)
        if fetched.is_full and newest is None:
            reason = "no entry of the full page has an id to go on from"
            raise self._stopped(self._pages.pop(), reason, since_id)
        # A first cursor of the settings may be any number.
        before = None if self._cursor.position.get("since_id") is None else since_id
        if newest is not None and _leaps(newest, fetched, before):
            reason = (
                f"entry {newest.entry_id} of {newest.created_at} lies so far beyond others that, "
                "as the cursor, it would hide whatever comes before it"
            )
            raise self._stopped(self._pages.pop(), reason, since_id, is_leap=True)
        return fetched

    def _fetch(self, since_id: str | None, limit: int, budget: Budget) -> _Fetched:
        answer = self._ask(since_id, limit)
        budget.spend(answer.body)
        try:
            page = self._log.read_page(answer.body)
        except PageUndecodable as error:
            # A page asked for only to compare stops the feed where it stands.
            stands_at = since_id if since_id in self._standing else self._position["since_id"]
            raise self._stopped(_arrived(answer, None), error.reason, stands_at) from error
        self._pages.append(_arrived(answer, page))
        return _Fetched(self._pages[-1], page.entries, is_full=len(page.entries) >= limit)

    def _ask(self, since_id: str | None, limit: int) -> Answer:
        try:
            return self._log.fetch(self._client, since_id, limit)
        except Fatal as refusal:
            if since_id is None or not self._is_of_cursor(refusal, since_id):
                raise
            raise self._stopped_at_cursor(since_id, refusal) from refusal

    def _is_of_cursor(self, refusal: Fatal, since_id: str) -> bool:
        """Whether the provider refuses this cursor, and neither the rest of the call nor just once.

        A first cursor comes from the settings and is corrected there; an entry that is asked with
        only to compare pages is not where the feed stands.
        """
        is_first = self._cursor.position.get("since_id") is None
        is_setting = is_first and since_id == self._log.first_cursor(self._settings)
        return (
            refusal.status in _MAY_REFUSE_CURSOR
            and since_id in self._standing
            and not is_setting
            and self._status_for_one(None) == httpx.codes.OK
            and self._status_for_one(since_id) in _MAY_REFUSE_CURSOR
        )

    @property
    def _standing(self) -> tuple[str | None, str | None]:
        """Where the feed stands, and its second reading."""
        return self._position["since_id"], self._position.get("reread_since_id")

    def _status_for_one(self, since_id: str | None) -> int | None:
        """The status with which a call for a single entry ends; None if no answer came."""
        try:
            return self._log.fetch(self._client, since_id, 1).status
        except ProviderError as error:
            return error.status

    def _stopped_at_cursor(self, since_id: str, refusal: Fatal) -> PageStopped:
        self.commit()
        finding_id = self._landing.stop_at_cursor(since_id, refusal.status, refusal.happened)
        return PageStopped(
            f"{self._client.provider} refuses to read on after entry {since_id} "
            f"({refusal.status}), though it answers without a cursor. Everything before it is "
            f"landed, and the feed waits. Decide on finding {finding_id} with the DAG "
            "resolve_findings."
        )

    def _stopped(
        self, page: ArrivedPage, reason: str, since_id: str | None, *, is_leap: bool = False
    ) -> PageStopped:
        self.commit()
        finding_id = self._landing.stop(page, reason, since_id, is_leap=is_leap)
        return PageStopped(
            f"A page cannot be decoded: {reason}. Its bytes are kept, everything before it is "
            f"landed, and the feed waits. Decide on finding {finding_id} with the DAG "
            "resolve_findings."
        )

    def _advance(self, since_id: str | None, newest: PageEntry, fetched: _Fetched) -> None:
        self._position["since_id"] = newest.entry_id
        # What was written long before it was read is not going to grow neighbours any more.
        settled_before = fetched.arrived.received_at - timedelta(
            seconds=2 * self._settings.overlap_seconds
        )
        is_old = all(e.created_at and e.created_at < settled_before for e in fetched.entries)
        if is_old and self._position["reread_since_id"] == since_id:
            self._position["reread_since_id"] = newest.entry_id

    def _note_start(self, since_id: str | None, fetched: _Fetched) -> None:
        """Note, once, where the very first call began."""
        if "started" in self._position:
            return
        if self._gaps:
            began = "newest"
        elif since_id is not None:
            began = "first cursor"
        else:
            began = "oldest" if fetched.is_full else "short page"
        self._position["started"] = {
            "at": _now().isoformat(),
            "from": began,
            "first_entry_id": self._log.oldest(fetched.entries)[0].entry_id,
        }

    def _prove_order(self, since_id: str | None, fetched: _Fetched, budget: Budget) -> bool:
        """Whether this run's full pages are proven to hold the oldest entries after the cursor.

        If this one holds the newest instead, a gap is noted, and every further one is asked about.
        """
        if self._holds_oldest(since_id, fetched.entries, budget):
            # A page of one entry may have been all that there was, which says nothing of others.
            return self._limit > 1
        oldest_id = self._log.oldest(fetched.entries)[0].entry_id
        self._gaps.append(
            Gap(
                range_after=since_id,
                range_before=str(oldest_id),
                reason="a full page came with the newest entries, not with those next after the "
                "cursor. Its matches are asked for one by one; `try_again` with `continue_from` "
                "reads on from an entry id you know.",
                subjects=_subjects(fetched.entries),
            )
        )
        if self._position["reread_since_id"] == since_id:
            # The same call would give the newest again; the second reading begins with the page.
            self._position["reread_since_id"] = oldest_id
        return False

    def _holds_oldest(
        self, since_id: str | None, page: Sequence[PageEntry], budget: Budget
    ) -> bool:
        """Whether the same question for fewer entries gives the oldest of them."""
        # A page of one entry is compared with one of two.
        probe = self._fetch(since_id, 1 if self._limit > 1 else 2, budget).entries
        fewer, more = sorted((page, probe), key=len)
        if len(fewer) != 1:
            return False
        first_id = fewer[0].entry_id
        oldest_ids = {entry.entry_id for entry in self._log.oldest([*fewer, *more])}
        if first_id not in oldest_ids or len(oldest_ids) == 1:
            return first_id in oldest_ids
        # Of entries of one time, the first is the one after which the others are found.
        behind = self._fetch(first_id, self._limit, budget).entries
        return any(entry.entry_id in oldest_ids - {first_id} for entry in behind)

    def _is_passed(self, newest: PageEntry, passed: set[str | None]) -> bool:
        since_id = self._position["since_id"]
        return newest.entry_id in passed or (
            since_id is not None and is_behind(str(newest.entry_id), since_id)
        )

    def _commit_if_due(self) -> None:
        held = sum(len(page.records) for page in self._pages)
        waited = time.monotonic() - self._committed_at
        if held >= self._settings.land_commit_records or (
            waited >= self._settings.land_commit_seconds
        ):
            self._begin_commit()

    def commit(self) -> None:
        """Land what is held, with the position that it leads to."""
        self._begin_commit()
        self._end_commit()

    def _begin_commit(self) -> None:
        """Begin it; each goes on from where the one before has moved the cursor."""
        self._end_commit()
        self._drop_anchor()
        if self._pages or self._gaps:
            self._under_way = self._writer.submit(
                self._landing.commit, self._pages, self._cursor, dict(self._position), self._gaps
            )
        self._pages, self._gaps = [], []
        self._committed_at = time.monotonic()

    def _end_commit(self) -> None:
        """Wait for the commit that is under way; what it raises is raised here, once."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self._cursor = under_way.result()

    def _drop_anchor(self) -> None:
        anchors = self._position["anchors"]
        since_id = self._position["since_id"]
        if since_id is None or since_id == self._position["reread_since_id"]:
            return
        if anchors and (
            anchors[-1]["entry_id"] == since_id
            or _now() - _at(anchors[-1]["seen_at"]) < _ANCHOR_SPACING
        ):
            return
        self._position["anchors"] = [
            *anchors,
            {"entry_id": since_id, "seen_at": _now().isoformat()},
        ]

    def _circle(self, since_id: str | None, newest: PageEntry | None) -> Fatal:
        self.commit()
        return Fatal(
            self._client.provider,
            f"The page after entry {since_id} leads back to entry "
            f"{newest.entry_id if newest else None}, which was passed before. What was landed is "
            "kept, and the cursor stays.",
            "Ask the provider why its log does not advance, then clear this task.",
        )


def _arrived(answer: Answer, page: Page | None) -> ArrivedPage:
    return ArrivedPage(
        request=f"GET {answer.url_path}",
        requested_at=answer.requested_at,
        received_at=answer.received_at,
        body=answer.body,
        http_status=answer.status,
        content_type=answer.content_type,
        records=[(e.record, e.content_sha256) for e in page.entries] if page else [],
        provider_count=page.provider_count if page else None,
        unknown_fields=page.unknown_fields if page else frozenset(),
    )


def _leaps(newest: PageEntry, fetched: _Fetched, since_id: str | None) -> bool:
    """Whether an entry is farther ahead of the one before it than a log can have gone on.

    By number if there are numbers to compare, else by the newest entry's time.
    """
    ids = {one for one in (since_id, *(e.entry_id for e in fetched.entries)) if one is not None}
    if len(ids) > 1 and all(one.isdecimal() for one in ids):
        return any(b - a > _LONGEST_LEAP for a, b in pairwise(sorted(map(int, ids))))
    told_at = newest.created_at
    return told_at is not None and told_at > fetched.arrived.received_at + timedelta(days=1)


def _gap_where_nothing_is_shown(since_id: str | None, target: str) -> Gap:
    """An append-only log cannot end before an entry that it has shown: the page may be at fault.

    It must not hold up what comes after, so reading goes on there and a person is asked.
    """
    return Gap(
        range_after=since_id,
        range_before=target,
        reason="read a second time, the log showed no entry there, though it had shown the last "
        "one named before. All that was read the first time is landed; what became visible late "
        "would be missing. `try_again` with `continue_from` reads the range once more.",
    )


def _subjects(entries: Sequence[PageEntry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(e.match_id for e in entries if e.match_id is not None))


def _now() -> datetime:
    return datetime.now(UTC)


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
