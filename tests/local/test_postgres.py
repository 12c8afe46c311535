"""The embedded server: cold and warm, killed, left behind, as root and as an ordinary user."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from include.local.folder import FolderInUse
from include.local.postgres import Postgres, free_port, remove_cluster
from include.local.supervisor import ProcessFailed
from tests.local.ordinary_user import PROJECT, ordinary_user
from tests.local.waiting import is_alive, wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a space and a long name in its path; nothing of the cluster stays behind."""
    folder = tmp_path / "a space" / ("long" * 40) / "postgres"
    yield folder
    if folder.exists():
        remove_cluster(folder)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_data_and_passwords_outlive_a_stop(folder: Path) -> None:
    with Postgres(folder) as postgres:
        postgres.create_database("kept")
        execute(postgres.url("kept"), "CREATE TABLE t AS SELECT 42 AS answer")
        password = postgres.password("finance")
    with Postgres(folder) as postgres:
        postgres.create_database("kept")
        assert execute(postgres.url("kept"), "SELECT answer FROM t") == [(42,)]
        assert postgres.password("finance") == password


def test_a_login_reaches_only_the_databases_it_was_given(folder: Path) -> None:
    with Postgres(folder) as postgres:
        postgres.create_database("given")
        postgres.create_database("private")
        password = postgres.password("finance")
        execute(postgres.url("postgres"), f"CREATE ROLE finance LOGIN PASSWORD '{password}'")
        execute(postgres.url("postgres"), "GRANT CONNECT ON DATABASE given TO finance")
        assert execute(postgres.url("given", "finance"), "SELECT 1") == [(1,)]
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            execute(postgres.url("private", "finance"), "SELECT 1")


def test_a_database_is_given_with_what_an_earlier_start_made_in_it(folder: Path) -> None:
    with Postgres(folder) as postgres:
        for name in ("kept", "private"):
            postgres.create_database(name)
        execute(
            postgres.url("kept"),
            "CREATE TYPE mood AS ENUM ('good'); CREATE VIEW one AS SELECT 1; CREATE SEQUENCE s;"
            'CREATE TABLE "a T" (id serial PRIMARY KEY, mood mood); CREATE INDEX ON "a T" (mood)',
        )
        for _ in range(2):
            postgres.give_database("kept", "airflow")
        url = postgres.url("kept", "airflow")
        execute(url, "ALTER TYPE mood ADD VALUE 'better'")
        execute(url, """INSERT INTO "a T" (mood) VALUES ('good'); ALTER TABLE "a T" ADD b int""")
        execute(url, "DROP VIEW one; CREATE TABLE another (id serial); SELECT nextval('s')")
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            execute(postgres.url("private", "airflow"), "SELECT 1")


def test_committed_rows_outlive_a_kill(folder: Path) -> None:
    with Postgres(folder) as postgres:
        execute(postgres.url("postgres"), "CREATE TABLE t AS SELECT 42 AS answer")
        os.kill(postgres.process_id, signal.SIGKILL)
        wait_for("the kill is noticed", lambda: _has_failed(postgres))
        with pytest.raises(ProcessFailed, match=r"signal SIGKILL(.|\n)*ready to accept"):
            postgres.check()
    with Postgres(folder) as postgres:
        assert execute(postgres.url("postgres"), "SELECT answer FROM t") == [(42,)]


def test_a_server_left_behind_is_replaced(folder: Path) -> None:
    """Supervisor and keeper are both killed: only the next start is left to stop it."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from include.local.postgres import Postgres\n"
        "postgres = Postgres(Path(sys.argv[1])).start()\n"
        "print(postgres.process_id, flush=True)\n"
        "os.kill(postgres._supervisor._keeper._process.pid, signal.SIGKILL)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    left = subprocess.run(
        [sys.executable, "-c", script, folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    server = int(left.stdout)
    assert is_alive(server)
    with Postgres(folder) as postgres:
        assert not is_alive(server)
        assert execute(postgres.url("postgres"), "SELECT 1") == [(1,)]


def test_a_stale_process_id_that_is_now_a_strangers_does_no_harm(
    folder: Path, postgres: Postgres
) -> None:
    """The stranger is another server, run by the same account: the hardest one to tell apart."""
    with Postgres(folder):
        pass
    pid_file = _home(folder) / "data" / "postmaster.pid"
    pid_file.write_text(f"{postgres.process_id}\n{pid_file.parent}\n1\n1\n\n\n\nready\n")
    with Postgres(folder) as started:
        assert execute(started.url("postgres"), "SELECT 1") == [(1,)]
    assert execute(postgres.url("postgres"), "SELECT 1") == [(1,)]


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with (
        Postgres(folder) as postgres,
        pytest.raises(FolderInUse, match=rf"Process {os.getpid()} already runs"),
    ):
        Postgres(folder).start()
    assert postgres


def test_a_start_that_fails_says_why_and_leaves_nothing(folder: Path) -> None:
    with Postgres(folder):
        pass
    with (_home(folder) / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(ProcessFailed, match="unrecognized configuration parameter"):
        Postgres(folder).start()


def test_passwords_are_asked_for_and_kept_private(folder: Path) -> None:
    with Postgres(folder) as postgres:
        wrong = postgres.location("postgres").set(password="wrong")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(wrong.render_as_string(hide_password=False))
    assert stat.S_IMODE((_home(folder) / "passwords.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(_home(folder).stat().st_mode) == 0o700


def test_the_callers_environment_does_not_reach_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with Postgres(folder) as postgres:
        assert execute(postgres.url("postgres"), "SHOW timezone") == [("UTC",)]


def test_an_ordinary_user_keeps_the_data_in_the_folder(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from include.local.postgres import Postgres\n"
        "folder = Path(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    with Postgres(folder) as postgres:\n"
        "        postgres.create_database('kept')\n"
        "        owner = os.stat(f'/proc/{postgres.process_id}').st_uid\n"
        "        os.kill(postgres.process_id, signal.SIGKILL)\n"
        "print(owner, (folder / 'data').is_dir(), (folder / 'private').exists())\n"
    )
    with ordinary_user(tmp_path) as user:
        printed = user.run(script, str(user.home / "a space" / "postgres"))
        assert printed.split() == [str(user.user_id), "True", "False"]


def test_removing_a_cluster_removes_its_private_folder(folder: Path) -> None:
    with Postgres(folder):
        home = (folder / "private").resolve()
        has_private = home.exists()
    remove_cluster(folder)
    assert not folder.exists()
    assert not home.exists()
    assert has_private == (os.geteuid() == 0)


def test_a_preferred_port_that_is_taken_is_replaced() -> None:
    taken = free_port()
    assert free_port(taken) == taken
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port(taken) != taken


def _home(folder: Path) -> Path:
    """Where the files are: as root in a private folder."""
    return (folder / "private").resolve() if (folder / "private").exists() else folder


def _has_failed(postgres: Postgres) -> bool:
    try:
        postgres.check()
    except ProcessFailed:
        return True
    return False
