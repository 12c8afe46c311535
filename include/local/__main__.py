"""`python -m include.local up|demo|env|clean`: the system on one machine; see `make help`."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType

import typer

from include.local import demo as demonstration
from include.local.folder import FolderInUse
from include.local.growth import Growth
from include.local.postgres import NoUsableAccount, programs_folder
from include.local.progress import Progress
from include.local.supervisor import ProcessFailed
from include.local.system import STATES, System, remove_states, saved_environment

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CHECK_SECONDS = 0.5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def up() -> None:
    """Start the system on its kept data, say where it is, and keep it running until stopped."""
    progress = Progress()
    with suppress(KeyboardInterrupt), System(STATES / "up", progress) as system:
        address, user, password = system.ui
        progress.say(f"\nAirflow   {address}  user {user}  password {password}")
        progress.say(f"Finance   {system.finance_command}")
        progress.say(f"Sandbox   {system.sandbox_url}")
        progress.say(f"Logs      {system.logs}")
        progress.say("\nCtrl-C stops everything; the data is kept for the next start.")
        _watch(system)


@app.command()
def demo() -> None:
    """Start a fresh system, run every pipeline through it, compare the results, and stop it."""
    progress = Progress()
    with System(
        STATES / "demo", progress, is_fresh=True, airflow_settings=demonstration.SETTINGS
    ) as system:
        code = demonstration.run(system, progress)
    raise typer.Exit(code)


@app.command()
def env() -> None:
    """Print the export lines with which a shell works on the system that was started last."""
    variables = saved_environment()
    if variables is None:
        raise typer.Exit(_fail("No system was ever started here. Start one with `make up`."))
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    ours, last = (
        shlex.quote(str(path)) for path in (Path(sys.executable).parent, programs_folder())
    )
    print(f'export PATH={ours}:"$PATH":{last}')


@app.command()
def clean() -> None:
    """Remove what every system of this project has stored."""
    remove_states()


def _watch(system: System) -> None:
    pause = threading.Event()
    with closing(
        Growth(system.sandbox_url, system.sandbox_entries_file, system.sandbox_feed_file)
    ) as growth:
        while not pause.wait(_CHECK_SECONDS):
            system.check()
            growth.go_on()


def _stop_once(_number: int, _frame: FrameType | None) -> None:
    """Stop in order, as for Ctrl-C; a second signal must not cut that short."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def main() -> int:
    """Run one command; its exit code."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop_once)
    try:
        return app(standalone_mode=False) or 0
    except (FolderInUse, NoUsableAccount, ProcessFailed) as error:
        return _fail(str(error))


if __name__ == "__main__":
    sys.exit(main())
