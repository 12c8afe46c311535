"""Deadlines: one for everything that a call does, from the look-up of a name to the last byte.

Whoever hands a deadline to a call, or compares one, reads it on the clock of `now`.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds on the clock by which deadlines are kept: it goes on while the machine is suspended,
    when that of `time.monotonic` stands still.
    """
    return time.clock_gettime(_CLOCK)


class Call:
    """One call on the wire: when it must be over, by `now`, and whether it began."""

    __slots__ = ("_ends_at", "request_started")

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self.request_started = False

    def remaining(self, kind: type[httpcore.TimeoutException]) -> float:
        """Seconds left, above zero; raises `kind` when there are none."""
        seconds = self._ends_at - now()
        if seconds <= 0:
            raise kind("the deadline of the whole call has passed")
        return seconds


def dial(host: str, port: int, *, is_encrypted: bool, ends_at: float) -> httpcore.NetworkStream:
    """A connection on which all operations together end at `ends_at`, by `now`.

    It never goes through a proxy.  Raises `httpcore.ConnectTimeout` and `httpcore.ConnectError`,
    the latter because of an `ssl.SSLCertVerificationError` if the certificate is not trusted.
    """
    backend = DeadlineBackend()
    backend.call = Call(ends_at)
    stream = backend.connect_tcp(host, port)
    if not is_encrypted:
        return stream
    try:
        return stream.start_tls(_TLS, host)
    except BaseException:
        stream.close()
        raise


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens streams on which every single operation gets only what is left of the call's time.

    httpx's own time-outs start again at each read, so a server that drips bytes, of the head or
    of the body, would hold a call for as long as it likes.
    """

    def __init__(self) -> None:
        self.call = Call(ends_at=0.0)
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A stream to the first address of the host that takes one, in what is left of the time."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        addresses = _addresses(host, port, self.call.remaining(httpcore.ConnectTimeout))
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # Each gets its share of the time, so that one which swallows packets hides no other.
            share = self.call.remaining(httpcore.ConnectTimeout) / left
            try:
                stream = self._sockets.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(self, stream)
        raise failure


# On, and for no time.
_AT_ONCE = struct.pack("ii", 1, 0)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, backend: DeadlineBackend, stream: httpcore.NetworkStream) -> None:
        self._backend = backend
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._ending_at_once():
            remaining = self._backend.call.remaining(httpcore.ReadTimeout)
            return self._stream.read(max_bytes, remaining)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._ending_at_once():
            remaining = self._backend.call.remaining(httpcore.WriteTimeout)
            self._backend.call.request_started = True
            self._stream.write(buffer, remaining)

    @contextmanager
    def _ending_at_once(self) -> Iterator[None]:
        """At the deadline, have what this machine still keeps of a request thrown away when the
        connection is closed: it would be sent as soon as the other side takes it.
        """
        try:
            yield
        except httpcore.TimeoutException:
            connected: socket.socket = self._stream.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            raise

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        remaining = self._backend.call.remaining(httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, remaining)
        return _DeadlineStream(self._backend, stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


# Made with the module: to read the authorities' certificates takes longer than a call that finds
# nothing new, and a task's process inherits what was made before it was forked.
_TLS = httpx.create_ssl_context(trust_env=False)


class DeadlineTransport(httpx.HTTPTransport):
    """httpx's transport on our backend; it has no argument for one, only its pool has."""

    def __init__(self, backend: DeadlineBackend) -> None:
        super().__init__(verify=_TLS, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=_TLS, max_connections=1, network_backend=backend
        )


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Every address of the host, asked for in a thread: the system's look-up has no time-out of
    ours, so what takes longer than `seconds` is left to itself.
    """
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001
            found.set_exception(error)

    # A daemon, so that a look-up which never ends does not hold up the end of the process.
    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        entries = found.result(seconds)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from error
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"the name {host} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
