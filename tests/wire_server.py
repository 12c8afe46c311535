"""A server of raw bytes on a real socket: it plays scripted answers, well formed or not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pause:
    """Nothing is sent for `seconds`, or until the server is closed."""

    seconds: float


@dataclass(frozen=True)
class Close:
    """The connection ends in the regular way."""


@dataclass(frozen=True)
class Reset:
    """The connection ends with a TCP reset."""


Step = bytes | Pause | Close | Reset


def answer(
    status: int = 200,
    body: bytes = b"{}",
    *headers: str,
    content_type: str = "application/json",
) -> list[Step]:
    """A well formed answer that leaves the connection open."""
    lines = [
        f"HTTP/1.1 {status} Said",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return ["\r\n".join([*lines, "", ""]).encode() + body]


def dripped(message: bytes, seconds: float) -> list[Step]:
    """A message sent byte by byte, with a pause of `seconds` after each."""
    steps: list[Step] = []
    for byte in message:
        steps += [bytes([byte]), Pause(seconds)]
    return steps


@dataclass
class WireServer:
    """Plays one script per request, in order; `requests` holds what arrived, `connections` how."""

    base_url: str
    scripts: list[Sequence[Step]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        try:
            while (request := self._request(connection)) is not None:
                self.requests.append(request)
                if not self._play(connection, self.scripts.pop(0) if self.scripts else [Close()]):
                    return
        except OSError:
            return

    def _request(self, connection: socket.socket) -> bytes | None:
        """The next request's head; None when the other side, or the server, is done."""
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            if self.stopping.is_set():
                return None
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                continue
            if not chunk:
                return None
            received += chunk
        return received

    def _play(self, connection: socket.socket, script: Sequence[Step]) -> bool:
        for step in script:
            match step:
                case Pause(seconds):
                    self.stopping.wait(seconds)
                case Close():
                    return False
                case Reset():
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return False
                case bytes():
                    connection.settimeout(5)
                    connection.sendall(step)
                    connection.settimeout(0.05)
        return True


@contextmanager
def wire_server(*scripts: Sequence[Step]) -> Iterator[WireServer]:
    """A server that plays `scripts`, one per request, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = WireServer(f"http://127.0.0.1:{port}/cs2/v1", list(scripts))
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            # Closing a listener does not wake a thread that waits in accept; shutting down does.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)
            assert not thread.is_alive()
