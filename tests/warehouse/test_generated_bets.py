"""Messages made from odds88's own schema, and spoiled ones: each ends in core or in quarantine."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from include.providers.odds88 import Ping, Terms, read_message
from include.quality.gates import check_raw, check_settlements
from include.quality.normalizing import normalize
from include.quality.rules import ROW_RULES
from include.settings import Settings
from include.warehouse.publishing import publish
from tests.checker import violations
from tests.feeding_bets import SOURCE, land
from tests.fuzz import spoiled
from tests.odds88_schema import Reading, messages, mostly
from tests.warehouses import Warehouse

_SEED = 20261121
_MESSAGES = 200
_MESSAGES_A_BATCH = 100
_ROW_RULES = {rule.name for rule in ROW_RULES}


@st.composite
def _generated(draw: st.DrawFn) -> dict[str, Any]:
    """A message of the schema, mostly about one of many bets and settled at a likely time."""
    told = draw(messages)
    bet = told.get("data") or {}
    for name, likely in (
        ("betId", st.integers(1, 100).map("bet {}".format)),
        ("settlementTime", st.integers(0, 59).map("2026-05-10T18:{:02}:00+00:00".format)),
    ):
        value = draw(mostly(likely, st.none()))
        if name in bet and value is not None:
            bet[name] = value
    return told


@pytest.fixture(scope="module")
def generated() -> list[dict[str, Any]]:
    """So many messages that the schema allows."""
    made: list[dict[str, Any]] = []

    @seed(_SEED)
    @settings(
        max_examples=_MESSAGES,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_generated())
    def make(told: dict[str, Any]) -> None:
        made.append(told)

    make()
    return made


@pytest.mark.parametrize(
    "terms", [Terms("major", True), Terms("minor", False, first_version=0), Terms()], ids=str
)
def test_whatever_the_schema_allows_is_published_or_held_back_with_the_right_reason(
    warehouse: Warehouse, generated: list[dict[str, Any]], terms: Terms
) -> None:
    bodies = [json.dumps(told).encode() for told in generated]
    found = _fates(warehouse, bodies, terms)
    ends = Counter(found.values())
    for told, body in zip(generated, bodies, strict=True):
        if told.get("data") is not None:
            rule = found[_record_in(body)]
            rules = Reading(told["data"], terms).rules
            # What lacks a usable id is held back before it is read.
            if rule == "record_without_key":
                assert rules & {"id_unusable", "missing_field", "wrong_type", "text_unstorable"}
            else:
                assert rule in (rules or {None, *_ROW_RULES})
    # There is something of either, and more than one reason.
    assert ends[None] > 3
    assert len(ends) > 3


def test_whatever_is_spoiled_is_published_or_held_back_too(
    warehouse: Warehouse, generated: list[dict[str, Any]]
) -> None:
    draw = random.Random(_SEED)
    sound = [json.dumps(told).encode() for told in generated]
    spoils = [spoiled(draw, body, draw.choice((1, 1, 1, 2))) for body in sound]
    # A page holds one message a line.
    bodies = [body.replace(b"\n", b" ") for body in spoils]
    ends = Counter(_fates(warehouse, bodies, Terms("major", True)).values())
    assert ends[None] > 0
    assert len(ends) > 3


def _fates(
    warehouse: Warehouse, bodies: list[bytes], terms: Terms
) -> dict[tuple[str, bytes], str | None]:
    """By key and digest of each message that is no ping: the rule that holds it back, or None if it
    is in core.
    """
    settings = Settings(
        odds88_payout_unit=terms.payout_unit,
        odds88_payout_contains_partial_refund=terms.payout_contains_refund,
        odds88_first_settlement_version=terms.first_version,
        quarantine_rows_limit=10_000,
    )
    for start in range(0, len(bodies), _MESSAGES_A_BATCH):
        land(warehouse.engine, *bodies[start : start + _MESSAGES_A_BATCH])
    check_raw(warehouse.engine, SOURCE.name)
    normalize(warehouse.engine, SOURCE, settings)
    check_settlements(warehouse.engine, SOURCE.name, settings)
    publish(warehouse.engine, SOURCE.name)
    with warehouse.owner_engine.connect() as connection:
        assert violations(connection, SOURCE, settings=settings) == []
        found = {(row.record_key, bytes(row.digest)): row.rule for row in _records(connection)}
    assert {_record_in(body) for body in bodies} - {None} == set(found)
    return found


def _records(connection: Connection) -> Iterator[Any]:
    """Every record, with the rule that holds it back; it is in core or in quarantine, not both."""
    for row in connection.execute(
        text(
            "SELECT record_key, content_sha256 AS digest, rule, quarantine.reason,"
            " core.record_id IS NOT NULL AS is_published"
            " FROM raw.record LEFT JOIN ops.quarantine USING (record_id)"
            " LEFT JOIN core.settlement AS core USING (record_id)"
        )
    ):
        assert row.is_published is (row.rule is None)
        assert row.is_published or (row.reason and row.reason.isprintable())
        yield row


def _record_in(body: bytes) -> tuple[str, bytes] | None:
    content = read_message(body).content
    if isinstance(content, Ping):
        return None
    return content.record.record_key, content.content_sha256
