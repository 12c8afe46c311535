"""The sources: frozen values, one each, from which their DAGs are made.

A new source is a provider module and an entry here; see the README, "How to add a provider".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from include.catchup.log import Log
from include.model import RecordContext, Settlement
from include.providers import ticktock
from include.providers.http import Client
from include.settings import Settings
from include.warehouse.landing import Dedupe


@dataclass(frozen=True)
class Source:
    """One provider's settlements: when and how they are acquired, and what its records mean.

    `schedule` is a cron expression in UTC.  `dedupe` says which records are duplicates.
    `open_client` takes the base address and the key of the Airflow connection of the same name.
    """

    name: str
    feed: str
    schedule: str
    documentation: str
    dedupe: Dedupe
    open_client: Callable[[str, str, Settings], Client]
    acquire: Log
    normalize: Callable[[bytes, RecordContext], Settlement]


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name=ticktock.PROVIDER,
            feed="settlements",
            schedule="*/5 * * * *",
            documentation=ticktock.__doc__ or "",
            dedupe="anywhere",
            open_client=ticktock.open_client,
            acquire=Log(
                fetch=lambda client, since_id, limit: ticktock.fetch_settlements(
                    client, since_id=since_id, limit=limit
                ),
                fetch_subject=ticktock.fetch_match_settlements,
                read_page=ticktock.read_page,
                most_recent=ticktock.most_recent,
                oldest=ticktock.oldest,
                page_limit=lambda settings: settings.ticktock_page_limit,
                first_cursor=lambda settings: settings.ticktock_first_cursor,
            ),
            normalize=ticktock.normalize,
        ),
    )
}
