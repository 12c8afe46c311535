"""What every task shares: its settings, its defaults, and how it tells what it did."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import task as airflow_task

from include.orchestration.alerting import alert_failure
from include.orchestration.retries import RetryByRecovery
from include.orchestration.telling import tell_failure
from include.settings import Settings

_log = logging.getLogger(__name__)

# Read when the module is imported, which is before a task's process is forked.
SETTINGS = Settings()

# One result a task.  Airflow takes a result annotated as a dict for several outputs and stores each
# count apart, with a call to its API for every one: longer together than a step with nothing to do.
task = partial(airflow_task, multiple_outputs=False)

# Airflow gives a free worker to the task with the highest weight, that of all behind it included:
# without this, a shard of markets would go before a decision, a watch and the resend.
URGENT = 100

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "settlements",
    "pool": "warehouse",
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
    "retry_policy": RetryByRecovery(),
    "execution_timeout": timedelta(hours=1),
    "on_retry_callback": tell_failure,
    "on_failure_callback": [alert_failure, tell_failure],
}


def counted(result: Any) -> dict[str, Any] | None:
    """A result in counts, which are logged; None, which Airflow need not store, if all are 0."""
    counts = result._asdict() if hasattr(result, "_asdict") else asdict(result)
    _log.info("%s: %s", type(result).__name__, counts)
    return counts if any(isinstance(count, int) and count for count in counts.values()) else None
