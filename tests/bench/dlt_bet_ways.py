"""dlt at its fastest on bets of several legs, in the environment .venv-bench: see `measuring`.

As dicts, dlt itself makes a table of the legs.  From Arrow, bets and legs are two tables that are
merged by their keys; Arrow's JSON reads numbers with a point as floats.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import dlt
import pyarrow
import pyarrow.compute
import pyarrow.json

from tests.bench.bets import BetFile
from tests.bench.dlt_ways import UPSERT, merge
from tests.bench.stopwatch import Stopwatch, run_way

_INT, _FLOAT, _TEXT, _BOOL = (
    pyarrow.int64(),
    pyarrow.float64(),
    pyarrow.string(),
    pyarrow.bool_(),
)
_TIME = pyarrow.timestamp("us", "UTC")


def _struct(**fields: Any) -> Any:
    return pyarrow.struct(list(fields.items()))


_SELECTION = _struct(
    event=_struct(id=_INT, name=_TEXT, isLive=_BOOL, startTime=_TIME),
    market=_struct(id=_INT, type=_INT, name=_TEXT, properties=_struct(line=_TEXT)),
    selectionId=_INT,
    competitionId=_INT,
    countryId=_INT,
    sportId=_INT,
    settlement=_struct(settlementResult=_INT, settlementTime=_TIME, settlementVersion=_INT),
    price=_FLOAT,
    limitsRatingId=_INT,
    limitsFactor=_FLOAT,
    hasLineDeviation=_BOOL,
    isOutright=_BOOL,
    version=_INT,
    deadHeatFactor=_FLOAT,
    parameters=_struct(channel=_TEXT),
    alternativePrice=_FLOAT,
    type=_INT,
)
_BET = _struct(
    settlementTime=_TIME,
    betId=_TEXT,
    betSettlement=_INT,
    payoutMultiplier=_FLOAT,
    isCancelled=_BOOL,
    selections=pyarrow.list_(_SELECTION),
    isRejected=_BOOL,
    payout=_FLOAT,
    partialRefund=_FLOAT,
    amount=_struct(
        currency=_TEXT,
        value=_INT,
        precision=_INT,
        placementExchangeRate=_FLOAT,
        settlementExchangeRate=_FLOAT,
    ),
)
_MESSAGE = pyarrow.schema([("data", _BET)])
_BET_KEY = ["bet_id", "settlement_time"]


def dicts(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """Bets as dicts, their legs a table that dlt makes of them, normalized by two processes."""
    os.environ["NORMALIZE__WORKERS"] = "2"
    resource = dlt.resource(file.bets(), name="bet", primary_key=_BET_KEY, write_disposition=UPSERT)
    merge(url, resource, stopwatch)


def arrow(url: str, file: BetFile, stopwatch: Stopwatch) -> None:
    """Bets and legs as Arrow tables, decoded by Arrow's own JSON."""

    @dlt.resource(name="bet", primary_key=_BET_KEY, write_disposition=UPSERT)
    def bets() -> Iterator[Any]:
        legs = dlt.mark.make_hints(
            table_name="leg", primary_key=[*_BET_KEY, "leg"], write_disposition=UPSERT
        )
        for bet_table, leg_table in _tables(file):
            yield bet_table
            yield dlt.mark.with_hints(leg_table, legs, create_table_variant=True)

    merge(url, bets(), stopwatch)


def _tables(file: BetFile) -> Iterator[tuple[pyarrow.Table, pyarrow.Table]]:
    for chunk in file.chunks():
        decoded = pyarrow.json.read_json(
            io.BytesIO(chunk),
            read_options=pyarrow.json.ReadOptions(block_size=len(chunk) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=_MESSAGE, unexpected_field_behavior="ignore"
            ),
        )
        bets = pyarrow.Table.from_struct_array(decoded["data"].combine_chunks())
        yield _flat(bets.drop_columns(["selections"])), _legs(bets)


def _legs(bets: pyarrow.Table) -> pyarrow.Table:
    selections = bets["selections"].combine_chunks()
    parents = pyarrow.compute.list_parent_indices(selections)
    firsts = pyarrow.compute.take(selections.offsets, parents)
    numbers = pyarrow.compute.subtract(pyarrow.array(range(len(parents)), pyarrow.int32()), firsts)
    legs = pyarrow.Table.from_struct_array(selections.flatten())
    for position, name in enumerate(("betId", "settlementTime")):
        legs = legs.add_column(position, name, pyarrow.compute.take(bets[name], parents))
    return _flat(legs.add_column(2, "leg", numbers))


def _flat(table: pyarrow.Table) -> pyarrow.Table:
    """Objects in objects as columns of their own."""
    while any(pyarrow.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table.rename_columns([name.replace(".", "__") for name in table.column_names])


if __name__ == "__main__":
    run_way({"dicts": dicts, "arrow": arrow}, BetFile)
