"""The folder in which a local system keeps its state: who holds it, and its generated secrets."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import IO


class FolderInUse(Exception):
    """Another process already runs from this folder; nothing was changed."""


def lock_folder(folder: Path) -> IO[str]:
    """Hold `folder` until the returned file is closed or this process ends, however it ends.

    Creates the folder, readable by its owner alone.  Raises `FolderInUse`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise FolderInUse(
            f"Process {holder} already runs from {folder}. Nothing was changed. Stop it first."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


class Secrets:
    """Secrets generated on first use and kept in one file that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, str] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        )

    def get(self, name: str, random_bytes: int = 18) -> str:
        """The secret called `name`; the first time, drawn from that many bytes of randomness."""
        if name not in self._values:
            self._values[name] = secrets.token_urlsafe(random_bytes)
            write_private(self._path, json.dumps(self._values, indent=2))
        return self._values[name]


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
