"""The checker: what must be true of a warehouse at any moment, whatever happened to it.

`violations` looks once; a `Watch` looks again and again and remembers, so that what moves back,
changes or disappears shows as well.  Both give what is wrong as sentences.  They read with the
owner's rights and trust nothing but the bytes in raw.page: pages are taken apart and settlements
are made from them anew, and compared.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from include.catchup.poll import Poll, place_of_listing
from include.catchup.position import Position, place_of
from include.catchup.sources import Source
from include.catchup.stream import Stream
from include.model import RecordContext, SettledAtBasis, Settlement, Status
from include.providers.errors import PageUndecodable
from include.providers.odds88 import BrokenMessage, PageEntry
from include.settings import Settings
from include.warehouse.tables import CANONICAL_COLUMNS, LEG_COLUMNS, SETTLEMENT_COLUMNS
from tests.hint_checker import hint_violations

_MADE_COLUMNS = [name for name in SETTLEMENT_COLUMNS if name != "source"]
_made, _canonical, _leg = (
    attrgetter(*columns) for columns in (_MADE_COLUMNS, CANONICAL_COLUMNS, LEG_COLUMNS)
)
# What a version is to its neighbours may change when one of them arrives; nothing else ever does.
_JUDGED_COLUMNS = {
    "is_current",
    "is_change",
    "is_correction",
    "chain_break",
    "is_contested",
    "is_rejected_by_decision",
}


class Stored(NamedTuple):
    """A landed record with its bytes, cut from its page here and not by the view."""

    record_id: int
    page_id: int
    batch_id: int
    record_key: str
    content_sha256: bytes
    payload: bytes
    context: RecordContext | None


class Raw(NamedTuple):
    """All that has arrived of a source: its pages by number, and the records in them."""

    pages: Mapping[int, Any]
    records: Sequence[Stored]


def violations(
    connection: Connection,
    source: Source,
    provider_keys: Iterable[str] | None = None,
    secrets: Iterable[str] = (),
    settings: Settings | None = None,
) -> list[str]:
    """Everything that is wrong with `source`.

    `provider_keys` are the keys of all records the provider shows; given only when the cursor is
    known to stand at the provider's end.  `secrets` may stand nowhere in the warehouse.
    """
    raw = _read_raw(connection, source)
    found = [
        *_raw_is_what_arrived(raw, source),
        *_pages_are_landed_whole(connection, raw, source),
        *_undecodable_pages_wait(connection, raw, source),
        *_batches_add_up(connection, source),
        *_gates_are_obeyed(connection, source),
        *_every_record_has_one_fate(connection, source),
        *_core_is_what_raw_says(connection, raw, source, settings or Settings()),
        *_totals_are_what_core_says(connection, source),
        *secrets_are_nowhere(connection, secrets),
        *hint_violations(connection),
    ]
    if isinstance(source.acquire, Poll):
        found += _no_bet_is_forgotten(connection, raw, source.acquire)
    if provider_keys is not None:
        found += _nothing_is_lost(raw, provider_keys)
    return found


@dataclass
class Watch:
    """The checker over a history of one source: what it has seen once must stay so."""

    source: Source
    secrets: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    _position: tuple[int, int] = (0, -1)
    _batches: dict[int, str] = field(default_factory=dict)
    _versions: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _records: set[int] = field(default_factory=set)

    def look(
        self,
        connection: Connection,
        shown: Sequence[str],
        attempts: Sequence[Mapping[str, Any]] = (),
        *,
        is_left_alone: bool = False,
    ) -> list[str]:
        """Everything that is wrong now, or in comparison with what was seen before.

        `shown` are the keys of all records that the provider shows, oldest first, none of which
        became visible late; of a stream, the texts of its messages, and `attempts` those to connect
        to it that the provider saw; of bets that are asked for, how each stands, as JSON.  If
        `is_left_alone`, a run that nobody disturbed has just ended well: then nothing may be
        missing or unfinished.
        """
        found = violations(connection, self.source, None, self.secrets, self.settings)
        if isinstance(self.source.acquire, Stream):
            found += _connections_are_allowed(connection, self.source, attempts)
        found += self._cursor_has_not_moved_back(connection, shown)
        found += self._nothing_is_unsaid(connection)
        if is_left_alone:
            found += _nothing_is_unfinished(connection, self.source)
            if isinstance(self.source.acquire, Stream):
                found += _everything_told_is_there(connection, self.source.acquire, shown)
            elif isinstance(self.source.acquire, Poll):
                found += _every_bet_is_followed(connection, shown)
            elif self._position[1] < len(shown) - 1:
                found.append(f"the cursor stops at place {self._position[1]} of {len(shown)}")
        return found

    def _cursor_has_not_moved_back(
        self, connection: Connection, shown: Sequence[str]
    ) -> Iterator[str]:
        cursor = connection.execute(
            text("SELECT * FROM ops.cursor WHERE source = :source AND feed = :feed"),
            {"source": self.source.name, "feed": self.source.feed},
        ).first()
        revision, place = (0, -1)
        if cursor is not None:
            revision, place = cursor.revision, self._place(cursor.position, shown)
        if not isinstance(self.source.acquire, Stream | Poll):
            yield from _nothing_is_passed(connection, self.source, shown, place)
        elif isinstance(self.source.acquire, Stream) and cursor is not None:
            yield from _nothing_told_is_passed(
                connection, self.source.acquire, shown, Position.from_json(cursor.position)
            )
        if place < self._position[1] or revision < self._position[0]:
            yield (
                f"the cursor moved back from (revision, place) {self._position} to "
                f"{(revision, place)}"
            )
        self._position = (revision, place)

    def _place(self, position: dict[str, Any], shown: Sequence[str]) -> int:
        """A number that grows with the position: the place of its entry, or a time in seconds."""
        if isinstance(self.source.acquire, Stream):
            return int(place_of(position) or -1)
        if isinstance(self.source.acquire, Poll):
            return int(place_of_listing(position) or -1)
        since_id = position.get("since_id")
        return shown.index(since_id) if since_id else -1

    def _nothing_is_unsaid(self, connection: Connection) -> Iterator[str]:
        this = {"source": self.source.name}
        rows = connection.execute(
            text("SELECT * FROM core.settlement WHERE source = :source"), this
        )
        lasting = itemgetter(
            *(n for n, key in enumerate(rows.keys()) if key not in _JUDGED_COLUMNS)
        )
        versions = {row.record_id: lasting(row) for row in rows}
        for record_id, version in self._versions.items():
            if versions.get(record_id) != version:
                yield f"the version of record {record_id} is not in core as it was"
        records = set(
            connection.scalars(
                text("SELECT record_id FROM raw.record WHERE source = :source"), this
            )
        )
        if gone := self._records - records:
            yield f"{len(gone)} records have gone from raw, such as {min(gone)}"
        states = {
            row.batch_id: row.state
            for row in connection.execute(
                text("SELECT batch_id, state FROM ops.batch WHERE source = :source"), this
            )
        }
        for batch_id, state in self._batches.items():
            if state in ("published", "discarded") and states.get(batch_id) != state:
                yield f"batch {batch_id} was {state} and is {states.get(batch_id)}"
        self._versions, self._records, self._batches = versions, records, states


def _everything_told_is_there(
    connection: Connection, stream: Stream, shown: Sequence[str]
) -> Iterator[str]:
    """Every message of the stream is in raw, as its text."""
    missing = _missing(connection, _told(stream, shown))
    if missing:
        yield f"{len(missing)} of {len(shown)} messages are not in raw, such as {missing[0]}"


def _nothing_told_is_passed(
    connection: Connection, stream: Stream, shown: Sequence[str], position: Position
) -> Iterator[str]:
    """What was sent before the message that the position was taken from is in raw."""
    if position.safe_point is None:
        return
    told = _told(stream, shown)
    reached = (
        number
        for number, one in enumerate(told, start=1)
        if isinstance(one, PageEntry)
        and one.settlement_time is not None
        and one.settlement_time >= position.safe_point
    )
    if missing := _missing(connection, told[: next(reached, len(told))]):
        yield (
            f"the position has passed {len(missing)} messages that are not in raw, such as "
            f"{missing[0]}"
        )


def _told(stream: Stream, shown: Sequence[str]) -> list[PageEntry | BrokenMessage]:
    """The messages of a stream, taken apart; pings are none."""
    told = [_read_message(stream.read_message, message) for message in shown]
    return [one for one in told if isinstance(one, PageEntry | BrokenMessage)]


@cache
def _read_message(read: Callable[[bytes], Any], message: str) -> Any:
    """What it is by its text, whoever looks how often."""
    return read(message.encode()).content


def _missing(connection: Connection, told: Iterable[PageEntry | BrokenMessage]) -> list[str]:
    landed = set(connection.scalars(text("SELECT encode(content_sha256, 'hex') FROM raw.record")))
    return [one.record.record_key for one in told if one.content_sha256.hex() not in landed]


def _no_bet_is_forgotten(connection: Connection, raw: Raw, poll: Poll) -> Iterator[str]:
    """Every bet that was told is in the register, and open there unless its last text is final."""
    bets = {row.tote_id: row for row in connection.execute(text("SELECT * FROM tote.bet"))}
    # Other keys have a sign in them that no id has.
    last: dict[str, Stored] = {}
    for one in raw.records:
        if not one.record_key.isalnum() or one.context is None:
            continue
        before = last.get(one.record_key)
        if before is None or _seen_at(before) <= _seen_at(one):
            is_repeated = before and before.payload == one.payload
            if before and is_repeated and raw.pages[before.page_id].state != "discarded":
                yield f"bet {one.record_key} is landed twice in a row with the same text"
            last[one.record_key] = one
    if unknown := last.keys() - bets.keys():
        yield f"{len(unknown)} bets are in raw but not in the register, such as {min(unknown)}"
    for tote_id, row in bets.items():
        if tote_id not in last and row.absent_since is not None:
            # Nobody knows it, and a person may give it up.
            continue
        told = poll.standing(last[tote_id].payload) if tote_id in last else None
        if row.state != "open" and not (told and told.is_final):
            yield f"bet {tote_id} is {row.state} in the register, but was told otherwise"


def _every_bet_is_followed(connection: Connection, shown: Sequence[str]) -> Iterator[str]:
    """Every bet is in the register, none is due, and those that are open there are just so."""
    bets = {row.tote_id: row for row in connection.execute(text("SELECT * FROM tote.bet"))}
    due = connection.scalar(text("SELECT count(*) FROM tote.bet WHERE next_ask_at <= now()"))
    if due:
        yield f"{due} bets are still due after a whole run"
    for bet in map(json.loads, shown):
        row = bets.get(bet["tote_id"])
        if row is None:
            yield f"bet {bet['tote_id']} is not in the register"
            continue
        words = {name: (getattr(row, name), bet[name]) for name in _WORDS_OF_A_BET}
        if row.state == "open" and any(ours != theirs for ours, theirs in words.values()):
            yield f"bet {row.tote_id} is open in the register, but stands otherwise: {words}"


_WORDS_OF_A_BET = ("placement", "resulting", "settlement")

# What the provider calls a connection, by our word for its budget; one that asks for what is too
# old is in none.
_KINDS = {"proper": "proper", "without": "without_revision"}


def _connections_are_allowed(
    connection: Connection, source: Source, attempts: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Each was written down before it was begun, none is one too many, and no two are at a time."""
    stream = source.acquire
    assert isinstance(stream, Stream)
    rows = connection.execute(
        text("SELECT * FROM ops.connect_attempt WHERE source = :source ORDER BY attempted_at"),
        {"source": source.name},
    ).all()
    begun = Counter((_KINDS.get(each["kind"]), each["revision"]) for each in attempts)
    written = Counter((row.kind, str(row.revision)) for row in rows)
    if unwritten := begun - written:
        yield f"{unwritten.total()} connections are not written down, such as {min(unwritten)}"
    for budget in (stream.proper, stream.without_revision):
        attempted_at = [row.attempted_at for row in rows if row.kind == budget.kind]
        for first, last in zip(attempted_at, attempted_at[budget.attempts :], strict=False):
            if last - first <= budget.window:
                yield f"{budget.attempts} {budget.kind} connections were not enough until {last}"
    for each in attempts:
        if each["violation"]:
            yield f"connection {each['number']} has broken the rule {each['violation']}"


def _nothing_is_passed(
    connection: Connection, source: Source, shown: Sequence[str], place: int
) -> Iterator[str]:
    """What the provider shows up to the cursor is in raw, but for what is known as a gap."""
    this = {"source": source.name}
    landed = set(
        connection.scalars(text("SELECT record_key FROM raw.record WHERE source = :source"), this)
    )
    for gap in connection.execute(text("SELECT * FROM ops.gap WHERE source = :source"), this):
        after = shown.index(gap.range_after) + 1 if gap.range_after else 0
        # An entry that a decision named to go on after was perhaps never read itself.
        landed.update(shown[after : shown.index(gap.range_before) + 1])
    if passed := [key for key in shown[: place + 1] if key not in landed]:
        yield (
            f"the cursor has passed {len(passed)} records that are not in raw, such as {passed[0]}"
        )


# --- raw ----------------------------------------------------------------------------------------


def _read_raw(connection: Connection, source: Source) -> Raw:
    this = {"source": source.name}
    pages = {
        row.page_id: row
        for row in connection.execute(
            text(
                "SELECT page.*, batch.kind, batch.state"
                " FROM raw.page LEFT JOIN ops.batch USING (batch_id)"
                " WHERE page.source = :source AND batch.kind IS DISTINCT FROM 'evidence'"
            ),
            this,
        )
    }
    bodies = {page_id: bytes(page.body) for page_id, page in pages.items()}
    contexts = {page_id: RecordContext(page.received_at) for page_id, page in pages.items()}
    # Of a month that was detached, nothing but the records' keys is left to be checked.
    records = [
        Stored(
            row.record_id,
            row.page_id,
            row.batch_id,
            row.record_key,
            bytes(row.content_sha256),
            bodies.get(row.page_id, b"")[row.byte_start : row.byte_start + row.byte_length],
            contexts.get(row.page_id),
        )
        for row in connection.execute(
            text(
                "SELECT record.* FROM raw.record LEFT JOIN ops.batch USING (batch_id)"
                " WHERE record.source = :source AND batch.kind IS DISTINCT FROM 'evidence'"
                " ORDER BY record_id"
            ),
            this,
        )
    ]
    return Raw(pages, records)


def _nothing_is_lost(raw: Raw, provider_keys: Iterable[str]) -> Iterator[str]:
    landed = {record.record_key for record in raw.records}
    expected = set(provider_keys)
    if missing := expected - landed:
        yield f"{len(missing)} records of the provider are not in raw, such as {min(missing)}"
    if invented := landed - expected:
        yield f"{len(invented)} records in raw are not the provider's, such as {min(invented)}"


def _raw_is_what_arrived(raw: Raw, source: Source) -> Iterator[str]:
    seen = set()
    for record in raw.records:
        if record.context is None:
            continue
        if sha256(record.payload).digest() != record.content_sha256:
            yield f"record {record.record_id} is not the text that its digest was taken of"
        if record.batch_id != raw.pages[record.page_id].batch_id:
            yield f"record {record.record_id} is in another batch than its page"
        identity = (record.record_key, record.content_sha256)
        if source.dedupe in ("anywhere", "texts") and identity in seen:
            yield f"record {record.record_key} is landed twice with the same text"
        seen.add(identity)


def _seen_at(record: Stored) -> datetime:
    assert record.context is not None
    return record.context.received_at


def _pages_are_landed_whole(connection: Connection, raw: Raw, source: Source) -> Iterator[str]:
    """Every record in the bytes of a stored page is in raw; a fill takes only unknown keys."""
    known: dict[str, set[bytes]] = defaultdict(set)
    for record in raw.records:
        known[record.record_key].add(record.content_sha256)
    stored: Counter[int] = Counter()
    for page in raw.pages.values():
        stored[page.batch_id] += 1
        if page.undecodable_reason is not None:
            continue
        try:
            entries = _entries(source, page)
        except PageUndecodable as error:
            yield f"page {page.page_id} cannot be decoded ({error.reason}), and does not say so"
            continue
        if page.record_count != len(entries):
            yield f"page {page.page_id} counts {page.record_count} records, but has {len(entries)}"
        for entry in entries:
            digests = known[entry.record.record_key]
            if entry.content_sha256 not in digests and not (page.kind == "fill" and digests):
                yield f"record {entry.record.record_key} of page {page.page_id} is not in raw"
    counted = connection.execute(
        text(
            "SELECT batch_id, pages_stored FROM ops.batch"
            " WHERE source = :source AND kind <> 'evidence'"
        ),
        {"source": source.name},
    )
    for batch in counted:
        if batch.pages_stored != stored.pop(batch.batch_id, 0):
            yield f"batch {batch.batch_id} counts {batch.pages_stored} pages, but has others"
    if stored:
        yield f"pages are stored for the batches {sorted(stored)}, which do not exist"


def _entries(source: Source, page: Any) -> Sequence[Any]:
    """The records in a page, taken apart anew; raises `PageUndecodable`."""
    body = bytes(page.body)
    if not isinstance(source.acquire, Stream):
        return source.acquire.read_page(body).entries
    if page.record_count == 1:
        # It may hold line breaks.
        return [source.acquire.read_message(body).content]
    read = source.acquire.read_page(body)
    return [*read.entries, *read.broken]


def _undecodable_pages_wait(connection: Connection, raw: Raw, source: Source) -> Iterator[str]:
    """The cursor stands still before an undecodable page until a person has decided about it."""
    pages = [page for page in raw.pages.values() if page.undecodable_reason is not None]
    if not pages:
        return
    this = {"source": source.name, "feed": source.feed}
    is_waiting = connection.scalar(
        text(
            "SELECT EXISTS (SELECT FROM ops.cursor JOIN ops.finding"
            " ON finding.finding_id = cursor.stopped_by_finding_id"
            " WHERE cursor.source = :source AND cursor.feed = :feed AND finding.state = 'open')"
        ),
        this,
    )
    decided_at = connection.scalar(
        text(
            "SELECT max(closed_at) FROM ops.finding WHERE source = :source"
            " AND kind IN ('undecodable_page', 'undecodable_answer') AND closed_by = 'decision'"
        ),
        this,
    )
    for page in pages:
        if not is_waiting and not (decided_at and decided_at > page.received_at):
            yield f"page {page.page_id} is undecodable, and the feed does not wait for a decision"


# --- batches ------------------------------------------------------------------------------------

_BATCHES = """
SELECT
    batch.*,
    coalesce(raw.landed, 0) AS in_raw,
    coalesce(core.stored, 0) AS in_core,
    coalesce(core.applied, 0) AS applied,
    coalesce(staged.rows, 0) AS staged,
    coalesce(quarantined.held_back, 0) AS held_back,
    coalesce(replayed.records, 0) AS replays,
    (SELECT count(*) FROM ops.finding WHERE finding.batch_id = batch.batch_id
     AND kind = 'batch_held' AND finding.state = 'open') AS questions
FROM ops.batch
LEFT JOIN (SELECT batch_id, count(*) AS landed FROM raw.record GROUP BY 1) AS raw
    USING (batch_id)
LEFT JOIN (SELECT batch_id, count(*) AS stored, count(*) FILTER (WHERE is_applied) AS applied
    FROM core.settlement GROUP BY 1) AS core USING (batch_id)
LEFT JOIN (SELECT batch_id, count(*) AS rows FROM staging.settlement GROUP BY 1) AS staged
    USING (batch_id)
LEFT JOIN (SELECT batch_id, count(*) AS held_back FROM ops.quarantine
    WHERE state <> 'retried' GROUP BY 1) AS quarantined USING (batch_id)
LEFT JOIN (SELECT replay_batch_id AS batch_id, count(*) AS records FROM ops.quarantine
    GROUP BY 1) AS replayed USING (batch_id)
WHERE batch.source = :source
ORDER BY batch_id
"""


def _batches_add_up(connection: Connection, source: Source) -> Iterator[str]:
    for batch in connection.execute(text(_BATCHES), {"source": source.name}):
        name = f"batch {batch.batch_id}"
        if batch.received != batch.landed + batch.duplicates + batch.undecodable:
            yield f"{name} received {batch.received} records, which is not what became of them"
        own = batch.replays if batch.kind == "replay" else batch.in_raw
        if batch.landed != own:
            yield f"{name} counts {batch.landed} landed records, but has {own}"
        if batch.questions != (batch.state == "held"):
            yield f"{name} is {batch.state}, and {batch.questions} findings say that it is held"
        if batch.state == "published":
            yield from _published_adds_up(name, batch)
        elif batch.in_core:
            yield f"{name} is {batch.state}, but has {batch.in_core} rows in core"


def _published_adds_up(name: str, batch: Any) -> Iterator[str]:
    told = (batch.published, batch.not_applied)
    if told != (batch.applied, batch.in_core - batch.applied):
        yield (
            f"{name} counts {told} published and not applied rows, but core has "
            f"{batch.in_core} of it, {batch.applied} applied"
        )
    if batch.staged:
        yield f"{name} is published and still has {batch.staged} staged rows"
    if batch.quarantined != batch.held_back:
        yield f"{name} counts {batch.quarantined} quarantined, but has {batch.held_back}"
    if batch.landed != sum(told) + batch.evidence_only + batch.quarantined:
        yield f"{name} landed {batch.landed} records, which is not what became of them"


def _gates_are_obeyed(connection: Connection, source: Source) -> Iterator[str]:
    """What is published met every critical rule when it was last asked, or was released."""
    unmet = connection.execute(
        text(
            "SELECT DISTINCT ON (batch_id, gate, expectation) batch_id, expectation, is_met"
            " FROM ops.quality_result JOIN ops.batch USING (batch_id)"
            " WHERE source = :source AND severity = 'critical' AND batch.state = 'published'"
            " AND NOT is_released ORDER BY batch_id, gate, expectation, quality_result_id DESC"
        ),
        {"source": source.name},
    )
    for result in unmet:
        if not result.is_met:
            yield f"batch {result.batch_id} is published, but does not meet {result.expectation}"


def _nothing_is_unfinished(connection: Connection, source: Source) -> Iterator[str]:
    unfinished = connection.execute(
        text(
            "SELECT batch_id, state FROM ops.batch WHERE source = :source"
            " AND state IN ('landing', 'landed', 'normalized') ORDER BY batch_id"
        ),
        {"source": source.name},
    )
    for batch in unfinished:
        yield f"batch {batch.batch_id} is still {batch.state} after a whole run"


_FATES = """
WITH fate AS (
    SELECT record_id FROM core.settlement
    UNION ALL
    SELECT record_id FROM ops.quarantine WHERE state IN ('open', 'discarded')
),
waiting AS (
    SELECT record_id FROM ops.quarantine JOIN ops.batch
        ON batch.batch_id = quarantine.replay_batch_id
    WHERE batch.state <> 'published'
)
SELECT record.record_id, count(fate.record_id) AS fates
FROM raw.record
JOIN ops.batch USING (batch_id)
LEFT JOIN fate USING (record_id)
WHERE record.source = :source AND batch.state = 'published' AND batch.kind <> 'evidence'
    AND record_id NOT IN (SELECT record_id FROM waiting)
GROUP BY 1
HAVING count(fate.record_id) <> 1
ORDER BY 1
"""


def _every_record_has_one_fate(connection: Connection, source: Source) -> Iterator[str]:
    for row in connection.execute(text(_FATES), {"source": source.name}):
        yield f"record {row.record_id} of a published batch has {row.fates} fates"


# --- core ---------------------------------------------------------------------------------------


def _core_is_what_raw_says(
    connection: Connection, raw: Raw, source: Source, settings: Settings
) -> Iterator[str]:
    """Normalizing every published record anew gives core, and its order gives what is current."""
    normalize = source.normalizer(settings)
    this = {"source": source.name}
    stored = {
        row.record_id: row
        for row in connection.execute(
            text("SELECT * FROM core.settlement WHERE source = :source"), this
        )
    }
    yield from _versions_count_on(stored.values())
    legs = _legs(connection)
    by_subject: dict[str, list[tuple[str, int, Settlement]]] = defaultdict(list)
    rejected: dict[str, list[tuple[str, int, Settlement]]] = defaultdict(list)
    for record in raw.records:
        version = stored.get(record.record_id)
        if version is None or record.context is None:
            continue
        made = normalize(record.payload, record.context)
        yield from _version_is_made(made, version, legs)
        known = rejected if version.is_rejected_by_decision else by_subject
        known[made.source_key].append((made.provider_order, record.record_id, made))
    if invented := stored.keys() - {record.record_id for record in raw.records}:
        yield f"{len(invented)} versions in core have no record in raw, such as {min(invented)}"
    yield from _neighbours_agree(stored, by_subject, rejected)
    yield from _the_newest_is_current(stored.values(), by_subject)


def _version_is_made(
    made: Settlement, version: Any, legs: Mapping[int, list[tuple[Any, ...]]]
) -> Iterator[str]:
    if _made(made) != _made(version):
        for column in _MADE_COLUMNS:
            if getattr(made, column) != getattr(version, column):
                yield (
                    f"record {version.record_id}: {column} is {getattr(version, column)!r} in "
                    f"core, but raw says {getattr(made, column)!r}"
                )
    told = list(map(_leg, made.legs))
    if legs.get(version.record_id, []) != told:
        yield f"record {version.record_id} has other legs in core than in raw"
    if version.accounting_date != version.recorded_at.date():
        yield f"record {version.record_id} is booked on {version.accounting_date}, not when it came"


def _legs(connection: Connection) -> dict[int, list[tuple[Any, ...]]]:
    legs: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    columns = ", ".join(LEG_COLUMNS)
    for record_id, *leg in connection.execute(
        text(
            f"SELECT record_id, {columns} FROM core.settlement_leg"
            " ORDER BY record_id, leg_number, part_number"
        )
    ):
        legs[record_id].append(tuple(leg))
    return legs


def _the_newest_is_current(
    stored: Iterable[Any], by_subject: Mapping[str, list[tuple[str, int, Settlement]]]
) -> Iterator[str]:
    current = sorted((row.source_key, row.record_id) for row in stored if row.is_current)
    newest = sorted((key, _last_news(versions)) for key, versions in by_subject.items())
    if current != newest:
        differing = sorted({key for key, _ in set(current).symmetric_difference(newest)})
        yield f"{len(differing)} subjects have another current version, such as {differing[0]}"


def _last_news(versions: Iterable[tuple[str, int, Settlement]]) -> int:
    """The record of the last version; of equal ones that we observed, the first."""
    last = 0
    before: tuple[Any, ...] | None = None
    for _, record_id, made in sorted(versions, key=lambda version: version[:2]):
        is_observed = made.settled_at_basis is SettledAtBasis.OBSERVED
        told = _canonical(made)
        if not (is_observed and told == before):
            last = record_id
        before = told
    return last


def _versions_count_on(stored: Iterable[Any]) -> Iterator[str]:
    """Versions count on without a hole, each applied unless one before it is as far or further."""
    by_subject: dict[str, list[Any]] = defaultdict(list)
    for row in sorted(stored, key=lambda row: row.version):
        by_subject[row.source_key].append(row)
    for key, versions in by_subject.items():
        if [row.version for row in versions] != list(range(1, len(versions) + 1)):
            yield f"{key} has the versions {[row.version for row in versions]}"
        furthest = ""
        for row in versions:
            if row.is_applied != (row.provider_order > furthest):
                yield f"{key}: is_applied of version {row.version} is {row.is_applied}"
            furthest = max(furthest, row.provider_order)


def _neighbours_agree(
    stored: Mapping[int, Any],
    by_subject: Mapping[str, list[tuple[str, int, Settlement]]],
    rejected: Mapping[str, list[tuple[str, int, Settlement]]],
) -> Iterator[str]:
    for key, versions in by_subject.items():
        before: Settlement | None = None
        in_order = sorted(versions, key=lambda version: version[:2])
        came_first: dict[str, Settlement] = {}
        for order, record_id, made in in_order:
            followed = [earlier for place, _, earlier in in_order if place < order]
            if order not in came_first:
                # What contradicts the one before it changes nothing before it is chosen.
                before = came_first[max(came_first)] if came_first else None
                came_first[order] = made
                over = [other for other in rejected.get(key, ()) if other[:2] < (order, record_id)]
                if before is None and (here := [other for other in over if other[0] == order]):
                    # It was chosen, and corrects what finance had seen before.
                    before = min(here)[2]
            is_change = before is not None and _canonical(before) != _canonical(made)
            rivals = {_canonical(rival) for place, _, rival in versions if place == order}
            judged = {
                "chain_break": _chain_break(made, followed[-1] if followed else None),
                "is_change": is_change,
                "is_correction": is_change and before is not None and before.status != Status.OPEN,
                "is_contested": len(rivals) > 1,
            }
            for column, value in judged.items():
                if getattr(stored[record_id], column) != value:
                    yield f"{key}: {column} of record {record_id} should be {value}"
            before = made


def _chain_break(made: Settlement, followed: Settlement | None) -> str | None:
    claimed = made.previous_status
    if followed is None:
        is_later = made.is_resettlement or claimed not in (None, Status.OPEN)
        return "original_missing" if is_later else None
    return "status_differs" if claimed not in (None, followed.status) else None


# --- credits ------------------------------------------------------------------------------------


def credit_violations(connection: Connection, *, is_left_alone: bool = True) -> Iterator[str]:
    """Everything that is wrong with the credits of markets.

    If `is_left_alone`, a run that nobody disturbed has just ended: then nothing may be uncredited,
    or told otherwise without a credit or an adjustment that says so.
    """
    yield from _credits_are_made_once(connection)
    yield from _credits_and_payouts_agree(connection)
    if is_left_alone:
        yield from _completed_is_credited(connection)
        yield from _completed_adds_up(connection)


def _credits_are_made_once(connection: Connection) -> Iterator[str]:
    """One a settlement and one a position, each of what the version says that is its evidence."""
    for columns in ("settlement_id", "market_id, position_id"):
        doubled = connection.execute(
            text(f"SELECT {columns} FROM prediction.credit GROUP BY {columns} HAVING count(*) > 1")
        )
        yield from (f"{tuple(row)} is credited more than once" for row in doubled)
    for row in connection.execute(text(_CREDIT_EVIDENCE)):
        told = (row.market_id, row.position_id, row.player_id, row.currency, row.amount)
        said = (row.told_market, row.told_position, row.told_player, row.told_currency, row.says)
        if told != said:
            yield f"credit {row.credit_id} is {told}, but its evidence says {said}"


_SAYS = "CASE WHEN told.status = 'settled' THEN coalesce(told.payout, 0) ELSE 0 END"
_CREDIT_EVIDENCE = f"""
SELECT
    credit.*, told.market_id AS told_market, told.position_id AS told_position,
    told.player_id AS told_player, told.currency AS told_currency, {_SAYS} AS says
FROM prediction.credit
LEFT JOIN core.settlement AS told
    ON told.record_id = credit.record_id AND told.source_key = settlement_id
"""


def _credits_and_payouts_agree(connection: Connection) -> Iterator[str]:
    """A credit that is in the outbox is there as it is, and nothing else is there in its name."""
    for row in connection.execute(text(_CREDITS_AND_PAYOUTS)):
        name = f"credit {row.credit_id} of {row.settlement_id or row.origin_key}"
        if row.entered_id is None:
            yield f"{name} is {row.state}, and not in the outbox"
        elif row.credit_id is None:
            yield f"{row.entered_id} is in the outbox, and no credit"
        else:
            credited = (row.settlement_id, row.player_id, row.currency, row.amount.scaleb(5))
            entered = (row.origin_key, row.paid_player, row.paid_currency, row.paid)
            if credited != entered or row.entered_id != f"prediction:{row.settlement_id}":
                yield f"{name} is {credited}, but in the outbox as {entered}"
            if row.disposition == "lost":
                yield f"{name} is lost"
            is_paid_otherwise = row.disposition == "processed" and row.paid_otherwise is not None
            if (row.state == "acknowledged") != is_paid_otherwise:
                yield f"{name} is {row.state}, and its payout {row.disposition}: {row.evidence}"


_CREDITS_AND_PAYOUTS = """
SELECT
    credit.*, payout.transaction_id AS entered_id, origin_key, payout.player_id AS paid_player,
    payout.currency AS paid_currency, payout.amount AS paid, disposition, evidence,
    evidence ->> 'paid_otherwise' AS paid_otherwise
FROM (SELECT * FROM prediction.credit WHERE transaction_id IS NOT NULL) AS credit
FULL JOIN (SELECT * FROM wallet.transaction WHERE origin_source = 'prediction') AS payout
    USING (transaction_id)
"""


def _completed_is_credited(connection: Connection) -> Iterator[str]:
    """What pays is credited, but for a position that several settlements complete."""
    for row in connection.execute(text(_COMPLETED)):
        if row.credit_id is None and row.says and not row.is_doubled:
            yield f"settlement {row.source_key} pays {row.says}, and is not credited"
        if row.credit_id is not None and row.booked != row.owes:
            yield f"settlement {row.source_key} pays {row.owes}, but {row.booked} is credited"


# Contested settlements, and those of a market that is held, say nothing before it is decided.
_COMPLETED = f"""
SELECT
    told.source_key, {_SAYS} AS says, credit.credit_id,
    coalesce(credit.currency, told.currency) AS currency,
    credit.amount + coalesce(adjusted.difference, 0) AS booked,
    CASE WHEN (told.player_id, told.currency)
        IS NOT DISTINCT FROM (credit.player_id, credit.currency) THEN {_SAYS} ELSE 0 END AS owes,
    EXISTS (
        SELECT
        FROM core.settlement AS rival
        WHERE rival.source = 'prediction' AND rival.is_current
            AND rival.source_key <> told.source_key
            AND (rival.market_id, rival.position_id) = (told.market_id, told.position_id)
            AND rival.status = 'settled'
    ) OR EXISTS (
        SELECT
        FROM prediction.credit AS other
        WHERE (other.market_id, other.position_id) = (told.market_id, told.position_id)
            AND other.settlement_id <> told.source_key
    ) AS is_doubled
FROM core.settlement AS told
JOIN prediction.market USING (market_id)
LEFT JOIN prediction.credit ON credit.settlement_id = told.source_key
LEFT JOIN (
    SELECT credit_id, sum(difference) AS difference FROM prediction.adjustment GROUP BY 1
) AS adjusted USING (credit_id)
WHERE told.source = 'prediction' AND told.is_current AND NOT told.is_contested
    AND NOT EXISTS (
        SELECT FROM prediction.held_market AS held WHERE held.market_id = told.market_id
    )
"""


def _completed_adds_up(connection: Connection) -> Iterator[str]:
    """Completed = credited, in whichever state, + adjusted, by currency."""
    sums = f"""
        SELECT
            coalesce(currency, '-') AS currency,
            sum(CASE WHEN credit_id IS NULL THEN says ELSE owes END) AS completed,
            sum(coalesce(booked, 0)) AS booked
        FROM ({_COMPLETED}) AS told
        WHERE credit_id IS NOT NULL OR NOT is_doubled
        GROUP BY 1
    """
    for row in connection.execute(text(sums)):
        if row.completed != row.booked:
            yield f"{row.completed} {row.currency} are completed, and {row.booked} credited"


# --- everywhere ---------------------------------------------------------------------------------


# What finance is shown by day, counted anew from the versions that it is made of.
_TOTALS_ANEW = {
    "core.daily_settlement": """
        SELECT settled_at::date, status, outcome, currency, count(*),
            coalesce(sum(stake), 0), coalesce(sum(payout), 0), count(stake), count(payout)
        FROM core.settlement
        WHERE source = :source AND is_current AND NOT is_contested
        GROUP BY 1, 2, 3, 4
    """,
    "core.daily_recording": """
        SELECT accounting_date, count(*),
            count(*) FILTER (WHERE is_correction AND NOT is_contested),
            count(*) FILTER (WHERE not_applied_reason = 'late'),
            count(*) FILTER (WHERE is_contested)
        FROM core.settlement
        WHERE source = :source
        GROUP BY 1
    """,
}
_TOTALS = {
    "core.daily_settlement": """
        SELECT settled_date, status, outcome, currency, settlements, stake, payout, stakes, payouts
        FROM core.daily_settlement
        WHERE source = :source
            AND (settlements, stake, payout, stakes, payouts) <> (0, 0, 0, 0, 0)
    """,
    "core.daily_recording": """
        SELECT accounting_date, versions, corrections, late_versions, contested_versions
        FROM core.daily_recording
        WHERE source = :source
    """,
}


def _totals_are_what_core_says(connection: Connection, source: Source) -> Iterator[str]:
    for table, anew in _TOTALS_ANEW.items():
        this = {"source": source.name}
        counted = {tuple(row) for row in connection.execute(text(anew), this)}
        kept = {tuple(row) for row in connection.execute(text(_TOTALS[table]), this)}
        if counted != kept:
            differing = sorted(map(str, counted ^ kept))
            yield f"{table} is not what core says: {differing[0]} (and {len(differing) - 1} more)"


def secrets_are_nowhere(connection: Connection, secrets: Iterable[str]) -> Iterator[str]:
    """No row of any table of ours holds a secret, in whichever column."""
    secrets = list(secrets)
    if not secrets:
        return
    tables = connection.scalars(
        text(
            "SELECT CAST(oid AS regclass)::text FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND NOT relispartition AND relnamespace IN (SELECT oid FROM pg_namespace"
            " WHERE nspname IN ('raw', 'staging', 'core', 'ops', 'wallet', 'tote', 'prediction'))"
            " ORDER BY 1"
        )
    ).all()
    # OFFSET 0: each row is written out once, and not once for each secret.
    telling = connection.scalars(
        text(
            "WITH secret AS (SELECT unnest(CAST(:secrets AS text[])) AS secret) "
            + " UNION ALL ".join(
                f"SELECT '{table}' WHERE EXISTS (SELECT FROM ("
                f"SELECT CAST(each AS text) AS written FROM {table} AS each OFFSET 0"
                ") AS one, secret WHERE strpos(written, secret) > 0)"
                for table in tables
            )
        ),
        {"secrets": secrets},
    )
    for table in telling:
        yield f"a secret stands in {table}"
