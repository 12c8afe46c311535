"""Going through markets one by one: what goes wrong with one keeps no other back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select
from sqlalchemy.exc import OperationalError

from include.markets.stopping import stop
from include.providers.errors import Fatal, PageUndecodable, ProviderError, Retriable
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.markets import SOURCE, State, due, move
from include.warehouse.tables import market as market_table

_log = logging.getLogger(__name__)

# So many in a row that are not answered: it is the engine, and not the markets.
_SILENT_MARKETS = 3
# The key is wrong: that is so for every market.
REFUSES_ALL = frozenset({401, 403})
_LONGEST_WAIT = timedelta(minutes=15)
_LATELY = timedelta(minutes=10)


def each_market(
    engine: Engine,
    settings: Settings,
    market_ids: Sequence[str],
    states: Sequence[State],
    work: Callable[[Row[Any]], bool],
) -> None:
    """Do `work` on each of the markets that is due in one of these states, oldest first.

    `work` gives whether the engine answered.  What cannot be read is noted at its market, which is
    tried again later, and is stuck if that lasts.  An engine that does not answer at all is left
    until the next run.  Raises `Fatal` if it refuses our key, or its certificate is not to be
    trusted, and the first of what else went wrong after all others were gone through.
    """
    with transaction(engine, "loader") as connection:
        found = due(connection, states, market_ids)
    silent = 0
    wrong: list[Exception] = []
    for market in found:
        try:
            is_answered = _is_answered(engine, settings, market, work)
        # The key and the warehouse are the same for every market.
        except (ProviderError, OperationalError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it keeps no other back
            _log.exception("Market %s stands as it did. The others go on.", market.market_id)
            wrong.append(error)
            continue
        silent = 0 if is_answered else silent + 1
        if silent == _SILENT_MARKETS:
            _log.warning(
                "The engine has not answered about %d markets in a row. The others of this task "
                "are left to the next run.",
                silent,
            )
            break
    if wrong:
        raise wrong[0]


def _is_answered(
    engine: Engine, settings: Settings, market: Row[Any], work: Callable[[Row[Any]], bool]
) -> bool:
    try:
        return work(market)
    except (ProviderError, PageUndecodable) as error:
        note_trouble(engine, settings, market, error)
        if _refuses_all(error):
            raise
        return not isinstance(error, Retriable)


def note_trouble(
    engine: Engine, settings: Settings, market: Row[Any], error: ProviderError | PageUndecodable
) -> None:
    """Note why a look at the market came to nothing; if that lasts, a person is asked about it.

    What is wrong with the engine, and not with this market, is left to pass: `watching` tells it.
    An engine that answers about all others while it does not about this one, or refuses to, is
    wrong with this one; one that refuses all may be at another address, and one that asks us to
    wait (429) would answer.
    """
    told = error.reason if isinstance(error, PageUndecodable) else error.happened
    _log.warning("Market %s: %s", market.market_id, told)
    since = market.troubled_since
    lasts = timedelta(0) if since is None else datetime.now(UTC) - since
    with transaction(engine, "loader") as connection:
        lock_source(connection, SOURCE)
        moved = move(
            connection,
            market,
            trouble=told,
            troubled_since=since or func.now(),
            next_look_at=func.clock_timestamp() + _wait(settings, lasts),
        )
        is_long = lasts >= timedelta(seconds=settings.prediction_stuck_seconds)
        if moved is None or not is_long or _refuses_all(error):
            return
        if isinstance(error, PageUndecodable) or _is_ours(error):
            stop(connection, moved, "stuck", f"cannot be read: {told}")
        elif error.status != HTTPStatus.TOO_MANY_REQUESTS and _is_alone(connection, market):
            stop(connection, moved, "stuck", f"is answered by no call, and others are: {told}")


def _is_alone(connection: Connection, market: Row[Any]) -> bool:
    """Whether the engine has told of another market since two runs ago, and none of those that are
    looked at is still in trouble: one that comes back answers about one after the other.
    """
    lately = func.clock_timestamp() - _LATELY
    is_troubled = market_table.c.troubled_since.is_not(None) & market_table.c.next_look_at.is_not(
        None
    )
    others = select(func.max(market_table.c.status_at) >= lately, func.bool_or(is_troubled)).where(
        market_table.c.market_id != market.market_id
    )
    is_answered, is_any_troubled = connection.execute(others).one()
    return bool(is_answered) and not is_any_troubled


def _wait(settings: Settings, lasts: timedelta) -> timedelta:
    """Ever longer, the longer it lasts, up to a bound: when it is over, all go on before long."""
    wait = min(lasts / 4, _LONGEST_WAIT)
    return max(timedelta(seconds=settings.prediction_look_seconds), wait)


def _refuses_all(error: Exception) -> bool:
    return isinstance(error, Fatal) and error.fault is not None


def _is_ours(error: ProviderError) -> bool:
    """Whether it was answered, and we do not take the answer as it is."""
    return isinstance(error, Fatal) and error.status is None
