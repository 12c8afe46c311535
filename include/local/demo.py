"""What `make demo` does with a running system: a day with faults, through the real scheduler.

It looks at everything as people would: runs through Airflow's API, numbers through the finance
login, decisions through the DAG resolve_findings.  The sandbox's ledger says what is true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table
from sqlalchemy import text

from include.local import resending
from include.local.agreement import (
    bet_disagreements,
    disagreements,
    market_disagreements,
    tote_disagreements,
)
from include.local.progress import Progress
from include.local.system import System
from include.sandbox.client import Sandbox
from include.warehouse.database import open_engine

_CATCH_UP, _CATCH_UP_BETS = "catch_up_ticktock", "catch_up_odds88"
_FOLLOW_BETS = "catch_up_tote"
_SETTLE = "settle_markets"
_RESEND = "resend_settlements"
_DAGS = (
    _CATCH_UP,
    _CATCH_UP_BETS,
    _FOLLOW_BETS,
    _SETTLE,
    _RESEND,
    "resolve_findings",
    "watch_feeds",
)
_FIRST_ENTRIES, _LATER_ENTRIES = 12_000, 1_500
_LATER_MESSAGES, _MESSAGES_BEFORE_THE_BREAK = 600, 200
_DAY_SECONDS = 86_400.0
# A partner that is silent is given up sooner than by default, and asked again sooner.
SETTINGS = {
    "SETTLEMENTS_WALLET_DEADLINE_SECONDS": "3",
    "SETTLEMENTS_WALLET_RESEND_DELAY_SECONDS": "1",
    # Two months of bets are listed up to this moment, and asked for again as soon as time passes.
    "SETTLEMENTS_TOTE_FIRST_SINCE_HOURS": "1500",
    "SETTLEMENTS_TOTE_LISTING_LAG_SECONDS": "0",
    "SETTLEMENTS_TOTE_ASK_SECONDS_MIN": "5",
    "SETTLEMENTS_TOTE_ASK_SECONDS_MAX": "5",
    "SETTLEMENTS_TOTE_LISTEN_SECONDS": "2",
}

_DAGS_SECONDS, _RUN_SECONDS = 90.0, 120.0
_PAUSE_SECONDS = 0.25


class DemoFailed(Exception):
    """Something did not end as it should; the text says what."""


def run(system: System, progress: Progress) -> int:
    """Run every pipeline, print what finance would ask for; 0 only if all of it is right."""
    with Sandbox(system.sandbox_url) as sandbox:
        try:
            _play(system, sandbox, progress)
            _print_numbers(system.finance_url, progress)
            differences = list(_differences(system, sandbox))
        except DemoFailed as error:
            differences = [str(error)]
    for difference in differences:
        progress.say(f"WRONG  {difference}")
    if not differences:
        progress.say("Every run ended as it should, and the warehouse agrees with the ledger.")
    return 1 if differences else 0


def _play(system: System, sandbox: Sandbox, progress: Progress) -> None:
    """The story: a first load, a day with faults, a page nobody can read, and a decision."""
    _prepare_bets(sandbox)
    with progress.step("The scheduler has read every DAG"):
        system.api.wait_for_dags(_DAGS, _DAGS_SECONDS)
        if errors := system.api.import_errors():
            raise DemoFailed(f"{errors[0]['filename']} cannot be read: {errors[0]['stack_trace']}")
    with progress.step(f"ticktock: {_FIRST_ENTRIES} settlements are caught up"):
        sandbox.configure("ticktock", visible_entries=_FIRST_ENTRIES, requests_a_minute=100_000)
        _run_until(system, lambda: _landed(system, "ticktock") == _FIRST_ENTRIES)
    with progress.step("ticktock: 503, 429, a broken connection, repetitions and a new field"):
        sandbox.fault("ticktock", "status", status=503)
        sandbox.fault("ticktock", "status", status=429, retry_after="1")
        sandbox.fault("ticktock", "reset_in_body")
        sandbox.fault("ticktock", "duplicated_entry")
        sandbox.fault("ticktock", "unknown_field", after_calls=1)
        sandbox.advance("ticktock", _LATER_ENTRIES)
        _run_until(system, lambda: _landed(system, "ticktock") == _FIRST_ENTRIES + _LATER_ENTRIES)
    with progress.step("ticktock: a page that cannot be decoded stops the feed, a person decides"):
        sandbox.fault("ticktock", "malformed_json")
        sandbox.advance("ticktock", _LATER_ENTRIES)
        _run_until(system, lambda: _open_findings(system, "undecodable_page") != [])
        _decide(system, _open_findings(system, "undecodable_page"), "try_again")
        _run_until(
            system, lambda: _landed(system, "ticktock") == _FIRST_ENTRIES + 2 * _LATER_ENTRIES
        )
    _play_bets(system, sandbox, progress)
    _play_followed_bets(system, sandbox, progress)
    _play_markets(system, sandbox, progress)
    _play_resend(system, sandbox, progress)
    with progress.step("The feeds are watched, the alerts are sent"):
        _run(system, "watch_feeds")


def _prepare_bets(sandbox: Sandbox) -> None:
    """Before the schedule may connect: the stream pings often, and a message of it is spoiled."""
    sandbox.configure("odds88", ping_seconds=0.5, recovered_by="first_sent")
    sandbox.fault(
        "odds88", "malformed_message", call="settlements", after_messages=500, besides=True
    )


def _play_bets(system: System, sandbox: Sandbox, progress: Progress) -> None:
    """Two days of bets from a stream, what was settled again, and a connection that breaks."""
    messages = int(sandbox.ledger("odds88")["messages"])
    with progress.step(f"odds88: {messages} messages of two days, one of them nobody can read"):
        _run_until(system, lambda: _landed(system, "odds88") == messages, _CATCH_UP_BETS)
        _decide(system, _open_findings(system, "records_quarantined"), "discard")
    with progress.step("odds88: resettlements, and a connection that breaks amid them"):
        sandbox.fault(
            "odds88",
            "reset_stream",
            call="settlements",
            after_messages=_MESSAGES_BEFORE_THE_BREAK,
        )
        sandbox.advance("odds88", _LATER_MESSAGES)
        run_id = system.api.trigger(_CATCH_UP_BETS)
        _clear_what_failed(system)
        system.api.wait_for_run(_CATCH_UP_BETS, run_id, _RUN_SECONDS)
        if _landed(system, "odds88") != messages + _LATER_MESSAGES:
            raise DemoFailed("Not every message of odds88 was published after the break.")


def _play_followed_bets(system: System, sandbox: Sandbox, progress: Progress) -> None:
    """Bets that are asked for until they are final, and again for a while."""

    def agrees() -> bool:
        return not list(tote_disagreements(system.warehouse_url, sandbox.ledger("tote")))

    bets = int(sandbox.ledger("tote")["bets"])
    with progress.step(f"tote: {bets} bets are followed through a day, 429, and half an answer"):
        sandbox.fault("tote", "status", call="bets", status=429, retry_after="1")
        sandbox.fault("tote", "partial_data", call="bets")
        sandbox.configure("tote", clock_offset_seconds=_DAY_SECONDS)
        _run_until(system, agrees, _FOLLOW_BETS)


def _play_markets(system: System, sandbox: Sandbox, progress: Progress) -> None:
    """Markets that are settled, of which one fails in part, is retried, and is paid whole."""

    def agrees() -> bool:
        told = market_disagreements(system.warehouse_url, sandbox.ledger("prediction"))
        return not list(told)

    with progress.step("prediction: markets are settled, one of them fails in part and is retried"):
        # The schedule may have had them long before.
        if not agrees():
            _run_until(system, agrees, _SETTLE)


def _clear_what_failed(system: System) -> None:
    """Clear the task that the broken connection has ended, whichever run it is of.

    Airflow would try it again by itself half a minute later.
    """
    deadline = time.monotonic() + _RUN_SECONDS
    while time.monotonic() < deadline:
        for instance in system.api.task_instances(_CATCH_UP_BETS, "~"):
            if instance["state"] == "up_for_retry":
                run_id, task_id = instance["dag_run_id"], instance["task_id"]
                system.api.clear(
                    _CATCH_UP_BETS, run_id, [task_id], only_failed=False, with_downstream=False
                )
                return
        system.check()
        time.sleep(_PAUSE_SECONDS)
    raise DemoFailed("The connection to odds88 was to break, and no task has failed by it.")


def _play_resend(system: System, sandbox: Sandbox, progress: Progress) -> None:
    """A day of payouts through a bad night, and what people decide in the morning."""
    with progress.step(
        f"wallet: {resending.PAYOUTS} payouts enter the outbox, a dry run shows them"
    ):
        resending.order_faults(sandbox)
        resending.enter_payouts(system.outbox_url)
        _succeed(system, _RESEND, conf={"dry_run": True})
    with progress.step("wallet: sent through 503, 429, a broken connection, silence, lost answers"):
        _succeed(system, _RESEND)
    with progress.step("wallet: what was refused, changed or unclear waits, and people decide"):
        _decide(system, _open_findings(system, "transactions_held"), "release_hold")
        _decide(system, _open_findings(system, "transactions_unclear"), "lost")
        # Refused after silence: whether there are any depends on which request met which fault.
        if contested := _open_findings(system, "transactions_contested"):
            _decide(system, contested, "lost")
        _succeed(system, _RESEND)


def _succeed(system: System, dag_id: str, **body: Any) -> None:
    if (state := _run(system, dag_id, **body)) != "success":
        raise DemoFailed(f"A run of {dag_id} ended as {state}; its log in the UI says why.")


def _run_until(system: System, is_reached: Callable[[], bool], dag_id: str = _CATCH_UP) -> None:
    """Run a catch-up until its effect shows: a scheduled run may have had it before ours."""
    for _ in range(3):
        _run(system, dag_id)
        if is_reached():
            return
    raise DemoFailed(f"Three runs of {dag_id} did not bring about what they should have.")


def _run(system: System, dag_id: str, **body: Any) -> str:
    run_id = system.api.trigger(dag_id, **body)
    return system.api.wait_for_run(dag_id, run_id, _RUN_SECONDS)


def _decide(system: System, finding_ids: list[int], decision: str) -> None:
    """One run for each: how many payouts a finding holds is said for it alone."""
    for finding_id in finding_ids:
        conf: dict[str, Any] = {
            "finding_ids": [finding_id],
            "decision": decision,
            "reason": "The provider was asked and has told what happened.",
            "reference": "demo",
        }
        if payouts := _held_by(system, finding_id):
            conf["payouts"] = payouts
        if _run(system, "resolve_findings", conf=conf) != "success":
            raise DemoFailed(f"{decision} on finding {finding_id} was not carried out.")


def _differences(system: System, sandbox: Sandbox) -> Iterator[str]:
    """What does not agree with the sandbox's ledger, or did not end as it should."""
    yield from disagreements(system.warehouse_url, sandbox.ledger("ticktock"))
    yield from bet_disagreements(system.warehouse_url, sandbox.ledger("odds88"))
    yield from tote_disagreements(system.warehouse_url, sandbox.ledger("tote"))
    yield from market_disagreements(system.warehouse_url, sandbox.ledger("prediction"))
    yield from resending.disagreements(system.warehouse_url, sandbox)
    for dag_id in _DAGS:
        expected = int(dag_id == _CATCH_UP)
        if (failed := _failed_runs(system, dag_id)) != expected:
            yield f"failed runs of {dag_id}: {failed} here, {expected} expected"
    expected_alerts = set(_ask(system, "SELECT alert_key FROM ops.alert"))
    if missing := expected_alerts - set(sandbox.alerts()["by_key"]):
        yield f"alerts that were not received: {', '.join(sorted(missing))}"


def _failed_runs(system: System, dag_id: str) -> int:
    return sum(run["state"] == "failed" for run in system.api.runs(dag_id))


def _landed(system: System, source: str) -> int:
    [published] = _ask(
        system, "SELECT count(*) FROM core.settlement WHERE source = :source", source=source
    )
    return int(published)


def _open_findings(system: System, kind: str) -> list[int]:
    return _ask(
        system,
        "SELECT finding_id FROM ops.finding WHERE state = 'open' AND kind = :kind ORDER BY 1",
        kind=kind,
    )


def _held_by(system: System, finding_id: int) -> int:
    [payouts] = _ask(
        system,
        "SELECT count(*) FROM wallet.transaction WHERE hold_finding_id = :finding_id",
        finding_id=finding_id,
    )
    return int(payouts)


def _ask(system: System, statement: str, **parameters: Any) -> list[Any]:
    engine = open_engine(system.warehouse_url)
    try:
        with engine.connect() as connection:
            return list(connection.scalars(text(statement), parameters))
    finally:
        engine.dispose()


def _print_numbers(finance_url: str, progress: Progress) -> None:
    """What finance would ask for, asked with finance's own login."""
    engine = open_engine(finance_url)
    try:
        with engine.connect() as connection:
            for title, statement in _QUESTIONS.items():
                answer = connection.execute(text(statement))
                table = Table(*answer.keys(), title=title, title_justify="left")
                for row in answer:
                    table.add_row(*("" if value is None else str(value) for value in row))
                progress.console.print()
                progress.console.print(table)
    finally:
        engine.dispose()


_QUESTIONS = {
    "What arrived, and what became of it": """
        SELECT source, sum(received) AS received, sum(duplicates) AS duplicates,
               sum(landed) AS landed, sum(quarantined) AS quarantined,
               sum(published) AS published, sum(not_applied) AS not_applied,
               sum(evidence_only) AS evidence, sum(waiting) AS waiting
        FROM finance.batch GROUP BY source ORDER BY source""",
    "Versions and corrections": """
        SELECT source, count(*) AS versions, count(DISTINCT source_key) AS subjects,
               (SELECT count(*) FROM finance.correction
                WHERE correction.source = history.source) AS corrections
        FROM finance.settlement_history AS history GROUP BY source ORDER BY source""",
    "How the subjects stand": """
        SELECT source, status, outcome, sum(settlements) AS settlements
        FROM finance.daily_settlement GROUP BY source, status, outcome ORDER BY 1, 2, 3""",
    "Bets by outcome": """
        SELECT currency, sum(bets) AS bets, sum(won + half_won + placed) AS won,
               sum(lost + half_lost) AS lost, sum(cashed_out) AS cashed_out,
               sum(refunded) AS refunded, sum(open) AS open, sum(cancelled) AS cancelled,
               sum(rejected) AS rejected, sum(failed) AS failed
        FROM finance.bet_outcome GROUP BY currency ORDER BY currency""",
    "What was staked and returned, by currency": """
        SELECT source, currency, sum(bets) AS bets, sum(stake) AS stake, sum(payout) AS payout,
               reporting_currency AS reported_in, round(sum(reporting_stake), 2) AS stake_reported,
               round(sum(reporting_payout), 2) AS payout_reported
        FROM finance.daily_bet GROUP BY source, currency, reporting_currency ORDER BY 1, 2""",
    "What corrections of bets have changed": """
        SELECT new_currency AS currency, count(*) AS corrections,
               sum(payout_difference) AS payout_difference
        FROM finance.correction WHERE source = 'odds88' GROUP BY 1 ORDER BY 1""",
    "What tote's bets returned, by currency": """
        SELECT currency, status, sum(bets) AS bets, sum(stake) AS stake, sum(payout) AS payout,
               sum(refund) AS refund, sum(enhancement) AS enhancement
        FROM finance.tote_daily_return GROUP BY 1, 2 ORDER BY 1, 2""",
    "Which of them are open, by age": """
        SELECT age_group, currency, count(*) AS bets, sum(stake) AS stake
        FROM finance.tote_bet_open GROUP BY 1, 2 ORDER BY 1, 2""",
    "What the markets pay": """
        SELECT state, currency, count(*) AS markets, sum(positions) AS positions,
               sum(told_payout) AS told, sum(published_payout) AS published,
               sum(retry_attempts) AS retries
        FROM finance.market GROUP BY 1, 2 ORDER BY 1, 2""",
    "What became of the payouts": """
        SELECT business_date, currency, entered_amount AS entered, processed_amount AS processed,
               lost_amount AS lost, open_amount AS open, held_amount AS held, is_final
        FROM finance.payout_outcome ORDER BY business_date, currency""",
    "Payouts lost, and why": """
        SELECT currency, lost_by, refusal_code, count(*) AS payouts, sum(amount) AS amount
        FROM finance.payout_lost GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
    "How far the numbers can be trusted": """
        SELECT source, feed, statement FROM finance.feed_completeness""",
    "Open findings": """
        SELECT finding_id, severity, what_happened FROM finance.finding_open ORDER BY finding_id""",
}
