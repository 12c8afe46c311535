"""The real scheduler, end to end: caught up, cleared, held and released, killed, and discreet."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text

from include.local.agreement import bet_disagreements, disagreements, market_disagreements
from include.local.postgres import remove_cluster
from include.sandbox.addresses import (
    ODDS88_CLIENT_ID,
    ODDS88_PASSWORD,
    PREDICTION_KEY,
    TICKTOCK_KEY,
    TOTE_KEY,
    WALLET_KEY,
    WALLET_SECRET,
)
from include.warehouse.database import open_engine
from include.warehouse.tables import transaction as transaction_table
from tests.end_to_end.running import (
    CATCH_UP,
    CATCH_UP_BETS,
    RESEND,
    SETTLE,
    STEPS,
    Running,
    running_system,
)
from tests.end_to_end.traces import logs_with, rows_with
from tests.local.waiting import wait_for
from tests.payouts.entering import payout

# A batch of several commits and of many pages without a long log.
SETTINGS = {
    "SETTLEMENTS_TICKTOCK_PAGE_LIMIT": "50",
    "SETTLEMENTS_LAND_COMMIT_RECORDS": "500",
    # A run that was killed keeps others from connecting for so long.
    "SETTLEMENTS_STREAM_LEASE_SECONDS": "5",
    # A worker that listens is one less for the others.
    "SETTLEMENTS_TOTE_LISTEN_SECONDS": "2",
    # One request after the other, and short waits for what does not come.
    "SETTLEMENTS_WALLET_REQUESTS_AT_ONCE": "1",
    "SETTLEMENTS_WALLET_DEADLINE_SECONDS": "6",
    "SETTLEMENTS_WALLET_RESEND_DELAY_SECONDS": "0.1",
    "SETTLEMENTS_WALLET_LEASE_SECONDS": "2",
}
# A scheduler that looks around ten times a second takes a third of a processor.
AIRFLOW_SETTINGS = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5"}
_PAGE = 50
# What all of them have in common: the whole groups of three bytes that name the client.
TOKENS_OF_ODDS88 = urlsafe_b64encode(f'{{"sub":"{ODDS88_CLIENT_ID}'.encode()[:27]).decode()

# The tests share one system: with several workers they belong to one of them.
pytestmark = pytest.mark.xdist_group("scheduler")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A fresh system, whatever the shell that runs the tests is set up for."""
    folder = tmp_path_factory.mktemp("a system") / "state"
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("AIRFLOW_CONN_", "SETTLEMENTS_")):
                patch.delenv(name)
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        try:
            with running_system(folder, airflow_settings=AIRFLOW_SETTINGS) as running:
                running.sandbox.configure("ticktock", requests_a_minute=1_000_000)
                running.catch_up()
                yield running
        finally:
            remove_cluster(folder / "postgres")


def test_caught_up_the_warehouse_agrees_with_the_ledger(running: Running) -> None:
    ledger = running.sandbox.ledger("ticktock")
    assert ledger["entries"] >= 1000
    assert list(disagreements(running.system.warehouse_url, ledger)) == []
    assert running.violations() == []


def test_a_run_with_nothing_new_stores_one_result(running: Running) -> None:
    run_id = running.catch_up()
    path = f"/dags/{CATCH_UP}/dagRuns/{run_id}/taskInstances/~/xcomEntries"
    stored = running.api.call("GET", path)["xcom_entries"]
    assert [(entry["task_id"], entry["key"]) for entry in stored] == [("land", "return_value")]


def test_a_task_cleared_and_run_again_changes_nothing(running: Running) -> None:
    run_id = running.catch_up()
    before = _content(running)
    for task_id in reversed(STEPS):
        running.rerun(run_id, task_id)
    assert _content(running) == before
    tries = {i["task_id"]: i["try_number"] for i in running.api.task_instances(CATCH_UP, run_id)}
    assert tries == dict.fromkeys(STEPS, 2)


def test_a_failing_gate_holds_its_batch_until_a_person_decides(running: Running) -> None:
    pages, later = 12, 100
    before = running.versions()
    # The second call asks about the page order; one word in every page is 2 % of the batch.
    running.sandbox.fault("ticktock", "unknown_value", times=pages + 1)
    running.sandbox.advance("ticktock", pages * _PAGE)
    run_id = _red_run(running)
    assert running.states(run_id) == {
        "land": "success",
        "check_raw": "success",
        "normalize": "success",
        "check_settlements": "failed",
        "publish": "upstream_failed",
    }
    finding_id = running.ask(
        "SELECT finding_id FROM ops.finding WHERE state = 'open' AND kind = 'batch_held'"
    )
    log = running.api.task_log(CATCH_UP, run_id, "check_settlements")
    assert "a person must act first" in log
    assert f"(finding {finding_id})" in log
    assert running.versions() == before
    told = running.sandbox.alerts()
    assert told["by_key"][f"finding/{finding_id}"] == 1
    assert any(
        alert["body"]["title"] == f"{CATCH_UP}: check_settlements failed"
        for alert in told["alerts"]
    )

    running.sandbox.advance("ticktock", later)
    running.catch_up()
    assert running.versions() == before + later
    assert running.ask("SELECT count(*) FROM ops.batch WHERE state = 'held'") == 1

    _, state = running.run(
        "resolve_findings",
        conf={
            "finding_ids": [finding_id],
            "decision": "release_batch",
            "reason": "The provider has told us to ignore the word.",
            "reference": "mail of today",
        },
    )
    assert state == "success"
    running.catch_up()
    quarantined = running.ask(
        "SELECT count(*) FROM ops.quarantine WHERE state = 'open' AND rule = 'unknown_status'"
    )
    assert quarantined == pages
    published = running.versions()
    assert published == before + later + pages * (_PAGE - 1)
    assert running.ask("SELECT decided_by FROM ops.decision") == running.system.ui[1]
    assert running.violations() == []


def test_a_worker_killed_while_it_lands_loses_and_doubles_nothing(running: Running) -> None:
    before = running.versions()
    # After more than one commit the provider lets `land` wait, for longer than this test does.
    running.sandbox.fault("ticktock", "status", status=429, retry_after="55", after_calls=16)
    running.sandbox.advance("ticktock", 1500)
    running.api.trigger(CATCH_UP)
    running.wait_until(
        "a batch is half landed",
        "SELECT true FROM ops.batch WHERE source = 'ticktock' AND state = 'landing'"
        " AND landed BETWEEN 500 AND 1000",
    )
    run_id = running.kill("land")
    running.rerun(run_id, "land")
    running.catch_up()
    assert running.versions() == before + 1500
    assert running.violations() == []


def test_a_worker_killed_while_it_publishes_loses_and_doubles_nothing(running: Running) -> None:
    before = running.versions()
    running.sandbox.advance("ticktock", 300)
    with running.engine.begin() as blocking:
        # New versions can be written, but not how many there are of them.
        blocking.execute(text("LOCK TABLE core.daily_recording IN SHARE MODE"))
        running.api.trigger(CATCH_UP)
        running.wait_until(
            "`publish` has half published",
            "SELECT true FROM pg_locks AS awaited JOIN pg_locks AS held USING (pid)"
            " WHERE NOT awaited.granted AND awaited.relation = 'core.daily_recording'::regclass"
            # The other sources' runs are not meant.
            " AND held.locktype = 'advisory'"
            " AND held.classid::bigint << 32 | held.objid::bigint"
            " = hashtextextended('source/ticktock', 0)",
        )
        run_id = running.kill("publish")
        assert running.versions() == before
    running.rerun(run_id, "publish")
    assert running.versions() == before + 300
    assert running.violations() == []


def test_a_worker_killed_while_it_is_connected_to_a_stream_loses_and_doubles_nothing(
    running: Running,
) -> None:
    running.sandbox.configure("odds88", ping_seconds=0.5, recovered_by="first_sent")
    _catch_up_bets(running)
    told, later = running.versions("odds88"), 1500
    # The provider tells a part of it, and then nothing at all for as long as the connection lasts.
    running.sandbox.fault("odds88", "stalled_stream", call="settlements", after_messages=1000)
    running.sandbox.advance("odds88", later)
    running.api.trigger(CATCH_UP_BETS)
    running.wait_until(
        "a session is connected, and has committed a part of what it is told",
        "SELECT true FROM ops.connect_attempt JOIN ops.batch USING (run_id)"
        " WHERE ended_at IS NULL AND state = 'landing' AND landed BETWEEN 500 AND 1400",
    )
    run_id = running.kill("land", CATCH_UP_BETS)
    assert running.versions("odds88") == told
    running.rerun(run_id, "land", dag_id=CATCH_UP_BETS)

    assert set(running.states(run_id, CATCH_UP_BETS).values()) == {"success"}
    assert running.versions("odds88") == told + later
    ledger = running.sandbox.ledger("odds88")
    assert list(bet_disagreements(running.system.warehouse_url, ledger)) == []
    assert "lost" in {attempt["ended"] for attempt in running.sandbox.odds88_attempts()}


def test_a_resend_that_is_cut_short_and_killed_pays_everyone_once(running: Running) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    ids = [f"payout {number:03}" for number in range(200)]
    engine = open_engine(running.system.outbox_url)
    with engine.begin() as connection:
        connection.execute(
            insert(transaction_table).inline(),
            [payout(each, business_date=yesterday) for each in ids],
        )
    engine.dispose()
    # Two requests are carried out and not answered: the first runs into its deadline, the second
    # is under way when its process is killed.
    running.sandbox.fault("wallet", "silence", times=2, after_calls=4, executed=True)
    began = datetime.now(UTC) - timedelta(minutes=31)
    running.api.trigger(
        RESEND,
        partition_key=str(yesterday),
        run_after=began.isoformat(),
        conf={"batch_items": 20},
    )
    running.wait_until(
        "a request is in doubt, and the next one under way",
        "SELECT bool_or(result = 'in_doubt') AND bool_or(result IS NULL) FROM wallet.attempt",
    )
    run_id = running.kill("send", RESEND)
    assert running.ask("SELECT count(*) FROM wallet.transaction WHERE disposition = 'open'") > 40
    running.rerun(run_id, "send", dag_id=RESEND)

    assert set(running.states(run_id, RESEND).values()) == {"success"}
    assert dict(running.sandbox.wallet_credits()) == dict.fromkeys(ids, 1)
    # The one that ran into its deadline, the one that was killed, and perhaps the one that was
    # committed to follow it.
    assert running.ask("SELECT count(*) FROM wallet.attempt WHERE result = 'in_doubt'") in (2, 3)
    outcome = "SELECT processed_payouts FROM finance.payout_outcome WHERE is_final"
    assert running.ask(outcome) == len(ids)
    committed = running.ask("SELECT array_agg(encode(body_sha256, 'hex')) FROM wallet.attempt")
    seen = {request["body_sha256"] for request in running.sandbox.wallet_requests()}
    assert seen <= set(committed)
    # Half an hour after its start payouts were unsent, and people on call were told so.
    wait_for(
        "the alert of the deadline has arrived",
        lambda: f"late/{RESEND}/{yesterday}" in running.sandbox.alerts()["by_key"],
        60,
        pause_seconds=0.25,
    )


def test_a_market_that_fails_in_part_is_retried_and_credited(running: Running) -> None:
    """The schedule may have had it before, or be about to."""
    running.run(SETTLE)
    running.wait_until(
        "all markets are done",
        "SELECT count(*) = 3 AND bool_and(state = 'done') FROM prediction.market",
    )
    orders = "SELECT array_agg(call || ' ' || result ORDER BY call, result) FROM prediction.attempt"
    assert running.ask(orders) == ["retry executed", *["settle executed"] * 3]
    ledger = running.sandbox.ledger("prediction")
    assert list(market_disagreements(running.system.warehouse_url, ledger)) == []
    running.wait_until(
        "what completed is credited",
        "SELECT count(*) > 0 AND bool_and(difference = 0) FROM finance.market_credit",
    )


def test_no_secret_is_in_a_log_or_in_a_table(running: Running) -> None:
    run_id = running.api.runs(CATCH_UP)[0]["dag_run_id"]
    system = running.system
    databases = {name: system.cluster.url(name) for name in ("airflow", "warehouse")}
    # What must be found is looked for in the same way.
    assert logs_with(running.folder, run_id)
    for url in databases.values():
        assert rows_with(url, run_id)
    secrets = {
        "the key of ticktock": TICKTOCK_KEY,
        "the password of odds88": ODDS88_PASSWORD,
        "a token of odds88": TOKENS_OF_ODDS88,
        "the key of tote": TOTE_KEY,
        "the key of the prediction engine": PREDICTION_KEY,
        "the key of the wallet": WALLET_KEY,
        "the secret that signs": WALLET_SECRET,
        "the password of the UI": system.ui[2],
        "the JWT secret": system.environment["AIRFLOW__API_AUTH__JWT_SECRET"],
        "the API's secret key": system.environment["AIRFLOW__API__SECRET_KEY"],
        "the fernet key": system.environment["AIRFLOW__CORE__FERNET_KEY"],
        **{
            f"the password of {login}": system.cluster.password(login)
            for login in ("postgres", "pipelines", "finance", "outbox")
        },
    }
    for name, secret in secrets.items():
        assert logs_with(running.folder, secret) == [], f"{name} is in a log"
        for database, url in databases.items():
            assert rows_with(url, secret) == [], f"{name} is in the database {database}"


def _catch_up_bets(running: Running) -> None:
    """Run the stream's catch-up, which must succeed."""
    run_id, state = running.run(CATCH_UP_BETS)
    assert state == "success", running.states(run_id, CATCH_UP_BETS)


def _red_run(running: Running) -> str:
    """Run the catch-up; the one run that has failed, which may be one of the scheduler's own."""
    running.run(CATCH_UP)
    [run_id] = [run["dag_run_id"] for run in running.api.runs(CATCH_UP) if run["state"] == "failed"]
    return str(run_id)


def _content(running: Running) -> dict[str, Any]:
    """Everything that a repeated task could change.  Every `land` opens a batch, be it empty."""
    ours = "WHERE source = 'ticktock'"
    everything = {
        "batches with records": f"SELECT * FROM ops.batch {ours} AND received > 0",
        "cursor": f"SELECT position, stopped_by_finding_id FROM ops.cursor {ours}",
        **{
            table: f"SELECT * FROM {table} {ours}"
            for table in (
                *("raw.page", "raw.record", "staging.settlement", "core.settlement"),
                *("core.daily_settlement", "ops.gap", "ops.quarantine", "ops.finding"),
            )
        },
    }
    return {
        name: running.ask(f"SELECT string_agg(r::text, chr(10) ORDER BY r::text) FROM ({rows}) r")
        for name, rows in everything.items()
    }
