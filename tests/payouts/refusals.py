"""What the wallet itself says of those payouts that count as lost because it refused them."""

from __future__ import annotations

from include.providers.wallet import ITEM_CODES, CodeClass
from tests.payouts.entering import rows
from tests.payouts.resending import Resend

_LOST_BY_REFUSAL = """
SELECT transaction_id FROM wallet.transaction
WHERE disposition = 'lost' AND NOT evidence ? 'decision_id'
ORDER BY transaction_id
"""


def lost_without_refusal(resend: Resend) -> list[str]:
    """Those that it never refused for their own sake: read from its books, not from answers."""
    lost = [row.transaction_id for row in rows(resend.warehouse, _LOST_BY_REFUSAL)]
    refused = {
        each["transaction_id"]
        for each in resend.sandbox.wallet_transactions(lost)
        if any(ITEM_CODES.get(outcome["code"]) is CodeClass.FINAL for outcome in each["outcomes"])
    }
    return [
        f"payout {name} is lost, but the wallet never refused it for its own sake"
        for name in lost
        if name not in refused
    ]
