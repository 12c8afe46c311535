"""The ways for bets in this project's own environment, one process each: see `measuring`.

This project goes the way its tasks go, session after session.  The stream is a file: each message
is there as soon as it is asked for, and behind the last one there is nothing but pings.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Engine, text

from include.catchup.sources import SOURCES, Source
from include.catchup.stream import Feed, Stream
from include.settings import Settings
from include.warehouse.database import open_engine
from tests.bench.bets import BetFile
from tests.bench.stopwatch import Stopwatch, run_way
from tests.bench.ways import land_all_again, load_all, open_hook

SETTINGS = Settings(
    odds88_payout_unit="major",
    odds88_payout_contains_partial_refund=True,
    odds88_audit_hour=None,
    # Nothing is waited for at the end of the file.
    stream_quiet_seconds=0.001,
)
_PING = b'{"pingId":"1","data":null}'


def load(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """This project: session after session to the file's end, every batch to `core`."""
    load_all(url, _unlimited(), _feed(file), SETTINGS, stopwatch)


def land_again(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """This project: every message once more; nothing of it is new."""
    land_all_again(url, _unlimited(), _feed(file), SETTINGS, stopwatch)


def postgres_hook(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """Airflow's own way: decoded rows of bets and legs through PostgresHook.insert_rows."""
    engine = open_engine(url)
    _make_plain_tables(engine)
    hook = open_hook(engine)
    stopwatch.start()
    with stopwatch.stage("decode and insert"):
        for bets in file.bets():
            for table, rows in _plain_rows(bets).items():
                hook.insert_rows(
                    table,
                    rows,
                    target_fields=list(_PLAIN[table]),
                    commit_every=5000,
                    replace=True,
                    replace_index=list(_KEYS[table]),
                    fast_executemany=True,
                )


def plain_copy(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """The floor: decoded rows by COPY into two tables; no raw, no versions, no second try."""
    engine = open_engine(url)
    _make_plain_tables(engine)
    stopwatch.start()
    with stopwatch.stage("decode and copy"), engine.begin() as connection:
        cursor = connection.connection.cursor()
        for bets in file.bets():
            for table, rows in _plain_rows(bets).items():
                buffer = io.StringIO()
                csv.writer(buffer).writerows(rows)
                buffer.seek(0)
                cursor.copy_expert(
                    f"COPY {table} ({', '.join(_PLAIN[table])}) FROM STDIN CSV", buffer
                )


class _FileFeed:
    """Tells the file's messages, as the provider would since a Unix second."""

    def __init__(self, file: BetFile) -> None:
        self._file = file

    def log_in(self) -> None:
        pass

    def connect(self, _token: None, revision: int) -> _FileSocket:
        return _FileSocket(self._file.messages(revision))

    def close(self) -> None:
        pass


class _FileSocket:
    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages

    def receive(self, _seconds: float) -> bytes | None:
        return next(self._messages, _PING)

    def close(self) -> None:
        pass


def _feed(file: BetFile) -> Feed:
    return cast("Feed", _FileFeed(file))


def _unlimited() -> Source:
    """The source as it is, but that it may connect as often as there are sessions to read."""
    source = SOURCES["odds88"]
    stream = source.acquire
    assert isinstance(stream, Stream)
    ample = {
        name: replace(getattr(stream, name), attempts=10**6)
        for name in ("proper", "without_revision")
    }
    return replace(source, acquire=replace(stream, **ample))


_KEYS = {"plain_bet": ("betid", "settlementtime"), "plain_leg": ("betid", "settlementtime", "leg")}
_PLAIN = {
    "plain_bet": {
        "betid": "text",
        "settlementtime": "timestamptz",
        "betsettlement": "int",
        "payoutmultiplier": "numeric",
        "iscancelled": "boolean",
        "isrejected": "boolean",
        "payout": "numeric",
        "partialrefund": "numeric",
        "currency": "text",
        "value": "bigint",
        "precision": "int",
        "placementrate": "numeric",
        "settlementrate": "numeric",
    },
    "plain_leg": {
        "betid": "text",
        "settlementtime": "timestamptz",
        "leg": "int",
        "eventid": "bigint",
        "eventname": "text",
        "islive": "boolean",
        "starttime": "timestamptz",
        "marketid": "bigint",
        "markettype": "bigint",
        "marketname": "text",
        "properties": "jsonb",
        "selectionid": "bigint",
        "competitionid": "bigint",
        "countryid": "bigint",
        "sportid": "bigint",
        "result": "int",
        "version": "int",
        "price": "numeric",
        "limitsratingid": "bigint",
        "limitsfactor": "numeric",
        "haslinedeviation": "boolean",
        "isoutright": "boolean",
        "selectionversion": "int",
        "deadheatfactor": "numeric",
        "parameters": "jsonb",
        "alternativeprice": "numeric",
        "type": "int",
    },
}


def _make_plain_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        for table, columns in _PLAIN.items():
            defined = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            key = ", ".join(_KEYS[table])
            connection.execute(text(f"CREATE TABLE {table} ({defined}, PRIMARY KEY ({key}))"))


def _plain_rows(bets: Iterable[dict[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    bet_rows, leg_rows = [], []
    for bet in bets:
        identity, amount = (bet["betId"], bet["settlementTime"]), bet["amount"]
        bet_rows.append(
            (
                *identity,
                bet["betSettlement"],
                bet["payoutMultiplier"],
                bet["isCancelled"],
                bet["isRejected"],
                bet["payout"],
                bet["partialRefund"],
                amount["currency"],
                amount["value"],
                amount["precision"],
                amount["placementExchangeRate"],
                amount["settlementExchangeRate"],
            )
        )
        leg_rows += [
            (*identity, number, *_leg(leg)) for number, leg in enumerate(bet["selections"], start=1)
        ]
    return {"plain_bet": bet_rows, "plain_leg": leg_rows}


def _leg(leg: dict[str, Any]) -> tuple[Any, ...]:
    event, market = leg["event"], leg["market"]
    return (
        event["id"],
        event["name"],
        event["isLive"],
        event["startTime"],
        market["id"],
        market["type"],
        market["name"],
        json.dumps(market["properties"]),
        leg["selectionId"],
        leg["competitionId"],
        leg["countryId"],
        leg["sportId"],
        leg["settlement"]["settlementResult"],
        leg["settlement"]["settlementVersion"],
        leg["price"],
        leg["limitsRatingId"],
        leg["limitsFactor"],
        leg["hasLineDeviation"],
        leg["isOutright"],
        leg["version"],
        leg["deadHeatFactor"],
        json.dumps(leg["parameters"]),
        leg["alternativePrice"],
        leg["type"],
    )


WAYS: dict[str, Callable[[str, BetFile, Stopwatch], None]] = {
    "load": load,
    "land_again": land_again,
    "postgres_hook": postgres_hook,
    "plain_copy": plain_copy,
}

if __name__ == "__main__":
    run_way(WAYS, BetFile)
