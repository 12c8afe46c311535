"""The README is true: what it names exists, and every setting stands in it as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from include.model import Outcome, Settlement, Status
from include.providers.odds88.documents import Result
from include.settings import Settings
from tests.providers import test_odds88, test_prediction, test_ticktock, test_tote

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


COMPLETED = {"status": "COMPLETED", "totalPayout": "0", "payoutPerShare": "0"}
# Each of a provider's words, or of its amounts where these decide, with what it becomes.
WORDS: dict[str, dict[str, Settlement]] = {
    "ticktock": {
        f"`{status}`" if outcome is None else f"`{status}`, `{outcome}`": test_ticktock.normalized(
            new_status=status, outcome=outcome
        )
        for status, outcome in (
            ("pending", None),
            ("settled", "won"),
            ("settled", "lost"),
            ("voided", "void"),
        )
    },
    "odds88": {
        **{
            f"`betSettlement` {result.value}": test_odds88.normalized(betSettlement=result.value)
            for result in Result
        },
        "`isRejected`": test_odds88.normalized(betSettlement=0, isRejected=True),
        "`isCancelled`": test_odds88.normalized(betSettlement=0, isCancelled=True),
    },
    "tote": {
        words: test_tote.normalized(node)
        for words, node in {
            "settlement `PENDING`": test_tote.bet(settlement="PENDING"),
            "`SETTLED` with a return": test_tote.bet(told=test_tote.returns(1)),
            "`SETTLED` with nothing": test_tote.bet(told=test_tote.returns()),
            "`SETTLED` with a refund alone": test_tote.bet(told=test_tote.returns(refund=1)),
            "`REFUNDED`": test_tote.bet(settlement="REFUNDED", told=test_tote.returns(refund=1)),
            "placement `REJECTED`": test_tote.bet("REJECTED", settlement="PENDING"),
            "placement or result `CANCELLED`": test_tote.bet("CANCELLED", settlement="PENDING"),
            "`CANCELLED` and `REFUNDED`": test_tote.bet(
                "CANCELLED", settlement="REFUNDED", told=test_tote.returns(refund=1)
            ),
            "placement `FAILED`": test_tote.bet("FAILED", settlement="PENDING"),
        }.items()
    },
    "prediction": {
        "`PENDING`": test_prediction.normalized(status="PENDING"),
        "`PROCESSING`": test_prediction.normalized(status="PROCESSING"),
        "`COMPLETED` at 1 a share": test_prediction.normalized(),
        "`COMPLETED` at 0": test_prediction.normalized(**COMPLETED),
        "`COMPLETED` between": test_prediction.normalized(
            **COMPLETED | {"payoutPerShare": "0.5", "totalPayout": "50"}
        ),
        "`FAILED`": test_prediction.normalized(status="FAILED"),
    },
}


def test_the_canonical_table_says_what_every_word_of_a_provider_becomes() -> None:
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    for provider, words in WORDS.items():
        for word, settlement in words.items():
            becomes = (
                settlement.status.value,
                settlement.outcome.value if settlement.outcome else "",
            )
            cells.setdefault(becomes, {}).setdefault(provider, []).append(word)
    statuses, outcomes = [*Status], ["", *Outcome]
    order = sorted(cells, key=lambda both: (statuses.index(both[0]), outcomes.index(both[1])))  # type: ignore[arg-type]
    table = "\n".join(
        "| " + " | ".join([*both, *(", ".join(cells[both].get(one, [])) for one in WORDS)]) + " |"
        for both in order
    )
    assert f"| status | outcome | {' | '.join(WORDS)} |\n|{'---|' * 6}\n{table}\n" in README
    assert {status for status, _ in cells} == set(Status)
    assert {outcome for _, outcome in cells} - {""} == set(Outcome)
