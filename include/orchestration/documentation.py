"""What a DAG's page in the UI says: what it does, and what to do at night when it is red."""

from __future__ import annotations

from pathlib import Path

from include.catchup.log import Log
from include.catchup.poll import Poll
from include.catchup.sources import Source
from include.catchup.stream import Stream
from include.providers import prediction
from include.warehouse.findings import KINDS

_RUNBOOKS = Path(__file__).parent / "runbooks"
_LAND: dict[type, str] = {Log: "land_log", Stream: "land_stream", Poll: "land_poll"}


def document_catch_up(source: Source) -> str:
    """The page of a source's catch-up DAG: what it is, the runbook, how its provider speaks."""
    what, _, wire = source.documentation.strip().partition("\n\n")
    land = _read(_LAND[type(source.acquire)]).rstrip()
    if source.open_hints is not None:
        land += f"\n{_read('listen').rstrip()}"
    runbook = _read("catch_up").replace("{land}", land).replace("{source}", source.name)
    return f"{what}\n\n{runbook}\n# The provider\n\n{wire}"


def document_watch_feeds() -> str:
    """The page of `watch_feeds`."""
    return _read("watch_feeds")


def document_resend_settlements() -> str:
    """The page of `resend_settlements`."""
    return _read("resend_settlements")


def document_settle_markets() -> str:
    """The page of `settle_markets`, what becomes of its credits, and how its provider speaks."""
    wire = (prediction.__doc__ or "").partition("\n\n")[2]
    return f"{_read('settle_markets')}\n{_read('credits')}\n# The provider\n\n{wire}"


def document_import_files() -> str:
    """The page of `import_files`."""
    return _read("import_files")


def document_resolve_findings() -> str:
    """The page of `resolve_findings`: its runbook, what each kind of finding means and allows."""
    findings = ["| finding | it means | decisions |", "|---|---|---|"]
    decisions = ["| finding | decision | what it does |", "|---|---|---|"]
    for name, kind in KINDS.items():
        allowed = ", ".join(f"`{decision}`" for decision in kind.decisions)
        findings.append(f"| `{name}` | {kind.meaning} | {allowed} |")
        for decision, effect in kind.decisions.items():
            decisions.append(f"| `{name}` | `{decision}` | {effect} |")
    page = _read("resolve_findings").replace("{findings}", "\n".join(findings))
    return page.replace("{decisions}", "\n".join(decisions))


def _read(name: str) -> str:
    return (_RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
