"""The switches of odds88's settlement feed: all that its documentation leaves open."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from include.sandbox.odds88_bets import MESSAGES_LIMIT, EqualTimes
from include.sandbox.odds88_selections import PayoutUnit


class Odds88Settings(BaseModel):
    """How odds88 behaves. Messages are named by their index in the feed, 0 being the oldest.

    The sandbox's clock is the real one, or stands at `clock_stopped_at`, and is
    `clock_offset_seconds` ahead: the budgets, the tokens and the 3 days go by it. `messages` is how
    far the feed has come; configured, they are history, spread evenly over the last
    `history_seconds`, and `advance` sends more.

    The feed recovers what is not older than the revision, by its settlement time or by when it was
    first sent, in `recovery_order`. A revision more than `recovery_seconds` back is too small:
    it begins there, with nothing but what is new, or is refused. So does, by `without_revision`,
    a connection that gives none or 0. Behind history the last `seam_duplicates` messages come
    again. A ping comes every `ping_seconds` (real ones), and in history every
    `ping_every_messages`.

    `attempts_a_window` is the budget of each window; attempts refused for it count in it only with
    `refused_attempts_count`. A refusal for a budget or a second connection comes as the status 429
    of the handshake, or after a sound one as close code 1008. A second connection is refused, or
    replaces the first one.

    `equal_times` lets some resettlements tell the time of what they correct, with a newer version
    of the leg or without. `time_digits` of a second are written at most. A payout is told in
    `payout_unit`, and holds the partial refund or not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    clock_offset_seconds: float = 0.0
    clock_stopped_at: AwareDatetime | None = None
    messages: int = Field(default=1000, ge=0, le=MESSAGES_LIMIT)
    history_seconds: float = Field(default=172_800.0, gt=0)
    recovered_by: Literal["settlement_time", "first_sent"] = "settlement_time"
    recovery_order: Literal["first_sent", "settlement_time", "newest_first"] = "first_sent"
    recovery_seconds: float = Field(default=259_200.0, gt=0)
    too_small_revision: Literal["from_limit", "live_only", "refused"] = "from_limit"
    without_revision: Literal["from_limit", "live_only", "refused"] = "from_limit"
    seam_duplicates: int = Field(default=2, ge=0, le=100_000)
    ping_seconds: float = Field(default=5.0, gt=0)
    ping_every_messages: int | None = Field(default=500, ge=1)
    attempts_a_window: int = Field(default=5, ge=1)
    refused_attempts_count: bool = False
    refusals: Literal["status", "close"] = "status"
    second_connection: Literal["refused", "replaces"] = "refused"
    token_seconds: float = Field(default=86_400.0, gt=0)
    log_ins_a_second: int = Field(default=5, ge=1)
    equal_times: EqualTimes = "never"
    time_digits: int = Field(default=6, ge=0, le=7)
    payout_unit: PayoutUnit = "major"
    payout_holds_refund: bool = True
