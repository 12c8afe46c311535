"""Which failures Airflow tries again, and when: decided by what the error says of recovery."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Context
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from include.catchup.log import PageStopped
from include.markets.events import EventsStopped
from include.markets.publishing import MarketsHeld
from include.markets.queue import MarketsRefused
from include.orchestration.connections import ConnectionIncomplete
from include.orchestration.importing import FilesRefused, ImportFolderUnusable
from include.orchestration.resending import BusinessDateRefused, DryRunIncomplete
from include.payouts.outcome import DayUnfinished, OutboxUnsound
from include.payouts.sending import BreakerTripped, PartnerUnavailable, SendingStopped
from include.providers.errors import Ambiguous, Fatal, Retriable
from include.quality.gates import BatchHeld
from include.warehouse.clock import ClocksDiffer
from include.warehouse.leases import LeaseLost
from include.warehouse.publishing import StagedRowsMissing

# A person must change or decide something first; every one of these says what.
WAITS_FOR_A_PERSON = (
    Ambiguous,
    BatchHeld,
    BreakerTripped,
    BusinessDateRefused,
    ConnectionIncomplete,
    DayUnfinished,
    DryRunIncomplete,
    EventsStopped,
    Fatal,
    FilesRefused,
    ImportFolderUnusable,
    MarketsHeld,
    MarketsRefused,
    OutboxUnsound,
    PageStopped,
    SendingStopped,
    StagedRowsMissing,
)

# It passes by itself, or another worker may do better; the delay is the task's.
PASSES_BY_ITSELF = (ClocksDiffer, LeaseLost, PartnerUnavailable)


class RetryByRecovery(RetryPolicy):
    """Try again what may pass by itself, and stop at once where only a person can help.

    A provider's own Retry-After becomes the delay; everything else waits as the task says.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide about one failure; the reason is shown on the task and in its log."""
        if isinstance(exception, WAITS_FOR_A_PERSON):
            return RetryDecision.fail(f"Not tried again, a person must act first. {exception}")
        if isinstance(exception, Retriable):
            delay = exception.retry_after
            return RetryDecision.retry(timedelta(seconds=delay) if delay else None, str(exception))
        if isinstance(exception, PASSES_BY_ITSELF):
            return RetryDecision.retry(None, str(exception))
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """There is nothing to it but its name."""
        return {"__type": type(self).__name__}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryByRecovery:
        """The one policy there is."""
        return cls()
