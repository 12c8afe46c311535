"""The systems that the sandbox plays, as tests read them: by client, and by hand."""

from __future__ import annotations

import json
from typing import Any

import httpx

from include.providers import odds88, ticktock, tote
from include.providers.http import Account, Client
from include.sandbox.addresses import ODDS88_CLIENT_ID, ODDS88_PASSWORD, TICKTOCK_KEY, TOTE_KEY
from include.sandbox.client import Sandbox
from include.settings import Settings

_PAGE = 200


def ticktock_client(sandbox: Sandbox, settings: Settings) -> Client:
    """A client of the sandbox's ticktock that does not wait between two attempts."""
    return ticktock.open_client(sandbox.ticktock_url, TICKTOCK_KEY, settings)


def odds88_feed(sandbox: Sandbox, settings: Settings) -> odds88.Feed:
    """What connects to the sandbox's odds88."""
    return odds88.Feed(Account(sandbox.odds88_url, ODDS88_PASSWORD, ODDS88_CLIENT_ID), settings)


def odds88_messages(sandbox: Sandbox) -> list[str]:
    """The texts of all messages that odds88 has sent, oldest first."""
    messages: list[str] = []
    while several := sandbox.odds88_messages(after=len(messages), limit=1000):
        messages += several
    return messages


def provider_keys(sandbox: Sandbox, **settings: Any) -> list[str]:
    """The ids of all entries that ticktock shows, oldest first, read page by page."""
    sandbox.configure("ticktock", requests_a_minute=1_000_000, **settings)
    keys: list[str] = []
    with httpx.Client(headers={"X-API-Key": TICKTOCK_KEY}, trust_env=False) as client:
        while True:
            cursor = {"since_id": keys[-1]} if keys else {}
            page = client.get(
                f"{sandbox.ticktock_url}/settlements",
                params={"limit": _PAGE, **cursor},
            ).raise_for_status()
            entries = page.json()["data"]
            if not entries:
                return keys
            # Ids break ties, which the sandbox gives out in ascending order or at random.
            ids = [str(entry["id"]) for entry in entries]
            is_descending = entries[0]["created_at"] > entries[-1]["created_at"]
            keys += reversed(ids) if is_descending else ids


def tote_client(sandbox: Sandbox, settings: Settings) -> Client:
    """A client of the sandbox's tote."""
    return tote.open_client(sandbox.tote_url, TOTE_KEY, settings)


def tote_bets(sandbox: Sandbox) -> list[str]:
    """How every bet of tote stands, as JSON, by the time at which they were made."""
    return [json.dumps(bet) for bet in sandbox.tote_bets()]
