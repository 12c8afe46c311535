"""Settings: what the environment says counts, and what it says wrongly is named."""

from __future__ import annotations

import pytest

from include.settings import Settings, SettingsWrong


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = Settings()
    for variable, _, _ in Settings.variables():
        monkeypatch.setenv(variable, "")
    assert Settings() == unset
    assert Settings().import_folder is None


def test_white_space_around_an_id_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENTS_PREDICTION_OPERATOR_ID", " us ")
    monkeypatch.setenv("SETTLEMENTS_PREDICTION_DEFAULT_CURRENCY", "mBTC")
    assert Settings().prediction_operator_id == "us"
    assert Settings().prediction_default_currency == "mBTC"


def test_none_unsets_what_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENTS_ODDS88_AUDIT_HOUR", "none")
    assert Settings().odds88_audit_hour is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"SETTLEMENTS_ODDS88_PAYOUT_UNIT": "mayor"},
            "SETTLEMENTS_ODDS88_PAYOUT_UNIT is 'mayor'. Input should be 'major' or 'minor'.",
        ),
        (
            {"SETTLEMENTS_TOTE_PAGE_LIMIT": "251"},
            "SETTLEMENTS_TOTE_PAGE_LIMIT is '251'. Input should be less than or equal to 250.",
        ),
        (
            {"SETTLEMENTS_WALLET_WINDOWS": "none"},
            "SETTLEMENTS_WALLET_WINDOWS is 'none'. Input should be a valid integer.",
        ),
        (
            {"SETTLEMENTS_WALLET_ITEM_CODES": "{RS_ERROR_X: final}"},
            "SETTLEMENTS_WALLET_ITEM_CODES is '{RS_ERROR_X: final}'. It should be JSON (",
        ),
        (
            {"SETTLEMENTS_WALLET_ITEM_CODES": '{"RS_ERROR_X": "lost"}'},
            "is '{\"RS_ERROR_X\": \"lost\"}' (at RS_ERROR_X). Input should be 'ok', 'final', ",
        ),
        *(
            ({f"SETTLEMENTS_PREDICTION_{name}": value}, f"SETTLEMENTS_PREDICTION_{name} is ")
            for name, value in (
                ("DEFAULT_CURRENCY", "usd"),
                ("OPERATOR_ID", " "),
                ("LOOK_SECONDS", "inf"),
                ("RETRY_ATTEMPTS", "40"),
                ("RETRY_DELAY_SECONDS", "1e300"),
                ("STUCK_SECONDS", "nan"),
                ("RELOOK_DAYS", "1e7"),
                ("UNCONFIRMED_DAYS", "inf"),
            )
        ),
        (
            {"SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY": "EUR"},
            "- SETTLEMENTS_ODDS88_RATE_BASE_CURRENCY and SETTLEMENTS_ODDS88_RATE_DIRECTION go "
            "together: set both, or neither.",
        ),
        (
            {"SETTLEMENTS_STREAM_OVERLAP_SECONDS": "255601"},
            "SETTLEMENTS_STREAM_OVERLAP_SECONDS is '255601'. Input should be less than or equal to "
            "255600.",
        ),
        (
            {"SETTLEMENTS_LAND_TIME_LIMIT_SECONDS": "inf"},
            "SETTLEMENTS_LAND_TIME_LIMIT_SECONDS is 'inf'. Input should be a finite number.",
        ),
        (
            {"SETTLEMENTS_TOTE_OPEN_DAYS": "3651"},
            "SETTLEMENTS_TOTE_OPEN_DAYS is '3651'. No time is longer than ten years here.",
        ),
        (
            {"SETTLEMENTS_ODDS88_PAYOUT_UNITS": "minor"},
            "SETTLEMENTS_ODDS88_PAYOUT_UNITS is no setting. Is SETTLEMENTS_ODDS88_PAYOUT_UNIT "
            "meant?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named_with_what_to_do(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsWrong) as caught:
        Settings()
    message = str(caught.value)
    assert told in message
    assert "`.env`, then `docker compose up --detach`" in message


@pytest.mark.parametrize(
    "name", [n for n, f in Settings.model_fields.items() if f.annotation is float]
)
@pytest.mark.parametrize("value", ["inf", "nan", "1e12"])
def test_no_number_is_endless(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SETTLEMENTS_{name.upper()}", value)
    with pytest.raises(SettingsWrong, match=f"SETTLEMENTS_{name.upper()} is '{value}'"):
        Settings()


@pytest.mark.parametrize(
    "variable",
    [
        "SETTLEMENTS_WALLET_WINDOW_SECONDS",
        "SETTLEMENTS_WALLET_LEASE_SECONDS",
        "SETTLEMENTS_WALLET_RESEND_DELAY_SECONDS",
        "SETTLEMENTS_WALLET_DEADLINE_SECONDS",
    ],
)
@pytest.mark.parametrize("seconds", ["inf", "nan", "1e9"])
def test_nothing_of_the_wallets_lasts_for_ever(
    variable: str, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, seconds)
    with pytest.raises(SettingsWrong, match=f"{variable} is '{seconds}'"):
        Settings()


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ('{"RS_OK": "final"}', "RS_OK means that a payout is booked, and nothing else."),
        ('{"RS_ERROR_X": "ok"}', "RS_ERROR_X is an error: only RS_ERROR_DUPLICATE_TRANSACTION"),
        ('{" RS_ERROR_X": "final"}', "' RS_ERROR_X' is no code: write it exactly"),
        ('{"": "final"}', "'' is no code: write it exactly"),
    ],
)
def test_what_a_code_cannot_mean_is_refused(
    codes: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTLEMENTS_WALLET_ITEM_CODES", codes)
    with pytest.raises(SettingsWrong) as caught:
        Settings()
    assert told in str(caught.value)


def test_a_code_of_any_form_may_mean_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of the wallet's codes is not public."""
    codes = '{"E{limit}": "final", "FINE": "ok", "RS_ERROR_DUPLICATE_TRANSACTION": "ok"}'
    monkeypatch.setenv("SETTLEMENTS_WALLET_ITEM_CODES", codes)
    assert len(Settings().wallet_item_codes) == 3


def test_all_that_is_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTLEMENTS_WALLET_WINDOWS", "0")
    monkeypatch.setenv("SETTLEMENTS_TOTE_OPEN_DAYS", "-1")
    with pytest.raises(SettingsWrong, match=r"WALLET_WINDOWS is '0'(.|\n)*TOTE_OPEN_DAYS is '-1'"):
        Settings()


def test_the_server_of_make_up_is_not_taken_for_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from include.local.system import SERVER_VARIABLE

    monkeypatch.setenv(SERVER_VARIABLE, "postgresql://localhost/postgres")
    assert Settings() == Settings(call_deadline_seconds=30)
