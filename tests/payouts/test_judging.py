"""What an attempt says of each of its payouts: the design's table of events, row by row."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.payouts.judging import (
    AnsweredCode,
    ItemOutcome,
    Judgement,
    Result,
    judge_answer,
    judge_error,
    judge_unsent,
    too_many,
)
from include.providers.errors import Ambiguous, Fatal, Retriable
from include.providers.http import Answer
from include.providers.wallet import ITEM_CODES, CodeClass, Item, freeze_item

A, B, C = "a", "b", "c"
OK = "RS_OK"
FINAL = "RS_ERROR_USER_DISABLED"
DUPLICATE = "RS_ERROR_DUPLICATE_TRANSACTION"
UNKNOWN = "RS_ERROR_MOON_IS_FULL"
AUTHENTICATION = "RS_ERROR_INVALID_SIGNATURE"
SYNTAX = "RS_ERROR_WRONG_SYNTAX"
NOW = datetime(2026, 11, 21, 1, tzinfo=UTC)


def frozen(transaction_id: str) -> bytes:
    return freeze_item(
        Item(
            transaction_id=transaction_id,
            ref_transaction_id=f"bet of {transaction_id}",
            session_id="session",
            round_id="round",
            player_id="player",
            game_id="game",
            currency="EUR",
            amount=250_000_000,
            is_win=True,
        )
    )


SENT = {each: frozen(each) for each in (A, B, C)}


def answered(transaction_id: str, code: str | None, **changes: Any) -> dict[str, Any]:
    """One element of an answer's `data`."""
    return {
        "status": code,
        "transactionId": transaction_id,
        "refTransactionId": f"bet of {transaction_id}",
        "sessionId": "session",
        "roundId": "round",
        "playerId": "player",
        "currency": "EUR",
        "balance": 1_000,
        **changes,
    }


def envelope(*data: Any, code: str | None = OK) -> bytes:
    return json.dumps({"status": code, "data": list(data)}).encode()


def answer(body: bytes, status: int = 200, *, is_complete: bool = True) -> Answer:
    return Answer(
        status=status,
        body=body,
        content_type="application/json",
        url_path="/wallet/transaction/settlement",
        requested_at=NOW,
        received_at=NOW,
        is_complete=is_complete,
    )


def judge(body: bytes, status: int = 200, *, is_complete: bool = True) -> Judgement:
    return judge_answer(SENT, answer(body, status, is_complete=is_complete), ITEM_CODES)


def outcomes(judgement: Judgement) -> list[str]:
    assert [item.transaction_id for item in judgement.items] == list(SENT)
    return [item.outcome.value for item in judgement.items]


ALL_OK = envelope(answered(A, OK), answered(B, OK), answered(C, OK))


# --- the table's rows about answers -------------------------------------------------------------


def test_each_item_gets_its_own_answer_whatever_their_order() -> None:
    judgement = judge(envelope(answered(C, FINAL), answered(A, OK), answered(B, UNKNOWN)))

    assert judgement.result is Result.ANSWERED
    assert outcomes(judgement) == ["ok", "unclear", "refused"]
    assert [item.code for item in judgement.items] == [OK, UNKNOWN, FINAL]
    assert [item.balance for item in judgement.items] == [1_000] * 3
    assert (judgement.stops, judgement.is_bisected, judgement.foreign_ids) == (False, False, ())


@pytest.mark.parametrize(
    ("code", "outcome", "stops"),
    [
        (OK, "ok", False),
        *((code, "refused", False) for code in ITEM_CODES if ITEM_CODES[code] == "final"),
        (DUPLICATE, "contested", False),
        *((code, "blocked", True) for code in ITEM_CODES if ITEM_CODES[code] == "authentication"),
        *((code, "blocked", True) for code in ITEM_CODES if ITEM_CODES[code] == "syntax"),
        (UNKNOWN, "unclear", False),
        ("rs_ok", "unclear", False),
        ("RS_OK ", "unclear", False),
        ("", "unclear", False),
        (None, "unclear", False),
    ],
)
def test_a_code_means_for_its_item_what_the_map_says(code: str, outcome: str, stops: bool) -> None:
    judgement = judge(envelope(answered(A, OK), answered(B, code), answered(C, OK)))

    assert outcomes(judgement) == ["ok", outcome, "ok"]
    assert judgement.stops is stops
    assert judgement.items[1].code == code


def test_a_code_means_what_the_settings_say_of_it() -> None:
    codes = {**ITEM_CODES, UNKNOWN: CodeClass.FINAL, FINAL: CodeClass.OTHER}
    body = envelope(answered(A, UNKNOWN), answered(B, FINAL), answered(C, OK))

    assert outcomes(judge_answer(SENT, answer(body), codes)) == ["refused", "unclear", "ok"]


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ((OK, FINAL), "contested"),
        ((FINAL, OK), "contested"),
        ((FINAL, "RS_ERROR"), "contested"),
        ((AUTHENTICATION, OK), "contested"),
        ((OK, None), "contested"),
        ((OK, OK), "ok"),
        ((UNKNOWN, UNKNOWN), "unclear"),
    ],
)
def test_two_answers_that_contradict_contest_their_item(
    told: tuple[str, ...], outcome: str
) -> None:
    twice = [answered(B, code) for code in told]
    judgement = judge(envelope(answered(A, OK), *twice, answered(C, OK)))

    assert outcomes(judgement) == ["ok", outcome, "ok"]
    assert not judgement.stops


@pytest.mark.parametrize("code", ["RS_ERROR", SYNTAX, UNKNOWN, None])
def test_what_is_answered_inside_a_failure_is_contested_and_what_is_missing_in_doubt(
    code: str | None,
) -> None:
    judgement = judge(envelope(answered(A, OK), answered(B, FINAL), code=code))

    assert judgement.result is Result.ANSWERED
    assert outcomes(judgement) == ["contested", "contested", "in_doubt"]
    assert not judgement.stops


@pytest.mark.parametrize("status", [200, 400, 413, 422])
def test_an_envelope_that_refuses_the_key_stops_and_nothing_was_executed(status: int) -> None:
    body = json.dumps({"status": AUTHENTICATION}).encode()
    judgement = judge(body, status)

    assert judgement.result is Result.REJECTED
    assert outcomes(judgement) == ["rejected"] * 3
    assert judgement.stops
    assert judgement.answer_code == AUTHENTICATION


def test_an_envelope_that_refuses_the_key_concludes_nothing_from_refusals_inside_it() -> None:
    judgement = judge(envelope(answered(A, FINAL), code=AUTHENTICATION))

    assert outcomes(judgement) == ["rejected"] * 3
    assert judgement.stops


@pytest.mark.parametrize(
    ("status", "code", "others"),
    [
        (200, AUTHENTICATION, "rejected"),
        (401, OK, "rejected"),
        (302, OK, "rejected"),
        (400, OK, "rejected"),
        (422, "RS_ERROR", "rejected"),
        (429, OK, "not_executed"),
    ],
)
def test_what_is_booked_by_an_answer_that_refuses_the_request_is_contested(
    status: int, code: str, others: str
) -> None:
    judgement = judge(envelope(answered(A, OK), answered("x", OK), code=code), status)

    assert outcomes(judgement) == ["contested", others, others]
    assert judgement.foreign_ids == ()


@pytest.mark.parametrize("codes", [(OK, FINAL), (FINAL, OK), (FINAL, None), (OK, OK, UNKNOWN)])
def test_one_answer_with_several_codes_contests_its_item(codes: tuple[str | None, ...]) -> None:
    statuses = ", ".join(f'"status": {json.dumps(code)}' for code in codes)
    body = envelope(answered(B, OK), answered(C, OK)).replace(
        b'"data": [', f'"data": [{{"transactionId": "a", {statuses}}}, '.encode()
    )
    judgement = judge(body)

    assert outcomes(judgement) == ["contested", "ok", "ok"]
    assert (judgement.items[0].detail or "").startswith("answered more than once: ")


def test_one_answer_with_the_same_code_twice_is_one_answer() -> None:
    body = ALL_OK.replace(b'"status": "RS_OK"', b'"status": "RS_OK", "status": "RS_OK"')

    assert outcomes(judge(body)) == ["ok"] * 3


@pytest.mark.parametrize("code", [OK, FINAL])
def test_one_answer_about_two_payouts_concludes_nothing_of_either(code: str) -> None:
    body = envelope(answered(A, code), answered(C, OK)).replace(
        b'"transactionId": "a"', b'"transactionId": "b", "transactionId": "a"'
    )
    judgement = judge(body)

    assert outcomes(judgement) == ["in_doubt", "in_doubt", "ok"]
    assert judgement.foreign_ids == ("(without a transactionId)",)


def test_an_envelope_with_two_codes_is_a_failure() -> None:
    body = ALL_OK.replace(b'"status"', b'"status": "RS_ERROR", "status"', 1)

    assert outcomes(judge(body)) == ["contested"] * 3


def test_an_item_that_is_missing_is_in_doubt_and_the_others_apply() -> None:
    judgement = judge(envelope(answered(A, OK), answered(C, FINAL)))

    assert outcomes(judgement) == ["ok", "in_doubt", "refused"]
    assert judgement.items[1].detail == "missing in the answer"


def test_an_id_that_was_not_sent_is_told_and_concludes_nothing() -> None:
    stranger = answered("x", OK)
    nameless = {"status": OK}
    judgement = judge(envelope(answered(A, OK), stranger, nameless, stranger, answered(C, OK)))

    assert outcomes(judgement) == ["ok", "in_doubt", "ok"]
    assert judgement.foreign_ids == ("x", "(without a transactionId)")


def test_an_answer_about_strangers_alone_leaves_every_item_in_doubt() -> None:
    judgement = judge(envelope(answered("x", OK), answered("y", FINAL)))

    assert outcomes(judgement) == ["in_doubt"] * 3
    assert judgement.foreign_ids == ("x", "y")


def test_other_ids_around_an_answer_are_noted_and_change_nothing() -> None:
    changed = answered(A, OK, sessionId="another", roundId="another")
    judgement = judge(envelope(changed, answered(B, OK), answered(C, OK)))

    assert outcomes(judgement) == ["ok"] * 3
    assert judgement.items[0].detail == "answered with another session_id, round_id"
    assert judgement.items[1].detail is None


@pytest.mark.parametrize("changes", [{"currency": "JPY"}, {"playerId": "somebody else"}])
def test_a_balance_of_another_currency_or_player_is_not_taken_for_this_ones(
    changes: dict[str, str],
) -> None:
    judgement = judge(envelope(answered(A, OK, **changes), answered(B, OK), answered(C, OK)))

    assert outcomes(judgement) == ["ok"] * 3
    assert [item.balance for item in judgement.items] == [None, 1_000, 1_000]


@pytest.mark.parametrize("balance", [-5, 0, 10**60])
def test_a_balance_is_kept_as_answered(balance: int) -> None:
    body = envelope(answered(A, OK, balance=balance), answered(B, OK), answered(C, OK))

    assert judge(body).items[0].balance == balance


@pytest.mark.parametrize("balance", [None, "12", 1.5, True])
def test_a_balance_that_is_no_whole_number_is_none_and_changes_nothing(balance: object) -> None:
    body = envelope(answered(A, OK, balance=balance), answered(B, OK), answered(C, OK))
    item = judge(body).items[0]

    assert (item.outcome, item.balance) == (ItemOutcome.OK, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        ALL_OK[:-1],
        b"[]",
        b"null",
        json.dumps({"status": OK}).encode(),
        json.dumps({"status": OK, "data": None}).encode(),
        json.dumps({"status": OK, "data": []}).encode(),
        json.dumps({"status": "RS_ERROR"}).encode(),
        json.dumps({"status": SYNTAX}).encode(),
        json.dumps({"result": json.loads(ALL_OK)}).encode(),
        b"\xff\xfe" + ALL_OK,
        b"[" * 100_000,
    ],
)
def test_a_success_that_answers_no_item_leaves_all_in_doubt(body: bytes) -> None:
    judgement = judge(body)

    assert judgement.result is Result.IN_DOUBT
    assert outcomes(judgement) == ["in_doubt"] * 3
    assert (judgement.stops, judgement.is_bisected) == (False, False)


def test_a_success_that_broke_off_leaves_all_in_doubt() -> None:
    judgement = judge(ALL_OK, is_complete=False)

    assert outcomes(judgement) == ["in_doubt"] * 3
    assert judgement.detail == "HTTP 200, broken off"


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_every_2xx_with_answers_counts(status: int) -> None:
    assert outcomes(judge(ALL_OK, status)) == ["ok"] * 3


@pytest.mark.parametrize("status", [402, 405, 408, 409, 418, 425, 499, 500, 502, 503, 504, 599])
def test_any_other_status_leaves_all_in_doubt_whatever_its_body_says(status: int) -> None:
    judgement = judge(ALL_OK, status)

    assert judgement.result is Result.IN_DOUBT
    assert outcomes(judgement) == ["in_doubt"] * 3
    assert not judgement.stops


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 403, 404])
def test_a_refusal_at_the_door_stops_and_concludes_nothing_of_an_item(status: int) -> None:
    judgement = judge(envelope(answered(A, FINAL)), status)

    assert judgement.result is Result.REJECTED
    assert outcomes(judgement) == ["rejected"] * 3
    assert judgement.stops


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_rejected_request_of_several_is_bisected(status: int) -> None:
    judgement = judge(b"bad request", status)

    assert judgement.result is Result.REJECTED
    assert outcomes(judgement) == ["rejected"] * 3
    assert judgement.is_bisected
    assert not judgement.stops


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_rejected_request_of_one_makes_it_unclear(status: int) -> None:
    judgement = judge_answer({A: SENT[A]}, answer(b"", status), ITEM_CODES)

    assert judgement.result is Result.REJECTED
    assert [item.outcome for item in judgement.items] == [ItemOutcome.UNCLEAR]
    assert not judgement.is_bisected
    assert not judgement.stops


@pytest.mark.parametrize("status", [200, 400, 404, 409, 413, 429, 500])
def test_a_request_that_was_not_carried_out_tells_the_code_that_it_was_answered_with(
    status: int,
) -> None:
    judgement = judge(b'{"status": "RS_ERROR_MAINTENANCE"}', status)

    assert judgement.answer_code == "RS_ERROR_MAINTENANCE"
    assert (judgement.detail or "").startswith(f"HTTP {status}, RS_ERROR_MAINTENANCE")


def test_a_payout_that_was_refused_alone_tells_with_what() -> None:
    body = b'{"status": "RS_ERROR_MAINTENANCE"}'
    judgement = judge_answer({A: SENT[A]}, answer(body, 400), ITEM_CODES)

    told = "the request with this payout alone was refused (HTTP 400, RS_ERROR_MAINTENANCE)"
    assert (judgement.detail, judgement.items[0].detail) == (told, told)


def test_too_many_requests_means_that_nothing_was_executed() -> None:
    judgement = judge(envelope(answered(A, FINAL)), 429)

    assert judgement.result is Result.NOT_EXECUTED
    assert outcomes(judgement) == ["not_executed"] * 3
    assert not judgement.stops


# --- the table's rows about no answer -----------------------------------------------------------


def test_without_a_byte_written_it_was_not_executed() -> None:
    judgement = judge_error(list(SENT), Retriable("wallet", "No connection.", "Wait."))

    assert judgement.result is Result.NOT_EXECUTED
    assert outcomes(judgement) == ["not_executed"] * 3
    assert not judgement.stops


def test_a_host_that_shows_a_bad_certificate_was_told_nothing_and_may_be_asked_again() -> None:
    distrusted = Fatal("wallet", "It is not to be trusted.", "Check it.", fault="certificate")
    judgement = judge_error(list(SENT), distrusted)

    assert judgement.result is Result.NOT_EXECUTED
    assert outcomes(judgement) == ["not_executed"] * 3
    assert not judgement.stops


def test_a_request_that_cannot_be_made_stops() -> None:
    judgement = judge_error(list(SENT), Fatal("wallet", "No such header.", "Change it."))

    assert judgement.result is Result.REJECTED
    assert outcomes(judgement) == ["rejected"] * 3
    assert judgement.stops


@pytest.mark.parametrize(
    "error",
    [
        Ambiguous("wallet", "Timed out.", "Wait."),
        OSError("secret"),
        MemoryError(),
        KeyError("secret"),
    ],
)
def test_whatever_else_happens_leaves_all_in_doubt(error: Exception) -> None:
    judgement = judge_error(list(SENT), error)

    assert judgement.result is Result.IN_DOUBT
    assert outcomes(judgement) == ["in_doubt"] * 3
    assert "secret" not in str(judgement)


def test_what_was_never_begun_was_not_executed() -> None:
    judgement = judge_unsent(SENT, "another process sends")

    assert judgement.result is Result.NOT_EXECUTED
    assert outcomes(judgement) == ["not_executed"] * 3


# --- whatever is answered -----------------------------------------------------------------------

_TEXTS = st.sampled_from([A, B, C, "x", "", "a\0", "\ud800", "y" * 501]) | st.text(max_size=3)
_CODES = st.sampled_from([*ITEM_CODES, UNKNOWN, "rs_ok"]) | st.none() | st.integers() | _TEXTS
_ELEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "status": _CODES,
        "transactionId": _TEXTS | st.none() | st.integers(),
        "balance": st.integers() | st.floats() | st.text(max_size=2),
        "sessionId": _TEXTS,
    },
)
_TRUSTED = st.fixed_dictionaries({"status": st.just(OK)}) | st.fixed_dictionaries(
    {"status": _CODES}
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_ENVELOPES = st.builds(
    lambda head, data: {**head, "data": data}, _TRUSTED, st.lists(_ELEMENTS | _JSON, max_size=6)
)
_BODIES = (
    _ENVELOPES.map(lambda made: json.dumps(made).encode())
    | _JSON.map(lambda made: json.dumps(made).encode())
    | st.binary(max_size=60)
)
_STATUSES = st.just(200) | st.integers(100, 599)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _said(body: bytes) -> tuple[object, list[dict[str, Any]]]:
    """The envelope's code and the elements of `data`, read without the project's own reader."""
    try:
        decoded = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None, []
    if not isinstance(decoded, dict) or not isinstance(decoded.get("data"), list):
        return None, []
    return decoded.get("status"), [each for each in decoded["data"] if isinstance(each, dict)]


@settings(max_examples=500, deadline=None)
@given(body=_BODIES, status=_STATUSES, is_complete=st.booleans() | st.just(True))
def test_nothing_is_concluded_that_an_answer_does_not_say(
    body: bytes, status: int, is_complete: bool
) -> None:
    judgement = judge(body, status, is_complete=is_complete)

    assert [item.transaction_id for item in judgement.items] == [A, B, C]
    assert not set(judgement.foreign_ids) & {A, B, C}
    code, elements = _said(body)
    for item in judgement.items:
        of_it = [each for each in elements if each.get("transactionId") == item.transaction_id]
        codes = {str(each.get("status")) for each in of_it}
        if item.outcome is ItemOutcome.OK:
            assert (codes, code) == ({OK}, OK)
        if item.outcome is ItemOutcome.REFUSED:
            assert len(codes) == 1
            assert ITEM_CODES[codes.pop()] is CodeClass.FINAL
            assert code == OK
        if item.outcome in (ItemOutcome.OK, ItemOutcome.REFUSED):
            assert 200 <= status < 300
            assert is_complete
        if item.outcome is ItemOutcome.NOT_EXECUTED:
            assert status == 429
        if item.outcome in (ItemOutcome.REJECTED, ItemOutcome.BLOCKED):
            assert judgement.stops or judgement.is_bisected
        # What the partner says that it has booked is never sent again as if it had not.
        if OK in codes:
            assert item.outcome in (
                ItemOutcome.OK,
                ItemOutcome.CONTESTED,
                ItemOutcome.IN_DOUBT,
            )


@settings(max_examples=100, deadline=None)
@given(body=_BODIES)
def test_what_was_sent_alone_is_never_bisected(body: bytes) -> None:
    for status in (400, 413, 422):
        judgement = judge_answer({A: SENT[A]}, answer(body, status), ITEM_CODES)
        assert not judgement.is_bisected
        assert len(judgement.items) == 1


# --- the breaker --------------------------------------------------------------------------------


def too_many_of(
    refusals: dict[str, int], answered_payouts: int, *first: AnsweredCode
) -> frozenset[str]:
    return too_many(refusals, answered_payouts, first, share_limit=0.2, sample=10)


ONE = AnsweredCode(FINAL, is_refusal=True)
BOOKED = AnsweredCode(OK, is_refusal=False)


@pytest.mark.parametrize(
    ("refusals", "answered_payouts", "stopping"),
    [
        ({}, 100, set()),
        ({FINAL: 20}, 100, set()),
        ({FINAL: 21}, 100, {FINAL}),
        ({FINAL: 21, UNKNOWN: 5}, 100, {FINAL}),
        ({FINAL: 30, UNKNOWN: 30}, 100, {FINAL, UNKNOWN}),
        ({FINAL: 20, UNKNOWN: 20}, 100, set()),
        ({FINAL: 9}, 9, set()),
        ({FINAL: 10}, 10, {FINAL}),
        ({FINAL: 2}, 10, set()),
        ({FINAL: 3}, 10, {FINAL}),
    ],
)
def test_a_code_stops_above_its_share_of_a_sample(
    refusals: dict[str, int], answered_payouts: int, stopping: set[str]
) -> None:
    assert too_many_of(refusals, answered_payouts) == stopping


@pytest.mark.parametrize(
    ("first", "stopping"),
    [
        ([ONE, ONE, ONE], {FINAL}),
        ([ONE, ONE, ONE, BOOKED], {FINAL}),
        ([ONE, ONE], set()),
        ([ONE, ONE, BOOKED], set()),
        ([BOOKED, ONE, ONE, ONE], set()),
        ([ONE, ONE, AnsweredCode(UNKNOWN, is_refusal=True)], set()),
        ([BOOKED, BOOKED, BOOKED], set()),
        ([AnsweredCode(DUPLICATE, is_refusal=False)] * 3, set()),
    ],
)
def test_the_first_three_alike_stop_however_few_there_are(
    first: list[AnsweredCode], stopping: set[str]
) -> None:
    assert too_many_of({FINAL: 2}, 4, *first) == stopping
