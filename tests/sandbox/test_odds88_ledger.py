"""odds88's ledger says what a plain client of the feed finds, counted here the long way."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.sandbox.client import Sandbox
from tests.sandbox.process import STOP_DEADLINE_SECONDS, start_sandbox, wait_until_ready
from tests.sandbox.test_odds88 import DAY, NOW, Listener, by_bet, hear, word

Bet = dict[str, Any]
MEGABYTE = 2**20
MARK = b'{"pingId":null,'


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(sandbox, http, ping_seconds=0.02)


def order(bet: Bet) -> tuple[str, int]:
    versions = (leg["settlement"] or {"settlementVersion": 0} for leg in bet["selections"])
    return bet["settlementTime"].rstrip("Z"), max(each["settlementVersion"] for each in versions)


def content(bet: Bet) -> tuple[str, Decimal, Decimal]:
    return word(bet), bet["payout"], bet["partialRefund"]


def money(bet: Bet) -> list[Decimal]:
    minor = Decimal(1).scaleb(-bet["amount"]["precision"])
    amounts = (bet["amount"]["value"] * minor, bet["payout"], bet["partialRefund"])
    return [amount.quantize(minor) for amount in amounts]


def line(bet: Bet) -> str:
    amounts = "|".join(f"{amount:f}" for amount in money(bet))
    return f"{bet['betId']}|{bet['settlementTime']}|{word(bet)}|{amounts}\n"


def digest(bets: list[Bet]) -> str:
    return sha256("".join(map(line, bets)).encode()).hexdigest()


def counted(heard: list[Bet]) -> dict[str, Any]:
    """The ledger, from messages in the order in which they came, duplicates among them."""
    told = list({repr(bet): bet for bet in heard}.values())
    counts: Counter[str] = Counter()
    final: list[Bet] = []
    versions: list[Bet] = []
    for _, chain in sorted(by_bet(told).items()):
        for number, bet in enumerate(chain):
            counts["late"] += any(order(before) > order(bet) for before in chain[:number])
        ordered = sorted(chain, key=order)
        versions += ordered
        for before, after in pairwise(ordered):
            if word(before) != "none" and content(before) != content(after):
                counts["corrections"] += 1
                counts["negative"] += after["payout"] < before["payout"]
        tops = {content(bet) for bet in ordered if order(bet) == order(ordered[-1])}
        counts["contested"] += len(tops) > 1
        if len(tops) == 1:
            final.append(ordered[-1])
    sums: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0), Decimal(0)])
    for bet in final:
        stake, payout, _ = money(bet)
        total = sums[bet["amount"]["currency"]]
        total[:] = total[0] + 1, total[1] + stake, total[2] + payout
    return {
        "messages": len(told),
        "bets": len(by_bet(told)),
        "decisions": dict(Counter(map(word, told))),
        "final": dict(Counter(map(word, final))),
        "contested": counts["contested"],
        "corrections": counts["corrections"],
        "negative_corrections": counts["negative"],
        "late": counts["late"],
        "sums": {
            currency: {"bets": int(bets), "stake": f"{stake:f}", "payout": f"{payout:f}"}
            for currency, (bets, stake, payout) in sums.items()
        },
        "sha256": digest(final),
        "versions_sha256": digest(versions),
    }


def shown(ledger: dict[str, Any]) -> dict[str, Any]:
    return {name: ledger[name] for name in counted([])}


@pytest.mark.parametrize("equal_times", ["never", "newer_version", "contested"])
def test_it_equals_what_a_client_heard(listener: Listener, equal_times: str) -> None:
    listener.configure(messages=1000, equal_times=equal_times, seam_duplicates=50)
    with listener.connected(NOW - 3 * DAY) as connection:
        heard = hear(connection)
        listener.sandbox.advance("odds88", 200)
        heard += hear(connection, at_least=200)
    ledger = listener.sandbox.ledger("odds88")
    assert shown(ledger) == counted(heard)
    assert len(heard) == 1250 == ledger["messages_sent"]
    assert ledger["messages"] == 1200
    assert bool(ledger["contested"]) == (equal_times == "contested")
    assert min(ledger[name] for name in ("corrections", "negative_corrections", "late")) >= 10


@pytest.mark.parametrize("order_of_recovery", ["settlement_time", "newest_first"])
def test_it_does_not_depend_on_how_the_messages_came(
    listener: Listener, order_of_recovery: str
) -> None:
    before = listener.sandbox.ledger("odds88")
    listener.configure(recovery_order=order_of_recovery)
    heard = listener.hear(NOW - 3 * DAY)
    random.Random(1).shuffle(heard)
    after = shown(listener.sandbox.ledger("odds88"))
    assert after == shown(before)
    assert {**counted(heard), "late": after["late"]} == after


def test_it_holds_where_settlements_coincide_and_versions_alone_order_them(
    listener: Listener,
) -> None:
    listener.configure(messages=0, time_digits=0)
    listener.configure(clock_offset_seconds=60)
    listener.sandbox.advance("odds88", 1000)
    ledger = listener.sandbox.ledger("odds88")
    bets = listener.everything()
    assert shown(ledger) == counted(bets)
    assert len({bet["settlementTime"] for bet in bets}) == 2
    assert ledger["contested"] == 0


def test_the_bets_are_told_one_by_one(listener: Listener) -> None:
    listener.configure(messages=2000, equal_times="contested")
    chains = by_bet(listener.everything())
    bets = list(listener.sandbox.odds88_bets())
    assert [bet["bet_id"] for bet in bets] == sorted(chains)
    for bet in bets:
        chain = chains[bet["bet_id"]]
        last = max(chain, key=order)
        assert bet["messages"] == len(chain)
        assert bet["settlement_time"] == last["settlementTime"]
        if not bet["is_contested"]:
            amounts = [Decimal(bet[name]) for name in ("stake", "payout", "partial_refund")]
            assert [bet["state"], amounts] == [word(last), money(last)]
    ledger = listener.sandbox.ledger("odds88")
    assert sum(bet["is_contested"] for bet in bets) == ledger["contested"]


def test_the_bets_are_told_in_pages_of_any_size(listener: Listener, http: httpx.Client) -> None:
    url = f"{listener.sandbox.base_url}/sandbox/odds88/bets"
    bets: list[Bet] = []
    query: dict[str, Any] = {"limit": 7}
    while True:
        page = http.get(url, params=query).raise_for_status().json()
        bets += page["bets"]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert bets == list(listener.sandbox.odds88_bets())
    assert http.get(url, params={"after": "last"}).status_code == 422


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_hundred_thousand_messages_are_streamed_in_flat_memory(
    tmp_path: Path, http: httpx.Client, record_property: pytest.RecordProperty
) -> None:
    messages = 100_000
    process = start_sandbox(tmp_path)
    with Sandbox(wait_until_ready(process, tmp_path)) as sandbox:
        listener = Listener(sandbox, http, messages=messages, seam_duplicates=0)
        before = resident_bytes(process.pid)
        started = time.monotonic()
        # Nothing but the bytes: a client that reads frames would be what makes the rate.
        with listener.raw_connection(NOW - 3 * DAY) as connection:
            heard, end = 0, b""
            while heard < messages:
                received = end + connection.recv(MEGABYTE)
                heard += received.count(MARK)
                end = received[-len(MARK) + 1 :]
        record_property("messages_a_second", round(messages / (time.monotonic() - started)))
        assert heard == messages
        assert resident_bytes(process.pid) - before < 16 * MEGABYTE
    process.terminate()
    assert process.wait(STOP_DEADLINE_SECONDS) == 0
