"""The row rules as Great Expectations sees them: one expectation a group over batches' own rows.

Importing Great Expectations costs seconds and 230 MB, so it happens inside the one function that
needs it, and only for a batch with rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from include.quality.garbage import without_garbage_collection
from include.quality.rules import GROUPS, WORK_MEMORY, RuleGroup, batch_rows


@dataclass(frozen=True)
class GroupResult:
    """What Great Expectations found for one group: how many rows fail, and its result in full.

    Both are about all batches that were checked together, which the result names.
    """

    unexpected: int
    result: dict[str, Any]


def validate_rows(engine: Engine, *batch_ids: int) -> dict[str, GroupResult]:
    """Let Great Expectations check the staged rows of batches, all together; the result of each
    group by name.

    It opens connections of its own, as role loader, and sees only what is committed.  Raises
    RuntimeError if an expectation could not be evaluated.
    """
    # Before the import, or every validation logs some two hundred lines.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    # Most of what a small run takes; a fifth less so.
    with without_garbage_collection():
        import great_expectations
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

    context = great_expectations.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
        ),
    )
    warehouse = context.data_sources.add_postgres(
        "warehouse", connection_string=_connection_string(engine)
    )
    try:
        rows = warehouse.add_query_asset("staged", query=batch_rows(*batch_ids))
        suite = great_expectations.ExpectationSuite(
            "row_rules", expectations=[_expectation(group) for group in GROUPS]
        )
        batch = rows.add_batch_definition_whole_table("batch").get_batch()
        outcome = batch.validate(suite, result_format="SUMMARY")
    finally:
        # Two engines: what asks has one of its own, and keeps its connection until it is collected.
        warehouse.get_execution_engine().close()
        warehouse.get_engine().dispose()
    return dict(_group_result(result, batch_ids) for result in outcome.results)


def _expectation(group: RuleGroup) -> Any:
    from great_expectations.expectations.core.unexpected_rows_expectation import (
        UnexpectedRowsExpectation,
    )
    from great_expectations.expectations.metadata_types import FailureSeverity

    return UnexpectedRowsExpectation(
        unexpected_rows_query=f"SELECT record_id FROM {{batch}} WHERE {group.failure}",
        severity=FailureSeverity(group.severity),
        meta={"group": group.name},
        description=" ".join(rule.meaning for rule in group.rules),
    )


def _group_result(result: Any, batch_ids: Sequence[int]) -> tuple[str, GroupResult]:
    group = result.expectation_config.meta["group"]
    if result.exception_info.get("raised_exception") or "observed_value" not in result.result:
        raise RuntimeError(
            f"Great Expectations could not evaluate the group {group!r}: {result.exception_info}. "
            "Nothing was changed. Look at the exception, then clear this task."
        )
    told = result.to_json_dict()
    kept = {name: told[name] for name in ("success", "severity", "result") if name in told}
    return group, GroupResult(
        unexpected=int(result.result["observed_value"]),
        result={"checked_together": list(batch_ids), **kept},
    )


def _connection_string(engine: Engine) -> str:
    """The engine's own address, in its transactions' role and time zone; holds a password."""
    options = f"-c role=loader -c timezone=UTC -c work_mem={WORK_MEMORY}"
    url = engine.url.update_query_dict({"options": options})
    return url.render_as_string(hide_password=False)
