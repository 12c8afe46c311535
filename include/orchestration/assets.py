"""What the pipelines tell other DAGs: that settlements were published, and how many."""

from __future__ import annotations

from airflow.sdk import Asset

# An event says "look", never "these": consumers read everything past their own cursor from the
# warehouse, because events of runs that overlap are merged.
SETTLEMENTS = Asset(
    "settlements", extra={"meaning": "Published settlements; see finance.settlement_current."}
)
