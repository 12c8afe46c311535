"""Acquire by asking: bets are listed once, and asked for by their ids until they are final.

tote tells no time of settlement and no order of what happened, so there is nothing to read on
after.  There are two things to do instead, each bounded, and neither waits for the other:

- **Listing** finds the bets.  Windows of the time at which bets were made are listed page by page,
  each page landed, its bets entered into the register and the place in the window moved in one
  transaction.  A window counts once all its pages have come and hold as many bets as tote says
  there are; else it is listed anew in the next run.
- **Asking** follows them.  What is due (`register`) is asked for by its ids, as many at a time as
  tote allows; a state that is new lands, in whatever order states come.  A question that tote
  answers with a failure is asked in halves, so that one bet which it fails for holds up no others.

A position holds `listed_until`, and while a window is listed that one: `since`, `until`, `after`,
and what was counted in it.  An answer that cannot be decoded stops both until a person has decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Literal, Self

from sqlalchemy import Connection, Engine

from include.catchup import bet_register, confirming
from include.catchup.bet_register import Claim, Told
from include.catchup.log import Budget, PageStopped
from include.providers.errors import KEPT, Fatal, PageUndecodable, ProviderError, Retriable
from include.providers.http import Answer, Client
from include.providers.tote import Page, PageEntry, Standing, Totals
from include.settings import Settings
from include.warehouse.findings import Finding, close_if_open, open_finding
from include.warehouse.landing import Also, Cursor, CursorMoved, Landing
from include.warehouse.pages import ArrivedPage

_log = logging.getLogger(__name__)

# Most of a run is for what is open: a bet that is listed a run later is no settlement missed.
_SHARE_OF_LISTING = 0.25

# With these it did answer: what failed may be about what was asked for, and not tote itself.
_ANSWERED = frozenset({HTTPStatus.OK, HTTPStatus.BAD_REQUEST})
# Tote itself fails if it answers so often in a row for none.  More than halving 250 bets down to
# one takes, so that each run finds at least one that may be to blame.
_MOST_FAILURES = 12
# A place in the list that failed so often in a row has expired.
_MOST_FAILURES_AT_A_PLACE = 3

# A window after one more page: it goes on, or it is complete and adds up, or does not.
Listed = Literal["open", "closed", "differs"]


@dataclass(frozen=True)
class Poll:
    """How one provider's bets are asked for: by their ids, or those made in a period."""

    fetch_named: Callable[[Client, Sequence[str]], Answer]
    fetch_period: Callable[[Client, datetime, datetime, str | None, int], Answer]
    read_page: Callable[[bytes], Page]
    next_cursor: Callable[[Page], str | None]
    standing: Callable[[bytes], Standing | None]
    totals_of: Callable[[Sequence[bytes]], Totals | None]
    longest_period: timedelta
    most_named: int
    page_limit: Callable[[Settings], int]


@dataclass(frozen=True)
class PollRead:
    """What one run came to: whether nothing was left to list or to ask for, and in words."""

    has_reached_end: bool
    note: str


@dataclass(frozen=True)
class Window:
    """A span of the time at which bets were made (UTC), as far as it is listed.

    `after` is where its next page begins, and has failed `failures` times in a row.  `counted` bets
    have come, their stakes by currency; the stakes are None if one of them could not be read.
    """

    since: datetime
    until: datetime
    after: str | None = None
    counted: int = 0
    stakes: dict[str, Decimal] | None = None
    failures: int = 0

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """As a position holds it."""
        stakes = stored["stakes"]
        return cls(
            datetime.fromisoformat(stored["since"]),
            datetime.fromisoformat(stored["until"]),
            stored["after"],
            stored["counted"],
            None if stakes is None else {name: Decimal(told) for name, told in stakes.items()},
            stored.get("failures", 0),
        )

    def to_json(self) -> dict[str, Any]:
        """For a position."""
        stakes = self.stakes
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "after": self.after,
            "counted": self.counted,
            "stakes": None if stakes is None else {name: str(one) for name, one in stakes.items()},
            "failures": self.failures,
        }

    def with_page(self, bets: int, sums: Totals | None, after: str | None) -> Window:
        """With one more page in it, behind which the list goes on `after` that."""
        known = {} if self.counted == 0 else self.stakes
        return replace(
            self,
            after=after,
            failures=0,
            counted=self.counted + bets,
            stakes=None if known is None or sums is None else _sum(known, sums.stakes or {}),
        )


def place_of_listing(position: dict[str, Any]) -> str | None:
    """A position as one number that only grows, in Unix seconds; None at the very beginning."""
    told = position.get("listed_until")
    return None if told is None else str(int(datetime.fromisoformat(told).timestamp()))


def next_window(
    position: dict[str, Any], now: datetime, longest: timedelta, settings: Settings
) -> Window | None:
    """What is to be listed next: what is left of a window, or a new one; None if nothing is."""
    if "window" in position:
        return Window.from_json(position["window"])
    until = now - timedelta(seconds=settings.tote_listing_lag_seconds)
    listed_until = position.get("listed_until")
    if listed_until is None:
        since = now - timedelta(hours=settings.tote_first_since_hours)
    else:
        overlap = timedelta(seconds=settings.tote_listing_overlap_seconds)
        since = datetime.fromisoformat(listed_until) - overlap
    return Window(since, min(until, since + longest)) if since < until else None


def read_poll(
    poll: Poll, client: Client, landing: Landing, engine: Engine, settings: Settings
) -> PollRead:
    """List what is new and ask for what is due, within the settings' bounds.

    Raises `ProviderError` as the client does, and `PageStopped` for an answer that cannot be
    decoded; what was committed before stays landed.
    """
    cursor = landing.read_cursor()
    if cursor.stopped_by_finding_id is not None:
        return PollRead(
            has_reached_end=False,
            note=f"Nothing was asked for: the feed waits for a decision on finding "
            f"{cursor.stopped_by_finding_id}. Use the DAG resolve_findings.",
        )
    reader = _Reader(poll, client, landing, engine, settings, cursor)
    is_listed, failure = False, None
    try:
        is_listed = reader.list_bets(Budget.share(settings, _SHARE_OF_LISTING))
    except ProviderError as error:
        # What is open is asked for all the same.
        failure = error
    is_asked = reader.ask_for_due(Budget.share(settings, 1 - _SHARE_OF_LISTING))
    if failure is not None:
        raise failure
    left = [
        *([] if is_listed else ["bets are left to be listed"]),
        *([] if is_asked else ["bets are left that are due"]),
    ]
    if left:
        return PollRead(has_reached_end=False, note=f"{' and '.join(left)}; the next run goes on.")
    return PollRead(has_reached_end=True, note="Every bet is listed, and none is due.")


class _Reader:
    """Asks one question after the other, and lands each answer before the next is asked."""

    def __init__(
        self,
        poll: Poll,
        client: Client,
        landing: Landing,
        engine: Engine,
        settings: Settings,
        cursor: Cursor,
    ) -> None:
        self._poll = poll
        self._client = client
        self._landing = landing
        self._engine = engine
        self._settings = settings
        self._cursor = cursor
        # Whoever was claimed since then may have been told anew before a page of ours was.
        self._began_at = bet_register.look_at_clock(engine)
        # Questions that failed since one was answered, and those of them about one bet alone.
        self._is_list_answered = False
        self._failures = 0
        self._doubted: list[tuple[Claim, ProviderError]] = []

    def list_bets(self, budget: Budget) -> bool:
        """List windows up to the present; True if that was reached."""
        now = datetime.now(UTC)
        present = now - timedelta(seconds=self._settings.tote_listing_lag_seconds)
        try:
            while budget.is_left:
                position = self._cursor.position
                window = next_window(position, now, self._poll.longest_period, self._settings)
                if window is None:
                    return True
                listed = self._list_page(window, budget)
                if listed == "differs":
                    return False
                if listed == "closed" and window.until >= present:
                    return True
        except CursorMoved as moved:
            _log.info("%s", moved)
        return False

    def ask_for_due(self, budget: Budget) -> bool:
        """Ask for what is due until nothing is; True if that was reached."""
        is_first, has_reached_end = True, False
        limit = self._poll.most_named
        try:
            while budget.is_left and not has_reached_end:
                claimed = bet_register.claim(
                    self._engine, limit, self._settings, is_alone_first=is_first
                )
                self._ask_in_parts(claimed, budget)
                is_first, has_reached_end = False, not claimed.tote_ids
            if self._is_list_answered:
                self._postpone_doubted()
        finally:
            for part, _ in self._doubted:
                bet_register.ask_alone(self._engine, part)
        if self._doubted:
            # Nothing tells whether it is these bets or tote itself.
            raise self._doubted[0][1]
        return has_reached_end

    def _ask_in_parts(self, claimed: Claim, budget: Budget) -> None:
        """Ask for bets, and in halves where that fails; what is not asked for comes due again."""
        left = [claimed] if claimed.tote_ids else []
        try:
            while left and budget.is_left:
                try:
                    self._ask(left[-1], budget)
                except ProviderError as error:
                    left[-1:] = self._halves(left[-1], error)
                else:
                    left.pop()
                    self._postpone_doubted()
        finally:
            for part in left:
                bet_register.release(self._engine, part)

    def _halves(self, failed: Claim, error: ProviderError) -> list[Claim]:
        """What to ask instead; raises `error` if that is about tote itself."""
        self._failures += 1
        if error.status not in _ANSWERED or self._failures >= _MOST_FAILURES:
            raise error
        if len(failed.tote_ids) == 1:
            self._doubted.append((failed, error))
            return []
        # Those that were entered together, and are perhaps all wrong, lie side by side.
        halves = failed.tote_ids[::2], failed.tote_ids[1::2]
        return [Claim(tote_ids, failed.claimed_at) for tote_ids in halves]

    def _postpone_doubted(self) -> None:
        """Tote answers, so where it failed for one bet alone, that was about the bet."""
        for part, error in self._doubted:
            refusal = error.happened.removesuffix(f" {KEPT}")
            bet_register.postpone(self._engine, part, refusal, self._settings)
            _log.warning("Bet %s is left for later: %s", part.tote_ids[0], refusal)
        self._doubted, self._failures = [], 0

    def _ask(self, claimed: Claim, budget: Budget) -> None:
        answer = self._poll.fetch_named(self._client, claimed.tote_ids)
        budget.spend(answer.body)
        request = f"{len(claimed.tote_ids)} bets from {min(claimed.tote_ids)} on"
        page = self._read(answer, request, {"tote_ids": claimed.tote_ids})
        told = {entry.tote_id for entry in page.entries}
        absent = [tote_id for tote_id in claimed.tote_ids if tote_id not in told]
        self._landing.add(
            _arrived(answer, request, page),
            also=self._note(answer, page, absent, claimed.claimed_at),
        )

    def _list_page(self, window: Window, budget: Budget) -> Listed:
        """Land one page of a window, and move the cursor by it."""
        request = f"bets from {window.since.isoformat()} to {window.until.isoformat()}"
        if window.after is not None:
            request += f" after {window.after}"
        answer = self._fetch(window)
        self._is_list_answered = True
        budget.spend(answer.body)
        asked = {"since": window.since.isoformat(), "until": window.until.isoformat()}
        page = self._read(answer, request, asked, is_listed=True)
        after = self._poll.next_cursor(page)
        sums = self._poll.totals_of(_texts(answer.body, page.entries))
        listed = window.with_page(len(page.entries), sums, after)
        # A list that has more than it says there is would perhaps never end.
        is_too_long = page.totals.count is not None and listed.counted > page.totals.count
        is_closed = after is None or is_too_long
        agrees = page.totals.count in (None, listed.counted)
        note = self._note(answer, page, (), self._began_at)

        def also(connection: Connection) -> None:
            tote_ids = [entry.tote_id for entry in page.entries if entry.tote_id is not None]
            bet_register.enter(connection, tote_ids, "listing")
            note(connection)
            if is_closed:
                self._tell_sums(connection, listed, page, sums if window.after is None else None)
                self._tell_count(connection, listed, page, is_complete=agrees)

        position = {key: one for key, one in self._cursor.position.items() if key != "window"}
        if not is_closed:
            position["window"] = listed.to_json()
        elif agrees:
            # A gap that is listed again lies behind.
            position["listed_until"] = _latest(position.get("listed_until"), listed.until)
        self._cursor = self._landing.commit(
            [_arrived(answer, request, page)], self._cursor, position, also=also
        )
        if not is_closed:
            return "open"
        return "closed" if agrees else "differs"

    def _fetch(self, window: Window) -> Answer:
        limit = self._poll.page_limit(self._settings)
        try:
            return self._poll.fetch_period(
                self._client, window.since, window.until, window.after, limit
            )
        except ProviderError as error:
            is_answered = error.status in _ANSWERED
            # A key or a certificate says nothing of the place that was asked for.
            is_about_place = isinstance(error, Fatal) and error.fault is None
            if window.after is not None and (is_answered or is_about_place):
                self._note_failure(window, error)
            raise

    def _note_failure(self, window: Window, error: ProviderError) -> None:
        """It may be the place that fails: the window is listed from its beginning then."""
        position = {key: one for key, one in self._cursor.position.items() if key != "window"}
        failed = replace(window, failures=window.failures + 1)
        if isinstance(error, Retriable) and failed.failures < _MOST_FAILURES_AT_A_PLACE:
            position["window"] = failed.to_json()
        self._cursor = self._landing.commit([], self._cursor, position)

    def _read(
        self, answer: Answer, request: str, asked: dict[str, Any], *, is_listed: bool = False
    ) -> Page:
        """The answer taken apart; one that cannot be stops the feed."""
        try:
            page = self._poll.read_page(answer.body)
            if is_listed:
                self._poll.next_cursor(page)
        except PageUndecodable as error:
            arrived = _arrived(answer, request, None)
            finding_id = self._landing.stop_at_answer(arrived, error.reason, asked)
            raise PageStopped(
                f"An answer cannot be decoded: {error.reason}. Its bytes are kept, everything "
                f"before it is landed, and the feed waits. Decide on finding {finding_id} with the "
                "DAG resolve_findings."
            ) from error
        return page

    def _note(self, answer: Answer, page: Page, absent: Sequence[str], asked_at: datetime) -> Also:
        """Note in the register what an answer tells, then which hints that confirms."""
        texts = _texts(answer.body, page.entries)
        told = [
            Told(entry.tote_id, self._poll.standing(body), entry.content_sha256)
            for entry, body in zip(page.entries, texts, strict=True)
            if entry.tote_id is not None
        ]
        observed = [
            confirming.Observation(one.tote_id, one.standing, answer.requested_at)
            for one in told
            if one.standing is not None
        ]

        def note(connection: Connection) -> None:
            bet_register.note(connection, told, absent, asked_at, self._settings)
            confirming.confirm(connection, observed, self._settings)

        return note

    def _tell_count(
        self, connection: Connection, listed: Window, page: Page, *, is_complete: bool
    ) -> None:
        source, subject = self._landing.source, self._landing.feed
        if is_complete:
            close_if_open(connection, "listing_incomplete", source, subject)
            return
        since, until = listed.since.isoformat(), listed.until.isoformat()
        open_finding(
            connection,
            Finding(
                kind="listing_incomplete",
                source=source,
                subject=subject,
                summary=f"{source} says that {page.totals.count} bets were made from "
                f"{listed.since:%Y-%m-%d %H:%M:%S} to {listed.until:%Y-%m-%d %H:%M:%S} UTC, and "
                f"listed {listed.counted}.",
                kept="What was listed is landed and asked for. The next run lists the window anew, "
                "with what has been added since; this finding closes itself once it adds up.",
                detail={
                    "since": since,
                    "until": until,
                    "told": page.totals.count,
                    "listed": listed.counted,
                },
            ),
        )

    def _tell_sums(
        self, connection: Connection, listed: Window, page: Page, sums: Totals | None
    ) -> None:
        """Compare money with tote's own totals; told once, for what they mean is not documented.

        Stakes do not change once a bet is made, so those of all pages are compared.  Returns and
        refunds may change between two pages, so they are compared if there was only one.
        """
        alone = sums or Totals()
        compared = {
            "totalStakes": (page.totals.stakes, listed.stakes),
            "totalReturns": (page.totals.returns, alone.returns),
            "totalRefunds": (page.totals.refunds, alone.refunds),
        }
        for name, (told, counted) in compared.items():
            if told is None or counted is None or _without_zero(told) == _without_zero(counted):
                continue
            open_finding(
                connection,
                Finding(
                    kind="totals_differ",
                    source=self._landing.source,
                    subject=name,
                    summary=f"{self._landing.source} tells {_shown(told)} as {name} of the bets "
                    f"made from {listed.since:%Y-%m-%d %H:%M:%S} to "
                    f"{listed.until:%Y-%m-%d %H:%M:%S} UTC; those listed add up to "
                    f"{_shown(counted)}.",
                    kept="Every bet is landed as it was told. Ask the provider what it adds up: "
                    "this is told once for each total.",
                    detail={"since": listed.since.isoformat(), "until": listed.until.isoformat()},
                ),
                once=True,
            )


def _arrived(answer: Answer, request: str, page: Page | None) -> ArrivedPage:
    return ArrivedPage(
        request=f"POST {answer.url_path}: {request}",
        requested_at=answer.requested_at,
        received_at=answer.received_at,
        body=answer.body,
        http_status=answer.status,
        content_type=answer.content_type,
        records=[(one.record, one.content_sha256) for one in page.entries] if page else [],
        unknown_fields=page.unknown_fields if page else frozenset(),
    )


def _texts(body: bytes, entries: Sequence[PageEntry]) -> list[bytes]:
    spans = ((one.record.byte_start, one.record.byte_length) for one in entries)
    return [body[start : start + length] for start, length in spans]


def _latest(listed_until: str | None, until: datetime) -> str:
    known = until if listed_until is None else datetime.fromisoformat(listed_until)
    return max(known, until).isoformat()


def _sum(one: dict[str, Decimal], other: dict[str, Decimal]) -> dict[str, Decimal]:
    currencies = sorted({*one, *other})
    return {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in currencies}


def _without_zero(sums: dict[str, Decimal]) -> dict[str, Decimal]:
    return {currency: amount for currency, amount in sums.items() if amount}


def _shown(sums: dict[str, Decimal]) -> str:
    told = (f"{amount} {currency}" for currency, amount in sorted(sums.items()))
    return ", ".join(told) or "nothing"
