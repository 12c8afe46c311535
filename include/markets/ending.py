"""What becomes of a market once its list is published: done, retried, or left to a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func

from include.markets.stopping import close_findings, stop
from include.settings import Settings
from include.warehouse.markets import move

_RELOOK = timedelta(days=1)


def end(connection: Connection, market: Row[Any], settings: Settings, *, is_news: bool) -> None:
    """Move a market whose list is published to where it stands.

    Unless it `is_news`, a person who was asked about it since it was last retried is not asked
    again.  The caller holds the source's lock.
    """
    under_way, failed = _under_way(market), market.failed_positions
    is_untold = market.positions is None
    is_done = not under_way and not failed and not is_untold
    told = {
        "trouble": None,
        "troubled_since": None,
        **_relook(market, settings, is_begun_anew=is_done and is_news),
    }
    # Also beside what is stuck: nothing but a retry gets the failed ones on.
    if failed and market.retry_attempts < settings.prediction_retry_attempts:
        delay = settings.prediction_retry_delay_seconds * 2 ** max(market.retry_attempts - 1, 0)
        later = func.clock_timestamp() + timedelta(seconds=delay)
        # What was asked before was asked of another attempt.
        told |= {"next_look_at": later, "finding_id": None}
        move(connection, market, "retrying", **told)
    elif under_way:
        beside = (
            f", {failed} FAILED and were retried {market.retry_attempts} times" if failed else ""
        )
        reason = (
            f"is stuck: {under_way} of {market.positions} positions are under way{beside}, and "
            f"no more have come to an end since {market.progressed_at:%Y-%m-%d %H:%M} UTC"
        )
        _stop(connection, market, "stuck", reason, told, is_news=is_news)
    elif is_untold:
        reason = (
            "is stuck: the engine says that it was settled, and has shown no position of it since "
            f"{market.progressed_at:%Y-%m-%d %H:%M} UTC"
        )
        _stop(connection, market, "stuck", reason, told, is_news=is_news)
    elif failed:
        reason = (
            f"has {failed} of {market.positions} positions FAILED, and they were retried "
            f"{market.retry_attempts} times"
        )
        _stop(connection, market, "failed", reason, told, is_news=is_news)
    else:
        # Another run that has moved it since may have asked a person about it.
        if move(connection, market, "done", finding_id=None, **told) is not None:
            close_findings(connection, market.market_id)


def _stop(
    connection: Connection,
    market: Row[Any],
    state: Any,
    reason: str,
    told: dict[str, Any],
    *,
    is_news: bool,
) -> None:
    if is_news or market.finding_id is None:
        stop(connection, market, state, reason, **told)
    else:
        move(connection, market, state, **told)


def _under_way(market: Row[Any]) -> int:
    """Positions that have come to no end; all of them, if the status knew of none."""
    ended = market.completed_positions + market.failed_positions
    on_their_way = market.pending_positions + market.processing_positions
    return int(on_their_way if ended or on_their_way else market.positions or 0)


def _relook(market: Row[Any], settings: Settings, *, is_begun_anew: bool) -> dict[str, Any]:
    """When it is looked at again though it is at an end, and until when that goes on."""
    now = datetime.now(UTC)
    until = None if is_begun_anew else market.relook_until
    until = until or now + timedelta(days=settings.prediction_relook_days)
    return {
        "relook_until": until,
        "next_look_at": now + _RELOOK if now + _RELOOK <= until else None,
    }
