"""Posting: attempts are committed, sent by threads, and closed with what came of each.

What is to be sent, and what becomes of what was not, is decided by `sending`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import Any, NamedTuple

import tenacity
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from include.payouts import answers, attempts
from include.payouts.answers import Closed, Told
from include.payouts.attempts import Attempt, Batch, Sender, Stage
from include.payouts.judging import judge_answer, judge_error, judge_unsent
from include.payouts.partner import Wire
from include.providers import wallet
from include.providers.deadlines import now
from include.providers.errors import Retriable
from include.providers.http import Answer
from include.settings import Settings


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OperationalError | PoolTimeoutError) and not _is_locked(error)


# An answer is worth a minute's waiting for a warehouse that restarts, and some for a payout that
# somebody has locked.
_STORING = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_may_pass),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_exponential(multiplier=0.1, max=5),
    reraise=True,
)
_STORING_LOCKED = _STORING.copy(
    retry=tenacity.retry_if_exception_type((OperationalError, PoolTimeoutError)),
    stop=tenacity.stop_after_delay(180),
)


class Waiting(NamedTuple):
    """Payouts for one request, how often it was not executed, and when it may be tried next."""

    batch: Batch
    tries: int = 0
    may_begin_at: float = 0.0


class _Heard(NamedTuple):
    """What a request was answered with or ended by, not yet judged; `unsent` says why it was not
    even tried.
    """

    attempt: Attempt
    answer: Answer | None = None
    error: Exception | None = None
    unsent: str | None = None


class Delivery(NamedTuple):
    """What came of one request, and how long the partner asked us to wait; `is_begun` is false if
    it was not even tried.
    """

    told: Told
    retry_after: float | None
    is_begun: bool


class _Stored(NamedTuple):
    """Requests whose answers are stored, and what these made of their payouts."""

    deliveries: list[Delivery]
    closed: Closed


class Came(NamedTuple):
    """Requests that are over, with what they were to send, and what all made of their payouts."""

    requests: Sequence[tuple[Delivery, Waiting]] = ()
    closed: Closed = Closed()


class Posting:
    """The requests of one tenure of the sender lock, several at once.

    They are posted by threads that know nothing but their attempt.  Attempts are committed by the
    thread that calls, answers are judged and stored by another one; several in one transaction,
    whichever are there.  For each request under way one more is committed, so that nobody waits for
    the warehouse.
    """

    def __init__(self, engine: Engine, wire: Wire, settings: Settings, sender: Sender) -> None:
        self._engine = engine
        self._wire = wire
        self._settings = settings
        self._sender = sender
        self._codes = wallet.item_codes(settings)
        self._longest_wait = (
            min(settings.wallet_lease_seconds, settings.wallet_deadline_seconds) / 2
        )
        self._stop = threading.Event()
        self._recalled = threading.Event()
        self._heeding = threading.Lock()
        self._not_before = 0.0
        self._pool = ThreadPoolExecutor(settings.wallet_requests_at_once, "send")
        self._storer = ThreadPoolExecutor(1, "store")
        self._waiting: list[Waiting] = []
        self._under_way: dict[Future[_Heard], Waiting] = {}
        self._storing: dict[Future[_Stored], list[Future[_Heard]]] = {}

    def close(self) -> None:
        """Let the requests under way come to their end, and begin no other."""
        self._stop.set()
        self._pool.shutdown()
        self._storer.shutdown()

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way, or waits to be begun."""
        return bool(self._under_way or self._waiting)

    @property
    def stages_in_hand(self) -> set[Stage]:
        """Those of which anything is under way, or waits to be begun."""
        return {each.batch.stage for each in chain(self._waiting, self._under_way.values())}

    def add(self, *waiting: Waiting) -> None:
        """Have these begun before anything else, the last of them first."""
        self._waiting += waiting

    def recall(self) -> None:
        """Begin nothing of what waits or is committed; what comes once it is over is begun."""
        self._waiting.clear()
        self._recalled.set()

    def pause(self, seconds: float) -> None:
        """Wait, unless nothing is to be begun any more."""
        self._stop.wait(seconds)

    def begin(self, batches: Iterator[Batch]) -> bool:
        """Commit the next attempts and leave them to the threads; False if there were none.

        Those to be tried again come first.  For each thread one attempt waits.  Nothing is begun
        before the moment that the wallet has asked for.
        """
        if not self._under_way:
            self._recalled.clear()
        elif now() < self._not_before:
            return True
        moment = now()
        next_up = [each for each in reversed(self._waiting) if each.may_begin_at <= moment][
            : self._free
        ]
        for each in next_up:
            self._waiting.remove(each)
        room = max(0, self._free - len(next_up) - len(self._waiting))
        next_up += [Waiting(batch) for batch in islice(batches, room)]
        if not next_up:
            return False
        self.pause(max(0.0, self._not_before - now()))
        committed = attempts.commit_attempts(
            self._engine,
            self._sender,
            [each.batch for each in next_up],
            self._settings.wallet_deadline_seconds,
        )
        for waiting, attempt in zip(next_up, committed, strict=True):
            if attempt is not None:
                self._under_way[self._pool.submit(self._ask, attempt)] = waiting
        return True

    @property
    def _free(self) -> int:
        """How many attempts may be committed: answers that wait to be stored take no thread."""
        at_once = self._settings.wallet_requests_at_once
        unanswered = sum(not future.done() for future in self._under_way)
        return min(2 * at_once - unanswered, 4 * at_once - len(self._under_way))

    def harvest(self) -> Came:
        """Wait until something has come; what was answered is stored, and told once it is."""
        seconds = None
        if self._waiting and self._free > 0:
            soonest = min(each.may_begin_at for each in self._waiting)
            seconds = max(0.0, max(soonest, self._not_before) - now())
        if not self._under_way:
            self._stop.wait(seconds or 0.0)
        unanswered = [future for future in self._under_way if not future.done()]
        awaited: list[Future[Any]] = [*unanswered, *self._storing]
        wait(awaited, seconds, FIRST_COMPLETED)
        came = self.stored()
        answered = [future for future in self._under_way if future.done()]
        if answered and not self._storing:
            self._storing[self._storer.submit(self._store, answered)] = answered
        return came

    def stored(self) -> Came:
        """What has been stored since."""
        came = Came()
        for storing in [future for future in self._storing if future.done()]:
            answered = self._storing.pop(storing)
            taken = self._taken(answered, storing.result())
            came = Came([*came.requests, *taken.requests], came.closed + taken.closed)
        return came

    def finish(self) -> None:
        """What was begun gets its answer, or its deadline; what is not begun stays so."""
        self._stop.set()
        wait(self._under_way)
        wait(self._storing)

    def store_answered(self) -> Came:
        """Store, once all is finished, what was answered and is not stored."""
        answered = [each for each in self._under_way if each.exception() is None]
        return self._taken(answered, self._store(answered)) if answered else Came()

    def _taken(self, answered: list[Future[_Heard]], stored: _Stored) -> Came:
        """Requests that are over, in the order in which they were begun."""
        sent = [self._under_way.pop(future) for future in answered]
        requests = zip(stored.deliveries, sent, strict=True)
        return Came(sorted(requests, key=lambda each: each[0].told.attempt_id), stored.closed)

    def _ask(self, attempt: Attempt) -> _Heard:
        """In a thread of its own: send the attempt, and hear what the partner says."""
        if self._stop.is_set():
            return _Heard(attempt, unsent="the run stopped before it")
        if self._recalled.is_set():
            return _Heard(attempt, unsent="its currency was passed over before it")
        if now() < self._not_before:
            return _Heard(attempt, unsent="the wallet asked to wait before it")
        if now() - attempt.begun_at > self._longest_wait:
            # Another one is committed in its place: under the lock, and with its whole time.  What
            # is left of this one may be less than the request took that it waited for.
            return _Heard(attempt, unsent="it waited for too long before it was sent")
        try:
            answer = self._wire.post(attempt)
        except Exception as error:  # noqa: BLE001
            # Whatever it is: unless it says that nothing was sent, the payouts are in doubt.
            return _Heard(attempt, error=error)
        if answer.status == 429:
            self._heed(answer.retry_after or 0.0)
        return _Heard(attempt, answer=answer)

    def _heed(self, seconds: float) -> None:
        """Have all requests wait, not only the one that is asked to."""
        with self._heeding:
            self._not_before = max(self._not_before, now() + seconds)

    def _store(self, answered: list[Future[_Heard]]) -> _Stored:
        """Judge what was heard, and store it."""
        deliveries = [self._judge_heard(future.result()) for future in answered]
        return _Stored(deliveries, self._close([delivery.told for delivery in deliveries]))

    def _judge_heard(self, heard: _Heard) -> Delivery:
        attempt, answer, error, unsent = heard
        if answer is not None:
            judgement = self._wire.judged_without_key(
                judge_answer(attempt.items, answer, self._codes)
            )
            told = Told(attempt.attempt_id, judgement, self._wire.without_key(answer))
            return Delivery(told, answer.retry_after, is_begun=True)
        if error is not None:
            told = Told(attempt.attempt_id, judge_error(list(attempt.items), error), None)
            return Delivery(told, _retry_after(error), is_begun=True)
        told = Told(attempt.attempt_id, judge_unsent(attempt.items, unsent or ""), None)
        return Delivery(told, None, is_begun=False)

    def _close(self, told: list[Told]) -> Closed:
        """Store answers, trying again while the warehouse is away: they will not come again."""
        try:
            return self._close_together(told, _STORING)
        except (DataError, IntegrityError, OperationalError) as error:
            if isinstance(error, OperationalError) and not _is_locked(error):
                raise
            # One that cannot be stored must not cost the others theirs.
            return self._close_each(told)

    def _close_each(self, told: list[Told]) -> Closed:
        """Store answers one by one; last, and longest, those whose payouts somebody has locked."""
        closed = Closed()
        locked: list[Told] = []
        failure: DBAPIError | None = None
        for each in told:
            try:
                closed += self._close_together([each], _STORING)
            except (DataError, IntegrityError) as error:
                failure = error
            except OperationalError as error:
                if not _is_locked(error):
                    raise
                locked.append(each)
        for each in locked:
            try:
                closed += self._close_together([each], _STORING_LOCKED)
            except DBAPIError as error:
                failure = error
        if failure is not None:
            raise failure
        return closed

    def _close_together(self, told: list[Told], storing: tenacity.Retrying) -> Closed:
        return storing.copy()(
            answers.close_attempts,
            self._engine,
            self._sender,
            told,
            is_idempotent=self._settings.wallet_partner_idempotent,
        )


def _retry_after(error: BaseException) -> float | None:
    return error.retry_after if isinstance(error, Retriable) else None
