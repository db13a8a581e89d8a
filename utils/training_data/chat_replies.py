"""What a reply to a chat completion holds: its answer, its tokens, or an error.

Servers of the same API differ in that. Seen: reasoning in the content, before `</think>`, or as a part of a list
(Mistral); an answer in the field of the reasoning, where a schema is imposed on it (LM Studio, vLLM); token counts that
are null; an error under HTTP 200, once a model has begun (OpenRouter) or for a path that is none (LM Studio).
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

REASONING_FIELDS = ("reasoning_content", "reasoning")
THINKING, THINKING_ENDS = "<think>", "</think>"


def read_json(response: Any) -> Any:
    """Return the value of an HTTP response's JSON, None if it has none."""
    try:
        return response.json()
    except ValueError:
        return None


def first_choice(reply: Any) -> dict[str, Any]:
    """Return the first choice of a reply, {} if it has none."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _find_error(reply: Any) -> Any:
    """Return the error that a reply holds in place of an answer, or in its first choice; None if there is none."""
    return (reply.get("error") if isinstance(reply, dict) else None) or first_choice(reply).get("error")


def _error_status(reply: Any) -> int | None:
    """Return the HTTP status that the error in a reply names, None where there is no error or it names none."""
    error = _find_error(reply)
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if code.isdecimal() and 400 <= int(code) < 600 else None


def set_status_of_error(response: Any) -> None:
    """Give an HTTP response with an error under status 200 the status that the error names, so that a client treats it
    as any other error."""
    if response.status_code == 200:
        response.read()
        response.status_code = _error_status(read_json(response)) or 200


def describe_failure(reply: Any) -> str:
    """Return what came under HTTP 200 in place of a reply of the API."""
    error = _find_error(reply)
    message = error.get("message") if isinstance(error, dict) else error
    return f"HTTP 200: {message}" if message else f"HTTP 200 without {'JSON' if reply is None else 'an answer'}"


def count_tokens(reply: dict[str, Any]) -> tuple[int, int]:
    """Return (prompt tokens, completion tokens) as the server counted them, 0 where it did not."""
    usage = reply.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else 0 for count in counts)
    return read, written


def read_answer(reply: dict[str, Any], schema: type[BaseModel]) -> tuple[str, BaseModel | None]:
    """Return ("", answer), or ("refused", "cut short" or "malformed", and None) where no answer fits the schema."""
    choice = first_choice(reply)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused", None
    is_cut = choice.get("finish_reason") == "length"
    for text in _answer_texts(message, is_cut):
        answer = parse_last_object(text, schema)
        if answer is not None:
            return "", answer
    return "cut short" if is_cut else "malformed", None


def _answer_texts(message: dict[str, Any], is_cut: bool) -> Iterator[str]:
    """Yield the parts of a message that may hold the answer, the likeliest first; never the drafts of a model that was
    cut short while it was reasoning."""
    content = _join_parts(message.get("content"))
    _, ends, answer = content.rpartition(THINKING_ENDS)
    if not (is_cut and not ends and content.lstrip().startswith(THINKING)):
        yield answer
    if ends and content.lstrip().startswith(("{", "```")):  # the answer itself speaks of such tags
        yield content
    if not content.strip() and not is_cut:
        for field in REASONING_FIELDS:
            yield _join_parts(message.get(field))


def _join_parts(content: Any) -> str:
    """Return the text of a content, which is a string or a list of strings and of parts by type."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def parse_last_object(text: str, schema: type[BaseModel]) -> BaseModel | None:
    """Return the last JSON object in a text that fits the schema, None if there is none. Models wrap it in a code fence
    or in prose, and quote the format or drafts before it."""
    decoder = json.JSONDecoder(strict=False)  # they leave line breaks in strings, too
    found = None
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, after = decoder.raw_decode(text, start)
            found, end = schema.model_validate(value), after
        except ValueError:
            pass
        except RecursionError:  # a model that repeats itself
            break
        start = text.find("{", end)
    return found
