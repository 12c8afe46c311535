"""`python -m tests.signing --payloads 400000 --seed 7`: sign at random, and let JavaScript check.

Each request is made from the seed and its number alone: items with texts of every plane of Unicode
and amounts at the edges, some of which cannot be signed.  What `include.providers.wallet` freezes,
joins and signs must be what a partner gets who parses the body, writes it again and signs that
with a real JavaScript engine: V8, and by this command Node as well if it is on PATH.  What is
refused must be what cannot be signed, and nothing else.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import httpx
from py_mini_racer import MiniRacer

from include.providers import wallet
from include.providers.wallet import Item, Signing, Unsignable

SCRIPT = (Path(__file__).parent / "signing.js").read_text(encoding="utf-8")
# Written in UTF-8 it is longer than a block of SHA-256, so HMAC takes its digest as the key.
SECRETS = ("test-secret", "clé-ключ-🔑-" + "long" * 20)

_CHUNK = 1000
_FOUND_LIMIT = 10
_SHOWN_CHARACTERS = 1500
_INTEGER_LIMIT = 2**53 - 1
_HALF = re.compile("[\ud800-\udfff]")

# Node has its own decoder of UTF-8 and its own HMAC: nothing of ours but the comparison.
_NODE = """
const { createHmac } = require("node:crypto");
const [signed, secret] = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const differs = ([body, timestamp, signature]) => {
  const bytes = Buffer.from(body, "base64");
  const written = JSON.stringify(JSON.parse(utf8.decode(bytes)));
  const own = createHmac("sha256", secret).update(`${written}|${timestamp}`).digest("hex");
  return !Buffer.from(written).equals(bytes) || own !== signature;
};
console.log(signed.flatMap((one, number) => differs(one) ? [number] : []).join());
"""


class Signed(NamedTuple):
    """A request as it goes out."""

    body: bytes
    timestamp: str
    signature: str


Check = Callable[[Sequence[Signed], str], list[int]]


def v8() -> MiniRacer:
    """V8 with the partner's side of the signature (`signing.js`)."""
    engine = MiniRacer()
    engine.eval(SCRIPT)
    return engine


def run(payloads: int, seed: int) -> list[str]:
    """Sign and check so many requests; what is wrong, as sentences with the body that shows it."""
    return _sign(payloads, seed, [_v8_check()]).sentences


@dataclass
class _Done:
    signed: int = 0
    refused: int = 0
    sentences: list[str] = field(default_factory=list)


def _sign(payloads: int, seed: int, engines: list[tuple[str, Check]]) -> _Done:
    done = _Done()
    for start in range(0, payloads, _CHUNK):
        draw = random.Random((seed << 32) + start)
        secret = SECRETS[start // _CHUNK % len(SECRETS)]
        now = draw.randrange(10**12, 2 * 10**12)
        signing = Signing(secret, lambda now=now: now)
        chunk = [
            _signed(signing, items)
            for items in _requests(draw, min(_CHUNK, payloads - start), done)
        ]
        done.signed += len(chunk)
        for name, check in engines:
            for number in check(chunk, secret):
                shown = f"{ascii(chunk[number].body.decode())[:_SHOWN_CHARACTERS]}"
                done.sentences.append(
                    f"{name} signs another text than we do: {shown}; seed {seed}, "
                    f"request {start + number}."
                )
        if len(done.sentences) >= _FOUND_LIMIT:
            break
    return done


def _v8_check() -> tuple[str, Check]:
    engine = v8()

    def check(signed: Sequence[Signed], secret: str) -> list[int]:
        texts = [(one.body.decode(), one.timestamp, one.signature) for one in signed]
        return _numbers(str(engine.call("disagreements", texts, secret)))

    return f"V8 {engine.v8_version}", check


def _node_checks() -> list[tuple[str, Check]]:
    node = shutil.which("node")
    if node is None:
        return []
    return [("Node", lambda signed, secret: _check_with_node(node, signed, secret))]


def _check_with_node(node: str, signed: Sequence[Signed], secret: str) -> list[int]:
    texts = [(base64.b64encode(one.body).decode(), *one[1:]) for one in signed]
    found = subprocess.run(
        [node, "-e", _NODE],
        input=json.dumps([texts, secret]),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    return _numbers(found.stdout.strip())


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _signed(signing: Signing, items: list[bytes]) -> Signed:
    # What signing looks at of a request: a whole one takes longer to make than all the rest.
    request = SimpleNamespace(content=wallet.join_items(items), headers={})
    next(signing.auth_flow(cast("httpx.Request", request)))
    return Signed(request.content, request.headers["x-timestamp"], request.headers["x-signature"])


def _requests(draw: random.Random, count: int, done: _Done) -> Iterator[list[bytes]]:
    """The frozen items of each request; one that is refused does not take its neighbours along."""
    pool = _characters(draw)
    for _ in range(count):
        frozen: list[bytes] = []
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            item = _item(draw, pool)
            try:
                frozen.append(wallet.freeze_item(item))
            except Unsignable:
                done.refused += 1
                if is_signable(item):
                    done.sentences.append(f"An item is refused that can be signed: {item!a}.")
            except Exception as error:  # noqa: BLE001
                done.sentences.append(f"{type(error).__name__} is raised for {item!a}.")
            else:
                if not is_signable(item):
                    done.sentences.append(f"An item is frozen that cannot be signed: {item!a}.")
        yield frozen


def is_signable(item: Item) -> bool:
    """Whether JavaScript reads each value as it is meant."""
    texts = (
        item.transaction_id, item.ref_transaction_id, item.session_id, item.round_id,
        item.player_id, item.game_id, item.currency,
    )  # fmt: skip
    is_text = all(isinstance(text, str) and not _HALF.search(text) for text in texts)
    is_amount = isinstance(item.amount, int) and not isinstance(item.amount, bool)
    return (
        is_text
        and is_amount
        and -_INTEGER_LIMIT <= item.amount <= _INTEGER_LIMIT
        and isinstance(item.is_win, bool)
    )


# Where the random items come from.

_ODD = (
    *map(chr, range(0x20)), '"', "\\", "/", "<", ">", "&", "'", "\x7f", "\x80", "\x85", "\x9f",
    "\xa0", "\u0301", "\u200d", "\u202e", "\u2028", "\u2029", "\ufdd0", "\ufeff", "\ufffd",
    "\ufffe", "\uffff", "\ud7ff", "\ue000", "\U00010000", "\U0010fffe", "\U0010ffff", "e\u0301",
    "\\u0041", "\\ud83d", "\\n", '\\"', '"}', "__proto__", "toJSON", "-0", "1e3", "NaN", "null",
)  # fmt: skip
_AMOUNTS = (
    0, 1, -1, 250_000_000, 2**31 - 1, 2**31, 2**32, 10**15, 2**52, 2**53 - 2, 2**53 - 1, 2**53,
    2**53 + 1, 1 - 2**53, -(2**53), 2**63 - 1, 2**64, 10**21, 10**400,
)  # fmt: skip
# What no typed caller hands over, but Python does not prevent.
_WRONG_TYPES: tuple[dict[str, Any], ...] = (
    {"amount": 1.0}, {"amount": True}, {"amount": "1"}, {"amount": None}, {"is_win": 1},
    {"is_win": None}, {"currency": None}, {"player_id": 18865671}, {"round_id": b"bytes"},
)  # fmt: skip


def _characters(draw: random.Random) -> list[str]:
    """Some of each plane, as many of the odd ones, and ASCII."""
    anywhere = [
        chr(plane * 0x10000 + draw.randrange(0x10000)) for plane in range(17) for _ in range(20)
    ]
    whole = [one for one in anywhere if not "\ud800" <= one <= "\udfff"]
    two_bytes = [chr(draw.randrange(0x80, 0x800)) for _ in range(50)]
    return whole + two_bytes + list(_ODD) * 4 + [chr(code) for code in range(0x20, 0x7F)] * 2


def _item(draw: random.Random, pool: list[str]) -> Item:
    fields: dict[str, Any] = {
        "transaction_id": _text(draw, pool),
        "ref_transaction_id": _text(draw, pool),
        "session_id": _text(draw, pool),
        "round_id": _text(draw, pool),
        "player_id": _text(draw, pool),
        "game_id": _text(draw, pool),
        "currency": draw.choice(("EUR", "USD", "", "₿")),
        "amount": draw.choice(_AMOUNTS[:11]) if draw.random() < 0.3 else draw.getrandbits(53),
        "is_win": draw.random() < 0.9,
    }
    if draw.random() < 0.05:
        fields |= _spoiled(draw, fields)
    return Item(**fields)


def _text(draw: random.Random, pool: list[str]) -> str:
    kind = draw.random()
    if kind < 0.4:
        return f"{draw.getrandbits(128):032x}"
    if kind < 0.45:
        return ""
    return "".join(draw.choices(pool, k=draw.randrange(1, 25)))


def _spoiled(draw: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    kind = draw.random()
    if kind < 0.4:
        return {"amount": draw.choice(_AMOUNTS[11:])}
    if kind < 0.5:
        return draw.choice(_WRONG_TYPES)
    name = draw.choice(("transaction_id", "session_id", "player_id"))
    half = chr(draw.randrange(0xD800, 0xE000))
    # Two halves side by side are still no character to Python, though they were one to JSON.
    pair = draw.choice((half, half, "\ud83d\ude00"))
    at = draw.randrange(len(fields[name]) + 1)
    return {name: fields[name][:at] + pair + fields[name][at:]}


def main() -> int:
    """Parse the command line; 0 only if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.signing", description=__doc__)
    parser.add_argument("--payloads", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    arguments = parser.parse_args()
    began = time.monotonic()
    engines = [_v8_check(), *_node_checks()]
    done = _sign(arguments.payloads, arguments.seed, engines)
    for sentence in done.sentences:
        print(f"VIOLATION {sentence}")
    names = " and ".join(name for name, _ in engines)
    print(
        f"{done.signed} requests signed and {done.refused} items refused in "
        f"{time.monotonic() - began:.0f} s, checked with {names}, "
        f"seed {arguments.seed}: {len(done.sentences)} violations"
    )
    return 1 if done.sentences else 0


if __name__ == "__main__":
    sys.exit(main())
