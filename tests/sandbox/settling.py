"""An operator of the prediction engine that knows the documentation and nothing of this project."""

from __future__ import annotations

from typing import Any

import httpx

from include.sandbox.addresses import PREDICTION_KEY
from include.sandbox.client import Sandbox


class Operator:
    """Calls the engine over one connection."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client) -> None:
        self._url = sandbox.prediction_url
        self._http = http

    def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = PREDICTION_KEY,
        timeout: float = 10.0,
        **query: Any,
    ) -> httpx.Response:
        """Makes one call and gives whatever is answered."""
        headers = {} if key is None else {"X-Api-Key": key}
        return self._http.request(
            method, f"{self._url}{path}", params=query, headers=headers, timeout=timeout
        )

    def settle(self, market_id: str, **options: Any) -> httpx.Response:
        """Orders that a market be settled."""
        return self.call("POST", f"/markets/{market_id}/settle", **options)

    def retry(self, market_id: str, **options: Any) -> httpx.Response:
        """Orders that a market's failed settlements be tried again."""
        return self.call("POST", f"/markets/{market_id}/retry-settlements", **options)

    def status(self, market_id: str) -> dict[str, Any]:
        """How far a market has come."""
        return dict(self._data(self.call("GET", f"/markets/{market_id}/settlement-status")))

    def settlements(self, **query: Any) -> list[dict[str, Any]]:
        """The settlements of a list without pages."""
        return list(self._data(self.call("GET", "/settlements", **query)))

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """Events, oldest first."""
        return list(self._data(self.call("GET", "/events", **query))["events"])

    def _data(self, answer: httpx.Response) -> Any:
        envelope = answer.raise_for_status().json()
        assert envelope["success"] is True
        return envelope["data"]
