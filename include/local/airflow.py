"""Airflow on one machine: its four processes, how they are configured, and its REST API.

Supervised one by one instead of `airflow standalone`, which leaves its children behind when it is
terminated.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from include.local.folder import Secrets, write_private
from include.local.postgres import free_port

USER = "admin"

# Pool: how many tasks at once, and what it is for.
POOLS = {"warehouse": (8, "Tasks that write the warehouse")}

# Stopped in this order: first whoever starts work, last whoever running tasks report to.
# The API server finds logs on this machine's disk: no server for them on every address.
COMPONENTS = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "api-server": ("api-server", "--proxy-headers"),
}

_UI_PORT = 8080
_PAUSE_SECONDS = 0.25
_CALL_SECONDS = 30.0
_FINAL_STATES = frozenset({"success", "failed"})


def command(*arguments: str) -> list[str]:
    """The command line of `airflow …` under this interpreter, whatever PATH says."""
    return [sys.executable, "-m", "airflow", *arguments]


def configure(
    project: Path, home: Path, logs: Path, metadata_url: str, secrets: Secrets
) -> dict[str, str]:
    """The environment variables of Airflow's processes; writes the file of the UI's passwords.

    The UI keeps its usual port 8080 if that is free.  Secrets are drawn once and then kept, so that
    log-ins and running tasks survive a restart.
    """
    passwords = home / "passwords.json"
    write_private(passwords, f'{{"{USER}": "{secrets.get("ui_password")}"}}\n')
    port = free_port(_UI_PORT)
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": max(2, len(os.sched_getaffinity(0)) + 1),
        "CORE__DAGS_FOLDER": project / "dags",
        "CORE__PLUGINS_FOLDER": project / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "CORE__FERNET_KEY": f"{secrets.get('fernet_key', 32)}=",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": metadata_url.replace(
            "postgresql://", "postgresql+psycopg2://", 1
        ),
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__SECRET_KEY": secrets.get("api_secret_key", 64),
        "API_AUTH__JWT_SECRET": secrets.get("jwt_secret", 64),
        # A task that ends just after its last message may keep its worker for this long, by default
        # 5 s: with few workers, the next tasks of a run then wait for one.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.1,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 10,
        "LOGGING__BASE_LOG_FOLDER": logs / "tasks",
        "USAGE_DATA_COLLECTION__ENABLED": False,
    }
    return {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(project),
        # Tasks report to 127.0.0.1 through a client that obeys proxy variables.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **{f"AIRFLOW__{name}": str(value) for name, value in settings.items()},
    }


def without_airflow(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without the settings of another Airflow; its connections and variables stay."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("AIRFLOW__") and name not in ("AIRFLOW_HOME", "AIRFLOW_CONFIG")
    }


class AirflowError(Exception):
    """Airflow's API refused a call, or a run did not end in time."""


class AirflowApi:
    """A client of Airflow's REST API, logged in as `user`.

    `check` is called while waiting; it raises if waiting has become pointless.
    """

    def __init__(
        self, base_url: str, user: str, password: str, check: Callable[[], None] = lambda: None
    ) -> None:
        self.base_url = base_url
        self._credentials = {"username": user, "password": password}
        self._check = check
        self._client = httpx.Client(base_url=base_url, timeout=_CALL_SECONDS, trust_env=False)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def log_in(self) -> None:
        """Get a token for the calls that follow.  Raises `AirflowError` if refused."""
        answer = self._client.post("/auth/token", json=self._credentials)
        if answer.status_code != httpx.codes.CREATED:
            raise AirflowError(
                f"Airflow refused the log-in ({answer.status_code}). Nothing was changed."
                " Check the user and the password."
            )
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Call `/api/v2<path>`; the decoded answer.  Logs in when the token is missing or old."""
        answer = self._client.request(method, f"/api/v2{path}", **arguments)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self.log_in()
            answer = self._client.request(method, f"/api/v2{path}", **arguments)
        if answer.is_error:
            raise AirflowError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None

    def is_healthy(self, since: datetime) -> bool:
        """Whether all components work and have been heard from since `since`."""
        try:
            health = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        except httpx.HTTPError:
            return False
        return health["metadatabase"]["status"] == "healthy" and all(
            health[component]["status"] == "healthy"
            and datetime.fromisoformat(health[component][f"latest_{component}_heartbeat"]) >= since
            for component in ("scheduler", "dag_processor", "triggerer")
        )

    def create_pools(self, pools: Mapping[str, tuple[int, str]]) -> None:
        """Create `pools`, or change them to what is given: name to (slots, meaning)."""
        entities = [
            {"name": name, "slots": slots, "description": meaning}
            for name, (slots, meaning) in pools.items()
        ]
        create = {"action": "create", "entities": entities, "action_on_existence": "overwrite"}
        self.call("PATCH", "/pools", json={"actions": [create]})

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that Airflow knows, as it describes them."""
        return self._list("/dags", "dags")

    def import_errors(self) -> list[dict[str, Any]]:
        """The DAG files that could not be read, as Airflow describes them."""
        return self._list("/importErrors", "import_errors")

    def wait_for_dags(self, dag_ids: Collection[str], deadline_seconds: float) -> None:
        """Wait until Airflow knows every one of `dag_ids`.  Raises `AirflowError`."""
        self._wait(
            f"Airflow knows {', '.join(sorted(dag_ids))}",
            lambda: set(dag_ids) <= {dag["dag_id"] for dag in self.dags()},
            deadline_seconds,
        )

    def pause(self, dag_id: str, *, is_paused: bool = True) -> None:
        """Stop Airflow from starting runs of the DAG, or let it again."""
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": is_paused})

    def trigger(self, dag_id: str, **body: Any) -> str:
        """Start a run by hand; its run id.  `body` may hold conf, note and partition_key."""
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, **body})
        run_id: str = run["dag_run_id"]
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Every run of the DAG, as Airflow describes them."""
        return self._list(f"/dags/{dag_id}/dagRuns", "dag_runs")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of one run: queued, running, success or failed."""
        state: str = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def wait_for_run(self, dag_id: str, run_id: str, deadline_seconds: float) -> str:
        """Wait until the run has ended; its state, success or failed.  Raises `AirflowError`."""
        self._wait(
            f"run {run_id} of {dag_id} has ended",
            lambda: self.run_state(dag_id, run_id) in _FINAL_STATES,
            deadline_seconds,
        )
        return self.run_state(dag_id, run_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task of one run, as Airflow describes them."""
        return self._list(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def clear(
        self,
        dag_id: str,
        run_id: str,
        task_ids: Collection[str] = (),
        *,
        only_failed: bool = True,
        with_downstream: bool = True,
    ) -> None:
        """Let `task_ids` of a run, or all its tasks, run again, as a rule with those after them."""
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": only_failed,
            "include_downstream": with_downstream,
        }
        if task_ids:
            body["task_ids"] = list(task_ids)
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """The log of one try of one task, an entry a line, each as the JSON it was written as."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, headers={"Accept": "application/json"})["content"]
        return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in content)

    def _list(self, path: str, key: str) -> list[dict[str, Any]]:
        return list(self._pages(path, key))

    def _pages(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self.call("GET", path, params={"limit": 100, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def _wait(self, condition: str, is_met: Callable[[], bool], deadline_seconds: float) -> None:
        deadline = time.monotonic() + deadline_seconds
        while True:
            with suppress(httpx.TransportError):
                if is_met():
                    return
            self._check()
            if time.monotonic() > deadline:
                raise AirflowError(
                    f"It did not come about within {deadline_seconds:g} seconds that {condition}."
                )
            time.sleep(_PAUSE_SECONDS)


def now() -> datetime:
    """The present moment, to compare Airflow's heartbeats with."""
    return datetime.now(UTC)
