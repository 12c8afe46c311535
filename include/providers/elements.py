"""Where the elements of a list in a JSON body lie, byte for byte, and what each of them is.

There are two ways with one result: at full speed while the body holds nothing odd, and slowly
otherwise.  The slow one is the standard library, which reads what
faster parsers refuse but JSON allows, such as half a surrogate pair or a number of any length, so
that one odd element costs only itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from include.providers.errors import PageUndecodable
from include.providers.texts import shown

_SPACE = re.compile(r"[ \t\n\r]*")
_INTEGER_DIGITS_LIMIT = 128
_AFTER_SEPARATOR = re.compile(rb"[^ \t\n\r,]")
# Whatever msgspec raises on bytes that it does not accept.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class Element(msgspec.Struct, frozen=True, gc=False):
    """One element of a list: its value, how many bytes of the body precede it, and its own."""

    value: Any
    start: int
    text: bytes


def parsed_json(body: bytes) -> Any:
    """What the body says; raises `PageUndecodable`, saying where, for anything but JSON in UTF-8.

    Of equal names the last one counts.
    """
    try:
        return msgspec.json.decode(body)
    except _UNREADABLE:
        text = _text(body)
    try:
        return TOLERANT.decode(text)
    except json.JSONDecodeError as error:
        start = shown(text[:40])
        raise PageUndecodable(
            f"the body is not JSON: {error.msg} (character {error.pos}; it starts with {start})"
        ) from None
    except ValueError as error:
        raise PageUndecodable(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise PageUndecodable("the body is nested too deeply to be read") from None


def elements_of(body: bytes, *names: str) -> Iterator[Element]:
    """The elements of the list that lies behind these member names in a body that is sound JSON."""
    placed = placed_texts(body, *names)
    if placed is None:
        yield from _tolerant_elements(body, names)
        return
    for start, text in zip(*placed, strict=True):
        yield Element(_value(text), start, text)


def placed_texts(body: bytes, *names: str) -> tuple[list[int], list[bytes]] | None:
    """Where the elements of that list begin, and their texts, at full speed.

    None if the body is not sound JSON, or holds something odd, for which it must be read slowly.
    """
    listed: Any
    try:
        listed = _decoder(names).decode(body)
    except _UNREADABLE:
        return None
    for name in names:
        listed = getattr(listed, name)
    texts = [bytes(text) for text in listed]
    starts = _starts(body, texts)
    return None if starts is None else (starts, texts)


@cache
def _decoder(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """What takes the list behind these names apart, and passes over all else."""
    kind: Any = list[msgspec.Raw]
    for name in reversed(names):
        kind = msgspec.defstruct("Envelope", [(name, kind)])
    return msgspec.json.Decoder(kind)


def _starts(body: bytes, texts: list[bytes]) -> list[int] | None:
    """Where each of the consecutive list elements `texts` begins in the body.

    Only the first is searched for.  None if the body holds its text twice, such as in a list that
    a later one of the same name replaces: which of the two is meant, only a full reading tells.
    """
    first = body.index(texts[0]) if texts else 0
    if texts and body.find(texts[0], first + 1) != -1:
        return None
    if body.startswith(b",".join(texts), first):
        # Written without spaces: one comparison for all of them.
        return list(accumulate((len(text) + 1 for text in texts[:-1]), initial=first))[: len(texts)]
    starts: list[int] = []
    end = first
    for text in texts:
        found = _AFTER_SEPARATOR.search(body, end)
        if found is None or not body.startswith(text, found.start()):
            return None
        starts.append(found.start())
        end = found.start() + len(text)
    return starts


def _value(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except _UNREADABLE:
        return TOLERANT.decode(text.decode())


def _tolerant_elements(body: bytes, names: tuple[str, ...]) -> Iterator[Element]:
    text = _text(body)
    index = _skip(text, 0)
    for name in names:
        index = _member_start(text, index, name)
    index = _skip(text, index + 1)
    characters = position = 0
    while text[index] != "]":
        value, end = TOLERANT.raw_decode(text, index)
        start = position + len(text[characters:index].encode())
        element = text[index:end].encode()
        yield Element(value, start, element)
        characters, position = end, start + len(element)
        index = _skip_comma(text, end)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PageUndecodable(f"byte {error.start} of the body is not UTF-8") from None


def _whole_number(digits: str) -> int:
    # Python refuses to convert very long numbers.  The first digits already make it larger than
    # anything that can be used.
    return int(digits[:_INTEGER_DIGITS_LIMIT])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


TOLERANT = json.JSONDecoder(parse_int=_whole_number, parse_constant=_no_constant)
"""What reads odd JSON, and raises ValueError for what is none."""


def _member_start(text: str, start: int, name: str) -> int:
    """Where the value of the member `name` of the object that begins at `start` begins."""
    found = -1
    index = _skip(text, start + 1)
    while text[index] != "}":
        key, index = TOLERANT.raw_decode(text, index)
        value_start = _skip(text, _skip(text, index) + 1)
        if key == name:
            found = value_start
        index = _skip_comma(text, TOLERANT.raw_decode(text, value_start)[1])
    return found


def _skip(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return match.end() if match else index


def _skip_comma(text: str, index: int) -> int:
    index = _skip(text, index)
    return _skip(text, index + 1) if text[index] == "," else index
