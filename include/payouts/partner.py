"""The partner: where the wallet is, with which key, and the posting of requests to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from include.payouts.attempts import Attempt
from include.payouts.judging import Judgement
from include.providers import wallet
from include.providers.http import Answer, Client
from include.settings import Settings


@dataclass(frozen=True)
class Partner:
    """Where the wallet is, and with which key and secret it is spoken to."""

    base_url: str
    api_key: str = field(repr=False)
    signing_secret: str = field(repr=False)


class Wire:
    """The partner, spoken to by several threads: each has a client of its own."""

    def __init__(self, partner: Partner, settings: Settings) -> None:
        self._partner = partner
        self._settings = settings
        self._signing = wallet.Signing(partner.signing_secret)
        self._clients: list[Client] = []
        self._own = threading.local()
        # At once, so that an address or a key that cannot be used is told before any attempt.
        self._client()

    def post(self, attempt: Attempt) -> Answer:
        """Send the attempt's body, once."""
        return wallet.post_settlement(
            self._client(), attempt.body, self._signing, ends_at=attempt.ends_at
        )

    def without_key(self, answer: Answer) -> Answer:
        """An answer as it may be stored, once it was judged as it came: some repeat the request."""
        return replace(answer, body=answer.body.replace(self._partner.api_key.encode(), b"..."))

    def judged_without_key(self, judgement: Judgement) -> Judgement:
        """What was made of such an answer, as it may be stored and told."""
        key = self._partner.api_key
        items = judgement.items
        if any(key in said for item in items for said in (item.code, item.detail) if said):
            items = tuple(
                item._replace(code=self._hidden(item.code), detail=self._hidden(item.detail))
                for item in items
            )
        return replace(
            judgement,
            items=items,
            detail=self._hidden(judgement.detail),
            answer_code=self._hidden(judgement.answer_code),
            foreign_ids=tuple(each.replace(key, "...") for each in judgement.foreign_ids),
        )

    def _hidden(self, said: str | None) -> str | None:
        return said and said.replace(self._partner.api_key, "...")

    def close(self) -> None:
        """Close the clients of all threads."""
        for client in self._clients:
            client.close()

    def _client(self) -> Client:
        if not hasattr(self._own, "client"):
            self._own.client = wallet.open_client(
                self._partner.base_url, self._partner.api_key, self._settings
            )
            self._clients.append(self._own.client)
        client: Client = self._own.client
        return client
