"""odds88's feed in the sandbox says what its documentation says, and what its switches say."""

from __future__ import annotations

import json
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from include.sandbox.addresses import ODDS88_CLIENT_ID, ODDS88_PASSWORD
from include.sandbox.client import Sandbox

NOW = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())
HOUR = 3600
DAY = 24 * HOUR
CREDENTIALS = {"clientId": ODDS88_CLIENT_ID, "password": ODDS88_PASSWORD}
RECV_SECONDS = 10.0

SETTLED_BET = [
    "betId",
    "betSettlement",
    "payoutMultiplier",
    "isCancelled",
    "selections",
    "isRejected",
    "settlementTime",
    "payout",
    "partialRefund",
    "amount",
]
SELECTION = [
    "event",
    "market",
    "selectionId",
    "competitionId",
    "countryId",
    "sportId",
    "settlement",
    "price",
    "eachWayPrice",
    "limitsRatingId",
    "limitsFactor",
    "hasLineDeviation",
    "isOutright",
    "version",
    "deadHeatFactor",
    "placeDeadHeatFactor",
    "parameters",
    "manualPrice",
    "alternativePrice",
    "type",
    "betBuilderItems",
]
EVENT = ["id", "name", "isLive", "startTime"]
MARKET = ["id", "type", "name", "properties"]
SETTLEMENT = ["settlementResult", "settlementTime", "settlementVersion"]
BUILDER_ITEM = ["market", "selectionId", "settlement"]
AMOUNT = ["currency", "value", "precision", "placementExchangeRate", "settlementExchangeRate"]


class Listener:
    """A plain client of the feed, at noon by a clock that stands."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client, **settings: Any) -> None:
        self.sandbox = sandbox
        self._http = http
        stopped = datetime.fromtimestamp(NOW, UTC).isoformat()
        self.configure(**{"clock_stopped_at": stopped, "messages": 500} | settings)
        self.token = self.log_in().raise_for_status().text

    def configure(self, **settings: Any) -> None:
        self.sandbox.configure("odds88", **settings)

    def log_in(
        self, credentials: dict[str, Any] = CREDENTIALS, accept: str = "*/*"
    ) -> httpx.Response:
        url = f"{self.sandbox.odds88_url}/api/Account/login"
        return self._http.post(url, json=credentials, headers={"Accept": accept})

    @contextmanager
    def connected(
        self, revision: Any = NOW - DAY, token: str | None = None, **options: Any
    ) -> Iterator[ClientConnection]:
        query = "" if revision is None else f"?revision={revision}"
        url = self.sandbox.odds88_url.replace("http", "ws", 1)
        # A client that stops reading at so many unread messages does not see the end either.
        with connect(
            f"{url}/feed/settlement/v4{query}",
            additional_headers={"Authorization": f"Bearer {token or self.token}"},
            proxy=None,
            **{"max_size": None, "max_queue": None} | options,
        ) as connection:
            yield connection

    @contextmanager
    def raw_connection(self, revision: int) -> Iterator[socket.socket]:
        """A connection whose handshake was sent, and nothing read."""
        address = urlsplit(self.sandbox.odds88_url)
        request = (
            f"GET {address.path}/feed/settlement/v4?revision={revision} HTTP/1.1\r\n"
            f"Host: {address.netloc}\r\nAuthorization: Bearer {self.token}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        place = str(address.hostname), address.port or 0
        with socket.create_connection(place, RECV_SECONDS) as connection:
            connection.sendall(request.encode())
            yield connection

    def hear(self, revision: Any = NOW - DAY) -> list[dict[str, Any]]:
        """The bets that one connection is told of until it is caught up."""
        with self.connected(revision) as connection:
            return hear(connection)

    def everything(self) -> list[dict[str, Any]]:
        """Every message there is, not over the feed but as the control plane has it."""
        return [parse(text)["data"] for text in self.sandbox.odds88_messages(0, 1_000_000)]


def hear(connection: ClientConnection, at_least: int = 0) -> list[dict[str, Any]]:
    """The bets told of until two pings in a row come with nothing between them."""
    bets: list[dict[str, Any]] = []
    pings = 0
    while pings < 2 or len(bets) < at_least:
        message = parse(next_text(connection))
        if message["data"] is None:
            pings += 1
        else:
            pings = 0
            bets.append(message["data"])
    return bets


def next_text(connection: ClientConnection) -> str:
    text = connection.recv(timeout=RECV_SECONDS)
    assert isinstance(text, str)
    return text


def parse(text: str) -> dict[str, Any]:
    return dict(json.loads(text, parse_float=Decimal))


def settled_at(bet: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(bet["settlementTime"])


def by_bet(bets: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    chains = defaultdict(list)
    for bet in bets:
        chains[bet["betId"]].append(bet)
    return chains


def word(bet: dict[str, Any]) -> str:
    if bet["isRejected"]:
        return "rejected"
    if bet["isCancelled"]:
        return "cancelled"
    return ["none", "win", "lose", "refund", "half_win", "half_lose", "cash_out", "place_win"][
        bet["betSettlement"]
    ]


@pytest.fixture
def listener(sandbox: Sandbox, http: httpx.Client) -> Listener:
    return Listener(sandbox, http, ping_seconds=0.02)


@pytest.fixture(scope="module")
def bets(sandbox_process: Sandbox, http: httpx.Client) -> list[dict[str, Any]]:
    """Three thousand messages."""
    sandbox_process.reset()
    return Listener(sandbox_process, http, messages=3000).everything()


def test_every_message_has_the_documented_fields_in_their_order(bets: list[dict[str, Any]]) -> None:
    for bet in bets:
        assert list(bet) == SETTLED_BET
        assert list(bet["amount"]) == AMOUNT
        for leg in bet["selections"]:
            assert list(leg) == SELECTION
            assert list(leg["event"]) == EVENT
            assert list(leg["market"]) == MARKET
            assert leg["settlement"] is None or list(leg["settlement"]) == SETTLEMENT
            for item in leg["betBuilderItems"] or ():
                assert list(item) == BUILDER_ITEM
                assert list(item["settlement"]) == SETTLEMENT


def test_what_is_nullable_is_null_in_some_messages_and_not_in_others(
    bets: list[dict[str, Any]],
) -> None:
    legs = [leg for bet in bets for leg in bet["selections"]]
    for field in SELECTION:
        assert {leg[field] is None for leg in legs} == (
            {True, False}
            if field
            in {
                "settlement",
                "price",
                "eachWayPrice",
                "limitsRatingId",
                "deadHeatFactor",
                "placeDeadHeatFactor",
                "parameters",
                "manualPrice",
                "alternativePrice",
                "betBuilderItems",
            }
            else {False}
        )
    assert {leg["event"]["startTime"] is None for leg in legs} == {True, False}
    assert {leg["market"]["properties"] is None for leg in legs} == {True, False}
    assert {bet["amount"]["settlementExchangeRate"] is None for bet in bets} == {True, False}
    assert any(not leg["event"]["name"].isascii() for leg in legs)


def test_every_kind_of_bet_and_of_decision_happens(bets: list[dict[str, Any]]) -> None:
    assert {bet["betSettlement"] for bet in bets} == set(range(8))
    assert {word(bet) for bet in bets} >= {"rejected", "cancelled", "cash_out", "place_win"}
    assert {leg["type"] for bet in bets for leg in bet["selections"]} == set(range(1, 8))
    assert {len(bet["selections"]) for bet in bets} == {1, 2, 3, 4}
    assert {bet["amount"]["precision"] for bet in bets} == {0, 2, 3, 8}
    assert any(bet["partialRefund"] > 0 for bet in bets)


def test_a_plain_win_pays_the_stake_times_the_multiplier_to_half_a_minor_unit(
    bets: list[dict[str, Any]],
) -> None:
    wins = [bet for bet in bets if word(bet) == "win" and bet["partialRefund"] == 0]
    assert len(wins) > 500
    for bet in wins:
        minor = Decimal(1).scaleb(-bet["amount"]["precision"])
        stake = bet["amount"]["value"] * minor
        assert abs(bet["payout"] - stake * bet["payoutMultiplier"]) <= minor / 2
        assert bet["payout"] == bet["payout"].quantize(minor)


def test_a_payout_can_be_told_in_minor_units(listener: Listener) -> None:
    major = listener.everything()
    listener.configure(payout_unit="minor")
    minor = listener.everything()
    for one, other in zip(major, minor, strict=True):
        scale = one["amount"]["precision"]
        assert one["payout"].scaleb(scale) == other["payout"]
        assert one["partialRefund"].scaleb(scale) == other["partialRefund"]


def test_a_payout_holds_the_partial_refund_or_not(listener: Listener) -> None:
    with_it = listener.everything()
    listener.configure(payout_holds_refund=False)
    for one, other in zip(with_it, listener.everything(), strict=True):
        assert one["payout"] - one["partialRefund"] == other["payout"]


def test_bets_are_resettled_in_every_way(bets: list[dict[str, Any]]) -> None:
    chains = {tuple(map(word, chain)) for chain in by_bet(bets).values()}
    assert chains >= {
        ("win",),
        ("rejected",),
        ("none",),
        ("none", "win"),
        ("none", "lose"),
        ("win", "lose"),
        ("lose", "win"),
        ("win", "lose", "win"),
        ("lose", "win", "lose"),
        ("win", "win"),
        ("win", "cancelled"),
        ("lose", "cancelled"),
    }


def test_a_resettlement_can_change_the_payout_alone_and_lower_it(
    bets: list[dict[str, Any]],
) -> None:
    pairs = [(a, b) for chain in by_bet(bets).values() for a, b in pairwise(chain)]
    assert any(word(a) == word(b) == "win" and a["payout"] > b["payout"] for a, b in pairs)
    assert any(word(a) == "win" and b["payout"] == 0 for a, b in pairs)


def test_what_a_bet_is_made_of_stays_the_same_in_all_its_messages(
    bets: list[dict[str, Any]],
) -> None:
    changing = {"settlement", "betBuilderItems"}
    for chain in by_bet(bets).values():
        made_of = [
            (
                bet["amount"]["value"],
                bet["amount"]["currency"],
                [{k: v for k, v in leg.items() if k not in changing} for leg in bet["selections"]],
            )
            for bet in chain
        ]
        assert all(each == made_of[0] for each in made_of)


def test_an_open_bet_of_several_legs_has_the_first_of_them_settled(
    bets: list[dict[str, Any]],
) -> None:
    opened = [bet for bet in bets if word(bet) == "none" and len(bet["selections"]) > 1]
    assert opened
    for bet in opened:
        first, *others = (leg["settlement"] for leg in bet["selections"])
        assert (first["settlementResult"], first["settlementVersion"]) == (1, 1)
        assert {(leg["settlementResult"], leg["settlementTime"]) for leg in others} == {(0, None)}


def test_a_lost_bet_of_several_legs_was_lost_by_the_last_one(bets: list[dict[str, Any]]) -> None:
    lost = [bet for bet in bets if word(bet) == "lose" and len(bet["selections"]) > 1]
    assert lost
    for bet in lost:
        *others, last = (leg["settlement"]["settlementResult"] for leg in bet["selections"])
        assert (set(others), last) == ({1}, 2)


def test_versions_of_legs_grow_with_the_settlement_time(bets: list[dict[str, Any]]) -> None:
    for chain in by_bet(bets).values():
        versions = [
            max(leg["settlement"]["settlementVersion"] for leg in bet["selections"])
            for bet in sorted(chain, key=settled_at)
            if word(bet) != "rejected"
        ]
        assert versions == sorted(set(versions))


def test_some_messages_come_behind_one_that_is_settled_later(bets: list[dict[str, Any]]) -> None:
    late = [
        (before, after)
        for chain in by_bet(bets).values()
        for before, after in pairwise(chain)
        if settled_at(after) < settled_at(before)
    ]
    assert len(late) > 20
    assert all(word(after) == "cancelled" for _, after in late)


@pytest.mark.parametrize(
    ("equal_times", "versions"), [("never", []), ("newer_version", [1, 2]), ("contested", [1, 1])]
)
def test_a_resettlement_can_tell_the_same_time_as_what_it_corrects(
    listener: Listener, equal_times: str, versions: list[int]
) -> None:
    listener.configure(messages=1000, equal_times=equal_times)
    tied = [
        chain
        for chain in by_bet(listener.everything()).values()
        if len({bet["settlementTime"] for bet in chain}) < len(chain)
    ]
    assert bool(tied) == bool(versions)
    for one, other in tied:
        assert word(one) != word(other)
        legs = one["selections"] + other["selections"]
        assert [leg["settlement"]["settlementVersion"] for leg in legs] == versions


def test_the_same_seed_tells_the_same_bytes_and_another_one_others(listener: Listener) -> None:
    first = listener.sandbox.odds88_messages()
    listener.configure(seed=4711)
    assert set(first).isdisjoint(listener.sandbox.odds88_messages())
    listener.sandbox.reset()
    listener.configure(clock_stopped_at="2026-11-21T12:00:00Z", messages=500)
    assert listener.sandbox.odds88_messages() == first


def test_the_feed_sends_the_very_texts_that_the_control_plane_shows(listener: Listener) -> None:
    texts = listener.sandbox.odds88_messages()
    listener.configure(seam_duplicates=0, ping_every_messages=None, ping_seconds=60)
    with listener.connected(NOW - 3 * DAY) as connection:
        assert [next_text(connection) for _ in texts] == texts


def test_history_is_spread_over_its_time_and_ends_now(listener: Listener) -> None:
    times = sorted(settled_at(bet).timestamp() for bet in listener.everything())
    assert NOW - 2 * DAY < times[0] < NOW - 2 * DAY + HOUR
    assert times[-1] == NOW


def test_a_revision_recovers_what_is_settled_from_then_on(listener: Listener) -> None:
    revision = NOW - 30 * HOUR
    expected = [bet for bet in listener.everything() if settled_at(bet).timestamp() >= revision]
    listener.configure(seam_duplicates=0)
    assert listener.hear(revision) == expected
    assert 0 < len(expected) < 500


def test_recovery_by_first_sending_includes_late_messages(listener: Listener) -> None:
    listener.configure(messages=1500, seam_duplicates=0)
    revision = NOW - 12 * HOUR
    by_time = listener.hear(revision)
    listener.configure(recovered_by="first_sent")
    by_sending = listener.hear(revision)
    older = [bet for bet in by_sending if settled_at(bet).timestamp() < revision]
    assert older
    assert [bet for bet in by_sending if bet not in older] == by_time


@pytest.mark.parametrize("order", ["first_sent", "settlement_time", "newest_first"])
def test_recovery_comes_in_the_order_of_the_switch(listener: Listener, order: str) -> None:
    listener.configure(recovery_order=order, seam_duplicates=0)
    as_sent = listener.everything()
    heard = listener.hear(NOW - 3 * DAY)
    if order == "newest_first":
        assert heard == as_sent[::-1]
    elif order == "settlement_time":
        assert heard == sorted(as_sent, key=settled_at)
        assert heard != as_sent
    else:
        assert heard == as_sent


def test_recovery_goes_back_three_days_at_most(listener: Listener) -> None:
    listener.configure(history_seconds=4 * DAY, seam_duplicates=0)
    for revision in (NOW - 3 * DAY - 1, NOW - 10 * DAY, -5, 0, None):
        oldest = min(map(settled_at, listener.hear(revision)))
        assert 0 <= oldest.timestamp() - (NOW - 3 * DAY) < HOUR
    kinds = [attempt["kind"] for attempt in listener.sandbox.odds88_attempts()]
    assert kinds == ["too_small", "too_small", "too_small", "without", "without"]


def test_a_revision_of_three_days_is_proper_to_the_second(listener: Listener) -> None:
    assert len(listener.hear(NOW - 3 * DAY)) == 502
    assert listener.sandbox.odds88_attempts()[0]["kind"] == "proper"


@pytest.mark.parametrize(
    ("switch", "revision"), [("too_small_revision", NOW - 10 * DAY), ("without_revision", None)]
)
def test_a_revision_that_is_not_proper_can_get_only_what_is_new(
    listener: Listener, switch: str, revision: int | None
) -> None:
    listener.configure(**{switch: "live_only"})
    assert listener.hear(revision) == []


def test_a_revision_of_the_future_gets_only_what_is_new(listener: Listener) -> None:
    with listener.connected(NOW + HOUR) as connection:
        assert hear(connection) == []
        listener.sandbox.advance("odds88", 3)
        assert len(hear(connection, at_least=3)) == 3


def test_new_messages_come_live_settled_just_now(listener: Listener) -> None:
    with listener.connected() as connection:
        hear(connection)
        listener.configure(clock_offset_seconds=600)
        settings = listener.sandbox.advance("odds88", 100)
        live = hear(connection, at_least=100)
    assert settings["messages"] == 600
    assert live == listener.everything()[500:]
    on_time = [bet for bet in live if settled_at(bet).timestamp() > NOW + 599]
    assert max(map(settled_at, live)).timestamp() == NOW + 600
    assert len(on_time) > 90


def test_messages_sent_during_history_are_not_lost_at_the_seam(listener: Listener) -> None:
    listener.configure(messages=3000, seam_duplicates=0)
    with listener.connected(NOW - 3 * DAY) as connection:
        first = parse(next_text(connection))
        listener.sandbox.advance("odds88", 50)
        heard = [first["data"], *hear(connection, at_least=3049)]
    assert [bet["betId"] for bet in heard] == [bet["betId"] for bet in listener.everything()]


def test_the_last_of_history_comes_again_at_the_seam(listener: Listener) -> None:
    listener.configure(seam_duplicates=7)
    heard = listener.hear()
    assert heard[-7:] == heard[-14:-7]
    assert len({json.dumps(bet, default=str) for bet in heard}) == len(heard) - 7


def test_pings_come_in_history_and_behind_it(listener: Listener) -> None:
    listener.configure(ping_every_messages=100, ping_seconds=0.2, seam_duplicates=0)
    with listener.connected(NOW - 3 * DAY) as connection:
        texts = [next_text(connection) for _ in range(508)]
    pings = [number for number, text in enumerate(texts) if parse(text)["data"] is None]
    assert pings[:5] == [100, 201, 302, 403, 504]
    assert pings[5:] == [505, 506, 507]
    assert list(parse(texts[100])) == ["pingId", "data"]
    assert len({texts[number] for number in pings}) == len(pings)


@pytest.mark.parametrize(("digits", "longest"), [(0, 20), (3, 24), (7, 28)])
def test_times_are_written_with_so_many_digits(
    listener: Listener, digits: int, longest: int
) -> None:
    listener.configure(time_digits=digits, messages=701)
    lengths = {len(bet["settlementTime"]) for bet in listener.everything()}
    assert max(lengths) == longest


def test_a_history_of_nothing_is_silent(listener: Listener) -> None:
    listener.configure(messages=0)
    assert listener.hear() == []


def test_the_control_plane_says_what_it_cannot_do(listener: Listener) -> None:
    with pytest.raises(ValueError, match="equal_times"):
        listener.configure(equal_times="often")
    with pytest.raises(ValueError, match="messages"):
        listener.sandbox.advance("odds88", 2**32)
    with pytest.raises(ValueError, match=r"there are: .*'log_in', 'settlements'"):
        listener.sandbox.fault("odds88", "closed_stream", call="feed")
