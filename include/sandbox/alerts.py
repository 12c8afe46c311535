"""A receiver of alerts: keeps what is posted to it, so that tests can see what people were told."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request

from include.sandbox.addresses import ALERTS_PATH
from include.sandbox.calls import Observer, executed_items

ALERTS_KEPT = 1000


class AlertBox:
    """The last alerts received, and how many came under each key."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets every alert."""
        self._alerts: deque[dict[str, Any]] = deque(maxlen=ALERTS_KEPT)
        self._counts: Counter[str] = Counter()

    @property
    def received(self) -> int:
        """How many came so far."""
        return self._counts.total()

    def receive(self, body: dict[str, Any], authorization: str | None) -> int:
        """Keeps an alert, and the scheme alone of its Authorization; gives how many came so far."""
        self._counts[str(body.get("key", ""))] += 1
        self._alerts.append(
            {
                "received_at": datetime.now(UTC).isoformat(),
                "authorization": authorization.partition(" ")[0] if authorization else None,
                "body": body,
            }
        )
        return self.received

    def report(self) -> dict[str, Any]:
        """How many came, in all and by their field `key`; the last of them, oldest first."""
        return {
            "received": self.received,
            "by_key": dict(self._counts),
            "alerts": list(self._alerts),
        }


def alert_routes(box: AlertBox, observer: Observer) -> APIRouter:
    """The receiver's one call, `alert`: a JSON object by POST."""
    router = APIRouter(route_class=observer.route_class("alerts"))

    @router.post(ALERTS_PATH, name="alert")
    async def receive(
        request: Request,
        body: Annotated[dict[str, Any], Body()],
        authorization: Annotated[str | None, Header()] = None,
    ) -> dict[str, int]:
        if executed_items(request) == 0:
            return {"received": box.received + 1}
        return {"received": box.receive(body, authorization)}

    return router
