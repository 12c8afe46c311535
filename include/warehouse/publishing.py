"""Publishing: staged rows into core as versions, one transaction a batch.

What is current follows the provider's order, not the order of arrival, so batches may be published
in any order.  What a late version changes about its neighbours (whether they are changes, whether
the provider's chain of statuses holds, whether two contents contest one place) is computed again
for its subject in the same transaction, which also moves finance's daily totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, text

from include.warehouse import batches
from include.warehouse.alerts import raise_alert
from include.warehouse.daily_totals import add_recordings, add_settlements
from include.warehouse.findings import (
    KINDS,
    Finding,
    close_if_open,
    next_step,
    open_finding,
    raise_again,
)
from include.warehouse.tables import CANONICAL_COLUMNS, LEG_COLUMNS, SETTLEMENT_COLUMNS

_EXAMPLES = 10
_CONTESTED_ALERTED = 20
# A batch is sorted and hashed in memory; more than this goes to the disk as usual.
_WORK_MEMORY = "64MB"


def _listed(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{column}" for column in columns)


_MAKE_SEVERAL = """
CREATE TEMPORARY TABLE several (source_key text COLLATE "C" PRIMARY KEY) ON COMMIT DROP
"""

# The subjects of the batch that have, or are about to have, several versions.  Each is looked up by
# its key, so the cost does not grow with the table.
_FIND_SEVERAL = """
INSERT INTO several
SELECT source_key
FROM (
    SELECT source_key, count(*) AS versions
    FROM staging.settlement
    WHERE batch_id = :batch_id
    GROUP BY source_key
) AS subject
LEFT JOIN LATERAL (
    SELECT true AS is_known
    FROM core.settlement AS core
    WHERE core.source = :source AND core.source_key = subject.source_key
    ORDER BY core.version
    LIMIT 1
) AS known ON true
WHERE versions > 1 OR is_known
"""

_STORED_COLUMNS = f"""
    {_listed(SETTLEMENT_COLUMNS)}, version, player_reference, is_applied, not_applied_reason,
    is_change, is_current, chain_break, accounting_date, record_id, batch_id
"""

# Most subjects arrive once and for the first time: there is nothing to compare them with.
_INSERT_ONLY_VERSIONS = f"""
WITH inserted AS (
    INSERT INTO core.settlement ({_STORED_COLUMNS})
    SELECT
        {_listed(SETTLEMENT_COLUMNS)},
        1,
        ops.player_reference(player_id),
        true,
        NULL,
        false,
        true,
        CASE WHEN is_resettlement OR previous_status <> 'open' THEN 'original_missing' END,
        (now() AT TIME ZONE 'UTC')::date,
        record_id,
        batch_id
    FROM staging.settlement AS staged
    WHERE batch_id = :batch_id
        AND NOT EXISTS (SELECT FROM several WHERE several.source_key = staged.source_key)
    RETURNING
        source, settled_at, status, outcome, currency, stake, payout, accounting_date, 1 AS weight
),
settlements AS ({add_settlements("inserted")}),
recordings AS ({
    add_recordings(
        '''(
        SELECT
            accounting_date, source, weight AS versions, 0 AS corrections, 0 AS late_versions,
            0 AS contested_versions
        FROM inserted
    ) AS counted'''
    )
})
SELECT count(*) FROM inserted
"""

# A row's version counts on from those its subject has; it is applied if no row that came before it
# (in core, or earlier in the batch) stands at its place in the provider's order or further on.
# What it is to its neighbours is computed after it.
_INSERT_FURTHER_VERSIONS = f"""
WITH arriving AS (
    SELECT
        staged.*,
        coalesce(known.version, 0) + row_number() OVER earlier AS next_version,
        greatest(
            known.provider_order,
            max(staged.provider_order) OVER (
                earlier ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )
        ) AS order_before
    FROM staging.settlement AS staged
    JOIN several ON several.source_key = staged.source_key
    CROSS JOIN LATERAL (
        SELECT max(version) AS version, max(core.provider_order) AS provider_order
        FROM core.settlement AS core
        WHERE core.source = staged.source AND core.source_key = staged.source_key
    ) AS known
    WHERE staged.batch_id = :batch_id
    WINDOW earlier AS (PARTITION BY staged.source_key ORDER BY staged.record_id)
),
inserted AS (
    INSERT INTO core.settlement ({_STORED_COLUMNS})
    SELECT
        {_listed(SETTLEMENT_COLUMNS)},
        next_version,
        ops.player_reference(player_id),
        order_before IS NULL OR order_before < provider_order,
        CASE
            WHEN order_before > provider_order THEN 'late'
            WHEN order_before = provider_order THEN 'same_order'
        END,
        false,
        false,
        CASE WHEN is_resettlement OR previous_status <> 'open' THEN 'original_missing' END,
        (now() AT TIME ZONE 'UTC')::date,
        record_id,
        batch_id
    FROM arriving
    RETURNING is_applied
)
SELECT count(*) FILTER (WHERE is_applied), count(*) FILTER (WHERE NOT is_applied) FROM inserted
"""

_INSERT_LEGS = f"""
INSERT INTO core.settlement_leg (record_id, {_listed(LEG_COLUMNS)})
SELECT record_id, {_listed(LEG_COLUMNS)}
FROM staging.settlement_leg
WHERE batch_id = :batch_id
"""

# The neighbours of every version of the subjects in `several`, as the provider ordered them.  What
# changed is told against the version before, of several at one place the one that came first: what
# contradicts it later changes nothing before it is chosen.  Chosen at the first place, it corrects
# what it was chosen over.  What a decision follows from is the decision before, of which several
# versions at one place of the order are the same one told again.
# Neighbours and rivals are looked up by key: the cost of a subject does not grow with others.
_RECOMPUTE = f"""
WITH version AS (
    SELECT
        core.*,
        CASE
            WHEN core.record_id = min(core.record_id) OVER (
                PARTITION BY core.source_key, core.is_rejected_by_decision, core.provider_order
            ) THEN coalesce(
                min(core.record_id) OVER (
                    PARTITION BY core.source_key, core.is_rejected_by_decision
                    ORDER BY core.provider_order
                    GROUPS BETWEEN 1 PRECEDING AND 1 PRECEDING
                ),
                nullif(
                    min(core.record_id) OVER (PARTITION BY core.source_key, core.provider_order),
                    core.record_id
                )
            )
            ELSE lag(core.record_id) OVER (
                PARTITION BY core.source_key, core.is_rejected_by_decision
                ORDER BY core.provider_order, core.record_id
            )
        END AS previous_record_id,
        max(core.record_id) OVER (
            PARTITION BY core.source_key, core.is_rejected_by_decision
            ORDER BY core.provider_order
            GROUPS BETWEEN 1 PRECEDING AND 1 PRECEDING
        ) AS followed_record_id,
        count(*) OVER (
            PARTITION BY core.source_key, core.is_rejected_by_decision, core.provider_order
        ) AS told_here
    FROM core.settlement AS core
    JOIN several USING (source_key)
    WHERE core.source = :source
),
judged AS (
    SELECT
        version.record_id,
        version.source_key,
        version.provider_order,
        version.is_rejected_by_decision,
        previous.record_id IS NOT NULL AND version.settled_at_basis = 'observed'
            AND ({_listed(CANONICAL_COLUMNS, "version.")})
                IS NOT DISTINCT FROM ({_listed(CANONICAL_COLUMNS, "previous.")}) AS is_repetition,
        previous.record_id IS NOT NULL
            AND ({_listed(CANONICAL_COLUMNS, "version.")})
                IS DISTINCT FROM ({_listed(CANONICAL_COLUMNS, "previous.")}) AS is_change,
        coalesce(previous.status <> 'open', false) AS follows_decision,
        CASE
            WHEN version.is_rejected_by_decision THEN NULL
            WHEN followed.record_id IS NULL
                AND (version.is_resettlement OR version.previous_status <> 'open')
                THEN 'original_missing'
            WHEN followed.status <> version.previous_status THEN 'status_differs'
        END AS chain_break,
        NOT version.is_rejected_by_decision AND version.told_here > 1 AND EXISTS (
            SELECT FROM core.settlement AS rival
            WHERE rival.source = version.source
                AND rival.source_key = version.source_key
                AND rival.provider_order = version.provider_order
                AND NOT rival.is_rejected_by_decision
                AND ({_listed(CANONICAL_COLUMNS, "rival.")})
                    IS DISTINCT FROM ({_listed(CANONICAL_COLUMNS, "version.")})
        ) AS is_contested
    FROM version
    LEFT JOIN core.settlement AS previous
        ON previous.record_id = version.previous_record_id
        AND NOT version.is_rejected_by_decision
    LEFT JOIN core.settlement AS followed
        ON followed.record_id = version.followed_record_id
),
-- A decision whose time is that of our looking was taken when it was seen first.
standing AS (
    SELECT
        *,
        NOT is_rejected_by_decision AND NOT is_repetition AND row_number() OVER (
            PARTITION BY source_key, is_rejected_by_decision, is_repetition
            ORDER BY provider_order DESC, record_id DESC
        ) = 1 AS is_current
    FROM judged
),
-- What each version was in `before`, and what it is found to be.
compared AS MATERIALIZED (
    SELECT
        before AS before,
        standing.record_id,
        standing.is_current,
        standing.is_change,
        standing.chain_break,
        standing.is_contested,
        standing.is_change AND standing.follows_decision AS is_correction,
        before.batch_id IS NOT DISTINCT FROM :batch_id AS is_new
    FROM standing
    JOIN core.settlement AS before USING (record_id)
),
updated AS (
    UPDATE core.settlement AS core
    SET is_current = compared.is_current,
        is_change = compared.is_change,
        is_correction = compared.is_correction,
        chain_break = compared.chain_break,
        is_contested = compared.is_contested
    FROM compared
    WHERE core.record_id = compared.record_id
        AND (
            core.is_current, core.is_change, core.is_correction,
            core.chain_break, core.is_contested
        ) IS DISTINCT FROM (
            compared.is_current, compared.is_change, compared.is_correction,
            compared.chain_break, compared.is_contested
        )
    RETURNING
        core.batch_id, core.source_key, core.provider_order, core.is_contested,
        core.chain_break, (compared.before).chain_break AS chain_break_before, core.is_correction
),
settlements AS ({
    add_settlements(
        '''(
        SELECT
            (before).*,
            (compared.is_current AND NOT compared.is_contested)::integer
                - ((before).is_current AND NOT (before).is_contested)::integer AS weight
        FROM compared
    ) AS version'''
    )
}),
recordings AS ({
    add_recordings(
        '''(
        SELECT
            (before).accounting_date,
            (before).source,
            is_new::integer AS versions,
            (compared.is_correction AND NOT compared.is_contested)::integer
                - ((before).is_correction AND NOT (before).is_contested)::integer AS corrections,
            (is_new AND NOT (before).is_applied AND (before).not_applied_reason = 'late')::integer
                AS late_versions,
            compared.is_contested::integer
                - (before).is_contested::integer AS contested_versions
        FROM compared
    ) AS counted'''
    )
})
SELECT * FROM updated
"""


class StagedRowsMissing(Exception):
    """A batch's staged rows are not those that its checks passed; nothing of it was published."""


@dataclass(frozen=True)
class Published:
    """What one `publish` did, in counts."""

    batches: int
    published: int
    not_applied: int
    corrections: int
    contested: int


def publish(engine: Engine, source: str) -> Published:
    """Publish every batch of the source that has passed its checks, oldest first.

    Repeating it changes nothing.  Raises `StagedRowsMissing` after all others are published, if
    the rows of one do not add up; that batch is held.
    """
    results = batches.work_through(
        engine, source, batches.AWAITS_PUBLISH, _publish_or_hold, writes_source=True
    )
    done = [result for result in results if isinstance(result, Published)]
    if held := [result for result in results if isinstance(result, str)]:
        raise StagedRowsMissing(
            f"Not published: {'; '.join(held)}. Everything that arrived is kept in raw and other "
            "batches were published. Decide `try_again` in the DAG resolve_findings: the batch is "
            "then normalized and checked anew."
        )
    return Published(
        batches=len(done),
        published=sum(one.published for one in done),
        not_applied=sum(one.not_applied for one in done),
        corrections=sum(one.corrections for one in done),
        contested=sum(one.contested for one in done),
    )


def _publish_or_hold(connection: Connection, batch: Row[Any]) -> Published | str:
    """What was published, or why the batch is held instead."""
    if (difference := _staged_difference(connection, batch)) is None:
        return _publish_batch(connection, batch)
    finding_id = batches.hold(connection, batch, difference, {})
    return f"batch {batch.batch_id} (finding {finding_id}): {difference}"


def recompute_subjects(connection: Connection, source: str, source_keys: Sequence[str]) -> None:
    """Compute anew what a subject's versions are to each other, and which of them is current."""
    _plan_by_key(connection)
    connection.execute(text(_MAKE_SEVERAL))
    connection.execute(
        text("INSERT INTO several SELECT DISTINCT unnest(CAST(:source_keys AS text[]))"),
        {"source_keys": list(source_keys)},
    )
    changed = connection.execute(text(_RECOMPUTE), {"source": source, "batch_id": None}).all()
    _report_chains(connection, source, _with_other_chains(changed))


def _plan_by_key(connection: Connection) -> None:
    """Let this transaction look subjects up by their key, however little is known of the table.

    After a first, small load its statistics promise few subjects: reading the whole table for each
    would seem cheap, until it has grown.
    """
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    connection.execute(text(f"SET LOCAL work_mem = '{_WORK_MEMORY}'"))


def _publish_batch(connection: Connection, batch: Row[Any]) -> Published:
    this = {"batch_id": batch.batch_id, "source": batch.source}
    _plan_by_key(connection)
    connection.execute(text(_MAKE_SEVERAL))
    connection.execute(text(_FIND_SEVERAL), this)
    connection.execute(text("ANALYZE several"))
    only = connection.execute(text(_INSERT_ONLY_VERSIONS), this).scalar_one()
    applied, not_applied = connection.execute(text(_INSERT_FURTHER_VERSIONS), this).one()
    changed = connection.execute(text(_RECOMPUTE), this).all()
    connection.execute(text(_INSERT_LEGS), this)
    _report_contested(connection, batch, changed)
    _report_chains(connection, batch.source, {batch.batch_id} | _with_other_chains(changed))
    for table in ("staging.settlement_leg", "staging.settlement"):
        connection.execute(text(f"DELETE FROM {table} WHERE batch_id = :batch_id"), this)
    batches.move(
        connection,
        batch.batch_id,
        state="published",
        published_at=func.now(),
        published=only + applied,
        not_applied=not_applied,
    )
    return Published(
        batches=1,
        published=only + applied,
        not_applied=not_applied,
        corrections=sum(row.is_correction and row.batch_id == batch.batch_id for row in changed),
        contested=len(
            {(row.source_key, row.provider_order) for row in changed if row.is_contested}
        ),
    )


def _staged_difference(connection: Connection, batch: Row[Any]) -> str | None:
    """Why the staged rows are not what was checked; None if they are."""
    staged = connection.execute(
        text("SELECT count(*) FROM staging.settlement WHERE batch_id = :batch_id"),
        {"batch_id": batch.batch_id},
    ).scalar_one()
    expected = batch.landed - batch.quarantined - batch.evidence_only
    if staged == expected:
        return None
    return f"{staged} rows are staged, but {expected} were normalized and not quarantined"


_KEPT_CONTESTED = (
    "All are kept in core; the subject stays outside finance's totals until one is chosen."
)
_KEPT_FURTHER = (
    "All are kept in core; subjects without a later decision stay outside finance's totals until "
    "one is chosen."
)
_KEPT_OVERTAKEN = (
    "All are kept in core. A later decision stands, and counts; which of these it replaced is open."
)


# What the contents at these places of the order are, and whether a later decision stands.
_FIND_CONTESTED = """
SELECT
    rival.source_key, rival.provider_order, record_id, status, outcome, payout, settled_at,
    EXISTS (
        SELECT FROM core.settlement AS later
        WHERE later.source = rival.source
            AND later.source_key = rival.source_key
            AND later.provider_order > rival.provider_order
            AND NOT later.is_rejected_by_decision
    ) AS is_overtaken
FROM unnest(CAST(:source_keys AS text[]), CAST(:orders AS text[])) AS place (source_key, placed)
JOIN core.settlement AS rival
    ON rival.source = :source
    AND rival.source_key = place.source_key
    AND rival.provider_order = place.placed
    AND rival.is_contested
ORDER BY rival.source_key, rival.provider_order, record_id
"""
_CONTENT = ("record_id", "status", "outcome", "payout", "settled_at")


def _report_contested(connection: Connection, batch: Row[Any], changed: Sequence[Row[Any]]) -> None:
    """One finding for each decision that is told with several contents; the first of a batch are
    alerted of one by one, and all further ones together.
    """
    places = sorted({(row.source_key, row.provider_order) for row in changed if row.is_contested})
    if not places:
        return
    source_keys, orders = zip(*places, strict=True)
    rivals = connection.execute(
        text(_FIND_CONTESTED),
        {"source": batch.source, "source_keys": list(source_keys), "orders": list(orders)},
    )
    further = []
    by_place = groupby(rivals, key=attrgetter("source_key", "provider_order"))
    for number, (_, contents) in enumerate(by_place):
        is_told = number < _CONTESTED_ALERTED
        finding_id, is_news = _ask_which_counts(connection, batch, list(contents), is_told=is_told)
        if is_news and not is_told:
            further.append(finding_id)
    if further:
        _alert_of_further(connection, batch, further)


def _ask_which_counts(
    connection: Connection, batch: Row[Any], contents: Sequence[Row[Any]], *, is_told: bool
) -> tuple[int, bool]:
    """The finding, and whether it is new or is about more contents than before."""
    source_key, order = contents[0].source_key, contents[0].provider_order
    versions = [
        {
            name: value if value is None or name == "record_id" else str(value)
            for name, value in one._mapping.items()
            if name in _CONTENT
        }
        for one in contents
    ]
    finding_id = open_finding(
        connection,
        Finding(
            kind="settlement_contested",
            source=batch.source,
            subject=f"{source_key} at {order}",
            summary=f"{batch.source} tells {len(versions)} different contents of the same "
            f"decision about {source_key}.",
            kept=_KEPT_OVERTAKEN if contents[0].is_overtaken else _KEPT_CONTESTED,
            detail={"source_key": source_key, "provider_order": order, "versions": versions},
            batch_id=batch.batch_id,
        ),
        is_told=is_told,
    )
    is_news = raise_again(
        connection, finding_id, len(versions), what="contents", each=True, is_told=is_told
    )
    return finding_id, is_news


def _alert_of_further(connection: Connection, batch: Row[Any], finding_ids: Sequence[int]) -> None:
    happened = (
        f"{batch.source} tells different contents of {len(finding_ids)} further decisions in batch "
        f"{batch.batch_id}."
    )
    raise_alert(
        connection,
        key=f"batch/{batch.batch_id}/contested",
        title=f"Findings {min(finding_ids)} to {max(finding_ids)}: {happened}",
        body=f"{happened}\n{_KEPT_FURTHER}\nEach has a finding of its own, on the page Findings "
        "and in finance.finding_open. So many at once are mostly one mistake: ask the provider "
        f"first. {next_step('settlement_contested')}",
        severity=KINDS["settlement_contested"].severity,
    )


def _with_other_chains(changed: Sequence[Row[Any]]) -> set[int]:
    """The batches of versions whose chain was broken or mended."""
    return {row.batch_id for row in changed if row.chain_break != row.chain_break_before}


def _report_chains(connection: Connection, source: str, batch_ids: Iterable[int]) -> None:
    """One finding for a batch's broken chains; it closes when other versions have mended them."""
    for batch_id in sorted(batch_ids):
        broken = connection.execute(
            text(
                "SELECT core.source_key, core.record_id, core.chain_break, core.previous_status,"
                " count(*) OVER () AS count"
                " FROM core.settlement AS core JOIN ops.batch USING (batch_id)"
                " WHERE core.batch_id = :batch_id AND core.chain_break IS NOT NULL"
                " AND core.record_id BETWEEN batch.record_id_first AND batch.record_id_last"
                " ORDER BY core.record_id LIMIT :examples"
            ),
            {"batch_id": batch_id, "examples": _EXAMPLES},
        ).all()
        if not broken:
            close_if_open(connection, "chain_broken", source, f"batch {batch_id}")
            continue
        open_finding(
            connection,
            Finding(
                kind="chain_broken",
                source=source,
                subject=f"batch {batch_id}",
                summary=f"{broken[0].count} decisions in batch {batch_id} of {source} do "
                "not follow from what came before: an earlier one is missing or differs.",
                kept="They are published as the provider sent them; finance sees them with "
                "chain_break set. It closes by itself if the missing ones arrive.",
                detail={
                    "count": broken[0].count,
                    "examples": [
                        {
                            "source_key": row.source_key,
                            "record_id": row.record_id,
                            "chain_break": row.chain_break,
                            "previous_status": row.previous_status,
                        }
                        for row in broken
                    ],
                },
                batch_id=batch_id,
            ),
        )
