"""Whether a warehouse says what the sandbox's ledgers say, settlement by settlement."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text

from include.warehouse.database import open_engine

# The sandbox counts in the provider's words, the warehouse in ours.
_WORDS = {
    "pending": ("open", None),
    "settled/won": ("settled", "won"),
    "settled/lost": ("settled", "lost"),
    "voided/void": ("void", "void"),
}
_WORDS_OF_BETS = {
    "open": "none",
    "won": "win",
    "half_won": "half_win",
    "placed": "place_win",
    "cash_out": "cash_out",
    "refunded": "refund",
    "half_lost": "half_lose",
    "lost": "lose",
    "cancelled": "cancelled",
    "rejected": "rejected",
}
# One call of a bet's outcome differs in finance's view, which has a column for each.
_COLUMNS_OF_OUTCOMES = {"cash_out": "cashed_out"}

_COUNTS = """
SELECT
    (SELECT count(*) FROM raw.record WHERE source = :source) AS landed,
    (SELECT count(*) FROM core.settlement WHERE source = :source) AS versions,
    (SELECT count(*) FROM core.settlement_current WHERE source = :source) AS subjects,
    (SELECT count(*) FROM finance.correction WHERE source = :source) AS corrections,
    (SELECT count(*) FROM finance.correction WHERE source = :source AND payout_difference < 0)
        AS negative_corrections
"""

Compared = Iterable[tuple[str, Any, Any]]


def disagreements(warehouse_url: str, ledger: Mapping[str, Any]) -> Iterator[str]:
    """What the warehouse has otherwise than the ledger of ticktock, as sentences.

    `warehouse_url` is the owner's; `ledger` is what `Sandbox.ledger` gives.
    """
    return _differing(warehouse_url, ledger, _compare_decisions)


def bet_disagreements(warehouse_url: str, ledger: Mapping[str, Any]) -> Iterator[str]:
    """What the warehouse has otherwise than the ledger of odds88, and which of its rules for
    connections were broken, as sentences.

    Every message was sent soundly once, and what was spoiled is in quarantine.
    """
    return _differing(warehouse_url, ledger, _compare_bets)


def tote_disagreements(warehouse_url: str, ledger: Mapping[str, Any]) -> Iterator[str]:
    """What the warehouse has otherwise than the ledger of tote, as sentences.

    Every bet is listed, and was asked for since anything last happened to it.
    """
    return _differing(warehouse_url, ledger, _compare_followed_bets)


def market_disagreements(warehouse_url: str, ledger: Mapping[str, Any]) -> Iterator[str]:
    """What the warehouse has otherwise than the ledger of the prediction engine, as sentences.

    Every market that is resolved has come to its end.
    """
    return _differing(warehouse_url, ledger, _compare_markets)


def _differing(
    warehouse_url: str,
    ledger: Mapping[str, Any],
    compare: Callable[[Connection, Mapping[str, Any]], Compared],
) -> Iterator[str]:
    engine = open_engine(warehouse_url)
    try:
        with engine.connect() as connection:
            for what, ours, truth in compare(connection, ledger):
                if ours != truth:
                    yield f"{what}: {ours} here, {truth} expected"
    finally:
        engine.dispose()


def _counts(connection: Connection, source: str) -> Any:
    return connection.execute(text(_COUNTS), {"source": source}).one()


# --- ticktock -----------------------------------------------------------------------------------


def _compare_decisions(connection: Connection, ledger: Mapping[str, Any]) -> Compared:
    counts = _counts(connection, "ticktock")
    outcomes = connection.execute(
        text(
            "SELECT status, outcome, count(*) FROM finance.settlement_current"
            " WHERE source = 'ticktock' GROUP BY 1, 2"
        )
    )
    final = {_WORDS[word]: count for word, count in ledger["final"].items()}
    yield "settlements landed", counts.landed, ledger["entries"]
    yield "versions in core", counts.versions, ledger["entries"]
    yield "subjects", counts.subjects, ledger["subjects"]
    yield "outcomes", {(status, outcome): count for status, outcome, count in outcomes}, final
    yield "corrections", counts.corrections, ledger["corrections"]
    yield "digest of all settlements", _digest_of_decisions(connection), ledger["sha256"]


def _digest_of_decisions(connection: Connection) -> str:
    """SHA-256 over every settlement in the ledger's own words and order."""
    words = {status: word.partition("/")[0] for word, (status, _) in _WORDS.items()}
    digest = sha256()
    for row in connection.execute(
        text(
            "SELECT record_key, event_id, market_id, status, outcome"
            " FROM core.settlement JOIN raw.record USING (record_id)"
            " WHERE settlement.source = 'ticktock'"
            " ORDER BY settled_at, CAST(record_key AS numeric)"
        )
    ):
        key, match, offer, status, outcome = row
        digest.update(f"{key}|{match}|{offer}|{words[status]}|{outcome or ''}\n".encode())
    return digest.hexdigest()


# --- odds88 -------------------------------------------------------------------------------------


def _compare_bets(connection: Connection, ledger: Mapping[str, Any]) -> Compared:
    counts = _counts(connection, "odds88")
    yield "versions of bets", counts.versions, ledger["messages"]
    yield "bets", counts.subjects, ledger["bets"]
    yield "outcomes of bets", _outcomes_of_bets(connection), ledger["final"]
    yield "corrections of bets", counts.corrections, ledger["corrections"]
    yield "payouts lowered", counts.negative_corrections, ledger["negative_corrections"]
    yield "stakes and payouts", _sums_of_bets(connection), _sums_told(ledger)
    yield "digest of all versions", _digest_of_bets(connection, "true"), ledger["versions_sha256"]
    yield "digest of all bets", _digest_of_bets(connection, "is_current"), ledger["sha256"]
    yield "rules broken", sum(ledger["violations"].values()), 0
    yield "connections at a time", ledger["connections"]["most_at_once"], 1


def _outcomes_of_bets(connection: Connection) -> dict[str, int]:
    """Bets by outcome, as finance counts them."""
    columns = {word: _COLUMNS_OF_OUTCOMES.get(word, word) for word in _WORDS_OF_BETS}
    sums = ", ".join(f"sum({column})" for column in columns.values())
    [counted] = connection.execute(
        text(f"SELECT {sums} FROM finance.bet_outcome WHERE source = 'odds88'")
    )
    told = zip(_WORDS_OF_BETS.values(), counted, strict=True)
    return {word: int(count) for word, count in told if count}


def _sums_of_bets(connection: Connection) -> dict[str, tuple[int, Decimal, Decimal]]:
    """Bets, stake and payout by currency, as finance adds them up."""
    return {
        currency: (bets, stake, payout)
        for currency, bets, stake, payout in connection.execute(
            text(
                "SELECT currency, sum(settlements)::bigint, sum(stake), coalesce(sum(payout), 0)"
                " FROM finance.daily_settlement WHERE source = 'odds88' GROUP BY 1"
            )
        )
    }


def _sums_told(ledger: Mapping[str, Any]) -> dict[str, tuple[int, Decimal, Decimal]]:
    return {
        currency: (told["bets"], Decimal(told["stake"]), Decimal(told["payout"]))
        for currency, told in ledger["sums"].items()
        if told["bets"]
    }


def _digest_of_bets(connection: Connection, condition: str) -> str:
    """SHA-256 over versions of bets in the ledger's own words and order."""
    digest = sha256()
    for row in connection.execute(
        text(
            "SELECT source_key, settled_at, status, outcome, stake, payout, refund"
            f" FROM core.settlement WHERE source = 'odds88' AND {condition}"
            " ORDER BY CAST(source_key AS numeric), provider_order, record_id"
        )
    ):
        digest.update(_line_of_bet(row))
    return digest.hexdigest()


def _line_of_bet(row: Any) -> bytes:
    is_refusal = row.status in ("cancelled", "rejected", "open")
    word = _WORDS_OF_BETS[row.status if is_refusal else row.outcome]
    # What is refunded as a whole is no partial refund.
    partial_refund = None if row.outcome == "refunded" else row.refund
    returned = [_amount(amount, row.stake) for amount in (row.payout, partial_refund)]
    told = [row.source_key, _moment(row.settled_at), word, str(row.stake), *returned]
    return "|".join(told).encode() + b"\n"


def _amount(amount: Decimal | None, stake: Decimal) -> str:
    """An amount with as many digits behind the point as the stake."""
    return format((amount or Decimal(0)).quantize(stake), "f")


def _moment(moment: datetime) -> str:
    """A time in UTC, with no more digits of a second than it needs."""
    fraction = f".{moment.microsecond:06}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


# --- tote ---------------------------------------------------------------------------------------


def _compare_followed_bets(connection: Connection, ledger: Mapping[str, Any]) -> Compared:
    counts = _counts(connection, "tote")
    bets = list(_bets_as_told(connection))
    sums = connection.execute(
        text(
            "SELECT currency, count(*), sum(payout), coalesce(sum(refund), 0)"
            " FROM core.settlement WHERE source = 'tote' AND is_current AND payout IS NOT NULL"
            " GROUP BY 1"
        )
    )
    truth = {
        currency: (told["bets"], Decimal(told["total"]), Decimal(told["refund"]))
        for currency, told in ledger["sums"].items()
    }
    yield "bets", counts.subjects, ledger["bets"]
    yield "how they stand", Counter("/".join(bet[1:4]) for bet in bets), ledger["final"]
    yield "payouts", {row[0]: tuple(row[1:]) for row in sums}, truth
    digest = sha256("".join("|".join(bet) + "\n" for bet in bets).encode())
    yield "digest of all bets", digest.hexdigest(), ledger["sha256"]


def _bets_as_told(connection: Connection) -> Iterator[tuple[str, ...]]:
    """Every bet as the text that was seen last tells it, in the ledger's fields and order.

    That need not be the current version's: it may say the same in other words.
    """
    for payload in connection.scalars(
        text(
            "SELECT payload FROM ("
            " SELECT DISTINCT ON (source_key) source_key, record_id FROM core.settlement"
            " WHERE source = 'tote' ORDER BY source_key, provider_order DESC, record_id DESC"
            ") AS newest JOIN raw.record_payload USING (record_id) ORDER BY newest.source_key"
        )
    ):
        bet = json.loads(bytes(payload))
        stake = bet["placement"]["stake"]
        returns = bet["resulting"]["returns"] or {}
        yield (
            bet["toteId"],
            bet["placement"]["status"],
            bet["resulting"]["status"],
            bet["settlement"]["status"],
            stake["currency"]["code"],
            stake["stringAmount"],
            *(
                returns[name]["stringAmount"] if name in returns else ""
                for name in ("totalAmount", "returnAmount", "refundAmount", "enhancementAmount")
            ),
        )


# --- prediction ---------------------------------------------------------------------------------


def _compare_markets(connection: Connection, ledger: Mapping[str, Any]) -> Compared:
    done = connection.scalar(text("SELECT count(*) FROM finance.market WHERE state = 'done'"))
    paid = connection.execute(
        text(
            "SELECT source_key, position_id, player_id, payout FROM core.settlement"
            " WHERE source = 'prediction' AND is_current AND status = 'settled' AND payout > 0"
            " ORDER BY source_key"
        )
    ).all()
    credited = connection.execute(
        text("SELECT count(*), coalesce(sum(amount), 0) FROM prediction.credit")
    ).one()
    owed = Decimal(ledger["owed"])
    lines = (f"{row[0]}|{row[1]}|{row[2]}|{row[3].normalize():f}\n" for row in paid)
    yield "markets done", done, ledger["markets_resolved"]
    yield "orders to settle", ledger["settle_calls"], ledger["settle_executions"]
    yield "markets settled more than once", ledger["settled_more_than_once"], []
    yield "payouts of markets", len(paid), ledger["payouts"]
    yield "sum of them", sum(row.payout for row in paid), owed
    yield "credits", tuple(credited), (ledger["payouts"], owed)
    yield "digest of them", sha256("".join(lines).encode()).hexdigest(), ledger["sha256"]
