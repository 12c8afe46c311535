"""Which markets are to be settled: what people enter, and what a run goes on with.

To settle a market cancels its open orders, which cannot be undone.  So it waits in the queue until
there is evidence that it was resolved: the engine's own event, or the word of a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from include.model import CURRENCY
from include.providers.prediction import is_market_id
from include.providers.texts import shown
from include.warehouse.database import array_literal, transaction
from include.warehouse.markets import WORKED_ON, due

_EXAMPLES = 10


class MarketsRefused(Exception):
    """What was asked for cannot be entered; nothing of it was, and the message says why."""


# A market that was withdrawn, or that nobody knew to be resolved, is to be settled from now on.
_CONFIRM = text("""
INSERT INTO prediction.market AS market (
    market_id, entered_by, currency, evidence, state, next_look_at
)
SELECT market_id, 'form', :currency, :evidence, 'resolved', now()
FROM unnest(CAST(:market_ids AS text[])) AS listed (market_id)
ON CONFLICT (market_id) DO UPDATE
SET evidence = excluded.evidence, state = 'resolved', state_since = now(), next_look_at = now(),
    revision = market.revision + 1, settle_attempts = 0, retry_attempts = 0
WHERE market.state IN ('entered', 'withdrawn')
""").bindparams(bindparam("evidence", type_=JSONB))

_UNKNOWN = text("""
SELECT market_id
FROM unnest(CAST(:market_ids AS text[])) AS listed (market_id)
WHERE NOT EXISTS (
    SELECT FROM prediction.market
    WHERE market.market_id = listed.market_id AND state NOT IN ('entered', 'withdrawn')
)
ORDER BY market_id
""")

_NAMED = """
FROM unnest(CAST(:market_ids AS text[]), CAST(:currencies AS text[])) AS told (market_id, currency)
"""

# One that was listed without a currency is held for it: nothing of it is published.
_SET_CURRENCIES = text(f"""
UPDATE prediction.market
SET currency = told.currency, revision = revision + 1
{_NAMED}
WHERE market.market_id = told.market_id AND market.currency IS NULL
    AND told.currency IS NOT NULL
""")

_CONTRADICTED = text(f"""
SELECT market_id, told.currency AS told, market.currency AS known, count(*) OVER () AS markets
{_NAMED}
JOIN prediction.market USING (market_id)
WHERE market.currency <> told.currency
ORDER BY market_id
LIMIT :examples
""")


def unconfirmed(engine: Engine, market_ids: Sequence[str]) -> list[str]:
    """Those of the markets that nothing says were resolved."""
    with transaction(engine, "loader") as connection:
        return list(connection.scalars(_UNKNOWN, {"market_ids": array_literal(market_ids)}))


def confirm(
    engine: Engine,
    market_ids: Sequence[str],
    *,
    currency: str | None,
    confirmed_by: str,
    reason: str,
    run_id: str | None,
) -> int:
    """Enter markets on a person's word that they were resolved; how many are to be settled by it.

    Raises `MarketsRefused` for an id that can name no market, and for a `currency` that is not the
    one that a market has.  One that is on its way goes on.
    """
    if wrong := [shown(one) for one in market_ids if not is_market_id(one)]:
        raise MarketsRefused(
            f"{', '.join(wrong[:_EXAMPLES])} can be no market's id. Nothing was entered. "
            "Correct it and trigger settle_markets again."
        )
    evidence = {"confirmed_by": confirmed_by, "reason": reason, "run_id": run_id}
    with transaction(engine, "loader") as connection:
        confirmed = connection.execute(
            _CONFIRM,
            {
                "market_ids": array_literal(dict.fromkeys(market_ids)),
                "currency": currency,
                "evidence": evidence,
            },
        ).rowcount
        set_currencies(connection, dict.fromkeys(market_ids, currency))
    return confirmed


def set_currency(engine: Engine, market_ids: Sequence[str], currency: str) -> None:
    """Have known markets pay in this currency.

    Raises `MarketsRefused`, with nothing changed, if one of them has another.
    """
    with transaction(engine, "loader") as connection:
        set_currencies(connection, dict.fromkeys(market_ids, currency))


def is_currency(told: str) -> bool:
    """Whether it is written as currencies are: usd beside USD would be two."""
    return re.fullmatch(CURRENCY, told) is not None


def set_currencies(connection: Connection, told: Mapping[str, str | None]) -> None:
    """Give each market the currency that is told of it; raises `MarketsRefused` if it has another.

    So does a currency that nobody writes so.  Whatever was entered in this transaction is then not
    entered.
    """
    unusual = {one for one in told.values() if one is not None and not is_currency(one)}
    if unusual:
        raise MarketsRefused(
            f"{', '.join(map(shown, sorted(unusual)[:_EXAMPLES]))} is not how a currency is "
            "written: in capital letters and digits, such as USD, with at most one small letter "
            "before them, such as mBTC. Nothing was entered. Correct it and do it again."
        )
    named = {"market_ids": array_literal(told), "currencies": array_literal(told.values())}
    connection.execute(_SET_CURRENCIES, named)
    wrong = connection.execute(_CONTRADICTED, {**named, "examples": _EXAMPLES}).all()
    if not wrong:
        return
    examples = ", ".join(f"{one.market_id} ({one.known}, not {one.told})" for one in wrong)
    more = wrong[0].markets - len(wrong)
    raise MarketsRefused(
        f"{wrong[0].markets} of these markets have another currency than the one told: {examples}"
        f"{f' and {more} more' if more else ''}. They keep theirs, and nothing was entered. Leave "
        "the currency out, or correct it, and do it again; if the one that they have is wrong, "
        "have it corrected in prediction.market before they are settled."
    )


# Not what was ordered: its answer, or its deadline, is waited for.
_HASTEN = text("""
UPDATE prediction.market
SET next_look_at = now(), revision = revision + 1
WHERE market_id = ANY (CAST(:market_ids AS text[]))
    AND state IN ('waiting', 'fetching', 'done', 'failed', 'stuck')
    AND (state NOT IN ('done', 'failed', 'stuck') OR listing_sha256 IS NOT NULL)
    AND NOT EXISTS (
        SELECT FROM prediction.attempt
        WHERE attempt.market_id = market.market_id
            AND (result IS NULL OR result = 'in_doubt') AND deadline_at > clock_timestamp()
    )
""")


_STANDING = text("""
SELECT market_id, market.state, finding.finding_id
FROM prediction.market
LEFT JOIN ops.finding ON finding.finding_id = market.finding_id AND finding.state = 'open'
WHERE market_id = ANY (CAST(:market_ids AS text[]))
ORDER BY market_id
""")


def due_markets(engine: Engine, market_ids: Sequence[str] | None, limit: int) -> list[str]:
    """The markets that are to be gone on with now, of those named if any are."""
    with transaction(engine, "loader") as connection:
        return [row.market_id for row in due(connection, WORKED_ON, market_ids, limit)]


def standing(engine: Engine, market_ids: Sequence[str]) -> list[Row[Any]]:
    """The state of each of these markets, and the open finding that it waits for, if any."""
    with transaction(engine, "loader") as connection:
        return list(connection.execute(_STANDING, {"market_ids": array_literal(market_ids)}))


def hasten(engine: Engine, market_ids: Sequence[str]) -> None:
    """Have these markets looked at now, wherever they wait for nothing but time."""
    with transaction(engine, "loader") as connection:
        connection.execute(_HASTEN, {"market_ids": array_literal(market_ids)})
