"""dlt at its fastest, in the environment .venv-bench: see `measuring`.

Each setting was chosen by measuring, among those that dlt's pages on performance and on Postgres
name: the strategy `upsert` (as fast as `insert-only`, faster than the default `delete-insert`),
Parquet loaded by the ADBC driver (faster than csv, and that than the default `insert_values`),
larger buffers, files uncompressed and rotated so that normalizing and loading run in parallel,
columns declared, pages yielded instead of rows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
    "DATA_WRITER__FILE_MAX_ITEMS": "50000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
}

import dlt
import psycopg2
import pyarrow
import pyarrow.json
from dlt.common import json

from tests.bench.log import LogFile
from tests.bench.stopwatch import Stopwatch, run_way

UPSERT: Any = {"disposition": "merge", "strategy": "upsert"}
_PAGES_A_TABLE = 50
# As much as this project takes to publish. With the usual 4 MB, dlt's `NOT IN` about the legs is no
# longer hashed above some 100 000 bets, and compares each leg with every other.
_WORK_MEMORY = "64MB"
_ENTRY = pyarrow.struct(
    [
        ("id", pyarrow.int64()),
        ("market_offer_id", pyarrow.string()),
        ("match_id", pyarrow.string()),
        ("previous_status", pyarrow.string()),
        ("new_status", pyarrow.string()),
        ("outcome", pyarrow.string()),
        ("settled_by", pyarrow.string()),
        ("is_resettlement", pyarrow.bool_()),
        ("created_at", pyarrow.timestamp("us", "UTC")),
    ]
)
_PAGE = pyarrow.schema(
    [("data", pyarrow.list_(_ENTRY)), ("meta", pyarrow.struct([("count", pyarrow.int64())]))]
)
_TYPES = {"int64": "bigint", "string": "text", "bool": "bool", "timestamp[us, tz=UTC]": "timestamp"}
_COLUMNS: Any = {field.name: {"data_type": _TYPES[str(field.type)]} for field in _ENTRY}


def dicts(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """Entries as dicts, decoded by dlt's own JSON, normalized by two processes."""
    os.environ["NORMALIZE__WORKERS"] = "2"
    merge(url, entries_as(json.loadb(body)["data"] for body in log.pages()), stopwatch)


def arrow(url: str, log: LogFile, stopwatch: Stopwatch) -> None:
    """Entries as Arrow tables, fifty pages each, decoded by Arrow's own JSON."""
    merge(url, entries_as(_tables(log)), stopwatch)


def _tables(log: LogFile) -> Iterator[pyarrow.Table]:
    pages = log.pages()
    while some := list(islice(pages, _PAGES_A_TABLE)):
        bodies = b"\n".join(some)
        decoded = pyarrow.json.read_json(
            io.BytesIO(bodies),
            read_options=pyarrow.json.ReadOptions(block_size=len(bodies)),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=_PAGE),
        )
        entries = decoded["data"].combine_chunks().flatten()
        yield pyarrow.Table.from_struct_array(entries)


def entries_as(items: Iterator[Any]) -> Any:
    """The entries as a resource that is merged by their ids."""
    return dlt.resource(
        items, name="entry", primary_key="id", write_disposition=UPSERT, columns=_COLUMNS
    )


def merge(url: str, resource: Any, stopwatch: Stopwatch) -> None:
    """Take a resource all the way into the server, step by step."""
    _give_work_memory(url)
    target = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="bench")
    stopwatch.start()
    with stopwatch.stage("extract"):
        target.extract(resource, loader_file_format="parquet")
    with stopwatch.stage("normalize"):
        target.normalize()
    with stopwatch.stage("load"):
        target.load(raise_on_failed_jobs=True)


def _give_work_memory(url: str) -> None:
    """To every later connection: dlt sets the options of its own ones itself."""
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        name = connection.info.dbname
        cursor.execute(f"ALTER DATABASE {name} SET work_mem = '{_WORK_MEMORY}'")
    connection.close()


if __name__ == "__main__":
    run_way({"dicts": dicts, "arrow": arrow}, LogFile)
