"""A client of the sandbox's control plane, for tests and the demo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from include.sandbox.addresses import (
    ALERTS_PATH,
    CONTROL_PATH,
    ODDS88_PATH,
    PREDICTION_PATH,
    TICKTOCK_PATH,
    TOTE_PATH,
    WALLET_PATH,
)

# A ledger of ten million entries is computed while the client waits.
_DEADLINE_SECONDS = 600.0
_RECORDS_A_PAGE = 10_000
_MARKETS_A_PAGE = 20


class Sandbox:
    """One running sandbox, by the base URL it wrote into its ready file.

    A request that the sandbox refuses raises ValueError with the sandbox's own reason.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url, timeout=_DEADLINE_SECONDS, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def ticktock_url(self) -> str:
        """The base URL of the Airflow connection `ticktock`."""
        return self.base_url + TICKTOCK_PATH

    @property
    def wallet_url(self) -> str:
        """The base URL of the Airflow connection `wallet`."""
        return self.base_url + WALLET_PATH

    @property
    def odds88_url(self) -> str:
        """The base URL of the Airflow connection `odds88`; the feed is under it too, by ws://."""
        return self.base_url + ODDS88_PATH

    @property
    def prediction_url(self) -> str:
        """The base URL of the Airflow connection `prediction`."""
        return self.base_url + PREDICTION_PATH

    @property
    def tote_url(self) -> str:
        """The base URL of the Airflow connection `tote`; the socket is under it too, by ws://."""
        return self.base_url + TOTE_PATH

    @property
    def alerts_url(self) -> str:
        """The URL of the Airflow connection `alerts`."""
        return self.base_url + ALERTS_PATH

    def close(self) -> None:
        """Closes this client's connections; the sandbox goes on."""
        self._http.close()

    def reset(self) -> None:
        """Back to the start: settings, faults, calls, alerts, rate limits, books."""
        self._ask("POST", "reset", json={})

    def configure(self, provider: str, **changes: Any) -> dict[str, Any]:
        """Changes a provider's settings; gives all those in force."""
        return dict(self._ask("POST", f"{provider}/configure", json=changes))

    def advance(self, provider: str, entries: int) -> dict[str, Any]:
        """The provider's log goes on by so many entries; gives the settings in force."""
        return dict(self._ask("POST", f"{provider}/advance", json={"entries": entries}))

    def release(self, provider: str, *entries: int) -> dict[str, Any]:
        """Makes late entries (indexes) visible now; gives the settings in force."""
        return dict(self._ask("POST", f"{provider}/release", json={"entries": entries}))

    def fault(
        self,
        provider: str,
        kind: str,
        *,
        call: str | None = None,
        times: int | None = 1,
        after_calls: int = 0,
        executed: bool | None = None,
        executed_items: int | None = None,
        **parameters: Any,
    ) -> None:
        """Orders a fault for the next `times` calls (None: until reset) after `after_calls`.

        `executed` says whether the call is carried out before it is spoiled, and `executed_items`
        how many of its first items are; with neither it is as the fault itself says.
        """
        order = {
            "provider": provider,
            "call": call,
            "kind": kind,
            "parameters": parameters,
            "times": times,
            "after_calls": after_calls,
            "executed": executed,
            "executed_items": executed_items,
        }
        self._ask("POST", "faults", json=order)

    def faults(self) -> list[dict[str, Any]]:
        """The orders for faults that are not yet used up."""
        return list(self._ask("GET", "faults"))

    def forget_faults(self) -> None:
        """Takes back the orders for faults that are not yet used up."""
        self._ask("DELETE", "faults")

    def calls(self) -> dict[str, Any]:
        """`total`, `counts` by "provider.call" and status, and the `recent` calls."""
        return dict(self._ask("GET", "calls"))

    def ledger(self, provider: str, up_to_id: str | None = None) -> dict[str, Any]:
        """The truth about what is visible now, up to an entry if its id is given."""
        query = {} if up_to_id is None else {"up_to_id": up_to_id}
        return dict(self._ask("GET", f"ledger/{provider}", params=query))

    def wallet_requests(
        self, after: int = 0, limit: int = 1000, *, with_texts: bool = False
    ) -> list[dict[str, Any]]:
        """What arrived at the wallet behind request number `after`, oldest first.

        `item_texts` are then the exact texts of the items, None if the body held no list of them.
        """
        query = {"after": after, "limit": limit, "with_texts": with_texts}
        return list(self._ask("GET", "wallet/requests", params=query))

    def wallet_credits(self) -> Iterator[tuple[str, int]]:
        """How often each transaction was credited that the wallet ever executed, first come first.

        One that was only refused was credited 0 times. A million take some seconds.
        """
        after = 0
        while page := self._ask(
            "GET", "wallet/credits", params={"after": after, "limit": _RECORDS_A_PAGE}
        ):
            yield from page.items()
            after += len(page)

    def wallet_transactions(self, transaction_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Those of these transactions that the wallet ever executed, each with all its outcomes.

        `credits`, `credited_amount`, and `outcomes`: each a `request` number and the `code`.
        """
        return list(self._ask("POST", "wallet/transactions", json=list(transaction_ids)))

    def wallet_balances(self, player: str | None = None) -> dict[str, dict[str, int]]:
        """Balances by currency and player, scaled by 100 000; of one player if given."""
        query = {} if player is None else {"player": player}
        return dict(self._ask("GET", "wallet/balances", params=query))

    def odds88_attempts(self, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """The attempts to connect to the feed behind number `after`, and what became of each."""
        return list(self._ask("GET", "odds88/attempts", params={"after": after, "limit": limit}))

    def odds88_messages(self, after: int = 0, limit: int = 1000) -> list[str]:
        """The exact texts of the feed's messages, the first one being that with index `after`."""
        return list(self._ask("GET", "odds88/messages", params={"after": after, "limit": limit}))

    def odds88_bets(self) -> Iterator[dict[str, Any]]:
        """Every bet the feed has told of, as its last settlement has it, by ascending id."""
        query: dict[str, Any] = {"limit": _RECORDS_A_PAGE}
        while True:
            page = self._ask("GET", "odds88/bets", params=query)
            yield from page["bets"]
            if page["next"] is None:
                return
            query["after"] = page["next"]

    def prediction_market_ids(self, after: int = 0, limit: int = 1000) -> list[str]:
        """The ids of resolved markets, in the order in which they were resolved."""
        query = {"after": after, "limit": limit}
        return list(self._ask("GET", "prediction/market_ids", params=query))

    def prediction_markets(self) -> Iterator[dict[str, Any]]:
        """How every market stands that was called upon, first come first, and what it owes."""
        after = 0
        query = {"limit": _MARKETS_A_PAGE}
        while page := self._ask("GET", "prediction/markets", params={**query, "after": after}):
            yield from page
            after += len(page)

    def prediction_owed(self, market_id: str) -> list[dict[str, str]]:
        """What a market owes now, a settlement each: its id, the position's, the player, amount."""
        return list(self._ask("GET", "prediction/owed", params={"market_id": market_id}))

    def tote_connections(self) -> list[dict[str, Any]]:
        """The connections to the socket, oldest first, and what each was told."""
        return list(self._ask("GET", "tote/connections"))

    def tote_bets(self) -> Iterator[dict[str, Any]]:
        """Every bet as it stands, by ascending toteId, which is also the order of placing."""
        after = 0
        query = {"limit": _RECORDS_A_PAGE}
        while page := self._ask("GET", "tote/bets", params={**query, "after": after}):
            yield from page
            after += len(page)

    def tote_states(self, tote_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Those of these bets that there are, as they stand."""
        return list(self._ask("POST", "tote/states", json=list(tote_ids)))

    def alerts(self) -> dict[str, Any]:
        """`received`, counts `by_key`, and the last `alerts`, oldest first."""
        return dict(self._ask("GET", "alerts"))

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        answer = self._http.request(method, f"{CONTROL_PATH}/{path}", **content)
        if answer.is_error:
            raise ValueError(f"the sandbox refused {path} ({answer.status_code}): {answer.text}")
        return answer.json()
