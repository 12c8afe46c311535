"""The first step of every source: land what arrived, in the way in which it is acquired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row

from include.catchup.log import Log, PageStopped, read_log
from include.catchup.poll import Poll, place_of_listing, read_poll
from include.catchup.position import place_of
from include.catchup.sources import Source
from include.catchup.stream import Feed, Stream, read_stream
from include.providers.errors import ProviderError
from include.providers.http import Client
from include.settings import Settings
from include.warehouse.connect_attempts import Connections
from include.warehouse.landing import CursorMoved, Landing
from include.warehouse.leases import Lease, LeaseHeld, LeaseLost, hold_lease


@dataclass(frozen=True)
class Landed:
    """What one `land` did, in counts; `note` says why it ended where it did.

    `batch_id` is None if it left everything to another run.
    """

    batch_id: int | None
    pages_received: int
    received: int
    duplicates: int
    landed: int
    has_reached_end: bool
    note: str


def land(
    engine: Engine, source: Source, client: Client | Feed, settings: Settings, run_id: str | None
) -> Landed:
    """Land what the provider has beyond the cursor, in a new batch, within the settings' bounds.

    Raises what the acquisition raises; what was committed before is landed and goes on with the
    next run that succeeds.
    """
    acquire = source.acquire
    if isinstance(acquire, Stream):
        assert not isinstance(client, Client)
        return _land_stream(engine, source, acquire, client, settings, run_id)
    assert isinstance(client, Client)
    if isinstance(acquire, Poll):
        return _land_poll(engine, source, acquire, client, settings, run_id)
    return _land_log(engine, source, acquire, client, settings, run_id)


def _land_log(
    engine: Engine,
    source: Source,
    log: Log,
    client: Client,
    settings: Settings,
    run_id: str | None,
) -> Landed:
    landing = Landing(engine, source.name, source.feed, source.dedupe, run_id)
    try:
        read = read_log(log, client, landing, settings)
    except CursorMoved as moved:
        return _landed(landing.close(has_reached_end=False), str(moved))
    except (ProviderError, PageStopped):
        landing.close(has_reached_end=False)
        raise
    if read.stopped_by_finding_id is not None:
        note = (
            f"Nothing was asked for: the feed waits for a decision on finding "
            f"{read.stopped_by_finding_id}. Use the DAG resolve_findings."
        )
    elif read.has_reached_end:
        note = "The provider has nothing more."
    else:
        note = "The bounds of one task were reached; the next run goes on."
    return _landed(landing.close(has_reached_end=read.has_reached_end), note)


def _land_poll(
    engine: Engine,
    source: Source,
    poll: Poll,
    client: Client,
    settings: Settings,
    run_id: str | None,
) -> Landed:
    landing = Landing(
        engine, source.name, source.feed, source.dedupe, run_id, place=place_of_listing
    )
    try:
        read = read_poll(poll, client, landing, engine, settings)
    except (ProviderError, PageStopped):
        landing.close(has_reached_end=False)
        raise
    return _landed(landing.close(has_reached_end=read.has_reached_end), read.note)


def _land_stream(
    engine: Engine,
    source: Source,
    stream: Stream,
    feed: Feed,
    settings: Settings,
    run_id: str | None,
) -> Landed:
    """One run at a time; another waits as long as a dead one would hold it up, and no longer."""
    name, seconds = f"{source.name}/stream", settings.stream_lease_seconds
    try:
        with hold_lease(engine, "loader", name, run_id, seconds, patience=seconds) as lease:
            return _land_session(engine, source, stream, feed, settings, run_id, lease)
    except (LeaseHeld, LeaseLost) as left_to_another:
        return Landed(None, 0, 0, 0, 0, has_reached_end=False, note=str(left_to_another))


def _land_session(
    engine: Engine,
    source: Source,
    stream: Stream,
    feed: Feed,
    settings: Settings,
    run_id: str | None,
    lease: Lease,
) -> Landed:
    landing = Landing(
        engine, source.name, source.feed, source.dedupe, run_id, lease=lease, place=place_of
    )
    connections = Connections(engine, lease, source.name, run_id, settings.call_deadline_seconds)
    try:
        read = read_stream(stream, feed, landing, connections, settings)
    except ProviderError:
        landing.close(has_reached_end=False)
        raise
    return _landed(landing.close(has_reached_end=read.has_reached_end), read.note)


def _landed(batch: Row[Any], note: str) -> Landed:
    return Landed(
        batch_id=batch.batch_id,
        pages_received=batch.pages_received,
        received=batch.received,
        duplicates=batch.duplicates,
        landed=batch.landed,
        has_reached_end=batch.has_reached_end,
        note=note,
    )
