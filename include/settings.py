"""Every tunable of the house, typed, bounded and documented: one environment variable each.

Read once per process by `Settings()`; a value that is wrong and a variable that nobody knows stop
with its name.  Keys and hosts are not here: they belong to Airflow connections.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from include.model import CURRENCY

PREFIX = "SETTLEMENTS_"

# What others than the pipelines read: `make up` and `make demo`.
_OF_OTHERS = frozenset({"SETTLEMENTS_POSTGRES_URL"})
_SHOWN_CHARACTERS = 100
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
# Far more cannot be subtracted from a date.
_TEN_YEARS_SECONDS = 3650 * 86_400
# Some partners say so of a payout that they have booked.
_DUPLICATE_CODE = "RS_ERROR_DUPLICATE_TRANSACTION"
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
_CREDIT_PREFIX = "prediction_wallet_"
_CREDIT_TEMPLATE = r"^([^{}]|\{(market_id|settlement_id|position_id|outcome_id)\})+$"


class SettingsWrong(ValueError):
    """The environment does not say how to work; the message names each variable and its trouble."""

    def __init__(self, troubles: Iterable[str]) -> None:
        lines = "\n".join(f"- {trouble}" for trouble in troubles)
        super().__init__(
            f"The settings cannot be used, and nothing was begun:\n{lines}\n"
            "Correct them where Airflow's processes have their environment from (with Docker "
            "Compose: `.env`, then `docker compose up --detach`), or take them out: what is not "
            "set has its default. The README lists them all."
        )


class Settings(BaseSettings):
    """The tunables.  Durations are seconds, sizes bytes, unless the name says otherwise.

    `Settings()` reads the environment, in which an empty variable counts as one that is not set.
    Raises `SettingsWrong`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        env_parse_none_str="none",
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        if values:
            super().__init__(**values)
            return
        if unknown := list(_unknown(type(self).model_fields)):
            raise SettingsWrong(unknown)
        try:
            super().__init__()
        except SettingsError as error:
            raise SettingsWrong([_unreadable(error)]) from None
        except ValidationError as error:
            raise SettingsWrong([_trouble(one) for one in error.errors()]) from None

    call_deadline_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Longest one call to a provider may take in all, from connecting to the last byte.",
    )
    body_limit_bytes: int = Field(
        16 * 2**20,
        ge=1024,
        description="Largest answer read from a provider; a longer one is refused unread.",
    )
    read_attempts: int = Field(
        4,
        ge=1,
        le=20,
        description="How often one read is tried within a task before the task itself fails.",
    )
    retry_after_limit_seconds: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="Longest wait that a provider's Retry-After may impose within a task.",
    )

    ticktock_page_limit: int = Field(
        200, ge=1, le=200, description="Entries asked for per page of the ticktock settlement log."
    )
    ticktock_first_cursor: str | None = Field(
        None,
        description="Entry id after which the very first ticktock call starts; unset asks from where the provider starts by itself.",
    )

    land_pages_limit: int = Field(
        500, ge=1, description="Most pages one `land` task fetches; the rest is the next run's."
    )
    land_bytes_limit: int = Field(
        512 * 2**20, ge=1024, description="Most bytes one `land` task fetches."
    )
    land_time_limit_seconds: float = Field(
        240.0, gt=0, description="Longest one `land` task goes on fetching."
    )
    land_commit_records: int = Field(
        5000, ge=1, description="Records after which `land` commits what it holds."
    )
    land_commit_seconds: float = Field(
        5.0, gt=0, description="Seconds after which `land` commits what it holds."
    )
    overlap_seconds: float = Field(
        600.0,
        ge=0,
        description="How long an entry may become visible late: everything is read again, once, when this much time has passed.",
    )

    quarantine_share_limit: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of a batch's rows that may be quarantined before the batch is held …",
    )
    quarantine_rows_limit: int = Field(
        10, ge=0, description="… and the number of rows that must be exceeded as well."
    )
    normalize_chunk_records: int = Field(
        5000, ge=1, description="Records normalized and copied at a time; bounds memory."
    )

    feed_late_seconds: float = Field(
        1800.0,
        gt=0,
        description="A feed that has not completed a fetch for this long is a finding.",
    )
    batch_stuck_seconds: float = Field(
        3600.0, gt=0, description="A batch unfinished for this long is a finding."
    )

    wallet_batch_items: int = Field(
        100, ge=1, le=1000, description="Payouts in one request to the wallet, after the canary."
    )
    wallet_requests_at_once: int = Field(
        4, ge=1, le=32, description="Requests to the wallet under way at the same time."
    )
    wallet_deadline_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Longest one request to the wallet may take in all; nothing of it is sent later.",
    )
    wallet_body_limit_bytes: int = Field(
        4 * 2**20, ge=1024, description="Longest answer of the wallet that is read and stored."
    )
    wallet_partner_idempotent: bool = Field(
        True,
        description="The partner processes a transactionId once and repeats its answer, as it documents. If not, nothing in doubt, and nothing that it answered with a code that nobody knows, is sent again without a decision.",
    )
    wallet_item_codes: dict[
        str, Literal["ok", "final", "duplicate", "authentication", "syntax", "other"]
    ] = Field(
        {},
        description='What codes of the wallet mean, as JSON, beside and before those it documents, such as {"RS_ERROR_X": "final"}; ok, final, duplicate, authentication, syntax or other.',
    )
    wallet_window_seconds: float = Field(
        1500.0,
        gt=0,
        le=86_400,
        description="How long a window is within which what is in doubt is sent again.",
    )
    wallet_sends_a_window: int = Field(
        3, ge=1, le=20, description="How often a payout in doubt is sent in one window …"
    )
    wallet_windows: int = Field(
        3, ge=1, description="… and in how many windows, before it is held for a decision."
    )
    wallet_resend_delay_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="Wait before a payout in doubt is sent the second time, doubled each time; never before its request's deadline.",
    )
    wallet_lease_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="How long a sender that has died keeps others from sending.",
    )
    wallet_stage_items: int = Field(
        5000, ge=1, description="Payouts after which refusals are judged before they become lost."
    )
    wallet_refusal_share_limit: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a stage's payouts with the same refusal that stops a currency …",
    )
    wallet_refusal_sample: int = Field(
        10, ge=1, description="… once so many were answered; or the first three alike."
    )
    second_person_above: Decimal = Field(
        Decimal(1000),
        ge=0,
        description="Payouts of a finding that together exceed this, in units of their currency, are only lost when two people decide so.",
    )

    import_folder: Path | None = Field(
        None,
        description="Folder of files for `import_files`, which every worker can read and write; unset: nothing can be imported by that DAG.",
    )

    odds88_payout_unit: Literal["major", "minor"] | None = Field(
        None,
        description="Whether odds88 counts `payout` and `partialRefund` in major units (12.34) or in minor ones (1234); unset: bets for which that makes a difference are held back.",
    )
    odds88_payout_contains_partial_refund: bool | None = Field(
        None,
        description="Whether odds88's `payout` contains `partialRefund` already; unset: bets with a partial refund are held back.",
    )
    odds88_first_settlement_version: int = Field(
        1,
        ge=0,
        description="`settlementVersion` of a leg that odds88 settles for the first time; a higher one is a resettlement.",
    )
    odds88_window_warning_hours: float = Field(
        48.0,
        gt=0,
        lt=71,
        description="Hours since odds88's stream was last read to its end after which a finding warns that settlements will be lost: it tells again no more than 3 days.",
    )
    odds88_rate_base_currency: str | None = Field(
        None,
        pattern=CURRENCY,
        description="Reporting currency of odds88's amounts: the one that its exchange rates lead to or from. Taken over by the next migration; unset: no amount is given in a reporting currency.",
    )
    odds88_rate_direction: Literal["units_per_base", "base_per_unit"] | None = Field(
        None,
        description="What odds88's exchange rates are: units of the bet's currency for one of the reporting currency (units_per_base), or the other way round; goes with SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY.",
    )
    odds88_token_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+: *[ -~]*\{token\}[ -~]*$",
        description="Header that carries the token to odds88's stream; unset: Authorization: Bearer {token}",
    )

    odds88_session_messages: int = Field(
        5_000_000,
        ge=1,
        description="Most new messages that one session of odds88's stream reads, audits aside; a history longer than that goes on in the next.",
    )
    odds88_audit_hour: int | None = Field(
        3,
        ge=0,
        le=23,
        description="Hour (UTC) from which, once a day, a session of odds88's stream begins as far back as it tells, an audit; none: only after a recovery that took several sessions.",
    )

    stream_overlap_seconds: float = Field(
        900.0,
        ge=60,
        le=71 * 3600,
        description="How far before its position a stream is read again: how late a message may be.",
    )
    stream_quiet_seconds: float = Field(
        2.0,
        gt=0,
        description="How long no history may have come, pings or newer messages though, before a stream counts as read to its end.",
    )
    stream_silence_seconds: float = Field(
        30.0,
        gt=0,
        description="A stream from which nothing at all comes for this long, not even a ping, is given up until the next run.",
    )
    stream_lease_seconds: float = Field(
        60.0,
        gt=0,
        description="How long a run that has died keeps others from connecting to its stream.",
    )
    stream_message_limit_bytes: int = Field(
        4 * 2**20,
        ge=1024,
        description="Largest message read from a stream; a larger one ends the connection unread.",
    )

    prediction_deadline_seconds: float = Field(
        120.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="Longest that one call to settle a market, or to retry, may take in all.",
    )
    prediction_body_limit_bytes: int = Field(
        64 * 2**20,
        ge=1024,
        description="Largest answer of the prediction engine that is read; an unpaged list holds a whole market.",
    )
    prediction_listing_pages_limit: int = Field(
        10_000,
        ge=1,
        description="Most pages of one list of settlements, if the prediction engine gives them in pages.",
    )
    prediction_operator_id: _Name | None = Field(
        None,
        description="The operatorId that the prediction engine's settlements must carry; unset: every market is held back.",
    )
    prediction_wallet_session_id: str | None = Field(
        None,
        max_length=200,
        pattern=_CREDIT_TEMPLATE,
        description="sessionId under which the wallet is told of a credit, with {market_id}, {settlement_id}, {position_id} or {outcome_id} in it where these belong. This and the next three go together; unset: credits are owed, and the operator pays them with its own wallet.",
    )
    prediction_wallet_round_id: str | None = Field(
        None,
        max_length=200,
        pattern=_CREDIT_TEMPLATE,
        description="The same for roundId, such as {market_id}.",
    )
    prediction_wallet_game_id: str | None = Field(
        None, max_length=200, pattern=_CREDIT_TEMPLATE, description="The same for gameId."
    )
    prediction_wallet_ref_transaction_id: str | None = Field(
        None,
        max_length=200,
        pattern=_CREDIT_TEMPLATE,
        description="The same for refTransactionId, such as {position_id}.",
    )
    prediction_default_currency: str | None = Field(
        None,
        pattern=CURRENCY,
        description="Currency of markets that were entered without one, in capital letters; the prediction engine documents USD as its own default. Unset: such markets are held back.",
    )
    prediction_settle_attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="How often a market is ordered to be settled, if the prediction engine shows nothing of it, before a person is asked.",
    )
    prediction_retry_attempts: int = Field(
        3, ge=0, le=10, description="How often the failed positions of a market are retried …"
    )
    prediction_retry_delay_seconds: float = Field(
        300.0,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="… and how long after the first time, doubled each time.",
    )
    prediction_look_seconds: float = Field(
        30.0,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="How long after one look at a market whose positions are under way comes the next.",
    )
    prediction_stuck_seconds: float = Field(
        3600.0,
        gt=0,
        le=30 * 86400,
        allow_inf_nan=False,
        description="A market under way of which no more positions have come to an end for this long, or of which what the engine says cannot be read for this long, is stuck: a finding.",
    )
    prediction_relook_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        allow_inf_nan=False,
        description="How long a settled market is looked at again, once a day, for what the prediction engine corrects later.",
    )
    prediction_unconfirmed_days: float = Field(
        7.0,
        gt=0,
        le=3650,
        allow_inf_nan=False,
        description="A market in the queue that is not known to be resolved after this long is a finding.",
    )
    prediction_events_warning_hours: float = Field(
        18.0,
        gt=0,
        lt=24,
        allow_inf_nan=False,
        description="Hours since the prediction engine's events were last read to their end after which a finding warns that some will be lost: it keeps no more than 24.",
    )

    tote_authorization: Literal["Api-Key", "Bearer"] = Field(
        "Api-Key",
        description="Whether tote's password is an API key or an access token: the word before it in the header Authorization.",
    )
    tote_query_path: str = Field(
        "/gateway/graphql",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Where below its base address tote answers questions about bets.",
    )
    tote_socket_path: str = Field(
        "/connections/graphql",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Where below its base address tote's socket is.",
    )
    tote_subprotocols: tuple[Literal["graphql-transport-ws", "graphql-ws"], ...] = Field(
        ("graphql-transport-ws", "graphql-ws"),
        description='What tote\'s socket is asked to speak, as JSON, the first to prefer; such as ["graphql-ws"]; [] asks for plain JSON.',
    )
    tote_listen_seconds: float = Field(
        240.0,
        gt=0,
        le=3600,
        description="How long one session at tote's socket lasts, waiting and connecting included; longer than the schedule's 5 minutes it would hold up the next run.",
    )
    tote_listen_by_hand_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="The same in a run that was started by hand, for which somebody waits.",
    )
    tote_listen_messages: int = Field(
        100_000, ge=1, description="Most messages that one session at tote's socket hears."
    )
    tote_hint_confirm_minutes: float = Field(
        30.0,
        gt=0,
        description="Minutes within which GraphQL has to show what tote's socket hinted at; later it is a finding.",
    )
    tote_total_checked: bool = Field(
        True,
        description="Bets of tote are held back if `totalAmount` is not the sum of `returnAmount`, `refundAmount` and `enhancementAmount`.",
    )

    tote_page_limit: int = Field(
        250, ge=1, le=250, description="Bets asked for per page of tote's list."
    )
    tote_first_since_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 3650,
        description="How far back tote's bets are listed in the very first run: bets that were made before have to be entered into the register.",
    )
    tote_listing_overlap_seconds: float = Field(
        900.0,
        ge=0,
        le=24 * 3600,
        description="How far before its position tote's list of bets begins again: how late a bet may become visible in it.",
    )
    tote_listing_lag_seconds: float = Field(
        60.0,
        ge=0,
        description="How far behind the present tote's list of bets ends: what is younger is listed in the next run.",
    )
    tote_ask_seconds_min: float = Field(
        300.0,
        ge=1,
        description="Shortest time after which a bet of tote is asked for again; it grows with the bet's age, or with the time since its last change …",
    )
    tote_ask_seconds_max: float = Field(21_600.0, ge=1, description="… to this at most.")
    tote_settled_days: float = Field(
        7.0,
        ge=0,
        description="How long a bet of tote that is settled, refunded or was not taken is still asked for after its last change.",
    )
    tote_open_days: float = Field(
        30.0, gt=0, description="A bet of tote that is open for longer than this is a finding."
    )

    @field_validator("*")
    @classmethod
    def _no_duration_is_endless(cls, value: Any, info: ValidationInfo) -> Any:
        words = (info.field_name or "").split("_")
        seconds = next((_SECONDS[word] for word in words if word in _SECONDS), None)
        if isinstance(value, float) and seconds and value * seconds > _TEN_YEARS_SECONDS:
            raise ValueError("No time is longer than ten years here")
        return value

    @field_validator("wallet_item_codes")
    @classmethod
    def _check_item_codes(cls, codes: dict[str, str]) -> dict[str, str]:
        """Refuse what can only be a mistake: payouts are paid, or lost, by it."""
        for code, meaning in codes.items():
            if code != code.strip() or not code:
                raise ValueError(
                    f"{code!r} is no code: write it exactly as the wallet answers it, without "
                    "white space around it"
                )
            if code == "RS_OK" and meaning != "ok":
                raise ValueError("RS_OK means that a payout is booked, and nothing else")
            if code.startswith("RS_ERROR") and code != _DUPLICATE_CODE and meaning == "ok":
                raise ValueError(
                    f"{code} is an error: only {_DUPLICATE_CODE} may mean that a payout is booked"
                )
        return codes

    @model_validator(mode="after")
    def _rates_are_told_whole(self) -> Self:
        if (self.odds88_rate_base_currency is None) != (self.odds88_rate_direction is None):
            raise ValueError(
                "SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY and SETTLEMENTS_ODDS88_RATE_DIRECTION go "
                "together: set both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _credits_are_told_whole(self) -> Self:
        templates = {name for name in type(self).model_fields if name.startswith(_CREDIT_PREFIX)}
        missing = [name for name in sorted(templates) if getattr(self, name) is None]
        if missing and len(missing) < len(templates):
            raise ValueError(
                "The wallet is told of credits by all of SETTLEMENTS_PREDICTION_WALLET_… or by "
                f"none: set {', '.join(map(_variable, missing))} as well"
            )
        return self

    @classmethod
    def variables(cls) -> list[tuple[str, str, Any]]:
        """(environment variable, meaning, default) of every tunable, for the documentation."""
        return [
            (_variable(name), field.description or "", field.default)
            for name, field in cls.model_fields.items()
        ]


def _variable(field_name: str) -> str:
    return f"{PREFIX}{field_name.upper()}"


def _unknown(fields: Iterable[str]) -> Iterator[str]:
    """What is said of each variable that has a value, and looks like a setting but is none."""
    known = {*map(_variable, fields), *_OF_OTHERS}
    for name in sorted(name for name, value in os.environ.items() if value):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            alike = get_close_matches(name.upper(), known, n=1)
            yield f"{name} is no setting." + (f" Is {alike[0]} meant?" if alike else "")


def _unreadable(error: SettingsError) -> str:
    named = re.search(r'field "(\w+)"', str(error))
    if named is None:
        return str(error)
    return f"{_given(_variable(named[1]))}. It should be JSON ({error.__cause__})."


def _trouble(error: ErrorDetails) -> str:
    """What is said of one wrong value, or of several that do not go together."""
    what = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return f"{what}."
    name, *within = map(str, error["loc"])
    where = f" (at {'.'.join(within)})" if within else ""
    return f"{_given(_variable(name))}{where}. {what}."


def _given(variable: str) -> str:
    values = [value for name, value in os.environ.items() if name.upper() == variable]
    return f"{variable} is {' and '.join(values)[:_SHOWN_CHARACTERS]!r}"
