"""Files of markets: what another system lists enters the queue, and waits there for evidence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from include.markets.queue import MarketsRefused, set_currencies
from include.providers.prediction import is_market_id
from include.warehouse.database import array_literal, transaction
from include.warehouse.markets import SOURCE

_FILE_BYTES_LIMIT = 64 * 2**20
_WRONG_LINES_SHOWN = 10

_ENTER = text("""
INSERT INTO prediction.market (market_id, entered_by, currency)
SELECT market_id, 'file', currency
FROM unnest(CAST(:market_ids AS text[]), CAST(:currencies AS text[])) AS listed (
    market_id, currency
)
ON CONFLICT DO NOTHING
""")


def is_market_register(path: Path) -> bool:
    """Whether the file's name says that it lists markets."""
    return path.name.startswith(SOURCE)


def import_markets(engine: Engine, path: Path) -> dict[str, int]:
    """Enter the markets of a file: an id a line, CSV with the columns `market_id` and, if there is
    one, `currency`, or JSON of the same a line.

    Raises `MarketsRefused`, with nothing entered, if any line is none, or tells another currency
    than is known of its market.
    """
    listed = _read_register(path)
    with transaction(engine, "loader") as connection:
        entered = connection.execute(
            _ENTER,
            {
                "market_ids": array_literal(listed),
                "currencies": array_literal(listed.values()),
            },
        ).rowcount
        set_currencies(connection, listed)
    return {"read": len(listed), "new": entered, "known": len(listed) - entered}


def _read_register(path: Path) -> dict[str, str | None]:
    """The markets of a file, each with its currency if any line of it tells one."""
    if path.stat().st_size > _FILE_BYTES_LIMIT:
        raise MarketsRefused(
            f"{path.name} is larger than {_FILE_BYTES_LIMIT} bytes. Nothing was entered. Split it."
        )
    try:
        written = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise MarketsRefused(f"{path.name} is not UTF-8. Nothing was entered.") from None
    listed: dict[str, str | None] = {}
    wrong: list[str] = []
    for number, told in _lines(written):
        market_id, currency = told if told is not None else ("", None)
        if not is_market_id(market_id) or not _is_currency(currency):
            wrong.append(f"line {number}")
            continue
        known = listed.get(market_id)
        if None not in (known, currency) and known != currency:
            raise MarketsRefused(
                f"Line {number} of {path.name} tells {currency} of market {market_id}, and an "
                f"earlier line {known}. Nothing was entered. Correct one and import it again."
            )
        listed[market_id] = known or currency
    if wrong:
        more = len(wrong) - _WRONG_LINES_SHOWN
        raise MarketsRefused(
            f"{', '.join(wrong[:_WRONG_LINES_SHOWN])}{f' and {more} more' if more > 0 else ''} of "
            f"{path.name} name no market. Nothing was entered. Correct them and import it again."
        )
    return listed


def _lines(written: str) -> Iterator[tuple[int, tuple[str, str | None] | None]]:
    """Each line's number, and the id and currency in it; None if there are none."""
    columns: list[str] | None = None
    for number, line in enumerate(io.StringIO(written), 1):
        text_of_line = line.strip()
        if not text_of_line:
            continue
        if text_of_line.startswith("{"):
            yield number, _of_fields(_json_fields(text_of_line))
            continue
        cells = [cell.strip() for cell in next(csv.reader([text_of_line]))]
        if columns is None:
            columns = cells if "market_id" in cells else ["market_id", "currency"]
            if "market_id" in cells:
                continue
        is_whole = len(cells) <= len(columns)
        yield number, _of_fields(dict(zip(columns, cells, strict=False))) if is_whole else None


def _json_fields(line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _of_fields(fields: Mapping[str, Any]) -> tuple[str, str | None] | None:
    market_id, currency = fields.get("market_id"), fields.get("currency") or None
    if not isinstance(market_id, str) or not isinstance(currency, str | None):
        return None
    return market_id, currency


def _is_currency(currency: str | None) -> bool:
    return currency is None or (
        currency.isascii() and currency.isalnum() and 2 <= len(currency) <= 12
    )
