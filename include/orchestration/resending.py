"""The form of `resend_settlements`, which day a run is about, and what a dry run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.sdk import Param

from include.payouts.due import Planned

BATCH_ITEMS_LIMIT = 1000

_MAY_WAIT = (
    "What is in doubt is sent only as often as a window allows: some of it may have to wait for "
    "the next one, or for a decision once its windows are used up."
)


class BusinessDateRefused(Exception):
    """The run is about a day that cannot be sent; the message says what to enter instead."""


class DryRunIncomplete(Exception):
    """A dry run has not come to say what would be sent."""

    def __init__(self) -> None:
        super().__init__(
            "Dry run: a task before this one has failed, so what would be sent is not known. "
            "Nothing was sent. Do what its log says, then clear it with *Downstream*."
        )


def form_fields() -> dict[str, Param]:
    """The fields of the form, as Airflow shows and validates them; none has to be filled in."""
    return {
        "business_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Business date",
            description="Send what is open of this UTC day and of all days before. Empty: "
            "yesterday, or the day of the run's partition key.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Show in the log of `send` what would be sent, and send nothing.",
        ),
        "batch_items": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=BATCH_ITEMS_LIMIT,
            title="Payouts in a request",
            description="Empty: as SETTLEMENTS_WALLET_BATCH_ITEMS says. 1 sends them one by one, "
            "behind the first eleven.",
        ),
    }


def business_date(
    given: str | None,
    partition_key: str | None,
    run_after: datetime,
    now: datetime | None = None,
) -> date:
    """The last UTC day whose payouts the run sends: as entered, else the run's key, else the day
    before the run.

    Raises `BusinessDateRefused` for what is no day, and for one that is not over.
    """
    text = given or partition_key
    day = _read_day(text) if text else run_after.astimezone(UTC).date() - timedelta(days=1)
    yesterday = (now or datetime.now(UTC)).date() - timedelta(days=1)
    if day > yesterday:
        raise BusinessDateRefused(
            f"The payouts of {day} cannot be sent before that day is over (UTC). Nothing was sent. "
            f"Trigger the DAG again with {yesterday} or an earlier day as business_date."
        )
    return day


def _read_day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no zone
    except ValueError:
        raise BusinessDateRefused(
            f"{text!r} is no day. Nothing was sent. Trigger the DAG again with a day such as "
            "2026-11-20 as business_date, or leave it empty for yesterday."
        ) from None


def describe_plan(day: date, planned: Sequence[Planned]) -> str:
    """What a dry run has found, as a table."""
    if not planned:
        return f"Dry run: no payout of {day} or before is open and free of a hold. Nothing to send."
    heads = ("currency", "payouts", "amount", "requests", "in doubt", "waits for", "first")
    rows = [
        (
            one.currency,
            f"{one.payouts}",
            f"{one.amount}",
            f"{one.requests}",
            f"{one.in_doubt}",
            f"finding {one.finding_id}" if one.finding_id else "",
            ", ".join(one.first),
        )
        for one in planned
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)][:-1]
    lines = ["  ".join([*map(_pad, row, widths), row[-1]]) for row in (heads, *rows)]
    if any(one.in_doubt for one in planned):
        lines.append(_MAY_WAIT)
    return "\n".join(
        [f"Dry run: this would be sent of {day} and before. Nothing was sent.", *lines]
    )


def tell_plan(planned: Sequence[Planned]) -> dict[str, Any]:
    """The same as a task's result."""
    return {
        "dry_run": True,
        "planned": [
            {"currency": one.currency, "payouts": one.payouts, "amount": str(one.amount)}
            for one in planned
        ],
    }


def _pad(text: str, width: int) -> str:
    return text.rjust(width)


def day_of_run(params: Mapping[str, Any], dag_run: Any) -> date:
    """The same for a run as Airflow hands it to a task."""
    return business_date(params["business_date"], dag_run.partition_key, dag_run.run_after)
