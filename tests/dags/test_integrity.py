"""Every DAG: exact ids, order, retries, limits, and a page that tells what to do at night."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest

from include.catchup.sources import SOURCES
from include.local.airflow import POOLS
from include.payouts.outbox import HOLDS
from include.settings import Settings
from include.warehouse.findings import KINDS
from tests.airflow_home import PROJECT

CATCH_UP = [f"catch_up_{name}" for name in SOURCES]
EVERY_DAG = [
    *CATCH_UP,
    "import_files",
    "resend_settlements",
    "resolve_findings",
    "settle_markets",
    "watch_feeds",
]

# What may take longer than an hour, and is tried other than three times again.
LONG_TASKS = {"send", "import_files", "land", "settle", "retry_failed", "fetch_payouts"}
RETRIES = {"listen": 0, "resolve": 0, "send": 12, "take_events": 0}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-m", "tests.dags.describe"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    facts: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return facts


@pytest.fixture
def dags(described: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = described["dags"]
    return facts


def test_every_dag_is_read_and_no_other(described: dict[str, Any]) -> None:
    assert described["import_errors"] == {}
    assert sorted(described["dags"]) == sorted(EVERY_DAG)


def test_reading_dag_files_imports_nothing_heavy(described: dict[str, Any]) -> None:
    assert described["heavy_modules"] == []


def test_a_catch_up_lands_checks_normalizes_checks_and_publishes(dags: dict[str, Any]) -> None:
    for name, source in SOURCES.items():
        dag = dags[f"catch_up_{name}"]
        steps = ["land", "check_raw", "normalize", "check_settlements", "publish"]
        beside = [] if source.open_hints is None else ["listen"]
        assert [task["task_id"] for task in dag["tasks"]] == [*steps, *beside]
        # Nothing waits for who listens, and who listens waits for nothing.
        assert [task["downstream"] for task in dag["tasks"]] == [
            *([step] for step in steps[1:]),
            [],
            *([] for _ in beside),
        ]
        assert dag["schedule"] == source.schedule
        assert dag["max_active_runs"] == 1
        assert dag["tasks"][len(steps) - 1]["outlets"] == ["settlements"]
        assert dag["tags"] == sorted(["catch_up", name])
        for paragraph in source.documentation.strip().split("\n\n"):
            assert paragraph in dag["doc_md"]


def test_feeds_are_watched_before_alerts_are_sent(dags: dict[str, Any]) -> None:
    watch, send_alerts = dags["watch_feeds"]["tasks"]
    assert (watch["task_id"], watch["downstream"]) == ("watch", ["send_alerts"])
    assert "alert_failure" not in send_alerts["on_failure"]
    assert dags["watch_feeds"]["schedule"] == "*/5 * * * *"
    assert dags["watch_feeds"]["max_active_runs"] == 1


def test_the_resend_freezes_checks_sends_and_checks_once_a_day(dags: dict[str, Any]) -> None:
    dag = dags["resend_settlements"]
    steps = ["prepare", "check_outbox", "send", "check_outcome"]
    assert [task["task_id"] for task in dag["tasks"]] == steps
    assert [task["downstream"] for task in dag["tasks"]] == [*([s] for s in steps[1:]), []]
    assert dag["timetable"] == ["0 1 * * *", "UTC", "-1", "%Y-%m-%d"]
    assert dag["max_active_runs"] == 1
    assert dag["params"] == ["batch_items", "business_date", "dry_run"]
    assert [task["outlets"] for task in dag["tasks"]] == [[], [], [], ["resend_outcome"]]
    # The days of a backfill wait for each other in the scheduler, not each in a worker.
    assert dag["tasks"][2]["at_once"] == 1


def test_on_call_is_told_half_an_hour_after_the_resend_should_have_begun(
    dags: dict[str, Any],
) -> None:
    assert dags["resend_settlements"]["deadlines"] == [
        ["RunAfter", 1800, "include.orchestration.deadlines.alert_late_resend"]
    ]
    assert [dag_id for dag_id, dag in dags.items() if dag["deadlines"]] == ["resend_settlements"]


def test_the_page_of_the_resend_explains_every_hold_and_every_finding(
    dags: dict[str, Any],
) -> None:
    page = dags["resend_settlements"]["doc_md"]
    holds = {*HOLDS, "refusal_pending", "contested", "in_doubt", "unclear"}
    kinds = {kind for kind in KINDS if kind.startswith(("transactions_", "refusals_", "payouts_"))}
    kinds |= {"paid_though_lost", "answer_foreign"}
    named = set(re.findall(r"`(\w+)`", page))
    assert holds | kinds | {"open", "processed", "lost"} <= named
    decisions = {decision for kind in kinds for decision in KINDS[kind].decisions}
    assert decisions <= named
    [send] = [task for task in dags["resend_settlements"]["tasks"] if task["task_id"] == "send"]
    assert f"it was tried {send['retries'] + 1} times" in page


def test_markets_are_settled_retried_listed_checked_published_and_their_credits_sent(
    dags: dict[str, Any],
) -> None:
    dag = dags["settle_markets"]
    steps = [
        "take_events",
        "plan",
        "settle",
        "wait_for_status",
        "retry_failed",
        "fetch_payouts",
        "check",
        "publish",
        "credit",
        "send_credits",
        "report_failures",
    ]
    assert [task["task_id"] for task in dag["tasks"]] == steps
    # Every step of a shard takes the shard from `plan`.
    following = {task["task_id"]: set(task["downstream"]) for task in dag["tasks"]}
    assert all(after in following[before] for before, after in pairwise(steps))
    # A run ends as its last task does: none may fail unseen by it.
    assert all("report_failures" in following[step] for step in steps[:-1])
    assert dag["schedule"] == "*/5 * * * *"
    assert dag["max_active_runs"] == 1
    assert dag["params"] == ["confirmation", "currency", "market_ids", "reason"]
    assert dag["tasks"][-4]["outlets"] == ["settlements"]


def test_the_page_of_markets_explains_every_finding_about_them(dags: dict[str, Any]) -> None:
    named = set(re.findall(r"`(\w+)`", dags["settle_markets"]["doc_md"]))
    kinds = {kind for kind in KINDS if kind.startswith(("market_", "markets_", "events_"))}
    decisions = {decision for kind in kinds for decision in KINDS[kind].decisions}
    assert kinds
    assert kinds | decisions <= named


def test_files_are_imported_by_hand(dags: dict[str, Any]) -> None:
    dag = dags["import_files"]
    assert dag["schedule"] is None
    assert dag["params"] == ["business_date", "path"]
    assert dag["tags"] == ["by_hand", "markets", "odds88", "payouts", "tote"]
    assert [task["task_id"] for task in dag["tasks"]] == ["import_files"]


def test_findings_are_resolved_by_hand_and_never_twice(dags: dict[str, Any]) -> None:
    dag = dags["resolve_findings"]
    assert dag["schedule"] is None
    assert dag["params"] == [
        "continue_from",
        "decision",
        "finding_ids",
        "payouts",
        "reason",
        "record_id",
        "reference",
        "seen",
        "transaction_ids",
    ]
    assert [(task["task_id"], task["retries"]) for task in dag["tasks"]] == [("resolve", 0)]


def test_the_page_of_resolve_findings_says_what_every_finding_means(dags: dict[str, Any]) -> None:
    page = dags["resolve_findings"]["doc_md"]
    for name, kind in KINDS.items():
        decisions = ", ".join(f"`{decision}`" for decision in kind.decisions)
        assert f"| `{name}` | {kind.meaning} | {decisions} |" in page
        # One sentence: what happened, then what is kept and what waits.
        assert kind.meaning.count(".") == 1
        assert kind.meaning.endswith(".")
        assert ": " in kind.meaning


def test_the_page_of_resolve_findings_lists_every_decision(dags: dict[str, Any]) -> None:
    page = dags["resolve_findings"]["doc_md"]
    for name, kind in KINDS.items():
        for decision, effect in kind.decisions.items():
            assert f"| `{name}` | `{decision}` | {effect} |" in page


@pytest.mark.parametrize("dag_id", EVERY_DAG)
def test_a_dag_tells_what_to_do_when_it_is_red(dags: dict[str, Any], dag_id: str) -> None:
    dag = dags[dag_id]
    assert "# Runbook" in dag["doc_md"]
    assert "**What failed, what to look at, what to click.**" in dag["doc_md"]
    for task in dag["tasks"]:
        assert f"`{task['task_id']}`" in dag["doc_md"]
    runbook = dag["doc_md"].partition("# Runbook")[2].partition("# The provider")[0]
    assert re.search(r"\{\w+\}", runbook) is None
    assert dag["description"]
    assert dag["tags"]


def test_markets_leave_half_of_the_workers_to_all_else(dags: dict[str, Any]) -> None:
    assert dags["settle_markets"]["max_active_tasks"] == POOLS["warehouse"][0] // 2


def test_what_people_wait_for_goes_first_when_a_worker_is_free(dags: dict[str, Any]) -> None:
    urgent = {"resolve_findings", "watch_feeds", "resend_settlements"}
    weights = {dag_id: weights_of(dag) for dag_id, dag in dags.items()}
    least = min(weight for dag_id in urgent for weight in weights[dag_id])
    assert least > max(weight for dag_id in set(dags) - urgent for weight in weights[dag_id])


def weights_of(dag: dict[str, Any]) -> list[int]:
    """Each task's weight as Airflow counts it by its usual rule: with all that is behind it."""
    tasks = {task["task_id"]: task for task in dag["tasks"]}
    assert {task["weight_rule"] for task in dag["tasks"]} == {"downstream"}

    def behind(task_id: str) -> set[str]:
        following = set(tasks[task_id]["downstream"])
        return following.union(*map(behind, following))

    return [sum(tasks[one]["weight"] for one in {name, *behind(name)}) for name in tasks]


@pytest.mark.parametrize("dag_id", EVERY_DAG)
def test_every_task_is_bounded_owned_and_retried(dags: dict[str, Any], dag_id: str) -> None:
    assert dags[dag_id]["catchup"] is False
    for task in dags[dag_id]["tasks"]:
        assert task["owner"] == "settlements"
        assert task["pool"] in POOLS
        assert task["retry_policy"] == "RetryByRecovery"
        assert task["retries"] == RETRIES.get(task["task_id"], 3)
        longest = 6 * 3600 if task["task_id"] in LONG_TASKS else 3600
        assert 60 <= task["execution_seconds"] <= longest
        alerts = [] if task["task_id"] == "send_alerts" else ["alert_failure"]
        assert task["on_failure"] == [*alerts, "tell_failure"]
        assert task["on_retry"] == ["tell_failure"]


def test_land_has_time_for_its_bound_and_its_last_call(dags: dict[str, Any]) -> None:
    settings = Settings()
    last_call = settings.read_attempts * (
        settings.call_deadline_seconds + settings.retry_after_limit_seconds
    )
    for dag_id in CATCH_UP:
        land = dags[dag_id]["tasks"][0]
        assert land["execution_seconds"] >= settings.land_time_limit_seconds + last_call
