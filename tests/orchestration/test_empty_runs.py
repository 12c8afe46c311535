"""What a run with nothing to do is spared: imports, and results to store."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.airflow_home import PROJECT

# As Airflow does it: a plugin in the process that forks, a DAG file in the forked one.
_READ = """
import json, sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

def read(path):
    spec = spec_from_loader("read", SourceFileLoader("read", path))
    spec.loader.exec_module(module_from_spec(spec))

plugin, *dag_files = sys.argv[1:]
read(plugin)
inherited = set(sys.modules)
for dag_file in dag_files:
    read(dag_file)
print(json.dumps([sorted(inherited), sorted(set(sys.modules) - inherited)]))
"""


@pytest.fixture(scope="module")
def modules() -> tuple[list[str], list[str]]:
    """What the plugin brings with it, and what the DAG files import beyond that."""
    files = [*(PROJECT / "plugins").glob("*.py"), *sorted((PROJECT / "dags").glob("*.py"))]
    done = subprocess.run(
        [sys.executable, "-c", _READ, *map(str, files)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    inherited, imported = json.loads(done.stdout.splitlines()[-1])
    return inherited, imported


def test_a_task_process_inherits_whatever_its_dag_file_imports(
    modules: tuple[list[str], list[str]],
) -> None:
    inherited, imported = modules
    assert "include.orchestration.tasks.catch_up" in inherited
    assert imported == []


def test_nothing_heavy_is_inherited_by_every_process(modules: tuple[list[str], list[str]]) -> None:
    inherited, _ = modules
    assert {"great_expectations", "pandas"}.isdisjoint(inherited)


def test_a_task_stores_one_result_and_none_if_it_did_nothing() -> None:
    from include.orchestration.tasks.catch_up import land
    from include.orchestration.tasks.resolve_findings import resolve
    from include.orchestration.tasks.shared import counted
    from include.quality.normalizing import Normalized

    assert not land.multiple_outputs
    assert not resolve.multiple_outputs
    assert counted(Normalized(batches=0, normalized=0, quarantined=0)) is None
    done = {"batches": 1, "normalized": 0, "quarantined": 2}
    assert counted(Normalized(**done)) == done
