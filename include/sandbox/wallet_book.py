"""The wallet's own books: what it has decided about every transaction, and what players hold."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from include.sandbox.wallet_messages import DUPLICATE_TRANSACTION, ERROR, OK, Item, ItemAnswer

_BALANCE_LIMIT = 10**18


class CodeOrder(BaseModel):
    """An order to answer some items with a code: those that meet every condition given.

    `share` of them, drawn anew by the seed each time that an item is evaluated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    transactions: frozenset[str] | None = None
    players: frozenset[str] | None = None
    currencies: frozenset[str] | None = None
    share: float = Field(default=1.0, ge=0, le=1)

    def concerns(self, item: Item) -> bool:
        """Whether the item meets the conditions, but for the share."""
        return (
            (self.transactions is None or item.transaction_id in self.transactions)
            and (self.players is None or item.player_id in self.players)
            and (self.currencies is None or item.currency in self.currencies)
        )


class BookSettings(BaseModel):
    """How the wallet decides.

    `codes` are evaluated where other wallets look at their accounts: the first order that concerns
    an item decides, and without one it is credited. `repeats` says what a transaction gets that
    comes again: its first answer, a refusal as duplicate, or a second credit (the wallet is then
    not idempotent). `other_content` is for one that comes again with another content. With
    `stores_refusals` off a refused item is evaluated anew; with `checks_accounts_first` also a
    transaction already credited is evaluated, and may be refused, before its first answer is
    looked up. A balance begins at `opening_balance`. With `echoes_own_ids` the answer's sessionId
    and roundId are the wallet's, as in the example of the documentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    codes: tuple[CodeOrder, ...] = ()
    repeats: Literal["first_answer", "duplicate", "credited_again"] = "first_answer"
    other_content: Literal["duplicate", "first_answer"] = "duplicate"
    stores_refusals: bool = True
    checks_accounts_first: bool = False
    opening_balance: int = Field(default=50_000_000, ge=-_BALANCE_LIMIT, le=_BALANCE_LIMIT)
    echoes_own_ids: bool = False


class Transaction(msgspec.Struct, gc=False):
    """What the wallet knows of one transaction.

    `first_answer` is its code and the balance answered with it, once stored. `history` holds, for
    each time it was executed, the number of the request and the code it was answered with, one
    behind the other: a million of them have to fit into memory.
    """

    transaction_id: str
    currency: str
    content: int
    first_answer: tuple[str, int] | None = None
    credits: int = 0
    credited_amount: int = 0
    history: tuple[int | str, ...] = ()

    def report(self) -> dict[str, Any]:
        """As the control plane tells it."""
        return {
            "transaction_id": self.transaction_id,
            "currency": self.currency,
            "credits": self.credits,
            "credited_amount": self.credited_amount,
            "outcomes": [
                {"request": request, "code": code}
                for request, code in zip(self.history[::2], self.history[1::2], strict=True)
            ],
        }


class Book:
    """Transactions and balances. Amounts and balances are scaled by 100 000."""

    def __init__(self) -> None:
        self._transactions: dict[str, Transaction] = {}
        self._in_order: list[Transaction] = []
        self._balances: dict[str, dict[str, int]] = {}
        self._codes: Counter[str] = Counter()
        self._credits: Counter[str] = Counter()
        self._amounts: Counter[str] = Counter()
        self._credited_again: dict[str, int] = {}

    def settle(self, item: Item, settings: BookSettings, request: int) -> ItemAnswer:
        """Executes an item: decides about it, credits it if so decided, and remembers it."""
        transaction = self._transactions.get(item.transaction_id) or self._opened(item)
        code, balance = self._decide(item, transaction, settings)
        if balance is None:
            balance = self._balance(item, settings)
            if code == OK:
                balance = self._credit(item, transaction, balance)
            is_kept = code == OK or settings.stores_refusals
            if transaction.first_answer is None and is_kept:
                transaction.first_answer = (code, balance)
        code = sys.intern(code)
        transaction.history += (request, code)
        self._codes[code] += 1
        return _answer(item, code, balance, settings)

    def rehearse(self, item: Item, settings: BookSettings) -> ItemAnswer:
        """What the item would be answered now, were it alone; nothing is done."""
        transaction = self._transactions.get(item.transaction_id) or _new(item)
        code, balance = self._decide(item, transaction, settings)
        if balance is None:
            balance = self._balance(item, settings) + (item.amount if code == OK else 0)
        return _answer(item, code, balance, settings)

    def credits(self, after: int, limit: int) -> dict[str, int]:
        """How often each executed transaction was credited, first come first, behind `after`."""
        shown = self._in_order[after : after + limit]
        return {each.transaction_id: each.credits for each in shown}

    def transactions(self, transaction_ids: list[str]) -> Iterator[Transaction]:
        """Those of these transactions that were ever executed."""
        for each in transaction_ids:
            if transaction := self._transactions.get(each):
                yield transaction

    def balances(self, player: str | None) -> dict[str, dict[str, int]]:
        """Balances by currency and player; of one player if given."""
        if player is None:
            return self._balances
        return {
            currency: {player: balances[player]}
            for currency, balances in self._balances.items()
            if player in balances
        }

    def summary(self) -> dict[str, Any]:
        """Counts and sums over everything executed."""
        return {
            "transactions": len(self._transactions),
            "codes": dict(sorted(self._codes.items())),
            "credits": self._credits.total(),
            "credited_by_currency": {
                currency: {"credits": count, "amount": self._amounts[currency]}
                for currency, count in sorted(self._credits.items())
            },
            "credited_more_than_once": self._credited_again,
        }

    def _opened(self, item: Item) -> Transaction:
        transaction = _new(item)
        self._transactions[item.transaction_id] = transaction
        self._in_order.append(transaction)
        return transaction

    def _decide(
        self, item: Item, transaction: Transaction, settings: BookSettings
    ) -> tuple[str, int | None]:
        """The item's code; and its first balance, if it gets its first answer once more."""
        first = transaction.first_answer
        if first is None or settings.repeats == "credited_again":
            return _evaluated(item, transaction, settings), None
        if settings.checks_accounts_first:
            code = _evaluated(item, transaction, settings)
            if code != OK:
                return code, None
        is_other = transaction.content != _content(item)
        if settings.repeats == "duplicate" or (is_other and settings.other_content == "duplicate"):
            return DUPLICATE_TRANSACTION, None
        return first

    def _balance(self, item: Item, settings: BookSettings) -> int:
        balances = self._balances.get(item.currency, {})
        return balances.get(item.player_id, settings.opening_balance)

    def _credit(self, item: Item, transaction: Transaction, balance: int) -> int:
        balance += item.amount
        self._balances.setdefault(transaction.currency, {})[item.player_id] = balance
        transaction.credits += 1
        transaction.credited_amount += item.amount
        self._credits[transaction.currency] += 1
        self._amounts[transaction.currency] += item.amount
        if transaction.credits > 1:
            self._credited_again[item.transaction_id] = transaction.credits
        return balance


def _new(item: Item) -> Transaction:
    # Names of currencies are the same few texts a million times over.
    return Transaction(item.transaction_id, sys.intern(item.currency), _content(item))


def _content(item: Item) -> int:
    return hash(
        (
            item.ref_transaction_id,
            item.session_id,
            item.round_id,
            item.player_id,
            item.game_id,
            item.currency,
            item.amount,
            item.is_win,
        )
    )


def _evaluated(item: Item, transaction: Transaction, settings: BookSettings) -> str:
    evaluation = len(transaction.history) // 2
    for number, order in enumerate(settings.codes):
        if order.concerns(item):
            draw = f"{settings.seed}/{number}/{evaluation}/{item.transaction_id}"
            if order.share == 1 or _chance(draw) < order.share:
                return order.code
    # What was not won cannot have an amount.
    return OK if item.is_win or item.amount == 0 else ERROR


def _chance(draw: str) -> float:
    digest = hashlib.blake2b(draw.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _answer(item: Item, code: str, balance: int, settings: BookSettings) -> ItemAnswer:
    session_id, round_id = item.session_id, item.round_id
    if settings.echoes_own_ids:
        session_id, round_id = _own_id(session_id), _own_id(round_id)
    return ItemAnswer(
        code,
        item.transaction_id,
        item.ref_transaction_id,
        session_id,
        round_id,
        item.player_id,
        item.currency,
        balance,
    )


def _own_id(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
