"""Ordering: that a market be settled, and that its failed positions be tried again.

An order cannot be undone, so its intent is committed before its first byte is sent, and what came
of it is stored with the answer's exact bytes.  After an order of which nothing is known its
deadline is waited for, and the status is read before anything is ordered again.  Nobody is trusted
to be the only one: of two that order at once, one finds the market moved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, func, insert, update

from include.markets.evidence import keep_answer
from include.markets.looking import has_begun
from include.markets.stopping import stop
from include.markets.troubles import REFUSES_ALL, each_market
from include.providers.deadlines import now
from include.providers.errors import Fatal, ProviderError, Retriable
from include.providers.http import Answer, Client
from include.providers.prediction import (
    Execution,
    SettleAnswer,
    classify_answer,
    classify_error,
    read_settle_answer,
    retry_settlements,
    settle,
)
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.markets import SOURCE, State, lock, may_be_under_way, move
from include.warehouse.tables import market_attempt

_log = logging.getLogger(__name__)

Post = Callable[..., Answer]
_CALM: dict[str, Any] = {"trouble": None, "troubled_since": None}


@dataclass(frozen=True)
class Ordered:
    """What one step ordered, in markets: those for which the engine took the order, those of which
    it is not known, and those that were not ordered or refused.
    """

    executed: int
    in_doubt: int
    not_executed: int


class _Told(NamedTuple):
    """What came of an order, with what the engine said if it said anything."""

    execution: Execution
    answer: Answer | None
    said: SettleAnswer
    detail: str | None
    retry_after: float | None = None

    @property
    def status(self) -> int | None:
        return None if self.answer is None else self.answer.status

    @property
    def is_as_before(self) -> bool:
        """Whether nothing happened, and not because of this market."""
        is_of_all = self.execution is Execution.REJECTED and self.status in REFUSES_ALL
        return is_of_all or self.execution is Execution.NOT_EXECUTED

    @property
    def is_foreign(self) -> bool:
        """Whether it was refused in words that are not the engine's: another server may be there,
        to which no market is known.
        """
        is_refused = self.execution is Execution.REJECTED and self.answer is not None
        is_engines = self.said.is_success is False and self.said.code is not None
        return is_refused and not is_engines and self.status not in REFUSES_ALL


def settle_markets(
    engine: Engine,
    client: Client,
    settings: Settings,
    market_ids: Sequence[str],
    run_id: str | None,
) -> Ordered:
    """Order that those of the markets be settled that are resolved, each at most once at a time.

    One of whose earlier order nothing is known is looked at first.  Raises `Fatal` if the engine
    refuses our key, or if nobody but another server answers.
    """
    orders = _Orders(engine, client, settings, run_id)
    each_market(engine, settings, market_ids, ("settling",), orders.look_whether_settled)
    each_market(engine, settings, market_ids, ("resolved",), orders.settle)
    orders.raise_if_another_answers()
    return orders.counted()


def retry_failed(
    engine: Engine,
    client: Client,
    settings: Settings,
    market_ids: Sequence[str],
    run_id: str | None,
) -> Ordered:
    """Order that the failed positions of those of the markets be tried again for which it is time.

    Raises `Fatal` if the engine refuses our key.
    """
    orders = _Orders(engine, client, settings, run_id)
    each_market(engine, settings, market_ids, ("retrying",), orders.retry)
    return orders.counted()


class _Orders:
    """The orders of one step."""

    def __init__(
        self, engine: Engine, client: Client, settings: Settings, run_id: str | None
    ) -> None:
        self._engine = engine
        self._client = client
        self._settings = settings
        self._pause = settings.prediction_look_seconds
        self._run_id = run_id
        self._executions: list[Execution] = []
        self._answers: list[_Told] = []

    def raise_if_another_answers(self) -> None:
        """Raise `Fatal` if orders were answered, and none of them by the engine."""
        if not self._answers or not all(told.is_foreign for told in self._answers):
            return
        raise Fatal(
            SOURCE,
            f"An order was refused with {self._answers[0].status} by what does not answer as the "
            "engine does. No market was settled by it, and none counts as refused.",
            "Check `base_url` in the extra of the Airflow connection `prediction`, which ends in "
            "/api/v1, then clear this task. If it is right, ask the engine's people why its answer "
            "names no error.",
            status=self._answers[0].status,
        )

    def counted(self) -> Ordered:
        executed = {Execution.EXECUTED, Execution.ALREADY_COMPLETED}
        doubtful = {Execution.IN_DOUBT, Execution.FAILED}
        taken, unknown = (
            sum(one in kinds for one in self._executions) for kinds in (executed, doubtful)
        )
        return Ordered(taken, unknown, len(self._executions) - taken - unknown)

    def look_whether_settled(self, market: Row[Any]) -> bool:
        """Find out what came of the last order to settle."""
        is_begun = has_begun(self._engine, self._client, market.market_id, self._run_id)
        with transaction(self._engine, "loader") as connection:
            lock_source(connection, SOURCE)
            _close_abandoned(connection, market)
            if is_begun:
                _go_on(connection, market, "waiting")
            elif market.settle_attempts >= self._settings.prediction_settle_attempts:
                stop(
                    connection,
                    market,
                    "refused",
                    f"was ordered to be settled {market.settle_attempts} times, and the engine "
                    "shows nothing of it",
                )
            else:
                _go_on(connection, market, "resolved")
        return True

    def settle(self, market: Row[Any]) -> bool:
        """Order that the market be settled, and store what came of it."""
        counted = {"settle_attempts": market.settle_attempts + 1}
        ordered = self._order(market, "settle", "settling", settle, counted)
        if ordered is None:
            return True
        attempt_id, moved, told = ordered
        with transaction(self._engine, "loader") as connection:
            lock_source(connection, SOURCE)
            self._store(connection, attempt_id, moved, "settle", told)
            match told.execution:
                case _ if told.is_as_before or told.is_foreign:
                    self._not_executed(connection, moved, "resolved", told, market)
                case Execution.EXECUTED | Execution.ALREADY_COMPLETED:
                    totals = told.said.totals
                    known = {} if totals is None else {"positions": totals.total_positions}
                    _go_on(connection, moved, "waiting", **known, **_CALM)
                case Execution.FAILED:
                    # What it did until then is told by the status.
                    _go_on(connection, moved, "settling", wait=self._pause, **_CALM)
                case Execution.REJECTED:
                    reason = f"is not settled by the engine: {told.detail}"
                    stop(connection, moved, "refused", reason, **_CALM)
                case _:
                    # In doubt: when the deadline is over, the status tells.
                    _go_on(connection, moved, "settling", wait=None, **_CALM)
        self._raise_if_all_are_refused(told)
        return told.answer is not None and not told.is_foreign

    def retry(self, market: Row[Any]) -> bool:
        """Order that what has failed of the market be tried again, and store what came of it."""
        if self._was_abandoned(market):
            return True
        counted = {"retry_attempts": market.retry_attempts + 1}
        ordered = self._order(market, "retry", "retrying", retry_settlements, counted)
        if ordered is None:
            return True
        attempt_id, moved, told = ordered
        with transaction(self._engine, "loader") as connection:
            lock_source(connection, SOURCE)
            self._store(connection, attempt_id, moved, "retry", told)
            match told.execution:
                case _ if told.is_as_before:
                    self._not_executed(connection, moved, "retrying", told, market)
                case Execution.IN_DOUBT:
                    _go_on(connection, moved, "waiting", wait=None, **_CALM)
                case Execution.FAILED:
                    _go_on(connection, moved, "waiting", wait=self._pause, **_CALM)
                case _:
                    # Also if it refuses: the status tells what is left.
                    _go_on(connection, moved, "waiting", **_CALM)
        self._raise_if_all_are_refused(told)
        return told.answer is not None

    def _order(
        self, market: Row[Any], call: str, state: State, post: Post, counted: dict[str, Any]
    ) -> tuple[int, Row[Any], _Told] | None:
        """Commit the intent, then send it; None if the market is not to be ordered any more."""
        seconds = self._settings.prediction_deadline_seconds
        deadline_at = func.clock_timestamp() + timedelta(seconds=seconds)
        with transaction(self._engine, "loader") as connection:
            lock(connection, market.market_id)
            # Nothing is ordered while an earlier order may still be carried out.
            if may_be_under_way(connection, market.market_id):
                return None
            # Read before the server reads its clock: ours is over first.
            begun_at = now()
            since = {"next_look_at": deadline_at, "progressed_at": func.now()}
            moved = move(connection, market, state, **since, **counted)
            if moved is None:
                return None
            attempt_id = connection.execute(
                insert(market_attempt)
                .values(
                    market_id=market.market_id,
                    call=call,
                    run_id=self._run_id,
                    deadline_at=deadline_at,
                )
                .returning(market_attempt.c.attempt_id)
            ).scalar_one()
        told = _send(self._client, post, market.market_id, begun_at + seconds)
        self._executions.append(told.execution)
        if told.answer is not None:
            self._answers.append(told)
        return attempt_id, moved, told

    def _store(
        self, connection: Connection, attempt_id: int, market: Row[Any], call: str, told: _Told
    ) -> None:
        """Store what came of an order on its own row, whoever goes on with the market."""
        record_id = None
        if told.answer is not None:
            key = f"{call}/{attempt_id}"
            record_id = keep_answer(connection, key, "POST", told.answer, self._run_id)
        connection.execute(
            update(market_attempt)
            .where(market_attempt.c.attempt_id == attempt_id)
            .values(
                closed_at=func.now(),
                result=told.execution,
                http_status=told.status,
                code=told.said.code,
                detail=told.detail,
                record_id=record_id,
            )
        )

    def _not_executed(
        self, connection: Connection, moved: Row[Any], state: State, told: _Told, before: Row[Any]
    ) -> None:
        """Nothing happened: it may be ordered again, as if it had not been.

        If that lasts, `watching` tells it, and as with looks no market is given up for it.
        """
        _log.warning("Market %s was not ordered: %s", moved.market_id, told.detail)
        wait = max(self._pause, told.retry_after or 0)
        _go_on(
            connection,
            moved,
            state,
            wait=wait,
            settle_attempts=before.settle_attempts,
            retry_attempts=before.retry_attempts,
            trouble=f"an order came to nothing: {told.detail}",
            troubled_since=before.troubled_since or func.now(),
        )

    def _was_abandoned(self, market: Row[Any]) -> bool:
        """Whether the last order to retry was left without a result; the status then tells."""
        with transaction(self._engine, "loader") as connection:
            is_abandoned = _close_abandoned(connection, market) > 0
            if is_abandoned:
                _go_on(connection, market, "waiting")
        return is_abandoned

    def _raise_if_all_are_refused(self, told: _Told) -> None:
        if told.execution is Execution.REJECTED and told.status in REFUSES_ALL:
            raise Fatal(
                SOURCE,
                f"The engine refused an order with {told.status}. No market was settled by it.",
                "Check that the Airflow connection `prediction` holds the right key, then clear "
                "this task.",
                status=told.status,
            )


def _send(client: Client, post: Post, market_id: str, ends_at: float) -> _Told:
    try:
        answer = post(client, market_id, ends_at=ends_at)
    except ProviderError as error:
        retry_after = error.retry_after if isinstance(error, Retriable) else None
        return _Told(classify_error(error), None, SettleAnswer(), error.happened, retry_after)
    said = read_settle_answer(answer.body, with_entries=False)
    told = [f"status {answer.status}", said.code, said.message, said.unusable_reason]
    detail = ", ".join(one for one in told if one)
    return _Told(classify_answer(answer, said), answer, said, detail, answer.retry_after)


def _go_on(
    connection: Connection,
    market: Row[Any],
    state: State,
    *,
    wait: float | None = 0.0,
    **values: Any,
) -> None:
    """Have the market gone on with after so many seconds; None: when it was to be anyway."""
    if wait is not None:
        values["next_look_at"] = func.clock_timestamp() + timedelta(seconds=wait)
    move(connection, market, state, **values)


def _close_abandoned(connection: Connection, market: Row[Any]) -> int:
    """Close the orders for a market that nobody closed in time; how many there were."""
    return connection.execute(
        update(market_attempt)
        .where(
            market_attempt.c.market_id == market.market_id,
            market_attempt.c.result.is_(None),
            market_attempt.c.deadline_at <= func.clock_timestamp(),
        )
        .values(
            closed_at=func.now(),
            result=Execution.IN_DOUBT,
            detail="the process that ordered it ended before an answer was stored",
        )
    ).rowcount
