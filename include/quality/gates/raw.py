"""The gate `check_raw`: what landed against what the provider counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, text

from include.quality.gates.holding import (
    BatchReport,
    GateReport,
    RuleResult,
    hold,
    record_results,
    sum_up,
)
from include.warehouse import batches
from include.warehouse.cursors import is_behind
from include.warehouse.findings import Finding, open_finding

_CONFLICTS_REPORTED = 20

# Its own records, or, in a replay, those taken from quarantine.
_OWN_RECORDS = """
SELECT record_id, record_key FROM raw.record
WHERE record_id BETWEEN :first AND :last AND batch_id = :batch_id
"""
_REPLAYED_RECORDS = """
SELECT record_id, record_key FROM ops.quarantine JOIN raw.record USING (record_id)
WHERE replay_batch_id = :batch_id
"""
_IS_KEYLESS = "record_key LIKE 'sha256:%'"


def check_raw(engine: Engine, source: str) -> GateReport:
    """Compare what landed with what the provider counted, and hold back records without a key.

    Raises `BatchHeld`, after all batches, if one does not add up.
    """
    condition = batches.AWAITS_RAW_CHECK
    reports = batches.work_through(engine, source, condition, _check_raw_batch)
    return sum_up(source, "check_raw", reports)


def _check_raw_batch(connection: Connection, batch: Row[Any]) -> BatchReport:
    is_replay = batch.kind == "replay"
    records = _REPLAYED_RECORDS if is_replay else _OWN_RECORDS
    # Who replays a record says that it can be read by now, so normalize judges it.
    is_keyless = "false" if is_replay else _IS_KEYLESS
    this = {
        "batch_id": batch.batch_id,
        "source": batch.source,
        "first": batch.record_id_first,
        "last": batch.record_id_last,
    }
    stored, keyless = connection.execute(
        text(f"SELECT count(*), count(*) FILTER (WHERE {is_keyless}) FROM ({records}) AS landed"),
        this,
    ).one()
    results = list(_raw_results(batch, stored, keyless))
    record_results(connection, batch, "check_raw", results)
    _report_drift(connection, batch)
    _report_conflicts(connection, batch)
    if keyless:
        _quarantine_keyless(connection, records, this)
    if failed := [result for result in results if result.holds]:
        return hold(connection, batch, failed, evaluated=stored)
    batches.move(connection, batch.batch_id, raw_checked_at=func.now())
    return BatchReport(batch.batch_id, evaluated=stored, quarantined=keyless)


def _raw_results(batch: Row[Any], stored: int, keyless: int) -> Iterable[RuleResult]:
    yield RuleResult(
        "pages_counted",
        "critical",
        is_met=batch.pages_miscounted == 0,
        unexpected=batch.pages_miscounted,
        evaluated=batch.pages_received,
        explanation=f"{batch.pages_miscounted} of {batch.pages_received} pages hold another number "
        "of records than the provider says they do.",
    )
    yield RuleResult(
        "records_stored",
        "critical",
        is_met=batch.landed == stored,
        unexpected=abs(batch.landed - stored),
        evaluated=stored,
        explanation=f"{batch.landed} records were counted as landed and {stored} are in raw.",
    )
    moved_back = is_behind(batch.cursor_after or "", batch.cursor_before or "")
    yield RuleResult(
        "cursor_moved_forward",
        "critical",
        is_met=not moved_back,
        unexpected=int(moved_back),
        evaluated=1,
        explanation=f"The cursor went back from {batch.cursor_before} to {batch.cursor_after}.",
    )
    yield RuleResult(
        "records_keyed",
        "warning",
        is_met=keyless == 0,
        unexpected=keyless,
        evaluated=stored,
        explanation=f"{keyless} records carry no id of the provider's.",
    )
    yield RuleResult(
        "fields_known",
        "warning",
        is_met=not batch.unknown_fields,
        unexpected=len(batch.unknown_fields),
        evaluated=stored,
        explanation=f"Undocumented fields: {', '.join(batch.unknown_fields) or 'none'}.",
    )
    yield RuleResult(
        "contents_agree",
        "warning",
        is_met=not batch.conflicting_keys,
        unexpected=len(batch.conflicting_keys),
        evaluated=stored,
        explanation="Keys that arrived with another content than before: "
        f"{', '.join(batch.conflicting_keys[:_CONFLICTS_REPORTED]) or 'none'}.",
    )


def _quarantine_keyless(connection: Connection, records: str, this: dict[str, Any]) -> None:
    connection.execute(
        text(
            "INSERT INTO ops.quarantine (source, stage, rule, reason, record_id, batch_id)"
            " SELECT :source, 'raw', 'record_without_key',"
            " 'The record carries no id of the provider''s. Found: ' || record_key,"
            f" record_id, :batch_id FROM ({records}) AS landed WHERE {_IS_KEYLESS}"
            " ON CONFLICT (batch_id, record_id) DO UPDATE SET stage = excluded.stage,"
            " rule = excluded.rule, reason = excluded.reason, state = 'open'"
            # What landing said of it already is closer to what is wrong.
            " WHERE quarantine.state <> 'open'"
        ),
        this,
    )


def _report_drift(connection: Connection, batch: Row[Any]) -> None:
    for name in sorted(batch.unknown_fields):
        open_finding(
            connection,
            Finding(
                kind="unknown_field",
                source=batch.source,
                subject=name,
                summary=f"{batch.source} sends a field that its documentation does not have: "
                f"{name}.",
                kept="It is kept in raw with every record and used nowhere else.",
                detail={"field": name},
                batch_id=batch.batch_id,
            ),
            once=True,
        )


def _report_conflicts(connection: Connection, batch: Row[Any]) -> None:
    keys = sorted(batch.conflicting_keys)
    for key in keys[:_CONFLICTS_REPORTED]:
        _report_conflict(connection, batch, f"record {key}", f"the id {key}", [key])
    if further := keys[_CONFLICTS_REPORTED:]:
        _report_conflict(
            connection,
            batch,
            f"batch {batch.batch_id}, further records",
            f"{len(further)} further ids",
            further,
        )


def _report_conflict(
    connection: Connection, batch: Row[Any], subject: str, which: str, keys: list[str]
) -> None:
    open_finding(
        connection,
        Finding(
            kind="record_conflict",
            source=batch.source,
            subject=subject,
            summary=f"{batch.source} sent {which} again with another content.",
            kept="Every content is kept in raw and goes on as a version of its own.",
            detail={"record_keys": keys},
            batch_id=batch.batch_id,
        ),
    )
