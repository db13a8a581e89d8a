"""The HTTP requests of concurrent workers: their rate, and their end."""

import contextlib
import socket
import threading
import time
from typing import Any


class AbortedError(BaseException):
    """A run ends. No Exception, which the client would take for a reason to try again."""


class Connections:
    """Hook for the requests of an httpx client, which spreads them evenly over each minute, the client's own retries
    included, and ends those in flight when the run ends.

    Args:
        requests_per_minute: None for no limit.
    """

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0  # seconds between two requests
        self._next_time, self._lock = 0.0, threading.Lock()
        self._sockets: list[socket.socket] = []
        self._aborted = threading.Event()

    def admit(self, http_request: Any) -> None:
        """Sleep until the rate limit permits another request."""
        http_request.extensions["trace"] = self._trace
        with self._lock:
            turn = max(self._next_time, time.monotonic())
            self._next_time = turn + self._interval
        if self._aborted.wait(turn - time.monotonic()):
            raise AbortedError

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def abort(self) -> None:
        """End the requests in flight, and admit no others."""
        self._aborted.set()
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)  # which wakes the thread that reads from it, as close does not
