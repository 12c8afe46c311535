"""The outbox: every alert goes once, and one that cannot go keeps nothing back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from include.warehouse.alerts import Alert, deliver_alerts, raise_alert
from include.warehouse.database import transaction
from tests.warehouses import Warehouse


class Receiver:
    """Takes alerts and remembers their keys, in order; those of `refused` it does not take."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.asked: list[str] = []
        self.taken: list[str] = []

    def __call__(self, alert: Alert) -> None:
        self.asked.append(alert.key)
        if alert.key in self.refused:
            raise ConnectionError("nobody there who knows the-token")
        self.taken.append(alert.key)


def tell(warehouse: Warehouse, *keys: str) -> None:
    for key in keys:
        with transaction(warehouse.engine, "loader") as connection:
            raise_alert(connection, key=key, title="t", body="b", severity="warning")


def outbox(warehouse: Warehouse) -> dict[str, Any]:
    with warehouse.owner_engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM ops.alert ORDER BY alert_id"))
        return {row.alert_key: row for row in rows}


def test_alerts_go_once_and_oldest_first(warehouse: Warehouse) -> None:
    receiver = Receiver()
    tell(warehouse, "b", "a", "c", "a")
    assert deliver_alerts(warehouse.engine, receiver) == 3
    tell(warehouse, "a")
    assert deliver_alerts(warehouse.engine, receiver) == 0
    assert receiver.taken == ["b", "a", "c"]
    assert [row.times_raised for row in outbox(warehouse).values()] == [1, 3, 1]


def test_an_alert_that_cannot_go_keeps_no_other_back(warehouse: Warehouse) -> None:
    receiver = Receiver("first")
    tell(warehouse, "first", "second", "third")
    assert deliver_alerts(warehouse.engine, receiver) == 2
    assert receiver.taken == ["second", "third"]
    kept = outbox(warehouse)["first"]
    assert (kept.sent_at, kept.last_error) == (None, "ConnectionError")

    tell(warehouse, "fourth")
    receiver.refused.clear()
    assert deliver_alerts(warehouse.engine, receiver) == 2
    assert receiver.taken[2:] == ["fourth", "first"]
    assert outbox(warehouse)["first"].last_error is None


def test_a_channel_that_is_away_is_not_tried_for_ever(warehouse: Warehouse) -> None:
    keys = [f"{number:02}" for number in range(25)]
    receiver = Receiver(*keys)
    tell(warehouse, *keys)
    assert deliver_alerts(warehouse.engine, receiver) == 0
    assert receiver.asked == keys[:10]

    # Those ten stay refused, and never stand in the way of the others.
    receiver.refused = set(keys[:10])
    assert deliver_alerts(warehouse.engine, receiver) == 15
    assert sorted(receiver.taken) == keys[10:]


def test_an_alert_may_be_raised_again_while_it_is_sent(warehouse: Warehouse) -> None:
    tell(warehouse, "slow")

    def send(alert: Alert) -> None:
        with transaction(warehouse.engine, "loader") as connection:
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            raise_alert(connection, key="slow", title="t", body="b", severity="warning")

    assert deliver_alerts(warehouse.engine, send) == 1
    assert outbox(warehouse)["slow"].times_raised == 2


def test_what_another_process_is_sending_is_left_to_it(warehouse: Warehouse) -> None:
    tell(warehouse, "one", "two")
    is_sending, may_end = threading.Event(), threading.Event()
    slow, quick = Receiver(), Receiver()

    def send_slowly(alert: Alert) -> None:
        is_sending.set()
        assert may_end.wait(30)
        slow(alert)

    sender = threading.Thread(target=deliver_alerts, args=(warehouse.engine, send_slowly))
    sender.start()
    try:
        assert is_sending.wait(30)
        assert deliver_alerts(warehouse.engine, quick) == 1
    finally:
        may_end.set()
        sender.join()
    assert (slow.taken, quick.taken) == (["one"], ["two"])


def test_a_process_that_dies_while_sending_leaves_the_alert_unsent(warehouse: Warehouse) -> None:
    tell(warehouse, "one")

    def die(alert: Alert) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver_alerts(warehouse.engine, die)
    assert deliver_alerts(warehouse.engine, Receiver()) == 1
