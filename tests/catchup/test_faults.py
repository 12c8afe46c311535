"""Every fault that can be ordered, through the whole catch-up: what becomes of it, in what words,
how long it takes, and that nothing is lost by it.

A fault joins by a row in `CASES`.  Each meets the fourth call of a first catch-up; then the fault
is over, and the next catch-up comes when everything is due to be read a second time.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine
from sqlalchemy import Connection, Engine, text

from include.catchup.acquiring import land
from include.catchup.log import PageStopped
from include.catchup.sources import SOURCES
from include.providers import ticktock
from include.providers.errors import Fatal, ProviderError, Retriable
from include.quality.gates import BatchHeld, check_raw, check_settlements
from include.quality.normalizing import normalize
from include.sandbox.addresses import TICKTOCK_KEY
from include.sandbox.app import FAULTS
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.decisions import resolve
from include.warehouse.publishing import publish
from tests.checker import violations
from tests.feeding import open_findings
from tests.sandboxes import provider_keys
from tests.warehouses import Warehouse
from tests.wire_server import answer, wire_server

SOURCE = SOURCES["ticktock"]
SETTINGS = Settings(
    read_attempts=1,
    call_deadline_seconds=10.0,
    retry_after_limit_seconds=0.2,
    body_limit_bytes=500_000,
    ticktock_page_limit=20,
    overlap_seconds=600,
)
# For calls that are answered too late or never; any other is given time, however busy the machine.
IMPATIENT = {"call_deadline_seconds": 1.0}
# What everything but the faulty call may take on a busy machine.
SLACK_SECONDS = 3.0
ENTRIES = 100
# When the newest of the entries are a few minutes old, so that none is taken to be settled.
STARTED_AT = datetime(2026, 5, 10, 18, 40, tzinfo=UTC)
READ_AGAIN_AT = STARTED_AT + timedelta(seconds=700)

# What must be said of what was kept, and of what to do, by everything that stops a task.
SAYS_ALWAYS: dict[type[Exception], str] = {
    Retriable: r"is kept\. Nothing to do now: the next run ",
    Fatal: r"kept.* then clear this task\.$",
    PageStopped: r"(Its bytes are kept, e|E)verything before it is landed, and the feed waits\. "
    r"Decide on finding \d+ with the DAG resolve_findings\.$",
    BatchHeld: r"Everything that arrived is kept in raw.* Trigger the DAG resolve_findings",
}


@dataclass(frozen=True)
class Case:
    """A fault, and what it comes to.

    `error` ends the first catch-up (None: it runs through) and says `says`.  `findings` are open
    after it, one of them answered by `decision` before the next one; `later` are the kinds that
    the second reading adds, when it meets the sound records.
    """

    kind: str
    error: type[Exception] | None = None
    says: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    times: int | None = 1
    settings: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, str] = field(default_factory=dict)
    later: tuple[str, ...] = ()
    decision: str | None = None

    def __str__(self) -> str:
        told = "-".join(str(value)[:24] for value in self.parameters.values())
        return f"{self.kind}-{told}" if told else self.kind


def refused(status: int, says: str) -> Case:
    return Case("status", Fatal, says, {"status": status})


def down(status: int) -> Case:
    return Case("status", Retriable, rf"failed to answer .*\({status}\)", {"status": status})


def throttled(retry_after: str, says: str) -> Case:
    """429 to the call and to its repetition, which waits as told, but not longer than allowed."""
    return Case(
        "status",
        Retriable,
        rf"too many requests and refused .*\(429\)\. {says}",
        {"status": 429, "retry_after": retry_after},
        times=2,
        settings={"read_attempts": 2},
    )


def cut(kind: str, says: str = "The connection broke during", **parameters: Any) -> Case:
    return Case(kind, Retriable, says, parameters)


def slow(kind: str) -> Case:
    return Case(kind, Retriable, r"No complete answer to .* came within 1 s\.", settings=IMPATIENT)


def unread(kind: str, says: str, **parameters: Any) -> Case:
    return Case(kind, Fatal, says, parameters)


def stopping(kind: str, says: str, **parameters: Any) -> Case:
    return Case(
        kind,
        PageStopped,
        says,
        parameters,
        findings={"undecodable_page": says},
        decision="try_again",
    )


def refusing(status: int) -> Case:
    """The entry that the cursor names is refused for good, and nothing else is."""
    says = (
        rf"refuses to read .*on after entry \d+ \((status )?{status}\), though it answers without"
    )
    return Case(
        "refused_cursor",
        PageStopped,
        says,
        {"status": status},
        times=None,
        findings={"cursor_refused": says},
        decision="try_again",
    )


def quarantined(kind: str, rule: str, *also: str, **parameters: Any) -> Case:
    """The record alone is held back; the second reading lands the sound one beside it."""
    return Case(
        kind,
        parameters=parameters,
        findings={"records_quarantined": rf"^1 records of .* in quarantine: {rule}\. "},
        later=also,
    )


def passed(kind: str, *later: str, **parameters: Any) -> Case:
    """It goes through as it is, and needs nobody."""
    return Case(kind, parameters=parameters, later=later)


CONFLICT = "record_conflict"

CASES = (
    refused(401, r"did not accept the key \(401\).*Check the password of the Airflow connection"),
    refused(403, r"refuses access \(403\).*lacks the scope cs2:markets:settlements"),
    refused(404, r"knows nothing under .*\(404\).*or match in the call is unknown"),
    refused(406, r"will not answer in JSON \(406\)"),
    refused(422, r"parameters of .* wrong \(422\).*SETTLEMENTS_TICKTOCK_PAGE_LIMIT"),
    *map(down, (500, 502, 503)),
    throttled("9" * 400, r"Its Retry-After is honoured with 0 s"),
    throttled("Fri, 31 Dec 9999 23:59:59 GMT", r"Its Retry-After is honoured with 0 s"),
    throttled("Thu, 01 Jan 1970 00:00:00 GMT", r"Its Retry-After is honoured with 0 s"),
    throttled("-5", r"It said"),
    throttled("NaN", r"It said"),
    unread("redirect", r"redirect \(302\), which is never followed.*points to https://elsewhere"),
    Case("refused_cursor", Fatal, r"\(404\).*It said: .*Not Found"),
    Case("refused_cursor", Fatal, r"\(403\)", {"status": 403}, times=None),
    *map(refusing, (400, 404, 410, 422)),
    # Pages that are not what was asked for.
    passed("empty_page"),
    passed("overfull_page"),
    passed("reversed_page"),
    passed("shuffled_page"),
    passed("duplicated_entry"),
    Case("repeated_page", Fatal, "leads back to entry", times=None),
    Case("restarted_page", Fatal, "leads back to entry"),
    Case("restarted_page", Fatal, "leads back to entry", times=None),
    Case(
        "miscounted_page",
        BatchHeld,
        "1 of 7 pages hold another number of records than the provider says",
        findings={"batch_held": "pages_counted"},
        decision="release_batch",
    ),
    # Pages that are no pages.
    stopping("malformed_json", "the body is not JSON"),
    stopping("html_page", "the body is not JSON.*doctype html"),
    stopping("wrong_envelope", "the body has no list `data`"),
    stopping("not_a_number", "NaN is not JSON"),
    stopping("not_a_number", "-Infinity is not JSON", literal="-Infinity"),
    stopping("raw_null_character", "the body is not JSON: Invalid control character"),
    stopping("invalid_utf8", r"byte \d+ of the body is not UTF-8"),
    stopping("recoded_body", "byte 0 of the body is not UTF-8"),
    stopping("recoded_body", "the body is not JSON", encoding="utf-8-sig"),
    stopping("deep_nesting", "nested too deeply"),
    # Records that are not what they should be.
    quarantined("entry_without_id", "record_without_key"),
    quarantined("unknown_value", "unknown_status", CONFLICT),
    quarantined("unknown_value", "unknown_outcome", CONFLICT, field="outcome", value="half_won"),
    quarantined("missing_field", "missing_field", CONFLICT),
    quarantined("null_field", "wrong_type", CONFLICT),
    quarantined("wrong_type", "wrong_type", CONFLICT),
    quarantined("huge_number", "wrong_type", CONFLICT),
    quarantined("huge_number", "record_without_key", field="id"),
    quarantined("escaped_null_character", "text_unstorable", CONFLICT),
    quarantined("lone_surrogate", "text_unstorable", CONFLICT),
    passed("repeated_field", CONFLICT),
    Case("unknown_field", findings={"unknown_field": "market_tier"}, later=(CONFLICT,)),
    passed("changed_entry", CONFLICT, "settlement_contested"),
    # Answers of too many bytes, or of another kind.
    *(
        unread("oversize_body", r"larger than 500000 bytes", length=length)
        for length in ("declared", "chunked", "untold")
    ),
    unread("gzip_bomb", "in the encoding gzip though identity was asked for"),
    # Answers that do not arrive.
    slow("dripping_body"),
    slow("slow_headers"),
    slow("silence"),
    cut("reset_before_answer"),
    cut("reset_in_body"),
    cut("truncated_body"),
    cut("closed_without_answer"),
    cut("bad_status_line"),
    cut("bad_chunk"),
    cut("header_flood"),
    cut("contradicting_length"),
)


def test_every_fault_of_the_sandbox_is_in_the_table() -> None:
    assert {case.kind for case in CASES} == set(FAULTS)


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[Connection]:
    with warehouse.owner_engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def catch_up(engine: Engine, base_url: str, settings: Settings = SETTINGS) -> None:
    """All tasks of the source's DAG, one after the other."""
    with ticktock.open_client(base_url, TICKTOCK_KEY, settings) as client:
        land(engine, SOURCE, client, settings, "test")
    check_raw(engine, SOURCE.name)
    normalize(engine, SOURCE, settings)
    check_settlements(engine, SOURCE.name, settings)
    publish(engine, SOURCE.name)


def failure_of(task: Callable[[], None]) -> Exception | None:
    """How the tasks ended: by this error, and then in time, or well."""
    failure: Exception | None = None
    began = time.perf_counter()
    try:
        task()
    except (ProviderError, PageStopped) as error:
        failure = error
        # Whatever stops `land` comes after its one faulty call.
        assert time.perf_counter() - began < SETTINGS.call_deadline_seconds + SLACK_SECONDS
    except BatchHeld as error:
        failure = error
    return failure


def answer_finding(warehouse: Warehouse, finding: Any, decision: str, **parameters: Any) -> None:
    resolve(
        warehouse.engine,
        finding.finding_id,
        decision,
        decided_by="on-call",
        reason="The provider has mended it.",
        reference=None,
        parameters=parameters,
        run_id=None,
    )


def wrong_at_the_end(connection: Connection, sandbox: Sandbox) -> list[str]:
    """What the checker finds where everything has been read, spoiled records beside the sound."""
    nameless = connection.scalars(
        text("SELECT record_key FROM raw.record WHERE record_key LIKE 'sha256:%'")
    )
    keys = [*provider_keys(sandbox), *nameless]
    return violations(connection, SOURCE, keys, secrets=[TICKTOCK_KEY])


def current(connection: Connection) -> dict[str, int]:
    """Subjects by their current decision, in the words of the provider's own ledger."""
    words = {"open": "pending", "settled": "settled", "void": "voided"}
    rows = connection.execute(
        text(
            "SELECT status, outcome FROM core.settlement_current"
            " JOIN core.settlement USING (source, source_key, version)"
        )
    )
    return dict(
        Counter("/".join(filter(None, (words[status], outcome))) for status, outcome in rows)
    )


def settle_what_is_left(warehouse: Warehouse, connection: Connection) -> None:
    """Give up the spoiled records, and prefer the sound ones, which were read last."""
    for finding in open_findings(connection, "records_quarantined"):
        answer_finding(warehouse, finding, "discard")
    for finding in open_findings(connection, "settlement_contested"):
        sound = connection.scalar(
            text("SELECT max(record_id) FROM core.settlement WHERE is_contested")
        )
        answer_finding(warehouse, finding, "choose_version", record_id=str(sound))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_ends_as_it_should_and_costs_nothing_once_it_is_over(
    case: Case,
    sandbox: Sandbox,
    warehouse: Warehouse,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    sandbox.configure("ticktock", visible_entries=ENTRIES)
    sandbox.fault(
        "ticktock",
        case.kind,
        call="settlements",
        after_calls=3,
        times=case.times,
        **case.parameters,
    )
    settings = SETTINGS.model_copy(update=case.settings)
    with time_machine.travel(STARTED_AT, tick=True):
        failure = failure_of(lambda: catch_up(warehouse.engine, sandbox.ticktock_url, settings))
    assert (type(failure) if failure else None) is case.error, failure
    if failure is not None:
        assert re.search(case.says, str(failure))
        assert re.search(SAYS_ALWAYS[type(failure)], str(failure))
        assert connection.scalar(text("SELECT count(*) FROM raw.record")) >= 40
    found = open_findings(connection)
    assert [finding.kind for finding in found] == list(case.findings)
    for finding in found:
        assert re.search(case.findings[finding.kind], f"{finding.summary} {finding.detail}")
    assert violations(connection, SOURCE, secrets=[TICKTOCK_KEY]) == []

    sandbox.reset()
    sandbox.configure("ticktock", visible_entries=ENTRIES)
    if case.decision:
        answer_finding(warehouse, found[0], case.decision)
    with time_machine.travel(READ_AGAIN_AT, tick=True):
        catch_up(warehouse.engine, sandbox.ticktock_url)
    kinds = {finding.kind for finding in open_findings(connection)}
    assert kinds == ({*case.findings, *case.later} if not case.decision else set())
    settle_what_is_left(warehouse, connection)
    assert wrong_at_the_end(connection, sandbox) == []
    assert current(connection) == sandbox.ledger("ticktock")["final"]
    assert TICKTOCK_KEY not in caplog.text
    assert TICKTOCK_KEY not in str(failure)


FIELD_FAULTS = {
    "missing_field": {
        "created_at": "missing_field",
        "id": "record_without_key",
        "is_resettlement": "missing_field",
        "market_offer_id": "missing_field",
        "match_id": "missing_field",
        "new_status": "missing_field",
        "outcome": "status_outcome_mismatch",
        "previous_status": None,
        "settled_by": None,
    },
    "null_field": {
        "created_at": "wrong_type",
        "id": "record_without_key",
        "is_resettlement": "wrong_type",
        "market_offer_id": "wrong_type",
        "match_id": "wrong_type",
        "new_status": "wrong_type",
        "outcome": "status_outcome_mismatch",
        "previous_status": None,
        "settled_by": None,
    },
    "wrong_type": {
        "created_at": "wrong_type",
        "id": "record_without_key",
        "is_resettlement": "wrong_type",
        "market_offer_id": "wrong_type",
        "match_id": "wrong_type",
        "new_status": "wrong_type",
        "outcome": "wrong_type",
        "previous_status": "wrong_type",
        "settled_by": "wrong_type",
    },
}


@pytest.mark.parametrize("kind", FIELD_FAULTS)
def test_whatever_is_wrong_with_a_documented_field_costs_its_record_alone(
    kind: str, sandbox: Sandbox, warehouse: Warehouse, connection: Connection
) -> None:
    """Each field in another page, in a record that has an outcome."""
    rules = FIELD_FAULTS[kind]
    sandbox.configure("ticktock", visible_entries=len(rules) * 20)
    entries = shown_entries(sandbox, "/settlements", limit=200)
    assert set(rules) == entries[0].keys()
    spoiled = {}
    for page, (name, rule) in enumerate(rules.items()):
        # Not the first: the call that asks for one entry alone is to stay sound.
        place = next(place for place in range(1, 20) if entries[page * 20 + place]["outcome"])
        spoiled[name] = (str(entries[page * 20 + place]["id"]), rule)
        sandbox.fault("ticktock", kind, call="settlements", field=name, entry=place)
    with time_machine.travel(STARTED_AT, tick=True):
        catch_up(warehouse.engine, sandbox.ticktock_url)
    assert sandbox.faults() == []
    held_back = connection.execute(
        text("SELECT record_key, rule FROM ops.quarantine JOIN raw.record USING (record_id)")
    )
    [nameless] = connection.scalars(
        text("SELECT record_key FROM raw.record WHERE record_key LIKE 'sha256:%'")
    )
    spoiled["id"] = (nameless, "record_without_key")
    assert set(held_back.all()) == {(key, rule) for key, rule in spoiled.values() if rule}

    with time_machine.travel(READ_AGAIN_AT, tick=True):
        catch_up(warehouse.engine, sandbox.ticktock_url)
    settle_what_is_left(warehouse, connection)
    assert wrong_at_the_end(connection, sandbox) == []
    assert current(connection) == sandbox.ledger("ticktock")["final"]


def shown_entries(sandbox: Sandbox, path: str, **query: Any) -> list[dict[str, Any]]:
    """The entries of one sound answer."""
    headers = {"X-API-Key": TICKTOCK_KEY}
    with httpx.Client(headers=headers, trust_env=False) as client:
        answered = client.get(sandbox.ticktock_url + path, params=query).raise_for_status()
    return list(answered.json()["data"])


def test_a_redirect_takes_the_key_nowhere(
    sandbox: Sandbox, warehouse: Warehouse, connection: Connection
) -> None:
    with wire_server(answer()) as elsewhere:
        sandbox.fault("ticktock", "redirect", location=f"{elsewhere.base_url}/settlements")
        failure = failure_of(lambda: catch_up(warehouse.engine, sandbox.ticktock_url))
    assert isinstance(failure, Fatal)
    assert (elsewhere.connections, elsewhere.requests) == (0, [])


def test_a_provider_that_is_not_there_is_asked_again_by_the_next_run(
    sandbox: Sandbox, warehouse: Warehouse, connection: Connection
) -> None:
    sandbox.configure("ticktock", visible_entries=ENTRIES)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{bound.getsockname()[1]}/cs2/v1"
        failure = failure_of(lambda: catch_up(warehouse.engine, nowhere))
    assert isinstance(failure, Retriable)
    assert re.search(rf"No connection could be made .*{SAYS_ALWAYS[Retriable]}", str(failure))
    catch_up(warehouse.engine, sandbox.ticktock_url)
    assert wrong_at_the_end(connection, sandbox) == []
    assert current(connection) == sandbox.ledger("ticktock")["final"]


@pytest.mark.parametrize(
    ("kind", "error", "id_kind"),
    [
        ("status", Retriable, "integer"),
        ("refused_cursor", PageStopped, "integer"),
        ("refused_cursor", PageStopped, "uuid"),
        ("repeated_page", Fatal, "integer"),
        ("repeated_page", Fatal, "uuid"),
        ("restarted_page", Fatal, "integer"),
        ("restarted_page", Fatal, "uuid"),
        ("malformed_json", PageStopped, "integer"),
        ("empty_page", None, "integer"),
        ("empty_page", None, "uuid"),
    ],
)
def test_a_fault_while_the_log_is_read_a_second_time_costs_nothing_either(
    kind: str,
    error: type[Exception] | None,
    id_kind: str,
    sandbox: Sandbox,
    warehouse: Warehouse,
    connection: Connection,
) -> None:
    """The fault meets the second page of the second reading, in a run that has new entries."""
    log = {"id_kind": id_kind, "late": [{"entry": 70, "visible_after": None}]}
    sandbox.configure("ticktock", visible_entries=ENTRIES, **log)
    with time_machine.travel(STARTED_AT, tick=True):
        catch_up(warehouse.engine, sandbox.ticktock_url)
    sandbox.configure("ticktock", visible_entries=ENTRIES + 5, late=[])
    parameters = {"status": {"status": 500}, "refused_cursor": {"times": 2}}.get(kind, {})
    # One call reads the new entries, two the first pages of the old ones.
    sandbox.fault("ticktock", kind, call="settlements", after_calls=3, **parameters)
    with time_machine.travel(READ_AGAIN_AT, tick=True):
        failure = failure_of(lambda: catch_up(warehouse.engine, sandbox.ticktock_url))
    assert sandbox.faults() == []
    assert (type(failure) if failure else None) is error, failure
    for finding in open_findings(connection):
        range_after = finding.detail.get("after")
        answer_finding(warehouse, finding, "try_again", continue_from=range_after)
    with time_machine.travel(READ_AGAIN_AT + timedelta(minutes=20), tick=True):
        catch_up(warehouse.engine, sandbox.ticktock_url)
    assert wrong_at_the_end(connection, sandbox) == []
    assert current(connection) == sandbox.ledger("ticktock")["final"]


@pytest.mark.parametrize(
    ("kind", "parameters", "error"),
    [
        ("status", {"status": 404}, None),
        ("status", {"status": 503}, Retriable),
        ("silence", {}, Retriable),
        ("gzip_bomb", {}, None),
        ("oversize_body", {}, None),
        ("html_page", {}, None),
        ("empty_page", {}, None),
        ("entry_without_id", {}, None),
    ],
)
def test_a_fault_while_a_gap_is_asked_for_keeps_the_gap_open(
    kind: str,
    parameters: dict[str, Any],
    error: type[Exception] | None,
    sandbox: Sandbox,
    warehouse: Warehouse,
    connection: Connection,
) -> None:
    sandbox.configure("ticktock", page_order="newest_first", visible_entries=ENTRIES)
    sandbox.fault("ticktock", kind, call="match_settlements", **parameters)
    settings = SETTINGS.model_copy(update=IMPATIENT if kind == "silence" else {})
    failure = failure_of(lambda: catch_up(warehouse.engine, sandbox.ticktock_url, settings))
    assert sandbox.faults() == []
    assert (type(failure) if failure else None) is error, failure
    [gap] = open_findings(connection, "gap")
    if error is None:
        answer_finding(warehouse, gap, "try_again")
    catch_up(warehouse.engine, sandbox.ticktock_url)
    subjects = connection.scalar(text("SELECT subjects FROM ops.gap WHERE state = 'open'"))
    assert len(subjects) > 1
    asked_for = {
        str(entry["id"])
        for match_id in subjects
        for entry in shown_entries(sandbox, f"/matches/{match_id}/settlements", limit=1000)
    }
    landed = set(connection.scalars(text("SELECT record_key FROM raw.record")))
    assert asked_for <= landed
    settle_what_is_left(warehouse, connection)
    assert violations(connection, SOURCE, secrets=[TICKTOCK_KEY]) == []
