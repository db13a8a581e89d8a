"""The socket of the service, and its start and end."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from types import FrameType
from urllib.parse import urlsplit

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from utils.console import print_line
from utils.serving.gate import Access, check_origin

TOKEN_VARIABLE = "SPLADE_TOKEN"
MIN_TOKEN = 16  # characters
HEADER_SECONDS = 10.0  # that a client may take for the head of a request
CLOSING_SECONDS = 10  # that requests have to end in, when the server is to stop
MAX_CONNECTIONS = 512


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; what asks before the server has begun waits.

    Raises:
        OSError: the address is in use, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(MAX_CONNECTIONS)
    except OSError as error:
        raise OSError(f"`host={host}`, `port={port}`: {error.strerror or error}") from None
    return listening


def resolve_access(host: str, origins: Sequence[str]) -> Access:
    """Return who may ask a server on `host`; the names of allowed origins are names by which it may be called, as that
    of a proxy before it is.

    Raises:
        ValueError: an origin is none; or there is no token, or too short a one, and one is needed.
    """
    origins = [check_origin(origin) for origin in origins]
    names = {"localhost", host.lower(), *(urlsplit(origin).hostname for origin in origins)}
    local, token = _is_loopback(host), os.environ.get(TOKEN_VARIABLE) or None
    if not local:
        names.add(socket.gethostname().lower())
        if not token:
            raise ValueError(
                f"`host={host}` can be reached from elsewhere: set {TOKEN_VARIABLE} to a secret, or leave it"
            )
    if token and (len(token) < MIN_TOKEN or not token.isascii() or token != token.strip()):
        raise ValueError(f"{TOKEN_VARIABLE}: must have at least {MIN_TOKEN} characters of ASCII, without spaces around")
    return Access(names, not local, origins, token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _TimedProtocol(H11Protocol):
    """Closes connections on which the head of a request does not come in time, or what is no HTTP comes after a
    response has begun."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            self._stop_timer()
        elif not self._timer:
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # a response is under way, or was the last thing that could be said
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(error)

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, and then those that are under way; return when all is written."""
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http=_TimedProtocol,
        ws="none",
        log_level="error",  # what is no HTTP is no news
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    with _ended_by_signals():
        print_line(f"http://{name}:{port}/ (Ctrl-C ends it)")
        uvicorn.Server(config).run([listening])
    print_line("ended")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again once it has ended by them."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
