"""Asking for every bet of the register that is due, in a process of its own: see `polling`.

`python -m tests.bench.poll_ways poll TOTE_URL`
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing

from include.catchup.acquiring import land
from include.catchup.sources import SOURCES
from include.providers import tote
from include.sandbox.addresses import TOTE_KEY
from include.settings import Settings
from include.warehouse.database import open_engine
from tests.bench.stopwatch import Stopwatch

# As if all bets had been made before the first run: nothing is listed, every call asks for bets.
SETTINGS = Settings(tote_first_since_hours=1e-6)


def poll(stopwatch: Stopwatch, tote_url: str) -> None:
    """Run after run, until one has met the end."""
    engine = open_engine(os.environ["BENCH_URL"])
    with closing(tote.open_client(tote_url, TOTE_KEY, SETTINGS)) as client:
        stopwatch.start()
        has_reached_end = False
        while not has_reached_end:
            with stopwatch.stage("land"):
                landed = land(engine, SOURCES["tote"], client, SETTINGS, "bench")
            has_reached_end = landed.has_reached_end


if __name__ == "__main__":
    _, way, url = sys.argv
    watch = Stopwatch()
    {"poll": poll}[way](watch, url)
    print(json.dumps(vars(watch)))
