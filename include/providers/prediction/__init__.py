"""The settlements of a prediction engine: a market is settled by order, then told by position.

Endpoints below the address, which ends in `/api/v1`, under the header `X-Api-Key`:
- `POST /markets/{id}/settle` cancels the market's open orders, which cannot be undone, and settles
  its positions; `POST /markets/{id}/retry-settlements` settles again those that failed.
- `GET /markets/{id}/settlement-status` counts positions; `GET /settlements?marketId=&playerId=`
  lists settlements.
- `GET /events?since=&eventType=&marketId=&limit=` keeps 24 hours of events by sequence.

Every answer is `{"success": true, "data": …}` or
`{"success": false, "error": {"code", "message"}}`.  What came of a call is decided by the code in
the body, not by the status alone.

A record is one settlement: one position's payout.  It moves from PENDING over PROCESSING to
COMPLETED or FAILED under the same id; a retry may also make a new one for the same position.  The
later `updatedAt` counts.

Quirks:
- The engine moves no money.  Settlements carry no currency: it is the market's, and `Terms` say it.
- `payoutPerShare` is documented as 1 or 0; comparable engines pay fractions too, so that anything
  from 0 to 1 is read.
- Amounts are decimals in a text.  A number in their place is refused: it may be rounded already.
- Whether lists come in pages is not documented.  `nextCursor` or `next` is followed wherever an
  answer shows it; of an address only the query is taken, so that the key goes nowhere else.  What
  tells of pages in another way is found by the counts of `settlement-status`.
- Of an event only its sequence, type and market are read.
"""

from include.providers.prediction.calls import (
    EVENTS_KEPT_HOURS,
    EVENTS_LIMIT,
    MARKET_RESOLVED,
    fetch_events,
    fetch_listing,
    fetch_settlements,
    fetch_status,
    open_client,
    retry_settlements,
    settle,
)
from include.providers.prediction.documents import (
    PROVIDER,
    Amount,
    MarketStatus,
    RecordStatus,
    SettlementRecord,
    SettleTotals,
    is_market_id,
)
from include.providers.prediction.orders import (
    SETTLEMENT_ALREADY_COMPLETED,
    SETTLEMENT_FAILED,
    Execution,
    SettleAnswer,
    classify_answer,
    classify_error,
    read_settle_answer,
    settlements_answered,
)
from include.providers.prediction.pages import (
    EventEntry,
    EventPage,
    Page,
    PageEntry,
    read_events,
    read_page,
    read_status,
)
from include.providers.prediction.settlements import (
    UNDECIDED,
    Terms,
    normalize,
    order_of,
    read_settlement,
)

__all__ = [
    "EVENTS_KEPT_HOURS",
    "EVENTS_LIMIT",
    "MARKET_RESOLVED",
    "PROVIDER",
    "SETTLEMENT_ALREADY_COMPLETED",
    "SETTLEMENT_FAILED",
    "UNDECIDED",
    "Amount",
    "EventEntry",
    "EventPage",
    "Execution",
    "MarketStatus",
    "Page",
    "PageEntry",
    "RecordStatus",
    "SettleAnswer",
    "SettleTotals",
    "SettlementRecord",
    "Terms",
    "classify_answer",
    "classify_error",
    "fetch_events",
    "fetch_listing",
    "fetch_settlements",
    "fetch_status",
    "is_market_id",
    "normalize",
    "open_client",
    "order_of",
    "read_events",
    "read_page",
    "read_settle_answer",
    "read_settlement",
    "read_status",
    "retry_settlements",
    "settle",
    "settlements_answered",
]
