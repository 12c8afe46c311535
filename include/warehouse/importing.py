"""What imports of files have in common: how far one is, and what is said of one that breaks off."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from include.warehouse.database import open_engine


class FileRefused(Exception):
    """The file is not imported, or not to its end; the message says why and what to change."""


class ImportedSoFar(Protocol):
    """What became of a file's lines until now; `position` of `size` bytes of the file are done."""

    size: int
    position: int

    @property
    def gist(self) -> tuple[int, str]:
        """How many lines were read, and what of them is to be known first."""


class Progress:
    """Says how far an import is, at most once in `seconds`.

    `line` makes what `say` is given of the share that is done (0 to 1) and of the lines in words.
    """

    def __init__(
        self, line: Callable[[float, str], str], say: Callable[[str], None], seconds: float
    ) -> None:
        self._line = line
        self._say = say
        self._seconds = seconds
        self._began = self._said = time.monotonic()
        self.last_line = "Nothing was committed."

    def report(self, imported: ImportedSoFar) -> None:
        """To be called after every commit."""
        now = time.monotonic()
        lines, gist = imported.gist
        rate = lines / max(now - self._began, 0.001)
        self.last_line = self._line(
            imported.position / max(imported.size, 1),
            f"{lines} lines, {rate:.0f} a second, {gist}",
        )
        if now - self._said >= self._seconds or imported.position >= imported.size:
            self._say(self.last_line)
            self._said = now


def import_by_command(url: str, carry_out: Callable[[Engine, Progress], int], promise: str) -> int:
    """Carry out an import in the warehouse at `url`, telling how far it is on standard error.

    Its exit code, or 2 with the reason if it could not be carried out to its end; `promise` is what
    makes it safe to repeat.
    """
    engine = open_engine(url)
    progress = Progress(lambda share, told: f"{share:4.0%}  {told}", _tell, seconds=1)
    try:
        return carry_out(engine, progress)
    except (FileRefused, OSError) as error:
        _tell(str(error))
        return 2
    except DBAPIError as error:
        _tell(
            f"The warehouse stopped the import: {error.orig}\n{progress.last_line}\n"
            f"What was committed stays. Import the file again: {promise}."
        )
        return 2
    finally:
        engine.dispose()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
