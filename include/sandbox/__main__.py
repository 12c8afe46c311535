"""`python -m include.sandbox`: serves until SIGTERM or Ctrl-C, saying nothing but warnings."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from include.sandbox.app import create_app
from include.sandbox.wire import WireProtocol


def main() -> None:
    """Binds, serves, and keeps the base URL in the ready file for as long as it listens."""
    arguments = _parse_arguments()
    listener = _listen(arguments.host, arguments.port)
    server = _server(arguments.seed, arguments.entries)
    ready_file: Path | None = arguments.ready_file
    host, port = listener.getsockname()[:2]
    # Uvicorn raises the signal again once it has closed everything: that is then a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        if ready_file:
            _write_whole(ready_file, f"http://{host}:{port}\n")
        server.run(sockets=[listener])
    finally:
        if ready_file:
            ready_file.unlink(missing_ok=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m include.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help="gets the base URL once it listens")
    parser.add_argument("--seed", type=int, default=1, help="everything made up follows from it")
    parser.add_argument("--entries", type=int, default=1000, help="length of logs to begin with")
    return parser.parse_args()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=128)
    except OSError as error:
        sys.exit(
            f"sandbox: cannot listen on {host}:{port}: {error.strerror}. Nothing was started. "
            "Choose another --port, or 0 for a free one."
        )
    # Connections inherit it. asyncio sets it only on sockets it has made itself, and without it
    # the second write of each answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _server(seed: int, entries: int) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            create_app(seed, entries),
            http=WireProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            access_log=False,
            # Longer than a test waits between two calls on one connection.
            timeout_keep_alive=300,
            timeout_graceful_shutdown=1,
        )
    )


def _write_whole(path: Path, text: str) -> None:
    """Nobody who waits for the file ever sees half of it."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    main()
