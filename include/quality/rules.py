"""The row rules: what every staged settlement must be, whichever source it comes from.

Each rule is one SQL predicate that is TRUE for a good row.  The rules are rendered twice, to Great
Expectations (one expectation a group) and to quarantine (the first rule that a row fails, with the
offending values); both renderings come from the list below, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from include.model import Outcome, SettledAtBasis, Status

Severity = Literal["critical", "warning"]

_SHOWN_CHARACTERS = 60
# What Unicode calls white space, and the marks without any width.
_BLANKS = (
    r" \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    r"\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)


@dataclass(frozen=True)
class RowRule:
    """One thing that must hold for a row.

    `predicate` may name the columns of staging.settlement, `batch_landed_at` and
    `follows_decision`; a row passes only if it is TRUE, so a predicate that comes out as NULL
    fails.  `shows` are the columns whose values the reason gives; none of them names a player.
    """

    name: str
    predicate: str
    meaning: str
    shows: tuple[str, ...]


@dataclass(frozen=True)
class RuleGroup:
    """Rules that are checked in one expectation.

    critical: only a mistake of this project can break them, so one row holds the batch.
    warning: a provider can break them; the row is quarantined and its neighbours go on.
    """

    name: str
    severity: Severity
    rules: tuple[RowRule, ...]

    @property
    def failure(self) -> str:
        """SQL that is TRUE for a row that fails any of the group's rules, and never NULL."""
        return " OR ".join(_fails(rule) for rule in self.rules)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _not_blank(columns: Iterable[str]) -> str:
    return " AND ".join(
        rf"({column} IS NULL OR btrim({column}, E'{_BLANKS}') <> '')" for column in columns
    )


def _finite(columns: Iterable[str]) -> str:
    # NaN sorts above every number, so it passes any comparison that only asks for a least value.
    return " AND ".join(
        f"({column} IS NULL OR {column} NOT IN ('NaN', 'Infinity', '-Infinity'))"
        for column in columns
    )


def _not_negative(columns: Iterable[str]) -> str:
    return " AND ".join(f"coalesce({column}, 0) >= 0" for column in columns)


_NAMES = ("player_id", "event_id", "market_id", "selection_id", "currency")
_SHOWN_NAMES = ("event_id", "market_id", "selection_id", "currency")
_MONEY = ("stake", "payout", "refund", "enhancement")
_NUMBERS = (*_MONEY, "payout_multiplier", "placement_rate", "settlement_rate")

GROUPS = (
    RuleGroup(
        "words",
        "critical",
        (
            RowRule(
                "status_known",
                f"status IN ({_listed(Status)})",
                "The status is a word of the house.",
                ("status",),
            ),
            RowRule(
                "outcome_known",
                f"outcome IS NULL OR outcome IN ({_listed(Outcome)})",
                "The outcome is a word of the house.",
                ("outcome",),
            ),
            RowRule(
                "previous_status_known",
                f"previous_status IS NULL OR previous_status IN ({_listed(Status)})",
                "The status before is a word of the house.",
                ("previous_status",),
            ),
            RowRule(
                "settled_at_basis_known",
                f"settled_at_basis IN ({_listed(SettledAtBasis)})",
                "Who says when it was settled is a word of the house.",
                ("settled_at_basis",),
            ),
        ),
    ),
    RuleGroup(
        "identity",
        "warning",
        (
            RowRule(
                "source_key_told",
                _not_blank(["source_key"]),
                "The subject decided about is named.",
                ("source_key",),
            ),
            RowRule(
                "provider_order_told",
                _not_blank(["provider_order"]),
                "Its place in the provider's order is known.",
                ("provider_order",),
            ),
            RowRule(
                "names_not_blank",
                _not_blank(_NAMES),
                "Player, event, market, selection and currency are named or absent, never blank.",
                _SHOWN_NAMES,
            ),
        ),
    ),
    RuleGroup(
        "outcome",
        "warning",
        (
            RowRule(
                "outcome_absent_while_open",
                "status <> 'open' OR outcome IS NULL",
                "What is open has no outcome yet.",
                ("status", "outcome"),
            ),
            RowRule(
                "outcome_told_when_decided",
                "status NOT IN ('settled', 'void') OR outcome IS NOT NULL",
                "What is settled or void has an outcome.",
                ("status", "outcome"),
            ),
            RowRule(
                "void_returns_stakes",
                "status <> 'void' OR outcome IS NULL OR outcome IN ('void', 'refunded')",
                "What is void was neither won nor lost.",
                ("status", "outcome"),
            ),
        ),
    ),
    RuleGroup(
        "money",
        "warning",
        (
            RowRule(
                "money_finite",
                _finite(_NUMBERS),
                "Amounts, multipliers and rates are numbers.",
                _NUMBERS,
            ),
            RowRule(
                "money_not_negative",
                _not_negative(["stake", "refund", "enhancement"]),
                "Stake, refund and enhancement are not negative.",
                ("stake", "refund", "enhancement"),
            ),
            RowRule(
                "payout_negative_by_correction_only",
                "coalesce(payout, 0) >= 0 OR is_resettlement OR follows_decision",
                "Only a correction of a known decision takes money back.",
                ("payout", "is_resettlement"),
            ),
            RowRule(
                "currency_told",
                f"currency IS NOT NULL OR coalesce({', '.join(_MONEY)}) IS NULL",
                "An amount has a currency.",
                ("currency", *_MONEY),
            ),
            RowRule(
                "parts_within_payout",
                "payout IS NULL OR payout < 0"
                " OR coalesce(refund, 0) + coalesce(enhancement, 0) <= payout",
                "Refund and enhancement are parts of the payout.",
                ("payout", "refund", "enhancement"),
            ),
        ),
    ),
    RuleGroup(
        "time",
        "warning",
        (
            RowRule(
                "settled_at_told",
                "status = 'open' OR settled_at IS NOT NULL",
                "What is decided was decided at a time.",
                ("status", "settled_at"),
            ),
            RowRule(
                "settled_at_plausible",
                "settled_at IS NULL OR settled_at BETWEEN timestamptz '2000-01-01 00:00+00'"
                " AND batch_landed_at + interval '1 day'",
                "It was decided after the year 2000 and not after it arrived.",
                ("settled_at",),
            ),
        ),
    ),
)

# What is looked up in a whole batch is hashed in memory: without that, each row would read it anew.
WORK_MEMORY = "64MB"

ROW_RULES = tuple(rule for group in GROUPS for rule in group.rules)

# Of nothing but wins: what is cashed out or refunded in part follows other rules.
IS_PLAIN_WIN = (
    "status = 'settled' AND outcome = 'won' AND coalesce(refund, 0) = 0"
    " AND stake * payout_multiplier + payout IS NOT NULL"
)
# The stake has as many digits behind the point as its currency: one unit of the last is left to
# rounding.
_SMALLEST_UNIT = "power(10::numeric, -scale(stake))"
PAYOUT_DIFFERS = f"{IS_PLAIN_WIN} AND abs(payout - stake * payout_multiplier) > {_SMALLEST_UNIT}"
# As major units taken for minor ones come out, and minor units taken for major ones.
PAYOUT_DIFFERS_BY_UNIT = (
    f"{PAYOUT_DIFFERS} AND"
    f" (abs(payout / {_SMALLEST_UNIT} - stake * payout_multiplier) <= {_SMALLEST_UNIT}"
    f" OR abs(payout * {_SMALLEST_UNIT} - stake * payout_multiplier) <= {_SMALLEST_UNIT})"
)


def batch_rows(*batch_ids: int) -> str:
    """SQL that gives the staged rows of batches with everything that predicates may name.

    `follows_decision` says, where money is taken back, that an earlier decision about the subject
    is known: published before, or in the same batch.
    """
    these = f"IN ({', '.join(str(int(batch_id)) for batch_id in batch_ids)})"
    return (
        "SELECT staged.*, batch.landed_at AS batch_landed_at, CASE WHEN payout < 0 THEN"
        " (SELECT true FROM core.settlement AS earlier"
        " WHERE (earlier.source, earlier.source_key) = (staged.source, staged.source_key)"
        " AND earlier.provider_order < staged.provider_order AND earlier.status <> 'open' LIMIT 1)"
        # Hashed once, when the first such row is met.
        " IS NOT NULL OR (batch_id, source_key, provider_order) NOT IN"
        " (SELECT batch_id, source_key, min(provider_order) FROM staging.settlement"
        f" WHERE batch_id {these} AND status <> 'open' GROUP BY batch_id, source_key)"
        " ELSE false END AS follows_decision"
        " FROM staging.settlement AS staged JOIN ops.batch AS batch USING (batch_id)"
        f" WHERE staged.batch_id {these}"
    )


def failing_rule() -> str:
    """SQL that names the first rule a row fails; NULL for a good row."""
    return _first_failing({rule: f"'{rule.name}'" for rule in ROW_RULES})


def failing_reason() -> str:
    """SQL that says what the first rule that a row fails demands, and the values it found."""
    return _first_failing({rule: _reason(rule) for rule in ROW_RULES})


def _first_failing(results: dict[RowRule, str]) -> str:
    branches = " ".join(f"WHEN {_fails(rule)} THEN {result}" for rule, result in results.items())
    return f"CASE {branches} END"


def _fails(rule: RowRule) -> str:
    return f"({rule.predicate}) IS NOT TRUE"


def _reason(rule: RowRule) -> str:
    meaning = rule.meaning.replace("'", "''")
    values = " || ', ' || ".join(
        f"'{column} = ' || coalesce(left({column}::text, {_SHOWN_CHARACTERS}), 'NULL')"
        for column in rule.shows
    )
    return f"'{meaning} Found: ' || {values}"
