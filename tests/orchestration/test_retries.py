"""Retries: what Airflow tries again, and what waits for a person."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from sqlalchemy.exc import OperationalError

from include.catchup.log import PageStopped
from include.orchestration.connections import ConnectionIncomplete
from include.orchestration.importing import FilesRefused, ImportFolderUnusable
from include.orchestration.resending import BusinessDateRefused, DryRunIncomplete
from include.orchestration.retries import RetryByRecovery
from include.payouts.outcome import DayUnfinished, OutboxUnsound
from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped
from include.providers.errors import Ambiguous, Fatal, Retriable
from include.quality.gates import BatchHeld
from include.warehouse.clock import ClocksDiffer
from include.warehouse.leases import Lease, LeaseLost
from include.warehouse.publishing import StagedRowsMissing

POLICY = RetryByRecovery()


@pytest.mark.parametrize(
    "error",
    [
        Fatal("ticktock", "It did not accept the key (401).", "Check the password."),
        Ambiguous("wallet", "No answer came.", "Ask the partner."),
        BatchHeld("check_raw holds batch 7 (finding 3)."),
        PageStopped("Finding 4 is open."),
        StagedRowsMissing("batch 8 (finding 5)."),
        ConnectionIncomplete("ticktock", "does not exist", "the key"),
        SendingStopped("The signature was refused."),
        BreakerTripped("EUR is stopped (finding 6)."),
        OutboxUnsound("A payout that was sent has no bytes."),
        DayUnfinished("2 payouts are open."),
        BusinessDateRefused("2099-01-01 is not over."),
        DryRunIncomplete(),
        FilesRefused("1 files stay where they are."),
        ImportFolderUnusable("It is not set."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_waits_for_a_person_is_not_tried_again(error: Exception) -> None:
    decision = POLICY.evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason is not None
    assert str(error) in decision.reason


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [(17.5, timedelta(seconds=17.5)), (None, None), (0.0, None)],
)
def test_what_may_pass_is_tried_again_when_the_provider_says(
    retry_after: float | None, delay: timedelta | None
) -> None:
    error = Retriable("ticktock", "Too many requests.", "Wait.", retry_after=retry_after)
    decision = POLICY.evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == delay
    assert decision.reason == str(error)


@pytest.mark.parametrize(
    "error",
    [
        ClocksDiffer(1800.0),
        PartnerUnavailable("It does not answer."),
        LeaseLost(Lease("wallet/sending", 7)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_tried_again_and_told(error: Exception) -> None:
    decision = POLICY.evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay is None
    assert decision.reason == str(error)


@pytest.mark.parametrize(
    "error", [OperationalError("SELECT 1", {}, Exception("gone")), MemoryError(), KeyError("x")]
)
def test_everything_else_is_tried_again_as_the_task_says(error: Exception) -> None:
    assert POLICY.evaluate(error, try_number=1, max_tries=3).action is RetryAction.DEFAULT
