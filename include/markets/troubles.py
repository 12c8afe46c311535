"""Going through markets one by one: what goes wrong with one keeps no other back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, func

from include.markets.stopping import stop
from include.providers.errors import PageUndecodable, ProviderError, Retriable
from include.settings import Settings
from include.warehouse.database import lock_source, transaction
from include.warehouse.markets import SOURCE, State, due, move

_log = logging.getLogger(__name__)

# So many in a row that are not answered: it is the engine, and not the markets.
_SILENT_MARKETS = 3
# The key is wrong: that is so for every market.
REFUSES_ALL = frozenset({401, 403})


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
    until the next run.  Raises `Fatal` if it refuses our key.
    """
    with transaction(engine, "loader") as connection:
        found = due(connection, states, market_ids)
    silent = 0
    for market in found:
        try:
            is_answered = work(market)
        except (ProviderError, PageUndecodable) as error:
            note_trouble(engine, settings, market, error)
            if isinstance(error, ProviderError) and error.status in REFUSES_ALL:
                raise
            is_answered = not isinstance(error, Retriable)
        silent = 0 if is_answered else silent + 1
        if silent == _SILENT_MARKETS:
            _log.warning(
                "The engine has not answered about %d markets in a row. The others of this task "
                "are left to the next run.",
                silent,
            )
            return


def note_trouble(
    engine: Engine, settings: Settings, market: Row[Any], error: ProviderError | PageUndecodable
) -> None:
    """Note why a look at the market came to nothing; if that lasts, a person is asked."""
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
        if moved is not None and lasts >= timedelta(seconds=settings.prediction_stuck_seconds):
            stop(connection, moved, "stuck", f"cannot be read: {told}")


def _wait(settings: Settings, lasts: timedelta) -> timedelta:
    """Ever longer, the longer it lasts."""
    return max(timedelta(seconds=settings.prediction_look_seconds), lasts / 4)
