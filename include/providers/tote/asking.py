"""Asking tote for bets by GraphQL, and what its errors mean."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from include.providers.documented import UNREADABLE
from include.providers.errors import KEPT, WAIT_AND_SEE, Fatal, Retriable
from include.providers.http import Answer, Client
from include.providers.tote.documents import PROVIDER
from include.settings import Settings

PAGE_LIMIT = 250
PERIOD_LIMIT = timedelta(days=90)
QUERY = (Path(__file__).parent / "bets.graphql").read_text(encoding="utf-8")
CREDENTIALS = (
    "What counts is the password of the Airflow connection `tote`, sent as "
    "SETTLEMENTS_TOTE_AUTHORIZATION says: as an `Api-Key` or as a `Bearer` token."
)
MEANINGS = {
    400: "It may not know a field or an argument of our question: include/providers/"
    "tote/bets.graphql.",
    401: CREDENTIALS,
    403: CREDENTIALS,
}
# Codes in `errors`, as servers of this kind spell them.
_AUTHORIZATION_CODES = frozenset(
    {"AUTH_NOT_AUTHENTICATED", "AUTH_NOT_AUTHORIZED", "FORBIDDEN", "UNAUTHENTICATED"}
)
_QUESTION_CODES = frozenset({"BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"})


def authorization(key: str, settings: Settings) -> dict[str, str]:
    """The header that says who asks, on HTTP and on the socket's handshake; a secret.

    Without a key it is empty, which no client sends.
    """
    return {"Authorization": f"{settings.tote_authorization} {key}" if key.strip() else ""}


def open_client(base_url: str, key: str, settings: Settings) -> Client:
    """A client for the bets at `base_url`, for one thread; `Fatal` if it cannot be used."""
    client = Client(
        PROVIDER,
        base_url.rstrip("/") + settings.tote_query_path,
        secret_headers=authorization(key, settings),
        settings=settings,
        meanings=MEANINGS,
    )
    # An answer may repeat the key without the word before it.
    client.hide(key)
    return client


def fetch_bets(client: Client, tote_ids: Sequence[str]) -> Answer:
    """These bets, 1 to 250 of them, as they stand now; one that tote does not know is left out.

    An answer that holds `errors` is asked for again while that may help, then raised: `Fatal` if
    tote refuses the key or the question, else `Retriable`.  Unless the key is refused, its `status`
    is 200: tote did answer.
    """
    if not 0 < len(tote_ids) <= PAGE_LIMIT:
        # None at all would ask for today's bets.
        raise ValueError(f"{len(tote_ids)} bets asked for at once, and not 1 to {PAGE_LIMIT}")
    return _ask(client, {"toteIds": list(tote_ids), "first": PAGE_LIMIT})


def fetch_period(
    client: Client,
    since: datetime,
    until: datetime,
    after: str | None,
    *,
    first: int = PAGE_LIMIT,
) -> Answer:
    """One page of the bets made in a period of at most 90 days, newest first; as `fetch_bets`.

    `after` is the cursor that `next_cursor` gave of the page before, None for the newest bets.
    """
    if not timedelta(0) < until - since <= PERIOD_LIMIT:
        raise ValueError(f"the period from {since} to {until} is none of up to {PERIOD_LIMIT}")
    if not 0 < first <= PAGE_LIMIT:
        raise ValueError(f"{first} bets asked for a page, and not 1 to {PAGE_LIMIT}")
    bounds = {"since": _written(since), "until": _written(until)}
    cursor = {} if after is None else {"after": after}
    return _ask(client, {**bounds, "first": first, **cursor})


def _written(moment: datetime) -> str:
    """The moment in UTC; raises ValueError for one without its offset."""
    if moment.tzinfo is None:
        raise ValueError("a bound of a period needs its offset from UTC")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _ask(client: Client, variables: dict[str, Any]) -> Answer:
    question = {"query": QUERY, "operationName": "GetBets", "variables": variables}
    return client.query("", msgspec.json.encode(question), check=partial(_check_errors, client))


class _Error(msgspec.Struct, frozen=True):
    message: Any = None
    path: Any = None
    locations: Any = None
    extensions: Any = None

    @property
    def code(self) -> str | None:
        """The machine's word for it."""
        code = self.extensions.get("code") if isinstance(self.extensions, dict) else None
        return code if isinstance(code, str) else None


class _Outcome(msgspec.Struct, frozen=True):
    errors: list[_Error] | None = None
    data: Any = None


_OUTCOME = msgspec.json.Decoder(_Outcome)


def _check_errors(client: Client, answer: Answer) -> None:
    """Raise for an answer that holds `errors`; one that cannot be read is left to `read_page`."""
    if b'"errors"' not in answer.body:
        return
    try:
        outcome = _OUTCOME.decode(answer.body)
    except UNREADABLE:
        return
    if outcome.errors:
        raise _failure(client, answer.url_path, outcome.errors, has_data=outcome.data is not None)


def _failure(
    client: Client, url_path: str, errors: list[_Error], *, has_data: bool
) -> Fatal | Retriable:
    codes = {error.code for error in errors}
    if codes & _AUTHORIZATION_CODES:
        return Fatal(
            PROVIDER,
            f"It did not accept the key, though it answered {url_path} with 200. {KEPT}",
            f"{CREDENTIALS} Correct what is wrong, then clear this task.",
            fault="key",
        )
    said = client.quote("; ".join(str(error.message) for error in errors[:3]))
    happened = f"It answered {url_path} with {len(errors)} error(s): {said}. {KEPT}"
    # By the specification an error with a place in the question and none in the answer, which
    # then has no data, is about the question.
    is_ours = not has_data and any(error.locations and not error.path for error in errors)
    if codes & _QUESTION_CODES or is_ours:
        return Fatal(
            PROVIDER,
            happened,
            f"Ask {PROVIDER} whether its API has changed, correct "
            "include/providers/tote/bets.graphql accordingly, then clear this task.",
            status=HTTPStatus.OK,
        )
    next_step = WAIT_AND_SEE.format(provider=PROVIDER)
    return Retriable(PROVIDER, happened, next_step, status=HTTPStatus.OK)
