"""The steps of `watch_feeds` as Airflow tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from include.catchup import watching
from include.catchup.sources import SOURCES
from include.markets.watching import watch_markets
from include.orchestration.alerting import send_unsent
from include.orchestration.connections import open_warehouse
from include.orchestration.tasks.shared import SETTINGS, URGENT, counted, task
from include.orchestration.telling import tell_failure
from include.payouts import outbox
from include.payouts.watching import watch_payouts


@task(execution_timeout=timedelta(minutes=5), priority_weight=URGENT)
def watch() -> dict[str, Any] | None:
    """Look at every feed, batch, gap, payout and market: open findings, close what has passed."""
    engine = open_warehouse()
    feeds = [(source.name, source.feed) for source in SOURCES.values()]
    watched = watching.watch(engine, feeds, SETTINGS)
    # Whatever held payouts back may have been killed before it said so.
    outbox.report_outbox(engine)
    payouts, markets = watch_payouts(engine), watch_markets(engine, SETTINGS)
    return counted(
        watching.Watched(
            watched.opened + payouts.opened + markets.opened,
            watched.closed + payouts.closed + markets.closed,
        )
    )


# Its own failure is no alert: what cannot be delivered would only grow by it.
@task(
    execution_timeout=timedelta(minutes=5),
    on_failure_callback=tell_failure,
    priority_weight=URGENT,
)
def send_alerts() -> dict[str, Any]:
    """Deliver the alerts that still wait."""
    return {"sent": send_unsent(open_warehouse())}
