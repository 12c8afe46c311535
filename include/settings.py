"""Every tunable of the house, typed, bounded and documented: one environment variable each.

Read once per process by `Settings()`; a value out of range stops with the variable's name.
Keys and hosts are not here: they belong to Airflow connections.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The tunables.  Durations are seconds, sizes bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="SETTLEMENTS_", frozen=True, extra="ignore")

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

    @classmethod
    def variables(cls) -> list[tuple[str, str, Any]]:
        """(environment variable, meaning, default) of every tunable, for the documentation."""
        return [
            (f"SETTLEMENTS_{name.upper()}", field.description or "", field.default)
            for name, field in cls.model_fields.items()
        ]
