"""Whether what a prediction engine tells of one market adds up: pure, over a complete listing.

A market whose listing has a difference that holds it credits nobody before a person has released
it.  Sums and counts take the latest settlement of each position, as the engine's own counts do: a
failed one that a retry has replaced no longer counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from operator import attrgetter

from include.providers.prediction import MarketStatus, RecordStatus, SettlementRecord, SettleTotals

# Of two amounts the product has at most 100 digits; of any number of them the sum not many more.
_EXACT = Context(prec=140, traps=[Inexact, InvalidOperation])
_SHOWN = 3
_FINAL = frozenset({RecordStatus.COMPLETED, RecordStatus.FAILED})
_amounts = attrgetter("shares", "payout_per_share", "total_payout")


class Check(StrEnum):
    """What is compared."""

    ANSWERED_COUNTS = "answered_counts"
    """Of an answer to settle or retry: totalPositions = successCount + failedCount, and the status
    takes back none of them."""
    STATUS_COUNTS = "status_counts"
    """The four counts of the status add up to totalPositions, and are those of the listing."""
    TOTAL_PAYOUT = "total_payout"
    """The listed payouts add up to the status's totalPayout, and an answer that completed all its
    positions told no other payouts."""
    COMPLETED_PAYOUT = "completed_payout"
    """The listed payouts that are COMPLETED add up to the status's completedPayout; and so do, in
    number too, those that count once the list is published."""
    PRODUCT = "product"
    """totalPayout is shares times payoutPerShare, exactly."""
    SHARE_RANGE = "share_range"
    """payoutPerShare is 0 to 1."""
    SHARE_FRACTION = "share_fraction"
    """payoutPerShare is 0 or 1; anything between is worth a look, and holds nothing."""
    OWNER = "owner"
    """Every settlement is of this market and of the operator that the settings name."""
    UNIQUE_IDS = "unique_ids"
    """No settlement is listed twice."""
    POSITIONS = "positions"
    """A position is completed at most once, and nothing comes behind its completion."""
    CONTESTED = "contested"
    """No settlement is told with other amounts than before, none completed is undone or not listed
    any more, and none is completed too early to count."""


@dataclass(frozen=True)
class Difference:
    """What does not add up, in one sentence with the numbers on both sides.

    `is_holding` says whether the market credits nobody because of it.
    """

    check: Check
    sentence: str
    is_holding: bool = True


@dataclass(frozen=True)
class Answered:
    """What an answer to a call (`settle`, `retry-settlements`) told: totals and settlements."""

    call: str
    totals: SettleTotals
    settlements: Sequence[SettlementRecord] = ()


@dataclass(frozen=True)
class Listing:
    """All that was told of one market: its status, its complete list, and what came before.

    `operator_id` is the setting's, `answers` those to settle and retry, and `earlier` settlements
    published before this list.  Status and list must have been read while nothing was under way
    between them; otherwise they may differ though both are right.  `is_answered_whole` says that
    the answer is that to the only order there was: it then told of all positions.
    """

    market_id: str
    operator_id: str | None
    status: MarketStatus
    settlements: Sequence[SettlementRecord]
    answers: Sequence[Answered] = ()
    earlier: Sequence[SettlementRecord] = ()
    is_answered_whole: bool = False


def differences(listing: Listing) -> list[Difference]:
    """Everything that does not add up, in the order of `Check`; empty if all does."""
    latest = latest_of_positions(listing.settlements)
    return [
        *_answered_counts(listing),
        *_status_counts(listing.status, latest),
        *_payouts(listing.status, latest),
        *_answered_payouts(listing),
        *_products(listing.settlements),
        *_shares(listing.settlements),
        *_owners(listing),
        *_repeated_ids(listing.settlements),
        *_positions(listing.settlements, latest),
        *_contested(listing),
        *_unlisted(listing),
        *_outdated(listing),
    ]


def latest_of_positions(settlements: Iterable[SettlementRecord]) -> dict[str, SettlementRecord]:
    """The settlement of each position that was updated last.

    Of equal times the one created later counts, then the one that has come further.
    """
    latest: dict[str, SettlementRecord] = {}
    for one in settlements:
        known = latest.get(one.position_id)
        if known is None or _age(one) > _age(known):
            latest[one.position_id] = one
    return latest


_PROGRESS = {
    RecordStatus.FAILED: 0,
    RecordStatus.PENDING: 1,
    RecordStatus.PROCESSING: 2,
    RecordStatus.COMPLETED: 3,
}


def _age(one: SettlementRecord) -> tuple[object, ...]:
    # Ids only make the choice independent of the order of the list.
    return one.updated_at, one.created_at, _PROGRESS[one.status], one.id


def _answered_counts(listing: Listing) -> Iterator[Difference]:
    status = listing.status
    for answer in listing.answers:
        told = answer.totals
        # An engine that settles slowly answers before its positions are either.
        under_way = sum(one.status not in _FINAL for one in answer.settlements)
        added = told.success_count + told.failed_count + under_way
        if added != told.total_positions:
            yield Difference(
                Check.ANSWERED_COUNTS,
                f"The answer to {answer.call} tells {told.total_positions} positions, but "
                f"{told.success_count} succeeded, {told.failed_count} failed and {under_way} "
                f"under way are {added}.",
            )
        # What was answered was then; since, more may have been ordered, and more completed.
        is_more = told.total_positions > status.total_positions
        if is_more or (
            listing.is_answered_whole and told.total_positions != status.total_positions
        ):
            yield Difference(
                Check.ANSWERED_COUNTS,
                f"The answer to {answer.call} tells {told.total_positions} positions, but the "
                f"status tells {status.total_positions}.",
            )
        if told.success_count > status.completed_count:
            yield Difference(
                Check.ANSWERED_COUNTS,
                f"The answer to {answer.call} tells {told.success_count} positions that succeeded, "
                f"but the status tells {status.completed_count} COMPLETED.",
            )


def _status_counts(
    status: MarketStatus, latest: dict[str, SettlementRecord]
) -> Iterator[Difference]:
    told = {
        RecordStatus.PENDING: status.pending_count,
        RecordStatus.PROCESSING: status.processing_count,
        RecordStatus.COMPLETED: status.completed_count,
        RecordStatus.FAILED: status.failed_count,
    }
    added = sum(told.values())
    if added != status.total_positions:
        counts = ", ".join(f"{count} {word}" for word, count in told.items())
        yield Difference(
            Check.STATUS_COUNTS,
            f"The status tells {status.total_positions} positions, but its counts ({counts}) are "
            f"{added}.",
        )
    if len(latest) != status.total_positions:
        yield Difference(
            Check.STATUS_COUNTS,
            f"The status tells {status.total_positions} positions, but {len(latest)} are listed.",
        )
    listed = Counter(one.status for one in latest.values())
    for word, count in told.items():
        if listed[word] != count:
            yield Difference(
                Check.STATUS_COUNTS,
                f"The status tells {count} positions {word}, but {listed[word]} are listed so.",
            )


def _payouts(status: MarketStatus, latest: dict[str, SettlementRecord]) -> Iterator[Difference]:
    listed = _sum(latest.values())
    if listed != status.total_payout:
        yield Difference(
            Check.TOTAL_PAYOUT,
            f"The status tells payouts of {status.total_payout:f} in all, but those listed are "
            f"{listed:f}.",
        )
    completed = _sum(one for one in latest.values() if one.status is RecordStatus.COMPLETED)
    if completed != status.completed_payout:
        yield Difference(
            Check.COMPLETED_PAYOUT,
            f"The status tells completed payouts of {status.completed_payout:f}, but those listed "
            f"as COMPLETED are {completed:f}.",
        )


def _answered_payouts(listing: Listing) -> Iterator[Difference]:
    status = listing.status
    for answer in listing.answers:
        told = answer.totals
        # What has not succeeded may have been calculated anew.
        if told.success_count != told.total_positions:
            continue
        is_more = told.total_payout > status.completed_payout
        if is_more or (listing.is_answered_whole and told.total_payout != status.total_payout):
            yield Difference(
                Check.TOTAL_PAYOUT,
                f"The answer to {answer.call} tells payouts of {told.total_payout:f}, all of them "
                f"completed, but the status tells {status.total_payout:f} in all and "
                f"{status.completed_payout:f} completed.",
            )


def _products(settlements: Iterable[SettlementRecord]) -> Iterator[Difference]:
    wrong = [
        f"{one.shares:f} shares at {one.payout_per_share:f} are {product:f}, but "
        f"{_shown(one.id)} pays {one.total_payout:f}"
        for one in settlements
        if (product := _EXACT.multiply(one.shares, one.payout_per_share)) != one.total_payout
    ]
    yield from _told(
        Check.PRODUCT, wrong, "with a totalPayout other than shares times payoutPerShare"
    )


def _shares(settlements: Iterable[SettlementRecord]) -> Iterator[Difference]:
    outside, between = [], []
    for one in settlements:
        told = f"{_shown(one.id)} pays {one.payout_per_share:f} a share"
        if not 0 <= one.payout_per_share <= 1:
            outside.append(told)
        elif one.payout_per_share not in (0, 1):
            between.append(told)
    yield from _told(Check.SHARE_RANGE, outside, "with a payoutPerShare below 0 or above 1")
    yield from _told(
        Check.SHARE_FRACTION, between, "with a payoutPerShare between 0 and 1", is_holding=False
    )


def _owners(listing: Listing) -> Iterator[Difference]:
    settlements = listing.settlements
    if listing.status.market_id != listing.market_id:
        yield Difference(
            Check.OWNER,
            f"The status asked for market {_shown(listing.market_id)} is that of "
            f"{_shown(listing.status.market_id)}.",
        )
    elsewhere = [
        f"{_shown(one.id)} is of {_shown(one.market_id)}"
        for one in settlements
        if one.market_id != listing.market_id
    ]
    yield from _told(Check.OWNER, elsewhere, f"of another market than {_shown(listing.market_id)}")
    if listing.operator_id is None:
        found = Counter(one.operator_id for one in settlements)
        if found:
            yield Difference(
                Check.OWNER,
                f"The settlements are of {_few([_shown(one) for one in found])}, and "
                "SETTLEMENTS_PREDICTION_OPERATOR_ID does not say who we are.",
            )
        return
    foreign = [
        f"{_shown(one.id)} is of {_shown(one.operator_id)}"
        for one in settlements
        if one.operator_id != listing.operator_id
    ]
    yield from _told(
        Check.OWNER, foreign, f"of another operator than {_shown(listing.operator_id)}"
    )


def _repeated_ids(settlements: Iterable[SettlementRecord]) -> Iterator[Difference]:
    repeated = [
        f"{_shown(settlement_id)} is listed {times} times"
        for settlement_id, times in Counter(one.id for one in settlements).items()
        if times > 1
    ]
    yield from _told(Check.UNIQUE_IDS, repeated, "listed more than once")


def _positions(
    settlements: Iterable[SettlementRecord], latest: dict[str, SettlementRecord]
) -> Iterator[Difference]:
    completed: dict[str, dict[str, SettlementRecord]] = defaultdict(dict)
    for one in settlements:
        if one.status is RecordStatus.COMPLETED:
            completed[one.position_id][one.id] = one
    doubled, overtaken = [], []
    for position_id, rows in completed.items():
        last = latest[position_id]
        if len(rows) > 1:
            ids = _few([_shown(one) for one in rows])
            payouts = " and ".join(f"{one.total_payout:f}" for one in rows.values())
            doubled.append(f"{_shown(position_id)} is paid {payouts} by {ids}")
        elif last.status is not RecordStatus.COMPLETED:
            overtaken.append(
                f"{_shown(position_id)} was completed by {_shown(next(iter(rows)))} and is "
                f"{last.status} by {_shown(last.id)}"
            )
    yield from _told(Check.POSITIONS, doubled, "completed more than once", noun="position")
    yield from _told(Check.POSITIONS, overtaken, "that went on behind completion", noun="position")


def _contested(listing: Listing) -> Iterator[Difference]:
    told: dict[str, SettlementRecord] = {}
    contested: dict[str, str] = {}
    answered = [one for answer in listing.answers for one in answer.settlements]
    for one in (*listing.earlier, *answered, *listing.settlements):
        known = told.setdefault(one.id, one)
        if known is one:
            continue
        if contradiction := _contradiction(known, one):
            contested.setdefault(one.id, contradiction)
        elif one.updated_at > known.updated_at:
            told[one.id] = one
    yield from _told(Check.CONTESTED, list(contested.values()), "told otherwise than before")


def _contradiction(known: SettlementRecord, one: SettlementRecord) -> str | None:
    """Why two states of a settlement cannot both be right; None if they can.

    What has not been completed may still be calculated anew; whom it is for may not change.
    """
    if known.market_id != one.market_id:
        return f"{_shown(one.id)} was of market {_shown(known.market_id)}"
    if (known.position_id, known.player_id) != (one.position_id, one.player_id):
        # Players are named nowhere but where they are paid.
        return f"{_shown(one.id)} has another position or player"
    was_completed = known.status is RecordStatus.COMPLETED
    if was_completed and known.status is not one.status and known.updated_at <= one.updated_at:
        return f"{_shown(one.id)} was COMPLETED and is {one.status}"
    is_final = was_completed and known.status is one.status
    is_same = _amounts(known) == _amounts(one)
    if is_same or not (is_final or known.updated_at == one.updated_at):
        return None
    return (
        f"{_shown(one.id)} pays {one.total_payout:f} for {one.shares:f} shares, before "
        f"{known.total_payout:f} for {known.shares:f}"
    )


def _unlisted(listing: Listing) -> Iterator[Difference]:
    """What was completed, and any position that was told of, stays in the list."""
    ids = {one.id for one in listing.settlements}
    positions = {one.position_id for one in listing.settlements}
    answered = [one for answer in listing.answers for one in answer.settlements]
    unlisted = {
        one.id: f"{_shown(one.id)} was {one.status} and pays {one.total_payout:f}"
        for one in (*listing.earlier, *answered)
        if one.id not in ids
        and (one.status is RecordStatus.COMPLETED or one.position_id not in positions)
    }
    yield from _told(Check.CONTESTED, list(unlisted.values()), "told before and not listed")


def _outdated(listing: Listing) -> Iterator[Difference]:
    """What is no later than what was published would be kept beside it, and never count."""
    published = {one.id: one for one in sorted(listing.earlier, key=_age)}
    outdated = [
        f"{_shown(one.id)} is {one.status} since {one.updated_at:%Y-%m-%d %H:%M:%S.%f} UTC, and "
        f"was published as {known.status} since {known.updated_at:%Y-%m-%d %H:%M:%S.%f} UTC"
        for one in listing.settlements
        if (known := published.get(one.id)) is not None
        and one.status is not known.status
        and RecordStatus.COMPLETED in (one.status, known.status)
        and one.updated_at <= known.updated_at
    ]
    yield from _told(
        Check.CONTESTED, outdated, "that cannot count, being no later than what was published of it"
    )


def _sum(settlements: Iterable[SettlementRecord]) -> Decimal:
    total = Decimal(0)
    for one in settlements:
        total = _EXACT.add(total, one.total_payout)
    return total


def _told(
    check: Check,
    examples: list[str],
    meaning: str,
    *,
    is_holding: bool = True,
    noun: str = "settlement",
) -> Iterator[Difference]:
    """One sentence for all the rows that have the same thing wrong with them; none for none."""
    if examples:
        number = f"{len(examples)} {noun}{'' if len(examples) == 1 else 's'}"
        yield Difference(check, f"{number} {meaning}: {_few(examples)}.", is_holding)


def _few(examples: Sequence[str]) -> str:
    more = len(examples) - _SHOWN
    shown = "; ".join(examples[:_SHOWN])
    return f"{shown}; and {more} more" if more > 0 else shown


def _shown(name: str) -> str:
    """An id of the engine's for a sentence: in characters that can be stored and shown."""
    return name if name.isascii() and name.isprintable() else f"{name!a}"
