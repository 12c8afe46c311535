"""What an attempt says of each of its payouts, and which refusals are too many: pure, no I/O.

The table of events in the design is the specification; `tests/payouts/test_judging.py` repeats it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import msgspec

from include.providers.errors import ProviderError
from include.providers.http import Answer
from include.providers.wallet import (
    AnsweredItem,
    CodeClass,
    Envelope,
    Execution,
    Item,
    PartnerAnswer,
    classify_answer,
    classify_code,
    classify_error,
    read_answer,
)

ALIKE_AT_CANARY = 3
"""So many first answers of a currency that are the same refusal stop it, however few there are;
but for a brief run's.
"""


class Result(StrEnum):
    """What became of an attempt as a whole."""

    ANSWERED = "answered"
    NOT_EXECUTED = "not_executed"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"


class ItemOutcome(StrEnum):
    """What one attempt says of one of its payouts."""

    OK = "ok"
    """The wallet has booked it."""
    REFUSED = "refused"
    """Refused for its own sake, with a final code."""
    CONTESTED = "contested"
    """It was answered, but may have been booked all the same."""
    UNCLEAR = "unclear"
    """Refused with a code that is not known, or as the one payout of a rejected request."""
    BLOCKED = "blocked"
    """Our key, signature, token or way of writing was refused."""
    IN_DOUBT = "in_doubt"
    """The wallet may have booked it."""
    NOT_EXECUTED = "not_executed"
    """The request was not executed; it may be sent again at once."""
    REJECTED = "rejected"
    """The request was refused as a whole, and not executed."""


class ItemJudgement(NamedTuple):
    """One payout's outcome in one attempt; `balance` as answered, in hundred-thousandths."""

    transaction_id: str
    outcome: ItemOutcome
    code: str | None = None
    balance: int | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Judgement:
    """An attempt with its items, in the order in which they were sent.

    `foreign_ids` were answered, but not sent in it.  With `stops` a person has to change something
    before the next request makes sense; `is_bisected` says that one of several items is bad.
    """

    result: Result
    items: tuple[ItemJudgement, ...]
    detail: str | None = None
    answer_code: str | None = None
    foreign_ids: tuple[str, ...] = ()
    stops: bool = False
    is_bisected: bool = False

    def items_of(self, *outcomes: ItemOutcome) -> list[ItemJudgement]:
        """The items that have one of these outcomes."""
        return [item for item in self.items if item.outcome in outcomes]


def judge_error(sent: Sequence[str], error: BaseException) -> Judgement:
    """An attempt that ended without an answer."""
    match classify_error(error):
        case Execution.NOT_EXECUTED:
            return _alike(sent, Result.NOT_EXECUTED, ItemOutcome.NOT_EXECUTED, str(error))
        case Execution.REJECTED_STOP:
            return _alike(sent, Result.REJECTED, ItemOutcome.REJECTED, str(error), stops=True)
        case _:
            # The text of an unforeseen error may hold anything, a header among it.
            told = str(error) if isinstance(error, ProviderError) else type(error).__name__
            return _alike(sent, Result.IN_DOUBT, ItemOutcome.IN_DOUBT, told)


def judge_unsent(sent: Iterable[str], why: str) -> Judgement:
    """An attempt of which no byte was sent, and which is not repeated here."""
    return _alike(sent, Result.NOT_EXECUTED, ItemOutcome.NOT_EXECUTED, why)


def judge_answer(
    sent: Mapping[str, bytes], answer: Answer, codes: Mapping[str, CodeClass]
) -> Judgement:
    """An attempt that was answered; `sent` are its items' bytes by id, in their order."""
    told = read_answer(answer.body)
    status = f"HTTP {answer.status}"
    if told.code is not None and classify_code(told.code, codes) is not CodeClass.OK:
        status = f"{status}, {told.code}"
    execution = classify_answer(answer, told, codes)
    match execution:
        case Execution.ANSWERED:
            return _judge_items(sent, told, codes)
        case Execution.IN_DOUBT:
            why = ", ".join(filter(None, (status, told.unusable_reason)))
            broken = why if answer.is_complete else f"{why}, broken off"
            judgement = _alike(sent, Result.IN_DOUBT, ItemOutcome.IN_DOUBT, broken)
        case _:
            judgement = _contest_booked(_judge_refusal(sent, execution, status), told, codes)
    return replace(judgement, answer_code=told.code)


def _alike(
    sent: Iterable[str],
    result: Result,
    outcome: ItemOutcome,
    detail: str,
    *,
    stops: bool = False,
    is_bisected: bool = False,
) -> Judgement:
    items = tuple(ItemJudgement(transaction_id, outcome) for transaction_id in sent)
    return Judgement(result, items, detail, stops=stops, is_bisected=is_bisected)


def _judge_refusal(sent: Mapping[str, bytes], execution: Execution, told: str) -> Judgement:
    match execution:
        case Execution.NOT_EXECUTED:
            return _alike(sent, Result.NOT_EXECUTED, ItemOutcome.NOT_EXECUTED, told)
        case Execution.REJECTED_BISECT if len(sent) == 1:
            told = f"the request with this payout alone was refused ({told})"
            items = tuple(ItemJudgement(each, ItemOutcome.UNCLEAR, detail=told) for each in sent)
            return Judgement(Result.REJECTED, items, told)
        case Execution.REJECTED_BISECT:
            return _alike(sent, Result.REJECTED, ItemOutcome.REJECTED, told, is_bisected=True)
        case _:
            return _alike(sent, Result.REJECTED, ItemOutcome.REJECTED, told, stops=True)


def _contest_booked(
    refusal: Judgement, answer: PartnerAnswer, codes: Mapping[str, CodeClass]
) -> Judgement:
    """All of it was refused; where it says of an item that it was booked, that stays open."""
    booked = {
        item.transaction_id
        for item in answer.items
        if classify_code(item.code, codes) is CodeClass.OK
    }
    if not booked:
        return refusal
    why = f"answered as booked by an answer that refuses the whole request ({refusal.detail})"
    items = tuple(
        item._replace(outcome=ItemOutcome.CONTESTED, detail=why)
        if item.transaction_id in booked
        else item
        for item in refusal.items
    )
    return replace(refusal, items=items)


def _judge_items(
    sent: Mapping[str, bytes], answer: PartnerAnswer, codes: Mapping[str, CodeClass]
) -> Judgement:
    answered: dict[str, list[AnsweredItem]] = defaultdict(list)
    foreign: dict[str, None] = {}
    for item in answer.items:
        if item.transaction_id is not None and item.transaction_id in sent:
            answered[item.transaction_id].append(item)
        else:
            foreign[item.transaction_id or "(without a transactionId)"] = None
    is_trusted = answer.classify(codes) is Envelope.OK
    items = tuple(
        _judge_item(transaction_id, written, answered.get(transaction_id, ()), codes)
        for transaction_id, written in sent.items()
    )
    if not is_trusted:
        items = tuple(_in_failure(item, answer.code) for item in items)
    return Judgement(
        Result.ANSWERED,
        items,
        answer_code=answer.code,
        foreign_ids=tuple(foreign),
        stops=any(item.outcome is ItemOutcome.BLOCKED for item in items),
    )


def _in_failure(item: ItemJudgement, code: str | None) -> ItemJudgement:
    """An answer inside a failure: what was refused for our key's sake was not booked."""
    if item.outcome in (ItemOutcome.IN_DOUBT, ItemOutcome.BLOCKED):
        return item
    why = f"answered inside a failure: {code or 'no code'}"
    return item._replace(outcome=ItemOutcome.CONTESTED, detail=why)


_OUTCOMES = {
    CodeClass.OK: ItemOutcome.OK,
    CodeClass.FINAL: ItemOutcome.REFUSED,
    CodeClass.DUPLICATE: ItemOutcome.CONTESTED,
    CodeClass.AUTHENTICATION: ItemOutcome.BLOCKED,
    CodeClass.SYNTAX: ItemOutcome.BLOCKED,
    CodeClass.OTHER: ItemOutcome.UNCLEAR,
}


def _judge_item(
    transaction_id: str,
    written: bytes,
    answers: Sequence[AnsweredItem],
    codes: Mapping[str, CodeClass],
) -> ItemJudgement:
    if not answers:
        return ItemJudgement(transaction_id, ItemOutcome.IN_DOUBT, detail="missing in the answer")
    said = {answer.code for answer in answers}
    if len(said) > 1:
        told = " and ".join(sorted(code or "no code" for code in said))
        return ItemJudgement(
            transaction_id, ItemOutcome.CONTESTED, detail=f"answered more than once: {told}"
        )
    answer = answers[-1]
    item = msgspec.json.decode(written, type=Item)
    return ItemJudgement(
        transaction_id,
        _OUTCOMES[classify_code(answer.code, codes)],
        answer.code,
        answer.balance if _is_players(answer, item) else None,
        _differences(item, answer),
    )


def _is_players(answer: AnsweredItem, item: Item) -> bool:
    """Whether the balance that was answered may be that of our player, in the item's currency."""
    return answer.currency in (None, item.currency) and answer.player_id in (None, item.player_id)


def _differences(item: Item, answer: AnsweredItem) -> str | None:
    """Which fields came back changed: noted only, as the documentation's own example has some."""
    if (
        item.session_id == answer.session_id
        and item.round_id == answer.round_id
        and item.player_id == answer.player_id
        and item.currency == answer.currency
        and item.ref_transaction_id == answer.ref_transaction_id
    ):
        return None
    names = ("ref_transaction_id", "session_id", "round_id", "player_id", "currency")
    changed = [name for name in names if getattr(item, name) != getattr(answer, name)]
    return f"answered with another {', '.join(changed)}"


# The breaker.


class AnsweredCode(NamedTuple):
    """One payout's answer as the breaker sees it; `code` also names a refusal without one."""

    code: str
    is_refusal: bool


def too_many(
    refusals: Mapping[str, int],
    answered: int,
    first: Sequence[AnsweredCode],
    *,
    share_limit: float,
    sample: int,
) -> frozenset[str]:
    """The codes that stop their currency, of the `refusals` by code among so many answers of one
    stage, or of a run in which nothing is booked.

    Those that are more than `share_limit` of at least `sample` answers, and the one that the
    `first` three answers have in common; `first` is empty for a stage behind the canary, and in a
    brief run.
    """
    found = {
        code
        for code, count in refusals.items()
        if answered >= sample and count > share_limit * answered
    }
    alike = set(first[:ALIKE_AT_CANARY])
    if len(first) >= ALIKE_AT_CANARY and len(alike) == 1 and first[0].is_refusal:
        found.add(first[0].code)
    return frozenset(found)
