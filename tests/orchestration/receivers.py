"""What takes alerts in the tests: a webhook and a mail server, both real and on this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """A webhook that keeps what it gets; `status` is what it answers."""

    url: str
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def running_webhook() -> Iterator[Webhook]:
    """A webhook on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            webhook.messages.append(json.loads(body))
            webhook.authorizations.append(self.headers["Authorization"])
            webhook.paths.append(self.path)
            self.send_response(webhook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        webhook = Webhook(f"http://127.0.0.1:{server.server_port}/hook/secret-path")
        with _serving(server):
            yield webhook


@contextmanager
def running_trickle(first: bytes) -> Iterator[str]:
    """The address of a webhook that answers `first`, and then a byte now and again for ever."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.sendall(first)
                while not is_over.wait(0.05):
                    self.request.sendall(b"x")

    is_over = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        finally:
            is_over.set()


@dataclass
class MailServer:
    """A mail server that keeps what it gets."""

    port: int
    mails: list[str] = field(default_factory=list)


@contextmanager
def running_mail_server() -> Iterator[MailServer]:
    """A mail server on a free port, speaking as much SMTP as sending a mail needs."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 ready")
            for line in self.rfile:
                command = line.strip().upper()
                if command == b"DATA":
                    self._say("354 go on")
                    mail_server.mails.append(self._read_mail())
                    self._say("250 taken")
                elif command == b"QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 fine")

        def _read_mail(self) -> str:
            lines = []
            for line in self.rfile:
                if line == b".\r\n":
                    break
                lines.append(line)
            return b"".join(lines).decode()

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        mail_server = MailServer(port=server.server_address[1])
        with _serving(server):
            yield mail_server


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
