"""The gates between tasks: each lets a batch pass, or holds it with a finding and goes red.

A gate works on every batch of its source that waits for it, oldest first, each in one transaction
that holds the batch's row.  A held batch never keeps later ones back; the exception comes after
all of them.  Every rule's result is recorded, met or not.
"""

from include.quality.gates.holding import BatchHeld, GateReport
from include.quality.gates.raw import check_raw
from include.quality.gates.settlements import check_settlements

__all__ = ["BatchHeld", "GateReport", "check_raw", "check_settlements"]
