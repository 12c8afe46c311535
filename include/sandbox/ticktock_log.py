"""The settlement log of ticktock, computed and never held: entry n is a function of (seed, n).

The log is laid out in rows of 40 entries. Each row opens 28 subjects (market offers), and each of
them lives by one of the scripts below: graded once, voided, opened and graded later, corrected,
and so on. A script says how many rows later its next entry comes, so an entry finds the rest of
its chain, and a match all of its entries, by arithmetic alone. Ids are invertible for the same
reason. Places whose subject would have begun before the log did hold subjects graded once.

Fields and words are those of the settlement log's documentation.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

IdKind = Literal["integer", "uuid"]
Act = Literal["open", "grade", "regrade", "confirm", "void"]

LOG_STARTED_AT = datetime(2026, 5, 10, 18, 32, 14, tzinfo=UTC)
FIRST_ID = 481_234
ENTRIES_LIMIT = 2**32
"""Most entries a log can have: a uuid carries its entry's number in 32 bits."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One settlement decision, its fields in the documented order; `reason` only where given."""

    id: int | str
    market_offer_id: str
    match_id: str
    previous_status: str | None
    new_status: str
    outcome: str | None
    settled_by: str
    is_resettlement: bool
    created_at: str
    reason: str | msgspec.UnsetType = msgspec.UNSET


class Step(NamedTuple):
    """One entry of a script: what is decided, how many rows after the subject was opened."""

    act: Act
    rows_later: int


class Place(NamedTuple):
    """One of the places of a row: whose entry stands there, and what it decides.

    `subject_number` counts the subjects that the row `rows_earlier` opened; `is_flipped` says
    that the outcome is the opposite of the subject's first grade.
    """

    subject_number: int
    rows_earlier: int
    previous_status: str | None
    status: str
    is_flipped: bool


# How many subjects of each row live by which script. All steps together fill a row.
_SCRIPTS: tuple[tuple[int, tuple[Step, ...]], ...] = (
    (14, (Step("grade", 0),)),
    (1, (Step("void", 0),)),
    (2, (Step("open", 0),)),
    (4, (Step("open", 0), Step("grade", 1))),
    (1, (Step("open", 0), Step("void", 2))),
    (1, (Step("grade", 0), Step("regrade", 5))),
    (1, (Step("grade", 0), Step("regrade", 25))),
    (1, (Step("grade", 0), Step("confirm", 2))),
    (1, (Step("grade", 0), Step("void", 10))),
    (1, (Step("void", 0), Step("grade", 5))),
    (1, (Step("grade", 0), Step("regrade", 2), Step("regrade", 25))),
)
_STATUS_OF_ACT: dict[Act, str] = {
    "open": "pending",
    "grade": "settled",
    "regrade": "settled",
    "confirm": "settled",
    "void": "voided",
}
FINAL_STATUSES = frozenset({"settled", "voided"})


def _chain_of_places(subject_number: int, script: tuple[Step, ...]) -> Iterator[Place]:
    previous = None if script[0].act == "open" else "pending"
    is_flipped = False
    for act, rows_later in script:
        is_flipped ^= act == "regrade"
        yield Place(subject_number, rows_later, previous, _STATUS_OF_ACT[act], is_flipped)
        previous = _STATUS_OF_ACT[act]


# A subject is opened at the place of its own number; behind those stand the later steps.
_CHAINS = tuple(
    tuple(_chain_of_places(number, script))
    for number, script in enumerate(script for count, script in _SCRIPTS for _ in range(count))
)
_PLACES = tuple(chain[0] for chain in _CHAINS) + tuple(
    place for chain in _CHAINS for place in chain[1:]
)
ROW = len(_PLACES)
_NUMBER_OF_PLACE = {place: number for number, place in enumerate(_PLACES)}
_GRADED_ONCE = tuple(Place(number, 0, "pending", "settled", False) for number in range(ROW))

# Places are scattered over a row by a multiplication that can be undone.
_SCATTER = 7
_GATHER = pow(_SCATTER, -1, ROW)
_SUBJECTS_A_MATCH = 7
_MATCHES_A_ROW = -(-ROW // _SUBJECTS_A_MATCH)
# The third and the sixth of every eight entries share their second with the one before.
_TIED = frozenset({3, 6})
_STARTED_AT_SECONDS = int(LOG_STARTED_AT.timestamp())

# One word for a row, one for each of its entries, one for each of its subjects.
_CHANCES = struct.Struct(f">{1 + 2 * ROW}Q")
_UUID_FACTOR = 2_654_435_761
_UUID_FACTOR_INVERSE = pow(_UUID_FACTOR, -1, 2**32)
_OTHER_FINAL_STATUS = {"settled": "voided", "voided": "settled"}
_REASONS = (
    "Round score corrected by the tournament admin",
    "Überprüfung: Karte 3 neu gewertet",
    "Матч отменён организатором",
    "裁定変更：マップ2の結果を訂正",
    'Map "Inferno" replayed – see ticket\tTT\\4711 ✅',
)


class Subject(NamedTuple):
    """One market offer: the row that opened it, and its number within that row."""

    row: int
    number: int


class Decision(NamedTuple):
    """What one entry of a chain decides: the entry's index, its status and its outcome."""

    entry: int
    status: str
    outcome: str | None


class Chances(NamedTuple):
    """What is random in a row, 64 bits each: its rotation, its entries, the subjects it opens."""

    rotation: int
    entries: tuple[int, ...]
    subjects: tuple[int, ...]


class SettlementLog:
    """The log for one seed. An entry is named by its index: 0 is the oldest.

    `id_kind` says whether ids are increasing integers (not contiguous) or uuids; with
    `broken_chains` some entries claim a previous status that was not, or to resettle what was
    never settled.
    """

    def __init__(self, seed: int, id_kind: IdKind = "integer", broken_chains: bool = False) -> None:
        self._id_kind = id_kind
        self._broken_chains = broken_chains
        self._row_key = f"{seed}/row".encode()
        self._entry_key = f"{seed}/entry".encode()
        self._match_key = f"{seed}/match".encode()
        self._chances = lru_cache(maxsize=1024)(self._compute_chances)
        self._match_id = lru_cache(maxsize=1024)(self._compute_match_id)

    def entry(self, entry: int) -> Entry:
        """The entry with this index."""
        row, position = divmod(entry, ROW)
        chances = self._chances(row)
        place = self._place(row, position)
        opened_in = row - place.rows_earlier
        subject_chance = self._chances(opened_in).subjects[place.subject_number]
        chance = chances.entries[position]
        previous = place.previous_status
        if self._broken_chains and chance % 16 == 0:
            previous = _OTHER_FINAL_STATUS.get(previous or "", "settled")
        is_resettlement = previous in FINAL_STATUSES
        settled_by = _settled_by(chance >> 8, is_resettlement)
        return Entry(
            self._id(entry, chance),
            f"ofr_{subject_chance >> 24:010x}",
            self._match_id(opened_in * _MATCHES_A_ROW + place.subject_number // _SUBJECTS_A_MATCH),
            previous,
            place.status,
            _outcome(place, subject_chance),
            settled_by,
            is_resettlement,
            _created_at(entry),
            _REASONS[(chance >> 20) % len(_REASONS)] if settled_by == "admin" else msgspec.UNSET,
        )

    def id(self, entry: int) -> int | str:
        """The id of the entry with this index."""
        row, position = divmod(entry, ROW)
        return self._id(entry, self._chances(row).entries[position])

    def entry_with_id(self, entry_id: str) -> int | None:
        """The index of the entry with this id, written as text; None if the log has no such id.

        Raises ValueError if the text is no id of this log's kind.
        """
        if self._id_kind == "integer":
            if not (entry_id.isascii() and entry_id.isdigit()):
                raise ValueError("not an integer id")
            entry = (int(entry_id) - FIRST_ID) // 3
        else:
            entry = _number_in_uuid(entry_id, self._entry_key)
        if not 0 <= entry < ENTRIES_LIMIT:
            return None
        return entry if str(self.id(entry)) == entry_id.lower() else None

    def last_entry_up_to(self, entry_id: int) -> int:
        """The newest entry whose integer id is not above this one; -1 if there is none."""
        entry = min((entry_id - FIRST_ID) // 3, ENTRIES_LIMIT - 1)
        if entry < 0:
            return -1
        return entry if int(self.id(entry)) <= entry_id else entry - 1

    def subject(self, entry: int) -> Subject:
        """The subject about which the entry with this index decides."""
        row, position = divmod(entry, ROW)
        place = self._place(row, position)
        return Subject(row - place.rows_earlier, place.subject_number)

    def chain(self, subject: Subject) -> tuple[Decision, ...]:
        """Every decision about one subject, oldest first."""
        chance = self._chances(subject.row).subjects[subject.number]
        return tuple(
            Decision(self._entry_at(subject.row, place), place.status, _outcome(place, chance))
            for place in _chain_places(subject)
        )

    def entries_of_match(self, match_id: str) -> list[int]:
        """The indexes of all entries about one match, ascending; none if there is no such match."""
        try:
            number = _number_in_uuid(match_id, self._match_key)
        except ValueError:
            return []
        if self._match_id(number) != match_id.lower():
            return []
        row, group = divmod(number, _MATCHES_A_ROW)
        subjects = range(ROW)[group * _SUBJECTS_A_MATCH : (group + 1) * _SUBJECTS_A_MATCH]
        return sorted(
            self._entry_at(row, place)
            for subject_number in subjects
            for place in _chain_places(Subject(row, subject_number))
        )

    def _place(self, row: int, position: int) -> Place:
        number = (position * _SCATTER + self._chances(row).rotation) % ROW
        place = _PLACES[number]
        return place if place.rows_earlier <= row else _GRADED_ONCE[number]

    def _entry_at(self, opened_in: int, place: Place) -> int:
        row = opened_in + place.rows_earlier
        number = _NUMBER_OF_PLACE.get(place, place.subject_number)
        return row * ROW + (number - self._chances(row).rotation) * _GATHER % ROW

    def _id(self, entry: int, chance: int) -> int | str:
        if self._id_kind == "integer":
            return FIRST_ID + 3 * entry + (chance >> 40) % 3
        return _uuid(entry, self._entry_key)

    def _compute_match_id(self, number: int) -> str:
        return _uuid(number, self._match_key)

    def _compute_chances(self, row: int) -> Chances:
        bits = hashlib.shake_128(self._row_key + row.to_bytes(8)).digest(_CHANCES.size)
        rotation, *words = _CHANCES.unpack(bits)
        return Chances(rotation % ROW, tuple(words[:ROW]), tuple(words[ROW:]))


def _created_at(entry: int) -> str:
    # 1.6 seconds an entry: ten million entries are half a year.
    seconds = _STARTED_AT_SECONDS + (entry - (entry % 8 in _TIED)) * 8 // 5
    return f"{_minute(seconds // 60)}:{seconds % 60:02}+00:00"


@lru_cache(maxsize=16)
def _minute(minutes: int) -> str:
    return f"{datetime.fromtimestamp(minutes * 60, UTC):%Y-%m-%dT%H:%M}"


def _settled_by(chance: int, is_resettlement: bool) -> str:
    if is_resettlement:
        return "admin" if chance % 5 < 3 else "system"
    return ("engine", "system", "admin")[(chance % 20 > 16) + (chance % 20 > 18)]


def _outcome(place: Place, subject_chance: int) -> str | None:
    if place.status == "pending":
        return None
    if place.status == "voided":
        return "void"
    return "won" if (subject_chance & 1) ^ place.is_flipped else "lost"


def _chain_places(subject: Subject) -> tuple[Place, ...]:
    """The places of a subject's entries; none for a number that its row did not give away."""
    if subject.number < len(_CHAINS):
        return _CHAINS[subject.number]
    is_opened = subject.row < _PLACES[subject.number].rows_earlier
    return (_GRADED_ONCE[subject.number],) if is_opened else ()


def _uuid(number: int, key: bytes) -> str:
    """A version 4 uuid whose first 32 bits carry the number, scrambled by the key."""
    scrambled = (number * _UUID_FACTOR + _uuid_offset(key)) % 2**32
    tail = hashlib.blake2b(number.to_bytes(8), digest_size=12, key=key).digest()
    return str(uuid.UUID(bytes=scrambled.to_bytes(4) + tail, version=4))


def _number_in_uuid(text: str, key: bytes) -> int:
    """Undoes `_uuid`; any other uuid gives some number. ValueError if the text is no uuid."""
    return ((uuid.UUID(text).int >> 96) - _uuid_offset(key)) * _UUID_FACTOR_INVERSE % 2**32


@lru_cache(maxsize=64)
def _uuid_offset(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest())
