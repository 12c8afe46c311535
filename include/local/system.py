"""The whole system on one machine: Postgres, both databases, the sandbox and Airflow."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from include.local import airflow
from include.local.airflow import COMPONENTS, POOLS, AirflowApi
from include.local.folder import Secrets, lock_folder, write_private
from include.local.growth import SteadyFeed, entries_kept
from include.local.postgres import Cluster, Postgres, programs_folder, remove_cluster
from include.local.progress import Progress
from include.local.supervisor import Supervisor
from include.sandbox.addresses import (
    ALERTS_PATH,
    ODDS88_CLIENT_ID,
    ODDS88_PASSWORD,
    ODDS88_PATH,
    PREDICTION_KEY,
    PREDICTION_OPERATOR_ID,
    PREDICTION_PATH,
    TICKTOCK_KEY,
    TICKTOCK_PATH,
    TOTE_KEY,
    TOTE_PATH,
    WALLET_KEY,
    WALLET_PATH,
    WALLET_SECRET,
)
from include.sandbox.client import Sandbox

PROJECT = Path(__file__).resolve().parents[2]
STATES = PROJECT / ".local"
SERVER_VARIABLE = "SETTLEMENTS_POSTGRES_URL"

# What the sandbox's odds88 means by its amounts and rates, who we are to its prediction engine, and
# what that pays in.
_TERMS = {
    "ODDS88": {
        "SETTLEMENTS_ODDS88_PAYOUT_UNIT": "major",
        "SETTLEMENTS_ODDS88_PAYOUT_CONTAINS_PARTIAL_REFUND": "true",
        "SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY": "EUR",
        "SETTLEMENTS_ODDS88_RATE_DIRECTION": "units_per_base",
    },
    "PREDICTION": {
        "SETTLEMENTS_PREDICTION_OPERATOR_ID": PREDICTION_OPERATOR_ID,
        "SETTLEMENTS_PREDICTION_DEFAULT_CURRENCY": "USD",
    },
}

# Few, since each takes four tasks; positions of one of them fail, and are retried.
_MARKETS: dict[str, Any] = {"markets": 3, "failing_share": 0.3, "odd_markets": [1]}

_MIGRATE_SECONDS = 300.0
_READY_SECONDS = 180.0
_ENVIRONMENT_FILE = "environment.json"


class System:
    """Everything that runs, with its state in `folder`; use it as a context.

    `is_fresh` forgets what an earlier system left there.  The environment variable
    SETTLEMENTS_POSTGRES_URL names a server to use instead of the embedded one: a login that may
    create databases and roles.  AIRFLOW_CONN_* variables that are already set win over the
    sandbox's connections, and leave open what another provider means.  `airflow_settings` are
    environment variables that win over ours.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        *,
        is_fresh: bool = False,
        airflow_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.logs = folder / "logs"
        self._folder = folder
        self._progress = progress
        self._is_fresh = is_fresh
        self._airflow_settings = airflow_settings or {}
        self._supervisor = Supervisor(self.logs)
        self._lock: IO[str] | None = None
        self._postgres: Postgres | None = None
        self.cluster: Cluster
        self.api: AirflowApi
        self.sandbox_url: str
        self.environment: dict[str, str]

    def start(self) -> Self:
        """Start everything and wait until it works; on an error nothing is left running.

        Raises `FolderInUse`, `NoUsableAccount` and `ProcessFailed`.
        """
        try:
            self._lock = lock_folder(self._folder)
            if self._is_fresh:
                _remove_content(self._folder)
            secrets = Secrets(self._folder / "secrets.json")
            with self._progress.step("Postgres"):
                self._start_postgres()
            with self._progress.step("Tables of both databases, sandbox"):
                settings = self._configure_airflow(secrets)
                self._migrate_and_start_sandbox(settings)
            self.environment = {**settings, **self._connections(os.environ)}
            self._save_environment()
            with self._progress.step("Airflow"):
                self._start_airflow(secrets)
        except BaseException:
            self.stop()
            raise
        return self

    def check(self) -> None:
        """Raise `ProcessFailed`, with the end of its log, if a process has died."""
        self._supervisor.check()
        if self._postgres is not None:
            self._postgres.check()

    def stop(self) -> None:
        """Stop everything, in an order in which running tasks can still report; data is kept."""
        *starters, last = COMPONENTS
        self._supervisor.stop(*starters)
        self._supervisor.stop(last)
        self._supervisor.stop_all()
        if self._postgres is not None:
            self._postgres.stop()
            self._postgres = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def process_id(self, name: str) -> int:
        """The id of one of the processes, by the name of its log."""
        return self._supervisor.process_id(name)

    @property
    def sandbox_entries_file(self) -> Path:
        """Where the length of the sandbox's logs is kept between two starts."""
        return self._folder / "sandbox_entries"

    @property
    def sandbox_feed_file(self) -> Path:
        """Where the time at which the sandbox's odds88 began is kept between two starts."""
        return self._folder / "sandbox_feed_began_at"

    @property
    def warehouse_url(self) -> str:
        """The owner's URL of the warehouse; it may do everything."""
        return self.cluster.url(self._database("warehouse"))

    @property
    def finance_url(self) -> str:
        """Finance's URL of the warehouse; it may read what finance sees."""
        return self.cluster.url(self._database("warehouse"), "finance")

    @property
    def outbox_url(self) -> str:
        """The URL of the warehouse for whoever enters payouts; it may do nothing else."""
        return self.cluster.url(self._database("warehouse"), "outbox")

    @property
    def ui(self) -> tuple[str, str, str]:
        """Address, user and password of Airflow's UI."""
        password = Secrets(self._folder / "secrets.json").get("ui_password")
        return self.api.base_url, airflow.USER, password

    @property
    def finance_command(self) -> str:
        """The shell line that opens the warehouse as finance sees it."""
        url = self.cluster.location(self._database("warehouse"), "finance")
        psql = shlex.quote(str(programs_folder() / "psql"))
        return (
            f"PGPASSWORD={shlex.quote(self.cluster.password('finance'))} {psql}"
            f" -h {url.host} -p {url.port or 5432} -U finance {url.database}"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        with self._progress.step("Stopped"):
            self.stop()

    def _start_postgres(self) -> None:
        server = os.environ.get(SERVER_VARIABLE)
        if server:
            # One file for every state: a login's password belongs to the server, not to a state.
            self.cluster = Cluster(server, Secrets(STATES / "server_passwords.json"))
        else:
            self._postgres = Postgres(self._folder / "postgres").start()
            self.cluster = self._postgres
        for name in ("airflow", "warehouse"):
            if self._is_fresh and server:
                self.cluster.drop_database(self._database(name))
            self.cluster.create_database(self._database(name))
        if self._postgres is not None:
            self.cluster.give_database("airflow", "airflow")

    @property
    def _metadata_url(self) -> str:
        """Airflow's URL of its own database, and of no other."""
        # On a server that others use as well, `airflow` may be somebody else's login.
        login = None if self._postgres is None else "airflow"
        return self.cluster.url(self._database("airflow"), login)

    def _database(self, name: str) -> str:
        """A system that begins afresh leaves alone the databases that a server may already have."""
        return f"demo_{name}" if self._is_fresh and self._postgres is None else name

    def _configure_airflow(self, secrets: Secrets) -> dict[str, str]:
        ours = airflow.configure(
            PROJECT,
            self._folder / "airflow",
            self.logs,
            self._metadata_url,
            secrets,
        )
        return {**ours, **_terms(os.environ), **self._airflow_settings}

    def _migrate_and_start_sandbox(self, settings: Mapping[str, str]) -> None:
        ready_file = self._folder / "sandbox_url"
        ready_file.unlink(missing_ok=True)
        migrate_warehouse = {
            "WAREHOUSE_URL": self.warehouse_url,
            "PIPELINES_PASSWORD": self.cluster.password("pipelines"),
            "FINANCE_PASSWORD": self.cluster.password("finance"),
            "OUTBOX_PASSWORD": self.cluster.password("outbox"),
            "REGISTER_PASSWORD": self.cluster.password("register"),
            "CREDITS_PASSWORD": self.cluster.password("credits"),
        }
        inherited = {**airflow.without_airflow(os.environ), **settings}
        steps = {
            "migrate_airflow": (airflow.command("db", "migrate"), {}),
            "migrate_warehouse": (_module("include.warehouse", "migrate"), migrate_warehouse),
        }
        for name, (command, added) in steps.items():
            self._supervisor.start(
                name, command, environment={**inherited, **added}, folder=PROJECT, is_step=True
            )
        self._supervisor.start(
            "sandbox",
            _module(
                "include.sandbox",
                *("--ready-file", str(ready_file)),
                *("--entries", str(entries_kept(self.sandbox_entries_file))),
            ),
            environment=inherited,
            folder=PROJECT,
        )
        for name in steps:
            self._supervisor.finish(name, _MIGRATE_SECONDS)
        self._supervisor.wait_until("the sandbox listens", ready_file.exists, _READY_SECONDS)
        self.sandbox_url = ready_file.read_text(encoding="utf-8").strip()
        # Before anybody reads it.
        with Sandbox(self.sandbox_url) as sandbox:
            sandbox.configure("prediction", **_MARKETS)
            if not self._is_fresh:
                # What it told in an earlier life must be told again.
                SteadyFeed(sandbox, self.sandbox_feed_file).show()

    def _connections(self, given: Mapping[str, str]) -> dict[str, str]:
        warehouse = self.cluster.location(self._database("warehouse"), "pipelines")
        connections = {
            "WAREHOUSE": {
                "conn_type": "postgres",
                "host": warehouse.host,
                "port": warehouse.port or 5432,
                "schema": warehouse.database,
                "login": warehouse.username,
                "password": warehouse.password,
            },
            "TICKTOCK": {
                "conn_type": "http",
                "password": TICKTOCK_KEY,
                "extra": {"base_url": f"{self.sandbox_url}{TICKTOCK_PATH}"},
            },
            "ODDS88": {
                "conn_type": "http",
                "password": ODDS88_PASSWORD,
                "extra": {
                    "base_url": f"{self.sandbox_url}{ODDS88_PATH}",
                    "client_id": ODDS88_CLIENT_ID,
                },
            },
            "TOTE": {
                "conn_type": "http",
                "password": TOTE_KEY,
                "extra": {"base_url": f"{self.sandbox_url}{TOTE_PATH}"},
            },
            "PREDICTION": {
                "conn_type": "http",
                "password": PREDICTION_KEY,
                "extra": {"base_url": f"{self.sandbox_url}{PREDICTION_PATH}"},
            },
            "WALLET": {
                "conn_type": "http",
                "password": WALLET_KEY,
                "extra": {
                    "base_url": f"{self.sandbox_url}{WALLET_PATH}",
                    "signing_secret": WALLET_SECRET,
                },
            },
            "ALERTS": {
                "conn_type": "http",
                "extra": {"base_url": f"{self.sandbox_url}{ALERTS_PATH}"},
            },
        }
        ours = {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()}
        return {
            **ours,
            **{name: value for name, value in given.items() if name.startswith("AIRFLOW_CONN_")},
        }

    def _save_environment(self) -> None:
        variables = {**self.environment, "WAREHOUSE_URL": self.warehouse_url}
        write_private(self._folder / _ENVIRONMENT_FILE, json.dumps(variables, indent=2))

    def _start_airflow(self, secrets: Secrets) -> None:
        started_at = airflow.now()
        environment = {**airflow.without_airflow(os.environ), **self.environment}
        for component, arguments in reversed(COMPONENTS.items()):
            self._supervisor.start(
                component, airflow.command(*arguments), environment=environment, folder=PROJECT
            )
        self.api = AirflowApi(
            self.environment["AIRFLOW__API__BASE_URL"],
            airflow.USER,
            secrets.get("ui_password"),
            self.check,
        )
        self._supervisor.wait_until(
            "all four of Airflow's processes are healthy",
            lambda: self.api.is_healthy(started_at),
            _READY_SECONDS,
        )
        self.api.create_pools(POOLS)


def saved_environment() -> dict[str, str] | None:
    """The variables of the system that was started last in this project; None if none was."""
    files = sorted(STATES.glob(f"*/{_ENVIRONMENT_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return None
    variables: dict[str, str] = json.loads(files[-1].read_text(encoding="utf-8"))
    return variables


def remove_states() -> None:
    """Remove what every system of this project has stored.  Raises `FolderInUse` if one runs."""
    for folder in [path for path in STATES.glob("*") if path.is_dir()]:
        with lock_folder(folder):
            _remove_content(folder)
            shutil.rmtree(folder)


def _remove_content(folder: Path) -> None:
    if (folder / "postgres").exists():
        remove_cluster(folder / "postgres")
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _terms(given: Mapping[str, str]) -> dict[str, str]:
    """The settings of each of the sandbox's providers, unless another one is connected to."""
    return {
        name: given.get(name, value)
        for provider, terms in _TERMS.items()
        if f"AIRFLOW_CONN_{provider}" not in given
        for name, value in terms.items()
    }


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]
