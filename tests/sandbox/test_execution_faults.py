"""Faults of a call that does something: what was sent is executed, or is not, as it was ordered."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from include.sandbox.app import FAULTS, ITEM_FAULTS
from include.sandbox.client import Sandbox
from tests.sandbox.paying import Payer, item, items

# Every fault, with parameters that keep it short.
PARAMETERS: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in FAULTS | ITEM_FAULTS},
    "status": {"status": 500},
    "unknown_value": {"value": "RS_ERROR_UNKNOWN"},
    "header_flood": {"headers": 1000},
    "deep_nesting": {"depth": 100},
    "oversize_body": {"size": 100_000},
    "gzip_bomb": {"size": 100_000},
    "dripping_body": {"seconds": 0},
    "slow_headers": {"seconds": 0},
    "same_word_for_all": {"value": "RS_ERROR"},
    "changed_envelope": {"changes": {"status": "RS_ERROR"}, "left_out": ["data"]},
    "late_execution": {"seconds": 0.1},
}
# They need a page that was asked for by a query, or an answer before.
FOR_PAGES = {"overfull_page", "restarted_page", "refused_cursor", "repeated_page"}
KINDS = sorted(set(PARAMETERS) - FOR_PAGES)
NOT_EXECUTED = {"status", "redirect", "html_page"}


def send(payer: Payer, count: int) -> None:
    """Sends so many items and takes whatever comes of it."""
    try:
        payer.pay(*items(count), timeout=0.5)
    except httpx.HTTPError:
        # Broken off, too late, or nothing that is HTTP.
        return


def executed_items(sandbox: Sandbox) -> list[int]:
    """How many items of each request were executed, once all have been answered or broken off."""
    deadline = time.monotonic() + 10
    while any(each["outcome"] is None for each in sandbox.wallet_requests()):
        assert time.monotonic() < deadline
    return [each["executed"] for each in sandbox.wallet_requests()]


def credited(sandbox: Sandbox) -> list[str]:
    return [transaction_id for transaction_id, credits in sandbox.wallet_credits() if credits]


def spoiled(sandbox: Sandbox, payer: Payer, kind: str, **parameters: Any) -> Any:
    """What three items are answered under this fault."""
    sandbox.fault("wallet", kind, **parameters)
    return payer.pay(*items(3)).json()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({}, None),
        ({"executed": True}, 3),
        ({"executed": False}, 0),
        ({"executed_items": 2}, 2),
    ],
    ids=["by-itself", "executed", "not-executed", "partly"],
)
def test_the_ledger_tells_what_was_executed_whatever_the_answer_said(
    sandbox: Sandbox, payer: Payer, kind: str, order: dict[str, Any], expected: int | None
) -> None:
    sandbox.fault("wallet", kind, **order, **PARAMETERS[kind])
    if expected is None:
        expected = 0 if kind in NOT_EXECUTED else 3
    send(payer, 3)
    assert executed_items(sandbox) == [expected]
    assert credited(sandbox) == [f"transaction-{number}" for number in range(expected)]
    assert sandbox.wallet_requests()[0]["fault"] == kind
    assert sandbox.faults() == []
    # The same items again: nothing is credited a second time.
    assert payer.codes(*items(3)) == ["RS_OK"] * 3
    assert sandbox.ledger("wallet")["credits"] == 3


@pytest.mark.parametrize("status", [*range(400, 419), *range(421, 432), 451, 499, 500, 503, 520])
@pytest.mark.parametrize("executed", [False, True])
def test_any_status_can_be_given_before_or_after_execution(
    sandbox: Sandbox, payer: Payer, status: int, executed: bool
) -> None:
    sandbox.fault("wallet", "status", status=status, retry_after="7", executed=executed)
    answer = payer.pay(*items(2))
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert executed_items(sandbox) == [2 * executed]
    assert sandbox.wallet_requests()[0]["outcome"] == str(status)


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset_before_answer", httpx.ReadError),
        ("closed_without_answer", httpx.RemoteProtocolError),
        ("truncated_body", httpx.RemoteProtocolError),
        ("silence", httpx.ReadTimeout),
    ],
)
def test_a_connection_breaks_before_or_after_execution(
    sandbox: Sandbox, payer: Payer, kind: str, error: type[Exception], executed: bool
) -> None:
    sandbox.fault("wallet", kind, executed=executed)
    with pytest.raises(error):
        payer.pay(*items(2), timeout=0.3)
    assert executed_items(sandbox) == [2 * executed]
    assert sandbox.wallet_requests()[0]["outcome"] == "broken"


def test_a_truncated_answer_begins_as_the_sound_one_though_nothing_was_executed(
    sandbox: Sandbox, payer: Payer
) -> None:
    sandbox.fault("wallet", "malformed_json", executed=False)
    cut = payer.pay(*items(3)).content
    assert executed_items(sandbox) == [0]
    assert payer.pay(*items(3)).content.startswith(cut)
    assert len(cut) > 100


def test_an_execution_can_come_after_the_caller_has_gone(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.fault("wallet", "late_execution", seconds=0.4)
    with pytest.raises(httpx.ReadTimeout):
        payer.pay(item(1), timeout=0.05)
    assert credited(sandbox) == []
    assert sandbox.wallet_requests()[0]["outcome"] is None
    assert executed_items(sandbox) == [1]
    assert credited(sandbox) == ["transaction-1"]


def test_an_execution_that_waits_is_over_with_a_reset(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.fault("wallet", "late_execution", seconds=0.2)
    with pytest.raises(httpx.ReadTimeout):
        payer.pay(item(1), timeout=0.05)
    sandbox.reset()
    sandbox.fault("wallet", "late_execution", seconds=0.3)
    assert payer.codes(item(2)) == ["RS_OK"]
    assert credited(sandbox) == ["transaction-2"]


@pytest.mark.parametrize("status", [201, 400, 500])
def test_a_sound_answer_can_come_under_another_status(
    sandbox: Sandbox, payer: Payer, status: int
) -> None:
    sound = payer.pay(*items(3)).json()
    sandbox.fault("wallet", "other_status", status=status)
    answer = payer.pay(*items(3))
    assert (answer.status_code, answer.json()) == (status, sound)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ["reset_before_answer", "status"])
def test_the_first_items_can_be_executed_before_it_breaks(
    sandbox: Sandbox, payer: Payer, kind: str
) -> None:
    sandbox.fault("wallet", kind, executed_items=2, **PARAMETERS[kind])
    send(payer, 5)
    assert executed_items(sandbox) == [2]
    assert credited(sandbox) == ["transaction-0", "transaction-1"]


def test_a_rehearsal_answers_as_the_execution_would(sandbox: Sandbox, payer: Payer) -> None:
    codes = [{"code": "RS_ERROR_USER_DISABLED", "players": ["player-1"]}]
    sandbox.configure("wallet", codes=codes)
    rehearsed = spoiled(sandbox, payer, "reversed_page", executed=False)
    assert rehearsed["data"][::-1] == payer.answers(*items(3))
    rehearsed = spoiled(sandbox, payer, "reversed_page", executed=False)
    assert rehearsed["data"][::-1] == payer.answers(*items(3))
    assert executed_items(sandbox) == [0, 3, 0, 3]


def test_a_fault_that_finds_nothing_to_spoil_leaves_the_call_executed_once(
    sandbox: Sandbox, payer: Payer
) -> None:
    sandbox.configure("wallet", repeats="credited_again")
    sandbox.fault("wallet", "missing_item", entry=5, executed_items=2)
    assert payer.codes(*items(3)) == ["RS_OK"] * 3
    assert len(sandbox.faults()) == 1
    assert len(payer.answers(*items(6))) == 5
    assert executed_items(sandbox) == [3, 2]
    assert sandbox.ledger("wallet")["credited_more_than_once"] == {
        "transaction-0": 2,
        "transaction-1": 2,
    }


def test_a_refused_request_is_executed_by_no_order(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.fault("wallet", "status", status=500, executed=True)
    assert payer.post(b'{"transactions":[]}', x_api_key="wrong").status_code == 500
    assert executed_items(sandbox) == [0]
    # Such an answer is no page in which a record could be spoiled.
    sandbox.fault("wallet", "empty_page")
    assert "data" not in payer.post(b"{}").json()
    assert len(sandbox.faults()) == 1


def test_items_can_be_missing_foreign_doubled_contradicted_or_in_another_order(
    sandbox: Sandbox, payer: Payer
) -> None:
    first, second, third = payer.answers(*items(3))

    def data(kind: str, **parameters: Any) -> Any:
        return spoiled(sandbox, payer, kind, **parameters)["data"]

    foreign = second | {"transactionId": "foreign"}
    assert data("missing_item", entry=1) == [first, third]
    assert data("foreign_item", entry=1, item_id="foreign") == [first, second, foreign, third]
    assert data("duplicated_entry", entry=-1) == [first, second, third, third]
    opposite = first | {"status": "RS_ERROR"}
    assert data("contradicting_items") == [first, opposite, second, third]
    assert data("reversed_page") == [third, second, first]
    assert data("shuffled_page") == [second, first, third]
    assert data("empty_page") == []
    refused = [each | {"status": "RS_ERROR_INVALID_GAME"} for each in (first, second, third)]
    assert data("same_word_for_all", value="RS_ERROR_INVALID_GAME") == refused


def test_a_refusal_is_contradicted_by_a_credit(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR"}])
    sandbox.fault("wallet", "contradicting_items")
    assert payer.codes(item(1)) == ["RS_ERROR", "RS_OK"]
    assert credited(sandbox) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sessionId", "another"),
        ("roundId", "another"),
        ("balance", 2**63 - 1),
        ("balance", -300_000_000),
        ("balance", "300000000"),
        ("balance", 3.5),
        ("status", None),
        ("status", 0),
        ("transactionId", 5),
        ("playerId", "\u0000"),
        ("currency", "USD"),
    ],
)
def test_a_field_of_an_answer_can_hold_anything(
    sandbox: Sandbox, payer: Payer, field: str, value: Any
) -> None:
    sound = payer.answers(*items(3))
    answer = spoiled(sandbox, payer, "changed_entry", entry=1, changes={field: value})
    assert answer["data"] == [sound[0], sound[1] | {field: value}, sound[2]]
    assert executed_items(sandbox) == [3, 3]


def test_a_balance_can_have_400_digits_and_a_text_a_null_character(
    sandbox: Sandbox, payer: Payer
) -> None:
    assert spoiled(sandbox, payer, "huge_number", field="balance")["data"][0]["balance"] > 10**399
    answer = spoiled(sandbox, payer, "escaped_null_character", field="roundId")
    assert "\0" in answer["data"][0]["roundId"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"changes": {"status": "RS_ERROR_INVALID_TOKEN"}}, {"status": "RS_ERROR_INVALID_TOKEN"}),
        ({"changes": {"status": "OK?"}, "left_out": ["data"]}, {"status": "OK?", "data": ...}),
        ({"changes": {"data": None}}, {"data": None}),
        ({"changes": {"data": {}}}, {"data": {}}),
        ({"left_out": ["data"]}, {"data": ...}),
        ({"left_out": ["status"]}, {"status": ...}),
        ({"changes": {"trace": 1}}, {"trace": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("executed", [False, True])
def test_an_envelope_can_say_anything_with_the_answers_in_it_or_without(
    sandbox: Sandbox,
    payer: Payer,
    parameters: dict[str, Any],
    expected: dict[str, Any],
    executed: bool,
) -> None:
    sound = payer.pay(*items(3)).json()
    changed = {name: value for name, value in (sound | expected).items() if value is not ...}
    order = {"executed": executed, **parameters}
    assert spoiled(sandbox, payer, "changed_envelope", **order) == changed
    assert executed_items(sandbox) == [3, 3 * executed]


def test_alerts_can_be_refused_after_they_were_taken_and_answered_without(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    sandbox.fault("alerts", "status", status=500, executed=True)
    assert http.post(sandbox.alerts_url, json={"key": "a"}).status_code == 500
    sandbox.fault("alerts", "wrong_envelope", executed=False)
    answer = http.post(sandbox.alerts_url, json={"key": "b"}).json()
    assert answer == {"result": {"received": 2}}
    assert sandbox.alerts()["by_key"] == {"a": 1}


def test_an_order_says_one_thing_about_execution(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="either executed or executed_items"):
        sandbox.fault("wallet", "silence", executed=True, executed_items=1)
