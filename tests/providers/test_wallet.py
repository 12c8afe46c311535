"""The wallet's wire: frozen bytes, signatures JavaScript agrees with, and what answers mean."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from include.providers import wallet
from include.providers.deadlines import now
from include.providers.errors import Ambiguous, Fatal, Retriable
from include.providers.http import Answer
from include.providers.wallet import (
    ITEM_CODES,
    AnsweredItem,
    CodeClass,
    Envelope,
    Execution,
    Item,
    Signing,
    Unsignable,
    classify_answer,
    classify_code,
    classify_error,
    freeze_item,
    join_items,
    read_answer,
)
from include.settings import Settings
from tests import signing

GOLDEN = Path(__file__).parent / "wallet"
SECRET = "sk_5b1e-signing"
KEY = "pk_77c0-partner"
ITEM = Item(
    transaction_id="dd96bda3",
    ref_transaction_id="21848853",
    session_id="f1dfc865",
    round_id="817e22b4-1753428290674",
    player_id="18865671",
    game_id="G1720761376617",
    currency="EUR",
    amount=250_000_000,
    is_win=True,
)
OK_ITEM = {"status": "RS_OK", "transactionId": "dd96bda3", "balance": 300_000_000}


def item_with(**changes: Any) -> Item:
    return msgspec.structs.replace(ITEM, **changes)


def golden(name: str) -> tuple[bytes, dict[str, Any]]:
    folder = GOLDEN / name
    return (folder / "payload.json").read_bytes(), json.loads(
        (folder / "expected.json").read_bytes()
    )


def signature_of(body: bytes, secret: str, timestamp: int) -> str:
    request = httpx.Request("POST", "http://partner/", content=body)
    next(Signing(secret, lambda: timestamp).auth_flow(request))
    assert request.headers["x-timestamp"] == str(timestamp)
    return str(request.headers["x-signature"])


@pytest.fixture(scope="module")
def engine() -> MiniRacer:
    return signing.v8()


def written_again(engine: MiniRacer, text: str) -> str:
    return str(engine.call("((text) => JSON.stringify(JSON.parse(text)))", text))


# Golden pairs


def test_the_documented_request_becomes_the_bytes_and_the_signature_that_are_expected() -> None:
    payload, expected = golden("documented_request")
    items = msgspec.json.decode(payload, type=dict[str, list[Item]])["transactions"]
    body = join_items([freeze_item(item) for item in items])
    assert body.decode() == expected["body"]
    assert len(body) == expected["bytes"] == 357
    assert signature_of(body, expected["secret"], expected["timestamp"]) == expected["signature"]
    assert expected["signature"] == (
        "db0a2a272f9fe319a2cc516383adb03207cd38204771a6a1d7821f2713630b38"
    )


def test_the_documented_answer_becomes_what_is_expected() -> None:
    payload, expected = golden("documented_answer")
    read = read_answer(payload)
    assert expected == {
        "envelope": read.classify(),
        "execution": classified(answer_of(200, payload)),
        "answer": json.loads(msgspec.json.encode(read)),
    }


# Frozen bytes


def test_an_item_is_written_with_the_documented_fields_in_the_printed_order() -> None:
    assert freeze_item(ITEM) == (
        b'{"transactionId":"dd96bda3","refTransactionId":"21848853","sessionId":"f1dfc865",'
        b'"roundId":"817e22b4-1753428290674","playerId":"18865671","gameId":"G1720761376617",'
        b'"currency":"EUR","amount":250000000,"isWin":true}'
    )


def test_a_batch_holds_the_very_bytes_of_its_items_in_their_order() -> None:
    frozen = [freeze_item(item_with(transaction_id=f"t{number}")) for number in range(3)]
    odd = b'{"kept": "as it is"}'
    assert join_items([*frozen, odd]) == b'{"transactions":[%b]}' % b",".join([*frozen, odd])


@given(st.text(st.characters(codec="utf-8")), st.integers(1 - 2**53, 2**53 - 1), st.booleans())
def test_what_is_frozen_reads_as_what_was_meant(text: str, amount: int, is_win: bool) -> None:
    item = item_with(round_id=text, amount=amount, is_win=is_win)
    assert json.loads(freeze_item(item)) == json.loads(freeze_item(ITEM)) | {
        "roundId": text,
        "amount": amount,
        "isWin": is_win,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": 2**53}, "`amount` is beyond 2^53 - 1"),
        ({"amount": -(2**53)}, "`amount` is beyond 2^53 - 1"),
        ({"amount": 10**5000}, "`amount` is beyond 2^53 - 1"),
        ({"amount": 1.0}, "`amount` is no whole number but a float"),
        ({"amount": True}, "`amount` is no whole number but a bool"),
        ({"amount": "250000000"}, "`amount` is no whole number but a str"),
        ({"is_win": 1}, "`isWin` is neither true nor false but a int"),
        ({"is_win": None}, "`isWin` is neither true nor false but a NoneType"),
        ({"player_id": 18865671}, "`playerId` is no text but a int"),
        ({"ref_transaction_id": None}, "`refTransactionId` is no text but a NoneType"),
        ({"round_id": "x\ud83d"}, "`roundId` holds half a surrogate pair"),
        ({"game_id": "\ud83d\ude00"}, "`gameId` holds half a surrogate pair"),
    ],
)
def test_what_cannot_be_signed_is_refused_with_the_field_and_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unsignable, match=reason.replace("^", r"\^")) as caught:
        freeze_item(item_with(**changes))
    assert caught.value.reason.isascii()
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("9007199254740993", "9007199254740992"),
        ("-9007199254740993", "-9007199254740992"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("1e21", "1e+21"),
        ("-0", "0"),
        ('{"b":1,"2":1,"1":1}', '{"1":1,"2":1,"b":1}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('{"a": 1}', '{"a":1}'),
        ('"\\u00e9"', '"\u00e9"'),
        ('"\\/"', '"/"'),
        ('"\\u000A"', '"\\n"'),
        ('"\\u001F"', '"\\u001f"'),
        ('"\\ud83d\\ude00"', '"\U0001f600"'),
        ('"\\uD83D"', '"\\ud83d"'),
    ],
)
def test_javascript_changes_what_is_never_written(
    engine: MiniRacer, text: str, becomes: str
) -> None:
    """Why amounts are whole and bounded, keys fixed, and texts written in one way only."""
    assert written_again(engine, text) == becomes


def test_javascript_takes_two_amounts_for_the_same_from_2_to_the_53_on(engine: MiniRacer) -> None:
    assert engine.eval("9007199254740992 === 9007199254740993") is True
    assert engine.eval("9007199254740991 === 9007199254740992") is False


def test_half_a_surrogate_pair_does_not_arrive_as_it_was_sent(engine: MiniRacer) -> None:
    half = '"x\ud83d"'.encode("utf-8", "surrogatepass")
    arrived = half.decode("utf-8", "replace")
    assert written_again(engine, arrived).encode() != half


@pytest.mark.parametrize("text", ["\0", "\x7f", "\u2028\u2029", "\ufeff", "\uffff\U0010ffff", ""])
def test_what_looks_dangerous_but_is_not_is_signed(engine: MiniRacer, text: str) -> None:
    frozen = freeze_item(item_with(round_id=text, amount=2**53 - 1)).decode()
    assert written_again(engine, frozen) == frozen


# Signatures


def test_javascript_agrees_with_fifty_thousand_random_signatures() -> None:
    assert signing.run(payloads=50_000, seed=20261121) == []


@pytest.mark.parametrize(
    ("name", "broken", "found"),
    [
        ("_INTEGER_LIMIT", 2**64, "An item is frozen that cannot be signed"),
        ("_INTEGER_LIMIT", 2**52, "An item is refused that can be signed"),
        ("_check_text", lambda name, value: None, "UnicodeEncodeError is raised for"),
        (
            "join_items",
            lambda items: json.dumps({"transactions": [*map(json.loads, items)]}).encode(),
            "signs another text than we do",
        ),
    ],
)
def test_a_broken_way_of_writing_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, found: str
) -> None:
    monkeypatch.setattr(wallet, name, broken)
    sentences = signing.run(payloads=1000, seed=7)
    assert any(found in sentence for sentence in sentences)


def test_a_broken_signature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def over_the_body_alone(self: Signing, body: bytes, timestamp: str) -> str:
        return hmac.new(b"test-secret", body, "sha256").hexdigest()

    monkeypatch.setattr(Signing, "_signature", over_the_body_alone)
    sentences = signing.run(payloads=10, seed=7)
    assert len(sentences) == 10
    assert all("seed 7, request " in sentence for sentence in sentences)


def test_the_partners_side_computes_what_the_standard_library_does(engine: MiniRacer) -> None:
    for length in (*range(130), 1000):
        text = json.dumps("é" * length, ensure_ascii=False)
        for secret in signing.SECRETS:
            own = hmac.new(secret.encode(), f"{text}|12".encode(), hashlib.sha256).hexdigest()
            assert engine.call("disagreements", [[text, "12", own]], secret) == ""
            wrong = own[:-1] + ("0" if own[-1] != "0" else "1")
            assert engine.call("disagreements", [[text, "12", wrong]], secret) == "0"


def test_the_signature_is_over_exactly_the_bytes_of_the_body() -> None:
    body = b'{"transactions": [ ] }\n'
    expected = hmac.new(SECRET.encode(), body + b"|1753428290674", hashlib.sha256).hexdigest()
    assert signature_of(body, SECRET, 1753428290674) == expected


def test_a_body_that_streams_is_read_before_it_is_signed() -> None:
    request = httpx.Request("POST", "http://partner/", content=iter((b'{"a"', b":1}")))
    next(Signing(SECRET, lambda: 12).sync_auth_flow(request))
    assert request.headers["x-signature"] == signature_of(b'{"a":1}', SECRET, 12)


def test_the_clock_tells_unix_milliseconds() -> None:
    assert abs(wallet.unix_milliseconds() / 1000 - datetime.now(UTC).timestamp()) < 5


@pytest.mark.parametrize("secret", ["", f"{SECRET}\ud83d"])
def test_a_secret_that_cannot_sign_is_fatal_and_not_shown(secret: str) -> None:
    with pytest.raises(Fatal, match="Enter `signing_secret` in the extra") as caught:
        Signing(secret)
    # The error that a text gives which cannot be encoded holds the whole text.
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_signing_does_not_show_its_secret() -> None:
    made = Signing(SECRET)
    assert SECRET not in f"{made!r} {vars(made)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(made)


# The wire


@dataclass
class Received:
    """What a partner saw: each request's path, headers (lower case) and body."""

    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def partner(status: int, body: bytes) -> Iterator[tuple[str, Received]]:
    """A partner that answers every request in the same way."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.requests.append((self.path, headers, content))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/partner", received
        finally:
            server.shutdown()
            thread.join()


def test_the_same_bytes_are_sent_again_with_a_fresh_timestamp_and_signature(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = join_items([freeze_item(ITEM)])
    clock = iter((1753428290674, 1753428390000))
    signing_twice = Signing(SECRET, lambda: next(clock))
    with (
        caplog.at_level(logging.DEBUG),
        partner(200, b'{"status":"RS_OK","data":[]}') as (base_url, received),
        wallet.open_client(base_url, KEY, Settings()) as client,
    ):
        for _ in range(2):
            ends_at = now() + 10
            answer = wallet.post_settlement(client, body, signing_twice, ends_at=ends_at)
            assert (answer.status, answer.is_complete) == (200, True)
    assert len(received.requests) == 2
    for (path, headers, content), timestamp in zip(
        received.requests, (1753428290674, 1753428390000), strict=True
    ):
        assert (path, content) == ("/partner/transaction/settlement", body)
        assert headers["content-type"] == "application/json"
        assert headers["x-api-key"] == KEY
        assert headers["x-timestamp"] == str(timestamp)
        assert headers["x-signature"] == signature_of(body, SECRET, timestamp)
        assert SECRET not in json.dumps(headers)
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


# What came of an attempt


def classified(answer: Answer, codes: Mapping[str, CodeClass] = ITEM_CODES) -> Execution:
    return classify_answer(answer, read_answer(answer.body), codes)


def answer_of(
    status: int, body: bytes | dict[str, Any] = b"", *, is_complete: bool = True
) -> Answer:
    return Answer(
        status=status,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        content_type="application/json",
        url_path="/transaction/settlement",
        requested_at=datetime(2026, 11, 21, 1, tzinfo=UTC),
        received_at=datetime(2026, 11, 21, 1, tzinfo=UTC),
        is_complete=is_complete,
    )


STATUSES = {
    Execution.NOT_EXECUTED: {429},
    Execution.REJECTED_STOP: {*range(300, 400), 401, 403, 404},
    Execution.REJECTED_BISECT: {400, 413, 422},
}
NO_ANSWER = b"<html>oops</html>"
BOOKED = {"status": "RS_OK", "data": [OK_ITEM]}
BAD_SIGNATURE = {"status": "RS_ERROR_INVALID_SIGNATURE"}


@pytest.mark.parametrize("is_complete", [True, False])
def test_each_status_without_a_readable_body_means_what_the_event_table_says(
    is_complete: bool,
) -> None:
    found: dict[Execution, set[int]] = {}
    for status in range(100, 600):
        answer = answer_of(status, NO_ANSWER, is_complete=is_complete)
        found.setdefault(classified(answer), set()).add(status)
    assert found.pop(Execution.IN_DOUBT) == set(range(100, 600)).difference(*STATUSES.values())
    assert found == STATUSES


def test_items_in_an_answer_that_is_no_success_do_not_count() -> None:
    for status in (*range(100, 200), *range(300, 600)):
        empty, booked = answer_of(status), answer_of(status, BOOKED)
        assert classified(booked) is classified(empty) is not Execution.ANSWERED


@pytest.mark.parametrize(
    ("body", "execution"),
    [
        (BOOKED, Execution.ANSWERED),
        ({"status": "RS_ERROR", "data": [OK_ITEM]}, Execution.ANSWERED),
        ({"data": [OK_ITEM]}, Execution.ANSWERED),
        (BAD_SIGNATURE, Execution.REJECTED_STOP),
        (BAD_SIGNATURE | {"data": []}, Execution.REJECTED_STOP),
        (BAD_SIGNATURE | {"data": [OK_ITEM]}, Execution.REJECTED_STOP),
        ({"status": "RS_OK"}, Execution.IN_DOUBT),
        ({"status": "RS_OK", "data": []}, Execution.IN_DOUBT),
        ({"status": "RS_OK", "data": {}}, Execution.IN_DOUBT),
        ({"status": "RS_ERROR"}, Execution.IN_DOUBT),
        ({"status": "RS_ERROR_WRONG_SYNTAX"}, Execution.IN_DOUBT),
        ({}, Execution.IN_DOUBT),
        (b"", Execution.IN_DOUBT),
        (NO_ANSWER, Execution.IN_DOUBT),
        (b'{"status":"RS_OK","data":[{"status":"RS_OK","tra', Execution.IN_DOUBT),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_means_what_its_envelope_can_be_used_for(
    status: int, body: bytes | dict[str, Any], execution: Execution
) -> None:
    assert classified(answer_of(status, body)) is execution


def test_a_body_that_broke_off_is_in_doubt_even_if_it_reads_well() -> None:
    assert classified(answer_of(200, BOOKED, is_complete=False)) is Execution.IN_DOUBT


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_is_not_halved_in_search_of_a_wrong_signature(status: int) -> None:
    assert classified(answer_of(status, BAD_SIGNATURE)) is Execution.REJECTED_STOP


@pytest.mark.parametrize(
    ("error", "execution"),
    [
        (Retriable("wallet", "", ""), Execution.NOT_EXECUTED),
        (Fatal("wallet", "", ""), Execution.REJECTED_STOP),
        (Ambiguous("wallet", "", ""), Execution.IN_DOUBT),
        (RuntimeError(), Execution.IN_DOUBT),
        (KeyboardInterrupt(), Execution.IN_DOUBT),
    ],
)
def test_an_error_means_what_it_is_named_for(error: BaseException, execution: Execution) -> None:
    assert classify_error(error) is execution


# Codes


@pytest.mark.parametrize(
    ("code_class", "codes"),
    [
        (CodeClass.OK, "RS_OK"),
        (
            CodeClass.FINAL,
            "RS_ERROR RS_ERROR_USER_DISABLED RS_ERROR_WRONG_CURRENCY RS_ERROR_NOT_ENOUGH_MONEY "
            "RS_ERROR_LIMIT_REACHED RS_ERROR_INVALID_GAME RS_ERROR_TRANSACTION_DOES_NOT_EXIST",
        ),
        (CodeClass.DUPLICATE, "RS_ERROR_DUPLICATE_TRANSACTION"),
        (
            CodeClass.AUTHENTICATION,
            "RS_ERROR_INVALID_PARTNER RS_ERROR_INVALID_SIGNATURE RS_ERROR_INVALID_TOKEN "
            "RS_ERROR_TOKEN_EXPIRED",
        ),
        (CodeClass.SYNTAX, "RS_ERROR_WRONG_SYNTAX RS_ERROR_WRONG_TYPES"),
    ],
)
def test_the_known_codes_have_a_meaning_each(code_class: CodeClass, codes: str) -> None:
    assert {code for code, known in ITEM_CODES.items() if known is code_class} == set(codes.split())
    assert all(classify_code(code) is code_class for code in codes.split())


@pytest.mark.parametrize(
    "code", [None, "", "RS_NEW", "RS_ERROR_", "RS_ERROR_UNKNOWN", "rs_ok", "OK"]
)
def test_an_unknown_code_is_not_guessed(code: str | None) -> None:
    assert classify_code(code) is CodeClass.OTHER


def test_what_codes_mean_can_be_replaced_and_not_changed() -> None:
    codes = {"PAID": CodeClass.OK, "WHO": CodeClass.AUTHENTICATION}
    assert classify_code("PAID", codes) is CodeClass.OK
    assert classify_code("RS_OK", codes) is CodeClass.OTHER
    assert read_answer(b'{"status":"WHO"}').classify(codes) is Envelope.AUTHENTICATION
    assert classified(answer_of(200, {"status": "WHO"}), codes) is Execution.REJECTED_STOP
    assert classified(answer_of(400, {"status": "WHO"}), codes) is Execution.REJECTED_STOP
    with pytest.raises(TypeError):
        ITEM_CODES["RS_ERROR"] = CodeClass.OK  # type: ignore[index]


# Answers


def only_item(element: Any) -> AnsweredItem:
    (item,) = read_answer(json.dumps({"status": "RS_OK", "data": [element]}).encode()).items
    return item


NOTHING = only_item({})


@pytest.mark.parametrize("element", [{}, None, 1, "RS_OK", [], [OK_ITEM], True, {"x": OK_ITEM}])
def test_an_element_that_says_nothing_is_kept_in_its_place(element: Any) -> None:
    body = json.dumps({"status": "RS_OK", "data": [OK_ITEM, element, OK_ITEM]}).encode()
    read = read_answer(body)
    assert read.items == (only_item(OK_ITEM), NOTHING, only_item(OK_ITEM))
    assert set(msgspec.to_builtins(NOTHING).values()) == {None}


def test_foreign_duplicated_and_contradicting_elements_are_all_there() -> None:
    elements = [
        {"status": "RS_OK", "transactionId": "a"},
        {"status": "RS_OK", "transactionId": "a"},
        {"status": "RS_ERROR", "transactionId": "a"},
        {"status": "RS_OK", "transactionId": "never sent", "unknown": {"x": 1}},
    ]
    read = read_answer(json.dumps({"status": "RS_OK", "data": elements, "more": 1}).encode())
    assert [(item.transaction_id, item.code) for item in read.items] == [
        ("a", "RS_OK"),
        ("a", "RS_OK"),
        ("a", "RS_ERROR"),
        ("never sent", "RS_OK"),
    ]


@pytest.mark.parametrize("balance", [0, -1, 300_000_000, 2**53 + 1, -(2**63) - 1, 10**99])
def test_a_balance_is_exact_however_large(balance: int) -> None:
    assert only_item({"balance": balance}).balance == balance


@pytest.mark.parametrize(
    "written",
    ["1.0", "3e8", "1e999999", "null", "true", '"300000000"', "[]", "9" * 101, "9" * 9999],
)
def test_a_balance_that_is_no_whole_number_costs_only_itself(written: str) -> None:
    body = '{"status":"RS_OK","data":[{"status":"RS_OK","transactionId":"a","balance":%s}]}'
    (item,) = read_answer((body % written).encode()).items
    assert (item.code, item.transaction_id, item.balance) == ("RS_OK", "a", None)


@pytest.mark.parametrize(
    "value", [None, 5, 1.5, True, [], {}, "x\0", "x\ud83d", "x" * 501, "\ud83d\udc00\udc00"]
)
@pytest.mark.parametrize("name", ["status", "transactionId", "sessionId", "currency"])
def test_a_text_that_cannot_be_used_costs_only_itself(name: str, value: Any) -> None:
    item = only_item(OK_ITEM | {"sessionId": "s", "currency": "EUR"} | {name: value})
    attribute = {"status": "code", "transactionId": "transaction_id", "sessionId": "session_id"}
    expected = only_item(OK_ITEM | {"sessionId": "s", "currency": "EUR"})
    assert item == msgspec.structs.replace(expected, **{attribute.get(name, name): None})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the answer is not JSON: Expecting value (character 0)"),
        (b"<html>", "the answer is not JSON: Expecting value (character 0)"),
        (b'{"status":"RS_OK"', "the answer is not JSON: Expecting ',' delimiter (character 17)"),
        (b'{"status":"RS_OK","data":[NaN]}', "the answer is not JSON: NaN is not JSON"),
        (b'{"status":"\xff"}', "the answer is not JSON: byte 11 is not UTF-8"),
        (b"[" * 100_000, "the answer is not JSON: it is nested too deeply"),
        (b"[]", "the answer is JSON, but not an object"),
        (b"null", "the answer is JSON, but not an object"),
        (b"{}", "the answer has no list `data`"),
        (b'{"data":null}', "the answer has no list `data`"),
        (b'{"data":[]}', "the list `data` is empty"),
    ],
)
def test_an_answer_without_items_says_why(body: bytes, reason: str) -> None:
    read = read_answer(body)
    assert (read.items, read.unusable_reason) == ((), reason)
    assert read.classify() is Envelope.UNUSABLE


@pytest.mark.parametrize(
    ("code", "envelope"),
    [
        ("RS_OK", Envelope.OK),
        ("RS_ERROR_TOKEN_EXPIRED", Envelope.AUTHENTICATION),
        ("RS_ERROR", Envelope.OTHER),
        ("RS_ERROR_WRONG_SYNTAX", Envelope.OTHER),
        ("RS_ERROR_DUPLICATE_TRANSACTION", Envelope.OTHER),
        ("RS_SOMETHING", Envelope.OTHER),
        (None, Envelope.OTHER),
    ],
)
def test_an_envelope_with_items_is_ok_only_if_it_says_so(
    code: str | None, envelope: Envelope
) -> None:
    read = read_answer(json.dumps({"status": code, "data": [OK_ITEM]}).encode())
    assert (read.code, read.classify()) == (code, envelope)


def test_a_byte_order_mark_is_not_part_of_an_answer() -> None:
    body = json.dumps(BOOKED).encode()
    assert read_answer(b"\xef\xbb\xbf" + body) == read_answer(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
elements = json_values | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["status", "transactionId", "balance", "playerId"], json_values)
)


@given(st.lists(elements, max_size=4), json_values, st.booleans(), st.integers(0, 10**6))
def test_every_element_of_any_answer_is_read_and_can_be_stored(
    data: list[Any], status: Any, is_cut: bool, cut_at: int
) -> None:
    body = json.dumps({"status": status, "data": data}).encode()
    read = read_answer(body[: cut_at % len(body)] if is_cut else body)
    constants: list[str] = []
    json.loads(body, parse_constant=constants.append)
    if is_cut or constants:
        assert (read.items, read.classify()) == ((), Envelope.UNUSABLE)
    else:
        assert len(read.items) == len(data)
    for item in read.items:
        for text in msgspec.to_builtins(item).values():
            assert "\0" not in str(text)
            str(text).encode()


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_at_all_are_too_odd_to_be_read(body: bytes) -> None:
    assert read_answer(body).unusable_reason
