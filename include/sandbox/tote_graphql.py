"""tote's GraphQL: the schema of the pipelines' own question, answered within tote's limits."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from ariadne import QueryType, ScalarType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLHTTPHandler
from fastapi import Request, Response
from graphql import (
    DocumentNode,
    Executor,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    parse,
    validate,
)

from include.sandbox.timeline import SECOND
from include.sandbox.tote_bets import Bet, State
from include.sandbox.tote_book import Book

# The one description of tote's API that there is, also for the pipelines.
_SCHEMA = Path(__file__).parents[1] / "providers" / "tote" / "schema.graphql"
_PAGE_LIMIT = 250
_PERIOD_LIMIT = timedelta(days=90)
_WINDOW = timedelta(days=30)
_BETS_AT_A_TIME = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What is wrong with a question is told to who asked it, and to nobody else.
_QUIET = logging.getLogger("sandbox.tote")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class Whole(dict[str, Any]):
    """An object all of whose fields are at hand, so that none of them has to be resolved."""


class WholeExecutor(Executor[Any]):
    """Takes what was asked for out of a `Whole` directly.

    A page of bets has ten thousand fields, and to resolve each of them by the rules takes a fifth
    of a second.
    """

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Any,
        fields: Any,
        position: Any,
    ) -> Any:
        """The fields of one object."""
        plan = self._plan(parent_type, fields) if isinstance(source_value, Whole) else None
        if plan is not None:
            return _taken(source_value, plan)
        return super().execute_fields(parent_type, source_value, path, fields, position)

    def _plan(self, kind: GraphQLObjectType, fields: Any) -> Plan | None:
        """What to take out of every object that this is asked of; made once for all of them.

        None if something is asked for that is not in it.
        """
        made: dict[int, tuple[Any, Plan | None]] = self.__dict__.setdefault("_plans", {})
        if id(fields) not in made:
            # Kept together with the fields, so that no others can come to have their id.
            made[id(fields)] = (fields, self._new_plan(kind, fields))
        return made[id(fields)][1]

    def _new_plan(self, kind: GraphQLObjectType, fields: Any) -> Plan | None:
        plan: list[tuple[str, str, Plan | None]] = []
        for name, details in fields.items():
            field, inner = details[0].node.name.value, None
            if field not in kind.fields:
                return None
            inner_kind = get_named_type(kind.fields[field].type)
            if isinstance(inner_kind, GraphQLObjectType):
                inner = self._plan(inner_kind, self.collect_subfields(inner_kind, details)[0])
                if inner is None:
                    return None
            plan.append((name, field, inner))
        return tuple(plan)


Plan: TypeAlias = tuple[tuple[str, str, "Plan | None"], ...]


def _taken(value: dict[str, Any], plan: Plan) -> dict[str, Any]:
    return {
        name: value[field] if inner is None or value[field] is None else _taken(value[field], inner)
        for name, field, inner in plan
    }


class Asked:
    """What was asked of GraphQL, counted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.largest_page = 0

    def count(self, what: str, bets: int = 0) -> None:
        """A question of this kind, and how many bets it was answered with."""
        self._counts[what] += 1
        self._counts["bets_told"] += bets
        self.largest_page = max(self.largest_page, bets)

    def report(self) -> dict[str, int]:
        """How often it was asked for named bets, for a period, or wrongly; and bets told in all."""
        names = ("by_id", "by_period", "refused", "bets_told")
        return {name: self._counts[name] for name in names} | {"largest_page": self.largest_page}


class Questions:
    """Answers `bets` out of a book."""

    def __init__(self, book: Book) -> None:
        self.asked = Asked()
        self._book = book
        self._totals: dict[Any, asyncio.Task[dict[str, list[Whole]]]] = {}

    def bets(self, _: Any, info: Any, **arguments: Any) -> dict[str, Any]:
        """The connection that a question asks for. GraphQLError if it asks for too much."""
        try:
            first = _page_size(arguments.get("first"))
            is_by_id = any(arguments.get(name) is not None for name in ("id", "toteId", "toteIds"))
            numbers = self._named(arguments) if is_by_id else self._period(arguments)
            start = _behind(numbers, arguments.get("after"))
        except GraphQLError:
            self.asked.count("refused")
            raise
        page = numbers[start : start + first]
        self.asked.count("by_id" if is_by_id else "by_period", len(page))
        return self._connection(numbers, start, page)

    def _named(self, arguments: dict[str, Any]) -> Sequence[int]:
        """The bets that are named and can be seen, newest first."""
        ids = list(arguments.get("toteIds") or ())
        ids += [arguments["toteId"]] if arguments.get("toteId") else []
        numbers = {self._book.number(tote_id) for tote_id in ids}
        if name := arguments.get("id"):
            digits = str(name).removeprefix("bet-")
            numbers.add(int(digits) if digits.isdecimal() else None)
        head = self._book.head(self._lag)
        return sorted({each for each in numbers if each is not None and each < head}, reverse=True)

    def _period(self, arguments: dict[str, Any]) -> Sequence[int]:
        """The bets of a period that can be seen, newest first."""
        since, until = self._bounds(arguments.get("since"), arguments.get("until"))
        if until - since > _PERIOD_LIMIT:
            raise _refusal(f"The range exceeds {_PERIOD_LIMIT.days} days.", "RANGE_TOO_LONG")
        end = _micros(until) + self._book.settings.until_included
        first, behind = self._book.first_from(_micros(since)), self._book.first_from(end)
        behind = min(behind, self._book.head(self._lag))
        return range(behind - 1, first - 1, -1)

    def _bounds(self, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
        if since and until:
            return since, until
        if since:
            return since, since + _WINDOW
        if until:
            return until - _WINDOW, until
        now = _EPOCH + timedelta(microseconds=self._book.now)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return today, today + timedelta(days=1)

    @property
    def _lag(self) -> int:
        return round(self._book.settings.graphql_lags_seconds * SECOND)

    def _connection(
        self, numbers: Sequence[int], start: int, page: Sequence[int]
    ) -> dict[str, Any]:
        def nodes(_: Any = None) -> list[Whole]:
            return [self._node(number) for number in page]

        def edges(_: Any) -> list[dict[str, Any]]:
            told = zip(page, nodes(), strict=True)
            return [{"cursor": _cursor(number), "node": node} for number, node in told]

        def total(name: str) -> Callable[[Any], Any]:
            async def of_all(_: Any) -> list[Whole]:
                return (await self._totals_of(numbers))[name]

            return of_all

        return {
            "pageInfo": Whole(
                startCursor=_cursor(page[0]) if page else None,
                endCursor=_cursor(page[-1]) if page else None,
                hasNextPage=start + len(page) < len(numbers),
                hasPreviousPage=start > 0,
            ),
            "totalCount": len(numbers),
            "totalStakes": total("stakes"),
            "totalReturns": total("returns"),
            "totalRefunds": total("refunds"),
            "edges": edges,
            "nodes": nodes,
        }

    def _node(self, number: int) -> Whole:
        bet = self._book.bet(number)
        return _node(bet, self._book.state(bet, self._lag))

    async def _totals_of(self, numbers: Sequence[int]) -> dict[str, list[Whole]]:
        """Sums over all pages; computed once for as long as nothing happens."""
        key = (self._book.news, self._lag, numbers if isinstance(numbers, range) else (*numbers,))
        if key not in self._totals:
            self._totals = {
                known: task for known, task in self._totals.items() if known[0] is key[0]
            }
            self._totals[key] = asyncio.create_task(self._sums(numbers))
        return await self._totals[key]

    async def _sums(self, numbers: Sequence[int]) -> dict[str, list[Whole]]:
        sums: dict[str, Counter[str]] = {
            "stakes": Counter(),
            "returns": Counter(),
            "refunds": Counter(),
        }
        lag = self._lag
        for walked, number in enumerate(numbers):
            bet = self._book.bet(number)
            told = self._book.state(bet, lag)
            sums["stakes"][bet.currency] += bet.stake
            sums["returns"][bet.currency] += told.returned or 0
            sums["refunds"][bet.currency] += told.refund or 0
            if walked % _BETS_AT_A_TIME == _BETS_AT_A_TIME - 1:
                await asyncio.sleep(0)
        return {
            name: [_money(amount, currency) for currency, amount in sorted(each.items())]
            for name, each in sums.items()
        }


def read_schema() -> str:
    """The schema as it is written."""
    return _SCHEMA.read_text(encoding="utf-8")


def schema_of(questions: Callable[[], Questions]) -> GraphQLSchema:
    """The schema with what answers it: the questions of the moment."""
    query = QueryType()
    query.set_field("bets", lambda *context, **asked: questions().bets(*context, **asked))
    return make_executable_schema(read_schema(), query, ScalarType("DateTime", value_parser=_time))


def graphql_app(schema: GraphQLSchema) -> GraphQL:
    """The endpoint that answers by a schema."""
    return GraphQL(
        schema,
        query_parser=lambda _, data: _document(data["query"]),
        query_validator=_validated,
        execution_context_class=WholeExecutor,
        http_handler=_Handler(),
        logger=_QUIET,
    )


class _Handler(GraphQLHTTPHandler):
    """Answers in JSON that may hold exact numbers."""

    async def create_json_response(
        self, request: Request, result: dict[str, Any], success: bool
    ) -> Response:
        return Response(
            msgspec.json.encode(result), 200 if success else 400, media_type="application/json"
        )


@lru_cache(maxsize=64)
def _document(query: str) -> DocumentNode:
    return parse(query)


def _validated(
    schema: GraphQLSchema, document_ast: DocumentNode, *unused: Any, **also_unused: Any
) -> list[GraphQLError]:
    """What is wrong with a question; the same one is asked again and again."""
    return _problems(schema, document_ast)


@lru_cache(maxsize=64)
def _problems(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    return validate(schema, document)


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError("a DateTime has an offset")
    return moment.astimezone(UTC)


def _page_size(first: int | None) -> int:
    if first is None:
        return _PAGE_LIMIT
    if first < 1:
        raise _refusal("At least one item has to be asked for.", "PAGE_TOO_SMALL")
    if first > _PAGE_LIMIT:
        raise _refusal(
            f"The maximum allowed items per page, {_PAGE_LIMIT}, were exceeded.", "PAGE_TOO_LARGE"
        )
    return first


def _behind(numbers: Sequence[int], after: str | None) -> int:
    """The first place of the list, newest first, that lies behind a cursor."""
    if after is None:
        return 0
    try:
        cursor = int(base64.b64decode(after, validate=True)) - 1
    except (binascii.Error, ValueError):
        raise _refusal("The cursor is not one of ours.", "BAD_CURSOR") from None
    if isinstance(numbers, range):
        return max(0, min(len(numbers), numbers.start - cursor + 1)) if numbers else 0
    return sum(number >= cursor for number in numbers)


def _cursor(number: int) -> str:
    return base64.b64encode(str(number + 1).encode()).decode()


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _refusal(message: str, code: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code})


def _node(bet: Bet, told: State) -> Whole:
    returns = None
    if told.total is not None:
        returns = {
            "totalAmount": _money(told.total, bet.currency),
            "returnAmount": _money(told.returned or 0, bet.currency),
            "refundAmount": _money(told.refund or 0, bet.currency),
            "enhancementAmount": _money(told.enhancement or 0, bet.currency),
        }
    stake = _money(bet.stake, bet.currency)
    return Whole(
        id=f"bet-{bet.number}",
        toteId=bet.tote_id,
        placement={"status": told.placement, "stake": stake},
        resulting={"status": told.resulting, "returns": returns},
        settlement={"status": told.settlement},
        ticket={"id": f"ticket-{bet.number}", "toteId": f"{bet.tote_id[16:]}{bet.tote_id[:16]}"},
    )


def _money(amount: int, currency: str) -> Whole:
    whole, cents = divmod(amount, 100)
    return Whole(
        currency={"code": currency},
        # As JavaScript writes it: no point without anything behind it.
        decimalAmount=amount / 100 if cents else whole,
        stringAmount=f"{whole}.{cents:02}",
        minorUnitsTotalAmount=amount,
    )
