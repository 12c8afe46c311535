"""Sending the outbox to the wallet: every payout once, and nothing concluded from silence.

One process of all sends (`ops.lease`).  A currency begins with one payout, then ten, then full
requests, several at once.  What is left, for whatever reason, is the next run's: it reads from the
warehouse what was sent and answered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice, repeat
from typing import NamedTuple

from sqlalchemy import Engine

from include.payouts import answers, doubts, due, outbox, stages, windows
from include.payouts.attempts import Batch, Sender, Stage
from include.payouts.due import CANARY_ITEMS, ITEMS_AGAIN, Errand
from include.payouts.judging import ALIKE_AT_CANARY, ItemOutcome, Judgement, Result
from include.payouts.outbox import CREDITS
from include.payouts.partner import Partner, Wire
from include.payouts.posting import Came, Delivery, Posting, Waiting
from include.payouts.stages import CANARY
from include.providers.deadlines import now
from include.providers.http import Answer
from include.settings import Settings
from include.warehouse.leases import LeaseHeld, LeaseLost, hold_lease

_log = logging.getLogger(__name__)

THEN_CREDITS = (
    "There is nothing to clear then: the next run of settle_markets sends the credits that the "
    "wallet never took, and resend_settlements sends again what it has answered, those of a day at "
    "01:00 UTC of the next day."
)
"""What becomes of credits once a person has mended what stopped them."""

LEASE = "wallet/sending"
"""Held by whoever posts to the wallet, whatever for."""

_SILENT_REQUESTS = 3
_FIRST_WAIT_SECONDS = 1.0
_SAID_EVERY_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 60.0
_EXAMPLES = 5
# Markets wait for the run that sends their credits.
_BRIEF_WAIT_SECONDS = 30.0
_BRIEF_SECONDS = 600.0
# Each run would bring more credits into doubt while the wallet is silent.
_SILENCE_SECONDS = 900.0


class SendingStopped(Exception):
    """Nothing more is sent before a person has changed something; the message says what."""


class BreakerTripped(Exception):
    """Too many payouts of a currency were refused alike; a finding asks what becomes of them."""


class PartnerUnavailable(Exception):
    """The partner cannot be reached or does not answer; later it may."""


@dataclass
class Sent:
    """What a run of sending did: requests, and what became of the payouts in them.

    `processed` and `lost` are so for ever.  `held` wait for a decision.  `in_doubt` counts answers
    that did not come, one for each time.
    """

    requests: int = 0
    processed: int = 0
    lost: int = 0
    held: int = 0
    in_doubt: int = 0


def send(
    engine: Engine,
    partner: Partner,
    settings: Settings,
    business_date: date,
    *,
    run_id: str | None = None,
    batch_items: int | None = None,
) -> Sent:
    """Send every payout that is due up to `business_date`, and store what came of each.

    Waits until no other process sends.  Raises `SendingStopped`, `BreakerTripped`,
    `PartnerUnavailable` or `LeaseLost`; what was done before stays done, and whoever calls again
    goes on from there.
    """
    outbox.freeze_new(engine)
    errand = Errand(business_date, batch_items or settings.wallet_batch_items)
    with _tenure(engine, partner, settings, run_id, errand) as run:
        run.carry_out()
    return run.sent


def send_credits(
    engine: Engine, partner: Partner, settings: Settings, *, run_id: str | None = None
) -> Sent:
    """Send the credits of prediction markets that were never sent, of whichever day they are, and
    store what came of each.

    Whatever keeps them from being sent now, the partner or another sender, is waited for no longer
    than a minute and raises nothing; what they are for, waits for the next run.  Nothing is begun
    while the wallet's last requests are in doubt and a quarter of an hour has not passed.  Raises
    `SendingStopped` or `BreakerTripped`.
    """
    if windows.is_silent(engine, _SILENT_REQUESTS, _SILENCE_SECONDS):
        _log.warning(
            "No credit is sent now: the last %d requests to the wallet got no answer that says "
            "anything about their payouts. A run tries it again %.0f minutes after the last of "
            "them. If it lasts, ask the partner.",
            _SILENT_REQUESTS,
            _SILENCE_SECONDS / 60,
        )
        return Sent()
    outbox.freeze_new(engine, which=CREDITS)
    waiting_for_a_person = frozenset(stages.stopped_currencies(engine))
    errand = Errand(
        date.max, settings.wallet_batch_items, CREDITS, waiting_for_a_person, is_brief=True
    )
    sent = Sent()
    # As long as a sender that has died keeps others waiting: then somebody lives, and sends.
    patience = settings.wallet_lease_seconds
    try:
        with _tenure(engine, partner, settings, run_id, errand, patience) as run:
            sent = run.sent
            try:
                run.carry_out()
            except PartnerUnavailable as passing:
                _log.warning("What was not sent waits for a later run. %s", passing)
                run.raise_if_stopped()
    except (LeaseHeld, LeaseLost) as passing:
        _log.warning("The credits that are left wait for the next run. %s", passing)
    return sent


@contextmanager
def _tenure(
    engine: Engine,
    partner: Partner,
    settings: Settings,
    run_id: str | None,
    errand: Errand,
    patience: float = math.inf,
) -> Iterator[_Run]:
    """Wait until nobody else sends, and hold the sender lock for one run."""
    seconds = settings.wallet_lease_seconds
    with hold_lease(engine, "sender", LEASE, run_id, seconds, patience=patience) as lease:
        # One that is brief leaves no window behind that would have less time for the next.
        window_seconds = 0 if errand.is_brief else settings.wallet_window_seconds
        sender, closes_at = windows.open_window(engine, lease, run_id, window_seconds)
        with (
            closing(Wire(partner, settings)) as wire,
            closing(Posting(engine, wire, settings, sender)) as posting,
        ):
            try:
                yield _Run(engine, posting, settings, sender, closes_at, errand)
            finally:
                outbox.report_outbox(engine)


class _Unanswered(NamedTuple):
    """A request that got no answer that counts: in which currency, and what came instead."""

    currency: str
    told: str


class _Run:
    """One tenure of the sender lock: what is sent, in which order, and what stops it."""

    def __init__(
        self,
        engine: Engine,
        posting: Posting,
        settings: Settings,
        sender: Sender,
        closes_at: float,
        errand: Errand,
    ) -> None:
        began = now()
        self._engine = engine
        self._posting = posting
        self._settings = settings
        self._sender = sender
        self._closes_at = began + _BRIEF_WAIT_SECONDS if errand.is_brief else closes_at
        self._ends_at = began + _BRIEF_SECONDS if errand.is_brief else math.inf
        self._errand = errand
        self._batch_items = errand.batch_items
        self._unanswered: list[_Unanswered] = []
        self._silent: dict[str, str] = {}
        self._has_ok = False
        self._unclear: list[str] = []
        self._to_judge: set[Stage] = set()
        self._to_judge_again: set[Stage] = set()
        self._proven: set[str] = set()
        self._stopped: dict[str, str] = {}
        self._tripped: dict[str, frozenset[str]] = {}
        self._filled: dict[str, tuple[int, int]] = {}
        self._said_at = began
        self.sent = Sent()

    def carry_out(self) -> None:
        """Finish what an earlier sender left, then send what is due, then what is in doubt."""
        if abandoned := windows.close_abandoned(self._engine, self._sender):
            _log.warning("%d requests of an earlier run are in doubt: it ended first.", abandoned)
        self._judge_what_waits()
        try:
            self._send_fresh()
            self._settle_unclear()
            if not self._errand.is_brief:
                self._send_again()
                self._settle_unclear()
        except LeaseLost:
            raise
        except BaseException:
            self._posting.close()
            self._hold_unclear()
            self._judge_what_waits()
            raise
        if not self.sent.requests:
            what = "can be sent now" if self._currencies() else "is left to send"
            _log.info("Nothing %s up to %s.", what, self._errand.until)
        if self._silent:
            raise self._unavailable(self._silent)
        self.raise_if_stopped()

    # What is to be sent.

    def _currencies(self) -> list[str]:
        return due.currencies(self._engine, self._errand)

    def _fresh(self, currency: str) -> Iterator[str]:
        return due.never_sent(self._engine, self._errand, currency)

    def _send_fresh(self) -> None:
        """Send what never was; twice where the canary proved nothing: others may have meanwhile."""
        currencies = self._currencies()
        for currency in currencies:
            self._send(currency, self._fresh(currency), self._batch_items)
        if self._has_ok:
            for currency in currencies:
                if currency not in self._proven:
                    self._send(currency, self._fresh(currency), self._batch_items)

    def _send_again(self) -> None:
        """Send what was sent before, as often as this window allows.

        In ever smaller requests: a payout at which the partner breaks takes few others along.
        """
        sizes = chain(ITEMS_AGAIN, repeat(1))
        size = next(sizes)
        while True:
            self.sent.held += doubts.hold_used_up(
                self._engine, self._sender, self._settings, self._errand.until
            )
            requests = self.sent.requests
            waits: list[float] = []
            currencies = self._currencies()
            # What our key was refused for comes last: if it is again, the run stops there.
            for was_blocked in (False, True):
                for currency in currencies:
                    self._send(currency, self._ready(currency, waits, was_blocked), size)
            if self.sent.requests > requests:
                size = next(sizes)
                continue
            if not waits or now() + min(waits) > self._closes_at:
                return
            _log.info("The next payouts in doubt are sent again in %.0f s.", min(waits))
            self._posting.pause(min(waits))

    def _ready(self, currency: str, waits: list[float], was_blocked: bool) -> Iterator[str]:
        """Those that may be sent now; of the others `waits` gets the seconds until they may."""
        for again in doubts.sent_before(
            self._engine, self._sender, self._settings, self._errand.until, currency, was_blocked
        ):
            # What never was sent (it came meanwhile, or was locked) waits for a canary.
            if not again.is_sent and currency not in self._proven:
                continue
            if again.seconds <= 0:
                yield again.transaction_id
            elif not self._is_passed_over(currency):
                waits.append(again.seconds)

    # One currency.

    def _is_passed_over(self, currency: str) -> bool:
        """Whether nothing more of it is sent in this run."""
        return currency in self._stopped or currency in self._silent

    def _send(self, currency: str, ids: Iterator[str], size: int) -> None:
        if not self._is_passed_over(currency) and currency not in self._proven:
            self._send_canary(currency, ids)
        if not self._is_passed_over(currency) and currency in self._proven:
            self._send_in_full(currency, ids, size)

    def _send_canary(self, currency: str, ids: Iterator[str]) -> None:
        """One payout, another one if its answer says nothing, then ten."""
        stage = Stage(self._sender.lease.epoch, currency, CANARY)
        for transaction_id in islice(ids, ALIKE_AT_CANARY):
            outcomes = self._deliver(iter([Batch(stage, [transaction_id])]))
            if outcomes & {ItemOutcome.OK, ItemOutcome.REFUSED}:
                self._proven.add(currency)
            if currency in self._proven or self._is_passed_over(currency):
                break
        if currency in self._proven and (ten := list(islice(ids, CANARY_ITEMS))):
            self._deliver(iter([Batch(stage, ten)]))
        self._judge(stage)

    def _send_in_full(self, currency: str, ids: Iterator[str], size: int) -> None:
        """Full requests, several at once; a stage is judged as soon as all of it is answered."""
        self._deliver(self._full_batches(currency, ids, size))
        for stage in sorted(self._to_judge):
            self._judge(stage)

    def _full_batches(self, currency: str, ids: Iterator[str], size: int) -> Iterator[Batch]:
        while not self._is_passed_over(currency) and now() < self._ends_at:
            batch = list(islice(ids, min(size, self._batch_items)))
            if not batch:
                return
            yield Batch(self._next_stage(currency, len(batch)), batch)

    def _next_stage(self, currency: str, items: int) -> Stage:
        number, filled = self._filled.get(currency, (CANARY + 1, 0))
        if filled >= self._settings.wallet_stage_items:
            number, filled = number + 1, 0
        self._filled[currency] = number, filled + items
        return Stage(self._sender.lease.epoch, currency, number)

    # Requests, several at once.

    def _deliver(self, batches: Iterator[Batch]) -> set[ItemOutcome]:
        """Send the payouts until each of them was answered or is in doubt: what came of them."""
        outcomes: set[ItemOutcome] = set()
        try:
            while self._posting.begin(batches) or self._posting.is_busy:
                came = self._posting.harvest()
                self._take(came)
                for delivery, waiting in came.requests:
                    outcomes |= {item.outcome for item in delivery.told.judgement.items}
                    self._conclude(delivery, waiting)
                self._judge_finished()
                self._say_how_far()
        except BaseException:
            self._finish_what_is_under_way()
            raise
        return outcomes

    def _finish_what_is_under_way(self) -> None:
        """Count what came of it, however this run ends."""
        self._posting.finish()
        try:
            self._take(self._posting.stored())
        finally:
            self._take(self._posting.store_answered())

    def _take(self, came: Came) -> None:
        """Count what was stored."""
        self.sent.processed += came.closed.processed
        self.sent.held += came.closed.contested
        self.sent.in_doubt += came.closed.in_doubt
        for delivery, waiting in came.requests:
            self._count(delivery, waiting.batch.stage)

    def _count(self, delivery: Delivery, stage: Stage) -> None:
        judgement = delivery.told.judgement
        outcomes = {item.outcome for item in judgement.items}
        self.sent.requests += delivery.is_begun
        self._has_ok = self._has_ok or ItemOutcome.OK in outcomes
        if outcomes & {ItemOutcome.REFUSED, ItemOutcome.CONTESTED, ItemOutcome.UNCLEAR}:
            self._to_judge.add(stage)
            unclear = judgement.items_of(ItemOutcome.UNCLEAR)
            self._unclear += [item.transaction_id for item in unclear]
        if outcomes == {ItemOutcome.IN_DOUBT}:
            told = judgement.detail or "other payouts"
            self._unanswered.append(_Unanswered(stage.currency, told))
        elif judgement.result is Result.ANSWERED:
            self._unanswered.clear()
            if self._errand.is_brief:
                self._closes_at = now() + _BRIEF_WAIT_SECONDS

    def _conclude(self, delivery: Delivery, waiting: Waiting) -> None:
        """Stop, or send again what was for sure not executed."""
        judgement = delivery.told.judgement
        if len(self._unanswered) >= _SILENT_REQUESTS:
            self._give_up()
        if judgement.stops:
            raise SendingStopped(_refusal(judgement, self._then))
        if waiting.batch.stage.currency in self._silent:
            return
        if not delivery.is_begun:
            self._posting.add(waiting)
        elif judgement.result is Result.NOT_EXECUTED:
            self._posting.add(self._try_later(waiting, judgement, delivery.retry_after))
        elif judgement.is_bisected:
            ids = [item.transaction_id for item in judgement.items]
            self._posting.add(*self._halves(waiting.batch.stage, ids, delivery.told.answer))

    def _give_up(self) -> None:
        """Pass over the currency that gets no answer; if it is more than one, end the run."""
        silent = {each.currency: each.told for each in self._unanswered}
        if len(silent) > 1:
            raise self._unavailable(self._silent | silent)
        self._silent |= silent
        self._posting.recall()

    def _unavailable(self, silent: Mapping[str, str]) -> PartnerUnavailable:
        told = "; ".join(f"{currency}: {what}" for currency, what in sorted(silent.items()))
        silence = (
            f"The wallet gave {_SILENT_REQUESTS} requests one after the other no answer that says "
            f"anything about their payouts ({told})."
        )
        if self._errand.is_brief:
            return PartnerUnavailable(silence)
        return PartnerUnavailable(
            f"{silence} These are in doubt, and what was not sent in {', '.join(sorted(silent))} "
            "is open. Nothing to do now: this task is tried again by itself, and sends other "
            "currencies first. If it lasts, ask the partner."
        )

    def _halves(self, stage: Stage, ids: list[str], answer: Answer | None) -> list[Waiting]:
        half = len(ids) // 2
        if answer is not None and answer.status == 413:
            self._batch_items = max(1, min(self._batch_items, half))
        return [Waiting(Batch(stage, ids[half:])), Waiting(Batch(stage, ids[:half]))]

    def _try_later(
        self, waiting: Waiting, judgement: Judgement, retry_after: float | None
    ) -> Waiting:
        seconds = max(
            retry_after or 0.0, min(_FIRST_WAIT_SECONDS * 2**waiting.tries, _LONGEST_WAIT_SECONDS)
        )
        may_begin_at = now() + seconds
        if may_begin_at > self._closes_at and self._errand.is_brief:
            raise PartnerUnavailable(f"Not executed: {judgement.detail}.")
        if may_begin_at > self._closes_at:
            raise PartnerUnavailable(
                f"The wallet could not be reached until the window closed ({judgement.detail}). "
                "What was not sent is open, and nothing of it is lost. Ask the partner, or look at "
                "the network; then clear this task."
            )
        _log.warning("Not executed (%s). Trying again in %.0f s.", judgement.detail, seconds)
        return Waiting(waiting.batch, waiting.tries + 1, may_begin_at)

    def _say_how_far(self) -> None:
        if now() - self._said_at >= _SAID_EVERY_SECONDS:
            self._said_at = now()
            sent = self.sent
            _log.info(
                "So far %d requests: %d payouts processed, %d lost, %d held; %d times one got no "
                "answer that counts.",
                *(sent.requests, sent.processed, sent.lost, sent.held, sent.in_doubt),
            )

    # What becomes of refusals.

    def _judge_finished(self) -> None:
        """Judge the stages that are full and answered."""
        for stage in sorted(self._to_judge - self._posting.stages_in_hand):
            filling, _ = self._filled.get(stage.currency, (CANARY, 0))
            if CANARY < stage.number < filling:
                self._judge(stage)

    def _judge(self, stage: Stage) -> None:
        self._hold_unclear()
        if stage not in self._to_judge:
            return
        self._to_judge.discard(stage)
        if self._unclear:
            # What is not held yet, nobody can be asked about.
            self._to_judge_again.add(stage)
        tripped = self._tripped.get(stage.currency, frozenset())
        judged = stages.judge_stage(self._engine, self._sender, stage, self._settings, tripped)
        self.sent.lost += judged.lost
        self.sent.held += judged.held
        if judged.codes:
            self._tripped[stage.currency] = tripped | frozenset(judged.codes)
            self._stopped[stage.currency] = f"too many alike: {', '.join(judged.codes)}"
            self._note_findings()

    def _judge_what_waits(self) -> None:
        """Judge the stages that were broken off, by an earlier sender or in this run."""
        for stage in stages.unjudged_stages(self._engine):
            self._to_judge.add(stage)
            self._judge(stage)
        self._note_findings()

    def _note_findings(self) -> None:
        for currency, number in stages.stopped_currencies(self._engine).items():
            why = self._stopped.get(currency, "too many were refused alike")
            if "finding" not in why:
                self._stopped[currency] = f"{why}, finding {number}"

    def _settle_unclear(self) -> None:
        """What was refused for an unknown reason is held, unless the reason may be ours: another
        payout was processed in this run.
        """
        if self._unclear and not self._has_ok:
            raise SendingStopped(
                f"The wallet refused {len(self._unclear)} payouts in a way that is not known "
                f"({self._describe_unclear()}), and processed none in this run: the reason may be "
                "ours. Nothing is held or lost, all are open. Ask the partner what its answer "
                f"means; SETTLEMENTS_WALLET_ITEM_CODES can say so. {self._then}"
            )
        self._hold_unclear()

    def _describe_unclear(self) -> str:
        said = answers.unclear_answers(self._engine, self._unclear)
        return "; ".join(said)

    def _hold_unclear(self) -> None:
        if self._unclear and self._has_ok:
            self.sent.held += answers.hold_unclear(self._engine, self._sender, self._unclear)
            self._unclear = []
            again, self._to_judge_again = self._to_judge_again, set()
            self._to_judge |= again
            for stage in sorted(again):
                self._judge(stage)

    def raise_if_stopped(self) -> None:
        """Raise `BreakerTripped` if a currency waits in which anything is due.

        After a brief run nothing else tells of one that it has stopped: also if nothing is.
        """
        concerned = set(self._currencies())
        if self._errand.is_brief:
            concerned |= self._tripped.keys()
        stopped = {each: why for each, why in self._stopped.items() if each in concerned}
        if stopped:
            told = "; ".join(f"{currency}: {why}" for currency, why in sorted(stopped.items()))
            raise BreakerTripped(
                f"Nothing more is sent in {', '.join(sorted(stopped))} ({told}). What was not sent "
                f"is open. Decide on the finding with resolve_findings. {self._then}"
            )

    @property
    def _then(self) -> str:
        """What a person does once the cause is gone."""
        return THEN_CREDITS if self._errand.is_brief else "Then clear this task."


def _refusal(judgement: Judgement, then: str) -> str:
    blocked = judgement.items_of(ItemOutcome.BLOCKED)
    codes = sorted({item.code or "no code" for item in blocked})
    ids = ", ".join(item.transaction_id for item in blocked[:_EXAMPLES])
    what = judgement.detail or (
        f"{len(blocked)} of {len(judgement.items)} payouts answered with {', '.join(codes)}, such "
        f"as {ids}"
    )
    return (
        f"The wallet refused our key, our signature or our way of writing ({what}). Nothing is "
        "lost: all that was not answered as booked is open. Check `base_url`, password and "
        "`signing_secret` of the Airflow connection `wallet`, and this machine's clock, or ask the "
        f"partner. {then}"
    )
