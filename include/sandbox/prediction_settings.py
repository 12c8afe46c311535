"""The switches of the prediction engine: all that its documentation leaves open or gets wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from include.sandbox.addresses import PREDICTION_OPERATOR_ID

MARKETS_LIMIT = 1_000_000
Lie = Literal[
    "settle.totalPositions",
    "settle.successCount",
    "settle.failedCount",
    "settle.totalPayout",
    "settle.cancelledOrders",
    "status.totalPositions",
    "status.pendingCount",
    "status.processingCount",
    "status.completedCount",
    "status.failedCount",
    "status.totalPayout",
    "status.completedPayout",
    "row.totalPayout",
]


class PredictionSettings(BaseModel):
    """How the engine behaves. Markets are named by their number, 0 being the first resolved.

    The sandbox's clock is the real one, or stands at `clock_stopped_at`, and is
    `clock_offset_seconds` ahead. `markets` are resolved; configured, they are history, spread
    evenly over the last `history_seconds`, and `advance` resolves more now.

    What a market holds (`positions`, `players` of all markets together, `share_digits` behind the
    point of shares) is fixed when it is first settled. A `fractional_share` of markets pay
    `fraction` a share of the winning outcome and the rest of 1 of the other one.

    A settlement takes up to `settling_seconds` from PENDING over PROCESSING to its end (0: it has
    ended when the call is answered). A `failing_share` of positions fail, `failing_attempts` times
    (None: for ever); a `stuck_share` stay PROCESSING. What counts is the switch at the time of the
    attempt. A retry updates the failed settlement, or makes a new one for the same position.

    The first `settle_errors` calls to settle a market are answered SETTLEMENT_FAILED, and executed
    or not. `settle_again` is for a market that was settled and is not completed; one that is
    completed always gets SETTLEMENT_ALREADY_COMPLETED. An error comes with its own status, or all
    of them with 200. Of a market that was never settled the status tells no positions, tells all of
    them pending, or is not found.

    `lies` are added to what is answered, those of `row` to a market's first position. Of positions,
    `foreign_operator_share` name another operator. Only `odd_markets` (None: all) lie, fail, get
    stuck or are foreign.

    Lists have no pages, or pages of `page_limit` that show the next one as `page_form` says. Events
    are kept for `events_kept_seconds`; `since` leaves its own event out or not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    operator_id: str = PREDICTION_OPERATOR_ID
    clock_offset_seconds: float = 0.0
    clock_stopped_at: AwareDatetime | None = None
    markets: int = Field(default=20, ge=0, le=MARKETS_LIMIT)
    history_seconds: float = Field(default=43_200.0, gt=0)
    positions: int = Field(default=25, ge=0, le=1_000_000)
    players: int = Field(default=1000, ge=1)
    share_digits: int = Field(default=2, ge=0, le=6)
    fractional_share: float = Field(default=0.0, ge=0, le=1)
    fraction: Decimal = Field(default=Decimal("0.5"), ge=0, le=1, decimal_places=6)
    settling_seconds: float = Field(default=0.0, ge=0)
    failing_share: float = Field(default=0.0, ge=0, le=1)
    failing_attempts: int | None = Field(default=1, ge=1)
    stuck_share: float = Field(default=0.0, ge=0, le=1)
    retries: Literal["update", "new_settlements"] = "update"
    settle_errors: int = Field(default=0, ge=0)
    settle_errors_execute: bool = False
    settle_again: Literal["already_completed", "settlement_failed", "current_state"] = (
        "already_completed"
    )
    errors_come_with_200: bool = False
    unsettled_status: Literal["empty", "pending", "not_found"] = "empty"
    lies: dict[Lie, Decimal] = Field(default_factory=dict)
    foreign_operator_share: float = Field(default=0.0, ge=0, le=1)
    odd_markets: frozenset[int] | None = None
    page_limit: int | None = Field(default=None, ge=1)
    page_form: Literal["next_cursor", "next_address", "next_cursor_in_data"] = "next_cursor"
    events_kept_seconds: float = Field(default=86_400.0, gt=0)
    since_is_included: bool = False

    def is_odd(self, market: int) -> bool:
        """Whether the switches for odd behaviour concern this market."""
        return self.odd_markets is None or market in self.odd_markets
