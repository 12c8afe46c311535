"""The settlement feed of odds88: a message on a WebSocket each time a bet is settled, or again.

Endpoint: `/feed/settlement/v4?revision=` below the base address, `revision` being the Unix second
from which messages are told again: at most 3 days back, 0 for the first connection.  The token for
it comes from `POST /api/Account/login` and may be used for 24 hours.

A record is what a message has in `data`: one state of one bet.  Several of a bet are normal; the
later `settlementTime` counts, then the higher `settlementVersion` of a leg, however late each one
arrives.  A message with a `pingId` and no `data` says only that the connection lives.

Quirks:
- The numbers of results are those of this document.  A sister feed of the same vendor numbers them
  differently: they are never shared.
- Numbers with a point are read digit by digit as they are written; a number written as a text is
  none.
- Whether `payout` and `partialRefund` count in major or minor units, whether the one contains the
  other, and with which `settlementVersion` a leg begins is not documented.  `Terms` say it; a bet
  that depends on what they leave open is held back, never guessed.
- Most fields may be absent by the schema.  What decides who gets what must be there.
- A message that cannot be read costs itself alone; the stream goes on.
"""

from include.providers.odds88.access import (
    PROVIDER,
    TOKEN_LIFETIME,
    Feed,
    Token,
    feed_path,
    feed_url,
    log_in,
    open_client,
    token_headers,
)
from include.providers.odds88.bets import (
    UNDECIDED,
    Terms,
    normalize,
    order_of,
    read_bet,
    settle,
    stake_of,
    terms_of,
)
from include.providers.odds88.documents import (
    Amount,
    Bet,
    BuilderItem,
    EachWayPrice,
    Event,
    LegSettlement,
    Market,
    Number,
    Result,
    Selection,
    SelectionType,
)
from include.providers.odds88.messages import (
    BrokenMessage,
    Message,
    Page,
    PageEntry,
    Ping,
    join_messages,
    read_message,
    read_page,
)

__all__ = [
    "PROVIDER",
    "TOKEN_LIFETIME",
    "UNDECIDED",
    "Amount",
    "Bet",
    "BrokenMessage",
    "BuilderItem",
    "EachWayPrice",
    "Event",
    "Feed",
    "LegSettlement",
    "Market",
    "Message",
    "Number",
    "Page",
    "PageEntry",
    "Ping",
    "Result",
    "Selection",
    "SelectionType",
    "Terms",
    "Token",
    "feed_path",
    "feed_url",
    "join_messages",
    "log_in",
    "normalize",
    "open_client",
    "order_of",
    "read_bet",
    "read_message",
    "read_page",
    "settle",
    "stake_of",
    "terms_of",
    "token_headers",
]
