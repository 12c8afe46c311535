"""The page Findings inside Airflow's own server: who may see it, what it shows, how it decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from py_mini_racer import MiniRacer

from include.orchestration.findings_page.app import URL_PREFIX
from include.warehouse.database import transaction
from include.warehouse.decisions import resolve
from include.warehouse.findings import KINDS, Finding, open_finding
from tests.orchestration.connecting import give_connection, give_warehouse
from tests.payouts.deciding import decide, hold, seen_of
from tests.payouts.entering import attempt, enter, payout
from tests.warehouses import Warehouse

PROJECT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e{{7*7}}"
PAGE_ROUTES = ["/", "/page.js", "/page.css", "/open"]
RUNS = "/api/v2/dags/resolve_findings/dagRuns"
FORM = {"finding_ids": [1], "decision": "acknowledge", "reason": "We have asked the provider."}


@pytest.fixture(scope="module")
def server(airflow_database: None) -> Iterator[TestClient]:
    """Airflow's API server with the plugin, as it is started in production."""
    from airflow.api_fastapi.app import create_app

    with TestClient(create_app(), base_url="http://airflow.test:8080") as client:
        yield client


def token(server: TestClient, user: str) -> str:
    answer = server.post("/auth/token", json={"username": user, "password": f"{user}-password"})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["access_token"]
    return found


@pytest.fixture(scope="module")
def operator(server: TestClient) -> dict[str, str]:
    """Whoever may trigger DAGs."""
    return {"Authorization": f"Bearer {token(server, 'operator')}"}


@pytest.fixture(scope="module")
def looker(server: TestClient) -> dict[str, str]:
    """Whoever may only look."""
    return {"Authorization": f"Bearer {token(server, 'looker')}"}


@pytest.fixture
def connected(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    give_warehouse(monkeypatch, warehouse)
    yield warehouse
    from include.orchestration.connections import open_warehouse

    open_warehouse().dispose()


def open_one(warehouse: Warehouse, kind: str, summary: str = "It happened.") -> int:
    with transaction(warehouse.engine, "loader") as connection:
        return open_finding(
            connection,
            Finding(kind, "ticktock", f"{kind} {summary}", summary, "All kept.", {"n": HOSTILE}),
        )


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_nobody_sees_it_without_logging_in(server: TestClient, route: str) -> None:
    assert server.get(URL_PREFIX + route).status_code == 401
    forged = {"Authorization": "Bearer forged"}
    assert server.get(URL_PREFIX + route, headers=forged).status_code in (401, 403)


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_whoever_may_look_sees_it_and_nothing_else_runs_in_it(
    connected: Warehouse, server: TestClient, looker: dict[str, str], route: str
) -> None:
    answer = server.get(URL_PREFIX + route, headers=looker)
    assert answer.status_code == 200
    assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_session_of_the_browser_is_enough(connected: Warehouse, server: TestClient) -> None:
    cookie = {"Cookie": f"_token={token(server, 'looker')}"}
    assert server.get(f"{URL_PREFIX}/open", headers=cookie).status_code == 200


def test_the_page_loads_nothing_from_elsewhere(
    connected: Warehouse, server: TestClient, looker: dict[str, str]
) -> None:
    for route in PAGE_ROUTES[:3]:
        text = server.get(URL_PREFIX + route, headers=looker).text
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text


def test_open_findings_come_worst_first_with_their_decisions(
    connected: Warehouse, server: TestClient, looker: dict[str, str]
) -> None:
    info = open_one(connected, "unknown_field")
    warning = open_one(connected, "gap")
    critical = open_one(connected, "batch_held", HOSTILE)
    answer = server.get(f"{URL_PREFIX}/open", headers=looker)
    listing = answer.json()
    assert listing["open_count"] == 3
    assert [one["finding_id"] for one in listing["findings"]] == [critical, warning, info]
    first = listing["findings"][0]
    assert first["summary"] == HOSTILE
    assert first["detail"] == {"n": HOSTILE}
    assert first["meaning"] == KINDS["batch_held"].meaning
    assert first["decisions"] == KINDS["batch_held"].decisions
    assert answer.headers["Content-Type"] == "application/json"


def test_a_finding_about_payouts_shows_how_many_it_holds_now_and_their_amounts(
    connected: Warehouse, server: TestClient, looker: dict[str, str]
) -> None:
    """Whatever it told when it was opened: some are answered since, others have joined."""
    other = open_one(connected, "batch_held")
    enter(connected, *(payout(one) for one in "abc"), payout("d", currency="GBP", amount=1))
    attempt(connected, *"abcd")
    held = hold(connected, "transactions_in_doubt", "a", "b")
    hold(connected, "transactions_in_doubt", "c", "d")
    decide(connected.engine, held, "lost", transaction_ids=["a"])
    listing = server.get(f"{URL_PREFIX}/open", headers=looker).json()
    assert {one["finding_id"]: one["held"] for one in listing["findings"]} == {
        other: None,
        held: {
            "what": "payouts",
            "count": 3,
            "amounts": {"EUR": "5000.00000", "GBP": "0.00001"},
        },
    }
    seen = {one["finding_id"]: one["seen"] for one in listing["findings"]}
    assert seen == {other: None, held: seen_of(connected, held)}
    decide(connected.engine, held, "lost", payouts=None, seen=seen[held])


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, "credits") for kind in ("credits_held", "credit_changed", "credits_owed")]
    + [("settlement_contested", "contents")],
)
def test_so_does_one_about_credits_or_contents(
    connected: Warehouse, server: TestClient, looker: dict[str, str], kind: str, what: str
) -> None:
    open_one(connected, kind)
    [shown] = server.get(f"{URL_PREFIX}/open", headers=looker).json()["findings"]
    assert shown["held"] == {"what": what, "count": 0, "amounts": {}}
    assert re.fullmatch("[0-9a-f]{8}", shown["seen"])


def test_what_the_page_shows_is_what_it_sends(server: TestClient, looker: dict[str, str]) -> None:
    script = server.get(f"{URL_PREFIX}/page.js", headers=looker).text
    assert "`Held now: ${held(finding)} (seen: ${finding.seen})`" in script
    assert "else if (finding.seen !== null) filled.seen = finding.seen;" in script


# Enough of a browser for the page to make elements in.
DOCUMENT = """
const made = (name) => ({ name, children: [], append(...more) { this.children.push(...more); } });
const document = { createElement: made, baseURI: "http://airflow.test/settlement-pipelines/x/" };
"""


def test_of_contents_that_contradict_each_other_one_is_chosen_by_what_it_says() -> None:
    script = (PROJECT / "include/orchestration/findings_page/page.js").read_text(encoding="utf-8")
    functions = script.partition("\nfunction element(")[2].partition("\ntakeColours();")[0]
    browser = MiniRacer()
    browser.eval(f"{DOCUMENT}\nfunction element({functions}")
    versions = [
        {"record_id": 7, "status": "settled", "outcome": "won", "payout": None},
        {"record_id": 9, "status": "void", "outcome": HOSTILE, "payout": "0"},
    ]
    shown = browser.call("versionChoices", {"detail": {"versions": versions}})
    legend, *choices = shown["children"]
    assert legend["children"] == ["Version that counts"]
    inputs = [(one["type"], one["name"], one["value"]) for one in map(first_child, choices)]
    assert inputs == [("radio", "record_id", 7), ("radio", "record_id", 9)]
    texts = [choice["children"][1]["children"][1] for choice in choices]
    # Nothing can become markup, and nothing hides.
    assert texts == [
        " – status settled · outcome won",
        f" – status void · outcome {HOSTILE} · payout 0".replace("\u202e", "\\u{202e}"),
    ]
    typed = browser.call("versionChoices", {"detail": {}})
    assert typed["children"][1]["type"] == "number"


def first_child(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["children"][0]
    return found


def test_what_was_decided_is_shown_and_no_longer_open(
    connected: Warehouse, server: TestClient, looker: dict[str, str]
) -> None:
    finding_id = open_one(connected, "unknown_field")
    resolve(
        connected.engine,
        finding_id,
        "acknowledge",
        decided_by="operator",
        reason="Seen.",
        reference="T-1",
        parameters={},
        run_id="run-1",
    )
    listing = server.get(f"{URL_PREFIX}/open", headers=looker).json()
    assert listing["findings"] == []
    [decided] = listing["decisions"]
    assert (decided["finding_id"], decided["decided_by"]) == (finding_id, "operator")
    assert (decided["reason"], decided["reference"]) == ("Seen.", "T-1")


def test_without_its_connection_the_page_says_what_to_fill_in(
    server: TestClient, looker: dict[str, str]
) -> None:
    answer = server.get(f"{URL_PREFIX}/open", headers=looker)
    assert answer.status_code == 503
    assert "Airflow connection `warehouse` does not exist" in answer.json()["detail"]


def test_without_the_warehouse_the_page_says_so_and_no_more(
    server: TestClient, looker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_connection(
        monkeypatch,
        "warehouse",
        conn_type="postgres",
        host="127.0.0.1",
        port=1,
        schema="w",
        login="pipelines",
        password="warehouse-secret",
    )
    answer = server.get(f"{URL_PREFIX}/open", headers=looker)
    assert answer.status_code == 503
    assert "The warehouse does not answer" in answer.json()["detail"]
    assert "warehouse-secret" not in answer.text


def test_the_menu_leads_to_the_page(server: TestClient, looker: dict[str, str]) -> None:
    plugins = server.get("/api/v2/plugins", headers=looker).json()["plugins"]
    [plugin] = [one for one in plugins if one["name"] == "settlement_pipelines"]
    [view] = plugin["external_views"]
    assert view["url_route"] == "findings"
    assert server.get(f"/{view['href']}", headers=looker).status_code == 200


def test_a_decision_is_triggered_by_the_person_who_looks(
    server: TestClient, operator: dict[str, str]
) -> None:
    answer = server.post(RUNS, headers=operator, json={"logical_date": None, "conf": FORM})
    assert answer.status_code == 200, answer.text
    assert answer.json()["triggering_user_name"] == "operator"


def test_whoever_may_only_look_may_not_decide(server: TestClient, looker: dict[str, str]) -> None:
    answer = server.post(RUNS, headers=looker, json={"logical_date": None, "conf": FORM})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"finding_ids": []},
        {"finding_ids": ["1"]},
        {"finding_ids": [0]},
        {"finding_ids": 1},
        {"decision": "publish_anyway"},
        {"reason": "no"},
        {"reason": None},
        {"reference": 5},
        {"record_id": "7"},
        {"continue_from": ""},
        {"transaction_ids": "t1"},
        {"transaction_ids": []},
        {"transaction_ids": [""]},
        {"transaction_ids": [7]},
        {"transaction_ids": ["x" * 501]},
        {"transaction_ids": ["x"] * 1001},
        {"payouts": "12"},
        {"payouts": 1.5},
        {"payouts": True},
        {"payouts": -1},
        {"seen": 12345678},
        {"seen": "1234567"},
        {"seen": "ABCDEF12"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_form_that_is_filled_in_wrongly_is_refused_at_once(
    server: TestClient, operator: dict[str, str], changes: dict[str, Any]
) -> None:
    body = {"logical_date": None, "conf": {**FORM, **changes}}
    answer = server.post(RUNS, headers=operator, json=body)
    assert answer.status_code == 400, answer.text
    assert next(iter(changes)) in answer.json()["detail"]


@pytest.mark.parametrize("field", sorted(FORM))
def test_a_form_that_lacks_a_field_is_refused_at_once(
    server: TestClient, operator: dict[str, str], field: str
) -> None:
    conf = {name: value for name, value in FORM.items() if name != field}
    answer = server.post(RUNS, headers=operator, json={"logical_date": None, "conf": conf})
    assert answer.status_code == 400, answer.text
