"""The bets of tote: asked for by GraphQL, which is the truth; its socket only hints at changes.

Endpoint: one query, `bets.graphql`, by POST below the base address, header `Authorization:
Api-Key …` or `Bearer …`.  It names bets by their `toteId`, at most 250 at a time, or lists those
made in a period: newest first, at most 250 a page and 90 days, continued after a cursor.

A record is one node of an answer: a bet as it stood when the answer came.  tote tells neither when
a bet was settled nor in which order it changed, so the order is that of our looking, and a bet that
settles late is found only by asking for it again.

Quirks:
- An answer with status 200 may hold `errors`, and data besides: that is a failure, never an empty
  page.
- RESULTED is not SETTLED: until it is settled or refunded, nothing is paid.
- A bet of the documented example has no `resulting.status` and tells of its returns nothing but the
  total; what else is absent is taken as not told, never as zero.
- The socket's messages carry no currency, time or sequence, as plain JSON or within frames of
  either GraphQL subprotocol.  Whatever else they say, they say which bet to look at.
"""

from include.providers.tote.asking import (
    PAGE_LIMIT,
    PERIOD_LIMIT,
    QUERY,
    authorization,
    fetch_bets,
    fetch_period,
    open_client,
)
from include.providers.tote.bets import Standing, normalize, order_of, standing
from include.providers.tote.documents import (
    ID_CHARACTERS_LIMIT,
    PROVIDER,
    Bet,
    CurrencyCode,
    PlacementStatus,
    ResultingStatus,
    SettlementStatus,
)
from include.providers.tote.hints import (
    PONG_FRAME,
    SUBPROTOCOLS,
    SUBSCRIPTIONS,
    BrokenHint,
    Hint,
    HintFeed,
    Notice,
    opening_frame,
    read_hint,
    socket_url,
    subscription_frames,
)
from include.providers.tote.pages import Page, PageEntry, Totals, next_cursor, read_page, totals_of

__all__ = [
    "ID_CHARACTERS_LIMIT",
    "PAGE_LIMIT",
    "PERIOD_LIMIT",
    "PONG_FRAME",
    "PROVIDER",
    "QUERY",
    "SUBPROTOCOLS",
    "SUBSCRIPTIONS",
    "Bet",
    "BrokenHint",
    "CurrencyCode",
    "Hint",
    "HintFeed",
    "Notice",
    "Page",
    "PageEntry",
    "PlacementStatus",
    "ResultingStatus",
    "SettlementStatus",
    "Standing",
    "Totals",
    "authorization",
    "fetch_bets",
    "fetch_period",
    "next_cursor",
    "normalize",
    "open_client",
    "opening_frame",
    "order_of",
    "read_hint",
    "read_page",
    "socket_url",
    "standing",
    "subscription_frames",
    "totals_of",
]
