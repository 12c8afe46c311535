"""docker-compose.yaml, the Dockerfile and .env.example: they agree, and their processes run."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import httpx
import psycopg2
import pytest
import yaml
from cryptography.fernet import Fernet

from include.local.agreement import disagreements
from include.local.airflow import COMPONENTS, POOLS, AirflowApi, now
from include.local.postgres import Postgres, free_port, programs_folder, remove_cluster
from include.local.supervisor import Supervisor
from include.sandbox.addresses import (
    ALERTS_PATH,
    ODDS88_CLIENT_ID,
    ODDS88_PASSWORD,
    ODDS88_PATH,
    PREDICTION_KEY,
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
from include.settings import PREFIX, Settings
from tests.compose import (
    AIRFLOW_SERVICES,
    PROJECT,
    Host,
    compose,
    example_variables,
    image_environment,
    references,
)

pytestmark = pytest.mark.xdist_group("compose")

_STEP_SECONDS, _READY_SECONDS, _RUN_SECONDS = 120.0, 120.0, 120.0


def test_every_image_is_pinned_and_none_is_the_latest() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    images |= {line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")}
    assert [image for image in images if not re.search(r":\d", image)] == []


def test_the_processes_are_those_that_run_locally() -> None:
    services = compose()["services"]
    for component, arguments in COMPONENTS.items():
        assert services[component]["command"] == ["airflow", *arguments]
    assert services["worker"]["command"][:3] == ["airflow", "celery", "worker"]
    assert services["sandbox"]["command"][:3] == ["python", "-m", "include.sandbox"]
    assert set(services) == {*COMPONENTS, "worker", "sandbox", "migrate", "postgres", "redis"}


def test_all_of_airflow_shares_one_environment_and_one_image() -> None:
    services = compose()["services"]
    shared = services["api-server"]["environment"]
    for name in AIRFLOW_SERVICES:
        assert services[name]["environment"] == shared
        assert services[name]["volumes"] == services["api-server"]["volumes"]
    assert shared.items() <= services["migrate"]["environment"].items()
    assert len({services[name]["image"] for name in (*AIRFLOW_SERVICES, "migrate")}) == 1
    for secret in ("CORE__FERNET_KEY", "API__SECRET_KEY", "API_AUTH__JWT_SECRET"):
        assert ":?" in shared[f"AIRFLOW__{secret}"]


def test_every_setting_is_handed_on_from_the_env_file() -> None:
    settings = [variable for variable, _, _ in Settings.variables()]
    for name in (*AIRFLOW_SERVICES, "migrate"):
        environment = compose()["services"][name]["environment"]
        assert [one for one in environment if one.startswith(PREFIX)] == settings
        assert {environment[one] for one in settings} == {None}


def test_a_setting_that_is_not_in_the_env_file_stays_unset() -> None:
    host = Host(defaultdict(str, SETTLEMENTS_WALLET_WINDOWS="2"), {}, {})
    environment = host.environment("scheduler")
    assert environment["SETTLEMENTS_WALLET_WINDOWS"] == "2"
    assert "SETTLEMENTS_WALLET_ITEM_CODES" not in environment


def test_only_the_migration_knows_the_owner_of_the_warehouse() -> None:
    services = compose()["services"]
    knowing = {
        name
        for name, service in services.items()
        if {"OWNER_PASSWORD", "POSTGRES_PASSWORD"} & {found[0] for found in references(service)}
    }
    assert knowing == {"migrate", "postgres"}


def test_every_service_waits_for_what_it_needs_and_says_whether_it_is_healthy() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert "healthcheck" in service or name == "migrate"
    for name in AIRFLOW_SERVICES:
        waits = services[name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        for needed, wait in waits.items():
            assert needed == "migrate" or wait["condition"] == "service_healthy"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["restart"] == "no"


def test_the_service_postgres_can_be_left_out() -> None:
    services = compose()["services"]
    waiting = {
        name: service["depends_on"]["postgres"]
        for name, service in services.items()
        if "postgres" in service.get("depends_on", {})
    }
    assert list(waiting) == ["migrate"]
    assert waiting["migrate"]["required"] is False
    own = {"POSTGRES_HOST": "db.internal", "POSTGRES_PORT": "6543"}
    host = Host(defaultdict(str, own), {}, {})
    for name in (*AIRFLOW_SERVICES, "migrate"):
        environment = host.environment(name)
        assert json.loads(environment["AIRFLOW_CONN_WAREHOUSE"])["port"] == 6543
        assert "@db.internal:6543/" in environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        assert [one for one in environment.values() if "@postgres" in one or "5432" in one] == []
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    [override] = re.findall(r"```yaml\n(.*?) *```", readme, re.S)
    [(name, changes)] = yaml.safe_load(dedent(override))["services"].items()
    assert name in services
    assert list(changes) == ["profiles"]


def test_what_a_container_prints_is_bounded() -> None:
    for service in compose()["services"].values():
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_every_variable_is_explained_and_every_required_one_says_what_is_missing() -> None:
    required, with_default = example_variables()
    found = references(compose())
    settings = {variable for variable, _, _ in Settings.variables()}
    shown = {name for name in with_default if name.startswith(PREFIX)}
    assert shown <= settings
    assert {name for name, kind, _ in found if kind == ":-"} == set(with_default) - shown
    assert {name for name, kind, _ in found if kind == ":?"} == set(required)
    assert {name for name, kind, _ in found if kind is None} <= set(required)
    assert [name for name, kind, text in found if kind == ":?" and ".env.example" not in text] == []


def test_the_image_holds_the_project_and_runs_as_an_ordinary_user() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    for folder in ("include", "dags", "plugins"):
        assert f"COPY {folder} {image_environment()['PYTHONPATH']}/{folder}" in dockerfile
    assert dockerfile.count("--require-hashes") == 2
    assert "USER airflow" in dockerfile.rpartition("COPY")[2]
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
    assert {source for sources in copied for source in sources.split()} == sent
    assert [source for source in sent if not (PROJECT / source).exists()] == []


@dataclass(frozen=True)
class Deployment:
    """The services of the compose file as processes of this machine."""

    host: Host
    postgres: Postgres
    supervisor: Supervisor
    sandbox_url: str
    api_url: str
    variables: dict[str, str]

    def start(self, service: str, *, is_step: bool = False) -> None:
        self.supervisor.start(
            service,
            self.host.command(service),
            environment=self.host.environment(service),
            folder=PROJECT,
            is_step=is_step,
        )

    def migrate(self) -> None:
        """Run the one-shot service to its end."""
        self.start("migrate", is_step=True)
        self.supervisor.finish("migrate", _STEP_SECONDS)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server set up and migrated as the compose file says, and the sandbox."""
    sandbox_url = f"http://127.0.0.1:{free_port()}"
    variables = _variables(sandbox_url)
    with deployed(tmp_path_factory.mktemp("a deployment"), variables, sandbox_url) as deployment:
        deployment.migrate()
        deployment.start("sandbox")
        yield deployment


@contextmanager
def deployed(folder: Path, variables: dict[str, str], sandbox_url: str) -> Iterator[Deployment]:
    """A new server with the two databases of the compose file, empty; nothing else runs."""
    try:
        with Postgres(folder / "postgres") as postgres, Supervisor(folder / "logs") as supervisor:
            deployment = _deploy(folder, variables, sandbox_url, postgres, supervisor)
            for statement in _statements(deployment.host):
                _execute(postgres, "postgres", statement)
            yield deployment
    finally:
        remove_cluster(folder / "postgres")


def test_the_one_shot_prepares_both_databases(deployment: Deployment) -> None:
    assert_prepared(deployment)


def assert_prepared(deployment: Deployment) -> None:
    [(pool, slots, meaning)] = _execute(
        deployment.postgres,
        "airflow",
        "SELECT pool, slots, description FROM slot_pool WHERE id > 1",
    )
    assert {pool: (slots, meaning)} == POOLS
    assert _execute(deployment.postgres, "airflow", "SELECT username FROM ab_user") == [("admin",)]
    [(login, is_superuser)] = _execute(
        deployment.postgres,
        "warehouse",
        "SELECT tableowner, rolsuper FROM pg_tables JOIN pg_roles ON rolname = tableowner"
        " WHERE schemaname = 'core' AND tablename = 'settlement'",
    )
    assert (login, is_superuser) == ("owner", False)


def test_each_login_reaches_its_own_database_alone(deployment: Deployment) -> None:
    connection = json.loads(deployment.host.environment("scheduler")["AIRFLOW_CONN_WAREHOUSE"])
    assert connection["login"] == "pipelines"
    port, password = connection["port"], connection["password"]

    def connect(database: str) -> None:
        psycopg2.connect(
            host="127.0.0.1", port=port, dbname=database, user="pipelines", password=password
        ).close()

    connect("warehouse")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connect("airflow")


def test_payouts_are_entered_under_a_login_that_tasks_do_not_know(deployment: Deployment) -> None:
    password = deployment.variables["OUTBOX_PASSWORD"]
    assert password in deployment.host.environment("migrate").values()
    assert password not in str(deployment.host.environment("scheduler"))
    url = deployment.postgres.location("warehouse").set(username="outbox", password=password)
    question = (
        "--command=SELECT 1 / (has_column_privilege('wallet.transaction', 'amount', 'INSERT')"
        " AND NOT has_table_privilege('wallet.transaction', 'SELECT'))::integer"
    )
    _run([_program("psql"), question, url.render_as_string(hide_password=False)])


@pytest.fixture(scope="module")
def airflow(deployment: Deployment) -> AirflowApi:
    """Airflow's services of the compose file, healthy."""
    started_at = now()
    for service in COMPONENTS:
        deployment.start(service)
    password = deployment.variables["AIRFLOW_ADMIN_PASSWORD"]
    api = AirflowApi(deployment.api_url, "admin", password, deployment.supervisor.check)
    deployment.supervisor.wait_until(
        "Airflow is healthy", lambda: api.is_healthy(started_at), _READY_SECONDS
    )
    return api


@pytest.fixture(scope="module")
def caught_up(deployment: Deployment, airflow: AirflowApi) -> Deployment:
    """The deployment after one run of the catch-up."""
    airflow.wait_for_dags(["catch_up_ticktock"], _READY_SECONDS)
    airflow.pause("catch_up_ticktock", is_paused=False)
    run_id = airflow.trigger("catch_up_ticktock")
    assert airflow.wait_for_run("catch_up_ticktock", run_id, _RUN_SECONDS) == "success"
    return deployment


@pytest.mark.parametrize("service", [*COMPONENTS, "sandbox"])
def test_a_service_that_runs_says_that_it_is_healthy(
    deployment: Deployment, airflow: AirflowApi, service: str
) -> None:
    command = deployment.host.health_command(service)
    _run(command, environment=deployment.host.environment(service))


def test_only_who_has_logged_in_sees_the_findings(
    deployment: Deployment, airflow: AirflowApi
) -> None:
    findings = f"{deployment.api_url}/settlement-pipelines/findings/open"
    with httpx.Client(trust_env=False) as client:
        assert client.get(findings).status_code == httpx.codes.UNAUTHORIZED
        log_in = {"username": "admin", "password": deployment.variables["AIRFLOW_ADMIN_PASSWORD"]}
        token = client.post(f"{deployment.api_url}/auth/token", json=log_in).json()["access_token"]
        seen = client.get(findings, headers={"Authorization": f"Bearer {token}"})
    assert seen.json()["findings"] == []


def test_behind_a_proxy_with_tls_the_cookies_are_secure(
    deployment: Deployment, airflow: AirflowApi
) -> None:
    def cookies(headers: dict[str, str]) -> list[bool]:
        with httpx.Client(trust_env=False) as client:
            answer = client.get(f"{deployment.api_url}/auth/logout", headers=headers)
        return ["Secure" in cookie for cookie in answer.headers.get_list("set-cookie")]

    assert cookies({}) == [False, False]
    assert cookies({"X-Forwarded-Proto": "https"}) == [True, True]


def test_the_services_catch_up_with_the_sandbox(caught_up: Deployment) -> None:
    with Sandbox(caught_up.sandbox_url) as sandbox:
        ledger = sandbox.ledger("ticktock")
    assert list(disagreements(caught_up.postgres.url("warehouse"), ledger)) == []


def test_a_backup_is_restored_into_an_empty_server(caught_up: Deployment, tmp_path: Path) -> None:
    """As the README says: dumped whole, restored as its owner, then prepared as at every start.

    What is prepared already may be prepared again.
    """
    owners = {"warehouse": "owner", "airflow": "airflow"}
    for database in owners:
        source = f"--dbname={caught_up.postgres.url(database)}"
        backup = str(tmp_path / f"{database}.dump")
        _run([_program("pg_dump"), "--format=custom", f"--file={backup}", source])
    with Sandbox(caught_up.sandbox_url) as sandbox:
        ledger = sandbox.ledger("ticktock")
    with deployed(tmp_path, caught_up.variables, caught_up.sandbox_url) as restored:
        for database, owner in owners.items():
            target = f"--dbname={restored.postgres.url(database)}"
            options = ["--no-owner", "--no-privileges", f"--role={owner}", "--exit-on-error"]
            backup = str(tmp_path / f"{database}.dump")
            _run([_program("pg_restore"), *options, target, backup])
        restored.migrate()
        assert_prepared(restored)
        assert list(disagreements(restored.postgres.url("warehouse"), ledger)) == []
        assert _execute(restored.postgres, "airflow", "SELECT count(*) > 0 FROM dag_run") == [
            (True,)
        ]
        as_finance = restored.postgres.location("warehouse").set(
            username="finance", password=restored.variables["FINANCE_PASSWORD"]
        )
        question = "--command=SELECT count(*) FROM finance.settlement_current"
        _run([_program("psql"), question, as_finance.render_as_string(hide_password=False)])


def _deploy(
    folder: Path,
    variables: dict[str, str],
    sandbox_url: str,
    postgres: Postgres,
    supervisor: Supervisor,
) -> Deployment:
    home = folder / "home"
    home.mkdir()
    api_port = free_port()
    server = postgres.location("postgres")
    # A Postgres of one's own, in place of the service.
    own = {"POSTGRES_HOST": str(server.host), "POSTGRES_PORT": str(server.port)}
    variables = {**variables, **own}
    replacements = {
        "http://api-server:8080": f"http://127.0.0.1:{api_port}",
        "http://127.0.0.1:8080": f"http://127.0.0.1:{api_port}",
        "http://127.0.0.1:8088": sandbox_url,
        "0.0.0.0": "127.0.0.1",
        "8088": sandbox_url.rpartition(":")[2],
        "/opt/venv/bin": str(Path(sys.executable).parent),
        "/opt/settlements": str(PROJECT),
        "/var/lib/airflow": str(home),
    }
    # A container has its ports and its loopback address to itself.
    added = {
        "AIRFLOW__API__PORT": str(api_port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
        # Ten looks a second take a third of a processor.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    }
    return Deployment(
        host=Host(variables, replacements, added),
        postgres=postgres,
        supervisor=supervisor,
        sandbox_url=sandbox_url,
        api_url=f"http://127.0.0.1:{api_port}",
        variables=variables,
    )


def _variables(sandbox_url: str) -> dict[str, str]:
    """An .env, filled in for the profile `sandbox`."""
    required, _ = example_variables()
    connections = {
        "TICKTOCK": {
            "conn_type": "http",
            "password": TICKTOCK_KEY,
            "extra": {"base_url": f"{sandbox_url}{TICKTOCK_PATH}"},
        },
        "ODDS88": {
            "conn_type": "http",
            "password": ODDS88_PASSWORD,
            "extra": {
                "base_url": f"{sandbox_url}{ODDS88_PATH}",
                "client_id": ODDS88_CLIENT_ID,
            },
        },
        "TOTE": {
            "conn_type": "http",
            "password": TOTE_KEY,
            "extra": {"base_url": f"{sandbox_url}{TOTE_PATH}"},
        },
        "PREDICTION": {
            "conn_type": "http",
            "password": PREDICTION_KEY,
            "extra": {"base_url": f"{sandbox_url}{PREDICTION_PATH}"},
        },
        "WALLET": {
            "conn_type": "http",
            "password": WALLET_KEY,
            "extra": {
                "base_url": f"{sandbox_url}{WALLET_PATH}",
                "signing_secret": WALLET_SECRET,
            },
        },
        "ALERTS": {"conn_type": "http", "extra": {"base_url": f"{sandbox_url}{ALERTS_PATH}"}},
    }
    return {
        **{name: secrets.token_hex(64) for name in required},
        **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()},
        "AIRFLOW_FERNET_KEY": Fernet.generate_key().decode(),
    }


def _statements(host: Host) -> Iterator[str]:
    """What the image of Postgres runs on an empty volume."""
    script = host.here(compose()["configs"]["databases"]["content"])
    return filter(None, map(str.strip, script.split(";")))


def _execute(postgres: Postgres, database: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(postgres.url(database))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _program(name: str) -> str:
    return str(programs_folder() / name)
