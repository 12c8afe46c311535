"""What a person sees while a system starts, works and stops: one line a step, with its seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console

_LOG_COLUMNS = 140


class Progress:
    """Prints steps to standard output; on a terminal, the step under way is shown as well."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            # A log has no width; tables in it are not to be cut to eighty columns.
            self.console.width = _LOG_COLUMNS

    def say(self, text: str = "") -> None:
        """Print `text` as it is."""
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step: printed with its duration once it is done, or as failed."""
        began = time.monotonic()
        under_way = self.console.status(name) if self.console.is_terminal else nullcontext()
        outcome = "failed"
        try:
            with under_way:
                yield
            outcome = ""
        finally:
            self.say(f"{time.monotonic() - began:6.1f} s  {name} {outcome}".rstrip())
