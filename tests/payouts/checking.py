"""The checker of payouts: what must be true of the outbox and the wallet, whatever happened.

`violations` looks once; a `Watch` looks again and again and remembers, so that what changes, though
it is for ever, shows as well.  Both give what is wrong as sentences.  They compare what the
warehouse stores, read with the owner's rights, with what the wallet itself saw and credited.
Nobody may be sending while they look.
"""

from __future__ import annotations

import hmac
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from tests.checker import secrets_are_nowhere
from tests.warehouses import Warehouse

# A request was sent in time if it arrived so shortly after its deadline: to be read takes time.
_ON_ITS_WAY = timedelta(seconds=1)
_REQUESTS_A_PAGE = 1000
# Whoever has signed has ended by the next look, so that older signatures cannot turn up any more.
_SIGNATURES_LOOKED_FOR = 30
_PAYING_DECISIONS = ("processed", "paid_otherwise")
_DOUBTFUL = (None, "in_doubt", "contested")


class Wallet(NamedTuple):
    """What the wallet saw and did: its requests in order, and what it credited, by id."""

    requests: Sequence[dict[str, Any]]
    executed: Mapping[str, dict[str, Any]]

    def credits(self, transaction_id: str) -> int:
        """How often it credited a transaction."""
        executed = self.executed.get(transaction_id)
        return executed["credits"] if executed else 0


class Sent(NamedTuple):
    """One payout in one attempt."""

    item: Row[Any]
    attempt: Row[Any]

    def was_doubtful_at(self, moment: datetime) -> bool:
        """Whether it could not be known then what became of it."""
        is_answered = self.attempt.closed_at is not None and self.attempt.closed_at <= moment
        return not is_answered or self.item.outcome in _DOUBTFUL


class Outbox(NamedTuple):
    """What the warehouse stores: by number or id, and of a payout or attempt in order."""

    payouts: Mapping[str, Row[Any]]
    attempts: Mapping[int, Row[Any]]
    sent: Mapping[str, Sequence[Sent]]
    items: Mapping[int, Sequence[Row[Any]]]
    holds: Mapping[str, Sequence[Row[Any]]]
    findings: Mapping[int, Row[Any]]
    decisions: Mapping[int, Row[Any]]


def violations(
    warehouse: Warehouse,
    sandbox: Sandbox,
    *,
    partner_is_idempotent: bool = True,
    secrets: Sequence[str] = (),
    signs_soundly: bool = True,
) -> list[str]:
    """Everything that is wrong now.

    `secrets` may stand nowhere in the warehouse, beside the wallet's own and the signatures.
    Without `signs_soundly` a wrong key or secret is in use.
    """
    wallet = _read_wallet(sandbox, [])
    with warehouse.owner_engine.connect() as connection:
        outbox = _read_outbox(connection)
        shown = _telling([*secrets, *_signatures(wallet)])
        return [
            *_violations(connection, outbox, wallet, partner_is_idempotent, signs_soundly),
            *secrets_are_nowhere(connection, shown),
        ]


def _violations(
    connection: Connection,
    outbox: Outbox,
    wallet: Wallet,
    partner_is_idempotent: bool,
    signs_soundly: bool,
) -> Iterator[str]:
    yield from _processed_is_credited_once(outbox, wallet)
    yield from _lost_is_not_credited(outbox, wallet)
    yield from _nothing_is_credited_twice(outbox, wallet, partner_is_idempotent)
    yield from _every_answer_has_its_effect(outbox)
    yield from _every_request_was_intended(outbox, wallet)
    yield from _every_request_is_well_formed(outbox, wallet, signs_soundly)
    yield from _only_what_is_due_is_sent(outbox)
    yield from _attempts_do_not_overlap(outbox)
    yield from _attempts_add_up(outbox)
    yield from _holds_are_recorded(outbox)
    yield from _days_add_up(connection, outbox)


@dataclass
class Watch:
    """The checker over a history of one outbox: what it has seen once must stay so."""

    partner_is_idempotent: bool = True
    secrets: tuple[str, ...] = ()
    signs_soundly: bool = True
    _today: date = date.min
    _requests: list[dict[str, Any]] = field(default_factory=list)
    _payouts: dict[str, Row[Any]] = field(default_factory=dict)
    _attempts: dict[int, Row[Any]] = field(default_factory=dict)
    _items: dict[tuple[int, str], Row[Any]] = field(default_factory=dict)
    _reports: dict[int, Row[Any]] = field(default_factory=dict)

    def look(
        self, warehouse: Warehouse, sandbox: Sandbox, *, is_left_alone: bool = False
    ) -> list[str]:
        """Everything that is wrong now, or in comparison with what was seen before.

        If `is_left_alone`, a run that nobody disturbed has just ended: then nothing of it may be
        unfinished, whatever the partner has answered.
        """
        wallet = _read_wallet(sandbox, self._requests)
        with warehouse.owner_engine.connect() as connection:
            outbox = _read_outbox(connection)
            found = list(
                _violations(
                    connection, outbox, wallet, self.partner_is_idempotent, self.signs_soundly
                )
            )
            shown = _telling([*self.secrets, *_signatures(wallet)])
            found += secrets_are_nowhere(connection, shown)
            found += self._payouts_stay(outbox)
            found += self._attempts_stay(outbox)
            found += self._reports_stay(connection)
            today = connection.scalar(text("SELECT CAST(now() AT TIME ZONE 'UTC' AS date)"))
            assert today is not None
            self._today = today
        if is_left_alone:
            found += _nothing_is_unfinished(outbox)
        return found

    def _payouts_stay(self, outbox: Outbox) -> Iterator[str]:
        for name, before in self._payouts.items():
            now = outbox.payouts.get(name)
            if now is None:
                yield f"payout {name} has gone"
                continue
            if before.disposition != "open" and _booking(before) != _booking(now):
                yield f"payout {name} was {_booking(before)} and is {_booking(now)}"
            if before.item is not None and before.item != now.item:
                yield f"payout {name} has other bytes than before"
        for name, now in outbox.payouts.items():
            before_now = self._payouts.get(name)
            is_new = before_now is None or before_now.disposition == "open"
            if is_new and now.accounting_date is not None and now.accounting_date < self._today:
                yield f"payout {name} was booked into {now.accounting_date}, which had ended"
        self._payouts = dict(outbox.payouts)

    def _attempts_stay(self, outbox: Outbox) -> Iterator[str]:
        for number, before in self._attempts.items():
            now = outbox.attempts.get(number)
            is_for_ever = before.result not in (None, "in_doubt")
            if now is None or _intent(before) != _intent(now) or (is_for_ever and before != now):
                yield f"attempt {number} is not as it was"
        items = {
            (item.attempt_id, item.transaction_id): item
            for several in outbox.items.values()
            for item in several
        }
        for (number, name), before in self._items.items():
            if before.outcome not in (None, "in_doubt") and items.get((number, name)) != before:
                yield f"what attempt {number} said of {name} is not as it was"
        self._attempts, self._items = dict(outbox.attempts), items

    def _reports_stay(self, connection: Connection) -> Iterator[str]:
        reports = _by("report_id", connection, "wallet.reported_outcome")
        for number, before in self._reports.items():
            if reports.get(number) != before:
                yield f"report {number} is not as it was"
        self._reports = reports


def _booking(payout: Row[Any]) -> tuple[Any, ...]:
    return payout.disposition, payout.evidence, payout.disposed_at, payout.accounting_date


def _intent(attempt: Row[Any]) -> tuple[Any, ...]:
    return (
        *(attempt.window_id, attempt.epoch, attempt.run_id, attempt.currency, attempt.stage),
        *(attempt.items, attempt.amount, attempt.body_sha256),
        *(attempt.committed_at, attempt.deadline_at),
    )


# --- reading ------------------------------------------------------------------------------------


def _read_wallet(sandbox: Sandbox, requests: list[dict[str, Any]]) -> Wallet:
    """Appends to `requests`, those that were read before, what came since."""
    while page := sandbox.wallet_requests(len(requests), _REQUESTS_A_PAGE, with_texts=True):
        requests += page
    executed = sandbox.wallet_transactions([name for name, _ in sandbox.wallet_credits()])
    return Wallet(requests, {each["transaction_id"]: each for each in executed})


def _read_outbox(connection: Connection) -> Outbox:
    attempts = _by("attempt_id", connection, "wallet.attempt")
    sent, items, holds = defaultdict(list), defaultdict(list), defaultdict(list)
    for item in _rows(connection, "wallet.attempt_item ORDER BY attempt_id, place"):
        sent[item.transaction_id].append(Sent(item, attempts[item.attempt_id]))
        items[item.attempt_id].append(item)
    for hold in _rows(connection, "wallet.hold ORDER BY hold_id"):
        holds[hold.transaction_id].append(hold)
    return Outbox(
        _by("transaction_id", connection, "wallet.transaction"),
        attempts,
        sent,
        items,
        holds,
        _by("finding_id", connection, "ops.finding"),
        _by("decision_id", connection, "ops.decision"),
    )


def _rows(connection: Connection, table: str) -> list[Row[Any]]:
    return list(connection.execute(text(f"SELECT * FROM {table}")))


def _by(column: str, connection: Connection, table: str) -> dict[Any, Row[Any]]:
    return {getattr(row, column): row for row in _rows(connection, f"{table} ORDER BY {column}")}


# --- what became of payouts ---------------------------------------------------------------------


def _processed_is_credited_once(outbox: Outbox, wallet: Wallet) -> Iterator[str]:
    for name, payout in outbox.payouts.items():
        if payout.disposition != "processed":
            continue
        decision = outbox.decisions.get(payout.evidence.get("decision_id"))
        if decision is not None:
            if decision.decision not in _PAYING_DECISIONS or not decision.reference:
                yield f"payout {name} is processed by a decision that does not say so"
            continue
        if payout.evidence.get("paid_otherwise"):
            if payout.origin_source != "prediction":
                yield f"payout {name} is paid otherwise, and no credit of a market"
            continue
        if "ok" not in _said(outbox, name, payout.evidence):
            yield f"payout {name} is processed, but no attempt was answered so"
        if not wallet.credits(name):
            yield f"payout {name} is processed, but the wallet never credited it"


def _lost_is_not_credited(outbox: Outbox, wallet: Wallet) -> Iterator[str]:
    """Nor is what was refused and is about to be lost, or is owed."""
    for name, payout in outbox.payouts.items():
        is_refused = payout.hold_reason in ("refusal_pending", "owed")
        if payout.disposition != "lost" and not is_refused:
            continue
        state = payout.hold_reason or "lost"
        if "lost" in (state, payout.disposition) and payout.origin_source == "prediction":
            yield f"payout {name} is a credit of a market, and lost"
        evidence = payout.evidence or {}
        decision = outbox.decisions.get(evidence.get("decision_id"))
        if decision is not None:
            if decision.decision != "lost" or decision.awaits_second_person:
                yield f"payout {name} is {state} by a decision that does not say so"
            continue
        if "refused" not in _said(outbox, name, evidence):
            yield f"payout {name} is {state}, but no attempt was answered so"
        if wallet.credits(name):
            yield f"payout {name} is {state}, but the wallet credited it"
        since = payout.disposed_at or outbox.holds[name][-1].held_at
        for sent in outbox.sent[name]:
            if sent.attempt.committed_at < since and sent.was_doubtful_at(since):
                yield (
                    f"payout {name} is {state}, but attempt {sent.attempt.attempt_id} was in doubt"
                )


def _said(outbox: Outbox, name: str, evidence: Mapping[str, Any]) -> list[str | None]:
    """What the attempt that is the evidence says of the payout."""
    number = evidence.get("attempt_id")
    return [each.item.outcome for each in outbox.sent[name] if each.attempt.attempt_id == number]


def _nothing_is_credited_twice(
    outbox: Outbox, wallet: Wallet, partner_is_idempotent: bool
) -> Iterator[str]:
    for name, executed in wallet.executed.items():
        payout = outbox.payouts.get(name)
        if payout is None:
            yield f"the wallet knows {name}, which is no payout"
            continue
        was_released = payout.released_at is not None
        if executed["credits"] > 1 and (partner_is_idempotent or not was_released):
            yield f"the wallet credited {name} {executed['credits']} times"
        if executed["credited_amount"] != executed["credits"] * payout.amount:
            yield f"the wallet credited {name} with {executed['credited_amount']}"


def _every_answer_has_its_effect(outbox: Outbox) -> Iterator[str]:
    told = {finding.kind for finding in outbox.findings.values()}
    for name, several in outbox.sent.items():
        payout = outbox.payouts[name]
        said = {each.item.outcome for each in several}
        is_paid_though_lost = payout.disposition == "lost" and "paid_though_lost" in told
        if "ok" in said and payout.disposition != "processed" and not is_paid_though_lost:
            yield f"payout {name} was answered as booked, and is {payout.disposition}"
        is_decided = payout.disposition != "open" or payout.released_at is not None
        final = {"owed"} if payout.origin_source == "prediction" else set()
        waits = {
            "refused": {"refusal_pending", "contested", "unclear", *final},
            "contested": {"contested", *final},
        }
        for outcome in waits.keys() & said:
            if not is_decided and payout.hold_reason not in waits[outcome]:
                yield f"payout {name} is {outcome}, and held for {payout.hold_reason}"


# --- requests -----------------------------------------------------------------------------------


def _every_request_was_intended(outbox: Outbox, wallet: Wallet) -> Iterator[str]:
    """Each has an attempt of its own, committed before it arrived and not over by then."""
    intended: dict[bytes, list[Row[Any]]] = defaultdict(list)
    for attempt in outbox.attempts.values():
        intended[bytes(attempt.body_sha256)].append(attempt)
    for request in wallet.requests:
        name, arrived_at = f"request {request['number']}", _arrived_at(request)
        unused = intended[bytes.fromhex(request["body_sha256"])]
        earlier = [attempt for attempt in unused if attempt.committed_at <= arrived_at]
        if not earlier:
            yield f"{name} has no attempt that was committed before it"
            continue
        attempt = earlier[-1]
        unused.remove(attempt)
        if arrived_at > attempt.deadline_at + _ON_ITS_WAY:
            yield f"{name} came after the deadline of attempt {attempt.attempt_id}"


def _arrived_at(request: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(request["received_at"]).astimezone(UTC)


def _every_request_is_well_formed(
    outbox: Outbox, wallet: Wallet, signs_soundly: bool
) -> Iterator[str]:
    for request in wallet.requests:
        name = f"request {request['number']}"
        if signs_soundly and (request["signature"] != "sound" or not request["is_key_known"]):
            yield f"{name} is not signed soundly"
        texts = request["item_texts"] or []
        items = [json.loads(each) for each in texts]
        if len({item["currency"] for item in items}) != 1:
            yield f"{name} has not one currency"
        for item, written in zip(items, texts, strict=True):
            payout = outbox.payouts.get(item["transactionId"])
            if payout is None or bytes(payout.item or b"") != written.encode():
                yield f"{name} has other bytes for {item['transactionId']} than were frozen"


def _only_what_is_due_is_sent(outbox: Outbox) -> Iterator[str]:
    for name, several in outbox.sent.items():
        payout = outbox.payouts[name]
        for sent in several:
            number, moment = sent.attempt.attempt_id, sent.attempt.committed_at
            if payout.entered_at > moment:
                yield f"attempt {number} holds {name}, which was entered later"
            if payout.disposed_at is not None and payout.disposed_at < moment:
                yield f"attempt {number} holds {name}, which was {payout.disposition}"
            for hold in outbox.holds[name]:
                if hold.held_at < moment and (hold.ended_at is None or moment < hold.ended_at):
                    yield f"attempt {number} holds {name}, which was held ({hold.hold_reason})"


def _attempts_do_not_overlap(outbox: Outbox) -> Iterator[str]:
    """No payout is in an attempt that begins while an earlier one may still send or book it."""
    for name, several in outbox.sent.items():
        for place, later in enumerate(several):
            moment = later.attempt.committed_at
            for sent in several[:place]:
                if moment < sent.attempt.deadline_at and sent.was_doubtful_at(moment):
                    yield (
                        f"attempt {later.attempt.attempt_id} holds {name} before the deadline of "
                        f"attempt {sent.attempt.attempt_id}"
                    )


def _attempts_add_up(outbox: Outbox) -> Iterator[str]:
    epoch = 0
    for number, attempt in outbox.attempts.items():
        items = outbox.items[number]
        payouts = [outbox.payouts[item.transaction_id] for item in items]
        body = b'{"transactions":[' + b",".join(bytes(each.item) for each in payouts) + b"]}"
        if sha256(body).digest() != bytes(attempt.body_sha256):
            yield f"attempt {number} has not the digest of its items"
        told = (attempt.items, attempt.amount, {attempt.currency})
        if told != (
            len(payouts),
            sum(each.amount for each in payouts),
            {each.currency for each in payouts},
        ):
            yield f"attempt {number} does not add up"
        if any((item.outcome is None) != (attempt.result is None) for item in items):
            yield f"attempt {number} is {attempt.result}, and not all its items are"
        if attempt.epoch < epoch:
            yield f"attempt {number} is of epoch {attempt.epoch}, behind one of epoch {epoch}"
        epoch = max(epoch, attempt.epoch)


# --- holds and days -----------------------------------------------------------------------------


def _holds_are_recorded(outbox: Outbox) -> Iterator[str]:
    for name, payout in outbox.payouts.items():
        lasting = [hold.hold_reason for hold in outbox.holds[name] if hold.ended_at is None]
        if lasting != ([] if payout.hold_reason is None else [payout.hold_reason]):
            yield f"payout {name} is held for {payout.hold_reason}, its history says {lasting}"
        # Once that one is decided, the next list of the market lets its credits go.
        if payout.hold_finding_id is None or payout.hold_reason == "market_held":
            continue
        finding = outbox.findings.get(payout.hold_finding_id)
        if finding is None or finding.state != "open":
            yield f"payout {name} is held without an open finding"


def _days_add_up(connection: Connection, outbox: Outbox) -> Iterator[str]:
    """What was entered is there, in one of four states, and was reported so."""
    claimed = set(connection.scalars(text("SELECT transaction_id FROM wallet.transaction_claim")))
    if gone := claimed - set(outbox.payouts):
        yield f"{len(gone)} payouts that were entered are nowhere, such as {min(gone)}"
    for name, payout in outbox.payouts.items():
        is_disposed = payout.disposition in ("processed", "lost")
        is_known = is_disposed or payout.disposition == "open"
        booked_on = payout.disposed_at and payout.disposed_at.astimezone(UTC).date()
        is_held = payout.hold_reason is not None
        if not is_known or (is_held and is_disposed) or payout.accounting_date != booked_on:
            yield f"payout {name} is in no state or in two: {_booking(payout)}"
    for report in _rows(connection, "wallet.reported_outcome"):
        for unit in ("payouts", "amount"):
            of = {
                name: getattr(report, f"{name}_{unit}")
                for name in ("entered", "processed", "lost", "open", "held")
            }
            if 2 * of["entered"] != sum(of.values()):
                yield f"report {report.report_id} does not add up: {of}"


def _nothing_is_unfinished(outbox: Outbox) -> Iterator[str]:
    for number, attempt in outbox.attempts.items():
        if attempt.result is None:
            yield f"attempt {number} is still open after a whole run"
    for name, payout in outbox.payouts.items():
        if payout.hold_reason is not None and payout.hold_finding_id is None:
            yield f"payout {name} is held ({payout.hold_reason}) and nobody was asked"


# --- secrets ------------------------------------------------------------------------------------


def _signatures(wallet: Wallet) -> Iterator[str]:
    """Those of the last requests, made anew."""
    for request in wallet.requests[-_SIGNATURES_LOOKED_FOR:]:
        if request["signature"] == "sound":
            body = '{"transactions":[' + ",".join(request["item_texts"]) + "]}"
            signed = f"{body}|{request['headers']['x-timestamp']}".encode()
            yield hmac.new(WALLET_SECRET.encode(), signed, sha256).hexdigest()


def _telling(secrets: Iterable[str]) -> list[str]:
    """How secrets show in a row's text, those of its columns that are bytes among it."""
    return [
        shown
        for secret in (WALLET_KEY, WALLET_SECRET, *secrets)
        for shown in (secret, secret.encode().hex())
    ]
