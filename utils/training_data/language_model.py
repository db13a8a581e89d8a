"""Questions to a language model behind an OpenAI-compatible API, each paid for once."""

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

CLIENT_RETRIES = 5  # after 429, 5xx and time-outs, by the client, with growing pauses or as long as Retry-After says
MAX_ATTEMPTS = 2  # at an answer that can be used
MAX_FAILURES_IN_A_ROW = 5  # requests without an answer, one after the other, after which the endpoint counts as gone
UNSTRUCTURED_STATUS = (400, 404, 415, 422, 501)  # what endpoints say that do not know structured output
CHARACTERS_PER_TOKEN = 4  # of English prose, on average


def _accept_any(answer: BaseModel) -> str:
    return ""


class Request(NamedTuple):
    """A prompt, what an answer has to be, and what tells why one cannot be used, "" if it can."""

    prompt: str
    schema: type[BaseModel]
    check: Callable[[Any], str] = _accept_any


class LanguageModel:
    """A chat model that answers in JSON.

    The key is OPENAI_API_KEY, of the environment, and goes nowhere but to the endpoint.

    Args:
        model: its name at the endpoint; None for the only one that it has.
        journal: where answers are kept as they come; what is there already is not asked again.
        api_base: the endpoint's address; None for OPENAI_BASE_URL, or OpenAI's.
        workers: requests at a time.
        requests_per_minute: at most; None for no limit.
        timeout: seconds.

    Raises:
        ValueError: there is neither a key nor an address, or no model is named and the endpoint has not just one.

    Attributes:
        entries: what the journal was told in this run: `answer`, why attempts `failed`, tokens `read` and `written`.
        unanswered: requests without an answer, which a resumed run asks again.
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
        self._pause = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next, self._clock = 0.0, threading.Lock()
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

    def key(self, question: Request) -> str:
        """What the question's answer is called in the journal."""
        return journal_key(self.model, json.dumps(question.schema.model_json_schema()), question.prompt)

    def complete(self, questions: Sequence[Request]) -> list[BaseModel | None]:
        """The answer to each question, None where there was none that could be used.

        Raises:
            ValueError: the endpoint refuses the key or the request, or is gone. What came until then is kept.
        """
        keys = [self.key(question) for question in questions]
        missing = {key: question for key, question in zip(keys, questions) if key not in self.journal.found}
        bar = progress_bar(total=len(missing), desc="asking", unit="questions")
        failures = 0
        with bar, ThreadPoolExecutor(self.workers) as pool:
            waiting = iter(missing.items())
            running = {}
            try:
                while True:
                    while len(running) < 2 * self.workers and (item := next(waiting, None)):
                        running[pool.submit(self._complete_with_retries, item[1])] = item[0]
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
                self._client.close()  # ends the requests on their way
                raise self._as_value_error(error) if isinstance(error, openai.OpenAIError) else error from None
        found = [self.journal.found.get(key) or {} for key in keys]
        return [q.schema.model_validate(e["answer"]) if e.get("answer") else None for q, e in zip(questions, found)]

    def _complete_with_retries(self, question: Request) -> dict[str, Any]:
        """The journal's entry for a question: the answer, or None, and why each attempt failed; tokens."""
        reasons, read, written = [], 0, 0
        answer = None
        for _ in range(MAX_ATTEMPTS):
            reply = self._send(question)
            read += reply.usage.prompt_tokens if reply.usage else 0
            written += reply.usage.completion_tokens if reply.usage else 0
            reason, answer = self._check_reply(reply, question)
            if answer is not None:
                break
            reasons.append(reason)
        return {"answer": answer, "failed": reasons, "read": read, "written": written}

    def _check_reply(self, reply: Any, question: Request) -> tuple[str, dict | None]:
        """(why it cannot be used, None) or ("", the answer)."""
        if not reply.choices:
            return "malformed", None
        choice = reply.choices[0]
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return "refused", None
        try:
            answer = question.schema.model_validate(first_object(choice.message.content or ""))
        except (ValueError, ValidationError):
            return "malformed", None
        reason = question.check(answer)
        return (reason, None) if reason else ("", answer.model_dump())

    def _send(self, question: Request) -> Any:
        options = {"model": self.model, "messages": [{"role": "user", "content": question.prompt}]}
        if self._structured:
            strict = _strict(question.schema.model_json_schema())
            schema = {"name": question.schema.__name__, "schema": strict, "strict": True}
            try:
                return self._client.chat.completions.create(
                    **options, response_format={"type": "json_schema", "json_schema": schema}
                )
            except openai.APIStatusError as error:
                if error.status_code not in UNSTRUCTURED_STATUS or "model" in (getattr(error, "param", None) or ""):
                    raise
        reply = self._client.chat.completions.create(**options)
        self._structured = False  # the same request without a schema was answered
        return reply

    def _only_model(self) -> str:
        try:
            names = [model.id for model in self._client.models.list()]
        except openai.OpenAIError as error:
            raise self._as_value_error(error) from None
        if len(names) != 1:
            some = ", ".join(sorted(names)[:20]) or "it lists none"
            raise ValueError(f"{self._client.base_url}: name the model with --api-model: {some}")
        return names[0]

    def _wait_for_turn(self, request: Any) -> None:
        """Before each request, the client's own retries too."""
        if self._pause:
            with self._clock:
                turn = max(self._next, time.monotonic())
                self._next = turn + self._pause
            time.sleep(max(0.0, turn - time.monotonic()))

    def _as_value_error(self, error: openai.OpenAIError) -> ValueError:
        """The error in one line, without the key."""
        address = str(self._client.base_url)
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            known = "is refused" if self._key else "is missing"
            return ValueError(f"{address}: the API key {known} (HTTP {error.status_code}); set OPENAI_API_KEY")
        if isinstance(error, openai.APIStatusError):
            said = f"HTTP {error.status_code}: {error.message}"
        else:
            said = f"{error} {error.__cause__ or ''}".strip()
        said = said.replace(self._key, "***") if self._key else said
        return ValueError(f"{address}: {said}; what was answered is kept, go on by --resume")


def first_object(text: str) -> Any:
    """The first JSON object in a text, in a code fence or among other words as models write it.

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
    """The schema as strict structured output wants it: every field required, no others."""
    if isinstance(schema, dict):
        schema = {name: _strict(value) for name, value in schema.items() if name != "default"}
        if schema.get("type") == "object":
            schema |= {"additionalProperties": False, "required": list(schema.get("properties", {}))}
    elif isinstance(schema, list):
        schema = [_strict(value) for value in schema]
    return schema
