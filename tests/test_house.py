"""The house: which room may import which, and how long a sentence a DAG file may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

# Each room with the rooms it may import beside itself; imports point down only.
_FLOOR = {"model", "settings"}
_WIRE_AND_TABLES = {"providers", "warehouse", *_FLOOR}
_FLOWS = {"quality", *_WIRE_AND_TABLES}
MAY_IMPORT = {
    "model": set(),
    "settings": {"model"},
    "providers": _FLOOR,
    "warehouse": _FLOOR,
    "quality": _WIRE_AND_TABLES,
    "catchup": _FLOWS,
    "payouts": _FLOWS,
    "markets": _FLOWS,
    "finance": _FLOWS,
    "orchestration": {"catchup", "payouts", "markets", "finance", *_FLOWS},
    "sandbox": set(),
    "local": {"sandbox", "warehouse"},
    "dags": {"orchestration", "catchup", "payouts", "markets", "finance", *_FLOWS},
    "plugins": {"orchestration"},
}
MAY_IMPORT_AIRFLOW = {"orchestration", "dags", "plugins"}
DAG_LINES = 60


def _files() -> list[Path]:
    return [
        path
        for folder in ("include", "dags", "plugins")
        for path in sorted((PROJECT / folder).rglob("*.py"))
    ]


def _room(path: Path) -> str:
    parts = path.relative_to(PROJECT).parts
    return Path(parts[1]).stem if parts[0] == "include" and len(parts) > 1 else parts[0]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself"
            assert node.module is not None
            if node.module == "include":
                yield from (f"include.{alias.name}" for alias in node.names)
            else:
                yield node.module


def _identify(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", _files(), ids=_identify)
def test_imports_point_down_only(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert list(_imported(path)) == []
        return
    rooms = {name.split(".")[1] for name in _imported(path) if name.startswith("include.")}
    assert rooms - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", _files(), ids=_identify)
def test_only_orchestration_dags_and_plugins_know_airflow(path: Path) -> None:
    packages = {name.split(".")[0] for name in _imported(path)}
    assert "airflow" not in packages or _room(path) in MAY_IMPORT_AIRFLOW


@pytest.mark.parametrize("path", sorted((PROJECT / "include").rglob("__init__.py")), ids=_identify)
def test_every_package_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in (PROJECT / "include").rglob("*.py")}
    versions = PROJECT / "include" / "warehouse" / "migrations" / "versions"
    assert [f for f in sorted(folders - {versions}) if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", sorted((PROJECT / "dags").glob("*.py")), ids=_identify)
def test_a_dag_file_is_a_sentence(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= DAG_LINES
    tree = ast.parse(source)
    assert ast.get_docstring(tree)
    logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.Try, ast.While)
    assert [node for node in ast.walk(tree) if isinstance(node, logic)] == []


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "requirements-bench"])
def test_what_is_asked_for_is_asked_for_as_it_is_locked(name: str) -> None:
    asked = (PROJECT / f"{name}.in").read_text(encoding="utf-8").splitlines()
    locked = (PROJECT / f"{name}.txt").read_text(encoding="utf-8").lower()
    wanted = [re.sub(r"\[.*\]", "", line).lower() for line in asked if line[:1].isalpha()]
    assert wanted
    assert [line for line in wanted if f"\n{line} \\\n" not in f"\n{locked}"] == []
