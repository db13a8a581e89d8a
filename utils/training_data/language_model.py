"""Client of a language model behind an OpenAI-compatible API; answers are journaled, so that each is paid for once."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import openai
from pydantic import BaseModel, ValidationError

from utils.console import progress_bar
from utils.journal import Journal, journal_key

CLIENT_RETRIES = 5  # by the openai client after HTTP 429, 5xx or a time-out; it backs off or obeys Retry-After
MAX_ATTEMPTS = 2  # requests per prompt until an answer is usable; each costs tokens
MAX_FAILURES_IN_A_ROW = 5  # failed requests in succession, after which the endpoint counts as down and the run stops
UNSTRUCTURED_STATUS = (400, 404, 415, 422, 501)  # HTTP status by which endpoints reject structured output
CHARACTERS_PER_TOKEN = 4  # rough average for English prose, for cost estimates


def _accept_any(answer: BaseModel) -> str:
    return ""


class Request(NamedTuple):
    """A prompt, the schema of its answer, and a check that returns why an answer is unusable, "" if it is usable."""

    prompt: str
    schema: type[BaseModel]
    check: Callable[[Any], str] = _accept_any


class LanguageModel:
    """Chat model that answers in JSON, by a schema.

    The API key is the environment variable OPENAI_API_KEY; it is sent to the endpoint and stored nowhere.

    Args:
        model: name of the model at the endpoint; None for the only one that it lists.
        journal: stores answers as they arrive; requests with an answer there are not sent.
        api_base: base URL of the endpoint; None for the environment variable OPENAI_BASE_URL, or OpenAI's.
        workers: concurrent requests.
        requests_per_minute: limit for all workers together, retries included; None for no limit.
        timeout: seconds per request.

    Raises:
        ValueError: there is neither a key nor a base URL; or no model is named and the endpoint does not list exactly
            one, or cannot be reached.

    Attributes:
        entries: journal entries of this run: the `answer`, why attempts `failed`, tokens `read` and `written`.
        unanswered: number of requests that failed and are sent again by a resumed run.
    """

    def __init__(
        self,
        model: str | None,
        journal: Journal,
        api_base: str | None = None,
        workers: int = 8,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.journal, self.workers = journal, workers
        self.entries: list[dict[str, Any]] = []
        self.unanswered = 0
        self._structured = True
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0  # seconds between two requests
        self._next_time, self._lock = 0.0, threading.Lock()
        self._key = os.environ.get("OPENAI_API_KEY", "")
        if not (self._key or api_base or os.environ.get("OPENAI_BASE_URL")):
            raise ValueError("no language model: set OPENAI_API_KEY, or name an endpoint that needs none by --api-base")
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=api_base,
            max_retries=CLIENT_RETRIES,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._wait_for_turn]}),
        )
        self.model = model or self._only_model()

    def key(self, request: Request) -> str:
        """Return the journal key of a request: a hash of the model's name, the JSON schema and the prompt. The schema
        holds the docstring and the names of its class, so a change of these loses the answers of earlier journals."""
        return journal_key(self.model, json.dumps(request.schema.model_json_schema()), request.prompt)

    def complete(self, requests: Sequence[Request]) -> list[BaseModel | None]:
        """Send the requests that the journal has no answer to, and return the answer to each; None where no attempt
        gave a usable one, or the request failed.

        Raises:
            ValueError: the endpoint rejects the key or a request, or is down. Answers until then are in the journal.
        """
        keys = [self.key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests) if key not in self.journal.found}
        bar = progress_bar(total=len(missing), desc="language model", unit="requests")
        failures = 0
        with bar, ThreadPoolExecutor(self.workers) as pool:
            waiting = iter(missing.items())
            running = {}  # future -> journal key
            try:
                while True:
                    while len(running) < 2 * self.workers and (item := next(waiting, None)):
                        key, request = item
                        running[pool.submit(self._complete_with_retries, request)] = key
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        key = running.pop(future)
                        try:
                            entry = future.result()
                            self.journal.add({key: entry})
                            self.entries.append(entry)
                            failures = 0
                        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError):
                            failures += 1
                            self.unanswered += 1
                            if failures >= MAX_FAILURES_IN_A_ROW:
                                raise
                        bar.update()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                self._client.close()  # aborts the requests in flight
                raise self._as_value_error(error) if isinstance(error, openai.OpenAIError) else error from None
        entries = [self.journal.found.get(key) or {} for key in keys]
        return [r.schema.model_validate(e["answer"]) if e.get("answer") else None for r, e in zip(requests, entries)]

    def _complete_with_retries(self, request: Request) -> dict[str, Any]:
        """Return the journal entry of a request: the answer or None, why each attempt failed, and the tokens used."""
        reasons, read, written = [], 0, 0
        answer = None
        for _ in range(MAX_ATTEMPTS):
            reply = self._send(request)
            read += reply.usage.prompt_tokens if reply.usage else 0
            written += reply.usage.completion_tokens if reply.usage else 0
            reason, answer = self._check_reply(reply, request)
            if answer is not None:
                break
            reasons.append(reason)
        return {"answer": answer, "failed": reasons, "read": read, "written": written}

    def _check_reply(self, reply: Any, request: Request) -> tuple[str, dict | None]:
        """Return ("", answer), or (why the reply is unusable, None)."""
        if not reply.choices:
            return "malformed", None
        choice = reply.choices[0]
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return "refused", None
        try:
            answer = request.schema.model_validate(parse_first_object(choice.message.content or ""))
        except (ValueError, ValidationError):
            return "malformed", None
        reason = request.check(answer)
        return (reason, None) if reason else ("", answer.model_dump())

    def _send(self, request: Request) -> Any:
        """Return the endpoint's reply, without structured output where the endpoint rejects that."""
        options = {"model": self.model, "messages": [{"role": "user", "content": request.prompt}]}
        if self._structured:
            strict = _strict(request.schema.model_json_schema())
            schema = {"name": request.schema.__name__, "schema": strict, "strict": True}
            try:
                return self._client.chat.completions.create(
                    **options, response_format={"type": "json_schema", "json_schema": schema}
                )
            except openai.APIStatusError as error:
                if error.status_code not in UNSTRUCTURED_STATUS or "model" in (getattr(error, "param", None) or ""):
                    raise
        reply = self._client.chat.completions.create(**options)
        self._structured = False  # the request without it succeeded, so it was the cause
        return reply

    def _only_model(self) -> str:
        """Return the name of the one model that the endpoint lists."""
        try:
            names = [model.id for model in self._client.models.list()]
        except openai.OpenAIError as error:
            raise self._as_value_error(error) from None
        if len(names) != 1:
            listed = ", ".join(sorted(names)[:20]) or "it lists none"
            raise ValueError(f"{self._client.base_url}: name the model with --api-model: {listed}")
        return names[0]

    def _wait_for_turn(self, http_request: Any) -> None:
        """Sleep until the rate limit permits another HTTP request, the client's own retries included."""
        if self._interval:
            with self._lock:
                turn = max(self._next_time, time.monotonic())
                self._next_time = turn + self._interval
            time.sleep(max(0.0, turn - time.monotonic()))

    def _as_value_error(self, error: openai.OpenAIError) -> ValueError:
        """Return the error as one line that does not contain the key."""
        address = str(self._client.base_url)
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            problem = "is refused" if self._key else "is missing"
            return ValueError(f"{address}: the API key {problem} (HTTP {error.status_code}); set OPENAI_API_KEY")
        if isinstance(error, openai.APIStatusError):
            message = f"HTTP {error.status_code}: {error.message}"
        else:
            message = f"{error} {error.__cause__ or ''}".strip()
        message = message.replace(self._key, "***") if self._key else message
        return ValueError(f"{address}: {message}; what was answered is kept, go on by --resume")


def parse_first_object(text: str) -> Any:
    """Return the first JSON object in a text, which models often wrap in a code fence or in prose.

    Raises:
        ValueError: there is none.
    """
    decoder = json.JSONDecoder()
    for brace in re.finditer(r"\{", text):
        try:
            return decoder.raw_decode(text, brace.start())[0]
        except ValueError:
            continue
    raise ValueError("no JSON object")


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as strict structured output requires it: all fields required, no others allowed."""
    if isinstance(schema, dict):
        schema = {name: _strict(value) for name, value in schema.items() if name != "default"}
        if schema.get("type") == "object":
            schema |= {"additionalProperties": False, "required": list(schema.get("properties", {}))}
    elif isinstance(schema, list):
        schema = [_strict(value) for value in schema]
    return schema
