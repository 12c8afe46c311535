"""The wallet in the sandbox does what its documentation says, and what its switches say."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from include.sandbox.addresses import WALLET_KEY, WALLET_SECRET
from include.sandbox.client import Sandbox
from tests.sandbox.paying import DOCUMENTED_ITEM, Payer, body_of, item, items, signature_of

CODES = [
    "RS_ERROR",
    "RS_ERROR_INVALID_PARTNER",
    "RS_ERROR_INVALID_TOKEN",
    "RS_ERROR_INVALID_GAME",
    "RS_ERROR_WRONG_CURRENCY",
    "RS_ERROR_NOT_ENOUGH_MONEY",
    "RS_ERROR_USER_DISABLED",
    "RS_ERROR_INVALID_SIGNATURE",
    "RS_ERROR_TOKEN_EXPIRED",
    "RS_ERROR_WRONG_SYNTAX",
    "RS_ERROR_WRONG_TYPES",
    "RS_ERROR_DUPLICATE_TRANSACTION",
    "RS_ERROR_TRANSACTION_DOES_NOT_EXIST",
    "RS_ERROR_THAT_NOBODY_KNOWS",
    "rs ok?",
]


def credits_of(sandbox: Sandbox) -> dict[str, int]:
    return dict(sandbox.wallet_credits())


def test_the_documented_request_gets_the_documented_answer(sandbox: Sandbox, payer: Payer) -> None:
    envelope = payer.pay(DOCUMENTED_ITEM)
    answered = {
        "status": "RS_OK",
        "transactionId": "dd96bda3-9990-4aed-9679-f451a4b82ac4",
        "refTransactionId": "21848853-1198-4dde-9a21-bb9598398a8c",
        "sessionId": "f1dfc865-584c-4cba-a175-06172b2a41141731504451691",
        "roundId": "817e22b4-b030-468b-964e-62b9a7343050-1753428290674",
        "playerId": "18865671",
        "currency": "EUR",
        "balance": 300000000,
    }
    assert envelope.status_code == 200
    assert list(envelope.json()) == ["status", "data"]
    assert envelope.json() == {"status": "RS_OK", "data": [answered]}
    assert list(envelope.json()["data"][0]) == list(answered)
    assert envelope.headers["content-type"] == "application/json"


def test_session_and_round_can_come_back_as_others(sandbox: Sandbox, payer: Payer) -> None:
    sound = payer.answers(DOCUMENTED_ITEM)[0]
    sandbox.configure("wallet", echoes_own_ids=True)
    other = payer.answers(DOCUMENTED_ITEM)[0]
    assert {name for name in sound if sound[name] != other[name]} == {"sessionId", "roundId"}


def test_the_golden_signature_is_accepted(sandbox: Sandbox, payer: Payer) -> None:
    body = body_of([DOCUMENTED_ITEM])
    assert len(body) == 357
    golden = {
        "x_timestamp": "1753428290674",
        "x_signature": "db0a2a272f9fe319a2cc516383adb03207cd38204771a6a1d7821f2713630b38",
    }
    sandbox.configure("wallet", signing_secret="test-secret")
    assert payer.post(body, **golden).json() == {"status": "RS_ERROR_TOKEN_EXPIRED"}
    sandbox.configure("wallet", timestamp_window_seconds=None)
    assert payer.post(body, **golden).json()["data"][0]["status"] == "RS_OK"
    wrong = golden["x_signature"][:-1] + "9"
    refused = payer.post(body, **golden | {"x_signature": wrong})
    assert refused.json() == {"status": "RS_ERROR_INVALID_SIGNATURE"}


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"x_api_key": None}, "RS_ERROR_INVALID_PARTNER", 401),
        ({"x_api_key": "wrong"}, "RS_ERROR_INVALID_PARTNER", 401),
        ({"x_signature": None}, "RS_ERROR_INVALID_SIGNATURE", 401),
        ({"x_signature": "0" * 64}, "RS_ERROR_INVALID_SIGNATURE", 401),
        ({"x_timestamp": "soon"}, "RS_ERROR_TOKEN_EXPIRED", 401),
        ({"content_type": "text/plain"}, "RS_ERROR_WRONG_SYNTAX", 400),
        ({"content_type": None}, "RS_ERROR_WRONG_SYNTAX", 400),
    ],
)
def test_a_caller_who_does_not_prove_himself_is_refused_and_nothing_is_done(
    sandbox: Sandbox, payer: Payer, headers: dict[str, Any], code: str, status: int
) -> None:
    body = body_of(items(2))
    in_envelope = payer.post(body, **headers)
    assert (in_envelope.status_code, in_envelope.json()) == (200, {"status": code})
    sandbox.configure("wallet", refusals="status")
    by_status = payer.post(body, **headers)
    assert (by_status.status_code, by_status.json()) == (status, {"status": code})
    ledger = sandbox.ledger("wallet")
    assert ledger["refusals"] == {code: 2}
    assert (ledger["items"], ledger["items_executed"], ledger["credits"]) == (4, 0, 0)
    assert credits_of(sandbox) == {}


def test_a_missing_timestamp_cannot_have_been_signed(sandbox: Sandbox, payer: Payer) -> None:
    body = body_of(items(1))
    with httpx.Client(trust_env=False, verify=False) as client:
        answer = client.post(
            f"{sandbox.wallet_url}/transaction/settlement",
            content=body,
            headers={"x-api-key": WALLET_KEY, "x-signature": signature_of(body, "")},
        )
    assert answer.json() == {"status": "RS_ERROR_INVALID_SIGNATURE"}
    assert sandbox.wallet_requests()[0]["signature"] == "missing"


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (-310, "RS_ERROR_TOKEN_EXPIRED"),
        (-290, "RS_OK"),
        (290, "RS_OK"),
        (310, "RS_ERROR_TOKEN_EXPIRED"),
    ],
)
def test_a_timestamp_is_good_for_five_minutes_before_and_after(
    payer: Payer, seconds: int, code: str
) -> None:
    timestamp = str(int((time.time() + seconds) * 1000))
    assert payer.post(body_of(items(1)), x_timestamp=timestamp).json()["status"] == code


def test_a_partner_can_check_what_javascript_makes_of_the_body(
    sandbox: Sandbox, payer: Payer
) -> None:
    compact = body_of([item(1, sessionId="é/裁")])
    spaced = json.dumps({"transactions": [item(1, sessionId="é/裁")]}).encode()
    timestamp = str(time.time_ns() // 1_000_000)
    over_compact = {"x_timestamp": timestamp, "x_signature": signature_of(compact, timestamp)}
    assert payer.post(spaced).json()["status"] == "RS_OK"
    assert payer.post(spaced, **over_compact).json()["status"] == "RS_ERROR_INVALID_SIGNATURE"
    sandbox.configure("wallet", signed_bytes="reserialised")
    assert payer.post(spaced).json()["status"] == "RS_ERROR_INVALID_SIGNATURE"
    assert payer.post(spaced, **over_compact).json()["status"] == "RS_OK"
    assert payer.post(compact).json()["status"] == "RS_OK"


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "RS_ERROR_WRONG_SYNTAX", 400),
        (b"{", "RS_ERROR_WRONG_SYNTAX", 400),
        (
            body_of([item(1, sessionId="é")]).decode().encode("latin-1"),
            "RS_ERROR_WRONG_SYNTAX",
            400,
        ),
        (b"[]", "RS_ERROR_WRONG_TYPES", 422),
        (b"{}", "RS_ERROR_WRONG_TYPES", 422),
        (body_of([item(1), item(2, amount="5")]), "RS_ERROR_WRONG_TYPES", 422),
        (body_of([item(1, amount=-1)]), "RS_ERROR_WRONG_TYPES", 422),
        (body_of([item(1, amount=1.5)]), "RS_ERROR_WRONG_TYPES", 422),
        (body_of([item(1, isWin=1)]), "RS_ERROR_WRONG_TYPES", 422),
        (body_of([item(1, transactionId="")]), "RS_ERROR_WRONG_TYPES", 422),
        (body_of([{"transactionId": "a"}]), "RS_ERROR_WRONG_TYPES", 422),
    ],
)
def test_a_body_that_is_not_as_documented_is_refused_whole(
    sandbox: Sandbox, payer: Payer, body: bytes, code: str, status: int
) -> None:
    assert payer.post(body).json() == {"status": code}
    sandbox.configure("wallet", refusals="status")
    assert payer.post(body).status_code == status
    assert credits_of(sandbox) == {}


def test_a_request_can_be_refused_for_one_item_or_for_its_length(
    sandbox: Sandbox, payer: Payer
) -> None:
    sandbox.configure("wallet", refused_transactions={"transaction-2": 422}, items_limit=4)
    assert payer.pay(*items(5)).status_code == 413
    assert payer.pay(*items(4)).status_code == 422
    assert payer.codes(*items(2)) == ["RS_OK"] * 2
    assert payer.pay(item(2)).status_code == 422
    assert credits_of(sandbox) == {"transaction-0": 1, "transaction-1": 1}


def test_no_items_are_answered_by_none(payer: Payer) -> None:
    assert payer.answers() == []


def test_balances_are_kept_by_player_and_currency(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.configure("wallet", opening_balance=7)
    sent = [
        item(1, playerId="p", amount=100),
        item(2, playerId="p", amount=20),
        item(3, playerId="p", amount=3, currency="GBP"),
        item(4, playerId="q", amount=0, isWin=False),
    ]
    assert [answer["balance"] for answer in payer.answers(*sent)] == [107, 127, 10, 7]
    assert sandbox.wallet_balances() == {"EUR": {"p": 127, "q": 7}, "GBP": {"p": 10}}
    assert sandbox.wallet_balances("q") == {"EUR": {"q": 7}}
    assert sandbox.ledger("wallet")["credited_by_currency"] == {
        "EUR": {"credits": 3, "amount": 120},
        "GBP": {"credits": 1, "amount": 3},
    }


def test_what_was_not_won_is_booked_with_no_amount_and_refused_with_one(
    sandbox: Sandbox, payer: Payer
) -> None:
    sent = [item(1, isWin=False, amount=0), item(2, isWin=False, amount=5)]
    assert payer.codes(*sent) == ["RS_OK", "RS_ERROR"]
    assert credits_of(sandbox) == {"transaction-1": 1, "transaction-2": 0}


def test_a_transaction_is_credited_once_and_gets_its_first_answer_again(
    sandbox: Sandbox, payer: Payer
) -> None:
    first = payer.answers(item(1), item(1), item(2, playerId="player-1"))
    assert first[0] == first[1]
    assert payer.answers(item(1)) == first[:1]
    assert credits_of(sandbox) == {"transaction-1": 1, "transaction-2": 1}
    assert sandbox.wallet_transactions(["transaction-1", "none"]) == [
        {
            "transaction_id": "transaction-1",
            "currency": "EUR",
            "credits": 1,
            "credited_amount": 1_000_001,
            "outcomes": [
                {"request": 1, "code": "RS_OK"},
                {"request": 1, "code": "RS_OK"},
                {"request": 2, "code": "RS_OK"},
            ],
        }
    ]


@pytest.mark.parametrize(
    "field", ["refTransactionId", "sessionId", "roundId", "playerId", "gameId", "currency"]
)
def test_the_same_id_with_another_content_is_a_duplicate(
    sandbox: Sandbox, payer: Payer, field: str
) -> None:
    first = payer.answers(item(1))
    other = item(1) | {field: "other"}
    assert payer.codes(other) == ["RS_ERROR_DUPLICATE_TRANSACTION"]
    sandbox.configure("wallet", other_content="first_answer")
    assert payer.codes(other) == ["RS_OK"]
    assert payer.answers(item(1)) == first
    assert credits_of(sandbox) == {"transaction-1": 1}


def test_a_wallet_can_call_every_repetition_a_duplicate(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.configure("wallet", repeats="duplicate")
    assert payer.codes(item(1), item(1)) == ["RS_OK", "RS_ERROR_DUPLICATE_TRANSACTION"]
    assert credits_of(sandbox) == {"transaction-1": 1}


def test_a_wallet_that_is_not_idempotent_credits_again_and_the_ledger_says_so(
    sandbox: Sandbox, payer: Payer
) -> None:
    sandbox.configure("wallet", repeats="credited_again", opening_balance=0)
    payer.pay(item(1), item(2))
    again = payer.answers(item(1, amount=5))
    assert (again[0]["status"], again[0]["balance"]) == ("RS_OK", 1_000_006)
    assert sandbox.ledger("wallet")["credited_more_than_once"] == {"transaction-1": 2}
    assert sandbox.wallet_transactions(["transaction-1"])[0]["credited_amount"] == 1_000_006


def test_a_refusal_is_stored_or_evaluated_anew(sandbox: Sandbox, payer: Payer) -> None:
    codes = [{"code": "RS_ERROR_USER_DISABLED", "players": ["player-1"]}]
    sandbox.configure("wallet", codes=codes)
    refused = payer.answers(item(1))
    sandbox.configure("wallet", codes=[])
    assert payer.answers(item(1)) == refused
    assert refused[0]["status"] == "RS_ERROR_USER_DISABLED"
    sandbox.configure("wallet", codes=codes, stores_refusals=False)
    assert payer.codes(item(1), item(1 + 1, playerId="player-1")) == ["RS_ERROR_USER_DISABLED"] * 2
    sandbox.configure("wallet", codes=[])
    # The first was stored before the switch, the second was not.
    assert payer.codes(item(1), item(2, playerId="player-1")) == ["RS_ERROR_USER_DISABLED", "RS_OK"]
    assert credits_of(sandbox) == {"transaction-1": 0, "transaction-2": 1}


def test_accounts_can_be_checked_before_the_first_answer_is_looked_up(
    sandbox: Sandbox, payer: Payer
) -> None:
    first = payer.answers(item(1))
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR_USER_DISABLED"}])
    assert payer.answers(item(1)) == first
    sandbox.configure("wallet", checks_accounts_first=True)
    assert payer.codes(item(1)) == ["RS_ERROR_USER_DISABLED"]
    sandbox.configure("wallet", codes=[])
    assert payer.answers(item(1)) == first
    transaction = sandbox.wallet_transactions(["transaction-1"])[0]
    assert transaction["credits"] == 1
    assert [outcome["code"] for outcome in transaction["outcomes"]] == [
        "RS_OK",
        "RS_OK",
        "RS_ERROR_USER_DISABLED",
        "RS_OK",
    ]


@pytest.mark.parametrize("code", CODES)
def test_any_code_can_be_ordered_and_its_item_is_not_credited(
    sandbox: Sandbox, payer: Payer, code: str
) -> None:
    sandbox.configure("wallet", codes=[{"code": code, "transactions": ["transaction-1"]}])
    answers = payer.answers(*items(3))
    assert [answer["status"] for answer in answers] == ["RS_OK", code, "RS_OK"]
    assert answers[1]["balance"] == 50_000_000
    assert credits_of(sandbox) == {"transaction-0": 1, "transaction-1": 0, "transaction-2": 1}
    assert sandbox.ledger("wallet")["codes"] == {"RS_OK": 2, code: 1}


def test_the_first_order_that_concerns_an_item_decides(sandbox: Sandbox, payer: Payer) -> None:
    orders = [
        {"code": "RS_OK", "transactions": ["transaction-0"]},
        {"code": "RS_ERROR_WRONG_CURRENCY", "currencies": ["GBP"]},
        {"code": "RS_ERROR_INVALID_GAME", "players": ["player-2", "player-3"]},
        {"code": "RS_ERROR", "currencies": ["EUR"], "players": ["player-4"]},
    ]
    sandbox.configure("wallet", codes=orders)
    gbp = [item(number, currency="GBP") for number in (0, 2)]
    sent = [*gbp, *(item(number) for number in (1, 3, 4))]
    assert payer.codes(*sent) == [
        "RS_OK",
        "RS_ERROR_WRONG_CURRENCY",
        "RS_OK",
        "RS_ERROR_INVALID_GAME",
        "RS_ERROR",
    ]


def test_a_share_is_drawn_by_the_seed_and_anew_for_each_evaluation(
    sandbox: Sandbox, payer: Payer
) -> None:
    order = {"code": "RS_ERROR", "share": 0.25}

    def drawn(seed: int) -> list[list[str]]:
        sandbox.reset()
        sandbox.configure("wallet", seed=seed, codes=[order], stores_refusals=False)
        return [payer.codes(*items(400)) for _ in range(2)]

    first, second = drawn(1)
    refused = [number for number, code in enumerate(first) if code == "RS_ERROR"]
    assert 60 < len(refused) < 140
    assert 0 < sum(second[number] == "RS_ERROR" for number in refused) < len(refused)
    assert drawn(1) == [first, second]
    assert drawn(2)[0] != first


def test_every_request_is_kept_as_it_came_and_without_secrets(
    sandbox: Sandbox, payer: Payer
) -> None:
    began = datetime.now(UTC)
    # Not as JSON.stringify would write it: what is kept is what came.
    body = b'{"transactions": [{"transactionId":"a" , "amount":1.50}, 7]}'
    payer.post(body, authorization="Bearer hush", x_trace="seen", x_api_key="wrong")
    payer.pay(*items(3))
    payer.post(b"{")
    first, second, third = sandbox.wallet_requests(with_texts=True)
    assert began <= datetime.fromisoformat(first["received_at"]) <= began + timedelta(minutes=1)
    assert first["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert first["body_bytes"] == len(body)
    assert first["item_texts"] == ['{"transactionId":"a" , "amount":1.50}', "7"]
    assert first["headers"]["x-trace"] == "seen"
    assert {"x-timestamp", "content-type"} <= set(first["headers"])
    assert (first["is_key_known"], first["signature"]) == (False, "sound")
    assert (first["refusal"], first["outcome"]) == ("RS_ERROR_INVALID_PARTNER", "200")
    assert list(map(json.loads, second["item_texts"])) == items(3)
    assert (second["is_key_known"], second["signature"]) == (True, "sound")
    assert (second["executed"], second["refusal"], second["fault"]) == (3, None, None)
    assert third["item_texts"] is None
    told = json.dumps(sandbox.wallet_requests())
    for secret in ("hush", WALLET_KEY, WALLET_SECRET):
        assert secret not in told
    assert "x-signature" not in told
    assert [each["number"] for each in sandbox.wallet_requests(after=1, limit=1)] == [2]
    assert "item_texts" not in sandbox.wallet_requests(limit=1)[0]


def test_a_request_that_breaks_off_is_counted_and_not_executed(sandbox: Sandbox) -> None:
    address = urlsplit(sandbox.base_url)
    head = (
        f"POST /wallet/transaction/settlement HTTP/1.1\r\nHost: {address.netloc}\r\n"
        'Content-Length: 100\r\n\r\n{"transactions":['
    )
    with socket.create_connection((str(address.hostname), address.port or 0), 10) as connection:
        connection.sendall(head.encode())
    deadline = time.monotonic() + 10
    while sandbox.ledger("wallet")["requests_cut_short"] == 0:
        assert time.monotonic() < deadline
    assert sandbox.wallet_requests() == []
    assert sandbox.calls()["total"] == 0


def test_the_ledger_adds_up(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.configure("wallet", codes=[{"code": "RS_ERROR", "players": ["player-3"]}])
    payer.pay(*items(5))
    payer.pay(item(1))
    payer.post(body_of(items(2)), x_api_key="wrong")
    assert sandbox.ledger("wallet") == {
        "requests": 3,
        "requests_cut_short": 0,
        "outcomes": {"200": 3},
        "signatures": {"sound": 3},
        "refusals": {"RS_ERROR_INVALID_PARTNER": 1},
        "items": 8,
        "items_executed": 6,
        "transactions": 5,
        "codes": {"RS_ERROR": 1, "RS_OK": 5},
        "credits": 4,
        "credited_by_currency": {"EUR": {"credits": 4, "amount": 4_000_007}},
        "credited_more_than_once": {},
    }


def test_credits_are_told_in_pages_in_the_order_of_their_transactions(
    sandbox: Sandbox, payer: Payer
) -> None:
    for start in range(0, 12_000, 3_000):
        payer.pay(*(item(number) for number in range(start, start + 3_000)))
    told = list(sandbox.wallet_credits())
    assert told == [(f"transaction-{number}", 1) for number in range(12_000)]


def test_a_wrong_setting_is_refused_with_its_name(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="repeats"):
        sandbox.configure("wallet", repeats="never")
    with pytest.raises(ValueError, match="colour"):
        sandbox.configure("wallet", colour="red")
    told = sandbox.configure("wallet", signing_secret="another-secret")
    assert "another-secret" not in json.dumps(told)


def test_reset_empties_the_books(sandbox: Sandbox, payer: Payer) -> None:
    sandbox.configure("wallet", opening_balance=1, repeats="duplicate")
    payer.pay(*items(2))
    sandbox.reset()
    assert sandbox.wallet_requests() == []
    assert sandbox.wallet_balances() == {}
    assert sandbox.ledger("wallet")["transactions"] == 0
    assert payer.answers(item(0))[0]["balance"] == 51_000_000
