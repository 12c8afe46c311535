"""tote's GraphQL in the sandbox keeps tote's limits, and its bets live as their scripts say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gql
import httpx
import pytest
from ariadne import graphql
from gql.transport.httpx import HTTPXTransport

from include.providers.tote import QUERY
from include.sandbox.addresses import TOTE_KEY, TOTE_TOKEN
from include.sandbox.client import Sandbox
from include.sandbox.tote_bets import ROW, Bets, state, steps_at
from include.sandbox.tote_book import Book
from include.sandbox.tote_graphql import Questions, WholeExecutor, schema_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3600
DAY = 24 * HOUR
EXAMPLE = Path(__file__).parents[1] / "providers" / "tote" / "documented_example"
SHORT = """
query ($since: DateTime, $until: DateTime, $first: Int, $after: String, $toteIds: [String!]) {
  bets(since: $since, until: $until, first: $first, after: $after, toteIds: $toteIds) {
    totalCount pageInfo { startCursor endCursor hasNextPage hasPreviousPage }
    nodes { id toteId placement { status } resulting { status } settlement { status } } } }"""


class Asker:
    """A plain client of tote, at noon by a clock that stands."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client, **settings: Any) -> None:
        self.sandbox = sandbox
        self.headers = {"Authorization": f"Api-Key {TOTE_KEY}"}
        self.url = f"{sandbox.tote_url}/gateway/graphql"
        self._http = http
        self.configure(**{"clock_stopped_at": NOW.isoformat(), "bets": 700} | settings)

    def configure(self, **settings: Any) -> None:
        self.sandbox.configure("tote", **settings)

    def pass_seconds(self, seconds: float) -> None:
        self.configure(clock_offset_seconds=seconds)

    def post(self, query: str = SHORT, **variables: Any) -> httpx.Response:
        question = {"query": query, "variables": variables}
        return self._http.post(self.url, json=question, headers=self.headers)

    def bets(self, query: str = SHORT, **variables: Any) -> dict[str, Any]:
        answer = self.post(query, **variables)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert "errors" not in told, told
        return dict(told["data"]["bets"])

    def refusal(self, **variables: Any) -> str:
        answer = self.post(**variables)
        told = answer.json()
        assert (answer.status_code, told["data"]) == (200, {"bets": None})
        assert told["errors"][0]["path"] == ["bets"]
        return str(told["errors"][0]["extensions"]["code"])


@pytest.fixture
def asker(sandbox: Sandbox, http: httpx.Client) -> Asker:
    return Asker(sandbox, http)


def written(moment: datetime) -> str:
    return moment.isoformat()


def ids(told: dict[str, Any]) -> list[str]:
    return [node["toteId"] for node in told["nodes"]]


def words(node: dict[str, Any]) -> str:
    return "/".join(node[part]["status"] for part in ("placement", "resulting", "settlement"))


# The question


def test_a_client_of_graphql_gets_the_documented_answer(asker: Asker) -> None:
    settled = next(
        told["tote_id"] for told in asker.sandbox.tote_bets() if told["settlement"] == "SETTLED"
    )
    question = (EXAMPLE / "query.graphql").read_text()
    example = json.loads((EXAMPLE / "payload.json").read_text())["data"]
    documented_id = example["bets"]["nodes"][0]["toteId"]
    transport = HTTPXTransport(asker.url, headers=asker.headers, trust_env=False, verify=False)
    with gql.Client(transport=transport, fetch_schema_from_transport=True) as session:
        told = session.execute(gql.gql(question.replace(documented_id, settled)))

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(one) for name, one in value.items()}
        return [shape(one) for one in value] if isinstance(value, list) else None

    assert shape(told) == shape(example)
    assert told["bets"]["nodes"][0]["settlement"]["status"] == "SETTLED"


def test_what_is_taken_whole_is_what_resolving_every_field_gives() -> None:
    book = Book(1, 100)
    questions = Questions(book)
    schema = schema_of(lambda: questions)
    names = [book.bet(number).tote_id for number in range(60)]
    more = """query ($toteIds: [String!]) { bets(toteIds: $toteIds) {
        edges { cursor node { ...B again: id } } nodes { ...B }
        pageInfo { hasNextPage __typename } } }
        fragment B on Bet { __typename toteId resulting { returns { all: totalAmount {
        stringAmount decimalAmount } } } placement { status } placement { stake { currency { code }
        } } }"""

    async def answers(query: str) -> list[Any]:
        data = {"query": query, "variables": {"toteIds": names}}
        ways = [
            await graphql(schema, data, execution_context_class=executor)
            for executor in (None, WholeExecutor)
        ]
        assert all(is_good for is_good, _ in ways)
        return [json.dumps(told) for _, told in ways]

    for query in (QUERY, more, more.replace("__typename", "")):
        by_the_rules, whole = asyncio.run(answers(query))
        assert by_the_rules == whole
        assert "errors" not in whole


def test_what_is_no_question_is_refused(asker: Asker, http: httpx.Client) -> None:
    for query in (
        "{",
        "{ bets { nodes { odds } } }",
        "{ bets(last: 5) { totalCount } }",
        SHORT[8:],
    ):
        answer = asker.post(query)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["locations"]
        assert "data" not in answer.json()
    assert http.get(asker.url, headers=asker.headers).status_code == 405
    body = http.post(asker.url, content=b"{", headers=asker.headers)
    assert body.status_code == 400


def test_only_a_key_or_a_token_may_ask(asker: Asker) -> None:
    for right in (f"Api-Key {TOTE_KEY}", f"Bearer {TOTE_TOKEN}"):
        asker.headers = {"Authorization": right}
        assert asker.bets()
    for wrong in ({}, {"Authorization": TOTE_KEY}, {"Authorization": f"Bearer {TOTE_KEY}"}):
        asker.headers = wrong
        assert asker.post().status_code == 401
    asker.configure(refusals="errors")
    told = asker.post().json()
    assert told["errors"][0]["extensions"]["code"] == "AUTH_NOT_AUTHENTICATED"


def test_more_requests_a_minute_than_allowed_are_refused_and_told_to_wait(asker: Asker) -> None:
    asker.configure(requests_a_minute=3)
    answers = [asker.post() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60


# Limits


def test_a_page_holds_at_most_250_bets(asker: Asker) -> None:
    period = {"since": written(NOW - timedelta(days=60)), "until": written(NOW + timedelta(1))}
    assert asker.refusal(**period, first=251) == "PAGE_TOO_LARGE"
    assert asker.refusal(**period, first=0) == "PAGE_TOO_SMALL"
    assert len(ids(asker.bets(**period))) == len(ids(asker.bets(**period, first=250))) == 250
    assert asker.refusal(**period, after="!") == "BAD_CURSOR"
    asked = asker.sandbox.ledger("tote")["asked"]
    assert asked == {
        "by_id": 0, "by_period": 2, "refused": 3, "bets_told": 500, "largest_page": 250,
    }  # fmt: skip


def test_a_period_is_at_most_90_days(asker: Asker) -> None:
    since = NOW - timedelta(days=89)
    assert asker.bets(since=written(since), until=written(since + timedelta(days=90)))
    longer = {"since": written(since), "until": written(since + timedelta(days=90, microseconds=1))}
    assert asker.refusal(**longer) == "RANGE_TOO_LONG"
    [newest] = ids(asker.bets(since=written(since), until=written(NOW + timedelta(1)), first=1))
    assert ids(asker.bets(toteIds=[newest], **longer)) == [newest]


@pytest.mark.parametrize(
    ("bounds", "since", "until"),
    [
        ({}, NOW.replace(hour=0), NOW + timedelta(days=1)),
        ({"since": NOW - timedelta(50)}, NOW - timedelta(50), NOW - timedelta(20)),
        ({"until": NOW - timedelta(10)}, NOW - timedelta(40), NOW - timedelta(10)),
    ],
)
def test_a_bound_that_is_not_given_is_made_up(
    asker: Asker, bounds: dict[str, datetime], since: datetime, until: datetime
) -> None:
    told = asker.bets(**{name: written(moment) for name, moment in bounds.items()})
    expected = asker.bets(since=written(since), until=written(until))
    assert ids(told) == ids(expected)
    assert 0 < expected["totalCount"] < 700


def test_a_period_ends_before_its_end_or_with_it_by_a_switch(asker: Asker) -> None:
    # The newest bet was placed at noon.
    bounds = {"since": written(NOW - timedelta(1)), "until": written(NOW)}
    without = asker.bets(**bounds)["totalCount"]
    asker.configure(until_included=True)
    assert asker.bets(**bounds)["totalCount"] == without + 1
    assert asker.bets(since=written(NOW), until=written(NOW))["totalCount"] == 1


def test_bets_come_newest_first_and_pages_go_on_where_they_were(asker: Asker) -> None:
    period = {"since": written(NOW - timedelta(days=60)), "until": written(NOW + timedelta(1))}
    everything = [told["tote_id"] for told in asker.sandbox.tote_bets()]
    page = asker.bets(**period, first=100)
    seen = ids(page)
    assert page["pageInfo"]["hasPreviousPage"] is False
    while page["pageInfo"]["hasNextPage"]:
        asker.sandbox.advance("tote", 3)
        page = asker.bets(**period, first=100, after=page["pageInfo"]["endCursor"])
        assert page["pageInfo"]["hasPreviousPage"] is True
        seen += ids(page)
    assert seen == everything[::-1]
    number = base64.b64decode(page["pageInfo"]["endCursor"])
    assert number == b"1"


def test_named_bets_are_given_once_each_and_unknown_ones_left_out(asker: Asker) -> None:
    known = [told["tote_id"] for told in asker.sandbox.tote_bets()][:4]
    strangers = ["", "x", "f" * 32, known[0].upper(), known[0][:-1] + "g"]
    told = asker.bets(toteIds=[*known, known[1], *strangers])
    assert ids(told) == known[::-1]
    assert told["totalCount"] == 4
    assert ids(asker.bets(toteIds=strangers)) == []


# Lives


def test_every_bet_goes_through_its_script_step_by_step(asker: Asker) -> None:
    asker.configure(bets=ROW, history_seconds=1)
    bets = Bets(asker.sandbox.configure("tote")["seed"])
    names = [bets.bet(number).tote_id for number in range(ROW)]
    seconds = sorted({step.seconds for position in range(ROW) for step in steps_at(position)})
    for passed in seconds:
        asker.pass_seconds(passed)
        told = dict(zip(ids(page := asker.bets(toteIds=names)), page["nodes"], strict=True))
        for number, name in enumerate(names):
            steps = sum(step.seconds <= passed for step in steps_at(number))
            assert words(told[name]) == "/".join(state(bets.bet(number), steps)[:3])
    assert len(seconds) > 10


def test_lives_are_of_every_kind(asker: Asker) -> None:
    asker.configure(bets=ROW * 3, history_seconds=1)
    lives: dict[str, list[tuple[str, str | None]]] = {}
    for passed in (0, 10, HOUR, 2 * HOUR, 3 * HOUR, 3.5 * HOUR, 4 * HOUR, 5 * HOUR, 7 * HOUR,
                   DAY, 2 * DAY, 2.5 * DAY, 3 * DAY, 5 * DAY, 22 * DAY, 101 * DAY):  # fmt: skip
        asker.pass_seconds(passed)
        for told in asker.sandbox.tote_bets():
            word = f"{told['placement']}/{told['resulting']}/{told['settlement']}"
            life = lives.setdefault(told["tote_id"], [])
            if not life or life[-1] != (word, told["total"]):
                life.append((word, told["total"]))
    ends = Counter(life[-1][0] for life in lives.values())
    assert ends.keys() == {
        "ACCEPTED/RESULTED/SETTLED", "ACCEPTED/PENDING/REFUNDED", "CANCELLED/CANCELLED/REFUNDED",
        "REJECTED/PENDING/PENDING", "FAILED/PENDING/PENDING",
    }  # fmt: skip
    ways = {tuple(word for word, _ in life) for life in lives.values()}
    taken = ("PLACED/PENDING/PENDING", "ACCEPTED/PENDING/PENDING", "ACCEPTED/RESULTED/PENDING")
    assert (*taken, "ACCEPTED/RESULTED/SETTLED") in ways
    assert (*taken, "CANCELLED/CANCELLED/PENDING", "CANCELLED/CANCELLED/REFUNDED") in ways
    assert (*taken[:2], "CANCELLED/CANCELLED/PENDING", "CANCELLED/CANCELLED/REFUNDED") in ways
    totals = [[total for _, total in life if total is not None] for life in lives.values()]
    # Settled one way, then another, then as at first.
    assert any(len(each) >= 4 and each[-1] == each[-3] != each[-2] for each in totals)


def test_the_money_of_a_bet_is_told_in_three_ways_that_agree(asker: Asker) -> None:
    period = {"since": written(NOW - timedelta(days=60)), "until": written(NOW + timedelta(1))}
    amounts = 0
    for node in asker.bets(QUERY, **period)["nodes"]:
        told = (node["resulting"]["returns"] or {}) | {"stake": node["placement"]["stake"]}
        for money in told.values():
            minor = money["minorUnitsTotalAmount"]
            assert money["stringAmount"] == f"{minor // 100}.{minor % 100:02}"
            assert money["decimalAmount"] == minor / 100
            amounts += 1
        if node["resulting"]["returns"]:
            total, *parts = (
                told[f"{part}Amount"]["minorUnitsTotalAmount"]
                for part in ("total", "return", "refund", "enhancement")
            )
            assert total == sum(parts)
    assert amounts > 500


def test_totals_are_those_of_all_pages(asker: Asker) -> None:
    period = {"since": written(NOW - timedelta(days=60)), "until": written(NOW + timedelta(1))}
    pages = [asker.bets(QUERY, **period, first=250)]
    while pages[-1]["pageInfo"]["hasNextPage"]:
        after = pages[-1]["pageInfo"]["endCursor"]
        pages.append(asker.bets(QUERY, **period, first=250, after=after))
    sums: dict[str, Counter[str]] = {"stake": Counter(), "return": Counter(), "refund": Counter()}
    for page in pages:
        for node in page["nodes"]:
            told = (node["resulting"]["returns"] or {}) | {
                "stakeAmount": node["placement"]["stake"]
            }
            for name, counter in sums.items():
                if money := told.get(f"{name}Amount"):
                    counter[money["currency"]["code"]] += money["minorUnitsTotalAmount"]
    for page in pages:
        assert page["totalCount"] == sum(len(each["nodes"]) for each in pages)
        for name, total in (("stake", "Stakes"), ("return", "Returns"), ("refund", "Refunds")):
            assert sums[name] == {
                money["currency"]["code"]: money["minorUnitsTotalAmount"]
                for money in page[f"total{total}"]
            }


def test_graphql_can_lag_behind_what_has_happened(asker: Asker) -> None:
    asker.configure(bets=0, graphql_lags_seconds=60)
    asker.sandbox.advance("tote", 2)
    names = [told["tote_id"] for told in asker.sandbox.tote_bets()]
    assert asker.bets(toteIds=names)["totalCount"] == asker.bets()["totalCount"] == 0
    asker.pass_seconds(60)
    assert asker.bets()["totalCount"] == 2
    assert [words(node) for node in asker.bets(toteIds=names)["nodes"]] == [
        "PLACED/PENDING/PENDING"
    ] * 2
    asker.pass_seconds(62)
    assert {words(node) for node in asker.bets(toteIds=names)["nodes"]} == {
        "ACCEPTED/PENDING/PENDING"
    }


def test_nothing_happens_between_two_orders(asker: Asker) -> None:
    asker.configure(clock_stopped_at=None, history_seconds=20, bets=1000)
    # So many bets are to be accepted in the next two seconds.
    before = asker.sandbox.ledger("tote")
    assert before["final"]["PLACED/PENDING/PENDING"] > 50
    assert asker.sandbox.ledger("tote") == before
    asker.pass_seconds(5)
    after = asker.sandbox.ledger("tote")["final"]
    assert "PLACED/PENDING/PENDING" not in after


# The ledger


def test_the_ledger_is_what_graphql_tells(asker: Asker) -> None:
    period = {"since": written(NOW - timedelta(days=60)), "until": written(NOW + timedelta(1))}
    nodes: list[dict[str, Any]] = []
    page: dict[str, Any] = {"pageInfo": {"hasNextPage": True, "endCursor": None}}
    while page["pageInfo"]["hasNextPage"]:
        page = asker.bets(QUERY, **period, after=page["pageInfo"]["endCursor"])
        nodes += page["nodes"]
    lines = []
    for node in reversed(nodes):
        returns = node["resulting"]["returns"] or {}
        stake = node["placement"]["stake"]
        amounts = [
            returns[f"{part}Amount"]["stringAmount"] if returns else ""
            for part in ("total", "return", "refund", "enhancement")
        ]
        statuses = words(node).split("/")
        fields = [node["toteId"], *statuses, stake["currency"]["code"], stake["stringAmount"]]
        lines.append("|".join([*fields, *amounts]) + "\n")
    told = asker.sandbox.ledger("tote")
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == told["sha256"]
    assert told["final"] == Counter(map(words, nodes))
    assert told["bets"] == len(nodes) == 700


def test_the_same_seed_gives_the_same_bets_and_another_gives_others(asker: Asker) -> None:
    first = asker.sandbox.ledger("tote")["sha256"]
    asker.configure(bets=700)
    assert asker.sandbox.ledger("tote")["sha256"] == first
    asker.configure(seed=7)
    assert asker.sandbox.ledger("tote")["sha256"] != first


def test_half_a_million_bets_are_asked_for_as_quickly_as_a_few(asker: Asker) -> None:
    asker.configure(bets=500_000)
    since = NOW - timedelta(days=60)
    page = asker.bets(since=written(since), until=written(NOW + timedelta(1)))
    assert (page["totalCount"], len(page["nodes"])) == (500_000, 250)
    [oldest] = ids(asker.bets(since=written(since), until=written(since + timedelta(seconds=11))))
    told = asker.sandbox.tote_states([oldest, page["nodes"][0]["toteId"], "x"])
    assert [each["tote_id"] for each in told] == [oldest, page["nodes"][0]["toteId"]]


def test_advancing_places_bets_now_and_lets_be_what_is_not_due(asker: Asker) -> None:
    asker.sandbox.advance("tote", 50)
    newest = asker.bets(since=written(NOW), until=written(NOW + timedelta(seconds=1)))["nodes"]
    assert len(newest) >= 49
    assert {words(node) for node in newest} == {"PLACED/PENDING/PENDING"}
    assert asker.sandbox.ledger("tote")["bets"] == 750
