"""The ledger says what a walk through the interface finds, counted here the long way."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from include.sandbox.client import Sandbox
from tests.sandbox.conftest import Walk

FINAL = {"settled", "voided"}


def counted(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The ledger, from entries in the order of the log alone."""
    current: dict[tuple[str, str], dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for entry in entries:
        subject = entry["match_id"], entry["market_offer_id"]
        before = current.get(subject)
        counts["resettlements"] += entry["is_resettlement"]
        if before is None:
            counts["orphans"] += entry["is_resettlement"]
        else:
            counts["broken"] += before["new_status"] != entry["previous_status"]
            counts["corrections"] += before["new_status"] in FINAL and word(before) != word(entry)
        current[subject] = entry
    lines = [
        f"{e['id']}|{e['match_id']}|{e['market_offer_id']}|{e['new_status']}|{e['outcome'] or ''}\n"
        for e in sorted(entries, key=lambda e: (e["created_at"], e["id"]))
    ]
    return {
        "entries": len(entries),
        "subjects": len(current),
        "decisions": dict(Counter(map(word, entries))),
        "final": dict(Counter(map(word, current.values()))),
        "pending": sum(entry["new_status"] == "pending" for entry in entries),
        "resettlements": counts["resettlements"],
        "corrections": counts["corrections"],
        "broken_chains": counts["broken"],
        "orphan_resettlements": counts["orphans"],
        "last_id": str(entries[-1]["id"]),
        "sha256": sha256("".join(lines).encode()).hexdigest(),
    }


def word(entry: dict[str, Any]) -> str:
    return "/".join(filter(None, (entry["new_status"], entry["outcome"])))


@pytest.mark.parametrize("id_kind", ["integer", "uuid"])
@pytest.mark.parametrize("broken_chains", [False, True])
def test_it_equals_a_walk_over_5000_entries(
    sandbox: Sandbox, walk: Walk, id_kind: str, broken_chains: bool
) -> None:
    sandbox.configure(
        "ticktock", visible_entries=5000, id_kind=id_kind, broken_chains=broken_chains
    )
    ledger = sandbox.ledger("ticktock")
    assert ledger == counted(walk())
    assert ledger["corrections"] > 0
    assert ledger["resettlements"] > ledger["corrections"]
    assert ledger["entries"] == 5000 > ledger["subjects"]


def test_it_leaves_out_what_is_not_visible_yet(sandbox: Sandbox, walk: Walk) -> None:
    late = [{"entry": entry} for entry in range(0, 2500, 7)]
    sandbox.configure("ticktock", visible_entries=2500, late=late)
    ledger = sandbox.ledger("ticktock")
    assert ledger == counted(walk())
    assert ledger["entries"] == 2500 - len(late)
    assert ledger["orphan_resettlements"] > 0
    sandbox.release("ticktock", *range(0, 2500, 7))
    assert sandbox.ledger("ticktock")["orphan_resettlements"] == 0


def test_it_can_stop_at_an_entry(sandbox: Sandbox, walk: Walk) -> None:
    entries = walk()
    up_to = sandbox.ledger("ticktock", up_to_id=str(entries[699]["id"]))
    assert up_to == counted(entries[:700])
    with pytest.raises(ValueError, match="no entry with this id"):
        sandbox.ledger("ticktock", up_to_id="1")


def test_an_empty_log_has_an_empty_ledger(sandbox: Sandbox) -> None:
    sandbox.configure("ticktock", visible_entries=0)
    ledger = sandbox.ledger("ticktock")
    assert (ledger["entries"], ledger["final"], ledger["last_id"]) == (0, {}, None)
    assert ledger["sha256"] == sha256().hexdigest()
