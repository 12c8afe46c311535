"""What tote's socket says of bets: reasons to ask about them sooner, and nothing else.

Nothing is settled on a hint.  A message says neither when nor in which order something happened,
comes early, twice or never, and what was told while nobody listened is not told again.  So it is
kept as evidence, moves its bet to the front of those to be asked about, and is then compared with
what GraphQL says.  Whoever loses every message loses nothing but time.

One process of all listens at a time, in sessions that end before the next run begins.  A silent
socket is a sound one: how often it has something to say, or shows that it lives, is not documented.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text

from include.model import Record
from include.providers.errors import Fatal, ProviderError, Retriable
from include.providers.streams import GOES_ON, RECEIVED_IS_KEPT, Socket
from include.providers.tote import (
    PONG_FRAME,
    PROVIDER,
    SUBSCRIPTIONS,
    BrokenHint,
    Hint,
    HintFeed,
    Notice,
    read_hint,
)
from include.settings import Settings
from include.warehouse.landing import Landing
from include.warehouse.leases import Lease, LeaseHeld, LeaseLost, hold_lease
from include.warehouse.pages import ArrivedPage
from include.warehouse.quarantine import report_quarantined

_log = logging.getLogger(__name__)

FEED = "hints"
LEASE = f"{PROVIDER}/socket"

_LONGEST_LOOK_SECONDS = 1.0
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
# Messages that are held until they are committed: a bound for those that are large.
_COMMIT_BYTES = 16 * 2**20
# Never the key of a bet's own records, between whose states a message must not stand.
_KEY = "hint/"


@dataclass(frozen=True)
class Heard:
    """What one session heard, in counts; `note` says why it ended where it did.

    `messages` are those about bets, `landed` those of them that were kept; `batch_id` is None if
    the session was left to another run.
    """

    batch_id: int | None
    connections: int
    messages: int
    landed: int
    note: str


def listen(
    engine: Engine,
    feed: HintFeed,
    settings: Settings,
    run_id: str | None,
    *,
    is_by_hand: bool = False,
) -> Heard:
    """Hear the socket for one session, connecting anew whenever the connection is lost.

    Short, if the run was started by hand: somebody waits for it.  Every message is landed as
    evidence, and its bet moved to the front, in one transaction; what comes within
    `land_commit_seconds` is committed together.  Raises `Fatal` if tote refuses the key or what it
    is asked for, and `Retriable` if no connection came about in the whole session; what was heard
    before is kept.
    """
    session_seconds = settings.tote_listen_seconds
    if is_by_hand:
        session_seconds = min(session_seconds, settings.tote_listen_by_hand_seconds)
    ends_at = time.monotonic() + session_seconds
    seconds = settings.stream_lease_seconds
    patience = min(seconds, session_seconds)
    try:
        with hold_lease(engine, "loader", LEASE, run_id, seconds, patience=patience) as lease:
            landing = Landing(engine, PROVIDER, FEED, "latest", run_id, "evidence", lease=lease)
            return _Session(feed, landing, lease, settings, ends_at).run()
    except (LeaseHeld, LeaseLost) as left_to_another:
        return Heard(None, 0, 0, 0, str(left_to_another))


@dataclass(frozen=True)
class _Message:
    """A message that is to be landed; `hint` is None if it cannot be read, `reason` why."""

    body: bytes
    received_at: datetime
    record_key: str
    content_sha256: bytes
    hint: Hint | None
    reason: str = ""


class _Session:
    """Hears messages until `ends_at` (monotonic seconds), and commits them when some are due."""

    def __init__(
        self, feed: HintFeed, landing: Landing, lease: Lease, settings: Settings, ends_at: float
    ) -> None:
        self._feed = feed
        self._landing = landing
        self._lease = lease
        self._settings = settings
        self._ends_at = ends_at
        self._began_at = datetime.now(UTC)
        self._connections = self._messages = self._landed = self._bytes = 0
        self._held: list[_Message] = []
        self._held_bytes = 0
        self._committed_at = time.monotonic()
        self._refused: set[str] = set()

    def run(self) -> Heard:
        """Hear what is told; what was heard before a `ProviderError` is landed all the same."""
        failure: ProviderError | None = None
        try:
            self._listen()
        except ProviderError as error:
            failure = error
        self._commit()
        batch_id = self._landing.close(has_reached_end=False).batch_id
        if failure is not None:
            raise failure
        note = f"{self._messages} messages were heard over {self._connections} connections."
        if self._refused:
            note += f" tote refuses to tell of {', '.join(sorted(self._refused))}."
        return Heard(batch_id, self._connections, self._messages, self._landed, note)

    def _listen(self) -> None:
        """Connect until the session is over, waiting longer each time that nothing comes of it."""
        in_vain = 0
        while True:
            heard_before = self._messages
            try:
                return self._hear_one_connection()
            except Retriable as error:
                lost = error
            self._commit()
            in_vain = in_vain + 1 if self._messages == heard_before else 0
            self._wait(lost, in_vain)
            if self._is_over():
                break
        if not self._connections:
            raise lost

    def _hear_one_connection(self) -> None:
        """Hear messages until the session is over; what ends the connection before is raised."""
        self._check_ours()
        with closing(self._feed.connect()) as socket:
            self._connections += 1
            self._refused = set()
            look = min(_LONGEST_LOOK_SECONDS, self._settings.land_commit_seconds)
            while not self._is_over():
                body = socket.receive(min(look, max(self._ends_at - time.monotonic(), 0.0)))
                if body is not None:
                    self._take(socket, body)
                self._check_ours()
                self._commit_if_due()

    def _wait(self, lost: Retriable, in_vain: int) -> None:
        seconds = min(_FIRST_WAIT_SECONDS * 2 ** max(in_vain - 1, 0), _LONGEST_WAIT_SECONDS)
        seconds = max(seconds, lost.retry_after or 0.0)
        _log.info("%s The next connection is made in %g s.", lost.happened, seconds)
        time.sleep(max(min(seconds, self._ends_at - time.monotonic()), 0.0))

    def _check_ours(self) -> None:
        if self._lease.has_run_out:
            raise LeaseLost(self._lease)

    def _is_over(self) -> bool:
        return (
            time.monotonic() >= self._ends_at
            or self._messages >= self._settings.tote_listen_messages
            or self._bytes >= self._settings.land_bytes_limit
        )

    def _take(self, socket: Socket, body: bytes) -> None:
        self._bytes += len(body)
        if not body or body.isspace():
            _log.warning("A message without any content was passed over.")
            return
        message = read_hint(body)
        if isinstance(message, Notice):
            self._heed(socket, message)
            return
        self._messages += 1
        self._held_bytes += len(body)
        self._held.append(_held(body, message))

    def _heed(self, socket: Socket, notice: Notice) -> None:
        """Do what a message about no bet asks for; most ask for nothing."""
        if notice.kind == "ping":
            socket.send(PONG_FRAME)
        elif notice.kind == "complete":
            raise Retriable(
                PROVIDER,
                f"It ended a subscription ({notice.subscription}). {RECEIVED_IS_KEPT}",
                GOES_ON.format(provider=PROVIDER),
            )
        elif notice.kind == "error" and notice.subscription is not None:
            _log.warning("tote refuses to tell of %s.", notice.subscription)
            self._refused.add(notice.subscription)
            if self._refused == SUBSCRIPTIONS.keys():
                raise _nothing_is_told()

    def _commit_if_due(self) -> None:
        if (
            len(self._held) >= self._settings.land_commit_records
            or self._held_bytes >= _COMMIT_BYTES
            or time.monotonic() - self._committed_at >= self._settings.land_commit_seconds
        ):
            self._commit()

    def _commit(self) -> None:
        """Land what is held, and move its bets to the front."""
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._landed += self._landing.add(
                self._page(held),
                also=lambda connection: _enter(connection, self._landing.batch_id, held),
            )
        self._committed_at = time.monotonic()

    def _page(self, messages: Sequence[_Message]) -> ArrivedPage:
        """The messages as they came, a line break between each two."""
        records, start = [], 0
        for one in messages:
            records.append((Record(one.record_key, start, len(one.body)), one.content_sha256))
            start += len(one.body) + 1
        return ArrivedPage(
            request=f"GET {self._settings.tote_socket_path}",
            requested_at=self._began_at,
            received_at=messages[-1].received_at,
            body=b"\n".join(one.body for one in messages),
            http_status=None,
            content_type=None,
            records=records,
            unreadable={one.record_key: one.reason for one in messages if one.hint is None},
        )


def _held(body: bytes, message: Hint | BrokenHint) -> _Message:
    now, digest = datetime.now(UTC), message.content_sha256
    if isinstance(message, BrokenHint):
        return _Message(body, now, message.record.record_key, digest, None, message.reason)
    return _Message(body, now, f"{_KEY}{message.bet_id}", digest, message)


def _nothing_is_told() -> Fatal:
    return Fatal(
        PROVIDER,
        f"It refuses every subscription at its socket. {RECEIVED_IS_KEPT}",
        f"Ask {PROVIDER} whether its API has changed, or have its socket speak plain JSON by "
        "SETTLEMENTS_TOTE_SUBPROTOCOLS=[], then clear this task. Bets are asked about all the "
        "same.",
    )


def _enter(connection: Connection, batch_id: int, held: Sequence[_Message]) -> None:
    """Note the hints that were landed as new, and have every bet they name asked about first.

    A message that came before is no hint of its own, but may well mean something new.
    """
    told = json.dumps([_as_row(one, one.hint) for one in held if one.hint is not None])
    connection.execute(text(_ENTER_HINTS), {"told": told, "batch_id": batch_id})
    connection.execute(text(_HURRY_BETS), {"told": told})
    if any(one.hint is None for one in held):
        report_quarantined(connection, PROVIDER, batch_id)


def _as_row(message: _Message, hint: Hint) -> dict[str, str | None]:
    amount = hint.return_amount
    return {
        "record_key": message.record_key,
        "sha256": message.content_sha256.hex(),
        "tote_id": hint.bet_id,
        "message_type": hint.message_type,
        "return_amount": None if amount is None else str(amount),
        "received_at": message.received_at.isoformat(),
    }


_ENTER_HINTS = """
INSERT INTO tote.hint (record_id, tote_id, message_type, return_amount, received_at)
SELECT record_id, tote_id, message_type, return_amount, told.received_at
FROM jsonb_to_recordset(CAST(:told AS jsonb)) AS told(
    record_key text, sha256 text, tote_id text, message_type text, return_amount numeric,
    received_at timestamptz
)
JOIN raw.record ON source = 'tote' AND record.record_key = told.record_key
    AND content_sha256 = decode(sha256, 'hex') AND batch_id = :batch_id
ORDER BY record_id, told.received_at
ON CONFLICT (record_id) DO NOTHING
"""
_HURRY_BETS = """
INSERT INTO tote.bet (tote_id, entered_by, hinted_at)
SELECT DISTINCT tote_id, 'hint', now()
FROM jsonb_to_recordset(CAST(:told AS jsonb)) AS told(tote_id text)
ORDER BY tote_id
ON CONFLICT (tote_id) DO UPDATE SET
    hinted_at = now(),
    next_ask_at = now(),
    state = CASE bet.state WHEN 'done' THEN 'final' ELSE bet.state END
"""
