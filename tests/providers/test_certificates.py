"""A certificate that is not to be trusted ends every way to a provider, and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from include.providers import deadlines
from include.providers.deadlines import now
from include.providers.errors import KEPT, NOTHING_SENT, Fatal
from include.providers.http import Client
from include.providers.streams import open_socket
from include.settings import Settings
from tests.providers.certificates import LOCAL, SOMEBODY_ELSE, made_certificate
from tests.providers.test_streams import peer

KEY = "tt_live_5f1c2e7a"
# Were it tried again, whoever asks would have to be told so.
SETTINGS = Settings(call_deadline_seconds=10, read_attempts=3)


@dataclass(frozen=True)
class Sort:
    """A certificate: made out to whom, for how long, vouched for or not; and what is wrong."""

    wrong: str
    name: x509.GeneralName = LOCAL
    ends_in: timedelta = timedelta(hours=1)
    is_vouched_for: bool = True


SORTS = {
    "signed by itself": Sort("self-signed certificate", is_vouched_for=False),
    "of another host": Sort("certificate is not valid for '127.0.0.1'", SOMEBODY_ELSE),
    "expired": Sort("certificate has expired", ends_in=-timedelta(hours=1)),
}


def client_of(address: str) -> Client:
    def sleep(_seconds: float) -> None:
        pytest.fail("it is asked again")

    base_url = address.replace("wss://", "https://").partition("?")[0]
    headers = {"X-API-Key": KEY}
    return Client("ticktock", base_url, secret_headers=headers, settings=SETTINGS, sleep=sleep)


def read(address: str) -> None:
    with client_of(address) as client:
        client.get("/settlements")


def write(address: str) -> None:
    with client_of(address) as client:
        client.post("/settle", b"{}", auth=httpx.Auth(), ends_at=now() + 10)


def listen(address: str) -> None:
    open_socket("ticktock", address, {"X-API-Key": KEY}, SETTINGS)


WAYS = {read: KEPT, write: NOTHING_SENT, listen: KEPT}


@pytest.mark.parametrize("sort", SORTS.values(), ids=SORTS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_who_shows_it_is_told_nothing_and_a_person_what_to_correct(
    way: Callable[[str], None], sort: Sort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = made_certificate(tmp_path / "shown.pem", sort.name, sort.ends_in)
    if sort.is_vouched_for:
        monkeypatch.setattr(deadlines, "_TLS", certificate.trusting())
    with (
        peer(lambda one: one.upgrade(), certificate.server()) as place,
        pytest.raises(Fatal) as caught,
    ):
        way(place.url)
    error = caught.value
    assert error.fault == "certificate"
    assert error.happened.startswith("The certificate that 127.0.0.1 shows is not to be trusted")
    assert sort.wrong in error.happened
    assert error.happened.endswith(WAYS[way])
    assert "the Airflow connection `ticktock` (`base_url` in extra)" in error.next_step
    assert KEY not in str(error)
    assert place.peers == []
