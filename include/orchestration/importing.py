"""Which files of the import folder a run imports, and what becomes of each.

A file whose name begins with that of a stream (`odds88-2026-11-18.ndjson`) holds its messages, one
that begins with `tote` the ids of bets to ask for, and with `prediction` those of markets; any
other holds payouts.  Whoever triggers a run names a file of that folder and no other of the
machine's files: not through `..`, an absolute path or a symbolic link.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import Param
from sqlalchemy import Engine

from include.catchup import files
from include.catchup.bet_files import import_register, is_register
from include.catchup.sources import SOURCES, Source
from include.markets.files import import_markets, is_market_register
from include.markets.queue import MarketsRefused
from include.payouts.importing import import_file
from include.settings import Settings
from include.warehouse.importing import FileRefused, Progress

DONE = "done"

_SETTING = "SETTLEMENTS_IMPORT_FOLDER"
# Read when the module is imported, as the tasks do.
_SETTINGS = Settings()
_PROGRESS_SECONDS = 5.0
_log = logging.getLogger(__name__)


class ImportFolderUnusable(Exception):
    """There is no folder to import from; the message says what to set."""


class FilesRefused(Exception):
    """At least one file stays where it is; the message says which and why."""


class _Refused(Exception):
    """One file stays where it is; the message says why."""


def form_fields() -> dict[str, Param]:
    """The fields of the form, as Airflow shows and validates them; none has to be filled in."""
    return {
        "path": Param(
            None,
            type=["null", "string"],
            minLength=1,
            maxLength=1000,
            title="File",
            description="Its path within the import folder, such as payouts-2026-11-20.csv. Empty: "
            "every file that waits there.",
        ),
        "business_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Business date",
            description="The UTC day of payouts whose line names none; not for other files.",
        ),
    }


def import_each(
    engine: Engine, folder: Path | None, path: str | None, business_date: str | None
) -> dict[str, Any]:
    """Import the file at `path` within `folder`, or every file that waits there; counts by file.

    One that was read to its end moves into `done/` beside it, also if lines of it were rejected or
    quarantined: the findings `lines_rejected` and `records_quarantined` have those.  Raises
    `FilesRefused` at the end if any file stays, and `ImportFolderUnusable` if there is no folder.
    """
    root = _root(folder)
    day = _read_day(business_date)
    imported: dict[str, Any] = {}
    refused: list[str] = []
    for name in [path] if path is not None else _waiting(root):
        try:
            file = _locate(root, name)
            imported[_shown(name)] = _import(engine, file, day)
            _move_away(file)
        except (_Refused, FileRefused, MarketsRefused, OSError) as error:
            refused.append(f"{_shown(name)}: {_reason(error)}")
            _log.warning("%s stays where it is: %s", _shown(name), _reason(error))
    if not imported and not refused:
        _log.info("No file waits in %s.", root)
    if refused:
        done = ", ".join(imported) or "none"
        raise FilesRefused(
            f"{len(refused)} files stay where they are. Imported to their end: {done}. "
            + " ".join(refused)
        )
    return imported


def _root(folder: Path | None) -> Path:
    if folder is None or not folder.is_dir():
        lacking = "is not set" if folder is None else f"names {folder}, which is no folder here"
        raise ImportFolderUnusable(
            f"{_SETTING} {lacking}. Nothing was imported. Set it to a folder that every worker can "
            "read and write, start Airflow's processes anew, then clear this task."
        )
    return folder.resolve()


def _read_day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise FilesRefused(
            f"{text!r} is no day. Nothing was imported. Enter one such as 2026-11-20 as "
            "business_date."
        ) from None
    today = datetime.now(UTC).date()
    if day > today:
        raise FilesRefused(
            f"The business date {day} lies in the future: it is {today} UTC. Nothing was imported. "
            "Trigger the DAG again with the right day."
        )
    return day


def _waiting(root: Path) -> Iterator[str]:
    """Everything that lies in the folder itself; a name that begins with a dot is being written."""
    for path in sorted(root.iterdir()):
        if not path.name.startswith(".") and (path.is_symlink() or not path.is_dir()):
            yield path.name


def _locate(root: Path, name: str) -> Path:
    try:
        path = root / name
        is_within = not Path(name).is_absolute() and path.resolve() == path
        if is_within and path.is_file():
            return path
    except ValueError:
        pass
    raise _Refused(
        "it is no file of the import folder. Enter its path within the folder; links and paths "
        "that lead out of it are refused."
    )


def _import(engine: Engine, file: Path, day: date | None) -> dict[str, Any]:
    before = file.stat()
    if is_register(file):
        told = _import_register(engine, file)
    elif is_market_register(file):
        told = dict(import_markets(engine, file))
    elif (source := _source_of(file)) is not None:
        told = _import_messages(engine, source, file)
    else:
        told = _import_payouts(engine, file, day)
    after = file.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _Refused(
            "it was changed while it was read. What was read is imported. Trigger the DAG again "
            "when it is complete: nothing is entered twice."
        )
    return told


def _source_of(file: Path) -> Source | None:
    """The stream whose messages the file holds; None if it holds payouts."""
    sources = SOURCES.values()
    named = files.source_named(file, sources)
    if named is None and (held := files.source_recognized(file, sources)) is not None:
        raise _Refused(
            f"it holds messages of {held.name}, which its name does not say. Nothing of it was "
            f"imported. Rename it so that it begins with {held.name} and ends with .ndjson, then "
            "trigger the DAG again."
        )
    return named


def _import_payouts(engine: Engine, file: Path, day: date | None) -> dict[str, Any]:
    imported = import_file(engine, file, day, _progress(file).report)
    if imported.rejected:
        _log.warning(
            "%s: %d lines were rejected. Each is in wallet.rejected_line with its reason; the "
            "finding lines_rejected says how to go on.",
            *(_shown(file.name), imported.rejected),
        )
    return {name: count for name, count in asdict(imported).items() if name != "position"}


def _import_register(engine: Engine, file: Path) -> dict[str, Any]:
    imported = import_register(engine, file, _progress(file).report)
    if imported.rejected:
        _log.warning(
            "%s: %d lines were rejected. Each is in tote.rejected_line with its reason; the "
            "finding lines_rejected says how to go on.",
            *(_shown(file.name), imported.rejected),
        )
    return {name: count for name, count in asdict(imported).items() if name != "position"}


def _import_messages(engine: Engine, source: Source, file: Path) -> dict[str, Any]:
    report = _progress(file).report
    imported = files.import_file(engine, source, file, _SETTINGS, report)
    if imported.broken:
        _log.warning(
            "%s: %d lines are no message of %s. They are quarantined with their numbers; the "
            "finding records_quarantined will say how to go on.",
            *(_shown(file.name), imported.broken, source.name),
        )
    steps = files.next_steps(source, imported)
    for step in steps:
        _log.info("%s: %s", _shown(file.name), step)
    return {**files.counts(imported), "next": steps}


def _move_away(file: Path) -> None:
    """Into `done/` beside it, never over another file there; what lies there already stays."""
    if file.parent.name == DONE:
        return
    done = file.parent / DONE
    try:
        done.mkdir(exist_ok=True)
        target = done / file.name
        if target.exists():
            # Before all that its name ends with, which says what it holds.
            name, dot, ending = file.name.partition(".")
            target = done / f"{name}.{time.time_ns()}{dot}{ending}"
        file.rename(target)
    except OSError as error:
        raise _Refused(
            f"it is imported, but cannot be moved into {DONE}/ ({error.strerror}). Give Airflow's "
            "user the right to write the folder, or move it by hand."
        ) from None


def _shown(name: str) -> str:
    # A name that is no UTF-8 can be neither logged nor stored as it is.
    return name.encode("utf-8", "replace").decode()


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def _progress(file: Path) -> Progress:
    """What says in the log how far a file is."""
    name = _shown(file.name)
    return Progress(
        lambda share, told: f"{name}: {100 * share:.0f} %, {told}", _log.info, _PROGRESS_SECONDS
    )
