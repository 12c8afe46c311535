"""ticktock in the sandbox does what its documentation says, and what its switches say."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import httpx
import pytest

from include.sandbox.addresses import TICKTOCK_KEY_WITHOUT_SCOPE
from include.sandbox.client import Sandbox
from tests.sandbox.conftest import Walk

DOCUMENTED_FIELDS = [
    "id",
    "market_offer_id",
    "match_id",
    "previous_status",
    "new_status",
    "outcome",
    "settled_by",
    "is_resettlement",
    "created_at",
]


def page(ticktock: httpx.Client, **query: Any) -> list[Any]:
    answer = ticktock.get("/settlements", params=query).raise_for_status().json()
    assert answer["meta"] == {"count": len(answer["data"])}
    return [entry["id"] for entry in answer["data"]]


def test_an_entry_has_the_documented_fields_in_their_order(walk: Walk) -> None:
    entries = walk()
    assert {tuple(entry)[:9] for entry in entries} == {tuple(DOCUMENTED_FIELDS)}
    assert {tuple(entry)[9:] for entry in entries} == {(), ("reason",)}
    assert {entry["settled_by"] for entry in entries if "reason" in entry} == {"admin"}
    assert any(not entry["reason"].isascii() for entry in entries if "reason" in entry)


def test_every_kind_of_decision_happens(walk: Walk) -> None:
    kinds = {
        (e["previous_status"], e["new_status"], e["outcome"], e["is_resettlement"]) for e in walk()
    }
    assert kinds == {
        (None, "pending", None, False),
        ("pending", "settled", "won", False),
        ("pending", "settled", "lost", False),
        ("pending", "voided", "void", False),
        ("settled", "settled", "won", True),
        ("settled", "settled", "lost", True),
        ("settled", "voided", "void", True),
        ("voided", "settled", "won", True),
        ("voided", "settled", "lost", True),
    }


def test_subjects_are_corrected_in_every_way_and_some_twice(sandbox: Sandbox, walk: Walk) -> None:
    sandbox.configure("ticktock", visible_entries=3000)
    outcomes: dict[tuple[str, str], list[str]] = {}
    for entry in walk():
        subject = entry["match_id"], entry["market_offer_id"]
        outcomes.setdefault(subject, []).append(entry["outcome"])
    assert {tuple(chain) for chain in outcomes.values()} == {
        ("won",),
        ("lost",),
        ("void",),
        (None,),
        (None, "won"),
        (None, "lost"),
        (None, "void"),
        ("won", "lost"),
        ("lost", "won"),
        ("won", "won"),
        ("lost", "lost"),
        ("won", "void"),
        ("lost", "void"),
        ("void", "won"),
        ("void", "lost"),
        ("won", "lost", "won"),
        ("lost", "won", "lost"),
    }


def test_ids_increase_with_holes_and_times_increase_with_ties(walk: Walk) -> None:
    entries = walk()
    ids = [entry["id"] for entry in entries]
    times = [entry["created_at"] for entry in entries]
    assert ids == sorted(set(ids))
    assert {later - earlier for earlier, later in pairwise(ids)} == {1, 2, 3, 4, 5}
    assert times == sorted(times)
    assert len(set(times)) < len(times)
    assert all(text.endswith("+00:00") for text in times)


def test_limit_is_50_unless_asked_and_from_1_to_200(ticktock: httpx.Client) -> None:
    assert len(page(ticktock)) == 50
    assert len(page(ticktock, limit=1)) == 1
    assert len(page(ticktock, limit=200)) == 200
    for limit in ("0", "201", "many"):
        answer = ticktock.get("/settlements", params={"limit": limit})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "limit"]


@pytest.mark.parametrize(
    ("headers", "status", "detail"),
    [
        ({}, 401, "Missing API key"),
        ({"X-API-Key": "wrong"}, 403, "Invalid API key"),
        (
            {"X-API-Key": TICKTOCK_KEY_WITHOUT_SCOPE},
            403,
            "Missing scope cs2:markets:settlements",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/settlements?limit=0", "/matches/unknown/settlements"])
def test_a_call_needs_a_key_with_the_scope(
    sandbox: Sandbox,
    http: httpx.Client,
    path: str,
    headers: dict[str, str],
    status: int,
    detail: str,
) -> None:
    answer = http.get(sandbox.ticktock_url + path, headers=headers)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("text/html, application/*;q=0.5", 200),
        ("application/xml", 406),
        ("application/json;q=0", 406),
    ],
)
def test_only_json_is_offered(ticktock: httpx.Client, accept: str, status: int) -> None:
    assert ticktock.get("/settlements", headers={"Accept": accept}).status_code == status


def test_calls_beyond_the_rate_are_told_when_to_come_back(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    sandbox.configure("ticktock", requests_a_minute=3)
    statuses = [ticktock.get("/settlements").status_code for _ in range(4)]
    refused = ticktock.get("/settlements")
    assert statuses == [200, 200, 200, 429]
    assert refused.status_code == 429
    assert 50 <= int(refused.headers["Retry-After"]) <= 60


def test_a_cursor_gives_what_comes_after_it(ticktock: httpx.Client) -> None:
    everything = page(ticktock, limit=30)
    assert page(ticktock, limit=10, since_id=everything[9]) == everything[10:20]


def test_after_the_newest_entry_there_is_nothing_until_the_log_goes_on(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    newest = sandbox.ledger("ticktock")["last_id"]
    assert page(ticktock, since_id=newest) == []
    sandbox.advance("ticktock", 3)
    assert len(page(ticktock, since_id=newest)) == 3


def test_an_unknown_cursor_is_refused_or_goes_on_behind_its_place(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    first, second, third = page(ticktock, limit=3)
    unknown = next(number for number in range(first + 1, third) if number != second)
    answer = ticktock.get("/settlements", params={"since_id": unknown})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Unknown since_id"})
    sandbox.configure("ticktock", unknown_cursor="nearest")
    expected = next(number for number in (second, third) if number > unknown)
    assert page(ticktock, since_id=unknown, limit=1) == [expected]
    assert page(ticktock, since_id=0, limit=1) == [first]
    assert page(ticktock, since_id=10**30) == []


@pytest.mark.parametrize("id_kind", ["integer", "uuid"])
def test_a_cursor_that_is_no_id_is_invalid(
    sandbox: Sandbox, ticktock: httpx.Client, id_kind: str
) -> None:
    sandbox.configure("ticktock", id_kind=id_kind)
    answer = ticktock.get("/settlements", params={"since_id": "1.5"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "since_id"]


def test_uuid_ids_do_not_increase_and_page_all_the_same(sandbox: Sandbox, walk: Walk) -> None:
    sandbox.configure("ticktock", id_kind="uuid", visible_entries=450)
    ids = [entry["id"] for entry in walk()]
    assert len(set(ids)) == 450
    assert ids != sorted(ids)
    assert [entry["id"] for entry in walk(since_id=ids[99].upper())] == ids[100:]


def test_a_page_can_hold_the_newest_entries_newest_first(
    sandbox: Sandbox, ticktock: httpx.Client, walk: Walk
) -> None:
    ids = [entry["id"] for entry in walk()]
    sandbox.configure("ticktock", page_order="newest_first")
    assert page(ticktock, limit=10, since_id=ids[4]) == ids[:-11:-1]
    assert page(ticktock, limit=10, since_id=ids[-4]) == ids[:-4:-1]


def test_a_page_can_hold_the_oldest_entries_newest_first(
    sandbox: Sandbox, ticktock: httpx.Client, walk: Walk
) -> None:
    ids = [entry["id"] for entry in walk()]
    sandbox.configure("ticktock", page_order="oldest_shown_newest_first")
    assert page(ticktock, limit=10, since_id=ids[4]) == ids[14:4:-1]


def test_a_first_call_can_give_the_newest(
    sandbox: Sandbox, ticktock: httpx.Client, walk: Walk
) -> None:
    ids = [entry["id"] for entry in walk()]
    sandbox.configure("ticktock", first_call="newest")
    assert page(ticktock, limit=10) == ids[-10:]
    assert page(ticktock, limit=10, since_id=ids[0]) == ids[1:11]


def test_a_late_entry_appears_behind_the_cursor(
    sandbox: Sandbox, ticktock: httpx.Client, walk: Walk
) -> None:
    ids = [entry["id"] for entry in walk()]
    late = [{"entry": 20, "visible_after": 15}, {"entry": 25, "visible_after": None}]
    sandbox.configure("ticktock", visible_entries=30, late=late)
    assert page(ticktock, since_id=ids[18]) == [
        ids[n] for n in (19, 21, 22, 23, 24, *range(26, 30))
    ]
    assert ticktock.get("/settlements", params={"since_id": ids[20]}).status_code == 404
    sandbox.advance("ticktock", 5)
    assert ids[20] not in page(ticktock, since_id=ids[18])
    sandbox.advance("ticktock", 1)
    assert page(ticktock, since_id=ids[18], limit=2) == [ids[19], ids[20]]
    assert ids[25] not in page(ticktock, since_id=ids[18])
    sandbox.release("ticktock", 25)
    assert page(ticktock, since_id=ids[18]) == ids[19:36]


def test_a_match_lists_all_of_its_entries(
    sandbox: Sandbox, ticktock: httpx.Client, walk: Walk
) -> None:
    by_match: dict[str, list[Any]] = {}
    for entry in walk():
        by_match.setdefault(entry["match_id"], []).append(entry)
    for match_id, entries in by_match.items():
        answer = ticktock.get(f"/matches/{match_id}/settlements", params={"limit": 1000})
        assert answer.json() == {"data": entries, "meta": {"count": len(entries)}}
        if len(entries) > 8:
            break
    short = ticktock.get(f"/matches/{match_id}/settlements", params={"limit": 3}).json()
    assert short["data"] == entries[:3]
    assert ticktock.get(f"/matches/{match_id}/settlements?limit=1001").status_code == 422
    sandbox.configure("ticktock", match_fields_left_out=["match_id", "settled_by"])
    fewer = ticktock.get(f"/matches/{match_id}/settlements").json()["data"]
    assert [entry["id"] for entry in fewer] == [entry["id"] for entry in entries]
    assert all("match_id" not in entry and "settled_by" not in entry for entry in fewer)


@pytest.mark.parametrize(
    "match_id", ["52ef", "00000000-0000-4000-8000-000000000000", "%2e%2e", "a%20b"]
)
def test_an_unknown_match_is_not_found(ticktock: httpx.Client, match_id: str) -> None:
    answer = ticktock.get(f"/matches/{match_id}/settlements")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Match not found"})


def test_broken_chains_come_only_when_switched_on(sandbox: Sandbox) -> None:
    sound = sandbox.ledger("ticktock")
    assert (sound["broken_chains"], sound["orphan_resettlements"]) == (0, 0)
    sandbox.configure("ticktock", broken_chains=True)
    broken = sandbox.ledger("ticktock")
    assert broken["broken_chains"] > 0
    assert broken["orphan_resettlements"] > 0
    assert broken["sha256"] == sound["sha256"]


def test_one_seed_gives_the_same_bytes_and_another_does_not(
    sandbox: Sandbox, ticktock: httpx.Client
) -> None:
    def bytes_of(seed: int) -> bytes:
        sandbox.configure("ticktock", seed=seed)
        return ticktock.get("/settlements", params={"limit": 200}).content

    assert bytes_of(7) == bytes_of(7)
    assert bytes_of(7) != bytes_of(8)


@pytest.mark.parametrize("id_kind", ["integer", "uuid"])
def test_ten_million_entries_are_paged_from_anywhere_at_once(
    sandbox: Sandbox, ticktock: httpx.Client, id_kind: str
) -> None:
    sandbox.configure("ticktock", id_kind=id_kind, visible_entries=5_000_000)
    sandbox.configure("ticktock", first_call="newest")
    middle = page(ticktock, limit=1)[0]
    sandbox.configure("ticktock", visible_entries=10_000_000)
    durations = []
    for _ in range(5):
        started_at = time.perf_counter()
        assert len(page(ticktock, limit=200, since_id=middle)) == 200
        durations.append(time.perf_counter() - started_at)
    # The fastest of a few: the others measure what else the machine does.
    assert min(durations) < 0.05


def test_a_wrong_setting_is_refused_with_its_name(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="visible_entries"):
        sandbox.configure("ticktock", visible_entries=-1)
    with pytest.raises(ValueError, match="colour"):
        sandbox.configure("ticktock", colour="red")


def test_reset_goes_back_to_the_start(
    sandbox: Sandbox, ticktock: httpx.Client, http: httpx.Client
) -> None:
    before = page(ticktock)
    sandbox.configure("ticktock", seed=9, requests_a_minute=1, page_order="newest_first")
    sandbox.fault("ticktock", "empty_page", times=None)
    http.post(sandbox.alerts_url, json={"key": "a"})
    sandbox.reset()
    assert page(ticktock) == before
    assert sandbox.calls()["counts"] == {"ticktock.settlements": {"200": 1}}
    assert sandbox.faults() == []
    assert sandbox.alerts()["received"] == 0
