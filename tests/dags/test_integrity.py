"""Every DAG: exact ids, order, retries, limits, and a page that tells what to do at night."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from include.catchup.sources import SOURCES
from include.local.airflow import POOLS
from include.settings import Settings
from include.warehouse.findings import KINDS
from tests.airflow_home import PROJECT

CATCH_UP = [f"catch_up_{name}" for name in SOURCES]
EVERY_DAG = [*CATCH_UP, "resolve_findings", "watch_feeds"]


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
        assert [task["task_id"] for task in dag["tasks"]] == steps
        assert [task["downstream"] for task in dag["tasks"]] == [*([s] for s in steps[1:]), []]
        assert dag["schedule"] == source.schedule
        assert dag["max_active_runs"] == 1
        assert dag["tasks"][-1]["outlets"] == ["settlements"]
        assert dag["tags"] == sorted(["catch_up", name])
        for paragraph in source.documentation.strip().split("\n\n"):
            assert paragraph in dag["doc_md"]


def test_feeds_are_watched_before_alerts_are_sent(dags: dict[str, Any]) -> None:
    watch, send_alerts = dags["watch_feeds"]["tasks"]
    assert (watch["task_id"], watch["downstream"]) == ("watch", ["send_alerts"])
    assert "alert_failure" not in send_alerts["on_failure"]
    assert dags["watch_feeds"]["schedule"] == "*/5 * * * *"
    assert dags["watch_feeds"]["max_active_runs"] == 1


def test_findings_are_resolved_by_hand_and_never_twice(dags: dict[str, Any]) -> None:
    dag = dags["resolve_findings"]
    assert dag["schedule"] is None
    assert dag["params"] == [
        "continue_from",
        "decision",
        "finding_ids",
        "reason",
        "record_id",
        "reference",
    ]
    assert [(task["task_id"], task["retries"]) for task in dag["tasks"]] == [("resolve", 0)]


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
    assert "{" not in runbook
    assert dag["description"]
    assert dag["tags"]


@pytest.mark.parametrize("dag_id", EVERY_DAG)
def test_every_task_is_bounded_owned_and_retried(dags: dict[str, Any], dag_id: str) -> None:
    assert dags[dag_id]["catchup"] is False
    for task in dags[dag_id]["tasks"]:
        assert task["owner"] == "settlements"
        assert task["pool"] in POOLS
        assert task["retry_policy"] == "RetryByRecovery"
        assert task["retries"] == (0 if task["task_id"] == "resolve" else 3)
        assert 60 <= task["execution_seconds"] <= 3600
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
