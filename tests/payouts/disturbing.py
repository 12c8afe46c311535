"""Resends as chaos plays them: settings, faults and disturbances drawn at random."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped
from include.sandbox.client import Sandbox
from include.warehouse.decisions import DecisionRefused
from tests.killing import Moment, Worker
from tests.payouts.resending import SETTINGS, Resend, names
from tests.warehouses import Warehouse

_PAYOUTS = (0, 1, 5, 12, 30)
_DAYS = ("2026-11-18", "2026-11-19", "2026-11-20", "2026-11-20")
_FROZEN_SHARE = 0.15
_RUNS_LEFT_ALONE = 12

# Whatever was executed, these say nothing that could be used, and mean no refusal.
_SILENT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("silence", {}),
    ("reset_before_answer", {}),
    ("closed_without_answer", {}),
    ("reset_in_body", {}),
    ("truncated_body", {}),
    ("bad_chunk", {}),
    ("html_page", {}),
    ("malformed_json", {}),
    ("raw_null_character", {}),
    ("status", {"status": 408}),
    ("status", {"status": 500}),
    ("status", {"status": 503}),
)
# These answer what was executed, if oddly.
_ODD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("missing_item", {}),
    ("missing_item", {"entry": -1}),
    ("foreign_item", {}),
    ("contradicting_items", {}),
    ("duplicated_entry", {}),
    ("shuffled_page", {}),
    ("escaped_null_character", {"field": "transactionId"}),
    ("huge_number", {"field": "balance"}),
    ("unknown_value", {"value": "RS_ERROR_NEW"}),
    ("changed_envelope", {"changes": {"status": "RS_ERROR"}}),
    ("late_execution", {"seconds": 0.2}),
    ("late_execution", {"seconds": 0.6}),
)
# And these refuse whole requests, none of which is executed.
_REFUSING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("status", {"status": 400}),
    ("status", {"status": 401}),
    ("status", {"status": 413}),
    ("status", {"status": 422}),
    ("status", {"status": 429, "retry_after": "0"}),
    ("redirect", {}),
)
_REFUSALS = ("RS_ERROR", "RS_ERROR_USER_DISABLED", "RS_ERROR_NEW")
# What a partner repeats for ever would stop every run for ever.
_FORGOTTEN_REFUSALS = (*_REFUSALS, "RS_ERROR_INVALID_TOKEN")
_DECISIONS = ("lost", "processed", "send_again", "release_hold", "keep")
# How a run may end that was not killed, but met a partner in trouble or payouts that wait.
_ENDS = ("BreakerTripped", "DayUnfinished", "PartnerUnavailable", "SendingStopped")


class DisturbedResend(Resend):
    """A resend with settings drawn at random, its partner's among them."""

    def __init__(self, warehouse: Warehouse, sandbox: Sandbox, draw: random.Random) -> None:
        is_idempotent = draw.random() < 0.8
        self._drawn = draw_sending(draw, is_idempotent)
        self._partner = draw_partner(draw, is_idempotent)
        super().__init__(warehouse, sandbox, SETTINGS.model_copy(update=self._drawn))
        self._draw = draw
        self._round = 0
        self._failures: list[str] = []
        sandbox.configure("wallet", **self._partner)
        # Here, so that the workers need not compile it all again.
        self.enter("zero")
        self.send()
        self.enter(*names(30, "first-"))
        points = self.points()
        self._commits = [point for point in points if point.kind == "commit"]
        self._statements = [point for point in points if point.kind == "statement"]

    def __str__(self) -> str:
        return f"{self._drawn}, {self._partner}"

    def make_trouble(self) -> None:
        """Enter some payouts, order some faults, and let the partner refuse some of what comes."""
        draw = self._draw
        self._round += 1
        for currency in draw.sample(("EUR", "USD", "GBP"), draw.choice((1, 1, 2))):
            entered = names(draw.choice(_PAYOUTS), f"{self._round:03}-{currency}-")
            self.enter(*entered, currency=currency, business_date=draw.choice(_DAYS))
        let_refuse(self.sandbox, draw, draw.choice((0, 0, 0.1, 0.2, 0.4, 1.0)), self._partner)
        for _ in range(draw.choice((0, 1, 1, 2))):
            order_fault(self.sandbox, draw)
        if draw.random() < 0.3:
            self.let_the_window_close()

    def moment(self) -> Moment:
        """Any commit or statement; the first run was the longest, so most often an early one."""
        points = self._draw.choice((self._commits, self._statements))
        point = points[int(len(points) * self._draw.random() ** 2)]
        return Moment(self._draw.choice(("before", "after")), point)

    def disturb(self, moment: Moment) -> str | None:
        """Kill a run at `moment`, or freeze it there until another one has gone on: the point."""
        self.let_the_lease_run_out()
        if self._draw.random() >= _FROZEN_SHARE:
            return self.kill(moment)
        return self.freeze(moment)

    def kill(self, moment: Moment) -> str | None:
        """The same as for every resend; a run that ends otherwise than it may is wrong."""
        with Worker(self.warehouse.engine, self.tasks, moment) as worker:
            ending = worker.wait()
            if ending == "failed" and worker.error_name() not in _ENDS:
                self._failures.append(f"a run failed by itself: {worker.error()}")
            return str(worker.points()[-1]) if ending == "killed" else None

    def wrong(self, *, is_left_alone: bool = False) -> list[str]:
        """What the checker finds now, and runs that failed by themselves."""
        return self._failures + super().wrong(is_left_alone=is_left_alone)

    def wrong_when_left_alone(self) -> list[str]:
        """What the checker finds once the trouble is over and people have decided what they can."""
        self.sandbox.forget_faults()
        self.sandbox.configure("wallet", codes=[], items_limit=None)
        why = ""
        for number in range(_RUNS_LEFT_ALONE):
            # What is refused for unknown reasons is held once another payout was paid.
            self.enter(f"{self._round:03}-good-{number}")
            self.let_the_lease_run_out()
            self.let_the_window_close()
            try:
                self.send()
                break
            except (BreakerTripped, PartnerUnavailable, SendingStopped) as error:
                why = f"{type(error).__name__}: {error}"
            self._decide()
        else:
            return [f"{_RUNS_LEFT_ALONE} runs did not bring it to an end; the last one said: {why}"]
        found = self.wrong(is_left_alone=True)
        self._decide()
        return found

    def _decide(self) -> None:
        with suppress(DecisionRefused):
            self.decide(*self._draw.sample(_DECISIONS, len(_DECISIONS)))


def draw_sending(draw: random.Random, is_idempotent: bool) -> dict[str, Any]:
    """How payouts are sent: settings of ours."""
    return {
        "wallet_lease_seconds": 6,
        "wallet_deadline_seconds": 0.4,
        "wallet_requests_at_once": draw.choice((1, 1, 2, 4)),
        "wallet_batch_items": draw.choice((1, 3, 10)),
        "wallet_stage_items": draw.choice((5, 20, 5000)),
        "wallet_sends_a_window": draw.choice((1, 2, 3)),
        "wallet_windows": draw.choice((1, 2, 3)),
        "wallet_partner_idempotent": is_idempotent,
    }


def draw_partner(draw: random.Random, is_idempotent: bool) -> dict[str, Any]:
    """How the partner takes them: settings of the sandbox's wallet."""
    return {
        "repeats": draw.choice(("first_answer", "duplicate"))
        if is_idempotent
        else "credited_again",
        "stores_refusals": draw.choice((True, False)),
        "checks_accounts_first": draw.choice((True, False)),
        "echoes_own_ids": draw.choice((True, False)),
        "signed_bytes": draw.choice(("as_sent", "reserialised")),
        "refusals": draw.choice(("envelope", "status")),
        "items_limit": draw.choice((None, None, 4)),
    }


def let_refuse(
    sandbox: Sandbox, draw: random.Random, share: float, partner: dict[str, Any]
) -> None:
    """Have the partner refuse this share of the payouts from now on."""
    known = _REFUSALS if partner["stores_refusals"] else _FORGOTTEN_REFUSALS
    codes = [{"code": draw.choice(known), "share": share}] if share else []
    sandbox.configure("wallet", codes=codes)


def order_fault(sandbox: Sandbox, draw: random.Random) -> None:
    """Have one of the next requests, or two, go wrong, executed or not."""
    family = draw.choice((_SILENT, _ODD, _REFUSING))
    kind, parameters = draw.choice(family)
    order: dict[str, Any] = {"times": draw.choice((1, 1, 2)), **parameters}
    if family is _SILENT:
        order |= draw.choice(({"executed": True}, {"executed": False}, {"executed_items": 2}))
    elif family is _REFUSING:
        order["executed"] = False
    sandbox.fault("wallet", kind, after_calls=draw.randrange(6), **order)
