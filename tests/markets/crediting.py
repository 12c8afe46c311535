"""Credits as tests play them: published settlements, the runs, the operator's clerk, the wallet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError

from include.markets.crediting import Credited, credit, read_mapping
from include.payouts.credits import CreditsSent, send_credits
from include.payouts.outbox import report_outbox
from include.payouts.sending import Sent, send
from include.sandbox.client import Sandbox
from include.settings import Settings
from include.warehouse.database import open_engine
from include.warehouse.decisions import Resolution, held_by, resolve
from include.warehouse.publishing import publish
from include.warehouse.tables import staging_settlement
from tests.checker import credit_violations
from tests.markets.deciding import decide_after_a_kill
from tests.payouts.entering import rows
from tests.payouts.resending import SETTINGS as SENDING
from tests.payouts.resending import partner_at
from tests.staging import LANDED_AT, a_row, open_normalized_batch
from tests.warehouses import Warehouse

MAPPED = {
    "prediction_wallet_session_id": "prediction-markets",
    "prediction_wallet_round_id": "market-{market_id}",
    "prediction_wallet_game_id": "predictions",
    "prediction_wallet_ref_transaction_id": "{position_id}/{outcome_id}",
}
UNMAPPED = dict.fromkeys(MAPPED)
# No answer that comes is too late, however slow the machine is.
SETTINGS = SENDING.model_copy(
    update={**MAPPED, "wallet_deadline_seconds": 20, "wallet_lease_seconds": 60}
)

_EMPTY = """
TRUNCATE prediction.adjustment, prediction.credited_market, prediction.credit,
    prediction.attempt, prediction.market, staging.settlement, staging.settlement_leg,
    core.settlement, core.settlement_leg,
    core.daily_settlement, core.daily_recording, wallet.transaction, wallet.transaction_claim,
    wallet.transaction_conflict, wallet.hold, wallet.sending_window, wallet.attempt,
    wallet.attempt_item, wallet.reported_outcome, ops.lease, ops.finding, ops.decision, ops.alert,
    ops.quarantine, ops.quality_result, ops.batch
RESTART IDENTITY
"""


@dataclass
class Crediting:
    """A warehouse with published settlements, and everyone who works on their credits.

    The wallet is told of credits, unless it is switched off.
    """

    warehouse: Warehouse
    sandbox: Sandbox | None = None
    settings: Settings = SETTINGS
    _numbers: Iterable[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.as_owner(_EMPTY)

    def map(self, is_mapped: bool) -> None:
        """Switch on, or off, that the wallet is told of credits."""
        self.settings = self.settings.model_copy(update=MAPPED if is_mapped else UNMAPPED)

    def as_owner(self, statement: str, **parameters: Any) -> None:
        """Change the warehouse behind everybody's back."""
        with self.warehouse.owner_engine.begin() as connection:
            connection.execute(text(statement), parameters)

    # --- what the engine tells -------------------------------------------------------------------

    def market(self, market_id: str = "m", state: str = "done") -> None:
        """A market in that state."""
        self.as_owner(
            "INSERT INTO prediction.market (market_id, state, evidence)"
            " VALUES (:market_id, :state, '{}')"
            " ON CONFLICT (market_id) DO UPDATE SET state = :state",
            market_id=market_id,
            state=state,
        )

    def tell(self, settlement_id: str, payout: str | None = "10.00", **changes: Any) -> None:
        """One settlement is published, as `row` has it."""
        self.publish(self.row(settlement_id, payout, **changes))

    def row(self, settlement_id: str, payout: str | None = "10.00", **changes: Any) -> Any:
        """A settlement of market m, completed or, with a payout None, failed; told after all others
        and of a position of its own, but for `changes`.
        """
        number = next(iter(self._numbers))
        is_completed = payout is not None
        return {
            "record_id": number,
            "source": "prediction",
            "source_key": settlement_id,
            "provider_order": f"{number:020}",
            "status": "settled" if is_completed else "failed",
            "outcome": "won" if is_completed else None,
            "previous_status": None,
            "market_id": "m",
            "position_id": f"p-{settlement_id}",
            "selection_id": "yes",
            "player_id": f"player-{settlement_id}",
            "currency": "USD",
            "payout": None if payout is None else Decimal(payout),
            "settled_by": None,
            "event_id": None,
            **changes,
        }

    def publish(self, *told: Any) -> None:
        """These settlements as one batch, through the house's own publishing."""
        with self.warehouse.owner_engine.begin() as connection:
            batch_id = open_normalized_batch(
                connection,
                landed=len(told),
                source="prediction",
                settlements_checked_at=LANDED_AT,
            )
            connection.execute(
                insert(staging_settlement), [a_row(batch_id, **each) for each in told]
            )
        publish(self.warehouse.engine, "prediction")
        self.as_owner(
            "UPDATE prediction.market SET revision = revision + 1 WHERE market_id = ANY (:ids)",
            ids=[each["market_id"] for each in told],
        )

    # --- who works on it -------------------------------------------------------------------------

    def credit(self, market_ids: list[str] | None = None) -> Credited:
        """A run of the pipeline's step."""
        return credit(self.warehouse.engine, self.settings, market_ids)

    def deliver(self) -> CreditsSent:
        """The step behind it, in the same run."""
        assert self.sandbox is not None
        partner = partner_at(self.sandbox)
        is_mapped = read_mapping(self.settings) is not None
        return send_credits(
            self.warehouse.engine, lambda: partner, self.settings, "test", is_mapped=is_mapped
        )

    def send(self) -> Sent:
        """The resend, which sends what was entered until today."""
        assert self.sandbox is not None
        engine = self.warehouse.engine
        return send(engine, partner_at(self.sandbox), self.settings, today(), run_id="test")

    def refuse(self, *settlement_ids: str) -> None:
        """From now on the wallet refuses the payouts of these credits, for good."""
        assert self.sandbox is not None
        ids = [f"prediction:{each}" for each in settlement_ids]
        code = {"code": "RS_ERROR_USER_DISABLED", "transactions": ids}
        self.sandbox.configure("wallet", codes=[code] if ids else [])

    def acknowledge(
        self, *settlement_ids: str, reference: str = "transfer 4711", patience: str = "0"
    ) -> int:
        """The operator's clerk, in a session of his own, has paid these; how many are new.

        He waits for others no longer than his patience; 0: as long as it takes.
        """
        numbers = [self.credits()[each].credit_id for each in settlement_ids]
        engine = open_engine(self.warehouse.credits_url)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{patience}'"))
                return int(
                    connection.execute(
                        text("SELECT prediction.acknowledge(:ids, :reference)"),
                        {"ids": numbers, "reference": reference},
                    ).scalar_one()
                )
        finally:
            engine.dispose()

    def owed(self) -> dict[str, Any]:
        """What the clerk sees to be paid, by settlement."""
        engine = open_engine(self.warehouse.credits_url)
        try:
            with engine.begin() as connection:
                found = connection.execute(text("SELECT * FROM prediction.owed")).all()
        finally:
            engine.dispose()
        return {row.settlement_id: row for row in found}

    def differences(self) -> list[tuple[str, str | None, str | None, Decimal]]:
        """What the clerk sees to be paid or taken back beside that: settlement, player, money."""
        engine = open_engine(self.warehouse.credits_url)
        shown = "SELECT settlement_id, player_id, currency, amount FROM prediction.difference"
        try:
            with engine.begin() as connection:
                return [tuple(row) for row in connection.execute(text(f"{shown} ORDER BY told_at"))]
        finally:
            engine.dispose()

    def choose(self, kind: str, record_id: int) -> None:
        """Decide that this version counts."""
        self.decide(kind, "choose_version", record_id=record_id)

    def choose_anew(self, kind: str, record_id: int) -> None:
        """Decide after all that this version counts."""
        self.decide(kind, "choose_version", state="closed", record_id=record_id)

    def decide(
        self,
        kind: str,
        decision: str,
        reference: str | None = None,
        *,
        state: str = "open",
        **parameters: Any,
    ) -> list[Resolution]:
        """The same decision on every finding of that kind, open ones unless told otherwise.

        As the page Findings does it, each is about what the finding holds right before.
        """
        report_outbox(self.warehouse.engine)
        with self.warehouse.owner_engine.connect() as connection:
            found = connection.scalars(
                text("SELECT finding_id FROM ops.finding WHERE kind = :kind AND state = :state"),
                {"kind": kind, "state": state},
            ).all()
            held = held_by(connection, dict.fromkeys(found, kind))

        def seen_of(finding_id: int) -> dict[str, str]:
            if state == "closed" or finding_id not in held:
                return {}
            return {"seen": held[finding_id].seen}

        def resolve_one(finding_id: int, engine: Engine) -> Resolution:
            return resolve(
                engine,
                finding_id,
                decision,
                decided_by="anna",
                reason="as it stands",
                reference=reference,
                parameters={**seen_of(finding_id), **parameters},
                run_id=None,
                second_person_above=Decimal("Infinity"),
            )

        return [
            decide_after_a_kill(self.warehouse, partial(resolve_one, finding_id))
            for finding_id in found
        ]

    def seen(self, kind: str) -> str:
        """What the page Findings shows at this moment beside the only finding of that kind."""
        with self.warehouse.owner_engine.connect() as connection:
            finding_id = connection.scalars(
                text("SELECT finding_id FROM ops.finding WHERE kind = :kind AND state = 'open'"),
                {"kind": kind},
            ).one()
            return held_by(connection, {finding_id: kind})[finding_id].seen

    # --- how it stands ---------------------------------------------------------------------------

    def credits(self) -> dict[str, Any]:
        """Every credit as prediction.credit_standing has it, by settlement."""
        found = rows(self.warehouse, "SELECT * FROM prediction.credit_standing ORDER BY credit_id")
        return {row.settlement_id: row for row in found}

    def states(self) -> dict[str, str]:
        """The same in a word: why it is held, or else its state."""
        return {name: row.hold_reason or row.state for name, row in self.credits().items()}

    def payouts(self) -> dict[str, Any]:
        """The outbox by settlement."""
        found = rows(self.warehouse, "SELECT * FROM wallet.transaction")
        return {row.transaction_id.removeprefix("prediction:"): row for row in found}

    def findings(self) -> list[str]:
        """The kinds of the open findings, in alphabetical order."""
        found = rows(self.warehouse, "SELECT kind FROM ops.finding WHERE state = 'open'")
        return sorted(row.kind for row in found)

    def paid_by_wallet(self) -> dict[str, int]:
        """How often the wallet credited each settlement's payout that it knows."""
        assert self.sandbox is not None
        return {
            name.removeprefix("prediction:"): times for name, times in self.sandbox.wallet_credits()
        }

    def wrong(self, *, is_left_alone: bool = True) -> list[str]:
        """What the checker finds now."""
        with self.warehouse.owner_engine.connect() as connection:
            return list(credit_violations(connection, is_left_alone=is_left_alone))


def today() -> date:
    """The UTC day: that of the warehouse's own clock, but at midnight."""
    return datetime.now(UTC).date()


def refusal(crediting: Crediting, *settlement_ids: str, **given: Any) -> str:
    """What the clerk is told whose acknowledgement is refused."""
    try:
        crediting.acknowledge(*settlement_ids, **given)
    except DBAPIError as error:
        return str(error.orig)
    raise AssertionError("it was acknowledged")
