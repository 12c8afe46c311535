"""The form of the resend: which day a run is about, and what a dry run shows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from include.orchestration.resending import (
    BusinessDateRefused,
    business_date,
    describe_plan,
    form_fields,
    tell_plan,
)
from include.payouts.due import Planned

DAY = date(2026, 11, 20)
AT_ONE = datetime(2026, 11, 21, 1, 0, tzinfo=UTC)
PLANNED = [
    Planned("EUR", 1200, Decimal("2500.00001"), 14, ["a", "b"], 3),
    Planned("GBP", 1, Decimal("0.10000"), 1, ["c"], 0, finding_id=9),
]


@pytest.mark.parametrize(
    ("given", "key", "day"),
    [
        (None, None, DAY),
        (None, "2026-11-18", date(2026, 11, 18)),
        ("2026-11-17", "2026-11-18", date(2026, 11, 17)),
        ("2026-11-20", None, DAY),
    ],
)
def test_a_run_is_about_what_is_entered_else_its_key_else_the_day_before(
    given: str | None, key: str | None, day: date
) -> None:
    assert business_date(given, key, AT_ONE, now=AT_ONE) == day


def test_the_day_before_is_that_in_utc() -> None:
    in_tokyo = datetime.fromisoformat("2026-11-22T08:30:00+09:00")
    assert business_date(None, None, in_tokyo, now=in_tokyo) == DAY


@pytest.mark.parametrize("given", ["2026-11-21", "2026-11-22", "2099-01-01"])
def test_a_day_that_is_not_over_is_refused_with_the_last_one_that_is(given: str) -> None:
    with pytest.raises(BusinessDateRefused, match=f"{given} cannot be sent") as caught:
        business_date(given, None, AT_ONE, now=AT_ONE)
    assert "Trigger the DAG again with 2026-11-20 or an earlier day" in str(caught.value)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-11-20T00:00", "20.11.2026"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(BusinessDateRefused, match=r"is no day\. Nothing was sent\."):
        business_date(None, text, AT_ONE, now=AT_ONE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("business_date", "yesterday"),
        ("business_date", 20261120),
        ("dry_run", "yes"),
        ("batch_items", 0),
        ("batch_items", 1001),
    ],
)
def test_the_form_takes_nothing_else(field: str, value: Any) -> None:
    with pytest.raises(ParamValidationError):
        form_fields()[field].resolve(value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("business_date", None),
        ("business_date", "2026-11-20"),
        ("dry_run", True),
        ("batch_items", None),
        ("batch_items", 1000),
    ],
)
def test_the_form_takes_what_it_says(field: str, value: Any) -> None:
    assert form_fields()[field].resolve(value) == value


def test_a_dry_run_is_shown_as_a_table() -> None:
    assert describe_plan(DAY, PLANNED).splitlines() == [
        "Dry run: this would be sent of 2026-11-20 and before. Nothing was sent.",
        "currency  payouts      amount  requests  in doubt  waits for  first",
        "     EUR     1200  2500.00001        14         3             a, b",
        "     GBP        1     0.10000         1         0  finding 9  c",
        "What is in doubt is sent only as often as a window allows: some of it may have to wait "
        "for the next one, or for a decision once its windows are used up.",
    ]
    assert "in doubt is sent" not in describe_plan(DAY, PLANNED[1:])
    assert "Nothing to send" in describe_plan(DAY, [])


def test_a_dry_run_results_in_what_would_be_sent() -> None:
    assert tell_plan(PLANNED)["planned"][0] == {
        "currency": "EUR",
        "payouts": 1200,
        "amount": "2500.00001",
    }
