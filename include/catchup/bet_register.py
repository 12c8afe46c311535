"""The register of tote's bets (tote.bet): which are due to be asked for, and when they are next.

A bet is due once its `next_ask_at` has passed.  Whoever asks for it claims it first, by moving that
moment ahead: two runs never ask for one bet at once, and what a run that was killed had claimed
comes due again by itself.  How long it is left alone after an answer grows with its age, or once it
is final with the time since it last changed.

All times are the server's, so that what was asked first is not told by two clocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Engine, Row, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from include.providers.http import longest_call
from include.providers.tote import PROVIDER, Standing
from include.settings import Settings
from include.warehouse.database import array_literal, transaction
from include.warehouse.findings import Finding
from include.warehouse.tables import bet as bet_table

EnteredBy = Literal["file", "listing"]

# A bet is asked for again after this share of its age: it becomes final most likely when it is
# young, and a tenth of its age more is no long wait for an old one.
OPEN_SHARE = 1 / 8
# The same of the time since a final one last changed: most corrections follow soon.
FINAL_SHARE = 1 / 2


@dataclass(frozen=True)
class Claim:
    """Bets that nobody else asks for meanwhile, and when they were claimed (the server's clock)."""

    tote_ids: list[str]
    claimed_at: datetime


@dataclass(frozen=True)
class Told:
    """What an answer tells of a bet: how it stands (None: it cannot be judged), in which text."""

    tote_id: str
    standing: Standing | None
    content_sha256: bytes


def wait_before_asking(passed: timedelta, share: float, settings: Settings) -> timedelta:
    """How long a bet is left alone: a share of the time that has passed, within the settings'
    bounds.
    """
    shortest, longest = settings.tote_ask_seconds_min, settings.tote_ask_seconds_max
    seconds = max(share * passed.total_seconds(), shortest)
    return timedelta(seconds=max(min(seconds, longest), 1.0))


def next_ask(
    now: datetime,
    entered_at: datetime,
    changed_at: datetime,
    settings: Settings,
    *,
    is_final: bool,
) -> datetime | None:
    """When a bet that was just told is to be asked for again; None: not any more.

    A final one is asked for last when it has not changed for as long as it is looked at.
    """
    if not is_final:
        return now + wait_before_asking(now - entered_at, OPEN_SHARE, settings)
    last = changed_at + timedelta(days=settings.tote_settled_days)
    if now >= last:
        return None
    return min(now + wait_before_asking(now - changed_at, FINAL_SHARE, settings), last)


def enter(connection: Connection, tote_ids: Iterable[str], entered_by: EnteredBy) -> int:
    """Enter bets, those that are there already left as they are; returns how many are new."""
    # In one order, so that two who enter the same bets wait for each other and not in a circle.
    entered = connection.execute(
        insert(bet_table)
        .from_select(
            ["tote_id", "entered_by"],
            text(
                "SELECT DISTINCT tote_id, CAST(:entered_by AS text)"
                " FROM unnest(CAST(:tote_ids AS text[])) AS tote_id ORDER BY 1"
            ).columns(bet_table.c.tote_id, bet_table.c.entered_by),
        )
        .on_conflict_do_nothing(),
        {"tote_ids": array_literal(tote_ids), "entered_by": entered_by},
    )
    return entered.rowcount


def ask_again(connection: Connection, tote_ids: Iterable[str]) -> int:
    """Have those of the bets asked for as if they were new that a decision gave up untold.

    Returns how many they are.
    """
    again = connection.execute(
        text(
            "UPDATE tote.bet SET state = 'open', next_ask_at = now(), absent_since = NULL,"
            " refusal = NULL, is_asked_alone = false WHERE tote_id IN"
            " (SELECT tote_id FROM tote.bet WHERE tote_id = ANY (CAST(:tote_ids AS text[]))"
            " AND state = 'done' AND answered_at IS NULL ORDER BY tote_id FOR UPDATE)"
        ),
        {"tote_ids": array_literal(tote_ids)},
    )
    return again.rowcount


def look_at_clock(engine: Engine) -> datetime:
    """The server's time."""
    with transaction(engine, "loader") as connection:
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now


def claim(engine: Engine, limit: int, settings: Settings, *, is_alone_first: bool = False) -> Claim:
    """Claim bets that are due, at most `limit`: hinted ones first, then those that waited longest.

    One that is to be asked for alone is claimed alone, once no others are due; `is_alone_first`,
    which keeps it from waiting for ever, before all others.
    """
    with transaction(engine, "loader") as connection:
        now: datetime = connection.execute(select(func.now())).scalar_one()
        claimed = _claim(connection, _ALONE, 1, settings) if is_alone_first else []
        if not claimed:
            for turn in _IN_TURN:
                if room := limit - len(claimed):
                    claimed += _claim(connection, turn, room, settings)
        if not claimed:
            claimed = _claim(connection, _ALONE, 1, settings)
    return Claim(claimed, now)


def _claim(
    connection: Connection, turn: tuple[str, str], limit: int, settings: Settings
) -> list[str]:
    condition, order = turn
    claimed = connection.scalars(
        text(_CLAIM.format(condition=condition, order=order)),
        {"seconds": claim_seconds(settings), "limit": limit},
    )
    return list(claimed)


def claim_seconds(settings: Settings) -> float:
    """How long what a killed run had claimed is left alone: as long as its answer could come."""
    return longest_call(settings) + 60


_IN_TURN = (
    ("hinted_at IS NOT NULL AND NOT is_asked_alone", "hinted_at"),
    ("NOT is_asked_alone", "next_ask_at"),
)
_ALONE = ("is_asked_alone", "next_ask_at")
# What another claims meanwhile is passed over; of what was due, nothing is claimed twice.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT tote_id FROM tote.bet
    WHERE next_ask_at <= now() AND {condition}
    ORDER BY {order}
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE tote.bet SET asked_at = now(), next_ask_at = now() + make_interval(secs => :seconds)
FROM due WHERE bet.tote_id = due.tote_id
RETURNING bet.tote_id
"""


def release(engine: Engine, claimed: Claim) -> None:
    """Have bets come due again at once whose question had no answer that can be used."""
    _change(engine, claimed, next_ask_at=func.now())


def ask_alone(engine: Engine, claimed: Claim) -> None:
    """The same, and ask for them by themselves, so that they hold up no others."""
    _change(engine, claimed, next_ask_at=func.now(), is_asked_alone=True)


def postpone(engine: Engine, claimed: Claim, refusal: str, settings: Settings) -> None:
    """Leave bets alone for as long as any, of which tote tells nothing but this."""
    _change(
        engine,
        claimed,
        next_ask_at=func.now() + timedelta(seconds=settings.tote_ask_seconds_max),
        is_asked_alone=True,
        absent_since=func.coalesce(bet_table.c.absent_since, func.now()),
        refusal=refusal,
    )


def _change(engine: Engine, claimed: Claim, **values: Any) -> None:
    """Change those that nobody has claimed anew, nor a decision given up."""
    with transaction(engine, "loader") as connection:
        connection.execute(
            update(bet_table)
            .where(
                bet_table.c.tote_id.in_(claimed.tote_ids),
                bet_table.c.asked_at == claimed.claimed_at,
                bet_table.c.state != "done",
            )
            .values(**values)
        )


def note(
    connection: Connection,
    told: Sequence[Told],
    absent: Collection[str],
    asked_at: datetime,
    settings: Settings,
) -> None:
    """Note what an answer told, and which bets it left out though it was asked for them.

    Of one that was claimed anew since `asked_at` it is not known which answer is the newer: that
    one is asked for once more, and so is one that was hinted at since.
    """
    last = {one.tote_id: one for one in told}
    now: datetime = connection.execute(select(func.now())).scalar_one()
    rows = connection.execute(
        text(
            "SELECT * FROM tote.bet WHERE tote_id = ANY (CAST(:tote_ids AS text[]))"
            " ORDER BY tote_id FOR UPDATE"
        ),
        {"tote_ids": array_literal([*last, *absent])},
    ).all()
    noted = [
        _noted(row, last.get(row.tote_id), now, asked_at, settings)
        for row in rows
        if not _was_asked_since(row, asked_at)
    ]
    if noted:
        connection.execute(_NOTE, {"noted": msgspec.json.encode(noted).decode()})
    again = [row.tote_id for row in rows if _was_asked_since(row, asked_at)]
    if again:
        connection.execute(
            update(bet_table)
            .where(bet_table.c.tote_id.in_(again))
            # It may be done since.
            .values(
                next_ask_at=func.now(),
                state=case((bet_table.c.state == "done", "final"), else_=bet_table.c.state),
            )
        )


# One statement for a whole answer.
_NOTED = {
    "state": "text",
    "next_ask_at": "timestamptz",
    "answered_at": "timestamptz",
    "changed_at": "timestamptz",
    "absent_since": "timestamptz",
    "hinted_at": "timestamptz",
    "placement": "text",
    "resulting": "text",
    "settlement": "text",
    "content_sha256": "bytea",
}
_NOTE = text(f"""
UPDATE tote.bet SET is_asked_alone = false, refusal = NULL,
    {", ".join(f"{name} = noted.{name}" for name in _NOTED)}
FROM jsonb_to_recordset(CAST(:noted AS jsonb))
    AS noted (tote_id text, {", ".join(f"{name} {kind}" for name, kind in _NOTED.items())})
WHERE bet.tote_id = noted.tote_id
""")


def _was_asked_since(row: Row[Any], asked_at: datetime) -> bool:
    return row.asked_at is not None and row.asked_at > asked_at


def _noted(
    row: Row[Any], told: Told | None, now: datetime, asked_at: datetime, settings: Settings
) -> dict[str, Any]:
    """The bet's columns after an answer that told it, or left it out."""
    stands = _as_before(row, now) if told is None else _as_told(row, told, now)
    is_final = stands.pop("is_final")
    changed_at = stands["changed_at"] or row.entered_at
    next_ask_at = next_ask(now, row.entered_at, changed_at, settings, is_final=is_final)
    is_hinted = row.hinted_at is not None and row.hinted_at > asked_at
    if is_hinted:
        next_ask_at = now
    return {
        "tote_id": row.tote_id,
        **stands,
        "state": "open" if not is_final else "done" if next_ask_at is None else "final",
        "next_ask_at": next_ask_at,
        "hinted_at": row.hinted_at if is_hinted else None,
    }


def _as_told(row: Row[Any], told: Told, now: datetime) -> dict[str, Any]:
    before = row.content_sha256 and bytes(row.content_sha256)
    standing = told.standing
    return {
        # What cannot be judged is asked for until it can.
        "is_final": standing is not None and standing.is_final,
        "answered_at": now,
        "changed_at": row.changed_at if told.content_sha256 == before else now,
        "absent_since": None,
        "placement": standing and standing.placement,
        "resulting": standing and standing.resulting,
        "settlement": standing and standing.settlement,
        "content_sha256": f"\\x{told.content_sha256.hex()}",
    }


def _as_before(row: Row[Any], now: datetime) -> dict[str, Any]:
    digest = row.content_sha256
    return {
        "is_final": row.state != "open",
        "answered_at": row.answered_at,
        "changed_at": row.changed_at,
        "absent_since": row.absent_since or now,
        "placement": row.placement,
        "resulting": row.resulting,
        "settlement": row.settlement,
        "content_sha256": None if digest is None else f"\\x{bytes(digest).hex()}",
    }


# What a person should know.


def absent(connection: Connection) -> tuple[Finding, datetime] | None:
    """That tote does not know bets it is asked about, and since when for the last; None if none."""
    counted = connection.execute(
        text(
            "SELECT count(*) AS bets, count(answered_at) AS known, max(absent_since) AS since,"
            " (array_agg(tote_id ORDER BY refusal, absent_since DESC))[1\\:5] AS examples,"
            " count(refusal) AS refused, min(refusal) AS refusal"
            " FROM tote.bet WHERE absent_since IS NOT NULL AND state <> 'done'"
        )
    ).one()
    if not counted.bets:
        return None
    refused = f" Asked for {counted.refused} of them alone, it said: {counted.refusal}"
    finding = Finding(
        kind="bets_absent",
        source=PROVIDER,
        subject="bets",
        summary=f"tote leaves {counted.bets} bets out of its answers, {counted.known} of which it "
        f"has told before, such as {', '.join(counted.examples)}. Compare these ids with where "
        f"they come from (tote.bet).{refused if counted.refused else ''}",
        kept="They stay in the register and are asked for less and less often. This finding closes "
        "itself once tote tells them.",
        detail={
            "bets": counted.bets,
            "known": counted.known,
            "refused": counted.refused,
            "examples": counted.examples,
        },
    )
    return finding, counted.since


def open_long(connection: Connection, settings: Settings) -> tuple[Finding, datetime] | None:
    """That bets have been open for long, and since when for the last; None if none have."""
    limit = timedelta(days=settings.tote_open_days)
    counted = connection.execute(
        text(
            "SELECT count(*) AS bets, max(entered_at) + :limit AS since,"
            " (array_agg(tote_id ORDER BY entered_at))[1\\:5] AS examples"
            " FROM tote.bet WHERE state = 'open' AND entered_at < now() - :limit"
        ),
        {"limit": limit},
    ).one()
    if not counted.bets:
        return None
    finding = Finding(
        kind="bets_open_long",
        source=PROVIDER,
        subject="bets",
        summary=f"{counted.bets} bets of tote have been open for more than "
        f"{settings.tote_open_days:g} days since they were entered, such as "
        f"{', '.join(counted.examples)}. Ask tote when they will be settled (finance.tote_bet_open "
        "has them all).",
        kept="They are asked for as before. This finding closes itself once they are final.",
        detail={"bets": counted.bets, "examples": counted.examples},
    )
    return finding, counted.since
