"""The demo's day of payouts: entered as an operator would, sent through faults, decided about.

The sandbox's wallet keeps the truth: what it credited, and how often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import text

from include.sandbox.client import Sandbox
from include.warehouse.database import open_engine

PAYOUTS = 1_500
_DISABLED, _UNKNOWN, _CHANGED, _NOT_WON = range(500, 620, 10), 900, 1100, 1200

# A day with two currencies, and one payout with an amount although nothing was won.
_ENTER = text("""
INSERT INTO wallet.transaction (
    transaction_id, ref_transaction_id, session_id, round_id, player_id, game_id, currency, amount,
    is_win, business_date, origin_source
)
SELECT
    to_char(number, '"payout-"FM0000'), 'bet-' || number, 'session-' || number, 'round-' || number,
    (number % 400)::text, 'G1720761376617', CASE WHEN number % 3 = 0 THEN 'USD' ELSE 'EUR' END,
    number::bigint * 12345, number <> :not_won, (now() AT TIME ZONE 'UTC')::date - 1, 'demo'
FROM generate_series(1, :payouts) AS number
""")

_CHANGE = text("""
INSERT INTO wallet.transaction (
    transaction_id, ref_transaction_id, session_id, round_id, player_id, game_id, currency, amount,
    is_win, business_date, origin_source
)
VALUES (
    :changed, 'bet', 'session', 'round', '14', 'G1720761376617', 'EUR', 99, true,
    (now() AT TIME ZONE 'UTC')::date - 1, 'demo'
)
""")

_FATES = text("""
SELECT transaction_id, disposition, amount FROM wallet.transaction ORDER BY transaction_id
""")


def enter_payouts(outbox_url: str) -> None:
    """Enter yesterday's payouts with the login that may do nothing else; one of them twice."""
    engine = open_engine(outbox_url)
    try:
        with engine.begin() as connection:
            connection.execute(_ENTER, {"payouts": PAYOUTS, "not_won": _NOT_WON})
        with engine.begin() as connection:
            connection.execute(_CHANGE, {"changed": _name(_CHANGED)})
    finally:
        engine.dispose()


def order_faults(sandbox: Sandbox) -> None:
    """What a bad night has: refusals, silence after work was done, answers that lack something."""
    disabled, unknown = [_name(number) for number in _DISABLED], [_name(_UNKNOWN)]
    sandbox.configure(
        "wallet",
        codes=[
            {"code": "RS_ERROR_USER_DISABLED", "transactions": disabled},
            {"code": "RS_ERROR_SOMETHING_NEW", "transactions": unknown},
        ],
    )
    sandbox.fault("wallet", "status", after_calls=3, status=503, executed=True)
    sandbox.fault("wallet", "reset_in_body", executed=True)
    sandbox.fault("wallet", "status", status=429, retry_after="1")
    sandbox.fault("wallet", "missing_item")
    sandbox.fault("wallet", "silence")


def disagreements(warehouse_url: str, sandbox: Sandbox) -> Iterator[str]:
    """What the outbox says otherwise than the wallet's own books, as sentences.

    `warehouse_url` is the owner's.  Every payout must have come to an end.
    """
    credits = dict(sandbox.wallet_credits())
    engine = open_engine(warehouse_url)
    try:
        with engine.connect() as connection:
            fates = connection.execute(_FATES).all()
    finally:
        engine.dispose()
    if len(fates) != PAYOUTS:
        yield f"payouts: {len(fates)} here, {PAYOUTS} entered"
    for row in fates:
        expected = {"processed": 1, "lost": 0}.get(row.disposition)
        if credits.get(row.transaction_id, 0) != expected:
            yield (
                f"payout {row.transaction_id} is {row.disposition} here; the wallet has credited "
                f"it {credits.get(row.transaction_id, 0)} times"
            )
    yield from _amounts_differ(fates, sandbox)


def _amounts_differ(fates: Sequence[Any], sandbox: Sandbox) -> Iterator[str]:
    ours = sum(row.amount for row in fates if row.disposition == "processed")
    credited = sandbox.ledger("wallet")["credited_by_currency"].values()
    theirs = sum(currency["amount"] for currency in credited)
    if ours != theirs:
        yield f"amount processed: {ours} here, {theirs} credited"


def _name(number: int) -> str:
    return f"payout-{number:04d}"
