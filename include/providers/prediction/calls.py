"""The calls to the engine: two that order, three that ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx

from include.providers.errors import KEPT, Fatal
from include.providers.http import Answer, Client
from include.providers.prediction.documents import PROVIDER, is_market_id
from include.providers.prediction.pages import open_list
from include.providers.texts import shown
from include.settings import Settings

EVENTS_LIMIT = 1000
EVENTS_KEPT_HOURS = 24
MARKET_RESOLVED = "MARKET_RESOLVED"
_MEANINGS = {404: "Either the address is wrong, or the engine does not know the market."}
# Nothing to say, but servers that parse JSON refuse an empty body of that type.
_NO_CONTENT = b"{}"


def open_client(base_url: str, api_key: str, settings: Settings) -> Client:
    """A client for the engine at `base_url`, which ends in `/api/v1`, for one thread.

    Raises `Fatal` if it cannot be used.
    """
    bounded = settings.model_copy(update={"body_limit_bytes": settings.prediction_body_limit_bytes})
    return Client(
        PROVIDER,
        base_url,
        secret_headers={"X-Api-Key": api_key},
        settings=bounded,
        meanings=_MEANINGS,
    )


def settle(client: Client, market_id: str, *, ends_at: float) -> Answer:
    """Order, once, that a market be settled; `classify_answer` and `classify_error` say what came.

    `ends_at` is the deadline on the clock of `now`.  Raises `Retriable` if no byte was written,
    `Ambiguous` if the engine may have done it, and `Fatal` for an id that names no market.
    """
    return _order(client, market_id, "settle", ends_at)


def retry_settlements(client: Client, market_id: str, *, ends_at: float) -> Answer:
    """Order, once, that the failed settlements of a market be tried again; as `settle`."""
    return _order(client, market_id, "retry-settlements", ends_at)


def fetch_status(client: Client, market_id: str) -> Answer:
    """How far the settlement of a market has come; read it with `read_status`."""
    return client.get(f"/markets/{_checked(market_id)}/settlement-status")


def fetch_settlements(
    client: Client,
    *,
    market_id: str | None = None,
    player_id: str | None = None,
    next_page: Mapping[str, str] | None = None,
) -> Answer:
    """Settlements of a market, a player or both; `next_page` is what the page before showed."""
    filters = {"marketId": market_id, "playerId": player_id}
    given = {name: value for name, value in filters.items() if value is not None}
    # Ours come last: a page may say where it goes on, not what is asked for.
    return client.get("/settlements", {**(next_page or {}), **given})


def fetch_listing(
    client: Client,
    *,
    market_id: str | None = None,
    player_id: str | None = None,
    pages_limit: int,
) -> Iterator[Answer]:
    """The pages of a whole listing, each given away, to be stored, before it is looked into.

    Raises `PageUndecodable` for a page that was just given away and cannot be read, and `Fatal`
    if pages lead in a circle or are more than `pages_limit`.
    """
    next_page: dict[str, str] | None = None
    asked: list[dict[str, str] | None] = []
    while next_page not in asked and len(asked) < pages_limit:
        asked.append(next_page)
        answer = fetch_settlements(
            client, market_id=market_id, player_id=player_id, next_page=next_page
        )
        yield answer
        next_page = open_list(answer.body).next_page
        if next_page is None:
            return
    is_circle = next_page in asked
    raise Fatal(
        PROVIDER,
        f"Its list of settlements {'leads back to a page already read' if is_circle else 'goes on'}"
        f" after {len(asked)} pages. The list is not complete, and nothing was concluded from it.",
        f"Ask {PROVIDER} how its lists are paged, then clear this task."
        if is_circle
        else "If lists of that length are right, raise SETTLEMENTS_PREDICTION_LISTING_PAGES_LIMIT, "
        "then clear this task.",
    )


def fetch_events(
    client: Client,
    *,
    since: int | None,
    limit: int = EVENTS_LIMIT,
    event_type: str | None = MARKET_RESOLVED,
    market_id: str | None = None,
) -> Answer:
    """At most `limit` events behind the sequence `since`; without it, the oldest that are kept.

    Whether the event `since` itself is among them is not documented.
    """
    filters = {"since": since, "eventType": event_type, "marketId": market_id, "limit": limit}
    given = {name: value for name, value in filters.items() if value is not None}
    return client.get("/events", given)


def _order(client: Client, market_id: str, call: str, ends_at: float) -> Answer:
    path = f"/markets/{_checked(market_id)}/{call}"
    return client.post(path, _NO_CONTENT, auth=httpx.Auth(), ends_at=ends_at)


def _checked(market_id: str) -> str:
    if is_market_id(market_id):
        return market_id
    raise Fatal(
        PROVIDER,
        f"The market id {shown(market_id)} cannot be part of an address. {KEPT}",
        "Correct the id where it was entered; the engine's own are made of letters, digits and "
        "hyphens.",
    )
