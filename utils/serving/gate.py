"""What is let in: hosts, origins, the token, and how much is read of a request and for how long."""

import asyncio
import contextlib
import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from utils.serving.metrics import Metrics

MAX_BODY = 2**20  # bytes
BODY_SECONDS = 10.0  # that a client may take for them
LINGER_BODY, LINGER_SECONDS = 8 * MAX_BODY, 5.0  # of a refused body, what is read past; then the connection is reset
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^][:/@\s]+)(?::\d{1,5})?")
OPEN_PATHS = ("/", "/health")  # that need no token
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):
    """A request that is not let in, with the status of the response, and why."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        self.status, self.reason, self.headers = status, reason, headers


class Access(NamedTuple):
    """Who may ask.

    Attributes:
        hosts: names by which the server may be called, without a port.
        any_address: whether it may be called by any IP address; otherwise by those of the loopback alone.
        origins: of other sites whose pages may ask, as https://example.com.
        token: that a request has to have; None for none.
    """

    hosts: Collection[str]
    any_address: bool
    origins: Collection[str] = ()
    token: str | None = None

    def check(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Check a request by its headers.

        Raises:
            Refused: it may not come in.
        """
        host = headers.get("host", "").lower()
        match = HOST.fullmatch(host)
        if not match or not self._is_own(match[1].strip("[]")):
            raise Refused(421, "this server is not called by that Host")  # a page that rebinds its name to us is
        origin = headers.get("origin", "").lower()
        if origin and origin not in (f"http://{host}", f"https://{host}", *self.origins):
            raise Refused(403, "pages of other sites may not ask; --allow-origin names those that may")
        if self.token is None or path in OPEN_PATHS or method == "OPTIONS":
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
        if kind.lower() != "bearer" or not known:
            raise Refused(
                401, "needs the token of this server, as Authorization: Bearer", **{"WWW-Authenticate": "Bearer"}
            )

    def _is_own(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.hosts
        return self.any_address or address.is_loopback


def check_origin(text: str) -> str:
    """Return an origin as browsers write it.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text.lower())
    if parts.scheme not in ("http", "https") or not parts.netloc or f"{parts.scheme}://{parts.netloc}" != text.lower():
        raise ValueError(f"'{text}' is no origin, such as https://example.com")
    return text.lower()


def error_body(reason: str, kind: str = "Validation") -> dict[str, str]:
    """Return what is answered in place of a result, as text-embeddings-inference has it."""
    return {"error": reason, "error_type": kind}


class Gate:
    """ASGI middleware that refuses what `access` does, and too large or too slow a body, before anything is parsed;
    counts requests; and adds HEADERS to all responses.

    Args:
        paths: those that are counted by their name.
    """

    def __init__(self, app: Callable[..., Awaitable], access: Access, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._access, self._metrics, self._paths = app, access, metrics, paths

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        path = scope["path"] if scope["path"] in self._paths else "other"

        async def send_and_count(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path, message["status"]).inc()
                message["headers"] = [*message.get("headers", ()), *_encoded(HEADERS)]
            await send(message)

        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._access.check(scope["method"], scope["path"], headers)
            body = await _read(receive, headers.get("content-length", ""))
        except Refused as refused:
            await _refuse(receive, send_and_count, refused)
            return
        if body is None:
            return
        try:
            await self._app(scope, _replay(body, receive), send_and_count)
        except Exception:  # is answered further out
            self._metrics.requests.labels(path, 500).inc()
            raise


async def _read(receive: Callable, length: str) -> bytes | None:
    """Return the body of a request, None of a client that has left.

    Raises:
        Refused: it is too large, or too slow.
    """
    too_large = Refused(413, f"the body of a request may have {MAX_BODY:,} bytes", Connection="close")
    if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY:
        raise too_large
    body, deadline = b"", asyncio.get_running_loop().time() + BODY_SECONDS
    while True:
        try:
            message = await asyncio.wait_for(receive(), deadline - asyncio.get_running_loop().time())
        except asyncio.TimeoutError:
            raise Refused(408, "the body did not come in time", Connection="close") from None
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise too_large
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Callable) -> Callable:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> dict[str, Any]:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(receive: Callable, send: Callable, refused: Refused) -> None:
    body = json.dumps(error_body(refused.reason)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    await send({"type": "http.response.start", "status": refused.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if refused.status == 413:  # a client that still sends would find the connection reset, and no answer
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_read_past(receive), LINGER_SECONDS)
    await send({"type": "http.response.body"})


async def _read_past(receive: Callable) -> None:
    size = 0
    while size < LINGER_BODY:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
