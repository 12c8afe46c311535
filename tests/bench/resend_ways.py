"""The ways to send an outbox to the wallet that are measured: this project's, and a bare loop.

Each runs in a process of its own: `python -m tests.bench.resend_ways WAY WALLET_URL`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import islice
from threading import local

import httpx
import psycopg2

from include.payouts.outbox import freeze_new
from include.payouts.partner import Partner
from include.payouts.sending import send
from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.settings import Settings
from include.warehouse.database import open_engine
from tests.bench.stopwatch import Stopwatch

DAY = date(2026, 11, 20)
_URL = os.environ.get("BENCH_URL", "")


def freeze(stopwatch: Stopwatch, wallet_url: str) -> None:
    """Only the bytes, so that both ways below begin with them."""
    engine = open_engine(_URL)
    stopwatch.start()
    with stopwatch.stage("freeze"):
        freeze_new(engine)


def project(stopwatch: Stopwatch, wallet_url: str) -> None:
    """This project: attempts committed first, answers applied payout by payout."""
    engine = open_engine(_URL)
    stopwatch.start()
    with stopwatch.stage("send"):
        send(engine, Partner(wallet_url, WALLET_KEY, WALLET_SECRET), Settings(), DAY)


def bare(stopwatch: Stopwatch, wallet_url: str) -> None:
    """Read the bytes, sign, post, look at the status; nothing is remembered."""
    settings = Settings()
    own = local()

    def post(items: list[bytes]) -> None:
        if not hasattr(own, "client"):
            own.client = httpx.Client(trust_env=False, timeout=settings.wallet_deadline_seconds)
        body = b'{"transactions":[' + b",".join(items) + b"]}"
        timestamp = str(time.time_ns() // 1_000_000)
        signed = body + b"|" + timestamp.encode()
        own.client.post(
            f"{wallet_url}/transaction/settlement",
            content=body,
            headers={
                "content-type": "application/json",
                "x-api-key": WALLET_KEY,
                "x-timestamp": timestamp,
                "x-signature": hmac.new(WALLET_SECRET.encode(), signed, hashlib.sha256).hexdigest(),
            },
        ).raise_for_status()

    stopwatch.start()
    with stopwatch.stage("send"), ThreadPoolExecutor(settings.wallet_requests_at_once) as pool:
        waiting = []
        for items in _batches(settings.wallet_batch_items):
            waiting.append(pool.submit(post, items))
            if len(waiting) > 2 * settings.wallet_requests_at_once:
                waiting.pop(0).result()
        for future in waiting:
            future.result()


def _batches(size: int) -> Iterator[list[bytes]]:
    connection = psycopg2.connect(_URL)
    cursor = connection.cursor("items")
    cursor.itersize = 5000
    cursor.execute("SELECT item FROM wallet.transaction ORDER BY currency, transaction_id")
    items = (bytes(row[0]) for row in cursor)
    while batch := list(islice(items, size)):
        yield batch


if __name__ == "__main__":
    _, way, wallet_url = sys.argv
    watch = Stopwatch()
    {"freeze": freeze, "project": project, "bare": bare}[way](watch, wallet_url)
    print(json.dumps(vars(watch)))
