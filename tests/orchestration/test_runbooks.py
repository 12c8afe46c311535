"""The runbooks are true: what they quote is said, and what they name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from include.orchestration import importing, resending, resolving, settling
from include.settings import Settings
from tests.warehouses import Warehouse

PROJECT = Path(__file__).parents[2]
RUNBOOKS = sorted((PROJECT / "include/orchestration/runbooks").glob("*.md"))
README = PROJECT / "README.md"

# What a quote may show in place of what a message fills in.
_VALUE = re.compile(r"…|`[^`]+`|\b\w*_\w*\b|\b\w+/\w+\b|\b[A-Z]{3}\b|\S*\d\S*|[()]")
# What Airflow's own pages call things.
_AIRFLOWS = {
    "Admin",
    "Clear task instance",
    "Connections",
    "Downstream",
    "Extra",
    "Logs",
    "Op",
    "Running",
    "Trigger",
    "success",
    "upstream_failed",
}
# Headings elsewhere, and the page Findings.
_PLACES = {"Findings", "For finance", "Load again", "Payouts"}


@cache
def said() -> str:
    """Every text in the code, each with blanks for what is filled in."""
    texts = [
        text
        for path in [*(PROJECT / "include").rglob("*.py"), *(PROJECT / "dags").glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for text in _texts(node)
    ]
    return "\n".join(" ".join(text.split()) for text in texts)


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"%[sd]", " # ", node.value)
    if isinstance(node, ast.JoinedStr):
        for chosen in ("body", "orelse"):
            yield "".join(_part(part, chosen) for part in node.values)


def _part(part: ast.expr, chosen: str) -> str:
    if isinstance(part, ast.FormattedValue):
        choice = getattr(part.value, chosen, None)
        return _part(choice, chosen) if isinstance(choice, ast.Constant) else "#"
    return str(getattr(part, "value", "#"))


@cache
def words() -> frozenset[str]:
    """Every name in the code but the sandbox's, every setting, and what Compose is told."""
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("include", "dags")
        for path in (PROJECT / folder).rglob("*")
        if path.suffix in {".py", ".sql"} and "sandbox" not in path.parts
    )
    code += (PROJECT / "docker-compose.yaml").read_text(encoding="utf-8")
    return frozenset(re.findall(r"\w+", code)) | {name for name, _, _ in Settings.variables()}


def prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path == README:
        text = text.partition("## For on-call")[2].partition("\n## ")[0]
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", [*RUNBOOKS, README], ids=lambda path: path.stem)
def test_what_is_quoted_is_said(path: Path) -> None:
    quotes = re.findall(r'"([^"]+)"', re.sub(r"`[^`]*`", "`", prose(path)))
    pieces = [piece for quote in quotes for piece in _VALUE.split(" ".join(quote.split()))]
    wanted = [piece.strip(" `") for piece in pieces]
    assert [piece for piece in wanted if len(piece) > 2 and piece not in said()] == []


@pytest.mark.parametrize("path", [*RUNBOOKS, README], ids=lambda path: path.stem)
def test_what_is_named_exists(path: Path) -> None:
    spans = re.findall(r"`([^`]+)`", prose(path))
    names = {name for span in spans if re.fullmatch(r"[\w.]+", span) for name in span.split(".")}
    assert {name for name in names if "_" in name} - words() == set()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_every_field_of_a_form_bears_its_title(path: Path) -> None:
    forms = [module.form_fields() for module in (importing, resending, resolving, settling)]
    titles = {field.schema["title"] for form in forms for field in form.values()}
    headings = set(re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", prose(path))
    places = {" ".join(place.split()) for name in named for place in name.split(" → ")}
    connections = {"prediction", "wallet"}
    assert places - titles - headings - _AIRFLOWS - _PLACES - connections == set()


def questions() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in RUNBOOKS]
    told = [
        block
        for text in texts
        for block in [
            *re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL),
            *re.findall(r"`(SELECT [^`]+)`", text),
        ]
    ]
    lines = "\n".join(line.partition("--")[0] for block in told for line in block.splitlines())
    return [question.strip() for question in lines.split(";") if question.strip()]


def test_every_question_to_the_warehouse_can_be_asked(shared_warehouse: Warehouse) -> None:
    assert len(questions()) > 5
    with shared_warehouse.owner_engine.connect() as connection:
        for question in questions():
            connection.exec_driver_sql(f"EXPLAIN {question}")
