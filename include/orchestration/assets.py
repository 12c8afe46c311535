"""What the pipelines tell other DAGs: that settlements were published, or payouts sent."""

from __future__ import annotations

from airflow.sdk import Asset

# An event says "look", never "these": consumers read everything past their own cursor from the
# warehouse, because events of runs that overlap are merged.
SETTLEMENTS = Asset(
    "settlements", extra={"meaning": "Published settlements; see finance.settlement_current."}
)

RESEND_OUTCOME = Asset(
    "resend_outcome",
    extra={"meaning": "A resend to the wallet ended; see wallet.reported_outcome."},
)
