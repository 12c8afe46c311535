"""The README is true: what it names exists, and every setting stands in it as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from include.settings import Settings

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def shown(default: Any) -> str:
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return default
    if isinstance(default, dict | tuple):
        return json.dumps(default)
    return f"{default:_}" if isinstance(default, int) else f"{default:g}"


@pytest.mark.parametrize("setting", Settings.variables(), ids=lambda setting: setting[0])
def test_every_setting_is_documented_with_its_default(setting: tuple[str, str, Any]) -> None:
    variable, meaning, default = setting
    assert f"| `{variable}` | {meaning} | {shown(default)} |" in README


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `(SETTLEMENTS_\w+)`", README, flags=re.MULTILINE))
    assert documented == {variable for variable, _, _ in Settings.variables()}


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`make (\w+)", README)) | set(re.findall(r"\$ make (\w+)", README))
    assert {"demo", "test"} <= named <= targets


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_every_finance_view_named_exists() -> None:
    views = {path.stem.partition("_")[2] for path in (PROJECT / "include/finance/views").iterdir()}
    named = set(re.findall(r"finance\.(?!png)(\w+)", README))
    assert named <= views
    section = README.partition("## For finance")[2].partition("\n## ")[0]
    rows = re.findall(r"^(\| `.*?) \|", section, flags=re.MULTILINE)
    listed = set(re.findall(r"`(\w+)(?:\(\w+\))?`", "\n".join(rows)))
    assert views == listed
