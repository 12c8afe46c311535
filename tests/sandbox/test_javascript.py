"""JSON written again as V8 writes it, text by text."""

from __future__ import annotations

import json
import random

import pytest
from py_mini_racer import MiniRacer

from include.sandbox.javascript import reserialised

TEXTS = [
    '{ "b" : 1 , "10" : 2, "9": 3, "a": [ ], "-1": 4, "01": 5, "4294967295": 6, "4294967294": 7 }',
    '{"a":1,"b":2,"a":3}',
    '{"__proto__":{"x":1},"x":[true,false,null]}',
    "[250000000, 250000000.0, 2.5e8, 1e21, 123456789012345680000, 1e-6, 1e-7, 0.1, -0, -0.0]",
    "[9007199254740993, 1e400, -1e400, 5e-324, 1.7976931348623157e308, 123e-20, 100]",
    r'["\u0041\/\"\\\b\f\n\r\t\u0000\u001f\u007f\u2028\u00e9", "é裁😀", "\ud83d\ude00", "\ud83d"]',
    r'["\udc00\ud800"]',
]


@pytest.fixture(scope="module")
def engine() -> MiniRacer:
    return MiniRacer()


def in_v8(engine: MiniRacer, text: str) -> bytes:
    engine.eval("var again = (text) => JSON.stringify(JSON.stringify(JSON.parse(text)))")
    # In ASCII both ways, so that nothing but JSON is between the two.
    escaped = json.dumps(text).replace("\u2028", "\\u2028")
    return json.loads(engine.eval(f"again({escaped})")).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", TEXTS)
def test_every_rule_is_that_of_the_engine(engine: MiniRacer, text: str) -> None:
    assert reserialised(text.encode()) == in_v8(engine, text)


def test_ten_thousand_random_numbers_are_written_as_the_engine_writes_them(
    engine: MiniRacer,
) -> None:
    draw = random.Random(20261121)
    numbers = [
        f"{draw.randrange(10 ** draw.randrange(1, 25))}"
        f".{draw.randrange(10 ** draw.randrange(1, 8))}e{draw.randrange(-330, 310)}"
        for _ in range(10_000)
    ]
    text = f"[{','.join(numbers)}]"
    assert reserialised(text.encode()) == in_v8(engine, text)


def test_what_is_no_utf8_is_replaced() -> None:
    assert reserialised(b'["gew\xe4hrt"]') == '["gew\ufffdhrt"]'.encode()


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "{'a':1}", '["\t"]', "[" * 10**5])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        reserialised(text.encode())
