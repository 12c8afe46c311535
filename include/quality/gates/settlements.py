"""The gate `check_settlements`: the row rules against what is staged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, text

from include.quality.expectations import GroupResult, validate_rows
from include.quality.gates.holding import (
    BatchReport,
    GateReport,
    RuleResult,
    hold,
    record_results,
    sum_up,
)
from include.quality.rules import (
    GROUPS,
    IS_PLAIN_WIN,
    PAYOUT_DIFFERS,
    PAYOUT_DIFFERS_BY_UNIT,
    WORK_MEMORY,
    batch_rows,
    failing_reason,
    failing_rule,
)
from include.settings import Settings
from include.warehouse import batches
from include.warehouse.database import transaction
from include.warehouse.findings import Finding, close_if_open, open_finding
from include.warehouse.quarantine import open_count, report_quarantined

_log = logging.getLogger(__name__)

_EXAMPLES = 10
# Great Expectations takes as long for a batch of a thousand rows as for forty of them at once.
_SMALL_BATCH_ROWS = 5_000
_BATCHES_TOGETHER = 40


def check_settlements(engine: Engine, source: str, settings: Settings) -> GateReport:
    """Apply the row rules to what is staged: failing rows go to quarantine, the others pass.

    Raises `BatchHeld`, after all batches, if too many rows of one fail or it does not add up; the
    rows of a held batch stay staged until a decision.
    """
    waiting = batches.waiting(engine, source, batches.AWAITS_SETTLEMENT_CHECK)
    passed = [
        report
        for first in range(0, len(waiting), _BATCHES_TOGETHER)
        for report in _pass_together(engine, waiting[first : first + _BATCHES_TOGETHER], settings)
    ]
    left = sorted(set(waiting) - {report.batch_id for report in passed})

    def check(connection: Connection, batch: Row[Any]) -> BatchReport:
        return _check_settlements_batch(engine, connection, batch, settings)

    condition = batches.AWAITS_SETTLEMENT_CHECK
    one_by_one = batches.work_through(engine, source, condition, check, batch_ids=left)
    return sum_up(source, "check_settlements", [*passed, *one_by_one])


@dataclass(frozen=True)
class _Scan:
    """What our own scan of staged rows found; `by_group` counts a row in each group it fails.

    Of the rows that pass, `plain_wins` are those whose payout can be computed,
    `payouts_differing` those of them where it is another one, and `payouts_differing_by_unit` those
    of these where it is so by what a major unit has in minor ones.
    """

    staged: int
    failing: int
    plain_wins: int
    payouts_differing: int
    payouts_differing_by_unit: int
    by_group: dict[str, int]


@dataclass(frozen=True)
class _Judged:
    """What the rules say of a batch, and how many of its records were held back before."""

    held_back: int
    results: list[RuleResult]

    @property
    def failed(self) -> list[RuleResult]:
        """Why it may not pass."""
        return [result for result in self.results if result.holds]


def _check_settlements_batch(
    engine: Engine, connection: Connection, batch: Row[Any], settings: Settings
) -> BatchReport:
    connection.execute(text(f"SET LOCAL work_mem = '{WORK_MEMORY}'"))
    scan = _scan(connection, [batch.batch_id])[batch.batch_id]
    groups = validate_rows(engine, batch.batch_id) if scan.staged else {}
    judged = _judge(connection, batch, scan, groups, settings)
    record_results(connection, batch, "check_settlements", judged.results)
    if judged.failed:
        detail: dict[str, Any] = {}
        if scan.failing:
            detail["rules"] = _failing_rules(connection, batch.batch_id)
        if scan.payouts_differing:
            detail["payouts"] = _differing_payouts(connection, batch.batch_id)
        return hold(connection, batch, judged.failed, evaluated=scan.staged, detail=detail)
    if scan.failing:
        _quarantine_failing(connection, batch)
    return _let_pass(connection, batch, scan, judged)


def _judge(
    connection: Connection,
    batch: Row[Any],
    scan: _Scan,
    groups: Mapping[str, GroupResult],
    settings: Settings,
) -> _Judged:
    held_back = open_count(connection, batch.batch_id)
    results = [
        *_group_results(batch, scan, groups),
        *_batch_results(batch, scan, groups, held_back, settings),
    ]
    return _Judged(held_back, results)


def _let_pass(connection: Connection, batch: Row[Any], scan: _Scan, judged: _Judged) -> BatchReport:
    if scan.plain_wins:
        _report_payouts(connection, batch, scan)
    batches.move(
        connection,
        batch.batch_id,
        quarantined=judged.held_back + scan.failing,
        settlements_checked_at=func.now(),
    )
    report_quarantined(connection, batch.source, batch.batch_id)
    return BatchReport(batch.batch_id, evaluated=scan.staged, quarantined=scan.failing)


def _pass_together(
    engine: Engine, batch_ids: Sequence[int], settings: Settings
) -> list[BatchReport]:
    """Let those of the batches pass in which nothing is wrong; the others are left as they are, to
    be checked one by one.
    """
    if len(batch_ids) < 2:
        return []
    try:
        # In one transaction that holds them all, as that of one batch holds it.
        with transaction(engine, "loader") as connection:
            return _pass_sound(engine, connection, batch_ids, settings)
    except Exception:  # noqa: BLE001 - met again where it is, and there it keeps no other back
        _log.warning("Checked one by one, not together: batches %s.", batch_ids, exc_info=True)
        return []


def _pass_sound(
    engine: Engine, connection: Connection, batch_ids: Sequence[int], settings: Settings
) -> list[BatchReport]:
    connection.execute(text(f"SET LOCAL work_mem = '{WORK_MEMORY}'"))
    claimed = batches.claim_several(connection, batch_ids, batches.AWAITS_SETTLEMENT_CHECK)
    small = {each.batch_id: each for each in claimed if each.landed <= _SMALL_BATCH_ROWS}
    scans = _scan(connection, list(small))
    sound = {
        batch_id: batch
        for batch_id, batch in small.items()
        if scans[batch_id].staged and not scans[batch_id].failing
    }
    groups = validate_rows(engine, *sound) if sound else {}
    reports = []
    for batch_id, batch in sound.items():
        # If any row fails there, it is in none of them that the two checks agree.
        judged = _judge(connection, batch, scans[batch_id], groups, settings)
        if not judged.failed:
            record_results(connection, batch, "check_settlements", judged.results)
            reports.append(_let_pass(connection, batch, scans[batch_id], judged))
    return reports


def _group_results(
    batch: Row[Any], scan: _Scan, groups: Mapping[str, GroupResult]
) -> Iterable[RuleResult]:
    for group in GROUPS:
        if group.name not in groups:
            continue
        unexpected = scan.by_group[group.name]
        yield RuleResult(
            group.name,
            group.severity,
            is_met=unexpected == 0,
            unexpected=unexpected,
            evaluated=scan.staged,
            explanation=f"{unexpected} rows fail a rule that only a mistake of this project can "
            f"break: {', '.join(rule.name for rule in group.rules)}.",
            is_waived=batch.is_released,
            result=groups[group.name].result,
        )


def _batch_results(
    batch: Row[Any],
    scan: _Scan,
    groups: Mapping[str, GroupResult],
    held_back: int,
    settings: Settings,
) -> Iterable[RuleResult]:
    accounted = scan.staged + held_back + batch.evidence_only
    yield RuleResult(
        "rows_add_up",
        "critical",
        is_met=batch.landed == accounted,
        unexpected=abs(batch.landed - accounted),
        evaluated=batch.landed,
        explanation=f"{batch.landed} records landed, but {scan.staged} rows are staged, "
        f"{held_back} records quarantined and {batch.evidence_only} kept as evidence only.",
    )
    differing = {
        name: (result.unexpected, scan.by_group[name])
        for name, result in groups.items()
        if result.unexpected != scan.by_group[name]
    }
    yield RuleResult(
        "checks_agree",
        "critical",
        is_met=not differing,
        unexpected=len(differing),
        evaluated=len(groups),
        explanation="Great Expectations and our own scan count other failing rows (group: theirs, "
        f"ours): {differing}.",
    )
    quarantined = held_back + scan.failing
    is_too_much = (
        quarantined > settings.quarantine_rows_limit
        and quarantined > settings.quarantine_share_limit * batch.landed
    )
    yield RuleResult(
        "few_quarantined",
        "critical",
        is_met=not is_too_much,
        unexpected=quarantined,
        evaluated=batch.landed,
        explanation=f"{quarantined} of {batch.landed} records would be quarantined; more than "
        f"{settings.quarantine_share_limit:.2%} and more than {settings.quarantine_rows_limit} "
        "hold a batch.",
        is_waived=batch.is_released,
    )
    if scan.plain_wins:
        yield RuleResult(
            "payouts_follow",
            "warning",
            is_met=scan.payouts_differing == 0,
            unexpected=scan.payouts_differing,
            evaluated=scan.plain_wins,
            explanation=f"{scan.payouts_differing} of {scan.plain_wins} plain wins pay something "
            "else than stake times multiplier.",
        )
        yield RuleResult(
            "payout_unit_fits",
            "critical",
            is_met=2 * scan.payouts_differing_by_unit <= scan.plain_wins,
            unexpected=scan.payouts_differing_by_unit,
            evaluated=scan.plain_wins,
            explanation=f"{scan.payouts_differing_by_unit} of {scan.plain_wins} plain wins pay "
            "stake times multiplier with the point displaced by just the digits of their currency: "
            "the unit of payouts is set wrongly. "
            f"Correct SETTLEMENTS_{batch.source.upper()}_PAYOUT_UNIT, start Airflow's processes "
            "anew, then decide try_again.",
            is_waived=batch.is_released,
        )


def _scan(connection: Connection, batch_ids: Sequence[int]) -> dict[int, _Scan]:
    """By batch; one without rows as well."""
    counts = ", ".join(f"count(*) FILTER (WHERE {group.failure})" for group in GROUPS)
    fails_any = " OR ".join(group.failure for group in GROUPS)
    names = [group.name for group in GROUPS]
    found = {each: _Scan(0, 0, 0, 0, 0, dict.fromkeys(names, 0)) for each in batch_ids}
    if not batch_ids:
        return found
    for batch_id, staged, failing, plain_wins, differing, by_unit, *by_group in connection.execute(
        text(
            f"SELECT batch_id, count(*), count(*) FILTER (WHERE {fails_any}),"
            f" count(*) FILTER (WHERE {IS_PLAIN_WIN} AND NOT ({fails_any})),"
            f" count(*) FILTER (WHERE {PAYOUT_DIFFERS} AND NOT ({fails_any})),"
            f" count(*) FILTER (WHERE {PAYOUT_DIFFERS_BY_UNIT} AND NOT ({fails_any})), {counts}"
            f" FROM ({batch_rows(*batch_ids)}) AS rows GROUP BY batch_id"
        )
    ):
        by_name = dict(zip(names, by_group, strict=True))
        found[batch_id] = _Scan(staged, failing, plain_wins, differing, by_unit, by_name)
    return found


def _failing_rules(connection: Connection, batch_id: int) -> list[dict[str, Any]]:
    """Each rule that rows fail, with their number and examples, most rows first."""
    found = connection.execute(
        text(
            "SELECT rule, count(*) AS count, jsonb_agg(jsonb_build_object("
            "'record_id', record_id, 'reason', reason)) FILTER (WHERE place <= :examples)"
            " AS examples FROM ("
            " SELECT *, row_number() OVER (PARTITION BY rule ORDER BY record_id) AS place"
            f" FROM ({_failing_rows(batch_id)}) AS failing"
            ") AS placed GROUP BY rule ORDER BY count DESC, rule"
        ),
        {"examples": _EXAMPLES},
    )
    return [dict(row) for row in found.mappings()]


def _failing_rows(batch_id: int) -> str:
    return (
        "SELECT * FROM ("
        f"SELECT record_id, {failing_rule()} AS rule, {failing_reason()} AS reason"
        f" FROM ({batch_rows(batch_id)}) AS rows"
        ") AS judged WHERE rule IS NOT NULL"
    )


def _quarantine_failing(connection: Connection, batch: Row[Any]) -> None:
    """Move the failing rows from staging to quarantine, however many, without reading them here."""
    connection.execute(
        text(
            f"WITH failing AS MATERIALIZED ({_failing_rows(batch.batch_id)}),"
            " without_legs AS (DELETE FROM staging.settlement_leg AS leg USING failing"
            " WHERE leg.batch_id = :batch_id AND leg.record_id = failing.record_id),"
            " removed AS (DELETE FROM staging.settlement AS staged USING failing"
            " WHERE staged.batch_id = :batch_id AND staged.record_id = failing.record_id)"
            " INSERT INTO ops.quarantine (source, stage, rule, reason, record_id, batch_id)"
            " SELECT :source, 'settlement', rule, reason, record_id, :batch_id FROM failing"
            " ON CONFLICT (batch_id, record_id) DO UPDATE SET stage = excluded.stage,"
            " rule = excluded.rule, reason = excluded.reason, state = 'open'"
        ),
        {"batch_id": batch.batch_id, "source": batch.source},
    )


def _report_payouts(connection: Connection, batch: Row[Any], scan: _Scan) -> None:
    """One finding for a batch's wins that pay something else than their multiplier says."""
    subject = f"batch {batch.batch_id}"
    if not scan.payouts_differing:
        close_if_open(connection, "payout_differs", batch.source, subject)
        return
    open_finding(
        connection,
        Finding(
            kind="payout_differs",
            source=batch.source,
            subject=subject,
            summary=f"{scan.payouts_differing} of {scan.plain_wins} plain wins in batch "
            f"{batch.batch_id} of {batch.source} pay something else than stake times multiplier.",
            kept="They are published as the provider sent them.",
            detail={
                "count": scan.payouts_differing,
                "examples": _differing_payouts(connection, batch.batch_id),
            },
            batch_id=batch.batch_id,
        ),
    )


def _differing_payouts(connection: Connection, batch_id: int) -> list[dict[str, Any]]:
    """The first wins of the batch that pay something else than their multiplier says."""
    found = connection.execute(
        text(
            "SELECT record_id, source_key, currency, stake::text, payout_multiplier::text,"
            " payout::text FROM staging.settlement"
            f" WHERE batch_id = :batch_id AND {PAYOUT_DIFFERS} ORDER BY record_id LIMIT :examples"
        ),
        {"batch_id": batch_id, "examples": _EXAMPLES},
    )
    return [dict(row) for row in found.mappings()]
