"""How a failure is told: in the last lines of its task's log, and in the alert."""

from __future__ import annotations

import logging
from textwrap import fill

from airflow.sdk import Context
from airflow.sdk.log import redact  # type: ignore[attr-defined]

_LINE_CHARACTERS = 90
_log = logging.getLogger(__name__)


def tell_failure(context: Context) -> None:
    """End the task's log with what its error says; the callback of every failed try."""
    error = context.get("exception")
    if error is None:
        return
    message = told(error)
    if not _is_ours(error):
        message += (
            ". What was committed before is kept. The traceback above says where it happened, the "
            "runbook in the DAG's documentation what to do."
        )
    # The UI folds away what a failed task still logs, and cuts long lines off.
    _log.info("::endgroup::")
    _log.error(fill(message, _LINE_CHARACTERS, break_on_hyphens=False, break_long_words=False))


def told(error: BaseException | str) -> str:
    """What an error says: all of it if it is one of ours, its first line if it is any other's."""
    # Further lines of a database's error quote rows and statements.
    text = (
        str(error)
        if _is_ours(error)
        else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    )
    return str(redact(text))


def _is_ours(error: BaseException | str) -> bool:
    return isinstance(error, str) or type(error).__module__.startswith("include.")
