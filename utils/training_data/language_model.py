"""Client of a language model behind an OpenAI-compatible API; answers are journaled, so that each is paid for once."""

import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel

from utils.console import print_line, progress_bar
from utils.journal import Journal, journal_key
from utils.records import replace_surrogates
from utils.training_data.api_connections import Connections
from utils.training_data.chat_replies import (
    count_tokens,
    describe_failure,
    first_choice,
    read_answer,
    read_json,
    set_status_of_error,
)

CLIENT_RETRIES = 5  # by the openai client after HTTP 429, 5xx or a time-out; it backs off or obeys Retry-After
MAX_ATTEMPTS = 2  # requests per prompt until an answer is usable; each costs tokens
MAX_FAILURES_IN_A_ROW = 5  # failed requests in succession, after which the endpoint counts as down and the run stops
# HTTP status by which endpoints reject a model's name, structured output, or one prompt: too long, or filtered
REJECTION_STATUS = (400, 403, 404, 413, 415, 422, 501)
PROBE = "Answer with JSON alone, any short example of this schema: "
MAX_REJECTIONS_SHOWN = 3  # lines of an endpoint's reasons; the summary has the number of all
KEY_PART = 8  # characters of the key in a row that no message may show
MAX_ERROR_CHARACTERS = 300  # of an endpoint's own words in an error, which may be a whole page
CHARACTERS_PER_TOKEN = 4  # rough average for English prose, for cost estimates


def _accept_any(answer: BaseModel) -> str:
    return ""


class Request(NamedTuple):
    """A prompt, the schema of its answer, and a check that returns why an answer is unusable, "" if it is usable."""

    prompt: str
    schema: type[BaseModel]
    check: Callable[[Any], str] = _accept_any


class EndpointError(openai.OpenAIError):
    """A reply with HTTP 200 that is no completion."""


class PromptRejectedError(Exception):
    """An endpoint rejects a prompt, and accepts another one sent in the same way."""


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
        ValueError: there is neither a key nor a base URL, or one of them cannot be used; or no model is named and the
            endpoint does not list exactly one, or cannot be reached.

    Attributes:
        entries: journal entries of this run: the `answer`, why attempts `failed`, tokens `read` and `written`, and
            `why` a prompt was rejected.
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
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()  # a file with it may end in a line break
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("OPENAI_API_KEY: holds a character that no key has, such as a line break; set it again")
        address = (api_base or os.environ.get("OPENAI_BASE_URL") or "").strip()
        if not (self._key or address):
            raise ValueError("no language model: set OPENAI_API_KEY, or name an endpoint that needs none by --api-base")
        if address and not _is_url(address):
            raise ValueError("--api-base: must be an address such as http://localhost:11434/v1")
        self._connections = Connections(requests_per_minute)
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=address or None,
            max_retries=CLIENT_RETRIES,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [self._connections.admit], "response": [set_status_of_error]}
            ),
        )
        self.model = model or self._only_model()

    def key(self, request: Request) -> str:
        """Return the journal key of a request: a hash of the model's name, the JSON schema and the prompt. The schema
        holds the docstring and the names of its class, so a change of these loses the answers of earlier journals."""
        return journal_key(self.model, json.dumps(request.schema.model_json_schema()), request.prompt)

    def complete(self, requests: Sequence[Request]) -> list[BaseModel | None]:
        """Send the requests that the journal has no answer to, and return the answer to each; None where no attempt
        gave a usable one, the endpoint rejects the prompt, or the request failed.

        Raises:
            ValueError: the endpoint rejects the key or every request, or is down. Answers until then are in the
                journal.
        """
        keys = [self.key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests) if key not in self.journal.found}
        problem = None
        try:
            failure = self._complete_missing(missing)
            if failure is not None and not any(key in self.journal.found for key in keys):
                problem = self._as_value_error(failure)
        except openai.OpenAIError as error:
            problem = self._as_value_error(error)
        if problem:
            raise problem  # here, without the client's error as its context, which may show the key
        # Models end a text within an emoji.
        answers = [replace_surrogates((self.journal.found.get(key) or {}).get("answer")) for key in keys]
        return [r.schema.model_validate(answer) if answer else None for r, answer in zip(requests, answers)]

    def _complete_missing(self, missing: dict[str, Request]) -> openai.OpenAIError | None:
        """Send requests, by journal key, and add their entries to the journal; return why the last one that failed did,
        None if none has failed."""
        bar = progress_bar(total=len(missing), desc="language model", unit="requests")
        failures, rejected, last_failure = 0, 0, None
        with bar, ThreadPoolExecutor(self.workers) as pool:
            waiting = iter(missing.items())
            running = {}  # future -> journal key
            try:
                while True:
                    while len(running) < 2 * self.workers and (item := next(waiting, None)):
                        key, request = item
                        running[pool.submit(self._complete_with_retries, request)] = key
                    if not running:
                        return last_failure
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        key = running.pop(future)
                        try:
                            entry = future.result()
                            self.journal.add({key: entry})
                            self.entries.append(entry)
                            if "why" in entry and (rejected := rejected + 1) <= MAX_REJECTIONS_SHOWN:
                                print_line(f"rejected    {entry['why']}")
                            failures = 0
                        except openai.OpenAIError as error:
                            failures, last_failure = failures + 1, error
                            self.unanswered += 1
                            if failures >= MAX_FAILURES_IN_A_ROW or not _is_temporary(error):
                                raise
                        bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._connections.abort()
                raise

    def _complete_with_retries(self, request: Request) -> dict[str, Any]:
        """Return the journal entry of a request: the answer or None, why each attempt failed, and the tokens used."""
        entry: dict[str, Any] = {"answer": None, "failed": [], "read": 0, "written": 0}
        for _ in range(MAX_ATTEMPTS):
            try:
                reply = self._send(request)
            except PromptRejectedError as error:
                entry["failed"].append("rejected")
                entry["why"] = str(error)
                break
            read, written = count_tokens(reply)
            entry["read"] += read
            entry["written"] += written
            reason, answer = read_answer(reply, request.schema)
            reason = reason or request.check(answer)
            if not reason:
                entry["answer"] = answer.model_dump()
                break
            entry["failed"].append(reason)
        return entry

    def _send(self, request: Request) -> dict[str, Any]:
        """Return the endpoint's reply, without structured output where the endpoint rejects that.

        Raises:
            PromptRejectedError: the endpoint rejects this prompt alone.
            openai.OpenAIError: the request failed, or the endpoint rejects every prompt.
        """
        for structured in (True, False) if self._structured else (False,):
            try:
                reply = self._post(request.prompt, request.schema if structured else None)
            except openai.APIStatusError as error:
                if error.status_code not in REJECTION_STATUS:
                    raise
                rejection = self._message(error)
            else:
                if not structured:
                    self._structured = False  # the same prompt without it was accepted, so it was the cause
                return reply
        self._post(PROBE + json.dumps(request.schema.model_json_schema()), None)  # fails if every prompt is rejected
        raise PromptRejectedError(rejection)

    def _post(self, prompt: str, schema: type[BaseModel] | None) -> dict[str, Any]:
        """Return the reply to a prompt, as structured output by a schema if there is one."""
        options: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if schema:
            strict = {"name": schema.__name__, "schema": _strict(schema.model_json_schema()), "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": strict}
        # As it came: the client's classes assume that each field of the specification is there.
        reply = read_json(self._client.chat.completions.with_raw_response.create(**options).http_response)
        if not first_choice(reply):
            raise EndpointError(describe_failure(reply))
        return reply

    def _only_model(self) -> str:
        """Return the name of the one model that the endpoint lists."""
        try:
            reply = read_json(self._client.models.with_raw_response.list().http_response)
            models = reply.get("data") if isinstance(reply, dict) else reply
            if not isinstance(models, list):
                raise EndpointError(describe_failure(reply))
            names = [str(model.get("id")) for model in models if isinstance(model, dict)]
        except openai.OpenAIError as error:
            problem = self._as_value_error(error)
        else:
            if len(names) == 1:
                return names[0]
            listed = ", ".join(sorted(names)[:20]) or "it lists none"
            problem = ValueError(f"{self._address}: name the model with --api-model: {listed}")
        raise problem

    @property
    def _address(self) -> str:
        """The base URL without a name, a password or a query, which may be secret."""
        parts = urlsplit(str(self._client.base_url))
        return mask_secret(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", self._key)

    def _as_value_error(self, error: openai.OpenAIError) -> ValueError:
        """Return the error as one line that does not contain the key."""
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            problem = "is refused" if self._key else "is missing"
            return ValueError(f"{self._address}: the API key {problem} (HTTP {status}); set OPENAI_API_KEY")
        problem = f"{self._address}: {self._message(error)}"
        if isinstance(error, EndpointError) or status == 404:
            problem = f"{problem}: it does not speak the API" if isinstance(error, EndpointError) else problem
            if not re.search(r"/v\d", self._address):
                return ValueError(f"{problem}; does --api-base miss /v1?")
        return ValueError(f"{problem}; what was answered is kept, go on by --resume")

    def _message(self, error: openai.OpenAIError) -> str:
        """Return what an error says, without the key."""
        if isinstance(error, openai.APIStatusError):
            words = error.message.removeprefix(f"Error code: {error.status_code}").removeprefix(" - ")
            message = f"HTTP {error.status_code}: {words or error.response.text}"
        else:
            message = f"{error} {error.__cause__ or ''}"
        message = mask_secret(replace_surrogates(" ".join(message.split())), self._key)
        return message if len(message) <= MAX_ERROR_CHARACTERS else f"{message[:MAX_ERROR_CHARACTERS]}..."


def mask_secret(text: str, secret: str) -> str:
    """Return a text with `***` for each part of it that has KEY_PART or more characters of a secret in a row, or all of
    it. Escapes, of JSON, URLs or HTML, only part a secret in more of these."""
    size = min(KEY_PART, len(secret))
    parts = {secret[i : i + size].lower() for i in range(len(secret) - size + 1)} if secret else set()
    hidden = [False] * len(text)
    for i in range(len(text) - size + 1):
        if text[i : i + size].lower() in parts:
            hidden[i : i + size] = [True] * size
    runs = itertools.groupby(zip(text, hidden), key=lambda pair: pair[1])
    return "".join("***" if is_hidden else "".join(letter for letter, _ in run) for is_hidden, run in runs)


def _is_temporary(error: openai.OpenAIError) -> bool:
    """Return whether the next request may succeed all the same."""
    status = getattr(error, "status_code", 0)
    return isinstance(error, openai.APIConnectionError | EndpointError) or status in (408, 409, 429) or status >= 500


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as strict structured output requires it: all fields required, no others allowed."""
    if isinstance(schema, dict):
        schema = {name: _strict(value) for name, value in schema.items() if name != "default"}
        if schema.get("type") == "object":
            schema |= {"additionalProperties": False, "required": list(schema.get("properties", {}))}
    elif isinstance(schema, list):
        schema = [_strict(value) for value in schema]
    return schema
