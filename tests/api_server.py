"""Local HTTP server with the API of OpenAI's chat completions; it stands in for the model and simulates failures."""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple


class Request(NamedTuple):
    """A request received: `number` counts requests for completions from 1 on, `attempt` those with the same prompt."""

    number: int
    attempt: int
    body: dict
    key: str
    time: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


class Reply(NamedTuple):
    """A reply to send, after `wait` seconds: JSON, or a page of HTML if the body is text; with `cut`, half of the body
    before the connection is closed."""

    body: dict | list | str
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    cut: bool = False
    wait: float = 0.0


def completion(content: str | None, finish: str = "stop", refusal: str | None = None) -> Reply:
    """Return a chat completion of 100 prompt and 20 completion tokens."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """Return an error; underscores in the names of headers stand for hyphens."""
    return Reply({"error": {"message": message, "type": "error", "code": status}}, status, headers)


def written(request: Request) -> str:
    """Return a usable answer in the JSON format that the prompt specifies."""
    prompt = request.prompt
    if '{"terms": ' in prompt:
        field = re.search(r"Field: (.*)", prompt)
        count = int(re.search(r"Name (\d+)", prompt)[1])
        return json.dumps({"terms": [f"{field[1] if field else 'field'} {i}" for i in range(1, count + 1)]})
    if '"title": "..."' in prompt:
        term = re.search(r"Term: (.*)", prompt)[1]
        text = " ".join(random.Random(term).choices(WORDS, k=60))
        return json.dumps({"title": term.capitalize(), "text": f"{term} holds the {text}."})
    if '{"query": "..."}' in prompt:
        return json.dumps({"query": f"in other words: {prompt.partition('Query: ')[2][::-1]}"})
    return _queries(prompt)


WORDS = (
    "axle",
    "bolt",
    "chain",
    "door",
    "engine",
    "frame",
    "gear",
    "hose",
    "jack",
    "lamp",
    "oil",
    "pump",
    "rim",
    "seal",
)


def _queries(prompt: str) -> str:
    """Return queries of the requested types, from words of the passage, and negatives of the requested strategies."""
    task, _, passage = prompt.partition("Passage:\n")
    types = re.findall(r"^\d+\. (\w+):", task, re.MULTILINE)
    strategies = re.findall(r"^- ([\w ]+): it", task, re.MULTILINE)
    words = [word for word in re.findall(r"\w{4,}", passage) if word.islower()]
    queries = [
        {"type": kind, "query": f"{kind} about {words[0]} {words[i + 1]} case{i}"} for i, kind in enumerate(types)
    ]
    negatives = [
        {"strategy": s, "document": f"Other {words[0]} by {s}", "explanation": "it differs"} for s in strategies
    ]
    return json.dumps({"queries": queries, "negatives": negatives})


def good(request: Request) -> Reply:
    """Return a completion with a usable answer."""
    return completion(written(request))


class ApiServer:
    """HTTP server on a free local port, until `close`.

    Args:
        behave: returns the reply to a request for a completion.
        models: names that the endpoint lists.

    Attributes:
        url: base URL, for --api-base.
        elsewhere: the reply to requests outside of it.
        requests: the requests for completions so far.
    """

    def __init__(self, behave: Callable[[Request], Reply] = good, models: tuple[str, ...] = ("played",)) -> None:
        self.behave, self.models = behave, models
        self.requests: list[Request] = []
        self.elsewhere = Reply("<!doctype html><title>A page for people</title>")
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # which holds each reply back for 40 ms

            def do_GET(self) -> None:
                if not self.path.startswith("/v1/"):
                    self.send(server.elsewhere)
                    return
                self.send(Reply({"object": "list", "data": [{"id": m, "object": "model"} for m in server.models]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.startswith("/v1/"):
                    self.send(server.elsewhere)
                    return
                prompt = body["messages"][-1]["content"]
                with server._lock:
                    attempt = 1 + sum(request.prompt == prompt for request in server.requests)
                    key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                    request = Request(len(server.requests) + 1, attempt, body, key, time.monotonic())
                    server.requests.append(request)
                self.send(server.behave(request))

            def send(self, reply: Reply) -> None:
                time.sleep(reply.wait)
                is_page = isinstance(reply.body, str)
                data = (reply.body if is_page else json.dumps(reply.body)).encode()
                kind = "text/html" if is_page else "application/json"
                try:
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Type": kind}.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if reply.cut else data)
                except OSError:  # the client has disconnected
                    self.close_connection = True
                if reply.cut:
                    self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # prints a traceback for clients that disconnect
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
