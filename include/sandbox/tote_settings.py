"""The switches of tote: all that its documentation leaves open."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from include.sandbox.tote_bets import BETS_LIMIT

Subprotocol = Literal["graphql-transport-ws", "graphql-ws"]


class ToteSettings(BaseModel):
    """How tote behaves. Bets are named by their number, 0 being the oldest.

    The sandbox's clock is the real one, or stands at `clock_stopped_at`, and is
    `clock_offset_seconds` ahead. `bets` is how many were placed; configured, they are history,
    spread evenly over the last `history_seconds`, and `advance` places more. What is due happens
    when tote is configured or advanced, and stands still in between.

    GraphQL tells of nothing that happened in the last `graphql_lags_seconds`; the socket does not
    wait for it. A period ends before its `until`, or with it by `until_included`.

    A wrong key is refused with the status 401, or by `errors` under the status 200. More than
    `requests_a_minute` are refused with the status 429 (None: as many as come).

    The socket speaks the first of `subprotocols` that the client offers, else plain JSON. It lets
    hear that it lives every `ping_seconds` (real ones). A message's amount is the whole of what a
    bet returns, or without refund and enhancement.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    clock_offset_seconds: float = 0.0
    clock_stopped_at: AwareDatetime | None = None
    bets: int = Field(default=1000, ge=0, le=BETS_LIMIT)
    history_seconds: float = Field(default=5_184_000.0, gt=0)
    graphql_lags_seconds: float = Field(default=0.0, ge=0)
    until_included: bool = False
    refusals: Literal["status", "errors"] = "status"
    requests_a_minute: int | None = Field(default=None, ge=1)
    subprotocols: tuple[Subprotocol, ...] = ("graphql-transport-ws", "graphql-ws")
    ping_seconds: float = Field(default=5.0, gt=0)
    hinted_amount: Literal["total", "return"] = "total"
