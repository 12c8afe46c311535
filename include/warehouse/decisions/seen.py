"""What a finding holds, and that whoever decides about all of it has seen just that.

A finding grows and shrinks while people think.  `seen` stands for what it holds: by it a decision
says what it is about, and is refused if the finding holds something else by then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column
from sqlalchemy.dialects.postgresql import aggregate_order_by

from include.warehouse.decisions.answers import DecisionRefused

_DIGITS = 8


@dataclass(frozen=True)
class Held:
    """How many payouts, credits or contents a finding holds, what they come to in units of each
    currency, and what stands for just these, with their amounts.
    """

    what: str
    count: int
    amounts: dict[str, str]
    seen: str

    def describe_amounts(self) -> str:
        """The amounts as a person reads them."""
        return ", ".join(f"{amount} {currency}" for currency, amount in self.amounts.items())


@dataclass(frozen=True)
class Sum:
    """What a finding holds in one currency; `digest` as `digest_of` has it."""

    finding_id: int
    currency: str
    count: int
    amount: str
    digest: str


def add_up(what: str, finding_ids: Collection[int], sums: Iterable[Sum]) -> dict[int, Held]:
    """What each of these findings holds, of its sums in the order of their currencies."""
    of_finding: dict[int, list[Sum]] = {finding_id: [] for finding_id in finding_ids}
    for one in sums:
        of_finding[one.finding_id].append(one)
    return {
        finding_id: Held(
            what,
            sum(one.count for one in found),
            {one.currency: one.amount for one in found},
            stand_for(f"{one.currency} {one.digest}" for one in found),
        )
        for finding_id, found in of_finding.items()
    }


def stand_for(identities: Iterable[object]) -> str:
    """A few digits that stand for these, in this order."""
    return sha256(" ".join(map(str, identities)).encode()).hexdigest()[:_DIGITS]


def digest_of(identity: ColumnElement[Any], amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """An aggregate: which they are, and of what amount."""
    one = func.sha256(func.convert_to(func.concat(amount, " ", identity), "UTF8"))
    in_order: ColumnElement[Any] = aggregate_order_by(literal_column("''::bytea"), identity)
    return func.encode(func.sha256(func.string_agg(one, in_order)), "hex")


def refuse_unseen(finding_id: int, parameters: Mapping[str, Any], held: Held) -> None:
    """All that the finding holds is only decided about by whoever has seen what that is: by `seen`,
    or at least by how many they are (`payouts`, of credits as well).
    """
    now = {"seen": held.seen, "payouts": held.count}
    said = {name: parameters[name] for name in now if name in parameters}
    if said and said.items() <= now.items():
        return
    holds = f"finding {finding_id} holds {held.count} now ({held.describe_amounts()})"
    if not said:
        happened = f"The decision does not say about how many {held.what} it is: {holds}."
    elif said.get("payouts", held.count) != held.count:
        happened = f"The decision is about {said['payouts']} {held.what}, but {holds}."
    else:
        happened = f"The decision is about other {held.what} than these: {holds}."
    by_name = ", or name in `transaction_ids` those that you mean" * (held.what == "payouts")
    raise DecisionRefused(
        happened,
        "Look at them again, then say in `payouts` how many the finding shows, or in `seen` what "
        f"the page Findings shows beside it{by_name}.",
    )
