from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.client import Sandbox
from tests.sandbox.paying import Payer
from tests.sandbox.settling import Operator

Walk = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    # Everything here is plain HTTP: no certificates to load, which is most of a client's cost.
    with httpx.Client(trust_env=False, verify=False) as client:
        yield client


@pytest.fixture
def ticktock(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A client of ticktock that sends its key and knows nothing else."""
    with httpx.Client(
        base_url=sandbox.ticktock_url,
        headers={"X-API-Key": TICKTOCK_KEY},
        trust_env=False,
        verify=False,
    ) as client:
        yield client


@pytest.fixture
def walk(ticktock: httpx.Client) -> Walk:
    """All entries after a cursor, by the documented loop."""

    def all_entries(since_id: Any = None, limit: int = 200) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        while True:
            query = {"limit": limit} | ({} if since_id is None else {"since_id": since_id})
            page = ticktock.get("/settlements", params=query).raise_for_status().json()["data"]
            if not page:
                return entries
            entries += page
            since_id = page[-1]["id"]

    return all_entries


@pytest.fixture
def payer(sandbox: Sandbox, http: httpx.Client) -> Payer:
    """A caller of the wallet."""
    return Payer(sandbox, http)


@pytest.fixture
def operator(sandbox: Sandbox, http: httpx.Client) -> Operator:
    """A caller of the prediction engine."""
    return Operator(sandbox, http)
