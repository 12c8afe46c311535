"""The truth about the visible settlement log, to compare a warehouse with.

Computed in one walk that holds nothing but counts, so any volume can be asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator

import msgspec

from include.sandbox.ticktock_log import FINAL_STATUSES, Decision, Entry
from include.sandbox.visible_log import VisibleLog

_ENTRIES_AT_A_TIME = 500


class Ledger(msgspec.Struct):
    """Counts of entries and of the subjects (match_id, market_offer_id) they decide about.

    `decisions` counts entries, `final` counts subjects by their last visible entry, both under
    "pending", "settled/won", "settled/lost" and "voided/void". `corrections` are entries that
    change the status or outcome of a subject that was settled or voided already; `resettlements`
    are entries that call themselves so. `broken_chains` are entries whose previous_status is not
    the status before them, `orphan_resettlements` those with no visible entry before them.
    `sha256` is over the lines "id|match_id|market_offer_id|new_status|outcome\\n" in the order
    (created_at, id), integer ids compared as numbers; a null outcome is the empty text.
    """

    entries: int
    subjects: int
    decisions: dict[str, int]
    final: dict[str, int]
    pending: int
    resettlements: int
    corrections: int
    broken_chains: int
    orphan_resettlements: int
    last_id: str | None
    sha256: str


async def read_ledger(view: VisibleLog) -> Ledger:
    """Walks the visible entries once, letting the server serve (or end) every few of them."""
    decisions: Counter[tuple[str, str | None]] = Counter()
    final: Counter[tuple[str, str | None]] = Counter()
    facts: Counter[str] = Counter()
    lines = _OrderedLines()
    index = None
    for walked, index in enumerate(view.oldest_after(-1)):
        entry = view.log.entry(index)
        previous, is_last = _place_in_chain(view, index)
        decisions[entry.new_status, entry.outcome] += 1
        if is_last:
            final[entry.new_status, entry.outcome] += 1
        for fact in _facts(entry, previous):
            facts[fact] += 1
        lines.add(entry)
        if walked % _ENTRIES_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return Ledger(
        entries=decisions.total(),
        subjects=final.total(),
        decisions=_by_words(decisions),
        final=_by_words(final),
        pending=decisions["pending", None],
        resettlements=facts["resettlement"] + facts["orphan resettlement"],
        corrections=facts["correction"],
        broken_chains=facts["broken chain"],
        orphan_resettlements=facts["orphan resettlement"],
        last_id=None if index is None else str(view.log.id(index)),
        sha256=lines.sha256(),
    )


def _place_in_chain(view: VisibleLog, index: int) -> tuple[Decision | None, bool]:
    """The visible decision before this entry about its subject, and whether none comes after."""
    chain = view.log.chain(view.log.subject(index))
    if len(chain) == 1:
        return None, True
    visible = [each for each in chain if view.shows(each.entry)]
    step = [each.entry for each in visible].index(index)
    return visible[step - 1] if step else None, step == len(visible) - 1


def _by_words(counts: Counter[tuple[str, str | None]]) -> dict[str, int]:
    return {"/".join(filter(None, words)): count for words, count in sorted(counts.items())}


def _facts(entry: Entry, previous: Decision | None) -> Iterator[str]:
    """What is to be counted about an entry, given the visible one before it in its chain."""
    if entry.is_resettlement:
        yield "resettlement" if previous else "orphan resettlement"
    if previous is None:
        return
    if entry.previous_status != previous.status:
        yield "broken chain"
    is_changed = (entry.new_status, entry.outcome) != (previous.status, previous.outcome)
    if is_changed and previous.status in FINAL_STATUSES:
        yield "correction"


class _OrderedLines:
    """The digest of the lines of entries that come in the order of the log.

    Entries of one instant wait for each other: their ids, not the log, say which is first.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._tied: list[Entry] = []

    def add(self, entry: Entry) -> None:
        if self._tied and self._tied[0].created_at != entry.created_at:
            self._write_tied()
        self._tied.append(entry)

    def sha256(self) -> str:
        self._write_tied()
        return self._digest.hexdigest()

    def _write_tied(self) -> None:
        for each in sorted(self._tied, key=lambda entry: entry.id):
            fields = (each.id, each.match_id, each.market_offer_id, each.new_status, each.outcome)
            line = "|".join("" if field is None else str(field) for field in fields)
            self._digest.update(f"{line}\n".encode())
        self._tied.clear()
