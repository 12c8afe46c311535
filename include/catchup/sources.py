"""The sources: frozen values, one each, from which their DAGs are made.

A new source is a provider module and an entry here; see the README, "How to add a provider".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from include.catchup.log import Log
from include.catchup.poll import Poll
from include.catchup.position import Terms
from include.catchup.stream import Feed, Stream
from include.providers import odds88, ticktock, tote
from include.providers.http import Account, Client
from include.providers.tote import HintFeed
from include.quality.normalizing import Normalize
from include.settings import Settings
from include.warehouse.connect_attempts import Budget
from include.warehouse.pages import Dedupe


@dataclass(frozen=True)
class Source:
    """One provider's settlements: when and how they are acquired, and what its records mean.

    `schedule` is a cron expression in UTC.  `dedupe` says which records are duplicates.
    `open_client` takes the account of the Airflow connection of the same name; `normalizer` gives
    what turns a record's text into a settlement, and raises `RecordRejected` where it cannot.
    `open_hints` opens what hints at changes; None: nothing does.
    """

    name: str
    feed: str
    schedule: str
    documentation: str
    dedupe: Dedupe
    open_client: Callable[[Account, Settings], Client | Feed]
    acquire: Log | Stream | Poll
    normalizer: Callable[[Settings], Normalize]
    open_hints: Callable[[Account, Settings], HintFeed] | None = None


TICKTOCK = Source(
    name=ticktock.PROVIDER,
    feed="settlements",
    schedule="*/5 * * * *",
    documentation=ticktock.__doc__ or "",
    dedupe="anywhere",
    open_client=lambda account, settings: ticktock.open_client(
        account.base_url, account.password, settings
    ),
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
    normalizer=lambda settings: ticktock.normalize,
)

ODDS88 = Source(
    name=odds88.PROVIDER,
    feed="settlements",
    schedule="*/5 * * * *",
    documentation=odds88.__doc__ or "",
    dedupe="texts",
    open_client=odds88.Feed,
    acquire=Stream(
        request=lambda revision: f"GET {odds88.feed_path(revision)}",
        read_message=odds88.read_message,
        join_messages=odds88.join_messages,
        read_page=odds88.read_page,
        terms=lambda settings: Terms(
            reach=timedelta(days=3),
            reserve=timedelta(hours=1),
            overlap=timedelta(seconds=settings.stream_overlap_seconds),
            audit_hour=settings.odds88_audit_hour,
        ),
        session_messages=lambda settings: settings.odds88_session_messages,
        proper=Budget("proper", 5, timedelta(minutes=5)),
        without_revision=Budget("without_revision", 5, timedelta(minutes=30)),
    ),
    normalizer=lambda settings: partial(odds88.normalize, terms=odds88.terms_of(settings)),
)

TOTE = Source(
    name=tote.PROVIDER,
    feed="bets",
    schedule="*/5 * * * *",
    documentation=tote.__doc__ or "",
    dedupe="latest",
    open_client=lambda account, settings: tote.open_client(
        account.base_url, account.password, settings
    ),
    acquire=Poll(
        fetch_named=tote.fetch_bets,
        fetch_period=lambda client, since, until, after, limit: tote.fetch_period(
            client, since, until, after, first=limit
        ),
        read_page=tote.read_page,
        next_cursor=tote.next_cursor,
        standing=tote.standing,
        totals_of=tote.totals_of,
        longest_period=tote.PERIOD_LIMIT,
        most_named=tote.PAGE_LIMIT,
        page_limit=lambda settings: settings.tote_page_limit,
    ),
    normalizer=lambda settings: partial(
        tote.normalize, is_total_checked=settings.tote_total_checked
    ),
    open_hints=HintFeed,
)

SOURCES: dict[str, Source] = {source.name: source for source in (TICKTOCK, ODDS88, TOTE)}
