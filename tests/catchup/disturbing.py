"""Catch-ups as chaos plays them: how far the provider goes on and when a run ends, at random."""

from __future__ import annotations

import random

from include.catchup.sources import Source
from include.sandbox.client import Sandbox
from tests.killing import Moment, Worker
from tests.playing import Play, run_tasks
from tests.warehouses import Warehouse

# None, one, a page and one less or more of it, several pages and commits.
_RECORDS = (0, 1, 9, 10, 11, 35)


class DisturbedCatchUp:
    """A source whose provider goes on by some records before each run."""

    def __init__(
        self, source: Source, warehouse: Warehouse, sandbox: Sandbox, draw: random.Random
    ) -> None:
        self._play = Play(source, sandbox, warehouse, keeps_budgets=True)
        self._draw = draw
        self._play.advance(max(_RECORDS))
        # Here, so that the workers need not compile it all again.
        run_tasks(self._play.tasks, warehouse.engine)
        self._play.advance(max(_RECORDS))
        with Worker(warehouse.engine, self._play.tasks) as worker:
            assert worker.wait() == "finished", worker.error()
            points = worker.points()
        self._commits = [point for point in points if point.kind == "commit"]
        self._statements = [point for point in points if point.kind == "statement"]

    def __str__(self) -> str:
        return self._play.source.name

    def make_trouble(self) -> None:
        """The provider goes on by some records, or by none."""
        self._play.advance(self._draw.choice(_RECORDS))

    def moment(self) -> Moment:
        """Any commit or statement; the former as often as the latter, so that each is met."""
        points = self._draw.choice((self._commits, self._statements))
        return Moment(self._draw.choice(("before", "after")), self._draw.choice(points))

    def disturb(self, moment: Moment) -> str | None:
        """Kill a run at `moment`: the point, or None if it ended before."""
        return self._play.kill(moment)

    def wrong(self) -> list[str]:
        """What the checker finds now."""
        return self._play.wrong()

    def wrong_when_left_alone(self) -> list[str]:
        """What the checker finds after a run that nobody disturbs."""
        return self._play.wrong_when_left_alone()
