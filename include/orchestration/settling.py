"""The form of `settle_markets`, and which markets a run goes on with, in shards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param
from sqlalchemy import Engine

from include.markets import queue
from include.markets.queue import MarketsRefused
from include.model import CURRENCY

_log = logging.getLogger(__name__)

CONFIRMATION = "SETTLE"

# Up to so many markets each have a line of their own in the UI; more are worked off in shards.
SINGLE_MARKETS = 20
SHARD_MARKETS = 50
# What is left is the next run's, minutes later; and one page of the UI shows the shards.
RUN_MARKETS = 2000


@dataclass(frozen=True)
class Form:
    """What a person filled in; all of it may be empty."""

    market_ids: list[str] | None = None
    confirmation: str | None = None
    reason: str | None = None
    currency: str | None = None


def form_fields() -> dict[str, Param]:
    """The fields of the form, as Airflow shows and validates them; none has to be filled in."""
    return {
        "market_ids": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1, "maxLength": 128},
            minItems=1,
            maxItems=1000,
            title="Markets",
            description="Go on with these, and no other, now. Empty: with all for which it is "
            "time.",
        ),
        "confirmation": Param(
            None,
            type=["null", "string"],
            enum=[None, "", CONFIRMATION],
            title="Confirmation",
            description=f"Type {CONFIRMATION} if you know that the markets are resolved, though "
            "the engine has told no event of it: it cancels their open orders, which cannot be "
            "undone.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=2000,
            title="Reason",
            description="How you know that they are resolved; needed with the confirmation, and "
            "kept for ever.",
        ),
        "currency": Param(
            None,
            type=["null", "string"],
            pattern=CURRENCY,
            title="Currency",
            description="Of the markets that you name, in capital letters, such as USD; "
            "refused if one of them has another. Empty: the one that it has, or else as "
            "SETTLEMENTS_PREDICTION_DEFAULT_CURRENCY says.",
        ),
    }


def plan_shards(
    engine: Engine,
    params: Mapping[str, Any],
    decided_by: str | None,
    run_id: str,
) -> list[dict[str, Any]]:
    """Which markets this run goes on with, as shards with a name each.

    What the form confirms enters the queue before.  Raises `MarketsRefused` if the form names a
    market that nothing says is resolved, tells a currency that is not a market's, or confirms
    none.
    """
    form = Form(**params)
    if form.market_ids is not None:
        _enter(engine, form, form.market_ids, decided_by, run_id)
    elif form.confirmation == CONFIRMATION:
        raise MarketsRefused(
            "The confirmation is about no market: none was named. Nothing was settled by it. "
            "Trigger settle_markets again with the markets that you know to be resolved, or "
            "without a confirmation."
        )
    elif form.currency:
        raise MarketsRefused(
            f"The currency {form.currency} is that of no market: none was named. Nothing was "
            "settled. Trigger settle_markets again with the markets, or without a currency."
        )
    market_ids = queue.due_markets(engine, form.market_ids, RUN_MARKETS)
    _log.info("%d markets are to be gone on with.", len(market_ids))
    return shards(market_ids)


def shards(market_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Each market by itself if they are few, else in shards, named by their place and first one."""
    if len(market_ids) <= SINGLE_MARKETS:
        return [{"name": one, "market_ids": [one]} for one in market_ids]
    return [
        {
            "name": f"{first + 1} to {first + len(several)}: {several[0]} …",
            "market_ids": several,
        }
        for first in range(0, len(market_ids), SHARD_MARKETS)
        for several in (list(market_ids[first : first + SHARD_MARKETS]),)
    ]


def _enter(
    engine: Engine, form: Form, market_ids: list[str], decided_by: str | None, run_id: str
) -> None:
    reason = (form.reason or "").strip()
    if form.confirmation == CONFIRMATION:
        if not decided_by or not reason:
            raise MarketsRefused(
                f"A confirmation needs {'a reason' if decided_by else 'a user who is logged in'}. "
                "Nothing was settled. Trigger settle_markets again with it."
            )
        entered = queue.confirm(
            engine,
            market_ids,
            currency=form.currency,
            confirmed_by=decided_by,
            reason=reason,
            run_id=run_id,
        )
        _log.info("%d markets are to be settled, confirmed by %s.", entered, decided_by)
    elif unknown := queue.unconfirmed(engine, market_ids):
        raise MarketsRefused(
            f"Nothing says that {len(unknown)} of these markets are resolved, the first of them "
            f"{unknown[0]}. Nothing was settled. If you know that they are, trigger settle_markets "
            f"again with the confirmation {CONFIRMATION} and a reason."
        )
    elif form.currency:
        queue.set_currency(engine, market_ids, form.currency)
    queue.hasten(engine, market_ids)
    for one in queue.standing(engine, market_ids):
        asked = "" if one.finding_id is None else f" Finding {one.finding_id} waits for a decision."
        _log.info("Market %s is %s.%s", one.market_id, one.state, asked)
