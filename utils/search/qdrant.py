"""Requests to a Qdrant server or cluster by its REST API: its URL and key, what is tried again, and what is said of
failures."""

import json
import os
import time
import warnings
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import pydantic
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import UpdateStatus

from utils.console import print_line

API_KEY = "QDRANT_API_KEY"  # the environment variable
PORT = 6333  # of a URL without one
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds before the second try, twice as long before each further one
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that another try may not meet
MAX_CHARACTERS = 200  # of what a server says is wrong

Result = TypeVar("Result")


def server_url(text: str) -> str:
    """Return a server's URL with its port.

    Raises:
        ValueError: it is none of http or https, or holds a name or a key.
    """
    if "@" in text:
        raise ValueError(f"the URL of a server must not hold a name or a key: set {API_KEY} in the environment")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:  # of a port, or of brackets
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ValueError(f"'{text}' is no URL of a server, such as http://localhost:{PORT}")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"


class Server:
    """A server that several threads may send requests to at once. The API key is that of the environment variable
    QDRANT_API_KEY.

    Args:
        url: see `server_url`.
        retries: further tries of a request, with growing pauses, where the server is busy, fails, or is out of reach.
            All requests are such that one may be made twice.
        timeout: seconds that a try may take.

    Raises:
        ValueError: no such URL, or key.
    """

    def __init__(self, url: str, retries: int, timeout: int) -> None:
        self.url, self._retries = server_url(url), retries
        key = os.environ.get(API_KEY, "").strip() or None
        if key and not (key.isascii() and key.isprintable()):  # what could not be sent would be shown
            raise ValueError(f"{API_KEY} holds characters that no key has")
        if key and self.url.startswith("http:") and urlsplit(self.url).hostname not in LOOPBACK:
            print_line(f"{self.url}: {API_KEY} is sent there unencrypted, which https:// would not do")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which says the same
            self.client = QdrantClient(url=self.url, api_key=key, timeout=timeout, check_compatibility=False)

    def request(self, send: Callable[[], Result]) -> Result:
        """Return what a call of the client returns, after more tries if need be.

        Raises:
            OSError: all failed, or the server refuses, or is no Qdrant server.
        """
        for tries in range(1, self._retries + 2):
            try:
                result = send()
                if getattr(result, "status", None) != UpdateStatus.WAIT_TIMEOUT:
                    return result
                reason, wait = "it takes too long to store what it was sent", None
            except (UnexpectedResponse, ResponseHandlingException, QdrantException, ValueError) as error:
                reason, wait = self._transient_reason(error)
            if tries <= self._retries:
                wait = min(wait or FIRST_WAIT * 2 ** (tries - 1), LONGEST_WAIT)
                print_line(f"{self.url}: {reason}; trying again in {wait:g} s")
                time.sleep(wait)
        raise ConnectionError(f"{self.url}: {reason}; given up after {tries} {'tries' if tries > 1 else 'try'}")

    def _transient_reason(self, error: Exception) -> tuple[str, float | None]:
        """Return why a request failed that may succeed later, and in how many seconds, if the server says so.

        Raises:
            OSError: the request would fail again.
        """
        cause = getattr(error, "source", error)  # of what is between the client and the answer
        if isinstance(cause, ResourceExhaustedResponse):
            return "it is busy", float(cause.retry_after_s)
        if isinstance(cause, QdrantException):  # of 429 with a date
            return "it is busy", None
        if isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.UnsupportedProtocol):
            return _one_line(str(cause)) or type(cause).__name__, None
        if isinstance(cause, UnexpectedResponse):
            status, said = cause.status_code, _said(cause)
            if status in TRANSIENT:
                return f"it answers {status}{': ' if said else ''}{said}", None
            if status in (401, 403):
                raise PermissionError(f"{self.url}: the server takes no such API key ({status}); set {API_KEY}")
            if said:
                raise OSError(f"{self.url}: the server answers {status}: {said}")
            raise OSError(f"{self.url}: no Qdrant server answers there ({status}); is the URL right?")
        if isinstance(cause, json.JSONDecodeError | pydantic.ValidationError | ResponseHandlingException):
            raise OSError(f"{self.url}: no Qdrant server answers there; is the URL right?")
        raise cause


def _said(error: UnexpectedResponse) -> str:
    """Return what Qdrant says is wrong, "" if this is not how it says so."""
    try:
        return _one_line(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 3]}..."
