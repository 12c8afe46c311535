"""The gates between a market's list and finance: what adds up is published, the rest is held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, select, text

from include.markets.checking import Check, Difference
from include.markets.ending import end
from include.markets.fetching import FEED
from include.markets.stopping import stop
from include.model import RecordContext, Settlement
from include.providers import prediction
from include.quality import gates
from include.quality.gates import BatchHeld
from include.quality.normalizing import Normalize, normalize
from include.settings import Settings
from include.warehouse import publishing
from include.warehouse.database import lock_source, transaction
from include.warehouse.findings import Finding, open_finding
from include.warehouse.markets import SOURCE, move
from include.warehouse.publishing import Published
from include.warehouse.tables import batch as batch_table
from include.warehouse.tables import market as market_table


class MarketsHeld(Exception):
    """At least one list does not add up; findings are open, and every other was checked."""


@dataclass(frozen=True)
class Checked:
    """What one check did: markets whose list passed, and settlements that were made of them."""

    markets: int
    settlements: int
    quarantined: int


@dataclass(frozen=True)
class _Provider:
    """The engine's records as `normalize` takes them, in the currencies of their markets."""

    name: str
    normalizer: Callable[[Settings], Normalize]


def check(engine: Engine, settings: Settings) -> Checked:
    """Hold the lists that do not add up, and check what the others hold, record by record.

    Raises `MarketsHeld`, after all of them, if any list or batch was held.
    """
    passed, held = _apply_verdicts(engine)
    told = [f"Market {market_id} is held: {reason}" for market_id, reason in held.items()]
    provider = _Provider(SOURCE, lambda _: _normalizer(engine))
    steps: list[Callable[[], Any]] = [
        lambda: gates.check_raw(engine, SOURCE),
        lambda: normalize(engine, provider, settings),
        lambda: gates.check_settlements(engine, SOURCE, settings),
    ]
    done = []
    for step in steps:
        try:
            done.append(step())
        except BatchHeld as batch_held:
            told.append(str(batch_held))
    if told:
        raise MarketsHeld(
            f"{' '.join(told)} Nothing of them is published and nobody is credited for them; all "
            "others were checked, and go on. Trigger the DAG "
            "resolve_findings with their findings."
        )
    return Checked(passed, done[1].normalized, done[1].quarantined + done[2].quarantined)


def publish(engine: Engine, settings: Settings) -> Published:
    """Publish every list that has passed its checks, and move its market to where it stands.

    Repeating it changes nothing.  Raises what publishing raises, after all others are published,
    and `MarketsHeld` if what is published of a market is not what its status tells.
    """
    try:
        published = publishing.publish(engine, SOURCE)
    finally:
        held = _end_published(engine, settings)
    if held:
        told = " ".join(f"Market {market_id} is held: {reason}" for market_id, reason in held)
        raise MarketsHeld(
            f"{told} Nobody is credited for them; all others go on. Trigger the DAG "
            "resolve_findings with their findings."
        )
    return published


def _apply_verdicts(engine: Engine) -> tuple[int, dict[str, str]]:
    """How many of the lists that were landed add up, and why each of the others does not."""
    passed, held = 0, {}
    for market_id in _in_state(engine, "fetched"):
        with transaction(engine, "loader") as connection:
            lock_source(connection, SOURCE)
            market = _locked(connection, market_id, "fetched")
            if market is None:
                continue
            holding = [one["sentence"] for one in market.differences if one["is_holding"]]
            if not holding:
                passed += 1
                _pass(connection, market)
                continue
            held[market_id] = " ".join(holding)
            stop(
                connection,
                market,
                "held",
                f"does not add up: {holding[0].rstrip('.')}",
                detail={"differences": market.differences},
                batch_id=market.batch_id,
            )
    return passed, held


def _pass(connection: Connection, market: Row[Any]) -> None:
    move(connection, market, "checked")
    for one in market.differences:
        open_finding(
            connection,
            Finding(
                kind="market_flagged",
                source=SOURCE,
                subject=market.market_id,
                summary=f"Market {market.market_id} is worth a look: {one['sentence']}",
                kept="It adds up otherwise, and is published and credited.",
                detail={"market_id": market.market_id, "check": one["check"]},
                batch_id=market.batch_id,
            ),
            once=True,
        )


def _end_published(engine: Engine, settings: Settings) -> list[tuple[str, str]]:
    """Move each market whose list is published to where it stands: which were held, and why."""
    held = []
    for market_id in _in_state(engine, "checked"):
        with transaction(engine, "loader") as connection:
            lock_source(connection, SOURCE)
            market = _locked(connection, market_id, "checked")
            if market is None:
                continue
            state = connection.scalar(
                select(batch_table.c.state).where(batch_table.c.batch_id == market.batch_id)
            )
            if state == "published" and (difference := _lacking(connection, market)) is not None:
                held.append((market_id, difference.sentence))
                found = [*market.differences, asdict(difference)]
                stop(
                    connection,
                    market,
                    "held",
                    f"does not add up: {difference.sentence.rstrip('.')}",
                    kept=_KEPT_PUBLISHED,
                    detail={"differences": found},
                    batch_id=market.batch_id,
                    differences=found,
                )
            elif state == "published":
                end(connection, market, settings, is_news=True)
            elif state == "discarded":
                reason = "pays nobody: its list was given up by a decision"
                stop(connection, market, "held", reason, detail={"differences": []})
    return held


_KEPT_PUBLISHED = (
    "Its list is published, and all that the engine told is kept in raw; nobody is credited for it "
    "until it is decided, nor is anything sent or owed. Other markets go on."
)

# Of what a person has chosen between, or still has to, the engine may tell otherwise.
_PUBLISHED = text("""
SELECT
    count(*) FILTER (WHERE is_current AND status = 'settled') AS completed,
    coalesce(sum(payout) FILTER (WHERE is_current AND status = 'settled'), 0) AS payout,
    coalesce(bool_or(is_contested OR is_rejected_by_decision), false) AS is_decided
FROM core.settlement
WHERE source = 'prediction' AND market_id = :market_id
""")

_QUARANTINED = text("""
SELECT payload
FROM ops.quarantine
JOIN raw.record_payload AS record USING (record_id)
WHERE quarantine.source = 'prediction' AND quarantine.state = 'open' AND feed = :feed
    AND position(convert_to(:market_id, 'UTF8') IN payload) > 0
""")


def _lacking(connection: Connection, market: Row[Any]) -> Difference | None:
    """What is published of the market otherwise than its status tells, unless a person has let it
    be so, or is asked about its contents already.
    """
    if any(one["is_holding"] for one in market.differences):
        return None
    told = connection.execute(_PUBLISHED, {"market_id": market.market_id}).one()
    is_same = (told.completed, told.payout) == (market.completed_positions, market.completed_payout)
    if is_same or told.is_decided:
        return None
    kept = _in_quarantine(connection, market.market_id)
    return Difference(
        Check.COMPLETED_PAYOUT,
        f"The status tells {market.completed_positions} positions COMPLETED that pay "
        f"{market.completed_payout:f}, but {told.completed} that pay {told.payout:f} are published "
        f"and count{f'; in quarantine: {kept} (finding records_quarantined)' if kept else ''}.",
    )


def _in_quarantine(connection: Connection, market_id: str) -> int:
    """How many of the market's settlements are held back; only their texts tell whose they are."""
    this = {"market_id": market_id, "feed": FEED}
    found = connection.scalars(_QUARANTINED, this)
    return sum(_market_of(bytes(payload)) == market_id for payload in found)


def _market_of(payload: bytes) -> str | None:
    try:
        return msgspec.json.decode(payload, type=_Owned).market_id
    except msgspec.DecodeError:
        return None


class _Owned(msgspec.Struct, rename="camel"):
    market_id: str


def _in_state(engine: Engine, state: str) -> list[str]:
    with transaction(engine, "loader") as connection:
        return list(
            connection.scalars(
                select(market_table.c.market_id)
                .where(market_table.c.state == state)
                .order_by(market_table.c.market_id)
            )
        )


def _locked(connection: Connection, market_id: str, state: str) -> Row[Any] | None:
    this = select(market_table).where(
        market_table.c.market_id == market_id, market_table.c.state == state
    )
    return connection.execute(this.with_for_update()).first()


def _normalizer(engine: Engine) -> Normalize:
    """What makes a settlement of a record, in its market's currency."""
    currency_of = cache(partial(_currency, engine))

    def make(record: bytes, context: RecordContext) -> Settlement:
        told = prediction.normalize(record, context)
        return msgspec.structs.replace(told, currency=currency_of(told.market_id))

    return make


def _currency(engine: Engine, market_id: str | None) -> str | None:
    this = select(market_table.c.currency).where(market_table.c.market_id == market_id)
    with transaction(engine, "loader") as connection:
        return connection.scalar(this)
